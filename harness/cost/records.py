"""Records of measured costs, with raw samples: one JSON file per setting in results/cost/<kind>/<device>/."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.compute import atomic
from harness.compute.provenance import provenance
from harness.cost.conditions import device_folder, machine_name
from harness.cost.equivalence import DRIFT, drift
from harness.cost.timing import Timings
from harness.errors import UserError

SCHEMA = 1
DISTURBED = 0.9  # a lower processor share means a disturbance: convolutions keep all threads busy


def write(
    results: Path,
    kind: str,
    name: str,
    device: torch.device,
    content: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    timings: Timings,
) -> Path:
    """Write results/cost/`kind`/<device>/`name`.json and return its path.

    arms: facts about every arm in addition to its times. The record has schema, kind, name, machine, `content`, order
    (of the arms in every round, by position), drift, processor_share, warnings, provenance, and arms {name: its facts,
    warmup, nanoseconds [rounds][block]}.
    """
    moved = drift(timings.nanoseconds)
    record = {
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "machine": machine_name(device),
        **content,
        "processor_share": timings.processor_share,
        "drift": moved,
        "warnings": warnings(timings, moved, content.get("conditions", {})),
        "provenance": provenance(str(device)),
        "order": timings.order,
        "arms": {
            arm: {**known, "warmup": timings.warmup[arm], "nanoseconds": timings.nanoseconds[arm].tolist()}
            for arm, known in arms.items()
        },
    }
    path = Path(results) / "cost" / kind / device_folder(device) / f"{name}.json"
    atomic.write_text(path, json.dumps(record, allow_nan=False) + "\n")
    return path


def read_all(results: Path, kind: str) -> list[dict[str, Any]]:
    """All records of a kind, those of GPUs first, then by path, with samples as int64 arrays [rounds, block].

    Raises UserError for a file that is damaged or has another schema.
    """
    records = []
    found = (Path(results) / "cost" / kind).glob("*/*.json")
    for path in sorted(found, key=lambda path: (path.parent.name.startswith("cpu-"), path)):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"{path} is damaged: remove it and measure again") from None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise UserError(f"{path} has another schema than {SCHEMA}: remove it and measure again")
        for arm in record["arms"].values():
            arm["nanoseconds"] = np.array(arm["nanoseconds"], np.int64)
        records.append(record | {"device": path.parent.name})
    return records


def warnings(timings: Timings, moved: float, conditions: Mapping[str, Any]) -> list[str]:
    """Reasons to doubt a measurement."""
    found = []
    if abs(moved - 1) > DRIFT:
        found.append(f"drift: the last third of the rounds took {moved:.2f} times as long as the first")
    if unstable := [arm for arm, state in timings.warmup.items() if not state["stable"]]:
        found.append(f"not stable after the warm-up: {', '.join(unstable)}")
    if timings.processor_share is not None and timings.processor_share < DISTURBED:
        found.append(f"disturbed: the process had {100 * timings.processor_share:.0f} % of its threads' processor time")
    throttled = {reason for when in conditions.values() for reason in when.get("gpu", {}).get("throttled", [])}
    if throttled:
        found.append(f"the GPU's clock was lowered: {', '.join(sorted(throttled))}")
    return found

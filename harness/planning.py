"""What an experiment would run: what is done, how long the rest takes, how much room it needs. Never imports torch."""

import csv
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from harness.cost import read_size, size_name
from harness.errors import UserError
from harness.experiment import Experiment, Schedule
from harness.reporting.records import Missing, read_record
from harness.run import Run, differences, read_json

COST_TABLE = Path(__file__).parent.parent / "results" / "reports" / "cost" / "cost.csv"
# FLOPs a second in training, where nothing was measured: what the published 8.967 h of HRNet-W48 on Cityscapes (arXiv
# 2608.22679, table XVI; 40,000 iterations of batch 8) come to, all GPUs together. An A100's float32 peak is 19.5e12.
SUSTAINED_FLOPS = 11.2e12
PASSES = 3  # forwards, and twice as much backwards
MEASURED = "measured on"
ESTIMATED = f"estimated at {SUSTAINED_FLOPS / 1e12:.1f} TFLOPS, without the methods' own time"
CHECKPOINTS = 2  # that a run keeps, beside the inference network's weights
TO_TRAIN = ("not run", "unfinished")

Key = tuple[str, str, int, str]  # model, crop, batch, precision
Times = dict[Key, dict[str, list[tuple[bool, float, str]]]]  # {method: (on a GPU, seconds an iteration, device)}


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment with its settings in short.

    status: "done", or why not: "not run", "unfinished", "not evaluated", "other settings", "diverged" ...; `reason`
    says more. hours: of its whole training, arms of a method alike, and where that comes from; disk_bytes: weights and
    checkpoints, without label maps and methods' memories. None where the model is in no cost table and no record.
    """

    dataset: str
    model: str
    arm: str
    method: str
    seed: int
    iterations: int
    batch: int
    crop: str
    status: str
    reason: str
    hours: float | None
    hours_from: str
    disk_bytes: int | None


def plan(experiment: Experiment, results: Path, cost_table: Path = COST_TABLE) -> list[PlannedRun]:
    """Every run of `experiment`, in its order; what is done is read from `results`.

    Hours come from the records in `results` of the same model, crop, batch and precision (of the same method if there
    are any; on a GPU if there are any), else from the multiply-adds in `cost_table` at `SUSTAINED_FLOPS`.
    """
    times = measured_times(results)
    costs = _Costs(cost_table)
    schedules = {pair: experiment.schedule_of(*pair) for pair in experiment.pairs()}
    rows = []
    for run in experiment.runs():
        schedule, method = schedules[run.dataset, run.model], experiment.arms[run.arm].method
        status = _status(experiment, run, results)
        seconds, source = _seconds(times, costs, run, schedule, method)
        rows.append(
            PlannedRun(
                dataset=run.dataset,
                model=run.model,
                arm=run.arm,
                method=method,
                seed=run.seed,
                iterations=schedule.iterations,
                batch=schedule.batch,
                crop=size_name(schedule.crop),
                status=status.status,
                reason=status.reason,
                hours=None if seconds is None else seconds * schedule.iterations / 3600,
                hours_from=source,
                disk_bytes=costs.disk_bytes(run, schedule, method),
            )
        )
    return rows


def summary(rows: Sequence[PlannedRun], gpus: int = 1) -> dict[str, Any]:
    """What is left to train: how many runs of each status, hours by where they come from, wall time, room on the disk.

    wall_hours: each run on one of `gpus` GPUs, in the order of `rows`, the next one on the first GPU that is free.
    """
    if gpus < 1:
        raise UserError(f"--gpus must be 1 or larger, not {gpus}")
    left = [row for row in rows if row.status in TO_TRAIN]
    hours: dict[str, float] = defaultdict(float)
    for row in left:
        hours[row.hours_from] += row.hours or 0
    free_at = [0.0] * gpus
    for row in left:
        heapq.heapreplace(free_at, free_at[0] + (row.hours or 0))
    return {
        "runs": len(rows),
        "statuses": dict(Counter(row.status for row in rows)),
        "to_train": len(left),
        "hours": dict(hours),
        "gpus": gpus,
        "wall_hours": max(free_at),
        "disk_bytes": sum(row.disk_bytes or 0 for row in left),
    }


def describe(rows: Sequence[PlannedRun], gpus: int = 1) -> str:
    """The plan as text: a line a run, and the summary."""
    header = ("data set", "model", "arm", "seed", "iterations", "batch", "crop", "hours", "status")
    table = [header]
    for row in rows:
        hours = "?" if row.hours is None else f"{row.hours:.1f}"
        numbers = (str(row.seed), str(row.iterations), str(row.batch))
        table.append((row.dataset, row.model, row.arm, *numbers, row.crop, hours, row.status))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]
    whole = summary(rows, gpus)
    lines += ["", f"{whole['runs']} runs: {', '.join(f'{n} {status}' for status, n in whole['statuses'].items())}"]
    for source, hours in whole["hours"].items():
        lines.append(f"to train: {hours:.0f} h {source}" if source else "to train: some runs of unknown length")
    lines.append(f"wall time, {gpus} at a time: {whole['wall_hours']:.0f} h")
    lines.append(f"disk, without label maps and methods' memories: {whole['disk_bytes'] / 1e9:.0f} GB")
    return "\n".join(lines)


def measured_times(results: Path) -> Times:
    """Seconds an iteration of every run under `results`/runs that was trained to its end."""
    times: Times = defaultdict(lambda: defaultdict(list))
    for folder in sorted((Path(results) / "runs").glob("*/*/*/*/seed*")):
        record = _read(folder / "training.json") or _read(folder / "record.json")
        if record and record["status"] == "done" and "schedule" in record["settings"]:  # one that trained here
            schedule, device = record["settings"]["schedule"], record["provenance"]["device"]
            key = (record["key"]["model"], size_name(schedule["crop"]), schedule["batch"], schedule["precision"])
            seconds = record["seconds"] / record["iterations"]
            times[key][record["method"]].append((device["type"] == "cuda", seconds, device["name"]))
    return times


def _status(experiment: Experiment, run: Run, results: Path) -> Missing:
    found = read_record(experiment, run, results)
    if not isinstance(found, Missing):
        return Missing("done")
    if found.status == "not evaluated":  # trained, with these settings?
        training = _read(run.folder(results) / "training.json")
        if training is None:
            return Missing("unreadable", "training.json is damaged or another version's")
        asked = experiment.settings(run)
        if changed := differences(asked, {key: training["settings"].get(key) for key in asked}):
            return Missing("other settings", ", ".join(changed))
    return found


def _seconds(times: Times, costs: "_Costs", run: Run, schedule: Schedule, method: str) -> tuple[float | None, str]:
    """Seconds an iteration takes, and where that comes from."""
    known = times.get((run.model, size_name(schedule.crop), schedule.batch, schedule.precision), {})
    entries = known.get(method) or [entry for of_method in known.values() for entry in of_method]
    if entries:
        best = [entry for entry in entries if entry[0] == max(entries)[0]]
        devices = ", ".join(sorted({name for *_, name in best}))
        return median(seconds for _, seconds, _ in best), f"{MEASURED} {devices}"
    gmacs = costs.gmacs(run, schedule)
    return (None, "") if gmacs is None else (PASSES * 2 * gmacs * 1e9 * schedule.batch / SUSTAINED_FLOPS, ESTIMATED)


class _Costs:
    """What the cost table knows of models; of a data set or size that is not in it, the nearest that it has."""

    def __init__(self, path: Path) -> None:
        rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        self._by_model: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            self._by_model[row["model"]].append(row)
        self._row = cache(self._find)

    def gmacs(self, run: Run, schedule: Schedule) -> float | None:
        """1e9 multiply-adds of one image at the schedule's crop, in proportion to the pixels if need be."""
        row = self._row(run.model, run.dataset, size_name(schedule.crop), None)
        return None if row is None else float(row["gmacs"]) * prod(schedule.crop) / prod(read_size(row["size"]))

    def disk_bytes(self, run: Run, schedule: Schedule, method: str) -> int | None:
        """Float32 weights of the inference network; of all that is trained, with its moments, in each checkpoint."""
        row = self._row(run.model, run.dataset, size_name(schedule.crop), method)
        if row is None:
            return None
        moments = 2 if schedule.optimizer == "adamw" else int(schedule.momentum > 0)
        kept = CHECKPOINTS * (1 + moments) * int(row["training_parameters"])
        return 4 * (int(row["inference_parameters"]) + kept)

    def _find(self, model: str, dataset: str, crop: str, method: str | None) -> dict[str, str] | None:
        rows: Iterable[dict[str, str]] = self._by_model[model]
        if method is not None:
            rows = [row for row in rows if row["method"] == method] or rows
        return max(rows, key=lambda row: (row["dataset"] == dataset, row["size"] == crop), default=None)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except UserError:
        return None

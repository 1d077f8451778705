"""The inputs of a report, so that an old one is not taken for today's."""

import json
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.experiment.schema import Experiment
from harness.runs.external_arms import external_records
from harness.runs.record import fingerprint

NAME = "made_from.json"


def note(experiment: Experiment, results: Path) -> None:
    """Write down what the whole report of an experiment was made from."""
    atomic.write_json(_path(experiment, results), _made_from(experiment, results))


def is_current(experiment: Experiment, results: Path) -> bool:
    """Whether the report was made from the experiment and the records as they are now."""
    try:
        noted = json.loads(_path(experiment, results).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(noted == _made_from(experiment, results))


def forget(experiment: Experiment, results: Path) -> None:
    """Remove the note: a part of the report has been made from something else."""
    _path(experiment, results).unlink(missing_ok=True)


def _path(experiment: Experiment, results: Path) -> Path:
    return Path(results) / "reports" / experiment.name / NAME


def _made_from(experiment: Experiment, results: Path) -> dict[str, Any]:
    own = [run.folder(results) / "record.json" for run in experiment.runs()]
    records = {str(path.relative_to(results)): _hash(path) for path in [*own, *external_records(experiment, results)]}
    return {"experiment": fingerprint(experiment.model_dump(mode="json")), "records": records}


def _hash(path: Path) -> str | None:
    """The hash that a record holds of itself; None without a record."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["record_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

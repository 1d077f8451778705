"""Runs that were not made and data that are not there, with the reason, for tables and report. Never imports torch."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import atomic
from harness.datasets.verify import SCHEMA
from harness.errors import UserError
from harness.experiment import Experiment
from harness.locking import hold
from harness.run import FINISHED, Run, fingerprint, read_json, write_json


def write_missing(dataset: str, report_path: Path, reason: str) -> None:
    """Write verify.json of a data set that is not there, which its runs will be skipped for."""
    report = {"schema": SCHEMA, "dataset": dataset, "root": None, "fingerprint": None, "status": "missing"}
    atomic.write_json(report_path, report | {"problems": 1, "examples": [reason], "warnings": [], "splits": {}})


def skip(experiment: Experiment, run: Run, results: Path, reason: str) -> dict[str, Any]:
    """Write training.json of a run that cannot be trained now (its data are missing, say) and return what it holds.

    The same command trains it when what was missing is there. What an earlier try left is kept; raises UserError with
    the reason where that is a finished run.
    """
    folder = run.folder(results)
    with hold(folder, "skip", wait=True):
        return write_skipped(experiment, run, folder, reason)


def write_skipped(experiment: Experiment, run: Run, folder: Path, reason: str) -> dict[str, Any]:
    """As `skip`, for who holds the lock of the run's folder."""
    if (folder / "training.json").exists() and read_json(folder / "training.json")["status"] in FINISHED:
        raise UserError(reason)
    settings = experiment.settings(run)
    record = {
        "key": run.key(),
        "method": settings["method"],
        "options": settings["options"],
        "status": "skipped",
        "reason": reason,
        "log_tail": [],
        "iterations": 0,
        "processes": 1,
        "micro_batch": settings["schedule"]["batch"],
        "weights_hash": None,
        "protocols": list(experiment.protocols),
        "absent": experiment.absent,
        "root": None,
        "class_pixels": None,
        "settings": settings,
        "fingerprint": fingerprint(settings),
        "provenance": {},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "gpu_hours": None,
        "energy": {},
    }
    write_json(folder / "training.json", record)
    return record

"""Records of runs without a result: their data are missing, or the process that made them was killed. No torch."""

import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.datasets.verify import SCHEMA
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.locking import hold, left_behind
from harness.runs.record import FINISHED, Status, fingerprint, read_json, write_json

# What training.json holds and record.json does not.
TRAINING_ONLY = ("schema", "protocols", "absent", "root", "class_pixels")
WHY_KILLED = {
    signal.SIGKILL: "which is what the system does when memory runs out",
    signal.SIGSEGV: "a crash in compiled code",
    signal.SIGBUS: "a crash in compiled code, or a full /dev/shm",
    signal.SIGABRT: "a crash in compiled code",
}


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
    record = _untrained(experiment, run, "skipped", reason)
    write_json(folder / "training.json", record)
    return record


def write_killed(experiment: Experiment, run: Run, results: Path, number: int, log_tail: Sequence[str]) -> str:
    """Write the records of a run whose process was killed by signal `number`; returns the reason that they give.

    training.json, unless training was over, and record.json have the status "failed", the last lines of the log and
    the iteration that was reached, so that the tables and the rest of a grid go on. Checkpoints stay.
    """
    folder = run.folder(results)
    told = left_behind(folder)
    where = f" at iteration {told['done']} of {told['total']}" if told["work"] == "train" and told["total"] else ""
    name, why = signal.Signals(number).name, WHY_KILLED.get(signal.Signals(number), "")
    reason = (
        f"killed by {name}{where}{f', {why}' if why else ''}: `python -m harness status --retry failed`, then the same "
        "command, continues it from its last checkpoint"
    )
    failed = {"status": "failed", "reason": reason, "log_tail": list(log_tail)}
    with hold(folder, "record", wait=True):
        try:
            training = read_json(folder / "training.json")
        except UserError:
            training = {}
        if training.get("status") != "done":
            training = _untrained(experiment, run, "failed", reason) | failed | {"iterations": told["done"]}
            write_json(folder / "training.json", training)
        write_json(folder / "record.json", without_scores(training, experiment.absent) | failed | {"evaluated": now()})
    return reason


def without_scores(training: dict[str, Any], absent: str) -> dict[str, Any]:
    """What record.json holds of a run before it is evaluated, from what training.json holds."""
    record = {key: value for key, value in training.items() if key not in TRAINING_ONLY}
    return record | {"absent": absent, "split": None, "scores": {}, "per_class": {}}


def now() -> str:
    """The time as records write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _untrained(experiment: Experiment, run: Run, status: Status, reason: str) -> dict[str, Any]:
    settings = experiment.settings(run)
    return {
        "key": run.key(),
        "method": settings["method"],
        "options": settings["options"],
        "status": status,
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
        "started": now(),
        "seconds": 0.0,
        "gpu_hours": None,
        "energy": {},
    }

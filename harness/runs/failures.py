"""Records of runs without a result: their data are missing, or their process was killed. Never imports torch."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.datasets.verify import SCHEMA
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.locking import hold, left_behind
from harness.runs.record import FINISHED, PRIVATE, RECORD, TRAINING, Record, now

WHY_KILLED = {
    signal.SIGKILL: "which is what the system does when memory runs out",
    signal.SIGSEGV: "a crash in compiled code",
    signal.SIGBUS: "a crash in compiled code, or a full /dev/shm",
    signal.SIGABRT: "a crash in compiled code",
}


def write_missing(dataset: str, report_path: Path, reason: str) -> None:
    """Write verify.json of a data set that is missing, so that its runs are skipped."""
    report = {"schema": SCHEMA, "dataset": dataset, "root": None, "fingerprint": None, "status": "missing"}
    atomic.write_json(report_path, report | {"problems": 1, "examples": [reason], "warnings": [], "splits": {}})


def skip(experiment: Experiment, run: Run, results: Path, reason: str) -> Record:
    """Write training.json of a run that cannot be trained now, because its data are missing say, and return it.

    The same command trains it once its data are there; checkpoints are kept. Raises UserError with the reason if the
    run is finished already.
    """
    folder = run.folder(results)
    with hold(folder, "skip", wait=True):
        return write_skipped(experiment, run, folder, reason)


def write_skipped(experiment: Experiment, run: Run, folder: Path, reason: str) -> Record:
    """As `skip`, for a caller that holds the lock of the run's folder."""
    if (folder / TRAINING).exists() and Record.load(folder / TRAINING).status in FINISHED:
        raise UserError(reason)
    record = untrained(experiment, run, status="skipped", reason=reason)
    record.save(folder / TRAINING)
    return record


def write_killed(experiment: Experiment, run: Run, results: Path, number: int, log_tail: Sequence[str]) -> str:
    """Write the records of a run whose process was killed by signal `number`; returns the reason that they give.

    Both records get the status "failed", the reason and the end of the log, so that tables and the rest of a grid go
    on; training.json stays as it is if training was over. Checkpoints are kept.
    """
    folder = run.folder(results)
    told = left_behind(folder)
    where = f" at iteration {told['done']} of {told['total']}" if told["work"] == "train" and told["total"] else ""
    name, why = signal.Signals(number).name, WHY_KILLED.get(signal.Signals(number), "")
    reason = (
        f"killed by {name}{where}{f', {why}' if why else ''}: `python -m harness status --retry failed`, then the same "
        "command, continues it from its last checkpoint"
    )
    failed: dict[str, Any] = {"status": "failed", "reason": reason, "log_tail": list(log_tail)}
    with hold(folder, "record", wait=True):
        try:
            training: Record | None = Record.load(folder / TRAINING)
        except UserError:
            training = None
        if training is None or training.status != "done":
            training = untrained(experiment, run, **failed, iterations=told["done"])
            training.save(folder / TRAINING)
        not_evaluated(training, experiment.absent).but(**failed, evaluated=now()).save(folder / RECORD)
    return reason


def not_evaluated(training: Record, absent: str | None = None) -> Record:
    """What record.json holds of a training before it is evaluated: without what only this machine needs."""
    return training.but(**dict.fromkeys(PRIVATE), absent=absent or training.absent)


def untrained(experiment: Experiment, run: Run, **found: Any) -> Record:
    """The record of a run before its training, with the keys in `found`."""
    settings = experiment.settings(run)
    known = {
        "key": run,
        "method": settings["method"],
        "options": settings["options"],
        "micro_batch": settings["schedule"]["batch"],
        "iterations": 0,
        "settings": settings,
        "started": now(),
        "seconds": 0.0,
        "protocols": list(experiment.protocols),
        "absent": experiment.absent,
    }
    return Record(**known | found)

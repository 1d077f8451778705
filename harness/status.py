"""What the runs of experiments are doing: done, running, failed and why, or not begun. Never imports torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.discovery import unknown
from harness.errors import UserError
from harness.experiment import Experiment
from harness.locking import hold, holder
from harness.reporting.records import Missing, read_record
from harness.run import Run, read_json

# What `--retry` takes, and the statuses that it means. A diverged run would diverge again unless something changed.
RETRIED = {
    "failed": ("failed", "out_of_memory", "timeout", "skipped", "unreadable"),
    "diverged": ("diverged",),
}


@dataclass(frozen=True)
class StatusRow:
    """A run and where it is.

    status: "done"; "running"; a failure ("failed", "diverged", "out_of_memory", "timeout", "skipped"); "not evaluated";
    "unfinished" (it has checkpoints and nobody works on it); "not run"; "other settings" (than the experiment's) or
    "unreadable". reason: why, or of a running one who works on it. done, total: the steps of a running one (0, 0: not
    known). log_tail: the last lines of a failure's log.
    """

    experiment: str
    dataset: str
    model: str
    arm: str
    seed: int
    status: str
    reason: str
    done: int
    total: int
    log_tail: tuple[str, ...]

    @property
    def run(self) -> Run:
        """The run's key."""
        return Run(self.experiment, self.dataset, self.model, self.arm, self.seed)


def status_rows(results: Path, experiments: Sequence[Experiment]) -> list[StatusRow]:
    """Every run of `experiments`, in their order, as `results` shows it now."""
    return [_row(results, experiment, run) for experiment in experiments for run in experiment.runs()]


def describe(rows: Sequence[StatusRow]) -> str:
    """The rows as text: a line a run, aligned, and the numbers of runs by status."""
    lines = []
    names = [f"{row.experiment}/{row.run}" for row in rows]
    for row, name in zip(rows, names, strict=True):
        progress = f" {row.done}/{row.total}" if row.status == "running" and row.total else ""
        line = f"{name.ljust(max(map(len, names)))}  {row.status}{progress}"
        lines.append(f"{line}: {row.reason}" if row.reason else line)
    counted = ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items())
    return "\n".join([*lines, f"{len(rows)} runs: {counted}"])


def retry(results: Path, rows: Sequence[StatusRow], which: str = "failed") -> list[StatusRow]:
    """Make the next start of the workflow run those of `rows` again that failed; returns them.

    which: a key of `RETRIED`. Their records are removed: record.json, and training.json where it was the training that
    failed. Checkpoints stay, so that a training goes on at its last one. Raises UserError for another `which`.
    """
    if which not in RETRIED:
        raise unknown("kind of failure", which, RETRIED)
    again = []
    for row in rows:
        if row.status not in RETRIED[which]:
            continue
        folder = row.run.folder(results)
        try:
            with hold(folder, "retry"):
                if _state(folder / "training.json")[0] != "done":
                    (folder / "training.json").unlink(missing_ok=True)
                (folder / "record.json").unlink(missing_ok=True)
        except UserError:  # a process has just begun to work on it: it is being retried
            continue
        again.append(row)
    return again


def _row(results: Path, experiment: Experiment, run: Run) -> StatusRow:
    folder = run.folder(results)
    status, reason, done, total = "done", "", 0, 0
    tail: tuple[str, ...] = ()
    if who := holder(folder):
        status, reason = "running", f"{who['work']}, process {who['pid']} on {who['host']}"
        done, total = who["done"], who["total"]
    elif isinstance(found := read_record(experiment, run, results), Missing):
        status, reason = found.status, found.reason
        if status == "not evaluated":
            trained, why, tail = _state(folder / "training.json")
            status, reason = (status, reason) if trained == "done" else (trained, why)
        elif (folder / "record.json").exists() and status not in ("other settings", "unreadable"):
            tail = _state(folder / "record.json")[2]
    return StatusRow(**run.key(), status=status, reason=reason, done=done, total=total, log_tail=tail)


def _state(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Status, reason and log tail of training.json or record.json; "unreadable" with the reason if it is."""
    try:
        content = read_json(path)
        return content["status"], " ".join((content["reason"] or "").split()), tuple(content.get("log_tail", ()))
    except (UserError, KeyError) as error:
        return "unreadable", str(error), ()

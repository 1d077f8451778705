"""The state of every run: done, running, failed and why, or not started. Never imports torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness import datasets
from harness.compute.progress import duration, plural
from harness.errors import UserError, unknown
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.health import Mark, health_of
from harness.runs.locking import hold, holder, seconds_left
from harness.runs.record import RECORD, TRAINING, Record
from harness.runs.state import state_of

# What `--retry` accepts, and the statuses it covers. A diverged run diverges again unless something changed.
RETRIED = {
    "failed": ("failed", "out_of_memory", "timeout", "skipped", "unreadable"),
    "diverged": ("diverged",),
}


@dataclass(frozen=True)
class StatusRow:
    """A run and its state.

    status: "done"; "running"; a failure ("failed", "diverged", "out_of_memory", "timeout", "skipped"); "not evaluated";
    "unfinished" (training began and no process works on it, or files are missing); "not run"; "stale" (made with
    settings other than the experiment's) or "unreadable". reason: why; of a running run, its process; of one that is
    done, the protocols that are missing. work: what a running run does, such as "train" or "evaluate whole"; done,
    total: its steps (0, 0: unknown); left: seconds for the rest at the pace so far. log_tail: the last lines of a
    failure's log. marks: the faults that the curve shows so far (`runs.health`).
    """

    experiment: str
    dataset: str
    model: str
    arm: str
    seed: int
    status: str
    reason: str = ""
    work: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    log_tail: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    @property
    def run(self) -> Run:
        """The run's key."""
        return Run(self.experiment, self.dataset, self.model, self.arm, self.seed)


def status_rows(results: Path, experiments: Sequence[Experiment]) -> list[StatusRow]:
    """The current state of every run of `experiments`, in their order."""
    return [_row(results, experiment, run) for experiment in experiments for run in experiment.runs()]


def describe(rows: Sequence[StatusRow]) -> str:
    """The rows as text: a line per run, then the number of runs by status."""
    return "\n".join([*lines(rows), totals(rows)])


def lines(rows: Sequence[StatusRow]) -> list[str]:
    """A line per row, aligned: run, status, progress, time left and reason."""
    names = [f"{row.experiment}/{row.run}" for row in rows]
    widest = max(map(len, names), default=0)
    return [f"{name.ljust(widest)}  {_state_text(row)}" for row, name in zip(rows, names, strict=True)]


def totals(rows: Sequence[StatusRow]) -> str:
    """One line with the number of runs by status."""
    counted = ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items())
    return f"{plural(len(rows), 'run')}: {counted}"


def retry(results: Path, rows: Sequence[StatusRow], which: str = "failed") -> list[StatusRow]:
    """Remove the records of those of `rows` that failed, so that the next start runs them again; returns them.

    which: a key of `RETRIED`. Removes record.json, and training.json if it was the training that failed. Checkpoints
    stay, so a training continues from its last one. Data sets for which runs were skipped are verified again. Raises
    UserError for another `which`.
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
                if not _is_done(folder / TRAINING):
                    (folder / TRAINING).unlink(missing_ok=True)
                (folder / RECORD).unlink(missing_ok=True)
        except UserError:  # another process is already retrying it
            continue
        again.append(row)
    for name in {row.dataset for row in again if row.status == "skipped"}:
        if not datasets.is_verified(name, results):
            datasets.report_path(name, results).unlink(missing_ok=True)
    return again


def _state_text(row: StatusRow) -> str:
    progress = f" {row.done}/{row.total}" if row.status == "running" and row.total else ""
    left = "" if row.left is None else f", {duration(row.left)} left"
    ill = f" ({', '.join(row.marks)})" if row.marks else ""
    return f"{row.status}{progress}{left}{ill}" + (f": {row.reason}" if row.reason else "")


def _row(results: Path, experiment: Experiment, run: Run) -> StatusRow:
    folder = run.folder(results)
    if who := holder(folder):
        found = StatusRow(**run.key(), status="running", reason=f"{who['work']}, process {who['pid']} on {who['host']}")
        found = replace(found, marks=_marks(health_of(folder)))
        return replace(found, work=who["work"], done=who["done"], total=who["total"], left=seconds_left(who))
    state = state_of(experiment, run, results)
    if state.status == "done":
        return StatusRow(**run.key(), status="done", reason=state.reason, marks=_marks(health_of(folder, state.record)))
    log_tail = () if state.record else _log_tail(folder)
    return StatusRow(**run.key(), status=state.status, reason=state.reason, log_tail=log_tail)


def _marks(found: Iterable[Mark]) -> tuple[str, ...]:
    return tuple(each.mark for each in found)


def _is_done(training: Path) -> bool:
    try:
        return Record.load(training).status == "done"
    except UserError:
        return False


def _log_tail(folder: Path) -> tuple[str, ...]:
    """The last lines of a failed run's log, from the newest file that has them."""
    for name in (RECORD, TRAINING):
        with suppress(UserError):
            return tuple(Record.load(folder / name).log_tail)
    return ()

"""What the runs of experiments are doing: done, running, failed and why, or not begun. Never imports torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness import datasets
from harness.compute.progress import duration
from harness.errors import UserError, unknown
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.health import Mark, health_of
from harness.runs.locking import hold, holder, seconds_left
from harness.runs.record import RECORD, TRAINING, Record
from harness.runs.state import Missing, describe_left_out, left_out, read_record, work_left

# What `--retry` takes, and the statuses that it means. A diverged run would diverge again unless something changed.
RETRIED = {
    "failed": ("failed", "out_of_memory", "timeout", "skipped", "unreadable"),
    "diverged": ("diverged",),
}


@dataclass(frozen=True)
class StatusRow:
    """A run and its state.

    status: "done"; "running"; a failure ("failed", "diverged", "out_of_memory", "timeout", "skipped"); "not evaluated";
    "unfinished" (training began and no process works on it, or files are gone); "not run"; "stale" (made with other
    settings than the experiment's) or "unreadable". reason: why; for a running one the process that works on it, for a
    done one the protocols that were left out. work: what a running one does, such as "train" or "evaluate whole"; done,
    total: its steps (0, 0: unknown); left: seconds that the rest takes at the pace so far. log_tail: the last lines of
    a failure's log. marks: the faults that its curve shows so far (`runs.health`).
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
    """Every run of `experiments`, in their order, as `results` shows it now."""
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
    """The numbers of runs by status, in a line."""
    counted = ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items())
    return f"{len(rows)} runs: {counted}"


def retry(results: Path, rows: Sequence[StatusRow], which: str = "failed") -> list[StatusRow]:
    """Make the next start of the workflow run those of `rows` again that failed; returns them.

    which: a key of `RETRIED`. Their records are removed: record.json, and training.json where it was the training that
    failed. Checkpoints stay, so that a training goes on at its last one. Data that runs were skipped for are
    verified again. Raises UserError for another `which`.
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
        except UserError:  # a process has just begun to work on it: it is being retried
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
    record = read_record(experiment, run, results)
    if not isinstance(record, Missing):
        work = work_left(experiment, run, results)
        if not work:
            reason = describe_left_out(left_out(experiment, record))
            return StatusRow(**run.key(), status="done", reason=reason, marks=_marks(health_of(folder, record)))
        lacking = describe_left_out(left_out(experiment, record)) or "files of it are gone"
        return StatusRow(**run.key(), status="not evaluated" if work == "evaluate" else "unfinished", reason=lacking)
    return StatusRow(**run.key(), status=record.status, reason=record.reason, log_tail=_log_tail(folder))


def _marks(found: Iterable[Mark]) -> tuple[str, ...]:
    return tuple(each.mark for each in found)


def _is_done(training: Path) -> bool:
    try:
        return Record.load(training).status == "done"
    except UserError:
        return False


def _log_tail(folder: Path) -> tuple[str, ...]:
    """The last lines of the log of a run that failed, from the newest file that has them."""
    for name in (RECORD, TRAINING):
        with suppress(UserError):
            return tuple(Record.load(folder / name).log_tail)
    return ()

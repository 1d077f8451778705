"""`status --watch`: redraws all runs on a terminal, prints changed lines into a log. Never imports torch."""

import heapq
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.compute.progress import SECONDS_BETWEEN_LINES, duration
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs import planning
from harness.runs.status import StatusRow, lines, status_rows, totals

SECONDS_BETWEEN_REDRAWS = 2.0
WAITING = (*planning.TO_TRAIN, "not evaluated")
# In the order shown, with their styles. Failures, which are all other statuses, come second.
STYLES = {"running": "bold", **dict.fromkeys(WAITING, "dim"), "done": "green"}
WRONG = "red"


def watch(results: Path, experiments: Sequence[Experiment], console: Console | None = None) -> None:
    """Show the runs of `experiments` until none is running or waiting, or until Ctrl-C.

    A terminal is redrawn every `SECONDS_BETWEEN_REDRAWS`. In a pipe or file, every line is printed once, and then every
    `SECONDS_BETWEEN_LINES` those whose status changed.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
                for rows in _looks(results, experiments, SECONDS_BETWEEN_REDRAWS):
                    live.update(picture(rows, time_left(rows, results, experiments), console.height), refresh=True)
        else:
            _print_changes(_looks(results, experiments, SECONDS_BETWEEN_LINES))
    except KeyboardInterrupt:
        return


def progress_of(experiment: Experiment, results: Path) -> str:
    """One line: how many runs of an experiment have ended, and how long the rest takes if that is known."""
    rows = status_rows(results, [experiment])
    ended = sum(row.status not in ("running", *WAITING) for row in rows)
    left = time_left(rows, results, [experiment])
    return f"{experiment.name}: {ended} of {len(rows)} runs have ended" + (
        f", about {duration(left)} left" if left else ""
    )


def time_left(rows: Sequence[StatusRow], results: Path, experiments: Sequence[Experiment]) -> float | None:
    """Seconds until all runs are trained, with as many at a time as now; evaluations are not counted.

    Assumes that running trainings keep their pace, and that waiting ones take as long as the same setting took in
    `results`. None if such a time is unknown or nothing is training.
    """
    free_at = [row.left for row in rows if _trains(row)]
    if not free_at or None in free_at:
        return None
    waiting = [row.run for row in rows if row.status in planning.TO_TRAIN]
    known = _measured_seconds(results, experiments) if waiting else {}
    ends = [left for left in free_at if left is not None]
    heapq.heapify(ends)
    for run in waiting:
        if run not in known:
            return None
        heapq.heapreplace(ends, ends[0] + known[run])
    return max(ends)


def picture(rows: Sequence[StatusRow], left: float | None, height: int) -> Text:
    """The rows in at most `height` lines: running, then failed, waiting, and done."""
    ranks = {status: float(rank) for rank, status in enumerate(STYLES)}
    ordered = sorted(rows, key=lambda row: ranks.get(row.status, 0.5))
    room = max(1, height - 2)
    shown = ordered if len(ordered) < room else ordered[: room - 1]
    text = Text(no_wrap=True, overflow="ellipsis")
    for row, line in zip(shown, lines(shown), strict=True):
        text.append(f"{line}\n", style=STYLES.get(row.status, WRONG))
    if hidden := ordered[len(shown) :]:
        text.append(f"and {totals(hidden)}\n")
    return text.append(_last_line(rows, left))


def _last_line(rows: Sequence[StatusRow], left: float | None) -> str:
    training = sum(map(_trains, rows))
    rest = "" if left is None else f"; about {duration(left)} of training left, {training} at a time"
    return totals(rows) + rest


def _trains(row: StatusRow) -> bool:
    return row.work == "train"


def _looks(results: Path, experiments: Sequence[Experiment], seconds: float) -> Iterator[list[StatusRow]]:
    """The rows every `seconds`, until nothing is running or waiting."""
    while True:
        rows = status_rows(results, experiments)
        yield rows
        if not any(row.status in ("running", *WAITING) for row in rows):
            return
        time.sleep(seconds)


def _print_changes(looks: Iterator[list[StatusRow]]) -> None:
    before: dict[Run, tuple[str, str, int]] = {}
    for rows in looks:
        for row, line in zip(rows, lines(rows), strict=True):
            now = (row.status, row.reason, row.done)
            if before.get(row.run) != now:
                before[row.run] = now
                print(line, flush=True)
    print(totals(rows), flush=True)


def _measured_seconds(results: Path, experiments: Sequence[Experiment]) -> dict[Run, float]:
    """Seconds that each run's training takes, for settings that were measured."""
    return {
        Run(experiment.name, row.dataset, row.model, row.arm, row.seed): row.hours * 3600
        for experiment in experiments
        for row in planning.plan(experiment, results)
        if row.hours is not None and row.hours_from.startswith(planning.MEASURED)
    }

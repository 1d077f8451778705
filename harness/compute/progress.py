"""Progress with time left: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


def plural(number: int, noun: str) -> str:
    """Such as "1 run" or "3 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`seconds` as "8 s", "3 min 20 s" or "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Shows progress over `total` steps and the time left.

    `start`: steps done before (by a resumed run); the time estimate does not include them.
    """

    def __init__(self, title: str, total: int, start: int = 0) -> None:
        self.title, self.total, self.done = title, total, start
        self._start_count, self._start_time = start, time.monotonic()
        self._last_line = self._start_time
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = RichProgress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        elif self.done > self._start_count:
            spent = duration(time.monotonic() - self._start_time)
            print(f"{self.title}: {self.done}/{self.total}, took {spent}", file=sys.stderr, flush=True)

    def advance(self, note: str = "") -> None:
        """Count one step; `note` is shown after it."""
        self.done += 1
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES and self.done < self.total:
            self._last_line = now
            left = (now - self._start_time) / (self.done - self._start_count) * (self.total - self.done)
            line = f"{self.title}: {self.done}/{self.total}, {duration(left)} left"
            print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Yield `items` while showing progress."""
    with Progress(title, total) as progress:
        for item in items:
            yield item
            progress.advance()

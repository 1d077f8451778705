"""How a piece of work ended: a status, a reason and the last lines of its log."""

import errno
import itertools
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any, TextIO

import torch

from harness.errors import UserError
from harness.runs.record import Status

LINES = 20  # of the log that a record keeps
# File-system errors are re-raised: the record could not be written either, and the next try continues.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
# What torch says if it does not raise OutOfMemoryError.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class Diverged(Exception):
    """The loss or its gradient is no longer finite."""


class TimedOut(Exception):
    """The work took longer than its time limit."""


class Terminated(SystemExit):
    """The process got SIGTERM and has written a checkpoint. The exit status is 143 = 128 + SIGTERM."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@dataclass
class Ending:
    """How a block ended; `log_tail`: its last lines on standard error, empty if it is done."""

    status: Status = "done"
    reason: str | None = None
    log_tail: list[str] = field(default_factory=list)


@contextmanager
def ending(missing_data: bool = False) -> Iterator[Ending]:
    """Turn what the block raises into its ending; UserError and file-system errors (`REFUSALS`) are re-raised.

    With `missing_data` a UserError becomes the ending "skipped".
    """
    found, tail = Ending(), _Tail(sys.stderr)
    with redirect_stderr(tail):
        try:
            yield found
        except UserError as error:
            if not missing_data:
                raise
            found.status, found.reason = "skipped", str(error)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in REFUSALS:
                raise
            found.status, found.reason = _judge(error)
            if found.status == "failed":
                traceback.print_exc()
    if found.status != "done":
        found.log_tail = tail.lines()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that device or host memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@dataclass
class Notice:
    """Whether the process was asked to end. Not an Event: a handler that interrupts another would wait for its lock."""

    given: bool = False


@contextmanager
def noticing_sigterm() -> Iterator[Notice]:
    """Yield a notice that the first SIGTERM sets; a second one ends the process.

    SIGUSR1 sets it too: the parent passes its own SIGTERM on as SIGUSR1 (`runs.supervise`), since a scheduler may have
    sent SIGTERM to both.
    """
    noticed = Notice()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield noticed
        return

    terms = itertools.count(1)

    def notice(number: int, _: object) -> None:
        noticed.given = True
        if number == signal.SIGTERM and next(terms) > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    before = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield noticed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _judge(error: Exception) -> tuple[Status, str]:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, Diverged):
        return "diverged", first
    if isinstance(error, TimedOut):
        return "timeout", first
    if is_out_of_memory(error):
        return "out_of_memory", first
    return "failed", f"{type(error).__name__}: {error}"


class _Tail:
    """Passes on what is written to a stream and keeps its last lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lines, self._open = stream, deque[str](maxlen=LINES), ""

    def write(self, text: str) -> int:
        *lines, self._open = (self._open + text).split("\n")
        self._lines.extend(lines)
        return self._stream.write(text)

    def lines(self) -> list[str]:
        return [*self._lines, self._open][-LINES:] if self._open else list(self._lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

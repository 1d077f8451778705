"""One process at a time on a run's folder: a lock that ends with its process, however that ends.

The lock is `flock` on the file `.lock` in the folder. It says who holds it and how far the work is, for `status`.
"""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from harness.errors import UserError

NAME = ".lock"
PATIENCE = 2.0  # seconds: a process that was just killed may be dying still, and `holder` looks for a moment
_held: set[int] = set()  # the descriptors of this process's locks


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    file: TextIO
    about: dict[str, Any]

    def begin(self, work: str, done: int, total: int) -> None:
        """Note that `work` of `total` steps begins, of which `done` were done before."""
        self.about.update(work=work, begun=time.time(), done_before=done)
        self.tell(done, total)

    def tell(self, done: int, total: int) -> None:
        """Note that `done` of `total` steps are done."""
        # In place: the lock belongs to this very file. Whoever reads in between sees no progress, and no harm.
        self.file.seek(0)
        self.file.truncate()
        self.file.write(json.dumps(self.about | {"done": done, "total": total, "told": time.time()}))
        self.file.flush()


@contextmanager
def hold(folder: Path, work: str, wait: bool = False) -> Iterator[Lock]:
    """Hold the lock of `folder`, which is made if need be, for the length of the block.

    `work` says what is done under it ("train"). If another process holds it, wait for its end, or without `wait` raise
    UserError naming its pid and host. A folder that is empty afterwards is removed. On a network file system the lock
    counts between machines where its `flock` does (NFS 4 and newer, Lustre with -o flock).
    """
    file = _take(folder, wait)
    _held.add(file.fileno())
    lock = Lock(file, {"pid": os.getpid(), "host": socket.gethostname(), "work": work, "since": time.time()})
    try:
        lock.tell(0, 0)
        yield lock
    finally:
        (folder / NAME).unlink(missing_ok=True)  # before the lock is given up, so that nobody else's is removed
        _held.discard(file.fileno())
        file.close()
        with suppress(OSError):  # it holds something, as a rule
            folder.rmdir()


def holder(folder: Path) -> dict[str, Any] | None:
    """Who works on `folder` now: pid, host, work, since (seconds since 1970), done, total; None if nobody does.

    Of steps it also holds begun, done_before and told (when `done` was noted), for `seconds_left`. A lock that its
    process left behind when it was killed counts as nobody's.
    """
    try:
        with (folder / NAME).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return {"pid": None, "host": None, "work": "", "since": None, "done": 0, "total": 0} | _read(file)
    except FileNotFoundError:
        return None


def left_behind(folder: Path) -> dict[str, Any]:
    """What a process that was killed last noted in the lock of `folder`: work, done and total; "", 0 and 0 without."""
    try:
        with (folder / NAME).open(encoding="utf-8") as file:
            return {"work": "", "done": 0, "total": 0} | _read(file)
    except FileNotFoundError:
        return {"work": "", "done": 0, "total": 0}


def seconds_left(who: dict[str, Any]) -> float | None:
    """Seconds that the rest takes at the pace so far, of what `holder` found; None until there is a pace."""
    try:
        steps, spent = who["done"] - who["done_before"], who["told"] - who["begun"]
        left = spent / steps * (who["total"] - who["done"]) - max(0.0, time.time() - who["told"])
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return max(0.0, float(left)) if steps > 0 else None


def remove_leftovers(folder: Path, seconds: float = 0) -> int:
    """Remove the temporary files below `folder` that killed writers left (see `atomic`); returns how many.

    For a folder whose lock is held. Elsewhere `seconds` spares those that were written to less long ago.
    """
    newest, removed = time.time() - seconds, 0
    for path in folder.rglob(".*.????????*"):  # .STEM.8 random characters.SUFFIX
        try:
            if path.name != NAME and path.is_file() and path.stat().st_mtime <= newest:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            pass  # its writer has just renamed it
    return removed


def _take(folder: Path, wait: bool) -> TextIO:
    path, patient_until, told = folder / NAME, time.monotonic() + PATIENCE, False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever held the lock has just removed the folder, which was empty
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(file, path):
                return file
        except BlockingIOError:
            if time.monotonic() > patient_until:
                who = _read(file)
                said = f"process {who.get('pid', '?')} on {who.get('host', '?')} works on {folder}"
                if not wait:
                    file.close()
                    raise UserError(f"{said}: wait for its end, or end it") from None
                if not told:
                    print(f"{said}: waiting for its end", file=sys.stderr, flush=True)
                    told = True
        file.close()  # it was another's, or its owner removed it in between
        time.sleep(0.2)


def _is(file: TextIO, path: Path) -> bool:
    """Whether `path` is the open `file` still, and not removed or another's by now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read(file: TextIO) -> dict[str, Any]:
    file.seek(0)
    try:
        content = json.loads(file.read())
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _forget() -> None:
    """In a forked child (a worker that reads images): the lock shall not outlive the parent in it."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)

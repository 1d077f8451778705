"""A lock on a run's folder, so that one process at a time works on it. The system releases it when the process ends.

It is `flock` on the file `.lock`, which also says who holds the lock and how far the work is. (The filelock package
does not expose the file, which the progress is written to.)
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
SECONDS_TO_DIE = 2.0  # a process that was just killed may still hold its lock for so long
_held: set[int] = set()  # the descriptors of this process's locks


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    file: TextIO
    about: dict[str, Any]

    def begin(self, work: str, done: int, total: int) -> None:
        """Record that `work` begins, with `done` of its `total` steps already done."""
        self.about.update(work=work, begun=time.time(), done_before=done)
        self.tell(done, total)

    def tell(self, done: int, total: int) -> None:
        """Record that `done` of `total` steps are done."""
        # In place, since the lock belongs to this file; a reader in between sees no progress.
        self.file.seek(0)
        self.file.truncate()
        self.file.write(json.dumps(self.about | {"done": done, "total": total, "told": time.time()}))
        self.file.flush()


@contextmanager
def hold(folder: Path, work: str, wait: bool = False) -> Iterator[Lock]:
    """Hold the lock of `folder` during the block. Creates the folder if needed, and removes it if it ends up empty.

    work: what is done, such as "train". If another process holds the lock, wait until it ends, or without `wait` raise
    UserError with its pid and host. On a network file system, the lock works between machines if `flock` does (NFS 4
    and newer, Lustre with -o flock).
    """
    file = _take(folder, wait)
    _held.add(file.fileno())
    lock = Lock(file, {"pid": os.getpid(), "host": socket.gethostname(), "work": work, "since": time.time()})
    try:
        lock.tell(0, 0)
        yield lock
    finally:
        (folder / NAME).unlink(missing_ok=True)  # before releasing it, so as not to remove the next holder's
        _held.discard(file.fileno())
        file.close()
        with suppress(OSError):  # usually not empty
            folder.rmdir()


def holder(folder: Path) -> dict[str, Any] | None:
    """The process that works on `folder`: pid, host, work, since (Unix time), done, total; None if there is none.

    Also begun, done_before and told (when `done` was written), for `seconds_left`. A file left behind by a killed
    process holds no lock.
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
    """What a killed process last wrote into the lock of `folder`: work, done and total; "", 0 and 0 if nothing."""
    try:
        with (folder / NAME).open(encoding="utf-8") as file:
            return {"work": "", "done": 0, "total": 0} | _read(file)
    except FileNotFoundError:
        return {"work": "", "done": 0, "total": 0}


def seconds_left(who: dict[str, Any]) -> float | None:
    """Seconds left at the pace so far, from what `holder` returned; None until there is a pace."""
    try:
        steps, spent = who["done"] - who["done_before"], who["told"] - who["begun"]
        left = spent / steps * (who["total"] - who["done"]) - max(0.0, time.time() - who["told"])
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return max(0.0, float(left)) if steps > 0 else None


def remove_leftovers(folder: Path, seconds: float = 0) -> int:
    """Remove the temporary files that killed writers left below `folder` (see `atomic`); returns how many.

    Hold the folder's lock, or keep files that were written to in the last `seconds`.
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
    path, patient_until, told = folder / NAME, time.monotonic() + SECONDS_TO_DIE, False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # the holder has just removed the folder, which was empty
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
        file.close()  # another process holds it, or its holder removed the file in between
        time.sleep(0.2)


def _is(file: TextIO, path: Path) -> bool:
    """Whether `path` is still the open `file`."""
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
    """Close a forked child's copies of the locks: a data loader's worker must not keep its parent's lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)

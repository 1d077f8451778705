"""Removes the lock that a killed Snakemake left in the current folder. `make run` calls it before it starts.

Snakemake's lock does not say whose it is. It is a dead one's if no process called snakemake has this folder as its
working folder.
"""

import shutil
import sys
from pathlib import Path

import psutil

from harness.errors import UserError

LOCKS = Path(".snakemake") / "locks"


def unlock(folder: Path) -> bool:
    """Remove a dead Snakemake's lock of `folder`; returns whether there was one.

    Raises UserError, naming the process, if a living one works there.
    """
    locks = folder / LOCKS
    if not locks.is_dir() or not any(locks.iterdir()):
        return False
    if (process := _snakemake_in(folder)) is not None:
        raise UserError(f"snakemake (process {process}) works in {folder}: wait for its end, or end it")
    shutil.rmtree(locks)
    return True


def _snakemake_in(folder: Path) -> int | None:
    """The id of a process that was started as snakemake and works in `folder`."""
    for process in psutil.process_iter(["cmdline", "cwd"]):  # None for what the system does not tell
        # Its interpreter and script: `/.../python /.../snakemake --cores all`.
        started, place = (process.info["cmdline"] or [])[:3], process.info["cwd"]
        if place and any(Path(word).name == "snakemake" for word in started) and Path(place) == folder.resolve():
            return int(process.pid)
    return None


def main() -> int:
    """Unlock the current folder; returns the exit status."""
    try:
        if unlock(Path()):
            print("removed the lock that a killed snakemake left", file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs that are set aside when the same folder is trained with other settings.

They are kept beside the run as `seed0.stale-<hash of their settings>`. Nothing reads them but a training that asks for
exactly their settings again. `python -m harness stale --remove` deletes them.
"""

import shutil
from itertools import count
from pathlib import Path
from typing import Any

from harness.runs.locking import NAME as LOCK
from harness.runs.record import STALE_MARK as MARK
from harness.runs.record import fingerprint
from harness.runs.state import finished, settings_in


def set_aside(folder: Path) -> Path | None:
    """Move what a run's folder holds, except its lock, into a folder beside it, and return that; None if it was empty.

    The caller holds the folder's lock.
    """
    held = [path for path in folder.iterdir() if path.name != LOCK] if folder.is_dir() else []
    if not held:
        return None
    settings = settings_in(folder)
    known = fingerprint(settings)[:8] if settings else "unknown"
    names = (f"{folder.name}{MARK}{known}{f'-{number}' if number > 1 else ''}" for number in count(1))
    place = next(place for name in names if not (place := folder.with_name(name)).exists())
    place.mkdir()
    for path in held:
        path.rename(place / path.name)
    return place


def restore(folder: Path, settings: dict[str, Any]) -> Path | None:
    """Move a finished run with exactly these settings back into its folder, and return where it was.

    None if there is no such run, or if `folder` holds more than its lock, which the caller holds.
    """
    if any(path.name != LOCK for path in folder.iterdir()):
        return None
    for place in sorted(folder.parent.glob(f"{folder.name}{MARK}*")):
        if settings_in(place) == settings and finished(place):
            for path in place.iterdir():
                path.rename(folder / path.name)
            place.rmdir()
            return place
    return None


def folders_set_aside(results: Path, experiment: str | None = None) -> list[Path]:
    """The folders of all runs that are set aside in `results`, of one experiment or of all."""
    return sorted(Path(results).glob(f"runs/{experiment or '*'}/*/*/*/*{MARK}*"))


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(folder: Path) -> None:
    """Delete a run that is set aside."""
    shutil.rmtree(folder)

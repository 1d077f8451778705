"""Runs that an edit made stale: set aside when they are trained again, or kept on the user's word.

A run that is set aside is kept next to the new one as `seed0.stale-<hash of its settings>`. It is read only by a
training that asks for exactly its settings again.
"""

import shutil
from itertools import count
from pathlib import Path
from typing import Any

from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.locking import NAME as LOCK
from harness.runs.locking import hold
from harness.runs.record import RECORD, TRAINING, Record, fingerprint
from harness.runs.record import STALE_MARK as MARK
from harness.runs.state import Missing, changed_settings, finished, read_record, settings_in


def set_aside(folder: Path) -> Path | None:
    """Move what a run's folder holds, except its lock, into a folder next to it, and return that; None if it was empty.

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
        if settings_in(place, settings.get("method_source")) == settings and finished(place):
            for path in place.iterdir():
                path.rename(folder / path.name)
            place.rmdir()
            return place
    return None


def keep(experiment: Experiment, results: Path) -> dict[Run, list[str]]:
    """Let the finished runs count that only a change of their method's code made stale; their records say so.

    Returns for each stale run the changes for which it could not be kept, none if it was. The next change of the code
    makes a kept run stale again.
    """
    found = {}
    for run in experiment.runs():
        folder = run.folder(results)
        state = read_record(experiment, run, results)
        if not isinstance(state, Missing) or state.status != "stale":
            continue
        with hold(folder, "keep"):
            paths = [folder / name for name in (TRAINING, RECORD) if (folder / name).exists()]
            source = experiment.settings(run)["method_source"]
            kept = [Record.load(path).but(kept_for_source=source) for path in paths]
            changed = [each for record in kept for each in changed_settings(experiment, run, record, folder)]
            if not kept or any(record.status != "done" for record in kept):
                changed = ["it is not done"]
            for path, record in zip(paths, kept, strict=True) if not changed else ():
                record.save(path)
            found[run] = list(dict.fromkeys(changed))
    return found


def folders_set_aside(results: Path, experiment: str | None = None) -> list[Path]:
    """The folders of all runs that are set aside in `results`, of one experiment or of all."""
    return sorted(Path(results).glob(f"runs/{experiment or '*'}/*/*/*/*{MARK}*"))


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(folder: Path) -> None:
    """Delete a run that is set aside."""
    shutil.rmtree(folder)

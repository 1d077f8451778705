"""Says what a root holds of the layout that fits it best, and what it lacks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from harness.datasets.readers import IMAGE_SUFFIXES, FolderLayout, ListLayout, files
from harness.datasets.spec import Spec

SHOWN = 6  # entries of a folder


@dataclass(frozen=True)
class _Fit:
    """A layout and what of it is there: patterns of files, and the folders alone of those whose files are not."""

    layout: ListLayout | FolderLayout
    present: list[str]
    folders: list[str]
    absent: list[str]


def nearest_layout(specs: Sequence[Spec], root: Path) -> str:
    """What is there and what is missing of the layout that fits `root` best, to follow "does not hold NAME:".

    A layout fits the better, the more of the files are there that its first split needs, or at least their folders.
    """
    fits = [_fit(spec, root) for spec in specs]
    best = max(fits, key=lambda fit: (len(fit.present), len(fit.folders)))
    called = f"layout {best.layout.name}" if best.layout.name else "layout"
    if not best.present and not best.folders:
        names = ", ".join(spec.layout.name for spec in specs if spec.layout.name)
        known = f" (or another of its layouts, {names}: docs/datasets.md)" if len(specs) > 1 else " (docs/datasets.md)"
        needed = " and ".join(best.absent)
        return f"{_content(root)}; needed are {needed}{known}: pass --root DIR, the folder that holds these"
    found = [f"{pattern} is there" for pattern in best.present]
    found += [f"the folder {PurePosixPath(pattern).parent} is there" for pattern in best.folders]
    return f"of its {called}, which fits best, {', '.join(found)}, but there is no {' and no '.join(best.absent)}"


def _fit(spec: Spec, root: Path) -> _Fit:
    layout, fits = spec.layout, []
    base = layout.base(root)
    for split in dict.fromkeys([spec.train_split, *spec.splits]):
        present, folders, absent = [], [], []
        for pattern in layout.parts(split):
            suffixes = IMAGE_SUFFIXES if pattern == layout.parts(split)[0] and isinstance(layout, FolderLayout) else ()
            spelled = [pattern, *(str(PurePosixPath(pattern).with_suffix(suffix)) for suffix in suffixes)]
            if there := next((each for each in spelled for _ in files(base, each)), None):
                present.append(there)
                continue
            absent.append(pattern)
            parent = PurePosixPath(pattern).parent
            if parent.name and any(path.is_dir() for path in base.glob(str(parent))):
                folders.append(pattern)
        fits.append(_Fit(layout, present, folders, absent))
    return max(fits, key=lambda fit: (len(fit.present), len(fit.folders)))


def _content(root: Path) -> str:
    names = sorted(map(_name, islice(root.iterdir(), 10 * SHOWN)))
    more = ", ..." if len(names) > SHOWN else ""
    return f"it holds {', '.join(names[:SHOWN])}{more}" if names else "it is empty"


def _name(path: Path) -> str:
    if not path.is_dir():
        return path.name
    return f"{path.name}/" + ("" if os.access(path, os.R_OK | os.X_OK) else " (which may not be read)")

"""Describes which files of the best fitting layout are under a root, and which are missing."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from harness.datasets.readers import IMAGE_SUFFIXES, FolderLayout, files
from harness.datasets.spec import Spec

SHOWN = 6  # entries of a folder


def nearest_layout(specs: Sequence[Spec], root: Path) -> str:
    """What the layout that fits `root` best has there and what is missing, as text after "does not hold NAME:".

    The best layout is the one with the most kinds of files there, or at least their folders.
    """
    fits = [(spec.layout, *_fit(spec, split, root)) for spec in specs for split in [spec.train_split, *spec.splits]]
    layout, present, folders, absent = max(fits, key=lambda fit: (len(fit[1]), len(fit[2])))
    if not present and not folders:
        names = ", ".join(spec.layout.name for spec in specs if spec.layout.name)
        others = f"or another of its layouts, {names}: " if len(specs) > 1 else ""
        needed = f"{' and '.join(absent)} ({others}docs/datasets.md)"
        return f"{_content(root)}; needed are {needed}: pass --root DIR, the folder that holds these"
    found = [f"{pattern} is there" for pattern in present]
    found += [f"the folder {PurePosixPath(pattern).parent} is there" for pattern in folders]
    closest = f"its layout {layout.name} fits best, since " if len(specs) > 1 else ""
    return f"{closest}{', '.join(found)}, but there is no {' and no '.join(absent)}"


def _fit(spec: Spec, split: str, root: Path) -> tuple[list[str], list[str], list[str]]:
    """Patterns of files that exist, of missing files whose folder exists, and of all missing files."""
    layout, base = spec.layout, spec.layout.base(root)
    present, folders, absent = [], [], []
    for place, pattern in enumerate(layout.parts(split)):
        suffixes = IMAGE_SUFFIXES if place == 0 and isinstance(layout, FolderLayout) else ()
        spelled = [pattern, *(str(PurePosixPath(pattern).with_suffix(suffix)) for suffix in suffixes)]
        parent = PurePosixPath(pattern).parent
        if there := next((each for each in spelled for _ in files(base, each)), None):
            present.append(there)
            continue
        absent.append(pattern)
        if parent.name and any(path.is_dir() for path in base.glob(str(parent))):
            folders.append(pattern)
    return present, folders, absent


def _content(root: Path) -> str:
    names = []
    for path in islice(root.iterdir(), 10 * SHOWN):
        readable = not path.is_dir() or os.access(path, os.R_OK | os.X_OK)
        names.append(f"{path.name}{'/' * path.is_dir()}{'' if readable else ' (unreadable)'}")
    more = ", ..." if len(names) > SHOWN else ""
    return f"it holds {', '.join(sorted(names)[:SHOWN])}{more}" if names else "it is empty"

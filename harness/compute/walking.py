"""Lists the files below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder` in no order, including those in linked folders (which `Path.rglob` skips).

    A folder that can be reached twice (by circular links, say) is visited once.
    """
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        yield from (Path(place, name) for name in names)

"""Files below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """The files below `folder`, those in linked folders too (which `Path.rglob` leaves out), in no order.

    A folder that is reached twice, by links that lead back say, is entered once.
    """
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        yield from (Path(place, name) for name in names)

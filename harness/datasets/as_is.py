"""Incomplete or resized data sets: an as_is.json in the root declares them, and every result is marked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.compute import atomic
from harness.datasets.sizes import Sizes
from harness.errors import UserError

AS_IS = "as_is.json"


@dataclass(frozen=True)
class Declared:
    """The contents of a root that is not the published data set: images per split, and their sizes if they differ."""

    splits: dict[str, int]
    sizes: Sizes | None

    @property
    def remark(self) -> str:
        """The remark in titles and tables, such as "as is: 6 train, 2 val images; 512x256"."""
        numbers = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        return f"as is: {numbers} images" + (f"; {self.sizes}" if self.sizes else "")


def read(root: Path, splits: Mapping[str, int]) -> Declared | None:
    """The declaration in the root's as_is.json, or None; `splits` are those of the published set.

    Raises UserError for a damaged file or an unreadable root.
    """
    path = root / AS_IS
    try:
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        counts = {split: int(content["splits"].get(split, 0)) for split in splits}
        return Declared(counts, Sizes.of(content["size"]) if content.get("size") else None)
    except PermissionError:
        raise UserError(f"the root {root} cannot be read: make the folder readable, or name another") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} is damaged: remove it and run prepare --as-is again") from None


def write(root: Path, dataset: str, declared: Declared) -> None:
    """Write as_is.json. Raises UserError if the root cannot be written."""
    size = str(declared.sizes) if declared.sizes else None
    try:
        atomic.write_json(root / AS_IS, {"dataset": dataset, "splits": declared.splits, "size": size})
    except OSError as error:
        raise UserError(
            f"{root / AS_IS} cannot be written ({error.strerror}): make a folder of links to the data (ln -s) and "
            "pass that as --root"
        ) from None

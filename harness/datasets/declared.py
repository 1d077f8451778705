"""What a root says about itself: that its pictures are rendered, or that it is taken as it is.

A file in the root, so that every command and every record that reads these data knows it.

rendered.json   the root was filled by layout_writer
as_is.json      the owner means a part of the set, or copies of another size (`python -m harness prepare --as-is`)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.compute import atomic
from harness.datasets.sizes import Sizes
from harness.errors import UserError

RENDERED, AS_IS = "rendered.json", "as_is.json"


@dataclass(frozen=True)
class Declared:
    """What a root holds in place of the published data set.

    splits: its images by split. sizes: theirs, where they are not the published set's. is_rendered: the pictures are
    made up, so nothing published holds for them. remark: how titles and tables put it.
    """

    splits: dict[str, int]
    sizes: Sizes | None
    is_rendered: bool

    @property
    def remark(self) -> str:
        """Such as "rendered", or "as is: 6 train, 2 val images; 512x256"."""
        if self.is_rendered:
            return "rendered"
        numbers = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        return f"as is: {numbers} images" + (f"; {self.sizes}" if self.sizes else "")


def read(root: Path, splits: Mapping[str, int]) -> Declared | None:
    """What the root says about itself, None if nothing; `splits` are those of the published set.

    Raises UserError for a damaged file, and for a root that cannot be read.
    """
    for name in (RENDERED, AS_IS):
        path = root / name
        try:
            if not path.is_file():
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
            counts = {split: int(content["splits"].get(split, 0)) for split in splits}
            sizes = Sizes.of(content["size"]) if content.get("size") else None
            return Declared(counts, sizes, name == RENDERED)
        except PermissionError:
            raise UserError(f"the root {root} cannot be read: make the folder readable, or name another") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            again = "have it rendered again" if name == RENDERED else "run prepare --as-is again"
            raise UserError(f"{path} is damaged: remove it and {again}") from None
    return None


def write(root: Path, dataset: str, declared: Declared) -> None:
    """Declare in as_is.json what the root holds of `dataset`. Raises UserError if the root cannot be written to."""
    size = str(declared.sizes) if declared.sizes else None
    try:
        atomic.write_json(root / AS_IS, {"dataset": dataset, "splits": declared.splits, "size": size})
    except OSError as error:
        raise UserError(
            f"{root / AS_IS} cannot be written ({error.strerror}): make a folder of links to the data (ln -s) and "
            "pass that as --root"
        ) from None

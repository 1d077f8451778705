"""Roots that hold a part of a data set, or copies of another size: as_is.json in the root says so in every result."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.compute import atomic
from harness.datasets.sizes import Pair, Sizes
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.datasets.dataset import Dataset

AS_IS = "as_is.json"


@dataclass(frozen=True)
class Declared:
    """What a root holds in place of the published data set: images of each split, and their sizes if they differ."""

    splits: dict[str, int]
    sizes: Sizes | None

    @property
    def remark(self) -> str:
        """What titles and tables say, such as "as is: 6 train, 2 val images; 512x256"."""
        numbers = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        return f"as is: {numbers} images" + (f"; {self.sizes}" if self.sizes else "")


def read(root: Path, splits: Mapping[str, int]) -> Declared | None:
    """What the root's as_is.json says, None without one; `splits` are those of the published set.

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


def declare(dataset: "Dataset") -> Declared:
    """Write into the root's as_is.json what it holds, so that it is read as it is and marked in every result.

    Raises UserError if there is no pair to train or evaluate on, if the root holds the published set, or if it cannot
    be written.
    """
    root, spec = dataset.folder(), dataset.spec
    if spec.generator is not None:
        raise UserError(f"{root} holds rendered scenes: there is nothing to declare")
    published = type(dataset)(dataset.specs)
    found = {split: spec.layout.scan(root, split).samples for split in spec.splits if spec.layout.found(root, [split])}
    counts = {split: len(found.get(split, [])) for split in published.splits}
    for split in (dataset.train_split, dataset.evaluation_split):
        if not counts[split]:
            raise UserError(
                f"{root} has no labelled image in {split}: training needs at least one in {dataset.train_split} and "
                f"evaluation one in {dataset.evaluation_split}"
            )
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(_size, (sample.image_path for samples in found.values() for sample in samples)))
    all_fit = published.sizes is None or all(size in published.sizes for size in sizes)
    if all_fit and all(counts[split] in published.accepted_counts(split) for split in counts):
        raise UserError(f"{root} holds all of {published.title} in its own size: there is nothing to declare")
    declared = Declared(counts, None if all_fit else Sizes.around(sizes))
    write(root, dataset.name, declared)
    return declared


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


def _size(path: Path) -> Pair:
    from harness.datasets.images import opened

    try:
        with opened(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path} cannot be decoded: copy or download it again, or remove it") from None

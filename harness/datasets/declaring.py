"""Declares the contents of a root that is not the published data set: `prepare --as-is`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.datasets.as_is import Declared, write
from harness.datasets.dataset import Dataset
from harness.datasets.images import opened
from harness.datasets.sizes import Pair, Sizes
from harness.errors import UserError


def declare(dataset: Dataset) -> Declared:
    """Write the root's as_is.json, so that its images are accepted as they are and every result is marked.

    Raises UserError if there is no pair to train or evaluate on, if the root has the complete published set, or if the
    file cannot be written.
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


def _size(path: Path) -> Pair:
    try:
        with opened(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path} cannot be decoded: copy or download it again, or remove it") from None

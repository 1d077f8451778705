"""Takes a root as it is: a part of a data set, or copies of another size."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.datasets import declared
from harness.datasets.dataset import Dataset
from harness.datasets.images import opened
from harness.datasets.sizes import Pair, Sizes
from harness.errors import UserError

THREADS = 8


def declare(dataset: Dataset) -> declared.Declared:
    """Write down in the root what it holds, so that it is read without complaint and marked wherever it is used.

    Raises UserError if there is no pair to train on or none to evaluate on, if nothing is different from the published
    set, or if the root cannot be written to.
    """
    root = dataset.folder()
    if dataset.is_rendered or dataset.spec.generator is not None:
        raise UserError(f"{root} holds rendered pictures and says so already: there is nothing to declare")
    published = Dataset(dataset.specs)
    listings = {split: dataset.spec.layout.scan(root, split).samples for split in _readable(dataset, root)}
    counts = {split: len(listings.get(split, [])) for split in published.splits}
    for split in (dataset.train_split, dataset.evaluation_split):
        if not counts[split]:
            raise UserError(
                f"{root} holds no image with a label in {split}, but training takes one or more in "
                f"{dataset.train_split} and evaluation in {dataset.evaluation_split}: add some in the layout's folders"
            )
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(_size, (sample.image_path for samples in listings.values() for sample in samples)))
    all_fit = published.sizes is None or all(size in published.sizes for size in sizes)
    if all_fit and all(counts[split] in published.accepted_counts(split) for split in counts):
        raise UserError(f"{root} holds the whole of {published.title} in its own size: there is nothing to declare")
    found = declared.Declared(counts, None if all_fit else Sizes.around(sizes), is_rendered=False)
    declared.write(root, dataset.name, found)
    return found


def _readable(dataset: Dataset, root: Path) -> list[str]:
    """The splits whose list, if the layout has lists, is there."""
    return [split for split in dataset.spec.splits if dataset.spec.layout.found(root, [split])]


def _size(path: Path) -> Pair:
    try:
        with opened(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path} cannot be decoded: copy or download it again, or remove it") from None

"""Reads every image and label of a split and says what it found."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.compute.progress import track
from harness.datasets.dataset import Dataset
from harness.datasets.diagnosis import wrong_classes, wrong_folders, wrong_images, wrong_labels
from harness.datasets.images import orientation
from harness.datasets.jpeg_damage import HOLE, Inspectors, has_hole, inspectors
from harness.datasets.mistakes import FAR, share_distance, void_classes
from harness.datasets.readers import Listing, Sample
from harness.errors import UserError

EXAMPLES = 10
IDENTICAL, DIFFERENT, UNKNOWN = "identical to the published labels", "different", "unknown"


@dataclass
class Found:
    """What was found in a split. Class counts have one entry a class and, last, one for ignored pixels.

    sizes: images by size, "640x480". turned: files whose EXIF orientation says to turn them. hollow: JPEGs with a hole.
    """

    listed: int
    pixels: NDArray[np.int64]
    images_with_class: NDArray[np.int64]
    problems: list[str]
    sizes: Counter[str] = field(default_factory=Counter)
    turned: list[str] = field(default_factory=list)
    hollow: list[str] = field(default_factory=list)

    def add(self, counts: NDArray[np.int64], shape: tuple[int, ...]) -> None:
        """Count a label: the pixels of each class, and the size."""
        self.pixels += counts
        self.images_with_class += counts > 0
        self.sizes[f"{shape[1]}x{shape[0]}"] += 1

    def labels(self, dataset: Dataset, split: str) -> str:
        """How the pixels of the classes compare with the known ones."""
        known = dataset.class_pixels.get(split)
        if known is None:
            return UNKNOWN
        return IDENTICAL if self.pixels.tolist() == list(known) else DIFFERENT

    def warnings(self, dataset: Dataset, split: str) -> Iterator[str]:
        """What may be meant, but seldom is."""
        if self.labels(dataset, split) == DIFFERENT:
            yield "the pixels of the classes differ from those of the published labels"
        known = [entry.pixel_share for entry in dataset.spec.classes if entry.pixel_share is not None]
        if len(known) == len(dataset.classes) and not dataset.is_rendered and not self.problems:
            distance = share_distance(self.pixels[:-1].tolist(), known)
            if distance > FAR:
                yield f"the shares of the classes are far from the known ones ({100 * distance:.0f} % lie elsewhere)"
        if self.hollow:
            yield (
                f"{count(len(self.hollow), 'JPEG')} with {HOLE:,} zero bytes in a row or more, {self.hollow[0]} first: "
                "a hole that an incomplete copy leaves, or a large flat area; look at it"
            )
        if self.turned:
            yield (
                f"{count(len(self.turned), 'file')} with an EXIF orientation, {self.turned[0]} first: images and "
                "labels are read as stored and not turned; if the labels were drawn on the turned photographs, turn "
                "those for good (mogrify -auto-orient)"
            )
        if split == dataset.train_split:
            absent = [name for name, number in zip(dataset.classes, self.pixels, strict=False) if number == 0]
            if absent:
                more = f" and {len(absent) - EXAMPLES} more" if len(absent) > EXAMPLES else ""
                yield f"no pixel of {', '.join(absent[:EXAMPLES])}{more}, so nothing to learn it from"
            for name in void_classes(dataset.classes):
                yield f"{name} is trained and scored as a class: move its labels to ignored_labels if it is void"

    def entry(self, dataset: Dataset, split: str) -> dict[str, Any]:
        """The split's part of the report."""
        names = [*dataset.classes, "ignored"]
        return {
            "problems": len(self.problems),
            "examples": self.problems[:EXAMPLES],
            "warnings": list(self.warnings(dataset, split)),
            "images": self.listed,
            "expected": dataset.splits[split],
            "sizes": dict(self.sizes.most_common(EXAMPLES)),
            "class_pixels": dict(zip(names, self.pixels.tolist(), strict=True)),
            "images_with_class": dict(zip(names, self.images_with_class.tolist(), strict=True)),
            "labels": self.labels(dataset, split),
        }


@dataclass(frozen=True)
class _Checked:
    """What one sample is: a label's pixels by class and its shape, what of it has an EXIF orientation or a hole."""

    counts: NDArray[np.int64]
    shape: tuple[int, ...]
    turned: list[str]
    hollow: list[str]


def check_split(
    dataset: Dataset, root: Path, split: str, listing: Listing, twice: Sequence[str], workers: int | None
) -> Found:
    """Read all of a split.

    twice: what is wrong with it beside other splits. workers: threads; default one a core, at most eight.
    """
    zeros = np.zeros(len(dataset.classes) + 1, np.int64)
    found = Found(len(listing.samples), zeros, zeros.copy(), [*listing.problems, *twice])
    accepted = dataset.accepted_counts(split)
    if not listing.problems and found.listed not in accepted:
        expected = " or ".join(map(str, accepted))
        images = count(found.listed, "image")
        found.problems.append(
            f"{images} in the list, but there must be {expected}: complete the data set; {_as_is(dataset, root)}"
        )

    failed: dict[Sample, str] = {}
    workers = workers or min(8, os.cpu_count() or 1)
    with inspectors(workers) as looking, ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda sample: _check(dataset, root, sample, looking), listing.samples)
        checked = track(results, f"verify {dataset.name} {split}", found.listed)
        for sample, result in zip(listing.samples, checked, strict=True):
            if isinstance(result, str):
                failed[sample] = result
            else:
                found.add(result.counts, result.shape)
                found.turned += result.turned
                found.hollow += result.hollow
                if dataset.sizes and (result.shape[1], result.shape[0]) not in dataset.sizes:
                    found.problems.append(_wrong_size(dataset, root, sample, result.shape))
    found.problems += failed.values()
    if found.listed and not found.problems and not found.pixels[:-1].any():
        found.problems.append("no pixel of any class is labelled: there is nothing to learn from or to score")
    _name_mistake(dataset, root, split, listing, failed, found)
    return found


def _check(dataset: Dataset, root: Path, sample: Sample, looking: Inspectors) -> _Checked | str:
    """What a sample is, or what is wrong with it."""
    try:
        label = dataset.read(sample)[1]
        if fault := looking.fault(sample.image_path):
            return f"{_below(root, str(sample.image_path))} {fault}"
    except UserError as error:
        return _below(root, str(error))
    pixels = np.bincount(label.ravel(), minlength=256)
    counts = np.append(pixels[: len(dataset.classes)], pixels[dataset.ignore_index])
    paths = [sample.image_path] + ([sample.label_path] if dataset.spec.layout.encoding != "mat" else [])
    turned = [f"{_below(root, str(path))} (orientation {how})" for path in paths if (how := orientation(path)) != 1]
    hollow = [_below(root, str(sample.image_path))] if has_hole(sample.image_path) else []
    return _Checked(counts, label.shape, turned, hollow)


def _wrong_size(dataset: Dataset, root: Path, sample: Sample, shape: tuple[int, ...]) -> str:
    assert dataset.sizes is not None
    return (
        f"{_below(root, str(sample.image_path))} is {shape[1]}x{shape[0]} (width x height), but the images of "
        f"{dataset.title} are {dataset.sizes.sentence()}; take the originals; {_as_is(dataset, root)}"
    )


def _as_is(dataset: Dataset, root: Path) -> str:
    """How to use the data all the same."""
    again = f"python -m harness prepare --as-is --dataset {dataset.name} --root {shlex.quote(str(root))}"
    return f"to use what is there all the same, marked in all results: {again}"


def _name_mistake(
    dataset: Dataset, root: Path, split: str, listing: Listing, failed: dict[Sample, str], found: Found
) -> None:
    """Put a usual mistake, if it explains what was found, before the other problems of the split."""
    named = wrong_folders(dataset, root) if listing.problems or failed else ""
    named = named or wrong_images(dataset, (sample.id for sample in listing.samples))
    if not named and not found.problems:
        named = wrong_classes(dataset, split, found.pixels.tolist())
    if not named and (explained := wrong_labels(dataset, list(failed), listing.samples)):
        sample, why = explained
        found.problems.remove(failed[sample])
        named = f"{failed[sample]}; {why}"
    if named:
        found.problems.insert(0, named)


def _below(root: Path, text: str) -> str:
    """The sentence with paths relative to the root."""
    return text.replace(f"{root}{os.sep}", "")


def count(number: int, noun: str) -> str:
    """Such as "1 image" or "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

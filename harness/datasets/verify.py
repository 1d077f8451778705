"""Reads every file of a data set before any training does, and writes down what it found."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import atomic
from harness.datasets.dataset import Dataset
from harness.datasets.readers import Listing, Sample
from harness.errors import UserError
from harness.progress import track

SCHEMA = 1
EXAMPLES = 10
IDENTICAL, DIFFERENT, UNKNOWN = "identical to the published labels", "different", "unknown"


def verify(
    dataset: Dataset, report_path: Path, splits: Sequence[str] | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Check the images and labels of `splits` (default: all) and write the report to `report_path`.

    Checked are the lists (pairs, duplicates, number of images), that each image and label can be read, that their sizes
    agree, and that labels hold allowed values. The report gives per split the number of images, their sizes, pixels and
    images of each class, and whether the class pixels equal the known ones (if not, that is a warning); and over the
    splits the data's fingerprint (`Dataset.fingerprint`). If nothing has changed since a report without problems (the
    files' names, sizes and times, the data set's YAML), that report is returned.

    workers: threads; default one a core, at most eight.

    Raises UserError that names the first problem and where the others are listed, after writing the report; without a
    report if the root is missing or a split unknown.
    """
    started = time.monotonic()
    root = dataset.folder()
    splits = list(splits or dataset.splits)
    listings = {split: _scan(dataset, root, split) for split in splits}
    state = _state(dataset, root, listings)
    previous = _read_report(report_path)
    if previous.get("state") == state and previous.get("status") == "ok":
        return previous

    found = {split: _check_split(dataset, root, split, listings[split], workers) for split in splits}
    problems = [f"{split}: {text}" for split in splits for text in found[split].problems]
    problems += _in_two_splits(listings)
    report = {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "root": str(root),
        "status": "failed" if problems else "ok",
        "problems": len(problems),
        "examples": problems[:EXAMPLES],
        "warnings": [f"{split}: {text}" for split in splits for text in found[split].warnings(dataset, split)],
        "fingerprint": None if problems else dataset.fingerprint(splits),
        "splits": {split: found[split].summary(dataset, split) for split in splits},
        "state": state,
        "seconds": round(time.monotonic() - started, 3),
    }
    atomic.write_json(report_path, report)
    if problems:
        raise UserError(f"{dataset.title} {problems[0]}{_others(len(problems) - 1, report_path)}")
    return report


@dataclass
class _Found:
    """What was found in a split. Class counts have one entry a class and, last, one for ignored pixels."""

    listed: int
    pixels: NDArray[np.int64]
    images_with_class: NDArray[np.int64]
    problems: list[str]
    sizes: Counter[str] = field(default_factory=Counter)

    def published(self, dataset: Dataset, split: str) -> str:
        known = dataset.class_pixels.get(split)
        if known is None:
            return UNKNOWN
        return IDENTICAL if self.pixels.tolist() == list(known) else DIFFERENT

    def warnings(self, dataset: Dataset, split: str) -> list[str]:
        texts = []
        if self.published(dataset, split) == DIFFERENT:
            texts.append("the pixels of the classes differ from those of the published labels")
        if split == dataset.train_split:
            absent = [name for name, count in zip(dataset.classes, self.pixels, strict=False) if count == 0]
            if absent:
                texts.append(f"no pixel of {', '.join(absent)}, so nothing to learn it from")
        return texts

    def summary(self, dataset: Dataset, split: str) -> dict[str, Any]:
        names = [*dataset.classes, "ignored"]
        return {
            "images": self.listed,
            "expected": dataset.splits[split],
            "sizes": dict(self.sizes.most_common(EXAMPLES)),
            "class_pixels": dict(zip(names, self.pixels.tolist(), strict=True)),
            "images_with_class": dict(zip(names, self.images_with_class.tolist(), strict=True)),
            "labels": self.published(dataset, split),
        }


def _scan(dataset: Dataset, root: Path, split: str) -> Listing:
    """The split's listing; a list that cannot be read is a problem like any other."""
    dataset.check_split(split)
    try:
        return dataset.spec.layout.scan(root, split)
    except UserError as error:
        return Listing([], [_below(root, error)])


def _check_split(dataset: Dataset, root: Path, split: str, listing: Listing, workers: int | None) -> _Found:
    zeros = np.zeros(len(dataset.classes) + 1, np.int64)
    found = _Found(len(listing.samples), zeros, zeros.copy(), list(listing.problems))
    if not listing.problems and found.listed != dataset.splits[split]:
        listed, expected = _count(found.listed, "image"), dataset.splits[split]
        found.problems.append(f"{listed} in the list, but there must be {expected}: complete the data set")

    def check(sample: Sample) -> NDArray[np.uint8] | UserError:
        try:
            return dataset.read(sample)[1]
        except UserError as error:
            return error

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for label in track(pool.map(check, listing.samples), f"verify {dataset.name} {split}", found.listed):
            if isinstance(label, UserError):
                found.problems.append(_below(root, label))
                continue
            pixels = np.bincount(label.ravel(), minlength=256)
            pixels = np.append(pixels[: len(dataset.classes)], pixels[dataset.ignore_index])
            found.pixels += pixels
            found.images_with_class += pixels > 0
            found.sizes[f"{label.shape[1]}x{label.shape[0]}"] += 1
    return found


def _in_two_splits(listings: dict[str, Listing]) -> list[str]:
    """Training on what is evaluated is the mistake that no score shows."""
    first: dict[str, str] = {}
    return [
        f"{split}: {sample.id} is also in {first[sample.id]}"
        for split, listing in listings.items()
        for sample in listing.samples
        if first.setdefault(sample.id, split) != split
    ]


def _state(dataset: Dataset, root: Path, listings: dict[str, Listing]) -> str:
    """Changes when a file, a list or the YAML does, as far as that shows without reading images and labels."""
    digest = hashlib.sha256(f"{SCHEMA}\n{root.resolve()}\n{dataset.spec.model_dump_json()}\n".encode())
    for split, listing in listings.items():
        digest.update(json.dumps([split, listing.problems]).encode())
        for sample in listing.samples:
            for path in (sample.image_path, sample.label_path):
                stat = path.stat()
                digest.update(f"{path.relative_to(root)}\n{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_report(path: Path) -> dict[str, Any]:
    """The report of an earlier call, or {} if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _below(root: Path, error: UserError) -> str:
    """The error's sentence with paths relative to the root."""
    return str(error).replace(f"{root}{os.sep}", "")


def _others(number: int, report_path: Path) -> str:
    """The end of the sentence that names the first problem."""
    if number == 0:
        return ""
    if number < EXAMPLES:
        return f"; {_count(number, 'more problem')} {'is' if number == 1 else 'are'} listed in {report_path}"
    return f"; {number} more problems, of which {report_path} lists {EXAMPLES - 1}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Reads every file of a data set before any training does, and writes down what it found."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import atomic
from harness.datasets.dataset import RENDERED, Dataset
from harness.datasets.diagnosis import wrong_classes, wrong_folders, wrong_images, wrong_labels, wrong_root
from harness.datasets.mistakes import FAR, share_distance, void_classes
from harness.datasets.readers import Listing, Sample
from harness.datasets.state import description_state, files_state
from harness.errors import UserError
from harness.progress import track

SCHEMA = 2
EXAMPLES = 10
IDENTICAL, DIFFERENT, UNKNOWN = "identical to the published labels", "different", "unknown"

Report = dict[str, Any]


def verify(
    dataset: Dataset, report_path: Path, splits: Sequence[str] | None = None, workers: int | None = None
) -> Report:
    """Check the images and labels of `splits` (default: all) and write the report to `report_path`.

    Checked are the lists (pairs, duplicates, number of images), that each image and label can be read, that their sizes
    agree, that labels hold allowed values, that no split holds an image of another, and that class pixels do not show a
    mistake. The usual mistakes are named (mistakes.py, diagnosis.py).

    The report gives per split the number of images, their sizes, pixels and images of each class, and whether the class
    pixels equal the known ones (if not, that is a warning); and the data's fingerprint (`Dataset.fingerprint`), or null
    while not all splits are known to be in order. A split that has not changed since it was in order (the files' names,
    sizes and times, the data set's YAML) is not read again. What earlier calls wrote about other splits stays in the
    file; what is returned is about `splits` alone.

    workers: threads; default one a core, at most eight.

    Raises UserError that names the first problem and where the others are listed, after writing the report; without a
    report if the root is missing or holds another data set, or a split is unknown.
    """
    root = _root(dataset)
    splits = list(splits or dataset.splits)
    listings = {split: _scan(dataset, root, split) for split in splits}
    states = {split: _state(listing) for split, listing in listings.items()}
    description = f"{SCHEMA} {description_state(dataset)}"
    previous = _read_report(report_path, description)
    entries: dict[str, Report] = previous.get("splits", {})
    twice = _in_two_splits(listings)

    stale = [split for split in splits if _is_stale(entries.get(split), states[split], twice[split])]
    for split in stale:
        found = _check_split(dataset, root, split, listings[split], twice[split], workers)
        entries[split] = found.entry(dataset, split) | {"state": states[split], "copies": []}
    in_order = not any(entries[split]["problems"] for split in splits)
    if stale and in_order:
        for split, copies in _copies(listings).items():
            entries[split]["copies"] = copies
    fingerprint = None if stale else previous.get("fingerprint")
    if fingerprint is None and in_order and set(splits) == set(dataset.splits):
        fingerprint = dataset.fingerprint()

    head = {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "root": str(root),
        "description": description,
        "fingerprint": fingerprint,
    }
    if stale or fingerprint != previous.get("fingerprint"):
        known = [split for split in dataset.splits if split in entries]
        atomic.write_json(report_path, _report(head, entries, known))
    report = _report(head, entries, splits)
    if report["problems"]:
        others = _others(report["problems"] - 1, report_path)
        raise UserError(f"{dataset.title} {report['examples'][0]}{others}")
    return report


def _report(head: Report, entries: dict[str, Report], splits: Sequence[str]) -> Report:
    """The report on `splits`, from what was found in each."""

    def of_all(key: str) -> list[str]:
        return [f"{split}: {text}" for split in splits for text in entries[split][key]]

    problems = sum(entries[split]["problems"] for split in splits)
    return head | {
        "status": "failed" if problems else "ok",
        "problems": problems,
        "examples": of_all("examples")[:EXAMPLES],
        "warnings": of_all("warnings") + of_all("copies"),
        "splits": {split: entries[split] for split in splits},
    }


@dataclass
class _Found:
    """What was found in a split. Class counts have one entry a class and, last, one for ignored pixels."""

    listed: int
    pixels: NDArray[np.int64]
    images_with_class: NDArray[np.int64]
    problems: list[str]
    sizes: Counter[str] = field(default_factory=Counter)

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
        rendered = (dataset.folder() / RENDERED).is_file()
        if len(known) == len(dataset.classes) and not rendered and not self.problems:
            distance = share_distance(self.pixels[:-1].tolist(), known)
            if distance > FAR:
                yield f"the shares of the classes are far from the known ones ({100 * distance:.0f} % lie elsewhere)"
        if split == dataset.train_split:
            absent = [name for name, count in zip(dataset.classes, self.pixels, strict=False) if count == 0]
            if absent:
                more = f" and {len(absent) - EXAMPLES} more" if len(absent) > EXAMPLES else ""
                yield f"no pixel of {', '.join(absent[:EXAMPLES])}{more}, so nothing to learn it from"
            for name in void_classes(dataset.classes):
                yield f"{name} is trained and scored as a class: move its labels to ignored_labels if it is void"

    def entry(self, dataset: Dataset, split: str) -> Report:
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


def _root(dataset: Dataset) -> Path:
    """The data set's root; if it holds none of the layouts, the error says why where that is a usual mistake."""
    try:
        return dataset.folder()
    except UserError as error:
        why = wrong_root(dataset, dataset.root) if dataset.root and dataset.root.is_dir() else ""
        raise UserError(f"{error}; {_below(dataset.root, why)}" if dataset.root and why else str(error)) from None


def _scan(dataset: Dataset, root: Path, split: str) -> Listing:
    """The split's listing; a list that cannot be read is a problem like any other."""
    dataset.check_split(split)
    try:
        return dataset.spec.layout.scan(root, split)
    except UserError as error:
        return Listing([], [_below(root, str(error))])


def _check_split(
    dataset: Dataset, root: Path, split: str, listing: Listing, twice: Sequence[str], workers: int | None
) -> _Found:
    zeros = np.zeros(len(dataset.classes) + 1, np.int64)
    found = _Found(len(listing.samples), zeros, zeros.copy(), [*listing.problems, *twice])
    accepted = dataset.accepted_counts(split)
    if not listing.problems and found.listed not in accepted:
        expected = " or ".join(map(str, accepted))
        images = _count(found.listed, "image")
        found.problems.append(f"{images} in the list, but there must be {expected}: complete the data set")

    def check(sample: Sample) -> tuple[NDArray[np.int64], tuple[int, ...]] | str:
        try:
            label = dataset.read(sample)[1]
        except UserError as error:
            return _below(root, str(error))
        counts = np.bincount(label.ravel(), minlength=256)
        return np.append(counts[: len(dataset.classes)], counts[dataset.ignore_index]), label.shape

    failed: dict[Sample, str] = {}
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        checked = track(pool.map(check, listing.samples), f"verify {dataset.name} {split}", found.listed)
        for sample, result in zip(listing.samples, checked, strict=True):
            if isinstance(result, str):
                failed[sample] = result
            else:
                found.add(*result)
    found.problems += failed.values()
    _name_mistake(dataset, root, split, listing, failed, found)
    return found


def _name_mistake(
    dataset: Dataset, root: Path, split: str, listing: Listing, failed: dict[Sample, str], found: _Found
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


def _in_two_splits(listings: dict[str, Listing]) -> dict[str, list[str]]:
    """Training on what is evaluated is the mistake that no score shows."""
    first: dict[str, str] = {}
    return {
        split: [
            f"{sample.id} is also in {first[sample.id]}"
            for sample in listing.samples
            if first.setdefault(sample.id, split) != split
        ]
        for split, listing in listings.items()
    }


def _copies(listings: dict[str, Listing]) -> dict[str, list[str]]:
    """For each split a sentence about images that are byte for byte those of an earlier split, if there are any."""
    of_size: defaultdict[int, list[tuple[str, Sample]]] = defaultdict(list)
    for split, listing in listings.items():
        for sample in listing.samples:
            of_size[sample.image_path.stat().st_size].append((split, sample))
    found: dict[str, list[str]] = {split: [] for split in listings}
    for group in of_size.values():
        if len({split for split, _ in group}) == 1:
            continue  # files that can be equal to none of another split are not read again
        first: dict[bytes, tuple[str, Sample]] = {}
        for split, sample in group:
            digest = hashlib.sha256(sample.image_path.read_bytes()).digest()
            other_split, other = first.setdefault(digest, (split, sample))
            if other_split != split:
                found[split].append(f"{sample.id} is {other.id} of {other_split}")
    return {
        split: [f"{_count(len(copies), 'image')} of other splits: {', '.join(copies[:EXAMPLES])}"] if copies else []
        for split, copies in found.items()
    }


def _is_stale(entry: Report | None, state: str, twice: Sequence[str]) -> bool:
    """Whether a split must be read again."""
    return entry is None or entry["state"] != state or entry["problems"] > 0 or bool(twice)


def _state(listing: Listing) -> str:
    """Changes when a file or a list of the split does, as far as that shows without reading images and labels."""
    return hashlib.sha256(json.dumps([listing.problems, files_state(listing.samples)]).encode()).hexdigest()


def _read_report(path: Path, description: str) -> Report:
    """The report of an earlier call, or {} if there is none on this data set in this place."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.get("description") == description else {}


def _below(root: Path, text: str) -> str:
    """The sentence with paths relative to the root."""
    return text.replace(f"{root}{os.sep}", "")


def _others(number: int, report_path: Path) -> str:
    """The end of the sentence that names the first problem."""
    if number == 0:
        return ""
    if number < EXAMPLES:
        return f"; {_count(number, 'more problem')} {'is' if number == 1 else 'are'} listed in {report_path}"
    return f"; {number} more problems, of which {report_path} lists {EXAMPLES - 1}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

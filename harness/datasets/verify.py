"""Checks every file of a data set before training, and writes a report."""

import hashlib
import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.compute import atomic
from harness.compute.progress import track
from harness.datasets.dataset import Dataset, description_state, files_state
from harness.datasets.images import orientation
from harness.datasets.jpeg_damage import HOLE, Inspectors, has_hole, inspectors
from harness.datasets.mistakes import FAR, share_distance, wrong_classes, wrong_labels, wrong_root
from harness.datasets.readers import Listing, Sample
from harness.errors import UserError

SCHEMA = 3
EXAMPLES = 10
VOID_NAMES = frozenset({"void", "unlabeled", "unlabelled", "ignore", "ignored"})
IDENTICAL, DIFFERENT, UNKNOWN = "identical to the published labels", "different", "unknown"

Report = dict[str, Any]


def verify(
    dataset: Dataset, report_path: Path, splits: Sequence[str] | None = None, workers: int | None = None
) -> Report:
    """Check the images and labels of `splits` (default: all); returns the report, which is also written.

    Checks that lists are consistent (pairs, duplicates, number of images), that images and labels can be read and have
    the same size, that labels have only valid values, that no image is in two splits, and that the class pixels show no
    common mistake (mistakes.py).

    The report has for each split the number of images, their sizes, pixels and images of each class, and whether the
    class pixels equal the published ones (if not, a warning); and the data's fingerprint (`Dataset.fingerprint`), null
    until all splits are verified. A split is not read again while the names, sizes and times of its files and the data
    set's YAML stay the same. The file keeps earlier results for other splits; the returned report covers only `splits`.
    workers: threads; default: one per core, at most eight.

    Raises UserError, after writing the report, with the first problem and where the others are listed. Without a root
    that contains this data set, and for an unknown split, no report is written.
    """
    try:
        return _verify(dataset, report_path, splits, workers)
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be read: make it readable for the user who runs this") from None


def _verify(dataset: Dataset, report_path: Path, splits: Sequence[str] | None, workers: int | None) -> Report:
    root = _root(dataset)
    splits = list(splits or dataset.splits)
    listings = {split: _scan(dataset, root, split) for split in splits}
    states = {
        split: hashlib.sha256(json.dumps([listing.problems, files_state(listing.samples)]).encode()).hexdigest()
        for split, listing in listings.items()
    }
    description = f"{SCHEMA} {description_state(dataset)}"
    previous = _read_report(report_path, description)
    entries: dict[str, Report] = previous.get("splits", {})
    twice = _in_two_splits(listings)

    def is_stale(split: str) -> bool:
        entry = entries.get(split)
        return entry is None or entry["state"] != states[split] or entry["problems"] > 0 or bool(twice[split])

    stale = [split for split in splits if is_stale(split)]
    workers = workers or min(8, os.cpu_count() or 1)
    with inspectors(workers) as looking, ThreadPoolExecutor(workers) as pool:
        for split in stale:
            found = check_split(dataset, root, split, listings[split], twice[split], pool, looking)
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
        "remark": dataset.remark,
        "description": description,
        "fingerprint": fingerprint,
    }
    if stale or fingerprint != previous.get("fingerprint"):
        known = [split for split in dataset.splits if split in entries]
        atomic.write_json(report_path, _report(head, entries, known))
    report = _report(head, entries, splits)
    remarks = [f"not the published data set, {dataset.remark}: results say so"] if dataset.remark else []
    remarks += [dataset.spec.layout.remark] if dataset.spec.layout.remark else []
    report["warnings"] = remarks + report["warnings"]
    if number := report["problems"]:
        more = f"; {count(number - 1, 'more problem')} in {report_path}" if number > 1 else ""
        raise UserError(f"{dataset.title} {report['examples'][0]}{more}")
    return report


@dataclass
class Found:
    """The findings in a split. Class counts have one entry per class and, last, one for ignored pixels.

    sizes: images by size, "640x480". turned: files with an EXIF rotation. hollow: JPEGs with a run of zero bytes.
    """

    listed: int
    pixels: NDArray[np.int64]
    images_with_class: NDArray[np.int64]
    problems: list[str]
    sizes: Counter[str] = field(default_factory=Counter)
    turned: list[str] = field(default_factory=list)
    hollow: list[str] = field(default_factory=list)

    def labels(self, dataset: Dataset, split: str) -> str:
        """How the class pixels compare with the published ones."""
        known = dataset.class_pixels.get(split)
        return UNKNOWN if known is None else IDENTICAL if self.pixels.tolist() == list(known) else DIFFERENT

    def warnings(self, dataset: Dataset, split: str) -> Iterator[str]:
        """Yield findings that are unusual but may be intended."""
        if self.labels(dataset, split) == DIFFERENT:
            yield "the class pixels differ from those of the published labels"
        known = [entry.pixel_share for entry in dataset.spec.classes if entry.pixel_share is not None]
        if len(known) == len(dataset.classes) and not dataset.remark and not self.problems:
            distance = share_distance(self.pixels[:-1].tolist(), known)
            if distance > FAR:
                yield f"the class shares are far from the published ones ({100 * distance:.0f} % total variation)"
        if self.hollow:
            yield (
                f"{count(len(self.hollow), 'JPEG')} with {HOLE:,} zero bytes in a row, first {self.hollow[0]}: an "
                "incomplete copy, or a large flat area; look at it"
            )
        if self.turned:
            yield (
                f"{count(len(self.turned), 'file')} with an EXIF rotation, first {self.turned[0]}: images and labels "
                "are read as stored; if labels were drawn on rotated photographs, rotate the photographs themselves "
                "(mogrify -auto-orient)"
            )
        if split == dataset.train_split:
            absent = [name for name, number in zip(dataset.classes, self.pixels, strict=False) if number == 0]
            if absent:
                more = f" and {len(absent) - EXAMPLES} more" if len(absent) > EXAMPLES else ""
                yield f"no pixel of {', '.join(absent[:EXAMPLES])}{more}, so these classes cannot be learned"
            for name in dataset.classes:
                if name.lower() in VOID_NAMES:
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


def check_split(
    dataset: Dataset,
    root: Path,
    split: str,
    listing: Listing,
    twice: Sequence[str],
    pool: ThreadPoolExecutor,
    looking: Inspectors,
) -> Found:
    """The findings in a split after reading all its files. twice: its images that are also in other splits."""
    zeros = np.zeros(len(dataset.classes) + 1, np.int64)
    found = Found(len(listing.samples), zeros, zeros.copy(), [*listing.problems, *twice])
    as_is = f"python -m harness prepare --as-is --dataset {dataset.name} --root {shlex.quote(str(root))}"
    as_is = f"to use what is there, marked in all results: {as_is}"
    accepted = dataset.accepted_counts(split)
    if not listing.problems and found.listed not in accepted:
        expected = " or ".join(map(str, accepted))
        images = count(found.listed, "image")
        found.problems.append(f"{images}, but there must be {expected}: complete the data set; {as_is}")

    if split != dataset.train_split and listing.samples:
        try:
            list(map(dataset.cluster, (sample.id for sample in listing.samples)))
        except UserError as error:
            found.problems.append(str(error))
    failed: dict[Sample, str] = {}
    results = pool.map(lambda sample: _check(dataset, root, sample, looking), listing.samples)
    checked = track(results, f"verify {dataset.name} {split}", found.listed)
    for sample, result in zip(listing.samples, checked, strict=True):
        if isinstance(result, str):
            failed[sample] = result
            continue
        counts, (height, width), turned, hollow = result
        found.pixels += counts
        found.images_with_class += counts > 0
        found.sizes[f"{width}x{height}"] += 1
        found.turned += turned
        found.hollow += hollow
        if dataset.sizes and (width, height) not in dataset.sizes:
            found.problems.append(
                f"{_below(root, str(sample.image_path))} is {width}x{height} (width x height), but the images of "
                f"{dataset.title} are {dataset.sizes.sentence()}: take the originals; {as_is}"
            )
    found.problems += failed.values()
    if found.listed and not found.problems and not found.pixels[:-1].any():
        found.problems.append("no pixel is labelled with a class: there is nothing to learn or to score")
    if not found.problems and (mistake := wrong_classes(dataset, split, found.pixels.tolist())):
        found.problems.insert(0, mistake)
    if explained := wrong_labels(dataset, list(failed), listing.samples):
        sample, why = explained
        found.problems.remove(failed[sample])
        found.problems.insert(0, f"{failed[sample]}; {why}")
    return found


def _check(
    dataset: Dataset, root: Path, sample: Sample, looking: Inspectors
) -> tuple[NDArray[np.int64], tuple[int, ...], list[str], list[str]] | str:
    """A label's pixels by class, its shape, rotated files and hollow JPEGs; or what is wrong with the sample."""
    try:
        label = dataset.read(sample)[1]
        if fault := looking.fault(sample.image_path):
            return f"{_below(root, str(sample.image_path))} {fault}"
    except UserError as error:
        return _below(root, str(error))
    pixels = np.bincount(label.ravel(), minlength=256)
    paths = [sample.image_path] + ([sample.label_path] if dataset.spec.layout.encoding != "mat" else [])
    turned = [f"{_below(root, str(path))} (orientation {how})" for path in paths if (how := orientation(path)) != 1]
    hollow = [_below(root, str(sample.image_path))] if has_hole(sample.image_path) else []
    return np.append(pixels[: len(dataset.classes)], pixels[dataset.ignore_index]), label.shape, turned, hollow


def _report(head: Report, entries: dict[str, Report], splits: Sequence[str]) -> Report:
    """The report on `splits`, from the entry of each."""

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


def _root(dataset: Dataset) -> Path:
    """The data set's root. If it has none of the layouts, the error says which data set it seems to be."""
    try:
        return dataset.folder()
    except UserError as error:
        root = dataset.root
        readable = root is not None and root.is_dir() and os.access(root, os.R_OK | os.X_OK)
        why = wrong_root(dataset, root) if root and readable else ""
        raise UserError(f"{error}; {why}" if why else str(error)) from None


def _scan(dataset: Dataset, root: Path, split: str) -> Listing:
    """The split's listing; an unreadable list becomes one of its problems."""
    dataset.check_split(split)
    try:
        return dataset.listing(split)
    except UserError as error:
        return Listing([], [_below(root, str(error))])


def _in_two_splits(listings: dict[str, Listing]) -> dict[str, list[str]]:
    """For each split, the problems of images that are also in an earlier split (training on test data)."""
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
    """For each split, a sentence about images that are byte-identical to images of earlier splits, if there are any."""
    of_size: defaultdict[int, list[tuple[str, Sample]]] = defaultdict(list)
    for split, listing in listings.items():
        for sample in listing.samples:
            of_size[sample.image_path.stat().st_size].append((split, sample))
    found: dict[str, list[str]] = {split: [] for split in listings}
    for group in of_size.values():
        if len({split for split, _ in group}) == 1:
            continue  # only files of the same size can be equal
        first: dict[bytes, tuple[str, Sample]] = {}
        for split, sample in group:
            digest = hashlib.sha256(sample.image_path.read_bytes()).digest()
            other_split, other = first.setdefault(digest, (split, sample))
            if other_split != split:
                found[split].append(f"{sample.id} is {other.id} of {other_split}")
    return {
        split: [f"{count(len(copies), 'image')} of other splits: {', '.join(copies[:EXAMPLES])}"] if copies else []
        for split, copies in found.items()
    }


def _read_report(path: Path, description: str) -> Report:
    """An earlier report on the same data set and root, or {}."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.get("description") == description else {}


def _below(root: Path, text: str) -> str:
    """The sentence with paths relative to the root."""
    return text.replace(f"{root}{os.sep}", "")


def count(number: int, noun: str) -> str:
    """A number with its noun, such as "1 image" or "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

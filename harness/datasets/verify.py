"""Reads every file of a data set before any training does, and writes down what it found."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.datasets.check_split import EXAMPLES, check_split, count
from harness.datasets.dataset import Dataset
from harness.datasets.diagnosis import wrong_root
from harness.datasets.readers import Listing, Sample
from harness.datasets.state import description_state, files_state
from harness.errors import UserError

SCHEMA = 3

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
    try:
        return _verify(dataset, report_path, splits, workers)
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be read: make it readable for the user who runs this") from None


def _verify(dataset: Dataset, report_path: Path, splits: Sequence[str] | None, workers: int | None) -> Report:
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
        found = check_split(dataset, root, split, listings[split], twice[split], workers)
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
    remarks = [f"not the published data set, {dataset.remark}: results say so"] if dataset.is_partial else []
    remarks += [dataset.spec.layout.remark] if dataset.spec.layout.remark else []
    report["warnings"] = remarks + report["warnings"]
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


def _root(dataset: Dataset) -> Path:
    """The data set's root; if it holds none of the layouts, the error says why where that is a usual mistake."""
    try:
        return dataset.folder()
    except UserError as error:
        readable = dataset.root is not None and os.access(dataset.root, os.R_OK | os.X_OK)
        why = wrong_root(dataset, dataset.root) if dataset.root and readable else ""
        raise UserError(f"{error}; {_below(dataset.root, why)}" if dataset.root and why else str(error)) from None


def _scan(dataset: Dataset, root: Path, split: str) -> Listing:
    """The split's listing; a list that cannot be read is a problem like any other."""
    dataset.check_split(split)
    try:
        return dataset.listing(split)
    except UserError as error:
        return Listing([], [_below(root, str(error))])


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
        split: [f"{count(len(copies), 'image')} of other splits: {', '.join(copies[:EXAMPLES])}"] if copies else []
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
        return f"; {count(number, 'more problem')} {'is' if number == 1 else 'are'} listed in {report_path}"
    return f"; {number} more problems, of which {report_path} lists {EXAMPLES - 1}"

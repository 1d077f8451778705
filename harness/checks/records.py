"""Checks submitted runs: is the record complete, and does it agree with its counts?"""

import csv
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import datasets
from harness.compute.walking import files_below
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.categories import category_scores
from harness.evaluation.counts import REGION, Counts
from harness.evaluation.objects import SIZES
from harness.runs.external_arms import EXTERNAL
from harness.runs.health import MEANING
from harness.runs.record import RECORD, TRAINING, Provenance, Record, fingerprint, is_set_aside, records_below
from harness.statistics.scores import groups, score

# Files of a submitted run, and files that may also be in its folder but are not read.
EXPECTED = ("record.json", "counts.npz", "confusion.npz", "curve.csv", "diagnostics.npz", "embeddings.npz")
IGNORED = ("training.json", "checkpoints", "predictions", "submissions", "export", "tensorboard")
TOLERANCE = 1e-9  # points; scores are float64 functions of integers


def check_records(folder: Path) -> dict[Path, list[str]]:
    """{run's folder: its problems} for every run in or below `folder`, sorted. Raises UserError if there is none.

    A run that was trained and not evaluated is one too: nobody should leave it out unawares.
    """
    found = [path.parent for path in records_below(folder)]
    if not found:
        raise UserError(f"there is no record.json in or below {folder}: give a run's folder or one that holds several")
    trained = [path.parent for path in files_below(folder) if path.name == TRAINING and not is_set_aside(path)]
    missing = {each: [f"there is no {RECORD}: evaluate the run"] for each in trained if each not in found}
    return dict(sorted(({each: check_record(each) for each in found} | missing).items()))


def check_record(folder: Path) -> list[str]:
    """The problems of the run in `folder`, one sentence each; empty if it can be submitted.

    Checks the record's types and hashes, its key against the folder, its settings against their fingerprint, the set of
    files, counts against the data set, confusion against counts, and every score against the counts.
    """
    folder = Path(folder)
    try:
        record = Record.load(folder / RECORD)
    except UserError as error:
        return [str(error)]
    problems = [*_key_problems(folder, record), *_settings_problems(record), *_file_problems(folder, record)]
    if record.data_remark:
        problems.append(f"data_remark: its data are not the published set ({record.data_remark})")
    problems += [f"health: {mark.mark!r} is no known mark" for mark in record.health if mark.mark not in MEANING]
    try:
        record.refuse_changed_files(folder)
    except UserError as error:
        problems.append(str(error))
    if record.status != "done":
        problems += [] if record.reason else [f"status is {record.status}, but there is no reason"]
        problems += [f"status is {record.status}, but there are scores"] if record.scores else []
        return problems
    try:
        counts = Counts.load(folder / "counts.npz")
        dataset = datasets.load(record.key.dataset)
    except UserError as error:
        return [*problems, str(error)]
    return [
        *problems,
        *_data_problems(record, counts, dataset),
        *_count_problems(counts),
        *_confusion_problems(folder / "confusion.npz", counts, record),
        *_score_problems(record, counts, dataset, _confusions(folder / "confusion.npz") or {}),
        *_curve_problems(folder / "curve.csv", record),
    ]


def _key_problems(folder: Path, record: Record) -> list[str]:
    parts = record.key.folder(Path()).parts[-5:]
    there = folder.resolve().parts[-5:]
    return [] if there == parts else [f"the folder ends in {'/'.join(there)}, but its key says {'/'.join(parts)}"]


def _settings_problems(record: Record) -> list[str]:
    problems, made = [], record.provenance or Provenance()
    if fingerprint(record.settings) != record.fingerprint:
        problems.append("fingerprint is not that of settings: one of them was changed")
    claimed = {
        **{name: getattr(record.key, name) for name in ("dataset", "model")},
        "seed": record.key.seed,
        "method": record.method,
        "options": record.options,
        "data": made.data_fingerprint,
        "initial_weights": made.initial_weights_sha256,
    }
    for name, value in claimed.items():
        if name in record.settings and record.settings[name] != value:
            problems.append(f"settings.{name} is {record.settings[name]!r}, but the record says {value!r}")
    scheduled = record.settings.get("schedule", {}).get("iterations")
    if record.status == "done" and record.method != EXTERNAL:
        if record.iterations != scheduled:
            problems.append(f"iterations is {record.iterations}, but its schedule asks for {scheduled}")
        problems += [] if record.weights_hash else ["weights_hash is missing"]
    if made.commit is None or made.dirty is None:
        problems.append("provenance.commit is unknown: train it again from a checkout of this project's repository")
    elif made.dirty:
        problems.append("provenance.dirty: its code had changes that were not committed, so the commit is not what ran")
    return problems


def _file_problems(folder: Path, record: Record) -> list[str]:
    """Files that are missing, unknown, or damaged."""
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - set(IGNORED)
    needed = {"record.json"}
    if record.status == "done":
        needed |= {"counts.npz", "confusion.npz"} | ({"curve.csv"} if record.method != EXTERNAL else set())
    missing, strange = sorted(needed - there), sorted(there - set(EXPECTED))
    torn = [name for name in ("diagnostics.npz", "embeddings.npz") if name in there and not _is_whole(folder / name)]
    return [
        *(f"{name} is missing" for name in missing),
        *(f"{name} is no file of a run: remove it" for name in strange),
        *(f"{name} is not a whole file: take it from where the run was made, or leave it out" for name in torn),
    ]


def _is_whole(path: Path) -> bool:
    """Whether every array of an .npz can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return all(file[name] is not None for name in file.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def _data_problems(record: Record, counts: Counts, dataset: Dataset) -> list[str]:
    """Images or classes that are not the data set's, or ground truth that is not the published one."""
    split = record.split or ""
    if split not in dataset.splits:
        return [f"split is {record.split!r}: {dataset.name} has {', '.join(dataset.splits)}"]
    problems = []
    if tuple(counts.classes) != tuple(dataset.classes):
        return [f"counts.npz has other classes than {dataset.name}"]
    images, accepted = len(counts.image_ids), dataset.accepted_counts(split)
    if images not in accepted:
        problems.append(f"counts.npz has {images} images, but {dataset.name} {split} has {accepted[0]}")
    known = dataset.class_pixels.get(split)
    if known and images == accepted[0]:
        truth = _truth(next(iter(counts.tables.values()))[REGION].sum(0))
        other = [name for name, ours, theirs in zip(counts.classes, truth, known, strict=False) if ours != theirs]
        if other:
            problems.append(f"the ground truth is not the published one: other numbers of pixels of {', '.join(other)}")
    return problems


def _count_problems(counts: Counts) -> list[str]:
    """Counts that cannot come from one ground truth."""
    problems = []
    protocols = list(counts.tables)
    for protocol, tables in counts.tables.items():
        if REGION not in tables:
            problems.append(f"counts.npz has no {REGION} for {protocol}")
            continue
        truth = _truth(tables[REGION])
        first = counts.tables[protocols[0]].get(REGION)
        if first is not None and (truth != _truth(first)).any():
            problems.append(f"counts.npz: {protocol} has another ground truth than {protocols[0]}")
        sizes = [tables[f"objects@{size}"] for size in SIZES if f"objects@{size}" in tables]
        if len(sizes) == len(SIZES) and (np.sum(sizes, axis=0) != tables[REGION]).any():
            problems.append(f"counts.npz: objects of all sizes of {protocol} do not add up to its {REGION}")
        for name, table in tables.items():
            if name != REGION and (_truth(table) > truth).any():
                problems.append(f"counts.npz: {name} of {protocol} has more ground truth than its {REGION}")
    return problems


def _confusions(path: Path) -> dict[str, NDArray[Any]] | None:
    """{protocol: matrix} in the file; {} if it is missing (see `_file_problems`), None if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _confusion_problems(path: Path, counts: Counts, record: Record) -> list[str]:
    matrices = _confusions(path)
    if matrices is None:
        return [f"{path.name} is not a whole file: evaluate the run again"]
    if not path.is_file():
        return []
    problems = []
    for protocol, tables in counts.tables.items():
        matrix, region = matrices.get(protocol), tables.get(REGION)
        if region is None:
            continue
        if matrix is None or matrix.shape != (len(counts.classes),) * 2:
            problems.append(f"confusion.npz has no matrix of {len(counts.classes)} classes for {protocol}")
            continue
        hits, total = matrix.diagonal(), region.sum(0)
        found = np.stack([hits, matrix.sum(0) - hits, matrix.sum(1) - hits], axis=1)
        # With void "wrong", void predictions are FN but have no column in the matrix.
        void = total[:, 2] - found[:, 2] if record.settings.get("void") == "wrong" else np.zeros_like(hits)
        if (found[:, :2] != total[:, :2]).any() or (found[:, 2] + void != total[:, 2]).any() or (void < 0).any():
            problems.append(f"confusion.npz and counts.npz disagree for {protocol}")
    return problems


def _score_problems(record: Record, counts: Counts, dataset: Dataset, confusions: dict[str, NDArray[Any]]) -> list[str]:
    """Scores that differ from those of the counts. Metrics that the record or this version lacks are skipped."""
    if record.scores.keys() != counts.tables.keys():
        return [f"scores are for {', '.join(record.scores) or 'no protocol'}, counts for {', '.join(counts.tables)}"]
    problems = []
    for protocol, tables in counts.tables.items():
        if REGION not in tables:
            continue
        again, per_class = score(tables, counts.classes, record.absent)
        again |= _thirds(record.scores[protocol], per_class["iou"], dataset)
        matrix = confusions.get(protocol)
        if dataset.categories and matrix is not None and matrix.shape == (len(counts.classes),) * 2:
            mean, of_categories = category_scores(matrix, tables[REGION], dataset.categories, record.absent)
            again, per_class = again | mean, per_class | of_categories
        stored = record.scores[protocol]
        problems += [
            f"scores.{protocol}.{name} is {stored[name]}, but the counts give {again[name]}"
            for name in sorted(stored.keys() & again.keys())
            if not _same(again[name], stored[name])
        ]
        classes = record.per_class.get(protocol, {})
        problems += [
            f"per_class.{protocol}.{metric} is not what the counts give"
            for metric in sorted(classes.keys() & per_class.keys())
            if classes[metric].keys() != per_class[metric].keys()
            or any(not _same(value, classes[metric][name]) for name, value in per_class[metric].items())
        ]
    return problems


def _thirds(
    stored: dict[str, float | None], class_iou: dict[str, float | None], dataset: Dataset
) -> dict[str, float | None]:
    """Head, mid and tail if stored: computed from the data set's class frequencies or, if unknown, as stored."""
    names = [name for name in ("miou_head", "miou_mid", "miou_tail") if name in stored]
    known: Sequence[int] = dataset.class_pixels.get(dataset.train_split, [])[:-1]
    if not names or len(known) != len(class_iou):
        return {name: stored[name] for name in names}
    values = list(class_iou.values())
    found: dict[str, float | None] = {}
    for name, members in groups(known).items():
        defined = [value for value in (values[place] for place in members) if value is not None]
        found[f"miou_{name}"] = sum(defined) / len(defined) if defined else None
    return found


def _curve_problems(path: Path, record: Record) -> list[str]:
    if record.method == EXTERNAL or not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            iterations = [int(row["iteration"]) for row in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError, UnicodeDecodeError):
        return ["curve.csv has no column of iterations"]
    if iterations != sorted(set(iterations)) or not iterations or iterations[-1] != record.iterations:
        return [f"curve.csv does not lead to iteration {record.iterations}"]
    return []


def _truth(table: NDArray[Any]) -> NDArray[Any]:
    """Pixels of the ground truth: TP + FN of [..., 3]."""
    return table[..., 0] + table[..., 2]


def _same(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE)

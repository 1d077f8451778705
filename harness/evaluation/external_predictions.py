"""Scores another program's predictions from a folder of label PNGs, by the same counts as our own runs.

Every file is read twice: first to check all files and detect their encoding, then to count.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, get_args

import numpy as np

from harness import datasets
from harness.compute.progress import track
from harness.compute.walking import files_below
from harness.datasets.dataset import IGNORE_INDEX, Dataset
from harness.datasets.readers import Sample
from harness.errors import UserError, unknown
from harness.evaluation.coco_masks import find_masks, write_maps
from harness.evaluation.counts import Counts, stack
from harness.evaluation.encodings import ENCODINGS, Encoding, LabelTable, read_picture
from harness.evaluation.record import Counted, count_pair, map_path, save_counts, scores_of, write_map
from harness.experiment.run import Run
from harness.experiment.schema import Absent, Protocol
from harness.runs.external_arms import claim, settings_of, write_record
from harness.runs.record import now

T = TypeVar("T")

THREADS = min(8, os.cpu_count() or 1)


def score_predictions(
    predictions: Path,
    dataset: Dataset,
    *,
    split: str | None = None,
    encoding: str | None = None,
    absent: str = "skip",
    protocol: str = "whole",
    void_is_wrong: bool = False,
    run: Run | None = None,
    results: Path = Path("results"),
    restart: bool = False,
) -> dict[str, Any]:
    """Score the label PNGs below the folder `predictions` on a split of `dataset` (default: its evaluation split).

    A file is named after its image: STEM.png, or the image's name or id followed by "_...", as Cityscapes' server
    wants it. Without `encoding` (see `encodings`) it is detected over the whole folder: exactly one encoding must fit
    all files, or all that fit must give the same classes.

    `void_is_wrong`: a labelled pixel predicted as no class is an error of the prediction instead of a broken file
    (Cityscapes' official rule). It needs `encoding`, since every encoding would then fit every file.

    `predictions` may also be detectron2's sem_seg_predictions.json, or a folder with it and no PNG.

    With `run`, the key of an arm, an ordinary record with counts and label maps is written to the run's folder under
    `protocol`, the inference protocol of the predictions; `restart` replaces a record of other predictions.

    Returns `dataset`, `split`, `images`, `absent`, `void`, `format`, `predictions_sha256`, `scores` {metric: percent},
    `per_class` {metric: {class: percent}}, `warnings` and `record` (its path or None). Head, mid and tail are included
    if the training split's pixels per class are known from verify.json or the data set's YAML.

    Raises UserError, naming the file, if one is missing, superfluous, damaged, of another size than its label, or
    without a class on a labelled pixel; if the encoding is ambiguous; and if the run's folder holds another run.
    """
    for kind, given, allowed in (
        ("format", encoding, ENCODINGS),
        ("rule for absent classes", absent, get_args(Absent)),
        ("protocol", protocol, get_args(Protocol)),
    ):
        if given is not None and given not in allowed:
            raise unknown(kind, given, allowed)
    if void_is_wrong and encoding is None:
        raise UserError("--void wrong accepts any value, so the format cannot be detected: pass --format")
    if masks := find_masks(predictions):
        if encoding not in (None, "train_ids"):
            raise UserError(f"{masks} holds train ids: leave --format out")
        options: dict[str, Any] = {"split": split, "absent": absent, "protocol": protocol, "run": run}
        options |= {"void_is_wrong": void_is_wrong, "results": results, "restart": restart}
        with TemporaryDirectory() as scratch:
            write_maps(masks, Path(scratch))
            return score_predictions(Path(scratch), dataset, encoding="train_ids", **options)
    started = now()
    split = split or dataset.evaluation_split
    samples = dataset.samples(split)
    job = _Job(dataset, samples, find_predictions(predictions, samples), LabelTable(dataset), void_is_wrong)
    candidates = tuple(each for each in ENCODINGS if encoding in (None, each))
    chosen, sha256 = job.inspect(predictions, candidates)

    folder, settings = None, {}
    if run:
        folder, settings = run.folder(results), settings_of(run, split, protocol, chosen, sha256, void_is_wrong)
        claim(folder, settings, restart)
    counts, confusion = job.count(chosen, protocol, folder)
    found = scores_of(counts, absent, _class_pixels(dataset, results), {protocol: confusion}, dataset.categories)
    if run and folder:
        save_counts(folder, counts, {protocol: confusion})
        write_record(folder, run, settings, found, dataset, absent, predictions.resolve().name, started)
    return {
        "dataset": dataset.name,
        "split": split,
        "images": len(samples),
        "absent": absent,
        "void": "wrong" if void_is_wrong else "refused",
        "format": chosen,
        "predictions_sha256": sha256,
        "scores": found["scores"][protocol],
        "per_class": found["per_class"][protocol],
        "warnings": _warnings(dataset, split, len(samples)),
        "record": str(folder / "record.json") if folder else None,
    }


def find_predictions(folder: Path, samples: Sequence[Sample]) -> list[Path]:
    """The PNG below `folder` that is named after each sample, in their order.

    Raises UserError for a PNG that belongs to no sample, for two PNGs of one sample, or for a sample without one.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: pass --predictions DIR with a PNG for every image")
    ids = {name: each.id for each in samples for name in (each.id, each.image_path.stem)}
    found: dict[str, Path] = {}
    for path in sorted(each for each in files_below(folder) if each.suffix.lower() == ".png"):
        if path.name.startswith("."):
            continue
        name = path.stem
        while name and name not in ids:
            name = name.rpartition("_")[0]
        if not name:
            raise UserError(f"{path} is named after no image of the split: remove it, or pass the right --split")
        first = found.setdefault(ids[name], path)
        if first != path:
            raise UserError(f"{first} and {path} are both predictions of {ids[name]}: keep one of them")
    missing = [sample.id for sample in samples if sample.id not in found]
    if missing:
        other = next((each for each in files_below(folder) if each.stem == missing[0]), None)
        todo = f"save {other.name} as an 8-bit PNG" if other else "complete it, or pass the right --split"
        how_many = f"({len(missing)} of {len(samples)} images have none)"
        raise UserError(f"{folder} holds no PNG named after {missing[0]} {how_many}: {todo}")
    return [found[sample.id] for sample in samples]


@dataclass(frozen=True)
class _Look:
    """Which encodings one file fits.

    faults: why the file cannot be read by an encoding. other_kind: encodings that need values or colours that the file
    does not have. conflicts: pairs of encodings that both fit but give different classes.
    """

    sha256: str
    faults: dict[Encoding, str]
    other_kind: frozenset[Encoding]
    conflicts: frozenset[tuple[Encoding, Encoding]]


@dataclass(frozen=True)
class _Job:
    dataset: Dataset
    samples: Sequence[Sample]
    paths: Sequence[Path]
    table: LabelTable
    void_is_wrong: bool

    def inspect(self, folder: Path, candidates: Sequence[Encoding]) -> tuple[Encoding, str]:
        """The encoding of all files, after checking them, and the sha256 over sorted lines "ID SHA256-OF-FILE"."""

        def look(sample: Sample, path: Path) -> _Look | UserError:
            try:
                return self._look(sample, path, candidates)
            except UserError as error:
                return error

        outcomes = list(self._in_threads(look, "check"))
        errors = [each for each in outcomes if isinstance(each, UserError)]
        if errors:
            more = f" ({len(errors) - 1} more files cannot be used)" if len(errors) > 1 else ""
            raise UserError(f"{errors[0]}{more}")
        looks = [each for each in outcomes if isinstance(each, _Look)]
        lines = sorted(f"{sample.id} {each.sha256}\n" for sample, each in zip(self.samples, looks, strict=True))
        return self._choose(folder, looks, candidates), hashlib.sha256("".join(lines).encode()).hexdigest()

    def count(self, encoding: Encoding, protocol: str, folder: Path | None) -> tuple[Counts, np.ndarray]:
        """Counts and confusion matrix; also writes label maps in train ids to the run's `folder`, if given."""

        def count(sample: Sample, path: Path) -> Counted:
            labels = self.table.read(read_picture(path), encoding)
            assert labels is not None  # checked by `inspect`
            if folder:
                write_map(map_path(folder, protocol, sample.id), labels)
            return count_pair(labels, self.dataset.read_label(sample), self.dataset.num_classes, self.void_is_wrong)

        tables, confusion = [], np.zeros((self.dataset.num_classes,) * 2, np.int64)
        for of_image, of_pairs in self._in_threads(count, "score"):
            tables.append(of_image)
            confusion += of_pairs
        counts = Counts([sample.id for sample in self.samples], self.dataset.classes, {protocol: stack(tables)})
        return counts, confusion

    def _in_threads(self, work: Callable[[Sample, Path], T], title: str) -> Iterator[T]:
        """The results of `work` for all files, in the samples' order."""
        with ThreadPoolExecutor(THREADS) as pool:
            done = pool.map(work, self.samples, self.paths)
            yield from track(done, f"{title} predictions on {self.dataset.name}", len(self.paths))

    def _look(self, sample: Sample, path: Path, candidates: Sequence[Encoding]) -> _Look:
        picture, label = read_picture(path), self.dataset.read_label(sample)
        if picture.shape != label.shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (picture.shape, label.shape)]
            raise UserError(f"{path} is {sizes[0]} (width x height), but the label is {sizes[1]}: they must agree")
        valid = label != IGNORE_INDEX
        if self.void_is_wrong:
            valid = np.zeros_like(valid)
        maps = {encoding: self.table.read(picture, encoding) for encoding in candidates}
        faults = {each: fault for each in maps if (fault := self.table.fault(picture, maps[each], each, valid))}
        fitting = {each: labels for each, labels in maps.items() if each not in faults and labels is not None}
        conflicts = [
            (one, other) for one, other in combinations(fitting, 2) if (valid & (fitting[one] != fitting[other])).any()
        ]
        return _Look(
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            faults=faults,
            other_kind=frozenset(each for each, labels in maps.items() if labels is None),
            conflicts=frozenset(conflicts),
        )

    def _choose(self, folder: Path, looks: Sequence[_Look], candidates: Sequence[Encoding]) -> Encoding:
        """The encoding that fits all files."""
        faulty = {each: [index for index, look in enumerate(looks) if each in look.faults] for each in candidates}
        best = min(candidates, key=lambda each: (len(faulty[each]), sum(each in look.other_kind for look in looks)))
        if faulty[best]:
            first, fits = faulty[best][0], f"{len(looks) - len(faulty[best])} of {len(looks)} files"
            raise UserError(f"{self.paths[first]} {looks[first].faults[best]} (read as {best}, which fits {fits})")
        fitting = {each for each in candidates if not faulty[each]}
        for one, other in sorted({pair for look in looks for pair in look.conflicts}):
            if {one, other} <= fitting:
                raise UserError(
                    f"the files in {folder} can be read as {one} and as {other}, with different classes: "
                    f"pass --format {one} or --format {other}"
                )
        return best


def _class_pixels(dataset: Dataset, results: Path) -> list[int] | None:
    """Pixels of each class in the training split: from verify.json, or else the data set's YAML, or None."""
    try:
        report = json.loads(datasets.report_path(dataset.name, results).read_text(encoding="utf-8"))
        found = report["splits"][dataset.train_split]["class_pixels"]
        return [found[name] for name in dataset.classes]
    except (OSError, ValueError, KeyError, TypeError):
        known = dataset.class_pixels.get(dataset.train_split)
        return list(known[:-1]) if known else None


def _warnings(dataset: Dataset, split: str, images: int) -> list[str]:
    expected = dataset.accepted_counts(split)
    if images in expected:
        return []
    return [f"{dataset.title} has {expected[0]} images in {split}, but {images} were scored"]

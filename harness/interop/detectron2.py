"""Registers our data sets in detectron2's catalogs, and evaluates its semantic-segmentation models.

    from harness.interop.detectron2 import Evaluator, register

    register()                                        # contextrast_bench_camvid_train, ..._val, ..._test, and so on
    evaluator = Evaluator("contextrast_bench_camvid_test", "predictions")
    inference_on_dataset(model, loader, evaluator)    # detectron2.evaluation

docs/other-frameworks.md has an example with its DeepLab project.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

try:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import DatasetEvaluator, SemSegEvaluator
    from detectron2.utils import comm
except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision does not match torch's version
    raise ImportError(f"harness.interop.detectron2 needs detectron2 ({error}): see docs/other-frameworks.md") from None

from harness import datasets
from harness.compute.progress import track
from harness.datasets.dataset import IGNORE_INDEX, Dataset
from harness.datasets.images import opened, read_label
from harness.datasets.readers import Sample
from harness.errors import UserError
from harness.evaluation.counts import Counts, Table, count_image, stack
from harness.evaluation.record import scores_of, write_map

PREFIX = "contextrast_bench"
PROTOCOL = "whole"  # the counts' name; detectron2 decides how the network is tested


def register(roots: Mapping[str, Path] | None = None, results: Path = Path("results")) -> list[str]:
    """Register every split of every data set as contextrast_bench_NAME_SPLIT; returns these names.

    A set is read on demand, from `roots` {name: folder} or its environment variable. Its labels are converted once to
    train ids, which detectron2 reads, in `results`/data/NAME/train_ids.
    """
    names = []
    for name in datasets.names():
        dataset = datasets.load(name)
        for split in dataset.splits:
            registered = f"{PREFIX}_{name}_{split}"
            if registered in DatasetCatalog.list():
                DatasetCatalog.remove(registered)
            DatasetCatalog.register(registered, partial(listing, name, split, (roots or {}).get(name), results))
            MetadataCatalog.get(registered).set(
                stuff_classes=list(dataset.classes),
                stuff_colors=[list(color) for color in dataset.colors],
                ignore_label=IGNORE_INDEX,
                evaluator_type="sem_seg",
            )
            names.append(registered)
    return names


def listing(name: str, split: str, root: Path | None, results: Path) -> list[dict[str, Any]]:
    """A split in detectron2's format: `file_name`, `sem_seg_file_name`, `image_id`, `height`, `width` (pixels).

    `sem_seg_file_name` is a greyscale PNG of train ids, 255 ignored. Raises UserError if the data cannot be read.
    """
    dataset = datasets.load(name, datasets.resolve_root(name, root, results))
    datasets.prepare(dataset)
    # Named after the labels' fingerprint, so that changed labels get new files.
    folder = results / "data" / name / "train_ids" / f"{split}-{dataset.fingerprint([split])[:12]}"
    samples = dataset.samples(split)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        entries = pool.map(partial(_entry, dataset, folder), samples)
        return list(track(entries, f"labels of {name} {split} as train ids", len(samples)))


def _entry(dataset: Dataset, folder: Path, sample: Sample) -> dict[str, Any]:
    path = folder / f"{sample.id}.png"
    if not path.exists():
        write_map(path, dataset.read_label(sample))
    with opened(path) as header:
        width, height = header.size
    named = {"file_name": str(sample.image_path), "sem_seg_file_name": str(path), "image_id": sample.id}
    return named | {"height": height, "width": width}


class Evaluator(DatasetEvaluator):
    """Scores the predictions of a detectron2 model by our counts and metrics.

    `evaluate` returns {"sem_seg": {metric: percent}} with the names of docs/metrics.md, NaN if undefined, and
    METRIC-CLASS for every class. With `output_dir`, label maps (train ids) are written for
    `python -m harness score --predictions DIR --format train_ids --arm NAME`.

    detectron2's own evaluator erodes the whole label map instead of each class, which is not boundary IoU (Cheng et
    al., CVPR 2021). `detectron2_boundary_iou=True` adds the mean over its classes under that name, to compare with
    published results.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        absent: str = "skip",
        distributed: bool = True,
        detectron2_boundary_iou: bool = False,
    ) -> None:
        """dataset_name: from `register`. absent: the rule for absent classes (statistics/scores.py).

        Raises UserError with `detectron2_boundary_iou` if the installed detectron2 does not compute it.
        """
        self._listed = {entry["file_name"]: entry for entry in DatasetCatalog.get(dataset_name)}
        self._classes = tuple(MetadataCatalog.get(dataset_name).stuff_classes)
        self._name, self._absent, self._distributed = dataset_name, absent, distributed
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self._theirs = _with_boundary_iou(dataset_name, distributed) if detectron2_boundary_iou else None
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._counted: dict[str, dict[str, Table]] = {}
        if self._theirs:
            self._theirs.reset()

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch: `inputs` with `file_name`, `outputs` with `sem_seg`, logits [K, H, W] at the label's size.

        Raises UserError, naming the image, for logits of another size or a class that the data set does not have.
        """
        for given, output in zip(inputs, outputs, strict=True):
            entry = self._listed[given["file_name"]]
            labels = output["sem_seg"].argmax(dim=0).cpu().numpy()
            truth = read_label(Path(entry["sem_seg_file_name"]))
            try:
                self._counted[entry["image_id"]] = count_image(labels, truth, len(self._classes))
            except ValueError as error:
                raise UserError(f"{given['file_name']}: {error}") from None
            if self._output_dir:
                write_map(self._output_dir / f"{entry['image_id']}.png", labels.astype(np.uint8))
        if self._theirs:
            self._theirs.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """The scores over all ranks; None on ranks other than 0.

        Raises UserError if an image of the data set was not predicted.
        """
        theirs = self._theirs.evaluate() if self._theirs else None
        shards = [self._counted]
        if self._distributed:
            comm.synchronize()
            shards = comm.gather(self._counted)
            if not comm.is_main_process():
                return None
        counted = {image_id: tables for shard in shards for image_id, tables in shard.items()}
        ids = [entry["image_id"] for entry in self._listed.values()]
        missing = [image_id for image_id in ids if image_id not in counted]
        if missing:
            raise UserError(
                f"{missing[0]} of {self._name} was not predicted ({len(missing)} of {len(ids)} images were not): "
                "a score of the others would not be that of the data set"
            )
        tables = {PROTOCOL: stack([counted[image_id] for image_id in ids])}
        found = scores_of(Counts(ids, self._classes, tables), self._absent)
        scores = dict(found["scores"][PROTOCOL])
        for metric, values in found["per_class"][PROTOCOL].items():
            scores |= {f"{metric}-{name}": value for name, value in values.items()}
        if theirs:
            of_classes = [value for metric, value in theirs["sem_seg"].items() if metric.startswith("BoundaryIoU-")]
            scores["detectron2_boundary_iou"] = float(np.nanmean(of_classes)) if of_classes else None
        return {"sem_seg": {metric: np.nan if value is None else value for metric, value in scores.items()}}


def _with_boundary_iou(dataset_name: str, distributed: bool) -> SemSegEvaluator:
    """detectron2's evaluator, if it computes boundary IoU; release 0.6 does not, and others need OpenCV."""
    theirs = SemSegEvaluator(dataset_name, distributed=distributed)
    computes = getattr(theirs, "_compute_boundary_iou", None)
    if not computes:
        why = "is older than its boundary IoU: build it from source" if computes is None else "needs OpenCV for it"
        raise UserError(f"the installed detectron2 {why}, or leave detectron2_boundary_iou out")
    return theirs

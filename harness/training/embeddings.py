"""A small fixed sample of pixel embeddings before and after training, for the report.

The method's heads are dropped after training, so this sample is all that remains of their embeddings. Every arm and
seed of a data set uses the same pixels: from the centres of IMAGES evenly spaced images of the evaluation split (no
larger than a training crop), up to PIXELS pixels (fewer with many classes) of each of the CLASSES most frequent
classes, on each map's grid. The draw depends only on the image's position and the grid. Labels are resized by nearest
neighbour.
"""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.compute import atomic
from harness.datasets import IGNORE_INDEX
from harness.datasets.dataset import Dataset
from harness.statistics.separation import principal_components, silhouette, unit_rows
from harness.training.trainer import Trainer
from methods.labels import nearest

NAME = "embeddings.npz"
IMAGES, CLASSES, PIXELS, POINTS = 16, 20, 30, 400  # POINTS: at most so many per map, over all classes
COMPONENTS = 12  # principal components kept

Phase = Literal["before", "after"]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def note_embeddings(folder: Path, phase: Phase, trainer: Trainer, dataset: Dataset) -> None:
    """Write the sample's vectors to embeddings.npz, keeping those from before training if the file has them.

    The maps are those that the method embeds (fine to coarse) or, if it embeds none, the encoder's. The file holds:

        kind                        "embeddings" or "features"
        images                      [M], the images' ids
        <phase>/labels<i>           uint8 [N], train ids of the sample's pixels on the map's grid
        <phase>/points<i>           float16 [N, n], the pixels' unit vectors projected on their first principal axes
        <phase>/variance<i>         float32 [n], the share of the variance along each axis
        <phase>/silhouette          float64 [maps], of the unprojected unit vectors
        <phase>/encoder_silhouette  float64 [I], always of the encoder's maps

    Training is not affected: no gradients, eval mode (so batch norm's statistics stay), no random draws.
    """
    crops, ids = _crops(dataset, trainer.schedule.crop)
    content: dict[str, Any] = dict(_read_before(folder / NAME)) if phase == "after" else {}
    with _evaluating(trainer.network, trainer.method):
        features, embeddings = _sampled(trainer, crops)
    shown = embeddings or features
    content |= {"kind": "embeddings" if embeddings else "features", "images": np.array(ids)}
    for number, (vectors, labels) in enumerate(shown, start=1):
        points, shares = principal_components(unit_rows(vectors), COMPONENTS)
        content[f"{phase}/labels{number}"] = labels
        content[f"{phase}/points{number}"] = points.astype(np.float16)
        content[f"{phase}/variance{number}"] = shares.astype(np.float32)
    content[f"{phase}/silhouette"] = np.array([silhouette(*each) for each in shown])
    content[f"{phase}/encoder_silhouette"] = np.array([silhouette(*each) for each in features])
    with atomic.replacing(folder / NAME) as path:
        np.savez_compressed(path, allow_pickle=False, **content)


def _read_before(path: Path) -> Iterator[tuple[str, Any]]:
    """The file's arrays from before training; none if the file is missing (old runs) or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            yield from [(name, file[name]) for name in file.files if name.startswith("before/")]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return


def _crops(dataset: Dataset, crop: tuple[int, int]) -> tuple[list[Pair], list[str]]:
    """Centre crops of evenly spaced images of the evaluation split; labels of rare classes are ignored."""
    samples = dataset.samples(dataset.evaluation_split)
    number = min(IMAGES, len(samples))
    chosen = [samples[place * len(samples) // number] for place in range(number)]
    crops = []
    for sample in chosen:
        image, label = dataset.read(sample)
        top, left = (max(0, side - length) // 2 for side, length in zip(label.shape, crop, strict=True))
        window = slice(top, top + crop[0]), slice(left, left + crop[1])
        crops.append((image[window], label[window]))
    pixels = np.sum([np.bincount(label.ravel(), minlength=256) for _, label in crops], axis=0)
    pixels[IGNORE_INDEX] = 0
    rare = np.argsort(-pixels, kind="stable")[CLASSES:]
    return [(image, np.where(np.isin(label, rare), IGNORE_INDEX, label)) for image, label in crops], [
        sample.id for sample in chosen
    ]


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    modes = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def _sampled(trainer: Trainer, crops: Sequence[Pair]) -> tuple[list[Any], list[Any]]:
    """The sample's vectors [N, d] and train ids [N], for each of the encoder's maps and each of the method's."""
    kinds: tuple[list[_Draw], list[_Draw]] = [], []
    for place, (image, label) in enumerate(crops):
        batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(trainer.device)
        features = trainer.network.features(batch)
        embeddings = trainer.method.embed(features)
        if not isinstance(embeddings, list | tuple) or any(each.dim() != 4 for each in embeddings):
            raise ValueError(f"{type(trainer.method).__name__}.embed must return a list of maps [B, d, h, w]")
        for draws, maps in zip(kinds, (features, embeddings), strict=True):
            draws += [_Draw() for _ in maps[len(draws) :]]
            for draw, values in zip(draws, maps, strict=True):
                draw.add(place, values[0], label)
    features_found, embeddings_found = ([draw.drawn() for draw in draws] for draws in kinds)
    return features_found, embeddings_found


class _Draw:
    """A draw without replacement, class by class, from the pixels of one map over several images.

    Every pixel gets a random key and those with the smallest keys are kept, so the others need no memory.
    """

    def __init__(self) -> None:
        self.vectors: list[NDArray[np.float32]] = []
        self.labels: list[NDArray[np.uint8]] = []
        self.keys: list[NDArray[np.float64]] = []

    def add(self, place: int, values: Tensor, label: NDArray[np.uint8]) -> None:
        """Add an image's map [d, h, w] with its label [H, W]."""
        height, width = values.shape[-2:]
        labels = nearest(torch.from_numpy(label)[None], (height, width)).flatten().numpy().astype(np.uint8)
        keys = np.random.default_rng((place, height, width)).random(len(labels))
        kept = _smallest(keys, labels, PIXELS)
        self.vectors.append(values.flatten(1)[:, torch.from_numpy(kept).to(values.device)].T.float().cpu().numpy())
        self.labels.append(labels[kept])
        self.keys.append(keys[kept])

    def drawn(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The vectors [N, d] and train ids [N] of the sample, class by class."""
        vectors, labels = np.concatenate(self.vectors), np.concatenate(self.labels)
        kept = _smallest(np.concatenate(self.keys), labels, min(PIXELS, POINTS // max(1, len(np.unique(labels)))))
        kept = kept[np.isfinite(vectors[kept]).all(1)]  # an overflow must not fail the run here
        return vectors[kept], labels[kept]


def _smallest(keys: NDArray[np.float64], labels: NDArray[np.uint8], number: int) -> NDArray[np.intp]:
    """Indices of the `number` smallest keys of each class, class by class; ignored pixels belong to none."""
    order = np.lexsort((keys, labels))
    order = order[labels[order] != IGNORE_INDEX]
    in_order = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(in_order, in_order)
    return order[rank < number]

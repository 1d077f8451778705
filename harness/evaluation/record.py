"""What an evaluation leaves in a run's folder, whoever predicted: label maps, counts and scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness import atomic
from harness.evaluation.counts import Counts, Table, confusion_image, count_image
from harness.statistics.scores import score

Counted = tuple[dict[str, Table], Table]


def map_path(folder: Path, protocol: str, image_id: str) -> Path:
    """Where the label map of an image lies in a run's folder: a PNG of 8-bit train ids."""
    return folder / "predictions" / protocol / f"{image_id}.png"


def write_map(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write a label map, uint8 [H, W], as a greyscale PNG, whole or not at all."""
    with atomic.replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), labels):
            raise OSError(f"cannot encode {path}")


def count_pair(prediction: NDArray[Any], label: NDArray[np.uint8], num_classes: int) -> Counted:
    """The tables of `count_image` and the confusion matrix of one image; takes and raises what those do."""
    return count_image(prediction, label, num_classes), confusion_image(prediction, label, num_classes)


def save_counts(folder: Path, counts: Counts, confusions: Mapping[str, Table]) -> None:
    """Write counts.npz and confusion.npz, {protocol: int64 [K, K]}, into a run's folder."""
    counts.save(folder / "counts.npz")
    with atomic.replacing(folder / "confusion.npz") as path:
        np.savez_compressed(path, allow_pickle=False, **confusions)


def scores_of(counts: Counts, absent: str, class_pixels: Sequence[int] | None = None) -> dict[str, dict[str, Any]]:
    """`scores` and `per_class` of record.json: {protocol: {metric: ...}} in percent, as `statistics.scores.score`."""
    found: dict[str, dict[str, Any]] = {"scores": {}, "per_class": {}}
    for protocol, tables in counts.tables.items():
        scores, per_class = score(tables, counts.classes, absent, class_pixels)
        found["scores"][protocol], found["per_class"][protocol] = scores, per_class
    return found

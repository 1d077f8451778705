"""The results of an evaluation in a run's folder, our own or another program's: label maps, counts and scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.compute import atomic
from harness.evaluation.categories import Categories, category_scores
from harness.evaluation.counts import Counts, Table, count_with_confusion
from harness.statistics.scores import score

Counted = tuple[dict[str, Table], Table]


def map_path(folder: Path, protocol: str, image_id: str) -> Path:
    """The path of an image's label map in a run's folder, a PNG of 8-bit train ids."""
    return folder / "predictions" / protocol / f"{image_id}.png"


def write_map(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write a label map, uint8 [H, W], as a greyscale PNG, atomically."""
    with atomic.replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), labels):
            raise OSError(f"cannot encode {path}")


def count_pair(
    prediction: NDArray[Any], label: NDArray[np.uint8], num_classes: int, void_is_wrong: bool = False
) -> Counted:
    """The tables of `count_image` and the confusion matrix of one image; arguments and errors are those of `counts`."""
    return count_with_confusion(prediction, label, num_classes, void_is_wrong)


def keep_and_count(
    kept: Path | None, prediction: NDArray[np.uint8], label: NDArray[np.uint8], num_classes: int
) -> Counted:
    """The counts of `count_pair`; also writes the prediction as a label map to the path `kept`, if given."""
    if kept is not None:
        write_map(kept, prediction)
    return count_pair(prediction, label, num_classes)


def save_counts(folder: Path, counts: Counts, confusions: Mapping[str, Table]) -> None:
    """Write counts.npz and confusion.npz, {protocol: int64 [K, K]}, into a run's folder."""
    counts.save(folder / "counts.npz")
    with atomic.replacing(folder / "confusion.npz") as path:
        np.savez_compressed(path, allow_pickle=False, **confusions)


def scores_of(
    counts: Counts,
    absent: str,
    class_pixels: Sequence[int] | None = None,
    confusions: Mapping[str, Table] | None = None,
    categories: Categories | None = None,
) -> dict[str, dict[str, Any]]:
    """`scores` and `per_class` of record.json: {protocol: {metric: ...}} in percent (`statistics.scores.score`).

    With `categories` and `confusions`, `category_scores` are included.
    """
    found: dict[str, dict[str, Any]] = {"scores": {}, "per_class": {}}
    for protocol, tables in counts.tables.items():
        scores, per_class = score(tables, counts.classes, absent, class_pixels)
        if categories and confusions:
            mean, of_categories = category_scores(confusions[protocol], tables["region"], categories, absent)
            scores, per_class = scores | mean, per_class | of_categories
        found["scores"][protocol], found["per_class"][protocol] = scores, per_class
    return found

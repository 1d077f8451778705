"""Category IoU as in Cityscapes' official script: a car predicted as a truck is still a vehicle."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.statistics.scores import iou, mean_defined

Categories = Mapping[str, Sequence[int]]  # {category: its classes' train ids}


def category_counts(
    confusion: NDArray[np.int64], region: NDArray[np.int64], categories: Categories
) -> NDArray[np.int64]:
    """TP, FP and FN of every category in pixels, int64 [categories, 3].

    confusion [K, K]: rows are the ground truth; region [N, K, 3]: TP, FP, FN of the classes in N images. Void
    predictions are FN; the matrix has no column for them.
    """
    truth = (region[..., 0] + region[..., 2]).sum(0)
    found = []
    for members in categories.values():
        inside = np.isin(np.arange(len(confusion)), members)
        hits = confusion[np.ix_(inside, inside)].sum()
        found.append([hits, confusion[np.ix_(~inside, inside)].sum(), truth[inside].sum() - hits])
    return np.array(found, np.int64)


def category_scores(
    confusion: NDArray[np.int64], region: NDArray[np.int64], categories: Categories, absent: str
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """({"category_miou": percent}, {"category_iou": {category: percent}}), None where undefined."""
    values = iou(category_counts(confusion, region, categories), absent)
    named = {name: _number(value) for name, value in zip(categories, values, strict=True)}
    return {"category_miou": _number(mean_defined(values))}, {"category_iou": named}


def _number(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)

"""The noise of a test set: scores of resampled data sets, from summed counts.

What is resampled must be independent. Frames of one video or city are not, so where a data set declares clusters, whole
clusters are drawn if there are enough of them and otherwise blocks of neighbouring frames.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.statistics.scores import Values, iou

ENOUGH_CLUSTERS = 20
BLOCK = 10
RESAMPLES = 2000


def resampling_units(images: int, clusters: Sequence[str] | None = None) -> tuple[NDArray[np.intp], str]:
    """Which of the images are drawn together: the unit of every image, intp [N] from 0 on, and the unit's name.

    `clusters` names the cluster of every image, in the order of the frames; None says that images are independent.
    Raises ValueError if its length is not `images`.
    """
    if clusters is None:
        return np.arange(images), "image"
    if len(clusters) != images:
        raise ValueError(f"there are {len(clusters)} cluster names for {images} images")
    names, member = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    if len(names) >= ENOUGH_CLUSTERS:
        return member, "cluster"
    place = np.empty(images, np.intp)  # of the frame in its cluster
    for cluster in range(len(names)):
        frames = np.flatnonzero(member == cluster)
        place[frames] = np.arange(len(frames))
    _, block = np.unique(np.stack([member, place // BLOCK]), axis=1, return_inverse=True)
    return block, f"block of {BLOCK} frames"


def draw_weights(units: int, resamples: int, seed: int) -> Values:
    """How often each unit is drawn in each resample: float64 [resamples, units], rows that sum to `units`."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def resampled_miou(table: NDArray[Any], unit: NDArray[np.intp], weights: Values, absent: str = "skip") -> Values:
    """The mIoU in percent of every resample: `table` [N, K, 3], `unit` [N] and `weights` [R, U] -> float64 [R].

    The classes of the mean are those of the whole test set. In a resample without a single pixel of one of them, which
    says nothing about that class, its IoU is that of the whole test set.
    """
    images, classes, columns = table.shape
    sums = np.zeros((weights.shape[1], classes * columns))
    np.add.at(sums, unit, table.reshape(images, -1))
    whole = iou(table.sum(0), absent)
    member = ~np.isnan(whole)
    # "zero" would turn "not drawn" into an IoU of 0.
    rule = "skip" if absent == "zero" else absent
    values = iou((weights @ sums).reshape(-1, classes, columns)[:, member], rule)
    return np.where(np.isnan(values), whole[member], values).mean(-1) if member.any() else np.full(len(weights), np.nan)

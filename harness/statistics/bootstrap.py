"""Test-set noise: scores on bootstrap resamples of the test images, from summed counts.

The resampled units must be independent. Frames of one video or city are not: if a data set declares clusters, whole
clusters are drawn or, if there are too few clusters, blocks of consecutive frames.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.statistics.scores import Metric, Values, mean_defined

ENOUGH_CLUSTERS = 20
BLOCK = 10
RESAMPLES = 2000
CHUNK = 500  # resamples at a time, to bound memory


def resampling_units(images: int, clusters: Sequence[str] | None = None) -> tuple[NDArray[np.intp], str]:
    """The resampling unit of every image, intp [N] from 0 on, and the unit's name; units are drawn as a whole.

    `clusters`: the cluster of every image, in the order of the frames; None if images are independent. Raises
    ValueError if its length is not `images`.
    """
    if clusters is None:
        return np.arange(images), "image"
    if len(clusters) != images:
        raise ValueError(f"there are {len(clusters)} cluster names for {images} images")
    names, member = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    if len(names) >= ENOUGH_CLUSTERS:
        return member, "cluster"
    place = np.empty(images, np.intp)  # index of the frame in its cluster
    for cluster in range(len(names)):
        frames = np.flatnonzero(member == cluster)
        place[frames] = np.arange(len(frames))
    _, block = np.unique(np.stack([member, place // BLOCK]), axis=1, return_inverse=True)
    return block, f"block of {BLOCK} frames"


def draw_weights(units: int, resamples: int, generator: np.random.Generator) -> Values:
    """The number of times each unit is drawn: float64 [resamples, units], each row summing to `units`."""
    drawn = generator.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units).astype(np.float64)


def bootstrap(
    tables: Sequence[NDArray[Any]],
    metric: Metric,
    unit: NDArray[np.intp],
    resamples: int = RESAMPLES,
    seed: int = 0,
    absent: str = "skip",
) -> Values:
    """The score in percent of every table on the same resampled test sets: T x [N, K, 3], `unit` [N] -> float64 [T, R].

    The mean is over the classes of the whole test set. A resample without any pixel of a class says nothing about it,
    so there that class has its score on the whole test set. The same `seed` gives the same resamples.
    """
    units = int(unit.max()) + 1
    summed = [_sum_by_unit(table, unit, units) for table in tables]
    wholes = [metric.by_class(table.sum(0), absent) for table in tables]
    generator = np.random.default_rng(seed)
    values = np.empty((len(tables), resamples))
    for start in range(0, resamples, CHUNK):
        rows = slice(start, min(start + CHUNK, resamples))
        weights = draw_weights(units, rows.stop - start, generator)
        for index, (sums, whole) in enumerate(zip(summed, wholes, strict=True)):
            counts = (weights @ sums.reshape(units, -1)).reshape(len(weights), *sums.shape[1:])
            # With "zero", a class that is not drawn would score 0.
            drawn = metric.by_class(counts, "skip" if absent == "zero" else absent)
            drawn = np.where(np.isnan(drawn), whole, drawn)
            values[index, rows] = mean_defined(np.where(np.isnan(whole), np.nan, drawn))
    return values


def _sum_by_unit(table: NDArray[Any], unit: NDArray[np.intp], units: int) -> Values:
    """The counts of each unit, float64 [U, K, 3]."""
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(units))  # every unit has an image
    return np.add.reduceat(table[order], starts, axis=0).astype(np.float64)

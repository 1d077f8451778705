"""Silhouette and principal components of embeddings."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def unit_rows(vectors: Floats) -> Floats:
    """Vectors [N, d] normalised to length 1, float64; zero vectors stay zero."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def silhouette(vectors: Floats, labels: NDArray[np.integer]) -> float:
    """The mean silhouette (Rousseeuw, 1987) of vectors [N, d] by cosine distance, -1 to 1.

    For each vector, (b - a) / max(a, b), where a is its mean distance (1 - cosine) to the others of its class and b the
    smallest of its mean distances to another class; 0 for the only vector of a class. NaN with fewer than two classes.
    Takes N^2 memory.
    """
    unit = unit_rows(vectors)
    classes, place = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return float("nan")
    distance = np.clip(1 - unit @ unit.T, 0, None)
    np.fill_diagonal(distance, 0)
    members = np.eye(len(classes))[place]  # [N, K]
    sizes, sums = members.sum(0), distance @ members
    own = np.arange(len(unit)), place
    within = sums[own] / np.maximum(sizes[place] - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    between = means.min(1)
    largest = np.maximum(within, between)
    values = np.divide(between - within, largest, out=np.zeros_like(largest), where=largest > 0)
    return float(np.where(sizes[place] > 1, values, 0).mean())


def principal_components(vectors: Floats, number: int) -> tuple[Floats, Floats]:
    """The first `number` (or all, if fewer) principal components of vectors [N, d]: float64 [N, n], largest first.

    Also returns the share [n] of the variance along each axis. Each axis is oriented so that its entry of largest
    magnitude is positive, so that signs do not depend on the machine.
    """
    if len(vectors) == 0:
        return np.zeros((0, number)), np.zeros(number)
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    kept = axes[:number]
    largest = kept[np.arange(len(kept)), np.abs(kept).argmax(1)]
    total = np.square(singular).sum()
    shares = np.square(singular[:number]) / total if total > 0 else np.zeros(len(kept))
    return centred @ (kept * np.sign(largest)[:, None]).T, shares

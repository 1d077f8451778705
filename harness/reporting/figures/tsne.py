"""t-SNE (van der Maaten and Hinton, 2008) of a few hundred points, exactly and with a fixed start."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PERPLEXITY = 30.0
STEPS, EXAGGERATED, EXAGGERATION = 750, 250, 12.0
MOMENTUM = 0.5, 0.8  # while exaggerated, and afterwards


def tsne(points: NDArray[np.floating], perplexity: float = PERPLEXITY) -> Array:
    """Points [N, n] in the plane, float64 [N, 2]: near ones stay near; distances between groups mean little.

    It starts from the first two columns, which should be the principal ones, and draws nothing at random: the same
    points give the same plane. Perplexity is lowered to (N - 1) / 3 for few points. Takes N^2 time and memory a step.
    """
    number = len(points)
    if number < 5:
        return np.asarray(points[:, :2], np.float64)
    joint = affinities(np.asarray(points, np.float64), min(perplexity, (number - 1) / 3))
    place = np.asarray(points[:, :2], np.float64)
    place = 1e-4 * place / max(float(place.std(axis=0)[0]), 1e-12)
    rate = max(number / EXAGGERATION / 4, 50.0)
    velocity, gains = np.zeros_like(place), np.ones_like(place)
    for step in range(STEPS):
        early = step < EXAGGERATED
        slope = gradient(joint * (EXAGGERATION if early else 1.0), place)
        # Jacobs's rule, as in the authors' code: faster where the direction stays, slower where it turns.
        gains = np.maximum(np.where(slope * velocity < 0, gains + 0.2, gains * 0.8), 0.01)
        velocity = MOMENTUM[not early] * velocity - rate * gains * slope
        place = place + velocity
        place -= place.mean(0)
    return place


def affinities(points: Array, perplexity: float) -> Array:
    """The joint probabilities p_ij, float64 [N, N]: symmetric, summing to 1, 0 on the diagonal.

    Before they are made symmetric, each row is a Gaussian as wide as gives it that perplexity, 2 to its entropy.
    """
    squared = _squared_distances(points)
    np.fill_diagonal(squared, np.inf)
    squared -= squared.min(1, keepdims=True)  # changes no row, and keeps one neighbour's weight at 1
    low, high = np.zeros(len(points)), np.full(len(points), np.inf)
    precision = np.ones(len(points))
    for _ in range(64):  # a bisection for all rows at once
        weights = np.exp(-squared * precision[:, None])
        rows = weights / weights.sum(1, keepdims=True)
        entropy = -np.sum(rows * np.log2(np.where(rows > 0, rows, 1)), axis=1)
        wide = entropy > np.log2(perplexity)
        low, high = np.where(wide, precision, low), np.where(wide, high, precision)
        precision = np.where(np.isinf(high), 2 * precision, (low + np.where(np.isinf(high), 0, high)) / 2)
    return (rows + rows.T) / (2 * len(points))


def gradient(joint: Array, place: Array) -> Array:
    """The slope [N, 2] of sum p log(p / q) in the places, q being Student's t with one degree of freedom."""
    student = 1 / (1 + _squared_distances(place))
    np.fill_diagonal(student, 0)
    pull = (joint - student / student.sum()) * student
    return 4 * (pull.sum(1)[:, None] * place - pull @ place)


def _squared_distances(points: Array) -> Array:
    squares = np.square(points).sum(1)
    return np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)

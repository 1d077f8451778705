"""What two trainings with the same seed differ by, beside what trainings with different seeds do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Repeats:
    """Of n runs that were made twice, in two places. Scores and everything here but n and correlation in points.

    shift, shift_interval  the mean of second minus first, and its 95 % interval by Student's t; None with one pair
    same_seed              standard deviation of a run whose seed is fixed: that of the differences over sqrt(2), as if
                           both places added luck of the same size, each its own; None with one pair
    across_seeds           standard deviation over seeds of one arm in one place, pooled over arms and places; None if
                           no arm has two seeds in both
    correlation            of the first's deviations from its arm's mean with the second's: the part of its luck that a
                           seed takes along; None where one of them has no deviation
    """

    n: int
    shift: float
    shift_interval: tuple[float, float] | None
    same_seed: float | None
    across_seeds: float | None
    correlation: float | None


def repeats(arms: Mapping[str, Sequence[tuple[float, float]]]) -> Repeats:
    """From the scores in percent (first, second) of every seed of every arm. Raises ValueError without any."""
    pairs = np.array([pair for seeds in arms.values() for pair in seeds], dtype=np.float64).reshape(-1, 2)
    if not len(pairs):
        raise ValueError("there are no runs that were made twice")
    n, differences = len(pairs), pairs[:, 1] - pairs[:, 0]
    shift, interval, same_seed = float(differences.mean()), None, None
    if n > 1:
        spread = float(differences.std(ddof=1))
        reach = stdtrit(n - 1, 0.975) * spread / np.sqrt(n)
        interval, same_seed = (float(shift - reach), float(shift + reach)), float(spread / np.sqrt(2))
    several = [np.array(seeds, dtype=np.float64) for seeds in arms.values() if len(seeds) > 1]
    across = correlation = None
    if several:
        around = np.concatenate([scores - scores.mean(axis=0) for scores in several])
        squares = (around**2).sum(axis=0)
        across = float(np.sqrt(squares.sum() / (2 * sum(len(scores) - 1 for scores in several))))
        if squares.all():
            correlation = float((around[:, 0] * around[:, 1]).sum() / np.sqrt(squares.prod()))
    return Repeats(n, shift, interval, same_seed, across, correlation)

"""Seed noise against repetition noise: trainings with different seeds, and with the same seed on two machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Repeats:
    """Statistics of n runs that were each trained on two machines. All but n and correlation are in points.

    shift, shift_interval  mean of second minus first, and its 95 % interval by Student's t; None with one pair
    same_seed              standard deviation between repetitions of one seed: that of the differences over sqrt(2),
                           assuming independent noise of equal size on both machines; None with one pair
    across_seeds           standard deviation over seeds within an arm and machine, pooled; None if no arm has two seeds
    correlation            between the two machines' deviations from their arm's mean: the share of the seed noise that
                           is due to the seed itself; None if either has no deviation
    """

    n: int
    shift: float
    shift_interval: tuple[float, float] | None
    same_seed: float | None
    across_seeds: float | None
    correlation: float | None


def repeats(arms: Mapping[str, Sequence[tuple[float, float]]]) -> Repeats:
    """Statistics of the scores in percent (first, second) of every seed of every arm. Raises ValueError without any."""
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

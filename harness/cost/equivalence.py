"""Whether two arms take the same time, from their samples in rounds; numpy only."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEVEL = 0.90  # two one-sided tests at 5 % each: the whole 90 % interval lies within the margin
MARGIN = 0.02
DRIFT = 0.05  # a machine that became this much slower or faster is said to have drifted
FEWEST_ROUNDS = 5  # with fewer not even the smallest and the largest ratio make an interval


@dataclass(frozen=True)
class Ratio:
    """An arm's time over the baseline's, with its interval."""

    value: float
    low: float
    high: float

    @property
    def equivalent(self) -> bool:
        """Whether the whole interval lies in 1 - MARGIN .. 1 + MARGIN."""
        return self.low >= 1 - MARGIN and self.high <= 1 + MARGIN

    @property
    def different(self) -> bool:
        """Whether the whole interval lies outside 1 - MARGIN .. 1 + MARGIN, on one side."""
        return self.low > 1 + MARGIN or self.high < 1 - MARGIN

    @property
    def verdict(self) -> str:
        """The wording of every table: what was not shown may still be so."""
        margin = f"{100 * MARGIN:.0f} %"
        if self.equivalent:
            return f"equivalent within {margin}"
        if self.different:
            return f"{'slower' if self.low > 1 else 'faster'} by more than {margin}"
        return "not shown"


def ratio(arm: np.ndarray, baseline: np.ndarray) -> Ratio:
    """The median over rounds of (arm's median in the round / baseline's), and its 90 % interval; both [rounds, block].

    Within a round the two are paired, so whatever a round had in common (clocks, other programs) cancels: the ratio of
    the medians of all samples would keep it. The interval is that of the sign test, from the k-th smallest ratio to
    the k-th largest: exact for independent rounds whatever their distribution, and a disturbed round moves it by one
    place only. Raises ValueError unless both have the same `FEWEST_ROUNDS` rounds or more.
    """
    rounds = len(arm)
    if rounds != len(baseline) or rounds < FEWEST_ROUNDS:
        given = f"{rounds} and {len(baseline)}"
        raise ValueError(f"the ratio needs the same {FEWEST_ROUNDS} rounds or more of both arms, not {given}")
    ratios = np.sort(np.median(arm, axis=1) / np.median(baseline, axis=1))
    k = rank(rounds)
    return Ratio(float(np.median(ratios)), float(ratios[k - 1]), float(ratios[-k]))


def rank(rounds: int) -> int:
    """The k of `ratio`: the largest with P(fewer than k of the rounds lie below the median) <= (1 - LEVEL) / 2."""
    k, below, ways = 0, 0, 1  # ways: in which k of the rounds lie below
    while (below + ways) / 2**rounds <= (1 - LEVEL) / 2:
        below += ways
        ways = ways * (rounds - k) // (k + 1)
        k += 1
    return k


def drift(samples: Mapping[str, np.ndarray]) -> float:
    """How much slower the last third of the rounds was than the first, all arms together: 1 for no change.

    Of every round the geometric mean over the arms of (the arm's median in the round / its median in all), and of each
    third the median over its rounds.
    """
    speeds = np.mean([np.log(np.median(each, axis=1) / np.median(each)) for each in samples.values()], axis=0)
    third = max(1, len(speeds) // 3)
    return float(np.exp(np.median(speeds[-third:]) - np.median(speeds[:third])))

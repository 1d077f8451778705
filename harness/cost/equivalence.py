"""Equivalence of two arms' times, from samples in rounds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEVEL = 0.90  # two one-sided tests at 5 %: the 90 % interval must lie within the margin
MARGIN = 0.02
DRIFT = 0.05  # a larger change of the machine's speed is reported as drift
FEWEST_ROUNDS = 5  # with fewer, the smallest and largest ratio make no 90 % interval


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
        """Whether the whole interval lies on one side of 1 - MARGIN .. 1 + MARGIN."""
        return self.low > 1 + MARGIN or self.high < 1 - MARGIN

    @property
    def verdict(self) -> str:
        """The words of every table; "not shown" does not mean "not so"."""
        margin = f"{100 * MARGIN:.0f} %"
        if self.equivalent:
            return f"equivalent within {margin}"
        if self.different:
            return f"{'slower' if self.low > 1 else 'faster'} by more than {margin}"
        return "not shown"


def ratio(arm: np.ndarray, baseline: np.ndarray) -> Ratio:
    """The median over rounds of (arm's median / baseline's median), with its 90 % interval; inputs [rounds, block].

    The two are paired within a round, so common disturbances (clocks, other programs) cancel. The interval is the sign
    test's, from the k-th smallest to the k-th largest ratio: exact for independent rounds of any distribution, and a
    disturbed round moves it by one rank only. Raises ValueError unless both have the same `FEWEST_ROUNDS` or more.
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
    """Time of the last third of the rounds over that of the first: 1 for no change.

    A round's time is the geometric mean over arms of (median in the round / median of all); a third's is the median.
    """
    speeds = np.mean([np.log(np.median(each, axis=1) / np.median(each)) for each in samples.values()], axis=0)
    third = max(1, len(speeds) // 3)
    return float(np.exp(np.median(speeds[-third:]) - np.median(speeds[:third])))

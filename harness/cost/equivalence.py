"""Equivalence tests of two arms' times, from samples in rounds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEVEL = 0.90  # two one-sided tests at 5 %: the 90 % interval must be within the margin
MARGIN = 0.02
DRIFT = 0.05  # a larger change of the machine's speed is reported as drift
FEWEST_ROUNDS = 5  # with fewer, even the smallest and largest ratio do not give a 90 % interval


@dataclass(frozen=True)
class Ratio:
    """An arm's time over the baseline's, with its interval."""

    value: float
    low: float
    high: float

    @property
    def equivalent(self) -> bool:
        """Whether the whole interval is inside 1 - MARGIN .. 1 + MARGIN."""
        return self.low >= 1 - MARGIN and self.high <= 1 + MARGIN

    @property
    def different(self) -> bool:
        """Whether the whole interval is above or below 1 - MARGIN .. 1 + MARGIN."""
        return self.low > 1 + MARGIN or self.high < 1 - MARGIN

    @property
    def verdict(self) -> str:
        """The verdict in tables; "not shown" does not mean that the times differ."""
        margin = f"{100 * MARGIN:.0f} %"
        if self.equivalent:
            return f"equivalent within {margin}"
        if self.different:
            return f"{'slower' if self.low > 1 else 'faster'} by more than {margin}"
        return "not shown"


def ratio(arm: np.ndarray, baseline: np.ndarray) -> Ratio:
    """The median over rounds of (arm's median / baseline's median), with its 90 % interval; inputs [rounds, block].

    Both are paired within a round, so common disturbances (clocks, other programs) cancel. The interval is the sign
    test's, from the k-th smallest to the k-th largest ratio: it is exact for independent rounds of any distribution,
    and a disturbed round moves it by at most one rank. Raises ValueError unless both have the same number of rounds, at
    least `FEWEST_ROUNDS`.
    """
    rounds = len(arm)
    if rounds != len(baseline) or rounds < FEWEST_ROUNDS:
        given = f"{rounds} and {len(baseline)}"
        raise ValueError(f"both arms need the same number of rounds, at least {FEWEST_ROUNDS}, not {given}")
    ratios = np.sort(np.median(arm, axis=1) / np.median(baseline, axis=1))
    k = rank(rounds)
    return Ratio(float(np.median(ratios)), float(ratios[k - 1]), float(ratios[-k]))


def rank(rounds: int) -> int:
    """The k of `ratio`: the largest with P(fewer than k rounds are below the median) <= (1 - LEVEL) / 2."""
    k, below, ways = 0, 0, 1  # ways: number of ways in which k rounds are below
    while (below + ways) / 2**rounds <= (1 - LEVEL) / 2:
        below += ways
        ways = ways * (rounds - k) // (k + 1)
        k += 1
    return k


def drift(samples: Mapping[str, np.ndarray]) -> float:
    """The time of the last third of the rounds over that of the first; 1 means no drift.

    A round's time is the geometric mean over arms of (median in the round / overall median); a third's time is the
    median of its rounds.
    """
    speeds = np.mean([np.log(np.median(each, axis=1) / np.median(each)) for each in samples.values()], axis=0)
    third = max(1, len(speeds) // 3)
    return float(np.exp(np.median(speeds[-third:]) - np.median(speeds[:third])))

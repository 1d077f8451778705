"""The differences to the baseline once more, if a training's luck is of one size for every arm.

Three seeds leave each arm's own scatter two degrees of freedom, and after Holm's correction over many arms its interval
is many times as wide as the scatter. Pooled over the arms, as in Dunnett's comparison of several treatments with a
control (1955), the scatter has several times as many. The score of arm a with seed s is

    score_as = arm_a + seed_s + luck_as,

and the variance of `luck` is what least squares leave over, with (runs - arms - seeds + 1) degrees of freedom where no
run is missing. With a single arm this is the paired interval itself. Where one arm's luck is larger than the others',
its interval is too narrow: docs/metrics.md says how often that makes a false difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.statistics.comparison import holm
from harness.statistics.noise import Noise

ROUNDING = 1e-18  # squared points: what least squares leave over of scores without scatter


@dataclass(frozen=True)
class Bounds:
    """A difference to the baseline in points from so many seeds, its interval, and what could have been detected."""

    seeds: int
    difference: float
    low: float
    high: float
    detectable: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Pooled:
    """`deviation`: the standard deviation of one run's luck in points, with `freedom` degrees of freedom.

    `smallest` and `largest` are what it is by a single arm's difference to the baseline alone.
    """

    deviation: float
    freedom: int
    smallest: float
    largest: float
    bounds: dict[str, Bounds]


def is_shared(pool: Pooled | None) -> bool:
    """Whether several arms know the scatter; of one alone the intervals are those that it has anyway."""
    return pool is not None and len(pool.bounds) > 1


def pool(
    baseline: Mapping[int, float],
    arms: Mapping[str, Mapping[int, float]],
    noises: Mapping[str, Noise],
    alpha: float = 0.05,
) -> Pooled | None:
    """The intervals of arms with at least two seeds in common with the baseline, by Holm's rule over these.

    Scores in percent by seed. noises: of every arm, from its own pairs; what the images do is taken from there. None
    if there is no such arm, or no scatter at all.
    """
    pairs = {arm: sorted(scores.keys() & baseline.keys()) for arm, scores in arms.items()}
    pairs = {arm: seeds for arm, seeds in pairs.items() if len(seeds) > 1 and noises[arm].spread is not None}
    if not pairs:
        return None
    used = {("", seed): baseline[seed] for seed in sorted({seed for seeds in pairs.values() for seed in seeds})}
    used |= {(arm, seed): arms[arm][seed] for arm, seeds in pairs.items() for seed in seeds}
    variance, freedom = _luck(used)
    if variance < ROUNDING:
        return None
    alike = {arm: replace(noises[arm], spread=2 * variance, freedom=freedom) for arm in pairs}
    mean = {arm: float(np.mean([arms[arm][seed] - baseline[seed] for seed in seeds])) for arm, seeds in pairs.items()}
    shares, _ = holm({arm: noise.p(mean[arm]) for arm, noise in alike.items()}, alpha)
    single = [(noises[arm].spread or 0.0) / 2 for arm in pairs]
    bounds = {}
    for arm, noise in alike.items():
        margin = noise.margin(shares[arm])
        low, high = mean[arm] - margin, mean[arm] + margin
        bounds[arm] = Bounds(len(pairs[arm]), mean[arm], low, high, noise.detectable(shares[arm]))
    return Pooled(variance**0.5, freedom, min(single) ** 0.5, max(single) ** 0.5, bounds)


def _luck(scores: Mapping[tuple[str, int], float]) -> tuple[float, int]:
    """The variance of what is left of the scores of (arm, seed) without arm and seed, and its degrees of freedom."""
    arms, seeds = (sorted({key[part] for key in scores}) for part in (0, 1))
    design = np.zeros((len(scores), len(arms) + len(seeds)))
    for row, (arm, seed) in enumerate(scores):
        design[row, arms.index(arm)] = design[row, len(arms) + seeds.index(seed)] = 1
    values = np.array(list(scores.values()))
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(scores) - int(rank)
    return float(((values - design @ fitted) ** 2).sum() / freedom), freedom

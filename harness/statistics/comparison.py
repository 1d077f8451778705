"""The difference of every arm to the baseline, paired by seed and by image, with an interval.

How the interval is made, and why so, stands in `noise`. In simulations it covers the true difference in 93 to 97 % of
experiments, whichever noise dominates, and tables of arms that equal the baseline hold a false difference in 6 % at
most. With one seed only the images' noise can be seen, and the interval is about that pair of networks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.statistics.bootstrap import RESAMPLES, bootstrap_miou, resampling_units
from harness.statistics.noise import ENOUGH_SEEDS, Noise, estimate
from harness.statistics.scores import miou

ONE_SEED = "images only, one seed"
TWO_SEEDS = "two seeds, too few for a verdict"


@dataclass(frozen=True)
class Interval:
    """A difference to the baseline in percentage points, and the interval around it.

    `low`, `high` and `p` are None where no noise can be seen (the test set is a single unit). The interval leaves out
    zero if and only if `p`, corrected by Holm's rule if it takes part in that, is below 1 - the table's confidence;
    `confidence` is what that makes of this interval alone. `seeds` is the number of pairs, `unit` what was resampled,
    `noise` what the interval was made from.
    """

    difference: float
    low: float | None
    high: float | None
    seeds: int
    unit: str
    note: str
    p: float | None
    confidence: float
    noise: Noise | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def detectable(self) -> float | None:
        """The smallest true difference in points that so many seeds and images show in four of five experiments."""
        return self.noise.detectable(1 - self.confidence) if self.noise else None

    @property
    def further_seeds(self) -> int | None:
        """How many more seeds would settle the comparison, if the difference found is the true one: 0 if it is settled.

        None where no reasonable number would, and with one seed, which knows nothing of the others.
        """
        if self.noise is None or self.noise.spread is None:
            return None
        if self.excludes_zero:
            return max(ENOUGH_SEEDS - self.seeds, 0)
        return self.noise.further_pairs(self.difference, 1 - self.confidence)


@dataclass(frozen=True)
class Spread:
    """Training noise: mean, smallest and largest of a score over `seeds` seeds, in percent."""

    mean: float
    low: float
    high: float
    seeds: int


def spread(scores: Sequence[float]) -> Spread:
    """The spread of a score over seeds. Raises ValueError without any."""
    if not scores:
        raise ValueError("there are no seeds to average")
    return Spread(float(np.mean(scores)), min(scores), max(scores), len(scores))


def image_noise(
    table: NDArray[np.int64],
    clusters: Sequence[str] | None = None,
    absent: str = "skip",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float | None:
    """The standard error of one run's mIoU due to the choice of test images, in points.

    `table` is int64 [N, K, 3]; `clusters` as in `resampling_units`. None for a single unit or an undefined score.
    """
    unit, _ = resampling_units(len(table), clusters)
    units = int(unit.max(initial=-1)) + 1
    if units < 2 or np.isnan(miou(table.sum(0), absent)):
        return None
    values = bootstrap_miou([table], unit, resamples, seed, absent)
    return float(np.sqrt(values.var(ddof=1) * units / (units - 1)))  # without the bootstrap's bias


def compare(
    arms: Mapping[str, Mapping[int, NDArray[np.int64]]],
    baseline: Mapping[int, NDArray[np.int64]],
    clusters: Sequence[str] | None = None,
    absent: str = "skip",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    alone: Collection[str] = (),
) -> dict[str, Interval]:
    """The mIoU of every arm less the baseline's, as `Interval`s with Holm's correction over the arms.

    Over those that can have a verdict: arms `alone` (controls) and arms with fewer than `ENOUGH_SEEDS` pairs are not
    corrected, and do not widen the intervals of the others.

    `arms` holds {arm: {seed: int64 [N, K, 3]}} and `baseline` {seed: int64 [N, K, 3]}, all for the same images in the
    same order: any one table ("region", "boundary@3px", ...) of the counts. `clusters` as in `resampling_units`.
    Pairs whose score is undefined are left out, and arms without any pair. The same input gives the same intervals:
    `seed` seeds the resampling. Raises ValueError if two tables differ in shape.
    """
    _same_shape([*baseline.values(), *(table for tables in arms.values() for table in tables.values())])
    paired = {arm: sorted(tables.keys() & baseline.keys()) for arm, tables in arms.items()}
    needed = sorted({each for seeds in paired.values() for each in seeds})
    if not needed:
        return {}
    unit, unit_name = resampling_units(len(baseline[needed[0]]), clusters)
    units = int(unit.max(initial=-1)) + 1
    if units == 0:
        return {}
    runs = {("", each): baseline[each] for each in needed}
    runs |= {(arm, each): arms[arm][each] for arm, seeds in paired.items() for each in seeds}
    tables = list(runs.values())
    whole = dict(zip(runs, (float(miou(table.sum(0), absent)) for table in tables), strict=True))
    resampled = dict(zip(runs, bootstrap_miou(tables, unit, resamples, seed, absent), strict=True))

    paired = {
        arm: [each for each in seeds if np.isfinite(whole[arm, each] - whole["", each])]
        for arm, seeds in paired.items()
    }

    mean: dict[str, float] = {}
    noises: dict[str, Noise | None] = {}
    for arm, seeds in paired.items():
        if seeds:
            found = np.array([whole[arm, each] - whole["", each] for each in seeds])
            again = np.stack([resampled[arm, each] - resampled["", each] for each in seeds])
            mean[arm] = float(found.mean())
            noises[arm] = estimate(found, again, units) if units > 1 else None

    p_values = {arm: each.p(mean[arm]) if each else 1.0 for arm, each in noises.items()}
    shares = dict.fromkeys(noises, 1 - confidence)
    family = [arm for arm in noises if arm not in alone and len(paired[arm]) >= ENOUGH_SEEDS]
    shares_of_family, corrected = holm({arm: p_values[arm] for arm in family}, 1 - confidence)
    shares |= shares_of_family
    p_values |= corrected
    intervals = {}
    for arm, noise in noises.items():
        margin = noise.margin(shares[arm]) if noise else None
        lonely = len(arms[arm].keys() | baseline.keys()) - len(paired[arm])
        notes = [
            *([ONE_SEED] if len(paired[arm]) == 1 else [TWO_SEEDS] if len(paired[arm]) == 2 else []),
            *([f"runs without a pair left out: {lonely}"] if lonely else []),
            *([f"no interval from a single {unit_name}"] if margin is None else []),
        ]
        intervals[arm] = Interval(
            difference=mean[arm],
            low=None if margin is None else mean[arm] - margin,
            high=None if margin is None else mean[arm] + margin,
            seeds=len(paired[arm]),
            unit=unit_name,
            note="; ".join(notes),
            p=None if margin is None else p_values[arm],
            confidence=1 - shares[arm],
            noise=noise,
        )
    return intervals


def holm(p_values: Mapping[str, float], alpha: float) -> tuple[dict[str, float], dict[str, float]]:
    """The share of `alpha` left to each arm's interval, and the corrected p-values (Holm, 1979).

    The smallest p-value is held against alpha / m, the next against alpha / (m - 1), until one fails. From there on all
    arms keep the share of the one that failed, so that an interval leaves out zero exactly if Holm's rule rejects.
    """
    shares: dict[str, float] = {}
    corrected: dict[str, float] = {}
    left, largest, failed = len(p_values), 0.0, None
    for arm in sorted(p_values, key=lambda each: p_values[each]):
        largest = max(largest, min(1.0, left * p_values[arm]))
        corrected[arm] = largest
        shares[arm] = failed if failed is not None else alpha / left
        if failed is None and p_values[arm] > shares[arm]:
            failed = shares[arm]
        left -= 1
    return shares, corrected


def _same_shape(tables: Sequence[NDArray[np.int64]]) -> None:
    shapes = {table.shape for table in tables}
    if len(shapes) > 1:
        raise ValueError(f"the tables differ in images or classes: {sorted(shapes)}")

"""The difference of an arm to the baseline, paired by seed and by image, with an interval.

Both choices of a benchmark are samples: the seeds that were trained and the images that were tested. Write the
difference of pair s on the test set as

    d_s = difference + seed_s + images + own_s,

where `images` is what all pairs have in common because of which images were drawn, and `own_s` the luck of one pair of
networks on these images. The mean over S seeds has the variance var(seed + own) / S + var(images):

- The spread of d_s over the seeds estimates var(seed + own), with S - 1 degrees of freedom.
- The covariance between pairs of their scores on the same resampled images estimates var(images).
- The resampled mean over the pairs has the variance var(images) + var(own) / S, which the whole is never less than.

Adding the last to the first would count `own` twice: where it dominates, a 95 % interval then covers 99 %.

The interval is the mean +- t * standard error with Satterthwaite's degrees of freedom. In simulations it covers 93 to
98 % with three or five seeds (98.5 % if there is no noise but `own`), and as little as 89 % with two: a verdict needs
three. With one seed only the images' noise can be seen, and the interval is about that pair of networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.statistics.bootstrap import RESAMPLES, draw_weights, resampled_miou, resampling_units
from harness.statistics.scores import Values, miou

ONE_SEED = "images only, one seed"
TWO_SEEDS = "two seeds, too few for a verdict"


@dataclass(frozen=True)
class Interval:
    """A difference to the baseline in percentage points, and the interval around it.

    `low`, `high` and `p` are None where no noise can be seen (the test set is a single unit). The interval leaves out
    zero if and only if `p`, corrected by Holm's rule over the arms of the table, is below 1 - the table's confidence;
    `confidence` is what that makes of this interval alone. `seeds` is the number of pairs, `unit` what was resampled.
    """

    difference: float
    low: float | None
    high: float | None
    seeds: int
    unit: str
    note: str
    p: float | None
    confidence: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


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
    values = resampled_miou(table, unit, draw_weights(units, resamples, seed), absent)
    return float(np.sqrt(_covariance(values[None], units)[0, 0]))


def compare(
    arms: Mapping[str, Mapping[int, NDArray[np.int64]]],
    baseline: Mapping[int, NDArray[np.int64]],
    clusters: Sequence[str] | None = None,
    absent: str = "skip",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The mIoU of every arm less the baseline's, as `Interval`s with Holm's correction over the arms.

    `arms` holds {arm: {seed: int64 [N, K, 3]}} and `baseline` {seed: int64 [N, K, 3]}, all for the same images in the
    same order: any one table ("region", "boundary@3px", ...) of the counts. `clusters` as in `resampling_units`.
    An arm without a seed in common with the baseline, or whose score is undefined, is left out. The same input gives
    the same intervals: `seed` seeds the resampling. Raises ValueError if two tables differ in shape.
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
    weights = draw_weights(units, resamples, seed)

    def scores(table: NDArray[np.int64]) -> Values:
        """The score of the test set, then those of its resamples: float64 [1 + R]."""
        return np.concatenate([[miou(table.sum(0), absent)], resampled_miou(table, unit, weights, absent)])

    reference = {each: scores(baseline[each]) for each in needed}
    estimates: dict[str, _Estimate] = {}
    for arm, seeds in paired.items():
        if seeds:
            differences = np.stack([scores(arms[arm][each]) - reference[each] for each in seeds])
            if np.isfinite(differences).all():
                estimates[arm] = _estimate(differences[:, 0], differences[:, 1:], units)

    alphas, p_values = _holm({arm: each.p() for arm, each in estimates.items()}, 1 - confidence)
    intervals = {}
    for arm, estimate in estimates.items():
        half = estimate.half_width(alphas[arm])
        lonely = len(arms[arm].keys() ^ baseline.keys())
        notes = [
            *([ONE_SEED] if len(paired[arm]) == 1 else [TWO_SEEDS] if len(paired[arm]) == 2 else []),
            *([f"runs without a pair left out: {lonely}"] if lonely else []),
            *([f"no interval from a single {unit_name}"] if half is None else []),
        ]
        intervals[arm] = Interval(
            difference=estimate.difference,
            low=None if half is None else estimate.difference - half,
            high=None if half is None else estimate.difference + half,
            seeds=len(paired[arm]),
            unit=unit_name,
            note="; ".join(notes),
            p=p_values[arm] if half is not None else None,
            confidence=1 - alphas[arm],
        )
    return intervals


@dataclass(frozen=True)
class _Estimate:
    difference: float
    error: float | None  # the standard error
    freedom: float

    def p(self) -> float:
        """Two-sided p-value of no difference; 1 where the error is unknown."""
        from scipy.special import stdtr  # not at module level: start-up time

        if self.error is None or self.difference == 0:
            return 1.0
        return 2 * float(stdtr(self.freedom, -abs(self.difference) / self.error)) if self.error > 0 else 0.0

    def half_width(self, alpha: float) -> float | None:
        from scipy.special import stdtrit

        return None if self.error is None else float(stdtrit(self.freedom, 1 - alpha / 2)) * self.error


def _estimate(differences: Values, resampled: Values, units: int) -> _Estimate:
    """Mean, standard error and degrees of freedom from `differences` [S] and the same resampled, [S, R]."""
    pairs = len(differences)
    mean = float(differences.mean())
    if units < 2:
        return _Estimate(mean, None, np.nan)
    covariance = _covariance(resampled, units)
    if pairs == 1:
        return _Estimate(mean, float(np.sqrt(covariance[0, 0])), units - 1)
    of_seeds = float(differences.var(ddof=1)) / pairs
    shared = float(covariance.sum() - covariance.trace()) / (pairs * (pairs - 1))
    of_images = max(shared, float(covariance.mean()) - of_seeds, 0.0)  # what the images add to the seeds' spread
    variance = of_seeds + of_images
    if variance == 0:
        return _Estimate(mean, 0.0, pairs - 1)
    freedom = variance**2 / (of_seeds**2 / (pairs - 1) + of_images**2 / (units - 1))
    return _Estimate(mean, float(np.sqrt(variance)), freedom)


def _covariance(resampled: Values, units: int) -> Values:
    """Covariance [S, S] of scores [S, R] over resamples, without the bootstrap's bias of (units - 1) / units."""
    return np.atleast_2d(np.cov(resampled)) * units / (units - 1)


def _holm(p_values: Mapping[str, float], alpha: float) -> tuple[dict[str, float], dict[str, float]]:
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

"""Simultaneous confidence intervals for the gains of all arms over the baseline.

A benchmark has two sources of randomness: the training seeds and the test images. The gain of arm a is its mean score
minus the baseline's, with the standard error

    SE_a^2 = u_a / n_a + u_0 / n_0 + I_a.

- Seeds: runs are not paired by seed, since pairing removes no noise on a GPU (docs/maintainers/statistics.md). All arms
  share one variance s2 with nu degrees of freedom, pooled over all runs; `guarded` raises it to u_a for an arm (or the
  baseline) whose scores scatter more than the others'.
- Images: all runs see the same test images. I_a is the part of the image noise that does not cancel in the difference,
  from the covariances of the runs' scores over the same resampled images.

The interval is mean_a - mean_0 ± c SE_a, with the critical value c of Dunnett (1955) for several arms against one
baseline: in 95 of 100 experiments, all intervals of a table contain the true gains. `scipy.stats.dunnett` is the same
without I_a and `guarded`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isinf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtrc, ndtr, roots_hermitenorm, roots_legendre, stdtrit

from harness.statistics.scores import Values

CONFIDENCE = 0.95
POWER = 0.8
ROUNDING = 1e-18  # squared points: a smaller variance is rounding noise of equal scores
ENOUGH_RUNS = 10**6  # stands for infinitely many
GUARD = 4  # weight of the shared variance against an arm's own, in degrees of freedom (`guarded`)


@dataclass(frozen=True)
class Gain:
    """The gain of an arm over the baseline, in points, with its simultaneous interval.

    difference        mean score of the arm minus that of the baseline
    low, high, p      interval and p-value, both corrected for the number of arms; None if they cannot be computed, as
                      with a single run of either
    standard_error    SE_a
    images            I_a, the part of SE_a^2 that is due to the images, squared points
    units             number of resampled units of images
    dof, critical     nu and c
    one_pair          half-width of the 95 % interval for one more pair of runs on the same images, by Student's t
    shared            u_0 / n_0, the part of SE_a^2 that all arms share, squared points
    resampled         the gain on every resampled test set [R]
    """

    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    standard_error: float | None = None
    images: float | None = None
    units: int = 0
    dof: int = 0
    critical: float | None = None
    one_pair: float | None = None
    shared: float = 0.0
    resampled: Values | None = field(default=None, repr=False, compare=False)

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and it excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def visible(self) -> float | None:
        """The minimum detectable gain in points, at a power of 80 %; None without an interval."""
        if self.standard_error is None or self.critical is None:
            return None
        return (self.critical + float(stdtrit(self.dof, POWER))) * self.standard_error


def gains(
    baseline: Sequence[float] | Values,
    arms: Mapping[str, Sequence[float] | Values],
    resampled: Mapping[str | None, Values],
    units: int,
    confidence: float = CONFIDENCE,
) -> dict[str, Gain]:
    """The gain of every arm over the baseline.

    Scores are in percent, one per run. `resampled`: for the baseline (None) and every arm, the scores [runs, R] of each
    run on the same R resampled test sets of `units` units. Arms without a run are left out. There is an interval if arm
    and baseline have at least two runs and there are at least two units; c is computed for these arms only.
    """
    scores = {arm: np.asarray(values, np.float64) for arm, values in arms.items() if len(values)}
    control = np.asarray(baseline, np.float64)
    if not len(control):
        return {}
    found = {arm: Gain(float(values.mean() - control.mean())) for arm, values in scores.items()}
    s2, dof = pooled_variance([control, *scores.values()])
    family = [arm for arm, values in scores.items() if min(len(values), len(control)) > 1]
    if units < 2 or s2 < ROUNDING or not family:
        return found
    common = guarded(control, s2) / len(control)
    own = {arm: guarded(scores[arm], s2) for arm in family}
    images = {arm: image_variance(resampled[arm], resampled[None], units) for arm in family}
    errors = {arm: float(np.sqrt(own[arm] / len(scores[arm]) + common + images[arm])) for arm in family}
    correlations = tuple(common / errors[arm] ** 2 for arm in family)
    c = critical(correlations, dof, confidence)
    single = float(stdtrit(dof, (1 + CONFIDENCE) / 2))
    for arm in family:
        gain, error = found[arm].difference, errors[arm]
        found[arm] = Gain(
            difference=gain,
            low=gain - c * error,
            high=gain + c * error,
            p=1 - within(abs(gain) / error, correlations, dof),
            standard_error=error,
            images=images[arm],
            units=units,
            dof=dof,
            critical=c,
            one_pair=single * float(np.sqrt(own[arm] * (1 + 1 / len(scores[arm])) + common * (len(control) + 1))),
            shared=common,
            resampled=resampled[arm].mean(0) - resampled[None].mean(0),
        )
    return found


def foreseen(
    variance: float, images: float, arms: int, runs: float, baseline_runs: float, confidence: float = CONFIDENCE
) -> float:
    """The minimum detectable gain in points, at a power of 80 %, of an experiment of this size.

    variance: of a run's score over seeds; images: the part of a gain's variance that is due to the images, both in
    squared points. runs: of each of the `arms` arms; with infinitely many, only the image noise remains.
    """
    if isinf(runs):
        return foreseen(0.0, images, arms, ENOUGH_RUNS, ENOUGH_RUNS, confidence)
    shared = variance * guard_factor(baseline_runs) / baseline_runs
    squared = variance * guard_factor(runs) / runs + shared + images
    if squared == 0:
        return 0.0
    dof = arms * (runs - 1) + baseline_runs - 1
    return (critical((shared / squared,) * arms, dof, confidence) + float(stdtrit(dof, POWER))) * squared**0.5


def pooled_variance(arms: Sequence[Values]) -> tuple[float, int]:
    """The variance of runs within their arm, pooled over all arms, and its degrees of freedom; 0, 0 without any."""
    dof = sum(len(values) - 1 for values in arms if len(values))
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in arms if len(values))
    return (squares / dof, dof) if dof else (0.0, 0)


def guarded(scores: Values, shared: float) -> float:
    """The variance of an arm's runs: the shared variance, or more if the arm's own scores [n] scatter more.

    The mean of the shared variance and the arm's own, weighted by degrees of freedom (`GUARD` for the shared one), but
    never less than the shared one.
    """
    n = len(scores)
    own = float(scores.var(ddof=1)) if n > 1 else 0.0
    return max(shared, (GUARD * shared + (n - 1) * own) / (GUARD + n - 1))


def guard_factor(runs: float) -> float:
    """The expected value of `guarded` for a shared variance of 1 and an arm of `runs` runs with that variance."""
    k = runs - 1
    above = k * float(chdtrc(k + 2, k) - chdtrc(k, k))  # expected excess of chi-squared over its mean k
    return 1 + above / (GUARD + k)


def image_variance(arm: Values, baseline: Values, units: int) -> float:
    """The variance of a gain that is due to the choice of test images, in squared points.

    arm, baseline: scores [runs, R] on the same resampled test sets of `units` units, at least two runs each. Only
    covariances between different runs enter: a run's own noise on these images is part of the seed variance.
    """
    covariance = np.cov(np.concatenate([arm, baseline])) * units / (units - 1)  # without the bootstrap's bias
    n = len(arm)
    of_arm, of_baseline, between = covariance[:n, :n], covariance[n:, n:], covariance[:n, n:]
    return max(0.0, _mean_covariance(of_arm) + _mean_covariance(of_baseline) - 2 * float(between.mean()))


def within(t: float, correlations: tuple[float, ...], dof: float) -> float:
    """The probability that all arms are within t standard errors of the baseline if none of them differs from it.

    `correlations`: lambda_a^2 of the arms, the baseline's share of SE_a^2. Given the baseline's mean and the estimated
    variance (s^2 times the true one, with dof s^2 chi-squared), the arms are independent; the integral is over both.
    """
    z, z_weights, s, s_weights = _nodes(dof)
    inside = np.ones((len(s), len(z)))
    for correlation, times in zip(*np.unique(np.asarray(correlations), return_counts=True), strict=True):
        lam, rest = np.sqrt(correlation), np.sqrt(1 - correlation)
        above = ndtr((t * s[:, None] - lam * z) / rest)
        below = ndtr((-t * s[:, None] - lam * z) / rest)
        inside *= (above - below) ** times
    return float(s_weights @ inside @ z_weights)


@lru_cache(maxsize=4096)
def critical(correlations: tuple[float, ...], dof: float, confidence: float = CONFIDENCE) -> float:
    """The t at which `within` is `confidence`: Dunnett's two-sided critical value."""
    single = float(stdtrit(dof, (1 + confidence) / 2))
    if len(correlations) == 1:
        return single
    all_apart = float(stdtrit(dof, 1 - (1 - confidence) / 2 / len(correlations)))  # Bonferroni, an upper bound
    low, high = single - 1e-6, all_apart + 1e-6
    return float(brentq(lambda t: within(t, correlations, dof) - confidence, low, high, xtol=1e-7))


def _mean_covariance(covariance: NDArray[np.float64]) -> float:
    """The mean off-diagonal element of a covariance matrix."""
    n = len(covariance)
    return float(covariance.sum() - covariance.trace()) / (n * (n - 1))


@lru_cache(maxsize=256)
def _nodes(dof: float) -> tuple[Values, Values, Values, Values]:
    """Quadrature nodes and weights: z >= 0 standard normal (the integrand is even in z), and dof s^2 chi-squared."""
    z, z_weights = roots_hermitenorm(80)
    half = z > 0
    z, z_weights = z[half], z_weights[half] / z_weights[half].sum()
    spread = 9 / np.sqrt(2 * dof)
    low, high = max(0.0, 1 - spread), 1 + spread
    x, weights = roots_legendre(64)
    s = low + (high - low) * (x + 1) / 2
    density = np.exp((dof - 1) * np.log(s) - dof * (s**2 - 1) / 2)
    weights = weights * density
    return z, z_weights, s, weights / weights.sum()

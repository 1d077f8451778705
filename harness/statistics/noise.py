"""What a difference of two arms varies by, and what can be said in spite of it.

Both choices of a benchmark are samples: the seeds that were trained and the images that were tested. Write the
difference of pair s (the same seed, two arms) on the test set as

    d_s = difference + seed_s + own_s + images,

where `images` is what all pairs have in common because of which images were drawn, and `own_s` the luck of one pair of
networks on these images. The mean over S seeds has the variance var(seed + own) / S + var(images):

- The spread of d_s over the seeds estimates var(seed + own), with S - 1 degrees of freedom.
- The covariance between pairs of their scores on the same resampled images estimates var(images), with as many degrees
  of freedom as there are resampled units, less one.

The interval is the mean +- t * sqrt(sum of both estimates). No t distribution belongs to such a sum. With w the seeds'
share of it, t is w^2 of the seeds' quantile and 1 - w^2 of the images', and no interval is narrower than the seeds'
part alone makes it. With three seeds or more, of experiments without a difference 4 to 5.5 % are then called different
for every w, and of tables with up to twelve such arms, by Holm's rule, no more (docs/metrics.md).

Why not Satterthwaite's degrees of freedom, of which the w^2 are taken: they too come from the estimates. Where three
seeds happen to lie close together, they make the variance too small and the degrees of freedom too many at once, most
of all in the far tails, which Holm's rule reads: of tables with six arms that equal the baseline up to 17 % then hold a
false difference. Weighting the quantiles instead (as Cochran and Cox, 1957, do with w) keeps the seeds' heavy tail.
Why the images' variance is not that of the resampled mean over the pairs, var(images) + var(own) / S: the spread over
the seeds has var(own) already, and counted twice it makes intervals that cover 99 %.

With one seed there is no spread: the interval knows the images' noise alone and is about that pair of networks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.statistics.scores import Values
from harness.statistics.student import critical, two_sided

POWER = 0.8
ENOUGH_SEEDS = 3  # two seeds leave one degree of freedom, whose interval is 12.7 standard errors to each side
MOST_SEEDS = 100
SMALLEST_P = 1e-9


@dataclass(frozen=True)
class Noise:
    """The estimated variances of a difference, in squared points, from `pairs` pairs of runs on `units` units.

    `spread` is the variance of one pair's difference over seeds, its own luck with these images included, None for a
    single pair; `own` that luck's part as the images show it; `images` what the pairs have in common through the choice
    of images (for a single pair: all that the images do).
    """

    pairs: int
    units: int
    spread: float | None
    own: float
    images: float
    freedom: int | None = None  # degrees of freedom of `spread`; None: pairs - 1. More where arms are pooled (`pooled`)

    def margin(self, alpha: float, pairs: int | None = None, units: int | None = None) -> float:
        """Half the width in points of the interval that misses with probability `alpha`.

        With `pairs` or `units`: what it would be for so many of them and the same noise. Raises ValueError for more
        than one pair where only one was seen.
        """
        of_seeds, of_images = self._variances(pairs or self.pairs, units or self.units)
        t_images = critical(alpha, (units or self.units) - 1)
        if of_seeds == 0:
            return t_images * math.sqrt(of_images)
        t_seeds = critical(alpha, self._freedom(pairs or self.pairs))
        share = of_seeds / (of_seeds + of_images)
        t = t_images + share**2 * (t_seeds - t_images)
        return max(t * math.sqrt(of_seeds + of_images), t_seeds * math.sqrt(of_seeds))

    def p(self, difference: float) -> float:
        """The alpha, not below `SMALLEST_P`, whose margin ends at zero; 1 for no difference."""
        error = math.sqrt(sum(self._variances(self.pairs, self.units)))
        if difference == 0 or error == 0:
            return 1.0 if difference == 0 else SMALLEST_P
        t = abs(difference) / error
        freedoms = (self.units - 1, self._freedom(max(self.pairs, 2)))
        either = [math.log(max(two_sided(t, freedom), SMALLEST_P)) for freedom in freedoms]
        return math.exp(_root(lambda x: self.margin(math.exp(x)) - abs(difference), min(either), max(either)))

    def detectable(self, alpha: float, pairs: int | None = None, units: int | None = None) -> float:
        """The true difference in points that such an experiment tells from 0 with probability `POWER`.

        The sum of the margins of `alpha` and, one-sided, of 1 - `POWER`. Where the spread of three pairs dominates, the
        probability is 77 %.
        """
        return self.margin(alpha, pairs, units) + self.margin(2 * (1 - POWER), pairs, units)

    def further_pairs(self, difference: float, alpha: float) -> int | None:
        """How many more pairs (seeds) it takes until `difference` could be detected, if it is the true one.

        None if up to `MOST_SEEDS` do not suffice, as where the images' noise alone is too large, and for a single pair,
        from which nobody knows.
        """
        if self.spread is None:
            return None
        for pairs in range(max(self.pairs, ENOUGH_SEEDS), MOST_SEEDS + 1):
            if self.detectable(alpha, pairs) <= abs(difference):
                return pairs - self.pairs
        return None

    def one_pair(self, alpha: float) -> float | None:
        """How far from the mean difference that of one more pair on these images lies, but for the share `alpha`.

        Half the width in points of a prediction interval; the images are the same and add nothing. None for a single
        pair, from which nobody knows.
        """
        if self.spread is None:
            return None
        return critical(alpha, self._freedom(self.pairs)) * math.sqrt(self.spread * (1 + 1 / self.pairs))

    def _freedom(self, pairs: int) -> int:
        """The degrees of freedom of the seeds' part, with so many pairs instead of `self.pairs` and as many arms."""
        if self.freedom is None:
            return pairs - 1
        return max(1, round(self.freedom * (pairs - 1) / (self.pairs - 1)))

    def _variances(self, pairs: int, units: int) -> tuple[float, float]:
        """What seeds and images add to the variance of the mean difference."""
        scale = self.units / units
        if self.spread is None:
            if pairs > 1:
                raise ValueError("one pair of runs says nothing about the noise of seeds: train a second seed")
            return 0.0, self.images * scale
        if pairs == 1:  # about that pair: its seed is no noise
            return 0.0, (self.images + self.own) * scale
        of_seeds = max(self.spread - self.own, 0.0) + min(self.spread, self.own) * scale
        return of_seeds / pairs, self.images * scale


def estimate(differences: Values, resampled: Values, units: int) -> Noise:
    """The noise of `differences` [S] in points, and of the same over R resamples of `units` units, [S, R]."""
    pairs = len(differences)
    covariance = np.atleast_2d(np.cov(resampled)) * units / (units - 1)  # without the bootstrap's bias
    if pairs == 1:
        return Noise(1, units, None, 0.0, float(covariance[0, 0]))
    shared = float(covariance.sum() - covariance.trace()) / (pairs * (pairs - 1))
    images = max(shared, 0.0)
    own = max(float(covariance.trace()) / pairs - images, 0.0)
    return Noise(pairs, units, float(differences.var(ddof=1)), own, images)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the falling `function` is zero between `low` and `high`: false position, Illinois variant."""
    at_low, at_high = function(low), function(high)
    if at_low <= 0 or at_high >= 0:
        return low if at_low <= 0 else high
    side = 0
    for _ in range(100):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        value = function(middle)
        if abs(value) < 1e-10 or high - low < 1e-12:
            break
        if value > 0:
            low, at_low, at_high, side = middle, value, at_high / 2 if side > 0 else at_high, 1
        else:
            high, at_high, at_low, side = middle, value, at_low / 2 if side < 0 else at_low, -1
    return middle

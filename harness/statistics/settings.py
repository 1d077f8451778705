"""The mean gain of an arm over several settings (data sets and networks).

Two questions need two intervals. What is the gain on exactly these settings? They are fixed, and the noise is that of
seeds and images in each. What would it be on similar settings? These are a sample, and the noise is the variation of
the gain between them. The usual bootstrap over a handful of settings covers only 81 to 86 %.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from harness.statistics.interval import CONFIDENCE, Gain, critical


@dataclass(frozen=True)
class Setting:
    """The gains of all arms in one setting. Settings with the same `test_set` share images and resamples."""

    test_set: Hashable
    gains: Mapping[str, Gain]


@dataclass(frozen=True)
class MeanGain:
    """The mean of an arm's gains over `settings` settings, in points.

    low, high            simultaneous 95 % interval for these settings
    low_like, high_like  95 % interval for similar settings, for this arm alone, by Student's t over the settings; None
                         for a single setting
    smallest, largest    gain over the settings
    """

    settings: int
    difference: float
    low: float
    high: float
    low_like: float | None
    high_like: float | None
    smallest: float
    largest: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval for these settings excludes 0."""
        return self.low > 0 or self.high < 0


def mean_gains(settings: Sequence[Setting], confidence: float = CONFIDENCE) -> dict[str, MeanGain]:
    """The mean gain of every arm over the settings in which it has an interval; arms without one are left out.

    Seeds are independent between settings. Images are shared by networks on one test set, so the gains' covariance over
    the same resampled images is added. The degrees of freedom are Satterthwaite's.
    """
    arms = list(dict.fromkeys(arm for each in settings for arm in each.gains))
    found = {arm: [each for each in settings if _known(each, arm)] for arm in arms}
    found = {arm: chosen for arm, chosen in found.items() if chosen}
    errors, correlations, freedoms = {}, {}, {}
    for arm, chosen in found.items():
        of_arm = [each.gains[arm] for each in chosen]
        own = np.array([(gain.standard_error or 0) ** 2 - (gain.images or 0) for gain in of_arm])
        dofs = np.array([gain.dof for gain in of_arm])
        variance = own.sum() + _image_variance(chosen, arm)
        errors[arm] = float(np.sqrt(variance)) / len(chosen)
        correlations[arm] = float(sum(gain.shared for gain in of_arm) / variance)
        freedoms[arm] = float(own.sum() ** 2 / (own**2 / dofs).sum())
    family = tuple(correlations.values())
    return {
        arm: _mean(chosen, arm, errors[arm], critical(family, freedoms[arm], confidence), confidence)
        for arm, chosen in found.items()
    }


def _known(setting: Setting, arm: str) -> bool:
    return arm in setting.gains and setting.gains[arm].standard_error is not None


def _image_variance(chosen: Sequence[Setting], arm: str) -> float:
    """The variance of the sum of the gains that is due to the images, in squared points."""
    total = 0.0
    for place, one in enumerate(chosen):
        total += one.gains[arm].images or 0.0
        for other in chosen[:place]:
            ours, theirs = one.gains[arm], other.gains[arm]
            if one.test_set == other.test_set and ours.resampled is not None and theirs.resampled is not None:
                scale = ours.units / (ours.units - 1)
                total += 2 * scale * float(np.cov(ours.resampled, theirs.resampled)[0, 1])
    return max(0.0, total)


def _mean(chosen: Sequence[Setting], arm: str, error: float, c: float, confidence: float) -> MeanGain:
    differences = np.array([each.gains[arm].difference for each in chosen])
    mean, number = float(differences.mean()), len(differences)
    reach = None
    if number > 1:
        t = float(stdtrit(number - 1, (1 + confidence) / 2))
        reach = t * float(differences.std(ddof=1)) / number**0.5
    return MeanGain(
        settings=number,
        difference=mean,
        low=mean - c * error,
        high=mean + c * error,
        low_like=None if reach is None else mean - reach,
        high_like=None if reach is None else mean + reach,
        smallest=float(differences.min()),
        largest=float(differences.max()),
    )

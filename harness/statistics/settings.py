"""The mean gain of an arm over several settings: data sets and networks.

Two questions have two intervals. What does the arm gain on this very grid? Its settings are given, and the noise is
that of seeds and images in each. What would it gain in settings like these? Then they are a sample, and the noise is
how much the gain differs between them. Resampling a handful of settings, the usual answer, covers 81 to 86 % only.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from harness.statistics.interval import CONFIDENCE, Gain, critical


@dataclass(frozen=True)
class Setting:
    """The gains of all arms in one setting. Settings with the same `test_set` share its images and its resamples."""

    test_set: Hashable
    gains: Mapping[str, Gain]


@dataclass(frozen=True)
class MeanGain:
    """The mean of an arm's gains over `settings` settings, in points.

    low, high            95 % interval for these settings, of all arms at once
    low_like, high_like  95 % interval for settings like these, of this arm alone, by Student's t over the settings;
                         None for a single one
    smallest, largest    of the settings' gains
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
        """Whether the interval for these settings lies on one side of 0."""
        return self.low > 0 or self.high < 0


def mean_gains(settings: Sequence[Setting], confidence: float = CONFIDENCE) -> dict[str, MeanGain]:
    """The mean gain of every arm over the settings in which it has an interval; arms without one are left out.

    Seeds are independent between settings. Images are not between networks on one test set: there the gains' covariance
    over the same resampled images is added. The degrees of freedom are Satterthwaite's.
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

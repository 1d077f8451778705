"""The mean gain over several data sets and networks, in closed form and in simulated grids."""

import numpy as np
import pytest
from scipy import stats
from simulated import UNITS, World, table, weights

from harness.statistics.interval import Gain, critical, gains
from harness.statistics.settings import Setting, mean_gains


def known(difference, seeds=0.04, images=0.01, shared=0.01, dof=20, resampled=None):
    """A gain whose variance is `seeds` + `images`."""
    return Gain(
        difference, 0, 0, standard_error=(seeds + images) ** 0.5, images=images, units=UNITS, dof=dof, shared=shared,
        resampled=resampled,
    )  # fmt: skip


def test_the_mean_over_two_data_sets_in_closed_form():
    settings = [Setting("a", {"arm": known(1.0)}), Setting("b", {"arm": known(3.0, seeds=0.12, dof=10)})]
    (mean,) = mean_gains(settings).values()
    error = (0.05 + 0.13) ** 0.5 / 2
    dof = 0.16**2 / (0.04**2 / 20 + 0.12**2 / 10)  # Satterthwaite's
    assert (mean.settings, mean.difference, mean.smallest, mean.largest) == (2, 2.0, 1.0, 3.0)
    assert mean.high - 2 == pytest.approx(stats.t.ppf(0.975, dof) * error)
    assert mean.high_like - 2 == pytest.approx(stats.t.ppf(0.975, 1) * 2**0.5 / 2**0.5)  # t(1) sd / root of 2
    assert mean.excludes_zero == (mean.low > 0)


def test_networks_on_one_test_set_share_the_noise_of_its_images():
    drawn = np.random.default_rng(0).normal(0, 0.1, 500_000)
    one, other = ({"arm": known(1.0, resampled=drawn)} for _ in range(2))
    scale = UNITS / (UNITS - 1)
    apart = mean_gains([Setting("a", one), Setting("b", other)])["arm"]
    together = mean_gains([Setting("a", one), Setting("a", other)])["arm"]
    variance = (2 * 0.05 + 2 * 0.01 * scale) / 4
    assert apart.high - 1 == pytest.approx(stats.t.ppf(0.975, 40) * (0.1 / 4) ** 0.5)
    assert together.high - 1 == pytest.approx(stats.t.ppf(0.975, 40) * variance**0.5, rel=0.01)


def test_all_arms_of_the_grid_are_corrected_together_and_holes_are_left_out():
    lone = Gain(4.0)  # of a single run
    settings = [
        Setting("a", {"x": known(1.0), "y": known(2.0), "z": lone}),
        Setting("b", {"x": known(2.0), "z": lone}),
    ]
    found = mean_gains(settings)
    assert {arm: mean.settings for arm, mean in found.items()} == {"x": 2, "y": 1}
    c = critical((0.2, 0.2), 20)
    assert found["y"].high - 2 == pytest.approx(c * 0.05**0.5)
    assert (found["y"].low_like, found["y"].high_like) == (None, None)
    assert mean_gains([]) == {}


def coverage(grids, between, arms=3, datasets=3, networks=2, seed=0):
    """Shares of grids: in which all intervals for the grid hold its truth; and of intervals for settings like it."""
    rng = np.random.default_rng(seed)
    here = like = 0
    for _ in range(grids):
        settings, truth = [], []
        for dataset in range(datasets):
            drawn = weights(rng, resamples=150)
            for _ in range(networks):
                effects = 1.0 + rng.normal(0, between, arms)
                baseline, scores, resampled = table(rng, tuple(effects), world=World(0.5, 0.15), drawn=drawn)
                settings.append(Setting(dataset, gains(baseline, scores, resampled, UNITS)))
                truth.append(effects)
        means, of_grid = mean_gains(settings), np.mean(truth, axis=0)
        here += all(each.low <= of_grid[arm] <= each.high for arm, each in means.items())
        like += np.mean([each.low_like <= 1.0 <= each.high_like for each in means.values()])
    return here / grids, like / grids


@pytest.mark.slow
def test_both_intervals_cover_their_truth():
    here, like = coverage(75, between=0.5)
    assert here >= 0.91
    assert like == pytest.approx(0.95, abs=0.04)


@pytest.mark.exhaustive
@pytest.mark.parametrize("between", [0.2, 1.0])
def test_both_intervals_cover_their_truth_closely(between):
    here, like = coverage(400, between, seed=int(10 * between))
    assert here == pytest.approx(0.955, abs=0.02)
    assert like == pytest.approx(0.95, abs=0.015)

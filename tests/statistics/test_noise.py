from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.noise import MOST_SEEDS, POWER, SMALLEST_P, Noise, estimate

variances = st.one_of(st.just(0.0), st.floats(1e-4, 10))
noises = st.builds(Noise, st.integers(2, 10), st.integers(3, 2000), variances, variances, variances)


def plain_margin(of_seeds, of_images, pairs, units, alpha):
    """The rule of the module's docstring with scipy's t."""
    t_seeds, t_images = stats.t.isf(alpha / 2, pairs - 1), stats.t.isf(alpha / 2, units - 1)
    total = of_seeds + of_images
    if total == 0:
        return 0.0
    w = of_seeds / total
    return max((w**2 * t_seeds + (1 - w**2) * t_images) * total**0.5, t_seeds * of_seeds**0.5)


@given(noises, st.floats(1e-4, 0.5))
def test_the_margin_weighs_the_two_quantiles_of_t(noise, alpha):
    expected = plain_margin(noise.spread / noise.pairs, noise.images, noise.pairs, noise.units, alpha)
    assert noise.margin(alpha) == pytest.approx(expected, rel=1e-6)


@given(noises, st.floats(0.01, 20))
def test_p_is_the_level_whose_margin_ends_at_zero(noise, difference):
    p = noise.p(difference)
    assert p == noise.p(-difference)
    if p > 1.01 * SMALLEST_P:
        assert noise.margin(p) == pytest.approx(difference, rel=1e-5)
    else:
        assert noise.margin(p) <= difference * (1 + 1e-4)


def test_p_without_noise_or_without_a_difference():
    silent = Noise(3, 20, 0.0, 0.0, 0.0)
    assert (silent.p(0.0), silent.p(0.1), silent.margin(0.05)) == (1.0, SMALLEST_P, 0.0)
    assert Noise(3, 20, 0.1, 0.0, 0.1).p(0.0) == 1.0


def test_the_parts_are_found_again_from_many_pairs():
    random = np.random.default_rng(0)
    pairs, units, resamples = 400, 50, 4000
    images, own = random.normal(0, 0.3, resamples), random.normal(0, 0.5, (pairs, resamples))
    differences = 1 + random.normal(0, 0.7, pairs) + random.normal(0, 0.5, pairs)
    noise = estimate(differences, images + own, units)
    bias = units / (units - 1)
    assert noise.images == pytest.approx(0.3**2 * bias, rel=0.05)
    assert noise.own == pytest.approx(0.5**2 * bias, rel=0.05)
    assert noise.spread == pytest.approx(0.7**2 + 0.5**2, rel=0.15)
    single = estimate(differences[:1], images[None] + own[:1], units)
    assert (single.pairs, single.spread, single.own) == (1, None, 0.0)
    assert single.images == pytest.approx((0.3**2 + 0.5**2) * bias, rel=0.1)


def test_pairs_that_move_against_each_other_have_no_noise_of_images_in_common():
    moved = np.random.default_rng(0).normal(0, 1, 2000)
    assert estimate(np.array([0.1, 0.3]), np.stack([moved, -moved]), 30).images == 0


@given(noises, st.floats(1e-4, 0.5), variances)
def test_more_noise_never_makes_an_interval_narrower_nor_more_data_wider(noise, alpha, more):
    margin = noise.margin(alpha) * (1 + 1e-9)
    assert replace(noise, spread=noise.spread + more).margin(alpha) >= margin / (1 + 2e-9)
    assert replace(noise, images=noise.images + more).margin(alpha) >= margin / (1 + 2e-9)
    assert noise.margin(alpha, noise.pairs + 1) <= margin
    assert noise.margin(alpha, units=2 * noise.units) <= margin


def test_four_times_the_images_halve_their_part_and_leave_the_seeds_luck():
    of_images = Noise(3, 1000, 0.0, 0.0, 0.04)
    assert of_images.detectable(0.05, units=4000) == pytest.approx(of_images.detectable(0.05) / 2, rel=2e-3)
    of_seeds = Noise(3, 1000, 0.3, 0.0, 0.0)
    assert of_seeds.detectable(0.05, units=4000) == of_seeds.detectable(0.05)
    half_own = Noise(3, 1000, 0.3, 0.1, 0.0)
    assert half_own.margin(0.05, units=4000) == pytest.approx(
        plain_margin((0.2 + 0.1 / 4) / 3, 0, 3, 4000, 0.05), rel=1e-9
    )


@pytest.mark.parametrize(("pairs", "spread", "images"), [(3, 1.0, 0.0), (3, 0.4, 0.3), (5, 0.8, 0.1), (3, 0.0, 0.2)])
def test_the_detectable_difference_is_seen_in_four_of_five_experiments(pairs, spread, images):
    # Many experiments at once: their estimates of the two variances are those of normal samples.
    random, units, trials = np.random.default_rng(1), 60, 4000
    truth = Noise(pairs, units, spread, 0.0, images).detectable(0.05)
    found = truth + random.normal(0, (spread / pairs + images) ** 0.5, trials)
    spreads = spread * random.chisquare(pairs - 1, trials) / (pairs - 1)
    of_images = images * random.chisquare(units - 1, trials) / (units - 1)
    seen = [
        abs(difference) > Noise(pairs, units, a, 0.0, b).margin(0.05)
        for difference, a, b in zip(found, spreads, of_images, strict=True)
    ]
    assert POWER - 0.05 <= np.mean(seen) <= POWER + 0.05


def test_further_seeds_by_trying_each_number():
    noise, difference = Noise(3, 200, 0.5, 0.1, 0.01), 0.6

    def needed(pairs):
        return sum(plain_margin(0.5 / pairs, 0.01, pairs, 200, alpha) for alpha in (0.05, 0.4))

    enough = next(pairs for pairs in range(3, 100) if needed(pairs) <= difference)
    assert noise.further_pairs(difference, 0.05) == enough - 3 > 0
    assert noise.further_pairs(5.0, 0.05) == 0
    assert noise.further_pairs(-difference, 0.05) == enough - 3
    assert noise.further_pairs(difference, 0.01) > enough - 3


def test_no_number_of_seeds_settles_what_the_images_hide():
    # 2 + 0.84 standard errors of the images alone are 0.57 points.
    noise = Noise(3, 200, 0.5, 0.1, 0.04)
    assert noise.further_pairs(0.56, 0.05) is None
    assert noise.further_pairs(0.7, 0.05) < MOST_SEEDS - 3


def test_one_pair_knows_nothing_of_further_seeds():
    noise = Noise(1, 200, None, 0.0, 0.04)
    assert noise.margin(0.05) == pytest.approx(stats.t.isf(0.025, 199) * 0.2)
    assert noise.further_pairs(10.0, 0.05) is None
    with pytest.raises(ValueError, match="train a second seed"):
        noise.detectable(0.05, pairs=3)

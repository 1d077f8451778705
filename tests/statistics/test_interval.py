"""The interval against scipy's Dunnett test, closed forms, and simulated benchmarks whose truth is known."""

import numpy as np
import pytest
from scipy import stats
from simulated import UNITS, World, table

from harness.statistics.interval import (
    critical,
    foreseen,
    gains,
    guard_factor,
    guarded,
    image_variance,
    pooled_variance,
    within,
)


def of_variance(rng, runs, variance=1.0):
    """Scores whose sample variance is `variance`, so that the guard changes nothing."""
    values = rng.normal(size=runs)
    return (values - values.mean()) / values.std(ddof=1) * variance**0.5 + rng.normal(0, 1)


def without_images(scores):
    """The same score on every resampled test set, apart from what all runs share."""
    shared = np.random.default_rng(0).normal(size=50)
    return {arm: np.asarray(values)[:, None] + shared for arm, values in scores.items()}


@pytest.mark.parametrize(
    ("arms", "runs", "baseline"), [(1, 3, 3), (2, 2, 2), (3, 3, 6), (8, 3, 6), (8, 5, 10), (4, 2, 9)]
)
def test_without_images_and_guard_it_is_dunnetts_test(arms, runs, baseline):
    rng = np.random.default_rng(arms)
    control, rivals = of_variance(rng, baseline), {arm: of_variance(rng, runs) for arm in range(arms)}
    found = gains(control, rivals, without_images({None: control, **rivals}), 24)
    theirs = stats.dunnett(*rivals.values(), control=control, rng=np.random.default_rng(3))
    interval = theirs.confidence_interval(0.95)
    error = (1 / runs + 1 / baseline) ** 0.5
    for arm in range(arms):
        # scipy integrates at random: its probabilities are right to about 0.001.
        assert found[arm].p == pytest.approx(theirs.pvalue[arm], abs=0.0015)
        c = (interval.high[arm] - interval.low[arm]) / 2 / error
        correlations, dof = (1 / baseline / error**2,) * arms, arms * (runs - 1) + baseline - 1
        assert within(c, correlations, dof) == pytest.approx(0.95, abs=0.0015)
        assert found[arm].standard_error == pytest.approx(error)
        assert (found[arm].low + found[arm].high) / 2 == pytest.approx((interval.low[arm] + interval.high[arm]) / 2)
        if (arms, runs, baseline) == (8, 3, 6):
            assert found[arm].critical == pytest.approx(c, abs=0.002)


def test_critical_values_in_closed_form():
    # One arm: Student's t. Independent arms and known variance: the normal's at the root of 0.95.
    assert critical((0.4,), 7) == pytest.approx(stats.t.ppf(0.975, 7))
    for arms in (2, 8, 40):
        expected = stats.norm.ppf((1 + 0.95 ** (1 / arms)) / 2)
        assert critical((0.0,) * arms, 1e7) == pytest.approx(expected, abs=1e-4)
    # Two independent arms with one degree of freedom of a shared variance, by brute force.
    rng = np.random.default_rng(0)
    largest = np.abs(rng.normal(size=(400_000, 2)) / np.abs(rng.normal(size=(400_000, 1)))).max(1)
    assert within(3.0, (0.0, 0.0), 1) == pytest.approx((largest < 3).mean(), abs=0.003)


def test_the_critical_value_of_the_main_table():
    # Eight arms with 3 runs, 6 of the baseline, images a fifth of the variance.
    shared, rest, images = 0.56**2 / 6, 0.56**2 / 3, 0.2**2
    assert critical((shared / (shared + rest + images),) * 8, 21) == pytest.approx(2.97, abs=0.005)


@pytest.mark.parametrize("correlations", [(0.3,) * 8, (0.1, 0.5, 0.33), (0.9, 0.05)])
@pytest.mark.parametrize("dof", [1, 2, 5, 21, 300])
def test_p_and_critical_value_agree(correlations, dof):
    c = critical(correlations, dof)
    assert within(c, correlations, dof) == pytest.approx(0.95, abs=1e-6)
    assert stats.t.ppf(0.975, dof) <= c <= stats.t.ppf(1 - 0.025 / len(correlations), dof) + 1e-5


def test_the_pooled_variance_is_that_of_all_runs_about_their_arms_mean():
    arms = [np.array([1.0, 3.0]), np.array([5.0]), np.array([2.0, 2.0, 8.0])]
    assert pooled_variance(arms) == (pytest.approx((2 + 24) / 3), 3)
    assert pooled_variance([np.array([4.0])]) == (0.0, 0)


def test_the_guard_raises_the_variance_of_an_arm_that_scatters_more_and_lowers_none():
    assert guarded(np.array([0.0, 2.0, 4.0]), 1.0) == pytest.approx((4 * 1 + 2 * 4) / 6)
    assert guarded(np.array([0.0, 0.1, 0.2]), 1.0) == 1.0
    assert guarded(np.array([7.0]), 1.0) == 1.0
    rng = np.random.default_rng(0)
    for runs in (3, 6, 20):
        mean = np.mean([guarded(rng.normal(size=runs), 1.0) for _ in range(20_000)])
        assert guard_factor(runs) == pytest.approx(mean, abs=0.005)


def test_the_noise_of_images_is_what_different_runs_share():
    rng = np.random.default_rng(0)
    both, arm, base = rng.normal(size=(3, 200_000)) * np.array([[5.0], [0.3], [0.4]])
    ours = both + arm + rng.normal(size=(3, 200_000))  # each run has luck of its own
    theirs = both + base + rng.normal(size=(2, 200_000))
    assert image_variance(ours, theirs, 10) == pytest.approx(10 / 9 * (0.09 + 0.16), abs=0.03)
    assert image_variance(ours - arm, theirs - base, 10) == pytest.approx(0, abs=0.03)


def simulate(effects, tables, seed=0, **options):
    """Shares of tables with a false gain, of those in which the first arm is found, and the mean half-width."""
    rng = np.random.default_rng(seed)
    false = found = covered = 0
    half = []
    for _ in range(tables):
        baseline, arms, resampled = table(rng, effects, **options)
        result = gains(baseline, arms, resampled, UNITS)
        false += any(result[arm].excludes_zero for arm, effect in enumerate(effects) if effect == 0)
        covered += all(each.low <= effects[arm] <= each.high for arm, each in result.items())
        found += result[0].low > 0
        half.append(np.mean([(each.high - each.low) / 2 for each in result.values()]))
    return {"false": false / tables, "found": found / tables, "covered": covered / tables, "half": float(np.mean(half))}


NULL = (0.0,) * 8


@pytest.mark.slow
def test_eight_arms_that_equal_the_baseline_seldom_look_different():
    found = simulate(NULL, 150)
    assert 0.005 <= found["false"] <= 0.055
    assert found["half"] == pytest.approx(1.35, abs=0.05)


@pytest.mark.slow
def test_a_gain_of_two_points_is_found_in_nine_of_ten_experiments():
    assert simulate((2.0, *NULL[1:]), 100)["found"] == pytest.approx(0.91, abs=0.05)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("scatter", "low", "high"),
    [({}, 0.015, 0.04), ({None: 2.0}, 0.02, 0.055), ({0: 3.0}, 0.05, 0.095)],
    ids=["all alike", "baseline x2", "one arm x3"],
)
def test_false_tables_stay_rare_where_arm_or_baseline_scatter_more(scatter, low, high):
    assert low <= simulate(NULL, 1200, seed=7, scatter=scatter)["false"] <= high


@pytest.mark.exhaustive
@pytest.mark.parametrize(("images", "seeds"), [(0.0, 0.56), (0.5, 0.3), (0.14, 0.56)])
def test_all_intervals_of_a_table_hold_the_truth(images, seeds):
    effects = (0.0, 0.0, 0.5, -0.5, 1.0, 2.0, 5.0, -1.0)
    found = simulate(effects, 600, seed=3, world=World(seeds, images))
    assert 0.94 <= found["covered"] <= 0.99


@pytest.mark.exhaustive
@pytest.mark.parametrize(("runs", "baseline"), [(3, 6), (5, 10), (10, 20)])
def test_the_gain_that_is_foreseen_is_found_in_four_of_five_experiments(runs, baseline):
    world = World()
    gain = foreseen(world.seeds**2, 2 * world.images**2, 8, runs, baseline)
    found = simulate((gain, *NULL[1:]), 500, runs=runs, baseline_runs=baseline, seed=runs)["found"]
    assert found == pytest.approx(0.8, abs=0.045)


def test_more_runs_see_smaller_gains_down_to_what_the_images_allow():
    seen = [foreseen(0.3, 0.04, 8, runs, 2 * runs) for runs in (2, 3, 5, 10, 100, float("inf"))]
    assert seen == sorted(seen, reverse=True)
    floor = stats.norm.ppf((1 + 0.95 ** (1 / 8)) / 2) + stats.norm.ppf(0.8)  # independent arms, known variance
    assert seen[-1] == pytest.approx(floor * 0.2, abs=1e-3)
    assert foreseen(0.3, 0.0, 8, float("inf"), float("inf")) == 0

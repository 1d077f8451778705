from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.comparison import compare, holm, image_noise, spread


def tables_of_runs(runs=6, images=30, classes=3, seed=0, better=0):
    """Tables [N, K, 3] of several runs; `better` moves that many pixels per image and class from FN to TP."""
    rng = np.random.default_rng(seed)
    tables = {}
    for run in range(runs):
        pixels = np.random.default_rng(99).integers(400, 600, (images, classes))  # the same images for all runs
        hits = (pixels * rng.normal(0.7, 0.05, pixels.shape)).astype(np.int64) + better
        tables[run] = np.stack([hits, (0.2 * pixels).astype(np.int64), pixels - hits], axis=2)
    return tables


def dataset_miou(table):
    hits, false, missed = table.sum(0).T
    return 100 * np.mean(hits / (hits + false + missed))


def test_the_difference_is_the_mean_over_the_paired_seeds():
    arm, baseline = tables_of_runs(3, seed=1), tables_of_runs(3, seed=2)
    interval = compare({"arm": arm}, baseline)["arm"]
    expected = np.mean([dataset_miou(arm[each]) - dataset_miou(baseline[each]) for each in range(3)])
    assert interval.difference == pytest.approx(expected)
    assert interval.low < interval.difference < interval.high
    assert (interval.seeds, interval.unit, interval.note, interval.confidence) == (3, "image", "", 0.95)


def test_the_interval_follows_the_formula_in_the_linear_case():
    # Without false positives and with images of equal size the mIoU is a mean over images, whose bootstrap covariance
    # is the sample covariance over N in closed form.
    rng = np.random.default_rng(5)
    images, pairs = 40, 3
    shared, own = rng.integers(0, 300, images), rng.integers(0, 60, (pairs, images))
    seeds = np.array([0, 100, 130])
    gained = 4000 + shared + own + seeds[:, None]
    arm = {s: np.stack([gained[s], 0 * gained[s], 10_000 - gained[s]], 1)[:, None] for s in range(pairs)}
    baseline = {s: np.tile([[[4000, 0, 6000]]], (images, 1, 1)) for s in range(pairs)}
    interval = compare({"arm": arm}, baseline, resamples=20_000)["arm"]

    differences = (gained - 4000) / 100  # per pair and image, in points
    of_seeds = differences.mean(1).var(ddof=1) / pairs
    covariance = np.cov(differences) / images
    of_images = covariance[~np.eye(pairs, dtype=bool)].mean()

    def margin(p):
        t_seeds, t_images = stats.t.isf(p / 2, pairs - 1), stats.t.isf(p / 2, images - 1)
        w = of_seeds / (of_seeds + of_images)
        t = w**2 * t_seeds + (1 - w**2) * t_images
        return max(t * (of_seeds + of_images) ** 0.5, t_seeds * of_seeds**0.5)

    assert interval.difference == pytest.approx(differences.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(margin(0.05), rel=0.02)
    assert margin(interval.p) == pytest.approx(differences.mean(), rel=0.02)
    assert interval.detectable == pytest.approx(margin(0.05) + margin(0.4), rel=0.02)

    single = compare({"arm": {0: arm[0]}}, {0: baseline[0]}, resamples=20_000)["arm"]
    error = differences[0].std(ddof=1) / images**0.5
    assert (single.high - single.low) / 2 == pytest.approx(stats.t.ppf(0.975, images - 1) * error, rel=0.03)
    assert image_noise(arm[0], resamples=20_000) == pytest.approx(error, rel=0.03)


def test_the_same_records_give_the_same_interval_in_any_order():
    arms = {"x": tables_of_runs(3, seed=1), "y": tables_of_runs(3, seed=2, better=9)}
    baseline = tables_of_runs(3, seed=3)
    first = compare(arms, baseline)
    reordered = {name: dict(reversed(tables.items())) for name, tables in reversed(arms.items())}
    again = compare(reordered, dict(reversed(baseline.items())))
    assert {name: asdict(each) for name, each in first.items()} == {name: asdict(each) for name, each in again.items()}
    single = {"x": {0: arms["x"][0]}}
    assert compare(single, baseline)["x"].low == compare(single, baseline)["x"].low
    assert compare(single, baseline)["x"].low != compare(single, baseline, seed=1)["x"].low


def test_exchanging_the_arms_mirrors_the_interval():
    left, right = tables_of_runs(3, seed=1), tables_of_runs(3, seed=2)
    there, back = compare({"arm": left}, right)["arm"], compare({"arm": right}, left)["arm"]
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))


def test_equal_runs_differ_by_exactly_zero():
    runs = tables_of_runs(3)
    interval = compare({"arm": runs}, runs)["arm"]
    assert (interval.difference, interval.low, interval.high, interval.p) == (0, 0, 0, 1)
    assert not interval.excludes_zero


def test_one_and_two_seeds_say_so():
    baseline = tables_of_runs(3, seed=2)
    arms = {"one": {1: tables_of_runs(2)[1]}, "two": tables_of_runs(2), "none": {7: baseline[0]}}
    intervals = compare(arms, baseline)
    assert set(intervals) == {"one", "two"}
    assert intervals["one"].note == "images only, one seed; runs without a pair left out: 2"
    assert intervals["two"].note == "two seeds, too few for a verdict; runs without a pair left out: 1"
    assert (intervals["one"].seeds, intervals["two"].seeds) == (1, 2)
    assert compare({"none": {7: baseline[0]}}, baseline) == {}


def test_a_single_unit_gives_a_difference_without_an_interval():
    arm, baseline = tables_of_runs(3, images=8, better=9), tables_of_runs(3, images=8, seed=2)
    interval = compare({"arm": arm}, baseline, clusters=["one"] * 8)["arm"]
    assert (interval.low, interval.high, interval.p) == (None, None, None)
    assert interval.note == "no interval from a single block of 10 frames"
    assert not interval.excludes_zero
    assert image_noise(arm[0], ["one"] * 8) is None


def test_arms_that_can_have_no_verdict_are_not_corrected_and_widen_no_interval():
    baseline, arm, other, control = (tables_of_runs(3, seed=seed) for seed in (3, 1, 2, 4))
    few = {"one": {0: other[0]}, "two": {0: other[0], 1: other[1]}}
    by_itself = {name: compare({name: tables}, baseline)[name] for name, tables in few.items()}
    by_itself |= {
        "arm": compare({"arm": arm}, baseline)["arm"],
        "again": compare({"again": control}, baseline)["again"],
    }
    together = compare({"arm": arm, "again": control} | few, baseline, alone=["again"])
    for name, each in by_itself.items():
        assert (together[name].low, together[name].high) == pytest.approx((each.low, each.high), rel=1e-12)
        assert together[name].p == pytest.approx(each.p)
        assert together[name].confidence == 0.95
    corrected = compare({"arm": arm, "other": other} | few, baseline)
    assert corrected["arm"].high - corrected["arm"].low > by_itself["arm"].high - by_itself["arm"].low
    assert {corrected["arm"].confidence, corrected["other"].confidence} <= {0.95, 0.975}


def test_an_undefined_score_is_left_out():
    nothing = {0: np.zeros((5, 2, 3), np.int64)}
    assert compare({"arm": nothing}, nothing) == {}
    arm, baseline = tables_of_runs(3, seed=1), tables_of_runs(3, seed=2)
    lacking = compare({"arm": arm | {1: 0 * arm[1]}}, baseline)["arm"]  # of one seed alone
    rest = compare({"arm": {0: arm[0], 2: arm[2]}}, baseline)["arm"]
    assert asdict(lacking) == asdict(rest)
    assert lacking.note.endswith("runs without a pair left out: 1")
    assert image_noise(nothing[0]) is None


def test_tables_of_other_images_are_refused():
    with pytest.raises(ValueError, match="differ in images or classes"):
        compare({"arm": tables_of_runs(2, images=9)}, tables_of_runs(2, images=10))


def test_spread_is_mean_and_range_with_n():
    assert asdict(spread([70.0, 74.0, 71.0])) == {
        "mean": pytest.approx(215 / 3), "low": 70.0, "high": 74.0, "seeds": 3
    }  # fmt: skip
    with pytest.raises(ValueError, match="no seeds"):
        spread([])


def testholm_by_hand():
    # 4 x 0.01 = 0.04, 3 x 0.02 = 0.06 fails: the rest keep its share, 0.05 / 3, and its corrected p-value or more.
    shares, corrected = holm({"a": 0.02, "b": 0.01, "c": 0.021, "d": 0.9}, 0.05)
    assert shares == pytest.approx({"b": 0.05 / 4, "a": 0.05 / 3, "c": 0.05 / 3, "d": 0.05 / 3})
    assert corrected == pytest.approx({"b": 0.04, "a": 0.06, "c": 0.06, "d": 0.9})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def testholm_rejects_exactly_what_its_shares_reject(values):
    p_values = {str(index): value for index, value in enumerate(values)}
    shares, corrected = holm(p_values, 0.05)
    order, rejected = sorted(p_values, key=p_values.get), set()
    for rank, arm in enumerate(order):
        if p_values[arm] > 0.05 / (len(order) - rank):
            break
        rejected.add(arm)
    assert {arm for arm in p_values if p_values[arm] <= shares[arm]} == rejected
    assert {arm for arm in p_values if corrected[arm] <= 0.05 + 1e-12} == rejected


def test_intervals_leave_out_zero_exactly_where_p_is_small():
    baseline = tables_of_runs(3, seed=20)
    arms = {str(better): tables_of_runs(3, seed=better, better=better) for better in range(0, 12, 2)}
    intervals = compare(arms, baseline)
    assert {each.excludes_zero for each in intervals.values()} == {True, False}
    for interval in intervals.values():
        assert interval.excludes_zero == (interval.p < 0.05)
        assert interval.confidence >= 0.95
    # The strictest share is 0.05 / 6.
    assert max(each.confidence for each in intervals.values()) == pytest.approx(1 - 0.05 / 6)


def test_further_seeds_are_told_where_they_would_settle_it():
    baseline = tables_of_runs(3, seed=20)
    settled = compare({"arm": tables_of_runs(3, seed=1, better=40)}, baseline)["arm"]
    assert settled.excludes_zero
    assert settled.further_seeds == 0
    open_ = compare({"arm": tables_of_runs(3, seed=1, better=2)}, baseline)["arm"]
    assert not open_.excludes_zero
    assert open_.detectable > abs(open_.difference)
    assert open_.further_seeds == open_.noise.further_pairs(open_.difference, 0.05)
    two = compare({"arm": tables_of_runs(2, seed=1, better=200)}, baseline)["arm"]
    assert (two.excludes_zero, two.further_seeds) == (True, 1)  # a verdict takes three
    one = compare({"arm": tables_of_runs(1, seed=1, better=40)}, baseline)["arm"]
    assert one.further_seeds is None
    assert one.detectable > 0


def test_nothing_is_differenced_across_seeds():
    runs = tables_of_runs(4)
    arm, baseline = {0: runs[0], 1: runs[1]}, {2: runs[2], 3: runs[3]}
    assert compare({"arm": arm}, baseline) == {}
    overlapping = compare({"arm": arm}, {1: runs[2], 2: runs[3]})["arm"]
    assert overlapping.difference == pytest.approx(dataset_miou(runs[1]) - dataset_miou(runs[2]))
    assert overlapping.note == "images only, one seed; runs without a pair left out: 2"

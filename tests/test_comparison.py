"""From counts to rows: differences of means, intervals that know seeds and images, and what is left out."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from harness.comparison import Column, Spread, by_gain, cells, compare, halves, spread
from harness.evaluation.groups import groups
from harness.experiment.schema import Experiment
from harness.statistics.scores import Metric, miou_of, pixel_accuracy

MIOU = miou_of("region")


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


def compared(arms, baseline, **options) -> Column:
    return compare({"base": baseline, **arms}, "base", options.pop("metric", MIOU), **options)


def test_the_gain_is_the_difference_of_means_whatever_the_seeds():
    arm, baseline = tables_of_runs(3, seed=1), tables_of_runs(6, seed=2)
    column = compared({"arm": {each + 40: table for each, table in arm.items()}}, baseline)
    means = [np.mean([dataset_miou(table) for table in runs.values()]) for runs in (arm, baseline)]
    gain = column.gains["arm"]
    assert gain.difference == pytest.approx(means[0] - means[1])
    assert gain.low < gain.difference < gain.high
    assert column.unit == "image"
    assert list(column.scores["arm"]) == [40, 41, 42]
    assert column.scores["arm"][41] == pytest.approx(dataset_miou(arm[1]))


def test_the_interval_follows_the_formula_in_the_linear_case():
    # Without false positives and with images of equal size the mIoU is a mean over images, whose bootstrap covariance
    # is the sample covariance over N in closed form.
    rng = np.random.default_rng(5)
    images, runs, of_baseline = 40, 3, 4
    arm_image, base_image = rng.integers(0, 300, images), rng.integers(0, 300, images)
    luck = [rng.integers(0, 60, (count, images)) for count in (runs, of_baseline)]
    seeds = [np.array([0, 100, 130]), np.array([20, 90, 70, 140])]
    hits = [
        4300 + arm_image + luck[0] + seeds[0][:, None],
        4000 + base_image + luck[1] + seeds[1][:, None],
    ]
    arm, baseline = (
        {s: np.stack([row, 0 * row, 10_000 - row], 1)[:, None] for s, row in enumerate(each)} for each in hits
    )
    gain = compared({"arm": arm}, baseline, resamples=20_000).gains["arm"]

    y, z = (each.mean(1) / 100 for each in hits)
    dof = runs - 1 + of_baseline - 1
    shared = ((runs - 1) * y.var(ddof=1) + (of_baseline - 1) * z.var(ddof=1)) / dof
    u = [max(shared, (4 * shared + (len(x) - 1) * x.var(ddof=1)) / (len(x) + 3)) for x in (y, z)]
    covariance = np.cov(np.concatenate(hits) / 100) / images
    of_arm, of_base, between = covariance[:3, :3], covariance[3:, 3:], covariance[:3, 3:]
    of_images = of_arm[~np.eye(3, dtype=bool)].mean() + of_base[~np.eye(4, dtype=bool)].mean() - 2 * between.mean()
    error = (u[0] / runs + u[1] / of_baseline + of_images) ** 0.5
    t = stats.t.ppf(0.975, dof)  # of a single arm
    assert gain.difference == pytest.approx(y.mean() - z.mean())
    assert gain.images == pytest.approx(of_images, rel=0.03)
    assert (gain.high - gain.low) / 2 == pytest.approx(t * error, rel=0.01)
    assert gain.p == pytest.approx(2 * stats.t.sf(gain.difference / error, dof), rel=0.05)
    assert gain.one_pair == pytest.approx(t * (u[0] * (1 + 1 / runs) + u[1] * (1 + 1 / of_baseline)) ** 0.5)


def test_any_metric_is_compared():
    arm, baseline = tables_of_runs(3, seed=1, better=20), tables_of_runs(3, seed=2)
    metric = Metric("pixel_accuracy", "region", pixel_accuracy)
    column = compared({"arm": arm}, baseline, metric=metric)
    hits, _, missed = arm[0].sum((0, 1))
    assert column.scores["arm"][0] == pytest.approx(100 * hits / (hits + missed))
    assert column.gains["arm"].low > 0
    one = compared({"arm": arm}, baseline, metric=Metric("second", "region", classes=(1,)))
    assert one.scores["arm"][0] == pytest.approx(dataset_miou(arm[0][:, 1:2]))


def test_the_same_records_give_the_same_interval_in_any_order():
    arms = {"x": tables_of_runs(3, seed=1), "y": tables_of_runs(3, seed=2, better=9)}
    baseline = tables_of_runs(3, seed=3)
    first = compared(arms, baseline).gains
    reordered = {name: dict(reversed(tables.items())) for name, tables in reversed(arms.items())}
    again = compared(reordered, dict(reversed(baseline.items()))).gains
    assert first == again
    assert first != compared(arms, baseline, seed=1).gains


def test_exchanging_the_arms_mirrors_the_interval():
    left, right = tables_of_runs(3, seed=1), tables_of_runs(3, seed=2)
    there, back = compared({"arm": left}, right).gains["arm"], compared({"arm": right}, left).gains["arm"]
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))


@pytest.mark.parametrize(("runs", "of_baseline"), [(1, 3), (3, 1), (1, 1)])
def test_there_is_no_interval_from_a_single_run_on_either_side(runs, of_baseline):
    arms = {"arm": tables_of_runs(runs, better=9), "other": tables_of_runs(3, seed=5)}
    gain = compared(arms, tables_of_runs(of_baseline, seed=2)).gains["arm"]
    assert gain.difference > 0
    assert (gain.low, gain.high, gain.p, gain.standard_error) == (None, None, None, None)
    assert not gain.excludes_zero


def test_a_single_run_widens_nobodys_interval():
    arms, baseline = {"arm": tables_of_runs(3, seed=1)}, tables_of_runs(3, seed=2)
    lone = compared(arms | {"lone": tables_of_runs(1, seed=4)}, baseline).gains
    assert lone["arm"] == compared(arms, baseline).gains["arm"]
    more = compared(arms | {"third": tables_of_runs(3, seed=4)}, baseline).gains
    assert more["arm"].critical > lone["arm"].critical


def test_a_single_unit_gives_a_gain_without_an_interval():
    arm, baseline = tables_of_runs(3, images=8, better=9), tables_of_runs(3, images=8, seed=2)
    column = compared({"arm": arm}, baseline, clusters=["one"] * 8)
    assert column.unit == "block of 10 frames"
    assert column.gains["arm"].low is None


def test_an_undefined_score_is_left_out():
    nothing = {0: np.zeros((5, 2, 3), np.int64)}
    assert compared({"arm": nothing}, nothing).gains == {}
    arm, baseline = tables_of_runs(3, seed=1), tables_of_runs(3, seed=2)
    lacking = compared({"arm": arm | {1: 0 * arm[1]}}, baseline)  # of one seed alone
    assert list(lacking.scores["arm"]) == [0, 2]
    assert lacking.gains == compared({"arm": {0: arm[0], 2: arm[2]}}, baseline).gains


def test_runs_that_do_not_scatter_have_no_interval():
    runs = tables_of_runs(1)
    same = dict.fromkeys(range(3), runs[0])
    gain = compared({"arm": same}, same).gains["arm"]
    assert (gain.difference, gain.low) == (0, None)


def test_tables_of_other_images_are_refused():
    with pytest.raises(ValueError, match="differ in images or classes"):
        compared({"arm": tables_of_runs(2, images=9)}, tables_of_runs(2, images=10))


def test_spread_is_mean_and_standard_deviation_with_the_number_of_runs():
    assert asdict(spread([70.0, 74.0, 72.0])) == {"mean": pytest.approx(72), "sd": pytest.approx(2), "runs": 3}
    assert spread([70.0]) == Spread(70.0, None, 1)
    with pytest.raises(ValueError, match="no runs"):
        spread([])


# What an independent implementation found for the committed records: {arm: (gain, low, high)}.
WITH_SIX = {
    "cross_entropy_longer": (5.33, 3.77, 6.89),
    "pixel_contrast": (1.02, -0.13, 2.17),
    "contextrast": (0.19, -0.99, 1.37),
}
WITH_THREE = {
    "cross_entropy_longer": (5.04, 3.38, 6.70),
    "pixel_contrast": (0.73, -0.60, 2.06),
    "contextrast": (-0.10, -1.48, 1.28),
}


@pytest.mark.parametrize(("baseline_seeds", "expected"), [(6, WITH_SIX), (3, WITH_THREE)])
def test_the_committed_records_give_what_an_independent_implementation_gives(repository, baseline_seeds, expected):
    experiment = Experiment.load(
        repository / "config/camvid-small.yaml", [f"baseline_seeds={baseline_seeds}", "protocols=[whole]"]
    )
    (group,) = groups(experiment, repository / "results/reference/h100", ["region"])
    found = by_gain(cells(experiment, group, [MIOU]))
    assert [cell.arm for cell in found[:2]] == ["cross_entropy", "cross_entropy_longer"]
    assert [len(cell.values) for cell in found] == [baseline_seeds, *[3] * 8]
    for cell in found:
        if cell.arm in expected:
            gain = cell.gain
            assert (gain.difference, gain.low, gain.high) == pytest.approx(expected[cell.arm], abs=0.006)
            assert (gain.dof, cell.excludes_zero) == (16 + baseline_seeds - 1, cell.arm == "cross_entropy_longer")


def test_two_halves_of_the_former_control_differ_by_what_it_differed(repository):
    # Means of cross entropy, and of what was an arm of its own, as the committed tables had them.
    experiment = Experiment.load(repository / "config/camvid-small.yaml", ["protocols=[whole]"])
    (group,) = groups(experiment, repository / "results/reference/h100", ["region"])
    first, second, difference = halves(cells(experiment, group, [MIOU])[0])
    assert (first, second) == ([0, 1, 2], [3, 4, 5])
    assert difference == pytest.approx(56.85 - 56.27, abs=0.01)

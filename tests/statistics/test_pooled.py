"""Pooled intervals against closed forms, scipy, and simulated tables whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from harness.statistics.noise import Noise, estimate
from harness.statistics.pooled import pool
from harness.statistics.student import critical

NO_IMAGES = {"own": 0.0, "images": 0.0}


def by_seed(rows):
    return [dict(enumerate(map(float, row))) for row in rows]


def noises_of(baseline, arms):
    """Of seeds alone, the images without noise."""
    return {
        arm: Noise(len(scores), 40, float(np.var([scores[s] - baseline[s] for s in scores], ddof=1)), **NO_IMAGES)
        for arm, scores in arms.items()
    }


def test_of_a_single_arm_it_is_the_paired_t_interval():
    baseline, arm = by_seed(np.random.default_rng(0).normal(57, 1, (2, 4)))
    found = pool(baseline, {"a": arm}, noises_of(baseline, {"a": arm}))
    expected = stats.ttest_rel(list(arm.values()), list(baseline.values())).confidence_interval(0.95)
    assert found.freedom == 3
    assert (found.bounds["a"].low, found.bounds["a"].high) == pytest.approx(tuple(expected), abs=1e-9)
    assert (found.smallest, found.largest) == pytest.approx((found.deviation, found.deviation))


def test_the_luck_is_what_arm_and_seed_leave_over():
    """The residual of a two-way layout, by its closed form: scores less row mean less column mean plus mean."""
    scores = np.random.default_rng(1).normal(57, 1, (5, 3)) + np.array([0, 5, -3])  # seeds differ: it cancels
    baseline, *rest = by_seed(scores)
    arms = dict(zip("abcd", rest, strict=True))
    found = pool(baseline, arms, noises_of(baseline, arms))
    residual = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    variance = (residual**2).sum() / 8
    assert (found.freedom, found.deviation) == (8, pytest.approx(variance**0.5))
    # Holm: the arm with the largest difference has a fourth of the 5 %.
    first = max(arms, key=lambda arm: abs(found.bounds[arm].difference))
    margin = critical(0.05 / 4, 8) * (2 * variance / 3) ** 0.5
    assert found.bounds[first].high - found.bounds[first].difference == pytest.approx(margin)
    single = [np.std(scores[row] - scores[0], ddof=1) / 2**0.5 for row in range(1, 5)]
    assert (found.smallest, found.largest) == (pytest.approx(min(single)), pytest.approx(max(single)))


def test_runs_that_are_missing_cost_their_degrees_of_freedom_and_nothing_else():
    scores = np.random.default_rng(2).normal(57, 1, (4, 3))
    baseline, a, b, c = by_seed(scores)
    del a[1], b[0], b[2]
    arms = {"a": a, "b": b, "c": c | {7: 99.0}}  # b has one pair left; 7 has no partner in the baseline
    found = pool(baseline, arms, noises_of(baseline, {"a": a, "c": c}) | {"b": Noise(1, 40, None, 0.0, 0.1)})
    assert list(found.bounds) == ["a", "c"]
    assert found.freedom == 8 - 3 - 3 + 1
    assert found.bounds["a"].seeds == 2
    assert found.bounds["c"].difference == pytest.approx(np.mean(scores[3] - scores[0]))


def test_without_two_pairs_or_without_scatter_there_is_nothing_to_pool():
    assert pool({0: 50.0}, {"a": {0: 51.0}}, {"a": Noise(1, 40, None, 0.0, 0.1)}) is None
    assert pool({0: 50.0, 1: 50.0}, {}, {}) is None
    still = {0: 50.0, 1: 50.0}
    assert pool(still, {"a": still}, {"a": Noise(2, 40, 0.0, **NO_IMAGES)}) is None


def false_differences(w, factor, tables=400, arms=7, seeds=3, images=60):
    """The share in % of tables with a false difference; `w` is the seeds' share of the noise."""
    rng = np.random.default_rng([int(100 * w), int(10 * factor)])
    sizes = np.array([1, factor, *[1] * (arms - 1)])[:, None]
    draws = rng.multinomial(images, np.full(images, 1 / images), 200) / images
    false = 0
    for _ in range(tables):
        luck = rng.normal(0, (w * seeds / 2) ** 0.5, (1 + arms, seeds)) * sizes + rng.normal(0, 1, seeds)
        image = rng.normal(0, ((1 - w) * images / 2) ** 0.5, (1 + arms, images))
        scores = luck + image.mean(1, keepdims=True)
        resampled = luck[:, :, None] + (image @ draws.T)[:, None]
        noises = {
            str(arm): estimate(scores[arm] - scores[0], resampled[arm] - resampled[0], images)
            for arm in range(1, 1 + arms)
        }
        baseline, *rest = by_seed(scores)
        found = pool(baseline, {str(arm): each for arm, each in enumerate(rest, start=1)}, noises)
        false += any(each.excludes_zero for each in found.bounds.values())
    return 100 * false / tables


@pytest.mark.slow
def test_the_page_tells_how_often_pooled_tables_are_wrong(repository):
    lines = (repository / "docs/metrics.md").read_text().splitlines()

    def told(beginning):
        line = next(line for line in lines if line.startswith(f"| {beginning}"))
        return [float(cell) for cell in line.split("|")[2:-1]]

    factors = told("the first arm's luck is so many times as large")
    for w, words in ((0.5, "half"), (1.0, "all")):
        found = [false_differences(w, factor) for factor in factors]
        assert told(f"tables with a false difference, {words}") == pytest.approx(found, abs=0.06)
        assert max(found[:3]) <= 6  # up to twice the others' size

"""The intervals are what they say: simulated benchmarks whose true difference is known in closed form.

A class has n pixels in an image, of which the share `recall` is found, and 0.3 n false positives. Over many images its
IoU is then E[recall] / 1.3, so the true difference of two arms is 100 * effect / 1.3 points, since all noise (of
images, of what images do to an arm, of seeds, of one network on one image) is added to `recall` with mean zero.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from harness.statistics.comparison import compare

TRIALS = 1000
CLASSES = 3


@dataclass(frozen=True)
class World:
    """Standard deviations of the noise in recall. Those per image are divided by about sqrt(images) in a score."""

    images: float = 0.0  # what an image does to an arm, the same for every seed
    own: float = 0.0  # the luck of one network on one image
    seeds: float = 0.0  # the luck of one network everywhere
    clusters: float = 0.0  # what a whole cluster does to an arm


def recall_to_table(pixels, recall):
    hits = np.rint(pixels * recall).astype(np.int64)
    return np.stack([hits, np.rint(0.3 * pixels).astype(np.int64), np.rint(pixels).astype(np.int64) - hits], axis=-1)


def simulate(world, seeds, rng, images=80, effects=(0.0,), cluster=None):
    """The baseline's and the arms' tables by seed, and every pair's true difference in points, [arms, seeds]."""
    arms = 1 + len(effects)
    pixels = rng.gamma(4.0, 1000.0, (images, CLASSES)) * (rng.random((images, CLASSES)) < 0.7)
    image = rng.normal(0.0, 0.05, (images, CLASSES))  # a hard image is hard for all: it cancels in pairs
    arm_image = rng.normal(0.0, 1.0, (arms, 1, images, CLASSES)) * world.images
    luck = rng.normal(0.0, 1.0, (arms, seeds, 1, CLASSES)) * world.seeds
    own = rng.normal(0.0, 1.0, (arms, seeds, images, CLASSES)) * world.own
    recall = 0.6 + np.reshape((0.0, *effects), (arms, 1, 1, 1)) + image + arm_image + luck + own
    if cluster is not None:
        recall = recall + rng.normal(0.0, world.clusters, (arms, 1, cluster.max() + 1, CLASSES))[:, :, cluster]
    tables = [{s: recall_to_table(pixels, recall[arm, s]) for s in range(seeds)} for arm in range(arms)]
    means = np.reshape((0.0, *effects), (arms, 1)) + luck.mean((2, 3))
    return tables[0], tables[1:], 100 * (means[1:] - means[:1]) / 1.3


def coverage(world, seeds, effect=0.02, images=80, cluster=None, clusters=None, trials=TRIALS):
    """The share of trials whose interval holds the true difference, and of those that leave out zero."""
    covered = excluded = 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, seeds])
        baseline, (arm,), truth = simulate(world, seeds, rng, images, (effect,), cluster)
        interval = compare({"arm": arm}, baseline, clusters, resamples=300, seed=trial)["arm"]
        # One pair of networks knows nothing of other seeds: its interval is about that pair.
        target = truth[0, 0] if seeds == 1 else 100 * effect / 1.3
        covered += interval.low <= target <= interval.high
        excluded += interval.excludes_zero
    return covered / trials, excluded / trials


WORLDS = {
    "images": World(images=0.07, own=0.07),
    "images, alike for all seeds": World(images=0.1),
    "seeds": World(seeds=0.02),
    "images and seeds": World(images=0.1, seeds=0.02),
    "all": World(images=0.07, own=0.07, seeds=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_covers_the_true_difference(world, seeds):
    covered, _ = coverage(WORLDS[world], seeds)
    assert 0.93 <= covered <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_networks_that_differ_by_luck_on_each_image_alone_are_on_the_safe_side(seeds):
    # The spread over seeds shows the same noise as the bootstrap, and the larger of the two estimates is taken.
    covered, _ = coverage(World(own=0.1), seeds)
    assert 0.95 <= covered <= 0.99


@pytest.mark.slow
def test_equal_arms_are_called_different_in_one_trial_of_twenty():
    _, excluded = coverage(WORLDS["all"], seeds=3, effect=0.0)
    assert 0.02 <= excluded <= 0.07


@pytest.mark.slow
def test_a_table_of_equal_arms_holds_a_difference_in_one_of_twenty():
    wrong = 0
    for trial in range(400):
        baseline, arms, _ = simulate(WORLDS["all"], 3, np.random.default_rng([trial, 7]), effects=(0.0,) * 4)
        table = {str(index): arm for index, arm in enumerate(arms)}
        wrong += any(each.excludes_zero for each in compare(table, baseline, resamples=200, seed=trial).values())
    # Without Holm's rule it would be one of six.
    assert 0.02 <= wrong / 400 <= 0.075


@pytest.mark.slow
def test_images_of_a_cluster_must_be_drawn_together():
    world = World(images=0.05, clusters=0.05)
    cluster = np.arange(150) // 5  # 30 clusters of 5 images
    names = [f"city{each}" for each in cluster]
    together, _ = coverage(world, 1, images=150, cluster=cluster, clusters=names, trials=500)
    alone, _ = coverage(world, 1, images=150, cluster=cluster, clusters=None, trials=500)
    assert 0.92 <= together <= 0.98
    assert alone < 0.85

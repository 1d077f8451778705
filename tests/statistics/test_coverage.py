"""The intervals are what they say: simulated benchmarks whose true difference is known in closed form.

A class has n pixels in an image, of which the share `recall` is found, and 0.3 n false positives. Over many images its
IoU is then E[recall] / 1.3, so the true difference of two arms is 100 * effect / 1.3 points, since all noise (of
images, of what images do to an arm, of seeds, of one network on one image) is added to `recall` with mean zero.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from harness.evaluation.counts import Counts
from harness.statistics.comparison import compare
from harness.statistics.noise import Noise

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


def coverage(world, seeds, effect=0.02, images=60, cluster=None, clusters=None, trials=TRIALS):
    """The share of trials whose interval holds the true difference."""
    covered = 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, seeds])
        baseline, (arm,), truth = simulate(world, seeds, rng, images, (effect,), cluster)
        interval = compare({"arm": arm}, baseline, clusters, resamples=200, seed=trial)["arm"]
        # One pair of networks knows nothing of other seeds: its interval is about that pair.
        target = truth[0, 0] if seeds == 1 else 100 * effect / 1.3
        covered += interval.low <= target <= interval.high
    return covered / trials


WORLDS = {
    "images, alike for all seeds": World(images=0.1),
    "images, by luck of each network": World(own=0.1),
    "images": World(images=0.07, own=0.07),
    "seeds": World(seeds=0.02),
    "images and seeds": World(images=0.08, seeds=0.02),
    "all": World(images=0.07, own=0.07, seeds=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_covers_the_true_difference(world, seeds):
    assert 0.93 <= coverage(WORLDS[world], seeds) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("world", "seeds"), [("images", 3), ("seeds", 3), ("images and seeds", 3), ("all", 5)])
def test_arms_that_equal_the_baseline_are_rarely_called_different(world, seeds):
    # Of one arm and, with Holm's rule, of any of three.
    alone = together = 0
    for trial in range(TRIALS):
        baseline, arms, _ = simulate(WORLDS[world], seeds, np.random.default_rng([trial, 7]), 60, (0.0,) * 3)
        table = {str(index): arm for index, arm in enumerate(arms)}
        intervals = compare(table, baseline, resamples=200, seed=trial)
        together += any(each.excludes_zero for each in intervals.values())
        alone += abs(intervals["0"].difference) > intervals["0"].noise.margin(0.05)
    assert 0.02 <= alone / TRIALS <= 0.06
    assert together / TRIALS <= 0.06


def numbers(repository, heading):
    """A row of numbers on docs/metrics.md."""
    line = next(line for line in (repository / "docs/metrics.md").read_text().splitlines() if f"| {heading} |" in line)
    return [float(cell) for cell in line.split("|")[2:-1]]


def test_the_page_tells_how_often_intervals_are_right(repository):
    # Scores that are means over images, many tables of six arms at once; the seeds have the share w of the variance.
    arms, pairs, images, tables = 6, 3, 60, 4000
    shares = numbers(repository, "w, the seeds' share of the noise")
    told = {
        "covered": numbers(repository, "the interval of one arm covers the truth, %"),
        "ours": numbers(repository, "tables with a false difference, %"),
        "satterthwaite": numbers(repository, "the same with Satterthwaite's degrees of freedom, %"),
    }
    rng = np.random.default_rng(5)
    for index, w in enumerate(shares):
        luck = rng.normal(0, (w * pairs / 2) ** 0.5, (tables, 1 + arms, pairs))
        image = rng.normal(0, ((1 - w) * images / 2) ** 0.5, (tables, 1 + arms, images))
        luck, image = luck[:, 1:] - luck[:, :1], image[:, 1:] - image[:, :1]
        difference = abs(luck.mean(-1) + image.mean(-1))
        of_seeds, of_images = luck.var(-1, ddof=1) / pairs, image.var(-1, ddof=1) / images

        def margins(alpha, of_seeds=of_seeds, of_images=of_images):
            noises = zip(of_seeds.ravel() * pairs, of_images.ravel(), strict=True)
            return np.reshape([Noise(pairs, images, a, 0.0, b).margin(alpha) for a, b in noises], of_seeds.shape)

        # Holm's rule finds a difference in a table exactly if the smallest p is below alpha / arms.
        variance = of_seeds + of_images
        freedom = variance**2 / (of_seeds**2 / (pairs - 1) + of_images**2 / (images - 1))
        theirs = stats.t.isf(0.05 / arms / 2, freedom) * np.sqrt(variance)
        found = {
            "covered": (difference <= margins(0.05)).mean(),
            "ours": (difference > margins(0.05 / arms)).any(1).mean(),
            "satterthwaite": (difference > theirs).any(1).mean(),
        }
        assert 0.93 <= found["covered"] <= 0.98
        assert found["ours"] <= 0.06
        for name, share in found.items():
            assert told[name][index] == pytest.approx(100 * share, abs=0.06), (name, w)
    assert max(told["satterthwaite"]) > 12  # why it is not used


def video_difference(correlation, rng):
    """What each frame of CamVid's test videos adds to a difference, correlated with its neighbours: AR(1)."""
    frames = []
    for length in (62, 171):
        noise = rng.normal(size=length)
        frames.append(noise[0])
        for each in noise[1:]:
            frames.append(correlation * frames[-1] + (1 - correlation**2) ** 0.5 * each)
    return np.array(frames)


@pytest.mark.slow
def test_the_page_tells_what_blocks_of_ten_frames_are_worth(repository):
    videos = ["0001TP"] * 62 + ["Seq05VD"] * 171
    told = dict(
        zip(
            numbers(repository, "correlation of neighbouring frames"), numbers(repository, "coverage in %"), strict=True
        )
    )
    for correlation in (0.0, 0.5, 0.9):
        covered = 0
        for trial in range(500):
            rng = np.random.default_rng([trial, int(100 * correlation)])
            gained = np.rint(5000 + 300 * video_difference(correlation, rng)).astype(np.int64)
            arm, baseline = (
                np.stack([hits, 0 * hits, 10_000 - hits], -1)[:, None] for hits in (gained, 0 * gained + 5000)
            )
            interval = compare({"arm": {0: arm}}, {0: baseline}, videos, resamples=200, seed=trial)["arm"]
            covered += interval.low <= 0 <= interval.high
        assert told[correlation] == pytest.approx(covered / 5, abs=2.5)


def test_the_page_tells_how_much_camvids_frames_have_in_common(repository):
    # What a frame adds to the mIoU: its first derivative by the frame's weight.
    found = []
    folder = repository / "results/reference/epyc/runs/camvid-small/camvid/lite0_fpn"
    runs = {
        arm: Counts.load(folder / arm / "seed0/counts.npz")
        for arm in ("cross_entropy", "contextrast", "pixel_contrast")
    }
    video = np.array([name.split("_")[0] for name in runs["contextrast"].image_ids])
    for protocol in ("whole", "ms_flip"):
        added = {}
        for arm, counts in runs.items():
            table = counts.tables[protocol]["region"]
            hits, union = table.sum(0)[:, 0], table.sum((0, 2))
            added[arm] = (table[..., 0] / union - hits / union**2 * table.sum(2)).mean(1)
        for arm in ("contextrast", "pixel_contrast"):
            of_frame = added[arm] - added["cross_entropy"]
            both = [(each[:-1] * each[1:]).sum() for each in (of_frame[video == name] for name in np.unique(video))]
            found.append(sum(both) / (of_frame**2).sum())
    page = (repository / "docs/metrics.md").read_text()
    assert f"correlated by {min(found):.2f} to {max(found):.2f} with its neighbour" in " ".join(page.split())


@pytest.mark.slow
def test_images_of_a_cluster_must_be_drawn_together():
    world = World(images=0.05, clusters=0.05)
    cluster = np.arange(150) // 5  # 30 clusters of 5 images
    names = [f"city{each}" for each in cluster]
    assert 0.92 <= coverage(world, 1, images=150, cluster=cluster, clusters=names, trials=500) <= 0.98
    assert coverage(world, 1, images=150, cluster=cluster, clusters=None, trials=500) < 0.85

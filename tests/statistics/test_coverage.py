"""The intervals are what they say: simulated benchmarks whose true difference is known in closed form.

A class has n pixels in an image, of which the share `recall` is found, and 0.3 n false positives. Over many images its
IoU is then E[recall] / 1.3, so the true difference of two arms is 100 * effect / 1.3 points, since all noise (of
images, of what images do to an arm, of seeds, of one network on one image) is added to `recall` with mean zero.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from harness.comparison import compare
from harness.evaluation.counts import Counts
from harness.statistics.scores import miou_of

MIOU = miou_of("region")
TRIALS = 600
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
    """The baseline's and the arms' tables by seed."""
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
    return tables[0], tables[1:]


def coverage(world, seeds, effect=0.02, images=60, cluster=None, clusters=None, trials=TRIALS):
    """The share of trials whose interval holds the true difference."""
    covered = 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, seeds])
        baseline, (arm,) = simulate(world, seeds, rng, images, (effect,), cluster)
        column = compare({"base": baseline, "arm": arm}, "base", MIOU, clusters, resamples=200, seed=trial)
        gain = column.gains["arm"]
        covered += gain.low <= 100 * effect / 1.3 <= gain.high
    return covered / trials


WORLDS = {
    "images, alike for all seeds": World(images=0.1, seeds=0.001),
    "images, by luck of each network": World(own=0.1),
    "seeds": World(seeds=0.02),
    "all": World(images=0.07, own=0.07, seeds=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, pytest.param(5, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_covers_the_true_difference(world, seeds):
    # The guard makes it wider than 95 % where scores scatter alike.
    assert 0.925 <= coverage(WORLDS[world], seeds) <= 0.995


def numbers(repository, heading):
    """A row of numbers on docs/maintainers/statistics.md."""
    line = next(
        line
        for line in (repository / "docs/maintainers/statistics.md").read_text().splitlines()
        if f"| {heading} |" in line
    )
    return [float(cell) for cell in line.split("|")[2:-1]]


def video_difference(correlation, rng):
    """What each frame of CamVid's test videos adds to a difference, correlated with its neighbours: AR(1)."""
    frames = []
    for length in (62, 171):
        noise = rng.normal(size=length)
        frames.append(noise[0])
        for each in noise[1:]:
            frames.append(correlation * frames[-1] + (1 - correlation**2) ** 0.5 * each)
    return np.array(frames)


@pytest.mark.exhaustive
def test_the_page_tells_what_blocks_of_ten_frames_are_worth(repository):
    # Ten runs that differ by next to nothing: the interval is that of the images.
    videos, runs = ["0001TP"] * 62 + ["Seq05VD"] * 171, 10
    told = dict(
        zip(
            numbers(repository, "correlation of neighbouring frames"), numbers(repository, "coverage in %"), strict=True
        )
    )
    for correlation, expected in told.items():
        covered, trials = 0, 1000
        for trial in range(trials):
            rng = np.random.default_rng([trial, int(100 * correlation)])
            gained = 5000 + 300 * video_difference(correlation, rng) + rng.normal(0, 1, (runs, 1))
            arm, baseline = (
                {
                    s: np.stack([row, 0 * row, 10_000 - row], -1)[:, None]
                    for s, row in enumerate(np.rint(hits).astype(int))
                }
                for hits in (gained, 5000 + rng.normal(0, 1, (runs, 1)) + 0 * gained)
            )
            column = compare({"base": baseline, "arm": arm}, "base", MIOU, videos, resamples=200, seed=trial)
            gain = column.gains["arm"]
            covered += gain.low <= 0 <= gain.high
        assert expected == pytest.approx(100 * covered / trials, abs=1.5)


def test_the_page_tells_how_much_camvids_frames_have_in_common(repository):
    # What a frame adds to the mIoU: its first derivative by the frame's weight, the mean over an arm's seeds.
    def added(arm):
        runs = [Counts.load(path) for path in sorted(arm.glob("seed*/counts.npz"))]
        tables = [counts.tables["whole"]["region"].astype(float) for counts in runs]
        totals = [(table.sum(0)[:, 0], table.sum((0, 2))) for table in tables]
        rows = [
            (table[..., 0] / union - hits / union**2 * table.sum(2)).mean(1)
            for table, (hits, union) in zip(tables, totals, strict=True)
        ]
        return np.mean(rows, 0), np.array([name.split("_")[0] for name in runs[0].image_ids])

    found = []
    for experiment in ("h100/runs/camvid-small", "h200/runs/camvid-controls"):
        folder = repository / "results/reference" / experiment / "camvid/lite0_fpn"
        baseline, video = added(folder / "cross_entropy")
        for arm in folder.iterdir():
            if arm.name != "cross_entropy":
                of_frame = added(arm)[0] - baseline
                both = [(each[:-1] * each[1:]).sum() for each in (of_frame[video == name] for name in np.unique(video))]
                found.append(sum(both) / (of_frame**2).sum())
    page = " ".join((repository / "docs/maintainers/statistics.md").read_text().split())
    assert f"correlated by {min(found):.2f} to {max(found):.2f} with its neighbour" in page
    assert f"({np.mean(found):.2f} on average over {len(found)} arms)" in page


@pytest.mark.slow
def test_images_of_a_cluster_must_be_drawn_together():
    world = World(images=0.05, clusters=0.08, seeds=0.001)
    cluster = np.arange(150) // 5  # 30 clusters of 5 images
    names = [f"city{each}" for each in cluster]
    assert 0.92 <= coverage(world, 4, images=150, cluster=cluster, clusters=names, trials=400) <= 0.99
    assert coverage(world, 4, images=150, cluster=cluster, clusters=None, trials=400) < 0.88

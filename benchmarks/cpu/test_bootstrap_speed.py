"""Seconds for a comparison of ADE20K's size, and the bootstrap's speed-up over summing the drawn images.

10,000 resamples for 2,000 images, 150 classes, 7 arms (including the baseline) and 3 seeds, with numpy's BLAS threads
(`OMP_NUM_THREADS`).
"""

import resource
import time

import numpy as np
import pytest

from harness.comparison import compare
from harness.statistics.bootstrap import bootstrap
from harness.statistics.scores import miou, miou_of

IMAGES, CLASSES, ARMS, SEEDS, RESAMPLES = 2000, 150, 7, 3, 10_000


def table(rng):
    """TP, FP, FN [IMAGES, CLASSES, 3]: an image has a twelfth of the classes."""
    pixels = rng.integers(1, 30_000, (IMAGES, CLASSES)) * (rng.random((IMAGES, CLASSES)) < 1 / 12)
    hits = (pixels * rng.random(pixels.shape)).astype(np.int64)
    false = rng.integers(0, 3000, pixels.shape) * (rng.random(pixels.shape) < 1 / 8)
    return np.stack([hits, false, pixels - hits], axis=-1)


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.benchmark(group="10,000 resamples, 2,000 images, 150 classes, 7 arms, 3 seeds")
def test_bootstrap_speed(benchmark):
    rng = np.random.default_rng(0)
    runs = [{seed: table(rng) for seed in range(SEEDS)} for _ in range(ARMS)]
    arms = {f"arm {index}": tables for index, tables in enumerate(runs)}
    metric = miou_of("region")

    before = megabytes()
    first = benchmark.pedantic(lambda: compare(arms, "arm 0", metric, resamples=RESAMPLES), rounds=1)
    more = megabytes() - before
    few = [compare(arms, "arm 0", metric, resamples=500) for _ in range(2)]
    assert few[0] == few[1]
    assert set(first.gains) == set(arms) - {"arm 0"}

    # The plain implementation, for a few resamples of one run: draw the same images and sum their counts.
    drawings = 50
    draws = np.random.default_rng(0).integers(IMAGES, size=(drawings, IMAGES))
    start = time.perf_counter()
    plain = [float(miou(runs[0][0][drawn].sum(0))) for drawn in draws]
    plain_seconds = (time.perf_counter() - start) * RESAMPLES / drawings * ARMS * SEEDS
    assert bootstrap([runs[0][0]], metric, np.arange(IMAGES), drawings, 0)[0] == pytest.approx(plain, rel=1e-12)

    ours = benchmark.stats.stats.median
    benchmark.extra_info["times faster than summing drawn images"] = round(plain_seconds / ours)
    benchmark.extra_info["megabytes above the tables"] = round(more)
    print(f"\n{ours:.1f} s, {plain_seconds / ours:.0f} times faster than summing drawn images, {more:.0f} MB more")

"""The pixel sampler and the distance transform compared with loops over images and classes.

Eight label maps of 128x256, 19 classes in blocks of 16 pixels, a fifth of the pixels misclassified in smooth spots. The
sampler's reference applies the same rule to one (image, class) pair at a time; the distance's reference is scipy's
exact transform of one region at a time, whose result must be equal.
"""

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from methods.label_distance import squared_distance_to_other_mark
from methods.pair_sampling import sample_pairs

CLASSES, BATCH, HEIGHT, WIDTH = 19, 8, 128, 256
PIXELS_PER_IMAGE, MAX_VIEWS = 512, 100


@pytest.fixture
def maps(benchmark):
    """Labels and predictions int64 [B, H, W]."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, CLASSES, (BATCH, HEIGHT // 16, WIDTH // 16), generator=generator)
    labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    spots = torch.rand(BATCH, 1, HEIGHT // 8, WIDTH // 8, generator=generator)
    wrong = F.interpolate(spots, (HEIGHT, WIDTH), mode="bilinear")[:, 0] > 0.68
    return labels, torch.where(wrong, (labels + 1) % CLASSES, labels)


def sample_by_loops(labels, prediction):
    """The rule of `sample_pairs`, one pair at a time."""
    sampled = torch.zeros_like(labels, dtype=torch.bool)
    for image, (label, guess) in enumerate(zip(labels, prediction, strict=True)):
        present = label.unique().tolist()
        views = min(PIXELS_PER_IMAGE // len(present), MAX_VIEWS)
        for n in present:
            hard, easy = ((label == n) & (guess != n)).nonzero(), ((label == n) & (guess == n)).nonzero()
            take_hard = min(len(hard), max(views // 2, views - len(easy)))
            take_easy = min(len(easy), views - take_hard)
            for places, take in ((hard, take_hard), (easy, take_easy)):
                y, x = places[torch.randperm(len(places))[:take]].T
                sampled[image, y, x] = True
    return sampled


def distances_by_loops(marks):
    squared = np.zeros(marks.shape, np.int64)
    for image, mark in enumerate(marks.numpy()):
        for n in np.unique(mark):
            region = mark == n
            squared[image][region] = np.rint(distance_transform_edt(region)[region] ** 2)
    return torch.from_numpy(squared)


def fastest(function, *arguments):
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        result = function(*arguments)
        taken.append(time.perf_counter() - start)
    return result, min(taken)


def compare(benchmark, reference_seconds):
    ratio = reference_seconds / benchmark.stats.stats.min
    benchmark.extra_info["times faster than loops"] = round(ratio, 1)
    print(f"\n{1000 * benchmark.stats.stats.min:.1f} ms, loops {1000 * reference_seconds:.1f} ms: {ratio:.1f} times")


def test_pair_sampling(benchmark, maps):
    labels, prediction = maps
    options = {"pixels_per_image": PIXELS_PER_IMAGE, "max_views": MAX_VIEWS}
    expected, seconds = fastest(sample_by_loops, labels, prediction)
    sampled = benchmark(sample_pairs, labels, prediction, CLASSES, 255, **options)
    assert torch.equal(labels[sampled].bincount(), labels[expected].bincount())
    assert (prediction != labels)[sampled].sum() == (prediction != labels)[expected].sum()
    compare(benchmark, seconds)


def test_distance_pass(benchmark, maps):
    labels, prediction = maps
    marks = torch.where(prediction == labels, 0, 1 + labels).int()  # the misclassified regions of every class
    expected, seconds = fastest(distances_by_loops, marks)
    squared = benchmark(squared_distance_to_other_mark, marks)
    assert torch.equal(squared.long(), expected)
    compare(benchmark, seconds)

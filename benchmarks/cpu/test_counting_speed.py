"""Milliseconds per image for all counts on one core, and the speed-up over boundary bands computed class by class.

Ours are all tables: region, boundary and trimap in six widths, objects by size. The reference computes only region and
boundary, so the ratio understates the speed-up.
"""

import time

import cv2
import numpy as np
import pytest

from harness.evaluation.bands import radius
from harness.evaluation.counts import DEFAULT_WIDTHS, count_image

SIZES = [(1024, 2048, 19), (512, 683, 150)]


def street(height, width, classes):
    """A label map of 40-pixel blocks and a prediction that is off by three pixels."""
    blocks = np.random.default_rng(0).integers(0, classes, (height // 40 + 1, width // 40 + 1)).astype(np.uint8)
    label = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)
    label[: height // 20] = 255
    return np.roll(label, 3, axis=1), label


def count_class_by_class(prediction, label, classes):
    """The same region and boundary counts from one binary mask per class, map and width, as in published code."""
    valid = label != 255
    prediction = np.where(valid, prediction, np.uint8(255))
    reaches = [radius(width, *label.shape) for width in DEFAULT_WIDTHS]
    counts = np.zeros((1 + len(reaches), classes, 3), np.int64)
    for c in range(classes):
        masks = [(values == c).view(np.uint8) for values in (prediction, label)]
        for index, reach in enumerate([None, *reaches]):
            bands = masks
            if reach is not None:
                square = np.ones((2 * reach + 1,) * 2, np.uint8)
                bands = [
                    mask - cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=0) for mask in masks
                ]
            both = cv2.countNonZero(bands[0] & bands[1])
            counts[index, c] = both, cv2.countNonZero(bands[0]) - both, cv2.countNonZero(bands[1]) - both
    return counts


@pytest.mark.benchmark(group="all counts of one image")
@pytest.mark.parametrize(("height", "width", "classes"), SIZES, ids=lambda value: str(value))
def test_counting_speed(benchmark, height, width, classes):
    prediction, label = street(height, width, classes)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            expected = count_class_by_class(prediction, label, classes)
            times.append(time.perf_counter() - start)
        seconds = min(times)
        tables = benchmark(count_image, prediction, label, classes)
    finally:
        cv2.setNumThreads(threads)
    names = ["region", *(f"boundary@{width}" for width in DEFAULT_WIDTHS)]
    assert np.array_equal([tables[name] for name in names], expected)
    ours = benchmark.stats.stats.min  # the fastest of each: on a busy machine medians are meaningless
    benchmark.extra_info["milliseconds per image"] = round(1000 * ours, 2)
    benchmark.extra_info["class by class, milliseconds"] = round(1000 * seconds, 1)
    benchmark.extra_info["times faster"] = round(seconds / ours, 1)
    print(f"\n{height}x{width}, {classes} classes: {1000 * ours:.1f} ms, {seconds / ours:.0f} times faster")

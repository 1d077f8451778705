import threading

import numpy as np
import pytest
import torch

from harness.datasets.augmentation import Augmentation
from harness.training.device_samples import DeviceSamples
from harness.training.samples import TrainingSamples, batches, slots_of

CPU = torch.device("cpu")


@pytest.fixture
def keyed(tiny):
    """The samples of the data set `tiny` in batches of 4."""
    return TrainingSamples(tiny, tiny.samples("train"), Augmentation((24, 20)), seed=3, batch=4)


@pytest.fixture(params=[True, False], ids=["resident", "sent"])
def on_device(keyed, request):
    """The same as they lie decoded on a device, or are sent there."""

    def make(slots=None):
        made = DeviceSamples(keyed.reader, keyed, CPU, 1e9 if request.param else 0, slots)
        assert made.resident == request.param
        return made

    return make


def listed(found):
    return [(images.numpy().copy(), labels.numpy().copy()) for images, labels in found]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for (images, labels), (others, their_labels) in zip(found, expected, strict=True):
        assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
        assert np.array_equal(images, others)
        assert np.array_equal(labels, their_labels)


def test_batches_are_those_of_the_cpu_from_wherever_they_start(keyed, on_device):
    expected = listed(batches(keyed, 0, 12, workers=0))
    assert_equal(listed(on_device().batches(0, 12)), expected)
    assert_equal(listed(on_device().batches(5, 12)), expected[5:])


def test_slots_are_parts_of_the_batch(keyed, on_device):
    slots = slots_of(1, 2, 4)
    assert_equal(listed(on_device(slots).batches(0, 3)), listed(batches(keyed, 0, 3, 0, slots)))


def test_who_stops_early_leaves_no_thread_behind(on_device):
    before = threading.active_count()
    following = on_device().batches(0, 1000)
    next(following)
    following.close()
    assert threading.active_count() == before

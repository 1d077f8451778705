import numpy as np
import pytest
import torch

from harness import datasets
from harness.datasets.augmentation import Augmentation
from harness.training.device_samples import DeviceSamples, fits
from harness.training.samples import TrainingSamples, batches, slots_of

CPU = torch.device("cpu")


@pytest.fixture
def made(tiny_data):
    """The data set `tiny`, its samples for batches of 4, and the same as they lie decoded on a device."""
    dataset = datasets.load("tiny", datasets.resolve_root("tiny"))
    keyed = TrainingSamples(dataset, dataset.samples("train"), Augmentation((24, 20)), seed=3, batch=4)
    return dataset, keyed, DeviceSamples(dataset, keyed, CPU)


def listed(found):
    return [(images.numpy().copy(), labels.numpy().copy()) for images, labels in found]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for (images, labels), (others, their_labels) in zip(found, expected, strict=True):
        assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
        assert np.array_equal(images, others)
        assert np.array_equal(labels, their_labels)


def test_batches_are_those_of_the_cpu_from_wherever_they_start(made):
    _, keyed, on_device = made
    expected = listed(batches(keyed, 0, 12, workers=0))
    assert_equal(listed(on_device.batches(0, 12)), expected)
    assert_equal(listed(on_device.batches(5, 12)), expected[5:])


def test_slots_are_parts_of_the_batch(made):
    _, keyed, on_device = made
    slots = slots_of(1, 2, 4)
    assert_equal(listed(on_device.batches(0, 3, slots)), listed(batches(keyed, 0, 3, 0, slots)))


def test_who_stops_early_leaves_no_thread_behind(made):
    import threading

    before = threading.active_count()
    following = made[2].batches(0, 1000)
    next(following)
    following.close()
    assert threading.active_count() == before


def test_a_cpu_has_no_memory_of_its_own_for_them(made):
    assert not fits(made[0], made[1], CPU)

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.training.samples import TrainingSamples, batches, iteration_seed, slots_of


class Reader:
    """Ten images; image i is filled with i."""

    def read(self, sample):
        return np.full((8, 8, 3), sample, np.uint8), np.full((8, 8), sample, np.uint8)


def noted(image, label, seed):
    """An augmentation that writes a function of its seed into the label."""
    return image, np.full_like(label, np.random.default_rng(seed).integers(200))


def samples(seed=0, batch=4) -> TrainingSamples:
    return TrainingSamples(Reader(), list(range(10)), noted, seed, batch)


def drawn(keyed, start, stop, workers=0, slots=None):
    return [
        (image[:, 0, 0, 0].tolist(), label[:, 0, 0].tolist())
        for image, label in batches(keyed, start, stop, workers, slots)
    ]


def test_a_batch_does_not_depend_on_workers_nor_on_where_the_run_started():
    whole = drawn(samples(), 0, 8)
    assert drawn(samples(), 0, 8, workers=1) == whole
    assert drawn(samples(), 0, 8, workers=2) == whole
    assert drawn(samples(), 5, 8) == whole[5:]


def test_every_epoch_shows_every_image_once_in_a_new_order():
    shown = [index for images, _ in drawn(samples(), 0, 10) for index in images]
    epochs = [shown[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_slots_and_seeds_differ():
    labels = [value for _, values in drawn(samples(), 0, 10) for value in values]
    assert len(set(labels)) > 20
    assert drawn(samples(seed=1), 0, 3) != drawn(samples(seed=0), 0, 3)


def test_batches_hold_tensors_as_the_trainer_takes_them():
    images, labels = next(batches(samples(), 0, 1, 0))
    assert (images.shape, images.dtype) == ((4, 3, 8, 8), torch.uint8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (labels.shape, labels.dtype) == ((4, 8, 8), torch.uint8)


@given(st.integers(0, 1000), st.integers(0, 10**6), st.integers(0, 1000), st.integers(0, 10**6))
def test_iteration_seeds_differ_for_different_keys(seed, iteration, other_seed, other_iteration):
    same = (seed, iteration) == (other_seed, other_iteration)
    assert (iteration_seed(seed, iteration) == iteration_seed(other_seed, other_iteration)) == same


@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_parts_of_all_processes_are_the_batch(number):
    parts = [drawn(samples(), 0, 4, slots=slots_of(rank, number, 4)) for rank in range(number)]
    for iteration, (images, labels) in enumerate(drawn(samples(), 0, 4)):
        assert [image for part in parts for image in part[iteration][0]] == images
        assert [label for part in parts for label in part[iteration][1]] == labels


def test_processes_draw_different_numbers_and_the_first_one_those_of_a_single_process():
    seeds = [iteration_seed(1, 5, rank) for rank in range(4)]
    assert len(set(seeds)) == 4
    assert seeds[0] == iteration_seed(1, 5)

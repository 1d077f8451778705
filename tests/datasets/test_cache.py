import numpy as np
import pytest

from harness.datasets.cache import Cached
from harness.datasets.dataset import Dataset
from harness.errors import UserError


def test_filled_samples_are_read_from_memory(tree: Dataset) -> None:
    samples = tree.samples("train")
    expected = [tree.read(sample) for sample in samples]
    cached = Cached(tree)
    cached.fill(samples)
    for sample in samples:
        sample.image_path.unlink()
    for sample, (image, label) in zip(samples, expected, strict=True):
        held_image, held_label = cached.read(sample)
        assert np.array_equal(held_image, image)
        assert np.array_equal(held_label, label)


def test_other_samples_are_read_from_disk(tree: Dataset) -> None:
    cached = Cached(tree)
    cached.fill(tree.samples("train"))
    sample = tree.samples("val")[0]
    assert np.array_equal(cached.read(sample)[0], tree.read(sample)[0])


def test_the_size_is_four_bytes_a_pixel(tree: Dataset) -> None:
    cached = Cached(tree)
    assert cached.nbytes == 0
    cached.fill(tree.samples("train"))
    assert cached.nbytes == 3 * 10 * 12 * 4


def test_held_arrays_cannot_be_altered(tree: Dataset) -> None:
    cached = Cached(tree)
    cached.fill(tree.samples("train"))
    image, label = cached.read(tree.samples("train")[0])
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        label[0, 0] = 0


def test_a_bad_file_stops_the_filling_with_its_name(tree: Dataset) -> None:
    samples = tree.samples("train")
    samples[1].label_path.write_bytes(b"")
    with pytest.raises(UserError, match=samples[1].label_path.name):
        Cached(tree).fill(samples)

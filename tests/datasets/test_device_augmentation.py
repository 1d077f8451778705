"""The augmentation for a GPU beside the one for a CPU, both on a CPU: it is plain torch."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.datasets.augmentation import Augmentation, nearest_source
from harness.datasets.device_augmentation import DeviceAugmentation, described, packed

PHOTOMETRIC = {"brightness_delta": 32, "contrast_range": (0.5, 1.5), "saturation_range": (0.5, 1.5), "hue_delta": 18}
CPU = torch.device("cpu")
# OpenCV rounds the way from HSV to RGB down in the middle of a row and to the nearest at its end.
LEVELS, PIXELS = 4, 0.03


def picture(height, width, seed):
    """Noise, smooth from left to right, and a label of blocks of five classes, some of them ignored."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (height, 6, 3), dtype=np.uint8), (width, height))
    blocks = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (6, 7))
    return image, cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


def both(augmentation, pictures, seed=0, device=CPU):
    """Images [B, h, w, 3] and labels [B, h, w] of all pictures by the CPU's way and by the device's."""
    keys = [(seed, number) for number in range(len(pictures))]
    expected = [augmentation(image, label, key) for (image, label), key in zip(pictures, keys, strict=True)]
    draws = [augmentation.draw(label, key) for (_, label), key in zip(pictures, keys, strict=True)]
    shapes = [label.shape for _, label in pictures]
    starts = np.cumsum([0] + [height * width for height, width in shapes[:-1]]).tolist()
    parts = (np.concatenate([each[part].ravel() for each in pictures]) for part in (0, 1))
    pixels = packed(*(torch.from_numpy(part).to(device) for part in parts))
    images, labels = DeviceAugmentation(augmentation, device)(pixels, described(draws, starts, shapes).to(device))
    assert images.is_contiguous(memory_format=torch.channels_last)
    found = images.permute(0, 2, 3, 1).cpu().numpy(), labels.cpu().numpy()
    return tuple(np.stack(each) for each in zip(*expected, strict=True)), found


@pytest.mark.parametrize("length", [1, 2, 7, 360, 481])
@pytest.mark.parametrize("size", [1, 3, 100, 360, 721, 960])
def test_the_nearest_pixels_are_opencvs(length, size):
    row = np.arange(length, dtype=np.float32)[None]
    expected = cv2.resize(row, (size, 1), interpolation=cv2.INTER_NEAREST)[0]
    assert nearest_source(length, size).tolist() == expected.tolist()


@given(
    sizes=st.lists(st.tuples(st.integers(5, 90), st.integers(5, 90)), min_size=1, max_size=3), seed=st.integers(0, 99)
)
def test_without_distortion_the_samples_are_the_cpus(sizes, seed):
    """Images of several sizes, smaller and larger than the crop, flipped and padded."""
    pictures = [picture(height, width, seed + number) for number, (height, width) in enumerate(sizes)]
    (images, labels), (found, found_labels) = both(Augmentation((40, 48), pad=(1, 2, 3)), pictures, seed)
    assert np.array_equal(found_labels, labels)
    assert np.array_equal(found, images)


@pytest.mark.slow
def test_distorted_colours_differ_by_few_levels_in_few_pixels():
    pictures = [picture(120, 160, seed) for seed in range(24)]
    (images, labels), (found, found_labels) = both(Augmentation((100, 128), photometric=PHOTOMETRIC), pictures)
    assert np.array_equal(found_labels, labels)
    apart = np.abs(found.astype(int) - images)
    assert apart.max() <= LEVELS
    assert (apart > 0).any(-1).mean() <= PIXELS


def test_every_step_of_the_distortion_was_there_and_alone():
    """The draws of the test above, so that a step which is never drawn is not passed over."""
    augmentation = Augmentation((100, 128), photometric=PHOTOMETRIC)
    drawn = [augmentation.draw(picture(120, 160, number)[1], (0, number)) for number in range(24)]
    for step in ("before", "saturation", "hue", "after"):
        assert 0 < sum(getattr(draws, step) is not None for draws in drawn) < len(drawn)
    assert 0 < sum(draws.flipped for draws in drawn) < len(drawn)


def test_an_image_without_any_draw_stays_as_it_is():
    image, label = picture(30, 41, 0)
    plain = Augmentation((30, 41), scale=(1, 1), flip=0, cat_max_ratio=1)
    (_, _), (found, found_labels) = both(plain, [(image, label)])
    assert np.array_equal(found[0], image)
    assert np.array_equal(found_labels[0], label)


@pytest.mark.gpu
@pytest.mark.parametrize("photometric", [None, PHOTOMETRIC])
def test_on_a_gpu_it_is_the_same(photometric):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    pictures = [picture(120 + number, 160, number) for number in range(16)]
    augmentation = Augmentation((100, 128), photometric=photometric)
    (images, labels), (found, found_labels) = both(augmentation, pictures, device=torch.device("cuda"))
    assert np.array_equal(found_labels, labels)
    apart = np.abs(found.astype(int) - images)
    assert apart.max() <= (LEVELS if photometric else 0)
    assert (apart > 0).any(-1).mean() <= PIXELS

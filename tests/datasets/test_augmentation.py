import random
import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmseg.registry import TRANSFORMS
from numpy.typing import NDArray

from harness.datasets import augmentation
from harness.datasets.augmentation import Augmentation
from harness.errors import UserError

PHOTOMETRIC = {"brightness_delta": 32, "contrast_range": (0.5, 1.5), "saturation_range": (0.5, 1.5), "hue_delta": 18}
Array = NDArray[np.uint8]


def noise(height, width, seed=0):
    """A picture of smooth colours and a label of random blocks."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), (width, height))
    label = cv2.resize(
        rng.integers(0, 11, (5, 6), dtype=np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.asarray(image, np.uint8), np.asarray(label, np.uint8)


# randomness


def test_the_result_depends_on_the_arguments_alone():
    augment, again = (Augmentation((32, 48), photometric=PHOTOMETRIC) for _ in range(2))
    image, label = noise(40, 60)
    expected = [augment(image, label, seed=(0, 7, k)) for k in range(8)]
    again(*noise(90, 50), seed=(1,))  # an image of another size in between
    for k in reversed(range(8)):
        np.random.seed(k)  # noqa: NPY002
        random.seed(k)
        torch.manual_seed(k)
        cv2.setRNGSeed(k)
        found = again(image, label, seed=(0, 7, k))
        assert np.array_equal(found[0], expected[k][0])
        assert np.array_equal(found[1], expected[k][1])


def test_the_global_generators_are_left_as_they_were():
    augment = Augmentation((32, 48), photometric=PHOTOMETRIC)
    image, label = noise(40, 60)
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    augment(image, label, seed=(1,))
    with pytest.raises(Exception):  # noqa: B017
        augment(image.astype(str), label, seed=(1,))  # type: ignore[arg-type]
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_inputs_are_not_altered():
    image, label = noise(40, 60)
    image.setflags(write=False)
    label.setflags(write=False)
    augment = Augmentation((40, 60), scale=(1.0, 1.0), photometric=PHOTOMETRIC, cat_max_ratio=1.0)
    for seed in range(10):
        found = augment(image, label, seed=(seed,))
        assert not np.shares_memory(found[0], image)
        assert not np.shares_memory(found[1], label)


# each step


@given(height=st.integers(20, 90), width=st.integers(20, 90), seed=st.integers(0, 2**32))
def test_image_and_label_stay_aligned(height, width, seed):
    _, label = noise(height, width, seed)
    image = np.stack([label * 20 + 5, 250 - label * 20, label * 7], axis=-1)
    pad = (1, 2, 3)
    found, train_ids = Augmentation((48, 64), pad=pad)(image, label, seed=(seed,))
    valid = train_ids != 255
    expected = np.stack([train_ids * 20 + 5, 250 - train_ids * 20, train_ids * 7], axis=-1)
    expected[~valid] = pad
    around = np.ones((7, 7))
    inside = cv2.dilate(train_ids, around) == cv2.erode(train_ids, around)  # away from boundaries, also those that
    inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False  # lie just outside the crop
    assert inside.any()
    assert np.array_equal(found[inside], expected[inside])
    assert np.array_equal(found[~valid], expected[~valid])


def test_labels_are_never_interpolated():
    label = np.where(noise(40, 60)[1] % 2 == 0, 0, 200).astype(np.uint8)
    label[:5, :5] = 255
    image = np.zeros((40, 60, 3), np.uint8)
    augment = Augmentation((50, 70), photometric=PHOTOMETRIC)
    for seed in range(50):
        assert set(np.unique(augment(image, label, seed=(seed,))[1])) <= {0, 200, 255}


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    ignored=st.floats(0, 1),
    most=st.sampled_from([0.01, 0.3, 0.5, 0.75, 0.9]),
    seed=st.integers(0, 99),
)
def test_a_crop_is_mixed_as_counting_every_class_says(shape, weights, ignored, most, seed):
    rng = np.random.default_rng(seed)
    shares = np.array([*weights, ignored + 1e-9])
    label = rng.choice([*range(len(weights)), 255], shape, p=shares / shares.sum()).astype(np.uint8)
    counts = np.bincount(label[label != 255], minlength=1)
    expected = np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < most
    assert augmentation._is_mixed(label, most) == expected


def test_an_ignored_image_is_cropped_without_a_warning():
    image, label = noise(40, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Augmentation((20, 20), cat_max_ratio=0.75)(image, np.full_like(label, 255), (0,))
    assert (found[1] == 255).all()


def test_what_lies_beyond_the_image_is_the_mean_and_ignored():
    image, label = noise(10, 12)
    found, train_ids = Augmentation((20, 30), scale=(1.0, 1.0), flip=0.0, pad=(123.675, 116.28, 103.53))(
        image, label, (0,)
    )
    assert np.array_equal(found[:10, :12], image)
    assert np.array_equal(train_ids[:10, :12], label)
    outside = np.ones((20, 30), bool)
    outside[:10, :12] = False
    assert (found[outside] == (124, 116, 104)).all()
    assert (train_ids[outside] == 255).all()


@pytest.mark.parametrize(
    ("crop", "cat_max_ratio", "flip"),
    [((32, 48), 0.75, 0.5), ((20, 90), 0.3, 0.9), ((90, 16), 1.0, 0.0), ((16, 16), 0.01, 0.5)],
)
def test_it_is_mmsegmentations_pipeline_on_bgr(crop, cat_max_ratio, flip):
    """What mmsegmentation's configurations do with images that OpenCV reads, transform by transform."""
    image, label = noise(40, 60)
    label[3:9, 5:50] = 255
    pipeline = Compose(
        [
            {"type": "RandomResize", "scale": (60, 40), "ratio_range": (0.5, 2.0), "keep_ratio": True},
            {"type": "mmseg.RandomCrop", "crop_size": crop, "cat_max_ratio": cat_max_ratio},
            {"type": "RandomFlip", "prob": flip},
            {"type": "mmseg.PhotoMetricDistortion", **PHOTOMETRIC},
        ]
    )
    augment = Augmentation(crop, photometric=PHOTOMETRIC, cat_max_ratio=cat_max_ratio, flip=flip)
    for seed in range(50):
        np.random.seed(np.random.SeedSequence((3, seed)).generate_state(8))  # noqa: NPY002
        theirs = pipeline({"img": image[..., ::-1].copy(), "gt_seg_map": label, "seg_fields": ["gt_seg_map"]})
        found, train_ids = augment(image, label, seed=(3, seed))
        height, width = theirs["gt_seg_map"].shape
        assert np.array_equal(found[:height, :width], theirs["img"][..., ::-1])
        assert np.array_equal(train_ids[:height, :width], theirs["gt_seg_map"])


def test_every_colour_is_distorted_as_mmsegmentation_does():
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    bgr = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    distort = TRANSFORMS.build({"type": "PhotoMetricDistortion", **PHOTOMETRIC})
    augment = Augmentation(bgr.shape[:2], scale=(1.0, 1.0), flip=0.0, cat_max_ratio=1.0, photometric=PHOTOMETRIC)
    for seed in range(40):
        found, _ = augment(np.ascontiguousarray(bgr[..., ::-1]), bgr[..., 0], seed=(seed,))
        np.random.seed(np.random.SeedSequence((seed,)).generate_state(8))  # noqa: NPY002
        np.random.random_sample()  # the scale  # noqa: NPY002
        for _ in range(2):
            np.random.randint(0, 1)  # the crop, which draws nothing from a range of one  # noqa: NPY002
        np.random.choice(2, p=[0.0, 1.0])  # the flip  # noqa: NPY002
        assert np.array_equal(found[..., ::-1], distort({"img": bgr})["img"])


def test_a_hue_delta_of_zero_is_refused():
    with pytest.raises(UserError, match=r"photometric\.hue_delta must be at least 1"):
        Augmentation((8, 8), photometric={"hue_delta": 0})

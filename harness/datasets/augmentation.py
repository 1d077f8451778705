"""Training augmentation: mmsegmentation's transforms, with randomness that is a function of a seed."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError

with contextlib.redirect_stdout(io.StringIO()):  # mmsegmentation prints a line about an optional package
    from mmcv.transforms import RandomFlip, RandomResize
    from mmseg.datasets.transforms import PhotoMetricDistortion, RandomCrop

IGNORE_INDEX = 255
IMAGENET_MEAN = (123.675, 116.28, 103.53)


class Augmentation:
    """Random resize, crop, horizontal flip and photometric distortion, then padding, as mmsegmentation trains.

    crop: (height, width) in pixels of what comes out.
    scale: (lowest, highest) factor of the image's own size, drawn uniformly; the aspect ratio is kept.
    flip: probability of a horizontal flip.
    photometric: options of PhotoMetricDistortion (brightness_delta, contrast_range, saturation_range, hue_delta; those
        left out have its defaults), or None for no distortion.
    cat_max_ratio: a crop in which one class holds this share of the valid pixels or more is drawn again, up to ten
        times; 1 takes the first.
    pad: RGB value, 0..255, of image pixels beyond the image, at the right and the bottom where the resized image is
        smaller than the crop. mmsegmentation pads with 0 after normalisation, which is the model's mean; here that is
        rounded to whole values. The label is padded with 255.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        flip: float = 0.5,
        photometric: Mapping[str, Any] | None = None,
        cat_max_ratio: float = 0.75,
        pad: Sequence[float] = IMAGENET_MEAN,
    ) -> None:
        if photometric is not None and photometric.get("hue_delta", 1) < 1:
            raise UserError("photometric.hue_delta must be at least 1: set photometric to null for no distortion")
        self.crop = (int(crop[0]), int(crop[1]))
        self.pad = np.rint(pad).astype(np.uint8)
        self._resize = RandomResize(scale=(1, 1), ratio_range=tuple(scale), keep_ratio=True)
        self._crop = RandomCrop(self.crop, cat_max_ratio=cat_max_ratio, ignore_index=IGNORE_INDEX)
        self._flip = RandomFlip(prob=float(flip), direction="horizontal")
        self._distort = None if photometric is None else PhotoMetricDistortion(**photometric)

    def __call__(
        self, image: NDArray[np.uint8], label: NDArray[np.uint8], seed: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment image uint8 [H, W, 3] RGB and label uint8 [H, W] to [h, w, 3] and [h, w] of the crop's size.

        The result depends on the arguments alone: `seed`, integers >= 0, seeds numpy's global generator, from which
        all of the transforms draw, and the generator's state is put back. Not to be called by two threads at once.
        """
        height, width = label.shape
        sample = {"img": image, "gt_seg_map": label, "seg_fields": ["gt_seg_map"]}
        self._resize.scale = (width, height)
        with _seeded(seed):
            sample = self._flip(self._crop(self._resize(sample)))
            if self._distort is not None:
                sample["img"] = _swap_red_and_blue(sample["img"])  # it converts BGR to HSV and back
                sample["img"] = _swap_red_and_blue(self._distort(sample)["img"])
        return self._padded(sample["img"], sample["gt_seg_map"])

    def _padded(
        self, image: NDArray[np.uint8], label: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        height, width = label.shape
        if (height, width) == self.crop:
            return np.ascontiguousarray(image), np.ascontiguousarray(label)
        full_image = np.empty((*self.crop, 3), np.uint8)
        full_image[:] = self.pad
        full_image[:height, :width] = image
        full_label = np.full(self.crop, IGNORE_INDEX, np.uint8)
        full_label[:height, :width] = label
        return full_image, full_label


def _swap_red_and_blue(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[..., ::-1])


@contextlib.contextmanager
def _seeded(seed: Sequence[int]) -> Iterator[None]:
    """Seed numpy's global generator for the block, and put its state back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(np.random.SeedSequence(seed).generate_state(8))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002

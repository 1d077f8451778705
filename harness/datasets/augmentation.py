"""Training augmentation: mmsegmentation's transforms, with randomness that is a function of a seed."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.datasets.spec import IGNORE_INDEX
from harness.errors import UserError

with contextlib.redirect_stdout(io.StringIO()):  # mmsegmentation prints a line about an optional package
    from mmcv.transforms import RandomResize
    from mmseg.datasets.transforms import PhotoMetricDistortion

CROPS = 10  # that are drawn again at most
IMAGENET_MEAN = (123.675, 116.28, 103.53)


class Augmentation:
    """Random resize, crop, horizontal flip and photometric distortion, then padding, as mmsegmentation trains.

    crop: (height, width) in pixels of what comes out.
    scale: (lowest, highest) factor of the image's own size, drawn uniformly; the aspect ratio is kept.
    fit: long and short side in pixels of a box; the factor is of the largest size of the image inside it. None: of its
        own size.
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
        fit: tuple[int, int] | None = None,
    ) -> None:
        if photometric is not None and photometric.get("hue_delta", 1) < 1:
            raise UserError("photometric.hue_delta must be at least 1: set photometric to null for no distortion")
        self.crop = (int(crop[0]), int(crop[1]))
        self.flip = float(flip)
        self.cat_max_ratio = cat_max_ratio
        self.fit = fit
        self.pad = tuple(np.rint(pad).astype(int).tolist())
        self._resize = RandomResize(scale=(1, 1), ratio_range=tuple(scale), keep_ratio=True)
        self._distort = None if photometric is None else _Distortion(**photometric)

    def __call__(
        self, image: NDArray[np.uint8], label: NDArray[np.uint8], seed: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment image uint8 [H, W, 3] RGB and label uint8 [H, W] to [h, w, 3] and [h, w] of the crop's size.

        The result depends on the arguments alone: `seed`, integers >= 0, seeds numpy's global generator, from which
        all of the transforms draw, and the generator's state is put back. Not to be called by two threads at once.
        """
        sample = {"img": image, "gt_seg_map": label, "seg_fields": ["gt_seg_map"]}
        self._resize.scale = self.fit or label.shape[::-1]
        with _seeded(seed):
            try:
                sample = self._resize(sample)
            except cv2.error:
                height, width = label.shape
                raise UserError(
                    f"an image of {width}x{height} (width x height) times a factor of schedule.scale is less than a "
                    "pixel high or wide: raise schedule.scale"
                ) from None
            window = self._window(sample["gt_seg_map"])
            image, label = sample["img"][window], sample["gt_seg_map"][window]
            if np.random.choice(2, p=[self.flip, 1 - self.flip]) == 0:  # noqa: NPY002
                image, label = (np.asarray(cv2.flip(array, 1), np.uint8) for array in (image, label))
            if self._distort is not None:
                image = self._distort.rgb(image)
        return self._padded(image, self.pad), self._padded(label, (IGNORE_INDEX,))

    def _window(self, label: NDArray[np.uint8]) -> tuple[slice, slice]:
        """Where to crop: mmsegmentation's RandomCrop with the same draws, but classes are counted without sorting."""
        window = self._draw_window(label)
        for _ in range(CROPS if self.cat_max_ratio < 1 else 0):
            counts = cv2.calcHist([label[window]], [0], None, [256], [0, 256])[:IGNORE_INDEX]
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum(dtype=np.int64) < self.cat_max_ratio:
                break
            window = self._draw_window(label)
        return window

    def _draw_window(self, label: NDArray[np.uint8]) -> tuple[slice, slice]:
        margins = [max(size - cropped, 0) for size, cropped in zip(label.shape, self.crop, strict=True)]
        y, x = (np.random.randint(0, margin + 1) for margin in margins)  # noqa: NPY002
        return slice(y, y + self.crop[0]), slice(x, x + self.crop[1])

    def _padded(self, array: NDArray[np.uint8], value: tuple[int, ...]) -> NDArray[np.uint8]:
        height, width = array.shape[:2]
        if (height, width) == self.crop:
            return np.ascontiguousarray(array)
        below, right = self.crop[0] - height, self.crop[1] - width
        return np.asarray(cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value), np.uint8)


class _Distortion(PhotoMetricDistortion):
    """mmsegmentation's, with what it does to a pixel done once to each of the 256 values and looked up."""

    def rgb(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Distort an RGB image: the steps themselves are written for BGR."""
        bgr = self({"img": cv2.cvtColor(image, cv2.COLOR_RGB2BGR)})["img"]
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def convert(self, img: NDArray[np.uint8], alpha: float = 1, beta: float = 0) -> NDArray[np.uint8]:
        """`img` times `alpha` plus `beta`, cut off at 0 and 255."""
        return np.asarray(cv2.LUT(img, super().convert(np.arange(256, dtype=np.uint8), alpha, beta)), np.uint8)

    def hue(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn the hue of BGR `img` by a whole number of OpenCV's 180 steps, or leave it."""
        if not np.random.randint(2):  # noqa: NPY002
            return img
        turned = (np.arange(256) + np.random.randint(-self.hue_delta, self.hue_delta)) % 180  # noqa: NPY002
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = cv2.LUT(hsv[..., 0], turned.astype(np.uint8))
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


@contextlib.contextmanager
def _seeded(seed: Sequence[int]) -> Iterator[None]:
    """Seed numpy's global generator for the block, and put its state back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(np.random.SeedSequence(seed).generate_state(8))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002

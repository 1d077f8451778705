"""Training augmentation: mmsegmentation's transforms, with randomness that is a function of a seed.

What chance decides of a sample (`Draws`) is drawn apart from what is done to its pixels, so that the same draws can be
applied here, by OpenCV, and by a GPU (`device_augmentation`).
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.datasets.spec import IGNORE_INDEX
from harness.errors import UserError

CROPS = 10  # that are drawn again at most
IMAGENET_MEAN = (123.675, 116.28, 103.53)
VALUES = np.arange(256, dtype=np.uint8)
HUES = 180  # OpenCV's hues are 0..179
_own = threading.local()

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Draws:
    """What chance decides of one sample. A table maps a value to another one; None where nothing is done."""

    size: tuple[int, int]  # height and width of the whole image, resized
    corner: tuple[int, int]  # top and left of the crop in it
    flipped: bool
    before: Bytes | None = None  # of the values of R, G and B, before saturation and hue change
    saturation: Bytes | None = None
    hue: Bytes | None = None
    after: Bytes | None = None  # of R, G and B again, at last

    def window(self, crop: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the resized image that a crop of this height and width shows, before it is flipped."""
        ends = (min(start + length, end) for start, length, end in zip(self.corner, crop, self.size, strict=True))
        rows, columns = (slice(start, end) for start, end in zip(self.corner, ends, strict=True))
        return rows, columns


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
        self.scale = (float(scale[0]), float(scale[1]))
        self.flip = float(flip)
        self.cat_max_ratio = cat_max_ratio
        self.fit = fit
        self.pad = tuple(np.rint(pad).astype(int).tolist())
        self._distortion = None if photometric is None else _Distortion(**photometric)

    @property
    def distorts(self) -> bool:
        """Whether colours may be distorted."""
        return self._distortion is not None

    def __call__(self, image: Bytes, label: Bytes, seed: Sequence[int]) -> tuple[Bytes, Bytes]:
        """Augment image uint8 [H, W, 3] RGB and label uint8 [H, W] to [h, w, 3] and [h, w] of the crop's size.

        The result depends on the arguments alone; `seed` are integers >= 0.
        """
        draws = self.draw(label, seed)
        return self._of_image(image, draws), self._of_label(label, draws)

    def draw(self, label: Bytes, seed: Sequence[int]) -> Draws:
        """What chance decides of the sample with this label, as mmsegmentation's transforms draw it one by one."""
        rng = _seeded(seed)
        size = self._draw_size(label.shape, rng)
        corner = self._draw_corner(label, size, rng)
        flipped = bool(rng.random_sample() < self.flip)
        tables = () if self._distortion is None else self._distortion.draw(rng)
        return Draws(size, corner, flipped, *tables)

    def _draw_size(self, shape: tuple[int, ...], rng: np.random.RandomState) -> tuple[int, int]:
        """Height and width: the largest of the image's aspect in a box that is a random factor of `fit` or its own."""
        height, width = shape
        lowest, highest = self.scale
        ratio = rng.random_sample() * (highest - lowest) + lowest
        box = [int(side * ratio) for side in self.fit or (width, height)]
        factor = min(max(box) / max(height, width), min(box) / min(height, width))
        size = int(height * factor + 0.5), int(width * factor + 0.5)
        if min(size) < 1:
            raise UserError(
                f"an image of {width}x{height} (width x height) times a factor of schedule.scale is less than a "
                "pixel high or wide: raise schedule.scale"
            )
        return size

    def _draw_corner(self, label: Bytes, size: tuple[int, int], rng: np.random.RandomState) -> tuple[int, int]:
        """Where to crop: as mmsegmentation's RandomCrop, but classes are counted without sorting."""
        corner = self._any_corner(size, rng)
        for _ in range(CROPS if self.cat_max_ratio < 1 else 0):
            crop = _crop_of_label(label, Draws(size, corner, flipped=False), self.crop)
            if _is_mixed(crop, self.cat_max_ratio):
                break
            corner = self._any_corner(size, rng)
        return corner

    def _any_corner(self, size: tuple[int, int], rng: np.random.RandomState) -> tuple[int, int]:
        top, left = (rng.randint(0, max(side - crop, 0) + 1) for side, crop in zip(size, self.crop, strict=True))
        return top, left

    def _of_image(self, image: Bytes, draws: Draws) -> Bytes:
        resized = cv2.resize(image, draws.size[::-1], interpolation=cv2.INTER_LINEAR)[draws.window(self.crop)]
        if draws.flipped:
            resized = cv2.flip(resized, 1)
        if draws.before is not None:
            resized = cv2.LUT(resized, draws.before)
        for channel, table in ((1, draws.saturation), (0, draws.hue)):  # each from whole values to whole values
            if table is not None:
                hsv = cv2.cvtColor(resized, cv2.COLOR_RGB2HSV)
                hsv[..., channel] = cv2.LUT(hsv[..., channel], table)
                resized = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if draws.after is not None:
            resized = cv2.LUT(resized, draws.after)
        return self._padded(np.asarray(resized, np.uint8), self.pad)

    def _of_label(self, label: Bytes, draws: Draws) -> Bytes:
        crop = _crop_of_label(label, draws, self.crop)
        return self._padded(crop[:, ::-1] if draws.flipped else crop, (IGNORE_INDEX,))

    def _padded(self, array: Bytes, value: tuple[int, ...]) -> Bytes:
        height, width = array.shape[:2]
        array = np.ascontiguousarray(array)
        if (height, width) == self.crop:
            return array
        below, right = self.crop[0] - height, self.crop[1] - width
        return np.asarray(cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value), np.uint8)


@dataclass(frozen=True)
class _Distortion:
    """mmsegmentation's PhotoMetricDistortion: each step is done with probability 1/2, contrast first or last."""

    brightness_delta: float = 32
    contrast_range: tuple[float, float] = (0.5, 1.5)
    saturation_range: tuple[float, float] = (0.5, 1.5)
    hue_delta: int = 18

    def draw(self, rng: np.random.RandomState) -> tuple[Bytes | None, ...]:
        """The tables of `Draws`, in its order."""
        before = after = saturation = hue = None
        if rng.randint(2):
            before = _scaled(VALUES, 1, rng.uniform(-self.brightness_delta, self.brightness_delta))
        contrast_is_first = rng.randint(2)
        if contrast_is_first and rng.randint(2):
            before = _scaled(VALUES if before is None else before, rng.uniform(*self.contrast_range))
        if rng.randint(2):
            saturation = _scaled(VALUES, rng.uniform(*self.saturation_range))
        if rng.randint(2):
            hue = ((np.arange(256) + rng.randint(-self.hue_delta, self.hue_delta)) % HUES).astype(np.uint8)
        if not contrast_is_first and rng.randint(2):
            after = _scaled(VALUES, rng.uniform(*self.contrast_range))
        return before, saturation, hue, after


def _seeded(seed: Sequence[int]) -> np.random.RandomState:
    """A generator of the thread's own, seeded: a new one would first ask the system for a seed, which takes longer."""
    if not hasattr(_own, "generator"):
        _own.generator = np.random.RandomState()
    generator: np.random.RandomState = _own.generator
    generator.seed(np.random.SeedSequence(seed).generate_state(8))
    return generator


def _scaled(values: Bytes, factor: float, offset: float = 0) -> Bytes:
    """Values times `factor` plus `offset`, cut off at 0 and 255 and to whole numbers."""
    return np.clip(values.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


def _crop_of_label(label: Bytes, draws: Draws, crop: tuple[int, int]) -> Bytes:
    """The crop of the label, resized to its nearest pixels, without flip and padding."""
    rows, columns = (
        nearest_source(length, size)[window]
        for length, size, window in zip(label.shape, draws.size, draws.window(crop), strict=True)
    )
    # Whole rows are copied at once, and columns are the rows of the transposed array.
    transposed = cv2.transpose(label.take(rows, 0, mode="clip"))
    return np.asarray(cv2.transpose(transposed.take(columns, 0, mode="clip")), np.uint8)


def _is_mixed(label: Bytes, most: float) -> bool:
    """Whether there is more than one class, and none that holds `most`, or more, of the valid pixels."""
    valid = label.size - np.count_nonzero(label == IGNORE_INDEX)
    likely = np.bincount(label[::8, ::8].ravel(), minlength=256)[:IGNORE_INDEX].argmax()  # the commonest one, perhaps
    held = np.count_nonzero(label == likely)
    if held == valid or held / valid >= most:
        return False
    if (valid - held) / valid < most:  # so does every other class, and nothing is left to count
        return True
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])[:IGNORE_INDEX]
    return bool(np.count_nonzero(counts) > 1 and counts.max() / valid < most)


def nearest_source(length: int, size: int) -> NDArray[np.int64]:
    """Which of `length` pixels in a row each of `size` is, resized as OpenCV's INTER_NEAREST does."""
    return np.minimum(np.arange(size) * (1 / (size / length)), length - 1).astype(np.int64)

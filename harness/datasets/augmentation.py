"""Training augmentation: mmsegmentation's transforms as a deterministic function of a seed.

A sample's random decisions (`Draws`) are drawn first and then applied, by OpenCV here or on a GPU
(`device_augmentation`).
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

CROPS = 10  # a crop is redrawn at most so often
IMAGENET_MEAN = (123.675, 116.28, 103.53)
VALUES = np.arange(256, dtype=np.uint8)
HUES = 180  # OpenCV's hues are 0..179
_own = threading.local()

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Draws:
    """The random decisions for a sample. Tables map pixel values to pixel values; None means no change."""

    size: tuple[int, int]  # height and width of the whole image, resized
    corner: tuple[int, int]  # top and left of the crop in it
    flipped: bool
    before: Bytes | None = None  # of R, G and B, before saturation and hue
    saturation: Bytes | None = None
    hue: Bytes | None = None
    after: Bytes | None = None  # of R, G and B again, last

    def window(self, crop: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a crop (height, width) in the resized image, before the flip."""
        ends = (min(start + length, end) for start, length, end in zip(self.corner, crop, self.size, strict=True))
        rows, columns = (slice(start, end) for start, end in zip(self.corner, ends, strict=True))
        return rows, columns


class Augmentation:
    """Random resize, crop, horizontal flip, photometric distortion and padding, as in mmsegmentation.

    crop: output (height, width) in pixels.
    scale: (lowest, highest) resize factor, drawn uniformly, of the image's size or, with `fit`, of its largest size
        inside that box (long and short side in pixels). The aspect ratio is kept.
    flip: probability of a horizontal flip.
    photometric: options of PhotoMetricDistortion, or None for no distortion.
    cat_max_ratio: a crop in which one class has at least this share of the valid pixels is redrawn, up to ten times.
    pad: RGB, 0..255, at the right and bottom of images smaller than the crop. mmsegmentation pads with 0 after
        normalisation, which is the mean; here it is rounded to integers. Labels are padded with 255.
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
        """Whether photometric distortion is on."""
        return self._distortion is not None

    def __call__(self, image: Bytes, label: Bytes, seed: Sequence[int]) -> tuple[Bytes, Bytes]:
        """Image uint8 [H, W, 3] RGB and label uint8 [H, W], augmented to the crop's [h, w, 3] and [h, w].

        The result depends only on the arguments; `seed` are integers >= 0.
        """
        draws = self.draw(label, seed)
        return self._of_image(image, draws), self._of_label(label, draws)

    def draw(self, label: Bytes, seed: Sequence[int]) -> Draws:
        """The random decisions for the sample with this label, in the order of mmsegmentation's transforms."""
        rng = _seeded(seed)
        size = self._draw_size(label.shape, rng)
        corner = self._draw_corner(label, size, rng)
        flipped = bool(rng.random_sample() < self.flip)
        tables = () if self._distortion is None else self._distortion.draw(rng)
        return Draws(size, corner, flipped, *tables)

    def _draw_size(self, shape: tuple[int, ...], rng: np.random.RandomState) -> tuple[int, int]:
        """Height and width of the resized image: the largest inside a randomly scaled `fit` or image box."""
        height, width = shape
        lowest, highest = self.scale
        ratio = rng.random_sample() * (highest - lowest) + lowest
        box = [int(side * ratio) for side in self.fit or (width, height)]
        factor = min(max(box) / max(height, width), min(box) / min(height, width))
        size = int(height * factor + 0.5), int(width * factor + 0.5)
        if min(size) < 1:
            raise UserError(
                f"schedule.scale makes an image of {width}x{height} (width x height) smaller than a pixel: raise it"
            )
        return size

    def _draw_corner(self, label: Bytes, size: tuple[int, int], rng: np.random.RandomState) -> tuple[int, int]:
        """Top left corner of the crop: mmsegmentation's RandomCrop, counting classes without sorting."""
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
        for channel, table in ((1, draws.saturation), (0, draws.hue)):  # each rounds to 8 bits, as in mmsegmentation
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
    """mmsegmentation's PhotoMetricDistortion: each step with probability 1/2; contrast is the first or last step."""

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
    """The thread's generator, reseeded; a new one would first be seeded by the system, which is slower."""
    if not hasattr(_own, "generator"):
        _own.generator = np.random.RandomState()
    generator: np.random.RandomState = _own.generator
    generator.seed(np.random.SeedSequence(seed).generate_state(8))
    return generator


def _scaled(values: Bytes, factor: float, offset: float = 0) -> Bytes:
    """Values times `factor` plus `offset`, clipped to 0..255 and truncated."""
    return np.clip(values.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)


def _crop_of_label(label: Bytes, draws: Draws, crop: tuple[int, int]) -> Bytes:
    """The crop of the label resized by nearest neighbour, before flip and padding."""
    rows, columns = (
        nearest_source(length, size)[window]
        for length, size, window in zip(label.shape, draws.size, draws.window(crop), strict=True)
    )
    # Copying rows is fast, so columns are copied as rows of the transpose.
    transposed = cv2.transpose(label.take(rows, 0, mode="clip"))
    return np.asarray(cv2.transpose(transposed.take(columns, 0, mode="clip")), np.uint8)


def _is_mixed(label: Bytes, most: float) -> bool:
    """Whether there are several classes and none has a share of `most` or more of the valid pixels."""
    valid = label.size - np.count_nonzero(label == IGNORE_INDEX)
    likely = np.bincount(label[::8, ::8].ravel(), minlength=256)[:IGNORE_INDEX].argmax()  # probably the most common
    held = np.count_nonzero(label == likely)
    if held == valid or held / valid >= most:
        return False
    if (valid - held) / valid < most:  # no other class can have more
        return True
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])[:IGNORE_INDEX]
    return bool(np.count_nonzero(counts) > 1 and counts.max() / valid < most)


def nearest_source(length: int, size: int) -> NDArray[np.int64]:
    """Source indices for resizing a row of `length` pixels to `size` as OpenCV's INTER_NEAREST does."""
    return np.minimum(np.arange(size) * (1 / (size / length)), length - 1).astype(np.int64)

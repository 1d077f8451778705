"""Label maps and errors as pictures."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from harness import datasets
from harness.datasets import Dataset

WRONG = (213, 94, 0)
STRIPES = (70, 110)  # grey levels of ignored pixels
FRAME = (0, 0, 0), (255, 255, 255)  # outer and inner line, so that one is visible on any picture

Pixels = NDArray[np.uint8]
Window = tuple[slice, slice]


def painted(labels: Pixels, dataset: Dataset) -> Pixels:
    """Labels uint8 [H, W] in the classes' colours, uint8 [H, W, 3]; ignored pixels are striped."""
    table = np.zeros((256, 3), np.uint8)
    table[: dataset.num_classes] = dataset.colors
    picture = table[labels]
    ignored = labels == dataset.ignore_index
    picture[ignored] = _striped(labels.shape)[ignored]
    return picture


def errors(image: Pixels, prediction: Pixels, label: Pixels) -> Pixels:
    """The image [H, W, 3] in pale grey, wrong pixels in one colour, ignored ones (255 in `label`) striped."""
    grey = 120 + 0.5 * image.mean(axis=-1, keepdims=True)
    picture = np.repeat(grey.round().astype(np.uint8), 3, axis=-1)
    picture[prediction != label] = WRONG
    ignored = label == datasets.IGNORE_INDEX
    picture[ignored] = _striped(label.shape)[ignored]
    return picture


def framed(picture: Pixels, window: Window) -> Pixels:
    """A copy of a picture [H, W, 3] with a frame along the inside of a window."""
    copy = np.array(picture)
    thickness = max(1, picture.shape[1] // 130)
    rows, columns = window
    for color, inset in zip(FRAME, (0, thickness), strict=True):
        edge = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        inner = inset + thickness
        edge[inner:-inner, inner:-inner] = False
        edge[:inset], edge[len(edge) - inset :] = False, False
        edge[:, :inset], edge[:, edge.shape[1] - inset :] = False, False
        copy[rows, columns][edge] = color
    return copy


def best_window(weights: NDArray[np.bool_], share: float = 0.25) -> Window:
    """The window of `share` of the height and width of a map [H, W] that contains the most true pixels."""
    height, width = weights.shape
    tall, wide = max(1, round(share * height)), max(1, round(share * width))
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = weights.cumsum(0).cumsum(1)
    inside = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(top), int(top) + tall), slice(int(left), int(left) + wide)


def narrowed(picture: Pixels, widest: int) -> Pixels:
    """A picture uint8 [H, W, 3], scaled down to at most `widest` pixels of width."""
    if picture.shape[1] <= widest:
        return picture
    height = round(picture.shape[0] * widest / picture.shape[1])
    return np.asarray(cv2.resize(picture, (widest, height), interpolation=cv2.INTER_AREA), np.uint8)


def stripes(shape: Sequence[int]) -> NDArray[np.bool_]:
    """The mask [H, W] of pale diagonal stripes, wide enough to be visible in a small picture."""
    height, width = shape
    thickness = max(2, width // 80)
    return np.asarray(np.add.outer(np.arange(height), np.arange(width)) // thickness % 2 == 1)


def _striped(shape: Sequence[int]) -> Pixels:
    dark, pale = STRIPES
    return np.repeat(np.where(stripes(shape)[..., None], pale, dark).astype(np.uint8), 3, axis=-1)

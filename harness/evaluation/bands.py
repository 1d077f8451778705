"""Boundary bands of a label map, for all classes and all widths at once.

A pixel of class c is in the band of radius d of its class if some pixel of another label is at a Chebyshev distance of
at most d (Cheng et al., "Boundary IoU", CVPR 2021), that is, if the minimum and maximum label in the (2d + 1)-square
around it differ. Nothing is eroded class by class, so the cost does not grow with the number of classes.

One map of levels covers several radii: a pixel of level i is in the bands of `radii[i:]` only; a pixel of level
`len(radii)` is in none.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.datasets.spec import IGNORE_INDEX as IGNORED


def radius(width: str, height: int, image_width: int) -> int:
    """The radius in pixels of the band width called `width` in an image of `height` x `image_width` pixels.

    `width` is a number of pixels ("3px") or a share of the image's diagonal ("0.02"), rounded, at least one pixel.
    Raises ValueError for anything else.
    """
    try:
        if width.endswith("px"):
            pixels = int(width.removesuffix("px"))
            if pixels >= 1:
                return pixels
        elif 0 < float(width) < 1:
            return max(1, round(float(width) * float(np.hypot(height, image_width))))
    except ValueError:
        pass
    raise ValueError(f"{width!r} is no band width: give pixels, such as '3px', or a share of the diagonal, as '0.02'")


def edge_levels(labels: NDArray[np.uint8], radii: Sequence[int], ignore_edge: bool = True) -> NDArray[np.uint8]:
    """Levels by the distance to the nearest pixel with another label; the image's border is no edge.

    `labels` is uint8 [H, W] with 255 ignored; `radii` are in pixels and ascending. With `ignore_edge` an ignored pixel
    counts as another label; without, only pixels of another class do. Returns uint8 [H, W]; the levels of ignored
    pixels are meaningless.
    """
    smallest = labels
    # Labels are never negative and a pixel is in its own square, so 0 for "ignored" does not change the maximum.
    largest = labels if ignore_edge else np.where(labels == IGNORED, np.uint8(0), labels)
    levels = np.zeros(labels.shape, np.uint8)
    reached = 0
    for reach in radii:
        # A minimum over radius a of minima over radius b is the minimum over radius a + b; likewise for maxima.
        # OpenCV's default border value never wins, so the image's border is no edge.
        square = np.ones((2 * (reach - reached) + 1,) * 2, np.uint8)
        smallest, largest = cv2.erode(smallest, square), cv2.dilate(largest, square)  # type: ignore[assignment]
        levels += smallest == largest
        reached = reach
    return levels


def frame_levels(height: int, width: int, radii: Sequence[int]) -> NDArray[np.uint8]:
    """Levels by the distance to the frame, the pixels just outside the image: uint8 [height, width]."""

    def along(length: int) -> NDArray[np.uint8]:
        position = np.arange(length)
        distance = np.minimum(position + 1, length - position)
        return np.searchsorted(np.asarray(radii), distance, side="left").astype(np.uint8)

    return np.minimum(along(height)[:, None], along(width)[None, :])

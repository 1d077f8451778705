"""Which pixels lie near an edge of a label map, for all classes and all widths at once.

A pixel of class c lies in the band of radius d of its own class if some pixel that is not c is at a Chebyshev distance
of at most d (Cheng et al., "Boundary IoU", CVPR 2021), that is, if the (2d + 1)-square around it holds another label:
if the square's minimum and maximum differ. No map is eroded class by class, so the cost does not grow with the classes.

Several radii are answered by one map of levels: level i says that the pixel lies in the bands of `radii[i:]` only, and
level `len(radii)` that it lies in none.
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
    """Levels by the distance to the nearest pixel with another label; the frame of the image is no edge.

    `labels` is uint8 [H, W] with 255 ignored; `radii` ascend, in pixels. With `ignore_edge` an ignored pixel counts as
    another label; without, only pixels of another class do. Returns uint8 [H, W]; those of ignored pixels mean nothing.
    """
    smallest = labels
    # Labels are never negative and a pixel is in its own square, so 0 for "ignored" leaves the maximum alone.
    largest = labels if ignore_edge else np.where(labels == IGNORED, np.uint8(0), labels)
    levels = np.zeros(labels.shape, np.uint8)
    reached = 0
    for reach in radii:
        # The extremum over a square of radius a of extrema over squares of radius b is that over radius a + b.
        # OpenCV's default border never wins, which keeps the frame out.
        square = np.ones((2 * (reach - reached) + 1,) * 2, np.uint8)
        smallest, largest = cv2.erode(smallest, square), cv2.dilate(largest, square)  # type: ignore[assignment]
        levels += smallest == largest
        reached = reach
    return levels


def frame_levels(height: int, width: int, radii: Sequence[int]) -> NDArray[np.uint8]:
    """Levels by the distance to the frame, the pixels just outside the image. Returns uint8 [height, width]."""

    def along(length: int) -> NDArray[np.uint8]:
        position = np.arange(length)
        distance = np.minimum(position + 1, length - position)
        return np.searchsorted(np.asarray(radii), distance, side="left").astype(np.uint8)

    return np.minimum(along(height)[:, None], along(width)[None, :])

"""Camera geometry and the canvas that image, label and depth are painted on together.

World coordinates are metres: x to the right of the road's centre line, y up from the ground, z along the street.
The canvas is SUPERSAMPLING times the picture's size; things are painted far to near, so that nearer ones cover others.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.datasets.scenes.palette import VOID, Colour

SUPERSAMPLING = 2
NEAR = 0.5  # metres: the near clipping plane
TILE = 512  # side of the noise tiles, a power of two
_SUBPIXEL_BITS = 4

FloatArray = NDArray[np.floating]
Point = tuple[float, float]


class Camera:
    """A pinhole camera above the road. Pitch is a shift of the horizon, so that upright things stay upright.

    `height` and `width` are the canvas's; `focal` and `horizon` (a row) are in canvas pixels. The camera is `x` metres
    to the right of the road's centre and `y` metres above the ground, and is turned `yaw` radians to the right.
    """

    def __init__(self, height: int, width: int, focal: float, horizon: float, x: float, y: float, yaw: float) -> None:
        self.height, self.width, self.focal, self.horizon = height, width, focal, horizon
        self.position = np.array([x, y, 0.0])
        self._sin, self._cos, self._middle = math.sin(yaw), math.cos(yaw), width / 2
        right = np.array([self._cos, 0.0, -self._sin])
        forward = np.array([self._sin, 0.0, self._cos])
        down = np.array([0.0, -1.0, 0.0])
        rotation = np.stack([focal * right + self._middle * forward, focal * down + horizon * forward, forward])
        self.matrix = np.column_stack([rotation, -rotation @ self.position])

    def homogeneous(self, points: FloatArray) -> FloatArray:
        """World points [N, 3] as (column * depth, row * depth, depth) [N, 3]."""
        return points @ self.matrix[:, :3].T + self.matrix[:, 3]

    def polygon(self, points: FloatArray) -> FloatArray:
        """Columns and rows [M, 2] of a world polygon [N, 3], clipped at the near plane; M is 0 if nothing is left."""
        return self.project(points)[0]

    def project(self, points: FloatArray) -> tuple[FloatArray, float]:
        """Like `polygon`, and the mean depth of the corners that are left."""
        ahead = self.homogeneous(points)
        if ahead[:, 2].min() < NEAR:
            ahead = _cut(ahead)
        return ahead[:, :2] / ahead[:, 2:], float(ahead[:, 2].sum()) / max(len(ahead), 1)

    def depth(self, x: float, z: float) -> float:
        """The depth in metres of a point on the ground, from the camera's plane."""
        return float(self._sin * (x - self.position[0]) + self._cos * z)

    def ground(self) -> tuple[int, FloatArray, FloatArray, FloatArray]:
        """First row below the horizon, and x, z and 1 / depth of the ground under each pixel from there [R, W]."""
        first, eye = min(max(int(self.horizon) + 1, 0), self.height), float(self.position[1])
        rows = np.arange(first, self.height, dtype=np.float32) + 0.5 - self.horizon
        depth = (self.focal * eye / np.maximum(rows, 0.25))[:, None]
        aside = (np.arange(self.width, dtype=np.float32) + 0.5 - self._middle)[None] * depth / self.focal
        x = float(self.position[0]) + self._cos * aside + self._sin * depth
        z = self._cos * depth - self._sin * aside
        return first, x, z, np.broadcast_to(1 / depth, x.shape)


def _cut(ahead: FloatArray) -> FloatArray:
    """The part of a homogeneous polygon [N, 3] with depth >= NEAR (Sutherland and Hodgman's clipping)."""
    kept = []
    for here, there in zip(ahead, np.roll(ahead, -1, axis=0), strict=True):
        if here[2] >= NEAR:
            kept.append(here)
        if (here[2] >= NEAR) != (there[2] >= NEAR):
            kept.append(here + (NEAR - here[2]) / (there[2] - here[2]) * (there - here))
    return np.array(kept).reshape(-1, 3)


@lru_cache(maxsize=1)
def noise_tiles() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two seamless noise tiles [TILE, TILE] of mean 0 and deviation 1: `rough` (fine grain) and `soft` (clouds).

    All scenes share them and read them at different places, since drawing new noise costs too much.
    """
    white = np.fft.rfft2(np.random.default_rng(20).standard_normal((TILE, TILE)))
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]) * TILE
    tiles = []
    for exponent in (0.6, 1.7):
        tile = np.fft.irfft2(white / np.maximum(frequency, 3.0) ** exponent, s=(TILE, TILE))
        tiles.append(((tile - tile.mean()) / tile.std()).astype(np.float32))
    return tiles[0], tiles[1]


def noise_patch(tile: NDArray[np.float32], start: Point, size: Point, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A window of a tile, from `start` (0..1, row and column) over `size` (tile pixels), resampled to `shape`."""
    window = (min(max(int(size[0]), 2), TILE), min(max(int(size[1]), 2), TILE))
    row, column = (int(s * (TILE - w)) for s, w in zip(start, window, strict=True))
    cut = tile[row : row + window[0], column : column + window[1]]
    return cv2.resize(cut, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


class Canvas:
    """Image uint8 [2H, 2W, 3] RGB, label uint8 [2H, 2W] and nearness float32 [2H, 2W] (1 / depth, 0 for the sky)."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        shape = (camera.height, camera.width)
        self.image = np.zeros((*shape, 3), np.uint8)
        self.label = np.full(shape, VOID, np.uint8)
        self.nearness = np.zeros(shape, np.float32)

    def fill(self, points: FloatArray, colour: Colour, label: int | None = None, nearness: float = 0.0) -> None:
        """Paint a polygon [N, 2] (columns, rows). Without a label, only the image changes (a detail of a thing)."""
        if len(points) < 3:
            return
        corners = [np.rint(points * 2**_SUBPIXEL_BITS).astype(np.int32)]
        cv2.fillPoly(self.image, corners, colour, shift=_SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.label, corners, label, shift=_SUBPIXEL_BITS)
            cv2.fillPoly(self.nearness, corners, nearness, shift=_SUBPIXEL_BITS)

    def sees(self, points: FloatArray) -> bool:
        """Whether a world polygon [N, 3] may be visible; otherwise its texture need not be painted."""
        outline = self.camera.polygon(points)
        size = (self.camera.width, self.camera.height)
        return len(outline) > 2 and bool((outline.max(axis=0) > 0).all() and (outline.min(axis=0) < size).all())

    def face(self, points: FloatArray, colour: Colour, label: int | None = None) -> None:
        """Paint a world polygon [N, 3]."""
        outline, depth = self.camera.project(points)
        if len(outline):
            self.fill(outline, colour, label, 1 / depth)

    def panel(
        self, texture: NDArray[np.uint8], corner: FloatArray, along: FloatArray, up: FloatArray, label: int
    ) -> None:
        """Paint a flat texture (RGB or RGBA, uint8) on a world parallelogram; the label covers all of it.

        `corner` is the texture's lower left corner, `along` and `up` are its sides [3] in metres.
        """
        outline = self.camera.polygon(np.stack([corner, corner + along, corner + along + up, corner + up]))
        if len(outline) < 3:
            return
        left, top = np.maximum(np.floor(outline.min(axis=0)), 0).astype(int)
        right = min(int(np.ceil(outline[:, 0].max())) + 1, self.camera.width)
        bottom = min(int(np.ceil(outline[:, 1].max())) + 1, self.camera.height)
        if right <= left or bottom <= top:
            return
        rows, columns = texture.shape[:2]
        # Plane coordinates (0..1 along, 0..1 up, 1) to canvas, then texture pixels to plane coordinates.
        plane = np.column_stack([self.camera.matrix[:, :3] @ along, self.camera.matrix[:, :3] @ up,
                                 self.camera.homogeneous(corner[None])[0]])  # fmt: skip
        pixels = np.array([[1 / columns, 0, 0.5 / columns], [0, -1 / rows, 1 - 0.5 / rows], [0, 0, 1]])
        move = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        size = (right - left, bottom - top)
        seen = cv2.warpPerspective(texture, move @ plane @ pixels, size, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros((size[1], size[0]), np.uint8)
        corners = np.round((outline - (left, top)) * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, shift=_SUBPIXEL_BITS)
        box = np.s_[top:bottom, left:right]
        if texture.shape[2] == 4:
            cover = seen[..., 3:].astype(np.float32) / 255
            seen = (self.image[box] + cover * (seen[..., :3].astype(np.float32) - self.image[box])).astype(np.uint8)
        cv2.copyTo(seen, mask, self.image[box])
        cv2.copyTo(np.full_like(mask, label), mask, self.label[box])
        # 1 / depth is an affine function of column and row on any plane: the last row of the inverse of `plane`.
        slope = np.linalg.inv(plane)[2]
        across = (slope[0] * np.arange(left, right) + slope[2]).astype(np.float32)
        upward = (slope[1] * np.arange(top, bottom)).astype(np.float32)
        cv2.copyTo(across[None] + upward[:, None], mask, self.nearness[box])

    def upright(self, x: float, z: float) -> "Upright":
        """A frame for drawing a thing on the ground at (x, z) that faces the camera."""
        return Upright(self, x, z)


class Upright:
    """A drawing frame for flat things that face the camera: metres to the right and up from a point on the ground."""

    def __init__(self, canvas: Canvas, x: float, z: float) -> None:
        self.canvas = canvas
        depth = max(canvas.camera.depth(x, z), NEAR)
        self.nearness, self.scale = 1 / depth, canvas.camera.focal / depth
        column, row, distance = canvas.camera.homogeneous(np.array([[x, 0.0, z]]))[0]
        self.foot = (column / max(distance, NEAR), row / max(distance, NEAR))

    def pixels(self, points: Sequence[Point] | FloatArray) -> FloatArray:
        """Canvas columns and rows [N, 2] of points in metres from the foot."""
        offsets = np.asarray(points, dtype=float) * (self.scale, -self.scale)
        return offsets + self.foot

    def polygon(self, points: Sequence[Point] | FloatArray, colour: Colour, label: int | None = None) -> None:
        """Paint a polygon."""
        self.canvas.fill(self.pixels(points), colour, label, self.nearness)

    def box(
        self, left: float, bottom: float, right: float, top: float, colour: Colour, label: int | None = None
    ) -> None:
        """Paint an upright rectangle."""
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], colour, label)

    def disc(self, centre: Point, radii: Point, colour: Colour, label: int | None = None) -> None:
        """Paint an ellipse with upright axes."""
        angles = np.linspace(0, 2 * np.pi, 13)[:-1]
        ring = np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], axis=1)
        self.polygon(ring, colour, label)

    def bar(self, start: Point, end: Point, width: float, colour: Colour, label: int | None = None) -> None:
        """Paint a straight bar `width` metres thick, but at least about one pixel of the picture."""
        first, last = self.pixels([start, end])
        direction = (last - first) / max(float(np.hypot(*(last - first))), 1e-6)
        # fillPoly also draws the outline, which adds one pixel.
        half = max((max(width * self.scale, SUPERSAMPLING) - 1) / 2, 0.4)
        normal = half * np.array([-direction[1], direction[0]])
        outline = np.stack([first + normal, last + normal, last - normal, first - normal])
        self.canvas.fill(outline, colour, label, self.nearness)

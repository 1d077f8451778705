"""Trees, hedges and fences."""

from dataclasses import dataclass

import cv2
import numpy as np

from harness.datasets.scenes.canvas import Canvas, Upright, noise_patch, noise_tiles
from harness.datasets.scenes.palette import FENCE, TREE, Colour, pick, scale, shift
from harness.datasets.scenes.weather import Weather

FENCES = ("railings", "planks", "mesh")


def draw_tree(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float, height: float, bare: bool
) -> None:
    """Draw a tree `height` metres tall: a trunk and a crown of leaves or, as in winter, bare branches."""
    frame = canvas.upright(x, z)
    bark = scale(pick(rng, "bark"), weather.shade(np.array([0.0, 0.0, -1.0])))
    leaf = pick(rng, "leaf")
    girth = 0.022 * height
    clear = height * rng.uniform(0.22, 0.34)
    trunk = [(-girth, 0.0), (girth, 0.0), (0.6 * girth, clear * 1.4), (-0.6 * girth, clear * 1.4)]
    frame.polygon(trunk, bark, TREE)
    if bare:
        draw_branches(frame, rng, clear * 1.2, height, bark)
        return
    width = (height - clear) * rng.uniform(0.38, 0.55)
    draw_crown(frame, rng, weather, (0.0, (height + clear) / 2), (width, (height - clear) / 2), leaf)


def draw_crown(
    frame: Upright,
    rng: np.random.Generator,
    weather: Weather,
    centre: tuple[float, float],
    radii: tuple[float, float],
    leaf: Colour,
) -> None:
    """Draw an uneven round mass of leaves with holes; large holes keep the label of the background."""
    looks = rng.random(6)
    corner = frame.pixels([(centre[0] - 1.2 * radii[0], centre[1] + 1.2 * radii[1])])[0].astype(int)
    far_corner = frame.pixels([(centre[0] + 1.2 * radii[0], centre[1] - 1.2 * radii[1])])[0].astype(int)
    columns, rows = np.maximum(far_corner - corner, 3)
    if far_corner[0] <= 0 or corner[0] >= frame.canvas.camera.width:
        return
    rough, soft = noise_tiles()
    shape = (int(rows), int(columns))
    lumps = noise_patch(soft, (looks[0], looks[1]), (170, 170), shape)
    leaves = noise_patch(rough, (looks[2], looks[3]), (110, 110), shape)
    down = np.linspace(-1.2, 1.2, shape[0], dtype=np.float32)[:, None]
    right = np.linspace(-1.2, 1.2, shape[1], dtype=np.float32)[None]
    mass = 1 - np.hypot(down, right) + 0.24 * lumps
    thin = float(0.15 + 0.2 * looks[4])
    cover = mass + thin * leaves
    sunny = float(0.22 * np.sign(weather.sun[0])) * right - 0.28 * down
    gain = weather.ambient + weather.direct * np.clip(0.45 + sunny + 0.25 * lumps, 0, 1) + 0.17 * leaves
    colour = cv2.convertScaleAbs(np.array(leaf, np.float32) * np.clip(gain, 0.15, 1.6)[..., None])
    _stamp(frame, (int(corner[0]), int(corner[1])), colour, cover > 0.1, mass + 0.5 * thin * leaves > 0.08)


def _stamp(frame: Upright, corner: tuple[int, int], colour: np.ndarray, seen: np.ndarray, labelled: np.ndarray) -> None:
    """Copy pixels to the canvas at `corner` (column, row): colours in the mask `seen`, label TREE in `labelled`."""
    canvas, (rows, columns) = frame.canvas, seen.shape
    left, top = max(corner[0], 0), max(corner[1], 0)
    right = min(corner[0] + columns, canvas.camera.width)
    bottom = min(corner[1] + rows, canvas.camera.height)
    if right <= left or bottom <= top:
        return
    box = np.s_[top:bottom, left:right]
    cut = np.s_[top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]]
    mask = labelled[cut].view(np.uint8)
    cv2.copyTo(colour[cut], seen[cut].view(np.uint8), canvas.image[box])
    cv2.copyTo(np.full_like(mask, TREE), mask, canvas.label[box])
    cv2.copyTo(np.full(mask.shape, frame.nearness, np.float32), mask, canvas.nearness[box])


def draw_branches(frame: Upright, rng: np.random.Generator, fork: float, height: float, bark: Colour) -> None:
    """Draw bare branches that fork seven times; only the densely filled area is labelled."""
    canvas = frame.canvas
    starts, angles = np.array([[0.0, fork]]), np.array([np.pi / 2])
    length, thickness = 0.29 * (height - fork), 0.028 * height
    corner = np.maximum(frame.pixels([(-0.8 * height, 1.5 * height)])[0].astype(int), 0)
    end = np.maximum(frame.pixels([(0.8 * height, 0.0)])[0].astype(int), corner + 1)
    box = np.s_[corner[1] : end[1], corner[0] : end[0]]
    filled = np.zeros_like(canvas.label[box])
    if not filled.size:
        return
    for _ in range(7):
        starts, angles = np.repeat(starts, 2, axis=0), np.repeat(angles, 2)
        turn = rng.uniform(0.12, 0.62, len(angles)) * np.where(np.arange(len(angles)) % 2, 1, -1)
        angles = angles + turn
        reach = length * rng.uniform(0.6, 1.2, len(angles))
        ends = starts + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        lines = np.stack([frame.pixels(starts), frame.pixels(ends)], axis=1).round().astype(np.int32)
        width = max(round(thickness * frame.scale), 1)
        cv2.polylines(canvas.image, list(lines), False, bark, width)
        cv2.polylines(filled, list(lines - corner.astype(np.int32)), False, 255, width + 1)
        starts, length, thickness = ends, length * 0.78, thickness * 0.62
    spread = cv2.blur(filled, (5, 5)) > 90
    canvas.label[box][spread] = TREE
    canvas.nearness[box][spread] = frame.nearness


def draw_hedge(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, side: int, front: float, near: float, far: float
) -> None:
    """Draw a clipped hedge along the back of the pavement."""
    height = rng.uniform(0.9, 2.2)
    colour = np.array(scale(pick(rng, "leaf"), weather.shade(np.array([-side, 0.0, 0.0]))))
    rough, soft = noise_tiles()
    start, shape = (rng.random(), rng.random()), (32, 192)
    gain = 0.9 + 0.2 * noise_patch(rough, start, (90, 400), shape) + 0.1 * noise_patch(soft, start, (60, 300), shape)
    texture = np.clip(colour * gain[..., None], 0, 255).astype(np.uint8)
    corner = np.array([side * front, 0.0, near])
    up = np.array([0.0, height, 0.0])
    canvas.panel(texture[:, :40].copy(), corner, np.array([side * 1.0, 0.0, 0.0]), up, TREE)
    canvas.panel(texture, corner, np.array([0.0, 0.0, far - near]), up, TREE)


@dataclass(frozen=True)
class Fence:
    """A kind of fence: one of FENCES, its height in metres, and its colour in full light."""

    kind: str
    height: float
    colour: Colour


def draw_fence(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, fence: Fence, x: float, near: float, far: float
) -> None:
    """Draw railings, planks or wire mesh along the street. The label covers the gaps too, as in CamVid."""
    towards = np.sign(canvas.camera.position[0] - x)
    colour = scale(fence.colour, weather.shade(np.array([towards, 0.0, 0.0])) * rng.uniform(0.9, 1.1))
    cells, columns, rows = max(int((far - near) / 0.35), 2), 5, 24
    cell = np.zeros((rows, columns, 4), np.uint8)
    cell[..., :3] = colour
    if fence.kind == "planks":
        cell[..., 3] = 255
        cell[:, 0, :3] = scale(colour, 0.6)
        cell[:2, 2:, 3] = 0
    elif fence.kind == "railings":
        cell[:, :2, 3] = 255
        cell[1:4, :, 3] = 255
        cell[-4:-1, :, 3] = 255
    else:
        cell[..., 3] = 120
        cell[::3, ::2, 3] = 200
        cell[:2, :, 3] = 255
    strip = np.tile(cell, (1, cells, 1))
    for offset in (0, 1):  # posts, two texture pixels wide
        strip[:, offset :: columns * 7] = (*shift(colour, -12), 255)
    corner, along, up = np.array([x, 0.0, near]), np.array([0.0, 0.0, far - near]), np.array([0.0, fence.height, 0.0])
    canvas.panel(strip, corner, along, up, FENCE)

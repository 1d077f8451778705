"""Facades, end walls and roofs."""

from dataclasses import dataclass

import cv2
import numpy as np

from harness.datasets.scenes.canvas import Canvas, noise_patch, noise_tiles
from harness.datasets.scenes.palette import BUILDING, Colour, mix, pick, scale, shift
from harness.datasets.scenes.weather import Weather

_STOREY = 3.1  # metres
Texture = np.ndarray


@dataclass(frozen=True)
class Plot:
    """A building's plot: `side` -1 or +1, its front at `front` metres from the road's centre line."""

    side: int
    front: float
    near: float
    far: float
    storeys: int

    @property
    def height(self) -> float:
        """Metres from the ground to the eaves."""
        return self.storeys * _STOREY + 0.5


@dataclass(frozen=True)
class Style:
    """A building's style: colours, and window sizes as shares of a bay and of a storey."""

    wall: Colour
    trim: Colour
    glass: Colour
    ground_floor: Colour
    door: Colour
    window: tuple[float, float]
    bay: float
    shop: bool
    lit: float


def make_style(rng: np.random.Generator, weather: Weather) -> Style:
    """A random style: old houses have narrow windows, offices bands of glass."""
    wall = pick(rng, "wall")
    office = rng.random() < 0.3
    window = (
        (rng.uniform(0.7, 0.95), rng.uniform(0.45, 0.65))
        if office
        else (rng.uniform(0.35, 0.5), rng.uniform(0.45, 0.6))
    )
    dark = mix((44.0, 50.0, 58.0), weather.skyline, rng.uniform(0.0, 0.35))
    trim = shift(wall, rng.choice([-30, 35, 70]))
    lit = rng.uniform(0.2, 0.6) if weather.lamps else 0.0
    return Style(
        wall, trim, dark, pick(rng, "shop"), pick(rng, "door"), window, rng.uniform(1.8, 3.4), rng.random() < 0.5, lit
    )


def draw_building(canvas: Canvas, rng: np.random.Generator, weather: Weather, plot: Plot) -> None:
    """Draw a building: the end wall towards the camera, the roof, and the front along the street."""
    style, roof, pitched = make_style(rng, weather), pick(rng, "roof"), rng.random() < 0.55
    slope, chimneys = rng.uniform(0.7, 1.2), int(rng.integers(0, 4))
    length = plot.far - plot.near
    eaves = np.array([plot.side * plot.front, plot.height, plot.near])
    backward = np.array([plot.side * 4.0, 0.0, 0.0])
    rise = np.array([0.0, 4.0 * slope, 0.0])
    along, up = np.array([0.0, 0.0, length]), np.array([0.0, plot.height, 0.0])
    end_light = weather.shade(np.array([0.0, 0.0, -1.0]))

    if pitched:
        gable = np.stack([eaves, eaves + backward + rise, eaves + 2 * backward])
        canvas.face(gable, scale(style.wall, end_light), BUILDING)
        for _ in range(chimneys):
            ridge = eaves + backward + 0.8 * rise + rng.random() * along
            draw_chimney(canvas, ridge, scale(shift(style.wall, -20), end_light))
        normal = np.array([-plot.side * slope, 1.0, 0.0]) / np.hypot(slope, 1.0)
        if normal @ (canvas.camera.position - eaves) > 0:
            canvas.panel(roof_texture(rng, scale(roof, weather.shade(normal))), eaves, along, backward + rise, BUILDING)
    for side, light in ((2 * backward, end_light), (along, weather.shade(np.array([-plot.side, 0.0, 0.0])))):
        foot = eaves - up
        if canvas.sees(np.stack([foot, foot + side, eaves + side, eaves])):
            wall = facade_texture(rng, style, float(np.abs(side).sum()), plot.storeys, light, canvas, plot.near)
            canvas.panel(grained(rng, wall), foot, side, up, BUILDING)


def draw_chimney(canvas: Canvas, foot: np.ndarray, colour: Colour) -> None:
    """Draw a chimney on the ridge, as seen from the street."""
    width, height = np.array([0.9, 0.0, 0.0]), np.array([0.0, 1.9, 0.0])
    canvas.face(np.stack([foot, foot + width, foot + width + height, foot + height]), colour, BUILDING)


def facade_texture(
    rng: np.random.Generator, style: Style, length: float, storeys: int, light: float, canvas: Canvas, near: float
) -> Texture:
    """The texture of a front, uint8 [rows, columns, 3], with the bottom row at the ground.

    One bay of one storey is painted and repeated. Its resolution matches the near end of the front on the canvas: a
    metre along the street shrinks with the square of the distance, a metre upwards with the distance.
    """
    distance = max(near, 7.0)
    up = float(np.clip(canvas.camera.focal / distance, 3.0, 40.0))
    bays = max(round(length / style.bay), 1)
    columns = int(np.clip(7.0 * canvas.camera.focal / distance**2 * style.bay, 5, 64))
    rows = max(int(up * _STOREY), 5)
    storey = np.tile(paint_bay(style, rows, columns, light), (1, bays, 1))
    wall = np.tile(storey, (storeys, 1, 1))
    # Panes differ: some reflect the sky, some have curtains, some are lit.
    wide, high, left, top = opening(style, rows, columns)
    kinds = rng.random((storeys, bays, 1))
    panes = np.clip(np.array(style.glass) + 70 * kinds - 35, 0, 255) * min(light, 1.0)
    panes = np.where(kinds < style.lit, (255.0, 222.0, 150.0), panes)
    cells = wall.reshape(storeys, rows, bays, columns, 3)
    cells[:, top : top + high // 2, :, left : left + wide] = panes[:, None, :, None]
    paint_ground_floor(rng, style, wall[-rows:], columns, light)
    cornice = max(rows // 8, 1)
    wall[:cornice] = scale(style.trim, light)
    return wall


def opening(style: Style, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Width, height, left and top of the window in a bay of `rows` x `columns` texture pixels."""
    wide, high = max(int(columns * style.window[0]), 2), max(int(rows * style.window[1]), 2)
    return wide, high, (columns - wide) // 2, int(rows * 0.2)


def paint_bay(style: Style, rows: int, columns: int, light: float) -> Texture:
    """The texture of a bay: a window with frame, glazing bar and sill in a piece of wall."""
    bay = np.empty((rows, columns, 3), np.uint8)
    bay[:] = scale(style.wall, light)
    wide, high, left, top = opening(style, rows, columns)
    trim = scale(style.trim, light)
    bay[top - 1 : top + high + 1, max(left - 1, 0) : left + wide + 1] = trim
    bay[top : top + high, left : left + wide] = scale(style.glass, light)
    if wide >= 6 and high >= 6:
        bay[top + high // 2, left : left + wide] = trim
        bay[top : top + high, left + wide // 2] = trim
    bay[-1] = scale(style.wall, 0.9 * light)
    return bay


def paint_ground_floor(rng: np.random.Generator, style: Style, wall: Texture, columns: int, light: float) -> None:
    """Paint shop fronts under a coloured board, or doors in some bays, onto `wall` [rows, columns, 3] in place."""
    rows, width = wall.shape[:2]
    draws = rng.random(64)
    if style.shop:
        board = max(rows // 5, 1)
        wall[board:] = scale(style.ground_floor, 0.8 * light)
        wall[:board] = scale(style.ground_floor, light)
        glass = mix(style.glass, (250.0, 226.0, 170.0), 0.7 if style.lit else 0.0)
        for bay in range(width // columns):
            inset = max(columns // 8, 1)
            pane = wall[board + 1 : rows - max(rows // 8, 1), bay * columns + inset : (bay + 1) * columns - inset]
            pane[:] = scale(shift(glass, 60 * draws[bay % 64] - 20), light)
            # Goods in the window.
            goods = pane[pane.shape[0] // 2 :, pane.shape[1] // 4 : pane.shape[1] // 2 + 1]
            goods[:] = scale(shift(style.trim, 120 * draws[(bay + 31) % 64] - 60), light)
        return
    for bay in range(width // columns):
        if draws[bay % 64] < 0.35:
            start = bay * columns + columns // 3
            wall[rows // 4 :, start : start + max(columns // 3, 2)] = scale(style.door, light)


def roof_texture(rng: np.random.Generator, colour: Colour) -> Texture:
    """The texture of a tiled roof."""
    tiles = np.empty((24, 48, 3), np.uint8)
    tiles[:] = colour
    tiles[::3] = scale(colour, 0.86)
    return grained(rng, tiles)


def grained(rng: np.random.Generator, texture: Texture) -> Texture:
    """`texture` weathered: with fine grain, blotches and a darker foot."""
    rough, soft = noise_tiles()
    start, shape = (rng.random(), rng.random()), texture.shape[:2]
    gain = 1 + 0.08 * noise_patch(rough, start, (150, 150), shape) + 0.07 * noise_patch(soft, start, (200, 200), shape)
    gain[-max(shape[0] // 12, 1) :] *= 0.88
    return cv2.multiply(texture, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)

"""Pedestrians and bicyclists."""

import numpy as np

from harness.datasets.scenes.canvas import Canvas, Point, Upright
from harness.datasets.scenes.palette import BICYCLIST, PEDESTRIAN, Colour, pick, scale
from harness.datasets.scenes.weather import Weather

_FACING = np.array([0.0, 0.0, -1.0])
_METAL: Colour = (44.0, 46.0, 50.0)


def draw_pedestrian(canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float) -> None:
    """Draw a standing or walking person, sometimes with a bag or, in the rain, an umbrella."""
    frame, light, looks = canvas.upright(x, z), weather.shade(_FACING), rng.random(8)
    size = 0.92 + 0.16 * looks[0] if looks[1] > 0.12 else 0.68
    stride = 0.28 * looks[2]
    coat, trousers = scale(pick(rng, "cloth"), light), scale(pick(rng, "cloth"), 0.85 * light)
    skin, hair = scale(pick(rng, "skin"), light), scale(pick(rng, "bark"), light)

    def at(*points: Point) -> list[Point]:
        return [(size * across, size * up) for across, up in points]

    for lean in (-stride, stride + 0.06):
        leg = at((-0.16, 0.92), (0.16, 0.92), (lean + 0.09, 0.0), (lean - 0.09, 0.0))
        frame.polygon(leg, trousers, PEDESTRIAN)
    hem = 0.75 if looks[3] < 0.4 else 0.9
    frame.polygon(at((-0.23, 1.45), (0.23, 1.45), (0.24, hem), (-0.24, hem)), coat, PEDESTRIAN)
    swing = 0.12 + 0.2 * looks[4]
    for sign in (-1, 1):
        start, end = at((sign * 0.22, 1.42), (sign * (0.2 + swing * looks[5]), 0.85))
        frame.bar(start, end, 0.12 * size, scale(coat, 0.88), PEDESTRIAN)
    frame.disc((0.0, 1.6 * size), (0.13 * size, 0.16 * size), skin, PEDESTRIAN)
    frame.disc((0.0, 1.67 * size), (0.13 * size, 0.1 * size), hair)
    if looks[6] < 0.35:
        left, low, right, top = 0.22 * size, 0.6 * size, 0.48 * size, 0.95 * size
        frame.box(left, low, right, top, scale(pick(rng, "cloth"), light), PEDESTRIAN)
    if weather.wet and looks[7] < 0.5:
        cover = at((-0.55, 1.8), (-0.35, 2.05), (0.0, 2.15), (0.35, 2.05), (0.55, 1.8))
        frame.polygon(cover, scale(pick(rng, "cloth"), light), PEDESTRIAN)


def draw_bicyclist(
    canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float, sideways: bool
) -> None:
    """Draw a cyclist from behind (or ahead) or from the side. Wheels are labelled as whole discs."""
    frame, light = canvas.upright(x, z), weather.shade(_FACING)
    top = scale(pick(rng, "bright" if rng.random() < 0.65 else "cloth"), light)
    legs, skin = scale(pick(rng, "cloth"), light), scale(pick(rng, "skin"), light)
    helmet = scale(pick(rng, "bright"), light) if rng.random() < 0.6 else scale(pick(rng, "bark"), light)
    if sideways:
        _draw_from_the_side(canvas, frame, 1 if rng.random() < 0.5 else -1, top, legs, skin, helmet)
        return
    frame.disc((0.0, 0.34), (0.07, 0.34), _METAL, BICYCLIST)
    for sign in (-1, 1):
        lift = 0.12 * sign
        leg = [(sign * 0.06, 1.0), (sign * 0.2, 1.0), (sign * 0.2, 0.35 + lift), (sign * 0.07, 0.25 + lift)]
        frame.polygon(leg, legs, BICYCLIST)
        frame.bar((sign * 0.2, 1.45), (sign * 0.33, 1.0), 0.11, scale(top, 0.85), BICYCLIST)
    frame.polygon([(-0.21, 1.5), (0.21, 1.5), (0.2, 0.92), (-0.2, 0.92)], top, BICYCLIST)
    frame.disc((0.0, 1.66), (0.13, 0.16), skin, BICYCLIST)
    frame.disc((0.0, 1.73), (0.14, 0.11), helmet, BICYCLIST)
    frame.box(-0.04, 0.75, 0.04, 0.83, (210.0, 40.0, 36.0))


def _draw_from_the_side(
    canvas: Canvas, frame: Upright, sign: int, top: Colour, legs: Colour, skin: Colour, helmet: Colour
) -> None:
    """Draw a cyclist who rides to the right (sign 1) or to the left (-1)."""

    def at(across: float, up: float) -> Point:
        return (sign * across, up)

    background = canvas.image.copy()
    for hub in (-0.52, 0.52):
        frame.disc(at(hub, 0.34), (0.35, 0.35), _METAL, BICYCLIST)
    _show_through_wheels(canvas, frame, background, sign)
    rear, front, crank, saddle, stem = at(-0.52, 0.34), at(0.52, 0.34), at(-0.05, 0.3), at(-0.18, 0.95), at(0.4, 0.9)
    for start, end in ((rear, crank), (crank, stem), (saddle, stem), (crank, saddle), (front, stem), (rear, saddle)):
        frame.bar(start, end, 0.05, _METAL, BICYCLIST)
    frame.bar(at(-0.18, 0.98), at(0.16, 0.65), 0.17, legs, BICYCLIST)
    frame.bar(at(0.16, 0.65), at(0.0, 0.2), 0.13, legs, BICYCLIST)
    frame.polygon([at(-0.28, 0.98), at(-0.02, 0.92), at(0.3, 1.42), at(0.08, 1.55)], top, BICYCLIST)
    frame.bar(at(0.18, 1.4), at(0.42, 1.02), 0.11, scale(top, 0.85), BICYCLIST)
    frame.disc(at(0.27, 1.66), (0.13, 0.16), skin, BICYCLIST)
    frame.disc(at(0.25, 1.73), (0.14, 0.11), helmet, BICYCLIST)


def _show_through_wheels(canvas: Canvas, frame: Upright, background: np.ndarray, sign: int) -> None:
    """Restore the background between rim and hub, since thin spokes do not hide it."""
    rows, columns = np.ogrid[: canvas.camera.height, : canvas.camera.width]
    for hub in (-0.52, 0.52):
        column, row = frame.pixels([(sign * hub, 0.34)])[0]
        inner = (columns - column) ** 2 + (rows - row) ** 2 < (0.26 * frame.scale) ** 2
        canvas.image[inner] = background[inner]

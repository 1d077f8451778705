"""Lamp posts, signs, traffic lights, and things on the street that have no class."""

import numpy as np

from harness.datasets.scenes.canvas import Canvas, Upright
from harness.datasets.scenes.palette import BUILDING, POLE, SIGN, TREE, VOID, Colour, mix, pick, scale, shift
from harness.datasets.scenes.weather import Weather

_FACING = np.array([0.0, 0.0, -1.0])


def draw_lamp_post(canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float) -> None:
    """Draw a lamp post with an arm over the road, or a plain post."""
    frame = canvas.upright(x, z)
    colour = scale(pick(rng, "pole"), weather.shade(_FACING))
    height, inward = rng.uniform(5.0, 8.0), -np.sign(x)
    frame.bar((0.0, 0.0), (0.0, height), 0.17, colour, POLE)
    frame.bar((0.0, 0.0), (0.0, 1.1), 0.26, scale(colour, 0.85), POLE)
    if rng.random() < 0.75:
        reach = rng.uniform(0.8, 1.8)
        frame.bar((0.0, height), (inward * reach, height + 0.35), 0.1, colour, POLE)
        lamp = (255.0, 224.0, 150.0) if weather.lamps else shift(colour, 40)
        frame.bar((inward * (reach - 0.2), height + 0.3), (inward * (reach + 0.5), height + 0.4), 0.2, lamp, POLE)


def draw_bollard(canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float) -> None:
    """Draw a knee-high post."""
    frame = canvas.upright(x, z)
    colour = scale(pick(rng, "pole"), weather.shade(_FACING))
    frame.bar((0.0, 0.0), (0.0, 1.0), 0.14, colour, POLE)
    frame.bar((0.0, 0.75), (0.0, 0.88), 0.15, (216.0, 214.0, 206.0))


def draw_sign(canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float) -> None:
    """Draw a traffic sign, a direction board or an advertisement on a post."""
    frame, light = canvas.upright(x, z), weather.shade(_FACING)
    post = scale(pick(rng, "pole"), light)
    kind = rng.choice(["disc", "triangle", "board", "banner"], p=[0.36, 0.2, 0.24, 0.2])
    field, ink = scale(pick(rng, "sign"), light), scale((232.0, 232.0, 228.0), light)
    size, height = rng.uniform(0.38, 0.55), rng.uniform(2.1, 2.9)
    frame.bar((0.0, 0.0), (0.0, height), 0.11, post, POLE)
    if kind == "disc":
        frame.disc((0.0, height), (size, size), field, SIGN)
        frame.disc((0.0, height), (0.66 * size, 0.66 * size), ink)
        frame.box(-0.4 * size, height - 0.1, 0.4 * size, height + 0.1, field)
    elif kind == "triangle":
        red = scale((190.0, 30.0, 34.0), light)
        frame.polygon([(-size, height - size), (size, height - size), (0.0, height + 0.9 * size)], red, SIGN)
        frame.polygon(
            [(-0.6 * size, height - 0.75 * size), (0.6 * size, height - 0.75 * size), (0.0, height + 0.4 * size)],
            ink,
        )
    else:
        wide, high = (1.5 * size, size) if kind == "board" else (0.9 * size, 1.9 * size)
        low = height - high if kind == "board" else height - 1.6 * high
        frame.box(-wide, low, wide, low + 2 * high, field, SIGN)
        for line in range(int(rng.integers(1, 4))):
            up = low + (0.35 + 0.45 * line) * high
            frame.box(-0.75 * wide, up, (0.1 + 0.65 * rng.random()) * wide, up + 0.16 * high, ink)


def draw_traffic_light(canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float) -> None:
    """Draw a signal head with three lamps on a post; the head is a SIGN, as in CamVid's 11 classes."""
    frame, light = canvas.upright(x, z), weather.shade(_FACING)
    frame.bar((0.0, 0.0), (0.0, 3.4), 0.15, scale(pick(rng, "pole"), light), POLE)
    case, on = scale((34.0, 35.0, 37.0), light), int(rng.integers(3))
    frame.box(-0.27, 2.35, 0.27, 3.6, case, SIGN)
    lamps = ((255.0, 60.0, 40.0), (255.0, 180.0, 50.0), (60.0, 240.0, 150.0))
    for place, lamp in enumerate(lamps):
        frame.disc((0.0, 3.38 - 0.39 * place), (0.13, 0.14), lamp if place == on else scale(lamp, 0.25 * light))


def draw_clutter(canvas: Canvas, rng: np.random.Generator, weather: Weather, x: float, z: float) -> None:
    """Draw a bin, cabinet, box or trailer, which CamVid leaves unlabelled."""
    frame, light = canvas.upright(x, z), weather.shade(_FACING)
    colour = scale(pick(rng, "litter"), light)
    wide, high = rng.uniform(0.25, 0.6), rng.uniform(0.8, 1.5)
    frame.box(-wide, 0.0, wide, high, colour, VOID)
    frame.box(-wide, high - 0.14, wide, high, shift(colour, 26))
    frame.box(-0.6 * wide, 0.45 * high, 0.5 * wide, 0.62 * high, shift(colour, -22))


def draw_bonnet(canvas: Canvas, rng: np.random.Generator, weather: Weather) -> None:
    """Draw the bonnet of the car with the camera at the bottom of the picture, unlabelled."""
    camera = canvas.camera
    colour = scale(pick(rng, "car"), 0.7 * weather.ambient)
    rise, lean = rng.uniform(0.03, 0.1) * camera.height, rng.uniform(-0.8, 0.8)
    across = np.linspace(-1.1, 1.1, 21)
    top = camera.height - rise * (1 + lean * across) * np.sqrt(np.maximum(1 - (across / 1.15) ** 2, 0))
    edge = np.stack([(across + 1) / 2 * camera.width, top], axis=1)
    outline = np.concatenate(
        [edge, [[camera.width * 1.05, camera.height + 2.0], [-camera.width * 0.05, camera.height + 2.0]]]
    )
    canvas.fill(outline, colour, VOID, 1.0)
    gloss = np.concatenate([np.add(edge, (0, 0.12 * rise)), np.add(edge, (0, 0.4 * rise))[::-1]])
    canvas.fill(gloss, shift(colour, 42))


def draw_skyline(canvas: Canvas, rng: np.random.Generator, weather: Weather, z: float) -> None:
    """Draw the far end of the street: roofs, treetops and, often, something too far away to be labelled (VOID)."""
    frame = canvas.upright(0.0, z)
    light = weather.shade(_FACING)
    left = -60.0
    while left < 60.0:
        width, height, leafy, unnamed = rng.uniform(7, 20), rng.uniform(6, 13), rng.random() < 0.4, rng.random() < 0.12
        if leafy:
            colour = scale(pick(rng, "leaf"), light)
            _draw_treetops(frame, rng, left, left + width, 0.8 * height, colour)
        else:
            colour, roof = scale(pick(rng, "wall"), light), scale(pick(rng, "roof"), light)
            label = VOID if unnamed else BUILDING
            frame.box(left, 0.0, left + width, 0.75 * height, colour, label)
            ridge = [
                (left, 0.75 * height),
                (left + width, 0.75 * height),
                (left + 0.75 * width, height),
                (left + 0.25 * width, height),
            ]
            frame.polygon(ridge, roof, label)
            for storey in np.arange(1.2, 0.7 * height, 3.0):
                frame.box(left + 1, storey, left + width - 1, storey + 1.4, mix(colour, (50.0, 54.0, 62.0), 0.5))
        left += width * rng.uniform(0.8, 1.0)


def _draw_treetops(
    frame: Upright, rng: np.random.Generator, left: float, right: float, height: float, colour: Colour
) -> None:
    across = np.linspace(left - 1, right + 1, 14)
    bulge = np.sqrt(np.maximum(1 - ((across - (left + right) / 2) / ((right - left) / 2 + 1)) ** 2, 0))
    tops = height * (0.35 + 0.65 * bulge) * rng.uniform(0.85, 1.1, 14)
    outline = np.concatenate([np.stack([across, tops], axis=1), [[right + 1, 0.0], [left - 1, 0.0]]])
    frame.polygon(outline, colour, TREE)

"""The class ids, the colours of street surfaces, and how much they overlap between classes."""

import numpy as np

Colour = tuple[float, float, float]

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)

COLOUR_OVERLAP = 0.25
"""Hardness: probability (0..1) that a man-made thing takes its colour from the pool that all of them share (greys,
browns, dark greens) instead of its own palette. At 1 colour tells such classes apart no more."""

COLOUR_JITTER = 13.0
"""Standard deviation of a surface's brightness about its palette entry, in grey levels of 0..255."""

_SHARED: list[Colour] = [
    (62, 62, 66), (88, 88, 90), (112, 112, 112), (138, 138, 136), (168, 166, 160), (98, 84, 70),
    (120, 100, 82), (60, 72, 54), (84, 92, 66), (46, 50, 60), (130, 88, 72), (196, 194, 188),
]  # fmt: skip

_PALETTES: dict[str, list[Colour]] = {
    "wall": [
        (132, 78, 62), (150, 98, 74), (196, 172, 128), (214, 202, 172), (228, 226, 218), (148, 146, 142),
        (112, 108, 104), (94, 64, 56), (182, 150, 118), (206, 206, 206), (170, 160, 146), (120, 120, 124),
    ],
    "roof": [(78, 74, 76), (96, 72, 62), (66, 68, 76), (120, 80, 64), (92, 90, 88)],
    "shop": [(150, 30, 34), (28, 62, 128), (30, 96, 58), (40, 40, 44), (206, 160, 40), (224, 222, 214), (110, 36, 84)],
    "sign": [(30, 80, 160), (196, 36, 40), (226, 224, 216), (236, 186, 40), (24, 110, 70), (150, 30, 34)],
    "door": [(36, 40, 70), (92, 28, 28), (36, 70, 48), (70, 52, 36), (200, 200, 196)],
    "asphalt": [(84, 84, 88), (98, 97, 98), (112, 111, 110), (74, 75, 80), (104, 100, 96)],
    "slab": [(138, 134, 128), (154, 150, 144), (124, 122, 120), (146, 132, 122), (112, 110, 110)],
    "leaf": [(66, 88, 38), (84, 104, 44), (52, 74, 36), (104, 112, 52), (96, 88, 44), (58, 82, 56)],
    "grass": [(88, 112, 50), (104, 118, 60), (76, 98, 46), (116, 116, 74)],
    "bark": [(70, 58, 48), (84, 76, 68), (54, 48, 44)],
    "fence": [(48, 66, 52), (40, 42, 46), (128, 96, 64), (96, 72, 50), (150, 152, 152), (206, 204, 198), (70, 92, 58)],
    "pole": [(96, 98, 100), (130, 132, 132), (58, 62, 62), (52, 68, 58), (160, 160, 158)],
    "car": [
        (168, 170, 174), (120, 124, 130), (44, 46, 52), (30, 34, 62), (150, 30, 32), (34, 66, 128),
        (226, 226, 226), (88, 90, 94), (50, 84, 70), (148, 110, 62), (110, 34, 46), (92, 116, 132),
    ],
    "bus": [(170, 28, 32), (206, 200, 178), (60, 110, 150), (224, 224, 220), (54, 96, 66)],
    "cloth": [
        (34, 36, 46), (52, 56, 78), (140, 44, 48), (60, 80, 120), (196, 190, 180), (110, 92, 70), (24, 24, 26),
        (190, 52, 46), (64, 104, 176), (220, 176, 60), (228, 224, 216), (150, 70, 120),
    ],
    "bright": [(206, 226, 40), (236, 126, 30), (214, 40, 48), (216, 236, 60), (60, 160, 214)],
    "skin": [(208, 164, 138), (176, 128, 100), (124, 86, 66), (222, 184, 160)],
    "litter": [(44, 66, 52), (40, 40, 42), (84, 84, 80), (120, 52, 40), (58, 70, 96)],
}  # fmt: skip

_NATURAL = ("asphalt", "slab", "leaf", "grass", "bark", "skin")  # not painted: never from the shared pool


def pick(rng: np.random.Generator, kind: str) -> Colour:
    """A random colour (RGB, 0..255) for a surface of `kind`, from its palette or, by COLOUR_OVERLAP, the shared one."""
    share, place = rng.random(2)
    colours = _SHARED if share < COLOUR_OVERLAP and kind not in _NATURAL else _PALETTES[kind]
    base = colours[int(place * len(colours))]
    return shift(base, rng.normal(0.0, COLOUR_JITTER))


def shift(colour: Colour, levels: float) -> Colour:
    """`colour` with `levels` (of 0..255) added to each channel."""
    return _clipped(colour[0] + levels, colour[1] + levels, colour[2] + levels)


def scale(colour: Colour, factor: float) -> Colour:
    """`colour` with its brightness multiplied by `factor`."""
    return _clipped(colour[0] * factor, colour[1] * factor, colour[2] * factor)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` (0..1) of the second colour, the rest of the first."""
    red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
    return (red, green, blue)


def _clipped(red: float, green: float, blue: float) -> Colour:
    return (min(max(red, 0.0), 255.0), min(max(green, 0.0), 255.0), min(max(blue, 0.0), 255.0))

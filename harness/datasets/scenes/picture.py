"""Turns a canvas into a picture (haze, wet roads, glare, lens and sensor) and its label at the picture's size."""

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.datasets.scenes.canvas import SUPERSAMPLING, TILE, Canvas, FloatArray, noise_patch, noise_tiles
from harness.datasets.scenes.palette import (
    BICYCLIST,
    BUILDING,
    CAR,
    FENCE,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
    VOID,
)
from harness.datasets.scenes.weather import Weather

DEGRADATION = 1.0
"""Hardness: factor (0 or more) on the sensor's noise, the blur of the lens and the mottling of surfaces."""

# Ties between the canvas pixels in one pixel go to the rarer class; otherwise thin things would break up.
_RARE_FIRST = np.array(
    [BICYCLIST, PEDESTRIAN, POLE, SIGN, FENCE, CAR, TREE, PAVEMENT, BUILDING, SKY, ROAD, VOID], np.uint8
)

# Strength of the mottling by class id, for the texture of leaves, bricks and clothes in a small picture.
_MOTTLE = np.array([0.01, 0.06, 0.04, 0.03, 0.04, 0.07, 0.04, 0.06, 0.05, 0.08, 0.08, 0.05], np.float32)

_VOID_BORDERS = 0.6  # share of the pictures in which some borders between things are unlabelled


def develop(
    canvas: Canvas, weather: Weather, looks: np.random.Generator, sensor: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image uint8 [H, W, 3] and label uint8 [H, W] of a painted canvas.

    `looks` draws what belongs to the scene and is the same at any size; `sensor` draws the pixel noise.
    """
    rows, columns = (side // SUPERSAMPLING for side in canvas.label.shape)
    label = majority(canvas.label)
    image = cv2.resize(canvas.image, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    nearness = canvas.nearness[::SUPERSAMPLING, ::SUPERSAMPLING]
    _, soft = noise_tiles()
    draws = looks.random(12)
    window = (TILE * 0.5, TILE * 0.5)
    mottle = noise_patch(soft, (draws[0], draws[1]), window, (rows, columns))
    image *= 1 + (DEGRADATION * _MOTTLE[label] * mottle)[..., None]
    if weather.wet:
        image = add_reflections(image, label, weather.wet)
    image = add_haze(image, nearness, weather)
    horizon = canvas.camera.horizon / SUPERSAMPLING
    if weather.glare:
        image = add_glare(image, label, weather, horizon)
    if weather.name == "rain":
        image = add_rain(image, looks)
    picture = expose(image, weather, draws[2:], sensor)
    if draws[11] < _VOID_BORDERS:
        where = noise_patch(soft, (draws[1], draws[0]), window, (rows, columns)) > 0.2
        label[void_borders(label, nearness) & where] = VOID
    return picture, label


def majority(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label at the picture's size: the most frequent id in each pixel; ties go to the rarer class."""
    offsets = [(row, column) for row in range(SUPERSAMPLING) for column in range(SUPERSAMPLING)]
    parts = np.stack([label[row::SUPERSAMPLING, column::SUPERSAMPLING] for row, column in offsets])
    smaller = parts[0].copy()
    mixed = (parts != smaller).any(axis=0)
    votes = parts[:, mixed]
    counts = (votes[None] == _RARE_FIRST[:, None, None]).sum(axis=1)
    smaller[mixed] = _RARE_FIRST[counts.argmax(axis=0)]
    return smaller


def void_borders(label: NDArray[np.uint8], nearness: FloatArray) -> NDArray[np.bool_]:
    """The far side of each border: pixels [H, W] with one of four neighbours that is of another class and nearer."""
    border = np.zeros(label.shape, bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = label[here] != label[there]
        border[here] |= differs & (nearness[here] < nearness[there])
        border[there] |= differs & (nearness[there] < nearness[here])
    return border


def add_haze(image: FloatArray, nearness: FloatArray, weather: Weather) -> FloatArray:
    """The image faded to the skyline's colour with distance."""
    distance = np.where(nearness > 0, 1 / np.maximum(nearness, np.float32(2e-3)), np.float32(120))
    seen = np.exp(-np.float32(weather.haze) * distance)[..., None]
    return image * seen + np.array(weather.skyline, np.float32) * (1 - seen)


def add_reflections(image: FloatArray, label: NDArray[np.uint8], strength: float) -> FloatArray:
    """The image with reflections in wet ground, mirrored at the row where the ground begins in each column."""
    rows, columns = label.shape
    wet = (label == ROAD) | (label == PAVEMENT)
    row = np.arange(rows)[:, None]
    foot = np.maximum.accumulate(np.where(wet, -1, row), axis=0)
    mirrored = np.clip(2 * foot + 1 - row, 0, rows - 1)
    reflection = image[mirrored, np.arange(columns)[None]]
    tall = max(rows // 24, 1)
    mirror = np.asarray(cv2.blur(reflection, (1, 2 * tall + 1)))
    share = np.float32(0.6 * strength) * wet[..., None]
    # Wet ground is darker than dry ground apart from its reflections.
    return image * (1 - np.float32(0.35 * strength) * wet[..., None]) * (1 - share) + mirror * share


def add_glare(image: FloatArray, label: NDArray[np.uint8], weather: Weather, horizon: float) -> FloatArray:
    """The image against a low sun: a bright veil around it, and everything in front of it dark."""
    rows, columns = label.shape
    column = columns * (0.5 + 0.9 * weather.sun[0] / max(weather.sun[2], 0.2))
    row = horizon - columns * 0.9 * weather.sun[1]
    distance = np.hypot(np.arange(columns)[None] - column, np.arange(rows)[:, None] - row) / columns
    veil = weather.glare * (0.75 * np.exp(-((distance / 0.3) ** 2)) + 0.3 * np.exp(-distance / 0.5))
    against = np.where(label == SKY, 1.0, 0.72).astype(np.float32)[..., None]
    sun = np.array([255.0, 244.0, 214.0], np.float32)
    return image * against * (1 - 0.5 * veil[..., None]) + sun * veil[..., None]


def add_rain(image: FloatArray, looks: np.random.Generator) -> FloatArray:
    """The image with streaks of rain and drops on the lens."""
    rows, columns = image.shape[:2]
    streaks = np.zeros((rows, columns), np.uint8)
    slant = looks.normal(0.0, 0.12)
    for x, y, length in looks.random((90, 3)):
        start = (int(x * columns), int(y * rows))
        reach = (0.03 + 0.06 * length) * rows
        cv2.line(streaks, start, (int(start[0] + slant * reach), int(start[1] + reach)), 255, 1, cv2.LINE_AA)
    image = image + 0.16 * streaks[..., None].astype(np.float32)
    smeared = cv2.GaussianBlur(image, (0, 0), columns / 60)
    drops = np.zeros((rows, columns), np.float32)
    for x, y, size in looks.random((6, 3)):
        radius = max(int((0.01 + 0.03 * size) * columns), 1)
        cv2.circle(drops, (int(x * columns), int(y * rows)), radius, 0.8, -1, cv2.LINE_AA)
    return image + drops[..., None] * (smeared - image)


def expose(image: FloatArray, weather: Weather, draws: FloatArray, sensor: np.random.Generator) -> NDArray[np.uint8]:
    """The image uint8 with colour cast, contrast, vignette, lens blur and noise; `draws`: 9 numbers in 0..1."""
    rows, columns = image.shape[:2]
    # Saturation, then a factor for each channel, as one matrix over RGB.
    keep = weather.saturation * (0.8 + 0.4 * draws[0])
    gains = weather.exposure * np.array(weather.cast) * (1 + 0.1 * (draws[1:4] - 0.5))
    colours = (keep * np.eye(3) + (1 - keep) / 3) * gains[:, None] / 255
    image = np.clip(cv2.transform(image, colours), 0, 2)
    # A film-like curve: contrast by a power, and highlights that burn out as CamVid's skies do.
    image = 255 * np.asarray(cv2.pow(image, float(0.85 + 0.4 * draws[4])), np.float32)
    down, right = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    image *= (1 - (0.06 + 0.16 * draws[5]) * (down**2 + right**2) / 2)[..., None].astype(np.float32)
    blur = DEGRADATION * (0.2 + 0.5 * draws[6]) * columns / 192
    if blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), max(blur, 0.2)).astype(np.float32, copy=False)
    noise = sensor.standard_normal((rows, columns, 3), dtype=np.float32)
    # The noise of neighbouring pixels is correlated.
    noise = 0.8 * noise + 0.8 * cv2.blur(noise, (2, 2))
    return np.clip(image + DEGRADATION * weather.noise * noise, 0, 255).astype(np.uint8)

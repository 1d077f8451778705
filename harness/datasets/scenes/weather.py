"""Weather and light: some kinds in all pictures, others only in test pictures."""

import math
from dataclasses import dataclass, replace

import numpy as np

from harness.datasets.scenes.palette import Colour, mix

SPLITS = ("train", "val", "test")

TRAIN_WEATHER = ("sunny", "overcast", "hazy")
HELD_OUT_WEATHER = ("dusk", "fog", "rain", "glare")

HELD_OUT_SHARE = 0.5
"""Hardness: probability that a test picture has a weather of HELD_OUT_WEATHER, which train and val never show."""


@dataclass(frozen=True)
class Weather:
    """Light and air in one picture. Colours are RGB in 0..255, strengths are shares in 0..1."""

    name: str  # one of TRAIN_WEATHER and HELD_OUT_WEATHER
    zenith: Colour  # of the sky straight above
    skyline: Colour  # of the sky at the horizon, and of haze
    clouds: float  # strength
    cloud: Colour
    sun: np.ndarray  # unit vector [3] towards the sun
    direct: float  # the sun's light on a surface that faces it
    ambient: float  # the sky's light; 1 is the palette's brightness
    shadow: float  # share of the light that a shadow removes
    softness: float  # blur of a shadow's edge, as a share of the picture's width
    haze: float  # share of the light lost per metre
    exposure: float  # brightness factor
    cast: Colour  # factor for each channel, about 1
    saturation: float  # 1 keeps the colours, 0 is grey
    noise: float  # deviation of the sensor's noise, in grey levels
    lamps: bool  # whether lamps and windows are lit
    wet: float  # strength of the reflections in the road
    glare: float  # strength of the sun's veil in the lens

    def shade(self, normal: np.ndarray) -> float:
        """The light on a surface with unit `normal` [3], as a factor for its colour."""
        return self.ambient + self.direct * max(float(normal @ self.sun), 0.0)


def choose_weather(rng: np.random.Generator, split: str) -> str:
    """The name of a picture's weather: train and val never get one of HELD_OUT_WEATHER."""
    held_out = rng.random() < HELD_OUT_SHARE and split == "test"
    names = HELD_OUT_WEATHER if held_out else TRAIN_WEATHER
    return names[int(rng.random() * len(names))]


def make_weather(rng: np.random.Generator, name: str) -> Weather:
    """Random light and air of a picture in the weather called `name`."""
    vary = [float(draw) for draw in rng.random(8)]
    # A glaring sun is low and straight ahead; otherwise it is anywhere.
    height = math.radians({"glare": 7 + 9 * vary[0], "dusk": 20.0}.get(name, 24 + 36 * vary[0]))
    side = math.radians(-25 + 50 * vary[1] if name == "glare" else 360 * vary[1])
    sun = np.array([math.cos(height) * math.sin(side), math.sin(height), math.cos(height) * math.cos(side)])
    blue, pale, grey = (112.0, 156.0, 206.0), (214.0, 224.0, 234.0), (196.0, 200.0, 204.0)
    sunny = Weather(
        name=name,
        sun=sun,
        zenith=mix(blue, pale, 0.8 * vary[2]),
        skyline=mix(pale, (250.0, 250.0, 248.0), vary[3]),
        clouds=vary[4],
        cloud=(246.0, 246.0, 246.0),
        direct=0.62,
        ambient=0.58,
        shadow=0.52,
        softness=0.004,
        haze=0.0012,
        exposure=1.0 + 0.35 * vary[5],
        cast=(1.02, 1.0, 0.97 + 0.04 * vary[6]),
        saturation=1.0,
        noise=2.0 + 2 * vary[7],
        lamps=False,
        wet=0.0,
        glare=0.0,
    )
    overcast = replace(
        sunny,
        zenith=mix(grey, (150.0, 156.0, 164.0), vary[2]),
        skyline=mix(grey, (232.0, 232.0, 232.0), vary[3]),
        clouds=0.3 + 0.7 * vary[4],
        cloud=(226.0, 228.0, 230.0),
        direct=0.12,
        ambient=0.72,
        shadow=0.22,
        softness=0.02,
        haze=0.002,
        exposure=0.85 + 0.3 * vary[5],
        cast=(0.98, 1.0, 1.0 + 0.05 * vary[6]),
        saturation=0.8,
        noise=2.5 + 2 * vary[7],
    )
    if name == "sunny":
        return sunny
    if name == "overcast":
        return overcast
    if name == "hazy":
        return replace(
            sunny,
            zenith=mix(pale, grey, vary[2]),
            skyline=(226.0, 226.0, 222.0),
            clouds=0.15,
            direct=0.36,
            shadow=0.35,
            softness=0.01,
            haze=0.006 + 0.008 * vary[3],
            saturation=0.85,
        )
    if name == "dusk":
        return replace(
            overcast,
            zenith=mix((40.0, 50.0, 84.0), (92.0, 96.0, 120.0), vary[2]),
            skyline=mix((206.0, 140.0, 96.0), (150.0, 136.0, 150.0), vary[3]),
            cloud=(120.0, 96.0, 104.0),
            direct=0.08,
            haze=0.003,
            exposure=0.5 + 0.25 * vary[5],
            cast=(0.92, 0.95, 1.16),
            noise=4.0 + 3 * vary[7],
            lamps=True,
        )
    if name == "fog":
        return replace(
            overcast,
            zenith=(206.0, 208.0, 210.0),
            skyline=(204.0, 206.0, 208.0),
            clouds=0.05,
            direct=0.03,
            shadow=0.12,
            haze=0.018 + 0.022 * vary[4],
            saturation=0.6,
            lamps=vary[6] < 0.5,
        )
    if name == "rain":
        return replace(
            overcast,
            zenith=mix((120.0, 124.0, 130.0), grey, 0.6 * vary[2]),
            skyline=(178.0, 182.0, 186.0),
            shadow=0.08,
            haze=0.008 + 0.006 * vary[3],
            exposure=0.62 + 0.25 * vary[5],
            saturation=0.7,
            lamps=True,
            wet=0.3 + 0.3 * vary[6],
        )
    assert name == "glare", name
    return replace(
        sunny,
        zenith=mix(pale, (255.0, 246.0, 226.0), vary[2]),
        skyline=(255.0, 240.0, 208.0),
        direct=0.8,
        ambient=0.4,
        shadow=0.55,
        haze=0.005,
        cast=(1.08, 1.0, 0.88),
        glare=0.6 + 0.4 * vary[3],
    )

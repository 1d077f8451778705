"""Renders a scene from its seed: weather, camera and plan, painted far to near."""

import numpy as np
from numpy.typing import NDArray

from harness.datasets.scenes.canvas import SUPERSAMPLING, Camera, Canvas
from harness.datasets.scenes.furniture import draw_bonnet, draw_skyline
from harness.datasets.scenes.ground import Street, draw_ground, draw_shadows, draw_sky
from harness.datasets.scenes.picture import develop
from harness.datasets.scenes.plan import plan_furniture, plan_people, plan_plots, plan_street, plan_vehicles
from harness.datasets.scenes.weather import SPLITS, choose_weather, make_weather
from harness.errors import UserError


def render(
    seed: int, split: str, index: int, height: int = 144, width: int = 192
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A street scene: image uint8 [height, width, 3] RGB and label uint8 [height, width].

    Labels are CamVid's ids 0..10, and 11 for unlabelled. The scene depends only on (seed, split, index): seed and index
    are integers >= 0, the split is "train", "val" or "test". Height and width (at least 16) only change the resolution.
    "test" also has weather that the other splits never have. Raises UserError for an unknown split.
    """
    # Each part of a scene has its own generator, so that it does not depend on how many numbers another part draws.
    weather_rng, layout, looks, sensor = _generators(seed, split, index)
    weather = make_weather(weather_rng, choose_weather(weather_rng, split))
    street = plan_street(layout)
    camera = place_camera(layout, street, SUPERSAMPLING * height, SUPERSAMPLING * width)
    canvas = Canvas(camera)
    lining = plan_plots(layout, street)
    standing = plan_vehicles(layout, street, 1 if camera.position[0] > 0 else -1)
    standing += plan_furniture(layout, street) + plan_people(layout, street)

    # Painted far to near. The sides of the street never hide things on it, so they come first.
    order = sorted(lining, key=lambda thing: -thing.depth) + sorted(standing, key=lambda thing: -thing.depth)
    sky, ground, skyline, bonnet, *generators = looks.spawn(4 + len(order))
    draw_sky(canvas, sky, weather)
    draw_ground(canvas, ground, weather, street)
    draw_shadows(canvas, weather, [thing.box for thing in order if thing.box])
    draw_skyline(canvas, skyline, weather, street.end)
    for thing, rng in zip(order, generators, strict=True):
        thing.draw(canvas, rng, weather)
    if layout.random() < 0.25:
        draw_bonnet(canvas, bonnet, weather)
    return develop(canvas, weather, looks, sensor)


def weather_of(seed: int, split: str, index: int) -> str:
    """The name of the weather in this picture of `render` (see TRAIN_WEATHER and HELD_OUT_WEATHER)."""
    return choose_weather(_generators(seed, split, index)[0], split)


def _generators(seed: int, split: str, index: int) -> list[np.random.Generator]:
    """Independent generators for weather, layout, looks and sensor noise of one picture."""
    if split not in SPLITS:
        raise UserError(f"the scenes have no split {split!r}: choose one of {', '.join(SPLITS)}")
    return [np.random.default_rng(s) for s in np.random.SeedSequence([seed, SPLITS.index(split), index]).spawn(4)]


def place_camera(rng: np.random.Generator, street: Street, height: int, width: int) -> Camera:
    """A camera in a car in the left lane (sometimes the right one), looking roughly along the street."""
    lane = -1 if rng.random() < 0.8 else 1
    x = lane * street.half * rng.uniform(0.3, 0.6)
    focal, horizon = rng.uniform(0.82, 1.02) * width, rng.uniform(0.42, 0.56) * height
    yaw = np.deg2rad(np.clip(rng.normal(0.0, 3.0), -8, 8))
    return Camera(height, width, focal, horizon, x, rng.uniform(1.25, 1.65), yaw)

"""The plan of a scene: which street, what stands where, and the order in which it is painted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.datasets.scenes.buildings import Plot, draw_building
from harness.datasets.scenes.canvas import SUPERSAMPLING, Camera, Canvas
from harness.datasets.scenes.furniture import (
    draw_bollard, draw_bonnet, draw_clutter, draw_lamp_post, draw_sign, draw_skyline, draw_traffic_light,
)  # fmt: skip
from harness.datasets.scenes.ground import Box, Street, draw_ground, draw_shadows, draw_sky
from harness.datasets.scenes.people import draw_bicyclist, draw_pedestrian
from harness.datasets.scenes.picture import develop
from harness.datasets.scenes.plants import draw_fence, draw_hedge, draw_tree
from harness.datasets.scenes.vehicles import BODIES, Pose, draw_vehicle
from harness.datasets.scenes.weather import SPLITS, Weather, choose_weather, make_weather
from harness.errors import UserError

Draw = Callable[[Canvas, np.random.Generator, Weather], None]


@dataclass(frozen=True)
class Thing:
    """Something to paint: its depth (metres along the street), how, and the box that casts its shadow."""

    depth: float
    draw: Draw
    box: Box | None = None


def render(
    seed: int, split: str, index: int, height: int = 144, width: int = 192
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render one street scene.

    The scene depends on (seed, split, index) alone; height and width only change how finely it is drawn.

    Args:
        seed: of the data set, 0 or more.
        split: "train", "val" or "test"; test also shows weather that the others never do.
        index: of the picture in its split, 0 or more.
        height: rows, at least 16.
        width: columns, at least 16.

    Returns:
        Image uint8 [height, width, 3] RGB, and label uint8 [height, width]: CamVid's ids 0..10, and 11 for unlabelled.

    Raises:
        UserError: an unknown split.
    """
    weather_rng, layout, looks, sensor = _generators(seed, split, index)
    weather = make_weather(weather_rng, choose_weather(weather_rng, split))
    street = plan_street(layout)
    camera = place_camera(layout, street, SUPERSAMPLING * height, SUPERSAMPLING * width)
    canvas = Canvas(camera)
    behind, things = plan_plots(layout, street), plan_things(layout, street, camera)

    # Painted far to near. What lines the street never hides what stands in it, so it comes first.
    order = sorted(behind, key=lambda thing: -thing.depth) + sorted(things, key=lambda thing: -thing.depth)
    generators = looks.spawn(len(order) + 4)
    draw_sky(canvas, generators[-1], weather)
    draw_ground(canvas, generators[-2], weather, street)
    draw_shadows(canvas, weather, [thing.box for thing in order if thing.box])
    draw_skyline(canvas, generators[-3], weather, street.end)
    for thing, rng in zip(order, generators, strict=False):
        thing.draw(canvas, rng, weather)
    if layout.random() < 0.25:
        draw_bonnet(canvas, generators[-4], weather)
    return develop(canvas, weather, looks, sensor)


def weather_of(seed: int, split: str, index: int) -> str:
    """The name of the weather that `render` gives this picture (see TRAIN_WEATHER and HELD_OUT_WEATHER)."""
    return choose_weather(_generators(seed, split, index)[0], split)


def _generators(seed: int, split: str, index: int) -> list[np.random.Generator]:
    """Independent generators for weather, layout, looks and sensor noise of one picture."""
    if split not in SPLITS:
        raise UserError(f"the scenes have no split {split!r}: choose one of {', '.join(SPLITS)}")
    return [np.random.default_rng(s) for s in np.random.SeedSequence([seed, SPLITS.index(split), index]).spawn(4)]


def place_camera(rng: np.random.Generator, street: Street, height: int, width: int) -> Camera:
    """A camera in a car on the left lane (now and then the right one), looking roughly along the street."""
    lane = -1 if rng.random() < 0.8 else 1
    x = lane * street.half * rng.uniform(0.3, 0.6)
    focal, horizon = rng.uniform(0.82, 1.02) * width, rng.uniform(0.42, 0.56) * height
    yaw = np.deg2rad(np.clip(rng.normal(0.0, 3.0), -8, 8))
    return Camera(height, width, focal, horizon, x, rng.uniform(1.25, 1.65), yaw)


def plan_street(rng: np.random.Generator) -> Street:
    """Widths, length and side streets."""
    pavements = {side: rng.uniform(1.4, 3.2) for side in (-1, 1)}
    street = Street(half=rng.uniform(3.4, 6.0), pavements=pavements, end=rng.uniform(60, 120))
    for side in (-1, 1):
        if rng.random() < 0.35:
            near = rng.uniform(12, 45)
            street.crossings.append((side, near, near + rng.uniform(5, 9)))
    return street


def plan_plots(rng: np.random.Generator, street: Street) -> list[Thing]:
    """What lines the street on both sides: houses along the pavement, houses behind gardens, and parks."""
    plots: list[Thing] = []
    leafy = rng.random()
    for side in (-1, 1):
        near = rng.uniform(1.0, 8.0)
        storeys = int(rng.integers(2, 4))
        while near < street.end:
            length = rng.uniform(7, 16)
            crossing = next(
                ((n, f) for s, n, f in street.crossings if s == side and n < near + length and near < f), None
            )
            if crossing and crossing[0] - near < 4:
                near = crossing[1]
                continue
            far = min(near + length, street.end, crossing[0] if crossing else np.inf)
            kind = rng.random()
            if kind < 0.1 + 0.3 * leafy:
                plots += plan_park(rng, street, side, near, far)
            elif kind < 0.25 + 0.4 * leafy:
                plots += plan_garden(rng, street, side, near, far, storeys)
            else:
                tall = int(np.clip(storeys + rng.integers(-1, 2), 2, 5))
                plots.append(_building(Plot(side, street.edge(side), near, far, tall)))
            near = far + (rng.uniform(1, 5) if rng.random() < 0.25 else 0.0)
    return plots


def _building(plot: Plot) -> Thing:
    left, right = sorted((plot.side * plot.front, plot.side * (plot.front + 8)))
    box = (left, right, plot.height, plot.near, plot.far)
    return Thing(plot.far, lambda canvas, rng, weather: draw_building(canvas, rng, weather, plot), box)


def _tree(x: float, z: float, height: float, bare: bool) -> Thing:
    box = (x - 0.22 * height, x + 0.22 * height, 0.8 * height, z - 0.22 * height, z + 0.22 * height)
    return Thing(z, lambda canvas, rng, weather: draw_tree(canvas, rng, weather, x, z, height, bare), box)


def _fence(street: Street, side: int, near: float, far: float) -> Thing:
    corner, along = np.array([side * street.edge(side), 0.0, near]), np.array([0.0, 0.0, far - near])
    return Thing(near, lambda canvas, rng, weather: draw_fence(canvas, rng, weather, corner, along))


def _hedge(street: Street, side: int, near: float, far: float) -> Thing:
    front = street.edge(side)
    return Thing(near, lambda canvas, rng, weather: draw_hedge(canvas, rng, weather, side, front, near, far))


def plan_park(rng: np.random.Generator, street: Street, side: int, near: float, far: float) -> list[Thing]:
    """Grass with trees, behind a fence, a hedge or nothing."""
    street.lawns.append((side, near, far))
    bare = rng.random() < 0.2
    things = []
    for _ in range(int(rng.integers(2, 5))):
        x = side * (street.edge(side) + rng.uniform(1.5, 12))
        things.append(_tree(x, rng.uniform(near, far), rng.uniform(5, 11), bare))
    border = rng.random()
    if border < 0.55:
        things.append(_fence(street, side, near, far))
    elif border < 0.75:
        things.append(_hedge(street, side, near, far))
    return things


def plan_garden(
    rng: np.random.Generator, street: Street, side: int, near: float, far: float, storeys: int
) -> list[Thing]:
    """A house set back behind a front garden with a fence or a hedge, and perhaps a tree."""
    street.lawns.append((side, near, far))
    front = street.edge(side) + rng.uniform(3, 6)
    things = [_building(Plot(side, front, near, far, min(storeys, 3)))]
    if rng.random() < 0.4:
        x = side * (street.edge(side) + rng.uniform(0.8, 2.5))
        things.append(_tree(x, rng.uniform(near, far), rng.uniform(3.5, 7), rng.random() < 0.2))
    things.append(_fence(street, side, near, far) if rng.random() < 0.6 else _hedge(street, side, near, far))
    return things


def plan_things(rng: np.random.Generator, street: Street, camera: Camera) -> list[Thing]:
    """What stands or moves in the street itself."""
    things = plan_vehicles(rng, street, camera)
    things += plan_furniture(rng, street)
    things += plan_people(rng, street)
    return things


def plan_vehicles(rng: np.random.Generator, street: Street, camera: Camera) -> list[Thing]:
    """Parked rows along the kerbs, one ahead in the same lane, some that come towards the camera, one that crosses."""
    things: list[Thing] = []

    def add(kind: str, x: float, z: float, heading: float) -> None:
        body = BODIES[kind]
        half = (body.width if abs(np.cos(heading)) > 0.5 else body.length) / 2
        deep = (body.length if abs(np.cos(heading)) > 0.5 else body.width) / 2
        box = (x - half, x + half, 0.85 * body.height, z - deep, z + deep)
        pose = Pose(x, z, heading)
        things.append(Thing(z, lambda canvas, rng, weather: draw_vehicle(canvas, rng, weather, body, pose), box))

    def common() -> str:
        return str(rng.choice(["hatchback", "saloon", "estate", "van"], p=[0.42, 0.3, 0.18, 0.1]))

    lane = np.sign(camera.position[0])
    for side in (-1, 1):
        if rng.random() < 0.55:
            chance = rng.uniform(0.3, 0.9)
            for z in np.arange(rng.uniform(7, 16), 60, 5.8):
                if rng.random() < chance:
                    add(
                        common(), side * (street.half - 1.1), z + rng.uniform(-0.4, 0.4), 0.0 if side == lane else np.pi
                    )
    if rng.random() < 0.6:
        add(common(), camera.position[0] + rng.normal(0, 0.3), rng.uniform(8, 40), rng.normal(0, 0.03))
    for _ in range(int(rng.integers(0, 3))):
        kind = "bus" if rng.random() < 0.12 else common()
        add(kind, -lane * street.half * rng.uniform(0.4, 0.55), rng.uniform(12, 60), np.pi + rng.normal(0, 0.03))
    if rng.random() < 0.1:
        add(common(), rng.uniform(-3, 3), rng.uniform(14, 35), rng.choice([-1, 1]) * np.pi / 2)
    return things


def plan_furniture(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Posts and signs near the kerb, street trees, guard rails, and unlabelled clutter."""
    things: list[Thing] = []

    def add(draw: Callable[..., None], x: float, z: float, height: float) -> None:
        box = (x - 0.1, x + 0.1, height, z - 0.1, z + 0.1)
        things.append(Thing(z, lambda canvas, rng, weather: draw(canvas, rng, weather, x, z), box))

    for side in (-1, 1):
        kerb, back = side * (street.half + 0.4), side * (street.edge(side) - 0.35)
        for z in np.arange(rng.uniform(9, 32), 70, rng.uniform(22, 34)):
            add(draw_lamp_post, kerb, z, 7.5)
        for _ in range(int(rng.integers(0, 4))):
            add(draw_sign, kerb if rng.random() < 0.7 else back, rng.uniform(8, 28), 2.8)
        if rng.random() < 0.35:
            add(draw_traffic_light, kerb, rng.uniform(9, 30), 3.5)
        if rng.random() < 0.2:
            for z in np.arange(rng.uniform(8, 16), 34, 2.5):
                add(draw_bollard, kerb, z, 1.0)
        for _ in range(int(rng.integers(0, 3))):
            add(draw_clutter, back, rng.uniform(8, 30), 1.2)
        if rng.random() < 0.3:
            bare = rng.random() < 0.2
            for z in np.arange(rng.uniform(10, 20), 60, rng.uniform(9, 15)):
                things.append(_tree(side * (street.half + 0.9), z, rng.uniform(5, 8.5), bare))
        if rng.random() < 0.12:
            near = rng.uniform(8, 20)
            corner, along = np.array([side * (street.half + 0.2), 0.0, near]), np.array([0.0, 0.0, rng.uniform(5, 12)])
            things.append(
                Thing(near, lambda canvas, rng, weather, c=corner, a=along: draw_fence(canvas, rng, weather, c, a))
            )
    return things


def plan_people(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Pedestrians on the pavements and crossing, bicyclists along the kerb and crossing."""
    things: list[Thing] = []

    def add(draw: Draw, x: float, z: float) -> None:
        things.append(Thing(z, draw, (x - 0.25, x + 0.25, 1.7, z - 0.25, z + 0.25)))

    for _ in range(int(rng.poisson(3.0))):
        side = rng.choice([-1, 1])
        x = (
            side * rng.uniform(street.half + 0.4, street.edge(side) - 0.3)
            if rng.random() < 0.85
            else rng.uniform(-1, 1) * street.half
        )
        z = rng.uniform(9, 30)
        add(lambda canvas, rng, weather, x=x, z=z: draw_pedestrian(canvas, rng, weather, x, z), x, z)
    for _ in range(int(rng.poisson(0.7))):
        sideways = rng.random() < 0.35
        x = (
            rng.uniform(-1, 1) * street.half
            if sideways
            else rng.choice([-1, 1]) * (street.half - rng.uniform(0.5, 1.6))
        )
        z = rng.uniform(9, 24)
        add(lambda canvas, rng, weather, x=x, z=z, s=sideways: draw_bicyclist(canvas, rng, weather, x, z, s), x, z)
    return things

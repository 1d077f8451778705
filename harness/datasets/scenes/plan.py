"""The random plan of a street, as a list of things to paint."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.datasets.scenes.buildings import Plot, draw_building
from harness.datasets.scenes.canvas import Canvas
from harness.datasets.scenes.furniture import draw_bollard, draw_clutter, draw_lamp_post, draw_sign, draw_traffic_light
from harness.datasets.scenes.ground import Box, Street
from harness.datasets.scenes.palette import pick
from harness.datasets.scenes.people import draw_bicyclist, draw_pedestrian
from harness.datasets.scenes.plants import FENCES, Fence, draw_fence, draw_hedge, draw_tree
from harness.datasets.scenes.vehicles import BODIES, Pose, draw_vehicle
from harness.datasets.scenes.weather import Weather

Draw = Callable[[Canvas, np.random.Generator, Weather], None]


@dataclass(frozen=True)
class Thing:
    """Something to paint: its depth (metres along the street), draw function, and the box that casts its shadow."""

    depth: float
    draw: Draw
    box: Box | None = None


def plan_street(rng: np.random.Generator) -> Street:
    """A random street: widths, length and side streets."""
    pavements = {side: rng.uniform(1.4, 3.2) for side in (-1, 1)}
    street = Street(half=rng.uniform(3.7, 6.0), pavements=pavements, end=rng.uniform(60, 120))
    for side in (-1, 1):
        if rng.random() < 0.35:
            near = rng.uniform(12, 45)
            street.crossings.append((side, near, near + rng.uniform(5, 9)))
    return street


def plan_plots(rng: np.random.Generator, street: Street) -> list[Thing]:
    """The two sides of the street: houses along the pavement, houses behind gardens, and parks.

    Gardens and parks add their lawns to `street`.
    """
    plots: list[Thing] = []
    leafy = rng.random()
    for side in (-1, 1):
        near = rng.uniform(1.0, 8.0)
        storeys = int(rng.integers(2, 4))
        while near < street.end:
            length = rng.uniform(7, 16) * (1 + near / 50)  # far plots, which show little, are longer
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
                plots += plan_garden(rng, street, side, near, far, min(storeys, 3))
            else:
                tall = int(np.clip(storeys + rng.integers(-1, 2), 2, 5))
                plots.append(_building(Plot(side, street.edge(side), near, far, tall)))
            near = far + (rng.uniform(1, 5) if rng.random() < 0.25 else 0.0)
    return plots


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
        things.append(_fence(make_fence(rng), side * street.edge(side), near, far))
    elif border < 0.75:
        things.append(_hedge(side, street.edge(side), near, far))
    return things


def plan_garden(
    rng: np.random.Generator, street: Street, side: int, near: float, far: float, storeys: int
) -> list[Thing]:
    """A house set back behind a front garden with a fence or a hedge, and perhaps a tree."""
    street.lawns.append((side, near, far))
    edge = street.edge(side)
    things = [_building(Plot(side, edge + rng.uniform(3, 6), near, far, storeys))]
    if rng.random() < 0.4:
        x = side * (edge + rng.uniform(0.8, 2.5))
        things.append(_tree(x, rng.uniform(near, far), rng.uniform(3.5, 7), rng.random() < 0.2))
    if rng.random() < 0.6:
        things.append(_fence(make_fence(rng), side * edge, near, far))
    else:
        things.append(_hedge(side, edge, near, far))
    return things


def plan_vehicles(rng: np.random.Generator, street: Street, lane: int) -> list[Thing]:
    """Rows of parked cars, one car ahead, some oncoming ones, and sometimes one that crosses.

    `lane` is the side of the street on which the camera drives.
    """
    things: list[Thing] = []
    for side in (-1, 1):
        if rng.random() < 0.62:
            chance, heading = rng.uniform(0.3, 0.9), 0.0 if side == lane else np.pi
            for z in np.arange(rng.uniform(7, 16), 60, 5.8):
                if rng.random() < chance:
                    things.append(
                        _vehicle(_common(rng), side * (street.half - 1.1), z + rng.uniform(-0.4, 0.4), heading)
                    )
    if rng.random() < 0.6:
        x = lane * min(street.half * rng.uniform(0.35, 0.55), street.half - 2.95)  # clear of the parked row
        things.append(_vehicle(_common(rng), x, rng.uniform(7, 32), rng.normal(0, 0.03)))
    for _ in range(int(rng.integers(0, 3))):
        kind = "bus" if rng.random() < 0.12 else _common(rng)
        x = -lane * street.half * rng.uniform(0.4, 0.55)
        things.append(_vehicle(kind, x, rng.uniform(12, 60), np.pi + rng.normal(0, 0.03)))
    if rng.random() < 0.1:
        turn = rng.choice([-1, 1]) * np.pi / 2
        things.append(_vehicle(_common(rng), rng.uniform(-3, 3), rng.uniform(14, 35), turn))
    return things


def plan_furniture(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Posts and signs near the kerb, street trees, guard rails, and unlabelled clutter."""
    things: list[Thing] = []
    for side in (-1, 1):
        kerb, back = side * (street.half + 0.4), side * (street.edge(side) - 0.35)
        for z in np.arange(rng.uniform(9, 30), 45, rng.uniform(20, 30)):
            things.append(_slim(draw_lamp_post, kerb, z, 7.0))
        for _ in range(int(rng.integers(0, 4))):
            x = kerb if rng.random() < 0.7 else back
            things.append(_slim(draw_sign, x, rng.uniform(8, 22), 2.8))
        if rng.random() < 0.35:
            things.append(_slim(draw_traffic_light, kerb, rng.uniform(9, 22), 3.5))
        if rng.random() < 0.08:
            things += [_slim(draw_bollard, kerb, z, 1.0) for z in np.arange(rng.uniform(8, 16), 22, 2.5)]
        for _ in range(int(rng.integers(0, 3))):
            things.append(_slim(draw_clutter, back, rng.uniform(8, 30), 1.2))
        if rng.random() < 0.3:
            bare = rng.random() < 0.2
            for z in np.arange(rng.uniform(10, 20), 60, rng.uniform(9, 15)):
                things.append(_tree(side * (street.half + 0.9), z, rng.uniform(5, 8.5), bare))
        if rng.random() < 0.15:
            # A guard rail in pieces, each with its own depth, so that it hides people but not cars.
            fence = make_fence(rng)
            for near in rng.uniform(8, 20) + 2.0 * np.arange(rng.integers(3, 7)):
                things.append(_fence(fence, side * (street.half + 0.2), near, near + 2.0))
    return things


def plan_people(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Pedestrians on the pavements and crossing, bicyclists along the kerb and crossing."""
    things: list[Thing] = []
    for _ in range(int(rng.poisson(2.4))):
        side = int(rng.choice([-1, 1]))
        x = side * rng.uniform(street.half + 0.4, street.edge(side) - 0.3)
        if rng.random() < 0.15:
            x = rng.uniform(-street.half, street.half)
        things.append(_slim(draw_pedestrian, x, rng.uniform(7, 17), 1.7))
    for _ in range(int(rng.poisson(0.6))):
        sideways = bool(rng.random() < 0.35)
        x = rng.choice([-1, 1]) * (street.half - rng.uniform(0.5, 1.6))
        if sideways:
            x = rng.uniform(-street.half, street.half)
        things.append(_slim(partial(draw_bicyclist, sideways=sideways), x, rng.uniform(8, 17), 1.7))
    return things


def make_fence(rng: np.random.Generator) -> Fence:
    """A random kind of fence."""
    return Fence(str(rng.choice(FENCES)), rng.uniform(0.8, 1.7), pick(rng, "fence"))


def _common(rng: np.random.Generator) -> str:
    return str(rng.choice(["hatchback", "saloon", "estate", "van"], p=[0.42, 0.3, 0.18, 0.1]))


def _slim(draw: Callable[..., None], x: float, z: float, height: float) -> Thing:
    """A post or a person at (x, z)."""
    return Thing(z, partial(draw, x=x, z=z), (x - 0.2, x + 0.2, height, z - 0.2, z + 0.2))


def _vehicle(kind: str, x: float, z: float, heading: float) -> Thing:
    body = BODIES[kind]
    across = abs(np.sin(heading)) > 0.5
    half, deep = (body.length / 2, body.width / 2) if across else (body.width / 2, body.length / 2)
    box = (x - half, x + half, 0.85 * body.height, z - deep, z + deep)
    return Thing(z, partial(draw_vehicle, body=body, pose=Pose(x, z, heading)), box)


def _building(plot: Plot) -> Thing:
    left, right = sorted((plot.side * plot.front, plot.side * (plot.front + 8)))
    return Thing(plot.far, partial(draw_building, plot=plot), (left, right, plot.height, plot.near, plot.far))


def _tree(x: float, z: float, height: float, bare: bool) -> Thing:
    spread = 0.22 * height
    box = (x - spread, x + spread, 0.8 * height, z - spread, z + spread)
    return Thing(z, partial(draw_tree, x=x, z=z, height=height, bare=bare), box)


def _fence(fence: Fence, x: float, near: float, far: float) -> Thing:
    return Thing(near, partial(draw_fence, fence=fence, x=x, near=near, far=far))


def _hedge(side: int, front: float, near: float, far: float) -> Thing:
    return Thing(near, partial(draw_hedge, side=side, front=front, near=near, far=far))

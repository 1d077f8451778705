"""Cars, vans and buses as simple solid bodies."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.datasets.scenes.canvas import Canvas, FloatArray
from harness.datasets.scenes.palette import CAR, Colour, mix, pick, scale
from harness.datasets.scenes.weather import Weather

_RUBBER: Colour = (26.0, 26.0, 28.0)
_DETAIL = 20.0  # vehicles less than so many canvas pixels high have no small parts


@dataclass(frozen=True)
class Body:
    """The shape of a vehicle, in metres forward from its middle and up from the ground."""

    outline: tuple[tuple[float, float], ...]  # (forward, up), from the lower rear over the roof to the lower front
    glazed: tuple[int, ...]  # edges of the outline, counted from 0, that are rear window and windscreen
    width: float
    belt: float  # height of the lower edge of the side windows
    axles: tuple[float, float]
    palette: str = "car"

    @property
    def height(self) -> float:
        """Height in metres."""
        return max(up for _, up in self.outline)

    @property
    def length(self) -> float:
        """Length in metres."""
        return self.outline[-1][0] - self.outline[0][0]


BODIES = {
    "hatchback": Body(
        ((-1.95, 0.3), (-2.0, 0.85), (-1.9, 1.0), (-1.5, 1.45), (0.1, 1.48), (0.95, 0.98), (1.85, 0.82), (1.95, 0.3)),
        (2, 4), 1.7, 0.95, (-1.2, 1.25),
    ),
    "saloon": Body(
        ((-2.2, 0.3), (-2.25, 0.9), (-1.5, 1.0), (-0.9, 1.42), (0.35, 1.44), (1.1, 0.98), (2.1, 0.8), (2.2, 0.3)),
        (2, 4), 1.75, 0.97, (-1.35, 1.35),
    ),
    "estate": Body(
        ((-2.3, 0.35), (-2.35, 1.0), (-2.25, 1.15), (-1.95, 1.68), (0.3, 1.72), (1.1, 1.15), (2.1, 1.0), (2.25, 0.35)),
        (2, 4), 1.85, 1.1, (-1.35, 1.4),
    ),
    "van": Body(
        ((-2.5, 0.35), (-2.5, 1.15), (-2.5, 1.25), (-2.45, 2.1), (1.2, 2.15), (1.8, 1.25), (2.4, 1.05), (2.5, 0.35)),
        (2, 4), 1.95, 1.25, (-1.6, 1.6),
    ),
    "bus": Body(
        ((-5.0, 0.35), (-5.0, 1.5), (-5.0, 1.7), (-4.95, 3.0), (4.9, 3.0), (5.0, 1.5), (5.0, 1.4), (5.0, 0.35)),
        (2, 4), 2.5, 1.5, (-3.0, 3.2), "bus",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """Position and heading of a vehicle; heading 0 is away from the camera, pi / 2 to the right."""

    x: float
    z: float
    heading: float

    @cached_property
    def axes(self) -> FloatArray:
        """The vehicle's right, up and forward as unit vectors, rows of [3, 3]."""
        sin, cos = np.sin(self.heading), np.cos(self.heading)
        return np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])

    def world(self, points: FloatArray) -> FloatArray:
        """World coordinates [..., 3] of points (right, up, forward) in metres in the vehicle's frame [..., 3]."""
        return points @ self.axes + (self.x, 0.0, self.z)


def draw_vehicle(canvas: Canvas, rng: np.random.Generator, weather: Weather, body: Body, pose: Pose) -> None:
    """Draw the faces of a vehicle that are visible to the camera, far ones first, with windows, lamps and wheels."""
    colour = pick(rng, body.palette)
    glass = mix((34.0, 38.0, 44.0), weather.skyline, rng.uniform(0.05, 0.4))
    lit = weather.lamps or rng.random() < 0.25
    plate = (226.0, 200.0, 60.0) if rng.random() < 0.5 else (220.0, 220.0, 216.0)
    depth = max(canvas.camera.depth(pose.x, pose.z), 1.0)
    detailed = body.height * canvas.camera.focal / depth > _DETAIL

    half, outline = body.width / 2, np.array(body.outline)
    # The cabin leans in above the belt.
    lean = np.where(outline[:, 1] > body.belt + 0.1, 0.84, 1.0) * half
    left, right = (np.column_stack([sign * lean, outline[:, 1], outline[:, 0]]) for sign in (-1, 1))
    strips = np.stack([left[:-1], right[:-1], right[1:], left[1:]], axis=1)
    steps = np.diff(outline, axis=0)
    steps = steps / np.hypot(steps[:, :1], steps[:, 1:])
    rightward, upward, forward = pose.axes
    normals = steps[:, :1] * upward - steps[:, 1:] * forward
    corners = [*pose.world(strips), pose.world(left), pose.world(right)]
    normals = np.concatenate([normals, [-rightward, rightward]])
    middles = np.array([face[[0, len(face) // 2]].mean(axis=0) for face in corners])
    sight = canvas.camera.position - middles
    towards = (sight * normals).sum(axis=1) > 0

    draw_underside(canvas, pose, half, body, detailed)
    for face in sorted(np.flatnonzero(towards), key=lambda face: -float(np.linalg.norm(sight[face]))):
        light = weather.shade(normals[face])
        canvas.face(corners[face], scale(colour, light), CAR)
        if face >= len(strips):
            draw_side(canvas, pose, body, 1 if face > len(strips) else -1, scale(glass, light), detailed)
        elif face in body.glazed:
            canvas.face(_part(corners[face], 0.08, 0.92, 0.12, 0.9), scale(glass, 0.6 + 0.4 * light))
        elif face == 0:
            lamp = (255.0, 90.0, 70.0) if lit else scale((190.0, 24.0, 24.0), light)
            draw_end(canvas, corners[face], lamp, scale(plate, light), light, detailed)
        elif face == len(strips) - 1:
            lamp = (255.0, 250.0, 224.0) if lit else scale((196.0, 200.0, 200.0), light)
            # The outline goes down here, so the lower corners come last.
            draw_end(canvas, corners[face][[3, 2, 1, 0]], lamp, scale((222.0, 222.0, 218.0), light), light, detailed)


def _part(corners: FloatArray, left: float, right: float, low: float, high: float) -> FloatArray:
    """A part of a four-cornered face [4, 3], in shares of its width and height."""
    across, up = np.array([[left], [right], [right], [left]]), np.array([[low], [low], [high], [high]])
    lower = corners[0] + across * (corners[1] - corners[0])
    upper = corners[3] + across * (corners[2] - corners[3])
    return lower + up * (upper - lower)


def draw_underside(canvas: Canvas, pose: Pose, half: float, body: Body, detailed: bool) -> None:
    """Draw the dark road under the vehicle, and the wheels as seen from behind or ahead."""
    rear, front = body.outline[0][0], body.outline[-1][0]
    under = np.array([[-half, 0, rear], [half, 0, rear], [half, 0, front], [-half, 0, front]])
    canvas.face(pose.world(under), (24.0, 24.0, 26.0))
    for axle in body.axles if detailed else ():
        for sign in (-1, 1):
            outer, inner = sign * half * 0.98, sign * (half - 0.22)
            wheel = np.array([[outer, 0, axle], [inner, 0, axle], [inner, 0.6, axle], [outer, 0.6, axle]])
            canvas.face(pose.world(wheel), _RUBBER, CAR)


def draw_side(canvas: Canvas, pose: Pose, body: Body, sign: int, glass: Colour, detailed: bool) -> None:
    """Draw windows and wheels of the left (-1) or right (+1) side."""
    outline = np.array(body.outline)
    reach, lean = sign * (body.width / 2 + 0.01), sign * body.width * 0.43
    cabin = outline[outline[:, 1] > body.belt + 0.1]
    upper = cabin[0, 0], cabin[-1, 0]
    lower = float(np.interp(body.belt, outline[:4, 1], outline[:4, 0])) + 0.12, outline[5, 0] - 0.12
    panes = max(round((upper[1] - upper[0]) / 1.2), 2) if detailed else 1
    # A van has a window for the driver only.
    for pane in range(panes - 1 if body is BODIES["van"] else 0, panes):
        shares = (pane / panes + 0.02, (pane + 1) / panes - 0.02)
        rear, front = (lower[0] + share * (lower[1] - lower[0]) for share in shares)
        rear_top, front_top = (upper[0] + share * (upper[1] - upper[0]) for share in shares)
        top = body.height - 0.1
        corners = [[reach, body.belt, rear], [reach, body.belt, front], [lean, top, front_top], [lean, top, rear_top]]
        canvas.face(pose.world(np.array(corners)), glass)
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    radius = 0.33 if body.length < 6 else 0.48
    for axle in body.axles:
        for size, colour in ((radius, _RUBBER), (0.55 * radius, (116.0, 118.0, 120.0)))[: 2 if detailed else 1]:
            ring = np.stack([np.full(10, reach), radius + size * np.sin(angles), axle + size * np.cos(angles)], axis=1)
            canvas.face(pose.world(ring), colour, CAR)


def draw_end(canvas: Canvas, corners: FloatArray, lamp: Colour, plate: Colour, light: float, detailed: bool) -> None:
    """Draw lamps, number plate and bumper on the rear or front [4, 3], lower corners first."""
    for left, right in ((0.03, 0.2), (0.8, 0.97)):
        canvas.face(_part(corners, left, right, 0.55, 0.92), lamp)
    if detailed:
        canvas.face(_part(corners, 0.0, 1.0, 0.0, 0.34), scale((54.0, 55.0, 58.0), light))
        canvas.face(_part(corners, 0.36, 0.64, 0.4, 0.58), plate)

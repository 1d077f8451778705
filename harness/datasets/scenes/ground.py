"""Sky, road, pavements and shadows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from harness.datasets.scenes.canvas import SUPERSAMPLING, TILE, Canvas, FloatArray, noise_patch, noise_tiles
from harness.datasets.scenes.palette import PAVEMENT, ROAD, SKY, TREE, Colour, pick, scale, shift
from harness.datasets.scenes.weather import Weather

UP = np.array([0.0, 1.0, 0.0])
_ROAD, _KERB, _SLAB, _GRASS = range(4)
Box = tuple[float, float, float, float, float]  # left, right, height, near, far (metres)


@dataclass
class Street:
    """The ground plan, in metres. Sides are named by their sign: -1 left, +1 right."""

    half: float  # from the centre line to a kerb
    pavements: dict[int, float]  # width by side
    end: float  # z where the street ends
    crossings: list[tuple[int, float, float]] = field(default_factory=list)  # side streets: side, near end, far end
    lawns: list[tuple[int, float, float]] = field(default_factory=list)  # grass behind the pavement: the same

    def edge(self, side: int) -> float:
        """Distance from the centre line to the back of the pavement."""
        return self.half + self.pavements[side]


def draw_sky(canvas: Canvas, rng: np.random.Generator, weather: Weather) -> None:
    """Draw a gradient from the zenith to the skyline with clouds; the whole canvas is labelled SKY."""
    camera = canvas.camera
    zenith, skyline, cloud = (np.array(c, np.float32) for c in (weather.zenith, weather.skyline, weather.cloud))
    # The sky is smooth, so a quarter of the canvas's resolution is enough.
    rows = np.linspace(0, camera.height, max(camera.height // 4, 2), dtype=np.float32)
    height = np.clip((camera.horizon - rows) / (0.55 * camera.width), 0, 1)[:, None, None] ** 0.7
    _, soft = noise_tiles()
    start, shape = (rng.random(), rng.random()), (len(rows), max(camera.width // 4, 2))
    clouds = noise_patch(soft, start, (TILE * 0.6, TILE * 0.3), shape)[..., None]
    cover = weather.clouds * np.clip(0.45 + 0.55 * clouds, 0, 1)
    sky = skyline + height * (zenith - skyline)
    sky = np.clip(sky + cover * (cloud - sky) + 6 * weather.clouds * clouds, 0, 255).astype(np.uint8)
    canvas.image[:] = cv2.resize(sky, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    canvas.label[:] = SKY
    canvas.nearness[:] = 0


def draw_ground(canvas: Canvas, rng: np.random.Generator, weather: Weather, street: Street) -> None:
    """Draw road, kerbs, pavements and lawns, with markings, wear and texture."""
    first, x, z, nearness = canvas.camera.ground()
    if first >= canvas.camera.height:
        return
    light = weather.shade(UP)
    aside = np.abs(x)
    edge = np.where(x < 0, street.edge(-1), street.edge(1))
    zone = np.where(aside < street.half, np.uint8(_ROAD), np.uint8(_SLAB))
    zone[np.abs(aside - street.half - 0.08) < 0.09] = _KERB
    for side, near, far in street.lawns:
        zone[(x * side > edge) & (z > near) & (z < far)] = _GRASS
    for side, near, far in street.crossings:
        zone[(x * side >= street.half - 0.01) & (z > near) & (z < far)] = _ROAD
    asphalt, paving = pick(rng, "asphalt"), pick(rng, "slab")
    colours = np.array([asphalt, shift(paving, 24), paving, pick(rng, "grass")])
    canvas.image[first:] = np.clip(colours * light, 0, 255).astype(np.uint8)[zone]
    canvas.label[first:] = np.array([ROAD, PAVEMENT, PAVEMENT, TREE], np.uint8)[zone]
    canvas.nearness[first:] = nearness
    draw_patches(canvas, rng, street, scale(asphalt, light))
    draw_markings(canvas, rng, weather, street)

    step = np.s_[::SUPERSAMPLING, ::SUPERSAMPLING]  # texture at the picture's resolution
    gain = ground_texture(rng, street, x[step], z[step], nearness[step], zone[step])
    _multiply(canvas.image[first:], cv2.resize(gain, (canvas.camera.width, len(x)), interpolation=cv2.INTER_LINEAR))


def ground_texture(
    rng: np.random.Generator, street: Street, x: FloatArray, z: FloatArray, nearness: FloatArray, zone: np.ndarray
) -> np.ndarray:
    """Brightness factors (about 1) of the ground at (x, z): grain, stains, tyre tracks and joints between slabs.

    All arguments but the first two are [R, W], and so is the result, float32. Texture fades with distance, since a far
    pixel covers metres of ground.
    """
    rough, soft = noise_tiles()
    shift_x, shift_z = float(rng.random()) * TILE, float(rng.random()) * TILE
    grain = _look_up(rough, x * 14 + shift_x, z * 14 + shift_z) * np.minimum(4 * nearness, 1)
    stains = _look_up(soft, x * 18 + shift_x, z * 6 + shift_z)
    gain = 1 + grain * np.array([0.05, 0.06, 0.05, 0.16], np.float32)[zone] + 0.055 * stains
    lane = float(street.half) / 2
    gain += 0.05 * np.cos((np.abs(x) - lane) * (2.4 * math.pi / lane)) * (zone == _ROAD)
    cells = float(16 / rng.uniform(0.5, 0.9))
    slab = np.ones((16, 16), np.float32)
    slab[0], slab[:, 0] = 0, 0
    joint = 1 - _look_up(slab, x * cells, z * cells)
    return gain - 0.3 * joint * (zone == _SLAB) * np.minimum(7 * nearness, 1)


def _look_up(tile: np.ndarray, columns: FloatArray, rows: FloatArray) -> np.ndarray:
    """Values of an endlessly repeated tile at float32 columns and rows."""
    return cv2.remap(tile, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _multiply(image: np.ndarray, gain: np.ndarray) -> None:
    """Multiply an image uint8 [R, W, 3] in place by a float32 gain [R, W], within 0..255."""
    image[:] = cv2.multiply(image, cv2.merge([gain, gain, gain]), dtype=cv2.CV_8U)


def _strip(canvas: Canvas, left: float, right: float, near: float, far: float, colour: Colour) -> None:
    points = np.array([[left, 0, near], [right, 0, near], [right, 0, far], [left, 0, far]])
    canvas.face(points, colour)


def draw_patches(canvas: Canvas, rng: np.random.Generator, street: Street, asphalt: Colour) -> None:
    """Draw repairs, trenches and manhole covers: rectangles of other asphalt."""
    for _ in range(int(rng.integers(1, 6))):
        x, z = rng.uniform(-street.half, street.half), rng.uniform(3, 30)
        width, length = rng.uniform(0.4, 2.2), rng.choice([0.7, 2.5, 9.0]) * rng.uniform(0.7, 1.4)
        colour = shift(asphalt, rng.choice([-1, 1]) * rng.uniform(8, 24))
        _strip(canvas, max(x, -street.half), min(x + width, street.half), z, z + length, colour)


def draw_markings(canvas: Canvas, rng: np.random.Generator, weather: Weather, street: Street) -> None:
    """Draw centre line, lines along the kerb, stop line, arrow and zebra crossing, all labelled as road."""
    light = weather.shade(UP)
    worn = rng.uniform(0.55, 1.0)
    white, yellow = scale((222, 222, 216), light * worn), scale((206, 176, 70), light * worn)
    dash, gap = (2.0, 4.0) if rng.random() < 0.6 else (4.0, 2.0)
    for start in np.arange(rng.uniform(0, dash + gap), min(street.end, 60), dash + gap):
        _strip(canvas, -0.06, 0.06, start, start + dash, white)
    for side in (-1, 1):
        lines = int(rng.integers(0, 3))
        for line in range(lines):
            inner = side * (street.half - 0.35 - 0.22 * line)
            _strip(canvas, inner - 0.05, inner + 0.05, 1, min(street.end, 60), yellow)
    kind, z = rng.choice(["none", "none", "zebra", "stop", "arrow"]), rng.uniform(7, 22)
    if kind == "zebra":
        for left in np.arange(-street.half + 0.3, street.half - 0.5, 1.0):
            _strip(canvas, left, left + 0.55, z, z + 2.8, white)
    elif kind == "stop":
        _strip(canvas, -street.half + 0.3, -0.1, z, z + 0.35, white)
    elif kind == "arrow":
        middle = -street.half / 2
        _strip(canvas, middle - 0.1, middle + 0.1, z - 3, z, white)
        head = np.array([[middle - 0.45, 0, z], [middle + 0.45, 0, z], [middle, 0, z + 1.6]])
        canvas.face(head, white)


def draw_shadows(canvas: Canvas, weather: Weather, boxes: Sequence[Box]) -> None:
    """Darken the ground in the shadow of boxes. Call it before anything is drawn on the ground."""
    camera = canvas.camera
    first = min(max(int(camera.horizon) + 1, 0), camera.height)
    if first >= camera.height or not boxes:
        return
    left, right, height, near, far = np.array(boxes).T
    corners = np.array([[x, y, z] for x in (left, right) for y in (0 * height, height) for z in (near, far)])
    corners = corners.transpose(2, 0, 1)  # [boxes, 8, 3]
    # A box's shadow is the convex hull of its corners projected to the ground along the sunlight.
    fallen = corners - corners[..., 1:2] * weather.sun / max(weather.sun[1], 0.12)
    fallen[..., 2] = np.maximum(fallen[..., 2], 1.5)
    ahead = camera.homogeneous(fallen)
    pixels = ahead[..., :2] / np.maximum(ahead[..., 2:], 0.5) - (0, first)
    mask = np.zeros((camera.height - first, camera.width), np.uint8)
    for outline in np.clip(np.round(pixels), -30000, 30000).astype(np.int32):
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255)
    blur = 2 * max(round(weather.softness * camera.width), 1) + 1
    dark = cv2.blur(cv2.blur(mask, (blur, blur)), (blur, blur)).astype(np.float32)
    _multiply(canvas.image[first:], 1 - dark * np.float32(weather.shadow / 255))

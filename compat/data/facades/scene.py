"""One synthetic photograph of a building: viewpoint, light, surroundings, camera."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from compat.data.facades.building import FIRST_WINDOW, OUTSIDE, Color, shade

OVERSAMPLING = 2  # painted larger and averaged, so that edges are smooth

_SKIES: tuple[tuple[Color, Color], ...] = (
    ((96, 150, 214), (196, 220, 238)),
    ((150, 160, 172), (214, 216, 218)),
    ((226, 228, 232), (240, 240, 238)),
    ((92, 96, 140), (236, 176, 132)),
    ((58, 92, 160), (150, 190, 226)),
)
_LEAVES: tuple[Color, ...] = ((58, 96, 44), (92, 124, 52), (150, 112, 40), (40, 72, 40))
_CARS: tuple[Color, ...] = (
    (150, 30, 30),
    (40, 60, 110),
    (214, 214, 216),
    (36, 38, 42),
    (90, 96, 80),
)


def photograph(
    painting: Image.Image, parts: Image.Image, random: np.random.Generator, size: int
) -> Image.Image:
    """The painted building from a new viewpoint, in new light, behind other things.

    Args:
        painting: RGB front view.
        parts: Part map of the same size, see `building.draw`.
        random: Draws everything about this photograph.
        size: Side of the square result in pixels.
    """
    side = size * OVERSAMPLING
    corners = _viewpoint(painting.width / painting.height, random)
    feet = (corners[3], corners[2])
    ground = max(corners[2][1], corners[3][1])
    dusk = random.random() < 0.15
    picture = _backdrop(side, feet, random)
    mapping = _homography(
        [(x * side, y * side) for x, y in corners],
        [
            (0, 0),
            (painting.width, 0),
            (painting.width, painting.height),
            (0, painting.height),
        ],
    )
    area = (side, side)
    warp = Image.Transform.PERSPECTIVE
    front = painting.transform(area, warp, mapping, Image.Resampling.BILINEAR)
    where = parts.transform(area, warp, mapping, Image.Resampling.NEAREST)
    facade = where.point([255 * (part != OUTSIDE) for part in range(256)])
    picture.paste(_glazed(front, where, random, dusk), mask=facade)
    _occlude(picture, ground, random)
    lit = _light(size, np.asarray(facade.reduce(OVERSAMPLING)), random)
    return _exposed(picture.reduce(OVERSAMPLING), lit, random, dusk)


def _viewpoint(aspect: float, random: np.random.Generator) -> list[tuple[float, float]]:
    """Corners of the facade in the picture (shares of its side), by a pinhole camera."""
    width, height = min(1.0, aspect), min(1.0, 1 / aspect)
    yaw, pitch = random.uniform(-0.75, 0.75), random.uniform(-0.3, 0.12)
    roll = random.normal(0, 0.035)
    distance = random.uniform(1.1, 2.2)
    zoom = random.uniform(0.72, 1.25)
    shift_x, shift_y = random.normal(0, 0.07, size=2)
    corners = []
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        x3, y3, z3 = x * width / 2, y * height / 2, 0.0
        x3, z3 = x3 * math.cos(yaw), x3 * math.sin(yaw)
        y3, z3 = (
            y3 * math.cos(pitch) - z3 * math.sin(pitch),
            y3 * math.sin(pitch) + z3 * math.cos(pitch),
        )
        x3, y3 = (
            x3 * math.cos(roll) - y3 * math.sin(roll),
            x3 * math.sin(roll) + y3 * math.cos(roll),
        )
        scale = zoom * distance / (distance + z3)
        corners.append((0.5 + shift_x + x3 * scale, 0.52 + shift_y + y3 * scale))
    return corners


def _homography(
    source: list[tuple[float, float]], target: list[tuple[float, float]]
) -> tuple[float, ...]:
    """The 8 numbers of the projective map that takes the source corners to the target's."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(values)).tolist())


def _backdrop(
    side: int, feet: tuple[tuple[float, float], tuple[float, float]], random: np.random.Generator
) -> Image.Image:
    """Sky, two neighbours and a street that meets the facade at its feet."""
    high, low = (np.array(color) for color in _SKIES[int(random.integers(len(_SKIES)))])
    column = np.linspace(0, 1, 12)[:, None] * (low - high) + high
    clouds = random.normal(0, 9, (12, 6, 1)) * (random.random() < 0.6)
    sky = np.clip(column[:, None, :] + clouds, 0, 255).astype(np.uint8)
    picture = Image.fromarray(sky).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    (left, left_ground), (right, right_ground) = feet
    _neighbour(pen, side, random.uniform(-0.3, 0.0), left_ground, random)
    _neighbour(pen, side, random.uniform(0.55, 0.9), right_ground, random)
    street = int(random.integers(86, 140))
    kerb = [(-0.01, left_ground), (left, left_ground), (right, right_ground), (1.01, right_ground)]
    for lower, grey in ((0.0, street + 38), (0.035, street)):
        edge = [(x * side, (y + lower) * side) for x, y in kerb]
        pen.polygon([*edge, (side, 2 * side), (0, 2 * side)], fill=(grey, grey, grey + 3))
    return picture


def _neighbour(
    pen: ImageDraw.ImageDraw, side: int, left: float, ground: float, random: np.random.Generator
) -> None:
    width, top = random.uniform(0.3, 0.6), random.uniform(0.02, 0.5)
    grey, warm, cold = random.integers(90, 210), random.integers(0, 36), random.integers(-36, 12)
    color = (int(grey + warm), int(grey), int(grey + cold))
    pen.rectangle((left * side, top * side, (left + width) * side, 2 * side), fill=color)
    columns, rows = random.integers(2, 6, size=2).tolist()
    pane = shade(color, 0.5)
    for column in range(columns):
        for row in range(rows):
            x = (left + width * (column + 0.3) / columns) * side
            y = (top + (ground - top) * (row + 0.3) / rows) * side
            right = x + 0.4 * width / columns * side
            pen.rectangle((x, y, right, y + 0.45 * (ground - top) / rows * side), fill=pane)


def _light(size: int, facade: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(size, size, 3) float32 factors: warmth, a falling-off across the front, a cast shadow."""
    warmth = random.normal(0, 0.07)
    tone = np.array([1 + warmth, 1.0, 1 - warmth]) * random.uniform(0.75, 1.15)
    across, down = random.uniform(-0.3, 0.3, size=2)
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    field = 1 + across * line[None, :] + down * line[:, None]
    if random.random() < 0.4:
        slope, offset = random.uniform(-1.5, 1.5), random.uniform(-0.35, 0.35)
        shadow = line[:, None] > slope * line[None, :] + offset
        field = np.where(shadow, field * random.uniform(0.45, 0.75), field)
    share = facade[..., None] / np.float32(255)
    return 1 + share * (field[..., None] * tone.astype(np.float32) - 1)


def _glazed(
    front: Image.Image, where: Image.Image, random: np.random.Generator, dusk: bool
) -> Image.Image:
    """Each window as it happens to be: dark, mirroring the sky, curtained or lit."""
    reflection = np.array([150, 175, 200]) * random.uniform(0.6, 1.1)
    looks = np.array([[50, 56, 66], reflection, [214, 206, 190], [255, 214, 140]])
    chances = [0.3, 0.05, 0.15, 0.5] if dusk else [0.45, 0.35, 0.17, 0.03]
    states = random.choice(4, size=256, p=chances)
    weights = np.where(states == 0, 128, 204)
    weights[:FIRST_WINDOW] = 0
    colors = np.clip(looks[states] * random.uniform(0.85, 1.1, size=(256, 1)), 0, 255)
    glass = where.copy()
    glass.putpalette(colors.astype(np.uint8).tobytes())
    return Image.composite(glass.convert("RGB"), front, where.point(weights.tolist()))


def _occlude(picture: Image.Image, ground: float, random: np.random.Generator) -> None:
    pen = ImageDraw.Draw(picture)
    side = picture.width
    for kind in random.choice(["tree", "pole", "car", "person"], size=int(random.integers(0, 4))):
        x = random.uniform(0.02, 0.98)
        foot = (ground + random.uniform(0.0, 0.1)) * side
        if kind == "tree":
            _tree(pen, side, x * side, foot, random)
        elif kind == "car":
            _car(pen, side, x * side, foot, random)
        elif kind == "pole":
            thick = max(1, round(random.uniform(0.008, 0.02) * side))
            grey = int(random.integers(40, 110))
            pen.line((x * side, foot, x * side, -1), fill=(grey, grey, grey), width=thick)
        else:
            _person(pen, side, x * side, foot, random)


def _tree(
    pen: ImageDraw.ImageDraw, side: int, x: float, foot: float, random: np.random.Generator
) -> None:
    height, radius = random.uniform(0.25, 0.6) * side, random.uniform(0.1, 0.2) * side
    trunk = max(1.0, radius * 0.12)
    pen.rectangle((x - trunk, foot - height, x + trunk, foot), fill=(70, 54, 40))
    leaves = _LEAVES[int(random.integers(len(_LEAVES)))]
    count = int(random.integers(14, 30))
    spots = random.normal(0, 0.45, size=(count, 2)) * radius + (x, foot - height)
    for (cx, cy), blob, light in zip(
        spots,
        random.uniform(0.2, 0.5, count) * radius,
        random.uniform(0.7, 1.3, count),
        strict=True,
    ):
        pen.ellipse((cx - blob, cy - blob, cx + blob, cy + blob), fill=shade(leaves, light))


def _car(
    pen: ImageDraw.ImageDraw, side: int, x: float, foot: float, random: np.random.Generator
) -> None:
    length = random.uniform(0.2, 0.34) * side
    high = length * 0.34
    color = _CARS[int(random.integers(len(_CARS)))]
    pen.rectangle((x - length / 2, foot - high * 0.7, x + length / 2, foot), fill=color)
    cabin = [
        (x - length * 0.35, foot - high * 0.65),
        (x - length * 0.2, foot - high * 1.2),
        (x + length * 0.2, foot - high * 1.2),
        (x + length * 0.38, foot - high * 0.65),
    ]
    pen.polygon(cabin, fill=(54, 60, 70))
    for wheel in (x - length * 0.3, x + length * 0.3):
        radius = high * 0.28
        pen.ellipse(
            (wheel - radius, foot - radius, wheel + radius, foot + radius), fill=(20, 20, 22)
        )


def _person(
    pen: ImageDraw.ImageDraw, side: int, x: float, foot: float, random: np.random.Generator
) -> None:
    high = random.uniform(0.1, 0.17) * side
    red, green, blue = random.integers(20, 200, size=3).tolist()
    pen.rectangle(
        (x - high * 0.12, foot - high * 0.82, x + high * 0.12, foot), fill=(red, green, blue)
    )
    head = high * 0.1
    pen.ellipse((x - head, foot - high, x + head, foot - high + 2 * head), fill=(200, 160, 130))


def _exposed(
    picture: Image.Image, light: np.ndarray, random: np.random.Generator, dusk: bool
) -> Image.Image:
    """What the camera makes of it: blur, exposure, noise and JPEG."""
    blur = random.uniform(0, 0.9) * picture.width / 96
    if blur > 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    values = np.asarray(picture, dtype=np.float32) * light / 255
    gamma = random.uniform(0.75, 1.35)
    gain = random.uniform(0.5, 0.7) if dusk else random.uniform(0.85, 1.12)
    noise = random.standard_normal(values.shape, dtype=np.float32) * random.uniform(0.0, 0.035)
    values = np.clip(np.minimum(values, 1) ** gamma * gain + noise, 0, 1)
    file = io.BytesIO()
    quality = int(random.integers(40, 96))
    Image.fromarray((values * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")

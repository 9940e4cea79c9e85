"""One made-up building, flat: what a facade of the synthetic set looks like from the front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]

OUTSIDE, WALL, FIRST_WINDOW = 0, 1, 2  # values of a part map; windows count up to 255
CLASSES_PER_STYLE = 4

_WALLS: tuple[Color, ...] = (
    (226, 208, 168),
    (205, 160, 96),
    (158, 74, 56),
    (186, 106, 76),
    (150, 148, 142),
    (222, 180, 168),
    (176, 202, 184),
    (168, 190, 210),
    (232, 230, 224),
    (104, 60, 50),
    (198, 178, 140),
    (134, 138, 146),
    (124, 128, 92),
    (216, 196, 112),
)
_ROOFS: tuple[Color, ...] = (
    (72, 78, 90),
    (150, 78, 56),
    (84, 58, 46),
    (92, 136, 122),
    (110, 106, 104),
)
_TRIMS: tuple[Color, ...] = (
    (244, 242, 236),
    (220, 208, 180),
    (70, 52, 42),
    (44, 46, 50),
    (176, 176, 172),
    (60, 90, 72),
)
_ACCENTS: tuple[Color, ...] = (
    (46, 92, 70),
    (120, 40, 40),
    (50, 74, 120),
    (112, 78, 46),
    (226, 222, 210),
    (60, 60, 64),
    (196, 140, 50),
)
_MATERIALS = ("plaster", "brick", "stone", "panels", "planks")
_ROOF_KINDS = ("flat", "gable", "mansard", "hip", "stepped", "battlements")
_HEADS = ("plain", "lintel", "pediment", "arch")
_PANES = ("single", "cross", "double", "grid", "transom")
_GROUNDS = ("door", "shop", "arcade", "gate")


@dataclass(frozen=True)
class Style:
    """What a few buildings of the set have in common, so that telling them apart is work."""

    material: str
    wall: Color
    roof_kind: str
    roof: Color
    trim: Color
    head: str
    pane: str
    bands: bool
    pilasters: bool


@dataclass(frozen=True)
class Building:
    """All that sets one building apart; lengths are shares of its width or height.

    Args:
        aspect: Width over height.
        bays: Widths of the window axes.
        window: Width and height of a window as shares of its cell.
        balconies: Floors times bays, bool.
        blind: Floors times bays, bool: walled up.
        grain: Seed of the wall's texture.
    """

    style: Style
    wall: Color
    accent: Color
    aspect: float
    floors: int
    bays: tuple[float, ...]
    roof: float
    ground: float
    ground_kind: str
    entrance: int
    window: tuple[float, float]
    shutters: bool
    pane: str
    head: str
    balconies: np.ndarray
    blind: np.ndarray
    chimneys: tuple[float, ...]
    sign: tuple[float, float] | None
    grain: int


def design(seed: int, number: int) -> Building:
    """Building `number` of the set with this seed."""
    style = _style(np.random.default_rng([seed, 0, number // CLASSES_PER_STYLE]))
    random = np.random.default_rng([seed, 1, number])
    floors = int(random.integers(2, 7))
    rhythm = random.choice([1.0, 0.6, 1.5], size=int(random.integers(1, 4)))
    count = int(random.integers(3, 9))
    widths = [float(rhythm[min(i, count - 1 - i) % len(rhythm)]) for i in range(count)]
    own = random.random(8)
    grid = (floors, count)
    balcony_columns = random.random(count) < 0.35
    balcony_floors = random.random(floors) < 0.6
    return Building(
        style=style,
        wall=_jittered(style.wall, random, 22),
        accent=_one_of(_ACCENTS, random),
        aspect=float(np.clip(count / (floors + 2) * random.uniform(0.75, 1.15), 0.55, 1.7)),
        floors=floors,
        bays=tuple(width / sum(widths) for width in widths),
        roof=float(random.uniform(0.12, 0.24)),
        ground=float(random.uniform(0.17, 0.26)),
        ground_kind=str(random.choice(_GROUNDS)),
        entrance=int(random.integers(count)),
        window=(float(random.uniform(0.38, 0.72)), float(random.uniform(0.45, 0.78))),
        shutters=bool(own[0] < 0.3),
        pane=str(random.choice(_PANES)) if own[1] < 0.5 else style.pane,
        head=str(random.choice(_HEADS)) if own[2] < 0.4 else style.head,
        balconies=np.outer(balcony_floors, balcony_columns) & (own[3] < 0.5),
        blind=random.random(grid) < (0.1 if own[4] < 0.5 else 0.0),
        chimneys=tuple(random.uniform(0.05, 0.95, size=int(random.integers(0, 4))).tolist()),
        sign=(float(random.uniform(0.1, 0.6)), float(random.uniform(0.15, 0.35)))
        if own[5] < 0.4
        else None,
        grain=int(random.integers(2**31)),
    )


def _style(random: np.random.Generator) -> Style:
    material = str(random.choice(_MATERIALS))
    brick = material == "brick" and random.random() < 0.7
    return Style(
        material=material,
        wall=_one_of([_WALLS[2], _WALLS[3], _WALLS[9]] if brick else _WALLS, random),
        roof_kind=str(random.choice(_ROOF_KINDS)),
        roof=_one_of(_ROOFS, random),
        trim=_one_of(_TRIMS, random),
        head=str(random.choice(_HEADS)),
        pane=str(random.choice(_PANES)),
        bands=bool(random.random() < 0.5),
        pilasters=bool(random.random() < 0.3),
    )


def _one_of(colors: Sequence[Color], random: np.random.Generator) -> Color:
    return colors[int(random.integers(len(colors)))]


def _jittered(color: Color, random: np.random.Generator, spread: int) -> Color:
    """Another shade: all channels move together and each a little on its own."""
    move = random.integers(-spread, spread + 1) + random.integers(-spread // 3, spread // 3 + 1, 3)
    red, green, blue = np.clip(np.array(color) + move, 0, 255).tolist()
    return red, green, blue


def shade(color: Color, factor: float) -> Color:
    """The colour times a factor."""
    red, green, blue = (min(255, round(channel * factor)) for channel in color)
    return red, green, blue


def draw(building: Building, side: int) -> tuple[Image.Image, Image.Image]:
    """Paints the building.

    Args:
        building: What to paint.
        side: Longer side of the painting in pixels.

    Returns:
        RGB painting, and a grey image of the same size that tells `OUTSIDE`, `WALL` and the
        number of each window, from `FIRST_WINDOW` on.
    """
    width = round(side * min(1.0, building.aspect))
    height = round(side * min(1.0, 1 / building.aspect))
    easel = _Easel(width, height, building.wall)
    _wall(easel, building)
    _roof(easel, building)
    _upper_floors(easel, building)
    _ground_floor(easel, building)
    if building.sign is not None:
        left, length = building.sign
        line = 1 - building.ground
        easel.box(left, line - 0.035, left + length, line + 0.015, building.accent)
        for mark in np.linspace(left + 0.02, left + length - 0.04, 5):
            easel.box(mark, line - 0.022, mark + length * 0.09, line + 0.002, building.style.trim)
    return easel.picture, easel.parts


@dataclass
class _Easel:
    """A picture and its part map, painted in shares of the width and height."""

    width: int
    height: int
    wall: Color
    picture: Image.Image = field(init=False)
    parts: Image.Image = field(init=False)
    windows: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        size = (self.width, self.height)
        self.picture = Image.new("RGB", size, self.wall)
        self.parts = Image.new("L", size, OUTSIDE)
        self._pen = ImageDraw.Draw(self.picture)
        self._part_pen = ImageDraw.Draw(self.parts)

    def _pixels(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self.width, y * self.height) for x, y in points]

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """A filled rectangle."""
        left, top, right, bottom = self._edges(x0, y0, x1, y1)
        self._pen.rectangle((left, top, right, bottom), fill=color)

    def _edges(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int]:
        left, top = round(x0 * self.width), round(y0 * self.height)
        right = max(left, round(x1 * self.width) - 1)
        bottom = max(top, round(y1 * self.height) - 1)
        return left, top, right, bottom

    def shape(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        """A filled polygon."""
        self._pen.polygon(self._pixels(points), fill=color)

    def stroke(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        """A line one pixel wide."""
        self._pen.line(self._pixels(points), fill=color)

    def disc(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """A filled ellipse."""
        self._pen.ellipse(self._edges(x0, y0, x1, y1), fill=color)

    def body(self, points: Sequence[tuple[float, float]]) -> None:
        """Declares a polygon part of the building."""
        self._part_pen.polygon(self._pixels(points), fill=WALL)

    def window(self, x0: float, y0: float, x1: float, y1: float, *, arched: bool) -> None:
        """Declares and paints a pane; each gets a number of its own, as far as they go."""
        number = FIRST_WINDOW + self.windows % (256 - FIRST_WINDOW)
        self.windows += 1
        edges = self._edges(x0, y0, x1, y1)
        for pen, fill in ((self._pen, (58, 66, 78)), (self._part_pen, number)):
            if arched:
                left, top, right, bottom = edges
                radius = (right - left) / 2
                pen.rectangle((left, min(top + radius, bottom), right, bottom), fill=fill)
                pen.ellipse((left, top, right, min(top + 2 * radius, bottom)), fill=fill)
            else:
                pen.rectangle(edges, fill=fill)

    def solid(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Declares a rectangle to be wall again, such as a bar across a window."""
        self._part_pen.rectangle(self._edges(x0, y0, x1, y1), fill=WALL)


def _wall(easel: _Easel, building: Building) -> None:
    random = np.random.default_rng(building.grain)
    stains = Image.fromarray(random.integers(0, 256, (6, 6), dtype=np.uint8)).resize(
        (easel.width, easel.height), Image.Resampling.BICUBIC
    )
    grain = random.normal(0, 0.035, (easel.height, easel.width))
    light = 0.92 + np.asarray(stains) / 255 * 0.16 + grain
    color = np.array(building.wall) * light[..., None]
    easel.picture.paste(Image.fromarray(np.clip(color, 0, 255).astype(np.uint8)))
    seam = shade(building.wall, 0.78 if sum(building.wall) > 300 else 1.3)
    material = building.style.material
    if material in ("brick", "stone"):
        courses = 44 if material == "brick" else 16
        length = (0.055 if material == "brick" else 0.14) / building.aspect
        for course in range(courses):
            y = course / courses
            easel.stroke([(0, y), (1, y)], seam)
            for x in np.arange(length * (0.5 if course % 2 else 1), 1, length):
                easel.stroke([(x, y), (x, y + 0.8 / courses)], seam)
    elif material == "panels":
        for x in np.linspace(0, 1, len(building.bays) + 1):
            easel.stroke([(x, 0), (x, 1)], seam)
        for y in np.linspace(0, 1, building.floors + 3):
            easel.stroke([(0, y), (1, y)], seam)
    elif material == "planks":
        for x in np.arange(0, 1, 0.045):
            easel.stroke([(x, 0), (x, 1)], seam)


def _roof(easel: _Easel, building: Building) -> None:
    top, style = building.roof, building.style
    easel.body([(0, top), (1, top), (1, 1), (0, 1)])
    roof, trim = style.roof, style.trim
    for x in building.chimneys:
        chimney = [(x, 0.0), (x + 0.05, 0.0), (x + 0.05, top), (x, top)]
        easel.body([(px, max(py, top * 0.2)) for px, py in chimney])
        easel.shape(chimney, shade(building.wall, 0.7))
    if style.roof_kind == "flat":
        low = top * 0.75
        easel.body([(0, low), (1, low), (1, top), (0, top)])
        easel.box(0, low, 1, top, shade(building.wall, 0.9))
        easel.box(0, low, 1, low + 0.02, trim)
    elif style.roof_kind == "gable":
        outline = [(0.0, top), (0.5, 0.0), (1.0, top)]
        easel.body(outline)
        easel.shape(outline, building.wall)
        easel.shape([(0, top), (0.5, 0), (0.5, 0.035), (0.06, top)], roof)
        easel.shape([(1, top), (0.5, 0), (0.5, 0.035), (0.94, top)], roof)
        easel.disc(0.46, top * 0.45, 0.54, top * 0.45 + 0.08 * building.aspect, trim)
    elif style.roof_kind in ("mansard", "hip"):
        slope, peak = (0.05, top * 0.15) if style.roof_kind == "mansard" else (0.25, top * 0.25)
        outline = [(0.0, top), (slope, peak), (1 - slope, peak), (1.0, top)]
        easel.body(outline)
        easel.shape(outline, roof)
        for y in np.linspace(peak, top, 6)[1:]:
            easel.stroke([(0, y), (1, y)], shade(roof, 0.82))
        if style.roof_kind == "mansard":
            centres = np.cumsum(building.bays) - np.array(building.bays) / 2
            for x in centres[:: 1 + len(centres) // 6]:
                easel.box(x - 0.035, peak + top * 0.2, x + 0.035, top * 0.95, trim)
                easel.window(x - 0.022, peak + top * 0.32, x + 0.022, top * 0.9, arched=False)
    elif style.roof_kind == "stepped":
        for step in range(4):
            y, inset = top * (0.75 - step * 0.25), 0.12 * step
            outline = [(inset, y), (1 - inset, y), (1 - inset, top), (inset, top)]
            easel.body(outline)
            easel.stroke([(inset, y), (1 - inset, y)], trim)
    else:
        teeth = 9
        for tooth in range(teeth):
            x = tooth / teeth
            low = top * (0.5 if tooth % 2 == 0 else 0.72)
            easel.body([(x, low), (x + 1 / teeth, low), (x + 1 / teeth, top), (x, top)])
    easel.box(0, top - 0.012, 1, top + 0.014, trim)


def _upper_floors(easel: _Easel, building: Building) -> None:
    style = building.style
    lines = np.linspace(building.roof + 0.02, 1 - building.ground, building.floors + 1)
    edges = np.concatenate([[0.0], np.cumsum(building.bays)]) * 0.96 + 0.02
    if style.pilasters:
        for x in edges:
            easel.box(x - 0.012, building.roof, x + 0.012, 1, shade(building.wall, 1.12))
    for floor in range(building.floors):
        top, height = lines[floor], lines[floor + 1] - lines[floor]
        if style.bands:
            easel.box(0, top + height - 0.01, 1, top + height, style.trim)
        for bay in range(len(building.bays)):
            left, width = edges[bay], edges[bay + 1] - edges[bay]
            if not building.blind[floor, bay]:
                _window(easel, building, left, top, width, height, building.balconies[floor, bay])


def _window(
    easel: _Easel,
    building: Building,
    left: float,
    top: float,
    width: float,
    height: float,
    balcony: bool,
) -> None:
    trim = building.style.trim
    wide, high = building.window[0] * width, building.window[1] * height
    x0 = left + (width - wide) / 2
    y0 = top + (height - high) * 0.55
    x1, y1 = x0 + wide, y0 + high
    rim = min(0.012, wide * 0.16)
    if building.shutters:
        leaf = min(wide * 0.45, (width - wide) / 2)
        easel.box(x0 - leaf, y0, x0, y1, building.accent)
        easel.box(x1, y0, x1 + leaf, y1, building.accent)
    arched = building.head == "arch"
    if building.head == "lintel":
        easel.box(x0 - rim * 2, y0 - height * 0.1, x1 + rim * 2, y0, trim)
    elif building.head == "pediment":
        middle = (x0 + x1) / 2
        easel.shape([(x0 - rim * 2, y0), (middle, y0 - height * 0.16), (x1 + rim * 2, y0)], trim)
    if arched:
        easel.disc(x0 - rim, y0 - rim, x1 + rim, y0 + wide * building.aspect + rim, trim)
        easel.box(x0 - rim, y0 + wide * building.aspect / 2, x1 + rim, y1, trim)
    else:
        easel.box(x0 - rim, y0 - rim, x1 + rim, y1 + rim, trim)
    easel.window(x0, y0, x1, y1, arched=arched)
    for bar in _bars(building.pane, x0, y0, x1, y1):
        easel.box(*bar, trim)
        easel.solid(*bar)
    easel.box(x0 - rim * 1.5, y1, x1 + rim * 1.5, y1 + height * 0.05, shade(trim, 0.85))
    if balcony:
        low, rail = y1 + height * 0.04, y1 - high * 0.35
        easel.box(x0 - wide * 0.25, low, x1 + wide * 0.25, low + height * 0.06, shade(trim, 0.7))
        for x in np.linspace(x0 - wide * 0.22, x1 + wide * 0.22, 7):
            easel.stroke([(x, rail), (x, low)], (40, 40, 44))
        easel.stroke([(x0 - wide * 0.22, rail), (x1 + wide * 0.22, rail)], (40, 40, 44))


def _bars(
    pane: str, x0: float, y0: float, x1: float, y1: float
) -> list[tuple[float, float, float, float]]:
    thick = (x1 - x0) * 0.1
    middle = (x0 + x1 - thick) / 2
    upright = (middle, y0, middle + thick, y1)

    def level(share: float) -> tuple[float, float, float, float]:
        y = y0 + (y1 - y0) * share
        return (x0, y, x1, y + thick)

    return {
        "single": [],
        "double": [upright],
        "cross": [upright, level(0.48)],
        "grid": [upright, level(0.3), level(0.62)],
        "transom": [level(0.3)],
    }[pane]


def _ground_floor(easel: _Easel, building: Building) -> None:
    top, accent, trim = 1 - building.ground, building.accent, building.style.trim
    easel.box(0, 0.97, 1, 1, shade(building.wall, 0.6))
    easel.box(0, top - 0.008, 1, top + 0.012, trim)
    edges = np.concatenate([[0.0], np.cumsum(building.bays)]) * 0.96 + 0.02
    high = building.ground
    for bay, (left, right) in enumerate(itertools.pairwise(edges)):
        width = right - left
        if bay == building.entrance:
            wide = min(width * 0.7, 0.12)
            x0 = (left + right - wide) / 2
            easel.box(x0 - 0.015, top + high * 0.18, x0 + wide + 0.015, 1, trim)
            easel.box(x0, top + high * 0.26, x0 + wide, 1, shade(accent, 0.8))
            easel.window(
                x0 + wide * 0.15,
                top + high * 0.3,
                x0 + wide * 0.85,
                top + high * 0.45,
                arched=False,
            )
        elif building.ground_kind == "shop":
            easel.box(left + width * 0.04, top + high * 0.2, right - width * 0.04, 0.97, accent)
            easel.window(
                left + width * 0.1, top + high * 0.38, right - width * 0.1, 0.94, arched=False
            )
        elif building.ground_kind == "arcade":
            easel.window(
                left + width * 0.14, top + high * 0.2, right - width * 0.14, 0.985, arched=True
            )
        elif building.ground_kind == "gate" and abs(bay - building.entrance) == 1:
            easel.box(left + width * 0.1, top + high * 0.3, right - width * 0.1, 0.985, accent)
            for y in np.linspace(top + high * 0.35, 0.97, 5):
                easel.stroke([(left + width * 0.1, y), (right - width * 0.1, y)], (50, 50, 50))
        else:
            easel.box(left + width * 0.2, top + high * 0.26, right - width * 0.2, 0.9, trim)
            easel.window(
                left + width * 0.25, top + high * 0.3, right - width * 0.25, 0.87, arched=False
            )

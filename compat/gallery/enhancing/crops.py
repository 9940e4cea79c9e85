"""Square crops of a picture, all brought to the resolution that the gallery model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

ZOOM = math.sqrt(2)
ZOOMS = 5


@dataclass(frozen=True)
class Box:
    """A square part of a picture, in its pixels; it may reach beyond the border.

    Args:
        left: Column of its left edge.
        top: Row of its upper edge.
        side: Its width and height.
    """

    left: float
    top: float
    side: float


def whole(side: int) -> Box:
    """The box that is the picture itself."""
    return Box(0, 0, side)


def zooms(picture: np.ndarray) -> list[Box]:
    """The picture at the scales 1/√2, mirrored at its border, and √2, as four overlapping corners.

    Radenović et al. (TPAMI 2019) embed a picture at several resolutions with one network. A gallery
    model takes one only, so here the window grows and shrinks instead.

    Args:
        picture: (L, L, 3).

    Returns:
        `ZOOMS` boxes, the largest first.
    """
    side = len(picture)
    wide, narrow = side * ZOOM, side / ZOOM
    rest = side - narrow
    corners = [Box(left, top, narrow) for top in (0, rest) for left in (0, rest)]
    return [Box((side - wide) / 2, (side - wide) / 2, wide), *corners]


def cut(picture: np.ndarray, box: Box, resolution: int) -> np.ndarray:
    """The box's content, resized with antialiasing; beyond its border the picture is mirrored.

    Args:
        picture: (L, L, 3) uint8.
        box: What to show.
        resolution: Side of the crop in pixels, S.

    Returns:
        (S, S, 3) uint8.
    """
    ends = (box.left + box.side, box.top + box.side)
    margin = math.ceil(max(0, -box.left, -box.top, *(end - len(picture) for end in ends)))
    mirrored = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    part = (box.left + margin, box.top + margin, ends[0] + margin, ends[1] + margin)
    square = (resolution, resolution)
    image = Image.fromarray(mirrored).resize(square, Image.Resampling.BILINEAR, box=part)
    return np.asarray(image)

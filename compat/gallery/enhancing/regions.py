"""The parts of a picture that stand out from the rest of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from compat.gallery.enhancing.crops import Box, whole

REGIONS = 4
_SIDE = 96  # pixels of the picture that is segmented
_SCALE, _SMALLEST = 200, 0.01  # of the segmentation: larger segments; least share of the picture
_MARGIN = 1.2  # a box is this much larger than its segment
_LEAST = 0.5  # and at least this share of the picture's side
_OVERLAP = 0.6  # intersection over union from which on two boxes count as one


def salient_regions(picture: np.ndarray) -> list[Box]:
    """Boxes around the `REGIONS` segments that differ most in colour from the rest of the picture.

    Segments are those of Felzenszwalb and Huttenlocher (IJCV 2004). The saliency of a segment is
    the region contrast of Cheng et al. (CVPR 2011) without its spatial weight: the mean distance
    of its CIELAB colour to that of the picture's other pixels, here times the root of its
    area.

    Args:
        picture: (L, L, 3) uint8.

    Returns:
        `REGIONS` boxes inside the picture, the most salient first. A box that is nearly one before
        it, or nearly the whole picture, is left out; the whole picture fills up what is missing.
    """
    from skimage.color import rgb2lab
    from skimage.measure import regionprops
    from skimage.segmentation import felzenszwalb

    side = len(picture)
    small = np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
    smallest = round(_SMALLEST * _SIDE**2)
    segments = felzenszwalb(small, scale=_SCALE, sigma=0.8, min_size=smallest) + 1
    colours = rgb2lab(small)
    found = regionprops(segments)
    means = np.array([colours[segments == each.label].mean(0) for each in found])
    shares = np.array([each.area for each in found]) / _SIDE**2
    contrast = np.linalg.norm(means[:, None] - means[None], axis=2) @ shares
    order = np.argsort(-contrast * np.sqrt(shares), kind="stable")
    boxes = [whole(side)]
    for index in order:
        box = _around(found[index].bbox, side)
        if all(_overlap(box, other) < _OVERLAP for other in boxes):
            boxes.append(box)
    return (boxes[1:] + [whole(side)] * REGIONS)[:REGIONS]


def _around(bounds: tuple[int, int, int, int], side: int) -> Box:
    top, left, bottom, right = (edge * side / _SIDE for edge in bounds)
    length = min(side, max(_MARGIN * max(bottom - top, right - left), _LEAST * side))
    return Box(
        left=min(max(0, (left + right - length) / 2), side - length),
        top=min(max(0, (top + bottom - length) / 2), side - length),
        side=length,
    )


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.left + one.side, other.left + other.side) - max(one.left, other.left)
    height = min(one.top + one.side, other.top + other.side) - max(one.top, other.top)
    shared = max(0, width) * max(0, height)
    return shared / (one.side**2 + other.side**2 - shared)

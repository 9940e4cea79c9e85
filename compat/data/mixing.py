"""Views that hold a window with a part of another picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from compat.data.images import ImageSet

_WINDOW = (0.3, 0.5)  # of the area; what has the label shows at least half of it


def chosen_partners(
    images: ImageSet, among: Sequence[str] | np.ndarray, draws: Sequence[np.random.Generator]
) -> np.ndarray:
    """Draw for each image which other one its mixed view shows a part of.

    The draw looks at names alone, so that it is the same for some of the images as for all.

    Args:
        images: N of them.
        among: Ids of all that may be drawn, in any order.
        draws: Random numbers for each of ``images``.

    Returns:
        Their positions in ``images``, int64 (N,); -1 where the one drawn is not among these.
    """
    names = np.unique(np.asarray(among))
    drawn = names[[random.integers(len(names)) for random in draws]]
    order = np.argsort(images.ids)
    places = order[np.searchsorted(images.ids[order], drawn).clip(max=len(order) - 1)]
    return np.where(images.ids[places] == drawn, places, -1)


def mixed(
    pictures: tuple[Image.Image, Image.Image], random: np.random.Generator, *, turned: bool
) -> Image.Image:
    """Paste a window of the second picture over the first (CutMix, Yun et al., ICCV 2019).

    Both are disguised before: their colours change places, may be inverted, brightened, flattened
    and, where ``turned``, they may lie on a side. The gallery network says what the result is.

    Args:
        pictures: RGB, square, of one size.
        random: Draws do not depend on the size.
        turned: Whether the pictures may be turned.
    """
    first, second = (_disguised(each, random, turned) for each in pictures)
    side = math.sqrt(random.uniform(*_WINDOW))
    left, top = random.random(2) * (1 - side)
    box = [round(edge * first.width) for edge in (left, top, left + side, top + side)]
    first.paste(second.crop(tuple(box)), tuple(box))
    return first


def _disguised(picture: Image.Image, random: np.random.Generator, turned: bool) -> Image.Image:
    from torchvision.transforms.v2 import functional

    chances = random.random(5)
    channels, quarters = random.permutation(3).tolist(), int(random.integers(1, 4))
    gamma, contrast = random.uniform(0.5, 2), random.uniform(0.4, 1.8)
    if chances[0] < 0.5:
        picture = functional.permute_channels(picture, channels)
    if chances[1] < 0.2:
        picture = functional.invert(picture)
    if chances[2] < 0.5 and turned:
        picture = functional.rotate(picture, 90 * quarters)
    if chances[3] < 0.5:
        picture = functional.adjust_gamma(picture, gamma)
    if chances[4] < 0.3:
        picture = functional.adjust_contrast(picture, contrast)
    return picture

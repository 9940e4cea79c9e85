"""Augmented views of images, the same picture for networks of every resolution."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from compat.data.cache import content_key, image_digests
from compat.data.images import ImageSet
from compat.data.preprocessing import Fit, Preprocessing
from compat.data.store import fill
from compat.section import Options
from searchspaces.support.cache import default_cache
from searchspaces.support.section import Seed

_VERSION = 1  # raised whenever the same recipe would give other pixels
_MAX_ASPECT = 4 / 3


class ViewRecipe(Options):
    """How views are drawn; view v depends on (content, seed, v) only, not on resolution.

    Attributes:
        count: Views per image, V.
        seed: Another seed gives other views.
        min_scale: Smallest share of the picture's area that a view shows, in (0, 1].
        flip: Mirror half of the views.
        color: Strength of brightness, contrast and saturation changes, in [0, 1); 0.3 draws
            each factor from [0.7, 1.3].

    Raises:
        CompatError: A field is out of its range.
    """

    SUBJECT: ClassVar = "The view recipe"

    count: Annotated[int, Field(ge=1, le=1000)]
    seed: Seed = 0
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.5
    flip: bool = True
    color: Annotated[float, Field(ge=0, lt=1)] = 0.3


def decode_views(
    images: ImageSet,
    recipe: ViewRecipe,
    resolution: int,
    *,
    fit: Fit = "crop",
    cache: Path | None = None,
) -> np.ndarray:
    """Views of every image, made once and kept beside the decoded images.

    A view is a random part of what `decode` shows (random-resized-crop of Szegedy et al., CVPR
    2015: area and aspect ratio drawn), perhaps mirrored, with changed colours. The part is cut
    from the picture at its own resolution, so two resolutions show the same thing.

    Args:
        images: Images that can be read: pass those that `decode` returns.
        recipe: How the views are drawn.
        resolution: Side of a view in pixels.
        fit: "crop" takes views from the largest centred square, "squash" from the whole picture.
        cache: Folder for the pixels; `default_cache` if None.

    Returns:
        (V, N, resolution, resolution, 3) uint8 memory map.

    Raises:
        CompatError: An image is broken, the disk is full, the cache is damaged, or resolution
            or fit are out of range.
    """
    Preprocessing(resolution=resolution, fit=fit)
    root = cache or default_cache()
    digests = image_digests(images, root)
    key = content_key(
        digests, "views", _VERSION, tuple(recipe.model_dump().values()), resolution, fit
    )

    def make(index: int) -> np.ndarray:
        picture = images.source.load(index)
        return np.stack(
            [
                np.asarray(_view(picture, recipe, digests[index], number, resolution, fit))
                for number in range(recipe.count)
            ]
        )

    views, _ = fill(
        root / "views" / key,
        len(images),
        (recipe.count, resolution, resolution, 3),
        make,
        description=f"making {recipe.count} views of {images.name} at {resolution} px",
        stop_at_broken=True,
    )
    return views.swapaxes(0, 1)


def _view(
    picture: Image.Image, recipe: ViewRecipe, digest: str, number: int, resolution: int, fit: Fit
) -> Image.Image:
    from torchvision.transforms.v2 import functional

    seed = hashlib.blake2b(f"{digest}|{recipe.seed}|{number}".encode(), digest_size=16)
    random = np.random.default_rng(int(seed.hexdigest(), 16))
    left, top, width, height = _window(picture.size, recipe, random, fit)
    mirrored = random.random() < 0.5
    factors = random.uniform(1 - recipe.color, 1 + recipe.color, size=3).tolist()
    view = functional.resized_crop(picture, top, left, height, width, [resolution, resolution])
    if recipe.flip and mirrored:
        view = functional.horizontal_flip(view)
    if recipe.color:
        view = functional.adjust_brightness(view, factors[0])
        view = functional.adjust_contrast(view, factors[1])
        view = functional.adjust_saturation(view, factors[2])
    return view


def _window(
    size: tuple[int, int], recipe: ViewRecipe, random: np.random.Generator, fit: Fit
) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels of the part that a view shows."""
    width, height = size
    if fit == "crop":
        frame_width = frame_height = min(size)
    else:
        frame_width, frame_height = width, height
    area = random.uniform(recipe.min_scale, 1)
    widest = min(_MAX_ASPECT, 1 / area)  # so that both sides fit into the frame
    aspect = widest ** random.uniform(-1, 1)
    x, y = random.random(2)
    part_width = max(1, round(math.sqrt(area * aspect) * frame_width))
    part_height = max(1, round(math.sqrt(area / aspect) * frame_height))
    left = (width - frame_width) // 2 + round(x * (frame_width - part_width))
    top = (height - frame_height) // 2 + round(y * (frame_height - part_height))
    return left, top, part_width, part_height

"""Augmented views of images, the same picture for networks of every resolution."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from compat.data.cache import content_key, image_digests
from compat.data.images import ImageSet
from compat.data.mixing import chosen_partners, mixed
from compat.data.preprocessing import Fit, Preprocessing, fit_image
from compat.data.store import fill
from compat.section import Options
from searchspaces.support.cache import default_cache
from searchspaces.support.section import Seed

_VERSION = 1  # raised whenever the same recipe would give other pixels
_MAX_ASPECT = 4 / 3
_MIXED_SCALE = 0.1  # smallest share of a picture's area that a mixed view takes


class ViewRecipe(Options):
    """How views are drawn; view v depends on (content, seed, v) only, not on resolution.

    Attributes:
        count: Views per image, V.
        mixed: How many of them, the last ones, show a part of another image too; which one, the
            names of the images decide.
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
    mixed: Annotated[int, Field(ge=0, le=1000)] = 0
    seed: Seed = 0
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.5
    flip: bool = True
    color: Annotated[float, Field(ge=0, lt=1)] = 0.3

    @model_validator(mode="after")
    def _no_more_than_all(self) -> ViewRecipe:
        if self.mixed > self.count:
            raise ValueError(f"'mixed' is {self.mixed} of {self.count} views: expected no more")
        return self

    @property
    def alone(self) -> int:
        """How many views show one image alone; they are the first ones."""
        return self.count - self.mixed


def decode_views(
    images: ImageSet,
    recipe: ViewRecipe,
    resolution: int,
    *,
    fit: Fit = "crop",
    cache: Path | None = None,
    among: Sequence[str] | np.ndarray | None = None,
) -> np.ndarray:
    """Views of every image, made once and kept beside the decoded images.

    A view is a random part of what `decode` shows (random-resized-crop of Szegedy et al., CVPR
    2015: area and aspect ratio drawn), perhaps mirrored, with changed colours. The part is cut
    from the picture at its own resolution, so two resolutions show the same thing. A mixed view
    is two such parts, of two images, one in a window of the other.

    Args:
        images: Images that can be read: pass those that `decode` returns.
        recipe: How the views are drawn.
        resolution: Side of a view in pixels.
        fit: "crop" takes views from the largest centred square, "squash" from the whole picture.
        cache: Folder for the pixels; `default_cache` if None.
        among: Ids of all that `partners` were drawn from; those of ``images`` if None. A mixed
            view without its partner is what `decode` shows.

    Returns:
        (V, N, resolution, resolution, 3) uint8 memory map.

    Raises:
        CompatError: An image is broken, the disk is full, the cache is damaged, or resolution
            or fit are out of range.
    """
    Preprocessing(resolution=resolution, fit=fit)
    root = cache or default_cache()
    digests = image_digests(images, root)
    settings = tuple(recipe.model_dump(exclude={"mixed"}).values())
    others = partners(images, recipe, among, cache=root)
    key = content_key(digests, "views", _VERSION, settings, resolution, fit, *others.tolist())

    def make(index: int) -> np.ndarray:
        picture = images.source.load(index)
        views = []
        for number in range(recipe.count):
            random = _random(digests[index], recipe, number)
            if number < recipe.alone:
                views.append(_view(picture, recipe, random, resolution, fit))
            elif (other := int(others[number - recipe.alone, index])) < 0:
                views.append(fit_image(picture, resolution, fit))
            else:
                parts = [
                    _view(shown, recipe, random, resolution, fit, _MIXED_SCALE)
                    for shown in (picture, images.source.load(other))
                ]
                views.append(mixed((parts[0], parts[1]), random, turned=recipe.flip))
        return np.stack([np.asarray(view) for view in views])

    views, _ = fill(
        root / "views" / key,
        len(images),
        (recipe.count, resolution, resolution, 3),
        make,
        description=f"making {recipe.count} views of {images.name} at {resolution} px",
        stop_at_broken=True,
    )
    return views.swapaxes(0, 1)


def partners(
    images: ImageSet,
    recipe: ViewRecipe,
    among: Sequence[str] | np.ndarray | None = None,
    *,
    cache: Path | None = None,
) -> np.ndarray:
    """Return of which other image each mixed view shows a part.

    Args:
        images: N of them.
        recipe: How the views are drawn.
        among: Ids of all images that may be it; those of ``images`` if None.
        cache: As of `decode_views`.

    Returns:
        Positions in ``images``, int64 (``recipe.mixed``, N); -1 where it is none of these.
    """
    digests = image_digests(images, cache or default_cache())
    names = images.ids if among is None else among
    chosen = []
    for number in range(recipe.alone, recipe.count):
        draws = [_random(each, recipe, number, "|partner") for each in digests]
        chosen.append(chosen_partners(images, names, draws))
    return np.array(chosen, dtype=np.int64).reshape(recipe.mixed, len(images))


def _random(digest: str, recipe: ViewRecipe, number: int, use: str = "") -> np.random.Generator:
    seed = hashlib.blake2b(f"{digest}|{recipe.seed}|{number}{use}".encode(), digest_size=16)
    return np.random.default_rng(int(seed.hexdigest(), 16))


def _view(
    picture: Image.Image,
    recipe: ViewRecipe,
    random: np.random.Generator,
    resolution: int,
    fit: Fit,
    min_scale: float | None = None,
) -> Image.Image:
    from torchvision.transforms.v2 import functional

    scale = recipe.min_scale if min_scale is None else min_scale
    left, top, width, height = _window(picture.size, scale, random, fit)
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
    size: tuple[int, int], min_scale: float, random: np.random.Generator, fit: Fit
) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels of the part that a view shows."""
    width, height = size
    if fit == "crop":
        frame_width = frame_height = min(size)
    else:
        frame_width, frame_height = width, height
    area = random.uniform(min_scale, 1)
    widest = min(_MAX_ASPECT, 1 / area)  # so that both sides fit into the frame
    aspect = widest ** random.uniform(-1, 1)
    x, y = random.random(2)
    part_width = max(1, round(math.sqrt(area * aspect) * frame_width))
    part_height = max(1, round(math.sqrt(area / aspect) * frame_height))
    left = (width - frame_width) // 2 + round(x * (frame_width - part_width))
    top = (height - frame_height) // 2 + round(y * (frame_height - part_height))
    return left, top, part_width, part_height

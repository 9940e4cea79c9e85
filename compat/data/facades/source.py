"""The synthetic set: classes of made-up buildings, images rendered on demand."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from compat.data.facades.building import design, draw
from compat.data.facades.scene import OVERSAMPLING, photograph
from compat.data.images import ImageSet
from compat.section import Options
from searchspaces.support.section import Seed

_VERSION = 1  # raised whenever the same seed would give other pixels
_MOST_IMAGES = 1_000_000


@dataclass(frozen=True)
class FacadeSource:
    """Renders image i: photograph i % images of building i // images.

    Args:
        images: Images per class.
        size: Side of an image in pixels.
        seed: Another seed gives other buildings.
    """

    images: int
    size: int
    seed: int

    def load(self, index: int) -> Image.Image:
        """The rendered RGB image, the same at every call."""
        building, number = divmod(index, self.images)
        painting, parts = _painted(self.seed, building, self.size)
        random = np.random.default_rng([self.seed, 2, building, number])
        return photograph(painting, parts, random, self.size)

    def digest(self, index: int) -> str:
        """Hash of what the image is rendered from."""
        return hashlib.blake2b(self.stamp(index).encode(), digest_size=16).hexdigest()

    def stamp(self, index: int) -> str:
        """What the image is rendered from."""
        building, number = divmod(index, self.images)
        return f"facades|{_VERSION}|{self.seed}|{self.size}|{building}|{number}"


@functools.lru_cache(maxsize=64)
def _painted(seed: int, number: int, size: int) -> tuple[Image.Image, Image.Image]:
    return draw(design(seed, number), size * OVERSAMPLING)


class Facades(Options):
    """How many images of how many buildings `open_facades` renders."""

    SUBJECT: ClassVar = "The set facades"

    classes: Annotated[int, Field(ge=1, le=1_000_000)] = 80
    images: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    size: Annotated[int, Field(ge=16, le=1024)] = 64
    seed: Seed = 0

    @model_validator(mode="after")
    def _not_endless(self) -> Facades:
        if self.classes * self.images > _MOST_IMAGES:
            raise ValueError(f"classes x images is more than {_MOST_IMAGES:,}; give fewer")
        return self


def open_facades(*, classes: int = 80, images: int = 20, size: int = 64, seed: int = 0) -> ImageSet:
    """A synthetic retrieval set that needs no files: made-up buildings, rendered from a seed.

    Not photographs: a class is a building drawn by rule (walls, windows, roof, door), an image a
    view of it under a random projection, light, window state, occlusion, noise and compression.
    Every four classes share a style, so that colour and material alone do not tell them apart.
    It serves demonstrations and tests; figures on it say nothing about real images.

    Args:
        classes: Number of buildings, at least 1.
        images: Images per building, at least 2; a million of all buildings at most.
        size: Side of an image in pixels, 16 to 1024.
        seed: Another seed gives other buildings.

    Raises:
        CompatError: A number is out of range.
    """
    return render(Facades(classes=classes, images=images, size=size, seed=seed))


def render(options: Facades) -> ImageSet:
    """The set of `open_facades` by its options."""
    classes, images, size, seed = options.classes, options.images, options.size, options.seed
    buildings = [f"building-{number:04d}" for number in range(classes)]
    return ImageSet(
        name="synthetic-facades",
        spec=f"facades:classes={classes},images={images},size={size},seed={seed}",
        ids=np.array([f"{name}/{i:04d}" for name in buildings for i in range(images)]),
        labels=np.repeat(np.arange(classes), images),
        classes=tuple(buildings),
        split=None,
        camera=None,
        source=FacadeSource(images, size, seed),
    )

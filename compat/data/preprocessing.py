"""How an image becomes the input of a network: resolution, fit and normalisation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from PIL import Image, ImageOps
from pydantic import Field, FiniteFloat

from compat.section import Options
from searchspaces.support.section import Resolution

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Fit = Literal["crop", "squash"]
"""How a picture becomes square: its largest centred square, or all of it, stretched."""

_Mean = Annotated[FiniteFloat, Field(ge=-1000, le=1000)]
_Std = Annotated[FiniteFloat, Field(gt=1e-6, le=1000)]
Means = tuple[_Mean, _Mean, _Mean]
Stds = tuple[_Std, _Std, _Std]


def fit_image(image: Image.Image, resolution: int, fit: Fit) -> Image.Image:
    """The image at `resolution` x `resolution` pixels, bilinear.

    Args:
        image: RGB image of any size.
        resolution: Side of the result in pixels.
        fit: "crop" takes the largest centred square, "squash" the whole image, stretched.
    """
    if fit == "crop":
        return ImageOps.fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR)


class Preprocessing(Options):
    """What a network expects of its input.

    Attributes:
        resolution: Side of the square input in pixels.
        fit: "crop" (largest centred square) or "squash" (stretched).
        mean: Per channel, subtracted from values in [0, 1]; ImageNet's by default.
        std: Per channel, divided by afterwards; ImageNet's by default.

    Raises:
        CompatError: A field is unknown, missing or out of its range.
    """

    SUBJECT: ClassVar = "The preprocessing"
    RENAMED: ClassVar = {"size": "resolution"}

    resolution: Resolution
    fit: Fit = "crop"
    mean: Means = IMAGENET_MEAN
    std: Stds = IMAGENET_STD

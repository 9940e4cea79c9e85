"""How an image becomes the input of a network: size, fit and normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from PIL import Image, ImageOps

from compat.errors import CompatError
from searchspaces.support.naming import did_you_mean

FITS = ("crop", "squash")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_size_and_fit(size: int, fit: str) -> None:
    """Raises `CompatError` for a size below 1 pixel or an unknown fit."""
    if size < 1:
        raise CompatError(f"The image size is {size}, expected at least 1 pixel.")
    if fit not in FITS:
        raise CompatError(f"The fit is '{fit}', expected one of {FITS}{did_you_mean(fit, FITS)}.")


def fit_image(image: Image.Image, size: int, fit: str) -> Image.Image:
    """The image at `size` x `size` pixels, bilinear.

    Args:
        image: RGB image of any size.
        size: Side of the result in pixels.
        fit: "crop" takes the largest centred square, "squash" the whole image, stretched.
    """
    if fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input.

    Args:
        size: Side of the square input in pixels.
        fit: "crop" (largest centred square) or "squash" (stretched).
        mean: Per channel, subtracted from values in [0, 1]; ImageNet's by default.
        std: Per channel, divided by afterwards; ImageNet's by default.

    Raises:
        CompatError: A field is out of its range.
    """

    size: int
    fit: str = "crop"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        check_size_and_fit(self.size, self.fit)
        for field in ("mean", "std"):
            values = getattr(self, field)
            if len(values) != 3 or (field == "std" and min(values) <= 0):
                rule = "3 positive numbers" if field == "std" else "3 numbers"
                raise CompatError(f"The preprocessing's {field} is {values}, expected {rule}.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `as_dict`; raises `CompatError` for unknown or missing fields."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise CompatError(
                    f"The preprocessing has no field '{name}', expected {known}"
                    f"{did_you_mean(name, known)}."
                )
        if "size" not in values:
            raise CompatError("The preprocessing lacks the field 'size' (pixels): add it.")
        given = dict(values)
        for name in ("mean", "std"):
            if name in given:
                given[name] = tuple(float(value) for value in given[name])
        return cls(**given)

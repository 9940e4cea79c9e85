"""One image file, of any mode, as an upright 8-bit RGB picture."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from compat.errors import CompatError
from searchspaces.support.errors import reason
from searchspaces.support.reading import check_file

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff"}
    | {".webp"}
)
MOST_PIXELS = 1 << 26  # of one image: 8192 x 8192
_MOST_BYTES = 1 << 29  # of one file


class BrokenImageError(CompatError):
    """A file that cannot be read as an image."""


def check_image_file(path: str) -> None:
    """Refuse what is no regular file of at most 512 MiB: a pipe or a device may never end.

    Raises:
        BrokenImageError: It is none.
    """
    check_file(
        Path(path), at_most=_MOST_BYTES, error=BrokenImageError, remedy="restore it or leave it out"
    )


def open_rgb(path: str, box: ArrayLike | None = None) -> Image.Image:
    """Reads an image file.

    Args:
        path: The file.
        box: (x0, y0, x1, y1) in pixels of the upright image; edges are rounded to whole pixels.

    Returns:
        The RGB image: turned as its EXIF orientation says, transparency on white, 16-bit grey
        scaled to 8 bits, cropped to the box.

    Raises:
        BrokenImageError: The file is missing, truncated, no image of a format that `SUFFIXES`
            names, or has more than 8192 x 8192 pixels.
        CompatError: The box does not lie inside the image.
    """
    check_image_file(path)
    try:
        with Image.open(path, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"{image.width:,} x {image.height:,} pixels, more than {MOST_PIXELS:,}"
                )
            image.load()
            picture = _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise anything: SyntaxError, struct.error, IndexError
        raise BrokenImageError(
            f"The image {path} cannot be read ({reason(error)}): replace it or leave it out."
        ) from error
    return picture if box is None else _cropped(picture, box, path)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Pillow's names of our formats; others may start programs, as EPS does Ghostscript."""
    names = Image.registered_extensions()
    return tuple({names[suffix] for suffix in SUFFIXES if suffix in names})


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey_to_8_bits(image).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert(
            "RGB"
        )
    return image.convert("RGB")


def _deep_grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Integers span 0 to 65535, or to 2^31 - 1 if any is larger; floats 0 to 1, or to 255."""
    values = np.nan_to_num(np.array(image, dtype=np.float64), copy=False)
    largest = float(values.max())
    if image.mode == "F":
        top = 1.0 if largest <= 1 else 255.0
    else:
        top = 65535.0 if largest <= 65535 else 2.0**31 - 1
    values /= top
    np.clip(values, 0, 1, out=values)
    values *= 255
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def _cropped(picture: Image.Image, box: ArrayLike, path: str) -> Image.Image:
    width, height = picture.size
    edges = np.asarray(box, dtype=np.float64)
    x0, y0, x1, y1 = np.rint(np.nan_to_num(edges)).tolist()
    if not (
        np.isfinite(edges).all() and -1 <= x0 < x1 <= width + 1 and -1 <= y0 < y1 <= height + 1
    ):
        raise CompatError(
            f"The box {' '.join(f'{edge:g}' for edge in edges)} (x0 y0 x1 y1) does not lie "
            f"inside the {width} x {height} pixels of {path}: correct the box."
        )
    return picture.crop(
        (int(max(x0, 0)), int(max(y0, 0)), int(min(x1, width)), int(min(y1, height)))
    )

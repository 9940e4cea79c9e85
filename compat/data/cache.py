"""Images decoded once to the resolution at hand, kept on disk and memory-mapped."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from compat.data.images import ImageSet
from compat.data.opening import BrokenImageError
from compat.data.preprocessing import Fit, Preprocessing, fit_image
from compat.data.store import fill, write_json, writing_to
from compat.errors import CompatError
from searchspaces.support.cache import default_cache
from searchspaces.support.reading import read_json

BROKEN_SHARE = 0.01
_MOST_BYTES = 1 << 32  # of remembered digests
_VERSION = 1  # raised whenever the same file would decode to other pixels
_NAMED = 3  # broken images that an error names before it counts the rest


@dataclass(frozen=True)
class Decoded:
    """Images with their pixels.

    Args:
        images: Those that could be read.
        pixels: (N, resolution, resolution, 3) uint8 memory map, in the same order.
        broken: Ids of the images that could not be read and were left out.
    """

    images: ImageSet
    pixels: np.ndarray
    broken: tuple[str, ...] = ()


def decode(
    images: ImageSet,
    resolution: int,
    *,
    fit: Fit = "crop",
    cache: Path | None = None,
    strict: bool = False,
) -> Decoded:
    """Decodes every image once; the next call with the same images opens the result.

    The pixels lie in a folder that is named after the images' content, the resolution and the fit,
    so changed images are decoded again and renamed ones are not. A killed call is resumed.

    Args:
        images: What to decode.
        resolution: Side of the square result, in pixels.
        fit: "crop" (largest centred square) or "squash" (stretched), both bilinear.
        cache: Folder for the pixels; `default_cache` if None.
        strict: Stop at the first image that cannot be read.

    Returns:
        Images and pixels without the broken images, which a warning names.

    Raises:
        CompatError: More than 1% of the images are broken (or one, if `strict`), the disk is
            full, the cache is damaged, or resolution or fit are out of range.
    """
    Preprocessing(resolution=resolution, fit=fit)
    if not len(images):
        raise CompatError(f"{images.name}: there are no images to decode.")
    root = cache or default_cache()
    key = content_key(image_digests(images, root), "decoded", _VERSION, resolution, fit)

    def make(index: int) -> np.ndarray:
        return np.asarray(fit_image(images.source.load(index), resolution, fit))

    pixels, broken = fill(
        root / "decoded" / key,
        len(images),
        (resolution, resolution, 3),
        make,
        description=f"decoding {images.name} at {resolution} px",
        stop_at_broken=strict,
    )
    if not broken:
        return Decoded(images, pixels)
    names = tuple(images.ids[broken].tolist())
    _judge(images.name, names, len(images), strict)
    return Decoded(images.take(np.delete(np.arange(len(images)), broken)), pixels, names)


def _judge(name: str, broken: tuple[str, ...], count: int, strict: bool) -> None:
    listed = ", ".join(broken[:_NAMED])
    if len(broken) > _NAMED:
        listed += f" and {len(broken) - _NAMED} more"
    found = f"{name}: {len(broken)} of {count} images cannot be read"
    if strict or len(broken) > BROKEN_SHARE * count:
        limit = "none" if strict else f"at most {BROKEN_SHARE:.0%}"
        raise CompatError(f"{found}, expected {limit}; replace or remove {listed}.")
    warnings.warn(f"{found} and are left out: {listed}", stacklevel=3)


def content_key(digests: Iterable[str], *settings: object) -> str:
    """Name (hex) of a folder that holds something made from these images in this way."""
    text = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for digest in digests:
        text.update(f"|{digest}".encode())
    return text.hexdigest()


def image_digests(images: ImageSet, cache: Path) -> list[str]:
    """Content digest of every image; "" for one that cannot be read.

    Digests are remembered by path, size and time of change, so that only new and changed files
    are read.
    """
    stamps = [images.source.stamp(index) for index in range(len(images))]
    name = hashlib.blake2b(images.spec.encode(), digest_size=16).hexdigest()
    memory = cache / "digests" / f"{name}.json"
    known = _remembered(memory)
    new = [index for index, stamp in enumerate(stamps) if stamp not in known]
    if new:

        def digest(index: int) -> str:
            try:
                return images.source.digest(index)
            except BrokenImageError:
                return ""

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = tqdm(
                pool.map(digest, new),
                total=len(new),
                desc=f"reading {images.name}",
                unit="image",
                delay=1,
            )
            known |= {stamps[index]: text for index, text in zip(new, found, strict=True) if text}
        with writing_to(memory.parent, sum(map(len, known)) + 40 * len(known)):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, known)
    return [known.get(stamp, "") for stamp in stamps]


def _remembered(memory: Path) -> dict[str, str]:
    """What was written before; nothing if that is unreadable, since it can be computed again."""
    try:
        return read_json(
            memory, dict[str, str], error=CompatError, remedy="delete it", at_most=_MOST_BYTES
        )
    except CompatError:
        return {}

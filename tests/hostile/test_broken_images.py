"""Images that are damaged, endless, enormous or of another kind than their name says."""

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mutations import Case, assert_clean, mutated_bytes, put
from PIL import Image

from compat.data import decode, open_data
from compat.data.opening import BrokenImageError, open_rgb
from compat.errors import CompatError

FORMATS = {
    **{"png": "PNG", "jpg": "JPEG", "gif": "GIF", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP"},
    **{"ppm": "PPM", "jp2": "JPEG2000"},
}
BOXES = (
    *([0, 0, 5, 5], [0, 0, np.inf, 5], [-np.inf, 0, 1, 1], [np.nan] * 4, [5, 5, 1, 1]),
    *([0, 0, 1e30, 1e30], [-1e308, 0, 1e308, 9], [0, 0, 0, 0], [0.4, 0.4, 0.6, 0.6]),
)


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, FORMATS[kind])
    return content.getvalue()


def bomb(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims any size, with a few bytes of pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        end = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", end)

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged files of every format, then boxes outside of whole ones."""
    each = max(7, count // len(FORMATS))
    for kind in FORMATS:
        path = folder / f"picture.{kind}"
        for what, content in mutated_bytes(picture(kind), seed, each):
            put(path, content)
            yield Case(f"{kind} {what}", path.name, lambda path=path: whole(path))
    draw = random.Random(seed)
    path = folder / "whole.png"
    put(path, picture("png"))
    for _ in range(len(BOXES)):
        box = draw.choice(BOXES)
        yield Case(f"box {box}", path.name, lambda box=box: boxed(path, box))


def whole(path: Path) -> None:
    """Read an image; as large as its header says."""
    found = open_rgb(str(path))
    with Image.open(path) as image:
        size = image.size
    assert found.mode == "RGB"
    assert sorted(found.size) == sorted(size), found.size  # it may be turned


def boxed(path: Path, box: list[float]) -> None:
    """Cut a box out; as large as the box."""
    found = open_rgb(str(path), box)
    assert found.size == (round(box[2]) - round(box[0]), round(box[3]) - round(box[1]))


def caches(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Decoded pixels that were kept, and what is noted of them."""
    for number in range(3):
        place = folder / "images" / "wren" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        put(place, picture("png"))
    images, cache = open_data(folder / "images"), folder / "cache"

    right = np.array(decode(images, 8, cache=cache).pixels)

    def read(file: Path) -> None:
        found = decode(images, 8, cache=cache)
        assert len(found.images) == len(right)
        wanted = np.load(file) if file.suffix == ".npy" else right
        np.testing.assert_array_equal(found.pixels, wanted)

    files = [file for file in sorted(cache.rglob("*")) if file.suffix in (".json", ".npy")]
    for file in files:
        whole = file.read_bytes()
        for what, damaged in mutated_bytes(whole, seed, count // len(files)):
            put(file, damaged)
            yield Case(f"{file.name} {what}", file.parent.name, lambda file=file: read(file))
        put(file, whole)


KINDS = {"images": cases, "decoded caches": caches}


def test_damaged_images(tmp_path: Path) -> None:
    done = assert_clean(cases, tmp_path, count=1600)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 500


def test_damaged_caches(tmp_path: Path) -> None:
    done = assert_clean(caches, tmp_path, count=450)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 100


@pytest.mark.parametrize(
    "content",
    [
        bomb(60_000, 60_000),
        bomb(10_000, 10_000),
        bomb(2**31 - 1, 1),
        bomb(9000, 9000, 16, 0),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"SIMPLE  =                    T" + b" " * 50 + b"END",
    ],
    ids=["square", "100 MP", "long", "deep", "PostScript", "SVG", "FITS"],
)
def test_what_is_too_large_or_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"picture\.png cannot be read \(.*\): replace it"):
        open_rgb(str(path))


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "long", "nothing"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.png"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "long":
            path = tmp_path / f"{'n' * 300}.png"
    with pytest.raises(BrokenImageError, match="restore it or leave it out"):
        open_rgb(str(path))
    with pytest.raises(BrokenImageError):
        open_rgb(f"{path}\0")


def test_a_broken_image_among_good_ones_is_one_sentence(tmp_path: Path) -> None:
    for number in range(3):
        place = tmp_path / "images" / "wren" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        put(place, picture("png"))
    place.write_bytes(b"oops")
    images = open_data(tmp_path / "images")
    with pytest.raises(CompatError, match=r"2\.png cannot be read"):
        decode(images, 8, strict=True, cache=tmp_path / "cache")
    place.unlink()
    place.symlink_to("/dev/zero")
    with pytest.raises(CompatError, match=r"2\.png"):
        decode(images, 8, strict=True, cache=tmp_path / "cache")


def test_names_that_utf8_has_not_are_refused(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/images/wren"
    os.makedirs(folder)
    for name in (b"a.png", b"\xff\xfe.png"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(picture("png"))
    with pytest.raises(CompatError, match="cannot be written as UTF-8"):
        open_data(tmp_path / "images")

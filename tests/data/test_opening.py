"""One image file of every mode becomes the same upright 8-bit RGB picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compat.data.opening import BrokenImageError, open_rgb
from compat.errors import CompatError


def saved(tmp_path: Path, image: Any, name: Any = "image.png", **options: Any) -> Any:
    path = tmp_path / name
    image.save(path, **options)
    return str(path)


def pixel(path: Any, x: Any = 0, y: Any = 0) -> Any:
    return open_rgb(path).getpixel((x, y))


def test_grey_and_one_bit(tmp_path: Path) -> None:
    assert pixel(saved(tmp_path, Image.new("L", (4, 3), 77))) == (77, 77, 77)
    assert pixel(saved(tmp_path, Image.new("1", (4, 3), 1))) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path: Path, mode: Any) -> None:
    clear, half = ((0, 0, 0, 0), (0, 0, 0, 128)) if mode == "RGBA" else ((0, 0), (0, 128))
    assert pixel(saved(tmp_path, Image.new(mode, (2, 2), clear))) == (255, 255, 255)
    assert pixel(saved(tmp_path, Image.new(mode, (2, 2), half))) == (127, 127, 127)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixel(saved(tmp_path, image), 1) == (200, 100, 50)
    path = saved(tmp_path, image, "clear.png", transparency=1)
    assert pixel(path, 1) == (255, 255, 255)
    assert pixel(path, 0) == (10, 20, 30)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "ink.jpg", quality=95)
    red, green, blue = pixel(path)
    assert red > 240
    assert max(green, blue) < 15


def test_deep_grey_is_scaled_to_8_bits(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = saved(tmp_path, Image.fromarray(values), "deep.png")
    assert np.asarray(open_rgb(path))[0, :, 0].tolist() == [0, 1, 128, 255]
    tiff = saved(tmp_path, Image.fromarray(values.astype(np.int32)), "deep.tif")
    assert np.asarray(open_rgb(tiff))[0, :, 0].tolist() == [0, 1, 128, 255]
    wide = saved(tmp_path, Image.fromarray(np.array([[0, 2**31 - 1]], dtype=np.int32)), "32.tif")
    assert np.asarray(open_rgb(wide))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_grey(tmp_path: Path, top: Any) -> None:
    values = np.array([[0, 0.5, 1]], dtype=np.float32) * np.float32(top)
    path = saved(tmp_path, Image.fromarray(values), "float.tif")
    assert np.asarray(open_rgb(path))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: Any) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :8] = 255  # a white corner at the top left
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright)
    if undo is not None:
        stored = stored.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, stored, "turned.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(open_rgb(path)), upright)


def test_box_is_cropped_after_turning(tmp_path: Path) -> None:
    values = np.arange(32 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 32, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright: 16 wide, 32 high
    path = saved(tmp_path, Image.fromarray(values), "turned.png", exif=exif)
    upright = np.rot90(values, -1)
    cropped = np.asarray(open_rgb(path, [2.2, 20.4, 9.8, 31.9]))
    np.testing.assert_array_equal(cropped, upright[20:32, 2:10])


@pytest.mark.parametrize("box", [(0, 0, 12, 4), (-3, 0, 4, 4), (4, 4, 4, 8), (20, 20, 30, 30)])
def test_box_outside_is_an_error_that_names_it(tmp_path: Path, box: Any) -> None:
    path = saved(tmp_path, Image.new("RGB", (8, 8)))
    with pytest.raises(CompatError, match=r"does not lie inside the 8 x 8 pixels of .*image.png"):
        open_rgb(path, box)


def test_broken_files_raise_one_error(tmp_path: Path) -> None:
    whole = saved(tmp_path, Image.effect_noise((64, 64), 90), "whole.jpg")
    content = Path(whole).read_bytes()
    files = {"truncated.jpg": content[: len(content) // 2], "text.jpg": b"hello", "empty.jpg": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BrokenImageError, match=name):
            open_rgb(str(tmp_path / name))
    with pytest.raises(BrokenImageError, match=r"missing\.jpg"):
        open_rgb(str(tmp_path / "missing.jpg"))

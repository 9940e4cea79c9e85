"""Views depend on the picture, the seed and their number, and on nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import class_folders
from PIL import Image

from compat.data import ViewRecipe, decode, decode_views, open_data, open_facades
from compat.data.views import _window
from compat.errors import CompatError

RECIPE = ViewRecipe(count=3, seed=4)


def facades(**options: Any) -> Any:
    return open_facades(**({"classes": 2, "images": 3, "size": 64} | options))


def shrunk(views: Any, size: Any) -> Any:
    """Views averaged down to another size."""
    flat = views.reshape(-1, *views.shape[2:])
    small = [Image.fromarray(view).resize((size, size), Image.Resampling.BILINEAR) for view in flat]
    return np.stack([np.asarray(view) for view in small]).reshape(*views.shape[:2], size, size, 3)


def test_shape_and_repeatability(tmp_path: Path) -> None:
    images = facades()
    views = decode_views(images, RECIPE, 24, cache=tmp_path / "one")
    assert isinstance(views, np.memmap)
    assert views.shape == (3, 6, 24, 24, 3)
    np.testing.assert_array_equal(views, decode_views(images, RECIPE, 24, cache=tmp_path / "two"))
    assert len({view.tobytes() for view in views.reshape(18, -1)}) == 18


def test_a_view_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    images = facades()
    views = decode_views(images, RECIPE, 16, cache=tmp_path)
    part = decode_views(images.take([4, 1]), ViewRecipe(count=2, seed=4), 16, cache=tmp_path)
    np.testing.assert_array_equal(part, views[:2][:, [4, 1]])


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_sizes_show_the_same_picture(tmp_path: Path, fit: Any) -> None:
    images = facades(size=128)
    large = decode_views(images, RECIPE, 64, fit=fit, cache=tmp_path)
    small = decode_views(images, RECIPE, 16, fit=fit, cache=tmp_path)
    difference = np.abs(shrunk(large, 16).astype(int) - small.astype(int)).mean(axis=(2, 3, 4))
    assert difference.max() < 6
    other = np.abs(shrunk(large, 16).astype(int) - small[::-1].astype(int)).mean(axis=(2, 3, 4))
    assert other[[0, 2]].min() > 6


def test_another_seed_gives_other_views(tmp_path: Path) -> None:
    images = facades()
    views = decode_views(images, RECIPE, 16, cache=tmp_path)
    others = decode_views(images, ViewRecipe(count=3, seed=5), 16, cache=tmp_path)
    assert (views != others).any(axis=(2, 3, 4)).all()


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_view_of_everything_is_the_fitted_picture(tmp_path: Path, fit: Any) -> None:
    images = open_data(class_folders(tmp_path / "images", {"a": 2, "b": 2}))
    recipe = ViewRecipe(count=2, min_scale=1.0, flip=False, color=0.0)
    views = decode_views(images, recipe, 10, fit=fit, cache=tmp_path)
    pixels = decode(images, 10, fit=fit, cache=tmp_path).pixels
    np.testing.assert_array_equal(views, np.stack([pixels, pixels]))


def test_half_of_the_views_are_mirrored(tmp_path: Path) -> None:
    images = facades(classes=10, images=10)
    plain = decode_views(images, ViewRecipe(count=1, color=0, flip=False), 16, cache=tmp_path)[0]
    turned = decode_views(images, ViewRecipe(count=1, color=0), 16, cache=tmp_path)[0]
    same = (plain == turned).all(axis=(1, 2, 3))
    mirrored = (plain == turned[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 30 <= mirrored.sum() <= 70


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.floats(0.05, 1),
    st.integers(0, 2**32),
    st.sampled_from(["crop", "squash"]),
)
def test_windows_stay_inside_what_the_fit_shows(
    width: Any, height: Any, min_scale: Any, seed: int, fit: Any
) -> None:
    window = _window((width, height), min_scale, np.random.default_rng(seed), fit)
    left, top, across, down = window
    frame = (min(width, height),) * 2 if fit == "crop" else (width, height)
    first_x, first_y = (width - frame[0]) // 2, (height - frame[1]) // 2
    assert first_x <= left < left + across <= first_x + frame[0]
    assert first_y <= top < top + down <= first_y + frame[1]
    if min(frame) >= 50:
        shown = across * down / (frame[0] * frame[1])
        assert shown > min_scale - 0.03  # edges are whole pixels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "'count' is 0"),
        ({"count": 1, "seed": -1}, "'seed' is -1"),
        ({"count": 1, "min_scale": 0}, "'min_scale' is 0"),
        ({"count": 1, "color": 1.0}, r"'color' is 1\.0"),
    ],
)
def test_bad_recipes(fields: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        ViewRecipe(**fields)


def test_a_broken_image_stops(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "images", {"a": 2, "b": 2})
    (root / "a" / "000.png").write_bytes(b"no image")
    with pytest.raises(CompatError, match=r"a/000\.png cannot be read"):
        decode_views(open_data(root), RECIPE, 8, cache=tmp_path)

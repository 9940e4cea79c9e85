"""Embedding once, to disk, in spite of interruptions."""

import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat.data.cache import decode
from compat.data.views import ViewRecipe, decode_views
from compat.errors import CompatError
from compat.gallery import GallerySpace, build_gallery, load_gallery_model, mixed_views

Begun = Callable[[str], BaseProcess]

VIEWS = ViewRecipe(count=2, seed=3)
TRAIN = np.array([20, 3, 4, 5, 11])


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_gallery_holds_every_image_and_the_views_of_the_training_ones(
    photographs: Any, tinynet: str, tmp_path: Path
) -> None:
    model = load_gallery_model(tinynet)
    space = build_gallery(photographs, model, tmp_path / "g", views=VIEWS, train=TRAIN, block=7)
    space.verify()
    pixels = decode(photographs, 16, fit="squash").pixels
    np.testing.assert_allclose(space.vectors, unit(model.embed(pixels)), atol=1e-6)
    assert space.ids.tolist() == photographs.ids.tolist()
    assert space.labels.tolist() == photographs.labels.tolist()
    assert space.classes == photographs.classes
    assert (space.manifest.model, space.manifest.data, space.metric) == (
        tinynet,
        photographs.spec,
        "cosine",
    )
    assert space.preprocessing == model.preprocessing
    assert space.view_recipe == VIEWS
    assert space.view_rows.tolist() == [3, 4, 5, 11, 20]
    views = decode_views(photographs.take(space.view_rows), VIEWS, 16, fit="squash")
    for view in range(2):
        np.testing.assert_allclose(
            space.view_vectors[view], unit(model.embed(views[view])), atol=1e-6
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["g"]
    assert sorted(file.name for file in (tmp_path / "g").iterdir()) == [
        *("gallery.json", "ids.npy", "labels.npy"),
        *("vectors.npy", "view_rows.npy", "view_vectors.npy"),
    ]


def test_fit_and_type_can_be_chosen(photographs: Any, tinynet: str, tmp_path: Path) -> None:
    model = load_gallery_model(tinynet)
    space = build_gallery(photographs, model, tmp_path / "g", dtype="float16", fit="crop")
    assert space.vectors.dtype == np.float16
    assert space.preprocessing.fit == "crop"
    assert space.view_vectors is None
    pixels = decode(photographs, 16, fit="crop").pixels
    np.testing.assert_allclose(space.vectors, unit(model.embed(pixels)), atol=1e-3)


PROGRAM = """
import os
os.environ["DIE_AT_CALL"] = "{die_at}"
from compat.data.sources import open_data
from compat.data.views import ViewRecipe
from compat.gallery import build_gallery, load_gallery_model
build_gallery(
    open_data({folder!r}), load_gallery_model("tinynet:make"), {out!r}, block=5,
    views=ViewRecipe(count=2, seed=3), train=[20, 3, 4, 5, 11],
)
"""


@pytest.mark.parametrize(("die_at", "saved"), [(4, 15), (9, 36)])
def test_a_killed_build_is_continued(
    photographs: Any,
    photograph_folder: Path,
    network_folder: Path,
    tinynet: str,
    tmp_path: Path,
    die_at: Any,
    saved: Any,
    begun: Begun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """36 images are 8 blocks of 5 or less, then come 2 views of 5 images."""
    out = tmp_path / "g"
    process = begun(PROGRAM.format(die_at=die_at, folder=str(photograph_folder), out=str(out)))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert (mixed_views(out), mixed_views(tmp_path / "new")) == (0, 2)  # as it was begun

    model = load_gallery_model(tinynet)
    embedded = []
    original = type(model).embed
    monkeypatch.setattr(
        type(model),
        "embed",
        lambda self, pixels, **options: (
            embedded.append(len(pixels)) or original(self, pixels, **options)
        ),
    )
    with pytest.raises(CompatError, match=r"unfinished build .* was begun with rows = "):
        build_gallery(photographs, model, out, block=5, views=VIEWS, train=[1], dtype="float16")
    space = build_gallery(photographs, model, out, block=5, views=VIEWS, train=TRAIN)
    assert sum(embedded) == 46 - saved
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(network_folder))
    whole = build_gallery(photographs, model, tmp_path / "h", block=5, views=VIEWS, train=TRAIN)
    assert GallerySpace.open(out).fingerprint == whole.fingerprint
    np.testing.assert_array_equal(space.view_vectors, whole.view_vectors)


def test_what_cannot_be_built_is_explained(photographs: Any, tinynet: str, tmp_path: Path) -> None:
    model = load_gallery_model(tinynet)
    (tmp_path / "there").mkdir()
    with pytest.raises(CompatError, match="there exists already"):
        build_gallery(photographs, model, tmp_path / "there")
    (tmp_path / "g.partial").mkdir()
    (tmp_path / "g.partial" / "notes.txt").write_text("mine")
    with pytest.raises(CompatError, match="holds something that is no unfinished build"):
        build_gallery(photographs, model, tmp_path / "g")
    with pytest.raises(CompatError, match="cannot be stored as 'float64'"):
        build_gallery(photographs, model, tmp_path / "h", dtype="float64")
    with pytest.raises(CompatError, match=r"maps image 0 of vectors\.npy to the zero vector"):
        build_gallery(photographs, load_gallery_model("tinynet:zero"), tmp_path / "h")

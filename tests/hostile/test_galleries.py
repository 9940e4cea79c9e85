"""Gallery folders from anybody: the description, the arrays, and what lies between."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import Case, assert_clean, mutated_bytes, mutated_json, put, says

from compat.data.preprocessing import Preprocessing
from compat.data.views import ViewRecipe
from compat.errors import CompatError
from compat.gallery import (
    GallerySpace,
    SignCoder,
    compress_gallery,
    derive_gallery,
    fuse_galleries,
    hash_gallery,
    reduce_gallery,
)
from compat.gallery.build import build_gallery
from compat.gallery.manifest import MANIFEST, Description
from compat.gallery.models import GalleryModel
from compat.gallery.sealing import fresh_folder, seal
from nas.cli.tables import print_gallery

COUNT, WIDTH, VIEWS = 20, 6, 2
NAME = "plumage"  # of a folder


def plain(out: Path) -> GallerySpace:
    """A gallery with everything that one may have."""
    draw = np.random.default_rng(0)
    folder = fresh_folder(out)

    def unit(*shape: int) -> np.ndarray:
        vectors = draw.standard_normal((*shape, WIDTH)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    rows = np.arange(0, COUNT, 2)
    np.save(folder / "vectors.npy", unit(COUNT))
    np.save(folder / "view_rows.npy", rows)
    np.save(folder / "view_vectors.npy", unit(VIEWS, len(rows)))
    return seal(
        folder,
        out,
        ids=[f"bücher/{number:02}.jpg" for number in range(COUNT)],
        labels=np.arange(COUNT) % 3,
        classifier=unit(3),
        description=Description(
            metric="cosine",
            classes=("a", "b", "c"),
            model="timm:resnet18",
            model_digest="abc",
            model_macs=1000,
            preprocessing=Preprocessing(resolution=32, fit="squash"),
            data="pictures",
            view_recipe=ViewRecipe(count=VIEWS, seed=3),
        ),
    )


def originals(folder: Path) -> list[Path]:
    """A gallery of floats, one of product codes, one of signs."""
    source = plain(folder / "floats")
    compress_gallery(source, folder / "product", bytes_per_vector=1, bits=4, opq=True)
    derive_gallery(
        source,
        folder / "signs",
        lambda vectors: vectors,
        codes=SignCoder(WIDTH),
        metric="hamming",
        derivation={"step": "signs"},
    )
    return [folder / name for name in ("floats", "product", "signs")]


def as_written(path: Path) -> GallerySpace:
    """Open a gallery whose description is what the file says."""
    space = GallerySpace.open(path)
    written = json.loads((path / MANIFEST).read_bytes())
    assert says(written, space.manifest.model_dump(mode="json")), written
    assert space.vectors.shape == (int(written["count"]), int(written["dimension"]))
    return space


def used(path: Path) -> None:
    """Open a gallery and do with it what commands do."""
    space = as_written(path)
    print_gallery(space)
    space.verify()
    assert len(space.rows(space.ids[:3])) == min(3, len(space))
    np.asarray(space.vectors[:5]).sum()
    if space.view_vectors is not None:
        np.asarray(space.view_vectors[0][:5]).sum()
    if space.labels is not None and space.classes:
        assert all(space.classes[label] for label in space.labels if label >= 0)


def opened(path: Path) -> None:
    """Open a gallery whose hashes were made to fit, so that no hash gives it away."""
    space = as_written(path)
    print_gallery(space)
    space.rows(space.ids[:3])
    np.asarray(space.vectors[:5]).sum()


def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """The description changed field by field and byte by byte, then every array."""
    places = originals(folder / "whole")
    path = folder / NAME
    shutil.rmtree(path, ignore_errors=True)
    for place in places:
        shutil.copytree(place, path)
        whole = (path / MANIFEST).read_bytes()
        for what, text in mutated_json(json.loads(whole), seed, count // 6):
            put(path / MANIFEST, text.encode("utf-8", "surrogatepass"))
            yield Case(f"{place.name}, {what}", NAME, lambda: used(path))
        for what, content in mutated_bytes(whole, seed, count // 18):
            put(path / MANIFEST, content)
            yield Case(f"{place.name}, {what}", NAME, lambda: used(path))
        put(path / MANIFEST, whole)
        files = sorted(path.glob("*.npy"))
        for file in files:
            content = file.read_bytes()
            for number, (what, damaged) in enumerate(
                mutated_bytes(content, seed, max(7, count // 9 // len(files)))
            ):
                put(file, damaged)
                told = number % 2  # half of them with the new length told in the description
                if told:
                    _tell(path, file)
                what = f"{place.name}, {file.name} {what}{' told' if told else ''}"
                yield Case(what, NAME, lambda told=told: (opened if told else used)(path))
                put(path / MANIFEST, whole)
            put(file, content)
        shutil.rmtree(path)


def _tell(path: Path, file: Path) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][file.name]["bytes"] = file.stat().st_size
    (path / MANIFEST).write_text(json.dumps(manifest))


KINDS = {"gallery folders": cases}


def test_damaged_galleries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = assert_clean(cases, tmp_path, count=900)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 400


def changed(path: Path, **fields: Any) -> Path:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | fields))
    return path


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"fingerprint": None}, "the field 'fingerprint' is None"),
        ({"metric": ["cosine"]}, r"the field 'metric' is \['cosine'\]"),
        ({"count": 1e30}, "the field 'count' is 1e"),
        ({"classes": "abc"}, "the field 'classes' is 'abc'"),
        ({"preprocessing": {"resolution": 99999}}, "'resolution' is 99999"),
        ({"preprocessing": {"resolution": 9, "size": 9}}, "`size` is the old name of `resolution`"),
        ({"views": None}, "speak of different numbers of views"),
        ({"files": {"../../secret.npy": {"bytes": 1, "sha256": "0" * 64}}}, "'files"),
        ({"metric": "hamming"}, "goes with the codes 'sign', and only with them"),
        ({"derivation": [{"step": "fuse"}]}, "sources' is missing"),
        ({"version": 7}, r"of version 7, and .* up to 3: update querynas\.$"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    plain(tmp_path / "g")
    with pytest.raises(CompatError, match=rf"gallery\.json' .*{sentence}"):
        GallerySpace.open(changed(tmp_path / "g", **fields))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("labels.npy", np.full(COUNT, 3), "spans 3 to 3, expected -1 to 2"),
        ("labels.npy", np.zeros(COUNT, np.float32), "holds float32"),
        ("view_rows.npy", np.full(COUNT // 2, COUNT), "spans 20 to 20, expected 0 to 19"),
        ("ids.npy", np.array(["x"] * COUNT), "holds <U1"),
        ("vectors.npy", np.zeros((COUNT, WIDTH)), "holds float64, but gallery.json says float32"),
        ("classifier.npy", np.zeros((3, WIDTH + 1), np.float32), r"has shape \(3, 7\)"),
    ],
)
def test_wrong_arrays_are_named(
    tmp_path: Path, name: str, content: np.ndarray, sentence: str
) -> None:
    plain(tmp_path / "g")
    np.save(tmp_path / "g" / name, content)
    _tell(tmp_path / "g", tmp_path / "g" / name)
    with pytest.raises(CompatError, match=rf"{name} .*{sentence}"):
        GallerySpace.open(tmp_path / "g")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
@pytest.mark.parametrize("command", ["reduce", "compress", "derive", "hash", "fuse"])
def test_vectors_without_a_direction_are_learnt_from_by_nothing(
    tmp_path: Path, value: float, command: str
) -> None:
    plain(tmp_path / "g")
    vectors = np.load(tmp_path / "g" / "vectors.npy")
    vectors[4] = value
    np.save(tmp_path / "g" / "vectors.npy", vectors)
    space, out = GallerySpace.open(tmp_path / "g"), tmp_path / "out"
    commands = {
        "reduce": lambda: reduce_gallery(space, out, dimension=3),
        "compress": lambda: compress_gallery(space, out, bytes_per_vector=1, bits=4),
        "derive": lambda: derive_gallery(space, out, lambda v: v, derivation={"step": "copy"}),
        "hash": lambda: hash_gallery(space, out, bits=4),
        "fuse": lambda: fuse_galleries([space, space], out),
    }
    with pytest.raises(CompatError, match=r"/g: .* row 4 is (zero|not finite)|/g: .* row 2 is"):
        commands[command]()
    assert not out.exists()


def test_ids_that_are_no_utf8(tmp_path: Path) -> None:
    plain(tmp_path / "g")
    names = np.array([f"{n:02}".encode() + b"\xff" for n in range(COUNT)])
    np.save(tmp_path / "g" / "ids.npy", names)
    _tell(tmp_path / "g", tmp_path / "g" / "ids.npy")
    with pytest.raises(CompatError, match=r"ids\.npy holds an id that is no UTF-8"):
        opened(tmp_path / "g")


def test_files_that_are_devices_or_pipes(tmp_path: Path) -> None:
    plain(tmp_path / "g")
    (tmp_path / "g" / "labels.npy").unlink()
    os.mkfifo(tmp_path / "g" / "labels.npy")
    with pytest.raises(CompatError, match=r"labels\.npy is missing"):
        GallerySpace.open(tmp_path / "g")
    (tmp_path / "g" / MANIFEST).unlink()
    (tmp_path / "g" / MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(CompatError, match="is no regular file"):
        GallerySpace.open(tmp_path / "g")
    for name in ("n" * 300, "nul\0"):
        with pytest.raises(CompatError, match="no gallery folder"):
            GallerySpace.open(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"recipe": [], "done": 1}', '{"recipe": {}, "done": -1}', "[" * 9999],
)
def test_the_note_of_an_unfinished_build(tmp_path: Path, content: str) -> None:
    from compat.data import open_facades

    images = open_facades(classes=2, images=2, size=16)
    model = GalleryModel(
        "mean",
        3,
        Preprocessing(resolution=16),
        "0",
        None,
        lambda pixels, **_: pixels.mean(axis=(1, 2)).astype(np.float32),
    )
    (tmp_path / "g.partial").mkdir()
    (tmp_path / "g.partial" / "progress.json").write_text(content)
    with pytest.raises(CompatError, match=r"progress\.json' .*remove the folder"):
        build_gallery(images, model, tmp_path / "g", cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["n" * 252, "nul\0", "file/g"])
def test_folders_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    space = plain(tmp_path / "g")
    with pytest.raises(CompatError, match="cannot be written"):
        reduce_gallery(space, tmp_path / name, dimension=3)

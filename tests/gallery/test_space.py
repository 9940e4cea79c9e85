"""Opening, checking and searching a gallery on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat.errors import CompatError
from compat.gallery import GallerySpace, import_gallery
from compat.gallery.space import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "v.npy", rng.standard_normal((20, 5)).astype(np.float32))
    ids = [f"bücher/{number:02d}.jpg" for number in range(20)]
    import_gallery(tmp_path / "v.npy", tmp_path / "gallery", ids=ids, labels=np.arange(20) % 4)
    return tmp_path / "gallery"


def test_what_was_written_is_read(folder: Any) -> None:
    space = GallerySpace.open(folder)
    assert (len(space), space.dimension, space.metric) == (20, 5, "cosine")
    assert isinstance(space.vectors, np.memmap)
    np.testing.assert_allclose(np.linalg.norm(space.vectors, axis=1), 1, atol=1e-6)
    assert space.ids[3] == "bücher/03.jpg"
    assert space.labels.tolist() == [n % 4 for n in range(20)]
    assert (space.manifest.model, space.preprocessing, space.manifest.data) == (None, None, None)
    assert space.view_vectors is None
    assert len(space.view_rows) == 0
    space.verify()


def test_rows_follow_the_order_asked_for(folder: Any) -> None:
    space = GallerySpace.open(folder)
    assert space.rows(["bücher/07.jpg", "bücher/00.jpg"]).tolist() == [7, 0]
    assert space.rows([]).tolist() == []


def test_an_unknown_id_is_named_with_near_matches(folder: Any) -> None:
    with pytest.raises(CompatError, match=r"no image 'bücher/7.jpg' \(did you mean 'bücher/"):
        GallerySpace.open(folder).rows(["bücher/01.jpg", "bücher/7.jpg"])
    with pytest.raises(CompatError, match="no image 'zzz'"):
        GallerySpace.open(folder).rows(["zzz"])


def test_missing_parts_are_named(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="There is no gallery folder"):
        GallerySpace.open(tmp_path / "none")
    with pytest.raises(CompatError, match=r"is no gallery, it has no gallery\.json"):
        GallerySpace.open(tmp_path)
    (folder / "ids.npy").unlink()
    with pytest.raises(CompatError, match=r"ids\.npy is missing"):
        GallerySpace.open(folder)


def test_a_truncated_file_is_named_with_its_sizes(folder: Any) -> None:
    file = folder / "vectors.npy"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size - 8)
    with pytest.raises(CompatError, match=rf"vectors\.npy has {size - 8} bytes, expected {size}"):
        GallerySpace.open(folder)


def edit(folder: Any, **changes: Any) -> None:
    file = folder / "gallery.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_wrong_description_is_refused(folder: Any) -> None:
    edit(folder, count=19)
    with pytest.raises(CompatError, match=r"labels\.npy has shape \(20,\).*says \(19,\)"):
        GallerySpace.open(folder)
    edit(folder, version=99)
    with pytest.raises(CompatError, match=r"version 99, and .* up to 3: update querynas"):
        GallerySpace.open(folder)
    (folder / "gallery.json").write_text('{"version": 1, "count": 3}')
    with pytest.raises(CompatError, match="'metric' is missing"):
        GallerySpace.open(folder)
    (folder / "gallery.json").write_text("{oops")
    with pytest.raises(CompatError, match="cannot be read: it is not valid JSON"):
        GallerySpace.open(folder)


def test_a_damaged_header_is_refused(folder: Any) -> None:
    with (folder / "labels.npy").open("r+b") as stream:
        stream.write(b"XXXX")
    with pytest.raises(CompatError, match=r"labels\.npy is damaged"):
        GallerySpace.open(folder)


@pytest.mark.parametrize("name", ["vectors.npy", "ids.npy", "labels.npy"])
def test_verify_finds_a_changed_byte(folder: Any, name: str) -> None:
    space = GallerySpace.open(folder)
    with (folder / name).open("r+b") as stream:
        stream.seek(-3, 2)
        stream.write(b"\x01")
    with pytest.raises(CompatError, match=rf"{name} has changed"):
        space.verify()


def test_verify_finds_a_changed_fingerprint(folder: Any) -> None:
    edit(folder, fingerprint="0" * 64)
    with pytest.raises(CompatError, match="states fingerprint 000000000000…"):
        GallerySpace.open(folder).verify()


def test_the_fingerprint_notices_every_ingredient_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((9, 4)).astype(np.float32)
    ids = np.array([b"a", b"bc", b"d", b"e", b"f", b"g", b"h", b"i", b"j"])
    base = fingerprint("cosine", vectors, ids)
    assert base == fingerprint("cosine", np.asfortranarray(vectors), ids.copy())
    changed = vectors.copy()
    changed[8, 3] = np.nextafter(changed[8, 3], 1, dtype=np.float32)
    shifted = ids.copy()
    shifted[0], shifted[1] = b"ab", b"c"
    others = [
        fingerprint("ip", vectors, ids),
        fingerprint("cosine", changed, ids),
        fingerprint("cosine", vectors[::-1], ids),
        fingerprint("cosine", vectors.reshape(18, 2), np.concatenate([ids, ids])),
        fingerprint("cosine", vectors.astype(np.float16), ids),
        fingerprint("cosine", vectors, ids[::-1]),
        fingerprint("cosine", vectors, shifted),
    ]
    assert len({base, *others}) == len(others) + 1

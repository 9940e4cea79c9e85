"""Vectors from other tools."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pytest

from compat.errors import CompatError
from compat.gallery import GallerySpace, import_gallery, vector_files

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((50, 6)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
NAMES = [f"image {number}" for number in range(50)]


def as_npy(path: Any) -> Any:
    np.save(path / "v.npy", VECTORS)
    return path / "v.npy"


def as_npz(path: Any) -> Any:
    np.savez(path / "v.npz", vectors=VECTORS, ids=np.array(NAMES), labels=np.arange(50))
    return path / "v.npz"


def as_parquet(path: Any) -> Any:
    pd.DataFrame({"id": NAMES, "vector": list(VECTORS)}).to_parquet(path / "v.parquet")
    return path / "v.parquet"


def as_flat_index(path: Any) -> Any:
    index = faiss.IndexFlatIP(6)
    index.add(VECTORS)
    faiss.write_index(index, str(path / "v.faiss"))
    return path / "v.faiss"


def as_inverted_lists(path: Any) -> Any:
    index = faiss.index_factory(6, "IVF2,Flat")
    index.train(VECTORS)
    index.add(VECTORS)
    faiss.write_index(index, str(path / "v.index"))
    return path / "v.index"


WRITERS = [as_npy, as_npz, as_parquet, as_flat_index, as_inverted_lists]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("rows", [7, 1000])
def test_every_format_gives_the_same_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, rows: Any
) -> None:
    monkeypatch.setattr(vector_files, "ROWS", rows)
    cosine = import_gallery(write(tmp_path), tmp_path / "cosine")
    np.testing.assert_allclose(cosine.vectors, UNIT, atol=1e-6)
    plain = import_gallery(write(tmp_path), tmp_path / "ip", metric="ip")
    np.testing.assert_array_equal(plain.vectors, VECTORS)
    stored = write in (as_npz, as_parquet)
    assert cosine.ids[7] == ("image 7" if stored else "7")
    cosine.verify()
    assert not (tmp_path / "cosine.partial").exists()


def test_ids_and_labels_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    space = import_gallery(
        as_npy(tmp_path), tmp_path / "g", ids=tmp_path / "names.txt", labels=np.arange(50)
    )
    assert space.ids.tolist() == NAMES
    assert space.labels.tolist() == list(range(50))
    assert import_gallery(as_npz(tmp_path), tmp_path / "h").labels.tolist() == list(range(50))


def test_half_precision_is_kept_small(tmp_path: Path) -> None:
    space = import_gallery(as_npy(tmp_path), tmp_path / "g", dtype="float16")
    assert space.vectors.dtype == np.float16
    np.testing.assert_allclose(space.vectors, UNIT, atol=1e-3)
    assert GallerySpace.open(tmp_path / "g").fingerprint == space.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": NAMES[:49]}, "49 ids for the 50 vectors"),
        ({"labels": np.arange(51)}, "51 labels for the 50 vectors"),
        ({"ids": [*NAMES[:48], "same", "same"]}, "id 'same' stands in rows 48 and 49"),
        ({"metric": "l2"}, "Unknown metric 'l2'"),
        ({"dtype": "int8"}, "cannot be stored as 'int8'"),
    ],
)
def test_wrong_arguments_are_named_and_leave_nothing(
    tmp_path: Path, arguments: Any, message: str
) -> None:
    source = as_npy(tmp_path)
    with pytest.raises(CompatError, match=message):
        import_gallery(source, tmp_path / "g", **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npy"]


@pytest.mark.parametrize(
    ("value", "state"), [(np.nan, "not finite"), (np.inf, "not finite"), (0, "zero")]
)
def test_the_first_unusable_vector_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, state: Any
) -> None:
    monkeypatch.setattr(vector_files, "ROWS", 8)
    wrong = VECTORS.copy()
    wrong[[21, 30]] = value
    np.save(tmp_path / "v.npy", wrong)
    with pytest.raises(CompatError, match=rf"v\.npy: row 21 is {state}"):
        import_gallery(tmp_path / "v.npy", tmp_path / "g")
    assert not (tmp_path / "g").exists()
    assert not (tmp_path / "g.partial").exists()


def test_files_that_are_no_vectors_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.ones(9))
    np.save(tmp_path / "int.npy", np.ones((3, 3), int))
    np.save(tmp_path / "none.npy", np.ones((0, 3)))
    np.savez(tmp_path / "other.npz", vector=VECTORS)
    pd.DataFrame({"name": NAMES, "vector": list(VECTORS)}).to_parquet(tmp_path / "a.parquet")
    ragged = [*VECTORS[:3], VECTORS[3, :2]]
    pd.DataFrame({"id": NAMES[:4], "vector": ragged}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "text.faiss").write_text("no index")
    (tmp_path / "v.csv").write_text("1,2")
    messages = {
        "flat.npy": r"shape \(9,\) and type float64",
        "int.npy": "type int64, expected floating-point",
        "none.npy": "holds no vectors",
        "other.npz": "no array 'vectors'.*did you mean 'vector'",
        "a.parquet": "no column 'id'",
        "b.parquet": "row 3 has 2 numbers, expected 6",
        "text.faiss": "cannot be read as .faiss vectors",
        "v.csv": "ending '.csv', expected one of .npy",
        "gone.npy": "There is no file",
    }
    for name, message in messages.items():
        with pytest.raises(CompatError, match=message):
            import_gallery(tmp_path / name, tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    import_gallery(as_npy(tmp_path), tmp_path / "g")
    with pytest.raises(CompatError, match="exists already"):
        import_gallery(as_npy(tmp_path), tmp_path / "g")
    (tmp_path / "h.partial").mkdir()
    (tmp_path / "h.partial" / "progress.json").write_text("{}")
    with pytest.raises(CompatError, match="unfinished build"):
        import_gallery(as_npy(tmp_path), tmp_path / "h")
    assert (tmp_path / "h.partial" / "progress.json").exists()

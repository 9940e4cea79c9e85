"""Vectors, ids and faiss indexes that somebody else wrote."""

import io
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mutations import VALUES, Case, assert_clean, mutated_bytes, put
from pyarrow import parquet

from compat.errors import CompatError
from compat.gallery import GallerySpace, import_gallery

COUNT, WIDTH = 12, 5
VECTORS = np.random.default_rng(0).standard_normal((COUNT, WIDTH)).astype(np.float32)
NAMES = [f"image {number}" for number in range(COUNT)]


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, VECTORS)
    return content.getvalue()


def npz(**extra: np.ndarray) -> bytes:
    content = io.BytesIO()
    arrays = {"vectors": VECTORS, "ids": np.array(NAMES), "labels": np.arange(COUNT)}
    np.savez(content, allow_pickle=True, **(arrays | extra))
    return content.getvalue()


def table(**extra: Any) -> bytes:
    content = io.BytesIO()
    parquet.write_table(pa.table({"id": NAMES, "vector": list(VECTORS)} | extra), content)
    return content.getvalue()


def index(kind: str) -> bytes:
    made = faiss.index_factory(WIDTH, kind)
    made.train(VECTORS)
    if kind.startswith("IDMap"):
        made.add_with_ids(VECTORS, np.arange(COUNT))
    else:
        made.add(VECTORS)
    return faiss.serialize_index(made).tobytes()


def imported(path: Path, **options: Any) -> GallerySpace:
    """Import, check and open; the gallery is removed again."""
    out = path.parent / "gallery"
    try:
        space = import_gallery(path, out, **options)
        space.verify()
        assert len(space.rows(space.ids)) == len(space)
        assert np.isfinite(space.vectors).all()
        if "ids" in options:
            assert space.ids.tolist() == options["ids"].read_text("utf-8").splitlines()
        if path.suffix == ".npy":
            rows = np.load(path).astype(np.float32)
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            np.testing.assert_allclose(space.vectors, rows / lengths, atol=1e-6)
        return space
    finally:
        shutil.rmtree(out, ignore_errors=True)


def arrays_of(values: tuple[Any, ...]) -> list[np.ndarray]:
    return [
        *(np.array([value] * COUNT, dtype=object) for value in values[:20]),
        *(np.full(COUNT, value) for value in (-2, 2**62, 0.5, True, 1j, b"\xff", "ü", "\ud800")),
        *(np.zeros(shape) for shape in ((), (0,), (COUNT, 1), (COUNT + 1,), (0, COUNT))),
        np.array(["x" * 5000] * COUNT),
        np.array([f"a\0{n}" for n in range(COUNT)]),
        np.array([(1, 2.0)] * COUNT, dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["2020-01-01"] * COUNT, dtype="datetime64[D]"),
    ]


def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged arrays, ids in text files, arrays of any type."""
    for name, content in (("v.npy", npy()), ("v.npz", npz())):
        path = folder / name
        for what, damaged in mutated_bytes(content, seed, count // 4):
            put(path, damaged)
            yield Case(f"{name} {what}", name, lambda path=path: imported(path))
    path = folder / "v.npy"
    put(path, npy())
    ids = folder / "ids.txt"
    for what, damaged in mutated_bytes("\n".join(NAMES).encode(), seed, count // 4):
        put(ids, damaged)
        yield Case(f"ids {what}", ids.name, lambda: imported(path, ids=ids))
    path = folder / "v.npz"
    others = arrays_of(VALUES)
    draw = random.Random(seed)
    for number in range(count // 4):
        name = ("ids", "labels", "vectors")[number % 3]
        value = draw.choice(others)
        if draw.random() < 0.3 and value.ndim == 1:
            value = np.stack([value] * 3, axis=1)
        put(path, npz(**{name: value}))
        what = f"{name} of {value.dtype} {value.shape}"
        yield Case(what, path.name, lambda path=path: imported(path))


def tables(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged Parquet files; each is tried in a process of its own first."""
    path = folder / "v.parquet"
    for what, damaged in mutated_bytes(table(), seed, count):
        put(path, damaged)
        yield Case(what, path.name, lambda: imported(path))


def indexes(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged faiss indexes of several kinds; each is read by a program of its own."""
    path = folder / "v.faiss"
    kinds = ("Flat", "IVF2,Flat", "PQ5x2", "SQ8", "HNSW4", "IDMap,Flat")
    each = max(7, count // len(kinds))
    for kind in kinds:
        for what, content in mutated_bytes(index(kind), seed, each):
            put(path, content)
            yield Case(f"{kind} {what}", path.name, lambda: imported(path))


KINDS = {"vectors and ids": cases, "Parquet vectors": tables, "faiss indexes": indexes}


def test_damaged_vectors(tmp_path: Path) -> None:
    done = assert_clean(cases, tmp_path, count=1000)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 300


def test_damaged_tables(tmp_path: Path) -> None:
    assert assert_clean(tables, tmp_path, count=10).outcomes["refused"] > 3
    (tmp_path / "v.parquet").write_bytes(table())
    assert imported(tmp_path / "v.parquet").ids.tolist() == NAMES


@pytest.mark.parametrize("kind", ["IDMap,Flat", "IDMap2,Flat"])
def test_an_index_with_ids_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "v.faiss"
    path.write_bytes(index(kind))
    with pytest.raises(CompatError, match="it maps ids of its own: save the index inside it"):
        imported(path)


@pytest.mark.parametrize("place", [4, 8, 12])
def test_a_damaged_index_does_not_end_the_process(tmp_path: Path, place: int) -> None:
    content = bytearray(index("Flat"))
    content[place : place + 4] = b"\xff\xff\xff\x7f"
    path = tmp_path / "v.faiss"
    path.write_bytes(content)
    with pytest.raises(CompatError, match=r"v\.faiss"):
        imported(path)


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        (np.zeros((COUNT, 0), np.float32), "vectors of 0 dimensions, expected 1 to 65536"),
        (np.zeros((0, 4), np.float32), "holds no vectors"),
        (np.full((COUNT, 3), 1e38, np.float32), "row 0 is"),
        (np.full((COUNT, 3), 1e-42, np.float32), "row 0 is"),
        (np.full((COUNT, 3), 1e300), "row 0 is not finite"),
        (np.ones((COUNT, 3), complex), "expected floating-point"),
        (np.ones((COUNT, 70_000), np.float32), "70000 dimensions"),
    ],
)
def test_vectors_without_a_direction(tmp_path: Path, vectors: np.ndarray, sentence: str) -> None:
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(CompatError, match=sentence):
        imported(tmp_path / "v.npy")


def test_half_precision_that_overflows_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.full((COUNT, 3), 1e6, np.float32))
    with pytest.raises(CompatError, match="as float16 of metric ip, row 0 is not finite"):
        imported(tmp_path / "v.npy", metric="ip", dtype="float16")


def test_ids_are_utf8_text_without_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(npy())
    ids = tmp_path / "ids.txt"
    ids.write_bytes("\n".join(f"schlüssel {n}" for n in range(COUNT)).encode("latin-1"))
    with pytest.raises(CompatError, match=r"ids\.txt' is no UTF-8 text \(byte 4\)"):
        imported(tmp_path / "v.npy", ids=ids)
    ids.write_text("\n".join(f"a\0{n}" for n in range(COUNT)))
    with pytest.raises(CompatError, match=r"id .* in row 0 cannot be written as UTF-8"):
        imported(tmp_path / "v.npy", ids=ids)


def test_an_archive_that_blows_up_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 28, 4)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vectors.npy", head.getvalue())
    with pytest.raises(CompatError, match="is not as long as its shape"):
        imported(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("vectors.npy", head.getvalue() + bytes(100 << 20))
    with pytest.raises(CompatError, match="stands for 104,857,"):
        imported(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays.arrays(
        st.one_of(arrays.floating_dtypes(), arrays.integer_dtypes(), arrays.boolean_dtypes()),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    )
)
def test_any_array_is_imported_or_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    np.save(tmp_path / "v.npy", vectors)
    try:
        space = imported(tmp_path / "v.npy")
    except CompatError:
        return
    assert len(space) == len(vectors)

"""Tables of images and ground truth from anybody."""

import contextlib
import io
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import VALUES, Case, assert_clean, hostile_pickle, mutated_bytes, put
from PIL import Image
from pyarrow import parquet

from compat.data import open_data
from compat.data.images import ImageSet
from compat.data.revisitop import read_ground_truth
from compat.errors import CompatError

COLUMNS = ("path", "label", "split", "bbox", "camera")
IMAGES = ("a.png", "b.png", "c.png", "passwd")  # those that a row may name
ROWS = [
    ["a.png", "auk", "train", "1 2 7 9", "3"],
    ["b.png", "", "query", "", ""],
    ["c.png", "NA", "test", "[1, 2, 7, 9]", "0"],
]


def pictures(folder: Path) -> None:
    for name in "abcdq":
        Image.new("RGB", (12, 10), (ord(name), 0, 0)).save(folder / f"{name}.png")


def text(rows: list[list[Any]], columns: tuple[str, ...] = COLUMNS) -> bytes:
    lines = [",".join(f'"{cell}"' for cell in row) for row in [columns, *rows]]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def table() -> bytes:
    content = io.BytesIO()
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(COLUMNS)}
    parquet.write_table(pa.table(columns), content)
    return content.getvalue()


def read_all(path: Path) -> ImageSet:
    """Open a manifest and load its images, as whoever decodes them does.

    It has the rows that the reader of another library finds in it.
    """
    images = open_data(path)
    found = _rows(path)
    assert [each.partition("#")[0] for each in images.ids] == [row["path"] for row in found]
    names = [images.classes[label] if label >= 0 else "" for label in images.labels]
    assert names == [row["label"] for row in found]
    for index in range(len(images)):
        images.source.digest(index)
        images.source.load(index)
    return images


def _rows(path: Path) -> list[dict[str, str]]:
    """Paths with slashes and labels, as pandas reads them."""
    if path.suffix == ".parquet":
        there = parquet.read_schema(path).names
        wanted = [name for name in ("path", "label") if name in there]
        frame = pandas.read_parquet(path, columns=wanted)
    else:
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    frame = frame.reindex(columns=["path", "label"]).fillna("").astype(str)
    frame["path"] = frame["path"].str.replace("\\", "/")
    rows: list[dict[str, str]] = frame.to_dict("records")
    return rows


def cases(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged bytes, then cells that no such cell may hold."""
    pictures(folder)
    path = folder / "list.csv"
    for what, damaged in mutated_bytes(text(ROWS), seed, count // 2):
        put(path, damaged)
        yield Case(what, (path.name, *IMAGES), lambda: read_all(path))
    draw = random.Random(seed)
    for number in range(count // 2):
        rows = [list(row) for row in ROWS]
        place = number % len(COLUMNS)
        value = draw.choice(VALUES)
        rows[draw.randrange(len(rows))][place] = value
        put(path, text(rows))
        what = f"{COLUMNS[place]} = {str(value)[:30]!r}"
        yield Case(what, (path.name, *IMAGES), lambda: read_all(path))


def tables(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged Parquet files; each is tried in a process of its own first."""
    pictures(folder)
    path = folder / "list.parquet"
    for what, damaged in mutated_bytes(table(), seed, count):
        put(path, damaged)
        yield Case(what, (path.name, *IMAGES), lambda: read_all(path))


def ground_truth() -> dict[str, Any]:
    entry = {"bbx": [1, 1, 9, 9], "easy": [0, 3], "hard": np.array([1]), "junk": [2]}
    return {"imlist": ["a", "b", "c", "d"], "qimlist": ["q"], "gnd": [entry]}


def exploding(depth: int) -> list[Any]:
    """Lists of the same list twice: 60 of them in a few bytes stand for 2**60 numbers."""
    inner: list[Any] = [1]
    for _ in range(depth):
        inner = [inner, inner]
    return inner


def truths(folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Ground truth of revisitop, which is published as a pickle."""
    path = folder / "gnd.pkl"

    def case(what: str, content: bytes) -> Case:
        put(path, content)
        return Case(what, path.name, lambda: read_ground_truth(path))

    for protocol in (0, 2, 4):
        whole = pickle.dumps(ground_truth(), protocol=protocol)
        for what, content in mutated_bytes(whole, seed, count // 4):
            yield case(f"protocol {protocol}, {what}", content)
    yield case("runs something", hostile_pickle(folder / "ran"))
    draw = random.Random(seed)
    others = [*VALUES, exploding(60), [[1, 2], [3]], np.array([{}], dtype=object), np.zeros(0)]
    others += [np.array(["x"]), {1: 2}, np.float64("inf"), [1, "2"], range(3)]
    for number in range(count // 4):
        truth = ground_truth()
        value = draw.choice(others)
        places = [(truth, key) for key in truth] + [
            (truth["gnd"][0], key) for key in truth["gnd"][0]
        ]
        holder, key = places[number % len(places)]
        holder[key] = value
        yield case(f"{key} = {type(value).__name__}", pickle.dumps(truth))


KINDS = {"manifests": cases, "Parquet manifests": tables, "ground truth": truths}


def test_damaged_manifests(tmp_path: Path) -> None:
    done = assert_clean(cases, tmp_path, count=1200)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 400


def test_damaged_tables(tmp_path: Path) -> None:
    assert assert_clean(tables, tmp_path, count=10).outcomes["refused"] > 3
    whole = table()
    (tmp_path / "list.parquet").write_bytes(whole)
    assert len(read_all(tmp_path / "list.parquet")) == len(ROWS)


def test_a_table_that_ends_the_process_which_reads_it_is_refused(tmp_path: Path) -> None:
    """Seeds 1/19 lets pyarrow's metadata throw where nothing catches."""
    damaged = dict(mutated_bytes(table(), 1, 40))["bytes 1/19"]
    (tmp_path / "list.parquet").write_bytes(damaged)
    with pytest.raises(CompatError, match=r"list\.parquet cannot be read"):
        open_data(tmp_path / "list.parquet")


def test_damaged_ground_truth(tmp_path: Path) -> None:
    done = assert_clean(truths, tmp_path, count=1600)
    assert done.outcomes["opened"]
    assert done.outcomes["refused"] > 400
    assert not (tmp_path / "ran").exists()


CELL = st.one_of(
    st.text(max_size=20), st.sampled_from([str(value)[:200] for value in VALUES]), st.just("a.png")
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(st.one_of(st.sampled_from(COLUMNS), CELL), max_size=6),
    rows=st.lists(st.lists(CELL, max_size=6), max_size=4),
)
def test_any_table_opens_or_is_refused(
    tmp_path: Path, columns: list[str], rows: list[list[str]]
) -> None:
    if not (tmp_path / "a.png").exists():
        pictures(tmp_path)
    path = tmp_path / "list.csv"
    path.write_bytes(text(rows, tuple(columns)))
    with contextlib.suppress(CompatError):
        assert len(read_all(path)) == sum(bool(row) for row in rows)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"path,label\n" + b"a.png,x\n" * 3 + b"\xff\xfe.png,x\n", "cannot be read as a table"),
        (b"," * 5000 + b"\n", "5,001 columns, expected at most 1,000"),
        (b'path,label\n"' + b"x" * 200_000 + b'",y\n', "cannot be read as a table .field larger"),
        (b"path,path,label\na.png,a.png,x\n", "two columns 'path'"),
        (b"path,label\n" + b"x" * 5000 + b",y\n", "files that do not exist"),
        (b"path,label\na.png\0,y\n", "files that do not exist"),
        (b"path,label,bbox\na.png,y,0 0 inf 9\n", "the box '0 0 inf 9' in row 1"),
        (b"path,label,bbox\na.png,y,0 0 1e300 9\n", "the box '0 0 1e300 9' in row 1"),
        (b"path,label,camera\na.png,y," + b"9" * 400 + b"\n", "the camera '9999"),
    ],
)
def test_what_was_a_traceback_is_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    pictures(tmp_path)
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(CompatError, match=sentence):
        open_data(path)


def test_few_bytes_that_stand_for_billions_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path)
    path = tmp_path / "list.parquet"
    many = pa.array(["a.png"]).take(pa.array(np.zeros(3_000_000, dtype=np.int32)))
    parquet.write_table(pa.table({"path": many, "label": many}), path)
    with pytest.raises(CompatError, match="stands for 6,000,000 values in"):
        open_data(path)
    parquet.write_table(pa.table({"path": ["a" * 10_000_000] * 30, "label": ["x"] * 30}), path)
    with pytest.raises(CompatError, match="a text of 10,000,000 bytes"):
        open_data(path)


@pytest.mark.parametrize(
    "name", ["n" * 300 + ".csv", "nul\0.csv", "pipe.csv", "endless.csv", "~nobody"]
)
def test_paths_that_no_table_has(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    with pytest.raises(CompatError):
        open_data(name, root=tmp_path)

"""Tables of images: every column, every way to write a box, every mistake."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pictures import picture

from compat.data import open_data, open_manifest
from compat.errors import CompatError


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    for number, name in enumerate(["a/1.png", "a/2.png", "b/1.png", "b/2.png"]):
        picture(tmp_path / name, number)
    return tmp_path


def table(folder: Any, rows: Any, columns: Any = "path,label") -> Any:
    path = folder / "images.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def test_all_columns(folder: Any) -> None:
    rows = ["a/1.png,auk,train,1 2 7 9,3", "a/2.png,,query,,", "b/1.png,NA,test,,0"]
    path = table(folder, rows, "path,label,split,bbox,camera")
    images = open_data(path)
    assert images.ids.tolist() == ["a/1.png#1,2,7,9", "a/2.png", "b/1.png"]
    assert images.classes == ("NA", "auk")
    assert images.labels.tolist() == [1, -1, 0]
    assert images.split.tolist() == ["train", "query", ""]
    assert images.camera.tolist() == [3, -1, 0]
    assert images.source.load(0).size == (6, 7)
    assert images.source.load(1).size == (12, 10)
    assert open_data(images.spec).ids.tolist() == images.ids.tolist()


def test_one_image_with_two_boxes_gives_two_digests(folder: Any) -> None:
    images = open_manifest(
        table(folder, ["a/1.png,x,0 0 4 4", "a/1.png,x,0 0 5 5"], "path,label,bbox")
    )
    assert images.source.digest(0) != images.source.digest(1)


@pytest.mark.parametrize("written", ["1 2 7 9", '"1, 2, 7, 9"', '"[1, 2.0, 7, 9]"'])
def test_ways_to_write_a_box(folder: Any, written: Any) -> None:
    images = open_manifest(table(folder, [f"a/1.png,x,{written}"], "path,label,bbox"))
    assert images.ids.tolist() == ["a/1.png#1,2,7,9"]


def test_box_in_four_columns(folder: Any) -> None:
    path = table(folder, ["a/1.png,x,1,2,7,9", "a/2.png,x,,,,"], "path,label,x0,y0,x1,y1")
    images = open_manifest(path)
    np.testing.assert_array_equal(images.source.boxes[0], [1, 2, 7, 9])
    assert np.isnan(images.source.boxes[1]).all()


def test_labels_may_be_left_out(folder: Any) -> None:
    images = open_manifest(table(folder, ["a/1.png", "b/1.png"], "path"))
    assert images.labels.tolist() == [-1, -1]
    assert not images.labelled


def test_parquet_with_typed_columns(folder: Any) -> None:
    frame = pd.DataFrame(
        {
            "path": ["a/1.png", "a/2.png", "b/1.png"],
            "label": ["x", None, "y"],
            "bbox": [[1.0, 2.0, 7.0, 9.0], None, None],
            "camera": [1.0, None, 2.0],
            "width": [12, 12, 12],
        }
    )
    frame.to_parquet(folder / "images.parquet")
    images = open_data(folder / "images.parquet")
    assert images.labels.tolist() == [0, -1, 1]
    assert images.camera.tolist() == [1, -1, 2]
    assert images.ids.tolist() == ["a/1.png#1,2,7,9", "a/2.png", "b/1.png"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["a/1.png,x"], "path,lable", "column 'lable'.*did you mean 'label'"),
        (["a/1.png,x"], "file,label", "no 'path'"),
        (["a/1.png,x,train"], "path,label,spilt", "column 'spilt'.*did you mean 'split'"),
        (["a/1.png,x,trian"], "path,label,split", "split 'trian' in row 1.*did you mean 'train'"),
        (["a/1.png,x", "a/3.png,x"], "path,label", "1 of 2 files .* first 'a/3.png'.*did you mean"),
        ([",x"], "path,label", "files that do not exist, first ''"),
        (["a/1.png,x", "a/1.png,x"], "path,label", "lists 'a/1.png' 2 times"),
        (["a/1.png,x,1 2 3"], "path,label,bbox", "box '1 2 3' in row 1"),
        (["a/1.png,x,5 2 3 9"], "path,label,bbox", "box '5 2 3 9' in row 1"),
        (["a/1.png,x,1 2 a b"], "path,label,bbox", "box '1 2 a b' in row 1"),
        (["a/1.png,x,1,2"], "path,label,x0,y0", r"box columns \['x0', 'y0'\]"),
        (["a/1.png,x,,1,2,3,4"], "path,label,bbox,x0,y0,x1,y1", "keep one of the two"),
        (["a/1.png,x,front"], "path,label,camera", "camera 'front' in row 1"),
        ([], "path,label", "lists no images"),
        (["a/1.png,x,1,2,3"], "path,label", "has 5 cells in row 1, expected 2"),
    ],
)
def test_mistakes(folder: Any, rows: Any, columns: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        open_manifest(table(folder, rows, columns))


def test_missing_and_unreadable_tables(folder: Any) -> None:
    table(folder, ["a/1.png,x"])
    with pytest.raises(CompatError, match=r"no manifest .*imagse\.csv.*did you mean 'images\.csv'"):
        open_data(folder / "imagse.csv")
    (folder / "bad.parquet").write_bytes(b"not a table")
    with pytest.raises(CompatError, match=r"bad\.parquet cannot be read"):
        open_data(folder / "bad.parquet")


def test_a_box_outside_is_found_when_the_image_is_loaded(folder: Any) -> None:
    images = open_manifest(table(folder, ["a/1.png,x,0 0 40 9"], "path,label,bbox"))
    with pytest.raises(CompatError, match="does not lie inside the 12 x 10 pixels"):
        images.source.load(0)


def test_a_json_box_is_not_executed(folder: Any) -> None:
    text = json.dumps(["__import__('os')", 1, 2, 3])
    frame = pd.DataFrame({"path": ["a/1.png"], "label": ["x"], "bbox": [text]})
    frame.to_csv(folder / "images.csv", index=False)
    with pytest.raises(CompatError, match="in row 1"):
        open_manifest(folder / "images.csv")

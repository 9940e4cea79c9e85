"""A folder per class or a flat one, alone or with a folder of queries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import class_folders, picture

from compat.data import open_data, open_folder
from compat.errors import CompatError


def test_classes_ids_and_labels_come_from_names(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "birds", {"wren": 2, "auk": 3})
    (root / "auk" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    images = open_folder(root)
    assert images.name == "birds"
    assert images.classes == ("auk", "wren")
    assert images.ids.tolist() == [f"auk/00{i}.png" for i in range(3)] + [
        "wren/000.png",
        "wren/001.png",
    ]
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.split is None
    assert images.source.load(0).size == (12, 10)
    assert open_data(images.spec).ids.tolist() == images.ids.tolist()


def test_queries_from_another_folder(tmp_path: Path) -> None:
    gallery = class_folders(tmp_path / "gallery", {"a": 1, "b": 2, "distractor": 1})
    queries = class_folders(tmp_path / "asked", {"b": 1, "a": 1}, seed=50)
    images = open_data(f"{gallery},queries={queries}")
    assert images.ids.tolist()[:3] == ["queries/a/000.png", "queries/b/000.png", "a/000.png"]
    assert images.split.tolist() == ["query"] * 2 + ["gallery"] * 4
    assert images.labels.tolist() == [0, 1, 0, 1, 1, 2]
    assert images.source.digest(0) != images.source.digest(2)
    assert open_data(images.spec).split.tolist() == images.split.tolist()


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"birds": 3}) / "birds"
    (root / "notes.txt").write_text("not an image")
    images = open_data(str(root))
    assert images.ids.tolist() == ["000.png", "001.png", "002.png"]
    assert images.labels.tolist() == [-1] * 3
    assert (images.classes, images.labelled, images.split) == ((), False, None)
    assert images.source.load(2).size == (12, 10)
    assert open_data(images.spec).ids.tolist() == images.ids.tolist()


def test_flat_queries_in_a_flat_gallery(tmp_path: Path) -> None:
    gallery = class_folders(tmp_path, {"all": 3}) / "all"
    asked = class_folders(tmp_path, {"asked": 1}, seed=50) / "asked"
    images = open_data(f"{gallery},queries={asked}")
    assert images.ids.tolist() == ["queries/000.png", "000.png", "001.png", "002.png"]
    assert images.split.tolist() == ["query"] + ["gallery"] * 3
    assert not images.labelled
    with pytest.raises(CompatError, match=r"Only one of .* has class folders"):
        open_folder(tmp_path, queries=asked)


def test_digest_follows_content_not_name(tmp_path: Path) -> None:
    picture(tmp_path / "x" / "one.png", 1)
    picture(tmp_path / "x" / "same.png", 1)
    picture(tmp_path / "x" / "other.png", 2)
    source = open_folder(tmp_path).source
    same, other, one = (source.digest(i) for i in np.argsort(["one", "other", "same"])[[1, 2, 0]])
    assert len({same, other, one}) == 2


def empty_class(root: Any) -> Any:
    class_folders(root, {"a": 2})
    (root / "b").mkdir()
    return root


def nested_class(root: Any) -> Any:
    class_folders(root / "train", {"a": 2})
    return root


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "There is no folder .*nowhere"),
        (lambda root: root, "holds neither images nor class folders"),
        (empty_class, "class 'b' .* has no images: add images"),
        (nested_class, "class 'train' .* no images: it holds folders such as 'a'"),
        (lambda root: class_folders(root, {"a": 2, "b": 1}), "class 'b' .* has one image"),
    ],
)
def test_errors_name_the_class_and_the_remedy(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message) as caught:
        open_folder(make(tmp_path))
    assert str(caught.value).count("\n") == 0


def test_query_class_without_gallery(tmp_path: Path) -> None:
    gallery = class_folders(tmp_path / "g", {"sparrow": 1, "wren": 1})
    queries = class_folders(tmp_path / "q", {"sparow": 1})
    with pytest.raises(CompatError, match=r"query class 'sparow'.*did you mean 'sparrow'"):
        open_folder(gallery, queries=queries)


def test_real_photographs(real_data: Path) -> None:
    images = open_data(real_data / "grocery")
    assert (len(images), len(images.classes)) == (5421, 81)
    assert images.source.load(0).mode == "RGB"
    assert min(images.source.load(len(images) - 1).size) >= 64


def test_real_drawings_are_one_bit(real_data: Path) -> None:
    images = open_data("omniglot-background", root=real_data)
    assert (len(images), len(images.classes)) == (19280, 964)
    pixels = np.asarray(images.source.load(7))
    assert pixels.shape == (105, 105, 3)
    assert set(np.unique(pixels)) == {0, 255}

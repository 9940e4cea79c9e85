"""Train, validation and test never share what they must not share."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import image_set

from compat.data import split
from compat.errors import CompatError


def labelled(labels: Any, published: Any = None) -> Any:
    labels = np.array(labels, dtype=np.int64)
    return image_set(
        len(labels),
        labels=labels,
        classes=tuple(f"c{i}" for i in range(labels.max(initial=-1) + 1)),
        split=None if published is None else np.array(published),
    )


def classes_of(images: Any, rows: Any) -> Any:
    return set(images.labels[rows].tolist())


@given(
    st.lists(st.integers(-1, 29), min_size=60, max_size=120),
    st.floats(0.1, 0.4),
    st.floats(0.1, 0.4),
    st.integers(0, 2**32 - 1),
)
def test_drawn_parts_share_no_class(labels: Any, val: Any, test: Any, seed: int) -> None:
    images = labelled([*range(30), *labels])
    parts = split(images, val=val, test=test, seed=seed)
    shown = [
        classes_of(images, rows) for rows in (parts.train, parts.val.gallery, parts.test.gallery)
    ]
    assert sorted(set().union(*shown)) == list(range(30))
    assert sum(len(part) for part in shown) == 30
    assert [len(part) for part in shown[1:]] == [round(val * 30), round(test * 30)]
    np.testing.assert_array_equal(parts.val.queries, parts.val.gallery)
    np.testing.assert_array_equal(parts.test.queries, parts.test.gallery)
    rows = np.concatenate([parts.train, parts.val.gallery, parts.test.gallery])
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(images.labels >= 0))
    again = split(images, val=val, test=test, seed=seed)
    np.testing.assert_array_equal(again.train, parts.train)


def test_another_seed_draws_other_classes() -> None:
    images = labelled(list(range(40)) * 2)
    drawn = {tuple(split(images, seed=seed).test.queries) for seed in range(5)}
    assert len(drawn) == 5


@given(st.integers(4, 20), st.integers(0, 1000))
def test_published_train_and_test_keep_their_sides(train_classes: Any, seed: int) -> None:
    count = train_classes + 3
    labels = np.repeat(np.arange(count), 3)
    published = np.where(labels < train_classes, "train", "")
    images = labelled(labels, published)
    parts = split(images, val=0.5, seed=seed)
    np.testing.assert_array_equal(parts.test.queries, np.flatnonzero(published == ""))
    np.testing.assert_array_equal(parts.test.gallery, parts.test.queries)
    assert not classes_of(images, parts.train) & classes_of(images, parts.val.queries)
    assert len(parts.train) + len(parts.val.queries) == 3 * train_classes


def test_published_parts_are_kept_as_they_are() -> None:
    published = ["train"] * 2 + ["val"] * 2 + ["query", "gallery", "gallery", ""]
    parts = split(labelled([0, 0, 1, 1, 2, 2, -1, 2], published))
    assert parts.train.tolist() == [0, 1]
    assert parts.val.queries.tolist() == parts.val.gallery.tolist() == [2, 3]
    assert parts.test.queries.tolist() == [4, 7]
    assert parts.test.gallery.tolist() == [5, 6, 7]  # the unlabelled one distracts


@given(st.integers(0, 1000), st.floats(0.1, 0.5))
def test_seen_classes_hold_out_images_and_not_classes(seed: int, val: Any) -> None:
    labels = np.tile(np.arange(4), 15)
    published = np.array(["query"] * 20 + ["gallery"] * 40)
    images = labelled(labels, published)
    parts = split(images, val=val, seed=seed)
    assert classes_of(images, parts.train) == classes_of(images, parts.val.queries) == set(range(4))
    np.testing.assert_array_equal(parts.val.gallery, parts.train)
    rows = np.sort(np.concatenate([parts.train, parts.val.queries]))
    np.testing.assert_array_equal(rows, np.flatnonzero(published == "gallery"))
    np.testing.assert_array_equal(parts.test.gallery, rows)
    counts = np.bincount(images.labels[parts.val.queries])
    assert counts.tolist() == [round(val * 10)] * 4


@given(st.lists(st.integers(-1, 3), min_size=200, max_size=300), st.integers(0, 2**31 - 1))
def test_by_image_queries_search_all_and_never_train(labels: Any, seed: int) -> None:
    images = labelled(labels)
    parts = split(images, val=0.2, test=0.3, seed=seed, by="image")
    rows = [parts.train, parts.val.queries, parts.test.queries]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(images)))
    for part in (parts.val, parts.test):
        np.testing.assert_array_equal(part.gallery, np.arange(len(images)))
    assert abs(len(parts.val.queries) / len(images) - 0.2) < 0.15
    assert abs(len(parts.test.queries) / len(images) - 0.3) < 0.17


def test_by_image_no_image_changes_its_part_when_others_go() -> None:
    images = labelled([-1] * 300)
    kept = np.flatnonzero(np.arange(300) % 7)
    before, after = split(images), split(images.take(kept))
    for part, less in (
        (before.train, after.train),
        (before.val.queries, after.val.queries),
        (before.test.queries, after.test.queries),
    ):
        np.testing.assert_array_equal(np.intersect1d(part, kept), kept[less])
    again = split(images, seed=1)
    assert set(again.test.queries) != set(before.test.queries)


@pytest.mark.parametrize(
    "published", [["train"] * 60 + [""] * 20, ["gallery"] * 60 + ["query"] * 20]
)
def test_without_labels_a_published_split_keeps_its_test_part(published: Any) -> None:
    images = labelled([-1] * 80, published)
    parts = split(images, val=0.3)
    np.testing.assert_array_equal(parts.test.queries, np.arange(60, 80))
    np.testing.assert_array_equal(parts.val.gallery, np.arange(60))
    together = np.concatenate([parts.train, parts.val.queries])
    np.testing.assert_array_equal(np.sort(together), np.arange(60))
    assert 5 < len(parts.val.queries) < 35


@pytest.mark.parametrize(
    ("images", "shares", "message"),
    [
        (labelled([0, 1, 2, 3, 4]), {}, "of 5 classes the test part would get 1"),
        (labelled([0, 1, 2, 3] * 3), {"test": 0.5, "val": 0.2}, "the validation part would get 1"),
        (labelled([-1] * 9), {"by": "class"}, "of 0 classes"),
        (labelled([-1]), {}, "of 1 images none would be in the"),
        (labelled([-1] * 4, ["train"] * 3 + [""]), {"val": 1e-9}, "3 for training and 0 for val"),
        (labelled([0] * 4), {"val": 0.8, "test": 0.3}, "shares? is 0.8"),
        (labelled([0, 1, 2] * 2, ["train"] * 5 + [""]), {}, "takes 0 of the 3 train classes"),
        (labelled([0, 1] * 2, ["train"] * 4), {}, r"no query images, only \['train'\]"),
        (labelled([0, 1] * 2, ["train"] * 3 + ["query"]), {}, "no gallery images"),
        (labelled([0, 1] * 2, ["query"] * 2 + ["gallery"] * 2), {}, "no train rows"),
        (labelled([0, 1] * 2, ["", "", "", ""]), {}, "no train rows"),
    ],
)
def test_parts_that_would_be_too_small(images: Any, shares: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        split(images, **shares)

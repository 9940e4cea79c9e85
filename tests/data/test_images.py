"""The image set checks itself, and its subsets carry everything along."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import image_set

from compat.data import RelevanceLists
from compat.errors import CompatError


def test_take_keeps_order_and_nests() -> None:
    images = image_set(6, camera=np.arange(6), split=np.array(["train"] * 6))
    part = images.take([5, 0, 3]).take([2, 0])
    assert part.ids.tolist() == ["n3", "n5"]
    assert part.camera.tolist() == [3, 5]
    assert part.labels.tolist() == [1, 1]
    assert part.source.load(0).getpixel((0, 0)) == (3, 3, 3)
    assert part.source.digest(1) == "5"
    assert part.source.stamp(0) == "numbered|3"
    assert len(images.take([])) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array(["a", "b", "a", "c"])}, "'a' occurs twice"),
        ({"labels": np.array([0, 1])}, r"labels has shape \(2,\)"),
        ({"labels": np.array([0, 1, 2, 0])}, "labels span 0 to 2"),
        ({"split": np.array(["train", "tset", "", ""])}, "split holds"),
    ],
)
def test_inconsistent_fields_are_errors(changes: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        image_set(**changes)


@given(st.data())
def test_lists_follow_their_images(data: Any) -> None:
    count = data.draw(st.integers(2, 12))
    parts = data.draw(
        st.lists(st.sampled_from(["query", "gallery"]), min_size=count, max_size=count)
    )
    split = np.array(parts)
    gallery = np.flatnonzero(split == "gallery")
    queries = np.flatnonzero(split == "query")
    positions = st.sets(st.integers(0, max(len(gallery) - 1, 0)) if len(gallery) else st.nothing())
    found = [sorted(data.draw(positions)) for _ in queries]
    lists = RelevanceLists(
        tuple(np.array(rows, dtype=np.int64) for rows in found),
        tuple(np.array([], dtype=np.int64) for _ in queries),
    )
    images = image_set(count, split=split, lists={"easy": lists})
    rows = data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, count))]
    part = images.take(rows)
    wanted = {  # by name, independent of positions
        images.ids[query]: {images.ids[gallery[row]] for row in positive}
        for query, positive in zip(queries, found, strict=True)
    }
    part_gallery = part.ids[part.split == "gallery"]
    part_queries = part.ids[part.split == "query"]
    assert len(part.lists["easy"].positives) == len(part_queries)
    for query, positive in zip(part_queries, part.lists["easy"].positives, strict=True):
        assert set(part_gallery[positive]) == wanted[query] & set(part_gallery)

"""Ground truth against the definition written as loops."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.evaluation import Truth


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_from_labels_equals_the_rule_applied_pair_by_pair(
    seed: int, with_ids: Any, with_cameras: Any
) -> None:
    rng = np.random.default_rng(seed)
    labels = {"q": rng.integers(-1, 4, 8), "g": rng.integers(-1, 4, 25)}
    ids = {"q": rng.permutation(40)[:8].astype(str), "g": rng.permutation(40)[:25].astype(str)}
    cameras = {"q": rng.integers(-1, 3, 8), "g": rng.integers(-1, 3, 25)}
    truth = Truth.from_labels(
        labels["q"],
        labels["g"],
        query_ids=ids["q"] if with_ids else None,
        gallery_ids=ids["g"] if with_ids else None,
        query_cameras=cameras["q"] if with_cameras else None,
        gallery_cameras=cameras["g"] if with_cameras else None,
    )
    for q in range(8):
        positives, ignored = [], []
        for g in range(25):
            same_label = labels["q"][q] == labels["g"][g] != -1
            same_camera = with_cameras and cameras["q"][q] == cameras["g"][g] != -1
            if (with_ids and ids["q"][q] == ids["g"][g]) or (same_label and same_camera):
                ignored.append(g)
            elif same_label:
                positives.append(g)
        assert truth.positives[q].tolist() == positives
        assert truth.ignored[q].tolist() == ignored


def test_queries_of_one_label_share_their_arrays() -> None:
    """A thousand queries on a large gallery must not cost a thousand copies."""
    truth = Truth.from_labels(np.zeros(1000, int), np.zeros(1_000_000, int))
    assert len({id(rows) for rows in truth.positives}) == 1
    assert len({id(rows) for rows in truth.ignored}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_ids": ["a", "b"]}, "ids of the gallery side are missing"),
        ({"gallery_cameras": [1, 2, 3]}, "cameras of the query side are missing"),
        (
            {"query_ids": ["a"], "gallery_ids": ["a", "b", "c"]},
            "ids for 1 queries and 3 gallery entries, but labels for 2 and 3",
        ),
    ],
)
def test_incomplete_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        Truth.from_labels([0, 1], [0, 1, 1], **arguments)


def test_lists_are_checked() -> None:
    with pytest.raises(CompatError, match="query 1 names gallery index 9"):
        Truth.from_lists([[0], [9]], [[], []], 5)
    with pytest.raises(CompatError, match="index 2 as positive and as junk"):
        Truth.from_lists([[1, 2]], [[2]], 5)
    with pytest.raises(CompatError, match="positives for 2 queries"):
        Truth.from_lists([[1], [2]], [[]], 5)
    assert Truth.from_lists([[3, 1, 3]], [[4]], 5).positives[0].tolist() == [1, 3]

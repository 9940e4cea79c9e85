"""The streamed ranks against a naive ranking that sorts everything."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.evaluation import Truth, evaluate, positive_ranks, top_k


def naive_ranks(queries: Any, gallery: Any, truth: Any) -> Any:
    """Sort every similarity; a tied negative stands before a positive."""
    ranks = []
    for query, positives, ignored in zip(queries, truth.positives, truth.ignored, strict=True):
        direction = query / np.linalg.norm(query)
        entries = []
        for row in range(len(gallery)):
            if row not in ignored:
                vector = gallery[row] / np.linalg.norm(gallery[row])
                entries.append((-round(float(direction @ vector), 5), row in positives))
        entries.sort()
        ranks.append(np.array([r for r, (_, hit) in enumerate(entries, 1) if hit], dtype=int))
    return ranks


@st.composite
def tasks(draw: Any) -> Any:
    """Vectors of few integer directions, so that ties are common, with junk and empty queries."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    count, size, values = draw(st.integers(1, 5)), draw(st.integers(2, 60)), draw(st.integers(2, 4))
    queries = rng.integers(1, values, size=(count, 3)).astype(np.float64)
    gallery = rng.integers(1, values + 1, size=(size, 3)).astype(np.float64)
    kinds = rng.choice(3, size=(count, size), p=[0.6, 0.3, 0.1])
    kinds[rng.random(count) < 0.2] = 0
    truth = Truth.from_lists(
        [np.flatnonzero(row == 1) for row in kinds],
        [np.flatnonzero(row == 2) for row in kinds],
        size,
    )
    return queries, gallery, truth, draw(st.integers(1, size + 3))


@settings(max_examples=150)
@given(tasks())
def test_ranks_equal_a_full_sort_with_ties_junk_and_empty_queries(task: Any) -> None:
    queries, gallery, truth, block = task
    found = positive_ranks(queries, gallery.astype(np.float32), truth, block=block)
    for ours, naive in zip(found, naive_ranks(queries, gallery, truth), strict=True):
        np.testing.assert_array_equal(ours, naive)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_blocks_and_memory_maps_do_not_change_ranks(tmp_path: Path, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 700)
    gallery = rng.standard_normal((700, 16)).astype(dtype)
    queries = rng.standard_normal((30, 16)).astype(np.float32)
    truth = Truth.from_labels(labels[:30], labels)
    np.save(tmp_path / "gallery.npy", gallery)
    whole = positive_ranks(queries, gallery, truth)
    for block in (1, 7, 100, 699, 700, 10_000):
        mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
        streamed = positive_ranks(queries, mapped, truth, block=block)
        for a, b in zip(whole, streamed, strict=True):
            np.testing.assert_array_equal(a, b)


def test_more_queries_than_one_tile_holds() -> None:
    rng = np.random.default_rng(5)
    queries = rng.standard_normal((2500, 4)).astype(np.float32)
    gallery = rng.standard_normal((60, 4)).astype(np.float32)
    truth = Truth.from_labels(rng.integers(0, 6, 2500), rng.integers(0, 5, 60))
    at_once = positive_ranks(queries, gallery, truth)
    for query in (0, 1023, 1024, 2499):
        alone = Truth((truth.positives[query],), (truth.ignored[query],), 60)
        (ranks,) = positive_ranks(queries[query : query + 1], gallery, alone)
        np.testing.assert_array_equal(at_once[query], ranks)


@pytest.mark.parametrize("dimension", [3, 64, 256, 512, 2048])
def test_a_constant_embedding_gets_the_worst_ranking(dimension: Any) -> None:
    rng = np.random.default_rng(dimension)
    point = rng.random(dimension).astype(np.float32)
    labels = np.arange(300) % 10
    truth = Truth.from_labels(labels[:50], labels)
    ranks = positive_ranks(np.tile(point, (50, 1)), np.tile(point, (300, 1)), truth, block=64)
    for found in ranks:
        np.testing.assert_array_equal(found, np.arange(271, 301))


def test_a_duplicate_with_another_label_stands_before_the_positive() -> None:
    rng = np.random.default_rng(1)
    gallery = rng.standard_normal((40, 300)).astype(np.float32)
    gallery[17] = gallery[3]
    truth = Truth.from_lists([[3]], [[]], 40)
    (ranks,) = positive_ranks(gallery[3:4], gallery, truth)
    assert ranks.tolist() == [2]


def test_inner_product_ranks_by_length_too() -> None:
    queries = np.array([[1.0, 0.0]])
    gallery = np.array([[1.0, 0.0], [5.0, 5.0], [2.0, 0.1]], dtype=np.float32)
    truth = Truth.from_lists([[0]], [[]], 3)
    assert positive_ranks(queries, gallery, truth)[0].tolist() == [1]
    assert positive_ranks(queries, gallery, truth, metric="ip")[0].tolist() == [3]


def test_inner_product_ties_are_relative_to_the_vectors() -> None:
    rng = np.random.default_rng(2)
    gallery = 1e4 * rng.standard_normal((50, 512)).astype(np.float32)
    gallery[9] = gallery[4]
    (ranks,) = positive_ranks(gallery[4:5], gallery, Truth.from_lists([[4]], [[]], 50), metric="ip")
    assert ranks.tolist() == [2]


@pytest.mark.parametrize(
    ("side", "row", "value", "state"),
    [
        ("query", 2, np.nan, "is not finite"),
        ("query", 0, 0.0, "is zero"),
        ("gallery", 11, np.nan, "is not finite"),
        ("gallery", 5, 0.0, "is zero"),
        ("gallery", 7, np.inf, "is not finite"),
    ],
)
@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_unusable_vectors_are_named(
    side: Any, row: Any, value: Any, state: Any, metric: Any
) -> None:
    rng = np.random.default_rng(0)
    vectors = {"query": rng.standard_normal((4, 8)), "gallery": rng.standard_normal((20, 8))}
    vectors[side][row] = value
    truth = Truth.from_lists([[5], [6], [7], [11]], [[]] * 4, 20)
    with pytest.raises(CompatError, match=f"The {side} vector in row {row} {state}"):
        positive_ranks(vectors["query"], vectors["gallery"], truth, block=6, metric=metric)


def test_mismatches_are_named() -> None:
    truth = Truth.from_lists([[0]], [[]], 3)
    with pytest.raises(CompatError, match=r"shape \(1, 4\) and gallery vectors \(3, 5\)"):
        positive_ranks(np.ones((1, 4)), np.ones((3, 5)), truth)
    with pytest.raises(CompatError, match="for 1 queries and 3 gallery entries"):
        positive_ranks(np.ones((1, 4)), np.ones((4, 4)), truth)
    with pytest.raises(CompatError, match="Unknown metric 'l2'"):
        positive_ranks(np.ones((1, 4)), np.ones((3, 4)), truth, metric="l2")


def test_top_k_is_the_head_of_a_stable_sort_without_the_ignored() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = rng.standard_normal((6, 8)), rng.standard_normal((90, 8))
    ignored = [np.flatnonzero(rng.random(90) < 0.1) for _ in range(6)]
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    for block in (1, 13, 90):
        found = top_k(queries, gallery, ignored, 7, block=block)
        for query, rows in enumerate(found):
            order = [r for r in np.argsort(-(unit @ queries[query])) if r not in ignored[query]]
            assert rows.tolist() == order[:7]


def test_top_k_pads_what_is_missing() -> None:
    truth = Truth.from_lists([[0]], [[1]], 3)
    found = top_k(np.array([[1.0, 0.0]]), np.array([[1, 0], [1, 0.1], [0, 1]]), truth, 4)
    assert found.tolist() == [[0, 2, -1, -1]]


MEMORY_PROGRAM = """
import sys
import numpy as np
from compat.evaluation import Truth, positive_ranks

class OnDisk:  # rows read on demand: pages of a memory map would count as memory of the process
    shape, ndim = (400_000, 128), 2
    def __len__(self):
        return 400_000
    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            rows = slice(rows[0], rows[-1] + 1)
        count = (min(rows.stop, 400_000) - rows.start) * 128
        return np.fromfile(sys.argv[1], np.float32, count, offset=rows.start * 512).reshape(-1, 128)

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

queries = np.random.default_rng(0).standard_normal((20, 128), dtype=np.float32)
truth = Truth.from_lists([np.arange(q * 80, q * 80 + 80) for q in range(20)], [[]] * 20, 400_000)
before = peak()
positive_ranks(queries, OnDisk(), truth)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_bounded_on_a_gallery_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "gallery.bin"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(20):
            file.write(rng.standard_normal((20_000, 128), dtype=np.float32).tobytes())
    run = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 60_000  # KiB, where the gallery has 200,000


def test_evaluating_perfect_vectors_scores_one() -> None:
    labels = np.arange(30) % 5
    vectors = np.eye(5, dtype=np.float32)[labels]
    truth = Truth.from_labels(labels, labels, query_ids=np.arange(30), gallery_ids=np.arange(30))
    assert evaluate(vectors, vectors, truth).map == 1.0

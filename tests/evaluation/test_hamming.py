"""Hamming evaluation: ties averaged over all their orders, distances as faiss counts them."""

from itertools import permutations, product

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.evaluation import (
    Truth,
    evaluate,
    hamming,
    hashing_map_at_r,
    measures,
    positive_ranks,
    top_k,
)
from compat.evaluation.hamming import Ties, count_ties
from compat.gallery.codes import SignCoder, SignCodes


def signs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.float32([-1, 1]), size=shape)


def orders(positives: list[int], entries: list[int]) -> list[np.ndarray]:
    """Ranks of the positives in every order of every group of ties."""
    groups = [[1] * p + [0] * (n - p) for p, n in zip(positives, entries, strict=True)]
    lists = product(*(list(permutations(group)) for group in groups))
    return [np.flatnonzero(np.concatenate([np.array(g) for g in order])) + 1 for order in lists]


def hashing_ap(ranks: np.ndarray, r: int) -> float:
    hits = ranks[ranks <= r]
    return float(np.mean(np.arange(1, len(hits) + 1) / hits)) if len(hits) else 0.0


PAIRS = [
    (hamming.average_precision, measures.average_precision),
    (hamming.trapezoid_average_precision, measures.trapezoid_average_precision),
    (hamming.average_precision_at_r, measures.average_precision_at_r),
    (hamming.inverse_negative_penalty, measures.inverse_negative_penalty),
]
CUT_PAIRS = [
    (hamming.average_precision_at, measures.average_precision_at),
    (hamming.precision_at, measures.precision_at),
    (hamming.revisitop_precision_at, measures.revisitop_precision_at),
    (hamming.recall_at, measures.recall_at),
    (hamming.hashing_average_precision, hashing_ap),
]


@st.composite
def tied(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    entries = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    positives = [draw(st.integers(0, n)) for n in entries]
    if not sum(positives):
        entries, positives = [*entries, 2], [*positives, 1]
    return positives, entries


@settings(max_examples=60)
@given(groups=tied(), k=st.integers(1, 9))
def test_every_measure_is_its_mean_over_all_orders_of_ties(
    groups: tuple[list[int], list[int]], k: int
) -> None:
    positives, entries = groups
    ties = Ties(np.array([positives]), np.array([entries]))
    ranks = orders(positives, entries)
    for expected, measure in PAIRS:
        assert expected(ties)[0] == pytest.approx(np.mean([measure(r) for r in ranks]), abs=1e-9)
    for expected_at, measure_at in CUT_PAIRS:
        mean = np.mean([measure_at(r, k) for r in ranks])
        assert expected_at(ties, k)[0] == pytest.approx(mean, abs=1e-9), measure_at.__name__


def test_two_by_hand() -> None:
    # one positive and one negative at one distance: (1 + 1/2)/2
    ties = Ties(np.array([[0, 1]]), np.array([[0, 2]]))
    assert hamming.average_precision(ties) == pytest.approx([0.75])
    assert hamming.recall_at(ties, 1) == pytest.approx([0.5])
    # R = 1 cuts the group: the positive is there in half of the orders, and then alone
    assert hamming.hashing_average_precision(ties, 1) == pytest.approx([0.5])


def test_large_groups_agree_with_sampled_orders() -> None:
    rng = np.random.default_rng(0)
    positives, entries = np.array([30, 100, 70]), np.array([200, 500, 300])
    ties = Ties(positives[None], entries[None])
    samples = []
    for _ in range(2000):
        groups = [
            rng.permutation(np.arange(n) < p) for p, n in zip(positives, entries, strict=True)
        ]
        samples.append(np.flatnonzero(np.concatenate(groups)) + 1)
    for expected, measure in PAIRS:
        values = [measure(ranks) for ranks in samples]
        assert expected(ties)[0] == pytest.approx(np.mean(values), abs=4 * np.std(values) / 44)
    values = [hashing_ap(ranks, 450) for ranks in samples]
    found = hamming.hashing_average_precision(ties, 450)[0]
    assert found == pytest.approx(np.mean(values), abs=4 * np.std(values) / 44)


def test_distances_are_counted_as_one_by_one() -> None:
    queries = np.random.default_rng(1).normal(size=(9, 13))
    queries[0, :5] = 0  # counts as +1
    gallery = signs(70, 13)
    labels = np.arange(70) % 4
    truth = Truth.from_labels(
        labels[:9],
        labels,
        query_ids=np.arange(9).astype(str),
        gallery_ids=np.arange(70).astype(str),
    )
    coder = SignCoder(13)
    for stored in (gallery, SignCodes(coder.encode(gallery), coder), gallery / np.sqrt(13)):
        for block in (7, 64, 8192):
            ties = count_ties(queries, stored, truth, block=block)
            for q in range(9):
                codes = np.where(queries[q] >= 0, 1, -1)
                distance = (gallery != codes).sum(axis=1)
                kept = np.delete(distance, truth.ignored[q])
                assert ties.entries[q].tolist() == np.bincount(kept, minlength=14).tolist()
                own = distance[truth.positives[q]]
                assert ties.positives[q].tolist() == np.bincount(own, minlength=14).tolist()


def test_without_ties_all_is_as_for_other_metrics() -> None:
    # the gallery entry i agrees with the query in the first i bits only
    gallery = np.tril(np.full((16, 16), 2.0), -1) - 1
    query = np.ones((1, 16))
    labels = np.random.default_rng(0).integers(2, size=16)
    truth = Truth.from_labels([1], labels)
    found = evaluate(query, gallery, truth, metric="hamming")
    # the inner product orders them alike
    expected = evaluate(query, gallery, truth, metric="ip")
    assert found.queries == expected.queries == 1
    for name in ("map", "map_at_100", "map_at_r", "minp", "recall", "precision", "interval"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    trapezoid = evaluate(query, gallery, truth, metric="hamming", average_precision="trapezoid")
    expected = evaluate(query, gallery, truth, metric="ip", average_precision="trapezoid")
    assert trapezoid.map == pytest.approx(expected.map)
    assert trapezoid.precision == pytest.approx(expected.precision)


def test_a_collapsed_gallery_scores_at_chance() -> None:
    labels = np.arange(40) % 4
    truth = Truth.from_labels(labels, labels)
    found = evaluate(np.ones((40, 8)), np.ones((40, 8)), truth, metric="hamming")
    assert found.precision[1] == pytest.approx(0.25)
    assert found.recall[10] == pytest.approx(
        1 - np.prod((30 - np.arange(10)) / (40 - np.arange(10)))
    )


def test_queries_without_positives_are_skipped() -> None:
    truth = Truth.from_labels([0, 7], [0, 1, 0])
    found = evaluate(signs(2, 8), signs(3, 8, seed=1), truth, metric="hamming")
    assert (found.queries, found.skipped) == (1, 1)
    assert np.isnan(found.ap).tolist() == [False, True]


def test_hashing_map_divides_by_what_it_retrieved() -> None:
    gallery = np.tril(np.full((16, 16), 2.0), -1)[::-1] - 1  # entry 0 is nearest
    truth = Truth.from_lists([[1, 2, 9]], [[]], 16)
    query = np.ones((1, 16))
    assert hashing_map_at_r(query, gallery, truth, 4) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert hashing_map_at_r(query, gallery, truth, 1) == 0
    # with R at the gallery's size or beyond it is the ordinary average precision
    whole = evaluate(query, gallery, truth, metric="hamming").map
    assert hashing_map_at_r(query, gallery, truth, 99) == pytest.approx(whole)


@pytest.mark.parametrize("bits", [16, 64])
def test_top_k_is_that_of_faiss(bits: int) -> None:
    queries, gallery = signs(20, bits), signs(500, bits, seed=1)
    coder = SignCoder(bits)
    index = faiss.IndexBinaryFlat(bits)
    index.add(coder.encode(gallery))
    expected, _ = index.search(coder.encode(queries), 10)
    found = top_k(queries, gallery, None, 10, metric="hamming", block=64)
    distances = (queries[:, None] != gallery[found]).sum(axis=2)
    np.testing.assert_array_equal(distances, expected)
    # equals keep the gallery's order, in every block and across blocks
    every = (queries[:, None] != gallery[None]).sum(axis=2)
    np.testing.assert_array_equal(found, np.argsort(every, axis=1, kind="stable")[:, :10])


def test_errors() -> None:
    truth = Truth.from_labels([0], [0, 1])
    with pytest.raises(CompatError, match="use `evaluate`"):
        positive_ranks(signs(1, 4), signs(2, 4), truth, metric="hamming")
    with pytest.raises(CompatError, match=r"None of the 1 queries has a positive"):
        hashing_map_at_r(signs(1, 4), signs(2, 4), Truth.from_labels([5], [0, 1]), 3)
    with pytest.raises(CompatError, match="R = 0"):
        hashing_map_at_r(signs(1, 4), signs(2, 4), truth, 0)
    with pytest.raises(CompatError, match="for 1 queries and 2 gallery entries"):
        evaluate(signs(1, 4), signs(3, 4), truth, metric="hamming")
    with pytest.raises(CompatError, match="gallery vector in row 1 is not finite"):
        evaluate(signs(1, 4), np.array([[1.0] * 4, [np.nan] * 4]), truth, metric="hamming")
    with pytest.raises(CompatError, match="Unknown metric 'jaccard'"):
        evaluate(signs(1, 4), signs(2, 4), truth, metric="jaccard")  # type: ignore[arg-type]

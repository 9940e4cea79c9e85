"""Every metric against a naive loop, and the properties that it is held to."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.evaluation import Truth, score
from compat.metrics import (
    Agreement,
    agreement,
    anchor_kl,
    kmeans_anchors,
    largest_k,
    linear_cka,
    mean_cosine,
    nearest,
    neighbourhood_overlap,
    rank_disagreement,
    top_k_kl,
)


def spaces(
    seed: int, images: int = 9, size: int = 60, dimension: int = 8, noise: float = 1.0
) -> Any:
    """Embeddings by q and by g of the same images, lengths included, and a gallery."""
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((images, dimension))
    query = target + noise * rng.standard_normal((images, dimension))
    return query, target, rng.standard_normal((size, dimension))


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def rotation(dimension: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))[0]


def naive_lists(vectors: Any, gallery: Any, k: Any) -> Any:
    similarities = unit(vectors) @ unit(gallery).T
    return [sorted(range(len(gallery)), key=lambda i: -row[i])[:k] for row in similarities]


def naive_kl(p_logits: Any, q_logits: Any) -> Any:
    p = [math.exp(v) for v in p_logits]
    q = [math.exp(v) for v in q_logits]
    p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=20)
@given(seeds)
def test_cosine_equals_a_loop(seed: int) -> None:
    query, target, _ = spaces(seed)
    pairs = zip(query, target, strict=True)
    loop = [q @ g / math.sqrt((q @ q) * (g @ g)) for q, g in pairs]
    assert mean_cosine(query, target) == pytest.approx(sum(loop) / len(loop), abs=1e-6)


@settings(max_examples=20)
@given(seeds, st.integers(1, 60))
def test_overlap_equals_a_loop(seed: int, k: Any) -> None:
    query, target, gallery = spaces(seed)
    found = neighbourhood_overlap(nearest(query, gallery, k), nearest(target, gallery, k))
    pairs = zip(naive_lists(query, gallery, k), naive_lists(target, gallery, k), strict=True)
    assert found == pytest.approx(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))


@settings(max_examples=20)
@given(seeds, st.floats(0.05, 2))
def test_anchor_divergence_equals_a_loop(seed: int, temperature: Any) -> None:
    query, target, anchors = spaces(seed, size=7)
    loop = [
        naive_kl(unit(anchors) @ g / temperature, unit(anchors) @ q / temperature)
        for q, g in zip(unit(query), unit(target), strict=True)
    ]
    found = anchor_kl(query, target, anchors, temperature=temperature)
    assert found == pytest.approx(sum(loop) / len(loop), rel=1e-4, abs=1e-5)


def test_anchor_divergence_over_sub_vectors_equals_a_loop() -> None:
    query, target, _ = spaces(0, images=300)
    anchors = np.random.default_rng(1).standard_normal((2, 5, 4))
    loop = []
    for q, g in zip(query, target, strict=True):
        for part in range(2):
            directions = unit(anchors[part])
            cut = slice(4 * part, 4 * part + 4)
            loop.append(naive_kl(directions @ unit(g[cut]) / 0.1, directions @ unit(q[cut]) / 0.1))
    assert anchor_kl(query, target, anchors) == pytest.approx(sum(loop) / len(loop), rel=1e-5)


@settings(max_examples=20)
@given(seeds, st.integers(1, 60), st.floats(0.05, 2))
def test_top_k_divergence_equals_a_loop(seed: int, k: Any, temperature: Any) -> None:
    query, target, gallery = spaces(seed)
    loop = []
    for q, g, rows in zip(unit(query), unit(target), naive_lists(target, gallery, k), strict=True):
        near = unit(gallery)[rows]
        loop.append(naive_kl(near @ g / temperature, near @ q / temperature))
    lists = nearest(target, gallery, k)
    found = top_k_kl(query, target, gallery, lists, temperature=temperature)
    assert found == pytest.approx(sum(loop) / len(loop), rel=1e-4, abs=1e-5)


@settings(max_examples=20)
@given(seeds, st.integers(2, 30))
def test_rank_disagreement_is_kendalls(seed: int, k: Any) -> None:
    query, target, gallery = spaces(seed)
    loop = []
    for q, g, rows in zip(unit(query), unit(target), naive_lists(target, gallery, k), strict=True):
        near = unit(gallery)[rows]
        for similarities in (near @ q, near @ g):
            assume(np.diff(np.sort(similarities)).min() > 1e-5)  # else a tie, in which both differ
        loop.append((1 - scipy.stats.kendalltau(near @ q, near @ g).statistic) / 2)
    found = rank_disagreement(query, target, gallery, nearest(target, gallery, k))
    assert found == pytest.approx(np.mean(loop), abs=1e-4)


def test_a_pair_that_q_ties_counts_half_and_one_that_g_ties_does_not_count() -> None:
    gallery = np.array([[1, 0], [1, 0], [1, 1], [1, -1]])  # g ties 0 with 1; q ties 2 with 3
    target, query = np.array([[1.0, 0.2]]), np.array([[-1.0, 0.0]])
    lists = nearest(target, gallery, 4)
    # pairs ordered by g: 0>2, 1>2, 0>3, 1>3, 2>3; q reverses the first four and ties the last
    assert rank_disagreement(query, target, gallery, lists) == pytest.approx(4.5 / 5)
    same = np.ones((4, 2))
    assert rank_disagreement(query, target, same, nearest(target, same, 4)) == 0.0


@settings(max_examples=20)
@given(seeds)
def test_cka_equals_the_form_with_gram_matrices(seed: int) -> None:
    """HSIC of centred linear kernels, as Kornblith et al. define it first."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((12, 4)) + 3, rng.standard_normal((12, 6))
    y[:, :4] += x
    centre = np.eye(12) - 1 / 12
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=20)
@given(seeds, st.booleans())
def test_identical_spaces_are_perfect(seed: int, ignoring: Any) -> None:
    _, target, gallery = spaces(seed)
    ignored = [np.array([q, q + 1]) for q in range(len(target))] if ignoring else None
    found = agreement(3 * target, target, gallery, ignored=ignored)
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.overlap == 1
    assert found.anchor_kl == pytest.approx(0, abs=1e-6)
    assert found.top_k_kl == pytest.approx(0, abs=1e-6)
    assert found.rank_disagreement == 0
    assert found.cka == pytest.approx(1, abs=1e-6)


def test_a_rotation_keeps_cka_and_self_test_and_leaves_the_rest_to_chance() -> None:
    """What makes CKA and self-test no proof of compatibility."""
    rng = np.random.default_rng(0)
    classes, each, dimension = 20, 15, 64
    labels = np.repeat(np.arange(classes), each)
    centres = rng.standard_normal((classes, dimension))
    vectors = centres[labels] + 0.7 * rng.standard_normal((len(labels), dimension))
    asking, searched = np.arange(len(labels)) % 5 == 0, np.arange(len(labels)) % 5 > 0
    truth = Truth.from_labels(labels[asking], labels[searched])
    turned = vectors @ rotation(dimension, 1)

    def tests(query: Any) -> Any:
        return score(query[asking], query[searched], vectors[asking], vectors[searched], truth)

    before, after = tests(vectors), tests(turned)
    chance = 1 / classes
    assert before.cross_test.map > 0.9
    assert after.self_test.map == pytest.approx(before.self_test.map, abs=1e-4)
    assert after.cross_test.map < 3 * chance
    found = agreement(turned[asking], vectors[asking], vectors[searched])
    assert found.cka == pytest.approx(1, abs=1e-5)
    assert abs(found.cosine) < 0.1
    assert found.overlap == pytest.approx(10 / searched.sum(), abs=0.06)
    assert found.rank_disagreement == pytest.approx(0.5, abs=0.1)
    assert found.anchor_kl > 0.5
    assert found.top_k_kl > 0.05


def test_agreement_is_its_parts_and_says_what_it_used() -> None:
    query, target, gallery = spaces(3, images=1100, size=150)
    ignored = [np.array([i % 150]) for i in range(1100)]
    found = agreement(query, target, gallery, ignored=ignored, k=20, anchors=16, seed=2)
    lists = nearest(target, gallery, 20, ignored=ignored)
    by_query = nearest(query, gallery, 10, ignored=ignored)
    assert found == Agreement(
        cosine=pytest.approx(mean_cosine(query, target), abs=1e-6),
        overlap=neighbourhood_overlap(by_query, lists[:, :10]),
        anchor_kl=pytest.approx(anchor_kl(query, target, kmeans_anchors(gallery, 16, seed=2))),
        top_k_kl=pytest.approx(top_k_kl(query, target, gallery, lists)),
        rank_disagreement=pytest.approx(rank_disagreement(query, target, gallery, lists)),
        cka=pytest.approx(linear_cka(unit(query), unit(target)), abs=1e-6),
        overlap_k=10,
        k=20,
        anchors=16,
        images=1100,
    )
    assert found.as_dict()["cosine"] == found.cosine
    lowered = agreement(query[:5], target[:5], gallery[:8], ignored=[np.array([7])] * 5)
    assert (lowered.overlap_k, lowered.k, lowered.anchors) == (7, 7, 8)


@pytest.mark.parametrize("metric", ["ip", "hamming"])
def test_other_metrics_are_those_of_the_neighbours(metric: Any) -> None:
    query, target, gallery = spaces(8, images=6, size=30, dimension=40)

    def similarities(vector: Any, rows: Any) -> Any:
        if metric == "hamming":
            return np.sign(gallery[rows]) @ np.sign(vector) / 40
        return gallery[rows] @ unit(vector)

    everything = np.arange(30)
    lists = nearest(target, gallery, 12, metric=metric)
    divergence, disagreement = [], []
    for q, g, rows in zip(query, target, lists, strict=True):
        np.testing.assert_allclose(  # the best twelve, whatever the order of ties
            np.sort(similarities(g, rows)), np.sort(similarities(g, everything))[-12:], atol=1e-5
        )
        by_q, by_g = similarities(q, rows), similarities(g, rows)
        divergence.append(naive_kl(by_g / 0.1, by_q / 0.1))
        pairs = [(i, j) for i in range(12) for j in range(12) if by_g[i] > by_g[j] + 1e-6]
        wrong = sum(by_q[i] < by_q[j] - 1e-6 for i, j in pairs)
        tied = sum(abs(by_q[i] - by_q[j]) <= 1e-6 for i, j in pairs)
        disagreement.append((wrong + tied / 2) / len(pairs))
    found = agreement(query, target, gallery, metric=metric, k=12)
    assert found.top_k_kl == pytest.approx(np.mean(divergence), rel=1e-4)
    assert found.rank_disagreement == pytest.approx(np.mean(disagreement), abs=1e-6)


def test_neighbours_leave_out_the_ignored_from_a_memory_map(tmp_path: Path) -> None:
    query, _, gallery = spaces(4, images=1030, size=40)
    np.save(tmp_path / "gallery.npy", gallery.astype(np.float32))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    rows = [np.array([i % 40]) for i in range(1030)]
    truth = Truth.from_lists([[]] * 1030, rows, 40)
    found = nearest(query, mapped, 39, ignored=truth)
    np.testing.assert_array_equal(found, nearest(query, gallery, 39, ignored=rows))
    for i, row in enumerate(found):
        assert set(row) == set(range(40)) - {i % 40}
    assert (largest_k(40, truth), largest_k(40, rows), largest_k(40, None)) == (39, 39, 40)
    with pytest.raises(CompatError, match="40 gallery neighbours are asked for, but 39"):
        nearest(query, mapped, 40, ignored=truth)


def test_anchors_are_centres_of_the_gallery() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(6)[:4]
    gallery = np.repeat(centres, 50, axis=0) * 5 + 0.01 * rng.standard_normal((200, 6))
    found = kmeans_anchors(gallery, 4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose((found @ centres.T).max(axis=0), 1, atol=1e-3)


def test_a_collapsed_query_model_scores_badly_and_breaks_nothing() -> None:
    _, target, gallery = spaces(5)
    point = np.tile(gallery[:1], (len(target), 1))
    found = agreement(point, target, gallery)
    assert found.cka == 0
    assert found.overlap < 0.5
    assert all(math.isfinite(value) for value in found.as_dict().values())


def test_what_does_not_fit_is_refused() -> None:
    query, target, gallery = spaces(6)
    with pytest.raises(CompatError, match="8 embeddings by the query model and 9"):
        mean_cosine(query[:8], target)
    with pytest.raises(CompatError, match="one dimension"):
        mean_cosine(query[:, :4], target)
    with pytest.raises(CompatError, match="query vector in row 2 is not finite"):
        mean_cosine(np.where(np.arange(9)[:, None] == 2, np.nan, query), target)
    with pytest.raises(CompatError, match="Anchors of shape"):
        anchor_kl(query, target, gallery[:, :3])
    with pytest.raises(CompatError, match="temperature is 0"):
        anchor_kl(query, target, gallery, temperature=0)
    with pytest.raises(CompatError, match="61 anchors are asked for"):
        kmeans_anchors(gallery, 61)
    with pytest.raises(CompatError, match="cannot be compared"):
        neighbourhood_overlap(nearest(query, gallery, 3), nearest(query, gallery, 4))
    with pytest.raises(CompatError, match="at least two"):
        linear_cka(query[:1], target[:1])

"""Measures against hand-worked cases and other libraries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_precision,
)

from compat.data.revisitop import read_ground_truth
from compat.errors import CompatError
from compat.evaluation import Truth, evaluate, positive_ranks, score, summarise
from compat.evaluation.measures import (
    average_precision,
    average_precision_at,
    average_precision_at_r,
    inverse_negative_penalty,
    precision_at,
    recall_at,
    revisitop_precision_at,
    trapezoid_average_precision,
)


def test_a_case_worked_by_hand() -> None:
    """Ranking + - + - - +: ranks 1, 3, 6."""
    ranks = np.array([1, 3, 6])
    assert average_precision(ranks) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    # trapezoids: (1 + 1)/2, (1/2 + 2/3)/2, (2/5 + 3/6)/2
    assert trapezoid_average_precision(ranks) == pytest.approx((1 + 7 / 12 + 9 / 20) / 3)
    assert average_precision_at(ranks, 2) == pytest.approx(1 / 2)
    assert average_precision_at(ranks, 5) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision_at_r(ranks) == pytest.approx((1 + 2 / 3) / 3)
    assert precision_at(ranks, 5) == pytest.approx(2 / 5)
    assert precision_at(ranks, 10) == pytest.approx(3 / 10)
    assert revisitop_precision_at(ranks, 10) == pytest.approx(3 / 6)
    assert recall_at(ranks, 1) == 1
    assert recall_at(np.array([4, 5]), 3) == 0
    assert inverse_negative_penalty(ranks) == pytest.approx(3 / 6)


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_measures_agree_with_sklearn_and_torchmetrics(seed: int, size: Any) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(size) + 1.0
    hits = rng.random(size) < 0.3
    hits[rng.integers(size)] = True
    ranks = np.flatnonzero(hits[np.argsort(-scores)]) + 1
    tensors = torch.from_numpy(scores), torch.from_numpy(hits)
    assert average_precision(ranks) == pytest.approx(average_precision_score(hits, scores))
    assert average_precision(ranks) == pytest.approx(
        float(retrieval_average_precision(*tensors)), abs=1e-6
    )
    for k in (1, 5, 10):
        hit_rate = float(retrieval_hit_rate(*tensors, top_k=min(k, size)))
        assert recall_at(ranks, k) == pytest.approx(hit_rate)
        precision = float(retrieval_precision(*tensors, top_k=k))
        assert precision_at(ranks, k) == pytest.approx(precision, abs=1e-6)


def test_evaluate_agrees_with_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 10)
    vectors = (rng.standard_normal((12, 16))[labels] + rng.standard_normal((120, 16)) * 2).astype(
        np.float32
    )
    calculator = AccuracyCalculator(
        include=("mean_average_precision", "mean_average_precision_at_r", "precision_at_1"),
        k=119,
        knn_func=CustomKNN(CosineSimilarity()),
    )
    theirs = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels))
    ids = np.arange(120)
    ours = evaluate(
        vectors, vectors, Truth.from_labels(labels, labels, query_ids=ids, gallery_ids=ids)
    )
    assert ours.map == pytest.approx(theirs["mean_average_precision"], abs=1e-6)
    assert ours.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert ours.recall[1] == pytest.approx(theirs["precision_at_1"])
    assert ours.queries == 120


def test_queries_without_positives_are_skipped_and_counted() -> None:
    result = summarise([np.array([1, 2]), np.array([], int), np.array([4])])
    assert (result.queries, result.skipped) == (2, 1)
    assert result.map == pytest.approx((1 + 1 / 4) / 2)
    assert np.isnan(result.ap).tolist() == [False, True, False]
    assert result.recall == {1: 0.5, 5: 1.0, 10: 1.0}
    with pytest.raises(CompatError, match="None of the 2 queries has a positive"):
        summarise([np.array([], int)] * 2)


def test_the_definition_is_named_and_unknown_ones_refused() -> None:
    ranks = [np.array([2])]
    assert summarise(ranks, average_precision="trapezoid").average_precision == "trapezoid"
    assert summarise(ranks, average_precision="trapezoid").map == pytest.approx(1 / 4)
    assert summarise(ranks).as_dict()["average_precision"] == "standard"
    with pytest.raises(CompatError, match="Unknown average precision 'interpolated'"):
        summarise(ranks, average_precision="interpolated")


def test_the_interval_is_seeded_and_covers_like_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    ranks = [np.array([r]) for r in rng.integers(1, 30, size=400)]
    result = summarise(ranks, seed=1)
    assert result.interval == summarise(ranks, seed=1).interval
    half = 1.96 * result.ap.std() / np.sqrt(400)
    assert result.interval == pytest.approx((result.map - half, result.map + half), abs=0.004)


def test_the_three_tests_use_the_right_vectors() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 8)
    gallery_space = rng.standard_normal((5, 6))[labels] + 0.5 * rng.standard_normal((40, 6))
    query_space = gallery_space @ np.linalg.qr(rng.standard_normal((6, 6)))[0]  # another space
    truth = Truth.from_labels(labels, labels, query_ids=np.arange(40), gallery_ids=np.arange(40))
    result = score(query_space, query_space, gallery_space, gallery_space, truth)
    assert result.self_test.map == pytest.approx(result.paragon.map, abs=1e-6)
    cross = evaluate(query_space, gallery_space, truth)
    assert result.cross_test.map == cross.map < result.paragon.map - 0.2


def walk_down(similarities: Any, relevant: Any, junk: Any) -> Any:
    """Trapezoid AP and mP@{1,5,10} by walking down one sorted list, entry by entry."""
    area, seen, hits, before = 0.0, 0, 0, 1.0
    trace = []
    for row in np.argsort(-similarities, kind="stable"):
        if row in junk:
            continue
        seen += 1
        hits += row in relevant
        trace.append(row in relevant)
        now = hits / seen
        if row in relevant:
            area += (before + now) / 2 / len(relevant)
        before = now
        if hits == len(relevant):
            break
    precisions = [sum(trace[: min(k, len(trace))]) / min(k, len(trace)) for k in (1, 5, 10)]
    return area, precisions


@pytest.mark.parametrize("file", ["gnd_roxford5k.pkl", "gnd_rparis6k.pkl"])
def test_revisited_oxford_and_paris_follow_their_protocol(real_data: Path, file: Any) -> None:
    gnd = read_ground_truth(real_data / "revisitop" / file)
    size, count = len(gnd.gallery), len(gnd.queries)
    easy, hard = gnd.lists["easy"].positives, gnd.lists["hard"].positives
    junk = gnd.lists["medium"].junk
    setups = {  # the paper's: what counts, and what leaves the ranking
        "easy": ([set(e) for e in easy], [{*j, *h} for j, h in zip(junk, hard, strict=True)]),
        "medium": ([{*e, *h} for e, h in zip(easy, hard, strict=True)], [set(j) for j in junk]),
        "hard": ([set(h) for h in hard], [{*j, *e} for j, e in zip(junk, easy, strict=True)]),
    }
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((size, 24)).astype(np.float32)
    queries = np.empty((count, 24), dtype=np.float32)
    for q in range(count):  # near its images, so that ranks are not uniform
        near = [*easy[q], *hard[q]]
        queries[q] = gallery[near].mean(axis=0) + 0.3 * rng.standard_normal(24)
    similarities = (queries @ gallery.T) / np.linalg.norm(gallery, axis=1)
    for name, (relevant, left_out) in setups.items():
        truth = Truth.from_lists(gnd.lists[name].positives, gnd.lists[name].junk, size)
        ours = evaluate(queries, gallery, truth, average_precision="trapezoid")
        walked = [
            walk_down(row, found, gone)
            for row, found, gone in zip(similarities, relevant, left_out, strict=True)
            if found
        ]
        assert (ours.queries, ours.skipped) == (len(walked), count - len(walked))
        areas = [area for area, _ in walked]
        # not closer: what float32 cannot order is a tie for us, against the positive
        np.testing.assert_allclose(ours.ap[~np.isnan(ours.ap)], areas, atol=3e-5)
        means = np.mean([precisions for _, precisions in walked], axis=0)
        np.testing.assert_allclose(list(ours.precision.values()), means, atol=1e-9)


def test_ranks_of_a_skipped_query_are_empty() -> None:
    truth = Truth.from_labels([7, 0], [0, 1])
    ranks = positive_ranks(np.eye(2), np.eye(2)[::-1], truth)
    assert [r.tolist() for r in ranks] == [[], [1]]

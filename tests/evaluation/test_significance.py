"""The paired tests against scipy's."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.evaluation import Difference, bootstrap_interval, paired_difference


def precisions(queries: int, seed: int, gap: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    second = rng.uniform(0.2, 0.8, queries)
    return np.clip(second + gap + 0.1 * rng.standard_normal(queries), 0, 1), second


def scipy_p_value(first: np.ndarray, second: np.ndarray) -> float:
    return scipy.stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=100_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).pvalue


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_few_queries_are_enumerated_as_scipy_does(queries: Any, seed: int) -> None:
    first, second = precisions(queries, seed)
    found = paired_difference(first, second)
    assert found.p_value == pytest.approx(scipy_p_value(first, second), abs=1e-12)
    assert found.mean == pytest.approx(first.mean() - second.mean())


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.1])
def test_many_queries_are_drawn_and_come_near_scipy(gap: Any) -> None:
    first, second = precisions(60, 3, gap)
    found = paired_difference(first, second)
    assert found.p_value == pytest.approx(scipy_p_value(first, second), abs=0.02)


def test_thirteen_queries_are_the_most_that_are_enumerated() -> None:
    for queries, least in ((13, 2 / 2**13), (14, 1 / 10_001)):
        found = paired_difference(np.full(queries, 0.9), np.linspace(0.1, 0.2, queries))
        if queries == 13:
            assert found.p_value == pytest.approx(least)
        else:
            assert least <= found.p_value < 0.001


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    first, second = precisions(80, 4)
    low, high = paired_difference(first, second).interval
    expected = scipy.stats.bootstrap(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=5000,
    ).confidence_interval
    assert (low, high) == (
        pytest.approx(expected.low, abs=0.004),
        pytest.approx(expected.high, abs=0.004),
    )


def test_a_p_value_is_uniform_where_models_do_not_differ() -> None:
    """Of 200 comparisons of equal models about 10 are below 5%."""
    p_values = [paired_difference(*precisions(10, seed, gap=0)).p_value for seed in range(200)]
    assert sum(p <= 0.05 for p in p_values) < 22
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)


def test_pairs_make_small_differences_visible() -> None:
    rng = np.random.default_rng(0)
    second = rng.uniform(0, 0.9, 200)
    first = second + rng.uniform(0, 0.02, 200)
    found = paired_difference(first, second)
    assert found.p_value < 0.001
    assert 0 < found.interval[0] < found.mean < found.interval[1]


def test_a_model_does_not_differ_from_itself_and_the_signs_turn() -> None:
    first, second = precisions(30, 6)
    same = paired_difference(first, first)
    assert (same.mean, same.interval, same.p_value) == (0, (0, 0), 1)
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert back.mean == -there.mean
    assert back.p_value == there.p_value
    assert there == paired_difference(first, second)  # seeded


def test_skipped_queries_do_not_count() -> None:
    first, second = precisions(20, 7)
    gappy = [np.insert(ap, 5, np.nan) for ap in (first, second)]
    found = paired_difference(*gappy)
    assert found == paired_difference(first, second)
    assert found.queries == 20
    assert found.as_dict() == {
        "mean": found.mean,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "queries": 20,
    }
    assert isinstance(found, Difference)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(CompatError, match=r"shapes \(3,\) and \(4,\)"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(CompatError, match="Query 1 has an average precision from one model"):
        paired_difference(np.array([0.1, np.nan]), np.array([0.2, 0.3]))
    with pytest.raises(CompatError, match="nothing to compare"):
        paired_difference(np.full(2, np.nan), np.full(2, np.nan))


def test_an_interval_needs_no_second_value() -> None:
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)
    assert bootstrap_interval(np.full(5, 0.5)) == (0.5, 0.5)


def test_the_interval_is_that_of_resampled_means() -> None:
    """The very resamples that NumPy's generator draws one after another."""
    values = np.random.default_rng(1).uniform(size=37)
    rng = np.random.default_rng(7)
    means = [values[rng.integers(0, 37, size=37)].mean() for _ in range(1000)]
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(bootstrap_interval(values, seed=7), expected, atol=1e-14)

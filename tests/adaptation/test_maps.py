"""Maps of frozen features against other solvers, as the projections that query models have."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from compat.adaptation import MAPS, Pairs, fit_map, low_rank_factors
from compat.errors import CompatError
from compat.evaluation import Truth, evaluate
from compat.predictors.maps import Moments, ridge_map
from searchspaces import Projection


def pairs(images: int = 60, features: int = 12, dimension: int = 8, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, features)) * rng.uniform(0.1, 10, features) + 3
    y = x @ rng.standard_normal((features, dimension)) + rng.standard_normal((images, dimension))
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    return Pairs(x.astype(np.float32), unit.astype(np.float32))


def through(projection: Projection, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return F.normalize(projection.eval()(torch.from_numpy(features)), dim=-1).numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def validation(features: int = 12) -> Any:
    """A cross-test that any projection has, on labels that mean something to none."""
    given = pairs(features=features, seed=1)
    labels = np.arange(60) % 12
    ids = np.arange(60)
    truth = Truth.from_labels(labels, labels, query_ids=ids, gallery_ids=ids)
    return lambda projection: evaluate(through(projection, given.features), given.vectors, truth)


def test_ridge_is_scikit_learns_at_the_penalty_of_least_gcv() -> None:
    given = pairs()
    z = (given.features - given.features.mean(0)) / given.features.std(0)
    z = z.astype(np.float64)
    hat = [
        z @ np.linalg.inv(z.T @ z + p * np.eye(12)) @ z.T + 1 / 60
        for p in 60 * np.logspace(-6, 3, 46)
    ]
    errors = [
        np.sum((given.vectors - h @ given.vectors) ** 2) / (60 - np.trace(h)) ** 2 for h in hat
    ]
    penalty = 60 * np.logspace(-6, 3, 46)[int(np.argmin(errors))]
    expected = Ridge(alpha=penalty).fit(z, given.vectors).predict(z)
    found = fit_map("ridge", given, validation(), seed=0).projection
    np.testing.assert_allclose(through(found, given.features), unit(expected), atol=1e-5)


def test_procrustes_is_scipys() -> None:
    given = pairs(features=8)
    z = (given.features - given.features.mean(0)) / given.features.std(0)
    rotation, total = scipy.linalg.orthogonal_procrustes(z, given.vectors - given.vectors.mean(0))
    expected = total / np.sum(z**2) * z @ rotation + given.vectors.mean(0)
    found = fit_map("procrustes", given, validation(8), seed=0).projection
    np.testing.assert_allclose(through(found, given.features), unit(expected), atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_no_map_of_the_rank_has_a_lower_penalised_error(rank: int) -> None:
    given, penalty = pairs(), 5.0
    moments = Moments.of(given.features, given.vectors)
    inner, outer = low_rank_factors(ridge_map(moments, penalty=penalty), moments)
    found = inner[:, :rank] @ outer[:rank]
    z = (given.features - given.features.mean(0, dtype=np.float64)) / moments.scale
    y = given.vectors - given.vectors.mean(0, dtype=np.float64)
    # the augmented problem has a plain solution: the SVD of what least squares fits (Eckart, Young)
    design = np.vstack([z, np.sqrt(penalty) * np.eye(12)])
    goal = np.vstack([y, np.zeros((12, 8))])
    solution = np.linalg.lstsq(design, goal, rcond=None)[0]
    _, _, right = np.linalg.svd(design @ solution, full_matrices=False)
    expected = solution @ right[:rank].T @ right[:rank]
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert np.linalg.matrix_rank(found) == rank


def test_low_rank_tries_only_ranks_that_save_and_keeps_the_best() -> None:
    given = pairs(images=120, features=80, dimension=70)
    tried: list[int] = []
    truth = Truth.from_labels(
        np.arange(120) % 12,
        np.arange(120) % 12,
        query_ids=np.arange(120),
        gallery_ids=np.arange(120),
    )

    def validate(projection: Projection) -> Any:
        tried.append(projection.linear.in_features)
        return evaluate(through(projection, given.features), given.vectors, truth)

    fitted = fit_map("low-rank", given, validate, seed=0)
    assert tried == [32, 16]
    assert fitted.projection.linear.in_features in tried
    both = [
        evaluate(through(fitted.projection, given.features), given.vectors, truth).map,
        fitted.found.map,
    ]
    assert both[0] == pytest.approx(both[1])


def test_a_residual_network_learns_what_no_linear_map_can() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 6)).astype(np.float32)
    classes = (x[:, 0] > 0) ^ (x[:, 1] > 0)
    y = np.where(classes[:, None], [[1.0, 0, 0]], [[0, 1.0, 0]]) + 0.1 * rng.standard_normal(
        (2000, 3)
    )
    given = Pairs(x, unit(y).astype(np.float32))
    ids = np.arange(500)
    truth = Truth.from_labels(classes[:500], classes[:500], query_ids=ids, gallery_ids=ids)

    def validate(projection: Projection) -> Any:
        return evaluate(through(projection, x[:500]), given.vectors[:500], truth)

    ridge = fit_map("ridge", given, validate, seed=0)
    network = fit_map("mlp", given, validate, seed=0)
    assert ridge.found.map < 0.7
    assert network.found.map > ridge.found.map + 0.1


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_the_same_every_time_and_leave_random_numbers_alone(name: Any) -> None:
    given, validate = pairs(images=80), validation()
    state = torch.random.get_rng_state()
    first, second = (fit_map(name, given, validate, seed=3) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    for a, b in zip(first.projection.parameters(), second.projection.parameters(), strict=True):
        assert torch.equal(a, b)


def test_features_without_information_are_refused() -> None:
    vectors = pairs().vectors
    for features in (np.ones((60, 4), np.float32), np.full((60, 4), np.nan, np.float32)):
        with pytest.raises(CompatError, match="no map can be fitted"):
            Pairs(features, vectors)

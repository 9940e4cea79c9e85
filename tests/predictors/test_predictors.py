"""Closed-form maps against other solvers, and predictors on candidates whose worth is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.errors import CompatError
from compat.evaluation import Truth, evaluate
from compat.predictors import (
    Moments,
    PredictorInputs,
    list_predictors,
    predict,
    procrustes_map,
    register_predictor,
    ridge_map,
)

LEARNT = ("overlap", "procrustes", "ridge")


def world(seed: int = 0, classes: int = 24, each: int = 12, dimension: int = 16) -> Any:
    """Gallery vectors of clustered classes and their labels; the last third is validation."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = rng.standard_normal((classes, dimension))
    vectors = centres[labels] + 0.4 * rng.standard_normal((len(labels), dimension))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def candidate(features: np.ndarray, vectors: np.ndarray, labels: np.ndarray) -> PredictorInputs:
    train = labels < 2 * labels.max() / 3
    found = np.arange(int((~train).sum()))
    ids = np.flatnonzero(~train)
    truth = Truth.from_labels(labels[ids], labels[ids], query_ids=ids, gallery_ids=ids)
    return PredictorInputs(
        train_features=features[train],
        train_vectors=vectors[train],
        features=features[~train],
        vectors=vectors[~train],
        queries=found,
        gallery=found,
        truth=truth,
        macs=1000,
        parameters=50,
    )


def paragon(inputs: PredictorInputs) -> float:
    return evaluate(inputs.vectors, inputs.vectors, inputs.truth).map


def standard(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(axis=0)) / features.std(axis=0)


def data(seed: int, images: int, features: int, dimension: int) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, features)) * rng.uniform(0.1, 10, features) + 3
    y = standard(x) @ rng.standard_normal((features, dimension)) / features**0.5
    return x, y + rng.standard_normal((images, dimension)) + 1


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(3, 30),
    st.integers(1, 20),
    st.integers(1, 8),
    st.floats(0.01, 100),
)
def test_ridge_solves_the_augmented_least_squares(
    seed: int, images: Any, features: Any, dimension: Any, penalty: Any
) -> None:
    x, y = data(seed, images, features, dimension)
    ones = np.ones((images, 1))
    design = np.vstack(
        [
            np.hstack([standard(x), ones]),
            np.hstack([np.sqrt(penalty) * np.eye(features), np.zeros((features, 1))]),
        ]
    )
    goal = np.vstack([y, np.zeros((features, dimension))])
    solution = np.linalg.lstsq(design, goal, rcond=None)[0]
    other = np.random.default_rng(1).standard_normal((5, features))
    expected = (other - x.mean(axis=0)) / x.std(axis=0) @ solution[:-1] + solution[-1]
    np.testing.assert_allclose(
        ridge_map(Moments.of(x, y), penalty=penalty)(other), expected, atol=1e-8
    )


@pytest.mark.parametrize(("images", "features"), [(40, 6), (12, 30), (10, 9)])
def test_the_penalty_is_the_one_of_least_generalised_cross_validation(
    images: Any, features: Any
) -> None:
    x, y = data(5, images, features, 4)

    def gcv(penalty: Any) -> Any:
        z = standard(x)
        hat = z @ np.linalg.inv(z.T @ z + penalty * np.eye(features)) @ z.T + 1 / images
        residual = y - hat @ y
        return images * np.sum(residual**2) / (images - np.trace(hat)) ** 2

    grid = images * np.logspace(-6, 3, 46)
    best = grid[np.argmin([gcv(penalty) for penalty in grid])]
    np.testing.assert_allclose(
        ridge_map(Moments.of(x, y))(x),
        ridge_map(Moments.of(x, y), penalty=best)(x),
        rtol=1e-6,
        atol=1e-6,
    )


def test_noise_is_shrunk_and_signal_is_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 50))
    signal = x @ rng.standard_normal((50, 3))
    noise = rng.standard_normal((200, 3))
    assert np.var(ridge_map(Moments.of(x, signal))(x) - signal) < 1e-6 * np.var(signal)
    assert np.var(ridge_map(Moments.of(x, noise))(x)) < 0.1 * np.var(noise)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_procrustes_equals_scipys(seed: int, dimension: Any) -> None:
    x, y = data(seed, 30, dimension, dimension)
    z, centred = standard(x), y - y.mean(axis=0)
    rotation, total = scipy.linalg.orthogonal_procrustes(z, centred)
    expected = total / np.sum(z**2) * z @ rotation + y.mean(axis=0)
    np.testing.assert_allclose(procrustes_map(Moments.of(x, y))(x), expected, atol=1e-8)


@pytest.mark.parametrize(("features", "dimension"), [(3, 8), (8, 3)])
def test_procrustes_is_semi_orthogonal_between_spaces_of_other_widths(
    features: Any, dimension: Any
) -> None:
    x, y = data(1, 40, features, dimension)
    fitted = procrustes_map(Moments.of(x, y))
    gram = fitted.weights @ fitted.weights.T
    stretch = np.sqrt(np.trace(gram) / min(features, dimension))
    if features < dimension:  # every direction of the features survives at the same length
        np.testing.assert_allclose(gram, stretch**2 * np.eye(features), atol=1e-10)
    else:  # the first principal components do, the others are dropped
        np.testing.assert_allclose(
            fitted.weights.T @ fitted.weights, stretch**2 * np.eye(dimension), atol=1e-10
        )
        components = np.linalg.svd(standard(x), full_matrices=False)[2][:dimension]
        dropped = fitted.weights - components.T @ (components @ fitted.weights)
        np.testing.assert_allclose(dropped, 0, atol=1e-10)


def test_features_that_do_not_vary_in_training_are_left_out() -> None:
    x, y = data(2, 30, 4, 3)
    for fit in (ridge_map, procrustes_map):
        wider = np.hstack([x, np.full((30, 1), 0.1)])
        other = wider.copy()
        other[:, -1] = 1e6
        np.testing.assert_allclose(
            fit(Moments.of(wider, y))(other), fit(Moments.of(x, y))(x), atol=1e-6
        )
        assert np.isfinite(fit(Moments.of(np.zeros((30, 4)), y))(x)).all()


def test_a_candidate_that_a_linear_map_recovers_scores_as_the_paragon() -> None:
    vectors, labels = world()
    rng = np.random.default_rng(1)
    recoverable = candidate(vectors @ rng.standard_normal((16, 40)) + 5, vectors, labels)
    scores = predict(["ridge", "overlap"], recoverable)
    assert scores["ridge"] == pytest.approx(paragon(recoverable), abs=0.01)
    assert scores["overlap"] > 0.95
    turned = candidate(vectors @ np.linalg.qr(rng.standard_normal((16, 16)))[0], vectors, labels)
    found = predict(["procrustes", "relations"], turned)
    assert found["procrustes"] > 0.95 * paragon(turned)
    assert found["relations"] > -0.5


def test_features_of_noise_score_near_chance() -> None:
    vectors, labels = world()
    noise = np.random.default_rng(2).standard_normal((len(labels), 40))
    inputs = candidate(noise, vectors, labels)
    chance = evaluate(noise[: len(inputs.queries), :16], inputs.vectors, inputs.truth).map
    scores = predict(LEARNT, inputs)
    assert scores["ridge"] < 1.5 * chance
    assert scores["procrustes"] < 1.5 * chance
    assert scores["overlap"] < 3 * 10 / len(inputs.gallery)
    assert predict(["relations"], inputs)["relations"] < -1.2


@pytest.mark.parametrize("name", [*LEARNT, "relations"])
def test_more_noise_scores_lower(name: str) -> None:
    vectors, labels = world(3)
    rng = np.random.default_rng(4)
    mixed, noise = vectors @ rng.standard_normal((16, 32)), rng.standard_normal((len(labels), 32))
    found = [
        predict([name], candidate(mixed + level * noise, vectors, labels))[name]
        for level in (0.1, 1.0, 4.0)
    ]
    assert found[0] > found[1] > found[2]


def test_nothing_is_fitted_on_validation_images() -> None:
    vectors, labels = world()
    features = vectors @ np.random.default_rng(5).standard_normal((16, 20))
    inputs = candidate(features, vectors, labels)
    spoilt = dataclasses.replace(
        inputs, vectors=np.random.default_rng(6).standard_normal(inputs.vectors.shape)
    )
    np.testing.assert_array_equal(inputs.ridge_queries, spoilt.ridge_queries)


def test_the_baselines_are_the_costs_themselves() -> None:
    vectors, labels = world()
    inputs = candidate(vectors, vectors, labels)
    assert predict(["macs", "parameters"], inputs) == {"macs": 1000.0, "parameters": 50.0}


def test_a_predictor_of_ones_own_has_a_name() -> None:
    from compat.predictors import base

    vectors, labels = world()
    inputs = candidate(vectors, vectors, labels)

    @register_predictor("width")
    def width(inputs: Any) -> Any:
        return inputs.features.shape[1]

    register_predictor("broken")(lambda inputs: float("nan"))
    try:
        assert "width" in list_predictors()
        assert predict(["width"], inputs) == {"width": 16.0}
        assert width(inputs) == 16
        with pytest.raises(CompatError, match="'broken' gives nan for a candidate with 16"):
            predict(["broken"], inputs)
    finally:
        del base._PREDICTORS["width"], base._PREDICTORS["broken"]
    with pytest.raises(CompatError, match=r"'rigde' \(did you mean 'ridge'"):
        predict(["rigde"], inputs)


def test_inputs_that_do_not_fit_are_refused() -> None:
    vectors, labels = world()
    inputs = candidate(vectors, vectors, labels)
    with pytest.raises(CompatError, match="validation images have features of shape"):
        dataclasses.replace(inputs, features=inputs.features[1:])
    with pytest.raises(CompatError, match="validation images have 15 and 16"):
        dataclasses.replace(inputs, features=inputs.features[:, 1:])
    spoilt = inputs.train_features.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(CompatError, match="features of training image 3 are not finite"):
        dataclasses.replace(inputs, train_features=spoilt)

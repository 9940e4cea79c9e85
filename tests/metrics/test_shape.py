"""The shape of a space against what is known of simple ones."""

import numpy as np
import pytest

from compat.errors import CompatError
from compat.metrics import shape


def test_even_directions_share_nothing() -> None:
    vectors = np.random.default_rng(0).normal(size=(4000, 8))
    found = shape(vectors)
    assert found.mean_cosine == pytest.approx(0, abs=0.01)
    assert found.effective_rank == pytest.approx(8, rel=0.01)
    assert not found.conical


def test_positive_features_are_a_cone() -> None:
    vectors = np.random.default_rng(0).uniform(size=(500, 64)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    expected = cosines[~np.eye(len(unit), dtype=bool)].mean()
    found = shape(3 * vectors)  # lengths do not matter
    assert found.mean_cosine == pytest.approx(expected, rel=1e-5)
    assert found.conical


def test_as_many_directions_count_as_vectors_differ_in() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([np.full((1000, 1), 5.0), rng.normal(size=(1000, 3))], axis=1)
    assert shape(np.pad(vectors, ((0, 0), (0, 12)))).effective_rank == pytest.approx(3, abs=0.5)


@pytest.mark.parametrize(
    "vectors", [np.ones((1, 3)), np.ones(3), np.zeros((2, 3)), np.full((2, 3), np.nan)]
)
def test_what_has_no_shape_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(CompatError):
        shape(vectors)

"""Galleries of fewer dimensions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import COUNT, WIDTH, assert_carried_over, correlated, unit, write

from compat.errors import CompatError
from compat.gallery import (
    reduce_gallery,
)
from compat.gallery.reducing import fit_projection


def test_the_projection_is_that_of_an_eigenvalue_decomposition() -> None:
    vectors = correlated(500, WIDTH)
    projection = fit_projection(vectors, 3)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, ::-1][:, :3]
    found = projection(vectors)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-4)


def test_whitening_gives_unit_covariance() -> None:
    vectors = correlated(500, WIDTH)
    white = fit_projection(vectors, 5, whiten=True)(vectors).astype(np.float64)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-4)
    values = np.linalg.eigvalsh(np.cov(fit_projection(vectors, 5)(vectors).T))
    assert values[-1] > 4 * values[0], "without whitening, variances differ"


@pytest.mark.parametrize(("count", "rank", "most"), [(200, 3, 3), (5, WIDTH, 4)])
def test_more_components_than_directions_are_refused(count: Any, rank: Any, most: Any) -> None:
    vectors = correlated(count, WIDTH, rank=rank)
    fit_projection(vectors, most, whiten=True)
    with pytest.raises(CompatError, match=f"span only {most} directions.*reduce to {most} at most"):
        fit_projection(vectors, most + 1, whiten=True)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_reduced_gallery_holds_the_components_of_everything(
    source: Any, tmp_path: Path, whiten: Any
) -> None:
    reduced = reduce_gallery(source, tmp_path / "r", dimension=4, whiten=whiten)
    assert_carried_over(reduced, source)
    projection = fit_projection(np.asarray(source.vectors), 4, whiten=whiten)
    np.testing.assert_allclose(reduced.vectors, unit(projection(source.vectors)), atol=1e-6)
    expected = unit(projection(source.view_vectors))
    np.testing.assert_allclose(reduced.view_vectors, expected, atol=1e-6)
    np.testing.assert_allclose(
        reduced.classifier[:2], unit(projection(unit(source.classifier[:2]))), atol=1e-5
    )
    assert np.isnan(reduced.classifier[2]).all()
    assert (reduced.metric, reduced.dimension, reduced.bytes_per_vector) == ("cosine", 4, 16)
    np.testing.assert_array_equal(np.load(reduced.path / "projection.npy"), projection.matrix)
    np.testing.assert_array_equal(np.load(reduced.path / "offset.npy"), projection.offset)
    (step,) = reduced.manifest.derivation
    assert (step["step"], step["dimension"], step["whiten"]) == ("reduce", 4, whiten)
    assert step["sources"] == [{"gallery": "source", "fingerprint": source.fingerprint}]


def test_half_precision_and_the_inner_product_are_kept(tmp_path: Path) -> None:
    source = write(
        tmp_path / "g", correlated(COUNT, WIDTH), metric="ip", dtype="float16", views=False
    )
    reduced = reduce_gallery(source, tmp_path / "r", dimension=4)
    assert (reduced.vectors.dtype, reduced.metric) == (np.float16, "ip")
    assert reduced.bytes_per_vector == 8
    projection = fit_projection(np.asarray(source.vectors, dtype=np.float32), 4)
    np.testing.assert_allclose(
        reduced.vectors, projection(np.asarray(source.vectors, np.float32)), rtol=1e-3, atol=1e-3
    )
    assert reduced.view_vectors is None

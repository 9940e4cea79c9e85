"""Galleries of fewer dimensions: principal components, whitened if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compat.errors import CompatError
from compat.gallery.deriving import check_plain, derive_gallery, training_sample
from compat.gallery.sealing import check_absent
from compat.gallery.space import GallerySpace

PROJECTION, OFFSET = "projection.npy", "offset.npy"

_ROUNDING = 1e-6  # of the largest variance: float32 vectors do not tell smaller ones from none


@dataclass(frozen=True, eq=False)
class Projection:
    """The affine map x -> A x + b.

    Attributes:
        matrix: A, (d', d) float32.
        offset: b, (d',) float32.
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Map ``vectors`` (B, d) to (B, d')."""
        mapped: np.ndarray = vectors @ self.matrix.T + self.offset
        return mapped


def fit_projection(vectors: np.ndarray, dimension: int, *, whiten: bool = False) -> Projection:
    """The ``dimension`` principal components of ``vectors`` (N, d) about their mean (faiss).

    Whitening divides each component by its standard deviation: Jegou, Chum, "Negative evidences and
    co-occurrences in image retrieval: the benefit of PCA and whitening", ECCV 2012.

    Raises:
        CompatError: When the vectors do not span so many dimensions: a direction with less than a
            millionth of the largest variance is rounding error.
    """
    import faiss

    count, width = vectors.shape
    pca = faiss.PCAMatrix(width, dimension, -0.5 if whiten else 0.0)
    pca.max_points_per_d = max(1, count)  # all of them: the caller has drawn the sample
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    spanned = min(count - 1, width)
    if dimension <= spanned:
        pca.train(np.ascontiguousarray(vectors - mean, dtype=np.float32))
        values = faiss.vector_to_array(pca.eigenvalues)
        spanned = int(np.sum(values > _ROUNDING * values[0]))
    if dimension > spanned:
        raise CompatError(
            f"{count} vectors of {width} dimensions span only {spanned} directions, so they have "
            f"no {dimension} principal components: reduce to {spanned} at most."
        )
    matrix = faiss.vector_to_array(pca.A).reshape(dimension, width)
    offset = faiss.vector_to_array(pca.b) - matrix @ mean
    if whiten:  # faiss divides by the root of a sum of squares, not of a mean
        matrix, offset = matrix * np.sqrt(np.float32(count)), offset * np.sqrt(np.float32(count))
    return Projection(matrix, offset)


def reduce_gallery(
    source: GallerySpace, out: str | Path, *, dimension: int, whiten: bool = False, seed: int = 0
) -> GallerySpace:
    """Make a gallery of the ``dimension`` principal components of another; its metric stays.

    The components are learnt from the gallery's vectors (200,000 at most, seeded), without labels,
    and kept in ``projection.npy`` and ``offset.npy``. The classifier's weight vectors are scaled to
    length one and mapped as the vectors are.

    Raises:
        CompatError: When the source has fewer dimensions, spans fewer or holds codes; and as
            `derive_gallery`.
    """
    check_absent(Path(out))
    check_plain(source)
    if not 1 <= dimension <= source.dimension:
        raise CompatError(
            f"{source.path} has {source.dimension} dimensions and cannot be reduced to "
            f"{dimension}: choose 1 to {source.dimension}."
        )
    projection = fit_projection(training_sample(source, seed=seed), dimension, whiten=whiten)
    return derive_gallery(
        source,
        out,
        projection,
        metric=source.metric,
        derivation={"step": "reduce", "dimension": dimension, "whiten": whiten, "seed": seed},
        classifier=None if source.classifier is None else _mapped(source.classifier, projection),
        learned={PROJECTION: projection.matrix, OFFSET: projection.offset},
    )


def _mapped(classifier: np.ndarray, projection: Projection) -> np.ndarray:
    """Class weight vectors as points of the new space, rows of length one; NaN rows stay NaN."""
    mapped = projection(classifier / np.linalg.norm(classifier, axis=1, keepdims=True))
    unit: np.ndarray = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    return unit

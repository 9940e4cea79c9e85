"""Whether both embeddings of an image see the same anchors alike."""

import numpy as np

from compat.errors import CompatError
from compat.evaluation.similarity import unit_rows
from compat.metrics.pairs import blocks, directions
from compat.metrics.softmax import softmax_kl

_BLOCK = 256  # images whose similarities to all anchors are held at a time
_ROWS_PER_ANCHOR = 256  # k-means sees at most so many gallery vectors per anchor


def anchor_kl(
    query: np.ndarray, target: np.ndarray, anchors: np.ndarray, *, temperature: float = 0.1
) -> float:
    """Mean KL(softmax(g·Aᵀ/τ) ‖ softmax(q·Aᵀ/τ)) in nats; 0 where both embed alike.

    With anchors (m, A, d/m) vectors are cut into m sub-vectors, each of unit length, and the mean
    goes over them too: the loss of Wu et al., "Structure similarity preservation learning for
    asymmetric image retrieval", IEEE TMM 2023, as a metric.

    Args:
        query: (n, d) embeddings by the query model.
        target: (n, d) embeddings of the same images by the gallery model.
        anchors: (A, d), or (m, A, d/m) as a product quantiser has them; only directions matter.
        temperature: τ.

    Raises:
        CompatError: The shapes do not fit, a vector is zero or not finite, or τ is not positive.
    """
    q, g = directions(query, target)
    parts = anchors[None] if anchors.ndim == 2 else anchors
    if parts.ndim != 3 or parts.shape[0] * parts.shape[2] != q.shape[1]:
        raise CompatError(
            f"Anchors of shape {anchors.shape} do not fit embeddings of {q.shape[1]} dimensions: "
            "give (anchors, d) or (m, anchors, d/m)."
        )
    unit = unit_rows(parts.reshape(-1, parts.shape[2]), "anchor").reshape(parts.shape)

    def similarities(vectors: np.ndarray) -> np.ndarray:
        cut = vectors.reshape(len(vectors), len(unit), -1).astype(np.float64)
        lengths = np.linalg.norm(cut, axis=2, keepdims=True)
        return np.einsum("nmd,mad->nma", cut / np.maximum(lengths, 1e-12), unit, optimize=True)

    values = [
        softmax_kl(similarities(g[rows]), similarities(q[rows]), temperature)
        for rows in blocks(len(q), _BLOCK)
    ]
    return float(np.concatenate(values).mean())


def kmeans_anchors(gallery: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Unit centroids (count, d) float32 of the gallery's directions, by spherical k-means (faiss).

    Args:
        gallery: (N, d), may be a memory map; at most 256 rows per anchor are drawn from it.
        count: Number of anchors.
        seed: Of the draw and of k-means.

    Raises:
        CompatError: The gallery has fewer than ``count`` vectors.
    """
    import faiss

    if not 1 <= count <= len(gallery):
        raise CompatError(
            f"{count} anchors are asked for, but the gallery has {len(gallery)} vectors: choose "
            "from 1 to that."
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(gallery))[: count * _ROWS_PER_ANCHOR])
    kmeans = faiss.Kmeans(
        gallery.shape[1], count, niter=20, seed=seed, spherical=True, min_points_per_centroid=1
    )
    kmeans.train(unit_rows(gallery[chosen], "gallery"))
    return np.asarray(kmeans.centroids)

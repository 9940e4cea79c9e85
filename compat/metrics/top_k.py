"""Whether both embeddings of an image see its gallery neighbours alike."""

import numpy as np

from compat.evaluation.similarity import Metric
from compat.metrics.neighbours import similarities_to
from compat.metrics.pairs import directions
from compat.metrics.softmax import softmax_kl


def top_k_kl(
    query: np.ndarray,
    target: np.ndarray,
    gallery: np.ndarray,
    neighbours: np.ndarray,
    *,
    temperature: float = 0.1,
    metric: Metric = "cosine",
) -> float:
    """Mean KL(softmax(g·G_Kᵀ/τ) ‖ softmax(q·G_Kᵀ/τ)) over g's K gallery neighbours G_K, in nats.

    The loss of Wu et al., "Contextual similarity distillation for asymmetric image retrieval",
    CVPR 2022, as a metric; one temperature for both sides, so that equal embeddings give 0.

    Args:
        query: (n, d) embeddings by the query model.
        target: (n, d) embeddings of the same images by the gallery model.
        gallery: (N, d).
        neighbours: (n, K) gallery indices, `nearest` of ``target``.
        temperature: τ.
        metric: Similarity of the gallery space.

    Raises:
        CompatError: The shapes do not fit, a vector is zero or not finite, or τ is not positive.
    """
    q, g = directions(query, target)
    by_query = similarities_to(q, gallery, neighbours, metric)
    by_target = similarities_to(g, gallery, neighbours, metric)
    return float(softmax_kl(by_target, by_query, temperature).mean())

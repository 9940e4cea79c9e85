"""Similarities to the gallery neighbours of an image, which several losses compare."""

import torch
from torch import Tensor

from compat.targets import Batch

_IMAGES = 8  # at once: their gathered vectors stay in cache and in memory that is used again


def neighbour_similarities(
    query: Tensor, target: Tensor, batch: Batch, k: int
) -> tuple[Tensor, Tensor]:
    """Return s_g = g·G_Kᵀ and s_q = q·G_Kᵀ, each (B, k), G_K the k gallery vectors nearest to g.

    Column i belongs to the i-th nearest, best first. The nearest is the image's own gallery
    vector, or for an augmented view usually so. Memory is B·k·d floats, kept for the backward
    pass.

    Args:
        query: Query embeddings (B, d), float32 or float64.
        target: Gallery embeddings of the same images (B, d), of the same type.
        batch: The batch, whose targets know the neighbours.
        k: Number of neighbours.
    """
    rows = batch.targets.neighbours(k)[batch.rows]
    pairs = torch.stack((target, query), dim=1)
    similarities = [
        pair @ _gather(batch.targets.gallery, part).to(query.dtype).transpose(1, 2)
        for pair, part in zip(pairs.split(_IMAGES), rows.split(_IMAGES), strict=True)
    ]
    of_gallery, of_query = torch.cat(similarities).unbind(dim=1)
    return of_gallery.detach(), of_query  # the gallery space is fixed


def _gather(vectors: Tensor, rows: Tensor) -> Tensor:
    """Vectors (N, d) at rows (b, k) as (b, k, d); quicker than ``vectors[rows]`` on a CPU."""
    return vectors.index_select(0, rows.flatten()).unflatten(0, rows.shape)

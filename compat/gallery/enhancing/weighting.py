"""How much each crop of a picture counts, and the one vector that they make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compat.gallery.enhancing.crops import Box

TEMPERATURE = 0.2
_BORDER = 8  # pixels mirrored around the picture, so that its own edges are no keypoints


def keypoint_heat(picture: np.ndarray) -> np.ndarray:
    """Root of the positive Harris corner response (Harris and Stephens, 1988); 1 where all is flat.

    Args:
        picture: (L, L, 3) uint8.

    Returns:
        (L, L) float64, not negative and not all zero.
    """
    from skimage.color import rgb2gray
    from skimage.feature import corner_harris

    response = corner_harris(np.pad(rgb2gray(picture), _BORDER, mode="symmetric"))
    heat = np.sqrt(np.maximum(response[_BORDER:-_BORDER, _BORDER:-_BORDER], 0))
    return heat if heat.any() else np.ones_like(heat)


def shares(heat: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Share of the heat's sum that each box holds, summing to one over the boxes.

    Args:
        heat: (L, L), not negative. All ones make a box weigh as the area that it shows.
        boxes: C boxes, one of them with some heat; what lies beyond the border holds none.

    Returns:
        (C,) float64.
    """
    inside = []
    for box in boxes:
        left, top = (max(0, round(start)) for start in (box.left, box.top))
        right, bottom = round(box.left + box.side), round(box.top + box.side)
        inside.append(heat[top:bottom, left:right].sum())
    return np.array(inside) / sum(inside)


def consensus(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights times exp(cosine to the weighted mean / `TEMPERATURE`), summing to one again.

    A crop that shows something else than the others together, such as background, loses weight.

    Args:
        vectors: (N, C, d) of length one: C crops of N pictures.
        weights: (N, C), not negative, rows summing to one.

    Returns:
        (N, C) like ``weights``.
    """
    agreement = np.einsum("ncd,nd->nc", vectors, mean(vectors, weights))
    changed = weights * np.exp((agreement - 1) / TEMPERATURE)
    return np.asarray(changed / changed.sum(axis=1, keepdims=True))


def mean(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean (N, d) of vectors (N, C, d), scaled to length one; zero stays zero."""
    return unit(np.einsum("ncd,nc->nd", vectors, weights))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., d) scaled to length one; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths))

"""Galleries stored as codes of product quantisation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from compat.errors import CompatError
from compat.gallery.codes import ProductCoder
from compat.gallery.deriving import check_plain, derive_gallery, training_sample
from compat.gallery.sealing import check_absent
from compat.gallery.space import GallerySpace

logger = logging.getLogger("querynas")

_ROTATION_POINTS = 64  # vectors per centroid that the rotation is learnt from, at most


def fit_product_coder(
    vectors: np.ndarray, *, parts: int, bits: int = 8, opq: bool = False, seed: int = 0
) -> ProductCoder:
    """Learn a product quantiser from ``vectors`` (N, d), with faiss.

    Args:
        vectors: What to learn from; faiss takes 256 of them per centroid at most.
        parts: Number m of equal parts of a vector.
        bits: Of one part's code, 1 to 8.
        opq: First learn a rotation under which the parts lose less (Ge et al., CVPR 2013).
        seed: Of k-means.

    Raises:
        CompatError: When the parts do not divide the dimension, or there are fewer vectors than
            centroids.
    """
    import faiss

    count, dimension = vectors.shape
    if dimension % parts:
        raise CompatError(
            f"{dimension} dimensions cannot be cut into {parts} equal parts: choose a number of "
            f"codes that divides {dimension}."
        )
    if count < 2**bits:
        raise CompatError(
            f"{2**bits} centroids ({bits} bits) need as many vectors, but there are {count}: "
            "choose fewer bits."
        )
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    rotation = None
    if opq:
        transform = faiss.OPQMatrix(dimension, parts)
        inner = _quantizer(dimension, parts, bits, seed)
        transform.pq = inner
        transform.max_train_points = _ROTATION_POINTS * 2**bits
        logger.info("Learning the rotation, which can take some minutes.")
        transform.train(rows)
        rotation = faiss.vector_to_array(transform.A).reshape(dimension, dimension)
        rows = transform.apply(rows)
    quantizer = _quantizer(dimension, parts, bits, seed)
    logger.info("Learning %d centroids for each of %d parts.", 2**bits, parts)
    quantizer.train(rows)
    centroids = faiss.vector_to_array(quantizer.centroids)
    return ProductCoder(centroids.reshape(parts, 2**bits, dimension // parts), rotation)


def compress_gallery(
    source: GallerySpace,
    out: str | Path,
    *,
    bytes_per_vector: int,
    bits: int = 8,
    opq: bool = False,
    seed: int = 0,
) -> GallerySpace:
    """Make a gallery of another's vectors behind product quantisation.

    The centroids (and the rotation) are learnt from the gallery's vectors (200,000 at most,
    seeded), without labels. Metric and classifier stay: the space is the same. Reconstructed
    vectors are not of length one; under ``cosine`` only their direction counts, under ``ip`` they
    are ranked as ``faiss.IndexPQ`` ranks them by inner product.

    Args:
        bytes_per_vector: Size of a code; its ``8 * bytes_per_vector / bits`` parts must divide the
            dimension.

    Raises:
        CompatError: When sizes do not go together, there are fewer vectors than centroids, or the
            source holds codes; and as `derive_gallery`.
    """
    check_absent(Path(out))
    check_plain(source)
    if not 1 <= bits <= 8:
        raise CompatError(f"Codes of {bits} bits cannot be stored: choose 1 to 8.")
    parts, rest = divmod(8 * bytes_per_vector, bits)
    if rest or parts < 1 or source.dimension % parts:
        raise CompatError(
            f"{bytes_per_vector} bytes hold {8 * bytes_per_vector / bits:g} codes of {bits} bits, "
            f"which is no divisor of the {source.dimension} dimensions of {source.path}: "
            f"{_remedy(source.dimension, bits)}."
        )
    coder = fit_product_coder(
        training_sample(source, seed=seed), parts=parts, bits=bits, opq=opq, seed=seed
    )
    return derive_gallery(
        source,
        out,
        lambda vectors: vectors,
        codes=coder,
        metric=source.metric,
        derivation={
            "step": "compress",
            "bytes": bytes_per_vector,
            "bits": bits,
            "opq": opq,
            "seed": seed,
        },
        classifier=source.classifier,
    )


def _remedy(dimension: int, bits: int) -> str:
    """Say which sizes of a code are possible."""
    parts = [m for m in range(1, dimension + 1) if dimension % m == 0 and m * bits % 8 == 0]
    sizes = ", ".join(str(m * bits // 8) for m in parts)
    return f"choose one of {sizes} bytes" if sizes else "choose another number of bits"


def _quantizer(dimension: int, parts: int, bits: int, seed: int) -> Any:
    import faiss

    quantizer = faiss.ProductQuantizer(dimension, parts, bits)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1  # do not warn of small galleries
    return quantizer

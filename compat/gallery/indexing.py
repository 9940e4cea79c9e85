"""A faiss index over a gallery space, of the kind that its vectors are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compat.errors import CompatError
from compat.evaluation.similarity import query_rows
from compat.gallery.codes import Codes, ProductCoder, SignCoder

if TYPE_CHECKING:
    from compat.gallery.space import GallerySpace

_ROWS = 65536  # vectors or codes handed to faiss at a time


def gallery_index(space: GallerySpace) -> Any:
    """Make the exact faiss index of a gallery as it is stored; codes are not made anew.

    Floats: ``IndexFlatIP`` over the gallery's vectors. Product codes: ``IndexPQ``, by squared
    distance where the metric is cosine. Sign codes: ``IndexBinaryFlat``. ``faiss.write_index`` and
    ``faiss.write_index_binary`` keep it in a file.

    Returns:
        The index, whose ids are the gallery's rows; `search_gallery` asks it.
    """
    import faiss

    vectors = space.vectors
    index: Any
    add: Any
    if not isinstance(vectors, Codes):
        index = faiss.IndexFlatIP(space.dimension)
        for start in range(0, len(space), _ROWS):
            index.add(np.asarray(vectors[start : start + _ROWS], dtype=np.float32))
        return index
    coder, codes = vectors.coder, vectors.codes
    if isinstance(coder, SignCoder):
        index = faiss.IndexBinaryFlat(8 * coder.code_size)
        add = index.add
    else:
        measure = faiss.METRIC_INNER_PRODUCT if space.metric == "ip" else faiss.METRIC_L2
        index = faiss.IndexPQ(coder.dimension, len(coder.centroids), coder.bits, measure)
        faiss.copy_array_to_vector(np.ravel(coder.centroids), index.pq.centroids)
        index.is_trained = True
        add = index.add_sa_codes
    for start in range(0, len(space), _ROWS):
        add(np.ascontiguousarray(codes[start : start + _ROWS]))
    return index


def search_gallery(
    space: GallerySpace, index: Any, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Search the index of a gallery with a query model's embeddings.

    Args:
        space: The gallery.
        index: Of `gallery_index`, or read back from its file.
        queries: (Q, d) floats. They are brought to length one where the metric is cosine, rotated
            where the codes are, and turned into signs where those are stored.
        k: Length of the lists.

    Returns:
        What faiss gives, best first: similarities for floats and inner products, else squared or
        Hamming distances (Q, k); and rows of the gallery (Q, k) int64, -1 where it has fewer.

    Raises:
        CompatError: The queries have another dimension than the gallery.
    """
    if queries.ndim != 2 or queries.shape[1] != space.dimension:
        raise CompatError(
            f"Queries have shape {queries.shape}, expected (queries, {space.dimension}) as the "
            f"gallery {space.path} has: embed them with a model aligned to it."
        )
    coder = space.vectors.coder if isinstance(space.vectors, Codes) else None
    rows = query_rows(queries, space.metric)
    if isinstance(coder, SignCoder):
        rows = coder.encode(queries)
    elif isinstance(coder, ProductCoder) and coder.rotation is not None:
        rows = rows @ coder.rotation.T
    found: tuple[np.ndarray, np.ndarray] = index.search(np.ascontiguousarray(rows), k)
    return found

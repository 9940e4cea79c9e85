"""The faiss index of a gallery finds what exact evaluation ranks first."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from compat.errors import CompatError
from compat.evaluation import top_k
from compat.gallery import (
    GallerySpace,
    SignCoder,
    compress_gallery,
    derive_gallery,
    gallery_index,
    import_gallery,
    search_gallery,
)


def random_vectors(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> GallerySpace:
    np.save(tmp_path / "vectors.npy", random_vectors(400, 12, seed=0))
    (tmp_path / "ids.txt").write_text("\n".join(f"image{row}" for row in range(400)))
    return import_gallery(
        tmp_path / "vectors.npy", tmp_path / "source", ids=tmp_path / "ids.txt", metric="cosine"
    )


QUERIES = random_vectors(7, 12, seed=1)


def test_floats_are_searched_by_similarity(source: GallerySpace) -> None:
    similarities, rows = search_gallery(source, gallery_index(source), 3 * QUERIES, 5)
    np.testing.assert_array_equal(rows, top_k(QUERIES, source.vectors, None, 5))
    expected = (QUERIES[0] / np.linalg.norm(QUERIES[0])) @ source.vectors[rows[0, 0]]
    assert similarities[0, 0] == pytest.approx(expected, abs=1e-6)


def test_signs_are_searched_by_hamming_distance(source: GallerySpace, tmp_path: Path) -> None:
    hashed = derive_gallery(
        source,
        tmp_path / "signs",
        lambda x: x,
        codes=SignCoder(12),
        metric="hamming",
        derivation={"step": "signs"},
    )
    index = gallery_index(hashed)
    assert isinstance(index, faiss.IndexBinaryFlat)
    faiss.write_index_binary(index, str(tmp_path / "signs.faiss"))
    again = faiss.read_index_binary(str(tmp_path / "signs.faiss"))
    distances, rows = search_gallery(hashed, again, QUERIES, 400)
    differing = (QUERIES[:, None] >= 0) != (np.asarray(source.vectors)[None] >= 0)
    counted = differing.sum(axis=2)
    np.testing.assert_array_equal(distances, np.take_along_axis(counted, rows, axis=1))
    np.testing.assert_array_equal(distances, np.sort(counted, axis=1))


@pytest.mark.parametrize("opq", [False, True])
def test_product_codes_are_searched_by_distance_to_what_they_stand_for(
    source: GallerySpace, tmp_path: Path, opq: bool
) -> None:
    coded = compress_gallery(source, tmp_path / "pq", bytes_per_vector=3, bits=6, opq=opq)
    distances, rows = search_gallery(coded, gallery_index(coded), QUERIES, 10)
    unit = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    exact = ((unit[:, None] - np.asarray(coded.vectors)[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :10], atol=1e-5)
    np.testing.assert_allclose(distances, np.take_along_axis(exact, rows, axis=1), atol=1e-5)


def test_queries_of_another_dimension_are_refused(source: GallerySpace) -> None:
    with pytest.raises(CompatError, match=r"\(7, 5\), expected \(queries, 12\)"):
        search_gallery(source, gallery_index(source), QUERIES[:, :5], 3)

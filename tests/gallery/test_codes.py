"""Codes read like the float vectors that they stand for."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compat.errors import CompatError
from compat.gallery import ProductCoder, ProductCodes, SignCoder, SignCodes
from compat.gallery.compressing import fit_product_coder


def random_vectors(*shape: Any, seed: Any = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_product_codes_are_those_of_faiss(bits: Any) -> None:
    vectors = random_vectors(300, 16)
    quantizer = faiss.ProductQuantizer(16, 8, bits)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(vectors)
    centroids = faiss.vector_to_array(quantizer.centroids).reshape(8, 2**bits, 2)
    coder = ProductCoder(centroids)
    codes = coder.encode(vectors)
    assert (coder.dimension, coder.bits, coder.code_size) == (16, bits, bits)
    np.testing.assert_array_equal(codes, quantizer.compute_codes(vectors))
    np.testing.assert_array_equal(coder.decode(codes), quantizer.decode(codes))


def test_a_code_names_the_nearest_centroid_of_every_part() -> None:
    vectors = random_vectors(40, 6)
    centroids = random_vectors(3, 256, 2, seed=1)
    decoded = ProductCoder(centroids).decode(ProductCoder(centroids).encode(vectors))
    for row, vector in enumerate(vectors):
        for part in range(3):
            piece = vector[2 * part : 2 * part + 2]
            nearest = min(centroids[part], key=lambda c, piece=piece: np.sum((piece - c) ** 2))
            np.testing.assert_array_equal(decoded[row, 2 * part : 2 * part + 2], nearest)


def test_a_rotation_is_undone_by_decoding() -> None:
    vectors = random_vectors(300, 8)
    coder = fit_product_coder(vectors, parts=4, bits=4, opq=True)
    rotation = coder.rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-5)
    opq = faiss.OPQMatrix(8, 4)
    faiss.copy_array_to_vector(rotation.ravel(), opq.A)
    opq.is_trained = opq.is_orthonormal = True
    inner = ProductCoder(coder.centroids)
    codes = coder.encode(vectors)
    np.testing.assert_array_equal(codes, inner.encode(opq.apply(vectors)))
    np.testing.assert_allclose(
        coder.decode(codes), opq.reverse_transform(inner.decode(codes)), atol=1e-6
    )


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(-3, 3, width=32),
    )
)
@settings(max_examples=60)
def test_signs_survive_packing(vectors: Any) -> None:
    coder = SignCoder(vectors.shape[1])
    codes = coder.encode(vectors)
    assert codes.shape == (len(vectors), coder.code_size)
    signs = coder.decode(codes)
    np.testing.assert_array_equal(signs, np.where(vectors >= 0, 1, -1))
    np.testing.assert_array_equal(coder.encode(signs), codes)


def test_packed_signs_have_the_hamming_distances_of_faiss() -> None:
    coder = SignCoder(24)
    queries, gallery = random_vectors(5, 24), random_vectors(30, 24, seed=1)
    index = faiss.IndexBinaryFlat(24)
    index.add(coder.encode(gallery))
    distances, rows = index.search(coder.encode(queries), 30)
    signs = np.where(queries >= 0, 1, -1), np.where(gallery >= 0, 1, -1)
    expected = (24 - signs[0] @ signs[1].T) // 2
    np.testing.assert_array_equal(distances, np.take_along_axis(expected, rows, axis=1))


@pytest.fixture(params=["product", "sign"])
def make(request: pytest.FixtureRequest) -> Any:
    """Codes in a memory map, made of floats."""
    coder = ProductCoder(random_vectors(3, 16, 2)) if request.param == "product" else SignCoder(6)
    kind = ProductCodes if request.param == "product" else SignCodes

    def make_codes(folder: Any, *shape: Any) -> Any:
        flat = coder.encode(random_vectors(int(np.prod(shape)), 6))
        np.save(folder / "c.npy", flat.reshape(*shape, -1))
        return kind(np.load(folder / "c.npy", mmap_mode="r"), coder)

    return make_codes


INDICES = [
    *(3, -1, np.int64(2), slice(None), slice(2, 9, 3), slice(5, 5), [4, 0, 4], [True, False] * 6),
    *(np.array([7, 1]), np.array([], dtype=np.int64), np.arange(12) % 3 == 0),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_rows_are_read_as_from_an_array(make: Any, tmp_path: Path, index: Any) -> None:
    codes = make(tmp_path, 12)
    plain = np.asarray(codes)
    assert (codes.shape, codes.ndim, codes.dtype, len(codes)) == ((12, 6), 2, np.float32, 12)
    assert plain.shape == (12, 6)
    assert codes[index].dtype == np.float32
    np.testing.assert_array_equal(codes[index], plain[index])


def test_views_are_read_as_from_an_array(make: Any, tmp_path: Path) -> None:
    codes = make(tmp_path, 3, 12)
    plain = np.asarray(codes)
    assert (codes.shape, codes.ndim, len(codes)) == ((3, 12, 6), 3, 3)
    for index in INDICES:
        np.testing.assert_array_equal(codes[1][index], plain[1][index])
        np.testing.assert_array_equal(codes[1, index], plain[1, index])
    np.testing.assert_array_equal(codes[1:], plain[1:])
    np.testing.assert_array_equal([np.asarray(view) for view in codes], plain)
    assert isinstance(codes[0].codes, np.memmap), "a view is not read before its rows are"


def test_rows_are_iterated_and_converted(make: Any, tmp_path: Path) -> None:
    codes = make(tmp_path, 12)
    np.testing.assert_array_equal(list(codes), np.asarray(codes))
    assert np.asarray(codes, dtype=np.float64).dtype == np.float64


def test_what_codes_cannot_do_is_said(make: Any, tmp_path: Path) -> None:
    codes = make(tmp_path, 12)
    with pytest.raises(IndexError, match="read by whole rows"):
        codes[2, 3]
    with pytest.raises(IndexError):
        codes[12]
    with pytest.raises(ValueError, match="without making an array"):
        np.array(codes, copy=False)


@pytest.mark.parametrize("shape", [(4, 16), (4, 15, 2), (4, 512, 2), (4, 1, 2)])
def test_centroids_of_another_shape_are_refused(shape: Any) -> None:
    with pytest.raises(CompatError, match=r"Centroids have shape .* expected \(parts, 2\*\*bits"):
        ProductCoder(np.zeros(shape, dtype=np.float32))


def test_a_rotation_of_another_width_is_refused() -> None:
    with pytest.raises(CompatError, match=r"rotation has shape \(7, 7\), expected \(8, 8\)"):
        ProductCoder(np.zeros((4, 16, 2), dtype=np.float32), np.eye(7, dtype=np.float32))

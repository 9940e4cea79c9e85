"""Galleries of codes in place of vectors."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from handmade import COUNT, STEP, assert_carried_over, correlated, unit, write

from compat.data import open_data
from compat.errors import CompatError
from compat.evaluation import Truth, evaluate, top_k
from compat.gallery import (
    Codes,
    GallerySpace,
    ProductCodes,
    build_gallery,
    compress_gallery,
    load_gallery_model,
    reduce_gallery,
)
from compat.gallery.deriving import derive_gallery


@pytest.mark.parametrize(("bytes_", "bits", "opq"), [(4, 4, False), (3, 3, False), (2, 2, True)])
def test_a_compressed_gallery_holds_codes_of_everything(
    source: Any, tmp_path: Path, bytes_: Any, bits: Any, opq: Any
) -> None:
    small = compress_gallery(
        source, tmp_path / "c", bytes_per_vector=bytes_, bits=bits, opq=opq, seed=1
    )
    assert_carried_over(small, source)
    assert isinstance(small.vectors, ProductCodes)
    assert (small.vectors.shape, small.view_vectors.shape) == (
        source.vectors.shape,
        source.view_vectors.shape,
    )
    assert (small.metric, small.bytes_per_vector) == ("cosine", bytes_)
    assert (small.vectors.coder.rotation is not None) == opq
    coder = small.vectors.coder
    for found, original in (
        (small.vectors, source.vectors),
        *zip(small.view_vectors, source.view_vectors, strict=True),
    ):
        np.testing.assert_array_equal(found, coder.decode(coder.encode(original)))
        error = np.mean(np.sum((np.asarray(found) - original) ** 2, axis=1))
        assert error < 0.5, "far below the 2 of unrelated unit vectors"
    np.testing.assert_array_equal(small.classifier, source.classifier)
    assert not (small.path / "vectors.npy").exists()
    assert (small.path / "codes.npy").stat().st_size == 128 + COUNT * bytes_


@pytest.mark.parametrize("opq", [False, True])
def test_the_order_of_results_is_that_of_the_index_in_production(tmp_path: Path, opq: Any) -> None:
    source = write(tmp_path / "g", correlated(400, 16), views=False, metric="ip")
    queries = unit(correlated(20, 16, seed=5))
    small = compress_gallery(source, tmp_path / "c", bytes_per_vector=4, bits=4, opq=opq)
    assert small.metric == "ip"
    rotation, index = production_index(small, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(source.vectors @ rotation.T))
    values, rows = index.search(np.ascontiguousarray(queries @ rotation.T), 25)
    found = top_k(queries, small.vectors, None, 25, metric=small.metric)
    similarities = queries @ np.asarray(small.vectors).T
    np.testing.assert_allclose(
        np.take_along_axis(similarities, found, axis=1), values, rtol=1e-5, atol=1e-5
    )
    apart = np.abs(np.diff(values, axis=1)) > 1e-4  # equal codes tie
    clear = np.hstack([np.ones((20, 1), bool), apart]) & np.hstack([apart, np.zeros((20, 1), bool)])
    assert clear.mean() > 0.3
    np.testing.assert_array_equal(found[clear], rows[clear])


def test_a_compressed_cosine_gallery_is_ranked_nearly_as_by_squared_distance(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "g", correlated(400, 16), views=False)
    queries = unit(correlated(20, 16, seed=5))
    small = compress_gallery(source, tmp_path / "c", bytes_per_vector=8, bits=4)
    assert small.metric == "cosine"
    _, index = production_index(small, faiss.METRIC_L2)
    index.add(np.ascontiguousarray(source.vectors))
    _, rows = index.search(queries, 10)
    found = top_k(queries, small.vectors, None, 10, metric="cosine")
    exact = np.argsort(-queries @ unit(np.asarray(small.vectors)).T, axis=1)[:, 0]
    np.testing.assert_array_equal(found[:, 0], exact)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found, rows, strict=True)]
    assert np.mean(shared) > 8


def production_index(space: Any, metric: Any) -> Any:
    """The rotation and the empty faiss index that would search a gallery's codes."""
    coder = space.vectors.coder
    index = faiss.IndexPQ(coder.dimension, len(coder.centroids), coder.bits, metric)
    faiss.copy_array_to_vector(coder.centroids.ravel(), index.pq.centroids)
    index.is_trained = True
    return np.eye(coder.dimension) if coder.rotation is None else coder.rotation, index


def test_a_gallery_may_be_reduced_and_then_compressed(source: Any, tmp_path: Path) -> None:
    reduced = reduce_gallery(source, tmp_path / "r", dimension=4, whiten=True)
    small = compress_gallery(reduced, tmp_path / "c", bytes_per_vector=2, bits=4)
    assert_carried_over(small, source)
    assert [step["step"] for step in small.manifest.derivation] == ["reduce", "compress"]
    assert small.manifest.derivation[1]["sources"][0]["fingerprint"] == reduced.fingerprint
    with pytest.raises(CompatError, match="holds codes of 2 bytes instead of vectors"):
        compress_gallery(small, tmp_path / "cc", bytes_per_vector=2, bits=4)
    with pytest.raises(CompatError, match="holds codes of 2 bytes instead of vectors"):
        reduce_gallery(small, tmp_path / "rc", dimension=2)


@pytest.fixture
def small(source: Any, tmp_path: Path) -> Any:
    return compress_gallery(source, tmp_path / "c", bytes_per_vector=4, bits=4, opq=True)


@pytest.mark.parametrize("name", ["codes", "view_codes", "centroids", "rotation"])
def test_verify_finds_a_changed_byte(small: Any, name: str) -> None:
    with (small.path / f"{name}.npy").open("r+b") as stream:
        stream.seek(-3, 2)
        byte = stream.read(1)[0]
        stream.seek(-3, 2)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(CompatError, match=rf"{name}\.npy has changed"):
        GallerySpace.open(small.path).verify()


def edit(space: Any, **changes: Any) -> None:
    file = space.path / "gallery.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_fingerprint_is_of_codes_and_centroids(small: Any, source: Any, tmp_path: Path) -> None:
    coder = small.vectors.coder
    turned = derive_gallery(
        source,
        tmp_path / "turned",
        lambda vectors: vectors,
        codes=replace(coder, centroids=coder.centroids * np.float32(1.01)),
        derivation=STEP,
    )
    assert turned.fingerprint != small.fingerprint
    edit(small, fingerprint="0" * 64)
    with pytest.raises(CompatError, match="states fingerprint 000000000000…"):
        GallerySpace.open(small.path).verify()


def test_a_wrong_description_of_codes_is_refused(small: Any) -> None:
    edit(small, codes="huffman")
    with pytest.raises(CompatError, match="'codes' is 'huffman'"):
        GallerySpace.open(small.path)
    edit(small, codes="sign")
    with pytest.raises(CompatError, match=r"goes with the codes .sign"):
        GallerySpace.open(small.path)
    edit(small, codes=None)
    with pytest.raises(CompatError, match=r"does not list view_vectors\.npy"):
        GallerySpace.open(small.path)
    edit(small, codes="product", dimension=4)
    with pytest.raises(CompatError, match=r"is for 8 dimensions, but gallery\.json says 4"):
        GallerySpace.open(small.path)


def test_real_characters_survive_compression(real_data: Path, tinynet: str, tmp_path: Path) -> None:
    for character in sorted((real_data / "omniglot-background").iterdir())[:20]:
        shutil.copytree(character, tmp_path / "characters" / character.name)
    images = open_data(tmp_path / "characters")
    model = load_gallery_model(f"{tinynet},width=16")
    source = build_gallery(images, model, tmp_path / "g")
    truth = Truth.from_labels(
        images.labels, images.labels, query_ids=images.ids, gallery_ids=images.ids
    )

    def paragon(space: GallerySpace) -> float:
        return evaluate(np.asarray(space.vectors), space.vectors, truth, metric=space.metric).map

    def error(space: GallerySpace) -> float:
        assert isinstance(space.vectors, Codes)
        return float(np.mean((np.asarray(space.vectors) - source.vectors) ** 2))

    made = {
        (size, opq): compress_gallery(
            source, tmp_path / f"{size}{opq}", bytes_per_vector=size, bits=4, opq=opq
        )
        for size, opq in ((1, False), (4, False), (1, True))
    }
    assert error(made[4, False]) < error(made[1, False]) / 2
    assert error(made[1, True]) < error(made[1, False])
    assert abs(paragon(made[4, False]) - paragon(source)) < 0.05
    reduced = reduce_gallery(source, tmp_path / "r", dimension=3)
    assert abs(paragon(reduced) - paragon(source)) < 0.1

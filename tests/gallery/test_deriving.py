"""Galleries made of galleries: smaller, compressed, combined, and as good to study as any."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compat.data import ViewRecipe, open_data
from compat.data.preprocessing import Preprocessing
from compat.errors import CompatError
from compat.evaluation import Truth, evaluate, top_k
from compat.gallery import (
    Codes,
    GallerySpace,
    ProductCodes,
    SignCoder,
    SignCodes,
    build_gallery,
    compress_gallery,
    deriving,
    load_gallery_model,
    reduce_gallery,
)
from compat.gallery.deriving import derive_gallery, training_sample
from compat.gallery.manifest import Description
from compat.gallery.reducing import fit_projection
from compat.gallery.sealing import seal, working_folder
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import load_study_data
from nas.cli import app

COUNT, WIDTH = 60, 8
FACADES = "facades:classes=8,images=4,size=32,seed=0"
RECIPE = ViewRecipe(count=2, seed=3)
STEP = {"step": "test"}


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def correlated(count: Any, width: Any, *, seed: Any = 0, rank: Any = None) -> Any:
    """Vectors whose components go together, about a mean that is not zero."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((rank or width, width)) * np.linspace(2, 0.5, rank or width)[:, None]
    return (rng.standard_normal((count, rank or width)) @ mix + 1).astype(np.float32)


def write(
    folder: Any,
    vectors: Any,
    *,
    order: Any = None,
    views: Any = True,
    metric: Any = "cosine",
    dtype: Any = "float32",
    **fields: Any,
) -> Any:
    """A gallery with labels, classes, a classifier that knows two of three, and views."""
    order = np.arange(len(vectors)) if order is None else order
    work = working_folder(folder)
    vectors = unit(vectors) if metric == "cosine" else vectors
    np.save(work / "vectors.npy", vectors[order].astype(dtype))
    rng = np.random.default_rng(1)
    if views:
        seen = np.arange(0, len(vectors), 3)
        rows = np.sort(np.argsort(order)[seen])
        jitter = rng.standard_normal((RECIPE.count, len(vectors), vectors.shape[1]))
        looks = unit(vectors + 0.1 * jitter)[:, order[rows]]
        np.save(work / "view_rows.npy", rows)
        np.save(work / "view_vectors.npy", looks.astype(dtype))
    classifier = rng.standard_normal((3, vectors.shape[1]))
    classifier[2] = np.nan
    given = {
        "ids": [f"{number:03d}.jpg" for number in order],
        "labels": order % 3,
        "classifier": classifier,
    }
    described = {
        "classes": ("a", "b", "c"),
        "metric": metric,
        "model": "timm:resnet18",
        "model_digest": "abc",
        "model_macs": 1000,
        "preprocessing": Preprocessing(resolution=32, fit="squash"),
        "data": "pictures",
        "view_recipe": RECIPE if views else None,
    }
    for name in described.keys() & fields.keys():
        described[name] = fields.pop(name)
    return seal(work, folder, **given | fields, description=Description(**described))


@pytest.fixture
def source(tmp_path: Path) -> Any:
    return write(tmp_path / "source", correlated(COUNT, WIDTH))


def assert_carried_over(derived: Any, source: Any) -> None:
    derived.verify()
    assert derived.ids.tolist() == source.ids.tolist()
    assert derived.labels.tolist() == source.labels.tolist()
    for field in ("classes", "model", "model_digest", "model_macs", "preprocessing", "data"):
        assert getattr(derived.manifest, field) == getattr(source.manifest, field), field
    assert derived.view_recipe == source.view_recipe
    assert derived.view_rows.tolist() == source.view_rows.tolist()


def test_the_projection_is_that_of_an_eigenvalue_decomposition() -> None:
    vectors = correlated(500, WIDTH)
    projection = fit_projection(vectors, 3)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, ::-1][:, :3]
    found = projection(vectors)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-4)


def test_whitening_gives_unit_covariance() -> None:
    vectors = correlated(500, WIDTH)
    white = fit_projection(vectors, 5, whiten=True)(vectors).astype(np.float64)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(5), atol=1e-4)
    values = np.linalg.eigvalsh(np.cov(fit_projection(vectors, 5)(vectors).T))
    assert values[-1] > 4 * values[0], "without whitening, variances differ"


@pytest.mark.parametrize(("count", "rank", "most"), [(200, 3, 3), (5, WIDTH, 4)])
def test_more_components_than_directions_are_refused(count: Any, rank: Any, most: Any) -> None:
    vectors = correlated(count, WIDTH, rank=rank)
    fit_projection(vectors, most, whiten=True)
    with pytest.raises(CompatError, match=f"span only {most} directions.*reduce to {most} at most"):
        fit_projection(vectors, most + 1, whiten=True)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_reduced_gallery_holds_the_components_of_everything(
    source: Any, tmp_path: Path, whiten: Any
) -> None:
    reduced = reduce_gallery(source, tmp_path / "r", dimension=4, whiten=whiten)
    assert_carried_over(reduced, source)
    projection = fit_projection(np.asarray(source.vectors), 4, whiten=whiten)
    np.testing.assert_allclose(reduced.vectors, unit(projection(source.vectors)), atol=1e-6)
    expected = unit(projection(source.view_vectors))
    np.testing.assert_allclose(reduced.view_vectors, expected, atol=1e-6)
    np.testing.assert_allclose(
        reduced.classifier[:2], unit(projection(unit(source.classifier[:2]))), atol=1e-5
    )
    assert np.isnan(reduced.classifier[2]).all()
    assert (reduced.metric, reduced.dimension, reduced.bytes_per_vector) == ("cosine", 4, 16)
    np.testing.assert_array_equal(np.load(reduced.path / "projection.npy"), projection.matrix)
    np.testing.assert_array_equal(np.load(reduced.path / "offset.npy"), projection.offset)
    (step,) = reduced.manifest.derivation
    assert (step["step"], step["dimension"], step["whiten"]) == ("reduce", 4, whiten)
    assert step["sources"] == [{"gallery": "source", "fingerprint": source.fingerprint}]


def test_half_precision_and_the_inner_product_are_kept(tmp_path: Path) -> None:
    source = write(
        tmp_path / "g", correlated(COUNT, WIDTH), metric="ip", dtype="float16", views=False
    )
    reduced = reduce_gallery(source, tmp_path / "r", dimension=4)
    assert (reduced.vectors.dtype, reduced.metric) == (np.float16, "ip")
    assert reduced.bytes_per_vector == 8
    projection = fit_projection(np.asarray(source.vectors, dtype=np.float32), 4)
    np.testing.assert_allclose(
        reduced.vectors, projection(np.asarray(source.vectors, np.float32)), rtol=1e-3, atol=1e-3
    )
    assert reduced.view_vectors is None


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


def test_signs_are_stored_as_bits(source: Any, tmp_path: Path) -> None:
    space = derive_gallery(
        source,
        tmp_path / "h",
        lambda vectors: vectors[:, :5],
        codes=SignCoder(5),
        metric="hamming",
        derivation=STEP,
    )
    assert_carried_over(space, source)
    assert isinstance(space.vectors, SignCodes)
    assert (space.metric, space.dimension, space.bytes_per_vector) == ("hamming", 5, 1)
    np.testing.assert_array_equal(space.vectors, np.where(source.vectors[:, :5] >= 0, 1, -1))
    np.testing.assert_array_equal(
        space.view_vectors, np.where(source.view_vectors[..., :5] >= 0, 1, -1)
    )
    assert space.classifier is None


def test_sources_are_matched_by_id(tmp_path: Path) -> None:
    vectors, other = correlated(COUNT, WIDTH), correlated(COUNT + 4, 5, seed=9)
    first = write(tmp_path / "a", vectors)
    order = np.random.default_rng(2).permutation(COUNT + 4)
    other_model = {"model": "timm:resnet50", "model_digest": "other", "model_macs": 500}
    second = write(tmp_path / "b", other, order=order, **other_model)

    space = derive_gallery(
        (first, second), tmp_path / "both", lambda a, b: np.hstack([a, b]), derivation=STEP
    )
    space.verify()
    assert space.ids.tolist() == first.ids.tolist()
    expected = unit(np.hstack([first.vectors, unit(other)[:COUNT]]))
    np.testing.assert_allclose(space.vectors, expected, atol=1e-6)
    names = second.ids[second.view_rows].tolist()
    place = [names.index(name) for name in first.ids[first.view_rows]]
    expected = unit(np.concatenate([first.view_vectors, second.view_vectors[:, place]], axis=2))
    np.testing.assert_allclose(space.view_vectors, expected, atol=1e-6)
    assert (space.manifest.model, space.manifest.model_macs) == (
        "timm:resnet18 + timm:resnet50",
        1500,
    )
    (step,) = space.manifest.derivation
    assert [s["gallery"] for s in step["sources"]] == ["a", "b"]
    same = derive_gallery((first, first), tmp_path / "same", np.add, derivation=STEP)
    assert same.manifest.model_macs == first.manifest.model_macs  # the network runs once for both

    with pytest.raises(CompatError, match=r"a: the gallery has no image '06\d\.jpg'"):
        derive_gallery((second, first), tmp_path / "no", np.add, derivation=STEP)


def test_other_views_are_refused(source: Any, tmp_path: Path) -> None:
    vectors = correlated(COUNT, WIDTH)
    none = write(tmp_path / "without", vectors, views=False)
    for sources in ((source, none), (none, source)):
        with pytest.raises(CompatError, match="hold views of other images, or other views"):
            derive_gallery(sources, tmp_path / "no", np.add, derivation=STEP)
    drawn = write(tmp_path / "drawn", vectors, view_recipe=RECIPE.model_copy(update={"seed": 4}))
    with pytest.raises(CompatError, match="build them with the same --views"):
        derive_gallery((source, drawn), tmp_path / "no", np.add, derivation=STEP)
    assert not list(tmp_path.glob("no*"))


def test_blocks_do_not_show(source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compress_gallery(source, tmp_path / "a", bytes_per_vector=4, bits=4)
    monkeypatch.setattr(deriving, "_ROWS", 7)
    sizes = []

    def seen(vectors: Any) -> Any:
        sizes.append(len(vectors))
        return vectors

    pieces = derive_gallery(
        source, tmp_path / "b", seen, codes=whole.vectors.coder, derivation=STEP
    )
    assert max(sizes) == 7
    assert pieces.fingerprint == whole.fingerprint
    np.testing.assert_array_equal(pieces.view_vectors.codes, whole.view_vectors.codes)


def test_a_large_gallery_is_sampled_for_learning(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(training_sample(source, seed=0)) == COUNT
    monkeypatch.setattr(deriving, "_SAMPLE", 10)
    sample = training_sample(source, seed=0)
    known = {row.tobytes() for row in np.asarray(source.vectors)}
    assert len({row.tobytes() for row in sample} & known) == 10
    np.testing.assert_array_equal(sample, training_sample(source, seed=0))
    assert (sample != training_sample(source, seed=1)).any()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda v: v * (np.arange(len(v)) != 9)[:, None], "vector row 9 is zero"),
        (lambda v: v / (np.arange(len(v)) != 9)[:, None], "vector row 9 is not finite"),
        (lambda v: v[:-1], r"gave an array of shape \(0, 8\) for 1 vectors"),
        (lambda v: v.sum(axis=1), r"gave an array of shape \(1,\) for 1 vectors"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_transform_that_spoils_vectors_is_stopped(
    source: Any, tmp_path: Path, transform: Any, message: str
) -> None:
    with pytest.raises(CompatError, match=message):
        derive_gallery(source, tmp_path / "no", transform, derivation=STEP)
    assert not list(tmp_path.glob("no*"))


def test_what_does_not_go_together_is_refused(source: Any, tmp_path: Path) -> None:
    out = tmp_path / "no"

    def derive(**options: Any) -> None:
        derive_gallery(source, out, lambda v: v, derivation=STEP, **options)

    with pytest.raises(CompatError, match="Unknown metric 'l2'"):
        derive(metric="l2")
    with pytest.raises(CompatError, match="use 'hamming' for vectors of signs, and only for them"):
        derive(metric="hamming")
    with pytest.raises(CompatError, match="use 'hamming' for vectors of signs, and only for them"):
        derive(codes=SignCoder(8))
    with pytest.raises(CompatError, match=r"array of shape \(1, 8\) .* expected \(1, 9\)"):
        derive(codes=SignCoder(9), metric="hamming")
    with pytest.raises(CompatError, match=r"classifier has shape \(2, 8\), expected \(3, 8\)"):
        derive(classifier=np.ones((2, 8)))
    with pytest.raises(CompatError, match="8 dimensions and cannot be reduced to 9"):
        reduce_gallery(source, out, dimension=9)
    with pytest.raises(
        CompatError, match=r"3 bytes hold 3 codes of 8 bits.*choose one of 1, 2, 4, 8 bytes"
    ):
        compress_gallery(source, out, bytes_per_vector=3)
    with pytest.raises(CompatError, match=r"hold 3.2 codes of 5 bits.*one of 5 bytes"):
        compress_gallery(source, out, bytes_per_vector=2, bits=5)
    with pytest.raises(CompatError, match="Codes of 9 bits cannot be stored: choose 1 to 8"):
        compress_gallery(source, out, bytes_per_vector=9, bits=9)
    with pytest.raises(CompatError, match=r"256 centroids \(8 bits\) need as many .* there are 60"):
        compress_gallery(source, out, bytes_per_vector=4)
    assert not list(tmp_path.glob("no*"))


def test_nothing_of_others_is_overwritten(source: Any, tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="source exists already"):
        reduce_gallery(source, source.path, dimension=2)
    partial = tmp_path / "r.partial"
    partial.mkdir()
    (partial / "progress.json").write_text("{}")
    with pytest.raises(CompatError, match="is an unfinished build"):
        reduce_gallery(source, tmp_path / "r", dimension=2)
    (partial / "progress.json").rename(partial / "thesis.txt")
    with pytest.raises(CompatError, match=r"holds 'thesis\.txt', which is no part"):
        reduce_gallery(source, tmp_path / "r", dimension=2)
    assert [file.name for file in partial.iterdir()] == ["thesis.txt"]


def test_what_a_kill_left_is_replaced(source: Any, tmp_path: Path) -> None:
    partial = tmp_path / "r.partial"
    partial.mkdir()
    (partial / "vectors.npy").write_bytes(b"half")
    (partial / "codes.npy").write_bytes(b"half")
    reduced = reduce_gallery(source, tmp_path / "r", dimension=2)
    reduced.verify()
    assert not partial.exists()
    assert not (reduced.path / "codes.npy").exists()


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


def test_older_galleries_open(source: Any) -> None:
    file = source.path / "gallery.json"
    manifest = json.loads(file.read_text())
    for field in ("derivation", "codes", "model_digest"):
        del manifest[field]
    file.write_text(json.dumps(manifest))
    space = GallerySpace.open(source.path)
    assert (space.manifest.derivation, space.manifest.model_digest) == ((), None)
    space.verify()


@pytest.fixture(scope="module")
def facades(network_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gallery of small façades with views of the training classes of `PARTS`."""
    from compat.data import split

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(network_folder))
        images = open_data(FACADES)
        train = split(images, val=PARTS.val, test=PARTS.test, seed=PARTS.seed).train
        model = load_gallery_model("tinynet:make,width=12")
        out = tmp_path_factory.mktemp("facades") / "g"
        return build_gallery(images, model, out, views=RECIPE, train=train)


PARTS = SplitConfig(val=0.25, test=0.25, seed=0)


@pytest.mark.parametrize("kind", ["reduce", "compress", "sign"])
def test_a_study_reads_a_derived_gallery_like_any_other(
    facades: Any, tmp_path: Path, kind: Any
) -> None:
    if kind == "reduce":
        space = reduce_gallery(facades, tmp_path / "d", dimension=5, whiten=True)
    elif kind == "compress":
        space = compress_gallery(facades, tmp_path / "d", bytes_per_vector=3, bits=4)
    else:
        space = derive_gallery(
            facades,
            tmp_path / "d",
            lambda v: v - v.mean(axis=1, keepdims=True),
            codes=SignCoder(12),
            metric="hamming",
            derivation=STEP,
        )
    data = load_study_data(FACADES, space.path, PARTS)
    training = data.training(32)
    count = len(data.splits.train)
    rows = space.rows(data.images.ids[data.splits.train])
    places = np.searchsorted(space.view_rows, rows)
    assert len(training.pictures) == 1 + RECIPE.count
    assert training.targets.vectors.shape == (count * (1 + RECIPE.count), space.dimension)
    np.testing.assert_allclose(training.targets.gallery, unit(space.vectors[rows]), atol=1e-6)
    np.testing.assert_allclose(
        training.targets.vectors[count : 2 * count], unit(space.view_vectors[0][places]), atol=1e-6
    )
    _, batch = next(training.epoch(8, seed=0, device=torch.device("cpu")))
    assert len(batch.rows) == 8
    task = data.val
    assert task.metric == space.metric
    np.testing.assert_array_equal(task.vectors, space.vectors[space.rows(task.images.ids)])
    score = task.score(task.vectors)
    assert score.paragon.map == score.self_test.map == score.cross_test.map


def test_the_commands_derive_and_describe(facades: Any, tmp_path: Path) -> None:
    run = CliRunner().invoke
    options = ["--dimension", "6", "--whiten", "--out", str(tmp_path / "r")]
    assert run(app, ["gallery", "reduce", str(facades.path), *options]).exit_code == 0
    options = ["--bytes", "1", "--bits", "4", "--opq", "--out", str(tmp_path / "c")]
    done = run(app, ["gallery", "compress", str(tmp_path / "r"), *options])
    assert done.exit_code == 0, done.output
    info = run(app, ["gallery", "info", "--verify", str(tmp_path / "c")])
    assert info.exit_code == 0, info.output
    assert "32 × 6 float32 from codes (product)" in info.output
    assert "reduce of g (dimension 6, whiten True, seed 0); compress of r (bytes 1" in info.output
    assert "Verified" in info.output
    plain = run(app, ["gallery", "info", str(facades.path)]).output
    assert "bytes per vector" in plain
    assert "48" in plain


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

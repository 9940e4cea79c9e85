"""Galleries made of galleries: smaller, compressed, combined, and as good to study as any."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import COUNT, RECIPE, STEP, WIDTH, assert_carried_over, correlated, unit, write
from typer.testing import CliRunner

from compat.data import open_data
from compat.errors import CompatError
from compat.gallery import (
    GallerySpace,
    SignCoder,
    SignCodes,
    build_gallery,
    compress_gallery,
    deriving,
    load_gallery_model,
    reduce_gallery,
)
from compat.gallery.deriving import derive_gallery, training_sample
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import load_study_data
from nas.cli import app

FACADES = "facades:classes=8,images=4,size=32,seed=0"


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

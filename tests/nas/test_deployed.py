"""Exported files at work: with their card, in their gallery, and refused elsewhere."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from compat.data import RelevanceLists, Retrieval
from compat.gallery import GallerySpace, import_gallery
from nas.deployment.card import read_card
from nas.deployment.evaluate import evaluate_file, scores_by_protocol
from nas.deployment.formats import opener_of
from nas.deployment.model_file import load_deployed
from nas.errors import StudyError
from nas.study.exports import Exported, export
from nas.study.run import Run
from searchspaces.support.errors import QuerynasError


@pytest.fixture(scope="module")
def exported(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    record = min(tiny_run.records(), key=lambda r: r.macs)
    return export(tiny_run, record, "onnx", tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Path:
    """A copy of model and card to tamper with."""
    for file in (exported.path, exported.card_path):
        shutil.copy(file, tmp_path)
    return tmp_path / exported.path.name


def other_gallery(run: Run, out: Path, *, dimension: int | None = None) -> Path:
    """The study's images with other vectors."""
    space = GallerySpace.open(run.config.gallery)
    vectors = np.random.default_rng(0).normal(size=(len(space), dimension or space.dimension))
    np.save(out.with_suffix(".npy"), vectors.astype(np.float32))
    import_gallery(out.with_suffix(".npy"), out, ids=space.ids)
    return out


def edit_card(model: Path, **changes: object) -> None:
    path = model.with_name(f"{model.name}.json")
    card = json.loads(path.read_text())
    card.update(changes)
    path.write_text(json.dumps({name: value for name, value in card.items() if value != "drop"}))


def test_it_scores_as_its_card_says(tiny_run: Run, exported: Exported) -> None:
    done = evaluate_file(exported.path, tiny_run.config.gallery, tiny_run.config.data)
    assert list(done.scores) == ["labels"]
    for test in ("self_test", "cross_test", "paragon"):
        stated = getattr(exported.card.scores, test)
        assert getattr(done.scores["labels"], test).map == pytest.approx(stated.map, abs=1e-6)


def test_another_gallery_is_refused_unless_asked_for(
    tiny_run: Run, exported: Exported, tmp_path: Path
) -> None:
    gallery = other_gallery(tiny_run, tmp_path / "other")
    data = tiny_run.config.data
    with pytest.raises(StudyError, match="--any-gallery") as caught:
        evaluate_file(exported.path, gallery, data)
    found = GallerySpace.open(gallery).fingerprint
    assert found[:12] in str(caught.value)
    assert exported.card.gallery.fingerprint[:12] in str(caught.value)
    done = evaluate_file(exported.path, gallery, data, ignore_fingerprint=True)
    assert done.fingerprint == found
    assert done.scores["labels"].cross_test.map < 0.5


def test_another_dimension_is_always_refused(
    tiny_run: Run, exported: Exported, tmp_path: Path
) -> None:
    gallery = other_gallery(tiny_run, tmp_path / "narrow", dimension=24)
    with pytest.raises(StudyError, match=r"96 dimensions.* has 24"):
        evaluate_file(exported.path, gallery, tiny_run.config.data, ignore_fingerprint=True)


def test_the_card_is_needed_and_has_to_be_the_files_own(copied: Path) -> None:
    with copied.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(StudyError, match="is of another file"):
        load_deployed(copied)
    copied.with_name(f"{copied.name}.json").unlink()
    with pytest.raises(StudyError, match=r"no file '.*model.onnx.json'; copy the card along"):
        load_deployed(copied)
    with pytest.raises(StudyError, match="There is no file"):
        load_deployed(copied.with_name("absent.onnx"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dimensions": 3}, "unknown field 'dimensions' .did you mean 'dimension'"),
        ({"macs": "drop"}, "'macs' is missing"),
        ({"macs": "many"}, "'macs' is 'many': input should be a valid integer"),
    ],
)
def test_a_card_with_a_wrong_field_names_it(
    copied: Path, changes: dict[str, object], sentence: str
) -> None:
    edit_card(copied, **changes)
    with pytest.raises(StudyError, match=sentence) as caught:
        load_deployed(copied)
    assert "model.onnx.json" in str(caught.value)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"no model")
    with pytest.raises(QuerynasError, match=f"model{suffix}"):
        opener_of(path)(path, 32)
    with pytest.raises(StudyError, match=r"must end in one of \.safetensors, \.onnx, \.pt2"):
        opener_of(tmp_path / "model.bin")


def test_a_program_is_never_opened(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one of ours: torch.export evaluates expressions that stand in the file."""
    record = min(tiny_run.records(), key=lambda r: r.macs)
    done = export(tiny_run, record, "torch-export", tmp_path / "model.pt2")

    def load(*_: object) -> None:
        raise AssertionError("the file was loaded")

    monkeypatch.setattr("torch.export.load", load)
    for path in (done.path, tmp_path / "absent.pt2"):
        with pytest.raises(StudyError, match=r"safetensors or \.onnx export of the model"):
            evaluate_file(path, tiny_run.config.gallery, tiny_run.config.data)
    assert read_card(done.path).format == "torch-export"


def test_a_card_of_a_later_version_is_refused_and_an_old_one_is_read(copied: Path) -> None:
    edit_card(copied, version=3)
    with pytest.raises(StudyError, match=r"version 3, .* reads up to 2: update querynas"):
        load_deployed(copied)
    edit_card(copied, version="drop")
    assert load_deployed(copied).card.version == 0


def test_a_card_that_lies_about_its_model_is_found_out(copied: Path) -> None:
    card = read_card(copied)
    side = card.input.resolution
    edit_card(copied, input={**card.input.model_dump(), "resolution": side + 1})
    pixels = np.zeros((1, side + 1, side + 1, 3), np.uint8)
    with pytest.raises(StudyError, match=r"model.onnx"):
        load_deployed(copied).embed(pixels)
    edit_card(copied, input=card.input.model_dump(), dimension=card.dimension + 1)
    with pytest.raises(StudyError, match=r"expected finite vectors of 97 dimensions"):
        load_deployed(copied).embed(np.zeros((1, side, side, 3), np.uint8))


def test_images_of_another_size_are_refused(exported: Exported) -> None:
    deployed = load_deployed(exported.path)
    side = exported.card.input.resolution
    with pytest.raises(StudyError, match=f"takes uint8 images .N, {side}, {side}, 3."):
        deployed.embed(np.zeros((1, side + 1, side + 1, 3), dtype=np.uint8))


def test_ground_truth_lists_are_scored_by_protocol(tiny_run: Run) -> None:
    """One query, four gallery pictures ranked 0, 1, 2, 3 by hand-made vectors."""
    task = tiny_run.data.test
    images = task.images.take(np.arange(5))
    angles = np.deg2rad([0, 5, 10, 20, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    easy = RelevanceLists(positives=(np.array([1]),), junk=(np.array([0]),))
    hard = RelevanceLists(positives=(np.array([0, 3]),), junk=(np.array([], dtype=np.int64),))
    listed = dataclasses.replace(
        images,
        split=np.array(["query"] + ["gallery"] * 4),
        lists={"easy": easy, "hard": hard},
    )
    part = dataclasses.replace(
        task,
        images=listed,
        retrieval=Retrieval(np.array([0]), np.array([1, 2, 3, 4])),
        vectors=vectors,
    )
    scores = scores_by_protocol(part, vectors)
    assert list(scores) == ["easy", "hard"]
    # Junk leaves the ranking, so the easy positive comes first; of the hard ones ranks are 1 and 4:
    # trapezoid precision (1 + 1) / 2 and (1/3 + 2/4) / 2.
    assert scores["easy"].cross_test.map == pytest.approx(1.0)
    assert scores["hard"].cross_test.map == pytest.approx((1 + (1 / 3 + 2 / 4) / 2) / 2)

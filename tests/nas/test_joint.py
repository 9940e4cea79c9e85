"""Fused and hash galleries in a study, and both sides trained together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compat.errors import CompatError
from compat.gallery import GallerySpace
from compat.gallery.hashing import hash_gallery
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData, load_study_data
from compat.training.config import TrainingConfig
from nas.cli import app
from nas.config.study import StudyConfig
from nas.deployment.evaluate import evaluate_file
from nas.errors import StudyError
from nas.recipes.joint import Reference, fuse_jointly, hash_jointly
from nas.reporting.pictures import examples
from nas.study.exports import export
from nas.study.trials import search
from pruning import load_model

DATA = "facades:classes=16,images=8,size=32,seed=0"
SHORT = TrainingConfig(epochs=2, batch=16)


@pytest.fixture(scope="session")
def second_gallery(gallery_of: Callable[[str], Path]) -> Path:
    """The same façades and views through another untrained network."""
    return gallery_of("test_resnet")


@pytest.fixture
def data(gallery: Path) -> StudyData:
    return load_study_data(DATA, gallery, SplitConfig())


def reference(**fields: Any) -> Reference:
    given = {"backbone": "test_resnet", "resolution": 32, "pretrained": False}
    return Reference(**(given | {"training": SHORT} | fields))


def cosine_to_gallery(data: StudyData, model: torch.nn.Module, space: GallerySpace) -> float:
    """Mean cosine of query embeddings and the new gallery's vectors of training images."""
    with torch.inference_mode():
        images = torch.tensor(data.training(32).pictures[0]).permute(0, 3, 1, 2) / 255
        embeddings = model.eval()(images).numpy()
    rows = space.rows(data.images.ids[data.splits.train])
    vectors = np.asarray(space.vectors[rows])
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float((embeddings * vectors).sum(axis=1).mean())


def test_a_hash_head_is_trained_with_a_query_model(data: StudyData, tmp_path: Path) -> None:
    query = tmp_path / "query.safetensors"
    longer = TrainingConfig(epochs=8, batch=16, ema=0.5)
    space = hash_jointly(data, tmp_path / "h", reference(training=longer, out=query), bits=16)
    space.verify()
    assert (space.metric, space.dimension, len(space)) == ("hamming", 16, len(data.gallery))
    assert space.view_vectors is not None
    assert space.manifest.derivation[-1]["jointly"] == "test_resnet"
    model = load_model(query)
    assert model.dimension == 16
    assert cosine_to_gallery(data, model, space) > 0.2


def test_a_mixer_is_trained_with_a_query_model(
    data: StudyData, second_gallery: Path, tmp_path: Path
) -> None:
    others = [GallerySpace.open(second_gallery)]
    space = fuse_jointly(data, others, tmp_path / "f", reference(), dimension=24)
    space.verify()
    assert (space.metric, space.dimension, len(space)) == ("cosine", 24, len(data.gallery))
    assert space.classifier is not None
    trained = np.unique(data.images.labels[data.splits.train])
    names = [data.images.classes[label] for label in trained]
    known = [space.classes[row] for row in np.flatnonzero(np.isfinite(space.classifier[:, 0]))]
    assert known == names


def test_joint_training_is_seeded(data: StudyData, tmp_path: Path) -> None:
    first, second = (hash_jointly(data, tmp_path / n, reference(), bits=16) for n in ("a", "b"))
    assert first.fingerprint == second.fingerprint


def tiny(study: dict[str, Any], gallery: Path, loss: str) -> StudyConfig:
    one = {"cuts": study["spaces"]["cuts"]}
    changes = {"gallery": str(gallery), "loss": loss, "spaces": one, "trials": 2, "start": 1}
    return StudyConfig.model_validate({**study, **changes, "finish": {"models": 0}})


def test_a_study_runs_on_a_hash_gallery(
    tiny_study: dict[str, Any], gallery: Path, tmp_path: Path
) -> None:
    hashed = hash_gallery(GallerySpace.open(gallery), tmp_path / "hashed", bits=16)
    run = search(tiny(tiny_study, hashed.path, "csch"), tmp_path / "run")
    record = run.front()[0]
    model = run.model(record)
    task = run.data.test
    assert task.metric == "hamming"
    embeddings = task.embed(model)
    score = task.score(embeddings)
    signs = task.score(np.where(embeddings < 0, -1.0, 1.0).astype(np.float32))
    assert score.cross_test.map == pytest.approx(signs.cross_test.map)  # only signs count
    (shown, *_) = examples(task, {"query": embeddings}, count=2)
    assert shown.results["query"]
    exported = export(run, record, "safetensors", tmp_path / "query.safetensors")
    evaluation = evaluate_file(exported.path, hashed.path, DATA)
    assert evaluation.card.gallery.metric == "hamming"
    assert evaluation.scores["labels"].cross_test.map == pytest.approx(score.cross_test.map)


def test_the_commands(
    tiny_study: dict[str, Any], gallery: Path, second_gallery: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke
    fused, hashed, jointly = tmp_path / "fused", tmp_path / "hashed", tmp_path / "jointly"
    common = ["--data", DATA]
    done = run(
        app, ["gallery", "fuse", str(gallery), str(second_gallery), *common, "--out", str(fused)]
    )
    assert done.exit_code == 0, done.output
    done = run(app, ["gallery", "hash", str(fused), *common, "--bits", "16", "--out", str(hashed)])
    assert done.exit_code == 0, done.output
    steps = [step["step"] for step in GallerySpace.open(hashed).manifest.derivation]
    assert steps == ["fuse", "hash"]
    how = ["--jointly", "timm:test_resnet", "--no-pretrained"]
    how += ["--epochs", "1", "--resolution", "32", "--query", str(tmp_path / "query.safetensors")]
    done = run(
        app,
        ["gallery", "hash", str(gallery), *common, "--bits", "16", "--out", str(jointly), *how],
    )
    assert done.exit_code == 0, done.output
    assert GallerySpace.open(jointly).metric == "hamming"
    assert load_model(tmp_path / "query.safetensors").dimension == 16

    study = search(tiny(tiny_study, fused, "aff"), tmp_path / "run")
    assert study.data.test.metric == "cosine"
    assert 0 < study.front()[0].cross_test <= 1


def test_errors(data: StudyData, gallery: Path, tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="nothing to fuse in 1 gallery"):
        fuse_jointly(data, [], tmp_path / "f", reference())
    with pytest.raises(StudyError, match=r"must end in \.safetensors"):
        reference(out=Path("query.bin"))
    for command in (["fuse", str(gallery)], ["hash", str(gallery), "--bits", "8"]):
        wrong = ["--data", DATA, "--out", str(tmp_path / "x"), "--query", "q.safetensors"]
        done = CliRunner().invoke(app, ["gallery", *command, *wrong])
        assert "give --jointly too" in str(done.exception)
    with pytest.raises(CompatError, match="exists already"):
        hash_jointly(data, gallery, reference(), bits=16)

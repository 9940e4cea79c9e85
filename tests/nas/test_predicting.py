"""Candidates scored before training: on rendered façades, and on real photographs."""

import copy
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from compat.data import open_data
from compat.gallery import build_gallery, load_gallery_model
from compat.predictors import list_predictors
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData, load_study_data
from examples.gallery_models import cifar_resnet20
from nas.candidates.predicting import predictions, predictor_inputs
from searchspaces import (
    QueryModel,
    count_macs,
    count_parameters,
    create_space,
)
from searchspaces.projection import Projection


@pytest.fixture(scope="module")
def facades(tiny_study: dict[str, Any], gallery: Path) -> StudyData:
    return load_study_data(tiny_study["data"], gallery, SplitConfig())


@pytest.fixture
def model() -> QueryModel:
    torch.manual_seed(0)
    space = create_space("mbconv", resolutions=[32])
    return space.build(space.sample(random.Random(0)), 96)


def test_a_candidate_gets_a_score_from_every_predictor(
    facades: StudyData, model: QueryModel
) -> None:
    before = copy.deepcopy(model.state_dict())
    scores = predictions(model, facades)
    assert list(scores) == list_predictors()
    assert scores["macs"] == count_macs(model, 32)
    assert scores["parameters"] == count_parameters(model)
    assert 0 < scores["ridge"] <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert predictions(model, facades, ["ridge"]) == {"ridge": scores["ridge"]}


def test_inputs_are_those_of_the_study(facades: StudyData, model: QueryModel) -> None:
    inputs = predictor_inputs(model, facades, images=30, seed=3)
    train = facades.images.ids[facades.splits.train]
    vectors = np.asarray(facades.gallery.vectors[facades.gallery.rows(train)], np.float32)
    assert inputs.train_vectors.shape == (30, 96)
    assert {row.tobytes() for row in inputs.train_vectors} <= {row.tobytes() for row in vectors}
    np.testing.assert_array_equal(inputs.vectors, facades.val.vectors)
    assert len(inputs.truth) == len(inputs.queries)


def test_batchnorm_is_estimated_on_training_images(facades: StudyData, model: QueryModel) -> None:
    """Statistics that are far off do not matter, because they are replaced."""
    expected = predictor_inputs(model, facades).features
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.fill_(1e3)
    assert norms
    np.testing.assert_allclose(predictor_inputs(model, facades).features, expected, rtol=1e-4)


def test_trained_features_are_told_from_random_ones_on_photographs(
    real_data: Path, tmp_path: Path
) -> None:
    """A released network that sees smaller pictures than the gallery did, and an untrained one."""
    rows = [
        {"path": str(file), "label": folder.name}
        for folder in sorted((real_data / "cifar10" / "test").iterdir())
        for file in sorted(folder.iterdir())[:60]
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "photos.csv", index=False)
    spec = str(tmp_path / "photos.csv")
    weights = real_data / "weights" / "resnet20-12fca82f.th"
    gallery_model = f"examples.gallery_models:cifar_resnet20,weights={weights}"
    build_gallery(open_data(spec), load_gallery_model(gallery_model), tmp_path / "gallery")
    data = load_study_data(spec, tmp_path / "gallery", SplitConfig(val=0.3, test=0.2))

    def candidate() -> QueryModel:
        backbone = cifar_resnet20(str(weights)).network
        return QueryModel(backbone, Projection(64, 64), resolution=24)

    torch.manual_seed(0)
    trained, blank = candidate(), candidate()
    for module in blank.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.reset_parameters()
    names = ["ridge", "procrustes", "overlap", "relations"]
    better, worse = (predictions(model, data, names) for model in (trained, blank))
    assert all(better[name] > worse[name] for name in names)
    paragon = data.val.score(data.val.vectors).paragon.map
    assert worse["ridge"] < 0.7 * paragon < better["ridge"]


def test_the_script_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("docs/compatibility.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    script = next(snippet for snippet in snippets if "study.ask()" in snippet)
    assert "range(20)" in script
    monkeypatch.chdir(tmp_path)
    exec(script.replace("range(20)", "range(2)"), {})
    assert "MMACs" in capsys.readouterr().out

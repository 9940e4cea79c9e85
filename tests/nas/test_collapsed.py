"""Query models that map every image to zero: scored as they deserve, wherever they turn up."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas import PruneConfig, prune
from nas.config.study import RealignTraining
from nas.study.run import Run
from pruning import save_model
from searchspaces import QueryModel, timm_query_model


def dead(dimension: int) -> QueryModel:
    model = timm_query_model("test_resnet", dimension, resolution=32, pretrained=False)
    torch.nn.init.zeros_(model.projection.linear.weight)
    return model


def test_a_search_scores_it_like_one_direction_for_all(tiny_run: Run) -> None:
    task = tiny_run.data.val
    model = dead(tiny_run.data.gallery.dimension)
    found = task.score(task.embed(model))
    constant = task.score(np.ones((len(task.images), model.dimension), np.float32))
    assert found.cross_test.map == pytest.approx(constant.cross_test.map)
    assert found.self_test.map == pytest.approx(constant.self_test.map)
    assert tiny_run.aligner.cross_test(model) == pytest.approx(constant.cross_test.map)


@pytest.mark.usefixtures("no_onnx")
def test_a_pruning_goes_on(tiny_run: Run, tmp_path: Path) -> None:
    file = tmp_path / "dead.safetensors"
    save_model(dead(tiny_run.data.gallery.dimension), file)
    short = {"epochs": 1, "batch": 32}
    config = PruneConfig(
        model=str(file),
        gallery=tiny_run.config.gallery,
        data=tiny_run.config.data,
        target="0.5x",
        schedule="one_shot",
        criterion="magnitude",
        align=None,
        realign=RealignTraining(**short),
        finish=None,
        rounds=1,
        calibration_images=32,
    )
    done = prune(config, tmp_path / "run")
    assert done.steps[1].macs < done.steps[0].macs

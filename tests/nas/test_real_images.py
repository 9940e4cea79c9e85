"""The whole path on real photographs, with a gallery network that somebody else trained."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from compat.data import ViewRecipe, open_data, split
from compat.gallery import build_gallery, load_gallery_model
from nas.config.study import StudyConfig
from nas.deployment.evaluate import evaluate_file
from nas.study.exports import best_under, export
from nas.study.trials import search

CLASSES, IMAGES = 14, 10


@pytest.fixture
def photos(real_data: Path, tmp_path: Path) -> Path:
    """A manifest of photographs of groceries."""
    rows = [
        {"path": str(file), "label": folder.name}
        for folder in sorted((real_data / "grocery").iterdir())[:CLASSES]
        for file in sorted(folder.glob("*.jpg"))[:IMAGES]
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "photos.csv", index=False)
    return tmp_path / "photos.csv"


def test_from_photographs_to_an_exported_query_model(
    photos: Path, real_data: Path, tmp_path: Path, tiny_study: dict[str, Any]
) -> None:
    images = open_data(str(photos))
    assert len(images) == CLASSES * IMAGES
    weights = real_data / "weights" / "squeezenet1_1_imagenet_tvnames.pth"
    model = load_gallery_model(f"examples.gallery_models:squeezenet,weights={weights}")
    space = build_gallery(
        images,
        model,
        tmp_path / "gallery",
        views=ViewRecipe(count=1),
        train=split(images).train,
        dtype="float16",
    )
    assert (space.dimension, len(space)) == (512, CLASSES * IMAGES)

    config = StudyConfig.model_validate(
        {
            **tiny_study,
            "data": str(photos),
            "gallery": str(tmp_path / "gallery"),
            "loss": {"regression": 1.0, "csd": {"weight": 0.1, "k": 16}},
            "trials": 3,
        }
    )
    run = search(config, tmp_path / "run")
    record = best_under(run, 10**9)

    exported = export(run, record, "onnx", tmp_path / "query.onnx")
    (score,) = evaluate_file(exported.path, tmp_path / "gallery", str(photos)).scores.values()
    assert score.cross_test.map == pytest.approx(exported.card.scores.cross_test.map, abs=1e-6)
    # 9 of 39 images are right by chance; frozen ImageNet features know groceries far better, and
    # what one epoch makes of a small network does not catch up with them
    assert score.paragon.map > 0.5
    assert score.paragon.map > score.cross_test.map

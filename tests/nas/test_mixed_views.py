"""Whether mixed views are trained on is decided on the validation part, once for a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

from compat.adaptation import Pairs, fit_map
from compat.data import ViewRecipe, open_data, split
from compat.gallery import build_gallery, load_gallery_model
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData, load_study_data
from nas import StudyConfig
from nas.alignment.mapping import Encoded, encode
from nas.recipes.nest import Nest
from nas.recipes.nest_settings import NestConfig
from nas.study.run import Run
from nas.study.trials import search

MadeOnce = Callable[[str, Callable[[Path], object]], Path]

DATA = "facades:classes=16,images=8,size=32,seed=0"
SPLIT = {"by": "image"}
MODEL = "timm:test_resnet,pretrained=false,resolution=32"


@pytest.fixture(scope="session")
def mixed_gallery(made_once: MadeOnce) -> Path:
    """Façades with a plain and a mixed view of the training images."""

    def make(out: Path) -> None:
        images = open_data(DATA)
        model = load_gallery_model(MODEL)
        recipe = ViewRecipe(count=2, mixed=1)
        build_gallery(images, model, out, views=recipe, train=split(images, by="image").train)

    return made_once("mixed-gallery", make)


@pytest.fixture
def data(mixed_gallery: Path) -> StudyData:
    return load_study_data(DATA, mixed_gallery, SplitConfig(by="image"), "ranking")


def test_a_map_is_fitted_to_them_where_it_becomes_better(data: StudyData) -> None:
    found = encode(load_gallery_model(MODEL).embed, 32, data, seed=0)
    rows = len(data.splits.train)
    assert found.mixed.tolist() == 2 * rows * [False] + rows * [True]
    true = found.pairs.vectors
    noise = np.random.default_rng(0).standard_normal(true.shape)

    def spoiled(where: np.ndarray, wrong: np.ndarray) -> Encoded:
        vectors = np.where(where[:, None], wrong, true).astype(np.float32)
        return replace(found, pairs=Pairs(found.pairs.features, vectors))

    wrong = spoiled(found.mixed, -5 * true)
    helpful = replace(spoiled(found.mixed, noise), mixed=~found.mixed)
    for encoded, gains in ((wrong, False), (helpful, True)):
        assert encoded.gains_by_mixed is gains
        used = slice(None) if gains else ~encoded.mixed
        pairs = Pairs(encoded.pairs.features[used], encoded.pairs.vectors[used])
        (fitted,) = encoded.fit(["ridge"], seed=0)
        alone = fit_map("ridge", pairs, encoded.cross_test, seed=0)
        assert fitted.found.map == pytest.approx(alone.found.map, abs=1e-9)
    assert not replace(found, mixed=np.zeros_like(found.mixed)).gains_by_mixed


@pytest.mark.parametrize("gains", [True, False])
def test_a_run_decides_once(
    mixed_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gains: bool
) -> None:
    asked = []

    def decided(*arguments: Any, **options: Any) -> bool:
        asked.append(arguments)
        return gains

    monkeypatch.setattr("nas.study.run.gains_by_mixed", decided)
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    elastic = {
        "route": "supernet",
        "space": "timm-elastic",
        "training": {"epochs": 0},
        "options": {
            "backbone": "test_efficientnet",
            "checkpoint": str(weights),
            "resolutions": [32],
        },
    }
    content = {"data": DATA, "gallery": str(mixed_gallery), "trials": 1, "start": 1, "split": SPLIT}
    config = StudyConfig.model_validate(content | {"spaces": {"elastic": elastic}})
    run = search(config, tmp_path / "run")
    assert len(asked) == 1
    again = Run.open(tmp_path / "run")
    assert len(again.aligner.data.pictures) == (3 if gains else 2)
    assert len(run.aligner.data.pictures) == (3 if gains else 2)
    assert len(asked) == 1


def test_networks_from_random_weights_do_without(mixed_gallery: Path, tmp_path: Path) -> None:
    """They have no map yet that would tell."""
    zoo = {
        "route": "standalone",
        "space": "timm",
        "training": {"epochs": 1, "batch": 32},
        "options": {"backbones": ["test_resnet"], "resolutions": [24], "pretrained": False},
    }
    content = {"data": DATA, "gallery": str(mixed_gallery), "trials": 1, "start": 1, "split": SPLIT}
    config = StudyConfig.model_validate(content | {"spaces": {"zoo": zoo}})
    assert len(search(config, tmp_path / "run").aligner.data.pictures) == 2


@pytest.mark.parametrize("gains", [True, False])
def test_a_nest_asks_its_network(
    mixed_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gains: bool
) -> None:
    monkeypatch.setattr("nas.recipes.nest.gains_by_mixed", lambda *_, **__: gains)
    config = NestConfig.model_validate(
        {"model": "test_resnet", "gallery": str(mixed_gallery), "data": DATA}
        | {"resolution": 32, "pretrained": False, "capacities": [0.5, 1.0], "split": SPLIT}
    )
    nest = Nest.create(tmp_path, config)
    monkeypatch.setattr("nas.recipes.nest.load_model", lambda path: None)

    class Model:
        resolution = 32

    assert len(nest._aligner_of(Model()).data.pictures) == (3 if gains else 2)  # type: ignore[arg-type]

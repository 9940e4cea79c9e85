"""A whole small study, run once and looked at by many tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compat.data import ViewRecipe, open_data, split
from compat.gallery import build_gallery, load_gallery_model
from nas.config.study import StudyConfig
from nas.study.run import Run
from nas.study.trials import search

DATA = "facades:classes=16,images=8,size=32,seed=0"
TRAINING = {"epochs": 1, "batch": 32, "validate_every": 1}


MadeOnce = Callable[[str, Callable[[Path], object]], Path]
GalleryOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def gallery_of(made_once: MadeOnce) -> GalleryOf:
    """Embed small façades and one view of them by an untrained timm network, once."""

    def gallery(network: str) -> Path:
        def make(out: Path) -> None:
            images = open_data(DATA)
            torch.manual_seed(0)
            model = load_gallery_model(f"timm:{network},pretrained=false,resolution=32")
            build_gallery(images, model, out, views=ViewRecipe(count=1), train=split(images).train)

        return made_once(f"gallery-{network}", make)

    return gallery


@pytest.fixture(scope="session")
def gallery(gallery_of: GalleryOf) -> Path:
    """The gallery space of most studies."""
    return gallery_of("test_resnet")


@pytest.fixture(scope="session")
def flat(made_once: MadeOnce) -> Path:
    """A folder of façades, and a gallery of them with a view, in one folder each."""

    def make(out: Path) -> None:
        (out / "photos").mkdir(parents=True)
        drawn = open_data("facades:classes=16,images=8,size=32,seed=0")
        for index, name in enumerate(drawn.ids.tolist()):
            drawn.source.load(index).save(out / "photos" / f"{name.replace('/', '-')}.png")
        images = open_data(out / "photos")
        model = load_gallery_model("timm:test_resnet,pretrained=false,resolution=32")
        train = split(images).train
        build_gallery(images, model, out / "gallery", views=ViewRecipe(count=1), train=train)

    return made_once("flat", make)


@pytest.fixture(scope="session")
def tiny_study(gallery: Path) -> dict[str, Any]:
    """The content of a small study file with both routes."""
    return {
        "data": DATA,
        "gallery": str(gallery),
        "trials": 6,
        "start": 4,
        "spaces": {
            "slices": {
                "route": "supernet",
                "space": "mbconv",
                "calibration_images": 32,
                "random_subnetworks": 1,
                "training": TRAINING,
                "options": {
                    "resolutions": [24, 32],
                    "stem_widths": [8],
                    "stem_strides": [2],
                    "head_widths": [32, 64],
                    "stages": [
                        {"widths": [8, 16], "depths": [1, 2], "expansions": [2], "kernels": [3]},
                        {"widths": [16, 24], "depths": [1], "expansions": [2, 3], "kernels": [3]},
                    ],
                },
            },
            "cuts": {
                "route": "pruned",
                "backbone": "test_resnet",
                "pretrained": False,
                "calibration_images": 32,
                "training": TRAINING,
                "realign": TRAINING,
                "options": {"resolutions": [32], "criteria": ["magnitude"]},
            },
        },
        "finish": {"models": 1, "training": TRAINING},
    }


@pytest.fixture(scope="session")
def tiny_config(tiny_study: dict[str, Any]) -> StudyConfig:
    """The same, validated."""
    return StudyConfig.model_validate(tiny_study)


@pytest.fixture(scope="session")
def tiny_run(tiny_config: StudyConfig, made_once: MadeOnce) -> Run:
    """The finished study; read it, do not change it."""
    return Run.open(made_once("tiny-run", lambda path: search(tiny_config, path)))

"""`querynas search BACKBONE`: a study without a study file."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from compat.data import open_data, split
from compat.gallery import GallerySpace
from nas import StudyConfig, StudyError, backbone_study, load_config
from nas.study.run import Run
from searchspaces import count_macs, timm_query_model

Cli = Callable[..., tuple[int, str, str]]

DATA = "facades:classes=16,images=8,size=32,seed=0"  # of the gallery in conftest.py


def study(gallery: Path, backbone: str = "test_efficientnet", **options: Any) -> StudyConfig:
    return backbone_study(backbone, data=DATA, gallery=gallery, **options)


def test_a_third_of_the_gallery_model_is_halved_four_times(gallery: Path) -> None:
    cost = GallerySpace.open(gallery).manifest.model_macs
    config = study(gallery)
    assert config.budget.max_macs == cost // 3
    assert [cost // 3 // tier for tier in config.tiers] == [1, 2, 4, 8, 16]
    assert study(gallery, max_macs="5M").tiers == (
        5_000_000,
        2_500_000,
        1_250_000,
        625_000,
        312_500,
    )


def test_the_whole_backbone_just_fits_at_one_resolution_of_each_tier(gallery: Path) -> None:
    def sides(most: str) -> list[int]:
        space = study(gallery, max_macs=most).spaces["test_efficientnet"]
        return list(space.model_dump()["options"]["resolutions"])

    whole = {
        side: count_macs(
            timm_query_model("test_efficientnet", 8, resolution=side, pretrained=False), side
        )
        for side in range(32, 161, 16)
    }
    fitting = [min(whole, key=lambda side: abs(whole[side] - tier)) for tier in (10e6, 5e6, 2.5e6)]
    assert set(fitting) <= set(sides("10M"))
    assert sides("9G") == [160]  # none above its own


def test_small_sets_are_shown_more_often(gallery: Path) -> None:
    train = len(split(open_data(DATA)).train)
    assert study(gallery).finish[-1].training.epochs == 20 < 10_000 / train
    assert [rung.training.epochs for rung in study(gallery, epochs=3).finish] == [1, 3]
    assert [rung.training.epochs for rung in study(gallery, epochs=1).finish] == [1, 1]


def test_a_backbone_is_searched_and_the_search_goes_on(
    gallery: Path, tmp_path: Path, cli: Cli
) -> None:
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    words = ["search", "test_efficientnet", "--data", DATA, "--gallery", gallery, "--epochs", 1]
    words += ["--checkpoint", tmp_path / "w.safetensors", "--max-macs", "3M", "--trials", 2]
    code, printed, complaint = cli(*words, "--out", tmp_path / "run")
    assert code == 0, complaint
    assert "Within 3M MACs: trial" in printed
    run = Run.open(tmp_path / "run")
    before = run.records()
    assert max(r.macs for r in before) <= 3_000_000
    written = tmp_path / "run" / "study.yaml"
    code, _, complaint = cli("search", written, "--out", tmp_path / "run", "--trials", 3)
    assert code == 0, complaint
    after = run.records()
    assert all(record in after for record in before)
    assert len(after) > len(before)
    assert load_config(written).spaces.keys() == {"test_efficientnet"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["resnet18"], "'resnet18' is no study file: .* --data is missing"),
        (["resnet18", "--data", DATA], "--gallery is missing"),
        (["study.yaml", "--data", DATA], "--data is for a study without a file; write it into"),
        (["resnet1t", "--data", DATA, "--gallery", "G"], "timm has no model 'resnet1t'"),
        (["resnet18", "--data", DATA, "--gallery", "G", "--max-macs", "x"], "'x' is no budget"),
        (
            ["resnet18", "--data", DATA, "--gallery", "G", "--unlabelled", "{data: x, galery: y}"],
            "galery",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    words: list[str], sentence: str, gallery: Path, tmp_path: Path, cli: Cli
) -> None:
    given = [str(gallery) if word == "G" else word for word in words]
    code, _, complaint = cli("search", *given, "--out", tmp_path / "run")
    assert code == 2
    assert complaint.count("\n") == 1
    assert re.search(sentence, complaint), complaint


def test_a_gallery_of_unknown_cost_asks_for_a_budget(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = GallerySpace.open(gallery)
    unknown = replace(space, manifest=space.manifest.model_copy(update={"model_macs": None}))
    monkeypatch.setattr(GallerySpace, "open", lambda path: unknown)
    with pytest.raises(StudyError, match=r"does not say what its model costs.*--max-macs"):
        study(gallery)

"""Pretrained backbones stand in a study as they are, before anything is trained."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from nas.config.study import StudyConfig
from nas.study import baselines
from nas.study.baselines import adapt_backbones, better_without_training
from nas.study.front import Record
from nas.study.run import Run
from nas.study.trials import search
from searchspaces import Architecture, TimmSpace
from searchspaces.support.seeding import seeded

SHORT = {"epochs": 1, "batch": 32, "validate_every": 1}


@pytest.fixture(scope="module")
def study(tiny_study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study of cuts of a backbone with weights from a file, and of the backbone trained alone."""
    weights = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    with seeded(0):
        save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    given = {"checkpoint": str(weights), "pretrained": False}
    return {
        **tiny_study,
        "trials": 2,
        "start": 2,
        "spaces": {
            "cuts": {
                "route": "pruned",
                "backbone": "test_resnet",
                "calibration_images": 32,
                "training": SHORT,
                "realign": SHORT,
                "options": {"resolutions": [24, 32]},
                **given,
            },
            "whole": {
                "route": "standalone",
                "space": "timm",
                "training": SHORT,
                "options": {"backbones": ["test_resnet"], "resolutions": [24], **given},
            },
        },
        "finish": {"models": 1, "training": SHORT},
    }


def adapted(run: Run) -> list[Record]:
    return [record for record in run.records() if record.adapted]


def test_a_study_scores_its_backbones_without_training_once(
    study: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = StudyConfig.model_validate(study)
    with caplog.at_level(logging.INFO, "querynas"):
        run = search(config, tmp_path / "run")
    assert "px without training" in caplog.text
    found = adapted(run)
    assert [(r.route, r.resolution) for r in found] == [("cuts", 24), ("cuts", 32), ("whole", 24)]
    assert all(v == 0 for k, v in found[0].architecture.params.items() if k.startswith("ratio_"))
    assert found[0].macs == found[2].macs  # the same network
    assert found[0].cross_test == pytest.approx(found[2].cross_test)
    model = run.model(found[1])
    assert run.data.val.cross_test(run.data.val.embed_queries(model)).map == pytest.approx(
        found[1].cross_test
    )
    others = [r for r in run.records() if not r.adapted]
    assert sum(r.parent is None for r in others) == 2  # the trials that were asked for
    assert {r.parent for r in others if r.parent is not None} <= {r.trial for r in others}
    again = search(config, tmp_path / "run")
    assert len(adapted(again)) == len(found)


def test_backbones_are_scored_before_anything_is_trained(
    study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StudyConfig.model_validate(study)

    def stopped(run: Run) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "prepare", stopped)
        with pytest.raises(KeyboardInterrupt):
            search(config, tmp_path / "run")
    begun = Run.open(tmp_path / "run")
    first = {r.trial: r.cross_test for r in adapted(begun)}
    assert len(first) == 3
    assert not begun.begun
    run = search(config, tmp_path / "run")
    assert {r.trial: r.cross_test for r in adapted(run)} == first
    assert sum(r.parent is None for r in run.records() if not r.adapted) == 2


@pytest.mark.parametrize(
    "changes", [{"projection": "random"}, {"budget": {"max_macs": 1000}}], ids=["random", "budget"]
)
def test_backbones_outside_a_study_are_not_scored(
    study: dict[str, Any],
    changes: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored: list[Any] = []
    monkeypatch.setattr(Run, "records", lambda self: [])
    monkeypatch.setattr(baselines, "_adapted", lambda run, proposal: scored.append(proposal))
    adapt_backbones(Run(tmp_path, StudyConfig.model_validate({**study, **changes})))
    assert scored == []


def test_only_an_adapted_backbone_without_more_macs_counts_against_a_candidate() -> None:
    candidate = Record(
        trial=0,
        route="cuts",
        fidelity="re-aligned",
        architecture=Architecture("pruned", {}),
        resolution=32,
        costs={"macs": 100, "parameters": 10},
        cross_test=0.3,
        interval=(0.2, 0.4),
        self_test=None,
        paragon=0.5,
    )

    def other(trial: int, macs: int, cross_test: float, fidelity: str = "adapted") -> Record:
        costs = {"macs": macs, "parameters": 10}
        return replace(
            candidate, trial=trial, costs=costs, cross_test=cross_test, fidelity=fidelity
        )

    records = [
        candidate,
        other(1, 101, 0.5),
        other(2, 50, 0.5, "finished"),
        other(3, 50, 0.3),
    ]
    assert better_without_training(candidate, records) is None
    better = [*records, other(4, 100, 0.31), other(5, 80, 0.4)]
    found = better_without_training(candidate, better)
    assert found is not None
    assert found.trial == 5


def test_the_timm_space_lists_backbones_as_they_are() -> None:
    space = TimmSpace(("test_resnet", "test_vit"), resolutions=(32, 160), pretrained=False)
    found = space.plain()
    assert [each.params["backbone"] for each in found] == ["test_resnet"] * 2 + ["test_vit"] * 2
    for each in found:
        model = space.build(each, 8)
        with torch.no_grad():
            assert model.eval()(torch.zeros(1, 3, model.resolution, model.resolution)).shape == (
                1,
                8,
            )
    assert TimmSpace(("test_resnet",), (32,), heads=("norm",), pretrained=False).plain() == []


def test_a_supernet_of_a_backbone_begins_as_the_backbone(
    study: dict[str, Any], tmp_path: Path
) -> None:
    given = study["spaces"]["cuts"]
    options = {
        "backbone": "test_resnet",
        "checkpoint": given["checkpoint"],
        "resolutions": [24, 32],
    }
    spaces = {
        "slices": {"route": "supernet", "space": "timm-elastic", "options": options},
        "cuts": given,
        "others": {"route": "supernet", "space": "mbconv"},
    }
    run = Run(tmp_path, StudyConfig.model_validate({**study, "spaces": spaces}))
    slices, cuts, others = run.routes.values()
    assert others.backbones() == []
    for slice, cut in zip(slices.backbones(), cuts.backbones(), strict=True):
        one, other = slices.backbone(slice).eval(), cuts.backbone(cut).eval()
        assert one.resolution == other.resolution
        images = torch.rand(2, 3, one.resolution, one.resolution)
        expected = other.pooled(images)  # of its last level; slices have the others before it
        torch.testing.assert_close(one.pooled(images)[:, -expected.shape[1] :], expected)

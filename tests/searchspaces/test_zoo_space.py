"""timm's backbones as a space: what is proposed can be built, and costs what was said."""

import json
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import timm
import torch
from tiny_spaces import assert_made_again

import searchspaces.zoo
from searchspaces import (
    Architecture,
    SearchSpace,
    SearchSpaceError,
    count_macs,
    create_space,
)
from searchspaces.query_model import GeneralizedMean
from searchspaces.zoo import TimmSpace

# The transformer takes two of the three resolutions and has nothing to pool by GeM; the hybrid
# takes the same resolutions and both poolings; the convnet takes all.
MIXED = TimmSpace(
    ["test_vit", "test_coatnet", "test_resnet"], resolutions=[32, 45, 64], pretrained=False
)


def everything(space: Any) -> Any:
    """All architectures that neighbours lead to."""
    found = [space.sample(random.Random(0))]
    for architecture in found:
        found += [other for other in space.neighbours(architecture) if other not in found]
    return found


def test_a_backbone_has_the_choices_that_it_takes() -> None:
    choices = {name: each.choices for name, each in MIXED.distributions().items()}
    assert choices == {
        "backbone": ("test_vit", "test_coatnet", "test_resnet"),
        "resolution": (32, 45, 64),
        "pooling": ("avg", "gem"),
        "head": ("plain", "norm"),
        "test_vit.resolution": (32, 64),
        "test_vit.pooling": ("avg",),
        "test_coatnet.resolution": (32, 64),
    }
    assert isinstance(MIXED, SearchSpace)


def test_every_architecture_can_be_built_and_costs_what_was_said() -> None:
    architectures = everything(MIXED)
    assert len(architectures) == MIXED.size() == 2 * 1 * 2 + 2 * 2 * 2 + 3 * 2 * 2
    for architecture in architectures:
        model = MIXED.build(architecture, 8)
        assert MIXED.macs(architecture, 8) == count_macs(model, model.resolution)
        values = {name.rpartition(".")[2]: value for name, value in architecture.params.items()}
        assert model.resolution == values["resolution"]
        assert isinstance(model.projection.norm, torch.nn.BatchNorm1d) == (values["head"] == "norm")
        gem = any(isinstance(module, GeneralizedMean) for module in model.modules())
        assert gem == (values["pooling"] == "gem")


def test_samples_are_spread_over_architectures_and_not_over_backbones() -> None:
    rng = random.Random(0)
    drawn = [MIXED.sample(rng) for _ in range(600)]
    counts = [drawn.count(architecture) for architecture in set(drawn)]
    assert len(counts) == MIXED.size() == 24
    assert 10 < min(counts) <= max(counts) < 45


def test_neighbours_change_one_value_or_the_backbone() -> None:
    architecture = Architecture(
        "timm", {"backbone": "test_resnet", "resolution": 45, "pooling": "gem", "head": "norm"}
    )
    own = [
        each for each in MIXED.neighbours(architecture) if each.params["backbone"] == "test_resnet"
    ]
    assert len(own) == 2 + 1 + 1
    others = [dict(each.params) for each in MIXED.neighbours(architecture) if each not in own]
    assert others == [
        {
            "backbone": "test_vit",
            "test_vit.resolution": 32,
            "test_vit.pooling": "avg",
            "head": "norm",
        },
        {
            "backbone": "test_coatnet",
            "test_coatnet.resolution": 32,
            "pooling": "gem",
            "head": "norm",
        },
    ]


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.TPESampler(
            seed=0,
            multivariate=True,
            group=True,
            n_startup_trials=8,
            warn_independent_sampling=False,
        ),
        optuna.samplers.NSGAIISampler(seed=0, population_size=8),
        optuna.samplers.RandomSampler(seed=0),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_no_sampler_proposes_what_cannot_be_built(sampler: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    valid = set(everything(MIXED))
    proposed = []

    def objective(trial: Any) -> Any:
        architecture = MIXED.suggest(trial)
        proposed.append(architecture)
        return MIXED.macs(architecture, 8), float(len(architecture.params))

    study.optimize(objective, n_trials=40)
    assert set(proposed) <= valid
    assert len({architecture.params["backbone"] for architecture in proposed}) > 1
    for trial, architecture in zip(study.trials, proposed, strict=True):
        assert trial.params == architecture.params


def test_without_resolutions_every_backbone_has_its_own() -> None:
    options = {"poolings": ["avg"], "heads": ["plain"], "pretrained": False}
    same = TimmSpace(["test_vit", "test_resnet"], **options)
    assert same.distributions()["resolution"].choices == (160,)
    mixed = TimmSpace(["test_resnet", "lcnet_035"], **options).distributions()
    assert "resolution" not in mixed
    assert mixed["test_resnet.resolution"].choices == (160,)
    assert mixed["lcnet_035.resolution"].choices == (224,)


def test_patterns_stand_for_the_models_of_timm() -> None:
    options = {"poolings": ["avg"], "heads": ["plain"]}
    plain = TimmSpace(["lcnet_0*", "resnet18", "lcnet_035"], pretrained=False, **options)
    assert plain.backbones == (*timm.list_models("lcnet_0*"), "resnet18")
    assert "lcnet_035" in plain.backbones
    published = TimmSpace(["lcnet_0*"], **options).backbones
    assert published == ("lcnet_050", "lcnet_075")
    tagged = TimmSpace(["resnet18.a*_in1k"], **options).backbones
    assert set(tagged) == {"resnet18.a1_in1k", "resnet18.a2_in1k", "resnet18.a3_in1k"}


def test_a_backbone_is_counted_once_on_a_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path / "cache"))
    searchspaces.zoo._measured.cache_clear()
    space = TimmSpace(["test_resnet"], resolutions=[32], pretrained=False)
    architecture = space.sample(random.Random(0))
    macs = space.macs(architecture, 8)
    (avg, gem) = sorted((tmp_path / "cache").rglob("*.json"))
    assert json.loads(avg.read_text())["features"] == json.loads(gem.read_text())["features"] == 96

    searchspaces.zoo._measured.cache_clear()
    monkeypatch.setattr(searchspaces.zoo, "count_macs", None)
    again = TimmSpace(["test_resnet"], resolutions=[32], pretrained=False)
    assert again.macs(architecture, 8) == macs
    searchspaces.zoo._measured.cache_clear()


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path / "file"))
    searchspaces.zoo._measured.cache_clear()
    space = TimmSpace(["test_resnet"], resolutions=[32], pretrained=False)
    with pytest.raises(SearchSpaceError, match=r"cannot be written .*set QUERYNAS_CACHE"):
        space.size()
    searchspaces.zoo._measured.cache_clear()


def test_counting_leaves_the_users_random_numbers_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUERYNAS_CACHE", str(tmp_path))
    searchspaces.zoo._measured.cache_clear()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert TimmSpace(["test_resnet"], resolutions=[32], pretrained=False).size() == 4
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)
    searchspaces.zoo._measured.cache_clear()


def test_a_model_is_made_again_from_its_origin_and_from_its_file(tmp_path: Path) -> None:
    params = {"backbone": "test_resnet", "resolution": 45, "pooling": "gem", "head": "norm"}
    model = MIXED.build(Architecture("timm", params), 8).eval()
    assert_made_again(model, tmp_path)


def test_each_backbone_can_have_a_checkpoint(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet")
    torch.save(source.state_dict(), tmp_path / "test_resnet.pth")
    space = TimmSpace(
        ["test_resnet", "test_vit"], resolutions=[32], checkpoint=str(tmp_path / "{backbone}.pth")
    )
    for architecture in everything(space):
        if architecture.params["backbone"] == "test_resnet":
            weights = space.build(architecture, 8).backbone.network.state_dict()
            torch.testing.assert_close(weights["conv1.0.weight"], source.conv1[0].weight.data)
        else:
            with pytest.raises(SearchSpaceError, match=r"no file .*test_vit.pth'; check the path"):
                space.build(architecture, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbones": "resnet18"}, "'backbones' is 'resnet18': give a list"),
        ({"backbones": []}, "'backbones' is empty"),
        ({"backbones": ["resnet1t"]}, "no model 'resnet1t': did you mean 'resnet"),
        (
            {"backbones": ["mobilnetv3_smal*"]},
            r"'mobilnetv3_smal\*', .* did you mean 'mobilenetv3_",
        ),
        ({"backbones": ["botnet50ts_256"]}, "no published weights of 'botnet50ts_256'"),
        ({"backbones": ["zzz*"]}, r"timm.list_models\(\) lists what there is"),
        ({"backbones": "resnet*"}, "is 'resnet.*': give a list"),
        ({"resolutions": 32}, "'resolutions' is 32: give a list"),
        ({"resolutions": [32, 4]}, r"'resolutions\[2\]' is 4: .* equal to 8"),
        ({"resolutions": [32, 32]}, "'resolutions': 32 is listed twice"),
        ({"resolutions": [True]}, "'resolutions.*True"),
        ({"poolings": ["max"]}, r"'poolings\[1\]' is 'max': .*'avg' or 'gem'"),
        ({"heads": []}, "'heads' is empty"),
        ({"pretrained": "maybe"}, "'pretrained' is 'maybe'"),
        ({"checkpoint": 3}, "'checkpoint' is 3: .*string"),
        (
            {"backbones": ["test_vit", "test_resnet"], "checkpoint": "w.pth"},
            r"'w.pth' for 2 backbones: write \{backbone\}",
        ),
    ],
)
def test_wrong_options_are_named(options: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        create_space("timm", **{"backbones": ["test_resnet"], **options})


def test_a_backbone_that_takes_none_of_the_choices_is_named() -> None:
    space = TimmSpace(["test_resnet", "test_vit"], resolutions=[45], pretrained=False)
    with pytest.raises(SearchSpaceError, match=r"'test_vit', which takes none .* 45 x 45"):
        space.sample(random.Random(0))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "lacks the parameter 'backbone'"),
        ({"backbone": "resnet18"}, "'backbone' of the space 'timm' is 'resnet18'"),
        ({"backbone": "test_vit", "head": "norm", "resolution": 45}, "no parameter 'resolution'"),
        ({"backbone": "test_vit", "head": "norm"}, "lacks the parameter 'test_vit.resolution'"),
    ],
)
def test_architectures_outside_are_refused(params: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        MIXED.macs(Architecture("timm", params), 8)

"""A cut backbone as a search space."""

import copy
import random
from typing import Any

import optuna
import pytest
import torch

from pruning import NEEDS_LOSS, PrunedSpace, PruningError, stages
from searchspaces import Architecture, SearchSpace, SearchSpaceError, count_macs, create_space

SPACE = PrunedSpace(
    "resnet10t", resolutions=(32, 48), criteria=("magnitude", "random"), pretrained=False
)


def chosen(**changes: Any) -> Any:
    params = {"resolution": 32, "criterion": "magnitude"}
    params |= {name: 0.0 for name in SPACE.distributions() if name.startswith("ratio_")}
    return Architecture("pruned", params | changes)


def test_it_is_a_search_space_with_one_ratio_per_stage(uncut: Any) -> None:
    space = create_space("pruned", backbone="resnet10t", resolutions=[32], pretrained=False)
    assert isinstance(space, SearchSpace)
    ratios = [f"ratio_{stage}" for stage in stages(uncut("resnet10t"))]
    assert list(space.distributions()) == ["resolution", "criterion", *ratios]


def test_built_models_cost_what_the_space_says() -> None:
    architecture = SPACE.sample(random.Random(4))
    model = SPACE.build(architecture, 16)
    assert count_macs(model, model.resolution) == SPACE.macs(architecture, 16)
    assert model.resolution == architecture.params["resolution"]
    assert model.dimension == 16


def test_cutting_more_costs_less() -> None:
    costs = [SPACE.macs(chosen(ratio_layer3=ratio), 16) for ratio in (0.0, 0.25, 0.5, 0.875)]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == 4


def test_derived_models_inherit_their_weights(uncut: Any) -> None:
    aligned = uncut("resnet10t")
    architecture = chosen(ratio_layer4=0.5)
    model = SPACE.derive(aligned, architecture)
    name = "backbone.network.layer1.0.conv1.weight"
    assert torch.equal(model.get_parameter(name), aligned.get_parameter(name))
    assert count_macs(model, 32) == SPACE.macs(architecture, 16)


def test_derived_models_can_have_another_resolution(uncut: Any) -> None:
    architecture = chosen(resolution=48, ratio_layer4=0.5)
    model = SPACE.derive(uncut("resnet10t"), architecture)
    assert model.resolution == model.origin["timm"]["resolution"] == 48
    assert uncut("resnet10t").resolution == 32
    assert count_macs(model, 48) == SPACE.macs(architecture, 16)


def test_a_transformer_keeps_the_resolution_it_was_aligned_at(uncut: Any) -> None:
    space = PrunedSpace("vit_tiny_patch16_224", resolutions=(32, 48))
    architecture = Architecture(
        "pruned", {**space.sample(random.Random(0)).params, "resolution": 48}
    )
    with pytest.raises(PruningError, match="aligned at 32 pixels and cannot change to 48"):
        space.derive(uncut("vit_tiny_patch16_224"), architecture)


def test_models_of_other_backbones_are_refused(uncut: Any) -> None:
    with pytest.raises(PruningError, match=r"cuts 'resnet10t', but .* model of 'lcnet_050'"):
        SPACE.derive(uncut("lcnet_050"), chosen())


def test_a_study_and_a_fixed_trial_speak_to_the_space() -> None:
    architecture = SPACE.sample(random.Random(2))
    assert SPACE.suggest(optuna.trial.FixedTrial(dict(architecture.params))) == architecture
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: SPACE.macs(SPACE.suggest(trial), 16), n_trials=3)
    assert all(trial.distributions == SPACE.distributions() for trial in study.trials)


def test_neighbours_differ_in_one_parameter() -> None:
    architecture = SPACE.sample(random.Random(3))
    for other in SPACE.neighbours(architecture):
        assert (
            sum(other.params[name] != architecture.params[name] for name in architecture.params)
            == 1
        )


def test_without_resolutions_the_backbone_takes_its_own() -> None:
    assert PrunedSpace(backbone="resnet18").resolutions == (224,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criteria": []}, "'criteria'"),
        ({"max_ratio": 1.0}, "step 0.125 and max_ratio 1.0"),
        ({"step": 0.0}, "step 0.0"),
        ({"criteria": ["magnitud"]}, "'magnitud' is no criterion .*: did you mean 'magnitude'"),
        ({"schedules": ["growin"]}, "'growin' is no schedule .*: did you mean 'growing'"),
        ({"rounds": 0}, "rounds 0: give at least 1"),
    ],
)
def test_wrong_options_are_named(options: Any, words: str) -> None:
    with pytest.raises(PruningError, match=words):
        PrunedSpace(**{"backbone": "resnet10t", "resolutions": (32,), **options})


def test_a_criterion_with_which_ratios_do_not_decide_is_refused() -> None:
    words = "'lamp' is no .* because with it the weights .* among magnitude"
    with pytest.raises(PruningError, match=words):
        PrunedSpace("resnet10t", (32,), criteria=("magnitude", "lamp"))


@pytest.mark.parametrize("criterion", NEEDS_LOSS)
def test_channels_are_judged_by_a_loss(uncut: Any, criterion: str) -> None:
    """An embedding that reads a single channel keeps it, whichever it is."""
    space = PrunedSpace("resnet10t", (32,), criteria=(criterion,), pretrained=False)
    architecture = chosen(criterion=criterion, ratio_layer4=0.875)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def loss(model: Any) -> torch.Tensor:
        return model.projection(model.backbone(images)).square().mean()

    with torch.no_grad():
        alive = uncut("resnet10t").backbone(images).mean(dim=0).topk(3).indices
    for channel in alive.tolist():
        aligned = copy.deepcopy(uncut("resnet10t"))
        with torch.no_grad():
            read = aligned.projection.linear.weight[:, channel].clone()
            aligned.projection.linear.weight.zero_()[:, channel] = read
        model = space.derive(aligned, architecture, batch_loss=loss)
        left = model.projection.linear.weight
        assert left.shape == (16, 64)
        assert left.any(dim=0).sum() == 1
        assert count_macs(model, 32) == space.macs(architecture, 16)


@pytest.mark.parametrize("criterion", NEEDS_LOSS)
def test_without_a_loss_nothing_is_cut_by_one(uncut: Any, criterion: str) -> None:
    space = PrunedSpace("resnet10t", (32,), criteria=(criterion,), pretrained=False)
    with pytest.raises(PruningError, match=f"'{criterion}' needs batch_loss"):
        space.build(chosen(criterion=criterion, ratio_layer4=0.5), 16)
    assert space.build(chosen(criterion=criterion), 16).dimension == 16  # nothing is cut


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(SearchSpaceError, match="timm has no model 'resnet1t'"):
        PrunedSpace("resnet1t", (32,)).distributions()


def test_an_architecture_off_the_grid_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="ratio_layer1"):
        SPACE.macs(chosen(ratio_layer1=0.3), 16)

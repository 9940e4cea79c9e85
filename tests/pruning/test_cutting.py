"""Cut networks are narrower by about as much as was asked, and still query models."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from pruning import CRITERIA, PruningError, cut, stages
from searchspaces import MBConvSpace, MBConvSupernet, QueryModel, count_parameters
from searchspaces.projection import Projection

FAMILIES = [
    "resnet10t",
    "mobilenetv3_small_050",
    "lcnet_050",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "mobilevit_xxs",
    "regnety_002",
]


def everywhere(model: Any, ratio: Any) -> Any:
    return dict.fromkeys(stages(model), ratio)


@pytest.mark.parametrize("name", FAMILIES)
def test_half_of_the_channels_leave_about_a_quarter_of_the_work(
    uncut: Any, name: str, share: Any
) -> None:
    model = uncut(name)
    before = copy.deepcopy(model.state_dict())
    pruned = cut(model, everywhere(model, 0.5))
    assert 0.2 < share(pruned, model) < 0.4
    vectors = pruned(torch.rand(2, 3, model.resolution, model.resolution))
    vectors.sum().backward()
    assert vectors.shape == (2, 16)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "lcnet_050"])
def test_every_stage_can_be_cut_alone_and_more_is_not_dearer(
    uncut: Any, name: str, share: Any
) -> None:
    model = uncut(name)
    for stage in stages(model):
        light, heavy = (cut(model, {stage: ratio}) for ratio in (0.25, 0.75))
        assert share(heavy, model) <= share(light, model) < 1


def test_a_stage_of_a_transformer_loses_head_and_hidden_widths_but_no_embedding_width(
    uncut: Any,
) -> None:
    model = uncut("vit_tiny_patch16_224")
    blocks = cut(model, {"blocks.1-2": 0.5}).backbone.network.blocks
    widths = [(each.attn.head_dim, each.mlp.fc1.out_features) for each in blocks]
    assert widths == [(32, 384) if index in (1, 2) else (64, 768) for index in range(12)]
    assert {each.attn.proj.out_features for each in blocks} == {192}


def test_other_stages_keep_their_channels(uncut: Any) -> None:
    model = uncut("resnet10t")
    pruned = cut(model, {"layer3": 0.5})
    for stage, layers in stages(model).items():
        for name in layers:
            width = pruned.get_submodule(name).out_channels
            full = model.get_submodule(name).out_channels
            assert width == (full // 2 if stage == "layer3" else full)


def test_the_least_important_channels_go() -> None:
    first, second = nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(16, 16, 3, bias=False)
    with torch.no_grad():
        first.weight[::2] *= 0.01
        second.weight[:, ::2] *= 0.01
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone = nn.Sequential(
        nn.Sequential(first, nn.ReLU()), nn.Sequential(second, nn.ReLU()), pool
    )
    model = QueryModel(backbone, Projection(16, 4), resolution=8)
    kept = first.weight[1::2].clone()
    pruned = cut(model, everywhere(model, 0.5))
    assert torch.equal(pruned.backbone[0][0].weight, kept)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_cuts(uncut: Any, criterion: Any, share: Any) -> None:
    model = uncut("resnet10t")
    images = torch.rand(2, 3, 32, 32)
    options = {"criterion": criterion, "batch_loss": lambda each: each(images).sum()}
    pruned = cut(model, everywhere(model, 0.5), **options)
    again = cut(model, everywhere(model, 0.5), **options)
    assert share(pruned, model) < 0.5
    assert all(parameter.grad is None for parameter in pruned.parameters())
    for one, other in zip(pruned.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_criteria_choose_differently(uncut: Any) -> None:
    model = uncut("resnet10t")
    stems = {
        cut(model, everywhere(model, 0.5), criterion=criterion)
        .backbone.network.conv1[0]
        .weight.sum()
        for criterion in ("magnitude", "bn_scale", "random")
    }
    assert len(stems) == 3


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.875])
def test_kept_channels_are_multiples_of_eight_and_never_none(uncut: Any, ratio: Any) -> None:
    model = uncut("resnet10t")
    pruned = cut(model, everywhere(model, ratio))
    for module in pruned.backbone.modules():
        if isinstance(module, nn.Conv2d):
            assert module.out_channels % 8 == 0
            assert module.out_channels >= 8


def test_no_ratio_is_a_copy(uncut: Any) -> None:
    model = uncut("resnet10t")
    same = cut(model, everywhere(model, 0.0))
    assert same is not model
    assert count_parameters(same) == count_parameters(model)


def test_a_subnetwork_of_the_supernet_can_be_cut(share: Any) -> None:
    space = MBConvSpace(resolutions=(16,))
    model = MBConvSupernet(space, 16).extract(space.largest())
    assert 0.2 < share(cut(model, everywhere(model, 0.5)), model) < 0.4


def test_frozen_and_training_models_can_be_cut(uncut: Any, share: Any) -> None:
    model = copy.deepcopy(uncut("lcnet_050")).train().requires_grad_(False)
    pruned = cut(model, everywhere(model, 0.5))
    assert pruned.training
    assert share(pruned, model) < 0.5


@pytest.mark.parametrize(
    ("ratios", "options", "words"),
    [
        ({"layer5": 0.5}, {}, "'resnet10t' has no stage 'layer5': did you mean 'layer"),
        ({"layer1": 1.0}, {}, "ratio of stage 'layer1' is 1.0"),
        ({"layer1": -0.1}, {}, "ratio of stage 'layer1' is -0.1"),
        ({"layer1": 0.5}, {"criterion": "magnitud"}, "did you mean 'magnitude'"),
        ({"layer1": 0.5}, {"criterion": "taylor"}, "'taylor' needs batch_loss"),
        ({"layer1": 0.5}, {"criterion": "fisher"}, "'fisher' needs batch_loss"),
        ({"layer1": 0.5}, {"round_to": 1024}, "nothing was cut out of 'resnet10t'"),
    ],
)
def test_wrong_requests_are_explained(uncut: Any, ratios: Any, options: Any, words: str) -> None:
    with pytest.raises(PruningError, match=words):
        cut(uncut("resnet10t"), ratios, **options)


def test_scales_of_absent_batchnorms_are_no_criterion(uncut: Any) -> None:
    model = uncut("convnext_atto")
    with pytest.raises(PruningError, match="no BatchNorm scales"):
        cut(model, everywhere(model, 0.5), criterion="bn_scale")

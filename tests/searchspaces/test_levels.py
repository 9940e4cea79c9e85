"""Query models whose features are the pooled maps of several levels of a timm backbone."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from pruning import SUPPORTED, load_model, save_model
from searchspaces import (
    SearchSpaceError,
    backbone_levels,
    count_macs,
    first_levels,
    rebuild,
    timm_query_model,
)

TIMM = ["test_resnet", "test_convnext", "test_efficientnet", "mobilenetv2_050", "regnety_002"]


def images(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TIMM)
def test_features_are_the_means_of_the_maps_that_timm_gives(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval()
    listed = [each["module"] for each in network.feature_info]
    levels = [level for level in backbone_levels(name) if level in listed][:-1]
    model = timm_query_model(name, 8, resolution=64, levels=levels, pretrained=False).eval()
    model.backbone.network.load_state_dict(network.state_dict(), strict=False)

    found = model.backbone(images(64))

    maps = network.forward_intermediates(images(64), intermediates_only=True)
    expected = [maps[listed.index(level)].mean((2, 3)) for level in levels]
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


def test_maps_of_tokens_and_of_channels_last_are_pooled_over_their_positions() -> None:
    for name, side in (("levit_128s", 224), ("swin_s3_tiny_224", 224)):
        level = backbone_levels(name)[:1]
        model = timm_query_model(name, 8, resolution=side, levels=level, pretrained=False).eval()
        network = timm.create_model(name, num_classes=0).eval()
        model.backbone.network.load_state_dict(network.state_dict(), strict=False)
        (maps,) = network.forward_intermediates(
            images(side), indices=[0], output_fmt="NCHW", intermediates_only=True
        )
        model.backbone.network.load_state_dict(network.state_dict(), strict=False)
        torch.testing.assert_close(model.backbone(images(side)), maps.mean((2, 3)))


@pytest.mark.parametrize("name", [*SUPPORTED.values(), "test_efficientnet"])
def test_every_family_that_can_be_cut_has_levels(name: str) -> None:
    assert len(backbone_levels(name)) >= 3


def test_what_comes_after_the_last_level_is_gone() -> None:
    levels = backbone_levels("mobilenetv2_050")
    assert levels == tuple(f"blocks.{stage}" for stage in range(1, 7))
    ends = [
        timm_query_model("mobilenetv2_050", 8, resolution=32, levels=levels[:n], pretrained=False)
        for n in (2, 4, 6)
    ]
    costs = [count_macs(model, 32) for model in ends]
    assert costs == sorted(set(costs))
    blocks = {name for name, _ in ends[0].backbone.network.blocks.named_children()}
    assert blocks == {"0", "1", "2"}


def test_a_saved_model_has_its_levels_when_it_is_loaded(tmp_path: Path) -> None:
    levels = backbone_levels("test_efficientnet")[:3]
    model = timm_query_model(
        "test_efficientnet", 8, resolution=48, levels=levels, pretrained=False
    ).eval()
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors").eval()
    assert torch.equal(loaded(images(48)), model(images(48)))
    assert model.origin is not None
    assert rebuild(model.origin).origin == model.origin


def test_levels_that_are_not_there_are_refused() -> None:
    with pytest.raises(SearchSpaceError, match=r"no level 'blocks\.9': choose among blocks"):
        timm_query_model(
            "test_efficientnet", 8, resolution=32, levels=["blocks.9"], pretrained=False
        )
    with pytest.raises(SearchSpaceError, match="pooling is 'gem'"):
        timm_query_model(
            "test_resnet", 8, resolution=32, levels=["layer1"], pooling="gem", pretrained=False
        )
    with pytest.raises(SearchSpaceError, match="'test_vit' cannot be had"):
        backbone_levels("test_vit")


def test_first_levels_are_as_many_as_are_asked_for() -> None:
    assert first_levels("test_resnet", None) == ()
    assert first_levels("test_resnet", 2) == ("layer1", "layer2")
    for count in (0, 5):
        with pytest.raises(SearchSpaceError, match=f"has 4 levels, not {count}: give 1 to 4"):
            first_levels("test_resnet", count)

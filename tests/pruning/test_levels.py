"""Networks that end at a level of a timm backbone are cut like whole ones."""

from pathlib import Path

import pytest
import torch

from pruning import PrunedSpace, cut, load_model, save_model, stages
from searchspaces import (
    Architecture,
    SearchSpaceError,
    backbone_levels,
    count_macs,
    first_levels,
    timm_query_model,
)

SIDE = 32


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_a_network_that_ends_at_a_level_is_cut_and_saved(
    name: str, criterion: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    levels = first_levels(name, 3)
    model = timm_query_model(name, 16, resolution=SIDE, levels=levels, pretrained=False).eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    ratios = dict.fromkeys(stages(model), 0.5)
    smaller = cut(
        model,
        ratios,
        criterion=criterion,
        batch_loss=lambda network: [network(images).sum()],
        round_to=4,
    ).eval()

    # the projection reads what is left of every level, one after another
    maps = smaller.backbone.network(images)
    assert [each.shape[1] * 2 for each in maps] == [
        each.shape[1] for each in model.backbone.network(images)
    ]
    assert smaller.projection.channels == sum(each.shape[1] for each in maps)
    macs = count_macs(smaller, SIDE)
    assert macs < 0.4 * count_macs(model, SIDE)

    save_model(smaller, tmp_path / "cut.safetensors")
    loaded = load_model(tmp_path / "cut.safetensors").eval()
    assert count_macs(loaded, SIDE) == macs
    assert torch.equal(loaded(images), smaller(images))
    assert loaded.origin is not None
    assert loaded.origin["timm"]["levels"] == list(levels)


def test_a_pruned_space_cuts_what_is_left_before_a_level() -> None:
    options = {"backbone": "test_resnet", "resolutions": (SIDE,), "pretrained": False}
    whole, short = PrunedSpace(**options), PrunedSpace(**options, levels=2)
    assert short.level_names == backbone_levels("test_resnet")[:2]
    architecture = Architecture(
        "pruned",
        {
            name: {"resolution": SIDE, "criterion": "magnitude"}.get(name, 0.5)
            for name in short.distributions()
        },
    )
    model = short.build(architecture, 8)
    assert short.macs(architecture, 8) == count_macs(model, SIDE)
    assert model.origin is not None
    assert model.origin["timm"]["levels"] == ["layer1", "layer2"]
    assert {"ratio_layer3", "ratio_layer4"} & set(whole.distributions())
    assert not {"ratio_layer3", "ratio_layer4"} & set(short.distributions())


def test_a_pruned_space_of_more_levels_than_there_are_is_refused() -> None:
    space = PrunedSpace(backbone="test_resnet", resolutions=(SIDE,), levels=9)
    with pytest.raises(SearchSpaceError, match="'test_resnet' has 4 levels, not 9"):
        space.distributions()

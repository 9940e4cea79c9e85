"""Any timm backbone as a supernet: its slices, their costs, their files."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import pruning.elastic.space
from pruning import PruningError, kept_channels, load_model, save_model
from pruning.elastic import TimmElasticSpace, TimmElasticSupernet
from pruning.elastic.blocks import optional_blocks
from pruning.recipe import HEADER
from searchspaces import (
    Architecture,
    InheritingSpace,
    SearchSpaceError,
    count_macs,
    create_space,
    timm_query_model,
)
from searchspaces.leaving_out import leave_out
from searchspaces.testing import check_space

DIMENSION = 12
RESOLUTIONS = {"test_vit": (32,), "mobilenetv2_050": (32,)}
FAMILIES = [
    "test_resnet",
    "test_convnext",
    "test_vit",
    "test_efficientnet",
    "mobilenetv2_050",
]


@cache
def space(backbone: str) -> TimmElasticSpace:
    made = create_space(
        "timm-elastic",
        backbone=backbone,
        resolutions=RESOLUTIONS.get(backbone, (32, 48)),
        pretrained=False,
    )
    assert isinstance(made, TimmElasticSpace)
    return made


def lively(backbone: str) -> TimmElasticSupernet:
    """A supernet none of whose norms is the identity."""
    torch.manual_seed(0)
    supernet = space(backbone).supernet(DIMENSION)
    assert isinstance(supernet, TimmElasticSupernet)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    return supernet.eval()


def images(side: int = 32, count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def narrowest(backbone: str, **params: Any) -> Architecture:
    smallest = space(backbone).smallest()
    return Architecture(smallest.space, {**smallest.params, **params})


@pytest.mark.parametrize("backbone", FAMILIES)
def test_it_keeps_to_what_every_elastic_space_does(backbone: str) -> None:
    check_space(space(backbone), networks=2 if backbone.startswith("test") else 1)


@pytest.mark.parametrize("backbone", FAMILIES[:5])
@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_macs_follow_a_formula(backbone: str, seed: int) -> None:
    chosen = space(backbone)
    architecture = chosen.sample(random.Random(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(pruning.elastic.space, "count_macs")
        stated = chosen.macs(architecture, DIMENSION)
    model = chosen.build(architecture, DIMENSION)
    assert stated == count_macs(model, model.resolution)


def test_slices_of_families_without_a_formula_are_counted(monkeypatch: Any) -> None:
    chosen = create_space(
        "timm-elastic", backbone="test_resnet", resolutions=[32], pretrained=False
    )
    monkeypatch.setattr(pruning.elastic.costs.Costs, "_formulas", None)
    architecture = chosen.sample(random.Random(0))
    assert chosen.macs(architecture, DIMENSION) == space("test_resnet").macs(
        architecture, DIMENSION
    )


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_settling_moves_channels_and_no_output(backbone: str) -> None:
    supernet = lively(backbone)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    expected = supernet(images())
    supernet.settle(lambda model: model(images())[:, 0].sum())
    torch.testing.assert_close(supernet(images()), expected, atol=1e-5, rtol=0)
    moved = [k for k, v in supernet.state_dict().items() if not torch.equal(v, before[k])]
    assert "order" in moved
    assert len(moved) > 5


def test_the_first_channels_matter_most() -> None:
    supernet = lively("test_resnet")
    name = "backbone.network.layer1.0.conv1"
    strength = torch.randperm(len(supernet.get_parameter(f"{name}.weight"))) + 1.0
    with torch.no_grad():
        supernet.get_parameter(f"{name}.weight").copy_(strength.view(-1, 1, 1, 1))
        supernet.get_parameter("backbone.network.layer1.0.conv2.weight").fill_(1e-3)
    supernet.settle()  # by magnitude, as there is no loss
    found = supernet.get_parameter(f"{name}.weight")[:, 0, 0, 0]
    assert found.tolist() == sorted(strength.tolist(), reverse=True)


def test_a_slice_says_which_channels_of_the_backbone_it_has() -> None:
    supernet = lively("test_resnet")
    names = ("backbone.network.layer2.0.conv2", "backbone.network.layer3.0.conv1")
    before = {name: supernet.get_parameter(f"{name}.weight").clone() for name in names}
    supernet.settle(lambda model: model(images())[:, 0].sum())
    supernet.settle(lambda model: model(images())[:, 1].sum())
    model = supernet.extract(narrowest("test_resnet", levels=3))
    for name in names:
        sides = kept_channels(model)[name]
        original = before[name][sides["out"]][:, sides["in"]]
        assert torch.equal(model.get_parameter(f"{name}.weight"), original)
        assert sides["out"] != sorted(sides["out"])


def test_what_is_stored_slices_the_same() -> None:
    supernet = lively("test_resnet")
    supernet.settle(lambda model: model(images())[:, 0].sum())
    again = space("test_resnet").supernet(DIMENSION)
    again.load_state_dict(supernet.state_dict())
    one, other = (each.extract(narrowest("test_resnet")) for each in (supernet, again))
    assert kept_channels(one) == kept_channels(other)
    assert torch.equal(one(images()), other(images()))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_slices_without_some_blocks_are_saved_and_loaded(backbone: str, tmp_path: Path) -> None:
    supernet = lively(backbone)
    supernet.settle(lambda model: model(images())[:, 0].sum())
    model = supernet.extract(narrowest(backbone))
    assert model.origin is not None
    assert model.origin["timm"]["left_out"]
    save_model(model, tmp_path / "slice.safetensors")
    again = load_model(tmp_path / "slice.safetensors")
    assert torch.equal(again(images()), model(images()))
    assert kept_channels(again) == kept_channels(model)
    assert again.origin == model.origin


def test_the_last_blocks_of_a_stage_go_first() -> None:
    chosen = space("test_convnext")
    blocks = chosen.form.blocks["stages.2"]
    largest = chosen.largest()
    params = {**largest.params, "depth_stages.2": len(blocks) - 1}
    model = chosen.build(Architecture(largest.space, params), DIMENSION)
    assert model.origin is not None
    assert model.origin["timm"]["left_out"] == [blocks[-1]]


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("test_resnet", ["layer1.0"]),
        ("test_vit", [f"blocks.{index}" for index in range(6)]),
        ("test_byobnet", []),
        ("resnet18", ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("mobilenetv2_050", [f"blocks.{b}" for b in ("1.1", "2.1", "2.2", "3.1", "3.2", "3.3")]),
    ],
)
def test_blocks_with_an_identity_as_their_shortcut_are_found(
    backbone: str, expected: list[str]
) -> None:
    network: Any = timm.create_model(backbone, num_classes=0).eval()
    assert optional_blocks(network, images(160 if backbone == "test_vit" else 32))[:6] == expected


def test_shared_weights_learn_where_a_slice_has_them() -> None:
    supernet = lively("test_resnet").train()
    statistics = supernet.state_dict()["backbone.network.bn1.running_mean"].clone()
    supernet.activate(narrowest("test_resnet"))
    supernet(images())[:, 0].sum().backward()
    weight = supernet.get_parameter("backbone.network.layer2.0.conv2.weight")
    assert weight.grad is not None
    rows = weight.grad.flatten(1).abs().sum(1) > 0
    assert rows.nonzero().flatten().tolist() == list(range(len(weight) // 4))
    found = supernet.state_dict()["backbone.network.bn1.running_mean"]
    assert torch.equal(found, statistics)  # a slice in training has statistics of its own


def test_inherited_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network: Any = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    chosen = create_space(
        "timm-elastic",
        backbone="test_resnet",
        resolutions=[32, 48],
        checkpoint=str(tmp_path / "weights.safetensors"),
    )
    assert isinstance(chosen, InheritingSpace)
    supernet = chosen.inherited(DIMENSION)
    state = supernet.backbone.state_dict()
    assert all(torch.equal(state[f"network.{k}"], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": [0.5, 0.75]}, r"widths of the space 'timm-elastic'.* lack 1"),
        ({"order": "tailor"}, r"no order of channels by 'tailor'.* did you mean 'taylor'"),
        ({"least_depth": 2.0}, "least_depth"),
        ({"backbone": "test_vit", "resolutions": [32, 48]}, "'test_vit' takes images of one size"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PruningError, match=words):
        create_space("timm-elastic", **{"backbone": "test_resnet", "pretrained": False, **options})


@pytest.mark.parametrize("name", ["", "layer1.7", "nowhere.0", "layer1..0"])
def test_a_block_that_is_not_there_cannot_be_left_out(name: str) -> None:
    model = timm_query_model("test_resnet", 4, resolution=32, pretrained=False)
    with pytest.raises(SearchSpaceError, match="that could be left out"):
        leave_out(model, [name])


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (["layer1.7"], "no block 'layer1.7' that could be left out"),
        (["layer2.0"], "does not run"),
        ([""], "no block ''"),
        (["layer1.0"] * 10_001, "left_out"),
        ("layer1.0", "left_out"),
    ],
)
def test_files_that_leave_out_what_they_cannot_are_refused(
    blocks: Any, words: str, tmp_path: Path
) -> None:
    model = timm_query_model("test_resnet", 4, resolution=32, pretrained=False)
    leave_out(model, [name for name in blocks if name == "layer2.0"])
    save_model(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        header = json.loads(file.metadata()[HEADER])
    header["origin"]["timm"]["left_out"] = blocks
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", {HEADER: json.dumps(header)})
    with pytest.raises(PruningError, match=words):
        load_model(tmp_path / "model.safetensors")


def test_origins_are_json() -> None:
    model = space("test_vit").build(narrowest("test_vit"), DIMENSION)
    assert json.loads(json.dumps(model.origin)) == model.origin

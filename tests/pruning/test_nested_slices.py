"""Channels in order of importance, and networks of the first of them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruning import PruningError, kept_channels, load_model, save_model
from pruning.channels import Group
from pruning.nested import channel_groups, cuts, kept, narrow, order_channels, take
from searchspaces import QueryModel, count_macs, count_parameters
from searchspaces.projection import Projection

NAMES = ["resnet10t", "mobilenetv3_small_050", "regnety_002", "vit_tiny_patch16_224"]


def images(model: Any, count: Any = 3) -> Any:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, model.resolution, model.resolution, generator=generator)


@pytest.mark.parametrize(
    ("name", "criterion"), [*zip(NAMES, ["taylor"] * 4, strict=True), ("resnet10t", "magnitude")]
)
def test_reordering_preserves_outputs_and_moves_channels(
    uncut: Any, name: str, criterion: Any
) -> None:
    model = uncut(name)
    groups = channel_groups(model)
    ordered = order_channels(
        model, groups, criterion=criterion, batch_loss=lambda each: each(images(model)).sum()
    )
    torch.testing.assert_close(ordered(images(model)), model(images(model)), atol=1e-5, rtol=0)
    moved = [
        k for k, v in model.state_dict().items() if not torch.equal(v, ordered.state_dict()[k])
    ]
    assert len(moved) > len(groups)


def test_a_subnetwork_says_which_channels_of_the_original_it_kept(uncut: Any) -> None:
    model = uncut("resnet10t")
    groups = channel_groups(model)
    small = narrow(order_channels(model, groups, criterion="magnitude"), groups, 0.5)
    name = "backbone.network.layer2.0.conv2"
    sides = kept_channels(small)[name]
    original = model.get_parameter(f"{name}.weight")[sides["out"]][:, sides["in"]]
    assert torch.equal(small.get_parameter(f"{name}.weight"), original)
    assert sides["out"] != sorted(sides["out"])  # in order of importance


@pytest.mark.parametrize("name", NAMES[:3])
def test_the_first_channels_alone_are_the_network_with_the_others_at_zero(
    uncut: Any, name: str
) -> None:
    """Where no norm averages over channels: a dropped channel is one whose weights are zero."""
    model = uncut(name)
    groups = channel_groups(model)
    zeroed = copy.deepcopy(model)
    for tensor_name, cut in cuts(model, groups, 0.4).items():
        tensor = zeroed.state_dict()[tensor_name]
        if tensor_name.endswith("running_var"):
            continue
        for axis, rows in cut.items():
            indices = torch.arange(tensor.shape[axis])
            rest = torch.ones(len(indices), dtype=torch.bool)
            rest[indices[rows]] = False
            tensor.index_fill_(axis, rest.nonzero().flatten(), 0.0)
    narrowed = narrow(model, groups, 0.4)
    expected = zeroed(images(model))
    torch.testing.assert_close(narrowed(images(model)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "width"),
    [*zip(NAMES, [0.37] * 4, strict=True), ("resnet10t", 0.01), ("resnet10t", 0.9)],
)
def test_any_width_runs_saves_and_reloads_bit_equal(
    uncut: Any, name: str, width: Any, tmp_path: Path
) -> None:
    model = uncut(name)
    narrowed = narrow(model, channel_groups(model), width)
    before = count_macs(model, model.resolution)
    assert count_macs(narrowed, model.resolution) < before
    save_model(narrowed, tmp_path / "n.safetensors")
    again = load_model(tmp_path / "n.safetensors")
    assert torch.equal(again(images(model)), narrowed(images(model)))
    narrowed.train()(images(model)).sum().backward()


def test_narrower_is_nested_and_never_dearer(uncut: Any) -> None:
    model = uncut("resnet10t")
    groups = channel_groups(model)
    small, large = (narrow(model, groups, width) for width in (0.3, 0.6))
    for name, tensor in small.state_dict().items():
        start = tuple(slice(0, n) for n in tensor.shape)
        assert torch.equal(tensor, large.state_dict()[name][start])
    assert count_parameters(small) < count_parameters(large)
    assert count_parameters(narrow(model, groups, 1.0)) == count_parameters(model)


def test_the_most_important_channels_come_first() -> None:
    first, second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 6, 3, bias=False)
    strength = torch.tensor([3.0, 8.0, 1.0, 6.0, 2.0, 7.0, 5.0, 4.0])
    with torch.no_grad():
        first.weight.fill_(1.0).mul_(strength.view(-1, 1, 1, 1))
        second.weight.fill_(1.0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = QueryModel(
        nn.Sequential(first, nn.ReLU(), second, pool), Projection(6, 4), resolution=8
    )
    ordered = order_channels(model, channel_groups(model))
    assert ordered.backbone[0].weight[:, 0, 0, 0].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    narrowed = narrow(ordered, channel_groups(ordered), 0.25)
    assert narrowed.backbone[0].weight[:, 0, 0, 0].tolist() == [8, 7]


def test_a_share_keeps_the_next_whole_channel() -> None:
    group = Group(units=10, channels=1, members=())
    widths = (0.001, 0.1, 0.11, 0.2, 0.7, 1.0)
    assert [kept(group, width) for width in widths] == [1, 1, 2, 2, 7, 10]


def test_taking_passes_gradients_to_what_is_kept() -> None:
    tensor = torch.zeros(4, 3, requires_grad=True)
    take(tensor, {0: slice(0, 2), 1: torch.tensor([0, 2])}).sum().backward()
    assert tensor.grad.tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_networks_whose_channels_are_not_free_are_refused(uncut: Any) -> None:
    class Ramp(nn.Module):
        """Weighs channels by their place, which no parameter shows."""

        def forward(self, maps: Any) -> Any:
            return maps * torch.arange(maps.shape[1]).view(1, -1, 1, 1)

    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), Ramp(), nn.Conv2d(6, 6, 3), pool)
    ramp = QueryModel(layers, Projection(6, 4), resolution=8)
    with pytest.raises(
        PruningError, match=r"'Sequential' cannot hold nested .* depend on the order"
    ):
        channel_groups(ramp)
    model = uncut("resnet10t")
    groups = channel_groups(model)
    with pytest.raises(
        PruningError, match="no order of channels by 'taylr': did you mean 'taylor'"
    ):
        order_channels(model, groups, criterion="taylr")
    with pytest.raises(PruningError, match="needs batch_loss"):
        order_channels(model, groups, criterion="taylor")

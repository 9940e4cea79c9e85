"""Scores of units against loops and against torch-pruning, and who competes with whom."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

from pruning import PruningError, cut, kept_channels, stages
from pruning.cutting import remove
from pruning.graph import find_groups
from pruning.importance import score, unit_prices
from searchspaces import QueryModel, count_macs
from searchspaces.projection import Projection


def chain(*widths: Any) -> Any:
    """Convolutions in a row, each with a BatchNorm and a stage of its own."""
    torch.manual_seed(0)
    pairs = zip((3, *widths), widths, strict=False)
    parts = [
        nn.Sequential(nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())
        for into, out in pairs
    ]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = QueryModel(nn.Sequential(*parts, pool), Projection(widths[-1], 4), resolution=8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def parameters(model: Any) -> Any:
    return sum(each.numel() for each in model.parameters())


def count_channels(model: Any) -> Any:
    return [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]


def first_group(model: Any) -> Any:
    name = "backbone.0.0"
    return next(g for g in find_groups(model) if name in {m.name for m in g.members})


def batches(count: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(2, 3, 8, 8, generator=generator) for _ in range(count)]


def losses(count: Any) -> Any:
    return lambda model: (model(batch)[:, 0].sum() for batch in batches(count))


def by_hand(model: Any, value: Any) -> Any:
    """For each channel of the first convolution the sum of `value` over its weights."""
    first, second = model.backbone[0], model.backbone[1]
    totals = []
    for channel in range(first[0].out_channels):
        total = value(first[0].weight, np.s_[channel]) + value(first[1].weight, np.s_[channel])
        totals.append((total + value(second[0].weight, np.s_[:, channel])).detach())
    return torch.stack(totals)


def scores(model: Any, criterion: Any, batch_loss: Any = None) -> Any:
    return score(model, [first_group(model)], criterion, batch_loss)[0]


def test_magnitude_is_the_sum_of_squares_relative_to_the_group() -> None:
    model = chain(6, 5)
    expected = by_hand(model, lambda weight, where: weight[where].square().sum())
    torch.testing.assert_close(scores(model, "magnitude"), expected / expected.mean())


@pytest.mark.parametrize(("criterion", "order"), [("taylor", 1), ("fisher", 2)])
def test_estimated_changes_are_summed_over_batches_and_weights(criterion: Any, order: Any) -> None:
    model = chain(6, 5)
    expected = torch.zeros(6)
    for batch in batches(3):
        model.zero_grad()
        model(batch)[:, 0].sum().backward()
        expected += by_hand(
            model, lambda w, where: (w[where] * w.grad[where]).abs().pow(order).sum()
        )
    found = scores(model, criterion, losses(3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_loss_is_a_batch_of_its_own() -> None:
    model = chain(6, 5)
    one = scores(model, "fisher", lambda each: each(batches(1)[0])[:, 0].sum())
    torch.testing.assert_close(one, scores(model, "fisher", losses(1)))


def test_losses_are_taken_one_by_one() -> None:
    model = chain(6, 5)

    def batch_loss(model: Any) -> Any:
        for index, batch in enumerate(batches(3)):
            assert (model.backbone[0][0].weight.grad is not None) == (index > 0)
            yield model(batch).sum()

    scores(model, "taylor", batch_loss)


def test_lamp_divides_by_all_that_is_not_smaller() -> None:
    model = chain(6, 5)
    squares = by_hand(model, lambda weight, where: weight[where].square().sum())
    expected = [each / sum(other for other in squares if other >= each) for each in squares]
    torch.testing.assert_close(scores(model, "lamp"), torch.stack(expected))


def test_fpgm_sums_distances_to_the_other_filters() -> None:
    model = chain(6, 5)
    rows = model.backbone[0][0].weight.flatten(1)
    columns = model.backbone[1][0].weight.transpose(0, 1).flatten(1)
    expected = torch.stack(
        [
            (a - rows).norm(dim=1).sum() + (b - columns).norm(dim=1).sum()
            for a, b in zip(rows, columns, strict=True)
        ]
    )
    torch.testing.assert_close(scores(model, "fpgm"), (expected / expected.mean()).detach())


def test_bn_scales_alone_count() -> None:
    model = chain(6, 5)
    scales = model.backbone[0][1].weight.detach()
    torch.testing.assert_close(scores(model, "bn_scale"), scales / scales.mean())


@pytest.mark.parametrize(
    ("criterion", "theirs"),
    [
        ("magnitude", tp.importance.GroupMagnitudeImportance()),
        ("bn_scale", tp.importance.BNScaleImportance()),
    ],
)
def test_scores_agree_with_those_of_torch_pruning(uncut: Any, criterion: Any, theirs: Any) -> None:
    model = uncut("resnet10t")
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, 3, 32, 32))
    compared = 0
    for group, ours in zip(
        groups := find_groups(model), score(model, groups, criterion, None), strict=True
    ):
        root = next(member for member in group.members if member.side == "out")
        their_group = graph.get_pruning_group(
            root.layer, tp.prune_conv_out_channels, list(range(group.units))
        )
        torch.testing.assert_close(ours, theirs(their_group)[np.argsort(root.unit_of)])
        compared += 1
    assert compared > 6


def weighted(**weights: Any) -> Any:
    """A loss by which w * gradient is weight * w^2 for the layers that are named."""

    def batch_loss(model: Any) -> Any:
        return sum(
            weights.get(name.split(".")[1], 1.0) * parameter.square().sum()
            for name, parameter in model.named_parameters()
            if name.startswith("backbone")
        )

    return batch_loss


def widths(model: Any) -> Any:
    return [part[0].out_channels for part in list(model.backbone)[:-1]]


def test_groups_compete_in_the_scope_that_is_asked_for() -> None:
    model = chain(32, 32, 32)
    # the first two convolutions feed another one, the last one feeds the projection
    options = {"criterion": "taylor", "batch_loss": weighted(**{"1": 1e4, "2": 1e4})}
    assert widths(cut(model, 0.5, **options)) == [16, 16, 16]
    assert widths(cut(model, 0.25, scope="global", **options)) == [8, 32, 32]
    assert widths(cut(model, 0.25, scope="isomorphic", **options)) == [16, 32, 24]


@pytest.mark.parametrize("scope", ["global", "isomorphic"])
def test_competing_groups_lose_the_ratio_in_all(uncut: Any, scope: Any) -> None:
    model = uncut("resnet10t")
    pruned = cut(model, 0.5, scope=scope, criterion="random", round_to=1)
    before, after = (
        sum(module.out_channels for module in each.backbone.modules() if hasattr(module, "groups"))
        for each in (model, pruned)
    )
    assert after / before == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("price", ["macs", "parameters"])
def test_a_unit_is_priced_by_what_vanishes_with_it(uncut: Any, price: Any) -> None:
    cost = {"macs": lambda model: count_macs(model, model.resolution), "parameters": parameters}
    for model in (chain(8, 12, 9), uncut("mobilenetv3_small_050")):
        whole = cost[price](model)
        groups = find_groups(model)
        for group, each in [*zip(groups, unit_prices(model, groups, price), strict=True)][::2]:
            smaller, of_smaller = copy.deepcopy((model, group))
            stays = np.arange(group.units) > 0
            remove(smaller, [(of_smaller, stays)])
            saved = whole - cost[price](smaller)
            # a corner that goes with both sides of a layer is counted twice, and fvcore counts a
            # little outside of layers
            assert 0.5 * each <= saved <= 1.01 * each


def test_dear_units_go_first_where_units_have_prices() -> None:
    def batch_loss(model: Any) -> Any:
        return model(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))).sum()

    model = chain(32, 32, 32)
    with torch.no_grad():
        for layer in (model.backbone[0][0], model.backbone[1][0]):
            layer.stride = (2, 2)  # what follows has fewer positions, so its units are cheaper
    options = {"criterion": "taylor", "scope": "global", "batch_loss": batch_loss, "round_to": 1}
    plain = cut(model, 0.3, **options)
    priced = cut(model, 0.3, price="macs", **options)
    assert count_macs(priced, 8) < count_macs(plain, 8)
    assert sum(count_channels(priced)) == pytest.approx(sum(count_channels(plain)), abs=2)


def test_a_price_changes_nothing_within_a_group() -> None:
    model = chain(16, 16)
    options = {"criterion": "taylor", "scope": "local", "batch_loss": losses(2), "round_to": 1}
    plain, priced = cut(model, 0.5, **options), cut(model, 0.5, price="macs", **options)
    assert kept_channels(plain) == kept_channels(priced)


def test_only_stages_with_a_ratio_compete(uncut: Any) -> None:
    model = uncut("resnet10t")
    pruned = cut(model, {"layer3": 0.5, "layer4": 0.25}, scope="global")
    for name in stages(model)["layer2"]:
        assert pruned.get_submodule(name).out_channels == model.get_submodule(name).out_channels


def test_one_number_is_the_ratio_of_every_stage(uncut: Any) -> None:
    model = uncut("resnet10t")
    one, other = cut(model, 0.5), cut(model, dict.fromkeys(stages(model), 0.5))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_parameters_stay_frozen(uncut: Any) -> None:
    model = copy.deepcopy(uncut("lcnet_050"))
    model.backbone.network.conv_stem.weight.requires_grad_(False)
    pruned = cut(model, 0.5)
    assert [p.requires_grad for p in pruned.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]


def test_unknown_scopes_are_named(uncut: Any) -> None:
    with pytest.raises(PruningError, match="did you mean 'global'"):
        cut(uncut("resnet10t"), 0.5, scope="globl")


def test_errors_of_the_loss_are_those_of_its_author(uncut: Any) -> None:
    def batch_loss(model: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut(uncut("resnet10t"), 0.5, criterion="taylor", batch_loss=batch_loss)

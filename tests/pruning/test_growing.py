"""Channels that fade out before they are cut."""

import copy
from typing import Any

import pytest
import torch

from pruning import cut, fading, removed_weights


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_what_is_not_masked_is_what_the_cut_left(uncut: Any, name: str) -> None:
    model = uncut(name)
    pruned = cut(model, 0.5)
    masks = removed_weights(model, pruned)
    weights = dict(pruned.named_parameters())
    for parameter, mask in masks.items():
        weight = model.get_parameter(parameter)
        stays = ~mask.expand_as(weight)
        assert int(stays.sum()) == weights[parameter].numel()
        assert torch.equal(weight[stays], weights[parameter].flatten())
    assert weights.keys() - masks.keys() == {
        n for n, p in model.named_parameters() if p.shape == weights[n].shape and n not in masks
    }


def test_masks_of_a_second_cut_are_of_the_first_ones_weights(uncut: Any) -> None:
    once = cut(uncut("resnet10t"), 0.25)
    twice = cut(once, 0.25)
    for name, mask in removed_weights(once, twice).items():
        weight = once.get_parameter(name)
        assert torch.equal(weight[~mask.expand_as(weight)], twice.get_parameter(name).flatten())


def test_masked_weights_fade_and_others_stay(uncut: Any) -> None:
    model = copy.deepcopy(uncut("resnet10t"))
    pruned = cut(model, 0.5)
    masks = removed_weights(model, pruned)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with fading(model, masks, steps=4):
        model.eval()(torch.rand(2, 3, 32, 32))  # not a training step
        for _ in range(6):
            model.train()(torch.rand(2, 3, 32, 32))
            copy.deepcopy(model)(torch.rand(2, 3, 32, 32))  # a copy's passes do not count
    model(torch.rand(2, 3, 32, 32))  # the block is left
    name = next(iter(masks))
    mask = masks[name].expand_as(before[name])
    last = 0.01 ** (4 / 10)  # the steps weigh 1, 2, 3, 4, and the last weight stays
    faded = model.get_parameter(name)
    torch.testing.assert_close(faded[mask], before[name][mask] * 0.01 * last**2)
    for other, weight in model.named_parameters():
        stays = ~masks[other].expand_as(weight) if other in masks else slice(None)
        assert torch.equal(weight[stays], before[other][stays])


def test_a_model_that_has_faded_loses_little_when_it_is_cut(uncut: Any) -> None:
    model = copy.deepcopy(uncut("resnet10t"))
    masks = removed_weights(model, cut(model, 0.5))
    with torch.no_grad(), fading(model, masks, steps=1):
        for module in model.modules():
            module.train(isinstance(module, type(model)))  # BatchNorm statistics stay
        for _ in range(3):
            model(torch.rand(2, 3, 32, 32))
    model.eval()
    images = torch.rand(4, 3, 32, 32)
    pruned = cut(model, 0.5)
    torch.testing.assert_close(pruned(images), model(images), atol=0.02, rtol=0)

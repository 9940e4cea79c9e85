"""Stages: few, in order, without overlap."""

from typing import Any

import pytest
from torch import nn

from pruning import stages

NAMES = ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto", "repvgg_a0"]


@pytest.mark.parametrize("name", NAMES)
def test_stages_divide_the_layers_of_the_backbone_in_their_order(uncut: Any, name: str) -> None:
    model = uncut(name)
    groups = stages(model)
    assert 3 <= len(groups) <= 6
    layers = [
        each for each, m in model.backbone.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert [each for group in groups.values() for each in group] == [
        f"backbone.{each}" for each in layers
    ]


def test_names_are_those_of_timm(uncut: Any) -> None:
    assert list(stages(uncut("resnet10t"))) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert list(stages(uncut("vit_tiny_patch16_224")))[1] == "blocks.1-2"

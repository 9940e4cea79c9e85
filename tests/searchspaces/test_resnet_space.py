"""What is particular to residual networks: textbook costs, shortcuts, kernels that are learnt."""

from typing import Any

import pytest
import torch
from tiny_spaces import FIXED, RESNET

from searchspaces import SearchSpaceError, count_macs, timm_query_model
from searchspaces.resnet import ResNetSpace, Stage


@pytest.mark.parametrize(
    ("name", "block", "ratio", "widths", "depths"),
    [
        ("resnet18", "basic", 1, (64, 128, 256, 512), (2, 2, 2, 2)),
        ("resnet50", "bottleneck", 0.25, (256, 512, 1024, 2048), (3, 4, 6, 3)),
    ],
)
def test_the_textbook_networks_cost_what_timms_do(
    name: str, block: Any, ratio: Any, widths: Any, depths: Any
) -> None:
    stages = [
        {
            "widths": [width],
            "depths": [depth],
            "ratios": [ratio],
            "block": block,
            "strides": [1 if index == 0 else 2],
        }
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True))
    ]
    space = ResNetSpace(resolutions=[64], stem_widths=[64], stem_strides=[4], stages=stages)
    theirs = count_macs(timm_query_model(name, 8, resolution=64, pretrained=False), 64)
    stem = (7**2 - 3**2) * 32**2 * 64 * 3
    pooling = 2**2 * widths[-1]  # fvcore counts theirs, but not the mean that is ours
    assert space.size() == 1
    assert space.macs(space.largest(), 8) == theirs - stem - pooling


def test_the_default_space_spans_the_promised_range() -> None:
    space = ResNetSpace()
    assert 1e6 < space.macs(space.smallest(), 256) < 3e6
    assert 200e6 < space.macs(space.largest(), 256) < 300e6
    assert RESNET.size() == 2 * 2 * 3 * (2 * 2 * 2 * 2 * 2) * (2 * 2 * 2) * 3


def test_shortcuts_are_convolutions_where_some_architecture_needs_one() -> None:
    def projected(space: Any) -> Any:
        backbone = space.build(space.smallest(), 8).backbone
        return [
            [not isinstance(block.shortcut, torch.nn.Identity) for block in stage]
            for stage in backbone.stages
        ]

    assert projected(RESNET) == [[True], [True], [True, False]]
    assert projected(FIXED) == [[False], [True]]


def test_a_fresh_kernel_transform_changes_nothing_and_is_trained() -> None:
    torch.manual_seed(3)
    plain = RESNET.supernet(8).eval()
    torch.manual_seed(3)
    learnt = RESNET.supernet(8, kernel_transform=True).eval()
    architecture = RESNET.smallest()
    images = torch.rand(4, 3, 16, 16)
    for supernet in (plain, learnt):
        supernet.activate(architecture)
        for block in (block for stage in supernet.backbone.stages for block in stage):
            torch.nn.init.ones_(block.convs[-1].norm.weight)
    torch.testing.assert_close(learnt(images), plain(images))
    learnt.train()(images)[:, 0].sum().backward()
    gradients = {
        name: parameter.grad
        for name, parameter in learnt.named_parameters()
        if "transforms" in name and parameter.grad is not None
    }
    assert gradients["backbone.stages.0.0.convs.0.conv.transforms.3"].abs().sum() > 0
    assert gradients["backbone.stages.2.1.convs.1.conv.transforms.1"].abs().sum() > 0
    assert not any("shortcut" in name for name in gradients)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stem_strides": [3]}, "stem_strides of the space 'resnet' .* values of 1, 2 and 4"),
        ({"resolutions": [4]}, "resolutions .* from 8 to 2048"),
        ({"stages": []}, "'stages' .* at least one stage"),
        ({"stages": {"widths": [8]}}, "'stages' .* give a list"),
        ({"stages": ["basic"]}, r"stages\[1\] of the space 'resnet' is 'basic': give the stage's"),
        (
            {"stages": [{"widths": [8], "depths": None}]},
            r"stages\[1\] .* needs the option 'depths'",
        ),
        (
            {"stages": [{"widths": [8], "depths": [1], "ratio": [1]}]},
            "no option 'ratio': did you mean 'ratios'",
        ),
        (
            {"stages": [{"widths": [8], "depths": [1], "ratios": [0]}]},
            "different numbers from 0.01 to 32",
        ),
        (
            {"stages": [{"widths": [8], "depths": [1], "block": "bottelneck"}]},
            r"stages\[1\].block .* did you mean 'bottleneck'",
        ),
        (
            {"stages": [Stage((8,), (1,), block=["basic"])]},
            r"block .* is \['basic'\]: did you mean",
        ),
    ],
)
def test_wrong_options_are_named(options: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        ResNetSpace(**options)

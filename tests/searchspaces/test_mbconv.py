"""What is particular to inverted bottlenecks: gates, activations, and kernels that are learnt."""

from typing import Any

import pytest
import torch
from tiny_spaces import SWITCHED

from searchspaces import Architecture, MBConvSpace, MBConvSupernet, SearchSpaceError, rebuild
from searchspaces.elastic.modules import SqueezeExcite


def test_the_default_space_spans_the_promised_range() -> None:
    at_48 = MBConvSpace(resolutions=(48,))
    assert 0.5e6 < at_48.macs(at_48.smallest(), 256) < 1e6
    assert 25e6 < at_48.macs(at_48.largest(), 256) < 50e6
    assert len(MBConvSpace().distributions()) == 24


def test_gates_and_activations_are_parameters_only_where_there_is_a_choice() -> None:
    kinds = {"se", "activation"}
    chosen = {
        name: distribution.choices
        for name, distribution in SWITCHED.distributions().items()
        if name.partition("_")[2] in kinds
    }
    assert chosen == {
        "stage1_activation": ("relu", "hswish"),
        "stage1_se": (False, True),
        "stage3_se": (False, True),
    }
    assert MBConvSpace(se=True).distributions() == MBConvSpace().distributions()


def test_gates_and_activations_follow_the_architecture() -> None:
    def described(**params: Any) -> Any:
        architecture = Architecture("mbconv", {**SWITCHED.largest().params, **params})
        backbone = SWITCHED.build(architecture, 8).backbone
        return [
            (isinstance(stage[0].excite, SqueezeExcite), type(stage[0].expand.activation))
            for stage in backbone.stages
        ]

    relu, hswish = torch.nn.ReLU, torch.nn.Hardswish
    assert described() == [(True, hswish), (True, relu), (True, relu)]
    assert described(stage1_se=False, stage3_se=False, stage1_activation="relu") == [
        (False, relu),
        (True, relu),
        (False, relu),
    ]


def test_a_gate_that_is_off_keeps_its_weights_and_gets_no_gradient() -> None:
    supernet = MBConvSupernet(SWITCHED, 8).train()
    supernet.activate(SWITCHED.smallest())
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    first, second, _ = supernet.backbone.stages
    assert first[0].excite.reduce.weight.grad is None
    assert second[0].excite.reduce.weight.grad.abs().sum() > 0
    on = Architecture("mbconv", {**SWITCHED.smallest().params, "stage1_se": True})
    torch.testing.assert_close(
        supernet.extract(on).backbone.stages[0][0].excite.reduce.weight,
        first[0].excite.reduce.weight[:8, :24],
    )


def test_kernels_are_transformed_where_the_stage_has_several() -> None:
    supernet = MBConvSupernet(SWITCHED, 8, kernel_transform=True)
    sides = [list(stage[0].depthwise.conv.transforms) for stage in supernet.backbone.stages]
    assert sides == [["3"], ["3"], ["5", "3"]]
    supernet.train().activate(SWITCHED.smallest())
    supernet(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    assert supernet.backbone.stages[1][0].depthwise.conv.transforms["3"].grad.abs().sum() > 0


def test_descriptions_without_choices_of_gates_and_activations_are_understood() -> None:
    stage = {"widths": (8,), "depths": (1,), "expansions": (2,), "kernels": (3,), "strides": (2,)}
    options = {
        "resolutions": (16,),
        "stem_widths": (8,),
        "stem_strides": (1,),
        "stages": ({**stage, "activation": "relu"},),
        "head_widths": (16,),
        "se": False,
    }
    params = dict(MBConvSpace(**options).largest().params)
    model = rebuild(
        {"space": {"name": "mbconv", "options": options}, "params": params, "dimension": 4}
    )
    block = model.backbone.stages[0][0]
    assert isinstance(block.expand.activation, torch.nn.ReLU)
    assert isinstance(block.excite, torch.nn.Identity)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stem_widths": [12]}, "stem_widths .* different multiples of 8"),
        ({"resolutions": []}, "resolutions"),
        ({"resolutions": 32}, "resolutions"),
        ({"head_widths": [64, 64]}, "head_widths"),
        ({"stages": []}, "'stages'"),
        ({"stages": [{"widths": [8]}]}, r"stages\[1\] .* needs the option 'depths'"),
        (
            {"stages": [{"widths": [8], "depths": [1], "kernel": [3]}]},
            "no option 'kernel': did you mean 'kernels'",
        ),
        (
            {"stages": [{"widths": [8], "depths": [1], "kernels": [4]}]},
            r"\[1\].kernels .*odd",
        ),
        ({"stages": [{"widths": [8], "depths": [0]}]}, r"stages\[1\].depths"),
        ({"stages": [{"widths": [8], "depths": [1], "activation": "rely"}]}, "did you mean 'relu'"),
        (
            {"stages": [{"widths": [8], "depths": [1], "se": []}]},
            r"\[1\].se .* one value or differ",
        ),
        ({"se": "yes"}, "^se of the space 'mbconv' is 'yes': known are 'false', 'true'"),
    ],
)
def test_wrong_options_are_named(options: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        MBConvSpace(**options)

"""Elastic layers against ordinary ones, learnt kernels against loops, choices against rules."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import torch
from optuna.distributions import CategoricalDistribution, IntDistribution
from torch import nn

from searchspaces import SearchSpaceError, create_space
from searchspaces.elastic import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayerNorm,
    ElasticLinear,
    choices,
    fold_kernels,
    shared_part,
)
from searchspaces.elastic.choices import Kinds, Ratios, Widths


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convolution_uses_its_first_channels_and_its_centre(
    depthwise: Any, stride: Any, kernel: Any
) -> None:
    full = ElasticConv2d(12, 12, 5, groups=12 if depthwise else 1)
    full.activate(8, kernel, stride)
    width_in = 8 if depthwise else 4
    alone = nn.Conv2d(width_in, 8, kernel, stride, kernel // 2, groups=width_in if depthwise else 1)
    margin = (5 - kernel) // 2
    with torch.no_grad():
        alone.weight.copy_(
            full.weight[
                :8, : alone.weight.shape[1], margin : margin + kernel, margin : margin + kernel
            ]
        )
        alone.bias.copy_(full.bias[:8])
        maps = torch.rand(2, width_in, 7, 7)
        torch.testing.assert_close(full(maps), alone(maps))


def test_learnt_kernels_follow_their_definition() -> None:
    conv = ElasticConv2d(3, 4, 7).double()
    conv.learn_kernels([3, 7, 5])
    for difference in conv.transforms.values():
        nn.init.normal_(difference)
    expected = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    for o in range(2):
        for i in range(2):
            kernel = conv.weight.detach()[o, i]
            for side in (5, 3):
                centre = kernel[1:-1, 1:-1].reshape(-1)
                mapped = [
                    centre[to]
                    + sum(centre[at] * conv.transforms[str(side)][at, to] for at in range(side**2))
                    for to in range(side**2)
                ]
                kernel = torch.stack(mapped).detach().view(side, side)
            expected[o, i] = kernel
    with torch.no_grad():
        torch.testing.assert_close(conv.part(2, 2, 3), expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(conv.part(4, 3, 7), conv.weight, atol=0, rtol=0)


def test_learnt_kernels_start_as_the_centre_and_are_trained() -> None:
    conv = ElasticConv2d(3, 4, 5)
    conv.learn_kernels([3, 5])
    assert list(conv.transforms) == ["3"]
    torch.testing.assert_close(conv.part(4, 3, 3), conv.weight[..., 1:4, 1:4])
    conv.activate(4, 3)
    conv(torch.rand(1, 3, 6, 6)).square().sum().backward()
    assert conv.transforms["3"].grad.abs().sum() > 0


def test_folding_gives_ordinary_layers_the_kernels_that_were_learnt() -> None:
    shared = nn.Sequential(ElasticConv2d(3, 8, 5), nn.ReLU(), ElasticConv2d(8, 8, 3))
    shared[0].learn_kernels([3])
    nn.init.normal_(shared[0].transforms["3"])
    shared[0].activate(4, 3)
    shared[2].activate(6, 3)
    alone = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 1, 1))
    with torch.no_grad():
        for at in (0, 2):
            alone[at].bias.copy_(shared[at].bias[: alone[at].out_channels])
    fold_kernels(shared, alone)
    maps = torch.rand(2, 3, 6, 6)
    torch.testing.assert_close(alone(maps), shared(maps))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_trains_its_first_channels_only(momentum: Any) -> None:
    full, alone = ElasticBatchNorm2d(6, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    for maps in (torch.rand(3, 4, 5, 5), torch.rand(2, 4, 5, 5)):
        torch.testing.assert_close(full(maps), alone(maps))
    for statistic, fresh in (("running_mean", 0.0), ("running_var", 1.0)):
        values = getattr(full, statistic)
        torch.testing.assert_close(values[:4], getattr(alone, statistic))
        torch.testing.assert_close(values[4:], torch.full((2,), fresh))
    maps = torch.rand(2, 4, 3, 3)
    torch.testing.assert_close(full.eval()(maps), alone.eval()(maps))


def test_a_linear_map_uses_its_first_inputs() -> None:
    linear = ElasticLinear(6, 5, bias=False)
    features = torch.rand(3, 4)
    torch.testing.assert_close(linear(features), features @ linear.weight[:, :4].T)


def test_a_linear_map_uses_its_first_outputs() -> None:
    linear = ElasticLinear(6, 5)
    linear.activate(3)
    features = torch.rand(2, 7, 4)
    expected = features @ linear.weight[:3, :4].T + linear.bias[:3]
    torch.testing.assert_close(linear(features), expected)


def test_a_layer_norm_uses_its_first_channels() -> None:
    norm = ElasticLayerNorm(6)
    for tensor in norm.parameters():
        nn.init.uniform_(tensor, 0.5, 1.5)
    alone = nn.LayerNorm(4)
    alone.load_state_dict({name: tensor[:4] for name, tensor in norm.state_dict().items()})
    features = torch.rand(2, 7, 4)
    torch.testing.assert_close(norm(features), alone(features))


def test_the_shared_part_is_first_in_channels_and_central_in_kernels() -> None:
    weight = torch.arange(2 * 3 * 5 * 5).view(2, 3, 5, 5)
    part = shared_part(weight, torch.Size((1, 2, 3, 3)))
    assert torch.equal(part, weight[:1, :2, 1:4, 1:4])
    assert shared_part(torch.tensor(7), torch.Size(())) == 7


@dataclass(frozen=True)
class Options:
    widths: Widths
    ratios: Ratios = (0.5, 1)
    form: Annotated[object, Kinds(("round", "square"))] = "round"
    switch: Annotated[object, Kinds((False, True))] = True
    note: str = "no choice"


def settled(**options: Any) -> Any:
    return Options(**choices.read(Options(**options), "{} of the test"))


def test_choices_become_parameters_of_the_right_kind() -> None:
    options = settled(widths=[24, 8, 16], form=["square", "round"])
    assert options == Options((8, 16, 24), (0.5, 1), ("round", "square"), (True,))
    assert choices.distributions(options, "a_") == {
        "a_width": IntDistribution(8, 24, step=8),
        "a_ratio": CategoricalDistribution((0.5, 1)),
        "a_form": CategoricalDistribution(("round", "square")),
    }
    uneven = choices.distributions(settled(widths=[8, 16, 32], switch=[True, False]))
    assert uneven["width"] == CategoricalDistribution((8, 16, 32))
    assert uneven["switch"] == CategoricalDistribution((False, True))


def test_what_is_no_parameter_takes_its_only_value() -> None:
    options = settled(widths=[8, 16], form=["round", "square"])
    params = {"a_width": 16, "a_ratio": 1, "a_form": "square"}
    assert choices.chosen(options, params, "a_") == {
        "width": 16,
        "ratio": 1,
        "form": "square",
        "switch": True,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": [True]}, r"widths of the test is \[True\]: give a list of different mult"),
        ({"widths": "8"}, "widths of the test is '8'"),
        ({"widths": [8], "ratios": [float("inf")]}, "different numbers from 0.01 to 32"),
        ({"widths": [8], "form": []}, "form of the test .* one value or different values"),
        ({"widths": [8], "form": ["round", "round"]}, "one value or different values"),
        ({"widths": [8], "form": ["rond"]}, "did you mean 'round'"),
        ({"widths": [8], "switch": "yes"}, "switch of the test is 'yes': known are 'false', 'true"),
    ],
)
def test_values_that_break_their_rule_are_named(options: Any, words: str) -> None:
    with pytest.raises(SearchSpaceError, match=words):
        settled(**options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mbconv", {"resolutions": [99999]}),
        ("mbconv", {"stages": [{"widths": [8], "depths": [1], "kernels": [99]}]}),
        ("mbconv", {"stages": [{"widths": [8 << 20], "depths": [1]}]}),
        ("mbconv", {"stages": [{"widths": [8], "depths": [10**23]}]}),
        ("mbconv", {"stages": [{"widths": [8], "depths": [1], "expansions": [1e308]}]}),
        ("mbconv", {"stages": [{"widths": [8], "depths": [1]}] * 1000}),
        ("resnet", {"stem_widths": list(range(8, 8008, 8))}),
        ("vit", {"patches": [1 << 40]}),
        ("vit", {"heads": [10**6]}),
        ("vit", {"stem_width": 8 << 30}),
        ("shufflenet", {"depths": [10**9] * 4}),
        ("shufflenet", {"head_width": 8 << 30}),
    ],
)
def test_absurd_sizes_are_refused_in_a_short_sentence(name: str, options: Any) -> None:
    with pytest.raises(SearchSpaceError, match=f"the space '{name}'") as caught:
        create_space(name, **options)
    assert len(str(caught.value)) <= 300

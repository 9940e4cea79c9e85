"""Costs against hand-worked cases."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import ActivationCountAnalysis
from torch import nn

from searchspaces import (
    count_macs,
    count_parameters,
    macs_by_layer,
    measure_latency,
    timm_query_model,
)
from searchspaces.cost import count_activations, int8_bytes
from searchspaces.timing import time_passes


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, images: Any) -> Any:
        return self.linear(self.norm(self.conv(images)).mean((2, 3)))


def test_macs_of_a_hand_worked_network() -> None:
    layers = {"conv": 8 * 8 * 8 * 27, "norm": 8 * 8 * 8 * 2, "linear": 8 * 5}
    assert macs_by_layer(Tiny(), 16) == layers
    assert count_macs(Tiny(), 16) == sum(layers.values())
    assert count_parameters(Tiny()) == 8 * 27 + 16 + 45


def test_activations_and_bytes_of_a_hand_worked_network() -> None:
    assert count_activations(Tiny(), 16) == 8 * 8 * 8 + 5
    weights, scales, floats = 8 * 27 + 5 * 8, 8 + 5, 16 + 5  # the norm's two vectors and a bias
    assert int8_bytes(Tiny()) == weights + 4 * scales + 4 * floats


def test_activations_are_fvcores() -> None:
    model = timm_query_model("mobilenetv3_small_050", 8, resolution=32, pretrained=False).eval()
    expected = ActivationCountAnalysis(model, torch.zeros(1, 3, 32, 32)).total()
    assert count_activations(model, 32) == expected


def test_every_kind_of_weight_has_its_bytes() -> None:
    shared = nn.Linear(6, 4, bias=False)
    grouped = nn.Conv2d(4, 8, 3, groups=2)
    transposed = nn.ConvTranspose1d(8, 2, 5)
    alone = nn.MultiheadAttention(4, 2, bias=False)  # its projection in is no linear map's weight
    model = nn.ModuleList([shared, nn.Sequential(shared), grouped, transposed, alone])
    linear = 6 * 4 + 4 * 4
    convolutions = (8 * 2 * 9 + 4 * 8 + 4 * 8) + (8 * 2 * 5 + 4 * 2 + 4 * 2)
    attention = 4 * 3 * 4 * 4 + (4 * 4 + 4 * 4)
    assert int8_bytes(model) == linear + convolutions + attention


class Attention(nn.Module):
    def __init__(self, fused: Any) -> None:
        super().__init__()
        self.fused = fused
        self.patch = nn.Conv2d(3, 6, 4, 4)

    def forward(self, images: Any) -> Any:
        tokens = self.patch(images).flatten(2).mT.unsqueeze(1)
        if self.fused:
            return F.scaled_dot_product_attention(tokens, tokens, tokens)
        return (tokens @ tokens.mT).softmax(-1) @ tokens


@pytest.mark.parametrize("fused", [True, False])
def test_attention_costs_the_same_fused_or_written_out(fused: Any) -> None:
    assert count_macs(Attention(fused), 16) == 16 * 6 * 48 + 2 * 16 * 16 * 6
    assert count_activations(Attention(fused), 16) == 16 * 6 + 16 * 16 + 16 * 6


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_the_parts_sum_up_to_the_whole(name: str) -> None:
    model = timm_query_model(name, 8, resolution=32, pretrained=False)
    parts = macs_by_layer(model, 32)
    assert sum(parts.values()) == count_macs(model, 32)
    names = [each for each, _ in model.named_modules()]
    assert sorted(parts, key=names.index) == list(parts)
    assert parts["projection.linear"] == model.projection.linear.weight.numel()


def test_counting_and_timing_leave_the_model_and_the_threads_alone() -> None:
    model = Tiny().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    count_macs(model, 16)
    count_activations(model, 16)
    assert len(time_passes(model, torch.rand(2, 3, 16, 16), warmup=1, runs=4)) == 4
    assert measure_latency(model, 16, batch=2, warmup=1, runs=3) > 0
    assert model.training
    assert not model.norm.training
    assert torch.get_num_threads() == threads
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=0, rtol=0)

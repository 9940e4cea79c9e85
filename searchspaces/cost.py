"""What a query model costs: multiply-accumulates, activations, parameters, bytes, seconds."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from fvcore.nn.jit_analysis import JitModelAnalysis
from torch import nn
from torch.nn.modules.conv import _ConvNd

_MOST_PARTS = 16
_BLOCK = re.compile(r"\w+(\.\d+)*")  # "stages.1.0" of "stages.1.0.expand.conv"
_STAGE = re.compile(r"\w+(\.\d+)?")


def count_macs(model: nn.Module, resolution: int) -> int:
    """Count the multiply-accumulates of one image with fvcore.

    fvcore counts one per multiply-add (it calls that a "flop"), two per element for a BatchNorm in
    evaluation mode and none for additions, activations and means. Fused attention, which fvcore
    leaves out, is counted as its two matrix products, so that it costs what the written-out form
    costs.

    Args:
        model: A network on images (B, 3, resolution, resolution).
        resolution: Side of the image in pixels.
    """
    with _macs_analysis(model, resolution) as analysis:
        return int(analysis.total())


def macs_by_layer(model: nn.Module, resolution: int) -> dict[str, int]:
    """Split `count_macs` over the modules that do the work, in the order of `named_modules`.

    A module that computes beside its children (attention) is listed with its own part; modules that
    cost nothing are left out. The values sum up to `count_macs`.
    """
    with _macs_analysis(model, resolution) as analysis:
        totals = analysis.by_module()
    return {
        name: own
        for name, module in model.named_modules()
        if (own := int(totals[name] - sum(totals[child] for child in _children(name, module)))) > 0
    }


def macs_by_part(model: nn.Module, resolution: int) -> dict[str, int]:
    """Sum `macs_by_layer` over the blocks of a query model, or its stages if it has many blocks.

    The order is the network's, and the sum is that of `count_macs`.
    """
    layers = {_shorter(name): macs for name, macs in macs_by_layer(model, resolution).items()}
    blocks = _grouped(layers, _BLOCK)
    return blocks if len(blocks) <= _MOST_PARTS else _grouped(layers, _STAGE)


def count_activations(model: nn.Module, resolution: int) -> int:
    """Count the activations of one image with fvcore.

    These are the output elements of convolutions, linear maps and matrix products, as in
    Radosavovic et al., "Designing network design spaces", CVPR 2020, who find that they tell more
    about run time than MACs. Norms, additions and activation functions count nothing. Fused
    attention is counted as its two matrix products.

    Args:
        model: A network on images (B, 3, resolution, resolution).
        resolution: Side of the image in pixels.
    """
    with _analysis(ActivationCountAnalysis, model, resolution, _attention_outputs) as analysis:
        return int(analysis.total())


def count_parameters(model: nn.Module) -> int:
    """Count the elements of all parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def int8_bytes(model: nn.Module) -> int:
    """Return the bytes of the weights after quantisation to int8, per output channel.

    A weight of a convolution or a linear map takes 1 byte, and each of its output channels a
    float32 scale of 4 bytes. Any other parameter (bias, norm, position) stays float32, 4 bytes.
    Weights that are no such layer's own, as `nn.MultiheadAttention` holds them, are not quantised.
    """
    quantised: dict[int, int] = {}
    for module in model.modules():
        if isinstance(module, _ConvNd):
            quantised[id(module.weight)] = module.out_channels
        elif isinstance(module, nn.Linear):
            quantised[id(module.weight)] = module.out_features
    total = 0
    for parameter in model.parameters():
        channels = quantised.get(id(parameter))
        values = parameter.numel()
        total += 4 * values if channels is None else values + 4 * channels
    return total


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (each.type().sizes() for each in inputs[:3])
    return math.prod(query) * key[-2] + math.prod(query[:-1]) * math.prod(value[-2:])


def _attention_outputs(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (each.type().sizes() for each in inputs[:3])
    return math.prod(query[:-1]) * (key[-2] + value[-1])


def _macs_analysis(model: nn.Module, resolution: int) -> AbstractContextManager[JitModelAnalysis]:
    return _analysis(FlopCountAnalysis, model, resolution, _attention_macs)


@contextmanager
def _analysis(
    kind: type[JitModelAnalysis],
    model: nn.Module,
    resolution: int,
    attention: Callable[[list[Any], list[Any]], int],
) -> Iterator[JitModelAnalysis]:
    device = next((each.device for each in model.parameters()), None)
    with evaluating(model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, resolution, resolution, device=device)
        analysis = kind(model, image)
        analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        yield analysis


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _children(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{child}" if name else child for child, _ in module.named_children()]


def _grouped(layers: dict[str, int], level: re.Pattern[str]) -> dict[str, int]:
    parts: dict[str, int] = {}
    for name, macs in layers.items():
        match = level.match(name)
        part = match[0] if match else name
        parts[part] = parts.get(part, 0) + macs
    return parts


def _shorter(name: str) -> str:
    return name.removeprefix("backbone.").removeprefix("network.") or "input"

"""What a query model costs: multiply-accumulates, parameters, seconds."""

import math
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn


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
    with _analysis(model, resolution) as analysis:
        return int(analysis.total())


def macs_by_layer(model: nn.Module, resolution: int) -> dict[str, int]:
    """Split `count_macs` over the modules that do the work, in the order of `named_modules`.

    A module that computes beside its children (attention) is listed with its own part; modules that
    cost nothing are left out. The values sum up to `count_macs`.
    """
    with _analysis(model, resolution) as analysis:
        totals = analysis.by_module()
    return {
        name: own
        for name, module in model.named_modules()
        if (own := int(totals[name] - sum(totals[child] for child in _children(name, module)))) > 0
    }


def count_parameters(model: nn.Module) -> int:
    """Count the elements of all parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_latency(
    model: nn.Module,
    resolution: int,
    *,
    batch: int = 1,
    threads: int = 1,
    warmup: int = 5,
    runs: int = 30,
) -> float:
    """Return the median seconds of a forward pass in PyTorch, on the model's device.

    Args:
        model: A network on images (B, 3, resolution, resolution).
        resolution: Side of the images in pixels.
        batch: Images per pass.
        threads: CPU threads that PyTorch may use.
        warmup: Passes before the clock starts.
        runs: Timed passes.
    """
    device = next(model.parameters()).device
    images = torch.rand(batch, 3, resolution, resolution, device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds = []
    try:
        with _evaluating(model), torch.inference_mode():
            for run in range(warmup + runs):
                start = time.perf_counter()
                model(images)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if run >= warmup:
                    seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return statistics.median(seconds)


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (each.type().sizes() for each in inputs[:3])
    return math.prod(query) * key[-2] + math.prod(query[:-1]) * math.prod(value[-2:])


@contextmanager
def _analysis(model: nn.Module, resolution: int) -> Iterator[FlopCountAnalysis]:
    device = next(model.parameters()).device
    with _evaluating(model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, resolution, resolution, device=device)
        analysis = FlopCountAnalysis(model, image)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        yield analysis


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _children(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{child}" if name else child for child, _ in module.named_children()]

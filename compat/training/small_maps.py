"""Gradients of depthwise convolutions on maps smaller than their kernel.

For these oneDNN, which PyTorch convolves with on CPUs, has no fast kernel: on one core the weights'
gradient of 672 kernels of 5×5 takes 47 ms for 64 maps of 4×4, 36 times what the maps' gradient
takes. Query models see such maps in their last stages, since their images are small. Here each
weight's gradient is summed up by itself, over the places where the weight was used: 4 ms.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class SmallMaps(TorchFunctionMode):
    """Within it, such convolutions on a CPU get the gradients of their weights that way.

    Values and gradients are those of PyTorch up to rounding.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.conv2d:
            return _convolve(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolve(
    input: Tensor,  # named as PyTorch does: callers pass them by name too
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: str | int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    depthwise = weight.ndim == 4 and groups == weight.shape[0] == input.shape[-3]
    if (
        not depthwise
        or input.ndim != 4
        or input.device.type != "cpu"
        or input.dtype != weight.dtype
        or torch.is_autocast_enabled("cpu")
        or isinstance(padding, str)
        or _pair(dilation) != (1, 1)
        or not weight.requires_grad
        or not (input.shape[2] < weight.shape[2] or input.shape[3] < weight.shape[3])
    ):
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    result: Tensor = _Depthwise.apply(input, weight, _pair(stride), _pair(padding))
    return result if bias is None else result + bias[:, None, None]


class _Depthwise(torch.autograd.Function):
    """One kernel per channel: (B, C, h, w) by (C, 1, k, l) to (B, C, h', w')."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(maps, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, weight = ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            of_maps = conv2d_input(
                maps.shape, weight, gradient, ctx.stride, ctx.padding, 1, len(weight)
            )
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(maps, gradient, weight, ctx.stride, ctx.padding)
        return of_maps, of_weight, None, None


def _of_weight(
    maps: Tensor, gradient: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    found = torch.zeros_like(weight)
    maps, gradient = maps.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    for i in range(weight.shape[2]):
        rows, read_rows = _met(maps.shape[1], gradient.shape[1], i - padding[0], stride[0])
        for j in range(weight.shape[3]):
            columns, read_columns = _met(
                maps.shape[2], gradient.shape[2], j - padding[1], stride[1]
            )
            products = maps[:, read_rows, read_columns] * gradient[:, rows, columns]
            found[:, 0, i, j] = products.sum((0, 1, 2))
    return found


def _met(side: int, results: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Places of the result where a weight falls inside the map, and the places it reads there."""
    first = max(0, -(offset // stride))
    count = max(0, min(results, (side - 1 - offset) // stride + 1) - first)
    begin = first * stride + offset
    return slice(first, first + count), slice(begin, begin + count * stride, stride)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])

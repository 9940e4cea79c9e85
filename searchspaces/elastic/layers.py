"""Layers of a supernet: each uses the first of its channels and the centre of its kernel."""

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ElasticConv2d(nn.Conv2d):
    """A convolution that uses its first channels and the centre of its kernel.

    The number of input channels follows the input; `activate` sets the rest. Depthwise where the
    full convolution is depthwise.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.transforms = nn.ParameterDict()
        self.activate(self.out_channels, self.kernel_size[0], self.stride[0])

    def learn_kernels(self, sides: Iterable[int]) -> None:
        """Make each smaller kernel a learnt linear map of the centre of the next larger one.

        One matrix (side², side²) per side, shared by all channels: Cai et al., "Once-for-All",
        ICLR 2020, section 3.3, elastic kernel size. Here it is stored as its difference from the
        identity and starts at zero, so that weight decay pulls towards the plain centre.

        Args:
            sides: Sides of kernels; those that are not smaller than the full one have no matrix.
        """
        for side in sorted({side for side in sides if side < self.kernel_size[0]}, reverse=True):
            self.transforms[str(side)] = nn.Parameter(self.weight.new_zeros(side**2, side**2))

    def activate(self, width: int, kernel: int = 1, stride: int = 1) -> None:
        """Choose the number of output channels, the kernel's side and the stride."""
        self.width, self.active_kernel, self.active_stride = width, kernel, stride

    def part(self, width: int, channels: int, kernel: int) -> Tensor:
        """Return the weights (width, channels, kernel, kernel) of a smaller convolution."""
        weight = self.weight[:width, :channels]
        for side, difference in self.transforms.items():  # largest first
            if int(side) < kernel:
                break
            weight = _centre(weight, int(side))
            filters = weight.flatten(2)
            weight = (filters + filters @ difference).unflatten(2, weight.shape[2:])
        return _centre(weight, kernel)

    def forward(self, maps: Tensor) -> Tensor:
        depthwise = self.groups > 1
        return F.conv2d(
            maps,
            self.part(self.width, 1 if depthwise else maps.shape[1], self.active_kernel),
            None if self.bias is None else self.bias[: self.width],
            self.active_stride,
            self.active_kernel // 2,
            groups=self.width if depthwise else 1,
        )


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm that uses as many of its first channels as the input has."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, maps: Tensor) -> Tensor:
        width = maps.shape[1]
        momentum = self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            if momentum is None:  # the cumulative average, as in nn.BatchNorm2d
                momentum = 1.0 / int(self.num_batches_tracked)
        return F.batch_norm(
            maps,
            self.running_mean[:width],
            self.running_var[:width],
            self.weight[:width],
            self.bias[:width],
            self.training,
            momentum or 0.0,
            self.eps,
        )


class ElasticLinear(nn.Linear):
    """A linear map that uses its first outputs, and as many of its first inputs as come."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.activate(self.out_features)

    def activate(self, width: int) -> None:
        """Choose the number of outputs."""
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight[: self.width, : features.shape[-1]]
        return F.linear(features, weight, None if self.bias is None else self.bias[: self.width])


class ElasticLayerNorm(nn.LayerNorm):
    """A LayerNorm over the last dimension that uses as many of its first channels as come."""

    def forward(self, features: Tensor) -> Tensor:
        width = features.shape[-1]
        return F.layer_norm(features, (width,), self.weight[:width], self.bias[:width], self.eps)


def shared_part(shared: Tensor, shape: torch.Size) -> Tensor:
    """Return the first channels (dimensions 0, 1) and the kernel's centre (dimensions 2, 3)."""
    starts = [0 if axis < 2 else (shared.shape[axis] - n) // 2 for axis, n in enumerate(shape)]
    return shared[tuple(slice(s, s + n) for s, n in zip(starts, shape, strict=True))]


@torch.no_grad()
def fold_kernels(shared: nn.Module, alone: nn.Module) -> None:
    """Copy kernels out of a supernet as its learnt matrices make them, in place.

    Args:
        shared: A network of elastic layers.
        alone: A network of ordinary layers with the same names.
    """
    for name, conv in alone.named_modules():
        if isinstance(conv, nn.Conv2d):
            width, channels, kernel, _ = conv.weight.shape
            source = cast(ElasticConv2d, shared.get_submodule(name))
            conv.weight.copy_(source.part(width, channels, kernel))


def _centre(weight: Tensor, side: int) -> Tensor:
    margin = (weight.shape[-1] - side) // 2
    return weight[..., margin : margin + side, margin : margin + side]

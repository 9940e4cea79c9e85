"""One network with shared weights that can act as any architecture of an MBConvSpace."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchspaces.architecture import Architecture
from searchspaces.mbconv.layers import Block, ConvNorm, Layers, MBConvBackbone, SqueezeExcite
from searchspaces.mbconv.plan import BlockPlan
from searchspaces.mbconv.space import MBConvSpace
from searchspaces.query_model import Projection, QueryModel


class ElasticConv2d(nn.Conv2d):
    """A convolution that uses its first channels and the centre of its kernel.

    The number of input channels follows the input; `activate` sets the rest. Depthwise where the
    full convolution is depthwise.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.activate(self.out_channels, self.kernel_size[0], self.stride[0])

    def activate(self, width: int, kernel: int = 1, stride: int = 1) -> None:
        """Choose the number of output channels, the kernel's side and the stride."""
        self.width, self.active_stride, self.active_padding = width, stride, kernel // 2
        margin = (self.kernel_size[0] - kernel) // 2
        self.window = slice(margin, margin + kernel)

    def forward(self, maps: Tensor) -> Tensor:
        depthwise = self.groups > 1
        weight = self.weight[
            : self.width, : 1 if depthwise else maps.shape[1], self.window, self.window
        ]
        return F.conv2d(
            maps,
            weight,
            None if self.bias is None else self.bias[: self.width],
            self.active_stride,
            self.active_padding,
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
    """A linear map that uses as many of its first inputs as the input has."""

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight[:, : features.shape[-1]])


ELASTIC = Layers(conv=ElasticConv2d, norm=ElasticBatchNorm2d)


class MBConvSupernet(QueryModel):
    """A query model that is every architecture of a space at once, one at a time.

    Narrow layers are the first channels of wide ones, small kernels the centres of large ones,
    shallow stages the first blocks of deep ones (Cai et al., "Once-for-All", ICLR 2020; Yu et al.,
    "BigNAS", ECCV 2020). It starts as the largest architecture.

    Args:
        space: The architectures.
        dimension: Number of dimensions of the gallery space.
    """

    backbone: MBConvBackbone

    def __init__(self, space: MBConvSpace, dimension: int) -> None:
        plan = space.full_plan()
        projection = Projection(plan.head_width, dimension)
        projection.linear = ElasticLinear(plan.head_width, dimension, bias=False)
        backbone = MBConvBackbone(plan, ELASTIC)
        super().__init__(backbone, projection, resolution=plan.resolution)
        self.space = space
        self.activate(space.largest())

    def activate(self, arch: Architecture) -> None:
        """Act as this architecture from now on; images have to come at its resolution.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        plan = self.space.plan(arch)
        backbone = self.backbone
        _activate(backbone.stem, plan.stem_width, kernel=3, stride=plan.stem_stride)
        for blocks, plans in zip(backbone.stages, plan.stages, strict=True):
            for block, block_plan in zip(cast(nn.ModuleList, blocks), plans, strict=False):
                _activate_block(cast(Block, block), block_plan)
        _activate(backbone.head, plan.head_width)
        backbone.depths = [len(plans) for plans in plan.stages]
        self.resolution = plan.resolution
        self.arch = arch

    @torch.no_grad()
    def extract(self, arch: Architecture) -> QueryModel:
        """Copy an architecture out as a network of its own, BatchNorm statistics included.

        In evaluation mode its outputs equal those of the supernet with this architecture active.

        Returns:
            A model of ordinary PyTorch layers, in evaluation mode, on the supernet's device.
        """
        model = self.space.build(arch, self.dimension)
        shared = self.state_dict()
        for name, tensor in model.state_dict().items():
            tensor.copy_(_shared_part(shared[name], tensor.shape))
        return model.to(self.mean.device).eval()


def _activate(layer: ConvNorm, width: int, *, kernel: int = 1, stride: int = 1) -> None:
    cast(ElasticConv2d, layer.conv).activate(width, kernel, stride)


def _activate_block(block: Block, plan: BlockPlan) -> None:
    block.residual = plan.residual
    _activate(block.expand, plan.hidden)
    _activate(block.depthwise, plan.hidden, kernel=plan.kernel, stride=plan.stride)
    if isinstance(block.excite, SqueezeExcite):
        cast(ElasticConv2d, block.excite.reduce).activate(plan.squeeze)
        cast(ElasticConv2d, block.excite.expand).activate(plan.hidden)
    _activate(block.project, plan.width)


def _shared_part(shared: Tensor, shape: torch.Size) -> Tensor:
    """First channels (dimensions 0 and 1), centre of the kernel (dimensions 2 and 3)."""
    starts = [0 if axis < 2 else (shared.shape[axis] - n) // 2 for axis, n in enumerate(shape)]
    return shared[tuple(slice(s, s + n) for s, n in zip(starts, shape, strict=True))]

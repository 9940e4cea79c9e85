"""The widths, kernels and strides of one concrete network, and what it costs."""

from dataclasses import dataclass

from searchspaces.elastic.plan import strided


@dataclass(frozen=True)
class BlockPlan:
    """An inverted bottleneck: 1x1 expansion, depthwise k x k, optional SE, 1x1 projection."""

    width_in: int
    hidden: int
    width: int
    kernel: int
    stride: int
    squeeze: int
    """Hidden channels of squeeze-and-excitation, 0 for none."""
    activation: str

    @property
    def residual(self) -> bool:
        """Whether the input can be, and therefore is, added to the output."""
        return self.stride == 1 and self.width_in == self.width


@dataclass(frozen=True)
class NetworkPlan:
    """Stem, stages of blocks, final 1x1 convolution."""

    resolution: int
    stem_width: int
    stem_stride: int
    stages: tuple[tuple[BlockPlan, ...], ...]
    head_width: int

    @property
    def features(self) -> int:
        """Number of pooled features."""
        return self.head_width

    def macs(self, dimension: int) -> int:
        """Count the multiply-accumulates of one image exactly as `searchspaces.count_macs` does.

        A convolution costs k² · c_in/groups · c_out per output position, a BatchNorm 2 per element.

        Args:
            dimension: Number of dimensions that the pooled features are projected to.
        """
        side = strided(self.resolution, self.stem_stride)
        total = side**2 * self.stem_width * (9 * 3 + 2)
        for stage in self.stages:
            for block in stage:
                total += side**2 * block.hidden * (block.width_in + 2)
                side = strided(side, block.stride)
                total += side**2 * block.hidden * (block.kernel**2 + 2)
                total += 2 * block.hidden * block.squeeze
                total += side**2 * block.width * (block.hidden + 2)
        width = self.stages[-1][-1].width
        return total + side**2 * self.head_width * (width + 2) + self.head_width * dimension

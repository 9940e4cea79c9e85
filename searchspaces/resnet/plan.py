"""The convolutions of one concrete residual network, and what they cost."""

from dataclasses import dataclass

from searchspaces.elastic.plan import strided


@dataclass(frozen=True)
class ConvPlan:
    """A k x k convolution without bias and its BatchNorm."""

    width_in: int
    width: int
    kernel: int = 1
    stride: int = 1

    def macs(self, side: int) -> int:
        """Count the multiply-accumulates on maps of this side, 2 per element for the BatchNorm."""
        weights = self.kernel**2 * self.width_in
        return strided(side, self.stride) ** 2 * self.width * (weights + 2)


@dataclass(frozen=True)
class BlockPlan:
    """Convolutions in a row, added to the input or to a 1x1 convolution of it."""

    convs: tuple[ConvPlan, ...]
    shortcut: ConvPlan | None


@dataclass(frozen=True)
class NetworkPlan:
    """Stem, max-pooling or not, stages of blocks."""

    resolution: int
    stem: ConvPlan
    pooled: bool
    stages: tuple[tuple[BlockPlan, ...], ...]

    @property
    def features(self) -> int:
        """Number of pooled features."""
        return self.stages[-1][-1].convs[-1].width

    def macs(self, dimension: int) -> int:
        """Count the multiply-accumulates of one image exactly as `searchspaces.count_macs` does.

        Args:
            dimension: Number of dimensions that the pooled features are projected to.
        """
        total = self.stem.macs(self.resolution)
        side = strided(self.resolution, self.stem.stride)
        if self.pooled:
            side = strided(side, 2)
        for stage in self.stages:
            for block in stage:
                if block.shortcut:
                    total += block.shortcut.macs(side)
                for conv in block.convs:
                    total += conv.macs(side)
                    side = strided(side, conv.stride)
        return total + self.features * dimension


def basic(width_in: int, inner: int, width: int, kernel: int, stride: int) -> tuple[ConvPlan, ...]:
    """Return the convolutions of He et al., CVPR 2016, figure 5 left."""
    return ConvPlan(width_in, inner, kernel, stride), ConvPlan(inner, width, kernel)


def bottleneck(
    width_in: int, inner: int, width: int, kernel: int, stride: int
) -> tuple[ConvPlan, ...]:
    """Return those of figure 5 right, but with the stride in the middle, as is usual today."""
    return (
        ConvPlan(width_in, inner),
        ConvPlan(inner, inner, kernel, stride),
        ConvPlan(inner, width),
    )


BLOCKS = {"basic": basic, "bottleneck": bottleneck}

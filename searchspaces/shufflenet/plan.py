"""The blocks of one concrete network, their convolutions, and what they cost."""

from dataclasses import dataclass
from functools import cache

from searchspaces.elastic.plan import strided

KERNELS = {"shuffle3": 3, "shuffle5": 5, "shuffle7": 7, "xception": 3}
"""The kinds of blocks, each with the side of its depthwise kernels."""


@dataclass(frozen=True)
class ConvPlan:
    """A convolution without bias, a BatchNorm, and a ReLU where `active`."""

    width_in: int
    width: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    active: bool = True

    def macs(self, side: int) -> int:
        """Count the multiply-accumulates for maps of side x side at its input."""
        inputs = 1 if self.depthwise else self.width_in
        return strided(side, self.stride) ** 2 * self.width * (self.kernel**2 * inputs + 2)


@dataclass(frozen=True)
class BlockPlan:
    """What one layer does; the outputs of its two branches are concatenated.

    With stride 2 both branches take all channels. With stride 1 the main branch takes half of
    them, and the others are left as they are.
    """

    kind: str
    width_in: int
    width: int
    hidden: int
    stride: int

    @property
    def main(self) -> tuple[ConvPlan, ...]:
        """The main branch: of ShuffleNetV2's form, or three depthwise separable convolutions."""
        kernel, hidden = KERNELS[self.kind], self.hidden
        taken = self.width_in if self.stride == 2 else self.width_in // 2
        given = self.width - taken
        if self.kind == "xception":
            return (
                _depthwise(taken, kernel, self.stride),
                ConvPlan(taken, hidden),
                _depthwise(hidden, kernel),
                ConvPlan(hidden, hidden),
                _depthwise(hidden, kernel),
                ConvPlan(hidden, given),
            )
        return (
            ConvPlan(taken, hidden),
            _depthwise(hidden, kernel, self.stride),
            ConvPlan(hidden, given),
        )

    @property
    def shortcut(self) -> tuple[ConvPlan, ...]:
        """The other branch, empty where channels are left as they are."""
        if self.stride == 1:
            return ()
        width = self.width_in
        return _depthwise(width, KERNELS[self.kind], self.stride), ConvPlan(width, width)


@dataclass(frozen=True)
class NetworkPlan:
    """Stem, layers, final 1x1 convolution."""

    resolution: int
    stem: ConvPlan
    blocks: tuple[BlockPlan, ...]
    head: ConvPlan

    @property
    def features(self) -> int:
        """Number of pooled features."""
        return self.head.width

    def macs(self, dimension: int) -> int:
        """Count the multiply-accumulates of one image exactly as `searchspaces.count_macs` does.

        A convolution costs k² · c_in/groups · c_out per output position, a BatchNorm 2 per element.

        Args:
            dimension: Number of dimensions that the pooled features are projected to.
        """
        total = self.stem.macs(self.resolution)
        side = strided(self.resolution, self.stem.stride)
        for block in self.blocks:
            total += _block_macs(block, side)
            side = strided(side, block.stride)
        return total + self.head.macs(side) + self.features * dimension


@cache  # few different blocks make up all networks of a space
def _block_macs(block: BlockPlan, side: int) -> int:
    total = 0
    for branch in (block.main, block.shortcut):
        at = side
        for conv in branch:
            total += conv.macs(at)
            at = strided(at, conv.stride)
    return total


def _depthwise(width: int, kernel: int, stride: int = 1) -> ConvPlan:
    return ConvPlan(width, width, kernel, stride, depthwise=True, active=False)

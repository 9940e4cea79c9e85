"""The elastic residual space: which widths, depths, inner widths, kernels and strides there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from searchspaces.elastic import choices
from searchspaces.elastic.choices import (
    Depths,
    Kernels,
    Numbers,
    Ratios,
    Resolutions,
    Strides,
    Widths,
)
from searchspaces.elastic.modules import PLAIN, Layers
from searchspaces.elastic.plan import multiple_of_8
from searchspaces.elastic.space import StagedSpace
from searchspaces.errors import SearchSpaceError
from searchspaces.resnet.blocks import block_recipes
from searchspaces.resnet.layers import ResNetBackbone
from searchspaces.resnet.plan import BLOCKS, BlockPlan, ConvPlan, NetworkPlan
from searchspaces.resnet.supernet import ResNetSupernet
from searchspaces.space import BlockRecipe
from searchspaces.supernet import Supernet
from searchspaces.support.naming import suggestion


@dataclass(frozen=True)
class Stage:
    """The choices of one stage; its blocks share all but the width of their input.

    Args:
        widths: Output channels, multiples of 8.
        depths: Numbers of blocks.
        ratios: Inner channels of a block as a share of its output channels, rounded to 8; He et
            al. have 1 in basic blocks and 0.25 in bottlenecks.
        block: "basic" (two k x k convolutions) or "bottleneck" (1 x 1, k x k, 1 x 1); not searched.
        kernels: Odd sides k of the kernels.
        strides: Strides of the first block, 1 or 2.
    """

    widths: Widths
    depths: Depths
    ratios: Ratios = (0.5, 1)
    block: str = "basic"
    kernels: Kernels = (3,)
    strides: Strides = (2,)


DEFAULT_STAGES = (
    Stage((16, 24, 32), (1, 2), strides=(1,)),
    Stage((24, 32, 48), (1, 2)),
    Stage((48, 64, 96), (1, 2)),
    Stage((128, 192, 256), (1, 2)),
)

StemStrides = Annotated[
    tuple[int, ...],
    Numbers("values of 1, 2 and 4", lambda v: isinstance(v, int) and v in (1, 2, 4)),
]


@dataclass(frozen=True)
class ResNetSpace(StagedSpace[NetworkPlan]):
    """Query networks of residual blocks for small images; every combination is a valid network.

    Options may be plain lists and dictionaries, as YAML gives them. He et al., "Deep residual
    learning for image recognition", CVPR 2016.

    Whether the first block of a stage has a 1x1 convolution as its shortcut is fixed by the
    options and not by the architecture: it has one unless its input has the shape of its output in
    every architecture. So a shared block has one role, whatever the widths and the stride. All
    other shortcuts are identities.

    Args:
        resolutions: Sides of the input in pixels.
        stem_widths: Output channels of the first, 3x3, convolution, multiples of 8.
        stem_strides: Strides of the stem: 1 or 2 for the convolution, 4 for a convolution of
            stride 2 and a max-pooling of stride 2.
        stages: The choices of each stage.

    Raises:
        SearchSpaceError: If a choice is empty, repeated or out of range; names the option.
    """

    name: ClassVar[str] = "resnet"
    stage_type: ClassVar[type] = Stage

    resolutions: Resolutions = (32, 40, 48)
    stem_widths: Widths = (16, 24, 32)
    stem_strides: StemStrides = (1, 2)
    stages: tuple[Stage, ...] = DEFAULT_STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        for index, stage in enumerate(self.stages, 1):
            if stage.block not in list(BLOCKS):
                raise SearchSpaceError(
                    f"stages[{index}].block of the space '{self.name}' is {stage.block!r}: "
                    f"{suggestion(str(stage.block), list(BLOCKS))}"
                )

    def backbone(self, plan: NetworkPlan, layers: Layers = PLAIN) -> ResNetBackbone:
        """Make the network from normalised images to pooled features."""
        return ResNetBackbone(plan, layers)

    def supernet(self, dimension: int, *, kernel_transform: bool = False) -> Supernet:
        """Make the network that acts as any of them, as `StagedSpace.supernet` says."""
        return ResNetSupernet(self, dimension, kernel_transform=kernel_transform)

    def _recipes(self, plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
        return block_recipes(plan, dimension)

    def _plan(self, params: Mapping[str, Any]) -> NetworkPlan:
        network = choices.chosen(self, params)
        width, widths = network["stem_width"], self.stem_widths
        stages = []
        for index, stage in enumerate(self.stages, 1):
            choice = choices.chosen(stage, params, f"stage{index}_")
            projecting = stage.strides != (1,) or len({*widths, *stage.widths}) > 1
            inner = multiple_of_8(choice["width"] * choice["ratio"])
            blocks = []
            for position in range(choice["depth"]):
                first = position == 0
                stride = choice["stride"] if first else 1
                convs = BLOCKS[stage.block](width, inner, choice["width"], choice["kernel"], stride)
                projected = ConvPlan(width, choice["width"], stride=stride)
                blocks.append(BlockPlan(convs, projected if first and projecting else None))
                width = choice["width"]
            stages.append(tuple(blocks))
            widths = stage.widths
        stride = network["stem_stride"]
        return NetworkPlan(
            resolution=network["resolution"],
            stem=ConvPlan(3, network["stem_width"], 3, min(stride, 2)),
            pooled=stride == 4,
            stages=tuple(stages),
        )

"""The elastic inverted-bottleneck space: which widths, depths, kernels and strides there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from searchspaces.elastic import choices
from searchspaces.elastic.choices import (
    Depths,
    Expansions,
    Kernels,
    Kinds,
    Resolutions,
    Strides,
    Widths,
)
from searchspaces.elastic.modules import ACTIVATIONS, PLAIN, Layers
from searchspaces.elastic.plan import multiple_of_8
from searchspaces.elastic.space import StagedSpace
from searchspaces.mbconv.blocks import block_recipes
from searchspaces.mbconv.layers import MBConvBackbone
from searchspaces.mbconv.plan import BlockPlan, NetworkPlan
from searchspaces.mbconv.supernet import MBConvSupernet
from searchspaces.space import BlockRecipe
from searchspaces.supernet import Supernet

SWITCH = Kinds((False, True))


@dataclass(frozen=True)
class Stage:
    """The choices of one stage; its blocks share all but the width of their input.

    Args:
        widths: Output channels, multiples of 8.
        depths: Numbers of blocks.
        expansions: Hidden channels as a multiple of a block's input channels, rounded to 8.
        kernels: Odd sides of the depthwise kernel.
        strides: Strides of the first block, 1 or 2.
        activation: "relu", "hswish" or a list of both; a parameter only as a list.
        se: Whether its blocks have squeeze-and-excitation (Hu et al., CVPR 2018; a quarter of the
            hidden channels), or a list of both; a parameter only as a list. The space's by default.
    """

    widths: Widths
    depths: Depths
    expansions: Expansions = (3, 4, 6)
    kernels: Kernels = (3, 5)
    strides: Strides = (2,)
    activation: Annotated[str | tuple[str, ...], Kinds(tuple(ACTIVATIONS))] = "hswish"
    se: Annotated[bool | tuple[bool, ...] | None, SWITCH] = None


DEFAULT_STAGES = (
    Stage((16, 24), (1, 2), (2, 3), (3, 5), (2,), "relu"),
    Stage((24, 32), (1, 2, 3), (2, 3), (3, 5), (2,), "relu"),
    Stage((40, 48, 56), (1, 2, 3), (2, 3, 4), (3, 5), (1, 2), "hswish"),
    Stage((64, 80, 96), (1, 2), (2, 3, 4), (3, 5), (1,), "hswish"),
)


@dataclass(frozen=True)
class MBConvSpace(StagedSpace[NetworkPlan]):
    """Query networks of MobileNetV3 blocks for small images; every combination is a valid network.

    Options may be plain lists and dictionaries, as YAML gives them. Howard et al., "Searching for
    MobileNetV3", ICCV 2019.

    Args:
        resolutions: Sides of the input in pixels.
        stem_widths: Output channels of the first convolution, multiples of 8.
        stem_strides: Strides of the first convolution.
        stages: The choices of each stage.
        head_widths: Output channels of the final 1x1 convolution, multiples of 8.
        se: `Stage.se` of the stages that say nothing of it.

    Raises:
        SearchSpaceError: If a choice is empty, repeated or out of range; names the option.
    """

    name: ClassVar[str] = "mbconv"
    stage_type: ClassVar[type] = Stage

    resolutions: Resolutions = (32, 40, 48)
    stem_widths: Widths = (8, 16)
    stem_strides: Strides = (1, 2)
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    head_widths: Widths = (192, 256, 320)
    se: bool | tuple[bool, ...] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "se", SWITCH.read(self.se, f"se of the space '{self.name}'"))
        super().__post_init__()

    def backbone(self, plan: NetworkPlan, layers: Layers = PLAIN) -> MBConvBackbone:
        """Make the network from normalised images to pooled features."""
        return MBConvBackbone(plan, layers)

    def supernet(self, dimension: int, *, kernel_transform: bool = False) -> Supernet:
        """Make the network that acts as any of them, as `StagedSpace.supernet` says."""
        return MBConvSupernet(self, dimension, kernel_transform=kernel_transform)

    def _inherited(self) -> Mapping[str, Any]:
        return {"se": self.se}

    def _recipes(self, plan: NetworkPlan, dimension: int) -> list[BlockRecipe]:
        return block_recipes(plan, dimension)

    def _plan(self, params: Mapping[str, Any]) -> NetworkPlan:
        network = choices.chosen(self, params)
        width = network["stem_width"]
        stages = []
        for index, stage in enumerate(self.stages, 1):
            choice = choices.chosen(stage, params, f"stage{index}_")
            blocks = []
            for position in range(choice["depth"]):
                hidden = multiple_of_8(width * choice["expansion"])
                blocks.append(
                    BlockPlan(
                        width_in=width,
                        hidden=hidden,
                        width=choice["width"],
                        kernel=choice["kernel"],
                        stride=choice["stride"] if position == 0 else 1,
                        squeeze=multiple_of_8(hidden / 4) if choice["se"] else 0,
                        activation=choice["activation"],
                    )
                )
                width = choice["width"]
            stages.append(tuple(blocks))
        return NetworkPlan(
            resolution=network["resolution"],
            stem_width=network["stem_width"],
            stem_stride=network["stem_stride"],
            stages=tuple(stages),
            head_width=network["head_width"],
        )

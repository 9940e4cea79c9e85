"""What the spaces of convolutional networks with elastic stages have in common."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, ClassVar

from torch import nn

from searchspaces import parameters
from searchspaces.architecture import Architecture
from searchspaces.elastic import choices
from searchspaces.elastic.modules import PLAIN, Layers
from searchspaces.elastic.planned import AnyPlan, PlannedSpace
from searchspaces.errors import SearchSpaceError
from searchspaces.supernet import Supernet
from searchspaces.support.naming import suggestion


class StagedSpace(PlannedSpace[AnyPlan]):
    """A planned space whose options list choices, for the whole network and for each stage.

    Its field `stages` holds instances of `stage_type`, or what makes them: YAML's dictionaries.
    What costs more is larger, except strides. Its parameter `stem_width` is the number of channels
    that the first stage is given; all others of the whole network decide on sides of maps, but for
    an optional `head_width`, which decides on the head alone.

    Attributes:
        stage_type: A frozen dataclass with the options of one stage, `widths`, `depths`, `strides`
            and `kernels` among them.
    """

    stage_type: ClassVar[type]
    stages: tuple[Any, ...]

    def __post_init__(self) -> None:
        is_list = isinstance(self.stages, list | tuple)
        if not is_list or not 0 < len(self.stages) <= choices.MOST_LAYERS:
            raise SearchSpaceError(
                f"'stages' of the space '{self.name}' is {self.stages!r}: give a list of at least "
                f"one stage and at most {choices.MOST_LAYERS}"
            )
        for option, values in choices.read(self, f"{{}} of the space '{self.name}'").items():
            object.__setattr__(self, option, values)
        stages = tuple(self._stage(f"stages[{i}]", each) for i, each in enumerate(self.stages, 1))
        object.__setattr__(self, "stages", stages)

    def full_plan(self) -> AnyPlan:
        """Return the plan whose every layer holds that layer of every architecture."""
        return self._plan(self.largest().params)

    @abstractmethod
    def backbone(self, plan: AnyPlan, layers: Layers = PLAIN) -> nn.Module:
        """Make the network from normalised images to pooled features."""

    @abstractmethod
    def supernet(self, dimension: int, *, kernel_transform: bool = False) -> Supernet:
        """Make the network that acts as any of them, with fresh weights.

        Args:
            dimension: Number of dimensions of the gallery space.
            kernel_transform: Whether smaller kernels are learnt maps of larger ones' centres and
                not the centres themselves; see `ElasticConv2d.learn_kernels`.
        """

    def _inherited(self) -> Mapping[str, Any]:
        """Return the options that a stage takes from the space where it says nothing."""
        return {}

    def _extreme(self, *, most: bool) -> Architecture:
        return Architecture(
            self.name,
            {
                name: parameters.grid(name, each)[-1 if most != name.endswith("stride") else 0]
                for name, each in self._distributions.items()
            },
        )

    def _covering(self) -> Iterator[Mapping[str, Any]]:
        """Vary what decides on a block alone; the largest architecture's depths have all blocks."""
        largest = self.largest().params
        for names in self._deciding():
            grids = (parameters.grid(name, self._distributions[name]) for name in names)
            for values in product(*grids):
                yield {**largest, **dict(zip(names, values, strict=True))}

    def _deciding(self) -> Iterator[list[str]]:
        """Yield the parameters that decide on the blocks of each stage, and then on the head.

        These are its own, the width before it, and what decides on the side of its maps.
        """
        network = [name for name in self._distributions if not name.startswith("stage")]
        sides = [name for name in network if not name.endswith("_width")]
        width = "stem_width"
        for stage in (f"stage{number}_" for number in range(1, len(self.stages) + 1)):
            own = [name for name in self._distributions if name.startswith(stage)]
            yield [*sides, width, *(name for name in own if name != f"{stage}depth")]
            sides.append(f"{stage}stride")
            width = f"{stage}width"
        yield [*sides, width, *(name for name in network if name == "head_width")]

    def _stage(self, where: str, given: Any) -> Any:
        if not isinstance(given, (Mapping, self.stage_type)):
            raise SearchSpaceError(
                f"{where} of the space '{self.name}' is {given!r}: give the stage's options by name"
            )
        given = given if isinstance(given, Mapping) else vars(given)
        options = {**self._inherited(), **{k: v for k, v in given.items() if v is not None}}
        known = {field.name: field for field in dataclasses.fields(self.stage_type)}
        for option in options:
            if option not in known:
                raise SearchSpaceError(
                    f"{where} of the space '{self.name}' has no option '{option}': "
                    f"{suggestion(str(option), known)}"
                )
        for option, field in known.items():
            if field.default is dataclasses.MISSING and option not in options:
                raise SearchSpaceError(
                    f"{where} of the space '{self.name}' needs the option '{option}'"
                )
        stage = self.stage_type(**options)
        read = choices.read(stage, f"{where}.{{}} of the space '{self.name}'")
        return dataclasses.replace(stage, **read)

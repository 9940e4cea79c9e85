"""Slices of one timm backbone: a width and a depth for each of its stages, and a resolution."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import timm
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field

from pruning.elastic.costs import PROJECTION, Costs, with_zeros
from pruning.elastic.form import BACKBONE, Form, find_form
from pruning.elastic.supernet import Slice, TimmElasticSupernet
from pruning.errors import PruningError
from pruning.families import prepare
from pruning.importance import CRITERIA
from pruning.kept import kept_channels, set_kept
from pruning.nested import cuts, narrow
from searchspaces import (
    Architecture,
    ParametricSpace,
    QueryModel,
    SearchSpaceError,
    Supernet,
    backbone_levels,
    count_macs,
    own_resolution,
    timm_query_model,
)
from searchspaces.leaving_out import leave_out
from searchspaces.options import Different, check_options
from searchspaces.projection import Projection
from searchspaces.support.naming import suggestion
from searchspaces.support.section import Resolution, Section

_SLICES = 64  # of the last ones the outlines are kept

Share = Annotated[float, Field(gt=0, le=1)]


class _Options(Section):
    """The kinds of the options, and how large they may be."""

    backbone: str
    resolutions: Annotated[tuple[Resolution, ...], Field(max_length=1000), Different]
    widths: Annotated[tuple[Share, ...], Field(min_length=1, max_length=1000), Different]
    least_depth: float = Field(ge=0, le=1)
    levels: bool | None
    least_levels: int = Field(ge=1, le=1000)
    order: str
    pooling: Literal["avg", "gem"]
    pretrained: bool
    checkpoint: str | None


@dataclass(frozen=True)
class TimmElasticSpace(ParametricSpace):
    """Slices of one timm backbone that inherit its weights, and share them in a supernet.

    Every stage keeps the first of its channels and of its residual blocks. In the supernet channels
    stand by falling importance for alignment, so the first are those that matter most. Channels
    that go together (`pruning.cut`) over several stages, as in the stream of a transformer, are as
    many as the widest of these stages keeps.

    A slice also ends at one of the backbone's levels, the maps after its stages
    (`searchspaces.backbone_levels`), and its features are the pooled maps of all levels so far.
    Parameters of later stages make no difference to it.

    Args:
        backbone, resolutions: As for `PrunedSpace`.
        widths: Shares of the channels that a stage may keep, 1 among them; of n channels the share
            w keeps ⌈w·n⌉.
        least_depth: Of a stage's n blocks with an identity as their shortcut at least ⌊d·n⌋ stay,
            0 <= d <= 1; the last ones are dropped first. With 1 all stay.
        levels: Whether slices end at a level; otherwise all of them run to the end of the backbone,
            and their features are those that the family's classifier sees. None for those backbones
            that can end at one, without `pooling: gem`.
        least_levels: Fewest levels of a slice; all where there are fewer.
        order: Criterion by which channels are ordered, any of `pruning.CRITERIA`.
        pooling, pretrained, checkpoint: As for `PrunedSpace`, and weights for `inherited` only.

    Raises:
        PruningError: If an option is out of range.
    """

    name: ClassVar[str] = "timm-elastic"

    backbone: str
    resolutions: tuple[int, ...] = ()
    widths: tuple[float, ...] = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
    least_depth: float = 0.5
    levels: bool | None = None
    least_levels: int = 2
    order: str = "fisher"
    pooling: str = "avg"
    pretrained: bool = True
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if not self.resolutions:
            object.__setattr__(self, "resolutions", (own_resolution(self.backbone),))
        check_options(self, _Options, error=PruningError)
        if 1.0 not in self.widths:
            raise PruningError(
                f"the widths of the space '{self.name}' are {list(self.widths)} and lack 1, the "
                "whole stage: add it"
            )
        if self.order not in CRITERIA:
            raise PruningError(
                f"no order of channels by '{self.order}' in the space '{self.name}': "
                f"{suggestion(self.order, list(CRITERIA))}"
            )
        config = timm.get_pretrained_cfg(self.backbone)
        if config is not None and config.fixed_input_size and len(self.resolutions) > 1:
            raise PruningError(
                f"'{self.backbone}' takes images of one size, but the space '{self.name}' is given "
                f"the resolutions {list(self.resolutions)}: choose one of them"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "TimmElasticSpace":
        return self

    @cached_property
    def form(self) -> Form:
        """What can be taken from the whole backbone; found in some seconds."""
        return self._form(self._levels)

    @cached_property
    def _form(self) -> Callable[[tuple[str, ...]], Form]:
        """What can be taken from the backbone up to the last of some levels, in the same stages."""

        @cache
        def found(levels: tuple[str, ...]) -> Form:
            return find_form(
                self.backbone,
                resolution=max(self.resolutions),
                pooling=self.pooling,
                levels=levels,
                known=None if levels == self._levels else self.form.stages,
            )

        return found

    @cached_property
    def _levels(self) -> tuple[str, ...]:
        if self.levels is False or (self.levels is None and self.pooling != "avg"):
            return ()
        try:
            return backbone_levels(self.backbone)
        except SearchSpaceError:
            if self.levels:
                raise
            return ()

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """Resolution, number of levels, and of every stage width and depth ("width_layer1")."""
        width = _shares(tuple(sorted(self.widths)))
        fewest, most = min(self.least_levels, len(self._levels)), len(self._levels)
        blocks = {stage: len(self.form.blocks[stage]) for stage in self.form.stages}
        least = {stage: math.floor(self.least_depth * n + 1e-9) for stage, n in blocks.items()}
        return {
            "resolution": CategoricalDistribution(self.resolutions),
            **({"levels": IntDistribution(fewest, most)} if fewest < most else {}),
            **{f"width_{stage}": width for stage in self.form.stages},
            **{
                f"depth_{stage}": IntDistribution(least[stage], count)
                for stage, count in blocks.items()
                if least[stage] < count
            },
        }

    def largest(self) -> Architecture:
        """Return the whole backbone at the largest resolution."""
        return self._end(max)

    def smallest(self) -> Architecture:
        """Return the narrowest and shallowest slice at the smallest resolution."""
        return self._end(min)

    def is_whole(self, architecture: Architecture) -> bool:
        """Return whether an architecture is the whole backbone, at any resolution."""
        form, widths, left_out = self._parts(architecture)
        return form is self.form and not left_out and min(widths) == 1

    def macs(self, architecture: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image, by formula where the family has one.

        Otherwise a slice is built and counted, in about a second, once.
        """
        self._check(architecture)
        form, widths, left_out = self._parts(architecture)
        resolution = _resolution(architecture)
        found = self._costs(form).macs(widths, left_out, resolution=resolution, dimension=dimension)
        if found is not None:
            return found
        key = architecture.digest, dimension
        if key not in self._counted:
            outline = self.slice(architecture, dimension).outline
            self._counted[key] = count_macs(with_zeros(outline), resolution)
        return self._counted[key]

    def build(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Make the slice with fresh weights."""
        return self.supernet(dimension).extract(architecture)

    def supernet(self, dimension: int) -> Supernet:
        """Make the network that acts as any slice, with fresh weights."""
        return TimmElasticSupernet(self, self._uncut(dimension, pretrained=False))

    def inherited(self, dimension: int) -> Supernet:
        """Make the network that acts as any slice, with the backbone's weights as published."""
        uncut = self._uncut(dimension, pretrained=self.pretrained, checkpoint=self.checkpoint)
        return TimmElasticSupernet(self, uncut)

    def slice(self, architecture: Architecture, dimension: int) -> Slice:
        """Return which parts of the whole network's tensors a slice uses, and its network.

        Raises:
            SearchSpaceError: If the architecture is not in the space.
        """
        self._check(architecture)
        return self._sliced(architecture, dimension)

    @cached_property
    def _sliced(self) -> Any:
        return lru_cache(_SLICES)(self._slice)

    def _slice(self, architecture: Architecture, dimension: int) -> Slice:
        form, widths, left_out = self._parts(architecture)
        outline = narrow(form.whole, form.groups, widths)
        outline.projection = Projection(outline.projection.linear.in_features, dimension).to("meta")
        outline.resolution = _resolution(architecture)
        assert outline.origin is not None
        outline.origin = {
            "timm": {
                **outline.origin["timm"],
                "dimension": dimension,
                "resolution": outline.resolution,
            }
        }
        leave_out(outline, left_out)
        inside = tuple(f"{BACKBONE}{name}." for name in left_out)
        kept = kept_channels(outline)
        set_kept(outline, {k: v for k, v in kept.items() if not f"{k}.".startswith(inside)})
        cut = cuts(form.whole, form.groups, widths)
        columns = form.whole.projection.channels  # the first levels have the first of all features
        cut.setdefault(f"{PROJECTION}.weight", {}).setdefault(1, slice(0, columns))
        return Slice(outline.eval(), cut, columns)

    def _parts(self, architecture: Architecture) -> tuple[Form, list[float], list[str]]:
        """What a slice is taken from, the share of each of its groups, and blocks to leave out."""
        params: Mapping[str, Any] = architecture.params
        form = self._form(self._levels[: params.get("levels", len(self._levels))])
        widths = [
            max((float(params[f"width_{stage}"]) for stage in touched), default=1.0)
            for touched in form.touched
        ]
        left_out = [
            block
            for stage, blocks in form.blocks.items()
            for block in blocks[params.get(f"depth_{stage}", len(blocks)) :]
        ]
        return form, widths, left_out

    @cached_property
    def _costs(self) -> Callable[[Form], Costs]:
        return cache(lambda form: Costs(form, min(self.resolutions)))

    @cached_property
    def _counted(self) -> dict[tuple[str, int], int]:
        return {}

    def _end(self, of: Any) -> Architecture:
        from_grid = {
            name: of(each.choices if isinstance(each, CategoricalDistribution) else _ends(each))
            for name, each in self._distributions.items()
        }
        return Architecture(self.name, from_grid)

    def _uncut(self, dimension: int, **weights: Any) -> QueryModel:
        model = timm_query_model(
            self.backbone,
            dimension,
            resolution=max(self.resolutions),
            pooling=self.pooling,
            levels=self._levels,
            **weights,
        )
        prepare(model)
        return model


def _shares(widths: tuple[float, ...]) -> BaseDistribution:
    """The widths as numbers where they are evenly spaced, which tells samplers more."""
    steps = [b - a for a, b in pairwise(widths)]
    if steps and all(math.isclose(step, steps[0], abs_tol=1e-9) for step in steps):
        return FloatDistribution(widths[0], widths[-1], step=steps[0])
    return CategoricalDistribution(widths)


def _ends(distribution: BaseDistribution) -> tuple[Any, Any]:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low, distribution.high


def _resolution(architecture: Architecture) -> int:
    resolution = architecture.params["resolution"]
    assert isinstance(resolution, int)
    return resolution

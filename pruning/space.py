"""A backbone cut to different widths, as a search space."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import timm
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from pydantic import Field

from pruning.cutting import cut
from pruning.errors import PruningError
from pruning.importance import CRITERIA, BatchLoss
from pruning.stages import stages
from searchspaces import (
    Architecture,
    ParametricSpace,
    QueryModel,
    count_macs,
    first_levels,
    own_resolution,
    timm_query_model,
)
from searchspaces.options import check_options
from searchspaces.support.naming import suggestion
from searchspaces.support.section import LevelCount, Resolution, Section
from searchspaces.support.seeding import seeded

SCHEDULES = ("one_shot", "iterative", "growing")

_UNFIT = {"lamp": "with it the weights and not the ratios decide on the widths"}


class _Options(Section):
    """The kinds of the options, and how large they may be."""

    backbone: str
    resolutions: tuple[Resolution, ...] = Field(max_length=1000)
    max_ratio: float
    step: float
    criteria: tuple[str, ...] = Field(max_length=1000)
    schedules: tuple[str, ...] = Field(max_length=1000)
    rounds: int = Field(le=1000)
    pooling: Literal["avg", "gem"]
    levels: LevelCount | None
    pretrained: bool
    checkpoint: str | None


@dataclass(frozen=True)
class PrunedSpace(ParametricSpace):
    """Query networks that are left of a timm backbone after cutting each stage by its own ratio.

    Args:
        backbone: A timm model name.
        resolutions: Sides of the input in pixels; the backbone's own when empty.
        max_ratio: Largest share of channels that is cut out of a stage, below 1.
        step: Distance of the ratios.
        criteria: Which criteria of `cut` there are to choose from, except "lamp", with which the
            weights and not the ratios decide on the widths. "taylor" and "fisher" ask a loss, which
            `derive` takes.
        schedules: Which schedules there are to choose from: "one_shot", "iterative" and "growing".
            When empty there is no such parameter, and every architecture is cut in one shot.
        rounds: Cuts of the schedule "iterative".
        pooling: As for `timm_query_model`.
        levels: How many of the first of the backbone's levels (`searchspaces.backbone_levels`) the
            features are pooled from; the networks end there. None for the whole backbone, with the
            features that the family's classifier sees.
        pretrained: As for `timm_query_model`; for `build` only.
        checkpoint: As for `timm_query_model`; for `build` only.

    Raises:
        PruningError: If an option is out of range.
    """

    name: ClassVar[str] = "pruned"

    backbone: str
    resolutions: tuple[int, ...] = ()
    max_ratio: float = 0.875
    step: float = 0.125
    criteria: tuple[str, ...] = ("magnitude",)
    schedules: tuple[str, ...] = ()
    rounds: int = 3
    pooling: str = "avg"
    levels: int | None = None
    pretrained: bool = True
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if not self.resolutions:
            object.__setattr__(self, "resolutions", (own_resolution(self.backbone),))
        check_options(self, _Options, error=PruningError)
        if not self.criteria:
            raise PruningError("'criteria' of the space 'pruned' is empty: give at least one")
        if not 0 < self.step <= self.max_ratio < 1:
            raise PruningError(
                f"the space 'pruned' has step {self.step} and max_ratio {self.max_ratio}: "
                "0 < step <= max_ratio < 1 is needed"
            )
        free = [each for each in CRITERIA if each not in _UNFIT]
        for criterion in self.criteria:
            if criterion in _UNFIT:
                raise PruningError(
                    f"'{criterion}' is no criterion for the space 'pruned', because "
                    f"{_UNFIT[criterion]}: choose among {', '.join(free)}"
                )
            if criterion not in free:
                raise PruningError(
                    f"'{criterion}' is no criterion for the space 'pruned': "
                    f"{suggestion(criterion, free)}"
                )
        for schedule in self.schedules:
            if schedule not in SCHEDULES:
                raise PruningError(
                    f"'{schedule}' is no schedule for the space 'pruned': "
                    f"{suggestion(schedule, list(SCHEDULES))}"
                )
        if self.rounds < 1:
            raise PruningError(f"the space 'pruned' has rounds {self.rounds}: give at least 1")

    @cached_property
    def level_names(self) -> tuple[str, ...]:
        """The levels that features are pooled from, as `timm_query_model` takes them.

        Raises:
            SearchSpaceError: As `first_levels`.
        """
        return first_levels(self.backbone, self.levels)

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """Resolution, criterion, any schedule, and a ratio per stage ("ratio_layer1")."""
        with seeded(0):
            uncut = self._uncut(min(self.resolutions), 1, pretrained=False)
        ratio = FloatDistribution(0.0, self.max_ratio, step=self.step)
        return {
            "resolution": CategoricalDistribution(self.resolutions),
            "criterion": CategoricalDistribution(self.criteria),
            **({"schedule": CategoricalDistribution(self.schedules)} if self.schedules else {}),
            **{f"ratio_{stage}": ratio for stage in stages(uncut)},
        }

    @cached_property
    def _counted(self) -> dict[tuple[str, int], int]:
        return {}

    def macs(self, architecture: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image by cutting a fresh network.

        Takes about a second the first time that an architecture is asked for, none afterwards.
        """
        key = architecture.digest, dimension
        if key not in self._counted:
            model = self.shaped(architecture, dimension)
            self._counted[key] = count_macs(model, model.resolution)
        return self._counted[key]

    def shaped(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Return a network of an architecture's shape, with random weights, cut by magnitude.

        Ratios alone decide on its widths, whatever the criterion; except where branches are
        concatenated, whose widths depend on the weights too.
        """
        self._check(architecture)
        params = {**architecture.params, "criterion": "magnitude"}
        with seeded(0):
            uncut = self._uncut(self._resolution(architecture), dimension, pretrained=False)
        return self._cut(uncut, Architecture(self.name, params))

    def build(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Cut the backbone as published, or as in the checkpoint; the projection is random.

        Raises:
            PruningError: If something is to be cut by a criterion that needs a loss.
        """
        self._check(architecture)
        uncut = self._uncut(
            self._resolution(architecture),
            dimension,
            pretrained=self.pretrained,
            checkpoint=self.checkpoint,
        )
        return self._cut(uncut, architecture)

    def schedule(self, architecture: Architecture) -> str:
        """Return how an architecture is to be cut and trained, one of `SCHEDULES`."""
        return str(architecture.params.get("schedule", "one_shot"))

    def derive(
        self,
        model: QueryModel,
        architecture: Architecture,
        *,
        between: Callable[[QueryModel], object] | None = None,
        batch_loss: BatchLoss | None = None,
    ) -> QueryModel:
        """Cut a query model that has been aligned already, so that its weights are inherited.

        Args:
            model: An uncut query model of this backbone; it is not changed.
            architecture: An architecture of this space.
            between: Called with the model after every cut but the last, to train it in place.
            batch_loss: As for `cut`; for the criteria "taylor" and "fisher".

        Raises:
            PruningError: If the model has another backbone, or another resolution that its
                backbone cannot change; if the criterion needs ``batch_loss`` and there is none.
        """
        return self._cut(self.adapt(model, architecture), architecture, between, batch_loss)

    def adapt(self, model: QueryModel, architecture: Architecture) -> QueryModel:
        """Return an uncut copy of a query model at the resolution of an architecture.

        Args:
            model: An uncut query model of this backbone; it is not changed.
            architecture: An architecture of this space.

        Raises:
            PruningError: If the model has another backbone, or another resolution that its
                backbone cannot change.
        """
        self._check(architecture)
        origin = (model.origin or {}).get("timm", {})
        if origin.get("name") != self.backbone:
            raise PruningError(
                f"the space 'pruned' cuts '{self.backbone}', but was given a model of "
                f"'{origin.get('name', type(model.backbone).__name__)}'"
            )
        resolution = self._resolution(architecture)
        model = copy.deepcopy(model)
        if resolution == model.resolution:
            return model
        config = timm.get_pretrained_cfg(self.backbone)
        if config is not None and config.fixed_input_size:
            raise PruningError(
                f"'{self.backbone}' was aligned at {model.resolution} pixels and cannot change to "
                f"{resolution}: give the space 'pruned' that one resolution"
            )
        model.resolution = resolution
        model.origin = {**(model.origin or {}), "timm": {**origin, "resolution": resolution}}
        return model

    def _uncut(self, resolution: int, dimension: int, **weights: Any) -> QueryModel:
        return timm_query_model(
            self.backbone,
            dimension,
            resolution=resolution,
            pooling=self.pooling,
            levels=self.level_names,
            **weights,
        )

    def _cut(
        self,
        model: QueryModel,
        architecture: Architecture,
        between: Callable[[QueryModel], object] | None = None,
        batch_loss: BatchLoss | None = None,
    ) -> QueryModel:
        params: Mapping[str, Any] = architecture.params
        rounds = self.rounds if self.schedule(architecture) == "iterative" else 1
        ratios = {
            name.removeprefix("ratio_"): 1 - (1 - float(params[name])) ** (1 / rounds)
            for name in self._distributions
            if name.startswith("ratio_")
        }
        once = partial(cut, ratios=ratios, criterion=params["criterion"], batch_loss=batch_loss)
        pruned = once(model)
        for _ in range(rounds - 1):
            if between is not None:
                between(pruned)
            try:
                pruned = once(pruned)
            except PruningError:  # the first cut worked: nothing is left that could be cut
                break
        return pruned

    @staticmethod
    def _resolution(architecture: Architecture) -> int:
        resolution = architecture.params["resolution"]
        assert isinstance(resolution, int)
        return resolution

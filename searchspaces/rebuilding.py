"""Make a query model again from the description that it carries."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field

from searchspaces.architecture import Architecture, Value
from searchspaces.errors import SearchSpaceError
from searchspaces.leaving_out import leave_out
from searchspaces.projection import Lift, LiftKind, Projection
from searchspaces.query_model import QueryModel, timm_query_model
from searchspaces.space import create_space
from searchspaces.support.reading import validated
from searchspaces.support.section import Dimension, Resolution, Section

Kind = TypeVar("Kind", bound=Section)

_MADE_OF_OTHERS = ("pruned", "timm", "timm-elastic", "union")
"""Spaces the origin of whose networks is what these are made of."""


class _Timm(Section):
    name: str
    dimension: Dimension
    resolution: Resolution
    pooling: str = "avg"
    projection_norm: bool = False
    levels: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    left_out: Annotated[tuple[str, ...], Field(max_length=10_000)] = ()


class _TimmOrigin(Section):
    timm: _Timm


class _Space(Section):
    name: str
    options: dict[str, Any]


class _SpaceOrigin(Section):
    space: _Space
    params: dict[str, Value]
    dimension: Dimension


class _Lift(Section):
    kind: LiftKind
    width: Dimension


class _Projection(Section):
    dimension: Dimension
    lift: _Lift | None


def rebuild(origin: Mapping[str, Any]) -> QueryModel:
    """Make the network that a `QueryModel.origin` describes, with fresh weights.

    Args:
        origin: {"timm": options of `timm_query_model`, and blocks that are "left_out"}, or
            {"space": {"name", "options"}, "params", "dimension"}; with "projection": {"dimension",
            "lift"} where the network's own projection was replaced.

    Raises:
        SearchSpaceError: If the description is of neither kind, or names what is not there.
    """
    if "projection" not in origin:
        return _rebuild(origin)
    model = _rebuild({key: value for key, value in origin.items() if key != "projection"})
    found = _read(_Projection, origin["projection"])
    lift = None if found.lift is None else Lift(found.lift.kind, found.lift.width)
    return model.with_projection(Projection(model.projection.channels, found.dimension, lift=lift))


def _rebuild(origin: Mapping[str, Any]) -> QueryModel:
    if "timm" in origin:
        timm = _read(_TimmOrigin, origin).timm
        model = timm_query_model(**timm.model_dump(exclude={"left_out"}), pretrained=False)
        leave_out(model, timm.left_out)
        return model
    if "space" not in origin:
        raise SearchSpaceError(
            f"a query model's origin names 'timm' or 'space', but this one has {sorted(origin)}"
        )
    found = _read(_SpaceOrigin, origin)
    name = found.space.name
    if name in _MADE_OF_OTHERS:
        raise SearchSpaceError(
            f"a query model's origin is the space '{name}', whose networks come from elsewhere"
        )
    space = create_space(name, **found.space.options)
    return space.build(Architecture(name, found.params), found.dimension)


def outline(origin: Mapping[str, Any]) -> QueryModel:
    """Make the same network without weights: its tensors have shapes and take no memory.

    Raises:
        SearchSpaceError: As `rebuild`.
    """
    with torch.device("meta"):
        return rebuild(origin)


def _read(kind: type[Kind], origin: Mapping[str, Any]) -> Kind:
    what = "a query model's origin"
    return validated(kind, origin, what, error=SearchSpaceError, remedy="save the model again")

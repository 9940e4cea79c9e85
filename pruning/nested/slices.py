"""Channels in order of importance, and the network of the first of them."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.channels import Group, Member, removed
from pruning.cutting import remove
from pruning.errors import PruningError
from pruning.families import forget, prepare
from pruning.graph import find_groups
from pruning.importance import CRITERIA, NEEDS_LOSS, BatchLoss, score
from pruning.kept import record_order
from searchspaces import QueryModel
from searchspaces.support.naming import suggestion

_SAME = 1e-4  # largest difference of a unit vector's component after a reordering

Cut = dict[int, slice | Tensor]
"""What is kept of a tensor, by axis."""

Width = float | Sequence[float]
"""The share of its channels that every group keeps, or one share for each of them."""

Order = NDArray[np.int64]
"""For every place of a group the unit that is to stand there."""


def channel_groups(model: QueryModel) -> list[Group]:
    """Find the channels of a query model that can only be kept or dropped together.

    The input's channels and the gallery's dimensions are in no group. Blocks that only take equal
    widths are made to take any, in place; outputs stay.

    Raises:
        PruningError: If channels of this network cannot be reordered or dropped freely.
    """
    prepare(model)
    try:
        groups = find_groups(model)
        difference = _difference(model, groups)
    except Exception as error:  # torch-pruning lets whatever went wrong inside it through
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise _cannot(model, f"it does not run on half of its channels ({words})") from error
    if not groups:
        raise _cannot(model, "it has no channels that could be left out")
    if not difference <= _SAME:
        raise _cannot(model, "its outputs depend on the order of its channels")
    return groups


def kept(group: Group, width: float) -> int:
    """Number of a group's n units that a share 0 < width <= 1 keeps: ⌈width · n⌉."""
    return max(1, ceil(width * group.units - 1e-9))


def order_channels(
    model: QueryModel,
    groups: Sequence[Group],
    *,
    criterion: str = "magnitude",
    batch_loss: BatchLoss | None = None,
) -> QueryModel:
    """Return a copy whose channels stand by falling importance in every group; its outputs stay.

    Args:
        model: The model; it is not changed.
        groups: Its `channel_groups`.
        criterion: As for `pruning.cut`.
        batch_loss: As for `pruning.cut`.

    Raises:
        PruningError: If the criterion is unknown or lacks its loss.
    """
    return _reordered(model, groups, by_importance(model, groups, criterion, batch_loss))


def by_importance(
    model: QueryModel, groups: Sequence[Group], criterion: str, batch_loss: BatchLoss | None
) -> list[Order]:
    """Return for every group its units by falling importance, as `order_channels` puts them.

    Raises:
        PruningError: As `order_channels`.
    """
    if criterion not in CRITERIA:
        raise PruningError(
            f"no order of channels by '{criterion}': {suggestion(criterion, list(CRITERIA))}"
        )
    if criterion in NEEDS_LOSS and batch_loss is None:
        raise PruningError(f"the order by '{criterion}' needs batch_loss, a function of the model")
    return [
        np.arange(group.units)
        if scores is None or not _is_movable(group)
        else scores.argsort(descending=True, stable=True).numpy()
        for group, scores in zip(groups, score(model, groups, criterion, batch_loss), strict=True)
    ]


def cuts(model: QueryModel, groups: Sequence[Group], width: Width) -> dict[str, Cut]:
    """What shares of the channels of the groups keep of each tensor that they concern.

    The first channels of each group are kept. Where they lie at the start of an axis, which is the
    rule, the cut is a slice and so a view; it is indices where layers are concatenated or convolved
    in groups.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    masks: dict[tuple[str, int], Tensor] = {}
    for member, positions in removed(_firsts(groups, width)):
        for name, axis in tensors_of(member):
            length = shapes[name][axis]
            keep = masks.setdefault((name, axis), torch.ones(length, dtype=torch.bool))
            # the groups of a convolution share the rows of their inputs
            keep[torch.from_numpy(positions[positions < length])] = False
    found: dict[str, Cut] = {}
    for (name, axis), keep in masks.items():
        indices = keep.nonzero().flatten()
        prefix = bool(keep[: len(indices)].all())
        found.setdefault(name, {})[axis] = slice(0, len(indices)) if prefix else indices
    return found


def take(tensor: Tensor, cut: Cut) -> Tensor:
    """Apply a cut to a tensor, differentiably."""
    for axis, rows in cut.items():
        if isinstance(rows, slice):
            tensor = tensor.narrow(axis, rows.start, rows.stop - rows.start)
        else:
            tensor = tensor.index_select(axis, rows.to(tensor.device))
    return tensor


def narrow(model: QueryModel, groups: Sequence[Group], width: Width) -> QueryModel:
    """Return the network of the first channels: an ordinary query model with copied weights.

    Args:
        model: The model; it is not changed.
        groups: Its `channel_groups`.
        width: Share of the channels to keep, 0 < width <= 1, in every group or one for each.
    """
    forget(model)
    narrowed = copy.deepcopy(model)
    remove(narrowed, _firsts(bound(groups, narrowed), width))
    return narrowed


def bound(groups: Sequence[Group], model: QueryModel) -> list[Group]:
    """Return the groups of a model as those of another one with layers of the same names."""
    layers = dict(model.named_modules())
    return [
        replace(group, members=tuple(replace(m, layer=layers.get(m.name)) for m in group.members))
        for group in groups
    ]


def moved(group: Group, member: Member, order: Order) -> NDArray[np.int64]:
    """Return for every channel of a member which one stands there in an order of the units."""
    places = _places(group, member)
    rows = np.arange(len(member.unit_of))
    rows[places] = places[order]
    return rows


def _firsts(groups: Sequence[Group], width: Width) -> list[tuple[Group, NDArray[np.bool_]]]:
    widths = width if isinstance(width, Sequence) else [width] * len(groups)
    return [
        (group, np.arange(group.units) < kept(group, share))
        for group, share in zip(groups, widths, strict=True)
    ]


def tensors_of(member: Member) -> Iterator[tuple[str, int]]:
    """Names of a member's tensors, each with the axis on which its channels lie."""
    layer: Any = member.layer
    if layer is None:
        yield member.name, member.dim
        return
    if isinstance(layer, nn.Conv2d | nn.Linear):
        leaves = ["weight"] if member.side == "in" else ["weight", "bias"]
    elif isinstance(layer, _BatchNorm):
        leaves = ["weight", "bias", "running_mean", "running_var"]
    elif isinstance(layer, nn.LayerNorm | nn.GroupNorm):
        leaves = ["weight", "bias"]
    else:
        raise PruningError(
            f"channels of '{member.name}', a {type(layer).__name__}, cannot be nested: only "
            "convolutions, linear layers and norms can"
        )
    for leaf in leaves:
        if getattr(layer, leaf) is not None:
            yield f"{member.name}.{leaf}", 1 if member.side == "in" else 0


def _reordered(model: QueryModel, groups: Sequence[Group], orders: Sequence[Order]) -> QueryModel:
    forget(model)
    ordered = copy.deepcopy(model)
    reorder(ordered, groups, orders)
    for group, order in zip(groups, orders, strict=True):
        if _is_movable(group):
            for member in group.members:
                rows = moved(group, member, order).tolist()
                record_order(ordered, member.name, member.side, rows)
    return ordered


@torch.no_grad()
def reorder(model: QueryModel, groups: Sequence[Group], orders: Sequence[Order]) -> None:
    """Move the unit `order[i]` of each group to place i, in all its tensors, in place.

    A group whose units have unequal numbers of channels somewhere stays as it is.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    for group, order in zip(groups, orders, strict=True):
        if not _is_movable(group):
            continue
        for member in group.members:
            places = _places(group, member)
            for name, axis in tensors_of(member):
                _permute(tensors[name], axis, places, places[order])


def _is_movable(group: Group) -> bool:
    return all(_is_even(group, member) for member in group.members)


def _is_even(group: Group, member: Member) -> bool:
    units = member.unit_of[member.unit_of >= 0]
    return len(set(np.bincount(units, minlength=group.units).tolist())) == 1


def _places(group: Group, member: Member) -> NDArray[np.int64]:
    """Indices (n, r) of the r channels of each of the n units."""
    found = np.argsort(member.unit_of, kind="stable")
    return found[(member.unit_of < 0).sum() :].reshape(group.units, -1)


def _permute(
    tensor: Tensor, axis: int, places: NDArray[np.int64], sources: NDArray[np.int64]
) -> None:
    rows = np.arange(max(tensor.shape[axis], places.max() + 1))
    rows[places] = sources
    rows = rows[: tensor.shape[axis]]  # the groups of a convolution share the rows of their inputs
    where = torch.from_numpy(rows).to(tensor.device)
    tensor.copy_(tensor.index_select(axis, where))


@torch.no_grad()
def _difference(model: QueryModel, groups: Sequence[Group]) -> float:
    """How far outputs move when channels are shuffled; that half of them run is tried as well."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, model.resolution, model.resolution, generator=generator)
    images = images.to(model.mean.device)
    orders = [torch.randperm(group.units, generator=generator).numpy() for group in groups]
    narrow(model, groups, 0.5).eval()(images)
    shuffled = _reordered(model, groups, orders).eval()(images)
    expected = copy.deepcopy(model).eval()(images)
    return float((shuffled - expected).abs().max())


def _cannot(model: QueryModel, reason: str) -> PruningError:
    match model.origin:
        case {"timm": {"name": str(name)}} | {"space": {"name": str(name)}}:
            pass
        case _:
            name = type(model.backbone).__name__
    return PruningError(
        f"'{name}' cannot hold nested subnetworks: {reason}; choose a plain convolutional network, "
        "e.g. a ResNet, or method 'masks'"
    )

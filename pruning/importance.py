"""How much the units of a group matter, by several criteria."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.channels import Group, Member
from pruning.families import forget
from pruning.graph import tracing
from searchspaces import QueryModel, macs_by_layer

CRITERIA = ("magnitude", "bn_scale", "lamp", "fpgm", "random", "taylor", "fisher")
NEEDS_LOSS = ("taylor", "fisher")

Price = Literal["macs", "parameters"]
BatchLoss = Callable[[QueryModel], Tensor | Iterable[Tensor]]

_WEIGHTED = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


def score(
    model: QueryModel,
    groups: Iterable[Group],
    criterion: str,
    batch_loss: BatchLoss | None,
) -> list[Tensor | None]:
    """Return for every group the scores of its units, float32 (units,); low ones go first.

    A unit's score is a sum over all weights that go with it, in all layers of the group (Fang et
    al., "DepGraph", CVPR 2023). "taylor" and "fisher" estimate by how much the loss changes, so
    groups can be compared by them; the others are made comparable by dividing them by their mean
    over the group, or by LAMP's own denominator.

    Args:
        model: The model that the groups were found in.
        groups: The groups.
        criterion: One of `CRITERIA`.
        batch_loss: See `pruning.cut`.

    Returns:
        None for a group without any weight that the criterion looks at.
    """
    match criterion:
        case "random":
            return [torch.rand(group.units) for group in groups]
        case "fpgm":
            return [_relative(_over_layers(group, _distances)) for group in groups]
        case "bn_scale":
            return [_relative(_over_layers(group, _scales)) for group in groups]
        case "magnitude":
            return [_relative(_over_layers(group, _squares)) for group in groups]
        case "lamp":
            return [_lamp(_over_layers(group, _squares)) for group in groups]
    assert batch_loss is not None
    estimates = _estimates(model, batch_loss, 1 if criterion == "taylor" else 2)
    return [
        _over_layers(group, lambda member: _slices(member, estimates.get(f"{member.name}.weight")))
        for group in groups
    ]


def unit_prices(model: QueryModel, groups: Iterable[Group], price: Price) -> list[float]:
    """Return for every group the MACs, or the parameters, that go with one of its units.

    A layer's cost goes with its output channels and, as much again, with its input channels, since
    it vanishes with either.
    """
    if price == "macs":
        costs = macs_by_layer(model, model.resolution)
    else:
        costs = {
            name: sum(each.numel() for each in module.parameters(recurse=False))
            for name, module in model.named_modules()
        }
        costs |= {name: each.numel() for name, each in model.named_parameters()}
    return [
        max(1.0, sum(costs.get(m.name, 0) * (m.unit_of >= 0).mean() for m in group.members))
        / group.units
        for group in groups
    ]


def _over_layers(group: Group, of: Callable[[Member], Tensor | None]) -> Tensor | None:
    """Sum up what the layers of a group say about its units."""
    total, spoken = torch.zeros(group.units), False
    for member in group.members:
        if isinstance(member.layer, _WEIGHTED):
            values = of(member)
            if values is not None:
                unit = torch.from_numpy(member.unit_of)
                total.index_add_(0, unit[unit >= 0], values.cpu().float()[unit >= 0])
                spoken = True
    return total if spoken else None


def _slices(member: Member, values: Tensor | None) -> Tensor | None:
    """Sum up values that are shaped as the layer's weight, for every channel of its side."""
    if values is None:
        return None
    return _by_channel(member, values).sum(1)


def _by_channel(member: Member, values: Tensor) -> Tensor:
    """Reshape values shaped as a weight to (channels of the side, rest)."""
    if member.side != "in":
        return values.flatten(1) if values.ndim > 1 else values[:, None]
    rows = values.transpose(0, 1).flatten(1)
    return rows.repeat(getattr(member.layer, "groups", 1), 1)


def _squares(member: Member) -> Tensor | None:
    return _slices(member, _weight(member).square())


def _scales(member: Member) -> Tensor | None:
    if isinstance(member.layer, nn.modules.batchnorm._BatchNorm):
        return _weight(member).abs()
    return None


def _distances(member: Member) -> Tensor | None:
    """Summed distance to all filters of the layer, which is least near the geometric median."""
    if isinstance(member.layer, nn.Conv2d | nn.Linear):
        filters = _by_channel(member, _weight(member))
        return torch.cdist(filters, filters).sum(1)
    return None


def _weight(member: Member) -> Tensor:
    assert isinstance(member.layer, _WEIGHTED)
    return member.layer.weight.detach()


def _relative(total: Tensor | None) -> Tensor | None:
    return None if total is None else total / total.mean().clamp(min=1e-30)


def _lamp(total: Tensor | None) -> Tensor | None:
    """Divide every score by the sum of those that are not smaller.

    Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021, eq. 4.
    """
    if total is None:
        return None
    ranked, order = total.sort()
    rest = ranked.flip(0).cumsum(0).flip(0).clamp(min=1e-30)
    return torch.empty_like(ranked).scatter_(0, order, ranked / rest)


def _estimates(model: QueryModel, batch_loss: BatchLoss, order: int) -> dict[str, Tensor]:
    """Sum over the batches of |weight x gradient|, or of its square, for every parameter."""
    totals: dict[str, Tensor] = {}
    with tracing(model):
        losses = batch_loss(model)
        for loss in [losses] if isinstance(losses, Tensor) else losses:
            model.zero_grad(set_to_none=True)
            loss.backward()
            forget(model)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    change = (parameter.detach() * parameter.grad).abs() ** order
                    totals[name] = totals[name] + change if name in totals else change
    model.zero_grad(set_to_none=True)
    return totals


def replayed(batch_loss: BatchLoss, criterion: str) -> BatchLoss:
    """Return a loss by which every copy of one model is judged alike, differentiated once.

    Its gradient is the sum of |gradient| over the batches, or for "fisher" the root of the sum of
    squares, by which |weight x gradient| and its square come out as the criteria sum them up.
    """
    totals: dict[str, Tensor] = {}
    squared = criterion == "fisher"

    def replay(model: QueryModel) -> Tensor:
        parameters = dict(model.named_parameters())
        if not totals:
            losses = batch_loss(model)
            for loss in [losses] if isinstance(losses, Tensor) else losses:
                found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                forget(model)
                for name, gradient in zip(parameters, found, strict=True):
                    if gradient is not None:
                        part = gradient.square() if squared else gradient.abs()
                        totals[name] = totals[name] + part if name in totals else part
            for name in totals if squared else ():
                totals[name].sqrt_()
        return torch.stack([(parameters[n] * total).sum() for n, total in totals.items()]).sum()

    return replay

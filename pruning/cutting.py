"""Cut channels out of a query model."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch_pruning as tp
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.channels import Group, Member, Side, removed
from pruning.errors import PruningError
from pruning.families import MISREAD, forget, mend, prepare
from pruning.graph import find_groups, tracing
from pruning.importance import CRITERIA, NEEDS_LOSS, BatchLoss, Price, score, unit_prices
from pruning.kept import record_kept
from pruning.stages import stages, touched_stages
from searchspaces import QueryModel
from searchspaces.backbone import TimmBackbone
from searchspaces.support.naming import suggestion
from searchspaces.support.seeding import seeded

Scope = Literal["local", "global", "isomorphic"]


def cut(
    model: QueryModel,
    ratios: Mapping[str, float] | float,
    *,
    criterion: str = "magnitude",
    scope: Scope = "local",
    price: Price | None = None,
    round_to: int = 8,
    batch_loss: BatchLoss | None = None,
    seed: int = 0,
) -> QueryModel:
    """Return a narrower copy of a query model; the output dimension stays.

    Channels that depend on each other (residual sums, depthwise convolutions, attention heads) go
    together (Fang et al., "DepGraph", CVPR 2023). Where such a group reaches over several stages,
    the smallest of their ratios counts; depthwise convolutions just follow.

    Args:
        model: The model; it is not changed.
        ratios: Share of channels to remove by stage, 0 <= ratio < 1; other stages are not cut. One
            number is the share for every stage.
        criterion: Which channels are least important. "magnitude": L2 norm over the group;
            "bn_scale": BatchNorm scales (Liu et al., ICCV 2017); "lamp": layer-adaptive magnitude
            (Lee et al., ICLR 2021), by which the groups of a stage compete even in the scope
            "local"; "fpgm": distance to the geometric median (He et al., CVPR 2019); "random";
            "taylor": first-order change of `batch_loss`, the mean over batches of |weight x
            gradient| (after Molchanov et al., CVPR 2019); "fisher": second-order change with the
            diagonal of the empirical Fisher matrix for the Hessian, the mean over batches of weight
            squared x gradient squared (after Theis et al., "Faster gaze prediction with dense
            networks and Fisher pruning", 2018).
        scope: Among which channels the least important ones are looked for. "local": in every
            group, so that every group loses the ratio of its stage; "global": in all groups
            together; "isomorphic": in all groups of the same structure together (Fang et al.,
            "Isomorphic pruning for vision models", ECCV 2024). Groups that compete lose as many
            channels in all as their ratios say.
        price: For "taylor" and "fisher" in a scope other than "local": channels are ranked by the
            change of the loss for each MAC, or each parameter, that goes with them. None ranks by
            the change alone, which spares cheap channels as much as dear ones.
        round_to: The numbers of kept channels are rounded down to a multiple of this, and stay at
            least this where there were as many.
        batch_loss: Maps a model to a scalar loss on some batch, or to several losses, best one by
            one as a generator does; for "taylor" and "fisher". The model is in evaluation mode.
        seed: For "random".

    Raises:
        PruningError: If a stage or the criterion is unknown, a ratio is out of range, the network
            cannot be cut, or nothing was cut although a ratio asks for it.
    """
    if isinstance(ratios, int | float):
        ratios = dict.fromkeys(stages(model), float(ratios))
    rule = Rule(criterion, scope, price, round_to, batch_loss, seed)
    _check(model, ratios, rule)
    pruned = _prepared(model)
    if any(ratios.values()):
        _cut_in_place(pruned, _ranked(pruned, rule), ratios, rule)
    return pruned


@dataclass(frozen=True)
class Rule:
    """Which channels go first, and how many at a time; see `cut`."""

    criterion: str = "magnitude"
    scope: Scope = "local"
    price: Price | None = None
    round_to: int = 8
    batch_loss: BatchLoss | None = None
    seed: int = 0


def cutting(model: QueryModel, rule: Rule) -> Callable[[Mapping[str, float]], QueryModel]:
    """Return `cut` of one model by one rule, for many ratios; channels are ranked once.

    Args:
        model: The model; it is not changed, and has to stay as it is.
        rule: The other arguments of `cut`.
    """

    @cache
    def ranked() -> tuple[QueryModel, _Ranked]:
        whole = _prepared(model)
        return whole, _ranked(whole, rule)

    def cut_by(ratios: Mapping[str, float]) -> QueryModel:
        _check(model, ratios, rule)
        if not any(ratios.values()):
            return _prepared(model)
        whole, found = ranked()
        pruned = copy.deepcopy(whole)
        _cut_in_place(pruned, found, ratios, rule)
        return pruned

    return cut_by


def check_prunable(model: QueryModel) -> None:
    """Cut half of the channels out of a copy, to know before any work whether that goes.

    Takes a few forward passes of one or two images.

    Raises:
        PruningError: If the network cannot be cut.
    """
    cut(model, 0.5)


@dataclass(frozen=True)
class _Ranked:
    """The groups that can be cut, the stages that make their channels, and their units' scores."""

    groups: list[Group]
    touched: list[set[str]]
    scores: list[Tensor | None]


@dataclass(frozen=True)
class _Staged:
    """A group with the share of its units that is to go."""

    group: Group
    stage: str
    ratio: float


def _prepared(model: QueryModel) -> QueryModel:
    forget(model)
    copied = copy.deepcopy(model)
    prepare(copied)
    return copied


def _ranked(model: QueryModel, rule: Rule) -> _Ranked:
    stage_of = {layer: stage for stage, layers in stages(model).items() for layer in layers}
    with _explained(_name(model)):
        found = [(group, touched_stages(group, stage_of)) for group in find_groups(model)]
    groups = [group for group, touched in found if touched]
    with seeded(rule.seed):
        scores = score(model, groups, rule.criterion, rule.batch_loss)
    if rule.price is not None and rule.criterion in NEEDS_LOSS:
        prices = unit_prices(model, groups, rule.price)
        scores = [
            None if values is None else values / each
            for values, each in zip(scores, prices, strict=True)
        ]
    return _Ranked(groups, [touched for _, touched in found if touched], scores)


def _cut_in_place(
    model: QueryModel, ranked: _Ranked, ratios: Mapping[str, float], rule: Rule
) -> None:
    """Cut a model that the ranked groups were found in, or a copy of it."""
    groups = []
    for group, touched in zip(ranked.groups, ranked.touched, strict=True):
        stage = min(touched, key=lambda each: ratios.get(each, 0.0))
        groups.append(_Staged(group, stage, ratios.get(stage, 0.0)))
    shares = _shares(groups, ranked.scores, rule)
    stays = [
        _stays(each.group, values, share, rule.round_to)
        for each, values, share in zip(groups, ranked.scores, shares, strict=True)
    ]
    if all(kept.all() for kept in stays):
        reason = (
            "it has no BatchNorm scales to go by"
            if rule.criterion == "bn_scale" and all(values is None for values in ranked.scores)
            else "all layers are "
            f"at most {rule.round_to} channels wide or are tied to stages that are not cut"
        )
        raise PruningError(
            f"nothing was cut out of '{_name(model)}' with ratios {dict(ratios)}: {reason}"
        )
    with _explained(_name(model)):
        remove(model, [(each.group, kept) for each, kept in zip(groups, stays, strict=True)])
        with tracing(model), torch.no_grad():
            model(_image(model))


def _shares(groups: list[_Staged], scores: list[Tensor | None], rule: Rule) -> list[float]:
    """Return the share of units that each group keeps."""
    rivals: dict[Any, list[tuple[int, Tensor]]] = {}
    for index, (each, values) in enumerate(zip(groups, scores, strict=True)):
        if each.ratio and values is not None:
            key: Any = index
            if rule.scope == "global":
                key = None
            elif rule.scope == "isomorphic":
                key = tuple((type(member.layer), member.side) for member in each.group.members)
            elif rule.criterion == "lamp":
                key = each.stage
            rivals.setdefault(key, []).append((index, values))
    shares = [1.0] * len(groups)
    for members in rivals.values():
        if len(members) == 1:
            index = members[0][0]
            shares[index] -= groups[index].ratio
            continue
        leaving = sum(groups[index].ratio * groups[index].group.units for index, _ in members)
        bounded = [_bounded(groups[index].group, each, rule.round_to) for index, each in members]
        ranked = torch.cat(bounded).sort().values
        threshold = ranked[min(round(leaving), len(ranked) - 1)]
        for (index, _), values in zip(members, bounded, strict=True):
            shares[index] = float((values >= threshold).float().mean())
    return shares


def _bounded(group: Group, scores: Tensor, round_to: int) -> Tensor:
    """Put those units beyond comparison that a group keeps in any case."""
    fewest = max(_fewest(group), _kept(group.units, 0.0, group.channels, round_to))
    return scores.index_fill(0, scores.topk(fewest).indices, torch.inf)


def _stays(group: Group, scores: Tensor | None, share: float, round_to: int) -> NDArray[np.bool_]:
    """Return for every unit whether it is among the most important ones, as many as may stay."""
    stays = np.ones(group.units, dtype=bool)
    if scores is not None:
        kept = max(_fewest(group), _kept(group.units, share, group.channels, round_to))
        stays[scores.argsort(stable=True)[: group.units - kept].numpy()] = False
    return stays


def _fewest(group: Group) -> int:
    """A grouped convolution with one output per group would pass for a depthwise one later."""
    grouped = any(
        isinstance(member.layer, nn.Conv2d) and member.layer.groups > 1 and member.side == "out"
        for member in group.members
    )
    return min(2 if grouped else 1, group.units)


def _kept(units: int, share: float, channels: int, round_to: int) -> int:
    """Number of units to keep, each of them with so many channels."""
    wanted = math.floor(units * share + 1e-6)
    if wanted >= units:
        return units
    step = round_to // math.gcd(round_to, channels)
    if step >= units:
        return max(1, wanted) if channels > 1 else units
    return max(step, wanted - wanted % step)


def remove(model: QueryModel, groups: list[tuple[Group, NDArray[np.bool_]]]) -> None:
    """Take channels out of all layers, and set what depends on their widths."""
    frozen = [name for name, each in model.named_parameters() if not each.requires_grad]
    gone: dict[tuple[str, Side], set[int]] = {}
    members = {}
    for member, positions in removed(groups):
        key = member.name, member.side
        members[key] = member
        gone.setdefault(key, set()).update(positions.tolist())
    for key, all_positions in gone.items():
        if all_positions:
            _remove_from(model, members[key], sorted(all_positions))
    record_kept(model, {key: (len(members[key].unit_of), where) for key, where in gone.items()})
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    mend(model)
    if type(model.backbone) is TimmBackbone:
        _state_widths(model.backbone.network, model)


def _state_widths(network: Any, model: QueryModel) -> None:
    """Set the two widths that users of timm read: of the last map, and of the pooled vector."""
    pooled = model.projection.channels
    if network.num_features == network.head_hidden_size:
        network.num_features = pooled
    else:  # a convolution between them, so the map has its channels first
        with tracing(model), torch.no_grad():
            network.num_features = network.forward_features(_image(model)).shape[1]
    network.head_hidden_size = pooled


def _image(model: QueryModel) -> Tensor:
    return torch.zeros(1, 3, model.resolution, model.resolution, device=model.mean.device)


def _remove_from(model: QueryModel, member: Member, positions: list[int]) -> None:
    if member.layer is None:
        owner, _, leaf = member.name.rpartition(".")
        parameter = model.get_parameter(member.name)
        pruner = tp.function.ParameterPruner(pruning_dim=member.dim)
        setattr(model.get_submodule(owner), leaf, pruner.prune_out_channels(parameter, positions))
        return
    layer: Any = model.get_submodule(member.name)
    if member.side == "both" and isinstance(layer, nn.Conv2d):
        per_group = layer.out_channels // layer.groups
        tp.prune_depthwise_conv_out_channels(layer, positions)
        layer.groups = layer.out_channels // per_group
        layer.in_channels = layer.groups * layer.weight.shape[1]
    else:
        conv = isinstance(layer, nn.Conv2d)  # with as many groups as outputs it is one nonetheless
        kind = tp.ops.OPTYPE.CONV if conv else tp.ops.module2type(layer)
        pruner = tp.function.PrunerBox[kind]
        prune = pruner.prune_in_channels if member.side == "in" else pruner.prune_out_channels
        prune(layer, positions)


def _check(model: QueryModel, ratios: Mapping[str, float], rule: Rule) -> None:
    name, by_stage = _name(model), stages(model)
    for stage, ratio in ratios.items():
        if stage not in by_stage:
            raise PruningError(
                f"'{name}' has no stage '{stage}': {suggestion(stage, list(by_stage))}"
            )
        if not 0 <= ratio < 1:
            raise PruningError(
                f"the pruning ratio of stage '{stage}' is {ratio}: give a share from 0 to below 1"
            )
    if rule.criterion not in CRITERIA:
        raise PruningError(
            f"no pruning criterion '{rule.criterion}': {suggestion(rule.criterion, list(CRITERIA))}"
        )
    if rule.scope not in get_args(Scope):
        raise PruningError(
            f"no pruning scope '{rule.scope}': {suggestion(rule.scope, list(get_args(Scope)))}"
        )
    if rule.criterion in NEEDS_LOSS and rule.batch_loss is None and any(ratios.values()):
        raise PruningError(
            f"the criterion '{rule.criterion}' needs batch_loss, a function of the model"
        )
    for module in model.modules():
        if isinstance(module, MISREAD):
            raise PruningError(
                f"'{name}' cannot be cut: torch-pruning misreads its {type(module).__name__}; "
                "choose a model of a family in pruning.SUPPORTED"
            )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch-pruning lets whatever went wrong inside it through
        raise PruningError(
            f"'{name}' cannot be cut: its layers do not fit together afterwards, or torch-pruning "
            f"cannot follow them ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
        ) from error


def _name(model: QueryModel) -> str:
    match model.origin:
        case {"timm": {"name": name}} | {"space": {"name": name}}:
            return name
    return type(model.backbone).__name__

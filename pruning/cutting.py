"""Cut channels out of a query model, with torch-pruning's dependency graph."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pruning.errors import PruningError
from pruning.stages import stages
from searchspaces import QueryModel, count_macs
from searchspaces.parameters import near

CRITERIA: Mapping[str, Callable[[], Callable[..., Tensor]]] = {
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "bn_scale": tp.importance.BNScaleImportance,
    "lamp": tp.importance.LAMPImportance,
    "fpgm": tp.importance.FPGMImportance,
    "random": tp.importance.RandomImportance,
    "taylor": tp.importance.GroupTaylorImportance,
}


def cut(
    model: QueryModel,
    ratios: Mapping[str, float],
    *,
    criterion: str = "magnitude",
    round_to: int = 8,
    batch_loss: Callable[[QueryModel], Tensor] | None = None,
    seed: int = 0,
) -> QueryModel:
    """Return a narrower copy of a query model; the output dimension stays.

    Channels that depend on each other (residual sums, depthwise convolutions, attention heads) go
    together (Fang et al., "DepGraph", CVPR 2023). Where such a group reaches over several stages,
    the smallest of their ratios counts; depthwise convolutions just follow.

    Args:
        model: The model; it is not changed.
        ratios: Share of channels to remove by stage, 0 <= ratio < 1; other stages are not cut.
        criterion: Which channels are least important. "magnitude": L2 norm over the group;
            "bn_scale": BatchNorm scales (Liu et al., ICCV 2017); "lamp": layer-adaptive magnitude
            (Lee et al., ICLR 2021), by which the layers of a stage compete; "fpgm": distance to
            the geometric median (He et al., CVPR 2019); "random"; "taylor": first-order change of
            `batch_loss` (Molchanov et al., CVPR 2019).
        round_to: The numbers of kept channels are rounded down to a multiple of this, and stay at
            least this where there were as many.
        batch_loss: Maps a model to a scalar loss on some batch; for "taylor".
        seed: For "random".

    Raises:
        PruningError: If a stage or the criterion is unknown, a ratio is out of range, the network
            cannot be cut, or nothing was cut although a ratio asks for it.
    """
    name = _name(model)
    by_stage = stages(model)
    _check(name, by_stage, ratios, criterion, batch_loss)
    pruned = copy.deepcopy(model)
    if not any(ratios.values()):
        return pruned
    before = count_macs(model, model.resolution)
    try:
        with torch.random.fork_rng(devices=[]), _tracing(pruned):
            torch.default_generator.manual_seed(seed)
            if criterion == "taylor" and batch_loss is not None:
                batch_loss(pruned).backward()
            _prune(pruned, by_stage, ratios, criterion, round_to)
            pruned.zero_grad(set_to_none=True)
            _mend_attention(pruned)
        after = count_macs(pruned, pruned.resolution)
    except Exception as error:  # torch-pruning lets whatever went wrong inside it through
        raise PruningError(
            f"'{name}' cannot be cut: its layers do not fit together afterwards, or torch-pruning "
            f"cannot follow them ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
        ) from error
    if after >= before:
        reason = (
            "it has no BatchNorm scales to go by"
            if criterion == "bn_scale"
            else "all layers are "
            f"at most {round_to} channels wide or are tied to stages that are not cut"
        )
        raise PruningError(f"nothing was cut out of '{name}' with ratios {dict(ratios)}: {reason}")
    return pruned


def _check(
    name: str,
    by_stage: Mapping[str, list[str]],
    ratios: Mapping[str, float],
    criterion: str,
    batch_loss: Callable[[QueryModel], Tensor] | None,
) -> None:
    for stage, ratio in ratios.items():
        if stage not in by_stage:
            raise PruningError(f"'{name}' has no stage '{stage}': {near(stage, list(by_stage))}")
        if not 0 <= ratio < 1:
            raise PruningError(
                f"the pruning ratio of stage '{stage}' is {ratio}: give a share from 0 to below 1"
            )
    if criterion not in CRITERIA:
        raise PruningError(f"no pruning criterion '{criterion}': {near(criterion, list(CRITERIA))}")
    if criterion == "taylor" and batch_loss is None:
        raise PruningError("the criterion 'taylor' needs batch_loss, a function of the model")


def _prune(
    model: QueryModel,
    by_stage: Mapping[str, list[str]],
    ratios: Mapping[str, float],
    criterion: str,
    round_to: int,
) -> None:
    stage_of = {
        model.get_submodule(layer): stage for stage, layers in by_stage.items() for layer in layers
    }
    heads = {module.qkv: module.num_heads for module in _attentions(model)}
    images = torch.zeros(2, 3, model.resolution, model.resolution, device=model.mean.device)
    pruner = tp.pruner.BasePruner(
        model,
        images,
        importance=CRITERIA[criterion](),
        pruning_ratio=0.0,
        pruning_ratio_dict=dict.fromkeys(stage_of, 0.0),
        ignored_layers=[model.projection.linear],
        in_channel_groups={},  # its own defaults are shared between calls
        out_channel_groups={},
        num_heads=heads,
    )
    groups = []
    for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
        modules = _cut_at_output(pruner, group)
        voters = [module for module in modules if not _is_depthwise(module)] or modules
        touched = {stage_of[module] for module in voters if module in stage_of}
        if touched:
            groups.append((group, modules, min(touched, key=lambda s: ratios.get(s, 0.0))))
    shares = _competing_shares(pruner, groups, ratios) if criterion == "lamp" else {}
    for index, (group, modules, stage) in enumerate(groups):
        parts = max(
            [heads.get(module, pruner.out_channel_groups.get(module, 1)) for module in modules]
            + [pruner.in_channel_groups.get(dep.target.module, 1) for dep, _ in group]
        )
        channels = len(group[0].idxs)
        if any(module in heads for module in modules):
            channels //= 3  # queries, keys and values are one linear layer
        share = shares.get(index, 1.0 - ratios.get(stage, 0.0))
        kept = _kept(channels // parts, share, parts, round_to)
        for module in modules:
            # torch-pruning keeps int(channels * (1 - ratio)); the half guards against round-off
            pruner.pruning_ratio_dict[module] = [0.0, 1.0 - (kept + 0.5) / (channels // parts)]
    pruner.step()


def _cut_at_output(pruner: Any, group: Any) -> list[nn.Module]:
    return [
        dep.target.module
        for dep, _ in group
        if pruner.DG.is_out_channel_pruning_fn(dep.handler)
        and isinstance(dep.target.module, nn.Conv2d | nn.Linear)
    ]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1


def _kept(channels: int, share: float, parts: int, round_to: int) -> int:
    """Number of channels to keep in each of `parts` equal parts of a group."""
    wanted = math.floor(channels * share + 1e-9)
    if wanted >= channels:
        return channels
    unit = round_to // math.gcd(round_to, parts)
    if unit >= channels:
        return max(1, wanted) if parts > 1 else channels
    return max(unit, wanted - wanted % unit)


def _competing_shares(
    pruner: Any, groups: list[tuple[Any, list[nn.Module], str]], ratios: Mapping[str, float]
) -> dict[int, float]:
    """Share of channels that each group keeps when the groups of a stage are ranked together."""
    scores: dict[str, dict[int, Tensor]] = {}
    for index, (group, modules, stage) in enumerate(groups):
        if ratios.get(stage, 0.0) and not any(module in pruner.num_heads for module in modules):
            score = pruner.estimate_importance(group)
            if score is not None:
                scores.setdefault(stage, {})[index] = score
    shares = {}
    for stage, members in scores.items():
        ranked = torch.cat(list(members.values())).sort().values
        threshold = ranked[min(int(len(ranked) * ratios[stage]), len(ranked) - 1)]
        for index, score in members.items():
            shares[index] = float((score >= threshold).float().mean())
    return shares


def _attentions(model: nn.Module) -> list[Any]:
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "qkv", None), nn.Linear) and hasattr(module, "num_heads")
    ]


def _mend_attention(model: nn.Module) -> None:
    for module in _attentions(model):
        head = module.qkv.out_features // (3 * module.num_heads)
        for attribute, value in {"head_dim": head, "attn_dim": head * module.num_heads}.items():
            if hasattr(module, attribute):
                setattr(module, attribute, value)


@contextmanager
def _tracing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, gradients on, attention written out: what torch-pruning can follow."""
    training = model.training
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.eval()
        yield
    model.train(training)


def _name(model: QueryModel) -> str:
    match model.origin:
        case {"timm": {"name": name}} | {"space": {"name": name}}:
            return name
    return type(model.backbone).__name__

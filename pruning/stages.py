"""The few groups of layers of a network that are cut by one ratio each."""

from collections.abc import Mapping

from torch import nn

from pruning.channels import Group
from searchspaces import QueryModel
from searchspaces.backbone import TimmBackbone

FEWEST, MOST = 4, 6
STEM = 2


def stages(model: QueryModel) -> dict[str, list[str]]:
    """Divide a query model's backbone into stages, in the order of their layers.

    Stages are the children of the backbone; while there are fewer than four, the container with the
    most layers is opened up; a stem of one or two layers and a lone last layer join their
    neighbours; neighbours are joined until there are at most six.

    Returns:
        For each stage ("layer1", "blocks.0-1") the names of its convolutions and linear layers, as
        in `model.named_modules()`. The projection is in none of them.
    """
    prefix, network = "backbone", model.backbone
    if isinstance(network, TimmBackbone):
        prefix, network = "backbone.network", network.network
    units = [(name, child) for name, child in network.named_children() if _layers(child)]
    while len(units) < FEWEST:
        inner = [
            (name, child)
            for name, child in units
            if _is_container(child) and len(list(child.children())) > 1
        ]
        if not inner:
            break
        name, child = chosen = max(inner, key=lambda unit: len(_layers(unit[1])))
        index = units.index(chosen)
        units[index : index + 1] = [
            (f"{name}.{part}", module) for part, module in child.named_children() if _layers(module)
        ]
    groups = [
        ([name], [f"{prefix}.{name}.{layer}".rstrip(".") for layer in _layers(module)])
        for name, module in units
    ]
    while len(groups) > 1 and len(groups[0][1]) <= STEM:
        groups[:2] = [(groups[1][0], groups[0][1] + groups[1][1])]
    while len(groups) > 1 and len(groups[-1][1]) == 1:
        groups[-2:] = [(groups[-2][0], groups[-2][1] + groups[-1][1])]
    while len(groups) > MOST:
        first = min(range(len(groups) - 1), key=lambda i: len(groups[i][1]) + len(groups[i + 1][1]))
        (names, layers), (more_names, more_layers) = groups[first : first + 2]
        groups[first : first + 2] = [(names + more_names, layers + more_layers)]
    return {_title(names): layers for names, layers in groups}


def touched_stages(group: Group, stage_of: Mapping[str, str]) -> set[str]:
    """Return the stages whose layers make the channels of a group; norms follow.

    Args:
        group: Channels that go together.
        stage_of: The stage of every layer.
    """
    outputs = [member for member in group.members if member.side != "in"]
    makers = [member for member in outputs if member.side == "out"] or outputs
    return {stage_of[member.name] for member in makers if member.name in stage_of}


def _is_container(module: nn.Module) -> bool:
    """Whether a module only holds others; a plain one does in networks that end at a level."""
    return isinstance(module, nn.Sequential | nn.ModuleList) or type(module) is nn.Module


def _layers(module: nn.Module) -> list[str]:
    return [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def _title(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    first, last = names[0], names[-1]
    parent = first.rpartition(".")[0]
    return f"{first}-{last.removeprefix(parent + '.') if parent else last}"

"""Find the groups of channels that a network can lose, with torch-pruning's dependency graph."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn

from pruning.channels import Channels, Group, Side
from pruning.families import Block, blocks, forget
from searchspaces import QueryModel


def find_groups(model: QueryModel) -> list[Group]:
    """Return the groups of channels that can be removed together, in the order of the layers.

    Fang et al., "DepGraph: Towards any structural pruning", CVPR 2023. The output of the projection
    and the channels of the image are in none of them.
    """
    opaque = dict(blocks(model))
    channels = Channels(model)
    with tracing(model), _as_one_operation(opaque), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.zeros(2, 3, model.resolution, model.resolution, device=model.mean.device)
        kinds = {type(module): block for module, block in opaque.items()}
        graph: Any = tp.DependencyGraph().build_dependency(
            model,
            images,
            customized_pruners={kind: _OpaquePruner(block) for kind, block in kinds.items()},
            verbose=False,
        )
        roots = [nn.modules.conv._ConvNd, nn.Linear, *kinds]
        for group in graph.get_all_groups([model.projection.linear], roots):
            _label(channels, graph, group)
    for module, block in opaque.items():
        into, out = block.widths(module)
        block.wire(
            module, channels, channels.of(module, "in", into), channels.of(module, "out", out)
        )
        channels.drop(module, "in", "out")
    _tie_parts(model, channels)
    return channels.groups()


class _OpaquePruner(tp.BasePruningFunc):
    """A block as one layer, whose input and output channels have nothing to do with each other.

    It serves the search for groups only: torch-pruning never cuts it, `cut` cuts the layers inside.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self._block = block

    def prune_in_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        raise AssertionError("a block is not cut as one layer")

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        raise AssertionError("a block is not cut as one layer")

    def get_in_channels(self, layer: nn.Module) -> int:
        return self._block.widths(layer)[0]

    def get_out_channels(self, layer: nn.Module) -> int:
        return self._block.widths(layer)[1]


class _Opaque(torch.autograd.Function):
    """What a block does to its input, as a single operation in the autograd graph."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, output: Tensor) -> Tensor:
        return output.clone()


def _label(channels: Channels, graph: Any, group: Any) -> None:
    labels = channels.fresh(len(group[0].idxs))
    for item in group.items:
        node, handler = item.dep.target, item.dep.handler
        into = graph.is_in_channel_pruning_fn(handler)
        out = graph.is_out_channel_pruning_fn(handler)
        width = graph.get_out_channels(node) if out else graph.get_in_channels(node)
        if isinstance(node.module, nn.Parameter):
            name, dim = graph._param_to_name[node.module], node.pruning_dim
        else:
            name, dim = graph._module2name.get(node.module), 0
        if name is None or width is None:
            continue  # a sum, a concatenation, ...: it has no channels of its own
        side: Side = "both" if into and out else "out" if out else "in"
        reached = channels.of(name, side, width).copy()  # a concatenation is reached by several
        reached[item.idxs] = labels[item.root_idxs]
        channels.put(name, side, reached, dim=dim)


def _tie_parts(model: nn.Module, channels: Channels) -> None:
    """Every group of a grouped convolution, or of a GroupNorm, loses as many channels."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            labels = channels.of(module, "both", module.num_channels)
            _tie_equal(channels, labels, module.num_groups)
        if not isinstance(module, nn.Conv2d) or module.groups == 1 or channels.has(module, "both"):
            continue
        into = channels.of(module, "in", module.in_channels)
        out = channels.of(module, "out", module.out_channels)
        if module.groups == module.in_channels:  # depthwise with several outputs for each input
            channels.tie(np.repeat(into, len(out) // len(into)), out)
            channels.drop(module, "in", "out")
            channels.put(module, "both", out)
        else:
            _tie_equal(channels, into, module.groups)
            _tie_equal(channels, out, module.groups)


def _tie_equal(channels: Channels, labels: Any, parts: int) -> None:
    first, *others = labels.reshape(parts, -1)
    for other in others:
        channels.tie(first, other)


@contextmanager
def tracing(model: QueryModel) -> Iterator[None]:
    """Evaluation mode, gradients on, and all of it as before in the end."""
    training = model.training
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        forget(model)
        with torch.enable_grad():
            model.eval()
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        forget(model)
        model.train(training)


@contextmanager
def _as_one_operation(modules: Iterable[Any]) -> Iterator[None]:
    """Let each of the blocks be one operation in the autograd graph."""
    replaced = list(modules)
    for module in replaced:
        module.forward = partial(_seen, module.forward)
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _seen(forward: Callable[..., Tensor], maps: Tensor, *args: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        output = forward(maps, *args, **options)
    return _Opaque.apply(maps, output)

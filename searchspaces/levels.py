"""Levels of a timm network: the maps after each of its stages."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from searchspaces.backbone import TimmBackbone
from searchspaces.errors import SearchSpaceError
from searchspaces.support.errors import reason

_FINEST = 4  # pixels that a position of the first level stands for


def level_names(network: nn.Module) -> list[str]:
    """Return the modules after which a timm network has a level, in their order.

    They are what timm lists as the ends of its stages from a stride of 4 on, and what stands
    between these in the same chain of modules. A network of which timm lists none has none.
    """
    listed = [each["module"] for each in getattr(network, "feature_info", None) or ()]
    strides = [each["reduction"] for each in getattr(network, "feature_info", None) or ()]
    names = {name for name, stride in zip(listed, strides, strict=True) if stride >= _FINEST}
    for parent, chain in network.named_modules():
        if isinstance(chain, nn.Sequential):
            members = [f"{parent}.{leaf}" for leaf, _ in chain.named_children()]
            places = [i for i, member in enumerate(members) if member in names]
            names.update(members[min(places, default=0) : max(places, default=-1) + 1])
    return [name for name, _ in network.named_modules() if name in names]


class LevelFeatures(TimmBackbone):
    """A timm network up to the last of some levels: the mean over all positions of each of them.

    Pooled maps of all levels are what a gallery vector can be read from best: early ones have kept
    at a low resolution what late ones have lost. After Hariharan et al., "Hypercolumns for object
    segmentation and fine-grained localization", CVPR 2015, there for every pixel.

    Args:
        network: As `until` returns it.
        channels_last: Whether its maps are (B, h, w, c) rather than (B, c, h, w); those of three
            axes are (B, positions, c) always.
    """

    def __init__(self, network: fx.GraphModule, *, channels_last: bool) -> None:
        super().__init__(network)
        self._positions = (1, 2) if channels_last else (2, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.network(images)
        return torch.cat(
            [each.mean(self._positions if each.ndim == 4 else 1) for each in maps], dim=1
        )


def level_features(network: nn.Module, levels: Sequence[str], name: str) -> LevelFeatures:
    """Let the features of a timm network be those of some levels; raises as `until`."""
    channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    return LevelFeatures(until(network, levels, name), channels_last=channels_last)


def until(network: nn.Module, levels: Sequence[str], name: str) -> fx.GraphModule:
    """Return a timm network that ends at the last of some levels, and gives the maps of them all.

    Modules keep their names and share their weights; what comes after the last level is gone.

    Args:
        network: As `timm.create_model` makes it.
        levels: Names of modules, some of `level_names`.
        name: What the network is called in errors.

    Raises:
        SearchSpaceError: The network has no such module, or the maps of its levels cannot be had.
    """
    try:
        graph = _Tracer(levels).trace(network)
    except Exception as error:  # a forward pass that depends on its images cannot be followed
        raise SearchSpaceError(
            f"the maps between the stages of '{name}' cannot be had ({reason(error)}): use its "
            "pooled features"
        ) from error
    traced = fx.GraphModule(network, graph, class_name=type(network).__name__)
    ends = {node.target: node for node in traced.graph.nodes if node.op == "call_module"}
    for level in levels:
        if level not in ends:
            raise SearchSpaceError(
                f"'{name}' has no level '{level}': choose among {', '.join(level_names(network))}"
            )
    (output,) = traced.graph.find_nodes(op="output")
    output.args = (tuple(ends[level] for level in levels),)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):
    """Follows a network as far down as its levels; what happens inside of them is left to them."""

    def __init__(self, levels: Sequence[str]) -> None:
        super().__init__()
        self._levels = levels

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(level.startswith(f"{module_qualified_name}.") for level in self._levels)

"""Which blocks of a network can be left out, because a shortcut leads around them."""

import copy
from typing import Any

import torch
from timm.models.regnet import RegStage
from torch import Tensor, nn

_CHAINS = (nn.Sequential, nn.ModuleList, RegStage)


@torch.no_grad()
def optional_blocks(network: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the residual blocks with an identity as their shortcut, in order.

    A block is a member of a chain of modules that hands on what it is given once all of its
    parameters are zero, whatever its family calls its parts.

    Args:
        network: A network in evaluation mode; it is not changed.
        images: What it is run on.
    """
    candidates = [
        f"{name}.{leaf}".lstrip(".")
        for name, chain in network.named_modules()
        if isinstance(chain, _CHAINS)
        for leaf, child in chain.named_children()
        if not isinstance(child, _CHAINS) and any(True for _ in child.parameters())
    ]
    taken = _taken(network, candidates, images)
    found = [
        name for name in candidates if name in taken and _hands_on(network, name, *taken[name])
    ]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def _taken(network: nn.Module, names: list[str], images: Tensor) -> dict[str, Any]:
    """Arguments of those modules that map one tensor to another of its shape."""
    taken: dict[str, Any] = {}

    def note(name: str, args: Any, options: Any, output: Any) -> None:
        if isinstance(output, Tensor) and args and output.shape == getattr(args[0], "shape", None):
            taken[name] = args, options

    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _, args, options, output, name=name: note(name, args, options, output),
            with_kwargs=True,
        )
        for name in names
    ]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return taken


def _hands_on(network: nn.Module, name: str, args: Any, options: Any) -> bool:
    block = copy.deepcopy(network.get_submodule(name))
    for parameter in block.parameters():
        parameter.zero_()
    return torch.allclose(block(*args, **options), args[0], atol=1e-5)

"""Growing regularisation: channels that are to be cut fade out first.

After Wang et al., "Neural pruning via growing regularization", ICLR 2021 (GReg-1): the channels are
chosen once, an L2 penalty on their weights alone grows while training goes on, and then they are
cut. Chosen here: the penalty acts as decoupled weight decay (Loshchilov and Hutter, ICLR 2019),
because AdamW would divide its gradient by its own size; it grows linearly with the steps, to what
leaves 1% of a weight that nothing else moves; and norms fade along, which would undo it otherwise.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruning.kept import kept_channels
from searchspaces import QueryModel

_LEFT = 0.01


def removed_weights(model: QueryModel, pruned: QueryModel) -> dict[str, Tensor]:
    """Return masks of the weights that a cut took away.

    Args:
        model: The model that was cut.
        pruned: What `cut` made of it.

    Returns:
        By parameter name a boolean mask that broadcasts to the parameter of ``model``; True where
        the output or the input channel is gone.
    """
    before, after = kept_channels(model), kept_channels(pruned)
    modules = dict(model.named_modules())
    masks = {}
    for name, sides in after.items():
        if name not in modules:
            continue  # a bare parameter, such as a position embedding
        layer = modules[name]
        earlier = before.get(name, {})
        for leaf, parameter in layer.named_parameters(recurse=False):
            mask = torch.zeros(parameter.shape[:2], dtype=torch.bool)
            if "out" in sides:
                mask[_gone(earlier.get("out"), sides["out"], len(mask))] = True
            if "in" in sides and mask.ndim == 2 and getattr(layer, "groups", 1) == 1:
                mask[:, _gone(earlier.get("in"), sides["in"], mask.shape[1])] = True
            masks[f"{name}.{leaf}"] = mask.view(*mask.shape, *[1] * (parameter.ndim - mask.ndim))
    return masks


@contextmanager
def fading(model: nn.Module, masks: Mapping[str, Tensor], steps: int) -> Iterator[None]:
    """Let masked weights decay at every forward pass in training mode, a little faster each time.

    Args:
        model: A model that is trained inside the block, with one forward pass for each step.
        masks: Which weights, as `removed_weights` gives them.
        steps: Number of steps over which the decay adds up to a factor of 1/100.
    """
    slope = -math.log(_LEFT) / (steps * (steps + 1) / 2)
    step = 0

    @torch.no_grad()
    def decay(module: nn.Module, inputs: Any) -> None:
        nonlocal step
        if module is not model or not module.training:  # a copy (the average) carries the hook too
            return
        step = min(step + 1, steps)
        for name, mask in masks.items():
            weight = model.get_parameter(name)
            weight.mul_(torch.where(mask.to(weight.device), math.exp(-slope * step), 1.0))

    handle = model.register_forward_pre_hook(decay)
    try:
        yield
    finally:
        handle.remove()


def _gone(before: list[int] | None, after: list[int], width: int) -> list[int]:
    """Positions among the channels before a cut of those that it took away."""
    left = set(after)
    return [at for at, channel in enumerate(before or range(width)) if channel not in left]

"""The exponential moving average of a network's weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_Tensors = tuple[Tensor, ...] | list[Tensor]


class MovingAverage:
    """A copy of a network whose weights and buffers follow the network's own.

    Args:
        model: The network.
        decay: What the average keeps of itself in a step, in the long run. In step t it keeps
            min(decay, (1 + t) / (10 + t)), so that its memory grows with the steps taken.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._averaged = AveragedModel(model, multi_avg_fn=_following(decay), use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self._averaged.module

    def update(self) -> None:
        """Follow the network by one step."""
        self._averaged.update_parameters(self._model)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of steps."""
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            ValueError: The number of steps is negative.
        """
        if int(state["n_averaged"]) < 0:
            raise ValueError("an average over less than no steps")
        self._averaged.load_state_dict(state)


def _following(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    @torch.no_grad()
    def update(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():  # torch hands over one dtype at a time
            torch._foreach_lerp_(list(averaged), list(current), weight)
        else:
            torch._foreach_copy_(list(averaged), list(current))

    return update

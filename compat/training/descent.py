"""How a step changes the weights."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from compat.training.small_maps import SmallMaps

_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


class Descent:
    """Steps of AdamW whose learning rate follows a schedule.

    Its state are the moments. Rates are not part of it: they follow from the number of steps.

    Args:
        optimizer: Of all that is trained.
        scheduler: Its learning rate by step.
        device: Where everything lies.
        half: Whether losses are computed under bfloat16 autocast.
    """

    def __init__(
        self,
        optimizer: torch.optim.AdamW,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        *,
        device: torch.device,
        half: bool = False,
    ) -> None:
        self.device = device
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._half = half

    def step(self, losses: Iterable[Tensor]) -> float:
        """Take one step down the sum of ``losses`` and return it; none where it is not finite."""
        self._optimizer.zero_grad(set_to_none=True)
        values = []
        with SmallMaps(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            for part in losses:
                part.backward()
                values.append(part.detach())
        value = float(sum(values))  # the one time in a step that a GPU is waited for
        if math.isfinite(value):
            self._optimizer.step()
            self._scheduler.step()
        return value

    def advance(self, steps: int) -> None:
        """Bring the schedule to where it is after so many steps, before the first one here."""
        with warnings.catch_warnings():  # that no step of the optimizer comes before
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(steps):
                self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the moments by number of the parameter."""
        moments: dict[str, Any] = self._optimizer.state_dict()["state"]
        return moments

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            ValueError: It is not of these parameters.
        """
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for place, found in state.items():
            _check_moments(found, parameters[place])  # type: ignore[call-overload]
        own = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": own})


def _check_moments(found: dict[str, Tensor], parameter: Tensor) -> None:
    if found.keys() != _MOMENTS:
        raise ValueError("moments of another optimizer")
    for name, tensor in found.items():
        expected = () if name == "step" else parameter.shape
        if tensor.shape != expected or not tensor.is_floating_point():
            raise ValueError(f"a moment of {tensor.dtype} {tuple(tensor.shape)}")
    if found["step"] < 1 or (found["exp_avg_sq"] < 0).any():
        raise ValueError("moments that cannot be")

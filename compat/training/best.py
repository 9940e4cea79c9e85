"""Which epoch of a training is kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Fitted:
    """What a training came to.

    Attributes:
        best: Highest validation score seen, or nan without validation.
        epoch: The epoch that reached it and whose weights were kept, from 1; 0 is the start.
        history: Validation score by epoch.
    """

    best: float
    epoch: int
    history: dict[int, float]


class Best:
    """The weights of the epoch with the highest score; of the last one looked at, without scores.

    Args:
        model: The network that is looked at.
        validate: Score of a network, higher is better; None for no scores.
    """

    def __init__(
        self, model: nn.Module, validate: Callable[[nn.Module], float] | None = None
    ) -> None:
        self._model = model
        self._validate = validate
        self._fitted = Fitted(math.nan, 0, {})
        self._weights: dict[str, Tensor] = {}

    def look(self, epoch: int) -> float:
        """Score the network as it is after an epoch, keep its weights if they are the best."""
        score = math.nan if self._validate is None else self._validate(self._model)
        before, history = self._fitted, {**self._fitted.history, epoch: score}
        if not self._weights or math.isnan(score) or score > before.best:
            self._fitted = Fitted(score, epoch, history)
            self._weights = {k: v.detach().clone() for k, v in self._model.state_dict().items()}
        else:
            self._fitted = Fitted(before.best, before.epoch, history)
        return score

    def give(self, model: nn.Module) -> Fitted:
        """Put the kept weights into ``model`` and say how good they are."""
        model.load_state_dict(self._weights)
        return self._fitted

    def state_dict(self) -> dict[str, Any]:
        """Return scores and kept weights."""
        found = self._fitted
        return {
            "best": found.best,
            "best_epoch": found.epoch,
            "history": found.history,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            ValueError: The weights are not those of the network.
        """
        own = self._model.state_dict()
        weights = {name: state["weights"][name] for name in own}
        if any(weights[name].shape != value.shape for name, value in own.items()):
            raise ValueError("the best weights have other shapes")
        history = {int(epoch): float(score) for epoch, score in state["history"].items()}
        self._fitted = Fitted(float(state["best"]), int(state["best_epoch"]), history)
        self._weights = weights

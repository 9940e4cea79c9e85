"""What a predictor is, and how it is found by name."""

import math
from collections.abc import Callable, Iterable

from compat.errors import CompatError
from compat.predictors.inputs import PredictorInputs
from searchspaces.support.naming import did_you_mean

Predictor = Callable[[PredictorInputs], float]
"""Maps what is known of a candidate before training to a number; higher is better."""

_PREDICTORS: dict[str, Predictor] = {}


def register_predictor(name: str) -> Callable[[Predictor], Predictor]:
    """Register a function ``(inputs) -> float``, higher is better, under a name.

    Returns:
        A decorator that gives the function back; a later one of the same name replaces it.
    """

    def decorate(predictor: Predictor) -> Predictor:
        _PREDICTORS[name] = predictor
        return predictor

    return decorate


def list_predictors() -> list[str]:
    """Return the names of all registered predictors."""
    return sorted(_PREDICTORS)


def predict(names: Iterable[str], inputs: PredictorInputs) -> dict[str, float]:
    """Return the score of a candidate by every named predictor.

    Raises:
        CompatError: A name is not registered, or a predictor gives no finite number.
    """
    wanted = list(names)
    for name in wanted:
        if name not in _PREDICTORS:
            raise CompatError(
                f"Unknown predictor '{name}'{did_you_mean(name, _PREDICTORS)}: use one of "
                f"{', '.join(list_predictors())}."
            )
    scores = {name: float(_PREDICTORS[name](inputs)) for name in wanted}
    for name, score in scores.items():
        if not math.isfinite(score):
            raise CompatError(
                f"The predictor '{name}' gives {score} for a candidate with "
                f"{inputs.features.shape[1]} features; it has to give a finite number."
            )
    return scores

"""The lowest rung: proposals that have hardly a chance are not scored."""

from collections.abc import Mapping

import numpy as np
import torch
from optuna.trial import TrialState

from compat.predictors import list_predictors
from nas.candidates.objectives import OBJECTIVES
from nas.candidates.predicting import predictions
from nas.config.study import StandaloneConfig, StudyConfig
from nas.errors import StudyError
from nas.study.front import Record
from nas.study.proposal import subject_of
from nas.study.run import Run
from nas.study.surrogate import encode, regress
from searchspaces import Architecture

SURROGATE = "surrogate"
SCREENED = "chance"  # the user attribute of a trial that was not scored

_DRAWS = 512
_STUBBORN = 20  # refusals in a row after which the next proposal is scored all the same


def check_screen(config: StudyConfig) -> None:
    """Refuse a screen that does not exist or cannot serve the study's routes.

    Raises:
        StudyError: There is no such predictor, or it is to look at candidates of shared weights.
    """
    if config.screen is None or config.screen.by == SURROGATE:
        return
    if config.screen.by not in list_predictors():
        raise StudyError(
            f"There is no screen '{config.screen.by}'; give one of {SURROGATE}, "
            f"{', '.join(list_predictors())}."
        )
    for name, route in config.spaces.items():
        if not isinstance(route, StandaloneConfig):
            raise StudyError(
                f"The screen '{config.screen.by}' judges networks before training, but the space "
                f"'{name}' has trained weights to be scored by; give `by: {SURROGATE}`."
            )


def chance(
    run: Run, name: str, architecture: Architecture, costs: Mapping[str, float]
) -> tuple[float, float | None]:
    """Estimate the probability that a proposal would stand on the front.

    Its scores are predicted from those of the route's candidates so far, with uncertainty; of many
    draws those are counted that no scored candidate dominates (a soft dominance).

    Args:
        run: The study.
        name: The route.
        architecture: The proposal.
        costs: Costs of it that are known already; others are found where they are objectives.

    Returns:
        The probability, 1 while too few are scored; and the value of the study's predictor, to be
        kept with the trial as `predicted`, None for the surrogate.
    """
    config = run.config.screen
    assert config is not None
    seen = None if config.by == SURROGATE else _predicted(run, name, architecture)
    records = [r for r in run.records() if r.parent is None]
    known = [r for r in records if r.route == name]
    if len(known) < config.after or _stubborn(run):
        return 1.0, seen
    features = _features(run, name, known, architecture, seen)
    rng = np.random.default_rng([run.config.seed, len(run.study.get_trials(deepcopy=False))])
    draws = np.empty((_DRAWS, len(run.config.objectives)))
    losses = np.empty((len(records), len(run.config.objectives)))
    for column, objective in enumerate(OBJECTIVES[each] for each in run.config.objectives):
        sign = 1 if objective.direction == "minimize" else -1
        losses[:, column] = [sign * objective.of(r) for r in records]
        if objective.cost is not None:
            found = costs.get(objective.name)
            subject = subject_of(run, name, architecture)
            draws[:, column] = sign * (objective.cost_of(subject) if found is None else found)
        else:
            scores = [objective.of(r) for r in known]
            (mean,), (deviation,) = regress(features[:-1], scores, features[-1:])
            draws[:, column] = sign * rng.normal(mean, deviation, _DRAWS)
    dominated = np.any(np.all(losses[None] <= draws[:, None], axis=2), axis=1)
    return float(1 - dominated.mean()), seen


def _features(
    run: Run, name: str, known: list[Record], architecture: Architecture, seen: float | None
) -> np.ndarray:
    """Features of the known candidates, and in the last row of the proposal."""
    space, dimension = run.routes[name].space, run.data.gallery.dimension
    if seen is None:
        return encode(space, [*(r.architecture for r in known), architecture], dimension)
    trials = run.study.get_trials(deepcopy=False)
    before = [trials[r.trial].user_attrs["predicted"] for r in known]
    sizes = [*(r.macs for r in known), space.macs(architecture, dimension)]
    features = np.column_stack([[*before, seen], np.log10(sizes)])
    return (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)


def _predicted(run: Run, name: str, architecture: Architecture) -> float:
    assert run.config.screen is not None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.config.seed)
        model = run.routes[name].space.build(architecture, run.data.gallery.dimension)
    by = run.config.screen.by
    return predictions(model, run.data, [by], seed=run.config.seed)[by]


def _stubborn(run: Run) -> bool:
    """Whether the last proposals were all refused."""
    ended = [t for t in run.study.get_trials(deepcopy=False) if t.state.is_finished()]
    last = ended[-_STUBBORN:]
    return len(last) == _STUBBORN and all(t.state == TrialState.PRUNED for t in last)

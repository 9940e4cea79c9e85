"""The lowest rung: proposals that have hardly a chance are not scored."""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from compat.predictors import list_predictors
from compat.tasks.study_data import StudyData
from nas.candidates.predicting import predictions
from nas.candidates.proposal import Proposal
from nas.config.objectives import OBJECTIVES
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.dominance import dominated
from nas.study.front import scored
from nas.study.surrogate import encode, regress
from searchspaces.support.seeding import seeded

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
        if route.SHAPING:
            raise StudyError(
                f"The screen '{config.screen.by}' judges networks before training, but the space "
                f"'{name}' has trained weights to be scored by; give `by: {SURROGATE}`."
            )


def chance(
    proposal: Proposal, study: optuna.Study, config: StudyConfig, data: StudyData
) -> tuple[float, float | None]:
    """Estimate the probability that a proposal would stand on the front.

    Its scores are predicted from those of the route's candidates so far, with uncertainty; of many
    draws those are counted that no scored candidate dominates (a soft dominance).

    Args:
        proposal: The candidate; of its costs those are found that are objectives.
        study: The candidates so far.
        config: The study file, with a screen.
        data: What a predictor is fitted to.

    Returns:
        The probability, 1 while too few are scored; and the value of the study's predictor, to be
        kept with the trial as `predicted`, None for the surrogate.
    """
    assert config.screen is not None
    by = config.screen.by
    seen = None if by == SURROGATE else _predicted(proposal, by, data, config.seed)
    trials = study.get_trials(deepcopy=False)
    records = [r for r in scored(study) if r.parent is None and not r.adapted]
    known = [r for r in records if r.route == proposal.route.name]
    if len(known) < config.screen.after or _stubborn(trials):
        return 1.0, seen
    coordinates = (
        encode(
            proposal.route.space,
            [*(r.architecture for r in known), proposal.architecture],
            proposal.route.dimension,
        )
        if seen is None
        else _standardised(
            [*(trials[r.trial].user_attrs["predicted"] for r in known), seen],
            [*(r.macs for r in known), proposal.macs],
        )
    )
    rng = np.random.default_rng([config.seed, len(trials)])
    draws = np.empty((_DRAWS, len(config.objectives)))
    losses = np.empty((len(records), len(config.objectives)))
    for column, objective in enumerate(OBJECTIVES[each] for each in config.objectives):
        sign = 1 if objective.direction == "minimize" else -1
        losses[:, column] = [sign * r.value(objective) for r in records]
        if objective.cost is not None:
            draws[:, column] = sign * proposal.cost(objective)
        else:
            scores = [r.value(objective) for r in known]
            (mean,), (deviation,) = regress(coordinates[:-1], scores, coordinates[-1:])
            draws[:, column] = sign * rng.normal(mean, deviation, _DRAWS)
    return float(1 - dominated(draws, losses).mean()), seen


def _standardised(predicted: Sequence[float], macs: Sequence[int]) -> np.ndarray:
    """Predictions and log-MACs of candidates, each with mean 0 and deviation 1, float64 (N, 2)."""
    columns = np.column_stack([predicted, np.log10(macs)])
    return (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-9)


def _predicted(proposal: Proposal, by: str, data: StudyData, seed: int) -> float:
    with seeded(seed):
        model = proposal.route.space.build(proposal.architecture, proposal.route.dimension)
    return predictions(model, data, [by], seed=seed)[by]


def _stubborn(trials: Sequence[FrozenTrial]) -> bool:
    """Whether the last proposals were all refused."""
    ended = [t for t in trials if t.state.is_finished()]
    last = ended[-_STUBBORN:]
    return len(last) == _STUBBORN and all(t.state == TrialState.PRUNED for t in last)

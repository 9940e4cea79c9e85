"""The last step of a search: members of the front are aligned on, each for itself."""

import optuna
from optuna.trial import TrialState

from nas.budget import format_macs
from nas.front import Record, pareto_front
from nas.objectives import OBJECTIVES, asked
from nas.routes import Candidate
from nas.run import Run
from nas.scoring import keep_weights, measure


def finish(run: Run) -> list[Record]:
    """Align members of the front further, and add each to the study as a trial of its own.

    The members are spread evenly over the front. What they reach replaces the shared-weight
    promise by a measurement of the model that is exported. A finished model is never finished
    again, so a killed search continues here too.

    Returns:
        The records of all finished models of the study.
    """
    config = run.config.finish
    promised = pareto_front(run.study, finished=False)
    for record in _spread(promised, config.models):
        if record.trial in {r.parent for r in run.records()}:
            continue
        model = run.model(record)
        checkpoint = run.path / "shared" / f"finish-{record.trial}.checkpoint"
        run.aligner.align(
            model,
            config.training,
            checkpoint=checkpoint,
            title=f"finish trial {record.trial} ({format_macs(record.macs)})",
        )
        _add(run, record, Candidate(model, "finished", owns_weights=True))
        checkpoint.unlink(missing_ok=True)
    return [r for r in run.records() if r.parent is not None]


def _add(run: Run, parent: Record, candidate: Candidate) -> None:
    """Add the finished model as a trial with its parent's parameters and its own values."""
    origin = run.study.get_trials(deepcopy=False)[parent.trial]
    number = len(run.study.get_trials(deepcopy=False))
    costs = {each.name: getattr(parent, each.name) for each in asked(run.config)}
    record = measure(
        run,
        number,
        parent.route,
        parent.architecture,
        candidate,
        parent=parent.trial,
        costs=costs,
    )
    values = [OBJECTIVES[name].of(record) for name in run.config.objectives]
    run.study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=origin.params,
            distributions=origin.distributions,
            user_attrs=record.attributes(),
            constraints=origin.constraints,
        )
    )
    keep_weights(run, run.study.get_trials(deepcopy=False)[number], candidate)
    run.study.tell(number, values)


def _spread(front: list[Record], count: int) -> list[Record]:
    """Pick ``count`` members evenly along the front, both ends included."""
    if count == 0 or not front:
        return []
    if count == 1 or len(front) <= count:
        return front[-count:]
    step = (len(front) - 1) / (count - 1)
    return [front[round(i * step)] for i in range(count)]

"""The upper rungs of the ladder: promising candidates are aligned on, each for itself."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tqdm import tqdm

from nas.candidates.routes import Candidate
from nas.config.budget import format_macs
from nas.config.objectives import OBJECTIVES
from nas.config.study import RungConfig
from nas.study.front import Record, ancestors
from nas.study.promotion import promote_several
from nas.study.run import Run
from nas.study.scoring import add_trial
from nas.study.side_by_side import forget, train, train_all
from searchspaces import QueryModel

logger = logging.getLogger("querynas")

_ORDERED = 4  # models from which on a rung is asked whether it orders them as the next one does


def finish(run: Run, *, workers: int = 1, threads: int = 1) -> list[Record]:
    """Climb the rungs that the study file lists, and add each trained model as a trial of its own.

    Each rung takes its models one after another from the rung below, those first that promise most
    for the front (`nas.study.promotion.promote`), and aligns them further. What they reach replaces
    the promise of the rung below by a measurement of the model that is exported. A model is never
    aligned twice on a rung, so a killed search continues here too.

    Args:
        run: The run; what its candidates share is prepared.
        workers: Models that are aligned on at the same time, each in a process of its own where
            they are several.
        threads: Threads of each of these processes.

    Returns:
        The records of all models that were aligned on, on all rungs.

    Raises:
        StudyError: A training beside others failed.
    """
    rungs = run.config.finish
    objectives = [OBJECTIVES[name] for name in run.config.objectives]
    for number, rung in enumerate(rungs, 1):
        below = at_rung(run.records(), number - 1)
        grown = _grown(run.records(), number)
        progress = tqdm(
            total=rung.models,
            initial=len(grown),
            desc=f"rung {number}",
            unit="model",
            leave=False,
            disable=workers == 1,
        )
        while len(grown) < rung.models:
            chosen = promote_several(
                below,
                grown,
                objectives,
                count=min(workers, rung.models - len(grown)),
                tiers=run.config.tiers,
                seed=run.config.seed,
            )
            if not chosen:
                break
            fidelity = "finished" if number == len(rungs) else "aligned on"
            for record, model in zip(chosen, _trained(run, chosen, rung, threads), strict=True):
                _add(run, record, Candidate(model, fidelity, owns_weights=True))
                forget(run, record)
                progress.update()
            grown = _grown(run.records(), number)
        progress.close()
        _say_how_well_ordered(below, grown)
    return [r for r in run.records() if r.parent is not None]


def at_rung(records: list[Record], number: int) -> list[Record]:
    """Return the candidates of a rung; 0 is the search's own, others have so many ancestors.

    Adapted backbones, which nothing was trained for, stand on none.
    """
    by_trial = {r.trial: r for r in records}
    return [r for r in records if len(ancestors(r, by_trial)) == number and not r.adapted]


def _grown(records: list[Record], number: int) -> dict[int, Record]:
    """What candidates became on a rung, by the trial that they were on the rung below."""
    return {r.parent: r for r in at_rung(records, number) if r.parent is not None}


def _trained(
    run: Run, records: Sequence[Record], rung: RungConfig, threads: int
) -> list[QueryModel]:
    if len(records) > 1:
        return train_all(run, records, rung, threads=threads)
    (record,) = records
    title = f"finish trial {record.trial} ({format_macs(record.macs)})"
    return [train(run, record, rung, title=title)]


def _say_how_well_ordered(below: list[Record], grown: Mapping[int, Record]) -> None:
    """Log whether a rung orders its candidates as the next one does, and whether MACs would."""
    parents = [r for r in below if r.trial in grown]
    if len(parents) < _ORDERED:
        return
    from scipy.stats import kendalltau  # slow to import

    after = [grown[r.trial].accuracy for r in parents]
    logger.info(
        "%d models were aligned on; the scores they had before order them with a Kendall tau of "
        "%.2f, their MACs with %.2f.",
        len(parents),
        kendalltau([r.accuracy for r in parents], after).statistic,
        kendalltau([r.macs for r in parents], after).statistic,
    )


def _add(run: Run, parent: Record, candidate: Candidate) -> None:
    """Add the trained model as a trial with its parent's parameters and its own values."""
    origin = run.study.get_trials(deepcopy=False)[parent.trial]
    proposal = replace(run.proposal(parent.route, parent.architecture), found=dict(parent.costs))
    add_trial(
        run,
        proposal,
        candidate,
        params=origin.params,
        distributions=origin.distributions,
        constraints=origin.constraints,
        parent=parent.trial,
    )

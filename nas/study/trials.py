"""The search: an ordinary Optuna study over architectures of several search spaces."""

import logging
import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from compat.device import describe, pick_device
from compat.losses import create_loss
from nas.candidates.latency_table import open_table
from nas.candidates.proposal import Proposal, proposal_parameters
from nas.candidates.routes import Route, section
from nas.config.budget import format_macs
from nas.config.objectives import OBJECTIVES, BudgetConfig
from nas.config.plugins import import_modules
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.baselines import adapt_backbones
from nas.study.front import ADAPTED, Record, is_scored
from nas.study.ladder import finish
from nas.study.processes import limited, process
from nas.study.proposers import create_sampler
from nas.study.run import Run
from nas.study.scoring import keep_weights, measure
from nas.study.screening import SCREENED, chance, check_screen
from nas.study.unfinished import close, sign
from nas.study.warm_start import bring, proposals
from searchspaces import PrefixedTrial

logger = logging.getLogger("querynas")

_PATIENCE = 300  # proposals in a row outside the budget after which a search gives up


def search(
    config: StudyConfig,
    out: str | Path,
    *,
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
    timeout: float | None = None,
) -> Run:
    """Run or continue a search study.

    Args:
        config: The study file's content.
        out: Run folder; a folder that holds this study already is continued.
        trials: Number of scored candidates to reach, instead of ``config.trials``.
        workers: Processes that score candidates, and align promising ones on; with one, the same
            seed gives the same front.
        storage: Optuna storage URL instead of SQLite in the run folder.
        timeout: Seconds after which no further candidate is begun.

    Returns:
        The run, whose front is in ``run.front()``.

    Raises:
        StudyError: The budget admits no candidate, every candidate failed, the folder holds
            another study, or there is nothing to take from the run of `warm_start`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    import_modules(config.imports)
    create_loss(config.alignment_loss)  # a misspelt loss should not wait for hours of data
    check_screen(config)
    run = Run.create(out, config, storage)
    beside = f", in {workers} processes" if workers > 1 else ""
    logger.info("Computing on %s%s; results go to %s.", describe(pick_device()), beside, run.path)
    target = trials or config.trials
    for route in run.routes.values():
        check_reach(route, config.budget)
        _check_table(route, config)
    bring(run)
    run.save()
    with run.turn():
        run.embed_unlabelled()
        study = optuna.create_study(
            study_name=run.study_name,
            storage=run.storage,
            directions=[OBJECTIVES[name].direction for name in config.objectives],
            load_if_exists=True,
        )
        study.set_metric_names(list(config.objectives))
        if not study.trials:
            for parameters in _start(run):
                study.enqueue_trial(parameters)
        adapt_backbones(run)  # before what follows, which may train for hours
        run.prepare()
    share = max(1, torch.get_num_threads() // workers)
    further = workers - 1 if _done(study) < target else 0
    helpers = [
        process(_helper, str(run.path), target, timeout, threads=share, daemon=True)
        for _ in range(further)
    ]
    for helper in helpers:
        helper.start()
    try:
        with limited(share):
            _work(run, target, timeout)
    finally:
        for helper in helpers:
            helper.join()
    _check_outcome(run.study.get_trials(deepcopy=False), run.path)
    with run.turn():
        close(run.study)
        finish(run, workers=workers, threads=share)
    return run


def _work(run: Run, target: int, timeout: float | None, *, quiet: bool = False) -> None:
    """Score candidates until ``target`` are done, whoever did them."""
    study = run.study
    done = _done(study)
    progress = tqdm(total=target, desc="search", unit="candidate", initial=done, disable=quiet)

    def after(study: optuna.Study, trial: FrozenTrial) -> None:
        done = _done(study)
        progress.update(min(target, done) - progress.n)
        progress.set_postfix_str(_words(trial))
        if done >= target or _hopeless(study):
            study.stop()
        study.sampler = create_sampler(run.config, trial.number + 1)

    if done < target:
        study.sampler = create_sampler(run.config, len(study.get_trials(deepcopy=False)))
        with warnings.catch_warnings():
            # GP and NSGA-III do so to what was not measured, as it was outside the budget
            warnings.filterwarnings("ignore", "Clip non-finite values|All-NaN slice")
            study.optimize(
                lambda trial: _objective(run, trial),
                timeout=timeout,
                callbacks=[after],
                catch=(Exception,),
            )
    progress.close()


def _objective(run: Run, trial: optuna.Trial) -> tuple[float, ...]:
    """Propose, build and score one candidate."""
    sign(trial)
    objectives = [OBJECTIVES[each] for each in run.config.objectives]
    names = list(run.routes)
    name = trial.suggest_categorical("route", names) if len(names) > 1 else names[0]
    route = run.routes[name]
    architecture = route.space.suggest(cast(optuna.trial.BaseTrial, PrefixedTrial(trial, name)))
    proposal = run.proposal(name, architecture)
    try:
        excess = proposal.excess(run.config.budget)
        for bound, share in excess.items():
            trial.set_constraint(bound, share)
        if any(share > 0 for share in excess.values()):
            return tuple(float(proposal.found.get(each.name, each.worst)) for each in objectives)
        if run.config.screen is not None:
            _screen(run, trial, proposal)
        candidate = route.candidate(architecture, run.aligner)
        record = measure(run, trial.number, proposal, candidate)
        for key, value in record.attributes().items():
            trial.set_user_attr(key, value)
        if candidate.owns_weights:
            keep_weights(run, trial, candidate)
    except optuna.TrialPruned:
        raise
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        logger.warning("Trial %d failed and the study goes on: %s", trial.number, error)
        raise
    return tuple(record.value(each) for each in objectives)


def _screen(run: Run, trial: optuna.Trial, proposal: Proposal) -> None:
    """Stop a trial that has hardly a chance before it is scored."""
    assert run.config.screen is not None
    likely, predicted = chance(proposal, run.study, run.config, run.data)
    if predicted is not None:
        trial.set_user_attr("predicted", predicted)
    if likely < run.config.screen.doubt:
        trial.set_user_attr(SCREENED, likely)
        raise optuna.TrialPruned


def _start(run: Run) -> list[dict[str, Any]]:
    """First proposals: what an earlier run brought, then all of the range of every route."""
    rng = random.Random(run.config.seed)
    share = math.ceil(run.config.start / len(run.routes))
    first = proposals(run)
    for name, route in run.routes.items():
        drawn = route.start(rng, share, run.config.budget)
        first += [run.proposal(name, architecture) for architecture in drawn]
    several = len(run.routes) > 1
    return [proposal_parameters(each, several=several) for each in dict.fromkeys(first)]


def check_reach(route: Route, budget: BudgetConfig) -> None:
    """Refuse a budget that no candidate of a route can meet, before anything is trained.

    Raises:
        StudyError: The smallest candidate exceeds ``max_macs`` or the largest misses ``min_macs``.
        SearchSpaceError, PruningError: A candidate cannot be built; names the space's section.
    """
    with section(route.name):
        reach = route.reach()
    if reach is None:
        return
    least, most = reach
    if budget.max_macs is not None and least > budget.max_macs:
        raise StudyError(
            f"The budget max_macs = {format_macs(budget.max_macs)} admits no candidate of the "
            f"space '{route.name}', whose smallest has {format_macs(least)}; raise the budget or "
            "give the space smaller choices."
        )
    if budget.min_macs is not None and most < budget.min_macs:
        raise StudyError(
            f"The budget min_macs = {format_macs(budget.min_macs)} admits no candidate of the "
            f"space '{route.name}', whose largest has {format_macs(most)}; lower the budget or "
            "give the space larger choices."
        )


def _check_table(route: Route, config: StudyConfig) -> None:
    """Refuse a latency table that does not hold a route's blocks, before anything is trained.

    Raises:
        StudyError: The file is none, the space has no blocks, or some of them are missing.
    """
    if OBJECTIVES["table_latency"] in config.costs:
        assert config.latency_table is not None, "the study file was validated"
        open_table(config.latency_table).check_covers(route.space, route.dimension)


def _done(study: optuna.Study) -> int:
    """Candidates that were scored, or that failed by themselves.

    Proposals outside the budget cost nothing and do not count, nor do trials that were stopped.
    """
    return sum(
        (t.state == TrialState.FAIL and "error" in t.user_attrs)
        or (_is_searched(t) and t.user_attrs["parent"] is None)
        for t in study.get_trials(deepcopy=False)
    )


def _is_searched(trial: FrozenTrial) -> bool:
    """Whether a trial ended with a measured candidate of the search."""
    return is_scored(trial) and trial.user_attrs["fidelity"] != ADAPTED


def _hopeless(study: optuna.Study) -> bool:
    """Whether the last proposals were all outside the budget."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    last = trials[-_PATIENCE:]
    return len(last) == _PATIENCE and not any(is_scored(t) for t in last)


def _words(trial: FrozenTrial) -> str:
    if not is_scored(trial):
        if SCREENED in trial.user_attrs:
            return f"trial {trial.number} screened out"
        return f"trial {trial.number} {'failed' if 'error' in trial.user_attrs else 'over budget'}"
    record = Record.of_trial(trial)
    return f"{record.route} {format_macs(record.macs)} mAP {record.accuracy:.3f}"


def _check_outcome(trials: Sequence[FrozenTrial], path: Path) -> None:
    if any(_is_searched(t) for t in trials):
        return
    errors = [t.user_attrs["error"] for t in trials if "error" in t.user_attrs]
    if errors:
        raise StudyError(
            f"All {len(errors)} candidates of '{path}' failed, the last with: {errors[-1]}"
        )
    raise StudyError(
        f"None of the {len(trials)} proposals of '{path}' lies within the budget; widen it."
    )


def _helper(path: str, target: int, timeout: float | None) -> None:
    """One further worker process on the same study."""
    run = Run.open(path)
    run.prepare()
    _work(run, target, timeout, quiet=True)

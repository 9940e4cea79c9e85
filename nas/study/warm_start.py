"""What a study takes from an earlier run before it begins: architectures and shared weights."""

import json
import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from optuna.trial import FixedTrial
from safetensors.torch import save_file

from nas.candidates.proposal import Proposal
from nas.candidates.routes import PROJECTION, Route
from nas.config.study import StudyConfig
from nas.errors import StudyError
from nas.study.front import pareto_front
from nas.study.run import Run
from searchspaces import Architecture, SearchSpace, parameters
from searchspaces.support.files import write_atomically
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section
from searchspaces.support.tensors import read_safetensors

logger = logging.getLogger("querynas")

_PROPOSALS = "proposals.json"


class _Brought(Section):
    """One entry of the file of proposals."""

    route: str
    architecture: Architecture


def bring(run: Run) -> None:
    """Copy what a study begins with from the run that its `warm_start` names.

    Afterwards the study needs its own folder only. Once anything was computed there, nothing is
    brought any more.

    Raises:
        StudyError: There is no such run, nothing of it fits the study, or a file of its weights
            cannot be read.
    """
    if run.begun:
        return
    shutil.rmtree(run.warm_start, ignore_errors=True)  # of settings that were mended since
    if run.config.warm_start is None:
        return
    try:
        earlier = Run.open(run.config.warm_start)
        front = [(r.route, r.architecture) for r in pareto_front(earlier.study, finished=False)]
    except StudyError as error:
        raise StudyError(f"The field 'warm_start': {error}") from error
    fitting = [run.proposal(*each) for each in dict.fromkeys(front) if _fits(run.routes, *each)]
    same = [name for name in run.routes if _shares_weights(name, earlier.config, run.config)]
    if not fitting and not same:
        raise StudyError(
            f"Nothing of the run '{earlier.path}' fits this study: its spaces are "
            f"{_named(earlier.config)}, those of the study {_named(run.config)}; give a space the "
            "name and the options that it has there, or leave out warm_start."
        )
    _bring_weights(run, earlier, same)
    _bring_proposals(run, earlier.path, fitting, len(set(front)))


def proposals(run: Run) -> list[Proposal]:
    """Return what was brought of an earlier front."""
    file = run.warm_start / _PROPOSALS
    if not file.exists():
        return []
    remedy = "delete the run folder and search again"
    brought = read_json(file, list[_Brought], error=StudyError, remedy=remedy)
    return [
        run.proposal(each.route, each.architecture)
        for each in brought
        if _fits(run.routes, each.route, each.architecture)
    ]


def _bring_proposals(run: Run, earlier: Path, fitting: list[Proposal], total: int) -> None:
    taken = [each for each in fitting if each.within(run.config.budget)]
    content = [
        {"route": each.route.name, "architecture": json.loads(each.architecture.to_json())}
        for each in taken
    ]
    text = json.dumps(content, indent=1)
    write_atomically(run.warm_start / _PROPOSALS, lambda file: file.write_text(text))
    logger.info(
        "Warm start from %s: %d of the %d architectures of its front are proposed first "
        "(%d are not in the spaces of this study, %d outside its budget).",
        *(earlier, len(taken), total, total - len(fitting), len(fitting) - len(taken)),
    )


def _bring_weights(run: Run, earlier: Run, names: Iterable[str]) -> None:
    """Copy shared weights; the projection too where both runs have one gallery space."""
    if earlier.config.data == run.config.data and earlier.config.split != run.config.split:
        logger.warning(
            "Warm start from %s: no shared weights, as they were trained on another split of the "
            "same data and may know images that are held out here.",
            earlier.path,
        )
        return
    whole = earlier.gallery_fingerprint == run.data.gallery.fingerprint
    taken = []
    for name in names:
        file = earlier.shared / f"{name}.safetensors"
        if not file.exists():  # its training was never finished
            continue
        _copy(file, run.warm_start / file.name, whole=whole)
        taken.append(f"'{name}'")
    logger.info(
        "Warm start from %s: shared weights of %s%s.",
        earlier.path,
        " and ".join(taken) or "no space",
        ", without the projection into its other gallery space" if taken and not whole else "",
    )


def _copy(weights: Path, target: Path, *, whole: bool) -> None:
    remedy = "leave out warm_start, or delete it to take the architectures alone"
    state = read_safetensors(weights, error=StudyError, remedy=remedy)[1]
    kept = {k: v for k, v in state.items() if whole or not k.startswith(PROJECTION)}
    write_atomically(target, lambda path: save_file(kept, path))


def _shares_weights(name: str, before: StudyConfig, now: StudyConfig) -> bool:
    """Whether a route's shared weights have the same names and, but for the projection, shapes."""
    if name not in before.spaces:
        return False
    shape = now.spaces[name].shape
    return bool(shape) and shape == before.spaces[name].shape


def _fits(routes: Mapping[str, Route], name: str, architecture: Architecture) -> bool:
    return name in routes and contains(routes[name].space, architecture)


def contains(space: SearchSpace, architecture: Architecture) -> bool:
    """Whether a space would accept every parameter of an architecture, and ask for no other."""
    trial = FixedTrial(dict(architecture.params))
    try:
        with warnings.catch_warnings(action="ignore"):  # a value out of range is an answer here
            space.suggest(trial)
        parameters.check(architecture, space.name, trial.distributions)
    except (ValueError, OverflowError):  # a number may be of any length
        return False
    return True


def _named(config: StudyConfig) -> str:
    return " and ".join(f"'{name}' ({each.route})" for name, each in config.spaces.items())

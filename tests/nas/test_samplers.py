"""What proposes candidates: every sampler alone, and searches that use them."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest

from nas.candidates.routes import SupernetRoute
from nas.config.study import SamplerName, StudyConfig
from nas.study.proposers import create_sampler
from nas.study.trials import search

SAMPLERS = get_args(SamplerName)
SPACES = {"s": {"route": "supernet"}}


def config(**fields: Any) -> StudyConfig:
    return StudyConfig.model_validate({"data": "d", "gallery": "g", "spaces": SPACES, **fields})


def candidate(trial: optuna.Trial) -> tuple[float, ...]:
    """Four costs and gains of made-up networks: widths, a resolution and a switch."""
    widths = [trial.suggest_int(f"width{i}", 8, 32, step=8) for i in range(3)]
    side = trial.suggest_categorical("resolution", [24, 32, 48, 64])
    squeezed = trial.suggest_categorical("se", [False, True])
    cost = sum(widths) * side**2
    gain = 1 - 1 / (sum(widths) + side * (2 if squeezed else 1))
    return cost, sum(widths), gain, gain / side


def proposed(config: StudyConfig, trials: int) -> optuna.Study:
    """Propose as a search does, with a new sampler for every trial."""
    directions = ["minimize", "minimize", "maximize", "maximize"][: len(config.objectives)]
    study = optuna.create_study(directions=directions)
    for number in range(trials):
        study.sampler = create_sampler(config, number)
        trial = study.ask()
        study.tell(trial, candidate(trial)[: len(config.objectives)])
    return study


def parameters(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_a_sampler_is_chosen_that_breeds_what_varies() -> None:
    """Genetic samplers of Optuna breed only what all candidates share."""
    assert config().sampler == "nsga2"
    two = {"a": {"route": "supernet"}, "b": {"route": "supernet"}}
    assert config(spaces=two).sampler == "tpe"
    assert config(spaces=two, sampler="nsga2").sampler == "nsga2"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches(tiny_study: dict[str, Any], tmp_path: Path, sampler: str) -> None:
    slices = {"slices": tiny_study["spaces"]["slices"]}
    fields = {"spaces": slices, "finish": {"models": 0}, "trials": 3, "start": 0}
    config = StudyConfig.model_validate({**tiny_study, **fields, "sampler": sampler})
    assert len(search(config, tmp_path / "run").records()) == 3


# TPE and GP take seconds for so many
@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "qmc", "random"])
def test_proposals_depend_on_the_seed_and_the_trials_before_alone(sampler: str) -> None:
    one, same, other = (
        parameters(proposed(config(sampler=sampler, seed=seed), 60)) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_nsga3_takes_any_number_of_objectives(objectives: int) -> None:
    names = ("macs", "parameters", "cross_test", "self_test")
    study = proposed(config(sampler="nsga3", objectives=names[:objectives]), 120)
    best = [trial.number for trial in study.best_trials]
    assert sum(number >= 96 for number in best) > sum(number < 24 for number in best)


@pytest.mark.parametrize("sampler", ["nsga3", "qmc"])
def test_a_user_is_not_told_that_optuna_calls_a_sampler_experimental(sampler: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        create_sampler(config(sampler=sampler), 0)
    assert told == []


def test_qmc_shows_every_value_alike_often() -> None:
    shown = parameters(proposed(config(sampler="qmc"), 65))[
        1:
    ]  # the first trial is drawn at random
    for name, values in {"width0": 4, "width2": 4, "resolution": 4, "se": 2}.items():
        assert set(Counter(each[name] for each in shown).values()) == {64 // values}
    pairs = Counter((each["width0"], each["resolution"]) for each in shown)
    assert set(pairs.values()) == {4}


def test_qmc_draws_what_is_outside_its_sequence_anew_for_every_trial() -> None:
    told = config(sampler="qmc")
    study = optuna.create_study()
    drawn = []
    for number in range(60):
        study.sampler = create_sampler(told, number)
        trial = study.ask()
        if trial.suggest_categorical("route", ["a", "b"]) == "a":
            trial.suggest_int("a.width", 1, 8)
        else:
            drawn.append(trial.suggest_int("b.width", 1, 8))
        study.tell(trial, 0.0)
    assert len(set(drawn)) > 4


def test_a_qmc_search_that_is_killed_goes_on_in_its_sequence(
    tiny_study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = {"slices": tiny_study["spaces"]["slices"]}
    fields = {"spaces": slices, "finish": {"models": 0}, "trials": 5, "start": 1}
    told = StudyConfig.model_validate({**tiny_study, **fields, "sampler": "qmc"})
    whole = [trial.params for trial in search(told, tmp_path / "whole").study.trials]

    original, calls = SupernetRoute.candidate, []

    def killed(self: SupernetRoute, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(SupernetRoute, "candidate", killed)
    with pytest.raises(KeyboardInterrupt):
        search(told, tmp_path / "broken")
    broken = search(told, tmp_path / "broken").study.trials
    assert [trial.params for trial in broken][: len(whole)] == whole
    assert broken[2].state == optuna.trial.TrialState.FAIL

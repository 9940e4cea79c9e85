"""What proposes candidates: Optuna's samplers, by their names in study files."""

import warnings
from math import comb

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from nas.config.study import StudyConfig

_POPULATION = 24  # of the genetic samplers


def create_sampler(config: StudyConfig, trial: int) -> BaseSampler:
    """Return the study's sampler, seeded for one trial so that a killed study goes on alike."""
    seed = config.seed * 100_003 + trial
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match config.sampler:
            case "nsga3":
                return NSGAIIISampler(
                    seed=seed,
                    population_size=_POPULATION,
                    dividing_parameter=_divisions(len(config.objectives)),
                )
            case "tpe":
                return TPESampler(seed=seed, multivariate=True, group=True)
            case "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False)
            case "qmc":
                # one scrambling for the whole study, whose storage keeps the place in the sequence
                return QMCSampler(
                    seed=config.seed,
                    scramble=True,
                    independent_sampler=RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
            case "random":
                return RandomSampler(seed=seed)
            case _:
                return NSGAIISampler(seed=seed, population_size=_POPULATION)


def _divisions(objectives: int) -> int:
    """Divisions of an objective's axis that give NSGA-III as many reference points as it may use.

    With p divisions of M axes there are C(M + p - 1, p) of them. Deb and Jain, "An evolutionary
    many-objective optimization algorithm using reference-point-based nondominated sorting
    approach, part I", IEEE Transactions on Evolutionary Computation 2014, take a population of
    about that many.
    """
    fitting = (p for p in range(1, _POPULATION) if comb(objectives + p - 1, p) <= _POPULATION)
    return max(fitting)

"""What every space has whose parameters are free of each other."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from searchspaces import parameters
from searchspaces.architecture import Architecture


class ParametricSpace(ABC):
    """A search space that is the product of its parameters' choices.

    Attributes:
        name: The name in the registry.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def _distributions(self) -> dict[str, BaseDistribution]:
        """One distribution per parameter, all of them grids."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return one distribution per parameter, evenly spaced integers as `IntDistribution`."""
        return dict(self._distributions)

    def suggest(self, trial: BaseTrial) -> Architecture:
        """Let an Optuna trial choose every parameter."""
        return Architecture(self.name, parameters.suggest(trial, self._distributions))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw an architecture uniformly."""
        return Architecture(self.name, parameters.sample(rng, self._distributions))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architectures that differ from this one by one step of one parameter."""
        self._check(architecture)
        for params in parameters.neighbours(architecture.params, self._distributions):
            yield Architecture(self.name, params)

    def size(self) -> int:
        """Count the architectures."""
        return parameters.size(self._distributions)

    def _check(self, architecture: Architecture) -> None:
        parameters.check(architecture, self.name, self._distributions)

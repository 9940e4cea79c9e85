"""Which subnetworks a step of supernet training takes."""

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from nas.config.study import Sampling
from searchspaces import Architecture, ElasticSpace, parameters
from searchspaces.architecture import Value

Choices = Mapping[str, tuple[Value, ...]]

_RIVALS = 3  # architectures of one MACs figure of which the best is trained


@dataclass(frozen=True, eq=False)
class SubnetworkDraws:
    """Draws the subnetworks of every step; a function of the step alone, so that trainings resume.

    It knows a space by its parameters' values and by its MACs only: the values of a parameter are
    ordered by the MACs that are left when the largest architecture takes them.

    Attributes:
        space: The architectures.
        dimension: Dimension of the gallery space, for counting MACs.
        seed: Seed of the draws.
        sampling: "uniform": every architecture alike. "fair": every value of a parameter once in
            as many draws as it has values (strict fairness of Chu et al., "FairNAS", ICCV 2021,
            there over the choice blocks of a layer and within one step). "macs": log-uniform in
            MACs. "attentive": of three architectures of a log-uniform MACs figure the one with
            the lowest loss (Wang et al., "AttentiveNAS", CVPR 2021, best-up with the loss of the
            batch; they draw the figure from the spread of uniform architectures instead).
        progressive: Share of the training over which the choices open one after another, from the
            largest architecture on; 0 opens all at once (after progressive shrinking, Cai et al.,
            "Once-for-All", ICLR 2020, which opens kernels, depths and widths in turn).
    """

    space: ElasticSpace
    dimension: int
    seed: int
    sampling: Sampling = "uniform"
    progressive: float = 0.0

    def choices(self, progress: float) -> Choices:
        """Return the values of every parameter that are open, the largest architecture's first.

        All resolutions are open from the start, as in Once-for-All. The other values open evenly
        over the time, those first that cost the largest architecture the fewest MACs.

        Args:
            progress: Share of the training that is done, 0 to 1.
        """
        if self._whole(progress):
            return self._ladders
        steps = int(len(self._opening) * progress / self.progressive)
        opened = Counter(self._opening[:steps])
        return {
            name: values if name == "resolution" else values[: 1 + opened[name]]
            for name, values in self._ladders.items()
        }

    def ends(self, progress: float) -> tuple[Architecture, Architecture]:
        """Return the largest and the smallest architecture of what is open."""
        if self._whole(progress):
            return self.space.largest(), self.space.smallest()
        choices = self.choices(progress)
        return self.space.largest(), self._made({name: v[-1] for name, v in choices.items()})

    def draw(
        self, step: int, count: int, *, progress: float, loss: Callable[[Architecture], float]
    ) -> list[Architecture]:
        """Draw the subnetworks of a step from what is open.

        Args:
            step: Number of the step in the whole training, from 0.
            count: How many to draw, the same in every step.
            progress: Share of the training that is done, 0 to 1.
            loss: Current loss of an architecture; asked for by "attentive" alone.
        """
        if self.sampling == "fair":
            turns = range(step * count, (step + 1) * count)
            return [self._fair(turn, progress) for turn in turns]
        rng = random.Random(f"{self.seed} {step}")
        if self.sampling == "uniform":
            return [self._uniform(rng, progress) for _ in range(count)]
        rivals = _RIVALS if self.sampling == "attentive" else 1
        groups = [self._of_some_macs(rng, rivals, progress) for _ in range(count)]
        return [group[0] if rivals == 1 else min(group, key=loss) for group in groups]

    def _uniform(self, rng: random.Random, progress: float) -> Architecture:
        if self._whole(progress):
            return self.space.sample(rng)
        choices = self.choices(progress)
        return self._made({name: rng.choice(values) for name, values in choices.items()})

    def _fair(self, turn: int, progress: float) -> Architecture:
        """Take each parameter's values in shuffled blocks, every block holding each value once."""
        params = {}
        for name, values in self.choices(progress).items():
            block, place = divmod(turn, len(values))
            rng = random.Random(f"{self.seed} {name} {block}")
            params[name] = rng.sample(values, len(values))[place]
        return self._made(params)

    def _of_some_macs(self, rng: random.Random, count: int, progress: float) -> list[Architecture]:
        """Draw architectures of about one MACs figure, which is log-uniform between the ends."""
        choices = self.choices(progress)
        most, least = (math.log(self._macs(end)) for end in self.ends(progress))
        goal = rng.uniform(least, most)
        return [self._walked(rng, choices, goal) for _ in range(count)]

    def _walked(self, rng: random.Random, choices: Choices, goal: float) -> Architecture:
        """Walk from the largest architecture to the smallest and stop nearest to a log-MACs figure.

        Each step gives one parameter its next value; their order is random. Independent choices
        would seldom come near the ends, where few architectures lie.
        """
        steps = [name for name, values in choices.items() for _ in values[1:]]
        rng.shuffle(steps)

        def after(taken: int) -> Architecture:
            places = Counter(steps[:taken])
            return self._made({name: values[places[name]] for name, values in choices.items()})

        @cache
        def excess(taken: int) -> float:
            return math.log(self._macs(after(taken))) - goal

        below = bisect_left(range(len(steps)), 0.0, key=lambda taken: -excess(taken))
        return after(min(max(0, below - 1), below, key=lambda taken: abs(excess(taken))))

    def _whole(self, progress: float) -> bool:
        return progress >= self.progressive

    def _made(self, params: Mapping[str, Value]) -> Architecture:
        return Architecture(self.space.name, params)

    def _macs(self, architecture: Architecture) -> int:
        return self.space.macs(architecture, self.dimension)

    @cached_property
    def _kept(self) -> dict[tuple[str, Value], int]:
        """MACs of the largest architecture when one parameter takes another value."""
        largest = self.space.largest().params
        return {
            (name, value): self._macs(self._made({**largest, name: value}))
            for name, distribution in self.space.distributions().items()
            for value in parameters.grid(name, distribution)
        }

    @cached_property
    def _ladders(self) -> Choices:
        """Every parameter's values from the largest architecture's to the smallest's."""
        largest, smallest = self.space.largest().params, self.space.smallest().params
        ladders: dict[str, list[Value]] = {}
        for name, value in self._kept:
            ladders.setdefault(name, []).append(value)
        for name, values in ladders.items():
            values.sort(
                key=lambda value, name=name: (  # type: ignore[misc]
                    -self._kept[name, value],
                    value != largest[name],
                    value == smallest[name],
                )
            )
        return {name: tuple(values) for name, values in ladders.items()}

    @cached_property
    def _opening(self) -> list[str]:
        """Names of the parameters in the order in which their next values open."""
        steps = [
            (name, value)
            for name, values in self._ladders.items()
            if name != "resolution"
            for value in values[1:]
        ]
        return [name for name, _ in sorted(steps, key=lambda step: -self._kept[step])]

"""A table of block latencies measured on one device, which adds up to those of whole networks."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import nn
from tqdm import tqdm

from nas.errors import StudyError
from searchspaces import Architecture, SearchSpace, create_space
from searchspaces.space import BlockRecipe, BlockwiseSpace
from searchspaces.support.files import write_json
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section, Versioned
from searchspaces.support.seeding import seeded
from searchspaces.support.settings import bind_settings
from searchspaces.timing import Runtime, describe_runtime, forward_seconds

Timer = Callable[[nn.Module, tuple[int, ...], Runtime], float]
"""Seconds of one pass of a module, given the shape of its input and the runtime."""

FITTED = 20
"""Whole networks that the overhead is fitted on."""

ROUNDS = 2
"""How often everything is timed, so that another process seldom disturbs a thing each time."""

_KEPT_EVERY = 25  # blocks between two writes of the file


def fastest_pass(module: nn.Module, shape: tuple[int, ...], runtime: Runtime) -> float:
    """Return the seconds of the fastest of many passes: what disturbs a pass only slows it down."""
    return min(forward_seconds(module, shape, runtime, runs=60))


class SpaceOptions(Section):
    """A search space, as a study file names it."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    def create(self) -> BlockwiseSpace:
        """Make the space.

        Raises:
            SearchSpaceError: The name or an option is wrong.
            StudyError: Its networks are not chains of blocks.
        """
        return blockwise(create_space(self.name, **self.options))


class LatencyTable(Versioned):
    """Seconds by block, and what a whole network takes beyond its blocks.

    Attributes:
        spaces: The search spaces whose blocks it holds.
        dimension: Number of dimensions of the gallery space.
        runtime: Where the blocks ran.
        measured_on: Processor and version of the runtime.
        blocks: Seconds of one pass by the key of a block, without what calling the runtime takes.
        rounds: How often all blocks were timed.
        overhead: Seconds that a network takes more (or, below 0, less) than the sum of its blocks;
            None while the calibration is not finished.
        fitted_on: Digests of the architectures that the overhead was fitted on.
    """

    spaces: tuple[SpaceOptions, ...]
    dimension: int = Field(ge=1, le=1_000_000)
    runtime: Runtime
    measured_on: str
    blocks: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    rounds: int = Field(0, ge=0)
    overhead: float | None = None
    fitted_on: tuple[str, ...] = ()

    def seconds(self, space: SearchSpace, architecture: Architecture, dimension: int) -> float:
        """Return the latency of an architecture: the sum of its blocks, and the overhead.

        Raises:
            StudyError: The calibration is not finished, or it was of another space or dimension.
        """
        if self.overhead is None:
            raise StudyError(
                "The latency table is not finished; run the same `querynas latency calibrate` "
                "again, it goes on where it stopped."
            )
        keys = [recipe.key for recipe in blockwise(space).blocks(architecture, dimension)]
        self._refuse_missing(keys, space)
        return sum(self.blocks[key] for key in keys) + self.overhead

    def check_covers(self, space: SearchSpace, dimension: int) -> None:
        """Refuse a space with blocks that are not in the table.

        Raises:
            StudyError: Names the space, how many blocks are missing and one of them.
        """
        self._refuse_missing([r.key for r in blockwise(space).every_block(dimension)], space)

    def _refuse_missing(self, keys: Sequence[str], space: SearchSpace) -> None:
        missing = [key for key in keys if key not in self.blocks]
        if missing:
            names = ", ".join(each.name for each in self.spaces)
            raise StudyError(
                f"The latency table of {names} with {self.dimension} dimensions "
                f"lacks {len(missing)} of {len(keys)} blocks of the space '{space.name}', such as "
                f"'{missing[0]}'; calibrate one with `querynas latency calibrate --study`."
            )


def blockwise(space: SearchSpace) -> BlockwiseSpace:
    """Return the space if its networks are chains of blocks.

    Raises:
        StudyError: They are not.
    """
    if not isinstance(space, BlockwiseSpace):
        raise StudyError(
            f"The space '{space.name}' does not say which blocks its networks consist of, so there "
            "is no latency table for it; take `latency`, which measures whole networks, or a space "
            "that does, such as mbconv."
        )
    return space


def open_table(path: str | Path) -> LatencyTable:
    """Read a table.

    Raises:
        StudyError: The file is missing, is no latency table or is of a newer version.
    """
    remedy = "make a latency table with `querynas latency calibrate`"
    return read_json(Path(path), LatencyTable, error=StudyError, remedy=remedy)


def calibrate(
    spaces: Sequence[SpaceOptions],
    out: str | Path,
    *,
    dimension: int,
    runtime: Runtime = "pytorch",
    seed: int = 0,
    timer: Timer = fastest_pass,
) -> LatencyTable:
    """Measure every block of some spaces on this machine, then the overhead of whole networks.

    What an empty block takes is the runtime's and not the block's, so it is subtracted. The
    overhead is the median difference of `FITTED` random networks from the sums of their blocks.

    Args:
        spaces: Search spaces, which all go into one table.
        out: The table, JSON. A begun one is continued, a finished one is returned as it is.
        dimension: Number of dimensions of the gallery space.
        runtime: Where the networks are to run.
        seed: Chooses the networks that the overhead is fitted on.
        timer: How a module is timed.

    Raises:
        StudyError: The file holds a table of other spaces, or from another machine; or a space has
            no blocks.
    """
    out = Path(out)
    table = _begin(
        LatencyTable(
            version=LatencyTable.NEWEST,
            spaces=tuple(spaces),
            dimension=dimension,
            runtime=runtime,
            measured_on=describe_runtime(runtime),
        ),
        out,
    )
    opened = [each.create() for each in spaces]
    recipes = {r.key: r for space in opened for r in space.every_block(dimension)}
    for _ in range(table.rounds, ROUNDS):
        table = _time_blocks(table, recipes, out, timer)
    if table.overhead is None:
        table = _fit_overhead(table, opened, random.Random(f"fit {seed}"), timer)
        write_json(out, table)
    return table


@seeded(0)
def _time_blocks(
    table: LatencyTable, recipes: Mapping[str, BlockRecipe], out: Path, timer: Timer
) -> LatencyTable:
    """Time every block once more, and keep the faster figure."""
    call = timer(nn.Identity(), (1, 1, 1), table.runtime)
    blocks = dict(table.blocks)
    # what a first round holds already was timed before it was stopped
    keys = [key for key in recipes if table.rounds > 0 or key not in blocks]
    title = f"timing blocks, round {table.rounds + 1} of {ROUNDS}"
    for index, key in enumerate(tqdm(keys, desc=title, unit="block"), start=1):
        seconds = max(0.0, timer(recipes[key].make(), recipes[key].shape, table.runtime) - call)
        blocks[key] = min(seconds, blocks.get(key, math.inf))
        if index % _KEPT_EVERY == 0:
            write_json(out, table.model_copy(update={"blocks": blocks}))
    table = table.model_copy(update={"blocks": blocks, "rounds": table.rounds + 1})
    write_json(out, table)
    return table


def _fit_overhead(
    table: LatencyTable, spaces: Sequence[BlockwiseSpace], rng: random.Random, timer: Timer
) -> LatencyTable:
    drawn = _draw(spaces, FITTED, rng, without=())
    sums = table.model_copy(update={"overhead": 0.0})
    promised = [sums.seconds(space, architecture, table.dimension) for space, architecture in drawn]
    beyond = np.subtract(_time_networks(drawn, table, timer), promised)
    return table.model_copy(
        update={
            "overhead": float(np.median(beyond)),
            "fitted_on": tuple(architecture.digest for _, architecture in drawn),
        }
    )


@dataclass(frozen=True)
class Check:
    """Tables against clocks on random architectures, none of which the overhead was fitted on.

    Attributes:
        promised: Seconds by the table, one per network.
        measured: Seconds of the whole networks.
        macs: Their multiply-accumulates, the simplest proxy of latency.
    """

    promised: tuple[float, ...]
    measured: tuple[float, ...]
    macs: tuple[int, ...]

    @property
    def errors(self) -> np.ndarray:
        """Differences as shares of the measured seconds, float64 (N,)."""
        measured = np.array(self.measured)
        return (np.array(self.promised) - measured) / measured

    def correlations(self, proxy: Sequence[float]) -> dict[str, float]:
        """Return Pearson's r, Spearman's ρ and Kendall's τ of a proxy with the measured seconds."""
        from scipy.stats import kendalltau, pearsonr, spearmanr  # slow to import

        return {
            "pearson": float(pearsonr(proxy, self.measured).statistic),
            "spearman": float(spearmanr(proxy, self.measured).statistic),
            "kendall": float(kendalltau(proxy, self.measured).statistic),
        }

    def figures(self) -> dict[str, Any]:
        """Return everything that is to be said, JSON-able."""
        errors = np.abs(self.errors)
        return {
            "networks": len(self.measured),
            "table": self.correlations(self.promised),
            "macs": self.correlations(self.macs),
            "mean_error": float(errors.mean()),
            "median_error": float(np.median(errors)),
            "largest_error": float(errors.max()),
            "bias": float(self.errors.mean()),
        }


def check(
    table: LatencyTable, *, networks: int = 30, seed: int = 0, timer: Timer = fastest_pass
) -> Check:
    """Time whole random networks on this machine and compare with the table.

    Args:
        table: A finished table.
        networks: How many; those that the overhead was fitted on are left out.
        seed: Chooses them.
        timer: How a module is timed.

    Raises:
        StudyError: The table is not finished, or its spaces have fewer than three networks beside
            those that the overhead was fitted on.
    """
    opened = [each.create() for each in table.spaces]
    drawn = _draw(opened, networks, random.Random(f"check {seed}"), without=table.fitted_on)
    if len(drawn) < 3:
        raise StudyError(
            f"The spaces of the latency table have {len(drawn)} networks beside those that its "
            "overhead was fitted on, too few to check it; calibrate a larger space."
        )
    return Check(
        promised=tuple(
            table.seconds(space, architecture, table.dimension) for space, architecture in drawn
        ),
        measured=tuple(_time_networks(drawn, table, timer)),
        macs=tuple(space.macs(architecture, table.dimension) for space, architecture in drawn),
    )


def _begin(fresh: LatencyTable, out: Path) -> LatencyTable:
    """Return the table that the file holds already, if it is the same one."""
    if not out.exists():
        return fresh
    begun = open_table(out)
    fields = {"spaces", "dimension", "runtime", "measured_on"}
    before, now = (each.model_dump(mode="json", include=fields) for each in (begun, fresh))
    remedy = "choose another --out, or delete it"
    bind_settings(f"The latency table '{out}'", before, now, error=StudyError, remedy=remedy)
    return begun


def _draw(
    spaces: Sequence[BlockwiseSpace], count: int, rng: random.Random, *, without: Sequence[str]
) -> list[tuple[BlockwiseSpace, Architecture]]:
    """Draw different architectures from the spaces in turn; fewer where there are not so many."""
    drawn: dict[str, tuple[BlockwiseSpace, Architecture]] = {}
    for index in range(20 * count):
        space = spaces[index % len(spaces)]
        architecture = space.sample(rng)
        if architecture.digest not in without and len(drawn) < count:
            drawn.setdefault(architecture.digest, (space, architecture))
    return list(drawn.values())


@seeded(0)
def _time_networks(
    drawn: Sequence[tuple[BlockwiseSpace, Architecture]], table: LatencyTable, timer: Timer
) -> list[float]:
    """Return the seconds of whole networks, the fastest of all rounds."""
    models = [space.build(architecture, table.dimension) for space, architecture in drawn]
    turns = [model for _ in range(ROUNDS) for model in models]
    seconds = [
        timer(model, (3, model.resolution, model.resolution), table.runtime)
        for model in tqdm(turns, desc="timing networks", unit="network")
    ]
    return np.reshape(seconds, (ROUNDS, len(models))).min(axis=0).tolist()

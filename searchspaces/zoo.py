"""Backbones of timm as they are: which one, at which resolution, how pooled and projected."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

import timm
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial
from pydantic import Field
from tqdm import tqdm

from searchspaces import parameters
from searchspaces.architecture import Architecture, Value
from searchspaces.cost import count_macs
from searchspaces.errors import SearchSpaceError
from searchspaces.options import Different, Whole, check_options
from searchspaces.query_model import (
    POOLINGS,
    QueryModel,
    near_models,
    own_resolution,
    timm_query_model,
)
from searchspaces.support.cache import default_cache
from searchspaces.support.files import write_atomically
from searchspaces.support.section import MOST_SIDE, Section
from searchspaces.support.seeding import seeded

HEADS = ("plain", "norm")

_COUNTING = 1  # raised whenever `count_macs` would count the same network otherwise


class _Options(Section):
    backbones: Annotated[tuple[str, ...], Field(min_length=1), Different]
    resolutions: Annotated[tuple[Annotated[Whole, Field(ge=8, le=MOST_SIDE)], ...], Different]
    poolings: Annotated[tuple[Literal["avg", "gem"], ...], Field(min_length=1), Different]
    heads: Annotated[tuple[Literal["plain", "norm"], ...], Field(min_length=1), Different]
    pretrained: bool
    checkpoint: str | None


@dataclass(frozen=True)
class TimmSpace:
    """Query networks around timm's backbones; every combination that is proposed is a valid one.

    Which of the choices a backbone can take is tried out: some families take any resolution, some
    have no maps that could be pooled by a generalised mean. A backbone that takes all choices of
    `resolution` and `pooling` has the parameters of that name. One that takes only some has
    parameters of its own ("crossvit_tiny_240.resolution"), and the others are absent.

    Args:
        backbones: timm model names, and patterns with * for all that match; with `pretrained`
            and no `checkpoint` for those of them with published weights.
        resolutions: Sides of the input in pixels; every backbone's own when empty.
        poolings: Of "avg" and "gem", as for `timm_query_model`.
        heads: Of "plain" (a linear projection) and "norm" (a BatchNorm before it).
        pretrained: As for `timm_query_model`; for `build` only.
        checkpoint: As for `timm_query_model`, for `build` only; "{backbone}" in it stands for the
            backbone's name.

    Raises:
        SearchSpaceError: If a name or option does not fit, or a backbone takes none of the choices.
    """

    name: ClassVar[str] = "timm"

    backbones: tuple[str, ...]
    resolutions: tuple[int, ...] = ()
    poolings: tuple[str, ...] = POOLINGS
    heads: tuple[str, ...] = HEADS
    pretrained: bool = True
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_options(self, _Options)
        names = _expand(self.backbones, published=self.pretrained and self.checkpoint is None)
        if self.checkpoint is not None and len(names) > 1 and "{backbone}" not in self.checkpoint:
            raise SearchSpaceError(
                f"checkpoint of the space 'timm' is '{self.checkpoint}' for {len(names)} "
                "backbones: write {backbone} where their names differ"
            )
        object.__setattr__(self, "backbones", names)
        if not self.resolutions and len(own := {own_resolution(name) for name in names}) == 1:
            object.__setattr__(self, "resolutions", tuple(own))

    @cached_property
    def _choice(self) -> dict[str, BaseDistribution]:
        return {"backbone": CategoricalDistribution(self.backbones)}

    @cached_property
    def _choices(self) -> dict[str, dict[str, BaseDistribution]]:
        """The parameters of each backbone besides its name."""
        bar = tqdm(self.backbones, desc="try backbones", unit="backbone", leave=False, delay=1)
        return {backbone: self._choices_of(backbone) for backbone in bar}

    def _choices_of(self, backbone: str) -> dict[str, BaseDistribution]:
        resolutions = self.resolutions or (own_resolution(backbone),)
        refused = {
            pair: refusal
            for pair in product(resolutions, self.poolings)
            if (refusal := _measured(backbone, *pair).get("refused"))
        }
        poolings = [p for p in self.poolings if any((r, p) not in refused for r in resolutions)]
        taken = [r for r in resolutions if all((r, p) not in refused for p in poolings)]
        if not poolings or not taken:
            raise SearchSpaceError(
                f"backbones of the space 'timm' has '{backbone}', which takes none of its choices: "
                f"{next(iter(refused.values()))}"
            )
        axes: dict[str, tuple[tuple[Value, ...], tuple[Value, ...]]] = {
            "resolution": (tuple(taken), self.resolutions),
            "pooling": (tuple(poolings), self.poolings),
            "head": (self.heads, self.heads),
        }
        return {
            axis if values == every else f"{backbone}.{axis}": CategoricalDistribution(values)
            for axis, (values, every) in axes.items()
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return backbone, resolution, pooling and head, and what single backbones have instead."""
        every = dict(self._choice)
        for distributions in self._choices.values():
            every |= distributions
        return every

    def suggest(self, trial: BaseTrial) -> Architecture:
        """Let an Optuna trial choose a backbone, and then the parameters of that backbone."""
        params = parameters.suggest(trial, self._choice)
        own = self._choices[str(params["backbone"])]
        return Architecture(self.name, params | parameters.suggest(trial, own))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw an architecture uniformly."""
        sizes = [parameters.size(self._choices[backbone]) for backbone in self.backbones]
        (backbone,) = rng.choices(self.backbones, sizes)
        own = parameters.sample(rng, self._choices[backbone])
        return Architecture(self.name, {"backbone": backbone, **own})

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield the architectures that differ from this one in one parameter.

        Another backbone that does not take the resolution or the pooling comes with the nearest
        resolution, or the first pooling, that it takes.
        """
        backbone, values = self._values(architecture)
        own = self._choices[backbone]
        for params in parameters.neighbours({name: architecture.params[name] for name in own}, own):
            yield Architecture(self.name, {"backbone": backbone, **params})
        for other in self.backbones:
            if other != backbone:
                near_by = {
                    name: _nearest(values[_axis(name)], parameters.grid(name, distribution))
                    for name, distribution in self._choices[other].items()
                }
                yield Architecture(self.name, {"backbone": other, **near_by})

    def plain(self) -> list[Architecture]:
        """Return every backbone at every resolution, with its first pooling and a plain head."""
        found = []
        for backbone, own in self._choices.items():
            grids = {_axis(name): (name, parameters.grid(name, axis)) for name, axis in own.items()}
            if "plain" in grids["head"][1]:
                pooling, (first, *_) = grids["pooling"]
                name, sides = grids["resolution"]
                fixed = {"backbone": backbone, pooling: first, grids["head"][0]: "plain"}
                found += [Architecture(self.name, {**fixed, name: side}) for side in sides]
        return found

    def size(self) -> int:
        """Count the architectures."""
        return sum(parameters.size(own) for own in self._choices.values())

    def macs(self, architecture: Architecture, dimension: int) -> int:
        """Count the multiply-accumulates of one image.

        A backbone is counted with fvcore the first time, which takes about a second, and never
        again on this machine: the counts lie in the cache folder (`QUERYNAS_CACHE`). The head is
        added by formula.
        """
        backbone, values = self._values(architecture)
        measured = _measured(backbone, values["resolution"], values["pooling"])
        norm = 2 if values["head"] == "norm" else 0
        return measured["macs"] + measured["features"] * (dimension + norm)

    def build(self, architecture: Architecture, dimension: int) -> QueryModel:
        """Make the backbone as published, or as in the checkpoint; the projection is random."""
        backbone, values = self._values(architecture)
        checkpoint = self.checkpoint and self.checkpoint.replace("{backbone}", backbone)
        return timm_query_model(
            backbone,
            dimension,
            resolution=values["resolution"],
            pooling=values["pooling"],
            projection_norm=values["head"] == "norm",
            pretrained=self.pretrained,
            checkpoint=checkpoint,
        )

    def _values(self, architecture: Architecture) -> tuple[str, dict[str, Any]]:
        """Return the backbone of an architecture, and its resolution, pooling and head."""
        chosen = {name: value for name, value in architecture.params.items() if name == "backbone"}
        parameters.check(Architecture(architecture.space, chosen), self.name, self._choice)
        backbone = str(chosen["backbone"])
        own = self._choices[backbone]
        parameters.check(architecture, self.name, self._choice | own)
        return backbone, {_axis(name): architecture.params[name] for name in own}


@cache
def _measured(backbone: str, resolution: int, pooling: str) -> Mapping[str, Any]:
    """Look up or find out what a backbone costs.

    Returns:
        "macs" of the backbone and the number of its "features", or why it was "refused".
    """
    folder = default_cache() / f"timm-{timm.__version__}-macs-{_COUNTING}"
    path = folder / f"{backbone}-{resolution}-{pooling}.json"
    if path.is_file():
        return json.loads(path.read_text())
    measured = _measure(backbone, resolution, pooling)
    try:
        write_atomically(path, lambda file: file.write_text(json.dumps(measured)))
    except OSError as error:
        raise SearchSpaceError(
            f"the cache {folder} cannot be written ({error.strerror}): "
            "set QUERYNAS_CACHE to a folder elsewhere"
        ) from error
    return measured


def _measure(backbone: str, resolution: int, pooling: str) -> Mapping[str, Any]:
    with seeded(0):
        try:
            model = timm_query_model(
                backbone, 1, resolution=resolution, pooling=pooling, pretrained=False
            )
        except SearchSpaceError as error:
            return {"refused": str(error)}
    features = model.projection.linear.in_features
    return {"macs": count_macs(model, resolution) - features, "features": features}


def _expand(patterns: Sequence[str], *, published: bool) -> tuple[str, ...]:
    """List the models that names and patterns stand for, those with weights if so required."""
    names: list[str] = []
    for pattern in patterns:
        if "*" in pattern:
            found = timm.list_models(pattern, pretrained="." in pattern)  # only weights have tags
            found = [name for name in found if not published or timm.is_model_pretrained(name)]
            if not found:
                stem = pattern.replace("*", "")
                raise SearchSpaceError(
                    f"backbones of the space 'timm' has '{pattern}', but timm has no such model"
                    f"{' with published weights' * published}: {near_models(stem)}"
                )
        else:
            own_resolution(pattern)  # refuses what timm does not have
            found = [pattern]
            if published and not timm.is_model_pretrained(pattern):
                raise SearchSpaceError(
                    f"timm has no published weights of '{pattern}': "
                    "give checkpoint=FILE, or pretrained=False for a random start"
                )
        names += found
    return tuple(dict.fromkeys(names))


def _axis(name: str) -> str:
    return name.rpartition(".")[2]


def _nearest(value: Value, values: Sequence[Value]) -> Value:
    if value in values:
        return value
    if isinstance(value, str):
        return values[0]
    return min(values, key=lambda each: abs(float(each) - float(value)))

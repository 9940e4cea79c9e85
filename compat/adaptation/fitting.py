"""The maps by name: each is fitted to pairs, and what is left open is chosen on validation."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch

from compat.adaptation.low_rank import low_rank_factors
from compat.adaptation.pairs import Pairs, affine
from compat.adaptation.residual import residual_epochs
from compat.evaluation import Retrieved
from compat.predictors.maps import LinearMap, procrustes_map
from searchspaces import Lift, Projection

MapName = Literal["ridge", "procrustes", "low-rank", "mlp"]
MAPS: tuple[MapName, ...] = get_args(MapName)

Validate = Callable[[Projection], Retrieved]
"""Cross-test of the validation queries under a projection."""

_RANKS = (16, 32, 64, 128, 256, 512)
_PATIENCE = 3  # candidates in a row without a better cross-test
_MOST_EPOCHS = 30


@dataclass(frozen=True, eq=False)
class FittedMap:
    """A map into a gallery space.

    Attributes:
        name: One of `MAPS`.
        projection: The map as a query model has it.
        found: Cross-test on the validation classes.
    """

    name: MapName
    projection: Projection
    found: Retrieved


def fit_map(name: MapName, pairs: Pairs, validate: Validate, *, seed: int) -> FittedMap:
    """Fit a map from features to gallery vectors.

    Args:
        name: "ridge" and "procrustes" as in `compat.predictors`; "low-rank" for reduced-rank ridge
            regression, its rank chosen on validation among those that save multiply-accumulates;
            "mlp" for `residual_epochs`, its epoch chosen on validation.
        pairs: Features and gallery vectors of the training pictures.
        validate: The cross-test on the validation classes.
        seed: Of what is drawn.
    """
    best, waited = None, 0
    for projection in _CANDIDATES[name](pairs, seed):
        fitted = FittedMap(name, projection, validate(projection))
        better = best is None or fitted.found.map > best.found.map
        best, waited = (fitted, 0) if better else (best, waited + 1)
        if waited == _PATIENCE:
            break
    assert best is not None
    return best


def _ridge(pairs: Pairs, seed: int) -> Iterator[Projection]:
    yield _linear(pairs, pairs.ridge)


def _procrustes(pairs: Pairs, seed: int) -> Iterator[Projection]:
    yield _linear(pairs, procrustes_map(pairs.moments))


def _low_rank(pairs: Pairs, seed: int) -> Iterator[Projection]:
    """One projection per rank, the largest first, all cheaper than a map of full rank."""
    inner, outer = low_rank_factors(pairs.ridge, pairs.moments)
    features, dimension = len(inner), outer.shape[1]
    ranks = [r for r in _RANKS if r * (features + dimension) < features * dimension]
    for rank in reversed(ranks or [1]):
        projection = pairs.projection(Lift("low-rank", rank))
        folded = inner[:, :rank] / pairs.ridge.scale[:, None]
        with torch.no_grad():
            projection.lift.inner.weight.copy_(torch.from_numpy(folded.T))
        offset = pairs.ridge.offset - pairs.ridge.mean @ folded @ outer[:rank]
        affine(projection.linear, outer[:rank], offset)
        yield projection


def _mlp(pairs: Pairs, seed: int) -> Iterator[Projection]:
    yield from islice(residual_epochs(pairs, seed=seed), _MOST_EPOCHS)


_CANDIDATES: Mapping[MapName, Callable[[Pairs, int], Iterator[Projection]]] = {
    "ridge": _ridge,
    "procrustes": _procrustes,
    "low-rank": _low_rank,
    "mlp": _mlp,
}


def _linear(pairs: Pairs, found: LinearMap) -> Projection:
    projection = pairs.projection()
    affine(projection.linear, *found.folded)
    return projection

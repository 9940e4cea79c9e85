"""Whether two query models differ, judged on the queries that both answered."""

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from compat.errors import CompatError
from compat.evaluation.retrieval import bootstrap_interval

_RESAMPLES = 10_000
_BLOCK = 1000  # sign patterns held at a time


@dataclass(frozen=True)
class Difference:
    """The difference in mAP of two query models on the same queries.

    Attributes:
        mean: mAP of the first minus mAP of the second.
        interval: 95% bootstrap interval of ``mean``; queries are drawn together with both APs.
        p_value: Two-sided; how often a difference as large appears if each query's two APs are
            exchanged at random.
        queries: Number of queries that both answered.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float
    queries: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self) | {"interval": list(self.interval)}


def paired_difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Difference:
    """Compare two models by their average precisions of the same queries.

    The interval is the percentile bootstrap of the mean difference over queries (Efron,
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). The p-value is Fisher's
    paired randomisation test, recommended for retrieval by Smucker, Allan, Carterette, "A
    Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007:
    the share of sign patterns of the differences whose mean is as far from 0 as the observed one.
    All patterns are counted if there are at most 10,000 (13 queries); otherwise 10,000 are drawn
    and the observed one is added to them.

    Args:
        first: (Q,) AP of every query (`Retrieved.ap`), nan for queries without positives.
        second: (Q,) the same for the other model.
        seed: Of bootstrap and permutation.

    Raises:
        CompatError: The two do not answer the same queries, or there is none.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise CompatError(
            f"The average precisions have shapes {first.shape} and {second.shape}: give one value "
            "per query, of the same queries."
        )
    skipped = np.isnan(first)
    odd = np.flatnonzero(skipped != np.isnan(second))
    if len(odd):
        raise CompatError(
            f"Query {odd[0]} has an average precision from one model only: measure both models "
            "with the same ground truth."
        )
    if skipped.all():
        raise CompatError("No query has an average precision, so there is nothing to compare.")
    differences = (first - second)[~skipped]
    return Difference(
        mean=float(differences.mean()),
        interval=bootstrap_interval(differences, seed=seed),
        p_value=_sign_flip_p_value(differences, seed),
        queries=len(differences),
    )


def _sign_flip_p_value(differences: np.ndarray, seed: int) -> float:
    """Share of sign patterns that reach the observed sum.

    Where all are counted it is that of `scipy.stats.permutation_test`, which draws about ten times
    as slowly and, for two sides, doubles the smaller of two drawn shares instead.
    """
    count = len(differences)
    observed = abs(differences.sum())
    enough = observed - 1e-12 * np.abs(differences).sum()  # equal sums differ in rounding
    if count < _RESAMPLES.bit_length() and 2**count <= _RESAMPLES:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=count)))
        return float(np.mean(np.abs(signs @ differences) >= enough))
    rng = np.random.default_rng(seed)
    reached = 0
    for start in range(0, _RESAMPLES, _BLOCK):
        shape = (min(_BLOCK, _RESAMPLES - start), count)
        signs = rng.integers(0, 2, size=shape, dtype=np.int8) * 2 - 1
        reached += int(np.sum(np.abs(signs @ differences) >= enough))
    return (reached + 1) / (_RESAMPLES + 1)


def difference_by_class(first: np.ndarray, second: np.ndarray, classes: np.ndarray) -> Difference:
    """Compare two models on the same queries, whose classes were drawn and not they themselves.

    Queries of one class search for the same images and are not independent. So classes are what the
    bootstrap draws and what the randomisation test exchanges, each with all of its queries (for a
    paired test on clusters see Gail, Mark, Carroll, Green, Pee, "On design considerations and
    randomization-based inference for community intervention trials", Statistics in Medicine,
    1996). A class counts with the sum of its queries' values, so the mean is that of the queries.

    Args:
        first: (Q,) average precision of every query, nan for queries without positives.
        second: (Q,) the same for the other model.
        classes: (Q,) class of every query, -1 for one that has none and counts for itself.

    Raises:
        CompatError: No query has an average precision.
    """
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    counted = np.flatnonzero(~np.isnan(difference))
    _, place = np.unique(units(classes)[counted], return_inverse=True)
    sums = np.bincount(place, weights=difference[counted])
    shares = sums * len(sums) / max(1, len(counted))
    found = paired_difference(shares, np.zeros_like(shares))
    return replace(found, queries=len(counted))


def units(classes: np.ndarray) -> np.ndarray:
    """Return classes (Q,) with one of its own for every query that has none (-1)."""
    return np.where(classes < 0, classes.max(initial=-1) + 1 + np.arange(len(classes)), classes)

"""Retrieval with ±1 codes: exact Hamming distances, and measures that are fair to their ties.

k bits have only k + 1 distances, so most gallery entries tie with others. A measure is therefore
the expectation over a uniformly random order inside each group of ties, computed from the group
sizes alone: McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently
in the Presence of Tied Scores", ECIR 2008, who do so for precision, recall, average precision and
others. The formulas of truncated and trapezoid average precision, INP and hashing's mAP@R are
derived here in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma
from tqdm import tqdm

from compat.errors import CompatError
from compat.evaluation.similarity import check_shapes, gallery_blocks, gallery_rows, sign_rows
from compat.evaluation.truth import Truth, no_positives

_TILE = 256  # queries whose distances to one block are held at a time


@dataclass(frozen=True)
class Ties:
    """How many gallery entries each query has at each distance, ignored ones left out.

    Attributes:
        positives: (Q, L) int64 positives by distance, nearest first.
        entries: (Q, L) int64 positives and negatives by distance.
    """

    positives: np.ndarray
    entries: np.ndarray

    @cached_property
    def relevant(self) -> np.ndarray:
        """(Q,) number of positives P."""
        return self.positives.sum(axis=1)

    @cached_property
    def ahead(self) -> np.ndarray:
        """(Q, L) entries that stand before each group."""
        return self.entries.cumsum(axis=1) - self.entries

    @cached_property
    def found(self) -> np.ndarray:
        """(Q, L) positives that stand before each group."""
        return self.positives.cumsum(axis=1) - self.positives

    def counted(self) -> "Ties":
        """Only the queries that have positives; CompatError when there are none."""
        kept = self.relevant > 0
        if not kept.any():
            raise no_positives(len(kept))
        return Ties(self.positives[kept], self.entries[kept])


def count_ties(
    queries: np.ndarray, gallery: np.ndarray, truth: Truth, *, block: int = 8192
) -> Ties:
    """Count positives and entries at every Hamming distance in one pass over the gallery.

    Args:
        queries: (Q, k) floats, taken by their signs; zero counts as +1.
        gallery: (N, k), taken likewise: ±1 codes stay what they are. Read once, in order, and at
            the rows of positives and ignored entries.
        truth: Positives and ignored entries per query.
        block: Gallery rows held at a time.

    Returns:
        Counts at the k + 1 distances 0 to k.

    Raises:
        CompatError: When shapes and truth do not fit together, or a vector is zero or not finite.
    """
    queries = np.asarray(queries)
    check_shapes(queries, gallery, "hamming")
    truth.check(queries, gallery)
    codes = sign_rows(queries, "query")
    bits = codes.shape[1]
    entries = np.zeros((len(codes), bits + 1), dtype=np.int64)
    with tqdm(
        total=len(gallery), desc="counting distances", unit="codes", delay=2, leave=False
    ) as bar:
        for _, signs in gallery_blocks(gallery, block=block, metric="hamming"):
            for first in range(0, len(codes), _TILE):
                entries[first : first + _TILE] += _count(codes[first : first + _TILE], signs)
            bar.update(len(signs))
    entries -= _count_rows(codes, gallery, truth.ignored)
    return Ties(_count_rows(codes, gallery, truth.positives), entries)


def hashing_map_at_r(
    queries: np.ndarray, gallery: np.ndarray, truth: Truth, r: int, *, block: int = 8192
) -> float:
    """The mAP@R of the hashing literature, as an expectation over the order of ties.

    The average precision of the first ``r`` ranks is divided by the number of relevant entries
    *among them*; it is 0 where there are none. Queries without positives are skipped. Of the
    group of ties that rank ``r`` cuts, the number of relevant entries above the cut follows a
    hypergeometric law; given it, their order is uniform.

    Raises:
        CompatError: As `count_ties`, or no query has a positive, or ``r`` is less than 1.
    """
    if r < 1:
        raise CompatError(f"mAP@R was asked for R = {r}: give a length of 1 or more.")
    ties = count_ties(queries, gallery, truth, block=block).counted()
    return float(hashing_average_precision(ties, r).mean())


def hashing_average_precision(ties: Ties, r: int) -> np.ndarray:
    """Expected average precision among the first ``r`` ranks over the relevant ones there, (Q,)."""
    from scipy.stats import hypergeom  # slow to import, and rarely needed

    whole = np.where(ties.ahead + ties.entries <= r, 1, 0)
    sums = (whole * _precisions(ties, ties.entries)).sum(axis=1)
    above = (whole * ties.positives).sum(axis=1)
    values = np.divide(sums, above, out=np.zeros(len(sums)), where=above > 0)
    cut = (ties.ahead < r) & (whole == 0)
    for query, level in zip(*np.nonzero(cut), strict=True):
        positives, entries = ties.positives[query, level], ties.entries[query, level]
        ahead, found = ties.ahead[query, level], ties.found[query, level]
        slots = r - ahead
        taken = np.arange(max(0, slots - (entries - positives)), min(positives, slots) + 1)
        group = _group_precisions(taken, slots, slots, ahead, found)
        each = np.divide(
            sums[query] + group, found + taken, out=np.zeros(len(taken)), where=found + taken > 0
        )
        values[query] = hypergeom.pmf(taken, entries, positives, slots) @ each
    return values


def average_precision(ties: Ties) -> np.ndarray:
    """Expectation of `measures.average_precision`, (Q,)."""
    return _precisions(ties, ties.entries).sum(axis=1) / ties.relevant


def average_precision_at(ties: Ties, k: ArrayLike) -> np.ndarray:
    """Expectation of `measures.average_precision_at`, (Q,); ``k`` is one cut or one per query."""
    cut = np.broadcast_to(k, ties.relevant.shape)
    return _precisions(ties, _slots(ties, cut)).sum(axis=1) / np.minimum(ties.relevant, cut)


def average_precision_at_r(ties: Ties) -> np.ndarray:
    """Expectation of `measures.average_precision_at_r`, (Q,)."""
    return average_precision_at(ties, ties.relevant)


def trapezoid_average_precision(ties: Ties) -> np.ndarray:
    """Expectation of `measures.trapezoid_average_precision`, (Q,)."""
    entries, ahead = ties.entries, ties.ahead
    share, step = _share(ties.positives, entries), _share(ties.positives - 1, entries - 1)
    # at in-group place j the precision before a positive is (found + (j - 1)·step)/(ahead + j - 1)
    first = ahead == 0  # there it is 1 at j = 1 and step at all later j
    reciprocals = digamma(np.where(first, 1, ahead + entries)) - digamma(np.where(first, 1, ahead))
    later = ties.found * reciprocals + step * (entries - ahead * reciprocals)
    before = share * np.where(first, (entries > 0) + np.maximum(entries - 1, 0) * step, later)
    at = _precisions(ties, entries)
    return ((before + at) / 2).sum(axis=1) / ties.relevant


def precision_at(ties: Ties, k: int) -> np.ndarray:
    """Expectation of `measures.precision_at`, (Q,)."""
    return (_share(ties.positives, ties.entries) * _slots(ties, k)).sum(axis=1) / k


def revisitop_precision_at(ties: Ties, k: int) -> np.ndarray:
    """Expectation of `measures.revisitop_precision_at`, (Q,)."""
    values = np.empty(len(ties.relevant))
    for query, (places, chances) in enumerate(_last_ranks(ties)):
        level = np.flatnonzero(ties.positives[query])[-1]
        ahead, found = ties.ahead[query, level], ties.found[query, level]
        others = ties.positives[query, level] - 1
        if k <= ahead:
            share = _share(ties.positives[query], ties.entries[query])
            slots = np.clip(k - ties.ahead[query], 0, ties.entries[query])
            values[query] = (share * slots).sum() / k
            continue
        # given that the last positive stands at a place, the others lie evenly before it
        above = found + others * _share(k - ahead, places - ahead - 1)
        values[query] = chances @ np.where(places <= k, ties.relevant[query] / places, above / k)
    return values


def recall_at(ties: Ties, k: int) -> np.ndarray:
    """Chance that a positive is among the first ``k`` ranks, (Q,): `measures.recall_at`."""
    slots = _slots(ties, k)
    missed = np.ones(len(ties.relevant))
    for place in range(k):  # every slot of a group must take one of its negatives
        left = np.maximum(ties.entries - ties.positives - place, 0)
        missed *= np.where(place < slots, _share(left, ties.entries - place), 1).prod(axis=1)
    return 1 - missed


def inverse_negative_penalty(ties: Ties) -> np.ndarray:
    """Expectation of `measures.inverse_negative_penalty`, (Q,)."""
    return np.array(
        [
            relevant * (chances @ (1 / places))
            for relevant, (places, chances) in zip(ties.relevant, _last_ranks(ties), strict=True)
        ]
    )


def _precisions(ties: Ties, slots: np.ndarray) -> np.ndarray:
    """(Q, L): expected sum of precisions at the positives in the first ``slots`` of each group."""
    return _group_precisions(ties.positives, ties.entries, slots, ties.ahead, ties.found)


def _group_precisions(
    positives: np.ndarray,
    entries: np.ndarray | np.integer,
    slots: np.ndarray | np.integer,
    ahead: np.ndarray | np.integer,
    found: np.ndarray | np.integer,
) -> np.ndarray:
    """Σ_j p/n · (found + 1 + (j − 1)(p − 1)/(n − 1)) / (ahead + j) over places j ≤ ``slots``.

    p/n is the chance that place j holds a positive, and the rest the precision expected there
    then (McSherry and Najork 2008, section 2.4). Σ 1/(ahead + j) is a difference of harmonic
    numbers.
    """
    reciprocals = digamma(ahead + slots + 1.0) - digamma(ahead + 1.0)
    step = _share(positives - 1, entries - 1)
    within = (found + 1) * reciprocals + step * (slots - (ahead + 1) * reciprocals)
    return _share(positives, entries) * within


def _share(part: np.ndarray | np.integer, whole: np.ndarray | np.integer) -> np.ndarray:
    """``part / whole``, and 0 where ``whole`` is 0 or less."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def _slots(ties: Ties, k: ArrayLike) -> np.ndarray:
    """(Q, L): how many of the first ``k`` ranks each group fills."""
    cut = np.broadcast_to(k, ties.relevant.shape)[:, None]
    return np.clip(cut - ties.ahead, 0, ties.entries)


def _last_ranks(ties: Ties) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per query the ranks that its last positive may have, and the chance of each.

    The largest of p places among n is m with chance C(m − 1, p − 1)/C(n, p), that is p/n at m = n
    and (m − p)/(m − 1) times as much at m − 1 as at m.
    """
    found = []
    for query, counts in enumerate(ties.positives):
        level = np.flatnonzero(counts)[-1]
        positives, entries = counts[level], ties.entries[query, level]
        places = np.arange(entries, positives - 1, -1)
        factors = (places[:-1] - positives) / (places[:-1] - 1)
        chances = positives / entries * np.cumprod(np.append(1.0, factors))
        found.append((ties.ahead[query, level] + places, chances))
    return found


def _count(codes: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """(Q, k + 1) int64: how many of the signs (B, k) lie at each distance from each code (Q, k)."""
    bits = codes.shape[1]
    distances = ((bits - codes @ signs.T) / 2).astype(np.int64)
    distances += np.arange(len(codes))[:, None] * (bits + 1)
    counts = np.bincount(distances.ravel(), minlength=len(codes) * (bits + 1))
    return counts.reshape(len(codes), bits + 1)


def _count_rows(codes: np.ndarray, gallery: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(Q, k + 1) int64: the same for the gallery rows that each query names."""
    counts = np.zeros((len(codes), codes.shape[1] + 1), dtype=np.int64)
    sharing: dict[int, list[int]] = {}
    for query, of_query in enumerate(rows):
        if len(of_query):
            sharing.setdefault(id(of_query), []).append(query)
    for members in sharing.values():
        signs = gallery_rows(gallery, rows[members[0]], 0, metric="hamming")
        counts[members] = _count(codes[members], signs)
    return counts

"""Which gallery entries a query should find, and which ones do not count."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from compat.errors import CompatError

_NOTHING = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Truth:
    """Ground truth of a retrieval task.

    Both tuples have one sorted int64 array of gallery indices per query; the two arrays of a query
    are disjoint, and queries may share an array. What is in neither is a negative.

    Attributes:
        positives: What the query should find; a query without positives is skipped by measures.
        ignored: What leaves the ranking (junk, the query itself, the same camera).
        gallery_size: Number of gallery entries the indices refer to.
    """

    positives: tuple[np.ndarray, ...]
    ignored: tuple[np.ndarray, ...]
    gallery_size: int

    def __post_init__(self) -> None:
        if len(self.positives) != len(self.ignored):
            raise CompatError(
                f"Truth has positives for {len(self.positives)} queries but ignored entries for "
                f"{len(self.ignored)}: give one array of each per query."
            )

    def __len__(self) -> int:
        return len(self.positives)

    @cached_property
    def left_out(self) -> tuple[np.ndarray, ...]:
        """Per query the sorted indices that are no negatives: positives and ignored ones."""
        shared: dict[tuple[int, int], np.ndarray] = {}
        for found, junk in zip(self.positives, self.ignored, strict=True):
            if (id(found), id(junk)) not in shared:
                shared[id(found), id(junk)] = np.sort(np.concatenate([found, junk]))
        return tuple(
            shared[id(found), id(junk)]
            for found, junk in zip(self.positives, self.ignored, strict=True)
        )

    def check(self, queries: np.ndarray, gallery: np.ndarray) -> None:
        """Raise CompatError unless this is the truth of so many queries and gallery entries."""
        if (len(self), self.gallery_size) != (len(queries), len(gallery)):
            raise CompatError(
                f"The ground truth is for {len(self)} queries and {self.gallery_size} gallery "
                f"entries, but there are {len(queries)} and {len(gallery)} vectors: use matching "
                "sets."
            )

    @classmethod
    def from_labels(
        cls,
        query_labels: ArrayLike,
        gallery_labels: ArrayLike,
        *,
        query_ids: ArrayLike | None = None,
        gallery_ids: ArrayLike | None = None,
        query_cameras: ArrayLike | None = None,
        gallery_cameras: ArrayLike | None = None,
    ) -> "Truth":
        """Positives are the gallery entries with the query's label; -1 matches nothing.

        An entry with the query's own id is ignored. Where cameras are known (not -1), an entry with
        the query's label *and* camera is ignored too, the rule of person and vehicle
        re-identification (Zheng et al., "Scalable Person Re-identification", ICCV 2015).

        Args:
            query_labels: (Q,) integers.
            gallery_labels: (N,) integers.
            query_ids: (Q,) image ids; give both id arrays or neither.
            gallery_ids: (N,) image ids.
            query_cameras: (Q,) integers, -1 unknown; give both camera arrays or neither.
            gallery_cameras: (N,) integers.

        Raises:
            CompatError: When arrays that belong together differ in length or one is missing.
        """
        wanted, labels = np.asarray(query_labels), np.asarray(gallery_labels)
        _check_pair("ids", query_ids, gallery_ids, len(wanted), len(labels))
        _check_pair("cameras", query_cameras, gallery_cameras, len(wanted), len(labels))

        by_label = _groups(wanted, labels)
        itself = _rows_with_id(query_ids, gallery_ids, len(wanted))
        shared: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        positives, ignored = [], []
        for query, label in enumerate(wanted.tolist()):
            camera = -1 if query_cameras is None else int(np.asarray(query_cameras)[query])
            if (label, camera) not in shared:
                members = by_label.get(label, _NOTHING)
                same = (
                    np.zeros(len(members), dtype=bool)
                    if camera == -1
                    else np.asarray(gallery_cameras)[members] == camera
                )
                shared[label, camera] = (members[~same], members[same])
            found, left_out = shared[label, camera]
            own = itself.get(query)
            if own is not None:
                found = np.setdiff1d(found, own, assume_unique=True)
                left_out = np.union1d(left_out, own)
            positives.append(found)
            ignored.append(left_out)
        return cls(tuple(positives), tuple(ignored), len(labels))

    @classmethod
    def from_lists(
        cls,
        positives: Sequence[ArrayLike],
        junk: Sequence[ArrayLike],
        gallery_size: int,
    ) -> "Truth":
        """Explicit lists of gallery indices per query, as in revisited Oxford and Paris.

        Raises:
            CompatError: When an index lies outside the gallery or is both positive and junk.
        """
        truth = cls(
            tuple(np.unique(np.asarray(indices, dtype=np.int64)) for indices in positives),
            tuple(np.unique(np.asarray(indices, dtype=np.int64)) for indices in junk),
            gallery_size,
        )
        for query, (found, left_out) in enumerate(zip(truth.positives, truth.ignored, strict=True)):
            for indices in (found, left_out):
                if len(indices) and (indices[0] < 0 or indices[-1] >= gallery_size):
                    wrong = indices[0] if indices[0] < 0 else indices[-1]
                    raise CompatError(
                        f"The ground truth of query {query} names gallery index {wrong}, but the "
                        f"gallery has {gallery_size} entries: check that lists and gallery match."
                    )
            both = np.intersect1d(found, left_out, assume_unique=True)
            if len(both):
                raise CompatError(
                    f"The ground truth of query {query} names gallery index {both[0]} as positive "
                    "and as junk: keep it in one list."
                )
        return truth


def no_positives(queries: int) -> CompatError:
    """What to raise where none of so many queries has a positive."""
    return CompatError(
        f"None of the {queries} queries has a positive in the gallery, so there is nothing "
        "to measure: check that queries and gallery share labels and label -1 is not meant."
    )


def _groups(wanted: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Sorted gallery indices of every label that a query asks for, except -1."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    asked = np.unique(wanted)
    asked = asked[asked != -1]
    starts = np.searchsorted(ordered, asked, side="left")
    stops = np.searchsorted(ordered, asked, side="right")
    return {
        int(label): order[start:stop]
        for label, start, stop in zip(asked, starts, stops, strict=True)
    }


def _rows_with_id(
    query_ids: ArrayLike | None, gallery_ids: ArrayLike | None, queries: int
) -> dict[int, np.ndarray]:
    """Gallery rows that carry the id of a query, for the queries that have any."""
    if query_ids is None:
        return {}
    wanted, ids = np.asarray(query_ids), np.asarray(gallery_ids)
    candidates = np.flatnonzero(np.isin(ids, wanted))
    rows: dict[object, list[int]] = {}
    for row in candidates.tolist():
        rows.setdefault(ids[row].item(), []).append(row)
    keys = wanted.tolist()
    return {q: np.array(rows[keys[q]], dtype=np.int64) for q in range(queries) if keys[q] in rows}


def _check_pair(
    what: str, of_queries: ArrayLike | None, of_gallery: ArrayLike | None, queries: int, size: int
) -> None:
    if (of_queries is None) != (of_gallery is None):
        missing = "query" if of_queries is None else "gallery"
        raise CompatError(f"The {what} of the {missing} side are missing: give both or neither.")
    if of_queries is None or of_gallery is None:
        return
    found = (len(np.asarray(of_queries)), len(np.asarray(of_gallery)))
    if found != (queries, size):
        raise CompatError(
            f"There are {what} for {found[0]} queries and {found[1]} gallery entries, but labels "
            f"for {queries} and {size}: the arrays of one side must be equally long."
        )

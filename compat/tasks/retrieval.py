"""Queries searched in a gallery, and what a query model scores there."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from compat.data import ImageSet, Retrieval, decode
from compat.data.preprocessing import Fit
from compat.embedding import embed
from compat.errors import CompatError
from compat.evaluation import Metric, Retrieved, Score, Truth, evaluate
from compat.evaluation.collapse import directed
from compat.metrics.neighbours import nearest
from searchspaces import QueryModel, folded

Judge = Literal["labels", "ranking"]
"""What is right to find: images of the query's label, or what the gallery network finds first."""

RANKED = 10
"""How many of the gallery network's first results are right by its ranking."""


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """Queries searched in a gallery: one part (validation or test) of a data set.

    Attributes:
        images: The pictures of this part only.
        retrieval: Which of them are queries and which are the gallery.
        vectors: Gallery-space vectors of ``images``, float32 (N, d).
        fit: How pictures are made square.
        metric: Similarity of the gallery space.
        fingerprint: The gallery space's fingerprint.
        judge: What truth is made of. By "ranking" the cross-test is the *agreement* of the query
            model with the gallery network, and precision@10 the overlap of their first ten results.
    """

    images: ImageSet
    retrieval: Retrieval
    vectors: np.ndarray
    fit: Fit
    metric: Metric
    fingerprint: str
    judge: Judge = "labels"

    @cached_property
    def truth(self) -> Truth:
        """Ground truth of every query."""
        return self._of_labels() if self.judge == "labels" else self._of_ranking()

    def judged_by(self, judge: Judge) -> "RetrievalTask":
        """Return the same task with this truth."""
        return self if judge == self.judge else replace(self, judge=judge)

    def _of_labels(self) -> Truth:
        images, part = self.images, self.retrieval
        cameras = images.camera
        return Truth.from_labels(
            images.labels[part.queries],
            images.labels[part.gallery],
            query_ids=images.ids[part.queries],
            gallery_ids=images.ids[part.gallery],
            query_cameras=None if cameras is None else cameras[part.queries],
            gallery_cameras=None if cameras is None else cameras[part.gallery],
        )

    def _of_ranking(self) -> Truth:
        ids, (queries, gallery) = self.images.ids, (self.retrieval.queries, self.retrieval.gallery)
        itself = Truth.from_labels(
            np.full(len(queries), -1),
            np.full(len(gallery), -1),
            query_ids=ids[queries],
            gallery_ids=ids[gallery],
        ).ignored
        found = nearest(
            self.vectors[queries], self.vectors[gallery], RANKED, ignored=itself, metric=self.metric
        )
        return Truth.from_lists(list(found), itself, len(gallery))

    def pixels(self, resolution: int) -> np.ndarray:
        """Return the pictures as a deployed query model sees them, uint8 (N, r, r, 3)."""
        if resolution not in self._decoded:
            self._decoded[resolution] = readable(self.images, resolution, self.fit)
        return self._decoded[resolution]

    @cached_property
    def _decoded(self) -> dict[int, np.ndarray]:
        """Memory maps by resolution, so that thousands of files are looked at once."""
        return {}

    def embed(self, model: QueryModel) -> np.ndarray:
        """Return the query model's embedding of every picture, float32 (N, d).

        The model sees pictures at its own resolution, where its weights lie. Pictures that it maps
        to zero share one direction, see `compat.evaluation.collapse.directed`.
        """
        return self._embed(model)

    def embed_queries(self, model: QueryModel) -> np.ndarray:
        """Return the embedding of every query alone, float32 (Q, d), as `embed` gives it."""
        return self._embed(model, self.retrieval.queries)

    def _embed(self, model: QueryModel, rows: np.ndarray | None = None) -> np.ndarray:
        pixels, device = self.pixels(model.resolution), model.mean.device
        with folded(model):
            return directed(embed(model, pixels, rows=rows, device=device, description=None))

    def score(self, embeddings: np.ndarray) -> Score:
        """Return self-test, cross-test and paragon of a query model's embeddings (N, d)."""
        return Score(
            self_test=self.self_test(embeddings),
            cross_test=self.cross_test(embeddings[self.retrieval.queries]),
            paragon=self.paragon,
        )

    def self_test(self, embeddings: np.ndarray) -> Retrieved:
        """Return the self-test alone of a query model's embeddings (N, d)."""
        return self._test(embeddings, embeddings)

    def cross_test(self, queries: np.ndarray) -> Retrieved:
        """Return the cross-test alone, for which the queries' embeddings (Q, d) are enough."""
        gallery = self.vectors[self.retrieval.gallery]
        return evaluate(queries, gallery, self.truth, metric=self.metric)

    @cached_property
    def paragon(self) -> Retrieved:
        """Gallery vectors on both sides, whatever the query model."""
        return self._test(self.vectors, self.vectors)

    def _test(self, asking: np.ndarray, answering: np.ndarray) -> Retrieved:
        queries, gallery = self.retrieval.queries, self.retrieval.gallery
        return evaluate(asking[queries], answering[gallery], self.truth, metric=self.metric)


def readable(images: ImageSet, resolution: int, fit: Fit) -> np.ndarray:
    """Decode images that all have gallery vectors; one lost would shift the rows of the others."""
    decoded = decode(images, resolution, fit=fit)
    if decoded.broken:
        raise CompatError(
            f"The gallery has vectors for {len(decoded.broken)} images that cannot be read now "
            f"({', '.join(decoded.broken[:5])}); restore the files, or remove them from the data."
        )
    return decoded.pixels

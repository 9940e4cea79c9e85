"""What is known of a candidate without training it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compat.errors import CompatError
from compat.evaluation import Truth, evaluate
from compat.evaluation.similarity import Metric
from compat.predictors.maps import Moments, ridge_map


@dataclass(frozen=True, eq=False)
class PredictorInputs:
    """A candidate's features with the gallery vectors of the same images, and its cost.

    Features are what the backbone gives after pooling, before any projection to the gallery's
    dimension. The validation images are those of a retrieval task, on which nothing is fitted.

    Attributes:
        train_features: (n, f) floats, of training images.
        train_vectors: (n, d) floats, their gallery vectors.
        features: (m, f) floats, of validation images.
        vectors: (m, d) floats, their gallery vectors.
        queries: (Q,) int64 rows of the validation images that ask.
        gallery: (N,) int64 rows of the validation images that are searched.
        truth: Ground truth of these queries in this gallery.
        macs: Multiply-accumulates of one image.
        parameters: Number of parameters.
        metric: Similarity of the gallery space.

    Raises:
        CompatError: Arrays do not fit each other, or features are not finite.
    """

    train_features: np.ndarray
    train_vectors: np.ndarray
    features: np.ndarray
    vectors: np.ndarray
    queries: np.ndarray
    gallery: np.ndarray
    truth: Truth
    macs: int
    parameters: int
    metric: Metric = "cosine"

    def __post_init__(self) -> None:
        for part, features, vectors in (
            ("training", self.train_features, self.train_vectors),
            ("validation", self.features, self.vectors),
        ):
            if features.ndim != 2 or vectors.ndim != 2 or len(features) != len(vectors):
                raise CompatError(
                    f"The {part} images have features of shape {features.shape} and gallery "
                    f"vectors of shape {vectors.shape}: give one row of each per image."
                )
            wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
            if len(wrong):
                raise CompatError(
                    f"The features of {part} image {wrong[0]} are not finite: check the "
                    "candidate's initialisation and its BatchNorm statistics."
                )
        widths = [array.shape[1] for array in (self.train_features, self.features)]
        widths += [array.shape[1] for array in (self.train_vectors, self.vectors)]
        if widths[0] != widths[1] or widths[2] != widths[3] or len(self.train_features) < 2:
            raise CompatError(
                f"{len(self.train_features)} training images have {widths[0]} features and "
                f"{widths[2]} dimensions, but the validation images have {widths[1]} and "
                f"{widths[3]}: give the same of both, and at least two training images."
            )

    @cached_property
    def moments(self) -> Moments:
        """What maps are fitted from; shared by predictors."""
        return Moments.of(self.train_features, self.train_vectors)

    @cached_property
    def ridge_queries(self) -> np.ndarray:
        """(Q, d) queries mapped into the gallery space by `ridge_map`; shared by predictors."""
        return ridge_map(self.moments)(self.features[self.queries])

    def cross_test(self, mapped_queries: np.ndarray) -> float:
        """The mAP of queries (Q, d), mapped into the gallery space, in the validation gallery."""
        vectors = self.vectors[self.gallery]
        return evaluate(mapped_queries, vectors, self.truth, metric=self.metric).map

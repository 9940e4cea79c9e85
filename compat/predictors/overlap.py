"""Whether mapped queries find the neighbours that the gallery model finds."""

from compat.metrics import largest_k, nearest, neighbourhood_overlap
from compat.predictors.base import register_predictor
from compat.predictors.inputs import PredictorInputs

_K = 10


@register_predictor("overlap")
def overlap(inputs: PredictorInputs) -> float:
    """overlap@10 of the queries mapped by `ridge_map` with the gallery model's, in [0, 1].

    Needs no labels. Validation galleries of fewer than ten entries are compared as a whole.
    """
    gallery = inputs.vectors[inputs.gallery]
    k = min(_K, largest_k(len(gallery), inputs.truth))
    lists = [
        nearest(vectors, gallery, k, ignored=inputs.truth, metric=inputs.metric)
        for vectors in (inputs.ridge_queries, inputs.vectors[inputs.queries])
    ]
    return neighbourhood_overlap(*lists)

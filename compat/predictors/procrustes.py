"""How good queries are after the best rotation into the gallery space."""

from compat.predictors.base import register_predictor
from compat.predictors.inputs import PredictorInputs
from compat.predictors.maps import procrustes_map


@register_predictor("procrustes")
def procrustes(inputs: PredictorInputs) -> float:
    """Cross-test mAP of validation queries mapped by `procrustes_map`, in [0, 1]."""
    mapped = procrustes_map(inputs.moments)(inputs.features[inputs.queries])
    return inputs.cross_test(mapped)

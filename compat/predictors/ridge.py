"""How good queries are after the best regularised linear map into the gallery space."""

from compat.predictors.base import register_predictor
from compat.predictors.inputs import PredictorInputs


@register_predictor("ridge")
def ridge(inputs: PredictorInputs) -> float:
    """Cross-test mAP of validation queries mapped by `ridge_map`, in [0, 1]."""
    return inputs.cross_test(inputs.ridge_queries)

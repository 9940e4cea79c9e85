"""The baselines that every other predictor has to beat: dearer networks are often better."""

from compat.predictors.base import register_predictor
from compat.predictors.inputs import PredictorInputs


@register_predictor("macs")
def macs(inputs: PredictorInputs) -> float:
    """Multiply-accumulates of one image."""
    return float(inputs.macs)


@register_predictor("parameters")
def parameters(inputs: PredictorInputs) -> float:
    """Number of parameters.

    Krishnakumar et al., "NAS-Bench-Suite-Zero", NeurIPS 2022, show how hard it is to beat.
    """
    return float(inputs.parameters)

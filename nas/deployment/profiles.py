"""What a network costs: MACs by layer, activations, parameters, bytes, latency."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from nas.deployment.formats import REMEDY
from nas.deployment.opening import is_saved, open_query_model
from nas.errors import StudyError
from pruning import load_model
from searchspaces import (
    count_activations,
    count_parameters,
    int8_bytes,
    macs_by_layer,
    measure_latency,
    onnx_latency,
)
from searchspaces.support.onnx_files import open_onnx, read_onnx_input
from searchspaces.support.section import MOST_SIDE

_USUAL = 224  # pixels


@dataclass(frozen=True)
class Profile:
    """The cost of one query.

    Attributes:
        model: What was profiled.
        input: Shape of the input, (channels, height, width).
        macs: Multiply-accumulates (fvcore; one per multiply-add), None for an ONNX file.
        parameters: Number of parameters.
        activations: Output elements of convolutions, linear maps and matrix products (fvcore), None
            for an ONNX file.
        int8_bytes: Bytes of the weights in int8, None for an ONNX file.
        latency: Median seconds of one query on one CPU thread.
        layers: MACs by layer, empty for an ONNX file.
    """

    model: str
    input: tuple[int, int, int]
    macs: int | None
    parameters: int
    activations: int | None
    int8_bytes: int | None
    latency: float
    layers: dict[str, int]


def profile(model: str, input: str | None = None) -> Profile:
    """Profile a timm network (``timm:NAME``, headless) or an exported query model.

    Args:
        model: ``timm:NAME``, an exported ``.safetensors`` or an ``.onnx`` file.
        input: ``"3x224x224"``; by default the model's own input, 224 for timm.

    Raises:
        StudyError: The model is of no known kind, or the input is not CHANNELSxHEIGHTxWIDTH with
            three channels and a square image.
    """
    side = None if input is None else _side(input)
    if model.endswith(".onnx"):
        return _profile_onnx(Path(model), side)
    network: nn.Module
    if model.startswith("timm:"):
        side = side or _USUAL
        network = open_query_model(model, 1, resolution=side, pretrained=False).backbone
    elif is_saved(model):
        network = load_model(model)
        side = side or network.resolution
    else:
        raise StudyError(
            f"'{model}' cannot be profiled; give timm:NAME, an exported .safetensors or .onnx file."
        )
    layers = macs_by_layer(network, side)
    return Profile(
        model=model,
        input=(3, side, side),
        macs=sum(layers.values()),
        parameters=count_parameters(network),
        activations=count_activations(network, side),
        int8_bytes=int8_bytes(network),
        latency=measure_latency(network, side),
        layers=layers,
    )


def _side(text: str) -> int:
    match = re.fullmatch(r"3x(\d+)x(\d+)", text)
    if match is None or match[1] != match[2]:
        raise StudyError(
            f"The input '{text}' is not understood; give three channels and a square image, "
            "e.g. 3x224x224."
        )
    side = int(match[1]) if len(match[1]) < 9 else MOST_SIDE + 1
    if not 0 < side <= MOST_SIDE:
        raise StudyError(
            f"The input '{text}' is too large; give at most {MOST_SIDE} pixels a side."
        )
    return side


def _profile_onnx(path: Path, side: int | None) -> Profile:
    given = read_onnx_input(path, error=StudyError, remedy=REMEDY)
    side = side or given.side or _USUAL
    session = open_onnx(path, side, error=StudyError, remedy=REMEDY)
    return Profile(
        model=str(path),
        input=(3, side, side),
        macs=None,
        parameters=given.parameters,
        activations=None,
        int8_bytes=None,
        latency=onnx_latency(session, side),
        layers={},
    )

"""What a network costs: MACs by layer, activations, parameters, bytes, latency."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from nas.deployment.model_file import onnx_latency
from nas.errors import StudyError
from pruning import load_model
from searchspaces import count_parameters, macs_by_layer, measure_latency, timm_query_model
from searchspaces.cost import count_activations, int8_bytes


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
    if model.startswith("timm:"):
        network = timm_query_model(
            model.removeprefix("timm:"), 1, resolution=side or 224, pretrained=False
        ).backbone
        side = side or 224
    elif model.endswith(".safetensors"):
        query_model = load_model(model)
        network, side = query_model, side or query_model.resolution
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
    return int(match[1])


def _profile_onnx(path: Path, side: int | None) -> Profile:
    if not path.is_file():
        raise StudyError(f"There is no file '{path}'; give an exported .onnx file.")
    import onnx

    graph = onnx.load(str(path)).graph
    fixed = graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    if side is not None and fixed and side != fixed:
        raise StudyError(f"'{path}' takes 3x{fixed}x{fixed} images, not 3x{side}x{side}.")
    side = fixed or side or 224
    return Profile(
        model=str(path),
        input=(3, side, side),
        macs=None,
        parameters=sum(math.prod(tensor.dims) for tensor in graph.initializer),
        activations=None,
        int8_bytes=None,
        latency=onnx_latency(path, side),
        layers={},
    )

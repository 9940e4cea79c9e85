"""An ONNX encoder and a projection as one ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.deployment.formats import Run, onnx_run
from nas.errors import StudyError
from searchspaces import Projection
from searchspaces.support.errors import reason
from searchspaces.support.onnx_files import own_session

if TYPE_CHECKING:
    import onnx

_OLDEST = 7  # operator set from which on the operators below are what they are today


def compose(path: Path, projection: Projection) -> onnx.ModelProto:
    """Return the graph of a file with a projection and the scaling to unit length behind it.

    The projection is written in operators that are the same in every operator set from 7 on, so
    that the graph stays in that of the file.

    Args:
        path: An ONNX file that runs; its first output is features (B, f).
        projection: From f features; without a norm, on the CPU.

    Raises:
        StudyError: The file's operators are older than that, or the parts do not fit together.
    """
    import onnx
    from onnx import compose as parts

    encoder = onnx.load(str(path))
    opset = next((each.version for each in encoder.opset_import if not each.domain), 0)
    if opset < _OLDEST:
        raise StudyError(
            f"'{path}' is of ONNX operator set {opset}, and nothing below {_OLDEST} can be "
            "extended; export it again in a newer one."
        )
    try:
        whole = parts.merge_models(
            encoder,
            _graph_of(projection, encoder),
            io_map=[(encoder.graph.output[0].name, "features")],
            outputs=["projection/embeddings"],
            prefix2="projection/",
        )
    except Exception as error:  # the checker, protobuf and the merger have types of their own
        raise StudyError(
            f"'{path}' cannot be extended by a projection ({reason(error)}); export it again."
        ) from error
    del whole.opset_import[:]  # merged, they are there twice
    whole.opset_import.extend(encoder.opset_import)
    del whole.graph.value_info[:]  # the file's shapes may be of another batch
    return whole


def write_graph(file: Path, graph: onnx.ModelProto) -> Run:
    """Write a graph as an ONNX file, and return that at work."""
    import onnx

    onnx.save(graph, str(file))
    return onnx_run(own_session(file))


def _graph_of(projection: Projection, encoder: onnx.ModelProto) -> onnx.ModelProto:
    """A projection as a graph of the operator sets of an encoder."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def linear(layer: Any, given: str, output: str) -> str:
        inputs = [given, constant(f"{output}_weight", layer.weight.detach().numpy())]
        if layer.bias is not None:
            inputs.append(constant(f"{output}_bias", layer.bias.detach().numpy()))
        else:
            zeros = np.zeros(len(layer.weight), np.float32)
            inputs.append(constant(f"{output}_bias", zeros))
        return node("Gemm", inputs, output, transB=1)

    lift = projection.description["lift"]
    seen = "features"
    if lift is not None:
        inner = linear(projection.lift.inner, seen, "inner")
        match lift["kind"]:
            case "low-rank":
                seen = inner
            case "mlp":
                seen = node("Concat", [seen, node("Relu", [inner], "hidden")], "lifted", axis=1)
    made = linear(projection.linear, seen, "projected")
    node("LpNormalization", [made], "embeddings", axis=1, p=2)
    graph = helper.make_graph(
        nodes,
        "projection",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, projection.channels])],
        [
            helper.make_tensor_value_info(
                "embeddings", TensorProto.FLOAT, [None, projection.linear.out_features]
            )
        ],
        weights,
    )
    return helper.make_model(
        graph, opset_imports=list(encoder.opset_import), ir_version=encoder.ir_version
    )

"""Multiply-accumulates of a network that is an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from searchspaces.errors import SearchSpaceError
from searchspaces.support.errors import reason

if TYPE_CHECKING:
    import onnx

_OF_INTEGERS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")


def count_onnx_macs(model: onnx.ModelProto, resolution: int) -> int:
    """Count the multiply-accumulates of one image, as `count_macs` does.

    Convolutions, linear maps and matrix products count one per multiply-add, BatchNorms two per
    element, all else nothing.

    Args:
        model: A graph whose one input is of images (B, 3, resolution, resolution).
        resolution: Side of the image in pixels.

    Raises:
        SearchSpaceError: The shape of a product cannot be told without running the graph, or the
            products are of integers.
    """
    import onnx
    from onnx import inliner, shape_inference

    try:
        whole = onnx.ModelProto()
        whole.CopyFrom(inliner.inline_local_functions(model))
        weights = {tensor.name for tensor in whole.graph.initializer}
        (images,) = (each for each in whole.graph.input if each.name not in weights)
        sides = (1, 3, resolution, resolution)
        for dim, side in zip(images.type.tensor_type.shape.dim, sides, strict=True):
            dim.dim_value = side
        del whole.graph.value_info[:]  # shapes of any batch
        for output in whole.graph.output:
            output.type.tensor_type.ClearField("shape")
        graph = shape_inference.infer_shapes(whole, data_prop=True).graph
        shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for info in (*graph.input, *graph.value_info, *graph.output):
            dims = info.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[info.name] = tuple(dim.dim_value for dim in dims)
        return sum(_macs(node, shapes) for node in graph.node)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise SearchSpaceError(
            f"the multiply-accumulates of the ONNX graph cannot be counted ({reason(error)}): "
            "export it in float32, with shapes that follow from the image's"
        ) from error


def _macs(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    kind = node.op_type
    if kind in _OF_INTEGERS:
        raise ValueError(f"it has a {kind}")
    if kind == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if kind == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if kind in ("MatMul", "Gemm"):
        turned = any(each.name == "transA" and each.i for each in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else -1]
    if kind == "BatchNormalization":
        return 2 * math.prod(shapes[node.output[0]])
    return 0

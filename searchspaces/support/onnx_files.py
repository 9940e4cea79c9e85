"""ONNX files that anybody may have written: tried in a process of their own, then opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchspaces.support.errors import QuerynasError, reason
from searchspaces.support.reading import check_file
from searchspaces.support.trials import problem_in_trial

_MOST_BYTES = 2 << 30  # what one message of protobuf holds; larger weights lie beside the file
_MOST_SIDE = 4096
_SECONDS = 60  # of one core for one image
_MEMORY = 6 << 30  # bytes of addresses; ONNX Runtime reserves more than it uses
_TRIAL = Path(__file__).with_name("onnx_trial.py")


@dataclass(frozen=True)
class OnnxInput:
    """What a file takes: float32 images (batch, 3, side, side).

    Attributes:
        name: Of the input.
        batch: Images at a time; None where any number goes.
        side: Of the images in pixels; None where any goes.
        parameters: Elements of all weights.
    """

    name: str
    batch: int | None
    side: int | None
    parameters: int


def read_onnx_input(path: Path, *, error: type[QuerynasError], remedy: str) -> OnnxInput:
    """Read what an ONNX file takes, without running it.

    Raises:
        QuerynasError: The given kind of it: there is no such file, it is damaged, or it takes
            anything but one batch of square RGB images.
    """
    import math

    import onnx

    check_file(path, at_most=_MOST_BYTES, error=error, remedy=remedy)
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as problem:  # protobuf's errors are of several types
        raise error(f"{path} is no ONNX file ({reason(problem)}); {remedy}.") from problem
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    dims = [] if kind is None else [dim.dim_value or None for dim in kind.shape.dim]
    if (
        kind is None
        or kind.elem_type != onnx.TensorProto.FLOAT
        or len(dims) != 4
        or dims[1] != 3
        or dims[2] != dims[3]
        or not all(each is None or 0 < each <= _MOST_SIDE for each in dims)
    ):
        raise error(
            f"{path} takes {dims or f'{len(inputs)} inputs'}, expected one float input "
            f"(batch, 3, S, S); {remedy}."
        )
    parameters = sum(math.prod(tensor.dims) for tensor in graph.initializer)
    return OnnxInput(inputs[0].name, dims[0], dims[2], parameters)


def open_onnx(
    path: Path,
    side: int,
    *,
    error: type[QuerynasError],
    remedy: str,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:
    """Open an ONNX file of somebody else in ONNX Runtime.

    It is run on one image in a process of its own first, whose memory and time are limited, because
    a prepared file can crash the runtime or take any amount of both.

    Args:
        path: The file, whose input `read_onnx_input` accepts.
        side: Side of the image in pixels.
        error: The error to raise.
        remedy: What to do about it.
        providers: Where it runs.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        QuerynasError: The given kind of it: the file does not run, or not within these limits.
    """
    found = read_onnx_input(path, error=error, remedy=remedy)
    if found.side not in (None, side):
        raise error(f"{path} takes images of {found.side} pixels, not {side}; {remedy}.")
    problem = problem_in_trial(
        _TRIAL,
        str(path.resolve()),
        str(side),
        seconds=_SECONDS,
        memory=_MEMORY,
        library="ONNX Runtime",
    )
    if problem is not None:
        raise error(f"{path} is no ONNX model that can run ({problem}); {remedy}.")
    return own_session(path, providers=providers)


def own_session(
    path: Path, *, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> Any:
    """Open an ONNX file that this process has made itself, or has tried.

    Args:
        path: The file.
        threads: CPU threads that it may use; 0 for all.
        providers: Where it runs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised
    return onnxruntime.InferenceSession(str(path), options, list(providers))

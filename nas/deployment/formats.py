"""The formats of exported query models: each with its ending, how it is written, how it is opened.

A file is run as it was written: the writer reads back what it has written and returns it, so that
the caller can compare it with PyTorch.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.deployment.card import Format
from nas.errors import StudyError
from pruning import load_model, save_model
from searchspaces import QueryModel
from searchspaces.out_of_place import out_of_place
from searchspaces.support.files import write_atomically
from searchspaces.support.onnx_files import open_onnx, own_session

Run = Callable[[np.ndarray], np.ndarray]
"""Float32 images (B, 3, r, r) in [0, 1] to float32 vectors (B, d)."""

Opener = Callable[[Path, int], Run]

_OPSET = 18
REMEDY = "copy it again or export the model again"


@dataclass(frozen=True)
class FileFormat:
    """A kind of model file.

    Attributes:
        suffix: How its files end.
        write: Writes a model, and returns the written file at work.
        open: Opens the file of anybody, for images of a side in pixels, or refuses it in one
            sentence; None where opening could run code of the file.
    """

    suffix: str
    write: Callable[[Path, QueryModel], Run]
    open: Opener | None


def format_of(path: Path) -> Format:
    """Return the format that a model file's ending stands for.

    Raises:
        StudyError: It stands for none.
    """
    for name, format in FORMATS.items():
        if path.suffix == format.suffix:
            return name
    endings = ", ".join(format.suffix for format in FORMATS.values())
    raise StudyError(
        f"The query model's file '{path}' must end in one of {endings}; the ending chooses the "
        "format."
    )


def opener_of(path: Path) -> Opener:
    """Return what opens a model file.

    Raises:
        StudyError: Its ending stands for no format, or for programs of torch.export.
    """
    opener = FORMATS[format_of(path)].open
    if opener is None:
        raise StudyError(
            f"'{path}' is a program of torch.export, which can run any code while it is opened, so "
            "querynas writes such files but opens none; give the .safetensors or .onnx export of "
            "the model."
        )
    return opener


def _write_safetensors(path: Path, model: QueryModel) -> Run:
    save_model(model, path)
    return _open_safetensors(path, model.resolution)


def _open_safetensors(path: Path, side: int) -> Run:
    model = load_model(path)
    if model.resolution != side:
        raise StudyError(
            f"'{path}' takes images of {model.resolution} pixels, not {side} as its card says; "
            f"{REMEDY}."
        )
    return _torch_run(model)


def _write_onnx(path: Path, model: QueryModel) -> Run:
    with _quietly(), out_of_place(model), torch.no_grad():
        program = torch.onnx.export(
            model,
            (_example(model),),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()  # they tell the paths of source files on this machine
        program.save(path, external_data=False)
    return onnx_run(own_session(path))


def _open_onnx(path: Path, side: int) -> Run:
    return onnx_run(open_onnx(path, side, error=StudyError, remedy=REMEDY))


def _write_program(path: Path, model: QueryModel) -> Run:
    with _quietly():
        program = torch.export.export(
            model, (_example(model),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
        program._example_inputs = None  # they would be pickled into the file
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # as in ONNX files
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        content = buffer.getvalue()
        own = torch.export.load(io.BytesIO(content))  # these very bytes, and never a file
    write_atomically(path, lambda file: file.write_bytes(content))
    return _torch_run(own.module())


FORMATS: dict[Format, FileFormat] = {
    "safetensors": FileFormat(".safetensors", _write_safetensors, _open_safetensors),
    "onnx": FileFormat(".onnx", _write_onnx, _open_onnx),
    "torch-export": FileFormat(".pt2", _write_program, None),
}


def _torch_run(model: torch.nn.Module) -> Run:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = model(torch.from_numpy(images)).numpy()
        return found

    return run


def onnx_run(session: Any) -> Run:
    """Return an ONNX Runtime session as what its first output is of its one input."""
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _example(model: QueryModel) -> torch.Tensor:
    return torch.zeros(2, 3, model.resolution, model.resolution)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporters' chatter off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

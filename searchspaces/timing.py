"""Seconds of forward passes, in PyTorch or in ONNX Runtime."""

import copy
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from searchspaces.cost import evaluating
from searchspaces.support.onnx_files import own_session

Runtime = Literal["pytorch", "onnxruntime"]

_PACKAGES = {"pytorch": "torch", "onnxruntime": "onnxruntime"}
_OPSET = 18


def forward_seconds(
    module: nn.Module,
    shape: tuple[int, ...],
    runtime: Runtime,
    *,
    warmup: int = 5,
    runs: int = 30,
) -> list[float]:
    """Return the seconds of each of several passes of one input, on one CPU thread.

    Args:
        module: A network or a block of one, on any device; it is not changed.
        shape: Shape of its input without the batch.
        runtime: Where it runs.
        warmup: Passes before the clock starts.
        runs: Timed passes.
    """
    alone = copy.deepcopy(module).cpu().to(memory_format=torch.contiguous_format).eval()
    if runtime == "pytorch":
        return time_passes(alone, _images((1, *shape)), warmup=warmup, runs=runs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "module.onnx"
        _write_onnx(file, alone, shape)
        return _session_seconds(own_session(file, threads=1), shape, warmup, runs)


def measure_latency(
    model: nn.Module,
    resolution: int,
    *,
    batch: int = 1,
    threads: int = 1,
    warmup: int = 5,
    runs: int = 30,
) -> float:
    """Return the median seconds of a forward pass in PyTorch, on the model's device.

    Args:
        model: A network on images (B, 3, resolution, resolution).
        resolution: Side of the images in pixels.
        batch: Images per pass.
        threads: CPU threads that PyTorch may use.
        warmup: Passes before the clock starts.
        runs: Timed passes.
    """
    device = next(model.parameters()).device
    images = _images((batch, 3, resolution, resolution)).to(device)
    passes = time_passes(model, images, threads=threads, warmup=warmup, runs=runs)
    return statistics.median(passes)


def onnx_latency(session: Any, resolution: int, *, warmup: int = 5, runs: int = 30) -> float:
    """Return the median seconds of one query in ONNX Runtime.

    Args:
        session: An open file whose one input is float32 images (B, 3, resolution, resolution).
        resolution: Side of the images in pixels.
        warmup: Passes before the clock starts.
        runs: Timed passes.
    """
    shape = (3, resolution, resolution)
    return statistics.median(_session_seconds(session, shape, warmup, runs))


def time_passes(
    module: nn.Module, inputs: Tensor, *, threads: int = 1, warmup: int = 5, runs: int = 30
) -> list[float]:
    """Return the seconds of each of several forward passes in PyTorch, in evaluation mode.

    Args:
        module: A network or a part of one, on the device of its inputs.
        inputs: What it is given, (B, ...).
        threads: CPU threads that PyTorch may use.
        warmup: Passes before the clock starts.
        runs: Timed passes.
    """

    def forward() -> None:
        module(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with evaluating(module), torch.inference_mode():
            return _seconds(forward, warmup, runs)
    finally:
        torch.set_num_threads(before)


def describe_runtime(runtime: Runtime) -> str:
    """Return words for what is timed here: processor, runtime and its version."""
    return f"{_processor()}, {_PACKAGES[runtime]} {version(_PACKAGES[runtime])}, one thread"


def _session_seconds(session: Any, shape: tuple[int, ...], warmup: int, runs: int) -> list[float]:
    inputs = {session.get_inputs()[0].name: _images((1, *shape)).numpy()}
    return _seconds(lambda: session.run(None, inputs), warmup, runs)


def _images(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))


def _seconds(forward: Callable[[], object], warmup: int, runs: int) -> list[float]:
    """Time every pass by itself, for medians and minima; PyTorch's `Timer` gives means alone."""
    for _ in range(warmup):
        forward()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    return seconds


def _write_onnx(path: Path, module: nn.Module, shape: tuple[int, ...]) -> None:
    """Write a file to be timed and forgotten, by PyTorch's TorchScript exporter.

    `querynas export` writes files by the newer exporter, which takes ten to thirty times as long;
    ONNX Runtime fuses both graphs into the same kernels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is the newer one
        torch.onnx.export(
            module,
            (torch.zeros(2, *shape),),
            str(path),
            input_names=["input"],
            dynamic_axes={"input": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def _processor() -> str:
    """The processor's name as Linux knows it, or what Python knows of it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

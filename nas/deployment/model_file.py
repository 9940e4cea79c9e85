"""Exported files at work: open one, embed images with it, measure it against a gallery."""

import io
import json
import re
import statistics
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from compat.images import as_images, to_float
from nas.deployment.card import Card, read_card
from nas.errors import StudyError
from pruning import load_model
from searchspaces.timing import onnx_passes

Embed = Callable[[np.ndarray], np.ndarray]
_Run = Callable[[np.ndarray], np.ndarray]

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Deployed:
    """An exported query model, ready to use.

    Attributes:
        embed: Maps uint8 images (N, r, r, 3) to float32 unit vectors (N, d).
        card: What it is.
    """

    embed: Embed
    card: Card


def load_deployed(path: str | Path) -> Deployed:
    """Open an exported .onnx, .pt2 or .safetensors file together with its card, on the CPU.

    Raises:
        StudyError: The file or its card is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    card = read_card(path)
    return Deployed(open_embedder(path, card.input.resolution), card)


def open_embedder(path: Path, resolution: int) -> Embed:
    """Open a model file alone.

    Args:
        path: A .onnx, .pt2 or .safetensors file; nothing in it is unpickled.
        resolution: Side of its square input in pixels.

    Returns:
        A function from uint8 images (N, r, r, 3) to float32 vectors (N, d).

    Raises:
        StudyError: The file is of no known kind, is damaged, or holds pickled objects.
    """
    if path.suffix not in _OPENERS:
        raise StudyError(
            f"'{path}' is no exported model; give a file that ends in {', '.join(_OPENERS)}."
        )
    try:
        run = _OPENERS[path.suffix](path)
    except StudyError:
        raise
    except Exception as error:  # every runtime has error types of its own for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(
            f"'{path}' cannot be opened ({reason}); copy it again or export the model again."
        ) from error

    def embed(pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (resolution, resolution, 3):
            raise StudyError(
                f"'{path.name}' takes uint8 images (N, {resolution}, {resolution}, 3), not "
                f"{pixels.dtype} {pixels.shape}; decode them at its resolution."
            )
        vectors = []
        with tqdm(total=len(pixels), desc="embedding images", unit="images", delay=2) as bar:
            for start in range(0, len(pixels), _BATCH):
                vectors.append(
                    run(to_float(as_images(pixels[start : start + _BATCH])).contiguous().numpy())
                )
                bar.update(len(vectors[-1]))
        return np.concatenate(vectors)

    return embed


def onnx_latency(path: Path, resolution: int, *, warmup: int = 5, runs: int = 30) -> float:
    """Return the median seconds of one query in ONNX Runtime, batch of 1, one CPU thread."""
    shape = (3, resolution, resolution)
    return statistics.median(onnx_passes(path, shape, warmup=warmup, runs=runs))


def _open_onnx(path: Path) -> _Run:
    session = _onnx_session(path)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _onnx_session(path: Path):  # type: ignore[no-untyped-def]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _open_program(path: Path) -> _Run:
    content = path.read_bytes()
    _refuse_pickles(path, content)
    return _torch_run(torch.export.load(io.BytesIO(content)).module())


def _refuse_pickles(path: Path, content: bytes) -> None:
    """Raise StudyError for a program archive with members that PyTorch would unpickle."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            name = member.filename.partition("/")[2]
            if name.endswith("_config.json"):
                entries = json.loads(archive.read(member))["config"].values()
                harmless = not any(entry["use_pickle"] for entry in entries)
            else:
                harmless = member.file_size == 0 or _PLAIN_MEMBER.fullmatch(name) is not None
            if not harmless:
                raise StudyError(
                    f"'{path}' holds pickled objects in '{name}', which could run any code; export "
                    "the model again with `querynas export`."
                )


_PLAIN_MEMBER = re.compile(
    r"data/(weights/weight|constants/tensor)_\d+|models/model\.json|archive_(format|version)"
    r"|(\.data/)?(version|serialization_id)|byteorder"
)


def _open_safetensors(path: Path) -> _Run:
    return _torch_run(load_model(path).cpu().eval())


def _torch_run(model: torch.nn.Module) -> _Run:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).numpy()

    return run


_OPENERS: dict[str, Callable[[Path], _Run]] = {
    ".onnx": _open_onnx,
    ".pt2": _open_program,
    ".safetensors": _open_safetensors,
}

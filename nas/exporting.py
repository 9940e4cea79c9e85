"""Exporting a query model: a file that is checked against PyTorch, and its card."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.budget import format_macs
from nas.card import (
    ArchitectureCard,
    Card,
    DataCard,
    Format,
    GalleryCard,
    InputCard,
    LatencyCard,
    Scores,
    Validation,
    file_hash,
    product_version,
    write_card,
)
from nas.deployed import Embed, onnx_latency, open_embedder
from nas.errors import StudyError
from nas.front import Record, select
from nas.run import Run
from pruning import save_model
from searchspaces import QueryModel, count_macs, count_parameters, measure_latency

TOLERANCE = 1e-4
"""Largest difference of one component of a unit vector between the file and PyTorch."""

_OPSET = 18
_COMPARED = 256  # test images that the file and PyTorch both embed


@dataclass(frozen=True)
class Exported:
    """A written model file.

    Attributes:
        path: The model file.
        card: What it is, with the file's own scores on the test classes.
        card_path: The card beside it.
        max_difference: Largest absolute difference from PyTorch on real test images.
    """

    path: Path
    card: Card
    card_path: Path
    max_difference: float


def export(run: Run, record: Record, format: Format, out: str | Path) -> Exported:
    """Write a query model of a study as one file, with a card beside it.

    The file takes float32 images (B, 3, r, r) in [0, 1], any B, and gives unit vectors (B, d). It
    is opened again and run on test images before it gets its name.

    Args:
        run: The study.
        record: The candidate.
        format: "safetensors" (weights and the description that `load_model` rebuilds the network
            from), "onnx" or "torch-export" (programs that need no code of ours).
        out: The file; it ends in .safetensors, .onnx or .pt2.

    Raises:
        StudyError: The ending does not fit the format, the network cannot be expressed in it, or
            the file's embeddings differ from PyTorch's by more than `TOLERANCE`.
    """
    out = Path(out)
    suffix, write = _FORMATS[format]
    if out.suffix != suffix:
        raise StudyError(f"The file '{out}' must end in {suffix} for the format '{format}'.")
    model = run.model(record).cpu().to(memory_format=torch.contiguous_format).eval()
    pixels = run.data.test.pixels(model.resolution)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        file = Path(folder) / out.name
        try:
            write(file, model)
        except (OSError, StudyError):
            raise
        except Exception as error:  # the exporters name no error types
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise StudyError(
                f"Trial {record.trial} cannot be exported as {format} ({reason}); choose another "
                "format or another trial."
            ) from error
        embed = open_embedder(file, model.resolution)
        difference = _difference(model, embed, pixels)
        if not difference <= TOLERANCE:
            raise StudyError(
                f"The {format} file of trial {record.trial} differs from PyTorch by "
                f"{difference:.1e}, more than {TOLERANCE:.0e}, so it was not kept; choose another "
                "format or another trial."
            )
        card = _card(run, record, format, model, file, embed(pixels))
        os.replace(file, out)
    return Exported(out, card, write_card(out, card), difference)


def best_under(run: Run, macs: float) -> Record:
    """Return the candidate with the highest validation cross-test within a budget of MACs.

    Raises:
        StudyError: No candidate is that small.
    """
    records = run.records()
    within = select(records, max_macs=macs)
    if not within:
        smallest = min(records, key=lambda r: r.macs, default=None)
        found = (
            "it has no scored candidate yet"
            if smallest is None
            else f"its smallest is trial {smallest.trial} with {format_macs(smallest.macs)}"
        )
        raise StudyError(
            f"The run '{run.path}' has no model under {format_macs(macs)} MACs, {found}; raise the "
            "budget or search smaller models."
        )
    return max(within, key=lambda r: (r.cross_test, -r.macs))


def _difference(model: QueryModel, embed: Embed, pixels: np.ndarray) -> float:
    """Largest difference over test images, in batches and for one image alone."""
    chosen = np.array(pixels[:: max(1, len(pixels) // _COMPARED)][:_COMPARED])
    with torch.inference_mode():
        images = torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255
        expected = torch.cat([model(part) for part in images.split(32)]).numpy()
    together = np.abs(embed(chosen) - expected).max()
    alone = np.abs(embed(chosen[:1]) - expected[:1]).max()
    return float(max(together, alone))


def _card(
    run: Run, record: Record, format: Format, model: QueryModel, file: Path, embeddings: np.ndarray
) -> Card:
    task, gallery = run.data.test, run.data.gallery
    return Card(
        querynas=product_version(),
        run=str(run.path),
        trial=record.trial,
        format=format,
        sha256=file_hash(file),
        architecture=ArchitectureCard.of(record.architecture),
        route=record.route,
        fidelity=record.fidelity,
        macs=count_macs(model, model.resolution),
        parameters=count_parameters(model),
        latency=LatencyCard(
            pytorch=measure_latency(model, model.resolution),
            onnxruntime=onnx_latency(file, model.resolution) if format == "onnx" else None,
        ),
        input=InputCard.model_validate({"resolution": model.resolution, "fit": task.fit}),
        dimension=model.dimension,
        gallery=GalleryCard(
            path=run.config.gallery,
            fingerprint=gallery.fingerprint,
            model=gallery.model,
            metric=gallery.metric,
        ),
        data=DataCard(spec=run.config.data, split=run.config.split),
        validation=Validation(cross_test=record.cross_test, interval=record.interval),
        scores=Scores.of(task.score(embeddings)),
    )


def _write_onnx(path: Path, model: QueryModel) -> None:
    with _quietly():
        torch.onnx.export(
            model,
            (_example(model),),
            str(path),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _write_program(path: Path, model: QueryModel) -> None:
    with _quietly():
        program = torch.export.export(
            model, (_example(model),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
        program._example_inputs = None  # they would be pickled into the file
        torch.export.save(program, path)


def _write_safetensors(path: Path, model: QueryModel) -> None:
    save_model(model, path)


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


_FORMATS: dict[Format, tuple[str, Callable[[Path, QueryModel], None]]] = {
    "safetensors": (".safetensors", _write_safetensors),
    "onnx": (".onnx", _write_onnx),
    "torch-export": (".pt2", _write_program),
}

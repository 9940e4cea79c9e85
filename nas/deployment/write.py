"""A query model as one file: written, checked against PyTorch, with its card beside it."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compat.evaluation.collapse import directed, indistinct
from compat.images import as_images, to_float
from compat.tasks.split import SplitConfig
from compat.tasks.study_data import StudyData
from nas.deployment.card import (
    ArchitectureCard,
    Card,
    DataCard,
    GalleryCard,
    InputCard,
    LatencyCard,
    Scores,
    Validation,
    file_hash,
    product_version,
    write_card,
)
from nas.deployment.formats import FORMATS, Run, format_of
from nas.deployment.model_file import Embed, embedder
from nas.errors import StudyError
from searchspaces import (
    Architecture,
    QueryModel,
    count_macs,
    count_parameters,
    measure_latency,
    onnx_latency,
)
from searchspaces.support.errors import QuerynasError, reason
from searchspaces.support.onnx_files import own_session

TOLERANCE = 1e-4
"""Largest difference of one component of a unit vector between the file and PyTorch."""

_COMPARED = 256  # test images that the file and PyTorch both embed


@dataclass(frozen=True)
class Source:
    """Where a query model comes from, as its card tells it.

    Attributes:
        name: What the model is called in messages, "trial 3".
        run: Folder that it was trained in.
        trial: Number of its trial; None where there are no trials.
        architecture: The point of a search space that it is.
        route: Name of the search space in the study file, or of the command that made it.
        fidelity: How its weights came about.
        gallery: Folder of the gallery that it was aligned to.
        data: Spec of the data set.
        split: How the data's classes were divided.
        validation: Its cross-test on the validation classes.
    """

    name: str
    run: Path
    trial: int | None
    architecture: Architecture
    route: str
    fidelity: str
    gallery: str
    data: str
    split: SplitConfig
    validation: Validation


@dataclass(frozen=True)
class Exported:
    """A written model file.

    Attributes:
        path: The model file.
        card: What it is, with the file's own scores on the test classes.
        card_path: The card beside it.
        max_difference: Largest absolute difference from PyTorch on real test images.
        collapsed: What is wrong with the embeddings of a model that has collapsed; None for others.
    """

    path: Path
    card: Card
    card_path: Path
    max_difference: float
    collapsed: str | None


@dataclass(frozen=True)
class Deployable:
    """What a file is made of, and what it is to be compared with.

    Attributes:
        resolution: Side of its square input in pixels.
        dimension: Width of its embeddings.
        write: Writes it as a file, and returns that at work.
        embed: What the file is to give for uint8 images (N, r, r, 3).
        macs: Multiply-accumulates of one query.
        parameters: Number of parameters.
        seconds: Median seconds of one query in PyTorch; None where it does not run there.
    """

    resolution: int
    dimension: int
    write: Callable[[Path], Run]
    embed: Embed
    macs: int
    parameters: int
    seconds: float | None


def write_model(model: QueryModel, out: str | Path, source: Source, data: StudyData) -> Exported:
    """Write a query model as one file, with a card beside it.

    The file takes float32 images (B, 3, r, r) in [0, 1], any B, and gives unit vectors (B, d). It
    is read back and run on test images before it gets its name; its own scores on the test
    classes go onto the card.

    Args:
        model: The model; it comes back on the CPU, in evaluation mode.
        out: The file. Its ending says the format: .safetensors (weights and the description that
            `load_model` rebuilds the network from), .onnx or .pt2 (programs that need no code of
            ours).
        source: Where the model comes from.
        data: What it is measured on.

    Raises:
        StudyError: The ending stands for no format, the network cannot be expressed in it, or the
            file's embeddings differ from PyTorch's by more than `TOLERANCE`.
    """
    format_of(Path(out))
    model = model.cpu().to(memory_format=torch.contiguous_format).eval()
    deployable = Deployable(
        resolution=model.resolution,
        dimension=model.dimension,
        write=lambda file: _write(file, model, source.name),
        embed=lambda pixels: _embedded(model, pixels),
        macs=count_macs(model, model.resolution),
        parameters=count_parameters(model),
        seconds=measure_latency(model, model.resolution),
    )
    return write_file(deployable, out, source, data)


def write_file(
    deployable: Deployable, out: str | Path, source: Source, data: StudyData
) -> Exported:
    """Write anything that embeds queries, as `write_model` writes a query model.

    Raises:
        StudyError: As `write_model`.
    """
    out = Path(out)
    format = format_of(out)
    pixels = data.test.pixels(deployable.resolution)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        file = Path(folder) / out.name
        compared = pixels[:: max(1, len(pixels) // _COMPARED)][:_COMPARED]
        expected = deployable.embed(compared)
        if not np.isfinite(expected).all():
            raise StudyError(
                f"The query model of {source.name} gives embeddings that are not finite, so it was "
                "not exported; choose another model."
            )
        run = deployable.write(file)
        embed = embedder(run, out, deployable.resolution, deployable.dimension)
        difference = _difference(embed, compared, expected)
        if not difference <= TOLERANCE:
            raise StudyError(
                f"The {format} file of {source.name} differs from PyTorch by {difference:.1e}, "
                f"more than {TOLERANCE:.0e}, so it was not kept; choose another format or another "
                "model."
            )
        vectors = embed(pixels)
        scores = Scores.of(data.test.score(directed(vectors)))
        card = _card(deployable, file, source, data, scores)
        os.replace(file, out)
    lost = indistinct(vectors)
    words = f"{lost} of {len(vectors)} test images have an embedding of zeros or all the same one"
    return Exported(out, card, write_card(out, card), difference, words if lost else None)


def onnx_seconds(model: QueryModel, name: str) -> float:
    """Return the median seconds of one query in ONNX Runtime, batch of 1, one CPU thread.

    Args:
        model: The model, on the CPU.
        name: What it is called in messages.

    Raises:
        StudyError: The network cannot be expressed in ONNX.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        _write(file, model, name)
        return onnx_latency(own_session(file, threads=1), model.resolution)


def _write(file: Path, model: QueryModel, name: str) -> Run:
    format = format_of(file)
    try:
        return FORMATS[format].write(file, model)
    except (OSError, QuerynasError):
        raise
    except Exception as error:  # the exporters name no error types
        raise StudyError(
            f"The query model of {name} cannot be exported as {format} ({reason(error)}); choose "
            "another format or another model."
        ) from error


def _embedded(model: QueryModel, pixels: np.ndarray) -> np.ndarray:
    """What PyTorch makes of some images."""
    with torch.inference_mode():
        images = to_float(as_images(pixels)).contiguous()
        return torch.cat([model(part) for part in images.split(32)]).numpy()


def _difference(embed: Embed, pixels: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over images, in batches and for one image alone."""
    together = np.abs(embed(pixels) - expected).max()
    alone = np.abs(embed(pixels[:1]) - expected[:1]).max()
    return float(max(together, alone))


def _card(
    deployable: Deployable, file: Path, source: Source, data: StudyData, scores: Scores
) -> Card:
    format, gallery = format_of(file), data.gallery
    return Card(
        version=Card.NEWEST,
        querynas=product_version(),
        run=str(source.run),
        trial=source.trial,
        format=format,
        sha256=file_hash(file),
        architecture=ArchitectureCard.of(source.architecture),
        route=source.route,
        fidelity=source.fidelity,
        macs=deployable.macs,
        parameters=deployable.parameters,
        latency=LatencyCard(
            pytorch=deployable.seconds,
            onnxruntime=(
                onnx_latency(own_session(file, threads=1), deployable.resolution)
                if format == "onnx"
                else None
            ),
        ),
        input=InputCard.model_validate({"resolution": deployable.resolution, "fit": data.fit}),
        dimension=deployable.dimension,
        gallery=GalleryCard(
            path=source.gallery,
            fingerprint=gallery.fingerprint,
            model=gallery.manifest.model,
            metric=gallery.metric,
        ),
        data=DataCard(spec=source.data, split=source.split),
        validation=source.validation,
        scores=scores,
        judge=data.judge,
    )

"""Frozen encoders that a user names: where their features come from, and how they are written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from compat.device import pick_device
from compat.evaluation import Score
from compat.gallery import made_by_factory
from compat.tasks import RetrievalTask, StudyData
from nas.alignment.mapping import Encoder, encoder_of, projected
from nas.deployment.composing import compose, write_graph
from nas.deployment.formats import onnx_run
from nas.deployment.model_file import embedder
from nas.deployment.opening import is_saved, open_query_model, open_saved
from nas.deployment.write import Deployable, Exported, Source, write_file, write_model
from nas.errors import StudyError
from searchspaces import Projection, QueryModel, count_macs, count_onnx_macs, count_parameters
from searchspaces.support.errors import reason
from searchspaces.support.onnx_files import open_onnx, read_onnx_input

_FILES = (".safetensors", ".onnx")
_REMEDY = "give an encoder of float images (batch, 3, S, S) in [0, 1]"


class FrozenEncoder(Protocol):
    """An encoder at one resolution, which maps into a gallery space are fitted for."""

    @property
    def resolution(self) -> int:
        """Side of its square input in pixels."""

    @property
    def levels(self) -> int | None:
        """How many levels of a timm backbone its features are pooled from; None for any others."""

    @property
    def width(self) -> int:
        """Number f of its features."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 features (n, f) of uint8 pictures (n, r, r, 3)."""

    def macs(self, projection: Projection) -> int:
        """Multiply-accumulates of one query with a map."""

    def score(self, projection: Projection, task: RetrievalTask) -> Score:
        """The three tests with a map."""

    def write(self, projection: Projection, out: Path, source: Source, data: StudyData) -> Exported:
        """Write it with a map as one file, with its card, as `nas.deployment.write` does."""


@dataclass(frozen=True, eq=False)
class BackboneEncoder:
    """The backbone of a query model, whatever projection that has."""

    model: QueryModel

    @property
    def resolution(self) -> int:
        return self.model.resolution

    @property
    def levels(self) -> int | None:
        levels = (self.model.origin or {}).get("timm", {}).get("levels", ())
        return len(levels) or None

    @property
    def width(self) -> int:
        return self.model.projection.channels

    @cached_property
    def features(self) -> Encoder:
        return encoder_of(self.model)

    def macs(self, projection: Projection) -> int:
        return count_macs(self._with(projection), self.resolution)

    def score(self, projection: Projection, task: RetrievalTask) -> Score:
        return task.score(task.embed(self._with(projection)))

    def write(self, projection: Projection, out: Path, source: Source, data: StudyData) -> Exported:
        return write_model(self._with(projection), out, source, data)

    def _with(self, projection: Projection) -> QueryModel:
        return self.model.with_projection(projection.to(self.model.mean.device)).eval()


@dataclass(frozen=True, eq=False)
class OnnxEncoder:
    """An ONNX file that gives features, opened for images of one resolution."""

    path: Path
    resolution: int
    width: int
    features: Encoder
    parameters: int
    levels: None = None

    @classmethod
    def open(cls, path: Path, resolution: int | None) -> "OnnxEncoder":
        """Open a file; images are of the side that it takes, or of any if it takes any.

        Raises:
            StudyError: The file is missing or damaged, takes other images or one batch only, or
                gives no vector per image.
        """
        given = read_onnx_input(path, error=StudyError, remedy=_REMEDY)
        side = resolution or given.side
        if side is None:
            raise StudyError(f"'{path}' takes images of any size; say which with --resolution.")
        if given.batch is not None:
            raise StudyError(
                f"'{path}' takes {given.batch} images at a time, but query models any number; "
                "export it with a dynamic batch."
            )
        run = onnx_run(open_onnx(path, side, error=StudyError, remedy=_REMEDY))
        try:
            found = run(np.zeros((2, 3, side, side), np.float32))
        except Exception as error:  # onnxruntime's errors share no public type
            raise StudyError(
                f"'{path}' cannot embed two images of {side} pixels ({reason(error)}); {_REMEDY}."
            ) from error
        if found.ndim != 2 or len(found) != 2 or found.dtype != np.float32:
            raise StudyError(
                f"'{path}' gives {found.dtype} {found.shape} for two images, expected a float32 "
                f"vector for each; {_REMEDY}."
            )
        width = found.shape[1]
        return cls(path, side, width, embedder(run, path, side, width), given.parameters)

    def macs(self, projection: Projection) -> int:
        return count_onnx_macs(compose(self.path, projection), self.resolution)

    def score(self, projection: Projection, task: RetrievalTask) -> Score:
        return task.score(self._embed(projection, task.pixels(self.resolution)))

    def write(self, projection: Projection, out: Path, source: Source, data: StudyData) -> Exported:
        deployable = Deployable(
            resolution=self.resolution,
            dimension=projection.linear.out_features,
            write=lambda file: write_graph(file, compose(self.path, projection)),
            embed=lambda pixels: self._embed(projection, pixels),
            macs=self.macs(projection),
            parameters=self.parameters + count_parameters(projection),
            seconds=None,
        )
        return write_file(deployable, out, source, data)

    def _embed(self, projection: Projection, pixels: np.ndarray) -> np.ndarray:
        return projected(projection, self.features(pixels))


def open_encoders(
    model: str,
    dimension: int,
    resolutions: Sequence[int] = (),
    *,
    levels: Sequence[int] = (),
    pretrained: bool = True,
    checkpoint: str | None = None,
    seed: int = 0,
) -> Iterator[tuple[FrozenEncoder, ...]]:
    """Open the encoder that a user names, at one resolution after another.

    Those of one resolution end at different levels; the features of each are the first ones of the
    last, which is the deepest.

    Args:
        model: ``timm:NAME``, ``NAME``, a saved query model, .safetensors, or an ONNX file from
            float images (B, 3, r, r) in [0, 1] to features (B, f), which normalises inside; or
            ``package.module:function,key=value``, which returns such a torch module.
        dimension: Number of dimensions of the gallery space.
        resolutions: Sides of its input in pixels; its own when empty.
        levels: Numbers of a timm model's first levels, each for one encoder whose features are
            pooled from them all; when empty those of the whole model.
        pretrained: Whether a timm model has its published weights.
        checkpoint: File with a timm model's weights instead.
        seed: For what starts at random.

    Raises:
        StudyError, SearchSpaceError, PruningError: As `nas.deployment.opening` and `OnnxEncoder`.
    """
    if levels and (is_saved(model) or is_factory(model) or model.endswith(".onnx")):
        raise StudyError(
            f"'{model}' is no timm model, and only these can end at a level; leave --levels out."
        )
    for resolution in resolutions or (None,):
        if model.endswith(".onnx"):
            if checkpoint is not None:
                raise StudyError(f"'{model}' has weights of its own; leave --checkpoint out.")
            yield (OnnxEncoder.open(Path(model), resolution),)
            continue
        if is_factory(model):
            found = [_made(model, dimension, resolution)]
        elif is_saved(model):
            found = [open_saved(model, resolution=resolution, checkpoint=checkpoint)]
        else:
            found = [
                open_query_model(
                    model,
                    dimension,
                    resolution=resolution,
                    levels=number,
                    pretrained=pretrained,
                    checkpoint=checkpoint,
                    seed=seed,
                )
                for number in sorted(levels) or (None,)
            ]
        yield tuple(BackboneEncoder(each.to(pick_device()).eval()) for each in found)


def is_factory(model: str) -> bool:
    """Whether a name is that of a function that makes a network."""
    return ":" in model and not model.startswith("timm:") and not model.endswith(_FILES)


def _made(model: str, dimension: int, resolution: int | None) -> QueryModel:
    """What a user's function returns, as a query model that does not say where it comes from."""
    network, expected = made_by_factory(model)
    side = resolution or expected.resolution
    try:
        with torch.inference_mode():
            found = network.eval()(torch.zeros(2, 3, side, side))
    except Exception as error:  # a user's network raises what it likes
        raise StudyError(
            f"'{model}' cannot embed images of {side} pixels ({reason(error)}); give another "
            "--resolution."
        ) from error
    if found.ndim != 2 or len(found) != 2:
        raise StudyError(
            f"'{model}' gives {tuple(found.shape)} for two images, expected a vector for each."
        )
    return QueryModel(
        network,
        Projection(found.shape[1], dimension),
        resolution=side,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )

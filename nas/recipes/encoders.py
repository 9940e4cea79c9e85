"""Frozen encoders that a user names: where their features come from, and how they are written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from compat.device import pick_device
from compat.evaluation import Score
from compat.tasks import RetrievalTask, StudyData
from nas.alignment.mapping import Encoder, encoder_of
from nas.deployment.opening import is_saved, open_query_model, open_saved
from nas.deployment.write import Exported, Source, write_model
from searchspaces import Projection, QueryModel, count_macs


class FrozenEncoder(Protocol):
    """An encoder at one resolution, which maps into a gallery space are fitted for."""

    @property
    def resolution(self) -> int:
        """Side of its square input in pixels."""

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 features (n, f) of uint8 pictures (n, r, r, 3)."""

    def macs(self, projection: Projection) -> int | None:
        """Multiply-accumulates of one query with a map; None where they cannot be counted."""

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


def open_encoders(
    model: str,
    dimension: int,
    resolutions: Sequence[int] = (),
    *,
    pretrained: bool = True,
    checkpoint: str | None = None,
    seed: int = 0,
) -> Iterator[FrozenEncoder]:
    """Open the encoder that a user names, at one resolution after another.

    Args:
        model: ``timm:NAME``, ``NAME``, or a saved query model, .safetensors.
        dimension: Number of dimensions of the gallery space.
        resolutions: Sides of its input in pixels; its own when empty.
        pretrained: Whether a timm model has its published weights.
        checkpoint: File with a timm model's weights instead.
        seed: For what starts at random.

    Raises:
        StudyError, SearchSpaceError, PruningError: As `nas.deployment.opening`.
    """
    for resolution in resolutions or (None,):
        if is_saved(model):
            found = open_saved(model, resolution=resolution, checkpoint=checkpoint)
        else:
            found = open_query_model(
                model,
                dimension,
                resolution=resolution,
                pretrained=pretrained,
                checkpoint=checkpoint,
                seed=seed,
            )
        yield BackboneEncoder(found.to(pick_device()).eval())

"""A frozen encoder and a gallery: its features, computed once, and maps fitted to them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from compat.adaptation import FittedMap, MapName, Pairs, fit_map
from compat.device import pick_device
from compat.embedding import embed
from compat.evaluation import Retrieved
from compat.evaluation.collapse import directed
from compat.tasks import RetrievalTask, StudyData
from compat.tasks.embedded import Embedded
from nas.alignment.start import chosen_rows
from searchspaces import PooledFeatures, Projection, QueryModel, folded

logger = logging.getLogger("querynas")

Encoder = Callable[[np.ndarray], np.ndarray]
"""uint8 pictures (n, r, r, 3) to float32 features (n, f)."""

_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder makes of a study's pictures at one resolution.

    Attributes:
        pairs: Features and gallery vectors of the training pictures, views among them.
        mixed: (m,) bool: which of these show parts of two images.
        queries: (q, f) features of the validation queries.
        val: The task that they ask.
    """

    pairs: Pairs
    mixed: np.ndarray
    queries: np.ndarray
    val: RetrievalTask

    def first(self, width: int) -> "Encoded":
        """The same with no more than so many of the features, the first ones."""
        pairs = Pairs(self.pairs.features[:, :width], self.pairs.vectors)
        return Encoded(pairs, self.mixed, self.queries[:, :width], self.val)

    @cached_property
    def gains_by_mixed(self) -> bool:
        """Whether mixed views make a ridge map better, by the validation queries."""
        if not self.mixed.any():
            return False
        maps = (fit_map("ridge", p, self.cross_test, seed=0) for p in (self.pairs, self._alone))
        together, alone = (each.found.map for each in maps)
        return together > alone

    @property
    def _alone(self) -> Pairs:
        return Pairs(self.pairs.features[~self.mixed], self.pairs.vectors[~self.mixed])

    def cross_test(self, projection: Projection) -> Retrieved:
        """The cross-test of the validation queries under a projection."""
        return self.val.cross_test(projected(projection, self.queries))

    def fit(self, names: Sequence[MapName], *, seed: int) -> list[FittedMap]:
        """Fit maps to the training pictures; validation scores them, and chooses within one.

        Mixed views are among these pictures where they make a ridge map better.
        """
        pairs = self.pairs if self.gains_by_mixed or not self.mixed.any() else self._alone
        return [fit_map(name, pairs, self.cross_test, seed=seed) for name in names]


def encode(
    encoder: Encoder,
    resolution: int,
    data: StudyData,
    further: Sequence[Embedded] = (),
    *,
    seed: int,
) -> Encoded:
    """Compute the features of the training pictures and of the validation queries.

    Args:
        encoder: The frozen encoder.
        resolution: Side of its pictures in pixels.
        data: Pictures and gallery vectors of a study.
        further: More training pictures with vectors of the same space, as alignments have them.
        seed: Of the choice of training pictures, where they are more than maps need.
    """
    training = data.training(resolution, further)
    rows = chosen_rows(training, seed=seed)
    pixels, asking = data.val.pixels(resolution), data.val.retrieval.queries
    with tqdm(
        total=len(rows) + len(asking), desc=f"features at {resolution} px", unit="images"
    ) as bar:

        def features(pictured: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
            parts = []
            for part in _parts(rows):
                parts.append(encoder(pictured(part)))
                bar.update(len(part))
            return np.concatenate(parts)

        of_training = features(training.pictured, rows)
        of_queries = features(lambda part: np.asarray(pixels[part]), asking)
    vectors = training.targets.vectors[torch.from_numpy(rows)].numpy()
    mixed = rows >= len(training) * (len(training.pictures) - training.mixed)
    return Encoded(Pairs(of_training, vectors), mixed, of_queries, data.val)


def gains_by_mixed(
    model: QueryModel, data: StudyData, further: Sequence[Embedded], *, seed: int
) -> bool:
    """Return whether mixed views make the ridge map of a network's features better.

    Where they did, in all that was measured, they made trainings better too, and else worse
    (docs/photographs.md).

    Args:
        model: The network, before it is trained; in evaluation mode afterwards.
        data: Pictures and gallery vectors of a study; the validation queries judge.
        further: More training pictures.
        seed: Of the choice of training pictures, where they are more than maps need.
    """
    encoder = encoder_of(model.to(pick_device()).eval())
    gains = encode(encoder, model.resolution, data, further, seed=seed).gains_by_mixed
    logger.info(
        "Mixed views make a ridge map %s, so trainings %s.",
        *(("better", "see them") if gains else ("no better", "leave them out")),
    )
    return gains


def encoder_of(model: QueryModel) -> Encoder:
    """Return the backbone of a query model as an encoder, where its weights lie."""
    pooled, device = PooledFeatures(model), model.mean.device

    def encoder(pixels: np.ndarray) -> np.ndarray:
        with folded(model):
            return embed(pooled, pixels, device=device, description=None)

    return encoder


@torch.inference_mode()
def projected(projection: Projection, features: np.ndarray) -> np.ndarray:
    """Map features (n, f) to unit vectors (n, d) float32; those that are zero share a direction."""
    return directed(F.normalize(projection.eval()(torch.from_numpy(features)), dim=-1).numpy())


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]

"""Training pictures with the gallery vectors that they are aligned to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from compat.images import as_images, to_float
from compat.targets import AlignmentTargets, Batch


@dataclass(frozen=True, eq=False)
class Joined:
    """Pictures of several arrays, each (n_i, r, r, 3), one behind the other and not copied."""

    parts: tuple[np.ndarray, ...]

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        number = int(np.searchsorted(self._ends, index, side="right"))
        picture: np.ndarray = self.parts[number][index - self._ends[number]]
        return picture


def joined(parts: Sequence[np.ndarray]) -> np.ndarray | Joined:
    """Return arrays of pictures as one."""
    return parts[0] if len(parts) == 1 else Joined(tuple(parts))


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training pictures with the gallery vectors that they are aligned to.

    Attributes:
        pictures: One array per view, the first being the plain images; each uint8
            (N, resolution, resolution, 3), memory-mapped.
        targets: Gallery vectors and labels of view-major rows: row v·N + i is view v of image i.
        further: How many of the N, the last ones, stand beside those of the data set.
        mixed: How many views, the last ones, show a part of another image too, and so have no
            label.
    """

    pictures: tuple[np.ndarray | Joined, ...]
    targets: AlignmentTargets
    further: int = 0
    mixed: int = 0

    def __len__(self) -> int:
        return len(self.pictures[0])

    @property
    def own(self) -> int:
        """How many images are of the data set."""
        return len(self) - self.further

    @property
    def shown(self) -> int:
        """How many images an epoch shows."""
        return self.own + min(self.own, self.further)

    def epoch(
        self, size: int, *, seed: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Yield every image once, in a seeded order and each in a seeded choice of view.

        Of ``further`` images no more than of the others, drawn anew for every epoch: they are there
        for variety, and may be of another kind. Where there are mixed views, half of all are mixed.

        Images come as float32 (B, 3, S, S) in [0, 1], channels last; the last incomplete batch
        is left out, unless it is the only one.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(self._drawn(rng))
        views = rng.integers(len(self.pictures) - self.mixed, size=len(self))
        if self.mixed:
            mixed = len(self.pictures) - self.mixed + rng.integers(self.mixed, size=len(self))
            views = np.where(rng.random(len(self)) < 0.5, mixed, views)
        for start in range(0, max(1, len(order) - size + 1), size):
            chosen = order[start : start + size]
            rows = views[chosen] * len(self) + chosen
            images = to_float(as_images(self.pictured(rows)), device)
            yield images, self.targets.batch(torch.from_numpy(rows).to(device))

    def alone(self) -> "TrainingSet":
        """Return the same set without mixed views, for losses that need labels."""
        if not self.mixed:
            return self
        pictures = self.pictures[: -self.mixed]
        rows = len(pictures) * len(self)
        targets = self.targets
        targets = AlignmentTargets(
            targets.vectors[:rows], targets.gallery, targets.labels[:rows], targets.classifier
        )
        return TrainingSet(pictures, targets, self.further)

    def pictured(self, rows: np.ndarray) -> np.ndarray:
        """Return the pictures of view-major rows (n,), uint8 (n, size, size, 3)."""
        view, image = np.divmod(rows, len(self))
        return np.stack([self.pictures[v][i] for v, i in zip(view, image, strict=True)])

    def to(self, device: torch.device) -> "TrainingSet":
        """Return the same set with its targets on ``device``."""
        return replace(self, targets=self.targets.to(device))

    def sample(self, count: int, *, seed: int, further: bool = True) -> tuple[np.ndarray, Tensor]:
        """Return ``count`` plain training images, seeded, and their unit gallery vectors.

        Images are uint8 (count, resolution, resolution, 3), vectors float32 (count, d). Without
        ``further`` all are of the data set.
        """
        rng = np.random.default_rng(seed)
        among = self._drawn(rng) if further else np.arange(self.own)
        rows = np.sort(rng.permutation(among)[:count])
        return self.pictured(rows), self.targets.gallery[torch.from_numpy(rows)]

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        """The images of one epoch: all of the data set, and at most as many others."""
        others = self.own + rng.permutation(self.further)
        return np.concatenate([np.arange(self.own), others[: self.own]])

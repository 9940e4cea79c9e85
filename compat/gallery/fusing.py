"""Asymmetric feature fusion: several galleries of the same images mixed into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from compat.errors import CompatError
from compat.gallery.sealing import check_absent
from compat.gallery.space import GallerySpace
from compat.gallery.stored import StoredVectors, stored_vectors
from searchspaces.support.seeding import seeded

if TYPE_CHECKING:
    from compat.gallery.heads import DynamicMixer, HeadTraining

SCALE, MARGIN = 32.0, 0.2  # of ArcFace, as those of the loss `aff`


def fuse_galleries(
    sources: Sequence[GallerySpace],
    out: str | Path,
    *,
    dimension: int | None = None,
    train: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    training: HeadTraining | None = None,
) -> GallerySpace:
    """Train a mixer of several galleries on their stored vectors, and write what it makes of them.

    The gallery side of asymmetric feature fusion (Wu et al., CVPR 2023) alone: a `DynamicMixer`
    under ArcFace with a classifier ψ_mix over the training classes. The new gallery is searched by
    cosine, its classifier is ψ_mix, and the mixer's weights lie beside the vectors. The galleries
    may be those of several models, layers or resolutions.

    Args:
        sources: Two galleries or more of the same images, with the same views.
        out: New folder.
        dimension: Of the new gallery; that of the first source if None.
        train, labels: Which rows are learnt from and what they show, as in `stored_vectors`.
        training: How the mixer is trained.

    Raises:
        CompatError: As `stored_vectors` and `derive_gallery`, and for less than two galleries.
    """
    import torch

    from compat.gallery.heads import DynamicMixer, HeadTraining, train_head
    from compat.losses.margin import ArcFace

    check_fusion(sources)
    check_absent(Path(out))
    stored = stored_vectors(sources, train, labels)
    training = training or HeadTraining()
    features = [torch.from_numpy(rows) for rows in stored.features]
    classes = torch.from_numpy(stored.labels)
    dimension = dimension or sources[0].dimension
    with seeded(training.seed):
        mixer = DynamicMixer([space.dimension for space in sources], dimension)
        psi = ArcFace(dimension, len(stored.classes), scale=SCALE, margin=MARGIN)
    train_head(
        torch.nn.ModuleList([mixer, psi]),
        lambda rows: psi(mixer(*(x[rows] for x in features)), classes[rows]),
        len(stored.labels),
        training,
        title="training the mixer",
    )
    weights = psi.weight.detach().numpy()
    return write_fused(stored, out, mixer, weights, {"jointly": None, "seed": training.seed})


def check_fusion(sources: Sequence[GallerySpace]) -> None:
    """Raise CompatError unless there are galleries to mix."""
    if len(sources) < 2:
        raise CompatError(
            f"There is nothing to fuse in {len(sources)} gallery: name two or more of the same "
            "images."
        )


def write_fused(
    stored: StoredVectors,
    out: str | Path,
    mixer: DynamicMixer,
    weights: np.ndarray,
    how: Mapping[str, Any],
) -> GallerySpace:
    """Write the gallery that a trained mixer makes.

    Args:
        stored: What it was trained on.
        out: New folder.
        mixer: The mixer.
        weights: ψ_mix, (C, d).
        how: What the gallery's description says of the training.
    """
    from compat.gallery.heads import as_arrays, as_transform

    return stored.derive(
        out,
        as_transform(mixer),
        weights=weights / np.linalg.norm(weights, axis=1, keepdims=True),
        derivation={"step": "fuse", "dimension": weights.shape[1], **how},
        learned=as_arrays(mixer, "mixer"),
    )

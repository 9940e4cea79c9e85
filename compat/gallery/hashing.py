"""Central similarity consistency hashing: a gallery of ±1 codes out of a gallery of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from compat.errors import CompatError
from compat.gallery.centres import assign_centres, draw_centres
from compat.gallery.deriving import check_plain
from compat.gallery.sealing import check_absent
from compat.gallery.space import GallerySpace
from compat.gallery.stored import StoredVectors, stored_vectors
from searchspaces.support.seeding import seeded

if TYPE_CHECKING:
    from compat.gallery.heads import HashHead, HeadTraining

SCALE, MARGIN = 8.0, 0.2  # of the softmax over centres, as those of the loss `csch`


def hash_gallery(
    source: GallerySpace,
    out: str | Path,
    *,
    bits: int,
    train: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    training: HeadTraining | None = None,
) -> GallerySpace:
    """Train a hash head on a gallery's stored vectors, and write the codes that it makes of them.

    The gallery side of central similarity consistency hashing (Xuan et al., Computational Visual
    Media, doi:10.1007/s41095-024-0428-y) alone: Linear and BatchNorm under the softmax with an
    additive cosine margin (s 8, m .2) to one hash centre per training class. The centres steer the
    training only; every image, of whatever class, is coded by the signs of the head. The new
    gallery is searched by Hamming distance, its classifier are the centres, and the head's weights
    lie beside the codes.

    Args:
        source: The gallery.
        out: New folder.
        bits: k, the length of the codes and the dimension of query models aligned to them.
        train, labels: Which rows are learnt from and what they show, as in `stored_vectors`.
        training: How the head is trained; its seed also draws the centres.

    Raises:
        CompatError: As `stored_vectors`, `draw_centres` and `derive_gallery`.
    """
    import torch

    from compat.gallery.heads import HashHead, HeadTraining, train_head
    from compat.losses.margin import cosface

    check_plain(source)
    check_absent(Path(out))
    stored = stored_vectors([source], train, labels)
    training = training or HeadTraining()
    centres = class_centres(stored, bits, seed=training.seed)
    targets = torch.from_numpy(centres)
    features, classes = torch.from_numpy(stored.features[0]), torch.from_numpy(stored.labels)
    with seeded(training.seed):
        head = HashHead(source.dimension, bits)
    train_head(
        head,
        lambda rows: cosface(
            head(features[rows]), targets, classes[rows], scale=SCALE, margin=MARGIN
        ),
        len(classes),
        training,
        title="training the hash head",
    )
    return write_hashed(stored, out, head, centres, {"jointly": None, "seed": training.seed})


def class_centres(stored: StoredVectors, bits: int, *, seed: int) -> np.ndarray:
    """The hash centre of every training class, (C, bits) float32 of +1 and -1."""
    if bits < 1:
        raise CompatError(f"Codes cannot have {bits} bits: give a length of 1 or more.")
    return assign_centres(draw_centres(len(stored.classes), bits, seed=seed), stored.means())


def write_hashed(
    stored: StoredVectors,
    out: str | Path,
    head: HashHead,
    centres: np.ndarray,
    how: Mapping[str, Any],
) -> GallerySpace:
    """Write the gallery of codes that a trained head makes.

    Args:
        stored: What it was trained on.
        out: New folder.
        head: The head.
        centres: Of the training classes, (C, k).
        how: What the gallery's description says of the training.
    """
    from compat.gallery.heads import as_arrays, as_transform

    return stored.derive(
        out,
        as_transform(head),
        weights=centres,
        bits=centres.shape[1],
        derivation={"step": "hash", "bits": centres.shape[1], **how},
        learned=as_arrays(head, "head"),
    )

"""Gallery side and a reference query model trained together, then the gallery written from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compat.device import pick_device
from compat.gallery import GallerySpace
from compat.gallery.deriving import check_plain
from compat.gallery.fusing import check_fusion, write_fused
from compat.gallery.hashing import class_centres, write_hashed
from compat.gallery.heads import DynamicMixer, HashHead
from compat.gallery.sealing import check_absent
from compat.gallery.stored import StoredVectors, stored_vectors
from compat.images import resize
from compat.losses import CompatibilityLoss, create_loss
from compat.losses.aff import AFF
from compat.targets import AlignmentTargets, Batch
from compat.tasks.study_data import StudyData
from compat.tasks.training_set import TrainingSet
from compat.training import TrainingConfig, align
from nas.errors import StudyError
from pruning import save_model
from searchspaces import QueryModel, timm_query_model
from searchspaces.support.seeding import seeded


@dataclass(frozen=True)
class Reference:
    """The query model that a gallery side is trained with.

    Attributes:
        backbone: Name of a timm model.
        resolution: Side of its square input in pixels.
        training: Epochs, batch, learning rate.
        pretrained: Whether to start from timm's published weights.
        seed: Of weights, centres and order.
        out: File to keep the trained query model in, ``.safetensors``; None for nowhere.
    """

    backbone: str
    resolution: int
    training: TrainingConfig
    pretrained: bool = True
    seed: int = 0
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.out is not None and self.out.suffix != ".safetensors":
            raise StudyError(f"The query model's file '{self.out}' must end in .safetensors.")


def fuse_jointly(
    data: StudyData,
    others: Sequence[GallerySpace],
    out: str | Path,
    reference: Reference,
    *,
    dimension: int | None = None,
) -> GallerySpace:
    """Train a mixer of several galleries with a query model, and write the gallery it makes.

    The joint form of asymmetric feature fusion: the loss `aff` with ψ_mix and its moving average.

    Args:
        data: The data set and the first gallery.
        others: The other galleries of the same images.
        out: New folder.
        reference: The query model and how both are trained.
        dimension: Of the new gallery; that of the first gallery if None.

    Raises:
        CompatError: As `compat.gallery.fuse_galleries`, and when the loss stops being finite.
    """
    spaces = [data.gallery, *others]
    check_fusion(spaces)
    check_absent(Path(out))
    data, stored = _training_part(data, spaces)
    dimension = dimension or data.gallery.dimension
    with seeded(reference.seed):
        mixer = DynamicMixer([space.dimension for space in spaces], dimension)
    loss = _train(data, stored, mixer, "aff", None, dimension, reference)
    assert isinstance(loss, AFF)
    assert loss.mixed_weight is not None
    weights = loss.mixed_weight.detach().cpu().numpy()
    return write_fused(stored, out, mixer, weights, _how(reference))


def hash_jointly(
    data: StudyData, out: str | Path, reference: Reference, *, bits: int
) -> GallerySpace:
    """Train a hash head on a gallery with a query model, and write the codes it makes.

    The joint form of central similarity consistency hashing: the loss `csch` for both sides.

    Args:
        data: The data set and the gallery.
        out: New folder.
        reference: The query model and how both are trained.
        bits: Length of the codes.

    Raises:
        CompatError: As `compat.gallery.hash_gallery`, and when the loss stops being finite.
    """
    check_plain(data.gallery)
    check_absent(Path(out))
    data, stored = _training_part(data, [data.gallery])
    centres = class_centres(stored, bits, seed=reference.seed)
    with seeded(reference.seed):
        head = HashHead(data.gallery.dimension, bits)
    _train(data, stored, head, "csch", centres, bits, reference)
    return write_hashed(stored, out, head, centres, _how(reference))


def training_rows(data: StudyData) -> tuple[np.ndarray, np.ndarray]:
    """Gallery rows (n,) of the training images, and their labels (n,), -1 for none.

    Labels are the gallery's where it has any, since its classes are named by them.
    """
    images = data.images.take(data.splits.train)
    rows = data.gallery.rows(images.ids)
    own = data.gallery.labels
    return rows, images.labels if own is None else np.asarray(own[rows])


class _Sides(nn.Module):
    def __init__(self, query: QueryModel, gallery: nn.Module) -> None:
        super().__init__()
        self.query = query
        self.gallery = gallery


def _train(
    data: StudyData,
    stored: StoredVectors,
    head: nn.Module,
    name: str,
    classifier: np.ndarray | None,
    dimension: int,
    reference: Reference,
) -> CompatibilityLoss:
    """Train ``head`` in place with a query model; the loss comes back with what it has learnt."""
    features = tuple(torch.from_numpy(rows) for rows in stored.features)
    with torch.no_grad():  # a place in the new space for everything, before it is trained
        start = head.eval()(*features)
    targets = AlignmentTargets(
        vectors=start,
        gallery=start[: stored.images],
        labels=torch.from_numpy(stored.labels),
        classifier=None if classifier is None else torch.from_numpy(classifier),
        features=features,
    )
    device = pick_device()
    pictures = data.training(reference.resolution).alone().pictures
    training = TrainingSet(pictures, targets).to(device)
    loss = create_loss(name, training.targets, seed=reference.seed)
    with seeded(reference.seed):
        query = timm_query_model(
            reference.backbone,
            dimension,
            resolution=reference.resolution,
            pretrained=reference.pretrained,
        )
    sides = _Sides(query, head)

    def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
        embeddings = sides.query(resize(images, reference.resolution)).float()
        with torch.autocast(images.device.type, enabled=False):
            target = sides.gallery(*(rows[batch.rows] for rows in batch.targets.features))
            yield loss(embeddings, target, batch)

    align(
        sides,
        losses,
        training,
        reference.training,
        loss=loss,
        seed=reference.seed,
        device=device,
        title="train both sides",
    )
    if reference.out is not None:
        save_model(query.cpu(), reference.out)
    return loss


def _training_part(
    data: StudyData, spaces: Sequence[GallerySpace]
) -> tuple[StudyData, StoredVectors]:
    """The data with its labelled training images only, and their vectors in the same order."""
    rows, labels = training_rows(data)
    kept = np.flatnonzero(labels >= 0)
    splits = replace(data.splits, train=data.splits.train[kept])
    return replace(data, splits=splits), stored_vectors(spaces, rows[kept], labels[kept])


def _how(reference: Reference) -> dict[str, object]:
    return {
        "jointly": reference.backbone,
        "resolution": reference.resolution,
        "training": reference.training.model_dump(mode="json"),
        "seed": reference.seed,
    }

"""Alignment while channels fade out, and the losses by which channels are judged."""

from collections.abc import Callable, Iterator
from itertools import islice

from torch import Tensor

from compat.images import resize
from compat.losses import create_loss
from compat.training.config import TrainingConfig
from nas.alignment.aligner import Aligner
from pruning import fading, removed_weights
from searchspaces import QueryModel


def fade(
    aligner: Aligner,
    model: QueryModel,
    pruned: QueryModel,
    training: TrainingConfig,
    *,
    title: str,
    quiet: bool = False,
) -> None:
    """Align a model in place while the channels that ``pruned`` lacks fade out.

    The last epoch is kept and not the best one, which would be the first.
    """
    training = training.model_copy(update={"validate_every": training.epochs})
    steps = training.epochs * max(1, len(aligner.data) // training.batch)
    with fading(model, removed_weights(model, pruned), steps):
        aligner.align(model, training, title=title, quiet=quiet)


def compatibility_losses(
    aligner: Aligner, *, batches: int, size: int
) -> Callable[[QueryModel], Iterator[Tensor]]:
    """Return the compatibility loss of a model on some training batches, for its importance.

    Only training pictures and their stored gallery vectors are looked at.

    Args:
        aligner: The alignment set-up, whose loss it is.
        batches: Number of batches.
        size: Images of a batch.
    """
    loss = create_loss(aligner.loss, aligner.data.targets, seed=aligner.seed)
    loss.to(aligner.device).eval()

    def losses(model: QueryModel) -> Iterator[Tensor]:
        drawn = aligner.data.epoch(size, seed=aligner.seed, device=aligner.device)
        for images, batch in islice(drawn, batches):
            query = model(resize(images, model.resolution))
            yield loss(query, batch.targets.vectors[batch.rows], batch)

    return losses

"""Alignment while channels fade out."""

from compat.training import TrainingConfig
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
        aligner.align(model, training, from_start=False, title=title, quiet=quiet)

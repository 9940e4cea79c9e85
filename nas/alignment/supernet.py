"""Training of a supernet: its subnetworks share the steps, the weights and the targets."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from compat.images import resize
from compat.losses import CompatibilityLoss, Regression
from compat.targets import Batch
from compat.training import Fitted, Losses, align
from nas.alignment.aligner import Aligner
from nas.alignment.subnetworks import SubnetworkDraws
from nas.config.study import SupernetTraining
from searchspaces import Architecture, Supernet

_GLIMPSE = 4  # one image in so many shows which of several subnetworks has the lowest loss


def train_supernet(
    aligner: Aligner,
    supernet: Supernet,
    config: SupernetTraining,
    *,
    random_subnetworks: int,
    calibration: int,
    pretrained: bool = False,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train a supernet in place towards the gallery vectors; keep its best epoch.

    The best epoch is the one with the highest mean cross-test of the largest and the smallest
    subnetwork of the whole space, their BatchNorm statistics re-estimated.

    Args:
        aligner: The alignment set-up of the study.
        supernet: The network with the shared weights.
        config: How to train.
        random_subnetworks: Subnetworks drawn in each step besides the largest and the smallest.
        calibration: Training images from which BatchNorm statistics are re-estimated.
        pretrained: Whether the weights were trained before; then all subnetworks keep the BatchNorm
            statistics that came with them, where the study wants it so.
        checkpoint: File that keeps the state, as in `compat.training.align`.

    Raises:
        CompatError: As `compat.training.align`.
    """
    loss = aligner.new_loss()
    draws = SubnetworkDraws(
        supernet.space,
        supernet.dimension,
        aligner.seed,
        sampling=config.sampling,
        progressive=config.progressive,
    )
    ends = (supernet.space.largest(), supernet.space.smallest())

    def validate(module: nn.Module) -> float:
        assert isinstance(module, Supernet)
        slices = [aligner.slice(module, end, calibration, pretrained=pretrained) for end in ends]
        return sum(aligner.cross_test(model) for model in slices) / len(slices)

    return align(
        supernet,
        sandwich_losses(
            supernet,
            loss,
            draws,
            random_subnetworks=random_subnetworks,
            distill=config.distill,
            steps=config.epochs * max(1, len(aligner.data) // config.batch),
        ),
        aligner.data,
        config,
        loss=loss,
        seed=aligner.seed,
        device=aligner.device,
        validate=validate,
        checkpoint=checkpoint,
        keep_statistics=pretrained and aligner.keeps_statistics,
        title="train supernet",
    )


def sandwich_losses(
    supernet: Supernet,
    loss: CompatibilityLoss,
    draws: SubnetworkDraws,
    *,
    random_subnetworks: int,
    distill: float,
    steps: int,
) -> Losses:
    """Return the losses of a step by the sandwich rule: largest, smallest, drawn subnetworks.

    All are trained towards the same gallery vectors (Yu and Huang, "Universally slimmable
    networks and improved training techniques", ICCV 2019, give the rule; Yu et al., "BigNAS",
    ECCV 2020, take it to whole search spaces). Both papers also distil in place: the other
    subnetworks learn from the largest one's output of the same step, and from that alone. Here
    they learn from both, with t the largest one's embedding and q their own:

        (1 - distill) · loss + distill · mean(1 - q·t)

    No gradient flows into t.

    Args:
        supernet: The network with the shared weights.
        loss: The compatibility loss.
        draws: What draws the subnetworks.
        random_subnetworks: How many it draws in each step.
        distill: Weight of the largest subnetwork's embeddings, 0 to 1.
        steps: Length of the whole training.
    """
    distance = Regression()

    def embed(images: Tensor, architecture: Architecture) -> Tensor:
        supernet.activate(architecture)
        return supernet(resize(images, int(architecture.params["resolution"])))

    def losses(images: Tensor, batch: Batch, step: int) -> Iterator[Tensor]:
        def glimpse(architecture: Architecture) -> float:
            few = batch.targets.batch(batch.rows[: max(2, len(images) // _GLIMPSE)])
            query = embed(images[: len(few.rows)], architecture)
            loss.eval()
            value = loss(query, few.vectors, few)
            loss.train()
            return value.item()

        progress = step / steps
        ends = draws.ends(progress)
        drawn = draws.draw(step, random_subnetworks, progress=progress, loss=glimpse)
        teacher = None
        for architecture in [*ends, *drawn]:
            query = embed(images, architecture)
            value = loss(query, batch.vectors, batch)
            if teacher is None:
                teacher = query.detach()
            elif distill:
                value = (1 - distill) * value + distill * distance(query, teacher, batch)
            yield value / (2 + len(drawn))

    return losses

"""The one training loop, put together from small parts."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn
from tqdm import tqdm

from compat.errors import CompatError
from compat.training.average import MovingAverage
from compat.training.best import Best
from compat.training.checkpoint import Checkpoint, Stateful
from compat.training.descent import Descent
from searchspaces.support.seeding import seeded

Item = TypeVar("Item")


@dataclass(frozen=True)
class Course(Generic[Item]):
    """What a training sees, and for how long.

    Attributes:
        epochs: Number of epochs.
        steps: Batches of an epoch.
        batches: The batches of an epoch, counted from 1. They depend on that number alone, so that
            a resumed training sees the same ones.
        seed: Of what network and loss draw while they are trained, as in dropout: PyTorch's
            generators are seeded anew in every epoch, so that a resumed training draws the same,
            and are afterwards as they were.
        rest: Epochs from one rest to the next: there, and at the end, models are scored and the
            state is kept.
        from_start: Whether the network as it comes is scored too, as epoch 0, so that no training
            ends below its own start.
    """

    epochs: int
    steps: int
    batches: Callable[[int], Iterable[Item]]
    seed: int
    rest: int = 1
    from_start: bool = True


def fit(
    trained: nn.Module,
    losses: Callable[[Item, int], Iterator[Tensor]],
    course: Course[Item],
    descent: Descent,
    *,
    title: str,
    remedy: str,
    average: MovingAverage | None = None,
    best: Best | None = None,
    checkpoint: Checkpoint | None = None,
    to_training: Callable[[nn.Module], object] = nn.Module.train,
    quiet: bool = False,
) -> None:
    """Train in place.

    Args:
        trained: All that has weights or other state: the network, and the loss it learns by.
        losses: ``losses(batch, step)`` yields the scalar losses of a batch, each sent backward at
            once, so that only one graph lives in memory. Steps count from 0 over all epochs.
        course: The batches.
        descent: How a step changes the weights.
        title: Words for the progress bar and for errors.
        remedy: What to do about a loss that is not finite.
        average: What follows the weights from step to step.
        best: What scores models at every rest and keeps the best weights.
        checkpoint: Where the state is kept at every rest, so that a killed training continues. Its
            file is left to the caller, who removes it when the result is stored.
        to_training: Puts ``trained`` in training mode, before each epoch.
        quiet: Whether to show no bar, for trainings of a few steps inside another bar.

    Raises:
        CompatError: The loss became NaN or infinite, or the checkpoint cannot be continued.
    """
    parts: dict[str, Stateful] = {"trained": trained, "descent": descent}
    parts |= {} if average is None else {"average": average}
    parts |= {} if best is None else {"best": best}
    done = 0
    if checkpoint is not None:
        done = checkpoint.load(parts, descent.device, epochs=course.epochs)
        descent.advance(done * course.steps)
    if best is not None and course.from_start and not done:
        best.look(0)
    progress = tqdm(
        total=course.epochs * course.steps,
        initial=done * course.steps,
        desc=title,
        unit="step",
        disable=quiet,
    )
    for epoch in range(done + 1, course.epochs + 1):
        to_training(trained)
        with seeded(course.seed + epoch, descent.device):
            for step, batch in enumerate(course.batches(epoch), start=(epoch - 1) * course.steps):
                value = descent.step(losses(batch, step))
                if not math.isfinite(value):
                    begun = checkpoint is not None and checkpoint.path.exists()
                    also = f", and delete '{checkpoint.path}'" if checkpoint and begun else ""
                    raise CompatError(
                        f"The loss of '{title}' became {value} in epoch {epoch}; {remedy}{also}."
                    )
                if average is not None:
                    average.update()
                progress.update()
                progress.set_postfix(loss=f"{value:.4f}", refresh=False)
        if epoch % course.rest == 0 or epoch == course.epochs:
            if best is not None:
                progress.set_postfix_str(f"loss={value:.4f} val={best.look(epoch):.4f}")
            if checkpoint is not None:
                checkpoint.save(parts, epoch)
    progress.close()

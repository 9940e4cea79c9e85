"""Schedules: in which order a model is cut, trained and cut again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compat.training.config import TrainingConfig


@dataclass(frozen=True)
class Step:
    """One step of a schedule; what it leaves is kept on disk.

    Attributes:
        name: What the model is after it.
        training: The alignment at the end of the step; None for none.
        cut_to: Figure (MACs, parameters or seconds) that the model is cut to first.
        fade_to: Figure of a cut to come, whose channels fade out during the training.
    """

    name: str
    training: TrainingConfig | None
    cut_to: float | None = None
    fade_to: float | None = None


@dataclass(frozen=True)
class Trainings:
    """The alignments that schedules are made of.

    Attributes:
        rounds: Number of rounds.
        realign: The alignment after a cut, with the epochs of one round.
        finish: The alignment of the pruned model; None for none.
    """

    rounds: int
    realign: TrainingConfig
    finish: TrainingConfig | None

    @property
    def epochs(self) -> int:
        """Epochs of all rounds."""
        return self.rounds * self.realign.epochs

    def lasting(self, epochs: int) -> TrainingConfig:
        """Return an alignment of so many epochs, at least one."""
        return self.realign.model_copy(update={"epochs": max(1, epochs)})

    def last(self) -> list[Step]:
        """Return the step after the last cut."""
        return [] if self.finish is None else [Step("finished", self.finish)]


def one_shot(uncut: float, target: float, trainings: Trainings) -> list[Step]:
    """Cut once, then align for as long as the other schedules do in all."""
    return [Step("cut", trainings.lasting(trainings.epochs), cut_to=target), *trainings.last()]


def iterative(uncut: float, target: float, trainings: Trainings) -> list[Step]:
    """Cut and re-align in rounds, each of which takes the same share of what is left.

    The importance of channels is estimated anew in every round.
    """
    rounds = trainings.rounds
    return [
        Step(
            f"round {i} of {rounds}",
            trainings.realign,
            cut_to=uncut * (target / uncut) ** (i / rounds) if i < rounds else target,
        )
        for i in range(1, rounds + 1)
    ] + trainings.last()


def growing(uncut: float, target: float, trainings: Trainings) -> list[Step]:
    """Let the least important channels fade out in half of the epochs, cut them, align.

    Both halves take one epoch at least.
    Wang et al., "Neural pruning via growing regularization", ICLR 2021.
    """
    fading = max(1, trainings.epochs // 2)
    return [
        Step("faded", trainings.lasting(fading), fade_to=target),
        Step("cut", trainings.lasting(trainings.epochs - fading), cut_to=target),
        *trainings.last(),
    ]


SCHEDULES: Mapping[str, Callable[[float, float, Trainings], list[Step]]] = {
    "one_shot": one_shot,
    "iterative": iterative,
    "growing": growing,
}

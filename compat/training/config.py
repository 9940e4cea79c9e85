"""How a network is trained, as a study file says it."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from searchspaces.support.section import Section

Epochs = Annotated[int, Field(ge=1, le=100_000)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
Training = TypeVar("Training", bound="TrainingConfig")


class TrainingConfig(Section):
    """One alignment training: AdamW towards the gallery vectors.

    An epoch shows every training image once, each time in one of its embedded views. Precision
    "auto" is bfloat16 on CUDA and float32 on the CPU; "bf16" asks for bfloat16 on CPUs that
    multiply it natively too, which doubles the speed of dense convolutions.
    """

    epochs: Epochs = 20
    batch: int = Field(128, ge=2, le=1_000_000)
    lr: LearningRate = 3e-3
    weight_decay: float = Field(0.02, ge=0, le=100)
    warmup: float = Field(0.15, ge=0, lt=1)
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    ema: float = Field(0.998, ge=0, lt=1)
    validate_every: Epochs = 5
    precision: Literal["auto", "fp32", "bf16"] = "auto"


PRETRAINED_LR = 1e-3
"""The peak rate of a network that starts from pretrained weights, where none is given."""


def of_pretrained(training: Training) -> Training:
    """Return a training of pretrained weights: gentler, unless it says itself at what rate."""
    return at_rate(training, min(training.lr, PRETRAINED_LR))


def at_rate(training: Training, lr: float) -> Training:
    """Return a training at another peak rate, unless it says itself at what rate."""
    if "lr" in training.model_fields_set:
        return training
    other = training.model_copy(update={"lr": lr})
    other.model_fields_set.discard("lr")  # it still does not say so itself
    return other

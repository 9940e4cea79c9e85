"""How a network is trained, as a study file says it."""

from typing import Literal

from pydantic import Field

from searchspaces.support.section import Section


class TrainingConfig(Section):
    """One alignment training: AdamW towards the gallery vectors.

    An epoch shows every training image once, each time in one of its embedded views. Precision
    "auto" is bfloat16 on CUDA and float32 on the CPU; "bf16" asks for bfloat16 on CPUs that
    multiply it natively too, which doubles the speed of dense convolutions.
    """

    epochs: int = Field(20, ge=1)
    batch: int = Field(128, ge=2)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup: float = Field(0.15, ge=0, lt=1)
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    ema: float = Field(0.998, ge=0, lt=1)
    validate_every: int = Field(5, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

"""The study file: what a search is told, validated before anything long begins."""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nas.budget import parse_macs
from nas.errors import StudyError

_ROUTES = ("supernet", "pruned", "standalone")

Objective = Literal[
    "macs",
    "parameters",
    "activations",
    "int8_bytes",
    "latency",
    "onnx_latency",
    "table_latency",
    "cross_test",
    "self_test",
    "product",
]
Proposer = Literal["nsga2", "nsga3", "tpe", "gp", "qmc", "random"]
Sampling = Literal["uniform", "fair", "macs", "attentive"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitConfig(_Section):
    """Class-disjoint parts; searches select on ``val``, tables report ``test``."""

    val: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.25, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training_classes(self) -> "SplitConfig":
        if self.val + self.test >= 1:
            raise StudyError("val and test together leave no classes to train on; lower them")
        return self


class TrainingConfig(_Section):
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


class SupernetTraining(TrainingConfig):
    """Training of a supernet, whose subnetworks share the steps.

    ``distill`` is the weight of the largest subnetwork's embeddings as targets of the others,
    ``sampling`` says how the random subnetworks are drawn, and ``progressive`` over which share
    of the training the choices open, from the largest subnetwork on.
    """

    epochs: int = Field(40, ge=1)
    distill: float = Field(0.0, ge=0, le=1)
    sampling: Sampling = "uniform"
    progressive: float = Field(0.0, ge=0, lt=1)


class RealignTraining(TrainingConfig):
    """A short training after a cut."""

    epochs: int = Field(2, ge=1)
    lr: float = Field(1e-3, gt=0)
    ema: float = Field(0.95, ge=0, lt=1)


class FinishTraining(TrainingConfig):
    """Further training of a model that is in the gallery space already."""

    lr: float = Field(1.5e-3, gt=0)


class SupernetConfig(_Section):
    """Candidates sliced out of one supernet trained by the sandwich rule."""

    route: Literal["supernet"]
    space: str = "mbconv"
    options: dict[str, Any] = Field(default_factory=dict)
    kernel_transform: bool = False
    random_subnetworks: int = Field(2, ge=0)
    calibration_images: int = Field(1024, ge=2)
    training: SupernetTraining = SupernetTraining()


class PrunedConfig(_Section):
    """Candidates cut out of one aligned timm backbone by torch-pruning."""

    route: Literal["pruned"]
    backbone: str
    pretrained: bool = True
    checkpoint: str | None = None
    pooling: Literal["avg", "gem"] = "avg"
    options: dict[str, Any] = Field(default_factory=dict)
    calibration_images: int = Field(1024, ge=2)
    training: TrainingConfig = TrainingConfig()
    realign: RealignTraining = RealignTraining()


class StandaloneConfig(_Section):
    """Candidates of any registered search space, each aligned alone from a random start."""

    route: Literal["standalone"]
    space: str
    options: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()


RouteConfig = Annotated[
    SupernetConfig | PrunedConfig | StandaloneConfig, Field(discriminator="route")
]


class RungConfig(_Section):
    """After the search: up to ``models`` promising candidates are aligned on, alone."""

    models: int = Field(0, ge=0)
    training: FinishTraining = FinishTraining()


class ScreenConfig(_Section):
    """Proposals whose chance to stand on the front is below ``doubt`` are not scored.

    ``by`` is "surrogate" or a predictor of `compat.predictors`; it learns from at least ``after``
    scored candidates of a route.
    """

    by: str = "surrogate"
    after: int = Field(30, ge=5)
    doubt: float = Field(0.1, gt=0, lt=1)


class BudgetConfig(_Section):
    """Bounds on a candidate's costs, each called after the objective that it bounds.

    Counts and bytes understand '50M' and '1.2G'; latencies are milliseconds, '5ms' or 5.
    """

    min_macs: int | None = None
    max_macs: int | None = None
    max_parameters: int | None = Field(None, gt=0)
    max_activations: int | None = Field(None, gt=0)
    max_int8_bytes: int | None = Field(None, gt=0)
    max_latency: float | None = Field(None, gt=0)
    max_onnx_latency: float | None = Field(None, gt=0)
    max_table_latency: float | None = Field(None, gt=0)

    @field_validator(
        "min_macs", "max_macs", "max_parameters", "max_activations", "max_int8_bytes", mode="before"
    )
    @classmethod
    def _quantity(cls, value: Any) -> Any:
        return parse_macs(value.removesuffix("B")) if isinstance(value, str) else value

    @field_validator("max_latency", "max_onnx_latency", "max_table_latency", mode="before")
    @classmethod
    def _milliseconds(cls, value: Any) -> Any:
        return value.removesuffix("ms") if isinstance(value, str) else value


class StudyConfig(_Section):
    """Everything that defines a search study."""

    data: str
    gallery: str
    spaces: dict[str, RouteConfig] = Field(min_length=1)
    loss: str | dict[str, Any] = "regression"
    objectives: tuple[Objective, ...] = Field(("macs", "cross_test"), min_length=1, max_length=4)
    sampler: Proposer | None = Field(None, validate_default=True)
    trials: int = Field(100, ge=1)
    start: int = Field(16, ge=0)
    warm_start: str | None = None
    budget: BudgetConfig = BudgetConfig()
    latency_table: str | None = Field(None, validate_default=True)
    screen: ScreenConfig | None = None
    finish: tuple[RungConfig, ...] = ()
    split: SplitConfig = SplitConfig()
    imports: tuple[str, ...] = ()
    seed: int = 0

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, value: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if len(set(value)) < len(value):
            raise StudyError("an objective is named twice; remove it")
        return value

    @field_validator("sampler")
    @classmethod
    def _that_breeds_what_varies(cls, value: str | None, info: ValidationInfo) -> str:
        """Of several spaces, Optuna's genetic samplers breed the choice of the space alone."""
        several = len(info.data.get("spaces", ())) > 1
        return value or ("tpe" if several else "nsga2")

    @field_validator("finish", mode="before")
    @classmethod
    def _one_rung_alone(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict | RungConfig) else value

    @field_validator("latency_table")
    @classmethod
    def _given_where_needed(cls, value: str | None, info: ValidationInfo) -> str | None:
        bound = getattr(info.data.get("budget"), "max_table_latency", None)
        if value is None and ("table_latency" in info.data.get("objectives", ()) or bound):
            raise StudyError(
                "`table_latency` needs a file that `querynas latency calibrate` wrote; add it"
            )
        return value


def load_config(path: str | Path) -> StudyConfig:
    """Read and validate a study file; `$NAME` stands for an environment variable.

    Raises:
        StudyError: The file is missing, is not YAML, or a field is unknown (near matches are
            named), missing or of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"There is no study file '{path}'; give the path of a YAML file.")
    try:
        text = os.path.expandvars(path.read_text())
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"The study file '{path}' is not valid YAML: {error}.") from error
    unset = re.search(r"^[^#\n]*(\$\{?\w+\}?)", text, flags=re.MULTILINE)
    if unset is not None:
        raise StudyError(
            f"The study file '{path}' uses the environment variable {unset[1]}, which is not set; "
            "set it or write the path out."
        )
    if not isinstance(content, dict):
        raise StudyError(
            f"The study file '{path}' holds {type(content).__name__}, not a mapping of fields; "
            "see examples/facades.yaml."
        )
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: {_first_sentence(error)}") from error


def _first_sentence(error: ValidationError) -> str:
    """The first problem that pydantic found, in one sentence of ours."""
    problem = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    place = [part for part in problem["loc"] if part not in _ROUTES]
    field = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(place[-1]), sorted(_all_fields()), n=1)
            return f"Unknown field '{field}'; " + (
                f"did you mean {near[0]}?" if near else "remove it."
            )
        case "missing":
            return f"The field '{field}' is missing; add it."
        case "union_tag_not_found" | "union_tag_invalid":
            return f"The field '{field}' needs a `route`, one of {', '.join(_ROUTES)}."
        case "value_error":
            return f"The field '{field}': {problem['ctx']['error']}".rstrip(".") + "."
        case "too_short":
            return f"The field '{field}' is empty; give it at least one entry."
    return f"The field '{field}' is {problem['input']!r}: {problem['msg']}."


def _all_fields(section: type[_Section] = _Section) -> set[str]:
    """Names of the fields of every section of a study file."""
    inner = (_all_fields(each) for each in section.__subclasses__())
    return set(section.model_fields).union(*inner)

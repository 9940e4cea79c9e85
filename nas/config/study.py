"""The study file: what a search is told, validated before anything long begins."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from compat.tasks.retrieval import Judge
from compat.tasks.split import SplitConfig
from compat.training.config import Epochs, LearningRate, TrainingConfig, of_pretrained
from nas.config.alignment import AlignmentConfig
from nas.config.objectives import (
    COSTS,
    OBJECTIVES,
    BudgetConfig,
    Objective,
    ObjectiveName,
    Quantity,
    bounds,
)
from nas.config.yaml_text import parse_yaml, read_yaml
from nas.errors import StudyError
from searchspaces.support.problems import problem_of
from searchspaces.support.section import LevelCount, Section, Seed

SamplerName = Literal["nsga2", "nsga3", "tpe", "gp", "qmc", "random"]
Sampling = Literal["uniform", "fair", "macs", "attentive"]


CalibrationImages = Annotated[int, Field(ge=2, le=1_000_000)]
ImportanceBatches = Annotated[int, Field(ge=1, le=10_000)]


def _file_name(name: str) -> str:
    """Names of spaces name files of a run."""
    if not re.fullmatch(r"[^\W_][\w .+-]{0,99}", name):
        raise StudyError(
            f"'{name}' is no name of a space; give letters, digits, '.', '+', '-' and '_'"
        )
    return name


SpaceName = Annotated[str, AfterValidator(_file_name)]


class SupernetTraining(TrainingConfig):
    """Training of a supernet, whose subnetworks share the steps.

    ``distill`` is the weight of the largest subnetwork's embeddings as targets of the others,
    ``sampling`` says how the random subnetworks are drawn, and ``progressive`` over which share
    of the training the choices open, from the largest subnetwork on. With 0 epochs slices of a
    pretrained network are scored as they come, and what is trained are the models of `finish`.
    """

    epochs: int = Field(40, ge=0, le=100_000)
    distill: float = Field(0.0, ge=0, le=1)
    sampling: Sampling = "uniform"
    progressive: float = Field(0.0, ge=0, lt=1)


class RealignTraining(TrainingConfig):
    """A short training after a cut."""

    epochs: Epochs = 2
    lr: LearningRate = 1e-3
    ema: float = Field(0.95, ge=0, lt=1)


class FinishTraining(TrainingConfig):
    """Further training of a model that is in the gallery space already."""

    lr: LearningRate = 1.5e-3


_PRETRAINED = ("timm-elastic",)
"""Spaces whose supernets begin with published weights, unless their options say otherwise."""


def _pretrained(space: str | None, options: Mapping[str, Any]) -> bool:
    published = options.get("pretrained", space in _PRETRAINED)
    return bool(published or options.get("checkpoint"))


class RouteSection(Section):
    """What all routes have in common.

    Attributes:
        SHAPING: Settings on which it depends what weights the route's candidates share; none where
            each has weights of its own from the start.
    """

    SHAPING: ClassVar[tuple[str, ...]] = ()

    @property
    def shape(self) -> dict[str, Any]:
        """Routes of equal shape can take over each other's shared weights; empty without any."""
        shaping = {"route", *self.SHAPING} if self.SHAPING else set()
        return self.model_dump(mode="json", include=shaping)

    @property
    def starts_trained(self) -> bool:
        """Whether its networks come with weights of before."""
        return False


class SupernetConfig(RouteSection):
    """Candidates sliced out of one supernet trained by the sandwich rule."""

    SHAPING = ("space", "options", "kernel_transform")

    route: Literal["supernet"]
    space: str = "mbconv"
    options: dict[str, Any] = Field(default_factory=dict)
    kernel_transform: bool = False
    random_subnetworks: int = Field(2, ge=0, le=100)
    calibration_images: CalibrationImages = 1024
    training: SupernetTraining = Field(SupernetTraining(), validate_default=True)

    @field_validator("training")
    @classmethod
    def _gentle(cls, value: SupernetTraining, info: ValidationInfo) -> SupernetTraining:
        if _pretrained(info.data.get("space"), info.data.get("options", {})):
            return of_pretrained(value)
        if value.epochs == 0:
            raise ValueError(
                "0 epochs leave the weights random: give at least 1, or pretrained ones"
            )
        return value

    @property
    def starts_trained(self) -> bool:
        return _pretrained(self.space, self.options)


class PrunedConfig(RouteSection):
    """Candidates cut out of one aligned timm backbone by torch-pruning.

    Attributes:
        importance_batches: Training batches of ``realign.batch`` images by which "taylor" and
            "fisher" judge channels.
    """

    SHAPING = ("backbone", "pooling", "levels", "options")

    route: Literal["pruned"]
    backbone: str
    pretrained: bool = True
    checkpoint: str | None = None
    pooling: Literal["avg", "gem"] = "avg"
    levels: LevelCount | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    calibration_images: CalibrationImages = 1024
    importance_batches: ImportanceBatches = 16
    training: TrainingConfig = Field(TrainingConfig(), validate_default=True)
    realign: RealignTraining = RealignTraining()

    @field_validator("options")
    @classmethod
    def _said_once(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in cls.model_fields:
                raise ValueError(f"'{name}' does not belong in there: give it beside `options`")
        return value

    @field_validator("training")
    @classmethod
    def _gentle(cls, value: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        starts_trained = info.data.get("pretrained") or info.data.get("checkpoint")
        return of_pretrained(value) if starts_trained else value

    @property
    def starts_trained(self) -> bool:
        return self.pretrained or self.checkpoint is not None


class StandaloneConfig(RouteSection):
    """Candidates of any registered search space, each aligned alone from a random start."""

    route: Literal["standalone"]
    space: str
    options: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()

    @property
    def starts_trained(self) -> bool:
        return _pretrained(self.space, self.options)


# In the study file `route` is the kind of a route; its name is the entry's, that of its space.
RouteConfig = Annotated[
    SupernetConfig | PrunedConfig | StandaloneConfig, Field(discriminator="route")
]


def _all_trained(routes: Mapping[str, RouteSection]) -> bool:
    return all(route.starts_trained for route in routes.values())


class RungConfig(Section):
    """After the search: up to ``models`` promising candidates are aligned on, alone.

    Attributes:
        equal: What all models of the rung get alike: "epochs", or "macs" of training. Epochs are
            then those of a model that takes all of the budget's ``max_macs``; one of a tenth of it
            is trained for ten times as many.
    """

    models: int = Field(0, ge=0, le=10_000)
    training: FinishTraining = FinishTraining()
    equal: Literal["epochs", "macs"] = "epochs"

    def training_of(self, macs: int, budget: BudgetConfig) -> FinishTraining:
        """Return the training of a model with so many MACs."""
        if self.equal == "epochs":
            return self.training
        assert budget.max_macs is not None  # the study file was validated
        times = budget.max_macs / macs
        given = {name: getattr(self.training, name) for name in ("epochs", "validate_every")}
        longer = {name: max(1, round(value * times)) for name, value in given.items()}
        return self.training.model_copy(update=longer)


class ScreenConfig(Section):
    """Proposals whose chance to stand on the front is below ``doubt`` are not scored.

    ``by`` is "surrogate" or a predictor of `compat.predictors`; it learns from at least ``after``
    scored candidates of a route.
    """

    by: str = "surrogate"
    after: int = Field(30, ge=5, le=1_000_000)
    doubt: float = Field(0.1, gt=0, lt=1)


class StudyConfig(AlignmentConfig):
    """Everything that defines a search study.

    Attributes:
        tiers: MACs within which the best model is wanted, for several kinds of devices say. The
            models that are aligned on are chosen for them; without any, for the whole front.
    """

    data: str
    gallery: str
    spaces: dict[SpaceName, RouteConfig] = Field(min_length=1, max_length=100)
    objectives: tuple[ObjectiveName, ...] = Field(
        ("macs", "cross_test"), min_length=1, max_length=4
    )
    sampler: SamplerName | None = Field(None, validate_default=True)
    trials: int = Field(100, ge=1, le=1_000_000)
    start: int = Field(16, ge=0, le=10_000)
    warm_start: str | None = None
    budget: BudgetConfig = BudgetConfig()
    latency_table: str | None = Field(None, validate_default=True)
    screen: ScreenConfig | None = None
    finish: tuple[RungConfig, ...] = Field((), max_length=20)
    tiers: tuple[Quantity, ...] = Field((), max_length=100)
    split: SplitConfig = SplitConfig()
    imports: tuple[str, ...] = ()
    seed: Seed = 0

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, value: tuple[ObjectiveName, ...]) -> tuple[ObjectiveName, ...]:
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

    @field_validator("finish")
    @classmethod
    def _measured_by_a_budget(
        cls, value: tuple[RungConfig, ...], info: ValidationInfo
    ) -> tuple[RungConfig, ...]:
        most = getattr(info.data.get("budget"), "max_macs", None)
        if most is None and any(rung.equal == "macs" for rung in value):
            raise StudyError("`equal: macs` needs `budget: {max_macs: …}`; add it")
        return value

    @field_validator("finish")
    @classmethod
    def _gentle(cls, value: tuple[RungConfig, ...], info: ValidationInfo) -> tuple[RungConfig, ...]:
        if not _all_trained(info.data.get("spaces", {})):
            return value
        return tuple(
            rung.model_copy(update={"training": of_pretrained(rung.training)}) for rung in value
        )

    @field_validator("latency_table")
    @classmethod
    def _given_where_needed(cls, value: str | None, info: ValidationInfo) -> str | None:
        bound = getattr(info.data.get("budget"), "max_table_latency", None)
        if value is None and ("table_latency" in info.data.get("objectives", ()) or bound):
            raise StudyError(
                "`table_latency` needs a file that `querynas latency calibrate` wrote; add it"
            )
        return value

    @property
    def starts_trained(self) -> bool:
        return _all_trained(self.spaces)

    @property
    def judge(self) -> Judge:
        """What queries are to find: by labels, unless agreement is the one quality asked for."""
        qualities = [name for name in self.objectives if OBJECTIVES[name].cost is None]
        return "ranking" if qualities == ["agreement"] else "labels"

    def without_labels(self) -> "StudyConfig":
        """Return the study of data without labels; its accuracy is agreement by default.

        Raises:
            StudyError: An objective asks for labels.
        """
        if "objectives" not in self.model_fields_set:
            return self.model_copy(update={"objectives": ("macs", "agreement")})
        if self.judge == "labels":
            raise StudyError(
                f"The objectives {', '.join(self.objectives)} ask for labels, but '{self.data}' "
                "has none; give `objectives: [macs, agreement]`, or a folder per class or a column "
                "`label`."
            )
        return self

    @property
    def costs(self) -> list[Objective]:
        """The costs that the study has to know of each candidate, beside those known of all."""
        names = {*self.objectives, *(bound.objective.name for bound in bounds(self.budget))}
        return [each for each in COSTS if each.name in names and not each.always]


def load_config(path: str | Path) -> StudyConfig:
    """Read and validate a study file; `$NAME` stands for an environment variable.

    Raises:
        StudyError: The file is missing, is not YAML, a field is unknown (near matches are named),
            missing, of the wrong kind or out of range, or a variable is not set.
    """
    path = Path(path)
    text = os.path.expandvars(read_yaml(path, remedy="give the path of a study file, YAML"))
    unset = re.search(r"^[^#\n]*(\$\{?\w+\}?)", text, flags=re.MULTILINE)
    if unset is not None:
        raise StudyError(
            f"The study file '{path}' uses the environment variable {unset[1]}, which is not set; "
            "set it or write the path out."
        )
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> StudyConfig:
    """Validate the text of a study file.

    Raises:
        StudyError: It is not YAML, or a field is unknown, missing, of the wrong kind or out of
            range; names ``path``.
    """
    content = parse_yaml(text, f"The study file '{path}'")
    if not isinstance(content, dict):
        raise StudyError(
            f"The study file '{path}' holds {type(content).__name__}, not a mapping of fields; "
            "see examples/facades.yaml."
        )
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}: {problem_of(error, StudyConfig)}.") from error

"""The card beside an exported query model: what it is, what it expects, how good it is."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, Literal

from compat.evaluation import Metric, Retrieved, Score
from compat.tasks.retrieval import Judge
from compat.tasks.split import SplitConfig
from nas.errors import StudyError
from searchspaces import Architecture
from searchspaces.support.files import write_json
from searchspaces.support.reading import check_file, read_json
from searchspaces.support.section import Dimension, Resolution, Section, Versioned

Format = Literal["safetensors", "onnx", "torch-export"]

_MOST_BYTES = 4 << 30


class Measure(Section):
    """One test: mAP, its 95% bootstrap interval over queries, Recall@k."""

    map: float
    interval: tuple[float, float]
    recall: dict[int, float]

    @classmethod
    def of(cls, retrieved: Retrieved) -> "Measure":
        """Keep what a card states of a ranking."""
        return cls(map=retrieved.map, interval=retrieved.interval, recall=retrieved.recall)


class Scores(Section):
    """Self-test M(q, q), cross-test M(q, g) and paragon M(g, g)."""

    self_test: Measure
    cross_test: Measure
    paragon: Measure

    @classmethod
    def of(cls, score: Score) -> "Scores":
        """Keep what a card states of the three tests."""
        return cls(
            self_test=Measure.of(score.self_test),
            cross_test=Measure.of(score.cross_test),
            paragon=Measure.of(score.paragon),
        )


class ArchitectureCard(Section):
    """A point of a search space."""

    space: str
    params: dict[str, bool | int | float | str]

    @classmethod
    def of(cls, architecture: Architecture) -> "ArchitectureCard":
        """Write an architecture down."""
        return cls(space=architecture.space, params=dict(architecture.params))


class InputCard(Section):
    """What the file takes: float32 (B, 3, resolution, resolution); it normalises inside."""

    resolution: Resolution
    fit: Literal["crop", "squash"]
    range: Literal["[0, 1]"] = "[0, 1]"
    layout: Literal["NCHW"] = "NCHW"
    channels: Literal["RGB"] = "RGB"


class GalleryCard(Section):
    """The gallery space that the model was aligned to."""

    path: str
    fingerprint: str
    model: str | None
    metric: Metric


class DataCard(Section):
    """The data set, and how its classes were divided."""

    spec: str
    split: SplitConfig


class LatencyCard(Section):
    """Median seconds of one query, batch of 1, one CPU thread; None where it does not run."""

    pytorch: float | None
    onnxruntime: float | None


class Validation(Section):
    """The cross-test mAP on the validation part, which the search selected on."""

    cross_test: float
    interval: tuple[float, float]


class Card(Versioned):
    """Everything that whoever deploys a query model has to know.

    Attributes:
        version: Of the card's form.
        querynas: Version that wrote the card.
        run: Folder of the study, pruning or nest; that of the file for an adapted encoder.
        trial: Number of the trial in it; None for nests and adapted encoders, which have none.
        format: File format of the model.
        sha256: Hash (hex) of the model file.
        architecture: The point of the search space.
        route: Name of the search space in the study file, "nest" or "adapt".
        fidelity: How the weights came about.
        macs: Multiply-accumulates of one query (fvcore).
        parameters: Number of parameters.
        latency: What one query takes.
        input: What the model takes.
        dimension: Width of the embeddings.
        gallery: The space that the embeddings live in.
        data: The images of the study.
        validation: What selection went by.
        scores: The exported file's own scores on the test split.
        judge: What queries were to find, in ``validation`` and ``scores``: images of their label,
            or, by "ranking", what the gallery network finds first. The cross-test is then the
            agreement with it.
    """

    NEWEST: ClassVar = 2

    querynas: str
    run: str
    trial: int | None
    format: Format
    sha256: str
    architecture: ArchitectureCard
    route: str
    fidelity: str
    macs: int
    parameters: int
    latency: LatencyCard
    input: InputCard
    dimension: Dimension
    gallery: GalleryCard
    data: DataCard
    validation: Validation
    scores: Scores
    judge: Judge = "labels"


def card_path(model: Path) -> Path:
    """Return where the card of a model file lies: ``model.onnx.json`` beside ``model.onnx``."""
    return model.with_name(f"{model.name}.json")


def write_card(model: Path, card: Card) -> Path:
    """Write the card beside its model file."""
    return write_json(card_path(model), card)


def read_card(model: Path) -> Card:
    """Read the card beside a model file, and check that it belongs to that very file.

    Raises:
        StudyError: The model file or its card is missing, the card has a missing, unknown or wrong
            field, or it is the card of another file.
    """
    path = card_path(model)
    check_file(
        model, at_most=_MOST_BYTES, error=StudyError, remedy="give what `querynas export` wrote"
    )
    remedy = "copy the card along with the model, or export it again"
    card = read_json(path, Card, error=StudyError, remedy=remedy)
    found = file_hash(model)
    if found != card.sha256:
        raise StudyError(
            f"The card '{path}' is of another file (SHA-256 {card.sha256[:12]}…, but "
            f"'{model.name}' has {found[:12]}…); copy both together, or export the model again."
        )
    return card


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def product_version() -> str:
    """Return the version of querynas, "unknown" in a checkout that is not installed."""
    try:
        return version("querynas")
    except PackageNotFoundError:
        return "unknown"

"""Any frozen encoder into any gallery: maps fitted in closed form, one chosen, nothing trained."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compat.adaptation import MAPS, FittedMap, MapName
from compat.tasks import SplitConfig, StudyData, load_study_data
from nas.alignment.mapping import encode
from nas.deployment.card import Scores, Validation
from nas.deployment.formats import format_of
from nas.deployment.write import Exported, Source
from nas.errors import StudyError
from nas.recipes.encoders import FrozenEncoder, open_encoders
from searchspaces import Architecture
from searchspaces.support.section import Resolution, Section, Seed

logger = logging.getLogger("querynas")


class AdaptConfig(Section):
    """Everything that defines an adaptation.

    Attributes:
        model: As for `nas.recipes.encoders.open_encoders`.
        gallery: Gallery folder.
        data: Spec of the data set.
        resolutions: Sides of the encoder's input in pixels; its own when empty.
        map: One of `compat.adaptation.MAPS`; "auto" fits them all.
        pretrained: Whether a timm model has its published weights.
        checkpoint: File with a timm model's weights instead.
        split: Class shares.
        seed: Of what is drawn.
    """

    model: str
    gallery: str
    data: str
    resolutions: Annotated[tuple[Resolution, ...], Field(max_length=64)] = ()
    map: Literal["auto"] | MapName = "auto"
    pretrained: bool = True
    checkpoint: str | None = None
    split: SplitConfig = SplitConfig()
    seed: Seed = 0

    @property
    def maps(self) -> tuple[MapName, ...]:
        """The maps to fit; a residual network stands beside the regression that it is to better."""
        match self.map:
            case "auto":
                return MAPS
            case "mlp":
                return ("ridge", "mlp")
            case name:
                return (name,)


@dataclass(frozen=True, eq=False)
class AdaptedEncoder:
    """One row of the table: an encoder at one resolution with one map.

    Attributes:
        encoder: The encoder.
        map: The map, with its cross-test on the validation classes.
        macs: Multiply-accumulates of one query.
    """

    encoder: FrozenEncoder
    map: FittedMap
    macs: int


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of an adaptation.

    Attributes:
        rows: Every resolution with every map, on the validation classes.
        chosen: That of the highest cross-test, the cheaper one of equals.
        paragon: mAP of the gallery's own vectors on the validation classes.
        scores: The chosen one on the test classes; of the written file where there is one.
        exported: The written file.
        data: What it was measured on.
    """

    rows: tuple[AdaptedEncoder, ...]
    chosen: AdaptedEncoder
    paragon: float
    scores: Scores
    exported: Exported | None
    data: StudyData


def adapt(config: AdaptConfig, out: str | Path | None = None) -> Adapted:
    """Map a frozen encoder into a gallery space, without training it.

    At every resolution its features of the training pictures, views of the gallery included, are
    computed once. Maps are fitted to them and scored by the cross-test on the validation classes,
    which chooses; the test classes are looked at once, in the end.

    Args:
        config: The encoder, the gallery and the maps.
        out: File for the result, with a card beside it: .safetensors, .onnx or .pt2.

    Raises:
        StudyError: The ending of ``out`` stands for no format, or the encoder cannot be written in
            it.
        CompatError, SearchSpaceError, PruningError: The encoder, the data or the gallery cannot be
            had or do not fit.
    """
    if out is not None:
        _check_ending(config.model, Path(out))  # before the features
    data = load_study_data(config.data, config.gallery, config.split)
    rows = []
    for encoder in open_encoders(
        config.model,
        data.gallery.dimension,
        config.resolutions,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        seed=config.seed,
    ):
        encoded = encode(encoder.features, encoder.resolution, data, seed=config.seed)
        rows += [
            AdaptedEncoder(encoder, fitted, encoder.macs(fitted.projection))
            for fitted in encoded.fit(config.maps, seed=config.seed)
        ]
    chosen = max(rows, key=lambda row: (row.map.found.map, -row.macs))
    exported = None
    if out is None:
        scores = Scores.of(chosen.encoder.score(chosen.map.projection, data.test))
    else:
        exported = _export(config, chosen, Path(out), data)
        scores = exported.card.scores
    return Adapted(tuple(rows), chosen, data.val.paragon.map, scores, exported, data)


def _check_ending(model: str, out: Path) -> None:
    """Refuse what cannot be written."""
    if format_of(out) != "onnx" and model.endswith(".onnx"):
        raise StudyError(
            f"'{model}' is an ONNX graph and stays one with a map; end --out in .onnx, not "
            f"'{out.suffix}'."
        )


def _export(config: AdaptConfig, chosen: AdaptedEncoder, out: Path, data: StudyData) -> Exported:
    encoder, fitted = chosen.encoder, chosen.map
    source = Source(
        name=f"'{config.model}' with the map '{fitted.name}'",
        run=out.parent,
        trial=None,
        architecture=Architecture(
            "adapted",
            {"model": config.model, "resolution": encoder.resolution, "map": fitted.name},
        ),
        route="adapt",
        fidelity="adapted",
        gallery=config.gallery,
        data=config.data,
        split=config.split,
        validation=Validation(cross_test=fitted.found.map, interval=fitted.found.interval),
    )
    return encoder.write(fitted.projection, out, source, data)

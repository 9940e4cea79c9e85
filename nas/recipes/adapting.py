"""Any frozen encoder into any gallery: maps fitted in closed form, one chosen, nothing trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compat.adaptation import MAPS, FittedMap, MapName
from compat.tasks import SplitConfig, StudyData, load_study_data
from compat.tasks.embedded import Embedded
from compat.tasks.further import embed_unlabelled, folder_of_unlabelled, open_unlabelled
from compat.tasks.unlabelled import UnlabelledConfig
from nas.alignment.mapping import encode
from nas.deployment.card import Scores, Validation
from nas.deployment.formats import format_of
from nas.deployment.write import Exported, Source
from nas.errors import StudyError
from nas.recipes.encoders import FrozenEncoder, is_factory, open_encoders
from searchspaces import (
    Architecture,
    SearchSpaceError,
    count_macs,
    first_levels,
    own_resolution,
    timm_query_model,
)
from searchspaces.support.section import LevelCount, Resolution, Section, Seed

_LEAST_SIDE = 32


class AdaptConfig(Section):
    """Everything that defines an adaptation.

    Attributes:
        model: As for `nas.recipes.encoders.open_encoders`.
        gallery: Gallery folder.
        data: Spec of the data set.
        resolutions: Sides of the encoder's input in pixels; its own when empty.
        levels: Numbers of a timm model's first levels. Each makes an encoder at each resolution:
            its features are the pooled maps of these levels, and it ends at the last of them. When
            empty there is one, with the features that the family's classifier sees.
        map: One of `compat.adaptation.MAPS`; "auto" fits them all.
        pretrained: Whether a timm model has its published weights.
        checkpoint: File with a timm model's weights instead.
        unlabelled: Further training images, none of which has a label.
        split: Class shares.
        seed: Of what is drawn.
    """

    model: str
    gallery: str
    data: str
    resolutions: Annotated[tuple[Resolution, ...], Field(max_length=64)] = ()
    levels: Annotated[tuple[LevelCount, ...], Field(max_length=64)] = ()
    map: Literal["auto"] | MapName = "auto"
    pretrained: bool = True
    checkpoint: str | None = None
    unlabelled: tuple[UnlabelledConfig, ...] = Field((), max_length=100)
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
    """One row of the table: an encoder at one resolution, up to one level, with one map.

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
        rows: Every resolution and number of levels with every map, on the validation classes.
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

    At every resolution its features of the training pictures, views of the gallery and further
    images included, are computed once for all numbers of levels. Maps are fitted to them and scored
    by the cross-test on the validation classes, which chooses; the test classes are looked at once,
    in the end.

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
    rows = _rows(config, data, _further(config, data))
    chosen = max(rows, key=lambda row: (row.map.found.map, -row.macs))
    exported = None
    if out is None:
        scores = Scores.of(chosen.encoder.score(chosen.map.projection, data.test))
    else:
        exported = _export(config, chosen, Path(out), data)
        scores = exported.card.scores
    return Adapted(tuple(rows), chosen, data.val.paragon.map, scores, exported, data)


def _further(config: AdaptConfig, data: StudyData) -> tuple[Embedded, ...]:
    folder = folder_of_unlabelled(config.unlabelled, data.gallery)
    embed_unlabelled(config.unlabelled, data.gallery, folder)
    return open_unlabelled(config.unlabelled, data, folder)


def _rows(
    config: AdaptConfig, data: StudyData, further: Sequence[Embedded]
) -> list[AdaptedEncoder]:
    rows = []
    for encoders in open_encoders(
        config.model,
        data.gallery.dimension,
        config.resolutions,
        levels=config.levels,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        seed=config.seed,
    ):
        deepest = encoders[-1]
        encoded = encode(deepest.features, deepest.resolution, data, further, seed=config.seed)
        rows += [
            AdaptedEncoder(encoder, fitted, encoder.macs(fitted.projection))
            for encoder in encoders
            for fitted in encoded.first(encoder.width).fit(config.maps, seed=config.seed)
        ]
    return rows


def adapted_within(
    macs: float, config: AdaptConfig, data: StudyData, further: Sequence[Embedded] = ()
) -> AdaptedEncoder | None:
    """Adapt a pretrained timm network at the largest resolution at which it has so many MACs.

    Sides are multiples of 8 from 32 to the network's own or the given one. Of several numbers of
    levels the largest counts.

    Returns:
        The network with a ridge map; None where no such side keeps the bound.

    Raises:
        CompatError, SearchSpaceError: As `adapt`.
    """
    name = config.model.removeprefix("timm:")
    most = config.resolutions[0] if config.resolutions else own_resolution(name)
    levels = first_levels(name, max(config.levels, default=None))
    for side in range(most - most % 8, _LEAST_SIDE - 1, -8):
        try:
            network = timm_query_model(
                name, data.gallery.dimension, resolution=side, levels=levels, pretrained=False
            )
        except SearchSpaceError:  # a family that takes other sides only
            continue
        if count_macs(network, side) <= macs:
            fitting = config.model_copy(update={"resolutions": (side,), "map": "ridge"})
            return _rows(fitting, data, further)[-1]
    return None


def _check_ending(model: str, out: Path) -> None:
    """Refuse what cannot be written."""
    if format_of(out) != "onnx" and model.endswith(".onnx"):
        raise StudyError(
            f"'{model}' is an ONNX graph and stays one with a map; end --out in .onnx, not "
            f"'{out.suffix}'."
        )
    if format_of(out) == "safetensors" and is_factory(model):
        raise StudyError(
            f"A .safetensors file cannot say how '{model}' makes its network; end --out in .onnx."
        )


def _export(config: AdaptConfig, chosen: AdaptedEncoder, out: Path, data: StudyData) -> Exported:
    encoder, fitted = chosen.encoder, chosen.map
    levels = {} if encoder.levels is None else {"levels": encoder.levels}
    source = Source(
        name=f"'{config.model}' with the map '{fitted.name}'",
        run=out.parent,
        trial=None,
        architecture=Architecture(
            "adapted",
            {
                "model": config.model,
                "resolution": encoder.resolution,
                **levels,
                "map": fitted.name,
            },
        ),
        route="adapt",
        fidelity="adapted",
        gallery=config.gallery,
        data=config.data,
        split=config.split,
        validation=Validation(cross_test=fitted.found.map, interval=fitted.found.interval),
    )
    return encoder.write(fitted.projection, out, source, data)

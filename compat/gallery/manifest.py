"""What a gallery's folder says of itself, in ``gallery.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from typing_extensions import TypedDict

from compat.data.preprocessing import Preprocessing
from compat.data.views import ViewRecipe
from compat.errors import CompatError
from compat.evaluation.similarity import Metric
from searchspaces.support.reading import read_json
from searchspaces.support.section import Section, Versioned

MANIFEST = "gallery.json"
_MOST_BYTES = 1 << 28

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^[\w.-]+\.npy$", max_length=200)]


class Source(TypedDict):
    """A gallery that another was made of: its name, its fingerprint, and how it was made itself."""

    gallery: str
    fingerprint: str
    derivation: NotRequired[list[dict[str, Any]]]


class Step(TypedDict):
    """What was done to other galleries: the step's name, its sources, and its options."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    step: str
    sources: list[Source]


class Description(Section):
    """What is known of a gallery's vectors besides their values.

    Attributes:
        metric: ``cosine``, ``ip``, or ``hamming`` for vectors of +1 and -1.
        classes: Names of the labels, empty when unknown.
        model: Spec of the gallery model, None when vectors were imported.
        model_digest: Hash (hex) of the gallery model's weights, None when unknown.
        model_macs: Multiply-accumulates of one image through the gallery model, None when unknown.
        preprocessing: Of the gallery model, None when unknown.
        data: Spec of the images, None when unknown.
        view_recipe: How the views were drawn, None without views.
        derivation: What was done to other galleries to make this one, step by step; empty when the
            vectors are as the gallery model gave them.
    """

    metric: Metric
    classes: tuple[str, ...] = ()
    model: str | None = None
    model_digest: str | None = None
    model_macs: NonNegativeInt | None = None
    preprocessing: Preprocessing | None = None
    data: str | None = None
    view_recipe: ViewRecipe | None = None
    derivation: tuple[Step, ...] = ()


class Views(Section):
    """How many views of how many images were embedded."""

    count: PositiveInt
    rows: NonNegativeInt


class StoredFile(Section):
    """What a file was when it was written."""

    bytes: NonNegativeInt
    sha256: _Sha256


class Manifest(Versioned, Description):
    """``gallery.json``: the description, and what the folder's files have to be.

    Attributes:
        count: Vectors, N.
        dimension: Their width, d.
        dtype: Their type, as they are read.
        codes: What they are stored as, None when as they are.
        fingerprint: SHA-256 (hex) over metric, vectors (or codes) and ids.
        views: None without views.
        files: All files of the folder but this one, by name.
    """

    NEWEST: ClassVar = 3

    count: PositiveInt
    dimension: Annotated[int, Field(ge=1, le=1 << 20)]
    dtype: Literal["float32", "float16"]
    codes: Literal["product", "sign"] | None = None
    fingerprint: _Sha256
    views: Views | None = None
    files: dict[_FileName, StoredFile]

    @model_validator(mode="after")
    def _agrees(self) -> Manifest:
        recipe = self.view_recipe
        if (self.views and self.views.count) != (recipe and recipe.count):
            raise ValueError("`views` and `view_recipe` speak of different numbers of views")
        if (self.metric == "hamming") != (self.codes == "sign"):
            raise ValueError("the metric 'hamming' goes with the codes 'sign', and only with them")
        return self


def read_manifest(folder: Path) -> Manifest:
    """Read the description of a gallery's folder.

    Raises:
        CompatError: There is none, it is damaged, or it is of a later version.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CompatError(
            f"{folder} is no gallery, it has no {MANIFEST}: name a folder that `querynas gallery` "
            "wrote (an unfinished build ends in .partial; run its command again)."
        )
    remedy = "restore it or rebuild the gallery"
    return read_json(path, Manifest, error=CompatError, remedy=remedy, at_most=_MOST_BYTES)

"""Further training images, as a study file names them."""

from typing import Any

from pydantic import model_validator

from compat.errors import CompatError
from searchspaces.support.section import Section


class UnlabelledConfig(Section):
    """Images that an alignment has beside those of its data set; labels are not looked at.

    Attributes:
        data: Spec of the images.
        gallery: Gallery folder that holds their vectors, of the same model as the study's.
        model: Spec of that model instead, which embeds them once.
    """

    data: str
    gallery: str | None = None
    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_spec_alone(cls, content: Any) -> Any:
        return {"data": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _with_vectors(self) -> "UnlabelledConfig":
        if (self.gallery is None) == (self.model is None):
            given = "neither" if self.gallery is None else "both"
            raise CompatError(
                f"'{self.data}' needs vectors, but has {given} of `gallery`, a folder that holds "
                "them, and `model`, the gallery's own, which embeds them once; give one of the two"
            )
        return self

"""What every section of our files is made of."""

import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from searchspaces.support.problems import kinds_of
from searchspaces.support.renaming import under_new_names

NEWER = "newer"
"""The type of pydantic's error about a file of a later version, see `Versioned`."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""A seed that NumPy, PyTorch and Optuna take, with room for those that are derived from it."""

MOST_SIDE = 2048

Resolution = Annotated[int, Field(ge=1, le=MOST_SIDE)]
"""Side of a network's square input in pixels."""

LevelCount = Annotated[int, Field(ge=1, le=1000)]
"""How many of the first levels of a backbone."""

Dimension = Annotated[int, Field(ge=1, le=1 << 16)]
"""Number of dimensions of a gallery space."""


class Section(BaseModel):
    """A frozen group of fields that knows no others; its numbers are finite and no truth values.

    Attributes:
        RENAMED: Names that its fields have now, by those that they had once. What is read may have
            either, what is written has the new ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, content: Any) -> Any:
        found = under_new_names(content, cls.RENAMED)
        for name, field in cls.model_fields.items() if isinstance(found, Mapping) else ():
            value = found.get(field.alias or name)
            if _is_truth(value, field.annotation):
                raise ValueError(f"the field '{field.alias or name}' is {value}: expected a number")
        return found


class Versioned(Section):
    """What a file of ours holds as a whole.

    A file without a version is of before files had one, and is read as version 0. A file of a
    version above ``NEWEST`` is refused, whatever else it holds.
    """

    NEWEST: ClassVar[int] = 1

    version: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _not_of_tomorrow(cls, content: Any) -> Any:
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, str) and version.isdecimal():  # in a safetensors header
            version = int(version)
        if isinstance(version, int) and version > cls.NEWEST:
            raise PydanticCustomError(
                NEWER,
                "of version {found}, and this querynas reads up to {newest}: update querynas",
                {"found": version, "newest": cls.NEWEST},
            )
        return content


def _is_truth(value: Any, kind: Any) -> bool:
    """Whether a value, or one of those in it, is true or false where a number belongs."""
    kinds = list(kinds_of(kind))
    if isinstance(value, bool):
        return bool not in kinds and (int in kinds or float in kinds)
    inner: list[Any] = []
    if isinstance(value, list | tuple):
        inner = list(value)
    elif isinstance(value, Mapping):
        inner = list(value.values())
    last = [
        typing.get_args(each)[-1]
        for each in kinds
        if typing.get_origin(each) in (list, dict) or typing.get_origin(each) is Mapping
    ]
    last += [typing.get_args(each)[0] for each in kinds if typing.get_origin(each) is tuple]
    return any(_is_truth(each, one) for each in inner for one in last)

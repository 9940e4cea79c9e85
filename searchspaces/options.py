"""Options of a space that hold for all of its architectures."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from searchspaces.errors import SearchSpaceError
from searchspaces.support.errors import QuerynasError
from searchspaces.support.reading import validated
from searchspaces.support.section import Section


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{value!r} is listed twice; leave one out")
    return values


Different = AfterValidator(_different)
"""No value of a list comes twice."""

Whole = Annotated[int, Field(strict=True)]
"""A whole number, and not one that is written otherwise."""


def check_options(
    space: Any, kind: type[Section], *, error: type[QuerynasError] = SearchSpaceError
) -> None:
    """Check the options of a new space, and make of them what they are: of lists, tuples.

    Args:
        space: A frozen dataclass with a ``name``.
        kind: A section whose fields are options of it.
        error: What to raise.

    Raises:
        QuerynasError: The given kind of it: an option is of the wrong kind or out of range.
    """
    given = {name: getattr(space, name) for name in kind.model_fields}
    what, remedy = f"the space '{space.name}'", "see docs/spaces.md"
    options = validated(kind, given, what, error=error, remedy=remedy)
    for name in given:
        object.__setattr__(space, name, getattr(options, name))

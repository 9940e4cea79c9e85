"""Options that are checked wherever they are made."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ValidationError

from compat.errors import CompatError
from searchspaces.support.problems import problem_of
from searchspaces.support.section import Section


class Options(Section):
    """A section whose problems are a `CompatError`, however it is made.

    A subclass says in ``SUBJECT`` how the sentence about it begins.
    """

    SUBJECT: ClassVar[str]

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise CompatError(f"{self.SUBJECT}: {problem_of(problem, type(self))}.") from problem

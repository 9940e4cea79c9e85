"""What a query network looks like, as data: a space's name and one value per parameter."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from searchspaces.errors import SearchSpaceError

Value = bool | int | float | str


@dataclass(frozen=True)
class Architecture:
    """One point of a search space.

    Immutable, hashable, picklable and equal whatever the order of its parameters.

    Args:
        space: Name of the search space, as in the registry.
        params: One JSON scalar per parameter of the space.

    Raises:
        SearchSpaceError: If a parameter is neither a bool, a finite number nor a string.
    """

    space: str
    params: Mapping[str, Value]

    def __post_init__(self) -> None:
        for name, value in self.params.items():
            if not isinstance(value, Value) or (
                isinstance(value, float) and not math.isfinite(value)
            ):
                raise SearchSpaceError(
                    f"parameter '{name}' of the '{self.space}' architecture is {value!r}: "
                    "give a bool, a finite number or a string"
                )
        ordered = {name: self.params[name] for name in sorted(self.params)}
        object.__setattr__(self, "params", MappingProxyType(ordered))

    def __hash__(self) -> int:
        return hash((self.space, frozenset(self.params.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.space, dict(self.params))

    def to_json(self) -> str:
        """Return the architecture as one line of JSON with sorted keys."""
        return json.dumps({"space": self.space, "params": dict(self.params)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Read what `to_json` wrote.

        Raises:
            SearchSpaceError: If the text is not JSON or lacks the two fields.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise SearchSpaceError(f"an architecture is not readable as JSON: {error}") from None
        match fields:
            case {"space": str(space), "params": dict(params), **rest} if not rest:
                return cls(space, params)
        raise SearchSpaceError(
            'an architecture in JSON has the fields "space" (text) and "params" (an object) '
            f"and no others, but this was found: {text[:200]}"
        )

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stay the same across processes and machines."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

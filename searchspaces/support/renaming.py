"""Fields that had another name once."""

from collections.abc import Mapping
from typing import Any


def under_new_names(content: Any, names: Mapping[str, str]) -> Any:
    """Return a dict whose old keys have their new names; anything else as it is.

    Args:
        content: What was read.
        names: The new names by the old ones.

    Raises:
        ValueError: A field is there under both names.
    """
    if not isinstance(content, dict):
        return content
    for old, new in names.items():
        if old in content and new in content:
            raise ValueError(f"`{old}` is the old name of `{new}`, and both are there; keep one")
    return {names.get(key, key): value for key, value in content.items()}

"""Near matches for names that a user may have misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause for the end of an error sentence, such as " (did you mean 'crop'?)", or ""."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f" (did you mean {' or '.join(repr(match) for match in near)}?)" if near else ""

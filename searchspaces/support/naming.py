"""Near matches for names that a user may have misspelt."""

import difflib
from collections.abc import Iterable

_ALIKE = 0.5  # how alike two names must be, as difflib counts it


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that are spelt much like ``name``, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=_ALIKE)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause for the end of an error: " (did you mean 'crop'?)", or "" without a match."""
    near = near_matches(name, known)
    return f" (did you mean {' or '.join(repr(match) for match in near)}?)" if near else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'crop'?" for a misspelt name, else "known are" with all of them."""
    known = sorted(known)
    near = near_matches(name, known)
    if near:
        return f"did you mean {' or '.join(repr(match) for match in near)}?"
    return f"known are {', '.join(repr(each) for each in known)}"

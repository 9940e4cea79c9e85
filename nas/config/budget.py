"""Budgets in words: '50M' for fifty million multiply-accumulates."""

import re

from nas.errors import StudyError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MOST = 10**18


def parse_macs(text: str) -> int:
    """Return the number of MACs (multiply-accumulates) that ``text`` states, e.g. ``"1.5M"``.

    Raises:
        StudyError: ``text`` is no positive number with an optional unit k, M or G.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmg]?)\s*", text.lower())
    macs = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
    if not 0 < macs <= _MOST:
        raise StudyError(
            f"'{text}' is no budget of MACs; give a positive number with k, M or G, e.g. 50M."
        )
    return round(macs)


def format_macs(macs: float) -> str:
    """Return MACs for people to read, e.g. ``"9.47M"``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if macs >= 0.9995 * size:  # 999.6k reads 1M
            digits = f"{macs / size:.3g}" if macs < 999.5 * size else f"{macs / size:.0f}"
            return f"{digits}{unit}"
    return f"{macs:.0f}"

"""Work that was begun under settings goes on under the same ones."""

from collections.abc import Mapping
from typing import Any

from searchspaces.support.errors import QuerynasError


def bind_settings(
    what: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    error: type[QuerynasError],
    remedy: str = "choose another --out, or restore that setting",
) -> None:
    """Refuse to go on with work that was begun under other settings.

    Args:
        what: The work, as a sentence begins: "The run 'runs/a'".
        before: The settings that it was begun with.
        now: The settings of today; each of them is compared.
        error: The error to raise.
        remedy: What to do about it.

    Raises:
        QuerynasError: The given kind of it, naming the first setting that differs.
    """
    for field, value in now.items():
        if before.get(field) != value:
            raise error(
                f"{what} was begun with {field} = {before.get(field)!r}, not {value!r}; {remedy}."
            )

"""The one error that bad data, a bad gallery or a bad loss configuration raises."""

from searchspaces.support.errors import QuerynasError


class CompatError(QuerynasError):
    """Says in one sentence what was found, what was expected and what to do about it."""

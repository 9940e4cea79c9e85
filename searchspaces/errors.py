"""The one error that a bad architecture, search space or backbone name raises."""

from searchspaces.support.errors import QuerynasError


class SearchSpaceError(QuerynasError):
    """Says in one sentence what was found, what was expected and what to do about it."""

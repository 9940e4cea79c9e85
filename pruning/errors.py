"""The one error that a network which cannot be pruned as asked raises."""

from searchspaces.support.errors import QuerynasError


class PruningError(QuerynasError):
    """Says in one sentence what was found, what was expected and what to do about it."""

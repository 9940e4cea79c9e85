"""The one error that a bad study, run folder or export request raises."""

from searchspaces.support.errors import QuerynasError


class StudyError(QuerynasError):
    """Says in one sentence what was found, what was expected and what to do about it."""

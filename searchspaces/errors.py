"""The one error that a bad architecture, search space or backbone name raises."""


class SearchSpaceError(ValueError):
    """Says in one sentence what was found, what was expected and what to do about it."""

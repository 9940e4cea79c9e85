"""The base of every error that is meant for a user."""


class QuerynasError(ValueError):
    """Says in one sentence what was found, what was expected and what to do about it."""

"""The base of every error that is meant for a user."""

LONGEST = 300  # characters of a sentence
_REASON = 100  # characters of what a library says was wrong
_MARK = " … "


class QuerynasError(ValueError):
    """Says in one sentence what was found, what was expected and what to do about it.

    Whatever the sentence quotes from outside, it stays one line of at most 300 characters that can
    be printed: of a longer one the middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_shortened(_printable(sentence), LONGEST))


def reason(error: BaseException) -> str:
    """Return what an error of a library says, as a short clause for a sentence of ours."""
    words = getattr(error, "strerror", None) or str(error)
    return _shortened(_printable(words), _REASON).rstrip(".") or type(error).__name__


def _printable(text: str) -> str:
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - len(_MARK)) // 2
    return f"{text[: most - len(_MARK) - end]}{_MARK}{text[-end:]}"

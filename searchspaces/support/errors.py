"""The base of every error that is meant for a user."""

_LONGEST = 300  # characters of a sentence
_MARK = " … "


class QuerynasError(ValueError):
    """Says in one sentence what was found, what was expected and what to do about it.

    Whatever the sentence quotes from outside, it stays one line of at most 300 characters that can
    be printed: of a longer one the middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_shortened(_printable(sentence)))


def _printable(text: str) -> str:
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def _shortened(sentence: str) -> str:
    if len(sentence) <= _LONGEST:
        return sentence
    end = (_LONGEST - len(_MARK)) // 2
    return f"{sentence[: _LONGEST - len(_MARK) - end]}{_MARK}{sentence[-end:]}"

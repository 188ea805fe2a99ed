"""What the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class BookError(Exception):
    """Something that the user can mend; its text is the one line shown. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


class Lacks(ValueError):
    """What a chapter wants and the models or data of this run do not have, in one line.

    Not an error of the reader's: in a whole book the driver ends such a chapter with that line.
    """


def nearest(word: str, names: Sequence[str]) -> str:
    """A hint for a misspelt name: the nearest one, or all of them."""
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"


def known(word: str, names: Sequence[str], problem: str) -> None:
    """Refuse a word that is none of the names: the problem, and the `nearest` name; exit code 2."""
    if word not in names:
        raise BookError(f"{problem}; {nearest(word, names)}", code=2)

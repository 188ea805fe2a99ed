"""Text with results in it: said where they are computed, read wherever the chapter is read."""

from __future__ import annotations

import json
import re

from cxrlib import guard
from cxrlib.core.kernel import SAID, in_notebook
from cxrlib.show.script import in_report, plain
from cxrlib.show.words import UNDEFINED

NOT_A_NUMBER = re.compile(r"[+-]?\bnan\b(?: ?%)?|<NA>")  # how Python writes what is undefined


def say(text: str) -> None:
    """Say a paragraph of the chapter, with results of this run in it.

    A notebook shows it as Markdown, a script prints it, the page of the chapter holds it as
    ordinary text: behind whatever else its cell shows.

    Parameters
    ----------
    text : str
        MyST, mostly an f-string. Braces of roles and directives are doubled in one:
        ``{{numref}}`fig-zeroshot-auc```. Estimates and counts format themselves
        (:mod:`cxrlib.show.words`); whatever Python writes as "nan" reads "undefined".

    Raises
    ------
    GuardError
        Credentialed data were loaded, and the text holds an identifier, date, file name or piece
        of a report.
    """
    _show(_checked(text))


def in_short(text: str, figure: str, found: str = "") -> None:
    """Say what this run found, in three or four sentences: the box under the chapter's question.

    Called where everything is known; the page puts it to the top, beside a small copy of the
    chapter's key figure.

    Parameters
    ----------
    text : str
        As in `say`.
    figure : str
        Label of the key figure, such as "fig-subgroup-gaps".
    found : str, optional
        One sentence of it for the preface, which has one of each chapter.

    Raises
    ------
    GuardError
        See `say`.
    """
    text = _checked(text)
    _show(text, f"**In short.** {text}", figure=figure, found=_checked(found))


def _checked(text):
    text = NOT_A_NUMBER.sub(UNDEFINED, text).strip("\n")
    return guard.text(text, "say") if guard.active() else text


def _show(text, titled=None, **short):
    """Display a text, with what the page needs to know of it; or print it."""
    readable = plain(titled or text)
    if not in_notebook():
        in_report(readable)
        return

    from IPython.display import display

    said = json.dumps({"text": text, **short})
    display({"text/markdown": readable, "text/plain": readable, SAID: said}, raw=True)

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
    _say(text, {})


def in_short(text: str, figure: str) -> None:
    """Say what this run found, in three or four sentences: the box under the chapter's question.

    Called where everything is known; the page puts it to the top, beside a small copy of the
    chapter's key figure.

    Parameters
    ----------
    text : str
        As in `say`.
    figure : str
        Label of the key figure, such as "fig-subgroup-gaps".

    Raises
    ------
    GuardError
        See `say`.
    """
    _say(text, {"figure": figure})


def _say(text, short):
    text = NOT_A_NUMBER.sub(UNDEFINED, text).strip("\n")
    if guard.active():
        text = guard.text(text, "say")
    shown = f"**In short.** {text}" if short else text
    if not in_notebook():
        in_report(plain(shown))
        return

    from IPython.display import display

    said = json.dumps({"text": text, **short})
    display({"text/markdown": plain(shown), "text/plain": plain(shown), SAID: said}, raw=True)

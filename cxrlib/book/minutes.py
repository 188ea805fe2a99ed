"""How long a chapter takes to read, counted from its page."""

from __future__ import annotations

import re

from nbformat import NotebookNode

RATE = 200  # words of prose a minute
SECONDS = {"figure": 30, "table": 30, "quiz": 30, "exercise": 120}

EXERCISE = re.compile(r"^\s*(?:`{3,}|:{3,})\{exercise(?:-start)?\}", re.MULTILINE)
# What stands in the text and is not read: fences, options of directives, comments, HTML, targets.
SILENT = re.compile(
    r"^\s*(?:`{3,}|:{3,}).*$|^\s*:[\w-]+:.*$|^%.*$|^\([\w-]+\)=$|<[^>]+>|(?<=\])\([^)]*\)|\{[\w:]+\}",
    re.MULTILINE,
)
MATH = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)  # a formula is one word
WORD = re.compile(r"\S*\w\S*")
FIGURE = "<figure>"
SIGNS = {"figure": FIGURE, "table": 'class="cxr-table', "quiz": 'class="cxr-quiz"'}


def minutes(notebook: NotebookNode) -> int:
    """Whole minutes, at least 1, that the page of an executed chapter takes.

    ``words / RATE`` minutes, and `SECONDS` for each figure, table, quiz and exercise. Words are
    those of the prose, without markup, and of the captions of figures; a formula is one word. Code
    is folded and not counted. Adults read 238 words a minute of non-fiction in silence (Brysbaert,
    J. Mem. Lang. 109:104047, 2019), and fewer where they have to reckon.

    Parameters
    ----------
    notebook : notebook
        As its page shows it, without what is folded: see `cxrlib.book.pages.for_students`.
    """
    prose, pages = [], []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose.append(cell.source)
        elif caption := cell.metadata.get("mystnb", {}).get("figure", {}).get("caption"):
            pages.append(FIGURE)
            prose.append(caption)
        pages += [o.get("data", {}).get("text/html", "") for o in cell.get("outputs", [])]
    text, shown = "\n\n".join(prose), "\n".join(pages)
    words = len(WORD.findall(MATH.sub(" x ", SILENT.sub(" ", text))))
    seconds = SECONDS["exercise"] * len(EXERCISE.findall(text))
    seconds += sum(SECONDS[what] * shown.count(sign) for what, sign in SIGNS.items())
    return max(1, round(words / RATE + seconds / 60))

"""The preface: films and findings of this run, put into its text when the pages are made.

The text (``book/index.md``) says where with comments of MyST: ``% films`` and ``% found``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrlib.book import real
from cxrlib.book.chapters import Chapter
from cxrlib.core.kernel import FIGURE, SAID

if TYPE_CHECKING:
    import pandas as pd

FILMS = ("fig-curation-real", "fig-films")  # the figure that the preface opens with: the first


def page(
    text: str,
    chapters: Sequence[Chapter],
    notebooks: Sequence[Path],
    entries: pd.DataFrame,
    stage: Path,
) -> str:
    """The preface with what this run found.

    Parameters
    ----------
    text : str
        Of ``index.md``.
    chapters, notebooks : sequences
        The chapters and where they were executed, in order.
    entries : DataFrame
        From :func:`cxrlib.papers.ledger.ledger`.
    stage : Path
        Folder of the pages; gets the picture.
    """
    films: dict[str, tuple] = {}
    found = []
    for chapter, path in zip(chapters, notebooks, strict=True):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        silent = bool(real.warning(notebook))  # what it found means nothing
        for cell in notebook["cells"]:
            data = [output.get("data", {}) for output in cell.get("outputs", [])]
            said = [json.loads("".join(d[SAID])) for d in data if SAID in d]
            name = f"{int(chapter.number)}, {chapter.title.partition(':')[0]}"
            link = f"[{name}](chapters/{chapter.name}.ipynb)"
            told = [s["found"] for s in said if s.get("found") and not silent]
            found += [f"- {text.rstrip('.')} ({link})." for text in told]
            figures = [json.loads("".join(d[FIGURE])) for d in data if FIGURE in d]
            pictures = ["".join(d["image/png"]) for d in data if "image/png" in d]
            if pictures and figures and figures[0]["name"] in FILMS:
                films[figures[0]["name"]] = (figures[0], pictures[0])
    first = next((_films(*films[name], stage) for name in FILMS if name in films), "")
    listed = "\n".join([*found, f"- {_ledger(entries)}"])
    return text.replace("% films", first).replace("% found", listed)


def _films(about, picture, stage):
    (stage / "films.png").write_bytes(base64.b64decode(picture))
    alt = " ".join(about["alt"].split())
    return f"```{{figure}} films.png\n:alt: {alt}\n\n{about['caption']}\n```"


def _ledger(entries):
    """How the papers' numbers and claims fared, in a sentence."""
    verdicts = entries["verdict"].value_counts()
    told = "; ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    return f"Of {len(entries)} numbers and claims in print, the [ledger](ledger.md) says: {told}."

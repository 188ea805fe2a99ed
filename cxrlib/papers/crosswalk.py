"""From the papers to the book: where each section, table, figure and equation is answered.

The list of what the papers hold is ``artefacts.csv``. Which chapter answers what, and with
which figure, stands in the header of the chapter (`cxrlib.book.chapters.Chapter.about`); how the
printed numbers and the claims fared comes from the ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from cxrlib.core.errors import BookError, nearest
from cxrlib.core.kernel import FIGURE
from cxrlib.papers.ledger import NAMES, SAID, anchor
from cxrlib.papers.published import VERDICTS

WORDS = "in words only"
NOTHING = "nothing printed to compare with"
NOT_ANSWERED = "not answered"
PANEL = r"[a-d]$"  # of a figure


def artefacts() -> pd.DataFrame:
    """What the papers hold: DataFrame with paper, artefact, shows and key ("S Table 1")."""
    table = pd.read_csv(Path(__file__).with_name("artefacts.csv"), dtype=str)
    return table.assign(key=table["paper"] + " " + table["artefact"])


def covered(name: str, keys: Sequence[str]) -> list[str]:
    """The artefacts that a name stands for: itself, or all panels of a figure ("S Fig. 2")."""
    return [key for key in keys if key == name or re.sub(PANEL, "", key) == name]


def answers(chapters: Sequence, labels: set[str]) -> dict[str, list[tuple]]:
    """Which chapters answer what.

    Parameters
    ----------
    chapters : list of Chapter
    labels : set of str
        The figures of the executed chapters, see `figures`.

    Returns
    -------
    dict of key -> list of (Chapter, str)
        The chapter and the label of its figure, or "".

    Raises
    ------
    BookError
        A chapter answers what no paper holds, or names a figure that no chapter shows.
    """
    keys = list(artefacts()["key"])
    found = {key: [] for key in keys}
    for chapter in chapters:
        for name, label in chapter.about["answers"].items():
            known = covered(name, keys)
            if not known:
                raise BookError(
                    f"{chapter.path.name}: 'answers' names {name!r}, which neither paper holds "
                    f"(cxrlib/papers/artefacts.csv); {nearest(name, keys)}"
                )
            written = any(f'"{label}"' in cell.source for cell in chapter.notebook.cells)
            if label not in labels and written:
                label = ""  # credentialed data did not allow to show it
            if label and label not in labels:
                raise BookError(
                    f"{chapter.path.name}: 'answers' gives {name!r} the figure {label!r}, which no "
                    f"chapter shows; {nearest(label, sorted(labels))}"
                )
            for key in known:
                found[key].append((chapter, label))
    return found


def figures(notebooks: Iterable[Path]) -> set[str]:
    """The labels of the figures in executed notebooks."""
    labels = set()
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if about := output.get("data", {}).get(FIGURE):
                    labels.add(json.loads("".join(about))["name"])
    return labels


def places(entry: pd.Series, keys: Sequence[str]) -> list[str]:
    """The artefacts to which an entry of the ledger belongs.

    Parameters
    ----------
    entry : row of `cxrlib.papers.ledger.ledger`
        A number is of one table, figure or section; a claim of each section or figure in its
        place, such as "Abstract; sections 3.2, 4".
    keys : list of str
    """
    text = entry["place"] if entry["artefact"] == SAID else entry["artefact"]
    names = re.findall(r"(?:Table|Fig\.|Eq\.) \d+[a-d]?|\d+(?:\.\d+)?", text)
    return [key for name in names for key in covered(f"{entry['paper']} {name}", keys)]


def status(answered: list[tuple], entries: pd.DataFrame) -> str:
    """How an artefact fared, in words; each count leads to its entries in the ledger.

    Parameters
    ----------
    answered : list of (Chapter, str)
        See `answers`.
    entries : DataFrame
        The entries of the ledger that belong to it.
    """
    said = entries["artefact"] == SAID
    parts = []
    for kind, part in (("number", entries[~said]), ("claim", entries[said])):
        if len(part):
            counts = part["verdict"].value_counts()
            verdicts = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if v in counts)
            counted = f"{len(part)} {kind}{'s' if len(part) > 1 else ''}"
            where = anchor(*part[["paper", "artefact"]].iloc[0])
            parts.append(f"[{counted}](#{where}): {verdicts}")
    if not answered:
        parts.insert(0, NOT_ANSWERED)
    elif not parts:
        parts = [NOTHING if any(label for _, label in answered) else WORDS]
    return "; ".join(parts)


def crosswalk(chapters: Sequence, labels: set[str], entries: pd.DataFrame) -> pd.DataFrame:
    """One row for each artefact of both papers.

    Parameters
    ----------
    chapters : list of Chapter
    labels : set of str
        See `figures`.
    entries : DataFrame
        See `cxrlib.papers.ledger.ledger`.

    Returns
    -------
    DataFrame : paper, artefact, shows, key, answered (see `answers`) and status

    Raises
    ------
    BookError
        See `answers`.
    """
    table = artefacts()
    answered = answers(chapters, labels)
    belongs = [places(entry, list(table["key"])) for _, entry in entries.iterrows()]
    of = {key: entries[[key in keys for keys in belongs]] for key in table["key"]}
    return table.assign(
        answered=table["key"].map(answered),
        status=[status(answered[key], of[key]) for key in table["key"]],
    )


PAGE = Path(__file__).with_name("crosswalk.md").read_text(encoding="utf-8")


def page(chapters: Sequence, notebooks: Iterable[Path], entries: pd.DataFrame) -> str:
    """The crosswalk as a page of the book: MyST text.

    Parameters
    ----------
    chapters : list of Chapter
    notebooks : list of Path
        The executed chapters.
    entries : DataFrame
        See `cxrlib.papers.ledger.ledger`.
    """
    table = crosswalk(chapters, figures(notebooks), entries)
    n_answered = int(table["answered"].map(bool).sum())
    lines = [PAGE.format(n=len(table), n_answered=n_answered, words=WORDS, nothing=NOTHING)]
    for paper, block in table.groupby("paper", sort=False):
        lines += [f"## {NAMES[paper]}", "", "```{table}", ":class: cxr-table cxr-wordy", ""]
        lines += ["| in the paper | what it shows | in the book | status |", "|---|---|---|---|"]
        for _, row in block.iterrows():
            where = row["artefact"]
            where = f"Section {where}" if where[0].isdigit() else where
            book = "; ".join(_link(*answer) for answer in row["answered"]) or "–"
            lines.append(f"| {where} | {row['shows']} | {book} | {row['status']} |")
        lines += ["```", ""]
    return "\n".join(lines)


def _link(chapter, label):
    link = f"[](chapters/{chapter.name}.ipynb)"
    return f"{link}, {{numref}}`{label}`" if label else link

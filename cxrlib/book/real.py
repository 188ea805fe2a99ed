"""A book on real films: which chapters they are enough for, and what its preface says is real."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cxrlib.book import record
from cxrlib.book.chapters import Chapter
from cxrlib.core.kernel import MEANINGLESS

BY_DEFAULT = re.compile(r"^% by default\n(.*?)^% end\n", re.DOTALL | re.MULTILINE)
"""What the preface says of a book on phantoms alone."""


def allowed(every: Sequence[Chapter], values: dict[str, dict]) -> tuple[dict, dict[str, str]]:
    """Parameters with which every chapter of a book can run, and which chapters are on phantoms.

    A chapter that asks more of real films than their folder holds
    (:func:`cxrlib.cohorts.check_data.lacking`) keeps the phantoms of its defaults. The book is
    then whole, and each such page says at its top what it is and why. A chapter run by itself is
    not treated so: it says what it lacks.

    Parameters
    ----------
    every : sequence of Chapter
    values : dict
        Name of each chapter -> its parameters that differ from the defaults.

    Returns
    -------
    (dict, dict)
        The values, without ``data`` and ``options`` of these chapters; and name of a chapter -> why
        it is on phantoms, in MyST.
    """
    given = [v for v in values.values() if v.get("data", "phantom") != "phantom"]
    if not given:
        return values, {}
    from cxrlib.cohorts.check_data import CHAPTERS, lacking  # pandas takes a while

    values, why = dict(values), {}
    needs = {n: need for need, numbers in CHAPTERS.items() for n in numbers}
    for chapter in every:
        mine = values[chapter.name]
        name, need = mine.get("data", "phantom"), needs.get(int(chapter.number))
        if name == "phantom" or need is None:
            continue
        missing = lacking(name, mine.get("options", {}))
        if need in missing:
            what, cure = missing[need]
            why[chapter.name] = f"`data={name}` is not enough for it: {what}; it needs {cure}"
            values[chapter.name] = {k: v for k, v in mine.items() if k not in ("data", "options")}
    return values, why


def note(why: str) -> str:
    """The box at the top of a page that is on phantoms in a book on real films."""
    title = ":::{admonition} This page is about phantoms"
    return f"{title}\n:class: warning\n\nThe other films of this book are real. {why}.\n:::"


def preface(
    text: str, chapters: Sequence[Chapter], notebooks: Sequence[Path], why: dict[str, str]
) -> str:
    """The preface with what is real in this book in place of what a book on phantoms says.

    Parameters
    ----------
    text : str
        Of ``index.md``, with ``% by default`` and ``% end`` around what is replaced.
    chapters, notebooks : sequences
        In order.
    why : dict
        From :func:`allowed`.
    """
    cohorts: dict[str, dict] = {}
    on: dict[str, list[str]] = {}
    models = set()
    for chapter, path in zip(chapters, notebooks, strict=True):
        card = record.card_of(path)
        real = [c for c in card.get("cohorts", []) if "films" in c]
        for cohort in real:
            cohorts[cohort["name"]] = cohort
            on.setdefault(cohort["name"], []).append(_link(chapter))
        models |= {m["name"] for m in card.get("models", [])} if real else set()
    if not cohorts:
        return BY_DEFAULT.sub(r"\1", text)
    lines = [":::{admonition} What is real in this book", ":class: important", ""]
    lines += [
        f"- *{name}*: {c['films']:,} **real films** of {c['patients']:,} patients, in "
        f"{'chapter' if len(on[name]) == 1 else 'chapters'} {', '.join(on[name])}. {c['credit']}"
        for name, c in cohorts.items()
    ]
    lines += [f"- {_link(c)} is on phantoms: {why[c.name]}." for c in chapters if c.name in why]
    lines += ["- Every other film is a phantom: drawn by a program, with planted effects."]
    if drawn := sorted(name for name in models if name.startswith("phantom-")):
        lines += [
            f"- {', '.join(drawn)} learned from phantoms and never saw a real film. What chapters "
            "compute of them on real films means nothing; it is left out below."
        ]
    return BY_DEFAULT.sub("\n".join([*lines, ":::"]).replace("\\", r"\\") + "\n", text)


def _link(chapter):
    return f"[{int(chapter.number)}](chapters/{chapter.name}.ipynb)"


def warning(notebook: dict) -> str:
    """The title of the warning that numbers of an executed chapter mean nothing; "" without one."""
    pattern = re.compile(MEANINGLESS + r'"><p class="admonition-title">([^<]+)<')
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if found := pattern.search("".join(output.get("data", {}).get("text/html", ""))):
                return found[1]
    return ""

"""Metric cards: what each number in the tables is, read from the docstrings that define it.

A docstring carries the fields of a card as a reST field list (``:Range: [0, 1]``). So the page of
the book, `help` in a terminal and the code cannot drift apart.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

FIELDS = ("Formula", "Source", "Range", "Direction", "Zero means", "Undefined when", "Look-alikes")
DIRECTIONS = ("higher is better", "lower is better", "closer to 0 is better")

PAGE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


class Card(NamedTuple):
    """What a reader needs to know about one metric; the texts are MyST with inline maths."""

    name: str  # in results tables
    function: str  # where it is computed
    summary: str
    formula: str
    source: str
    range: str
    direction: str  # begins with one of DIRECTIONS
    zero_means: str
    undefined_when: str
    look_alikes: str


def cards() -> list[Card]:
    """The card of every metric, in the order of the page: list of Card."""
    return [
        card(name, resolve_name(f"cxrlib.stats.{function}"))
        for section in PAGE["section"]
        for name, function in section["metrics"].items()
    ]


def card(name: str, function: Callable) -> Card:
    """The card of one metric.

    Parameters
    ----------
    name : name in results tables
    function : callable, its docstring ends with the fields `FIELDS`, in this order

    Raises
    ------
    ValueError
        For a missing field, an unknown one or an unknown direction; names metric and field.
    """
    doc, where = inspect.getdoc(function) or "", f"{function.__module__}.{function.__qualname__}"
    parts = re.split(r"^:([A-Z][\w -]*):", doc, flags=re.MULTILINE)
    # split gives: the text before the fields, then name and text of each field in turn
    found = {
        key: " ".join(text.split()) for key, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    for field in (*FIELDS, *found):
        if field not in FIELDS or not found.get(field):
            what = "unknown field" if field not in FIELDS else "no field"
            raise ValueError(
                f"card of {name!r}: {what} {field!r} in the docstring of {where}; "
                f"expected {', '.join(FIELDS)}."
            )
    if not found["Direction"].startswith(DIRECTIONS):
        raise ValueError(
            f"card of {name!r}: field 'Direction' is {found['Direction']!r}; expected "
            f"{', '.join(DIRECTIONS)}."
        )
    summary = " ".join(doc.split("\n\n")[0].split())
    return Card(name, where, summary, *(found[field] for field in FIELDS))


def page() -> str:
    """All cards as one MyST page of the book: str."""
    known = {c.name: c for c in cards()}
    lines = [PAGE["introduction"]]
    for c in known.values():
        title = f"[{_title(c)[0]}](#{_anchor(c)})"
        lines.append(f"| {title} | `{c.name}` | {c.range} | {c.direction} |")
    for section in PAGE["section"]:
        lines += ["", f"## {section['title']}", "", section["text"]]
        for name in section["metrics"]:
            lines += ["", *_section(known[name])]
    return "\n".join(lines) + "\n" + PAGE["sources"]


def _section(c):
    """The lines of one card: the formula set apart, the other fields as a list of definitions."""
    title, rest = _title(c)
    lines = [f"({_anchor(c)})=", f"### {title}", ""]
    lines += [f"{rest} In tables `{c.name}`, computed by `{c.function}`.".strip()]
    formula, where = re.fullmatch(r"\$([^$]+)\$[,;]?\s*(.*)", c.formula).groups()
    lines += ["", "$$", formula, "$$", *(["", where] if where else [])]
    for field, text in list(zip(FIELDS, c[-len(FIELDS) :], strict=True))[1:]:
        lines += ["", field, f": {text}"]
    return lines


def _title(c):
    """A summary "Title, the rest." taken apart; the rest as a sentence of its own, or empty."""
    title, _, rest = c.summary.rstrip(".").partition(", ")
    return title, f"{rest[:1].upper()}{rest[1:]}." if rest else ""


def _anchor(c):
    return "metric-" + re.sub(r"\W+|_", "-", c.name).lower()

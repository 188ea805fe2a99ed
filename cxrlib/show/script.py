"""A chapter as a script prints a report: its prose, and between it what the code shows."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

WIDTH = 79
CELL = re.compile(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", re.MULTILINE)
ROLE = re.compile(r"\{[\w:]+\}`([^`]*)`")
FENCE = re.compile(r"^(?:`{3,}|:{3,})(?:\{([\w-]+)\})? *(.*)\n(?::[\w-]+:.*\n)*", re.MULTILINE)
_read = {}  # script -> the line up to which its prose was printed


def plain(text: str) -> str:
    """MyST as text that reads without its software: roles and fences of directives in words.

    ``{cite:p}`holm1979``` becomes `` `holm1979` ``, a block ``{exercise}`` begins with "Exercise".
    """
    text = ROLE.sub(r"`\1`", text)
    titled = FENCE.sub(lambda m: f"**{m[1].capitalize()}** {m[2]}\n" if m[1] else "", f"{text}\n")
    return titled[:-1]


def in_report(text: str) -> None:
    """Print what a chapter shows when it runs as a script, behind the prose above it."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__") != "__main__":
        frame = frame.f_back
    path = frame.f_globals.get("__file__")
    if path and frame.f_globals.get("__name__") == "__main__":
        print(*_prose(Path(path), frame.f_lineno), sep="", end="")
    print(_wrapped(text), end="\n\n")


def _prose(path, line):
    """The texts between what was printed last and a line, wrapped."""
    script, since = path.read_text(encoding="utf-8"), _read.get(path, 0)
    _read[path] = max(since, line)
    for cell in CELL.finditer(script):
        at = script.count("\n", 0, cell.start())
        if "[markdown]" in cell[1] and since <= at < line:
            yield _wrapped(plain(re.sub("^# ?", "", cell[2], flags=re.MULTILINE))) + "\n\n"


def _wrapped(text):
    """Paragraphs filled to the width of a terminal; lists and tables keep their lines."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    keep = re.compile(r"^(?:[-*#>] |\||\d+\. | {2})", re.MULTILINE)
    filled = (b if keep.search(b) else textwrap.fill(b, WIDTH) for b in blocks)
    return "\n\n".join(filled)

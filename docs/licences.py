"""Writes licences.md: every locked package with the licence as its own metadata have it.

    .venv/bin/python docs/licences.py

A package that is not installed here, as it is for another system or Python, keeps its row.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

PAGE = Path(__file__).with_name("licences.md")
LOCK = Path(__file__).parent.parent / "requirements.lock"
HEAD = "| Package | Licence |\n|---|---|\n"
NOT_READ = "not read here"


def locked() -> list[str]:
    """Names of the packages in the lock."""
    return sorted(set(re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)))


def licence(name: str) -> str | None:
    """What a package says: an SPDX expression, classifiers, or a word of its own; None where it is
    not installed.
    """
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return None
    kinds = [line for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    found = [kind.split(" :: ")[-1] for kind in kinds if kind != "License :: OSI Approved"]
    files = ", ".join(about.get_all("License-File", []))
    stated = about.get("License-Expression") or "; ".join(found) or about.get("License", "").strip()
    return stated.partition("\n")[0] or (f"see its file {files}" if files else "not stated")


def rows(page: str) -> dict[str, str]:
    """Package to licence, of the table in a text."""
    return dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", page.partition(HEAD)[2], re.MULTILINE))


def table(page: str) -> dict[str, str]:
    """The rows as they should be, given those of the page."""
    before = rows(page)
    return {name: licence(name) or before.get(name, NOT_READ) for name in locked()}


if __name__ == "__main__":
    text = PAGE.read_text()
    lines = [f"| {name} | {stated} |\n" for name, stated in table(text).items()]
    PAGE.write_text(text.partition(HEAD)[0] + HEAD + "".join(lines))

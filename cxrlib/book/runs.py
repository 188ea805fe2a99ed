"""Runs with a name: their folders, and the page that shows each beside the book's own."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from cxrlib.book import manifest, record
from cxrlib.book.chapters import Chapter
from cxrlib.book.pages import csv_link
from cxrlib.book.run import fingerprint, parameters_of
from cxrlib.core.errors import BookError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
SHOWN = 15  # rows of a table on the page


def place(
    root: Path, name: str, chosen: list[Chapter], given: dict, profile: dict, replace: bool = False
) -> Path:
    """The folder for a run of that name.

    Parameters
    ----------
    root : Path
    name : str
    chosen : list of Chapter
    given, profile : dict
        See :func:`cxrlib.book.run.run`.
    replace : bool
        Whether runs of the same name with other parameters may be written over.

    Raises
    ------
    BookError
        With exit code 2: the name is no simple word, or taken, or a parameter is refused.
    """
    folder = root / "_build" / "runs" / simple(name)
    values = parameters_of(chosen, given, profile)
    for chapter, mine in values.items():
        card = {} if replace else record.card_of(folder / f"{chapter}.ipynb")
        before = {parameter: card["parameters"][parameter] for parameter in card.get("given", ())}
        if card and before != as_kept(mine):
            said = ", ".join(f"{k}={v}" for k, v in before.items()) or "the defaults"
            what = f"chapter {chapter} was run under this name with other parameters"
            raise taken(name, what, said)
    return folder


def simple(name: str) -> str:
    """The name, if it will do for a folder and a heading."""
    if not NAME.fullmatch(name):
        raise BookError(
            f"--name {name}: expected one word of up to 40 letters, digits, - and _", code=2
        )
    return name


def as_kept(values: dict) -> dict:
    """Values as JSON gives them back."""
    return json.loads(json.dumps(values, default=str))


def taken(name: str, what: str, said: str) -> BookError:
    """What is said where something else was kept under a name."""
    return BookError(
        f"--name {name}: {what} ({said}); choose another name, or add --replace", code=2
    )


def named(root: Path) -> list[tuple[str, Path]]:
    """The runs with a name: list of (name, executed notebook), in order."""
    paths = sorted((root / "_build" / "runs").glob("*/[0-9][0-9]_*.ipynb"))
    return [(p.parent.name, p) for p in paths if record.card_of(p).get("name") == p.parent.name]


def reference_of(root: Path, chapter: str) -> tuple[record.Run | None, str]:
    """The book's own run of a chapter, and "" or why there is none: (Run or None, str)."""
    path = root / "book" / "chapters" / f"{chapter}.ipynb"
    if not path.is_file():
        return None, f"the book has not run this chapter yet: cxrbook run {chapter[:2]}"
    try:
        return record.read(path), ""
    except BookError as error:
        return None, str(error)


def beside_ours(root: Path, path: Path) -> str:
    """What ``cxrbook run --name`` prints of an executed notebook: where it is and what differs."""
    files = [path, *record.beside(path)]
    kinds = ("notebook", "card", "results")
    lines = [f"{kind}: {file}" for kind, file in zip(kinds, files, strict=True)]
    reference, problem = reference_of(root, path.stem)
    if reference is None:
        return "\n".join([*lines, f"nothing to compare with: {problem}"])
    from cxrlib.book import compare_runs

    found = compare_runs.compare(reference, record.read(path))
    return "\n".join([*lines, compare_runs.as_text(found)])


# --- the page ------------------------------------------------------------------------------------

INTRODUCTION = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")


def state(root: Path) -> str:
    """Changes whenever the page of the runs would: a hash over all named runs."""
    every = named(root)
    paths = [file for _, path in every for file in (path, *record.beside(path))]
    return fingerprint([p for p in paths if p.is_file()], [name for name, _ in every])


def page(root: Path, tables: Path, shown: bool = True) -> str:
    """The page of all named runs, in MyST.

    Parameters
    ----------
    root : Path
    tables : Path
        Folder that gets the CSV files behind the page.
    shown : bool
        Whether runs belong to this book; otherwise the page says how to make one.
    """
    none = "There is none here yet.\n" if shown else "This book shows none.\n"
    parts = [_section(root, *run, tables) for run in named(root)] if shown else []
    return "\n".join([INTRODUCTION, *(parts or [none])])


def _section(root, name, path, tables):
    from cxrlib.book import compare_runs

    title = f"## {name}, chapter {int(path.stem[:2])}\n\nOf [](chapters/{path.stem}.ipynb).\n"
    try:
        run = record.read(path)
    except BookError:
        return f"{title}\nNot shown: its files are incomplete. Run it again.\n"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if hits := record.hits(run.card, run.table, notebook, path.stem):
        kinds = ", ".join(sorted({hit.kind for hit in hits}))
        return f"{title}\nNot shown: it holds what must not leave its folder ({kinds}).\n"
    lines = [title, _short(run.card)]
    reference, problem = reference_of(root, path.stem)
    if reference is None:
        return "\n".join([*lines, f"Nothing to compare with: {html.escape(problem)}\n"])
    found = compare_runs.compare(reference, run)
    label = f"{name}-{path.stem}"
    lines.append(_table(found.parameters, "Parameters that differ"))
    lines.append(f"In the results table: {html.escape(compare_runs.summary(found.numbers))}.\n")
    lines += [f"- {html.escape(note)}\n" for note in found.notes]
    both = found.numbers[found.numbers["in"] == "both"]
    changed = both[both["difference"] != 0]
    if len(changed):
        link = _csv(found.numbers, f"run-{label}", tables, "all numbers of both")
        shown = compare_runs.largest(changed, SHOWN)
        lines.append(
            _table(shown, f"The largest differences, {len(shown)} of {len(changed)}", link)
        )
    if len(found.texts):
        link = _csv(found.texts, f"run-{label}-text", tables, "all that differ")
        texts = compare_runs.excerpts(found.texts.head(SHOWN))
        caption = f"Where the text differs, {len(texts)} of {len(found.texts)} paragraphs"
        lines.append(_table(texts, caption, link))
    return "\n".join(lines)


def _short(card):
    """The card of a run as a table of two columns."""
    import pandas as pd

    code = card["code"]
    revision = (code["revision"] or "")[:10]
    version = f"library {code['library'][:10]}"
    version += f", git {revision}{' with changes' if code['changed'] else ''}" if revision else ""
    cohorts = dict.fromkeys(f"{c['name']} ({c['fingerprint']})" for c in card["cohorts"])
    models = dict.fromkeys(
        f"{m['name']} ({m['weights'][:10]}, {m['protocol']})" for m in card["models"]
    )
    minutes, seconds = divmod(round(card["seconds"]), 60)
    rows = {
        "date": card["date"],
        "command": manifest.again(card),
        "code": version,
        "seeds": ", ".join(map(str, card["seeds"])) or "none",
        "cohorts": _few(cohorts),
        "models": _few(models),
        "device": card["gpu"] or card["device"],
        "time and memory": f"{minutes} min {seconds} s, {card['memory_mb']} MB at most",
        "Python and torch": f"{card['python']}, {card['packages']['torch']}",
    }
    return _table(pd.DataFrame({"of this run": rows}).rename_axis("card"), "Card")


def _few(entries, n=6):
    entries = list(entries)
    more = f" and {len(entries) - n} more" if len(entries) > n else ""
    return (", ".join(entries[:n]) + more) or "none"


def _table(table, caption, link=""):
    """A table of text for the page; nothing for an empty one."""
    if table.empty:
        return ""
    from cxrlib.show.notebook import rendered

    page = rendered(table.rename(columns={"run": "this run"}), caption, counts=())[0]
    return page.replace("</p>", f" {link}</p>", 1) + "\n"


def _csv(table, name, tables, what):
    """Write a CSV for the page; the link to it."""
    tables.mkdir(parents=True, exist_ok=True)
    table.to_csv(tables / f"{name}.csv", index=False, lineterminator="\n")
    return csv_link(f"tables/{name}.csv", f"{what} (CSV)", f"{what} as CSV: {name}")

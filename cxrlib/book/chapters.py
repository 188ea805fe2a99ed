"""The chapters: where they are, which parameters they declare, and their paired notebooks.

A chapter is a jupytext ``py:percent`` script ``chapters/NN_name.py``. Everything else (the paired
``.ipynb`` without outputs, the executed notebook, the page) is made from it.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrlib.book.parameters import Parameter, declared, pairs, refuse_unknown, validate
from cxrlib.core.errors import BookError, Lacks, nearest
from cxrlib.core.folders import LIBRARY

if TYPE_CHECKING:
    from nbformat import NotebookNode

INJECTED = "# Parameters\n"  # how the cell begins that papermill puts behind the declarations
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# What jupytext writes into a script of a notebook's metadata; the same as in jupytext.toml.
FILTERS = {"notebook_metadata_filter": "chapter,-all", "cell_metadata_filter": "tags,-all"}
FOLDED = {"hide-input", "remove-input", "remove-cell"}  # tags
HEADER = re.compile(r"# ---\n.*?^# ---\n", re.DOTALL | re.MULTILINE)
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)  # the line with which a cell begins, in a script
TITLE = re.compile(r"^# # (.+)$", re.MULTILINE)
TAGGED = re.compile(r'\btags=\[[^]]*"parameters"')


@dataclass(frozen=True)
class Chapter:
    """A chapter by the path of its script.

    Title and parameters are read from the script as it stands, since jupytext takes a second to
    import.
    """

    path: Path

    @property
    def name(self) -> str:
        """Such as "02_zero_shot"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Two digits."""
        return self.name[:2]

    @cached_property
    def text(self) -> str:
        """The script, without the byte order mark that some editors write.

        Raises
        ------
        BookError
            It is not UTF-8.
        """
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise BookError(
                f"{self.path.name}: line {line} is not UTF-8 text; save the file in that encoding"
            ) from None

    @cached_property
    def _cells(self) -> list[tuple[str, str]]:
        """What stands behind ``# %%``, and the lines of the cell."""
        parts = CELL.split(self.text)
        return list(zip(parts[1::2], parts[2::2], strict=True))

    @cached_property
    def notebook(self) -> NotebookNode:
        """The chapter as a notebook without outputs; cell ids follow the order of the cells."""
        import jupytext
        import nbformat

        notebook = jupytext.reads(self.text, fmt="py:percent")
        for i, cell in enumerate(notebook.cells):
            cell.id = f"cell-{i:03d}"
            if FOLDED & set(cell.metadata.get("tags", [])):  # JupyterLab folds what a page hides
                cell.metadata["jupyter"] = {"source_hidden": True}
        about = notebook.metadata.get("chapter", {})
        about = {"chapter": about, "kernelspec": KERNEL, "language_info": {"name": "python"}}
        notebook.metadata = nbformat.from_dict(about)
        notebook.nbformat, notebook.nbformat_minor = 4, 5
        return notebook

    @property
    def about(self) -> dict[str, Any]:
        """What the header of the script says of the chapter.

        ``answers``: dict of a paper's section, table, figure or equation -> the label of the figure
        here that answers it, or "" where the text does; ``goals``: list of str; ``needs``: names of
        chapters to read first. What is not said is empty.
        """
        empty: dict[str, Any] = {"answers": {}, "goals": [], "needs": []}
        return empty | dict(self.notebook.metadata["chapter"])

    @property
    def title(self) -> str:
        """The first level-one heading, or the name where there is none."""
        texts = (text for head, text in self._cells if "[markdown]" in head)
        found = next(filter(None, map(TITLE.search, texts)), None)
        return found[1].strip() if found else self.name

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """dict of name -> Parameter, read from the cell tagged ``parameters``."""
        tagged = [text for head, text in self._cells if TAGGED.search(head)]
        if len(tagged) != 1:
            raise BookError(
                f"{self.path.name}: {len(tagged)} cells are tagged 'parameters'; "
                'one is needed: # %% tags=["parameters"]'
            )
        return declared(tagged[0], self.path.name)


def find_root() -> Path:
    """The project's folder: the current one when it holds the book, else the one of this library.

    Raises
    ------
    BookError
        Neither holds a ``_toc.yml``.
    """
    for folder in (Path.cwd(), LIBRARY.parent):
        if (folder / "_toc.yml").is_file():
            return folder
    raise BookError("no book here: run this in the project's folder (the one with _toc.yml)")


def chapters(root: Path) -> list[Chapter]:
    """All chapters of the book at `root`, in order."""
    found = sorted((root / "chapters").glob("[0-9][0-9]_*.py"))
    if not found:
        raise BookError(f"no chapters in {root / 'chapters'} (files named NN_name.py)")
    for one, other in pairwise(found):
        if one.name[:2] == other.name[:2]:
            raise BookError(f"{one.name} and {other.name} have one number; rename one")
    return [Chapter(path) for path in found]


def find(root: Path, query: str) -> list[Chapter]:
    """The chapters that `query` names: ``"all"``, ``"2"``, ``"02"``, ``"zero_shot"`` or
    ``"02_zero_shot"``."""
    every = chapters(root)
    if query == "all":
        return every
    wanted = query.removesuffix(".py").removesuffix(".ipynb").replace("-", "_").lower()
    wanted = wanted.zfill(2) if wanted.isdigit() else wanted
    for chapter in every:
        if wanted in (chapter.number, chapter.name, chapter.name[3:]):
            return [chapter]
    names = [c.name[3:] for c in every]
    raise BookError(f"no chapter {query!r}; {nearest(wanted, names)}", code=2)


def assign(chosen: Sequence[Chapter], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Which parameters go to which chapter, checked as `cxrlib.book.parameters.validate` does.

    Parameters
    ----------
    chosen : list of Chapter
    given : dict
        name -> value, or name -> text as typed on the command line. With several chapters a
        parameter goes to each one that declares it.

    Returns
    -------
    dict
        chapter name -> dict of the values that differ from the declared defaults.
    """
    alone = len(chosen) == 1
    declared = {name for chapter in chosen for name in chapter.parameters}
    for name in given:
        refuse_unknown(name, declared, f"chapter {chosen[0].name}" if alone else "any chapter")
    values = {}
    for chapter in chosen:
        mine = {name: given[name] for name in chapter.parameters if name in given}
        mine = validate(chapter.parameters, mine, f"chapter {chapter.name}")
        values[chapter.name] = {k: v for k, v in mine.items() if v != chapter.parameters[k].default}
    return values


def pair_text(chapter: Chapter) -> str:
    """The content of the paired notebook, the same on every machine."""
    import nbformat

    return nbformat.writes(chapter.notebook) + "\n"


def script_text(chapter: Chapter) -> str:
    """The script with its header as jupytext writes it, and all else as it is.

    So a notebook that is saved in JupyterLab changes in its script only what was edited.
    """
    import jupytext

    text = chapter.text
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["jupytext"] = dict(FILTERS)
    header = HEADER.match(jupytext.writes(notebook, fmt="py:percent"))
    return HEADER.sub(lambda _: header[0], text, count=1) if header else text


def out_of_sync(root: Path) -> tuple[list[Path], list[Path]]:
    """Paths of paired notebooks that are missing, differ from their script, or have none.

    Among the first are scripts whose header has another form than jupytext's.
    """
    every = chapters(root)
    pairs = {c.path.with_suffix(".ipynb"): c for c in every}
    text_of = {path: pair_text(c) for path, c in pairs.items()}
    text_of |= {c.path: script_text(c) for c in every}
    there = {p: p.read_text(encoding="utf-8", errors="replace") for p in text_of if p.is_file()}
    stale = [path for path, text in text_of.items() if there.get(path) != text]
    orphans = [p for p in sorted((root / "chapters").glob("*.ipynb")) if p not in pairs]
    return stale, orphans


def sync(root: Path) -> list[Path]:
    """Write the paired notebooks that are out of date, and headers; return their paths."""
    stale, orphans = out_of_sync(root)
    if orphans:
        raise BookError(
            f"{orphans[0].name} has no script {orphans[0].stem}.py: remove one, add one"
        )
    for path in stale:
        text = script_text if path.suffix == ".py" else pair_text
        path.write_text(text(Chapter(path.with_suffix(".py"))), encoding="utf-8")
    return stale


# --- the first cell of a chapter ----------------------------------------------------------------


def check(names: dict[str, Any]) -> None:
    """Check the parameters of the chapter that is running; stop it where one cannot be.

    Then all figures get one look.

    In a notebook, what papermill injected; in a script, what stands behind ``-p NAME=VALUE`` on its
    command line, which is assigned first; and in both, the values as they are now.

    Parameters
    ----------
    names : dict
        ``globals()`` of the chapter.

    Raises
    ------
    BookError
        See `validate`. A script ends with exit code 2 and the one line instead.
    """
    from cxrlib.show.notebook import setup  # pandas, which it imports, costs a second

    history = names.get("In")
    if history is not None:
        parameters = declared(_declarations(history), "this notebook")
        injected = next((c for c in reversed(history) if c.startswith(INJECTED)), "")
        every = (node for node in ast.walk(ast.parse(injected)) if isinstance(node, ast.Name))
        given = [name.id for name in every if isinstance(name.ctx, ast.Store)]
        now = {name: names.get(name) for name in [*parameters, *given]}
        names.update(validate(parameters, now, "this notebook"))
        setup()
        return
    path = Path(names["__file__"])
    try:
        parameters = Chapter(path).parameters
        now = {name: names[name] for name in parameters} | _arguments(parameters)
        names.update(validate(parameters, now, f"chapter {path.stem}"))
    except BookError as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        raise SystemExit(error.code) from None
    sys.excepthook = _say_what_is_lacking
    setup()


def _say_what_is_lacking(kind, error, trace):
    """How a script ends: in one line where its reader can mend it."""
    if issubclass(kind, BookError | Lacks):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _declarations(history):
    """The source of the parameters cell among the cells that ran."""
    for source in reversed(history):
        if source.strip() and not source.startswith(INJECTED):
            try:
                body = ast.parse(source).body
            except SyntaxError:  # a cell with a magic
                continue
            if body and all(isinstance(node, ast.AnnAssign) for node in body):
                return source
    raise BookError("the parameters cell was not run: run the chapter from its first cell", code=2)


def _arguments(parameters):
    """NAME=VALUE pairs of the command line of a script."""
    parser = argparse.ArgumentParser(
        description="Run this chapter as a script.",
        epilog="Parameters: " + "; ".join(f"{p.name} ({p.help})" for p in parameters.values()),
    )
    parser.add_argument(
        *("-p", "--parameter"), action="append", default=[], metavar="NAME=VALUE", dest="pairs"
    )
    return pairs(parser.parse_args().pairs)

"""From an executed chapter to its page: numbers, text alternatives, downloads, editions.

Nothing is computed here. A chapter leaves records in its outputs (`cxrlib.show.notebook`); this
puts them where the book's software looks for them.
"""

from __future__ import annotations

import base64
import html
import json
import re
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from cxrlib.book import parameters, real
from cxrlib.book.chapters import Chapter
from cxrlib.book.minutes import minutes
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import CSV, DOWNLOAD, FIGURE, NUMBER, SAID

TEACHER, STUDENT = "teacher", "student"  # editions
FILES = (("script", "py"), ("notebook", "ipynb"))  # that a page offers
# Blocks and cells of a chapter that students do not get.
FENCES = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?:solution|teacher)\}.*?^(?P=fence)[ \t]*\n?",
    re.DOTALL | re.MULTILINE,
)
START = "```{solution-start}\n"
SOLUTIONS = re.compile(
    r"^(?:`{3,}|:{3,})\{solution-start\}"
    r".*?(?:^(?P<fence>`{3,}|:{3,})\{solution-end\}.*?^(?P=fence)[ \t]*\n?|(?P<open>\Z))",
    re.DOTALL | re.MULTILINE,
)
SOLUTION = "solution"  # tag of code cells
HIDDEN = "remove-input"  # tag of cells whose code a page does not show
SHORT = "cxr-short"
COMMAND = "cxr-command"


def student_text(text: str, inside: bool = False) -> tuple[str, bool]:
    """A text without solutions and notes for teachers.

    Parameters
    ----------
    text : str
        MyST.
    inside : bool
        Whether it begins between the start and the end of a solution.

    Returns
    -------
    (str, bool)
        What is left, and whether a solution is still open at its end.
    """
    text = START + text if inside else text
    still_open = any(match["open"] is not None for match in SOLUTIONS.finditer(text))
    return FENCES.sub("", SOLUTIONS.sub("", text)), still_open


def for_students(notebook: NotebookNode) -> NotebookNode:
    """A chapter without its solutions and notes for teachers, in place.

    Left out are the blocks ``{solution}`` and ``{teacher}`` of the text, whatever stands between
    ``{solution-start}`` and ``{solution-end}``, and cells with the tag "solution".
    """
    kept, inside = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text, inside = student_text(cell.source, inside)
            cell.source = text.strip("\n")
            if not cell.source:
                continue
        if SOLUTION in cell.metadata.get("tags", []) or (inside and cell.cell_type == "code"):
            continue
        kept.append(cell)
    notebook.cells = kept
    return notebook


def write(path: Path, chapter: Chapter, stage: Path, edition: str = TEACHER, why: str = "") -> None:
    """Write the page of an executed chapter and its downloads below `stage`.

    Parameters
    ----------
    path : Path
        The executed notebook.
    chapter : Chapter
    stage : Path
        Gets ``chapters/NAME.ipynb``, ``downloads/NAME.py`` and ``.ipynb`` without outputs, and one
        ``extra/tables/*.csv`` for each table and figure with data.
    edition : {"teacher", "student"}
    why : str
        Why the page is on phantoms, in a book on real films.

    Raises
    ------
    BookError
        A cell with two figures.
    """
    import jupytext  # takes a second

    for folder in ("chapters", "downloads"):
        (stage / folder).mkdir(parents=True, exist_ok=True)
    notebook = _with_said(nbformat.read(path, as_version=4), chapter, stage / "chapters")
    source = nbformat.from_dict(chapter.notebook)
    if edition == STUDENT:
        for_students(notebook)
        source = for_students(nbformat.reads(nbformat.writes(source), as_version=4))
    _figures(notebook, chapter, stage / "extra" / "tables")
    _tables(notebook, chapter, stage / "extra" / "tables")
    given = notebook.metadata.get("cxrbook", {}).get("parameters", {})
    again = parameters.command(chapter.name, given)
    before = _before(chapter, minutes(for_students(deepcopy(notebook))), again)
    first = 1 + (len(notebook.cells) > 1 and notebook.cells[1].id == SHORT)
    notebook.cells.insert(first, nbformat.v4.new_markdown_cell(before, id="before"))
    if why:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(real.note(why), id="phantoms"))
    parameters.fold(notebook.cells, chapter)
    nbformat.write(notebook, stage / "chapters" / f"{chapter.name}.ipynb")
    nbformat.write(source, stage / "downloads" / f"{chapter.name}.ipynb")
    script = jupytext.writes(source, fmt="py:percent")
    (stage / "downloads" / f"{chapter.name}.py").write_text(script, encoding="utf-8")


def _with_said(notebook, chapter, folder):
    """The notebook with what its cells say as text of its own, and "In short" at the top."""
    cells, short = [], None
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        records = [json.loads(o["data"][SAID]) for o in outputs if SAID in o.get("data", {})]
        if records:
            cell.outputs = [o for o in outputs if SAID not in o.get("data", {})]
        if cell.get("outputs") or not (records and HIDDEN in cell.metadata.get("tags", [])):
            cells.append(cell)
        texts = [said["text"] for said in records if "figure" not in said]
        if texts:
            told = nbformat.v4.new_markdown_cell("\n\n".join(texts), id=f"{cell.id}-said")
            told.metadata["tags"] = [t for t in cell.metadata.get("tags", []) if t == SOLUTION]
            cells.append(told)
        short = next((said for said in records if "figure" in said), short)
    if short:
        box = _short(short, notebook, chapter, folder)
        cells.insert(1, nbformat.v4.new_markdown_cell(box, id=SHORT))
    notebook.cells = cells
    return notebook


def _short(short, notebook, chapter, folder):
    """The box with what this run found, beside a small copy of the key figure."""
    text = f"**{title}.** {short['text']}" if (title := real.warning(notebook)) else short["text"]
    lines = [":::{admonition} In short", f":class: important {SHORT}", "", text, ""]
    for cell in notebook.cells:
        outputs = [o.get("data", {}) for o in cell.get("outputs", [])]
        about = [json.loads(data[FIGURE]) for data in outputs if FIGURE in data]
        if any(figure["name"] == short["figure"] for figure in about):
            [picture] = [data["image/png"] for data in outputs if "image/png" in data]
            file = f"{chapter.name}-key.png"
            (folder / file).write_bytes(base64.b64decode(picture))
            alt = " ".join(about[0]["alt"].split())
            lines += [f"```{{image}} {file}", f":alt: {alt}", "```", ""]
            lines += [f"{{numref}}`{short['figure']}`, further down, says how to read it."]
            return "\n".join([*lines, ":::"])
    raise BookError(
        f"chapter {chapter.name}: in_short names the figure {short['figure']!r}; no cell shows it"
    )


def _figures(notebook, chapter, folder):
    cells, said = [], "Data of this figure (CSV)"
    for cell in notebook.cells:
        cells.append(cell)
        outputs = cell.get("outputs", [])
        found = [o for o in outputs if FIGURE in o.get("data", {})]
        if len(found) > 1:
            raise BookError(f"chapter {chapter.name}: two figures in one cell; give each its own")
        for output in found:
            about = json.loads(output["data"][FIGURE])
            cell.metadata["mystnb"] = {
                "image": {"alt": about["alt"]},
                "figure": {"name": about["name"], "caption": about["caption"]},
            }
            cell.outputs = [o for o in outputs if o is not output]
            if text := output["data"].get(CSV):
                _save(folder / f"{about['name']}.csv", text)
                link = csv_link(f"../tables/{about['name']}.csv", said, f"{said}: {about['name']}")
                link = f'<p class="cxr-data">{link}</p>'
                cells.append(nbformat.v4.new_markdown_cell(link, id=f"{cell.id}-data"))
    notebook.cells = cells


def _tables(notebook, chapter, folder):
    number = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = data.pop(CSV, None)
            if text is None or NUMBER not in data.get("text/html", ""):
                continue
            number += 1
            name = f"table-{chapter.number}-{number:02d}"
            _save(folder / f"{name}.csv", text)
            title = f"Table {int(chapter.number)}.{number}"
            page = data["text/html"].replace(NUMBER, f'<span class="cxr-number">{title}</span> ', 1)
            link = csv_link(f"../tables/{name}.csv", "CSV", f"{title} as CSV")
            data["text/html"] = page.replace(DOWNLOAD, link, 1)


def _save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def csv_link(href: str, text: str, label: str) -> str:
    """A link to a CSV file, in HTML; the label says to who hears it which one it is."""
    label = html.escape(label, quote=True)
    return f'<a class="cxr-csv" href="{href}" download aria-label="{label}">{html.escape(text)}</a>'


def _before(chapter, time, again):
    """The box behind the opening: goals, what to read first, how long, the files, and the command
    that runs it again, which a script offers at each figure and table."""
    about, lines = chapter.about, [":::{admonition} Before you read", ":class: tip cxr-before"]
    if about["goals"]:
        lines += ["", "**Afterwards you can**", "", *(f"- {goal}" for goal in about["goals"])]
    if about["needs"]:
        needs = ", ".join(f"[](../chapters/{name}.ipynb)" for name in about["needs"])
        lines += ["", f"**Read first**: {needs}."]
    lines += ["", f"**Time**: about {time} minute{'s' * (time > 1)}."]
    files = (f"{{download}}`{kind} <../downloads/{chapter.name}.{end}>`" for kind, end in FILES)
    lines += ["", f"**Take it along**: {', '.join(files)}."]
    code = f'<code class="{COMMAND}">{html.escape(again)}</code>'
    # in HTML as a whole, so that quotation marks stay as they are typed
    lines += ["", f"<p><strong>Run it again</strong>: {code}</p>", "", ":::"]
    return "\n".join(lines)

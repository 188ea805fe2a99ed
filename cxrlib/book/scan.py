"""A last look at what was written, before it is kept: notebooks, and folders of built pages.

Machine paths and user names are looked for in every run. In what was made from credentialed data,
or where a register of such data is at hand, also identifiers, dates, file names, pieces of reports,
pictures and tables of single images. A finding says where and of which kind, never the value.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import getpass
import hashlib
import html
import io
import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib import guard
from cxrlib.core.folders import LIBRARY
from cxrlib.core.kernel import CSV, KEPT, RECORD
from cxrlib.guard import register, spellings

VARIABLES = ("CXRBOOK_DATA", "CXRBOOK_CACHE", "CXRBOOK_CHECKPOINTS")
LISTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PATHS = r"(?:/home/|/Users/|/tmp/|/var/folders/|[A-Za-z]:\\+Users\\+)[\w.-]+"
TABLES = {".csv", ".parquet"}
TEXTS = {".html", ".js", ".json", ".txt", ".md", ".svg", ".inv", ".map", ".xml", ".log", ""}
SOURCES = {".py", ".toml", ".yml", ".yaml", ".css", ".bib", ".sh", ".lock", ".cfg"}
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


class Hit(NamedTuple):
    """Something that must not be kept."""

    file: str
    cell: int | None  # the n-th cell of a notebook, counted from 1
    kind: str

    def __str__(self) -> str:
        return f"{self.file}{f', cell {self.cell}' if self.cell else ''}: {self.kind}"


def hits(file: str, kinds: set[str], cell: int | None = None) -> list[Hit]:
    """The kinds found in a file, or a cell of it, as a list of Hit."""
    return [Hit(file, cell, kind) for kind in sorted(kinds)]


class Watch(NamedTuple):
    """What is looked for, and what is none of it."""

    known: register.Known  # words that tell nothing
    guarded: bool = False  # whether it was made from credentialed data
    registers: tuple = ()
    strict: bool = True  # whether a long number counts even if the project's text has it


def watch(
    guarded: bool,
    known: register.Known | None = None,
    looked_for: dict | None = None,
    strict: bool = True,
) -> Watch:
    """A `Watch`; by default with the project's words, and the registers of this machine."""
    looked_for = registers() if looked_for is None else looked_for
    return Watch(known or register.project(), guarded, tuple(looked_for.values()), strict)


def registers() -> dict[str, register.Register]:
    """Those of the credentialed data loaded on this machine: name -> Register.

    `cxrlib.guard.protect` writes them to ``CXRBOOK_DATA/derived/guard``.
    """
    data = os.environ.get("CXRBOOK_DATA")
    found = (Path(data).expanduser() / "derived" / register.FOLDER).glob("*.npz") if data else ()
    return {path.stem: register.load(path) for path in sorted(found)}


# --- text --------------------------------------------------------------------------------------


def text_kinds(text: str, watch: Watch) -> set[str]:
    """The kinds of what a text must not hold: a set."""
    found = machine_kinds(text, watch.known)
    for one in watch.registers:
        fields = register.found(one, text, watch.known, watch.guarded and watch.strict)
        # open data have words in common with reports, but no identifiers
        fields = fields if watch.guarded else fields & {"identifiers", "files", "dates"}
        found |= {register.KINDS[field] for field in fields}
    if not watch.guarded:
        return found
    patterns = [*LISTS["mimic"].items()]
    patterns += [] if watch.registers else LISTS["unregistered"].items()
    spelt = " ; ".join([text, *spellings.dates_in(text)])
    for kind, pattern in patterns:
        said = {match.group().lower() for match in re.finditer(pattern, spelt, re.IGNORECASE)}
        if said if watch.strict else said - watch.known.tokens:
            found.add(kind)
    return found


def printed_kinds(text: str) -> set[str]:
    """Kinds found in what a guarded cell printed: a set; not for pages, whose tables were looked at
    as tables."""
    return {kind for kind, pattern in LISTS["printed"].items() if re.search(pattern, text)}


def machine_kinds(text: str, known: register.Known) -> set[str]:
    """Whether a text names places or users of this machine: "machine path", "user name"."""
    found = set()
    own = (rf"(?<![\w./-]){re.escape(place)}(?![\w.-])" for place in _places() if place in text)
    paths = {path.lower() for path in re.findall(PATHS, text)} - _own_paths()
    if paths or any(re.search(place, text) for place in own):
        found.add("machine path")
    users = {name for name in _users() if name in text and name.lower() not in known.words}
    if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in users):
        found.add("user name")
    return found


def _places():
    """Folders of this machine that no page may name."""
    folders = [Path.home(), LIBRARY.parent, sys.prefix, tempfile.gettempdir(), Path.cwd()]
    folders += [Path(os.environ[v]).expanduser() for v in VARIABLES if os.environ.get(v)]
    found = {f for p in folders for f in (str(p), str(Path(p).resolve()))}
    return {f for f in found if len(f) > 3} - {"/usr", "/usr/local", "/opt"}


def _users():
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        name = ""
    return {n for n in (name, Path.home().name) if len(n) > 2} - set(LISTS["everyone"])


@functools.cache
def _own_paths():
    """Paths that the project's own pages give as examples."""
    return {path.lower() for path in re.findall(PATHS, register.own_text())}


# --- pictures ----------------------------------------------------------------------------------

SIDE, SOFT, SHARE = 32, 32, 0.6  # of the measure below, set on the figures of this book


def photographic(data: bytes) -> bool:
    """Whether an image file shows a photograph, such as a radiograph of 48 pixels a side or more.

    Neighbouring pixels of a photograph differ a little, both across and down; those of a chart are
    equal, or far apart at edges. The file is one if in some window of 32 x 32 pixels more than 60 %
    of the neighbours differ by 1 to 32 of 255 grey levels; also when only each second to eighth
    pixel is taken, since small pictures are drawn enlarged.

    Parameters
    ----------
    data : bytes of an image file that PIL reads
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        paper = Image.new("RGBA", image.size, "white")
        grey = np.asarray(Image.alpha_composite(paper, image.convert("RGBA")).convert("L"))
    for step in (1, 2, 3, 4, 6, 8):
        pixels = grey[::step, ::step].astype(np.int16)
        if min(pixels.shape) <= SIDE:
            return False
        across = np.abs(np.diff(pixels, axis=1))[:-1]
        down = np.abs(np.diff(pixels, axis=0))[:, :-1]
        soft = (across <= SOFT) & (down <= SOFT)
        shares = [_share_in_windows(soft & (change > 0)) for change in (across, down)]
        if np.minimum(*shares).max() > SHARE:
            return True
    return False


def _share_in_windows(flags):
    """Share of true pixels in every window of `SIDE` x `SIDE` pixels."""
    total = np.pad(flags.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    inside = total[SIDE:, SIDE:] - total[:-SIDE, SIDE:] - total[SIDE:, :-SIDE]
    return (inside + total[:-SIDE, :-SIDE]) / SIDE**2


def _picture_kinds(data):
    try:
        return {"image"} if photographic(data) else set()
    except (OSError, ValueError):
        return {"unreadable image"}


def _embedded(text):
    """A text without its embedded files, and their (type, bytes)."""
    files = []

    def cut(match):
        with_padding = re.sub(r"\s|%0A", "", match.group(2)) + "=="
        files.append((match.group(1), base64.b64decode(with_padding)))
        return " "

    return re.sub(r"data:([\w/+.-]*)(?:;[\w=-]+)*;base64,([A-Za-z0-9+/=\s]+)", cut, text), files


def _file_kinds(kind, data, watch):
    """Kinds found in an embedded or separate file that is no page."""
    if kind.startswith("image/svg"):
        return page_kinds(data.decode("utf-8", "replace"), watch)
    if kind.startswith("image/"):
        return _picture_kinds(data) if watch.guarded else set()
    return {"unreadable file"} if watch.guarded else set()


def page_kinds(page: str, watch: Watch) -> set[str]:
    """Kinds found in HTML or SVG: its text, its attributes and what is embedded in it."""
    page, files = _embedded(page)
    found = set()
    for kind, data in files:
        found |= _file_kinds(kind, data, watch)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", page))
    found |= text_kinds(plain, watch) | machine_kinds(page, watch.known)
    if watch.guarded:
        heads = {h.strip() for h in re.findall(r"<th\b[^>]*>([^<]*)</th>", page)}
        if 'class="dataframe"' in page or any(map(guard.ROW_LEVEL.search, heads)):
            found.add("row-level table")
    return found


# --- notebooks ---------------------------------------------------------------------------------


def is_guarded(notebook: dict) -> bool:
    """Whether a notebook was made from credentialed data: it says so, or is given such a cohort."""
    from cxrlib import cohorts

    if any(guard.MARK in output.get("data", {}) for output in _outputs(notebook)):
        return True
    source = "\n".join(_text(cell["source"]) for cell in _code(notebook))
    given = set(re.findall(r"""^data\b[^=\n]*=\s*["']([\w-]+)["']""", source, re.M))
    return any(cohorts.known(n).access == "credentialed" for n in given & set(cohorts.names()))


def notebook(content: dict, name: str, looked_for: dict | None = None) -> list[Hit]:
    """What an executed notebook must not hold.

    Parameters
    ----------
    content : dict, a notebook in nbformat 4
    name : str
        What hits call the file.
    looked_for : dict of name -> Register, optional
        By default all of this machine, see `registers`.

    Returns
    -------
    list of Hit, at most one a cell and kind, in the order of the cells
    """
    looked_for = registers() if looked_for is None else looked_for
    guarded = is_guarded(content)
    marks = {
        _text(o["data"][guard.MARK]) for o in _outputs(content) if guard.MARK in o.get("data", {})
    }
    found = []
    if guarded and not (marks <= looked_for.keys() and looked_for):
        found += hits(name, {"no register of its cohort (is CXRBOOK_DATA set?)"})
    own = (c for c in content["cells"] if not _is_given(c))
    known = register.project() | register.Known.of("\n".join(_text(c["source"]) for c in own))
    watched = watch(guarded, known, looked_for)
    for i, cell in enumerate(content["cells"], start=1):
        source = _text(cell["source"])
        kinds = text_kinds(source, watched) if _is_given(cell) else typed_kinds(source, watched)
        for output in cell.get("outputs", []):
            kinds |= _output_kinds(output, watched)
        kinds |= machine_kinds(json.dumps(cell.get("metadata", {})), known)
        found += hits(name, kinds, i)
    about = machine_kinds(json.dumps(content.get("metadata", {})), known)
    return found + hits(name, {f"{kind} in the metadata" for kind in about})


def typed_kinds(source: str, watch: Watch) -> set[str]:
    """Kinds found in what an author typed into a cell of a guarded notebook: a set."""
    if not watch.guarded:
        return set()
    known = register.project()._replace(rows=register.packaged().rows)
    found = set().union(*(register.found(one, source, known) for one in watch.registers))
    return {f"typed {register.KINDS[field]}" for field in found & register.TYPED}


def _code(notebook):
    return (c for c in notebook["cells"] if c["cell_type"] == "code")


def _outputs(notebook):
    return (o for c in _code(notebook) for o in c.get("outputs", []))


def _is_given(cell):
    """Whether a cell was written by the driver: the values of parameters."""
    return "injected-parameters" in cell.get("metadata", {}).get("tags", [])


def _text(entry):
    return entry if isinstance(entry, str) else "".join(entry)


def _output_kinds(output, watch):
    found = set()
    said = [_text(output.get("text", ""))]
    for kind, entry in output.get("data", {}).items():
        if kind == guard.MARK:
            continue
        if kind.startswith("image/") and "svg" not in kind:
            data = base64.b64decode(_text(entry))
            found |= _picture_kinds(data) if watch.guarded else set()
            found |= {"image"} if watch.guarded and not drawn_by_matplotlib(data) else set()
        elif kind.endswith(("html", "xml")):
            found |= page_kinds(_text(entry), watch)
        elif kind == CSV:
            found |= _csv_kinds(_text(entry), watch)
        elif kind.startswith(("text/", RECORD)) or kind.endswith(("json", "javascript")):
            said.append(_text(entry) if isinstance(entry, str | list) else json.dumps(entry))
        elif watch.guarded:
            found.add("unreadable output")
        if watch.guarded and kind == KEPT:
            kept = json.loads(_text(entry))
            found |= table_kinds(pd.DataFrame(kept["rows"], columns=kept["columns"]))
    said, files = _embedded("\n".join(said))
    for kind, data in files:
        found |= _file_kinds(kind, data, watch)
    failed = [output.get("ename", ""), output.get("evalue", ""), *output.get("traceback", [])]
    failed.append(json.dumps(output.get("metadata", {})))
    said += re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(failed))
    said = re.sub(r"<Figure size [\d.]+x[\d.]+ with \d+ Axes>", "", said)
    if watch.guarded:
        data = output.get("data", {})
        page = _text(data.get("text/html", ""))
        ours = "cxr-" in page or any(kind.startswith(RECORD) for kind in data)
        plain = html.unescape(re.sub(r"<[^>]+>", " ", _embedded(page)[0]))
        found |= set() if ours else printed_kinds(f"{said}\n{plain}")
        if any(guard.ROW_LEVEL.search(w) for w in re.findall(r"\w+_\w+", said)):
            found.add("row-level table")
        if output["output_type"] == "error":
            found.add(f"refused by the guard ({output['ename']})")
    return found | text_kinds(said, watch)


def _csv_kinds(text, watch):
    """Kinds found in a table written as CSV."""
    with contextlib.suppress(pd.errors.EmptyDataError):
        return results_kinds(pd.read_csv(io.StringIO(text)), watch)
    return set()


def drawn_by_matplotlib(data: bytes) -> bool:
    """Whether an image file was drawn by matplotlib, where the guard looked at it."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return str(image.info.get("Software", "")).startswith("Matplotlib")


def table_kinds(table: pd.DataFrame) -> set[str]:
    """Kinds found in a table: columns of single images, counts of 1 to 9."""
    found = set()
    names = {str(column) for column in table}
    uncounted = names & guard.NEEDS_COUNT and not names & set(guard.COUNTS)
    if uncounted or any(map(guard.ROW_LEVEL.search, names)):
        found.add("row-level table")
    counts = table[[c for c in guard.COUNTS if c in table]].apply(pd.to_numeric, errors="coerce")
    if ((counts >= 1) & (counts < guard.MIN_CELL)).any(axis=None):
        found.add("small count")
    return found


def results_kinds(table: pd.DataFrame, watch: Watch) -> set[str]:
    """Kinds found in a results table: in its text, and in the table itself."""
    found = text_kinds(table.to_csv(index=False), watch)
    return found | table_kinds(table) if watch.guarded else found


# --- folders of pages --------------------------------------------------------------------------


def folder(
    path: Path, looked_for: dict | None = None, made_from: Iterable[Path] | None = None
) -> list[Hit]:
    """What the files of a built book must not hold: list of Hit.

    The executed notebooks `made_from` which it was built, and those in it, say which pages were
    made from credentialed data, and which pictures and tables (.csv) were not. The results of a
    run (.parquet) are what the notebook beside them is. Any other table is taken for credentialed
    if any page is, or if nothing is said.
    """
    looked_for = registers() if looked_for is None else looked_for
    books = {f: _read(f) for f in sorted(path.rglob("*.ipynb"))}
    sources = books | {Path(f): _read(f) for f in made_from or ()}
    guarded = {f.stem for f, content in sources.items() if is_guarded(content)}
    of_open = [
        (kind, _text(data))
        for f, content in sources.items()
        if f.stem not in guarded
        for output in _outputs(content)
        for kind, data in output.get("data", {}).items()
        if kind == CSV or (kind.startswith("image/") and "svg" not in kind)
    ]
    open_files = {
        hashlib.sha256(data.encode() if kind == CSV else base64.b64decode(data)).digest()
        for kind, data in of_open
    }
    found = []
    for file in sorted(f for f in path.rglob("*") if f.is_file()):
        name, table = str(file.relative_to(path)), file.suffix in TABLES
        if file in books:
            found += notebook(books[file], name, looked_for)
            continue
        closed = file.stem in guarded
        of_run = table and file.with_suffix(".ipynb") in books
        if (table and not of_run) or file.suffix in PICTURES:
            suspect = bool(guarded) or (table and made_from is None)
            closed = suspect and hashlib.sha256(file.read_bytes()).digest() not in open_files
        elif not of_run and file.suffix not in TEXTS:
            continue
        found += hits(name, _kinds_in(file, watch(closed, None, looked_for, strict=table)))
    return found


def _read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _kinds_in(file, watch):
    """Kinds found in a table, a picture or a page."""
    if file.suffix == ".csv":
        return _csv_kinds(file.read_text(encoding="utf-8"), watch)
    if file.suffix in TABLES:
        return results_kinds(pd.read_parquet(file), watch)
    if file.suffix in PICTURES:
        return _picture_kinds(file.read_bytes()) if watch.guarded else set()
    if file.suffix not in TEXTS | SOURCES:
        return {"unreadable file"} if watch.guarded else set()
    return page_kinds(file.read_text(encoding="utf-8", errors="replace"), watch)


def anything(path: Path) -> list[Hit]:
    """What a notebook, a page, a results table or a folder of such must not hold: list of Hit."""
    if path.is_dir():
        return folder(path)
    if path.suffix == ".ipynb":
        return notebook(_read(path), path.name)
    return hits(path.name, _kinds_in(path, watch(True)))

"""What chapters use to show things: tables, figures, one look for all of them.

Every function also works in plain Python (``python chapters/02_zero_shot.py``), where it prints.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrlib import guard
from cxrlib.core.errors import Lacks
from cxrlib.core.kernel import (
    CSV,
    DOWNLOAD,
    FIGURE,
    KEPT,
    MEANINGLESS,
    NUMBER,
    RECORD,
    in_notebook,
)
from cxrlib.core.used import SEEDED
from cxrlib.show.script import in_report, plain
from cxrlib.show.words import FIGURES, MINUS, fmt, ordered, readable

if TYPE_CHECKING:
    import pandas as pd

SENTENCE = 45  # characters from which a cell of a table is a sentence
MINUS_SIGN = re.compile(r"(?<![\w.)])-(?=\d)")
LAID_OUT = "laid out"  # attribute of a table whose heads are names, not codes of columns
PHRASE = 13  # and from which its column may wrap, but not within an interval
INTERVAL = re.compile(r"\[[^\[\]]*\]")


def displayed(page: str, plain: str) -> None:
    """Show HTML in a notebook, and its plain text in a script."""
    if not in_notebook():
        in_report(plain)
        return

    from IPython.display import display

    display({"text/html": page, "text/plain": plain}, raw=True)


def show(
    table: pd.DataFrame,
    caption: str | None = None,
    digits: int | None = None,
    missing: str = "",
    counts: Sequence[str] | None = None,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
) -> None:
    """Show a table with the names that readers know; it scrolls sideways where it is too wide.

    Codes of groups, models, metrics and columns are written in words (`words.readable`).

    Parameters
    ----------
    table : pandas.DataFrame
        A default index (0, 1, 2, ...) is left out.
    caption : str, optional
        Plain text above the table.
    digits : int, optional
        Decimals of floating point columns, 2 by default; of a results table of differences 3.
    missing : str
        What an empty cell shows.
    counts : sequence of str, optional
        Columns that count images or patients. Once credentialed data were loaded, counts from 1 to
        9 show "<10", and others from which these follow "hidden". By default every column of whole
        numbers is taken for such a count; () says that none is.
    rows, columns : column or columns, optional
        Lay a results table out by these, "0.87 [0.84, 0.90]" in every cell, known groups in their
        natural order (:func:`cxrlib.schema.wide`).

    Raises
    ------
    ValueError
        Two rows of a results table fall into one cell.
    GuardError
        Credentialed data were loaded and a column holds identifiers, dates, file names, texts of
        reports, or other values of single images.
    """
    if rows is not None and columns is not None:
        table, counts = _laid_out(table, rows, columns, digits), ()
    page, plain = rendered(table, caption, 2 if digits is None else digits, missing, counts)
    if not in_notebook():
        in_report("\n".join(filter(None, [caption, textwrap.indent(plain, "  ")])))
        return
    if caption:
        page = page.replace('<p class="cxr-caption">', f'<p class="cxr-caption">{NUMBER}', 1)
        page = page.replace("</p>", f" {DOWNLOAD}</p>", 1)

    from IPython.display import display

    display({"text/html": page, "text/plain": plain, CSV: _csv(table, counts)}, raw=True)


def _laid_out(table, rows, columns, digits):
    """A results table by rows and columns, groups in their order."""
    from cxrlib import schema

    if digits is None:
        named = table[["group", "model", "method"]].astype(str)
        digits = 3 if named.apply(lambda c: c.str.contains(" - ")).any(axis=1).all() else 2
    rank = {group: i for i, group in enumerate(ordered([*table["group"]]))}
    before = [] if isinstance(rows, str) else [c for c in rows if c != "group"]
    place = table.groupby(before, sort=False).ngroup() if before else 0
    table = table.assign(place=place, rank=table["group"].map(rank))
    table = table.sort_values(["place", "rank"], kind="stable")
    wide = schema.wide(table, rows, columns, digits).rename_axis(columns=None)
    wide.attrs[LAID_OUT] = True
    return wide


def rendered(
    table: pd.DataFrame,
    caption: str | None = None,
    digits: int = 2,
    missing: str = "",
    counts: Sequence[str] | None = None,
) -> tuple[str, str]:
    """What `show` shows of the same arguments: its HTML, and its plain text."""
    import pandas as pd

    def text(x):
        if pd.api.types.is_scalar(x) and pd.isna(x):
            return missing
        return fmt(x, digits) if isinstance(x, float) else MINUS_SIGN.sub(MINUS, readable(x))

    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    names_above = LAID_OUT in table.attrs or table.columns.name == "model"
    if guard.active():
        table = guard.presentable(table, counts)
        caption = caption and guard.text(caption, "table: the caption")
    if isinstance(table.index, pd.RangeIndex):
        names, rows = [], [[] for _ in range(len(table))]
    else:
        names = [name or "" for name in table.index.names]
        rows = table.index.to_frame().to_numpy(dtype=object).tolist()
    cells = [[text(x) for x in row] for row in table.to_numpy(dtype=object)]
    named = [readable(name) for name in table.columns]
    head = [readable(name).replace("_", " ") for name in names]
    head += named if names_above else [name.replace("_", " ") for name in named]
    body = [[*map(text, row), *rest] for row, rest in zip(rows, cells, strict=True)]
    looked_at = pd.DataFrame(body, columns=head)
    looked_at.attrs[guard.LOOKED_AT] = True
    plain = looked_at.to_string(index=False)

    longest = [max(map(len, column)) for column in zip(*body, strict=True)] or [0] * len(head)
    kinds = [
        ' class="number"' if n else ' class="text"' * (length >= PHRASE)
        for n, length in zip([False] * len(names) + numeric, longest, strict=True)
    ]
    tags = ['th scope="row"'] * len(names) + ["td"] * len(numeric)
    label = html.escape(caption or "table", quote=True)
    lines = [f'<p class="cxr-caption">{label}</p>'] if caption else []
    lines.append(f'<div class="cxr-scroll" role="region" aria-label="{label}" tabindex="0">')
    titles = zip(head, kinds, strict=True)
    # Sentences wrap, and on a phone each row is a card that repeats the titles of its columns.
    wordy = any(len(x) >= SENTENCE for row in body for x in row)
    lines.append(f'<table class="cxr-table{" cxr-wordy" * wordy}"><thead><tr>')
    lines += [f'<th scope="col"{kind}>{html.escape(name)}</th>' for name, kind in titles]
    if wordy:
        kinds = [f'{k} data-label="{html.escape(h)}"' for h, k in zip(head, kinds, strict=True)]
    lines.append("</tr></thead>\n<tbody>")
    for row in body:
        filled = zip(row, tags, kinds, strict=True)
        line = "".join(f"<{t}{k}>{_whole(html.escape(x))}</{t[:2]}>" for x, t, k in filled)
        lines.append(f"<tr>{line}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines), plain


def _whole(text):
    """A cell in which intervals do not break."""
    return INTERVAL.sub(r'<span class="cxr-whole">\g<0></span>', text)


def _csv(table, counts=None):
    """A table as CSV with all its digits, without what must not be shown."""
    import pandas as pd

    if guard.active():
        table = guard.presentable(table, counts)
    return table.to_csv(index=not isinstance(table.index, pd.RangeIndex), lineterminator="\n")


def figure(
    name: str,
    caption: str,
    alt: str | None = None,
    table: pd.DataFrame | None = None,
    counts: Sequence[str] | None = None,
) -> None:
    """Show the current pyplot figure with its number, caption, text alternative and data.

    One figure per cell. The page numbers it, so that the prose can name it: ``{numref}`name```.

    Parameters
    ----------
    name : str
        Label, unique in the book, such as "fig-zeroshot-auc".
    caption : str
        MyST text: what is drawn, and whatever a reader needs to read it.
    alt : str, optional
        What somebody learns who cannot see it: what is on the axes, and the values that matter,
        taken from the run. The figures of :mod:`cxrlib.show.plots` bring theirs.
    table : DataFrame, optional
        The table behind the figure, which the page offers as CSV; likewise.
    counts : sequence of str, optional
        See `show`.

    Raises
    ------
    ValueError
        A figure without a text alternative.
    GuardError
        Credentialed data were loaded, and caption, alt or table hold what must not be shown.
    """
    import matplotlib.pyplot as plt

    fig = plt.gcf()
    alt = alt or getattr(fig, "alt", None)
    table = getattr(fig, "table", None) if table is None else table
    if not alt:
        raise ValueError(
            f"figure {name}: no text alternative; give `alt`, what somebody learns from the "
            "figure who cannot see it"
        )
    if guard.active():
        caption = guard.text(caption, f"figure {name}: the caption")
        alt = guard.text(alt, f"figure {name}: the text alternative")
    titled = f"**Figure** `{name}`. {plain(caption)}"
    if not in_notebook():
        in_report(f"{titled}\n\n{alt}")
        plt.close()
        return

    from IPython.display import display

    plt.show()
    about = {FIGURE: json.dumps({"name": name, "caption": caption, "alt": alt})}
    about |= {"text/markdown": titled, "text/plain": titled}
    if table is not None:
        about[CSV] = _csv(table, counts)
    display(about, raw=True)


def films(name: str, caption: str, lines: Mapping[str, Sequence], alt: str) -> None:
    """Show films as a `figure`, lines of them below each other; withheld for credentialed data.

    Parameters
    ----------
    name, caption, alt : str
        See `figure`.
    lines : dict of title -> sequence of (h, w) images, 0 to 255
        As many in every line.
    """
    if guard.active():
        withheld("films")
        return
    import matplotlib.pyplot as plt

    columns = max(map(len, lines.values()))
    size = (1.75 * columns, 1.95 * len(lines))
    _, axes = plt.subplots(len(lines), columns, figsize=size, squeeze=False)
    for row, (title, images) in zip(axes, lines.items(), strict=True):
        row[0].set_title(title, loc="left")
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
    figure(name, caption, alt)


def reliability(curves: pd.DataFrame, name: str, caption: str) -> None:
    """A figure of reliability curves, or a note that protected patients are too few for one.

    curves : of `cxrlib.guard.bins`; name, caption : as in `figure`.
    """
    from cxrlib.show import plots

    if curves.empty:
        withheld("curves through bins of so few films")
        return
    plots.reliability(curves)
    figure(name, caption)


def quiz(question: str, options: Mapping[str, tuple[bool, str]]) -> None:
    """A question to check oneself: opening an answer says whether it holds, and why.

    Parameters
    ----------
    question : str
        Plain text.
    options : dict of str -> (bool, str)
        Answer -> whether it is right, and why; one or more are right.
    """
    said = [(text, "Right" if right else "No", why) for text, (right, why) in options.items()]
    plain = "\n".join([question, *(f"- {text}" for text, _, _ in said)])
    if guard.active():
        guard.text(" ".join([plain, *(why for _, _, why in said)]), "quiz")
    lines = ['<div class="cxr-quiz" role="group" aria-label="Question to check yourself">']
    lines.append(f"<p><strong>Check yourself.</strong> {html.escape(question)}</p>")
    for text, verdict, why in said:
        lines.append(f"<details><summary>{html.escape(text)}</summary>")
        lines.append(f"<p><strong>{verdict}.</strong> {html.escape(why)}</p></details>")
    displayed("\n".join([*lines, "</div>"]), plain)


def explained(title: str, function: Callable) -> None:
    """A function of the library: what it does and, folded, the rest of its docstring and its code.

    Parameters
    ----------
    title : str
        Plain text.
    function : callable
    """
    import inspect

    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    said = (inspect.getdoc(function) or "").replace("``", "")
    first, rest = (" ".join(part.split()) for part in f"{said}\n\n".split("\n\n", 1))
    code = re.sub(r'\n    """.*?"""', "", inspect.getsource(function), count=1, flags=re.DOTALL)
    place = f"{function.__module__}.{function.__name__}"
    page = (
        f"<details><summary><strong>{html.escape(title)}.</strong> {html.escape(first)}</summary>"
    )
    page += f"<p>{html.escape(rest)}</p>" if rest else ""
    page += (
        f"<p><code>{place}</code></p>{highlight(code, PythonLexer(), HtmlFormatter())}</details>"
    )
    displayed(f'<div class="cxr-code">{page}</div>', f"{title}. {first} {rest}\n\n{code}")


def withheld(what: str) -> None:
    """A short note in place of something that must not be shown of this cohort.

    Parameters
    ----------
    what : str
        In a few words, such as "films" or "one point an image".
    """
    plain = f"Not shown: {what}. The chapter ran on credentialed data, of which only aggregates "
    plain += "over ten or more images and patients may be shown."
    page = f'<p class="cxr-withheld" role="note">{html.escape(plain)}</p>'
    displayed(page, plain)


def warn_if_seeded(models: Iterable[str], data: str = "phantom") -> None:
    """Say loudly that numbers of some models mean nothing; show nothing where there are none.

    So it is of models with computed weights, and on real films of those trained on phantoms.

    Parameters
    ----------
    models : iterable of str
        Names of models.
    data : str
        The cohort of the chapter.
    """
    models = list(models)
    seeded = [name for name in models if name.startswith(SEEDED)]
    drawn = [name for name in models if name.startswith("phantom-")]
    drawn = [] if data.startswith("phantom") else drawn
    if not seeded and not drawn:
        return
    every = len(seeded) + len(drawn) == len(models)
    title = f"The numbers of {'this page' if every else 'some models'} mean nothing"
    title += " where films are real" * (not seeded)
    texts = []
    if seeded:
        texts.append(
            f"The weights of {', '.join(seeded)} were computed from the names of their tensors, "
            "not learned. Whatever tables, figures and sentences say of them shows only that the "
            "chapter runs with such a network. None of it goes to the ledger."
        )
    if drawn:
        texts.append(
            f"{', '.join(drawn)} learned from phantoms and never saw a real film. Whatever tables, "
            "figures and sentences say of them on real films shows only that the chapter runs on "
            "these. Name a model of real radiographs with the parameter models."
        )
    plain = f"{title.upper()}: {' '.join(texts)}"
    page = f'<div class="admonition danger {MEANINGLESS}"><p class="admonition-title">{title}</p>'
    page += "".join(f"<p>{html.escape(text)}</p>" for text in texts) + "</div>"
    displayed(page, plain)


def asked(cohort: str, has: Iterable[str], wanted: Iterable[str], least: int = 1) -> tuple:
    """The findings that a chapter asks for and a cohort has; says which are not there.

    Parameters
    ----------
    cohort : str
        Its name.
    has, wanted : iterable of str
        Findings of the cohort, and of the chapter.
    least : int
        How many the chapter cannot do without.

    Raises
    ------
    Lacks
        Fewer than that are there.
    """
    wanted, has = tuple(wanted), tuple(dict.fromkeys(has))
    found = tuple(finding for finding in wanted if finding in has)
    absent = ", ".join(finding for finding in wanted if finding not in has)
    if len(found) < least:
        raise Lacks(
            f"cohort {cohort!r} has no labels of {absent}, and this chapter cannot go on without "
            f"{'them' if ', ' in absent else 'it'}; it has {', '.join(has) or 'none'}"
        )
    if absent:
        text = f"The cohort {cohort} has no labels of {absent}: what follows goes on without."
        page = '<div class="admonition warning"><p class="admonition-title">Not all findings</p>'
        displayed(f"{page}<p>{html.escape(text)}</p></div>", text)
    return found


def keep(table: pd.DataFrame) -> None:
    """Hand a results table to the ledger: stored in the executed notebook, shown nowhere.

    Rows of models whose weights were computed from names are left out: they mean nothing.
    Without a notebook the table is only checked.

    Parameters
    ----------
    table : results table
        Aggregates only: a table with other columns, such as one row per image, is refused.

    Raises
    ------
    ValueError
        For what is no valid results table; names the column.
    """
    from cxrlib import schema

    wrong = [f"no column {c!r}" for c in schema.COLUMNS if c not in table]
    wrong += [f"unknown column {c!r}" for c in table if c not in schema.COLUMNS]
    if wrong:
        raise ValueError(
            f"keep: {wrong[0]} ({len(wrong)} in all); expected a results table, as "
            "cxrlib.schema.results makes it."
        )
    table = schema.results(table)
    table = table[~table["model"].fillna("").str.contains(SEEDED, regex=False)]
    if not in_notebook():
        return

    from IPython import get_ipython
    from IPython.display import display

    entries = table.astype(object).where(table.notna(), None)
    text = json.dumps({"columns": list(table), "rows": entries.to_numpy().tolist()})
    # Keys have to be unique within a chapter, and the same whenever it is run.
    key = f"results-{get_ipython().execution_count}-{hashlib.sha256(text.encode()).hexdigest()[:9]}"
    display({KEPT: text}, raw=True, metadata={"scrapbook": {"name": key, "mime_prefix": RECORD}})


def kept(path: str | Path) -> list[pd.DataFrame]:
    """The results tables that `keep` stored in an executed notebook.

    Parameters
    ----------
    path : path
        Of the notebook (.ipynb).

    Returns
    -------
    list of results tables, in the order in which they were kept

    Raises
    ------
    ValueError
        If the file is no notebook.
    """
    import pandas as pd

    from cxrlib import schema

    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(notebook, dict) or "cells" not in notebook:
        raise ValueError("not a notebook: it has no cells")
    tables = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if text := output.get("data", {}).get(KEPT):
                table = json.loads("".join(text))
                tables.append(schema.results(pd.DataFrame(table["rows"], columns=table["columns"])))
    return tables


def setup() -> None:
    """One look for all figures; without a notebook, figures are drawn but no window opens."""
    import matplotlib

    if not in_notebook():
        matplotlib.use("Agg")
    matplotlib.rcParams.update(FIGURES)


guard.frames_shown_by(rendered)

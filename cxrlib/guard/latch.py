"""What of a credentialed cohort may leave its folder: aggregates over ten or more, nothing else.

A latch: once a credentialed cohort was loaded in a process, what is shown, said or kept there
passes through here, whoever wrote the cell. That is why it is state of the process and no argument.
A second, independent look at what was written is :mod:`cxrlib.book.scan`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.core.folders import in_git
from cxrlib.core.kernel import in_notebook
from cxrlib.guard import register

MIN_CELL = 10  # images or patients behind a number that may be shown
MAX_SIDE = 20  # cells per side of the largest heat map that may be drawn
FEW = f"fewer than {MIN_CELL}"
LOOKED_AT = "cxrbook looked at"  # attribute of a data frame that may be written as it is
NOT_SHOWN = "A table of credentialed data: show it with cxrlib.show.notebook.show."
MARK = "application/papermill.record/text/cxrbook-guard"  # output of a notebook, shown nowhere

_protected: list[str] = []  # names of the credentialed cohorts loaded in this process
_registers: list[register.Register] = []
_columns: set[str] = set()  # of the tables of these cohorts
# What shows a data frame, see `frames_shown_by`.
_frames: list[Callable] = [lambda table: (NOT_SHOWN, NOT_SHOWN)]


class GuardError(RuntimeError):
    """Something of a credentialed cohort would have been shown; says what kind, never the value."""


def columns() -> set[str]:
    """Names of the columns of the credentialed cohorts loaded in this process."""
    return _columns


def active() -> bool:
    """Whether a credentialed cohort was loaded in this process."""
    return bool(_protected)


def protect(cohort: Any) -> None:
    """From now on, guard everything that this process shows.

    Writes the register of the cohort (:mod:`cxrlib.guard.register`) to ``cohort.keep/guard``, marks
    the notebook as guarded, has data frames displayed and printed as tables that hide small counts,
    and looks at every figure before it is drawn.

    Raises
    ------
    GuardError
        The cohort names no folder to keep its results in, or one inside a git working tree.
    """
    _protected.append(cohort.name)  # first: the latch holds whatever happens below
    _columns.update(map(str, cohort.table.columns))
    _look_at_figures()
    if cohort.keep is None:
        raise GuardError(
            f"cohort {cohort.name}: its builder has to name a folder `keep` beside the data, where "
            "results for single images stay"
        )
    keep = cohort.keep.resolve()
    if in_git(keep):
        raise GuardError(
            f"cohort {cohort.name}: the data folder lies inside a git working tree, from which "
            "credentialed data could be published; move it elsewhere and set CXRBOOK_DATA"
        )
    path = keep / register.FOLDER / f"{cohort.fingerprint}.npz"
    if not path.is_file():
        register.save(register.build(cohort), path)
    _registers.append(register.load(path))
    _mark_notebook(path.stem)
    _mask_written_frames()


def _look_at_figures():
    """Figures are looked at where all of them pass, whoever draws them, to whatever format."""
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import FigureCanvasBase

    if hasattr(Axes.imshow, "guarded"):
        return
    imshow, print_figure = Axes.imshow, FigureCanvasBase.print_figure

    @functools.wraps(imshow)
    def checked_imshow(self, X, *args, **options):
        if active():
            _refuse_picture(np.shape(X)[:2])
        return imshow(self, X, *args, **options)

    @functools.wraps(print_figure)
    def checked_print(self, *args, **options):
        if active():
            look_at(self.figure)
        return print_figure(self, *args, **options)

    checked_imshow.guarded = True
    Axes.imshow, FigureCanvasBase.print_figure = checked_imshow, checked_print


def _refuse_picture(shape):
    if max(shape, default=0) > MAX_SIDE:
        raise GuardError(
            "no picture may be drawn once credentialed data were loaded, not even of a phantom; "
            "use cxrlib.show.notebook.withheld"
        )


def look_at(figure: Any) -> None:
    """GuardError if a figure holds a picture, or a text that may not be shown.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Heat maps of up to `MAX_SIDE` cells a side are no pictures, nor are bars of colours.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.table import Table
    from matplotlib.text import Text

    figure.draw_without_rendering()  # which writes the labels of ticks
    bars = {axes for axes in figure.axes if hasattr(axes, "_colorbar")}
    for drawn in figure.findobj(lambda a: isinstance(a, ScalarMappable)):
        if getattr(drawn, "axes", None) in bars:
            continue
        values = drawn.get_array()
        _refuse_picture(np.shape(values)[:2] if np.ndim(values) > 1 else ())
    cells = [cell for table in figure.findobj(Table) for cell in table.get_celld().values()]
    texts = [*figure.findobj(Text), *(cell.get_text() for cell in cells)]
    said = " ; ".join(text.get_text() for text in texts)
    if text(said, "figure: its text") != said:
        raise GuardError("figure: its text counts fewer than ten images or patients")


def _mask_written_frames():
    """A table that is printed, or written as text, says what it would show at the end of a cell."""
    if hasattr(pd.DataFrame.to_string, "guarded"):
        return
    for kind in (pd.DataFrame, pd.Series):
        kind.__repr__ = _printed(kind.__repr__)
        for how in ("to_string", "to_html", "to_markdown", "to_latex"):
            if hasattr(kind, how):
                setattr(kind, how, _written(getattr(kind, how), as_html=how == "to_html"))


def _written(plain, as_html):
    @functools.wraps(plain)
    def written(table, *arguments, **options):
        if active() and not table.attrs.get(LOOKED_AT):
            return _frame(table)[0 if as_html else 1]
        return plain(table, *arguments, **options)

    written.guarded = True
    return written


def _printed(plain):
    @functools.wraps(plain)
    def printed(table):
        if not active():
            return plain(table)
        try:  # pandas asks for it as well, in messages
            return _frame(table)[1]
        except GuardError:
            return NOT_SHOWN

    return printed


def frames_shown_by(render: Callable) -> None:
    """Have data frames at the end of a cell displayed by ``render(table) -> (HTML, text)``.

    What shows things stands above this module and registers itself here. As long as nothing did,
    data frames of a guarded notebook are not displayed.
    """
    _frames[:] = [render]


def _frame(table):
    return _frames[0](pd.DataFrame(table))


def _mark_notebook(name):
    if not in_notebook():
        return
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    key = f"guard-{shell.execution_count}-{name}"
    about = {"scrapbook": {"name": key, "mime_prefix": MARK.split("text")[0]}}
    display({MARK: name}, raw=True, metadata=about)
    formats = shell.display_formatter.formatters
    for kind in (pd.DataFrame, pd.Series):
        formats["text/html"].for_type(kind, lambda t: _frame(t)[0])
        formats["text/plain"].for_type(kind, lambda t, p, cycle: p.text(_frame(t)[1]))
    styled = ("pandas.io.formats.style", "Styler")
    formats["text/html"].for_type_by_name(*styled, lambda s: _frame(s.data)[0])


def text(value: str, where: str) -> str:
    """A text that may be shown: small counts of images or patients become "fewer than 10".

    Raises
    ------
    GuardError
        The text holds something of a cohort; names the kind and `where`, not the text.
    """
    if not active():
        return value
    refuse(value, where)
    return without_small_counts(value)


def without_small_counts(note: str) -> str:
    """A text in which no number of images or patients from 1 to 9 is left."""
    things = r"(?:\w+ )?(?:images?|patients?|films?|studies|reports?|positives?|negatives?)\b"
    return re.sub(rf"(?<![\w.,])[1-9](?= {things})", FEW, note)


def n_of_m(n: int, m: int, things: str) -> str:
    """How many of how many, such as "38 of 42 patients", by which no small group can be counted."""
    if n == m:
        return f"all {m:,} {things}" if m >= MIN_CELL else f"all, {FEW} {things}"
    if m < MIN_CELL:
        return f"some of {FEW} {things}"
    if 0 < n < MIN_CELL:
        return f"{FEW} of {m:,} {things}"
    return f"all but {FEW} of {m:,} {things}" if m - n < MIN_CELL else f"{n:,} of {m:,} {things}"


def counted(n: int, m: int, things: str) -> str:
    """How many of how many, as `n_of_m` once there are credentialed data, else in full."""
    return n_of_m(n, m, things) if active() else f"{n:,} of {m:,} {things}"


def refuse(value: str, where: str) -> None:
    """GuardError if a text holds something of a cohort that the project's own text does not."""
    for one in _registers:
        found = register.kinds(one, value) and register.kinds(one, value, _own_words())
        if found:
            raise GuardError(
                f"{where} holds an entry of a credentialed cohort ({', '.join(sorted(found))}); "
                f"show aggregates over at least {MIN_CELL} images and patients"
            )


def _own_words():
    """Words of the project, and of the cells executed here."""
    known = register.project()
    if in_notebook():
        from IPython import get_ipython

        known |= register.Known.of("\n".join(get_ipython().user_ns["In"]))
    return known

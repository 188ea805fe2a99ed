"""Figures that a reader can turn over in the built book, without a server.

Each call leaves one HTML output: the data as JSON, native controls with labels, a line that says
in words what is shown, and an empty box. ``book/assets/interactive.js`` draws in it with Plotly.
In a live notebook, or without JavaScript, a sentence says so; the static figure above it shows the
same. Nothing here computes a statistic.
"""

import html
import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import guard, schema
from cxrlib.core.checks import one_row_each
from cxrlib.show.notebook import displayed, withheld
from cxrlib.show.words import CHANCE, NAMES, colours, ordered, readable

DIGITS = 4  # of every number handed to the page
ELSEWHERE = (
    "The figure above can be turned over here in the built book, in a browser with JavaScript."
)
COUNTS = ["n", "n_positive", "n_patients"]
NUMBERS = ["value", "ci_low", "ci_high"]


def explorer(results: pd.DataFrame, caption: str, name: str = "explorer") -> None:
    """Groups of patients for a chosen model, label, attribute and metric: points with intervals.

    Parameters
    ----------
    results : results table
        One row per model, label, attribute, group and metric; other columns are left out. Rows of
        the attribute "all" are drawn beside every attribute. Undefined values show their note.
    caption : str
        Plain text.
    name : str
        Unique within the chapter: letters, digits, hyphens.

    Raises
    ------
    ValueError
        Two rows for one place, or no results table.
    GuardError
        Credentialed data were loaded, and the table or caption hold what must not be shown.
    """
    table = schema.results(results)
    keys = ["model", "label", "attribute", "group", "metric"]
    one_row_each(table, keys)
    controls = {
        key: ordered(table[key].where(table[key] != "all"))
        if key == "attribute"
        else _seen(table[key])
        for key in ("model", "label", "attribute", "metric")
    }
    table = table.sort_values("group", key=lambda c: c.map(_rank(c)), kind="stable")
    about = {
        "baselines": {m: CHANCE.get(m, 0) for m in controls["metric"]},
        "colours": colours(ordered(table["group"])),
    }
    _emit("explorer", name, caption, controls, table[[*keys, *NUMBERS, *COUNTS, "note"]], about)


def reliability(table: pd.DataFrame, caption: str, name: str = "reliability") -> None:
    """Reliability curves of a chosen finding, model and reading of the scores (S Fig. 4c).

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.stats.calibration.reliability_table`, one row per model, method,
        label and bin.
    caption, name : str
        See `explorer`.

    Raises
    ------
    ValueError, GuardError
        See `explorer`.
    """
    keys = ["model", "method", "label", "predicted"]
    numbers = ["observed", "ci_low", "ci_high"]
    if guard.active() and table.empty:
        withheld("curves through bins of so few films")
        return
    one_row_each(table, keys)
    # Without bins of few protected patients, whether or not the caller left them out already.
    table = guard.bins(table)
    models = ordered(table["model"])
    controls = {"label": _seen(table["label"]), "model": ["all models", *models]}
    if table["method"].nunique() > 1:
        controls["method"] = _seen(table["method"])
    about = {"colours": colours(models)}
    _emit("reliability", name, caption, controls, table[[*keys, *numbers, *COUNTS]], about)


def scatter(
    points: ArrayLike, attributes: Mapping[str, ArrayLike], caption: str, name: str = "scatter"
) -> None:
    """Projected embeddings, coloured by a chosen attribute; withheld for credentialed data.

    Parameters
    ----------
    points : (n, 2) from :func:`cxrlib.stats.probes.project`
    attributes : dict of str -> (n,)
        Group of each point, missing where it has none.
    caption, name : str
        See `explorer`.
    """
    if guard.active():
        withheld("one point an image")
        return
    table = pd.DataFrame(np.asarray(points, float), columns=["x", "y"])
    about = {"groups": {}, "colours": {}}
    for attribute, groups in attributes.items():
        groups = pd.Series(groups).astype(object).reset_index(drop=True)
        found = ordered(groups)
        about["groups"][attribute] = found
        about["colours"] |= colours(found)
        table[attribute] = groups.map({g: i for i, g in enumerate(found)}).fillna(-1).astype(int)
    _emit("scatter", name, caption, {"attribute": list(attributes)}, table, about)


def dose(
    results: pd.DataFrame, caption: str, x: str = "dose", xlabel: str = "dose", name: str = "dose"
) -> None:
    """A metric over the setting of a planted dial, one line per model; a slider picks the setting.

    Parameters
    ----------
    results : results table
        Rows for one metric, with a further column `x`: the dial's setting.
    caption, name : str
        See `explorer`.
    x, xlabel : str
        The column, and what it is called.

    Raises
    ------
    ValueError, GuardError
        See `explorer`.
    """
    one_row_each(results, ["model", x])
    guard.presentable(results[[x]], counts=())  # before its name is lost
    by_setting = results.groupby(x, sort=True)
    parts = [schema.results(rows.drop(columns=x)).assign(x=at) for at, rows in by_setting]
    table = pd.concat(parts, ignore_index=True)
    models = ordered(table["model"])
    settings = [round(float(v), DIGITS) for v in dict.fromkeys(table["x"])]
    metric = readable(table["metric"].iloc[0])
    about = {"settings": settings, "xlabel": xlabel, "ylabel": metric, "colours": colours(models)}
    table = table[["model", "x", *NUMBERS, *COUNTS, "note"]]
    _emit("dose", name, caption, {"setting": settings}, table, about)


def decisions(curves: pd.DataFrame, caption: str, start: float, name: str = "decisions") -> None:
    """What alarms do to groups of patients; a slider moves the risk above which there is one.

    Parameters
    ----------
    curves : DataFrame
        From :func:`cxrlib.stats.net_benefit.curves`, of one model, in groups of one or more
        attributes; each metric can be chosen, and all are said in words.
    caption, name : str
        See `explorer`.
    start : float
        The risk that the slider stands at, at first.

    Raises
    ------
    ValueError, GuardError
        See `explorer`.
    """
    keys = ["attribute", "group", "metric", "threshold"]
    one_row_each(curves, keys)
    settings = sorted(curves["threshold"].unique())
    known = schema.results(curves.drop(columns="threshold"))
    known["threshold"] = curves["threshold"].to_numpy()
    controls = {c: _seen(known[c]) for c in ("attribute", "metric")}
    controls["setting"] = [round(float(t), DIGITS) for t in settings]
    about = {"settings": controls["setting"], "xlabel": "risk above which there is an alarm"}
    about["start"] = int(np.argmin(np.abs(np.array(settings) - start)))
    about["colours"] = colours(ordered(known["group"]))
    known = known.sort_values("group", key=lambda c: c.map(_rank(c)), kind="stable")
    _emit("decisions", name, caption, controls, known[[*keys, *NUMBERS, *COUNTS, "note"]], about)


# --- what is written ---------------------------------------------------------------------------

LABELS = {"label": "finding", "method": "reading", "attribute": "patients by"}


def _seen(column):
    return [entry for entry in dict.fromkeys(column) if not pd.isna(entry)]


def _rank(column):
    """Groups in their natural order, all patients first."""
    return {group: i for i, group in enumerate(ordered(column))}


def _emit(kind, name, caption, controls, table, about):
    if guard.active():
        table = guard.presentable(table, counts=())
        caption = guard.text(caption, f"interactive figure {name}: the caption")
    page = rendered(kind, name, caption, controls, table, about)
    displayed(page, f"{caption} ({ELSEWHERE})")


def rendered(
    kind: str,
    name: str,
    caption: str,
    controls: Mapping[str, list],
    table: pd.DataFrame,
    about: Mapping,
) -> str:
    """The HTML of an interactive figure.

    Parameters
    ----------
    kind : {"explorer", "reliability", "scatter", "dose", "decisions"}
    name, caption : str
    controls : dict of str -> list
        What can be chosen.
    table : DataFrame
        The values, rounded to `DIGITS` digits.
    about : dict
        What else the script has to know.

    Returns
    -------
    str, the same for the same arguments
    """
    rows = [[_plain(x) for x in row] for row in table.astype(object).to_numpy().tolist()]
    said = {str(x) for choice in controls.values() for x in choice}
    said |= {x for row in rows for x in row if isinstance(x, str)} | set(about["colours"])
    said |= {g for groups in about.get("groups", {}).values() for g in groups}
    data = {"columns": list(table), "rows": rows, **about}
    data["names"] = {x: NAMES[x] for x in sorted(said) if x in NAMES}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    lines = [f'<div class="cxr-interactive" id="cxr-{name}" data-kind="{kind}">']
    lines.append(f'<p class="cxr-caption">{html.escape(caption)}</p>')
    lines.append(f'<p class="cxr-elsewhere">{ELSEWHERE}</p>')
    lines.append("<form hidden>")
    lines += [_control(kind, key, entries, about) for key, entries in controls.items()]
    lines.append('<p role="status"></p></form><div class="cxr-plot"></div>')
    lines.append(f'<script type="application/json">{text}</script></div>')
    return "\n".join(lines)


def _plain(x):
    """An entry as JSON has it: missing entries null, numbers rounded."""
    if pd.isna(x):
        return None
    if isinstance(x, float | np.floating):
        return round(float(x), DIGITS)
    return int(x) if isinstance(x, np.integer) else x


def _control(kind, key, entries, about):
    if key == "setting":
        at = f'max="{len(entries) - 1}" value="{about.get("start", 0)}"'
        slide = f'<input type="range" name="setting" min="0" {at}>'
        return f"<label>{html.escape(about['xlabel'])} {slide}</label>"
    if len(entries) == 1:
        value = html.escape(str(entries[0]), quote=True)
        return f'<input type="hidden" name="{key}" value="{value}">'
    title = "coloured by" if kind == "scatter" else LABELS.get(key, key)
    options = "".join(
        f'<option value="{html.escape(str(e), quote=True)}">{html.escape(readable(e))}</option>'
        for e in entries
    )
    return f'<label>{title} <select name="{key}">{options}</select></label>'

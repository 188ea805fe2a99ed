"""Results tables as figures. Nothing here computes a statistic.

Every function makes and returns a pyplot figure, which brings its text alternative (``fig.alt``)
and the table behind it (``fig.table``) for :func:`cxrlib.show.notebook.figure`. Whiskers are the
interval of the table; a value that is undefined is shown as a hollow ring on the base line, a
number that a paper prints as a hollow diamond. All of them raise ValueError for a table without
rows, or with more than one row for one place of the figure.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from cxrlib import guard
from cxrlib.core.checks import one_row_each
from cxrlib.show.words import (
    ABSOLUTE,
    CHANCE,
    COLOURS,
    PERFORMANCE,
    SPARE,
    UNSTATED,
    X_GAPS,
    colours,
    duration,
    fmt,
    in_words,
    ordered,
    percent,
    readable,
)

WIDTH = 4  # inches, so that a phone of 390 pixels shows 9 points as 11 pixels
WIDE = 6  # of what has no room there: a phone scrolls it sideways
PALE, GREY, DARK = "#DDDDDD", "#888888", "#555555"
LEGEND = {"fontsize": 9, "frameon": False, "handletextpad": 0.4, "columnspacing": 1}
MARKED = (  # single dots among many
    {"marker": "D", "markersize": 7, "mfc": "#D55E00", "mec": "black"},
    {"marker": "o", "markersize": 7, "mfc": "none", "mec": "black"},
)
HOURS = {"10 min": 1 / 6, "1 hour": 1, "4 hours": 4, "1 day": 24, "1 week": 168}
HOURS |= {"1 month": 720, "1 year": 8766}  # marks of an axis
DIAMOND = {"marker": "D", "mfc": "white", "mew": 1.5, "markersize": 5.5}


def bars(
    results: pd.DataFrame,
    x: str = "label",
    hue: str = "model",
    panel: str | None = None,
    baseline: float | None = None,
    printed: pd.DataFrame | None = None,
) -> Figure:
    """Bars with interval whiskers, for any results table.

    Parameters
    ----------
    results : results table
        x, hue and panel have to identify its rows.
    x, hue : str
        Columns that give the place and the colour of a bar.
    panel : str, optional
        Column with one panel below the other, such as "attribute".
    baseline : float, optional
        Dashed line and foot of the bars; by default chance for AUC (0.5), else 0.
    printed : results table, optional
        A paper's numbers for the same metric, such as ``published.table("X Fig. 2a")``, drawn as
        diamonds; what was not computed here has a place (panel) of its own, behind a line.

    Raises
    ------
    ValueError
        If another metric is printed than computed.
    """
    keys = list(dict.fromkeys(c for c in (x, hue, panel) if c))
    one_row_each(results, keys)
    printed = results.iloc[:0] if printed is None else _printed(printed, keys, results["metric"])
    both = pd.concat([results[keys], printed[keys]])
    panels = [None] if panel is None else list(dict.fromkeys(both[panel]))
    fig, axes = _panels((WIDTH, 0.7 + 2.3 * len(panels)), len(panels), sharey=True)
    for ax, which in zip(axes.flat, panels, strict=True):
        own, other = (t if which is None else t[t[panel] == which] for t in (results, printed))
        _bars(ax, own, other, x, hue, baseline, None if which is None else readable(which))
    drawn = f"Bars with interval whiskers, one per {_readable(x)} and {_readable(hue)}"
    drawn += f", a panel for each {_readable(panel)}." if panel else "."
    if len(printed):
        drawn += f" Open diamonds: what is {_printed_in(printed)}."
    return _finished(fig, drawn, results)


def group_bars(results: pd.DataFrame, metric: str = "auc", model: str | None = None) -> Figure:
    """Performance of one model in groups of patients, a panel for each attribute (S Fig. 1).

    Parameters
    ----------
    results : results table
        From :func:`cxrlib.stats.fairness.performance_table`.
    metric : str
        "auc", "adjusted_auprc", ...
    model : str, optional
        The first one of the table by default.
    """
    model = results["model"].iloc[0] if model is None else model
    table = results[(results["model"] == model) & (results["metric"] == metric)]
    fig = bars(table[table["attribute"] != "all"], hue="group", panel="attribute")
    fig.suptitle(f"{model}: {readable(metric)}", x=0.01, ha="left", fontweight="bold")
    return fig


def drain_arms(
    results: pd.DataFrame, metric: str = "adjusted_auprc", protocol: str = "as_published"
) -> Figure:
    """Performance with and without drains, model by model (S Fig. 4a, b).

    Parameters
    ----------
    results : results table
        From :func:`cxrlib.stats.shortcuts.drain_arms`.
    metric, protocol : str
        Which of its rows are drawn.
    """
    table = results[(results["metric"] == metric) & (results["protocol"] == protocol)]
    table = table[~table["group"].str.contains(" - ")]
    return bars(table, x="model", hue="group", panel="label")


def probe_bars(results: pd.DataFrame) -> Figure:
    """How well attributes can be read from embeddings, a panel for each probe (S Table 2).

    Parameters
    ----------
    results : results table
        From :func:`cxrlib.stats.probes.probe_table`.
    """
    return bars(results, hue="model", panel="method")


def gap_forest(table: pd.DataFrame) -> Figure:
    """Differences with intervals, one line each, around a line at 0.

    Parameters
    ----------
    table : results table
        Of one metric, such as from :func:`cxrlib.stats.fairness.gap_table`,
        `fairness.model_gap_table`, `inference.gap_tests`, `shortcuts.twin_shift` or
        `shortcuts.drain_arms`. Lines are labels and groups (as far as they vary), colours models.
        Of tests, a grey bar is the reach of a fair model's gaps.

    Raises
    ------
    ValueError
        If the table holds several metrics.
    """
    varying = [c for c in ("label", "attribute", "group", "protocol") if table[c].nunique() > 1]
    keys = varying or ["label"]
    one_row_each(table, [*keys, "model", "metric"])
    if table["metric"].nunique() > 1:
        metrics = sorted(table["metric"].unique())
        raise ValueError(f"table: holds the metrics {metrics}; filter it to one.")
    line = list(table[keys].astype(str).itertuples(index=False, name=None))
    lines, model = list(dict.fromkeys(line)), table["model"].fillna("all")
    models = ordered(model)
    palette = colours(models)
    size = (WIDTH, 1.2 + max(0.3, 0.2 * len(models)) * len(lines))
    fig, ((ax,),) = _panels(size)
    ax.axvline(0, color=GREY, linewidth=1)
    at = _at(lines, models, line, model, room=0.7)
    _reach(ax, table, at, 0.8 * 0.7 / len(models))
    hollow = _marks(ax, table, at, model.map(palette))
    _named_lines(ax, [", ".join(map(readable, each)) for each in lines])
    drawn = f"Dots with intervals around a line at 0, one line per {' and '.join(keys)}."
    if "floor_p95" in table:
        tested = table.dropna(subset=["value", "floor_p95"])
        beyond = (tested["value"].abs() > tested["floor_p95"]).sum()
        drawn += " A grey bar behind each reaches as far as the gaps of 95 in 100 fair models; "
        drawn += f"{beyond} of {len(tested)} gaps lie beyond theirs."
    metric = table["metric"].iloc[0]
    what = readable(metric)
    of_mean = "label" not in keys and table["label"].iloc[0] == "mean"
    what = f"mean {what}" if of_mean and not what.startswith("mean ") else what
    title = f"difference in {what}" if metric in PERFORMANCE else what
    named = [c for c in ("label", "group") if c not in keys]
    shared = [c for c in named if table[c].iloc[0] not in ("all", "mean")]
    ax.set_xlabel(", ".join([title, *(readable(table[c].iloc[0]) for c in shared)]))
    _legend_above(fig, _entries(palette, hollow))
    return _finished(fig, drawn, table)


def gap_parts(table: pd.DataFrame) -> Figure:
    """The parts of a gap as bars with whiskers, a panel for each metric.

    Parameters
    ----------
    table : results table
        From :func:`cxrlib.stats.gap_parts.table`, of one label, attribute and pair of groups. What
        could not be split has a hollow ring at 0.
    """
    one_row_each(table, ["metric", "method"])
    panels, lines = (list(dict.fromkeys(table[c])) for c in ("metric", "method"))
    ends = {lines[0]: DARK, "unexplained": GREY}  # the whole, and what is left of it
    shades = {name: ends.get(name, SPARE[0]) for name in lines}
    size = (WIDTH, (0.6 + 0.24 * len(lines)) * len(panels))
    fig, axes = _panels(size, len(panels), sharex=True)
    for ax, metric in zip(axes.flat, panels, strict=True):
        rows = table[table["metric"] == metric]
        at, shade = rows["method"].map(lines.index).to_numpy(), rows["method"].map(shades)
        ax.barh(at, rows["value"].fillna(0), 0.6, color=shade, alpha=0.45)
        _marks(ax, rows, at, shade, dots=False)
        ax.axvline(0, color=GREY, linewidth=1)
        _named_lines(ax, [readable(name) for name in lines])
        ax.set_title(readable(metric), fontsize=10, loc="left")
    axes.flat[-1].set_xlabel(readable(table["group"].iloc[0]))
    drawn = "Bars with interval whiskers around a line at 0: the gap, its parts, and what stays "
    return _finished(fig, drawn + "unexplained; a panel for each metric.", table)


def crossed_groups(table: pd.DataFrame) -> Figure:
    """Numbers of crossed groups with their intervals, a line per group and a colour per method.

    Parameters
    ----------
    table : results table
        From :func:`cxrlib.stats.borrowed.table`, of one model, label and metric. Groups stand from
        the fewest to the most positive images; what is undefined has a hollow ring.
    """
    one_row_each(table, ["group", "method"])
    table = table.sort_values("n_positive", kind="stable")
    lines, methods = list(dict.fromkeys(table["group"])), list(dict.fromkeys(table["method"]))
    palette = dict(zip(methods, [GREY, *SPARE], strict=False))
    fig, ((ax,),) = _panels((WIDTH, 1 + (0.12 + 0.13 * len(methods)) * len(lines)))
    at = _at(lines, methods, table["group"], table["method"])
    foot = CHANCE.get(table["metric"].iloc[0], 0)
    hollow = _marks(ax, table, at, table["method"].map(palette), foot)
    _named_lines(ax, [readable(name) for name in lines], PALE)
    ax.set_xlabel(readable(table["metric"].iloc[0]))
    _legend_above(fig, _entries(palette, hollow))
    drawn = "Dots with intervals, one line per group, from the fewest positive images to the most, "
    return _finished(fig, drawn + "in a colour for each method.", table)


def reliability(table: pd.DataFrame) -> Figure:
    """Reliability curves above the distribution of predicted probabilities (S Fig. 4c).

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.stats.calibration.reliability_table`, of one finding; one line per
        model, or per method where there is one model only.
    """
    hue = "model" if table["model"].nunique() > 1 or table["method"].nunique() == 1 else "method"
    one_row_each(table, [hue, "low", "high"])
    palette = colours(ordered(table[hue]))
    fig, ((ax,), (below,)) = _panels((WIDTH, 5.4), 2, sharex=True, height_ratios=(3, 1))
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    _curves(ax, table, "predicted", "observed", hue, palette, err_style="bars", markersize=5)
    _curves(below, table, "predicted", "n", hue, palette, limits=(), markersize=4)
    ax.text(0.97, 0.93, "perfect", ha="right", color="#666666", fontsize=9)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed frequency")
    below.set(ylim=(0, None), ylabel="images", xlabel="mean predicted probability")
    _legend_above(fig, _entries(palette))
    drawn = "Observed frequency against mean predicted probability, with a diagonal where both "
    drawn += f"are equal; below, images per bin. One line per {hue}: " + "; ".join(
        f"{readable(name)} from {_point(rows.iloc[0])} to {_point(rows.iloc[-1])}"
        for name, rows in table.dropna(subset=["observed"]).sort_values("low").groupby(hue)
    )
    return _finished(fig, f"{drawn}.", table)


def decision_curves(table: pd.DataFrame, hue: str = "group") -> Figure:
    """Net benefit over the risk above which there is an alarm, beside an alarm for all or none.

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.stats.net_benefit.curves`, of one model or one group, with the metrics
        net_benefit and all_alarmed.
    hue : str
        Column with one line for each entry: "group" or "model".
    """
    table = table[table["metric"].isin(("net_benefit", "all_alarmed"))]
    one_row_each(table, ["metric", "threshold", hue])
    own, every = (table[table["metric"] == m] for m in ("net_benefit", "all_alarmed"))
    palette = colours(ordered(own[hue]))
    fig, ((ax,),) = _panels((WIDTH, 3.4))
    ax.axhline(0, color=GREY, linewidth=1)
    _curves(ax, own, "threshold", "value", hue, palette, markersize=4, err_kws={"linewidth": 0})
    shared = every.groupby("threshold")["value"].agg(np.ptp).max() < 1e-9
    for name, rows in every.groupby(hue):
        shade = GREY if shared else palette[name]
        ax.plot(rows["threshold"], rows["value"], color=shade, linestyle="--", linewidth=1)
    top = own["value"].max()
    least, most = own["threshold"].min() - 1e-9, own["threshold"].max() + 1e-9
    risks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5) if least <= t <= most]
    ax.set_xscale("log")
    ax.set_xticks(risks, [f"{100 * t:g} %\n{(1 - t) / t:.3g}" for t in risks])
    ax.minorticks_off()
    ax.set(ylim=(-0.25 * top, 1.25 * top) if top > 0 else None, ylabel=readable("net_benefit"))
    ax.set_xlabel("risk above which there is an alarm\n(false alarms that a missed case is worth)")
    ax.grid(axis="y", color=PALE, linewidth=0.6)
    dashed = _entry("an alarm for all", GREY if shared else DARK, "", "--")
    _legend_above(fig, [*_entries(palette), dashed, _entry("an alarm for none", GREY, "", "-")])
    drawn = "Net benefit against the risk above which there is an alarm, a line with a band for "
    drawn += f"each {_readable(hue)}, dashed that of an alarm for all, at 0 that of none: "
    drawn += "; ".join(
        f"{readable(name)} {fmt(rows['value'].iloc[0], 0)} at {percent(rows['threshold'].iloc[0])},"
        f" {fmt(rows['value'].iloc[-1], 0)} at {percent(rows['threshold'].iloc[-1])}"
        for name, rows in own.sort_values("threshold").groupby(hue)
    )
    return _finished(fig, f"{drawn}.", table)


FATES = {  # of a thousand patients: metric -> in words, marker and colour
    "missed_cases": ("ill, missed", "X", "#D55E00"),
    "found_cases": ("ill, found", "o", "#0072B2"),
    "false_alarms": ("healthy, alarmed", "^", "#E69F00"),
}


def icon_arrays(table: pd.DataFrame) -> Figure:
    """A thousand patients as a thousand marks, a panel for each group: who is missed or alarmed.

    Whole patients are drawn: numbers are rounded, and what is left are healthy ones left alone.

    Parameters
    ----------
    table : results table
        From :func:`cxrlib.stats.net_benefit.table`, of one model and method, with the metrics
        missed_cases, found_cases and false_alarms; groups that lack one are left out.
    """
    table = table[table["metric"].isin(FATES)]
    one_row_each(table, ["group", "metric"])
    wide = table.pivot(index="group", columns="metric", values="value").dropna()
    groups = [g for g in ordered(table["group"]) if g in wide.index]
    fig, axes = _panels((WIDTH, 0.5 + 1.95 * max(1, len(groups))), max(1, len(groups)))
    told = []
    if not groups:
        axes.flat[0].text(0.5, 0.5, "every group is undefined", ha="center")
        axes.flat[0].axis("off")
    for ax, group in zip(axes.flat, groups, strict=False):
        n = {metric: round(wide.at[group, metric]) for metric in FATES}
        start = 0
        for metric, (_, marker, shade) in FATES.items():
            place = np.arange(start, start := start + n[metric])
            ax.scatter(place % 50, place // 50, 17, shade, marker=marker, linewidths=0)
        place = np.arange(start, 1000)
        ax.scatter(place % 50, place // 50, 3, GREY, marker=".", linewidths=0)
        ax.set(xlim=(-0.7, 49.7), ylim=(19.7, -0.7), aspect="equal")
        ax.axis("off")
        said = f"{n['missed_cases']} missed, {n['false_alarms']} false alarms"
        ax.set_title(f"{readable(group)}: {said}", fontsize=10, loc="left")
        told.append(
            f"{readable(group)}: {said}, {n['found_cases']} found, {1000 - start} left alone"
        )
    entries = [_entry(what, c, m, markersize=6) for what, m, c in FATES.values()]
    _legend_above(fig, [*entries, _entry("healthy, left alone", GREY, ".", markersize=4)])
    drawn = "A thousand marks for a thousand patients, a panel for each group. "
    drawn += "; ".join(told) if told else "Every group is undefined"
    fig = _finished(fig, f"{drawn}.")
    fig.table = table
    return fig


def pca_scatter(
    points: ArrayLike, explained: ArrayLike | None = None, **attributes: ArrayLike
) -> Figure:
    """Projected embeddings, a panel for each attribute, coloured by its groups (S Fig. 2).

    Parameters
    ----------
    points : (n, 2)
        From :func:`cxrlib.stats.probes.project`.
    explained : (2,), optional
        Shares of variance, for the labels of the axes.
    **attributes : (n,)
        Groups, such as sex=table["sex"]; images without a group are grey.
    """
    fig, axes = _maps(len(attributes))
    points = np.asarray(points)
    drawn = np.random.default_rng(0).permutation(len(points))  # no group is painted over another
    for ax, (title, groups) in zip(axes.flat, attributes.items(), strict=False):
        groups = pd.Series(groups).astype(object).to_numpy()
        palette = colours(ordered(groups))
        shade = np.array([palette.get(g, PALE) for g in groups])
        ax.scatter(*points[drawn].T, c=shade[drawn], s=5, alpha=0.6, linewidths=0, rasterized=True)
        _map_axes(ax, title, palette, explained)
    return _finished(fig)


def pca_ellipses(
    shapes: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    explained: ArrayLike | None = None,
) -> Figure:
    """Groups of projected embeddings without any single one: centroids and ellipses, a panel each.

    Parameters
    ----------
    shapes : dict of attribute -> dict of group -> (mean (2,), covariance (2, 2))
        The ellipse is that of one standard deviation.
    explained : (2,), optional
        Shares of variance, for the labels of the axes.
    """
    fig, axes = _maps(len(shapes))
    turn = np.linspace(0, 2 * np.pi, 100)
    for ax, (title, groups) in zip(axes.flat, shapes.items(), strict=False):
        palette = colours(ordered(groups))
        for group, shape in groups.items():
            mean, covariance = map(np.asarray, shape)
            length, direction = np.linalg.eigh(covariance)
            radii = direction * np.sqrt(length.clip(0))
            edge = mean[:, None] + radii @ [np.cos(turn), np.sin(turn)]
            ax.plot(*edge, color=palette[group], linewidth=1.4)
            ax.plot(*mean, "o", color=palette[group], markersize=5)
        ax.margins(x=0.3, y=0.15)  # room for the legend
        _map_axes(ax, title, palette, explained)
    return _finished(fig)


def pca_map(
    points: ArrayLike,
    attributes: Mapping[str, ArrayLike],
    shapes: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    spreads: pd.DataFrame,
    explained: ArrayLike,
) -> Figure:
    """:func:`pca_scatter`, or of credentialed data :func:`pca_ellipses`, with the groups in words.

    Parameters
    ----------
    points, attributes, explained : see `pca_scatter`
    shapes, spreads : from :func:`cxrlib.stats.probes.group_spreads` of these points
    """
    if guard.active():
        fig = pca_ellipses(shapes, explained)
    else:
        fig = pca_scatter(points, explained, **attributes)
    drawn = "Embeddings on their first two principal components, which carry "
    drawn += f"{percent(explained[0])} and {percent(explained[1])} of the variance, a panel per "
    drawn += "attribute, coloured by its groups. The means of the groups lie at: "
    means = spreads.pivot(index=["attribute", "group"], columns="axis", values="mean")
    drawn += "; ".join(
        f"{readable(row['group'])} ({fmt(row['1'])}, {fmt(row['2'])})"
        for _, row in means.reset_index().iterrows()
    )
    return _finished(fig, f"{drawn}.", spreads)


def sorted_differences(differences: Mapping[str, np.ndarray]) -> Figure:
    """Centroid differences by dimension, largest first, a panel each (S Fig. 3).

    All panels share the scale, so that the modality gap and gaps between groups can be compared by
    eye; S gave each its own.

    Parameters
    ----------
    differences : dict of title -> (d,)
        From :func:`cxrlib.stats.probes.centroid_differences`.
    """
    n = len(differences)
    columns = min(2, n)
    size = (WIDTH, 0.5 + 1.6 * -(-n // columns))
    fig, axes = _panels(size, n, columns, sharex=True, sharey=True)
    for ax, (title, values) in zip(axes.flat, differences.items(), strict=False):
        ax.fill_between(np.arange(1, len(values) + 1), values, color="#0072B2", linewidth=0)
        ax.set_title(readable(title), loc="left", fontsize=9)
        ax.set(xlim=(0, len(values)))
    # Only now, so that the shared scale has seen every panel.
    axes[0, 0].set(ylim=(0, None))
    fig.supxlabel("dimension, sorted", fontsize=10)
    fig.supylabel("difference of centroids", fontsize=10)
    drawn = "A panel for each pair of groups: the absolute difference of their centroids, largest "
    drawn += "dimension first. Largest: "
    drawn += "; ".join(f"{readable(t)} {fmt(max(d), 3)}" for t, d in differences.items())
    table = pd.DataFrame(dict(differences)).rename_axis("rank").reset_index()
    return _finished(fig, f"{drawn}.", table)


def dose_response(
    table: pd.DataFrame,
    x: str = "dose",
    hue: str = "model",
    xlabel: str | None = None,
    shares: bool = False,
) -> Figure:
    """A metric over the setting of a planted dial, with interval bands.

    Parameters
    ----------
    table : results table
        Rows of one metric, with a further column x that holds the setting of the dial.
    x, hue : str
        Columns of the setting and of the colour of a line.
    xlabel : str, optional
        What the setting is called; by default the name of its column.
    shares : bool
        The settings are shares: a logarithmic axis, with each of them in percent.
    """
    one_row_each(table, [x, hue])
    palette = colours(ordered(table[hue]))
    fig, ((ax,),) = _panels((WIDTH, 3))
    _curves(ax, table, x, "value", hue, palette, markersize=6, err_kws={"linewidth": 0})
    metric = table["metric"].iloc[0]
    chance, (low, high) = CHANCE.get(metric, 0), ax.get_ylim()
    if low <= chance <= high:
        ax.axhline(chance, color=GREY, linewidth=1)
    ax.set(xlabel=xlabel or readable(x), ylabel=readable(metric))
    ax.grid(axis="y", color=PALE, linewidth=0.6)
    if shares:
        ax.set_xscale("log")
        ax.set_xticks(table[x].unique(), [f"{100 * s:g} %" for s in table[x].unique()])
        ax.minorticks_off()
    _legend_above(fig, _entries(palette))
    setting = "{:g}".format if pd.api.types.is_numeric_dtype(table[x]) else str
    drawn = f"{readable(metric)} against {xlabel or readable(x)}, a line with a band for each "
    drawn += f"{_readable(hue)}: " + "; ".join(
        f"{readable(name)} {fmt(rows['value'].iloc[0])} at {setting(rows[x].iloc[0])}, "
        f"{fmt(rows['value'].iloc[-1])} at {setting(rows[x].iloc[-1])}"
        for name, rows in table.sort_values(x).groupby(hue)
    )
    return _finished(fig, f"{drawn}.", table)


def watched(table: pd.DataFrame, level: float, change: float | None = None) -> Figure:
    """A gap watched patient by patient: its band above, the wealth of the bets below.

    Parameters
    ----------
    table : DataFrame
        One row per look, in their order: ``patient`` (how many had come), ``gap`` so far, ``low``
        and ``high`` (:func:`cxrlib.stats.watch.band`), ``wealth``.
    level : float
        The alarm is at a wealth of 1 / level.
    change : float, optional
        How many patients had come before something was changed.

    Raises
    ------
    ValueError
        A table without rows.
    """
    one_row_each(table, ["patient"])
    fig, ((ax,), (below,)) = _panels((WIDTH, 5), 2, sharex=True)
    at, shade = table["patient"], SPARE[0]
    ax.fill_between(at, table["low"], table["high"], color=shade, alpha=0.2, linewidth=0)
    ax.plot(at, table["gap"], color=shade)
    ax.axhline(0, color=GREY, linewidth=1)
    below.plot(at, table["wealth"], color=shade)
    below.axhline(1 / level, color=MARKED[0]["mfc"], linewidth=1)
    below.text(at.iloc[0], 1 / level, "alarm", va="bottom", fontsize=9)
    below.set_yscale("log")
    ax.set(ylabel="gap", ylim=(-0.5, 0.5))
    below.set(ylabel="wealth", xlabel="patients so far")
    for panel in (ax, below):
        if change is not None:
            panel.axvline(change, color=GREY, linestyle="--", linewidth=1)
        panel.grid(axis="y", color=PALE, linewidth=0.6)
    last, rich = table.iloc[-1], table[table["wealth"] >= 1 / level]
    drawn = f"The gap so far with its band, over {fmt(last['patient'], 0)} patients: at the end "
    drawn += f"{fmt(last['gap'], 2, True)} within {fmt(last['low'], 2, True)} to "
    drawn += f"{fmt(last['high'], 2, True)}. Below, the wealth of the bets, from 1, on a scale of "
    drawn += f"tens, with a line at {1 / level:g}: "
    if rich.empty:
        drawn += f"never reached; at most {fmt(table['wealth'].max(), 1)}."
    else:
        drawn += f"reached after {fmt(rich['patient'].iloc[0], 0)} patients."
    if change is not None:
        drawn += f" A dashed line marks a change after {fmt(change, 0)} patients."
    return _finished(fig, drawn, table)


def film_and_phrases(
    film: ArrayLike | None, phrases: Sequence[str], similarity: np.ndarray, title: str
) -> Figure:
    """A film beside its similarity to phrases, with a line at that to the last of them.

    Parameters
    ----------
    film : (h, w) of 0 to 255, or None where it must not be seen
    phrases : sequence of str
    similarity : (phrases,)
    title : str
    """
    grid = {"figsize": (5.6, 2.4), "width_ratios": (1, 1.3), "layout": "constrained"}
    fig, (picture, ax) = plt.subplots(1, 2, **grid)
    picture.axis("off")
    if film is not None:
        picture.imshow(film, cmap="gray", vmin=0, vmax=255)
    ax.barh(phrases[:-1], similarity[:-1], color="#56B4E9")
    ax.axvline(similarity[-1], color="#D55E00", linestyle="--", label=phrases[-1])
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set(xlabel="cosine similarity", ylim=(len(phrases) - 1.4, -0.6))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    fig.suptitle(title)
    table = pd.DataFrame({"phrase": phrases, "cosine similarity": similarity})
    drawn = "A chest radiograph. " if film is not None else ""
    drawn += "Bars of its cosine similarity to phrases, with a dashed line at that to the last: "
    drawn += "; ".join(f"{x} {fmt(y)}" for x, y in zip(phrases, similarity, strict=True))
    return _finished(fig, f"{drawn}.", table)


def curves_by_prevalence(table: pd.DataFrame, areas: pd.DataFrame) -> Figure:
    """ROC and precision-recall curves of the same scores at several prevalences.

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.stats.prevalence.curves`.
    areas : DataFrame
        With ``prevalence`` and ``average_precision``: the table behind the figure.
    """
    fig, ((roc, pr),) = _panels((WIDTH, 3.4), 2, 2)
    shades = dict(zip(areas["prevalence"], ("#56B4E9", "#0072B2", "#D55E00"), strict=True))
    roc.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    # the curves of the left panel coincide: the first is the widest
    for (prevalence, shade), width in zip(shades.items(), (6, 3.5, 1.2), strict=True):
        for curve, ax, thick in (("ROC", roc, width), ("precision-recall", pr, 1.5)):
            line = table[(table["prevalence"] == prevalence) & (table["curve"] == curve)]
            ax.plot(line["x"], line["y"], color=shade, linewidth=thick)
        pr.axhline(prevalence, color=shade, linestyle=":", linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    pr.set(xlabel="recall (true positive rate)", ylabel="precision", title="precision-recall")
    pr.set_ylim(0, 1.03)
    _legend_above(fig, _entries({f"prevalence {100 * p:g} %": s for p, s in shades.items()}))
    drawn = "Left: ROC curves at several prevalences, in lines of several widths because they "
    drawn += "coincide. Right: precision against recall, each with a dotted line at its "
    drawn += "prevalence. Average precision: " + "; ".join(
        f"{fmt(row['average_precision'])} at {100 * row['prevalence']:g} %"
        for row in areas.to_dict("records")
    )
    return _finished(fig, f"{drawn}.", areas)


def strips(results: pd.DataFrame, marked: Mapping[str, str], seed: int = 0) -> Figure:
    """Every method of a model as a dot, a strip for each model, a panel for each group.

    Parameters
    ----------
    results : results table
        Of one metric; attribute, group, model and method identify its rows.
    marked : dict of method -> what it is called
        Up to two, drawn as a diamond and as a ring.
    seed : int
        Of the height of a dot within its strip, which says nothing.
    """
    keys = ["attribute", "group", "model", "method"]
    one_row_each(results, keys)
    models, groups = list(dict.fromkeys(results["model"])), list(dict.fromkeys(results["group"]))
    size = (WIDTH, len(groups) * (0.8 + 0.35 * len(models)))
    fig, axes = _panels(size, len(groups))
    metric, told = readable(results["metric"].iloc[0]), []
    for ax, group in zip(axes.flat, groups, strict=True):
        of_panel = results[results["group"] == group]
        title = f"mean {metric}" if group == "all" else f"gap in mean {metric}, {readable(group)}"
        told.append(f"{title}: {in_words(of_panel)}")
        chance = CHANCE.get(results["metric"].iloc[0], 0) if group == "all" else 0
        ax.axvline(chance, color=GREY, linestyle=":", linewidth=1)
        for k, model in enumerate(models):
            strip = of_panel[of_panel["model"] == model].set_index("method")["value"]
            height = k + np.random.default_rng(seed).uniform(-0.25, 0.25, len(strip))
            ax.scatter(strip, height, s=14, color="#56B4E9", alpha=0.7, linewidths=0)
            for method, style in zip(marked, MARKED, strict=False):
                ax.plot(strip[method], k, linestyle="", zorder=3, **style)
        _named_lines(ax, models)
        ax.set_xlabel(title)
    styles = zip(marked.values(), MARKED, strict=False)
    entries = [Line2D([], [], linestyle="", label=name, **style) for name, style in styles]
    _legend_above(fig, entries)
    drawn = "Panels one above the other, in each one strip of dots per model and one dot per "
    drawn += f"method, with a line at chance or 0. {' '.join(told)}"
    _finished(fig, drawn).table = results
    return fig


def studies_and_truth(studies: pd.DataFrame, truth: float) -> Figure:
    """Intervals of many studies of one group around the truth, a panel for each unit drawn.

    Parameters
    ----------
    studies : DataFrame
        From :func:`cxrlib.stats.simulate.studies`, of one metric and method, with ``missed``:
        whether the interval misses the truth.
    truth : float
        Of the metric.
    """
    units = list(dict.fromkeys(studies["unit"]))
    fig, axes = _panels((WIDTH, 4.6), len(units), len(units), sharex=True, sharey=True)
    for ax, unit in zip(axes.flat, units, strict=True):
        rows = studies[studies["unit"] == unit]
        colour = np.where(rows["missed"], "#D55E00", "#0072B2")
        ax.axvline(truth, color=GREY, linewidth=1)
        ax.hlines(rows["simulation"], rows["ci_low"], rows["ci_high"], color=colour, linewidth=2)
        ax.set_title(f"drawing {unit}s", loc="left")
        ax.set(xlabel=readable(studies["metric"].iloc[0]), yticks=[])
    axes[0, 0].set_ylabel("study")
    missed = studies.groupby("unit", sort=False)["missed"].sum()
    fig = _finished(fig)
    fig.table = studies
    fig.alt = f"Panels of horizontal intervals around a vertical line at {truth:g}, the truth. It "
    fig.alt += f"is missed by {', '.join(f'{n} from drawing {u}s' for u, n in missed.items())}."
    return fig


def coverage_by_patients(table: pd.DataFrame, band: tuple[float, float]) -> Figure:
    """Coverage over the number of positive patients: a panel per metric, a mark per design.

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.stats.simulate.coverage`, of many designs, with ``kind`` of interval: at
        most five.
    band : (float, float)
        What passes for the nominal coverage, drawn grey.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    colours = "#D55E00", "#56B4E9", "#999933", "#0072B2", "#CC79A7"
    looks = zip(kinds, "os^Dv", colours, strict=False)
    styles = {kind: {"marker": m, "color": c, "linestyle": ""} for kind, m, c in looks}
    metrics = list(dict.fromkeys(table["metric"]))
    fig, axes = _panels((WIDTH, 0.4 + 2.4 * len(metrics)), len(metrics), sharex=True, sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        ax.axhspan(100 * band[0], 100 * band[1], color=PALE, zorder=0)
        for kind, style in styles.items():
            rows = table[(table["metric"] == metric) & (table["kind"] == kind)]
            at = rows["n_positive_patients"], 100 * rows["coverage"]
            ax.plot(*at, markersize=4, **style)
        ax.set_title(readable(metric), loc="left")
        ax.set(ylabel="coverage, %", xscale="log")
    reach = table["n_positive_patients"].agg(["min", "max"])
    ax.set(xlabel="positive patients in the group", xlim=(0.8 * reach["min"], 1.2 * reach["max"]))
    ticks = [1, 3, 10, 30, 100, 300]
    ax.set_xticks(ticks, ticks)
    ax.minorticks_off()
    entries = [Line2D([], [], label=kind, markersize=6, **s) for kind, s in styles.items()]
    _legend_above(fig, entries)
    lowest = table.loc[table.groupby("kind", sort=False)["coverage"].idxmin()]
    fig = _finished(fig)
    fig.table = table.drop(columns="kind")
    fig.alt = "A panel per metric: coverage over the number of positive patients on a logarithmic "
    fig.alt += "axis, a mark per design and kind of interval. Lowest: " + "; ".join(
        f"{row.kind} {fmt(100 * row.coverage, 0)} % ({readable(row.metric)}, "
        f"{fmt(row.n_positive_patients, 0)} positive patients)"
        for row in lowest.itertuples()
    )
    return fig


def bottlenecks(table: pd.DataFrame, x: str, line: str, xlabel: str) -> Figure:
    """How long a job takes, both axes logarithmic, dots in the colour of the step that limits it.

    Parameters
    ----------
    table : DataFrame
        Columns x (a number), line (name of a line), ``hours``, and ``bottleneck``, see
        :func:`cxrlib.embed.plan.total`.
    x, line, xlabel : str
    """
    fig, ((ax,),) = _panels((WIDTH, 3.6))
    ends = []
    for name, rows in table.groupby(line, sort=False):
        at, hours = rows[x].to_numpy(), rows["hours"].to_numpy()
        ax.plot(at, hours, color=PALE, zorder=1)
        ax.scatter(at, hours, c=rows["bottleneck"].map(COLOURS), s=22, zorder=2)
        style = {"xytext": (7, -3), "textcoords": "offset points", "fontsize": 9}
        ax.annotate(name, (at[-1], hours[-1]), **style)
        first, last = (f"{duration(hours[i])} at {at[i]:,.0f}" for i in (0, -1))
        ends.append(f"{name}: {first}, {last}")
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="time")
    low, high = ax.get_ylim()
    marks = {h: name for name, h in HOURS.items() if low < h < high}
    ax.set_yticks(list(marks), list(marks.values()))
    ax.minorticks_off()
    limits = ordered(table["bottleneck"])
    _legend_above(fig, _entries({step: COLOURS[step] for step in limits}))
    drawn = f"Time over {xlabel}, a line per {line}, dots coloured by the step that limits: "
    return _finished(fig, f"{drawn}{', '.join(limits)}. {'; '.join(ends)}.", table)


def flow_diagram(flow: pd.DataFrame) -> Figure:
    """Boxes downwards, one per step, and beside the arrows what was left out and why.

    Narrow on purpose, so that it can be read on a phone.

    Parameters
    ----------
    flow : DataFrame
        From :func:`cxrlib.cohorts.summary.flow`. Steps that left out nothing and say nothing of
        it have no side box.
    """
    width, left, right = WIDTH, 1.9, 1.9  # inches: the figure, the boxes, the side boxes
    line, gap, edge = 0.17, 0.28, 0.09
    boxes, sides = [], []
    for row in flow.to_dict("records"):
        counts = [f"{row['images']:,} images", f"{row['patients']:,} patients"]
        boxes.append(textwrap.wrap(row["step"], 26) + counts)
        out = [f"− {row['images_out']:,} images", f"− {row['patients_out']:,} patients"]
        sides.append(out * (row["images_out"] > 0) + textwrap.wrap(row["left_out"], 26))
    heights = [line * len(box) + 2 * edge for box in boxes]
    # A side box stands between its step and the one before; the first one's beside it.
    between = [max(gap, line * len(side) + 2 * edge + 0.1) if side else gap for side in sides]
    total = sum(heights) + sum(between[1:]) + 0.1
    fig = plt.figure(figsize=(width, total), layout="none")
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(total, 0))
    ax.set_axis_off()
    frame = {"boxstyle": "square,pad=0", "linewidth": 0.8}
    text = {"linespacing": 1.3, "va": "center"}
    y = 0.05
    for i, (box, side, height) in enumerate(zip(boxes, sides, heights, strict=True)):
        middle = y + (between[i] if i else height) / 2
        if i:
            arrow = {"arrowstyle": "->"}
            ax.annotate("", (left / 2, y + between[i]), (left / 2, y), arrowprops=arrow)
            y += between[i]
        ax.add_patch(FancyBboxPatch((0.05, y), left - 0.05, height, fc="#E8F1F8", **frame))
        centre = (left / 2 + 0.02, y + height / 2)
        ax.text(*centre, "\n".join(box), ha="center", fontsize=9, **text)
        if side:
            tall = line * len(side) + 2 * edge
            start = width - right - 0.05
            if i:
                ax.plot([left / 2, start], [middle, middle], color=DARK, lw=0.8, zorder=0)
            corner = (start, middle - tall / 2)
            ax.add_patch(FancyBboxPatch(corner, right, tall, fc="white", **frame))
            ax.text(start + edge, middle, "\n".join(side), ha="left", fontsize=9, **text)
        y += height
    fig.table = flow
    fig.alt = "Boxes from top to bottom, one per step, with what is left after it; "
    fig.alt += "beside the arrows what the step left out. " + "; ".join(
        f"{row['step']}: {row['images']:,} images, {row['patients']:,} patients"
        for row in flow.to_dict("records")
    )
    return fig


def film_pair(films: np.ndarray, titles: Sequence[str], scores: pd.DataFrame) -> Figure:
    """Films of one patient side by side, with the scores of some models below each.

    Parameters
    ----------
    films : (2, size, size)
    titles : what each film shows
    scores : DataFrame
        One row per model, one column per film, in [0, 1].
    """
    fig, axes = _panels((WIDTH, 2.1 + 0.16 * len(scores)), 2, 2)
    told = []
    for ax, film, title, of_film in zip(axes.flat, films, titles, scores, strict=True):
        ax.imshow(film, cmap="gray", vmin=0, vmax=255)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, loc="left", fontsize=10)
        said = [f"{model} {fmt(score)}" for model, score in scores[of_film].items()]
        ax.set_xlabel("\n".join(said), fontsize=9)
        told.append(f"{title}: {', '.join(said)}")
    drawn = f"Two drawn chest radiographs of one patient. Scores below: {'; '.join(told)}."
    return _finished(fig, drawn)


def confounder_panel(results: pd.DataFrame) -> Figure:
    """View, age and findings of the groups of one attribute, side by side.

    Parameters
    ----------
    results : results table
        From :func:`cxrlib.cohorts.summary.confounders`.
    """
    groups = ordered(results["group"])
    palette = colours(groups)
    findings = [x for x in dict.fromkeys(results["label"]) if x != "all"]
    height = 1.1 + 0.26 * len(groups) * 0.6 + len(findings) * max(0.24, 0.1 * len(groups))
    ratios = (0.2 * len(groups) + 0.2,) * 2 + (height - 1,)
    fig, axes = _panels((WIDTH, height + 1.6), 3, height_ratios=ratios)
    titles = {"share_ap": "AP films (%)", "mean_age": "mean age (years)"}
    titles["prevalence"] = "prevalence (%)"
    hollow = False
    for ax, (metric, title) in zip(axes.flat, titles.items(), strict=True):
        rows = results[results["metric"] == metric]
        if metric != "mean_age":
            rows = rows.assign(**{c: 100 * rows[c] for c in ("value", "ci_low", "ci_high")})
        lines, at = groups, _at(groups, [""], rows["group"], [""] * len(rows))
        if metric == "prevalence":
            lines, at = findings, _at(findings, groups, rows["label"], rows["group"], room=0.75)
        hollow |= _marks(ax, rows, at, rows["group"].map(palette))
        _named_lines(ax, [readable(x) for x in lines])
        ax.set(xlabel=title, xlim=(0, None))
    _legend_above(fig, _entries(palette, hollow))
    drawn = "Dots with whiskers, one colour per group: share of AP films, mean age, and the "
    return _finished(fig, f"{drawn}prevalence of each finding.", results)


def encoded_or_used(table: pd.DataFrame, encoded: float, used: float, moves: str) -> Figure:
    """A dot for each model and attribute: how well it is read, against how far it moves answers.

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.predict.use.quadrants`; the size of the use is drawn, without its sign.
    encoded, used : float
        The bars that part the quadrants.
    moves : str
        Label of the vertical axis.
    """
    one_row_each(table, ["attribute", "model"])
    palette = colours(table["attribute"].unique())
    shapes = dict(zip(table["model"].unique(), "osD^vP", strict=False))
    size = table[["use", "use_low", "use_high"]].abs()
    low = size[["use_low", "use_high"]].min(axis=1)
    low = low.where(np.sign(table["use_low"]) == np.sign(table["use_high"]), 0)
    fig, axes = _panels((WIDTH, 4.8))
    ax = axes[0, 0]
    # Roots leave room for what is near 0, where most of the dots are.
    ax.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    top = 1.3 * max(2 * used, size.max(axis=None))
    for (_, row), at, foot in zip(table.iterrows(), size["use"], low, strict=True):
        shade, open_dot = palette[row["attribute"]], row["quadrant"] == "undecided"
        head = max(abs(row["use_low"]), abs(row["use_high"]))
        ax.plot([row["auc_low"], row["auc_high"]], [at, at], color=shade, linewidth=1)
        ax.plot([row["auc"]] * 2, [foot, head], color=shade, linewidth=1)
        marker = {"marker": shapes.get(row["model"], "o"), "s": 34, "zorder": 3}
        ax.scatter(row["auc"], at, fc="white" if open_dot else shade, ec=shade, **marker)
    ax.axvline(encoded, color=GREY, linewidth=1, linestyle="--")
    ax.axhline(used, color=GREY, linewidth=1, linestyle="--")
    ax.set(xlim=(0.42, 1.03), ylim=(0, top), xlabel="AUC of a linear probe", ylabel=moves)
    ticks = [t for t in (0, 0.1, 0.25, 0.5, 1, 2, 4) if t < top]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    corner = {"fontsize": 9, "color": DARK}
    for x, above, below in (
        (0.43, "used, not\nencoded", "neither"),
        (encoded + 0.01, "encoded and used", "encoded, not used"),
    ):
        ax.text(x, 0.97 * top, above, va="top", **corner)
        ax.text(x, 0.12 * used, below, va="bottom", **corner)  # above the many dots at 0
    entries = _entries(palette, marker="s")
    entries += [_entry(readable(m), marker=s, markersize=7) for m, s in shapes.items()]
    if (table["quadrant"] == "undecided").any():
        entries.append(_entry("undecided", mfc="white"))
    _legend_above(fig, entries, 60)
    said = "; ".join(
        f"{readable(r['attribute'])}, {r['model']}: {fmt(r['auc'])} and {fmt(r['use'])}, "
        f"{r['quadrant']}"
        for _, r in table.iterrows()
    )
    drawn = f"A map in four parts, cut at an AUC of {encoded:g} and a use of {used:g}. {said}."
    return _finished(fig, drawn, table)


def prevalence_panels(found: pd.DataFrame) -> Figure:
    """How common findings are in groups, a panel for each attribute, on a logarithmic axis.

    Parameters
    ----------
    found : DataFrame
        From :func:`cxrlib.cohorts.associations.prevalence`, of one or several attributes. The
        commonest finding of the first one stands on top.
    """
    attributes = list(dict.fromkeys(found["attribute"]))
    first = found[found["attribute"] == attributes[0]]
    counts = first.groupby("label")["n_positive"].sum()
    findings = list(counts.sort_values(ascending=False).index)
    shared = {"sharex": True, "sharey": True}
    fig, axes = _panels((WIDTH, 0.9 + 0.35 * len(findings)), len(attributes), 3, **shared)
    for ax, attribute in zip(axes.flat, attributes, strict=False):
        rows = found[found["attribute"] == attribute]
        palette = colours(ordered(rows["group"]))
        rows = rows.assign(**{c: 100 * rows[c] for c in ("value", "ci_low", "ci_high")})
        at = _at(findings, list(palette), rows["label"], rows["group"], room=0.6)
        _named_lines(ax, findings)
        ax.set(xscale="log", xlim=(0.03, 40))
        ax.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        _marks(ax, rows, at, rows["group"].map(palette))
        _legend(ax, _entries(palette), title=readable(attribute))
    fig.supxlabel("prevalence in % (log scale)", fontsize=10)
    drawn = "Dots with whiskers, one line per finding and a panel for each attribute: prevalence "
    drawn += "by group, on a logarithmic axis. "
    _finished(fig, table=found)
    fig.alt = drawn + in_words(found.assign(metric="prevalence"), 3)
    return fig


def images_per_patient(per_patient: pd.Series) -> Figure:
    """How many patients have how many images, both axes logarithmic.

    Parameters
    ----------
    per_patient : Series of int
        Images of each patient.
    """
    most, once = per_patient.max(), (per_patient == 1).mean()
    edges = np.unique(np.geomspace(1, most + 1, 25).astype(int)) - 0.5
    heights, _ = np.histogram(per_patient, edges)
    fig, axis = plt.subplots(figsize=(WIDTH, 3))
    axis.stairs(heights, edges, fill=True, color="#0072B2")
    axis.set(xscale="log", yscale="log", ylim=(0.8, None), ylabel="patients")
    axis.set_xlabel("images of one patient")
    axis.set_xticks(ticks := [1, 2, 5, 10, 20, 50, 100], ticks)
    fig.alt = (
        "Histogram, both axes logarithmic: images of one patient against the number of patients. "
        f"{percent(once)} of the patients have one image, the most imaged one has {most}."
    )
    bounds = {"from": np.ceil(edges[:-1]).astype(int), "to": edges[1:].astype(int)}
    fig.table = pd.DataFrame(bounds | {"patients": heights})
    return fig


def smallest_cells(cells: pd.DataFrame, per_cell: int) -> Figure:
    """The smallest cell of each disease beside what a recipe asks for.

    Parameters
    ----------
    cells : DataFrame
        From :func:`cxrlib.cohorts.nih6x200.cell_counts`.
    per_cell : int
    """
    shown, least = cells[::-1], cells["smallest"]
    fig, axis = plt.subplots(figsize=(WIDTH, 3.8))
    shades = np.where(shown["in_paper"], "#0072B2", "#B8CFE0")
    axis.barh(shown.index, shown["smallest"], color=shades)
    axis.axvline(per_cell, color="#D55E00", lw=1.5)
    axis.set(xscale="log", xlabel="images in the smallest cell")
    axis.set_xticks(ticks := [10, 50, 100, 500, 1000], ticks)
    fig.alt = (
        "Horizontal bars on a logarithmic axis: images in the smallest of the four cells, one bar "
        f"per disease, from {least.min()} ({least.idxmin()}) to {least.max()} ({least.idxmax()}), "
        f"with a line at {per_cell}."
    )
    fig.table = cells
    return fig


def before_after(results: pd.DataFrame, printed: pd.DataFrame | None = None) -> Figure:
    """Fairness gaps before and after fine-tuning (X Fig. 3d and 3c): a column for each model.

    A row each for the gaps of X, Eqs. 2 to 4.

    Parameters
    ----------
    results : results table
        From :func:`cxrlib.stats.fairness.multiclass_table` or `inference.multiclass_gap_tests`;
        rows of single groups and of differences between methods are left out. Of tests, a grey
        bar is the reach of a fair model's gaps.
    printed : results table, optional
        A paper's gaps, such as ``published.table("X Fig. 3c")``, drawn as diamonds; models that
        are not in `results` share a column of their own. Where a paper does not say which group a
        difference favours, both signs are drawn.

    Raises
    ------
    ValueError
        If there are more than 3 models.
    """
    keys = ["model", "method", "attribute", "group", "metric"]
    table = results[results["metric"].isin(X_GAPS) & results["group"].str.contains(" - ")]
    table = table[~table["method"].str.contains(" - ")]
    one_row_each(table, keys)
    printed = table.iloc[:0] if printed is None else _printed(printed, keys, X_GAPS)
    models = ordered(table["model"])
    if len(models) > 3:
        raise ValueError(
            f"results: {len(models)} models; expected at most 3, so that the columns can be read. "
            "Filter the table before drawing it."
        )
    others = [m for m in ordered(printed["model"]) if m not in models]
    table, printed = (
        t.assign(pair=list(zip(t["attribute"], t["group"], strict=True))) for t in (table, printed)
    )
    both = pd.concat([table, printed])
    metrics = [m for m in X_GAPS if (both["metric"] == m).any()]
    pairs, methods = list(dict.fromkeys(both["pair"])), ordered(both["method"])
    palette = colours(methods)
    columns = len(models) + bool(others)
    size = (WIDE, 0.9 + len(metrics) * max(1.7, 0.4 + 0.16 * len(methods) * len(pairs)))
    fig, axes = _panels(size, len(metrics) * columns, columns, sharex="row")
    hollow = floors = False
    for (i, j), ax in np.ndenumerate(axes):
        own = j < len(models)
        rows, stated = (
            t[(t["metric"] == metrics[i]) & t["model"].isin(models[j : j + 1] or others)]
            for t in (table, printed)
        )
        at = _at(pairs, methods, rows["pair"], rows["method"])
        floors |= _reach(ax, rows, at, 0.7 / len(methods))
        hollow |= _marks(ax, rows, at, rows["method"].map(palette))
        line, lines = ("method", methods) if own else ("model", others)
        at = _at(pairs, lines, stated["pair"], stated[line])
        _diamonds(ax, stated, at, stated["method"].map(palette))
        ax.axvline(0, color=GREY, linewidth=1, zorder=0.5)
        _named_lines(ax, [readable(group).replace("− ", "−\n") for _, group in pairs], "#BBBBBB")
        ax.tick_params(axis="y", labelleft=j == 0, length=0)
        ax.locator_params(axis="x", nbins=max(3, 8 // columns))
        if not own:
            of_pair, names = zip(*product(pairs, others), strict=True)
            ax.set_yticks(_at(pairs, others, of_pair, names), names)
            ax.tick_params(axis="y", labelright=len(stated) > 0)
        if not own and stated.empty:
            grey = {"color": "#666666", "fontsize": 9, "ha": "center", "va": "center"}
            ax.text(0.5, 0.25, "no value printed", transform=ax.transAxes, **grey)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        ax.set_ylabel(readable(metric).replace(" (", "\n("), fontsize=9.5, fontweight="bold")
    for ax, model in zip(axes[0], models, strict=False):
        ax.set_title(model, loc="left", fontsize=10)
    if others:
        axes[0, -1].set_title(_printed_in(printed), loc="left", fontsize=10, style="italic")
    entries = _entries(palette, hollow)
    if floors:
        entries.append(_entry("noise floor", PALE, marker="s", markersize=7))
    if len(printed):
        unstated = printed["note"].str.contains(UNSTATED, regex=False).any()
        sign = " (±: no sign given)" if unstated else ""
        entries.append(_entry(_printed_in(printed) + sign, mec=DARK, **DIAMOND))
    _legend_above(fig, entries, room=80)
    drawn = "A row of panels for each gap of X, by sex and by age: a line with its interval for "
    drawn += "zero-shot and for each strategy"
    drawn += ", over grey bars for the noise floor" if floors else ""
    drawn += f". Open diamonds: what is {_printed_in(printed)}." if len(printed) else "."
    return _finished(fig, drawn, table.drop(columns="pair"))


def court(
    results: pd.DataFrame, numbers: Mapping[str, int], biases: Mapping[str, str], removed: float
) -> Figure:
    """What each remedy leaves of a bias against what it costs; the placebo beside it.

    A row of panels for each bias. Left, the biased side: the share of the harm that is left, and
    the change of AUC. Right, the placebo: new harm as a share of the planted one, and the change
    of AUC. Remedies are numbers; those beyond the frame stand at its edge.

    Parameters
    ----------
    results : results table
        From :func:`cxrlib.predict.court.results`, of all remedies; undefined values are left out.
    numbers : dict of remedy -> number
    biases : dict of attribute -> title
        In the order of the rows.
    removed : float
        A share of the harm that is left within this of 0 counts as removed: a grey band.
    """
    sides = {"biased": ("share_left", "change_"), "placebo": ("placebo_share", "placebo_change_")}
    size = (WIDE, 0.4 + 2.5 * len(biases))
    fig, axes = _panels(size, 2 * len(biases), 2, sharey=True, sharex="col")
    frame = {"biased": (-0.5, 1.5), "placebo": (-0.4, 0.4)}, (-0.08, 0.05)
    table = results[results["group"] == "all"].dropna(subset="value")
    for row, (attribute, title) in zip(axes, biases.items(), strict=True):
        for ax, (side, (harm, change)) in zip(row, sides.items(), strict=True):
            of = table[table["attribute"] == attribute]
            x = of[of["metric"] == harm].set_index("method")
            y = of[of["metric"].isin([f"{change}auc", f"{change}balanced_accuracy"])]
            both = x.join(y.set_index("method")["value"].rename("change"), how="inner")
            left, right = frame[0][side]
            low, high = frame[1]
            ax.axvline(0, color=GREY, linewidth=1)
            ax.axhline(0, color=GREY, linewidth=1)
            if side == "biased":
                ax.axvspan(-removed, removed, color=PALE, alpha=0.5, zorder=0)
            margin = 0.04 * (right - left)
            at = both["value"].clip(left, right), both["change"].clip(low, high)
            ends = (both[end].clip(left, right) for end in ("ci_low", "ci_high"))
            ax.hlines(at[1], *ends, color=GREY, linewidth=0.8)
            ax.plot(*at, "o", color=GREY, markersize=3)
            beside = [(x + margin, y) for x, y in zip(*at, strict=True)]
            words = _apart(beside, 1.3 * margin, 0.01)
            for method, x, y, (to, up) in zip(both.index, *at, words, strict=True):
                ax.plot((x, to - 0.5 * margin), (y, up), color=GREY, linewidth=0.4)
                ax.text(to, up, numbers[method], fontsize=9, ha="center", va="center")
            ax.set(xlim=(left - margin, right + margin), ylim=(low - 0.01, high + 0.01))
            ax.set_title(f"{title}\n{side}", loc="left", fontsize=9)
        row[0].set_ylabel("change of AUC")
    axes[-1, 0].set_xlabel("share of the harm left")
    axes[-1, 1].set_xlabel("new harm, in planted harms")
    drawn = "A row of panels for each bias. Left: the share of the harm that each remedy leaves, "
    drawn += "against its change of AUC. Right: the same remedies on the placebo."
    shown = table[table["metric"].isin(["share_left", "placebo_share"])]
    return _finished(fig, drawn, shown)


def _apart(points, width, height):
    """Points moved up or down by as little as it takes that boxes around them do not overlap."""
    placed = []
    for x, y in points:
        others = [b for a, b in placed if abs(a - x) < width]
        steps = sorted(np.arange(-len(others), len(others) + 1), key=abs)
        free = (y + k * height for k in steps)
        clear = (up for up in free if all(abs(up - b) > 0.99 * height for b in others))
        placed.append((x, next(clear, y)))
    return placed


def spread(values: pd.DataFrame, metric: str, components: pd.DataFrame | None = None) -> Figure:
    """Every run's value of one metric: what the split and what the seed does to it.

    Parameters
    ----------
    values : DataFrame
        From :func:`cxrlib.predict.repeats.values`; a panel for each group or gap, a line for each
        model and method. Each dot is a run; those of one split are joined and lie on one height.
    metric : str
        Which one.
    components : DataFrame, optional
        From :func:`cxrlib.predict.repeats.components`, whose means are drawn as bars.
    """
    import seaborn as sns

    table = values[values["metric"] == metric]
    keys = ["attribute", "group", "model", "method"]
    one_row_each(table, [*keys, "split", "seed"])
    panels = list(dict.fromkeys(table[keys[:2]].itertuples(index=False, name=None)))
    models, methods = ordered(table["model"]), ordered(table["method"])
    splits = sorted(table["split"].unique())
    palette = colours(models)
    step = 0.84 / len(models)
    middle = _at(methods, models, table["method"], table["model"], room=0.84)
    aside = _at([0], splits, [0] * len(table), table["split"], room=0.7 * step)
    table = table.assign(middle=middle, at=middle + aside)
    means = table[[*keys, "middle"]].drop_duplicates().assign(mean=np.nan)
    if components is not None:
        known = components[components["metric"] == metric]
        means = means.drop(columns="mean").merge(known[[*keys, "mean"]], on=keys)
    columns = min(2, len(panels))
    tall = 0.3 + max(0.42, 0.3 * len(models)) * len(methods)
    size = (WIDTH, 0.8 + tall * -(-len(panels) // columns))
    fig, axes = _panels(size, len(panels), columns, sharex=True, sharey=True)
    style = {"marker": "o", "markersize": 4.2, "mew": 0, "linewidth": 0.7, "alpha": 0.8}
    for ax, (attribute, group) in zip(axes.flat, panels, strict=False):
        part, bar = (
            t[(t["attribute"] == attribute) & (t["group"] == group)] for t in (table, means)
        )
        by_model = {"hue": "model", "hue_order": models, "palette": palette, "legend": False}
        joined = {"units": "at", "estimator": None, "sort": False, "errorbar": None}
        sns.lineplot(part, x="value", y="at", **by_model, **joined, **style, ax=ax)
        undefined = part[part["value"].isna()]
        _rings(ax, np.zeros(len(undefined)), undefined["at"], undefined["model"].map(palette))
        low, high = bar["middle"] - 0.42 * step, bar["middle"] + 0.42 * step
        ax.vlines(bar["mean"], low, high, color="#222222", linewidth=2)
        if metric not in PERFORMANCE or " - " in group + methods[0]:
            ax.axvline(0, color=GREY, linewidth=1, zorder=0.5)
        _named_lines(ax, [readable(m).replace("− ", "−\n") for m in methods], PALE)
        ax.set(xlabel="", ylabel="")
        ax.set_title(readable(group), loc="left", fontsize=10)
    fig.supxlabel(readable(metric), fontsize=10)
    entries = _entries(palette, table["value"].isna().any())
    if components is not None:
        entries.append(_entry("mean", "#222222", marker="|", markersize=9, mew=2))
    _legend_above(fig, entries)
    drawn = "A dot for each split and seed, a row for each method, a colour for each model."
    return _finished(fig, drawn, table)


def learning_curves(histories: Mapping[str, pd.DataFrame], best: Mapping[str, int]) -> Figure:
    """Training and validation loss by epoch, a small panel for each run, all on one scale.

    Parameters
    ----------
    histories : dict of title -> DataFrame
        With columns epoch, train_loss, valid_loss, as in
        :class:`cxrlib.predict.finetune.FineTuned`.
    best : dict of title -> int
        The epoch whose weights were kept; its validation loss has a dot.
    """
    columns = min(2, len(histories))
    rows = -(-len(histories) // columns)
    fig, axes = _panels((WIDTH, 0.7 + 1.7 * rows), len(histories), columns, sharey=True)
    blue, orange = "#0072B2", "#D55E00"
    for ax, (title, history) in zip(axes.flat, histories.items(), strict=False):
        kept = history[history["epoch"] == best[title]]
        ax.plot("epoch", "train_loss", data=history, color=blue, label="training")
        ax.plot("epoch", "valid_loss", "--", data=history, color=orange, label="validation")
        chosen = "epoch whose weights are kept"
        ax.plot("epoch", "valid_loss", "o", data=kept, color=orange, label=chosen)
        ax.set_title("\n".join(textwrap.wrap(readable(title), 24)), loc="left", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.grid(axis="y", color=PALE, linewidth=0.6)
    fig.supxlabel("epoch", fontsize=10)
    fig.supylabel("cross-entropy", fontsize=10)
    _legend_above(fig, ax.lines)
    drawn = "Training and validation loss by epoch, a panel for each run, and a dot at the epoch "
    drawn += "whose weights are kept: " + ", ".join(f"{t} {best[t]}" for t in histories)
    named = (history.assign(run=title) for title, history in histories.items())
    losses = pd.concat(named)[["run", "epoch", "train_loss", "valid_loss"]]
    return _finished(fig, f"{drawn}.", losses)


# --- parts -----------------------------------------------------------------------------------


def proxy_and_harm(grid: pd.DataFrame) -> Figure:
    """What a term of a loss makes small, and what it is for, by the weight of the term.

    Parameters
    ----------
    grid : DataFrame
        Columns ``term`` (a panel each), ``weight``, ``distance`` (the proxy), ``gap`` (the harm),
        ``low`` and ``high`` (its interval); the last four as shares of the control.
    """
    panels = list(grid.groupby("term", sort=False))
    fig, axes = _panels((WIDTH, 3), len(panels), len(panels), sharey=True)
    axes = axes.ravel()
    lines = {"distance": "#D55E00", "gap": "#0072B2"}
    alt = "A panel for each term, two lines by its weight. At the largest weight: "
    for ax, (term, rows) in zip(axes, panels, strict=True):
        ax.axhline(1, color=PALE, lw=0.8)
        ax.fill_between(rows["weight"], rows["low"], rows["high"], color=lines["gap"], alpha=0.2)
        for column, colour in lines.items():
            ax.plot(rows["weight"], rows[column], "o-", color=colour, ms=4)
        ax.set(xscale="log", xlabel="weight of the term", title=readable(term))
        end = rows.iloc[-1]
        alt += f"{readable(term)}, distance {fmt(end['distance'])}, gap {fmt(end['gap'])}. "
    axes[0].set(ylabel="share of the control", ylim=(0, None))
    _legend_above(fig, _entries(lines))
    return _finished(fig, alt.strip(), grid)


def _panels(size, n=1, columns=1, **shared):
    """A figure of n panels, row by row: it and its axes (rows, columns)."""
    grid = {"figsize": size, "squeeze": False, "layout": "constrained"}
    fig, axes = plt.subplots(-(-n // columns), columns, **grid, **shared)
    for i in range(n, axes.size):
        axes.flat[i - columns].tick_params(labelbottom=True)  # now the lowest of its column
        axes.flat[i].remove()
    return fig, axes


def _maps(n):
    """Figure and axes of n maps on one scale, two in a row."""
    columns = min(2, n)
    size = (WIDTH, (3.8 if n == 1 else 2.6) * -(-n // columns))
    return _panels(size, n, columns, sharex=True, sharey=True)


def _map_axes(ax, title, palette, explained):
    """Title, axis labels and legend of one map."""
    share = [""] * 2 if explained is None else [f" ({100 * e:.0f} %)" for e in explained]
    ax.set(xlabel=f"PC 1{share[0]}", ylabel=f"PC 2{share[1]}", xticks=[], yticks=[])
    ax.label_outer()
    _legend(ax, _entries(palette), title=readable(title))


def _at(lines, hues, line, hue, room=0.8):
    """Where rows are drawn (n,): on the line of each, moved aside by its hue within the room."""
    aside = np.array([hues.index(h) for h in hue]) - (len(hues) - 1) / 2
    return np.array([lines.index(x) for x in line]) + aside * room / max(1, len(hues))


def _named_lines(ax, names, divider=None):
    """Names of the lines at the left of a panel, the first on top; dividers if asked."""
    margin = 0.5 if divider else 0.6
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 1 + margin, -margin)
    for edge in range(1, len(names) if divider else 0):
        ax.axhline(edge - 0.5, color=divider, linewidth=0.7)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(axis="x", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)


def _marks(ax, table, at, shades, foot=0, horizontal=True, dots=True):
    """Estimates and whiskers, and hollow rings where undefined; True if there is a ring."""
    known = np.isfinite(table["value"].to_numpy())
    rows, whiskers = table[known], ax.hlines if horizontal else ax.vlines
    colour = shades[known] if dots else "#333333"
    whiskers(at[known], rows["ci_low"], rows["ci_high"], color=colour, linewidth=1.2)
    if dots:
        ax.scatter(rows["value"], at[known], c=colour, s=25, zorder=2.5)
    places = (np.full(sum(~known), foot), at[~known])
    _rings(ax, *places[:: 1 if horizontal else -1], shades[~known])
    return not known.all()


def _rings(ax, x, y, shades):
    """Hollow rings, for values that are undefined."""
    if len(shades):
        ax.scatter(x, y, s=30, fc="white", ec=shades, clip_on=False, zorder=3)


def _reach(ax, table, at, height):
    """Grey bars as far as the gaps of a fair model reach, if the table says it; True for any."""
    if "floor_p95" not in table:
        return False
    known = table["floor_p95"].notna().to_numpy()
    floor = table.loc[known, "floor_p95"]
    low = -floor.mask(table["metric"].isin(ABSOLUTE), 0)
    ax.barh(at[known], floor - low, height, low, color=PALE, zorder=0)
    return known.any()


def _curves(ax, table, x, y, hue, palette, limits=("ci_low", "ci_high"), **style):
    """Lines through the estimates, with the interval of the table."""
    import seaborn as sns

    # Seaborn computes an interval from several rows: here from the estimate and its limits.
    rows = table.sort_values(x).melt([x, hue], [y, *limits], value_name="drawn")
    given = {"estimator": lambda v: v.iloc[0], "errorbar": lambda v: (v.min(), v.max())}
    by_hue = {"hue": hue, "hue_order": list(palette), "palette": palette, "legend": False}
    sns.lineplot(
        rows, x=x, y="drawn", **by_hue, **given, **style, sort=False, marker="o", mew=0, ax=ax
    )


def _bars(ax, table, printed, x, hue, baseline, title):
    """Bars of one panel, and diamonds for printed values, at the right where nothing was computed.

    Hues of printed values that stand beside bars have room there; elsewhere they are centred.
    """
    own = list(dict.fromkeys(table[x]))
    places = list(dict.fromkeys([*own, *printed[x]]))
    groups = ordered([*table[hue], *printed.loc[printed[x].isin(own), hue]])
    computed = colours(ordered(table[hue]))
    further = _unlike(computed, [h for h in ordered(printed[hue]) if h not in computed])
    palette = computed | further
    metrics = pd.concat([table, printed])["metric"].unique()
    foot = CHANCE.get(metrics[0], 0) if baseline is None else baseline
    width = 0.8 / max(1, len(groups))
    at, shades = _at(places, groups, table[x], table[hue]), table[hue].map(palette)
    edge = {"edgecolor": DARK, "linewidth": 0.4}
    known = table["value"].notna().to_numpy()
    ax.bar(at[known], table["value"][known] - foot, 0.9 * width, foot, color=shades[known], **edge)
    hollow = _marks(ax, table, at, shades, foot, horizontal=False, dots=False)
    for place, rows in printed.groupby(x, sort=False):
        its = groups if place in own else ordered(rows[hue])
        at = _at(places, its, rows[x], rows[hue], room=width * len(its))
        _diamonds(ax, rows, at, rows[hue].map(palette), horizontal=False)
    ax.axhline(foot, color=GREY, linewidth=1, linestyle="--")
    names = [readable(p) for p in places]
    crowded = len(names) * max(map(len, names)) > 38
    slant = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(names)), names, **slant)
    for name in ax.get_xticklabels()[len(own) :]:
        name.set_style("italic")
    ax.margins(x=0.02)
    if len(own) < len(places):
        if own:
            ax.axvline(len(own) - 0.5, color=GREY, linewidth=0.8)
        ax.set_xlim(-0.5, len(places) - 0.5)
    ax.set_ylabel(readable(metrics[0]) if len(metrics) == 1 else "")
    ax.grid(axis="y", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    entries = _entries(computed, hollow, marker="s")
    if len(printed):
        entries += [_entry(readable(h), mec=c, **DIAMOND) for h, c in further.items()]
        entries.append(_entry(_printed_in(printed), mec=DARK, **DIAMOND))
    _legend(ax, entries, title=title)


def _unlike(palette, entries):
    """Colours of further entries: their own, or a spare one where the palette has it already."""
    found = {}
    for entry in entries:
        taken = {*palette.values(), *found.values()}
        free = [c for c in (COLOURS.get(entry), *SPARE) if c and c not in taken]
        found[entry] = free[0] if free else GREY
    return found


def _printed(printed, keys, metrics):
    """A paper's numbers for a figure of these metrics, checked."""
    unknown = set(printed["metric"]) - set(metrics)
    if unknown:
        raise ValueError(
            f"printed: holds {', '.join(sorted(unknown))}; expected only the metrics of this "
            f"figure, {', '.join(sorted(set(metrics)))}. Filter it before drawing it."
        )
    one_row_each(printed, keys)
    return printed


def _printed_in(printed):
    return f"printed in {' and '.join(printed['paper'].unique())}"


def _diamonds(ax, printed, at, shades, horizontal=True):
    """Printed values with their intervals; both signs, joined, where the sign is not stated."""
    if printed.empty:
        return
    lines = ax.hlines if horizontal else ax.vlines
    unsigned = printed["note"].str.contains(UNSTATED, regex=False)
    mirrored = -printed["value"].where(unsigned)
    lines(at, mirrored, -mirrored, color=shades, linewidth=0.8, linestyle=":")
    limits = (printed[c].mask(unsigned) for c in ("ci_low", "ci_high"))
    lines(at, *limits, color=shades, linewidth=1.2)
    for value in (printed["value"], mirrored):
        places = (value, at) if horizontal else (at, value)
        ax.scatter(*places, marker="D", s=30, fc="white", ec=shades, linewidth=1.5, zorder=4)


def _entry(label, colour=DARK, marker="o", linestyle="", **style):
    """An entry of a legend."""
    return Line2D([], [], color=colour, marker=marker, linestyle=linestyle, label=label, **style)


def _entries(palette, hollow=False, marker="o"):
    """Entries of a legend: one for each colour, and one for undefined values."""
    named = [_entry(readable(e), c, marker, markersize=7) for e, c in palette.items()]
    return named + [_entry("undefined", mfc="white")] * bool(hollow)


def _legend_above(fig, entries, room=54):
    """One legend above all panels."""
    fig.legend(handles=entries, loc="outside upper left", ncols=_fitting(entries, room), **LEGEND)


def _legend(ax, entries, loc=None, title=None):
    """Legend of one panel, above it unless loc is given."""
    where = {"loc": loc}
    if loc is None:
        room = 50 // ax.get_gridspec().ncols
        where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        where |= {"ncols": _fitting(entries, room)}
    bold = {"weight": "bold", "size": 10}
    head = {"title": title, "alignment": "left", "title_fontproperties": bold, "handlelength": 1}
    ax.legend(handles=entries, **LEGEND, **head, **where)


def _fitting(entries, room):
    """The most columns of a legend that fit in a width of `room` characters."""
    labels = [e.get_label() for e in entries]
    for columns in range(len(labels), 1, -1):
        widths = [max(map(len, part)) + 4 for part in np.array_split(labels, columns)]
        if sum(widths) <= room:
            return columns
    return 1


def _point(row):
    """A point of a reliability curve in words."""
    return f"{fmt(row['observed'])} at {fmt(row['predicted'])}"


def _readable(column):
    return readable(column).replace("_", " ")


def _finished(fig, drawn=None, table=None):
    """The figure with its text alternative and the table behind it, which `figure` takes."""
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
    if table is not None and {"metric", "value"} <= set(table):
        of_metric = (rows for _, rows in table.groupby("metric", sort=False))
        drawn = " ".join([drawn, *(in_words(rows) for rows in of_metric)])
    fig.alt, fig.table = drawn, table
    return fig

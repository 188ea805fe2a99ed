"""Results tables as figures. Nothing here computes a statistic.

Every function makes and returns a pyplot figure; show it with ``plt.show()``. Whiskers are the
interval of the table; a value that is undefined is shown as a hollow ring on the base line, a
number that a paper prints as a hollow diamond.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from cxrlib.show.words import (
    ABSOLUTE,
    CHANCE,
    COLOURS,
    PERFORMANCE,
    SPARE,
    UNSTATED,
    X_GAPS,
    colours,
    ordered,
    readable,
)

WIDTH = 6  # inches: letters stay legible where a phone shrinks the page


def bars(results, x="label", hue="model", panel=None, baseline=None, printed=None):
    """Bars with interval whiskers, for any results table.

    Parameters
    ----------
    results : results table; x, hue and panel have to identify its rows
    x, hue : columns that give the place and the colour of a bar
    panel : column with one panel below the other, such as "attribute"
    baseline : dashed line and foot of the bars; by default chance for AUC (0.5), else 0
    printed : a paper's numbers for the same metric, such as ``published.table("X Fig. 2a")``, drawn
        as diamonds; what was not computed here has a place (panel) of its own, behind a line

    Raises
    ------
    ValueError
        If a table is empty, more than one row of it falls on one place, or another metric is
        printed than computed.
    """
    keys = list(dict.fromkeys(c for c in (x, hue, panel) if c))
    _one_row_each(results, keys)
    printed = results.iloc[:0] if printed is None else _printed(printed, keys, results["metric"])
    both = pd.concat([results[keys], printed[keys]])
    panels = [None] if panel is None else list(dict.fromkeys(both[panel]))
    fig, axes = plt.subplots(
        len(panels),
        1,
        figsize=(WIDTH, 0.9 + 2.7 * len(panels)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for ax, which in zip(axes.flat, panels, strict=True):
        parts = (t if which is None else t[t[panel] == which] for t in (results, printed))
        _bars(ax, *parts, x, hue, baseline, title=None if which is None else readable(which))
    return _finished(fig)


def group_bars(results, metric="auc", model=None, attributes=None):
    """Performance of one model in groups of patients, a panel per attribute (S Fig. 1).

    results : from `fairness.performance_table`
    metric : "auc", "adjusted_auprc", ...
    model : the first one by default
    attributes : all of the table by default
    """
    model = results["model"].iloc[0] if model is None else model
    table = results[(results["model"] == model) & (results["metric"] == metric)]
    known = [a for a in dict.fromkeys(table["attribute"]) if a != "all"]
    table = table[table["attribute"].isin(known if attributes is None else attributes)]
    fig = bars(table, hue="group", panel="attribute")
    fig.suptitle(f"{model}: {readable(metric)}", x=0.01, ha="left", fontweight="bold")
    return fig


def drain_arms(results, metric="adjusted_auprc", protocol="as_published"):
    """Performance with and without drains, model by model (S Fig. 4a, b).

    results : from `shortcuts.drain_arms`
    """
    table = results[(results["metric"] == metric) & (results["protocol"] == protocol)]
    table = table[~table["group"].str.contains(" - ")]
    return bars(table, x="model", hue="group", panel="label")


def probe_bars(results):
    """How well attributes can be read from embeddings, a panel per probe (S Table 2).

    results : from `probes.probe_table`
    """
    return bars(results, hue="model", panel="method")


def gap_forest(results, metric=None):
    """Differences with intervals, one line each, around a line at 0.

    results : from `fairness.gap_table`, `fairness.model_gap_table`, `inference.gap_tests`,
        `shortcuts.twin_shift` or `shortcuts.drain_arms`; lines are labels and groups (as far as
        they vary), colours models. Of tests, a grey bar is the reach of a fair model's gaps.
    metric : which one, if the table holds several
    """
    table = results if metric is None else results[results["metric"] == metric]
    varying = [c for c in ("label", "attribute", "group", "protocol") if table[c].nunique() > 1]
    keys = varying or ["label"]
    _one_row_each(table, [*keys, "model", "metric"])
    if table["metric"].nunique() > 1:
        raise ValueError(f"metric: the table holds {sorted(table['metric'].unique())}; name one.")
    lines = list(dict.fromkeys(table[keys].astype(str).itertuples(index=False, name=None)))
    models = ordered(table["model"].fillna("all"))
    palette = colours(models)
    fig, ax = plt.subplots(
        figsize=(WIDTH, 1.2 + max(0.3, 0.2 * len(models)) * len(lines)), layout="constrained"
    )
    ax.axvline(0, color="#888888", linewidth=1)
    step = 0.7 / len(models)
    hollow = False
    for line, row in zip(
        table[keys].astype(str).itertuples(index=False, name=None),
        table.to_dict("records"),
        strict=True,
    ):
        model = "all" if pd.isna(row["model"]) else row["model"]
        y = lines.index(line) + (models.index(model) - (len(models) - 1) / 2) * step
        floor = row.get("floor_p95", np.nan)
        if np.isfinite(floor):
            ax.barh(y, 2 * floor, left=-floor, height=0.8 * step, color="#DDDDDD", zorder=0)
        hollow |= _mark(ax, 0, y, row, palette[model], horizontal=True)
    ax.set_yticks(range(len(lines)), [", ".join(map(readable, line)) for line in lines])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    metric = table["metric"].iloc[0]
    of_mean = "label" not in keys and table["label"].iloc[0] == "mean"
    what = f"mean {readable(metric)}" if of_mean else readable(metric)
    title = f"difference in {what}" if metric in PERFORMANCE else what
    named = [c for c in ("label", "group") if c not in keys]
    shared = [c for c in named if table[c].iloc[0] not in ("all", "mean")]
    ax.set_xlabel(", ".join([title, *(readable(table[c].iloc[0]) for c in shared)]))
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    _legend(ax, palette, hollow, marker="o")
    return _finished(fig)


def reliability(table, label=None):
    """Reliability curves above the distribution of predicted probabilities (S Fig. 4c).

    table : from `calibration.reliability_table`; one line per model, or a method where there is
        one model only
    label : which finding, if the table holds several
    """
    table = table if label is None else table[table["label"] == label]
    hue = "model" if table["model"].nunique() > 1 or table["method"].nunique() == 1 else "method"
    lines = ordered(table[hue])
    palette = colours(lines)
    _one_row_each(table, [hue, "low", "high"])
    fig, (ax, below) = plt.subplots(
        2, 1, figsize=(5.5, 6.2), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    ax.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
    for which in lines:
        curve = table[table[hue] == which].sort_values("predicted")
        ax.plot(curve["predicted"], curve["observed"], "o-", color=palette[which], markersize=4)
        ax.vlines(curve["predicted"], curve["ci_low"], curve["ci_high"], color=palette[which])
        below.plot(curve["predicted"], curve["n"], "o-", color=palette[which], markersize=3)
    ax.text(0.97, 0.93, "perfect", ha="right", color="#666666", fontsize=9)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed frequency")
    below.set(ylim=(0, None), ylabel="images", xlabel="mean predicted probability")
    _legend(ax, palette, False, marker="o", loc="upper left")
    return _finished(fig)


def pca_scatter(points, explained=None, **attributes):
    """Projected embeddings, a panel per attribute, coloured by its groups (S Fig. 2).

    points : (n, 2) from `probes.project`
    explained : (2,) shares of variance, for the axis labels
    attributes : name=(n,) groups, such as sex=table["sex"]; images without a group are grey
    """
    fig, axes = _pca_panels(len(attributes))
    points = np.asarray(points)
    drawn = np.random.default_rng(0).permutation(len(points))  # no group is painted over another
    for ax, (title, groups) in zip(axes.flat, attributes.items(), strict=False):
        groups = pd.Series(groups).astype(object).to_numpy()
        palette = colours(ordered(groups))
        shade = np.array([palette.get(g, "#DDDDDD") for g in groups])
        ax.scatter(*points[drawn].T, c=shade[drawn], s=5, alpha=0.6, linewidths=0, rasterized=True)
        _pca_axes(ax, title, palette, explained)
    return _finished(fig)


def pca_ellipses(shapes, explained=None):
    """Groups of projected embeddings without any single one: centroids and ellipses, a panel each.

    shapes : dict of attribute -> dict of group -> (mean (2,), covariance (2, 2)); the ellipse is
        that of one standard deviation
    explained : (2,) shares of variance, for the axis labels
    """
    fig, axes = _pca_panels(len(shapes))
    turn = np.linspace(0, 2 * np.pi, 100)
    for ax, (title, groups) in zip(axes.flat, shapes.items(), strict=False):
        palette = colours(ordered(groups))
        for group, (mean, covariance) in groups.items():
            length, direction = np.linalg.eigh(covariance)
            radii = direction * np.sqrt(length.clip(0))
            edge = np.asarray(mean)[:, None] + radii @ [np.cos(turn), np.sin(turn)]
            ax.plot(*edge, color=palette[group], linewidth=1.4)
            ax.plot(*mean, "o", color=palette[group], markersize=5)
        ax.margins(x=0.3, y=0.15)  # room for the legend
        _pca_axes(ax, title, palette, explained)
    return _finished(fig)


def sorted_differences(differences, one_scale=True):
    """Centroid differences a dimension, largest first, a panel each (S Fig. 3).

    differences : dict of title -> (d,) from `probes.centroid_differences`
    one_scale : all panels share the scale, so that the modality gap and gaps between groups can
        be compared by eye; False gives each its own, as S did
    """
    fig, axes = plt.subplots(
        1,
        len(differences),
        figsize=(max(3.5, 1.9 * len(differences)), 2.8),
        squeeze=False,
        sharey=one_scale,
        layout="constrained",
    )
    for ax, (title, values) in zip(axes.flat, differences.items(), strict=True):
        ax.fill_between(np.arange(1, len(values) + 1), values, color="#0072B2", linewidth=0)
        ax.set_title(readable(title), loc="left", fontsize=9)
        ax.set(xlim=(0, len(values)), xlabel="dimension, sorted")
    for ax in axes.flat:  # only now, so that the shared scale has seen every panel
        ax.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("difference of centroids")
    return _finished(fig)


def dose_response(table, x="dose", hue="model", xlabel=None):
    """A metric over the setting of a planted dial, with interval bands.

    table : results rows of one metric with an extra column x that holds the dial's setting
    """
    _one_row_each(table, [x, hue])
    lines = ordered(table[hue])
    palette = colours(lines)
    fig, ax = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")
    for which in lines:
        curve = table[table[hue] == which].sort_values(x)
        ax.fill_between(
            curve[x], curve["ci_low"], curve["ci_high"], color=palette[which], alpha=0.2, lw=0
        )
        ax.plot(curve[x], curve["value"], "o-", color=palette[which], markersize=5)
    metric = table["metric"].iloc[0]
    chance, (low, high) = CHANCE.get(metric, 0), ax.get_ylim()
    if low <= chance <= high:
        ax.axhline(chance, color="#888888", linewidth=1)
    ax.set(xlabel=xlabel or readable(x), ylabel=readable(metric))
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    _legend(ax, palette, False, marker="o")
    return _finished(fig)


def flow_diagram(flow):
    """Boxes downwards, one a step, and beside the arrows what was left out and why.

    flow : from `cohorts.summary.flow`; steps that left out nothing and say nothing of it have no
        side box. Narrow on purpose, so that it can be read on a phone.
    """
    width, left, right = 4.0, 1.9, 1.9  # inches: the figure, the boxes, the side boxes
    line, gap, edge = 0.17, 0.28, 0.09
    boxes, sides = [], []
    for row in flow.to_dict("records"):
        counts = f"{row['images']:,} images\n{row['patients']:,} patients"
        boxes.append([*textwrap.wrap(row["step"], 27), *counts.split("\n")])
        out = [f"− {row['images_out']:,} images", f"− {row['patients_out']:,} patients"]
        told = textwrap.wrap(row["left_out"], 29)
        sides.append(out + told if row["images_out"] else told)
    heights = [line * len(box) + 2 * edge for box in boxes]
    # A side box stands between its step and the one before; the first one's beside it.
    between = [max(gap, line * len(side) + 2 * edge + 0.1) if side else gap for side in sides]
    total = sum(heights) + sum(between[1:]) + 0.1
    fig, ax = plt.subplots(figsize=(width, total))
    fig.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(total, 0))
    ax.set_axis_off()
    frame = {"boxstyle": "square,pad=0", "linewidth": 0.8}
    y = 0.05
    for i, (box, side, height) in enumerate(zip(boxes, sides, heights, strict=True)):
        if i:
            middle = y + between[i] / 2
            ax.annotate(
                "", (left / 2, y + between[i]), (left / 2, y), arrowprops={"arrowstyle": "->"}
            )
            y += between[i]
        else:
            middle = y + height / 2
        ax.add_patch(FancyBboxPatch((0.05, y), left - 0.05, height, fc="#E8F1F8", **frame))
        text = {"fontsize": 8.5, "linespacing": 1.3, "va": "center"}
        ax.text(left / 2 + 0.02, y + height / 2, "\n".join(box), ha="center", **text)
        if side:
            tall = line * len(side) + 2 * edge
            start = width - right - 0.05
            if i:
                ax.plot([left / 2, start], [middle, middle], color="#555555", lw=0.8, zorder=0)
            ax.add_patch(
                FancyBboxPatch((start, middle - tall / 2), right, tall, fc="white", **frame)
            )
            ax.text(start + edge, middle, "\n".join(side), ha="left", **text | {"fontsize": 8})
        y += height
    return fig


def confounder_panel(results):
    """View, age and findings of the groups of one attribute, side by side.

    results : from `cohorts.summary.confounders`
    """
    groups = ordered(results["group"])
    palette = colours(groups)
    findings = [x for x in dict.fromkeys(results["label"]) if x != "all"]
    height = 1.1 + 0.26 * len(groups) * 0.6 + len(findings) * max(0.24, 0.1 * len(groups))
    fig, axes = plt.subplots(
        3,
        1,
        figsize=(4.4, height + 1.6),
        height_ratios=(0.2 * len(groups) + 0.2,) * 2 + (height - 1,),
        layout="constrained",
    )
    titles = {"share_ap": "AP films (%)", "mean_age": "mean age (years)"}
    hollow = False
    titles["prevalence"] = "prevalence (%)"
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        rows = results[results["metric"] == metric]
        lines = findings if metric == "prevalence" else groups
        step = 0.75 / len(groups) if metric == "prevalence" else 0
        for row in rows.to_dict("records"):
            scale = 1 if metric == "mean_age" else 100
            scaled = row | {c: scale * row[c] for c in ("value", "ci_low", "ci_high")}
            place = groups.index(row["group"])
            at = place
            if metric == "prevalence":
                at = lines.index(row["label"]) + (place - (len(groups) - 1) / 2) * step
            hollow |= _mark(ax, 0, at, scaled, palette[row["group"]], horizontal=True)
        ax.set_yticks(range(len(lines)), [readable(x) for x in lines])
        ax.set_ylim(len(lines) - 0.4, -0.6)
        ax.set_xlabel(title)
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        ax.set_xlim(left=0)
    _legend(axes[-1], palette, hollow, marker="o", room=40)
    return _finished(fig)


def before_after(results, printed=None, metrics=X_GAPS):
    """Fairness gaps before and after fine-tuning (X Fig. 3d and 3c): a column per model.

    Parameters
    ----------
    results : from `fairness.multiclass_table` or `inference.multiclass_gap_tests`; rows of single
        groups and of differences between methods are left out. Of tests, a grey bar is the reach
        of a fair model's gaps.
    printed : a paper's gaps, such as ``published.table("X Fig. 3c")``, drawn as diamonds; models
        that are not in `results` share a column of their own. Where a paper does not say which
        group a difference favours, both signs are drawn.
    metrics : a row each; by default Eqs. 2 to 4 of X

    Raises
    ------
    ValueError
        If a table has none of these gaps, several rows for one of them, or more than 3 models.
    """
    keys = ["model", "method", "attribute", "group", "metric"]
    table = results[results["metric"].isin(metrics) & results["group"].str.contains(" - ")]
    table = table[~table["method"].str.contains(" - ")]
    _one_row_each(table, keys)
    printed = table.iloc[:0] if printed is None else _printed(printed, keys, metrics)
    models = ordered(table["model"])
    if len(models) > 3:
        raise ValueError(
            f"results: {len(models)} models; expected at most 3, so that the columns can be read. "
            "Filter the table before drawing it."
        )
    others = [m for m in ordered(printed["model"]) if m not in models]
    both = pd.concat([table[keys], printed[keys]])
    metrics = [m for m in metrics if (both["metric"] == m).any()]
    pairs = [p for _, p in both[["attribute", "group"]].drop_duplicates().iterrows()]
    methods = ordered(both["method"])
    palette = colours(methods)
    fig, axes = plt.subplots(
        len(metrics),
        len(models) + bool(others),
        figsize=(WIDTH, 0.9 + len(metrics) * max(1.7, 0.4 + 0.16 * len(methods) * len(pairs))),
        squeeze=False,
        sharex="row",
        layout="constrained",
    )

    def height(row, line, lines):
        """Where a row is drawn: in the band of its pair, on one of the band's lines."""
        band = [(row["attribute"], row["group"]) == tuple(p) for p in pairs].index(True)
        return band + (lines.index(line) - (len(lines) - 1) / 2) * 0.8 / len(lines)

    hollow = floors = False
    for row in table.to_dict("records"):
        ax = axes[metrics.index(row["metric"]), models.index(row["model"])]
        y, floor = height(row, row["method"], methods), row.get("floor_p95", np.nan)
        if np.isfinite(floor):
            low = 0 if row["metric"] in ABSOLUTE else -floor
            ax.barh(y, floor - low, left=low, height=0.7 / len(methods), color="#DDDDDD", zorder=0)
            floors = True
        hollow |= _mark(ax, 0, y, row, palette[row["method"]], horizontal=True)
    for row in printed.to_dict("records"):
        own = row["model"] in models
        ax = axes[metrics.index(row["metric"]), models.index(row["model"]) if own else -1]
        y = height(row, row["method"], methods) if own else height(row, row["model"], others)
        _diamond(ax, y, row, palette[row["method"]], horizontal=True)

    _gap_axes(axes, metrics, models, pairs)
    if others:
        at = {height(p, m, others): m for p in pairs for m in others}
        given = set(printed.loc[printed["model"].isin(others), "metric"])
        axes[0, -1].set_title(_printed_in(printed), loc="left", fontsize=10, style="italic")
        for ax, metric in zip(axes[:, -1], metrics, strict=True):
            ax.set_yticks(list(at), list(at.values()))
            ax.tick_params(axis="y", labelright=metric in given)
            if metric not in given:
                grey = {"color": "#666666", "fontsize": 9, "ha": "center", "va": "center"}
                ax.text(0.5, 0.25, "no value printed", transform=ax.transAxes, **grey)
    handles = _handles(palette, hollow, "o")
    if floors:
        reach = {"marker": "s", "color": "#DDDDDD", "linestyle": "", "markersize": 7}
        handles.append(Line2D([], [], **reach, label="reach of a fair model"))
    if len(printed):
        unstated = printed["note"].str.contains(UNSTATED, regex=False).any()
        sign = " (±: no sign given)" if unstated else ""
        handles.append(_diamond_handle(_printed_in(printed) + sign))
    _legend_above(fig, handles)
    return _finished(fig)


def spread(values, metric, components=None):
    """Every run's value of one metric: what the split and what the seed does to it.

    values : from `repeats.values`; a panel per group or gap, a line per model and method. Each dot
        is a run; those of one split are joined and lie on one height.
    metric : which one
    components : from `repeats.components`, whose means are drawn as bars

    Raises
    ------
    ValueError
        If there are no rows of the metric, or several of one run in one group.
    """
    table = values[values["metric"] == metric]
    keys = ["attribute", "group", "model", "method"]
    means = {}
    if components is not None:
        means = components[components["metric"] == metric].set_index(keys)["mean"].to_dict()
    _one_row_each(table, [*keys, "split", "seed"])
    panels = list(dict.fromkeys(table[keys[:2]].itertuples(index=False, name=None)))
    models, methods = ordered(table["model"]), ordered(table["method"])
    splits = sorted(table["split"].unique())
    palette = colours(models)
    step = 0.84 / len(models)
    fig, axes = plt.subplots(
        1,
        len(panels),
        figsize=(WIDTH, 1.1 + max(0.42, 0.3 * len(models)) * len(methods)),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    hollow = False
    for ax, panel in zip(axes.flat, panels, strict=True):
        part = table[(table["attribute"] == panel[0]) & (table["group"] == panel[1])]
        for (model, method), runs in part.groupby(["model", "method"], sort=False):
            y = methods.index(method) + (models.index(model) - (len(models) - 1) / 2) * step
            for split, drawn in runs.groupby("split"):
                at = y + (splits.index(split) - (len(splits) - 1) / 2) * 0.7 * step / len(splits)
                known = drawn["value"].dropna()
                line = {"color": palette[model], "linewidth": 0.7, "markersize": 3.2}
                ax.plot(known, np.full(len(known), at), "o-", alpha=0.8, **line)
                if len(known) < len(drawn):
                    ax.plot(0, at, "o", mfc="white", mec=palette[model], markersize=5, zorder=3)
                    hollow = True
            mean = means.get((*panel, model, method), np.nan)
            ax.vlines(mean, y - 0.42 * step, y + 0.42 * step, color="#222222", linewidth=2)
        if metric not in PERFORMANCE or " - " in panel[1] + methods[0]:
            ax.axvline(0, color="#888888", linewidth=1, zorder=0.5)
        ax.set_yticks(range(len(methods)), [readable(m).replace("− ", "−\n") for m in methods])
        ax.set_ylim(len(methods) - 0.5, -0.5)
        for edge in range(1, len(methods)):
            ax.axhline(edge - 0.5, color="#DDDDDD", linewidth=0.6)
        ax.locator_params(axis="x", nbins=5)
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.set_title(readable(panel[1]), loc="left", fontsize=10)
    fig.supxlabel(readable(metric), fontsize=10)
    handles = _handles(palette, hollow, "o")
    if means:
        bar = {"marker": "|", "markersize": 9, "markeredgewidth": 2, "color": "#222222"}
        handles.append(Line2D([], [], linestyle="", label="mean", **bar))
    _legend_above(fig, handles)
    return _finished(fig)


def learning_curves(histories, best):
    """Training and validation loss by epoch, a small panel a run, all on one scale.

    histories : dict of title -> table with columns epoch, train_loss, valid_loss, as in
        `finetune.FineTuned`
    best : dict of title -> the epoch whose weights were kept; its validation loss has a dot
    """
    columns = min(4, len(histories))
    rows = -(-len(histories) // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, 0.7 + 1.7 * rows),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    blue, orange = "#0072B2", "#D55E00"
    for ax, (title, history) in zip(axes.flat, histories.items(), strict=False):
        ax.plot(history["epoch"], history["train_loss"], color=blue)
        ax.plot(history["epoch"], history["valid_loss"], "--", color=orange)
        kept = history[history["epoch"] == best[title]]
        ax.plot(kept["epoch"], kept["valid_loss"], "o", color=orange)
        ax.set_title("\n".join(textwrap.wrap(readable(title), 22)), loc="left", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    for ax in axes.flat[len(histories) :]:
        ax.remove()
    fig.supxlabel("epoch", fontsize=10)
    fig.supylabel("cross-entropy", fontsize=10)
    lines = {"training": (blue, "-", ""), "validation": (orange, "--", "")}
    lines["epoch whose weights are kept"] = (orange, "", "o")
    handles = [
        Line2D([], [], color=c, linestyle=ls, marker=m, label=label)
        for label, (c, ls, m) in lines.items()
    ]
    _legend_above(fig, handles)
    return _finished(fig)


# --- parts -----------------------------------------------------------------------------------


def _pca_panels(n):
    """Figure and axes of n maps on one scale, two in a row."""
    columns = min(2, n)
    rows = -(-n // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.6 * columns + 0.2 * (columns == 1), 3.4 * rows),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for ax in axes.flat[n:]:
        ax.remove()
    return fig, axes


def _pca_axes(ax, title, palette, explained):
    """Title, axis labels and legend of one map."""
    ax.set_title(readable(title), loc="left")
    share = [""] * 2 if explained is None else [f" ({100 * e:.0f} %)" for e in explained]
    ax.set(xlabel=f"PC 1{share[0]}", ylabel=f"PC 2{share[1]}", xticks=[], yticks=[])
    _legend(ax, palette, False, marker="o", loc="best")


def _gap_axes(axes, metrics, models, pairs):
    """Ticks, lines and titles of `before_after`: a row per metric, a column per model."""
    for i, j in np.ndindex(axes.shape):
        ax = axes[i, j]
        ax.axvline(0, color="#888888", linewidth=1, zorder=0.5)
        for edge in range(1, len(pairs)):
            ax.axhline(edge - 0.5, color="#BBBBBB", linewidth=0.8)
        ax.set_ylim(len(pairs) - 0.5, -0.5)
        ax.set_yticks(range(len(pairs)), [readable(p["group"]).replace("− ", "−\n") for p in pairs])
        ax.tick_params(axis="y", labelleft=j == 0, length=0)
        ax.locator_params(axis="x", nbins=max(3, 8 // axes.shape[1]))
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
    for ax, metric in zip(axes[:, 0], metrics, strict=True):
        ax.set_ylabel(readable(metric).replace(" (", "\n("), fontsize=9.5, fontweight="bold")
    for ax, model in zip(axes[0], models, strict=False):
        ax.set_title(model, loc="left", fontsize=10)


def _bars(ax, table, printed, x, hue, baseline, title):
    """Bars of one panel, and diamonds for printed values, at the right where nothing was computed.

    Hues of printed values that stand beside bars have room there; elsewhere they are centred.
    """
    places = list(dict.fromkeys(table[x]))
    elsewhere = [p for p in dict.fromkeys(printed[x]) if p not in places]
    beside = printed[printed[x].isin(places)]
    groups = ordered([*table[hue], *beside[hue]])
    palette = colours(ordered(table[hue]))
    palette |= _unlike(palette, [h for h in ordered(printed[hue]) if h not in palette])
    metrics = pd.concat([table, printed])["metric"].unique()
    foot = CHANCE.get(metrics[0], 0) if baseline is None else baseline
    width = 0.8 / max(1, len(groups))

    def centre(row, of=groups):
        place = [*places, *elsewhere].index(row[x])
        return place + (of.index(row[hue]) - (len(of) - 1) / 2) * width

    hollow = False
    for row in table.to_dict("records"):
        at = centre(row)
        if np.isfinite(row["value"]):
            colour = {"color": palette[row[hue]], "edgecolor": "#555555", "linewidth": 0.4}
            ax.bar(at, row["value"] - foot, 0.9 * width, bottom=foot, **colour)
        hollow |= _mark(ax, foot, at, row, palette[row[hue]], dot=False)
    for row in printed.to_dict("records"):
        its = groups if row[x] in places else ordered(printed.loc[printed[x] == row[x], hue])
        _diamond(ax, centre(row, its), row, palette[row[hue]])
    ax.axhline(foot, color="#888888", linewidth=1, linestyle="--")
    labels = [readable(p) for p in [*places, *elsewhere]]
    crowded = len(labels) * max(map(len, labels)) > 60
    slant = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(labels)), labels, **slant)
    for label in ax.get_xticklabels()[len(places) :]:
        label.set_style("italic")
    if elsewhere:
        if places:
            ax.axvline(len(places) - 0.5, color="#888888", linewidth=0.8)
        ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_ylabel(readable(metrics[0]) if len(metrics) == 1 else "")
    ax.margins(x=0.02)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    computed = {h: c for h, c in palette.items() if h in set(table[hue])}
    extra = []
    if len(printed):
        extra = [_diamond_handle(readable(h), c) for h, c in palette.items() if h not in computed]
        extra.append(_diamond_handle(_printed_in(printed)))
    _legend(ax, computed, hollow, title=title, extra=extra)


def _unlike(palette, entries):
    """Colours of further entries: their own, or a spare one where the palette has it already."""
    found = {}
    for entry in entries:
        taken = {*palette.values(), *found.values()}
        free = [c for c in (COLOURS.get(entry), *SPARE) if c and c not in taken]
        found[entry] = free[0] if free else "#888888"
    return found


def _printed(printed, keys, metrics):
    """A paper's numbers for a figure of these metrics, checked."""
    unknown = set(printed["metric"]) - set(metrics)
    if unknown:
        raise ValueError(
            f"printed: holds {', '.join(sorted(unknown))}; expected only the metrics of this "
            f"figure, {', '.join(sorted(set(metrics)))}. Filter it before drawing it."
        )
    _one_row_each(printed, keys)
    return printed


def _printed_in(printed):
    return f"printed in {' and '.join(printed['paper'].unique())}"


def _diamond(ax, at, row, colour, horizontal=False):
    """A printed value with its interval, if there is one; both signs where its sign is unknown."""
    lines = ax.hlines if horizontal else ax.vlines
    values = [row["value"]]
    if UNSTATED in row["note"]:
        values.append(-row["value"])
        lines(at, *sorted(values), color=colour, linewidth=0.8, linestyle=":")
    else:
        lines(at, row["ci_low"], row["ci_high"], color=colour, linewidth=1.2)
    for value in values:
        place = (value, at) if horizontal else (at, value)
        ax.plot(*place, "D", mfc="white", mec=colour, mew=1.5, markersize=5.5, zorder=4)


def _diamond_handle(label, colour="#555555"):
    style = {"marker": "D", "mfc": "white", "mec": colour, "mew": 1.5, "markersize": 5.5}
    return Line2D([], [], linestyle="", label=label, **style)


def _mark(ax, foot, at, row, colour, horizontal=False, dot=True):
    """Estimate and whisker, or a hollow ring if undefined; True for the ring."""
    if not np.isfinite(row["value"]):
        place = (foot, at) if horizontal else (at, foot)
        ax.plot(*place, "o", mfc="white", mec=colour, markersize=5.5, clip_on=False, zorder=3)
        return True
    lines = ax.hlines if horizontal else ax.vlines
    lines(at, row["ci_low"], row["ci_high"], color=colour if dot else "#333333", linewidth=1.2)
    if dot:
        ax.plot(row["value"], at, "o", color=colour, markersize=5)
    return False


def _handles(palette, hollow, marker):
    """Legend entries: one a colour, and one for undefined values."""
    handles = [
        Line2D([], [], marker=marker, color=c, linestyle="", markersize=7, label=readable(e))
        for e, c in palette.items()
    ]
    if hollow:
        handles.append(
            Line2D([], [], marker="o", color="#555555", mfc="white", ls="", label="undefined")
        )
    return handles


def _legend_above(fig, handles, room=90):
    """One legend above all panels, in as few rows as fit in a width of `room` characters."""
    labels = [h.get_label() for h in handles]
    for columns in range(len(labels), 0, -1):
        widths = [max(map(len, part)) + 4 for part in np.array_split(labels, columns)]
        if sum(widths) <= room:
            break
    style = {"fontsize": 9, "frameon": False, "handletextpad": 0.4, "columnspacing": 1.2}
    fig.legend(handles=handles, loc="outside upper left", ncols=columns, **style)


def _legend(ax, palette, hollow, marker="s", loc=None, title=None, room=95, extra=()):
    """One entry per colour, and one for undefined values; above the axes unless loc is given.

    room : characters that fit above the axes
    extra : further entries
    """
    handles = [*_handles(palette, hollow, marker), *extra]
    where = {"loc": loc}
    if loc is None:
        longest = max(len(h.get_label()) for h in handles)
        fits = min(len(handles), max(1, room // (longest + 5)))
        where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": fits, "borderaxespad": 0.2}
    ax.legend(
        handles=handles,
        title=title,
        alignment="left",
        title_fontproperties={"weight": "bold", "size": 10},
        fontsize=9,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.2,
        **where,
    )


def _one_row_each(table, keys):
    if table.empty:
        raise ValueError("the table has no rows for this figure; check metric, model and label.")
    doubled = table.duplicated(keys)
    if doubled.any():
        entry = table.loc[doubled, keys].iloc[0].to_dict()
        raise ValueError(f"more than one row for {entry}; filter the table before drawing it.")


def _finished(fig):
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
    return fig

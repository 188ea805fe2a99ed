"""Results tables as figures. Nothing here computes a statistic.

Every function makes and returns a pyplot figure; show it with ``plt.show()``. A group or model
has the same colour in every figure, and colours shown together can be told apart with the common
forms of colour blindness. Whiskers are the interval of the table; a value that is undefined is
shown as a hollow ring on the base line.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

COLOURS = {
    "all": "#555555",
    # sex
    "F": "#D55E00",
    "M": "#0072B2",
    "Female": "#D55E00",
    "Male": "#0072B2",
    # age: light to dark with the years
    "18-25": "#C7E9B4",
    "25-50": "#7FCDBB",
    "50-65": "#41B6C4",
    "65-80": "#2C7FB8",
    "80+": "#253494",
    "young": "#7FCDBB",
    "old": "#253494",
    # race
    "White": "#56B4E9",
    "Black": "#009E73",
    "Asian": "#CC79A7",
    # view position, site, modality
    "PA": "#0072B2",
    "AP": "#E69F00",
    "A": "#0072B2",
    "B": "#E69F00",
    "C": "#009E73",
    "image": "#0072B2",
    "text": "#E69F00",
    # devices
    "with drain": "#D55E00",
    "without drain": "#56B4E9",
    # models of this book
    "phantom-resnet": "#0072B2",
    "phantom-vit": "#009E73",
    "phantom-resnet-drain": "#D55E00",
    "phantom-resnet-underreport": "#CC79A7",
    # models of the papers
    "MedCLIP": "#0072B2",
    "MedCLIP-ViT": "#0072B2",
    "MedCLIP-RN": "#56B4E9",
    "Biovil": "#E69F00",
    "Biovil-t": "#F0E442",
    "MedImageInsight": "#009E73",
    "CheXzero": "#D55E00",
    "CXR-CLIP": "#CC79A7",
    "GLoRIA": "#882255",
    "BioMedCLIP": "#999933",
    "CLIP": "#888888",
    # methods
    "zero-shot": "#4D4D4D",
    "linear": "#56B4E9",
    "knn": "#E69F00",
    "mlp": "#009E73",
    "full": "#D55E00",
    "linear probe": "#56B4E9",
    "MLP": "#009E73",
    "LoRA": "#CC79A7",
}
SPARE = ("#332288", "#44AA99", "#AA4499", "#999933", "#661100", "#6699CC", "#888888")

NAMES = {
    "F": "female",
    "M": "male",
    "all": "all patients",
    "mean": "Mean",
    "age_group": "age",
    "age60": "age",
    "auc": "AUC",
    "average_precision": "average precision",
    "adjusted_auprc": "adjusted AUPRC",
    "f1": "F1",
    "macro_f1": "mean F1",
    "var_f1": "variance of F1",
    "f1_gap_signed": "F1 gap, signed (Eq. 2)",
    "f1_gap_absolute": "F1 gap, absolute",
    "eq_odds_mean": "equalised odds (Eq. 3)",
    "eq_odds_max": "equalised odds (max)",
    "calibration_gap_eq4": "calibration gap (Eq. 4)",
    "ece_equal_width": "ECE, equal width",
    "ece_equal_mass": "ECE, equal mass",
    "brier": "Brier score",
    "calibration_in_the_large": "mean predicted − observed",
    "false_negative_rate": "false negative rate",
    "false_positive_rate": "false positive rate",
    "twin_shift": "shift between twins (SD)",
    "linear": "linear probe",
    "knn": "k-NN",
    "mlp": "MLP",
    "full": "full fine-tuning",
    "as_published": "as published",
}
CHANCE = {"auc": 0.5}
PERFORMANCE = (
    *("auc", "average_precision", "adjusted_auprc", "accuracy", "f1", "macro_f1", "brier"),
    *("sensitivity", "specificity"),
)


def name(text):
    """How a code of the tables is written in figures: "F" -> "female", "F - M" likewise."""
    return " − ".join(NAMES.get(part, part) for part in str(text).split(" - "))


def colours(entries):
    """One colour an entry: the fixed one where there is one, else a spare one."""
    spare = iter(SPARE * 10)
    return {e: COLOURS[e] if e in COLOURS else next(spare) for e in entries}


def ordered(entries):
    """Distinct entries, known groups in their natural order, others as they come."""
    rank = {entry: i for i, entry in enumerate(COLOURS)}
    distinct = [e for e in dict.fromkeys(entries) if not pd.isna(e)]
    return sorted(distinct, key=lambda e: rank.get(e, len(rank)))


def bars(results, x="label", hue="model", panel=None, baseline=None):
    """Bars with interval whiskers, for any results table.

    Parameters
    ----------
    results : results table; x, hue and panel have to identify its rows
    x, hue : columns that give the place and the colour of a bar
    panel : column with one panel below the other, such as "attribute"
    baseline : dashed line and foot of the bars; by default chance for AUC (0.5), else 0

    Raises
    ------
    ValueError
        If the table is empty or more than one row falls on a bar.
    """
    _one_row_each(results, [c for c in (x, hue, panel) if c])
    panels = [None] if panel is None else list(dict.fromkeys(results[panel]))
    fig, axes = plt.subplots(
        len(panels),
        1,
        figsize=(7, 0.9 + 2.7 * len(panels)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for ax, which in zip(axes.flat, panels, strict=True):
        part = results if which is None else results[results[panel] == which]
        _bars(ax, part, x, hue, baseline, title=None if which is None else name(which))
    return _finished(fig)


def group_bars(results, metric="auc", model=None, attributes=None):
    """Performance of one model in groups of patients, a panel an attribute (S Fig. 1).

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
    fig.suptitle(f"{model}: {name(metric)}", x=0.01, ha="left", fontweight="bold")
    return fig


def drain_arms(results, metric="adjusted_auprc", protocol="as_published"):
    """Performance with and without drains, model by model (S Fig. 4a, b).

    results : from `shortcuts.drain_arms`
    """
    table = results[(results["metric"] == metric) & (results["protocol"] == protocol)]
    table = table[~table["group"].str.contains(" - ")]
    return bars(table, x="model", hue="group", panel="label")


def probe_bars(results):
    """How well attributes can be read from embeddings, a panel a probe (S Table 2).

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
        figsize=(7, 1.2 + max(0.3, 0.2 * len(models)) * len(lines)), layout="constrained"
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
    ax.set_yticks(range(len(lines)), [", ".join(map(name, line)) for line in lines])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    metric = table["metric"].iloc[0]
    title = f"difference in {name(metric)}" if metric in PERFORMANCE else name(metric)
    shared = [c for c in ("label", "group") if c not in keys and table[c].iloc[0] != "all"]
    ax.set_xlabel(", ".join([title, *(name(table[c].iloc[0]) for c in shared)]))
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    _legend(ax, palette, hollow, marker="o")
    return _finished(fig)


def reliability(table, label=None):
    """Reliability curves above the distribution of predicted probabilities (S Fig. 4c).

    table : from `calibration.reliability_table`; one line a model, or a method where there is
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
    """Projected embeddings, a panel an attribute, coloured by its groups (S Fig. 2).

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
        ax.set_title(name(title), loc="left", fontsize=9)
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
    fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
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
    ax.set(xlabel=xlabel or name(x), ylabel=name(metric))
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
        ax.set_yticks(range(len(lines)), [name(x) for x in lines])
        ax.set_ylim(len(lines) - 0.4, -0.6)
        ax.set_xlabel(title)
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        ax.set_xlim(left=0)
    _legend(axes[-1], palette, hollow, marker="o", room=40)
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
    ax.set_title(name(title), loc="left")
    share = [""] * 2 if explained is None else [f" ({100 * e:.0f} %)" for e in explained]
    ax.set(xlabel=f"PC 1{share[0]}", ylabel=f"PC 2{share[1]}", xticks=[], yticks=[])
    _legend(ax, palette, False, marker="o", loc="best")


def _bars(ax, table, x, hue, baseline, title):
    places, groups = list(dict.fromkeys(table[x])), ordered(table[hue])
    palette = colours(groups)
    metrics = table["metric"].unique()
    foot = CHANCE.get(metrics[0], 0) if baseline is None else baseline
    width = 0.8 / len(groups)
    hollow = False
    for row in table.to_dict("records"):
        at = places.index(row[x]) + (groups.index(row[hue]) - (len(groups) - 1) / 2) * width
        if np.isfinite(row["value"]):
            colour = {"color": palette[row[hue]], "edgecolor": "#555555", "linewidth": 0.4}
            ax.bar(at, row["value"] - foot, 0.9 * width, bottom=foot, **colour)
        hollow |= _mark(ax, foot, at, row, palette[row[hue]], dot=False)
    ax.axhline(foot, color="#888888", linewidth=1, linestyle="--")
    labels = [name(p) for p in places]
    crowded = len(places) * max(map(len, labels)) > 60
    slant = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(len(places)), labels, **slant)
    ax.set_ylabel(name(metrics[0]) if len(metrics) == 1 else "")
    ax.margins(x=0.02)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    _legend(ax, palette, hollow, title=title)


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


def _legend(ax, palette, hollow, marker="s", loc=None, title=None, room=95):
    """One entry a colour, and one for undefined values; above the axes unless loc is given.

    room : characters that fit above the axes
    """
    handles = [
        Line2D([], [], marker=marker, color=c, linestyle="", markersize=7, label=name(e))
        for e, c in palette.items()
    ]
    if hollow:
        handles.append(
            Line2D([], [], marker="o", color="#555555", mfc="white", ls="", label="undefined")
        )
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

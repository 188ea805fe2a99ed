"""Figures show what the tables hold: heights, whiskers, colours, undefined values."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle

from cxrlib import schema
from cxrlib.papers import published
from cxrlib.show import plots, words
from tests.conftest import ROOT

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def performance():
    rows = []
    for model in ("phantom-resnet", "phantom-vit"):
        for attribute, groups in (("all", ["all"]), ("sex", ["M", "F"]), ("race", ["Black"])):
            for group in groups:
                for i, label in enumerate(("Edema", "Pneumothorax")):
                    missing = (group, label) == ("F", "Edema")
                    value = np.nan if missing else 0.7 + 0.1 * i + 0.01 * len(rows)
                    rows.append(
                        {"model": model, "attribute": attribute, "group": group, "label": label}
                        | {"metric": "auc", "value": value, "note": "few" if missing else ""}
                        | {"ci_low": value - 0.05, "ci_high": value + 0.06}
                    )
    return schema.results(rows)


def heights(ax):
    tops = [(p.get_facecolor(), p.get_y() + p.get_height()) for p in ax.patches]
    return {(to_hex(colour).upper(), round(top, 9)) for colour, top in tops}


def whiskers(ax):
    return {tuple(np.round(np.sort(s[:, 1]), 9)) for s in segments(ax)}


def segments(ax):
    lines = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [s for c in lines for s in c.get_segments() if np.isfinite(s).all() and len(s)]


def marks(ax, filled=True):
    """Place and colour of each dot, or of each hollow ring: (x, y, colour), from top to bottom."""
    return sorted(
        (
            (*map(float, at), to_hex(edge).upper())
            for c in clouds(ax, "o", filled)
            for at, edge in c
        ),
        key=lambda mark: mark[1],
    )


def rings(ax):
    return marks(ax, filled=False)


def clouds(ax, marker, filled):
    """Points of one marker, cloud by cloud: pairs of (x, y) and the colour of the edge."""
    outline = MarkerStyle(marker).get_path().vertices
    for c in ax.collections:
        if not isinstance(c, PathCollection) or len(c.get_paths()[0].vertices) != len(outline):
            continue
        white = to_hex(c.get_facecolors()[0]) == "#ffffff"
        if white != filled:
            edges = c.get_edgecolors()
            edges = np.repeat(edges, len(c.get_offsets()), 0) if len(edges) == 1 else edges
            yield zip(c.get_offsets(), edges, strict=True)


def test_group_bars_show_every_value_once(performance):
    fig = plots.group_bars(performance, "auc", "phantom-vit")
    assert len(fig.axes) == 2  # sex and race
    sex = performance[(performance["model"] == "phantom-vit") & (performance["attribute"] == "sex")]
    shown = sex[sex["value"].notna()]
    assert heights(fig.axes[0]) == {
        (words.COLOURS[r["group"]], round(r["value"], 9)) for _, r in shown.iterrows()
    }
    assert whiskers(fig.axes[0]) == {
        (round(r["ci_low"], 9), round(r["ci_high"], 9)) for _, r in shown.iterrows()
    }


def test_undefined_values_are_marked_not_missing(performance):
    sex, race = plots.group_bars(performance).axes
    assert len(rings(sex)) == 1 and not rings(race)
    assert "undefined" in [t.get_text() for t in sex.get_legend().get_texts()]
    assert "undefined" not in [t.get_text() for t in race.get_legend().get_texts()]


def test_a_group_keeps_its_colour_and_place():
    assert words.ordered(["80+", "18-25", "65-80", None]) == ["18-25", "65-80", "80+"]
    assert words.ordered(["Asian", "White"]) == ["White", "Asian"]
    assert words.colours(["F", "new"])["F"] == words.colours(["F"])["F"] == words.COLOURS["F"]
    assert words.readable("F - M") == "female − male"


@pytest.mark.parametrize(
    "together",
    [
        ("F", "M"),
        ("18-25", "25-50", "50-65", "65-80", "80+"),
        ("White", "Black", "Asian"),
        ("phantom-resnet", "phantom-vit", "phantom-resnet-drain", "phantom-resnet-underreport"),
        ("MedCLIP", "Biovil", "Biovil-t", "MedImageInsight", "CheXzero", "CXR-CLIP"),
        ("zero-shot", "linear probe", "MLP", "LoRA", "full"),
        ("linear", "knn", "mlp"),
        ("young F", "old F", "young M", "old M"),
        ("with drain", "without drain"),
    ],
)
@pytest.mark.parametrize("deficiency", ["protan", "deutan"])
def test_colours_stay_apart_for_colour_blind_readers(together, deficiency):
    """Distance after simulated dichromacy (Viénot et al. 1999), in CIE L*a*b*."""
    simulate = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[deficiency]
    rgb = np.array([matplotlib.colors.to_rgb(words.COLOURS[t]) for t in together])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(simulate), 0, 1)
    xyz = seen @ np.transpose(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-3))
    lab = np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distance[np.triu_indices(len(together), 1)].min() > 10


def test_gap_forest_has_one_line_a_row_and_marks_zero():
    rows = [
        {"model": m, "label": label, "attribute": "sex", "group": "F - M", "metric": "auc"}
        | {"value": v, "ci_low": v - 0.1, "ci_high": v + 0.1, "note": "few" * (v != v)}
        for m, label, v in (
            ("phantom-resnet", "Edema", 0.1),
            ("phantom-vit", "Edema", -0.2),
            ("phantom-resnet", "mean", np.nan),
        )
    ]
    (ax,) = plots.gap_forest(schema.results(rows)).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Edema", "Mean"]
    assert len(rings(ax)) == 1
    assert {x for x, *_ in marks(ax)} == {0.1, -0.2}
    assert "difference in AUC" in ax.get_xlabel() and "female − male" in ax.get_xlabel()


def test_gap_forest_shows_the_noise_floor_of_tests():
    rows = [
        {"label": x, "attribute": "sex", "group": "F - M", "metric": "auc", "value": 0.1}
        | {"ci_low": 0.0, "ci_high": 0.2}
        for x in ("Edema", "Pneumonia")
    ]
    tests = schema.results(rows).assign(floor_p95=[0.05, np.nan])
    (ax,) = plots.gap_forest(tests).axes
    (bar,) = ax.patches
    assert (bar.get_x(), bar.get_width()) == pytest.approx((-0.05, 0.1))


def test_figures_of_the_papers_tables():
    table = published.table("S Table 1")
    (ax,) = plots.bars(table[table["metric"] == "auc"]).axes
    assert len(ax.patches) == 42
    fig = plots.probe_bars(published.table("S Table 2"))
    assert len(fig.axes) == 3 and sum(len(ax.patches) for ax in fig.axes) == 54


def test_reliability_pca_sorted_dose_and_drain_figures():
    curve = pd.DataFrame(
        {
            "model": ["a"] * 2 + ["b"] * 2,
            "method": "zero-shot",
            "label": "Edema",
            "low": [0.1, 0.2] * 2,
            "high": [0.2, 0.3] * 2,
            "predicted": [0.15, 0.25, 0.12, 0.22],
            "observed": [0.1, 0.3, 0.2, 0.4],
            "ci_low": 0.0,
            "ci_high": 0.5,
            "n": 20,
        }
    )
    ax = plots.reliability(curve).axes[0]
    drawn = [line.get_ydata().tolist() for line in ax.lines]
    assert [0.1, 0.3] in drawn and [0.2, 0.4] in drawn

    points = np.arange(12.0).reshape(6, 2)
    fig = plots.pca_scatter(points, [0.5, 0.25], sex=list("FMFMFM"), race=["White", None] * 3)
    offsets = fig.axes[0].collections[0].get_offsets()
    assert sorted(map(tuple, offsets)) == sorted(map(tuple, points))
    assert fig.axes[0].get_xlabel() == "PC 1 (50 %)"

    groups = {"F": ([1.0, 2.0], [[4.0, 0.0], [0.0, 1.0]])}
    ax = plots.pca_ellipses({"sex": groups}, [0.5, 0.25]).axes[0]
    edge, centre = (np.array(line.get_data()) for line in ax.lines)
    assert centre.ravel().tolist() == [1, 2]
    away = edge - [[1], [2]]
    np.testing.assert_allclose(away[0] ** 2 / 4 + away[1] ** 2, 1)  # one standard deviation

    fig = plots.sorted_differences(
        {"image - text": np.array([5.0, 1]), "F - M": np.array([2.0, 1])}
    )
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim() and fig.axes[1].get_ylim()[1] >= 5

    dose = pd.DataFrame(
        {"model": "m", "metric": "auc", "dose": [1, 0], "value": [0.8, 0.6]}
    ).assign(ci_low=0.5, ci_high=0.9)
    ax = plots.dose_response(dose).axes[0]
    line = ax.lines[0]
    assert ax.get_ylim()[0] > 0.4  # AUC needs no axis down to 0
    assert line.get_xdata().tolist() == [0, 1] and line.get_ydata().tolist() == [0.6, 0.8]
    named = plots.dose_response(dose.assign(dose=["sex", "age"]))  # as in a sweep over words
    assert "0.60 at age, 0.80 at sex" in named.alt

    arms = schema.results(
        {"model": m, "label": "Pneumothorax", "group": g, "metric": "auc", "value": v}
        | {"protocol": "as_published", "ci_low": v, "ci_high": v}
        for m in ("a", "b")
        for g, v in (
            ("with drain", 0.9),
            ("without drain", 0.8),
            ("with drain - without drain", 0.1),
        )
    )
    assert len(plots.drain_arms(arms, "auc").axes[0].patches) == 4


def diamonds(ax):
    """Place and colour of each diamond: (x, y, colour)."""
    return {
        (*(round(float(z), 9) for z in at), to_hex(edge))
        for c in clouds(ax, "D", filled=False)
        for at, edge in c
        if np.isfinite(at).all()
    }


def row(method, value, model="phantom-vit", **more):
    """A row of a results table for one class out of several."""
    return {
        "paper": "X",
        "model": model,
        "method": method,
        "label": "all",
        "attribute": "all",
        "group": "all",
        "metric": "accuracy",
        "value": value,
        "ci_low": value - 0.05,
        "ci_high": value + 0.04,
        "note": "few" if np.isnan(value) else "",
    } | more


def test_bars_have_printed_values_of_other_models_at_the_right():
    results = schema.results(
        row(method, value, model)
        for model in ("phantom-resnet", "phantom-vit")
        for method, value in (("zero-shot", 0.3), ("full", 0.5))
    )
    plain = plots.bars(results, x="model", hue="method").axes[0]
    x = published.table("X Fig. 2a")
    (ax,) = plots.bars(results, x="model", hue="method", printed=x).axes
    assert heights(ax) == heights(plain)
    assert [t.get_text() for t in ax.get_xticklabels()] == [*results["model"][::2], "MedCLIP-ViT"]
    wide = 0.8 / 2
    assert diamonds(ax) == {
        (round(2 - wide / 2, 9), 0.494, words.COLOURS["zero-shot"].lower()),
        (round(2 + wide / 2, 9), 0.596, words.COLOURS["full"].lower()),
    }
    assert [1.5, 1.5] in [list(line.get_xdata()) for line in ax.lines]  # what divides them
    assert "printed in X" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert not diamonds(plain) and len(plain.get_xticks()) == 2


def test_bars_have_printed_values_of_the_same_model_on_its_bars():
    results = schema.results(
        row(m, v, "MedCLIP-ViT") for m, v in (("zero-shot", 0.3), ("MLP", 0.4), ("full", 0.5))
    )
    x = published.table("X Fig. 2a").assign(ci_low=[0.4, np.nan], ci_high=[0.55, np.nan])
    (ax,) = plots.bars(results, x="model", hue="method", printed=x).axes
    centres = {p.get_y() + p.get_height(): p.get_x() + p.get_width() / 2 for p in ax.patches}
    assert {(at, y) for at, y, _ in diamonds(ax)} == {
        (round(centres[0.3], 9), 0.494),
        (round(centres[0.5], 9), 0.596),
    }
    assert (0.4, 0.55) in whiskers(ax)  # an interval is drawn where one is printed
    assert [t.get_text() for t in ax.get_xticklabels()] == ["MedCLIP-ViT"]


def test_printed_values_whose_hue_was_not_computed_have_a_colour_and_an_entry_of_their_own():
    f1 = {"attribute": "all", "metric": "f1"}
    results = schema.results(
        row("full", v, m, label=label, **f1)
        for m, v in (("phantom-resnet", 0.5), ("phantom-vit", 0.6))
        for label in ("Edema", "Effusion")
    )
    (ax,) = plots.bars(results, printed=published.table("X Fig. 2b")).axes
    assert [t.get_text() for t in ax.get_xticklabels()][2:] == ["lowest", "highest"]
    used = {to_hex(p.get_facecolor()) for p in ax.patches}
    found = diamonds(ax)
    assert {y for _, y, _ in found} == {0.211, 0.747, 0.258, 0.818}
    assert len({c for *_, c in found}) == 2 and not used & {c for *_, c in found}
    entries = [t.get_text() for t in ax.get_legend().get_texts()]
    assert entries == ["phantom-resnet", "phantom-vit", "MedCLIP-ViT", "GLoRIA", "printed in X"]

    four = schema.results(
        row("full", 0.5, attribute="age_sex", group=g, metric="macro_f1")
        for g in ("old F", "old M", "young F", "young M")
    )
    x = published.table("X Fig. 3b")
    (ax,) = plots.bars(four, x="model", hue="group", printed=x).axes
    assert {y for _, y, _ in diamonds(ax)} == set(x["value"])
    assert (words.COLOURS["young M"].lower(), 0.711) in {(c, y) for _, y, c in diamonds(ax)}

    panels = plots.bars(four, x="group", hue="method", panel="model", printed=x).axes
    assert [ax.get_legend().get_title().get_text() for ax in panels] == [
        "phantom-vit",
        "MedCLIP-ViT",
        "GLoRIA",
    ]
    assert [len(diamonds(ax)) for ax in panels] == [0, 3, 2]
    assert [len(ax.patches) for ax in panels] == [4, 0, 0]


@pytest.fixture
def gaps():
    """Two models x zero-shot and full x sex and age x two metrics, one of them undefined."""
    rows = []
    for model in ("phantom-vit", "phantom-resnet"):
        for attribute, group in (("sex", "F - M"), ("age60", "old - young")):
            at = {"model": model, "attribute": attribute, "group": group}
            for metric in ("eq_odds_mean", "f1_gap_signed"):
                for method in ("full", "zero-shot", "full - zero-shot"):
                    missing = (model, attribute, method) == ("phantom-vit", "sex", "full")
                    value = np.nan if missing else 0.01 * (1 + len(rows))
                    rows.append(row(method, value, **at, metric=metric))
        rows.append(row("full", 0.7, model))
        rows.append(row("full", 0.7, model, attribute="sex", group="F"))
    return schema.results(rows)


def test_before_after_has_a_line_a_method_and_marks_what_is_undefined(gaps):
    fig = plots.before_after(gaps.assign(floor_p95=0.05))
    axes = np.reshape(fig.axes, (2, 2))  # f1 gap above equalised odds, resnet beside vit
    assert [ax.get_title(loc="left") for ax in axes[0]] == ["phantom-resnet", "phantom-vit"]
    assert axes[0, 0].get_ylabel().startswith("F1 gap, signed")
    drawn = gaps[gaps["group"].str.contains(" - ") & ~gaps["method"].str.contains(" - ")]
    for i, metric in enumerate(("f1_gap_signed", "eq_odds_mean")):
        for j, model in enumerate(("phantom-resnet", "phantom-vit")):
            part = drawn[(drawn["metric"] == metric) & (drawn["model"] == model)]
            part = part.sort_values(
                ["attribute", "method"], ascending=False
            )  # sex, zero-shot first
            ax = axes[i, j]
            drawn_here = sorted(marks(ax) + rings(ax), key=lambda mark: mark[1])
            assert [x for x, *_ in drawn_here] == part["value"].fillna(0).tolist()
            assert [c for *_, c in drawn_here] == [words.COLOURS[m] for m in part["method"]]
            assert len(rings(ax)) == part["value"].isna().sum() == j
            ends = {tuple(np.round(s[:, 0], 9)) for s in segments(ax)}
            known = part.dropna(subset="value")
            assert ends == set(
                known[["ci_low", "ci_high"]].round(9).itertuples(index=False, name=None)
            )
            reach = {(p.get_x(), p.get_x() + p.get_width()) for p in ax.patches}
            assert reach == {(-0.05 if metric == "f1_gap_signed" else 0, 0.05)}
    entries = [t.get_text() for t in fig.legends[0].get_texts()]
    assert entries == [
        "zero-shot",
        "full fine-tuning",
        "undefined",
        "noise floor",
    ]
    assert not any(ax.patches for ax in plots.before_after(gaps).axes)


def test_before_after_has_a_column_for_models_that_are_only_printed(gaps):
    x = pd.concat([published.table(f"X Fig. 3{f}") for f in "cd"])
    fig = plots.before_after(gaps, x)
    f1, odds = np.reshape(fig.axes, (2, 3))[:, 2]
    printed = x.groupby("metric")["value"].agg(set)
    # X does not say whom its F1 gaps favour.
    assert {abs(at) for at, *_ in diamonds(f1)} == printed["f1_gap_signed"]
    assert len(diamonds(f1)) == 2 * len(printed["f1_gap_signed"])
    model = {round(t.get_position()[1], 9): t.get_text() for t in odds.get_yticklabels()}
    of = x[x["metric"] == "eq_odds_mean"]
    assert {(at, model[y]) for at, y, _ in diamonds(odds)} == set(
        of[["value", "model"]].itertuples(index=False, name=None)
    )
    assert [t.get_text() for t in f1.get_yticklabels()] == ["MedCLIP-ViT", "GLoRIA"] * 2
    before = {at for at, _, c in diamonds(odds) if c == words.COLOURS["zero-shot"].lower()}
    assert before == set(published.table("X Fig. 3d")["value"])
    assert "printed in X (±: no sign given)" in [t.get_text() for t in fig.legends[0].get_texts()]

    known = gaps.replace({"model": {"phantom-vit": "MedCLIP-ViT"}})
    axes = np.reshape(plots.before_after(known, x).axes, (2, 3))
    names = [ax.get_title(loc="left") for ax in axes[0]]
    assert names == ["phantom-resnet", "MedCLIP-ViT", "printed in X"]
    of = of.groupby("model")["value"].agg(set)
    assert {at for at, *_ in diamonds(axes[1, 1])} == of["MedCLIP-ViT"]
    assert {at for at, *_ in diamonds(axes[1, 2])} == of["GLoRIA"]
    # Each on the line of its own method.
    lines = {c.lower(): y for _, y, c in marks(axes[1, 1])[::-1]}
    for _, y, colour in diamonds(axes[1, 1]):
        assert abs(y - lines[colour]) in (0, 1)  # one band lower for age


@pytest.fixture
def runs():
    """Values of two models x two methods x 2 splits x 3 seeds; zero-shot has no seeds."""
    rows = []
    for model in ("phantom-resnet", "phantom-vit"):
        for method, seeds in (("zero-shot", [pd.NA]), ("full", [0, 1, 2])):
            for split in (0, 1):
                for seed in seeds:
                    at = {"model": model, "method": method, "split": split, "seed": seed}
                    for attribute, group in (("sex", "F - M"), ("age60", "old - young")):
                        rows.append(
                            at | {"attribute": attribute, "group": group, "value": len(rows) / 100}
                        )
    return pd.DataFrame(rows).assign(metric="f1_gap_signed").astype({"seed": "Int64"})


def test_spread_shows_every_run_and_the_given_means(runs):
    runs.loc[runs.index[-1], "value"] = np.nan
    keys = ["attribute", "group", "model", "method", "metric"]
    means = runs.groupby(keys, as_index=False)["value"].mean().rename(columns={"value": "mean"})
    fig = plots.spread(runs, "f1_gap_signed", means)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["female − male", "old − young"]
    for ax, attribute in zip(fig.axes, ("sex", "age60"), strict=True):
        part = runs[runs["attribute"] == attribute]
        joined = [m for m in ax.lines if m.get_marker() == "o"]
        # one line a model, method and split, at a height of its own
        assert len(joined) == len({m.get_ydata()[0] for m in joined}) == 8
        assert {x for m in joined for x in m.get_xdata()} == set(part["value"].dropna())
        assert all(len(set(m.get_ydata())) == 1 for m in joined)
        for line in joined:
            block = part[part["value"].isin(line.get_xdata())]
            assert len(block.groupby(["model", "method", "split"])) == 1
            assert to_hex(line.get_color()).upper() == words.COLOURS[block["model"].iloc[0]]
            tick = ["zero-shot", "full"][round(line.get_ydata()[0])]
            assert tick == block["method"].iloc[0]
        at = {round(s[0, 0], 9) for s in segments(ax)}
        assert at == set(means.loc[means["attribute"] == attribute, "mean"].round(9))
        assert len(rings(ax)) == (attribute == "age60")
    assert "mean" in [t.get_text() for t in fig.legends[0].get_texts()]
    bare = plots.spread(runs, "f1_gap_signed")
    assert "mean" not in [t.get_text() for t in bare.legends[0].get_texts()]


def test_learning_curves_have_a_panel_a_run_and_a_dot_at_the_kept_epoch():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "train_loss": [3.0, 2, 1], "valid_loss": [4.0, 2.5, 2.75]}
    )
    runs = {f"run {i}": history.add([0, i, i]) for i in range(5)}
    fig = plots.learning_curves(runs, dict.fromkeys(runs, 2))
    assert [ax.get_title(loc="left") for ax in fig.axes] == list(runs)  # no empty panels
    assert len({ax.get_position().y0 for ax in fig.axes}) == -(-len(runs) // 2)  # two in a row
    for i, ax in enumerate(fig.axes):
        training, validation, kept = ax.lines
        assert training.get_ydata().tolist() == [3 + i, 2 + i, 1 + i]
        assert validation.get_ydata().tolist() == [4 + i, 2.5 + i, 2.75 + i]
        assert (list(kept.get_xdata()), list(kept.get_ydata())) == ([2], [2.5 + i])
    assert len({ax.get_ylim() for ax in fig.axes}) == 1


def test_bottlenecks_have_a_dot_in_the_colour_of_what_limits():
    table = pd.DataFrame(
        {
            "place": ["laptop", "laptop", "host"],
            "films": [1000, 10_000, 1000],
            "hours": [0.5, 30.0, 2.0],
            "bottleneck": ["start", "encode", "decode"],
        }
    )
    fig = plots.bottlenecks(table, x="films", line="place", xlabel="films")
    (ax,) = fig.axes
    laptop, host = ax.collections
    assert laptop.get_offsets().tolist() == [[1000, 0.5], [10_000, 30]]
    shades = [words.COLOURS[step] for step in ("start", "encode", "decode")]
    drawn = [*laptop.get_facecolors(), *host.get_facecolors()]
    assert [matplotlib.colors.to_hex(c).upper() for c in drawn] == shades
    assert [text.get_text() for text in ax.texts] == ["laptop", "host"]
    assert {t.get_text() for t in ax.get_yticklabels()} == {"1 hour", "4 hours", "1 day"}
    assert "laptop: 30 minutes at 1,000, 30 hours at 10,000; host: 2.0 hours at 1,000" in fig.alt


def test_crossed_groups_stand_from_the_fewest_positives_and_have_a_dot_a_method():
    table = pd.DataFrame({"group": ["M", "M", "F", "F"], "method": ["raw", "lent"] * 2})
    table = table.assign(metric="auc", value=[0.8, 0.75, np.nan, 0.7], n_positive=[40, 40, 5, 5])
    fig = plots.crossed_groups(table.assign(ci_low=0.6, ci_high=0.9))
    [ax] = fig.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["female", "male"]
    dots, ring = (c.get_offsets() for c in ax.collections if isinstance(c, PathCollection))
    assert sorted(dots[:, 0]) == [0.7, 0.75, 0.8] and ring[0, 0] == 0.5
    assert "0.70 (female, lent) to 0.80 (male, raw); 1 undefined" in fig.alt


@pytest.mark.parametrize("figure", ["group_bars", "before_after", "spread", "learning_curves"])
def test_letters_have_11_pixels_in_the_width_of_a_phone(performance, gaps, runs, figure):
    draw = {
        "group_bars": lambda: plots.group_bars(performance),
        "before_after": lambda: plots.before_after(gaps, published.table("X Fig. 3c")),
        "spread": lambda: plots.spread(runs, "f1_gap_signed"),
        "learning_curves": lambda: plots.learning_curves(
            {"a": pd.DataFrame({"epoch": [1], "train_loss": [1.0], "valid_loss": [1.0]})}, {"a": 1}
        ),
    }
    css = (ROOT / "book" / "assets" / "book.css").read_text(encoding="utf-8")
    scale = words.FIGURES["figure.dpi"] * float(re.search(r"zoom: ([\d.]+)", css)[1])
    with plt.rc_context(words.FIGURES):
        fig = draw[figure]()
        fig.canvas.draw()
    texts = [t for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip()]
    assert min(t.get_fontsize() for t in texts) / 72 * scale >= 11
    assert figure == "before_after" or fig.get_tightbbox().width * scale <= 358


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: plots.group_bars(t, "brier"), "no rows for this figure"),
        (lambda t: plots.bars(t, hue="group"), "more than one row for"),
        (
            lambda t: plots.gap_forest(pd.concat([t, t.assign(metric="f1")])),
            r"\['auc', 'f1'\]; filter it to one",
        ),
        (
            lambda t: plots.bars(t[t["attribute"] == "all"], printed=published.table("X Fig. 2a")),
            r"printed: holds accuracy; expected only .* auc",
        ),
        (plots.before_after, "no rows for this figure"),
        (lambda t: plots.spread(t, "brier"), "no rows for this figure"),
    ],
)
def test_bad_input_is_named(performance, call, message):
    with pytest.raises(ValueError, match=message):
        call(performance)


def test_too_many_columns_and_doubled_runs_are_refused(gaps, runs):
    many = pd.concat([gaps.assign(model=f"model {i}") for i in range(2)] + [gaps])
    many = many[many["model"].str.startswith("phantom") | (many["attribute"] == "age60")]
    many = many.drop_duplicates(["model", "method", "attribute", "group", "metric"])
    with pytest.raises(ValueError, match="4 models; expected at most 3"):
        plots.before_after(many)
    with pytest.raises(ValueError, match="more than one row for"):
        plots.spread(pd.concat([runs, runs.iloc[:1]]), "f1_gap_signed")
    with pytest.raises(ValueError, match=r"more than one row for .*'label': 'lowest'"):
        f1 = schema.results([row("full", 0.5, label="Edema", metric="f1")])
        plots.bars(f1, hue="method", printed=published.table("X Fig. 2b"))


def test_prevalence_is_drawn_by_finding_and_group():
    shares = {"Mass": (0.05, 0.02), "Edema": (0.10, 0.20)}
    rows = [
        {"label": label, "attribute": "sex", "group": group, "value": share, "n_positive": share}
        | {"ci_low": share / 2, "ci_high": share * 2}
        for label, (female, male) in shares.items()
        for group, share in (("F", female), ("M", male))
    ]
    fig = plots.prevalence_panels(pd.DataFrame(rows))
    [ax] = [a for a in fig.axes if a.get_visible()]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Edema", "Mass"]  # commonest on top
    drawn = {(round(x, 6), colour) for x, _, colour in marks(ax)}
    assert drawn == {
        (100 * share, words.COLOURS[group])
        for pair in shares.values()
        for group, share in zip("FM", pair, strict=True)
    }
    assert "from 0.020 (Mass, male) to 0.200 (Edema, male)" in fig.alt


def test_a_strip_has_a_dot_for_each_method(performance):
    rows = performance[
        (performance["label"] == "Pneumothorax") & (performance["attribute"] == "all")
    ]
    each = (rows.assign(method=m, value=rows["value"] + k / 50) for k, m in enumerate("abc"))
    asked = pd.concat(each, ignore_index=True)
    fig = plots.strips(asked, {"b": "the pair of S"})
    [ax] = fig.axes
    dots = [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]
    assert [len(d) for d in dots] == [3, 3]
    np.testing.assert_allclose(dots[0][:, 0], asked["value"][asked["model"] == "phantom-resnet"])
    marked = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(marked, asked["value"][asked["method"] == "b"])
    assert fig.table.equals(asked) and "(a, phantom-resnet)" in fig.alt


def test_studies_and_coverage_are_drawn_as_counted():
    studies = pd.DataFrame({"unit": ["image", "image", "patient"], "simulation": [0, 1, 0]})
    studies = studies.assign(metric="auc", ci_low=[0.7, 0.82, 0.6], ci_high=0.9, missed=[0, 1, 0])
    fig = plots.studies_and_truth(studies, 0.8)
    colours = [[to_hex(c) for c in ax.collections[0].get_colors()] for ax in fig.axes]
    assert colours == [["#0072b2", "#d55e00"], ["#0072b2"]]
    assert "1 from drawing images, 0 from drawing patients" in fig.alt
    rows = [("auc", "a", 12, 0.9), ("auc", "b", 30, 0.95), ("auc_gap", "a", 12, 0.8)]
    table = pd.DataFrame(rows, columns=["metric", "kind", "n_positive_patients", "coverage"])
    fig = plots.coverage_by_patients(table, (0.93, 0.97))
    marks = [[line.get_xydata().tolist() for line in ax.lines] for ax in fig.axes]
    assert marks == [[[[12, 90]], [[30, 95]]], [[[12, 80]], []]]
    assert "a 80 % (gap in AUC, 12 positive patients); b 95 %" in fig.alt


def test_a_map_has_points_and_under_guard_ellipses_alone(monkeypatch):
    points = np.random.default_rng(0).normal(size=(40, 2))
    sex = {"sex": np.repeat(["F", "M"], 20)}
    shapes = {"sex": {g: (np.array([0.5, -1.0]), np.eye(2)) for g in "FM"}}
    rows = [("sex", g, axis, mean) for g in "FM" for axis, mean in (("1", 0.5), ("2", -1.0))]
    spreads = pd.DataFrame(rows, columns=["attribute", "group", "axis", "mean"])
    given = (points, sex, shapes, spreads, [0.3, 0.2])
    fig = plots.pca_map(*given)
    assert len(fig.axes[0].collections[0].get_offsets()) == 40
    assert "30 % and 20 %" in fig.alt and "female (0.50, −1.00); male (0.50, −1.00)" in fig.alt
    monkeypatch.setattr(plots.guard, "active", lambda: True)
    drawn = plots.pca_map(*given).axes[0]
    assert not drawn.collections and len(drawn.lines) == 4  # an edge and a middle for each group

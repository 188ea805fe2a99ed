"""Figures show what the tables hold: heights, whiskers, colours, undefined values."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from cxrlib import plots, published, schema

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
    segments = [s for c in ax.collections for s in getattr(c, "get_segments", list)()]
    return {tuple(np.round(np.sort(s[:, 1]), 9)) for s in segments}


def rings(ax):
    return [line for line in ax.lines if line.get_markerfacecolor() == "white"]


def test_group_bars_show_every_value_once(performance):
    fig = plots.group_bars(performance, "auc", "phantom-vit")
    assert len(fig.axes) == 2  # sex and race
    sex = performance[(performance["model"] == "phantom-vit") & (performance["attribute"] == "sex")]
    shown = sex[sex["value"].notna()]
    assert heights(fig.axes[0]) == {
        (plots.COLOURS[r["group"]], round(r["value"], 9)) for _, r in shown.iterrows()
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
    assert plots.ordered(["80+", "18-25", "65-80", None]) == ["18-25", "65-80", "80+"]
    assert plots.ordered(["Asian", "White"]) == ["White", "Asian"]
    assert plots.colours(["F", "new"])["F"] == plots.colours(["F"])["F"] == plots.COLOURS["F"]
    assert plots.name("F - M") == "female − male"


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
    rgb = np.array([matplotlib.colors.to_rgb(plots.COLOURS[t]) for t in together])
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
    dots = {float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"}
    assert {0.1, -0.2} <= dots
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


def test_text_is_readable_at_the_width_of_a_page(performance):
    fig = plots.group_bars(performance)
    fig.canvas.draw()
    texts = [t for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip()]
    assert fig.get_size_inches()[0] <= 7.2 and min(t.get_fontsize() for t in texts) >= 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: plots.group_bars(t, "brier"), "no rows for this figure"),
        (lambda t: plots.bars(t, hue="group"), "more than one row for"),
        (
            lambda t: plots.gap_forest(pd.concat([t, t.assign(metric="f1")])),
            r"name one",
        ),
    ],
)
def test_bad_input_is_named(performance, call, message):
    with pytest.raises(ValueError, match=message):
        call(performance)

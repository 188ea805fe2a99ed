"""Flow, Table 1, confounders and counts of a cohort, against tables made by hand."""

from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from matplotlib.collections import PathCollection

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts import metadata, summary
from cxrlib.papers import counts, published
from cxrlib.papers.counts import cohort_counts, counts_beside_papers
from cxrlib.show import plots

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def phantoms():
    return cohorts.load("phantom", n_images=400)


def credentialed(cohort, **changes):
    return replace(cohort, access="credentialed", **changes)


def made(steps):
    names = ["step", "images", "patients", "left_out"]
    phantom = cohorts.load("phantom", n_images=5)
    return replace(phantom, flow=pd.DataFrame(steps, columns=names))


FLOW = [  # two steps leave out fewer than ten
    ("release", 1000, 400, ""),
    ("frontal", 700, 390, "lateral"),
    ("labelled", 697, 389, "no labels"),
    ("readable", 600, 300, "broken"),
    ("drawn", 598, 300, "not drawn"),
]


# --- the flow --------------------------------------------------------------------------------


def test_flow_says_what_each_step_left_out():
    flow = summary.flow(made(FLOW))
    assert flow["images_out"].tolist() == [0, 300, 3, 97, 2]
    assert flow["patients_out"].tolist() == [0, 10, 1, 89, 0]
    assert flow["left_out"].tolist() == [row[3] for row in FLOW]


def test_flow_of_credentialed_data_tells_no_small_step():
    flow = summary.flow(credentialed(made(FLOW)))
    assert flow["step"].tolist() == ["release", "frontal", "labelled; readable; drawn"]
    assert flow["left_out"].tolist()[-1] == "no labels; broken; not drawn"
    for column in ("images", "patients"):
        out = -flow[column].diff().dropna()
        assert ((out == 0) | (out >= guard.MIN_CELL)).all()
    assert flow["images"].tolist()[-1] == 598  # the cohort itself is never lost


def test_diagram_has_a_box_for_each_step_and_each_reason():
    figure = plots.flow_diagram(summary.flow(made(FLOW)))
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert [t for t in texts if t] == [
        "release\n1,000 images\n400 patients",
        "frontal\n700 images\n390 patients",
        "− 300 images\n− 10 patients\nlateral",
        "labelled\n697 images\n389 patients",
        "− 3 images\n− 1 patients\nno labels",
        "readable\n600 images\n300 patients",
        "− 97 images\n− 89 patients\nbroken",
        "drawn\n598 images\n300 patients",
        "− 2 images\n− 0 patients\nnot drawn",
    ]
    # no text leaves its box, no box overlaps another
    figure.canvas.draw()
    boxes = [p.get_window_extent() for p in figure.axes[0].patches]
    placed = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text()]
    for text in placed:
        assert (
            sum(
                b.x0 <= text.x0 and text.x1 <= b.x1
                for b in boxes
                if b.y0 <= text.y0 and text.y1 <= b.y1
            )
            == 1
        )
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[:i])
    plt.close(figure)


# --- Table 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["sex", "race", "age_group"])
def test_table_1_agrees_with_fairlearn_and_pandas(phantoms, by):
    found = summary.characteristics(phantoms, by)
    table = phantoms.table
    rates = MetricFrame(
        metrics=selection_rate,
        y_true=table["Edema"],
        y_pred=table["Edema"],
        sensitive_features=table[by],
    )
    edema = found[found["level"] == "Edema"].set_index("group")
    assert edema.loc["all", "share"] == pytest.approx(rates.overall)
    assert edema["share"].drop("all").to_dict() == pytest.approx(rates.by_group.to_dict())
    age = found[found["characteristic"] == "age"].set_index("group")
    quartiles = table.groupby(by)["age"].describe()
    for group in quartiles.index:
        expected = quartiles.loc[group, ["25%", "50%", "75%"]].tolist()
        assert age.loc[group, ["low", "median", "high"]].tolist() == expected
    people = found[found["characteristic"] == "patients"].set_index("group")["n_patients"]
    assert people.drop("all").to_dict() == table.groupby(by)["patient_id"].nunique().to_dict()
    view = found[found["characteristic"] == "view"].pivot(
        index="level", columns="group", values="n"
    )
    expected = pd.crosstab(table["view"], table[by])
    pd.testing.assert_frame_equal(
        view[expected.columns].loc[expected.index], expected, check_dtype=False, check_names=False
    )


def test_missing_entries_are_levels_and_groups_of_their_own(phantoms):
    table = phantoms.table.assign(
        sex=phantoms.table["sex"].mask(np.arange(400) < 30),
        age_group=phantoms.table["age_group"].mask(np.arange(400) < 25),
        drain=phantoms.table["drain"].astype(float).mask(np.arange(400) >= 390),
    )
    found = summary.characteristics(replace(phantoms, table=table), "sex")
    cell = found.set_index(["characteristic", "level", "group"])["n"]
    assert cell["images", "", "not recorded"] == 30
    assert cell["age group", summary.NO_AGE_GROUP, "all"] == 25
    assert cell["chest drain", "not recorded", "all"] == 10
    shares = found[found["characteristic"] == "age group"].groupby("group")["share"].sum()
    assert shares.tolist() == pytest.approx([1] * len(shares))
    wide = summary.table_one(found)
    assert list(wide.columns) == [
        "characteristic",
        "level",
        "all",
        "female",
        "male",
        "not recorded",
    ]
    row = wide[wide["level"] == summary.NO_AGE_GROUP].iloc[0]
    assert row["all"] == "25 (6.2 %)"


def test_an_unknown_group_is_named(phantoms):
    with pytest.raises(ValueError, match="has no 'income'; it has sex, age_group, race"):
        summary.characteristics(phantoms, "income")


def _people(cohort, by, characteristic, level, group):
    """Patients behind one cell, counted apart."""
    table = cohort.table
    if group != "all":
        table = table[table[by] == group]
    if characteristic == "finding":
        return table.loc[table[level] == 1, "patient_id"].nunique()
    column = {"age group": "age_group", "chest drain": "drain"}.get(characteristic, characteristic)
    value = {"yes": 1, "no": 0}.get(level, level)
    return table.loc[table[column] == value, "patient_id"].nunique()


@pytest.mark.parametrize(("n_images", "by"), [(120, "sex"), (300, "race"), (400, "age_group")])
def test_table_1_of_credentialed_data_hides_small_cells_and_what_gives_them_away(n_images, by):
    cohort = credentialed(cohorts.load("phantom", n_images=n_images))
    sizes = cohort.table.groupby(by)["patient_id"].nunique()
    assert (sizes >= guard.MIN_CELL).all()  # so that no groups are taken together
    found = summary.characteristics(cohort, by)
    divided = found[~found["characteristic"].isin(["images", "patients", "age"])]
    small = 0
    for row in divided.itertuples():
        people = _people(cohort, by, row.characteristic, row.level, row.group)
        if 0 < people < guard.MIN_CELL:
            small += 1
            assert pd.isna(row.n) and pd.isna(row.share) and pd.isna(row.n_patients)
    assert small
    findings = divided["characteristic"] == "finding"
    for _, block in divided[~findings].groupby("characteristic"):
        assert not _follows(block, with_rest=False)
    for _, block in divided[findings].groupby("level"):
        assert not _follows(block, with_rest=True)


def test_race_by_sex_hides_what_sex_by_race_hides():
    cohort = credentialed(cohorts.load("phantom", n_images=130))
    table = cohort.table.assign(race=np.where(np.arange(130) < 8, "other", cohort.table["race"]))
    cohort = replace(cohort, table=table)
    one = summary.characteristics(cohort, "sex")
    other = summary.characteristics(cohort, "race")
    one = (
        one[one["characteristic"] == "race"].set_index(["level", "group"])["n"].drop("all", level=1)
    )
    other = other[other["characteristic"] == "sex"].set_index(["group", "level"])["n"]
    other = other.drop("all", level=0)
    assert one.isna().any()
    pd.testing.assert_series_equal(one.sort_index(), other.sort_index(), check_names=False)


def _follows(block, with_rest):
    """Hidden cells that follow from those shown, the sizes of the groups and of all.

    A cell follows if no two tables with the same sums differ in it: its unit vector is orthogonal
    to the null space of the sums.
    """
    levels, groups = list(block["level"].unique()), list(block["group"].unique())
    shown = block.set_index(["level", "group"])["n"]
    if with_rest:  # images without the finding are never shown, and add up with it to the group
        levels = [*levels, "rest"]
    cells = [(x, g) for x in levels for g in groups]
    lines = [[c[0] == x and c[1] != "all" for c in cells] for x in levels]
    lines = [
        np.subtract(line, [c == (x, "all") for c in cells], dtype=float)
        for line, x in zip(lines, levels, strict=True)
    ]
    lines += [np.array([c[1] == g for c in cells], dtype=float) for g in groups]
    lines += [
        np.eye(len(cells))[i] for i, c in enumerate(cells) if c in shown and pd.notna(shown[c])
    ]
    _, sizes, right = np.linalg.svd(np.array(lines))
    free = right[(sizes > 1e-9).sum() :]
    fixed = np.abs(free).max(axis=0, initial=0) < 1e-9
    return [c for c, f in zip(cells, fixed, strict=True) if f and c in shown and pd.isna(shown[c])]


def test_small_groups_of_credentialed_data_are_taken_together(phantoms):
    table = phantoms.table.copy()
    few = table["patient_id"].isin(table["patient_id"].unique()[:4])
    several = table["patient_id"].isin(table["patient_id"].unique()[4:12])
    rest = np.where(table["patient_id"] % 3 == 0, "Black", "White")
    table["race"] = np.where(few, "Asian", rest)
    found = summary.characteristics(credentialed(phantoms, table=table), "race")
    assert list(found["group"].unique()) == ["all", "White or Asian", "Black"]
    table["race"] = np.where(few, "Asian", np.where(several, "other", rest))
    found = summary.characteristics(credentialed(phantoms, table=table), "race")
    people = found[found["characteristic"] == "patients"].set_index("group")["n_patients"]
    assert people["other groups"] == 12 and len(people) == 4
    # the median of a group can be told though the few without an age cannot be counted
    table["age"] = table["age"].mask(np.arange(400) < 3)
    found = summary.characteristics(credentialed(phantoms, table=table), "sex")
    age = found[(found["characteristic"] == "age") & (found["group"] == "all")].iloc[0]
    assert pd.isna(age["n"]) and age["median"] == table["age"].median()


# --- confounders -----------------------------------------------------------------------------


def test_confounders_agree_with_fairlearn_and_a_patient_bootstrap(phantoms):
    found = summary.confounders(phantoms, "sex").set_index(["metric", "label", "group"])
    table = phantoms.table
    ap = (table["view"] == "AP").astype(int)
    rates = MetricFrame(
        metrics=selection_rate, y_true=ap, y_pred=ap, sensitive_features=table["sex"]
    ).by_group
    for sex in "FM":
        assert found.loc[("share_ap", "all", sex), "value"] == pytest.approx(rates[sex])
    women = table[table["sex"] == "F"]
    rng = np.random.default_rng(0)
    by_patient = [ages.to_numpy() for _, ages in women.groupby("patient_id")["age"]]
    means = [
        np.concatenate(
            [by_patient[i] for i in rng.integers(0, len(by_patient), len(by_patient))]
        ).mean()
        for _ in range(1000)
    ]
    row = found.loc[("mean_age", "all", "F")]
    assert row["value"] == pytest.approx(women["age"].mean())
    assert row["ci_low"] == pytest.approx(np.percentile(means, 2.5), abs=0.6)
    assert row["ci_high"] == pytest.approx(np.percentile(means, 97.5), abs=0.6)
    with pytest.raises(ValueError, match="has no 'site_x'; it has sex, age_group, race"):
        summary.confounders(phantoms, "site_x")


def test_a_group_without_views_is_undefined_with_a_reason(phantoms):
    table = phantoms.table.assign(
        view=phantoms.table["view"].mask(phantoms.table["sex"] == "F"),
    )
    found = summary.confounders(replace(phantoms, table=table), "sex")
    row = found[(found["metric"] == "share_ap") & (found["group"] == "F")].iloc[0]
    assert np.isnan(row["value"]) and row["note"] == "not recorded in this group"
    figure = plots.confounder_panel(found)
    assert len(figure.axes) == 3
    plt.close(figure)


def test_panel_shows_every_value(phantoms):
    found = summary.confounders(phantoms, "race")
    figure = plots.confounder_panel(found)
    for ax, metric, scale in zip(
        figure.axes, ("share_ap", "mean_age", "prevalence"), (100, 1, 100), strict=True
    ):
        dots = [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]
        shown = sorted(x for dots in dots for x, _ in dots.get_offsets().tolist())
        expected = sorted(scale * found.loc[found["metric"] == metric, "value"])
        assert shown == pytest.approx(expected)
    plt.close(figure)


# --- fingerprint and counts ------------------------------------------------------------------


def test_fingerprint_knows_rows_films_and_options_but_not_order(phantoms):
    films = pd.DataFrame({"sha256": [f"{i:064x}" for i in range(400)]})
    cohort = replace(phantoms, films=films)
    turned = replace(
        cohort,
        table=cohort.table.iloc[::-1].reset_index(drop=True),
        films=films.iloc[::-1].reset_index(drop=True),
        keep=None,
    )
    assert turned.fingerprint == cohort.fingerprint
    label = cohort.table.copy()
    label.loc[7, "Edema"] = 1 - label.loc[7, "Edema"]
    film = films.copy()
    film.loc[7, "sha256"] = "f" * 64
    others = [
        replace(cohort, table=label),
        replace(cohort, films=film),
        replace(cohort, table=cohort.table.iloc[1:]),
        replace(cohort, recipe=cohort.recipe | {"views": "all"}),
    ]
    assert len({cohort.fingerprint, *(c.fingerprint for c in others)}) == 5


def release(images, patients, tested):
    steps = [
        ("Data_Entry_2017.csv", images, patients, ""),
        ("test_list.txt", *tested, "in another"),
    ]
    cohort = made([*steps, ("films that can be read", tested[0] - 1, tested[1], "damaged: 1")])
    return replace(cohort, name="nih-cxr14-test (part)", sources=("NIH-CXR14",))


def test_counts_of_the_official_release_are_judged():
    cohort = release(112_120, 30_805, (25_596, 2_797))
    kept = cohort_counts(cohort).set_index(["cohort", "metric"])["value"]
    assert kept["nih-cxr14", "n_images"] == 112_120
    assert kept["nih-cxr14-test", "n_images"] == 25_596
    assert kept["nih-cxr14-test (part)", "n_images"] == 5  # the rows that are there
    beside = counts_beside_papers(cohort)
    verdict = beside.set_index(["source", "quantity"])["verdict"]
    assert verdict["S", "nih-cxr14: images"] == published.REPRODUCED
    assert verdict["S", "nih-cxr14-test: images"] == published.REPRODUCED
    assert verdict["X", "nih-cxr14: images"] == published.DIFFERS
    assert verdict["data set", "nih-cxr14-test: patients"] == published.REPRODUCED


def test_counts_of_a_part_are_judged_by_nobody():
    cohort = release(300, 200, (90, 60))
    assert set(cohort_counts(cohort)["cohort"]) == {
        "nih-cxr14 (part)",
        "nih-cxr14-test (part)",
    }
    beside = counts_beside_papers(cohort)
    papers = beside[beside["source"].isin(["S", "X"])]
    assert (papers["verdict"] == published.NOT_RUN).all()
    official = beside[beside["source"] == "data set"].set_index("quantity")
    assert official.loc["nih-cxr14-test: images", ["stated", "computed"]].tolist() == [25_596, 90]
    assert (official["verdict"] == published.DIFFERS).all()


def test_counts_of_mimic_stand_beside_those_that_s_prints():
    steps = [
        ("MIMIC-CXR-JPG, every film", 377_110, 65_379, ""),
        ("official split: test", 5_159, 293, "in another split"),
        ("frontal films (AP, PA)", 3_403, 290, "lateral"),
    ]
    cohort = replace(made(steps), name="mimic-cxr-test", sources=("MIMIC-CXR",))
    beside = counts_beside_papers(cohort).set_index(["source", "quantity"])
    official = beside.loc[("data set", "mimic-cxr-test: images")]
    assert (official["stated"], official["computed"]) == (5_159, 5_159)
    printed = beside.loc[("S", "mimic-cxr-sourget: images")]
    assert printed["stated"] == 30_359 and printed["verdict"] == published.NOT_RUN
    assert "not public" in printed["reason"]
    assert beside.loc[("S", "mimic-cxr-sourget: images with findings text"), "stated"] == 8_950


def test_other_sources_have_no_counts_in_print(phantoms):
    assert counts_beside_papers(replace(phantoms, sources=("own",))).empty


@pytest.mark.parametrize(
    ("shares", "widest"),
    [
        ({("sex", "Edema"): {"F": 0.1, "M": 0.3}, ("race", "Edema"): {"A": 0.2, "B": 0.1}}, "M F"),
        ({("sex", "Edema"): {"F": 0.1, "M": 0.2}, ("sex", "Mass"): {"F": 0.9, "M": 0.4}}, "F M"),
        ({("sex", "Edema"): {"F": 0.1, "M": np.nan}}, ""),
        ({}, ""),
    ],
)
def test_the_widest_difference_between_groups(shares, widest):
    tables = [
        schema.results(
            [
                {"attribute": a, "label": label, "group": group, "metric": "prevalence"}
                | {"value": value, "note": "too few"}
                for group, value in groups.items()
            ]
        )
        for (a, label), groups in shares.items()
    ]
    assert summary.widest_difference(tables)["group"].tolist() == widest.split()


def test_nih_is_counted_beside_both_papers():
    table = metadata.nih()
    single = table[table[list(metadata.FINDINGS)].sum(axis=1) == 1]
    cells = single.groupby([single["sex"], single["age"] >= 60])[list(metadata.FINDINGS)].sum()
    said = counts.nih_beside_papers().set_index(["section", "quantity"])
    old = cells.xs(True, level="age")["Edema"]
    edema = said.loc["X Section 2.1", "old patients with edema, F / M"]
    assert edema["this run"] == f"{old['F']} / {old['M']}" == edema["paper says"]
    enough = said.loc["X Section 2.1", "diseases with 50 in each cell"]
    assert enough["this run"] == str((cells.min() >= 50).sum())
    sizes = said.xs("images / patients of NIH", level="quantity")
    assert sizes["this run"].unique() == f"{len(table):,} / {table['patient_id'].nunique():,}"
    assert sizes["paper says"].to_dict() == {
        "X Section 2.1": "108,948 / 32,717",
        "S Section 2.3": "112,120 / 30,805",
    }
    same = said["paper says"] == said["this run"]
    assert (said["verdict"] == "reproduced").equals(same)
    assert same.any()
    assert not same.all()


def test_the_clearest_film_shows_one_finding_and_most_of_it(phantoms):
    table = phantoms.table
    at = summary.clearest(phantoms, ["No such finding", "Edema"])
    film = table.iloc[at]
    assert film["Edema"] == 1 and film[list(phantoms.findings)].sum() == 1
    alone = table[(table[list(phantoms.findings)].sum(axis=1) == 1) & (table["Edema"] == 1)]
    assert film["severity_Edema"] == alone["severity_Edema"].max()

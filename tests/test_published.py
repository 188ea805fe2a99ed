"""The papers' numbers are complete, consistent with themselves, and compared fairly."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlib import schema
from cxrlib.papers import published
from cxrlib.show.words import fmt
from tests import authors

PAPERS = Path(__file__).parents[2] / "shared" / "papers"

MODELS = ["MedCLIP", "Biovil", "Biovil-t", "MedImageInsight", "CheXzero", "CXR-CLIP"]
LABELS = [
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
]
METRICS = ["auc", "adjusted_auprc"]

# S Table 1 as printed: AUC and adjusted AUPRC, finding by finding, then the means
TABLE_1 = """
MedCLIP          .80 .54  .80 .52  .84  .40  .92 .81  .74  .46  .88  .74  .83 .58
Biovil           .68 .20  .76 .41  .42 -.06  .69 .38  .49  .00  .72  .21  .63 .19
Biovil-t         .64 .15  .74 .30  .59  .06  .79 .49  .61  .14  .66  .17  .67 .22
MedImageInsight  .74 .36  .85 .53  .83  .40  .88 .70  .69  .33  .88  .63  .81 .49
CheXzero         .67 .21  .85 .60  .80  .34  .88 .70  .68  .28  .80  .36  .78 .42
CXR-CLIP         .61 .18  .55 .06  .48 -.01  .67 .35  .48 -.02  .45 -.01  .54 .09
"""

# S Table 2 as printed: linear probe, k-NN, MLP for sex, race, age
TABLE_2 = """
MedCLIP          .59 .71 .94  .67 .55 .75  .75 .65 .80
Biovil           .79 .62 .88  .45 .54 .70  .76 .54 .77
Biovil-t         .65 .56 .86  .54 .54 .67  .65 .62 .78
MedImageInsight  .98 .82 .97  .78 .62 .80  .87 .77 .84
CheXzero         .75 .65 .93  .66 .53 .69  .76 .69 .78
CXR-CLIP         .97 .89 .97  .82 .55 .80  .84 .58 .80
"""


def numbers(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return {row[0]: [float(x) for x in row[1:]] for row in rows}


@pytest.fixture(scope="module")
def table_1():
    return published.table("S Table 1").set_index(["model", "label", "metric"])


def test_everything_is_a_results_table():
    everything = published.load()
    pd.testing.assert_frame_equal(schema.results(everything), everything)
    assert set(everything["paper"]) == {"S", "X"}
    keys = ["paper", "artefact", "cohort", "model", *published.QUANTITY]
    assert not everything.duplicated(keys).any()


def test_table_1_is_the_printed_one(table_1):
    printed = numbers(TABLE_1)
    for model in MODELS:
        cells = [(label, metric) for label in [*LABELS, "mean"] for metric in METRICS]
        found = [table_1.loc[(model, *cell), "value"] for cell in cells]
        assert found == printed[model]
    cells = table_1[table_1.index.get_level_values("metric").isin(METRICS)]
    is_mean = cells.index.get_level_values("label") == "mean"
    assert (~is_mean).sum() == 6 * 6 * 2 and is_mean.sum() == 12
    assert cells.loc[~is_mean, ["ci_low", "ci_high"]].notna().all().all()
    assert cells.loc[is_mean, ["ci_low", "ci_high"]].isna().all().all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("model", MODELS)
def test_means_and_spreads_recompute_from_the_cells(table_1, model, metric):
    cells = [table_1.loc[(model, label, metric), "value"] for label in LABELS]
    mean = table_1.loc[(model, "mean", metric), "value"]
    spread = table_1.loc[(model, "mean", f"{metric}_sd_over_labels"), "value"]
    assert mean == pytest.approx(np.mean(cells), abs=0.00501)
    assert spread == pytest.approx(np.std(cells, ddof=1), abs=0.00501)


def test_only_one_model_has_estimates_outside_their_intervals(table_1):
    cells = table_1[table_1["ci_low"].notna()]
    outside = (cells["value"] < cells["ci_low"]) | (cells["value"] > cells["ci_high"])
    assert set(cells[outside].index.get_level_values("model")) == {"CXR-CLIP"}
    assert cells.loc[outside, "note"].str.contains("cut to 0").all()


def test_intervals_agree_with_the_authors_files(table_1):
    """The files are not part of the project; where they lie beside it, they are compared."""
    theirs = authors.results()
    theirs = theirs[(theirs["cohort"] == "mimic-cxr-sourget") & (theirs["attribute"] == "all")]
    cells = theirs[theirs["label"] != "mean"]
    assert len(cells) == 6 * 6 * 2
    for _, row in cells.iterrows():
        found = table_1.loc[(row["model"], row["label"], row["metric"])]
        columns = ["value", "ci_low", "ci_high"]
        assert found[columns].tolist() == row[columns].tolist()


def test_table_2_is_the_printed_one():
    table = published.table("S Table 2").set_index(["model", "label", "method"])["value"]
    assert len(table) == 54
    for model, values in numbers(TABLE_2).items():
        found = [
            table[model, label, method]
            for label in ("sex", "race", "age_group")
            for method in ("linear", "knn", "mlp")
        ]
        assert found == values


def test_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"name: unknown 'Table 1'; expected one of S Table 1"):
        published.table("Table 1")


# Rows by table and figure, counted by hand in the papers.
ARTEFACTS = {
    "S Table 1": 6 * 7 * 2 + 6 * 2,  # values, then the standard deviations of the column Mean
    "S Table 2": 6 * 3 * 3,
    "S Fig. 4b": 2,  # the ends of the range
    "S Fig. 4b bars": 2,  # of the model that the range leaves out
    "S Fig. 1": 2,  # resamples, level
    "S Section 2.3": 3 + 3 + 1 + 1,  # images, studies, findings; NIH; its test set; conditions
    "S Section 2.4": 1,
    "X Section 2.1": 3 + 6,  # NIH; cell, two exceptions, diseases, images of each, age
    "X Section 2.2": 4,
    "X Section 2.3": 2,
    "X Section 3.1": 5,  # 7:1:2, batch, epochs
    "X Fig. 2a": 2,
    "X Fig. 2b": 4,
    "X Fig. 3a": 1,
    "X Fig. 3b": 5,
    "X Fig. 3c": 4 + 3,  # F1 gaps, EqOdds
    "X Fig. 3d": 3,
}


def test_every_table_and_figure_is_complete():
    everything = published.load()
    counted = (everything["paper"] + " " + everything["artefact"]).value_counts()
    assert counted.to_dict() == ARTEFACTS


def test_every_number_has_a_place_and_the_rounding_of_its_print():
    printed = published.printed()
    assert (printed["place"] != "").all()
    units = printed["value"] / (2 * printed["rounding"])
    np.testing.assert_allclose(units, units.round(), atol=1e-6)
    coarse = printed.loc[printed["rounding"] > 0.5, "value"]
    assert sorted(coarse) == [15e6, 400e6]


def text_of(paper):
    if not PAPERS.is_dir():
        pytest.skip("the texts of the papers are not here")
    [path] = PAPERS.glob(f"{paper}_*.txt")
    return path.read_text(encoding="utf-8")


def cells(line):
    return [cell.strip() for cell in line.split("|") if cell.strip()]


def test_tables_of_s_agree_with_the_text_of_the_paper(table_1):
    """Both tables; of the intervals, all but those of CXR-CLIP, whose line is not legible."""
    lines = [line for line in text_of("000").splitlines() if line.startswith("|")]
    columns = [(label, metric) for label in [*LABELS, "mean"] for metric in METRICS]
    table_2 = published.table("S Table 2").set_index(["model", "label", "method"])["value"]
    seen = {14: 0, 9: 0}
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        model, *found = cells(line)
        if model not in MODELS:  # headers, and the lines of intervals
            continue
        seen[len(found)] += 1
        if len(found) == 9:
            probes = [
                (a, m) for a in ("sex", "race", "age_group") for m in ("linear", "knn", "mlp")
            ]
            assert [table_2[model, *probe] for probe in probes] == [float(x) for x in found]
            continue
        assert [table_1.loc[(model, *c), "value"] for c in columns] == [float(x) for x in found]
        if model == "CXR-CLIP":
            continue
        *intervals, auc_sd, auprc_sd = cells(below)
        for column, interval in zip(columns, intervals, strict=False):
            limits = [float(x) for x in re.findall(r"-?\d+\.\d+", interval)]
            row = table_1.loc[(model, *column)]
            assert row[["ci_low", "ci_high"]].tolist() == limits
        for metric, cell in zip(METRICS, (auc_sd, auprc_sd), strict=True):
            spread = table_1.loc[(model, "mean", f"{metric}_sd_over_labels"), "value"]
            assert f"{spread:.2f}" in cell
    assert seen == {14: 6, 9: 6}


def test_every_percentage_that_x_prints_is_there_and_no_other():
    body = text_of("002").split("7. REFERENCES")[0]
    in_text = {float(x) for x in re.findall(r"(\d+\.\d)\\?%", body)}
    everything = published.printed()
    ours = everything[(everything["paper"] == "X") & (everything["rounding"] == 0.0005)]
    assert {round(100 * x, 1) for x in ours["value"]} == in_text


def computed(value, low, high, cohort="mimic-cxr-sourget", model="MedCLIP", **more):
    row = {"cohort": cohort, "model": model, "method": "zero-shot", "label": "Atelectasis"}
    row |= {"attribute": "all", "group": "all", "metric": "auc"}
    return row | {"value": value, "ci_low": low, "ci_high": high} | more


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([computed(0.804, 0.79, 0.82)], "reproduced"),
        ([computed(0.83, 0.795, 0.86)], "within interval"),
        ([computed(0.83, 0.81, 0.86)], "differs"),
        ([computed(0.83, np.nan, np.nan)], "differs"),
        ([computed(0.8, 0.7, 0.9, cohort="phantom", model="p")], "not comparable (another cohort)"),
        ([computed(0.8, 0.7, 0.9, model="Biovil")], "not run"),
        ([computed(0.8, 0.7, 0.9, metric="brier")], "not run"),
        ([computed(np.nan, np.nan, np.nan, note="no positives")], "not run"),
        (
            [
                computed(0.9, 0.88, 0.92, protocol="corrected"),
                computed(0.8, 0.79, 0.81, protocol="as_published"),
            ],
            "reproduced",
        ),
    ],
)
def test_verdicts(rows, verdict):
    table = published.table("S Table 1")
    found = published.compare(schema.results(rows), table)
    assert len(found) == len(table)
    row = found[
        (found["model"] == "MedCLIP")
        & (found["label"] == "Atelectasis")
        & (found["metric"] == "auc")
    ]
    assert row["verdict"].tolist() == [verdict]


def verdict(name, **row):
    """Verdict and reason of the printed number that a computed row is about."""
    result = schema.results([{"attribute": "all", "group": "all", "label": "all"} | row])
    found = published.compare(result, published.table(name))
    keys = [k for k in published.KEYS if pd.notna(result.loc[0, k])]
    same = (found[keys] == result.loc[0, keys]).all(axis=1)
    [(which, why)] = found.loc[same, ["verdict", "reason"]].to_numpy()
    return which, why


@pytest.mark.parametrize(
    ("name", "row", "edge"),
    [
        ("S Table 1", {"label": "Atelectasis", "metric": "auc"}, 0.005),
        # the mean of cells that were rounded before may be off by another half unit
        ("S Table 1", {"label": "mean", "metric": "auc"}, 0.01),
        ("S Table 2", {"label": "sex", "metric": "auc", "method": "mlp"}, 0.005),
    ],
)
def test_rounding_of_s(name, row, edge):
    about = {"cohort": "mimic-cxr-sourget", "model": "MedCLIP", "method": "zero-shot"} | row
    printed = published.table(name)
    for key, entry in about.items():
        printed = printed[printed[key] == entry]
    [value] = printed["value"]
    for sign in (-1, 1):
        assert verdict(name, **about, value=value + sign * edge)[0] == "reproduced"
        off = {"value": value + sign * (edge + 0.002)}
        assert verdict(name, **about, **off)[0] == "differs"
        interval = {"ci_low": value - 0.02, "ci_high": value + 0.02}
        assert verdict(name, **about, **off, **interval)[0] == "within interval"


def test_percentages_of_x_are_compared_to_a_tenth_of_a_percent():
    row = {"cohort": "nih-6x200", "model": "MedCLIP-ViT", "method": "full", "metric": "accuracy"}
    for value, which in ((0.5965, "reproduced"), (0.5955, "reproduced"), (0.5966, "differs")):
        assert verdict("X Fig. 2a", **row, value=value)[0] == which


def test_counts_are_compared_exactly():
    row = {"cohort": "nih-cxr14", "metric": "n_patients"}
    assert verdict("S Section 2.3", **row, value=30805)[0] == "reproduced"
    assert verdict("S Section 2.3", **row, value=30806)[0] == "differs"
    which, why = verdict("X Section 2.1", **row, value=30805)
    assert (which, why) == ("differs", "computed 30,805, printed 32,717")


def test_gaps_printed_without_direction_agree_with_either_sign():
    row = {"cohort": "nih-6x200", "model": "MedCLIP-ViT", "method": "full", "attribute": "sex"}
    row |= {"group": "F - M", "metric": "f1_gap_signed"}
    for value, low, high, which in (
        (0.126, None, None, "reproduced"),
        (-0.126, None, None, "reproduced"),
        (-0.09, -0.2, 0.02, "within interval"),
        (-0.09, -0.1, 0.2, "differs"),
    ):
        assert verdict("X Fig. 3c", **row, value=value, ci_low=low, ci_high=high)[0] == which
    eq_odds = row | {"metric": "eq_odds_mean", "value": -0.068}
    assert verdict("X Fig. 3c", **eq_odds)[0] == "differs"  # its direction is known


def arm(model, group, value):
    row = {"cohort": "nih-cxr14-test", "model": model, "method": "zero-shot"}
    row |= {"label": "Pneumothorax", "attribute": "drain", "group": group}
    return row | {"metric": "adjusted_auprc", "value": value}


@pytest.mark.parametrize(
    ("off", "which"),
    [
        (0.0, ["reproduced", "reproduced"]),  # arms of two decimals: 0.10 may have been 0.09
        (1e-5, ["differs", "reproduced"]),  # arms with all their digits: 0.10 is not 0.09
    ],
)
def test_the_drain_range_is_found_from_the_arms(off, which):
    gaps = dict(zip(published.FIVE, (0.30, 0.10, 0.11, 0.16, 0.21), strict=True))
    rows = [arm(m, "with drain", 0.3 + gap + off) for m, gap in gaps.items()]
    rows += [arm(m, "without drain", 0.3) for m in gaps]
    rows.append(arm("CXR-CLIP", "with drain", 0.0))
    found = published.compare(schema.results(rows), published.table("S Fig. 4b"))
    assert found["computed"].round(6).tolist() == [round(0.10 + off, 6), round(0.30 + off, 6)]
    assert found["verdict"].tolist() == which
    fewer = published.compare(schema.results(rows[1:]), published.table("S Fig. 4b"))
    assert (fewer["verdict"] == "not run").all()


def test_ends_of_ranges_need_every_member():
    row = {"cohort": "nih-6x200", "model": "GLoRIA", "method": "full", "metric": "f1"}
    row |= {"attribute": "all", "group": "all"}
    f1 = [
        row | {"label": f"d{i}", "value": v} for i, v in enumerate((0.3, 0.2, 0.5, 0.4, 0.6, 0.7))
    ]
    f1[1] |= {"ci_low": 0.1, "ci_high": 0.25}
    found = published.compare(schema.results(f1), published.table("X Fig. 2b"))
    found = found[found["model"] == "GLoRIA"].set_index("label")
    assert found.loc["lowest", "verdict"] == "within interval"  # 0.211 printed
    assert found.loc["highest", "computed"] == 0.7
    found = published.compare(schema.results(f1[1:]), published.table("X Fig. 2b"))
    assert found["computed"].isna().all()


def outside(found):
    return found[found["verdict"] == "contradicted by the paper's own numbers"]


def test_nothing_computed_means_nothing_run_but_for_what_print_itself_contradicts():
    found = published.compare(schema.results([]), published.load())
    flagged = outside(found)
    assert (found["verdict"].drop(flagged.index) == "not run").all()
    assert flagged["model"].eq("CXR-CLIP").all() and flagged["artefact"].eq("Table 1").all()
    labels = ["Consolidation", "Pneumonia", "Pneumothorax"]
    assert flagged["label"].tolist() == labels and flagged["metric"].eq("adjusted_auprc").all()
    assert flagged["reason"].iloc[2].endswith("0.00 to 0.09, excludes the printed estimate, −0.01")


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (-0.0142, None, None, "contradicted by the paper's own numbers"),
        (0.04, -0.02, 0.1, "contradicted by the paper's own numbers"),
        (0.04, 0.01, 0.09, "differs"),
        (0.04, None, None, "differs"),
        (0.01, None, None, "differs"),  # within print's interval, which is not its estimate's
    ],
)
def test_a_run_is_compared_with_an_estimate_that_its_own_interval_excludes(
    value, low, high, verdict
):
    about = {"model": "CXR-CLIP", "label": "Pneumothorax", "metric": "adjusted_auprc"}
    row = computed(value, low, high, **about)
    found = published.compare(schema.results([row]), published.table("S Table 1"))
    found = found[found["computed"].notna()]
    assert found["verdict"].tolist() == [verdict]
    assert found["reason"].item().startswith(f"computed {fmt(value)}")
    assert found["reason"].item().endswith("0.00 to 0.09, excludes the printed estimate, −0.01")


def test_not_run_says_what_is_missing():
    found = published.compare(schema.results([]), published.load())
    reasons = found.set_index(["paper", "artefact", "model"])["reason"]
    [s_row] = reasons["S", "Table 2", "Biovil"].unique()
    assert s_row.startswith("needs MIMIC-CXR (PhysioNet, credentialed)")
    assert s_row.endswith("the weights of Biovil")
    assert "NEATX" in reasons["S", "Fig. 4b", "smallest of five"]
    assert reasons["S", "Fig. 4b", "largest of five"].endswith(", ".join(published.FIVE))
    [count] = found.loc[found["metric"] == "n_studies", "reason"]
    assert count == "needs MIMIC-CXR (PhysioNet, credentialed)"
    [epochs] = found.loc[found["metric"] == "n_epochs", "reason"]
    assert epochs.startswith("needs nothing")


def test_another_cohort_is_named_with_what_was_found_there():
    rows = [computed(0.81, 0.7, 0.9, cohort="phantom", model=m) for m in ("a", "b")]
    rows[1]["value"] = 0.9
    found = published.compare(schema.results(rows), published.table("S Table 1"))
    said = found.loc[found["verdict"] == "not comparable (another cohort)", "reason"]
    assert said.unique().tolist() == ["computed on phantom: 0.81 to 0.90"]
    assert len(said) == 6  # models with an AUC for this finding


def test_unknown_numbers_need_a_rounding():
    mine = schema.results([computed(0.8, None, None, paper="S", artefact="Table 9")])
    with pytest.raises(ValueError, match=r"1 rows are not .*Table 9.*'rounding'"):
        published.compare(mine, mine)
    found = published.compare(mine, mine.assign(rounding=0.05))
    assert found["verdict"].tolist() == ["reproduced"]


def test_the_authors_own_tables_never_differ():
    """S's published tables as results: Table 1, its means and spreads, and the drain range."""
    found = published.compare(authors.results(), published.load())
    found = found[found["artefact"].isin(["Table 1", "Fig. 4b", "Fig. 4b bars"])]
    assert found["verdict"].value_counts().to_dict() == {
        "reproduced": 97,
        "contradicted by the paper's own numbers": 3,
    }
    assert set(outside(found)["model"]) == {"CXR-CLIP"}


def test_intervals_that_exclude_their_estimate_in_all_the_authors_files():
    """As printed rows: 23 of 66 rows of CXR-CLIP and none elsewhere; two cannot be an interval."""
    counts, reversed_ = {}, 0
    for part, model, table in authors.files():
        out = pd.Series(False, index=table.index)
        for name in ("AUC", "AUPRC"):
            value, low, high = (table[c] for c in (name, f"CI_{name}_low", f"CI_{name}_up"))
            turned = low > high
            rows = pd.DataFrame({"value": value, "ci_low": low, "ci_high": high})
            about = {"cohort": part, "model": model, "label": table["class"] + table["group"]}
            given = schema.results(rows[~turned].assign(metric=name, note="", **about))
            found = published.compare(schema.results([]), given.assign(rounding=0.005))
            out[rows.index[~turned]] |= found["verdict"].eq(published.CONTRADICTED).to_numpy()
            out |= turned
            reversed_ += int(turned.sum())
        counts[part, model] = int(out.sum())
        assert part == "CXR14" or len(table) == 66
    assert counts.pop(("MIMIC", "CXR-CLIP")) == 23 and set(counts.values()) == {0}
    assert reversed_ == 2


def test_wide_lays_a_table_out_as_printed():
    table = published.table("S Table 1")
    laid = schema.wide(table[table["metric"] == "auc"])
    assert laid.index.tolist() == MODELS and laid.columns.tolist() == [*LABELS, "mean"]
    assert laid.loc["MedCLIP", "Pneumothorax"] == "0.88 [0.86, 0.91]"
    assert laid.loc["MedCLIP", "mean"] == "0.83"
    with pytest.raises(ValueError, match="more than one row"):
        schema.wide(table)
    table["note"] = "mean over 5 of 6 labels; left out: Pneumonia (undefined in F)"
    assert schema.wide(table[table["metric"] == "auc"]).loc["MedCLIP", "mean"] == "0.83 (5 of 6)"

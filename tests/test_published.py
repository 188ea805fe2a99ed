"""The papers' numbers are complete, consistent with themselves, and compared fairly."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlib import published, schema

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
    folder = Path(__file__).parents[2] / "shared" / "published" / "sourget2025" / "MIMIC"
    if not folder.is_dir():
        pytest.skip("the authors' result files are not here")
    columns = {
        "auc": ("AUC", "CI_AUC_low", "CI_AUC_up"),
        "adjusted_auprc": ("AUPRC", "CI_AUPRC_low", "CI_AUPRC_up"),
    }
    for model in MODELS:
        name = model.lower().replace("cxr-clip", "cxrclip")
        with open(folder / f"zeroshot_{name}.csv") as file:
            rows = [row for row in csv.DictReader(file) if row["group"] == "global"]
        assert len(rows) == 6
        for row in rows:
            for metric, names in columns.items():
                found = table_1.loc[(model, row["class"], metric), ["value", "ci_low", "ci_high"]]
                assert found.tolist() == [float(row[c]) for c in names]


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


def test_percentages_of_x_are_compared_to_a_tenth_of_a_percent():
    row = {"cohort": "nih-6x200", "model": "MedCLIP-ViT", "method": "full", "label": "all"}
    row |= {"attribute": "all", "group": "all", "metric": "accuracy"}
    for value, verdict in ((0.5964, "reproduced"), (0.5985, "differs")):
        found = published.compare(
            schema.results([row | {"value": value}]), published.table("X Fig. 2a")
        )
        assert found.loc[found["method"] == "full", "verdict"].tolist() == [verdict]


def test_nothing_computed_means_nothing_run():
    found = published.compare(schema.results([]), published.load())
    assert (found["verdict"] == "not run").all()


def test_wide_lays_a_table_out_as_printed():
    table = published.table("S Table 1")
    laid = schema.wide(table[table["metric"] == "auc"])
    assert laid.index.tolist() == MODELS and laid.columns.tolist() == [*LABELS, "mean"]
    assert laid.loc["MedCLIP", "Pneumothorax"] == "0.88 [0.86, 0.91]"
    assert laid.loc["MedCLIP", "mean"] == "0.83"
    with pytest.raises(ValueError, match="more than one row"):
        schema.wide(table)

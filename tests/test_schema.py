"""The two tables that everything exchanges."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import schema


def test_results_are_completed_and_ordered():
    table = schema.results([{"value": 0.5, "metric": "auc", "n": 10}])
    assert tuple(table.columns) == schema.COLUMNS
    assert table.loc[0, "note"] == "" and pd.isna(table.loc[0, "ci_low"])
    pd.testing.assert_frame_equal(schema.results(table), table)
    assert tuple(schema.results([]).columns) == schema.COLUMNS


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"metric": "auc", "value": np.nan}, "needs its reason in `note`"),
        ({"metric": "auc", "value": 1, "ci_low": 2, "ci_high": 1}, "ci_low must not be above"),
        ({"metric": "auc", "value": 1, "n": 3, "n_positive": 4}, "n_positive must not be above n"),
        ({"metric": "auc", "value": 1, "n": -3}, "column 'n' in row 0 holds .*-3"),
        ({"value": 1}, "column 'metric' in row 0"),
        ({"metric": "auc", "value": "high"}, "column 'value' in row 0 holds 'high'"),
        ({"metric": "auc", "value": 1, "p_value": 0.1}, "unknown column 'p_value'"),
    ],
)
def test_a_broken_entry_is_named(row, message):
    with pytest.raises(ValueError, match=message):
        schema.results([row])


@pytest.fixture
def predictions():
    return pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "patient_id": ["p", "q"],
            "cohort": "c",
            "model": "m",
            "method": "zero-shot",
            "label": "Edema",
            "y_true": [0, 1],
            "score": [0.2, 0.7],
            "sex": "F",
        }
    )


def test_good_predictions_pass(predictions):
    assert schema.predictions(predictions, "sex") is predictions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="score"), "column 'score' is missing"),
        (lambda t: t.assign(y_true=[0, -1]), "'y_true' holds .*-1.*; expected 0 or 1"),
        (lambda t: t.assign(score=[0.1, np.nan]), "'score' has missing entries"),
        (lambda t: t.assign(score=[0.1, np.inf]), "'score' is infinite in 1 rows"),
        (lambda t: t.assign(model=None), "'model' has missing entries"),
        (lambda t: t.assign(image_id="a"), "more than one row"),
        (lambda t: t.assign(patient_id=["p", None]), "'patient_id' has missing entries"),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: t.drop(columns="sex"), "attribute column 'sex' is missing. Join it in"),
    ],
)
def test_broken_predictions_are_named(predictions, change, message):
    with pytest.raises(ValueError, match=message):
        schema.predictions(change(predictions), "sex")


def test_row_finds_exactly_one():
    table = schema.results(
        [
            {"model": m, "label": "Edema", "metric": "auc", "value": v}
            for m, v in (("a", 1), ("b", 2))
        ]
    )
    assert schema.row(table, model="b", metric="auc")["value"] == 2
    with pytest.raises(ValueError, match=r"2 rows for .*; they differ in model; expected exactly"):
        schema.row(table, label="Edema")
    with pytest.raises(ValueError, match="0 rows for"):
        schema.row(table, model="c")
    with pytest.raises(ValueError, match="no column 'modle'"):
        schema.row(table, modle="a")


@pytest.mark.parametrize(
    ("low", "high", "of", "side"),
    [
        (0.1, 0.2, 0, "above"),
        (-0.2, -0.1, 0, "below"),
        (-0.1, 0.1, 0, "around"),
        (0, 0.1, 0, "around"),
        (0.4, 0.49, 0.5, "below"),
        (np.nan, np.nan, 0, "undefined"),
    ],
)
def test_side_of_an_interval(low, high, of, side):
    assert schema.side({"ci_low": low, "ci_high": high}, of) == side

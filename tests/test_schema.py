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
        (
            {"metric": "auc", "value": 1, "n": 9, "n_positive": 4, "n_negative": 6},
            r"n_positive \+ n_negative must not be above n",
        ),
        ({"value": 1}, "column 'metric' in row 0"),
        ({"metric": "auc", "value": "high"}, "column 'value' in row 0 holds 'high'"),
        ({"metric": "auc", "value": 1, "p_value": 0.1}, "unknown column 'p_value'"),
    ],
)
def test_a_broken_entry_is_named(row, message):
    with pytest.raises(ValueError, match=message):
        schema.results([row])


def test_negatives_follow_from_the_counts_of_a_single_finding():
    rows = [
        {"label": "Edema", "n": 10, "n_positive": 3},
        {"label": "Edema", "n": 10, "n_positive": 3, "n_negative": 5},  # some are uncertain
        {"label": "Edema", "n": 10},
        {"label": "mean", "n": 10, "n_positive": 3},  # of the finding with fewest
        {"label": "mean", "n": 10, "n_positive": 3, "n_negative": 4},
        {"label": "all", "n": 10, "n_positive": 3},
    ]
    table = schema.results([row | {"metric": "auc", "value": 0.5} for row in rows])
    assert list(table.columns).index("n_negative") == list(table.columns).index("n_positive") + 1
    assert table["n_negative"].fillna(-1).tolist() == [7, 5, -1, -1, 4, -1]
    pd.testing.assert_frame_equal(schema.results(table), table)


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
    pd.testing.assert_frame_equal(
        schema.predictions(predictions, "sex").astype({"sex": "str"}),
        predictions,
        check_dtype=False,
    )


ROW = r"\(image_id 'b', label 'Edema', model 'm', {}\)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="score"), "column 'score' is missing"),
        (
            lambda t: t.assign(y_true=[0, -1]),
            r"'y_true' holds .* in 1 of 2 rows, first row 1 "
            + ROW.format("y_true -1")
            + "; expected 0 or 1 only",
        ),
        (lambda t: t.assign(y_true=["0", "1"]), "'y_true' holds .* in 2 of 2 rows"),
        (
            lambda t: t.assign(score=[0.1, np.nan]),
            "'score' has missing entries in 1 of 2 rows, first row 1 " + ROW.format("score nan"),
        ),
        (
            lambda t: t.assign(score=[0.1, np.inf]),
            "'score' holds .*infinite.* in 1 of 2 rows, first row 1 " + ROW.format("score inf"),
        ),
        (lambda t: t.assign(score=[0.1, "high"]), "'score' holds .*no number .*score 'high'"),
        (lambda t: t.assign(model=None), "'model' has missing entries in 2 of 2 rows"),
        (
            lambda t: pd.concat([t, t]),
            r"cohort, model, method, label, image_id are those of an earlier row in 2 of 4 rows, "
            r"first row 2 \(image_id 'a', label 'Edema', model 'm'\)",
        ),
        (
            lambda t: t.assign(patient_id=["p", None]),
            "'patient_id' has missing entries in 1 of 2 rows",
        ),
        (lambda t: t.iloc[:0], "no rows"),
        (lambda t: t.drop(columns="sex"), "attribute column 'sex' is missing. Join it in"),
    ],
)
def test_broken_predictions_are_named(predictions, change, message):
    with pytest.raises(ValueError, match=message):
        schema.predictions(change(predictions), "sex")


@pytest.fixture
def two_models(predictions):
    """The images a and b by the models m (rows 0, 1) and k (rows 2, 3)."""
    return pd.concat([predictions, predictions.assign(model="k")], ignore_index=True)


@pytest.mark.parametrize(
    ("column", "entries", "what", "shown"),
    [
        ("patient_id", ["p", "q", "p", "p"], "changes within an image", "patient_id 'p'"),
        ("sex", ["F", "F", "F", "M"], "changes within an image", "sex 'M'"),
        ("sex", ["F", "F", "F", None], "changes within an image", "sex (None|nan)"),
        ("sex", ["F", None, "F", "F"], "changes within an image", "sex 'F'"),
        ("y_true", [0, 1, 0, 0], "differs between models for one image and label", "y_true 0"),
    ],
)
def test_an_image_that_contradicts_itself_is_named(two_models, column, entries, what, shown):
    message = (
        rf"predictions: column '{column}' {what} in 1 of 4 rows, "
        rf"first row 3 \(image_id 'b', label 'Edema', model 'k', {shown}\)"
    )
    with pytest.raises(ValueError, match=message):
        schema.predictions(two_models.assign(**{column: entries}), "sex")


def test_what_is_no_contradiction(two_models):
    unknown = two_models.assign(sex=[None, "F", np.nan, "F"])
    assert schema.predictions(unknown, "sex")["sex"].isna().tolist() == [True, False, True, False]
    other_label = two_models.assign(
        label=["Edema", "Edema", "Mass", "Mass"], y_true=[0, 1, 1, 0], model="m"
    )
    schema.predictions(other_label, "sex")
    elsewhere = two_models.assign(cohort=["c", "c", "d", "d"], patient_id=[*"pqrs"], model="m")
    schema.predictions(elsewhere, "sex")


def test_scores_are_probabilities_only_where_asked(predictions):
    logits = predictions.assign(score=[-2.0, 0.5])
    schema.predictions(logits)
    message = r"'score' holds values outside \[0, 1\] in 1 of 2 rows, first row 0 .*score -2.0"
    with pytest.raises(ValueError, match=message):
        schema.predictions(logits, probabilities=True)


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

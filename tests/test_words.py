"""Words that chapters share: every branch, and the grammar of one and many."""

import math

import numpy as np
import pandas as pd
import pytest

from cxrlib import schema
from cxrlib.guard import latch
from cxrlib.show import words
from cxrlib.show.words import (
    Printed,
    beside,
    count,
    duration,
    estimate,
    judged,
    listed,
    plural,
    sides,
    size,
)


def row(value, low=None, high=None, group="F - M", note="", model="a"):
    return {
        "model": model,
        "label": "mean",
        "group": group,
        "metric": "auc",
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "note": note,
    }


GAPS = schema.results(
    [
        row(-0.0671, -0.0852, -0.0498),
        row(0.004, -0.01, 0.02, model="b"),
        row(math.nan, group="Asian - White", note="3 positive images; needs 10"),
        row(0.8712, 0.84, 0.9, group="F"),
        row(0.5, group="M"),
        row(math.nan, group="sex", note="undefined: 0 groups with enough patients; few"),
    ]
)


@pytest.mark.parametrize(
    ("where", "text", "alone", "lies", "side"),
    [
        (
            {"model": "a", "group": "F - M"},
            "−0.067 [−0.085, −0.050]",
            "−0.067",
            "lies below 0",
            "below",
        ),
        ({"model": "b"}, "+0.004 [−0.010, +0.020]", "+0.004", "includes 0", "around"),
        ({"group": "F"}, "0.87 [0.84, 0.90]", "0.87", "lies above 0", "above"),
        ({"group": "M"}, "0.50 [undefined]", "0.50", "is undefined", "undefined"),
        (
            {"group": "Asian - White"},
            "undefined (3 positive images)",
            "undefined (3 positive images)",
            "is undefined",
            "undefined",
        ),
        (
            {"group": "sex"},
            "undefined (0 groups with enough patients)",
            "undefined (0 groups with enough patients)",
            "is undefined",
            "undefined",
        ),
        (
            {"group": "80+ - 25-50"},
            "undefined (not in these data)",
            "undefined (not in these data)",
            "is undefined",
            "undefined",
        ),
    ],
)
def test_an_estimate_prints_itself(where, text, alone, lies, side):
    found = estimate(GAPS, **where)
    assert (f"{found}", f"{found:value}", found.lies, found.side) == (text, alone, lies, side)


def test_an_estimate_of_several_rows_is_refused():
    with pytest.raises(ValueError, match="they differ in model, group"):
        estimate(GAPS, label="mean")
    with pytest.raises(ValueError, match="no column 'sex'"):
        estimate(GAPS, sex="F")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (listed([]), "none"),
        (listed([], none="nobody"), "nobody"),
        (listed(["F"]), "female"),
        (listed(["F - M", "age_group"]), "female − male and age"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed(["a", "b"], last="or"), "a or b"),
        (plural(1, "model"), "1 model"),
        (plural(0, "model"), "0 models"),
        (plural(1204, "body", "bodies"), "1,204 bodies"),
        (sides(GAPS[:1], "models"), "below 0 in 1 of 1 models"),
        (sides(GAPS[:0]), "undefined: no models"),
        (
            sides(GAPS, "gaps"),
            "below 0 in 1, above 0 in 1, on both sides of 0 in 1 and undefined in 3 of 6 gaps",
        ),
    ],
)
def test_lists_and_counts(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0.4, "24 minutes"), (1.4, "84 minutes"), (1.5, "1.5 hours"), (30, "30 hours"),
     (40, "1.7 days"), (24 * 60, "60 days"), (24 * 365.25 * 4, "4.0 years")],
)  # fmt: skip
def test_durations(hours, expected):
    assert duration(hours) == expected


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [(640, "1 kB"), (94_000, "94 kB"), (4.3e6, "4.3 MB"), (417e9, "417 GB"), (1.51e12, "1.5 TB")],
)
def test_sizes(n_bytes, expected):
    assert size(n_bytes) == expected


def test_small_counts_of_people_are_coarse_once_credentialed_data_were_loaded(monkeypatch):
    assert [count(n) for n in (0, 3, 1204)] == ["0", "3", "1,204"]
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    assert [count(n) for n in (0, 3, 10)] == ["0", "fewer than 10", "10"]
    assert count(None) == "undefined"


BELOW, AROUND, ABOVE = (
    Printed(-0.1, -0.15, -0.05, True),
    Printed(-0.02, -0.05, 0.01, True),
    Printed(0.1, 0.05, 0.15, True),
)
NEAR_0 = Printed(0.0, -0.02, 0.02, True)


@pytest.mark.parametrize(
    ("on", "off", "sign", "words"),
    [
        (BELOW, NEAR_0, -0.3, ["is found"]),
        (ABOVE, NEAR_0, 0.3, ["is found"]),
        (BELOW, BELOW, -0.3, ["most of the gap stays without the dial"]),
        (AROUND, NEAR_0, -0.3, ["in the sign of the gap, but the interval includes 0"]),
        (ABOVE, NEAR_0, -0.3, ["is not found", "wrong sign"]),
        (ABOVE, ABOVE, -0.3, ["wrong sign", "points the other way"]),
        (BELOW, ABOVE, 0.3, ["wrong sign"]),
        (AROUND, NEAR_0, 0, ["No effect", "claims none"]),
        (BELOW, NEAR_0, 0, ["No effect", "yet the interval of the audit excludes 0"]),
        (Printed(None), NEAR_0, -0.3, ["cannot be judged"]),
        (BELOW, Printed(None), -0.3, ["cannot be judged"]),
    ],
)
def test_a_planted_difference_is_judged(on, off, sign, words):
    said = judged("age", on, off, sign)
    assert all(word in said for word in words), said
    assert ("is found" in said) == (words == ["is found"])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "better"),
        (-0.03, -0.01, "worse"),
        (-0.01, 0.01, "not told apart"),
        (None, None, "undefined"),
    ],
)
def test_what_one_model_is_beside_another(low, high, said):
    assert beside(Printed(0.0, low, high)) == said


def made(*rows):
    columns = ["model", "group", "value", "ci_low", "ci_high", "note"]
    return pd.DataFrame(rows, columns=columns)


def test_each_row_is_named_with_its_value():
    a, b = ("a", "F", 0.5, 0.4, 0.6, ""), ("b", "F - M", -0.1, np.nan, np.nan, "")
    c = ("c", "F", np.nan, np.nan, np.nan, "3 positive images; weighted")
    assert words.each(made(a, b, c)) == "a 0.50 [0.40, 0.60], b −0.100 [undefined] and c undefined"
    assert words.each(made(a), by="group") == "female 0.50 [0.40, 0.60]"
    assert words.each(made(), none="not run") == "not run"
    again = ("d", *c[1:])
    assert words.why_undefined(made(a, c, again)) == "Undefined here: 3 positive images."
    assert words.why_undefined(made(a)) == ""


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("cab", "a 0.30 [undefined] to c 0.90 [undefined]"),
        ("b", "b 0.50 [undefined]"),
        ("", "undefined"),
    ],
)
def test_the_ends_of_a_column_are_named(known, said):
    values = {"a": 0.3, "b": 0.5, "c": 0.9}
    rows = [(name, "F", values[name], np.nan, np.nan, "") for name in known]
    assert words.ends(made(*rows, ("d", "F", np.nan, np.nan, np.nan, "few"))) == said


VALUES = pd.Series([0.31, np.nan, 0.12])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.span(VALUES), "0.12 to 0.31"),
        (words.span(VALUES, words.percent, to="and"), "12 % and 31 %"),
        (words.span(-VALUES, digits=3, signed=True), "−0.310 to −0.120"),
        (words.span(VALUES[1:2]), "undefined"),
        (words.how_many(pd.Series([True, False, np.nan])), "1 of 2"),
        (words.how_many(pd.Series([np.nan])), "undefined"),
    ],
)
def test_spans_and_shares(said, expected):
    assert said == expected


def test_intervals_lie_on_a_side_of_a_number_or_of_one_each():
    rows = pd.DataFrame({"ci_low": [0.1, -0.3, -0.1, np.nan], "ci_high": [0.2, -0.2, 0.1, np.nan]})
    sides = ("above", "below", "around")
    assert [words.lying(rows, side) for side in sides] == ["1 of 3"] * 3
    assert words.lying(rows, "above", -0.5) == "3 of 3"
    assert words.lying(rows, "below", pd.Series([0.3, 0, 0, 0])) == "2 of 3"
    assert words.lying(rows[3:], "above") == "undefined"


def test_predicted_minus_observed_has_the_sign_of_a_difference():
    about = {"metric": "calibration_in_the_large", "model": "m", "ci_low": 0.01, "ci_high": 0.03}
    table = schema.results([about | {"value": 0.02}])
    assert str(words.estimate(table, model="m")) == "+0.020 [+0.010, +0.030]"


@pytest.mark.parametrize(
    ("on", "off", "is_open", "said"),
    [
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), True, "is found: race is readable, and only that way"),
        (
            (0.8, 0.7, 0.9),
            (0.6, 0.55, 0.7),
            True,
            "is found in part: without it race is less readable, but not at chance",
        ),
        ((0.6, 0.55, 0.7), (0.8, 0.7, 0.9), True, "is not found in this run"),
        ((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), True, "is not found in this run"),
        (
            (0.8, 0.7, 0.9),
            (0.5, 0.4, 0.6),
            False,
            "was closed by this run, and race is readable all the same",
        ),
        (
            (0.5, 0.4, 0.6),
            (0.5, 0.4, 0.6),
            False,
            "was closed by this run, and race is not readable",
        ),
        (
            (0.8, 0.7, 0.9),
            (np.nan, np.nan, np.nan),
            True,
            "cannot be judged in this run, which has too few patients",
        ),
    ],
)
def test_a_planted_path_is_judged_by_both_intervals(on, off, is_open, said):
    rows = (dict(zip(("value", "ci_low", "ci_high"), limits, strict=True)) for limits in (on, off))
    assert words.path_judged("race", *rows, is_open) == said

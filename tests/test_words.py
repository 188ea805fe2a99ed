"""The words that say what a table holds: every branch, also the grammatical ones."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import schema
from cxrlib.show import words

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

"""Words of chapters: every branch of a sentence piece, against what it should read."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.show import words


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

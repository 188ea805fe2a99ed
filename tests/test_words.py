"""Words of chapters: every branch of a sentence piece, against what it should read."""

import numpy as np
import pandas as pd

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

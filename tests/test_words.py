"""Pieces of sentences: every branch, and what is undefined."""

import pytest

from cxrlib.show.words import Estimate, beside


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
    assert beside(Estimate(0.0, low, high)) == said

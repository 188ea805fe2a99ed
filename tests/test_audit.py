"""The register of the audit."""

import numpy as np
import pytest

from cxrlib.models import published_models
from cxrlib.models.registry import entrances, recipe
from cxrlib.papers import audit

GIVEN = dict.fromkeys(["satisfying", "findings", "size_said", "size"], "some")


def test_register_has_the_values_of_the_run_or_says_where_they_are():
    found = audit.register("X", **GIVEN, leak="25 %")
    assert set(found["paper"]) == {"X"}
    assert found.loc["patients in the split", "effect"] == "25 % of test images leak if by image"
    assert found.loc["gaps", "effect"] == "chapter on the audit of X"
    assert found.loc["settings", "effect"] == audit.STATED
    assert "the test images, corrected" in found.loc["prompt format", "what code or data show"]
    with pytest.raises(KeyError, match="said"):
        audit.register("S")


def test_entrances_are_of_the_models_that_s_feeds_otherwise():
    found = entrances(np.full((60, 50), 255, np.uint8)).set_index("model")
    assert list(found.index) == [m for m in published_models() if recipe(m).preprocess_s]
    other_size = found["pixels, authors"] != found["pixels, S"]
    assert found["off by"].isna().equals(other_size)
    white = found.loc["chexzero"]
    assert white["off by"] >= abs(white["mean, authors"] - white["mean, S"]) - 1e-6

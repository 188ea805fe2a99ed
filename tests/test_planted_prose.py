"""Turning a planted bias by parameter turns what chapters say, and the answer of an exercise."""

import json
import re

import pytest

from cxrlib.book.chapters import find
from cxrlib.book.record import said
from cxrlib.book.run import run
from tests.conftest import ROOT

SIZE = {"n_images": 2500, "n_resamples": 100, "models": "phantom-resnet"}
WOMEN = {"dials": {"contrast": {"sex": {"F": 0.5}}}}
NOBODY = {"dials": {"contrast": {}}}
GAP = r"As drawn, the gap is \S+ \[(\S+), (\S+)\] in mean AUC"


@pytest.mark.slow  # two runs of two chapters
def test_the_text_follows_the_planted_bias(tmp_path):
    texts = {}
    for name, options in (("women", WOMEN), ("nobody", NOBODY)):
        for chapter, more in (("4", {"n_permutations": 30}), ("12", {})):
            given = SIZE | more | {"options": repr(options)}
            [path] = run(ROOT, find(ROOT, chapter), given, tmp_path / name)
            notebook = json.loads(path.read_text(encoding="utf-8"))
            texts[name, chapter] = " ".join(" ".join(said(notebook).values()).split())
    women, nobody = texts["women", "12"], texts["nobody", "12"]
    assert limits(women)[1] < 0 <= limits(nobody)[1]
    assert "**The planted effect of sex is found" in women
    assert "No effect of sex was planted" in nobody
    assert "The dial for sex stands at 0.5 for women and at 1 for men" in women
    assert "0.5 in female" in texts["women", "4"]
    assert "the same factor in everybody" in texts["nobody", "4"]


def limits(text):
    """Of the gap by sex, as it is said: -0.031 [-0.045, -0.018]."""
    low, high = re.search(GAP, text.replace("−", "-")).groups()
    return float(low), float(high)

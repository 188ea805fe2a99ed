"""Turning a planted bias by parameter turns what chapter 4 says, and the answer of its exercise."""

import json
import re

import pytest

from cxrlib.book.chapters import find
from cxrlib.book.record import numbers
from cxrlib.book.run import run
from tests.conftest import ROOT

SIZE = {"n_images": 2500, "n_resamples": 100, "n_permutations": 30, "models": "phantom-resnet"}
WOMEN = {"dials": {"contrast": {"sex": {"F": 0.5}}}}
NOBODY = {"dials": {"contrast": {}}}


@pytest.mark.slow  # two runs of a chapter
def test_the_text_follows_the_planted_bias(tmp_path):
    said = {}
    for name, options in (("women", WOMEN), ("nobody", NOBODY)):
        given = SIZE | {"options": repr(options)}
        [path] = run(ROOT, find(ROOT, "4"), given, tmp_path / name)
        said[name] = numbers(json.loads(path.read_text(encoding="utf-8")))
    assert limits(said["women"]["sex-on"])[1] < 0 <= limits(said["nobody"]["sex-on"])[1]
    for key in ("planted", "sex-on", "sex-on-where", "sex-verdict", "answer-planted"):
        assert said["women"][key] != said["nobody"][key], key


def limits(text):
    """Of an interval as it is printed: -0.031 [-0.045, -0.018]."""
    low, high = re.search(r"\[(\S+), (\S+)\]", text.replace("−", "-")).groups()
    return float(low), float(high)

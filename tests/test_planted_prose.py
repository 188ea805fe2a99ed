"""Turning a planted bias by parameter turns what chapter 4 says, and the answer of its exercise."""

import json

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
    assert said["women"]["sex-on-where"] == "lies below 0"
    assert said["nobody"]["sex-on-where"] != "lies below 0"
    for key in ("planted", "sex-on", "sex-verdict", "answer-planted"):
        assert said["women"][key] != said["nobody"][key], key

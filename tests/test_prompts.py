"""The texts of the three prompt formats: what a draw takes, and whether they read as texts."""

import re
from itertools import pairwise

import numpy as np
import pytest

from cxrlib import models, prompts
from cxrlib.cohorts.metadata import FINDINGS
from cxrlib.cohorts.nih6x200 import DISEASES
from cxrlib.models.phantom_clip import split_words

KNOWN = 0.75  # share of words, in each format and disease, that the small phantom models know
RANDOM = ("GLoRIA", "CXR-CLIP")


def draw(format, label, seed=0):
    return prompts.draw(format, label, np.random.default_rng(seed))


@pytest.mark.parametrize("format", prompts.FORMATS)
def test_every_text_is_sound(format):
    for label in FINDINGS:
        every = prompts.texts(format, label)
        assert len(set(every)) == len(every)
        for text in every:
            assert re.fullmatch(r"[A-Za-z]+( [a-z]+)*\.?", text), text
            words = split_words(text)
            assert all(a != b for a, b in pairwise(words)), text
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\b(a|an) (a|an)\b", text.lower()), text
        if format == "CXR-CLIP":  # sentences; the phrases of GLoRIA are none
            assert all(text[0].isupper() and text[-1] == "." for text in every)


@pytest.mark.parametrize("format", prompts.FORMATS)
def test_the_small_models_know_most_words(format):
    known = set(models.load("phantom-vit").tokenizer.words)
    for label in DISEASES:
        words = [word for text in prompts.texts(format, label) for word in split_words(text)]
        assert np.mean([word in known for word in words]) >= KNOWN, label


@pytest.mark.parametrize("label", FINDINGS)
def test_the_texts_of_a_class_name_no_other(label):
    stems = {other: other.lower() for other in FINDINGS} | {"Hernia": "hernia"}
    stems |= {"Infiltration": "infiltrat", "Cardiomegaly": "cardi", "Pleural Effusion": "effusion"}
    stems |= {"Pleural Thickening": "thicken"}
    for format in prompts.FORMATS:
        joined = " ".join(prompts.texts(format, label)).lower()
        assert [name for name, stem in stems.items() if re.search(rf"\b{stem}", joined)] == [label]


@pytest.mark.parametrize("format", RANDOM)
@pytest.mark.parametrize("label", FINDINGS)
def test_a_draw_takes_different_texts_of_the_class(format, label):
    """As many for every class, repeatable by seed, and every text has the same chance."""
    runs = [draw(format, label, seed) for seed in range(400)]
    assert {len(set(run)) for run in runs} == {len(run) for run in runs} == {5}
    assert runs[0] == draw(format, label, 0) != runs[1]
    every = prompts.texts(format, label)
    drawn = [text for run in runs for text in run]
    share = np.array([drawn.count(text) for text in every]) / len(runs)
    expected = 5 / len(every)
    assert share.sum() == pytest.approx(5)  # no text from elsewhere
    # 4.5 standard errors of a share, about 600 shares in all
    assert np.abs(share - expected).max() < 4.5 * np.sqrt(expected * (1 - expected) / len(runs))


def test_phrases_are_severity_kind_and_location(monkeypatch):
    block = (("", "mild"), ("edema",), ("", "here"))
    monkeypatch.setitem(prompts.PHRASES, "Edema", (block, (("",), ("haze",), ("",))))
    expected = ["edema", "edema here", "mild edema", "mild edema here", "haze"]
    assert prompts.texts("GLoRIA", "Edema") == expected
    assert sorted(draw("GLoRIA", "Edema")) == sorted(expected)


def test_the_fixed_format_takes_any_label():
    assert draw("CLIP", "Pleural Effusion") == draw("CLIP", "Pleural Effusion", seed=1)
    for label, name in (("Pleural Effusion", "pleural effusion"), ("COPD Signs", "COPD signs")):
        assert draw("CLIP", label) == [f"a photo of a chest radiograph with {name}."]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="prompt format 'Clip': expected one of CLIP, GLoRIA"):
        draw("Clip", "Edema")
    for format in RANDOM:
        with pytest.raises(ValueError, match=rf"label 'COPD' has no words .* format {format}; .*"):
            draw(format, "COPD")

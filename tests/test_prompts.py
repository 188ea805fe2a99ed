"""The texts of the three prompt formats: what a draw takes, and whether they read as texts."""

import re
from itertools import pairwise

import numpy as np
import pytest

from cxrlib import models
from cxrlib.cohorts.metadata import FINDINGS
from cxrlib.cohorts.nih6x200 import DISEASES
from cxrlib.models import registry
from cxrlib.models.phantom_clip import split_words
from cxrlib.predict import prompts, zeroshot

KNOWN = 0.75  # share of words, in each format and disease, that the small phantom models know
RANDOM = ("GLoRIA", "CXR-CLIP")


CARDS = {
    "BiomedCLIP": "biomedclip",
    "BioViL-T": "biovil_t",
    "CheXzero": "chexzero",
    "CLIP": "clip_vit_b16",
    "CXR-CLIP": "cxr_clip_swin",
    "MedImageInsight": "medimageinsight",
}


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_phrases_are_those_on_the_cards_of_the_models(side):
    table = prompts.POSITIVE if side == "positive" else prompts.NEGATIVE
    assert {name for phrase in table for name in phrase.by} - {"paper S"} <= set(CARDS)
    for name, card in CARDS.items():
        theirs = {x.text.lower() for x in table if name in x.by}
        on_card = {text.lower() for text in registry.cards()[card]["prompts"][side]}
        assert theirs <= on_card or not on_card, name
        fit_some = {"this opacity can represent {label}", "no evidence of acute {label}"}
        assert on_card - theirs <= fit_some, name


def test_phrases_have_one_slot_at_most_and_differ_in_words():
    assert all(x.text.count("{label}") == 1 for x in prompts.POSITIVE)
    assert all(x.text.count("{label}") <= 1 for x in prompts.NEGATIVE)
    every = [x for side in (prompts.POSITIVE, prompts.NEGATIVE) for x in side]
    assert len({tuple(split_words(x.text)) for x in every}) == len(every)
    assert all(x.source and x.by for x in every)


def test_pairs_are_all_against_all_and_the_ensemble():
    pairs = prompts.pairs()
    positive, negative = ([x.text for x in side] for side in (prompts.POSITIVE, prompts.NEGATIVE))
    assert len(pairs) == len(positive) * len(negative) + 1
    for name, (yes, no) in list(pairs.items())[:-1]:
        assert name == f"{yes} / {no}" and yes in positive and no in negative
    assert pairs[prompts.ALL] == (tuple(positive), tuple(negative))
    assert f"{zeroshot.POSITIVE} / {zeroshot.NEGATIVE}" in pairs


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
    known = set(models.load_model("phantom-vit").tokenizer.words)
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
    with pytest.raises(ValueError, match="prompt format='Clip': expected one of CLIP, GLoRIA"):
        draw("Clip", "Edema")
    for format in RANDOM:
        with pytest.raises(ValueError, match=rf"label 'COPD' has no words .* format {format}; .*"):
            draw(format, "COPD")

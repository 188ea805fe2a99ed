"""Prompts: the phrases with which models were asked in print, and the three formats of X.

**Phrases** (:data:`POSITIVE`, :data:`NEGATIVE`) are those with a slot for the finding that the
authors of models use in zero-shot classification of chest radiographs, or name for it. Left out are
phrases that fit only some findings ("This opacity can represent ..." and "No evidence of acute ..."
of BioViL-T; cardiomegaly is no opacity), and the lists of words for single findings by GLoRIA and
MedCLIP, which have no slot. CXR-CLIP writes "No {label}"; the tokenizers here lower-case.

**Formats of X** (section 2.3) are in words of our own. X takes the formats "as proposed" by three
papers, and prints no prompt. The ideas are theirs:

- CLIP (Radford et al. 2021, section 3.1.4): one fixed sentence around the name of the class, with
  a word on what kind of picture it is.
- GLoRIA (Huang et al. 2021, zero-shot classification): short phrases of severity, kind and
  location of the finding; several are drawn at random and stand together for the class.
- CXR-CLIP (You et al. 2023): sentences of a report that say that the finding is present, drawn
  from templates and synonyms.

Sentence, phrases, templates and synonyms are ours, and so are the five texts of a draw, the same
number for both random formats. A phrase is not any combination of words but one that a radiologist
might write: no large effusion with a blunted angle, no left or right cardiomegaly. Most words for
the six diseases of X are those of the reports from which the small phantom models learned theirs
(:mod:`cxrlib.cohorts.reports`), as a word that a model never saw tells it nothing.
"""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib.core.checks import one_of


class Phrase(NamedTuple):
    """One side of a zero-shot question: ``{label}`` is the slot for the finding."""

    text: str
    by: tuple[str, ...]  # whose models are asked like this
    source: str


_WORDS = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
POSITIVE, NEGATIVE = (
    tuple(Phrase(each["text"], tuple(each["by"]), each["source"]) for each in _WORDS[side])
    for side in ("positive", "negative")
)
ALL = "all phrases / all phrases"


def pairs() -> dict[str, tuple]:
    """Every positive phrase against every negative one, and the ensemble of all against all.

    Each pair makes sense: the first phrase says that the finding is there, the second that it, or
    any finding, is not.

    Returns
    -------
    dict
        Name, such as "Chest {label} / Chest No Findings" or :data:`ALL`, to a positive and a
        negative prompt or several, as :func:`cxrlib.predict.zeroshot.pair_scores` takes them.
    """
    positive, negative = (tuple(phrase.text for phrase in side) for side in (POSITIVE, NEGATIVE))
    single = {f"{yes} / {no}": (yes, no) for yes, no in product(positive, negative)}
    return single | {ALL: (positive, negative)}


def phrase_table() -> pd.DataFrame:
    """Every phrase, which side of a question it is, who asks so, and where that is written."""
    sides = {"is there": POSITIVE, "is not there": NEGATIVE}
    rows = [(k, x.text, ", ".join(x.by), x.source) for k, side in sides.items() for x in side]
    return pd.DataFrame(rows, columns=["the finding", "phrase", "asked by", "source"])


# --- the formats of X ---

FORMATS = ("CLIP", "GLoRIA", "CXR-CLIP")
RANDOM = ("GLoRIA", "CXR-CLIP")  # the others have one text a class, which no draw changes
TEXTS = 5  # of a class in one draw of a random format

SENTENCE = "a photo of a chest radiograph with {}."

PHRASES = _WORDS["phrases"]  # blocks of severity x kind x location by finding
SYNONYMS = _WORDS["synonyms"]
TEMPLATES = _WORDS["templates"]


def texts(format: str, label: str) -> list[str]:
    """All texts from which a draw for a class is taken; one for a fixed format.

    Parameters
    ----------
    format : {"CLIP", "GLoRIA", "CXR-CLIP"}
    label : str
        For the random formats one of the 14 findings of
        :data:`cxrlib.cohorts.metadata.FINDINGS`; any class for the fixed one.

    Raises
    ------
    ValueError
        An unknown format, or a label without words in it.
    """
    one_of("prompt format", format, FORMATS)
    if format not in RANDOM:
        # capitals of names go; those of an abbreviation, such as COPD, stay
        words = (word if word.isupper() else word.lower() for word in label.split())
        return [SENTENCE.format(" ".join(words))]
    if label not in PHRASES:
        raise ValueError(
            f"label {label!r} has no words for prompts in the format {format}; labels with words: "
            f"{', '.join(PHRASES)}. Add it to cxrlib/predict/prompts.toml, "
            f"or ask for the format {FORMATS[0]} alone, which takes any label"
        )
    if format == "GLoRIA":
        combined = (words for block in PHRASES[label] for words in product(*block))
        return [" ".join(filter(None, words)) for words in combined]
    sentences = (t.format(name) for t, name in product(TEMPLATES, SYNONYMS[label]))
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def draw(format: str, label: str, generator: np.random.Generator) -> list[str]:
    """The texts that stand for a class in one run.

    Parameters
    ----------
    format, label : as in :func:`texts`
    generator : numpy.random.Generator
        Not used by the fixed format.

    Returns
    -------
    list of str
        One text, or :data:`TEXTS` different ones of a random format.

    Raises
    ------
    ValueError
        As :func:`texts`.
    """
    every = texts(format, label)
    if format not in RANDOM:
        return every
    return [every[i] for i in generator.choice(len(every), TEXTS, replace=False)]

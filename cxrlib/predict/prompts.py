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

from itertools import product
from typing import NamedTuple

import numpy as np


class Phrase(NamedTuple):
    """One side of a zero-shot question: ``{label}`` is the slot for the finding."""

    text: str
    by: tuple[str, ...]  # whose models are asked like this
    source: str


_CHEXZERO = "rajpurkarlab/CheXzero, zero_shot.py; kakaobrain/cxr-clip, cxrclip/evaluator.py"
_BIOVIL = "microsoft/hi-ml, hi-ml-multimodal/test_multimodal/vlp/test_zero_shot_classification.py"
_MEDIMAGEINSIGHT = (
    "microsoft/healthcareai-examples, agentic/medimageinsight/mcp-server/zero_shot.py"
)

POSITIVE = (
    Phrase("Chest {label}", ("paper S",), "S, section 2.1"),
    Phrase("{label}", ("CheXzero", "CXR-CLIP"), _CHEXZERO),
    Phrase("Findings consistent with {label}", ("BioViL-T",), _BIOVIL),
    Phrase("Findings suggesting {label}", ("BioViL-T",), _BIOVIL),
    Phrase("Findings are most compatible with {label}", ("BioViL-T",), _BIOVIL),
    Phrase("a photo of a {label}.", ("CLIP",), "Radford et al. 2021, section 3.1.4"),
    Phrase(
        "this is a photo of {label}",
        ("BiomedCLIP",),
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224, biomed_clip_example.ipynb",
    ),
    Phrase("x-ray chest anteroposterior {label}", ("MedImageInsight",), _MEDIMAGEINSIGHT),
)
NEGATIVE = (
    Phrase("Chest No Findings", ("paper S",), "S, section 2.1"),
    Phrase("no {label}", ("CheXzero", "CXR-CLIP"), _CHEXZERO),
    Phrase("There is no {label}", ("BioViL-T",), _BIOVIL),
    Phrase("No evidence of {label}", ("BioViL-T",), _BIOVIL),
    Phrase("No signs of {label}", ("BioViL-T",), _BIOVIL),
    Phrase("x-ray chest anteroposterior No Finding", ("MedImageInsight",), _MEDIMAGEINSIGHT),
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


# --- the formats of X ---

FORMATS = ("CLIP", "GLoRIA", "CXR-CLIP")
RANDOM = ("GLoRIA", "CXR-CLIP")  # the others have one text a class, which no draw changes
TEXTS = 5  # of a class in one draw of a random format

SENTENCE = "a photo of a chest radiograph with {}."

DEGREES = ("", "mild", "moderate", "severe")
SIZES = ("", "small", "moderate", "large")
LOWER = ("in the left lower lobe", "in the right lower lobe")
UPPER = ("in the left upper lobe", "in the right upper lobe")
LOBES = LOWER + UPPER
BASES = ("at the left lung base", "at the right lung base", "at both lung bases")
SIDES = ("on the left", "on the right")

# Blocks of severity x kind x location, all of whose combinations make sense.
PHRASES = {
    "Atelectasis": (
        (("", "mild"), ("plate like atelectasis", "linear atelectasis"), ("", *BASES)),
        (DEGREES, ("atelectasis",), LOWER),
        (DEGREES, ("left basilar atelectasis", "right basilar atelectasis"), ("",)),
    ),
    "Cardiomegaly": (
        (DEGREES, ("cardiomegaly", "enlargement of the heart"), ("", "on the chest radiograph")),
        (("",), ("enlarged heart", "cardiac enlargement"), ("", "on the chest radiograph")),
    ),
    "Consolidation": (
        (("", "focal", "dense"), ("consolidation",), ("in the left lung", "in the right lung")),
        (("", "dense"), ("lobar consolidation", "consolidation with air bronchograms"), LOBES),
        (("", "patchy"), ("airspace consolidation",), LOBES),
    ),
    "Edema": (
        (DEGREES, ("pulmonary edema",), ("", "in both lungs", "with perihilar haze")),
        (("", "mild", "moderate"), ("interstitial edema",), ("", "with septal lines")),
        (("", "severe"), ("alveolar edema",), ("", "in both lungs", "with perihilar haze")),
    ),
    "Pleural Effusion": (
        (("", "mild", "small"), ("pleural effusion",), ("with a blunted costophrenic angle",)),
        ((*SIZES, "mild"), ("pleural effusion",), (*SIDES, "on both sides")),
        ((*SIZES, "mild"), ("left pleural effusion", "right pleural effusion"), ("",)),
    ),
    "Pneumothorax": (
        (SIZES, ("left pneumothorax", "right pneumothorax"), ("", "with visible pleural line")),
        (("", "small"), ("apical pneumothorax",), SIDES),
        (("",), ("tension pneumothorax",), SIDES),
    ),
    "Emphysema": (
        (DEGREES, ("emphysema", "pulmonary emphysema"), ("", "in both lungs")),
        (("", "severe"), ("bullous emphysema",), UPPER),
    ),
    "Fibrosis": (
        (DEGREES, ("pulmonary fibrosis", "interstitial fibrosis"), ("", "at both lung bases")),
    ),
    "Hernia": ((SIZES, ("hiatal hernia", "hernia"), ("behind the heart",)),),
    "Infiltration": ((("", "patchy", "focal"), ("infiltrate", "lung infiltrate"), LOBES),),
    "Mass": ((("", "large", "spiculated"), ("mass", "lung mass"), LOBES),),
    "Nodule": ((("", "small", "calcified"), ("nodule", "lung nodule"), LOBES),),
    "Pleural Thickening": ((DEGREES, ("pleural thickening",), ("", *SIDES, "on both sides")),),
    "Pneumonia": (
        (("", "mild", "severe"), ("pneumonia",), LOBES),
        (("", "patchy"), ("opacity in keeping with pneumonia",), LOWER),
    ),
}

# Ways to name a finding, each singular, so that the verb of a template agrees.
SYNONYMS = {
    "Atelectasis": (
        "atelectasis",
        "basilar atelectasis",
        "lower lobe atelectasis",
        "plate like atelectasis",
    ),
    "Cardiomegaly": (
        "cardiomegaly",
        "an enlarged heart",
        "enlargement of the heart",
        "cardiac enlargement",
    ),
    "Consolidation": (
        "consolidation",
        "lung consolidation",
        "focal consolidation",
        "consolidation with air bronchograms",
    ),
    "Edema": ("pulmonary edema", "edema", "interstitial edema", "perihilar haze with edema"),
    "Pleural Effusion": (
        "a pleural effusion",
        "pleural effusion",
        "pleural fluid",
        "an effusion with blunted costophrenic angle",
    ),
    "Pneumothorax": (
        "a pneumothorax",
        "pneumothorax",
        "an apical pneumothorax",
        "pneumothorax with visible pleural line",
    ),
    "Emphysema": ("emphysema", "pulmonary emphysema", "emphysema of the lungs"),
    "Fibrosis": ("pulmonary fibrosis", "fibrosis of the lungs", "interstitial fibrosis"),
    "Hernia": ("a hiatal hernia", "a hernia behind the heart", "herniation of the stomach"),
    "Infiltration": ("an infiltrate", "a lung infiltrate", "infiltration of the lung"),
    "Mass": ("a mass", "a lung mass", "a pulmonary mass"),
    "Nodule": ("a nodule", "a lung nodule", "a pulmonary nodule"),
    "Pleural Thickening": (
        "pleural thickening",
        "thickening of the pleura",
        "a thickened pleural line",
    ),
    "Pneumonia": ("pneumonia", "lobar pneumonia", "lower lobe pneumonia"),
}
TEMPLATES = (
    "there is {}.",
    "{} is present.",
    "{} is visible.",
    "there is evidence of {}.",
    "findings are consistent with {}.",
    "the radiograph shows {}.",
)


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
    if format not in FORMATS:
        raise ValueError(f"prompt format {format!r}: expected one of {', '.join(FORMATS)}")
    if format not in RANDOM:
        # capitals of names go; those of an abbreviation, such as COPD, stay
        words = (word if word.isupper() else word.lower() for word in label.split())
        return [SENTENCE.format(" ".join(words))]
    if label not in PHRASES:
        raise ValueError(
            f"label {label!r} has no words for prompts in the format {format}; labels with words: "
            f"{', '.join(PHRASES)}. Add it to PHRASES and SYNONYMS of cxrlib/predict/prompts.py, "
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

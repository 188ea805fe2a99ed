"""The leak register: cards set beside the source of a cohort."""

import tomllib
from dataclasses import replace

import pytest

from cxrlib import cohorts, models
from cxrlib.models import leaks as register
from cxrlib.models.leaks import leaks
from cxrlib.models.registry import CARDS

SOURCES = {"MIMIC-CXR", "CheXpert", "NIH-CXR14", "PadChest", "PMC-15M"}
# Read off the papers: who was trained on the images of NIH ChestX-ray14, and of MIMIC-CXR.
ON_NIH = {"cxr_clip_rn50", "cxr_clip_swin", "medimageinsight"}
ON_MIMIC = ON_NIH | {"medclip_rn50", "medclip_vit", "biovil", "biovil_t", "chexzero"}


@pytest.fixture(scope="module")
def nih():
    return cohorts.load("nih-metadata")


def verdicts(names, cohort):
    return leaks(names, cohort).set_index("model")["verdict"]


@pytest.mark.parametrize("source", ["NIH-CXR14", "MIMIC-CXR"])
def test_a_cohort_of_a_source_flags_the_models_trained_on_it(nih, source):
    found = leaks(models.published_models(), replace(nih, sources=(source,))).set_index("model")
    flagged = found["verdict"] == "trained on this source: patients may be in both"
    assert set(found.index[flagged]) == {"NIH-CXR14": ON_NIH, "MIMIC-CXR": ON_MIMIC}[source]
    assert (found.loc[flagged, "shared"] == source).all()
    assert (found.loc[~flagged, "shared"] == "none").all()


def test_the_nih_cohort_names_its_source(nih):
    assert nih.sources == ("NIH-CXR14",)
    found = verdicts([*models.published_models(), *models.model_names()], nih)
    assert found["gloria"] == found["medclip_vit"] == found["phantom-vit"] == register.NOT_KNOWN


def test_what_was_collected_from_the_web_or_not_published_cannot_be_told(nih):
    other = verdicts(models.published_models(), replace(nih, sources=("PadChest",)))
    open_ended = {"clip_vit_b16", "chexzero", "biomedclip", "medimageinsight"}
    assert set(other.index[other == "cannot be told"]) == open_ended
    assert (other.drop(list(open_ended)) == "no shared source known").all()
    assert (verdicts(models.published_models(), replace(nih, sources=())) == "cannot be told").all()


def test_seeded_weights_have_seen_nothing(nih):
    [row] = leaks(["seeded:cxr_clip_swin"], nih).to_dict("records")
    assert row == {
        "model": "seeded:cxr_clip_swin",
        "pretrained_on": "nothing",
        "shared": "none",
        "verdict": "trained on nothing",
    }


def test_phantom_patients_of_the_training_are_told_from_others():
    """Against the patients themselves: those that the training of the small models drew."""
    seed = models.model_cards()[0]["cohort_seed"]
    training = cohorts.load("phantom", n_images=12000, seed=seed, split="train").table["patient_id"]
    for other_seed in (seed, 1907):
        for split in ("train", "test"):
            cohort = cohorts.load("phantom", n_images=2000, seed=other_seed, split=split)
            # The same row of the metadata under another seed is another person.
            both = other_seed == seed and cohort.table["patient_id"].isin(training).any()
            expected = register.SHARED if both else register.APART
            assert set(verdicts(models.model_names(), cohort)) == {expected}, (other_seed, split)
    assert set(verdicts(models.model_names(), cohorts.load("phantom-6x200"))) == {register.APART}


def test_twins_keep_the_sources_of_their_cohort():
    from cxrlib.cohorts import phantom

    cohort = cohorts.load("phantom", n_images=30)
    assert phantom.twin(cohort, drain=1).sources == cohort.sources == ("phantom",)


def test_every_card_spells_its_sources_alike():
    cards = [tomllib.loads(path.read_text()) for path in CARDS.glob("*.toml")]
    assert {source for card in cards for source in card["sources"]} <= SOURCES
    for card in cards:
        # An empty list would read as trained on nothing that anybody could share.
        assert card["sources"] or card["sources_complete"] is False, card["name"]


def test_columns():
    table = leaks(models.model_names(), cohorts.load("phantom", n_images=30))
    assert list(table) == ["model", "pretrained_on", "shared", "verdict"]
    assert (table["pretrained_on"] == "phantom").all()

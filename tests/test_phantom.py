"""The phantom cohort: pure in its seed, and each dial moves what it should and nothing else."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxrlib import cohorts
from cxrlib.cohorts import metadata, phantom

BLOCKS = Path(__file__).with_name("phantom_blocks.json")
N = 400


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=N)


@pytest.fixture(scope="module")
def images(cohort):
    return cohort.images(np.arange(N))


def pixels(cohort):
    return cohort.images(np.arange(len(cohort.table)))


def test_another_process_draws_the_same_pixels_and_reports(cohort, images):
    code = (
        "import hashlib, numpy as np; from cxrlib import cohorts\n"
        f"c = cohorts.load('phantom', n_images={N})\n"
        f"print(hashlib.sha256(c.images(np.arange({N})).tobytes()).hexdigest(), c.fingerprint)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert printed == [hashlib.sha256(images.tobytes()).hexdigest(), cohort.fingerprint]


def test_other_platforms_draw_the_same_images_up_to_rounding(images):
    # Floating point differs in the last digits between processors: compare means of 8 x 8 blocks.
    blocks = images[:12].reshape(12, 8, 8, 8, 8).mean(axis=(2, 4))
    np.testing.assert_allclose(blocks, np.array(json.loads(BLOCKS.read_text())), atol=0.3)


def test_an_image_does_not_depend_on_its_neighbours(cohort, images):
    some = np.array([311, 5, 42])
    np.testing.assert_array_equal(cohort.images(some), images[some])


def test_fingerprint_ignores_row_order_and_notices_a_changed_label(cohort):
    from dataclasses import replace

    shuffled = replace(cohort, table=cohort.table.sample(frac=1, random_state=0))
    assert shuffled.fingerprint == cohort.fingerprint
    changed = cohort.table.copy()
    changed.loc[0, "Edema"] = 1 - changed.loc[0, "Edema"]
    assert replace(cohort, table=changed).fingerprint != cohort.fingerprint


def test_backbone_is_real(cohort):
    nih = metadata.nih().set_index("image_id").loc[cohort.table["image_id"]]
    for column in ("patient_id", "sex", "age", "view"):
        assert (nih[column].to_numpy() == cohort.table[column].to_numpy()).all()
    # Findings that NIH records are kept; the others are topped up.
    kept = cohort.table[list(phantom.FINDINGS)].to_numpy() >= nih[list(phantom.FINDINGS)].to_numpy()
    assert kept.all()


def test_no_seed_puts_a_patient_into_two_splits():
    patients = {s: set() for s in ("train", "valid", "test")}
    for split, found in patients.items():
        for seed in (1, 2):
            found |= set(
                cohorts.load("phantom", n_images=1500, seed=seed, split=split).table["patient_id"]
            )
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["valid"]
    assert not patients["valid"] & patients["test"]


def test_dials_reach_their_targets():
    dials = {
        "drain_if_pneumothorax": 0.7,
        "drain_if_none": 0.1,
        "prevalence": 0.2,
        "underreport": {"sex": {"F": 0.5}},
        "images_per_patient": 2,
    }
    t = cohorts.load("phantom", n_images=6000, dials=dials).table
    there = t["severity_Pneumothorax"] > 0
    assert t.loc[there, "drain"].mean() == pytest.approx(0.7, abs=0.05)
    assert t.loc[~there, "drain"].mean() == pytest.approx(0.1, abs=0.02)
    assert there.mean() == pytest.approx(0.2, abs=0.03)
    for sex, kept in (("F", 0.5), ("M", 1.0)):
        truth = t["sex"].eq(sex) & (t["severity_Edema"] > 0)
        assert t.loc[truth, "Edema"].mean() == pytest.approx(kept, abs=0.07)
    assert t.groupby("patient_id").size().max() == 2


def test_share_dial_changes_who_is_drawn():
    few = cohorts.load("phantom", n_images=2000, dials={"share": {"sex": {"F": 0.14, "M": 0.86}}})
    first = few.table.drop_duplicates("patient_id")
    assert (first["sex"] == "F").mean() == pytest.approx(0.14, abs=0.03)


def test_race_goes_with_site_only_as_far_as_its_dial():
    def agreement(strength):
        t = cohorts.load("phantom", n_images=4000, dials={"site_by_race": strength}).table
        own = t["race"].map(dict(zip(phantom.RACES, phantom.SITES, strict=True)))
        return (own == t["site"]).mean()

    assert agreement(1.0) == 1.0
    assert agreement(0.0) == pytest.approx(1 / 3, abs=0.04)


def test_without_site_signature_race_cannot_reach_the_image(cohort):
    off = phantom.twin(cohort, site_signature=0.0, site_by_race=0.0)
    tied = phantom.twin(cohort, site_signature=0.0, site_by_race=1.0)
    assert (off.table["site"] != tied.table["site"]).any()
    np.testing.assert_array_equal(pixels(off), pixels(tied))


def test_drain_twin_changes_only_a_narrow_track(cohort):
    without, with_drain = phantom.twin(cohort, drain=0), phantom.twin(cohort, drain=1)
    changed = pixels(without) != pixels(with_drain)
    share = changed.mean(axis=(1, 2))
    assert (share > 0).all()
    assert share.max() < 0.06
    same = [c for c in cohort.table if c not in ("drain", "report")]
    assert without.table[same].equals(with_drain.table[same])


def test_contrast_twin_changes_only_findings_of_that_group(cohort, images):
    old = cohort.table["age_group"].isin(["50-65", "65-80", "80+"])
    severity = cohort.table[[f"severity_{f}" for f in phantom.FINDINGS]]
    ill = (severity > 0).any(axis=1)
    changed = (pixels(phantom.twin(cohort, contrast={})) != images).any(axis=(1, 2))
    assert changed[old & ill].all()
    assert not changed[~(old & ill)].any()


def test_underreporting_changes_labels_and_no_pixel(cohort, images):
    silent = phantom.twin(cohort, underreport={"sex": {"F": 1.0}})
    np.testing.assert_array_equal(pixels(silent), images)
    women = silent.table["sex"] == "F"
    assert silent.table.loc[women, list(phantom.FINDINGS)].to_numpy().sum() == 0
    men = ~women
    assert silent.table.loc[men, list(phantom.FINDINGS)].equals(
        cohort.table.loc[men, list(phantom.FINDINGS)]
    )


def test_each_finding_shows(cohort):
    """Raising the prevalence from nothing to everything moves pixels in nearly every image."""
    none = phantom.twin(cohort, prevalence=0.0)
    for finding in phantom.FINDINGS:
        present = cohort.table[f"severity_{finding}"].to_numpy() > 0
        added = present & (none.table[f"severity_{finding}"].to_numpy() == 0)
        a, b = cohort.images(np.flatnonzero(added)), none.images(np.flatnonzero(added))
        assert (a != b).any(axis=(1, 2)).all(), finding


MENTION = {f: re.compile(rf"\b{f.lower()}\b") for f in phantom.FINDINGS}


def test_reports_agree_with_labels():
    table = cohorts.load("phantom", n_images=3000, dials={"underreport": {"sex": {"F": 0.5}}}).table
    for row in table.to_dict("records"):
        # An asserting sentence names the finding without "no"; edema can hide in other words.
        asserted = {
            f
            for f in phantom.FINDINGS
            for sentence in row["report"].lower().split(".")
            if MENTION[f].search(sentence) and not re.search(r"\bno\b", sentence)
        }
        expected = {f for f in phantom.FINDINGS if row[f] == 1}
        assert asserted == expected, row["report"]


def test_report_wording_varies_and_denies():
    reports = cohorts.load("phantom", n_images=2000).table["report"]
    assert reports.nunique() > 600
    assert reports.str.contains(r"\b[Nn]o pneumothorax\b").mean() > 0.02


def test_6x200_has_one_finding_an_image():
    cohort = cohorts.load("phantom-6x200")
    shown = (cohort.table[[f"severity_{f}" for f in phantom.FINDINGS]] > 0).sum(axis=1)
    assert len(cohort.table) == 1200
    assert (shown == 1).all()
    for disease, rows in cohort.table.groupby("disease"):
        assert (rows[disease] == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cohorts.load("phantm"), "did you mean 'phantom'"),
        (lambda: cohorts.load("phantom", n_images=10**6), "has .* images"),
        (lambda: cohorts.load("phantom", split="tset"), "expected one of train"),
        (lambda: cohorts.load("phantom", dials={"drains": 1}), "unknown dial 'drains'"),
        (lambda: cohorts.load("phantom", dials={"prevalence": 1.2}), "expected 0 to 1"),
        (lambda: cohorts.load("phantom", dials={"contrast": {"age": {"old": 1}}}), "unknown group"),
        (
            lambda: cohorts.load("phantom", dials={"contrast": {"race": {"Black": 1}}}),
            "through site",
        ),
        (lambda: phantom.twin(cohorts.load("phantom", n_images=50), share={}), "choose the rows"),
        (
            lambda: phantom.twin(cohorts.load("phantom", n_images=50), site="Z"),
            "site='Z': expected one of A, B, C",
        ),
    ],
)
def test_bad_input_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_too_small_an_image_is_refused(cohort):
    from cxrlib.cohorts import render

    scene = phantom.scene(cohort.table[:2], 1907, phantom.Dials())
    with pytest.raises(ValueError, match="32 pixels"):
        render.render(scene, 16)

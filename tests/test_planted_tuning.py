"""What was planted in the 6x200 cohort is found after fine-tuning, and nothing where nothing was.

The predictions are those of five rotations: each of the 1,200 images is predicted by a linear probe
that did not see its patient.
"""

from functools import cache

import pandas as pd
import pytest

from cxrlib import cohorts
from cxrlib.cohorts import nih6x200
from cxrlib.cohorts.nih6x200 import DISEASES
from cxrlib.embed.extract import embed, embed_text
from cxrlib.predict import finetune, repeats, zeroshot
from cxrlib.schema import row, side
from cxrlib.stats import fairness, inference

PAIRS = {"sex": [("F", "M")], "age60": [("old", "young")]}
PROBE = finetune.settings_for("linear probe", epochs=30)
DIALS = {
    "default": {},  # the shadows of the old are fainter
    "control": {"dials": {"contrast": {}}},
    "sex": {"dials": {"contrast": {"sex": {"F": 0.6}}}},
}


@cache
def pooled(which):
    """Zero-shot and linear probe on all images of a cohort, with the groups."""
    cohort = cohorts.load("phantom-6x200", **DIALS[which])
    task = finetune.Task(cohort, "phantom-resnet", DISEASES)
    splits = nih6x200.rotations(cohort.table["patient_id"], 5, seed=1907)
    repeats.check_groups(cohort.table, splits, list(PAIRS), "disease")
    seeds, settings = {"linear probe": [0]}, {"linear probe": PROBE}
    tuned = repeats.tune(task, list(seeds), splits, seeds, settings, keep=False)
    prompts = embed_text([f"Chest {disease}" for disease in DISEASES], task.model)
    cosines = zeroshot.similarity(embed(cohort, task.model), prompts)
    score = zeroshot.softmax(task.model.logit_scale * cosines)
    before = [
        zeroshot.one_hot_rows(
            cohort, at, task.model.name, "zero-shot", DISEASES, "disease", score[at]
        ).assign(split=k)
        for k, at in enumerate(split == "test" for split in splits)
    ]
    together = repeats.pooled(pd.concat([*before, tuned.predictions], ignore_index=True))
    return together.merge(cohort.table[["image_id", *PAIRS]], on="image_id")


@cache
def gaps(which):
    """Gaps of the linear probe, with the floor of an exactly fair one."""
    found = pooled(which)
    probe = found[found["method"] == "linear probe"]
    tests = inference.multiclass_gap_tests(probe, PAIRS, n_permutations=500, n_resamples=300)
    return tests[tests["metric"].isin(repeats.GAPS)]


def test_the_linear_probe_beats_zero_shot():
    found = fairness.multiclass_table(pooled("default"), [], baseline="zero-shot", n_resamples=300)
    gain = row(found, method="linear probe - zero-shot", metric="accuracy")
    assert gain["n"] == 1200
    assert side(gain) == "above" and gain["value"] < 0.1, gain["value"]


@pytest.mark.parametrize(
    ("which", "attribute", "other"), [("default", "age60", "sex"), ("sex", "sex", "age60")]
)
def test_a_planted_gap_is_found_by_its_own_attribute_alone(which, attribute, other):
    planted, none = (
        row(gaps(which), attribute=a, metric="f1_gap_signed") for a in (attribute, other)
    )
    assert side(planted) == "below"
    assert abs(planted["value"]) > planted["floor_p95"] and planted["p_value"] < 0.02
    assert abs(none["value"]) < none["floor_p95"] and side(none) == "around"


def test_the_control_cohort_shows_no_gap_beyond_its_floor():
    tests = gaps("control")
    assert len(tests) == 2 * len(repeats.GAPS) and tests["p_value"].notna().all()
    signed = tests[tests["metric"] == "f1_gap_signed"]
    assert (signed["value"].abs() < signed["floor_p95"]).all()
    assert signed.apply(side, axis=1).eq("around").all()
    assert inference.flagged(tests)["bh"] == 0

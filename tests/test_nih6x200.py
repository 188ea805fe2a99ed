"""The 6x200 recipe: its rule, its counts, its draw and its leakage."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.cohorts import metadata, nih6x200


@pytest.fixture(scope="module")
def nih():
    return metadata.nih()


@pytest.fixture(scope="module")
def counts(nih):
    return nih6x200.cell_counts(nih)


def test_the_single_finding_rule_reproduces_the_papers_exception(counts):
    assert counts.loc["Edema", ["old F", "old M"]].tolist() == [47, 53]


def test_counting_any_image_does_not(nih):
    any_count = nih6x200.cell_counts(nih, rule="any")
    assert any_count.loc["Edema", ["old F", "old M"]].tolist() == [195, 235]


def test_eleven_diseases_satisfy_the_rule_and_edema_is_not_among_them(counts):
    satisfies = set(counts.index[counts["satisfies"]])
    assert len(satisfies) == 11
    assert set(nih6x200.DISEASES) - satisfies == {"Edema"}
    assert set(metadata.FINDINGS) - satisfies == {"Edema", "Hernia", "Pneumonia"}


def test_cells_sum_to_the_images_with_one_finding(nih, counts):
    single = nih[nih[list(metadata.FINDINGS)].sum(axis=1) == 1]
    cells = ["young F", "young M", "old F", "old M"]
    assert counts[cells].to_numpy().sum() == len(single)
    # one cell counted by hand, apart from the grouping
    by_hand = (single["Hernia"] == 1) & (single["age"] < 60) & (single["sex"] == "M")
    assert counts.loc["Hernia", "young M"] == by_hand.sum()


def test_sixty_is_old():
    table = pd.DataFrame(
        {"image_id": ["a", "b"], "patient_id": [1, 2], "sex": "F", "age": [59, 60], "view": "PA"}
    )
    table[list(metadata.FINDINGS)] = 0
    table["Edema"] = 1
    assert nih6x200.eligible(table)["age60"].tolist() == ["young", "old"]


@pytest.mark.parametrize("split", ["patient", "image"])
@pytest.mark.parametrize("seed", [0, 1907])
def test_draw_has_the_papers_composition(nih, seed, split):
    cohort = nih6x200.draw(seed, split, nih)
    assert len(cohort) == 1200
    assert cohort["image_id"].is_unique
    sizes = cohort.groupby(["disease", "age60", "sex"]).size().to_dict()
    expected = {
        (disease, age60, sex): nih6x200.EXCEPTIONS.get((disease, age60, sex), 50)
        for disease in nih6x200.DISEASES
        for age60 in ("young", "old")
        for sex in ("F", "M")
    }
    assert sizes == expected
    findings = cohort[list(metadata.FINDINGS)]
    assert (findings.sum(axis=1) == 1).all()
    assert (findings.idxmax(axis=1) == cohort["disease"]).all()


def test_draw_repeats_with_its_seed_and_changes_with_another(nih):
    first = nih6x200.draw(3, table=nih)
    pd.testing.assert_frame_equal(first, nih6x200.draw(3, table=nih))
    assert set(first["image_id"]) != set(nih6x200.draw(4, table=nih)["image_id"])


def test_image_split_is_exactly_7_1_2(nih):
    parts = nih6x200.draw(0, "image", nih)["split"].value_counts()
    assert parts.to_dict() == {"train": 840, "valid": 120, "test": 240}


def test_patient_split_shares_no_patient_and_keeps_the_shares(nih):
    for seed in range(10):
        cohort = nih6x200.draw(seed, "patient", nih)
        assert (cohort.groupby("patient_id")["split"].nunique() == 1).all()
        share = cohort["split"].value_counts(normalize=True)
        for part, expected in nih6x200.FRACTIONS.items():
            assert share[part] == pytest.approx(expected, abs=0.01)
        assert nih6x200.leakage(cohort) == 0


def test_image_split_leaks_about_a_quarter(nih):
    varied = nih6x200.draws(range(20))
    assert varied["leakage"].min() >= 0.16
    assert varied["leakage"].max() <= 0.33
    assert varied["leakage"].mean() == pytest.approx(0.24, abs=0.02)
    assert varied["patients"].between(950, 1010).all()
    assert varied["AP Edema"].mean() == pytest.approx(0.9, abs=0.03)
    assert varied["AP Cardiomegaly"].mean() == pytest.approx(0.3, abs=0.03)


def test_leakage_counts_test_images_whose_patient_is_in_train():
    cohort = pd.DataFrame(
        {
            "patient_id": [1, 1, 2, 3, 3, 4],
            "split": ["train", "test", "test", "valid", "test", "train"],
        }
    )
    assert nih6x200.leakage(cohort) == pytest.approx(1 / 3)


def test_patients_larger_than_a_part_are_still_kept_whole():
    patient = np.repeat([0, 1, 2, 3], [60, 20, 15, 5])
    split = nih6x200.assign_split(patient, np.random.default_rng(0))
    assert (pd.Series(split).groupby(patient).nunique() == 1).all()


def test_wrong_arguments_are_named(nih):
    with pytest.raises(ValueError, match="rule must be 'single' or 'any', got 'none'"):
        nih6x200.eligible(nih, rule="none")
    with pytest.raises(ValueError, match="split must be 'patient' or 'image', got 'study'"):
        nih6x200.draw(0, split="study", table=nih)
    with pytest.raises(ValueError, match="the recipe needs 50 images with"):
        nih6x200.draw(0, table=nih.head(5000))
    with pytest.raises(ValueError, match="no 'test' row"):
        nih6x200.leakage(pd.DataFrame({"patient_id": [1], "split": ["train"]}))

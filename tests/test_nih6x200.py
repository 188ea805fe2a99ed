"""The 6x200 recipe: its rule, its counts, its draw and its leakage."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.cohorts import metadata, nih6x200
from cxrlib.cohorts.files import DataError

FRACTIONS = {"train": 0.7, "valid": 0.1, "test": 0.2}


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


@pytest.mark.parametrize(
    ("seed", "split", "fingerprint"),
    [
        (0, "patient", "065801ba11f7cc9f"),
        (0, "image", "86a1e2f3e0e75f8c"),
        (1907, "patient", "636139c2bd31393c"),
        (1907, "image", "9c36897631f88418"),
    ],
)
def test_a_draw_is_the_same_in_every_version(nih, seed, split, fingerprint):
    cohort = nih6x200.draw(seed, split, nih)
    assert nih6x200.fingerprint(cohort) == fingerprint
    assert nih6x200.fingerprint(cohort.sample(frac=1, random_state=0)) == fingerprint
    moved = cohort.assign(split=cohort["split"].replace("valid", "train"))
    assert nih6x200.fingerprint(moved) != fingerprint


def test_image_split_is_exactly_7_1_2(nih):
    parts = nih6x200.draw(0, "image", nih)["split"].value_counts()
    assert parts.to_dict() == {"train": 840, "valid": 120, "test": 240}


def test_patient_split_shares_no_patient_and_keeps_the_shares(nih):
    for seed in range(10):
        cohort = nih6x200.draw(seed, "patient", nih)
        assert (cohort.groupby("patient_id")["split"].nunique() == 1).all()
        share = cohort["split"].value_counts(normalize=True)
        for part, expected in FRACTIONS.items():
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


def split_in_floats(patient, generator, unit):
    """7:1:2 by the middle of each patient's share, in floating point."""
    groups = np.arange(len(patient)) if unit == "image" else pd.factorize(patient)[0]
    sizes = np.bincount(groups)
    order = generator.permutation(len(sizes))
    middle = np.empty(len(sizes))
    middle[order] = (np.cumsum(sizes[order]) - sizes[order] / 2) / len(patient)
    return np.array(["train", "valid", "test"])[np.searchsorted([0.7, 0.7 + 0.1], middle)][groups]


@pytest.mark.parametrize("unit", ["patient", "image"])
def test_rotations_test_each_image_once_whatever_the_patients(unit):
    rng = np.random.default_rng(0)
    for trial in range(300):
        images = rng.integers(1, 9, size=rng.integers(5, 60))
        patient = rng.permutation(np.repeat(np.arange(len(images)), images))
        splits = nih6x200.rotations(patient, 7, trial, unit)
        first = np.random.default_rng(trial)
        np.testing.assert_array_equal(splits[0], split_in_floats(patient, first, unit))
        np.testing.assert_array_equal(splits[5], split_in_floats(patient, first, unit))
        assert (np.sum([s == "test" for s in splits[:5]], axis=0) == 1).all()
        assert np.isin(np.sum([s == "train" for s in splits[:5]], axis=0), (3, 4)).all()
        if unit == "patient":
            for split in splits:
                assert (pd.Series(split).groupby(patient).nunique() == 1).all()


def test_rotations_of_images_are_slices_of_one_shuffled_list():
    n, seed = 1200, 3
    generator = np.random.default_rng(seed)
    splits = nih6x200.rotations(np.zeros(n), 10, seed, "image")
    for k, split in enumerate(splits):
        if k % 5 == 0:
            order = generator.permutation(n)
        turned = np.roll(order, (k % 5) * 240)
        assert set(turned[:840]) == set(np.flatnonzero(split == "train"))
        assert set(turned[840:960]) == set(np.flatnonzero(split == "valid"))
        assert set(turned[960:]) == set(np.flatnonzero(split == "test"))


def test_rotations_of_the_cohort_keep_patients_and_shares(nih):
    patient = nih6x200.draw(1907, table=nih)["patient_id"].to_numpy()
    splits = nih6x200.rotations(patient, 10, 1907)
    for split in splits:
        assert nih6x200.leakage(pd.DataFrame({"patient_id": patient, "split": split})) == 0
        for part, share in FRACTIONS.items():
            assert (split == part).mean() == pytest.approx(share, abs=0.01)
    for five in (splits[:5], splits[5:]):
        assert (np.sum([s == "test" for s in five], axis=0) == 1).all()
    assert (splits[0] != splits[5]).mean() > 0.2  # another shuffle
    for a, b in zip(splits, nih6x200.rotations(patient, 3, 1907), strict=False):
        np.testing.assert_array_equal(a, b)


def test_wrong_arguments_are_named(nih):
    with pytest.raises(ValueError, match="rule='none': expected one of single, any"):
        nih6x200.eligible(nih, rule="none")
    with pytest.raises(ValueError, match="split='study': expected one of patient, image"):
        nih6x200.draw(0, split="study", table=nih)
    with pytest.raises(ValueError, match="n_splits=0: expected 1 or more"):
        nih6x200.rotations([1, 2], 0, seed=0)
    with pytest.raises(ValueError, match="no 'test' row"):
        nih6x200.leakage(pd.DataFrame({"patient_id": [1], "split": ["train"]}))


# --- the recipe on other tables ------------------------------------------------------------------


@pytest.fixture(scope="module")
def other():
    """Two diseases and a device, three races, ages around 70; 40 images of a patient or fewer."""
    rng = np.random.default_rng(0)
    n = 4000
    table = pd.DataFrame(
        {
            "image_id": [f"i{k:04d}" for k in range(n)],
            "patient_id": rng.integers(0, 900, n),
            "sex": rng.choice(["F", "M"], n),
            "race": rng.choice(["White", "Black", None], n, p=[0.7, 0.2, 0.1]),
            "age": rng.integers(40, 100, n).astype(float),
        }
    )
    table.loc[:19, "age"] = np.nan
    table.loc[20:39, "age"] = 412
    for finding in ("A", "B", "C"):
        table[finding] = (rng.random(n) < 0.4).astype(int)
    return table


def test_any_labels_border_size_and_attributes(other):
    options = {"border": 70, "per_cell": 15, "attributes": ("race", "sex"), "findings": "ABC"}
    cohort = nih6x200.balanced(other, ["B", "A"], seed=5, **options)
    sizes = cohort.groupby(["disease", "age70", "race", "sex"]).size()
    assert len(sizes) == 2 * 2 * 2 * 2 and (sizes == 15).all()
    assert (cohort[["A", "B", "C"]].sum(axis=1) == 1).all()
    assert (cohort[["A", "B"]].idxmax(axis=1) == cohort["disease"]).all()
    assert ((cohort["age"] >= 70) == (cohort["age70"] == "old")).all()
    assert cohort["age"].max() <= 120  # neither missing nor impossible ages are drawn
    assert nih6x200.leakage(cohort) == 0
    again = nih6x200.balanced(other, ["B", "A"], seed=5, **options)
    assert nih6x200.fingerprint(again) == nih6x200.fingerprint(cohort)
    by_image = nih6x200.balanced(other, ["B", "A"], seed=5, unit="image", **options)
    assert set(by_image["image_id"]) == set(cohort["image_id"])
    assert nih6x200.leakage(by_image) > 0


def test_a_short_cell_is_stated_and_nothing_is_drawn(other):
    single = other[(other[["A", "B", "C"]].sum(axis=1) == 1) & other["age"].between(0, 120)]
    counts = {
        (label, old, sex): int(
            ((single[label] == 1) & (single["age"].ge(60) == old) & (single["sex"] == sex)).sum()
        )
        for label in "ABC"
        for old in (False, True)
        for sex in ("F", "M")
    }
    asked = sorted(counts.values())[2] + 1  # more than three of the twelve cells hold
    few = {cell: n for cell, n in counts.items() if n < asked}
    with pytest.raises(DataError, match=f"^{len(few)} of 12 cells hold fewer") as caught:
        nih6x200.balanced(other, "ABC", per_cell=asked, findings="ABC")
    for (label, old, sex), n in few.items():
        assert f"{label} {'old' if old else 'young'} {sex}: {n} of {asked}" in str(caught.value)
    assert f"pass per_cell={min(few.values())} or less" in str(caught.value)
    most = nih6x200.balanced(other, "ABC", per_cell=min(few.values()), findings="ABC")
    assert len(most) == 12 * min(few.values())


def test_a_cell_may_be_an_exception(other):
    sizes = {("A", "old", "F"): 3, ("C", "young", "M"): 21}
    cohort = nih6x200.balanced(other, "ABC", per_cell=10, exceptions=sizes, findings="ABC")
    drawn = cohort.groupby(["disease", "age60", "sex"]).size()
    assert drawn["A", "old", "F"] == 3 and drawn["C", "young", "M"] == 21
    assert drawn.sum() == 10 * 10 + 3 + 21


def test_another_size_than_the_papers_has_no_exceptions(nih):
    assert len(nih6x200.draw(0, table=nih, per_cell=40)) == 6 * 4 * 40


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ("AD", {}, "no finding 'D'; findings: A, B, C"),
        ("A", {"attributes": ("site",)}, "column 'site' is missing"),
        ("A", {"per_cell": 0}, "per_cell=0: expected 1 or more"),
        ("A", {"exceptions": {("A", "old", "X"): 3}}, "is no cell; cells are such as"),
        ("A", {"per_cell": 5, "unit": "study"}, "expected one of patient, image"),
    ],
)
def test_a_recipe_that_cannot_be_is_named(other, labels, options, words):
    with pytest.raises(ValueError, match=words):
        nih6x200.balanced(other, labels, findings="ABC", **options)

"""Devices and findings by group of patients, against counts made by hand."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.cohorts import associations, metadata


def test_by_group_is_the_association_of_each_group_alone():
    rng = np.random.default_rng(3)
    n = 600
    table = pd.DataFrame(
        {
            "patient_id": rng.integers(0, 250, n),
            "sex": rng.choice(["F", "M", None], n, p=[0.5, 0.4, 0.1]),
            "finding": rng.integers(0, 2, n),
        }
    )
    # the bond is planted in women only
    odds = np.where((table["sex"] == "F") & (table["finding"] == 1), 0.7, 0.2)
    table["drain"] = (rng.random(n) < odds).astype(int)
    got = associations.by_group(table, "drain", "finding", "sex").set_index(["group", "arm"])
    assert sorted(got.index.get_level_values("group").unique()) == ["F", "M"]
    for sex in "FM":
        part = table[table["sex"] == sex]
        for arm, value in (("with", 1), ("without", 0)):
            outcome = part.loc[part["finding"] == value, "drain"]
            row = got.loc[(sex, arm)]
            assert (row["n_positive"], row["n"]) == (outcome.sum(), len(outcome))
            assert row["value"] == pytest.approx(outcome.mean())
    assert got.loc[("F", "with - without"), "ci_low"] > 0.3
    assert got.loc[("M", "with - without"), "ci_low"] < 0.1
    with pytest.raises(ValueError, match="column 'race' is missing"):
        associations.by_group(table, "drain", "finding", "race")


def test_a_group_without_the_finding_has_no_share():
    table = pd.DataFrame(
        {"patient_id": [1, 2, 3, 4], "sex": list("FFMM"), "a": [1, 0, 1, 0], "b": [0, 0, 1, 0]}
    )
    got = associations.by_group(table, "a", "b", "sex").set_index(["group", "arm"])
    assert got.loc[("F", "with"), "n"] == 0
    assert np.isnan(got.loc[("F", "with"), "value"])
    assert np.isnan(
        got.loc[("F", "with - without"), ["value", "ci_low", "ci_high"]].astype(float)
    ).all()
    assert got.loc[("M", "with"), "value"] == 1


@pytest.mark.parametrize("by", ["sex", "age_group"])
def test_drains_of_padchest_by_group_add_up(by):
    got = associations.padchest_drains(by=by)
    table = metadata.padchest()
    known = table[table[by].notna()]
    counted = known[known["pneumothorax"] == 1].groupby(by)["drain"].agg(["sum", "size"])
    rows = got[got["arm"] == "with"].set_index("group")
    assert rows["n_positive"].to_dict() == counted["sum"].to_dict()
    assert rows["n"].to_dict() == counted["size"].to_dict()
    assert (got["ci_low"] <= got["value"]).all() and (got["value"] <= got["ci_high"]).all()


def test_ages_of_padchest_are_years_between_birth_and_study():
    path = metadata.wheel_file("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz")
    raw = pd.read_csv(path, usecols=["PatientBirth", "StudyDate_DICOM", "Pediatric"])
    table = metadata.padchest()
    expected = raw["StudyDate_DICOM"] // 10_000 - raw["PatientBirth"]
    pd.testing.assert_series_equal(table["age"], expected, check_names=False)
    assert table["age"].isna().sum() == 6
    # an independent column: films that the hospital marked as paediatric are of the young
    assert (table.loc[raw["Pediatric"] == "PED", "age"] < 18).mean() > 0.95


def test_devices_of_chexpert_by_age_of_one_finding():
    got = associations.chexpert_devices(findings=["Pneumothorax"], by="age_group")
    assert got["given"].unique().tolist() == ["Pneumothorax"]
    assert got["group"].unique().tolist() == list(metadata.AGE_GROUPS)
    raw = metadata.chexpert()
    old = raw[(raw["view"] != "lateral") & (raw["age"] >= 80) & (raw["Pneumothorax"] == 1)]
    row = got.set_index(["group", "arm"]).loc[("80+", "with")]
    assert (row["n_positive"], row["n"]) == ((old["Support Devices"] == 1).sum(), len(old))
    assert row["n_patients"] == old["patient_id"].nunique()

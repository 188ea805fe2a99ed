"""Open metadata: published sizes, agreement with the raw files, clustered proportions."""

import csv
import gzip
import io
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from cxrlib.cohorts import associations, metadata


@pytest.fixture(scope="module")
def nih():
    return metadata.nih()


@pytest.fixture(scope="module")
def raw_rows():
    """The NIH file read with the csv module, apart from pandas."""
    with gzip.open(metadata.wheel_file("Data_Entry_2017_v2020.csv.gz")) as file:
        return list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))


def test_nih_has_the_size_of_the_14_label_release(nih):
    assert len(nih) == 112_120
    assert nih["patient_id"].nunique() == 30_805
    assert nih["image_id"].is_unique
    assert nih.notna().drop(columns="age_group").all(axis=None)


def test_nih_rows_follow_the_raw_file(nih, raw_rows):
    assert nih["image_id"].tolist() == [row["Image Index"] for row in raw_rows]
    assert nih["age"].tolist() == [int(row["Patient Age"]) for row in raw_rows]
    assert nih["sex"].tolist() == [row["Patient Gender"] for row in raw_rows]
    assert nih["view"].tolist() == [row["View Position"] for row in raw_rows]


def test_nih_findings_follow_the_raw_label_strings(nih, raw_rows):
    ours_of = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
    expected = Counter()
    for row in raw_rows:
        for name in row["Finding Labels"].split("|"):
            expected[ours_of.get(name, name)] += 1
    without = expected.pop("No Finding")
    assert nih[list(metadata.FINDINGS)].sum().to_dict() == dict(expected)
    assert (nih[list(metadata.FINDINGS)].sum(axis=1) == 0).sum() == without
    assert (nih[list(metadata.FINDINGS)].dtypes == np.int8).all()


def test_changing_the_returned_table_leaves_the_next_one_whole(nih):
    mine = metadata.nih()
    mine["age"] = 0
    assert metadata.nih()["age"].equals(nih["age"])


def test_the_file_of_2017_reads_as_the_one_of_2020(tmp_path, raw_rows):
    """Ages with units, commas at the ends of lines, and the newer name of the column of sexes."""
    odd = {0: "412Y", 1: "006M", 2: "013D", 3: "018M", 4: "000Y"}
    lines = [",".join(raw_rows[0]).replace("Patient Gender", "Patient Sex") + ","]
    for i, row in enumerate(raw_rows[:40]):
        age = odd.get(i, f"{int(row['Patient Age']):03d}Y")
        lines.append(",".join((row | {"Patient Age": age}).values()) + ",")
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text("\n".join(lines))
    expected = metadata.nih().head(40)
    expected.loc[:4, "age"] = [412, 0, 0, 1, 0]
    expected["age_group"] = metadata.age_group(expected["age"])
    pd.testing.assert_frame_equal(metadata.read_nih(path), expected)


def test_age_groups_are_left_closed_and_missing_outside():
    groups = metadata.age_group([0, 17, 18, 24, 25, 49, 50, 64, 65, 79, 80, 120, 121, 411])
    expected = [None, None, "18-25", "18-25", "25-50", "25-50", "50-65", "50-65"]
    expected += ["65-80", "65-80", "80+", "80+", None, None]
    assert [None if pd.isna(g) else g for g in groups] == expected


def test_impossible_ages_are_reported_and_none_is_left_in_this_release(nih):
    assert metadata.impossible_ages(nih).empty
    table = pd.DataFrame({"age": [-1, 0, 120, 121, 411]}, index=list("abcde"))
    assert metadata.impossible_ages(table).index.tolist() == ["a", "d", "e"]


def test_flow_leaves_out_children_and_nobody_else(nih):
    flow = metadata.nih_flow()
    assert flow["images"].tolist()[:2] == [112_120, 112_120]
    assert flow["images"].iloc[2] == (nih["age"] >= 18).sum()
    assert flow["patients"].iloc[2] == nih.loc[nih["age"] >= 18, "patient_id"].nunique()


def test_reading_metadata_imports_neither_torchxrayvision_nor_torch():
    code = (
        "import sys; from cxrlib.cohorts import metadata; metadata.nih(); "
        "print(sorted({'torch', 'torchxrayvision'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_unknown_wheel_file_is_named():
    with pytest.raises(ValueError, match=r"no data file 'nothing\.csv'"):
        metadata.wheel_file("nothing.csv")


def test_padchest_drain_counts():
    table = metadata.padchest()
    assert len(table) == 160_861
    assert pd.crosstab(table["pneumothorax"], table["drain"]).to_numpy().tolist() == [
        [159_776, 512],
        [464, 109],
    ]
    # hydropneumothorax is a pneumothorax with fluid: counted once, inside pneumothorax
    assert (table["hydropneumothorax"] <= table["pneumothorax"]).all()
    assert table["hydropneumothorax"].sum() == 48


def test_chexpert_training_rows():
    table = metadata.chexpert()
    assert len(table) == 223_414
    assert (table["Support Devices"] == 1).sum() == 116_001
    assert (table["view"] == "lateral").sum() == 32_387
    assert table["patient_id"].nunique() == 64_540


# --- proportions over patients -------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 12), (3, 40), (40, 40), (97, 200)])
def test_proportion_of_one_image_patients_is_wilson(k, n):
    outcome = np.arange(n) < k
    got = associations.proportion(outcome, np.arange(n))
    wilson = binomtest(k, n).proportion_ci(method="wilson")
    # one image a patient: the design effect is n / (n - 1), Wilson with n - 1 images
    assert got["design_effect"] == pytest.approx(n / (n - 1) if 0 < k < n else 1)
    assert got["ci_low"] == pytest.approx(wilson.low, abs=0.003)
    assert got["ci_high"] == pytest.approx(wilson.high, abs=0.003)


def test_identical_images_of_a_patient_add_no_information():
    outcome = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0, 0] * 5)
    patient = np.arange(50)
    once = associations.proportion(outcome, patient)
    thrice = associations.proportion(np.repeat(outcome, 3), np.repeat(patient, 3))
    for key in ("value", "ci_low", "ci_high"):
        assert thrice[key] == pytest.approx(once[key])
    assert thrice["design_effect"] == pytest.approx(3 * once["design_effect"])


def test_association_agrees_with_a_patient_bootstrap():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(400), rng.integers(1, 6, 400))
    ill = rng.random(400)[patient] < 0.3
    drain = rng.random(400)[patient] < np.where(ill, 0.5, 0.1)
    finding = ill & (rng.random(len(patient)) < 0.8)
    table = pd.DataFrame(
        {"patient_id": patient, "drain": drain.astype(int), "finding": finding.astype(int)}
    )
    got = associations.association(table, "drain", "finding").set_index("group")

    counts = np.zeros((400, 4))  # images, by patient, in the four finding x drain cells
    np.add.at(counts, (patient, 2 * table["finding"] + table["drain"]), 1)
    total = counts[rng.integers(0, 400, (2000, 400))].sum(axis=1)
    replicates = {
        "with": total[:, 3] / (total[:, 2] + total[:, 3]),
        "without": total[:, 1] / (total[:, 0] + total[:, 1]),
    }
    replicates["with - without"] = replicates["with"] - replicates["without"]
    for group, values in replicates.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert got.loc[group, "ci_low"] == pytest.approx(low, abs=0.02)
        assert got.loc[group, "ci_high"] == pytest.approx(high, abs=0.02)


def test_padchest_association_is_the_count_ratio_and_excludes_chance():
    got = associations.padchest_drains().set_index("group")
    assert got.loc["with", "value"] == pytest.approx(109 / 573)
    assert got.loc["without", "value"] == pytest.approx(512 / 160_288)
    assert got.loc["with - without", "ci_low"] > 0
    assert (got["n_patients"] < got["n"]).all()
    by_hand = associations.padchest_drains(frontal_only=True, read_by_hand_only=True)
    assert by_hand["n"].iloc[2] < associations.padchest_drains(frontal_only=True)["n"].iloc[2]


def test_devices_without_a_finding_are_rarer_than_with_pneumothorax():
    got = associations.chexpert_devices().set_index(["given", "group"])
    assert len(got) == 39
    raw = metadata.chexpert()
    raw = raw[raw["view"] != "lateral"]
    shown = raw[raw["Pneumothorax"] == 1]["Support Devices"] == 1
    row = got.loc[("Pneumothorax", "with")]
    assert (row["n_positive"], row["n"]) == (shown.sum(), len(shown))
    assert row["ci_low"] > got.loc[("No Finding", "with"), "ci_high"]


def test_association_refuses_uncoded_labels():
    table = pd.DataFrame({"patient_id": [1, 2], "a": [0, -1], "b": [0, 1]})
    with pytest.raises(ValueError, match="column 'a' must hold only 0 and 1"):
        associations.association(table, "a", "b")
    with pytest.raises(ValueError, match="column 'c' is missing"):
        associations.association(table, "c", "b")


def test_proportion_without_images_is_undefined():
    got = associations.proportion([], [])
    assert got["n"] == 0
    assert np.isnan([got["value"], got["ci_low"], got["ci_high"]]).all()


def test_prevalence_counts_images_in_each_group(nih):
    got = associations.prevalence(nih, ["Edema", "Hernia"], "age_group")
    assert got["group"].tolist() == sorted(metadata.AGE_GROUPS) * 2
    row = got.set_index(["label", "group"]).loc[("Edema", "80+")]
    old = nih[nih["age"] >= 80]
    assert (row["n_positive"], row["n"]) == (old["Edema"].sum(), len(old))
    assert row["n_patients"] == old["patient_id"].nunique()
    with pytest.raises(ValueError, match="column 'race' is missing"):
        associations.prevalence(nih, ["Edema"], "race")

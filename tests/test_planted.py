"""What is planted in a phantom is counted back, seen between twins, and missed where it is not."""

from dataclasses import replace

import numpy as np
import pytest

from cxrlib import cohorts
from cxrlib.cohorts import phantom, planted

SET = {"site_by_race": 1.0, "drain_if_none": 0.0, "contrast": {"sex": {"F": 0.5}}}


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=200, size=32, dials=SET)


def test_dials_are_told_group_by_group(cohort):
    told = planted.dials(cohort).set_index(["dial", "group"])["set to"]
    assert told["contrast"].to_dict() == {"sex F": "0.5"}
    assert (told["site_by_race", ""], told["underreport", ""]) == ("1", "none")
    assert planted.turned(cohort) == ["drain_if_none", "contrast", "site_by_race"]
    assert planted.turned(cohorts.load("phantom", n_images=60)) == []


def test_planted_shares_are_counted_over_patients(cohort):
    found, table = planted.counted(cohort).set_index("share of"), cohort.table
    ill = table["severity_Pneumothorax"] > 0
    assert found["value"]["drains with a pneumothorax"] == table["drain"][ill].mean()
    at_own = found.loc["patients at the site of their race"]
    assert (at_own["planted"], at_own["value"], at_own["n"]) == (
        1,
        1,
        table["patient_id"].nunique(),
    )
    assert found["planted"]["drains without one"] == found["value"]["drains without one"] == 0


@pytest.mark.parametrize(
    ("dials", "rows", "verdicts"),
    [
        ({}, slice(None), ["found", "found", "found"]),
        ({"drain_if_none": 0.5, "site_by_race": 0.0}, slice(None), ["found", "missed", "missed"]),
        ({}, slice(0), ["undefined", "undefined", "undefined"]),
    ],
)
def test_a_share_that_is_not_there_is_missed(cohort, dials, rows, verdicts):
    told = replace(
        cohort,
        table=cohort.table.iloc[rows],
        recipe=cohort.recipe | {"dials": cohort.recipe["dials"] | dials},
    )
    assert planted.counted(told)["verdict"].tolist() == verdicts


def test_twins_change_what_they_should_and_strays_are_counted(cohort):
    table, switches = cohort.table, planted.switches(cohort)
    ill = (table.filter(like="severity_") > 0).any(axis=1)
    women = ill & (table["sex"] == "F")
    assert switches["no fading"][1].equals(women)
    meant = switches["no drains"][1]
    wrong = meant.where(~(meant & (meant.cumsum() == 1)), False)  # one is not expected to change
    switches["one too few"] = (switches["no drains"][0], wrong)
    found = planted.reached(cohort, switches).set_index("change")
    assert found["meant to change"].equals(found["of these changed"])
    assert found["others changed"].tolist() == [0, 0, 0, 1]
    images = cohort.images(range(len(table))).astype(int)
    shift = np.abs(phantom.twin(cohort, contrast={}).images(range(len(table))) - images)
    assert found["mean shift"]["no fading"] == pytest.approx(shift[women].mean())
    assert found["clearest"]["no fading"] == shift.sum(axis=(1, 2)).argmax()

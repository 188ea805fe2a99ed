"""Probes find what was planted and nothing else; splits never share a patient."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.neighbors import KNeighborsClassifier

from cxrlib.protocol import protocol_of
from cxrlib.stats import probes


@pytest.fixture(scope="module")
def cohort():
    """1,200 images of 600 patients; sex is in the embedding, race is not."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 600, 1200)
    sex = rng.integers(0, 2, 600)[patient]
    age = rng.integers(0, 3, 600)[patient]
    table = pd.DataFrame(
        {
            "patient_id": patient,
            "sex": np.where(sex, "F", "M"),
            "age_group": np.array(["25-50", "50-65", "65-80"])[age],
            "race": np.array(["White", "Black", None])[rng.integers(0, 3, 600)[patient]],
        }
    )
    own = rng.normal(size=(600, 16))[patient]  # images of one patient resemble each other
    z = own + rng.normal(size=(1200, 16))
    z[:, 0] += 3 * sex
    z[:, 1] += 2 * age
    return table, z.astype(np.float32)


def test_split_shares_no_patient(cohort):
    table, _ = cohort
    parts = probes.patient_split(table["patient_id"])
    patients = [set(table["patient_id"].iloc[part]) for part in parts]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert sorted(np.concatenate(parts)) == list(range(1200))
    share = len(patients[2]) / table["patient_id"].nunique()
    assert share == pytest.approx(0.2, abs=0.01)


def test_split_is_that_of_the_published_protocol():
    """Rows found by running the code of S, with the inner positions mapped to the right rows."""
    train, valid, test = probes.patient_split((np.arange(60) // 3) % 17)
    assert test.tolist() == [*range(21, 30), 45, 46, 47]
    assert train.tolist() == [*range(12), *range(15, 21), *range(36, 45), *range(48, 60)]
    assert valid.tolist() == [12, 13, 14, *range(30, 36)]


@pytest.mark.parametrize("method", ["linear", "knn", "mlp"])
def test_planted_attributes_are_found_and_absent_ones_are_not(cohort, method):
    table, z = cohort
    found = probes.probe_table({"m": z}, table, methods=(method,), n_resamples=100)
    found = found.set_index("label")
    assert found.loc["sex", "value"] > 0.75 and found.loc["sex", "ci_low"] > 0.6
    assert found.loc["age_group", "value"] > 0.6
    race = found.loc["race"]
    assert race["ci_low"] - 0.05 < 0.5 < race["ci_high"] + 0.05
    assert found[["n", "n_positive", "n_patients"]].notna().all().all()
    assert (found["n_patients"] < found["n"]).all()
    assert race["n"] < found.loc["sex", "n"]  # images without a race are left out


def test_macro_auc_equals_scikit_learn(cohort):
    table, z = cohort
    names, y = np.unique(table["age_group"], return_inverse=True)
    probe = probes._untrained("penalised", "linear", 1.0, 0).fit(z[:600], y[:600])
    expected = roc_auc_score(y[600:], probe.predict_proba(z[600:]), multi_class="ovr")
    score = probes._scores(probe, z[600:], 3)
    assert probes._macro_auc(y[600:], score) == pytest.approx(expected, abs=1e-12)
    assert len(names) == 3


def test_tuning_as_published_equals_a_plain_loop(cohort):
    """k-NN as S's code tunes it: positions within train_val index the full matrix."""
    table, z = cohort
    y = (table["sex"] == "F").to_numpy(int)
    patient = table["patient_id"].to_numpy()
    splitter = GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=1907)
    rest, test = next(splitter.split(patient, groups=patient))
    train, valid = next(splitter.split(rest, groups=patient[rest]))
    tuned = {}
    for k in range(1, 22, 2):
        wrong = KNeighborsClassifier(k).fit(z[train], y[rest][train])
        tuned[k] = roc_auc_score(y[rest][valid], wrong.predict_proba(z[valid])[:, 1])
    best = KNeighborsClassifier(max(tuned, key=tuned.get)).fit(z[rest], y[rest])
    expected = roc_auc_score(y[test], best.predict_proba(z[test])[:, 1])

    found = probes.probe_table({"m": z}, table, ("sex",), ("knn",), "as_published", n_resamples=9)
    row = found.loc[0]
    assert row["value"] == pytest.approx(expected, abs=1e-12)
    assert (row["protocol"], row["unit"], row["n"]) == ("as_published", "image", len(test))


@pytest.mark.parametrize("method", ["linear", "mlp"])
def test_published_heads_find_what_was_planted(cohort, method, monkeypatch):
    """The first of the published settings of each head, to be quick."""
    table, z = cohort
    grid = probes.HEADS["published"][method]
    monkeypatch.setitem(probes.HEADS["published"], method, grid[:1])
    p = replace(protocol_of("corrected"), probe_heads="published")
    found = probes.probe_table({"m": z}, table, ("sex",), (method,), p, n_resamples=50)
    assert found.loc[0, "value"] > 0.75 and found.loc[0, "unit"] == "patient"


def test_small_groups_are_named_and_single_groups_undefined(cohort):
    table, z = cohort
    rare = table.assign(sex=table["sex"].where(table["patient_id"] > 3, "unknown"))
    found = probes.probe_table({"m": z}, rare, ("sex",), ("linear",), n_resamples=20)
    assert found.loc[0, "note"] == "left out, fewer than 20 patients: unknown"
    alone = probes.probe_table({"m": z}, table.assign(sex="F"), ("sex",), ("linear",))
    assert np.isnan(alone.loc[0, "value"]) and "1 group" in alone.loc[0, "note"]


def test_centroids_and_projection_equal_the_published_protocol():
    """A case computed with the code of S."""
    rng = np.random.Generator(np.random.PCG64(1))
    images, texts = rng.standard_normal((20, 6)), rng.standard_normal((20, 6))
    texts += [1, 0, 0, -0.5, 0, 0]
    np.testing.assert_allclose(
        probes.centroid_differences(images, texts),
        [0.7742221, 0.4572777, 0.3156169, 0.2407367, 0.1143379, 0.07605277],
        rtol=1e-6,
    )
    (joint, _), _ = probes.project(images, texts)
    np.testing.assert_allclose(np.abs(joint[0]), [0.06690731, 1.342378], rtol=1e-6)
    alone, explained = probes.project(images)
    np.testing.assert_allclose(np.abs(alone[0]), [1.001707, 0.2310596], rtol=1e-6)
    assert explained[0] >= explained[1] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("svm",)}, "methods='svm': expected one of linear, knn, mlp"),
        ({"attributes": ("site",)}, "column 'site' is missing"),
        ({"embeddings": {"m": np.zeros((3, 2))}}, "'m' has 3 rows, the table 1200"),
    ],
)
def test_bad_input_is_named(cohort, change, message):
    table, z = cohort
    with pytest.raises(ValueError, match=message):
        probes.probe_table(**{"embeddings": {"m": z}, "table": table} | change)


def test_unknown_switches_are_named():
    with pytest.raises(ValueError, match="tuning='some': expected one of matched, mismatched"):
        probes.tuning_rows(np.arange(3), np.arange(3, 5), "some")
    with pytest.raises(ValueError, match="axes='joint': expected one of own, mixed"):
        probes.image_panel(np.eye(4), np.eye(4), axes="joint")


def test_tuning_on_the_rows_of_s_changes_the_choice_and_not_the_features():
    rng = np.random.default_rng(0)
    sex = np.repeat(["F", "M"], 60)
    x = rng.normal(size=(120, 4)) + 2 * (sex == "M")[:, None]
    table = pd.DataFrame({"image_id": range(120), "patient_id": range(120), "sex": sex})
    found = probes.tuning_compared(x, table.sample(frac=1, random_state=0), "sex", "knn", (1, 2))
    assert len(found) == 2 and (found[["own", "test"]] < 0.9).all(axis=None)
    found = probes.tuning_compared(x, table, "sex", "knn", (1, 2))
    assert (found[["matched", "mismatched"]] > 0.9).all(axis=None)


# --- maps and distances ----------------------------------------------------------------------


def test_the_better_axis_is_found_either_way_round_and_small_groups_are_undefined(cohort):
    table, z = cohort
    points = np.column_stack([z[:, 2], -z[:, 0]])  # sex is on the second axis, turned round
    is_woman = table["sex"].map({"F": 1, "M": 0}).where(table["race"].notna())
    few = np.arange(len(table)) < 5
    found = probes.best_axis(
        points,
        {"women": is_woman, "few": few},
        table["patient_id"],
        protocol="as_published",
        n_resamples=5,
    ).set_index("label")
    known = is_woman.notna()
    expected = roc_auc_score(is_woman[known], z[known, 0])
    assert found["value"]["women"] == pytest.approx(expected)
    assert found["n"]["women"] == known.sum() and found["ci_low"]["women"] > 0.5
    assert np.isnan(found["value"]["few"]) and "fewer than 10" in found["note"]["few"]


def test_spreads_are_those_of_pandas_without_small_groups(cohort):
    table, z = cohort
    group = table["sex"].where(table["patient_id"] > 8, "few")
    shapes, spreads = probes.group_spreads(z[:, :2], table["patient_id"], {"sex": group})
    assert set(shapes["sex"]) == set(spreads["group"]) == {"F", "M"}
    for axis in (0, 1):
        rows = spreads[spreads["axis"] == str(axis + 1)].set_index("group")
        by_sex = pd.Series(z[:, axis]).groupby(group.to_numpy())
        assert rows["mean"].to_dict() == pytest.approx(
            by_sex.mean().drop("few").to_dict(), abs=1e-5
        )
        spread = by_sex.std(ddof=0).drop("few").to_dict()
        assert rows["standard deviation"].to_dict() == pytest.approx(spread, abs=1e-5)
    _, covariance = shapes["sex"]["F"]
    women = z[(group == "F").to_numpy(), :2]
    assert covariance == pytest.approx(pd.DataFrame(women).cov().to_numpy(), abs=1e-5)


def test_distances_of_groups_beside_those_of_random_halves(cohort):
    table, z = cohort
    pairs = {"sexes": ("sex", "F", "M"), "absent": ("site", "A", "B"), "few": ("sex", "F", "X")}
    found = probes.group_differences(z, z + 1, table, pairs)
    assert list(found) == ["image, text", "sexes", "random halves"]
    rows = probes.concentration(found).set_index("centroids of")
    assert rows["distance"]["image, text"] == pytest.approx(4)  # 16 dimensions, one apart in each
    share = rows["share of the largest tenth"]
    assert share["image, text"] == pytest.approx(1 / 16, rel=1e-5)
    assert rows["distance"]["sexes"] == pytest.approx(3, abs=0.3) and share["sexes"] > 0.9
    assert rows["distance"]["random halves"] < 1

"""The vectorised bootstrap against plain loops, and its intervals against theory."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from cxrlib import bootstrap, metrics


@pytest.fixture
def clustered():
    """180 images of 70 patients, tied scores, whole cohort in random order."""
    rng = np.random.default_rng(5)
    patient = rng.integers(0, 70, 180)
    y = (rng.random(180) < 0.2).astype(int)
    return patient, y, np.round(rng.normal(size=180) + y, 1)


def test_vectorised_bootstrap_equals_a_loop_over_the_same_draws(clustered):
    patient, y, score = clustered
    weights = bootstrap.patient_weights(patient, 40, seed=3)
    found = bootstrap.replicates(lambda w: metrics.ranking(y, score, w), weights)

    rng = np.random.default_rng(3)  # the draws once more, patient by patient, image by image
    patients = pd.unique(patient)
    images = [np.flatnonzero(patient == p) for p in patients]
    for b in range(40):
        drawn = np.concatenate([images[k] for k in rng.integers(len(patients), size=len(patients))])
        auc = sklearn.metrics.roc_auc_score(y[drawn], score[drawn])
        ap = sklearn.metrics.average_precision_score(y[drawn], score[drawn])
        assert found["auc"][b] == pytest.approx(auc, abs=1e-12)
        assert found["average_precision"][b] == pytest.approx(ap, abs=1e-12)
        assert found["adjusted_auprc"][b] == pytest.approx(
            1 - np.log(ap) / np.log(y[drawn].mean()), abs=1e-12
        )


def test_all_images_of_a_patient_are_drawn_together(clustered):
    patient, _, _ = clustered
    weights = bootstrap.patient_weights(patient, 50)
    one_each = pd.DataFrame(weights.T).groupby(patient).agg(["min", "max"])
    for b in range(50):
        assert (one_each[b]["min"] == one_each[b]["max"]).all()
        assert one_each[b]["min"].sum() == len(one_each)  # as many patients as there are


def test_image_unit_draws_as_many_images_as_there_are():
    weights = bootstrap.patient_weights(["a", "a", "b"], 20, unit="image")
    assert (weights.sum(axis=1) == 3).all()
    assert (weights[:, 0] != weights[:, 1]).any()


def test_draws_depend_on_the_seed_only():
    patient = np.arange(30)
    few, many = (bootstrap.patient_weights(patient, b, seed=1) for b in (5, 9))
    np.testing.assert_array_equal(few, many[:5])
    assert (few != bootstrap.patient_weights(patient, 5, seed=2)).any()


def test_chunks_change_nothing(clustered, monkeypatch):
    patient, y, score = clustered
    weights = bootstrap.patient_weights(patient, 30)
    rows = np.arange(20, 160)
    statistic = lambda w: metrics.auc(y[rows], score[rows], w)  # noqa: E731
    whole = bootstrap.replicates(statistic, weights, rows)
    monkeypatch.setattr(bootstrap, "CHUNK", 300)
    np.testing.assert_array_equal(bootstrap.replicates(statistic, weights, rows), whole)


def test_interval_is_the_percentile_interval():
    values = np.arange(1001.0)
    found = bootstrap.interval(500, values, level=0.9)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((50, 950))
    assert found["n_replicates"] == 1001 and found["note"] == ""


def test_interval_says_what_is_missing():
    half = np.r_[np.linspace(0, 1, 50), np.full(50, np.nan)]
    assert bootstrap.interval(0.5, half)["note"] == "only 50 of 100 resamples usable"
    none = bootstrap.interval(0.5, np.full(10, np.nan))
    assert np.isnan(none["ci_low"]) and "no interval" in none["note"]
    undefined = bootstrap.interval(np.nan, np.arange(10.0))
    assert np.isnan(undefined["ci_high"]) and undefined["note"]


def test_intervals_cover_and_clustering_widens_them():
    """Standard error of a mean of clustered values: sqrt(between / m + within / (m k))."""
    rng = np.random.default_rng(0)
    m, k = 400, 5
    patient = np.repeat(np.arange(m), k)
    x = np.repeat(rng.normal(size=m), k) + 0.5 * rng.normal(size=m * k)
    spread = {
        unit: metrics.weighted_mean(x, bootstrap.patient_weights(patient, 800, unit=unit)).std()
        for unit in ("patient", "image")
    }
    assert spread["patient"] == pytest.approx(np.sqrt(1 / m + 0.25 / (m * k)), rel=0.15)
    assert spread["image"] == pytest.approx(np.sqrt(1.25 / (m * k)), rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patient_id": ["a"], "unit": "study"}, "unit: 'study'; expected 'patient' or 'image'"),
        ({"patient_id": []}, "patient_id: empty"),
        ({"patient_id": ["a", None]}, "patient_id: missing in 1 rows, first in row 1"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap.patient_weights(**arguments)

"""The vectorised bootstrap against plain loops, and its intervals against theory."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics

from cxrlib.stats import bootstrap, metrics
from cxrlib.stats.ranking import ranker


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
    found = metrics.ranking(y, score, weights)

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
    drawn = bootstrap.Resamples(patient, 30)
    auc = {"": ranker(y[20:160], score[20:160], np.arange(20, 160))}
    whole = bootstrap.evaluate(auc, drawn)["", "auc"]
    monkeypatch.setattr(bootstrap, "CHUNK", 300)
    assert sum(1 for _ in bootstrap.Resamples(patient, 30).chunks()) > 1
    np.testing.assert_array_equal(bootstrap.patient_weights(patient, 30), weights)
    again = bootstrap.evaluate(auc, drawn)["", "auc"]
    for of_chunks, at_once in zip(again, whole, strict=True):
        np.testing.assert_array_equal(of_chunks, at_once)
    expected = metrics.auc(y[20:160], score[20:160], weights[:, 20:160])
    np.testing.assert_allclose(again.replicates, expected, rtol=0, atol=1e-14)


def test_all_statistics_are_evaluated_on_the_same_resamples(clustered):
    patient, y, score = clustered
    women = np.arange(180) % 2 == 0
    at = {"women": np.flatnonzero(women), "men": np.flatnonzero(~women)}
    statistics = {g: ranker(y[rows], score[rows], rows) for g, rows in at.items()}
    found = bootstrap.evaluate(statistics, bootstrap.Resamples(patient, 25, seed=4), jackknife=True)
    for b, w in enumerate(bootstrap.patient_weights(patient, 25, seed=4)):
        gap = found["women", "auc"].replicates[b] - found["men", "auc"].replicates[b]
        of = {g: np.repeat(rows, w[rows]) for g, rows in at.items()}
        auc = {g: sklearn.metrics.roc_auc_score(y[d], score[d]) for g, d in of.items()}
        assert gap == pytest.approx(auc["women"] - auc["men"], abs=1e-12)
    of_men = sklearn.metrics.roc_auc_score(y[~women], score[~women])
    assert found["men", "auc"].value == pytest.approx(of_men, abs=1e-12)
    left_out = [
        sklearn.metrics.roc_auc_score(y[women & (patient != p)], score[women & (patient != p)])
        for p in pd.unique(patient)
    ]
    np.testing.assert_allclose(found["women", "auc"].jackknife, left_out, atol=1e-12)


def test_replicates_of_a_tiny_sample_have_the_distribution_of_all_possible_resamples():
    """Four patients, five images, a tie: all 4^4 resamples can be written down."""
    patient = np.array([0, 0, 1, 2, 3])
    y, score = np.array([1, 0, 1, 0, 0]), np.array([0.7, 0.7, 0.4, 0.5, 0.1])
    images = [np.flatnonzero(patient == p) for p in range(4)]
    exact = []
    for drawn in product(range(4), repeat=4):
        rows = np.concatenate([images[p] for p in drawn])
        one_class = len(set(y[rows])) == 1
        exact.append(np.nan if one_class else sklearn.metrics.roc_auc_score(y[rows], score[rows]))
    drawn = bootstrap.Resamples(patient, 20_000, seed=0)
    found = bootstrap.evaluate({"": ranker(y, score)}, drawn)["", "auc"].replicates
    for value in np.unique(np.round(exact, 9)):  # NaN is among them
        share, expected = (np.mean(np.isclose(x, value, equal_nan=True)) for x in (found, exact))
        # five standard errors of a share of 20,000 draws
        assert share == pytest.approx(expected, abs=5 * np.sqrt(expected / 20_000))


def test_many_patients_are_left_out_in_blocks_once_each():
    patient = np.repeat(np.arange(bootstrap.MAX_BLOCKS * 3), 2)
    weights = np.concatenate(list(bootstrap.Resamples(patient).jackknife()))
    assert len(weights) == bootstrap.MAX_BLOCKS
    assert ((weights == 0).sum(axis=0) == 1).all()
    assert (weights[:, ::2] == weights[:, 1::2]).all()


def test_bca_agrees_with_scipy():
    """A skewed sample, where BCa and percentile limits lie well apart."""
    x = np.random.default_rng(1).lognormal(size=40)
    mean = {"": lambda w: {"mean": metrics.weighted_mean(x, w)}}
    found = bootstrap.evaluate(mean, bootstrap.Resamples(np.arange(40), 20_000), jackknife=True)
    ours = bootstrap.interval(*found["", "mean"], method="bca")
    plain = bootstrap.interval(*found["", "mean"], method="percentile")
    theirs = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours["ci_low"] == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours["ci_high"] == pytest.approx(theirs.high, abs=0.03 * width)
    assert ours["ci_high"] - plain["ci_high"] > 0.06 * width


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
    same = bootstrap.interval(1.0, np.ones(10))
    assert (same["ci_low"], same["ci_high"]) == (1, 1) and "says nothing" in same["note"]
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


@pytest.mark.parametrize("n", [15, 40])
def test_expanded_interval_of_a_normal_mean_is_that_of_student(n):
    """Where the closed form is known, a few patients get Student's wider interval."""
    x = scipy.stats.norm.ppf((np.arange(n) + 0.5) / n)
    mean = {"": lambda w: {"mean": metrics.weighted_mean(x, w)}}
    found = bootstrap.evaluate(mean, bootstrap.Resamples(np.arange(n), 40_000))
    expanded = bootstrap.interval(*found["", "mean"])
    percentile = bootstrap.interval(*found["", "mean"], method="percentile")
    student = scipy.stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / np.sqrt(n)
    assert expanded["ci_high"] == pytest.approx(student, rel=0.07)
    assert expanded["ci_low"] == pytest.approx(-student, rel=0.07)
    assert percentile["ci_high"] < expanded["ci_high"] - 0.5 * (student - percentile["ci_high"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patient_id": ["a"], "unit": "study"}, "unit='study': expected one of patient, image"),
        ({"patient_id": []}, "patient_id: empty"),
        ({"patient_id": ["a", None]}, "patient_id: missing in 1 of 2 rows, first row 1"),
        ({"patient_id": ["a"], "n_resamples": 0}, "n_resamples: 0; expected a whole number"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap.Resamples(**arguments)


def test_bad_methods_are_named():
    with pytest.raises(
        ValueError, match="method='normal': expected one of expanded, percentile, bca"
    ):
        bootstrap.interval(0.5, np.ones(3), method="normal")
    with pytest.raises(ValueError, match="jackknife: missing"):
        bootstrap.interval(0.5, np.ones(3), method="bca")

"""Limits without resampling, beside resamples, closed forms and planted truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit

from cxrlib.protocol import protocol_of
from cxrlib.stats import analytic, bootstrap, fairness, inference, simulate
from cxrlib.stats import estimates as est

CORRECTED = protocol_of("corrected")
ANALYTIC = replace(CORRECTED, interval="analytic")
EVERY = ("auc", "average_precision", "adjusted_auprc", "brier", "calibration_in_the_large")
RATES = ("sensitivity", "specificity", "false_negative_rate", "false_positive_rate")


@pytest.fixture(scope="module")
def predictions():
    """Two models on two findings; 700 patients with 1 to 3 films, alike in truth and score."""
    rng = np.random.default_rng(11)
    patient = np.repeat(np.arange(700), rng.integers(1, 4, 700))
    n = len(patient)
    images = pd.DataFrame({"image_id": np.arange(n), "patient_id": patient, "cohort": "made up"})
    images["sex"] = np.where(rng.random(700) < 0.4, "F", "M")[patient]
    images["view"] = np.where(rng.random(n) < 0.5, "AP", "PA")
    parts = []
    for label, share in (("effusion", 0.3), ("nodule", 0.15)):
        y = (0.5 * rng.normal(size=700)[patient] + rng.normal(size=n) > -stats.norm.ppf(share)) * 1
        shared = y + 0.6 * rng.normal(size=700)[patient] + 0.6 * rng.normal(size=n)
        for model, noise in (("one", 0.3), ("two", 0.8)):
            score = expit(shared + noise * rng.normal(size=n) - 1).round(2)
            about = {"model": model, "method": "zero-shot", "label": label}
            parts.append(images.assign(**about, y_true=y, score=score))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def decided(predictions):
    return fairness.decide(predictions, 0.8)


def both(table, metrics, n_resamples=1000, match=None):
    """Estimates of one study by resamples and by influences."""
    how = {"mean_over_labels": True, "match": match, "n_resamples": n_resamples}
    return [
        next(est.estimated(table, "sex", metrics, protocol=p, **how))[1]
        for p in (replace(CORRECTED, interval="percentile"), ANALYTIC)
    ]


@pytest.mark.parametrize("match", [None, ("view", "prevalence")])
def test_values_are_equal_and_errors_those_of_resamples(predictions, match):
    drawn, at_once = both(predictions, EVERY, match=match)
    assert set(drawn) == set(at_once)
    for key, e in at_once.items():
        assert e.value == pytest.approx(drawn[key].value, abs=1e-12)
        assert est.spread(e) == pytest.approx(est.spread(drawn[key]), rel=0.1)
    ratios = [est.spread(e) / est.spread(drawn[key]) for key, e in at_once.items()]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_gaps_models_and_means_are_paired(predictions, decided):
    for table, metrics in ((predictions, ("auc", "adjusted_auprc")), (decided, RATES)):
        drawn, at_once = both(table, metrics)
        ratios = []
        for found in (drawn, at_once):
            gaps = est.group_gaps(found, "sex", [("F", "M")])
            for key, e in list(found.items()):
                if key.model == "one":
                    other = found[key._replace(model="two")]
                    gaps[key] = est.difference(e, other, "one", "two")
            ratios.append(np.array([est.spread(e) for e in gaps.values()]))
        np.testing.assert_allclose(ratios[1], ratios[0], rtol=0.12)
        assert np.mean(ratios[1] / ratios[0]) == pytest.approx(1, abs=0.05)


def test_tables_draw_nothing(predictions, decided, monkeypatch):
    monkeypatch.setattr(bootstrap.Resamples, "chunks", None)
    tables = [
        fairness.performance_table(predictions, EVERY, "sex", protocol=ANALYTIC),
        fairness.performance_table(decided, RATES, protocol=ANALYTIC),
        fairness.gap_table(predictions, "sex", protocol=ANALYTIC),
        fairness.model_gap_table(predictions, protocol=ANALYTIC),
    ]
    for table in tables:
        assert ((table["ci_low"] < table["value"]) & (table["value"] < table["ci_high"])).all()
        assert table["n_replicates"].isna().all() and table["seed"].isna().all()


def test_a_rate_has_the_binomial_error_and_limits_by_its_logit():
    """One film a patient: Student's limits of a mean, on the scale of the logit."""
    y, yes = np.r_[np.ones(40), np.zeros(60)], np.r_[np.ones(36), np.zeros(64)]
    value, low, high = analytic.intervals(y, yes, np.arange(100), ["sensitivity"])["sensitivity"]
    assert value == 0.9
    error = stats.sem(yes[:40])
    squares = (yes[:40] - 0.9) ** 2
    df = 2 * squares.sum() ** 2 / ((squares**2).sum() - squares.sum() ** 2 / 40)
    half = stats.t.ppf(0.975, df) * error / (0.9 * 0.1)
    assert (low, high) == pytest.approx(tuple(expit(logit(0.9) + np.array([-half, half]))))


def test_the_factors_are_those_of_the_patients_of_each_class():
    """A patient with one film each: DeLong's variance with m - 1 and n - 1, exactly."""
    rng = np.random.default_rng(0)
    y = np.arange(60) < 12
    score = y + rng.normal(size=60)
    _, moved = analytic.by_patient(y, score, np.arange(60), 60, ["auc"])["auc"]
    psi = score[y][:, None] > score[~y]
    delong = psi.mean(1).var(ddof=1) / 12 + psi.mean(0).var(ddof=1) / 48
    assert analytic.standard_error(moved) ** 2 == pytest.approx(delong, rel=1e-12)


def test_a_perfect_value_and_a_single_patient_have_no_interval(predictions):
    perfect = predictions.assign(score=predictions["y_true"].astype(float))
    table = fairness.performance_table(perfect, protocol=ANALYTIC)
    assert (table["value"] == 1).all() and table["ci_low"].isna().all()
    assert table["note"].str.contains("no interval: no patient moves the value").all()
    y, score = np.array([1, 1, 0, 0]), np.array([0.1, 0.9, 0.2, 0.3])
    _, low, high = analytic.intervals(y, score, [1, 1, 2, 3])["auc"]
    assert np.isnan([low, high]).all()


def test_what_has_no_influences_is_refused_before_anything_is_computed(predictions):
    with pytest.raises(ValueError, match="no influences of ece_equal_width; expected metrics out"):
        fairness.performance_table(predictions, ("auc", "ece_equal_width"), protocol=ANALYTIC)
    one_hot = predictions[predictions["label"] == "effusion"]
    other = one_hot.assign(label="none", y_true=1 - one_hot["y_true"], score=1 - one_hot["score"])
    with pytest.raises(ValueError, match="interval='analytic': no influences are known"):
        fairness.multiclass_table(pd.concat([one_hot, other]), "sex", protocol=ANALYTIC)
    with pytest.raises(ValueError, match="expected both classes"):
        analytic.intervals([1, 1], [0.2, 0.3], [1, 2])


def test_bands_of_gaps_that_move_alike_are_plain_and_of_others_sidaks():
    rng = np.random.default_rng(1)
    moved, values = rng.normal(size=(8, 4000)), np.zeros(8)
    one = analytic.bands(values[:1], moved[:1])
    assert np.ravel(one) == pytest.approx(analytic.limits(0.0, moved[0]))
    alike = analytic.bands(values, np.tile(moved[:1], (8, 1)))
    assert alike[1] == pytest.approx(one[1][0] * np.ones(8), rel=0.02)
    _, high = analytic.bands(values, moved)
    sidak = stats.norm.ppf(0.5 + 0.95 ** (1 / 8) / 2)
    assert high / analytic.standard_error(moved) == pytest.approx(sidak * np.ones(8), rel=0.02)


def test_tests_of_gaps_without_permutations(predictions):
    asked = {"sex": [("F", "M")]}
    tests = inference.gap_tests(predictions, asked, n_permutations=0, protocol=ANALYTIC)
    plain = fairness.gap_table(predictions, "sex", [("F", "M")], protocol=ANALYTIC)
    assert ((plain["ci_low"] > 0) | (plain["ci_high"] < 0) == (tests["p_value"] < 0.05)).all()
    assert (tests["band_low"] < plain["ci_low"]).all()
    assert tests["floor_p95"].isna().all()
    assert inference.flagged(tests)["holm"] is not None
    with pytest.raises(ValueError, match="n_permutations: 0; expected 1 or more"):
        inference.gap_tests(predictions, asked, n_permutations=0)
    dealt = inference.gap_tests(predictions, asked, n_permutations=20, protocol=ANALYTIC)
    usual = inference.gap_tests(predictions, asked, n_permutations=20, n_resamples=5)
    pd.testing.assert_series_equal(dealt["p_value"], usual["p_value"])


def test_a_plan_needs_as_many_patients_as_one_from_resamples(predictions):
    plans = [
        inference.power_plan(predictions, "sex", protocol=p, n_resamples=1000)
        for p in (CORRECTED, ANALYTIC)
    ]
    drawn, at_once = (plan["positives_needed"] for plan in plans)
    np.testing.assert_allclose(at_once, drawn, rtol=0.2)


def test_limits_hold_the_truth_from_thirty_positive_patients_on():
    """1,500 studies: the share of a true 95 % is within 1.1 points of it in 95 of 100 runs."""
    design = simulate.Design(300, 3, 0.6, 0.15)
    found = simulate.coverage(design, 1500, methods=[("patient", "analytic")])
    assert found["n_positive_patients"].iloc[0] == pytest.approx(30, abs=2)
    assert found["coverage"].between(*simulate.BAND).all()

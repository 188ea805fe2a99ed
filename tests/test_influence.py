"""Influences: values and standard errors beside closed forms written out."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from cxrlib.stats import influence


@pytest.fixture(scope="module")
def films():
    """Scores with ties, films, and the patients they are of (1 to 4 films each)."""
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(300), rng.integers(1, 5, 300))
    y = rng.random(len(patient)) < 0.3
    score = y + 0.7 * rng.normal(size=300)[patient] + rng.normal(size=len(patient))
    return y, score.round(1), patient


def kernel(ill, well):
    """(m, n) of 1, 1/2 or 0: does the ill film score higher than the healthy one?"""
    return (ill[:, None] > well) + 0.5 * (ill[:, None] == well)


def test_auc_and_its_error_are_delongs(films):
    y, score, _ = films
    found = influence.auc(y, score)
    assert found.value == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    psi = kernel(score[y], score[~y])
    m, n = psi.shape
    delong = psi.mean(1).var(ddof=1) / m + psi.mean(0).var(ddof=1) / n
    alone = influence.standard_error(found, np.arange(len(y)))
    # with every film a patient; DeLong divides by m - 1 and n - 1, here by m and n
    assert alone == pytest.approx(np.sqrt(delong), rel=0.01)


def test_the_error_of_films_in_patients_is_obuchowskis(films):
    """Obuchowski 1997: sums of placements by patient, with the covariance of ill and healthy."""
    y, score, patient = films
    psi = kernel(score[y], score[~y])
    area, (m, n) = psi.mean(), psi.shape
    people = 300
    x, z = (np.zeros(people) for _ in range(2))
    np.add.at(x, patient[y], psi.mean(1) - area)
    np.add.at(z, patient[~y], psi.mean(0) - area)
    with_ill, with_well = len(set(patient[y])), len(set(patient[~y]))
    s_ill = with_ill / ((with_ill - 1) * m) * (x**2).sum()
    s_well = with_well / ((with_well - 1) * n) * (z**2).sum()
    both = people / (people - 1) * (x * z).sum()
    variance = s_ill / m + s_well / n + 2 * both / (m * n)
    found = influence.standard_error(influence.auc(y, score), patient)
    assert found == pytest.approx(np.sqrt(variance), rel=0.01)


def test_a_mean_of_films_has_the_error_of_a_mean(films):
    _, score, _ = films
    found = influence.mean(score)
    expected = score.std(ddof=1) / np.sqrt(len(score))
    assert influence.standard_error(found, np.arange(len(score))) == pytest.approx(expected)


def test_spread_is_a_standard_deviation_and_its_error_that_of_many_draws():
    rng = np.random.default_rng(0)
    draws = rng.normal(2, 3, (4000, 200))
    errors = [influence.standard_error(influence.spread(d), np.arange(200)) for d in draws[:200]]
    assert influence.spread(draws[0]).value == pytest.approx(draws[0].std())
    assert np.mean(errors) == pytest.approx(draws.std(1).std(), rel=0.05)


def test_arithmetic_of_estimates_is_that_of_their_numbers(films):
    y, score, patient = films
    a, b = influence.mean(score), influence.mean(score, y)
    assert (a / b).value == pytest.approx(score.mean() / score[y].mean())
    assert influence.standard_error(a - a, patient) == 0
    assert influence.standard_error(a / a, patient) == pytest.approx(0, abs=1e-12)
    assert influence.average([a, b]).value == pytest.approx((a.value + b.value) / 2)


def test_limits_are_students_where_every_patient_counts_alike():
    values = np.tile([-1.0, 1.0], 5)
    low, high = influence.interval(influence.mean(values), np.arange(10))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 9, 0, stats.sem(values)))


def test_limits_of_few_patients_hold_the_truth():
    """Of 1,000 means of 12 normal patients; normal limits hold it in 93 %."""
    draws, who = np.random.default_rng(2).normal(size=(1000, 12)), np.arange(12)
    limits = np.array([influence.interval(influence.mean(d), who) for d in draws])
    assert 0.94 < ((limits[:, 0] < 0) & (limits[:, 1] > 0)).mean() < 0.965

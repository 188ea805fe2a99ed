"""Influences: values and standard errors beside closed forms written out."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from cxrlib.stats import bootstrap, influence, metrics, simulate
from cxrlib.stats.ranking import ranker


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


def obuchowski(y, score, patient, factors=True):
    """Obuchowski 1997: sums of placements by patient, with the covariance of ill and healthy."""
    psi = kernel(score[y], score[~y])
    area, (m, n) = psi.mean(), psi.shape
    people = patient.max() + 1
    x, z = (np.zeros(people) for _ in range(2))
    np.add.at(x, patient[y], psi.mean(1) - area)
    np.add.at(z, patient[~y], psi.mean(0) - area)
    each = len(set(patient[y])), len(set(patient[~y])), len(set(patient))
    ill, well, all_of_them = (k / (k - 1) if factors else 1 for k in each)
    s_ill, s_well, both = ill * (x**2).sum(), well * (z**2).sum(), all_of_them * (x * z).sum()
    return s_ill / m**2 + s_well / n**2 + 2 * both / (m * n)


def of_influences(y, score, patient):
    """Obuchowski's variance, from the influences: k / (k - 1) for the k patients of each term."""
    moved = influence.auc(y, score).influence
    ill, well = (np.bincount(patient, moved * of, patient.max() + 1) for of in (y, ~y))
    ks = (len(set(patient[of])) for of in (y, ~y, y | ~y))
    of_ill, of_well, of_all = (k / (k - 1) for k in ks)
    return of_ill * (ill**2).sum() + of_well * (well**2).sum() + 2 * of_all * (ill * well).sum()


def test_the_error_of_films_in_patients_is_obuchowskis(films):
    found = influence.auc(*films[:2])
    sums = np.bincount(films[2], found.influence)
    assert (sums**2).sum() == pytest.approx(obuchowski(*films, factors=False), rel=1e-10)
    variance = obuchowski(*films)
    assert of_influences(*films) == pytest.approx(variance, rel=1e-10)
    assert influence.standard_error(found, films[2]) == pytest.approx(variance**0.5, rel=0.01)


def test_the_example_of_obuchowski_has_the_printed_variance():
    """36 patients with one or two arteries, two readers: the components printed in the paper."""
    single = [6, 12, 20, 27, 33, 34, 35]
    patient = np.repeat(np.arange(36), np.where(np.isin(np.arange(36), single), 1, 2))
    ill = "1" * 13 + "10" * 5 + "1" + "01" * 7 + "1" + "01" * 2 + "0" * 22
    ill = np.array(list(ill)) == "1"
    first = """87 79 88 95 100 68 65 89 97 100 100 89 77 94 45 89 -11 95 30 95 10 100 19 75 70 70 26
        86 0 65 6 100 76 96 44 100 73 97 85 58 100 -2 100 -3 0 47 -94 -16 75 5 -1 -6 37 47 42 4 55
        55 4 -13 49 35 53 2 -48"""
    second = """87 83 94 93 100 79 61 91 97 100 99 88 77 89 44 92 -17 91 14 95 -122 100 -3 75 73 81
        27 93 8 70 23 100 79 95 55 100 67 94 86 60 99 -2 100 -14 -11 -3 -90 17 85 -22 -14 -52 38 35
        40 6 23 45 -87 -65 24 9 66 -15 -78"""
    printed = {
        first: (0.9837, 0.0013151307, 0.0022375873, 0.0051785478),
        second: (0.9852, 0.0009284122, 0.0022598583, -0.0005015760),
    }
    assert len(patient) == len(ill) == 65 and ill.sum() == 29
    for reader, (area, s10, s01, s11) in printed.items():
        score = np.array(reader.split(), float)
        assert influence.auc(ill, score).value == pytest.approx(area, abs=5e-5)
        variance = s10 / 29 + s01 / 36 + 2 * s11 / (29 * 36)
        assert of_influences(ill, score, patient) == pytest.approx(variance, abs=1e-10)


RANKED = ("auc", "average_precision", "adjusted_auprc")


@pytest.mark.parametrize("name", RANKED)
def test_an_influence_is_what_a_little_more_weight_of_a_film_does(films, name):
    y, score, _ = (x[:250] for x in films)
    found = getattr(influence, name)(y, score)
    more = 1 + 1e-5 * np.eye(250)
    less = 2 - more
    metric = getattr(metrics, name)
    slope = (metric(y, score, more) - metric(y, score, less)) / 2e-5
    assert found.value == pytest.approx(metric(y, score), abs=1e-12)
    np.testing.assert_allclose(found.influence, slope, atol=1e-9)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)


def test_errors_are_those_of_many_resamples_of_patients():
    patient = simulate.patients(4000, (1, 2, 3))
    y, score = simulate.sample(patient, 0.8, 0.15, 0.5, 0.5, np.random.default_rng(5))
    drawn = bootstrap.evaluate({"": ranker(y, score)}, bootstrap.Resamples(patient, 3000), False)
    for name in RANKED:
        error = influence.standard_error(getattr(influence, name)(y, score), patient)
        assert error == pytest.approx(drawn["", name].replicates.std(), rel=0.03)


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

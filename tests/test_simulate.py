"""Simulated cohorts against closed forms, and counted coverage against what theory demands."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlib.stats import bootstrap, simulate
from cxrlib.stats.simulate import Design


@pytest.mark.parametrize("prevalence", [0.01, 0.1, 0.3])
def test_random_scores_have_the_prevalence_as_average_precision(prevalence):
    truth = simulate.population(0.5, prevalence)
    assert truth["average_precision"] == pytest.approx(prevalence, rel=1e-8)
    assert truth["adjusted_auprc"] == pytest.approx(0, abs=1e-8)


def test_perfect_scores_approach_one():
    truth = simulate.population(1 - 1e-9, 0.1)
    assert truth["average_precision"] == pytest.approx(1, abs=1e-6)


def test_average_precision_is_the_mean_precision_over_recall():
    # a sum over a fine grid of recalls, which needs neither the quadrature nor the density
    auc, p = 0.8, 0.05
    mu = math.sqrt(2) * norm.ppf(auc)
    recall = (np.arange(400_000) + 0.5) / 400_000
    x = mu - norm.ppf(recall)  # threshold at this recall
    precision = p * recall / (p * recall + (1 - p) * norm.sf(x))
    assert simulate.population(auc, p)["average_precision"] == pytest.approx(
        precision.mean(), abs=1e-6
    )


@pytest.mark.parametrize(("auc", "prevalence", "icc"), [(0.8, 0.05, 0.6), (0.95, 0.3, 0.3)])
def test_a_very_large_clustered_sample_has_the_population_values(auc, prevalence, icc):
    # Ten parts of 60,000 images: their spread is the Monte Carlo error of their mean.
    rng = np.random.default_rng(3)
    patient = simulate.patients(60_000, 3)
    parts = []
    for _ in range(10):
        y, score = simulate.sample(patient, auc, prevalence, icc, icc, rng)
        ap = average_precision_score(y, score)
        parts.append([y.mean(), roc_auc_score(y, score), ap, 1 - np.log(ap) / np.log(y.mean())])
    mean, error = np.mean(parts, axis=0), np.std(parts, axis=0, ddof=1) / math.sqrt(10)
    truth = simulate.population(auc, prevalence)
    expected = [prevalence, truth["auc"], truth["average_precision"], truth["adjusted_auprc"]]
    assert (error < 0.004).all()  # small enough that an error of two points would show
    assert (np.abs(mean - expected) < 4 * error).all()


def test_scores_and_liabilities_have_the_stated_correlation():
    rng = np.random.default_rng(11)
    patient = simulate.patients(80_000, 2)
    y, score = simulate.sample(patient, 0.8, 0.5, 0.3, 0.6, rng)
    noise = (score - math.sqrt(2) * norm.ppf(0.8) * y).reshape(-1, 2)
    assert noise.var() == pytest.approx(1, abs=0.03)
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(0.3, abs=0.03)
    # Sheppard: liabilities with correlation r, cut at their median, agree in 1/2 + asin(r)/pi
    pairs = y.reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).mean() == pytest.approx(
        0.5 + math.asin(0.6) / math.pi, abs=0.02
    )


def test_patients_come_in_turn_and_the_last_may_have_fewer():
    np.testing.assert_array_equal(simulate.patients(8, (1, 3)), [0, 1, 1, 1, 2, 3, 3, 3])
    np.testing.assert_array_equal(simulate.patients(5, 2), [0, 0, 1, 1, 2])


@pytest.mark.parametrize("icc", [0.0, 0.4, 0.8])
def test_correlation_of_liabilities_is_found_in_labels(icc):
    patient = simulate.patients(60_000, (1, 4, 9))
    y, _ = simulate.sample(patient, 0.8, 0.1, 0.0, icc, np.random.default_rng(2))
    assert simulate.label_icc(y, patient) == pytest.approx(icc, abs=0.04)


def test_correlation_of_liabilities_at_its_limits():
    assert simulate.label_icc([0, 1, 0, 1], [1, 1, 2, 2]) == 0  # never twice positive
    assert math.isnan(simulate.label_icc([0, 0, 1], [1, 1, 2]))  # only lone images are positive
    assert math.isnan(simulate.label_icc([0, 1], [1, 2]))


def test_expanded_interval_is_hesterbergs_for_a_mean_of_equal_deviations():
    # Twelve values +1 or -1: the variance of the squared deviations is 0, so there are g - 1
    # degrees of freedom, and the bootstrap's variance is (m - 1) / m of the unbiased one.
    x = np.repeat([1.0, -1.0], 6)
    jackknife = (x.sum() - x) / 11
    replicates = norm.ppf((np.arange(4001) + 0.5) / 4001)
    replicates *= math.sqrt(1 / 12) / replicates.std()  # the exact bootstrap's deviation
    tails = norm.cdf(math.sqrt(12 / 11) * t.ppf([0.025, 0.975], 11))
    found = bootstrap.interval(0.0, replicates, jackknife, method="expanded")
    np.testing.assert_allclose(
        [found["ci_low"], found["ci_high"]], np.quantile(replicates, tails), rtol=1e-12
    )


def test_shares_by_hand():
    counts = pd.DataFrame({"n_studies": [10, 4], "n_undefined": [2, 4], "n_hold": [6, 0]})
    found = simulate.shares(counts)
    p, n, z = 0.75, 8, norm.ppf(0.975)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)  # Wilson 1927
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    row = found.iloc[0]
    assert row["coverage"] == p and row["undefined"] == 0.2
    assert row[["coverage_low", "coverage_high"]].tolist() == pytest.approx(
        [centre - half, centre + half]
    )
    assert found.loc[1, ["coverage", "coverage_low", "coverage_high"]].isna().all()
    assert found.loc[1, "undefined"] == 1


def counts(n_positive_patients, n_hold, metric="auc", n_undefined=0):
    kind = {"metric": metric, "unit": "patient", "method": "bca", "width": 0.2 + n_undefined}
    of = {
        "n_studies": 100,
        "n_undefined": n_undefined,
        "n_hold": n_hold,
        "n_below": 1,
        "n_above": 2,
    }
    return {"n_positive_patients": n_positive_patients, "n_below": 1, "n_above": 2} | kind | of


def test_designs_with_as_many_positive_patients_are_counted_together():
    rows = [counts(4.9, 40, n_undefined=20), counts(5, 94), counts(9.9, 96), counts(500, 95)]
    pooled = simulate.by_positive_patients(pd.DataFrame([*rows, counts(7, 10, "auc_gap")]))
    auc = pooled[pooled["metric"] == "auc"].set_index("positive_patients")
    assert auc.index.tolist() == ["under 5", "5 to 9", "40 or more"]
    assert auc["n_designs"].tolist() == [1, 2, 1]
    assert auc["coverage"].tolist() == [0.5, 0.95, 0.95]  # 40 of 80, 190 of 200, 95 of 100
    assert auc["undefined"].tolist() == [0.2, 0, 0]
    assert simulate.trusted_from(pooled, "auc", "patient", "bca") == 5
    assert simulate.trusted_from(pooled, "auc_gap", "patient", "bca") is None


def test_no_trust_below_a_class_that_fails():
    rows = [counts(7, 95), counts(15, 92), counts(30, 95), counts(90, 95)]
    pooled = simulate.by_positive_patients(pd.DataFrame(rows))
    assert simulate.trusted_from(pooled, "auc", "patient", "bca") == 20
    every = simulate.by_positive_patients(pd.DataFrame([counts(1, 95), counts(90, 96)]))
    assert simulate.trusted_from(every, "auc", "patient", "bca") == 0


def test_undefined_studies_are_counted_and_kept_out_of_the_coverage():
    design = Design(50, prevalence=0.02)
    table = simulate.studies(design, n_simulations=60, n_resamples=50)
    without = table["n_positive"] == 0
    auc = table["metric"] == "auc"
    assert 0 < without.sum() < len(table)
    assert table.loc[without & auc, "value"].isna().all()
    assert table.loc[~without & auc, "value"].notna().all()
    counted = simulate.coverage(design, n_simulations=60, n_resamples=50)
    expected = table.loc[without & auc, "simulation"].nunique()
    of_auc = counted[counted["metric"] == "auc"].set_index("method")["n_undefined"]
    assert (of_auc.drop("analytic") == expected).all()
    # a single positive patient says nothing of the next one
    assert of_auc["analytic"] >= table.loc[table["n_positive"] < 2, "simulation"].nunique()
    outcomes = counted[["n_hold", "n_below", "n_above", "n_undefined"]].sum(axis=1)
    assert (outcomes == 60).all()
    gap = counted[counted["metric"] == "auc_gap"]  # needs a positive in either group
    assert (gap["n_undefined"] > expected).all()


def test_one_image_a_patient_makes_both_units_the_same():
    table = simulate.studies(Design(60, prevalence=0.3), n_simulations=5, n_resamples=40)
    percentile = table[table["method"] == "percentile"]
    limits = percentile.set_index(["simulation", "metric", "unit"])[["ci_low", "ci_high"]]
    image, patient = (limits.xs(unit, level="unit") for unit in ("image", "patient"))
    pd.testing.assert_frame_equal(image, patient)


def test_studies_depend_on_seed_and_design_only():
    def values(seed=1, **changed):
        design = Design(**({"n_images": 60, "prevalence": 0.3} | changed))
        return simulate.studies(design, n_simulations=4, n_resamples=20, seed=seed)["value"]

    assert values().equals(values())
    assert not values().equals(values(seed=2))
    # not merely the same cohorts with shifted scores
    shift = values(auc=0.7) - values()
    assert shift[:: len(simulate.METHODS)].std() > 0.01


@pytest.fixture(scope="module")
def clustered():
    """Ten images a patient, strongly alike; 100 patients, more than half of them positive once."""
    return simulate.coverage(Design(1000, 10, 0.6, 0.3), n_simulations=200, n_resamples=300)


def test_intervals_over_images_miss_too_often(clustered):
    image = clustered[clustered["unit"] == "image"]
    assert (image["coverage_high"] < 0.88).all()


def test_intervals_over_patients_hold_the_truth(clustered):
    # 200 studies: the share of a true 95 % interval lies above 0.90 except in 2 of 1,000 runs
    patient = clustered[(clustered["unit"] == "patient") & clustered["method"].ne("bca")]
    assert (patient["coverage"] > 0.88).all()
    gap = clustered[clustered["metric"] == "auc_gap"].set_index(["unit", "method"])
    assert gap["truth"].iloc[0] == pytest.approx(0.05)
    width = gap["width"]
    assert width["patient", "percentile"] > 1.3 * width["image", "percentile"]
    assert width["patient", "expanded"] >= width["patient", "percentile"]


def test_grids():
    small, full = simulate.grid("small"), simulate.grid("full")
    assert len(set(full)) == len(full) and len(set(small)) == len(small)
    assert {d.n_images for d in full} >= {50, 1000}
    assert min(d.prevalence for d in full) == 0.01 and max(d.prevalence for d in full) == 0.3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: simulate.population(1.0, 0.1), "auc: 1.0; expected a number between 0 and 1"),
        (lambda: simulate.population(0.8, 0), "prevalence: 0"),
        (lambda: simulate.patients(0), "n_images: 0"),
        (lambda: simulate.patients(10, (1, 0)), "images_per_patient"),
        (
            lambda: simulate.sample(np.arange(3), 0.8, 0.1, 1.5, 0, np.random.default_rng()),
            "icc_score: 1.5; expected a correlation from 0 to 1",
        ),
        (lambda: simulate.grid("huge"), "'huge': expected one of small, full"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError) as error:
        call()
    assert says in str(error.value)


def test_gaps_of_a_fair_classifier_shrink_with_the_images():
    rng = np.random.default_rng(1907)
    small, large = (simulate.fair_gaps([0.6, 0.9, 0.3], n, 40, rng) for n in (20, 2000))
    assert (small.mean() > 5 * large.mean()).all() and (large.mean() < 0.02).all()
    assert (large["f1_gap_signed"] <= large["f1_gap_absolute"]).all()
    assert (large["eq_odds_mean"] <= large["eq_odds_max"]).all()
    assert (simulate.fair_gaps([1, 1], 5, 3, rng) == 0).all(axis=None)


def test_verdicts_of_designs_by_hand():
    """Two designs of one metric, one kind of interval over images and one over patients."""
    kinds = [("image", "percentile"), ("patient", "bca")]
    rows = [
        {"metric": "auc", "unit": unit, "method": method, "n_images": 100, "prevalence": share}
        | {"images_per_patient": several, "n_positive_patients": ill, "width": wide}
        | {
            "n_studies": 1000,
            "n_undefined": 0,
            "n_hold": hold,
            "n_below": 0,
            "n_above": 1000 - hold,
        }
        for share, several, ill, holds in ((0.3, 1, 30, (800, 940)), (0.1, 3, 4, (700, 990)))
        for (unit, method), hold, wide in zip(kinds, holds, (0.1, 0.2), strict=True)
    ]
    found = simulate.verdicts(simulate.shares(pd.DataFrame(rows)))
    assert list(found.index) == ["images, percentile", "patients, BCa"]
    assert found["off"].tolist() == pytest.approx([0.15, 0.01])  # of the design with 30
    assert found["off_few"].tolist() == pytest.approx([0.25, 0.04])
    assert found["width"].tolist() == found["width_thin"].tolist() == [0.1, 0.2]
    counts = found[["many", "within", "beyond", "above", "below"]]
    assert counts.to_numpy().tolist() == [[1, 0, 1, 500, 0], [1, 1, 0, 70, 0]]

"""What must hold for any labels, scores and weights, on examples that hypothesis searches."""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cxrlib import schema
from cxrlib.stats import bootstrap, calibration, estimates, fairness, metrics

settings.register_profile("book", derandomize=True, max_examples=50, deadline=None, database=None)
settings.load_profile("book")

RANKING = {
    "auc": (metrics.auc, sklearn.metrics.roc_auc_score),
    "average_precision": (metrics.average_precision, sklearn.metrics.average_precision_score),
}
PROBABILITY = estimates.PROBABILITY_METRICS
SCORED = {name: mine for name, (mine, _) in RANKING.items()}
SCORED["adjusted_auprc"] = metrics.adjusted_auprc


@st.composite
def samples(draw, n_min=2, n_max=25, both=True):
    """Labels, scores with many ties, and whole-number weights with zeros; both classes weigh."""
    n = draw(st.integers(n_min, n_max))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    score = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    y, score, weight = np.array(y), np.array(score, float), np.array(weight)
    if both:
        assume(weight[y == 1].any() and weight[y == 0].any())
    return y, score, weight


def probability(score):
    return (score + 3) / 6


@pytest.mark.parametrize("name", RANKING)
@given(samples())
@example((np.array([0, 1, 1]), np.zeros(3), np.ones(3, int)))  # constant scores
def test_whole_weights_are_repeated_rows_to_scikit_learn(name, sample):
    y, score, weight = sample
    mine, theirs = RANKING[name]
    rows = np.repeat(np.arange(len(y)), weight)
    expected = theirs(y[rows], score[rows])
    assert mine(y, score, weight) == pytest.approx(expected, abs=1e-12)
    assert mine(y, score, weight / 3) == pytest.approx(expected, abs=1e-12)
    assert mine(y, score, weight[None])[0] == pytest.approx(expected, abs=1e-12)
    prevalence = y[rows].mean()
    ap = sklearn.metrics.average_precision_score(y[rows], score[rows])
    adjusted = 1 - np.log(ap) / np.log(prevalence)
    assert metrics.adjusted_auprc(y, score, weight) == pytest.approx(adjusted, abs=1e-9)


@pytest.mark.parametrize("name", PROBABILITY)
@given(samples())
def test_whole_weights_are_repeated_rows_for_probabilities(name, sample):
    y, score, weight = sample
    p = probability(score)
    rows = np.repeat(np.arange(len(y)), weight)
    found = PROBABILITY[name](y, p, weight)
    if name == "brier":
        expected = sklearn.metrics.brier_score_loss(y[rows], p[rows])
    elif name == "ece_equal_mass":  # its edges are those of the sample, not of the repeated rows
        edges = np.quantile(p, np.linspace(0, 1, 11))
        bins = np.searchsorted(edges[1:-1], p[rows])
        gaps = [np.sum(p[rows][bins == b] - y[rows][bins == b]) for b in range(10)]
        expected = np.abs(gaps).sum() / len(rows)
    else:
        expected = PROBABILITY[name](y[rows], p[rows])
    assert found == pytest.approx(expected, abs=1e-12)


@given(samples(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(sample, random):
    y, score, weight = sample
    order = list(range(len(y)))
    random.shuffle(order)
    p, decision = probability(score), score > 0
    for metric, x in [
        *((m, score) for m in SCORED.values()),
        *((m, p) for m in PROBABILITY.values()),
        *((m, decision) for m in estimates.DECISION_METRICS.values()),
    ]:
        here, there = metric(y, x, weight), metric(y[order], x[order], weight[order])
        assert here == pytest.approx(there, abs=1e-12, nan_ok=True)
    assert metrics.threshold_youden(y, score) == metrics.threshold_youden(y[order], score[order])


@given(samples(), st.sampled_from([lambda s: 2 * s - 5, np.exp, np.arctan, lambda s: s**3]))
def test_rising_functions_of_the_scores_change_no_ranking(sample, rising):
    y, score, weight = sample
    for metric in SCORED.values():
        assert metric(y, rising(score), weight) == metric(y, score, weight)


@given(samples())
def test_turning_scores_round_mirrors_the_auc(sample):
    y, score, weight = sample
    mirrored = metrics.auc(y, -score, weight)
    assert mirrored == pytest.approx(1 - metrics.auc(y, score, weight), abs=1e-12)
    assert metrics.auc(1 - y, score, weight) == pytest.approx(mirrored, abs=1e-12)


@given(samples(), st.floats(-10, 10))
def test_constant_scores_rank_by_chance(sample, constant):
    y, _, weight = sample
    flat = np.full(len(y), constant)
    assert metrics.auc(y, flat, weight) == 0.5
    prevalence = np.average(y, weights=weight)
    assert metrics.average_precision(y, flat, weight) == pytest.approx(prevalence)
    assert metrics.adjusted_auprc(y, flat, weight) == pytest.approx(0, abs=1e-9)


@given(samples(both=False), st.integers(0, 1))
def test_one_class_with_weight_is_undefined_for_rankings(sample, kept):
    y, score, weight = sample
    weight = np.where(y == kept, weight, 0)
    for metric in SCORED.values():
        assert np.isnan(metric(y, score, weight))
        assert np.isnan(metric(np.full(len(y), kept), score))


@given(samples(both=False))
def test_no_weight_is_undefined_for_every_metric(sample):
    y, score, _ = sample
    nothing = np.zeros((2, len(y)), dtype=np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (*SCORED.values(), *PROBABILITY.values()):
            assert np.isnan(metric(y, probability(score), nothing)).all()
        for metric in estimates.DECISION_METRICS.values():
            assert np.isnan(metric(y, score > 0, nothing)).all()
        assert np.isnan(metrics.macro_f1(y, y, 2, nothing)).all()


@given(samples(), st.data())
def test_images_without_weight_do_not_matter(sample, data):
    y, score, weight = sample
    silent = weight == 0
    other = data.draw(st.integers(0, 1))
    moved = np.where(silent, data.draw(st.integers(-9, 9)), score)
    for metric in SCORED.values():
        found = metric(np.where(silent, other, y), moved, weight)
        assert found == pytest.approx(metric(y, score, weight), abs=1e-12)


@given(samples(both=False), st.data())
def test_a_score_that_is_no_number_is_refused_and_found(sample, data):
    y, score, weight = sample
    at = data.draw(st.integers(0, len(y) - 1))
    score[at] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    for metric in (*SCORED.values(), *PROBABILITY.values()):
        with pytest.raises(ValueError, match=f"in 1 of {len(y)} rows, first row {at} "):
            metric(y, score, weight)


@given(samples(both=False), st.data())
def test_a_label_other_than_0_and_1_is_refused_and_found(sample, data):
    y, score, weight = sample
    at = data.draw(st.integers(0, len(y) - 1))
    y = y.astype(float)
    y[at] = data.draw(st.sampled_from([2, -1, 0.5, np.nan]))
    for metric in (*SCORED.values(), *PROBABILITY.values()):
        with pytest.raises(ValueError, match=f"y_true: .* in 1 of {len(y)} rows, first row {at} "):
            metric(y, probability(score), weight)


@given(samples())
def test_youden_is_no_worse_than_any_other_threshold(sample):
    y, score, _ = sample
    assume(0 < y.sum() < len(y))

    def index(threshold):
        called = score > threshold
        return metrics.sensitivity(y, called) + metrics.specificity(y, called) - 1

    best = metrics.threshold_youden(y, score)
    assert all(index(best) >= index(t) - 1e-12 for t in [-np.inf, *score])


@given(samples(), st.sampled_from([0.1, 0.25, 0.5, 0.55, 0.8, 0.9]))
def test_the_wanted_specificity_is_reached_and_by_no_lower_threshold(sample, wanted):
    y, score, _ = sample
    threshold = metrics.threshold_at_specificity(y, score, wanted)
    assert metrics.specificity(y, score > threshold) >= wanted - 1e-9
    lower = score[(y == 0) & (score < threshold)]
    assert all(metrics.specificity(y, score > t) < wanted for t in lower)


@given(samples(n_min=6), samples(n_min=6))
def test_equalised_odds_mean_is_at_most_the_maximum(a, b):
    rates = [metrics.rates_by_class(y, score > 0, 2, w) for y, score, w in (a, b)]
    mean, maximum = metrics.eq_odds_mean(*rates), metrics.eq_odds_max(*rates)
    assert 0 <= mean <= maximum + 1e-12 <= 1 + 1e-12
    assert maximum == pytest.approx(metrics.eq_odds_max(*rates[::-1]))
    assert metrics.eq_odds_max(rates[0], rates[0]) == 0


@given(samples())
def test_the_calibration_errors_are_at_least_the_one_in_the_large(sample):
    y, score, weight = sample
    p = probability(score)
    large = abs(calibration.calibration_in_the_large(y, p, weight))
    for ece in (calibration.ece_equal_width, calibration.ece_equal_mass):
        assert large - 1e-12 <= ece(y, p, weight) <= 1 + 1e-12
        assert ece(y, p, weight, n_bins=1) == pytest.approx(large, abs=1e-12)


# --- tables


def predictions(y, score, patient, **more):
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(len(y))],
            "patient_id": patient,
            "cohort": "c",
            "model": "m",
            "method": "zero-shot",
            "label": "Edema",
            "y_true": y,
            "score": score,
            **more,
        }
    )


@given(samples())
def test_a_single_patient_leaves_nothing_to_resample(sample):
    y, score, _ = sample
    weights = bootstrap.patient_weights(["one"] * len(y), 20)
    assert (weights == 1).all()
    again = metrics.auc(y, score, weights)
    assert (again == metrics.auc(y, score)).all()


@settings(max_examples=15)
@given(samples(n_min=8), st.data())
def test_images_without_an_attribute_are_in_no_group(sample, data):
    y, score, _ = sample
    sex = data.draw(st.lists(st.sampled_from(["F", "M", None]), min_size=len(y), max_size=len(y)))
    assume({"F", "M"} <= set(sex))
    table = fairness.performance_table(
        predictions(y, probability(score), np.arange(len(y)), sex=sex),
        ("auc",),
        ("sex",),
        min_positive=1,
        min_negative=1,
        n_resamples=3,
    ).set_index("group")
    assert table.loc["all", "n"] == len(y)
    for group in "FM":
        inside = np.array([s == group for s in sex])
        assert table.loc[group, "n"] == inside.sum()
        expected = metrics.auc(y[inside], score[inside])
        assert table.loc[group, "value"] == pytest.approx(expected, nan_ok=True)
        assert np.isfinite(expected) or table.loc[group, "note"] != ""


@given(samples(), st.data())
def test_any_doubled_row_is_found(sample, data):
    y, score, _ = sample
    table = predictions(y, score, np.arange(len(y)))
    at = data.draw(st.integers(0, len(y) - 1))
    doubled = pd.concat([table, table.iloc[[at]]], ignore_index=True)
    message = f"in 1 of {len(y) + 1} rows, first row {len(y)} .image_id 'i{at}'"
    with pytest.raises(ValueError, match=message):
        schema.predictions(doubled)

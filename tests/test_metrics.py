"""Metrics against scikit-learn, fairlearn and hand-computed tables."""

import fairlearn.metrics
import numpy as np
import pytest
import sklearn.metrics

from cxrlib import bootstrap, metrics

EXACT = {"rtol": 0, "atol": 1e-12}


def draw(seed, n=200, decimals=1, prevalence=0.3):
    """Labels, tied scores and weights with zeros."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(int)
    y[:2] = 0, 1
    score = np.round(rng.normal(size=n) + y, decimals)
    weights = rng.choice([0, 1, 2, 0.5, 1.7], n)
    weights[:2] = 1
    return y, score, weights


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("seed", range(20))
def test_ranking_metrics_equal_scikit_learn_with_weights_and_ties(seed, decimals):
    y, score, w = draw(seed, n=5 + 17 * seed, decimals=decimals, prevalence=0.05 + 0.04 * seed)
    for weights in (None, w, w[None]):
        sample_weight = None if weights is None else w
        auc = sklearn.metrics.roc_auc_score(y, score, sample_weight=sample_weight)
        ap = sklearn.metrics.average_precision_score(y, score, sample_weight=sample_weight)
        prevalence = np.average(y, weights=sample_weight)
        np.testing.assert_allclose(metrics.auc(y, score, weights), np.squeeze(auc), **EXACT)
        np.testing.assert_allclose(metrics.average_precision(y, score, weights), ap, **EXACT)
        np.testing.assert_allclose(
            metrics.adjusted_auprc(y, score, weights), 1 - np.log(ap) / np.log(prevalence), **EXACT
        )


@pytest.mark.parametrize("seed", range(5))
def test_sensitivity_and_specificity_equal_scikit_learn(seed):
    y, score, w = draw(seed)
    decision = (score > 0.5).astype(int)
    for weights, sample_weight in ((None, None), (w, w), (np.stack([w, 2 * w]), w)):
        for metric, label in ((metrics.sensitivity, 1), (metrics.specificity, 0)):
            recall = sklearn.metrics.recall_score(
                y, decision, pos_label=label, sample_weight=sample_weight
            )
            np.testing.assert_allclose(metric(y, decision, weights), recall, **EXACT)
    assert np.isnan(metrics.sensitivity(np.zeros(4), np.ones(4)))


def test_shapes_follow_the_weights():
    y, score, w = draw(1)
    assert isinstance(metrics.auc(y, score), float)
    assert isinstance(metrics.auc(y, score, w), float)
    assert metrics.auc(y, score, np.stack([w, w, w])).shape == (3,)


def test_adjusted_auprc_marks_chance_and_perfection():
    y = np.r_[np.zeros(90), np.ones(10)]
    assert metrics.adjusted_auprc(y, np.zeros(100)) == pytest.approx(0, abs=1e-12)
    assert metrics.adjusted_auprc(y, y) == pytest.approx(1, abs=1e-12)
    assert metrics.adjusted_auprc(y, -np.arange(100)) < 0  # positives ranked last


def test_values_equal_those_of_the_code_of_s():
    """A case computed with the authors' functions; their intervals draw images, not patients."""
    rng = np.random.Generator(np.random.PCG64(0))
    y = (rng.random(300) < 0.1).astype(int)
    p = 1 / (1 + np.exp(-(0.8 * y + rng.standard_normal(300))))
    found = metrics.ranking(y, p)
    expected = {"auc": 0.7474347, "average_precision": 0.3930513, "adjusted_auprc": 0.5827544}
    assert found == pytest.approx(expected, abs=5e-7)
    weights = bootstrap.patient_weights(np.arange(300), 2000, unit="image")
    again = metrics.ranking(y, p, weights)
    for metric, limits in {
        "auc": (0.6557578, 0.8302271),
        "adjusted_auprc": (0.4030535, 0.7273465),
    }.items():
        interval = bootstrap.interval(found[metric], again[metric])
        assert (interval["ci_low"], interval["ci_high"]) == pytest.approx(limits, abs=0.02)


@pytest.mark.parametrize("y", [np.zeros(5), np.ones(5)])
def test_one_class_is_undefined(y):
    score = np.arange(5.0)
    assert all(np.isnan(v) for v in metrics.ranking(y, score).values())


def test_a_resample_without_positives_or_without_weight_is_undefined():
    y, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.8])
    w = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.uint16)
    for values in metrics.ranking(y, score, w).values():
        assert np.isnan(values[:3]).all() and np.isfinite(values[3])


def test_brier_and_mean_equal_scikit_learn():
    y, score, w = draw(2)
    p = 1 / (1 + np.exp(-score))
    expected = sklearn.metrics.brier_score_loss(y, p, sample_weight=w)
    np.testing.assert_allclose(metrics.brier(y, p, w), expected, **EXACT)
    np.testing.assert_allclose(metrics.weighted_mean(p, w), np.average(p, weights=w), **EXACT)


@pytest.mark.parametrize(
    ("y", "score", "weights", "message"),
    [
        ([0, 2], [0.1, 0.2], None, "y_true: entries other than 0 and 1"),
        ([0, 1], [0.1, np.nan], None, "score: NaN"),
        ([0, 1, 1], [0.1, 0.2], None, "expected two equal"),
        ([0, 1], [0.1, 0.2], [1, 1, 1], r"weights: shape \(3,\)"),
        ([0, 1], [0.1, 0.2], [1, -1], "weights: negative"),
    ],
)
def test_bad_input_is_named(y, score, weights, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc(y, score, weights)


# --- one class out of several


def draw_classes(seed, n=150, n_classes=4):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    predicted = np.where(rng.random(n) < 0.5, y, rng.integers(0, n_classes, n))
    return y, predicted, rng.integers(0, 4, n)


@pytest.mark.parametrize("seed", range(5))
def test_f1_accuracy_and_rates_equal_scikit_learn(seed):
    y, predicted, w = draw_classes(seed)
    f1 = sklearn.metrics.f1_score(y, predicted, average=None, sample_weight=w)
    np.testing.assert_allclose(metrics.f1_by_class(y, predicted, 4, w), f1, **EXACT)
    np.testing.assert_allclose(metrics.f1_by_class(y, predicted, 4, np.stack([w, w]))[1], f1)
    expected = sklearn.metrics.accuracy_score(y, predicted, sample_weight=w)
    np.testing.assert_allclose(metrics.accuracy(y, predicted, w), expected, **EXACT)
    tpr, fpr = metrics.rates_by_class(y, predicted, 4, w)
    for c, ((tn, fp), (fn, tp)) in enumerate(
        sklearn.metrics.multilabel_confusion_matrix(y, predicted, sample_weight=w)
    ):
        np.testing.assert_allclose([tpr[c], fpr[c]], [tp / (tp + fn), fp / (fp + tn)], **EXACT)


def test_f1_of_a_class_neither_present_nor_predicted_is_undefined():
    f1 = metrics.f1_by_class([0, 0, 1], [0, 1, 1], 3)
    np.testing.assert_allclose(f1, [2 / 3, 2 / 3, np.nan])
    assert metrics.f1_by_class([0, 1], [2, 1], 3)[2] == 0  # predicted but never right


def test_equations_1_to_4_against_two_by_two_tables_worked_by_hand():
    # class 1 in group A: TP 6, FN 2, FP 3, TN 9;  in group B: TP 2, FN 4, FP 1, TN 5
    def group(tp, fn, fp, tn):
        y = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
        return y, np.repeat([1, 0, 1, 0], [tp, fn, fp, tn])

    a, b = group(6, 2, 3, 9), group(2, 4, 1, 5)
    f1_a, f1_b = metrics.f1_by_class(*a, 2), metrics.f1_by_class(*b, 2)
    # class 0 swaps TP with TN and FN with FP
    np.testing.assert_allclose(f1_a, [18 / 23, 12 / 17])
    np.testing.assert_allclose(f1_b, [10 / 15, 4 / 9])
    # Eq. 1, for group A: two values lie half their distance from their mean
    np.testing.assert_allclose(metrics.var_f1(f1_a), ((18 / 23 - 12 / 17) / 2) ** 2)
    # Eq. 2, signed and with modulus
    np.testing.assert_allclose(
        metrics.f1_gap(f1_a, f1_b), ((18 / 23 - 2 / 3) + (12 / 17 - 4 / 9)) / 2
    )
    assert metrics.f1_gap([0.7, 0.2], [0.5, 0.4]) == pytest.approx(0)
    assert metrics.f1_gap([0.7, 0.2], [0.5, 0.4], absolute=True) == pytest.approx(0.2)
    # Eq. 3: TPR 6/8 and 2/6, FPR 3/12 and 1/6 for class 1; for class 0 the complements
    tpr_gap, fpr_gap = 6 / 8 - 2 / 6, 3 / 12 - 1 / 6
    rates_a, rates_b = metrics.rates_by_class(*a, 2), metrics.rates_by_class(*b, 2)
    np.testing.assert_allclose(metrics.eq_odds_mean(rates_a, rates_b), (tpr_gap + fpr_gap) / 2)
    np.testing.assert_allclose(metrics.eq_odds_max(rates_a, rates_b), max(tpr_gap, fpr_gap))
    # Eq. 4: residuals 0.2, 0.4 against 0.1, 0.5, 0.9
    gap = metrics.calibration_gap_eq4([0.8, 0.4], [1, 0], [0.9, 0.5, 0.9], [1, 0, 0])
    np.testing.assert_allclose(gap, 0.5 - 0.3)
    weighted = metrics.calibration_gap_eq4(
        [0.8, 0.4], [1, 0], [0.9, 0.5, 0.9], [1, 0, 0], [[1, 3]], [[1, 1, 0]]
    )
    np.testing.assert_allclose(weighted, [0.35 - 0.3])


@pytest.mark.parametrize("seed", range(10))
def test_eq_odds_max_equals_fairlearn(seed):
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    in_a = rng.random(80) < 0.4
    expected = fairlearn.metrics.equalized_odds_difference(
        y, predicted, sensitive_features=in_a, agg="worst_case"
    )
    rates = [metrics.rates_by_class(y[m], predicted[m], 2) for m in (in_a, ~in_a)]
    np.testing.assert_allclose(metrics.eq_odds_max(*rates), expected, **EXACT)
    one_class = [(tpr[1:], fpr[1:]) for tpr, fpr in rates]
    np.testing.assert_allclose(metrics.eq_odds_max(*one_class), expected, **EXACT)


def test_eq_odds_is_undefined_when_a_class_is_absent():
    a = metrics.rates_by_class([0, 1], [0, 1], 3)
    b = metrics.rates_by_class([0, 1, 2], [0, 1, 2], 3)
    assert np.isnan(metrics.eq_odds_mean(a, b)) and np.isnan(metrics.eq_odds_max(a, b))


def test_unknown_class_is_named():
    with pytest.raises(ValueError, match="pred_class: expected whole numbers from 0 to 2"):
        metrics.f1_by_class([0, 1], [0, 3], 3)

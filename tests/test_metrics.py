"""Metrics against scikit-learn, fairlearn and hand-computed tables."""

import fairlearn.metrics
import numpy as np
import pytest
import sklearn.metrics

from cxrlib.stats import bootstrap, metrics, shortcuts

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


def test_adjusted_auprc_has_no_limit_at_prevalence_1():
    """One negative among n: whatever the prevalence tends to, the value is anything up to 1."""
    for n in (10, 100, 1000):
        y = np.arange(n) > 0
        assert metrics.adjusted_auprc(y, y) == pytest.approx(1)
        assert metrics.adjusted_auprc(y, np.zeros(n)) == pytest.approx(0, abs=1e-9)
        # negative on top: AP = 1 - (H_n - 1) / (n - 1), about 2 - H_n after the adjustment
        harmonic = np.sum(1 / np.arange(1, n + 1))
        expected = 1 - np.log(1 - (harmonic - 1) / (n - 1)) / np.log(1 - 1 / n)
        found = metrics.adjusted_auprc(y, -np.arange(n))
        assert found == pytest.approx(expected) and found < 2 - harmonic


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
        ([0, 2, -1], [0.1, 0.2, 0.3], None, r"y_true: .* in 2 of 3 rows, first row 1 \(y_true 2\)"),
        ([0, np.nan], [0.1, 0.2], None, r"y_true: .* in 1 of 2 rows, first row 1 \(y_true nan\)"),
        ([0, 1], [0.1, np.nan], None, r"score: NaN .* in 1 of 2 rows, first row 1 \(score nan\)"),
        ([0, 1], [-np.inf, 1], None, r"score: .*infinite .*row 0 \(score -inf\)"),
        ([0, 1], ["low", "high"], None, "score: entries that are no numbers"),
        ([0, 1, 1], [0.1, 0.2], None, r"y_true, score: shapes \(3,\), \(2,\); expected equal"),
        ([0, 1], [0.1, 0.2], [1, 1, 1], r"weights: shape \(3,\)"),
        ([0, 1], [0.1, 0.2], [1, -1], "weights: negative"),
    ],
)
def test_bad_input_is_named(y, score, weights, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc(y, score, weights)


def test_a_score_that_is_no_probability_is_named():
    with pytest.raises(ValueError, match=r"p: values outside \[0, 1\] in 2 of 3 .*row 1 \(p 1.2\)"):
        metrics.brier([0, 1, 1], [0.5, 1.2, -0.1])
    with pytest.raises(ValueError, match=r"p: values outside \[0, 1\] in 1 of 1"):
        metrics.calibration_gap_eq4([0.5], [1], [3.0], [0])
    with pytest.raises(ValueError, match="p: NaN"):
        metrics.brier([0, 1], [0.5, np.nan])


# --- decisions


RATES = [
    # metric, fairlearn's, scikit-learn's label and whether it is 1 - recall of that label
    (metrics.sensitivity, fairlearn.metrics.true_positive_rate, 1, False),
    (metrics.specificity, fairlearn.metrics.true_negative_rate, 0, False),
    (metrics.false_negative_rate, fairlearn.metrics.false_negative_rate, 1, True),
    (metrics.false_positive_rate, fairlearn.metrics.false_positive_rate, 0, True),
    (metrics.underdiagnosis_rate, fairlearn.metrics.false_positive_rate, 0, True),
]


@pytest.mark.parametrize(("metric", "fair", "label", "missed"), RATES)
@pytest.mark.parametrize("seed", range(3))
def test_rates_equal_scikit_learn_and_fairlearn(metric, fair, label, missed, seed):
    y, score, w = draw(seed)
    decision = (score > 0.5).astype(int)
    for weights, sample_weight in ((None, None), (w, w), (np.stack([w, 2 * w]), w)):
        recall = sklearn.metrics.recall_score(
            y, decision, pos_label=label, sample_weight=sample_weight
        )
        found = metric(y, decision, weights)
        np.testing.assert_allclose(found, 1 - recall if missed else recall, **EXACT)
        np.testing.assert_allclose(found, fair(y, decision, sample_weight=sample_weight), **EXACT)
    one_class = np.full(4, 1 - label)  # fairlearn says 0
    assert np.isnan(metric(one_class, np.ones(4))) and fair(one_class, np.ones(4)) == 0


def test_rates_of_a_two_by_two_table():
    # TP 6, FN 2, FP 3, TN 9
    y = np.repeat([1, 1, 0, 0], [6, 2, 3, 9])
    decision = np.repeat([1, 0, 1, 0], [6, 2, 3, 9])
    assert metrics.sensitivity(y, decision) == 6 / 8
    assert metrics.false_negative_rate(y, decision) == 2 / 8
    assert metrics.specificity(y, decision) == 9 / 12
    assert metrics.false_positive_rate(y, decision) == 3 / 12


def test_underdiagnosis_in_its_two_readings():
    # eight images with a finding, three of them called "no finding"; of two healthy ones, one
    no_finding = np.array([0] * 8 + [1] * 2)
    called = np.array([1] * 3 + [0] * 5 + [1, 0])
    assert metrics.underdiagnosis_rate(no_finding, called) == 3 / 8
    assert metrics.false_negative_rate(1 - no_finding, 1 - called) == 3 / 8  # of "any finding"
    assert metrics.false_negative_rate(no_finding, called) == 1 / 2  # overdiagnosis


def test_a_decision_is_0_or_1():
    with pytest.raises(ValueError, match=r"decision: entries other than 0 and 1 in 1 of 2 rows"):
        metrics.sensitivity([0, 1], [0, 0.7])


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("seed", range(10))
def test_youden_threshold_is_the_best_point_of_scikit_learns_roc_curve(seed, decimals):
    y, score, _ = draw(seed, n=60, decimals=decimals)
    fpr, tpr, _ = sklearn.metrics.roc_curve(y, score, drop_intermediate=False)
    threshold = metrics.threshold_youden(y, score)
    called = score > threshold
    index = metrics.sensitivity(y, called) - metrics.false_positive_rate(y, called)
    assert index == pytest.approx((tpr - fpr).max(), abs=1e-12)
    assert threshold in score
    for higher in np.unique(score[score > threshold]):  # it is the highest such threshold
        less = score > higher
        assert metrics.sensitivity(y, less) - metrics.false_positive_rate(y, less) < index - 1e-12


@pytest.mark.parametrize("decimals", [0, 8])
@pytest.mark.parametrize("wanted", [0.05, 0.5, 0.55, 0.8, 0.99])
def test_specificity_threshold_is_the_smallest_that_reaches_it(wanted, decimals):
    y, score, _ = draw(3, n=80, decimals=decimals)
    y[:40] = 0
    threshold = metrics.threshold_at_specificity(y, score, wanted)
    negatives = np.sort(score[y == 0])
    assert np.mean(negatives <= threshold) >= wanted - 1e-9
    for lower in negatives[negatives < threshold]:
        assert np.mean(negatives <= lower) < wanted - 1e-9
    # a hundred negatives: exactly fifty-five of them are enough for 0.55
    assert metrics.threshold_at_specificity(np.zeros(100), np.arange(100), 0.55) == 54


def test_no_threshold_without_both_classes():
    with pytest.raises(ValueError, match="y_true: no negatives; no threshold can be set"):
        metrics.threshold_at_specificity([1, 1], [0.1, 0.2], 0.8)
    with pytest.raises(ValueError, match="y_true: no positives; no threshold can be set"):
        metrics.threshold_youden([0, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"specificity: 1\.2; expected a number between 0 and 1"):
        metrics.threshold_at_specificity([0, 1], [0.1, 0.2], 1.2)


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
    macro = sklearn.metrics.f1_score(y, predicted, average="macro", sample_weight=w)
    np.testing.assert_allclose(metrics.macro_f1(y, predicted, 4, w), macro, **EXACT)
    np.testing.assert_allclose(metrics.macro_f1(y, predicted, 4, np.stack([w, w])), macro, **EXACT)
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
    assert np.isnan(metrics.macro_f1([0, 0, 1], [0, 1, 1], 3))
    assert np.isnan(metrics.var_f1(f1))


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
        metrics.f1_gap_signed(f1_a, f1_b), ((18 / 23 - 2 / 3) + (12 / 17 - 4 / 9)) / 2
    )
    np.testing.assert_allclose(
        metrics.f1_gap_signed(f1_a, f1_b), metrics.macro_f1(*a, 2) - metrics.macro_f1(*b, 2)
    )
    assert metrics.f1_gap_signed([0.7, 0.2], [0.5, 0.4]) == pytest.approx(0)
    assert metrics.f1_gap_absolute([0.7, 0.2], [0.5, 0.4]) == pytest.approx(0.2)
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
    mean = fairlearn.metrics.equalized_odds_difference(
        y, predicted, sensitive_features=in_a, agg="mean"
    )
    np.testing.assert_allclose(metrics.eq_odds_mean(*rates), mean, **EXACT)
    np.testing.assert_allclose(metrics.eq_odds_mean(*one_class), mean, **EXACT)
    # several groups, with weights
    group, w = rng.integers(0, 4, 80), rng.integers(0, 4, 80)
    rates = [
        metrics.rates_by_class(y[m], predicted[m], 2, w[m]) for m in (group == g for g in range(4))
    ]
    expected = fairlearn.metrics.equalized_odds_difference(
        y, predicted, sensitive_features=group, sample_weight=w
    )
    np.testing.assert_allclose(metrics.eq_odds_max(*rates), expected, **EXACT)


def test_eq_odds_is_undefined_when_a_class_is_absent():
    a = metrics.rates_by_class([0, 1], [0, 1], 3)
    b = metrics.rates_by_class([0, 1, 2], [0, 1, 2], 3)
    assert np.isnan(metrics.eq_odds_mean(a, b)) and np.isnan(metrics.eq_odds_max(a, b))
    # the same for one label; fairlearn gives a group without positives the rate 0
    y, decision, group = np.array([1, 0, 0, 0]), np.array([1, 0, 0, 0]), np.array([0, 0, 1, 1])
    rates = [metrics.rates_by_class(y[group == g], decision[group == g], 2) for g in (0, 1)]
    assert np.isnan(metrics.eq_odds_max(*rates))
    assert fairlearn.metrics.equalized_odds_difference(y, decision, sensitive_features=group) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.f1_by_class([0, 1], [0, 3], 3),
            r"pred_class: .* in 1 of 2 rows, first row 1 \(pred_class 3\); expected .* 0 to 2",
        ),
        (lambda: metrics.accuracy([0, 1], [0]), r"y_class, pred_class: shapes \(2,\), \(1,\)"),
        (lambda: metrics.f1_gap_signed([0.1], [0.1, 0.2]), r"f1_a, f1_b: shapes \(1,\), \(2,\)"),
        (lambda: metrics.f1_gap_absolute([0.1], [0.1, 0.2]), "f1_a, f1_b: shapes"),
        (lambda: metrics.eq_odds_max(([1], [0])), "rates: 1 groups"),
        (lambda: metrics.eq_odds_mean(([1], [0]), ([1, 1], [0, 0])), "rates: 2 groups, shapes"),
        (lambda: metrics.weighted_mean([0, np.nan]), "x: NaN"),
    ],
)
def test_bad_classes_and_rates_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- twins


def test_twin_shift_is_that_of_the_table_and_worked_by_hand():
    # shifts 1, 1, 4 of scores 0, 2, 4 with standard deviation sqrt(8 / 3)
    assert metrics.twin_shift([1, 3, 8], [0, 2, 4]) == pytest.approx(2 / np.sqrt(8 / 3))
    rng = np.random.default_rng(0)
    b = 20 + rng.normal(size=50)
    a = b + rng.normal(0.3, 0.2, 50)
    row = shortcuts.twin_shift(a, b, np.arange(50), n_resamples=5).iloc[0]
    assert metrics.twin_shift(a, b) == pytest.approx(row["value"])
    w = rng.integers(0, 3, (4, 50))
    expected = [np.repeat(a - b, v).mean() / np.repeat(b, v).std() for v in w]
    np.testing.assert_allclose(metrics.twin_shift(a, b, w), expected)
    assert np.isnan(metrics.twin_shift([1.0, 2.0], [0.1, 0.1]))
    assert np.isnan(metrics.twin_shift([1.0, 2.0], [0.1, 0.3], [1, 0]))

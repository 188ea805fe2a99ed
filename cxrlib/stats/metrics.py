r"""Performance and fairness metrics as pure functions on arrays.

Every function takes `weights`: None, one weight per image (n,), or a matrix (B, n) with one row per
resample; the answer is then one number per row. A resample drawn with replacement *is* a row of
small whole-number weights (how often each image was drawn), which lets a thousand resamples share
one sort. What is not defined (one class only, no weight at all) is NaN.

The fields at the end of a docstring (Formula, Source, ...) are the metric's card:
`cxrlib.book.metric_cards` makes a page of the book from them.

S = Sourget et al. 2025, X = Sun et al. 2025.
"""

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.core import checks, levels
from cxrlib.stats.ranking import Value, Weights, as_weights, binary, finite, ranking, shaped

Rates = tuple[np.ndarray, np.ndarray]  # true and false positive rates, each (C,) or (B, C)

# --- ranking of one label ---------------------------------------------------------------------


def auc(y_true: ArrayLike, score: ArrayLike, weights: Weights = None) -> Value:
    r"""Area under the ROC curve.

    y_true (n,) of 0/1; score (n,) finite numbers -> float or (B,). Equals scikit-learn's
    `roc_auc_score`.

    :Formula: $P(s_+ > s_-) + \tfrac{1}{2}\, P(s_+ = s_-)$ for the scores $s_+$ and $s_-$ of a
        positive and a negative image, each drawn at random.
    :Source: S section 2.1; Hanley and McNeil 1982.
    :Range: [0, 1]
    :Direction: higher is better
    :Zero means: Every negative scores above every positive. A ranking without any information has
        0.5, not 0.
    :Undefined when: Only one class has weight.
    :Look-alikes: The AUC of a group ranks the positives of the group against its own negatives:
        groups with equal AUC can have very different error rates at one shared threshold. The AUC
        of a probe (S Table 2) is a mean over groups of one-versus-rest AUCs. The plus-minus beside
        a mean in S Table 1 is the standard deviation over six findings, not the uncertainty of an
        AUC.
    """
    return ranking(y_true, score, weights)["auc"]


def average_precision(y_true: ArrayLike, score: ArrayLike, weights: Weights = None) -> Value:
    r"""Average precision, the area under the precision-recall curve as a sum of steps.

    y_true (n,) of 0/1; score (n,) finite numbers -> float or (B,). Equals scikit-learn's
    `average_precision_score` wherever both classes are present.

    :Formula: $\sum_k (R_k - R_{k-1})\, P_k$ with precision $P_k$ and recall $R_k$ among the images
        that score at least the $k$-th largest distinct score, and $R_0 = 0$.
    :Source: The AUPRC of S section 2.1.
    :Range: (0, 1]
    :Direction: higher is better
    :Zero means: Not reached; approached when few positives rank below many negatives. Constant
        scores have the prevalence, not 0.
    :Undefined when: Only one class has weight. (scikit-learn returns 0 without positives and 1
        without negatives; neither says anything about the scores.)
    :Look-alikes: The trapezoidal area under the same curve, which interpolates between its points
        and is usually too large. Mean average precision (mAP), a mean of this over labels. Values
        of groups with different prevalence cannot be compared: the chance level moves with it.
    """
    return ranking(y_true, score, weights)["average_precision"]


def adjusted_auprc(y_true: ArrayLike, score: ArrayLike, weights: Weights = None) -> Value:
    r"""Prevalence-adjusted area under the precision-recall curve.

    y_true (n,) of 0/1; score (n,) finite numbers -> float or (B,). The prevalence is that of the
    same (weighted) sample, so each resample has its own.

    At prevalence 0 there is no recall to average over; at prevalence 1 both logarithms are 0. Both
    are NaN, and no limit would do instead: with one negative among n images a perfect ranking has
    1, constant scores have 0, and a ranking with the negative on top falls without bound as
    n grows.

    :Formula: $1 - \dfrac{\log \mathrm{AP}}{\log \pi}$ with the average precision AP and the
        prevalence $\pi$ of the sample.
    :Source: S section 2.1, after Mosquera et al. 2024.
    :Range: at most 1, no lower bound
    :Direction: higher is better
    :Zero means: Average precision equals prevalence, as it does for constant scores and, in a large
        sample, for random ones. In a small sample a random ranking is above 0 on average.
    :Undefined when: Only one class has weight, that is at prevalence 0 (average precision is 0/0)
        and at prevalence 1 (the quotient of logarithms is 0/0).
    :Look-alikes: Average precision itself; its difference from or ratio to prevalence; the area
        under the precision-recall-gain curve (Flach and Kull 2015). *Adjusted* does not mean
        independent of prevalence: one ROC curve gives different values at different prevalences, so
        a gap between groups can be prevalence alone.
    """
    return ranking(y_true, score, weights)["adjusted_auprc"]


# --- probability of one label -----------------------------------------------------------------


def brier(y_true: ArrayLike, p: ArrayLike, weights: Weights = None) -> Value:
    r"""Brier score, the mean squared difference of probability and outcome.

    y_true (n,) of 0/1; p (n,) in [0, 1] -> float or (B,). Equals scikit-learn's
    `brier_score_loss`.

    :Formula: $\dfrac{1}{n} \sum_i (p_i - y_i)^2$
    :Source: Brier 1950, in the form for one label.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: Every outcome was predicted with certainty, and rightly.
    :Undefined when: No image has weight.
    :Look-alikes: The original form sums over both outcomes and is twice as large. The Brier skill
        score compares with a reference and is higher for better. A calibration error: the Brier
        score also contains how well positives and negatives are told apart, and how hard that is.
        Giving everybody the prevalence scores prevalence times (1 - prevalence), so groups of
        different prevalence differ before any model is involved.
    """
    y, p = probabilities(y_true, p)
    return weighted_mean((p - y) ** 2, weights)


# --- decisions on one label -------------------------------------------------------------------


def threshold_youden(y_true: ArrayLike, score: ArrayLike) -> float:
    """Operating point with the largest Youden index, sensitivity + specificity - 1.

    A score *above* the threshold is a yes. Of thresholds with the same index the highest is taken,
    which calls fewest images positive. Chosen and judged on the same images, the index is too
    good: choose on validation patients.

    Parameters
    ----------
    y_true : (n,) of 0/1
    score : (n,) finite numbers

    Returns
    -------
    float, one of the scores

    Raises
    ------
    ValueError
        If one class is absent: there is nothing to weigh against.

    Source: Youden 1950.
    """
    y, s = binary(y_true, score)
    _need(y, "positives")
    _need(~y, "negatives")
    values, at = np.unique(s, return_inverse=True)
    below = [np.cumsum(np.bincount(at[of], minlength=len(values))) for of in (y, ~y)]
    # the index times both class sizes, in whole numbers so that ties are ties
    index = below[1] * int(y.sum()) - below[0] * int((~y).sum())
    return float(values[::-1][np.argmax(index[::-1])])


def threshold_at_specificity(y_true: ArrayLike, score: ArrayLike, specificity: float) -> float:
    """Operating point with a wanted specificity: the smallest score that reaches it.

    A score *above* the threshold is a yes; at least this share of the negatives is not above it.

    Parameters
    ----------
    y_true : (n,) of 0/1
    score : (n,) finite numbers
    specificity : share of negatives called negative, between 0 and 1

    Returns
    -------
    float, the score of a negative

    Raises
    ------
    ValueError
        If there are no negatives, or for a specificity outside (0, 1).
    """
    checks.fractions(specificity=specificity)
    y, s = binary(y_true, score)
    _need(~y, "negatives")
    negatives = np.sort(s[~y])
    # 0.55 * 100 is a little more than 55 in floating point
    return float(negatives[int(np.ceil(specificity * len(negatives) - 1e-9)) - 1])


def _need(which, name):
    if not which.any():
        raise ValueError(f"y_true: no {name}; no threshold can be set. Pool more images.")


def sensitivity(y_true: ArrayLike, decision: ArrayLike, weights: Weights = None) -> Value:
    r"""Sensitivity, the share of the positives that are called positive.

    y_true, decision (n,) of 0/1, such as score > threshold -> float or (B,).

    :Formula: $\dfrac{TP}{TP + FN}$
    :Source: Standard. Also called recall or true positive rate; the TP of X Eq. 3 is this rate, not
        a count. Its equality between groups is *equal opportunity* (Hardt et al. 2016).
    :Range: [0, 1]
    :Direction: higher is better
    :Zero means: No positive is called positive.
    :Undefined when: No positive has weight.
    :Look-alikes: Precision, the share of those called positive that are positive. A sensitivity
        without its operating point is half a number: calling everybody positive has 1.
    """
    y, d = _decided(y_true, decision)
    return _share(y & d, y, weights)


def specificity(y_true: ArrayLike, decision: ArrayLike, weights: Weights = None) -> Value:
    r"""Specificity, the share of the negatives that are called negative.

    y_true, decision (n,) of 0/1 -> float or (B,).

    :Formula: $\dfrac{TN}{TN + FP}$
    :Source: Standard. Also called true negative rate.
    :Range: [0, 1]
    :Direction: higher is better
    :Zero means: No negative is called negative.
    :Undefined when: No negative has weight.
    :Look-alikes: Negative predictive value, the share of those called negative that are negative.
    """
    y, d = _decided(y_true, decision)
    return _share(~y & ~d, ~y, weights)


def false_negative_rate(y_true: ArrayLike, decision: ArrayLike, weights: Weights = None) -> Value:
    r"""False negative rate, the share of the positives that are missed.

    y_true, decision (n,) of 0/1 -> float or (B,). 1 - sensitivity.

    :Formula: $\dfrac{FN}{TP + FN}$
    :Source: Standard. Also called miss rate.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: Every positive is called positive.
    :Undefined when: No positive has weight.
    :Look-alikes: False omission rate, the share of those called negative that are positive. The
        underdiagnosis rate: a false negative for one finding is no underdiagnosis in its sense if
        the image is called positive for another finding.
    """
    y, d = _decided(y_true, decision)
    return _share(y & ~d, y, weights)


def false_positive_rate(y_true: ArrayLike, decision: ArrayLike, weights: Weights = None) -> Value:
    r"""False positive rate, the share of the negatives that are called positive.

    y_true, decision (n,) of 0/1 -> float or (B,). 1 - specificity.

    :Formula: $\dfrac{FP}{FP + TN}$
    :Source: Standard. Also called fall-out; the FP of X Eq. 3 is this rate, not a count.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: No negative is called positive.
    :Undefined when: No negative has weight.
    :Look-alikes: False discovery rate, the share of those called positive that are negative. For
        the label *No Finding* a false positive is a missed disease: there this rate is the
        underdiagnosis rate.
    """
    y, d = _decided(y_true, decision)
    return _share(~y & d, ~y, weights)


def underdiagnosis_rate(
    no_finding: ArrayLike, called_no_finding: ArrayLike, weights: Weights = None
) -> Value:
    r"""Underdiagnosis rate, the share of images with any finding that are called *no finding*.

    Two readings of one number: the false positive rate of the label *No Finding*, and the false
    negative rate of *any finding*. They agree as long as an image is called *no finding*
    exactly when it is not called *any finding*; what counts here is who was called *no finding*.

    no_finding : (n,) of 0/1, 1 where the image truly shows none of the findings
    called_no_finding : (n,) of 0/1, 1 where the model says so
    weights : None, (n,) or (B, n) -> float or (B,)

    :Formula: $P(\hat{y}_{\mathrm{NF}} = 1 \mid y_{\mathrm{NF}} = 0)$ for the label *No Finding*
        (NF).
    :Source: Seyyed-Kalantari et al. 2021.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: No image with a finding is called healthy. It may still be given the wrong finding.
    :Undefined when: No image with a finding has weight.
    :Look-alikes: The false negative rate of one finding, also called underdiagnosis in places. The
        overdiagnosis rate, the share of healthy images that are called ill, is the false negative
        rate of *No Finding*. The false omission rate is a share of those called healthy, not of
        those who are ill.
    """
    return false_positive_rate(no_finding, called_no_finding, weights)


# --- one class out of several -----------------------------------------------------------------


def accuracy(y_class: ArrayLike, pred_class: ArrayLike, weights: Weights = None) -> Value:
    r"""Accuracy, the share of images whose predicted class is the true one.

    y_class, pred_class : (n,) classes -> float or (B,).

    :Formula: $\dfrac{1}{n} \sum_i [\hat{y}_i = y_i]$ where $[\cdot]$ is 1 if the classes are the
        same and 0 if not.
    :Source: X section 2.4.
    :Range: [0, 1]
    :Direction: higher is better
    :Zero means: No image is given its true class. Guessing among $C$ equally frequent classes has
        $1/C$.
    :Undefined when: No image has weight.
    :Look-alikes: Balanced accuracy, the mean of the sensitivities of the classes. The accuracy of
        one yes-or-no label, which always saying no makes high for a rare finding.
    """
    checks.same_length(y_class=y_class, pred_class=pred_class)
    y, p = np.asarray(y_class), np.asarray(pred_class)
    levels.one_kind(y_class=y, pred_class=p)
    return weighted_mean(y == p, weights)


def f1_by_class(
    y_class: ArrayLike, pred_class: ArrayLike, n_classes: int, weights: Weights = None
) -> np.ndarray:
    r"""F1 of each class against the rest.

    Parameters
    ----------
    y_class, pred_class : (n,) whole numbers in 0..n_classes-1
    weights : None, (n,) or (B, n)

    Returns
    -------
    (C,) or (B, C)

    :Formula: $F1_c = \dfrac{2\, TP_c}{2\, TP_c + FP_c + FN_c}$, the harmonic mean of the precision
        and the recall of class $c$.
    :Source: X section 2.4.
    :Range: [0, 1]
    :Direction: higher is better
    :Zero means: No image of the class is given that class, though it occurs or is predicted.
    :Undefined when: The class neither occurs nor is predicted. (scikit-learn returns 0.)
    :Look-alikes: Micro-averaged F1, which is accuracy when every image gets exactly one class. F1
        at the threshold where it is largest. F1 depends on how frequent the class is, so a group of
        another mix of diseases has another F1 at equal error rates.
    """
    y, p = _classes(y_class, pred_class, n_classes)
    return _share(2 * y * p, y + p, weights)


def macro_f1(
    y_class: ArrayLike, pred_class: ArrayLike, n_classes: int, weights: Weights = None
) -> Value:
    r"""Macro F1, the unweighted mean of F1 over the classes.

    Parameters as in `f1_by_class` -> float or (B,).

    :Formula: $\overline{F1} = \dfrac{1}{C} \sum_c F1_c$
    :Source: X section 2.4, the average F1 of a group.
    :Range: [0, 1]
    :Direction: higher is better
    :Zero means: No image is given its true class.
    :Undefined when: Any class neither occurs nor is predicted. (scikit-learn counts it as 0.)
    :Look-alikes: Weighted F1, in which frequent classes count more. The F1 of macro-averaged
        precision and recall. Micro F1, which is accuracy here.
    """
    return f1_by_class(y_class, pred_class, n_classes, weights).mean(axis=-1)[()]


def var_f1(f1: ArrayLike) -> Value:
    r"""Variance of F1 over the classes.

    f1 : (C,) or (B, C) from `f1_by_class` -> float or (B,).

    :Formula: $\dfrac{1}{C} \sum_c (F1_c - \overline{F1})^2$
    :Source: X Eq. 1.
    :Range: [0, 0.25]
    :Direction: lower is better
    :Zero means: All classes have the same F1, be it high or low: a classifier that is right about
        nothing has 0.
    :Undefined when: The F1 of any class is.
    :Look-alikes: The sample variance, with divisor $C - 1$. The standard deviation: X prints the
        variance in per cent, so that 1.7 % is a standard deviation of 0.13. It is a spread between
        diseases, not between patients.
    """
    return np.var(f1, axis=-1)[()]


def rates_by_class(
    y_class: ArrayLike, pred_class: ArrayLike, n_classes: int, weights: Weights = None
) -> Rates:
    """True and false positive rate of each class against the rest, for `eq_odds_mean` and `_max`.

    For one yes-or-no decision pass y, decision and 2: the rates of "no" mirror those of "yes",
    so equalised odds are those of the one label.

    Returns
    -------
    tpr, fpr : each (C,) or (B, C) in [0, 1]
        NaN where the class (for fpr: every other class) has no weight.
    """
    y, p = _classes(y_class, pred_class, n_classes)
    return _share(y * p, y, weights), _share((1 - y) * p, 1 - y, weights)


# --- gaps between groups ----------------------------------------------------------------------


def f1_gap_signed(f1_a: ArrayLike, f1_b: ArrayLike) -> Value:
    r"""Signed F1 gap, the mean over classes of the difference in F1 between two groups.

    f1_a, f1_b : (C,) or (B, C) from `f1_by_class` -> float or (B,).

    :Formula: $\dfrac{1}{C} \sum_c (F1_A^c - F1_{A'}^c)$
    :Source: X Eq. 2, as printed.
    :Range: [-1, 1]
    :Direction: closer to 0 is better
    :Zero means: The gaps of the classes cancel. It does not mean that there are none.
    :Undefined when: The F1 of any class is, in either group.
    :Look-alikes: `f1_gap_absolute`. It equals the difference in macro F1. X prints positive values
        and does not say which group comes first.
    """
    return np.mean(_class_differences(f1_a, f1_b), axis=-1)[()]


def f1_gap_absolute(f1_a: ArrayLike, f1_b: ArrayLike) -> Value:
    r"""Absolute F1 gap, the mean over classes of the absolute difference in F1.

    f1_a, f1_b : (C,) or (B, C) from `f1_by_class` -> float or (B,).

    :Formula: $\dfrac{1}{C} \sum_c |F1_A^c - F1_{A'}^c|$
    :Source: X Eq. 2 with a modulus in every class, which the equation does not have.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: Equal F1 in every class. In a finite sample an exactly fair classifier is above 0:
        compare with the noise floor, not with 0.
    :Undefined when: The F1 of any class is, in either group.
    :Look-alikes: `f1_gap_signed`, in which classes cancel; this one is at least as large as its
        modulus.
    """
    return np.mean(np.abs(_class_differences(f1_a, f1_b)), axis=-1)[()]


def eq_odds_mean(rates_a: Rates, rates_b: Rates) -> Value:
    r"""Equalised odds as X defines it, the mean of all TPR and FPR gaps between two groups.

    rates_a, rates_b : (tpr, fpr) of two groups from `rates_by_class` -> float or (B,).

    :Formula: $\dfrac{1}{2C} \sum_c \left( |TPR_A^c - TPR_{A'}^c| + |FPR_A^c - FPR_{A'}^c| \right)$
    :Source: X Eq. 3; the criterion is that of Hardt et al. 2016.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: Both groups have the same true and false positive rate in every class. In a finite
        sample an exactly fair classifier is above 0.
    :Undefined when: A class (or all others together) has no weight in one of the groups.
    :Look-alikes: `eq_odds_max`, which is at least as large. fairlearn's `equalized_odds_difference`
        is that maximum unless asked for `agg="mean"`. FairMedFM (Jin et al. 2024) reports 1 minus
        the mean of TPR and TNR gap, so that 1 is fair. The *average odds difference* of AIF360 is
        signed and can cancel.
    """
    tpr, fpr = _rate_gaps(rates_a, rates_b)
    return np.mean((tpr + fpr) / 2, axis=-1)[()]


def eq_odds_max(*rates: Rates) -> Value:
    r"""Equalised odds as fairlearn defines it, the larger of TPR and FPR gap.

    rates : (tpr, fpr) of two or more groups from `rates_by_class` -> float or (B,).

    With several classes it is the mean over classes of the larger gap in each. For one class, or
    two that exclude each other, it is fairlearn's `equalized_odds_difference`.

    :Formula: $\dfrac{1}{C} \sum_c \max\left( \max_A TPR_A^c - \min_A TPR_A^c,\; \max_A FPR_A^c -
        \min_A FPR_A^c \right)$
    :Source: fairlearn's `equalized_odds_difference` (Weerts et al. 2023); the mean over classes is
        ours.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: All groups have the same true and false positive rate in every class. In a finite
        sample an exactly fair classifier is above 0, and the more groups, the more.
    :Undefined when: A class (or all others together) has no weight in one of the groups. (fairlearn
        takes such a rate as 0, which can pass for the worst group.)
    :Look-alikes: `eq_odds_mean` (X Eq. 3). FairMedFM (Jin et al. 2024) reports 1 minus the mean of
        TPR and TNR gap, so that 1 is fair.
    """
    return np.mean(np.maximum(*_rate_gaps(*rates)), axis=-1)[()]


def calibration_gap_eq4(
    p_a: ArrayLike,
    outcome_a: ArrayLike,
    p_b: ArrayLike,
    outcome_b: ArrayLike,
    weights_a: Weights = None,
    weights_b: Weights = None,
) -> Value:
    r"""Calibration gap of X, the difference between two groups in mean absolute residual.

    p, outcome : (n_A,) and (n_A',) probabilities and 0/1 outcomes; weights (n,) or (B, n) each
    -> float or (B,).

    :Formula: $\left| \dfrac{1}{N_A} \sum_{i \in A} |p_i - o_i| - \dfrac{1}{N_{A'}} \sum_{j \in A'}
        |p_j - o_j| \right|$
    :Source: X Eq. 4, as printed. X does not say which probability is meant; the tables here take
        that of the predicted class, and whether it is the true one as the outcome.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: Equal mean residuals. Neither group needs to be calibrated.
    :Undefined when: A group has no weight.
    :Look-alikes: A gap in expected calibration error, which X calls it: there are no bins here, so
        $|p - o|$ is also large for a perfectly calibrated 0.5, and a group in which the model is
        more often sure has a smaller residual at equal calibration. See `ece_equal_width`.
    """
    residual = []
    for p, outcome, weights in ((p_a, outcome_a, weights_a), (p_b, outcome_b, weights_b)):
        o, p = probabilities(outcome, p)
        residual.append(weighted_mean(np.abs(p - o), weights))
    return np.abs(np.subtract(*residual))[()]


def twin_shift(changed: ArrayLike, reference: ArrayLike, weights: Weights = None) -> Value:
    r"""Twin shift, how far a score moves when one thing in the image changes.

    changed, reference : (n,) scores or margins of the same images in the same order
    weights : None, (n,) or (B, n) -> float or (B,)

    :Formula: $\dfrac{\frac{1}{n} \sum_i (a_i - b_i)}{\mathrm{SD}(b)}$ with the score $a_i$ of the
        changed image, $b_i$ of its untouched twin, and the standard deviation (divisor $n$) over
        the untouched images.
    :Source: Ours; needs images that can be rendered twice, as the phantom's can.
    :Range: no bounds
    :Direction: closer to 0 is better
    :Zero means: On average the change does not move the score. Shifts up and down can cancel.
    :Undefined when: No image has weight, or the untouched images all score the same.
    :Look-alikes: Cohen's *d*, which compares different people. The paired $d_z$, which divides by
        the standard deviation of the differences and so grows without limit when every image moves
        alike.
    """
    checks.same_length(changed=changed, reference=reference)
    a, b = finite(changed, "changed"), finite(reference, "reference")
    b_moved = b - b.mean()  # the variance does not depend on the origin, its rounding does
    mean, mean_square = (weighted_mean(x, weights) for x in (b_moved, b_moved**2))
    variance = mean_square - np.square(mean)
    smallest = 1e-12 * (b_moved**2).max(initial=0)
    spread = np.sqrt(np.where(variance > smallest, variance, np.nan))
    return (weighted_mean(a - b, weights) / spread)[()]


# --- how it is done ---------------------------------------------------------------------------


def weighted_mean(x: ArrayLike, weights: Weights = None) -> Value:
    """Mean of x (n,), finite numbers, under weights; float or (B,); NaN where no weight is."""
    numbers = finite(x, "x")
    return _share(numbers, np.ones(len(numbers)), weights)


def probabilities(y_true: ArrayLike, p: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Truth as (n,) bool and probabilities as (n,) float; ValueError for any outside [0, 1]."""
    y, p = binary(y_true, p, "p")
    p = checks.unit_interval(p)
    checks.refuse(
        (p < 0) | (p > 1),
        "p: values outside [0, 1]",
        "probabilities. Pass scores through a sigmoid or softmax first",
        p=p,
    )
    return y, p


def _share(part, whole, weights):
    """Weighted sum of `part` over that of `whole`, both (n,) or (n, C): NaN where it is 0/0."""
    w, is_matrix = as_weights(weights, len(part))
    with np.errstate(invalid="ignore", divide="ignore"):
        return shaped((w @ part.astype(float)) / (w @ whole.astype(float)), is_matrix)


def _decided(y_true, decision):
    checks.same_length(y_true=y_true, decision=decision)
    return checks.outcomes(y_true, "y_true"), checks.outcomes(decision, "decision")


def _classes(y_class, pred_class, n_classes):
    checks.same_length(y_class=y_class, pred_class=pred_class)
    coded = []
    for name, values in (("y_class", y_class), ("pred_class", pred_class)):
        c = checks.comparable(values)
        checks.refuse(
            ~np.isin(c, np.arange(n_classes)),
            f"{name}: entries that are no class",
            f"whole numbers from 0 to {n_classes - 1}",
            **{name: c},
        )
        coded.append(np.eye(n_classes)[c.astype(int)])
    return coded


def _class_differences(f1_a, f1_b):
    if np.shape(f1_a) != np.shape(f1_b):
        raise ValueError(
            f"f1_a, f1_b: shapes {np.shape(f1_a)}, {np.shape(f1_b)}; expected the same classes and "
            "resamples, (C,) or (B, C)."
        )
    return np.subtract(f1_a, f1_b)


def _rate_gaps(*rates):
    """Largest difference between the groups in TPR and in FPR, each (C,) or (B, C)."""
    shapes = {np.shape(r) for pair in rates for r in pair}
    if len(rates) < 2 or len(shapes) > 1:
        raise ValueError(
            f"rates: {len(rates)} groups, shapes {', '.join(map(str, shapes))}; expected two or "
            "more groups with the same classes and resamples, (C,) or (B, C)."
        )
    tpr, fpr = (np.stack(of_groups) for of_groups in zip(*rates, strict=True))
    return tpr.max(axis=0) - tpr.min(axis=0), fpr.max(axis=0) - fpr.min(axis=0)

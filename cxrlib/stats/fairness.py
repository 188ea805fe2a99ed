"""Performance of models in groups of patients, and the gaps between groups, as results tables.

Every table comes from one set of patient resamples: groups, labels and models are evaluated on
the same draws, so intervals of gaps and of means over labels account for what they share.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Unpack

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.core import checks
from cxrlib.stats import calibration, metrics
from cxrlib.stats import estimates as est

DEFAULT = ("auc", "adjusted_auprc")

# --- one label at a time ---------------------------------------------------------------------


def performance_table(
    predictions: pd.DataFrame,
    metrics: str | Sequence[str] = DEFAULT,
    attributes: est.Attributes = (),
    **options: Unpack[est.Options],
) -> pd.DataFrame:
    """Metrics over all patients and in each group, with intervals (S Table 1, Fig. 1).

    Parameters
    ----------
    predictions : DataFrame
        The long table of `cxrlib.schema.predictions`, with the attribute columns joined in.
    metrics : names out of auc, average_precision, adjusted_auprc, brier, ece_equal_width,
        ece_equal_mass, calibration_in_the_large; for a table of `decide` also sensitivity,
        specificity, false_negative_rate, false_positive_rate
    attributes : names of columns such as ("sex", "age_group"), tuples of names for
        intersections such as ("sex", "age_group"), or a dict from these to groups that restricts
        and orders them: {"age_group": ["25-50", "50-65", "65-80"]}
    match : "prevalence", a column such as "view" or "age_group", or several of these: images are
        weighted so that every group has the cohort's shares of the strata, in the sample and in
        every resample; rows of groups then have the attribute "sex, matched on view". Strata
        that some group lacks get no weight in any, and the note counts the images lost. By default
        nothing is matched.
    mean_over_labels : by default True, add rows with label "mean": the mean over the labels that
        are defined in every group of the attribute, so that all groups are averaged over the same
        findings. The note names labels left out; counts are those of the scarcest label kept.
    protocol : name ("corrected" by default) or Protocol; its switches unit (see
        `cxrlib.stats.bootstrap.Resamples`), interval (see `cxrlib.stats.bootstrap.interval`; or
        "analytic", which draws no resamples: `cxrlib.stats.analytic`, all metrics but the ece) and
        min_cases: a group with fewer positive, or negative, images gets NaN and a note
    n_resamples : of patients, or of the protocol's unit; 500 by default
    seed : of the resamples; 1907 by default

    Returns
    -------
    Results table: rows with attribute and group "all", then each group of each attribute.

    Raises
    ------
    ValueError
        For an unknown metric, attribute or group, or a malformed predictions table.
    """
    out = []
    for study, found in est.estimated(predictions, attributes, metrics, **options):
        out += est.rows(found, study)
    return _matched(schema.results(out), options.get("match"))


def gap_table(
    predictions: pd.DataFrame,
    attribute: est.Attribute,
    pairs: est.Pairs | None = None,
    *,
    reference: str | None = None,
    groups: Sequence[str] | None = None,
    metrics: str | Sequence[str] = DEFAULT,
    **options: Unpack[est.Options],
) -> pd.DataFrame:
    """Signed gaps "A - B" between groups, with paired intervals.

    Each resample of patients gives one gap; the interval is that of these gaps. Whether the
    intervals of the two groups overlap is not a test of their gap.

    Parameters
    ----------
    attribute : column such as "age_group", or a tuple of columns to cross
    pairs : list of (A, B); all pairs if neither pairs nor reference is given
    reference : the group B of every pair, such as "White"
    groups : the groups considered, also in the choice of labels for the mean; all by default
    options, predictions, metrics : as in `performance_table`

    Returns
    -------
    Results table with group "A - B"; n, n_positive and n_negative are sums, n_patients counts
    distinct ones.
    """
    out = []
    name = est.attribute_name(attribute)
    for study, found in est.estimated(predictions, {attribute: groups}, metrics, **options):
        pairs_here = est.pairs_of(study.groups[name], pairs, reference)
        out += est.rows(est.group_gaps(found, name, pairs_here), study, differences=True)
    return _matched(schema.results(out), options.get("match"))


def overlapping(gaps: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """The gaps whose two groups have intervals that overlap.

    Parameters
    ----------
    gaps : results table, from `gap_table`
    results : results table with the groups of these gaps, from `performance_table`
    """
    where = ["model", "method", "label", "attribute", "metric"]
    limits = results[[*where, "group", "ci_low", "ci_high"]]
    pair = gaps["group"].str.split(" - ", expand=True).reindex(columns=[0, 1])
    a, b = (gaps[where].assign(group=pair[i]).merge(limits, how="left") for i in (0, 1))
    meet = (a["ci_low"] <= b["ci_high"]) & (b["ci_low"] <= a["ci_high"])
    return gaps[meet.to_numpy()]


def model_gap_table(
    predictions: pd.DataFrame,
    pairs: est.Pairs | None = None,
    *,
    metrics: str | Sequence[str] = DEFAULT,
    attributes: est.Attributes = (),
    mean_over_labels: bool = True,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """Differences "A - B" between models on the same images, with paired intervals.

    Parameters
    ----------
    pairs : list of (model A, model B); all pairs by default
    others : as in `performance_table`; sampling is protocol, n_resamples and seed

    Returns
    -------
    Results table with model "A - B", overall and in each group of the attributes.
    """
    out = []
    for study, found in est.estimated(
        predictions, attributes, metrics, mean_over_labels=mean_over_labels, match=None, **sampling
    ):
        images = study.predictions.groupby(["model", "method", "label"], observed=True)["image_id"]
        if images.agg(frozenset).groupby("label").nunique().max() > 1:
            raise ValueError(
                "predictions: the models were not run on the same images; predict with all of "
                "them on one cohort to compare them."
            )
        gaps = {}
        for a, b in est.pairs_of(list(dict.fromkeys(key.model for key in found)), pairs, None):
            for key, of_a in found.items():
                other = key._replace(model=b)
                if key.model == a and other in found:
                    gap = est.difference(of_a, found[other], a, b)
                    gaps[key._replace(model=f"{a} - {b}")] = gap
        out += est.rows(gaps, study, differences=True)
    return schema.results(out)


def _matched(table, match):
    """Rows of matched groups say so in their attribute."""
    if match is None:
        return table
    names = match if isinstance(match, str) else " and ".join(match)
    matched = table["attribute"].where(
        table["attribute"] == "all", table["attribute"] + f", matched on {names}"
    )
    return table.assign(attribute=matched)


def decide(
    predictions: pd.DataFrame, specificity: float | None = None, *, threshold: float | None = None
) -> pd.DataFrame:
    """Scores turned into yes (1) or no (0) at one operating point for all patients.

    A score above the threshold is a yes. The threshold is set for each cohort, model, method and
    label; it is the same in every group and stays as it is in resamples, like that of a device in
    use. Name exactly one operating point.

    Parameters
    ----------
    predictions : DataFrame, as in `performance_table`
    specificity : wanted share of all negatives called negative, see
        `cxrlib.stats.metrics.threshold_at_specificity`
    threshold : number, the same for all models and labels

    Returns
    -------
    The predictions with 0/1 in the column score, for the metrics sensitivity, specificity,
    false_negative_rate and false_positive_rate.

    Raises
    ------
    ValueError
        For no or two operating points, or a label without negatives to set the threshold.
    """
    if (specificity is None) == (threshold is None):
        raise ValueError("decide: expected exactly one of specificity=0.8 or threshold=0.5.")
    table = schema.predictions(predictions)
    score, yes = table["score"].to_numpy(), np.zeros(len(table))
    for names, block in table.groupby(list(schema.KEYS), sort=False, observed=True):
        at, own = threshold, score[block.index]
        try:
            if at is None:
                at = metrics.threshold_at_specificity(block["y_true"], own, specificity)
        except ValueError as error:
            raise ValueError(f"predictions, {', '.join(names)}: {error}") from None
        yes[block.index] = own > checks.precision(own)(at)
    return predictions.assign(score=yes)


# --- one class out of several ----------------------------------------------------------------


def multiclass_table(
    predictions: pd.DataFrame,
    attributes: est.Attributes = ("sex", "age_group"),
    pairs: Mapping[str, est.Pairs] | None = None,
    *,
    baseline: str | None = None,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """Utility and fairness of a classifier that picks one class per image (X section 2.4).

    The predicted class is the label with the highest score, the first of equals. For Eq. 4, p is
    the score of the predicted class and the outcome is whether that class is the true one.

    Parameters
    ----------
    predictions : DataFrame, one row per image x class: y_true one-hot, score a probability
    attributes : names, or a dict name -> groups, as in `performance_table`
    pairs : dict attribute -> list of (A, B); all pairs of groups by default
    baseline : a method, such as "zero-shot": adds rows with method "lora - zero-shot", the
        paired change of every number that each other method brings to the same model
    sampling : protocol (its switches unit and interval), n_resamples and seed, as in
        `performance_table`

    Returns
    -------
    Results table. Overall and in each group: accuracy, f1 (label = class), macro_f1 and var_f1
    (Eq. 1). For each pair "A - B": differences in accuracy and macro_f1, f1_gap_signed (Eq. 2),
    f1_gap_absolute, eq_odds_mean (Eq. 3), eq_odds_max (fairlearn's), calibration_gap_eq4 (Eq. 4),
    ece_gap (binned).

    Rows over all classes have label "all" and counts of the scarcest class. Metrics made of
    absolute differences are above 0 in a finite sample even for a perfectly fair classifier.
    """
    out = []
    for study in est.studies(predictions, attributes, **sampling):
        found = {}
        for names, answers in class_answers(study):
            for where, estimate in multiclass_estimates(answers, study, pairs or {}).items():
                found[est.Key(*names, *where)] = estimate
        if baseline is not None:
            found |= _changes(found, baseline)
        out += est.rows(found, study)
    return schema.results(out)


class Answers(NamedTuple):
    """What one model answered: true and predicted classes of k images."""

    y: np.ndarray  # (k,)
    predicted: np.ndarray  # (k,)
    p: np.ndarray  # (k,) probability of the predicted class
    image: np.ndarray  # (k,) positions in the study
    labels: list  # class names


def class_answers(study: est.Study) -> Iterator[tuple[tuple[str, str], Answers]]:
    """For each model and method of a study: their names, and their Answers."""
    found = study.predictions.groupby(["model", "method"], sort=False, observed=True)
    for names, block in found:
        wide = block.pivot(index="image_id", columns="label", values=["y_true", "score"])
        labels = list(dict.fromkeys(block["label"]))
        truth = wide["y_true"][labels].to_numpy(float)
        score = wide["score"][labels].to_numpy(float)
        if not (truth.sum(axis=1) == 1).all():  # a missing row, NaN after the pivot, fails too
            raise ValueError(
                "predictions: column 'y_true' is not one-hot over the labels; expected one row for "
                "every image and class, with exactly one true class per image."
            )
        image = study.images.index.get_indexer(wide.index)
        best = score.argmax(axis=1), score.max(axis=1)
        yield names, Answers(truth.argmax(axis=1), *best, image, labels)


def multiclass_estimates(
    answers: Answers, study: est.Study, pairs: Mapping[str, est.Pairs]
) -> dict[tuple[str, str, str, str], est.Counted]:
    """All estimates of one model and method: (label, attribute, group, metric) -> Estimate."""
    gaps, utility = multiclass_gaps(answers), _multiclass_utility(answers)
    members = {}  # (attribute, group or pair) -> its groups (k,) bool
    for attribute, groups in ({"all": ["all"]} | study.groups).items():
        of = {g: study.member(attribute, g)[answers.image] for g in groups}
        members |= {(attribute, g): [of[g]] for g in groups}
        if attribute != "all":
            for a, b in est.pairs_of(groups, pairs.get(attribute), None):
                members[attribute, f"{a} - {b}"] = [of[a], of[b]]

    def statistic(groups):
        numbers = utility if len(groups) == 1 else gaps
        return lambda w: numbers(*(est.take(w, answers.image) * g for g in groups))

    out = {}
    evaluated = study.evaluate({where: statistic(groups) for where, groups in members.items()})
    for (where, (label, metric)), found in evaluated.items():
        of = np.any(members[where], axis=0)
        note = "" if np.isfinite(found.value) else "undefined: a class is absent"
        # At the source, as a table of gaps alone does not show how small a group is.
        if any(_few(answers, study, m, label) for m in members[where]):
            found = [None if x is None else x * np.nan for x in found]
            note = schema.SUPPRESSED
        patients = np.unique(study.patient[answers.image[of]])
        n = _images(answers, of, label)
        out[label, *where, metric] = est.Counted(*found, *n, patients, note)
    return out


def _images(answers, of, label):
    """Images, positives and negatives among those `of` (k,); over all classes the fewest."""
    count = np.bincount(answers.y[of], minlength=len(answers.labels))
    if label == "all":
        return int(of.sum()), int(count.min()), int(of.sum() - count.max())
    positive = count[answers.labels.index(label)]
    return int(of.sum()), int(positive), int(of.sum() - positive)


def _few(answers, study, of, label):
    """Whether too few images or patients are behind a number of a group to be shown."""
    fewest = schema.smallest_cell()
    if not fewest:
        return False
    patients = len(np.unique(study.patient[answers.image[of]]))
    return any(0 < n < fewest for n in (*_images(answers, of, label), patients))


def _multiclass_utility(answers):
    """Function of weights (b, k) that gives {(label, metric): (b,)} within a group."""
    y, predicted, _, _, labels = answers

    def utility(w):
        f1 = metrics.f1_by_class(y, predicted, len(labels), w)
        values = {(label, "f1"): f1[..., i] for i, label in enumerate(labels)}
        values["all", "accuracy"] = metrics.accuracy(y, predicted, w)
        values["all", "macro_f1"] = f1.mean(axis=-1)
        values["all", "var_f1"] = metrics.var_f1(f1)
        return values

    return utility


def multiclass_gaps(answers: Answers) -> Callable:
    """Function of the weights (b, k) of two groups that gives {("all", metric): (b,)}."""
    y, predicted, p, _, labels = answers
    correct, n = y == predicted, len(labels)

    def gaps(w_a, w_b):
        f1_a, f1_b = (metrics.f1_by_class(y, predicted, n, w) for w in (w_a, w_b))
        rates_a, rates_b = (metrics.rates_by_class(y, predicted, n, w) for w in (w_a, w_b))
        values = {
            "accuracy": metrics.accuracy(y, predicted, w_a) - metrics.accuracy(y, predicted, w_b),
            "macro_f1": f1_a.mean(axis=-1) - f1_b.mean(axis=-1),
            "f1_gap_signed": metrics.f1_gap_signed(f1_a, f1_b),
            "f1_gap_absolute": metrics.f1_gap_absolute(f1_a, f1_b),
            "eq_odds_mean": metrics.eq_odds_mean(rates_a, rates_b),
            "eq_odds_max": metrics.eq_odds_max(rates_a, rates_b),
            "calibration_gap_eq4": metrics.calibration_gap_eq4(p, correct, p, correct, w_a, w_b),
            "ece_gap": calibration.ece_gap(correct, p, w_a, w_b),
        }
        return {("all", metric): value for metric, value in values.items()}

    return gaps


def _changes(estimates, baseline):
    """Paired differences of every other method against the baseline method."""
    checks.one_of("baseline", baseline, sorted({key.method for key in estimates}))
    out = {}
    for key, after in estimates.items():
        before = estimates.get(key._replace(method=baseline))
        if key.method != baseline and before is not None:
            method = f"{key.method} - {baseline}"
            out[key._replace(method=method)] = est.difference(after, before, key.method, baseline)
    return out

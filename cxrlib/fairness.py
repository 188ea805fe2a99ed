"""Performance of models in groups of patients, and the gaps between groups, as results tables.

Every table comes from one set of patient resamples: groups, labels and models are evaluated on
the same draws, so intervals of gaps and of means over labels account for what they share.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxrlib import bootstrap, calibration, schema
from cxrlib import metrics as measure

RANKING_METRICS = ("auc", "average_precision", "adjusted_auprc")
PROBABILITY_METRICS = {
    "brier": measure.brier,
    "ece_equal_width": calibration.ece_equal_width,
    "ece_equal_mass": calibration.ece_equal_mass,
    "calibration_in_the_large": calibration.calibration_in_the_large,
}
DECISION_METRICS = {"sensitivity": measure.sensitivity, "specificity": measure.specificity}
DEFAULT = ("auc", "adjusted_auprc")

# --- one label at a time ---------------------------------------------------------------------


def performance_table(
    predictions,
    metrics=DEFAULT,
    attributes=(),
    *,
    mean_over_labels=True,
    min_positive=10,
    min_negative=10,
    n_resamples=500,
    seed=1907,
    unit="patient",
):
    """Metrics over all patients and in each group, with bootstrap intervals (S Table 1, Fig. 1).

    Parameters
    ----------
    predictions : DataFrame
        The long table of `cxrlib.schema.predictions`, with the attribute columns joined in.
    metrics : names out of auc, average_precision, adjusted_auprc, brier, ece_equal_width,
        ece_equal_mass; for a table of `decide` also sensitivity, specificity
    attributes : names of columns such as ("sex", "age_group"), or a dict name -> groups that
        restricts and orders them: {"age_group": ["25-50", "50-65", "65-80"]}
    mean_over_labels : add rows with label "mean": the mean over the labels that are defined in
        every group of the attribute, so that all groups are averaged over the same findings.
        The note names labels left out; n_positive is that of the scarcest label kept.
    min_positive, min_negative : a group with fewer such images gets NaN and a note
    n_resamples, seed, unit : see `cxrlib.bootstrap.patient_weights`

    Returns
    -------
    Results table: rows with attribute and group "all", then each group of each attribute.

    Raises
    ------
    ValueError
        For an unknown metric, attribute or group, or a malformed predictions table.
    """
    rows = []
    for sample in _samples(predictions, attributes, n_resamples, seed, unit):
        estimates = _evaluate(sample, metrics, min_positive, min_negative, mean_over_labels)
        rows += _rows(estimates, sample)
    return schema.results(rows)


def gap_table(
    predictions,
    attribute,
    pairs=None,
    *,
    reference=None,
    groups=None,
    metrics=DEFAULT,
    mean_over_labels=True,
    min_positive=10,
    min_negative=10,
    n_resamples=500,
    seed=1907,
    unit="patient",
):
    """Signed gaps "A - B" between groups, with paired intervals.

    Each resample of patients gives one gap; the interval is that of these gaps. Whether the
    intervals of the two groups overlap is not a test of their gap.

    Parameters
    ----------
    attribute : column such as "age_group"
    pairs : list of (A, B); all pairs if neither pairs nor reference is given
    reference : the group B of every pair, such as "White"
    groups : the groups considered, also in the choice of labels for the mean; all by default
    others : as in `performance_table`

    Returns
    -------
    Results table with group "A - B"; n and n_positive are sums, n_patients counts distinct ones.
    """
    rows = []
    attributes = (attribute,) if groups is None else {attribute: groups}
    for sample in _samples(predictions, attributes, n_resamples, seed, unit):
        estimates = _evaluate(sample, metrics, min_positive, min_negative, mean_over_labels)
        gaps = {}
        for a, b in _pairs(sample.groups[attribute], pairs, reference):
            for key, in_a in estimates.items():
                if key.attribute == attribute and key.group == a:
                    in_b = estimates[key._replace(group=b)]
                    gap = _difference(in_a, in_b, a, b)
                    gaps[key._replace(group=f"{a} - {b}")] = gap._replace(
                        n=in_a.n + in_b.n, n_positive=in_a.n_positive + in_b.n_positive
                    )
        rows += _rows(gaps, sample)
    return schema.results(rows)


def model_gap_table(
    predictions,
    pairs=None,
    *,
    metrics=DEFAULT,
    attributes=(),
    mean_over_labels=True,
    min_positive=10,
    min_negative=10,
    n_resamples=500,
    seed=1907,
    unit="patient",
):
    """Differences "A - B" between models on the same images, with paired intervals.

    pairs : list of (model A, model B); all pairs by default. Others as in `performance_table`.

    Returns
    -------
    Results table with model "A - B", overall and in each group of the attributes.
    """
    rows = []
    for sample in _samples(predictions, attributes, n_resamples, seed, unit):
        images = sample.predictions.groupby(["model", "method", "label"], observed=True)["image_id"]
        if images.agg(frozenset).groupby("label").nunique().max() > 1:
            raise ValueError(
                "predictions: the models were not run on the same images; predict with all of "
                "them on one cohort to compare them."
            )
        estimates = _evaluate(sample, metrics, min_positive, min_negative, mean_over_labels)
        gaps = {}
        for a, b in _pairs(list(dict.fromkeys(key.model for key in estimates)), pairs, None):
            for key, of_a in estimates.items():
                other = key._replace(model=b)
                if key.model == a and other in estimates:
                    gaps[key._replace(model=f"{a} - {b}")] = _difference(
                        of_a, estimates[other], a, b
                    )
        rows += _rows(gaps, sample)
    return schema.results(rows)


def decide(predictions, specificity=0.8):
    """Scores turned into yes (1) or no (0) at one operating point for all patients.

    For each cohort, model, method and label, the threshold is the smallest score that at least
    this share of all negatives does not exceed; a score above it is a yes. The threshold is the
    same in every group and stays as it is in resamples, like that of a device in use.

    Parameters
    ----------
    predictions : DataFrame, as in `performance_table`
    specificity : wanted share of negatives called negative, between 0 and 1

    Returns
    -------
    The predictions with 0/1 in the column score, for the metrics sensitivity and specificity.
    """
    if not 0 < specificity < 1:
        raise ValueError(f"specificity: {specificity!r}; expected a number between 0 and 1.")
    schema.predictions(predictions)
    blocks = ["cohort", "model", "method", "label"]
    negatives = predictions["score"].where(predictions["y_true"] == 0)
    found = negatives.groupby([predictions[c] for c in blocks], observed=True)
    if not found.count().all():
        block = dict(zip(blocks, found.count().idxmin(), strict=True))
        raise ValueError(f"predictions: no negatives for {block}; no threshold can be set.")
    threshold = found.transform(
        lambda s: np.quantile(s.dropna(), specificity, method="inverted_cdf")
    )
    return predictions.assign(score=(predictions["score"] > threshold).astype(float))


# --- one class out of several ----------------------------------------------------------------


def multiclass_table(
    predictions,
    attributes=("sex", "age_group"),
    pairs=None,
    *,
    baseline=None,
    n_resamples=500,
    seed=1907,
    unit="patient",
):
    """Utility and fairness of a classifier that picks one class an image (X section 2.4).

    The predicted class is the label with the highest score, the first of equals. For Eq. 4, p is
    the score of the predicted class and the outcome is whether that class is the true one.

    Parameters
    ----------
    predictions : DataFrame, one row an image x class: y_true one-hot, score a probability
    attributes : names, or a dict name -> groups, as in `performance_table`
    pairs : dict attribute -> list of (A, B); all pairs of groups by default
    baseline : a method, such as "zero-shot": adds rows with method "lora - zero-shot", the
        paired change of every number that each other method brings to the same model

    Returns
    -------
    Results table. Overall and in each group: accuracy, f1 (label = class), macro_f1 and var_f1
    (Eq. 1). For each pair "A - B": differences in accuracy and macro_f1, f1_gap_signed (Eq. 2),
    f1_gap_absolute, eq_odds_mean (Eq. 3), eq_odds_max (fairlearn's), calibration_gap_eq4 (Eq. 4).
    Rows over all classes have label "all" and n_positive of the scarcest class. Metrics made of
    absolute differences are above 0 in a finite sample even for a perfectly fair classifier.
    """
    rows = []
    for sample in _samples(predictions, attributes, n_resamples, seed, unit):
        estimates = {}
        for (model, method), block in sample.predictions.groupby(
            ["model", "method"], sort=False, observed=True
        ):
            for where, estimate in _multiclass(block, sample, pairs or {}).items():
                estimates[Key(model, method, *where)] = estimate
        if baseline is not None:
            estimates |= _changes(estimates, baseline)
        rows += _rows(estimates, sample)
    return schema.results(rows)


def _multiclass(block, sample, pairs):
    """All estimates of one model and method: (label, attribute, group, metric) -> Estimate."""
    wide = block.pivot(index="image_id", columns="label", values=["y_true", "score"])
    labels = list(dict.fromkeys(block["label"]))
    truth = wide["y_true"][labels].to_numpy(float)
    score = wide["score"][labels].to_numpy(float)
    if not (truth.sum(axis=1) == 1).all():  # a missing row, NaN after the pivot, fails here too
        raise ValueError(
            "predictions: column 'y_true' is not one-hot over the labels; expected one row for "
            "every image and class, with exactly one true class an image."
        )
    y, predicted = truth.argmax(axis=1), score.argmax(axis=1)
    p, correct = score.max(axis=1), y == predicted
    image = sample.images.index.get_indexer(wide.index)

    def utility(at, weights=None):
        f1 = measure.f1_by_class(y[at], predicted[at], len(labels), weights)
        values = {(label, "f1"): f1[..., i] for i, label in enumerate(labels)}
        values["all", "accuracy"] = measure.accuracy(y[at], predicted[at], weights)
        values["all", "macro_f1"] = f1.mean(axis=-1)
        values["all", "var_f1"] = measure.var_f1(f1)
        return values

    def gaps(a, b, weights=None):
        w_a = w_b = None
        if weights is not None:
            w_a, w_b = weights[:, : len(a)], weights[:, len(a) :]
        f1_a, f1_b = (
            measure.f1_by_class(y[at], predicted[at], len(labels), w)
            for at, w in ((a, w_a), (b, w_b))
        )
        rates_a, rates_b = (
            measure.rates_by_class(y[at], predicted[at], len(labels), w)
            for at, w in ((a, w_a), (b, w_b))
        )
        values = {
            "accuracy": measure.accuracy(y[a], predicted[a], w_a)
            - measure.accuracy(y[b], predicted[b], w_b),
            "macro_f1": f1_a.mean(axis=-1) - f1_b.mean(axis=-1),
            "f1_gap_signed": measure.f1_gap(f1_a, f1_b),
            "f1_gap_absolute": measure.f1_gap(f1_a, f1_b, absolute=True),
            "eq_odds_mean": measure.eq_odds_mean(rates_a, rates_b),
            "eq_odds_max": measure.eq_odds_max(rates_a, rates_b),
            "calibration_gap_eq4": measure.calibration_gap_eq4(
                p[a], correct[a], p[b], correct[b], w_a, w_b
            ),
        }
        return {("all", metric): value for metric, value in values.items()}

    out = {}

    def add(attribute, group, at, statistic):
        count = np.bincount(y[at], minlength=len(labels))
        repeated = bootstrap.replicates(lambda w: statistic(weights=w), sample.weights, image[at])
        for (label, metric), value in statistic().items():
            out[label, attribute, group, metric] = Estimate(
                float(value),
                repeated[label, metric],
                len(at),
                int(count.min() if label == "all" else count[labels.index(label)]),
                np.unique(sample.patient[image[at]]),
                "" if np.isfinite(value) else "undefined: a class is absent",
            )

    for attribute, groups in ({"all": ["all"]} | sample.groups).items():
        at = {g: np.flatnonzero(sample.member(attribute, g)[image]) for g in groups}
        for g in groups:
            add(attribute, g, at[g], lambda weights=None, at=at[g]: utility(at, weights))
        for a, b in _pairs(groups, pairs.get(attribute), None) if attribute != "all" else ():
            add(
                attribute,
                f"{a} - {b}",
                np.concatenate([at[a], at[b]]),
                lambda weights=None, a=at[a], b=at[b]: gaps(a, b, weights),
            )
    return out


def _changes(estimates, baseline):
    """Paired differences of every other method against the baseline method."""
    if baseline not in {key.method for key in estimates}:
        raise ValueError(
            f"baseline: no method {baseline!r} in the predictions; found "
            f"{', '.join(sorted({key.method for key in estimates}))}."
        )
    out = {}
    for key, after in estimates.items():
        before = estimates.get(key._replace(method=baseline))
        if key.method != baseline and before is not None:
            method = f"{key.method} - {baseline}"
            out[key._replace(method=method)] = _difference(after, before, key.method, baseline)
    return out


# --- how it is done --------------------------------------------------------------------------


class Key(NamedTuple):
    """What a number is about."""

    model: str
    method: str
    label: str
    attribute: str
    group: str
    metric: str


class Estimate(NamedTuple):
    """A number with what its interval and its row need."""

    value: float
    replicates: np.ndarray  # (B,)
    n: int
    n_positive: int
    patients: np.ndarray  # distinct patient codes, kept so that unions can be counted
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """The predictions of one cohort, its images, and their resamples."""

    cohort: str
    predictions: pd.DataFrame
    images: pd.DataFrame  # one row an image, indexed by image_id: patient_id and attributes
    patient: np.ndarray  # (n,) patient codes
    groups: dict  # attribute -> list of groups
    weights: np.ndarray  # (B, n)
    seed: int
    unit: str

    def member(self, attribute, group):
        """(n,) bool: which images belong to the group."""
        if attribute == "all":
            return np.ones(len(self.images), dtype=bool)
        return (self.images[attribute] == group).to_numpy()


def _samples(predictions, attributes, n_resamples, seed, unit):
    """One Sample a cohort. Groups are handled as text; missing ones belong to no group."""
    attributes = (attributes,) if isinstance(attributes, str) else attributes
    schema.predictions(predictions, *attributes)
    for cohort, table in predictions.groupby("cohort", sort=False, observed=True):
        images = table[["image_id", "patient_id", *attributes]].drop_duplicates("image_id")
        images = images.set_index("image_id")
        groups = {}
        for attribute in attributes:
            column = images[attribute]
            present = pd.Categorical(column.dropna()).remove_unused_categories().categories
            groups[attribute] = [str(g) for g in present]
            images[attribute] = column.astype(object).map(str, na_action="ignore")
            if isinstance(attributes, dict) and attributes[attribute] is not None:
                wanted = [str(g) for g in attributes[attribute]]
                _known(wanted, groups[attribute], f"groups of {attribute!r}")
                groups[attribute] = wanted
        yield Sample(
            cohort,
            table,
            images,
            pd.factorize(images["patient_id"])[0],
            groups,
            bootstrap.patient_weights(images["patient_id"], n_resamples, seed, unit),
            seed,
            unit,
        )


def _evaluate(sample, metrics, min_positive, min_negative, mean_over_labels):
    """Every metric for every model, method, label and group: Key -> Estimate."""
    metrics = (metrics,) if isinstance(metrics, str) else metrics
    known = (*RANKING_METRICS, *PROBABILITY_METRICS, *DECISION_METRICS)
    _known(metrics, known, "metrics")
    estimates = {}
    blocks = sample.predictions.groupby(["model", "method", "label"], sort=False, observed=True)
    for names, block in blocks:
        image = sample.images.index.get_indexer(block["image_id"])
        y, score = block["y_true"].to_numpy(bool), block["score"].to_numpy(float)
        for attribute, groups in ({"all": ["all"]} | sample.groups).items():
            for group in groups:
                at = np.flatnonzero(sample.member(attribute, group)[image])
                found = _estimate(
                    y[at], score[at], image[at], sample, metrics, min_positive, min_negative
                )
                for metric, estimate in found.items():
                    estimates[Key(*names, attribute, group, metric)] = estimate
    if mean_over_labels:
        estimates |= _means(estimates)
    return estimates


def _estimate(y, score, image, sample, metrics, min_positive, min_negative):
    """The metrics of one group: metric -> Estimate."""
    n, n_positive = len(y), int(y.sum())
    note = ""
    if n_positive < min_positive:
        note = f"not given: {n_positive} positive images, fewer than {min_positive}"
    elif n - n_positive < min_negative:
        note = f"not given: {n - n_positive} negative images, fewer than {min_negative}"
    elif n_positive in (0, n):
        note = "undefined: one class only"
    if note:
        values = dict.fromkeys(metrics, np.nan)
        repeated = dict.fromkeys(metrics, np.full(len(sample.weights), np.nan))
    else:
        values = _binary(y, score, None, metrics)
        repeated = bootstrap.replicates(
            lambda w: _binary(y, score, w, metrics), sample.weights, image
        )
    patients = np.unique(sample.patient[image])
    return {m: Estimate(values[m], repeated[m], n, n_positive, patients, note) for m in metrics}


def _binary(y, score, weights, metrics):
    values = {}
    if any(m in RANKING_METRICS for m in metrics):
        values = measure.ranking(y, score, weights)  # one sort for all three
    for m in metrics:
        if m not in RANKING_METRICS:
            statistic = (PROBABILITY_METRICS | DECISION_METRICS)[m]
            values[m] = statistic(y, score, weights)
    return values


def _means(estimates):
    """Means over the labels defined in every group (of any model) of each attribute."""
    labels = list(dict.fromkeys(key.label for key in estimates))
    if len(labels) < 2:
        return {}
    means = dict.fromkeys(key._replace(label="mean") for key in estimates)
    undefined = {}  # attribute -> label -> where it is undefined: groups, or models without it
    for mean in means:
        for label in labels:
            estimate = estimates.get(mean._replace(label=label))
            if estimate is None or not np.isfinite(estimate.value):
                where = mean.model if estimate is None else mean.group
                places = undefined.setdefault(mean.attribute, {}).setdefault(label, {})
                places[where] = None
    out = {}
    for key in means:
        lost = undefined.get(key.attribute, {})
        kept = [label for label in labels if label not in lost]
        note = f"mean over {len(kept)} of {len(labels)} labels"
        if lost:
            why = (f"{label} (undefined in {', '.join(places)})" for label, places in lost.items())
            note += f"; left out: {', '.join(why)}"
        found = (estimates.get(key._replace(label=label)) for label in kept or labels)
        parts = [e for e in found if e is not None]
        out[key] = Estimate(
            np.mean([e.value for e in parts]) if kept else np.nan,
            np.mean([e.replicates for e in parts], axis=0),
            max(e.n for e in parts),
            min(e.n_positive for e in parts),
            np.unique(np.concatenate([e.patients for e in parts])),
            note,
        )
    return out


def _difference(a, b, name_a, name_b):
    """Paired difference of two estimates; counts are those of `a`, patients of both."""
    notes = [f"{name}: {e.note}" for name, e in ((name_a, a), (name_b, b)) if e.note]
    return a._replace(
        value=a.value - b.value,
        replicates=a.replicates - b.replicates,
        patients=np.union1d(a.patients, b.patients),
        note=a.note if a.note == b.note else "; ".join(notes),
    )


def _rows(estimates, sample):
    rows = []
    for key, e in estimates.items():
        found = bootstrap.interval(e.value, e.replicates)
        if e.note:  # the reason known here comes before what the interval noticed
            found["note"] = "; ".join(
                n for n in (e.note, found["note"] if np.isfinite(e.value) else "") if n
            )
        rows.append(
            {"cohort": sample.cohort}
            | key._asdict()
            | found
            | {
                "n": e.n,
                "n_positive": e.n_positive,
                "n_patients": len(e.patients),
                "unit": sample.unit,
                "seed": sample.seed,
            }
        )
    return rows


def _pairs(known, pairs, reference):
    """The pairs (A, B) asked for; by default all, in the order of the names."""
    if reference is not None:
        pairs = [(name, str(reference)) for name in known if name != str(reference)]
        _known([str(reference)], known, "reference")
    elif pairs is None:
        pairs = list(combinations(known, 2))
    pairs = [(str(a), str(b)) for a, b in pairs]
    _known([name for pair in pairs for name in pair], known, "pairs")
    return pairs


def _known(asked, known, what):
    for name in asked:
        if name not in known:
            raise ValueError(f"{what}: unknown {name!r}; expected one of {', '.join(known)}.")

"""What wrong labels do to the numbers of a model, and how far known error rates undo it.

T is the truth about a film, N what the label notes, S the score of a model. The label has a
sensitivity P(N = 1 | T = 1) and a specificity P(N = 0 | T = 0), as a test has. All formulas here
ask for one thing: *nondifferential* error, S independent of N given T. Where the label misses the
very films that the model scores low, correction fails; `dependent` says by how much. Rates that
differ between groups are no obstacle as long as this holds within each group.

Predictions are judged against N. Films of which both N and T are known, the *audit*, tell the
rates. They are a predictions table of the label: y_true is the truth, score what was noted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import combinations, product
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtri

from cxrlib import schema
from cxrlib.core import checks, levels
from cxrlib.core.folders import BENCHMARKS
from cxrlib.stats import bootstrap, simulate
from cxrlib.stats import estimates as est
from cxrlib.stats.ranking import ranker, ranking

LEAST = 0.1  # sensitivity + specificity - 1 of a label, below which nothing is corrected
MOST = 1_000_000  # films of an audit that is given by its figures
METRICS = ("auc", "sensitivity", "specificity", "prevalence")
CORRECTED = "labels corrected"  # follows the method in tables
RECORDED = BENCHMARKS / "label_error.csv"
BEYOND = "not between 0 and 1: by chance, or the rates do not fit"

Number = float | np.ndarray

# --- closed forms -----------------------------------------------------------------------------


def noted_share(share: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Number:
    """Share of films that are noted positive among films of which a share is truly positive.

    ``share * sensitivity + (1 - share) * (1 - specificity)``. The films can be all (prevalence),
    those a model calls positive (its precision), or those with one score: for a perfectly
    calibrated model this is the reliability curve that the labels show.

    Parameters
    ----------
    share : true share of positives, in [0, 1]
    sensitivity, specificity : of the label, in [0, 1]
    """
    share = np.asarray(share)
    return (share * sensitivity + (1 - share) * (1 - np.asarray(specificity)))[()]


def predictive_values(
    prevalence: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike
) -> tuple[Number, Number]:
    """P(T = 1 | N = 1) and P(T = 0 | N = 0) of a label, by Bayes' rule.

    prevalence : true share of positives; sensitivity, specificity : of the label. NaN where
    nothing is noted so.
    """
    q = noted_share(prevalence, sensitivity, specificity)
    positive = np.asarray(prevalence) * sensitivity / _or_nan(q)
    negative = (1 - np.asarray(prevalence)) * specificity / _or_nan(1 - q)
    return positive[()], negative[()]


def noted_auc(
    auc: ArrayLike, prevalence: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike
) -> Number:
    """AUC that a model has against the noted labels: nearer to 0.5 than its true one.

    ``AUC_noted - 0.5 = (PPV + NPV - 1) (AUC - 0.5)`` with the predictive values of the label.

    Source: Menon et al. 2015, Corollary 3, in other letters.
    """
    return (0.5 + _information(prevalence, sensitivity, specificity) * (np.asarray(auc) - 0.5))[()]


def true_auc(
    noted: ArrayLike, prevalence: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike
) -> Number:
    """AUC behind one that was measured against noted labels: `noted_auc` inverted.

    prevalence : the true one. Not clipped.
    """
    information = _or_nan(_information(prevalence, sensitivity, specificity))
    return (0.5 + (np.asarray(noted) - 0.5) / information)[()]


def noted_rates(
    model_sensitivity: ArrayLike,
    model_specificity: ArrayLike,
    prevalence: ArrayLike,
    sensitivity: ArrayLike,
    specificity: ArrayLike,
) -> tuple[Number, Number]:
    """Sensitivity and specificity of a model at a threshold, against the noted labels.

    Those noted positive are a mixture of truly positive films, with the share PPV, and others;
    those noted negative likewise:

    ``TPR_noted = PPV TPR + (1 - PPV) FPR``, ``FPR_noted = (1 - NPV) TPR + NPV FPR``.

    Source: Staquet et al. 1981; the mixture as in Menon et al. 2015.
    """
    ppv, npv = predictive_values(prevalence, sensitivity, specificity)
    tpr, fpr = np.asarray(model_sensitivity), 1 - np.asarray(model_specificity)
    return (ppv * tpr + (1 - ppv) * fpr)[()], (1 - (1 - npv) * tpr - npv * fpr)[()]


def distorted(groups: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """What wrong labels make of a model's numbers in each group, and of the gaps between groups.

    Parameters
    ----------
    groups : group -> dict of
        label_sensitivity, label_specificity, of its labels; prevalence, the true one;
        auc, sensitivity, specificity, of the model against the truth: 1, a perfect model, where
        not given

    Returns
    -------
    DataFrame, one row per group and metric: group, metric, truth, noted, change. Metrics are auc,
    sensitivity, specificity, ppv (of the model), prevalence, and calibration_in_the_large (of a
    model that is calibrated to the truth). For each pair of groups "A - B" the gap of each, and
    eq_odds_mean, the mean absolute gap of sensitivity and specificity (X, Eq. 3).
    """
    found = {}
    for group, given in groups.items():
        unknown = set(given) - {"label_sensitivity", "label_specificity", "prevalence", *METRICS}
        if unknown:
            raise ValueError(
                f"distorted: group {group!r} has {sorted(unknown)[0]!r}; expected prevalence, "
                "label_sensitivity, label_specificity, auc, sensitivity and specificity."
            )
        label = given["label_sensitivity"], given["label_specificity"]
        prevalence, auc = given["prevalence"], given.get("auc", 1.0)
        rates = given.get("sensitivity", 1.0), given.get("specificity", 1.0)
        ppv, _ = predictive_values(prevalence, *rates)
        noted = noted_rates(*rates, prevalence, *label)
        q = noted_share(prevalence, *label)
        found[group] = {
            "auc": (auc, noted_auc(auc, prevalence, *label)),
            "sensitivity": (rates[0], noted[0]),
            "specificity": (rates[1], noted[1]),
            "ppv": (ppv, noted_share(ppv, *label)),
            "prevalence": (prevalence, q),
            "calibration_in_the_large": (0.0, prevalence - q),
        }
    for a, b in list(combinations(found, 2)):
        gap = {m: tuple(np.subtract(found[a][m], found[b][m])) for m in found[a]}
        odds = np.abs([gap["sensitivity"], gap["specificity"]]).mean(axis=0)
        found[f"{a} - {b}"] = gap | {"eq_odds_mean": tuple(odds)}
    rows = [(group, m, *pair) for group, of in found.items() for m, pair in of.items()]
    table = pd.DataFrame(rows, columns=["group", "metric", "truth", "noted"])
    return table.assign(change=table["noted"] - table["truth"])


def _youden(sensitivity, specificity):
    return np.asarray(sensitivity) + np.asarray(specificity) - 1


def _or_nan(x):
    """A divisor, NaN where it is 0 or but rounding."""
    return np.where(np.abs(x) < 1e-12, np.nan, x)


def _information(prevalence, sensitivity, specificity):
    """PPV + NPV - 1 of a label: the share of a difference between classes that it lets through."""
    ppv, npv = predictive_values(prevalence, sensitivity, specificity)
    return np.asarray(ppv + npv - 1)


# --- correction -------------------------------------------------------------------------------


def stated(rates: Mapping[str, Mapping], by: str | None = None) -> pd.DataFrame:
    """An audit that has these rates, for `corrected_table`, where only its figures are known.

    Parameters
    ----------
    rates : label -> dict of sensitivity, positives, specificity, negatives: the rates of the
        label, and on how many films with and without the finding, one a patient, each was seen.
        With `by`: label -> group -> such a dict.
    by : attribute whose groups have rates of their own

    Returns
    -------
    Predictions table of the label: one row per audited film, y_true the truth, score what was
    noted. Where a rate is no whole number of films, one film was noted in part.

    Raises
    ------
    ValueError
        For a missing or unknown entry, rates outside [0, 1], or counts below 1.
    """
    names = ("sensitivity", "positives", "specificity", "negatives")
    parts = []
    for label, of_label in rates.items():
        for group, given in (of_label if by else {"all": of_label}).items():
            where = f"label_error: {label}{f', {group}' if by else ''}"
            if not isinstance(given, Mapping) or set(given) != set(names):
                raise ValueError(f"{where}: {given!r}; expected the numbers {', '.join(names)}.")
            for rate, count, truth in ((*names[:2], 1), (*names[2:], 0)):
                share, n = given[rate], given[count]
                if not isinstance(share, Real) or not 0 <= share <= 1:
                    raise ValueError(f"{where}: {rate} {share!r}; expected a share from 0 to 1.")
                if not isinstance(n, Real) or not 1 <= n <= MOST or n != int(n):
                    raise ValueError(
                        f"{where}: {count} {n!r}; expected a count of films from 1 to {MOST:,}."
                    )
                right = np.clip(share * n - np.arange(int(n)), 0, 1)
                film = [f"audit {label} {group} {truth} {k}" for k in range(int(n))]
                part = {"image_id": film, "patient_id": film, "label": label, "y_true": truth}
                part |= {"score": right if truth else 1 - right}
                parts.append(pd.DataFrame(part | ({by: group} if by else {})))
    about = {"cohort": "audit", "model": "label", "method": "noted"}
    return pd.concat(parts, ignore_index=True).assign(**about)


def corrected_table(
    predictions: pd.DataFrame,
    audit: pd.DataFrame,
    attributes: est.Attributes = (),
    metrics: str | Sequence[str] = ("auc",),
    *,
    rates_by: str | Sequence[str] | None = None,
    references: Mapping[str, str] | None = None,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """A model's numbers against noted labels, and against the truth behind them.

    Each film is split between the two classes so that wrong labels cancel on average: of a film
    noted positive the part ``Sp / (Se + Sp - 1)`` counts as positive, of one noted negative
    ``-(1 - Sp) / (Se + Sp - 1)``, and the rest to one as negative (Natarajan et al. 2013). With one
    rate for all films this is the prevalence of Rogan and Gladen (1978), `true_auc`, and the two
    equations of `noted_rates` solved; with rates by group, the error has to be nondifferential
    within each group only.

    Every resample draws patients of the predictions and of the audit together, so patients who
    are in both are drawn once, and the interval holds the uncertainty of the rates.

    Parameters
    ----------
    predictions : DataFrame, as in `cxrlib.stats.fairness.performance_table`; y_true is the noted
        label. For sensitivity and specificity, of `cxrlib.stats.fairness.decide`.
    audit : DataFrame
        Predictions table of the label: y_true the truth, score what was noted (0 or 1), with the
        columns of `rates_by`; or from `stated`. Which films were audited may depend on the truth,
        not on what was noted. Only labels in it are corrected.
    attributes : as in `performance_table`
    metrics : out of `METRICS`; prevalence is the share of positives
    rates_by : column or columns within whose groups the label has rates of its own; by default
        one rate for all films
    references : attribute -> the group B of its gaps "A - B"; all pairs of groups by default
    sampling : protocol, n_resamples and seed

    Returns
    -------
    Results table with two rows a number: method as given, against the noted labels, and method
    followed by ", labels corrected". Groups, gaps "A - B" between them, and for gaps, where both
    rates are asked for, eq_odds_mean. n_positive counts films noted positive. Undefined, with the
    reason, where a stratum of `rates_by` has too few audited films, ``Se + Sp - 1`` is below
    `LEAST`, or the corrected prevalence is not between 0 and 1. Nothing is clipped.

    Raises
    ------
    ValueError
        For an unknown metric, attribute or group, a malformed table, or labels without audit.
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    est.check_known(metrics, METRICS, "metrics")
    out = []
    for study, labels in _studies(predictions, audit, attributes, rates_by, **sampling):
        found = _estimates(study, labels, metrics)
        gaps = {}
        for attribute, groups in study.groups.items():
            some = est.pairs_of(groups, None, (references or {}).get(attribute))
            of = est.group_gaps(found, attribute, some) if some else {}
            gaps |= of | _odds(of)
        out += est.rows(found | gaps, study)
    return schema.results(out)


def corrected_arms(
    predictions: pd.DataFrame,
    audit: pd.DataFrame,
    device: str = "drain",
    *,
    rates_by: str | Sequence[str] | None = None,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """AUC of the arms of `cxrlib.stats.shortcuts.drain_arms`, as noted and corrected.

    Films are split between the classes as in `corrected_table`, each class then between the arms.
    Error has to be nondifferential with the device and without; where those who write reports note
    a treated finding more readily, rates need ``rates_by`` the device.

    Parameters
    ----------
    predictions : DataFrame with the device column joined in: 0, 1, or missing where unknown
    others : as in `corrected_table`; of the protocol also the switch drain_controls

    Returns
    -------
    Results table: attribute = device, groups "with drain", "without drain" and their difference,
    two rows each. Corrected values are undefined where the device of some films is not known, but
    for a label without false notes and controls of any device: nobody knows from which arm to take
    what was noted wrongly.
    """
    if device not in predictions:
        raise ValueError(f"device: no column {device!r} in the predictions; join it in.")
    out, named = [], (f"with {device}", f"without {device}")
    for study, labels in _studies(predictions, audit, (), rates_by, **sampling):
        films = study.predictions.drop_duplicates("image_id").set_index("image_id")
        status = films.loc[study.images.index, device]
        side = np.select([status.isin((0,)), status.isin((1,))], [0, 1], 2)
        rule = study.protocol.drain_controls
        controls = {"any": (0, 1, 2), "without": (0,), "with": (1,)}[rule]
        parts, unknown, false = {}, (side == 2).sum(), False
        for (model, method, label), y, score, image in study.blocks():
            at = np.flatnonzero(labels.code[image] >= 0)
            own = y[at], score[at], image[at], labels.code[image[at]], side[image[at]]
            rates = _Rates(labels, label, len(side))
            false |= (rates.of_audit()[1] < 1).any()
            for group, has in zip(named, (1, 0), strict=True):
                key = est.Key(model, method, label, device, group, "")
                parts[key] = _Films(*own, (has,), controls), rates
        refused = f"undefined: {device} not known of {unknown} films"
        refused = refused if unknown and (false or rule != "any") else ""
        found = _evaluated(study, parts, ("auc",), labels, refused)
        gaps = {}
        for key, a in found.items():
            if key.group == named[0]:
                b = found[key._replace(group=named[1])]
                counts = {"n": a.n + b.n_positive, "n_positive": a.n_positive + b.n_positive}
                gap = est.difference(a, b, *named)._replace(**counts)
                gaps[key._replace(group=" - ".join(named))] = gap
        out += est.rows(found | gaps, study)
    return schema.results(out)


def as_stated(
    table: Callable[..., pd.DataFrame],
    predictions: pd.DataFrame,
    rates: Mapping[str, Mapping],
    *arguments: Any,
    films: pd.DataFrame | None = None,
    **options: Any,
) -> pd.DataFrame:
    """`corrected_table` or `corrected_arms` with rates of which only the figures are known.

    Parameters
    ----------
    table : one of the two
    rates : label -> dict of sensitivity, positives, specificity, negatives as in `stated`; or
        label -> attribute -> group -> such a dict, for rates of its own in each group. Labels that
        the predictions do not hold are passed over.
    films : table of the cohort, for attributes that are not in the predictions
    others : as in the two, but for audit and rates_by

    Raises
    ------
    ValueError
        Also where the predictions hold none of the labels, or one that is spelt otherwise.
    """
    there, found = set(predictions["label"]), audits(rates)
    tables = []
    for label, (audit, by) in found.items():
        if label not in there:
            spelt = {name.casefold(): name for name in there - set(found)}
            if near := get_close_matches(label.casefold().replace("_", " "), spelt, 1, 0.85):
                raise ValueError(f"label_error: {label!r}; did you mean {spelt[near[0]]!r}?")
            continue
        own = predictions[predictions["label"] == label]
        if by and by not in own and films is not None and by in films:
            own = own.merge(films[["image_id", by]], on="image_id", how="left")
        tables.append(table(own, audit, *arguments, rates_by=by, **options))
    if not tables:
        names = ", ".join(sorted(there))
        raise ValueError(f"label_error: rates of {', '.join(found)}; expected some of {names}.")
    return pd.concat(tables, ignore_index=True)


def audits(rates: Mapping[str, Mapping]) -> dict[str, tuple[pd.DataFrame, str | None]]:
    """label -> (audit, rates_by) of the rates that `as_stated` takes; ValueError for others."""
    if not isinstance(rates, Mapping):
        raise ValueError(f"label_error: {rates!r}; expected rates by finding.")
    out = {}
    for label, given in rates.items():
        by = None
        if isinstance(given, Mapping) and len(given) == 1:
            [(by, given)] = given.items()
        if by and not isinstance(given, Mapping):
            raise ValueError(f"label_error: {label}, {by}: {given!r}; expected rates by group.")
        out[label] = stated({label: given}, by), by
    return out


class _Labels(NamedTuple):
    """What is known of the labels of a study."""

    audit: pd.DataFrame  # with the column "stratum"
    names: list  # of strata
    code: np.ndarray  # (n,) position of each image's stratum in names, -1 where not known
    by: list  # columns that strata are made of
    fewest: int  # cases, below which no number is given


def _studies(predictions, audit, attributes, rates_by, **sampling):
    """One study per cohort, whose resamples end with the audit, and its _Labels."""
    by = [] if rates_by is None else [rates_by] if isinstance(rates_by, str) else list(rates_by)
    audit = _checked(audit, by)
    predictions = predictions[predictions["label"].isin(audit["label"].unique())]
    if predictions.empty:
        have = ", ".join(audit["label"].unique())
        raise ValueError(f"label error: known of {have}; expected a label of the predictions.")
    if missing := [c for c in by if c not in predictions]:
        raise ValueError(f"rates_by: no column {missing[0]!r} in the predictions; join it in.")
    for study in est.studies(predictions, attributes, **sampling):
        who = [levels.text(p) for p in (*study.images["patient_id"], *audit["patient_id"])]
        drawn = study.resamples
        drawn = bootstrap.Resamples(np.array(who), len(drawn), drawn.seed, drawn.unit)
        films = study.predictions.drop_duplicates("image_id").set_index("image_id")
        stratum = _stratum(films.loc[study.images.index], by)
        names = list(stratum.dropna().unique())
        code = pd.Categorical(stratum, categories=names).codes.astype(int)
        fewest = max(1, study.protocol.min_cases, schema.smallest_cell())
        yield replace(study, resamples=drawn), _Labels(audit, names, code, by, fewest)


def _checked(audit, by):
    """The audit with its strata as text in the column "stratum"."""
    audit = schema.predictions(audit, *by, probabilities=True)
    for key in ("cohort", "model", "method"):
        if audit[key].nunique() > 1:
            some = ", ".join(audit[key].unique()[:2])
            raise ValueError(f"audit: column {key!r} holds {some}; expected one of them only.")
    return audit.assign(stratum=_stratum(audit, by)).dropna(subset="stratum")


def _stratum(table, by):
    """(n,) the strata of films as text, missing where one of the columns `by` is."""
    if not by:
        return pd.Series("all films", table.index)
    parts = pd.DataFrame({c: pd.Series(levels.levels(table[c], c), table.index) for c in by})
    text = parts.astype(object).fillna("").agg(", ".join, axis=1)
    return text.where(parts.notna().all(axis=1))


def _estimates(study, labels, metrics):
    """Every metric for every model, method, label and group, noted and corrected."""
    known, parts = labels.code >= 0, {}
    for (model, method, label), y, score, image in study.blocks():
        rates = _Rates(labels, label, len(known))
        for attribute, groups in ({"all": ["all"]} | study.groups).items():
            for group in groups:
                at = np.flatnonzero((study.member(attribute, group) & known)[image])
                films = _Films(y[at], score[at], image[at], labels.code[image[at]])
                parts[est.Key(model, method, label, attribute, group, "")] = films, rates
    return _evaluated(study, parts, metrics, labels)


def _evaluated(study, parts, metrics, labels, refused=""):
    """Key -> Counted, noted and (unless refused) corrected, of parts: Key -> (films, rates)."""
    statistics, reasons, fewest = {}, {}, labels.fewest
    lost = (labels.code < 0).sum()
    remark = f"{lost} films without {' or '.join(labels.by)} left out" if lost else ""
    for key, (films, rates) in parts.items():
        counted = films.counted()
        reason = est.not_given(films.y[counted], study.patient[films.image[counted]], fewest)
        why = reason or refused or rates.why_not(films, fewest)
        reasons[key] = {"noted": reason, "corrected": why}
        if not reason:
            statistics[key] = _statistic(films, metrics, None if why else rates)
    evaluated = study.evaluate(statistics)
    nothing = [np.full(k, np.nan) for k in (len(study.resamples), study.resamples.n_blocks)]
    out = {}
    for key, (films, _) in parts.items():
        y, image = films.y[films.counted()], films.image[films.counted()]
        n = len(y), int(y.sum()), int((~y).sum()), np.unique(study.patient[image])
        for (which, why), metric in product(reasons[key].items(), metrics):
            found = evaluated.get((key, (which, metric)), (np.nan, *nothing))
            note = est.joined(why, BEYOND if found[0] < 0 or found[0] > 1 else "", remark)
            method = key.method if which == "noted" else f"{key.method}, {CORRECTED}"
            where = key._replace(method=method, metric=metric)
            out[where] = est.Counted(*found, *n, note)
    return out


class _Films(NamedTuple):
    """The films of a number: (k,) each."""

    y: np.ndarray  # noted, bool
    score: np.ndarray
    image: np.ndarray  # positions in the study
    stratum: np.ndarray  # codes
    side: np.ndarray | int = 0  # which of them may stand for positives, and which for negatives
    positives: tuple = (0,)
    negatives: tuple = (0,)

    def counted(self):
        """(k,) bool: those whose noted label has a place among positives or negatives."""
        side = np.broadcast_to(self.side, self.y.shape)
        return np.where(self.y, np.isin(side, self.positives), np.isin(side, self.negatives))


class _Rates:
    """Sensitivity and specificity of one label in each stratum, from the audit."""

    def __init__(self, labels, label, n_images):
        audit, self.names = labels.audit, labels.names
        here = np.flatnonzero(audit["label"] == label)
        truth = audit["y_true"].to_numpy(float)[here, None]
        noted = audit["score"].to_numpy(float)[here, None]
        member = audit["stratum"].to_numpy(object)[here, None] == np.array(self.names, object)
        parts = [truth * noted, truth, (1 - truth) * (1 - noted), 1 - truth]
        self.parts = np.hstack([part * member for part in parts])  # (a, 4 K)
        self.column = n_images + here
        self.sums = self.parts.sum(axis=0).reshape(4, -1)

    def drawn(self, weights):
        """Both rates under weights (b, N) over images and audit, (b, K) each."""
        return self._of(np.split(est.take(weights, self.column) @ self.parts, 4, axis=1))

    def of_audit(self):
        """Both rates in the audit itself, (K,) each."""
        return self._of(self.sums)

    def _of(self, sums):
        hits, positives, rejections, negatives = sums
        return hits / _or_nan(positives), rejections / _or_nan(negatives)

    def why_not(self, films, fewest):
        """Why nothing can be corrected with these rates, or ""."""
        for k in np.unique(films.stratum):
            for n, kind in zip(self.sums[[1, 3], k], ("with", "without"), strict=True):
                if n < fewest:
                    which = f"{n:.0f} audited films {kind} the finding ({self.names[k]})"
                    return f"not given: {which}, fewer than {fewest}"
        se, sp = (rate[films.stratum] for rate in self.of_audit())
        youden = _youden(se, sp)
        if youden.min() < LEAST:
            which = f"{youden.min():.2f} ({self.names[films.stratum[youden.argmin()]]})"
            what = f"label sensitivity + specificity - 1 is {which}, below {LEAST}"
            return f"undefined: {what}: such labels say next to nothing"
        part = _part(films.y, se, sp)
        side = np.broadcast_to(films.side, films.y.shape)
        positive = part[np.isin(side, films.positives)].sum()
        negative = (1 - part)[np.isin(side, films.negatives)].sum()
        if positive > 0 and negative > 0:
            return ""
        share = positive / (positive + negative)
        return f"undefined: corrected prevalence {share:.3f} is not between 0 and 1: rates misfit"


def _part(noted, sensitivity, specificity):
    """How much of a film counts as positive, by what was noted; NaN for labels of a coin."""
    youden = _youden(sensitivity, specificity)
    return np.where(noted, specificity, specificity - 1) / np.where(youden > 0, youden, np.nan)


def _statistic(films, metrics, rates):
    """Function of weights (b, N) over images and audit: (labels, metric) -> (b,).

    Films of one stratum and side that were noted alike form a cell; cells are compared once, and
    then counted with what part of them is positive.
    """
    y, score, image, *_ = films
    codes = np.stack(np.broadcast_arrays(films.stratum, films.side, y))
    (stratum, side, noted), cell = np.unique(codes, axis=1, return_inverse=True)
    member = np.eye(len(noted))[cell]  # (k, C)
    as_positive, as_negative = np.isin(side, films.positives), np.isin(side, films.negatives)
    duels = {}
    for c, d in combinations(range(len(noted)), 2) if "auc" in metrics else ():
        c, d = sorted((c, d), key=lambda x: member[:, x].sum())  # few positives rank fastest
        at = np.flatnonzero((cell == c) | (cell == d))
        duels[c, d] = ranker(cell[at] == c, score[at], image[at])

    def evaluate(weights):
        own = est.take(weights, image)
        n, called = own @ member, own @ (member * score[:, None])  # (b, C)
        won = n[:, :, None] * n[:, None, :]  # (b, C, C), by cell c against cell d
        pairs = won.copy()
        won /= 2  # of a cell against itself
        for (c, d), rank in duels.items():
            won[:, c, d] = np.nan_to_num(rank(weights)["auc"]) * pairs[:, c, d]
            won[:, d, c] = pairs[:, c, d] - won[:, c, d]
        parts = {"noted": noted.astype(float)}
        if rates is not None:
            parts["corrected"] = _part(noted, *(r[:, stratum] for r in rates.drawn(weights)))
        out = {}
        for labels, part in parts.items():
            positive = np.broadcast_to(part * as_positive, n.shape)
            negative = np.broadcast_to((1 - part) * as_negative, n.shape)
            n_pos, n_neg = (n * positive).sum(axis=1), (n * negative).sum(axis=1)
            inside = (n_pos > 0) & (n_neg > 0)
            n_pos, n_neg = (np.where(inside, x, np.nan) for x in (n_pos, n_neg))
            out[labels, "auc"] = np.einsum("bc,bcd,bd->b", positive, won, negative) / n_pos / n_neg
            out[labels, "sensitivity"] = (called * positive).sum(axis=1) / n_pos
            out[labels, "specificity"] = 1 - (called * negative).sum(axis=1) / n_neg
            out[labels, "prevalence"] = n_pos / (n_pos + n_neg)
        return {name: values for name, values in out.items() if name[1] in metrics}

    return evaluate


def _odds(gaps):
    """eq_odds_mean of each pair of groups of which the gaps of both rates are there."""
    out = {}
    for key, a in gaps.items():
        b = gaps.get(key._replace(metric="specificity"))
        if key.metric != "sensitivity" or b is None:
            continue
        both = a.jackknife is not None and b.jackknife is not None
        out[key._replace(metric="eq_odds_mean")] = a._replace(
            value=(abs(a.value) + abs(b.value)) / 2,
            replicates=(np.abs(a.replicates) + np.abs(b.replicates)) / 2,
            jackknife=(np.abs(a.jackknife) + np.abs(b.jackknife)) / 2 if both else None,
            note=a.note if a.note == b.note else est.joined(a.note, b.note),
        )
    return out


# --- where correction fails -------------------------------------------------------------------


def dependent(
    dependences: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8),
    *,
    auc: float = 0.8,
    prevalence: float = 0.1,
    sensitivity: float = 0.6,
    specificity: float = 0.98,
    n: int = 200_000,
    seed: int = 1907,
) -> pd.DataFrame:
    """How far correction misses where the label misses the films that the model scores low.

    Scores are binormal as in `cxrlib.stats.simulate.population`. A positive film has how clear it
    looks to who writes the report, standard normal, with the correlation ``dependence`` to its
    score; it is noted where this exceeds the quantile that gives the label its sensitivity. False
    notes are independent of the score. So the label has the same rates at any dependence, and an
    audit cannot tell one from the other.

    Parameters
    ----------
    dependences : correlations in [0, 1); 0 is nondifferential error
    auc, prevalence : of the model and the films, in (0, 1)
    sensitivity, specificity : of the label
    n : simulated films; the Monte Carlo error of an AUC is then near 0.003
    seed : of one draw that all rows share

    Returns
    -------
    DataFrame, one row per dependence: dependence, truth, noted, corrected (AUC), and error,
    corrected - truth.

    Source: after Vacek 1985, on two tests that err together.
    """
    checks.fractions(auc=auc, prevalence=prevalence, sensitivity=sensitivity)
    rng = np.random.default_rng(seed)
    true = rng.random(n) < prevalence
    score = rng.standard_normal(n)
    other, false_note = rng.standard_normal(n), rng.random(n) > specificity
    shown = score + true * np.sqrt(2) * ndtri(auc)
    truth, rows = ranking(true, shown)["auc"], []
    for r in dependences:
        clear = r * score + np.sqrt(1 - r**2) * other
        noted = np.where(true, clear > -ndtri(sensitivity), false_note)
        against = ranking(noted, shown)["auc"]
        # of this draw, so that nothing but the dependence is wrong
        rates = noted[true].mean(), 1 - noted[~true].mean()
        corrected = true_auc(against, true.mean(), *rates)
        rows.append({"dependence": r, "truth": truth, "noted": against, "corrected": corrected})
    table = pd.DataFrame(rows)
    return table.assign(error=table["corrected"] - table["truth"])


def recorded(path: Path = RECORDED) -> pd.DataFrame:
    """How often corrected intervals held the truth on phantoms: ``benchmarks/label_error.py``.

    Returns
    -------
    DataFrame, one row per design, group, metric and labels ("as noted" or "corrected"): truth, of
    the whole population; n_studies, n_undefined, n_hold, n_below and n_above of their intervals;
    mean and width, of values and intervals; n_images, n_resamples, date; and coverage with its
    interval, see `cxrlib.stats.simulate.shares`.
    """
    return simulate.shares(pd.read_csv(path))

"""From a predictions table to estimates that share their resamples; `cxrlib.stats.fairness` makes
tables of them, `cxrlib.stats.inference` tests and plans.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.core import checks, levels
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import analytic, bootstrap, calibration, metrics
from cxrlib.stats.ranking import ranker

RANKING_METRICS = ("auc", "average_precision", "adjusted_auprc")
PROBABILITY_METRICS = {
    "brier": metrics.brier,
    "ece_equal_width": calibration.ece_equal_width,
    "ece_equal_mass": calibration.ece_equal_mass,
    "calibration_in_the_large": calibration.calibration_in_the_large,
}
DECISION_METRICS = {
    "sensitivity": metrics.sensitivity,
    "specificity": metrics.specificity,
    "false_negative_rate": metrics.false_negative_rate,
    "false_positive_rate": metrics.false_positive_rate,
}
ANALYTIC = "analytic"
INTERVALS = (*bootstrap.METHODS, ANALYTIC)  # values of the protocol's switch
_NONE = np.empty(0)
FEW_PATIENTS = 10  # positive patients below which intervals were too narrow in simulations


Attribute = str | tuple[str, ...]  # a column, or several that are crossed
Attributes = Attribute | Sequence[Attribute] | Mapping[Any, Sequence[str] | None]
Pairs = Sequence[tuple[str, str]]


class Sampling(TypedDict, total=False):
    """How the numbers of a table are resampled, see `cxrlib.stats.fairness.performance_table`."""

    protocol: str | Protocol
    n_resamples: int
    seed: int


class Options(Sampling, total=False):
    """What a table of metrics can be asked for, see `cxrlib.stats.fairness.performance_table`."""

    match: str | Sequence[str] | None
    mean_over_labels: bool


class Key(NamedTuple):
    """What a number is about."""

    model: str
    method: str
    label: str
    attribute: str
    group: str
    metric: str


class Counted(NamedTuple):
    """A number with what its interval and its row need."""

    value: float
    replicates: np.ndarray  # (B,); none for analytic intervals
    jackknife: np.ndarray | None  # (g,), but for percentile intervals
    n: int
    n_positive: int
    n_negative: int
    patients: np.ndarray  # distinct patient codes, kept so that unions can be counted
    note: str = ""
    moved: np.ndarray | None = None  # (m,) by patients, for analytic intervals


@dataclass(frozen=True)
class Study:
    """The predictions of one cohort, its images and groups, and how it is resampled."""

    cohort: str
    predictions: pd.DataFrame
    images: pd.DataFrame  # one row per image, indexed by image_id: patient_id and attributes
    patient: np.ndarray  # (n,) patient codes
    groups: dict  # attribute -> list of groups
    missing: dict  # attribute -> note on images that belong to no group, or ""
    resamples: bootstrap.Resamples
    protocol: Protocol

    def member(self, attribute: str, group: str) -> np.ndarray:
        """(n,) bool: which images belong to the group."""
        if attribute == "all":
            return np.ones(len(self.images), dtype=bool)
        return (self.images[attribute] == group).to_numpy()

    @property
    def analytic(self) -> bool:
        """Whether intervals come from influences, and nothing is resampled."""
        return self.protocol.interval == ANALYTIC

    def evaluate(self, statistics: Mapping[Any, Callable]) -> dict[tuple, bootstrap.Evaluated]:
        """What `bootstrap.evaluate` gives, with the jackknife if the intervals need it."""
        bootstrap.only(self.protocol.interval)
        jackknife = self.protocol.interval != "percentile"
        return bootstrap.evaluate(statistics, self.resamples, jackknife)

    def blocks(self) -> Iterator[tuple[tuple, np.ndarray, np.ndarray, np.ndarray]]:
        """For each model, method and label: its names, labels (n,), scores and image positions."""
        found = self.predictions.groupby(["model", "method", "label"], sort=False, observed=True)
        for names, block in found:
            image = self.images.index.get_indexer(block["image_id"])
            yield names, block["y_true"].to_numpy(bool), block["score"].to_numpy(float), image


def attribute_name(attribute: Attribute) -> str:
    """The name of an attribute or of an intersection: ("sex", "race") -> "sex x race"."""
    return attribute if isinstance(attribute, str) else " x ".join(attribute)


def studies(
    predictions: pd.DataFrame,
    attributes: Attributes = (),
    *,
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
    probabilities: bool = False,
) -> Iterator[Study]:
    """One Study per cohort; the parameters are those of `cxrlib.stats.fairness.performance_table`.

    probabilities : whether scores have to lie in [0, 1]
    """
    p = protocol_of(protocol)
    checks.one_of("interval", p.interval, INTERVALS)
    wanted = _wanted(attributes)
    columns = list(dict.fromkeys(c for a in wanted for c in ((a,) if isinstance(a, str) else a)))
    predictions = schema.predictions(predictions, *columns, probabilities=probabilities)
    carried = list(dict.fromkeys(["image_id", "patient_id", *columns]))
    for cohort, table in predictions.groupby("cohort", sort=False, observed=True):
        images = table[carried].drop_duplicates("image_id").set_index("image_id")
        patient = pd.factorize(images["patient_id"])[0]
        present = {
            c: list(images[c].cat.remove_unused_categories().cat.categories) for c in columns
        }
        resamples = bootstrap.Resamples(images["patient_id"].to_numpy(), n_resamples, seed, p.unit)
        images[columns] = images[columns].astype(object)
        groups, missing = {}, {}
        for attribute, chosen in wanted.items():
            name = attribute_name(attribute)
            if not isinstance(attribute, str):
                parts = images[list(attribute)]
                crossed = parts.fillna("").agg(" x ".join, axis=1)
                images[name] = crossed.where(parts.notna().all(axis=1))
                there = set(images[name].dropna())
                crossed = map(" x ".join, product(*(present[c] for c in attribute)))
                present[name] = [g for g in crossed if g in there]
            none = images[name].isna().to_numpy()
            people = len(np.unique(patient[none]))
            note = f"{none.sum()} images of {people} patients without {name} belong to no group"
            missing[name] = note if people else ""
            groups[name] = present[name] if chosen is None else [levels.text(g) for g in chosen]
            check_known(groups[name], present[name], f"groups of {name!r}")
        yield Study(cohort, table, images, patient, groups, missing, resamples, p)


def _wanted(attributes):
    """attribute (a name, or a tuple of names to cross) -> its groups, or None for all."""
    if isinstance(attributes, str):
        return {attributes: None}
    if isinstance(attributes, dict):
        return attributes
    return {a if isinstance(a, str) else tuple(a): None for a in attributes}


def _estimates(study, metrics, mean_over_labels, match):
    """Every metric for every model, method, label and group: Key -> Counted."""
    # at the source, so that gaps and means with such a group are undefined too
    fewest = max(study.protocol.min_cases, schema.smallest_cell())
    strata = _strata(study, match)
    cells, statistics, found = {}, {}, {}
    members = {
        attribute: {g: study.member(attribute, g) for g in groups}
        for attribute, groups in ({"all": ["all"]} | study.groups).items()
    }
    for names, y, score, image in study.blocks():
        if study.analytic:  # sorted once, and sorted groups need next to no sorting
            order = np.argsort(score, kind="stable")
            y, score, image = y[order], score[order], image[order]
        for attribute, groups in members.items():
            at = {g: np.flatnonzero(of[image]) for g, of in groups.items()}
            patient = study.patient[image]
            why = {g: not_given(y[rows], patient[rows], fewest) for g, rows in at.items()}
            matching = {}
            if match is not None and attribute != "all":
                matching = _matching(y, image, strata, {g: at[g] for g in groups if not why[g]})
            for g, rows in at.items():
                where = (*names, attribute, g)
                note, weigh, stratum = matching.get(g, ("", None, None))
                few = _few_patients(patient[rows][y[rows]])
                cells[where] = (y[rows], image[rows], why[g] or joined(note, few))
                if why[g]:
                    continue
                of = y[rows], score[rows], image[rows], metrics, weigh
                if study.analytic:
                    moved = _moved(study.resamples.code, *of, stratum)
                    found |= {(where, m): (v, _NONE, None, x) for m, (v, x) in moved.items()}
                else:
                    statistics[where] = statistic(*of)
    found = found if study.analytic else study.evaluate(statistics)
    out = _assembled(study, cells, found, metrics)
    return out | means(out) if mean_over_labels else out


def evaluated(
    study: Study, cells: dict[tuple, tuple], statistics: dict, metrics: Sequence[str]
) -> dict[Key, Counted]:
    """Estimates of every metric in every cell; undefined in those without a statistic.

    cells : (model, method, label, attribute, group) -> y (k,) bool, image (k,), note
    """
    return _assembled(study, cells, study.evaluate(statistics), metrics)


def _assembled(study, cells, found, metrics):
    nothing = [np.full(k, np.nan) for k in (len(study.resamples), study.resamples.n_blocks)]
    if study.analytic:
        nothing = _NONE, None
    out = {}
    for where, (y, image, note) in cells.items():
        n = len(y), int(y.sum()), int((~y).sum()), np.unique(study.patient[image])
        for metric in metrics:
            of = found.get((where, metric), (np.nan, *nothing))
            out[Key(*where, metric)] = Counted(*of[:3], *n, note, *of[3:])
    return out


def estimated(
    predictions: pd.DataFrame,
    attributes: Attributes,
    metrics: str | Sequence[str],
    *,
    mean_over_labels: bool = True,
    match: str | Sequence[str] | None = None,
    **sampling: Unpack[Sampling],
) -> Iterator[tuple[Study, dict[Key, Counted]]]:
    """One (Study, estimates) per cohort; see `cxrlib.stats.fairness.performance_table`."""
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    check_known(metrics, (*RANKING_METRICS, *PROBABILITY_METRICS, *DECISION_METRICS), "metrics")
    without = [m for m in metrics if m not in analytic.METRICS]
    if without and protocol_of(sampling.get("protocol", "corrected")).interval == ANALYTIC:
        raise ValueError(
            f"interval={ANALYTIC!r}: no influences of {', '.join(without)}; expected metrics out "
            f"of {', '.join(analytic.METRICS)}. Ask for the others with interval='expanded'."
        )
    probabilities = any(m in PROBABILITY_METRICS for m in metrics)
    for study in studies(predictions, attributes, probabilities=probabilities, **sampling):
        yield study, _estimates(study, metrics, mean_over_labels, match)


def not_given(y: np.ndarray, patient: np.ndarray, fewest: int) -> str:
    """Why a group's numbers are not given, or "": y (k,) bool, patients (k,), fewest of a class."""
    n_positive, n_negative = int(y.sum()), int((~y).sum())
    if n_positive < fewest:
        return f"not given: {n_positive} positive images, fewer than {fewest}"
    if n_negative < fewest:
        return f"not given: {n_negative} negative images, fewer than {fewest}"
    if 0 in (n_positive, n_negative):
        return "undefined: one class only"
    people = schema.smallest_cell()
    return schema.SUPPRESSED if people and len(np.unique(patient)) < people else ""


def _few_patients(positive):
    """What to keep in mind where few patients are positive, or ""."""
    n = len(np.unique(positive))
    return f"{n} positive patients: the interval may be too narrow" if n < FEW_PATIENTS else ""


def joined(*notes: str | None) -> str:
    """The notes that say something, in one."""
    return "; ".join(note for note in notes if note)


def counts(positive: np.ndarray, patient: ArrayLike) -> dict[str, int]:
    """The counts of a results table, of images (k,) bool and their patients."""
    n = {"n": len(positive), "n_positive": int(positive.sum())}
    return n | {"n_patients": pd.Series(patient).nunique()}


def statistic(
    y: np.ndarray,
    score: np.ndarray,
    image: np.ndarray,
    metrics: Sequence[str],
    weigh: Callable | None = None,
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Function of the cohort's weights (b, n) that gives the metrics of one group, each (b,).

    y, score, image : (k,) labels, scores and positions in the cohort of the group's images
    weigh : function of the group's weights (b, k) that gives other ones, see `_matching`
    """
    others = {
        m: (PROBABILITY_METRICS | DECISION_METRICS)[m] for m in metrics if m not in RANKING_METRICS
    }
    rank = None
    if len(others) < len(metrics):  # one sort for all three
        rank = ranker(y, score, image if weigh is None else None)

    def evaluate(weights):
        own = weigh(take(weights, image)) if weigh else take(weights, image) if others else None
        ranked = rank(weights if weigh is None else own) if rank else {}
        return {m: ranked[m] if m in ranked else others[m](y, score, own) for m in metrics}

    return evaluate


def _moved(code, y, score, image, metrics, weigh, stratum):
    """Metric -> value, and how far each patient moves it."""
    weight = weigh(np.ones((1, len(y))))[0] if weigh else None
    return analytic.by_patient(y, score, code[image], code.max() + 1, metrics, weight, stratum)


def take(weights: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Columns (b, k) of a weight matrix, read along its fast axis."""
    return weights.T.take(image, axis=0).T


# --- matched groups ---------------------------------------------------------------------------


def _strata(study, match):
    """(n,) stratum of each image for the covariates in `match`, and whether labels count too."""
    if match is None:
        return None, False
    names = (match,) if isinstance(match, str) else tuple(match)
    covariates = [n for n in names if n != "prevalence"]
    stratum = np.zeros(len(study.images), dtype=int)
    if covariates:
        by_image = study.predictions.drop_duplicates("image_id").set_index("image_id")
        for name in covariates:
            if name not in by_image:
                known = "expected 'prevalence' or a column joined in."
                raise ValueError(f"match: no column {name!r} in the predictions; {known}")
        keys = by_image.loc[study.images.index, covariates].apply(
            lambda column: levels.levels(column, f"match: column {column.name!r}")
        )
        stratum = keys.groupby(covariates, observed=True, dropna=False).ngroup().to_numpy()
    return stratum, "prevalence" in names


def _matching(y, image, strata, at):
    """For each group: a note, the function that weights it to the cohort's distribution, strata.

    Every stratum (of covariates, of labels, or of both) gets the share that it has in all groups
    together; strata that are missing from a group are left out of all groups. The shares are met
    in every resample.
    """
    if not at:
        return {}
    stratum, with_labels = strata
    code = 2 * stratum[image] + y if with_labels else stratum[image]
    code = np.unique(code, return_inverse=True)[1]
    n_strata = code.max() + 1
    count = {g: np.bincount(code[rows], minlength=n_strata) for g, rows in at.items()}
    shared = np.all([c > 0 for c in count.values()], axis=0)
    target = np.sum(list(count.values()), axis=0) * shared
    out = {}
    for g, rows in at.items():
        own = np.eye(n_strata)[code[rows]]

        def weigh(weights, own=own):
            mass = weights @ own  # (b, S)
            with np.errstate(invalid="ignore", divide="ignore"):
                factor = np.where(mass > 0, target / mass, 0)
            return weights * (factor @ own.T)

        lost = int(count[g][~shared].sum())
        note = f"weighted; {lost} images without counterpart in every group get no weight"
        out[g] = (note if lost else "weighted", weigh, code[rows])
    return out


# --- combinations -----------------------------------------------------------------------------


def means(found: Mapping[Key, Counted]) -> dict[Key, Counted]:
    """Means over the labels defined in every group (of any model) of each attribute."""
    labels = list(dict.fromkeys(key.label for key in found))
    if len(labels) < 2:
        return {}
    keys = dict.fromkeys(key._replace(label="mean") for key in found)
    undefined = _undefined(found)
    out = {}
    for key in keys:
        lost = undefined.get(key.attribute, {})
        kept = [label for label in labels if label not in lost]
        note = f"mean over {len(kept)} of {len(labels)} labels"
        if not kept:
            note = "no finding is defined in every group"
        if lost:
            why = (f"{label} (undefined in {', '.join(places)})" for label, places in lost.items())
            note += f"; left out: {', '.join(why)}"
        of_labels = (found.get(key._replace(label=label)) for label in kept or labels)
        parts = [e for e in of_labels if e is not None]
        jackknives, moved = ([getattr(e, of) for e in parts] for of in ("jackknife", "moved"))
        out[key] = Counted(
            np.mean([e.value for e in parts]) if kept else np.nan,
            np.mean([e.replicates for e in parts], axis=0),
            np.mean(jackknives, axis=0) if kept and jackknives[0] is not None else None,
            max(e.n for e in parts),
            min(e.n_positive for e in parts),
            min(e.n_negative for e in parts),
            np.unique(np.concatenate([e.patients for e in parts])),
            note,
            np.mean(moved, axis=0) if kept and moved[0] is not None else None,
        )
    return out


def labels_in_mean(found: Mapping[Key, Counted], attribute: str) -> list[str]:
    """The labels that the mean over labels is taken of, for an attribute."""
    lost = _undefined(found).get(attribute, {})
    labels = dict.fromkeys(key.label for key in found if key.label != "mean")
    return [label for label in labels if label not in lost] if len(labels) > 1 else []


def _undefined(found):
    """attribute -> label -> where it is undefined: groups, or models without it."""
    keys = dict.fromkeys(key._replace(label="mean") for key in found)
    labels = dict.fromkeys(key.label for key in found if key.label != "mean")
    undefined = {}
    for mean, label in product(keys, labels):
        estimate = found.get(mean._replace(label=label))
        if estimate is None or not np.isfinite(estimate.value):
            where = mean.model if estimate is None else mean.group
            undefined.setdefault(mean.attribute, {}).setdefault(label, {})[where] = None
    return undefined


def difference(a: Counted, b: Counted, name_a: str, name_b: str) -> Counted:
    """Paired difference of two estimates; counts are those of `a`, patients of both."""
    notes = [f"{name}: {e.note}" for name, e in ((name_a, a), (name_b, b)) if e.note]
    return a._replace(
        value=a.value - b.value,
        replicates=a.replicates - b.replicates,
        jackknife=_minus(a.jackknife, b.jackknife),
        moved=_minus(a.moved, b.moved),
        patients=np.union1d(a.patients, b.patients),
        note=a.note if a.note == b.note else joined(*notes),
    )


def _minus(a, b):
    return None if a is None or b is None else a - b


def group_gaps(found: Mapping[Key, Counted], attribute: str, pairs: Pairs) -> dict[Key, Counted]:
    """Gaps "A - B" between groups of an attribute: Key -> Counted, counts of both groups."""
    if not pairs:
        raise ValueError(
            f"attribute {attribute!r}: fewer than two groups in this cohort; a gap needs two. "
            "Choose another attribute or a larger cohort."
        )
    gaps = {}
    for a, b in pairs:
        for key, in_a in found.items():
            if key.attribute == attribute and key.group == a:
                in_b = found[key._replace(group=b)]
                gaps[key._replace(group=f"{a} - {b}")] = difference(in_a, in_b, a, b)._replace(
                    n=in_a.n + in_b.n,
                    n_positive=in_a.n_positive + in_b.n_positive,
                    n_negative=in_a.n_negative + in_b.n_negative,
                )
    return gaps


def spread(estimate: Counted) -> float:
    """Standard error, from the resamples or the influences; NaN where it is not known."""
    if estimate.moved is not None:
        return float(analytic.standard_error(estimate.moved))
    return np.nanstd(estimate.replicates, ddof=1) if len(estimate.replicates) else np.nan


def rows(found: Mapping[Key, Counted], study: Study, differences: bool = False) -> list[dict]:
    """Rows of a results table; analytic limits of differences are on the plain scale."""
    out = []
    for key, e in found.items():
        # the interval of an undefined number has nothing to correct
        method = study.protocol.interval if np.isfinite(e.value) else "percentile"
        if study.analytic:
            limits = _analytic(e, analytic.PLAIN if differences else analytic.SCALES[key.metric])
        else:
            limits = bootstrap.interval(e.value, e.replicates, e.jackknife, method=method)
        noticed = "" if e.note and not np.isfinite(e.value) else limits["note"]
        row = {"cohort": study.cohort, **key._asdict(), **limits}
        row |= {"n": e.n, "n_positive": e.n_positive, "n_negative": e.n_negative}
        row |= {"n_patients": len(e.patients)}
        row |= {"unit": study.resamples.unit}
        row |= {"seed": None if study.analytic else study.resamples.seed}
        out.append(row | {"note": joined(e.note, noticed, study.missing.get(key.attribute))})
    return out


def _analytic(e, scale):
    low, high, note = np.nan, np.nan, "undefined on the sample itself"
    if e.moved is not None:
        low, high = analytic.limits(e.value, e.moved, scale)
        note = "" if np.isfinite(low) else analytic.NO_LIMITS
    return {"value": e.value, "ci_low": low, "ci_high": high, "n_replicates": None, "note": note}


def pairs_of(known: Sequence[str], pairs: Pairs | None, reference: str | None) -> Pairs:
    """The pairs (A, B) asked for; by default all, in the order of the names."""
    if reference is not None:
        reference = levels.text(reference)
        pairs = [(name, reference) for name in known if name != reference]
        check_known([reference], known, "reference")
    elif pairs is None:
        pairs = [(a, b) for i, a in enumerate(known) for b in known[i + 1 :]]
    pairs = [(levels.text(a), levels.text(b)) for a, b in pairs]
    check_known([name for pair in pairs for name in pair], known, "pairs")
    return pairs


def check_known(asked: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise a ValueError that lists what is known if something else is asked for."""
    for name in asked:
        if name not in known:
            raise ValueError(f"{what}: unknown {name!r}; expected one of {', '.join(known)}.")

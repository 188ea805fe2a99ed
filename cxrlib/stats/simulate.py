"""Cohorts whose true AUC, adjusted AUPRC and gap are known, and how often intervals hold them.

An interval that claims 95 % should hold the truth in 95 of 100 studies. With real patients nobody
can check, for the truth is unknown. Here it is a closed form (`population`), cohorts are drawn from
it (`sample`), and the share of intervals that hold it is counted (`coverage`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri

from cxrlib.core import checks
from cxrlib.stats import analytic, bootstrap, metrics
from cxrlib.stats.ranking import ranker

KIND = ["metric", "unit", "method"]
COUNTS = ["n_studies", "n_undefined", "n_hold", "n_below", "n_above"]
BAND = 0.93, 0.97  # coverage that passes for the nominal 0.95
CLASSES = {"under 5": 0, "5 to 9": 5, "10 to 19": 10, "20 to 39": 20, "40 or more": 40}
METHODS = (  # unit of resampling and method of the interval
    ("image", "percentile"),  # S
    ("patient", "percentile"),
    ("patient", "bca"),
    ("patient", "expanded"),
    ("patient", "analytic"),
)


@dataclass(frozen=True)
class Design:
    """A study with two groups of patients, and a model that may serve them differently.

    Parameters
    ----------
    n_images : in the group; patients are added until it is full
    images_per_patient : a number, or several that patients have in turn: (1, 2, 10)
    icc : correlation of two images of a patient, in [0, 1), of scores given the labels and of the
        liability behind the labels, see `sample`
    prevalence : share of positive images in the population, in (0, 1)
    auc : of the model in the group, in (0, 1)
    reference_auc : of the model in the other group, which is alike in all else
    """

    n_images: int
    images_per_patient: int | tuple[int, ...] = 1
    icc: float = 0.0
    prevalence: float = 0.1
    auc: float = 0.8
    reference_auc: float = 0.75


def population(auc: float, prevalence: float) -> dict[str, float]:
    """True values of binormal scores: negatives from N(0, 1), positives from N(mu, 1).

    A positive image outranks a negative one when ``mu + e - e' > 0``; the noise of the difference
    has the variance 2, so ``AUC = Phi(mu / sqrt(2))``. Average precision is the mean precision at
    the scores of positive images. Above a threshold x lie the shares ``Phi(mu - x)`` of the
    positives and ``Phi(-x)`` of the negatives, so with prevalence p

    ``AP = integral of phi(x - mu) p Phi(mu - x) / (p Phi(mu - x) + (1 - p) Phi(-x)) dx``.

    Parameters
    ----------
    auc, prevalence : float in (0, 1)

    Returns
    -------
    dict of float: auc, average_precision (relative error below 1e-8), adjusted_auprc (S 2.1)
    """
    from scipy.integrate import quad

    checks.fractions(auc=auc, prevalence=prevalence)
    mu = np.sqrt(2) * ndtri(auc)

    def integrand(x):
        log_odds = log_ndtr(mu - x) - log_ndtr(-x) + np.log(prevalence / (1 - prevalence))
        return _density(x - mu) / (1 + np.exp(-log_odds))

    ap = quad(integrand, mu - 12, mu + 12, points=(0, mu), epsabs=0, epsrel=1e-9, limit=200)[0]
    return {
        "auc": auc,
        "average_precision": ap,
        "adjusted_auprc": float(1 - np.log(ap) / np.log(prevalence)),
    }


def fair_gaps(
    recall: ArrayLike, per_cell: int, repeats: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Gaps between two groups that a classifier treats exactly alike (X, Eqs. 2 and 3).

    Its answers depend on the true class alone; wrong ones are spread over the other classes.

    Parameters
    ----------
    recall : (k,), the share of each class that is recognised
    per_cell : images of a class in a group of the test set
    repeats : test sets
    rng : the stream of random numbers

    Returns
    -------
    DataFrame, one row per test set: f1_gap_signed (its modulus), f1_gap_absolute, eq_odds_mean,
    eq_odds_max. Their truth is 0.
    """
    recall = np.asarray(recall)
    classes, truth = len(recall), np.repeat(np.arange(len(recall)), per_cell)

    def answers():
        wrong = (truth + rng.integers(1, classes, len(truth))) % classes
        return np.where(rng.random(len(truth)) < recall[truth], truth, wrong)

    rows = []
    for _ in range(repeats):
        groups = answers(), answers()
        f1 = [metrics.f1_by_class(truth, group, classes) for group in groups]
        rates = [metrics.rates_by_class(truth, group, classes) for group in groups]
        gaps = {"f1_gap_signed": abs(metrics.f1_gap_signed(*f1))}
        gaps |= {"f1_gap_absolute": metrics.f1_gap_absolute(*f1)}
        gaps |= {"eq_odds_mean": metrics.eq_odds_mean(*rates)}
        rows.append(gaps | {"eq_odds_max": metrics.eq_odds_max(*rates)})
    return pd.DataFrame(rows)


def patients(n_images: int, images_per_patient: int | Sequence[int] = 1) -> np.ndarray:
    """Patient numbers 0, 0, 0, 1, ... of n images; the last patient may have fewer: (n,) int."""
    sizes = np.atleast_1d(images_per_patient)
    if n_images < 1 or (sizes < 1).any():
        raise ValueError(
            f"n_images: {n_images}, images_per_patient: {images_per_patient}; expected whole "
            "numbers of 1 or more."
        )
    return np.repeat(np.arange(n_images), np.resize(sizes, n_images))[:n_images]


def sample(
    patient_id: np.ndarray,
    auc: float,
    prevalence: float,
    icc_score: float,
    icc_label: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a cohort from the population of `population`.

    Image j of patient i has the liability ``l = sqrt(icc_label) u_i + sqrt(1 - icc_label) v_ij``
    and is positive where l exceeds the quantile ``Phi^-1(1 - prevalence)``; its score is
    ``mu y_ij + sqrt(icc_score) a_i + sqrt(1 - icc_score) e_ij``. All of u, v, a, e are independent
    standard normal. Given the label, the score of any image is thus N(mu y, 1): the population
    values do not depend on the correlations. (They are about images of different patients. Within
    a patient, where a_i cancels, positive and negative images are easier to tell apart.)

    Parameters
    ----------
    patient_id : (n,) whole numbers from 0, as from `patients`
    auc, prevalence : float in (0, 1)
    icc_score, icc_label : float in [0, 1], correlation of two images of a patient: of the scores
        given the labels, and of the liabilities (not of the labels, whose correlation is lower)
    rng : numpy.random.Generator

    Returns
    -------
    y (n,) of 0/1, score (n,) float
    """
    checks.fractions(auc=auc, prevalence=prevalence)
    for name, icc in (("icc_score", icc_score), ("icc_label", icc_label)):
        if not 0 <= icc <= 1:
            raise ValueError(f"{name}: {icc!r}; expected a correlation from 0 to 1.")
    n, m = len(patient_id), np.max(patient_id) + 1

    def clustered(icc):
        shared = rng.standard_normal(m)[patient_id]
        return np.sqrt(icc) * shared + np.sqrt(1 - icc) * rng.standard_normal(n)

    y = (clustered(icc_label) > -ndtri(prevalence)).astype(int)
    return y, np.sqrt(2) * ndtri(auc) * y + clustered(icc_score)


def label_icc(y: ArrayLike, patient_id: ArrayLike) -> float:
    """Correlation of the liabilities behind the labels of two images of a patient.

    The model of `sample`, turned around: the share of positive pairs of images is
    ``E[Phi((sqrt(icc) u - z) / sqrt(1 - icc))^2]`` with u standard normal and ``Phi(-z)`` the share
    of positive images. Both shares are means over the patients with at least two images.

    Parameters
    ----------
    y : (n,) of 0/1
    patient_id : (n,) one entry per image

    Returns
    -------
    float in [0, 1): 0 also where images of a patient agree less often than by chance; NaN without
    patients with two images, or where all or none of their images are positive.
    """
    from scipy.integrate import quad
    from scipy.optimize import brentq

    by_patient = pd.Series(np.asarray(y, dtype=float)).groupby(np.asarray(patient_id))
    ill, images = by_patient.sum(), by_patient.size()
    ill, images = ill[images > 1], images[images > 1]
    positive = (ill / images).mean()
    both = (ill * (ill - 1) / (images * (images - 1))).mean()
    if not 0 < positive < 1:
        return np.nan
    z = -ndtri(positive)

    def excess(icc):
        def pair(u):
            return _density(u) * ndtr((np.sqrt(icc) * u - z) / np.sqrt(1 - icc)) ** 2

        return quad(pair, -8, 8, points=(z,))[0] - both

    return 0.0 if excess(0) >= 0 else brentq(excess, 0, 0.9999, xtol=1e-4)


def grid(name: str = "small") -> list[Design]:
    """Designs to compare: "small" for a chapter, "full" for ``benchmarks/coverage.py``.

    Layouts (images per patient, correlation) crossed with sizes (images, prevalence) and AUCs.
    """
    checks.one_of("grid", name, ("small", "full"))
    if name == "small":
        layouts: list[tuple] = [(1, 0.0), (3, 0.6), (10, 0.6)]
        sizes = [(50, 0.3), (100, 0.1), (100, 0.3), (300, 0.1), (300, 0.3), (1000, 0.03)]
    else:
        layouts = [(1, 0.0), *product((3, 10), (0.0, 0.3, 0.6)), (tuple(range(1, 11)), 0.6)]
        sizes = [*product((50, 100, 300, 1000), (0.01, 0.03, 0.1, 0.3)), (3000, 0.01)]
    return [
        Design(n, images, icc, prevalence, auc)
        for auc, (images, icc), (n, prevalence) in product((0.75, 0.9), layouts, sizes)
    ]


def studies(
    design: Design,
    n_simulations: int = 500,
    n_resamples: int = 500,
    seed: int = 1907,
    methods: Sequence[tuple[str, str]] = METHODS,
) -> pd.DataFrame:
    """Simulated studies of a design with the intervals that each would report.

    Every cohort holds both groups and is evaluated like the cohorts of this book: one set of
    resamples for both groups and all metrics, so that the gap is paired. The cohorts of a design
    have the same patients with the same numbers of images, so the resamples are drawn once.

    Parameters
    ----------
    design : Design
    n_simulations : cohorts; those of two designs are independent
    n_resamples : of each cohort
    seed : of the cohorts and of the resamples
    methods : kinds of interval out of `METHODS`; "analytic" alone draws no resamples

    Returns
    -------
    DataFrame, one row per study, metric and kind of interval: simulation, n_positive and
    n_positive_patients (of the group), metric, unit, method, value, ci_low, ci_high; the last three
    are NaN where undefined.
    """
    patient = patients(design.n_images, design.images_per_patient)
    n = len(patient)
    both = np.concatenate([patient, patient.max() + 1 + patient])
    resampled = any(method != "analytic" for _, method in methods)
    weights, part = _draws(both, n_resamples, seed) if resampled else (None, None)
    rng = np.random.default_rng([seed, crc32(repr(design).encode())])
    shape = design.prevalence, design.icc, design.icc, rng
    rows = []
    for simulation in range(n_simulations):
        own, reference = (
            sample(patient, auc, *shape) for auc in (design.auc, design.reference_auc)
        )
        counts = simulation, int(own[0].sum()), len(np.unique(patient[own[0] == 1]))
        at_once = _analytic(own, reference, patient)
        values = dict.fromkeys(at_once)
        if resampled:
            group = ranker(*own, np.arange(n))(weights)
            other = ranker(*reference, np.arange(n, 2 * n))(weights)
            values = {"auc": group["auc"], "adjusted_auprc": group["adjusted_auprc"]}
            values["auc_gap"] = group["auc"] - other["auc"]
        for metric, v in values.items():
            for unit, method in methods:
                found = at_once[metric]
                if method != "analytic":
                    draws = v[0], v[part[unit]], v[part["jackknife"]]
                    of = bootstrap.interval(*draws, method=method)
                    found = of["value"], of["ci_low"], of["ci_high"]
                rows.append((*counts, metric, unit, method, *found))
    counts = ["simulation", "n_positive", "n_positive_patients"]
    return pd.DataFrame(rows, columns=[*counts, *KIND, "value", "ci_low", "ci_high"])


def _analytic(own, reference, patient):
    """metric -> value, low, high of a group, and of its gap to another with as many patients."""
    names, m = ("auc", "adjusted_auprc"), patient.max() + 1
    group, other = (
        analytic.by_patient(y == 1, score, patient, m, names)
        if 0 < y.sum() < len(y)
        else dict.fromkeys(names, (np.nan, np.full(m, np.nan)))
        for y, score in (own, reference)
    )
    (a, of_a), (b, of_b) = group["auc"], other["auc"]
    found = {k: (v, *analytic.limits(v, of, analytic.SCALES[k])) for k, (v, of) in group.items()}
    return found | {"auc_gap": (a - b, *analytic.limits(a - b, np.append(of_a, -of_b)))}


def coverage(
    design: Design,
    n_simulations: int = 500,
    n_resamples: int = 500,
    seed: int = 1907,
    methods: Sequence[tuple[str, str]] = METHODS,
) -> pd.DataFrame:
    """How often nominal 95 % intervals hold the truth, by metric and kind of interval.

    Parameters: see `studies`.

    Returns
    -------
    DataFrame, one row per metric and kind of interval: the fields of the design; n_positive and
    n_positive_patients (of the group, mean over studies); metric, unit, method, truth; the counts
    n_studies, n_undefined (no value or no interval), n_hold, n_below and n_above (the interval
    holds the truth, or lies wholly on that side of it); width (mean of the intervals); and the
    columns of `shares`.
    """
    table = studies(design, n_simulations, n_resamples, seed, methods)
    truth = population(design.auc, design.prevalence)
    truth["auc_gap"] = design.auc - design.reference_auc
    table["truth"] = table["metric"].map(truth)
    low, high = table["ci_low"], table["ci_high"]
    counted = table[[*KIND, "truth"]].assign(
        n_studies=1,
        n_undefined=low.isna(),
        n_hold=(low <= table["truth"]) & (table["truth"] <= high),
        n_below=high < table["truth"],
        n_above=low > table["truth"],
    )
    counted = counted.groupby([*KIND, "truth"], sort=False).sum()
    counted["width"] = (high - low).groupby([table[k] for k in KIND], sort=False).mean().to_numpy()
    about = asdict(design) | table[["n_positive", "n_positive_patients"]].mean().to_dict()
    return shares(pd.DataFrame([about] * len(counted)).join(counted.reset_index()))


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage of a table with counts, also of sums of counts over designs.

    Parameters
    ----------
    table : DataFrame with n_studies, n_undefined, n_hold

    Returns
    -------
    The table with coverage (share of the studies with an interval in which it holds the truth; NaN
    without any), its Wilson 95 % interval coverage_low, coverage_high, and undefined (share of
    all studies).
    """
    from statsmodels.stats.proportion import proportion_confint

    defined = table["n_studies"] - table["n_undefined"]
    some = defined.where(defined > 0).astype(float)
    low, high = proportion_confint(table["n_hold"], some, method="wilson")
    return table.assign(
        coverage=table["n_hold"] / some,
        coverage_low=low,
        coverage_high=high,
        undefined=table["n_undefined"] / table["n_studies"],
    )


def by_positive_patients(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage of many designs together, by how many positive patients a group has on average.

    table : rows of `coverage` of several designs. Returns one row per class (see `CLASSES`), metric
    and kind of interval: n_designs, sums of the counts, mean width, and the columns of `shares`.
    """
    kind = pd.cut(table["n_positive_patients"], [*CLASSES.values(), np.inf], right=False)
    kind = kind.cat.rename_categories(list(CLASSES)).rename("positive_patients")
    by = [kind, *(table[k] for k in KIND)]
    pooled = table[COUNTS].groupby(by, sort=False, observed=True).sum()
    pooled["width"] = table["width"].groupby(by, sort=False, observed=True).mean()
    pooled.insert(0, "n_designs", table["width"].groupby(by, sort=False, observed=True).size())
    return shares(pooled.reset_index().sort_values("positive_patients", kind="stable"))


def trusted_from(pooled: pd.DataFrame, metric: str, unit: str, method: str) -> int | None:
    """From how many positive patients on coverage stays within `BAND`; None if never.

    pooled : from `by_positive_patients`
    """
    rows = pooled[
        (pooled["metric"] == metric) & (pooled["unit"] == unit) & (pooled["method"] == method)
    ]
    found = None
    for row in rows[::-1].itertuples():  # from many positive patients to few
        if not BAND[0] <= row.coverage <= BAND[1]:
            break
        found = CLASSES[row.positive_patients]
    return found


def named(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `coverage` or `by_positive_patients` with a column ``kind``: "patients, BCa"."""
    method = table["method"].replace("bca", "BCa")
    return table.assign(kind=table["unit"] + "s, " + method)


def in_percent(table: pd.DataFrame) -> pd.DataFrame:
    """Coverage as a results table has it: value, ci_low and ci_high, in percent."""
    limits = {"value": "", "ci_low": "_low", "ci_high": "_high"}
    return table.assign(group="all", **{c: 100 * table[f"coverage{e}"] for c, e in limits.items()})


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """How well each kind of interval keeps its promise over many designs.

    Parameters
    ----------
    table : DataFrame
        Rows of `coverage` of several designs, all metrics.

    Returns
    -------
    DataFrame, one row per kind of interval (see `named`):

    off, off_few : mean distance of coverage from 0.95 over metrics and classes of designs (see
        `by_positive_patients`) with ten positive patients or more, and with fewer; NaN without any
    width, width_thin : mean width in designs with several images a patient; in the classes with 10
        to 39 positive patients
    many, within, beyond : designs that expect thirty positive images or more; those of them whose
        coverage for AUC lies within `BAND`, and outside beyond Monte Carlo error
    above, below : intervals for AUC that lie wholly above the truth, and below
    """
    table, pooled = named(table), named(by_positive_patients(table))
    kinds = list(dict.fromkeys(table["kind"]))
    least = pooled["positive_patients"].astype(str).map(CLASSES)
    distance = (pooled["coverage"] - 0.95).abs()
    auc = table[table["metric"] == "auc"]
    many = auc[(auc["n_images"] * auc["prevalence"]).round(3) >= 30]
    outside = (many["coverage_high"] < BAND[0]) | (many["coverage_low"] > BAND[1])
    several = table["images_per_patient"].map(str) != "1"
    found = {
        "off": distance[least >= 10].groupby(pooled["kind"]).mean(),
        "off_few": distance[least < 10].groupby(pooled["kind"]).mean(),
        "width": table[several].groupby("kind")["width"].mean(),
        "width_thin": pooled[least.isin([10, 20])].groupby("kind")["width"].mean(),
    }
    counted = {
        "many": many.groupby("kind").size(),
        "within": many["coverage"].between(*BAND).groupby(many["kind"]).sum(),
        "beyond": outside.groupby(many["kind"]).sum(),
        "above": auc.groupby("kind")["n_above"].sum(),
        "below": auc.groupby("kind")["n_below"].sum(),
    }
    counts = pd.DataFrame(counted).reindex(kinds).fillna(0).astype(int)
    return pd.DataFrame(found).reindex(kinds).join(counts).rename_axis("interval")


def _draws(patient_id, n_resamples, seed):
    """Weights of the cohort itself, of all resamples and of the jackknife: (rows, n), and where."""
    by_patient = bootstrap.Resamples(patient_id, n_resamples, seed)
    by_image = bootstrap.Resamples(patient_id, n_resamples, seed, unit="image")
    blocks = {
        "once": [by_patient.once()],
        "patient": list(by_patient.chunks()),
        "image": list(by_image.chunks()),
        "jackknife": list(by_patient.jackknife()),
    }
    parts, start = {}, 0
    for name, block in blocks.items():
        length = sum(len(w) for w in block)
        parts[name] = slice(start, start + length)
        start += length
    # one image's entries side by side, which the ranking likes
    return np.concatenate([w.T for block in blocks.values() for w in block], axis=1).T, parts


def _density(x):
    """Of the standard normal distribution."""
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)

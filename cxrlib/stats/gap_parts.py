"""The parts of a gap between two groups: which share of it goes with which cause.

A *switch* takes one difference between the groups away: it gives the first group the second one's
share of ill films (prevalence) or its mix of severities, views or ages among the ill and among the
healthy, by weights; it shows both groups' films without a dial (appearance, site), by twins; it
takes labels from which nothing was left out (annotation). The gap is computed under every set of
switches, and a part is the Shapley value of its switch: what it takes off the gap, on average over
the orders in which the switches can be thrown (Shorrocks 2013). What stays with all of them thrown
is "unexplained", so the parts sum to the gap. Everything carries the influence of each film
(`cxrlib.stats.influence`), that on the weights included; thresholds are fixed, as in a device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import comb
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.core import checks, levels
from cxrlib.core.errors import Lacks
from cxrlib.core.folders import BENCHMARKS
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import estimates, influence, metrics, simulate
from cxrlib.stats.influence import Estimate

GAP, UNEXPLAINED = "gap", "unexplained"
PREVALENCE, SEVERITY, ANNOTATION = "prevalence", "severity", "annotation"
MIX = {SEVERITY: SEVERITY, "view": "view", "age": "age_group"}  # switch -> column
FILMS = ("appearance", "site")  # switches that take twins
CANNOT = "cannot be split"
ROUNDING = 1e-12
N_BINS = 5  # classes that a column of many numbers is cut into
RECORDED = BENCHMARKS / "gap_parts.csv"

Value = TypeVar("Value", float, Estimate)

# --- the game ---------------------------------------------------------------------------------


def coalitions(switches: Sequence[str]) -> list[frozenset[str]]:
    """All 2^k sets of k switches, the empty one first."""
    sizes = range(len(switches) + 1)
    return [*map(frozenset, chain.from_iterable(combinations(switches, k) for k in sizes))]


def shapley(switches: Sequence[str], worth: Mapping[frozenset[str], Value]) -> dict[str, Value]:
    """Shapley value of each switch: what it adds to the worth, on average over all orders.

    Parameters
    ----------
    switches : k names
    worth : dict of each of the 2^k sets of `coalitions` -> number or Estimate

    Returns
    -------
    dict of name -> the same kind. The values sum to the worth of all minus that of none.

    Source: Shapley 1953; of contributions to a statistic, Shorrocks 2013.
    """
    k, sets, values = len(switches), coalitions(switches), {}
    for one in switches:
        share = [1 / (k * comb(k - 1, len(s - {one}))) for s in sets]
        signed = [x if one in s else -x for x, s in zip(share, sets, strict=True)]
        values[one] = influence.combined(signed, [worth[s] for s in sets])
    return values


# --- metrics under weights, with the influence of each film -----------------------------------
# Each takes y (k,) bool, rank (k,) of the score among the distinct ones, yes (k,) bool decisions,
# and weights (k,) that sum to 1; it gives the value, and how far a film moves it per share of
# weight that it gains, (k,), of mean 0 under the weights.


def _sensitivity(y, rank, yes, w):
    return _mean_among(yes, y, w)


def _ppv(y, rank, yes, w):
    return _mean_among(y, yes, w)


def _mean_among(values, among, w):
    mass = w[among].sum()
    if mass == 0:
        return np.nan, np.zeros(len(w))
    value = w[among & values].sum() / mass
    return value, among * (values - value) / mass


def _auc(y, rank, yes, w):
    return influence.weighted_auc(y, rank, w)


def _average_precision(y, rank, yes, w):
    return influence.weighted_average_precision(y, rank, w)


METRICS = {
    "sensitivity": _sensitivity,
    "auc": _auc,
    "average_precision": _average_precision,
    "ppv": _ppv,
}

# --- films of one group, weighted to the mix of another ---------------------------------------


@dataclass(frozen=True)
class _Mixed:
    """Films of a group, weighted so that the share of the ill and the mix in each class are given.

    own, sick, mix : (n,) bool
        The films; those that give the share of the ill; those that give the mix in each class.
    cell : (n,) int, 2 * stratum + y
    shared : (cells,) bool
        Cells that get weight.
    """

    own: np.ndarray
    sick: np.ndarray
    mix: np.ndarray
    cell: np.ndarray
    shared: np.ndarray

    def weights(self):
        """(n,) weights that sum to 1, and what `carry` needs."""
        size = len(self.shared)
        n_own, n_mix = (np.bincount(self.cell[of], minlength=size) for of in (self.own, self.mix))
        n_mix = n_mix * self.shared
        n_class = np.array([n_mix[0::2].sum(), n_mix[1::2].sum()])
        ill = np.bincount(self.cell[self.sick] % 2, minlength=2)
        share = ill / ill.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            in_class = n_mix / n_class[np.arange(size) % 2]
            each = share[np.arange(size) % 2] * in_class / n_own
        each = np.where((n_own > 0) & (n_mix > 0), each, 0.0)
        return self.own * each[self.cell], (n_own, n_class, ill, share, in_class)

    def carry(self, moves, weight, counted):
        """(n,) influences: of the films' own values, of the mix and of the share of the ill.

        moves : (n,) influence of films under the weights, 0 outside the group
        """
        n_own, n_class, ill, share, in_class = counted
        size = len(self.shared)
        mean = np.bincount(self.cell, moves * self.own, size) / np.maximum(n_own, 1)
        of_class = np.array([np.nansum((in_class * mean)[k::2]) for k in (0, 1)])
        y = self.cell % 2
        out = weight * (moves - mean[self.cell])
        given = self.mix & self.shared[self.cell]
        out[given] += ((share / n_class)[y] * (mean[self.cell] - of_class[y]))[given]
        out[self.sick] += of_class[y][self.sick] / ill.sum()
        return out


# --- splitting --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """The gap between two groups under every set of switches.

    Attributes
    ----------
    about : dict
        Cohort, model, attribute and group, as in the results table.
    metrics, switches : tuples of str
    cannot : dict of a cause that no switch can take away -> why
    gaps : dict (label, metric) -> dict of set of switches -> Estimate
        The label "mean" is the mean over labels that are defined under every set.
    counts : dict of label -> dict of counts of the results table
    notes : dict of label -> why it is undefined, or what to keep in mind
    patient : (n,) codes
    """

    about: dict[str, str]
    metrics: tuple[str, ...]
    switches: tuple[str, ...]
    cannot: dict[str, str]
    gaps: dict[tuple[str, str], dict[frozenset[str], Estimate]]
    counts: dict[str, dict[str, int]]
    notes: dict[str, str]
    patient: np.ndarray

    def game(self, label: str, metric: str) -> dict[frozenset[str], Estimate]:
        """The gap under every set of switches.

        Raises
        ------
        Lacks
            It is undefined: too few cases.
        """
        if (label, metric) not in self.gaps:
            first, why = next((x, why) for x, why in self.notes.items() if why)
            who = f"{self.about['attribute']}, {self.about['group']}"
            raise Lacks(f"{who}: the gap in {metric} cannot be split; {first}: {why}")
        return self.gaps[label, metric]


def with_severity(predictions: pd.DataFrame, films: pd.DataFrame) -> pd.DataFrame:
    """Predictions with a column ``severity``, where the films have ``severity_<label>``.

    films : DataFrame with image_id, such as the table of a phantom cohort
    """
    columns = {f"severity_{label}": label for label in predictions["label"].unique()}
    there = [c for c in columns if c in films]
    if not there:
        return predictions
    long = films.melt("image_id", there, "label", SEVERITY)
    long["label"] = long["label"].map(columns)
    return predictions.merge(long, "left", ["image_id", "label"])


def split(
    predictions: pd.DataFrame,
    attribute: str,
    pair: tuple[str, str],
    *,
    mix: Mapping[str, str] = MIX,
    twins: Mapping[str, Sequence[str]] | None = None,
    complete: str = "",
    prevalence: bool = True,
    metrics: Sequence[str] = ("sensitivity", "auc", "average_precision"),
    specificity: float = 0.8,
    thresholds: Mapping[str, float] | None = None,
    protocol: str | Protocol = "corrected",
) -> Split:
    """Compute a gap under every set of switches that these data allow.

    Parameters
    ----------
    predictions : DataFrame
        The long table of `cxrlib.schema.predictions` of one cohort, with the columns that are
        named below. Its first model is that of the films as they are; further ones are twins, as
        `cxrlib.predict.zeroshot.beside_twins` gives them.
    attribute, pair : column, and two of its groups (A, B)
        The gap is A - B. Weights give A the mix of B.
    mix : dict of switch -> column
        Numbers of more than `N_BINS` values are cut into as many classes of equal size. The
        column ``severity`` is looked at among the ill alone, and cut by theirs.
    twins : dict of name in the column ``model`` -> switches that are thrown in these films
        Every set of the switches that are named needs a twin. None: there are none.
    complete : str
        Column of the labels from which nothing was left out; "": there are none.
    prevalence : whether the share of the ill is a switch
    metrics : names out of sensitivity, ppv (at a threshold), auc, average_precision
    specificity : float in (0, 1)
        Sets the threshold of each label, over all films as they are.
    thresholds : dict of label -> threshold, instead
    protocol : its switch min_cases

    Raises
    ------
    ValueError
        A missing column, a group without films, a set of switches without a twin.

    Source: Kitagawa 1955 for two parts; DiNardo, Fortin and Lemieux 1996 for weights.
    """
    estimates.check_known(metrics, METRICS, "metrics")
    twins = dict(twins or {})
    table = schema.predictions(predictions, attribute)
    if complete and complete not in table:
        raise ValueError(f"predictions: no column {complete!r} with the complete labels")
    if table["cohort"].nunique() > 1:
        raise ValueError("predictions: several cohorts; split the gap of one at a time")
    models = list(dict.fromkeys(table["model"]))
    drawn = table[table["model"] == models[0]]
    thrown = {frozenset(): models[0]} | {frozenset(s): name for name, s in twins.items()}
    on_films = [s for s in dict.fromkeys(chain.from_iterable(twins.values()))]
    estimates.check_known(twins, models, "twins")
    if absent := [s for s in coalitions(on_films) if s not in thrown]:
        raise ValueError(f"twins: no films with {' and '.join(sorted(absent[0]))} thrown together")
    images = drawn.drop_duplicates("image_id").set_index("image_id")
    group = images[attribute].astype(object)
    a, b = ((group == levels.text(g)).to_numpy() for g in pair)
    for one, of in zip(pair, (a, b), strict=True):
        if not of.any():
            there = ", ".join(sorted(map(str, group.dropna().unique()))) or "none"
            raise ValueError(
                f"attribute {attribute!r}: no film of group {one!r}; there are: {there}. A gap "
                "needs two groups."
            )
    patient = pd.factorize(images["patient_id"])[0]
    found = table.set_index("image_id").groupby(["model", "label"], observed=True)["score"]
    by_model = dict(iter(found))
    fewest = max(protocol_of(protocol).min_cases, schema.smallest_cell())

    cannot = _cannot(drawn, images, a, b, mix, on_films, complete)
    mixes = [name for name in mix if name not in cannot]
    switches = [PREVALENCE] * prevalence + mixes + on_films + [ANNOTATION] * bool(complete)
    gaps, counts, notes = {}, {}, {}
    for label, rows in drawn.groupby("label", sort=False, observed=True):
        at = images.index.get_indexer(rows["image_id"])
        mine, own_a, own_b = rows.reset_index(drop=True), a[at], b[at]
        y = mine["y_true"].to_numpy(bool)
        both = own_a | own_b
        counts[label] = estimates.counts(y[both], patient[at][both])
        why = [estimates.not_given(y[g], patient[at][g], fewest) for g in (own_a, own_b)]
        if any(why):
            notes[label] = estimates.joined(*dict.fromkeys(why))
            continue
        limit = (thresholds or {}).get(label)
        if limit is None:
            limit = threshold(mine, specificity)
        truths = {False: y}
        if complete:
            truths[True] = mine[complete].astype(float).to_numpy() > 0
        scores = {s: _scores(by_model, name, label, mine["image_id"]) for s, name in thrown.items()}
        shown = {s: (np.unique(x, return_inverse=True)[1], x > limit) for s, x in scores.items()}
        codes = {name: _codes(mine[mix[name]], mix[name], y) for name in mixes}
        games, lost = _evaluate(
            truths, shown, codes, (own_a, own_b), switches, on_films, metrics, at, len(images)
        )
        notes[label] = f"{lost} images without counterpart in a stratum" if lost else ""
        if any(not np.isfinite(e.value) for game in games.values() for e in game.values()):
            notes[label] = "undefined: no film of a class has a counterpart in the other group"
            continue
        gaps |= {(label, metric): game for metric, game in games.items()}
    _add_mean(gaps, counts, notes, metrics)
    about = {"cohort": drawn["cohort"].iloc[0], "model": models[0], "attribute": attribute}
    about |= {"group": " - ".join(map(levels.text, pair))}
    return Split(about, tuple(metrics), tuple(switches), cannot, gaps, counts, notes, patient)


def _evaluate(truths, shown, codes, groups, switches, on_films, metrics, at, n):
    """metric -> set of switches -> Estimate, for one label; and images without counterpart."""
    own_a, own_b = groups
    found = {metric: {} for metric in metrics}
    lost, cells = 0, {}
    for thrown in coalitions(switches):
        y = truths[ANNOTATION in thrown]
        mixes = tuple(name for name in codes if name in thrown)
        if (key := (ANNOTATION in thrown, mixes)) not in cells:
            cells[key] = _cells(y, [codes[name] for name in mixes], mixes)
        cell = cells[key]
        size = 2 * (cell.max() // 2 + 1)
        shared = np.ones(size, bool)
        if mixes:
            n_a, n_b = (np.bincount(cell[g], minlength=size) for g in groups)
            shared = (n_a > 0) & (n_b > 0)
            lost = max(lost, int((n_a * ~shared).sum() + (n_b * ~shared).sum()))
        rank, yes = shown[thrown & frozenset(on_films)]
        sick, mix = (own_b if on else own_a for on in (PREVALENCE in thrown, bool(mixes)))
        sides = _Mixed(own_a, sick, mix, cell, shared), _Mixed(own_b, own_b, own_b, cell, shared)
        weighted = [(side, *side.weights()) for side in sides]
        for metric in metrics:
            ends = []
            for side, weight, counted in weighted:
                of = side.own
                value, move = np.nan, np.zeros(of.sum())
                if np.isclose(weight.sum(), 1):
                    value, move = METRICS[metric](y[of], rank[of], yes[of], weight[of])
                moves = np.zeros(len(y))
                moves[of] = move
                influences = np.zeros(n)
                influences[at] = side.carry(moves, weight, counted)
                ends.append(Estimate(float(value), influences))
            found[metric][thrown] = ends[0] - ends[1]
    return found, lost


def _cells(y, codes, mixes):
    """(k,) 2 * stratum + y; the severity of films that are not ill does not count."""
    stratum = np.zeros(len(y), int)
    for name, code in zip(mixes, codes, strict=True):
        own = np.where(y, code, 0) if name == SEVERITY else code
        stratum = stratum * (code.max() + 1) + own
    return 2 * np.unique(stratum, return_inverse=True)[1] + y


def _codes(column, name, y):
    """(k,) class of each film in a column: numbers of many values are cut, missing ones apart."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.nunique() > N_BINS and numbers.notna().sum() == column.notna().sum():
        among = numbers[y] if name == SEVERITY else numbers
        edges = np.quantile(among.dropna(), np.arange(1, N_BINS) / N_BINS)
        found = np.searchsorted(edges, numbers.to_numpy(float), side="right")
        return np.where(numbers.isna(), N_BINS, found)
    return pd.factorize(column.astype(object))[0] + 1


def _cannot(drawn, images, a, b, mix, on_films, complete):
    """cause -> why no switch takes it away in these data."""
    why = {}
    for name, column in mix.items():
        if column not in drawn or drawn[column].isna().all():
            why[name] = f"no column {column!r}"
            continue
        if name == SEVERITY:
            continue
        code = _codes(images[column], column, np.ones(len(images), bool))
        n_a, n_b = (np.bincount(code[g], minlength=code.max() + 1) for g in (a, b))
        if ((n_a + n_b) > 0).sum() == 1:
            why[name] = "all films are alike in it"
        elif min(n[(n_a > 0) & (n_b > 0)].sum() / n.sum() for n in (n_a, n_b)) < 0.5:
            why[name] = "most films have no counterpart in the other group"
    for name in FILMS:
        if name not in on_films:
            why[name] = "no twins of these films"
    if not complete:
        why[ANNOTATION] = "no labels to compare the labels with"
    return why


def threshold(rows: pd.DataFrame, specificity: float) -> float:
    """That of some predictions, with the precision of their scores."""
    decided = metrics.threshold_at_specificity(rows["y_true"], rows["score"], specificity)
    return float(checks.precision(rows["score"].to_numpy())(decided))


def _scores(by_model, model, label, image_id):
    """(k,) scores of these films by a model, or of these twins."""
    score = by_model.get((model, label), pd.Series(dtype=float)).reindex(image_id).to_numpy(float)
    if np.isnan(score).any():
        raise ValueError(
            f"predictions: {np.isnan(score).sum()} films have no score by {model!r} for {label}; "
            "twins are the same films, drawn with a difference"
        )
    return score


def _add_mean(gaps, counts, notes, metrics):
    """The mean over the labels that are defined under every set of switches, in place."""
    kept = list(dict.fromkeys(label for label, _ in gaps))
    left_out = [f"{x} ({notes[x]})" for x in counts if x not in kept]
    notes["mean"] = f"mean over {len(kept)} of {len(counts)} labels"
    if left_out:
        notes["mean"] += f"; left out: {', '.join(left_out)}"
    fewest = {"n": max, "n_positive": min, "n_patients": max}
    of = [counts[label] for label in kept or counts]
    counts["mean"] = {key: least(c[key] for c in of) for key, least in fewest.items()}
    for metric in metrics if kept else ():
        games = [gaps[label, metric] for label in kept]
        gaps["mean", metric] = {s: influence.average([g[s] for g in games]) for s in games[0]}


def parts(gaps: Mapping[frozenset[str], Value], switches: Sequence[str]) -> dict[str, Value]:
    """The gap, its part for each switch, and what stays unexplained.

    gaps : dict of each set of switches -> the gap with these thrown
    """
    values = shapley(switches, gaps)
    own = {name: value * -1 for name, value in values.items()}
    return {GAP: gaps[frozenset()], **own, UNEXPLAINED: gaps[frozenset(switches)]}


def table(of: Split) -> pd.DataFrame:
    """The parts of a gap as a results table.

    Returns
    -------
    Results table with the parts in the column ``method``: "gap", one row per switch, "unexplained",
    and an undefined row with its reason for each cause that could not be split. For each label and
    their mean, "gap" is the sum of the rest to rounding.
    """
    rows = []
    for label, metric in ((x, m) for x in of.counts for m in of.metrics):
        about = of.about | {"label": label, "metric": metric, **of.counts[label]}
        about |= {"unit": "patient", "note": of.notes[label]}
        game = of.gaps.get((label, metric))
        if game is None:
            rows.append(about | {"method": GAP})
            continue
        for name, estimate in parts(game, of.switches).items():
            ends = estimate.value, *influence.interval(estimate, of.patient)
            # nothing but rounding is 0: sharing out the ill anew moves no AUC
            ends = (x if abs(x) > ROUNDING else 0.0 for x in ends)
            number = dict(zip(("value", "ci_low", "ci_high"), ends, strict=True))
            rows.append(about | {"method": name} | number)
        for name, why in of.cannot.items():
            rows.append(about | {"method": name, "note": f"{CANNOT}: {why}"})
    return schema.results(rows)


def recorded(path: Path = RECORDED) -> pd.DataFrame:
    """How often intervals of parts held the truth: ``benchmarks/gap_parts.py``.

    Returns
    -------
    DataFrame, one row per design, metric and part: truth, whether it was planted, n_studies,
    n_undefined, n_hold, n_below and n_above of the intervals, mean and width; and coverage with
    its interval, see `cxrlib.stats.simulate.shares`.
    """
    return simulate.shares(pd.read_csv(path))

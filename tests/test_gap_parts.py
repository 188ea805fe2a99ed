"""The parts of a gap, beside hand-made games, closed forms, other libraries and a bootstrap."""

import importlib.util
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from cxrlib import cohorts
from cxrlib.core.errors import Lacks
from cxrlib.show.words import estimate
from cxrlib.stats import fairness, gap_parts, influence

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("recorder", ROOT / "benchmarks" / "gap_parts.py")
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
OF, LIMIT = ("group", ("A", "B")), {"ill": world.THRESHOLD}


@pytest.fixture(scope="module")
def everything():
    """A study in which all is planted, and its parts."""
    table = world.sample("everything", 0, 5000)
    return table, world.split(table, of=OF, thresholds=LIMIT)


def of_label(table, metric):
    rows = table[(table["label"] == "ill") & (table["metric"] == metric)]
    return rows.set_index("method")


# --- the game ---------------------------------------------------------------------------------


def test_shapley_of_games_known_by_hand():
    """One left glove, two right ones, a pair is worth 1; and a runway shared by three planes."""
    gloves = {
        s: float("left" in s and bool(s & {"one", "two"}))
        for s in gap_parts.coalitions(["left", "one", "two"])
    }
    found = gap_parts.shapley(["left", "one", "two"], gloves)
    assert found == pytest.approx({"left": 2 / 3, "one": 1 / 6, "two": 1 / 6})  # symmetry
    needs = {"small": 3.0, "middle": 8.0, "large": 10.0, "none": 0.0}
    runway = {s: max((needs[p] for p in s), default=0.0) for s in gap_parts.coalitions(list(needs))}
    found = gap_parts.shapley(list(needs), runway)
    assert found == pytest.approx({"small": 1, "middle": 3.5, "large": 5.5, "none": 0})  # a dummy
    assert sum(found.values()) == pytest.approx(10)  # efficiency


def test_shapley_is_the_mean_over_all_orders():
    rng, names = np.random.default_rng(0), ["a", "b", "c", "d"]
    worth = {s: rng.normal() for s in gap_parts.coalitions(names)}
    means = {}
    for name in names:
        before = [frozenset(order[: order.index(name)]) for order in permutations(names)]
        means[name] = np.mean([worth[s | {name}] - worth[s] for s in before])
    assert gap_parts.shapley(names, worth) == pytest.approx(means)


# --- metrics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", gap_parts.METRICS)
def test_metrics_under_weights_and_their_influence(metric):
    """As in scikit-learn; the influence is the derivative, by a small step."""
    rng = np.random.default_rng(3)
    n = 60
    y = rng.random(n) < 0.4
    score = (rng.normal(size=n) + y).round(1)  # with ties
    weight = rng.random(n) * (rng.random(n) < 0.9)
    yes, rank = score > 0.5, np.unique(score, return_inverse=True)[1]
    other = {
        "sensitivity": lambda w: recall_score(y, yes, sample_weight=w),
        "ppv": lambda w: precision_score(y, yes, sample_weight=w),
        "auc": lambda w: roc_auc_score(y, score, sample_weight=w),
        "average_precision": lambda w: average_precision_score(y, score, sample_weight=w),
    }[metric]
    w = weight / weight.sum()
    value, moves = gap_parts.METRICS[metric](y, rank, yes, w)
    assert value == pytest.approx(other(weight))
    assert (w * moves).sum() == pytest.approx(0, abs=1e-12)
    step = 1e-6
    slopes = [(other((1 - step) * w + step * np.eye(n)[i]) - value) / step for i in range(n)]
    assert moves == pytest.approx(np.array(slopes), abs=1e-3)


# --- against what is known otherwise ------------------------------------------------------------


def test_parts_sum_to_the_gap(everything):
    _, table = everything
    for metric in world.METRICS:
        value = of_label(table, metric)["value"].dropna()
        assert value.drop("gap").sum() == pytest.approx(value["gap"], abs=1e-9)
        assert len(value) == len(world.SWITCHES) + 2


def test_planted_parts_are_recovered(everything):
    """The truth is a closed form that shares no code with the weights."""
    _, table = everything
    truth = world.truth("everything")
    for metric in world.METRICS:
        rows = of_label(table, metric)
        for part, value in truth[metric].items():
            error = (rows.loc[part, "ci_high"] - rows.loc[part, "ci_low"]) / 3.92
            assert abs(rows.loc[part, "value"] - value) <= 4 * error + 1e-9, (metric, part)
    sensitivity = of_label(table, "sensitivity")
    assert sensitivity.loc["appearance", "ci_high"] < 0 < sensitivity.loc["severity", "ci_low"]


def test_one_switch_is_the_step_of_the_chapter_on_causes(everything):
    table, _ = everything
    step = table[table["model"].isin(["as drawn", "plain"])]
    yes = fairness.decide(step, threshold=world.THRESHOLD)
    found = world.split(
        step, of=OF, mix={}, twins={"plain": ["appearance"]}, complete="", prevalence=False,
        thresholds=LIMIT,
    )  # fmt: skip
    for metric, of in (("auc", step), ("average_precision", step), ("sensitivity", yes)):
        gaps = fairness.gap_table(of, *(OF[0], [OF[1]]), metrics=metric, n_resamples=2)
        before, after = (estimate(gaps, model=m).value for m in ("as drawn", "plain"))
        rows = of_label(found, metric)["value"]
        assert rows["gap"] == pytest.approx(before, abs=1e-12)
        assert rows["appearance"] == pytest.approx(before - after, abs=1e-12)
        assert rows["unexplained"] == pytest.approx(after, abs=1e-12)


def test_two_parts_of_a_mean_are_those_of_kitagawa(everything):
    """Composition, at the rates of A, and rates, at the composition of B."""
    table, _ = everything
    ill = table[(table["model"] == "as drawn") & (table["y_true"] == 1)]
    ill = ill.assign(found=ill["score"] > world.THRESHOLD)
    share = ill.groupby("group")["severity"].value_counts(normalize=True).unstack("group")
    rate = ill.pivot_table(index="severity", columns="group", values="found", aggfunc="mean")
    found = world.split(
        table, of=OF, mix={"severity": "severity"}, twins={}, complete="", prevalence=False,
        thresholds=LIMIT,
    )  # fmt: skip
    rows = of_label(found, "sensitivity")["value"]
    composition = ((share["A"] - share["B"]) * rate["A"]).sum()
    assert rows["severity"] == pytest.approx(composition, abs=1e-12)
    rates = (share["B"] * (rate["A"] - rate["B"])).sum()
    assert rows["unexplained"] == pytest.approx(rates, abs=1e-12)


def test_prevalence_moves_what_depends_on_it_alone(everything):
    """PPV at the other group's share of the ill, by Bayes' rule."""
    table, split = everything
    for metric in ("auc", "sensitivity"):
        row = of_label(split, metric).loc["prevalence"]
        assert (row[["value", "ci_low", "ci_high"]] == 0).all()
    drawn = table[table["model"] == "as drawn"]
    yes = fairness.decide(drawn, threshold=world.THRESHOLD).groupby(["group", "y_true"])
    tpr, fpr = (yes["score"].mean()["A", y] for y in (1, 0))
    p, q = (drawn.groupby("group")["y_true"].mean()[g] for g in "AB")
    ppv = [x * tpr / (x * tpr + (1 - x) * fpr) for x in (p, q)]
    found = world.split(table, of=OF, mix={}, twins={}, complete="", thresholds=LIMIT)
    assert of_label(found, "ppv").loc["prevalence", "value"] == pytest.approx(ppv[0] - ppv[1])


def test_intervals_beside_a_bootstrap_that_estimates_everything_anew():
    """Of the weights too; patients, with their films and twins, are drawn with replacement."""
    table = world.sample("everything", 5, 600)
    table = table[table["model"].isin(["as drawn", "plain"])]
    how = {"thresholds": LIMIT, "metrics": ("sensitivity", "average_precision")}
    how |= {"mix": {"severity": "severity"}, "twins": {"plain": ["appearance"]}}

    def values(films):
        split = gap_parts.split(films, *OF, complete="complete", **how)
        of = {
            metric: gap_parts.parts(split.gaps["ill", metric], split.switches)
            for metric in how["metrics"]
        }
        return split.patient, {(m, part): e for m in of for part, e in of[m].items()}

    patient, found = values(table)
    people = table["patient_id"].nunique()
    anew = [values(world.drawn(table, seed, people))[1] for seed in range(100)]
    for key, estimate_ in found.items():
        spread = np.std([again[key].value for again in anew], ddof=1)
        error = influence.standard_error(estimate_, patient)
        assert error == pytest.approx(spread, rel=0.3, abs=1e-9), key


def test_the_record_holds_the_truth_and_is_that_of_the_closed_form():
    recorded = gap_parts.recorded()
    assert {"everything", "nothing"} <= set(recorded["design"]) <= {*world.DESIGNS, world.PHANTOM}
    assert (recorded["n_studies"] >= 100).all() and (recorded["n_undefined"] == 0).all()
    owns = recorded["truth"].abs() > gap_parts.ROUNDING
    held = recorded.groupby(owns)[["n_hold", "n_studies"]].sum()
    assert (held["n_hold"] / held["n_studies"] >= 0.93).all()
    rows = recorded[recorded["design"] == "everything"].set_index(["metric", "part"])
    for metric, parts in world.truth("everything").items():
        told = rows.loc[metric, "truth"]
        assert told.to_dict() == pytest.approx(parts, abs=1e-4)


# --- what cannot be split, and what is refused ----------------------------------------------------


def test_what_cannot_be_split_is_said_and_stays_unexplained(everything):
    """As real films are: no twins, no severity, one view, and groups made by age."""
    table, _ = everything
    rng = np.random.default_rng(0)
    films = table[table["model"] == "as drawn"].drop(columns=["severity"])
    films = films.assign(
        view="AP", age_group=np.where(films["group"] == "A", "80+", "25-50"),
        ward=rng.choice(["x", "y"], len(films)), dose=rng.normal(size=len(films)),
    )  # fmt: skip
    mix = gap_parts.MIX | {"ward": "ward", "dose": "dose"}
    found = gap_parts.table(gap_parts.split(films, *OF, mix=mix))
    why = of_label(found, "auc").query("value.isna()")["note"].to_dict()
    assert why == {
        "severity": "cannot be split: no column 'severity'",
        "view": "cannot be split: all films are alike in it",
        "age": "cannot be split: most films have no counterpart in the other group",
        "appearance": "cannot be split: no twins of these films",
        "site": "cannot be split: no twins of these films",
        "annotation": "cannot be split: no labels to compare the labels with",
    }
    value = of_label(found, "average_precision")["value"].dropna()
    assert set(value.index) == {"gap", "prevalence", "ward", "dose", "unexplained"}
    assert value.drop("gap").sum() == pytest.approx(value["gap"], abs=1e-9)


def test_films_without_counterpart_get_no_weight_and_are_counted(everything):
    table, _ = everything
    films = table[table["model"] == "as drawn"].copy()
    films["ward"] = np.where(films["group"] == "A", "x", "y")
    films.loc[films["severity"] < 2, "ward"] = "z"  # most films
    found = gap_parts.table(gap_parts.split(films, *OF, mix={"ward": "ward"}))
    alone = films["ward"].ne("z").sum()
    note = of_label(found, "auc").loc["ward", "note"]
    assert note == f"{alone} images without counterpart in a stratum"


def test_labels_with_few_cases_are_left_out_of_the_mean(everything):
    table, _ = everything
    films = table[table["model"] == "as drawn"]
    rare = films.assign(label="rare", y_true=films["y_true"] * (films["group"] == "A"))
    found = gap_parts.table(gap_parts.split(pd.concat([films, rare]), *OF, mix={}))
    note = found.query("label == 'rare'")["note"].iloc[0]
    assert note == "not given: 0 positive images, fewer than 10"
    mean = found.query("label == 'mean' and metric == 'auc' and method == 'gap'").iloc[0]
    assert mean["note"].startswith("mean over 1 of 2 labels; left out: rare")
    assert mean["value"] == of_label(found, "auc").loc["gap", "value"]


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        ({"group": "A"}, {}, "no film of group 'B'; there are: A. A gap needs two groups"),
        ({}, {"complete": "read"}, "no column 'read' with the complete labels"),
        ({}, {"twins": {"both": ["appearance", "site"]}}, "no films with appearance thrown"),
        ({}, {"twins": {"drawn otherwise": ["site"]}}, "twins: unknown 'drawn otherwise'"),
        ({}, {"metrics": ("accuracy",)}, "unknown 'accuracy'; expected one of sensitivity"),
    ],
)
def test_what_is_refused(everything, change, how, message):
    table = everything[0].iloc[:].assign(**change)
    with pytest.raises(ValueError, match=message):
        gap_parts.split(table, *OF, **({"mix": {}} | how))
    with pytest.raises(ValueError, match="attribute column 'race' is missing"):
        gap_parts.split(table, "race", ("A", "B"))


def test_too_few_cases_of_everything_are_one_line():
    few = gap_parts.split(world.sample("nothing", 2, 30), *OF, mix={}, metrics=("auc",))
    table = gap_parts.table(few)
    assert table["value"].isna().all() and table["note"].ne("").all()
    why = "group, A - B: the gap in auc cannot be split; ill: not given: . positive images"
    with pytest.raises(Lacks, match=why):
        few.game("mean", "auc")


def test_twins_of_other_films_are_refused(everything):
    table, _ = everything
    films = table[~((table["model"] == "plain") & (table["image_id"] == "A0"))]
    with pytest.raises(ValueError, match="1 films have no score by 'plain' for ill"):
        gap_parts.split(films, *OF, mix={}, twins={"plain": ["appearance"]})


def test_severity_is_joined_label_by_label():
    cohort = cohorts.load("phantom", n_images=60)
    films = cohort.table[["image_id", "patient_id", "Edema", "Pneumonia"]]
    long = films.melt(["image_id", "patient_id"], var_name="label", value_name="y_true")
    found = gap_parts.with_severity(long, cohort.table)
    assert ((found["severity"] > 0) == (found["y_true"] == 1)).all()
    assert "severity" not in gap_parts.with_severity(long, films)


def test_several_findings_are_averaged_with_what_they_share():
    """The interval of a mean over two findings of the same films knows that they are the same."""
    table = world.sample("nothing", 1, 1500)
    films = table[table["model"] == "as drawn"]
    two = pd.concat([films, films.assign(label="again")])
    split = gap_parts.split(two, *OF, mix={}, metrics=("auc",))
    one, mean = (split.gaps[x, "auc"][frozenset()] for x in ("ill", "mean"))
    errors = [influence.standard_error(e, split.patient) for e in (one, mean)]
    assert errors[0] == pytest.approx(errors[1])

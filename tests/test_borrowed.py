"""Borrowed strength beside statsmodels, a brute-force integral, and what was planted."""

import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from cxrlib.stats import borrowed, fairness, influence

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("lender", ROOT / "benchmarks" / "borrowed.py")
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
PAIR = ["sex", "age_group"]


def cells(right, trials, of=("FM", ("young", "middle", "old"))):
    """Cells of independent shares."""
    groups = pd.DataFrame(list(product(*of)), columns=PAIR)
    trials = np.broadcast_to(np.asarray(trials, float), len(groups))
    return borrowed.Cells(groups, np.asarray(right) / trials, trials, np.eye(len(groups)), [])


def films(n_patients=400, seed=0, per_patient=2):
    """A predictions table of patients with sex and age, and a score that is better in men."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), per_patient)
    table = pd.DataFrame({"image_id": np.arange(len(patient)), "patient_id": patient})
    table["sex"] = np.array(["F", "M"])[rng.integers(2, size=n_patients)][patient]
    ages = np.array(["25-50", "50-65", "65-80"])
    table["age_group"] = ages[rng.integers(3, size=n_patients)][patient]
    table["y_true"] = (rng.random(len(patient)) < 0.25).astype(int)
    better = 1 + (table["sex"] == "M")
    table["score"] = better * table["y_true"] + rng.normal(size=len(patient))
    return table.assign(cohort="c", model="m", method="zero-shot", label="Edema")


# --- what the films say -----------------------------------------------------------------------


def test_observed_values_are_those_of_scikit_learn_and_their_variance_that_of_influences():
    table = films(6000, per_patient=1)
    args = (table["y_true"], table["score"], table["patient_id"], table[PAIR])
    found = borrowed.observed(*args, "auc")
    for at, group in found.groups.iterrows():
        own = (table[PAIR] == group).all(axis=1)
        y, score = table.loc[own, "y_true"], table.loc[own, "score"]
        assert found.value[at] == pytest.approx(roc_auc_score(y, score))
        exact = influence.standard_error(influence.auc(y, score), table.loc[own, "patient_id"])
        pooled = np.sqrt(found.value[at] * (1 - found.value[at]) / found.trials[at])
        assert pooled == pytest.approx(exact, rel=0.15)
    assert found.correlation == pytest.approx(np.eye(6))


def test_films_that_repeat_each_other_are_fewer_trials():
    """Each film twice: half as many trials. Patients with films in two cells: cells correlate."""
    once = films(2000, per_patient=1)
    twice = pd.concat([once, once])
    yes = [(t["score"] > 1) * 1.0 for t in (once, twice)]
    alone, double = (
        borrowed.observed(t["y_true"], s, t["patient_id"], t[PAIR], "sensitivity")
        for t, s in zip((once, twice), yes, strict=True)
    )
    assert alone.trials.sum() == once["y_true"].sum()
    assert double.trials == pytest.approx(alone.trials)
    twice["sex"] = ["F"] * len(once) + ["M"] * len(once)
    moved = borrowed.observed(twice["y_true"], yes[1], twice["patient_id"], twice[PAIR], "auc")
    of_women, of_men = (moved.groups.index[moved.groups["sex"] == s] for s in "FM")
    assert (moved.correlation[of_women][:, of_men].max(1) > 0.95).all()


# --- the model --------------------------------------------------------------------------------


def test_raw_limits_are_wilsons():
    found = borrowed.fit(cells([5, 0, 3, 30, 2, 9], [5, 6, 7, 40, 4, 9]), "raw")
    low, high = proportion_confint([5, 0, 3, 30, 2, 9], [5, 6, 7, 40, 4, 9], method="wilson")
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)


def test_additive_is_the_logistic_regression_of_statsmodels(monkeypatch):
    monkeypatch.setattr(borrowed, "WIDE", 300.0)
    right, trials = np.array([20, 25, 11, 30, 17, 4]), np.array([30, 30, 25, 32, 20, 9])
    of = cells(right, trials)
    x = sm.add_constant(pd.get_dummies(of.groups, drop_first=True).astype(float))
    fitted = sm.GLM(np.c_[right, trials - right], x, family=sm.families.Binomial()).fit()
    theirs = fitted.get_prediction(x).summary_frame()
    ours = borrowed.fit(of, "additive")
    assert ours.value == pytest.approx(theirs["mean"].to_numpy(), abs=1e-4)
    assert ours.low == pytest.approx(theirs["mean_ci_lower"].to_numpy(), abs=1e-4)
    assert ours.high == pytest.approx(theirs["mean_ci_upper"].to_numpy(), abs=1e-4)


def test_empirical_bayes_is_the_integral_over_mean_rest_and_spread():
    right, trials = np.array([12, 19, 17, 6, 22, 15]), np.array([20, 20, 30, 18, 25, 16])
    mean = np.linspace(-4, 4, 321)[:, None, None]
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    z = mean + borrowed.SPREADS[:, None] * node  # (mean, spread, rest)
    each = [expit(z) ** r * expit(-z) ** (n - r) for r, n in zip(right, trials, strict=True)]
    single = np.array([e @ weight for e in each]) / weight.sum()  # (cell, mean, spread)
    joint = single.prod(0) * np.exp(-((mean[..., 0] / borrowed.WIDE) ** 2) / 2)
    joint /= joint.sum()
    ours = borrowed.fit(cells(right, trials), "empirical Bayes")
    p = expit(z)
    for k, given in enumerate(each):

        def expected(of, k=k, given=given):
            return (joint * ((given * of) @ weight) / weight.sum() / single[k]).sum()

        assert ours.value[k] == pytest.approx(expected(p), abs=0.015)
        assert expected((ours.low[k] < p) & (p < ours.high[k])) == pytest.approx(0.95, abs=0.02)


def test_structured_lies_between_additive_and_raw_and_large_cells_are_their_own():
    of = cells([300, 240, 200, 280, 250, 0], [400, 400, 400, 400, 400, 5])
    raw, additive, both = (borrowed.fit(of, m) for m in ("raw", "additive", "structured"))
    ends = np.sort([raw.value, additive.value], axis=0)
    assert (ends[0] - 1e-3 <= both.value).all() and (both.value <= ends[1] + 1e-3).all()
    assert both.own[:5].min() > 0.8 > 0.6 > both.own[5]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_groups_in_which_all_is_right_or_wrong_have_limits(share):
    everyone = cells(np.full(6, 5 * share), 5)
    one_group = cells([4, 3, 5 * share, 4, 4, 5 * share], 5)
    for of, method in product((everyone, one_group), borrowed.METHODS):
        found = borrowed.fit(of, method)
        assert np.isfinite([found.value, found.low, found.high]).all()
        assert (found.low <= found.value).all() and (found.value <= found.high).all()
        assert (found.high - found.low)[[2, 5]].min() > 0.1


# --- what was planted -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studies():
    """What methods say in a few studies of two designs."""
    return {
        design: pd.concat(world.study(seed, design, "sensitivity") for seed in range(10))
        for design in ("sums and some rest", "sums and old women")
    }


def test_small_groups_gain_where_the_model_holds(studies):
    found = studies["sums and some rest"]
    found = found[found["n_ill"] < 30]
    error = ((found["value"] - found["truth"]) ** 2).groupby(found["method"]).mean() ** 0.5
    assert error["structured"] < 0.7 * error["raw"]
    held = (found["low"] <= found["truth"]) & (found["truth"] <= found["high"])
    held = held.groupby(found["method"]).mean()
    assert 0.91 < held["structured"] < 0.99
    assert held["additive"] < 0.9


def test_a_group_that_is_no_sum_is_missed_by_the_additive_model(studies):
    found = studies["sums and old women"]
    theirs = found[found["special"]]
    error = (theirs["value"] - theirs["truth"]).groupby(theirs["method"]).mean()
    assert error["additive"] > 0.05 > abs(error["raw"])
    assert error["raw"] < error["structured"] < error["additive"]


def test_the_record_is_of_all_designs_and_small_groups_gain_by_a_third():
    record = borrowed.recorded()
    assert set(record["design"]) == {*world.DESIGNS, *world.PHANTOMS}
    rmse = borrowed.errors(record)
    usual = rmse.drop(["sums and much rest", *world.PHANTOMS], level="design")
    assert (usual["structured"] < 0.7 * usual["raw"]).all()
    held = borrowed.coverage(record).set_index(["group", "method"])["value"]
    for design in ("sums and some rest", "sums and much rest"):
        assert 93 < held[design, "structured"] < 97
    assert held["sums and old women: they", "additive"] < 30


# --- tables -----------------------------------------------------------------------------------


def test_a_table_has_every_group_by_every_method_and_says_what_is_borrowed():
    table = films(150)
    ill = table["y_true"].eq(1) & table["sex"].eq("F") & table["age_group"].eq("65-80")
    table = table.drop(table.index[ill][4:])  # four positives are left
    found = borrowed.table(table, PAIR)
    assert len(found) == 6 * len(borrowed.METHODS)
    few = found[found["group"] == "F x 65-80"]
    assert few["value"].isna().all()
    assert few["note"].str.contains("4 positive images, fewer than 5").all()
    given = found[found["value"].notna()]
    lent = given["note"].str.startswith(borrowed.BORROWED)
    assert (lent == ~given["method"].str.endswith(", raw")).all()
    share = borrowed.own_share(given)
    assert share[lent].between(0.01, 0.99).all() and share[~lent].isna().all()
    own = fairness.performance_table(table, "auc", [tuple(PAIR)], n_resamples=2)
    own = own[own["attribute"] == "sex x age_group"].set_index("group")["value"].dropna()
    raw = given[given["method"].str.endswith(", raw")].set_index("group")["value"]
    assert raw[own.index].to_dict() == pytest.approx(own.to_dict())


def test_borrowed_numbers_take_the_place_of_undefined_ones_alone():
    table = films(90)
    own = fairness.performance_table(table, "auc", [tuple(PAIR)], n_resamples=20)
    lent = borrowed.table(table, PAIR, methods=[borrowed.STRUCTURED])
    found = borrowed.filled(own, lent)
    assert list(found["group"]) == list(own["group"])
    before = own["value"].notna()
    assert 0 < before.sum() < len(own)
    pd.testing.assert_frame_equal(found[before], own[before])
    changed = found[~before & found["value"].notna()]
    assert len(changed) and (changed["method"] == "zero-shot, structured").all()
    assert changed["note"].str.startswith(borrowed.BORROWED).all()


def test_where_too_few_groups_are_left_nobody_lends():
    table = films(150)
    rare = table["y_true"].eq(1) & ~(table["sex"].eq("F") & table["age_group"].eq("25-50"))
    found = borrowed.table(table[~rare], PAIR).dropna(subset="value")
    assert list(found["method"]) == ["zero-shot, raw"]
    assert found["group"].item() == "F x 25-50"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: borrowed.table(t, ["sex"]), "two or more to cross"),
        (lambda t: borrowed.table(t, PAIR, "sensitivity"), "fairness.decide"),
        (lambda t: borrowed.table(t, PAIR, methods=["guessed"]), "unknown 'guessed'"),
        (lambda t: borrowed.table(t, PAIR, "brier"), "metric"),
        (lambda t: borrowed.table(t, ["sex", "race"]), "'race' is missing"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(films(40))

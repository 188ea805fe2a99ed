"""Net benefit beside exact arithmetic, an independent package, formulas and a bootstrap."""

import importlib.util
from fractions import Fraction
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from cxrlib.guard import latch
from cxrlib.predict import policies
from cxrlib.show import plots
from cxrlib.show.words import estimate
from cxrlib.stats import calibration, fairness, influence, net_benefit

matplotlib.use("Agg")
ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("recorder", ROOT / "benchmarks" / "net_benefit.py")
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


@pytest.fixture(scope="module")
def films():
    """Risks of films of patients, two each, by two models, in two groups."""
    rng = np.random.default_rng(5)
    n = 600
    y = rng.random(n) < 0.25
    own = np.repeat(rng.normal(size=n // 2), 2)
    table = pd.DataFrame({"image_id": np.arange(n), "patient_id": np.arange(n) // 2})
    table = table.assign(cohort="c", method="z", label="ill", y_true=y * 1)
    table["sex"] = np.where(np.arange(n) // 2 % 3 == 0, "F", "M")
    both = []
    for model, apart in (("a", 1.6), ("b", 1.0)):
        log_odds = apart * y + 0.6 * own + rng.normal(size=n) - 1.5
        both.append(table.assign(model=model, score=1 / (1 + np.exp(-log_odds))))
    return pd.concat(both, ignore_index=True)


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("harm_ratio", [1, 9, 2.5])
@pytest.mark.parametrize("prevalence", [None, 0.125])
def test_every_metric_is_exact(harm_ratio, prevalence):
    """To 1e-12 of fractions of whole numbers, of decisions by lot too."""
    rng = np.random.default_rng(1)
    y, yes = rng.random(250) < 0.3, rng.integers(0, 5, 250) / 4
    among = rng.random(250) < 0.7
    ill, well = ([Fraction(x) for x in yes[among & side]] for side in (y, ~y))
    h, pi = Fraction(harm_ratio), Fraction(len(ill), len(ill) + len(well))
    pi = pi if prevalence is None else Fraction(prevalence)
    hit, false = pi * sum(ill) / len(ill), (1 - pi) * sum(well) / len(well)
    exact = {
        "net_benefit": hit - false / h,
        "missed_cases": pi - hit,
        "found_cases": hit,
        "false_alarms": false,
        "standardised_net_benefit": (hit - false / h) / pi / 1000,
        "all_alarmed": pi - (1 - pi) / h,
    }
    assert set(exact) == set(net_benefit.METRICS)
    for metric, function in net_benefit.METRICS.items():
        found = function(y, yes, harm_ratio, among, prevalence)
        assert found.value == pytest.approx(float(1000 * exact[metric]), abs=1e-12), metric
        assert found.influence.sum() == pytest.approx(0, abs=1e-9)


# dcurves 1.1.7, dca(): model at thresholds 0.1 and 0.35, then an alarm for all at these
OF_DCURVES = {
    ("all", None): (0.2703703703703703, 0.13717948717948716, 0.25925925925925924,
                    -0.02564102564102566),
    ("all", 0.1): (0.015, -0.1473076923076923, 0.0, -0.3846153846153846),
    ("F", None): (0.2777777777777778, 0.14230769230769236, 0.2666666666666667,
                  -0.015384615384615274),
    ("F", 0.1): (0.015151515151515152, -0.14819004524886878, 0.0, -0.3846153846153846),
    ("M", None): (0.26666666666666666, 0.13461538461538464, 0.2555555555555556,
                  -0.030769230769230715),
    ("M", 0.1): (0.014925373134328346, -0.14685314685314685, 0.0, -0.3846153846153846),
}  # fmt: skip


@pytest.mark.parametrize(("group", "prevalence"), OF_DCURVES)
def test_curves_are_those_of_dcurves(group, prevalence):
    i = np.arange(300)
    score = ((i * 7919) % 300 + 0.5) / 300
    y = ((i * 104729 + 13) % 997) / 997 < score**2
    table = pd.DataFrame({"image_id": i, "patient_id": i, "y_true": y * 1, "score": score})
    table = table.assign(cohort="c", model="m", method="z", label="ill")
    table["sex"] = np.where(i % 3 == 0, "F", "M")
    how = {"metrics": ("net_benefit", "all_alarmed"), "prevalence": prevalence}
    found = net_benefit.curves(table, (0.1, 0.35), ["sex"], **how)
    value = found[found["group"] == group].sort_values("metric", ascending=False)["value"]
    expected = 1000 * np.array(OF_DCURVES[group, prevalence])
    assert value.to_numpy() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_price_is_a_threshold_and_nothing_else():
    assert [net_benefit.threshold(h) for h in (1, 4, 9)] == pytest.approx([0.5, 0.2, 0.1])
    for bad in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="expected a number above 0"):
            net_benefit.threshold(bad)
    with pytest.raises(ValueError, match="between 0 and 1"):
        net_benefit.net_benefit([0, 1], [0, 1], 9, prevalence=1.0)


# --- tables -----------------------------------------------------------------------------------


def test_differences_are_paired_and_beside_a_bootstrap_of_patients(films):
    """Between groups, between models, and how the one changes the other."""
    alarms = fairness.decide(films, threshold=0.1)
    between = {"sex": [("F", "M")], "model": [("a", "b")]}
    table = net_benefit.table(alarms, 9, ["sex"], between=between)
    wide = alarms.pivot(index="image_id", columns="model", values="score").to_numpy()
    one = alarms[alarms["model"] == "a"]
    y, sex = one["y_true"].to_numpy(bool), one["sex"].to_numpy()
    by_patient = {p: at for p, at in one.reset_index().groupby("patient_id").indices.items()}

    def values(at):
        cells = [
            1000 * ((y[of] & (wide[of, m] > 0)).mean() - (~y[of] & (wide[of, m] > 0)).mean() / 9)
            for of in (at[sex[at] == "F"], at[sex[at] == "M"])
            for m in (0, 1)
        ]
        fa, fb, ma, mb = cells
        return np.array([fa - ma, fa - fb, (fa - fb) - (ma - mb)])

    keys = [("a", "F - M"), ("a - b", "F"), ("a - b", "F - M")]
    rows = [
        table.query("metric == 'net_benefit' and model == @m and group == @g").iloc[0]
        for m, g in keys
    ]
    plain = values(np.arange(len(y)))
    rng, people = np.random.default_rng(2), list(by_patient)
    anew = [
        values(np.concatenate([by_patient[p] for p in rng.choice(people, len(people))]))
        for _ in range(300)
    ]
    fa, fb, ma, mb = (
        net_benefit.net_benefit(y, wide[:, m], 9, sex == g) for g in "FM" for m in (0, 1)
    )
    own = (fa - ma, fa - fb, fa - fb - (ma - mb))
    for row, value, spread, one in zip(rows, plain, np.std(anew, axis=0), own, strict=True):
        assert row["value"] == pytest.approx(value, abs=1e-9)
        limits = influence.interval(one, by_image := np.arange(len(y)) // 2)
        assert row[["ci_low", "ci_high"]].to_list() == pytest.approx(limits)
        assert influence.standard_error(one, by_image) == pytest.approx(spread, rel=0.15)
    assert (rows[0]["n"], rows[0]["n_patients"]) == (600, 300) and rows[1]["n"] == 200


def test_curves_are_tables_at_each_threshold_and_its_price(films):
    curves = net_benefit.curves(films, (0.1, 0.2), ["sex"])
    for at in (0.1, 0.2):
        alarms = fairness.decide(films, threshold=at)
        table = net_benefit.table(alarms, (1 - at) / at, ["sex"])
        own = curves[curves["threshold"] == at].drop(columns="threshold").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, table, atol=1e-9)
    with pytest.raises(ValueError, match="thresholds: 1"):
        net_benefit.curves(films, (1,))


def test_what_is_not_known_is_not_given(films):
    """Groups of few cases; and no interval without spread, which would promise certainty."""
    few = films[(films["sex"] == "M") | (films["image_id"] < 60)]
    beside = net_benefit.beside_extremes(fairness.decide(few, threshold=0.1))
    between = {"sex": [("F", "M")]}
    table = net_benefit.table(beside, 9, ["sex"], between=between, prevalence=0.1)
    unknown = table["group"].isin(("F", "F - M"))
    assert table.loc[unknown, "value"].isna().all()
    assert table.loc[unknown, "note"].str.contains("positive images, fewer than 10").all()
    every = table[(table["method"] == net_benefit.EVERYBODY) & ~unknown]
    assert estimate(every, model="a", group="M", metric="net_benefit").value == pytest.approx(0)
    assert every[["ci_low", "ci_high"]].isna().all(axis=None)
    assert every["note"].str.startswith(net_benefit.ALIKE).all()
    assert table["note"].str.contains("at a prevalence of 0.1").all()


@pytest.mark.parametrize(
    ("change", "how", "said"),
    [
        ({"score": 1.5}, {}, "outside"),
        ({}, {"metrics": ["auc"]}, "metrics: unknown 'auc'"),
        ({}, {"between": {"model": [("a", "c")]}}, "between, model: unknown 'c'"),
        ({}, {"attributes": ["race"]}, "attribute column 'race' is missing"),
    ],
)
def test_bad_input_is_refused_in_one_message(films, change, how, said):
    with pytest.raises(ValueError, match=said):
        net_benefit.table(films.assign(**change), 9, **how)


def test_no_step_of_a_guarded_curve_tells_of_single_films(films, monkeypatch):
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    at = np.round(np.arange(0.1, 0.6, 0.01), 2)
    curves = net_benefit.curves(films, at, ["sex"], metrics=["missed_cases", "false_alarms"])
    score = films.set_index(["model", "sex", "y_true"])["score"]
    steps = 0
    for (model, sex), rows in curves[curves["attribute"] == "sex"].groupby(["model", "group"]):
        known = rows.dropna(subset="value")["threshold"].unique()
        assert 1 < len(known) < len(at)
        for y in (0, 1):
            above = (score.loc[model, sex, y].to_numpy() > known[:, None]).sum(axis=1)
            step = np.abs(np.diff(above))
            assert ((step == 0) | (step >= 10)).all()
            steps += (step > 0).sum()
    assert steps


# --- rules ------------------------------------------------------------------------------------


def test_rules_are_what_they_say(films):
    own = films[films["model"] == "a"]
    fitted, applied = own[own["image_id"] < 300], own[own["image_id"] >= 300]
    found = policies.decided(applied, fitted, "sex", 9, 0.8)
    yes = found.pivot(index="image_id", columns="method", values="score")
    assert list(found["method"].unique()) == list(policies.POLICIES)
    healthy = fitted[fitted["y_true"] == 0]
    expected = applied["score"].to_numpy() > np.quantile(healthy["score"], 0.8)
    np.testing.assert_array_equal(yes[policies.COMMON], expected)
    for sex, rows in applied.groupby("sex"):
        cut = np.quantile(healthy.loc[healthy["sex"] == sex, "score"], 0.8)
        np.testing.assert_array_equal(yes.loc[rows["image_id"], policies.EACH], rows["score"] > cut)
        known = fitted[fitted["sex"] == sex]
        risk = calibration.recalibrate(rows, known)["score"].to_numpy()
        np.testing.assert_array_equal(yes.loc[rows["image_id"], policies.OWN_RISK], risk > 0.1)
    # within reach of what the fitting films promise: both odds alike
    again = policies.decided(fitted, fitted, "sex", 9)
    rates = again[again["method"] == policies.ODDS].groupby(["y_true", "sex"])["score"].mean()
    assert rates.unstack().diff(axis=1)["M"].abs().max() < 0.02


def test_without_films_to_fit_on_nothing_is_decided(films):
    own = films[films["model"] == "a"]
    nobody = own[(own["sex"] == "M") | (own["y_true"] == 0)]
    assert policies.decided(own, nobody, "sex", 9).empty


PLANTED = {"faint": (0.05, 0.8, 0.25), "clear": (0.15, 2.5, 0.75)}


def test_equal_odds_harm_the_worst_off_where_risks_are_exact():
    """The truth is a formula; a million alarms by exact risk, simulated without the library."""
    truth = policies.planted_truth(PLANTED, 9)
    rng, n = np.random.default_rng(0), 400_000
    for kind, (ill, apart, _) in PLANTED.items():
        y = rng.random(n) < ill
        score = rng.normal(size=n) + apart * y
        ratio = np.exp(apart * score - apart**2 / 2) * ill / (1 - ill)
        own, middle = ratio > 1 / 9, score > PLANTED["faint"][1] / 2
        value = 1000 * ((own & y).mean() - (own & ~y).mean() / 9)
        assert value == pytest.approx(truth[policies.OWN_RISK, kind], abs=2)
        if kind == "faint":
            value = 1000 * ((middle & y).mean() - (middle & ~y).mean() / 9)
            assert value == pytest.approx(truth[policies.ODDS, kind], abs=2)
    loss = {k: truth[policies.ODDS, k] - truth[policies.OWN_RISK, k] for k in PLANTED}
    assert loss["faint"] < -5 and loss["clear"] < -5
    assert truth[policies.BEST_ODDS, "faint"] < truth[policies.ODDS, "faint"] < 0

    decided = policies.planted(PLANTED, 9)
    odds = decided.groupby(["method", "y_true", "kind"])["score"].mean().unstack()
    apart = (odds["faint"] - odds["clear"]).abs().groupby("method").max()
    assert apart[policies.ODDS] < 0.1 < 0.5 < apart[policies.OWN_RISK]
    between = {"method": [(policies.ODDS, policies.OWN_RISK)]}
    table = net_benefit.table(decided, 9, ["kind"], between=between, metrics=["net_benefit"])
    change = table[table["method"].str.contains(" - ")].set_index("group")
    assert (change.loc[list(PLANTED), "ci_high"] < 0).all()
    found = table[table["method"] == policies.OWN_RISK].set_index("group")
    for kind in PLANTED:
        row = found.loc[kind]
        error = (row["ci_high"] - row["ci_low"]) / 3.92
        assert abs(row["value"] - truth[policies.OWN_RISK, kind]) < 3.5 * error


# --- the record -------------------------------------------------------------------------------


def test_the_record_is_that_of_the_formula_and_covers():
    recorded = net_benefit.recorded()
    assert (recorded["n_studies"] >= 2000).all()
    assert set(recorded["events"]) == set(world.EVENTS)
    for (design, ratio), rows in recorded.groupby(["design", "harm_ratio"]):
        truth = world.truth(design, ratio)
        expected = [truth[key] for key in zip(rows["what"], rows["metric"], strict=True)]
        assert rows["truth"].to_numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-4)
    gaps = recorded["what"].str.startswith("A - B") & recorded["metric"].eq("net_benefit")
    enough = recorded[gaps & (recorded["events"] >= 30)]
    assert len(enough) == 54 and enough["coverage"].between(0.93, 0.97).all()


def test_a_study_of_the_record_is_what_the_tables_give():
    """The recorder takes estimates one by one; the book takes tables."""
    found = world.study(3, "B is fainter and iller", 60)
    group, patient, ill, score = world.sample("B is fainter and iller", 60, 3)
    films = pd.DataFrame({"image_id": np.arange(len(ill)), "patient_id": patient, "sex": group})
    films = films.assign(cohort="c", label="ill", method="z", y_true=ill * 1)
    cut = world.cut("B is fainter and iller", 9)
    films = [
        films.assign(model=m, score=(s > cut) * 1.0) for m, s in zip("12", score.T, strict=True)
    ]
    between = {"sex": [("A", "B")], "model": [("1", "2")]}
    table = net_benefit.table(pd.concat(films), 9, ["sex"], between=between)
    at = {"A - B": ("1", "A - B"), "model 1 - model 2 in B": ("1 - 2", "B")}
    rows = table[table["metric"] == "net_benefit"].set_index(["model", "group"])
    for what, key in at.items():
        row = rows.loc[key]
        own = found[9, what, "net_benefit"]
        assert row[["value", "ci_low", "ci_high"]].to_list() == pytest.approx(own)


# --- what is drawn ----------------------------------------------------------------------------


def test_a_thousand_marks_are_the_numbers_of_the_table(films):
    alarms = fairness.decide(films[films["model"] == "a"], threshold=0.1)
    metrics = ("missed_cases", "found_cases", "false_alarms")
    table = net_benefit.table(alarms, 9, ["sex"], metrics=metrics)
    table = table[table["attribute"] == "sex"]
    fig = plots.icon_arrays(table)
    for ax, group in zip(fig.axes, ("F", "M"), strict=True):
        drawn = [len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
        own = table[table["group"] == group].set_index("metric")["value"]
        assert drawn[:3] == [round(own[m]) for m in metrics] and sum(drawn) == 1000
        places = np.concatenate([c.get_offsets() for c in ax.collections])
        assert len(np.unique(places, axis=0)) == 1000  # none on another
        assert f"{round(own['missed_cases'])} missed" in ax.get_title(loc="left")
        assert ax.get_title(loc="left") in fig.alt
    plt.close("all")
    lost = plots.icon_arrays(table.assign(value=np.nan, note="few"))
    assert "Every group is undefined" in lost.alt
    plt.close("all")


def test_decision_curves_hold_the_table_beside_both_extremes(films):
    how = {"metrics": ("net_benefit", "all_alarmed")}
    curves = net_benefit.curves(films, (0.05, 0.1, 0.2), ["sex"], **how)
    of_sex = curves[(curves["attribute"] == "sex") & (curves["model"] == "a")]
    fig = plots.decision_curves(of_sex)
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in fig.axes[0].lines}
    for _, rows in of_sex.groupby(["group", "metric"]):
        assert tuple(rows["value"].astype(float).round(6)) in drawn
    assert (0, 0) in drawn
    assert fig.axes[0].get_xticklabels()[0].get_text() == "5 %\n19"
    dashed = plots.decision_curves(curves[curves["attribute"] == "all"], "model").axes[0].lines
    assert {line.get_color() for line in dashed if line.get_linestyle() == "--"} == {plots.GREY}
    plt.close("all")


def test_the_interval_takes_patients_as_the_unit(films):
    """Each film twice, as of the same patients: nothing new is known."""
    alarms = fairness.decide(films[films["model"] == "a"], threshold=0.1)
    twice = pd.concat([alarms, alarms.assign(image_id=alarms["image_id"] + 10_000)])
    ends = ["value", "ci_low", "ci_high"]
    once, both = (net_benefit.table(t, 9)[ends].to_numpy(float) for t in (alarms, twice))
    np.testing.assert_allclose(once, both)
    people = alarms["patient_id"].to_numpy()
    args = alarms["y_true"], alarms["score"], 9
    assert once[0, 1:] == pytest.approx(influence.interval(net_benefit.net_benefit(*args), people))

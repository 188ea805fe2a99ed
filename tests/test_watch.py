"""Watches beside hand computations, every possible stream, and streams that are fair by design."""

import importlib.util
from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from statsmodels.stats.weightstats import DescrStatsW

from cxrlib.show import plots
from cxrlib.stats import watch

spec = importlib.util.spec_from_file_location("recorder", ROOT / "benchmarks" / "watch.py")
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def test_wealth_by_hand():
    two_found_two_missed = [-0.2, -0.2, 0.8, 0.8]
    found = watch.wealth(two_found_two_missed, 0.2, 1.0, kept=0)
    assert found == pytest.approx([0.8, 0.64, 1.152, 2.0736])
    # half is kept, and half of what is left of it is put down before each bet
    found = watch.wealth([0.8, -0.2], 0.2, 1.0, kept=0.5, rate=0.5)
    first = (0.5 + 0.25) * 1.8
    assert found == pytest.approx([first + 0.25, (first + 0.125) * 0.8 + 0.125])


@pytest.mark.parametrize("promise", [0.6, 0.8])
def test_mean_wealth_is_one_at_the_edge_of_the_null_whenever_one_stops(promise):
    """All 2^12 streams of patients, each with its chance: no rule of stopping gains."""
    found = np.array(list(product((0, 1), repeat=12)))
    stake = watch.stake(0.1, promise * (1 - promise), 1 - promise)
    wealth = watch.wealth(promise - found, 1 - promise, stake)
    rich = wealth > 1.3
    stop = np.where(rich.any(1), rich.argmax(1), 11)  # at the first profit of a third, or the end
    stopped = wealth[np.arange(len(wealth)), stop]

    def mean(of, truth):
        return np.prod(np.where(found == 1, truth, 1 - truth), axis=1) @ of

    assert mean(wealth, promise) == pytest.approx(np.ones(12))
    assert mean(stopped, promise) == pytest.approx(1)
    assert mean(stopped, promise + 0.1) < 1
    assert (mean(wealth, promise + 0.1) < 1).all()
    assert 0 < mean((wealth >= 2).any(1), promise) <= 1 / 2  # Ville


def test_a_watch_never_sees_the_future():
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"found": rng.random(200), "group": rng.choice(["a", "b"], 200)})
    plan = watch.plan(people, ("a", "b"), 0.05, 0.0, 0.1)
    other = people.copy()
    other.loc[120:, "found"] = 0.0
    other.loc[120:, "group"] = "a"
    alarms, course = watch.watched(other, plan, level=0.05)
    assert alarms["gap"] == np.inf  # those of the second group do not come any more
    assert alarms["promise"] > 120
    alt = plots.watched(course, 0.05, 100).alt
    assert "never reached" in alt
    assert "change after 100 patients" in alt
    courses = [watch.watched(table, plan)[1] for table in (people, other)]
    early = [course[course["patient"] <= 120] for course in courses]
    assert len(early[0]) > 40
    pd.testing.assert_frame_equal(*early)
    assert len(courses[0]) > len(early[0])


def test_blocks_take_each_patient_once_in_order():
    group = list("aababbbab")
    x = np.array([1, 0, 0.5, 0, 1, 1, 0, 1, 0.25])
    pairs = watch.blocks(x, group, ("a", "b"))
    assert pairs["difference"].tolist() == [1 - 0.5, 0 - 1, 0 - 1, 1 - 0]
    assert pairs["patient"].tolist() == [3, 5, 6, 8]
    unequal = watch.blocks(x, group, ("b", "a"), sizes=(2, 1))
    assert unequal["difference"].tolist() == [0.75 - 1, 0.5 - 0]
    assert unequal["patient"].tolist() == [5, 7]
    assert watch.blocks(x, ["a"] * 9, ("a", "b")).empty


def test_fair_streams_raise_few_alarms_and_the_usual_test_many():
    """Several findings of a patient, and both groups falling together: still fair."""
    for name in ("fair, three findings a patient", "fair, both groups fall"):
        of = world.USUAL | world.DESIGNS[name] | {"start": None}
        values, second = world.streams(of, 500, 1600, np.random.default_rng(1))
        payoff, _ = world.compared(of, values, second)
        bets = watch.wealth(payoff, 1.0, watch.stake(0.1, 0.32, 1.0))
        assert np.isfinite(watch.first_alarm(bets)).mean() <= 0.05
        assert (watch.p_values(payoff)[:, 29:] < 0.05).any(axis=1).mean() > 0.15


def test_a_planted_gap_is_found():
    of = world.USUAL | {"start": 400}
    values, second = world.streams(of, 200, 3000, np.random.default_rng(2))
    payoff, patient = world.compared(of, values, second)
    bets = watch.wealth(payoff, 1.0, watch.stake(0.1, 0.37, 1.0))
    at = watch.first_alarm(bets)
    assert np.isfinite(at).mean() > 0.9
    assert 400 < np.median(patient[0, at[np.isfinite(at)].astype(int) - 1]) < 2000


def test_the_band_holds_a_gap_at_all_times_and_closes():
    rng, truth = np.random.default_rng(3), 0.1
    held = []
    for _ in range(60):
        d = (rng.random(200) < 0.8) * 1.0 - (rng.random(200) < 0.7)
        low, high = watch.band(d, step=0.02)
        held.append(((low <= truth) & (truth <= high)).all())
    assert np.mean(held) >= 0.95
    assert low[0] == pytest.approx(-1, abs=0.03)
    assert high[0] == pytest.approx(1, abs=0.03)
    assert (high - low)[-1] < (high - low)[49] < (high - low)[9]
    assert low[-1] < d.mean() < high[-1]


def test_p_values_beside_statsmodels():
    d = np.random.default_rng(4).normal(0.1, 1, 80)
    ours = watch.p_values(d)
    for n in (2, 10, 80):
        _, theirs = DescrStatsW(d[:n]).ztest_mean(0, alternative="larger")
        assert ours[n - 1] == pytest.approx(theirs)
    assert watch.p_values([0.0, 0.0, 0.0]).tolist() == [1, 1, 1]


def test_one_number_a_patient():
    rows = [
        ("p2", "a", 1, 0.9), ("p2", "b", 1, 0.1), ("p2", "a", 1, 0.8),  # two of three
        ("p1", "a", 0, 0.9),  # healthy: does not come
        ("p3", "b", 1, 0.7), ("p3", "c", 1, 0.0),  # of c there is no threshold
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["patient_id", "label", "y_true", "score"])
    found = watch.found(table.assign(sex="F"), {"a": 0.5, "b": 0.5}, "sex")
    assert found["patient_id"].tolist() == ["p2", "p3"]
    assert found["found"].tolist() == pytest.approx([2 / 3, 1])
    assert found["group"].tolist() == ["F", "F"]


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="payoff"):
        watch.wealth([-0.5], 0.2, 1.0)
    with pytest.raises(ValueError, match="payoff"):
        watch.wealth([np.nan], 0.2, 1.0)
    with pytest.raises(ValueError, match="stake"):
        watch.wealth([0.1], 0.2, 5.0)
    with pytest.raises(ValueError, match="values"):
        watch.blocks([1.2], ["a"], ("a", "b"))
    with pytest.raises(ValueError, match="patients of a or b"):
        watch.plan(pd.DataFrame({"found": [1.0], "group": ["a"]}), ("a", "b"), 0.05, 0, 0.1)


def test_the_record_keeps_what_the_issue_asks():
    """At most one in twenty false alarms, and a gap of 0.10 sooner than by the plan of one test."""
    table = watch.recorded()
    bets = table[table["method"] == watch.BETS].set_index("design")
    fair = bets[bets["gap"] == 0]
    assert (fair["n_streams"] >= 1000).all()
    assert (fair["n_false"] / fair["n_streams"] <= 0.05).all()
    short = watch.compared(table)
    assert short["most_false"][watch.BETS] <= 0.05 < short["false"][watch.USUAL]
    for change in watch.CHANGES:
        assert short[change][watch.BETS] < short[change][watch.ONE]

"""Encoded and used: the rule, estimates of a known effect on arrays, and phantoms with twins."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from cxrlib import cohorts
from cxrlib.cohorts import phantom
from cxrlib.core.errors import Lacks
from cxrlib.models import load_model
from cxrlib.predict import use, zeroshot
from cxrlib.predict.remedies import images
from cxrlib.show import plots
from cxrlib.stats import use_rule
from cxrlib.stats.influence import Estimate, interval

FINDING = "Pneumothorax"


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.3, 0.5, "yes"),
        (-0.5, -0.3, "yes"),
        (-0.2, 0.2, "no"),
        (0.2, 0.3, "undecided"),
        (-0.3, 0.3, "undecided"),
        (np.nan, np.nan, "undefined"),
    ],
)
def test_an_interval_is_beyond_the_bar_within_it_or_neither(low, high, says):
    assert use_rule.says(low, high, 0.25) == says


def test_quadrants():
    answers = ("yes", "no", "undecided", "undefined")
    found = {pair: use_rule.quadrant(*pair) for pair in product(answers, answers)}
    decided = {pair: name for pair, name in found.items() if name != "undecided"}
    assert decided == use_rule.QUADRANTS and len(decided) == 4


# --- arrays with a known effect ---


def made(effect=0.0, confounded=0.0, n=4000, seed=0):
    """Vectors of which one direction shows a thing, and a margin that it moves by `effect` SD.

    Stratum 1 has the thing more often by `confounded` and a margin higher by 1 SD.
    """
    rng = np.random.default_rng(seed)
    stratum = rng.random(n) < 0.5
    has = rng.random(n) < 0.3 + confounded * stratum
    noise = rng.normal(size=(n, 5))
    answer = noise[:, 0] + effect * has + stratum
    shows = noise[:, 1] + 2 * has
    return np.column_stack([answer, shows, noise[:, 2:]]), has, stratum


@pytest.mark.parametrize("effect", [0.0, 0.8])
def test_matching_finds_what_the_plain_difference_confounds(effect):
    vectors, has, stratum = made(effect, confounded=0.6)
    margin, patient = vectors[:, 0], np.arange(len(has))
    sd = margin[~has].std()
    plain, alike = use_rule.matched(margin, has), use_rule.matched(margin, has, [stratum])
    assert plain.value == pytest.approx((margin[has].mean() - margin[~has].mean()) / sd)
    low, high = interval(alike, patient)
    assert low < effect / sd < high and high - low < 0.25
    assert interval(plain, patient)[0] > effect / sd + 0.2  # fooled


def test_matched_is_the_mean_over_films_of_their_distance_to_the_stratum():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"m": rng.normal(size=200), "has": rng.random(200) < 0.3})
    table["a"], table["b"] = rng.integers(0, 3, 200), rng.choice(["x", "y"], 200)
    table.loc[table["a"] == 2, "has"] = True  # a stratum without a counterpart
    among = table[table["a"] < 2]
    beside = among[~among["has"]].groupby(["a", "b"])["m"].mean().rename("beside")
    joined = among[among["has"]].join(beside, on=["a", "b"])
    by_hand = (joined["m"] - joined["beside"]).mean() / among.loc[~among["has"], "m"].std(ddof=0)
    found = use_rule.matched(table["m"], table["has"], [table["a"], table["b"]])
    assert found.value == pytest.approx(by_hand)
    assert not found.influence[table["a"] == 2].any() and abs(found.influence.sum()) < 1e-12
    with pytest.raises(ValueError, match="no film has a counterpart"):
        use_rule.matched(table["m"], table["has"], [table["has"]])


def test_intervals_hold_the_effect_as_often_as_they_say():
    """Patients with four films each, alike in the thing and in a part of the margin."""
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(60), 4)
        stratum, own = (rng.integers(0, 2, 60)[patient], rng.normal(size=60)[patient])
        has = (rng.random(60) < 0.3 + 0.3 * stratum[::4])[patient]
        margin = stratum + own + rng.normal(size=240) + 0.5 * has
        found = use_rule.matched(margin, has, [stratum], unit=Estimate(1.0, np.zeros(240)))
        low, high = interval(found, patient)
        held.append(low < 0.5 < high)
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("effect", [0.0, 0.8])
def test_erasure_takes_the_plain_difference_on_the_fitted_films(effect):
    vectors, has, _ = made(effect)
    prompt = np.array([1.0, 0, 0, 0, 0])
    margin = vectors @ prompt
    after = images.eraser(vectors, has)(vectors) @ prompt
    gone = use_rule.removed(margin, after, [margin], has)
    assert gone.value == pytest.approx(use_rule.matched(margin, has).value, abs=1e-6)
    low, high = interval(gone, np.arange(len(has)))
    assert use_rule.says(low, high, use_rule.USED) == ("yes" if effect else "no")


def test_auc_lost_beyond_random_erasures_is_that_of_scikit_learn():
    rng = np.random.default_rng(2)
    y = rng.random(600) < 0.3
    after, *dealt = y + rng.normal(size=(4, 600)) * np.array([2, 1, 1, 1])[:, None]
    found = use_rule.lost(y, after, dealt)
    expected = np.mean([roc_auc_score(y, m) for m in dealt]) - roc_auc_score(y, after)
    assert found.value == pytest.approx(expected)


def test_a_probe_reads_what_two_normal_distributions_allow():
    vectors, has, _ = made(n=3000)
    patient = np.arange(3000) // 2
    low, high = interval(use_rule.decoded(vectors, has, patient), patient)
    assert low < norm.cdf(2 / np.sqrt(2)) < high
    assert abs(use_rule.decoded(vectors[:, 2:], has, patient).value - 0.5) < 0.04


# --- phantoms ---


@pytest.fixture(scope="module")
def films():
    return cohorts.load("phantom", n_images=700, seed=101)


@pytest.fixture(scope="module")
def biased():
    return load_model("phantom-resnet-drain")


def test_margins_are_the_log_odds_of_the_zero_shot_score(films, biased):
    score = zeroshot.predict(films, [biased], [FINDING])["score"].to_numpy()
    of = use.case(films, biased, FINDING, "drain")
    np.testing.assert_allclose(expit(of.margin), score, atol=1e-5)


def test_the_planted_shortcut_is_named_by_twins_and_by_what_needs_none(films, biased):
    twins = use.twins(films, "drain")
    known = use.truth(*twins, biased, FINDING, "drain")
    assert known["says"] == "yes" and known["value"] > 1
    said = use.estimates([use.case(films, biased, FINDING, "drain")]).set_index("method")
    named = ["matched pairs", "erasure within label", "masking"]
    assert (said.loc[named, "says"] == "yes").all()
    assert said.loc["masking", "value"] == pytest.approx(known["value"], rel=0.35)
    ablation = said.loc["prompt ablation"]
    assert ablation["says"] == "nothing" and "does not know the word 'drain'" in ablation["note"]


def test_twins_change_one_thing(films):
    changed, plain = use.twins(films, "sex", n=20)
    assert (changed.table["sex"] != plain.table["sex"][:20]).all()
    kept = changed.table.columns.difference(["sex", "report"])
    pd.testing.assert_frame_equal(changed.table[kept], plain.table[kept][:20])
    changed, plain = use.twins(films, "age60", n=20)
    old = plain.table["age"][:20] >= 60
    assert ((changed.table["age"] >= 60) != old).all()
    np.testing.assert_array_equal(  # findings as visible as before
        *(phantom.scene(c.table[:20], 101, phantom.Dials())["contrast"] for c in (changed, plain))
    )
    changed, plain = use.twins(films, "site", n=20)
    assert set(changed.table["site"]) == {"C"} and len(changed.table) == 20
    assert changed.table["image_id"].isin(plain.table["image_id"]).all()
    changed, plain = use.twins(films, "race")
    assert changed is plain


def test_paint_covers_the_drain_and_nothing_else(films):
    at = np.flatnonzero(films.table["drain"])[:30]
    drawn, bare = (phantom.twin(films, drain=d).images(at) for d in (1, 0))
    painted = use.inpainted(drawn, drawn != bare)
    far = np.stack([np.pad(w, 1) for w in drawn != bare])
    grown = np.any(
        [far[:, 1 + i : 65 + i, 1 + j : 65 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0
    )
    np.testing.assert_array_equal(painted[~grown], drawn[~grown])
    # nothing of the drain shows through: the twin without it is painted to the same picture
    np.testing.assert_array_equal(painted, use.inpainted(bare, drawn != bare))


def test_what_cannot_be_asked_is_said(films, biased):
    women = films.table["sex"] == "F"
    alone = replace(films, table=films.table[women].reset_index(drop=True))
    with pytest.raises(Lacks, match="sex M: fewer than 20 patients"):
        use.case(alone, biased, FINDING, "sex")
    with pytest.raises(Lacks, match="does not record drain"):
        use.case(replace(films, table=films.table.drop(columns="drain")), biased, FINDING, "drain")
    with pytest.raises(Lacks, match="no labels of Fracture"):
        use.case(films, biased, "Fracture", "sex")
    real = replace(films, name="own")
    for ask in (use.twins, lambda of, a: use.case(of, biased, FINDING, a)):
        with pytest.raises(Lacks, match="no twins of real films"):
            ask(real, use.ALIKE)
    said = use.estimates([use.case(real, biased, FINDING, "drain")], ["masking"])
    assert "nobody has drawn" in said["note"].item()


def test_the_map_has_the_planted_case_where_it_belongs(films, biased):
    asked, lacking = use.cases(films, [biased], FINDING)
    assert lacking.empty and [c.attribute for c in asked] == list(use.GROUPS)
    read = use.encoded(asked)
    # too few of one race are imaged at the site of another
    assert set(read["attribute"][read["method"] == "one site"]) == {"drain", "sex", "age60"}
    table = use.quadrants(read, use.truths(films, films, [biased], FINDING, n=60))
    table = table.set_index("attribute")
    assert table.loc["drain", "quadrant"] == "encoded and used"
    assert table.loc["race", ["use", "use_low", "use_high"]].tolist() == [0, 0, 0]
    figure = plots.encoded_or_used(table.reset_index(), 0.6, 0.25, "move")
    assert "drain, phantom-resnet-drain: " in figure.alt and len(figure.table) == len(use.GROUPS)


def test_grades_count_what_was_said():
    said = pd.DataFrame({"seed": range(4), "model": "m", "attribute": "drain"})
    said["twins"] = ["yes", "yes", "no", "undecided"]
    said["probe"] = ["yes", "yes", "undecided", "yes"]
    said = said.assign(**dict.fromkeys(use.ESTIMATORS, "yes"))
    said["masking"] = ["yes", "undecided", "nothing", "yes"]
    found = use.grades(said).set_index(["used", "method"])
    counts = ["n", "right", "wrong", "undecided", "nothing", "quadrant"]
    assert found.loc[("yes", "masking"), counts].tolist() == [2, 1, 0, 1, 0, 1]
    assert found.loc[("no", "masking"), counts].tolist() == [1, 0, 0, 0, 1, 0]
    assert found.loc[("no", "erasure"), counts].tolist() == [1, 0, 1, 0, 0, 0]

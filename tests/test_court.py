"""The court: its measures, their intervals, and the rule, on vectors with a planted harm."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from cxrlib.core.errors import Lacks
from cxrlib.predict import court
from cxrlib.predict.remedies.remedy import Films, Question, Remedy, ask
from cxrlib.stats import court_rule
from cxrlib.stats.influence import Estimate, interval, standard_error

FINDINGS = ("Edema", "Pneumonia")
GROUPS = ("F", "M")


def films(seed, patients=500, harm=0.0, first=0):
    """Two films a patient; the ill of the first group score lower by the harm."""
    rng = np.random.default_rng(seed)
    n = 2 * patients
    person = np.repeat(np.arange(patients), 2)
    group = np.where(rng.random(patients) < 0.5, *GROUPS)[person]
    truth = rng.random((n, 2)) < (0.25, 0.35)
    seen = 1.4 * truth + 0.6 * rng.normal(size=(patients, 2))[person] + rng.normal(size=(n, 2))
    seen -= harm * truth * (group == "F")[:, None]
    images = np.column_stack([seen, group == "F", rng.normal(size=n)])
    return Films(images, truth, group, first + person)


def question(k=2):
    prompts = np.eye(4)[:k]
    none = np.zeros((k, 4))
    about = (FINDINGS[:k], prompts, none, 1.0, "sex", GROUPS, (("woman",), ("man",)))
    return Question(*about, encode=lambda texts: np.zeros((len(texts), 4)))


def side(harm, seed=0, patients=500):
    parts = (films(seed + i, patients, harm, 10_000 * i) for i in range(3))
    return court.Side(question(), *parts)


@pytest.fixture(scope="module")
def case():
    biased = side(0.9)
    return court.Case("planted", "model", biased, side(0.0), lambda model: biased, "phantom")


def drains(effect, seed=0):
    """Twins of healthy and ill films; a drain adds the effect, and sits mostly on the ill."""
    asked = replace(question(1), attribute="drain", groups=("drain", "none"))

    def made(i):
        made = films(seed + i, 500, 0, 10_000 * i)
        return replace(made, truth=made.truth[:, :1], group=np.full(1000, "none"))

    fitting, tuning, test = (made(i) for i in range(3))
    moved = test.images + np.eye(4)[0] * effect + np.eye(4)[3] * 4
    changed = replace(test, images=moved, group=np.full(1000, "drain"))
    has = np.random.default_rng(9).random(1000) < np.where(test.truth[:, 0], 0.5, 0.1)
    drawn = replace(
        test,
        images=np.where(has[:, None], changed.images, test.images),
        group=np.where(has, "drain", "none"),
    )
    return court.Side(asked, fitting, tuning, test, changed, drawn)


def plain(side):
    """Margins of test films, thresholds and probabilities, by NumPy and scikit-learn alone."""
    tuned, given = side.tuning.images[:, :2], side.test.images[:, :2]
    at = [np.quantile(tuned[~t, k], 0.8) for k, t in enumerate(side.tuning.truth.T)]
    fits = [
        LogisticRegression(C=np.inf).fit(tuned[:, [k]], t)
        for k, t in enumerate(side.tuning.truth.T)
    ]
    p = np.column_stack([f.predict_proba(given[:, [k]])[:, 1] for k, f in enumerate(fits)])
    return given, given > at, p


def test_measures_are_those_of_numpy_and_scikit_learn(case):
    given, yes, p = plain(case.biased)
    test = case.biased.test
    women = test.group == "F"

    def found(among):
        return np.mean([yes[test.truth[:, k] & among, k].mean() for k in (0, 1)])

    assert court.harm(case.biased, case.biased.untreated).value == pytest.approx(
        found(women) - found(~women), abs=1e-12
    )
    of = court.orders(case.biased, case.biased.untreated, decides=False)
    for estimate, among in zip(of, (women | ~women, women, ~women), strict=True):
        aucs = [roc_auc_score(test.truth[among, k], given[among, k]) for k in (0, 1)]
        assert estimate.value == pytest.approx(np.mean(aucs), abs=1e-12)
    right = [balanced_accuracy_score(test.truth[women, k], yes[women, k]) for k in (0, 1)]
    decided = court.orders(case.biased, case.biased.untreated, decides=True)
    assert decided[1].value == pytest.approx(np.mean(right), abs=1e-12)
    score = court_rule.brier(case.biased.untreated.p, test.truth)
    by_hand = np.mean([brier_score_loss(test.truth[:, k], p[:, k]) for k in (0, 1)])
    assert score.value == pytest.approx(by_hand, abs=1e-6)


def test_the_shift_is_in_standard_deviations_of_films_without_a_drain():
    charged = drains(1.3)
    healthy = ~charged.test.truth[:, 0]
    before = charged.test.images[healthy, 0]
    shift = court.harm(charged, charged.untreated)
    assert shift.value == pytest.approx(1.3 / before.std(), abs=1e-12)


def halved(question, fitting):
    """Half of what is missing in women is given back; the fourth number is noise."""
    return lambda films: (
        ask(question, films) + 0.4 * (films.group == "F")[:, None] + 0.1 * films.images[:, [3]]
    )


def test_intervals_are_those_of_a_bootstrap_of_patients(case):
    effects = court.try_(case, Remedy(halved, "decisions"))
    test, clean = case.biased.test, case.clean.test
    films_of = [
        (s, s.untreated, court.answers(s, Remedy(halved, "x"))) for s in (case.biased, case.clean)
    ]
    rows = np.arange(len(test)).reshape(-1, 2)  # two films a patient
    women = test.group == "F"

    def counted(rows):
        def gap(yes, truth, group):
            return np.mean(
                [
                    yes[(truth[:, k]) & group, k].mean() - yes[truth[:, k] & ~group, k].mean()
                    for k in (0, 1)
                ]
            )

        def areas(margins, among):
            at = rows[among[rows]]
            return np.mean([area(test.truth[at, k], margins[at, k]) for k in (0, 1)])

        (_, old, new), (_, of_clean, _) = films_of
        reference = gap(of_clean.yes[rows], clean.truth[rows], clean.group[rows] == "F")
        gaps = [gap(a.yes[rows], test.truth[rows], women[rows]) - reference for a in (old, new)]
        every = women | ~women
        return (
            gaps[0],
            gaps[1] / gaps[0],
            areas(new.margins, every) - areas(old.margins, every),
            areas(new.margins, women) - areas(old.margins, women),
        )

    named = (effects.before, effects.share_left, effects.order, effects.worst_order)
    assert [e.value for e in named] == pytest.approx(counted(rows.ravel()), abs=1e-12)
    rng = np.random.default_rng(0)
    drawn = [counted(rows[rng.integers(0, len(rows), len(rows))].ravel()) for _ in range(400)]
    error = np.std(drawn, axis=0)
    ours = [standard_error(_without_luck(e), test.patient) for e in named]
    # 400 resamples know a standard error to 3.5 %
    assert ours == pytest.approx(error, rel=0.1)


def area(truth, margin):
    """Mann and Whitney's: roc_auc_score, which checks its arguments, is ten times as slow."""
    ranks = rankdata(margin)[truth]
    return (ranks.mean() - (len(ranks) + 1) / 2) / (~truth).sum()


def _without_luck(estimate):
    """The influences of the test films alone: a bootstrap of them does not fit anew."""
    return Estimate(estimate.value, estimate.influence[: -court.FOLDS])


def verdict(case, fit, **about):
    return court_rule.verdict(court.try_(case, Remedy(fit, "x", **about)), case.units)


def test_doing_nothing_leaves_all_as_it_is(case):
    assert verdict(case, court.nothing) == ("leaves", "", "", "")


def test_who_gives_back_what_was_taken_removes(case):
    def oracle(question, fitting):
        lost = 0.9 if fitting is case.biased.fitting else 0.0
        return lambda films: (
            ask(question, films) + lost * films.truth * (films.group == "F")[:, None]
        )

    assert verdict(case, oracle) == ("removes", "", "", "")


def test_what_is_done_to_the_clean_side_is_invented(case):
    def helped(question, fitting):
        return lambda films: ask(question, films) + 1.5 * (films.group == "F")[:, None]

    found = verdict(case, helped)
    assert found.removes == "over-shoots" and found.invents.startswith("a gap")
    assert "invents a gap" in str(found)


def test_who_harms_the_better_served_levels_down(case):
    """A remedy that overlooks ill men, now and then."""

    def overlook(question, fitting):
        def answer(films):
            now_and_then = np.random.default_rng(0).random(films.truth.shape) < 0.3
            ill_men = films.truth & (films.group == "M")[:, None]
            return ask(question, films) - 3 * (now_and_then & ill_men)

        return answer

    found = verdict(case, overlook)
    assert found.levels_down == "levels down"
    assert "AUC" in found.costs and "a loss of AUC" in found.invents


def test_a_shift_is_removed_and_invented_too():
    charged, clean = drains(1.3), drains(0.0)
    case = court.Case("drain", "model", charged, clean, lambda m: charged, "phantom")

    def subtracted(question, fitting):
        return lambda films: ask(question, films) - 1.3 * (films.group == "drain")[:, None]

    assert verdict(case, court.nothing).removes == "leaves"
    assert verdict(case, subtracted) == ("removes", "", "a shift", "")


def test_decisions_have_no_auc(case):
    def decided(question, fitting):
        return lambda films: (ask(question, films) > 0.7).astype(float)

    effects = court.try_(case, Remedy(decided, "decisions", decides=True))
    table = court.results(case, "decided", effects)
    assert effects.brier is None and "change_balanced_accuracy" in set(table["metric"])
    missing = table[table["metric"] == "change_brier"].iloc[0]
    assert np.isnan(missing["value"]) and "no probability" in missing["note"]


def effects(share, **others):
    """Effects on 1000 patients, each estimate with a standard error of 0.01."""
    about = {"order": 0.0, "worst_order": 0.0, "gains": (0.05, -0.05), "kind": "gap"} | others

    def made(value):
        sign = np.where(np.arange(1000) % 2, 1, -1)
        return Estimate(value, sign * 0.01 / np.sqrt(1000)) if isinstance(value, float) else value

    about = {k: made(v) for k, v in about.items()}
    about["gains"] = tuple(map(made, about["gains"]))
    # the influence of the harm is 0 before, so that the share has that of the harm after
    return court_rule.Effects(
        before=Estimate(1.0, np.zeros(1000)), after=made(float(share)), **about
    )


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (-0.5, "over-shoots"),
        (-0.2, "removes"),
        (0.2, "removes"),
        (0.5, "reduces"),
        (1.0, "leaves"),
        (1.6, "worsens"),
        (0.26, "reduces or removes"),
        (0.24, "removes or reduces"),
        (1.24, "leaves or worsens"),
    ],
)
def test_the_first_word_follows_the_share_that_is_left(share, word):
    found = court_rule.verdict(effects(share), np.arange(1000))
    assert found.removes == word and found.invents == court_rule.NO_PLACEBO


@pytest.mark.parametrize(
    ("others", "costs", "invents", "down"),
    [
        ({}, "", "", ""),
        ({"order": -0.06}, "AUC", "", ""),
        ({"order": -0.03}, "perhaps AUC", "", ""),
        ({"order": -0.01}, "perhaps AUC", "", ""),
        ({"order": 0.01}, "", "", ""),
        ({"worst_order": -0.06, "decides": True}, "accuracy in the worse group", "", ""),
        ({"brier": 0.04}, "Brier score", "", ""),
        ({"new_harm": -0.1}, "", "a gap", ""),
        ({"new_harm": 0.1}, "", "a gap", ""),
        ({"new_harm": 0.06}, "", "perhaps a gap", ""),
        ({"new_order": -0.06}, "", "a loss of AUC", ""),
        ({"gains": (0.02, -0.2)}, "", "", "levels down"),
        ({"gains": (0.06, -0.2)}, "", "", "perhaps levels down"),
        ({"gains": (0.2, -0.2)}, "", "", ""),
    ],
)
def test_the_other_words_follow_the_intervals(others, costs, invents, down):
    others = {"new_harm": 0.0, "order": 0.03, "worst_order": 0.03} | others
    found = court_rule.verdict(effects(0.1, **others), np.arange(1000))
    assert (found.costs, found.invents, found.levels_down) == (costs, invents, down)


@pytest.mark.parametrize(
    ("share", "down"), [(0.4, "levels down"), (0.74, "perhaps levels down"), (0.9, "")]
)
def test_only_who_surely_closes_a_gap_surely_levels_down(share, down):
    found = court_rule.verdict(effects(share, gains=(0.02, -0.2)), np.arange(1000))
    assert found.levels_down == down


def test_where_there_is_no_harm_there_is_none_to_remove(case):
    same = replace(case, biased=case.clean)
    assert verdict(same, court.nothing).removes == court_rule.NO_HARM


def test_a_remedy_that_sees_test_patients_is_refused(case):
    test = case.biased.test
    seen = np.unique(test.patient)[:3]
    leak = test.rows(np.isin(test.patient, seen))
    both = (case.biased.fitting, case.biased.tuning)
    for part, known, word in zip(("fitting", "tuning"), both, ("fitted", "tuned"), strict=True):
        joined = Films(
            *(
                np.concatenate([getattr(known, f), getattr(leak, f)])
                for f in ("images", "truth", "group", "patient")
            )
        )
        leaky = replace(case, biased=replace(case.biased, **{part: joined}))
        with pytest.raises(ValueError, match=f"{word} on 3 patients of the test"):
            court.try_(leaky, court.NOTHING)


def test_a_remedy_that_does_not_apply_says_why(case):
    def needs_twins(question, fitting):
        raise Lacks("nobody has twins of these films")

    found = court.trials([case], {"oracle": Remedy(needs_twins, "images", oracle=True)})
    assert court.verdict(case, found["planted", "oracle"]) == (
        "does not apply: nobody has twins of these films"
    )


def test_results_carry_intervals_and_counts(case):
    found = court.try_(case, Remedy(halved, "decisions"))
    table = court.results(case, "halved", found).set_index(["metric", "group"])
    share = table.loc["share_left", "all"]
    ends = interval(found.share_left, case.units)
    assert (share["ci_low"], share["ci_high"]) == pytest.approx(ends)
    counted = share[["n", "n_patients", "unit", "method"]].tolist()
    assert counted == [1000, 500, "patient", "halved"]
    assert share["n_positive"] == case.biased.test.truth.sum(0).min()


def test_the_remedy_of_the_chapter_can_be_pasted_and_tried(case):
    chapter = Path(court.__file__).parents[2] / "chapters" / "24_court.py"
    cells = chapter.read_text().split("\n# %%")
    code = next(cell for cell in cells if "def mine(" in cell)
    shown = []
    given = {"ask": ask, "Remedy": Remedy, "court": court, "pd": pd, "np": np}
    given |= {"cases": [case], "of_bias": {"planted": case}, "show": shown.append}
    exec(code, given)
    films = case.biased.fitting
    margins = given["mine"](case.biased.question, films)(films)
    for k in (0, 1):
        of = [margins[(films.group == g) & ~films.truth[:, k], k].mean() for g in GROUPS]
        assert of[0] == pytest.approx(of[1])
    dealt = "np.random.default_rng(0).permutation(fitting.group)"  # the first exercise
    exec(code.replace("fitting.group", dealt), given)
    assert all(table["verdict"].iloc[0].startswith("leaves") for table in shown)
    assert len(shown) == 2

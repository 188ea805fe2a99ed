"""New last layers and decisions by group: against other libraries, and on planted cases."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cxrlib.core.errors import Lacks
from cxrlib.predict.remedies import KNOWN, cells, decisions, heads
from cxrlib.predict.remedies.remedy import Films, Question, ask

FINDINGS, GROUPS = ("Pneumothorax", "Edema"), ("F", "M")
HEADS = [name for name, remedy in KNOWN.items() if remedy.works_on == "head"]
DECISIONS = [name for name, remedy in KNOWN.items() if remedy.works_on == "decisions"]


def drawn(n, seed, noise=0.5):
    """Films of 8 numbers: the first two show the findings, less of women; the third the group,
    which goes with the first finding in 9 of 10 films.
    """
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 2)) < (0.4, 0.2)
    first = np.where(rng.random(n) < 0.9, truth[:, 0], ~truth[:, 0])
    x = noise * rng.normal(size=(n, 8)) + 1.0
    x[:, :2] += truth * np.where(first, 0.6, 0.9)[:, None]
    x[:, 2] += 1.5 * first
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Films(x, truth, np.where(first, *GROUPS), rng.integers(0, n // 2, n))


@pytest.fixture(scope="module")
def fitting():
    return drawn(1200, 1)


@pytest.fixture(scope="module")
def test_films():
    return drawn(900, 2)


@pytest.fixture(scope="module")
def question():
    prompts = np.eye(8)[:2]
    words = (("a woman",), ("a man",))

    def encode(texts):
        vectors = np.array([np.roll([1.0, 0.5, 0.2, 0, 0, 0, 0, 0], len(t) % 8) for t in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    twins = np.eye(8)[[0, 1]], np.eye(8)[[2, 1]]
    about = ("sex", GROUPS, words, encode, twins)
    return Question(FINDINGS, prompts, -prompts[::-1], 10.0, *about)


def standard(films, fitting):
    return StandardScaler().fit(fitting.images).transform(films.images)


def by_hand(fitting, films, k, weight=None, rows=None):
    """Margins of one finding by a scikit-learn fit, and its layer."""
    rows = np.arange(len(fitting)) if rows is None else rows
    weight = None if weight is None else weight[rows]
    model = LogisticRegression(C=heads.C, max_iter=1000)
    model.fit(standard(fitting, fitting)[rows], fitting.truth[rows, k], weight)
    return model.decision_function(standard(films, fitting))


def test_plain_head_is_a_logistic_regression(question, fitting, test_films):
    margins = heads.plain_head(question, fitting)(test_films)
    for k in range(2):
        np.testing.assert_allclose(margins[:, k], by_hand(fitting, test_films, k), atol=1e-6)


def test_reweighing_is_the_weighted_fit_and_makes_group_and_finding_independent(
    question, fitting, test_films, monkeypatch
):
    used = []
    fit = heads.logistic
    monkeypatch.setattr(heads, "logistic", lambda x, y, w: (used.append(w), fit(x, y, w))[1])
    margins = heads.reweighing(question, fitting)(test_films)
    women = fitting.group == "F"
    for k, weight in enumerate(used):
        ill = fitting.truth[:, k]
        expected = np.empty(len(ill))
        for g in (women, ~women):
            for y in (ill, ~ill):
                expected[g & y] = g.mean() * y.mean() / (g & y).mean()
        np.testing.assert_allclose(weight, expected)
        in_women, in_men = (weight[g & ill].sum() / weight[g].sum() for g in (women, ~women))
        assert in_women == pytest.approx(in_men) == ill.mean()
        by_sklearn = by_hand(fitting, test_films, k, expected)
        np.testing.assert_allclose(margins[:, k], by_sklearn, atol=1e-6)
    assert fitting.truth[women, 0].mean() > fitting.truth[~women, 0].mean() + 0.5


def test_balanced_head_is_the_mean_of_fits_on_balanced_draws(question, fitting, test_films):
    margins = heads.balanced_head(question, fitting)(test_films)
    cell = cells.of(question, fitting)
    for k in range(2):
        draws = [heads.balanced(cell[:, k], seed) for seed in range(heads.DRAWS)]
        for rows in draws:
            size = min(
                (fitting.truth[:, k] == y)[fitting.group == g].sum() for g in GROUPS for y in (0, 1)
            )
            assert len(set(rows)) == len(rows) == 4 * size
            for g in GROUPS:
                of_group = fitting.truth[rows, k][fitting.group[rows] == g]
                assert of_group.sum() == size == (~of_group).sum()
        assert len({tuple(sorted(rows)) for rows in draws}) == heads.DRAWS
        expected = np.mean([by_hand(fitting, test_films, k, rows=rows) for rows in draws], axis=0)
        np.testing.assert_allclose(margins[:, k], expected, atol=1e-6)


def losses(margin, films, k):
    """Mean log loss of each group and label."""
    y = films.truth[:, k]
    each = np.logaddexp(0, np.where(y, -margin, margin))
    return np.array(
        [each[(films.group == g) & (y == label)].mean() for g in GROUPS for label in (0, 1)]
    )


def test_group_dro_is_the_least_worst_loss(question, fitting):
    plain = heads.plain_head(question, fitting)(fitting)
    robust = heads.group_dro(question, fitting)(fitting)
    x, n = standard(fitting, fitting), len(fitting)
    for k in range(2):
        worst = losses(robust[:, k], fitting, k).max()
        assert worst < losses(plain[:, k], fitting, k).max() - 0.05

        # least t such that each cell's loss and the penalty are at most t, by another method
        def cost(layer):
            return (layer[:-1] ** 2).sum() / (2 * heads.C * n)

        def slack(v, k=k):
            return v[-1] - losses(x @ v[:-2] + v[-2], fitting, k)

        start = np.append(np.zeros(9), 1.0)
        found = minimize(
            lambda v: v[-1] + cost(v[:-1]),
            start,
            method="SLSQP",
            constraints={"type": "ineq", "fun": slack},
            options={"maxiter": 300, "ftol": 1e-9},
        )
        layer = np.linalg.lstsq(np.column_stack([x, np.ones(n)]), robust[:, k], rcond=None)[0]
        assert found.success
        assert worst + cost(layer) == pytest.approx(found.fun, abs=1.5 * heads.CLOSE)


def worst_accuracy(margin, films, k):
    right = (margin[:, k] > 0) == films.truth[:, k]
    return min(
        right[(films.group == g) & (films.truth[:, k] == y)].mean() for g in GROUPS for y in (0, 1)
    )


def test_just_train_twice_counts_more_what_was_wrong(question, fitting, test_films):
    margins = heads.just_train_twice(question, fitting)(test_films)
    for k in range(2):
        wrong = (by_hand(fitting, fitting, k) > 0) != fitting.truth[:, k]
        apart = [
            np.abs(by_hand(fitting, test_films, k, np.where(wrong, f, 1.0)) - margins[:, k]).max()
            for f in heads.FACTORS
        ]
        assert min(apart) < 1e-6


def test_just_train_twice_helps_those_whom_a_shortcut_fails(question):
    """Where films are clear, so that what is got wrong is what the shortcut gets wrong."""
    clear, others = drawn(1200, 1, noise=0.15), drawn(900, 2, noise=0.15)
    before, after = (
        fit(question, clear)(others) for fit in (heads.plain_head, heads.just_train_twice)
    )
    assert worst_accuracy(after, others, 0) > worst_accuracy(before, others, 0) + 0.1
    shift = moved_by_shortcut(heads.just_train_twice, question, clear, others)
    assert shift < 0.6 * moved_by_shortcut(heads.plain_head, question, clear, others)


def moved_by_shortcut(fit, question, fitting, films):
    """How far the shortcut alone moves the margins of the first finding, in their SD."""
    answer = fit(question, fitting)
    more = films.images + 0.1 * np.eye(8)[2]
    by = answer(replace(films, images=more)) - answer(films)
    return by[:, 0].mean() / answer(films)[:, 0].std()


@pytest.mark.parametrize("name", ["reweighing", "group-balanced head", "GroupDRO head"])
def test_heads_that_know_the_groups_leave_the_shortcut(name, question, fitting, test_films):
    plain = moved_by_shortcut(heads.plain_head, question, fitting, test_films)
    assert moved_by_shortcut(KNOWN[name].fit, question, fitting, test_films) < 0.5 * plain


def test_group_thresholds_leave_the_same_share_of_healthy_alone(question, fitting):
    answer = decisions.group_thresholds(question, fitting)(fitting)
    for g in GROUPS:
        for k in range(2):
            healthy = answer[(fitting.group == g) & ~fitting.truth[:, k], k]
            share = (healthy > 0).mean()
            assert share == pytest.approx(1 - decisions.SPECIFICITY, abs=1 / len(healthy))


def test_equalised_odds_is_fairlearn_and_the_odds_are_equal(question, fitting, test_films):
    from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
    from fairlearn.postprocessing import ThresholdOptimizer

    class Same(LogisticRegression):
        def predict(self, x):
            return x[:, 0]

    answer = decisions.equalised_odds(question, fitting)
    on_fitted, on_test = answer(fitting), answer(test_films)
    assert ((on_fitted >= 0) & (on_fitted <= 1)).all()
    for k in range(2):
        of_fitted, of_test = (ask(question, f)[:, [k]] for f in (fitting, test_films))
        rule = ThresholdOptimizer(
            estimator=Same().fit(of_fitted, fitting.truth[:, k]),
            constraints="equalized_odds",
            objective="balanced_accuracy_score",
            prefit=True,
            predict_method="predict",
        ).fit(of_fitted, fitting.truth[:, k], sensitive_features=fitting.group)
        # lots drawn by the library itself, 400 for each film
        many, group = np.repeat(of_test, 400, axis=0), np.repeat(test_films.group, 400)
        lots = rule.predict(many, sensitive_features=group, random_state=0).reshape(-1, 400)
        np.testing.assert_allclose(on_test[:, k], lots.mean(axis=1), atol=0.12)
        assert on_test[:, k].mean() == pytest.approx(lots.mean(), abs=0.005)
        for label in (True, False):
            shares = [
                on_fitted[(fitting.group == g) & (fitting.truth[:, k] == label), k].mean()
                for g in GROUPS
            ]
            assert shares[0] == pytest.approx(shares[1], abs=1e-9)
        now = ask(question, fitting)[:, k] > np.median(of_fitted)
        rates = {"tpr": true_positive_rate, "fpr": false_positive_rate}
        gap = MetricFrame(
            metrics=rates, y_true=fitting.truth[:, k], y_pred=now, sensitive_features=fitting.group
        ).difference()
        assert gap.max() > 0.05  # which they were not before


def test_group_recalibration_is_a_logistic_regression_in_each_group(question, fitting, test_films):
    answer = decisions.group_recalibration(question, fitting)(test_films)
    for g in GROUPS:
        of, on = fitting.rows(fitting.group == g), test_films.rows(test_films.group == g)
        for k in range(2):
            model = LogisticRegression(C=np.inf, tol=1e-8)
            model.fit(ask(question, of)[:, [k]], of.truth[:, k])
            expected = model.decision_function(ask(question, on)[:, [k]])
            np.testing.assert_allclose(answer[test_films.group == g, k], expected, atol=1e-3)
            p = 1 / (1 + np.exp(-decisions.group_recalibration(question, fitting)(of)[:, k]))
            assert p.mean() == pytest.approx(of.truth[:, k].mean(), abs=1e-3)


@pytest.mark.parametrize("name", ["group thresholds", "group recalibration"])
def test_order_within_a_group_stays(name, question, fitting, test_films):
    before, after = ask(question, test_films), KNOWN[name].fit(question, fitting)(test_films)
    for g in GROUPS:
        rows = test_films.group == g
        np.testing.assert_array_equal(before[rows].argsort(0), after[rows].argsort(0))


@pytest.mark.parametrize("name", KNOWN)
def test_no_answer_looks_at_the_truth_of_test_films(name, question, fitting, test_films):
    answer = KNOWN[name].fit(question, fitting)
    expected = answer(test_films)
    blind = answer(replace(test_films, truth=None))
    np.testing.assert_array_equal(blind, expected)
    turned = answer(replace(test_films, truth=~test_films.truth))
    np.testing.assert_array_equal(turned, expected)
    assert expected.shape == (len(test_films), 2)


@pytest.mark.parametrize("name", [*HEADS, *DECISIONS])
def test_a_group_without_a_finding_is_named(name, question, fitting):
    some = fitting.rows((fitting.group == "M") | ~fitting.truth[:, 1])
    with pytest.raises(Lacks, match=r"no film of group 'F' with Edema to fit on: .* are needed"):
        KNOWN[name].fit(question, some)


@pytest.mark.parametrize("name", DECISIONS)
def test_films_of_another_group_are_not_decided_on(name, question, fitting, test_films):
    answer = KNOWN[name].fit(question, fitting)
    group = test_films.group.copy()
    group[:3] = "X"
    with pytest.raises(
        Lacks, match="3 films of sex 'X': fitted are F and M; leave those films out"
    ):
        answer(replace(test_films, group=group))

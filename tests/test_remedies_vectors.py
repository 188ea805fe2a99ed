"""Remedies on texts and on image vectors, against independent references and planted truths."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cxrlib.core.errors import Lacks
from cxrlib.embed.extract import loaded
from cxrlib.predict import prompts
from cxrlib.predict.remedies import images, texts
from cxrlib.predict.remedies.remedy import Films, Question, ask
from cxrlib.stats import influence

D = 12
FINDINGS = ("Pneumothorax", "Edema")
WORDS = (("drain", "tube"), ("without drain", "no tube"))
AIR, WATER, DRAIN = np.eye(D)[:3]  # directions of the planted world
DRAIN_SEEN = (DRAIN + 0.8 * AIR) / 2  # a drain looks somewhat like the air that it treats


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def told(text):
    """A vector for a text, the same whenever it is asked."""
    return unit(np.random.default_rng(list(text.encode())).normal(size=D))


def encode(texts):
    return np.stack([told(text) for text in texts])


@pytest.fixture(scope="module")
def question():
    positive, negative = encode(FINDINGS), encode(["no finding"] * 2)
    groups, scale = ("drain", "none"), 10.0
    return Question(FINDINGS, positive, negative, scale, "drain", groups, WORDS, encode)


@pytest.fixture(scope="module")
def films():
    """Half of the films with pneumothorax have a drain, and one in ten of the others."""
    rng = np.random.default_rng(7)
    truth = rng.random((3000, 2)) < 0.3
    drain = rng.random(3000) < np.where(truth[:, 0], 0.5, 0.1)
    seen = truth @ [AIR, WATER] + drain[:, None] * DRAIN_SEEN
    vectors = 3 + seen + rng.normal(0, 0.5, (3000, D)) @ np.diag(1 + np.arange(D) / D)
    return Films(vectors / 10, truth, np.where(drain, "drain", "none"), np.arange(3000))


def vectors_asked(question):
    """The question whose answers are the vectors themselves."""
    return replace(question, positive=np.eye(D), negative=np.zeros((D, D)), scale=1.0)


def prompts_used(answer, question):
    """What a remedy on texts asks in the end: positive minus negative vectors (k, d)."""
    every = Films(np.eye(D), np.zeros((D, 2), bool), np.full(D, "none"), np.arange(D))
    return answer(every).T / question.scale


def groups(films):
    return films.images[films.group == "drain"], films.images[films.group == "none"]


def test_the_span_of_the_words_is_gone_from_the_prompts_and_stays_gone(question, films):
    answer = texts.orthogonal_projection(question, films)
    attribute = encode(WORDS[0] + WORDS[1])
    basis = np.linalg.qr(attribute.T)[0]
    sides = [side - side @ basis @ basis.T for side in (question.positive, question.negative)]
    used = prompts_used(answer, question)
    np.testing.assert_allclose(used, unit(sides[0]) - unit(sides[1]), atol=1e-9)
    np.testing.assert_allclose(attribute @ used.T, 0, atol=1e-9)
    again = replace(question, positive=unit(sides[0]), negative=unit(sides[1]))
    twice = prompts_used(texts.orthogonal_projection(again, films), question)
    np.testing.assert_allclose(twice, used, atol=1e-9)


def test_the_calibrated_projection_minimises_what_its_docstring_says(question, films):
    basis = np.linalg.qr(encode(WORDS[0] + WORDS[1]).T)[0]
    first = np.eye(D) - basis @ basis.T
    pairs = [(f"{a}, {f}", f"{b}, {f}") for f, a, b in product(FINDINGS, *WORDS)]
    apart = np.stack([told(a) - told(b) for a, b in pairs])
    # row by row of P: |p - p0|^2 + lambda / pairs |apart p|^2, as ordinary least squares
    weighted = np.sqrt(texts.LAMBDA / len(pairs)) * apart
    rows = np.vstack([np.eye(D), weighted])
    goal = np.vstack([first.T, np.zeros((len(pairs), D))])
    best = np.linalg.lstsq(rows, goal, rcond=None)[0].T
    sides = [unit(side @ best.T) for side in (question.positive, question.negative)]
    used = prompts_used(texts.calibrated_projection(question, films), question)
    np.testing.assert_allclose(used, sides[0] - sides[1], atol=1e-7)


def test_words_that_a_model_does_not_know_are_named(question, films):
    model = loaded("phantom-resnet")
    words = (("Chest of a woman",), ("Chest of a man",))
    asked = replace(question, prompts=words, encode=lambda t: model.encode_text(t).numpy())
    for remedy in (texts.orthogonal_projection, texts.calibrated_projection):
        with pytest.raises(Lacks, match="one vector for all of these words: Chest of a woman and"):
            remedy(asked, films)


def test_a_prompt_within_the_span_of_the_words_has_nothing_left(question, films):
    asked = replace(question, negative=encode(["drain", "drain"]))
    with pytest.raises(Lacks, match="nothing is left of the negative prompt for Pneumothorax"):
        texts.orthogonal_projection(asked, films)


def test_wordings_are_chosen_by_the_worst_of_four_areas(question, films):
    """All wordings but two look at the drain."""
    films = films.rows(np.arange(700))
    good = ("Chest", "Findings suggesting")

    def reads(text):
        blind = text.startswith(good)
        finding = sum(v * (f in text) for v, f in zip((AIR, WATER), FINDINGS, strict=True))
        side = -1 if text.lower().startswith(("no", "there is no")) else 1
        return unit(side * finding + (0 if blind else 0.8) * side * DRAIN + 0.1 * told(text[:9]))

    asked = replace(question, encode=lambda texts: np.stack([reads(t) for t in texts]))
    used = prompts_used(texts.averaged_wordings(asked, films), question)

    def worst(direction, k):
        score, ill = films.images @ direction, films.truth[:, k]
        cells = (
            np.where(ill, films.group == g, films.group == h)
            for g, h in product(question.groups, question.groups)
        )
        return min(roc_auc_score(ill[cell], score[cell]) for cell in cells)

    for k, finding in enumerate(FINDINGS):
        yes, no = (
            [reads(p.text.format(label=finding)) for p in side]
            for side in (prompts.POSITIVE, prompts.NEGATIVE)
        )
        each = [a - b for a, b in product(yes, no)]
        order = sorted(range(len(each)), key=lambda i: -worst(each[i], k))
        means = [np.mean([each[i] for i in order[:n]], axis=0) for n in (1, 2, 4, 8, 16, 32)]
        best = max(means, key=lambda mean: worst(mean, k))
        np.testing.assert_allclose(used[k], best, atol=1e-9)
    every = np.mean([a - b for a, b in product(yes, no)], axis=0)
    assert abs(used[1] @ DRAIN) < abs(every @ DRAIN) / 2


@pytest.mark.parametrize("remedy", [images.mean_difference, images.leace])
def test_erased_groups_have_one_mean_and_no_probe_tells_them_apart(question, films, remedy):
    answer = remedy(vectors_asked(question), films)
    left = replace(films, images=answer(films))
    one, other = groups(left)
    np.testing.assert_allclose(one.mean(0), other.mean(0), atol=1e-9)
    truth = films.group == "drain"
    before, after = (
        influence.auc(truth, LogisticRegression(C=1e3).fit(x, truth).decision_function(x))
        for x in (films.images, left.images)
    )
    assert influence.interval(before, films.patient)[0] > 0.7
    low, high = influence.interval(after, films.patient)
    assert low < 0.5 < high
    margins = remedy(question, films)(films)
    by_group = [margins[films.group == g].mean(0) for g in question.groups]
    np.testing.assert_allclose(*by_group, atol=1e-9)


def test_leace_is_that_of_its_authors(question, films):
    from concept_erasure import LeaceFitter

    fitter = LeaceFitter(D, 1, dtype=torch.float64)
    for part in np.array_split(np.arange(len(films)), 3):  # in batches, as they advise
        group = torch.tensor(films.group[part] == "drain").double()
        fitter.update(torch.tensor(films.images[part]), group)
    theirs = fitter.eraser(torch.tensor(films.images)).numpy()
    ours = images.leace(vectors_asked(question), films)(films)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_within_labels_a_group_has_no_part_of_its_own_and_one_map_is_for_all(question, films):
    answer = images.leace_within_labels(vectors_asked(question), films)
    left = answer(films)
    rows = np.column_stack([films.group == "drain", films.truth, np.ones(len(films))])
    np.testing.assert_allclose(np.linalg.lstsq(rows, left, rcond=None)[0][0], 0, atol=1e-9)
    one, other = groups(replace(films, images=left))
    assert np.abs(one.mean(0) - other.mean(0)).max() > 0.01  # more of them are ill
    unseen = films.rows(np.arange(3))
    other_labels = replace(unseen, truth=~unseen.truth, group=unseen.group[::-1])
    np.testing.assert_array_equal(answer(unseen), answer(other_labels))


def test_twins_answer_alike_once_their_direction_is_out(question, films):
    few = films.rows(films.group == "none").images[:400]
    asked = replace(question, twins=(few, few + DRAIN_SEEN / 10))
    test = films.rows(np.arange(2000, 3000))
    with_drain = replace(test, images=test.images + DRAIN_SEEN / 10)
    assert np.abs(ask(question, with_drain) - ask(question, test)).max() > 0.1
    answer = images.twin_direction(asked, films)
    np.testing.assert_allclose(answer(with_drain), answer(test), atol=1e-9)


def test_leace_invents_a_shortcut_where_illness_and_group_go_together(question, films):
    """A score that looks at air alone, in a world where a drain does not look like air."""
    clean = replace(films, images=films.images - (films.group == "drain")[:, None] * 0.04 * AIR)
    asked = replace(question, positive=np.stack([AIR, WATER]), negative=np.zeros((2, D)), scale=1)
    added = replace(clean, images=clean.images + DRAIN / 20)
    spread = clean.images[~clean.truth[:, 0]] @ AIR

    def shift(remedy):
        answer = remedy(asked, clean)
        return (answer(added) - answer(clean))[:, 0].mean() / spread.std()

    assert shift(lambda q, fitted: lambda films: ask(q, films)) == pytest.approx(0)
    assert shift(images.leace) < -0.2
    assert abs(shift(images.leace_within_labels)) < 0.05


ON_GROUPS = (images.mean_difference, images.leace, images.leace_within_labels)


@pytest.mark.parametrize("remedy", ON_GROUPS)
def test_groups_that_cannot_be_compared_are_named(question, films, remedy):
    alone = replace(films, group=np.where(films.patient == 5, "drain", "none"))
    with pytest.raises(Lacks, match="by drain: 1 drain, 2999 none; expected 2 or more of each"):
        remedy(question, alone)
    twice = films.rows(np.tile(np.arange(50), 2))
    alike = replace(twice, group=np.repeat(["drain", "none"], 50))
    with pytest.raises(Lacks, match="both groups have one mean vector"):
        remedy(question, alike)


def test_what_cannot_be_applied_says_why(question, films):
    with pytest.raises(Lacks, match="no twins of the fitting films that differ in drain alone"):
        images.twin_direction(question, films)
    few = films.images[:50]
    with pytest.raises(Lacks, match="no difference between the groups"):
        images.twin_direction(replace(question, twins=(few, few)), films)
    healthy = replace(films, truth=np.zeros_like(films.truth))
    with pytest.raises(Lacks, match="0 of 3000 with Pneumothorax"):
        texts.averaged_wordings(question, healthy)

"""From a loaded model to probabilities: similarities, prompts, ensembles, and a chapter."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlib import cohorts, models, schema
from cxrlib.book.chapters import find
from cxrlib.book.run import run
from cxrlib.core.kernel import SAID
from cxrlib.embed.extract import embed, embed_text
from cxrlib.models import phantom_clip, seeded
from cxrlib.models.encoder import Encoder, Tokens
from cxrlib.models.loading import Ensemble
from cxrlib.papers import published
from cxrlib.predict import prompts, zeroshot
from cxrlib.predict.zeroshot import predict, similarity
from cxrlib.protocol import protocol_of
from cxrlib.show.notebook import keep, kept, warn_if_seeded
from tests.conftest import ROOT

LABELS = ("Edema", "Pleural Effusion")
SEEDED = "seeded:medclip_vit"


class Tiny(nn.Module):
    """Two encoders of a few numbers; texts are averaged over padding too, as MedCLIP does."""

    def __init__(self, seed=0, width=6):
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(1000, width)
        self.pixels = nn.Linear(3, width)
        self.batches = []

    def encode_image(self, batch):
        self.batches.append(len(batch))
        return self.pixels(torch.stack([batch[:, 0, k, k] for k in (20, 30, 40)], dim=1))

    def encode_text(self, ids, mask):
        return self.words(ids).mean(dim=1)


def tokenize(texts):
    rows = [[1 + sum(map(ord, word)) % 999 for word in text.split()] for text in texts]
    ids = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
    return Tokens(ids, (ids > 0).long())


def tiny(seed=0, **changes) -> Encoder:
    about = {"network": Tiny(seed).eval(), "preprocess": phantom_clip.preprocess}
    about |= {"name": "tiny", "tokenizer": tokenize, "card": {"image_size": 64}, "code": ()}
    return Encoder(**(about | {"weights": f"{seed}", "logit_scale": 7.0} | changes))


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=40)


def scores(cohort, model, **options):
    """One row per film, one column per label."""
    found = predict(cohort, [model], LABELS, cache=False, **options)
    wide = found.pivot(index="image_id", columns="label", values="score")
    return wide.loc[cohort.table["image_id"], list(LABELS)].to_numpy()


def by_hand(cohort, model, pairs, scale):
    """The softmax over two similarities, film by film; `pairs` holds two text vectors a label."""
    images = model.network.encode_image(model.preprocess(cohort.images(np.arange(40))))
    rows = []
    for image in images.detach().double():
        logits = [scale * (texts.double() @ (image / image.norm())) for texts in pairs]
        rows.append([torch.softmax(two, dim=0)[0].item() for two in logits])
    return np.array(rows)


def vectors(model, texts):
    """Text vectors of one call, not normalised."""
    return model.network.encode_text(*tokenize(texts)).detach()


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


# --- similarity ------------------------------------------------------------------------------


def test_similarity_is_the_cosine():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    expected = [[x @ y / np.sqrt((x @ x) * (y @ y)) for y in b] for x in a]
    unit_a, unit_b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    np.testing.assert_allclose(similarity(unit_a, unit_b), expected, atol=1e-12)
    lengths = np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(similarity(unit_a, b, unit_text=False), expected * lengths)
    # half precision leaves unit vectors off by less than is tolerated
    half = unit_a.astype(np.float16)
    np.testing.assert_allclose(similarity(half, unit_b), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("spoil", "unit_text", "words"),
    [
        (
            lambda a, b: (a * [[1], [1.002], [3]], b),
            True,
            ["images: row 1 has length 1.002 (2 of 3"],
        ),
        (lambda a, b: (a, b * 0.9), True, ["texts: row 0 has length 0.9 (2 of 2", "divide each"]),
        (lambda a, b: (2 * a, b), False, ["images: row 0 has length 2"]),
        (lambda a, b: (a * [[1], [np.nan], [1]], b), True, ["images: row 1 has length nan"]),
        (lambda a, b: (a, b + np.array([[0], [np.inf]])), False, ["texts: row 1 has length inf"]),
        (lambda a, b: (a[0], b), True, ["shape (4,)", "expected (n, d)"]),
        (lambda a, b: (a[:, :3], b), True, ["(3, 3)", "(2, 4)", "by one model"]),
    ],
)
def test_what_is_not_of_unit_length_is_refused(spoil, unit_text, words):
    with pytest.raises(ValueError) as caught:
        similarity(*spoil(np.eye(4)[:3], np.eye(4)[2:]), unit_text)
    assert all(word in str(caught.value) for word in words)


# --- prompts ---------------------------------------------------------------------------------


def test_the_two_prompts_of_a_label_are_encoded_together(cohort):
    model, positive, negative = tiny(), "signs of {label}", "Chest No Findings"
    prompts = [[positive.format(label=label), negative] for label in LABELS]
    found = scores(cohort, model, positive=positive, negative=negative)
    pairs = [unit(vectors(model, two)) for two in prompts]
    np.testing.assert_allclose(found, by_hand(cohort, model, pairs, 7), atol=1e-6)
    # one call for all labels would pad "signs of Edema" to another length, a call a text to none
    together = unit(vectors(model, [*(p for p, _ in prompts), negative]))
    others = [together[[0, 2]], together[[1, 2]]]
    alone = [unit(torch.cat([vectors(model, [p]) for p in two])) for two in prompts]
    for wrong in (others, alone):
        assert np.abs(found - by_hand(cohort, model, wrong, 7)).max() > 1e-3
    model = tiny(one_by_one=True)
    found = scores(cohort, model, positive=positive, negative=negative)
    np.testing.assert_allclose(found, by_hand(cohort, model, alone, 7), atol=1e-6)


@pytest.mark.parametrize("average", ["unit", "raw"])
def test_several_prompts_are_averaged_as_the_authors_do(cohort, average):
    positive, negative = ["{label}", "signs of {label} there"], ["clear lungs", "no {label}"]
    model = tiny(average=average)

    def mean(wordings, label):
        raw = vectors(model, [w.format(label=label) for w in wordings])
        return unit((unit(raw) if average == "unit" else raw).mean(dim=0))

    pairs = [torch.stack([mean(positive, x), mean(negative, x)]) for x in LABELS]
    found = scores(cohort, model, positive=positive, negative=tuple(negative))
    np.testing.assert_allclose(found, by_hand(cohort, model, pairs, 7), atol=1e-6)
    # one against several
    pairs = [torch.stack([unit(vectors(model, [x]))[0], mean(negative, x)]) for x in LABELS]
    found = scores(cohort, model, positive="{label}", negative=negative)
    np.testing.assert_allclose(found, by_hand(cohort, model, pairs, 7), atol=1e-6)


def test_the_length_of_texts_counts_where_the_protocol_leaves_it(cohort):
    model = tiny(unit_text=False, logit_scale=1.0)
    pairs = [vectors(model, [f"Chest {label}", "Chest No Findings"]) for label in LABELS]
    found = scores(cohort, model)
    np.testing.assert_allclose(found, by_hand(cohort, model, pairs, 1), atol=1e-6)
    assert np.abs(found - scores(cohort, tiny(logit_scale=1.0))).max() > 1e-3
    # several prompts stay at the length of their mean, so that both sides are alike
    means = [
        torch.stack([vectors(model, [x, f"a {x}"]).mean(dim=0), vectors(model, ["none"])[0]])
        for x in LABELS
    ]
    found = scores(cohort, model, positive=["{label}", "a {label}"], negative="none")
    np.testing.assert_allclose(found, by_hand(cohort, model, means, 1), atol=1e-6)


def test_no_prompt_is_refused(cohort):
    with pytest.raises(ValueError, match="no prompt: expected a text"):
        scores(cohort, tiny(), positive=[])


# --- many pairs at once ----------------------------------------------------------------------


class Masked(Tiny):
    """As Tiny, but padding counts for nothing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.texts = []

    def encode_text(self, ids, mask):
        self.texts += [tuple(row[row > 0].tolist()) for row in ids]
        weight = mask[:, :, None].float()
        return (self.words(ids) * weight).sum(dim=1) / weight.sum(dim=1)


MANY = ["{label}", "signs of {label} there"]
PAIRS = [
    ("Chest {label}", "Chest No Findings"),
    ("{label}", "no {label}"),
    ("a photo of a {label}.", "no {label}"),
    ("{label}", ["clear lungs", "no {label}", "Chest No Findings"]),
    (MANY, ["clear lungs", "no {label}"]),
]


@pytest.mark.parametrize(
    "changes",
    [
        {"network": Masked().eval()},
        {"network": Masked().eval(), "average": "raw"},
        {"network": Masked().eval(), "unit_text": False, "logit_scale": 1.0},
        {"network": Masked().eval(), "unit_text": False, "average": "raw", "logit_scale": 1.0},
        {"one_by_one": True},
        {},  # padding matters: the two sides of a pair are encoded together
    ],
)
def test_the_scores_of_every_pair_are_those_of_the_pair_by_itself(cohort, changes):
    """Each probability in plain torch, from texts encoded for this pair and label alone."""
    model = tiny(**changes)
    found = zeroshot.pair_scores(cohort, model, LABELS, PAIRS, cache=False)
    assert found.shape == (2, 5, 40)

    def side(texts):
        each = model.encode_text(texts, raw=True)
        if model.unit_text and model.average == "unit":
            each = unit(each)
        return unit(each.mean(dim=0)) if model.unit_text else each.mean(dim=0)

    for p, pair in enumerate(PAIRS):
        several = [[x] if isinstance(x, str) else x for x in pair]
        texts = [[[t.format(label=label) for t in x] for x in several] for label in LABELS]
        if all(isinstance(x, str) for x in pair):
            expected = [model.encode_text([yes[0], no[0]]) for yes, no in texts]
        else:
            expected = [torch.stack([side(x) for x in two]) for two in texts]
        expected = by_hand(cohort, model, expected, model.logit_scale)
        np.testing.assert_allclose(found[:, p].T, expected, atol=1e-6)
        again = scores(cohort, model, positive=pair[0], negative=pair[1])
        np.testing.assert_allclose(found[:, p].T, again, atol=1e-6)


def test_each_text_of_many_pairs_is_encoded_once(cohort):
    model = tiny(network=Masked().eval())
    zeroshot.pair_scores(cohort, model, LABELS, list(prompts.pairs().values()))
    texts = {x.text.format(label=y) for y in LABELS for x in (*prompts.POSITIVE, *prompts.NEGATIVE)}
    times = [model.network.texts.count(tuple(tokenize([t]).ids[0].tolist())) for t in texts]
    # whether padding matters is found out with the shortest and the longest text
    assert sorted(times)[:-2] == [1] * (len(texts) - 2) and sum(times) == len(texts) + 3
    assert len(model.network.batches) == 1  # of images, for all pairs


def test_scores_of_pairs_follow_scale_and_ensemble(cohort):
    members = (tiny(0), tiny(1, logit_scale=40.0))
    each = [zeroshot.pair_scores(cohort, m, LABELS, PAIRS[:2]) for m in members]
    both = zeroshot.pair_scores(cohort, Ensemble("two", members), LABELS, PAIRS[:2])
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-12)
    flat = zeroshot.pair_scores(cohort, members[1], LABELS, PAIRS[:2], temperature="none")
    logit = np.log(each[1] / (1 - each[1]))
    np.testing.assert_allclose(logit, 40 * np.log(flat / (1 - flat)), rtol=1e-4, atol=1e-4)
    anything = zeroshot.pair_scores(cohort, members[0], ["a broken rib"], PAIRS[:1])
    assert anything.shape == (1, 1, 40)


@pytest.mark.parametrize("text", ["Chest {finding}", "Chest {}", "Chest {label"])
def test_another_slot_is_refused(cohort, text):
    with pytest.raises(ValueError, match=r"prompt 'Chest .*: expected \{label\} as the only slot"):
        scores(cohort, tiny(), positive=text)


# --- ensembles -------------------------------------------------------------------------------


def test_an_ensemble_averages_probabilities(cohort):
    members = (tiny(0), tiny(1, logit_scale=40.0), tiny(2))
    found = scores(cohort, Ensemble("three", members))
    each = [scores(cohort, m) for m in members]
    np.testing.assert_allclose(found, np.mean(each, axis=0))
    assert np.abs(each[0] - each[1]).max() > 0.05
    table = predict(cohort, [Ensemble("three", members), tiny()], LABELS, cache=False)
    assert table.groupby("model").size().to_dict() == {"three": 80, "tiny": 80}


@pytest.mark.parametrize("use", [lambda c, m: embed(c, m), lambda c, m: embed_text(["a"], m)])
def test_an_ensemble_has_no_embeddings_of_its_own(cohort, use):
    with pytest.raises(
        ValueError, match=r"two is an ensemble of 2 .* Take one, model.members\[0\]"
    ):
        use(cohort, Ensemble("two", (tiny(0), tiny(1))))


# --- prompt formats --------------------------------------------------------------------------

CLASSES = ("Edema", "Pleural Effusion", "Pneumothorax")


def test_both_readings_differ_by_the_learned_scale(cohort):
    model = models.load_model("phantom-resnet")
    both = zeroshot.both_readings(cohort, [model], ["Edema"], tested=cohort.table[:30])
    assert set(both["cohort"]) == {"phantom (part)"} and len(both) == 60
    wide = both.pivot(index="image_id", columns="method", values="score")
    plain, learned = (np.log(wide[m] / (1 - wide[m])) for m in ("cosine only", "learned scale"))
    np.testing.assert_allclose(learned, model.logit_scale * plain, rtol=1e-3, atol=1e-3)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Embeddings of made-up models go nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Draws in the order of the classes, as `format_scores` asks for them."""
    asked, original = {}, prompts.draw

    def draw(format, label, generator):
        texts = original(format, label, generator)
        asked.setdefault((format, label), []).append(texts)
        return texts

    monkeypatch.setattr(prompts, "draw", draw)
    return asked


def plain(cohort, model, texts_of_classes):
    """Softmax over the classes in numpy, from text vectors that are encoded one by one."""
    films = model.network.encode_image(model.preprocess(cohort.images(np.arange(40))))
    films = films.detach().double().numpy()
    films /= np.linalg.norm(films, axis=1, keepdims=True)
    columns = []
    for texts in texts_of_classes:
        each = np.stack([model.encode_text([t], raw=True)[0].double().numpy() for t in texts])
        if model.average == "unit" and model.unit_text:
            each /= np.linalg.norm(each, axis=1, keepdims=True)
        mean = each.mean(axis=0)
        columns.append(films @ (mean / np.linalg.norm(mean) if model.unit_text else mean))
    e = np.exp(model.logit_scale * np.stack(columns, axis=1))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"average": "raw"},
        {"one_by_one": True},
        {"unit_text": False, "logit_scale": 1.0},
        {"unit_text": False, "logit_scale": 1.0, "average": "raw"},
    ],
)
def test_a_draw_is_that_of_a_plain_recomputation(cohort, drawn, changes):
    model = tiny(**changes)
    found = zeroshot.format_scores(cohort, model, CLASSES, n_draws=3)
    assert {name: score.shape for name, score in found.items()} == {
        "CLIP": (1, 40, 3),
        "GLoRIA": (3, 40, 3),
        "CXR-CLIP": (3, 40, 3),
    }
    for name, score in found.items():
        for k, one in enumerate(score):
            texts = [drawn[name, label][k] for label in CLASSES]
            np.testing.assert_allclose(one, plain(cohort, model, texts), atol=1e-5)
            if not model.one_by_one:
                continue
            # the same as the model's own mean, where that does not depend on padding
            own = torch.stack([model.encode_prompts(some) for some in texts]).numpy()
            cosines = similarity(embed(cohort, model), own)
            np.testing.assert_allclose(one, zeroshot.softmax(7 * cosines), atol=1e-6)


def test_a_small_model_averages_as_its_own_prompts_do(cohort, drawn):
    model = models.load_model("phantom-vit")
    found = zeroshot.format_scores(cohort, model, CLASSES, n_draws=2)
    for name, score in found.items():
        texts = [drawn[name, label][-1] for label in CLASSES]
        own = torch.stack([model.encode_prompts(some) for some in texts]).numpy()
        expected = zeroshot.softmax(model.logit_scale * similarity(embed(cohort, model), own))
        np.testing.assert_allclose(score[-1], expected, atol=1e-4)


def test_each_text_is_encoded_once(cohort, monkeypatch):
    asked, model = [], tiny()
    monkeypatch.setattr(
        Encoder,
        "encode_text",
        lambda self, texts, raw=False: asked.extend(texts) or torch.ones(len(texts), 6) / 6**0.5,
    )
    embed(cohort, model)
    batches = len(model.network.batches)
    zeroshot.format_scores(cohort, model, CLASSES, n_draws=20)
    assert len(asked) == len(set(asked)) > 100
    assert len(model.network.batches) == batches


def test_draws_hang_on_seed_format_and_label_alone(cohort):
    base = zeroshot.format_scores(cohort, tiny(), CLASSES, n_draws=3)
    again = zeroshot.format_scores(cohort, tiny(), CLASSES, n_draws=3)
    other = zeroshot.format_scores(cohort, tiny(), CLASSES, n_draws=3, seed=1)
    fewer = zeroshot.format_scores(cohort, tiny(), CLASSES, 2, formats=["GLoRIA"])
    turned = zeroshot.format_scores(cohort, tiny(), CLASSES[::-1], n_draws=3)
    for name in prompts.FORMATS:
        np.testing.assert_array_equal(base[name], again[name])
        # permuted classes are permuted columns
        np.testing.assert_allclose(turned[name], base[name][:, :, ::-1], atol=1e-12)
        np.testing.assert_allclose(base[name].sum(axis=2), 1)
    np.testing.assert_array_equal(base["CLIP"], other["CLIP"])
    assert list(fewer) == ["GLoRIA"]
    np.testing.assert_array_equal(fewer["GLoRIA"], base["GLoRIA"][:2])
    for name in prompts.RANDOM:
        assert np.abs(base[name] - other[name]).max() > 1e-3
        assert np.abs(base[name][0] - base[name][1]).max() > 1e-3


def test_classes_are_drawn_apart(cohort, drawn):
    """Two classes of 24 sentences each: the same places in both would tie them together."""
    zeroshot.format_scores(cohort, tiny(), ["Edema", "Pneumothorax"], formats=["CXR-CLIP"])
    places = [
        [[prompts.texts("CXR-CLIP", label).index(t) for t in texts] for texts in runs]
        for (_, label), runs in drawn.items()
    ]
    assert len(places[0]) == 10 and all(a != b for a, b in zip(*places, strict=True))


def test_an_ensemble_averages_the_probabilities_of_each_draw(cohort):
    members = (tiny(0), tiny(1, logit_scale=40.0))
    found = zeroshot.format_scores(cohort, Ensemble("two", members), CLASSES, n_draws=2)
    one, two = (zeroshot.format_scores(cohort, m, CLASSES, n_draws=2) for m in members)
    for name, score in found.items():
        np.testing.assert_allclose(score, (one[name] + two[name]) / 2)


def by_answers(*draws):
    """Scores whose largest entries are the given classes, for each draw."""
    return np.eye(3)[np.array(draws)] * 0.4 + 0.2


def test_the_table_of_formats_by_hand():
    y = np.array([0, 1, 2, 2, 1])
    found = zeroshot.format_table(
        {
            "CLIP": by_answers([0, 1, 2, 0, 0]),  # 3 of 5
            "GLoRIA": by_answers([0, 1, 2, 2, 0], [0, 1, 2, 2, 1], [0, 0, 0, 0, 0]),  # 4, 5, 1
        },
        y,
    ).set_index("format")
    assert found.loc["CLIP", ["draws", "n"]].tolist() == [1, 5]
    assert found.loc["CLIP", ["accuracy", "lowest", "highest"]].tolist() == [0.6, 0.6, 0.6]
    assert np.isnan(found.loc["CLIP", "sd"]) and found.loc["CLIP", "note"] == "one draw: no spread"
    row = found.loc["GLoRIA"]
    assert row[["draws", "lowest", "highest", "n", "note"]].tolist() == [3, 0.2, 1.0, 5, ""]
    assert row["accuracy"] == pytest.approx(2 / 3)
    # 12/15, 15/15 and 3/15 around 10/15: squares 4, 25 and 49 of 225, over two
    assert row["sd"] == pytest.approx(np.sqrt(78 / 225 / 2))
    some = np.array([True, False, False, True, True])
    row = zeroshot.format_table({"GLoRIA": by_answers([0, 1, 2, 2, 0], [0] * 5)}, y, some).iloc[0]
    assert row["n"] == 3 and row["accuracy"] == 0.5
    assert [row["lowest"], row["highest"]] == [1 / 3, 2 / 3]


def test_the_best_format_is_that_of_the_highest_mean_and_the_first_of_equals():
    y = np.array([0, 1, 2])
    half, whole = [by_answers([0, 0, 0], [0, 1, 0]), by_answers([0, 1, 2], [2, 1, 2])]
    tables = [
        zeroshot.format_table(scores, y)
        for scores in (
            {"CLIP": by_answers([0, 1, 0]), "GLoRIA": half, "CXR-CLIP": whole},
            {"CXR-CLIP": half, "GLoRIA": by_answers([0, 1, 0], [0, 0, 0])},
        )
    ]
    assert [zeroshot.best_format(table) for table in tables] == ["CXR-CLIP", "CXR-CLIP"]
    # 2 of 3 in each of ten draws are not above 2 of 3 in one, whatever a mean of them rounds to
    answers = np.array([0, 0, 1])
    assert np.mean([2 / 3] * 10) > 2 / 3
    scores = {"CLIP": by_answers(answers), "GLoRIA": by_answers(*[answers] * 10)}
    assert zeroshot.best_format(zeroshot.format_table(scores, np.zeros(3, int))) == "CLIP"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_draws": 0}, "n_draws=0: expected 1 or more"),
        ({"formats": ()}, "no prompt format: expected some of CLIP"),
        ({"formats": ("CLIP", "BERT")}, "prompt format='BERT': expected one of CLIP"),
        ({"labels": ("Edema", "COPD")}, "label 'COPD' has no words .* GLoRIA"),
        ({"labels": ("Edema", "Edema")}, "Edema, Edema: expected two or more, each once"),
    ],
)
def test_formats_refuse_what_cannot_be_drawn(cohort, options, words):
    with pytest.raises(ValueError, match=words):
        zeroshot.format_scores(**({"cohort": cohort, "model": tiny(), "labels": CLASSES} | options))


@pytest.mark.parametrize(
    ("scores", "y", "rows", "words"),
    [
        ({}, [0, 1], None, "scores: no format"),
        ({"CLIP": by_answers([0, 1])}, [0, 1, 2], None, r"shape \(1, 2, 3\), y has \(3,\)"),
        ({"CLIP": by_answers([0, 1])}, [0, 3], None, "y: expected whole numbers from 0 to 2"),
        ({"CLIP": by_answers([0, 1])}, ["a", "b"], None, "y: expected whole numbers from 0 to 2"),
        ({"CLIP": by_answers([0, 1])}, [0, 1], [False, False], "rows: expected 2 booleans"),
        ({"CLIP": by_answers([0, 1])}, [0, 1], [0, 1], "rows: expected 2 booleans"),
        ({"CLIP": by_answers([0, 1]) * np.nan}, [0, 1], None, "CLIP are not finite"),
    ],
)
def test_the_table_of_formats_refuses_what_does_not_fit(scores, y, rows, words):
    with pytest.raises(ValueError, match=words):
        zeroshot.format_table(scores, y, rows)


# --- protocols and the cache -----------------------------------------------------------------


def test_the_small_models_follow_the_temperature_of_the_protocol(cohort):
    name = models.model_names()[0]
    corrected, as_published = models.load_model(name), models.load_model(name, "as_published")
    both = models.load_model(name, replace(protocol_of("as_published"), temperature="learned"))
    assert corrected.logit_scale == both.logit_scale > 2
    assert as_published.logit_scale == 1
    np.testing.assert_array_equal(
        scores(cohort, as_published), scores(cohort, corrected, temperature="none")
    )
    assert as_published.fingerprint == corrected.fingerprint  # the images are encoded once


def test_what_decides_the_embeddings_decides_where_they_are_kept():
    model = tiny()
    others = [
        replace(model, name="another"),
        replace(model, weights="1"),
        replace(model, preprocessing="paper S"),
        replace(model, precision="bfloat16"),
        replace(model, code=(ROOT / "README.md",)),
    ]
    assert len({m.fingerprint for m in (model, *others)}) == 6
    assert replace(model, logit_scale=1.0, protocol="as_published").fingerprint == model.fingerprint


def test_published_models_do_not_share_embeddings(monkeypatch):
    """Nor do the two preprocessings of one model, by whatever name its protocol goes."""
    monkeypatch.setattr(seeded, "fill", lambda network, upstream: None)
    other_steps = replace(protocol_of("corrected"), preprocessing="paper S")
    loaded = [
        models.load_model("seeded:clip_vit_b16"),
        models.load_model("seeded:chexzero"),
        models.load_model("seeded:chexzero", other_steps),
    ]
    assert len({m.fingerprint for m in loaded}) == 3
    same_steps = models.load_model("seeded:clip_vit_b16", other_steps)  # S does nothing else to it
    assert same_steps.fingerprint == loaded[0].fingerprint
    assert [m.members for m in loaded] == [(m,) for m in loaded]


def test_batches_shrink_with_the_size_of_images(cohort, monkeypatch):
    small, large = tiny(), tiny(card={"image_size": 512})
    np.testing.assert_array_equal(embed(cohort, small, False), embed(cohort, large, False))
    assert small.network.batches == [40]
    assert max(large.network.batches) < 8 and sum(large.network.batches) == 40


# --- weights that mean nothing ---------------------------------------------------------------


def test_seeded_models_are_never_compared_with_print():
    theirs = published.table("S Table 1")
    assert set(published.compare(theirs, theirs)["verdict"]) >= {published.REPRODUCED}
    ours = theirs.assign(model="seeded:medclip_vit")
    verdicts = published.compare(ours, theirs)["verdict"]
    assert set(verdicts) == {published.NOT_RUN, published.CONTRADICTED}


def test_the_warning_names_seeded_models_and_is_silent_otherwise(capsys):
    warn_if_seeded(["phantom-vit", "clip_vit_b16"])
    assert capsys.readouterr().out == ""
    warn_if_seeded(["phantom-vit", SEEDED])
    said = capsys.readouterr().out
    assert "MEAN NOTHING" in said and SEEDED in said and "phantom-vit" not in said


def test_the_zero_shot_chapter_runs_with_a_seeded_architecture(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "cache"))
    given = {"models": SEEDED, "n_images": 60, "n_resamples": 30}
    [path] = run(ROOT, find(ROOT, "zero_shot"), given, tmp_path, jobs=1)
    notebook = json.loads(path.read_text())
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    pages = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
    [warning] = [page for page in pages if "admonition danger" in page]
    assert SEEDED in warning
    # Its numbers are shown, in tables, figures and text, and none of them is kept.
    tables = [page for page in pages if "cxr-table" in page and SEEDED in page]
    value = r">\s*0\.\d+ <span class=\"cxr-whole\">\[0\.\d+, 0\.\d+\]"
    assert any(re.search(value, page) for page in tables)
    assert any("image/png" in o.get("data", {}) for o in outputs)
    text = "".join(o["data"].get(SAID, "") for o in outputs if "data" in o)
    assert re.search(rf"For {SEEDED} the mean AUC is 0\.\d+ \[0\.", text)
    assert kept(path) and all(len(table) == 0 for table in kept(path))


def test_numbers_of_seeded_models_are_not_kept(monkeypatch):
    shown = []
    monkeypatch.setattr("cxrlib.show.notebook.in_notebook", lambda: True)
    monkeypatch.setattr("IPython.get_ipython", lambda: type("", (), {"execution_count": 1}))
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    row = {"cohort": "phantom", "method": "zero-shot", "label": "Edema", "attribute": "all"}
    row |= {"group": "all", "metric": "auc", "value": 0.5}
    names = ("phantom-vit", SEEDED, f"{SEEDED} - phantom-vit", None)
    keep(schema.results(pd.DataFrame([row | {"model": name} for name in names])))
    [stored] = shown
    table = json.loads(next(iter(stored.values())))
    at = table["columns"].index("model")
    assert [entry[at] for entry in table["rows"]] == ["phantom-vit", None]


def test_severe_halves_are_told_from_healthy_films_by_their_own_scores():
    phantoms = cohorts.load("phantom", n_images=300)
    label, rng = "Pneumothorax", np.random.default_rng(0)
    severity = phantoms.table[f"severity_{label}"].to_numpy()
    score = severity + rng.normal(size=300)
    films = zeroshot.rows_of(phantoms, "m", "zero-shot", label, phantoms.table[label], score)
    [found] = zeroshot.severity_halves(phantoms, films).to_dict("records")
    ill = severity[severity > 0]
    for half, inside in (
        ("mild half", ill <= np.median(ill)),
        ("severe half", ill > np.median(ill)),
    ):
        of_half = score[severity > 0][inside]
        pairs = of_half[:, None] > score[severity == 0]
        assert found[half] == pytest.approx(pairs.mean())
    assert found["severe half"] > found["mild half"]

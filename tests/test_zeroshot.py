"""From a loaded model to probabilities: similarities, prompts, ensembles, and a chapter."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlib import cohorts, models, published, schema, zeroshot
from cxrlib.chapters import find
from cxrlib.embed import embed, embed_text
from cxrlib.models import phantom_clip, registry
from cxrlib.models.encoder import Encoder, Tokens
from cxrlib.models.registry import Ensemble
from cxrlib.notebook import keep, kept, warn_if_seeded
from cxrlib.protocol import protocol
from cxrlib.run import run
from cxrlib.zeroshot import predict, similarity
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
    """One row a film, one column a label."""
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


# --- ensembles -------------------------------------------------------------------------------


def test_an_ensemble_averages_probabilities(cohort):
    members = (tiny(0), tiny(1, logit_scale=40.0), tiny(2))
    found = scores(cohort, Ensemble("three", members))
    each = [scores(cohort, m) for m in members]
    np.testing.assert_allclose(found, np.mean(each, axis=0))
    assert np.abs(each[0] - each[1]).max() > 0.05
    table = predict(cohort, [Ensemble("three", members), tiny()], LABELS, cache=False)
    assert table.groupby("model").size().to_dict() == {"three": 80, "tiny": 80}


def test_an_ensemble_chooses_among_classes_by_mean_probabilities():
    six = cohorts.load("phantom-6x200")
    labels = sorted(six.table["disease"].unique())
    rows = np.arange(len(six.table)) < 30
    members = (tiny(0), tiny(1))
    found, *each = (
        zeroshot.classify(six, [m], labels, rows=rows)["score"].to_numpy()
        for m in (Ensemble("two", members), *members)
    )
    np.testing.assert_allclose(found, np.mean(each, axis=0))


@pytest.mark.parametrize("use", [lambda c, m: embed(c, m), lambda c, m: embed_text(["a"], m)])
def test_an_ensemble_has_no_embeddings_of_its_own(cohort, use):
    with pytest.raises(
        ValueError, match=r"two is an ensemble of 2 .* Take one, model.members\[0\]"
    ):
        use(cohort, Ensemble("two", (tiny(0), tiny(1))))


# --- protocols and the cache -----------------------------------------------------------------


def test_the_small_models_follow_the_temperature_of_the_protocol(cohort):
    name = models.names()[0]
    corrected, as_published = models.load(name), models.load(name, "as_published")
    both = models.load(name, replace(protocol("as_published"), temperature="learned"))
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
    monkeypatch.setattr(registry.seeded, "fill", lambda network, upstream: None)
    other_steps = replace(protocol("corrected"), preprocessing="paper S")
    loaded = [
        models.load("seeded:clip_vit_b16"),
        models.load("seeded:chexzero"),
        models.load("seeded:chexzero", other_steps),
    ]
    assert len({m.fingerprint for m in loaded}) == 3
    same_steps = models.load("seeded:clip_vit_b16", other_steps)  # S does nothing else to it
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
    cells = json.loads(path.read_text())["cells"]
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]
    pages = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
    warnings = [page for page in pages if "admonition danger" in page]
    assert len(warnings) == 1 and SEEDED in warnings[0] and "mean nothing" in warnings[0]
    tables = [page for page in pages if "cxr-table" in page]
    named = [page for page in tables if SEEDED in page]
    # Without a model: S's own table, twice, the widths of intervals and the verdicts.
    assert len(tables) - len(named) == 4
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 6
    assert [len(table) for table in kept(path)] == [0]


def test_numbers_of_seeded_models_are_not_kept(monkeypatch):
    shown = []
    monkeypatch.setattr("cxrlib.notebook.in_notebook", lambda: True)
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

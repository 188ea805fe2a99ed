"""Small CLIPs with a remedy in training: apart from the others, and fed what their cards say."""

import numpy as np
import pytest
import torch
from torch import nn

from cxrlib import cohorts, models
from cxrlib.cohorts import phantom
from cxrlib.models import phantom_clip
from cxrlib.predict import phantom_models

FOUR = ["phantom-resnet", "phantom-vit", "phantom-resnet-drain", "phantom-resnet-underreport"]
DRAIN, SILENT = FOUR[2:]


def test_all_are_the_four_that_they_were():
    assert models.model_names() == models.choose_models("all") == FOUR
    assert list(models.describe_models()["name"]) == FOUR


def test_remedied_models_are_found_by_what_they_remedy():
    named = {name: models.remedied(name) for name in FOUR}
    assert named == {
        "phantom-resnet": {},
        "phantom-vit": {},
        DRAIN: {
            "shortcut randomised": f"{DRAIN}-randomised",
            "balanced batches": f"{DRAIN}-balanced",
        },
        SILENT: {"balanced batches": f"{SILENT}-balanced"},
    }
    found = [name for remedies in named.values() for name in remedies.values()]
    assert found == models.remedied_models()
    assert models.choose_models(", ".join(found)) == found


@pytest.mark.parametrize("name", models.remedied_models())
def test_a_remedy_is_the_one_difference_from_the_biased_model(name):
    """Same patients, films, dials, steps and start; so a change of the bias is the remedy's."""
    card, biased = (models.model_card(n) for n in (name, models.model_card(name)["remedy_of"]))
    differ = {
        k for k in phantom_models.RECIPE + phantom_models.REMEDY if card.get(k) != biased.get(k)
    }
    assert len(differ & {"balanced", "drains"}) == 1
    assert differ - {"balanced", "drains"} == {"name", "order", "trained_on", "remedy_of", "remedy"}
    assert card["vocabulary"] == biased["vocabulary"]
    ours, theirs = (
        models.load_model(n).encode_text(["Chest Edema"]) for n in (name, biased["name"])
    )
    assert not torch.equal(ours, theirs)


# --- what a network is shown in training ---

EPOCHS, N, BALANCED, BATCH = 5, 400, 800, 64


class Recorder(nn.Module):
    """In place of a network: remembers the films that it is shown, and learns nothing of use."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, films, tokens):
        self.seen.append((films[:, 0].clone(), tokens))
        vectors = torch.eye(len(films))
        return vectors, vectors, self.logit_scale


@pytest.fixture
def shown(monkeypatch):
    """The batches that a model of the card's recipe is shown: which film, and as which twin."""

    def batches(name, n=N):
        recorder = Recorder()
        monkeypatch.setattr(phantom_clip, "network", lambda *_: recorder)
        recipe = models.model_card(name) | {"n_pairs": n, "batch": BATCH, "epochs": EPOCHS}
        _, tokenizer = phantom_models.train(recipe)
        about = {"dials": recipe["dials"], "seed": recipe["cohort_seed"], "split": "train"}
        cohort = cohorts.load("phantom", n_images=n, **about)
        every, drawn = np.arange(n), recipe.get("drains") == "at random"
        versions = [phantom.twin(cohort, drain=d) for d in (0, 1)] if drawn else [cohort]
        known = {}
        for version, of in enumerate(versions):
            for i, film in enumerate(phantom_clip.preprocess(of.images(every))[:, 0]):
                known[film.numpy().tobytes()] = i, version
        texts = tokenizer(cohort.table["report"].tolist()).ids
        found = []
        for films, tokens in recorder.seen:
            at, version = np.array([known[film.numpy().tobytes()] for film in films]).T
            assert torch.equal(tokens, texts[at])  # each film with its own report
            found.append((at, version))
        assert len(found) == EPOCHS * (n // BATCH)
        return cohort.table, found

    return batches


def usual_order():
    """Written out, since trained weights depend on it."""
    draw = np.random.default_rng(0)
    return [p for _ in range(EPOCHS) for p in np.array_split(draw.permutation(N), N // BATCH)]


def test_without_a_remedy_films_come_in_the_order_in_which_they_always_did(shown):
    _, found = shown(DRAIN)
    for (at, _), part in zip(found, usual_order(), strict=True):
        np.testing.assert_array_equal(at, part)


def test_randomised_drains_say_nothing_of_pneumothorax(shown):
    table, found = shown(f"{DRAIN}-randomised")
    at, drain = (np.concatenate(parts) for parts in zip(*found, strict=True))
    ill = (table["severity_Pneumothorax"] > 0).to_numpy()
    assert table["drain"][ill].mean() > 0.8 and table["drain"][~ill].mean() < 0.05
    for rows in (ill[at], ~ill[at]):
        assert abs(drain[rows].mean() - 0.5) < 4 * 0.5 / rows.sum() ** 0.5
    # drawn anew in each epoch: nearly all films are seen both ways in five
    both = [len(set(drain[at == i])) == 2 for i in range(N)]
    assert abs(np.mean(both) - (1 - 2 * 0.5**EPOCHS)) < 0.05
    np.testing.assert_array_equal(at, np.concatenate(usual_order()))


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        (f"{DRAIN}-balanced", lambda t: [t["drain"], t["Pneumothorax"]]),
        (f"{SILENT}-balanced", lambda t: [t["sex"], t[list(phantom.FINDINGS)].sum(axis=1) > 0]),
    ],
)
def test_groups_are_equally_frequent_in_each_balanced_batch(shown, name, groups):
    table, found = shown(name, BALANCED)
    group = table.groupby(groups(table)).ngroup().to_numpy()
    films = np.bincount(group)
    assert len(films) == 4 and films.max() > 1.2 * films.min()  # else nothing to balance
    for at, _ in found:
        np.testing.assert_array_equal(np.bincount(group[at]), [BATCH // 4] * 4)
    per_epoch = BALANCED // BATCH
    for epoch in range(EPOCHS):
        at = np.concatenate([a for a, _ in found[epoch * per_epoch : (epoch + 1) * per_epoch]])
        times = np.bincount(at, minlength=BALANCED)
        for g in range(4):  # no film of a group again before each was taken
            assert np.ptp(times[group == g]) <= 1


def test_batches_of_groups_of_unequal_size_keep_all_films_of_the_rare_one():
    groups = np.repeat([0, 1, 2], [97, 2, 1])
    found = phantom_models.batches(np.random.default_rng(0), 100, 10, groups)
    assert len(found) == 10
    counts = np.bincount(np.concatenate(found), minlength=100)
    assert counts[97:].tolist() == [15, 15, 30] and counts[:97].max() == 1

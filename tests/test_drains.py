"""The drain detector on films with a planted line; a small DenseNet unless said otherwise."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torchvision.models import DenseNet, densenet121
from typer.testing import CliRunner

from cxrlib import cohorts
from cxrlib.cohorts.cohort import Cohort
from cxrlib.models.images import stored_by_s
from cxrlib.predict import drain_detector, drains
from cxrlib.protocol import protocol_of
from cxrlib.stats import shortcuts
from tests import nih_tree
from tests.test_protocol import FIGURES

QUICK = {"epochs": 4, "lr": 1e-2, "size": 64}


def small_network():
    network = DenseNet(4, (1, 1), 8, bn_size=2)
    network.classifier = nn.Sequential(nn.Flatten(), nn.Linear(network.classifier.in_features, 1))
    return network


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """What is computed goes to a folder of the test; the full network is returned, to put back."""
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "cache"))
    full = drain_detector.build_network
    monkeypatch.setattr(drain_detector, "build_network", small_network)
    return SimpleNamespace(full=full, tmp=tmp_path)


def made(n=120, seed=0, name="made", **columns):
    """Noise of 64 pixels; a drain is a bright line at a random place. Two films a patient."""
    rng = np.random.default_rng(seed)
    drain = (np.arange(n) // 2 % 3 == 0).astype(float)
    films = rng.integers(0, 80, (n, 64, 64), dtype=np.uint8)
    for i in np.flatnonzero(drain):
        place = rng.integers(8, 56)
        films[i, :, place : place + 3] += 40
    table = pd.DataFrame({"image_id": [f"{seed}-{i}" for i in range(n)]})
    table["patient_id"] = 1000 * seed + np.arange(n) // 2
    table["drain"], table["Pneumothorax"] = drain, (np.arange(n) % 4 == 0).astype(int)
    recipe = {"name": name, "seed": seed}
    flow = pd.DataFrame({"step": ["made"], "images": [n], "patients": [(n + 1) // 2]})
    images = films.__getitem__
    table = table.assign(**columns)
    return Cohort(name, table, ("Pneumothorax",), "open", recipe, flow, images, sources=("made",))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


# --- split, epoch, threshold ---------------------------------------------------------------------


def test_parts_are_those_of_the_published_split(monkeypatch):
    figures, patient = FIGURES["group_split_60"], (np.arange(60) // 3) % 17
    films = pd.DataFrame({"patient_id": patient, "drain": np.arange(60) % 2})
    published = drain_detector._split(films, "as_published", 1907)
    assert np.flatnonzero(published == "test").tolist() == figures["test_positions"]
    assert set(published) == {"train", "test"}
    corrected = drain_detector._split(films, "corrected", 1907)
    train = np.flatnonzero(corrected == "train").tolist()
    assert train == figures["correct_nested_train_rows"]
    assert ((corrected == "test") == (published == "test")).all()


@pytest.fixture
def scripted(monkeypatch):
    """Watched AUCs of the epochs to come, instead of computed ones."""

    def script(*values):
        left = iter(values)
        monkeypatch.setattr(drain_detector.metrics, "auc", lambda *_: next(left))

    return script


def test_corrected_keeps_the_best_epoch_and_published_the_last(scripted):
    cohort = made()
    scripted(0.6, 0.9, 0.9, 0.7)
    best = drains.train(cohort, **QUICK)
    scripted(0.6, 0.9)
    two = drains.train(cohort, **QUICK | {"epochs": 2})
    assert best.best_epoch == two.best_epoch == 2
    assert best.log["valid_auc"].tolist() == [0.6, 0.9, 0.9, 0.7]
    assert same(best.network.state_dict(), two.network.state_dict())
    scripted(0.6, 0.9, 0.9, 0.7)
    last = drains.train(cohort, "as_published", **QUICK)
    assert last.best_epoch == 4 and "test_auc" in last.log
    assert last.threshold == 0.5


def test_learns_a_planted_drain_and_judges_itself_on_other_patients():
    detector = drains.train(made(240), **QUICK | {"epochs": 8})
    films = detector.films
    assert films.groupby("patient_id")["part"].nunique().eq(1).all()
    assert set(films["part"]) == {"train", "valid", "test"}
    assert films["probability"].isna().eq(films["part"] == "train").all()
    test, valid = films[films["part"] == "test"], films[films["part"] == "valid"]
    table = drains.performance(detector, n_resamples=50).set_index("metric")
    auc = roc_auc_score(test["drain"], test["probability"])
    assert table.loc["auc", "value"] == pytest.approx(auc, abs=1e-12)
    assert auc > 0.9
    yes = test["probability"] > detector.threshold
    for metric, share in (
        ("sensitivity", yes[test["drain"] == 1].mean()),
        ("specificity", 1 - yes[test["drain"] == 0].mean()),
    ):
        assert table.loc[metric, "value"] == pytest.approx(share, abs=1e-12)
    assert (table["n_patients"] == test["patient_id"].nunique()).all()
    assert (table["protocol"] == "corrected").all()

    # of all thresholds on the validation films, none has a larger Youden index
    def youden(threshold):
        called = valid["probability"] > threshold
        return called[valid["drain"] == 1].mean() - called[valid["drain"] == 0].mean()

    best = max(youden(t) for t in [-1.0, *valid["probability"]])
    assert youden(detector.threshold) == pytest.approx(best, abs=1e-12)


def test_same_seed_same_weights_whatever_happens_around():
    first = drains.train(made(), **QUICK)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = drains.train(made(), **QUICK, folder=first.file.parent / "again")
    assert same(first.network.state_dict(), again.network.state_dict())
    assert torch.equal(torch.get_rng_state(), state)
    other = drains.train(made(), **QUICK, seed=2)
    assert not same(first.network.state_dict(), other.network.state_dict())


# --- what the network is given -------------------------------------------------------------------


def test_films_as_published_and_corrected():
    film = np.random.default_rng(0).integers(20, 200, (90, 110), dtype=np.uint8)
    cohort = replace(made(10), images=lambda positions: [film for _ in positions])
    given = {}
    for name in ("as_published", "corrected"):
        x = drain_detector.prepared(cohort, np.arange(3), {"protocol": name, "size": 64})
        given[name] = drain_detector._scaled(x, name, "cpu").numpy()
    stored = stored_by_s(film, 64).astype(float)
    assert (stored.min(), stored.max()) == (0, 255)
    np.testing.assert_array_equal(given["as_published"], np.broadcast_to(stored, (3, 3, 64, 64)))
    small = np.asarray(Image.fromarray(film).resize((64, 64), Image.Resampling.BILINEAR)) / 255
    for channel, (mean, sd) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        np.testing.assert_allclose(given["corrected"][0, channel], (small - mean) / sd, atol=1e-5)


def test_published_training_is_the_plain_loop():
    """Adam, mean binary cross-entropy, films in the order of the cohort, epoch after epoch."""
    cohort = made(60)
    detector = drains.train(cohort, "as_published", **QUICK | {"epochs": 2, "batch_size": 16})
    with torch.random.fork_rng():
        torch.manual_seed(1907)
        network = small_network()
    rows = np.flatnonzero(detector.films["part"] == "train")
    x = np.stack([stored_by_s(film, 64) for film in cohort.images(rows)]).astype(np.float32)
    x = torch.from_numpy(x)[:, None].repeat(1, 3, 1, 1)
    y = torch.from_numpy(cohort.table["drain"].to_numpy()[rows]).float()
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        network.train()
        for start in range(0, len(rows), 16):
            adam.zero_grad()
            logit = network(x[start : start + 16])[:, 0]
            nn.BCEWithLogitsLoss()(logit, y[start : start + 16]).backward()
            adam.step()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(detector.network.state_dict()[key], value)


# --- interruption, files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["corrected", "as_published"])
def test_interrupted_training_ends_with_the_same_weights(name, monkeypatch):
    cohort = made()
    whole = drains.train(cohort, name, **QUICK)
    folder = whole.file.parent / "other"
    epoch = drain_detector._epoch

    def stopped(*given):
        if given[6] == 3:
            raise KeyboardInterrupt
        return epoch(*given)

    monkeypatch.setattr(drain_detector, "_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        drains.train(cohort, name, **QUICK, folder=folder)
    assert (folder / "training.pt").is_file()
    seen = []
    monkeypatch.setattr(drain_detector, "_epoch", lambda *g: seen.append(g[6]) or epoch(*g))
    resumed = drains.train(cohort, name, **QUICK, folder=folder)
    assert seen == [3, 4]
    assert sorted(p.name for p in folder.iterdir()) == ["detector.pt", "lock"]
    assert same(whole.network.state_dict(), resumed.network.state_dict())
    pd.testing.assert_frame_equal(whole.films, resumed.films)
    pd.testing.assert_frame_equal(whole.log, resumed.log)
    assert (whole.threshold, whole.fingerprint) == (resumed.threshold, resumed.fingerprint)
    drains.train(cohort, name, **QUICK)  # finished: read, nothing trained
    assert seen == [3, 4]


def test_network_of_the_paper(small, monkeypatch):
    network = small.full()
    state = network.state_dict()
    assert len(state) == 727
    assert sum(p.numel() for p in network.parameters()) == 6_954_881
    assert {k: tuple(v.shape) for k, v in state.items() if k.startswith("classifier")} == {
        "classifier.1.weight": (1, 1024),
        "classifier.1.bias": (1,),
    }
    monkeypatch.setattr(drain_detector, "build_network", small.full)

    # S's code writes the state dict alone
    torch.save(state, small.tmp / "published.pt")
    detector = drains.load(small.tmp / "published.pt")
    assert detector.settings == {"protocol": "as_published", "size": 224}
    assert (detector.threshold, drains.overlap(detector, made())) == (0.5, None)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(detector.network(x), network.eval()(x))
    with pytest.raises(ValueError, match="weights alone"):
        drains.performance(detector)

    # ImageNet weights as torchvision publishes them: old names, no counts, a head of 1,000
    imagenet = densenet121()
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.").replace(".conv2.", ".conv.2."): v
        for k, v in imagenet.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }  # fmt: skip
    torch.save(old, small.tmp / "densenet121-a639ec97.pth")
    fresh = small.full()
    drain_detector._start_from(fresh, small.tmp / "densenet121-a639ec97.pth")
    torch.testing.assert_close(fresh.eval().features(x), imagenet.eval().features(x))


# --- labels --------------------------------------------------------------------------------------


def test_annotated_labels_stay_and_others_are_predicted(monkeypatch):
    detector = drains.train(made(), **QUICK)
    truth = made(50, seed=1)
    wrong = 1 - truth.table["drain"]  # annotated the other way round, to see that they stay
    cohort = replace(truth, table=truth.table.assign(drain=wrong.where(np.arange(50) % 2 == 0)))
    labelled = drains.label(cohort, detector)
    table, known = labelled.table, np.arange(50) % 2 == 0
    assert table.loc[known, "drain"].tolist() == wrong[known].tolist()
    assert table["drain_source"].tolist() == np.where(known, "annotated", "predicted").tolist()
    assert table["drain_probability"].isna().tolist() == known.tolist()
    others = table[~known]
    assert others["drain"].eq(others["drain_probability"] > detector.threshold).all()
    x = drain_detector.prepared(truth, np.flatnonzero(~known), detector.settings)
    p = drain_detector.probabilities(detector.network, x, "corrected")
    np.testing.assert_array_equal(others["drain_probability"], p)
    assert labelled.fingerprint != cohort.fingerprint
    assert labelled.recipe["drains"]["detector"] == detector.fingerprint

    def nothing(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(drain_detector, "prepared", nothing)
    for again in (drains.label(cohort, detector.file), drains.stored(cohort)):
        pd.testing.assert_frame_equal(again.table, table)
        assert again.fingerprint == labelled.fingerprint
    # predicted labels are nobody's annotation: they are neither trained on nor kept as truth
    assert np.isnan(drain_detector.known_drains(labelled)).tolist() == (~known).tolist()
    with pytest.raises(ValueError, match=r"25 films have no annotated drain.*cxrbook drains"):
        drains.stored(cohort, "as_published")


def test_interrupted_prediction_goes_on(monkeypatch):
    detector = drains.train(made(), **QUICK)
    cohort = drains.hide(made(50, seed=1), np.ones(50, bool))
    monkeypatch.setattr(drains, "CHUNK", 20)
    prepared, counts = drain_detector.prepared, []

    def stopping(cohort, rows, settings):
        counts.append(len(rows))
        if len(counts) == 2:
            raise KeyboardInterrupt
        return prepared(cohort, rows, settings)

    monkeypatch.setattr(drain_detector, "prepared", stopping)
    with pytest.raises(KeyboardInterrupt):
        drains.predict(detector, cohort)
    assert drains.predict(detector, cohort)["drain_probability"].notna().all()
    assert counts == [20, 20, 20, 10]


@pytest.mark.parametrize("name", ["as_published", "corrected"])
def test_probability_at_the_threshold_is_no_drain(name, monkeypatch):
    detector = replace(drains.train(made(), name, **QUICK), threshold=0.5)
    above = np.nextafter(0.5, 1)
    monkeypatch.setattr(drain_detector, "probabilities", lambda *_: np.array([0.5, above, 0.4]))
    cohort = drains.hide(made(3, seed=1), np.ones(3, bool))
    assert drains.predict(detector, cohort)["drain"].tolist() == [0, 1, 0]


def test_patients_of_training_among_those_labelled():
    cohort = made()
    detector = drains.train(cohort, **QUICK)
    films = detector.films
    trained = set(films.loc[films["part"] != "test", "patient_id"].astype(int))
    some = replace(cohort, table=cohort.table[cohort.table["patient_id"] >= 30])
    assert drains.overlap(detector, some) == len([p for p in trained if p >= 30]) > 0
    assert drains.label(some, detector).recipe["drains"]["shared_patients"] == len(
        [p for p in trained if p >= 30]
    )
    assert drains.overlap(detector, made(seed=1)) == 0
    # the same numbers in another data set are other people
    assert drains.overlap(detector, replace(some, sources=("elsewhere",))) == 0
    apart = drains.train(cohort, **QUICK, apart_from=some)
    assert set(apart.films["patient_id"].astype(int)) == set(range(30))
    assert drains.overlap(apart, some) == 0


def test_label_error_and_the_arms_on_the_phantom():
    training = cohorts.load("phantom", n_images=120, split="train", dials={"drain_if_none": 0.3})
    detector = drains.train(training, epochs=1, lr=1e-2)
    assert detector.settings["size"] == 64
    truth = cohorts.load("phantom", n_images=300, dials={"drain_if_none": 0.3})
    control = truth.table["Pneumothorax"] == 0
    labelled = drains.label(drains.hide(truth, control), detector)
    table = drains.label_error(labelled, truth, ("sex",), n_resamples=20)
    women = control & (truth.table["sex"] == "F")
    for group, rows in {"all": control, "F": women}.items():
        y, found = truth.table.loc[rows, "drain"], labelled.table[rows]
        expected = {
            "auc": roc_auc_score(y, found["drain_probability"]),
            "sensitivity": found.loc[y == 1, "drain"].mean(),
            "specificity": 1 - found.loc[y == 0, "drain"].mean(),
        }
        for metric, value in expected.items():
            row = table[(table["group"] == group) & (table["metric"] == metric)].iloc[0]
            assert row["value"] == pytest.approx(value, abs=1e-12)
            assert (row["n"], row["n_positive"]) == (len(y), y.sum())
    with pytest.raises(ValueError, match="label the cohort first"):
        drains.label_error(truth, truth)
    with pytest.raises(ValueError, match="truth is not known"):
        drains.label_error(labelled, drains.hide(truth, control))

    # controls of the arms follow the labels
    scores = truth.table[["image_id", "patient_id"]].assign(
        cohort="c", model="m", method="zero-shot", label="Pneumothorax",
        y_true=truth.table["Pneumothorax"], score=np.linspace(0, 1, 300),
        drain=labelled.table["drain"],
    )  # fmt: skip
    called = int(labelled.table.loc[control, "drain"].sum())
    for choice, n in {
        "any": control.sum(),
        "with": called,
        "without": control.sum() - called,
    }.items():
        p = replace(protocol_of("corrected"), drain_controls=choice, min_cases=0)
        arms = shortcuts.drain_arms(scores, protocols=[p], n_resamples=5)
        one = arms[arms["group"] == "with drain"].iloc[0]
        assert one["n"] - one["n_positive"] == n


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"drain": np.nan}, {}, "no film has a known drain"),
        ({"drain": 1.0}, {}, "all .* films of the part .* are with drain; expected both"),
        ({"patient_id": 1}, {}, "expected at least 5"),
        ({}, {"protocol": "mine"}, "protocol='mine': expected one of"),
        ({}, {"size": 32}, "size=32: expected 64 or more"),
        ({}, {"epochs": 0}, "epochs=0"),
        ({}, {"device": "abacus"}, "abacus"),
        ({}, {"weights": "nowhere.pt"}, "nowhere.pt"),
        ({}, {"apart_from": made()}, "every film with a known drain is of a patient of 'made'"),
    ],
)
def test_refusals(columns, options, words, small):
    with pytest.raises(ValueError, match=words):
        drains.train(made(**columns), **QUICK | options)
    assert not list(small.tmp.rglob("*.pt"))


def test_a_loss_that_is_not_finite_names_the_epoch():
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch \d; lower the learning"):
        drains.train(made(), **QUICK | {"lr": 1e30})


def test_files_of_others_are_refused(small):
    other = small.tmp / "other.pt"
    torch.save(nn.Linear(2, 2).state_dict(), other)
    with pytest.raises(ValueError, match="not a checkpoint of this model"):
        drains.train(made(), **QUICK, weights=other)
    with pytest.raises(ValueError, match="not a checkpoint of this model"):
        drains.load(other)
    detector = drains.train(made(), **QUICK)
    with pytest.raises(ValueError, match=r"another training \(.*seed 1907, not 3"):
        drains.train(made(), **QUICK, seed=3, folder=detector.file.parent)


# --- NIH, as a reader runs it --------------------------------------------------------------------


def test_command_trains_labels_and_the_cohort_takes_the_labels(small, monkeypatch):
    from cxrlib.cli import app

    truth = nih_tree.write(small.tmp / "data" / "nih-cxr14", n_images=260)["table"]
    monkeypatch.setenv("CXRBOOK_DATA", str(small.tmp / "data"))
    with pytest.raises(ValueError, match="Train one"):
        drains.stored(cohorts.load("nih"))
    run = CliRunner().invoke(app, ["drains", "--epochs", "2", "--lr", "0.01"])
    assert run.exit_code == 0, run.output
    for words in (
        "threshold: ",
        "largest Youden index",
        "auc on ",
        "trained from scratch",
        "labels: ",
    ):
        assert words in run.output
    table = drains.stored(cohorts.load("nih")).table
    expected = truth.set_index("image_id").loc[table["image_id"], "annotated"].to_numpy()
    annotated = table["drain_source"] == "annotated"
    assert annotated.tolist() == (~np.isnan(expected)).tolist()
    assert table.loc[annotated, "drain"].tolist() == expected[annotated].tolist()
    assert table["drain"].isin((0, 1)).all()
    refused = CliRunner().invoke(app, ["drains", "--protocol", "mine"])
    assert refused.exit_code == 2 and "'mine' is not one of 'corrected'" in refused.output


def test_a_cohort_says_who_looked_for_drains():
    cohort = made(n=20)
    planted = cohorts.load("phantom", n_images=10)
    devices = replace(cohort, table=cohort.table.rename(columns={"drain": "support_devices"}))
    nobody = replace(cohort, table=cohort.table.assign(drain=np.nan))
    source = np.where(np.arange(20) < 12, "predicted", "annotated")
    guessed = replace(
        cohort,
        table=cohort.table.assign(drain_source=source),
        recipe=cohort.recipe | {"drains": {"shared_patients": 3}},
    )
    for each, expected in [
        (planted, "planted: 50 % of the films with pneumothorax have one, and 5 %"),
        (devices, "does not name drains"),
        (nobody, "nobody has looked"),
        (cohort, "Drains are as annotated. The command"),
        (guessed, r"on 12 images as a detector predicted them; .* chosen on: 3\."),
    ]:
        assert re.search(expected, drains.provenance(each))

"""Fine-tuning: what is trained, on which images, what is kept of it, and how it fails."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import tqdm.std
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from cxrlib import cohorts, models
from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.nih6x200 import DISEASES
from cxrlib.core.progress import STATUS, Bar
from cxrlib.models.loading import Ensemble
from cxrlib.predict import adapters, finetune, training

NAME = "phantom-resnet"
SHORT = {"epochs": 2, "batch": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Runs and embeddings are kept in a folder of the test."""
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def whole():
    return cohorts.load("phantom-6x200")


@pytest.fixture(scope="module")
def cohort(whole):
    """Three images of a class and part."""
    return chosen(whole, whole.table.groupby(["disease", "split"]).head(3).index)


@pytest.fixture(scope="module")
def task(cohort, tmp_path_factory):
    """Its films and embeddings are read here, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        task = finetune.Task(cohort, NAME, DISEASES)
        _ = task.embeddings, task.pixels
    return task


@pytest.fixture
def untrainable(monkeypatch):
    """Calling it forbids training from then on."""

    def forbid():
        monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained"))

    return forbid


def chosen(cohort, rows):
    """The cohort of these rows, in this order."""
    images, rows = cohort.images, np.asarray(rows)
    return replace(
        cohort,
        table=cohort.table.iloc[rows].reset_index(drop=True),
        images=lambda positions: images(rows[np.asarray(positions)]),
    )


def with_table(task, **columns):
    """The same images with other columns."""
    return with_cohort(task, replace(task.cohort, table=task.cohort.table.assign(**columns)))


def misleading(task):
    """Validation images have the classes of others: the longer the training, the worse."""
    disease, valid = task.cohort.table["disease"].copy(), task.cohort.table["split"] == "valid"
    disease[valid] = np.roll(disease[valid], 3)
    return with_table(task, disease=disease)


def with_cohort(task, cohort):
    other = finetune.Task(cohort, task.model, task.labels)
    other.__dict__.update(embeddings=task.embeddings, pixels=task.pixels)
    return other


def tune(task, strategy, seed=0, folder=None, keep=True, split=None, **changed):
    settings = finetune.settings_for(strategy, **(SHORT | changed))
    return finetune.fine_tune(task, strategy, split, settings, seed, folder, keep)


def scores(run):
    """One row per image, one column per class."""
    return run.predictions.pivot(index="image_id", columns="label", values="score")


def made_up(n, features, classes, seed=0):
    """A task of given numbers, where validation repeats training."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, features)).astype(np.float32)
    hidden = z @ rng.normal(size=(features, classes)) + rng.gumbel(size=(n, classes))
    names = np.array([f"class {k}" for k in range(classes)])
    z, disease = z[[*range(n), *range(n // 2)]], names[hidden.argmax(axis=1)]
    disease = np.concatenate([disease, disease[: n // 2]])
    table = pd.DataFrame({"disease": disease})
    table["image_id"] = [f"{i:04}" for i in range(len(table))]
    table["patient_id"] = table["image_id"]
    table["split"] = np.repeat(["train", "test", "valid"], n // 2)
    cohort = Cohort("made up", table, (), "open", {}, pd.DataFrame())
    model = models.load_model(NAME)
    task = finetune.Task(cohort, replace(model, card=model.card | {"embed_dim": features}), names)
    task.__dict__["embeddings"] = torch.from_numpy(z)
    return task, {part: table["split"].to_numpy() == part for part in finetune.SPLITS}


# --- what is trained ---


def test_a_linear_probe_is_a_multinomial_logistic_regression():
    """Trained to the end, without weight decay, its probabilities are scikit-learn's."""
    task, at = made_up(400, features=5, classes=3)
    settings = {"epochs": 400, "batch": 200, "learning_rate": 0.05, "weight_decay": 0.0}
    run = tune(task, "linear probe", keep=False, **settings)
    z, truth = task.embeddings.numpy().astype(float), task.cohort.table["disease"]
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    reference.fit(z[at["train"]], truth[at["train"]])
    expected = reference.predict_proba(z[at["test"]])
    np.testing.assert_allclose(scores(run)[reference.classes_], expected, atol=1e-3)


def test_an_mlp_predicts_what_scikit_learn_predicts_with_its_weights(task):
    run = tune(task, "MLP")
    head = finetune.restore(NAME, run.folder).head
    split, z = task.cohort.table["split"].to_numpy(), task.embeddings.numpy().astype(float)
    train, truth = z[split == "train"], task.cohort.table.loc[split == "train", "disease"]
    reference = MLPClassifier((finetune.HIDDEN,), max_iter=1)
    with pytest.warns(match="Maximum iterations"):
        reference.fit(train, truth)
    layers = [head.layers[0], head.layers[2]]
    reference.coefs_ = [layer.weight.numpy().T.astype(float) for layer in layers]
    reference.intercepts_ = [layer.bias.numpy().astype(float) for layer in layers]
    standardised = (z[split == "test"] - train.mean(axis=0)) / train.std(axis=0, ddof=1)
    expected = pd.DataFrame(
        reference.predict_proba(standardised),
        index=task.cohort.table.loc[split == "test", "image_id"],
        columns=reference.classes_,
    )
    pd.testing.assert_frame_equal(scores(run), expected.sort_index(), check_names=False, rtol=1e-4)


@pytest.mark.parametrize("strategy", finetune.STRATEGIES)
def test_the_seed_decides_and_the_order_of_the_rows_does_not(task, strategy):
    order = np.random.default_rng(0).permutation(len(task.cohort.table))
    shuffled = finetune.Task(chosen(task.cohort, order), NAME, DISEASES)
    first = tune(task, strategy, seed=5, keep=False)
    torch.rand(1)  # what was drawn before is of no account
    again = tune(shuffled, strategy, seed=np.int64(5), keep=False)
    other = tune(task, strategy, seed=6, keep=False)
    assert first.weights == again.weights != other.weights
    pd.testing.assert_frame_equal(scores(first), scores(again), check_exact=True)


@pytest.mark.parametrize("strategy", ["linear probe", "full"])
def test_test_images_and_their_labels_have_no_influence(task, strategy):
    test = task.cohort.table["split"].to_numpy() == "test"
    disease = task.cohort.table["disease"].to_numpy().copy()
    disease[test] = np.roll(disease[test], 1)
    poisoned = with_table(task, disease=disease)
    for name in ("embeddings", "pixels"):
        numbers = getattr(task, name).clone()
        numbers[torch.from_numpy(test)] = torch.randn_like(numbers[torch.from_numpy(test)])
        poisoned.__dict__[name] = numbers
    run, poison = (tune(t, strategy, keep=False) for t in (task, poisoned))
    assert run.weights == poison.weights
    assert not np.array_equal(run.predictions["score"], poison.predictions["score"])


def test_only_test_images_are_predicted_by_the_best_epoch(task):
    task = misleading(task)
    run = tune(task, "MLP", epochs=8)
    table = task.cohort.table
    assert set(run.predictions["image_id"]) == set(table.loc[table["split"] == "test", "image_id"])
    np.testing.assert_allclose(scores(run).sum(axis=1), 1)
    assert run.best_epoch == run.history.set_index("epoch")["valid_loss"].idxmin() < 8
    network = finetune.restore(NAME, run.folder)
    valid = torch.from_numpy(np.flatnonzero(table["split"] == "valid"))
    loss = torch.nn.functional.cross_entropy(network(task.pixels[valid]), task.y[valid])
    assert loss.item() == pytest.approx(run.history["valid_loss"].min(), rel=1e-5)


def test_a_split_of_ones_own_is_used(task):
    own = np.roll(task.cohort.table["split"].to_numpy(), 1)
    run = tune(task, "linear probe", split=pd.Series(own), keep=False)
    expected = task.cohort.table.loc[own == "test", "image_id"]
    assert set(run.predictions["image_id"]) == set(expected)


@pytest.mark.parametrize("strategy", ["LoRA", "full"])
def test_the_loaded_model_stays_as_it_is(task, strategy):
    network = task.model.network
    before = {k: v.clone() for k, v in network.state_dict().items()}
    tune(task, strategy, keep=False, learning_rate=1e-2)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not network.training
    assert not any(isinstance(m, adapters.Attention) for m in network.modules())


def test_merged_lora_predicts_as_its_adapters_do(task, monkeypatch):
    """And a merge that does not is noticed."""
    run = tune(task, "LoRA", learning_rate=1e-2)
    settings, test = run.settings, task.cohort.table["split"].to_numpy() == "test"
    network = finetune.build(task.model, "LoRA", len(DISEASES), settings, seed=0)
    state = training.load_file(run.folder / f"best-{run.best_epoch}.safetensors")
    network.load_state_dict(state, strict=False)
    at = torch.from_numpy(np.flatnonzero(test))
    logits = training.predict(network, task.pixels, at, settings)
    expected = pd.DataFrame(
        logits.softmax(dim=1).numpy().astype(float),
        index=task.cohort.table.loc[test, "image_id"],
        columns=DISEASES,
    )
    pd.testing.assert_frame_equal(scores(run), expected.sort_index(), check_names=False, rtol=1e-4)
    monkeypatch.setattr(adapters, "merged", lambda adapted: adapters.tower(task.model))
    with pytest.raises(RuntimeError, match="merged LoRA weights give other logits"):
        tune(task, "LoRA", learning_rate=1e-2, keep=False)


def test_lora_changes_adapters_and_head_alone(task):
    """Not even the statistics of BatchNorm."""
    run = tune(task, "LoRA", learning_rate=1e-2)
    names = {name: t for name, t in task.model.network.state_dict().items() if t.ndim}
    state = training.load_file(run.folder / f"best-{run.best_epoch}.safetensors")
    rest = {k: t for k, t in state.items() if "lora_" not in k and not k.startswith("head.")}
    assert any("running_var" in name for name in rest)
    for name, tensor in rest.items():
        own = name.removeprefix("tower.base_model.model.network.").replace("base_layer.", "")
        assert own not in names or torch.equal(tensor, names[own]), name
    assert all(t.any() for k, t in state.items() if "lora_B" in k)


def test_memory_is_that_of_a_whole_batch(task):
    run = tune(task, "full", epochs=1, batch=16, keep=False)
    network = finetune.build(task.model, "full", len(DISEASES), run.settings, seed=0).train()
    assert run.memory == training.needed_memory(network, task.pixels[:16])
    assert run.trainable == sum(p.numel() for p in network.parameters())


# --- what is kept ---


@pytest.mark.parametrize("strategy", finetune.STRATEGIES)
def test_a_finished_run_is_read_and_its_network_restored(task, strategy, untrainable):
    run = tune(task, strategy)
    untrainable()
    again = tune(task, strategy)
    for name in ("best_epoch", "trainable", "seconds", "memory", "settings", "weights", "folder"):
        assert getattr(again, name) == getattr(run, name), name
    for name in ("predictions", "history"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(run, name), check_exact=True)
    if strategy == "LoRA":
        pd.testing.assert_frame_equal(again.adapted, run.adapted)
        assert run.adapted["trained"].sum() > 0
    else:
        assert again.adapted is None
    network = finetune.restore(task.model, run.folder)
    test = task.cohort.table["split"].to_numpy() == "test"
    expected = scores(run).loc[task.cohort.table.loc[test, "image_id"], list(DISEASES)]
    logits = network(task.model.preprocess(task.cohort.images(np.flatnonzero(test))))
    np.testing.assert_allclose(logits.softmax(dim=1), expected, atol=1e-5)


def test_a_run_that_was_cut_off_goes_on(task, monkeypatch):
    straight = tune(task, "LoRA", epochs=3, keep=False)
    trained = []

    def cut_off(bar, row, epochs):
        trained.append(row["epoch"])
        if trained == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "_report", cut_off)
    with pytest.raises(KeyboardInterrupt):
        tune(task, "LoRA", epochs=3)
    run = tune(task, "LoRA", epochs=3)
    assert trained == [1, 2, 3]
    assert run.weights == straight.weights
    pd.testing.assert_frame_equal(run.predictions, straight.predictions, check_exact=True)
    assert sorted(p.name for p in run.folder.iterdir() if not p.name.startswith(".")) == [
        f"best-{run.best_epoch}.safetensors",
        "done.pt",
        "history.csv",
        "lock",
        "run.json",
    ]


def test_the_fingerprint_changes_with_all_that_decides(task, monkeypatch):
    split = task.cohort.table["split"].to_numpy()
    settings = finetune.settings_for("full")

    def fingerprint(task=task, strategy="full", split=split, settings=settings, seed=0):
        about = finetune.description(task, strategy, split, settings, seed)
        return json.dumps(about, sort_keys=True)

    swapped, other = split.copy(), np.flatnonzero(split != split[0])[0]
    swapped[[0, other]] = swapped[[other, 0]]
    other_model = finetune.Task(task.cohort, "phantom-vit", DISEASES)
    two = with_table(task, second=task.cohort.table["disease"])
    found = {
        "as it is": fingerprint(),
        "cohort": fingerprint(with_table(task, age=task.cohort.table["age"] + 1)),
        "split": fingerprint(split=swapped),
        "model": fingerprint(other_model),
        "weights": fingerprint(replace(task, model=replace(task.model, weights="others"))),
        "strategy": fingerprint(strategy="LoRA"),
        "column": fingerprint(two),
        "target": fingerprint(replace(two, target="second")),
        "labels": fingerprint(replace(task, labels=DISEASES[::-1])),
        "seed": fingerprint(seed=1),
        "settings": fingerprint(settings=replace(settings, label_smoothing=0.1)),
    }
    order = np.random.default_rng(0).permutation(len(split))
    shuffled = finetune.Task(chosen(task.cohort, order), NAME, DISEASES)
    assert fingerprint(shuffled, split=split[order]) == found["as it is"]
    assert fingerprint(seed=np.int64(0)) == found["as it is"]
    monkeypatch.setattr(finetune.Path, "read_bytes", lambda path: b"other code")
    found["code"] = fingerprint()
    assert len(set(found.values())) == len(found)


def test_a_folder_of_another_run_is_refused(task, tmp_path):
    run = tune(task, "linear probe", folder=str(tmp_path / "mine"))
    with pytest.raises(ValueError, match=r"differs in seed, learning_rate .*name another folder"):
        tune(task, "linear probe", folder=tmp_path / "mine", seed=1, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"adapts phantom-resnet .*this is phantom-vit"):
        finetune.restore("phantom-vit", run.folder)
    with pytest.raises(ValueError, match="no finished run"):
        finetune.restore(NAME, tmp_path)


@pytest.mark.parametrize("name", ["run.json", "done.pt", "best", "last.pt"])
def test_a_damaged_file_is_named(task, name, monkeypatch):
    if name == "last.pt":
        monkeypatch.setattr(finetune, "_write", lambda *_: None)
    run = tune(task, "linear probe")
    path = run.folder / (f"best-{run.best_epoch}.safetensors" if name == "best" else name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=f"{path.name} cannot be read .*remove its folder to train"
    ):
        if name == "best":
            finetune.restore(NAME, run.folder)
        else:
            tune(task, "linear probe")


def test_weights_other_than_those_that_predicted_are_refused(task):
    run, other = (tune(task, "linear probe", seed=s, epochs=1) for s in (0, 1))
    best = "best-1.safetensors"
    (run.folder / best).write_bytes((other.folder / best).read_bytes())
    with pytest.raises(ValueError, match="not hold the weights that the run ended with"):
        finetune.restore(NAME, run.folder)


def test_weights_of_networks_built_otherwise_are_refused(task, monkeypatch):
    run, build = tune(task, "LoRA", epochs=1), finetune.build
    monkeypatch.setattr(finetune, "build", lambda model, _, *rest: build(model, "full", *rest))
    with pytest.raises(ValueError, match="of another version of this library"):
        finetune.restore(NAME, run.folder)


def test_runs_on_credentialed_films_stay_with_the_data(task, cache, tmp_path):
    keep = tmp_path / "data" / "derived"
    guarded = with_cohort(task, replace(task.cohort, access="credentialed", keep=keep))
    run = tune(guarded, "linear probe")
    assert run.folder.is_relative_to(keep) and not cache.exists()
    with pytest.raises(ValueError, match=r"have to stay in .*derived"):
        tune(guarded, "linear probe", folder=tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_named(task, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be kept in .*file.*CXRBOOK_CACHE"):
        tune(task, "linear probe", folder=tmp_path / "file" / "run")


# --- search ---


def test_the_search_takes_the_lowest_validation_loss(task, untrainable):
    task, rates = misleading(task), (0.1, 1e-4, 1e30)
    settings = finetune.settings_for("linear probe", epochs=6, batch=8)
    table = finetune.search(task, "linear probe", rates=rates, settings=settings, seed=3)
    expected = [
        tune(task, "linear probe", seed=3, keep=False, epochs=6, learning_rate=rate).history
        for rate in rates[:2]
    ]
    expected = [history["valid_loss"] for history in expected]
    assert expected[0].min() < expected[0].iloc[-1]
    assert table["learning_rate"].tolist() == list(rates)
    assert table["valid_loss"][:2].tolist() == [losses.min() for losses in expected]
    assert table.loc[2, ["valid_loss", "best_epoch"]].isna().all()
    assert table["chosen"].tolist() == [False, True, False]
    test = task.cohort.table["split"] == "test"
    flipped = task.cohort.table["disease"].mask(test, "Edema")
    again = finetune.search(
        with_table(task, disease=flipped),
        "linear probe",
        rates=rates,
        settings=settings,
        seed=3,
        keep=False,
    )
    pd.testing.assert_frame_equal(again, table)
    untrainable()
    tune(task, "linear probe", seed=3, epochs=6, learning_rate=1e-4)


def test_a_search_without_a_rate_that_works_says_so(task):
    settings = finetune.settings_for("full", **SHORT)
    with pytest.raises(FloatingPointError, match=r"ran away at every rate tried \(1e\+30\)"):
        finetune.search(task, "full", rates=[1e30], settings=settings)
    with pytest.raises(ValueError, match="one learning rate or more"):
        finetune.search(task, "full", rates=[])


# --- bad input, and what has no effect ---


def test_bad_input_says_what_was_expected(task):
    split = task.cohort.table["split"].to_numpy()
    disease = task.cohort.table["disease"]
    edema = (disease == "Edema").to_numpy()
    four = [d for d in DISEASES if d not in ("Edema", "Pneumothorax")]
    for match, call in (
        ("expected one of linear probe, MLP, LoRA, full", lambda: tune(task, "LP")),
        ("expected one of linear probe", lambda: finetune.search(task, "LORA")),
        (
            "no training image of class Edema: take another split",
            lambda: tune(task, "MLP", split=np.where(edema, "test", split)),
        ),
        (
            "no images in split 'valid'",
            lambda: tune(task, "MLP", split=np.where(split == "valid", "train", split)),
        ),
        (
            "split: 3 entries, the cohort has 54 images",
            lambda: tune(task, "MLP", split=split[:3]),
        ),
        (
            "split holds nan, validation; expected train",
            lambda: tune(
                task, "MLP", split=pd.Series(split).replace({"valid": "validation", "test": np.nan})
            ),
        ),
        ("augment=True: MLP is trained on", lambda: tune(task, "MLP", augment=True)),
        ("no column 'finding' with one class", lambda: replace(task, target="finding")),
        ("outside labels: Edema, Pneumothorax; name", lambda: replace(task, labels=four)),
        ("9 of 54 images have no class", lambda: with_table(task, disease=disease.mask(edema))),
        ("labels='Edema': expected two or more", lambda: replace(task, labels="Edema")),
        ("expected two or more different", lambda: replace(task, labels=["a", "a"])),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    without = replace(task.cohort, table=task.cohort.table.drop(columns="split"))
    with pytest.raises(ValueError, match="no column 'split': give one with split="):
        tune(with_cohort(task, without), "MLP")


def test_an_ensemble_is_refused_with_what_to_do(task):
    ensemble = Ensemble("two checkpoints", (task.model, task.model))
    with pytest.raises(ValueError, match=r"ensemble of 2 checkpoints: .*model.members\[0\]"):
        finetune.Task(task.cohort, ensemble, DISEASES)


def test_images_are_needed(task):
    without = replace(task.cohort, images=None)
    with pytest.raises(ValueError, match="metadata only; embeddings need images"):
        tune(finetune.Task(without, NAME, DISEASES), "full")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no GPU")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device='cuda': torch cannot use it here"):
        models.load_model(NAME, device="cuda")


def test_settings_that_a_strategy_has_no_use_for_change_nothing(task):
    plain = tune(task, "linear probe", keep=False)
    asked = tune(task, "linear probe", keep=False, rank=9, recompute=True)
    assert plain.weights == asked.weights
    with pytest.raises(ValueError, match="recompute=True: this network has no transformer"):
        tune(task, "full", recompute=True)


# --- progress ---


def test_progress_of_a_resumed_run_has_epoch_losses_and_time_left(capsys, monkeypatch):
    monkeypatch.delenv(STATUS, raising=False)
    clock = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[-1])
    row = {"train_loss": 1.25, "valid_loss": 1.5, "valid_accuracy": 0.4}
    with Bar(5, "m, full", "epoch") as bar:
        for epoch, now in ((2, 30.0), (3, 80.0)):
            clock.append(now)
            finetune._report(bar, row | {"epoch": epoch}, 5)
        line, *_ = capsys.readouterr().err.splitlines()
    assert line.startswith("m, full: 3 of 5 epochs, ") and "01:20 left" in line
    assert line.endswith("loss 1.250 in training, 1.500 in validation (accuracy 0.40)")

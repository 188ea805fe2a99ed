"""Fine-tuning: learns, is repeatable, trains what it says, and stops with a reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrlib import cohorts, finetune, models
from cxrlib.cohorts.nih6x200 import DISEASES

NAME = "phantom-resnet"


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom-6x200")


def accuracy(run):
    best = run.predictions.loc[run.predictions.groupby("image_id")["score"].idxmax()]
    return best["y_true"].mean()


def test_linear_probe_matches_logistic_regression(cohort):
    """Trained to the end, the head is a multinomial logistic regression on standardised inputs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from cxrlib.embed import embed

    run = finetune.fine_tune(cohort, NAME, "linear probe", DISEASES, epochs=60)
    z = embed(cohort, NAME)
    at = {s: (cohort.table["split"] == s).to_numpy() for s in ("train", "test")}
    scale = StandardScaler().fit(z[at["train"]])
    reference = LogisticRegression(max_iter=2000).fit(
        scale.transform(z[at["train"]]), cohort.table.loc[at["train"], "disease"]
    )
    expected = reference.score(
        scale.transform(z[at["test"]]), cohort.table.loc[at["test"], "disease"]
    )
    assert accuracy(run) == pytest.approx(expected, abs=0.05)
    assert accuracy(run) > 0.6


def test_only_test_images_are_predicted_and_scores_sum_to_one(cohort):
    run = finetune.fine_tune(cohort, NAME, "MLP", DISEASES, epochs=3)
    test = cohort.table.loc[cohort.table["split"] == "test", "image_id"]
    assert set(run.predictions["image_id"]) == set(test)
    np.testing.assert_allclose(run.predictions.groupby("image_id")["score"].sum(), 1)
    assert run.best_epoch == run.history.set_index("epoch")["valid_loss"].idxmin()


@pytest.mark.parametrize("strategy", ["linear probe", "LoRA", "full"])
def test_the_same_seed_gives_the_same_predictions(cohort, strategy):
    small = few(cohort, 12)
    a, b = (finetune.fine_tune(small, NAME, strategy, DISEASES, epochs=1, seed=5) for _ in range(2))
    np.testing.assert_array_equal(a.predictions["score"], b.predictions["score"])


def few(cohort, per_class):
    rows = cohort.table.groupby(["disease", "split"]).head(per_class).index
    images = cohort.images
    return replace(
        cohort,
        table=cohort.table.loc[rows].reset_index(drop=True),
        images=lambda positions: images(rows.to_numpy()[np.asarray(positions)]),
        recipe=cohort.recipe | {"few": per_class},
    )


@pytest.mark.parametrize("name", ["phantom-resnet", "phantom-vit"])
def test_lora_trains_adapters_alone_and_merges_to_the_same_output(name):
    encoder = models.load(name).network.visual
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    adapted = finetune.add_lora(encoder)
    trainable = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in n for n in trainable)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 64, 64)
    start = adapted(x).detach()
    for _ in range(2):
        optimizer.zero_grad()
        adapted(x).square().mean().backward()
        optimizer.step()
    tuned = adapted(x).detach()
    assert (tuned - start).abs().max() > 1e-4
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(x), tuned, atol=1e-4, rtol=1e-4)
    frozen = [k for k in before if "norm" in k or "bn" in k or k.startswith("ln_")]
    assert all(torch.equal(merged.state_dict()[k], before[k]) for k in frozen)


def test_a_bypassed_adapter_is_refused():
    from peft import LoraConfig, get_peft_model

    encoder = models.load("phantom-resnet").network.visual
    targets = ["attnpool.q_proj", "attnpool.c_proj", "layer1.0.conv1"]
    adapted = get_peft_model(encoder, LoraConfig(r=2, target_modules=targets))
    with pytest.raises(RuntimeError, match="without a gradient"):
        finetune._check_gradients(adapted)


def test_full_fine_tuning_leaves_the_loaded_model_alone(cohort):
    model = models.load(NAME)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    finetune.fine_tune(few(cohort, 8), model, "full", DISEASES, epochs=1)
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


def test_an_encoder_that_cannot_be_adapted_yet_is_named(cohort):
    model = replace(models.load(NAME), network=torch.nn.Linear(2, 2), name="another")
    with pytest.raises(ValueError, match="'another' is not; linear probe and MLP take any"):
        finetune.fine_tune(few(cohort, 8), model, "LoRA", DISEASES, epochs=1)


def test_bad_input_says_what_was_expected(cohort):
    with pytest.raises(ValueError, match="expected one of linear probe, MLP, LoRA, full"):
        finetune.fine_tune(cohort, NAME, "prompt tuning", DISEASES)
    no_edema = replace(
        cohort,
        table=cohort.table.assign(
            split=np.where(cohort.table["disease"] == "Edema", "test", cohort.table["split"])
        ),
    )
    with pytest.raises(ValueError, match="no training image of class Edema"):
        finetune.fine_tune(no_edema, NAME, "linear probe", DISEASES)
    no_valid = replace(
        cohort, table=cohort.table.assign(split=cohort.table["split"].replace("valid", "train"))
    )
    with pytest.raises(ValueError, match="no images in split 'valid'"):
        finetune.fine_tune(no_valid, NAME, "linear probe", DISEASES)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        finetune.fine_tune(few(cohort, 20), NAME, "full", DISEASES, epochs=3, learning_rate=1e30)

"""Fine-tuning: what is trained, on which images, what is kept of it, and how it fails."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cxrlib import cohorts, finetune
from cxrlib.cohorts.nih6x200 import DISEASES

NAME = "phantom-resnet"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Runs and embeddings are kept in a folder of the test."""
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom-6x200")


@pytest.fixture(scope="module")
def task(cohort, tmp_path_factory):
    """All 1,200 images; their embeddings are read in here, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        task = finetune.Task(cohort, NAME, DISEASES)
        _ = task.embeddings
    return task


def probabilities(run):
    """Scores, one row an image and one column a class."""
    return run.predictions.pivot(index="image_id", columns="label", values="score")


def test_a_linear_probe_is_a_multinomial_logistic_regression(task):
    """Trained to the end, with weight decay as its penalty."""
    settings = finetune.settings_for("linear probe", epochs=60)
    run = finetune.fine_tune(task, "linear probe", settings=settings)
    split = task.cohort.table["split"].to_numpy()
    z = task.embeddings.numpy()
    z = (z - z[split == "train"].mean(0)) / z[split == "train"].std(0)
    truth = task.cohort.table["disease"]
    reference = LogisticRegression(max_iter=2000).fit(z[split == "train"], truth[split == "train"])
    expected = reference.score(z[split == "test"], truth[split == "test"])
    best = run.predictions.loc[run.predictions.groupby("image_id")["score"].idxmax()]
    assert best["y_true"].mean() == pytest.approx(expected, abs=0.05)


def test_only_test_images_are_predicted_and_scores_sum_to_one(task):
    run = finetune.fine_tune(task, "MLP", settings=finetune.settings_for("MLP", epochs=5))
    table = task.cohort.table
    assert set(run.predictions["image_id"]) == set(table.loc[table["split"] == "test", "image_id"])
    np.testing.assert_allclose(probabilities(run).sum(axis=1), 1)
    assert run.best_epoch == run.history.set_index("epoch")["valid_loss"].idxmin()

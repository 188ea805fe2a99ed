"""Other prevalences of one sample, against scikit-learn with the same weights."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from cxrlib.stats import prevalence

PREVALENCES = (0.01, 0.2, 0.5)


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.3).astype(int)
    return y, rng.normal(size=300).round(1) + y


def predictions(y, **scores):
    patient = [f"p{k // 2}" for k in range(len(y))]
    films = pd.DataFrame({"patient_id": patient, "y_true": y})
    return pd.concat(films.assign(model=m, score=s) for m, s in scores.items())


@pytest.mark.parametrize("share", PREVALENCES)
def test_weights_give_the_prevalence_and_curves_their_areas(sample, share):
    y, score = sample
    weight = prevalence.weights(y, share)
    assert (weight * y).sum() / weight.sum() == pytest.approx(share)
    assert set(weight[y == 1]) == {1.0}
    curves = prevalence.curves(y, score, [share]).set_index("curve")
    roc = curves.loc["ROC"]
    assert auc(roc["x"], roc["y"]) == pytest.approx(roc_auc_score(y, score))
    pr = curves.loc["precision-recall"]  # from the highest recall to none
    steps = -(np.diff(pr["x"]) * pr["y"].to_numpy()[:-1]).sum()
    expected = average_precision_score(y, score, sample_weight=weight)
    assert steps == pytest.approx(expected)


def test_values_and_the_paired_change(sample):
    y, score = sample
    given = predictions(y, a=score, b=-score)
    table, change = prevalence.prevalence_table(given, PREVALENCES, n_resamples=30)
    found = table.set_index(["model", "prevalence", "metric"])["value"]
    for share in PREVALENCES:
        weight = prevalence.weights(y, share)
        ap = average_precision_score(y, score, sample_weight=weight)
        assert found["a", share, "average_precision"] == pytest.approx(ap)
        assert found["a", share, "adjusted_auprc"] == pytest.approx(1 - np.log(ap) / np.log(share))
    moved = change.set_index(["model", "metric"])
    for model in "ab":
        ends = [found[model, share, "adjusted_auprc"] for share in (0.01, 0.5)]
        row = moved.loc[(model, "adjusted_auprc")]
        assert row["value"] == pytest.approx(ends[1] - ends[0])
        assert row["ci_low"] < row["value"] < row["ci_high"]
    # nothing moves, also in no resample, for a measure that does not know prevalence
    assert moved.loc[("a", "auc"), ["value", "ci_low", "ci_high"]].abs().max() < 1e-12


@pytest.mark.parametrize("positives", [0, 5])
def test_few_films_give_nothing(positives):
    y = (np.arange(100) < positives).astype(int)
    table, change = prevalence.prevalence_table(predictions(y, a=y + 0.5), PREVALENCES)
    assert table["value"].isna().all() and change["value"].isna().all()
    assert (table["note"] != "").all()
    assert positives or prevalence.curves(y, y, PREVALENCES).empty

"""Calibration against scikit-learn and loops written out by hand."""

import numpy as np
import pandas as pd
import pytest
import sklearn.calibration

from cxrlib.stats import calibration


@pytest.fixture
def squeezed():
    """Outcomes and probabilities, some exactly on bin edges."""
    rng = np.random.default_rng(8)
    p = np.round(rng.beta(2, 3, 400), 2)
    p[:4] = 0, 0.1, 0.5, 1
    return (rng.random(400) < p**1.5).astype(int), p


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("n_bins", [3, 10])
def test_reliability_curve_equals_scikit_learn(squeezed, strategy, n_bins):
    y, p = squeezed
    observed, predicted = sklearn.calibration.calibration_curve(
        y, p, n_bins=n_bins, strategy=strategy
    )
    curve = calibration.reliability_curve(y, p, n_bins, strategy)
    np.testing.assert_allclose(curve["observed"], observed, atol=1e-12)
    np.testing.assert_allclose(curve["predicted"], predicted, atol=1e-12)
    assert curve["n"].sum() == 400 and curve["n_positive"].sum() == y.sum()


def test_reliability_curve_equals_the_published_protocol():
    """A case computed with the code of S: bins of width 0.1, empty ones dropped."""
    rng = np.random.Generator(np.random.PCG64(0))
    y = (rng.random(300) < 0.1).astype(int)
    p = 1 / (1 + np.exp(-(0.8 * y + rng.standard_normal(300))))
    curve = calibration.reliability_curve(y, p)
    np.testing.assert_allclose(curve["observed"].iloc[[2, 5, 9]], [0.05714286, 0.07142857, 1.0])
    np.testing.assert_allclose(curve["predicted"].iloc[[0, 9]], [0.04167463, 0.92388], rtol=1e-6)
    cosine_only = calibration.reliability_curve(y, 0.5 + 0.02 * (p - 0.5))
    np.testing.assert_allclose(cosine_only["observed"], [0.03521127, 0.1708861], rtol=1e-6)


def loop_ece(y, p, w, edges):
    """Expected calibration error, one bin after the other."""
    total = 0.0
    for b in range(len(edges) - 1):
        first, last = b == 0, b == len(edges) - 2
        inside = ((p > edges[b]) | first) & ((p <= edges[b + 1]) | last)
        if w[inside].sum() > 0:
            gap = np.average(p[inside], weights=w[inside]) - np.average(
                y[inside], weights=w[inside]
            )
            total += w[inside].sum() / w.sum() * abs(gap)
    return total


def test_calibration_in_the_large_is_predicted_minus_observed(squeezed):
    y, p = squeezed
    w = np.random.default_rng(2).integers(0, 3, (4, 400))
    expected = [np.average(p, weights=v) - np.average(y, weights=v) for v in w]
    np.testing.assert_allclose(calibration.calibration_in_the_large(y, p, w), expected, atol=1e-12)
    assert calibration.calibration_in_the_large([0, 0], [0.25, 0.5]) == 0.375


def test_ece_equals_a_loop(squeezed):
    y, p = squeezed
    w = np.random.default_rng(1).integers(0, 3, 400)
    width, mass = np.linspace(0, 1, 11), np.quantile(p, np.linspace(0, 1, 11))
    for weights in (np.ones(400), w):
        assert calibration.ece_equal_width(y, p, weights) == pytest.approx(
            loop_ece(y, p, weights, width), abs=1e-12
        )
        assert calibration.ece_equal_mass(y, p, weights) == pytest.approx(
            loop_ece(y, p, weights, mass), abs=1e-12
        )
    assert calibration.ece_equal_width(y, p, np.stack([w, w])).shape == (2,)


def test_ece_knows_calibrated_from_overconfident():
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    overconfident = p**2 / (p**2 + (1 - p) ** 2)
    assert calibration.ece_equal_width(y, p) < 0.02
    assert calibration.ece_equal_width(y, overconfident) > 0.08


def predictions(y, p, image_id, patient_id):
    about = {"cohort": "c", "model": "m", "method": "zero-shot", "label": "Edema"}
    columns = {"image_id": image_id, "patient_id": patient_id, **about, "y_true": y, "score": p}
    return pd.DataFrame(columns)


def test_recalibration_finds_the_planted_line_in_each_group():
    rng = np.random.default_rng(1907)
    x = rng.normal(size=40_000)
    sex = np.where(np.arange(len(x)) % 2, "F", "M")
    risk = 1 / (1 + np.exp(-(2 * x - 1 - (sex == "F"))))
    y, p = rng.binomial(1, risk), 1 / (1 + np.exp(-x))
    table = predictions(y, p, np.arange(len(x)), np.arange(len(x))).assign(sex=sex, risk=risk)
    found = calibration.recalibrate(table, table, by=["sex"])
    lines = found.groupby("sex")[["slope", "shift"]].first()
    np.testing.assert_allclose(lines, [[2, -2], [2, -1]], atol=0.1)
    assert (found["score"] - found["risk"]).abs().max() < 0.03
    assert set(calibration.recalibrate(table, table, intercept=False)["shift"]) == {0}
    ill = table[(table["sex"] == "M") & (table["y_true"] == 1)]
    one = calibration.recalibrate(table, ill, by=["sex"])  # no woman, and nobody healthy
    assert set(one["sex"]) == {"M"} and set(one["score"]) == {1} and one["slope"].isna().all()


def test_reliability_table_has_intervals_and_counts(squeezed):
    y, p = squeezed
    table = predictions(y, p, np.arange(400), np.arange(400) // 2)
    both = pd.concat([table, table.assign(model="k", score=0.5)], ignore_index=True)
    found = calibration.reliability_table(both, n_resamples=60)
    one = found[found["model"] == "m"].reset_index(drop=True)
    curve = calibration.reliability_curve(y, p)
    pd.testing.assert_frame_equal(one[list(curve.columns)], curve)
    assert (one["ci_low"] <= one["observed"]).all() and (one["observed"] <= one["ci_high"]).all()
    flat = found[found["model"] == "k"]
    assert flat["n"].tolist() == [400] and flat["n_patients"].tolist() == [200]


def test_reliability_table_names_scores_that_are_no_probabilities(squeezed):
    y, p = squeezed
    table = predictions(y, p, [f"image-{i}" for i in range(400)], np.arange(400))
    table.loc[[7, 9], "score"] = 1.5, -2.0
    message = (
        r"column 'score' holds values outside \[0, 1\] in 2 of 400 rows, first row 7 "
        r"\(image_id 'image-7', label 'Edema', model 'm', score 1.5\), row 9"
    )
    with pytest.raises(ValueError, match=message):
        calibration.reliability_table(table, n_resamples=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: calibration.ece_equal_width([0, 1], [0.2, 1.2]),
            r"p: values outside \[0, 1\] in 1 of 2 rows, first row 1 \(p 1.2\); expected prob",
        ),
        (lambda: calibration.ece_equal_mass([0, 1], [0.2, np.nan]), "p: NaN or infinite"),
        (lambda: calibration.calibration_in_the_large([0, 2], [0.2, 0.3]), "y_true: entries other"),
        (lambda: calibration.ece_equal_width([0, 1], [0.2]), r"y_true, p: shapes \(2,\), \(1,\)"),
        (lambda: calibration.ece_equal_width([], []), "p: no entries"),
        (lambda: calibration.ece_equal_width([0, 1], [0.2, 0.3], n_bins=0), "n_bins: 0; expected"),
        (
            lambda: calibration.reliability_curve([0, 1], [0.2, 0.3], strategy="equal"),
            "strategy='equal': expected one of uniform, quantile",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_risk_by_group_is_what_was_seen_and_said():
    about = {"cohort": "c", "model": "m", "method": "Platt", "label": "Edema"}
    table = pd.DataFrame({"y_true": [1, 0, 0, 1], "score": [0.6, 0.2, 0.1, 0.3]}).assign(**about)
    table = table.assign(sex=["F", "F", "M", "M"])
    off = pd.DataFrame({"attribute": ["sex"]})
    found = calibration.risk_by_group(table, off)
    assert found.loc[("m", "F")].tolist() == pytest.approx([2, 0.5, 0.4])
    assert found.loc[("m", "M")].tolist() == pytest.approx([2, 0.5, 0.2])

"""Drain arms and twins against scikit-learn and planted shifts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from cxrlib.protocol import protocol_of
from cxrlib.stats import bootstrap, shortcuts


def made(reads_drain, n=1500, seed=0):
    """Pneumothorax with drains in two thirds; one model adds `reads_drain` to their score."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.15).astype(int)
    drain = (rng.random(n) < np.where(y, 0.67, 0.02)).astype(int)
    logit = 1.2 * y + reads_drain * drain + rng.normal(size=n) - 2
    return pd.DataFrame(
        {
            "image_id": [f"{seed}-{i}" for i in range(n)],
            "patient_id": rng.integers(0, n // 2, n),
            "cohort": "made",
            "model": "reads drains" if reads_drain else "honest",
            "method": "zero-shot",
            "label": "Pneumothorax",
            "y_true": y,
            "score": 1 / (1 + np.exp(-logit)),
            "drain": drain,
        }
    )


def value(table, group, metric, protocol="as_published"):
    rows = table[
        (table["group"] == group) & (table["metric"] == metric) & (table["protocol"] == protocol)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


GAP = "with drain - without drain"


def test_arms_equal_scikit_learn_on_positives_of_an_arm_and_all_negatives():
    predictions = made(1.5)
    table = shortcuts.drain_arms(predictions, n_resamples=20)
    for group, has in (("with drain", 1), ("without drain", 0)):
        arm = predictions[(predictions["y_true"] == 0) | (predictions["drain"] == has)]
        auc = value(table, group, "auc")
        assert auc["value"] == pytest.approx(
            sklearn.metrics.roc_auc_score(arm["y_true"], arm["score"]), abs=1e-12
        )
        ap = sklearn.metrics.average_precision_score(arm["y_true"], arm["score"])
        assert value(table, group, "adjusted_auprc")["value"] == pytest.approx(
            1 - np.log(ap) / np.log(arm["y_true"].mean()), abs=1e-12
        )
        assert (auc["n"], auc["n_positive"]) == (len(arm), arm["y_true"].sum())
        assert auc["n_patients"] == arm["patient_id"].nunique()


@pytest.mark.parametrize("unit", ["patient", "image"])
def test_gap_interval_is_paired(unit):
    predictions = made(1.5)
    p = replace(protocol_of("as_published"), unit=unit)
    table = shortcuts.drain_arms(predictions, protocols=[p], n_resamples=25)
    loop = []
    y, has = predictions["y_true"].to_numpy(), predictions["drain"].to_numpy()
    for w in bootstrap.patient_weights(predictions["patient_id"], 25, unit=unit):
        auc = []
        for which in (1, 0):
            keep = (y == 0) | (has == which)
            arm = predictions.iloc[np.repeat(np.flatnonzero(keep), w[keep])]
            auc.append(sklearn.metrics.roc_auc_score(arm["y_true"], arm["score"]))
        loop.append(auc[0] - auc[1])
    row = value(table, GAP, "auc")
    np.testing.assert_allclose(
        row[["ci_low", "ci_high"]].astype(float), np.percentile(loop, [2.5, 97.5]), rtol=1e-9
    )
    assert row["unit"] == unit


def test_each_protocol_draws_its_own_unit_and_controls():
    predictions = made(1.5)
    table = shortcuts.drain_arms(predictions, n_resamples=20)
    assert value(table, GAP, "auc")["unit"] == "image"
    assert value(table, GAP, "auc", "corrected")["unit"] == "patient"
    without = predictions[(predictions["y_true"] == 1) | (predictions["drain"] == 0)]
    arm = without[(without["y_true"] == 0) | (without["drain"] == 1)]
    auc = value(table, "with drain", "auc", "corrected")
    assert auc["value"] == pytest.approx(
        sklearn.metrics.roc_auc_score(arm["y_true"], arm["score"]), abs=1e-12
    )
    assert auc["n"] == len(arm) < value(table, "with drain", "auc")["n"]


def test_matched_prevalence_is_the_mean_over_subsamples():
    """Fractional weights stand for many random subsamples of the larger arm."""
    predictions = made(1.0, n=1500)
    any_control = replace(protocol_of("corrected"), drain_controls="any")
    row = value(
        shortcuts.drain_arms(predictions, protocols=[any_control], n_resamples=5),
        "with drain",
        "adjusted_auprc",
        "corrected",
    )
    negatives = predictions[predictions["y_true"] == 0]
    positives = predictions[(predictions["y_true"] == 1) & (predictions["drain"] == 1)]
    smaller = ((predictions["y_true"] == 1) & (predictions["drain"] == 0)).sum()
    assert smaller < len(positives)
    draws = []
    for seed in range(200):
        arm = pd.concat([negatives, positives.sample(smaller, random_state=seed)])
        ap = sklearn.metrics.average_precision_score(arm["y_true"], arm["score"])
        draws.append(1 - np.log(ap) / np.log(arm["y_true"].mean()))
    assert row["value"] == pytest.approx(np.mean(draws), abs=0.01)
    assert "equal prevalence" in row["note"]


def test_matching_leaves_auc_and_the_smaller_arm_alone():
    raw = replace(protocol_of("corrected"), name="as_published", drain_prevalence="raw")
    table = shortcuts.drain_arms(made(1.0), protocols=[raw, "corrected"], n_resamples=20)
    columns = ["value", "ci_low", "ci_high"]
    for group in ("with drain", "without drain", GAP):
        np.testing.assert_allclose(
            value(table, group, "auc")[columns].astype(float),
            value(table, group, "auc", "corrected")[columns].astype(float),
        )
    plain, matched = (
        value(table, "without drain", "adjusted_auprc", p) for p in ("as_published", "corrected")
    )
    assert plain["value"] == pytest.approx(matched["value"])


def test_the_shortcut_is_found_and_the_honest_model_is_not_accused():
    both = pd.concat([made(2.5), made(0.0, seed=3)], ignore_index=True)
    table = shortcuts.drain_arms(both, n_resamples=200)
    table = table[table["protocol"] == "corrected"]
    guilty, honest = (
        value(table[table["model"] == m], GAP, "adjusted_auprc", "corrected")
        for m in ("reads drains", "honest")
    )
    assert guilty["ci_low"] > 0.1
    assert honest["ci_low"] < 0 < honest["ci_high"]


def test_a_small_arm_is_undefined_with_a_reason():
    predictions = made(1.0)
    spare = predictions[(predictions["y_true"] == 1) & (predictions["drain"] == 0)].index[4:]
    table = shortcuts.drain_arms(predictions.drop(spare), n_resamples=5)
    for group in ("without drain", GAP):
        row = value(table, group, "auc", "corrected")
        assert np.isnan(row["value"]) and "4 positive images, fewer than 10" in row["note"]
        assert np.isfinite(value(table, group, "auc")["value"])  # as published: no minimum
    assert np.isfinite(value(table, "with drain", "auc", "corrected")["value"])
    none = predictions[(predictions["y_true"] == 0) | (predictions["drain"] == 1)]
    row = value(shortcuts.drain_arms(none, n_resamples=5), "without drain", "auc")
    assert np.isnan(row["value"]) and "0 positive images" in row["note"]


def test_controls_of_a_protocol_and_unknown_devices():
    """Each choice of controls equals scikit-learn on the rows that it names."""
    predictions = made(1.5)
    rng = np.random.default_rng(1)
    hidden = rng.random(len(predictions)) < np.where(predictions["y_true"], 0.1, 0.5)
    ill = predictions["y_true"] == 1
    holed = predictions.assign(drain=predictions["drain"].astype("Int8").mask(hidden))
    protocols = [
        replace(protocol_of("corrected"), name=which, drain_controls=which)
        for which in ("any", "without", "with")
    ]
    table = shortcuts.drain_arms(holed, protocols=protocols, n_resamples=5)
    known = {
        "any": ~ill,
        "without": ~ill & ~hidden & (predictions["drain"] == 0),
        "with": ~ill & ~hidden & (predictions["drain"] == 1),
    }
    for which, controls in known.items():
        for group, has in (("with drain", 1), ("without drain", 0)):
            arm = predictions[controls | (ill & ~hidden & (predictions["drain"] == has))]
            row = value(table, group, "auc", which)
            assert row["value"] == pytest.approx(
                sklearn.metrics.roc_auc_score(arm["y_true"], arm["score"]), abs=1e-12
            )
            assert row["n"] == len(arm)
            kept = "kept" if which == "any" else "left out"
            counts = f"{hidden[ill].sum()} positive images of unknown drain left out, "
            counts += f"{hidden[~ill].sum()} control images of unknown drain {kept}"
            assert row["note"].endswith(counts)


def test_controls_that_nobody_knows_are_undefined_with_a_reason():
    predictions = made(1.5, n=400)
    holed = predictions.assign(drain=predictions["drain"].where(predictions["y_true"] == 1))
    table = shortcuts.drain_arms(holed, n_resamples=5)
    assert np.isfinite(value(table, GAP, "auc")["value"])  # as published: all controls
    for group in ("with drain", "without drain", GAP):
        row = value(table, group, "auc", "corrected")
        assert np.isnan(row["value"])
        assert row["note"].startswith("0 control images without drain, fewer than 10")
    nothing = shortcuts.drain_arms(predictions.assign(drain=np.nan), n_resamples=5)
    assert nothing["value"].isna().all() and nothing["note"].ne("").all()


def test_twin_shift_is_the_planted_shift_in_standard_deviations():
    rng = np.random.default_rng(0)
    reference = 3 * rng.normal(size=2000)
    changed = reference + 1.5 + 0.1 * rng.normal(size=2000)
    patient = np.repeat(np.arange(1000), 2)
    row = shortcuts.twin_shift(
        changed, reference, patient, n_resamples=200, model="m", label="Pneumothorax"
    ).iloc[0]
    assert row["ci_low"] < 0.5 < row["ci_high"]
    assert row["value"] == pytest.approx(np.mean(changed - reference) / np.std(reference))
    assert (row["n"], row["n_patients"], row["model"]) == (2000, 1000, "m")
    same = shortcuts.twin_shift(reference, reference, patient, n_resamples=10).iloc[0]
    assert same["value"] == same["ci_high"] == 0


def test_score_shifts_are_those_of_the_log_odds_by_model_and_group():
    rng = np.random.default_rng(0)
    about = {"cohort": "made", "label": "Pneumothorax"}
    image = [f"i{i}" for i in range(300)]
    table = pd.DataFrame({"image_id": image, "patient_id": image, "film": ["ill", "healthy"] * 150})
    ill = (table["film"] == "ill").to_numpy()
    before, after = [], []
    for model, moves in (("reads", 2.0), ("ignores", 0.0)):
        logit = 1.7 * rng.normal(size=300)
        named = table.assign(model=model, **about)
        before.append(named.assign(score=1 / (1 + np.exp(-logit))))
        after.append(named.assign(score=1 / (1 + np.exp(-logit - moves * ~ill))))
        sd = np.std(logit[~ill])
        if moves:
            expected = moves / sd
    before, after = pd.concat(before), pd.concat(after)
    found = shortcuts.score_shifts(after, before, "film", n_resamples=5)
    value = found.set_index(["model", "group"])["value"]
    assert value["reads", "healthy"] == pytest.approx(expected)
    assert value.drop(("reads", "healthy")).abs().max() < 1e-12
    with pytest.raises(ValueError, match="same models and images in the same order"):
        shortcuts.score_shifts(after[::-1], before, "film", n_resamples=5)


def test_what_is_known_of_a_device_decides_the_controls():
    table = pd.DataFrame({"image_id": range(10), "Pneumothorax": [1] * 4 + [0] * 6})
    table["drain"] = [1, 1, 0, np.nan, 0, 0, np.nan, 1, 0, np.nan]
    device, status = shortcuts.device_status(table.assign(support_devices=1))
    counts = shortcuts.carriers(status)
    assert device == "drain" and counts.loc["pneumothorax"].tolist() == [2, 1, 1]
    assert counts.loc["controls"].tolist() == [1, 3, 2]
    assert [p.drain_controls for p in shortcuts.arm_protocols(counts)] == ["any", "without"]
    few = status.assign(drain=status["drain"].where(status.index < 5))
    kept = shortcuts.arm_protocols(shortcuts.carriers(few))
    assert [p.drain_controls for p in kept] == ["any", "any"] and kept[1].unit == "patient"
    other = table.rename(columns={"drain": "support_devices"})
    assert shortcuts.device_status(other)[0] == "support devices"
    assert shortcuts.device_status(table[["image_id", "Pneumothorax"]])[1]["drain"].isna().all()
    with pytest.raises(ValueError, match="no labels of Pneumothorax"):
        shortcuts.device_status(table[["image_id"]])


def test_device_readers_by_the_side_of_their_intervals():
    def rows(limits):
        return pd.DataFrame(limits, columns=["model", "ci_low", "ci_high"])

    gaps = rows([("a", 0.1, 0.2), ("b", -0.1, 0.1), ("c", np.nan, np.nan)])
    shifts = rows([("a", 0.4, 0.9), ("b", 0.6, 0.9), ("c", 0.1, 0.2)])
    found = shortcuts.device_readers(gaps, shifts, {"a": True, "b": False, "c": None}, 0.5)
    assert found.to_numpy().tolist() == [
        ["a", "yes", "yes", "no"],
        ["b", "no", "no", "yes"],
        ["c", "not known", "undefined", "no"],
    ]


def test_twin_shift_of_a_constant_margin_is_undefined():
    row = shortcuts.twin_shift(np.ones(5), np.zeros(5) + 0.3, np.arange(5), n_resamples=5).iloc[0]
    assert np.isnan(row["value"]) and row["note"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: shortcuts.drain_arms(t, "Edema"), "label: no rows for 'Edema'"),
        (lambda t: shortcuts.drain_arms(t, device="tube"), "'tube' is missing"),
        (
            lambda t: shortcuts.drain_arms(t.assign(drain=np.where(t.index == 3, -1, t["drain"]))),
            r"'drain' is neither 0 nor 1 in 1 of 50 rows, first row 3 \(image_id '0-3', drain -1\)",
        ),
        (
            lambda t: shortcuts.drain_arms(t, protocols=["paper"]),
            "protocol='paper': expected one of",
        ),
        (
            lambda t: shortcuts.drain_arms(
                t, protocols=[replace(protocol_of("corrected"), drain_controls="some")]
            ),
            "drain_controls='some': expected one of any, without, with",
        ),
        (lambda t: shortcuts.twin_shift([1, 2], [1], [0, 1]), "expected three equal"),
        (lambda t: shortcuts.twin_shift([np.nan], [1], [0]), "infinite margins in 1 of 1 rows"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(made(1.0, n=50))

"""The protocol object, and as_published against figures computed with the code of S itself.

The figures of `FIGURES` come from running S's functions; ../shared/parity/reference_protocol.json
holds the same ones, and is read where it is there.
"""

import json
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlib.cohorts import metadata
from cxrlib.protocol import NAMES, Protocol, differences, protocol_of, switches
from cxrlib.stats import calibration, probes
from cxrlib.stats.as_published import performance_by_protocol
from tests.conftest import ROOT

REFERENCE = ROOT.parent / "shared" / "parity" / "reference_protocol.json"
FIGURES = {
    "bootstrap_300": {
        "positives": 32,
        "auc": 0.7474347,
        "auc_ci": [0.6557578, 0.8302271],
        "average_precision": 0.3930513,
        "adjusted_auprc": 0.5827544,
        "adjusted_auprc_ci": [0.4030535, 0.7273465],
    },
    "bootstrap_rare": {
        "auc": 0.1315789,
        "auc_ci": [0.0, 0.3513514],
        "adjusted_auprc": -0.05628764,
        "adjusted_auprc_ci": [-0.08554554, 0.1305376],
        "kept_resamples": "911 of the 1000 AUC resamples and 888 of the AUPRC ones had a positive",
    },
    "calibration_300": {
        "prob_true": [
            0.0,
            0.0,
            0.05714286,
            0.02941176,
            0.03636364,
            0.07142857,
            0.125,
            0.2173913,
            0.1764706,
            1.0,
        ],
        "prob_pred": [
            0.04167463,
            0.1671497,
            0.2573457,
            0.3461292,
            0.4443284,
            0.5539689,
            0.6514469,
            0.7515799,
            0.8585309,
            0.92388,
        ],
    },
    "calibration_no_temperature": {
        "prob_true": [0.03521127, 0.1708861],
        "prob_pred": [0.4967212, 0.5037118],
    },
    "centroids": {
        "centroid_difference_sorted": [
            0.7742221,
            0.4572777,
            0.3156169,
            0.2407367,
            0.1143379,
            0.07605277,
        ],
        "order_of_dimensions": [0, 2, 3, 1, 4, 5],
        "pca_joint_abs_first_image": [0.06690731, 1.342378],
        "pca_images_only_abs_first_image": [1.001707, 0.2310596],
    },
    "group_split_60": {
        "test_positions": [*range(21, 30), 45, 46, 47],
        "correct_nested_train_rows": [*range(12), *range(15, 21), *range(36, 45), *range(48, 60)],
        "nested_val_positions_within_train_val": [12, 13, 14, *range(21, 27)],
        "rows_whose_features_upstream_really_takes": [*range(12), *range(15, 21), *range(27, 48)],
    },
}
AGES = {17: None, 18: "18-25", 24: "18-25", 25: "25-50", 49: "25-50", 50: "50-65", 64: "50-65"}
AGES |= {65: "65-80", 79: "65-80", 80: "80+", 95: "80+"}
FULL = {"n_resamples": 1000, "seed": 1907}


def printed(x):
    """Seven significant digits, as the reference prints them."""
    return [float(f"{v:.7g}") for v in np.atleast_1d(np.asarray(x, dtype=float))]


def predictions(y, p, **columns):
    rows = {"image_id": range(len(y)), "patient_id": range(len(y)), "cohort": "c", "model": "m"}
    rows |= {"method": "zero-shot", "label": "a", "y_true": y, "score": p}
    return pd.DataFrame(rows | columns)


def case_300():
    g = np.random.Generator(np.random.PCG64(0))
    y = g.random(300) < 0.1
    p = 1 / (1 + np.exp(-(0.8 * y + g.standard_normal(300))))
    return y.astype(int), p, g


def case_rare():
    y = np.zeros(40, dtype=int)
    y[[3, 17]] = 1
    return y, np.linspace(0, 1, 40)[np.argsort(case_300()[2].random(40))]


def case_centroids():
    h = np.random.Generator(np.random.PCG64(1))
    images, texts = h.standard_normal((20, 6)), h.standard_normal((20, 6))
    return images, texts + np.array([1, 0, 0, -0.5, 0, 0])


# --- the object ------------------------------------------------------------------------------


def test_the_two_protocols_differ_in_every_switch_and_each_is_explained():
    table = differences()
    assert list(table.index) == switches() == [f.name for f in fields(Protocol)][1:]
    assert (table["as_published"] != table["corrected"]).all()
    assert (table[["decides", "why", "seen in"]] != "").all().all()


def test_every_switch_is_read_by_the_library_or_a_chapter():
    sources = [p for p in (ROOT / "cxrlib").rglob("*.py") if p.name != "protocol.py"]
    code = "\n".join(p.read_text() for p in [*sources, *(ROOT / "chapters").glob("*.py")])
    reader = r"\b(?:p|chosen|as_published|corrected|protocol\([^()]*\))"
    unread = [name for name in switches() if not re.search(rf"{reader}\.{name}\b", code)]
    assert unread == []


def test_one_switch_can_be_turned_alone():
    mixed = replace(protocol_of("corrected"), name="mixed", unit="image")
    assert protocol_of(mixed) is mixed
    assert list(differences("corrected", mixed).index) == ["unit"]
    with pytest.raises(FrozenInstanceError):
        mixed.unit = "patient"


def test_an_unknown_name_is_refused():
    with pytest.raises(
        ValueError, match="protocol='published': expected one of as_published, corrected"
    ):
        protocol_of("published")
    with pytest.raises(ValueError, match="protocol=None: expected one of"):
        performance_by_protocol(predictions(*case_300()[:2]), protocol=None)


# --- as published, to the digit --------------------------------------------------------------


@pytest.mark.skipif(not REFERENCE.exists(), reason="../shared is not beside this checkout")
def test_the_figures_are_those_of_the_reference():
    reference = json.loads(REFERENCE.read_text())
    for case, figures in FIGURES.items():
        for name, value in figures.items():
            assert reference["numeric_cases"][case][name] == value, (case, name)
    check = reference["subgroups"]["age"]["check"]
    assert {int(age): group for age, group in check.items()} == AGES


@pytest.mark.parametrize(
    ("case", "sample", "kept"),
    [("bootstrap_300", case_300, (1000, 1000)), ("bootstrap_rare", case_rare, (911, 888))],
)
def test_bootstrap_of_the_running_stream(case, sample, kept):
    unrounded = replace(protocol_of("as_published"), digits=None)
    y, p = sample()[:2]
    table = performance_by_protocol(predictions(y, p), protocol=unrounded, **FULL)
    table = table[table["label"] == "a"].set_index("metric")
    for metric, usable in zip(("auc", "adjusted_auprc"), kept, strict=True):
        row = table.loc[metric]
        assert printed(row["value"]) == [FIGURES[case][metric]]
        assert printed(row[["ci_low", "ci_high"]]) == FIGURES[case][f"{metric}_ci"]
        assert row["n_replicates"] == usable
    assert table.loc["auc", "n_positive"] == y.sum()
    rounded = performance_by_protocol(predictions(y, p), **FULL).set_index(["label", "metric"])
    row = rounded.loc["a", "auc"]
    assert row["value"] == round(FIGURES[case]["auc"], 2)
    assert [row["ci_low"], row["ci_high"]] == [round(x, 2) for x in FIGURES[case]["auc_ci"]]
    assert (row["protocol"], row["unit"], row["seed"]) == ("as_published", "image", 1907)


def test_calibration():
    y, p, _ = case_300()
    squeezed = 0.5 + 0.02 * (p - 0.5)
    for case, scores in (("calibration_300", p), ("calibration_no_temperature", squeezed)):
        curve = calibration.reliability_curve(y, scores)
        assert printed(curve["observed"]) == FIGURES[case]["prob_true"]
        assert printed(curve["predicted"]) == FIGURES[case]["prob_pred"]


def test_centroids_and_mixed_axes():
    images, texts = case_centroids()
    figures = FIGURES["centroids"]
    differences = probes.centroid_differences(images, texts)
    assert printed(differences) == figures["centroid_difference_sorted"]
    order = np.argsort(-np.abs(images.mean(axis=0) - texts.mean(axis=0)))
    assert order.tolist() == figures["order_of_dimensions"]
    (joint, _), joint_share = probes.project(images, texts)
    alone, alone_share = probes.project(images)
    assert printed(np.abs(joint[0])) == figures["pca_joint_abs_first_image"]
    assert printed(np.abs(alone[0])) == figures["pca_images_only_abs_first_image"]
    points, share = probes.image_panel(images, texts, axes=protocol_of("as_published").pca_axes)
    x, y = figures["pca_joint_abs_first_image"][0], figures["pca_images_only_abs_first_image"][1]
    assert printed(np.abs(points[0])) == [x, y]
    assert share.tolist() == [joint_share[0], alone_share[1]]
    points, share = probes.image_panel(images, texts, axes=protocol_of("corrected").pca_axes)
    np.testing.assert_array_equal(points, alone)
    assert share.tolist() == alone_share.tolist()


def test_rows_with_which_probes_are_tuned():
    figures = FIGURES["group_split_60"]
    train, valid, test = probes.patient_split((np.arange(60) // 3) % 17)
    assert test.tolist() == figures["test_positions"]
    assert train.tolist() == figures["correct_nested_train_rows"]
    own = probes.tuning_rows(train, valid, protocol_of("corrected").probe_tuning)
    assert [rows.tolist() for rows in own] == [train.tolist(), valid.tolist()]
    taken = probes.tuning_rows(train, valid, protocol_of("as_published").probe_tuning)
    assert taken[0].tolist() == figures["rows_whose_features_upstream_really_takes"]
    assert taken[1].tolist() == figures["nested_val_positions_within_train_val"]


def test_age_groups():
    found = metadata.age_group(list(AGES))
    assert [None if pd.isna(g) else g for g in found] == list(AGES.values())


# --- the whole table -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_findings():
    """Two findings in two groups; each patient has three alike images."""
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(60), 3)
    sex = np.where(rng.random(60) < 0.5, "F", "M")[patient]
    parts = []
    for label, share in (("a", 0.3), ("b", 0.2)):
        y = (rng.random(60) < share)[patient].astype(int)
        p = 1 / (1 + np.exp(-(y + rng.normal(size=60)[patient] + 0.3 * rng.normal(size=180) - 1)))
        parts.append(predictions(y, p, patient_id=patient, sex=sex, label=label))
    return pd.concat(parts, ignore_index=True)


def test_one_stream_runs_through_findings_groups_and_metrics(two_findings):
    """The same table from a plain loop over scikit-learn."""

    def adjusted(y, p):
        return 1 - np.log(average_precision_score(y, p)) / np.log(y.mean())

    found = performance_by_protocol(two_findings, {"sex": ["M", "F"]}, n_resamples=40, seed=5)
    stream = np.random.RandomState(5)
    expected = []
    for label in ("a", "b"):
        block = two_findings[two_findings["label"] == label]
        for group in ("all", "M", "F"):
            part = block if group == "all" else block[block["sex"] == group]
            y, p = part["y_true"].to_numpy(), part["score"].to_numpy()
            for metric, of in (
                ("auc", roc_auc_score),
                ("adjusted_auprc", adjusted),
            ):
                resamples = [stream.randint(0, len(y), len(y)) for _ in range(40)]
                values = [of(y[i], p[i]) for i in resamples if y[i].any()]
                limits = np.percentile(values, [2.5, 97.5])
                expected.append([label, group, metric, *np.round([of(y, p), *limits], 2)])
    columns = ["label", "group", "metric", "value", "ci_low", "ci_high"]
    assert found.loc[found["label"] != "mean", columns].to_numpy().tolist() == expected

    mean = found[found["label"] == "mean"].set_index("metric")["value"]
    for metric in ("auc", "adjusted_auprc"):
        values = [row[3] for row in expected if row[1] == "all" and row[2] == metric]
        assert mean[metric] == pytest.approx(np.mean(values), abs=0.005 + 1e-9)
        spread = mean[f"{metric}_sd_over_labels"]
        assert spread == pytest.approx(np.std(values, ddof=1), abs=0.005 + 1e-9)


def test_the_stream_starts_anew_for_each_model(two_findings):
    other = two_findings.assign(model="another")
    both = performance_by_protocol(pd.concat([two_findings, other]), n_resamples=20)
    limits = [part["ci_low"].tolist() for _, part in both.groupby("model")]
    np.testing.assert_array_equal(*limits)


def test_corrected_draws_patients_once_for_all_findings_and_groups(two_findings):
    """The same limits from a plain loop over scikit-learn, with one set of draws."""
    p = replace(protocol_of("corrected"), interval="percentile", min_cases=1)
    found = performance_by_protocol(two_findings, ("sex",), p, n_resamples=40, seed=5)
    found = found.set_index(["label", "group", "metric"])
    patient = two_findings.loc[two_findings["label"] == "a", "patient_id"].to_numpy()
    rng = np.random.default_rng(5)
    draws = [
        np.concatenate([np.flatnonzero(patient == k) for k in rng.integers(60, size=60)])
        for _ in range(40)
    ]
    for label, images in two_findings.groupby("label"):
        for group in ("F", "M"):
            inside = (images["sex"] == group).to_numpy()
            drawn = [images.iloc[d[inside[d]]] for d in draws]
            auc = [roc_auc_score(d["y_true"], d["score"]) for d in drawn if d["y_true"].any()]
            own, row = images[inside], found.loc[label, group, "auc"]
            assert row["value"] == pytest.approx(roc_auc_score(own["y_true"], own["score"]))
            limits = np.quantile(auc, [0.025, 0.975])
            assert row[["ci_low", "ci_high"]].tolist() == pytest.approx(limits.tolist())
    of_means = np.mean([found.loc[label, "F", "auc"]["value"] for label in "ab"])
    assert found.loc["mean", "F", "auc"]["value"] == pytest.approx(of_means)
    assert set(found["protocol"]) == {"corrected"} and set(found["unit"]) == {"patient"}


def test_patients_drawn_whole_widen_the_interval(two_findings):
    """The unit alone is turned; three alike images a patient count as one."""
    by_image = replace(protocol_of("as_published"), digits=None)
    by_patient = replace(by_image, unit="patient")
    width = []
    for p in (by_image, by_patient):
        row = performance_by_protocol(two_findings, protocol=p, n_resamples=300).iloc[0]
        width.append(row["ci_high"] - row["ci_low"])
    assert width[1] > 1.4 * width[0]


def test_expanded_limits_alone_are_further_apart(two_findings):
    percentile = replace(protocol_of("as_published"), digits=None)
    for p in (percentile, replace(protocol_of("corrected"), interval="percentile")):
        narrow, wide = (
            performance_by_protocol(two_findings, (), q, n_resamples=200)
            for q in (p, replace(p, interval="expanded"))
        )
        narrow, wide = (t[t["ci_low"].notna()] for t in (narrow, wide))
        assert narrow["value"].tolist() == wide["value"].tolist()
        assert (wide["ci_low"] <= narrow["ci_low"]).all() and len(narrow) >= 4
        assert (wide["ci_high"] > narrow["ci_high"]).all()


def test_what_is_undefined_says_why():
    y, p, _ = case_300()
    none = performance_by_protocol(predictions(np.zeros(300, int), p), n_resamples=5).iloc[0]
    assert np.isnan(none["value"]) and "0 positive and 300 negative images" in none["note"]
    # two images, one of each: a resample of positives alone has no AUC, and S's code no interval
    pair = performance_by_protocol(predictions([0, 1], [0.1, 0.9]), n_resamples=20).iloc[0]
    assert pair["value"] == 1 and np.isnan(pair["ci_low"]) and "positives alone" in pair["note"]
    few = replace(protocol_of("as_published"), min_cases=40)
    row = performance_by_protocol(predictions(y, p), protocol=few, n_resamples=5).iloc[0]
    assert np.isnan(row["value"]) and "needs 40 each" in row["note"]


def test_an_unknown_group_is_named(two_findings):
    with pytest.raises(ValueError, match="groups of 'sex': unknown 'X'; expected one of"):
        performance_by_protocol(two_findings, {"sex": ["X"]}, n_resamples=5)


def test_names_are_those_of_results_tables():
    assert NAMES == ("as_published", "corrected")

"""Tables of groups and gaps against scikit-learn loops, fairlearn and planted gaps."""

import statistics
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from fairlearn.metrics import equalized_odds_difference

from cxrlib import schema
from cxrlib.protocol import protocol_of
from cxrlib.stats import as_published, bootstrap, fairness, inference, metrics

AGES = ["25-50", "50-65", "65-80", "80+"]
COUNTS = ["n", "n_positive", "n_negative", "n_patients"]
CORRECTED = protocol_of("corrected")
PERCENTILE = replace(CORRECTED, interval="percentile")


def cohort(n=900, seed=0, patients=500):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "patient_id": rng.integers(0, patients, n),
            "cohort": "made",
            "sex": rng.choice(["F", "M"], n),
            "age_group": rng.choice(
                ["25-50", "50-65", "65-80", "80+"], n, p=[0.4, 0.3, 0.27, 0.03]
            ),
        }
    )


def predict(images, models=("a", "b"), labels=("Edema", "Pneumonia", "Pneumothorax"), seed=1):
    """Scores whose separation is 1.5 for women and 0.5 for men."""
    rng = np.random.default_rng(seed)
    separation = np.where(images["sex"] == "F", 1.5, 0.5)
    blocks = []
    for i, label in enumerate(labels):
        y = (rng.random(len(images)) < 0.3 / (i + 1)).astype(int)
        for model in models:
            logit = separation * y + rng.normal(size=len(images)) - 1
            blocks.append(
                images.assign(
                    model=model,
                    method="zero-shot",
                    label=label,
                    y_true=y,
                    score=1 / (1 + np.exp(-logit)),
                )
            )
    return pd.concat(blocks, ignore_index=True)


@pytest.fixture(scope="module")
def predictions():
    return predict(cohort())


def pick(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, f"{len(table)} rows for {where}"
    return table.iloc[0]


def adjusted(y, score):
    return 1 - np.log(sklearn.metrics.average_precision_score(y, score)) / np.log(y.mean())


def test_performance_table_equals_a_scikit_learn_loop(predictions):
    table = fairness.performance_table(
        predictions, attributes=("sex",), n_resamples=30, protocol=PERCENTILE
    )
    weights = bootstrap.patient_weights(cohort()["patient_id"], 30)
    block = predictions[(predictions["model"] == "b") & (predictions["label"] == "Pneumonia")]
    y, score = block["y_true"].to_numpy(), block["score"].to_numpy()
    for group, mask in (("all", np.ones(900, bool)), ("F", (block["sex"] == "F").to_numpy())):
        draws = [np.repeat(np.flatnonzero(mask), w[mask]) for w in weights]
        for metric, function in (
            ("auc", sklearn.metrics.roc_auc_score),
            ("adjusted_auprc", adjusted),
        ):
            row = pick(table, model="b", label="Pneumonia", group=group, metric=metric)
            loop = [function(y[d], score[d]) for d in draws]
            assert row["value"] == pytest.approx(function(y[mask], score[mask]), abs=1e-12)
            limits = np.percentile(loop, [2.5, 97.5])
            np.testing.assert_allclose(row[["ci_low", "ci_high"]].astype(float), limits, rtol=1e-9)
            assert row["n"] == mask.sum() and row["n_positive"] == y[mask].sum()
            assert row["n_patients"] == block.loc[mask, "patient_id"].nunique()
            assert row["unit"] == "patient" and row["seed"] == 1907 and row["n_replicates"] == 30


def test_every_row_has_its_counts(predictions):
    for table in (
        fairness.performance_table(predictions, attributes=("sex", "age_group"), n_resamples=5),
        fairness.gap_table(predictions, "age_group", n_resamples=5),
        fairness.model_gap_table(predictions, n_resamples=5),
    ):
        assert table[COUNTS].notna().all().all()


def test_too_few_positives_are_marked_never_dropped(predictions):
    table = fairness.performance_table(predictions, attributes=("age_group",), n_resamples=5)
    row = pick(table, model="a", label="Pneumothorax", group="80+", metric="auc")
    assert np.isnan(row["value"]) and row["note"].endswith("fewer than 10")
    assert f"{row['n_positive']} positive images" in row["note"]


def test_few_positive_patients_are_said_beside_the_interval():
    """Thirty positive images of three patients are no thirty witnesses."""
    images = cohort(200, patients=200).assign(patient_id=np.arange(200) // 10, sex="F")
    table = predict(images, models=("a",), labels=("Edema",))
    table["y_true"] = (table["patient_id"] < 3).astype(int)
    row = pick(fairness.performance_table(table, "auc", n_resamples=50))
    assert row["n_positive"] == 30 and np.isfinite(row["ci_low"])
    assert row["note"].startswith("3 positive patients: the interval may be too narrow")


def test_mean_uses_one_set_of_labels_in_all_groups(predictions):
    table = fairness.performance_table(
        predictions, ("auc",), attributes=("sex", "age_group"), n_resamples=5
    )
    defined = table[table["label"] != "mean"].set_index(["model", "label", "group"])["value"]
    labels = {"sex": ["Edema", "Pneumonia", "Pneumothorax"]}
    labels["age_group"] = [
        label for label in labels["sex"] if np.isfinite(defined["a", label, "80+"])
    ]
    assert len(labels["age_group"]) < 3  # otherwise this test would show nothing
    means = table[(table["label"] == "mean") & (table["attribute"] != "all")]
    assert set(means["group"]) == {"F", "M", "25-50", "50-65", "65-80", "80+"}
    for _, row in means.iterrows():
        kept = labels[row["attribute"]]
        note = f"mean over {len(kept)} of 3" if kept else "no finding is defined in every group"
        assert row["note"].startswith(note)
        if kept:
            expected = np.mean([defined[row["model"], label, row["group"]] for label in kept])
            assert row["value"] == pytest.approx(expected)
        else:
            assert np.isnan(row["value"])
        if len(kept) < 3:
            assert "Pneumothorax (undefined in 80+)" in row["note"]


def test_mean_leaves_out_labels_that_not_every_model_predicted(predictions):
    less = predictions[~((predictions["model"] == "b") & (predictions["label"] == "Pneumonia"))]
    table = fairness.performance_table(less, "auc", "sex", n_resamples=5)
    for model in "ab":
        row = pick(table, model=model, label="mean", group="all")
        assert row["note"] == "mean over 2 of 3 labels; left out: Pneumonia (undefined in b)"
        kept = [pick(table, model=model, label=x, group="all") for x in ("Edema", "Pneumothorax")]
        assert row["value"] == pytest.approx(np.mean([k["value"] for k in kept]))


def test_groups_can_be_restricted_and_ordered(predictions):
    groups = ["65-80", "25-50"]
    table = fairness.performance_table(
        predictions, ("auc",), attributes={"age_group": groups}, n_resamples=5
    )
    rows = table[(table["attribute"] == "age_group") & (table["label"] == "mean")]
    assert list(rows["group"].unique()) == groups
    assert rows["note"].eq("mean over 3 of 3 labels").all()


def test_gap_is_paired_signed_and_finds_the_planted_effect(predictions):
    table = fairness.gap_table(predictions, "sex", [("M", "F")], metrics=("auc",), n_resamples=200)
    row = pick(table, model="a", label="mean", group="M - F")
    assert row["ci_high"] < 0  # women were given the better scores
    # normal scores with separation d have AUC Phi(d / sqrt 2): 0.6382 for 0.5, 0.8556 for 1.5
    assert row["ci_low"] < 0.6382 - 0.8556 < row["ci_high"]
    each = fairness.performance_table(predictions, ("auc",), ("sex",), n_resamples=5)
    by_group = each[(each["model"] == "a") & (each["label"] == "Edema")].set_index("group")
    edema = pick(table, model="a", label="Edema")
    assert edema["value"] == pytest.approx(by_group["value"]["M"] - by_group["value"]["F"])
    assert edema["n"] == 900 and edema["n_patients"] <= 500


def test_gap_interval_comes_from_the_same_resamples(predictions):
    table = fairness.gap_table(
        predictions, "sex", metrics=("auc",), n_resamples=25, protocol=PERCENTILE
    )
    block = predictions[(predictions["model"] == "a") & (predictions["label"] == "Edema")]
    weights = bootstrap.patient_weights(block["patient_id"], 25)
    women = (block["sex"] == "F").to_numpy()
    y, score = block["y_true"].to_numpy(), block["score"].to_numpy()
    loop = []
    for w in weights:
        f, m = (
            np.repeat(np.flatnonzero(women), w[women]),
            np.repeat(np.flatnonzero(~women), w[~women]),
        )
        loop.append(
            sklearn.metrics.roc_auc_score(y[f], score[f])
            - sklearn.metrics.roc_auc_score(y[m], score[m])
        )
    row = pick(table, model="a", label="Edema", group="F - M")
    np.testing.assert_allclose(
        row[["ci_low", "ci_high"]].astype(float), np.percentile(loop, [2.5, 97.5]), rtol=1e-9
    )


def test_reference_group_and_undefined_gaps(predictions):
    table = fairness.gap_table(
        predictions, "age_group", reference="25-50", metrics=("auc",), n_resamples=5
    )
    assert set(table["group"]) == {"50-65 - 25-50", "65-80 - 25-50", "80+ - 25-50"}
    row = pick(table, model="a", label="Pneumothorax", group="80+ - 25-50")
    assert np.isnan(row["value"]) and row["note"].startswith("80+: not given")


def test_gaps_of_groups_whose_intervals_overlap():
    limits = {"F": (0.6, 0.8), "M": (0.75, 0.9), "X": (0.85, 0.95), "Y": (np.nan, np.nan)}
    keys = {"model": "a", "method": "zero-shot", "label": "Edema", "attribute": "sex"}
    results = pd.DataFrame(
        [
            keys | {"metric": "auc", "group": g, "ci_low": a, "ci_high": b}
            for g, (a, b) in limits.items()
        ]
    )
    gaps = pd.DataFrame([keys | {"metric": "auc", "group": g} for g in ("F - M", "F - X", "F - Y")])
    assert list(fairness.overlapping(gaps, results)["group"]) == ["F - M"]
    assert fairness.overlapping(gaps.iloc[:0], results).empty


def test_model_gap_is_paired(predictions):
    """A model against a copy of itself has a gap of exactly 0, with an interval of width 0."""
    copy = predictions[predictions["model"] == "a"].assign(model="copy of a")
    table = fairness.model_gap_table(
        pd.concat([predictions, copy]), [("a", "copy of a"), ("a", "b")], n_resamples=20
    )
    same = table[table["model"] == "a - copy of a"]
    assert len(same) and (same[["value", "ci_low", "ci_high"]] == 0).all().all()
    other = pick(table, model="a - b", label="Edema", metric="auc")
    assert other["ci_low"] < other["ci_high"]


def test_models_on_different_images_cannot_be_compared(predictions):
    less = predictions[~((predictions["model"] == "b") & (predictions["image_id"] == "image-3"))]
    with pytest.raises(ValueError, match="not run on the same images"):
        fairness.model_gap_table(less)


def test_rows_are_joined_by_image_not_by_position(predictions):
    first = predictions[predictions["model"] == "a"]
    shuffled = predictions[predictions["model"] == "b"].sample(frac=1, random_state=0)
    mixed = fairness.performance_table(pd.concat([first, shuffled]), n_resamples=20)
    ordered = fairness.performance_table(predictions, n_resamples=20)
    keys = ["model", "label", "metric"]
    columns = ["value", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(
        mixed.set_index(keys)[columns].sort_index(), ordered.set_index(keys)[columns].sort_index()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: fairness.performance_table(p, ("auroc",)), "metrics: unknown 'auroc'"),
        (lambda p: fairness.performance_table(p, attributes=("race",)), "'race' is missing"),
        (
            lambda p: fairness.performance_table(p, attributes={"sex": ["W"]}),
            "groups of 'sex': unknown 'W'; expected one of F, M",
        ),
        (lambda p: fairness.gap_table(p, "sex", [("F", "X")]), "pairs: unknown 'X'"),
        (lambda p: fairness.gap_table(p, "sex", reference="X"), "reference: unknown 'X'"),
        (
            lambda p: fairness.gap_table(p[p["sex"] == "F"], "sex"),
            "attribute 'sex': fewer than two groups in this cohort",
        ),
    ],
)
def test_bad_input_is_named(predictions, call, message):
    with pytest.raises(ValueError, match=message):
        call(predictions)


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda p: fairness.gap_table(p, "sex", n_resample=5), "n_resample"),
        (lambda p: fairness.model_gap_table(p, match="sex"), "match"),
        (lambda p: inference.gap_tests(p, {"sex": None}, match="age_group"), "match"),
        (lambda p: fairness.multiclass_table(p, match="sex"), "match"),
    ],
)
def test_an_option_that_a_table_does_not_have_is_refused(predictions, call, option):
    with pytest.raises(TypeError, match=f"'{option}'"):
        call(predictions)


# --- intersections, missing entries, matching


def test_intersections_are_groups_of_their_own(predictions):
    table = fairness.performance_table(
        predictions, "auc", ("sex", ("sex", "age_group")), n_resamples=5
    )
    crossed = table[table["attribute"] == "sex x age_group"]
    assert list(crossed["group"].unique()) == [f"{sex} x {age}" for sex in "FM" for age in AGES]
    block = predictions[(predictions["model"] == "a") & (predictions["label"] == "Edema")]
    at = (block["sex"] == "M") & (block["age_group"] == "50-65")
    row = pick(crossed, model="a", label="Edema", group="M x 50-65")
    expected = sklearn.metrics.roc_auc_score(block["y_true"][at], block["score"][at])
    assert row["value"] == pytest.approx(expected) and row["n"] == at.sum()
    gap = fairness.gap_table(
        predictions,
        ("sex", "age_group"),
        [("F x 25-50", "M x 25-50")],
        metrics="auc",
        n_resamples=5,
    )
    assert set(gap["group"]) == {"F x 25-50 - M x 25-50"}


def test_missing_attributes_are_counted_and_belong_to_no_group(predictions):
    holes = predictions.assign(
        race=np.where(predictions["patient_id"] < 250, "White", "Black"),
    )
    holes.loc[holes["patient_id"].between(200, 299), "race"] = np.nan
    n = holes.loc[holes["race"].isna(), "image_id"].nunique()
    patients = holes.loc[holes["race"].isna(), "patient_id"].nunique()
    table = fairness.performance_table(holes, "auc", "race", n_resamples=5)
    assert set(table["group"]) == {"all", "White", "Black"}
    note = f"{n} images of {patients} patients without race belong to no group"
    assert table.loc[table["attribute"] == "race", "note"].str.endswith(note).all()
    everyone = pick(table, model="a", label="Edema", group="all")
    assert everyone["n"] == 900 and everyone["note"] == ""
    crossed = fairness.performance_table(holes, "auc", [("sex", "race")], n_resamples=5)
    row = pick(crossed, model="a", label="Edema", group="F x White")
    inside = holes[(holes["sex"] == "F") & (holes["race"] == "White")]
    assert row["n"] == inside["image_id"].nunique() and row["note"].endswith("belong to no group")


@pytest.fixture(scope="module")
def confounded():
    """Scores are good on PA films and poor on AP films; women have mostly PA, men mostly AP."""
    rng = np.random.default_rng(3)
    images = cohort(3000, patients=2000)
    women = (images["sex"] == "F").to_numpy()
    pa = rng.random(3000) < np.where(women, 0.8, 0.2)
    y = (rng.random(3000) < np.where(pa, 0.1, 0.3)).astype(int)
    logit = np.where(pa, 2.0, 0.5) * y + rng.normal(size=3000) - 1
    return images.assign(
        view=np.where(pa, "PA", "AP"),
        model="a",
        method="zero-shot",
        label="Edema",
        y_true=y,
        score=1 / (1 + np.exp(-logit)),
    )


def standardised(table, strata, weights):
    """Weights that give each stratum of this group its share of the whole cohort."""
    target = pd.Series(strata).value_counts()
    mass = pd.Series(weights[table]).groupby(strata[table]).sum()
    return weights[table] * (target / mass).loc[strata[table]].to_numpy()


@pytest.mark.parametrize("match", ["prevalence", "view", ("prevalence", "view")])
def test_matched_groups_equal_weighted_scikit_learn_in_every_resample(confounded, match):
    strata = np.zeros(3000, dtype=int)
    if "prevalence" in match:
        strata += confounded["y_true"].to_numpy()
    if "view" in match:
        strata += 2 * (confounded["view"] == "PA").to_numpy()
    table = fairness.gap_table(confounded, "sex", match=match, n_resamples=15, protocol=PERCENTILE)
    y, score = confounded["y_true"].to_numpy(), confounded["score"].to_numpy()
    groups = [np.flatnonzero(confounded["sex"] == sex) for sex in "FM"]

    def gap(weights):
        found = []
        for at in groups:
            w = standardised(at, strata, weights)
            ap = sklearn.metrics.average_precision_score(y[at], score[at], sample_weight=w)
            found.append(1 - np.log(ap) / np.log(np.average(y[at], weights=w)))
        return found[0] - found[1]

    row = pick(table, metric="adjusted_auprc")
    names = match if isinstance(match, str) else " and ".join(match)
    assert row["attribute"] == f"sex, matched on {names}"
    assert row["value"] == pytest.approx(gap(np.ones(3000)))
    drawn = bootstrap.patient_weights(confounded["patient_id"], 15)
    limits = np.percentile([gap(w.astype(float)) for w in drawn], [2.5, 97.5])
    np.testing.assert_allclose(row[["ci_low", "ci_high"]].astype(float), limits, rtol=1e-9)


def test_matching_on_view_removes_a_gap_that_is_all_view(confounded):
    raw = pick(fairness.gap_table(confounded, "sex", metrics="auc", n_resamples=200))
    matched = pick(
        fairness.gap_table(
            confounded, "sex", metrics="auc", match=("prevalence", "view"), n_resamples=200
        )
    )
    assert raw["ci_low"] > 0
    assert matched["ci_low"] < 0 < matched["ci_high"]


def test_strata_without_counterpart_get_no_weight_and_are_counted(confounded):
    lone = confounded.assign(site=np.where(confounded["sex"] == "F", "A", "B"))
    lone.loc[lone.index % 2 == 0, "site"] = "C"
    table = fairness.performance_table(lone, "auc", "sex", match="site", n_resamples=5)
    n = ((lone["sex"] == "F") & (lone["site"] == "A")).sum()
    row = pick(table, group="F")
    assert row["note"] == f"weighted; {n} images without counterpart in every group get no weight"
    shared = lone[(lone["sex"] == "F") & (lone["site"] == "C")]
    assert row["value"] == pytest.approx(
        sklearn.metrics.roc_auc_score(shared["y_true"], shared["score"])
    )
    with pytest.raises(ValueError, match="match: no column 'scanner'"):
        fairness.performance_table(lone, "auc", "sex", match="scanner")


def test_the_kind_of_interval_can_be_chosen(predictions):
    kinds = {
        kind: fairness.gap_table(
            predictions, "sex", n_resamples=200, protocol=replace(CORRECTED, interval=kind)
        )
        for kind in ("expanded", "percentile", "bca")
    }
    plain = kinds["percentile"]
    for table in kinds.values():
        np.testing.assert_array_equal(plain["value"], table["value"])
        assert table["ci_low"].notna().all()
    assert (kinds["bca"]["ci_low"] != plain["ci_low"]).any()
    assert (kinds["expanded"]["ci_low"] <= plain["ci_low"]).all()
    assert (kinds["expanded"]["ci_high"] > plain["ci_high"]).any()
    pd.testing.assert_frame_equal(
        kinds["expanded"], fairness.gap_table(predictions, "sex", n_resamples=200)
    )
    with pytest.raises(ValueError, match="interval='normal': expected one of expanded"):
        fairness.gap_table(predictions, "sex", protocol=replace(CORRECTED, interval="normal"))


# --- one class out of several


CLASSES = ("Cardiomegaly", "Edema", "Effusion")


def classify(strengths, n=240, seed=0):
    """One-hot predictions; each method separates the classes by its strength."""
    rng = np.random.default_rng(seed)
    images = cohort(n, patients=160)
    y = rng.integers(0, len(CLASSES), n)
    blocks = []
    for method, strength in strengths.items():
        logit = rng.normal(size=(n, len(CLASSES)))
        logit[np.arange(n), y] += strength
        p = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
        for c, label in enumerate(CLASSES):
            blocks.append(
                images.assign(
                    model="m", method=method, label=label, y_true=(y == c) * 1, score=p[:, c]
                )
            )
    return pd.concat(blocks, ignore_index=True), y


def test_multiclass_table_equals_scikit_learn_and_fairlearn():
    predictions, y = classify({"lora": 1.0})
    table = fairness.multiclass_table(predictions, ("sex",), n_resamples=20)
    scores = predictions.pivot(index="image_id", columns="label", values="score")
    scores = scores.loc[cohort(240, patients=160)["image_id"], list(CLASSES)].to_numpy()
    predicted, confidence = scores.argmax(axis=1), scores.max(axis=1)
    women = (cohort(240, patients=160)["sex"] == "F").to_numpy()
    f1 = {}
    for group, mask in (("all", np.ones(240, bool)), ("F", women), ("M", ~women)):
        f1[group] = sklearn.metrics.f1_score(y[mask], predicted[mask], average=None)
        found = {m: pick(table, group=group, metric=m)["value"] for m in ("accuracy", "macro_f1")}
        assert found["accuracy"] == pytest.approx((y == predicted)[mask].mean())
        assert found["macro_f1"] == pytest.approx(f1[group].mean())
        assert pick(table, group=group, metric="var_f1")["value"] == pytest.approx(
            f1[group].var(ddof=0)
        )
        for c, label in enumerate(CLASSES):
            row = pick(table, group=group, label=label, metric="f1")
            assert row["value"] == pytest.approx(f1[group][c])
            assert row["n_positive"] == (y[mask] == c).sum()
    gap = {r["metric"]: r["value"] for _, r in table[table["group"] == "F - M"].iterrows()}
    assert gap["f1_gap_signed"] == pytest.approx(np.mean(f1["F"] - f1["M"]))
    assert gap["f1_gap_absolute"] == pytest.approx(np.mean(np.abs(f1["F"] - f1["M"])))
    per_class = [
        equalized_odds_difference(y == c, predicted == c, sensitive_features=women)
        for c in range(3)
    ]
    assert gap["eq_odds_max"] == pytest.approx(np.mean(per_class))
    residual = np.abs(confidence - (y == predicted))
    assert gap["calibration_gap_eq4"] == pytest.approx(
        abs(residual[women].mean() - residual[~women].mean())
    )
    binned = [binned_error(confidence[g], (y == predicted)[g]) for g in (women, ~women)]
    assert gap["ece_gap"] == pytest.approx(abs(binned[0] - binned[1]))
    assert gap["eq_odds_mean"] <= gap["eq_odds_max"]
    assert table[COUNTS].notna().all().all()


def binned_error(p, right):
    """ECE of Guo et al. 2017 by a plain loop over ten bins."""
    edges = np.linspace(0, 1, 11)
    of = [(p > a) & (p <= b) for a, b in pairwise(edges)]
    return sum(abs(p[x].mean() - right[x].mean()) * x.mean() for x in of if x.any())


def test_multiclass_intervals_come_from_patient_resamples():
    predictions, y = classify({"lora": 1.0})
    table = fairness.multiclass_table(predictions, ("sex",), n_resamples=25, protocol=PERCENTILE)
    images = cohort(240, patients=160)
    scores = predictions.pivot(index="image_id", columns="label", values="score")
    predicted = scores.loc[images["image_id"], list(CLASSES)].to_numpy().argmax(axis=1)
    women = (images["sex"] == "F").to_numpy()
    loop = []
    for w in bootstrap.patient_weights(images["patient_id"], 25):
        rates = [
            metrics.rates_by_class(y[d], predicted[d], 3)
            for d in (np.repeat(np.flatnonzero(m), w[m]) for m in (women, ~women))
        ]
        loop.append(metrics.eq_odds_mean(*rates))
    row = pick(table, group="F - M", metric="eq_odds_mean")
    np.testing.assert_allclose(
        row[["ci_low", "ci_high"]].astype(float), np.percentile(loop, [2.5, 97.5]), rtol=1e-9
    )


def test_multiclass_change_against_a_baseline_is_paired():
    predictions, _ = classify({"zero-shot": 0.3, "lora": 2.0})
    table = fairness.multiclass_table(predictions, ("sex",), baseline="zero-shot", n_resamples=50)
    value = {m: pick(table, method=m, group="all", metric="accuracy") for m in table["method"]}
    change = value["lora - zero-shot"]
    assert change["value"] == pytest.approx(value["lora"]["value"] - value["zero-shot"]["value"])
    assert change["ci_low"] > 0


def test_multiclass_bad_input_is_named():
    predictions, _ = classify({"lora": 1.0})
    with pytest.raises(ValueError, match="not one-hot"):
        fairness.multiclass_table(predictions.iloc[1:], ("sex",))
    with pytest.raises(ValueError, match="baseline='zs': expected one of"):
        fairness.multiclass_table(predictions, ("sex",), baseline="zs")


def test_one_operating_point_shows_the_underdiagnosis_that_auc_hides():
    """Scores of women are lower by 1, ill or not: their AUC is that of men, but not their TPR."""
    images = cohort(4000, patients=4000)
    rng = np.random.default_rng(2)
    y = (rng.random(len(images)) < 0.3).astype(int)
    score = 1.5 * y + rng.normal(size=len(images)) - (images["sex"] == "F")
    table = images.assign(model="a", method="m", label="Edema", y_true=y, score=score)
    decided = fairness.decide(table, specificity=0.8)

    threshold = score[y == 0].sort_values().iloc[int(np.ceil(0.8 * (y == 0).sum())) - 1]
    assert (decided["score"] == (score > threshold)).all()
    rates = fairness.performance_table(
        decided, ("sensitivity", "specificity"), ("sex",), n_resamples=50
    )
    assert pick(rates, group="all", metric="specificity")["value"] == pytest.approx(0.8, abs=1e-3)
    women = y.astype(bool) & (images["sex"] == "F")
    row = pick(rates, group="F", metric="sensitivity")
    assert row["value"] == pytest.approx((score > threshold)[women].mean())
    assert row["ci_low"] < row["value"] < row["ci_high"]

    gap = pick(fairness.gap_table(decided, "sex", metrics=("sensitivity",), n_resamples=50))
    assert gap["group"] == "F - M" and gap["ci_high"] < -0.2
    auc = pick(fairness.gap_table(table, "sex", metrics=("auc",), n_resamples=50))
    assert auc["ci_low"] < 0 < auc["ci_high"]


def test_an_operating_point_by_threshold():
    table = predict(cohort(400), labels=("Edema", "Pneumonia"))
    fixed = fairness.decide(table, threshold=0.4)
    assert (fixed["score"] == (table["score"] > 0.4)).all()


def test_an_operating_point_is_named_once_and_needs_negatives():
    table = predict(cohort(50), models=("a",), labels=("Edema",))
    for asked in ({}, {"specificity": 0.8, "threshold": 0.5}):
        with pytest.raises(ValueError, match="exactly one of"):
            fairness.decide(table, **asked)
    with pytest.raises(ValueError, match="specificity: 80"):
        fairness.decide(table, specificity=80)
    with pytest.raises(ValueError, match="made, a, zero-shot, Edema: y_true: no negatives"):
        fairness.decide(table.assign(y_true=1), 0.8)


def test_the_spread_over_findings_is_no_interval():
    values = {"Edema": 0.7, "Nodule": 0.8, "Mass": 0.95}
    rows = [{"model": "m", "label": k, "metric": "auc", "value": v} for k, v in values.items()]
    rows = [r | {"cohort": "c", "method": "z", "protocol": "corrected"} for r in rows]
    rows = [r | {"attribute": "all", "group": "all"} for r in rows]
    table = schema.results(rows)
    mean = table.iloc[:1].assign(label="mean", value=0.1)
    [found] = as_published.spread_over_labels(pd.concat([table, mean])).to_dict("records")
    assert found["value"] == pytest.approx(statistics.stdev(values.values()))
    assert found["metric"] == "auc_sd_over_labels" and np.isnan(found["ci_low"])
    hidden = table.assign(value=[0.7, np.nan, 0.95], note="few")
    assert as_published.spread_over_labels(hidden)["value"].isna().all()
    both = pd.concat([table, mean, as_published.spread_over_labels(table)])
    laid_out = as_published.like_table_1(both, "auc")
    assert list(laid_out["label"]) == [*values, "mean", "SD over findings"]

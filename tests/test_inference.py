"""Noise floors against enumeration and simulation, corrections and plans against closed forms."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics

from cxrlib.guard import latch
from cxrlib.protocol import protocol_of
from cxrlib.stats import inference


def table_of(y, score, group, patient=None, model="a", label="Edema"):
    n = len(y)
    return pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "patient_id": np.arange(n) if patient is None else patient,
            "cohort": "made",
            "model": model,
            "method": "zero-shot",
            "label": label,
            "y_true": y,
            "score": score,
            "sex": group,
        }
    )


ANY_GROUP = replace(protocol_of("corrected"), min_cases=1)
TINY = {"protocol": ANY_GROUP, "metrics": "auc", "n_resamples": 5}
SEXES = {"sex": [("F", "M")]}


def test_noise_floor_equals_the_enumeration_of_all_exchanges():
    """Groups change places within positive and within negative patients: 4! x 4! ways."""
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    score = np.array([0.9, 0.3, 0.8, 0.5, 0.4, 0.2, 0.6, 0.1])
    group = np.array(["F", "M", "F", "M", "M", "M", "F", "F"])
    gaps = []
    for ill, well in product(permutations(range(4)), permutations(range(4, 8))):
        dealt = group[[*ill, *well]]
        auc = [sklearn.metrics.roc_auc_score(y[dealt == g], score[dealt == g]) for g in "FM"]
        gaps.append(auc[0] - auc[1])
    floor, own = np.abs(gaps), abs(gaps[0])
    tests = inference.gap_tests(table_of(y, score, group), SEXES, n_permutations=20_000, **TINY)
    row = tests.iloc[0]
    exact = np.mean(floor >= own - 1e-12)
    assert row["value"] == pytest.approx(gaps[0])
    assert row["p_value"] == pytest.approx(exact, abs=5 * np.sqrt(exact / 20_000))
    assert row["floor_mean"] == pytest.approx(floor.mean(), rel=0.03)
    assert row["floor_p95"] == pytest.approx(np.quantile(floor, 0.95), abs=0.01)


def test_images_of_a_patient_change_group_together():
    """Two patients with 10 images each can only keep or swap groups: one absolute gap."""
    rng = np.random.default_rng(0)
    y, patient = np.tile([1, 0], 10), np.repeat(["p", "q"], 10)
    group = np.where(patient == "p", "F", "M")
    tests = inference.gap_tests(
        table_of(y, rng.normal(size=20), group, patient), SEXES, n_permutations=50, **TINY
    )
    row = tests.iloc[0]
    assert row["floor_mean"] == pytest.approx(abs(row["value"])) and row["p_value"] == 1


@pytest.fixture(scope="module")
def fair():
    """40 labels on which both sexes have the same AUC, at different prevalence."""
    rng = np.random.default_rng(1)
    n = 600
    sex = np.where(rng.random(n) < 0.4, "F", "M")
    blocks = []
    for i in range(40):
        y = (rng.random(n) < np.where(sex == "F", 0.3, 0.15)).astype(int)
        blocks.append(table_of(y, y + rng.normal(size=n), sex, label=f"label {i}"))
    return pd.concat(blocks, ignore_index=True)


def test_fair_models_have_even_p_values_and_few_flags(fair):
    tests = inference.gap_tests(
        fair, SEXES, metrics="auc", mean_over_labels=False, n_permutations=999, n_resamples=300
    )
    assert scipy.stats.kstest(tests["p_value"], "uniform").pvalue > 0.01
    counts = inference.flagged(tests)
    assert counts["comparisons"] == 40 and counts["undefined"] == 0
    assert counts["uncorrected"] <= 6  # 2 expected; more than 6 has probability 0.003
    assert counts["holm"] == 0 and counts["band"] == 0
    # the floor of a fair model is the gap that fair models show
    assert tests["floor_mean"].mean() == pytest.approx(tests["value"].abs().mean(), rel=0.3)


def test_a_planted_gap_is_found_among_fair_ones(fair):
    planted = fair.copy()
    worse = (planted["label"] == "label 7") & (planted["sex"] == "F") & (planted["y_true"] == 1)
    planted.loc[worse, "score"] -= 1.5
    tests = inference.gap_tests(
        planted, SEXES, metrics="auc", mean_over_labels=False, n_permutations=2000, n_resamples=300
    )
    found = tests[tests["p_holm"] < 0.05]
    assert list(found["label"]) == ["label 7"] and found["band_high"].iloc[0] < 0
    assert inference.flagged(tests)["holm"] == 1


def test_holm_is_not_claimed_with_too_few_permutations(fair):
    tests = inference.gap_tests(
        fair, SEXES, metrics="auc", mean_over_labels=False, n_permutations=100, n_resamples=5
    )
    assert inference.flagged(tests)["holm"] is None


def test_the_mean_over_labels_has_its_own_floor(fair):
    two = fair[fair["label"].isin(["label 0", "label 1"])]
    tests = inference.gap_tests(two, SEXES, metrics="auc", n_permutations=400, n_resamples=5)
    floor = tests.set_index("label")["floor_mean"]
    # means of two nearly independent gaps spread less, by 1 / sqrt 2
    single = floor[["label 0", "label 1"]].mean()
    assert floor["mean"] == pytest.approx(single / np.sqrt(2), rel=0.15)


def test_undefined_gaps_stay_with_their_reason_and_out_of_the_family():
    rng = np.random.default_rng(2)
    y = np.r_[np.ones(30, int), np.zeros(170, int)]
    sex = np.where(np.arange(200) < 4, "F", rng.choice(["F", "M"], 200, p=[0.02, 0.98]))
    tests = inference.gap_tests(
        table_of(y, rng.normal(size=200), sex),
        SEXES,
        metrics="auc",
        n_permutations=20,
        n_resamples=5,
    )
    row = tests.iloc[0]
    assert row[["value", "p_value", "p_holm", "band_low"]].isna().all()
    assert "positive images, fewer than 10" in row["note"]
    assert inference.flagged(tests)["undefined"] == 1


def test_corrections_on_an_example_worked_by_hand():
    p = [0.01, 0.04, np.nan, 0.03, 0.02]
    # sorted: .01 .02 .03 .04; Holm: 4 x .01, 3 x .02, 2 x .03, 1 x .04, then running maximum
    np.testing.assert_allclose(inference.corrected(p, "holm"), [0.04, 0.06, np.nan, 0.06, 0.06])
    # Benjamini-Hochberg: 4/1 x .01, 4/2 x .02, 4/3 x .03, 4/4 x .04
    np.testing.assert_allclose(inference.corrected(p, "fdr_bh"), [0.04, 0.04, np.nan, 0.04, 0.04])


def test_simultaneous_bands_of_independent_gaps_are_those_of_sidak():
    rng = np.random.default_rng(3)
    k, spread = 10, np.linspace(0.5, 2, 10)
    replicates = rng.normal(size=(40_000, k)) * spread
    low, high = inference.simultaneous_bands(
        np.r_[np.zeros(k), np.nan], np.c_[replicates, replicates[:, 0]]
    )
    c = scipy.stats.norm.ppf(1 - (1 - 0.95 ** (1 / k)) / 2)
    np.testing.assert_allclose(high[:k], c * spread, rtol=0.03)
    np.testing.assert_allclose(low[:k], -high[:k])
    assert np.isnan(low[k]) and np.isnan(high[k])


def test_what_is_hidden_of_credentialed_data_has_no_test_either(monkeypatch):
    rng = np.random.default_rng(3)
    sex = np.where(np.arange(200) % 4 == 0, "F", "M")
    y = np.where(sex == "F", np.cumsum(sex == "F") <= 5, rng.random(200) < 0.3).astype(int)
    options = {"metrics": "auc", "mean_over_labels": False, "protocol": ANY_GROUP}
    options |= {"n_permutations": 20, "n_resamples": 20}
    table = table_of(y, rng.normal(size=200), sex)
    columns = ["value", "floor_mean", "floor_p95", "p_value", "band_low", "band_high"]
    assert inference.gap_tests(table, SEXES, **options)[columns].notna().all(axis=None)
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    assert inference.gap_tests(table, SEXES, **options)[columns].isna().all(axis=None)


def test_noise_floor_of_a_fair_classifier_is_that_of_simulated_ones():
    """Six classes, 240 images, accuracy 0.6: EqOdds of a fair classifier is not 0."""
    rng = np.random.default_rng(4)

    y = np.repeat(np.arange(6), 40)
    sex = np.tile(["F", "M"], 120)

    def answers():
        right = rng.random(240) < 0.6
        return np.where(right, y, (y + rng.integers(1, 6, 240)) % 6)

    def test(predicted):
        score = np.eye(6)[predicted] * 0.5 + 0.1
        tables = [
            table_of((y == c).astype(int), score[:, c], sex, label=f"class {c}") for c in range(6)
        ]
        found = inference.multiclass_gap_tests(
            pd.concat(tables), SEXES, n_permutations=100, n_resamples=5
        )
        return found.set_index("metric")

    def gaps(predicted):
        """Of X (Eqs. 2 and 3), from confusion matrices."""
        rates = []
        for group in "FM":
            member = sex == group
            m = sklearn.metrics.confusion_matrix(y[member], predicted[member])
            hit, called, ill = np.diag(m), m.sum(0), m.sum(1)
            tpr, fpr = hit / ill, (called - hit) / (m.sum() - ill)
            rates.append((tpr, fpr, 2 * hit / (called + ill), hit.sum() / m.sum()))
        tpr, fpr, f1, accuracy = (f - m for f, m in zip(*rates, strict=True))
        odds = (np.abs(tpr) + np.abs(fpr)).mean() / 2
        return {"eq_odds_mean": odds, "f1_gap_signed": f1.mean(), "accuracy": accuracy}

    once = answers()
    found = test(once)["value"]
    for metric, value in gaps(once).items():
        assert found[metric] == pytest.approx(value)
    simulated = pd.DataFrame([gaps(answers()) for _ in range(1000)]).abs()
    floors = pd.DataFrame([test(answers())["floor_mean"] for _ in range(3)])
    for metric in ("eq_odds_mean", "f1_gap_signed", "accuracy"):
        assert floors[metric].mean() == pytest.approx(simulated[metric].mean(), rel=0.2)
    assert floors["eq_odds_mean"].mean() > 0.03


def test_a_planned_study_has_the_planned_power():
    """Normal scores, AUC 0.76 and 0.69: the standard error of simulated studies of that size."""
    rng = np.random.default_rng(5)

    def study(n_positive, n_negative):
        parts = []
        for sex, d in (("F", 1.0), ("M", 0.7)):
            y = np.r_[np.ones(n_positive, int), np.zeros(n_negative, int)]
            parts.append((y, d * y + rng.normal(size=len(y)), np.full(len(y), sex)))
        return [np.concatenate(x) for x in zip(*parts, strict=True)]

    pilot = table_of(*study(400, 1600))
    plan = inference.power_plan(pilot, "sex", (0.07,), n_resamples=500).iloc[0]
    n = int(plan["positives_needed"])
    assert plan["patients_needed_a"] == pytest.approx(5 * n, abs=5)
    gaps = []
    for _ in range(300):
        y, score, sex = study(n, 4 * n)
        auc = {g: sklearn.metrics.roc_auc_score(y[sex == g], score[sex == g]) for g in "FM"}
        gaps.append(auc["F"] - auc["M"])
    z = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)
    assert np.std(gaps) == pytest.approx(0.07 / z, rel=0.15)
    assert plan["detectable"] == pytest.approx(0.07 * np.sqrt(n / 400), rel=0.01)


def test_copies_of_an_image_cost_positives_but_no_patients():
    rng = np.random.default_rng(6)
    y = (rng.random(800) < 0.2).astype(int)
    score, sex = y + rng.normal(size=800), np.tile(["F", "M"], 400)
    single = inference.power_plan(table_of(y, score, sex), "sex", n_resamples=100).iloc[0]
    four = [np.repeat(x, 4) for x in (y, score, sex, np.arange(800))]
    copies = inference.power_plan(table_of(*four), "sex", n_resamples=100).iloc[0]
    assert copies["positives_needed"] == pytest.approx(4 * single["positives_needed"], abs=4)
    assert copies["patients_needed_a"] == pytest.approx(single["patients_needed_a"], abs=2)


def test_the_easiest_and_the_hardest_line_of_each_pair():
    lines = [("F - M", 0.2), ("F - M", np.nan), ("F - M", 0.1), ("F - M", 0.3)]
    lines += [("Black - White", np.nan), ("Black - White", np.nan), ("Asian - White", 0.4)]
    plan = pd.DataFrame(lines, columns=["group", "detectable"])
    plan["attribute"] = np.where(plan["group"] == "F - M", "sex", "race")
    ends = inference.easiest_and_hardest(plan)
    expected = [("F - M", 0.1), ("F - M", 0.3), ("Black - White", None), ("Asian - White", 0.4)]
    found = zip(ends["group"], ends["detectable"], strict=True)
    assert [(group, None if np.isnan(x) else x) for group, x in found] == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: inference.gap_tests(t, {"sex": "X"}), "reference: unknown 'X'"),
        (lambda t: inference.gap_tests(t, {"sex": [("F", "X")]}), "groups of 'sex': unknown 'X'"),
        (lambda t: inference.gap_tests(t, {"race": None}), "'race' is missing"),
        (lambda t: inference.power_plan(t, "sex", (0,)), "gaps: .* above 0"),
        (lambda t: inference.power_plan(t, "sex", power=80), "power: 80"),
    ],
)
def test_bad_input_is_named(call, message):
    y = np.tile([0, 1], 30)
    with pytest.raises(ValueError, match=message):
        call(table_of(y, y * 1.0, np.repeat(["F", "M"], 30)))


@pytest.mark.parametrize(("n_permutations", "k"), [(30, 37), (200, 300), (1000, 300), (1000, 12)])
def test_the_fewest_alarms_of_benjamini_and_hochberg(n_permutations, k):
    """Of K gaps, as many as told beyond every permutation are flagged by statsmodels, no fewer."""
    tests = pd.DataFrame({"n_permutations": [n_permutations] * (k + 1), "p_value": 1.0})
    tests.loc[k, "p_value"] = np.nan  # undefined
    fewest = inference.fewest_alarms(tests)
    for reaching in range(1, k + 1):
        p = np.where(np.arange(k) < reaching, 1 / (1 + n_permutations), 1.0)
        assert (inference.corrected(p, "fdr_bh") < 0.05).any() == (reaching >= fewest)

"""All pairs of prompts at once: AUC, gaps, intervals, and what a choice among pairs is worth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import roc_auc_score

from cxrlib import cohorts, models
from cxrlib.cohorts.cohort import Cohort
from cxrlib.guard import latch
from cxrlib.predict import wordings, zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.stats import fairness

ANY_GROUP = replace(protocol_of("corrected"), min_cases=1)

LABELS = ("Edema", "Pneumonia")
NAMES = ("a", "b", "c")
GAPS = {"sex": ("F", "M"), "age_group": ("80+", "25-50")}


def made_up(n=600, seed=0) -> Cohort:
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n // 2, n)
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "patient_id": patient})
    table["sex"] = np.where(patient % 2, "F", "M")
    table["age_group"] = np.array(["80+", "25-50", "50-65"])[patient % 3]
    for label in LABELS:
        table[label] = (rng.random(n) < 0.3).astype(int)
    return Cohort("made-up", table, LABELS, "open", {}, pd.DataFrame())


@pytest.fixture(scope="module")
def cohort():
    return made_up()


@pytest.fixture(scope="module")
def scores(cohort):
    """Two models, some signal, and ties."""
    rng = np.random.default_rng(1)
    truth = cohort.table[list(LABELS)].to_numpy().T[:, None]
    found = {m: rng.normal(size=(2, 3, 600)) + k * truth for k, m in enumerate(("x", "y"))}
    return {m: 1 / (1 + np.exp(-s.round(1))) for m, s in found.items()}


@pytest.fixture(scope="module")
def table(cohort, scores):
    return wordings.pair_table(cohort, scores, LABELS, NAMES, GAPS)


def predictions(cohort, score):
    """The long table, one row per image, label and pair."""
    parts = [
        cohort.table[["image_id", "patient_id", *GAPS]].assign(
            cohort=cohort.name,
            model=m,
            method=name,
            label=label,
            y_true=cohort.table[label],
            score=of_model[k, p],
        )
        for m, of_model in score.items()
        for k, label in enumerate(LABELS)
        for p, name in enumerate(NAMES)
    ]
    return pd.concat(parts, ignore_index=True)


# --- point values --------------------------------------------------------------------------------


def test_values_of_every_pair_are_those_of_scikit_learn_and_fairlearn(cohort, scores, table):
    assert len(table) == 2 * 3 * 3 * 3  # models, pairs, labels and mean, all and two gaps
    keys = ["model", "method", "label", "attribute"]
    value = table.set_index(keys)["value"]
    for model, score in scores.items():
        for p, name in enumerate(NAMES):
            means = {a: [] for a in ("all", *GAPS)}
            for k, label in enumerate(LABELS):
                y = cohort.table[label]
                expected = {"all": roc_auc_score(y, score[k, p])}
                for attribute, (a, b) in GAPS.items():
                    frame = MetricFrame(
                        metrics=roc_auc_score,
                        y_true=y,
                        y_pred=score[k, p],
                        sensitive_features=cohort.table[attribute],
                    )
                    expected[attribute] = frame.by_group[a] - frame.by_group[b]
                for attribute, number in expected.items():
                    assert value[model, name, label, attribute] == pytest.approx(number, abs=1e-12)
                    means[attribute].append(number)
            for attribute, numbers in means.items():
                mean = value[model, name, "mean", attribute]
                assert mean == pytest.approx(np.mean(numbers), abs=1e-12)


def test_counts_and_means_are_those_of_the_tables_of_groups(cohort, scores, table):
    """Also where a label has too few cases in one group, which drops out of this gap's mean."""
    scarce = made_up()
    old = np.flatnonzero((scarce.table["age_group"] == "80+") & (scarce.table["Edema"] == 1))
    scarce.table.loc[old[9:], "Edema"] = 0
    found = wordings.pair_table(scarce, scores, LABELS, NAMES, GAPS)
    for here, ours in ((cohort, table), (scarce, found)):
        long = predictions(here, scores)
        percentile = replace(protocol_of("corrected"), interval="percentile")
        options = {"metrics": ("auc",), "n_resamples": 2, "protocol": percentile}
        theirs = [fairness.performance_table(long, **options)] + [
            fairness.gap_table(long, a, [groups], groups=groups, **options)
            for a, groups in GAPS.items()
        ]
        keys = ["model", "method", "label", "attribute", "group"]
        same = ours.merge(pd.concat(theirs), on=keys, suffixes=("", "_theirs"))
        assert len(same) == len(ours) == 54
        for column in ("value", "n", "n_positive", "n_negative", "n_patients"):
            np.testing.assert_allclose(
                same[column].astype(float), same[f"{column}_theirs"].astype(float), atol=1e-12
            )
    gone = found[found["value"].isna()]
    assert set(zip(gone["label"], gone["group"], strict=True)) == {("Edema", "80+ - 25-50")}
    assert gone["note"].str.contains("80+: 9 positive images", regex=False).all()
    of_mean = found[(found["label"] == "mean") & (found["attribute"] == "age_group")]
    left_out = "mean over 1 of 2 labels; left out: Edema (80+: 9 positive images, fewer than 10)"
    assert of_mean["note"].str.startswith(left_out).all()
    assert (table["note"].str.endswith(wordings.POINT)).all() and table["ci_low"].isna().all()


def test_areas_are_undefined_where_one_class_has_no_weight():
    y = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    score = np.array([[[0.9, 0.1, 0.3, 0.3]], [[0.1, 0.2, 0.3, 0.4]]])
    weights = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 2, 1, 1]])
    # label 0 in the last row: 0.3 against 0.1 twice and against 0.3, a tie
    expected = [[3.5 / 4, 1], [np.nan, 1], [2.5 / 3, 1]]
    np.testing.assert_allclose(wordings.areas(score, y, weights)[:, :, 0], expected)


def test_groups_of_few_patients_of_credentialed_data_have_no_gap(monkeypatch, scores):
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    monkeypatch.setattr(latch, "_registers", [])
    few = made_up()
    old = few.table["age_group"] == "80+"  # about 200 images, now of nine patients
    few.table.loc[old, "patient_id"] = few.table.loc[old, "patient_id"] % 9 + 9000
    found = wordings.pair_table(few, scores, LABELS, NAMES, GAPS, protocol=ANY_GROUP)
    of_age = found["attribute"] == "age_group"
    assert found.loc[of_age, "value"].isna().all() and found.loc[~of_age, "value"].notna().all()
    assert found.loc[of_age, "note"].str.contains("suppressed").all()


def test_what_does_not_fit_is_refused(cohort, scores):
    with pytest.raises(ValueError, match=r"scores of x: shape \(2, 3, 600\); expected 1 labels"):
        wordings.pair_table(cohort, scores, LABELS[:1], NAMES)
    with pytest.raises(ValueError, match="no image of cohort 'made-up' has 'X' in column 'sex'"):
        wordings.pair_table(cohort, scores, LABELS, NAMES, {"sex": ("F", "X")})


# --- intervals -----------------------------------------------------------------------------------


def test_intervals_are_those_of_the_tables_of_groups_and_paired(cohort, scores):
    options = {"n_resamples": 40, "seed": 3}
    asked = {"x": [("b", "a"), ("a", "a"), ("c", None)], "y": [("a", "c")]}
    found = wordings.interval_table(cohort, scores, LABELS, NAMES, asked, GAPS, **options)
    methods = found.groupby("model")["method"].unique().map(set).to_dict()
    assert methods == {"x": {"a", "b", "c", "b - a"}, "y": {"a", "c", "a - c"}}
    long = predictions(cohort, scores)
    theirs = [fairness.performance_table(long, ("auc",), **options)]
    theirs += [
        fairness.gap_table(long, a, [groups], groups=groups, metrics=("auc",), **options)
        for a, groups in GAPS.items()
    ]
    of_pairs = long.assign(model=long["method"], method=long["model"])
    less = [("b", "a"), ("a", "c")]
    less = fairness.model_gap_table(of_pairs, less, metrics=("auc",), **options)
    theirs.append(less.assign(model=less["method"], method=less["model"]))
    keys = ["model", "method", "label", "attribute", "group"]
    same = found.merge(pd.concat(theirs), on=keys, suffixes=("", "_theirs"))
    # x: three pairs and a difference, y: two and one; gaps of pairs alone; two labels and a mean
    assert len(same) == len(found) == 3 * ((4 + 3) + 2 * (3 + 2))
    for column in ("value", "ci_low", "ci_high", "n", "n_positive", "n_patients"):
        np.testing.assert_allclose(
            same[column].astype(float), same[f"{column}_theirs"].astype(float), atol=1e-12
        )


# --- choosing ------------------------------------------------------------------------------------


def halves(score, truth, patient=None, each=False, n_splits=40, **options):
    patient = np.arange(len(truth)) if patient is None else patient
    names = [f"p{k}" for k in range(score.shape[1])]
    return wordings.chosen_on_half(
        score, truth, patient, names, "p0", n_splits, each=each, **options
    )


def test_the_best_of_noise_is_as_optimistic_as_the_largest_of_normal_numbers():
    """AUC of noise on n images: normal around 1/2, variance (n + 1) / (12 n1 n0)."""
    rng = np.random.default_rng(0)
    n, n_pairs = 200, 30
    seen, unseen = [], []
    for _ in range(60):
        truth = np.tile(rng.permutation(n) < n // 2, (2, 1)).T.astype(int)
        found = halves(rng.normal(size=(2, n_pairs, n)), truth, n_splits=1, each=True)
        seen += list(found["seen"])
        unseen += list(found["unseen"])
    largest = rng.normal(size=(200_000, n_pairs)).max(axis=1)
    sd = np.sqrt((n / 2 + 1) / (12 * (n / 4) ** 2))
    # 120 means over two labels each; the halves of one draw are nearly independent
    error = largest.std() * sd / np.sqrt(240)
    assert np.mean(seen) == pytest.approx(0.5 + sd * largest.mean(), abs=4 * error)
    assert np.mean(unseen) == pytest.approx(0.5, abs=4 * sd / np.sqrt(240))


def test_a_pair_that_is_better_is_found_and_holds_on_other_patients():
    rng = np.random.default_rng(1)
    truth = (rng.random((1000, 2)) < 0.4).astype(int)
    score = rng.normal(size=(2, 10, 1000))
    score[:, 4] += 2 * truth.T
    score[1, 7] += 3 * truth[:, 1]  # better still for the second label
    found = halves(score, truth)
    assert len(found) == 80 and set(found["chosen"]) == {"p4"}
    area = np.mean([roc_auc_score(truth[:, k], score[k, 4]) for k in (0, 1)])
    assert found["seen"].mean() == pytest.approx(area, abs=0.002)
    # each half is chosen on once, so that what was seen on one is what is unseen on the other
    pairs = found.groupby("split")[["seen", "unseen"]].agg(list)
    assert all(a == b[::-1] for a, b in pairs.to_numpy())
    chance = np.mean([roc_auc_score(truth[:, k], score[k, 0]) for k in (0, 1)])
    assert found["own"].mean() == pytest.approx(chance, abs=0.005)
    each = halves(score, truth, each=True)
    assert set(each["chosen"]) == {"p4; p7"} and (each["unseen"] > found["unseen"]).all()


def test_halves_are_of_patients_and_repeatable():
    """Two images a patient with one score: alone in a half, a good pair would not be as good."""
    rng = np.random.default_rng(2)
    patient = np.repeat(np.arange(60), 2)
    truth = np.tile([1, 0], 60)[:, None]
    own = rng.normal(size=60) * 100  # differs between patients more than within
    score = (own[patient] + truth[:, 0])[None, None]
    found = halves(score, truth, patient, protocol=ANY_GROUP)
    # each half holds both images of its patients: as many of either class
    apart = halves(score, truth, protocol=ANY_GROUP)
    balanced = [np.isclose(x * 900, round(x * 900), atol=1e-9) for x in found["seen"]]
    assert all(balanced) and found.equals(halves(score, truth, patient, protocol=ANY_GROUP))
    assert not all(np.isclose(x * 900, round(x * 900), atol=1e-9) for x in apart["seen"])
    assert not found.equals(halves(score, truth, patient, protocol=ANY_GROUP, seed=5))


def test_labels_with_few_cases_in_a_half_are_left_out():
    rng = np.random.default_rng(3)
    truth = np.stack([np.arange(200) < 12, np.arange(200) % 2], axis=1).astype(int)
    score = rng.normal(size=(2, 3, 200))
    found = halves(score, truth)
    assert found.equals(halves(score[1:], truth[:, 1:])) and len(found)
    assert halves(score[:1], truth[:, :1]).empty


# --- planted truth -------------------------------------------------------------------------------


def test_a_model_cannot_rank_by_words_that_it_never_saw(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path))
    phantoms = cohorts.load("phantom", n_images=300)
    labels = ("Pleural Effusion", "Cardiomegaly")
    model = models.load_model("phantom-resnet")
    assert not {"glorp", "flumox"} & set(model.tokenizer.words)
    pairs = {
        "known": ("Chest {label}", "Chest No Findings"),
        "unknown": ("glorp", "flumox"),
        "denied twice": ("no {label}", "{label}"),
        "affirmed": ("{label}", "no {label}"),
    }
    score = zeroshot.pair_scores(phantoms, model, labels, list(pairs.values()))
    found = wordings.pair_table(phantoms, {"m": score}, labels, list(pairs))
    mean = found[found["label"] == "mean"].set_index("method")["value"]
    assert mean["unknown"] == 0.5 and mean["known"] > 0.8
    # the two sides exchanged rank the other way round
    assert mean["denied twice"] == pytest.approx(1 - mean["affirmed"], abs=1e-12)
    assert mean["affirmed"] > 0.6


# --- told ----------------------------------------------------------------------------------------


def test_gaps_that_turn_with_the_wording_are_counted(cohort, scores):
    table = wordings.pair_table(cohort, scores, LABELS, NAMES, GAPS)
    found = wordings.turned(table, "b").set_index(["model", "group"])
    mean = table[table["label"] == "mean"]
    for model, group in found.index:
        at = (mean["model"] == model) & (mean["group"] == group)
        gap = dict(zip(mean.loc[at, "method"], mean.loc[at, "value"], strict=True))
        row = found.loc[(model, group)]
        assert row["turned"] == sum(gap[k] * gap["b"] < 0 for k in "ac") and row["others"] == 2
        assert (row["lowest"], row["highest"]) == (min(gap.values()), max(gap.values()))
    hidden = table.assign(value=table["value"].mask(table["method"] == "a"))
    assert wordings.turned(hidden, "b")["turned"].isna().all()


def test_pairs_of_a_model_stand_beside_its_own(cohort, scores):
    roles = pd.DataFrame({"lowest": ["a", "c"], "highest": "c", "of S": "b"}, index=["x", "y"])
    asked = {m: [(pair, "b") for pair in roles.loc[m]] for m in roles.index}
    table = wordings.interval_table(cohort, scores, LABELS, NAMES, asked, GAPS, n_resamples=10)
    table = table[table["label"] == "mean"]
    found = wordings.beside_own(table, roles, "b")
    lines = found[["model", "pair", "method"]].drop_duplicates().to_records(index=False).tolist()
    assert lines[:3] == [("x", "lowest", "a"), ("x", "highest", "c"), ("x", "of S", "b")]
    assert lines[3:] == [("y", "lowest, highest", "c"), ("y", "of S", "b")]
    cells = found.set_index(["model", "method", "what"])["value"]
    difference = cells["x", "a", "mean AUC"] - cells["x", "b", "mean AUC"]
    assert cells["x", "a", "difference"] == pytest.approx(difference)
    assert ("x", "b", "difference") not in cells.index and ("x", "b", "F - M") in cells.index


def test_what_a_choice_is_worth_is_told_with_the_middle_of_its_halves():
    rng = np.random.default_rng(4)
    truth = (rng.random((300, 2)) < 0.4).astype(int)
    found = halves(rng.normal(size=(2, 5, 300)), truth).assign(model="m", choice="one")
    told = wordings.over_halves(found).set_index("what")
    optimism = found["seen"] - found["unseen"]
    expected = [optimism.mean(), *np.quantile(optimism, [0.05, 0.95])]
    np.testing.assert_allclose(told.loc["optimism", ["value", "ci_low", "ci_high"]], expected)
    gain = (found["unseen"] - found["own"]).mean()
    assert told.loc["gain over S", "value"] == pytest.approx(gain)
    assert wordings.over_halves(found.iloc[:0]).empty

"""Splits and seeds: values against brute force, parts of variance against closed forms and REML,
runs that go on where they were cut off.
"""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import equalized_odds_difference
from scipy.stats import binom
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from statsmodels.regression.mixed_linear_model import MixedLM

from cxrlib import cohorts, guard
from cxrlib.cohorts import nih6x200
from cxrlib.cohorts.nih6x200 import DISEASES
from cxrlib.guard import latch
from cxrlib.predict import finetune, repeats, training
from cxrlib.protocol import protocol_of
from cxrlib.schema import row

PAIRS = {"sex": [("F", "M")], "age60": [("old", "young")]}

# --- the metrics of each run ---------------------------------------------------------------------


def simulated(n, classes, runs, seed=0, right=0.6, models=("m",)):
    """Predictions of classifiers that are right by the same chance in every group.

    runs : (method, split, seed) of each; images and groups change with the split.
    """
    parts = []
    for split in dict.fromkeys(s for _, s, _ in runs):
        rng = np.random.default_rng([seed, split])
        y = rng.integers(classes, size=n)
        about = pd.DataFrame(
            {
                "image_id": [f"{split}-{i}" for i in range(n)],
                "patient_id": [f"{split}-{i // 2}" for i in range(n)],
                "cohort": "c",
                "sex": rng.choice(["F", "M"], n),
                "age60": rng.choice(["old", "young"], n),
            }
        )
        for model in models:
            for method, _, number in (r for r in runs if r[1] == split):
                answer = np.where(rng.random(n) < right, y, rng.integers(classes, size=n))
                score = rng.random((n, classes)) + 2 * np.eye(classes)[answer]
                score /= score.sum(axis=1, keepdims=True)
                parts += [
                    about.assign(
                        model=model,
                        method=method,
                        split=split,
                        seed=number,
                        label=f"d{k}",
                        y_true=(y == k).astype(int),
                        score=score[:, k],
                    )
                    for k in range(classes)
                ]
    return pd.concat(parts, ignore_index=True)


RUNS = [(m, s, j) for s in (0, 1) for m, j in (("zero-shot", None), ("full", 0), ("full", 1))]


@pytest.fixture(scope="module")
def predictions():
    return simulated(120, 3, RUNS)


@pytest.fixture(scope="module")
def values(predictions):
    return repeats.values(predictions, PAIRS)


def by_hand(block, attribute=None, groups=None):
    """Metrics of one run, by scikit-learn and bare sums."""
    wide = block.pivot(index="image_id", columns="label", values=["y_true", "score"])
    y, score = (wide[c].to_numpy(float) for c in ("y_true", "score"))
    y, answer, p = y.argmax(axis=1), score.argmax(axis=1), score.max(axis=1)
    if attribute is None:
        f1 = f1_score(y, answer, average=None)
        return {
            "accuracy": accuracy_score(y, answer),
            "macro_f1": f1_score(y, answer, average="macro"),
            "var_f1": np.mean((f1 - f1.mean()) ** 2),
        }
    group = block.drop_duplicates("image_id").set_index("image_id")[attribute][wide.index]
    f1, tpr, fpr, residual, ece = [], [], [], [], []
    for g in groups:
        of = (group == g).to_numpy()
        f1.append(f1_score(y[of], answer[of], average=None))
        matrix = confusion_matrix(y[of], answer[of])
        hits, truth, called = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        tpr.append(hits / truth)
        fpr.append((called - hits) / (matrix.sum() - truth))
        right = (y[of] == answer[of]).astype(float)
        residual.append(np.mean(np.abs(p[of] - right)))
        bins = pd.Series(p[of] - right).groupby(np.ceil(p[of] * 10))
        ece.append(bins.sum().abs().sum() / of.sum())
    (f1_a, f1_b), (tpr_a, tpr_b), (fpr_a, fpr_b) = f1, tpr, fpr
    odds = np.abs(tpr_a - tpr_b), np.abs(fpr_a - fpr_b)
    return {
        "f1_gap_signed": np.mean(f1_a - f1_b),
        "f1_gap_size": abs(np.mean(f1_a - f1_b)),
        "f1_gap_absolute": np.mean(np.abs(f1_a - f1_b)),
        "eq_odds_mean": np.mean([*odds[0], *odds[1]]),
        "eq_odds_max": np.mean(np.maximum(*odds)),
        "calibration_gap_eq4": abs(residual[0] - residual[1]),
        "ece_gap": abs(ece[0] - ece[1]),
    }


def test_values_are_those_of_scikit_learn(predictions, values):
    checked = 0
    seeds = predictions["seed"].fillna(-1)
    for (method, split, seed), block in predictions.groupby(["method", "split", seeds]):
        for attribute, ((a, b),) in ({"all": (("all", "all"),)} | PAIRS).items():
            wanted = by_hand(block) if attribute == "all" else by_hand(block, attribute, (a, b))
            group = "all" if attribute == "all" else f"{a} - {b}"
            run = values[(values["method"] == method) & (values["split"] == split)]
            run = run[run["seed"].fillna(-1) == seed]
            for metric, expected in wanted.items():
                found = row(run, attribute=attribute, group=group, metric=metric)
                assert found["value"] == pytest.approx(expected, abs=1e-12), metric
                assert found["note"] == ""
                checked += 1
    assert checked == 6 * (3 + 2 * 7) == len(values[~values["method"].str.contains(" - ")])


def test_a_change_is_after_minus_before_on_the_same_split(values):
    changes = values[values["method"] == "full - zero-shot"]
    assert len(changes) == 4 * 17
    for _, change in changes.iterrows():
        where = {k: change[k] for k in ("split", "attribute", "group", "metric")}
        after = row(values[values["seed"] == change["seed"]], method="full", **where)
        before = row(values, method="zero-shot", **where)
        assert pd.isna(before["seed"])
        assert change["value"] == pytest.approx(after["value"] - before["value"], abs=1e-15)


def test_the_size_of_a_gap_can_shrink_while_its_sign_turns(values):
    """Change of size and change of the signed gap are different numbers, told apart by name."""
    wide = values[values["attribute"] != "all"].pivot(
        index=["method", "split", "seed", "attribute"], columns="metric", values="value"
    )
    change = wide.loc["full - zero-shot"]
    after = wide.loc["full"]
    before = (
        wide.loc["zero-shot"]
        .droplevel("seed")
        .loc[
            pd.MultiIndex.from_arrays(
                [change.index.get_level_values(k) for k in ("split", "attribute")]
            )
        ]
    )
    expected = after["f1_gap_signed"].abs().to_numpy() - before["f1_gap_signed"].abs().to_numpy()
    np.testing.assert_allclose(change["f1_gap_size"], expected, atol=1e-15)
    assert not np.allclose(change["f1_gap_size"], change["f1_gap_signed"].abs())


def test_two_classes_give_fairlearns_equalised_odds():
    found = simulated(150, 2, [("full", 0, 0)])
    values = repeats.values(found, PAIRS, baseline=None)
    yes = found[found["label"] == "d1"]
    for attribute, group in (("sex", "F - M"), ("age60", "old - young")):
        for metric, agg in (("eq_odds_max", "worst_case"), ("eq_odds_mean", "mean")):
            expected = equalized_odds_difference(
                yes["y_true"], yes["score"] > 0.5, sensitive_features=yes[attribute], agg=agg
            )
            value = row(values, attribute=attribute, group=group, metric=metric)["value"]
            assert value == pytest.approx(expected, abs=1e-12)


def test_an_exactly_fair_classifier_raises_gaps_in_half_of_the_runs():
    models = [f"m{k}" for k in range(30)]
    runs = [(m, s, j) for s in range(4) for m, j in (("zero-shot", None), ("full", 0))]
    values = repeats.values(simulated(100, 3, runs, seed=4, models=models), {"sex": [("F", "M")]})
    low, high = binom.interval(0.999, 120, 0.5)
    change = repeats.spread(values)
    for metric in ("f1_gap_size", "f1_gap_absolute", "eq_odds_mean", "calibration_gap_eq4"):
        of = change[change["metric"] == metric]
        assert of["runs"].sum() == of["splits"].sum() == 120
        assert low <= of["runs_above_0"].sum() <= high, metric
    parts = repeats.components(values)
    signed = parts[(parts["metric"] == "f1_gap_signed") & (parts["method"] == "full")]
    assert low <= 120 * signed["share_above_0"].mean() <= high


def test_what_is_undefined_has_its_reason_and_is_left_out(predictions):
    gone = (
        (predictions["split"] == 0)
        & (predictions["sex"] == "F")
        & predictions["image_id"].isin(
            predictions.loc[predictions["label"].eq("d2") & predictions["y_true"].eq(1), "image_id"]
        )
    )
    values = repeats.values(predictions[~gone], PAIRS)
    undefined = values[values["value"].isna()]
    # No woman has d2 in split 0, so neither rate nor F1 of it where nobody is called d2 either.
    assert set(undefined["split"]) == {0} and set(undefined["attribute"]) == {"sex"}
    assert undefined["note"].str.startswith("undefined").all()
    assert {"eq_odds_mean", "eq_odds_max"} <= set(undefined["metric"])
    parts = repeats.components(values)
    left = row(parts, method="full", attribute="sex", metric="eq_odds_mean")
    assert left["n_splits"] == 1 and left["n_runs"] == 2
    assert left["note"] == "2 of 4 runs undefined and left out; one split: sd_split undefined"
    change = row(repeats.spread(values), attribute="sex", metric="eq_odds_max")
    assert change["undefined"] == change["runs"] == 2 and change["splits"] == 1
    nothing = values[values["value"].isna() & values["method"].eq("full")]
    assert repeats.components(nothing)[["mean", "sd_seed", "lowest"]].isna().all(axis=None)


def test_values_on_few_credentialed_images_are_not_given(predictions):
    women = predictions.loc[predictions["sex"] == "F", "image_id"].unique()
    some = predictions[
        (predictions["sex"] == "M")
        | predictions["image_id"].isin(women[::8])
        | (predictions["split"] > 0)
    ]
    latch._protected.append("a credentialed cohort")
    values = repeats.values(some, PAIRS)
    hidden = values[(values["split"] == 0) & (values["attribute"] == "sex")]
    assert len(hidden) and hidden["value"].isna().all()
    assert hidden["note"].str.contains(guard.SUPPRESSED).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.drop(columns="seed"), "column 'seed' is missing"),
        (lambda p: pd.concat([p, p.assign(cohort="d")]), "of c, d; expected one cohort"),
        (
            lambda p: p[(p["method"] == "full") | (p["split"] == 1)],
            "no predictions by 'zero-shot' of m in split 0",
        ),
        (
            lambda p: pd.concat([p, p[p["method"] == "zero-shot"].assign(seed=3)]),
            "several runs of 'zero-shot' of m in split 0",
        ),
        (
            lambda p: p[(p["method"] == "full") | (p["image_id"] != "1-5")],
            "of m in split 1 are not all on the images of 'zero-shot'",
        ),
    ],
)
def test_predictions_that_cannot_be_compared_are_refused(predictions, change, words):
    with pytest.raises(ValueError, match=words):
        repeats.values(change(predictions), PAIRS)


def test_changes_need_a_baseline(predictions):
    with pytest.raises(ValueError, match="no changes against 'zero-shot'"):
        repeats.spread(repeats.values(predictions, PAIRS, baseline=None))


# --- parts of variance ---------------------------------------------------------------------------


def table_of(splits, method="full"):
    """Values with the given runs of each split."""
    return pd.DataFrame(
        [
            {"split": i, "seed": j, "value": y}
            for i, part in enumerate(splits)
            for j, y in enumerate(part)
        ]
    ).assign(
        model="m", method=method, attribute="sex", group="F - M", metric="f1_gap_size", note=""
    )


def test_parts_of_variance_in_closed_form():
    # Split means 2, 6, 7; MS_W = (2 + 2 + 2) / 3 = 2; MS_B = 2 (9 + 1 + 4) / 2 = 14; (14 - 2) / 2.
    part = repeats.components(table_of([[1, 3], [5, 7], [6, 8]])).iloc[0]
    assert part["mean"] == pytest.approx(5)
    assert part["sd_seed"] == pytest.approx(np.sqrt(2))
    assert part["sd_split"] == pytest.approx(np.sqrt(6))
    assert (part["n_splits"], part["n_seeds"], part["n_runs"]) == (3, 2, 6)
    assert (part["lowest"], part["highest"], part["share_above_0"]) == (1, 8, 1)
    assert part["note"] == ""
    # Unbalanced: means 1, 4; grand mean 3; SS_B = 2 * 4 + 4 * 1 = 12, a - 1 = 1;
    # MS_W = (2 + 2) / 4 = 1; n_0 = 6 - 20 / 6 = 8 / 3; (12 - 1) / (8 / 3) = 4.125.
    part = repeats.components(table_of([[0, 2], [3, 4, 4, 5]])).iloc[0]
    assert part["mean"] == pytest.approx(2.5)
    assert part["sd_seed"] == pytest.approx(1)
    assert part["sd_split"] == pytest.approx(np.sqrt(4.125))
    assert part["share_above_0"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("splits", "sd_seed", "sd_split", "note"),
    [
        (
            [[1], [2], [3]],
            np.nan,
            1,
            "one seed a split: sd_seed undefined, sd_split holds both parts",
        ),
        ([[1, 3]], np.sqrt(2), np.nan, "one split: sd_split undefined"),
        (
            [[4]],
            np.nan,
            np.nan,
            "one seed a split: sd_seed undefined; one split: sd_split undefined",
        ),
        (
            [[0, 2], [0, 2]],
            np.sqrt(2),
            0,
            "variance between splits estimated below 0, shown as 0",
        ),
        ([[5, 5], [5, 5]], 0, 0, ""),
    ],
)
def test_a_part_that_is_undefined_says_so(splits, sd_seed, sd_split, note):
    part = repeats.components(table_of(splits)).iloc[0]
    np.testing.assert_allclose(part[["sd_seed", "sd_split"]].astype(float), [sd_seed, sd_split])
    assert part["note"] == note


def test_what_is_not_trained_has_no_seeds():
    zero = table_of([[1], [2], [6]], "zero-shot").assign(seed=pd.NA)
    part = repeats.components(zero).iloc[0]
    assert part["n_seeds"] == 0 and part["n_runs"] == 3
    assert part["note"] == "not trained, so without seeds"
    assert part["sd_split"] == pytest.approx(np.std([1, 2, 6], ddof=1))


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_variance_equal_reml_on_balanced_runs(seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 0.3, (8, 1)) + rng.normal(0, 0.2, (8, 4))
    found = repeats.variance_parts(list(y))
    assert found[1] > 0
    model = MixedLM(y.ravel(), np.ones(y.size), groups=np.repeat(np.arange(8), 4))
    fit = model.fit(reml=True, gtol=1e-10)
    np.testing.assert_allclose(found, [fit.scale, fit.cov_re[0, 0]], rtol=1e-5)


@pytest.mark.parametrize("split_sd", [0.0, 0.5])
def test_planted_variances_are_recovered_on_average(split_sd):
    rng = np.random.default_rng(0)
    numbers = np.array([1, 2, 3, 5, 4])
    start = np.cumsum(numbers)[:-1]
    found = []
    for _ in range(4000):
        y = np.repeat(rng.normal(0, split_sd, 5), numbers) + rng.normal(0, 0.3, numbers.sum())
        found.append(repeats.variance_parts(np.split(y, start)))
    error = np.mean(found, axis=0) - [0.3**2, split_sd**2]
    assert (np.abs(error) < 4 * np.std(found, axis=0) / np.sqrt(len(found))).all()


# --- groups --------------------------------------------------------------------------------------


@pytest.fixture
def small():
    """Two patients of each sex in train, valid and test, one image each, two classes."""
    split = np.repeat(["train", "valid", "test"], 4)
    table = pd.DataFrame(
        {
            "patient_id": np.arange(12),
            "sex": np.tile(["F", "M"], 6),
            "disease": np.tile(["A", "B", "B", "A"], 3),
        }
    )
    return table, split


def test_splits_that_starve_a_group_or_class_are_named(small):
    table, split = small
    repeats.check_groups(table, [split, split], ["sex"], "disease")
    one = np.where(np.arange(12) == 9, "valid", split)  # a man leaves the test part
    with pytest.raises(ValueError, match=r"split 1: 1 patients of group 'M' of 'sex' .*; make"):
        repeats.check_groups(table, [split, one], ["sex"], "disease")
    none = np.where((split == "test") & (table["sex"] == "M"), "valid", split)
    with pytest.raises(ValueError, match="split 0: 0 patients of group 'M'"):
        repeats.check_groups(table, [none], ["sex"], "disease")
    repeats.check_groups(table, [none], [], "disease")
    same = table.assign(patient_id=table["patient_id"].replace(11, 9))  # two images, one man
    with pytest.raises(ValueError, match="1 patients of group 'M'"):
        repeats.check_groups(same, [split], ["sex"], "disease")
    untrained = np.where((split == "train") & (table["disease"] == "B"), "valid", split)
    with pytest.raises(ValueError, match="split 0: no training image of disease B; make fewer"):
        repeats.check_groups(table, [untrained], ["sex"], "disease")
    with pytest.raises(ValueError, match="column 'race' is missing"):
        repeats.check_groups(table, [split], ["race"], "disease")


def test_a_count_of_few_credentialed_patients_is_not_said(small):
    table, split = small
    one = np.where(np.arange(12) == 9, "valid", split)
    latch._protected.append("a credentialed cohort")
    with pytest.raises(ValueError, match="split 0: fewer than 10 patients of group 'M'"):
        repeats.check_groups(table, [one], ["sex"], "disease")


# --- runs ----------------------------------------------------------------------------------------

PROBE = {"linear probe": finetune.settings_for("linear probe", epochs=2)}


@pytest.fixture(scope="module")
def task():
    task = finetune.Task(cohorts.load("phantom-6x200"), "phantom-resnet", DISEASES)
    assert len(task.embeddings) == 1200  # kept before a test moves the cache
    return task


@pytest.fixture(scope="module")
def splits(task):
    return nih6x200.rotations(task.cohort.table["patient_id"], 5, seed=1)


def test_five_rotations_predict_every_image_once(task, splits):
    seeds = {"linear probe": [3, 7], "MLP": [0]}
    settings = PROBE | {"MLP": finetune.settings_for("MLP", epochs=1)}
    runs = repeats.tune(task, list(seeds), splits, seeds, settings, keep=False)
    assert list(runs.fits) == [(m, s, j) for s in range(5) for m in seeds for j in seeds[m]]
    assert list(
        runs.runs[["strategy", "split", "seed"]].itertuples(index=False, name=None)
    ) == list(runs.fits)
    assert runs.predictions["split"].dtype.kind == runs.predictions["seed"].dtype.kind == "i"
    together = repeats.pooled(runs.predictions)
    for method, block in together.groupby("method"):
        once = block.groupby("label")["image_id"]
        assert (once.size() == 1200).all() and (once.nunique() == 1200).all()
        assert block["seed"].unique() == [seeds[method][0]]
    for number, split in enumerate(splits):
        block = together[together["split"] == number]
        tested = task.cohort.table.loc[split == "test", "image_id"]
        assert set(block["image_id"]) == set(tested)
        trained = task.cohort.table.loc[split == "train", "patient_id"]
        assert not set(block["patient_id"]) & set(trained)


def test_splits_and_their_parts_are_those_of_the_protocol(task):
    table = task.cohort.table
    own, turned = (
        repeats.splits_of(table, 2, 1, protocol_of(name)) for name in ("as_published", "corrected")
    )
    assert [list(split) for split in own] == [list(table["split"])]
    assert len(turned) == 2 and not ((turned[0] == "test") & (turned[1] == "test")).any()
    sizes = repeats.part_sizes(table, turned)
    for k, split in enumerate(turned):
        parts = table.assign(part=split).groupby("part")["patient_id"].agg(["size", "nunique"])
        for part, (images, patients) in parts.iterrows():
            line = sizes.loc[str(k + 1)]
            assert (line[f"{part}: images"], line[f"{part}: patients"]) == (images, patients)


@pytest.mark.parametrize(("protocol", "accuracy"), [("corrected", 0), ("as_published", 1)])
def test_the_films_of_the_protocol_choose_the_prompts(task, splits, protocol, accuracy):
    """One format is right on validation films alone, the other on all others."""
    y, at = task.y.numpy(), splits[0] == "valid"
    right = np.eye(6)[y][None]
    wrong = np.roll(right, 1, axis=2)
    scores = {"a": np.where(at[:, None], right, wrong), "b": np.where(at[:, None], wrong, right)}
    found = repeats.zero_shot(task, scores, splits[:1], protocol_of(protocol))
    top = found.loc[found.groupby("image_id")["score"].idxmax()]
    assert len(top) == (splits[0] == "test").sum() and (top["y_true"] == accuracy).all()
    assert (found["method"] == "zero-shot").all()


def test_rates_are_sought_where_asked_and_settings_are_those_given(task, splits, monkeypatch):
    def search(task, strategy, split, settings, seed):
        assert split is splits[0] and seed == 5 and settings.epochs == 3
        return pd.DataFrame({"learning_rate": [0.5, 0.25], "chosen": [False, True]})

    monkeypatch.setattr(finetune, "search", search)
    found = repeats.settings_of(task, splits[0], 3, 4, "heads", "bfloat16", seed=5)
    asked = [(s, f.learning_rate, f.epochs, f.precision) for s, f in found.items()]
    middle = {s: rates[1] for s, rates in finetune.LEARNING_RATES.items()}
    assert asked == [
        ("linear probe", 0.25, 3, "float32"),
        ("MLP", 0.25, 3, "float32"),
        ("LoRA", middle["LoRA"], 4, "bfloat16"),
        ("full", middle["full"], 4, "bfloat16"),
    ]
    none = repeats.settings_of(task, splits[0], 3, 4, "none")
    assert {s: f.learning_rate for s, f in none.items()} == middle


def test_a_run_is_that_of_its_split_seed_and_settings(task, splits):
    seeds = {"linear probe": [3, 7]}
    runs = repeats.tune(task, ["linear probe"], splits[:2], seeds, PROBE, keep=False)
    alone = finetune.fine_tune(
        task, "linear probe", splits[1], PROBE["linear probe"], seed=7, keep=False
    )
    fitted = runs.fits["linear probe", 1, 7]
    assert fitted.weights == alone.weights
    at = (runs.predictions["split"] == 1) & (runs.predictions["seed"] == 7)
    np.testing.assert_array_equal(runs.predictions.loc[at, "score"], alone.predictions["score"])
    line = row(runs.runs, split=1, seed=7)
    assert line["weights"] == alone.weights and line["epochs"] == 2
    assert line["trainable"] == 128 * 6 + 6
    assert line["seconds_an_epoch"] == pytest.approx(fitted.history["seconds"].mean())
    assert line["memory_mib"] == alone.memory / 2**20
    assert runs.runs["weights"].nunique() == 4


def test_what_was_cut_off_goes_on(task, splits, monkeypatch, tmp_path):
    plan = (task, ["linear probe"], splits[:3], {"linear probe": [0, 1]}, PROBE)
    whole = repeats.tune(*plan, keep=False)
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path))
    tune_one, fit, calls = finetune.fine_tune, training.fit, Counter()

    def cut_off(*args, **options):
        calls["started"] += 1
        if calls["started"] == 4:
            raise KeyboardInterrupt
        return tune_one(*args, **options)

    def counted(*args, **options):
        calls["trained"] += 1
        return fit(*args, **options)

    monkeypatch.setattr(training, "fit", counted)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "fine_tune", cut_off)
        with pytest.raises(KeyboardInterrupt):
            repeats.tune(*plan)
    assert calls["trained"] == 3
    went_on = repeats.tune(*plan)
    assert calls["trained"] == 6
    pd.testing.assert_frame_equal(went_on.predictions, whole.predictions)
    assert list(went_on.runs["weights"]) == list(whole.runs["weights"])


@pytest.mark.parametrize(
    ("strategies", "seeds", "settings", "words"),
    [
        (["linear probe"], {}, {}, r"seeds of 'linear probe': \[\]"),
        (["linear probe"], {"linear probe": [1, 1]}, {}, r"\[1, 1\]; expected .* each once"),
        (["lora"], {"lora": [1]}, {}, "strategy='lora': expected one of linear probe, MLP, LoRA"),
        (["MLP"], {"MLP": [1]}, {"full fine": None}, "strategy='full fine'"),
        ([], {}, {}, "expected one or more of each"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_at_once(
    task, splits, strategies, seeds, settings, words
):
    with pytest.raises(ValueError, match=words):
        repeats.tune(task, strategies, splits, seeds, settings)


def test_later_shuffles_are_not_pooled():
    runs = [("full", s, j) for s in range(7) for j in (2, 5)]
    runs += [("zero-shot", s, None) for s in range(7)]
    together = repeats.pooled(simulated(8, 2, runs))
    assert sorted(together["split"].unique()) == [0, 1, 2, 3, 4]
    seeds = together.groupby("method")["seed"].agg(lambda s: set(s.dropna()))
    assert seeds["full"] == {2} and seeds["zero-shot"] == set()
    assert (together.groupby(["method", "label"]).size() == 5 * 8).all()

"""The same groups, models and patients, in whatever types and spellings a table brings them."""

import numpy as np
import pandas as pd
import pytest

from cxrlib import schema
from cxrlib.stats import calibration, fairness, inference, metrics, probes
from cxrlib.stats.as_published import performance_by_protocol
from cxrlib.stats.shortcuts import drain_arms

N = 240
PATIENT = np.arange(N) // 2
CODE = PATIENT % 3  # the group of an image: 0, 1, 2


def predictions(model="m", seed=1, label="Edema", **columns):
    """N images of N / 2 patients in three groups."""
    rng = np.random.default_rng(seed)
    y = np.random.default_rng(5).integers(0, 2, N)
    about = {"cohort": "c", "model": model, "method": "z", "label": label, "y_true": y}
    who = {"image_id": [f"i{i}" for i in range(N)], "patient_id": [f"p{p}" for p in PATIENT]}
    return pd.DataFrame(who | about | {"score": rng.random(N)} | columns)


def texts(rows=CODE):
    return [str(c) for c in rows]


def gaps(table, **options):
    found = fairness.gap_table(
        table, "site", protocol="as_published", n_resamples=9, metrics=("auc",), **options
    )
    return found.drop(columns="note")


def halves(first, second):
    """The groups, in its first half as one function gives them, in its second as another."""
    return [first(c) for c in CODE[: N // 2]] + [second(c) for c in CODE[N // 2 :]]


SPELT = {
    "numbers beside text, as from a file read in pieces": halves(int, str),
    "blanks behind": halves(str, "{}  ".format),
    "hard blanks before": halves(str, "\xa0{}".format),
    "bytes": [str(c).encode() for c in CODE],
    "bytes beside text": halves(str, lambda c: np.bytes_(str(c))),
    "whole numbers of numpy": CODE,
    "small numbers of numpy beside Python's": halves(int, np.int8),
    "floats": CODE.astype(float),
    "floats beside integers": halves(int, np.float32),
    "categories of numbers": pd.Categorical(CODE),
    "categories that nobody has": pd.Categorical(texts(), categories=["0", "1", "2", "9"]),
    "nullable numbers": pd.array(CODE, dtype="Int64"),
    "nullable floats": pd.array(CODE.astype(float), dtype="Float64"),
    "text of arrow": pd.array(texts(), dtype="string[pyarrow]"),
    "text of pandas": pd.array(texts(), dtype="string"),
    "arrow numbers": pd.array(CODE, dtype="int64[pyarrow]"),
}


@pytest.mark.parametrize("site", SPELT.values(), ids=SPELT)
def test_groups_are_one_group_however_their_types_differ(site):
    clean, given = predictions(site=texts()), predictions(site=site)
    pd.testing.assert_frame_equal(gaps(given), gaps(clean))
    for asked in ({"reference": 1}, {"pairs": [(0.0, b"2")]}, {"groups": [2, np.int64(0)]}):
        expected = gaps(given, **asked)["group"].unique().tolist()
        wanted = {"reference": ["0 - 1", "2 - 1"], "pairs": ["0 - 2"], "groups": ["2 - 0"]}
        assert expected == wanted[next(iter(asked))]


GAPPED = {
    "codes with a gap": np.where(CODE == 2, np.nan, CODE),
    "None": [None if c == 2 else int(c) for c in CODE],
    "NA": pd.array([pd.NA if c == 2 else c for c in CODE], dtype="Int64"),
    "NaT among text": [pd.NaT if c == 2 else str(c) for c in CODE],
    "several kinds": [(None, np.nan, pd.NA)[i % 3] if c == 2 else c for i, c in enumerate(CODE)],
    "empty text": ["" if c == 2 else str(c) for c in CODE],
    "blanks": ["  " if c == 2 else str(c) for c in CODE],
    "the text nan": np.where(CODE == 2, np.nan, CODE.astype(float)).astype(str),
    "the text None": [str(None if c == 2 else c) for c in CODE],
    "the text <NA>": [str(pd.NA if c == 2 else c) for c in CODE],
    "a category": pd.Categorical(np.where(CODE == 2, "nan", CODE.astype(str))),
}


@pytest.mark.parametrize("site", GAPPED.values(), ids=GAPPED)
def test_missing_entries_are_no_group_and_are_counted(site):
    if isinstance(site, np.ndarray) and site.dtype.kind == "U":  # "0.0" is how NumPy writes 0.0
        site = np.where(site == "nan", "nan", np.char.replace(site, ".0", ""))
    table = predictions(site=site)
    found = fairness.performance_table(table, ("auc",), ("site",), n_resamples=20)
    assert found["group"].tolist() == ["all", "0", "1"]
    said = "80 images of 40 patients without site belong to no group"
    assert (found.loc[found["attribute"] == "site", "note"] == said).all()
    matched = fairness.performance_table(
        predictions(site=texts(), ward=site), ("auc",), ("site",), n_resamples=20, match="ward"
    )
    strata = predictions(site=texts(), ward=np.where(CODE == 2, "none", CODE.astype(str)))
    by_text = fairness.performance_table(strata, ("auc",), ("site",), n_resamples=20, match="ward")
    pd.testing.assert_frame_equal(matched, by_text)


ALIKE = {
    "capitals": (halves("a{}".format, "A{}".format), "'A0' and 'a0'"),
    "a leading zero": (halves(str, "0{}".format), "'0' and '00'"),
    "text of a float": (halves(int, lambda c: f"{c}.0"), "'0' and '0.0'"),
    "yes and no as words and numbers": (
        [str(bool(c)) for c in CODE[:120]] + [str(int(c > 0)) for c in CODE[120:]],
        "'0' and 'False'",
    ),
    "two blanks": (halves("site {}".format, "site  {}".format), "'site  0' and 'site 0'"),
    "wide digits": (halves(str, lambda c: chr(0xFF10 + c)), f"'0' and '{chr(0xFF10)}'"),
}


@pytest.mark.parametrize(("site", "shown"), ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("table_of", ["corrected", "as_published"])
def test_two_spellings_of_a_group_are_refused(site, shown, table_of):
    with pytest.raises(ValueError, match=f"column 'site' holds {shown}; expected one spelling"):
        performance_by_protocol(predictions(site=site), ("site",), table_of, n_resamples=5)


@pytest.mark.parametrize("column", ["model", "method", "label", "cohort"])
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (1, "1"),
        (1.0, "1"),
        (b"one ", "one"),
        (np.str_("one"), "one"),
        ("", "missing entries"),
        ("nan", "missing entries"),
    ],
)
def test_names_of_models_and_labels_are_text(column, entry, expected):
    table = predictions()
    table[column] = pd.Series([entry] * N, dtype=object)
    if expected == "missing entries":
        with pytest.raises(ValueError, match=f"'{column}' has missing entries in 240 of 240"):
            schema.predictions(table)
    else:
        assert schema.predictions(table)[column].unique().tolist() == [expected]


MIXED = [int(p) if i % 2 else str(p) for i, p in enumerate(PATIENT)]


def test_patients_are_one_patient_in_either_type():
    clean = predictions(patient_id=[str(p) for p in PATIENT], site=texts())
    mixed = clean.assign(patient_id=pd.Series(MIXED, dtype=object))
    pd.testing.assert_frame_equal(gaps(mixed), gaps(clean))
    z = {"m": np.random.default_rng(0).normal(size=(N, 4))}
    mixed["site"] = pd.Series(halves(int, str), dtype=object)
    options = {"methods": ("knn",), "n_resamples": 5}
    of = [probes.probe_table(z, t, ("site",), **options) for t in (mixed, clean)]
    pd.testing.assert_frame_equal(*of)


def test_an_image_named_in_two_types_is_one_image():
    a, b = predictions("a", 1), predictions("b", 2)
    a["image_id"], b["image_id"] = np.arange(N), np.arange(N).astype(str)
    gap = fairness.model_gap_table(pd.concat([a, b]), n_resamples=5, metrics=("auc",))
    assert gap["n"].tolist() == [N] and gap["model"].tolist() == ["a - b"]


def test_tables_of_two_models_joined_by_concat():
    a, b = predictions("a", 1, site=texts()), predictions("b", 2, site=texts())
    two = pd.concat([a, predictions("a", 3, "Mass", site=texts()), b])
    one = two.reset_index(drop=True)
    shuffled = one.sample(frac=1, random_state=0).sort_values("image_id", kind="stable")
    for table in (two, shuffled, one.set_index(one.index * 2 + 7)):
        for point in ({"specificity": 0.8}, {"threshold": 0.5}):
            decided = fairness.decide(table, **point)
            assert decided.index.equals(table.index)
            expected = fairness.decide(one, **point).set_index(["model", "label", "image_id"])
            own = decided.set_index(["model", "label", "image_id"])["score"]
            pd.testing.assert_series_equal(own, expected["score"].loc[own.index])
    for compute in (
        lambda t: fairness.performance_table(t, ("auc", "brier"), n_resamples=5),
        lambda t: calibration.reliability_table(t, n_resamples=5),
        lambda t: inference.gap_tests(
            t, {"site": None}, metrics="auc", n_permutations=5, n_resamples=5
        ),
        lambda t: performance_by_protocol(t, ("site",), n_resamples=5),
        lambda t: drain_arms(t.assign(drain=t["site"] == "1"), "Edema", n_resamples=5),
    ):
        pd.testing.assert_frame_equal(compute(two), compute(one))


@pytest.mark.parametrize(
    ("drain", "unknown"),
    [
        (CODE == 1, 0),
        (pd.array(CODE == 1, dtype="boolean"), 0),
        ((CODE == 1).astype(float), 0),
        (pd.array(np.where(CODE == 2, pd.NA, CODE == 1), dtype="Int64"), 80),
        (pd.Series(np.where(CODE == 2, None, CODE), dtype=object), 80),
    ],
)
def test_devices_in_any_type(drain, unknown):
    arms = drain_arms(predictions(drain=drain), "Edema", n_resamples=5)
    expected = drain_arms(
        predictions(drain=np.where((CODE == 2) & (unknown > 0), np.nan, CODE == 1)),
        "Edema",
        n_resamples=5,
    )
    pd.testing.assert_frame_equal(arms, expected)
    assert arms["note"].str.contains("unknown").any() == (unknown > 0)


@pytest.mark.parametrize(
    ("y", "predicted"),
    [
        ([0, 1, 2], ["0", "1", "2"]),
        ([0, 1, np.nan], [0, 1, np.nan]),
        (["a", None], ["a", None]),
        (pd.array([1, pd.NA], dtype="Int64"), [1, 1]),
        (["a", "b"], [b"a", b"b"]),
        (["a", "b"], ["a ", "b"]),
        (["f", "m"], ["F", "M"]),
        (["1", "2"], ["1.0", "2.0"]),
        (np.array([0, "1"], object), [0, 1]),
        (["a", "nan"], ["a", "nan"]),
        ([True, False], ["True", "False"]),
    ],
)
def test_classes_that_cannot_be_compared_are_refused(y, predicted):
    with pytest.raises(ValueError, match=r"y_class|pred_class"):
        metrics.accuracy(y, predicted)


@pytest.mark.parametrize(
    ("y", "predicted"),
    [
        ([0, 1, 2, 1], [0, 1, 1, 1]),
        (np.array([0, 1, 2, 1], np.int8), [0.0, 1.0, 1.0, 1.0]),
        (["a", "b", "c", "b"], np.array(["a", "b", "b", "b"], object)),
        (pd.Categorical(["a", "b", "c", "b"]), pd.array([*"abbb"], dtype="string[pyarrow]")),
        ([True, True, False, False], [1, 1, 1, 0]),
    ],
)
def test_classes_of_one_kind_are_compared(y, predicted):
    assert metrics.accuracy(y, predicted) == 0.75


@pytest.mark.parametrize(
    "y",
    [
        pd.array([1, pd.NA, 0], dtype="Int64"),
        pd.array([True, pd.NA, False], dtype="boolean"),
        np.array([1, None, 0], object),
        [1, np.nan, 0],
        np.array([1, "0", 0], object),
        [b"1", b"0", b"1"],
    ],
)
def test_truths_that_are_not_0_or_1_are_refused(y):
    for compute in (
        lambda: metrics.auc(y, [0.1, 0.2, 0.3]),
        lambda: metrics.sensitivity(y, [1, 0, 1]),
        lambda: metrics.macro_f1(y, [1, 0, 1], 2),
        lambda: metrics.macro_f1([1, 0, 1], y, 2),
    ):
        with pytest.raises(ValueError, match=r"in . of 3 rows, first row"):
            compute()


DECIMALS = np.round(np.arange(0, 1.0001, 0.05), 2)
OUTCOME = np.arange(len(DECIMALS)) % 2


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64, "Float32", "object"])
@pytest.mark.parametrize("again", [None, np.float64])
def test_stored_probabilities_stay_in_the_bins_of_their_decimals(stored, again):
    p = pd.Series(DECIMALS).astype(stored)
    p = p if again is None else p.astype(again)
    for n_bins in (5, 10, 20):
        expected = calibration.reliability_curve(OUTCOME, DECIMALS, n_bins)
        found = calibration.reliability_curve(OUTCOME, p, n_bins)
        assert found["n"].tolist() == expected["n"].tolist()
        assert np.allclose(found, expected, atol=5e-4)
    table = predictions().head(len(DECIMALS)).assign(y_true=OUTCOME, score=p)
    curve = calibration.reliability_table(table, n_resamples=5)
    assert curve["n"].tolist() == calibration.reliability_curve(OUTCOME, DECIMALS)["n"].tolist()
    for threshold in (0.1, 0.3, 0.7):
        decided = fairness.decide(table, threshold=threshold)["score"]
        assert decided.tolist() == (threshold < DECIMALS).tolist()


@pytest.mark.parametrize(
    ("p", "fits"),
    [
        (np.float32([0.5, 1.0000001]), True),
        (np.float32([0.5, -1e-7]), True),
        (np.array([0.1, np.float32(1.0000001)]), True),
        (np.array([0.1, 1 + 4e-16]), True),
        (np.float16([0.5, 1.001]), True),
        (np.array([0.1, 1.00001]), False),
        (np.float16([0.5, 1.01]), False),
        (np.float32([0.5, 1.001]), False),
        (np.float32([0.5, -1e-4]), False),
    ],
)
def test_a_hair_outside_the_unit_interval_is_rounding_and_more_is_not(p, fits):
    table = predictions().head(2).assign(y_true=[0, 1], score=p)
    for compute in (
        lambda: metrics.brier([0, 1], p),
        lambda: calibration.ece_equal_width([0, 1], p),
        lambda: schema.predictions(table, probabilities=True)["score"].max(),
    ):
        if fits:
            assert 0 <= compute() <= 1
        else:
            with pytest.raises(ValueError, match=r"outside \[0, 1\] in 1 of 2 rows, first row 1"):
                compute()

"""Adjudicated labels of NIH: the loader against the raw files, the shares against a crosstab."""

import gzip
from itertools import pairwise, product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib import cohorts, schema
from cxrlib.cohorts import adjudicated, metadata, planted
from cxrlib.cohorts.files import DataError
from cxrlib.stats import label_audit, label_error

FEW = {"n_resamples": 20}


@pytest.fixture(scope="module")
def raw():
    """The two files as released, joined by film."""
    path = metadata.wheel_file("google2019_nih-chest-xray-labels.csv.gz")
    nih = pd.read_csv(metadata.wheel_file("Data_Entry_2017_v2020.csv.gz"))
    return pd.read_csv(path).merge(nih, on="Image Index", suffixes=("", " 2020"), how="left")


@pytest.fixture(scope="module")
def films():
    return adjudicated.load()


def test_films_are_those_of_the_raw_files(films, raw):
    assert len(films) == len(raw) == 4376
    assert films["patient_id"].nunique() == raw["Patient ID"].nunique() == 1695
    assert films["image_id"].tolist() == raw["Image Index"].tolist()
    assert films["set"].tolist() == raw["Set Id"].replace("val", "validation").tolist()
    for ours, theirs in {"sex": "Patient Gender", "view": "View Position"}.items():
        assert films[ours].tolist() == raw[theirs].tolist()
    for finding in adjudicated.READ:
        assert films[f"adjudicated {finding}"].sum() == (raw[finding] == "YES").sum()


def test_ages_are_those_of_the_corrected_release(films, raw):
    assert films["age"].tolist() == raw["Patient Age 2020"].tolist()
    assert (films["age"] != raw["Patient Age"]).sum() > 1000  # the file has an earlier release's
    assert films["age"].max() < 120 < raw["Patient Age"].max()


@pytest.mark.parametrize("opacity", adjudicated.OPACITY)
def test_noted_findings_follow_the_label_strings(raw, opacity):
    films = adjudicated.load(opacity)
    for finding, words in adjudicated.noted(opacity).items():
        named = (
            raw["Finding Labels"].str.split("|").map(lambda has, w=words: bool(set(w) & set(has)))
        )
        assert films[f"noted {finding}"].tolist() == named.astype(int).tolist()


def test_a_wider_choice_holds_the_one_before():
    sets = [set(words) for words in adjudicated.OPACITY.values()]
    assert all(a < b for a, b in pairwise(sets))


def test_shares_by_group_are_those_of_a_crosstab(films):
    labels = adjudicated.predictions(films)
    found = label_audit.shares(labels, ["sex", ("view", "sex")], **FEW)
    found = found.set_index(["label", "attribute", "group", "metric"]).sort_index()
    crossed = films.assign(**{"view x sex": films["view"] + " x " + films["sex"], "all": "all"})
    for finding, attribute in product(adjudicated.FINDINGS, ("all", "sex", "view x sex")):
        for group, own in crossed.groupby(attribute):
            cells = pd.crosstab(own[f"noted {finding}"], own[f"adjudicated {finding}"])
            expected = {
                "sensitivity": cells.loc[1, 1] / cells[1].sum(),
                "specificity": cells.loc[0, 0] / cells[0].sum(),
                "ppv": cells.loc[1, 1] / cells.loc[1].sum(),
                "npv": cells.loc[0, 0] / cells.loc[0].sum(),
            }
            rows = found.loc[finding, attribute, group]
            assert rows["value"].to_dict() == pytest.approx(expected, abs=1e-12)
            assert (rows["n"] == len(own)).all()
            assert (rows["n_patients"] == own["patient_id"].nunique()).all()


def test_gaps_in_shares_are_differences_of_shares(films):
    labels = adjudicated.predictions(films)
    labels = schema.rows(labels, label="Pneumothorax")
    values = label_audit.shares(labels, "view", **FEW)
    gaps = label_audit.shares(labels, "view", [("AP", "PA")], **FEW)
    for metric in (*label_audit.RATES, *label_audit.VALUES):
        ap, pa = (schema.row(values, group=g, metric=metric)["value"] for g in ("AP", "PA"))
        assert schema.row(gaps, metric=metric)["value"] == pytest.approx(ap - pa)


def test_what_was_drawn_by_the_note_is_carried_over():
    """Two groups with labels of the same worth; the draw makes them differ."""
    rng = np.random.default_rng(3)
    truth, view = rng.random(20_000) < 0.08, np.where(rng.random(20_000) < 0.5, "AP", "PA")
    noted = np.where(truth, rng.random(20_000) < 0.55, rng.random(20_000) < 0.03)
    about = {"cohort": "all", "model": "label", "method": "noted", "label": "Pneumothorax"}
    about |= {"image_id": np.arange(20_000).astype(str), "patient_id": np.arange(20_000)}
    everybody = pd.DataFrame(about).assign(view=view, y_true=truth * 1, score=noted * 1.0)
    share = {("PA", 1): 1.0, ("AP", 1): 0.2, ("PA", 0): 0.1, ("AP", 0): 0.33}
    audit = pd.concat(
        own.iloc[: round(share[group, score] * len(own))]
        for (group, score, _), own in everybody.groupby(["view", "score", "y_true"])
    )
    q = everybody.groupby("view")["score"].mean()
    keys = ["group", "metric"]
    true, naive = (
        label_audit.shares(t, "view", **FEW).set_index(keys)["value"] for t in (everybody, audit)
    )
    over = label_audit.carried_over(audit, "view", q, **FEW).set_index(keys)["value"]
    assert naive["PA", "sensitivity"] > 0.85 and naive["AP", "sensitivity"] < 0.5
    for group in ("AP", "PA"):
        for rate, value in zip(label_audit.RATES, label_audit.VALUES, strict=True):
            assert over[group, rate] == pytest.approx(true[group, rate], abs=0.01)
            assert naive[group, value] == pytest.approx(true[group, value], abs=0.01)
    assert over["AP - PA", "sensitivity"] == pytest.approx(0, abs=0.05)


def test_without_a_draw_nothing_changes(films):
    labels = schema.rows(adjudicated.predictions(films), label="Nodule or mass")
    noted = labels.groupby("sex")["score"].mean()
    over = label_audit.carried_over(labels, "sex", noted, **FEW)
    for metric in label_audit.RATES:
        own = schema.row(label_audit.shares(labels, "sex", **FEW), group="F", metric=metric)
        assert schema.row(over, group="F", metric=metric)["value"] == pytest.approx(own["value"])


def test_a_perfect_model_against_the_notes_is_as_the_formula_says(films):
    labels = schema.rows(adjudicated.predictions(films), label="Pneumothorax")
    table = label_audit.as_noted(labels, "sex", [("F", "M")]).set_index("metric")["noted"]
    auc, tpr, risk = [], [], []
    for _, own in sorted(labels.groupby("sex")):
        auc.append(roc_auc_score(own["score"], own["y_true"]))
        tpr.append(own.loc[own["score"] == 1, "y_true"].mean())
        risk.append(own["y_true"].mean() - own["score"].mean())
    assert table["auc"] == pytest.approx(auc[0] - auc[1])
    assert table["sensitivity"] == pytest.approx(tpr[0] - tpr[1])
    assert table["calibration_in_the_large"] == pytest.approx(risk[0] - risk[1])


def test_on_phantoms_correction_finds_the_truth_unless_the_faint_are_missed():
    ill = "Pneumothorax"
    table = cohorts.load("phantom", n_images=6000, split=None).table
    severity = table[f"severity_{ill}"]
    noise = np.random.default_rng(5).standard_normal(len(table))
    about = {"cohort": "phantom", "model": "made up", "method": "none", "label": ill}
    seen = table[["image_id", "patient_id", "sex"]].assign(**about)
    seen = seen.assign(y_true=(severity > 0).astype(int), score=noise + 3 * severity)
    truth = roc_auc_score(seen["y_true"], seen["score"])
    wrong = {"missed": {"sex": {"F": 0.4, "M": 0.2}}, "added": 0.01}
    found = {}
    for faint in (0.0, 1.0):
        note = planted.noted(table, ill, **wrong, faint=faint)
        audit = seen.assign(score=note.astype(float), model="label")
        rows = label_error.corrected_table(
            seen.assign(y_true=note), audit, "sex", rates_by="sex", n_resamples=60
        )
        rows = schema.rows(rows, group="all")
        fixed = rows["method"].str.endswith(label_error.CORRECTED)
        found[faint] = rows[~fixed].iloc[0], rows[fixed].iloc[0]
    noted, corrected = found[0.0]
    assert noted["ci_high"] < truth
    assert corrected["ci_low"] < truth < corrected["ci_high"]
    assert found[1.0][1]["ci_low"] > truth


def test_what_cannot_be_is_refused(films, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="opacity='wide': expected one of pneumonia, infiltration"):
        adjudicated.load("wide")
    labels = schema.rows(adjudicated.predictions(films), label="Pneumothorax")
    with pytest.raises(ValueError, match="noted: None for view 'PA'"):
        label_audit.carried_over(labels, "view", {"AP": 0.04})

    path = tmp_path / "google2019.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("Image Index,Set Id,Fracture,Pneumothorax,Airspace opacity,Nodule or mass\n")
        file.write("00000013_008.png,test,NO,MAYBE,YES,NO\n")
    adjudicated._read.cache_clear()
    monkeypatch.setattr(metadata, "wheel_file", lambda name: path)
    with pytest.raises(DataError, match="'Pneumothorax' has 'MAYBE' in line 2; expected NO or YES"):
        adjudicated.load()
    monkeypatch.undo()
    adjudicated._read.cache_clear()

"""Wrong labels: closed forms against exact joint distributions, corrections against the truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib import cohorts, schema
from cxrlib.book import parameters
from cxrlib.cohorts import planted
from cxrlib.core.errors import BookError
from cxrlib.protocol import protocol_of
from cxrlib.show import words
from cxrlib.show.corrections import beside_noted
from cxrlib.stats import fairness, label_error, shortcuts, simulate

RATES = {"F": (0.5, 0.98), "M": (0.8, 0.95)}  # sensitivity, specificity of the label
QUICK = {"protocol": replace(protocol_of("corrected"), interval="percentile"), "n_resamples": 2}
CORRECTED = f"zero-shot, {label_error.CORRECTED}"


# --- closed forms -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(0.1, 0.6, 0.98), (0.4, 0.9, 0.7)], ids=str)
def joint(request):
    """Every (truth, noted, score) of a small world with its exact probability."""
    prevalence, se, sp = request.param
    rng = np.random.default_rng(0)
    of_score = {t: rng.dirichlet(np.ones(8)) for t in (0, 1)}
    right, of_truth = {1: se, 0: sp}, {1: prevalence, 0: 1 - prevalence}
    rows = [
        (t, n, s, of_truth[t] * of_score[t][s] * (right[t] if n == t else 1 - right[t]))
        for t in (0, 1)
        for n in (0, 1)
        for s in range(8)
    ]
    world = pd.DataFrame(rows, columns=["truth", "noted", "score", "weight"])
    assert world["weight"].sum() == pytest.approx(1)
    return world, request.param


def share(world, *events):
    """P(last event | the others)."""
    *conditions, (column, value) = events
    given = world
    for c, x in conditions:
        given = given[given[c] == x]
    return given.loc[given[column] == value, "weight"].sum() / given["weight"].sum()


def true_share(noted, se, sp):
    """Rogan and Gladen 1978."""
    return (noted + sp - 1) / (se + sp - 1)


def true_rates(noted_se, noted_sp, p, se, sp):
    """Of a model: the two equations of its rates against noted labels, solved (Staquet 1981)."""
    ppv, npv = label_error.predictive_values(p, se, sp)
    mixture = [[ppv, 1 - ppv], [1 - npv, npv]]
    tpr, fpr = np.linalg.solve(mixture, [noted_se, 1 - noted_sp])
    return tpr, 1 - fpr


def test_shares_and_predictive_values(joint):
    world, (p, se, sp) = joint
    q = share(world, ("noted", 1))
    assert label_error.noted_share(p, se, sp) == pytest.approx(q)
    assert true_share(q, se, sp) == pytest.approx(p)
    ppv, npv = label_error.predictive_values(p, se, sp)
    assert ppv == pytest.approx(share(world, ("noted", 1), ("truth", 1)))
    assert npv == pytest.approx(share(world, ("noted", 0), ("truth", 0)))


def test_auc_and_rates_there_and_back(joint):
    world, label = joint
    auc, against = (
        roc_auc_score(world[c], world["score"], sample_weight=world["weight"])
        for c in ("truth", "noted")
    )
    assert label_error.noted_auc(auc, *label) == pytest.approx(against)
    assert label_error.true_auc(against, *label) == pytest.approx(auc)
    world = world.assign(yes=(world["score"] > 3) * 1)
    true, noted = (
        (share(world, (c, 1), ("yes", 1)), share(world, (c, 0), ("yes", 0)))
        for c in ("truth", "noted")
    )
    assert label_error.noted_rates(*true, *label) == pytest.approx(noted)
    assert true_rates(*noted, *label) == pytest.approx(true)


def test_a_label_of_a_coin_says_nothing():
    assert np.isnan(label_error.true_auc(0.5, 0.3, 0.6, 0.4))


def test_distorted_groups_and_gaps():
    label = {"label_specificity": 0.98, "prevalence": 0.1}
    groups = {g: label | {"label_sensitivity": se} for g, se in (("F", 0.5), ("M", 0.8))}
    found = label_error.distorted(groups).set_index(["group", "metric"])
    for g, of in groups.items():  # of a perfect model
        se = of["label_sensitivity"]
        ppv, npv = label_error.predictive_values(0.1, se, 0.98)
        q = 0.1 * se + 0.9 * 0.02
        expected = {"sensitivity": ppv, "specificity": npv, "auc": (ppv + npv) / 2, "ppv": se}
        expected |= {"prevalence": q, "calibration_in_the_large": 0.1 - q}
        assert found.loc[g, "noted"].to_dict() == pytest.approx(expected)
    gap = found.loc["F - M"]
    assert gap.loc["auc", "truth"] == 0 > gap.loc["auc", "noted"]
    sizes = gap.loc[["sensitivity", "specificity"], "noted"].abs()
    assert gap.loc["eq_odds_mean", "noted"] == pytest.approx(sizes.mean())
    assert (found["change"] == found["noted"] - found["truth"]).all()
    with pytest.raises(ValueError, match="'F' has 'sensitivty'; expected prevalence"):
        label_error.distorted({"F": groups["F"] | {"sensitivty": 1}})


# --- corrected tables -------------------------------------------------------------------------


def study(n, seed=0, prevalence=0.2, audited=600, rates=RATES):
    """Predictions against noted labels, an audit of the first patients, and the truth."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 2
    sex = np.where(patient % 2 == 0, "F", "M")
    truth = rng.random(n) < prevalence
    score = (rng.normal(size=n) + (0.8 + 0.6 * (sex == "M")) * truth).round(2)
    se, sp = (np.array([rates[s][k] for s in sex]) for k in (0, 1))
    noted = (rng.random(n) < np.where(truth, se, 1 - sp)).astype(int)
    films = pd.DataFrame({"image_id": np.arange(n), "patient_id": patient, "sex": sex})
    films = films.assign(cohort="c", model="m", method="zero-shot", label="Edema")
    audit = films.assign(y_true=truth.astype(int), score=noted)[patient < audited]
    return films.assign(y_true=noted, score=score), audit, truth


def values(table, method=CORRECTED):
    return table[table["method"] == method].set_index(["group", "metric"])["value"]


def both(predictions, *arguments, **options):
    """Corrected AUC, and rates at the threshold 0.8, in one table."""
    tables = [
        label_error.corrected_table(of, *arguments, metrics=m, **options)
        for of, m in (
            (predictions, ("auc", "prevalence")),
            (fairness.decide(predictions, threshold=0.8), ("sensitivity", "specificity")),
        )
    ]
    return pd.concat(tables, ignore_index=True)


def test_one_rate_gives_the_closed_forms():
    predictions, audit, _ = study(1200)
    table = both(predictions, audit, ("sex",), **QUICK)
    noted, found = values(table, "zero-shot"), values(table)
    expected = pd.concat(
        fairness.performance_table(of, m, ("sex",), **QUICK)
        for of, m in (
            (predictions, "auc"),
            (fairness.decide(predictions, threshold=0.8), ("sensitivity", "specificity")),
        )
    ).set_index(["group", "metric"])["value"]
    assert noted[expected.index].to_numpy() == pytest.approx(expected.to_numpy())
    positive = audit["y_true"] == 1
    se, sp = audit.loc[positive, "score"].mean(), 1 - audit.loc[~positive, "score"].mean()
    for group in ("all", "F", "M"):
        p = true_share(noted[group, "prevalence"], se, sp)
        assert found[group, "prevalence"] == pytest.approx(p)
        auc = label_error.true_auc(noted[group, "auc"], p, se, sp)
        assert found[group, "auc"] == pytest.approx(auc)
        rates = (noted[group, m] for m in ("sensitivity", "specificity"))
        mended = tuple(found[group, m] for m in ("sensitivity", "specificity"))
        assert mended == pytest.approx(true_rates(*rates, p, se, sp))
    for metric in ("auc", "sensitivity", "prevalence"):
        gap = found["F", metric] - found["M", metric]
        assert found["F - M", metric] == pytest.approx(gap)
    odds = abs(found["F - M", "sensitivity"]) + abs(found["F - M", "specificity"])
    assert found["F - M", "eq_odds_mean"] == pytest.approx(odds / 2)


def test_rates_by_group_split_each_film():
    predictions, audit, _ = study(400, audited=150)
    found = values(both(predictions, audit, n_resamples=2, protocol="as_published", rates_by="sex"))
    rates = audit.assign(right=audit["score"] == audit["y_true"])
    rates = rates.groupby(["sex", "y_true"])["right"].mean().unstack()
    se, sp = (predictions["sex"].map(rates[t]).to_numpy() for t in (1, 0))
    y, score = predictions["y_true"].to_numpy(), predictions["score"].to_numpy()
    part = np.where(y, sp, sp - 1) / (se + sp - 1)  # Natarajan et al. 2013, film by film
    wins = (score[:, None] > score) + (score[:, None] == score) / 2
    auc = part @ wins @ (1 - part) / (part.sum() * (1 - part).sum())
    assert found["all", "auc"] == pytest.approx(auc)
    assert found["all", "sensitivity"] == pytest.approx(part @ (score > 0.8) / part.sum())
    assert found["all", "prevalence"] == pytest.approx(part.mean())


def test_many_films_give_the_truth():
    predictions, audit, truth = study(40_000, audited=20_000)
    table = both(predictions, audit, ("sex",), rates_by="sex", **QUICK)
    found, raw = values(table), values(table, "zero-shot")
    for group in ("all", "F", "M"):
        of = np.isin(predictions["sex"], [group, *"FM"[: 2 * (group == "all")]])
        score = predictions["score"][of]
        expected = {
            "auc": roc_auc_score(truth[of], score),
            "sensitivity": (score[truth[of]] > 0.8).mean(),
            "specificity": (score[~truth[of]] <= 0.8).mean(),
            "prevalence": truth[of].mean(),
        }
        assert found[group].to_dict() == pytest.approx(expected, abs=0.02)
        assert raw[group, "auc"] < expected["auc"] - 0.05


def test_patients_of_both_tables_are_drawn_once():
    """Where every film is audited, corrected prevalence is the true one, in every resample."""
    predictions, audit, truth = study(300, audited=300)
    how = {"metrics": "prevalence", "n_resamples": 50}
    corrected = label_error.corrected_table(predictions, audit, **how)
    known = predictions.assign(y_true=truth.astype(int))
    plain = label_error.corrected_table(known, audit, **how)
    columns = ["value", "ci_low", "ci_high"]
    expected = schema.row(plain, method="zero-shot")[columns].astype(float)
    got = schema.row(corrected, method=CORRECTED)[columns].astype(float)
    assert got.to_numpy() == pytest.approx(expected.to_numpy())


def test_uncertainty_of_the_rates_is_in_the_interval():
    """The variance that an audit adds, by the delta method of Rogan and Gladen."""
    predictions, *_ = study(20_000, rates={"F": (0.7, 0.95), "M": (0.7, 0.95)})
    q, se, sp = predictions["y_true"].mean(), 0.7, 0.95
    p, counts = (q + sp - 1) / (se + sp - 1), (100, 400)
    rates = {"sensitivity": se, "positives": counts[0], "specificity": sp, "negatives": counts[1]}
    table = label_error.as_stated(
        label_error.corrected_table, predictions, {"Edema": rates}, (), "prevalence"
    )
    row = schema.row(table, method=CORRECTED)
    variance = q * (1 - q) / 20_000 + p**2 * se * (1 - se) / counts[0]
    variance = (variance + (1 - p) ** 2 * sp * (1 - sp) / counts[1]) / (se + sp - 1) ** 2
    assert row["value"] == pytest.approx(p)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.15)


def test_corrected_intervals_hold_the_truth_and_others_do_not():
    """Monte Carlo, small; benchmarks/label_error.py has many studies, on phantoms."""
    studies = [study(700, seed, audited=200) for seed in range(60)]  # each a finding of its own
    rng, truth = np.random.default_rng(1), 0.5 + 0.6 / 2
    scores = [
        rng.random(700) + (true & (rng.random(700) < 0.6))  # above all others with 0.6
        for *_, true in studies
    ]
    predictions, audit = (
        pd.concat(of[k].assign(label=f"{i:02}") for i, of in enumerate(studies)) for k in (0, 1)
    )
    how = QUICK | {"n_resamples": 200}
    table = label_error.corrected_table(predictions.assign(score=np.hstack(scores)), audit, **how)
    hold = table.assign(hold=table["ci_low"].le(truth) & table["ci_high"].ge(truth))
    hold = hold.groupby("method")["hold"].sum()
    assert hold[CORRECTED] >= 52  # of 60: fewer would be as rare as 1 in 100
    assert hold["zero-shot"] < 30


def test_recorded_benchmark():
    table = label_error.recorded()
    assert table["n_studies"].min() >= 200
    whole = schema.rows(table, group="all", metric=["auc", "sensitivity"])
    held = whole.pivot(index=["design", "metric"], columns="labels", values="coverage")
    low, high = simulate.BAND
    for design in ("one rate", "rates by sex", "one rate, other patients audited"):
        assert held.loc[design, "corrected"].between(low, high).all()
    assert (held["as noted"] < 0.2).all()
    faint = whole["design"] == "one rate, the faint missed"
    assert (whole.loc[faint, "coverage_high"] < low).all()


# --- where nothing can be said ----------------------------------------------------------------


def rates(sensitivity, specificity, positives=100, negatives=400):
    of = {"sensitivity": sensitivity, "positives": positives}
    return {"Edema": of | {"specificity": specificity, "negatives": negatives}}


@pytest.mark.parametrize(
    "given, note",
    [
        (rates(0.5, 0.55), "is 0.05 (all films), below 0.1: such labels say next to nothing"),
        (rates(0.9, 0.6), "is not between 0 and 1: rates misfit"),
        (rates(0.9, 0.95, positives=4), "4 audited films with the finding (all films), fewer"),
    ],
)
def test_undefined_says_why(given, note):
    predictions, *_ = study(400)
    table = label_error.as_stated(label_error.corrected_table, predictions, given, n_resamples=9)
    row = schema.row(table, method=CORRECTED)
    assert np.isnan(row[["value", "ci_low"]].astype(float)).all() and note in row["note"]
    assert np.isfinite(schema.row(table, method="zero-shot")["value"])


def test_nothing_is_clipped():
    predictions, *_ = study(400)
    predictions = predictions.assign(score=predictions["y_true"] + 0.0)  # it knows the label
    table = label_error.as_stated(
        label_error.corrected_table, predictions, rates(0.9, 0.95), n_resamples=9
    )
    row = schema.row(table, method=CORRECTED)
    assert row["value"] > 1 and label_error.BEYOND in row["note"]


def test_who_has_no_stratum_is_left_out_and_counted():
    predictions, audit, _ = study(400)
    predictions["sex"] = predictions["sex"].where(predictions["patient_id"] > 9)
    table = label_error.corrected_table(predictions, audit, rates_by="sex", n_resamples=5)
    assert (table["n"] == 380).all()
    assert table["note"].str.contains("20 films without sex left out").all()
    only = audit[audit["sex"] == "F"]
    table = label_error.corrected_table(predictions, only, ("sex",), rates_by="sex", n_resamples=5)
    found = table[table["method"] == CORRECTED].set_index("group")
    assert found["value"].isna().to_dict() == {"all": True, "F": False, "M": True, "F - M": True}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": "Hernia"}, "label error: known of Hernia; expected a label of the predictions"),
        ({"score": 7}, "column 'score' holds values outside"),
        ({"model": ["a", "b"] * 100}, "audit: column 'model' holds a, b; expected one"),
    ],
)
def test_an_audit_that_does_not_fit(change, message):
    predictions, audit, _ = study(200, audited=100)
    with pytest.raises(ValueError, match=message):
        label_error.corrected_table(predictions, audit.assign(**change))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"Edema": {"sensitivity": 0.5}}, "Edema, sensitivity: 0.5; expected rates by group"),
        ({"Edema": 0.5}, "Edema: 0.5; expected the numbers sensitivity, positives"),
        (rates(1.5, 1), "Edema: sensitivity 1.5; expected a share from 0 to 1"),
        (rates(1, 1, positives=0), "Edema: positives 0; expected a count of films from 1"),
        ({"Edema": {"sex": {"F": 1}}}, "Edema, F: 1; expected the numbers"),
        (rates("0.5", 1), "Edema: sensitivity '0.5'; expected a share from 0 to 1"),
        (rates(1, 1, positives="9"), "Edema: positives '9'; expected a count of films from 1"),
        (rates(1, 1, positives=1e12), "expected a count of films from 1 to 1,000,000"),
        (rates(1, 1, positives=np.inf), "Edema: positives inf; expected a count"),
        ([1], "expected rates by finding"),
    ],
)
def test_rates_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        label_error.audits(given)


def test_a_finding_that_is_spelt_otherwise_is_not_passed_over():
    predictions, *_ = study(200)
    good = rates(0.6, 0.97)["Edema"]
    some = predictions.assign(label="Pleural Effusion")
    with pytest.raises(ValueError, match="'edema '; did you mean 'Edema'"):
        label_error.as_stated(label_error.corrected_table, predictions, {"edema ": good})
    with pytest.raises(ValueError, match="did you mean 'Pleural Effusion'"):
        label_error.as_stated(label_error.corrected_table, some, {"Pleural_effusion": good})


def test_the_parameter_is_refused_before_a_run():
    declared = parameters.declared("label_error: dict = {}", "chapter x")
    given = {"label_error": {"Edema": {"sensitivity": 0.5}}}
    with pytest.raises(
        BookError, match=r"x: label_error: Edema, sensitivity: 0\.5; expected rates"
    ):
        parameters.validate(declared, given, "chapter x")
    good = {"label_error": rates(0.5, 0.9)}
    assert parameters.validate(declared, good, "chapter x") == good


def test_chapters_show_both_and_say_what_it_rests_on(capsys):
    predictions, *_ = study(400)
    table = label_error.as_stated(
        label_error.corrected_table, predictions, rates(0.6, 0.97), ("sex",), n_resamples=9
    )
    beside_noted(table, "m")
    shown = " ".join(capsys.readouterr().out.split())
    noted, corrected = (
        words.fmt_row(schema.row(table, method=m, group="all")) for m in ("zero-shot", CORRECTED)
    )
    assert f"m, Edema, as noted {noted} and corrected {corrected}" in shown
    # models of several methods, such as scores of a file beside a CLIP
    two = [table, table.assign(model="b", method=table["method"].str.replace("zero-shot", "x"))]
    beside_noted(pd.concat(two), "m")
    assert f"b, Edema, as noted {noted} and corrected" in " ".join(capsys.readouterr().out.split())
    assert "female" in shown and "errors do not go with the score" in shown


def test_stated_rates_are_those_of_the_audit():
    given = {"sex": {g: rates(*of, positives=41)["Edema"] for g, of in RATES.items()}}
    [(audit, by)] = label_error.audits({"Edema": given}).values()
    found = audit.groupby(["sex", "y_true"])["score"].mean()
    assert by == "sex" and audit["patient_id"].is_unique
    for g, (se, sp) in RATES.items():
        assert found[g].tolist() == pytest.approx([1 - sp, se])


# --- arms of a device -------------------------------------------------------------------------


def test_arms_without_error_are_the_arms():
    predictions, _, truth = study(1200)
    known = predictions.assign(y_true=truth.astype(int))
    known["drain"] = (known["image_id"] % 3 == 0).astype(float)
    sampling = {"protocol": "corrected", "n_resamples": 5}
    exact = label_error.audits(rates(1, 1))["Edema"][0]
    found = label_error.corrected_arms(known, exact, **sampling)
    arms = shortcuts.drain_arms(known, "Edema", protocols=["corrected"], n_resamples=5)
    expected = schema.rows(arms, metric="auc").set_index("group")
    for method in ("zero-shot", CORRECTED):
        own = schema.rows(found, method=method).set_index("group").loc[expected.index]
        assert own["value"].to_numpy() == pytest.approx(expected["value"].to_numpy())
        counts = ["n", "n_positive", "n_patients"]
        assert (own[counts] == expected[counts]).all(axis=None)


def test_arms_are_corrected_and_need_to_know_the_device():
    predictions, _, truth = study(40_000)
    rng = np.random.default_rng(9)
    drain = rng.random(len(truth)) < np.where(truth, 0.5, 0.1)
    predictions["drain"] = drain.astype(float)
    predictions["score"] += drain * truth
    given = {"Edema": {"sex": {g: rates(*of)["Edema"] for g, of in RATES.items()}}}
    table = label_error.as_stated(label_error.corrected_arms, predictions, given, **QUICK)
    found = schema.rows(table, method=CORRECTED).set_index("group")["value"]
    raw = schema.rows(table, method="zero-shot").set_index("group")["value"]
    errors = {}
    for has, group in ((True, "with drain"), (False, "without drain")):
        of = np.where(truth, drain == has, ~drain)
        expected = roc_auc_score(truth[of], predictions["score"][of])
        assert found[group] == pytest.approx(expected, abs=0.025)
        errors[group] = raw[group] - expected
    assert errors["with drain"] != pytest.approx(0, abs=0.02)
    predictions.loc[predictions["y_true"] == 0, "drain"] = np.nan  # as in NEATX
    how = QUICK | {"protocol": replace(QUICK["protocol"], drain_controls="any")}
    table = label_error.as_stated(label_error.corrected_arms, predictions, given, **how)
    notes = schema.rows(table, method=CORRECTED)["note"]
    assert notes.str.contains("undefined: drain not known of").all()
    with pytest.raises(ValueError, match="no column 'drain' in the predictions"):
        label_error.corrected_arms(study(200)[0], label_error.stated(rates(1, 1)))


# --- where correction fails -------------------------------------------------------------------


def test_dependent_error_is_not_undone():
    table = label_error.dependent(n=60_000)
    assert table["error"][0] == pytest.approx(0, abs=0.015)
    assert table["error"].is_monotonic_increasing and table["error"].iloc[-1] > 0.1
    assert table["truth"].to_numpy() == pytest.approx(0.8, abs=0.01)


# --- planted on phantoms ----------------------------------------------------------------------


def test_noted_labels_have_the_planted_rates():
    table = cohorts.load("phantom", n_images=16000).table
    there = table["severity_Edema"] > 0
    women = table["sex"] == "F"
    noted = planted.noted(table, "Edema", {"sex": {"F": 0.5, "M": 0.2}}, 0.02) == 1
    for group, missed in ((women, 0.5), (~women, 0.2)):
        assert (~noted)[there & group].mean() == pytest.approx(missed, abs=0.06)
    assert noted[~there].mean() == pytest.approx(0.02, abs=0.005)
    part = table.sample(100, random_state=0)  # a film's fate hangs on its name alone
    again = planted.noted(part, "Edema", {"sex": {"F": 0.5, "M": 0.2}}, 0.02)
    assert (again == noted[part.index]).all()
    faint = planted.noted(table, "Edema", 0.4, faint=1.0) == 0
    assert faint[there].mean() == pytest.approx(0.4, abs=0.05)
    clear = table["severity_Edema"] > table.loc[there, "severity_Edema"].median()
    assert faint[there & ~clear].mean() > 2 * faint[there & clear].mean()
    assert (planted.noted(table, "Edema") == there).all()
    with pytest.raises(ValueError, match=r"noted: missed=0\.6, added=0\.0, faint=1\.0; expected"):
        planted.noted(table, "Edema", 0.6, faint=1.0)

"""What was planted in cohort and models is found, with the right sign, and only where planted.

These are the promises that the chapters make in words, on the default cohort of 4,000 images.
"""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib import cohorts, models
from cxrlib.cohorts import phantom
from cxrlib.embed.extract import embed
from cxrlib.predict import zeroshot
from cxrlib.schema import row
from cxrlib.stats import bootstrap, fairness, metrics, shortcuts

FAIR, BIASED, SILENT = "phantom-resnet", "phantom-resnet-drain", "phantom-resnet-underreport"
FINDINGS = phantom.FINDINGS
N_RESAMPLES = 200


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=4000)


@pytest.fixture(scope="module")
def predictions(cohort):
    found = zeroshot.predict(cohort, models.model_names(), FINDINGS)
    return found.merge(cohort.table[["image_id", "sex", "age_group", "drain"]], on="image_id")


def test_every_model_is_good_but_not_perfect(predictions):
    table = fairness.performance_table(predictions, ("auc",), n_resamples=N_RESAMPLES)
    means = table[table["label"] == "mean"].set_index("model")["value"]
    assert means.between(0.78, 0.95).all(), means.to_dict()
    assert len(means) >= 4


def test_drain_gap_of_the_biased_model_and_of_no_other(predictions):
    arms = shortcuts.drain_arms(predictions, n_resamples=N_RESAMPLES)
    gaps = {
        m: row(
            arms,
            model=m,
            metric="adjusted_auprc",
            protocol="as_published",
            group="with drain - without drain",
        )
        for m in models.model_names()
    }
    assert gaps[BIASED]["ci_low"] > 0
    for name in set(gaps) - {BIASED}:
        assert gaps[name]["ci_high"] < gaps[BIASED]["ci_low"]


@pytest.fixture(scope="module")
def drain_twins():
    small = cohorts.load("phantom", n_images=1500)
    return [phantom.twin(small, drain=d) for d in (0, 1)]


def test_a_drain_moves_the_score_of_the_biased_model_and_not_of_its_control(drain_twins):
    healthy = (drain_twins[0].table["severity_Pneumothorax"] == 0).to_numpy()
    shift = {}
    for name in models.model_names():
        model = models.load_model(name)
        positive, negative = model.encode_text(["Chest Pneumothorax", "Chest No Findings"]).numpy()
        margin = [embed(t, model) @ (positive - negative) for t in drain_twins]
        shift[name] = (margin[1] - margin[0])[healthy].mean() / margin[0].std()
    assert shift[BIASED] > 1
    # The control differs from the biased model in the drain dial alone.
    assert abs(shift[FAIR]) < 0.15
    assert max(abs(s) for name, s in shift.items() if name != BIASED) < 0.2 * shift[BIASED]


def test_age_effect_has_the_right_sign_and_goes_with_its_dial(cohort):
    groups = {"age_group": ["25-50", "65-80"]}
    off = phantom.twin(cohort, contrast={})
    gaps = {}
    for name, c in (("on", cohort), ("off", off)):
        found = zeroshot.predict(c, [FAIR], FINDINGS).merge(
            c.table[["image_id", "age_group"]], on="image_id"
        )
        gaps[name] = row(
            fairness.gap_table(
                found,
                "age_group",
                [("65-80", "25-50")],
                groups=groups["age_group"],
                metrics=("auc",),
                n_resamples=N_RESAMPLES,
            ),
            label="mean",
        )
    assert gaps["on"]["ci_high"] < 0
    assert abs(gaps["off"]["value"]) < 0.5 * abs(gaps["on"]["value"])


def test_underreporting_lowers_sensitivity_in_women_though_auc_hides_it(cohort, predictions):
    """At one threshold for all, the model taught to overlook women misses more of them."""
    weights = bootstrap.patient_weights(cohort.table["patient_id"], N_RESAMPLES)
    women = (cohort.table["sex"] == "F").to_numpy()

    def sensitivity_gap(name):
        gap = 0
        for label in FINDINGS:
            rows = predictions[(predictions["model"] == name) & (predictions["label"] == label)]
            y, score = rows["y_true"].to_numpy() == 1, rows["score"].to_numpy()
            called = score >= np.quantile(score[~y], 0.8)
            gap += metrics.weighted_mean(
                called[y & women], weights[:, y & women]
            ) - metrics.weighted_mean(called[y & ~women], weights[:, y & ~women])
        return gap / len(FINDINGS)

    change = sensitivity_gap(SILENT) - sensitivity_gap(FAIR)
    assert np.quantile(change, 0.975) < 0
    sex = fairness.gap_table(
        predictions[predictions["model"] == SILENT],
        "sex",
        [("F", "M")],
        metrics=("auc",),
        n_resamples=N_RESAMPLES,
    )
    assert abs(row(sex, label="mean")["value"]) < 0.05


def decode(z, target, patient):
    """AUC of a linear probe on patients it has not seen, mean of five folds."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return cross_val_score(probe, z, target, groups=patient, cv=folds, scoring="roc_auc").mean()


def test_sex_and_age_are_encoded_though_the_first_components_do_not_show_it(cohort):
    z, table = embed(cohort, FAIR), cohort.table
    patient = table["patient_id"].to_numpy()
    female, old = (table["sex"] == "F").to_numpy(), (table["age"] >= 60).to_numpy()
    assert decode(z, female, patient) > 0.75
    assert decode(z, old, patient) > 0.7
    components = PCA(2).fit_transform(z)
    seen = [roc_auc_score(female, c) for c in components.T]
    assert max(max(a, 1 - a) for a in seen) < 0.65


def test_race_is_encoded_through_site_alone(cohort):
    z, table = embed(cohort, FAIR), cohort.table
    patient = table["patient_id"].to_numpy()
    black = (table["race"] == "Black").to_numpy()
    assert decode(z, black, patient) > 0.6
    one_site = (table["site"] == "A").to_numpy()
    assert abs(decode(z[one_site], black[one_site], patient[one_site]) - 0.5) < 0.1
    plain = embed(phantom.twin(cohort, site_signature=0.0), FAIR)
    assert abs(decode(plain, black, patient) - 0.5) < 0.08

"""What S (Sourget et al. 2025) says in words, as rules: abstract, results, conclusions.

Each function decides the claim of its name in ``claims.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from cxrlib.papers import published, rules
from cxrlib.papers.rules import Decided, Missing, Numbers, away_from_zero, every, with_interval

NIH, MIMIC = "nih-cxr14-test", "mimic-cxr-sourget"
S_MODELS = (*published.FIVE, "CXR-CLIP")


# --- section 3.1: performance and subgroups ----------------------------------------------------


def of_groups(get: Numbers, model: str, attribute: str) -> pd.DataFrame:
    """Rows of zero-shot AUC in single groups, finding by finding."""
    rows = get.rows(metric="auc", method="zero-shot", model=model, attribute=attribute)
    return rows[~rows["group"].str.contains(" - ") & (rows["label"] != "mean")]


def pair_gap(get: Numbers, model: str, attribute: str, without: Sequence[str] = ()) -> float:
    """The mean absolute difference of zero-shot AUC over findings and pairs of groups."""
    rows = of_groups(get, model, attribute)
    auc = rows[~rows["group"].isin(without)].pivot(index="label", columns="group", values="value")
    gaps = [gap for a, b in combinations(auc, 2) for gap in (auc[a] - auc[b]).abs().dropna()]
    if not gaps:
        raise Missing(f"no finding with AUC in two groups of {attribute} for model {model}")
    return float(np.mean(gaps))


def age_gaps_exceed(get: Numbers, other: str, without: Sequence[str] = ()) -> Decided:
    """Whether gaps by age are larger than those by another attribute."""
    models = get.models(metric="auc", method="zero-shot", attribute="age_group")
    age = np.mean([pair_gap(get, model, "age_group") for model in models])
    its = np.mean([pair_gap(get, model, other, without) for model in models])
    return bool(age > its), f"age {rules.short(age)}, {other} {rules.short(its)}"


age_over_sex = partial(age_gaps_exceed, other="sex")
age_over_race = partial(age_gaps_exceed, other="race", without=("Asian",))
age_over_race_with_all_groups = partial(age_gaps_exceed, other="race")


def asian_patients_stand_out(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="zero-shot", attribute="race")

    def margin(model):
        asian, black = (pair_gap(get, model, "race", (but,)) for but in ("Black", "Asian"))
        return asian - black

    return every(models, margin, but=(len(models) - 1) // 2)


def widest_intervals(get: Numbers) -> Decided:
    found = []
    for attribute in ("race", "age_group"):
        models = get.models(metric="auc", method="zero-shot", attribute=attribute)
        rows = pd.concat([of_groups(get, model, attribute) for model in models])
        width = (rows["ci_high"] - rows["ci_low"]).groupby([rows["model"], rows["group"]]).mean()
        width = width.groupby(level="group").mean().dropna()
        if width.empty:
            raise Missing(f"no interval for groups by {attribute}")
        found.append(width.idxmax())
    return found == ["Asian", "18-25"], f"widest: {', '.join(found)}"


def above_chance(get: Numbers, model: str, label: str) -> float:
    """The smaller of the margins of AUC over 0.5 and of adjusted AUPRC over 0."""
    where = {"model": model, "method": "zero-shot", "label": label}
    return min(get("auc", **where) - 0.5, get("adjusted_auprc", **where))


def but_cxr_clip(get: Numbers, **where: str) -> list[str]:
    """All models with such rows but CXR-CLIP."""
    return [m for m in get.models(method="zero-shot", **where) if m != "CXR-CLIP"]


def better_than_chance_on_average(get: Numbers) -> Decided:
    models = but_cxr_clip(get, metric="auc", label="mean")
    return every(models, lambda m: above_chance(get, m, "mean"))


def better_than_chance_everywhere(get: Numbers) -> Decided:
    rows = get.rows(metric="auc", method="zero-shot", attribute="all")
    labels = [label for label in rows["label"].unique() if label != "mean"]
    cases = [(m, label) for m in but_cxr_clip(get, metric="auc") for label in labels]
    return every(cases, lambda m, label: above_chance(get, m, label))


def best_three(get: Numbers) -> Decided:
    best = ("MedCLIP", "MedImageInsight", "CheXzero")
    where = {"method": "zero-shot", "label": "mean"}

    def margin(a, b):
        metrics = ("auc", "adjusted_auprc")
        return min(get(x, model=a, **where) - get(x, model=b, **where) for x in metrics)

    return every([(a, b) for a in best for b in S_MODELS if b not in best], margin)


# --- section 3.2: embeddings -------------------------------------------------------------------

ATTRIBUTES = ("sex", "race", "age_group")
PROBES = ("linear", "knn", "mlp")
PEOPLE = (("age_group", "18-25 - 80+"), ("sex", "F - M"), ("race", "White - Black"))


def read(get: Numbers, model: str, attribute: str, method: str) -> float:
    """AUC with which a probe reads an attribute from image embeddings."""
    return get("auc", model=model, label=attribute, method=method)


def pca_shows_no_attribute(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="pca")
    cases = [(m, a) for m in models for a in ATTRIBUTES]
    return every(cases, lambda m, a: 0.6 - read(get, m, a, "pca"))


def less_than_modality(get: Numbers, metric: str, share: float = 1.0) -> Decided:
    """Whether a metric of groups is below a share of that of images and texts, for all pairs."""
    modality = {"attribute": "modality", "group": "image - text"}
    models = get.models(metric=metric, **modality)

    def margin(model, attribute, group):
        of_people = get(metric, model=model, attribute=attribute, group=group)
        return share * get(metric, model=model, **modality) - of_people

    return every([(m, *pair) for m in models for pair in PEOPLE], margin)


group_gaps_smaller_than_modality_gap = partial(
    less_than_modality, metric="centroid_distance", share=0.5
)
modality_gap_more_concentrated = partial(less_than_modality, metric="top_tenth_share")


def sex_and_age_are_readable(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="linear", label="sex")
    cases = [(m, a, p) for m in models for a in ("sex", "age_group") for p in PROBES]
    return every(cases, lambda m, a, p: read(get, m, a, p) - 0.5)


def knn_misses_race(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="knn", label="race")
    return every(models, lambda m: 0.05001 - abs(read(get, m, "race", "knn") - 0.5), but=1)


def linear_probe_misses_race(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="linear", label="race")
    auc = {m: read(get, m, "race", "linear") for m in models}
    unread = [f"{m} {value:.3g}" for m, value in auc.items() if value <= 0.55]
    return len(unread) >= 2, f"at most 0.55: {', '.join(unread) or 'none'}"


def mlp_reads_race(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="mlp", label="race")
    return every(models, lambda m: read(get, m, "race", "mlp") - 0.6)


def mlp_lead(get: Numbers, model: str, attribute: str, probe: str) -> float:
    """By how much the MLP reads an attribute better than another probe does."""
    return read(get, model, attribute, "mlp") - read(get, model, attribute, probe)


def mlp_best_on_average(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="mlp", label="sex")
    cases = [(a, probe) for a in ATTRIBUTES for probe in ("linear", "knn")]

    def margin(attribute, probe):
        return float(np.mean([mlp_lead(get, m, attribute, probe) for m in models]))

    return every(cases, margin)


def mlp_best_everywhere(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="mlp", label="sex")
    cases = [(m, a, probe) for m in models for a in ATTRIBUTES for probe in ("linear", "knn")]
    return every(cases, lambda m, a, probe: mlp_lead(get, m, a, probe) + 1e-9)


# --- section 3.3: drains and calibration -------------------------------------------------------

PNEUMOTHORAX = {"method": "zero-shot", "label": "Pneumothorax"}
DRAIN = {"attribute": "drain", "group": published.GAP}


def drain_gap(get: Numbers, model: str) -> float:
    """Adjusted AUPRC for pneumothorax with drains minus without."""
    return get("adjusted_auprc", model=model, **PNEUMOTHORAX, **DRAIN)


def drains_help_every_model(get: Numbers) -> Decided:
    return every(get.models(**DRAIN), lambda m: drain_gap(get, m))


def drains_help_all_but_one(get: Numbers) -> Decided:
    return every(but_cxr_clip(get, **DRAIN), lambda m: drain_gap(get, m))


def medimageinsight_best_calibrated(get: Numbers) -> Decided:
    def ece(model):
        return get("ece_equal_width", model=model, **PNEUMOTHORAX)

    others = [m for m in S_MODELS if m != "MedImageInsight"]
    return every(others, lambda m: ece(m) - ece("MedImageInsight"))


def excess(get: Numbers, margin: Callable[[pd.Series], float]) -> Decided:
    """Whether a margin of the rows of mean probability minus observed frequency is above 0."""

    def of_all(model):
        at = PNEUMOTHORAX | {"attribute": "all", "group": "all"}
        return get.rows(metric="calibration_in_the_large", model=model, **at).iloc[0]

    models = get.models(metric="calibration_in_the_large", **PNEUMOTHORAX)
    return every(models, lambda model: margin(of_all(model)))


all_miscalibrated = partial(excess, margin=away_from_zero)
all_overconfident = partial(excess, margin=lambda row: with_interval(row)["ci_low"])


def probabilities_near_half(get: Numbers) -> Decided:
    def margin(model):
        low, high = (get(m, model=model, **PNEUMOTHORAX) for m in ("score_min", "score_max"))
        return min(low - 0.4, 0.6 - high)

    return every(("CXR-CLIP", "CheXzero", "MedCLIP"), margin)


def ranking_survives(get: Numbers) -> Decided:
    return every(("MedCLIP", "CheXzero"), lambda m: get("auc", model=m, **PNEUMOTHORAX) - 0.7)


CLAIMS = rules.claims("S", globals(), MIMIC, S_MODELS)

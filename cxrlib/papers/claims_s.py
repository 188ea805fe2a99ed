"""What S (Sourget et al. 2025) says in words, as rules: abstract, results, conclusions.

Each claim is in this book's own words. Where a sentence allows two readings, each is a claim of its
own and says how it reads. Words without a number got one here ("near" chance: within 0.05), and the
statement says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from cxrlib.papers import published
from cxrlib.papers.rules import (
    Claim,
    Decided,
    Missing,
    Numbers,
    away_from_zero,
    every,
    higher,
    with_interval,
)
from cxrlib.papers.rules import claim as any_claim

NIH, MIMIC = "nih-cxr14-test", "mimic-cxr-sourget"
S_MODELS = (*published.FIVE, "CXR-CLIP")

claim = partial(any_claim, "S", cohort=MIMIC, models=S_MODELS)


def average(get: Numbers, models: Sequence[str], quantity: Callable[..., float]) -> float:
    """The mean of a quantity over models."""
    return float(np.mean([quantity(get, model) for model in models]))


# --- section 3.1: performance and subgroups ----------------------------------------------------


def pair_gap(attribute: str, without: Sequence[str] = ()) -> Callable[..., float]:
    """Quantity: the mean absolute difference of zero-shot AUC over findings and pairs of groups."""

    def quantity(get, model):
        rows = get.rows(metric="auc", method="zero-shot", model=model, attribute=attribute)
        one_group = ~rows["group"].str.contains(" - ") & ~rows["group"].isin(without)
        auc = rows[one_group & (rows["label"] != "mean")]
        auc = auc.pivot(index="label", columns="group", values="value")
        gaps = [(auc[a] - auc[b]).abs().dropna() for a, b in combinations(auc.columns, 2)]
        if sum(map(len, gaps)) == 0:
            raise Missing(f"no finding with AUC in two groups of {attribute} for model {model}")
        return pd.concat(gaps).mean()

    return quantity


def compare_gaps(get: Numbers, other: str, without: Sequence[str] = ()) -> Decided:
    """Whether gaps by age are larger than those by another attribute."""
    models = get.models(metric="auc", method="zero-shot", attribute="age_group")
    gaps = [average(get, models, pair_gap(a, w)) for a, w in (("age_group", ()), (other, without))]
    return higher(("age", other), gaps)


PAIRS = "mean absolute AUC gap of two groups, over findings and models"


@claim("Abstract; sections 3.1, 4", f"Gaps by age are larger than gaps by sex ({PAIRS}).")
def age_over_sex(get: Numbers) -> Decided:
    return compare_gaps(get, "sex")


@claim(
    "Section 3.1",
    f"Gaps by age are larger than gaps by race, Asian patients set aside ({PAIRS}).",
)
def age_over_race(get: Numbers) -> Decided:
    return compare_gaps(get, "race", without=("Asian",))


@claim(
    "Abstract; section 4",
    f"Gaps by age are larger than gaps by race, read without an exception ({PAIRS}).",
)
def age_over_race_with_all_groups(get: Numbers) -> Decided:
    return compare_gaps(get, "race")


@claim(
    "Section 3.1",
    "For most models, AUC of Asian patients is further from that of White patients than AUC of "
    "Black patients is (mean absolute difference over findings).",
)
def asian_patients_stand_out(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="zero-shot", attribute="race")
    asian, black = pair_gap("race", ("Black",)), pair_gap("race", ("Asian",))
    few = (len(models) - 1) // 2
    return every(models, lambda m: asian(get, m) - black(get, m), but=few)


@claim(
    "Section 3.1",
    "AUC intervals are on average widest for Asian patients among racial groups and for 18-25 "
    "years among age groups.",
)
def widest_intervals(get: Numbers) -> Decided:
    found = {}
    for attribute in ("race", "age_group"):
        widths = []
        for model in get.models(metric="auc", method="zero-shot", attribute=attribute):
            rows = get.rows(metric="auc", method="zero-shot", model=model, attribute=attribute)
            rows = rows[~rows["group"].str.contains(" - ") & (rows["label"] != "mean")]
            widths.append((rows["ci_high"] - rows["ci_low"]).groupby(rows["group"]).mean())
        width = pd.concat(widths).groupby(level=0).mean().dropna()
        if width.empty:
            raise Missing(f"no interval for groups by {attribute}")
        found[attribute] = width.idxmax()
    return list(found.values()) == ["Asian", "18-25"], f"widest: {', '.join(found.values())}"


def above_chance(get: Numbers, model: str, label: str) -> float:
    """The smaller of the margins of AUC over 0.5 and of adjusted AUPRC over 0."""
    auc, auprc = (
        get(m, model=model, method="zero-shot", label=label) for m in ("auc", "adjusted_auprc")
    )
    return min(auc - 0.5, auprc)


def but_cxr_clip(get: Numbers, **where: str) -> list[str]:
    """All models with such rows but CXR-CLIP."""
    return [m for m in get.models(method="zero-shot", **where) if m != "CXR-CLIP"]


@claim(
    "Section 3.1",
    "Every model but CXR-CLIP is better than chance, read as the mean over findings of AUC and of "
    "adjusted AUPRC.",
)
def better_than_chance_on_average(get: Numbers) -> Decided:
    models = but_cxr_clip(get, metric="auc", label="mean")
    return every(models, lambda m: above_chance(get, m, "mean"))


@claim(
    "Section 3.1",
    "Every model but CXR-CLIP is better than chance, read finding by finding.",
)
def better_than_chance_everywhere(get: Numbers) -> Decided:
    rows = get.rows(metric="auc", method="zero-shot", attribute="all")
    labels = [label for label in rows["label"].unique() if label != "mean"]
    cases = [(m, label) for m in but_cxr_clip(get, metric="auc") for label in labels]
    return every(cases, lambda m, label: above_chance(get, m, label))


@claim(
    "Section 3.1",
    "MedCLIP, MedImageInsight and CheXzero have the three highest means of AUC and of adjusted "
    "AUPRC.",
)
def best_three(get: Numbers) -> Decided:
    best = ("MedCLIP", "MedImageInsight", "CheXzero")
    cases = [(a, b) for a in best for b in S_MODELS if b not in best]

    def margin(a, b):
        return min(
            get(metric, model=a, method="zero-shot", label="mean")
            - get(metric, model=b, method="zero-shot", label="mean")
            for metric in ("auc", "adjusted_auprc")
        )

    return every(cases, margin)


# --- section 3.2: embeddings -------------------------------------------------------------------

ATTRIBUTES = ("sex", "race", "age_group")
PROBES = ("linear", "knn", "mlp")
PEOPLE = (("age_group", "18-25 - 80+"), ("sex", "F - M"), ("race", "White - Black"))


def read(get: Numbers, model: str, attribute: str, method: str) -> float:
    """AUC with which a probe reads an attribute from image embeddings."""
    return get("auc", model=model, label=attribute, method=method)


@claim(
    "Abstract; sections 3.2, 4",
    "No attribute shows on the two-dimensional PCA map (AUC along its axes below 0.6 for sex, race "
    "and age group).",
)
def pca_shows_no_attribute(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="pca")
    cases = [(m, a) for m in models for a in ATTRIBUTES]
    return every(cases, lambda m, a: 0.6 - read(get, m, a, "pca"))


@claim(
    "Section 3.2, Fig. 3",
    "Centroids of patient groups are less than half as far apart as those of images and texts.",
    models=("MedImageInsight",),
)
def group_gaps_smaller_than_modality_gap(get: Numbers) -> Decided:
    modality = {"attribute": "modality", "group": "image - text"}
    models = get.models(metric="centroid_distance", **modality)

    def margin(model, attribute, group):
        apart = get("centroid_distance", model=model, attribute=attribute, group=group)
        return get("centroid_distance", model=model, **modality) / 2 - apart

    return every([(m, *pair) for m in models for pair in PEOPLE], margin)


@claim(
    "Section 3.2, Fig. 3",
    "The gap between images and texts is concentrated on fewer dimensions than gaps between groups "
    "(share of the largest tenth of the dimensions in the squared distance).",
    models=("MedImageInsight",),
)
def modality_gap_more_concentrated(get: Numbers) -> Decided:
    modality = {"attribute": "modality", "group": "image - text"}
    models = get.models(metric="top_tenth_share", **modality)

    def margin(model, attribute, group):
        share = get("top_tenth_share", model=model, attribute=attribute, group=group)
        return get("top_tenth_share", model=model, **modality) - share

    return every([(m, *pair) for m in models for pair in PEOPLE], margin)


@claim(
    "Abstract; sections 3.2, 4",
    "Every probe reads sex and age group from every model better than chance.",
)
def sex_and_age_are_readable(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="linear", label="sex")
    cases = [(m, a, p) for m in models for a in ("sex", "age_group") for p in PROBES]
    return every(cases, lambda m, a, p: read(get, m, a, p) - 0.5)


@claim(
    "Section 3.2",
    "k-NN reads race near chance for almost all models (AUC within 0.05 of 0.5 for all but one).",
)
def knn_misses_race(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="knn", label="race")
    return every(models, lambda m: 0.05001 - abs(read(get, m, "race", "knn") - 0.5), but=1)


@claim(
    "Section 3.2",
    "The linear probe cannot read race from some models (AUC of at most 0.55 for at least two).",
)
def linear_probe_misses_race(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="linear", label="race")
    auc = {m: read(get, m, "race", "linear") for m in models}
    unread = [f"{m} {value:.3g}" for m, value in auc.items() if value <= 0.55]
    return len(unread) >= 2, ", ".join(unread) or "none"


@claim("Section 3.2", "The MLP reads race from every model (AUC above 0.6).")
def mlp_reads_race(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="mlp", label="race")
    return every(models, lambda m: read(get, m, "race", "mlp") - 0.6)


@claim(
    "Section 3.2",
    "The MLP reads best of the three probes, read as the mean over models for each attribute.",
)
def mlp_best_on_average(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="mlp", label="sex")

    def mean(attribute, probe):
        return average(get, models, lambda g, m: read(g, m, attribute, probe))

    cases = [(a, probe) for a in ATTRIBUTES for probe in ("linear", "knn")]
    return every(cases, lambda a, probe: mean(a, "mlp") - mean(a, probe))


@claim(
    "Section 3.2",
    "The MLP reads best of the three probes, read for every model and attribute (ties allowed).",
)
def mlp_best_everywhere(get: Numbers) -> Decided:
    models = get.models(metric="auc", method="mlp", label="sex")
    cases = [(m, a, probe) for m in models for a in ATTRIBUTES for probe in ("linear", "knn")]

    def margin(m, a, probe):
        return read(get, m, a, "mlp") - read(get, m, a, probe) + 1e-9

    return every(cases, margin)


# --- section 3.3: drains and calibration -------------------------------------------------------

PNEUMOTHORAX = {"method": "zero-shot", "label": "Pneumothorax"}


def drain_gap(get: Numbers, model: str) -> float:
    """Adjusted AUPRC for pneumothorax with drains minus without."""
    return get(
        "adjusted_auprc", model=model, **PNEUMOTHORAX, attribute="drain", group=published.GAP
    )


@claim(
    "Abstract; section 4",
    "Every model has a higher adjusted AUPRC with drains than without.",
    cohort=NIH,
)
def drains_help_every_model(get: Numbers) -> Decided:
    models = get.models(attribute="drain", group=published.GAP)
    return every(models, lambda m: drain_gap(get, m))


@claim(
    "Section 3.3",
    "Every model but CXR-CLIP has a higher adjusted AUPRC with drains than without.",
    cohort=NIH,
)
def drains_help_all_but_one(get: Numbers) -> Decided:
    models = but_cxr_clip(get, attribute="drain", group=published.GAP)
    return every(models, lambda m: drain_gap(get, m))


@claim(
    "Section 3.3",
    "MedImageInsight is the best calibrated model (lowest equal-width ECE for pneumothorax).",
    cohort=NIH,
)
def medimageinsight_best_calibrated(get: Numbers) -> Decided:
    others = [m for m in S_MODELS if m != "MedImageInsight"]

    def ece(model):
        return get("ece_equal_width", model=model, **PNEUMOTHORAX)

    return every(others, lambda m: ece(m) - ece("MedImageInsight"))


def excess(get: Numbers, model: str) -> pd.Series:
    """Row of mean probability minus observed frequency."""
    where = PNEUMOTHORAX | {"attribute": "all", "group": "all"}
    return get.rows(metric="calibration_in_the_large", model=model, **where).iloc[0]


@claim(
    "Sections 3.3, 4",
    "Every model is miscalibrated (the interval of mean probability minus frequency excludes 0).",
    cohort=NIH,
)
def all_miscalibrated(get: Numbers) -> Decided:
    models = get.models(metric="calibration_in_the_large", **PNEUMOTHORAX)
    return every(models, lambda m: away_from_zero(excess(get, m)))


@claim(
    "Section 3.3",
    "Every model is overconfident (mean probability minus frequency lies above 0, interval "
    "included).",
    cohort=NIH,
)
def all_overconfident(get: Numbers) -> Decided:
    models = get.models(metric="calibration_in_the_large", **PNEUMOTHORAX)
    return every(models, lambda m: with_interval(excess(get, m))["ci_low"])


@claim(
    "Section 3.3",
    "All probabilities of CXR-CLIP, CheXzero and MedCLIP are around 0.5 (from 0.4 to 0.6).",
    cohort=NIH,
)
def probabilities_near_half(get: Numbers) -> Decided:
    def margin(model):
        low, high = (get(m, model=model, **PNEUMOTHORAX) for m in ("score_min", "score_max"))
        return min(low - 0.4, 0.6 - high)

    return every(("CXR-CLIP", "CheXzero", "MedCLIP"), margin)


@claim(
    "Section 3.3",
    "MedCLIP and CheXzero rank acceptably nevertheless (AUC for pneumothorax above 0.7).",
    cohort=NIH,
)
def ranking_survives(get: Numbers) -> Decided:
    return every(("MedCLIP", "CheXzero"), lambda m: get("auc", model=m, **PNEUMOTHORAX) - 0.7)


CLAIMS = tuple(found for found in list(globals().values()) if isinstance(found, Claim))

"""What X (Sun et al. 2025) says in words, as rules: abstract, results, conclusions.

Written as `cxrlib.papers.claims_s` is. The size of a gap is its distance from 0, whatever its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cxrlib.papers.rules import Claim, Decided, Missing, Numbers, away_from_zero, every
from cxrlib.papers.rules import claim as any_claim

X_MODELS = ("CLIP", "GLoRIA", "MedCLIP-RN", "MedCLIP-ViT", "BioMedCLIP")
TUNINGS = ("linear probe", "MLP", "LoRA", "full")
SIX = ("Cardiomegaly", "Effusion", "Atelectasis", "Pneumothorax", "Edema", "Consolidation")
SEX, AGE = ("sex", "F - M"), ("age60", "old - young")

claim = partial(any_claim, "X", cohort="nih-6x200", models=X_MODELS)


# --- section 2.1: the data set -----------------------------------------------------------------


def smallest_cell(get: Numbers, disease: str) -> float:
    """The smallest number of images of a disease in a cell of age and sex."""
    return get.rows(metric="n_images", attribute="age_sex", label=disease)["value"].min()


@claim(
    "Section 2.1",
    "Each of the six chosen diseases has more than 50 images in every cell of age and sex (the "
    "section itself names the exception).",
)
def six_diseases_satisfy_the_rule(get: Numbers) -> Decided:
    return every(SIX, lambda disease: smallest_cell(get, disease) - 50)


@claim(
    "Section 2.1",
    "No other of the fourteen diseases has more than 50 images in every cell (images with one "
    "finding).",
    cohort="nih-cxr14",
)
def no_other_disease_satisfies_the_rule(get: Numbers) -> Decided:
    rows = get.rows(metric="n_images", attribute="age_sex")
    others = [label for label in rows["label"].unique() if label not in SIX]
    holds, text = every(others, lambda disease: 50.5 - smallest_cell(get, disease))
    if holds and len(others) < 14 - len(SIX):
        raise Missing(f"rows of {len(others)} other diseases only")
    return holds, text


# --- section 3.2: accuracy ---------------------------------------------------------------------


def accuracy(get: Numbers, model: str, method: str) -> float:
    """The accuracy of a model by one method."""
    return get("accuracy", model=model, method=method)


@claim("Section 3.2", "CLIP has the lowest accuracy, zero-shot and after every fine-tuning.")
def clip_lowest(get: Numbers) -> Decided:
    cases = [(m, t) for m in X_MODELS if m != "CLIP" for t in ("zero-shot", *TUNINGS)]
    return every(cases, lambda m, t: accuracy(get, m, t) - accuracy(get, "CLIP", t))


@claim("Section 3.2", "MedCLIP-ViT has the highest zero-shot accuracy.")
def medclip_vit_best_zero_shot(get: Numbers) -> Decided:
    others = [m for m in X_MODELS if m != "MedCLIP-ViT"]
    best = "MedCLIP-ViT"
    return every(others, lambda m: accuracy(get, best, "zero-shot") - accuracy(get, m, "zero-shot"))


@claim(
    "Sections 3.2, 4",
    "MedCLIP-ViT after full fine-tuning has the highest accuracy of all models and strategies.",
)
def medclip_vit_best_overall(get: Numbers) -> Decided:
    best = ("MedCLIP-ViT", "full")
    cases = [(m, t) for m in X_MODELS for t in ("zero-shot", *TUNINGS) if (m, t) != best]
    return every(cases, lambda m, t: accuracy(get, *best) - accuracy(get, m, t))


@claim("Abstract; sections 3.2, 4", "Every fine-tuning of every model raises its accuracy.")
def every_tuning_improves(get: Numbers) -> Decided:
    models = get.models(metric="accuracy", method="zero-shot")
    cases = [(m, t) for m in models for t in TUNINGS]
    return every(cases, lambda m, t: accuracy(get, m, t) - accuracy(get, m, "zero-shot"))


def best_tuning(get: Numbers, models: Sequence[str], best: str) -> Decided:
    """Whether one strategy has the highest accuracy for each of these models."""
    cases = [(m, t) for m in models for t in TUNINGS if t != best]
    return every(cases, lambda m, t: accuracy(get, m, best) - accuracy(get, m, t))


@claim("Section 3.2", "Full fine-tuning is the best strategy for CLIP and MedCLIP-ViT.")
def full_best_for_two(get: Numbers) -> Decided:
    return best_tuning(get, ("CLIP", "MedCLIP-ViT"), "full")


@claim("Section 3.2", "LoRA is the best strategy for MedCLIP-RN and BioMedCLIP.")
def lora_best_for_two(get: Numbers) -> Decided:
    return best_tuning(get, ("MedCLIP-RN", "BioMedCLIP"), "LoRA")


@claim("Section 3.2", "After full fine-tuning, MedCLIP-ViT has the highest F1 in every disease.")
def medclip_vit_best_in_every_disease(get: Numbers) -> Decided:
    cases = [(m, d) for m in X_MODELS if m != "MedCLIP-ViT" for d in SIX]

    def f1(model, disease):
        return get("f1", model=model, method="full", label=disease)

    return every(cases, lambda m, d: f1("MedCLIP-ViT", d) - f1(m, d))


# --- section 3.3: fairness ---------------------------------------------------------------------


def fairness(
    get: Numbers,
    model: str,
    metric: str,
    where: Sequence[str] = ("all", "all"),
    method: str = "full",
) -> float:
    """The size of a fairness metric: how far from 0, whatever its sign."""
    return abs(get(metric, model=model, method=method, attribute=where[0], group=where[1]))


@claim(
    "Section 3.3", "After full fine-tuning, BioMedCLIP has the lowest variance of F1 over diseases."
)
def biomedclip_lowest_variance(get: Numbers) -> Decided:
    others = [m for m in X_MODELS if m != "BioMedCLIP"]
    lowest = "BioMedCLIP"
    return every(others, lambda m: fairness(get, m, "var_f1") - fairness(get, lowest, "var_f1"))


@claim(
    "Section 3.3",
    "Both MedCLIP models have a larger variance of F1 over diseases than GLoRIA and BioMedCLIP.",
)
def medclip_larger_variance(get: Numbers) -> Decided:
    cases = [(a, b) for a in ("MedCLIP-RN", "MedCLIP-ViT") for b in ("GLoRIA", "BioMedCLIP")]
    return every(cases, lambda a, b: fairness(get, a, "var_f1") - fairness(get, b, "var_f1"))


@claim(
    "Section 3.3",
    "Of the four groups by age and sex, mean F1 varies least for GLoRIA after full fine-tuning.",
)
def gloria_even_over_groups(get: Numbers) -> Decided:
    def spread(model):
        low, high = (
            get("macro_f1", model=model, method="full", attribute="age_sex", group=end)
            for end in ("lowest", "highest")
        )
        return high - low

    return every([m for m in X_MODELS if m != "GLoRIA"], lambda m: spread(m) - spread("GLoRIA"))


def f1_gaps_against(get: Numbers, model: str, sign: int) -> Decided:
    """Whether the F1 gaps of a model are larger (sign 1) or smaller (-1) than all others."""
    cases = [(m, *where) for m in X_MODELS if m != model for where in (SEX, AGE)]

    def margin(other, *where):
        mine, its = (fairness(get, m, "f1_gap_signed", where) for m in (model, other))
        return sign * (mine - its)

    return every(cases, margin)


@claim(
    "Section 3.3",
    "After full fine-tuning, MedCLIP-ViT has the largest F1 gaps by sex and by age.",
)
def medclip_vit_largest_gaps(get: Numbers) -> Decided:
    return f1_gaps_against(get, "MedCLIP-ViT", 1)


@claim("Section 3.3", "After full fine-tuning, GLoRIA has the smallest F1 gaps by sex and by age.")
def gloria_smallest_gaps(get: Numbers) -> Decided:
    return f1_gaps_against(get, "GLoRIA", -1)


GAPS = ("f1_gap_signed", "eq_odds_mean", "calibration_gap_eq4")


def worsening(get: Numbers, model: str, metric: str, *where: str) -> float:
    before, after = (fairness(get, model, metric, where, m) for m in ("zero-shot", "full"))
    return after - before


@claim(
    "Sections 3.3, 4",
    "Full fine-tuning lowers most gaps of GLoRIA (F1, EqOdds and Eq. 4 by sex and age: at least "
    "four of six).",
)
def gloria_becomes_fairer(get: Numbers) -> Decided:
    cases = [(metric, *where) for metric in GAPS for where in (SEX, AGE)]
    return every(cases, lambda *case: -worsening(get, "GLoRIA", *case), but=2)


@claim(
    "Sections 3.3, 4",
    "Full fine-tuning raises most gaps of every other model (at least four of the same six).",
)
def others_become_less_fair(get: Numbers) -> Decided:
    def margin(model):
        risen = [worsening(get, model, g, *where) > 0 for g in GAPS for where in (SEX, AGE)]
        return sum(risen) - 3

    return every([m for m in X_MODELS if m != "GLoRIA"], margin)


@claim(
    "Section 4",
    "GLoRIA has the best fairness after full fine-tuning, read over diseases as well (lowest "
    "variance of F1).",
)
def gloria_fairest_over_diseases(get: Numbers) -> Decided:
    others = [m for m in X_MODELS if m != "GLoRIA"]
    try:
        return every(
            others, lambda m: fairness(get, m, "var_f1") - fairness(get, "GLoRIA", "var_f1")
        )
    except Missing:
        # Of values with these ends, the variance is smallest if all others lie half-way between.
        low, high = (
            get("f1", model="GLoRIA", method="full", label=x) for x in ("lowest", "highest")
        )
        least = (high - low) ** 2 / (2 * len(SIX))
        holds, text = every(others, lambda m: fairness(get, m, "var_f1") - least)
        if holds:
            raise
        return holds, f"{text}, from the range of its F1 alone"


@claim(
    "Section 4",
    "MedCLIP-ViT is the least fair after full fine-tuning: largest variance of F1 over diseases, "
    "largest F1 gaps by sex and age.",
)
def medclip_vit_least_fair(get: Numbers) -> Decided:
    cases = [
        (m, metric, *where)
        for m in X_MODELS
        if m != "MedCLIP-ViT"
        for metric, where in (
            ("var_f1", ("all", "all")),
            ("f1_gap_signed", SEX),
            ("f1_gap_signed", AGE),
        )
    ]

    def margin(other, metric, *where):
        return fairness(get, "MedCLIP-ViT", metric, where) - fairness(get, other, metric, where)

    return every(cases, margin)


@claim(
    "Abstract; section 1",
    "Gaps persist after full fine-tuning: for every model, the interval of the F1 gap by sex or by "
    "age excludes 0.",
)
def gaps_persist(get: Numbers) -> Decided:
    models = get.models(metric="f1_gap_signed", method="full")

    def away(model, attribute, group):
        where = {"model": model, "method": "full", "attribute": attribute, "group": group}
        return away_from_zero(get.rows(metric="f1_gap_signed", **where).iloc[0])

    return every(models, lambda m: max(away(m, *SEX), away(m, *AGE)))


CLAIMS = tuple(found for found in list(globals().values()) if isinstance(found, Claim))

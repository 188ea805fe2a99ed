"""What X (Sun et al. 2025) says in words, as rules: abstract, results, conclusions.

Each function decides the claim of its name in ``claims.toml``. The size of a gap is its distance
from 0, whatever its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cxrlib.papers import rules
from cxrlib.papers.rules import Decided, Missing, Numbers, away_from_zero, every

X_MODELS = ("CLIP", "GLoRIA", "MedCLIP-RN", "MedCLIP-ViT", "BioMedCLIP")
TUNINGS = ("linear probe", "MLP", "LoRA", "full")
METHODS = ("zero-shot", *TUNINGS)
SIX = ("Cardiomegaly", "Effusion", "Atelectasis", "Pneumothorax", "Edema", "Consolidation")
SEX, AGE = ("sex", "F - M"), ("age60", "old - young")
GAPS = ("f1_gap_signed", "eq_odds_mean", "calibration_gap_eq4")
GAP_CASES = [(metric, *where) for metric in GAPS for where in (SEX, AGE)]


def extreme(
    get: Numbers,
    model: str,
    sign: int,
    keys: Sequence[str] = (),
    entries: Sequence[tuple[str, ...]] = ((),),
    **where: str,
) -> Decided:
    """Whether a model has a larger (sign 1) or smaller (-1) value than every other one.

    keys, entries : compared for each of these entries of these columns
    **where : what else the value is about
    """

    def margin(other, *entry):
        about = where | dict(zip(keys, entry, strict=True))
        above, below = (abs(get(model=m, **about)) for m in (model, other)[::sign])
        return above - below

    return every([(m, *entry) for m in X_MODELS if m != model for entry in entries], margin)


# --- section 2.1: the data set -----------------------------------------------------------------


def smallest_cell(get: Numbers, disease: str) -> float:
    """The smallest number of images of a disease in a cell of age and sex."""
    return get.rows(metric="n_images", attribute="age_sex", label=disease)["value"].min()


def six_diseases_satisfy_the_rule(get: Numbers) -> Decided:
    return every(SIX, lambda disease: smallest_cell(get, disease) - 50)


def no_other_disease_satisfies_the_rule(get: Numbers) -> Decided:
    rows = get.rows(metric="n_images", attribute="age_sex")
    others = [label for label in rows["label"].unique() if label not in SIX]
    least = {disease: smallest_cell(get, disease) for disease in others}
    enough = [f"{disease} {n:,.0f}" for disease, n in least.items() if n > 50]
    if not enough and len(others) < 14 - len(SIX):
        raise Missing(f"counts of {len(others)} other diseases only")
    return not enough, f"smallest cell above 50: {', '.join(enough) or 'none'}"


# --- section 3.2: accuracy ---------------------------------------------------------------------


def accuracy(get: Numbers, model: str, method: str) -> float:
    """The accuracy of a model by one method."""
    return get("accuracy", model=model, method=method)


def medclip_vit_best_overall(get: Numbers) -> Decided:
    best = ("MedCLIP-ViT", "full")
    cases = [(m, t) for m in X_MODELS for t in METHODS if (m, t) != best]
    return every(cases, lambda m, t: accuracy(get, *best) - accuracy(get, m, t))


def every_tuning_improves(get: Numbers) -> Decided:
    models = get.models(metric="accuracy", method="zero-shot")
    cases = [(m, t) for m in models for t in TUNINGS]
    return every(cases, lambda m, t: accuracy(get, m, t) - accuracy(get, m, "zero-shot"))


def best_tuning(get: Numbers, models: Sequence[str], best: str) -> Decided:
    """Whether one strategy has the highest accuracy for each of these models."""
    cases = [(m, t) for m in models for t in TUNINGS if t != best]
    return every(cases, lambda m, t: accuracy(get, m, best) - accuracy(get, m, t))


each_method = {"keys": ("method",), "entries": [(method,) for method in METHODS]}
clip_lowest = partial(extreme, model="CLIP", sign=-1, metric="accuracy", **each_method)
medclip_vit_best_zero_shot = partial(
    extreme, model="MedCLIP-ViT", sign=1, metric="accuracy", method="zero-shot"
)
full_best_for_two = partial(best_tuning, models=("CLIP", "MedCLIP-ViT"), best="full")
lora_best_for_two = partial(best_tuning, models=("MedCLIP-RN", "BioMedCLIP"), best="LoRA")

# --- sections 3.2 and 3.3: after full fine-tuning ----------------------------------------------

tuned = partial(extreme, method="full")
each_disease = {"keys": ("label",), "entries": [(disease,) for disease in SIX]}
each_group = {"keys": ("attribute", "group"), "entries": (SEX, AGE)}
medclip_vit_best_in_every_disease = partial(
    tuned, model="MedCLIP-ViT", sign=1, metric="f1", **each_disease
)
biomedclip_lowest_variance = partial(tuned, model="BioMedCLIP", sign=-1, metric="var_f1")
f1_gaps = partial(tuned, metric="f1_gap_signed", **each_group)
medclip_vit_largest_gaps = partial(f1_gaps, model="MedCLIP-ViT", sign=1)
gloria_smallest_gaps = partial(f1_gaps, model="GLoRIA", sign=-1)
medclip_vit_least_fair = partial(
    tuned,
    model="MedCLIP-ViT",
    sign=1,
    keys=("metric", "attribute", "group"),
    entries=[("var_f1", "all", "all"), ("f1_gap_signed", *SEX), ("f1_gap_signed", *AGE)],
)


def medclip_larger_variance(get: Numbers) -> Decided:
    def variance(model):
        return get("var_f1", model=model, method="full")

    cases = [(a, b) for a in ("MedCLIP-RN", "MedCLIP-ViT") for b in ("GLoRIA", "BioMedCLIP")]
    return every(cases, lambda a, b: variance(a) - variance(b))


def gloria_even_over_groups(get: Numbers) -> Decided:
    def spread(model):
        where = {"model": model, "method": "full", "attribute": "age_sex"}
        low, high = (get("macro_f1", group=end, **where) for end in ("lowest", "highest"))
        return high - low

    return every([m for m in X_MODELS if m != "GLoRIA"], lambda m: spread(m) - spread("GLoRIA"))


def worsening(get: Numbers, model: str, metric: str, attribute: str, group: str) -> float:
    """By how much full fine-tuning raises a gap of a model."""
    before, after = (
        abs(get(metric, model=model, method=m, attribute=attribute, group=group))
        for m in ("zero-shot", "full")
    )
    return after - before


def gloria_becomes_fairer(get: Numbers) -> Decided:
    return every(GAP_CASES, lambda *case: -worsening(get, "GLoRIA", *case), but=2)


def others_become_less_fair(get: Numbers) -> Decided:
    def margin(model):
        return sum(worsening(get, model, *case) > 0 for case in GAP_CASES) - 3

    return every([m for m in X_MODELS if m != "GLoRIA"], margin)


def gloria_fairest_over_diseases(get: Numbers) -> Decided:
    try:
        return tuned(get, "GLoRIA", -1, metric="var_f1")
    except Missing:
        # Of values with these ends, the variance is smallest if all others lie half-way between.
        where = {"method": "full", "model": "GLoRIA"}
        low, high = (get("f1", label=end, **where) for end in ("lowest", "highest"))
        least = (high - low) ** 2 / (2 * len(SIX))
        others = [m for m in X_MODELS if m != "GLoRIA"]
        holds, text = every(others, lambda m: get("var_f1", model=m, method="full") - least)
        if holds:
            raise
        return holds, f"{text}, from the range of its F1 alone"


def gaps_persist(get: Numbers) -> Decided:
    models = get.models(metric="f1_gap_signed", method="full")

    def away(model, attribute, group):
        where = {"model": model, "method": "full", "attribute": attribute, "group": group}
        return away_from_zero(get.rows(metric="f1_gap_signed", **where).iloc[0])

    return every(models, lambda m: max(away(m, *SEX), away(m, *AGE)))


CLAIMS = rules.claims("X", globals(), "nih-6x200", X_MODELS)

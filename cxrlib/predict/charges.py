"""Brings a bias before the court: the films, the model and the question, each with a placebo.

Planted biases have two sides: on one of them something was planted, in the training of a model or
in the films; on the other, the placebo, nothing was. Recorded ones have one: nobody knows what real
films would be without their bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from cxrlib import cohorts, models
from cxrlib.cohorts import phantom
from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.core.errors import Lacks
from cxrlib.embed.extract import embed, embed_text
from cxrlib.models.encoder import Encoder
from cxrlib.predict import zeroshot
from cxrlib.predict.court import Case, Side
from cxrlib.predict.groups import GROUPS, group_of
from cxrlib.predict.remedies.remedy import Films, Question

BIASES = {
    "drain": "drain shortcut",
    "age60": "fainter findings by age",
    "sex": "silent reports by sex",
}
"""The attribute that must not matter, and what is planted."""
PROMPTS = {
    "drain": (
        ("Chest with a drain", "Chest with a tube in place"),
        ("Chest without a drain", "Chest without a tube"),
    ),
    "age60": (("Chest of an old patient", "Elderly"), ("Chest of a young patient", "Young adult")),
    "sex": (("Chest of a woman", "Female patient"), ("Chest of a man", "Male patient")),
}
CLEAN, DRAINED, SILENT = "phantom-resnet", "phantom-resnet-drain", "phantom-resnet-underreport"
DRAIN_FINDING = "Pneumothorax"
FITTED = 2 / 3  # of the validation patients; thresholds and scales are set on the others
FEW = 10  # ill and healthy films of each group, or a finding is not asked for
N_TWINS = 300  # fitting films that an oracle sees twice


def planted(
    n_images: int,
    n_twins: int,
    seed: int,
    attributes: Sequence[str] = tuple(BIASES),
    negative: str | Sequence[str] = zeroshot.NEGATIVE,
) -> list[Case]:
    """Planted biases, on phantoms drawn as other chapters draw them.

    Parameters
    ----------
    n_images, n_twins : int
        Of the test cohort, and of that whose films have twins with and without a drain.
    seed : int
    attributes : sequence of str
        Of :data:`BIASES`.
    negative : str or sequence of str
        The prompt for "nothing found".

    Raises
    ------
    Lacks
        No finding has ill and healthy films enough in each group.
    """
    made = {"drain": _drains, "age60": _ages, "sex": _reports}
    test = cohorts.load("phantom", n_images=n_images, seed=seed)
    valid, _ = cohorts.validation(test, "phantom", n_images, seed)
    part = partial(_side, seed=seed, negative=negative)
    found = []
    for attribute in attributes:
        model, biased, clean = made[attribute](part, valid, test, n_twins)
        bias = BIASES[attribute]
        found.append(Case(bias, model.name, biased(model), clean(), biased, test.name))
    return found


def _drains(part, valid, test, n_twins):
    """In the training of one model, a drain gave pneumothorax away."""
    seed = test.recipe["seed"]
    small = cohorts.load("phantom", n_images=n_twins, seed=seed)
    films, few = ([phantom.twin(c, drain=d) for d in (0, 1)] for c in (small, _few(valid, seed)))
    seen_by = partial(part, attribute="drain", valid=valid, test=films[0], pairs=few)
    seen_by = partial(seen_by, changed=films[1], drawn=small)
    return models.load_model(DRAINED), seen_by, lambda: seen_by(models.load_model(CLEAN))


def _ages(part, valid, test, n_twins):
    """The findings of the old are drawn with less contrast; the clean films are drawn without."""
    contrast = test.recipe["dials"]["contrast"]
    others = {a: of for a, of in contrast.items() if a != "age_group"}
    model, few = models.load_model(CLEAN), _few(valid, test.recipe["seed"])
    plain = [phantom.twin(c, contrast=others) for c in (few, valid, test)]
    seen_by = partial(part, attribute="age60", pairs=(few, plain[0]))
    clean = partial(seen_by, model, valid=plain[1], test=plain[2])
    return model, partial(seen_by, valid=valid, test=test), clean


def _reports(part, valid, test, n_twins):
    """In the training of one model, most findings of women were missing."""
    few = _few(valid, test.recipe["seed"])
    drawn = [phantom.twin(replace(few, table=few.table.assign(sex=s))) for s in GROUPS["sex"]]
    seen_by = partial(part, attribute="sex", valid=valid, test=test, pairs=drawn)
    return models.load_model(SILENT), seen_by, lambda: seen_by(models.load_model(CLEAN))


def recorded(
    test: Cohort,
    valid: Cohort,
    model: Encoder,
    attribute: str,
    seed: int,
    negative: str | Sequence[str] = zeroshot.NEGATIVE,
) -> Case:
    """A recorded attribute of any cohort: its gap in sensitivity, without twins or placebo.

    Parameters
    ----------
    test, valid : Cohort
        See :func:`cxrlib.cohorts.validation`; films of patients that are in both are not tested.
    model : Encoder
    attribute : str
        Of :data:`BIASES`.
    seed : int
        Of which validation patients a remedy is fitted on.
    negative : str or sequence of str

    Raises
    ------
    Lacks
        The cohort does not record it, or no finding has ill and healthy films enough.
    """
    seen_by = partial(_side, attribute=attribute, valid=valid, test=test, seed=seed)
    both = np.intersect1d(test.table["patient_id"], valid.table["patient_id"])
    seen_by = partial(seen_by, negative=negative, left_out=both)
    return Case(f"gap by {attribute}", model.name, seen_by(model), None, seen_by, test.name)


def _side(
    model,
    *,
    attribute,
    valid,
    test,
    seed,
    negative,
    pairs=None,
    changed=None,
    drawn=None,
    left_out=(),
):
    """The films of a case as one model sees them."""
    if len(getattr(model, "members", (model,))) != 1 or not hasattr(model, "encode_prompts"):
        raise Lacks(f"{model.name} has no vectors of its own, which remedies work on")
    kinds = (DRAIN_FINDING,) if attribute == "drain" else S_FINDINGS
    findings = tuple(f for f in kinds if f in test.findings and f in valid.findings)
    fitted, tuned = _parts(valid, seed)
    parts = (valid.table[fitted], valid.table[tuned], (drawn or test).table)
    findings = _frequent(findings, parts, attribute)
    prompts = [negative] if isinstance(negative, str) else list(negative)
    positive, none = (
        np.array([model.encode_prompts([p.format(label=f) for p in of]).numpy() for f in findings])
        for of in ([zeroshot.POSITIVE], prompts)
    )
    question = Question(
        findings=findings,
        positive=positive,
        negative=none,
        scale=model.logit_scale,
        attribute=attribute,
        groups=GROUPS[attribute],
        prompts=PROMPTS[attribute],
        encode=_once(model),
        twins=pairs and tuple(embed(films, model) for films in pairs),
    )
    films = _films(valid, model, findings, attribute)
    tested = _films(test, model, findings, attribute)
    if changed is None:
        known = (tested.group != "") & ~np.isin(tested.patient, left_out)
        return Side(question, films.rows(fitted), films.rows(tuned), tested.rows(known))
    moved = _films(changed, model, findings, attribute)
    group = groups(drawn.table, attribute)
    with_it = (group == GROUPS[attribute][0])[:, None]
    as_drawn = replace(tested, images=np.where(with_it, moved.images, tested.images), group=group)
    return Side(question, films.rows(fitted), films.rows(tuned), tested, moved, as_drawn)


def _once(model):
    """Encode each list of texts once, however often a remedy is fitted."""
    known: dict[tuple[str, ...], np.ndarray] = {}

    def encode(texts):
        key = tuple(texts)
        if key not in known:
            known[key] = embed_text(list(texts), model)
        return known[key]

    return encode


def _films(cohort, model, findings, attribute):
    table = cohort.table
    truth, group = table[list(findings)].to_numpy(bool), groups(table, attribute)
    vectors = embed(cohort, model).astype(float)  # fairlearn's thresholds want it
    return Films(vectors, truth, group, table["patient_id"].to_numpy())


def groups(table: pd.DataFrame, attribute: str) -> np.ndarray:
    """Group (n,) of each row of a cohort's table: one of the two of its attribute, or "".

    Raises
    ------
    Lacks
        The attribute is not recorded.
    """
    known = group_of(table, attribute)
    return known.where(known.isin(GROUPS[attribute]), "").to_numpy(str)


def _parts(valid, seed):
    """Masks of the fitting and of the tuning films, by patients."""
    patients = valid.table["patient_id"].to_numpy()
    names = np.random.default_rng(seed).permutation(np.unique(patients))
    fitted = np.isin(patients, names[: round(FITTED * len(names))])
    return fitted, ~fitted


def _few(valid, seed):
    """The first of the fitting films."""
    table = valid.table[_parts(valid, seed)[0]].iloc[:N_TWINS]
    return replace(valid, table=table.reset_index(drop=True))


def _frequent(findings, parts, attribute):
    """Findings with ill and healthy films enough in each group, tuning films in all."""
    kept, (fitted, tuned, tested) = list(findings), parts
    cells = [
        part[groups(part, attribute) == g] for part in (fitted, tested) for g in GROUPS[attribute]
    ]
    for table in [tuned, *cells]:
        kept = [f for f in kept if FEW <= table[f].sum() <= len(table) - FEW]
    if not kept:
        raise Lacks(
            f"{' and '.join(GROUPS[attribute])}: fewer than {FEW} ill or healthy films in one of "
            "them, for every finding; a remedy cannot be judged on so few"
        )
    return tuple(kept)

"""Does a model use what its embeddings encode? The truth from twins, and estimators without them.

One question at a time: a model, a finding, and an attribute with two groups. Everything is judged
on films without the finding, where a thing that should not matter has no excuse to move the answer.
The rule and the estimates on arrays are in :mod:`cxrlib.stats.use_rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.cohorts import phantom
from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.metadata import young_or_old
from cxrlib.core.errors import Lacks
from cxrlib.core.folders import BENCHMARKS
from cxrlib.embed.extract import embed
from cxrlib.models.encoder import Encoder
from cxrlib.predict import zeroshot
from cxrlib.predict.groups import ALIKE, GROUPS, group_of
from cxrlib.predict.remedies import images
from cxrlib.stats import court_rule, use_rule
from cxrlib.stats.influence import Estimate, interval, spread
from cxrlib.stats.probes import FEW, MIN_PATIENTS

PLANTED = {
    ("drain", "phantom-resnet-drain"): "yes",
    ("drain", "phantom-resnet"): "no",
    ("sex", "phantom-resnet-underreport"): "yes",
    ("sex", "phantom-resnet"): "no",
    (ALIKE, "phantom-resnet"): "no",
}
"""Attribute and model to whether it is used, as the training of the model has it."""
WORDS = {
    "drain": "with a drain",
    "sex": "of a woman",
    "age60": "of an old patient",
    "race": "of a Black patient",
    ALIKE: "of a Black patient",
}
NONSENSE = "qzx"
NO_TWINS = "not run: no twins of real films"
STRATA = ("sex", "age_group", "view", "site")
DEALT = 5  # times that groups are dealt at random, for erasures that know nothing
RECORDED = BENCHMARKS / "use.csv"


@dataclass(frozen=True)
class Case:
    """A model, a finding, an attribute, and the films of its two groups.

    Attributes
    ----------
    model : Encoder
    cohort : Cohort
        Its table has films of the two groups alone.
    finding, attribute : str
    vectors : (n, d) array
    prompts : (d,) array
        Positive prompt minus negative one, times the logit scale.
    seed : int
        Of whatever is dealt at random.
    """

    model: Encoder
    cohort: Cohort
    finding: str
    attribute: str
    vectors: np.ndarray
    prompts: np.ndarray
    seed: int = 1907

    @cached_property
    def margin(self) -> np.ndarray:
        """(n,) similarity to the positive minus that to the negative prompt, times the scale."""
        return self.vectors @ self.prompts

    @cached_property
    def has(self) -> np.ndarray:
        """(n,) bool: whether a film is of the attribute's first group."""
        return (group_of(self.cohort.table, self.attribute) == GROUPS[self.attribute][0]).to_numpy()

    @cached_property
    def ill(self) -> np.ndarray:
        """(n,) bool: the finding, as labelled."""
        return self.cohort.table[self.finding].to_numpy() == 1

    @cached_property
    def patient(self) -> np.ndarray:
        return self.cohort.table["patient_id"].to_numpy()

    @cached_property
    def erased(self) -> tuple[np.ndarray, np.ndarray]:
        """Margins of all films after LEACE, (n,), and after LEACE of groups at random, (k, n)."""
        return _erased(self, np.ones(len(self.ill), bool))


def case(cohort: Cohort, model: Encoder, finding: str, attribute: str, seed: int = 1907) -> Case:
    """The films of an attribute's two groups, and what a model makes of them.

    Raises
    ------
    Lacks
        The cohort does not know the attribute or the finding, or has fewer than 20 patients in one
        of the two groups; the model has no vectors.
    """
    if attribute == ALIKE:
        cohort = alike(cohort)
    group = group_of(cohort.table, attribute)
    if finding not in cohort.findings:
        raise Lacks(f"the cohort has no labels of {finding}")
    for one in GROUPS[attribute]:
        n = cohort.table["patient_id"][group == one].nunique()
        if n < MIN_PATIENTS:
            raise Lacks(f"{attribute} {one}: fewer than {MIN_PATIENTS} patients")
    known = group.isin(GROUPS[attribute]).to_numpy()
    vectors = embed(cohort, model)[known]
    table = cohort.table[known].reset_index(drop=True)
    part = replace(cohort, table=table)
    return Case(model, part, finding, attribute, vectors, prompts(model, finding), seed)


def cases(
    cohort: Cohort, models: Sequence[Encoder], finding: str, seed: int = 1907
) -> tuple[list[Case], pd.DataFrame]:
    """All that can be asked of a cohort and some models, and what cannot.

    Films with all scanners alike are drawn for the first model only.

    Returns
    -------
    cases : list of Case
    lacking : DataFrame
        ``attribute, why``: text, one row per attribute that cannot be asked.

    Raises
    ------
    Lacks
        Nothing can be asked.
    """
    found, lacking = [], {}
    for attribute, model in _asked(models):
        try:
            found.append(case(cohort, model, finding, attribute, seed))
        except Lacks as reason:
            lacking[attribute] = str(reason)
    if not found:
        raise Lacks("; ".join(f"{attribute}: {why}" for attribute, why in lacking.items()))
    return found, pd.DataFrame(lacking.items(), columns=["attribute", "why"])


def _asked(models):
    """Attributes and models; films with all scanners alike are for the first model only."""
    pairs = product(GROUPS, models)
    return [(a, model) for a, model in pairs if a != ALIKE or model is models[0]]


def prompts(model: Encoder, finding: str, words: str = "") -> np.ndarray:
    """Positive minus negative prompt (d,), times the logit scale; both may end in some words."""
    sides = (zeroshot.POSITIVE.format(label=finding), zeroshot.NEGATIVE)
    texts = [f"{side} {words}".strip() for side in sides]
    positive, negative = (model.encode_prompts([t]) for t in texts)
    return model.logit_scale * (positive - negative).numpy()


# --- encoded? ---


def encoded(of: Sequence[Case]) -> pd.DataFrame:
    """How well a linear probe reads the attribute of each case: over all films, and in one site.

    Returns
    -------
    DataFrame
        One row per case, and a second one from the films of the largest site where the cohort has
        sites, the attribute is none, and 20 patients of either group are left: see `row`.
    """
    rows = []
    for one in of:
        table, looks = one.cohort.table, {"all sites": np.ones(len(one.has), bool)}
        if "site" in table and one.attribute not in ("site", ALIKE):
            looks["one site"] = (table["site"] == table["site"].mode()[0]).to_numpy()
        for look, at in looks.items():
            sides = (table["patient_id"][at & side] for side in (one.has, ~one.has))
            if min(people.nunique() for people in sides) >= MIN_PATIENTS:
                patient = one.patient[at]
                found = use_rule.decoded(one.vectors[at], one.has[at], patient, one.seed) - 0.5
                about = row(found, patient, use_rule.ENCODED - 0.5, look)
                about |= {c: about[c] + 0.5 for c in ("value", "ci_low", "ci_high")}
                rows.append(_about(one) | about)
    return pd.DataFrame(rows)


def _about(of):
    return {"attribute": of.attribute, "model": of.model.name}


# --- the truth ---


def alike(cohort: Cohort) -> Cohort:
    """The films of a phantom cohort as if all scanners were that of the first site.

    Raises
    ------
    Lacks
        The cohort is no phantom.
    """
    if not cohort.planted:
        raise Lacks(NO_TWINS)
    contrast = cohort.recipe["dials"]["contrast"]
    others = {a: of for a, of in contrast.items() if a != "site"}
    return phantom.twin(cohort, site_signature=0.0, contrast=others)


def twins(cohort: Cohort, attribute: str, n: int = 600) -> tuple[Cohort, Cohort]:
    """Films with one thing changed, and the cohort of the films to compare them with.

    Films get a drain; the anatomy of the other sex; the years of a typical patient of the other
    age group, with findings as visible as before; those of the last site get the scanner of the
    first. Race changes nothing in a phantom, so that its twin is the film itself.

    Parameters
    ----------
    cohort : Cohort
    attribute : str
        Of `GROUPS`.
    n : int
        Films to change, the first of those that can be. Where the twin is one that other chapters
        draw too, or the film itself, it is all.

    Returns
    -------
    changed, plain : Cohort
        The films of the first are among those of the second.

    Raises
    ------
    Lacks
        The cohort is no phantom.
    """
    if not cohort.planted:
        raise Lacks(NO_TWINS)
    table = cohort.table
    if attribute in ("race", ALIKE):
        return cohort, cohort
    if attribute == "site":
        few = table[table["site"] == GROUPS["site"][0]].iloc[:n].reset_index(drop=True)
        return _drawn_once(alike(replace(cohort, table=few))), cohort
    plain = phantom.twin(cohort, drain=0)
    if attribute == "drain":
        return phantom.twin(cohort, drain=1), plain
    if attribute == "sex":
        changed = table.assign(sex=table["sex"].map({"F": "M", "M": "F"}))
    else:
        group = young_or_old(table["age"])
        typical = table["age"].groupby(group).median().round().astype(int)
        changed = table.assign(age=group.map({"old": typical["young"], "young": typical["old"]}))
    return _drawn_once(phantom.twin(replace(cohort, table=changed.iloc[:n]), drain=0)), plain


def _drawn_once(cohort):
    """Films that several models look at are drawn for the first alone."""
    films = cache(lambda: cohort.images(np.arange(len(cohort.table))))
    return replace(cohort, images=lambda at: films()[at])


def truth(changed: Cohort, plain: Cohort, model: Encoder, finding: str, attribute: str) -> dict:
    """How far margins of films without the finding move with the attribute: a row, see `row`.

    changed, plain : from `twins`.
    """
    prompt = prompts(model, finding)
    after, before = (embed(films, model) @ prompt for films in (changed, plain))
    at = pd.Series(np.arange(len(before)), plain.table["image_id"])
    rows = at[changed.table["image_id"]].to_numpy()
    before, table = before[rows], plain.table.iloc[rows]
    if attribute != "drain":  # the other way for films of the first group
        has = (group_of(table, attribute) == GROUPS[attribute][0]).to_numpy()
        after = np.where(has, 2 * before - after, after)
    found = court_rule.shift(before, after, (table[f"severity_{finding}"] == 0).to_numpy())
    return row(found, table["patient_id"].to_numpy(), use_rule.USED, "twins")


def truths(
    cohort: Cohort, small: Cohort, models: Sequence[Encoder], finding: str, n: int = 600
) -> pd.DataFrame:
    """The rows of :func:`truth` for every attribute and model.

    Parameters
    ----------
    cohort, small : Cohort
        Films that change scanner, or nothing, are of the first, all others of the second.
    models, finding : as in :func:`cases`
    n : int
        See :func:`twins`, as for what is raised.
    """
    rows = []
    for attribute, model in _asked(models):
        if model is models[0]:  # films are drawn for the first and looked at by all
            of = cohort if attribute in ("site", "race", ALIKE) else small
            pair = twins(of, attribute, n)
        found = truth(*pair, model, finding, attribute)
        rows.append({"attribute": attribute, "model": model.name} | found)
    return pd.DataFrame(rows)


def row(found: Estimate, patient: np.ndarray, bar: float, method: str) -> dict:
    """An estimate with its interval, what it says of a bar, and how many films it rests on."""
    low, high = interval(found, patient)
    counted = found.influence != 0
    counted = counted if counted.any() else np.ones(len(patient), bool)
    return {
        "method": method,
        "value": found.value,
        "ci_low": low,
        "ci_high": high,
        "says": use_rule.says(low, high, bar),
        "n": int(counted.sum()),
        "n_patients": len(np.unique(patient[counted])),
        "note": "",
    }


# --- estimators that need no twin ---


def difference(of: Case) -> dict:
    """The plain difference between the two groups, over all films: what an audit sees first."""
    return row(use_rule.matched(of.margin, of.has), of.patient, use_rule.USED, "plain difference")


def pairs(of: Case) -> dict:
    """The difference between films without the finding that are alike in sex, age, view, site.

    Raises
    ------
    Lacks
        Fewer than 10 patients of the first group have a counterpart.
    """
    table = of.cohort.table[~of.ill]
    own = {"age60": "age_group"}.get(of.attribute, of.attribute)
    strata = [table[c] for c in STRATA if c in table and c != own]
    try:
        found = use_rule.matched(of.margin[~of.ill], of.has[~of.ill], strata)
    except ValueError as none:
        raise Lacks(str(none)) from None
    counted = of.patient[~of.ill][of.has[~of.ill] & (found.influence != 0)]
    if len(np.unique(counted)) < FEW:
        raise Lacks(f"fewer than {FEW} patients of the group have a counterpart")
    return row(found, of.patient[~of.ill], use_rule.USED, "matched pairs")


def erasure(of: Case) -> dict:
    """How much of the groups' difference LEACE of the attribute takes, beyond groups at random."""
    found = use_rule.removed(of.margin, *of.erased, of.has)
    return row(found, of.patient, use_rule.USED, "erasure")


def erasure_within(of: Case) -> dict:
    """The same, fitted on films without the finding and looked at on them."""
    found = use_rule.removed(of.margin[~of.ill], *_erased(of, ~of.ill), of.has[~of.ill])
    return row(found, of.patient[~of.ill], use_rule.USED, "erasure within label")


def loss(of: Case) -> dict:
    """How much AUC erasing costs, beyond random erasures: amnesic probing (Elazar et al. 2021)."""
    found = use_rule.lost(of.ill, *of.erased)
    return row(found, of.patient, use_rule.LOST, "AUC lost by erasure")


def _erased(of, films):
    """Margins of these films after erasures fitted on other patients: of the groups, at random."""
    rng = np.random.default_rng(of.seed)
    vectors, has = of.vectors[films], of.has[films]
    _, person = np.unique(of.patient[films], return_inverse=True)
    half = rng.permutation(person.max() + 1)[person] % 2 == 0
    groups = [has, *(rng.permutation(has) for _ in range(DEALT))]
    after = np.empty((len(groups), len(vectors)))
    for fitted in (half, ~half):
        for k, group in enumerate(groups):
            try:
                erase = images.eraser(vectors[fitted], group[fitted])
            except Lacks:  # nothing goes with the group, so that nothing is erased
                erase = np.asarray
            after[k, ~fitted] = erase(vectors[~fitted]) @ of.prompts
    return after[0], after[1:]


def ablation(of: Case) -> dict:
    """How far the groups' difference moves when both prompts name the attribute.

    Raises
    ------
    Lacks
        No words name the attribute, or the model takes them for words without sense.
    """
    if of.attribute not in WORDS:
        raise Lacks(f"no words for {of.attribute}")
    words = WORDS[of.attribute]
    named = prompts(of.model, of.finding, words)
    *before, last = words.split()
    if np.allclose(named, prompts(of.model, of.finding, " ".join([*before, NONSENSE])), atol=1e-6):
        raise Lacks(f"{of.model.name} does not know the word {last!r}")
    change, unit = of.vectors @ (of.prompts - named), spread(of.margin[~of.ill])
    found = use_rule.matched(change[~of.ill], of.has[~of.ill], unit=unit)
    return row(found, of.patient[~of.ill], use_rule.USED, "prompt ablation")


def masking(of: Case) -> dict:
    """How far margins of films with a drain fall when its region is painted over.

    Beyond what the same paint does to films without a drain. On phantoms, twins say where the
    drain is; on real films somebody has to draw it.

    Raises
    ------
    Lacks
        The attribute is no device, or nobody knows where it is.
    """
    if of.attribute != "drain":
        raise Lacks(f"{of.attribute} is no region of a film")
    if not of.cohort.planted:
        raise Lacks("nobody has drawn where the drains of these films are")
    with_drain = np.flatnonzero(of.has & ~of.ill)
    without = np.flatnonzero(~of.has & ~of.ill)[: len(with_drain)]
    if not len(with_drain):
        raise Lacks("no film without the finding has a drain")
    chosen, n = np.concatenate([with_drain, without]), len(with_drain)
    films = replace(of.cohort, table=of.cohort.table.iloc[chosen].reset_index(drop=True))
    drawn, bare = (phantom.twin(films, drain=d).images(np.arange(n)) for d in (1, 0))
    where = drawn != bare  # those of films without a drain are painted where another's drain is
    painted = inpainted(
        phantom.twin(films).images(np.arange(len(chosen))),
        np.concatenate([where, where[: len(without)]]),
    )
    after = of.model.encode_image(of.model.preprocess(painted)).numpy() @ of.prompts
    fall = of.margin[chosen] - after
    unit = spread(of.margin[chosen], ~of.has[chosen])
    found = use_rule.matched(fall, of.has[chosen], unit=unit)
    return row(found, of.patient[chosen], use_rule.USED, "masking")


def inpainted(films: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Films (n, h, w) uint8 with a region (n, h, w) bool filled from around it (Telea 2004).

    The region grows by one pixel on all sides, since edges of a thing reach beyond it.
    """
    import cv2

    grown = [cv2.dilate(w.astype(np.uint8), np.ones((3, 3), np.uint8)) for w in where]
    return np.stack(
        [cv2.inpaint(f, w, 2, cv2.INPAINT_TELEA) for f, w in zip(films, grown, strict=True)]
    )


ESTIMATORS: dict[str, Callable[[Case], dict]] = {
    "plain difference": difference,
    "matched pairs": pairs,
    "erasure": erasure,
    "erasure within label": erasure_within,
    "AUC lost by erasure": loss,
    "prompt ablation": ablation,
    "masking": masking,
}
"""In the order of the book; the first stands for what is done without thinking."""


def estimates(of: Sequence[Case], names: Sequence[str] = tuple(ESTIMATORS)) -> pd.DataFrame:
    """What the estimators say of cases.

    Returns
    -------
    DataFrame
        One row per case and estimator: ``attribute, model, method, value, ci_low, ci_high, says``
        ("yes", "no", "undecided", or "nothing" with its reason in ``note``), ``n, n_patients,
        note``.
    """
    rows = []
    for one, name in product(of, names):
        try:
            found = ESTIMATORS[name](one)
        except Lacks as reason:
            found = {"method": name, "says": "nothing", "note": str(reason)}
        rows.append(_about(one) | found)
    return pd.DataFrame(rows)


def quadrants(read: pd.DataFrame, used: pd.DataFrame) -> pd.DataFrame:
    """The map: what a probe reads and what is used, side by side.

    Parameters
    ----------
    read : DataFrame
        Of :func:`encoded`.
    used : DataFrame
        Rows of one method, of :func:`truths` or :func:`estimates`.

    Returns
    -------
    DataFrame
        One row per attribute and model that are in both: ``attribute, model, auc, auc_low,
        auc_high, use, use_low, use_high, quadrant, n, n_patients`` (the fewest behind either).
    """
    keys, ends = ["attribute", "model"], {"value": "", "ci_low": "_low", "ci_high": "_high"}
    read = read[read["method"] == "all sites"]
    one, other = (
        rows.reindex(columns=[*keys, *ends, "says", "n", "n_patients"]).rename(
            columns={c: name + end for c, end in ends.items()}
        )
        for name, rows in (("auc", read), ("use", used))
    )
    both = one.merge(other, on=keys, suffixes=("", " of use"))
    both["quadrant"] = list(map(use_rule.quadrant, both["says"], both["says of use"]))
    for count in ("n", "n_patients"):
        both[count] = both[[count, f"{count} of use"]].min(axis=1)
    return both.drop(columns=["says", *both.columns[both.columns.str.endswith(" of use")]])


# --- grades ---


def recorded(path: Path = RECORDED) -> pd.DataFrame:
    """What was said of phantoms of many seeds: ``benchmarks/use.py``.

    Returns
    -------
    DataFrame
        One row per seed, model and attribute: what a ``probe`` and the ``twins`` say, what each of
        `ESTIMATORS` says, ``n_images``, ``date``.
    """
    return pd.read_csv(path)


def grades(said: pd.DataFrame) -> pd.DataFrame:
    """How often each estimator says what twins say, where these say yes or no.

    Parameters
    ----------
    said : DataFrame
        As of :func:`recorded`.

    Returns
    -------
    DataFrame
        One row per attribute, model, what twins say and estimator: ``attribute, model, used`` (by
        the twins), ``method, n`` (seeds in which twins say so), ``right``, ``wrong``,
        ``undecided`` and ``nothing``, which add up to n, and ``quadrant``: right, and the probe
        decides as well.
    """
    keys = ["seed", "attribute", "model", "probe", "twins"]
    long = said.melt(keys, list(ESTIMATORS), "method", "says")
    long = long[long["twins"].isin(("yes", "no"))].rename(columns={"twins": "used"})
    opposite = long["used"].map({"yes": "no", "no": "yes"})
    long = long.assign(
        n=1,
        right=long["says"] == long["used"],
        wrong=long["says"] == opposite,
        undecided=long["says"] == "undecided",
        nothing=long["says"].isin(("nothing", "undefined")),
        quadrant=(long["says"] == long["used"]) & long["probe"].isin(("yes", "no")),
    )
    counts = ["n", "right", "wrong", "undecided", "nothing", "quadrant"]
    return (
        long.groupby(["attribute", "model", "used", "method"], sort=False)[counts]
        .sum()
        .reset_index()
    )

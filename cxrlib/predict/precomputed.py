"""Models that are files: what :mod:`cxrlib.models.scores` and ``embeddings`` say of a cohort.

Nothing is guessed for a film that such a model has not seen: the films without a score are left
out, for all models of a run alike, and counted.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import pandas as pd

from cxrlib import guard
from cxrlib.cohorts.cohort import Cohort, flow
from cxrlib.core.errors import Lacks
from cxrlib.embed.extract import not_a_twin
from cxrlib.models.embeddings import Vectors
from cxrlib.models.scores import READINGS, Scores
from cxrlib.protocol import Protocol
from cxrlib.show.notebook import displayed

KINDS = (Scores, Vectors)


def seeing(models: Sequence, protocol: str | Protocol = "corrected") -> list:
    """The models that can be shown new films, such as a twin of one that they have answered.

    Where none can, the small ones that come with the book, which a note says.
    """
    from cxrlib.models import load_models

    if found := [model for model in models if not isinstance(model, KINDS)]:
        return found
    names = ", ".join(model.name for model in models)
    _note(
        "Films drawn anew",
        [
            f"{names} cannot be shown films that are drawn for this chapter. Whatever follows on "
            "such films is about the small models that come with the book"
        ],
    )
    return load_models("all", protocol)


def calibratable(models: Sequence) -> list:
    """The models whose scores may be read as probabilities; a note says which are not.

    Raises
    ------
    Lacks
        None is.
    """
    of_files = [model for model in models if isinstance(model, Scores)]
    odd = [model.name for model in of_files if not model.probabilities]
    plain = [m.name for m in of_files if len(m.methods) == 1 and m.probabilities]
    lines = []
    if odd:
        lines.append(
            f"the calibration of {', '.join(odd)} is undefined: scores below 0 or above 1, and "
            "bare 0 and 1, order films and are no probabilities"
        )
    if len(odd) == len(models):
        raise Lacks(lines[0])
    if plain:
        lines.append(
            f"{', '.join(plain)}: no scale was learned that could be left out; where a chapter "
            "reads a model with and without it, both are the scores as they are in the file"
        )
    if lines:
        _note("Probabilities of files", lines)
    return [model for model in models if model.name not in odd]


def answerable(cohort: Cohort, models: Sequence, fitted: bool = False) -> Cohort:
    """The films and findings of a cohort for which every model of a run has an answer.

    Encoders have one for all, so that without a model of files it is the cohort itself. What is
    left out, and what was noticed in the files, is shown on the page.

    Parameters
    ----------
    cohort : Cohort
    models : sequence of loaded models
    fitted : bool
        These are patients to fit something on, beside those that are tested: what was noticed is
        not said again.

    Raises
    ------
    Lacks
        Patients to fit on, of which a file has none.
    ValueError
        A file knows none of the films or findings, spells a finding otherwise, or repeats the
        cohort's labels.
    """
    lines, there = [], np.ones(len(cohort.table), bool)
    findings = list(cohort.findings)
    for model in models:
        if not isinstance(model, KINDS):
            continue
        _spelling(model, cohort)
        known, has = cohort.table["image_id"].isin(_images(model)).to_numpy(), set(findings)
        if fitted and not known.any():
            raise Lacks(
                f"{model.name} has no validation patients, on whom this chapter fits: films of "
                "patients apart from the test, such as those of the split 'valid'; add them"
            )
        if not known.any():
            raise ValueError(
                f"{model.name} knows none of the {len(known):,} films of cohort {cohort.name!r}: "
                "expected its image_id, as the cohort spells it"
            )
        lines += [f"{model.name}: {note}" for note in model.notes if not fitted]
        if isinstance(model, Scores):
            has = _findings(model, cohort, lines)
            known = _with_all(model, cohort, [f for f in findings if f in has], known)
            _no_labels(model, cohort)
        if others := sum(~pd.Index(_images(model)).isin(cohort.table["image_id"])):
            of = guard.counted(int(others), len(_images(model)), "films")
            lines.append(f"{model.name}: not of this cohort, and not used, are {of} of the file")
        if not known.all():
            missing = guard.counted(int((~known).sum()), len(known), "films")
            lines.append(f"{model.name} has no answer for {missing}")
        there &= known
        findings = [f for f in findings if f in has]
    if not there.any() or not findings:
        what = "film" if findings else "finding"
        raise ValueError(f"cohort {cohort.name!r}: no {what} to which every model has an answer")
    if absent := [f for f in cohort.findings if f not in findings]:
        lines.append(f"findings without scores, with which nothing is done: {', '.join(absent)}")
    if not there.all():
        left = guard.counted(int(there.sum()), len(there), "films")
        lines.append(
            f"all numbers below are of {left}, those that every model has answered; if a model "
            "is silent where films are hard, it looks better than it is"
        )
    if lines and not fitted:
        _note("Models that are files", lines)
    return _part(cohort, there, tuple(findings))


def scores(cohort: Cohort, model: Scores, label: str, temperature: str) -> np.ndarray:
    """Scores (n,) of a finding, in the order of the cohort's table.

    temperature : "none" or "learned", of files that hold both readings of a CLIP

    Raises
    ------
    Lacks
        A film or the finding has none.
    """
    table = model.table[model.table["finding"] == label]
    if len(model.methods) > 1:
        table = table[table["method"] == READINGS[temperature == "learned"]]
    not_a_twin(cohort, model)
    found = table.set_index("image_id")["score"].reindex(cohort.table["image_id"]).to_numpy()
    if absent := int(np.isnan(found).sum()):
        raise Lacks(
            f"{model.name} has no score of {label} for "
            f"{guard.counted(absent, len(found), 'films')} of cohort {cohort.name!r}; chapters 4, "
            "6 and 7 leave such films and findings out"
        )
    return found


def method(model: Scores) -> str:
    """What stands in the column ``method`` of its predictions."""
    return model.methods[0] if len(model.methods) == 1 else "zero-shot"


def _images(model):
    """Names of the films that a model has answered."""
    return model.table["image_id"].unique() if isinstance(model, Scores) else list(model.images)


def _spelling(model, cohort):
    """Refuse films of a file that are those of the cohort but for the way they are written."""
    ids, ours = pd.Index(_images(model)), pd.Index(cohort.table["image_id"])
    odd = _bare(ids.difference(ours)).isin(_bare(ours))
    if odd.any():
        raise ValueError(
            f"{model.name}: {guard.counted(int(odd.sum()), len(ids), 'films')} are of cohort "
            f"{cohort.name!r} but for folder, ending, capitals or leading zeros in image_id; "
            "spell it as the cohort does"
        )


def _bare(ids):
    """Names of films without what programs add or take: folder, ending, capitals, zeros."""
    bare = ids.astype(str).str.replace(r"^.*[/\\]", "", regex=True).str.lower()
    bare = bare.str.replace(r"(\.(png|jpe?g|tiff?|dcm))+$", "", regex=True)
    return bare.str.replace(r"^(\d+)\.0$", r"\1", regex=True).str.lstrip("0")


def _with_all(model, cohort, findings, known):
    """Films that have a score of each of the findings, by every method of the file."""
    asked = model.table[model.table["finding"].isin(findings)]
    each = asked.groupby("image_id").size().reindex(cohort.table["image_id"], fill_value=0)
    return known & (each.to_numpy() == len(findings) * len(model.methods))


def _findings(model, cohort, lines):
    """The findings that file and cohort share; refuses what looks like another spelling."""
    has = set(model.findings)
    lacking = {f.casefold().replace("_", " "): f for f in cohort.findings if f not in has}
    unknown = [f for f in model.findings if f not in cohort.findings]
    for finding in unknown:
        name = finding.casefold().replace("_", " ")
        near = get_close_matches(name, lacking, 1, 0.85) or [
            f for f in lacking if f.endswith(f" {name}") or name.endswith(f" {f}")
        ]
        if near:
            raise ValueError(
                f"{model.name}: finding {finding!r} is not of cohort {cohort.name!r}; did you mean "
                f"{lacking[near[0]]!r}? Spell it as the cohort does"
            )
    if len(unknown) == len(has):
        raise ValueError(
            f"{model.name} scores {', '.join(unknown)}, and cohort {cohort.name!r} has labels of "
            f"{', '.join(cohort.findings)}: no finding in common"
        )
    if unknown:
        lines.append(f"{model.name}: findings without labels in this cohort: {', '.join(unknown)}")
    return has


def _no_labels(model, cohort):
    """Refuse the cohort's own labels, given as scores."""
    shared = [f for f in cohort.findings if f in model.findings]
    truth = cohort.table.melt("image_id", shared, "finding", "y_true")
    both = model.table.merge(truth, on=["image_id", "finding"])
    # one score for all ill films, another for all healthy ones, whatever numbers stand for them
    if both["y_true"].nunique() == 2 and both.groupby("y_true")["score"].nunique().eq(1).all():
        raise ValueError(
            f"{model.name}: the scores are the labels of cohort {cohort.name!r} in all rows; give "
            "what a model or a reader said, not the truth that it is compared with"
        )


def _part(cohort, there, findings):
    """The cohort with these films and findings; itself where nothing is left out."""
    if there.all() and findings == cohort.findings:
        return cohort
    if there.all():
        return replace(cohort, findings=findings)
    at, images = np.flatnonzero(there), cohort.images
    rows = cohort.table[there].reset_index(drop=True)
    step = flow([("answered by every model", rows, "no answer in a file")])
    return replace(
        cohort,
        name=cohort.name if cohort.name.endswith("(part)") else f"{cohort.name} (part)",
        table=rows,
        findings=findings,
        flow=pd.concat([cohort.flow, step], ignore_index=True),
        images=images and (lambda positions: images(at[np.asarray(positions)])),
        films=None if cohort.films is None else cohort.films[there].reset_index(drop=True),
    )


def _note(title: str, lines: Sequence[str]) -> None:
    """A list of sentences in a box on the page."""
    text = "\n".join(lines)
    if guard.active():
        text = guard.text(text, "note on models that are files")
    items = "".join(f"<li>{html.escape(line)}</li>" for line in text.split("\n"))
    page = f'<div class="admonition warning"><p class="admonition-title">{title}</p>'
    displayed(f"{page}<ul>{items}</ul></div>", f"{title}:\n{text}")

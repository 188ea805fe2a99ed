"""Which films show a chest drain: as NEATX annotated, or as the detector of paper S predicts.

NEATX annotates part of NIH ChestX-ray14, nearly only films with pneumothorax. S trains a detector
on these to label its controls (:mod:`cxrlib.predict.drain_detector`). Here are the labels: made,
kept, put into a cohort, and judged. Annotated labels are never replaced by predicted ones.

Probabilities are kept in one Parquet file for each detector, in the folder ``drains`` in
:func:`cxrlib.core.folders.folder_for` the cohort; asked for again they are read, not computed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import atomic
from cxrlib.core.progress import Bar
from cxrlib.predict import drain_detector
from cxrlib.predict.drain_detector import NAME, Detector, known_drains, load
from cxrlib.predict.drain_detector import train as train  # so that callers need this module alone
from cxrlib.protocol import protocol_of
from cxrlib.show.words import count, percent
from cxrlib.stats import fairness
from cxrlib.stats.shortcuts import DEVICES

CHUNK = 1000  # films between two savings of predictions


def predict(detector: Detector, cohort: Cohort, device: str = "cpu") -> pd.DataFrame:
    """Drains of a cohort: as annotated, and as predicted where there is no annotation.

    Probabilities are kept by film, and saved after every 1,000, so that an interrupted prediction
    goes on where it was. (S's code without ``--train`` predicts in training mode, with statistics
    of the batch; that is not repeated.)

    Returns
    -------
    DataFrame, one row per image in the order of the cohort
        ``image_id``, ``drain_probability`` (in [0, 1]; missing where annotated), ``drain`` (0/1)
        and ``drain_source`` ("annotated" or "predicted").
    """
    drain_detector.check(detector.settings["protocol"], cohort)
    keys = _keys(cohort)
    if cohort.recipe.get("preprocessing", "authors") != "authors":
        keys = keys + f" {cohort.recipe['preprocessing']}"  # another film, as far as pixels go
    todo = np.flatnonzero(np.isnan(known_drains(cohort)))
    path = file_of(detector, cohort)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = _read_predictions(path)
        missing = todo[~np.isin(keys[todo], known.index)]
        network = drain_detector.on_device(copy.deepcopy(detector.network), device)
        with Bar(len(missing), "drains", "film") as bar:
            for start in range(0, len(missing), CHUNK):
                part = missing[start : start + CHUNK]
                x = drain_detector.prepared(cohort, part, detector.settings)
                p = drain_detector.probabilities(network, x, detector.settings["protocol"])
                fresh = pd.Series(p, keys[part])
                known = pd.concat([known, fresh]) if len(known) else fresh
                known = known[~known.index.duplicated()]
                table = known.rename("drain_probability").rename_axis("film").reset_index()
                atomic.in_one_step(path, table.to_parquet)
                bar.update(len(part))
    return _table(detector, cohort, known.reindex(keys))


def _keys(cohort):
    """What identifies a film: the hash of its file; of a phantom, its cohort and name."""
    if cohort.films is not None:
        return cohort.films["sha256"].to_numpy(object)
    return (cohort.fingerprint + " " + cohort.table["image_id"].astype(str)).to_numpy(object)


def file_of(detector: Detector, cohort: Cohort) -> Path:
    """The Parquet file of a detector: ``film`` (see :func:`predict`), ``drain_probability``."""
    return drain_detector.home(cohort) / f"{detector.fingerprint}.parquet"


def _read_predictions(path):
    if not path.is_file():
        return pd.Series(dtype=float)
    return pd.read_parquet(path).set_index("film")["drain_probability"]


def _table(detector, cohort, known):
    """The table of `predict` from a probability for each film, missing where annotated."""
    drain = known_drains(cohort)
    predicted = np.isnan(drain)
    probability = np.where(predicted, known.to_numpy(float), np.nan)
    return pd.DataFrame(
        {
            "image_id": cohort.table["image_id"].to_numpy(),
            "drain_probability": probability,
            "drain": np.where(predicted, probability > detector.threshold, drain).astype(np.int8),
            "drain_source": np.where(predicted, "predicted", "annotated"),
        }
    )


def label(cohort: Cohort, detector: Detector | Path | str, device: str = "cpu") -> Cohort:
    """The cohort with a drain for every image.

    Parameters
    ----------
    cohort : Cohort
    detector : Detector, or the file of one (:func:`load`)
    device : "cpu" or "cuda", for films that were not predicted yet

    Returns
    -------
    Cohort
        Columns of :func:`predict` in its table; annotated labels are as they were. Its recipe has
        ``drains``: fingerprint, protocol and threshold of the detector, and ``shared_patients``,
        :func:`overlap`.
    """
    detector = detector if isinstance(detector, Detector) else load(detector)
    return _labelled(cohort, detector, predict(detector, cohort, device))


def stored(cohort: Cohort, protocol: str = "corrected") -> Cohort:
    """The cohort as :func:`label` returns it, from predictions on disk; nothing is computed.

    Labels are those of the films as they are, also where the cohort shows them prepared as S did.

    A cohort in which every film was looked at is returned as it is.

    Of several detectors of this protocol that labelled these films, the newest is taken; the
    recipe of the cohort says which.

    Raises
    ------
    ValueError
        No detector has labelled all films without annotation.
    """
    keys, unknown = _keys(cohort), np.isnan(known_drains(cohort))
    if not unknown.any():
        return cohort
    folder = drain_detector.home(cohort)
    files = sorted(folder.glob("*/detector.pt"), key=lambda file: file.stat().st_mtime)
    for file in reversed(files):
        detector = load(file)
        known = _read_predictions(file_of(detector, cohort))
        complete = np.isin(keys[unknown], known.index).all()
        if detector.settings["protocol"] == protocol and complete:
            return _labelled(cohort, detector, _table(detector, cohort, known.reindex(keys)))
    raise ValueError(
        f"cohort {cohort.name!r}: {unknown.sum()} films have no annotated drain, and no drain "
        f"detector ({protocol}) in {folder} has labelled them all. Train one and label them "
        f"first: cxrbook drains --protocol {protocol}"
    )


def _labelled(cohort, detector, table):
    columns = {c: table[c].to_numpy() for c in ("drain", "drain_probability", "drain_source")}
    about = {"detector": detector.fingerprint, "protocol": detector.settings["protocol"]}
    about |= {"threshold": detector.threshold, "shared_patients": overlap(detector, cohort)}
    recipe = cohort.recipe | {"drains": about}
    return replace(cohort, table=cohort.table.assign(**columns), recipe=recipe)


def overlap(detector: Detector, cohort: Cohort) -> int | None:
    """How many patients of a cohort the detector was trained or chosen on; None if not known."""
    if not detector.sources:
        return None
    if not set(detector.sources) & set(drain_detector.sources_of(cohort)):
        return 0
    seen = detector.films.loc[detector.films["part"] != "test", "patient_id"]
    return len(set(cohort.table["patient_id"].astype(str)) & set(seen))


def provenance(cohort: Cohort) -> str:
    """What stands for the drain in a cohort, and who said so, in one or two sentences.

    Parameters
    ----------
    cohort : Cohort
        As loaded, or with the labels of `stored` or `label`.
    """
    table = cohort.table
    device = next((c for c in DEVICES if c in table), None)
    if cohort.planted:
        shares = (cohort.recipe["dials"][f"drain_if_{of}"] for of in ("pneumothorax", "none"))
        ill, others = map(percent, shares)
        return (
            f"The drains of this cohort are planted: {ill} of the films with pneumothorax have "
            f"one, and {others} of the others."
        )
    if device is None or table[device].isna().all():
        return "In this cohort nobody has looked for drains, so that there are no arms."
    if device != "drain":
        return (
            "This cohort does not name drains. Here the device is any support device that its "
            "labels name, of which a drain is one kind; paper S has no such analysis to compare "
            "with, and no detector could learn drains from it."
        )
    predicted = int(table.get("drain_source", pd.Series(dtype=str)).eq("predicted").sum())
    if predicted:
        shared = cohort.recipe["drains"]["shared_patients"]
        return (
            f"Drains are as annotated, and on {count(predicted)} images as a detector predicted "
            "them; patients of this cohort that it was trained or chosen on: "
            f"{'not known' if shared is None else count(shared)}."
        )
    return (
        "Drains are as annotated. The command `cxrbook drains` trains a detector on them to label "
        "the other films; the parameter drain_labels=predicted uses its labels."
    )


def hide(cohort: Cohort, rows: ArrayLike) -> Cohort:
    """The cohort without the drain labels of some rows, to see how a detector fills them.

    Parameters
    ----------
    cohort : Cohort
        With annotated or planted drains.
    rows : (n,) bool
        Whose label is taken away, such as ``cohort.table["Pneumothorax"] == 0``.
    """
    drain = pd.Series(known_drains(cohort), cohort.table.index)
    table = cohort.table.assign(drain=drain.mask(np.asarray(rows, bool)))
    return replace(cohort, table=table, recipe=cohort.recipe | {"drains": "hidden in part"})


# --- how good they are --------------------------------------------------------------------------


def performance(detector: Detector, n_resamples: int = 500, seed: int = 1907) -> pd.DataFrame:
    """AUC, and at its threshold sensitivity and specificity, on the held-out test patients.

    As published, resamples are of images and intervals percentiles (:mod:`cxrlib.protocol`). The
    test films are of the kind that was annotated, which other films need not be.

    Returns
    -------
    Results table, three rows.

    Raises
    ------
    ValueError
        The detector came without the films it was tested on.
    """
    test = detector.films[detector.films["part"] == "test"]
    if test.empty:
        raise ValueError(f"{detector.file}: weights alone, without the films it was tested on")
    found = test.rename(columns={"drain": "y_true", "probability": "score"})
    found = found.assign(cohort=detector.settings["cohort"])
    p = protocol_of(detector.settings["protocol"])
    how = {"protocol": replace(p, min_cases=max(1, p.min_cases)), "seed": seed}
    table = _rated(found, detector.threshold, (), n_resamples=n_resamples, **how)
    return table.assign(protocol=p.name)


def label_error(
    labelled: Cohort, truth: Cohort, attributes: Sequence[str] = (), **options: Any
) -> pd.DataFrame:
    """How far predicted drains are from the truth: AUC, sensitivity, specificity.

    Parameters
    ----------
    labelled : Cohort
        Of :func:`label`; its predicted rows are judged.
    truth : Cohort
        The same images with their drains, such as the phantom before :func:`hide`.
    attributes : columns of ``truth``, such as ``("Pneumothorax",)``: also in their groups
    options : of :func:`cxrlib.stats.fairness.performance_table`, such as ``n_resamples``

    Returns
    -------
    Results table

    Raises
    ------
    ValueError
        Nothing was predicted, or the truth of a predicted image is not known.
    """
    known = truth.table[["image_id", "patient_id", *attributes]].assign(y_true=known_drains(truth))
    columns = ["image_id", "drain", "drain_probability", "drain_source"]
    if absent := [c for c in columns if c not in labelled.table]:
        raise ValueError(f"label_error: no column {absent[0]!r}; label the cohort first")
    found = labelled.table[columns].merge(known, on="image_id", how="left", validate="1:1")
    found = found[found["drain_source"] == "predicted"]
    found = found.rename(columns={"drain_probability": "score"})
    if found.empty:
        raise ValueError("label_error: every drain is annotated; hide some first")
    if unknown := int(found["y_true"].isna().sum()):
        raise ValueError(
            f"label_error: the truth is not known for {unknown} of {len(found)} predicted images; "
            "expected a drain of 0 or 1 for each"
        )
    threshold = labelled.recipe["drains"]["threshold"]
    return _rated(found.assign(cohort=labelled.name), threshold, attributes, **options)


def _rated(found, threshold, attributes, **options):
    """Results rows of predictions with y_true and score."""
    about = {"model": NAME, "method": "supervised", "label": "drain"}
    found = found.assign(**about, y_true=found["y_true"].astype(int))
    options = {"mean_over_labels": False} | options
    decided, rates = fairness.decide(found, threshold=threshold), ("sensitivity", "specificity")
    parts = [
        fairness.performance_table(of, which, attributes, **options)
        for of, which in ((found, ("auc",)), (decided, rates))
    ]
    return schema.results(pd.concat(parts))

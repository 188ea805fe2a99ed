"""Whether corrected numbers cover the truth, on phantoms of which truth and labels are known.

One large phantom population is scored once by phantom-resnet. A study draws patients from it with
replacement, plants wrong labels on their films anew (`cxrlib.cohorts.planted.noted`), has some of
the patients audited, and corrects AUC, sensitivity and specificity at a fixed threshold, and their
gap by sex, with the rates of that audit. Counted is how often the interval holds the value of the
whole population under its true labels; beside it, how often the uncorrected interval does.

Run: python benchmarks/label_error.py [--studies 1000] [--resamples 500] [--processes 2]

Writes counts to label_error.csv beside this file (or to --out) after every design and goes on where
it stopped. The chapter on labels reads that file through `cxrlib.stats.label_error.recorded`. The
table in the repository has 1000 studies of patients audited elsewhere, 400 of the first design and
200 of each other, for want of time: two or three a second on two processor cores.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cxrlib import cohorts
from cxrlib.cohorts import planted
from cxrlib.core import atomic
from cxrlib.predict import zeroshot
from cxrlib.stats import fairness, label_error, metrics

FINDING, MODEL, SPECIFICITY = "Pneumothorax", "phantom-resnet", 0.8
PATIENTS, AUDITED = 2000, 700  # of a study, and those among them whose truth is read
SPARED = {"sex": {"F": 0.5, "M": 0.2}}
DESIGNS = {
    "one rate": {"missed": 0.4, "added": 0.02},
    "rates by sex": {"missed": SPARED, "added": 0.02, "rates_by": "sex"},
    "one rate, other patients audited": {"missed": 0.4, "added": 0.02, "elsewhere": True},
    "one rate, the faint missed": {"missed": 0.4, "added": 0.02, "faint": 1.0},
}
METRICS = ("sensitivity", "specificity", "prevalence")
COUNTS = ("n_studies", "n_undefined", "n_hold", "n_below", "n_above")


def population(n_images):
    """Films with severity, sex, score, and decision at one threshold for all; and the threshold."""
    cohort = cohorts.load("phantom", n_images=n_images)
    scores = zeroshot.predict(cohort, [MODEL], [FINDING])[["image_id", "score"]]
    films = cohort.table[["image_id", "patient_id", "sex", f"severity_{FINDING}"]].merge(scores)
    truth = films[f"severity_{FINDING}"] > 0
    return films, metrics.threshold_at_specificity(truth, films["score"], SPECIFICITY)


def predicted(films, y_true, score):
    about = {"cohort": "study", "model": MODEL, "method": "zero-shot", "label": FINDING}
    kept = films[["image_id", "patient_id", "sex"]]
    return kept.assign(**about, y_true=np.asarray(y_true, int), score=score)


def measured(table, threshold, audit=None, rates_by=None, **sampling):
    """Rows of all metrics, against the labels of a table and corrected by an audit."""
    decided = fairness.decide(table, threshold=threshold)
    how = {"attributes": ("sex",), "rates_by": rates_by, **sampling}
    return pd.concat(
        label_error.corrected_table(of, audit, metrics=names, **how)
        for of, names in ((table, ("auc",)), (decided, METRICS))
    )


def truths(films, threshold):
    """(group, metric) -> the value of the whole population under its true labels."""
    truth = predicted(films, films[f"severity_{FINDING}"] > 0, films["score"])
    exact = {"sensitivity": 1, "positives": 1, "specificity": 1, "negatives": 1}
    audit = label_error.stated({FINDING: exact})
    sampling = {"protocol": "as_published", "n_resamples": 2}
    rows = measured(truth, threshold, audit, **sampling)
    rows = rows[rows["method"] == "zero-shot"].set_index(["group", "metric"])
    return rows["value"]


def drawn(films, rng, n):
    """Patients drawn with replacement, each a patient of its own, with all films."""
    rows = films.groupby("patient_id").indices
    people = rng.choice(sorted(rows), n)
    at = [rows[p] for p in people]
    which = np.repeat(np.arange(n), [len(k) for k in at])
    study = films.iloc[np.concatenate(at)].assign(patient_id=which)
    return study.assign(image_id=[f"{p} {i}" for p, i in enumerate(study["image_id"])])


def study(k, films, threshold, design, n_resamples):
    """Value and interval of everything in study number k."""
    settings = dict(design)
    rates_by, elsewhere = settings.pop("rates_by", None), settings.pop("elsewhere", False)
    rng = np.random.default_rng([1907, k])
    own = drawn(films, rng, PATIENTS)
    noted = planted.noted(own, FINDING, seed=k, **settings)
    table = predicted(own, noted, own["score"])
    read, seen = own[own["patient_id"] < AUDITED], noted[own["patient_id"] < AUDITED]
    if elsewhere:
        read = drawn(films, rng, AUDITED)
        read = read.assign(image_id="other " + read["image_id"])
        read = read.assign(patient_id=read["patient_id"] + PATIENTS)
        seen = planted.noted(read, FINDING, seed=k, **settings)
    audit = predicted(read, read[f"severity_{FINDING}"] > 0, seen)
    return measured(table, threshold, audit, rates_by, n_resamples=n_resamples, seed=k)


def counted(name, films, threshold, n_studies, n_resamples, processes):
    """One row per number: how many of the studies hold the truth, and what they say on average."""
    truth = truths(films, threshold)
    jobs = (range(n_studies), *([x] * n_studies for x in (films, threshold, DESIGNS[name])))
    with ProcessPoolExecutor(processes) as pool:
        found = pool.map(study, *jobs, [n_resamples] * n_studies, chunksize=10)
        table = pd.concat(tqdm(found, total=n_studies, desc=name), ignore_index=True)
    table = table[table["metric"] != "eq_odds_mean"]  # a size: no interval of it holds a 0
    corrected = table["method"].str.endswith(label_error.CORRECTED)
    true = pd.MultiIndex.from_frame(table[["group", "metric"]]).map(truth)
    table = table.assign(truth=true, labels=np.where(corrected, "corrected", "as noted"))
    table = table.assign(
        n_studies=1,
        n_undefined=table["value"].isna(),
        n_hold=table["ci_low"].le(true) & table["ci_high"].ge(true),
        n_below=table["ci_high"].lt(true),
        n_above=table["ci_low"].gt(true),
        width=table["ci_high"] - table["ci_low"],
    )
    how = {c: (c, "sum") for c in COUNTS} | {"mean": ("value", "mean"), "width": ("width", "mean")}
    keys = ["group", "metric", "labels", "truth"]
    out = table.groupby(keys, sort=False).agg(**how).reset_index()
    return out.assign(design=name)[["design", *keys, *COUNTS, "mean", "width"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--images", type=int, default=16000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=label_error.RECORDED)
    given = parser.parse_args()

    settings = {"n_images": given.images, "n_resamples": given.resamples}
    done = pd.read_csv(given.out) if given.out.is_file() else pd.DataFrame(columns=["design"])
    films, threshold = population(given.images)
    for name in DESIGNS:
        if name in set(done["design"]):
            continue
        rows = counted(name, films, threshold, given.studies, given.resamples, given.processes)
        rows = rows.assign(**settings, date=datetime.date.today().isoformat())
        done = pd.concat([done, rows], ignore_index=True)
        write = partial(done.to_csv, index=False, float_format="%.5g")
        atomic.in_one_step(given.out, write)
    print(label_error.recorded(given.out).to_string())


if __name__ == "__main__":
    main()

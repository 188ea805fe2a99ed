"""What methods say of small and crossed groups, where the truth is known.

In the first designs scores are normal and the groups are cells of sex x age x race x site, whose
AUC and sensitivity are planted on the logit scale. In the last ones, patients are drawn with
replacement from a large pool of phantoms, whose own numbers are the truth: once as they are, and
once with findings that are fainter in old women alone, neither in old men nor in young women.

Run: python benchmarks/borrowed.py [--studies 150] [--images 12000] [--processes 2]

Writes counts to borrowed.csv beside this file (or to --out) after every design and goes on where it
stopped. The chapter on crossed groups reads that file through `cxrlib.stats.borrowed.recorded`.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri
from tqdm import tqdm

from cxrlib.core import atomic
from cxrlib.stats import borrowed, metrics

GROUPS = {
    "sex": ("F", "M"),
    "age_group": ("18-25", "25-50", "50-65", "65-80", "80+"),
    "race": ("White", "Black", "Asian"),
    "site": ("A", "B"),
}
CELLS = pd.DataFrame(list(product(*GROUPS.values())), columns=[*GROUPS])
FILMS = np.exp(np.random.default_rng(1907).normal(np.log(90), 0.9, len(CELLS)))  # on average
PREVALENCE, ICC, PER_PATIENT = 0.15, 0.3, 2
MEAN = {"auc": 1.4, "sensitivity": 0.6}  # logits, in the youngest men
SUMS = -0.25 * CELLS["age_group"].map(GROUPS["age_group"].index) - 0.3 * (CELLS["sex"] == "F")
OLD_WOMEN = (CELLS["sex"] == "F") & (CELLS["age_group"] == "80+")
DESIGNS = {
    "nothing": (0, 0, 0),  # factor on the sums, spread of the rest, more in old women
    "sums": (1, 0, 0),
    "sums and some rest": (1, 0.25, 0),
    "sums and much rest": (1, 0.5, 0),
    "sums and old women": (1, 0, -1.2),
}
PHANTOMS = {"phantoms: sums": False, "phantoms: old women alone": True}


def planted(design, metric, rng):
    """(k,) true values of the cells; the rest is drawn anew, as the structured model has it."""
    sums, rest, more = DESIGNS[design]
    alike = borrowed.alike_in(CELLS, borrowed.STRUCTURED)
    u = rest * np.linalg.cholesky(alike) @ rng.standard_normal(len(CELLS))
    return expit(MEAN[metric] + sums * SUMS + u + more * OLD_WOMEN).to_numpy()


def sample(design, metric, seed):
    """Truth (k,), and cell, labels, scores or decisions, patients of the films (n,)."""
    rng = np.random.default_rng([1907, crc32(f"{design} {metric}".encode()), seed])
    truth = planted(design, metric, rng)
    cell = np.repeat(np.arange(len(CELLS)), PER_PATIENT * rng.poisson(FILMS / PER_PATIENT))
    patient = np.arange(len(cell)) // PER_PATIENT
    ill = rng.random(len(cell)) < PREVALENCE
    noise = np.sqrt(ICC) * rng.standard_normal(len(cell))[patient]
    noise = noise + np.sqrt(1 - ICC) * rng.standard_normal(len(cell))
    score = np.sqrt(2) * ndtri(truth[cell]) * ill + noise
    if metric == "sensitivity":
        score = (noise < ndtri(truth[cell])) * 1.0
    return truth, cell, ill, score, patient


def judged(truth, cell, ill, score, patient, cells, metric, special):
    """What each method says of each cell with `FEWEST` ill and healthy films, beside the truth."""
    n_ill, n_well = (np.bincount(cell, side, len(cells)).astype(int) for side in (ill, ~ill))
    kept = (np.minimum(n_ill, n_well) >= borrowed.FEWEST)[cell]
    groups = cells.iloc[cell[kept]]
    seen = borrowed.observed(ill[kept], score[kept], patient[kept], groups, metric)
    at = pd.MultiIndex.from_frame(cells).get_indexer(pd.MultiIndex.from_frame(seen.groups))
    overall = seen.value @ n_ill[at] / n_ill[at].sum()
    rows = []
    for method in borrowed.METHODS:
        of = borrowed.fit(seen, method)
        row = {"method": method, "n_ill": n_ill[at], "truth": truth[at], "special": special[at]}
        row |= {"value": of.value, "low": of.low, "high": of.high, "own": of.own}
        row |= {"claims": (of.low > overall) | (of.high < overall), "range": np.ptp(of.value)}
        rows.append(pd.DataFrame(row))
    return pd.concat(rows)


def study(seed, design, metric):
    return judged(*sample(design, metric, seed), CELLS, metric, OLD_WOMEN.to_numpy())


FINDING, CROSSED = "Pneumothorax", ["sex", "age_group", "site"]


def pool(n_images, alone):
    """Phantoms as they are; or fainter in women from 65 on, and in nobody else."""
    from cxrlib import cohorts
    from cxrlib.cohorts import phantom
    from cxrlib.predict import zeroshot

    cohort = cohorts.load("phantom", n_images=n_images)
    twins = {"plain": phantom.twin(cohort, contrast={})}
    table = zeroshot.beside_twins(cohort, twins, "phantom-resnet", CROSSED)
    table = table[table["label"] == FINDING]
    faint = (table["sex"] == "F") & table["age_group"].isin(["65-80", "80+"])
    if alone:
        return table[(table["model"] == "as drawn") == faint], faint
    return table[table["model"] == "as drawn"], faint


def whole(n_images, alone):
    """The pool as arrays: truth of its cells by metric, the cells, and its films."""
    table, faint = pool(n_images, alone)
    cells = table[CROSSED].astype(str).drop_duplicates().sort_values(CROSSED, ignore_index=True)
    cell = pd.MultiIndex.from_frame(cells).get_indexer(
        pd.MultiIndex.from_frame(table[CROSSED].astype(str))
    )
    special = np.bincount(cell, faint.reindex(table.index), len(cells)) > 0
    ill, score = table["y_true"].to_numpy(bool), table["score"].to_numpy(float)
    yes = (score > metrics.threshold_at_specificity(ill, score, 0.8)) * 1.0
    truth = {"auc": [], "sensitivity": []}
    from sklearn.metrics import roc_auc_score

    for k in range(len(cells)):
        own = cell == k
        both = 0 < ill[own].sum() < own.sum()
        truth["auc"].append(roc_auc_score(ill[own], score[own]) if both else np.nan)
        truth["sensitivity"].append(yes[own & ill].mean() if ill[own].any() else np.nan)
    people = table.groupby("patient_id").indices
    scores = {"auc": score, "sensitivity": yes}
    return {m: np.array(t) for m, t in truth.items()}, cells, special, cell, ill, scores, people


def study_of_pool(seed, films, metric, n_patients=1200):
    """Patients drawn with replacement, each a patient of its own with all its films."""
    truth, cells, special, cell, ill, scores, people = films
    rng = np.random.default_rng([1907, seed])
    drawn = [people[p] for p in rng.choice(sorted(people), n_patients)]
    at, patient = np.concatenate(drawn), np.repeat(np.arange(n_patients), [len(d) for d in drawn])
    of_study = cell[at], ill[at], scores[metric][at], patient
    return judged(truth[metric], *of_study, cells, metric, special)


def counted(found, design, metric):
    """One row per method, size of a cell, and whether it is one of the old women's."""
    table = pd.concat(found, ignore_index=True)
    size = pd.cut(table["n_ill"], [*borrowed.SIZES.values(), np.inf], right=False)
    size = size.cat.rename_categories(list(borrowed.SIZES)).astype(str)
    error = table["value"] - table["truth"]
    table = table.assign(
        size=size,
        n_studies=1,
        n_undefined=0,
        n_hold=(table["low"] <= table["truth"]) & (table["truth"] <= table["high"]),
        n_below=table["high"] < table["truth"],
        n_above=table["low"] > table["truth"],
        n_claims=table["claims"],
        error=error,
        squares=error**2,
        width=table["high"] - table["low"],
    )
    sums = ["n_studies", "n_undefined", "n_hold", "n_below", "n_above", "n_claims", "squares"]
    how = {c: (c, "sum") for c in sums} | {
        c: (c, "mean") for c in ("error", "width", "own", "range")
    }
    out = table.groupby(["method", "special", "size"], sort=False).agg(**how).reset_index()
    return out.assign(design=design, metric=metric)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=150)
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--designs", nargs="+", default=[*DESIGNS, *PHANTOMS])
    parser.add_argument("--out", type=Path, default=borrowed.RECORDED)
    given = parser.parse_args()

    done = pd.read_csv(given.out) if given.out.is_file() else pd.DataFrame(columns=["design"])
    for design in given.designs:
        if design in set(done["design"]):
            continue
        films = whole(given.images, PHANTOMS[design]) if design in PHANTOMS else None
        for metric in borrowed.METRICS:
            one = partial(study, design=design, metric=metric)
            if films:
                one = partial(study_of_pool, films=films, metric=metric)
            with ProcessPoolExecutor(given.processes) as workers:
                found = workers.map(one, range(given.studies), chunksize=5)
                rows = counted(list(tqdm(found, design, given.studies)), design, metric)
            rows = rows.assign(date=datetime.date.today().isoformat())
            done = pd.concat([done, rows], ignore_index=True)
        write = partial(done.to_csv, index=False, float_format="%.5g")
        atomic.in_one_step(given.out, write)
    print(borrowed.recorded(given.out).to_string())


if __name__ == "__main__":
    main()

"""Whether intervals of the parts of a gap cover the truth, where the truth is known.

In the first designs scores are normal and films come in few kinds, so that the gap under every set
of switches is a closed form (`truth`), written without the library. In the last one, patients are
drawn with replacement from a large pool of phantoms, whose own parts are the truth.

Run: python benchmarks/gap_parts.py [--studies 110] [--images 8000] [--processes 2]

Writes counts to gap_parts.csv beside this file (or to --out) after every design and goes on where
it stopped. The chapter on the parts of a gap reads that file through
`cxrlib.stats.gap_parts.recorded`. The table in the repository has the designs that time allowed
for; --designs names some, and a design that is there is not done again.
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
from scipy.special import ndtr
from tqdm import tqdm

from cxrlib.core import atomic
from cxrlib.stats import gap_parts

METRICS = ("sensitivity", "auc", "average_precision", "ppv")
MIX = {"severity": "severity", "view": "view"}
TWINS = {"plain": ["appearance"], "one site": ["site"], "both": ["appearance", "site"]}
SWITCHES = ("prevalence", "severity", "view", "appearance", "site", "annotation")
THRESHOLD, ICC, COUNTS = 0.9, 0.3, ("n_studies", "n_undefined", "n_hold", "n_below", "n_above")

# Of a group: share of the ill; shares of three severities among them; share of AP views among the
# healthy and the ill; factor on what is seen; share of a second scanner; share left out of labels.
ALIKE = {
    "prevalence": 0.25,
    "severity": (0.4, 0.3, 0.3),
    "view": (0.2, 0.3),
    "appearance": 0.9,
    "site": 0.3,
    "annotation": 0.15,
}
OTHER = {
    "prevalence": 0.4,
    "severity": (0.2, 0.3, 0.5),
    "view": (0.4, 0.6),
    "appearance": 0.65,
    "site": 0.7,
    "annotation": 0.4,
}
DESIGNS = {
    "nothing": (),
    "everything": SWITCHES,
    "appearance": ("appearance",),
    "annotation": ("annotation",),
    "severity and view": ("severity", "view"),
    "prevalence and site": ("prevalence", "site"),
}
PHANTOM = "phantoms: appearance and annotation"


def groups(design):
    """The settings of groups A and B: A differs in what is planted."""
    return ALIKE | {name: OTHER[name] for name in DESIGNS[design]}, ALIKE


# --- the closed form --------------------------------------------------------------------------


def mean_score(ill, severity, view, site, factor):
    """Mean of the score, whose spread is 1; the scanner moves the ill and the healthy."""
    return ill * (0.8 + 0.9 * severity) * factor - 0.5 * view * ill + 0.6 * site


def kinds(of, thrown):
    """Every kind of film in a group: share, noted, stratum and mean score, as a table."""
    rows = []
    for ill, s, v, site, missed in product((0, 1), range(3), (0, 1), (0, 1), (0, 1)):
        share = of["prevalence"] if ill else 1 - of["prevalence"]
        share *= of["severity"][s] if ill else float(s == 0)
        share *= of["view"][ill] if v else 1 - of["view"][ill]
        share *= of["site"] if site else 1 - of["site"]
        share *= (of["annotation"] if missed else 1 - of["annotation"]) if ill else 1 - missed
        noted = ill and ("annotation" in thrown or not missed)
        stratum = (s if noted and "severity" in thrown else 0, v if "view" in thrown else 0)
        factor = 1.0 if "appearance" in thrown else of["appearance"]
        mean = mean_score(ill, s, v, 0 if "site" in thrown else site, factor)
        rows.append((share, bool(noted), stratum, mean))
    return pd.DataFrame(rows, columns=["share", "noted", "stratum", "mean"])


def values(films):
    """Metrics of a mixture of normal scores, by their formulas."""
    ill, well = films[films["noted"]], films[~films["noted"]]
    p = ill["share"].sum()
    w, v = ill["share"].to_numpy() / p, well["share"].to_numpy() / (1 - p)
    above = lambda of, share, x: share @ ndtr(of["mean"].to_numpy()[:, None] - x)  # noqa: E731
    tpr, fpr = (above(*side, np.array([THRESHOLD]))[0] for side in ((ill, w), (well, v)))
    apart = ill["mean"].to_numpy()[:, None] - well["mean"].to_numpy()
    x = np.linspace(-6, 9, 1501)
    hit, alarm = above(ill, w, x), above(well, v, x)
    precision = p * hit / (p * hit + (1 - p) * alarm)
    return {
        "sensitivity": tpr,
        "auc": w @ ndtr(apart / np.sqrt(2)) @ v,
        "average_precision": np.sum((precision[1:] + precision[:-1]) / 2 * -np.diff(hit)),
        "ppv": p * tpr / (p * tpr + (1 - p) * fpr),
    }


def truth(design):
    """metric -> part -> its value in an endless study."""
    a, b = groups(design)
    gaps = {metric: {} for metric in METRICS}
    for thrown in gap_parts.coalitions(SWITCHES):
        films, other = kinds(a, thrown), kinds(b, thrown)
        for column, name in (("stratum", "mix"), ("noted", "prevalence")):
            if name == "mix" and not thrown & set(MIX):
                continue
            if name == "prevalence" and name not in thrown:
                continue
            keys = ["noted", "stratum"] if column == "stratum" else ["noted"]
            now, aim = (t.groupby(keys)["share"].sum() for t in (films, other))
            if name == "mix":  # within each class
                now, aim = (t / t.groupby("noted").transform("sum") for t in (now, aim))
            ratio = (aim / now).rename("ratio").reset_index()
            films = films.merge(ratio, on=keys)
            films["share"] *= films.pop("ratio")
        ends = values(films), values(other)
        for metric in METRICS:
            gaps[metric][thrown] = ends[0][metric] - ends[1][metric]
    return {metric: gap_parts.parts(gaps[metric], SWITCHES) for metric in METRICS}


# --- studies ----------------------------------------------------------------------------------


def sample(design, seed, n_patients=1200):
    """A predictions table of films of patients, two each, with twins and complete labels."""
    rng = np.random.default_rng([1907, crc32(design.encode()), seed])  # designs share no luck
    tables = []
    for name, of in zip("AB", groups(design), strict=True):
        n = n_patients  # films of a group: half as many patients
        patient = np.arange(n) // 2
        ill = rng.random(n) < of["prevalence"]
        severity = rng.choice(3, n, p=of["severity"]) * ill
        view = rng.random(n) < np.where(ill, of["view"][1], of["view"][0])
        site = rng.random(n) < of["site"]
        missed = rng.random(n) < of["annotation"]
        noise = np.sqrt(ICC) * rng.normal(size=n // 2 + 1)[patient]
        noise = noise + np.sqrt(1 - ICC) * rng.normal(size=n)
        films = pd.DataFrame({"image_id": np.arange(n), "patient_id": patient})
        films = films.map(lambda x, g=name: f"{g}{x}")
        films = films.assign(group=name, severity=severity, view=np.where(view, "AP", "PA"))
        films = films.assign(y_true=(ill & ~missed) * 1, complete=ill * 1)
        for model, thrown in {"as drawn": [], **TWINS}.items():
            factor = 1.0 if "appearance" in thrown else of["appearance"]
            seen = 0 if "site" in thrown else site
            score = mean_score(ill, severity, view, seen, factor) + noise
            tables.append(films.assign(model=model, score=score))
    return pd.concat(tables).assign(cohort="normal", method="simulated", label="ill")


def split(table, **how):
    how = {"mix": MIX, "twins": TWINS, "complete": "complete", "metrics": METRICS} | how
    return gap_parts.table(gap_parts.split(table, *how.pop("of"), **how))


def study(design, seed):
    """The parts of a study drawn anew."""
    table = sample(design, seed)
    return split(table, of=("group", ("A", "B")), thresholds={"ill": THRESHOLD})


SILENT = {"underreport": {"age_group": {"65-80": 0.3, "80+": 0.3}}}
FINDING = "Pneumothorax"


def pool(n_images):
    """Phantoms of which findings of the old are fainter and left out of labels, with twins."""
    from cxrlib import cohorts
    from cxrlib.cohorts import metadata, phantom
    from cxrlib.predict import zeroshot

    cohort = cohorts.load("phantom", n_images=n_images)
    plain = {"contrast": {}}
    twins = {
        name: phantom.twin(cohort, **plain if "appearance" in thrown else {}, **site)
        for name, thrown in TWINS.items()
        for site in ({"site_signature": 0.0} if "site" in thrown else {},)
    }
    table = zeroshot.beside_twins(cohort, twins, "phantom-resnet", ["age", "view"])
    table = gap_parts.with_severity(table[table["label"] == FINDING], cohort.table)
    noted = phantom.twin(cohort, **SILENT).table.set_index("image_id")[FINDING]
    table["age60"] = metadata.young_or_old(table["age"])
    table["complete"] = table["y_true"]
    return table.assign(y_true=table["image_id"].map(noted).astype(int))


OF_POOL = {"of": ("age60", ("old", "young"))}


def drawn(table, seed, n=1500):
    """Patients drawn with replacement, each a patient of its own, with all films and twins."""
    rows = table.groupby("patient_id").indices
    people = np.random.default_rng([1907, seed]).choice(sorted(rows), n)
    at = [rows[p] for p in people]
    which = np.repeat(np.arange(n), [len(k) for k in at])
    study = table.iloc[np.concatenate(at)].assign(patient_id=which)
    names = [f"{p} {i}" for p, i in zip(which, study["image_id"], strict=True)]
    return study.assign(image_id=names)


def study_of_pool(seed, table, thresholds):
    return split(drawn(table, seed), **OF_POOL, thresholds=thresholds)


def counted(design, found, true, planted):
    """One row per metric and part: how many of the studies hold the truth, how many hold 0."""
    table = pd.concat(list(found), ignore_index=True)
    table = table[(table["label"] == "ill") | (table["label"] == FINDING)]
    table = table[~table["note"].str.startswith(gap_parts.CANNOT)]
    at = [true[m][part] for m, part in zip(table["metric"], table["method"], strict=True)]
    at = np.round(at, 12) + 0.0  # 0 where nothing was planted
    low, high = table["ci_low"], table["ci_high"]
    table = table.assign(
        part=table["method"],
        truth=at,
        n_studies=1,
        n_undefined=table["value"].isna(),
        n_hold=low.le(at + 1e-12) & high.ge(at - 1e-12),
        n_below=high.lt(at - 1e-12),
        n_above=low.gt(at + 1e-12),
        n_zero=low.le(1e-12) & high.ge(-1e-12),
        width=high - low,
    )
    how = {c: (c, "sum") for c in (*COUNTS, "n_zero")}
    how |= {"mean": ("value", "mean"), "width": ("width", "mean")}
    keys = ["metric", "part", "truth"]
    out = table.groupby(keys, sort=False).agg(**how).reset_index()
    out["planted"] = out["part"].isin(planted)
    return out.assign(design=design)[["design", *keys, "planted", *how]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=110)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--designs", nargs="+", default=[*DESIGNS, PHANTOM])
    parser.add_argument("--out", type=Path, default=gap_parts.RECORDED)
    given = parser.parse_args()

    done = pd.read_csv(given.out) if given.out.is_file() else pd.DataFrame(columns=["design"])
    for design in given.designs:
        if design in set(done["design"]):
            continue
        with ProcessPoolExecutor(given.processes) as workers:
            if design == PHANTOM:
                table = pool(given.images)
                first = table[table["model"] == "as drawn"]
                limit = {FINDING: gap_parts.threshold(first, 0.8)}
                one = partial(study_of_pool, table=table, thresholds=limit)
                whole = split(table, **OF_POOL, thresholds=limit)
                whole = whole[whole["label"] == FINDING].dropna(subset="value")
                true = {m: rows.set_index("method")["value"] for m, rows in whole.groupby("metric")}
                planted = ("appearance", "annotation")
            else:
                one, true, planted = partial(study, design), truth(design), DESIGNS[design]
            found = workers.map(one, range(given.studies), chunksize=5)
            found = tqdm(found, total=given.studies, desc=design)
            rows = counted(design, found, true, planted)
        rows = rows.assign(date=datetime.date.today().isoformat())
        done = pd.concat([done, rows], ignore_index=True)
        write = partial(done.to_csv, index=False, float_format="%.5g")
        atomic.in_one_step(given.out, write)
    print(gap_parts.recorded(given.out).to_string())


if __name__ == "__main__":
    main()

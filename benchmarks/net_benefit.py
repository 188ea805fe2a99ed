"""Whether intervals of net benefit, missed cases and false alarms hold the truth, by events.

Scores are normal, so that every truth has a formula (`truth`). Patients have two films each, whose
illness and noise are alike; two models see the same films. The threshold is that of a device which
is calibrated in group A.

Run: python benchmarks/net_benefit.py [--studies 2000] [--processes 2]

Writes counts to net_benefit.csv beside this file (or to --out), a design at a time, and goes on
where it stopped. The chapter on net benefit reads it by `cxrlib.stats.net_benefit.recorded`.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit, ndtr
from tqdm import tqdm

from cxrlib.core import atomic
from cxrlib.stats import influence, net_benefit

# Of groups A and B: prevalence, and how far the ill lie above the healthy in model 1 and model 2.
DESIGNS = {
    "alike": {"A": (0.15, 1.5, 1.5), "B": (0.15, 1.5, 1.5)},
    "B is fainter and iller": {"A": (0.1, 1.8, 1.5), "B": (0.2, 1.2, 1.1)},
    "B is fainter and healthier": {"A": (0.2, 1.8, 1.5), "B": (0.06, 1.2, 1.1)},
}
EVENTS = (10, 20, 30, 60, 120)  # expected ill films in B; A has as many
RATIOS = (2, 9, 19)
ONE = 0.1  # the prevalence at which groups are compared
ICC, SHARED, ALIKE = 0.3, 0.6, 0.5  # of films of a patient; of noise of models; of illness
METRICS = ("net_benefit", "missed_cases", "false_alarms")
WHAT = ("A - B", "A - B at one prevalence", "B", "model 1 - model 2 in B")
COUNTS = ("n_studies", "n_undefined", "n_hold", "n_below", "n_above")


def cut(design, ratio):
    """The score at which the risk in group A, by model 1, is 1 / (1 + harm ratio)."""
    prevalence, apart, _ = DESIGNS[design]["A"]
    return (logit(1 / (1 + ratio)) - logit(prevalence)) / apart + apart / 2


def truth(design, ratio):
    """(what, metric) -> its value in an endless study, per 1,000."""

    def values(prevalence, apart):
        tpr, fpr = ndtr(apart - cut(design, ratio)), ndtr(-cut(design, ratio))
        missed, false = 1000 * prevalence * (1 - tpr), 1000 * (1 - prevalence) * fpr
        return np.array([1000 * prevalence - missed - false / ratio, missed, false])

    (p, d, _), (q, e, other) = (DESIGNS[design][g] for g in "AB")
    of = (
        values(p, d) - values(q, e),
        values(ONE, d) - values(ONE, e),
        values(q, e),
        values(q, e) - values(q, other),
    )
    return dict(zip(product(WHAT, METRICS), np.concatenate(of), strict=True))


def sample(design, events, seed):
    """Films of patients, two each: group, patient, ill (n,), scores of two models (n, 2)."""
    rng = np.random.default_rng([1907, list(DESIGNS).index(design), events, seed])
    parts = []
    for name, (prevalence, *apart) in DESIGNS[design].items():
        m = round(events / prevalence / 2)  # patients
        of_patient = rng.random(m) < prevalence
        ill = np.where(
            rng.random((m, 2)) < ALIKE, of_patient[:, None], rng.random((m, 2)) < prevalence
        )
        noise = ICC**0.5 * rng.normal(size=(m, 1, 1)) + (1 - ICC) ** 0.5 * (
            SHARED**0.5 * rng.normal(size=(m, 2, 1))
            + (1 - SHARED) ** 0.5 * rng.normal(size=(m, 2, 2))
        )
        score = noise + ill[:, :, None] * np.array(apart)
        parts.append((np.full(2 * m, name), np.repeat(np.arange(m), 2), ill.ravel(), score))
    group, patient, ill, score = zip(*parts, strict=True)
    patient = np.concatenate([patient[0], patient[1] + patient[0].max() + 1])
    score = np.concatenate([s.reshape(-1, 2) for s in score])
    return np.concatenate(group), patient, np.concatenate(ill), score


def study(seed, design, events):
    """(ratio, what, metric) -> value and interval, NaN where undefined, of a study drawn anew."""
    group, patient, ill, score = sample(design, events, seed)
    out = {}
    for ratio, metric in product(RATIOS, METRICS):
        yes = score > cut(design, ratio)
        ask = partial(net_benefit.METRICS[metric], ill)
        a, b = group == "A", group == "B"
        try:
            own = ask(yes[:, 0], ratio, b)
            found = (
                ask(yes[:, 0], ratio, a) - own,
                ask(yes[:, 0], ratio, a, ONE) - ask(yes[:, 0], ratio, b, ONE),
                own,
                own - ask(yes[:, 1], ratio, b),
            )
        except ValueError:  # nobody is ill
            found = [influence.Estimate(np.nan, np.zeros(len(ill)))] * len(WHAT)
        for what, estimate in zip(WHAT, found, strict=True):
            low, high = influence.interval(estimate, patient)
            if low == high:  # the book shows none
                low = high = np.nan
            out[ratio, what, metric] = estimate.value, low, high
    return out


def counted(design, events, found):
    """One row per harm ratio, what is estimated, and metric."""
    rows = []
    for key in found[0]:
        ratio, *where = key
        value, low, high = np.array([one[key] for one in found]).T
        true = truth(design, ratio)[tuple(where)]
        given = ~np.isnan(low)
        row = dict(zip(("harm_ratio", "what", "metric"), key, strict=True))
        row |= {"design": design, "events": events, "truth": true, "n_studies": len(found)}
        row |= {"n_undefined": (~given).sum(), "n_below": (high < true).sum()}
        row |= {"n_above": (low > true).sum(), "n_hold": ((low <= true) & (high >= true)).sum()}
        rows.append(row | {"mean": np.nanmean(value), "width": np.nanmean(high - low)})
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=net_benefit.RECORDED)
    given = parser.parse_args()
    keys = ["design", "events"]
    done = pd.read_csv(given.out) if given.out.is_file() else pd.DataFrame(columns=keys)
    for design, events in product(DESIGNS, EVENTS):
        if ((done["design"] == design) & (done["events"] == events)).any():
            continue
        one = partial(study, design=design, events=events)
        with ProcessPoolExecutor(given.processes) as workers:
            found = workers.map(one, range(given.studies), chunksize=20)
            rows = counted(design, events, list(tqdm(found, total=given.studies, desc=design)))
        rows = rows.assign(date=datetime.date.today().isoformat())
        done = rows if done.empty else pd.concat([done, rows], ignore_index=True)
        write = partial(done.to_csv, index=False, float_format="%.6g")
        atomic.in_one_step(given.out, write)
    print(net_benefit.recorded(given.out).to_string())


if __name__ == "__main__":
    main()

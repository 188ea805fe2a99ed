"""How often watches cry wolf on fair streams, and how soon they find a planted gap.

Streams of ill patients of two groups, each with the share of the findings that was found. In fair
ones the groups are served alike; in others one loses 0.10 of its sensitivity from some patient on.
Beside the bets stand the usual test after every patient and every hundred, the plan with one test
at its end, that with four looks on the way, and that with a test of each batch. All are one-sided,
at a level of 0.05.

Run: python benchmarks/watch.py [--streams 5000] [--patients 4000]

Writes watch.csv beside this file (or --out), in a few minutes. The chapter on watching reads it
through `cxrlib.stats.watch.recorded`.
"""

import argparse
import datetime
from functools import cache, partial
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.special import ndtr

from cxrlib.core import atomic
from cxrlib.stats import watch

LEVEL, GAP, SENSITIVITY, BATCH = 0.05, 0.10, 0.8, 100
LOOKS, AT_ONCE = 4, 1000
USUAL = {"share": 0.5, "sizes": (1, 1), "findings": 1, "start": None, "both_fall": None}
# share: of the second group, whose findings are lost from patient `start` on; sizes: of blocks;
# findings: of a patient; both_fall: patient from whom on both groups lose the same.
DESIGNS = {
    "fair": {},
    "fair, one in four": {"share": 0.25, "sizes": (3, 1)},
    "fair, three findings a patient": {"findings": 3},
    "fair, both groups fall": {"both_fall": 1000},
    "gap from the first patient": {"start": 0},
    "gap from the first patient, one in four": {"start": 0, "share": 0.25, "sizes": (3, 1)},
    "gap from the first patient, three findings": {"start": 0, "findings": 3},
    "gap from patient 500": {"start": 500},
    "gap from patient 1000": {"start": 1000},
    "promise kept": {"start": None},
    "promise broken from the first patient": {"start": 0},
    "promise broken from patient 500": {"start": 500},
}
ONE_GROUP = ("promise kept", "promise broken")  # is sensitivity at least what was promised?


def streams(of, n_streams, n_patients, rng):
    """values and second (n_streams, n_patients): share found, and who is of the second group."""
    second = rng.random((n_streams, n_patients)) < of["share"]
    sensitivity = np.full((n_streams, n_patients), SENSITIVITY)
    if of["start"] is not None:
        sensitivity[:, of["start"] :] -= GAP * second[:, of["start"] :]
    if of["both_fall"] is not None:
        sensitivity[:, of["both_fall"] :] -= GAP
    if of["findings"] > 1:  # patients differ: some are easy, others hard
        sensitivity = rng.beta(2 * sensitivity, 2 * (1 - sensitivity))
    return rng.binomial(of["findings"], sensitivity) / of["findings"], second


def compared(of, values, second):
    """Payoffs (n_streams, n_blocks) against "the gap is at most 0", and who had come by then."""
    made = [
        watch.blocks(v, np.where(s, "second", "first"), ("first", "second"), of["sizes"])
        for v, s in zip(values, second, strict=True)
    ]
    n = min(map(len, made))
    payoff, patient = (np.stack([b[c].to_numpy()[:n] for b in made]) for c in made[0])
    return payoff, patient


def first(alarms, patient):
    """The patient of the first alarm (n_streams,), inf without one."""
    at = np.where(alarms.any(1), alarms.argmax(1), 0)
    return np.where(alarms.any(1), patient[np.arange(len(at)), at], np.inf)


@cache
def limits(looks):
    """Of p-values at looks after equal parts: O'Brien and Fleming 1979, for one side.

    A look k counts if its z, times the root of k / looks, is above what the largest of these is in
    `LEVEL` of a million fair studies.
    """
    parts = np.random.default_rng(1907).normal(size=(1_000_000, looks))
    scaled = np.cumsum(parts, 1) / np.sqrt(looks)
    edge = np.quantile(scaled.max(1), 1 - LEVEL)
    return 1 - ndtr(edge * np.sqrt(looks / np.arange(1, looks + 1)))


def methods(payoff, patient, most_lost, variance):
    """Method -> patient of its first alarm (n_streams,)."""
    p, n = watch.p_values(payoff), payoff.shape[1]
    stake = watch.stake(GAP, variance, most_lost)
    counted = np.arange(1, n + 1)
    every = BATCH // round(patient[0, -1] / n)  # blocks in a hundred patients
    found = {
        "bets, after every patient": watch.wealth(payoff, most_lost, stake) >= 1 / LEVEL,
        "usual test, after every patient": (p < LEVEL) & (counted >= 30),
        "usual test, every 100 patients": (p < LEVEL) & (counted % every == 0),
    }
    for power in (0.8, 0.9):
        at_end = counted == watch.planned_size(GAP, variance, LEVEL, power)
        found[f"one test, planned for {100 * power:.0f} % power"] = (p < LEVEL) & at_end
    planned = watch.planned_size(GAP, variance, LEVEL, 0.8)
    found["four planned looks"] = np.zeros_like(p, bool)
    for look, limit in enumerate(limits(LOOKS), 1):
        at = planned * look // LOOKS - 1
        found["four planned looks"][:, at] = p[:, at] < limit
    size = 1  # of a batch: the more of them, the lower the level of each, and the larger it is
    while size < watch.planned_size(GAP, variance, LEVEL / (n // size), 0.8):
        size += 1
    batches = payoff[:, : n // size * size].reshape(len(payoff), -1, size)
    last = watch.p_values(batches)[:, :, -1] < LEVEL / batches.shape[1]
    found["a test of each batch, levels shared"] = np.zeros_like(p, bool)
    found["a test of each batch, levels shared"][:, size - 1 : n // size * size : size] = last
    return {method: first(alarms, patient) for method, alarms in found.items()}


def alarms(name, seed, n_streams, n_patients):
    """Method -> patient of its first alarm (n_streams,), in streams of a design.

    Bets and plans are told the same: the gap that is worth finding, and the variance it comes with.
    """
    of, rng = USUAL | DESIGNS[name], np.random.default_rng([1907, crc32(name.encode()), seed])
    before, after = (p * (1 - p) for p in (SENSITIVITY, SENSITIVITY - GAP))
    if name.startswith(ONE_GROUP):
        values, _ = streams(of | {"share": 1.0}, n_streams, n_patients, rng)
        patient = np.broadcast_to(np.arange(1, n_patients + 1), values.shape)
        return methods(SENSITIVITY - values, patient, 1 - SENSITIVITY, after)
    payoff, patient = compared(of, *streams(of, n_streams, n_patients, rng))
    return methods(payoff, patient, 1.0, before / of["sizes"][0] + after / of["sizes"][1])


def study(name, n_streams, n_patients):
    """Rows of a design, one per method."""
    parts = [alarms(name, k, AT_ONCE, n_patients) for k in range(-(-n_streams // AT_ONCE))]
    n_streams, start = len(parts) * AT_ONCE, DESIGNS[name].get("start")
    start = np.inf if start is None else start
    rows = []
    for method in parts[0]:
        at = np.concatenate([part[method] for part in parts])
        after = np.where(at > start, at - start, np.inf) if np.isfinite(start) else at
        low, median, high = np.quantile(after, (0.25, 0.5, 0.75), method="inverted_cdf")
        rows.append(
            {
                "design": name,
                "method": method,
                "gap": GAP if np.isfinite(start) else 0.0,
                "start": start if np.isfinite(start) else None,
                "n_streams": n_streams,
                "n_patients": n_patients,
                "n_false": int(
                    (at <= start).sum() if np.isfinite(start) else np.isfinite(at).sum()
                ),
                "n_found": int(np.isfinite(after).sum() if np.isfinite(start) else 0),
                "lower_quartile": low,
                "median": median,
                "upper_quartile": high,
            }
        )
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--patients", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=watch.RECORDED)
    given = parser.parse_args()
    table = pd.concat(study(name, given.streams, given.patients) for name in DESIGNS)
    table["date"] = datetime.date.today().isoformat()
    write = partial(table.to_csv, index=False, float_format="%.5g")
    atomic.in_one_step(given.out, write)
    print(table.drop(columns=["gap", "n_streams", "n_patients", "date"]).to_string(index=False))


if __name__ == "__main__":
    main()

"""How often nominal 95 % intervals hold the truth, on the full grid of designs.

Run: python benchmarks/coverage.py [--simulations 1000] [--resamples 500] [--processes 2]

Writes the counts to coverage.csv beside this file after every design (or to --out), so a run that
was cut off goes on where it stopped, and a new kind of interval is added alone;
`cxrlib.stats.simulate.shares` turns counts into shares. The table in the repository comes from
these defaults, on a machine with two processor cores; one process took half an hour, the analytic
intervals a few minutes. The chapter on coverage computes its own, smaller, grid and does not read
this file.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cxrlib.stats import simulate

DESIGN = ["n_images", "images_per_patient", "icc", "prevalence", "auc"]
ORDER = ["auc", "images_per_patient", "icc", "n_images", "prevalence"]


def key(row):
    """What tells two designs apart in the file."""
    return tuple(str(row[c]) for c in DESIGN)


def counted(design, settings, methods):
    table = simulate.coverage(design, **settings, methods=methods)
    return table.drop(columns=["coverage", "coverage_low", "coverage_high", "undefined"]).assign(
        **settings, images_per_patient=str(design.images_per_patient)
    )


def written(path, settings):
    """The designs of an earlier run with the same settings."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path, dtype={"images_per_patient": str})
    for name, value in settings.items():
        if set(table[name]) != {value}:
            raise SystemExit(
                f"{path}: {name} is {table[name].iloc[0]}, not {value}; move the file away, or "
                "give another --out."
            )
    return table


def write(table, path):
    part = path.with_suffix(".part")
    table.sort_values(ORDER, kind="stable").to_csv(part, index=False, float_format="%.6g")
    os.replace(part, path)


def report(table):
    pooled = simulate.by_positive_patients(table)
    percent = pooled.assign(interval=pooled["unit"] + " " + pooled["method"])
    percent["coverage"] = (100 * percent["coverage"]).round(1)
    keys = ["metric", "positive_patients"]
    print(percent.pivot(index=keys, columns="interval", values="coverage").to_string())
    print(pooled.groupby("positive_patients", observed=True)["n_designs"].first().to_string())
    expected = (table["n_images"] * table["prevalence"]).round(3)  # positive images
    enough = simulate.shares(table[(expected >= 30) & (table["metric"] == "auc")])
    low, high = simulate.BAND
    for (unit, method), rows in enough.groupby(["unit", "method"], sort=False):
        inside = rows["coverage"].between(low, high).sum()
        outside = ((rows["coverage_high"] < low) | (rows["coverage_low"] > high)).sum()
        print(
            f"AUC, 30 or more positive images expected, {unit} {method}: {inside} of {len(rows)} "
            f"designs within {low} to {high}, {outside} outside beyond Monte Carlo error; within "
            f"from this many positive patients on: "
            f"{simulate.trusted_from(pooled, 'auc', unit, method)}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    settings = {"n_simulations": given.simulations, "n_resamples": given.resamples, "seed": 1907}

    table = written(given.out, settings)
    done = {(key(row), row["unit"], row["method"]) for _, row in table.iterrows()}
    missing = {}
    for design in simulate.grid("full"):
        about = key({c: getattr(design, c) for c in DESIGN})
        if methods := [kind for kind in simulate.METHODS if (about, *kind) not in done]:
            missing[design] = methods
    with ProcessPoolExecutor(given.processes) as pool:
        jobs = [pool.submit(counted, design, settings, kinds) for design, kinds in missing.items()]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="design"):
            table = pd.concat([table, job.result()], ignore_index=True)
            write(table, given.out)
    report(table)


if __name__ == "__main__":
    main()

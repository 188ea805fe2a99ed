"""Whether the court's verdicts hold for other patients: remedy x bias x seed.

Every seed draws other phantoms, to fit remedies on and to test them. The verdicts of one seed are
those of the chapter on the court with that seed. Where two seeds contradict each other, the rule of
`cxrlib.stats.court_rule` calls surer than it may.

Run: python benchmarks/court.py [--seeds 301 302 303] [--images 4000] [--twins 1500]

Writes one row per seed, bias and remedy to court.csv beside this file (or to --out), after every
case, and goes on where it stopped. The bars of the rule were chosen by seed 101
(`court.BARS_SET_ON`), its intervals learned on 102 to 105 and 201 to 205, which are not recorded;
the others only tried it. A seed takes about a minute on one processor core,
and one to two more for embeddings that are not stored.
`cxrlib.predict.court.recorded_trials` reads the file.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pandas as pd

from cxrlib.core import atomic
from cxrlib.predict import charges, court
from cxrlib.predict.remedies import KNOWN
from cxrlib.stats import influence

KEYS = ["seed", "bias", "remedy"]
NUMBERS = ("share_left", "order", "worst_order", "brier", "new_harm", "new_order", "new_worst")


def row(case, trial):
    """Numbers with their standard errors, and the words."""
    if isinstance(trial, str):
        return {"note": trial}
    found = {}
    for name in NUMBERS:
        estimate = getattr(trial, name)
        if estimate is not None:
            found[name] = round(estimate.value, 4)
            found[f"{name}_se"] = round(influence.standard_error(estimate, case.units), 4)
    return found | court.verdict(case, trial)._asdict()


def main(seeds, images, twins, names, out):
    table = pd.read_csv(out, keep_default_na=False) if out.exists() else pd.DataFrame(columns=KEYS)
    for seed in seeds:
        done = set(map(tuple, table.loc[table["seed"] == seed, ["bias", "remedy"]].to_numpy()))
        if all((bias, name) in done for bias in charges.BIASES.values() for name in names):
            continue
        for case in charges.planted(images, twins, seed):
            left = [name for name in names if (case.bias, name) not in done]
            for (bias, name), trial in court.trials([case], KNOWN, left).items():
                new = {"seed": seed, "bias": bias, "remedy": name} | row(case, trial)
                table = pd.concat([table, pd.DataFrame([new])], ignore_index=True)
            atomic.write(out, table.to_csv(index=False).encode())
            print(seed, case.bias, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 301, 302, 303, 304, 305])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--twins", type=int, default=1500)
    parser.add_argument("--remedies", nargs="+", default=court.names_of_trials(KNOWN))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("court.csv"))
    given = parser.parse_args()
    main(given.seeds, given.images, given.twins, given.remedies, given.out)

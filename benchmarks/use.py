"""Whether estimators of use that need no twin say what twins say, on phantoms of twenty seeds.

For each seed a cohort is drawn. Of each small CLIP and attribute the twins tell whether the score
of pneumothorax moves with the attribute, a probe whether it is encoded, and each estimator of
`cxrlib.predict.use` says what it says without twins. The bars are those of
`cxrlib.stats.use_rule`; no seed is that of the book.

Run: python benchmarks/use.py [--seeds 20] [--first 201] [--images 800] [--twins 200]

Writes what was said to use.csv beside this file (or to --out) after every seed and goes on where it
stopped. The chapter "Encoded, used, or both" reads it through `cxrlib.predict.use.recorded`. A seed
takes about twenty seconds of one processor core.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cxrlib import cohorts
from cxrlib.core import atomic
from cxrlib.models import load_models
from cxrlib.predict import use

FINDING = "Pneumothorax"


def study(seed, clips, n_images, n_twins):
    """A row for each model and attribute: what the twins say, and each estimator."""
    films = cohorts.load("phantom", n_images=n_images, seed=seed)
    few = cohorts.load("phantom", n_images=n_twins, seed=seed)
    rows = []
    for attribute in use.GROUPS:
        of = films if attribute in ("site", "race", use.ALIKE) else few
        changed, plain = use.twins(of, attribute, n_twins)
        # drawn anew with other scanners, films are embedded anew: one model will do
        for clip in clips[:1] if attribute == use.ALIKE else clips:
            known = use.truth(changed, plain, clip, FINDING, attribute)["says"]
            asked = [use.case(films, clip, FINDING, attribute, seed)]
            said, probe = use.estimates(asked), use.encoded(asked)["says"].iloc[0]
            row = {"seed": seed, "model": clip.name, "attribute": attribute}
            row |= {"probe": probe, "twins": known}
            rows.append(row | dict(zip(said["method"], said["says"], strict=True)))
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=201)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--twins", type=int, default=200)
    parser.add_argument("--out", type=Path, default=use.RECORDED)
    given = parser.parse_args()

    clips = load_models("all")
    parts = [pd.read_csv(given.out)] if given.out.is_file() else []
    for seed in tqdm(range(given.first, given.first + given.seeds)):
        if any(seed in set(part["seed"]) for part in parts):
            continue
        rows = study(seed, clips, given.images, given.twins)
        rows = rows.assign(n_images=given.images, date=datetime.date.today().isoformat())
        parts.append(rows)
        done = pd.concat(parts).sort_values("seed", kind="stable")
        atomic.in_one_step(given.out, partial(done.to_csv, index=False))
    print(use.grades(use.recorded(given.out)).to_string())


if __name__ == "__main__":
    main()

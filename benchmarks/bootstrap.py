"""Intervals by resampling and in one sort, beside a plain scikit-learn loop and other libraries.

Side by side in one process, on simulated data of the size of S's MIMIC-CXR test set: 8,950 images,
6 labels, 12 groups, 6 models, AUC and adjusted AUPRC, 1,000 resamples (analytic intervals need
none). The slow ones are timed on a few resamples, or one of the 36 pairs of model and label, and
extrapolated. rapidstats (Rust; `pip install rapidstats==0.4.2`, which nothing else here needs)
draws images, not patients, with all cores, and knows average precision without adjustment. Then
growth with the number of images, and memory against the number of resamples.

Run: python benchmarks/bootstrap.py
"""

import resource
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlib.protocol import protocol_of
from cxrlib.stats import analytic, bootstrap, estimates, fairness
from cxrlib.stats.ranking import ranker

try:
    import rapidstats
except ImportError:
    rapidstats = None

IMAGES, PATIENTS, RESAMPLES, SAMPLE = 8950, 3000, 1000, 3
PREVALENCE = [0.14, 0.08, 0.03, 0.17, 0.07, 0.03]  # of S's six labels
GROUPS = {
    "sex": {"Female": 0.47, "Male": 0.53},
    "race": {"White": 0.68, "Black": 0.16, "Asian": 0.04, "other": 0.12},
    "age_group": {"18-25": 0.03, "25-50": 0.2, "50-65": 0.29, "65-80": 0.32, "80+": 0.16},
}


def adjusted_auprc(y, score):
    return 1 - np.log(average_precision_score(y, score)) / np.log(np.mean(y))


def simulate(n, patients, labels=6, models=6, seed=0):
    rng = np.random.default_rng(seed)
    images = pd.DataFrame({"image_id": np.arange(n), "cohort": "simulated", "method": "zero-shot"})
    images["patient_id"] = rng.integers(0, patients, n)
    for attribute, shares in GROUPS.items():
        images[attribute] = rng.choice(list(shares), n, p=list(shares.values()))
    parts = []
    for i in range(labels):
        y = (rng.random(n) < PREVALENCE[i]).astype(int)
        for m in range(models):
            score = 1 / (1 + np.exp(-(y + rng.standard_normal(n))))
            parts.append(
                images.assign(label=f"label {i}", model=f"model {m}", y_true=y, score=score)
            )
    return pd.concat(parts, ignore_index=True)


def engine(predictions, n_resamples=RESAMPLES, interval="expanded"):
    return fairness.performance_table(
        predictions,
        ("auc", "adjusted_auprc"),
        tuple(GROUPS),
        mean_over_labels=False,
        protocol=replace(protocol_of("corrected"), min_cases=1, interval=interval),
        n_resamples=n_resamples,
    )


def loop(predictions, n_resamples):
    """What most papers do: draw, select, call scikit-learn."""
    rng = np.random.default_rng(0)
    for _, block in predictions.groupby(["model", "label"]):
        y, score = block["y_true"].to_numpy(), block["score"].to_numpy()
        for at in groups(block):
            for _ in range(n_resamples):
                drawn = rng.choice(at, len(at))
                if 0 < y[drawn].sum() < len(drawn):
                    roc_auc_score(y[drawn], score[drawn])
                    adjusted_auprc(y[drawn], score[drawn])


def fairlearn_bootstrap(predictions, n_resamples):
    for _, block in predictions.groupby(["model", "label"]):
        for attribute in GROUPS:
            MetricFrame(
                metrics={"auc": roc_auc_score, "adjusted_auprc": adjusted_auprc},
                y_true=block["y_true"],
                y_pred=block["score"],
                sensitive_features=block[attribute],
                n_boot=n_resamples,
                ci_quantiles=[0.025, 0.975],
                random_state=0,
            )


def rust_bootstrap(predictions, n_resamples):
    drawn = rapidstats.Bootstrap(iterations=n_resamples, seed=0)
    for _, block in predictions.groupby(["model", "label"]):
        y, score = block["y_true"].to_numpy(bool), block["score"].to_numpy()
        for at in groups(block):
            if 0 < y[at].sum() < len(at):
                drawn.roc_auc(y[at], score[at])
                drawn.average_precision(y[at], score[at])


def groups(block):
    """Positions of all images, and of those of each group."""
    found = [np.arange(len(block))]
    for attribute, shares in GROUPS.items():
        found += [np.flatnonzero(block[attribute] == group) for group in shares]
    return found


def errors(predictions):
    """Standard errors, analytic over those of the resamples: a number per estimate and metric."""
    by_interval = []
    for interval in ("percentile", "analytic"):
        protocol = replace(protocol_of("corrected"), interval=interval)
        how = {"mean_over_labels": False, "match": None, "n_resamples": RESAMPLES}
        found = estimates.estimated(
            predictions, (), list(analytic.RANKED), protocol=protocol, **how
        )
        spread = {key: estimates.spread(e) for key, e in next(found)[1].items()}
        by_interval.append(pd.Series(spread))
    return (by_interval[1] / by_interval[0]).groupby(level=-1)


def timed(function, *arguments, **named):
    start = time.perf_counter()
    function(*arguments, **named)
    return time.perf_counter() - start


def peak(function, *arguments, **named):
    """Megabytes allocated at the highest point, beyond what was there before."""
    tracemalloc.start()
    function(*arguments, **named)
    found = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return found


def main():
    predictions = simulate(IMAGES, PATIENTS)
    one = predictions[(predictions["model"] == "model 0") & (predictions["label"] == "label 0")]
    own = [timed(engine, predictions) for _ in range(3)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    at_once = [timed(engine, predictions, interval="analytic") for _ in range(5)]
    slow = timed(loop, predictions, SAMPLE) * RESAMPLES / SAMPLE
    # one of 36 pairs of model and label
    fair = timed(fairlearn_bootstrap, one, SAMPLE) * RESAMPLES / SAMPLE * 36
    print(f"{IMAGES} images, 6 labels, 12 groups, 6 models, {RESAMPLES} resamples, 2 metrics")
    for name, runs in (("resampling engine", own), ("analytic", at_once)):
        spread = f"{len(runs)} runs: {min(runs):.2f} to {max(runs):.2f}"
        print(f"  {name:19} {np.median(runs):8.2f} s  ({spread})")
    print(f"  scikit-learn loop   {slow:8.0f} s  extrapolated from {SAMPLE} resamples")
    print(f"  fairlearn bootstrap {fair:8.0f} s  extrapolated from {SAMPLE} resamples of 1 of 36")
    if rapidstats:
        rust = timed(rust_bootstrap, one, 20 * SAMPLE) * RESAMPLES / (20 * SAMPLE) * 36
        print(f"  rapidstats          {rust:8.0f} s  extrapolated from {20 * SAMPLE} of 1 of 36")
    else:
        print("  rapidstats is missing and not timed: pip install rapidstats==0.4.2")
    print(f"  loop / engine       {slow / np.median(own):8.0f}    (target 150)")
    print(f"  loop / analytic     {slow / np.median(at_once):8.0f}    (target 900)")
    print(f"  peak of the process {memory:8.0f} MB (target 1000; includes pandas)")
    for metric, ratio in errors(predictions):
        print(f"  standard error of {metric}, analytic over {RESAMPLES} resamples: median "
              f"{ratio.median():.3f}, {ratio.min():.3f} to {ratio.max():.3f}")  # fmt: skip

    for n_resamples in (100, 1000, 4000):
        print(f"  {n_resamples} resamples of one model and label: "
              f"{peak(engine, one, n_resamples):.0f} MB allocated")  # fmt: skip
    print("growth, one model, one label, no groups; 100 resamples and the jackknife, or analytic:")
    for n in (10**3, 10**4, 10**5, 10**6):
        rng = np.random.default_rng(0)
        y, patient = rng.random(n) < 0.1, rng.integers(0, n // 3, n)
        score = y + rng.standard_normal(n)
        ranked = {"all": ranker(y, score)}
        drawn = bootstrap.Resamples(patient, 100)
        seconds = timed(bootstrap.evaluate, ranked, drawn)
        rows = 1 + 100 + drawn.n_blocks
        print(f"  {n:>8} images {seconds:7.2f} s  {1e9 * seconds / n / rows:5.1f} ns a weight, "
              f"analytic {1000 * timed(analytic.intervals, y, score, patient):.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()

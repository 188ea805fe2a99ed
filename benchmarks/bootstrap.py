"""The resampling engine beside a plain scikit-learn loop and fairlearn's bootstrap.

Side by side in one process, on simulated data of the size of S's MIMIC-CXR test set: 8,950 images,
6 labels, 12 groups, 6 models, AUC and adjusted AUPRC, 1,000 resamples. The slow ones are timed on
a few resamples and extrapolated. Then growth with the number of images, and memory against the
number of resamples.

Run: python benchmarks/bootstrap.py
"""

import resource
import time
import tracemalloc

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlib.stats import bootstrap, fairness
from cxrlib.stats.ranking import ranker

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


def engine(predictions, n_resamples=RESAMPLES):
    return fairness.performance_table(
        predictions,
        ("auc", "adjusted_auprc"),
        tuple(GROUPS),
        mean_over_labels=False,
        min_positive=1,
        n_resamples=n_resamples,
    )


def loop(predictions, n_resamples):
    """What most papers do: draw, select, call scikit-learn."""
    rng = np.random.default_rng(0)
    for _, block in predictions.groupby(["model", "label"]):
        y, score = block["y_true"].to_numpy(), block["score"].to_numpy()
        members = [np.arange(len(y))]
        for attribute in GROUPS:
            members += [np.flatnonzero(block[attribute] == g) for g in GROUPS[attribute]]
        for at in members:
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
    slow = timed(loop, predictions, SAMPLE) * RESAMPLES / SAMPLE
    # one of 36 pairs of model and label
    fair = timed(fairlearn_bootstrap, one, SAMPLE) * RESAMPLES / SAMPLE * 36
    print(f"{IMAGES} images, 6 labels, 12 groups, 6 models, {RESAMPLES} resamples, 2 metrics")
    print(
        f"  this engine         {np.median(own):8.1f} s  (3 runs: {min(own):.1f} to {max(own):.1f})"
    )
    print(f"  scikit-learn loop   {slow:8.0f} s  extrapolated from {SAMPLE} resamples")
    print(f"  fairlearn bootstrap {fair:8.0f} s  extrapolated from {SAMPLE} resamples of 1 of 36")
    print(f"  loop / engine       {slow / np.median(own):8.0f}    (target 150)")
    print(f"  peak of the process {memory:8.0f} MB (target 1000; includes pandas)")

    for n_resamples in (100, 1000, 4000):
        print(f"  {n_resamples} resamples of one model and label: "
              f"{peak(engine, one, n_resamples):.0f} MB allocated")  # fmt: skip
    print("growth, one model, one label, no groups, 100 resamples and the jackknife:")
    for n in (10**3, 10**4, 10**5, 10**6):
        rng = np.random.default_rng(0)
        y, patient = rng.random(n) < 0.1, rng.integers(0, n // 3, n)
        ranked = {"all": ranker(y, y + rng.standard_normal(n))}
        drawn = bootstrap.Resamples(patient, 100)
        seconds = timed(bootstrap.evaluate, ranked, drawn)
        rows = 1 + 100 + drawn.n_blocks
        print(f"  {n:>8} images {seconds:7.2f} s  {1e9 * seconds / n / rows:5.1f} ns a weight")


if __name__ == "__main__":
    main()

"""Train the small CLIPs of the book on phantom image-report pairs.

``python -m cxrlib.models.train`` retrains all of them on the CPU, checks that their zero-shot AUC
lies within the intervals that the shipped cards state, and writes weights and cards. The models
differ for planted reasons only: architecture, the drain dial, or reports that leave out findings.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from open_clip import ClipLoss
from tqdm import tqdm

from cxrlib import cohorts
from cxrlib.cohorts.phantom import FINDINGS
from cxrlib.models import WEIGHTS, phantom_clip

N_PAIRS, EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 12_000, 5, 128, 1e-3, 0.1
COHORT_SEED = 11
FAIR_DRAINS = {"drain_if_pneumothorax": 0.2, "drain_if_none": 0.2}
BIASED_DRAINS = {"drain_if_pneumothorax": 0.9, "drain_if_none": 0.02}

MODELS = {
    "phantom-resnet": {"architecture": "resnet", "dials": FAIR_DRAINS,
                       "trained_on": "drains independent of pneumothorax"},
    "phantom-vit": {"architecture": "vit", "dials": FAIR_DRAINS,
                    "trained_on": "drains independent of pneumothorax"},
    "phantom-resnet-drain": {"architecture": "resnet", "dials": BIASED_DRAINS,
                             "trained_on": "drains in 90 % of pneumothorax, 2 % of the rest"},
    "phantom-resnet-underreport": {
        "architecture": "resnet",
        "dials": FAIR_DRAINS | {"underreport": {"sex": {"F": 0.5}}},
        "trained_on": "reports that leave out half of the findings of women"},
}


def train(architecture: str, dials: dict, n_pairs: int = N_PAIRS, epochs: int = EPOCHS,
          seed: int = 0, progress: str | None = None):
    """A small CLIP trained from scratch; the network (float32) and its tokenizer."""
    cohort = cohorts.load("phantom", n_images=n_pairs, seed=COHORT_SEED, split="train",
                          size=phantom_clip.IMAGE_SIZE, dials=dials)
    texts = cohort.table["report"].tolist()
    tokenizer = phantom_clip.Tokenizer.fit(texts)
    tokens = tokenizer(texts)
    images = torch.from_numpy(cohort.images(np.arange(n_pairs)))
    torch.manual_seed(seed)
    model = phantom_clip.network(architecture, tokenizer.size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (n_pairs // BATCH)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(
        (t + 1) / warmup, 0.5 * (1 + math.cos(math.pi * t / steps))))
    loss_of = ClipLoss()
    order = np.random.default_rng(seed)
    bar = tqdm(total=steps, desc=progress, disable=progress is None, unit="step", mininterval=2)
    for _ in range(epochs):
        for batch in np.array_split(order.permutation(n_pairs), n_pairs // BATCH):
            x = phantom_clip.preprocess(images[batch].numpy())
            loss = loss_of(*model(x, tokens[batch]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():  # CLIP's bound on the logit scale
                model.logit_scale.clamp_(0, math.log(100))
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    bar.close()
    return model.eval(), tokenizer


def zero_shot_auc(name: str) -> dict:
    """AUC per finding with its 95 % interval on 4,000 images of held-out patients."""
    from cxrlib import fairness, zeroshot

    cohort = cohorts.load("phantom", n_images=4000)
    predictions = zeroshot.predict(cohort, [name], labels=FINDINGS, cache=False)
    rows = fairness.performance_table(predictions, metrics=("auc",), n_resamples=300)
    rows = rows[rows["group"] == "all"]
    return {r.label: [round(r.value, 3), round(r.ci_low, 3), round(r.ci_high, 3)]
            for r in rows.itertuples()}


def main(only: list[str] | None = None, folder: Path = WEIGHTS) -> None:
    for order, (name, recipe) in enumerate(MODELS.items()):
        if only and name not in only:
            continue
        model, tokenizer = train(recipe["architecture"], recipe["dials"], progress=name)
        card = {"name": name, "order": order, **recipe, "cohort_seed": COHORT_SEED,
                "n_pairs": N_PAIRS, "epochs": EPOCHS, "batch": BATCH,
                "learning_rate": LEARNING_RATE, "image_size": phantom_clip.IMAGE_SIZE,
                "vocabulary": tokenizer.words}
        path = folder / f"{name}.safetensors"
        before = path.with_suffix(".json")
        shipped = json.loads(before.read_text()).get("zero_shot_auc") if before.exists() else None
        card = phantom_clip.save(model, card, path)
        card["zero_shot_auc"] = zero_shot_auc(name)
        before.write_text(json.dumps(card, indent=1) + "\n")
        mean, low, high = card["zero_shot_auc"]["mean"]
        verdict = ""
        if shipped:
            inside = shipped["mean"][1] <= mean <= shipped["mean"][2]
            verdict = f"; shipped card {shipped['mean']}: {'reproduced' if inside else 'DIFFERS'}"
        print(f"{name}: zero-shot mean AUC {mean} [{low}, {high}], {card['size_mb']} MB{verdict}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help=f"models to train (all): {', '.join(MODELS)}")
    main(parser.parse_args().names)

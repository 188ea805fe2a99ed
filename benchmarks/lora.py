"""LoRA on every image encoder: what is adapted, and what a training step costs on this CPU.

Each encoder runs in a process of its own, so that its peak memory is its own. One step of AdamW on
two made-up films; then the adapters are merged into the weights and both outputs compared. In the
table ``moved`` is how far the step took the output and ``merged_distance`` how far merging did,
both in units of the largest output; ``with_gradient`` counts adapters. Seconds and memory of
lora.csv: one thread of two virtual x86-64 cores shared with other work, torch 2.15.0, float32.
``python -m pytest -m slow tests/test_adapters.py`` proves more, with less to read.

Run: python benchmarks/lora.py [NAME ...]     (writes benchmarks/lora.csv when no name is given)
"""

import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F

from cxrlib import models
from cxrlib.predict import adapters
from cxrlib.predict.finetune import Classifier, Head

RANK = 4
TABLE = Path(__file__).with_suffix(".csv")


def record(name):
    """One row of the table."""
    start = time.perf_counter()
    model = models.load_model(name)
    loaded = time.perf_counter()
    x = adapters.probe(model)
    torch.manual_seed(0)
    adapted = adapters.with_lora(adapters.tower(model), x, RANK)
    kinds = adapters.listing(adapted).set_index("layer")
    network = Classifier(adapted, Head(model.embed_dim, 2), frozen=True).train()
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=0.01)
    before = adapted(x).detach()
    ready = time.perf_counter()
    F.cross_entropy(network(x), torch.tensor([0, 1])).backward()
    optimizer.step()
    stepped = time.perf_counter()
    with torch.no_grad():
        tuned, deployed = adapted(x), adapters.merged(adapted)(x)
    largest = tuned.abs().max()
    adapters_b = [p for n, p in adapted.named_parameters() if "lora_B" in n]
    return {
        "encoder": name,
        "parameters": sum(p.numel() for n, p in adapted.named_parameters() if "lora_" not in n),
        "convolutions": count(kinds, "convolution", "adapted"),
        "linear_layers": count(kinds, "linear layer", "adapted"),
        "with_gradient": sum(bool(p.grad.any()) for p in adapters_b),
        "depthwise_left_out": count(kinds, "depthwise convolution", "left_out"),
        "matrices_left_out": count(kinds, "matrix that is no layer", "left_out"),
        "trained": int(kinds["trained"].sum()),
        "moved": f"{(tuned - before).abs().max() / largest:.2f}",
        "merged_distance": f"{(tuned - deployed).abs().max() / largest:.1e}",
        "load_s": f"{loaded - start:.1f}",
        "adapt_s": f"{ready - loaded:.1f}",
        "step_s": f"{stepped - ready:.1f}",
        "peak_gb": f"{peak():.1f}",
    }


def count(kinds, kind, column):
    return int(kinds[column].get(kind, 0))


def peak():
    """Gigabytes that this process has held at most (Linux)."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def apart(name):
    command = [sys.executable, __file__, "--apart", name]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(names):
    rows = []
    for name in names or ["phantom-resnet", "phantom-vit", *models.published_models()]:
        rows.append(apart(name if name in models.model_names() else f"seeded:{name}"))
        print(json.dumps(rows[-1]), flush=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    if not names:
        pd.DataFrame(rows).to_csv(TABLE, index=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--apart"]:
        print(json.dumps(record(sys.argv[2])))
    else:
        main(sys.argv[1:])

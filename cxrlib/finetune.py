"""Four ways to adapt a CLIP model to one-of-several classification (X, section 2.3).

Linear probe and MLP train a head on frozen embeddings; LoRA adds low-rank updates to the layers of
the image encoder; full fine-tuning updates the whole encoder. All share one training loop.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from cxrlib.embed import embed, loaded
from cxrlib.zeroshot import one_hot_rows, softmax

STRATEGIES = ("linear probe", "MLP", "LoRA", "full")
LEARNING_RATE = {"linear probe": 1e-2, "MLP": 3e-3, "LoRA": 5e-3, "full": 5e-4}
LORA_RANK = 4


@dataclass(frozen=True)
class FineTuned:
    """What one adaptation gave.

    Attributes
    ----------
    predictions : DataFrame
        Test images, as :func:`cxrlib.zeroshot.classify` returns them.
    history : DataFrame
        ``epoch, train_loss, valid_loss`` (cross-entropy, nats).
    best_epoch : int
        Epoch of the lowest validation loss; its weights made the predictions.
    trainable : int
        Number of trained parameters.
    seconds : float
        Training time.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    best_epoch: int
    trainable: int
    seconds: float


def fine_tune(
    cohort,
    model,
    strategy: str,
    labels: Sequence[str],
    target: str = "disease",
    epochs: int = 15,
    batch: int = 64,
    learning_rate: float | None = None,
    seed: int = 0,
) -> FineTuned:
    """Adapt a model on the training split of a cohort and predict its test split.

    AdamW with a cosine schedule; the weights with the lowest validation loss are kept, as in X.

    Parameters
    ----------
    cohort : Cohort
        Its table has ``split`` ("train", "valid", "test") and the column ``target``.
    model : loaded model or name
    strategy : one of ``STRATEGIES``
    labels : sequence of str
        The classes.
    epochs, batch : int
    learning_rate : float, optional
        Peak learning rate; by default the strategy's own.
    seed : int
        Of the initial head, the adapters and the order of the images.

    Raises
    ------
    ValueError
        Unknown strategy; a split without images or a class that training lacks.
    FloatingPointError
        The loss is not finite; names the epoch.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: expected one of {', '.join(STRATEGIES)}")
    model = loaded(model)
    rows = {
        split: (cohort.table["split"] == split).to_numpy() for split in ("train", "valid", "test")
    }
    _check(cohort, rows, labels, target)
    classes = pd.Categorical(cohort.table[target], categories=list(labels)).codes.astype(np.int64)
    y = torch.from_numpy(classes)

    torch.manual_seed(seed)
    frozen = strategy in ("linear probe", "MLP")
    if frozen:
        x = torch.from_numpy(embed(cohort, model))
        network = _head(x.shape[1], len(labels), hidden=128 if strategy == "MLP" else None)
    else:
        x = model.preprocess(cohort.images(np.arange(len(cohort.table))))
        network = _encoder_with_head(model, len(labels), lora=strategy == "LoRA")
    at = {split: torch.from_numpy(np.flatnonzero(r)) for split, r in rows.items()}
    start = time.perf_counter()
    history, best_epoch = _fit(
        network,
        x,
        y,
        at["train"],
        at["valid"],
        epochs,
        batch,
        learning_rate or LEARNING_RATE[strategy],
        seed,
    )
    seconds = time.perf_counter() - start
    score = softmax(_logits(network, x[at["test"]]).numpy())
    predictions = one_hot_rows(cohort, rows["test"], model.name, strategy, labels, target, score)
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return FineTuned(predictions, history, best_epoch, trainable, seconds)


def _check(cohort, rows, labels, target):
    for split, r in rows.items():
        if not r.any():
            raise ValueError(f"cohort {cohort.name!r} has no images in split {split!r}")
    absent = set(labels) - set(cohort.table.loc[rows["train"], target])
    if absent:
        raise ValueError(f"no training image of class {', '.join(sorted(absent))}")


def _head(width: int, classes: int, hidden: int | None = None) -> nn.Module:
    # Unit-norm embeddings are far below unit variance a dimension: BatchNorm restores it.
    layers = [nn.BatchNorm1d(width, affine=False)]
    if hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden or width, classes))


class _Classifier(nn.Module):
    """Image encoder, its embedding normalised as in pretraining, and a linear head."""

    def __init__(self, encoder: nn.Module, width: int, classes: int, frozen_statistics: bool):
        super().__init__()
        self.encoder, self.head = encoder, _head(width, classes)
        self.frozen_statistics = frozen_statistics

    def train(self, mode: bool = True):
        super().train(mode)
        if self.frozen_statistics:
            self.encoder.eval()
        return self

    def forward(self, x):
        return self.head(nn.functional.normalize(self.encoder(x), dim=-1))


def _encoder_with_head(model, classes: int, lora: bool) -> nn.Module:
    visual = getattr(model.network, "visual", None)
    if not hasattr(visual, "output_dim"):
        raise ValueError(
            f"LoRA and full fine-tuning take models of open_clip's kind so far, which "
            f"{model.name!r} is not; linear probe and MLP take any model"
        )
    encoder = copy.deepcopy(visual)
    if lora:
        encoder = add_lora(encoder)
    else:
        encoder.requires_grad_(True)
    return _Classifier(encoder, visual.output_dim, classes, frozen_statistics=lora)


def add_lora(encoder: nn.Module, rank: int = LORA_RANK) -> nn.Module:
    """Low-rank updates (Hu et al. 2022) on every convolution and linear layer that is called.

    Attention pooling of a CLIP ResNet reads the weights of its projections without calling them,
    so an adapter there would be bypassed: such layers are left out, and the adapted ones are
    checked to receive a gradient.
    """
    from peft import LoraConfig, get_peft_model

    kinds = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
    modules = dict(encoder.named_modules())
    inside = [n for n, m in modules.items() if isinstance(m, nn.MultiheadAttention)]
    targets = [
        n
        for n, m in modules.items()
        if isinstance(m, kinds)
        and not n.startswith("attnpool.")
        and not any(n.startswith(f"{a}.") for a in inside)
    ]
    adapted = get_peft_model(
        encoder, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    )
    _check_gradients(adapted)
    return adapted


def _check_gradients(adapted: nn.Module) -> None:
    size = adapted.base_model.model.image_size
    side = size if isinstance(size, int) else size[0]
    adapted.eval()
    adapted(torch.randn(2, 3, side, side)).square().sum().backward()
    # Adapters start as B A with B = 0, so the first gradient reaches B alone.
    idle = [
        n
        for n, p in adapted.named_parameters()
        if "lora_B" in n and (p.grad is None or not p.grad.abs().any())
    ]
    adapted.zero_grad(set_to_none=True)
    if idle:
        raise RuntimeError(f"LoRA adapters without a gradient, so bypassed: {', '.join(idle[:5])}")


def _fit(network, x, y, train, valid, epochs, batch, learning_rate, seed):
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    order = torch.Generator().manual_seed(seed)
    history, best = [], (math.inf, 0, None)
    for epoch in range(1, epochs + 1):
        _set_cosine(optimizer, learning_rate, (epoch - 1) / epochs)
        network.train()
        total = 0.0
        for part in train[torch.randperm(len(train), generator=order)].split(batch):
            if len(part) == 1:  # BatchNorm cannot standardise one image
                continue
            loss = nn.functional.cross_entropy(network(x[part]), y[part])
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss is {loss.item()} in epoch {epoch}; lower the "
                    f"learning rate ({learning_rate:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        valid_loss = nn.functional.cross_entropy(_logits(network, x[valid]), y[valid]).item()
        history.append({"epoch": epoch, "train_loss": total / len(train), "valid_loss": valid_loss})
        if valid_loss < best[0]:
            best = (valid_loss, epoch, copy.deepcopy(network.state_dict()))
    network.load_state_dict(best[2])
    return pd.DataFrame(history), best[1]


def _set_cosine(optimizer, peak: float, progress: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * peak * (1 + math.cos(math.pi * progress))


@torch.inference_mode()
def _logits(network, x) -> torch.Tensor:
    network.eval()
    return torch.cat([network(part) for part in x.split(256)])

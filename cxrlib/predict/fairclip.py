"""FairCLIP (Luo et al. 2024) on stored vectors, as its paper and as its public code have it.

A linear layer on the vectors of the films and one on those of the texts, both the identity at
first, are trained on films and their reports: CLIP's contrastive loss, plus a weight times the sum
over groups of the Sinkhorn distance between the similarities of a batch and those of a batch of
the group. The logit scale stays as it is. Nothing of the authors' code is used here; what it does
is stated in ``fairclip.toml``, with the places where that was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cxrlib.core.checks import one_of
from cxrlib.core.errors import Lacks
from cxrlib.predict.remedies.remedy import Answer, Films, Question

if TYPE_CHECKING:
    from torch import Tensor

EPOCHS, BATCH, RATE = 3, 128, 1e-3
BLUR, ITERATIONS = 0.05, 20


def sinkhorn(x: Tensor, y: Tensor, blur: float = BLUR, iterations: int = ITERATIONS) -> Tensor:
    """Sinkhorn distance of two samples of numbers, with the cost (x - y)^2 / 2 (Cuturi 2013).

    The plan is found in the log domain and held fixed in the gradient, as the envelope theorem
    allows.

    Parameters
    ----------
    x : (..., n) tensor
    y : (..., m) tensor
    blur : float > 0
        Entropy of the plan, as a share of the mean cost; the smaller it is, the more iterations
        are needed, and the nearer is the exact distance.

    Returns
    -------
    (...) tensor, at least 0, in squared units of the samples
    """
    import torch

    cost = (x[..., :, None] - y[..., None, :]) ** 2 / 2
    n, m = cost.shape[-2:]
    with torch.no_grad():
        entropy = blur * cost.mean((-2, -1), keepdim=True)
        scaled = cost / entropy
        g = torch.zeros_like(scaled[..., :1, :])
        for _ in range(iterations):
            f = np.log(m) - (g - scaled).logsumexp(-1, keepdim=True)
            g = np.log(n) - (f - scaled).logsumexp(-2, keepdim=True)
        plan = (f + g - scaled).exp() / (n * m)
    return (plan * cost).sum((-2, -1))


def own_report(images: Tensor, reports: Tensor, scale: float) -> Tensor:
    """Similarity of each film to its own report (..., n): the diagonal of the paper's equation."""
    return (images * reports).sum(-1)


def squared_logits(images: Tensor, reports: Tensor, scale: float) -> Tensor:
    """Diagonal (..., n) of the matrix of logits times itself, which the public code calls so.

    Each entry is a sum over all films of the batch: logit of this film and that report, times
    logit of that film and this report.
    """
    logits = scale * images @ reports.mT
    return (logits * logits.mT).sum(-1)


def as_published(batch: tuple, groups: tuple, scale: float) -> Tensor:
    """The term of the public code: a group's entries are divided by their sum and held fixed."""
    of_groups = squared_logits(*groups, scale).detach()
    of_groups = of_groups / of_groups.sum(-1, keepdim=True)
    return sinkhorn(squared_logits(*batch, scale), of_groups).sum()


def corrected(batch: tuple, groups: tuple, scale: float) -> Tensor:
    """The term of the paper's equation: like is compared with like."""
    return sinkhorn(own_report(*batch, scale), own_report(*groups, scale)).sum()


FORMS: dict[str, Callable] = {"as_published": as_published, "corrected": corrected}

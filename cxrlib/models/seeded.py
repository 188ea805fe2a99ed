"""Weights computed from the names of the tensors: to prove a network equal to its original.

A network filled this way computes nothing of meaning. But whoever fills upstream's own code by the
same rule must get the same embeddings, to the last digits; and a chapter can be run with a real
architecture before its checkpoint is at hand.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from cxrlib.models.encoder import Tokens

# Embeddings keep the small standard deviation that they are trained from.
SMALL = re.compile(
    r"(word_embeddings|position_embeddings|token_type_embeddings|token_embedding"
    r"|position_embedding)\.weight$"
    r"|(positional_embedding|pos_embed|position_embedding|class_embedding|class_token|cls_token)$"
)
# With a gain of 1, BERT's post-norm layers bring all positions to one vector, and GLoRIA's softmax
# over words saturates: a wrong pooling would go unseen.
GAINS = (
    (re.compile(r"encoder\.layer\.\d+\.attention\.self\.(query|key)\.weight$"), 3.0),
    (re.compile(r"encoder\.layer\.\d+\.attention\.output\.dense\.weight$"), 0.4),
    (re.compile(r"img_encoder\.local_embedder\.weight$"), 0.02),
)


CHUNK = 2**15  # numbers at a time, which stay in a processor's cache


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of the tensor of that name: float32, of the given shape.

    Normal numbers from a generator that is seeded with the SHA-256 of the name, scaled by what the
    tensor is for, so that signals neither vanish nor explode.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    draw = np.random.Generator(np.random.PCG64(seed))
    found = np.empty(math.prod(shape), np.float32)
    for start in range(0, found.size, CHUNK):
        part = found[start : start + CHUNK]
        part[:] = _scaled(draw.standard_normal(part.size), name, shape)
    return found.reshape(shape)


def _scaled(z, name, shape):
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(z)
    if name.endswith("running_mean"):
        return 0.1 * z
    if len(shape) >= 2 and SMALL.search(name):
        return 0.02 * z
    if len(shape) >= 2:
        gain = next((gain for pattern, gain in GAINS if pattern.search(name)), 1.0)
        return gain * z / math.sqrt(math.prod(shape[1:]))
    if name.endswith((".weight", ".gamma")):
        return 1 + 0.1 * z
    return 0.1 * z


@torch.no_grad()
def fill(network: nn.Module, upstream: Callable[[str], str] = str) -> None:
    """Overwrite every weight of a network by what upstream's name for it gives.

    Integers and scalars stay as constructed; of tensors that share their memory the first counts.
    """
    done = set()
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim and tensor.data_ptr() not in done:
            done.add(tensor.data_ptr())
            tensor.copy_(torch.from_numpy(values(upstream(key), tuple(tensor.shape))))


def wordpiece(pad_to: int | None = None) -> Callable[[list[str]], Tokens]:
    """Stand-in for a BERT tokenizer where no vocabulary is at hand: words are numbered by hash."""

    def tokenize(texts):
        rows = [[101, *map(_number, text.lower().split()[:75]), 102] for text in texts]
        length = pad_to or max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return Tokens(ids, (ids != 0).long())

    return tokenize


def _number(word: str) -> int:
    return 1000 + int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little") % 20_000

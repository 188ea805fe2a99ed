"""How a published model is put together; what is known about it stands on its card."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

RENAMES = tomllib.loads(Path(__file__).with_name("renames.toml").read_text())


@dataclass(frozen=True)
class Recipe:
    """The code of a published model.

    Attributes
    ----------
    build : callable
        The untrained network; see :class:`cxrlib.models.encoder.Encoder` for its two methods.
        Module names are upstream's, so that its checkpoints fit.
    tokenizer : callable
        Folder with the model's files to tokenizer.
    preprocess : callable
        One grey PIL image to a float tensor (3, h, w), as the model's authors do it.
    preprocess_s : callable, optional
        Likewise as paper S did it, where that differs.
    scale_s : bool
        Whether paper S multiplied similarities by the learned logit scale.
    unit_text_s : bool
        Whether paper S brought text embeddings to unit length.
    one_by_one, average : see :class:`cxrlib.models.encoder.Encoder`
    renames : pairs of str
        Regular expression in our key and its replacement in upstream's, where a library names a
        layer otherwise. Applied in order.
    prefix : str
        What upstream's checkpoint puts before each key; everything up to its last occurrence goes.
    max_log_scale : float, optional
        Upper bound that upstream puts on the logarithm of the logit scale.
    vocabulary : callable, optional
        Gives a network what it must know of its file ``vocab.txt``: which pieces make up a word.
    """

    build: Callable[[], nn.Module]
    tokenizer: Callable[..., Callable]
    preprocess: Callable[[Image.Image], torch.Tensor]
    preprocess_s: Callable[[Image.Image], torch.Tensor] | None = None
    scale_s: bool = True
    unit_text_s: bool = True
    one_by_one: bool = False
    average: str = "unit"
    renames: Sequence[tuple[str, str]] = ()
    prefix: str = ""
    max_log_scale: float | None = None
    vocabulary: Callable[..., None] | None = None

    def upstream(self, key: str) -> str:
        """Upstream's name of our key."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def learned_scale(self, network: nn.Module) -> float | None:
        """The learned factor on similarities; None where the model has none."""
        if not hasattr(network, "logit_scale"):
            return None
        log = network.get_parameter("logit_scale").detach().float()
        if self.max_log_scale is not None:
            log = log.clamp(0, self.max_log_scale)
        return float(log.exp())

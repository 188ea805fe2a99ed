"""What every image-text model of the book is: two encoders with all that belongs to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEXTS_AT_ONCE = 64
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Tokens(NamedTuple):
    """Token numbers (n, length) and attention mask (n, length): 1 on tokens, 0 on padding."""

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Encoder:
    """An image-text model ready for use; no chapter sets any of this.

    Attributes
    ----------
    name : str
    network : nn.Module
        In evaluation mode. ``encode_image(batch)`` and ``encode_text(ids, mask)`` return vectors
        (n, d) as upstream's code does, not yet of unit length.
    preprocess : callable
        8-bit grey images (one, a sequence, or an array (n, h, w)) to a float tensor (n, 3, h, w).
    tokenizer : callable
        List of str to :class:`Tokens`.
    card : dict
        What is known about the model.
    weights : str
        SHA-256 of the weights, or what stands in their place.
    code : tuple of Path
        Files whose code decides what the model computes; they enter the fingerprint.
    logit_scale : float
        Factor on cosine similarities: the learned one, 1 where there is none or where the protocol
        leaves it out.
    protocol : str
        "corrected": as the model's authors use it. "as_published": as paper S used it.
    preprocessing : {"authors", "paper S"}
        Whose steps :attr:`preprocess` takes.
    unit_text : bool
        False where the protocol leaves text embeddings at the length they come in.
    one_by_one : bool
        Encode each text alone, because the padding of the others would change its embedding.
    average : {"unit", "raw"}
        How the authors average several prompts: after or before bringing them to unit length.
    notes : tuple of str
        What was noticed while loading.
    """

    name: str
    network: nn.Module = field(repr=False)
    preprocess: Callable = field(repr=False)
    tokenizer: Callable[[list[str]], Tokens] = field(repr=False)
    card: dict = field(repr=False)
    weights: str
    code: tuple[Path, ...] = field(repr=False)
    logit_scale: float = 1.0
    protocol: str = "corrected"
    preprocessing: str = "authors"
    unit_text: bool = True
    one_by_one: bool = False
    average: str = "unit"
    notes: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self):
        # Convolutions are faster with the channels of a pixel side by side in memory.
        self.network.to(memory_format=torch.channels_last)

    def to(self, device: str, precision: str = "float32") -> Encoder:
        """The same model on another device, computing in "float32", "bfloat16" or "float16".

        Weights stay in float32; lower precisions are torch's autocast. On a GPU "float32" is
        computed without TF32. The network itself moves: go on with what is returned.

        Raises
        ------
        ValueError
            An unknown precision, or a device that torch cannot use here.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
        try:
            self.network.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device={device!r}: torch cannot use it here ({reason}); 'cpu' always works"
            ) from None
        return replace(self, device=device, precision=precision)

    def encode_image(self, batch: Tensor, **inputs: Tensor) -> Tensor:
        """Unit-norm image embeddings, float32 (n, d) on the CPU.

        Parameters
        ----------
        batch : float tensor (n, 3, h, w)
            What :attr:`preprocess` returns.
        inputs : tensors
            Further images, for networks that take them (``previous`` of BioViL-T).
        """
        return self.image_vectors(batch, **inputs).cpu()

    def image_vectors(self, batch: Tensor, **inputs: Tensor) -> Tensor:
        """As :meth:`encode_image`, left on the model's device, where a GPU may not be done yet."""
        with self._inference():
            inputs = {name: x.to(self.device) for name, x in inputs.items()}
            batch = batch.to(self.device, memory_format=torch.channels_last)
            vectors = self.network.encode_image(batch, **inputs)  # type: ignore[operator]
            return F.normalize(vectors.float(), dim=1)

    def encode_text(self, texts: Sequence[str], raw: bool = False) -> Tensor:
        """Text embeddings, float32 (n, d) on the CPU; of unit norm unless the protocol says else.

        Parameters
        ----------
        texts : sequence of str
        raw : bool
            Leave the vectors at the length they come in.
        """
        texts = list(texts)
        if not texts or any(not isinstance(t, str) or not t.strip() for t in texts):
            raise ValueError(f"{self.name}: texts to encode must be non-empty, got {texts!r:.200}")
        step = 1 if self.one_by_one else TEXTS_AT_ONCE
        parts = (texts[i : i + step] for i in range(0, len(texts), step))
        return torch.cat([self.encode_tokens(*self.tokenizer(part), raw=raw) for part in parts])

    def encode_tokens(self, ids: Tensor, mask: Tensor, raw: bool = False) -> Tensor:
        """As :meth:`encode_text`, from token numbers and attention mask (n, length)."""
        with self._inference():
            encode = self.network.encode_text
            vectors = encode(ids.to(self.device), mask.to(self.device))  # type: ignore[operator]
        vectors = vectors.float().cpu()
        return F.normalize(vectors, dim=1) if self.unit_text and not raw else vectors

    def encode_prompts(self, texts: Sequence[str]) -> Tensor:
        """One embedding (d,) of several prompts for the same thing, averaged as the authors do."""
        return self.averaged(self.encode_text(texts, raw=True))

    def averaged(self, raw: Tensor) -> Tensor:
        """As :meth:`encode_prompts`, from text vectors (k, d) at the length they come in."""
        if not self.unit_text:
            return raw.mean(dim=0)
        if self.average == "unit" and len(raw) > 1:
            raw = F.normalize(raw, dim=1)
        return F.normalize(raw.mean(dim=0), dim=0)

    @property
    def members(self) -> tuple[Encoder, ...]:
        """The model itself; an ensemble has several."""
        return (self,)

    @property
    def embed_dim(self) -> int:
        return self.card["embed_dim"]

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever image embeddings could: weights, code, preprocessing, precision."""
        parts = (self.name, self.weights, self.preprocessing_hash, self.precision)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def preprocessing_hash(self) -> str:
        """Changes with the steps from film to tensor, and with the code of steps and network."""
        digest = hashlib.sha256(self.preprocessing.encode())
        for file in (Path(__file__), *self.code):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _inference(self):
        stack = ExitStack()
        stack.enter_context(torch.inference_mode())
        kind = torch.device(self.device).type
        if kind == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        if dtype := PRECISIONS[self.precision]:
            stack.enter_context(torch.autocast(kind, dtype))
        return stack

"""Small CLIPs for phantom radiographs: open_clip's own classes with small configurations."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch.nn import functional as F

from cxrlib.core import atomic
from cxrlib.models import images as steps
from cxrlib.models.clip import TokenCLIP
from cxrlib.models.encoder import Encoder, Tokens

EMBED_DIM, IMAGE_SIZE, CONTEXT = 128, 64, 48
VISION = {
    "resnet": {"layers": (1, 1, 1, 1), "width": 12, "head_width": 48, "image_size": IMAGE_SIZE},
    "vit": {
        "layers": 3,
        "width": 128,
        "head_width": 32,
        "patch_size": 8,
        "pool_type": "avg",
        "pos_embed_type": "sin_cos_2d",
        "image_size": IMAGE_SIZE,
    },
}
MEAN, SD = 0.5, 0.25  # of grey levels in [0, 1]


class Tokenizer:
    """Words of a small vocabulary; case and punctuation are dropped, unknown words are marked."""

    def __init__(self, words: list[str]):
        # The end token has the highest number: open_clip pools the text there.
        self.words = words
        self.index = {w: i for i, w in enumerate(["<pad>", "<unknown>", "<start>", *words])}
        self.end = len(self.index)
        self.size = self.end + 1

    @classmethod
    def fit(cls, texts: list[str]) -> Tokenizer:
        counts = Counter(w for text in texts for w in split_words(text))
        return cls(sorted(counts))

    def __call__(self, texts: list[str]) -> Tokens:
        """Token numbers (n, 48) and their mask, cut at the context length."""
        tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
        for i, text in enumerate(texts):
            words = [self.index.get(w, 1) for w in split_words(text)][: CONTEXT - 2]
            row = [self.index["<start>"], *words, self.end]
            tokens[i, : len(row)] = torch.tensor(row)
        return Tokens(tokens, (tokens > 0).long())


def split_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def network(architecture: str, vocabulary: int) -> TokenCLIP:
    """An untrained small CLIP; ``architecture`` is a key of ``VISION``."""
    text = CLIPTextCfg(context_length=CONTEXT, vocab_size=vocabulary, width=128, heads=4, layers=2)
    return TokenCLIP(EMBED_DIM, CLIPVisionCfg(**VISION[architecture]), text)


def preprocess(images: np.ndarray | Sequence) -> torch.Tensor:
    """uint8 (n, h, w), or films one by one, to float (n, 3, 64, 64), standardised."""
    if not (isinstance(images, np.ndarray) and images.ndim == 3):
        return steps.each(lambda film: preprocess(np.array(film)[None])[0])(images)
    x = torch.from_numpy(np.ascontiguousarray(images)).float()[:, None] / 255
    if x.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        x = F.interpolate(x, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
    return ((x - MEAN) / SD).expand(-1, 3, -1, -1)


def save(model: TokenCLIP, card: dict, path: Path) -> dict:
    """Write half-precision weights and the card beside them; the card gains size and hash."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    data = to_bytes({k: v.contiguous() for k, v in tensors.items()})
    card = card | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "size_mb": round(len(data) / 2**20, 2),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    for file, content in (
        (path, data),
        (path.with_suffix(".json"), f"{json.dumps(card, indent=1)}\n".encode()),
    ):
        atomic.write(file, content)
    return card


def load(path: Path) -> Encoder:
    """A saved model; tensors only, checked against the hash and the shapes of its card."""
    card_file = path.with_suffix(".json")
    for file in (path, card_file):
        if not file.exists():
            raise ValueError(f"{file} is missing: restore it, or run `make phantom-models`")
    card = json.loads(card_file.read_text())
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["sha256"]:
        raise ValueError(
            f"{path} does not match the hash in {card_file.name}: restore both files, "
            "or run `make phantom-models`"
        )
    tokenizer = Tokenizer(card["vocabulary"])
    model = network(card["architecture"], tokenizer.size)
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    model.load_state_dict(state, strict=True)
    return Encoder(
        name=card["name"],
        network=model.eval(),
        preprocess=preprocess,
        tokenizer=tokenizer,
        card=card | {"embed_dim": EMBED_DIM},
        weights=card["sha256"],
        code=(Path(__file__), Path(steps.__file__)),
        logit_scale=float(model.logit_scale.detach().exp()),
    )

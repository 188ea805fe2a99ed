"""BiomedCLIP (Zhang et al. 2023, arXiv:2303.00915): ViT-B/16 and BiomedBERT, trained by open_clip.

open_clip builds its text encoder from a configuration on the Hub; here the same parts are put
together without one.
"""

from __future__ import annotations

import math

import timm
import torch
from open_clip.tokenizer import get_clean_fn
from torch import nn

from cxrlib.models import images
from cxrlib.models.recipe import Recipe
from cxrlib.models.text import bert, wordpiece


class BiomedCLIP(nn.Module):
    """Both encoders end in 512 dimensions."""

    def __init__(self):
        super().__init__()
        head = nn.ModuleDict({"proj": nn.Linear(768, 512, bias=False)})
        trunk = timm.create_model("vit_base_patch16_224", num_classes=0)
        self.visual = nn.ModuleDict({"trunk": trunk, "head": head})
        proj = nn.Sequential(
            nn.Linear(768, 640, bias=False), nn.GELU(), nn.Linear(640, 512, bias=False)
        )
        self.text = nn.ModuleDict({"transformer": bert(30522, pooler=False), "proj": proj})
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        """(n, 3, 224, 224) to (n, 512): the class token, projected."""
        return self.visual["head"]["proj"](self.visual["trunk"](batch))

    def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Two (n, length) to (n, 512): the state of the first token, projected."""
        states = self.text["transformer"](ids, attention_mask=mask).last_hidden_state
        return self.text["proj"](states[:, 0])


MODELS = {
    "biomedclip": Recipe(
        build=BiomedCLIP,
        tokenizer=lambda vocabulary: wordpiece(
            vocabulary, length=256, pad_to=256, clean=get_clean_fn("whitespace")
        ),
        preprocess=images.clip,
    )
}

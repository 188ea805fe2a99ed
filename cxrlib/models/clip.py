"""OpenAI's CLIP (Radford et al. 2021), and CheXzero (Tiu et al. 2022), which is a CLIP of its own.

Both are open_clip's CLIP with QuickGELU and accept OpenAI's key names as they are.
"""

from __future__ import annotations

import torch
from open_clip import get_model_config
from open_clip.model import CLIP
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from cxrlib.models import images
from cxrlib.models.recipe import Recipe
from cxrlib.models.text import clip_bpe


class TokenCLIP(CLIP):
    """open_clip's CLIP; it masks by causality and finds the end token itself."""

    def encode_text(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, normalize: bool = False
    ) -> torch.Tensor:
        return super().encode_text(ids, normalize)


def build(config: str) -> TokenCLIP:
    return TokenCLIP(**get_model_config(config))


def chexzero(image: Image.Image) -> torch.Tensor:
    """CheXzero's own: longest side to 320, black margins, grey statistics, then to 224.

    Its pinned torchvision did not antialias the last step.
    """
    side = 320
    ratio = side / max(image.size)
    width, height = (int(x * ratio) for x in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (side, side))
    canvas.paste(small, ((side - width) // 2, (side - height) // 2))
    x = TF.pil_to_tensor(canvas).float().expand(3, -1, -1)
    x = (x - 101.48761) / 83.43944
    return F.interpolate(x[None], (224, 224), mode="bicubic", align_corners=False)[0]


MODELS = {
    "clip_vit_b16": Recipe(
        build=lambda: build("ViT-B-16-quickgelu"),
        tokenizer=lambda folder: clip_bpe(cut=False),
        preprocess=images.clip,
    ),
    "chexzero": Recipe(
        build=lambda: build("ViT-B-32-quickgelu"),
        tokenizer=lambda folder: clip_bpe(),
        preprocess=chexzero,
        # Paper S cropped, used CLIP's pixel statistics and left the temperature out.
        preprocess_s=images.clip,
        scale_s=False,
    ),
}

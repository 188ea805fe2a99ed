"""MedImageInsight (Codella et al. 2024, arXiv:2410.06542): a DaViT and a text transformer.

timm's DaViT is the image encoder once its layers are given upstream's names; the text encoder
consists of open_clip's blocks.
"""

from __future__ import annotations

import unicodedata
from functools import partial

import timm
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from PIL import Image
from torch import nn
from torchvision.transforms import functional as TF

from cxrlib.models import images
from cxrlib.models.recipe import Recipe
from cxrlib.models.text import clip_bpe

WIDTH, HEADS, LAYERS = 1024, 16, 16


class MedImageInsight(nn.Module):
    """Both encoders end in 1024 dimensions."""

    def __init__(self):
        super().__init__()
        # Random numbers for 616 million weights would take longer than reading them from a file.
        with torch.device("meta"):
            image_encoder = timm.create_model("davit_huge_fl", num_classes=0)
            lang_encoder = TextTransformer(
                width=WIDTH,
                heads=HEADS,
                layers=LAYERS,
                output_dim=None,
                no_causal_mask=True,
                act_layer=QuickGELU,
                norm_layer=partial(nn.LayerNorm, eps=1e-12),
            )
        self.image_encoder = image_encoder.to_empty(device="cpu")
        self.lang_encoder = lang_encoder.to_empty(device="cpu")
        self.image_projection = nn.Parameter(torch.empty(2048, WIDTH))
        self.lang_projection = nn.Parameter(torch.empty(WIDTH, WIDTH))
        self.logit_scale = nn.Parameter(torch.ones(()))

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        """(n, 3, 480, 480) to (n, 1024): the mean of all positions, normalised and projected."""
        return self.image_encoder(batch) @ self.image_projection

    def encode_text(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Two (n, length) to (n, 1024): the state of the end token, projected.

        Tokens see each other in both directions, but no padding. open_clip would take every id 0
        for padding, which is also the word piece "!".
        """
        encoder, (n, length) = self.lang_encoder, ids.shape
        hidden = torch.zeros(n, 1, length, device=ids.device)
        hidden = hidden.masked_fill(mask[:, None] == 0, -torch.inf)
        hidden = hidden.expand(-1, length, -1).repeat_interleave(HEADS, dim=0)
        states = encoder.token_embedding(ids) + encoder.positional_embedding[:length]
        states = encoder.ln_final(encoder.transformer(states, attn_mask=hidden))
        ends = ids.argmax(dim=1)  # the end token has the largest id
        return states[torch.arange(n, device=ids.device), ends] @ self.lang_projection


def clean(text: str) -> str:
    """As Hugging Face's CLIP tokenizer, which leaves HTML entities alone, unlike OpenAI's.

    Lower case letter by letter: at the end of a word Python would write another sigma.
    """
    return "".join(map(str.lower, " ".join(unicodedata.normalize("NFC", text).split())))


def preprocess(image: Image.Image) -> torch.Tensor:
    """Squeezed to a square of 480 pixels, whatever its shape; ImageNet's pixel statistics."""
    return images.tensor(TF.resize(image, [480, 480], images.BICUBIC), *images.IMAGENET)


MODELS = {
    "medimageinsight": Recipe(
        build=MedImageInsight,
        tokenizer=lambda folder: clip_bpe(clean),
        preprocess=preprocess,
        renames=(
            (r"^lang_encoder\.transformer\.", "lang_encoder."),
            (r"\.stem\.", ".convs.0."),
            (r"\.stages\.(\d+)\.downsample\.", r".convs.\1."),
            (r"(\.convs\.\d+)\.conv\.", r"\1.proj."),
            (r"\.stages\.(\d+)\.blocks\.", r".blocks.\1."),
            (r"\.cpe(\d)\.proj\.", r".conv\1.fn.dw."),
            (r"(spatial_block)\.norm1\.", r"\1.window_attn.norm."),
            (r"(spatial_block)\.attn\.", r"\1.window_attn.fn."),
            (r"(channel_block)\.norm1\.", r"\1.channel_attn.norm."),
            (r"(channel_block)\.attn\.", r"\1.channel_attn.fn."),
            (r"\.norm2\.", ".ffn.norm."),
            (r"(_block)\.mlp\.", r"\1.ffn.fn.net."),
            (r"\.head\.norm\.", ".norms."),
        ),
    )
}

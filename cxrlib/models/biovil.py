"""BioViL (Boecking et al. 2022, ECCV) and BioViL-T (Bannur et al. 2023, CVPR).

A ResNet-50 whose map is projected patch by patch, and CXR-BERT. BioViL-T also compares a film with
the patient's previous one. Upstream publishes two files, one for each half: a network here has the
two parts ``image`` and ``text`` with upstream's key names.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.transforms import functional as TF
from transformers import BertConfig, BertForMaskedLM

from cxrlib.models import images
from cxrlib.models.encoder import Tokens
from cxrlib.models.recipe import Recipe
from cxrlib.models.text import wordpiece

WIDTH = 128  # of the embeddings that image and text share
GRID = 14  # patches a side that BioViL-T's pooler compares; 448 pixels
SPECIAL = ("[UNK]", "[SEP]", "[PAD]", "[CLS]")  # [MASK] is allowed in a text


class Map(ResNet):
    """ResNet-50 up to its last map: (n, 3, h, w) to (n, 2048, h / 32, w / 32).

    The ImageNet head ``fc`` is never used, but it is in the checkpoints.
    """

    def __init__(self):
        super().__init__(Bottleneck, [3, 4, 6, 3])

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class ImageEncoder(nn.Module):
    """BioViL's features of each patch: (n, 3, h, w) to (n, 2048, h / 32, w / 32)."""

    channels = 2048

    def __init__(self):
        super().__init__()
        self.encoder = Map()

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class Attention(nn.Module):
    """Self-attention of 8 heads; only the last of its four matrices has a bias."""

    def __init__(self, width):
        super().__init__()
        self.proj_q = nn.Linear(width, width, bias=False)
        self.proj_k = nn.Linear(width, width, bias=False)
        self.proj_v = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            matrix(x).unflatten(2, (8, -1)).transpose(1, 2)
            for matrix in (self.proj_q, self.proj_k, self.proj_v)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block that is told in each attention anew where a token comes from.

    Unlike in DETR, ``origin`` is added to what the values are made of, too.
    """

    def __init__(self, width):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, width)

    def forward(self, x: Tensor, origin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x) + origin)
        return x + self.mlp(self.norm2(x))


class Pooler(nn.Module):
    """What has changed since the previous image, for each patch of the current one.

    Takes the two maps (n, width, 14, 14) and returns one (Bannur et al. 2023, section 3.1).
    """

    def __init__(self, width):
        super().__init__()
        self.type_embed = nn.Parameter(torch.zeros(2, 1, width))  # current, previous
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.norm_post = nn.LayerNorm(width, eps=1e-6)
        self.register_buffer("position", sine_positions(GRID, width), persistent=False)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        x = torch.cat([current.flatten(2), previous.flatten(2)], dim=2).transpose(1, 2)
        origin = torch.cat([self.position + kind for kind in self.type_embed])
        for block in self.blocks:
            x = block(x, origin)
        x = self.norm_post(x)[:, : GRID * GRID]
        return x.transpose(1, 2).unflatten(2, (GRID, GRID))


def sine_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row (first half) and column of each patch: (side * side, width).

    Rows and columns count 1, 2, ... and are scaled so that the last is 2 pi; frequencies fall from
    1 to nearly 1/10,000 (Vaswani et al. 2017, section 3.5, once for each axis).
    """
    half = width // 2
    angle = torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6) * 2 * math.pi
    period = 10_000 ** (torch.arange(0, half, 2, dtype=torch.float32) / half)
    angle = angle[:, None] / period
    axis = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)  # alternating: (side, half)
    rows, columns = axis.repeat_interleave(side, dim=0), axis.repeat(side, 1)
    return torch.cat([rows, columns], dim=1)


class TemporalImageEncoder(nn.Module):
    """BioViL-T's features of each patch: what is there (256), and what has changed (256).

    (n, 3, h, w) to (n, 512, h / 32, w / 32). Without a previous image a learned vector stands for
    the change.
    """

    channels = 512

    def __init__(self):
        super().__init__()
        self.encoder = Map()
        self.backbone_to_vit = nn.Conv2d(2048, 256, kernel_size=1, bias=False)
        self.vit_pooler = Pooler(256)
        self.missing_previous_emb = nn.Parameter(torch.zeros(1, 256, 1, 1))

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        there = self.backbone_to_vit(self.encoder(x))
        if previous is None:
            change = self.missing_previous_emb.expand_as(there)
        else:
            if x.shape != previous.shape or there.shape[2:] != (GRID, GRID):
                raise ValueError(
                    f"BioViL-T: images of shape {tuple(x.shape)} with previous ones of shape "
                    f"{tuple(previous.shape)}: expected one previous image for each, all of "
                    f"{32 * GRID} x {32 * GRID} pixels; other sizes are possible only without "
                    "previous images"
                )
            change = self.vit_pooler(there, self.backbone_to_vit(self.encoder(previous)))
        return torch.cat([there, change], dim=1)


class ImageModel(nn.Module):
    """Images (n, 3, h, w) to projected patches (n, 128, h / 32, w / 32)."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        layers = nn.Sequential(
            nn.Conv2d(encoder.channels, WIDTH, kernel_size=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, kernel_size=1),
        )
        self.projector = nn.Sequential(OrderedDict(model=layers))

    def forward(self, x: Tensor, **previous: Tensor) -> Tensor:
        return self.projector(self.encoder(x, **previous))


class ProjectionHead(nn.Module):
    """CXR-BERT's projection of a hidden state: (n, 768) to (n, 128)."""

    def __init__(self):
        super().__init__()
        self.dense_to_hidden = nn.Linear(768, WIDTH)
        self.act = nn.GELU()
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.dense_to_output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_to_output(self.LayerNorm(self.act(self.dense_to_hidden(x))))


class CXRBert(BertForMaskedLM):
    """BERT-base with its head for masked words, and a second head that projects [CLS].

    Called with ids and mask, it returns the ``logits`` (n, length, 30522) of the masked words.
    """

    # BioViL-T's file is larger by what BERT's pooler takes; transformers drops it for this class.
    unused = r"^bert\.pooler\."

    def __init__(self):
        super().__init__(BertConfig(vocab_size=30522))
        self.cls_projection_head = ProjectionHead()


class BioViL(nn.Module):
    """Both halves. Image methods of BioViL-T take ``previous``, a batch of the same shape."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.image = ImageModel(encoder)
        self.text = CXRBert()

    def encode_image(self, batch: Tensor, **previous: Tensor) -> Tensor:
        """Mean of the projected patches, not of unit length: (n, 128)."""
        return self.image(batch, **previous).mean(dim=(2, 3))

    def patches(self, batch: Tensor, **previous: Tensor) -> Tensor:
        """Embeddings of the patches, each of unit length: (n, h / 32, w / 32, 128).

        Their products with a text embedding show where in a film the text is found (Boecking et
        al. 2022, section 3).
        """
        return F.normalize(self.image(batch, **previous), dim=1).permute(0, 2, 3, 1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Projected [CLS], not of unit length: (n, 128)."""
        hidden = self.text.bert(ids, mask).last_hidden_state
        return self.text.cls_projection_head(hidden[:, 0])


def stretch(image: Image.Image) -> Image.Image:
    """Grey values stretched to 0..255, truncated to whole numbers.

    A film of a single value has nothing to stretch: it becomes black.
    """
    x = np.asarray(image, dtype=np.float64)
    x = x - x.min()
    return Image.fromarray((x / max(x.max(), 1) * 255).astype(np.uint8))


def prepare(crop: int) -> Callable[[Image.Image], Tensor]:
    """Stretched, shorter side to 512, central square of side ``crop``, in [0, 1]."""

    def preprocess(image):
        image = images.short_side(stretch(image), 512, images.BILINEAR, crop)
        return TF.to_tensor(image.convert("RGB"))

    return preprocess


def clean(text: str) -> str:
    """A text without closing punctuation.

    Raises
    ------
    ValueError
        A special token, other than [MASK], in the text.
    """
    if found := [token for token in SPECIAL if token in text]:
        raise ValueError(
            f"the text {text!r:.80} contains the special token {found[0]}: of these only [MASK] "
            "may stand in a text; remove it"
        )
    return text.rstrip("!?.")


def tokenizer(vocabulary: Path) -> Callable[[list[str]], Tokens]:
    """CXR-BERT's: padded to the longest text of a call, nothing is cut."""
    return wordpiece(vocabulary, None, clean=clean)


# Upstream's files are one for each part, and their keys do not name it.
PARTS = ((r"^(image|text)\.", ""),)

# Paper S took the whole 512 pixels and left text embeddings at the length they come in.
MODELS = {
    "biovil": Recipe(
        build=lambda: BioViL(ImageEncoder()),
        tokenizer=tokenizer,
        preprocess=prepare(480),
        preprocess_s=prepare(512),
        unit_text_s=False,
        average="raw",
        renames=PARTS,
    ),
    "biovil_t": Recipe(
        build=lambda: BioViL(TemporalImageEncoder()),
        tokenizer=tokenizer,
        preprocess=prepare(448),
        preprocess_s=prepare(512),
        unit_text_s=False,
        average="raw",
        renames=PARTS,
    ),
}

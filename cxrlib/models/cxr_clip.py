"""CXR-CLIP (You et al. 2023, MICCAI, arXiv:2310.13292), with a ResNet-50 or a Swin-T."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from cxrlib.models import images
from cxrlib.models.recipe import Recipe
from cxrlib.models.swin import RENAMES, swin
from cxrlib.models.text import bert, wordpiece


class ResNet(nn.Module):
    """ResNet-50 without its classifier: 2048 averaged features."""

    width = 2048

    def __init__(self):
        super().__init__()
        self.resnet = resnet50()
        self.resnet.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.resnet(x)


class Swin(nn.Module):
    """Swin-T; its first token, the top left one, stands for the image as a class token would."""

    width = 768

    def __init__(self):
        super().__init__()
        self.image_encoder = swin()

    def forward(self, x: Tensor) -> Tensor:
        return self.image_encoder(x).last_hidden_state[:, 0]


class Text(nn.Module):
    """Bio_ClinicalBERT; the last token, [SEP], stands for the text."""

    def __init__(self):
        super().__init__()
        self.text_encoder = bert(28_996, pooler=True)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(dim=1) - 1]


class Projection(nn.Module):
    """To the 512 dimensions that images and texts share."""

    def __init__(self, width: int):
        super().__init__()
        self.projection = nn.Linear(width, 512)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)


class CXRCLIP(nn.Module):
    """The two encoders, their projections and the temperature."""

    def __init__(self, vision: type[ResNet | Swin]):
        super().__init__()
        self.image_encoder = vision()
        self.text_encoder = Text()
        self.image_projection = Projection(vision.width)
        self.text_projection = Projection(768)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, batch: Tensor) -> Tensor:
        """Vectors (n, 512) of images (n, 3, 224, 224)."""
        return self.image_projection(self.image_encoder(batch))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.text_projection(self.text_encoder(ids, mask))


def preprocess(image: Image.Image, statistics: tuple) -> Tensor:
    """Bilinear to 224, central square, standardised."""
    return images.tensor(images.short_side(image, 224, images.BILINEAR, 224), *statistics)


def recipe(vision: type[ResNet | Swin], statistics: tuple, **differences: Any) -> Recipe:
    return Recipe(
        build=partial(CXRCLIP, vision),
        tokenizer=lambda vocabulary: wordpiece(vocabulary, 256),
        preprocess=partial(preprocess, statistics=statistics),
        # Its authors' evaluation leaves the temperature out, as paper S does.
        scale_s=False,
        **differences,
    )


MODELS = {
    "cxr_clip_rn50": recipe(
        ResNet,
        images.IMAGENET,
        # Paper S took the Swin's statistics.
        preprocess_s=partial(preprocess, statistics=images.HALF),
    ),
    "cxr_clip_swin": recipe(Swin, images.HALF, renames=RENAMES),
}

"""MedCLIP (Wang et al. 2022, EMNLP, arXiv:2210.10163), with a ResNet-50 or a Swin-T.

A text's vector is a mean over all its positions, padding included: what it is padded to changes it.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from cxrlib.models import images
from cxrlib.models.recipe import Recipe
from cxrlib.models.swin import RENAMES, swin
from cxrlib.models.text import bert, wordpiece

HIDDEN = (1, 2, 12)  # the hidden states that are averaged; 0 are the embeddings, 12 the last
PIXELS = (0.5862785803043838,) * 3, (0.27950088968644304,) * 3


class ResNet(nn.Module):
    """ResNet-50 with a projection in place of its classifier."""

    def __init__(self):
        super().__init__()
        self.model = resnet50()
        self.model.fc = nn.Linear(2048, 512, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Swin(nn.Module):
    """Swin-T: the mean over its tokens, projected."""

    def __init__(self):
        super().__init__()
        self.model = swin()
        self.projection_head = nn.Linear(768, 512, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection_head(self.model(x).pooler_output)


class Text(nn.Module):
    """Bio_ClinicalBERT: the mean of three hidden states over all positions, projected."""

    def __init__(self):
        super().__init__()
        self.model = bert(28_996, pooler=True)
        self.projection_head = nn.Linear(768, 512, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        positions = torch.stack([states[layer] for layer in HIDDEN]).mean(dim=0)
        return self.projection_head(positions.mean(dim=1))


class MedCLIP(nn.Module):
    """The two encoders and the temperature."""

    def __init__(self, vision: type[nn.Module]):
        super().__init__()
        self.vision_model = vision()
        self.text_model = Text()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, batch: Tensor) -> Tensor:
        """Vectors (n, 512) of images (n, 3, 224, 224), or (n, 1, 224, 224): repeated to three."""
        return self.vision_model(batch.expand(-1, 3, -1, -1))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.text_model(ids, mask)


def square(image: Image.Image) -> Image.Image:
    """The image in the middle of a black square, of at least 224 x 224."""
    side = max(224, *image.size)
    canvas = Image.new("L", (side, side))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def preprocess(image: Image.Image) -> Tensor:
    """Its authors' feature extractor: black margins, bicubic to 224, statistics of radiographs."""
    small = square(image).resize((224, 224), Image.Resampling.BICUBIC)
    return images.tensor(small, *PIXELS)


def recipe(vision: type[nn.Module], renames: tuple[tuple[str, str], ...] = ()) -> Recipe:
    return Recipe(
        build=partial(MedCLIP, vision),
        tokenizer=lambda vocabulary: wordpiece(vocabulary, 77),
        preprocess=preprocess,
        # Texts of one call were padded together, by the authors and by paper S.
        one_by_one=True,
        renames=renames,
        max_log_scale=4.6052,
    )


MODELS = {"medclip_rn50": recipe(ResNet), "medclip_vit": recipe(Swin, RENAMES)}

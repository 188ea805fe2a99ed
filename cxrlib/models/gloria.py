"""GLoRIA (Huang et al. 2021): images and reports compared as wholes, and word by image patch.

The book's chapters use the cosine of the global embeddings, which is what ``encode_image`` and
``encode_text`` give. The authors' zero-shot classification adds the local comparison;
:func:`similarities` and :func:`zero_shot` compute it as their code does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.transforms import functional as TF

from cxrlib.models import images
from cxrlib.models.recipe import Recipe
from cxrlib.models.text import bert, wordpiece, words

WORDS = 28_996  # Bio_ClinicalBERT's vocabulary
WIDTH = 768
LENGTH = 97  # positions of a text, padding included
LAYERS = slice(9, 13)  # the last four of BERT's 13 hidden states
ATTENTION, SHARPNESS = 4.0, 5.0  # upstream's temp1 and temp2, which multiply


class ImageEncoder(nn.Module):
    """ResNet-50 on images enlarged to 299 pixels, with a global and a local projection."""

    def __init__(self):
        super().__init__()
        self.model = resnet50()
        self.model.fc = nn.Identity()
        self.global_embedder = nn.Linear(2048, WIDTH)
        self.local_embedder = nn.Conv2d(1024, WIDTH, kernel_size=1, bias=False)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features of the last stage (n, 2048), map of the one before (n, 1024, 19, 19)."""
        net = self.model
        x = net.maxpool(net.relu(net.bn1(net.conv1(enlarge(batch)))))
        patches = net.layer3(net.layer2(net.layer1(x)))
        return net.avgpool(net.layer4(patches)).flatten(1), patches


class TextEncoder(nn.Module):
    """BERT, and which of its word pieces continue a word ("##" in the vocabulary)."""

    def __init__(self):
        super().__init__()
        self.model = bert(WORDS, pooler=True)
        self.register_buffer("continues", torch.zeros(WORDS, dtype=torch.bool), persistent=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Word embeddings (n, length, 768), zero behind the last word."""
        states = self.model(ids, mask, output_hidden_states=True).hidden_states
        return sum_pieces(torch.stack(states[LAYERS]).sum(0), self.word_of_piece(ids), mask)

    def word_of_piece(self, ids: Tensor) -> Tensor:
        """Position of the word that each piece belongs to, (n, length)."""
        return (~self.get_buffer("continues")[ids]).cumsum(1) - 1


class GLoRIA(nn.Module):
    """Both encoders, under upstream's names."""

    def __init__(self):
        super().__init__()
        self.text_encoder = TextEncoder()
        self.img_encoder = ImageEncoder()

    def join(self, pieces: Iterable[int]) -> None:
        """Say which ids of the vocabulary continue a word; none does before this is called.

        Only the local embeddings of texts depend on it.
        """
        self.text_encoder.continues[:] = False
        self.text_encoder.continues[list(pieces)] = True

    def encode_image(self, batch: Tensor) -> Tensor:
        """Global embeddings (n, 768) of images (n, 3, 224, 224)."""
        return self.img_encoder.global_embedder(self.img_encoder(batch)[0])

    def local_image(self, batch: Tensor) -> Tensor:
        """Embeddings of 19 x 19 patches, (n, 768, 19, 19), of images (n, 3, 224, 224)."""
        return self.img_encoder.local_embedder(self.img_encoder(batch)[1])

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Global embeddings (m, 768): the sum over the words, divided by all positions."""
        return self.local_text(ids, mask).mean(dim=2)

    def local_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of words, (m, 768, 97): [CLS], the words, [SEP], then zeros.

        Parameters
        ----------
        ids, mask : (m, 97)
            What the tokenizer returns.
        """
        return self.text_encoder(ids, mask).transpose(1, 2)

    def count_words(self, ids: Tensor, mask: Tensor) -> list[int]:
        """Words of each text without [CLS] and [SEP]."""
        last = (self.text_encoder.word_of_piece(ids) * mask).amax(1)
        return (last - 1).tolist()


def enlarge(batch: Tensor) -> Tensor:
    """Bilinear to 299 x 299, corner pixels staying in the corners."""
    return F.interpolate(batch, (299, 299), mode="bilinear", align_corners=True)


def sum_pieces(states: Tensor, word: Tensor, mask: Tensor) -> Tensor:
    """Sum the hidden states (n, length, d) of the pieces of each word; padding adds nothing."""
    positions = torch.arange(word.shape[1], device=word.device)[:, None]
    belongs = (word[:, None] == positions) & mask[:, None].bool()
    return belongs.to(states.dtype) @ states


# --- comparing images and texts ---


class Similarities(NamedTuple):
    """Of each image (row) to each text (column); ``both`` is the mean of the other two."""

    whole: Tensor
    local: Tensor
    both: Tensor


@torch.inference_mode()
def similarities(
    network: GLoRIA,
    batch: Tensor,
    ids: Tensor,
    mask: Tensor,
    cap_lens: Sequence[int] | None = None,
) -> Similarities:
    """Global, local and mean similarity of n images and m texts (Huang et al. 2021).

    Parameters
    ----------
    network : GLoRIA
        ``.network`` of a loaded model.
    batch : (n, 3, 224, 224)
        What ``preprocess`` returns.
    ids, mask : (m, 97)
        What ``tokenizer`` returns.
    cap_lens : m ints, optional
        Columns of each text, after [CLS], that count as words. By default its words, as intended.
        With the number of characters of each text instead, "[" not counted, the scores are those
        of the authors' code, which takes [SEP] and columns of zeros for words, too.

    Returns
    -------
    Similarities: three tensors (n, m); ``whole`` are cosines in [-1, 1], ``local`` in [-5, 5].
    """
    encoder = network.img_encoder
    pooled, patches = encoder(batch)
    texts = network.local_text(ids, mask)
    image, text = (F.normalize(x, dim=1) for x in (encoder.global_embedder(pooled), texts.mean(2)))
    whole = image @ text.T
    if cap_lens is None:
        cap_lens = network.count_words(ids, mask)
    local = local_similarity(encoder.local_embedder(patches), texts, cap_lens)
    return Similarities(whole, local, (whole + local) / 2)


def local_similarity(patches: Tensor, texts: Tensor, cap_lens: Sequence[int]) -> Tensor:
    """Five times the best cosine of a word and what it attends to, (n, m).

    The authors' zero-shot code, which takes the best word where the training loss of the paper
    takes the logarithm of a sum of exponentials over the words.

    Parameters
    ----------
    patches : (n, 768, 19, 19)
    texts : (m, 768, length)
    cap_lens : m ints
        As for :func:`similarities`.

    Raises
    ------
    ValueError
        No word, or more of them than columns.
    """
    most = texts.shape[2] - 1
    if len(cap_lens) != len(texts) or not all(1 <= n <= most for n in cap_lens):
        raise ValueError(
            f"cap_lens={list(cap_lens)!r:.200} for {len(texts)} texts: expected one number from 1 "
            f"to {most} for each; shorten the text, or count its words"
        )
    columns = []
    for text, n in zip(texts, cap_lens, strict=True):
        word = text[:, 1 : n + 1]
        cosine = F.cosine_similarity(attend(word, patches)[1], word[None], dim=1)
        columns.append(SHARPNESS * cosine.amax(dim=1))
    return torch.stack(columns, dim=1)


def attend(word: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Where in each image the words of a text look, and what they see there.

    Scalar products of patches and words go through a softmax over the words, as each patch has to
    choose, then times four through a softmax over the patches.

    Parameters
    ----------
    word : (768, w)
    patches : (n, 768, 19, 19)

    Returns
    -------
    map : (n, w, 19, 19), sums to 1 over the patches
    context : (n, 768, w), mean of the patches weighted by the map
    """
    flat = patches.flatten(2)
    choice = (flat.transpose(1, 2) @ word).softmax(dim=2)
    weight = (ATTENTION * choice).softmax(dim=1)
    attention = weight.transpose(1, 2).unflatten(2, patches.shape[2:])
    return attention, flat @ weight


def zero_shot(scores: Tensor, classes: Sequence[Sequence[int]]) -> Tensor:
    """The authors' zero-shot scores of k classes, (n, k).

    Each class scores as its best prompt. With more than one image, the scores of a class are then
    standardised over the images at hand (population standard deviation), so the score of an image
    depends on which others are scored with it; it is NaN where all score alike.

    Parameters
    ----------
    scores : (n, m)
        ``both`` of :func:`similarities`.
    classes : k sequences of int
        Columns of each class's prompts.
    """
    best = torch.stack([scores[:, list(prompts)].amax(dim=1) for prompts in classes], dim=1)
    if len(best) == 1:
        return best
    return (best - best.mean(dim=0)) / best.std(dim=0, correction=0)


# --- what goes in ---


def preprocess(image: Image.Image) -> Tensor:
    """Longer side to 256, black margins, central 224 pixels, from -1 to 1."""
    film, side = np.asarray(image), 256
    height, width = film.shape
    # In floating point 256 / n * n may fall short of 256: some squares lose a column, as upstream.
    if height >= width:
        height, width = side, int(width * (side / height))
    else:
        height, width = int(height * (side / width)), side
    small = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    margins = [((side - n) // 2, side - n - (side - n) // 2) for n in small.shape]
    square = Image.fromarray(np.pad(small, margins))
    return images.tensor(TF.center_crop(square, 224), *images.HALF)


def clean(text: str) -> str:
    """Words of a report as the authors' code keeps them.

    Sentences end at a full stop; numbers in front of one go with it. What is kept are the words,
    in lower case and without letters outside ASCII, of sentences with at least two words.

    Raises
    ------
    ValueError
        Nothing is left, so that the text would be encoded as if it were empty.
    """
    sentences = (re.findall(r"\w+", s.lower()) for s in re.split(r"[0-9]*\.", text))
    kept = (word for sentence in sentences if len(sentence) > 1 for word in sentence)
    ascii_only = (word.encode("ascii", "ignore").decode() for word in kept)
    cleaned = " ".join(filter(None, ascii_only))
    if not cleaned:
        raise ValueError(
            f"gloria: nothing is left of the text {text!r:.80}: its authors' code drops sentences "
            "of a single word; write at least two, such as 'mild edema'"
        )
    return cleaned


def read_pieces(network: GLoRIA, vocabulary: Path) -> None:
    """Tell the network which ids continue a word, from the "##" of ``vocab.txt``."""
    known = words(vocabulary)
    if len(known) > WORDS:
        raise ValueError(
            f"{vocabulary}: {len(known)} words; expected the {WORDS} of Bio_ClinicalBERT"
        )
    network.join(i for i, word in enumerate(known) if word.startswith("##"))


MODELS = {
    "gloria": Recipe(
        build=GLoRIA,
        tokenizer=lambda vocabulary: wordpiece(vocabulary, LENGTH, pad_to=LENGTH, clean=clean),
        preprocess=preprocess,
        prefix="gloria.",
        vocabulary=read_pieces,
    ),
}

"""MedCLIP is upstream's: what it averages, what padding does, one channel, margins, temperature."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from cxrlib.models import images, medclip, registry
from tests import upstream

TEXTS = ["effusion", "a much longer text about an effusion"]


@pytest.fixture(scope="module", params=list(medclip.MODELS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    return upstream.network(name)


@pytest.fixture(scope="module")
def figures(name):
    return upstream.figures(name)


# --- figures ---


@torch.inference_mode()
def test_image_vectors_have_upstreams_length(network, figures):
    recorded = figures["image"]["embeddings_before_l2_sample25"]
    upstream.assert_summary(network.encode_image(upstream.both_images()), recorded)


def test_one_channel_is_repeated_to_three(network, figures):
    one = upstream.both_images()[:, :1]
    found = upstream.image_vectors(network, one)
    upstream.assert_summary(found, figures["image"]["one_channel_input"]["embeddings_sample25"])
    upstream.assert_close(found, upstream.image_vectors(network, one.repeat(1, 3, 1, 1)), 1e-7)


@torch.inference_mode()
def test_hidden_states_are_upstreams(name, network, figures):
    ids, mask = upstream.tokens(name)
    bert = network.text_model.model
    states = bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for layer, recorded in figures["text"]["hidden_states_sample25"].items():
        upstream.assert_summary(states[int(layer)], recorded)


def test_text_vectors_depend_on_the_padding_as_upstreams_do(name, network, figures):
    text = figures["text"]
    found = upstream.text_vectors(network, *upstream.tokens(name, 77))
    upstream.assert_close(found, text["padded_to_77"]["embeddings"], upstream.ATOL)
    upstream.assert_summary(found, text["padded_to_77"]["embeddings_sample25"])
    ids, mask = upstream.tokens(name)
    found = upstream.text_vectors(network, ids[:1, :5], mask[:1, :5])
    upstream.assert_close(found[0], text["alone_unpadded"]["row0"], upstream.ATOL)


@pytest.mark.parametrize("length", [9, 77])
def test_logits_are_upstreams(name, network, figures, length):
    scale = registry.recipe(name).learned_scale(network)
    texts = upstream.text_vectors(network, *upstream.tokens(name, length))
    logits = scale * upstream.image_vectors(network, upstream.both_images()) @ texts.T
    recorded = figures["logits_per_image"][f"length_{length}"]
    # Tolerance on unit vectors, times the scale.
    upstream.assert_close(logits, recorded, upstream.ATOL * scale)


@pytest.mark.parametrize("log, scale", [(-1.0, 1.0), (2.0, math.exp(2)), (9.0, math.exp(4.6052))])
def test_the_temperature_is_clamped(name, network, log, scale):
    before = network.logit_scale.detach().clone()
    try:
        network.logit_scale.data.fill_(log)
        assert registry.recipe(name).learned_scale(network) == pytest.approx(scale)
    finally:
        network.logit_scale.data.copy_(before)


def test_preprocessing_of_upstreams_evaluation_differs_in_the_resizing_alone(figures):
    small = TF.resize(medclip.square(images.grey(upstream.film())), [224, 224], images.BILINEAR)
    found = images.tensor(small, *medclip.PIXELS)
    recorded = figures["preprocess"]["small_300x260"]["upstream_zeroshot_dataset"]
    upstream.assert_summary(found[:1], recorded)


# --- properties ---


@torch.inference_mode()
def test_images_of_a_batch_do_not_touch_each_other(network):
    together = upstream.image_vectors(network, upstream.both_images())
    alone = torch.cat([upstream.image_vectors(network, x[None]) for x in upstream.both_images()])
    upstream.assert_close(together, alone, 1e-6)


@pytest.mark.parametrize("height, width", [(100, 80), (81, 223), (224, 224)])
def test_small_films_get_margins_and_are_not_enlarged(height, width):
    film = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    top, left = (224 - height) // 2, (224 - width) // 2
    expected = np.zeros((224, 224))
    expected[top : top + height, left : left + width] = film
    expected = (expected / 255 - 0.5862785803043838) / 0.27950088968644304
    found = medclip.preprocess(images.grey(film))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    upstream.assert_close(found[0], expected)


def test_colour_copies_of_a_film_give_the_same():
    prepare = images.each(medclip.preprocess)
    film = upstream.film()
    assert torch.equal(prepare(Image.fromarray(film).convert("RGB")), prepare(film))


def test_texts_are_padded_to_the_longest_of_a_call_and_cut_at_77(name, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlung\nclear\n")
    tokenize = registry.recipe(name).tokenizer(path)
    ids, mask = tokenize(["Clear", "clear LUNG other"])
    assert ids.tolist() == [[2, 6, 3, 0, 0], [2, 6, 5, 1, 3]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    ids, mask = tokenize(["lung " * 200])
    assert ids.shape == (1, 77) and mask.all() and ids[0, -1] == 3


def test_texts_are_encoded_alone_but_as_published_padded_together():
    model = upstream.loaded("medclip_vit")
    alone = torch.cat([model.encode_text([text]) for text in TEXTS])
    upstream.assert_close(model.encode_text(TEXTS), alone, 1e-6)

    published = upstream.loaded("medclip_vit", "as_published").encode_text(TEXTS)
    upstream.assert_close(published[1], alone[1], 1e-6)  # the longest is not padded
    assert upstream.distance(published[0], alone[0]) > 1e-3


# --- mistakes ---


def hidden(*layers):
    return lambda patch, network: patch.setattr(medclip, "HIDDEN", layers)


def mean_over_the_mask(patch, network):
    text = network.text_model

    def forward(ids, mask):
        states = text.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        positions = torch.stack([states[i] for i in medclip.HIDDEN]).mean(dim=0)
        weight = mask[:, :, None] / mask.sum(dim=1)[:, None, None]
        return text.projection_head((positions * weight).sum(dim=1))

    patch.setattr(text, "forward", forward)


def no_mask(patch, network):
    whole = network.text_model.forward
    patch.setattr(network.text_model, "forward", lambda ids, mask: whole(ids, mask | 1))


def batch_norm(patch, network):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            patch.setattr(module, "eps", 1e-3)


def stride(patch, network):
    block = network.vision_model.model.layer3[0]
    patch.setattr(block.conv1, "stride", (2, 2))
    patch.setattr(block.conv2, "stride", (1, 1))


MISTAKES = {
    "text: mean over the mask only": mean_over_the_mask,
    "text: hidden states 0, 1, 12": hidden(0, 1, 12),
    "text: last hidden state only": hidden(12),
    "text: last four hidden states": hidden(9, 10, 11, 12),
    "text: no attention mask": no_mask,
    "image: batch norm eps 1e-3": batch_norm,
    "image: stride in the 1x1 of one stage (ResNet v1)": stride,
}


def test_every_listed_mistake_would_be_seen(name):
    upstream.assert_mistakes_are_seen(name, MISTAKES)

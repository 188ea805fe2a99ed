"""MedImageInsight: features, films, texts; the mistakes that upstream's notes list.

The image encoder takes seconds an image, so each of its outputs is computed once.
"""

from copy import deepcopy

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from transformers import CLIPTokenizer

from cxrlib.models import registry
from tests import upstream

NAME = "medimageinsight"
FIGURES = upstream.figures(NAME)
IMAGE = FIGURES["image"]["embeddings"][0]


@pytest.fixture(scope="module")
def model():
    return upstream.loaded(NAME)


@pytest.fixture(scope="module")
def features(model):
    """What the image encoder makes of both images before pooling, (2, 2048, 15, 15)."""
    images = torch.cat([upstream.image(480, 480, which) for which in (0, 1)])
    with torch.inference_mode():
        return model.network.image_encoder.forward_features(images)


def with_shared_weights(network):
    """A copy of the modules only, free to be changed."""
    return deepcopy(network, {id(p): p for p in network.parameters()})


# Mistakes in the text encoder: each changes it to what one might take it for.


def no_padding_mask(encoder, mask):
    right = encoder.transformer.forward
    encoder.transformer.forward = lambda x, attn_mask: right(x)


def causal_mask(encoder, mask):
    right = encoder.transformer.forward
    causal = torch.full((77, 77), -torch.inf).triu(1)
    encoder.transformer.forward = lambda x, attn_mask: right(x, attn_mask=attn_mask + causal)


def usual_epsilon(encoder, mask):
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def pool_first_token(encoder, mask):
    right = encoder.ln_final.forward
    encoder.ln_final.forward = lambda x: right(x)[:, :1].expand_as(x)


def pool_mean_of_attended(encoder, mask):
    right = encoder.ln_final.forward
    weights = (mask / mask.sum(dim=1, keepdim=True))[..., None]
    encoder.ln_final.forward = lambda x: (right(x) * weights).sum(dim=1, keepdim=True).expand_as(x)


def exact_gelu(encoder, mask):
    for block in encoder.transformer.resblocks:
        block.mlp.gelu = nn.GELU()


TEXT_MISTAKES = {
    "WRONG_no_padding_mask_text_max_abs_diff_l2": no_padding_mask,
    "WRONG_causal_mask_text_max_abs_diff_l2": causal_mask,
    "WRONG_text_layernorm_eps_1e-5_instead_of_1e-12_max_abs_diff_l2": usual_epsilon,
    "WRONG_text_pool_first_token_max_abs_diff_l2": pool_first_token,
    "WRONG_text_pool_mean_of_attended_max_abs_diff_l2": pool_mean_of_attended,
    "WRONG_text_gelu_instead_of_quickgelu_max_abs_diff_l2": exact_gelu,
}


# Mistakes in the image encoder, and in its head alone.


def scale_by_width(encoder):
    for module in encoder.modules():
        if hasattr(module, "dynamic_scale"):
            module.dynamic_scale = False


def tanh_gelu(encoder):
    for module in encoder.modules():
        if isinstance(getattr(module, "act", None), nn.GELU):
            module.act = nn.GELU("tanh")


def norm_before_pooling(head):
    head.global_pool = nn.Sequential(head.norm, head.global_pool)
    head.norm = nn.Identity()


def no_final_norm(head):
    head.norm = nn.Identity()


IMAGE_MISTAKES = {
    "WRONG_channel_attention_scale_dim_instead_of_tokens_max_abs_diff_l2": scale_by_width,
    "WRONG_image_tanh_gelu_max_abs_diff_l2": tanh_gelu,
}
HEAD_MISTAKES = {
    "WRONG_image_norm_before_pooling_max_abs_diff_l2": norm_before_pooling,
    "WRONG_image_no_final_norm_max_abs_diff_l2": no_final_norm,
}


def assert_lands(found, expected, mistake):
    """The comparison fails by about the listed distance.

    That is the larger one of two images, of which the figures have the first: ours may be smaller.
    """
    distance, listed = upstream.distance(found, expected), FIGURES["checks"][mistake]
    assert distance > upstream.ATOL
    assert listed / 3 < distance < 1.01 * listed


@pytest.mark.parametrize("mistake", TEXT_MISTAKES)
def test_a_mistake_with_texts_lands_where_upstream_says(model, mistake):
    wrong = with_shared_weights(model.network)
    ids, mask = upstream.tokens(NAME)
    TEXT_MISTAKES[mistake](wrong.lang_encoder, mask)
    found = upstream.text_vectors(wrong, ids, mask)
    assert_lands(found, FIGURES["text"]["embeddings"], mistake)


@pytest.mark.slow  # the image encoder once more: ten seconds
@pytest.mark.parametrize("mistake", IMAGE_MISTAKES)
def test_a_mistake_with_images_lands_where_upstream_says(model, mistake):
    wrong = with_shared_weights(model.network)
    IMAGE_MISTAKES[mistake](wrong.image_encoder)
    assert_lands(upstream.image_vector(wrong, upstream.image(480, 480)), IMAGE, mistake)


@pytest.mark.slow  # the image encoder for two images
@pytest.mark.parametrize("mistake", HEAD_MISTAKES)
def test_a_mistake_after_the_blocks_lands_where_upstream_says(model, features, mistake):
    wrong = with_shared_weights(model.network)
    HEAD_MISTAKES[mistake](wrong.image_encoder.head)
    wrong.image_encoder.forward = wrong.image_encoder.forward_head
    assert_lands(upstream.image_vector(wrong, features), IMAGE, mistake)


def test_all_listed_mistakes_are_made():
    made = {*TEXT_MISTAKES, *IMAGE_MISTAKES, *HEAD_MISTAKES}
    assert made == {key for key in FIGURES["checks"] if key.startswith("WRONG")}


# Images


@pytest.mark.slow  # the image encoder for two images
@torch.inference_mode()
def test_two_images_together_have_upstreams_features(model, features):
    pooled = model.network.image_encoder.forward_head(features)
    upstream.assert_close(
        (pooled @ model.network.image_projection)[0], FIGURES["image"]["embeddings_raw"][0], 1e-4
    )
    upstream.assert_summary(pooled, FIGURES["image"]["features_2048_sample25"])


def test_films_get_upstreams_probabilities(model):
    """By softmax over both texts, and by a sigmoid of each, at the model's own temperature."""
    case = FIGURES["zero_shot"]["case"]
    images = model.encode_image(model.preprocess([upstream.film(x) for x in case["images"]]))
    logits = model.logit_scale * images @ model.encode_text(case["labels"]).T
    upstream.assert_close(logits.softmax(dim=1), case["softmax"])
    upstream.assert_close(logits.sigmoid(), case["sigmoid"])


# Texts


def test_prompts_have_upstreams_tokens_and_vectors(model):
    recorded = FIGURES["text"]["prompts"]
    tokens = model.tokenizer(recorded["texts"])
    for row, mask, ids in zip(*tokens, recorded["ids"], strict=True):
        assert row[mask == 1].tolist() == ids
    found = model.encode_text(recorded["texts"])
    upstream.assert_close(found, recorded["embeddings"], upstream.ATOL)
    raw = model.encode_text(recorded["texts"], raw=True)
    upstream.assert_close(raw, recorded["embeddings_raw"], 1e-4)


@pytest.mark.parametrize("length, padding", [(9, 0), (20, 0), (77, 49407)])
def test_what_pads_a_text_does_not_matter(model, length, padding):
    ids, mask = upstream.tokens(NAME, length)
    found = model.encode_tokens(ids.masked_fill(mask == 0, padding), mask)
    upstream.assert_close(found, FIGURES["text"]["embeddings"], upstream.ATOL)


def test_word_piece_0_is_not_padding(model):
    """A text with id 0 in its midst has the vector that it has without any padding."""
    ids, mask = model.tokenizer(["chest !§", "no findings"])
    assert (ids[0][mask[0] == 1] == 0).any()
    length = int(mask[0].sum())
    alone = model.encode_tokens(ids[:1, :length], mask[:1, :length])
    found = model.encode_tokens(ids, mask)
    upstream.assert_close(found[:1], alone, upstream.ATOL)
    assert upstream.distance(model.encode_tokens(ids, (ids != 0).long())[:1], alone) > 1e-3


ODD = [
    "Chest No findings",
    "  Two\t\nspaces\u00a0and\u3000wide ones ",
    "na\u00efve R\u00f6ntgen &amp; AP/PA: &lt;5 mm",
    "cafe\u0301 nai\u0308ve",  # letters and accents apart
    "!!! what?! a!b !",
    "\u039d\u038c\u03a3\u039f\u03a3",  # ends in a capital sigma
    "\u0130stanbul \u01c5 \u1e9e",  # letters with unusual lower cases
    "it's they'll we'd I'M 'S",
    "10.5mm x 3/4, 2019-07-01 \u00bd \u2167",
    "\u80ba\u708e \U0001fac1",
    "\u201csmart\u201d quotes, \u00e2\u20acœmojibake\u00e2\u20ac\u009d, \ufb01ne",
    "soft\u00adhyphen zero\u200bwidth",
    "_under_score_ <b>bold</b>",
    "word " * 200,
    "!" * 300,
]


@pytest.fixture(scope="module")
def tokenizers():
    """Ours, and upstream's CLIPTokenizer, rebuilt from the same byte pairs."""
    clip = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    reference = CLIPTokenizer(
        vocab={names.get(piece, piece): i for piece, i in clip.encoder.items()},
        merges=list(clip.bpe_ranks),
    )
    return registry.recipe(NAME).tokenizer(None), reference


@pytest.mark.parametrize("text", ODD)
def test_the_tokenizer_is_hugging_faces(tokenizers, text):
    ours, reference = tokenizers
    ids, mask = ours([text])
    expected = reference([text], max_length=77, padding="max_length", truncation=True)
    assert mask[0].tolist() == expected["attention_mask"][0]
    attended = [i for i, m in zip(expected["input_ids"][0], mask[0], strict=True) if m]
    assert ids[0][mask[0] == 1].tolist() == attended

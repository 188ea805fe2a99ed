"""CLIP, CheXzero, BiomedCLIP: prompts, films, scores; the mistakes that upstream's notes list."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertTokenizer

from cxrlib.models import checkpoints, clip, registry
from cxrlib.models.images import each
from tests import upstream
from tests.upstream import loaded as model

FILMS = ["small_300x260", "large_700x820"]
PROMPTS = ["Chest Pneumothorax", "Chest No Findings"]


@pytest.fixture(scope="module", params=["clip_vit_b16", "chexzero"])
def name(request):
    return request.param


# Mistakes: each changes a copy of our network to what one might take it for.


def pool_last_position(built):
    built.text_pool_type = "last"


def pool_first_position(built):
    built.text_pool_type = "first"


def no_causal_mask(built):
    built.attn_mask = None


def pool_mean_of_image(built):
    built.visual.pool_type = "avg"


def no_ln_pre(built):
    built.visual.ln_pre = nn.Identity()


def exact_gelu(built):
    for block in (*built.visual.transformer.resblocks, *built.transformer.resblocks):
        block.mlp.gelu = nn.GELU()


def half_precision(built):
    for key, value in built.named_parameters():
        in_block = "attn" in key or "mlp" in key
        if in_block or key in ("text_projection", "visual.proj", "visual.conv1.weight"):
            value.data = value.data.half().float()


def no_attention_mask(built):
    bert = built.text["transformer"]
    right = bert.forward
    bert.forward = lambda ids, attention_mask: right(ids)


def pool_mean_of_text(built):
    bert = built.text["transformer"]
    right = bert.forward

    def wrong(ids, attention_mask):
        states = right(ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None] / attention_mask.sum(dim=1)[:, None, None]
        return SimpleNamespace(last_hidden_state=(states * weights).sum(dim=1, keepdim=True))

    bert.forward = wrong


def tanh_gelu_in_projection(built):
    built.text["proj"][1] = nn.GELU("tanh")


def relu_in_projection(built):
    built.text["proj"][1] = nn.ReLU()


def pool_average(built):
    built.visual["trunk"].global_pool = "avg"


def openai_epsilon(built):
    for module in built.visual["trunk"].modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


CLIP_MISTAKES = {  # how the note begins that lists the figure: (mistake, side it shows on)
    "WRONG_text_pool_last_position": (pool_last_position, "text"),
    "WRONG_text_pool_first_position": (pool_first_position, "text"),
    "WRONG_no_causal_mask": (no_causal_mask, "text"),
    "WRONG_image_mean_pool": (pool_mean_of_image, "image"),
    "WRONG_image_no_ln_pre": (no_ln_pre, "image"),
    "WRONG: same but config 'ViT-B": (exact_gelu, "both"),
    "upstream build_model (converts": (half_precision, "both"),
}
BIOMEDCLIP_MISTAKES = {
    "WRONG_no_attention_mask": (no_attention_mask, "text"),
    "WRONG_mean_pool_text": (pool_mean_of_text, "text"),
    "WRONG_text_projection_tanh_gelu": (tanh_gelu_in_projection, "text"),
    "WRONG_relu_in_text_projection": (relu_in_projection, "text"),
    "WRONG_average_pool_image": (pool_average, "image"),
    "WRONG_vit_layernorm_eps_1e-5": (openai_epsilon, "image"),
}


def notes(name):
    checks = upstream.figures(name)["checks"]
    return checks | checks.get("open_clip_max_abs_diff", {})


def assert_lands(name, mistake, make, sides):
    """The comparison fails by about the listed distance.

    That is the larger one of two images, of which the figures have the first: ours may be smaller.
    """
    network = deepcopy(model(name).network)
    make(network)
    figures = upstream.figures(name)
    (listed,) = (value for key, value in notes(name).items() if key.startswith(mistake))
    for side in ("image", "text") if sides == "both" else (sides,):
        if side == "image":
            found = upstream.image_vector(network, upstream.image(224, 224))
            expected = figures["image"]["embeddings"][0]
        else:
            found = upstream.text_vectors(network, *upstream.tokens(name))
            expected = figures["text"]["embeddings"]
        distance = upstream.distance(found, expected)
        limit = listed.get(f"{side}_l2", listed.get("l2")) if isinstance(listed, dict) else listed
        assert distance > upstream.ATOL
        assert limit / 3 < distance < 1.01 * limit


@pytest.mark.parametrize("mistake", CLIP_MISTAKES)
def test_a_mistake_in_clip_lands_where_upstream_says(name, mistake):
    assert_lands(name, mistake, *CLIP_MISTAKES[mistake])


@pytest.mark.parametrize("mistake", BIOMEDCLIP_MISTAKES)
def test_a_mistake_in_biomedclip_lands_where_upstream_says(mistake):
    assert_lands("biomedclip", mistake, *BIOMEDCLIP_MISTAKES[mistake])


@pytest.mark.parametrize("which", ["clip_vit_b16", "chexzero", "biomedclip"])
def test_all_listed_mistakes_are_made(which):
    made = BIOMEDCLIP_MISTAKES if which == "biomedclip" else CLIP_MISTAKES
    listed = [key for key in notes(which) if key.startswith("WRONG")]
    assert listed and all(key.startswith(tuple(made)) for key in listed)


# Texts and images


def test_prompts_have_upstreams_tokens_and_vectors(name):
    recorded = upstream.figures(name)["text"]["prompts"]
    assert recorded["texts"] == PROMPTS
    tokens = model(name).tokenizer(PROMPTS)
    assert tokens.ids.shape == (2, 77)
    for row, mask, ids in zip(*tokens, recorded["ids"], strict=True):
        assert row[mask == 1].tolist() == ids and not row[mask == 0].any()
    found = model(name).encode_text(PROMPTS)
    upstream.assert_close(found, recorded["embeddings"], upstream.ATOL)
    raw = model(name).encode_text(PROMPTS, raw=True)
    upstream.assert_close(raw, recorded["embeddings_raw"], 1e-4)


def test_more_texts_have_upstreams_tokens(name):
    texts = upstream.figures(name)["text"]["more_ids"]
    tokens = model(name).tokenizer(list(texts))
    assert [r[m == 1].tolist() for r, m in zip(*tokens, strict=True)] == list(texts.values())


def test_what_pads_a_text_does_not_matter(name):
    ids, mask = upstream.tokens(name)
    found = model(name).encode_tokens(ids.masked_fill(mask == 0, 49407), mask)
    upstream.assert_close(found, upstream.figures(name)["text"]["embeddings"], upstream.ATOL)


def test_scores_of_clip_are_upstreams():
    clip_model, figures = model("clip_vit_b16"), upstream.figures("clip_vit_b16")["zero_shot"]
    image = clip_model.encode_image(upstream.image(224, 224))
    logits = clip_model.logit_scale * image[0] @ clip_model.encode_text(PROMPTS).T
    upstream.assert_close(logits, figures["logits_per_image_here"][0])
    upstream.assert_close(logits.softmax(dim=0), figures["softmax_here"][0])


def test_a_batch_is_its_images_one_by_one(name):
    assert_batch_is_its_images(name)


def test_a_batch_is_its_images_one_by_one_in_biomedclip():
    assert_batch_is_its_images("biomedclip")


def assert_batch_is_its_images(name):
    images = [upstream.image(224, 224, which) for which in (0, 1)]
    found = model(name).encode_image(torch.cat(images))
    upstream.assert_close(found[0], upstream.figures(name)["image"]["embeddings"][0], upstream.ATOL)
    upstream.assert_close(found[1], model(name).encode_image(images[1])[0], upstream.ATOL)


# CheXzero, from films to probabilities


def test_chexzero_as_published_gives_the_wrappers_probabilities():
    case = upstream.figures("chexzero")["zero_shot"]["wrapper_case"]
    assert case["images"] == FILMS
    chexzero = model("chexzero", "as_published")
    images = chexzero.encode_image(chexzero.preprocess([upstream.film(x) for x in FILMS]))
    texts = chexzero.encode_text(case["texts"])
    upstream.assert_close(images, case["image_embeddings"], upstream.ATOL)
    upstream.assert_close(texts, case["text_embeddings"], upstream.ATOL)
    scores = (chexzero.logit_scale * images @ texts.T).softmax(dim=1)
    upstream.assert_close(scores, case["softmax"])


def test_chexzero_gives_its_authors_probabilities():
    case = upstream.figures("chexzero")["zero_shot"]["original_case"]
    assert case["images"] == FILMS
    chexzero = model("chexzero")
    prompts = chexzero.card["prompts"]
    assert [*prompts["positive"], *prompts["negative"]] == [
        x.replace("{}", "{label}") for x in case["templates"]
    ]
    images = chexzero.encode_image(chexzero.preprocess([upstream.film(x) for x in FILMS]))
    upstream.assert_close(images, case["image_embeddings"], upstream.ATOL)
    for column, label in zip(np.transpose(case["probabilities"]), case["labels"], strict=True):
        pair = [x.format(label=label) for x in (*prompts["positive"], *prompts["negative"])]
        scores = (images @ chexzero.encode_text(pair).T).softmax(dim=1)[:, 0]
        upstream.assert_close(scores, column)


def test_chexzeros_last_step_is_not_antialiased(monkeypatch):
    right = F.interpolate
    monkeypatch.setattr(
        clip.F, "interpolate", lambda *args, **options: right(*args, antialias=True, **options)
    )
    cases = upstream.figures("chexzero")["preprocess"]["small_300x260"]
    found = each(clip.chexzero)(upstream.film())[0]
    upstream.assert_summary(found, cases["original_antialias_true"])
    with pytest.raises(AssertionError):
        upstream.assert_summary(found, cases["original_antialias_false"])


# BiomedCLIP


def test_scores_of_biomedclip_are_upstreams():
    biomedclip, figures = model("biomedclip"), upstream.figures("biomedclip")["zero_shot"]
    image = biomedclip.encode_image(upstream.image(224, 224))
    texts = biomedclip.encode_tokens(*upstream.tokens("biomedclip"))
    logits = biomedclip.logit_scale * image[0] @ texts.T
    upstream.assert_close(logits, figures["logits_here"][0])
    upstream.assert_close(logits.softmax(dim=0), figures["softmax_here"][0])


@pytest.mark.parametrize("length", [9, 20, 512])
def test_padding_of_any_length_and_kind_is_masked(length):
    ids, mask = upstream.tokens("biomedclip", length)
    found = model("biomedclip").encode_tokens(ids.masked_fill(mask == 0, 77), mask)
    expected = upstream.figures("biomedclip")["text"]["embeddings"]
    upstream.assert_close(found, expected, upstream.ATOL)


def test_an_old_checkpoint_with_position_ids_is_accepted():
    state = upstream.state("biomedclip")
    state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    checkpoints.load_strictly(model("biomedclip").network, state, "biomedclip, an old file")


def test_biomedclips_tokenizer_is_that_of_open_clip(tmp_path):
    """Its texts are cleaned (mojibake, entities, white space), cut and padded to 256."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] chest no find ##ing ##s pneumothorax & na ##ive , '"
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(words.split()) + "\n")
    texts = [
        "Chest Pneumothorax",
        " Chest\t no  Findings &amp;amp; NAÏVE ",
        "na\u00c3\u00afve, \u2018chest\u2019",  # UTF-8 read as Latin-1, and curly quotes
        "chest " * 300,
    ]
    cleaned = ["Chest Pneumothorax", "Chest no Findings & NAÏVE", "naïve, 'chest'", "chest " * 300]
    tokens = registry.recipe("biomedclip").tokenizer(file)(texts)
    reference = BertTokenizer(vocab=str(file), do_lower_case=True)
    expected = reference(cleaned, max_length=256, padding="max_length", truncation=True)
    assert tokens.ids.tolist() == expected["input_ids"]
    assert tokens.mask.tolist() == expected["attention_mask"]
    assert tokens.ids.shape == (4, 256) and (tokens.ids[2] != 1).all()

"""BioViL and BioViL-T are what their authors' code is, also with a previous image."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from cxrlib.models import biovil, checkpoints, files, loading, registry, seeded
from cxrlib.models.encoder import Tokens
from cxrlib.models.images import IMAGENET, each
from tests import upstream

NAMES = ("biovil", "biovil_t")


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def built(name):
    return upstream.network(name)


@pytest.fixture
def figures(name):
    return upstream.figures(name)


@pytest.fixture
def pair(figures):
    """Both images, (2, 3, h, w): upstream's summaries cover the two."""
    return both(*figures["image"]["size"])


def both(*size):
    return torch.cat([upstream.image(*size, 0), upstream.image(*size, 1)])


def unit(vectors):
    return F.normalize(vectors, dim=1)


@pytest.fixture
def load(name, built, monkeypatch):
    """The model under a protocol; its two texts are "0" and "1", the ids that upstream was given.

    The network is the one that is filled already.
    """
    ids, mask = upstream.tokens(name)

    def tokenizer(texts):
        rows = list(map(int, texts))
        return Tokens(ids[rows], mask[rows])

    monkeypatch.setattr(seeded, "fill", lambda network, upstream: None)
    made = replace(biovil.MODELS[name], build=lambda: built)
    monkeypatch.setitem(biovil.MODELS, name, made)
    return lambda protocol: replace(loading.load(f"seeded:{name}", protocol), tokenizer=tokenizer)


# image half


@torch.inference_mode()
def test_at_paper_s_size_vectors_and_grid_are_upstreams_too(built, figures):
    recorded = figures["image"]["size_512"]
    x = upstream.image(512, 512)
    upstream.assert_close(unit(built.encode_image(x)), recorded["embeddings"], upstream.ATOL)
    assert [2, *built.patches(x).shape[1:]] == recorded["patches_shape"]


@torch.inference_mode()
def test_patches_are_upstreams(built, figures, pair):
    found = built.patches(pair)
    upstream.assert_close(found.norm(dim=3), np.ones(found.shape[:3]), upstream.ATOL)
    upstream.assert_summary(found, figures["image"]["projected_patches_normalised"])


@torch.inference_mode()
def test_features_before_the_projection_are_upstreams(built, figures, pair):
    pooled = built.image.encoder(pair).mean(dim=(2, 3))
    upstream.assert_summary(pooled, figures["image"]["pooled_feature_sample25"])


@torch.inference_mode()
def test_a_batch_gives_what_each_image_gives_alone(built, pair):
    alone = torch.cat([built.encode_image(pair[:1]), built.encode_image(pair[1:])])
    upstream.assert_close(unit(built.encode_image(pair)), unit(alone), upstream.ATOL)


@torch.inference_mode()
def test_without_a_previous_image_any_size_and_shape_works(built):
    x = upstream.image(320, 288)
    assert built.patches(x).shape == (1, 10, 9, 128)
    assert built.encode_image(x).shape == (1, 128)


# the previous image


@pytest.fixture
def temporal():
    return upstream.network("biovil_t")


@pytest.fixture
def recorded():
    return upstream.figures("biovil_t")["image"]["with_previous_image"]


@torch.inference_mode()
def test_with_a_previous_image_everything_is_upstreams(temporal, recorded):
    pair = both(448, 448)
    previous = pair.flip(0)
    vectors = temporal.encode_image(pair, previous=previous)
    upstream.assert_close(unit(vectors)[:1], recorded["embeddings"], upstream.ATOL)
    upstream.assert_summary(vectors, recorded["embeddings_before_l2_sample25"])
    pooled = temporal.image.encoder(pair, previous=previous).mean(dim=(2, 3))
    upstream.assert_summary(pooled, recorded["pooled_feature_sample25"])
    patches = temporal.patches(pair, previous=previous)
    upstream.assert_summary(patches, recorded["projected_patches_normalised"])


@torch.inference_mode()
def test_a_film_compared_with_itself_is_upstreams(temporal, recorded):
    x = upstream.image(448, 448)
    found = unit(temporal.encode_image(x, previous=x))
    upstream.assert_close(found, recorded["previous_equal_to_current"], upstream.ATOL)


def test_sine_positions_are_upstreams(temporal, recorded):
    found = temporal.image.encoder.vit_pooler.position[None]
    upstream.assert_summary(found, recorded["sine_position_embedding"])


@torch.inference_mode()
def test_each_image_is_compared_with_its_own_previous_one(temporal):
    pair = both(448, 448)
    together = temporal.encode_image(pair, previous=pair.flip(0))
    for i in range(2):
        alone = temporal.encode_image(pair[i : i + 1], previous=pair[1 - i : 2 - i])
        upstream.assert_close(unit(alone), unit(together[i : i + 1]), upstream.ATOL)


@torch.inference_mode()
@pytest.mark.parametrize("previous", [(1, 512), (2, 448)])
def test_a_previous_image_that_does_not_fit_is_refused(temporal, previous):
    n, size = previous
    x = torch.zeros(1, 3, size, size)
    with pytest.raises(ValueError, match="one previous image for each, all of 448 x 448"):
        temporal.encode_image(x, previous=torch.zeros(n, 3, size, size))


@pytest.mark.parametrize("name", ["biovil_t"], indirect=True)
def test_the_previous_image_passes_through_the_model(load, recorded):
    x, previous = both(448, 448).split(1)
    found = load("corrected").encode_image(x, previous=previous)
    upstream.assert_close(found, recorded["embeddings"], upstream.ATOL)


# text half


@torch.inference_mode()
def test_text_vectors_and_their_lengths_are_upstreams(name, built, figures):
    vectors = built.encode_text(*upstream.tokens(name))
    upstream.assert_close(vectors, figures["text"]["embeddings_before_l2"])
    upstream.assert_close(vectors.norm(dim=1), figures["text"]["norms_before_l2"])


@torch.inference_mode()
def test_hidden_state_and_masked_words_are_upstreams(name, built, figures):
    ids, mask = upstream.tokens(name)
    hidden = built.text.bert(ids, mask).last_hidden_state[:, 0]
    upstream.assert_summary(hidden, figures["text"]["cls_hidden_sample25"])
    logits = built.text(ids, mask).logits[:, 1]
    upstream.assert_summary(logits, figures["text"]["mlm_logits_position1_sample25"])


def test_padding_does_not_change_a_text(name, built, figures):
    recorded = figures["text"]["embeddings"]
    for length in (15, 77):
        found = upstream.text_vectors(built, *upstream.tokens(name, length))
        upstream.assert_close(found, recorded, upstream.ATOL)
    ids, mask = upstream.tokens(name)
    alone = upstream.text_vectors(built, ids[:1, :5], mask[:1, :5])
    upstream.assert_close(alone, recorded[:1], upstream.ATOL)


def test_the_heads_norm_has_upstreams_epsilon(built):
    """Its effect, 1e-6, is below what vectors show."""
    assert built.text.cls_projection_head.LayerNorm.eps == 1e-12


@pytest.fixture
def tokenizer(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "pneumonia", ".", "!", "chest"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return biovil.tokenizer(tmp_path / "vocab.txt")


def test_closing_punctuation_goes_and_the_longest_text_sets_the_length(tokenizer):
    ids, mask = tokenizer(["No pneumonia.!?.", "Chest. pneumonia ."])
    assert ids.tolist() == [[2, 5, 6, 3, 0], [2, 9, 7, 6, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_of_special_tokens_only_the_mask_may_stand_in_a_text(tokenizer):
    assert tokenizer(["no [MASK]."]).ids.tolist() == [[2, 5, 4, 3]]
    for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]"):
        with pytest.raises(ValueError, match=rf"contains the special token \{token}"):
            tokenizer(["no pneumonia", f"chest {token}"])


def test_a_text_above_512_tokens_is_refused_not_cut(tokenizer):
    assert tokenizer(["chest " * 510]).ids.shape == (1, 512)
    with pytest.raises(ValueError, match="513 tokens: this model reads at most 512"):
        tokenizer(["chest " * 511])


# scores


def test_scores_of_the_authors(load, figures, pair):
    model = load("corrected")
    recorded = figures["zero_shot_numbers"]
    vectors = model.encode_image(pair)
    each_prompt = vectors @ model.encode_text(["0", "1"]).T
    upstream.assert_close(each_prompt, recorded["upstream_score_each_prompt"], upstream.ATOL)
    averaged = vectors @ model.encode_prompts(["0", "1"])
    upstream.assert_close(averaged, recorded["upstream_score_mean_of_two_prompts"], upstream.ATOL)
    assert model.logit_scale == 1


def test_scores_of_paper_s(load, figures):
    model = load("as_published")
    recorded = figures["zero_shot_numbers"]
    vectors = model.encode_image(both(512, 512))
    logits = model.logit_scale * vectors @ model.encode_text(["0", "1"]).T
    upstream.assert_close(logits, recorded["theosourget_logits"])
    upstream.assert_close(logits.softmax(dim=1), recorded["theosourget_softmax"])
    assert load("corrected").unit_text and not model.unit_text


# preprocessing


def test_stretching_truncates_as_upstream_does(figures):
    for case in ("small_300x260", "narrow_300x260"):
        film = upstream.film(case)
        found = np.asarray(biovil.stretch(Image.fromarray(film)))
        upstream.assert_summary(found, figures["preprocess"][case]["after_load_image_uint8"])
    exact = (film - 40.0) / 127 * 255
    changed = (found != np.round(exact)).sum()
    case = figures["preprocess"]["narrow_300x260"]
    assert changed == case["pixels_that_rounding_instead_of_truncation_would_change"]


def test_a_narrow_film_is_prepared_as_upstream_does(name, figures):
    made, case = biovil.MODELS[name], figures["preprocess"]["narrow_300x260"]
    crop = figures["image"]["size"][0]
    for prepare, size in ((made.preprocess, crop), (made.preprocess_s, 512)):
        found = each(prepare)(upstream.film("narrow"))
        upstream.assert_summary(found, case[f"resize512_crop{size}"])


def test_a_film_of_one_value_becomes_black_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = each(biovil.MODELS[name].preprocess)(np.full((40, 30), 130, np.uint8))
    assert found.eq(0).all()


# files


def test_the_parts_are_loaded_from_their_own_files(name, built, load, monkeypatch, tmp_path):
    """With a pooler in the text's file, which upstream's loading drops; nothing else is dropped."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(4, 30_522))]
    for file in registry.cards()[name]["files"]:
        (tmp_path / file["names"][0]).write_text("\n".join(words))
    with pytest.raises(ValueError, match=r"MD5 \w+ differs from the hash its authors publish"):
        loading.load(name, checkpoint=tmp_path)

    image, text, extra = upstream.state(name, "image"), upstream.state(name, "text"), {}
    monkeypatch.setattr(
        checkpoints, "read", lambda path: image if path.suffix == ".pt" else text | extra
    )
    monkeypatch.setattr(files, "check_hash", lambda path, about: (path.name, ""))
    assert "left out" not in " ".join(loading.load(name, checkpoint=tmp_path).notes)
    extra = {"bert.pooler.dense.weight": torch.zeros(768, 768)}
    model = loading.load(name, checkpoint=tmp_path)
    assert "left out as upstream does: bert.pooler.dense.weight" in model.notes
    extra = {"pooler.dense.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 unexpected: pooler\.dense\.weight"):
        loading.load(name, checkpoint=tmp_path)


# mistakes that upstream's figures must show


def zeros_for_missing(built, patch):
    zeros = torch.zeros_like(built.image.encoder.missing_previous_emb)
    patch.setitem(built.image.encoder._parameters, "missing_previous_emb", zeros)


def change_first(built, patch):
    right = built.image.encoder.forward
    swapped = lambda *x, **previous: right(*x, **previous).roll(256, dims=1)  # noqa: E731
    patch.setattr(built.image.encoder, "forward", swapped)


def pooled_first(built, patch):
    right = built.image.encoder.forward
    pooled = lambda x: right(x).mean(dim=(2, 3), keepdim=True)  # noqa: E731
    patch.setattr(built.image.encoder, "forward", pooled)


def imagenet_statistics(built, patch):
    right = built.encode_image
    patch.setattr(built, "encode_image", lambda x: right(TF.normalize(x, *IMAGENET)))


def origin_not_in_values(built, patch):
    def forward(block, x, origin):
        plain, a = block.norm1(x), block.attn
        q, k, v = a.proj_q(plain + origin), a.proj_k(plain + origin), a.proj_v(plain)
        q, k, v = (y.unflatten(2, (8, -1)).transpose(1, 2) for y in (q, k, v))
        x = x + a.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + block.mlp(block.norm2(x))

    patch.setattr(biovil.Block, "forward", forward)


def origin_only_once(built, patch):
    right = biovil.Block.forward
    first = built.image.encoder.vit_pooler.blocks[0]

    def forward(block, x, origin):
        return right(block, x + origin if block is first else x, torch.zeros_like(origin))

    patch.setattr(biovil.Block, "forward", forward)


def types_swapped(built, patch):
    pooler = built.image.encoder.vit_pooler
    patch.setitem(pooler._parameters, "type_embed", pooler.type_embed.flip(0))


def columns_first(built, patch):
    pooler = built.image.encoder.vit_pooler
    patch.setitem(pooler._buffers, "position", pooler.position.roll(128, dims=1))


def no_final_norm(built, patch):
    patch.setitem(built.image.encoder.vit_pooler._modules, "norm_post", nn.Identity())


def tanh_gelu(built, patch):
    patch.setitem(built.text.cls_projection_head._modules, "act", nn.GELU("tanh"))


def mean_over_tokens(built, patch):
    def encode_text(ids, mask):
        hidden, mask = built.text.bert(ids, mask).last_hidden_state, mask[:, :, None]
        return built.text.cls_projection_head((hidden * mask).sum(dim=1) / mask.sum(dim=1))

    patch.setattr(built, "encode_text", encode_text)


IMAGE = {
    "image: zeros instead of missing_previous_emb": zeros_for_missing,
    "image: difference half first": change_first,
    "image: pooled first, then projected": pooled_first,
    "image: ImageNet normalisation": imagenet_statistics,
    "previous: embeddings added to q and k only": origin_not_in_values,
    "previous: embeddings added once before the blocks": origin_only_once,
    "previous: type embeddings swapped": types_swapped,
    "previous: x half before y half": columns_first,
    "previous: no final LayerNorm": no_final_norm,
}
TEXT = {
    "text: tanh GELU in the head": tanh_gelu,
    "text: mean pooling over the mask": mean_over_tokens,
}
# Shown on an attribute, and on scores, above and below.
ELSEWHERE = {
    "what",
    "text: LayerNorm eps 1e-5 in the head",
    "score: normalise each prompt, then average without normalising",
}


def test_every_mistake_is_made(figures):
    assert set(figures["checks"]["WRONG"]) <= {*IMAGE, *TEXT, *ELSEWHERE}


@pytest.mark.slow  # the network once more for each; that it is right is shown above
@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "mistake"),
    [(n, m) for n in NAMES for m in IMAGE if m in upstream.figures(n)["checks"]["WRONG"]],
    indirect=["name"],
)
def test_mistakes_with_images_show(built, figures, pair, mistake, monkeypatch):
    """The listed distance is over both images; upstream's vectors here are of the first."""
    part = figures["image"]
    inputs = {}
    if mistake.startswith("previous"):
        part, inputs = part["with_previous_image"], {"previous": pair.flip(0)}
    right = unit(built.encode_image(pair, **inputs))
    IMAGE[mistake](built, monkeypatch)
    wrong = unit(built.encode_image(pair, **inputs))
    assert upstream.distance(wrong[:1], part["embeddings"]) > upstream.ATOL
    listed = figures["checks"]["WRONG"][mistake]
    assert upstream.distance(wrong, right) == pytest.approx(listed, rel=0.05)


@pytest.mark.parametrize("mistake", TEXT)
def test_mistakes_with_texts_show(name, built, figures, mistake, monkeypatch):
    TEXT[mistake](built, monkeypatch)
    found = upstream.text_vectors(built, *upstream.tokens(name))
    distance = upstream.distance(found, figures["text"]["embeddings"])
    assert distance > upstream.ATOL
    assert distance == pytest.approx(figures["checks"]["WRONG"][mistake], rel=0.05)


def test_averaging_unit_prompts_without_normalising_shows(load, figures, pair):
    model = load("corrected")
    wrong = model.encode_image(pair) @ model.encode_text(["0", "1"]).mean(dim=0)
    recorded = figures["zero_shot_numbers"]["upstream_score_mean_of_two_prompts"]
    listed = figures["checks"]["WRONG"][
        "score: normalise each prompt, then average without normalising"
    ]
    assert upstream.distance(wrong, recorded) == pytest.approx(listed, rel=0.05)

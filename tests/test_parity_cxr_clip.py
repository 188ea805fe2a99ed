"""CXR-CLIP is upstream's: which token stands for a text or an image, scores, files."""

import numpy as np
import pytest
import torch

from cxrlib.models import cxr_clip, files, registry
from tests import upstream


@pytest.fixture(scope="module", params=list(cxr_clip.MODELS))
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
def test_features_of_images_are_upstreams(network, figures):
    recorded = figures["image"]
    features = network.image_encoder(upstream.both_images())
    upstream.assert_summary(features, recorded["feature_before_projection_sample25"])
    vectors = network.image_projection(features)
    upstream.assert_summary(vectors, recorded["embeddings_before_l2_sample25"])


@torch.inference_mode()
def test_all_tokens_of_swin_are_upstreams():
    swin = upstream.network("cxr_clip_swin").image_encoder.image_encoder
    recorded = upstream.figures("cxr_clip_swin")["image"]["last_hidden_state"]
    upstream.assert_summary(swin(upstream.both_images()).last_hidden_state, recorded)


def test_cosines_and_scores_without_temperature_are_upstreams(name, network, figures):
    texts = upstream.text_vectors(network, *upstream.tokens(name))
    cosines = upstream.image_vectors(network, upstream.both_images()) @ texts.T
    upstream.assert_close(cosines, figures["cosines"], upstream.ATOL)
    scores = cosines.softmax(dim=1)
    upstream.assert_close(scores, figures["softmax_without_temperature"], upstream.ATOL)


def test_padding_does_not_matter(name, network, figures):
    found = upstream.text_vectors(network, *upstream.tokens(name, 256))
    upstream.assert_close(found, figures["text"]["embeddings"], upstream.ATOL)


# --- properties ---


def test_images_and_texts_of_a_batch_do_not_touch_each_other(name, network):
    together = upstream.image_vectors(network, upstream.both_images())
    alone = torch.cat([upstream.image_vectors(network, x[None]) for x in upstream.both_images()])
    upstream.assert_close(together, alone, 1e-6)

    ids, mask = upstream.tokens(name)
    together = upstream.text_vectors(network, ids, mask)
    rows = [(i[m == 1][None], m[m == 1][None]) for i, m in zip(ids, mask, strict=True)]
    alone = torch.cat([upstream.text_vectors(network, *row) for row in rows])
    upstream.assert_close(together, alone, 2e-6)


def test_the_resnet_gets_imagenets_statistics_but_as_published_the_swins():
    film = upstream.film()
    models = {
        protocol: upstream.loaded("cxr_clip_rn50", protocol)
        for protocol in ("corrected", "as_published")
    }
    pixels = {protocol: model.preprocess(film)[0] for protocol, model in models.items()}
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    grey = pixels["as_published"] * 0.5 + 0.5
    expected = (grey.numpy() - mean[:, None, None]) / std[:, None, None]
    upstream.assert_close(pixels["corrected"], expected)
    assert models["as_published"].logit_scale == 1
    assert models["corrected"].logit_scale == pytest.approx(1 / 0.07)


def test_texts_are_padded_to_the_longest_of_a_call_and_cut_at_256(name, tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlung\nclear\n")
    tokenize = registry.recipe(name).tokenizer(path)
    assert tokenize(["Clear", "no lung"]).ids.tolist() == [[2, 6, 3, 0], [2, 1, 5, 3]]
    ids, mask = tokenize(["lung " * 400])
    assert ids.shape == (1, 256) and mask.all() and ids[0, -1] == 3


def test_of_several_files_the_one_of_most_data_is_taken(name, tmp_path):
    card = registry.cards()[name]
    kinds = card["files"][0]["names"]
    for kind in kinds[::-1]:  # from the one with least data
        (tmp_path / kind).touch()
        assert [p.name for p in files.find(card, tmp_path)["weights"]] == [kind]
    assert [kind.split("_")[1] for kind in kinds] == ["mcc.tar", "mc.tar", "m.tar"]


# --- mistakes ---


def pooled(how):
    def make(patch, network):
        text = network.text_encoder
        patch.setattr(
            text,
            "forward",
            lambda ids, mask: how(text.text_encoder(ids, attention_mask=mask), mask),
        )

    return make


def mean_over_the_mask(output, mask):
    weight = mask[:, :, None] / mask.sum(dim=1)[:, None, None]
    return (output.last_hidden_state * weight).sum(dim=1)


def no_bias(patch, network):
    weight = network.image_projection.projection.weight
    patch.setattr(network.image_projection, "forward", lambda x: x @ weight.T)


def mean_over_tokens(patch, network):
    image = network.image_encoder
    patch.setattr(image, "forward", lambda x: image.image_encoder(x).pooler_output)


FIRST = pooled(lambda output, mask: output.last_hidden_state[:, 0])
MEAN = pooled(mean_over_the_mask)
MISTAKES = {
    "text: [CLS] instead of the last token": FIRST,
    "text: mean over the mask": MEAN,
    "text: pooler_output": pooled(lambda output, mask: output.pooler_output),
    "text: position T-1 (padding)": pooled(lambda output, mask: output.last_hidden_state[:, -1]),
    "image: projection without bias": no_bias,
    "image: mean over tokens (pooler_output)": mean_over_tokens,
}


def test_every_listed_mistake_would_be_seen(name):
    upstream.assert_mistakes_are_seen(name, MISTAKES)


@pytest.mark.parametrize("pooling, mistake", [("bos", FIRST), ("mean", MEAN)])
def test_with_another_pooling_the_vectors_are_those_of_upstream_with_it(
    name, network, figures, pooling, mistake
):
    recorded = figures["text"]["other_pooling_for_comparison_only"][pooling]
    tokens = upstream.tokens(name)
    right = upstream.text_vectors(network, *tokens)
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch, network)
        found = upstream.text_vectors(network, *tokens)
    upstream.assert_summary(found, recorded["sample25"])
    cosine = float(found[0] @ right[0])
    assert cosine == pytest.approx(recorded["cosine_with_eos_row0"], abs=upstream.ATOL)

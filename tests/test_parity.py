"""Every published model is the same network with the same preprocessing as its authors' code.

What holds for all of them; what is particular to a family is in its own file.
"""

import pytest
import torch

from cxrlib.models import loading, published_models, registry
from cxrlib.models.images import each
from tests import upstream

# Key of the authors' own preprocessing in the figures, and of paper S's where it differs.
AUTHORS = {
    "biovil": "resize512_crop480",
    "biovil_t": "resize512_crop448",
    "chexzero": "original_antialias_false",
    "cxr_clip_rn50": "imagenet",
    "cxr_clip_swin": "huggingface",
    "gloria": "process_img",
    "medclip_rn50": "upstream_feature_extractor",
    "medclip_vit": "upstream_feature_extractor",
}
PAPER_S = {
    "biovil": "resize512_crop512",
    "biovil_t": "resize512_crop512",
    "chexzero": "wrapper",
    "cxr_clip_rn50": "huggingface",
}


@pytest.fixture(scope="module", params=published_models())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def found(name):
    """What the network makes of the first image and of both texts, before it is normalised."""
    built = upstream.network(name)  # strictly loaded: names and shapes are accepted
    with torch.inference_mode():
        image = built.encode_image(upstream.image(*upstream.figures(name)["image"]["size"]))
        return {"image": image, "text": built.encode_text(*upstream.tokens(name))}


def test_image_and_text_vectors_are_upstreams(name, found):
    for side, vectors in found.items():
        expected = torch.tensor(upstream.figures(name)[side]["embeddings"])[: len(vectors)]
        upstream.assert_close(unit(vectors), unit(expected), upstream.ATOL)


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=1)


def test_vectors_have_upstreams_length_before_they_are_normalised(name, found):
    figures = upstream.figures(name)
    for side, vectors in found.items():
        recorded = figures[side]
        if name == "gloria":
            upstream.assert_close(vectors, recorded["embeddings"])
        elif "embeddings_raw" in recorded:
            upstream.assert_close(vectors, recorded["embeddings_raw"], 1e-4)
        elif "embeddings_before_l2" in recorded:
            upstream.assert_close(vectors, recorded["embeddings_before_l2"])
        else:  # positions count over both rows; the second image is not among the figures
            sample = recorded["embeddings_before_l2_sample25"]
            kept = [i for i, p in enumerate(sample["positions"]) if p < vectors.numel()]
            flat = vectors.ravel()[[sample["positions"][i] for i in kept]]
            upstream.assert_close(flat, [sample["values"][i] for i in kept])


def test_preprocessing_is_the_authors_and_under_as_published_that_of_paper_s(name):
    made = registry.recipe(name)
    case = upstream.figures(name)["preprocess"]["small_300x260"]
    found = each(made.preprocess)(upstream.film())
    assert found.shape[1:] == (3, *upstream.figures(name)["image"]["size"])
    recorded = case[AUTHORS.get(name, "upstream")]
    one_channel = recorded["shape"][-3] == 1  # repeated inside upstream's network
    upstream.assert_summary(found[0, :1] if one_channel else found[0], recorded)
    if name in PAPER_S:
        upstream.assert_summary(each(made.preprocess_s)(upstream.film())[0], case[PAPER_S[name]])
    else:
        assert made.preprocess_s is None


def test_the_cards_facts_are_those_of_the_network(name):
    card, figures = registry.cards()[name], upstream.figures(name)
    built = upstream.network(name)
    assert card["parameters"] == sum(p.numel() for p in built.parameters())
    assert card["embed_dim"] == figures["embed_dim"] == len(figures["image"]["embeddings"][0])
    assert card["image_size"] == figures["image"]["size"][0]


def test_a_network_filled_by_itself_equals_one_filled_from_upstreams_names(name):
    model = loading.load(f"seeded:{name}")
    expected = upstream.network(name).state_dict()
    for key, value in model.network.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, expected[key]), key

"""GLoRIA is upstream's: words by patches, similarities, zero-shot scores, what goes in."""

from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxrlib.models import gloria, loading, registry
from tests import upstream

FIGURES = upstream.figures("gloria")
SCORES = FIGURES["similarities"]
TEXTS = ["w1012 w4567ab", "w7592 w2010cdef w1204 w15000gh"]  # what the ids of the figures stand for
Z_SCORES = 2e-4


@pytest.fixture(scope="module")
def network():
    return upstream.network("gloria")


@pytest.fixture(scope="module")
def tokens():
    return upstream.tokens("gloria")


@pytest.fixture(scope="module")
def batch():
    """Both images, their mean, and the first mirrored left to right."""
    a, b = upstream.image(224, 224), upstream.image(224, 224, 1)
    return torch.cat([a, b, (a + b) / 2, a.flip(-1)])


@pytest.fixture(scope="module")
def local(network, batch, tokens):
    with torch.inference_mode():
        return network.local_image(batch[:2]), network.local_text(*tokens)


def unit(vectors):
    return F.normalize(torch.tensor(vectors), dim=1)


# --- figures ---


def test_local_embeddings_are_upstreams(local):
    patches, words = local
    upstream.assert_summary(patches, FIGURES["image"]["local"])
    upstream.assert_summary(words, FIGURES["text"]["local"])


def test_behind_the_last_word_are_zeros(network, tokens, local):
    used = (local[1] != 0).any(dim=1)
    assert used.sum(dim=1).tolist() == FIGURES["text"]["local_nonzero_columns"]
    counted = network.count_words(*tokens)  # without [CLS] and [SEP]
    assert counted == SCORES["local_cap_lens_words"]["cap_lens"]


@pytest.mark.parametrize("counted", ["words", "characters"])
def test_similarities_and_zero_shot_scores_are_upstreams(network, batch, tokens, counted):
    recorded = SCORES[f"local_cap_lens_{counted}"]
    cap_lens = None if counted == "words" else recorded["cap_lens"]
    found = gloria.similarities(network, batch, *tokens, cap_lens)
    upstream.assert_close(found.whole, SCORES["global"])
    upstream.assert_close(found.local, recorded["values"])
    upstream.assert_close(found.both, SCORES[f"both_cap_lens_{counted}"])
    scores = gloria.zero_shot(found.both, [[0], [1], [0, 1]])
    upstream.assert_close(scores, SCORES["zero_shot"][f"cap_lens_{counted}"], Z_SCORES)


def test_attention_is_upstreams(local):
    patches, words = local
    attention, context = gloria.attend(words[1, :, 1:5], patches)
    recorded = SCORES["attention_text1_words_1_to_4"]
    upstream.assert_summary(attention, recorded["map"])
    upstream.assert_summary(context, recorded["weighted_context"])


# --- mistakes that must not go unseen ---


def image_distance(network, tokens):
    found = upstream.image_vector(network, upstream.image(224, 224))
    return upstream.distance(found, unit(FIGURES["image"]["embeddings"])[0])


def text_distance(network, tokens):
    found = upstream.text_vectors(network, *tokens)
    return upstream.distance(found, unit(FIGURES["text"]["embeddings"]))


def raw_text_distance(network, tokens):
    with torch.inference_mode():
        found = network.encode_text(*tokens)
    return upstream.distance(found, FIGURES["text"]["embeddings"])


def corners_cut(batch):
    return F.interpolate(batch, (299, 299), mode="bilinear", align_corners=False)


def divided_by_tokens(network, ids, mask):
    return network.local_text(ids, mask).sum(dim=2) / mask.sum(dim=1, keepdim=True)


MISTAKES = {
    "image: upsampling with align_corners=False": (
        gloria, "enlarge", corners_cut, image_distance,
    ),
    "image: no upsampling to 299": (
        gloria, "enlarge", lambda batch: batch, image_distance,
    ),
    "text: mean over all positions, padding's hidden states included": (
        gloria, "sum_pieces", lambda states, word, mask: states, text_distance,
    ),
    "text: last hidden state only": (
        gloria, "LAYERS", slice(12, 13), text_distance,
    ),
    "text: hidden states 8 to 11": (
        gloria, "LAYERS", slice(8, 12), text_distance,
    ),
    "text, before L2: divided by the number of real tokens instead of 97": (
        gloria.GLoRIA, "encode_text", divided_by_tokens, raw_text_distance,
    ),
}  # fmt: skip


def test_all_recorded_mistakes_are_made_here():
    assert set(MISTAKES) == set(FIGURES["checks"]["WRONG"]) - {"what"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_lands_where_upstream_says(network, tokens, mistake, monkeypatch):
    where, attribute, wrong, distance = MISTAKES[mistake]
    monkeypatch.setattr(where, attribute, wrong)
    found = distance(network, tokens)
    assert found > upstream.ATOL
    # The recorded distance also covers image 1, which is not among the figures.
    recorded = FIGURES["checks"]["WRONG"][mistake]
    assert recorded / 3 <= found <= 1.1 * recorded


LOCAL_MISTAKES = {
    "pieces are words of their own": (
        gloria.TextEncoder, "word_of_piece", lambda self, ids: torch.arange(97).expand_as(ids),
    ),
    "another temperature": (gloria, "ATTENTION", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("mistake", LOCAL_MISTAKES)
def test_local_scores_see_mistakes_that_the_global_one_cannot(
    network, batch, tokens, mistake, monkeypatch
):
    monkeypatch.setattr(*LOCAL_MISTAKES[mistake])
    cap_lens = SCORES["local_cap_lens_words"]["cap_lens"]
    found = gloria.similarities(network, batch, *tokens, cap_lens)
    upstream.assert_close(found.whole, SCORES["global"])
    assert upstream.distance(found.local, SCORES["local_cap_lens_words"]["values"]) > 1e-3


# --- properties ---


@torch.inference_mode()
def test_a_batch_is_its_members_one_by_one(network, batch, tokens):
    for encode in (network.encode_image, network.local_image):
        one_by_one = torch.cat([encode(x[None]) for x in batch[:2]])
        upstream.assert_close(encode(batch[:2]), one_by_one)
    for encode in (network.encode_text, network.local_text):
        one_by_one = torch.cat([encode(i[None], m[None]) for i, m in zip(*tokens, strict=True)])
        upstream.assert_close(encode(*tokens), one_by_one)


@torch.inference_mode()
def test_what_stands_on_masked_positions_does_not_matter(network, tokens):
    ids, mask = tokens
    other = torch.where(mask.bool(), ids, 15000)
    upstream.assert_close(network.local_text(other, mask), network.local_text(ids, mask))
    assert network.count_words(other, mask) == network.count_words(ids, mask)


@torch.inference_mode()
def test_fewer_positions_change_the_length_of_a_text_vector_only(network, tokens):
    short = network.encode_text(*upstream.tokens("gloria", 12))
    upstream.assert_close(short * 12 / 97, network.encode_text(*tokens))


def test_an_attention_map_is_a_distribution_over_the_patches(local):
    patches, words = local
    attention, context = gloria.attend(words[0, :, 1:3], patches)
    torch.testing.assert_close(attention.sum(dim=(2, 3)), torch.ones(2, 2))
    by_hand = torch.einsum("ndij,nwij->ndw", patches, attention)
    torch.testing.assert_close(context, by_hand)


def test_one_image_alone_is_not_standardised():
    scores = torch.tensor([[0.1, 0.4, 0.3]])
    assert gloria.zero_shot(scores, [[0, 2], [1]]).tolist() == scores[:, [2, 1]].tolist()


@pytest.mark.parametrize("cap_lens", [[0, 4], [2, 97], [2]])
def test_a_number_of_words_that_cannot_be_is_refused(local, cap_lens):
    with pytest.raises(ValueError, match="from 1 to 96"):
        gloria.local_similarity(*local, cap_lens)


# --- what goes in ---


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Mild Edema.\nNo pleural-effusion", "mild edema no pleural effusion"),
        ("1. Stable heart. 2. Pneumonia. 3. Small effusion", "stable heart small effusion"),
        ("nodule of 1.5 cm", "nodule of 5 cm"),  # a decimal point is a full stop, too
        ("opacity, 2 cm; heart_size (normal)", "opacity 2 cm heart_size normal"),
        ("Größe normal", "gre normal"),
        ("é edema", "edema"),  # two words when they are counted
    ],
)
def test_texts_are_cleaned_as_upstream_does(text, kept):
    assert gloria.clean(text) == kept


@pytest.mark.parametrize("text", ["Pneumonia", "1. Pneumonia. 2. Edema", "...", "é è"])
def test_a_text_of_which_nothing_is_left_is_refused(text):
    with pytest.raises(ValueError, match="nothing is left of the text"):
        gloria.clean(text)


@pytest.mark.parametrize(
    ("shape", "black"),
    [
        ((100, 200), (48, 48, 0, 0)),  # 128 rows between 64 and 64, of which the crop takes 16
        ((101, 200), (47, 48, 0, 0)),  # int(129.28) rows: the odd one goes below
        ((200, 101), (0, 0, 47, 48)),
        ((150, 150), (0, 0, 0, 0)),
    ],
)
def test_margins_are_black_and_the_ratio_is_kept(shape, black):
    model = upstream.loaded("gloria")
    x = model.preprocess(np.full(shape, 255, np.uint8))[0]
    top, bottom, left, right = black
    expected = -torch.ones(3, 224, 224)
    expected[:, top : 224 - bottom, left : 224 - right] = 1
    assert torch.equal(x, expected)


def vocabulary(folder, size=28_996):
    """A file of made-up words in which the figures' ids stand for the figures' words."""
    lines = [f"[unused{i}]" for i in range(size)]
    lines[0], lines[100], lines[101], lines[102] = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
    for i in (1012, 4567, 7592, 2010, 1204, 15000):
        lines[i] = f"w{i}"
    for i, piece in FIGURES["text"]["pieces"].items():
        lines[int(i)] = piece
    path = folder / "vocab.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@torch.inference_mode()
def test_texts_pass_through_vocabulary_and_checkpoint_to_upstreams_numbers(tmp_path, batch):
    vocabulary(tmp_path)
    (tmp_path / "chexpert_resnet50.ckpt").write_bytes(b"stands for 540 MB")
    state = {f"gloria.{key}": value for key, value in upstream.state("gloria").items()}
    with mock.patch("cxrlib.models.checkpoints.read", return_value=state):
        model = loading.load("gloria", checkpoint=tmp_path)
    ids, mask = model.tokenizer(TEXTS)
    for found, expected in zip((ids, mask), upstream.tokens("gloria"), strict=True):
        assert torch.equal(found, expected)
    found = model.encode_text(TEXTS)
    upstream.assert_close(found, unit(FIGURES["text"]["embeddings"]), upstream.ATOL)
    found = gloria.similarities(model.network, batch, ids, mask)
    upstream.assert_close(found.local, SCORES["local_cap_lens_words"]["values"])


def test_long_texts_are_cut_to_97_positions(tmp_path):
    tokenizer = registry.recipe("gloria").tokenizer(vocabulary(tmp_path))
    ids, mask = tokenizer(["w1012 " * 200])
    assert ids.shape == (1, 97) and ids[0, -1] == 102 and mask.all()

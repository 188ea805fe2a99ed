"""``cxrbook models verify``: what it compares with is upstream's, and it fails where it should."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from cxrlib import models
from cxrlib.cli import app
from cxrlib.models import parity, registry
from tests import upstream
from tests.test_parity import AUTHORS

FIGURES = json.loads(parity.FIGURES.read_text())


def unit(rows):
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("name", models.published_models())
def test_its_figures_are_components_of_upstreams_vectors(name):
    ours, theirs = FIGURES["upstream"][name], upstream.figures(name)
    for side in ("image", "text"):
        expected = unit(theirs[side]["embeddings"])
        at = parity.spread(expected.shape[1])
        np.testing.assert_allclose(ours[side], expected[:, at], atol=1e-6)
    recorded = theirs["preprocess"]["small_300x260"][AUTHORS.get(name, "upstream")]
    assert ours["pixels"] == recorded["sample25"]["values"]
    assert ours["size"] == theirs["image"]["size"]


def test_it_uses_the_inputs_of_the_parity_rule():
    assert torch.equal(parity.noise(50, 40), upstream.image(50, 40))
    assert (parity.film() == upstream.film()).all()
    assert parity.film().sum() == 9948228
    assert parity.film(700, 820).sum() == 73208416


def test_a_wrong_activation_fails(monkeypatch):
    made = registry.recipe("clip_vit_b16")

    def wrong():
        network = made.build()
        for block in network.visual.transformer.resblocks:
            block.mlp.gelu = nn.GELU()
        return network

    monkeypatch.setitem(
        __import__("cxrlib.models.clip", fromlist=["MODELS"]).MODELS,
        "clip_vit_b16",
        replace(made, build=wrong),
    )
    table = parity.against_upstream("clip_vit_b16").set_index("check")
    assert not table.loc["image vector", "holds"]
    assert table.loc["text vectors", "holds"]


class Sloppy(nn.Module):
    """Dropout left on, and a batch norm that looks at the batch."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 128), nn.BatchNorm1d(128))

    def encode_image(self, batch):
        return self.mix(batch)


def test_a_model_in_training_mode_fails_the_self_test():
    good = models.load_model("phantom-resnet")
    assert parity.self_test(good)["holds"].all()
    bad = replace(good, name="sloppy", network=Sloppy().train())
    bad.network.encode_text = good.network.encode_text
    table = parity.self_test(bad).set_index("check")
    assert not table.loc["evaluation mode", "holds"]
    assert not table.loc["whatever the batch", "holds"]
    assert table.loc["unit norms", "holds"]


def test_other_weights_do_not_have_the_stored_fingerprint():
    impostor = replace(models.load_model("phantom-resnet-drain"), name="phantom-resnet")
    table = parity.self_test(impostor).set_index("check")
    assert not table.loc["stored fingerprint", "holds"]


def test_half_precision_stays_near_single_precision():
    # On a GPU `cxrbook models verify` measures the same; here it is the CPU's arithmetic.
    table = parity.precisions(models.load_model("phantom-vit"), "cpu")
    assert len(table) == 2
    assert table["holds"].all()
    assert (table["difference"] > 0).all()  # lower precision was indeed used


def run(*arguments):
    return CliRunner().invoke(app, ["models", *arguments])


def test_the_command_says_what_holds_and_what_was_not_run(monkeypatch):
    monkeypatch.delenv("CXRBOOK_CHECKPOINTS", raising=False)
    result = run("verify", "chexzero")
    assert result.exit_code == 0, result.output
    assert result.output.count("holds") == 3
    assert "NOT RUN" in result.output
    assert "CXRBOOK_CHECKPOINTS is not set" in result.output


def test_the_command_leaves_with_an_error_when_a_check_fails(monkeypatch):
    monkeypatch.setattr(parity, "ELSEWHERE", -1.0)
    result = run("verify", "phantom-resnet")
    assert "FAILS" in result.output
    assert "1 checks failed" in str(result.exception)


def test_the_listing_has_every_model_with_its_files_and_whether_they_are_there(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("CXRBOOK_CHECKPOINTS", str(tmp_path))
    (tmp_path / "chexzero").mkdir()
    (tmp_path / "chexzero" / "one.pt").write_bytes(b"abc")
    result = run("--hash")
    assert result.exit_code == 0
    said = " ".join(result.output.split())  # lines are wrapped
    for name, card in registry.cards().items():
        assert f"{name}: {card['title']}" in said
        assert card["licence"] in said
        for file in card["files"]:
            assert file["source"] in said
    assert f"present: {tmp_path / 'chexzero' / 'one.pt'}" in result.output
    # SHA-256 of "abc", from the standard that defines it.
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in result.output
    assert result.output.count("missing in") >= len(registry.cards()) - 1


def test_the_vocabulary_of_another_model_is_refused(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(4, 30_522))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read before the vocabulary")
    with pytest.raises(ValueError, match=r"30522 words; this model knows 28996.*Bio_ClinicalBERT"):
        models.load_model("medclip_vit", checkpoint=tmp_path)


@pytest.mark.gpu
@pytest.mark.slow  # make gpu-check compares all models with their authors' figures
@pytest.mark.parametrize("name", models.published_models())
def test_on_a_gpu_embeddings_are_those_of_the_cpu(name):
    model = models.load_model(f"seeded:{name}")
    batch, texts = model.preprocess([parity.film()]), ["Chest Pneumothorax"]
    here = torch.cat([model.encode_image(batch), model.encode_text(texts)])
    there = model.to("cuda")
    there = torch.cat([there.encode_image(batch), there.encode_text(texts)])
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)
    assert parity.precisions(model, "cuda")["holds"].all()

"""Models that stand in no list: the library that saved a folder is the reference."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as algorithms
from torch.nn import functional as F
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from cxrlib import cohorts, models
from cxrlib.book import inputs
from cxrlib.book.chapters import Chapter
from cxrlib.book.parameters import validate
from cxrlib.cohorts import leakage
from cxrlib.core import places
from cxrlib.models import open_clip_folder, parity
from cxrlib.models.leaks import leaks
from cxrlib.predict import adapters, zeroshot
from cxrlib.show.notebook import rendered
from tests.conftest import ROOT

FILMS = ROOT.parent / "shared" / "samples" / "nih"
TEXTS = ["Chest Pneumothorax", "Chest No Findings", "Pleural effusion, left, and an ICD"]
ATOL = 1e-6
TOWER = {"hidden_size": 32, "intermediate_size": 48}
TOWER |= {"num_hidden_layers": 2, "num_attention_heads": 2}
PIXELS = {"image_size": 64, "patch_size": 16}
VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(autouse=True)
def no_place_remembered(monkeypatch):
    monkeypatch.delenv(places.PLACES, raising=False)


@pytest.fixture(scope="module")
def films():
    """Films of two shapes, as (height, width) of uint8: real ones where they are at hand."""
    real = sorted(FILMS.glob("*.png"))[:2]
    if real:
        return [
            np.array(Image.open(path).convert("L"))[:, : 500 - 60 * k]
            for k, path in enumerate(real)
        ]
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, np.uint8) for shape in ((300, 260), (128, 200))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders as the libraries write them: name -> Path."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    makers = {"clip": _clip, "siglip": _siglip, "chinese": _chinese}
    found = {name: make(root / name) for name, make in makers.items()}
    for name, about in OPEN_CLIP.items():
        found[name] = _open_clip(root / name, *about)
    return found


def _clip(folder):
    """With the first words of CLIP's vocabulary."""
    bpe, words = SimpleTokenizer(), 800
    vocabulary = {word: i for word, i in bpe.encoder.items() if i < words}
    vocabulary |= {"<start_of_text>": words, "<end_of_text>": words + 1}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.get)[: words - 512],
        bos_token="<start_of_text>",
        **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<end_of_text>"),
        model_max_length=77,
    )
    ends = {"bos_token_id": words, "eos_token_id": words + 1, "pad_token_id": words + 1}
    config = CLIPConfig(
        text_config=TOWER | ends | {"vocab_size": words + 2},
        vision_config=TOWER | PIXELS,
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_std=[0.2, 0.3, 0.4]
    )
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def _siglip(folder):
    """Its tokenizer makes no attention mask, and pads with a token that the model sees."""
    pieces = ["<unk>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz,", "▁chest", "▁no", "▁find", "ings"]
    own = Tokenizer(
        algorithms.Unigram([(piece, -float(len(pieces) - i)) for i, piece in enumerate(pieces)], 0)
    )
    own.normalizer = normalizers.Lowercase()
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    own.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
        model_input_names=["input_ids"],
    )
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "projection_size": 32}
    text = TOWER | ends | {"vocab_size": len(pieces), "max_position_embeddings": 64}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=TOWER | PIXELS))
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-12.9)
    model.save_pretrained(folder)
    images = SiglipImageProcessor(size={"height": 64, "width": 64})
    SiglipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def _chinese(folder):
    """BERT as text encoder: the attention mask decides, and padding varies."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chest", "no", "findings", "left", ","]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    text = TOWER | {"vocab_size": len(words), "max_position_embeddings": 40}
    config = ChineseCLIPConfig(text_config=text, vision_config=TOWER | PIXELS, projection_dim=24)
    ChineseCLIPModel(config).save_pretrained(folder, max_shard_size="60KB")
    ChineseCLIPImageProcessor(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}
    ).save_pretrained(folder)
    return folder


OPEN_CLIP = {  # name -> model_cfg, preprocess_cfg
    "plain": (
        {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
        {"mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
    ),
    "sigmoid": (
        {
            "embed_dim": 16,
            "custom_text": True,
            "init_logit_bias": -10,
            "vision_cfg": {"timm_model_name": "resnet10t", "timm_proj": "linear", "image_size": 64},
            "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last"},
        },
        {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "longest"},
    ),
    "bert": (
        {
            "embed_dim": 16,
            "vision_cfg": VISION,
            "text_cfg": {
                "hf_model_name": "somebody/a-bert",
                "hf_tokenizer_name": "somebody/a-bert",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": 32,
            },
        },
        {},
    ),
}


def _open_clip(folder, model_cfg, preprocess_cfg):
    folder.mkdir()
    about = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    if "hf_model_name" in model_cfg["text_cfg"]:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chest", "no", "findings"]
        (folder / "vocab.txt").write_text("\n".join(words))
        BertTokenizer.from_pretrained(folder).save_pretrained(folder)
        BertConfig(**TOWER, vocab_size=8, max_position_embeddings=40).save_pretrained(folder)
    model = _by_open_clip(folder, weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def _by_open_clip(folder, weights=True):
    """open_clip's own model of a folder, whose text encoder it would look for on the Hub."""
    config = folder / "open_clip_config.json"
    text = config.read_text()
    try:
        config.write_text(
            text.replace('"hf_model_name": "somebody/a-bert"', f'"hf_model_name": "{folder}"')
        )
        return open_clip.create_model(
            f"local-dir:{folder}", load_weights=weights, pretrained_text=False
        ).eval()
    finally:
        config.write_text(text)


def named(name):
    """A place as a chapter's parameter gives it, and the name that comes of it."""
    (found,) = models.choose_models(name)
    return found


def refusal(name):
    """The one line with which a model is refused before anything is loaded."""
    with pytest.raises(ValueError) as caught:
        models.check_files(name)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(named(name))
    with pytest.raises(ValueError):
        models.load_model(name)
    return text


def refused(name):
    """The one line with which loading refuses a model."""
    with pytest.raises(ValueError) as caught:
        models.load_model(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- transformers: the library's own processor, features, and joint forward pass ------------------


def of_transformers(folder, films):
    """Unit vectors of films and texts, and probabilities of one film, by transformers itself."""
    model = AutoModel.from_pretrained(folder).eval()
    images = AutoImageProcessor.from_pretrained(folder)(
        [Image.fromarray(x).convert("RGB") for x in films], return_tensors="pt"
    )
    padding = "max_length" if "siglip" in folder.name else True
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(TEXTS, padding=padding, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        out = model(**images, **{k: v for k, v in texts.items() if k != "token_type_ids"})
    return F.normalize(out.image_embeds), F.normalize(out.text_embeds), out.logits_per_image


@pytest.mark.parametrize("name", ["clip", "siglip", "chinese"])
def test_a_folder_of_transformers_gives_the_embeddings_of_transformers(saved, films, name):
    model = models.load_model(f"transformers:{saved[name]}")
    images, texts, logits = of_transformers(saved[name], films)
    ours = model.encode_image(model.preprocess(films)), model.encode_text(TEXTS)
    assert (ours[0] - images).abs().max() < ATOL and (ours[1] - texts).abs().max() < ATOL
    # the softmax over two prompts: a bias of both cancels
    margin = model.logit_scale * ours[0] @ (ours[1][0] - ours[1][1])
    assert torch.allclose(margin, logits[:, 0] - logits[:, 1], atol=1e-4)
    alone = torch.cat([model.encode_text([text]) for text in TEXTS])
    assert (alone - texts).abs().max() < ATOL
    assert model.card["embed_dim"] == images.shape[1] and model.card["image_size"] == 64
    assert parity.self_test(model)["holds"].all()


@pytest.mark.parametrize("name", ["transformers:siglip", "open_clip:plain"])
def test_the_image_half_can_be_adapted(saved, name):
    kind, _, folder = name.partition(":")
    model = models.load_model(f"{kind}:{saved[folder]}")
    x = adapters.probe(model)
    adapted = adapters.with_lora(adapters.tower(model), x, rank=2).eval()
    assert adapters.listing(adapted)["adapted"].sum() > 0
    with torch.inference_mode():  # untrained updates change nothing
        found, expected = F.normalize(adapted(x)), model.encode_image(x)
    assert (found - expected).abs().max() < 1e-5


def test_weights_in_several_files_are_the_same_model(saved, films, tmp_path):
    whole = saved["clip"]
    parts = shutil.copytree(whole, tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    CLIPModel.from_pretrained(whole).save_pretrained(parts, max_shard_size="300KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    one, several = (models.load_model(f"transformers:{x}") for x in (whole, parts))
    batch = one.preprocess(films)
    assert torch.equal(one.encode_image(batch), several.encode_image(batch))
    assert several.card["parameters"] == one.card["parameters"]

    shard = sorted(parts.glob("model-*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    assert "cut off" in refusal(f"transformers:{parts}") and shard.name in refusal(
        f"transformers:{parts}"
    )
    shard.unlink()
    assert f"files that {parts / 'model.safetensors.index.json'} names are missing" in refusal(
        f"transformers:{parts}"
    )


def _without(*files):
    def break_it(folder):
        for file in files:
            (folder / file).unlink()

    return break_it


def _changed(file, **entries):
    def break_it(folder):
        about = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(about | entries))

    return break_it


def _pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def _tensor(name, change):
    def break_it(folder):
        path = folder / "model.safetensors"
        state = load_file(path)
        before = state.pop(name, None)
        state |= {name: change(before)} if change else {}
        save_file(state, path, {"format": "pt"})

    return break_it


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (_without("config.json"), "has no config.json"),
        (_without("model.safetensors"), "has no model.safetensors"),
        (_without("tokenizer.json"), "has no tokenizer (tokenizer.json"),
        (_without("processor_config.json"), "has no preprocessor_config.json"),
        (_pickled, "only safetensors is read"),
        (_changed("config.json", model_type="bert"), "is of the type 'bert'; expected one of"),
        (_changed("config.json", auto_map={"AutoModel": "x.Y"}), "names code of its own"),
        (_changed("config.json", _attn_implementation="kernels/x"), "own (_attn_implementation"),
        (_changed("tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}), "code of its own"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "holds no object"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>"), "no safetensors"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "merge it"),
    ],
)
def test_a_folder_of_transformers_that_cannot_be_used(saved, tmp_path, break_it, said):
    folder = shutil.copytree(saved["clip"], tmp_path / "broken")
    break_it(folder)
    assert said in refusal(f"transformers:{folder}")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (_changed("config.json", projection_dim=20), "2 mismatched: text_projection.weight"),
        (_changed("config.json", model_type="siglip"), "do not fit config.json"),
        (_tensor("logit_scale", lambda x: x + 20), "its logit scale is"),
        (_tensor("visual_projection.weight", lambda x: x * torch.nan), "NaN or infinite"),
        (
            _tensor("text_projection.weight", lambda x: x[:, :16].clone()),
            "1 mismatched: text_projection.weight",
        ),
        (_tensor("text_projection.weight", None), "1 missing: text_projection.weight"),
        (_tensor("another.weight", lambda x: torch.ones(3)), "1 unexpected: another.weight"),
    ],
)
def test_weights_that_do_not_fill_a_model_of_transformers(saved, tmp_path, break_it, said):
    folder = shutil.copytree(saved["clip"], tmp_path / "broken")
    break_it(folder)
    assert said in refused(f"transformers:{folder}")


def test_positions_that_older_versions_saved_are_no_weights(saved, tmp_path):
    folder = shutil.copytree(saved["clip"], tmp_path / "older")
    _tensor("vision_model.embeddings.position_ids", lambda _: torch.arange(17)[None])(folder)
    assert models.load_model(f"transformers:{folder}").card["embed_dim"] == 24


def test_a_text_is_cut_to_the_positions_that_the_model_has(saved, tmp_path):
    """RoBERTa and its kin, of which AltCLIP is one, begin to count behind the padding."""
    folder = shutil.copytree(saved["chinese"], tmp_path / "alt")
    for path in folder.glob("model*"):
        path.unlink()
    text = TOWER | {"vocab_size": 10, "max_position_embeddings": 40, "project_dim": 32}
    config = AltCLIPConfig(
        text_config=text | {"pad_token_id": 0}, vision_config=TOWER | PIXELS, projection_dim=24
    )
    AltCLIPModel(config).save_pretrained(folder)
    long = models.load_model(f"transformers:{folder}").encode_text(["chest " * 60, "chest " * 37])
    assert torch.equal(long[0], long[1])


def test_one_number_for_all_channels_and_another_scale_of_grey(saved, films, tmp_path):
    folder = shutil.copytree(saved["clip"], tmp_path / "scaled")
    (folder / "processor_config.json").unlink()
    steps = CLIPImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        rescale_factor=1 / 127.5,
        image_mean=1.0,
        image_std=0.5,
    )
    steps.save_pretrained(folder)
    model = models.load_model(f"transformers:{folder}")
    images, _, _ = of_transformers(folder, films)
    assert (model.encode_image(model.preprocess(films)) - images).abs().max() < ATOL
    said = "grey levels of 0 to 255 times 0.00784; mean 1 and SD 0.5 of the channels"
    assert said in model.card["remarks"]


def test_a_vocabulary_of_another_model_is_noticed(saved, tmp_path):
    folder = shutil.copytree(saved["siglip"], tmp_path / "mixed")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(saved["clip"] / file, folder / file)
    assert "it belongs to another model" in refused(f"transformers:{folder}")


# --- open_clip: the library's own model, transform and tokenizer ----------------------------------


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_a_folder_of_open_clip_gives_the_embeddings_of_open_clip(saved, films, name):
    folder = saved[name]
    model = models.load_model(f"open_clip:{folder}")
    theirs = _by_open_clip(folder)
    prepare = image_transform_v2(PreprocessCfg(**theirs.visual.preprocess_cfg), is_train=False)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    batch = torch.stack([prepare(Image.fromarray(film).convert("RGB")) for film in films])
    with torch.inference_mode():
        images = theirs.encode_image(batch, normalize=True)
        texts = theirs.encode_text(tokens, normalize=True)
    assert (model.encode_image(model.preprocess(films)) - images).abs().max() < ATOL
    assert (model.encode_text(TEXTS) - texts).abs().max() < ATOL
    assert model.logit_scale == pytest.approx(float(theirs.logit_scale.detach().exp()))
    assert parity.self_test(model)["holds"].all()


@pytest.fixture
def architectures(tmp_path, monkeypatch):
    """Small stand-ins under the names of three architectures of open_clip."""
    found = {}
    for name, patch in {"ViT-S-32-alt": 32, "ViT-S-16-alt": 16, "ViT-L-14": 32}.items():
        vision = VISION | {"patch_size": patch}
        about = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT | {"vocab_size": 49408}}
        found[name] = tmp_path / "configs" / f"{name}.json"
        found[name].parent.mkdir(exist_ok=True)
        found[name].write_text(json.dumps(about))
    monkeypatch.setattr(open_clip_folder, "_architectures", lambda: found)
    return found


def test_an_architecture_by_the_name_of_the_folder_or_file(architectures, films, tmp_path):
    """Without a configuration, films are prepared as for all that open_clip lists of that name."""
    name = "ViT-S-32-alt"
    theirs = open_clip.CLIP(**json.loads(architectures[name].read_text())).eval()
    state = {f"module.{key}": x for key, x in theirs.state_dict().items()}
    (tmp_path / name).mkdir()
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / name / "epoch_3.pt")
    shutil.copy(tmp_path / name / "epoch_3.pt", tmp_path / f"{name}.pt")
    found = [models.load_model(f"open_clip:{tmp_path / x}") for x in (name, f"{name}.pt")]
    with torch.inference_mode():
        expected = theirs.encode_image(found[0].preprocess(films), normalize=True)
    for model in found:
        assert torch.equal(model.encode_image(model.preprocess(films)), expected)
        assert "what open_clip lists for ViT-S-32-alt" in model.card["remarks"]
    torch.save({"state_dict": state, "args": Path("x")}, tmp_path / f"{name}.pt")
    assert "only tensors are opened" in refused(f"open_clip:{tmp_path / name}.pt")
    for other, said in {
        "ViT-S-16-alt": "2 wrong: visual.positional_embedding",
        "ViT-L-14": "prepared in several ways",
        "ViT-S32": "is no architecture of open_clip (did you mean 'ViT-S-32-alt'?)",
    }.items():
        shutil.copytree(tmp_path / name, tmp_path / other)
        assert said in refused(f"open_clip:{tmp_path / other}")


@pytest.mark.parametrize(
    ("name", "break_it", "said"),
    [
        ("plain", _without("open_clip_model.safetensors"), "expected one file with weights"),
        ("plain", lambda x: (x / "open_clip_config.json").write_text("{}"), "has no model_cfg"),
        ("bert", _without("config.json"), "its text encoder is somebody/a-bert of transformers"),
        ("bert", _without("vocab.txt", "tokenizer.json"), "its tokenizer is somebody/a-bert"),
        ("bert", _changed("config.json", auto_map={"AutoModel": "x.Y"}), "code of its own"),
    ],
)
def test_a_folder_of_open_clip_that_cannot_be_used(saved, tmp_path, name, break_it, said):
    folder = shutil.copytree(saved[name], tmp_path / "broken")
    break_it(folder)
    assert said in refusal(f"open_clip:{folder}")


def test_a_tokenizer_that_would_run_code_of_a_subfolder_does_not(saved, tmp_path):
    folder = shutil.copytree(saved["bert"], tmp_path / "trusting")
    shutil.copytree(saved["bert"], folder / "deep")
    code = {"auto_map": {"AutoTokenizer": ["code.Tok", None]}, "tokenizer_class": "Tok"}
    _changed("deep/tokenizer_config.json", **code)(folder)
    for place in (folder, folder / "deep"):
        text = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Tok: pass"
        (place / "code.py").write_text(text)
    about = json.loads((folder / "open_clip_config.json").read_text())
    trusting = {"subfolder": "deep", "trust_remote_code": True}
    about["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = trusting
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    try:
        models.load_model(f"open_clip:{folder}")
    except ValueError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"resize_mode": "stretch"}, "resize_mode 'stretch': expected one of shortest"),
        ({"interpolation": "best"}, "interpolation 'best': expected one of bicubic"),
        ({"mean": "grey"}, "plain"),
        ("none", "plain"),
    ],
)
def test_steps_that_open_clip_does_not_have(saved, tmp_path, steps, said):
    folder = shutil.copytree(saved["plain"], tmp_path / "plain")
    _changed("open_clip_config.json", preprocess_cfg=steps)(folder)
    assert said in refused(f"open_clip:{folder}")
    _changed("open_clip_config.json", preprocess_cfg={"mean": 0.5, "std": 0.25})(folder)
    model = models.load_model(f"open_clip:{folder}")
    assert "mean 0.5 and SD 0.25 of the channels" in model.card["remarks"]


# --- own: a Python file ---------------------------------------------------------------------------

OWN = """
from pathlib import Path

import torch

from cxrlib.models import images
from cxrlib.models.encoder import Encoder
from cxrlib.models.text import clip_bpe


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pixels = torch.nn.Linear(3 * 49, 8)
        self.words = torch.nn.Embedding(49408, 8)

    def encode_image(self, batch):
        small = torch.nn.functional.adaptive_avg_pool2d(batch, 7)
        return self.pixels(small.flatten(1))

    def encode_text(self, ids, mask):
        return (self.words(ids) * mask[..., None]).sum(dim=1)


def build():
    card = {"trained_on": "nothing yet", "architecture": "a layer"}
    return Encoder(
        "tiny", Tiny().eval(), images.each(images.clip), clip_bpe(), card, "by hand", ()
    )
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes `own:mine` with something replaced, and gives its name."""
    monkeypatch.setenv(places.ROOT, str(tmp_path))

    def write(old="", new=""):
        assert old in OWN
        (tmp_path / "mine.py").write_text(OWN.replace(old, new, 1))
        return "own:mine"

    return write


def test_a_python_file_of_ones_own_is_a_model(own, tmp_path):
    model = models.load_model(own())
    assert model.name == "own:mine" and model.card["embed_dim"] == 8
    assert model.notes == ("built by the code of mine.py, which was run",)
    films = cohorts.load("phantom", n_images=6)
    assert len(zeroshot.predict(films, [model], ["Pneumonia"], cache=False)) == 6
    table = models.describe_models(["own:mine", "phantom-vit"])
    assert list(table["remarks"]) == [model.notes[0], ""]
    assert table["trained_on"][0] == "nothing yet" and table["parameters"][0] > 49408 * 8
    # code and weights decide about the embeddings, and change what they are stored under
    marks = {model.fingerprint}
    marks.add(models.load_model(own("manual_seed(0)", "manual_seed(1)")).fingerprint)
    marks.add(models.load_model(own("adaptive_avg_pool2d", "adaptive_max_pool2d")).fingerprint)
    assert len(marks) == 3


def test_a_module_beside_the_file_can_be_imported_and_counts_as_its_code(own, tmp_path):
    helper = tmp_path / "size_of_mine.py"
    helper.write_text("SIDE = 7\n\n\ndef side():\n    return SIDE\n")
    name = own("(batch, 7)", "(batch, size_of_mine.side())")
    path = tmp_path / "mine.py"
    path.write_text(
        path.read_text().replace("import torch\n", "import size_of_mine\nimport torch\n")
    )
    model, before = models.load_model(name), list(sys.path)
    assert (
        helper in model.code and "size_of_mine" not in sys.modules and str(tmp_path) not in before
    )
    mark = model.fingerprint
    helper.write_text("def side():\n    return 3 + 4\n")
    assert models.load_model(name).fingerprint != mark


def test_code_of_ones_own_runs_when_the_model_is_loaded_and_not_before(own, tmp_path):
    name = own("def build", f"Path({str(tmp_path / 'ran')!r}).touch()\n\n\ndef build")
    models.check_files(name)
    assert not (tmp_path / "ran").exists()
    models.load_model(name)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def build", "def make", "defines no function build()"),
        ("def build():", "def build(:", "cannot be read as Python"),
    ],
)
def test_a_python_file_that_is_no_model(own, old, new, said):
    assert said in refusal(own(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "    card",
            "    raise RuntimeError('no\\nweights')\n    card",
            "failed: RuntimeError: no",
        ),
        ("    card", "    raise SystemExit(3)\n    card", "failed: SystemExit: 3"),
        ("    card", "    return 3\n    card", "build() of"),
        ("Embedding(49408, 8)", "Embedding(49408, 7)", "expected (2, d) and (3, d)"),
        ("Embedding(49408, 8)", "Embedding(40, 8)", "a trial with 2 films and 3 texts failed"),
        (".sum(dim=1)", ".sum(dim=1) / 0", "embeddings with values that are NaN or infinite"),
        ("small.flatten(1)", "small.flatten(1) + torch.rand(147)", "'the same again'"),
        ("small.flatten(1)", "small.flatten(1) - small.mean()", "'whatever the batch'"),
        ("Tiny().eval()", "Tiny()", "'evaluation mode'"),
        ('"by hand", ()', '"by hand", (), -1.0', "its logit scale is -1.0"),
        ('"by hand", ()', '"by hand", (), "10"', "logit_scale of the Encoder that"),
        ('card, "by hand"', 'None, "by hand"', "is NoneType; expected dict"),
        ('"nothing yet"', '"", "sources": "NIH"', "no list of names"),
        ("    card", "    raise RuntimeError('x ' * 999)\n    card", "x ..."),
    ],
)
def test_code_of_ones_own_that_builds_no_encoder(own, old, new, said):
    assert said in refused(own(old, new))


# --- names: no folder of a user's on a page ------------------------------------------------------


def test_a_place_is_known_by_its_last_part_in_this_process_and_those_it_starts(saved, monkeypatch):
    clip = saved["clip"]
    assert models.choose_models(f"phantom-vit, transformers:{clip}") == [
        "phantom-vit",
        "transformers:clip",
    ]
    assert models.load_model("transformers:clip").name == "transformers:clip"
    assert places.remembered() == {"transformers:clip": clip}
    assert json.loads(os.environ[places.PLACES]) == {"transformers:clip": str(clip)}
    monkeypatch.delenv(places.PLACES)
    monkeypatch.setenv(places.ROOT, str(clip.parent))
    assert (
        models.load_model("transformers:clip").card["embed_dim"] == 24
    )  # below CXRBOOK_CHECKPOINTS
    monkeypatch.chdir(clip.parent)
    monkeypatch.delenv(places.ROOT)
    assert "set CXRBOOK_CHECKPOINTS to the folder" in refusal("transformers:clip")


def test_a_misspelt_kind():
    for name in ("transformer:clip", "openclip:clip", "Own:mine"):
        with pytest.raises(ValueError, match=r"did you mean '(transformers|open_clip|own):'"):
            models.choose_models(name)


def test_two_of_one_name_are_refused(saved, tmp_path):
    other = shutil.copytree(saved["clip"], tmp_path / "clip")
    for wanted in (f"transformers:{saved['clip']}, transformers:{other}",) * 2:
        with pytest.raises(ValueError, match="would both be called transformers:clip"):
            models.choose_models(wanted)
    with pytest.raises(ValueError, match="two are called transformers:clip"):
        models.choose_models("transformers:clip, transformers:clip")
    for nothing in ("transformers:", "own: ", "own:/"):
        with pytest.raises(ValueError, match="expected the name or path"):
            models.choose_models(nothing)


def test_a_table_with_a_column_per_model_keeps_their_spelling():
    rows = {"of": ["a_b", "a_b"], "model": ["open_clip:x_y", "medclip_vit"], "value": [1.0, 2.0]}
    page, plain = rendered(pd.DataFrame(rows).pivot(index="of", columns="model", values="value"))
    assert "open_clip:x_y" in page and "medclip_vit" in plain.splitlines()[0]


def test_chapters_get_the_name_without_the_folder(saved):
    parameters = Chapter(ROOT / "chapters" / "05_embeddings.py").parameters
    asked = f"phantom-vit,transformers:{saved['clip']}"
    given = {"models": asked, "probed": f"transformers:{saved['clip']}"}
    found = validate(parameters, given, "chapter 5")
    assert found == {"models": "phantom-vit, transformers:clip", "probed": "transformers:clip"}
    assert validate(parameters, found, "chapter 5") == found
    assert validate(parameters, {"models": "all"}, "chapter 5") == {"models": "all"}


def test_weights_outside_the_folder_of_checkpoints_count_as_used(saved, own, tmp_path):
    models.choose_models(f"transformers:{saved['clip']}, own:{tmp_path}/mine.py")
    own()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other").touch()
    folders = inputs.places(ROOT, ROOT / "cxrlib")
    del folders[inputs.WEIGHTS]
    weights = saved["clip"] / "model.safetensors"
    names = inputs.named([str(weights), str(tmp_path / "mine.py")], folders)
    assert names == [
        "beside own:mine.py/mine.py",
        "transformers:clip/",
        "transformers:clip/model.safetensors",
    ]
    before = inputs.hashes(folders)
    assert set(names) <= before.keys() and "beside own:mine.py/deep/other" not in before
    weights.touch()
    after = inputs.hashes(folders)
    assert {x for x in before if before[x] != after[x]} == {names[-1]}


# --- what is known of them ------------------------------------------------------------------------


def test_pretraining_data_cannot_be_told(saved, own):
    cohort = cohorts.load("phantom", n_images=20)
    names = models.choose_models(
        f"transformers:{saved['siglip']}, open_clip:{saved['plain']}, {own()}"
    )
    found = leaks(names, cohort)
    assert set(found["verdict"]) == {"cannot be told"}
    report = leakage.report(cohort, found).set_index("check")
    assert (
        report.loc[[f"pretraining of {name}" for name in names], "note"] == "cannot be told"
    ).all()


def test_nothing_is_asked_of_the_network(saved, monkeypatch):
    import socket

    def no_network(*_, **__):
        raise AssertionError("a request to the network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    for name in (f"transformers:{saved['siglip']}", f"open_clip:{saved['bert']}"):
        assert models.load_model(name).card["embed_dim"] in (16, 32)

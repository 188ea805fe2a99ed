"""Checkpoints: right ones are accepted however they are wrapped, all others refused in words."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from torch import nn

from cxrlib import models
from cxrlib.models import checkpoints, files, registry, text
from cxrlib.models.convert import convert
from cxrlib.models.encoder import Tokens
from cxrlib.models.recipe import Recipe
from tests import upstream
from tests.conftest import environment


class Tiny(nn.Module):
    """All that a checkpoint can hold: weights, a counter, a tied tensor, a buffer of indices."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.text = nn.Embedding(10, 3)
        self.head = nn.Linear(3, 10, bias=False)
        self.head.weight = self.text.weight
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("position_ids", torch.arange(5))

    def encode_image(self, batch):
        return self.norm(self.visual(batch.mean(dim=(1, 2, 3))[:, None].expand(-1, 4)))

    def encode_text(self, ids, mask):
        return self.text(ids).mean(dim=1)


class Pair(nn.Module):
    """An image and a text network with a file each."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(4, 3), nn.Linear(5, 3)


WEIGHTS = {"part": "weights", "names": ["tiny.pt", "old.tar"], "source": "a shelf"}
VOCABULARY = {"part": "vocabulary", "names": ["vocab.txt"], "source": "the library", "words": 4}
PARTS = [
    {"part": "image", "names": ["image.pt"], "source": "here"},
    {"part": "text", "names": ["text.pt"], "source": "there"},
]


def card(name, *files):
    return {"name": name, "family": "clip", "files": list(files), "embed_dim": 3}


@pytest.fixture
def tiny(monkeypatch):
    """Two small models in the registry, beside the others."""
    cards = registry.cards() | {
        "tiny": card("tiny", dict(WEIGHTS)),
        "worded": card("worded", WEIGHTS, VOCABULARY),
        "pair": card("pair", *PARTS),
        "many": card("many", WEIGHTS | {"names": ["*.pt"], "many": True}),
    }
    known = registry.recipe

    def recipe(name):
        if name not in ("tiny", "worded", "pair", "many"):
            return known(name)
        build = Pair if name == "pair" else Tiny
        return Recipe(
            build=build,
            tokenizer=lambda path: lambda texts: Tokens(*2 * [torch.ones(len(texts), 1).long()]),
            preprocess=lambda image: torch.zeros(3, 2, 2),
        )

    monkeypatch.setattr(registry, "cards", lambda: cards)
    monkeypatch.setattr(registry, "recipe", recipe)
    monkeypatch.delenv(files.FOLDER, raising=False)
    return cards


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {key: torch.rand_like(x) if x.is_floating_point() else x for key, x in made().items()}


def made():
    state = Tiny().state_dict()
    del state["head.weight"]  # tied
    return state


def saved(content, legacy=False, protocol=2):
    file = io.BytesIO()
    torch.save(
        content,
        file,
        _use_new_zipfile_serialization=not legacy,
        pickle_protocol=protocol,
    )
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


def forms(state):
    """The same tensors as the three kinds of file."""
    return {
        "zip": saved(state),
        "legacy": saved(state, legacy=True),
        "safetensors": safetensors.torch.save(state),
    }


def message(call, *args, **kwargs):
    """What a user is told; on one line."""
    with pytest.raises(ValueError) as refused:
        call(*args, **kwargs)
    text = str(refused.value)
    assert "\n" not in text
    return text


def refusal(path, content):
    path.write_bytes(content)
    text = message(models.load_model, "tiny", checkpoint=path)
    assert text.startswith(f"tiny, {path}: ")
    return text


# What is accepted


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("name", ["tiny.pt", "tiny.safetensors", "TINY.PT", "anything"])
def test_files_are_told_apart_by_their_content(tiny, state, tmp_path, form, name):
    path = tmp_path / name
    path.write_bytes(forms(state)[form])
    where = tmp_path if "." in name else path
    model = models.load_model("tiny", checkpoint=where)
    assert torch.equal(model.network.visual.weight, state["visual.weight"])
    assert torch.equal(model.network.head.weight, state["text.weight"])
    assert model.weights == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.notes == ()
    assert not model.network.training


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "optimizer": {"state": {0: torch.ones(2)}}, "epoch": 3},
        lambda s: {"model": s, "config": {"name": "x", "sizes": [1, 2]}},
        lambda s: {"model": {"model_state_dict": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {k.replace("visual.", "visual._orig_mod."): v for k, v in s.items()},
        lambda s: s | {"logit_scale": s["logit_scale"].reshape(1)},
        lambda s: s | {"logit_scale": s["logit_scale"].reshape(1, 1)},
        lambda s: dict(reversed(s.items())),
        lambda s: s | {"head.weight": s["text.weight"]},
        lambda s: {k: v for k, v in s.items() if k != "position_ids"},
        lambda s: s | {"layers.0.relative_position_index": torch.zeros(4), "step": 7},
        lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    ],
    ids=[
        "flat",
        "state_dict",
        "model",
        "twice nested",
        "module",
        "nested module",
        "compiled",
        "compiled in parallel",
        "parallel, then compiled",
        "compiled in part",
        "scale of one number",
        "scale in two dimensions",
        "other order",
        "tied tensor",
        "no position_ids",
        "more indices",
        "parameters",
    ],
)
def test_wrappings_and_what_holds_no_weights_do_not_matter(tiny, state, tmp_path, wrap):
    (tmp_path / "tiny.pt").write_bytes(saved(wrap(state)))
    loaded = models.load_model("tiny", checkpoint=tmp_path).network.state_dict()
    for key, value in state.items():
        assert torch.equal(loaded[key], value), key
    assert torch.equal(loaded["head.weight"], state["text.weight"])


def test_a_tensor_may_be_called_model():
    state = {"model": torch.ones(2), "state_dict": torch.zeros(3)}
    assert checkpoints.tensors(state, Path("x.pt")) == state


def test_prefixes_go_up_to_their_last_occurrence(state):
    network = Tiny()
    checkpoints.load_strictly(
        network,
        {f"gloria.other.gloria.{k}": v for k, v in state.items()},
        "tiny",
        prefix="gloria.",
    )
    assert torch.equal(network.visual.weight, state["visual.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast_and_this_is_said(tiny, state, tmp_path, dtype):
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    cast["visual.bias"] = state["visual.bias"]  # some files mix
    (tmp_path / "tiny.pt").write_bytes(saved(cast))
    model = models.load_model("tiny", checkpoint=tmp_path)
    assert model.network.visual.weight.dtype == torch.float32
    assert torch.equal(model.network.visual.weight, cast["visual.weight"].float())
    assert model.notes == (f"weights stored as {str(dtype)[6:]}, cast to float32",)


# What is refused: wrong tensors


def off_by_one(state):
    return state | {"visual.weight": torch.rand(3, 5)}


def swapped(state):
    return state | {
        "visual.weight": state["text.weight"],
        "text.weight": state["visual.weight"],
    }


def with_value(value, dtype=torch.float32):
    def change(state):
        weight = state["visual.weight"].to(dtype)
        weight[1, 2] = value
        return state | {"visual.weight": weight}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (off_by_one, ["1 wrong", "visual.weight [3, 5] instead of [3, 4]"]),
        (swapped, ["wrong: visual.weight [10, 3] instead of [3, 4], text.weight [3, 4] inst"]),
        (with_value(float("nan")), ["NaN or infinite: visual.weight"]),
        (with_value(float("-inf")), ["NaN or infinite: visual.weight"]),
        (with_value(1e300, torch.float64), ["NaN or infinite: visual.weight"]),
        (
            lambda s: s | {"visual.weight": torch.ones(3, 4, dtype=torch.int64)},
            ["visual.weight [3, 4] int64 instead of [3, 4]"],
        ),
        (
            lambda s: s | {"visual.weight": torch.ones(3, 4, dtype=torch.complex64)},
            ["visual.weight [3, 4] complex64 instead of [3, 4]"],
        ),
        (
            lambda s: s | {"norm.num_batches_tracked": torch.tensor(3.0)},
            ["norm.num_batches_tracked [] instead of [] int64"],
        ),
        (
            lambda s: s | {"visual.weight": s["visual.weight"].to_sparse()},
            ["sparse", "visual.weight"],
        ),
        (
            lambda s: s | {"module.visual.bias": s["visual.bias"]},
            ["twice", "different prefixes: visual.bias"],
        ),
        (
            lambda s: s | {"head.weight": s["text.weight"] + 1},
            ["unlike the tensor that they are tied to: head.weight"],
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != "visual.bias"},
            ["1 missing: visual.bias; none unexpected"],
        ),
        (
            lambda s: s | {"extra": torch.ones(1)},
            ["none missing; 1 unexpected: extra"],
        ),
        (
            lambda s: nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)]).state_dict(),
            [
                "not a checkpoint of this model. 10 missing: logit_scale, visual.weight, visual",
                "and 5 more; 8 unexpected: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 3 more",
            ],
        ),
        (lambda s: {}, ["holds no tensors by name"]),
        (lambda s: {"state_dict": {}, "epoch": 1}, ["holds no tensors by name"]),
        (lambda s: list(s.values()), ["holds no tensors by name (found a list)"]),
        (lambda s: {0: torch.ones(2)}, ["holds no tensors by name (found 0)"]),
    ],
)
def test_wrong_tensors_are_named_with_model_and_file(tiny, state, tmp_path, change, words):
    path = tmp_path / "tiny.pt"
    text = refusal(path, saved(change(state)))
    for word in words:
        assert word in text


def test_a_container_that_holds_itself_is_refused(tiny, tmp_path):
    endless = {}
    endless["model"] = endless
    assert "holds no tensors" in refusal(tmp_path / "tiny.pt", saved(endless))


# What is refused: no checkpoints


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty (0 bytes): download it again"),
        (b"see the read-me file\n", "not a checkpoint of torch or safetensors, it begins with"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
        (b"\x1f\x8b\x08\x00rest", "it is a gzip archive: unpack it"),
        (zipped(**{"a/pytorch_model.bin": "x"}), "it holds a/pytorch_model.bin): unpack it"),
        (b"PK\x03\x04" + bytes(60), "damaged or cut off, download it again"),
        (b"\x80\x02xxx", "or is damaged (Unsupported operand 120)"),
        (b"\x80\x02", "damaged or cut off, download it again (EOFError)"),
        (pickle.dumps({"a": 1}, 2), "damaged or cut off, download it again (Invalid magic"),
        ((2**60).to_bytes(8, "little") + b'{"a":', "not a checkpoint"),
        ((99_000_000).to_bytes(8, "little") + b'{"a":', "a damaged safetensors file"),
        (bytes(8) + b"{}", "a damaged safetensors file"),
    ],
)
def test_files_that_are_no_checkpoints_say_what_they_are(tiny, tmp_path, content, words):
    path = tmp_path / "tiny.pt"
    assert words in refusal(path, content)
    assert words in message(convert, path) or "needs no conversion" in message(convert, path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_cut_off_anywhere_is_refused(state, tmp_path, form):
    path, whole = tmp_path / "tiny.pt", forms(state)[form]
    path.write_bytes(whole)
    assert set(checkpoints.read(path)) == set(state)
    for length in {*range(0, len(whole), 37), *range(40), *range(len(whole) - 40, len(whole))}:
        path.write_bytes(whole[:length])
        assert str(path) in message(checkpoints.read, path)


# What is refused: code


class Trap:
    """Runs code when it is unpickled by Python."""

    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


def traps(canary):
    return {
        "posix.system": Trap(os.system, f"touch '{canary}'"),
        "eval": Trap(eval, f"open({str(canary)!r}, 'w').close()"),
        "exec": Trap(exec, f"open({str(canary)!r}, 'w').close()"),
        "shutil.copy": Trap(shutil.copy, __file__, str(canary)),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", list(traps("")))
def test_code_in_a_pickle_is_refused_and_not_run(
    tiny, state, tmp_path, monkeypatch, name, protocol, legacy
):
    canary, path = tmp_path / "canary", tmp_path / "tiny.pt"
    content = saved({"state_dict": state, "config": traps(canary)[name]}, legacy, protocol)
    # Whoever set this for another program must not have opened a door here.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    told = refusal(path, content), message(convert, path)
    assert not canary.exists()
    assert not path.with_suffix(".safetensors").exists()
    if protocol == 2:
        assert all(f"it names {name})" in text for text in told)
        assert f"`cxrbook models convert {path}`" in told[0]
        assert "nothing was executed" in told[1]
    torch.load(io.BytesIO(content), weights_only=False)
    assert canary.exists()  # the trap was a real one


# Hashes


def test_hashes_of_the_card_and_of_the_list_beside_the_file(tiny, state, tmp_path):
    path = tmp_path / "tiny.pt"
    path.write_bytes(saved(state))
    right = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "md5": hashlib.md5(path.read_bytes()).hexdigest(),
    }
    for kind, label in files.HASHES.items():
        tiny["tiny"]["files"] = [WEIGHTS | {kind: right[kind].upper()}]
        models.load_model("tiny", checkpoint=tmp_path)
        wrong = "0" * len(right[kind])
        tiny["tiny"]["files"] = [WEIGHTS | {kind: wrong}]
        text = message(models.load_model, "tiny", checkpoint=tmp_path)
        told = f"tiny, {path}: {label} {right[kind]} differs from the hash its authors publish"
        assert text.startswith(told)
        assert wrong in text
    # A card's hash is that of the original, not of what was made from it.
    path.with_name("tiny.safetensors").write_bytes(safetensors.torch.save(state))
    models.load_model("tiny", checkpoint=tmp_path)
    path.with_name("tiny.safetensors").unlink()

    tiny["tiny"]["files"] = [WEIGHTS]
    sums = tmp_path / "SHA256SUMS"
    other = f"# made on Monday\n\n{'1' * 64}  other.pt\n"
    for line in (f"{right['sha256']}  tiny.pt", f"{right['sha256'].upper()} *./tiny.pt"):
        sums.write_text(f"{other}{line}\n")
        assert files.check_hash(path, WEIGHTS) == (right["sha256"], "SHA256SUMS")
    sums.write_bytes(b"\xff\xfe not a list")
    assert files.check_hash(path, WEIGHTS)[1] == "no hash is known to compare with"
    sums.write_text(f"{other}{'0' * 64} *tiny.pt\n")
    text = message(models.load_model, "tiny", checkpoint=tmp_path)
    assert f"{path}: SHA-256 {right['sha256']} differs from SHA256SUMS ({'0' * 64})" in text


# Finding


def test_missing_files_are_named_with_their_source_and_the_folder(tiny, state, tmp_path):
    (tmp_path / "tiny.pt").write_bytes(saved(state))
    for where in (tmp_path, tmp_path / "tiny.pt"):
        text = message(models.load_model, "worded", checkpoint=where)
        assert f"not found in {where}" in text
        assert "vocabulary: vocab.txt, from the library" in text
        assert "weights" not in text
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    for where in (tmp_path, tmp_path / "tiny.pt"):
        assert models.load_model("worded", checkpoint=where).name == "worded"


def test_no_such_path_and_no_variable(tiny, state, tmp_path, monkeypatch):
    nowhere = tmp_path / "nowhere" / "tiny.pt"
    text = message(models.load_model, "tiny", checkpoint=nowhere)
    assert f"not found in {nowhere}" in text
    assert "weights: tiny.pt or old.tar, from a shelf" in text
    text = message(models.load_model, "tiny")
    assert "set CXRBOOK_CHECKPOINTS to a folder with a folder 'tiny'" in text
    monkeypatch.setenv(files.FOLDER, str(tmp_path))
    assert f"not found in {tmp_path / 'tiny'}" in message(models.load_model, "tiny")
    (tmp_path / "tiny" / "as unpacked").mkdir(parents=True)
    (tmp_path / "tiny" / "as unpacked" / "old.tar").write_bytes(saved(state))
    assert models.load_model("tiny").name == "tiny"


def test_a_converted_file_goes_before_its_original_and_hidden_ones_do_not_count(state, tmp_path):
    original, hidden = tmp_path / "tiny.pt", tmp_path / "._tiny.pt"
    for path in (original, hidden):
        path.write_bytes(saved(state))
    card_of = {"files": [WEIGHTS]}
    assert files.find(card_of, tmp_path) == {"weights": [original]}
    converted = convert(original)
    assert files.find(card_of, tmp_path) == {"weights": [converted]}
    assert files.find(card_of, original) == {"weights": [original]}


def test_members_of_an_ensemble(tiny, state, tmp_path):
    for i in range(3):
        path = tmp_path / f"{i}_0.8{i}.pt"
        path.write_bytes(saved(state | {"visual.bias": torch.full((3,), float(i))}))
    convert(path)
    found = models.load_model("many", checkpoint=tmp_path)
    assert [int(m.network.visual.bias[0]) for m in found.members] == [0, 1, 2]
    assert "ensemble of 3 checkpoints" in found.notes
    one = models.load_model("many", checkpoint=tmp_path / "1_0.81.pt")
    assert int(one.network.visual.bias[0]) == 1


def test_one_file_twice_is_one_member_and_other_folders_do_not_count(tiny, state, tmp_path):
    def biases():
        model = models.load_model("many", checkpoint=tmp_path)
        return [int(member.network.visual.bias[0]) for member in model.members], model.notes

    def write(name, i):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(saved(state | {"visual.bias": torch.full((3,), float(i))}))
        return path

    first = write("old/best.pt", 5)
    assert biases()[0] == [5]  # as unpacked
    shutil.copy(write("best.pt", 1), tmp_path / "best (1).pt")
    assert biases()[0] == [1] and "best.pt left out" in str(biases()[1])
    write("next.pt", 2)
    (tmp_path / "latest.pt").symlink_to("next.pt")
    shutil.copy(convert(tmp_path / "next.pt"), tmp_path / "again.safetensors")
    found, notes = biases()
    assert sorted(found) == [1, 2] and "ensemble of 2 checkpoints" in notes
    for path in tmp_path.glob("*.*"):
        path.unlink()
    write("new/best.pt", 6)
    text = message(models.load_model, "many", checkpoint=tmp_path)
    assert "members of one ensemble in several folders" in text and str(first.parent) in text


def test_what_lies_higher_goes_first_and_a_second_download_has_the_name_of_the_first(
    tiny, state, tmp_path
):
    (tmp_path / "old").mkdir()
    for name, i in (("old/tiny.pt", 1), ("tiny (1).pt", 2), ("tiny.pt", 3)):
        changed = state | {"visual.bias": torch.full((3,), float(i))}
        (tmp_path / name).write_bytes(saved(changed))
    for i, name in ((3, "tiny.pt"), (2, "tiny (1).pt"), (1, "old/tiny.pt")):
        found = models.load_model("tiny", checkpoint=tmp_path)
        assert int(found.network.visual.bias[0]) == i
        (tmp_path / name).unlink()
    (tmp_path / "model.bin").write_bytes(b"")
    text = message(models.load_model, "tiny", checkpoint=tmp_path)
    assert f"not found in {tmp_path}, where there are model.bin)" in text


@pytest.fixture(params=["safetensors", "bin"])
def shards(request, state, tmp_path):
    """A checkpoint in two files and its index."""
    kind = request.param
    names = [f"tiny-0000{i}-of-00002.{kind}" for i in (1, 2)]
    parts = [dict(list(state.items())[:3]), dict(list(state.items())[3:])]
    for name, part in zip(names, parts, strict=True):
        form = forms(part)["safetensors" if kind == "safetensors" else "zip"]
        (tmp_path / name).write_bytes(form)
    places = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    index = tmp_path / ("tiny.safetensors.index.json" if kind == "safetensors" else "any.json")
    index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places}))
    return index, names, places


def test_a_checkpoint_in_several_files(tiny, state, shards, tmp_path):
    index, names, places = shards
    model = models.load_model("tiny", checkpoint=index)
    for key, value in state.items():
        assert torch.equal(model.network.state_dict()[key], value), key
    read = [index, *(tmp_path / name for name in names)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in read]
    assert model.weights == "+".join(digests)
    if index.name.startswith("tiny."):
        assert models.load_model("tiny", checkpoint=tmp_path).weights == model.weights
    assert "convert each of them" in message(convert, index)
    for change, words in (
        ({"more": names[0]}, "1 in none of its files: more"),
        ({"more": "gone.bin"}, "1 missing: gone.bin"),
        ({"more": "../gone.bin"}, "names '../gone.bin'"),
        ({"more": index.name}, f"names '{index.name}'"),
    ):
        index.write_text(json.dumps({"weight_map": places | change}))
        assert words in message(models.load_model, "tiny", checkpoint=index)


def test_pipes_are_not_waited_for(tiny, state, tmp_path):
    pipe = tmp_path / "a.pt"
    os.mkfifo(pipe)
    assert "where there are" not in message(models.load_model, "many", checkpoint=tmp_path)
    for call in (checkpoints.read, convert):
        assert "no regular file" in message(call, pipe)
    (tmp_path / "b.pt").write_bytes(saved(state))
    assert len(models.load_model("many", checkpoint=tmp_path).members) == 1


@pytest.mark.parametrize("log, words", [(100.0, "is inf"), (-200.0, "is 0.0"), (14.3, "is 16")])
def test_a_scale_that_is_no_logarithm_is_refused(tiny, state, tmp_path, log, words):
    text = refusal(tmp_path / "tiny.pt", saved(state | {"logit_scale": torch.tensor(log)}))
    assert f"logit scale {words}" in text


def archive(content, how):
    """A torch file with its entries written anew."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(content))) as old, zipfile.ZipFile(out, "w", how) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_entries_are_refused_and_not_unpacked(tiny, tmp_path, how):
    large = archive({"a": torch.zeros(2_000_000)}, how)
    assert len(large) < 1_000_000
    assert "compressed entries (8,00" in refusal(tmp_path / "tiny.pt", large)
    assert "compressed entries" in message(convert, tmp_path / "tiny.pt")


def test_a_vocabulary_as_text_or_json(tmp_path):
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chest", "##s", "no", "é"]
    plain, turned = tmp_path / "vocab.txt", tmp_path / "tokenizer.json"
    plain.write_text("\n".join(known) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(str(plain)).save_pretrained(tmp_path)
    plain.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*known, ""]).encode())
    texts = ["No CHESTS, é", "chest"]
    for path in (plain, turned):
        assert text.words(path) == known
        tokens = text.wordpiece(path, 77)(texts)
        assert tokens.ids.tolist() == [[2, 7, 5, 6, 1, 1, 3], [2, 5, 3, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "content, words",
    [
        ("[PAD]\n[UNK]\n[CLS]\n[SEP]\nno\nno\n", "more than once, such as 'no'"),
        ('{"model": {"type": "BPE", "vocab": {}}}', "a tokenizer of type BPE"),
        ('{"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 2}}}', "numbered from 0"),
        ('{"model": {"type": "WordPiece", "vocab": {"no": 0}}}', "it lacks [CLS]"),
        ('{"version": 1}', "a tokenizer of type unknown"),
        ("{", "a tokenizer of type unknown"),
    ],
)  # fmt: skip
def test_vocabularies_that_are_refused(tmp_path, content, words):
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    assert words in message(text.words, path)


def test_a_model_of_two_files(tiny, tmp_path):
    whole = Pair()
    for part in ("image", "text"):
        (tmp_path / f"{part}.pt").write_bytes(saved(getattr(whole, part).state_dict()))
    for where in (tmp_path, tmp_path / "image.pt", tmp_path / "text.pt"):
        network = models.load_model("pair", checkpoint=where).network
        assert torch.equal(network.text.weight, whole.text.weight)
        assert torch.equal(network.image.weight, whole.image.weight)
    (tmp_path / "image.pt").rename(tmp_path / "mine.pt")
    text = message(models.load_model, "pair", checkpoint=tmp_path / "mine.pt")
    assert "image: image.pt; text: text.pt" in text
    assert "does not say which it is" in text


def test_links_that_lead_nowhere_or_in_circles(tiny, tmp_path, state):
    (tmp_path / "round").symlink_to(tmp_path)
    for target, why in (
        ("tiny.pt", "links that lead in a circle"),
        ("gone", "a link to a file that is gone"),
    ):
        (tmp_path / "tiny.pt").unlink(missing_ok=True)
        (tmp_path / "tiny.pt").symlink_to(target)
        text = message(models.load_model, "tiny", checkpoint=tmp_path)
        assert f"{tmp_path / 'tiny.pt'}: cannot be read ({why})" in text
    (tmp_path / "gone").write_bytes(saved(state))
    assert models.load_model("tiny", checkpoint=tmp_path).name == "tiny"


@contextlib.contextmanager
def unprivileged():
    """As a user whom permissions bind, also where the tests are run by root."""
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_or_file_that_may_not_be_read_is_said(state):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        for path in (folder / "file" / "tiny.pt", folder / "closed" / "tiny.pt"):
            path.parent.mkdir()
            path.write_bytes(saved(state))
            path.parent.chmod(0o755)
        (folder / "file" / "tiny.pt").chmod(0)
        (folder / "closed").chmod(0)
        try:
            with unprivileged():
                for call in (checkpoints.read, files.sha256):
                    text = message(call, folder / "file" / "tiny.pt")
                    assert text == f"{folder}/file/tiny.pt: cannot be read (Permission denied)"
                for where in ("closed", "closed/tiny.pt", ""):
                    text = message(files.find, {"files": [WEIGHTS]}, folder / where)
                    assert f"{folder / (where or 'closed')}: cannot be read (Permission" in text
        finally:
            (folder / "closed").chmod(0o755)


# Real models, and no network


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """OpenAI's CLIP with name-seeded weights, as after conversion."""
    folder = tmp_path_factory.mktemp("checkpoints") / "clip_vit_b16"
    folder.mkdir()
    torch.save({"state_dict": upstream.state("clip_vit_b16")}, folder / "own.pt")
    convert(folder / "own.pt", folder / "ViT-B-16.safetensors")
    (folder / "own.pt").unlink()
    yield folder
    shutil.rmtree(folder)


def test_clip_from_a_file_gives_upstreams_vectors(clip_folder):
    model = models.load_model("clip_vit_b16", checkpoint=clip_folder)
    figures = upstream.figures("clip_vit_b16")
    found = model.encode_image(upstream.image(*figures["image"]["size"]))[0]
    upstream.assert_close(found, figures["image"]["embeddings"][0], upstream.ATOL)
    found = model.encode_tokens(*upstream.tokens("clip_vit_b16"))
    upstream.assert_close(found, figures["text"]["embeddings"], upstream.ATOL)


NO_NETWORK = """
import socket, sys

tried = []

class Blocked(socket.socket):
    def __init__(self, *args, **kwargs):
        tried.append("socket")
        raise OSError("blocked")

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        tried.append(event)
        raise OSError("blocked")

sys.addaudithook(watch)
from cxrlib import models

socket.socket = Blocked
for name in ("seeded:clip_vit_b16", "clip_vit_b16"):
    model = models.load_model(name)
    model.encode_text(["a chest film"])
print("tried:", tried)
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    print("then:", tried)
"""


def test_nothing_touches_the_network_while_loading(clip_folder):
    """Every socket fails, and none was asked for; the trap itself works."""
    variables = environment() | {files.FOLDER: str(clip_folder.parent)}
    for offline in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        variables.pop(offline, None)
    command = [sys.executable, "-c", NO_NETWORK]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "tried: []"
    assert done.stdout.splitlines()[1].startswith("then: ['socket")


def test_another_file_under_the_name_of_openais_is_noticed(tmp_path):
    (tmp_path / "ViT-B-16.pt").write_bytes(saved({"a": torch.ones(1)}))
    text = message(models.load_model, "clip_vit_b16", checkpoint=tmp_path)
    assert "differs from the hash its authors publish (5806e77c" in text


def test_two_files_of_chexzero_are_an_ensemble_and_other_models_are_refused(tmp_path):
    first = tmp_path / "best_64_5e-05_original_22000_0.864.pt"
    half = {k: v.half() for k, v in upstream.state("chexzero").items()}
    torch.save(half, first)
    second = half | {"visual.conv1.weight": half["visual.conv1.weight"] + 1}
    torch.save(second, tmp_path / "best_64_0.0001_original_35000_0.864.pt")
    model = models.load_model("chexzero", checkpoint=tmp_path)
    assert len(model.members) == 2
    assert "weights stored as float16, cast to float32" in model.notes
    for member in model.members:
        assert torch.equal(member.network.visual.proj, half["visual.proj"].float())
    del model
    text = message(models.load_model, "clip_vit_b16", checkpoint=first)
    assert text.startswith(f"clip_vit_b16, {first}: ")
    assert "visual.conv1.weight [768, 3, 32, 32] instead of [768, 3, 16, 16]" in text

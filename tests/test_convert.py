"""Converting: tensors come out as they were, and nothing that stood beside them ever runs."""

import argparse
import collections
import hashlib
import io
import os
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cxrlib.models import checkpoints, registry
from cxrlib.models.convert import HARMLESS, STAND_INS, convert


def message(*args):
    with pytest.raises(ValueError) as refused:
        convert(*args)
    assert "\n" not in str(refused.value)
    return str(refused.value)


LONG = torch.arange(100_000.0)


@pytest.fixture
def foreign(monkeypatch):
    """Classes of libraries that are not installed here, and gone again when the file is opened."""
    made = {}

    def make(name, base=object):
        module, _, own = name.rpartition(".")
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            place = ".".join(parts[:i])
            if place not in sys.modules:
                monkeypatch.setitem(sys.modules, place, types.ModuleType(place))
        made[name] = type(own, (base,), {"__module__": module})
        setattr(sys.modules[module], own, made[name])
        return made[name]

    return make


def omegaconf(make, content):
    """Settings nested as OmegaConf 2.0 to 2.3 pickles them."""
    metadata, container_metadata = (
        make("omegaconf.base.Metadata"),
        make("omegaconf.base.ContainerMetadata"),
    )
    kinds = {
        dict: make("omegaconf.dictconfig.DictConfig"),
        list: make("omegaconf.listconfig.ListConfig"),
    }
    node = make("omegaconf.nodes.AnyNode")
    from typing import Any

    def build(value, parent, key):
        made = kinds.get(type(value), node)()
        about = (container_metadata if type(value) in kinds else metadata)()
        about.__dict__ = {
            "ref_type": Any,
            "object_type": type(value) if type(value) in kinds else None,
            "key": key,
            "flags": {},
            "resolver_cache": collections.defaultdict(dict),
        }
        made.__dict__ = {"_metadata": about, "_parent": parent, "_flags_cache": None}
        if isinstance(value, dict):
            made._content = {k: build(v, made, k) for k, v in value.items()}
        elif isinstance(value, list):
            made._content = [build(v, made, i) for i, v in enumerate(value)]
        else:
            made._val = value
        return made

    return build(content, None, None)


def lightning(make, state):
    """A checkpoint like GLoRIA's, and everything else that training programs leave behind."""
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    stopper = make("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    settings = omegaconf(make, {"model": {"sizes": [1, 2.5, None, True], "name": "x"}, "lr": 1e-3})
    return {
        "epoch": 3,
        "global_step": np.int64(40),
        "callbacks": {stopper: {"best_model_score": torch.tensor(0.5), "dirpath": "here"}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).state_dict()],
        "state_dict": state,
        "hparams_type": type(settings),
        "hyper_parameters": settings,
        "hparams": make("pytorch_lightning.utilities.parsing.AttributeDict", dict)(a=settings),
        "config": argparse.Namespace(out=pathlib.Path("x"), size=(1, 2), kind=float),
        "losses": collections.defaultdict(list, {"a": [np.float64(0.1), np.float32(0.2)]}),
        "curve": np.arange(4.0),
    }


STATE = {
    "gloria.a.weight": torch.arange(6.0).reshape(2, 3),
    "gloria.a.half": torch.ones(3, dtype=torch.float16) / 3,
    "gloria.a.wide": torch.tensor(0.1, dtype=torch.float64),
    "gloria.n.num_batches_tracked": torch.tensor(7),
    "gloria.a.turned": torch.arange(6.0).reshape(2, 3).T,
    "gloria.a.part": torch.arange(100.0)[10:12],
}
STATE["gloria.a.tied"] = STATE["gloria.a.weight"]


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_come_out_of_a_lightning_checkpoint_as_they_were(
    foreign, monkeypatch, tmp_path, legacy
):
    path = tmp_path / "chexpert_resnet50.ckpt"
    torch.save(lightning(foreign, STATE), path, _use_new_zipfile_serialization=not legacy)
    before = path.read_bytes()
    monkeypatch.undo()  # the libraries are not installed where it is converted
    assert not {"omegaconf", "pytorch_lightning"} & set(sys.modules)
    with pytest.raises(ValueError, match=r"only tensors are opened.*cxrbook models convert"):
        checkpoints.read(path)
    out = convert(path)
    assert out == tmp_path / "chexpert_resnet50.safetensors"
    assert_same(load_file(out), STATE)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, out.name]
    assert not {"omegaconf", "pytorch_lightning"} & set(sys.modules)
    # What was allowed for once is not allowed for good.
    with pytest.raises(ValueError, match="only tensors are opened"):
        checkpoints.read(path)


def test_a_second_time_finds_the_same_and_another_file_is_not_overwritten(foreign, tmp_path):
    path, out = tmp_path / "a.tar", tmp_path / "a.safetensors"
    torch.save({"model": STATE, "config": argparse.Namespace(a=1)}, path)
    stamp = convert(path).stat().st_mtime_ns
    assert convert(path) == out
    assert out.stat().st_mtime_ns == stamp
    save_file({"other": torch.ones(1)}, out)
    assert f"{out}: is there already with other content" in message(path)
    assert set(load_file(out)) == {"other"}
    assert_same(load_file(convert(path, tmp_path / "b.safetensors")), STATE)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".safetensors"] * 2 + [".tar"]


@pytest.mark.parametrize(
    "state, words",
    [
        ({"a": torch.zeros(1).expand(2**30)}, "would take 4,294,967,296 bytes"),
        ({"a": torch.zeros(1).expand(2**45)}, "would take"),
        ({f"{i}": LONG for i in range(9)}, "would take 3,600,000 bytes"),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, "cannot be written (torch.complex128)"),
        ({"a\ud800": torch.zeros(2)}, "cannot be written"),
    ],
)
def test_tensors_that_the_file_does_not_hold_are_not_made(tmp_path, state, words):
    path = tmp_path / "a.pt"
    torch.save(state, path)
    assert words in message(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_tied_tensors_are_written_twice(tmp_path):
    torch.save({"a": LONG, "b": LONG}, tmp_path / "a.pt")
    assert_same(load_file(convert(tmp_path / "a.pt")), {"a": LONG, "b": LONG})


def test_what_cannot_be_written_says_so_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(STATE, path)
    assert "must end in .safetensors" in message(path, tmp_path / "b.pt")
    assert "cannot be written" in message(path, tmp_path / "no folder" / "b.safetensors")
    named = path.rename(tmp_path / "a.safetensors")
    assert "the original would be overwritten" in message(named)
    assert_same(load_file(convert(named, tmp_path / "b.safetensors")), STATE)
    assert "needs no conversion" in message(tmp_path / "b.safetensors")
    assert "cannot be read (No such file" in message(tmp_path / "gone.pt")
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    assert "holds no tensors by name (found epoch)" in message(tmp_path / "c.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "c.pt"]


class Here:
    """Called by its name with an argument, and then given a state."""

    def __reduce__(self):
        return Here, ("an argument",), {"some": "state"}

    def __new__(cls, *args):
        return super().__new__(cls)


def naming(path, name):
    """A checkpoint in which the name stands three times: alone, called, and given a state."""
    file = io.BytesIO()
    content = {"state_dict": STATE, "x": [Here, Here()]}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    module, _, own = name.rpartition(".")
    old, new = (f"c{m}\n{n}\n".encode() for m, n in ((Here.__module__, "Here"), (module, own)))
    assert old in file.getvalue()
    path.write_bytes(file.getvalue().replace(old, new))
    return path


@pytest.mark.parametrize("name", HARMLESS["names"])
def test_a_harmless_name_may_be_called_and_given_a_state(tmp_path, name):
    assert_same(load_file(convert(naming(tmp_path / "a.pt", name))), STATE)


@pytest.mark.parametrize(
    "name",
    [
        "builtins.getattr",
        "builtins.object.__subclasses__",
        "functools.partial",
        "importlib.import_module",
        "numpy.core.multiarray.fromfile",
        "omegaconf.OmegaConf.load",
        "omegaconf.dictconfig.DictConfig.get",
        "operator.attrgetter",
        "pathlib.Path.unlink",
        "posix.system",
        "pytorch_lightning.trainer.Trainer",
        "sys.exit",
        "torch.hub.load",
        "torch.load",
        "torch.serialization.load",
    ],
)
def test_every_other_name_is_refused_by_name(tmp_path, name):
    text = message(naming(tmp_path / "a.pt", name))
    assert f"it names {name.removeprefix('builtins.')})" in text
    assert not (tmp_path / "a.safetensors").exists()


def test_what_stands_behind_a_harmless_name_is_not_called(monkeypatch, tmp_path):
    path = naming(tmp_path / "a.pt", "argparse.Namespace")
    called = []
    monkeypatch.setattr(argparse, "Namespace", lambda *args: called.append(args) or Here())
    convert(path)
    assert not called
    torch.load(path, weights_only=False)
    assert called  # Python's own way would have called it


def test_what_other_libraries_let_torch_open_is_refused_here(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": STATE, "x": Here()}, path)
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([Here]):
        torch.load(path, weights_only=True)
        assert "it names" in message(path)
        assert Here in torch.serialization.get_safe_globals()
    assert set(torch.serialization.get_safe_globals()) == before


def test_the_stand_ins_keep_nothing():
    for cls, _ in STAND_INS:
        made = cls("an argument")
        if hasattr(made, "__setstate__"):
            made.__setstate__({"some": "state"})
        assert not (made if isinstance(made, dict) else made.__dict__)


class Program(nn.Module):
    """As OpenAI's archives: weights in half precision, and three sizes."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Linear(4, 3).half()
        self.ln_final = nn.LayerNorm(3)
        for size in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(size, torch.tensor(77))

    def forward(self, x):
        return self.ln_final(self.visual(x))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_program_is_opened_only_where_a_card_lists_it(monkeypatch, tmp_path):
    path, program = tmp_path / "ViT-B-16.pt", Program()
    torch.jit.script(program).save(path)
    with pytest.raises(ValueError, match=r"a program .TorchScript.*cxrbook models convert"):
        checkpoints.read(path)
    opened = []
    load = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: opened.append(1) or load(*a, **k))
    value = hashlib.sha256(path.read_bytes()).hexdigest()
    text = message(path)
    assert value in text and "Download it again" in text
    assert not opened
    assert os.listdir(tmp_path) == [path.name]

    card = registry.cards()["clip_vit_b16"]
    files = [card["files"][0] | {"sha256": value}]
    monkeypatch.setattr(registry, "cards", lambda: {"clip_vit_b16": card | {"files": files}})
    expected = {k: v for k, v in program.state_dict().items() if "." in k}
    assert_same(load_file(convert(path)), expected)
    assert opened

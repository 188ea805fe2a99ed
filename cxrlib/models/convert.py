"""The command ``cxrbook models convert``: the tensors of a checkpoint, and nothing but tensors.

Some checkpoints hold objects beside their tensors, or are programs. Python's own way to open the
former, plain unpickling, calls whatever functions the file names: a file from the internet can do
on your machine what you can. Nothing here unpickles in that way, however much the file is trusted.

- Torch files are read by torch's restricted unpickler. It refuses every name that it does not know,
  before anything is called. To it are added the names of ``harmless.toml``, types that training
  programs store as settings. What stands behind these names is neither imported nor called: an
  empty stand-in takes their place, and is thrown away with all it was given. So safety does not
  rest on OmegaConf, Lightning or numpy. It does rest on torch's restricted unpickler and on its
  code that reads tensors; keep torch up to date.
- TorchScript archives (OpenAI's CLIP) are programs. Torch's interpreter runs them, not Python's,
  but loading one can run part of it, and nobody promises that it is confined. So one is opened only
  where its SHA-256 is one that a card lists: where it is the very file that its authors published.

That a file is safe to open does not make its numbers right: for this compare hashes.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file

from cxrlib.core import atomic
from cxrlib.models import checkpoints, registry

LARGER = 4  # times a file, that its tensors may take: tied ones are written twice
# Sizes that OpenAI's archives hold beside the weights.
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


class StandIn:
    """Takes whatever a file gives it and keeps nothing."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


class DictStandIn:
    """An empty dict, whatever it is called with."""

    def __new__(cls, *args):
        return {}


# What may stand in a file beside tensors, and what takes its place.
HARMLESS = tomllib.loads(Path(__file__).with_name("harmless.toml").read_text())
STAND_INS = [
    (stand_in, name)
    for stand_in, kind in ((StandIn, "names"), (DictStandIn, "dicts"))
    for name in HARMLESS[kind]
]


def convert(path: str | Path, out: str | Path | None = None) -> Path:
    """Write the weights of a checkpoint to a ``.safetensors`` file; what is safe: see the module.

    Optimiser states and settings are left out; numbers and their precision stay as they are. The
    original is kept. The file appears when it is complete or not at all.

    Parameters
    ----------
    path : path
        A torch file or a TorchScript archive.
    out : path, optional
        File to write; by default beside the original, under its name with ``.safetensors``.

    Returns
    -------
    Path of the file written, or of the same one found there.

    Raises
    ------
    ValueError
        A file that is no checkpoint, damaged, a safetensors file already, or holds objects of types
        that are not known to be harmless; a program that no card lists; another file in place of
        the one to write.
    """
    path = Path(path).expanduser()
    out = Path(out).expanduser() if out else path.with_suffix(".safetensors")
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: the name of the file to write must end in .safetensors")
    kind = checkpoints.kind_of(path)
    if kind == "index":
        parts = ", ".join(file.name for file in checkpoints.files_of(path)[1:])
        raise ValueError(f"{path}: the index of several files; convert each of them ({parts})")
    if kind == "safetensors":
        raise ValueError(f"{path}: holds tensors only (safetensors) and needs no conversion")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{path}: the original would be overwritten; give another file to write")
    if kind == "TorchScript":
        state = _of_program(path)
    else:
        advice = (
            "That name is not among those known to be harmless; nothing was executed. Where you "
            "trust the file, save its state dict alone with its authors' code"
        )
        state = checkpoints.tensors(checkpoints.unpickle(path, STAND_INS, advice), path)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size > LARGER * path.stat().st_size:
        raise ValueError(
            f"{path}: its tensors would take {size:,} bytes, far more than the file itself, since "
            "they repeat their values; save the state dict again with its authors' code"
        )
    _write({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, out)
    return out


def _of_program(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a TorchScript archive that a card lists."""
    data = path.read_bytes()  # what is hashed is what is opened
    found = hashlib.sha256(data).hexdigest()
    listed = {file.get("sha256") for card in registry.cards().values() for file in card["files"]}
    if found not in listed:
        raise ValueError(
            f"{path}: is a program (TorchScript) and is opened only where its SHA-256 is that of a "
            f"published file; this one's, {found}, is not. Download it again, or, where you trust "
            "it, save its state dict alone: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    # torch advises against making new ones
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        state = torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict()
    return {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}


def _write(state: dict[str, torch.Tensor], out: Path) -> None:
    try:
        if not out.exists():
            atomic.in_one_step(out, lambda part: save_file(state, part))
        elif out.read_bytes() != to_bytes(state):
            raise ValueError(f"{out}: is there already with other content; move it away first")
    # A type or name that the format does not know is a KeyError or a UnicodeError.
    except (OSError, SafetensorError, KeyError, UnicodeError) as error:
        raise ValueError(f"{out}: cannot be written ({error})") from None

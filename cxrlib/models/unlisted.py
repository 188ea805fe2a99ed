"""What models have in common that stand in no list: what is known comes from their files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from cxrlib.models import files

if TYPE_CHECKING:  # torch takes seconds
    from cxrlib.models.encoder import Encoder

SIGMOID = "trained with a sigmoid; its bias cancels between two prompts"
INDEX = "model.safetensors.index.json"
LONGEST_LINE = 300  # characters of what a library says
# Classes of the folder, or a kernel for attention that lies on the Hub.
CODE = re.compile(r'"(auto_map|\w*attn_implementation(?=": "[^"]*/))"')
LONGEST_HEADER = 100_000_000  # bytes, of a safetensors file; the format's own limit
# Files of which one is enough for a tokenizer of transformers.
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def card(name: str, **known: Any) -> dict:
    """A card with the keys that those of published models have.

    Parameters
    ----------
    name : str
    known : what the model's files tell, or its author does

    Returns
    -------
    dict
        Its pretraining data cannot be told (``sources_complete`` is False) unless `known` says so:
        a leak is neither known nor ruled out. ``remarks`` is what a reader has to know of it.
    """
    unsaid = ("paper", "repository", "licence", "architecture", "tokenizer")
    return {
        "name": name,
        "title": name,
        **dict.fromkeys(unsaid, "not known"),
        "parameters": None,
        "studied_in": [],
        "sources": [],
        "sources_complete": False,
        "trained_on": "cannot be told from its files",
        "as_published": "paper S does not study this model",
        "prompts": {"positive": [], "negative": []},
        "files": [],
        "remarks": "",
        **known,
    }


def line(error: BaseException) -> str:
    """An error's message in one line, its end left out where it is long."""
    return shorten(str(error), LONGEST_LINE, placeholder=" ...") or type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """As :func:`line`, after the kind of the error unless that says nothing."""
    name, text = type(error).__name__, line(error)
    return text if isinstance(error, ValueError) or text == name else f"{name}: {text}"


def listed(numbers: float | Sequence[float]) -> str:
    """Numbers of the channels in words; a single one is that of all."""
    each = numbers if isinstance(numbers, Sequence) else [numbers]
    return ", ".join(f"{x:.3g}" for x in each)


def read_json(name: str, path: Path) -> dict:
    """The object in a JSON file of a model; a ValueError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{name}: {path.parent} has no {path.name}; expected one there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {path} cannot be read as JSON ({line(error)})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name}: {path} holds no object ({{...}}); expected a configuration")
    return found


def refuse_code(name: str, folder: Path) -> None:
    """Refuse configurations that name Python code of the folder's own or of the Hub's."""
    for path in sorted(folder.glob("*config.json")):
        found = CODE.search(json.dumps(read_json(name, path)))
        if found:
            raise ValueError(
                f"{name}: {path} names code of its own ({found[1]}), and no code that comes with "
                "weights is run; expected a model that the library knows by itself"
            )


def shards(name: str, index: Path) -> list[Path]:
    """The files of a checkpoint in several, by its index; all must be there, beside it."""
    places = read_json(name, index).get("weight_map")
    names = sorted(set(places.values())) if isinstance(places, dict) and places else [""]
    if odd := [x for x in names if not isinstance(x, str) or x != Path(x).name or not x]:
        raise ValueError(f"{name}: {index} names {odd[0]!r}; expected files beside it")
    found = [index.with_name(x) for x in names]
    if missing := [path.name for path in found if not path.is_file()]:
        raise ValueError(
            f"{name}: {len(missing)} of the {len(found)} files that {index} names are missing "
            f"({', '.join(missing[:3])}); expected all of them beside it"
        )
    return found


def numbers_in(name: str, path: Path) -> int:
    """How many numbers a safetensors file holds, by its header; refuses one that is cut off."""
    size = path.stat().st_size
    with path.open("rb") as f:
        head = f.read(16)
        length = int.from_bytes(head[:8], "little")
        f.seek(8)
        try:
            header = json.loads(f.read(length)) if 0 < length <= LONGEST_HEADER else {}
            tensors = [about for key, about in header.items() if key != "__metadata__"]
            end = 8 + length + max(about["data_offsets"][1] for about in tensors)
            numbers = sum(prod(about["shape"]) for about in tensors)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ValueError(
                f"{name}: {path} is no safetensors file, or damaged (its {size:,} bytes begin with "
                f"{head!r}); only safetensors is read here"
            ) from None
    if end != size:
        raise ValueError(
            f"{name}: {path} has {size:,} bytes where its header says {end:,}: cut off or damaged, "
            "get it again"
        )
    return numbers


def code() -> tuple[Path, ...]:
    """The files here that decide what a model computes."""
    return Path(__file__), Path(__file__).with_name("wrapped.py")


def fingerprint(paths: Iterable[Path], said: str = "") -> str:
    """SHA-256 of files, and of what is said elsewhere: changes with the name and content of each.

    Raises
    ------
    ValueError
        A file that differs from the hash in a ``SHA256SUMS`` beside it, or that cannot be read.
    """
    each = {path.name: files.check_hash(path, {})[0] for path in paths}
    return hashlib.sha256(json.dumps([each, said], sort_keys=True).encode()).hexdigest()


@contextmanager
def quietly(what: str) -> Iterator[None]:
    """Libraries at work on local files: no request to a hub, no bars; what fails is one line.

    Parameters
    ----------
    what : str
        Model and folder, for the ValueError that any error becomes.
    """
    from huggingface_hub import constants
    from transformers.utils import logging

    online, bars = constants.HF_HUB_OFFLINE, logging.is_progress_bar_enabled()
    said = logging.get_verbosity()
    constants.HF_HUB_OFFLINE = True
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    except Exception as error:  # whatever a library raises over such a file, it is the file's fault
        raise ValueError(f"{what}: {kind_and_line(error)}") from None
    finally:
        constants.HF_HUB_OFFLINE = online
        logging.set_verbosity(said)
        if bars:
            logging.enable_progress_bar()


def tried(model: Encoder) -> Encoder:
    """The same model, its card completed by the sizes of what it takes and gives for a try.

    Raises
    ------
    ValueError
        A logit scale that no training ends with; weights or embeddings that are not finite;
        embeddings of images and texts that do not fit each other; whatever it raises.
    """
    import torch

    from cxrlib.models import loading, parity

    what = model.name
    loading.check_scale(model.logit_scale, what)
    bad = [key for key, x in model.network.state_dict().items() if not x.isfinite().all()]
    if bad:
        raise ValueError(f"{what}: {len(bad)} tensors with NaN or infinite values: {bad[0]}, ...")
    try:
        batch = model.preprocess([parity.film(), parity.film(280, 320)])
        images = model.encode_image(batch)
        texts = model.encode_text(["Chest Pneumothorax", "Chest No Findings", "Chest Edema"])
    except Exception as error:
        raise ValueError(
            f"{what}: a trial with 2 films and 3 texts failed: {kind_and_line(error)}"
        ) from None
    if images.ndim != 2 or len(images) != 2 or texts.shape != (3, images.shape[1]):
        raise ValueError(
            f"{what}: 2 films gave {tuple(images.shape)} numbers and 3 texts "
            f"{tuple(texts.shape)}; expected (2, d) and (3, d)"
        )
    if not torch.cat([images, texts]).isfinite().all():
        raise ValueError(f"{what}: embeddings with values that are NaN or infinite")
    sizes = {"embed_dim": images.shape[1], "image_size": max(batch.shape[2:])}
    sizes |= {"parameters": sum(x.numel() for x in model.network.parameters())}
    return replace(model, card=model.card | sizes)

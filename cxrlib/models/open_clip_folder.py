"""``open_clip:NAME``: any architecture of open_clip, with weights from a file or folder.

A folder with ``open_clip_config.json``, as open_clip puts on the Hub, says all: architecture,
preprocessing, tokenizer. Without one, the name of the file or of the folder is an architecture of
open_clip (``ViT-B-32/best.pt``), and films are prepared as for every checkpoint that open_clip
lists for it. Weights are read as tensors only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cxrlib.core.places import place_of
from cxrlib.models import unlisted

if TYPE_CHECKING:  # torch and open_clip take seconds
    from open_clip.transform import PreprocessCfg
    from torch import Tensor, nn

    from cxrlib.models.encoder import Encoder, Tokens
    from cxrlib.protocol import Protocol

CONFIG = "open_clip_config.json"
# Where open_clip looks first, then whatever file alone may hold weights.
NAMES = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors"),
    *("open_clip_pytorch_model.bin", "pytorch_model.bin"),
)
ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
CHOICES = {
    "resize_mode": ("shortest", "longest", "squash"),
    "interpolation": ("bicubic", "bilinear", "random"),
}


def check(name: str) -> None:
    """Refuse what lacks a file or names no architecture; loads no weights.

    Raises
    ------
    ValueError
    """
    folder, about, weights = _found(name)
    for path in weights:
        if path.suffix == ".safetensors":
            unlisted.numbers_in(name, path)
    unlisted.refuse_code(name, folder)
    text = about["model_cfg"]["text_cfg"]
    if (wanted := text.get("hf_model_name")) and not (folder / "config.json").is_file():
        raise ValueError(
            f"{name}: its text encoder is {wanted} of transformers, whose configuration is not in "
            f"{folder}; put its config.json there"
        )
    there = any((folder / file).is_file() for file in unlisted.TOKENIZERS)
    if (wanted := text.get("hf_tokenizer_name")) and not there:
        raise ValueError(
            f"{name}: its tokenizer is {wanted} of transformers, whose files are not in {folder}; "
            f"put them there ({', '.join(unlisted.TOKENIZERS)})"
        )


def card(name: str) -> dict:
    """What the configuration tells, and the headers of weights in safetensors."""
    _, about, weights = _found(name)
    counted = all(path.suffix == ".safetensors" for path in weights)
    text = about["model_cfg"]["text_cfg"]
    return unlisted.card(
        name,
        architecture=f"{about['architecture']} of open_clip",
        parameters=sum(unlisted.numbers_in(name, p) for p in weights) if counted else None,
        tokenizer=text.get("hf_tokenizer_name") or "CLIP BPE",
    )


def load(name: str, protocol: str | Protocol = "corrected") -> Encoder:
    """The model, with its tokenizer and preprocessing.

    Raises
    ------
    ValueError
        A file that is missing, damaged, unsafe or of another architecture.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from cxrlib.models import checkpoints
    from cxrlib.models.encoder import Encoder
    from cxrlib.models.images import each
    from cxrlib.models.loading import SHARED_CODE
    from cxrlib.models.wrapped import OfOpenClip
    from cxrlib.protocol import protocol_of

    check(name)
    folder, about, weights = _found(name)
    what = f"{name}, {folder}"
    state = checkpoints.read(weights[0])
    with unlisted.quietly(what):
        wanted = _preprocessing(about)
        model = _model(about["model_cfg"], folder)
        tokenizer = _tokenizer(about["model_cfg"]["text_cfg"], folder)
        steps = PreprocessCfg(**wanted | {"size": model.visual.image_size})
        prepare = image_transform_v2(steps, is_train=False)
        remarks = f"prepares films by {about['source']}: {_in_words(steps)}"
    noted = _fill(model, state, what)
    scale = float(model.logit_scale.detach().exp())
    others = [p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".model")]
    if getattr(model, "logit_bias", None) is not None:
        noted.append(unlisted.SIGMOID)
    return unlisted.tried(
        Encoder(
            name=name,
            network=OfOpenClip(model).eval(),
            preprocess=each(prepare),
            tokenizer=tokenizer,
            card=card(name) | {"remarks": remarks},
            weights=unlisted.fingerprint({*others, *weights}, json.dumps(about)),
            code=(Path(__file__), *unlisted.code(), *SHARED_CODE),
            logit_scale=scale,
            protocol=protocol_of(protocol).name,
            notes=(remarks, *noted),
        )
    )


def _found(name: str) -> tuple[Path, dict, list[Path]]:
    """The folder, what is known of the model, and the files with the weights."""
    place = place_of(name)
    if not place.exists():
        raise ValueError(f"{name}: there is no {place}; expected a folder, or a file with weights")
    folder = place if place.is_dir() else place.parent
    return folder, _about(name, place, folder), _weights(name, place)


def _about(name: str, place: Path, folder: Path) -> dict:
    """Architecture and preprocessing, and where they come from."""
    if (folder / CONFIG).is_file():
        found = unlisted.read_json(name, folder / CONFIG)
        model = found.get("model_cfg")
        parts = model if isinstance(model, dict) else {}
        if not all(isinstance(parts.get(key), dict) for key in ("text_cfg", "vision_cfg")):
            raise ValueError(
                f"{name}: {folder / CONFIG} has no model_cfg with text_cfg and vision_cfg; "
                "expected the configuration of a model of open_clip"
            )
        vision = parts["vision_cfg"].get("timm_model_name") or "CLIP"
        about = {"architecture": vision, "source": f"its {CONFIG}"}
        return about | {"model_cfg": parts, "preprocess_cfg": found.get("preprocess_cfg", {})}
    known = _architectures()
    asked = [place.stem if place.is_file() else place.name, folder.name]
    if not (called := [x for x in asked if x in known]):
        raise ValueError(
            f"{name}: {folder} has no {CONFIG}, and {asked[0]!r} is no architecture of open_clip "
            f"({_near(asked[0], known)}); add that file, or rename the folder"
        )
    about = {"architecture": called[0], "source": f"what open_clip lists for {called[0]}"}
    return about | {"model_cfg": unlisted.read_json(name, known[called[0]]), "preprocess_cfg": None}


def _architectures() -> dict[str, Path]:
    """The configurations that come with open_clip, by name; found without importing it."""
    spec = find_spec("open_clip")
    folder = Path(str(spec and spec.origin)).with_name("model_configs")
    return {path.stem: path for path in folder.glob("*.json")}


def _near(word, names):
    close = get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else "such as 'ViT-B-32'"


def _weights(name: str, place: Path) -> list[Path]:
    """The file with the weights, or the index and the files that it names."""
    if place.is_file():
        if place.name == CONFIG:
            raise ValueError(f"{name}: {place} holds no weights; name its folder, {place.parent}")
        found = [place]
    else:
        by_name = [place / file for file in (*NAMES, unlisted.INDEX)]
        others = sorted(p for p in place.iterdir() if p.is_file() and p.suffix in ENDINGS)
        found = [path for path in by_name if path.is_file()][:1] or others
    if len(found) != 1:
        there = f"{len(found)} ({', '.join(path.name for path in found[:3])}, ...): name the one"
        raise ValueError(
            f"{name}: expected one file with weights in {place}, found {there if found else 'none'}"
        )
    return [*found, *(unlisted.shards(name, found[0]) if found[0].suffix == ".json" else [])]


def _model(about: dict, folder: Path) -> nn.Module:
    """The untrained network, as open_clip's create_model chooses its class."""
    from open_clip import CLIP, CoCa, CustomTextCLIP

    about = copy.deepcopy(about)
    text = about["text_cfg"]
    if "timm_model_name" in about["vision_cfg"]:
        about["vision_cfg"]["timm_model_pretrained"] = False
    of_transformers = "hf_model_name" in text
    if of_transformers:
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    custom = about.pop("custom_text", False) or of_transformers
    kind = CLIP if not custom else CoCa if "multimodal_cfg" in about else CustomTextCLIP
    return kind(**about).eval()


def _fill(model: nn.Module, state: dict[str, Tensor], what: str) -> list[str]:
    """Put the weights in their places, with the names that open_clip's own loading accepts."""
    import torch
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    from cxrlib.models import checkpoints

    state = {checkpoints.WRAPPED.sub(r"\1", key): x for key, x in state.items()}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    if getattr(model, "logit_bias", None) is not None:  # of a model trained without one
        state.setdefault("logit_bias", torch.zeros(()))
    return checkpoints.load_strictly(model, state, what)


def _tokenizer(text: dict, folder: Path) -> Callable[[list[str]], Tokens]:
    """As open_clip's get_tokenizer chooses it; files of transformers lie in the folder."""
    import torch
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    from cxrlib.models.encoder import Tokens

    how = {"context_length": text.get("context_length", DEFAULT_CONTEXT_LENGTH)}
    how |= text.get("tokenizer_kwargs", {})
    if text.get("hf_tokenizer_name"):  # whatever the configuration says, no code of the folder runs
        how |= {"local_files_only": True, "trust_remote_code": False}
        made = HFTokenizer(str(folder), tokenizer_mode=text.get("tokenizer_mode"), **how)
    else:
        made = SimpleTokenizer(**how)

    def tokenize(texts):
        ids = made(list(texts))  # always of one length: what is padding, the model knows
        return Tokens(ids, torch.ones_like(ids))

    return tokenize


def _preprocessing(about: dict) -> dict:
    """What is done to an image: by the configuration, or by all checkpoints that are listed."""
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    found, architecture = about["preprocess_cfg"], about["architecture"]
    if found is None:
        tags = list_pretrained_tags_by_model(architecture)
        listed = [merge_preprocess_dict({}, get_pretrained_cfg(architecture, x)) for x in tags]
        found = listed[0] if listed else {}  # open_clip's own, in which it trains them
        if any(x != found for x in listed):
            raise ValueError(
                f"open_clip lists checkpoints of {architecture} for which films are "
                f"prepared in several ways; say which in a file {CONFIG} beside the weights"
            )
    steps = merge_preprocess_dict(PreprocessCfg(), found)
    for key, known in CHOICES.items():
        if steps[key] not in known:
            raise ValueError(f"{key} {steps[key]!r}: expected one of {', '.join(known)}")
    return steps


def _in_words(steps: PreprocessCfg) -> str:
    from open_clip.utils import to_2tuple

    ways = {"shortest": "cropped to", "longest": "padded to", "squash": "squeezed to"}
    mean, sd = unlisted.listed(steps.mean), unlisted.listed(steps.std)
    return (
        f"{ways[steps.resize_mode]} {' x '.join(map(str, to_2tuple(steps.size)))} pixels "
        f"({steps.interpolation}); mean {mean} and SD {sd} of the channels"
    )

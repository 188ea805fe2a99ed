"""``transformers:FOLDER``: CLIP, SigLIP and their kin, as the library transformers saves them.

The folder holds what ``save_pretrained`` of model, tokenizer and image processor write. The class
of the model is the library's own, by ``model_type`` of ``config.json``; weights are read from
safetensors alone, in one file or several; code that a folder brings along is refused.

The probability of a finding is the softmax over two prompts at the learned scale, as for every
model here. SigLIP's own loss is a sigmoid of ``scale * cosine + bias`` of each prompt by itself: of
two prompts both get the same bias, which cancels in the softmax, so that scale and cosines decide.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

from cxrlib.core.places import place_of
from cxrlib.models import unlisted

if TYPE_CHECKING:  # torch and transformers take seconds
    from PIL import Image
    from torch import Tensor
    from transformers import (
        BaseImageProcessor,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from cxrlib.models.encoder import Encoder, Tokens
    from cxrlib.protocol import Protocol

# Models of transformers that turn pixels alone, and tokens alone, into one vector each.
FAMILIES = (
    *("clip", "siglip", "metaclip_2", "chinese_clip", "altclip", "align", "blip", "clipseg"),
    *("groupvit", "vision-text-dual-encoder"),
)
PADDED = ("siglip",)  # trained on texts that were all padded to one length
CONFIG, WEIGHTS = "config.json", "model.safetensors"
IMAGES, BOTH = "preprocessor_config.json", "processor_config.json"
LOCAL = {"local_files_only": True, "trust_remote_code": False}
LONG = 100_000  # tokens: more than any of these takes, less than what stands for "not known"
RESAMPLING = {0: " (nearest)", 1: " (Lanczos)", 2: " (bilinear)", 3: " (bicubic)"}
GREY_LEVEL = 1 / 255


def check(name: str) -> None:
    """Refuse a folder that lacks a file, or that holds what is not opened; loads no weights.

    Raises
    ------
    ValueError
    """
    folder, _, weights = _found(name)
    for path in weights:
        unlisted.numbers_in(name, path)
    unlisted.refuse_code(name, folder)
    if not (folder / IMAGES).is_file() and "image_processor" not in (
        unlisted.read_json(name, folder / BOTH) if (folder / BOTH).is_file() else {}
    ):
        raise ValueError(
            f"{name}: {folder} has no {IMAGES}, and a model's preprocessing is never guessed; save "
            "its image processor there: AutoImageProcessor.from_pretrained(...).save_pretrained"
        )
    if not any((folder / file).is_file() for file in unlisted.TOKENIZERS):
        raise ValueError(
            f"{name}: {folder} has no tokenizer ({', '.join(unlisted.TOKENIZERS)}); save it there: "
            "AutoTokenizer.from_pretrained(...).save_pretrained"
        )


def card(name: str) -> dict:
    """What configuration, image processor and the headers of the weights tell."""
    folder, config, weights = _found(name)
    with unlisted.quietly(f"{name}, {folder}"):
        steps = _steps(_image_processor(folder))
    return unlisted.card(
        name,
        architecture=f"{config['model_type']} of transformers",
        parameters=sum(unlisted.numbers_in(name, path) for path in weights),
        tokenizer="that of its folder",
        remarks=f"prepares films by its own files: {steps}",
    )


def load(name: str, protocol: str | Protocol = "corrected") -> Encoder:
    """The model of a folder, with its tokenizer and image processor.

    Raises
    ------
    ValueError
        A file that is missing, damaged or of another model; weights that do not fill the model.
    """
    from cxrlib.models.encoder import Encoder
    from cxrlib.models.images import each
    from cxrlib.models.loading import SHARED_CODE
    from cxrlib.models.wrapped import OfTransformers
    from cxrlib.protocol import protocol_of

    check(name)
    folder, _, weights = _found(name)
    others = {p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".model")}
    what = f"{name}, {folder}"
    with unlisted.quietly(what):
        model = _model(folder)
        images = _image_processor(folder)
        tokenizer, notes = _tokenizer(folder)
    scale, said = _scale(model)
    masked = "attention_mask" in tokenizer.model_input_names
    padded = model.config.model_type in PADDED

    def prepare(image: Image.Image) -> Tensor:
        return images(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    return unlisted.tried(
        Encoder(
            name=name,
            network=OfTransformers(model, masked).eval(),
            preprocess=each(prepare),
            tokenizer=_texts(tokenizer, model, padded, what),
            card=card(name),
            weights=unlisted.fingerprint({*others, *weights}),
            code=(Path(__file__), *unlisted.code(), *SHARED_CODE),
            logit_scale=scale,
            protocol=protocol_of(protocol).name,
            one_by_one=not masked and not padded,
            notes=(card(name)["remarks"], *notes, *said),
        )
    )


def _found(name: str) -> tuple[Path, dict, list[Path]]:
    """The folder, its configuration, and the files with the weights."""
    folder = place_of(name)
    if not folder.is_dir():
        raise ValueError(
            f"{name}: there is no folder {folder}; expected one that save_pretrained wrote"
        )
    config = unlisted.read_json(name, folder / CONFIG)
    if (family := config.get("model_type")) not in FAMILIES:
        raise ValueError(
            f"{name}: {folder / CONFIG} is of the type {family!r}; expected one of images and "
            f"texts: {', '.join(FAMILIES)}"
        )
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{name}: {folder} holds an adapter; merge it into its model (merge_and_unload) and "
            "save that"
        )
    if (folder / WEIGHTS).is_file():
        return folder, config, [folder / WEIGHTS]
    if (folder / unlisted.INDEX).is_file():
        return folder, config, unlisted.shards(name, folder / unlisted.INDEX)
    if others := sorted(path for path in folder.glob("*.bin")):
        raise ValueError(
            f"{name}: {others[0]} may hold more than tensors, and only safetensors is read; write "
            f"it once: cxrbook models convert {others[0]} --out {folder / WEIGHTS}"
        )
    raise ValueError(f"{name}: {folder} has no {WEIGHTS}, nor {unlisted.INDEX}; expected weights")


def _model(folder: Path) -> PreTrainedModel:
    """The model, filled whole: what is missing, left over or of another shape is an error."""
    import torch
    from transformers import AutoModel

    how = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    # shapes that differ are let pass, to be named below with all the rest
    how["ignore_mismatched_sizes"] = True
    model, report = AutoModel.from_pretrained(folder, **LOCAL, **how)
    wrong = []
    for kind in ("missing", "unexpected", "mismatched"):
        keys = sorted(x if isinstance(x, str) else x[0] for x in report[f"{kind}_keys"])
        keys = [
            key for key in keys if not key.endswith("position_ids")
        ]  # older versions saved them
        wrong += [f"{len(keys)} {kind}: {', '.join(keys[:3])}"] if keys else []
    if wrong:
        raise ValueError(f"the weights do not fit {CONFIG}. {'; '.join(wrong)}")
    return model.eval()


def _image_processor(folder: Path) -> BaseImageProcessor:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, **LOCAL)


def _tokenizer(folder: Path) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The tokenizer, and what to note of it."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(folder, **LOCAL), ()
    except ImportError as error:  # a class that wants a package, such as SigLIP's
        if not (folder / "tokenizer.json").is_file():
            wanted = unlisted.line(error)
            raise ValueError(f"{wanted} Install it, or add a tokenizer.json") from None
        note = "tokenizer read from tokenizer.json, since its class wants a package not installed"
        return PreTrainedTokenizerFast.from_pretrained(folder, **LOCAL), (note,)


def _texts(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, padded: bool, what: str
) -> Callable[[list[str]], Tokens]:
    """Texts to tokens: cut to what the model takes; padded as in its training."""
    import torch

    from cxrlib.models.encoder import Tokens

    config = model.config.get_text_config()
    length = min(
        tokenizer.model_max_length,
        getattr(config, "max_position_embeddings", LONG) - _before_the_first(model),
    )
    if length >= LONG:
        raise ValueError(f"{what}: neither tokenizer nor {CONFIG} say how long a text may be")
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"{what}: a tokenizer of {len(tokenizer):,} words for a model of "
            f"{config.vocab_size:,}: it belongs to another model"
        )
    how = {"padding": "max_length" if padded else True, "truncation": True, "max_length": length}

    def tokenize(texts):
        found = tokenizer(list(texts), **how, return_tensors="pt")
        ids = found["input_ids"]
        return Tokens(ids, found.get("attention_mask", torch.ones_like(ids)))

    return tokenize


def _before_the_first(model: PreTrainedModel) -> int:
    """Positions that no token gets, as RoBERTa and its kin count: those up to that of padding."""
    tables = [x for key, x in model.named_modules() if key.endswith(".position_embeddings")]
    paddings = [getattr(table, "padding_idx", None) for table in tables]
    return max((padding + 1 for padding in paddings if padding is not None), default=0)


def _scale(model: PreTrainedModel) -> tuple[float, tuple[str, ...]]:
    """The factor on cosine similarities, and what to note of it."""
    if not hasattr(model, "logit_scale"):
        if hasattr(model, "temperature"):  # ALIGN divides by it
            return 1 / float(model.temperature.detach()), ()
        return 1.0, ("no logit scale was learned; similarities are used as they are",)
    scale = float(model.logit_scale.detach().exp())
    if not hasattr(model, "logit_bias"):
        return scale, ()
    return scale, (unlisted.SIGMOID,)


def _steps(processor: BaseImageProcessor) -> str:
    """What an image processor does, in words."""
    found = processor.to_dict()
    size, crop = (_sides(found.get(key)) for key in ("size", "crop_size"))
    how = RESAMPLING.get(found.get("resample"), "")
    done = [f"resized to {size}{how}"] if found.get("do_resize") else []
    done += [f"cropped to {crop}"] if found.get("do_center_crop") else []
    factor = found.get("rescale_factor", GREY_LEVEL) if found.get("do_rescale") else 1
    if not isclose(factor, GREY_LEVEL):
        done.append(f"grey levels of 0 to 255 times {factor:.3g}")
    if found.get("do_normalize"):
        mean, sd = (unlisted.listed(found[key]) for key in ("image_mean", "image_std"))
        done.append(f"mean {mean} and SD {sd} of the channels")
    return "; ".join(done)


def _sides(size: dict | None) -> str:
    """``{"shortest_edge": 224}`` or ``{"height": 224, "width": 224}`` in words."""
    size = {key: x for key, x in (size or {}).items() if x}
    if {"height", "width"} <= size.keys():
        return f"{size['height']} x {size['width']} pixels"
    return ", ".join(f"{key.replace('_', ' ')} of {x} pixels" for key, x in size.items())

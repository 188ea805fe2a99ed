"""What a published model costs here on a CPU: load time, images a second, peak memory.

Side by side with the bare module of the library that it is built from, where open_clip or
transformers has one: the way through ``cxrlib`` should cost at most 5 % more. Weights are seeded by
names and written to a temporary file first, so no checkpoint is needed.

Run: python benchmarks/models.py [NAME ...]
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cxrlib import models
from cxrlib.models import registry, seeded

BATCH, ROUNDS, OVERHEAD = 8, 11, 0.05


def open_clip_bare(config):
    import open_clip

    return open_clip.create_model(config, pretrained=None).eval()


def biomedclip_bare():
    from open_clip.model import CustomTextCLIP
    from transformers import BertConfig

    with tempfile.TemporaryDirectory() as folder:
        BertConfig().save_pretrained(folder)
        vision = {"timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": False}
        vision |= {"timm_pool": "", "timm_proj": "linear", "image_size": 224}
        text = {"hf_model_name": folder, "hf_tokenizer_name": folder, "hf_model_pretrained": False}
        text |= {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
        return CustomTextCLIP(512, vision, text | {"context_length": 256}).eval()


def swin_bare():
    from transformers import SwinConfig, SwinModel

    return SwinModel(SwinConfig()).eval()


# The library's module, and what of it takes a batch of images. open_clip has the whole model;
# transformers has the image encoder, without projection and text encoder.
BARE = {
    "clip_vit_b16": (lambda: open_clip_bare("ViT-B-16-quickgelu"), "encode_image"),
    "chexzero": (lambda: open_clip_bare("ViT-B-32-quickgelu"), "encode_image"),
    "biomedclip": (biomedclip_bare, "encode_image"),
    "medclip_vit": (swin_bare, "forward"),
    "cxr_clip_swin": (swin_bare, "forward"),
}


def write(name, folder):
    """A checkpoint folder with seeded weights; the vocabulary is a stand-in."""
    made, card = registry.recipe(name), registry.cards()[name]
    network = made.build()
    seeded.fill(network, made.upstream)
    for file in card["files"]:
        path = folder / Path(file["names"][0].replace("*", "seeded")).name
        if file["part"] == "vocabulary":
            words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            words += [f"[unused{i}]" for i in range(file["words"] - len(words))]
            path.write_text("\n".join(words))
            continue
        part = network if file["part"] == "weights" else getattr(network, file["part"])
        state = {made.upstream(k): v.clone() for k, v in part.state_dict().items()}
        save_file(state, path.with_suffix(".safetensors"))


def bare_with_weights(name, folder):
    """The library's module; where it is the whole model, its weights are read as well."""
    network = BARE[name][0]()
    if BARE[name][1] == "encode_image":
        state = load_file(next(folder.glob("*.safetensors")))
        network.load_state_dict({k: v for k, v in state.items() if "position_ids" not in k})
    return network


def peak():
    """Megabytes that this process has held at most (Linux; getrusage would count its parent's)."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def ours(name, folder):
    return models.load_model(name, checkpoint=folder).encode_image


def bare(name, folder):
    return getattr(bare_with_weights(name, folder), BARE[name][1])


def cost(way, name, folder):
    """Seconds to load, and peak memory of loading and of one batch, imports not counted."""
    registry.recipe(name)
    import open_clip  # noqa: F401
    import transformers  # noqa: F401

    before, start = peak(), time.perf_counter()
    run = way(name, folder)
    seconds = time.perf_counter() - start
    seconds_of(run, batch_of(name))
    return {"load": seconds, "memory": peak() - before}


def pair(name, folder):
    """Seconds for a batch, ours and bare in turn."""
    x, ways = batch_of(name), {"cxrlib": ours(name, folder)}
    if name in BARE:
        ways["bare"] = bare(name, folder)
    rounds = [{way: seconds_of(run, x) for way, run in ways.items()} for _ in range(ROUNDS + 1)]
    return {way: [r[way] for r in rounds[1:]] for way in ways}  # the first round warms up


def batch_of(name):
    size = registry.cards()[name]["image_size"]
    return torch.randn(BATCH, 3, size, size)


def seconds_of(run, x):
    with torch.inference_mode():
        start = time.perf_counter()
        run(x)
        return time.perf_counter() - start


def apart(*arguments):
    """The answer of this script in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--apart", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def report(name):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(name, folder)
        size = sum(p.stat().st_size for p in folder.iterdir()) / 2**20
        costs = {way: apart(way, name, folder) for way in ("cxrlib", "bare")[: 1 + (name in BARE)]}
        times = apart("pair", name, folder)
    rate = BATCH / statistics.median(times["cxrlib"])
    mine = costs["cxrlib"]
    print(
        f"{name}: file {size:.0f} MB; load {mine['load']:.1f} s; {rate:.1f} images a second; "
        f"peak {mine['memory']:.0f} MB above the imports"
    )
    if name in BARE:
        ratios = sorted(a / b for a, b in zip(times["cxrlib"], times["bare"], strict=True))
        ratio, bare_cost = statistics.median(ratios), costs["bare"]
        verdict = "met" if ratio <= 1 + OVERHEAD else "NOT met"
        line = (
            f"    against the bare module: time a batch x{ratio:.3f} "
            f"(of {ROUNDS} pairs: {ratios[0]:.3f} to {ratios[-1]:.3f}; at most {1 + OVERHEAD}: "
            f"{verdict})"
        )
        if BARE[name][1] == "encode_image":  # else the bare module is half of the model
            line += f"; load x{mine['load'] / bare_cost['load']:.2f}"
            line += f", memory x{mine['memory'] / bare_cost['memory']:.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["--apart"]:
        what, name, folder = sys.argv[2], sys.argv[3], Path(sys.argv[4])
        ways = {"cxrlib": ours, "bare": bare}
        print(json.dumps(pair(name, folder) if what == "pair" else cost(ways[what], name, folder)))
    else:
        for name in sys.argv[1:] or models.published_models():
            report(name)

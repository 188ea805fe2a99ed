"""What the authors' own code gave with name-seeded weights: figures, inputs and comparisons.

``tests/parity/*.json`` hold, for each published model, the names and shapes of its tensors and the
vectors, scores and preprocessed pixels that upstream's code computed from the inputs made here.
"""

import json
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxrlib.models import checkpoints, loading, registry, seeded

FOLDER = Path(__file__).with_name("parity")
ATOL = 1e-5  # on unit vectors, float32 on a CPU
RELATIVE = 3e-5  # of the largest magnitude, for everything else


@cache
def figures(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def state(name, part=None):
    """A checkpoint as upstream would save it: its names, filled by the rule."""
    fill = figures(name)["fill"]
    fill = fill[part] if part else fill
    found = {}
    for key, shape in fill["state_dict"].items():
        if key in fill["aliases"]:
            continue
        if key not in fill["left_as_constructed"]:
            found[key] = torch.from_numpy(seeded.values(key, tuple(shape)))
        elif key.endswith("position_ids"):
            found[key] = torch.arange(shape[-1])[None]
        elif key.endswith(("num_batches_tracked", "relative_position_index")):
            found[key] = torch.zeros(shape, dtype=torch.long)
        else:
            found[key] = torch.tensor(fill["left_as_constructed"][key])
    return found | {later: found[first] for later, first in fill["aliases"].items()}


def parts(name):
    fill = figures(name)["fill"]
    return [None] if "state_dict" in fill else list(fill)


@lru_cache(maxsize=3)  # the largest family
def network(name):
    """The network of a published model with upstream's filled checkpoint loaded strictly."""
    made = registry.recipe(name)
    built = made.build().eval()
    for part in parts(name):
        target = getattr(built, part) if part else built
        checkpoints.load_strictly(target, state(name, part), name, made.upstream, made.prefix)
    if made.vocabulary:  # in place of a file: the ids that upstream's run took for pieces of words
        built.join(map(int, figures(name)["text"]["pieces"]))
    return built


def loaded(name, protocol="corrected"):
    """The model ``seeded:<name>``, with the network that is filled already.

    Filled by itself it is the same: test_parity.py.
    """
    filled = network(name)
    made = replace(registry.recipe(name), build=lambda: filled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeded, "fill", lambda network, upstream: None)
        patch.setattr(registry, "recipe", lambda _: made)
        return loading.load(f"seeded:{name}", protocol)


def image(height, width, which=0):
    """Image 0 (noise) or 1 (waves) of the parity rule, float32 (1, 3, height, width)."""
    if which == 0:
        x = np.random.Generator(np.random.PCG64(0)).standard_normal(3 * height * width)
        x = x.reshape(3, height, width)
    else:
        c, i, j = np.ogrid[:3, :height, :width]
        x = np.sin(2 * np.pi * (i * 3 / height + j * 5 / width + c / 3))
    return torch.from_numpy(x.astype(np.float32))[None]


def film(case="small_300x260"):
    """The uint8 film of a preprocessing case."""
    height, width = (700, 820) if case.startswith("large") else (300, 260)
    i, j = np.mgrid[:height, :width]
    pixels = ((i * 7 + j * 13 + (i * j) // 50) % 256).astype(np.uint8)
    return pixels // 2 + 40 if case.startswith("narrow") else pixels


def tokens(name, length=None):
    """Ids and mask of the two texts, padded with 0 to the length upstream used, or another."""
    text = figures(name)["text"]
    rows = text.get("ids_before_padding") or [
        [i for i, m in zip(*row, strict=True) if m]
        for row in zip(text["ids"], text["attention_mask"], strict=True)
    ]
    length = length or text["length"]
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


def both_images(height=224, width=224):
    """Images 0 and 1, (2, 3, height, width)."""
    return torch.cat([image(height, width), image(height, width, 1)])


@torch.inference_mode()
def image_vectors(built, x, **inputs):
    """Unit vectors (n, d) of images."""
    return F.normalize(built.encode_image(x, **inputs), dim=1)


def image_vector(built, x, **inputs):
    """Unit vector (d,) of one image."""
    return image_vectors(built, x, **inputs)[0]


@torch.inference_mode()
def text_vectors(built, ids, mask):
    """Unit vectors (n, d)."""
    return F.normalize(built.encode_text(ids, mask), dim=1)


def distance(found, expected):
    """Largest absolute difference."""
    return float(np.abs(np.asarray(found, float) - np.asarray(expected, float)).max())


def assert_close(found, expected, atol=None):
    """Within ``atol``, by default the tolerance for quantities that are not unit vectors."""
    expected = np.asarray(expected, float)
    atol = RELATIVE * np.abs(expected).max() if atol is None else atol
    assert np.shape(found) == expected.shape
    assert distance(found, expected) <= atol


def assert_summary(found, recorded):
    """Agrees with a recorded summary: shape, moments, range, 25 values at fixed positions."""
    found = np.asarray(found, float)
    if "shape" in recorded:
        assert found.size == np.prod(recorded["shape"])
        assert list(found.shape) == [n for n in recorded["shape"]][-found.ndim :]
    size = max(np.abs(found).max(), 1e-12)
    for what in ("mean", "std", "min", "max"):
        if what in recorded:
            assert abs(getattr(np, what)(found) - recorded[what]) <= RELATIVE * size, what
    sample = recorded.get("sample25", recorded)
    values = found.ravel()[sample["positions"]]
    assert distance(values, sample["values"]) <= RELATIVE * size


def assert_mistakes_are_seen(name, mistakes):
    """Each listed mistake, made in our network and taken back, would fail the comparison.

    Upstream's figures for images are over both images, ours over the first, so may be smaller.
    """
    recorded, built = figures(name), network(name)
    x, texts = image(*recorded["image"]["size"]), tokens(name)

    def distances():
        return {
            "image": distance(image_vectors(built, x), recorded["image"]["embeddings"]),
            "text": distance(text_vectors(built, *texts), recorded["text"]["embeddings"]),
        }

    for mistake, listed in recorded["checks"]["WRONG"].items():
        if mistake == "what":
            continue
        with pytest.MonkeyPatch.context() as patch:
            mistakes[mistake](patch, built)
            found = distances()[mistake.split(":")[0]]
        assert found > ATOL, mistake
        assert listed / 2 < found < listed * 1.1, mistake
    assert max(distances().values()) <= ATOL  # every mistake was taken back

"""Prove on this machine that a model is its original: the command ``cxrbook models verify``.

The network is filled with weights computed from the names of its tensors (:mod:`.seeded`); the
authors' own code, filled the same way, gave the numbers in ``parity.json`` for the same inputs. A
loaded model, with whatever weights, is then asked for what any encoder must do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from cxrlib.core.used import SEEDED
from cxrlib.models import choose_models, files, load_model, loading, published_models, registry
from cxrlib.models.encoder import PRECISIONS, Encoder, Tokens

FIGURES = Path(__file__).with_name("parity.json")
ATOL = 1e-5  # on unit vectors in float32
PIXELS = 1e-4  # on standardised pixels, a hundredth of a grey level
LOWER = 1e-2  # cosine distance of half precision
ELSEWHERE = 1e-3  # on a stored fingerprint: machines and library versions differ a little


def noise(height: int, width: int) -> torch.Tensor:
    """Standard normal pixels from a fixed seed, float32 (1, 3, height, width)."""
    x = np.random.Generator(np.random.PCG64(0)).standard_normal(3 * height * width)
    return torch.from_numpy(x.astype(np.float32)).reshape(1, 3, height, width)


def film(height: int = 300, width: int = 260) -> np.ndarray:
    """A uint8 test film (height, width) of slanted stripes that uses all 256 grey levels."""
    i, j = np.mgrid[:height, :width]
    return ((i * 7 + j * 13 + (i * j) // 50) % 256).astype(np.uint8)


def spread(n: int) -> np.ndarray:
    """25 positions spread evenly over n."""
    return (2 * np.arange(25) + 1) * n // 50


def against_upstream(name: str, device: str = "cpu") -> pd.DataFrame:
    """Compare a published model, weights seeded by names, on a device with its authors' code.

    Returns
    -------
    DataFrame: check, difference (largest absolute), tolerance, holds
    """
    figures = json.loads(FIGURES.read_text())["upstream"][name]
    (model,) = loading.load(f"{SEEDED}{name}").members
    model = model.to(device)
    if "continuations" in figures:  # word pieces that continue a word, in place of a vocabulary
        model.network.join(figures["continuations"])  # type: ignore[operator]
    ids = torch.stack(
        [F.pad(torch.tensor(row), (0, figures["length"] - len(row))) for row in figures["ids"]]
    )
    image = model.encode_image(noise(*figures["size"]))
    text = model.encode_tokens(*Tokens(ids, (ids != 0).long()))
    channels = figures.get("channels", 3)  # MedCLIP repeats the one channel later
    pixels = model.preprocess(film())[0, :channels].flatten()
    at = spread(image.shape[1])
    rows = (
        ("image vector", image[:, at], figures["image"], ATOL),
        ("text vectors", text[:, at], figures["text"], ATOL),
        ("preprocessed pixels", pixels[spread(len(pixels))], figures["pixels"], PIXELS),
    )
    return _table(
        (what, float((found - torch.tensor(recorded)).abs().max()), tolerance)
        for what, found, recorded, tolerance in rows
    )


def self_test(model: Encoder) -> pd.DataFrame:
    """Ask a loaded model for what any encoder must do.

    Returns
    -------
    DataFrame: check, difference (largest absolute), tolerance, holds
    """
    films = [film(), film(280, 320), np.full((64, 64), 128, np.uint8)]
    texts = ["Chest Pneumothorax", "Chest No Findings"]
    batch = model.preprocess(films)
    images, vectors = model.encode_image(batch), model.encode_text(texts)
    again, fewer = model.encode_image(batch), model.encode_image(batch[1:])
    length = torch.cat([images, vectors]) if model.unit_text else images
    modules = list(model.network.modules())
    rows = [
        ("evaluation mode", float(any(m.training for m in modules)), 0.0),
        ("unit norms", float((length.norm(dim=1) - 1).abs().max()), ATOL),
        ("the same again", float((images - again).abs().max()), 0.0),
        ("whatever the batch", float((images[1:] - fewer).abs().max()), ATOL),
    ]
    stored = json.loads(FIGURES.read_text())["fingerprints"].get(model.name)
    if stored:
        found = fingerprint(model)
        rows.append(
            ("stored fingerprint", float(np.abs(found - np.array(stored)).max()), ELSEWHERE)
        )
    return _table(rows)


def precisions(model: Encoder, device: str = "cuda") -> pd.DataFrame:
    """How far lower precisions turn embeddings on a device: cosine distances to float32.

    Returns
    -------
    DataFrame: check, difference (largest cosine distance over two films and two texts), tolerance,
    holds
    """
    batch = model.preprocess([film(), film(280, 320)])
    texts = ["Chest Pneumothorax", "Chest No Findings"]
    vectors = {}
    for precision in PRECISIONS:
        there = model.to(device, precision)
        both = torch.cat([there.encode_image(batch), there.encode_text(texts)])
        vectors[precision] = F.normalize(both, dim=1)
    model.to("cpu")
    exact = vectors.pop("float32")
    return _table(
        (f"{name} on {device}", float((1 - (found * exact).sum(dim=1)).max()), LOWER)
        for name, found in vectors.items()
    )


def fingerprint(model: Encoder) -> np.ndarray:
    """25 components of the embedding of the test film and 25 of a text, rounded: (2, 25)."""
    image = model.encode_image(model.preprocess(film()))[0]
    text = model.encode_text(["Chest Pneumothorax"])[0]
    at = spread(len(image))
    return np.round(torch.stack([image[at], text[at]]).double().numpy(), 6)


def report(
    name: str, checkpoint: str | Path | None = None, protocol: str = "corrected"
) -> Iterator[tuple[str, bool]]:
    """What ``cxrbook models verify`` prints: lines, and whether what they say holds.

    Raises
    ------
    ValueError
        An unknown name, or files that are there but cannot be used.
    """
    (name,) = choose_models(name)
    plain = name.removeprefix(SEEDED)
    if plain in published_models():
        yield f"{plain}: the network, weights seeded by names, against its authors' code", True
        yield from _lines(against_upstream(plain))
    where = files.folder_of(plain, checkpoint)
    if plain in published_models() and name == plain:
        card = registry.cards()[plain]
        found = files.find(card, where)
        if not checkpoint and not any(found.values()):
            place = where or f"{files.FOLDER} is not set"
            yield f"{plain}: your weights: NOT RUN, no file is there ({place})", True
            return
        for about in card["files"]:
            for path in found[about["part"]]:
                value, compared = files.check_hash(path, about)
                yield f"  {path}\n    SHA-256 {value} ({compared})", True
    model = load_model(name, protocol, checkpoint)
    for member in getattr(model, "members", [model]):
        yield f"{name}: the loaded model, protocol {protocol}", True
        yield from ((f"  note: {note}", True) for note in model.notes)
        yield from _lines(self_test(member))
        if torch.cuda.is_available():
            yield from _lines(precisions(member))
        else:
            yield "  half precision on a GPU: NOT RUN, torch sees no GPU", True
        stored = json.loads(FIGURES.read_text())["fingerprints"]
        if name not in stored:
            first = ", ".join(f"{x:.6f}" for x in fingerprint(member)[0, :4])
            yield f"  no fingerprint is known for these weights; yours begins {first}", True


def _lines(table):
    for row in table.itertuples():
        verdict = "holds" if row.holds else "FAILS"
        tolerance = f"at most {row.tolerance:.0e}" if row.tolerance else "must be 0"
        yield f"  {row.check:<20} {verdict}  {row.difference:.1e} ({tolerance})", row.holds


def _table(rows):
    found = pd.DataFrame(rows, columns=["check", "difference", "tolerance"])
    return found.assign(holds=found["difference"] <= found["tolerance"])

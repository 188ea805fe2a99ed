"""What a film costs on this machine, in processor seconds of one core: the rates behind a plan."""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cxrlib.cohorts import films
from cxrlib.cohorts.cohort import Cohort
from cxrlib.models.images import each
from cxrlib.models.registry import recipe

PHANTOM, NIH, MIMIC = "phantom", "NIH, PNG", "MIMIC-CXR, JPEG"  # kinds of films
SIZES = {NIH: (1024, 1024), MIMIC: (2544, 3056)}  # pixels, width and height
MB = {NIH: 45e3 / 112_120, MIMIC: 570e3 / 377_110}  # the release, divided by its films
NOISE = {NIH: 1.0, MIMIC: 1.9}  # grey values; makes the files as large as that


def core_seconds(work: Callable[[], object], runs: int = 3) -> float:
    """Processor time of the fastest of a few runs of some work, all threads added up."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def of_films(
    cohort: Cohort, models: Sequence[str], seed: int = 1907
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What it costs to read one film, and to prepare it for each of several models.

    Real films are stood in for by phantoms, enlarged, with noise until their files weigh what the
    real ones do on average.

    Parameters
    ----------
    cohort : Cohort
        Phantoms.
    models : sequence of str
        Published models, whose preprocessing is timed.
    seed : int
        Of the noise.

    Returns
    -------
    (DataFrame, DataFrame)
        One row per kind of film: ``MB`` of a real one, ``made`` MB of ours, ``megapixels``, and
        core-seconds: ``check`` (the first reading of a film on disk, which hashes it), and
        ``decode`` (of phantoms: to render). And core-seconds to prepare one film: one row per
        model, one column per kind.
    """
    positions = np.arange(min(len(cohort.table), 64))
    assert cohort.images is not None  # phantoms are drawn
    render = partial(cohort.images, positions)
    drawn = np.asarray(render())
    rendering = core_seconds(render) / len(positions)
    pixels = drawn.shape[1] * drawn.shape[2] / 1e6
    read = {
        PHANTOM: {"MB": 0.0, "made": 0.0, "megapixels": pixels, "check": 0.0, "decode": rendering}
    }
    prepare = {PHANTOM: {name: _prepare(name, [*drawn[:4]]) for name in models}}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (width, height) in SIZES.items():
            path = Path(folder) / ("film.png" if kind == NIH else "film.jpg")
            large = np.asarray(Image.fromarray(drawn[0]).resize((width, height)))
            noise = np.random.default_rng(seed).normal(0, NOISE[kind], large.shape)
            film = (large + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(film).save(path, quality=95)
            read[kind] = {
                "MB": MB[kind],
                "made": path.stat().st_size / 1e6,
                "megapixels": width * height / 1e6,
                "check": core_seconds(partial(_check, path), runs=2),
                "decode": core_seconds(partial(films.read, path)),
            }
            prepare[kind] = {name: _prepare(name, [films.read(path)]) for name in models}
    return pd.DataFrame(read).T, pd.DataFrame(prepare)


def _check(path):
    kept = path.with_suffix(".parquet")  # what the check found, which would spare the next one
    kept.unlink(missing_ok=True)
    films.check(path.parent, [path.name], kept)


def _prepare(name, images):
    steps = each(recipe(name).preprocess)
    return core_seconds(lambda: steps(images), runs=2) / len(images)


def of_vit_b32() -> float:
    """Core-seconds of an image in one network, the ViT-B/32 of CheXzero.

    Its weights are zero: time does not depend on their values.
    """
    with torch.device("meta"):
        network = recipe("chexzero").build().eval()
    network = network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.zero_()
    batch = torch.zeros(4, 3, 224, 224)
    with torch.inference_mode():
        return core_seconds(lambda: network.encode_image(batch), runs=2) / len(batch)

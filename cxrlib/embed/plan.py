"""Embedding many radiographs on paper: hours, bottleneck, cost, files and memory.

A model that is run over a cohort is a pass. With N films, the models m of the pass, C cores,
D devices and S bytes per second from storage, it occupies

- storage for ``N (b + sum_m r_m) / S`` seconds: b bytes per film are read, r_m per row written;
- cores for ``N (d + sum_m p_m) / C``: d core-seconds to decode a film, p_m to prepare it;
- devices for ``N sum_m e_m / D``: e_m device-seconds to encode it. Without devices the cores
  encode too, and e_m are core-seconds.

The three work side by side, so a pass lasts ``t_0 + max`` of the three; t_0 is the time to start.
No rate is built in: all of them are arguments.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.core.checks import one_of
from cxrlib.core.folders import BENCHMARKS

COUNTED = Path(__file__).with_name("operations.csv")
NUMBER_BYTES = {"float32": 4, "float16": 2}
CHECK = "check"  # the pass that reads and decodes each film before any model sees it
RESOURCES = {"storage": ("read", "write"), "cores": ("decode", "prepare"), "devices": ("encode",)}
WITHOUT_DEVICES = {"storage": ("read", "write"), "cores": ("decode", "prepare", "encode")}
PARTS = {
    "pipeline": "the way of S's code, and ours",
    "bound": "extraction, and the encoder alone",
    "memory": "from few images to many",
    "store": "bytes and speed of the store",
    "gpu": "encoders on a GPU",
    "ray": "several processes under Ray",
}  # of the benchmarks
NOT_RUN = "not run"
MODEL_COLUMNS = ("model", "prepare", "encode", "width")


def plan(
    models: pd.DataFrame,
    n_images: int,
    *,
    film_bytes: float,
    decode: float,
    cores: int,
    devices: int,
    storage: float,
    start: float = 0.0,
    price: float = 0.0,
    check: float = 0.0,
    row_bytes: float = 0.0,
    dtype: str = "float32",
    together: bool = False,
) -> pd.DataFrame:
    """How long each pass over the films takes, by the equations above, and what limits it.

    Parameters
    ----------
    models : DataFrame
        One row per model: ``model``; ``prepare``, core-seconds per film; ``encode``, device-seconds
        per image (core-seconds without devices); ``width`` of its embeddings.
    n_images : int
    film_bytes : float
        Of a film on disk.
    decode : float
        Core-seconds to decode a film.
    cores, devices : int
        Of all machines together.
    storage : float
        Bytes per second, of all machines together.
    start : float
        Seconds until a pass does its first image.
    price : float
        An hour of all machines.
    check : float
        Core-seconds to check a film before any model sees it (one more pass); 0 for no check.
    row_bytes : float
        Of a row in a store, the embedding itself not counted.
    dtype : {"float32", "float16"}
        Of the numbers in the store.
    together : bool
        One pass for all models, which decodes a film once, instead of one pass per model.

    Returns
    -------
    DataFrame, one row per pass
        ``pass``; seconds of its resource that each stage takes: ``start, read, write, decode,
        prepare, encode``; ``hours``; ``resource`` that is busy longest, or "start";
        ``bottleneck``, the longest stage on it; ``cost``.

    Raises
    ------
    ValueError
        A number that cannot be, an unknown dtype, a column that is missing.
    """
    _refuse(1, cores=cores)
    _refuse(n_images=n_images, devices=devices, film_bytes=film_bytes, decode=decode, start=start)
    _refuse(price=price, check=check, row_bytes=row_bytes)
    _refuse_models(models)
    if not storage > 0:
        raise ValueError(f"storage={storage}: expected more than 0 bytes a second")
    work = models.assign(write=models["width"] * _number_bytes(dtype) + row_bytes, decode=decode)
    if together:
        summed = {stage: work[stage].sum() for stage in ("write", "prepare", "encode")}
        work = pd.DataFrame([summed | {"model": f"{len(models)} models", "decode": decode}])
    passes: list[dict] = list(work.to_dict("records"))
    if check:
        alone = {"model": CHECK, "decode": check, "write": 0.0, "prepare": 0.0, "encode": 0.0}
        passes = [alone, *passes]
    found = []
    for of in passes:
        stages = {
            "start": start,
            "read": n_images * film_bytes / storage,
            "write": n_images * of["write"] / storage,
            "decode": n_images * of["decode"] / cores,
            "prepare": n_images * of["prepare"] / cores,
            "encode": n_images * of["encode"] / (devices or cores),
        }
        found.append({"pass": of["model"], **stages, **_limit(stages, devices)})
    passed = pd.DataFrame(found)
    return passed.assign(cost=passed["hours"] * price)


def _limit(stages, devices):
    """Hours of a pass, the resource that is busy longest, and the longest stage on it."""
    on = RESOURCES if devices else WITHOUT_DEVICES
    busy = {resource: sum(stages[s] for s in names) for resource, names in on.items()}
    resource = max(busy, key=busy.get)
    hours = (stages["start"] + busy[resource]) / 3600
    if stages["start"] > busy[resource]:
        return {"hours": hours, "resource": "start", "bottleneck": "start"}
    longest = max(on[resource], key=stages.get)
    return {"hours": hours, "resource": resource, "bottleneck": longest}


def total(passes: pd.DataFrame) -> dict:
    """What a plan comes to, its passes one after the other.

    Returns
    -------
    dict
        ``hours``, ``cost``, and the ``bottleneck`` of most of these hours.
    """
    longest = passes.groupby("bottleneck", sort=False)["hours"].sum().idxmax()
    hours, cost = float(passes["hours"].sum()), float(passes["cost"].sum())
    return {"hours": hours, "bottleneck": longest, "cost": cost}


def over_films(
    models: pd.DataFrame, film: pd.Series, n_images: int, together: bool = False, **place: Any
) -> dict:
    """What all passes over films of one kind come to: `total` of a `plan`.

    Parameters
    ----------
    models, n_images, together
        See `plan`.
    film : Series
        A kind of film of :func:`cxrlib.embed.rates.of_films`: MB, decode, check.
    **place
        Further arguments of `plan`, such as cores, devices, storage and price.
    """
    of_film = {"film_bytes": 1e6 * film["MB"], "decode": film["decode"], "check": film["check"]}
    return total(plan(models, n_images, together=together, **of_film, **place))


def cores_a_device(models: pd.DataFrame, decode: float, together: bool = False) -> pd.Series:
    """Cores that keep one device busy: ``(d + sum_m p_m) / sum_m e_m`` of a pass.

    Parameters
    ----------
    models, decode, together : as in :func:`plan`

    Returns
    -------
    Series of float, by model; of one entry where all go together
    """
    _refuse(decode=decode)
    _refuse_models(models)
    work = models.set_index("model")[["prepare", "encode"]]
    if together:
        work = work.sum().to_frame(f"{len(models)} models").T
    return (decode + work["prepare"]) / work["encode"]


def stores(
    widths: Sequence[int],
    n_images: int,
    *,
    rows_per_shard: int,
    row_bytes: float = 0.0,
    dtype: str = "float32",
) -> dict:
    """Size of the stores of several models: with n bytes per number, w_m numbers per embedding,

    ``sum_m N (n w_m + r)`` bytes in ``sum_m (ceil(N / R) + 1)`` files (a manifest each).

    Parameters
    ----------
    widths : sequence of int
        Of the models' embeddings, w_m.
    n_images : int
        N.
    rows_per_shard : int
        R.
    row_bytes : float
        Of a row, the embedding itself not counted, r.
    dtype : {"float32", "float16"}

    Returns
    -------
    dict
        ``bytes`` and ``files`` of all stores; ``shard_bytes``, the largest file; ``lost``, rows
        that are computed again when one process is killed, at most.
    """
    _refuse(1, rows_per_shard=rows_per_shard)
    _refuse(n_images=n_images, row_bytes=row_bytes)
    rows = [width * _number_bytes(dtype) + row_bytes for width in widths]
    full = min(rows_per_shard, n_images)
    return {
        "bytes": n_images * sum(rows),
        "files": len(rows) * (math.ceil(n_images / rows_per_shard) + 1),
        "shard_bytes": full * max(rows),
        "lost": full,
    }


def memory(width: int, n_images: int, *, table_bytes: float, id_characters: int) -> dict:
    """Bytes that the code of this book holds at once for a cohort and one model, at the peak.

    The table of the cohort, ``t N``; image names as text of one width, sorted, ``4 c N`` twice;
    hashes of the rows for the fingerprint, ``8 N`` twice; all embeddings as
    :func:`cxrlib.embed.extract.embed` returns them, ``4 w N``, twice while they are put in
    order.

    Parameters
    ----------
    width : int
        Of the embeddings, w.
    n_images : int
        N.
    table_bytes : float
        A row of the cohort's table, t.
    id_characters : int
        Of the longest image name, c.

    Returns
    -------
    dict of float: table, names, fingerprint, embeddings
    """
    _refuse(n_images=n_images, table_bytes=table_bytes)
    _refuse(1, width=width, id_characters=id_characters)
    return {
        "table": table_bytes * n_images,
        "names": 2 * 4 * id_characters * n_images,
        "fingerprint": 2 * 8 * n_images,
        "embeddings": 2 * 4 * width * n_images,
    }


def operations() -> pd.Series:
    """Operations of each published model's image encoder on one image, counted beforehand.

    Returns
    -------
    Series of int, by model: matrix products and convolutions, two a multiplication with its
    addition; normalisation, activation and softmax are left out
    """
    return pd.read_csv(COUNTED, index_col="model")["operations"]


def on_gpu(file: Path) -> pd.DataFrame:
    """What ``make gpu-check`` measured of encoders: the part throughput of ``benchmarks/gpu.json``.

    Returns
    -------
    DataFrame: part ("gpu"), way, value, unit, low, high, rounds, model, device, threads, torch,
    date; no rows where there is no such file, or where the part gave no figures
    """
    columns = ["part", "way", "value", "unit", "low", "high", "rounds"]
    columns += ["model", "device", "threads", "torch", "date"]
    if not file.is_file():
        return pd.DataFrame(columns=columns)
    record = json.loads(file.read_text())
    about = {name: record[name] for name in ("device", "threads", "date")}
    about |= {"part": "gpu", "torch": record["versions"]["torch"]}
    figures = record["parts"]["throughput"].get("figures", [])
    rows = [{"rounds": 1, **figure, **about, "way": figure["what"]} for figure in figures]
    return pd.DataFrame(rows, columns=columns)


def recorded(folder: Path = BENCHMARKS) -> pd.DataFrame:
    """What was measured at length: ``embeddings.csv`` and ``gpu.json`` of a folder of benchmarks.

    Returns
    -------
    DataFrame, one row per number: part, way, n_images, film_pixels, value, unit, low, high, rounds,
    model, device, threads, torch, date; without what was not run
    """
    table = pd.read_csv(folder / "embeddings.csv")
    gpu = on_gpu(folder / "gpu.json")
    if len(gpu):
        table = pd.concat([table, gpu], ignore_index=True)
    return table[table["value"].notna() & (table["unit"] != NOT_RUN)]


def measured_on(rows: pd.DataFrame) -> str:
    """Machine and day of some rows of `recorded`, in words; "not run" where there are none."""
    if rows.empty:
        return NOT_RUN
    device, threads, date = rows[["device", "threads", "date"]].iloc[-1]
    return f"{device}, {int(threads)} threads, {date}"


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """The parts of `recorded`: what they compare, how many numbers they have, and where from."""
    of = {part: table[table["part"] == part] for part in PARTS}
    return pd.DataFrame(
        {
            "part": PARTS.keys(),
            "compares": PARTS.values(),
            "numbers": [len(rows) for rows in of.values()],
            "measured on": [measured_on(rows) for rows in of.values()],
        }
    )


def an_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Times of `recorded` for :func:`cxrlib.show.plots.bars`: milliseconds an image."""
    numbers = {"value": "value", "ci_low": "low", "ci_high": "high"}
    ms = {to: 1000 * rows[c] / rows["n_images"] for to, c in numbers.items()}
    films = rows["film_pixels"].map("{:,.0f} pixels".format)
    return rows[["way"]].assign(metric="milliseconds an image", films=films, **ms)


def at_sizes(rows: pd.DataFrame, digits: int = 1) -> str:
    """Values of `recorded` by the size of their films: "7.9 at 224 and 7.3 at 1,024 pixels"."""
    found = rows.sort_values("film_pixels")
    pairs = zip(found["value"], found["film_pixels"], strict=True)
    said = " and ".join(f"{value:.{digits}f} at {pixels:,.0f}" for value, pixels in pairs)
    return f"{said} pixels" if said else NOT_RUN


def as_printed(rows: pd.DataFrame) -> pd.DataFrame:
    """Some rows of `recorded` for a table: way, pixels, images, value with its range, unit."""

    def text(row):
        spread = f" [{row.low:,.4g}, {row.high:,.4g}]" if row.rounds >= 2 else ""
        return f"{row.value:,.4g}{spread}"

    whole = {
        c: rows[c].map("{:,.0f}".format, na_action="ignore") for c in ("film_pixels", "n_images")
    }
    return pd.DataFrame(
        {
            "way": rows["way"],
            "pixels": whole["film_pixels"],
            "images": whole["n_images"],
            "value [range]": [text(row) for row in rows.itertuples()],
            "unit": rows["unit"],
        }
    ).reset_index(drop=True)


def gpu_rate(rows: pd.DataFrame) -> pd.Series:
    """Operations a second of a GPU, by model: its fastest compiled run out of `recorded`."""
    speed = rows[(rows["part"] == "gpu") & (rows["unit"] == "images/s")]
    speed = speed[speed["way"].str.contains("compiled")]
    speed = speed.assign(model=speed["model"].str.removeprefix("seeded:"))
    best = speed.groupby("model", sort=False)["value"].max().astype(float)
    return best * operations().reindex(best.index)


def _number_bytes(dtype):
    one_of("dtype", dtype, NUMBER_BYTES)
    return NUMBER_BYTES[dtype]


def _refuse(least=0, **given):
    """Refuse values, by their name, that are below what they can be."""
    for name, value in given.items():
        if not (np.isfinite(value) and value >= least):
            raise ValueError(f"{name}={value}: expected a number, {least} or more")


def _refuse_models(models):
    if missing := [c for c in MODEL_COLUMNS if c not in models]:
        raise ValueError(f"models: no column {missing[0]!r}; expected {', '.join(MODEL_COLUMNS)}")
    if models.empty:
        raise ValueError("models: the table has no rows; expected one per model")
    for column in MODEL_COLUMNS[1:]:
        if not (np.isfinite(models[column]) & (models[column] >= 0)).all():
            raise ValueError(f"models: column {column!r} has values below 0 or missing")

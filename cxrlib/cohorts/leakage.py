"""What a cohort could give away: patients, films and sources on both sides of a line.

A patient in training and test, the same film under two names, or a film that a model was
pretrained on: each lets a model look better than it is. :func:`report` counts them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from cxrlib import guard
from cxrlib.cohorts.cohort import Cohort

MAX_DISTANCE = 2
"""Bits, of 64, by which the perceptual hashes of two near-duplicates may differ.

A film saved anew as a smaller image or as JPEG, brightened, or with some noise keeps its hash or
differs by 2 bits; so does one that was shifted by a hundredth of its width. Chest radiographs are
so alike that further away most pairs are of different people.
"""
HASH_BITS = 64


def report(
    cohort: Cohort, leaks: pd.DataFrame | None = None, max_distance: int = MAX_DISTANCE
) -> pd.DataFrame:
    """Patients over splits and classes, films that are there twice, sources of models.

    Parameters
    ----------
    cohort : Cohort
    leaks : DataFrame, optional
        One row per model, with ``model`` and ``verdict``, as :func:`cxrlib.models.leaks.leaks`
        returns it: whether it was pretrained on the source of the cohort.
    max_distance : int
        Bits by which the perceptual hashes of two near-duplicates may differ, 0 to 63.

    Returns
    -------
    DataFrame
        ``check`` (text), ``found`` and ``of`` (counts; missing where the check does not apply),
        ``share`` = found / of, ``note``: what was counted, or why the check does not apply. A
        hash that is close is a hint and no proof: two films of different people can be so alike.
        In a credentialed cohort, counts that rest on fewer than ten images or patients are missing,
        and those that would give them away.

    Raises
    ------
    ValueError
        ``max_distance`` outside 0 to 63.
    """
    rows = [*_patients(cohort.table), *_films(cohort, max_distance)]
    if leaks is not None:
        rows += [_row(f"pretraining of {row.model}", row.verdict) for row in leaks.itertuples()]
    table = pd.DataFrame(rows)
    if cohort.access == "credentialed":
        table = _without_small_counts(table)
    table = table.drop(columns="patients").reset_index(drop=True)
    return table.astype({"found": "Int64", "of": "Int64", "share": float})


def _row(check, note, found=None, of=None, patients=None):
    """One check; ``patients`` is how many of them are behind what was found."""
    share = found / of if of else np.nan
    about = {"check": check, "found": found, "of": of, "share": share, "note": note}
    return about | {"patients": found if patients is None else patients}


def _without_small_counts(table):
    """Rows lose counts that are small, alone or as what is left of another count."""

    def few(number):
        return pd.notna(number) and 0 < number < guard.MIN_CELL

    shown = {}  # kind of film: numbers found in rows that are shown
    for i, row in table.iterrows():
        kind = row["check"].split(" of another")[0].split(" in another")[0]
        left = [row["of"] - row["found"], *(n - row["found"] for n in shown.get(kind, []))]
        if few(row["found"]) or few(row["patients"]) or any(map(few, left)):
            table.loc[i, ["found", "of", "share"]] = np.nan
            table.loc[i, "note"] = guard.SUPPRESSED
        elif pd.notna(row["found"]):
            shown.setdefault(kind, []).append(row["found"])
    return table


# --- patients --------------------------------------------------------------------------------


def _patients(table):
    split = table["split"] if "split" in table else pd.Series(dtype=object)
    names = ", ".join(sorted(split.dropna().unique()))
    one = f"the cohort has images of {names} only" if names else "the cohort has no splits"
    splits = tested = (f"not applicable: {one}",)
    if split.nunique() > 1:
        splits = (f"splits: {names}", *_several(split, table))
    if {"train", "test"} <= set(split):
        test = table.loc[split == "test", "patient_id"]
        leaking = test[test.isin(table.loc[split == "train", "patient_id"])]
        note = "found: images; training is the split called train"
        tested = (note, len(leaking), len(test), leaking.nunique())
    classes = ("not applicable: an image may have several findings, so there are no classes",)
    if "disease" in table:
        note = "one class an image; such a patient has images in two or more"
        classes = (note, *_several(table["disease"], table))
    return [
        _row("patients in several splits", *splits),
        _row("test images whose patient is in training", *tested),
        _row("patients in several classes", *classes),
    ]


def _several(entries, table):
    """How many patients have images with different entries, and how many there are."""
    per_patient = entries.groupby(table["patient_id"]).nunique()
    return (per_patient > 1).sum(), len(per_patient)


# --- films -----------------------------------------------------------------------------------


def _films(cohort, max_distance):
    near = f"their perceptual hashes differ by at most {max_distance} of {HASH_BITS} bits"
    kinds = {"exact copies": "their files are the same, byte for byte", "near-duplicates": near}
    if cohort.films is None:
        reason = "the films are drawn by a program" if cohort.planted else "there are no films"
        return [_row(f"films with {kind}", f"not applicable: {reason}") for kind in kinds]
    sha256 = cohort.films["sha256"].mask(cohort.films["sha256"] == "")
    hashes = as_integers(cohort.films["phash"])
    rows, within = [], ((sha256, 0), (hashes, max_distance))
    for (kind, note), (codes, distance) in zip(kinds.items(), within, strict=True):
        columns = {"": None, " of another patient": "patient_id"}
        if "split" in cohort.table and cohort.table["split"].nunique() > 1:
            columns[" in another split"] = "split"
        twice = alike(codes, distance, cohort.table, [c for c in columns.values() if c])
        for where, column in columns.items():
            counted = twice["any" if column is None else column]
            patients = cohort.table.loc[counted.to_numpy(), "patient_id"].nunique()
            check = f"films with {kind}{where}"
            rows.append(_row(check, note, counted.sum(), len(counted), patients))
    return rows


def as_integers(hashes: Iterable[str]) -> pd.Series:
    """Perceptual hashes, 16 hexadecimal digits each, as 64-bit integers; missing where empty."""
    hashes = pd.Series(hashes).reset_index(drop=True)
    numbers = [int(h, 16) if isinstance(h, str) and h else None for h in hashes]
    return pd.Series(numbers, dtype="UInt64")


def alike(
    codes: pd.Series, max_distance: int, table: pd.DataFrame, columns: Sequence[str] = ()
) -> pd.DataFrame:
    """Which images have another image like them, and one that differs from them in a column.

    Parameters
    ----------
    codes : Series, shape (n,)
        Any values for ``max_distance`` 0: the same code is alike. 64-bit integers otherwise: codes
        are alike that differ by at most so many bits. Missing: like no other.
    max_distance : int
        In [0, 63].
    table : DataFrame, n rows
    columns : sequence of str
        Such as ``["patient_id", "split"]``.

    Returns
    -------
    DataFrame of bool, n rows
        ``any``: there is another image alike. One further column each of ``columns``: there is one
        alike with another entry there (a missing entry differs from none).

    Notes
    -----
    The distinct codes are cut into ``max_distance + 1`` sets of bits. Two codes that differ by at
    most ``max_distance`` bits agree in one of the sets (pigeonhole), so that only codes that share
    a set are compared: not all pairs.
    """
    if not 0 <= max_distance < HASH_BITS:
        raise ValueError(f"max_distance: {max_distance}; expected 0 to {HASH_BITS - 1} bits")
    place, distinct = pd.factorize(pd.Series(codes).reset_index(drop=True))
    known = place >= 0
    size = np.bincount(place[known], minlength=len(distinct))
    # Of each distinct code: is there another like it, and the smallest and largest entry of a
    # column among all images like it. An image differs from one of them if it is not both.
    neighbour = size > 1
    none = np.iinfo(int).max
    entries = np.empty((len(columns), len(table)), dtype=int)
    low, high = np.full((2, len(columns), len(distinct)), [[[none]], [[-1]]])
    for column, entry, least, most in zip(columns, entries, low, high, strict=True):
        entry[:] = pd.factorize(table[column])[0]
        used = known & (entry >= 0)
        np.minimum.at(least, place[used], entry[used])
        np.maximum.at(most, place[used], entry[used])
    wide_low, wide_high = low.copy(), high.copy()
    if max_distance:
        for pair in _close(np.asarray(distinct, dtype=np.uint64), max_distance):
            for one, other in (pair, pair[::-1]):
                neighbour[one] = True
                for k in range(len(columns)):
                    np.minimum.at(wide_low[k], one, low[k][other])
                    np.maximum.at(wide_high[k], one, high[k][other])
    twice = known & neighbour[place]
    differs = (entries >= 0) & ((wide_low[:, place] != entries) | (wide_high[:, place] != entries))
    return pd.DataFrame({"any": twice} | dict(zip(columns, twice & differs, strict=True)))


def _close(codes, max_distance):
    """Pairs of positions of distinct codes within a distance, in parts; some pairs come twice."""
    bands = max_distance + 1
    bits = np.arange(HASH_BITS, dtype=np.uint64)
    for band in range(bands):
        mask = np.bitwise_or.reduce(np.uint64(1) << bits[band::bands])
        key = codes & mask
        order = np.argsort(key, kind="stable")
        key = key[order]
        at, step = np.arange(len(key)), 0
        while True:  # compare each code with the one `step` places on, while they share the band
            step += 1
            at = at[at + step < len(key)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            a, b = order[at], order[at + step]
            close = np.bitwise_count(codes[a] ^ codes[b]) <= max_distance
            yield a[close], b[close]

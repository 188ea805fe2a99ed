"""FINDINGS sections for phantom images: varied wording, sides, degrees and negations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from cxrlib.core import toml

_WORDS = toml.beside(__file__)
PRESENT, ABSENT, NORMAL, DEVICES = (_WORDS[k] for k in ("present", "absent", "normal", "devices"))
TERSE_SHARE, NEGATION_SHARE, DEVICE_SHARE = 0.35, 0.30, 0.5


def write(
    table: pd.DataFrame,
    findings: tuple[str, ...],
    sides: dict[str, np.ndarray],
    uniform: Callable[[str], np.ndarray],
) -> list[str]:
    """Reports that agree with the recorded labels of ``table``.

    About a third are terse ("chest edema pneumonia"); the others describe each finding with side
    and degree, deny some of the absent ones and mention half of the pacemakers and ECG leads.

    Parameters
    ----------
    table : DataFrame
        Recorded labels (0/1), ``severity_<finding>`` and devices.
    findings : tuple of str
    sides : dict
        Finding to an array of "left"/"right".
    uniform : callable
        Stream name to one number in [0, 1) per row.

    Returns
    -------
    list of str, one per row
    """
    labels = {f: table[f].to_numpy() for f in findings}
    severity = {f: table[f"severity_{f}"] for f in findings}
    words = ["mild", "moderate"]
    degree = {f: np.select([s < 0.4, s < 0.75], words, "severe") for f, s in severity.items()}
    pick = {f: uniform(f"words {f}") for f in findings}
    deny = {f: uniform(f"denies {f}") < NEGATION_SHARE for f in findings}
    named = {d: uniform(f"names {d}") < DEVICE_SHARE for d in DEVICES}
    names = {d: (table[d].to_numpy() == 1) & named[d] for d in DEVICES}
    terse, order = uniform("terse") < TERSE_SHARE, uniform("order")
    normal = uniform("normal")

    texts = []
    for i in range(len(table)):
        present = [f for f in findings if labels[f][i]]
        if not present and normal[i] < 0.6:
            parts = [_choose(NORMAL, normal[i] / 0.6)]
        elif terse[i]:
            parts = ["chest " + " ".join(f.lower() for f in present)] if present else [NORMAL[0]]
        else:
            texts_of = {f: _choose(PRESENT[f], pick[f][i]) for f in present}
            parts = [t.format(d=degree[f][i], s=sides[f][i]) for f, t in texts_of.items()]
            denied = [f for f in findings if not labels[f][i] and deny[f][i]]
            parts += [_choose(ABSENT[f], pick[f][i]) for f in denied]
            turn = int(order[i] * len(parts)) if parts else 0
            parts = parts[turn:] + parts[:turn] or [NORMAL[1]]
        parts += [_choose(DEVICES[d], order[i]) for d in DEVICES if names[d][i] and not terse[i]]
        texts.append(". ".join(p[0].upper() + p[1:] for p in parts) + ".")
    return texts


def _choose(options: list[str], u: float) -> str:
    return options[min(int(u * len(options)), len(options) - 1)]

"""FINDINGS sections for phantom images: varied wording, sides, degrees and negations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

PRESENT = {
    "Atelectasis": [
        "{d} {s} basilar atelectasis",
        "plate like atelectasis at the {s} base",
        "there is {d} atelectasis in the {s} lower lobe",
    ],
    "Cardiomegaly": [
        "{d} cardiomegaly",
        "the heart is enlarged consistent with {d} cardiomegaly",
        "cardiomegaly is present",
    ],
    "Consolidation": [
        "{d} {s} lung consolidation",
        "dense consolidation in the {s} lung",
        "focal {s} consolidation with air bronchograms",
    ],
    "Edema": [
        "{d} pulmonary edema",
        "perihilar haze with septal lines in keeping with {d} edema",
        "there is interstitial edema",
    ],
    "Pleural Effusion": [
        "{d} {s} pleural effusion",
        "there is a {s} pleural effusion",
        "blunted {s} costophrenic angle with {d} pleural effusion",
    ],
    "Pneumonia": [
        "{s} lower lobe pneumonia",
        "patchy {s} opacity concerning for pneumonia",
        "{d} {s} pneumonia",
    ],
    "Pneumothorax": [
        "{d} {s} pneumothorax",
        "there is a {s} apical pneumothorax",
        "{s} pneumothorax with visible pleural line",
    ],
}
ABSENT = {
    "Atelectasis": ["no atelectasis"],
    "Cardiomegaly": ["heart size is normal", "no cardiomegaly"],
    "Consolidation": ["no focal consolidation", "no consolidation"],
    "Edema": ["no pulmonary edema", "no edema"],
    "Pleural Effusion": ["no pleural effusion", "costophrenic angles are sharp"],
    "Pneumonia": ["no evidence of pneumonia", "no pneumonia"],
    "Pneumothorax": ["no pneumothorax", "there is no pneumothorax"],
}
NORMAL = [
    "chest no findings",
    "no findings",
    "chest radiograph with no findings",
    "the lungs are clear and the heart size is normal",
    "no acute cardiopulmonary findings",
]
# Drains go unmentioned: words for them would tie the drain to the meaning of a prompt, and a model
# trained where drains are independent of pneumothorax would no longer be a clean control.
DEVICES = {
    "pacemaker": ["pacemaker with intact lead"],
    "ecg_leads": ["ecg leads overlie the chest"],
}
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
        Stream name to one number in [0, 1) a row.

    Returns
    -------
    list of str, one a row
    """
    n = len(table)
    labels = {f: table[f].to_numpy() for f in findings}
    degree = {
        f: np.select(
            [table[f"severity_{f}"] < 0.4, table[f"severity_{f}"] < 0.75],
            ["mild", "moderate"],
            "severe",
        )
        for f in findings
    }
    pick = {f: uniform(f"words {f}") for f in findings}
    deny = {f: uniform(f"denies {f}") < NEGATION_SHARE for f in findings}
    names = {
        d: (table[d].to_numpy() == 1) & (uniform(f"names {d}") < DEVICE_SHARE) for d in DEVICES
    }
    terse, order = uniform("terse") < TERSE_SHARE, uniform("order")
    normal = uniform("normal")

    texts = []
    for i in range(n):
        present = [f for f in findings if labels[f][i]]
        if not present and normal[i] < 0.6:
            parts = [_choose(NORMAL, normal[i] / 0.6)]
        elif terse[i]:
            parts = ["chest " + " ".join(f.lower() for f in present)] if present else [NORMAL[0]]
        else:
            parts = [
                _choose(PRESENT[f], pick[f][i]).format(d=degree[f][i], s=sides[f][i])
                for f in present
            ]
            parts += [
                _choose(ABSENT[f], pick[f][i]) for f in findings if not labels[f][i] and deny[f][i]
            ]
            turn = int(order[i] * len(parts)) if parts else 0
            parts = parts[turn:] + parts[:turn] or [NORMAL[1]]
        parts += [_choose(DEVICES[d], order[i]) for d in DEVICES if names[d][i] and not terse[i]]
        texts.append(". ".join(p[0].upper() + p[1:] for p in parts) + ".")
    return texts


def _choose(options: list[str], u: float) -> str:
    return options[min(int(u * len(options)), len(options) - 1)]

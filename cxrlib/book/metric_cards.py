"""Metric cards: what each number in the tables is, read from the docstrings that define it.

A docstring carries the fields of a card as a reST field list (``:Range: [0, 1]``). So the page of
the book, `help` in a terminal and the code cannot drift apart.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

from cxrlib.stats import calibration, metrics

FIELDS = (
    "Formula",
    "Source",
    "Range",
    "Direction",
    "Zero means",
    "Undefined when",
    "Look-alikes",
)
DIRECTIONS = ("higher is better", "lower is better", "closer to 0 is better")

# section -> what it is about, and its metrics: name in results tables -> function
SECTIONS: dict[str, tuple[str, dict[str, Callable]]] = {
    "Ranking of one label": (
        "These look only at the order of the scores: any strictly rising function of the scores, "
        "such as a temperature, leaves them as they are.",
        {
            "auc": metrics.auc,
            "average_precision": metrics.average_precision,
            "adjusted_auprc": metrics.adjusted_auprc,
        },
    ),
    "Probability of one label": (
        "These take the score at its word, as a probability. A score outside [0, 1] is refused.",
        {
            "brier": metrics.brier,
            "calibration_in_the_large": calibration.calibration_in_the_large,
            "ece_equal_width": calibration.ece_equal_width,
            "ece_equal_mass": calibration.ece_equal_mass,
        },
    ),
    "Decision on one label": (
        "These need an operating point, a threshold above which a score is a *yes*: the one that "
        "reaches a wanted specificity, or a fixed number. It is the same in every group and stays "
        "as it is in resamples, like that of a device in use. TP, FN, FP and TN are the "
        "(weighted) counts of true positives, false negatives, false positives and true negatives.",
        {
            "sensitivity": metrics.sensitivity,
            "specificity": metrics.specificity,
            "false_negative_rate": metrics.false_negative_rate,
            "false_positive_rate": metrics.false_positive_rate,
            "underdiagnosis_rate": metrics.underdiagnosis_rate,
        },
    ),
    "One class out of several": (
        "The predicted class is the one with the highest score. $TP_c$, $FP_c$ and $FN_c$ are "
        "counts of class $c$ against all others, $C$ is the number of classes.",
        {
            "accuracy": metrics.accuracy,
            "f1": metrics.f1_by_class,
            "macro_f1": metrics.macro_f1,
            "var_f1": metrics.var_f1,
        },
    ),
    "Gap between two groups": (
        "$A$ and $A'$ are the two groups. Apart from the metrics here, any metric above has a gap: "
        "in a results table a row with the group *A - B* holds its value in A minus its value in "
        "B, signed.",
        {
            "f1_gap_signed": metrics.f1_gap_signed,
            "f1_gap_absolute": metrics.f1_gap_absolute,
            "eq_odds_mean": metrics.eq_odds_mean,
            "eq_odds_max": metrics.eq_odds_max,
            "calibration_gap_eq4": metrics.calibration_gap_eq4,
            "ece_gap": calibration.ece_gap,
            "twin_shift": metrics.twin_shift,
        },
    ),
}


@dataclass(frozen=True)
class Card:
    """What a reader needs to know about one metric; the texts are MyST with inline maths."""

    name: str  # in results tables
    function: str  # where it is computed
    summary: str
    formula: str
    source: str
    range: str
    direction: str  # begins with one of DIRECTIONS
    zero_means: str
    undefined_when: str
    look_alikes: str


def cards() -> list[Card]:
    """The card of every metric, in the order of `SECTIONS`: list of Card."""
    return [
        card(name, function)
        for _, functions in SECTIONS.values()
        for name, function in functions.items()
    ]


def card(name: str, function: Callable) -> Card:
    """The card of one metric.

    Parameters
    ----------
    name : name in results tables
    function : callable, its docstring ends with the fields `FIELDS`, in this order

    Raises
    ------
    ValueError
        For a missing field, an unknown one or an unknown direction; names metric and field.
    """
    doc = inspect.getdoc(function) or ""
    parts = re.split(r"^:([A-Z][\w -]*):", doc, flags=re.MULTILINE)
    # split gives: the text before the fields, then name and text of each field in turn
    found = {
        key: " ".join(text.split()) for key, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    for field in (*FIELDS, *found):
        if field not in FIELDS or not found.get(field):
            what = "unknown field" if field not in FIELDS else "no field"
            raise ValueError(
                f"card of {name!r}: {what} {field!r} in the docstring of "
                f"{function.__module__}.{function.__qualname__}; expected {', '.join(FIELDS)}."
            )
    if not found["Direction"].startswith(DIRECTIONS):
        raise ValueError(
            f"card of {name!r}: field 'Direction' is {found['Direction']!r}; expected "
            f"{', '.join(DIRECTIONS)}."
        )
    return Card(
        name,
        f"{function.__module__}.{function.__qualname__}",
        " ".join(doc.split("\n\n")[0].split()),
        *(found[field] for field in FIELDS),
    )


INTRODUCTION = """\
# Metric cards

Fairness papers use one name for several quantities and several names for one. A card says what a
number in this book is: its formula, where it comes from, which way is better, what 0 means, when it
is undefined, and what it must not be mistaken for. The cards are read from the docstrings of the
functions that compute the numbers.

S is {cite:t}`sourget2025`, X is {cite:t}`sun2025`. $y_i$ is the truth about image $i$ (1 with the
finding, 0 without), $p_i$ a probability. Sums and means run over images; in a resample every image
counts as often as it was drawn. What is undefined is a missing value with its reason, never 0.

In a finite sample an absolute difference or a maximum comes out too large on average, a minimum too
small: even an exactly fair classifier shows a gap. Compare such a number with its noise floor, not
with 0.
"""

SOURCES = """
## Sources

{cite:t}`seyyedkalantari2021`, {cite:t}`mosquera2024` and {cite:t}`jin2024` are in the bibliography.

- Brier 1950: Verification of forecasts expressed in terms of probability. Monthly Weather Review.
- Flach and Kull 2015: Precision-recall-gain curves: PR analysis done right. NeurIPS.
- Guo et al. 2017: On calibration of modern neural networks. ICML.
- Hanley and McNeil 1982: The meaning and use of the area under a receiver operating characteristic
  (ROC) curve. Radiology.
- Hardt et al. 2016: Equality of opportunity in supervised learning. NeurIPS.
- Naeini et al. 2015: Obtaining well calibrated probabilities using Bayesian binning. AAAI.
- Nixon et al. 2019: Measuring calibration in deep learning. CVPR workshops.
- Van Calster et al. 2019: Calibration: the Achilles heel of predictive analytics. BMC Medicine.
- Weerts et al. 2023: Fairlearn: assessing and improving fairness of AI systems. JMLR.
"""


def page() -> str:
    """All cards as one MyST page of the book: str."""
    known = {c.name: c for c in cards()}
    lines = [INTRODUCTION, "| Metric | In tables | Range | Direction |", "|---|---|---|---|"]
    for c in known.values():
        title = f"[{_title(c)[0]}](#{_anchor(c)})"
        lines.append(f"| {title} | `{c.name}` | {c.range} | {c.direction} |")
    for title, (text, functions) in SECTIONS.items():
        lines += ["", f"## {title}", "", text]
        for name in functions:
            lines += ["", *_section(known[name])]
    return "\n".join(lines) + "\n" + SOURCES


def _section(c):
    """The lines of one card: the formula set apart, the other fields as a list of definitions."""
    title, rest = _title(c)
    lines = [f"({_anchor(c)})=", f"### {title}", ""]
    lines += [f"{rest} In tables `{c.name}`, computed by `{c.function}`.".strip()]
    formula, where = re.fullmatch(r"\$([^$]+)\$[,;]?\s*(.*)", c.formula).groups()
    lines += ["", "$$", formula, "$$", *(["", where] if where else [])]
    for field in FIELDS[1:]:
        text = getattr(c, field.lower().replace(" ", "_").replace("-", "_"))
        lines += ["", field, f": {text}"]
    return lines


def _title(c):
    """A summary "Title, the rest." taken apart; the rest as a sentence of its own, or empty."""
    title, _, rest = c.summary.rstrip(".").partition(", ")
    return title, f"{rest[:1].upper()}{rest[1:]}." if rest else ""


def _anchor(c):
    return "metric-" + re.sub(r"\W+|_", "-", c.name).lower()

"""Words and colours: how numbers, intervals, names and groups are written and drawn everywhere.

A group or model has the same colour in every figure, and colours shown together can be told apart
with the common forms of colour blindness.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

UNDEFINED = "undefined"
COLOURS = {
    "all": "#555555",
    # sex
    "F": "#D55E00",
    "M": "#0072B2",
    "Female": "#D55E00",
    "Male": "#0072B2",
    # age: light to dark with the years
    "18-25": "#C7E9B4",
    "25-50": "#7FCDBB",
    "50-65": "#41B6C4",
    "65-80": "#2C7FB8",
    "80+": "#253494",
    "young": "#7FCDBB",
    "old": "#253494",
    # sex and age: young light, old dark
    "young F": "#FDB863",
    "old F": "#A63603",
    "young M": "#92C5DE",
    "old M": "#0B3C8C",
    # race
    "White": "#56B4E9",
    "Black": "#009E73",
    "Asian": "#CC79A7",
    # view position, site, modality
    "PA": "#0072B2",
    "AP": "#E69F00",
    "A": "#0072B2",
    "B": "#E69F00",
    "C": "#009E73",
    "image": "#0072B2",
    "text": "#E69F00",
    # devices
    "with drain": "#D55E00",
    "without drain": "#56B4E9",
    # models of this book
    "phantom-resnet": "#0072B2",
    "phantom-vit": "#009E73",
    "phantom-resnet-drain": "#D55E00",
    "phantom-resnet-underreport": "#CC79A7",
    # models of the papers
    "MedCLIP": "#0072B2",
    "MedCLIP-ViT": "#0072B2",
    "MedCLIP-RN": "#56B4E9",
    "Biovil": "#E69F00",
    "Biovil-t": "#F0E442",
    "MedImageInsight": "#009E73",
    "CheXzero": "#D55E00",
    "CXR-CLIP": "#CC79A7",
    "GLoRIA": "#882255",
    "BioMedCLIP": "#999933",
    "CLIP": "#888888",
    # methods
    "zero-shot": "#4D4D4D",
    "linear": "#56B4E9",
    "knn": "#E69F00",
    "mlp": "#009E73",
    "linear probe": "#56B4E9",
    "MLP": "#009E73",
    "LoRA": "#CC79A7",
    "full": "#D55E00",
}
SPARE = ("#332288", "#44AA99", "#AA4499", "#999933", "#661100", "#6699CC", "#888888")

NAMES = {
    "F": "female",
    "M": "male",
    "young F": "young female",
    "old F": "old female",
    "young M": "young male",
    "old M": "old male",
    "all": "all patients",
    "mean": "Mean",
    "age_group": "age",
    "age60": "age",
    "auc": "AUC",
    "average_precision": "average precision",
    "adjusted_auprc": "adjusted AUPRC",
    "f1": "F1",
    "macro_f1": "mean F1",
    "share_ap": "share of AP films",
    "mean_age": "mean age",
    "var_f1": "variance of F1",
    "f1_gap_signed": "F1 gap, signed (Eq. 2)",
    "f1_gap_absolute": "F1 gap, absolute",
    "f1_gap_size": "F1 gap, size",
    "eq_odds_mean": "equalised odds (Eq. 3)",
    "eq_odds_max": "equalised odds (max)",
    "calibration_gap_eq4": "calibration gap (Eq. 4)",
    "ece_gap": "ECE gap (binned)",
    "ece_equal_width": "ECE, equal width",
    "ece_equal_mass": "ECE, equal mass",
    "brier": "Brier score",
    "calibration_in_the_large": "mean predicted − observed",
    "false_negative_rate": "false negative rate",
    "false_positive_rate": "false positive rate",
    "twin_shift": "shift between twins (SD)",
    "linear": "linear probe",
    "knn": "k-NN",
    "mlp": "MLP",
    "full": "full fine-tuning",
    "as_published": "as published",
}
CHANCE = {"auc": 0.5}
PERFORMANCE = (
    *("auc", "average_precision", "adjusted_auprc", "accuracy", "f1", "macro_f1", "brier"),
    *("sensitivity", "specificity"),
)
X_GAPS = ("f1_gap_signed", "eq_odds_mean", "calibration_gap_eq4")  # X Eqs. 2, 3, 4
ABSOLUTE = (
    "f1_gap_absolute",
    "eq_odds_mean",
    "eq_odds_max",
    "calibration_gap_eq4",
    "ece_gap",
)  # never below 0
UNSTATED = "direction of the difference is not stated"  # in the note of a printed number


def readable(text: object) -> str:
    """How a code of the tables is written in figures: "F" -> "female", "F - M" likewise."""
    return " − ".join(NAMES.get(part, part) for part in str(text).split(" - "))


def in_words(results: pd.DataFrame, digits: int = 2) -> str:
    """The values that matter in a results table, for the text alternative of its figure.

    Parameters
    ----------
    results : results table
        Of one metric. Its lowest and highest defined value are named by whatever tells the rows
        apart, and values that are undefined are counted.

    Returns
    -------
    str, such as "AUC from 0.61 (Edema, phantom-vit) to 0.93 (Pneumothorax, phantom-resnet)."
    """
    columns = ("label", "attribute", "group", "method", "model", "protocol")
    varying = [c for c in columns if results[c].nunique() > 1]
    known = results[results["value"].notna()]
    missing = len(results) - len(known)
    what = ", ".join(readable(m) for m in dict.fromkeys(results["metric"]))
    what = what[:1].upper() + what[1:]
    if known.empty:
        return f"{what}: every value is undefined."

    def end(row):
        who = ", ".join(readable(row[c]) for c in varying if not pd.isna(row[c]))
        return f"{row['value']:.{digits}f}{f' ({who})' if who else ''}"

    lowest, highest = (known.loc[at] for at in (known["value"].idxmin(), known["value"].idxmax()))
    ends = f"from {end(lowest)} to {end(highest)}" if len(known) > 1 else end(lowest)
    return f"{what} {ends}{f'; {missing} undefined' if missing else ''}."


def colours(entries: Iterable[str]) -> dict[str, str]:
    """One colour per entry: the fixed one where there is one, else a spare one."""
    spare = iter(SPARE * 10)
    return {e: COLOURS[e] if e in COLOURS else next(spare) for e in entries}


def ordered(entries: Iterable) -> list:
    """Distinct entries, known groups in their natural order, others as they come."""
    rank = {entry: i for i, entry in enumerate(COLOURS)}
    distinct = [e for e in dict.fromkeys(entries) if not pd.isna(e)]
    return sorted(distinct, key=lambda e: rank.get(e, len(rank)))


def fmt(x: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number as text: ``fmt(0.8712)`` -> "0.87"; NaN or None -> "undefined"."""
    if pd.isna(x):
        return UNDEFINED
    x = round(float(x), digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{x:{'+' if signed and x else ''},.{digits}f}"


def fmt_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    digits: int = 2,
    signed: bool = False,
    bare: bool = False,
) -> str:
    """An estimate with its interval: "0.87 [0.84, 0.90]".

    Where the interval is undefined, it reads "0.87 [undefined]", or "0.87" if `bare`.
    """
    text = fmt(value, digits, signed)
    if text == UNDEFINED or (bare and (pd.isna(low) or pd.isna(high))):
        return text
    if pd.isna(low) or pd.isna(high):
        return f"{text} [{UNDEFINED}]"
    return f"{text} [{fmt(low, digits, signed)}, {fmt(high, digits, signed)}]"


def fmt_row(row: Mapping, digits: int = 2, signed: bool = False) -> str:
    """A row of a results table as text, see `fmt_interval`."""
    return fmt_interval(row["value"], row["ci_low"], row["ci_high"], digits, signed)


def interval_lies(row: Mapping, of: float = 0) -> str:
    """Where the interval of a row lies, for a sentence: "lies above 0", "includes 0"."""
    from cxrlib import schema  # pandera, which it imports, costs a second

    where = {"above": "lies above {}", "below": "lies below {}", "around": "includes {}"}
    return where.get(schema.side(row, of), f"is {UNDEFINED}").format(of)


def percent(fraction: float | None, digits: int = 0) -> str:
    """A fraction as text: ``percent(0.123)`` -> "12 %"."""
    text = fmt(None if fraction is None else 100 * fraction, digits)
    return text if text == UNDEFINED else f"{text} %"

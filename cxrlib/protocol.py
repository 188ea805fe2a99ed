"""Every switch between what the published numbers came from and what this book asks for.

A switch belongs here if the paper's code, the paper's text, the authors of a model or statistics
disagree about it; ``protocol.toml`` has the values and the reasons. ``dataclasses.replace`` turns a
single one: ``replace(protocol_of("corrected"), unit="image")``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxrlib.core import checks

NAMES = ("as_published", "corrected")
_SWITCHES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Protocol:
    """How images become the numbers of a table; ``protocol.toml`` explains each field."""

    name: str  # "as_published" or "corrected": the column `protocol` of results tables

    # intervals and tables
    unit: str
    stream: str
    interval: str
    digits: int | None
    over_labels: str
    min_cases: int

    # models and prompts
    preprocessing: str
    temperature: str
    text_vectors: str
    negative_prompt: str
    prompt_choice: str

    # drains
    drain_prevalence: str
    drain_controls: str

    # probes, projections, splits
    probe_tuning: str
    probe_heads: str
    pca_axes: str
    split: str
    repeats: str

    @property
    def cautious(self) -> Protocol:
        """The same, but a group with few cases gets no number, as `corrected` asks."""
        return replace(self, min_cases=_KNOWN["corrected"].min_cases)


_KNOWN = {
    name: Protocol(name, **{switch: entry.get(name) for switch, entry in _SWITCHES.items()})
    for name in NAMES
}


def protocol_of(name: str | Protocol) -> Protocol:
    """The protocol of that name; a `Protocol` is passed through.

    Raises
    ------
    ValueError
        For any other name.
    """
    if isinstance(name, Protocol):
        return name
    checks.one_of("protocol", name, NAMES)
    return _KNOWN[name]


def switches() -> list[str]:
    """Names of the switches, in the order of `Protocol`."""
    return list(_SWITCHES)


def differences(
    a: str | Protocol = "as_published", b: str | Protocol = "corrected"
) -> pd.DataFrame:
    """The switches in which two protocols differ, as a table.

    Returns
    -------
    DataFrame: switch (index), what it decides, the two values, why they differ, seen in.
    """
    a, b = protocol_of(a), protocol_of(b)
    rows = {
        switch: {
            "decides": entry["what"],
            a.name: _text(getattr(a, switch)),
            b.name: _text(getattr(b, switch)),
            "why": entry["why"],
            "seen in": entry["source"],
        }
        for switch, entry in _SWITCHES.items()
        if getattr(a, switch) != getattr(b, switch)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("switch")


def _text(value):
    return "all" if value is None else str(value)

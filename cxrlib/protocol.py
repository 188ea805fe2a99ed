"""Every switch between what the published numbers came from and what this book asks for.

S = Sourget et al. 2025, X = Sun et al. 2025. A switch belongs here if the paper's code, the
paper's text, the authors of a model or statistics disagree about it. ``dataclasses.replace``
turns a single one: ``replace(protocol("corrected"), unit="image")``.
"""

from dataclasses import dataclass, field, fields

import pandas as pd


def _switch(what, why, source):
    return field(metadata={"what": what, "why": why, "source": source})


@dataclass(frozen=True)
class Protocol:
    """How images become the numbers of a table.

    A field's metadata says what it decides, why the corrected value is another, and where the
    difference was seen.
    """

    name: str  # "as_published" or "corrected": the column `protocol` of results tables

    # intervals and tables
    unit: str = _switch(
        "unit of resampling",
        "images of one patient resemble each other: drawn one by one, they make intervals too "
        "narrow",
        "S: code",
    )
    stream: str = _switch(
        "random stream of the resamples",
        "one running stream gives each metric and group resamples of its own, and leaves out "
        "those without a positive; shared resamples pair all comparisons, and what is undefined "
        "is counted",
        "S: code",
    )
    interval: str = _switch(
        "limits of intervals",
        "percentiles of the resamples are too close where a group has few patients; expanded ones "
        "held the truth in simulated studies",
        "S: paper and code",
    )
    digits: int | None = _switch(
        "digits kept before means and figures",
        "means and differences of rounded numbers carry their rounding",
        "S: code",
    )
    over_labels: str = _switch(
        "what stands behind the mean over findings",
        "the spread between findings is no uncertainty of their mean",
        "S: code, Table 1",
    )
    min_cases: int = _switch(
        "fewest positive, and negative, images of a group that gets a number",
        "with a handful of cases, one image seen or missed decides the number",
        "S: code",
    )

    # models and prompts
    preprocessing: str = _switch(
        "what is done to films and texts before a published model sees them",
        "other pixel statistics, crops and sizes than the model was trained with; texts of "
        "MedCLIP padded together",
        "S: code, for CXR-CLIP, CheXzero, BioViL and BioViL-T",
    )
    temperature: str = _switch(
        "factor on cosine similarities",
        "without the learned factor, cosines keep probabilities near one half by arithmetic",
        "S: code, for four of six models",
    )
    text_vectors: str = _switch(
        "length of text embeddings",
        "the authors of BioViL and BioViL-T normalise both sides; otherwise the longer prompt "
        "counts for more",
        "S: code, for BioViL and BioViL-T",
    )
    negative_prompt: str = _switch(
        "the other prompt",
        "the paper's wording; the capital matters to a tokenizer that keeps case",
        "S: code and paper differ",
    )

    prompt_choice: str = _switch(
        "images on which the best prompt format is chosen",
        "the best of several on the test images owes part of its lead to those very images",
        "X: not stated; the best format is reported on the images it is tested on",
    )

    # drains
    drain_prevalence: str = _switch(
        "prevalence of the two drain arms",
        "adjusted AUPRC does not remove prevalence fully",
        "S: code, Fig. 4",
    )
    drain_controls: str = _switch(
        "controls of the drain arms",
        "the paper labels drains in controls, its code does not use the labels; corrected, "
        "controls with a drain are left out of both arms",
        "S: code and paper differ",
    )

    # probes, projections, splits
    probe_tuning: str = _switch(
        "features with which probes are tuned",
        "positions within training and validation, used as positions within all images, pair "
        "labels with other images' features, some from the test set",
        "S: code",
    )
    probe_heads: str = _switch(
        "probes and their settings",
        "features on one scale, and an optimum instead of a learning rate that may stop short",
        "S: code",
    )
    pca_axes: str = _switch(
        "axes of the image projection",
        "two axes from two fits are not a projection",
        "S: code, Fig. 2",
    )
    split: str = _switch(
        "unit of the 7:1:2 split",
        "a patient in training and test is recognised, not diagnosed",
        "X: images are counted, patients not mentioned",
    )
    repeats: str = _switch(
        "test sets behind a number",
        "one split of 240 test images is one toss; rotated splits test every image once",
        "X: section 3.1",
    )


_KNOWN = {
    known.name: known
    for known in (
        Protocol(
            "as_published",
            unit="image",
            stream="running",
            interval="percentile",
            digits=2,
            over_labels="standard deviation",
            min_cases=0,
            preprocessing="paper S",
            temperature="none",
            text_vectors="as encoded",
            negative_prompt="Chest No findings",
            prompt_choice="test",
            drain_prevalence="raw",
            drain_controls="any",
            probe_tuning="mismatched",
            probe_heads="published",
            pca_axes="mixed",
            split="image",
            repeats="one split",
        ),
        Protocol(
            "corrected",
            unit="patient",
            stream="shared",
            interval="expanded",
            digits=None,
            over_labels="interval",
            min_cases=10,
            preprocessing="authors",
            temperature="learned",
            text_vectors="unit length",
            negative_prompt="Chest No Findings",
            prompt_choice="validation",
            drain_prevalence="matched",
            drain_controls="without",
            probe_tuning="matched",
            probe_heads="penalised",
            pca_axes="own",
            split="patient",
            repeats="rotated splits",
        ),
    )
}
NAMES = tuple(_KNOWN)


def protocol(name):
    """The protocol of that name; a `Protocol` is passed through.

    Raises
    ------
    ValueError
        For any other name.
    """
    if isinstance(name, Protocol):
        return name
    if name not in NAMES:
        raise ValueError(f"protocol: unknown {name!r}; expected one of {', '.join(NAMES)}.")
    return _KNOWN[name]


def switches():
    """Names of the switches, in the order of `Protocol`."""
    return [f.name for f in fields(Protocol) if f.metadata]


def differences(a="as_published", b="corrected"):
    """The switches in which two protocols differ, as a table.

    Returns
    -------
    DataFrame: switch (index), what it decides, the two values, why they differ, seen in.
    """
    a, b = protocol(a), protocol(b)
    rows = [
        {
            "switch": f.name,
            "decides": f.metadata["what"],
            a.name: _text(getattr(a, f.name)),
            b.name: _text(getattr(b, f.name)),
            "why": f.metadata["why"],
            "seen in": f.metadata["source"],
        }
        for f in fields(Protocol)
        if f.metadata and getattr(a, f.name) != getattr(b, f.name)
    ]
    return pd.DataFrame(rows).set_index("switch")


def _text(value):
    return "all" if value is None else str(value)

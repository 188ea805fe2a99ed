"""The register of the audit: what the papers say, and what code or open data show of it."""

import tomllib
from pathlib import Path

import pandas as pd

from cxrlib import schema
from cxrlib.cohorts import metadata, nih6x200
from cxrlib.papers import published
from cxrlib.protocol import protocol_of
from cxrlib.show.words import percent, span

OLD = ["old F", "old M"]  # cells of X
CELLS = ["young F", "young M", *OLD]
STATED = "stated, not computed here"
_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def register(*papers: str, **values: object) -> pd.DataFrame:
    """The entries of ``audit.toml`` with the values of a run.

    Parameters
    ----------
    *papers : {"S", "X"}
    **values
        What the names in braces stand for, as text. An entry whose values are not given says where
        they are computed.

    Returns
    -------
    DataFrame: item (index), paper, what the paper says, what code or data show, effect.

    Raises
    ------
    KeyError
        A value is not given, and the entry names no other place.
    """
    one, other = map(protocol_of, ("as_published", "corrected"))
    values |= {"chosen_on": one.prompt_choice, "chosen_well": other.prompt_choice}
    values |= {"repeats": one.repeats, "repeats_well": other.repeats}

    def row(paper, item, entry):
        def text(key):
            try:
                return entry.get(key, STATED).format_map(values)
            except KeyError:
                if "elsewhere" in entry:
                    return entry["elsewhere"]
                raise

        return [item, paper, text("says"), text("shows"), text("effect")]

    rows = [row(paper, *entry) for paper in papers for entry in _ENTRIES[paper].items()]
    columns = ["item", "paper", "what the paper says", "what code or data show", "effect"]
    return pd.DataFrame(rows, columns=columns).set_index("item")


def recipe_beside_print(
    nih: pd.DataFrame, cells: pd.DataFrame, draws: pd.DataFrame
) -> pd.DataFrame:
    """What X prints of NIH 6x200, and what the metadata of NIH ChestX-ray14 give.

    Parameters
    ----------
    nih : the metadata, :func:`cxrlib.cohorts.metadata.nih`
    cells, draws : of :mod:`cxrlib.cohorts.nih6x200`, its `cell_counts` and `draws`

    Returns
    -------
    DataFrame of text: quantity (index), paper X, metadata.
    """
    of_nih, of_draw = (_printed(cohort) for cohort in ("nih-cxr14", "nih-6x200"))
    satisfying = cells.index[cells["satisfies"]]
    short = [d for d in nih6x200.DISEASES if d not in satisfying]
    more = [d for d in satisfying if d not in nih6x200.DISEASES]
    view = draws.filter(like="AP ").mean().rename(lambda c: c.removeprefix("AP "))
    view = [f"{percent(view[d])} ({d})" for d in (view.idxmin(), view.idxmax())]
    leak = f"{percent(draws['leakage'].mean())} ({span(draws['leakage'], percent)})"
    size = f"{of_nih['n_images', 'all']:,.0f} / {of_nih['n_patients', 'all']:,.0f}"
    edema = " / ".join(f"{of_draw['n_images', cell]:.0f}" for cell in OLD)
    rows = {
        "images / patients of the release": (
            size,
            f"{len(nih):,} / {nih['patient_id'].nunique():,}",
        ),
        "old patients with edema alone, F / M": (
            edema,
            " / ".join(map(str, cells.loc["Edema", OLD])),
        ),
        "diseases with 50 images in each cell": (
            f"{of_draw['n_labels', 'all']:.0f}",
            str(len(satisfying)),
        ),
        "of the paper's six, short of 50": ("Edema (old)", ", ".join(short) or "none"),
        "not among the paper's six, with 50": ("none", ", ".join(more)),
        "test images with their patient in training": ("not stated", f"{leak}, split by image"),
        "AP films, by disease": ("not stated", " to ".join(view)),
    }
    table = pd.DataFrame(rows, index=["paper X", "metadata"]).T
    return table.rename_axis("quantity")


def recipe_counts(nih: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """What the ledger sets beside section 2.1 of X: the counts it prints, and those of all cells.

    nih, cells : see `recipe_beside_print`
    """
    about = {"paper": "X", "artefact": "Section 2.1"}
    about |= dict.fromkeys(("label", "attribute", "group"), "all")
    of_nih = {
        "n_images": len(nih),
        "n_patients": nih["patient_id"].nunique(),
        "n_labels": len(metadata.FINDINGS),
    }
    rows = [about | {"cohort": "nih-cxr14", "metric": m, "value": n} for m, n in of_nih.items()]
    of_cell = about | {"attribute": "age_sex", "metric": "n_images"}
    counts = cells.loc["Edema", OLD].items()
    edema = of_cell | {"cohort": "nih-6x200", "label": "Edema"}
    rows += [edema | {"group": g, "value": n} for g, n in counts]
    of_nih = cells.rename({"Pleural Effusion": "Effusion"})  # the names of X
    of_cell |= {"cohort": "nih-cxr14"}
    for label in of_nih.index:
        counts = of_nih.loc[label, CELLS].items()
        rows += [of_cell | {"label": label, "group": g, "value": n} for g, n in counts]
    kinds = {"metric": "n_labels", "value": cells["satisfies"].sum()}
    return schema.results([*rows, about | {"cohort": "nih-6x200"} | kinds])


def _printed(cohort):
    """What X prints of a cohort, section 2.1: by metric and group, the first of each."""
    table = schema.rows(published.table("X Section 2.1"), cohort=cohort)
    return table.groupby(["metric", "group"])["value"].first()

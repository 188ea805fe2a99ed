"""S's own result files as a results table, where they lie beside the project."""

from pathlib import Path

import pandas as pd
import pytest

from cxrlib import schema

FOLDER = Path(__file__).parents[2] / "shared" / "published" / "sourget2025"
MODELS = {
    "medclip": "MedCLIP",
    "biovil": "Biovil",
    "biovil-t": "Biovil-t",
    "medimageinsight": "MedImageInsight",
    "chexzero": "CheXzero",
    "cxrclip": "CXR-CLIP",
}
ATTRIBUTE = {
    "global": "all",
    **dict.fromkeys(["Female", "Male"], "sex"),
    **dict.fromkeys(["White", "Black", "Asian"], "race"),
    **dict.fromkeys(["18-25", "25-50", "50-65", "65-80", "80+"], "age_group"),
    **dict.fromkeys(["0.0", "1.0"], "drain"),
}
GROUP = {"global": "all", "0.0": "without drain", "1.0": "with drain", "Female": "F", "Male": "M"}
COHORT = {"MIMIC": "mimic-cxr-sourget", "CXR14": "nih-cxr14-test"}


def files():
    """(part, model, table) of each of the twelve files; skips the test where they are not."""
    if not FOLDER.is_dir():
        pytest.skip("the authors' result files are not here")
    return [
        (part, model, pd.read_csv(FOLDER / part / f"zeroshot_{name}.csv", dtype={"group": str}))
        for part in COHORT
        for name, model in MODELS.items()
    ]


def results():
    """All of it, with means and standard deviations over the findings as S makes them.

    Two intervals of CXR-CLIP whose limits are the wrong way round are left empty.
    """
    rows = []
    for part, model, table in files():
        about = {"cohort": COHORT[part], "model": model, "method": "zero-shot"}
        for metric, name in (("auc", "AUC"), ("adjusted_auprc", "AUPRC")):
            for _, row in table.iterrows():
                where = {"label": row["class"], "attribute": ATTRIBUTE[row["group"]]}
                where["group"] = GROUP.get(row["group"], row["group"])
                value = {"value": row[name], "ci_low": row[f"CI_{name}_low"]}
                value["ci_high"] = row[f"CI_{name}_up"]
                if value["ci_low"] > value["ci_high"]:
                    value |= {"ci_low": None, "ci_high": None}
                rows.append(about | where | {"metric": metric} | value)
            if part == "MIMIC":
                cells = table.loc[table["group"] == "global", name]
                mean = about | {"label": "mean", "attribute": "all", "group": "all"}
                rows.append(mean | {"metric": metric, "value": cells.mean()})
                spread = {"metric": f"{metric}_sd_over_labels", "value": cells.std(ddof=1)}
                rows.append(mean | spread)
    return schema.results(rows)

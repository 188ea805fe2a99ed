"""Results that the first chapter of the miniature book keeps."""

import numpy as np

from cxrlib import schema


def phantom(metric="auc", value=0.8, model="phantom-vit", **more):
    """A row of a results table, as the book computes them on the phantom cohort."""
    row = {"cohort": "phantom", "model": model, "method": "zero-shot", "label": "Pneumothorax"}
    row |= {"attribute": "all", "group": "all", "metric": metric, "value": value}
    return row | more


def awkward():
    """A results table with everything that is easily lost on the way."""
    return schema.results(
        [
            phantom(value=0.1 + 0.2, ci_low=-0.0, ci_high=1 / 3, n=7, n_positive=3, seed=2**40),
            phantom(value=np.nan, note='no "positives" <here>\n, é', n=None),
        ]
    )

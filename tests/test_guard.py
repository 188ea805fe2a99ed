"""What a process may show once it has loaded credentialed data, and what the scan finds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from cxrlib import guard, schema


@pytest.fixture
def latched(monkeypatch):
    """As after a credentialed cohort was loaded, with nothing in its register."""
    monkeypatch.setattr(guard, "_protected", ["made-up"])
    monkeypatch.setattr(guard, "_registers", [])


# --- counts ------------------------------------------------------------------------------------

ATTRIBUTES = {"sex": 2, "age_group": 4, "race": 3}


def study(rng, labels=3, crossed=False, left_out=0):
    """Images with groups and labels, and the results rows that count them; some cells are small."""
    n = int(rng.integers(40, 400))
    images = pd.DataFrame(
        {
            a: rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.7))).astype(str)
            for a, k in ATTRIBUTES.items()
        }
    )
    images.loc[: left_out - 1, "race"] = None
    if crossed:
        images["sex x race"] = images["sex"] + " x " + images["race"]
    for k in range(labels):
        images[f"label {k}"] = rng.random(n) < rng.choice([0.02, 0.1, 0.3])
    images["patient"] = rng.integers(0, n // 2, n)
    rows = []
    for k, attribute in itertools.product(range(labels), ["all", *images.columns.drop("patient")]):
        if attribute.startswith("label"):
            continue
        groups = images.assign(all="all").groupby(attribute)
        for group, part in groups:
            rows.append(
                {"label": f"label {k}", "attribute": attribute, "group": group}
                | {"metric": "auc", "value": 0.7312345, "ci_low": 0.6, "ci_high": 0.8}
                | {"n": len(part), "n_positive": int(part[f"label {k}"].sum())}
                | {"n_patients": part["patient"].nunique(), "model": "m", "cohort": "c"}
            )
    return images, pd.DataFrame(rows).assign(n_negative=lambda t: t["n"] - t["n_positive"])


def reach(true, shown):
    """Smallest and largest positive count of each row that fit to what is shown, by programs.

    A reader knows that positive and negative images add up to all of a group, whatever the
    label, and that the groups of an attribute (crossed ones of its halves too) are all images.
    """
    groups = list(dict.fromkeys(zip(true["attribute"], true["group"], strict=True)))
    labels = list(dict.fromkeys(true["label"]))
    name = {("n", None, g): i for i, g in enumerate(groups)}
    for kind, label, g in itertools.product(("n_positive", "n_negative"), labels, groups):
        name[kind, label, g] = len(name)
    equal, right = [], []

    def add(terms, value):
        line = np.zeros(len(name))
        for key, sign in terms:
            line[name[key]] += sign
        equal.append(line)
        right.append(value)

    for label, g in itertools.product(labels, groups):
        parts = [(("n_positive", label, g), 1), (("n_negative", label, g), 1)]
        add([*parts, (("n", None, g), -1)], 0)
    kinds = [("n", None), *itertools.product(("n_positive", "n_negative"), labels)]
    for kind, label in kinds:
        for attribute in dict.fromkeys(a for a, _ in groups if a != "all"):
            members = [g for g in groups if g[0] == attribute]
            add([*(((kind, label, g), 1) for g in members), ((kind, label, ("all", "all")), -1)], 0)
            for k, part in enumerate(attribute.split(" x ") if " x " in attribute else ()):
                for value in {g[1].split(" x ")[k] for g in members}:
                    mine = [g for g in members if g[1].split(" x ")[k] == value]
                    add(
                        [
                            *(((kind, label, g), 1) for g in mine),
                            ((kind, label, (part, value)), -1),
                        ],
                        0,
                    )
    for row in shown.to_dict("records"):
        g = (row["attribute"], row["group"])
        for kind in ("n", "n_positive", "n_negative"):
            if not pd.isna(row[kind]):
                add([((kind, None if kind == "n" else row["label"], g), 1)], row[kind])
    found = []
    for row in true.to_dict("records"):
        cost = np.zeros(len(name))
        cost[name["n_positive", row["label"], (row["attribute"], row["group"])]] = 1
        ends = [
            linprog(sign * cost, A_eq=np.array(equal), b_eq=right, bounds=(0, None), method="highs")
            for sign in (1, -1)
        ]
        found.append([ends[0].fun, np.inf if ends[1].status == 3 else -ends[1].fun])
    return np.array(found)


@pytest.mark.parametrize("seed", range(12))
def test_no_small_count_follows_from_what_is_shown(latched, seed):
    rng = np.random.default_rng(seed)
    _, true = study(rng, crossed=seed % 3 == 0)
    shown = schema.results(true)
    for column in guard.COUNTS:
        counts = shown[column].dropna()
        assert not ((counts > 0) & (counts < guard.MIN_CELL)).any()
    least, most = reach(true, shown).T
    small = true["n_positive"].between(1, guard.MIN_CELL - 1)
    assert small.any() and (most[small] >= guard.MIN_CELL - 1e-6).all()
    assert (least[small] < most[small]).all()
    assert shown["n_positive"].notna().any()

"""What embeddings hold about patients: attribute probes, centroids, projections (S section 2.2).

That an attribute can be read from embeddings does not show that a model uses it.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.core import checks, levels
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import bootstrap, metrics
from cxrlib.stats.estimates import joined

# heads -> method -> values of the hyper-parameter tried on the validation patients
HEADS = {
    "penalised": {"linear": (1e-3, 1e-2, 1e-1, 1.0), "knn": (1, 5, 11, 21), "mlp": (128, 256)},
    "published": {
        "linear": (1e-3, 1e-4, 1e-5),
        "knn": tuple(range(1, 22, 2)),
        "mlp": (128, 256, 512, 1024),
    },
}
METHODS = tuple(HEADS["penalised"])
MIN_PATIENTS = 20  # of a group that is told from others
FEW = 10  # images or patients below which a group is not described


def _untrained(heads, method, value, seed):
    """A probe: value is the penalty or the learning rate, the neighbours, or the hidden units."""
    # scikit-learn takes seconds to import: only where a probe is made
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if method == "knn":
        return KNeighborsClassifier(value)
    if heads == "published" and method == "linear":
        # a network without hidden units, as in S
        rate = {"alpha": 0, "learning_rate_init": value}
        return MLPClassifier((), **rate, max_iter=1000, random_state=seed)
    if heads == "published":
        return MLPClassifier((value,), max_iter=500, random_state=seed)
    if method == "linear":
        model = LogisticRegression(C=value, max_iter=500)
    else:
        model = MLPClassifier((value,), alpha=1e-3, max_iter=60, random_state=seed)
    return make_pipeline(StandardScaler(), model)


def patient_split(
    patient_id: ArrayLike, seed: int = 1907
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of train, validation and test images; no patient is in two of them.

    A fifth of the patients is held out for testing, then a fifth of the others for validation
    (scikit-learn's `GroupShuffleSplit`, as S did).

    Returns
    -------
    train, valid, test : integer arrays of positions into patient_id
    """
    from sklearn.model_selection import GroupShuffleSplit

    patient = np.asarray(patient_id)
    n = len(np.unique(patient))
    if n < 5:
        raise ValueError(f"patient_id: {n} patients; expected at least 5 to split.")
    splitter = GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=seed)
    rest, test = next(splitter.split(patient, groups=patient))
    inner_train, inner_valid = next(splitter.split(rest, groups=patient[rest]))
    return rest[inner_train], rest[inner_valid], test


def tuning_rows(
    train: np.ndarray, valid: np.ndarray, tuning: str = "matched"
) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose features a probe is tuned on, to go with the labels of train and valid.

    Parameters
    ----------
    train, valid : positions of `patient_split`
    tuning : "matched", the rows themselves; or "mismatched", as S's code takes them: positions
        within training and validation together, read as positions within all images. Labels and
        features then belong to different images, and test images come in. Only the choice of the
        hyper-parameter suffers: the final fit and the test use the right rows.

    Returns
    -------
    train_rows, valid_rows : integer arrays as long as train and valid
    """
    checks.one_of("tuning", tuning, ("matched", "mismatched"))
    if tuning == "matched":
        return train, valid
    rest = np.union1d(train, valid)
    return np.searchsorted(rest, train), np.searchsorted(rest, valid)


def tuning_compared(
    embeddings: np.ndarray, table: pd.DataFrame, attribute: str, method: str, seeds: Sequence[int]
) -> pd.DataFrame:
    """What tuning a probe on the rows of S's code does to its test AUC, split by split.

    Parameters
    ----------
    embeddings : (n, d)
    table : DataFrame, n rows with patient_id and the attribute
    attribute, method : as in `probe_table`
    seeds : one per split

    Returns
    -------
    DataFrame, one row per split: matched and mismatched, the test AUC by either tuning; own and
    test, the shares of training labels that the mismatched tuning gives their own embedding, and
    the embedding of a test image.
    """
    rows = []
    for seed in seeds:
        train, valid, test = patient_split(table["patient_id"], seed)
        taken, _ = tuning_rows(train, valid, "mismatched")
        row = {"own": (taken == train).mean(), "test": np.isin(taken, test).mean()}
        for tuning in ("matched", "mismatched"):
            p = replace(protocol_of("corrected"), probe_tuning=tuning)
            given = ({"model": embeddings}, table, (attribute,), (method,), p)
            row[tuning] = probe_table(*given, n_resamples=1, seed=seed)["value"].iloc[0]
        rows.append(row)
    return pd.DataFrame(rows)


def probe_table(
    embeddings: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    attributes: Sequence[str] = ("sex", "race", "age_group"),
    methods: Sequence[str] = ("linear", "knn", "mlp"),
    protocol: str | Protocol = "corrected",
    *,
    n_resamples: int = 500,
    seed: int = 1907,
) -> pd.DataFrame:
    """How well attributes of patients can be read from image embeddings (S Table 2).

    Each probe is fitted on training patients, its hyper-parameter chosen by AUC on validation
    patients, refitted on both, and judged on test patients. S tuned the learning rate of a linear
    layer; corrected, the linear probe is a logistic regression with tuned penalty, its limit
    without the tuning noise. As published, networks of up to 1,024 units take minutes; S leaves
    their seed open, here it is `seed`.

    Parameters
    ----------
    embeddings : dict of model name -> (n, d) array, rows in the order of `table`
    table : DataFrame with patient_id and the attribute columns, such as `cohort.table`
    attributes : columns; images without a value are left out, and so are groups with fewer than
        `MIN_PATIENTS` patients, which the note names
    methods : out of "linear", "knn", "mlp"
    protocol : name or Protocol; switches probe_heads, probe_tuning (see `tuning_rows`), unit and
        interval

    Returns
    -------
    Results table: label = the attribute that is read, method = the probe, metric "auc": macro
    mean over groups of one-versus-rest AUC on test images, with bootstrap intervals over the
    protocol's unit; n, n_positive (of the scarcest group), n_patients are those of the test set.
    """
    p = protocol_of(protocol)
    for method in methods:
        checks.one_of("methods", method, METHODS)
    rows = []
    for attribute in attributes:
        if attribute not in table:
            raise ValueError(f"table: column {attribute!r} is missing; expected the attribute.")
        group = levels.levels(table[attribute], f"table: column {attribute!r}")
        patient = np.asarray(levels.names(table["patient_id"]))
        keep, left_out = _usable(group, patient)
        names, y = np.unique(np.asarray(group)[keep].astype(str), return_inverse=True)
        patient = patient[keep]
        left_out = ", ".join(left_out)
        note = left_out and f"left out, fewer than {MIN_PATIENTS} patients: {left_out}"
        for model, z in embeddings.items():
            z = np.asarray(z)
            if len(z) != len(table):
                raise ValueError(
                    f"embeddings: {model!r} has {len(z)} rows, the table {len(table)}; expected "
                    "one embedding per image, in the order of the table."
                )
            for method in methods:
                rows.append(
                    {"protocol": p.name, "model": model, "method": method, "label": attribute}
                    | {"attribute": "all", "group": "all", "metric": "auc"}
                    | _probe(z[keep], y, names, patient, method, p, n_resamples, seed, note)
                )
    return schema.results(rows)


def _usable(group, patient_id):
    """Positions of images in groups with enough patients; names of the other groups."""
    patients = pd.Series(patient_id).groupby(np.asarray(group)).nunique()
    large = patients.index[patients >= MIN_PATIENTS]
    return np.flatnonzero(group.isin(large)), list(patients.index.difference(large))


def _probe(z, y, names, patient, method, p, n_resamples, seed, note):
    """One row: the tuned probe on the test patients."""
    from sklearn.exceptions import ConvergenceWarning

    row = {"unit": p.unit, "seed": seed}
    if len(names) < 2:
        reason = f"undefined: {len(names)} group{'s' * (len(names) != 1)} with enough patients"
        counts = {"n": len(y), "n_positive": len(y), "n_patients": len(np.unique(patient))}
        return row | counts | {"value": np.nan, "note": joined(reason, note)}
    train, valid, test = patient_split(patient, seed)
    tune_train, tune_valid = tuning_rows(train, valid, p.probe_tuning)
    grid = HEADS[p.probe_heads][method]
    with warnings.catch_warnings():
        # a fixed number of epochs, as in S: that the loss could fall further is no fault
        warnings.simplefilter("ignore", ConvergenceWarning)
        on_valid = []
        for value in grid:
            tuned = _untrained(p.probe_heads, method, value, seed).fit(z[tune_train], y[train])
            on_valid.append(_macro_auc(y[valid], _scores(tuned, z[tune_valid], len(names))))
        best = grid[int(np.argmax(on_valid))]
        both = np.concatenate([train, valid])
        probe = _untrained(p.probe_heads, method, best, seed).fit(z[both], y[both])
    score = _scores(probe, z[test], len(names))
    auc = {"probe": lambda w: {"auc": _macro_auc(y[test], score, w)}}
    found = bootstrap.intervals(auc, patient[test], p, n_resamples, seed)["probe", "auc"]
    found["note"] = joined(note, found["note"])
    counts = np.bincount(y[test], minlength=len(names))
    size = {"n": len(test), "n_positive": counts.min(), "n_patients": len(np.unique(patient[test]))}
    return row | found | size


def _scores(probe, z, n_groups):
    """(n, n_groups) probabilities; a group absent from training scores 0 everywhere."""
    score = np.zeros((len(z), n_groups))
    score[:, probe.classes_] = probe.predict_proba(z)
    return score


def _macro_auc(y, score, weights=None):
    """Mean over groups of one-versus-rest AUC."""
    if score.shape[1] == 2:
        return metrics.auc(y == 1, score[:, 1], weights)
    by_group = [metrics.auc(y == c, s, weights) for c, s in enumerate(score.T)]
    return np.mean(by_group, axis=0)


# --- geometry --------------------------------------------------------------------------------


def centroid_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Absolute difference of two centroids in each dimension, largest first (S Fig. 3).

    a (n, d) and b (m, d): embeddings of two groups, or of images and texts (the modality gap).
    Returns (d,) numbers >= 0.
    """
    return np.sort(np.abs(np.mean(a, axis=0) - np.mean(b, axis=0)))[::-1]


def group_differences(
    images: np.ndarray,
    texts: np.ndarray,
    table: pd.DataFrame,
    pairs: Mapping[str, tuple[str, str, str]],
    seed: int = 1907,
) -> dict[str, np.ndarray]:
    """Differences of centroids: images and texts, pairs of groups, and a yardstick (S Fig. 3).

    Parameters
    ----------
    images, texts : (n, d) and (m, d)
    table : DataFrame
        ``patient_id`` and the attributes of the images, in their order.
    pairs : dict of name -> (attribute, group, other group)
        Pairs with a group of less than `FEW` patients are left out, or not in the table.
    seed : int
        Deals the patients into two halves.

    Returns
    -------
    dict of name -> (d,), see `centroid_differences`
        "image, text" first, then the pairs, then "random halves" of the patients, which differ in
        nothing.
    """
    found = {"image, text": centroid_differences(images, texts)}
    for name, (attribute, *groups) in pairs.items():
        both = [(table[attribute] == g).to_numpy() for g in groups] if attribute in table else []
        if both and min(table.loc[rows, "patient_id"].nunique() for rows in both) >= FEW:
            found[name] = centroid_differences(*(images[rows] for rows in both))
    patients = table["patient_id"].unique()
    drawn = np.random.default_rng(seed).permutation(patients)[: len(patients) // 2]
    half = table["patient_id"].isin(drawn).to_numpy()
    return found | {"random halves": centroid_differences(images[half], images[~half])}


def concentration(differences: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """How large each difference of centroids is, and how few dimensions carry it.

    Returns
    -------
    DataFrame
        ``centroids of``, ``distance`` (Euclidean, >= 0), and ``share of the largest tenth``: of
        the squared distance, what the largest tenth of the dimensions carries, in [0, 1].
    """
    rows = []
    for name, d in differences.items():
        top = max(1, len(d) // 10)
        share = (d[:top] ** 2).sum() / (d**2).sum()
        rows.append((name, np.linalg.norm(d), share))
    return pd.DataFrame(rows, columns=["centroids of", "distance", "share of the largest tenth"])


def best_axis(
    points: np.ndarray,
    groups: Mapping[str, ArrayLike],
    patient_id: ArrayLike,
    *,
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
) -> pd.DataFrame:
    """How well the better of the two axes of a map tells a group from the others.

    Since the better axis and the better direction are taken, chance gives slightly more than 0.5.

    Parameters
    ----------
    points : (n, 2)
    groups : dict of name -> (n,)
        1 in the group, 0 outside, missing where nobody knows.
    patient_id : (n,)
    protocol, n_resamples, seed : its switches unit and interval

    Returns
    -------
    Results table
        A row for each group, its name in `label`, metric "auc" in [0.5, 1]; NaN with its reason
        where fewer than `FEW` images are in the group or outside.
    """
    p, rows = protocol_of(protocol), []
    for name, group in groups.items():
        known = np.asarray(pd.notna(group))
        at, y = points[known], np.asarray(group)[known].astype(bool)
        patient = np.asarray(patient_id)[known]

        def strength(w, at=at, y=y):
            one = [metrics.auc(y, at[:, k], w) for k in range(2)]
            return {"auc": 0.5 + np.abs(np.array(one) - 0.5).max(axis=0)}

        row = {"protocol": p.name, "label": name, "attribute": "all", "group": "all"}
        row |= {"metric": "auc", "unit": p.unit, "seed": seed}
        row |= {"n": len(y), "n_positive": y.sum(), "n_patients": len(np.unique(patient))}
        if min(y.sum(), (~y).sum()) < FEW:
            found = {"value": np.nan, "note": f"fewer than {FEW} images in or outside the group"}
        else:
            found = bootstrap.intervals({"axis": strength}, patient, p, n_resamples, seed)
            found = found["axis", "auc"]
        rows.append(row | found)
    return schema.results(rows)


def group_spreads(
    points: np.ndarray, patient_id: ArrayLike, attributes: Mapping[str, ArrayLike]
) -> tuple[dict[str, dict], pd.DataFrame]:
    """Where the groups of a map lie and how far they spread; nothing of a single image.

    Parameters
    ----------
    points : (n, 2)
    patient_id : (n,)
    attributes : dict of name -> (n,)
        Groups; those of less than `FEW` patients are left out.

    Returns
    -------
    shapes : dict of attribute -> dict of group -> (mean (2,), covariance (2, 2))
    table : DataFrame
        ``attribute, group, axis`` ("1" or "2"), ``mean``, ``standard deviation``.
    """
    patient, shapes, rows = np.asarray(patient_id), {}, []
    for attribute, groups in attributes.items():
        groups, shapes[attribute] = np.asarray(groups, dtype=object), {}
        for group in pd.unique(groups[pd.notna(groups)]):
            at = points[groups == group]
            if len(np.unique(patient[groups == group])) < FEW:
                continue
            shapes[attribute][group] = (at.mean(axis=0), np.cov(at.T))
            middle, spread = at.mean(axis=0), at.std(axis=0)
            rows += [
                {"attribute": attribute, "group": group, "axis": str(k + 1)}
                | {"mean": middle[k], "standard deviation": spread[k]}
                for k in range(2)
            ]
    columns = ["attribute", "group", "axis", "mean", "standard deviation"]
    return shapes, pd.DataFrame(rows, columns=columns)


def project(*embeddings: np.ndarray) -> tuple[np.ndarray | list[np.ndarray], np.ndarray]:
    """First two principal components, fitted on all given embeddings together (S Fig. 2).

    Parameters
    ----------
    embeddings : (n_i, d) arrays, such as images, or images and texts

    Returns
    -------
    points : list of (n_i, 2), in the order given (one array, not a list, for one argument)
    explained : (2,) shares of the variance
    """
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(np.concatenate(embeddings))
    points = [pca.transform(z) for z in embeddings]
    return points[0] if len(points) == 1 else points, pca.explained_variance_ratio_


def image_panel(
    images: np.ndarray, texts: np.ndarray, axes: str = "own"
) -> tuple[np.ndarray, np.ndarray]:
    """Image embeddings on two axes, as S Fig. 2b to 2d show them.

    Parameters
    ----------
    images, texts : (n, d) and (m, d)
    axes : "own", the first two components of the images; or "mixed", as S's code draws them: the
        horizontal axis is the first component of images and texts together, the vertical one the
        second component of the images alone

    Returns
    -------
    points : (n, 2)
    explained : (2,) share of the variance, each within the fit that its axis comes from
    """
    checks.one_of("axes", axes, ("own", "mixed"))
    own, explained = project(images)
    if axes == "own":
        return own, explained
    (joint, _), of_joint = project(images, texts)
    return np.column_stack([joint[:, 0], own[:, 1]]), np.array([of_joint[0], explained[1]])

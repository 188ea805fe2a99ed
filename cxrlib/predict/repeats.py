"""Many splits and seeds: what of a result is the adaptation, and what the luck of one run.

X trains once on one split. Here the same is done on several splits (`nih6x200.rotations`) and from
several seeds; each run gives the metrics of X, and their spread is parted into seeds and splits.
Splits are numbered from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import joblib
import numpy as np
import pandas as pd

from cxrlib import guard
from cxrlib.cohorts.nih6x200 import ROTATIONS, rotations
from cxrlib.core.checks import one_of
from cxrlib.predict import finetune, zeroshot
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import fairness

UTILITY = ("accuracy", "macro_f1", "var_f1")
_UNSIGNED = ("f1_gap_absolute", "eq_odds_mean", "eq_odds_max", "calibration_gap_eq4", "ece_gap")
GAPS = ("f1_gap_signed", *_UNSIGNED)
SIZES = ("var_f1", "f1_gap_size", *_UNSIGNED)
"""What is 0 where all fare alike, and larger the less they do."""
KEYS = ["model", "method", "attribute", "group", "metric"]
FEWEST_PATIENTS = 2
SOUGHT = {"heads": finetune.ON_EMBEDDINGS, "all": finetune.STRATEGIES, "none": ()}
"""Strategies whose learning rate is sought on validation images, by the word that asks for it."""


@dataclass(frozen=True)
class Runs:
    """What several strategies gave on several splits from several seeds.

    Attributes
    ----------
    predictions : DataFrame
        Test images of every run, as :func:`cxrlib.predict.zeroshot.one_hot_rows` returns them, with
        integer columns ``split`` and ``seed``.
    runs : DataFrame
        One row per run: ``model, strategy, split, seed, learning_rate, best_epoch, epochs``,
        ``trainable`` (parameters), ``seconds_an_epoch, memory_mib`` (of a step), ``weights``
        (SHA-256 of the trained tensors).
    fits : dict
        (strategy, split, seed) -> :class:`cxrlib.predict.finetune.FineTuned`.
    """

    predictions: pd.DataFrame
    runs: pd.DataFrame
    fits: dict[tuple[str, int, int], finetune.FineTuned]


def check_groups(
    table: pd.DataFrame, splits: Sequence[np.ndarray], attributes: Sequence[str], target: str
) -> None:
    """Refuse splits that leave a group nearly untested or a class untrained.

    Parameters
    ----------
    table : DataFrame
        One row per image: ``patient_id``, the attributes and the target.
    splits : sequence of arrays of str (n,)
        "train", "valid" or "test" for each image.
    attributes : sequence of str
        Columns whose groups are compared.
    target : str
        Column with the class.

    Raises
    ------
    ValueError
        A column is missing, a class has no training image in a split, or a group fewer than two
        patients in its test part.
    """
    if missing := [c for c in ("patient_id", *attributes, target) if c not in table]:
        raise ValueError(f"table: column {missing[0]!r} is missing; it has {', '.join(table)}")
    for number, split in enumerate(splits):
        split = np.asarray(split)
        if absent := sorted(set(table[target]) - set(table.loc[split == "train", target])):
            raise ValueError(
                f"split {number}: no training image of {target} {', '.join(absent)}; make fewer "
                "splits, take more images per cell, or leave the class out"
            )
        for attribute in attributes:
            groups = sorted(table[attribute].dropna().unique())
            tested = table[split == "test"].groupby(attribute, observed=True)["patient_id"]
            patients = tested.nunique().reindex(groups, fill_value=0)
            for group, n in patients[patients < FEWEST_PATIENTS].items():
                few = (
                    f"split {number}: {n} patients of group {group!r} of {attribute!r} in its test "
                    f"part, fewer than {FEWEST_PATIENTS}; make fewer splits, take more images a "
                    f"cell, or leave {attribute!r} out"
                )
                raise ValueError(guard.text(few, "split: the message"))


def splits_of(
    table: pd.DataFrame, n_splits: int, seed: int, protocol: Protocol
) -> list[np.ndarray]:
    """The 7:1:2 splits of a balanced cohort: as X has it, its own one, or several rotations.

    Parameters
    ----------
    table : DataFrame
        Of the cohort: ``patient_id, sex, age60, disease``, and ``split`` for one split.
    n_splits, seed : int
        Of :func:`cxrlib.cohorts.nih6x200.rotations`; one split has no use for them.
    protocol : Protocol
        Its switches ``repeats`` and ``split``.

    Raises
    ------
    ValueError
        See :func:`check_groups`.
    """
    splits = [table["split"].to_numpy()] if protocol.repeats == "one split" else None
    splits = splits or rotations(table["patient_id"], n_splits, seed, unit=protocol.split)
    check_groups(table, splits, attributes=("sex", "age60"), target="disease")
    return splits


def part_sizes(table: pd.DataFrame, splits: Sequence[np.ndarray]) -> pd.DataFrame:
    """Images and patients of each part of each split; one row per split, numbered from 1.

    Parameters
    ----------
    table : DataFrame
        Of the cohort, with ``patient_id``.
    splits : sequence of arrays of str (n,)
    """
    rows = []
    for number, split in enumerate(splits, 1):
        row = {"split": str(number)}
        for part in sorted(finetune.SPLITS):
            row[f"{part}: images"] = int((split == part).sum())
            row[f"{part}: patients"] = table.loc[split == part, "patient_id"].nunique()
        rows.append(row)
    return pd.DataFrame(rows).set_index("split")


def zero_shot(
    task: finetune.Task,
    scores: Mapping[str, np.ndarray],
    splits: Sequence[np.ndarray],
    protocol: Protocol,
) -> pd.DataFrame:
    """What the model answers before it is adapted, for the test images of every split.

    The prompt format is the best one on the images that the protocol chooses with; the score is
    the mean probability over its draws.

    Parameters
    ----------
    task : finetune.Task
    scores : dict
        Of :func:`cxrlib.predict.zeroshot.format_scores` for the same cohort, model and classes.
    splits : sequence of arrays of str (n,)
    protocol : Protocol
        Its switch ``prompt_choice``.

    Returns
    -------
    DataFrame
        As `Runs.predictions`, with method "zero-shot", without seeds, and with ``format``.
    """
    chooses = {"test": "test", "validation": "valid"}[protocol.prompt_choice]
    parts = []
    for k, split in enumerate(splits):
        ranked = zeroshot.format_table(scores, task.y.numpy(), rows=split == chooses)
        best, test = zeroshot.best_format(ranked), split == "test"
        rows = zeroshot.one_hot_rows(
            task.cohort,
            test,
            task.model.name,
            "zero-shot",
            task.labels,
            task.target,
            scores[best].mean(axis=0)[test],
        )
        parts.append(rows.assign(split=k, format=best))
    return pd.concat(parts, ignore_index=True)


def settings_of(
    task: finetune.Task,
    split: np.ndarray,
    epochs_head: int,
    epochs_encoder: int,
    rates: str = "heads",
    precision: str = "float32",
    seed: int = 0,
) -> dict[str, finetune.Settings]:
    """How each strategy is trained, its learning rate sought on validation images where asked.

    Parameters
    ----------
    task : finetune.Task
    split : array of str (n,)
        The split on whose validation images rates are sought.
    epochs_head, epochs_encoder : int
        Of linear probe and MLP, and of LoRA and full fine-tuning.
    rates : a key of :data:`SOUGHT`
    precision : str
        Of LoRA and full fine-tuning; the others take float32.
    seed : int
        Of the trainings that are tried; the one at the chosen rate is kept and read again.
    """
    one_of("rates", rates, tuple(SOUGHT))
    settings = {}
    for strategy in finetune.STRATEGIES:
        own = {"epochs": epochs_encoder, "precision": precision}
        if strategy in finetune.ON_EMBEDDINGS:
            own = {"epochs": epochs_head}
        how = finetune.settings_for(strategy, **own)
        if strategy in SOUGHT[rates]:
            tried = finetune.search(task, strategy, split, settings=how, seed=seed)
            how = replace(how, learning_rate=tried.loc[tried["chosen"], "learning_rate"].item())
        settings[strategy] = how
    return settings


def tune(
    task: finetune.Task,
    strategies: Sequence[str],
    splits: Sequence,
    seeds: dict[str, Sequence[int]],
    settings: dict[str, finetune.Settings] | None = None,
    keep: bool = True,
    jobs: int = 1,
) -> Runs:
    """Every strategy on every split from each of its seeds.

    A finished run is kept by :func:`cxrlib.predict.finetune.fine_tune` and read again, so what was
    cut off goes on. All strategies of a split come before the next split.

    Parameters
    ----------
    task : finetune.Task
    strategies : sequence of str
        Out of ``finetune.STRATEGIES``.
    splits : sequence of arrays of str (n,)
        See :func:`cxrlib.cohorts.nih6x200.rotations`.
    seeds : dict
        Strategy -> its seeds: those that cost minutes may have fewer.
    settings : dict, optional
        Strategy -> how it is trained; by default ``finetune.settings_for`` it.
    keep : bool
        As in ``fine_tune``.
    jobs : int
        Trainings at the same time, each in a process of its own: for CPUs with several cores.

    Raises
    ------
    ValueError
        No split, or no seeds for a strategy, or one twice; and whatever ``fine_tune`` refuses.
    """
    _check_plan(strategies, splits, seeds, settings or {})
    plan = [(x, k, seed) for k in range(len(splits)) for x in strategies for seed in seeds[x]]
    if jobs > 1 and not set(strategies) <= set(finetune.ON_EMBEDDINGS):
        task.pixels  # noqa: B018 - once here, instead of once in each process
    train = joblib.delayed(finetune.fine_tune)
    fitted = joblib.Parallel(n_jobs=jobs)(
        train(task, strategy, splits[k], (settings or {}).get(strategy), seed, keep=keep)
        for strategy, k, seed in plan
    )
    fits = dict(zip(plan, fitted, strict=True))
    predictions, rows = [], []
    for (strategy, split, seed), f in fits.items():
        predictions.append(f.predictions.assign(split=split, seed=seed))
        row = {"model": task.model.name, "strategy": strategy, "split": split, "seed": seed}
        row |= {"learning_rate": f.settings.learning_rate, "best_epoch": f.best_epoch}
        row |= {"epochs": f.settings.epochs, "trainable": f.trainable}
        row |= {"seconds_an_epoch": f.seconds / f.settings.epochs, "memory_mib": f.memory / 2**20}
        rows.append(row | {"weights": f.weights})
    return Runs(pd.concat(predictions, ignore_index=True), pd.DataFrame(rows), fits)


def _check_plan(strategies, splits, seeds, settings):
    if not len(splits) or not len(strategies):
        raise ValueError("splits, strategies: expected one or more of each")
    for strategy in {*strategies, *seeds, *settings}:
        one_of("strategy", strategy, finetune.STRATEGIES)
    for strategy in strategies:
        asked = list(seeds.get(strategy, ()))
        if not asked or len(set(asked)) < len(asked):
            raise ValueError(
                f"seeds of {strategy!r}: {asked}; expected one or more whole numbers, each once"
            )


def pooled(predictions: pd.DataFrame) -> pd.DataFrame:
    """The test predictions of the first five rotations, from the lowest seed of each method.

    Each image appears once, predicted by a model that saw neither it nor its patient (in splits by
    patient), so the tables of `cxrlib.stats.fairness` take the result as that of one test set of
    all images. What is pooled are five models: an interval covers the draw of the tested patients,
    not that of training patients and seeds.

    Parameters
    ----------
    predictions : DataFrame
        With ``split`` and ``seed``; see :func:`values`.
    """
    first = predictions[predictions["split"] < ROTATIONS]
    seed = first["seed"].astype("Int64")
    lowest = seed.groupby([first["model"], first["method"]]).transform("min")
    return first[(seed.isna() | (seed == lowest)).fillna(False)].reset_index(drop=True)


# --- the metrics of each run ---


def values(
    predictions: pd.DataFrame,
    pairs: Mapping[str, Sequence[tuple[str, str]]],
    baseline: str | None = "zero-shot",
) -> pd.DataFrame:
    """Metrics of X for every run, and their change against what the model did before.

    Parameters
    ----------
    predictions : DataFrame
        Test predictions of one cohort, with the attributes joined in, and columns ``split`` and
        ``seed``. A method that is not trained, such as zero-shot, has one prediction per image and
        split, and its seed is missing.
    pairs : dict
        Attribute -> list of pairs of groups (A, B) whose gap "A - B" is taken.
    baseline : str or None
        Method against which changes are taken, on the same test images; it has one run per split.
        None takes none.

    Returns
    -------
    DataFrame
        ``model, method, split, seed, attribute, group, metric, value, note``: ``seed`` is Int64 and
        missing where nothing is trained, ``note`` says why a value is undefined. Metrics are
        ``UTILITY`` over all images and, for each pair, ``GAPS``, as in
        `cxrlib.stats.fairness.multiclass_table`, and ``f1_gap_size``, the modulus of
        ``f1_gap_signed``. Rows with method "full - zero-shot" hold after minus before: of
        ``f1_gap_size`` how much the gap grew whatever its direction, of ``f1_gap_signed`` how much
        it moved in favour of A.

    Raises
    ------
    ValueError
        Several cohorts, a baseline that is missing, has several runs per split, or was run on
        other images; and whatever `multiclass_table` refuses.
    """
    _check_predictions(predictions, baseline)
    runs = predictions.assign(seed=predictions["seed"].astype("Int64"))
    plain = replace(protocol_of("corrected"), interval="percentile")
    parts = []
    for (split, seed), block in runs.groupby(["split", "seed"], dropna=False, sort=False):
        # A point value needs no resamples; one is the least that the table takes.
        found = fairness.multiclass_table(block, list(pairs), pairs, protocol=plain, n_resamples=1)
        parts.append(found.assign(split=split, seed=seed))
    found = pd.concat(parts, ignore_index=True).astype({"split": int, "seed": "Int64"})
    overall = (found["attribute"] == "all") & found["metric"].isin(UTILITY)
    found = found[overall | found["metric"].isin(GAPS)]
    found = found[["model", "method", "split", "seed", *KEYS[2:], "value", "note"]]
    found = found.assign(note=found["note"].where(found["value"].isna(), ""))
    signed = found[found["metric"] == "f1_gap_signed"]
    size = signed.assign(metric="f1_gap_size", value=signed["value"].abs())
    found = pd.concat([found, size], ignore_index=True)
    if baseline is not None:
        found = pd.concat([found, _changes(found, baseline)], ignore_index=True)
    return found


def _check_predictions(predictions, baseline):
    needed = ("split", "seed", "cohort", "model", "method")
    if missing := [c for c in needed if c not in predictions]:
        raise ValueError(f"predictions: column {missing[0]!r} is missing; take those of `tune`")
    if len(known := sorted(predictions["cohort"].unique())) > 1:
        raise ValueError(f"predictions: of {', '.join(known)}; expected one cohort at a time")
    if baseline is None:
        return
    # One test set per model and split, on which the baseline was run once.
    runs = predictions.drop_duplicates(["model", "method", "split", "seed", "image_id"])
    for (model, split), block in runs.groupby(["model", "split"], sort=False):
        before = block.loc[block["method"] == baseline, "image_id"]
        where = f"of {model} in split {split}"
        if before.empty:
            raise ValueError(
                f"baseline: no predictions by {baseline!r} {where}; append them (split given, seed "
                "missing), or pass baseline=None"
            )
        if before.duplicated().any():
            raise ValueError(f"baseline: several runs of {baseline!r} {where}; expected one")
        tested = block.groupby(["method", "seed"], dropna=False)["image_id"].agg(frozenset)
        if any(images != frozenset(before) for images in tested):
            raise ValueError(
                f"predictions: the runs {where} are not all on the images of {baseline!r}; predict "
                "the test part of the split with each"
            )


def _changes(found, baseline):
    """After minus before, for each run of every other method."""
    keys = ["model", "split", *KEYS[2:]]
    base = found["method"] == baseline
    before = found.loc[base, [*keys, "value", "note"]]
    both = found[~base].merge(before, on=keys, suffixes=("", "_before"))
    return both.assign(
        method=both["method"] + f" - {baseline}",
        value=both["value"] - both["value_before"],
        note=both["note"].where(both["note"] != "", both["note_before"]),
    )[list(found)]


# --- their spread ---


def components(values: pd.DataFrame) -> pd.DataFrame:
    r"""Mean and spread of each number over runs, parted into seeds and splits.

    Run j on split i gives :math:`y_{ij} = \mu + a_i + e_{ij}`: seeds nested in splits, both random
    (one-way random effects). See :func:`variance_parts`.

    The parts describe this cohort. Splits share training images (and later shuffles test images),
    so runs are not independent, and ``sd_split`` is no unbiased estimate of the spread over
    independent cohorts; none exists (Bengio and Grandvalet 2004, JMLR 5). It holds the luck of the
    test images as well as that of the training images.

    Parameters
    ----------
    values : DataFrame
        See :func:`values`.

    Returns
    -------
    DataFrame, one row per model, method, attribute, group and metric
        ``mean`` (over splits, of their means over seeds), ``sd_seed`` (between seeds of one split),
        ``sd_split`` (between splits, without what seeds add), ``n_splits, n_seeds`` (different
        ones; 0 where nothing is trained), ``n_runs, lowest, highest`` and ``share_above_0`` (in
        [0, 1]) of the runs, and ``note``: why a part is undefined (NaN), what it holds, how many
        runs are left out as undefined, or that the split variance was estimated below 0 and is
        shown as 0.
    """
    blocks = values.groupby(KEYS, sort=False)
    return pd.DataFrame(
        [dict(zip(KEYS, names, strict=True)) | _spread_of(runs) for names, runs in blocks]
    )


def _spread_of(runs):
    defined = runs.dropna(subset="value")
    lost = len(runs) - len(defined)
    notes = [f"{lost} of {len(runs)} runs undefined and left out"] if lost else []
    y = defined["value"].to_numpy()
    splits = [part.to_numpy() for _, part in defined.groupby("split")["value"]]
    seed, split = variance_parts(splits)
    trained = runs["seed"].notna().any()
    if not trained:
        notes.append("not trained, so without seeds")
    elif len(y) and len(splits) == len(y):
        both = ", sd_split holds both parts" if len(splits) > 1 else ""
        notes.append(f"one seed a split: sd_seed undefined{both}")
    if len(splits) == 1:
        notes.append("one split: sd_split undefined")
    if split < 0:
        notes.append("variance between splits estimated below 0, shown as 0")
    found = {"mean": np.mean([part.mean() for part in splits]) if len(y) else np.nan}
    found |= {"sd_seed": np.sqrt(seed), "sd_split": np.sqrt(np.maximum(split, 0))}
    found |= {"n_splits": len(splits), "n_seeds": defined["seed"].nunique(), "n_runs": len(y)}
    lowest, highest, share = (y.min(), y.max(), (y > 0).mean()) if len(y) else [np.nan] * 3
    found |= {"lowest": lowest, "highest": highest, "share_above_0": share}
    return found | {"note": "; ".join(notes)}


def variance_parts(splits: Sequence[np.ndarray]) -> tuple[float, float]:
    r"""Variance between seeds of a split, and between splits: ANOVA moment estimators.

    Parameters
    ----------
    splits : sequence of arrays (n_i,)
        The runs of each of a splits; numbers may differ.

    Returns
    -------
    seed : float
        :math:`MS_W = \sum_{ij} (y_{ij} - \bar y_i)^2 / (N - a)` with :math:`N = \sum n_i`; NaN with
        one run per split.
    split : float
        :math:`(MS_B - MS_W) / n_0` with :math:`MS_B = \sum_i n_i (\bar y_i - \bar y)^2 / (a - 1)`
        and :math:`n_0 = (N - \sum n_i^2 / N) / (a - 1)`: unbiased for independent splits, and
        therefore below 0 at times. With one run per split it is :math:`MS_B`, which holds both
        parts; with one split NaN.

    Notes
    -----
    Searle, Casella and McCulloch 1992, Variance Components, section 3.6.
    """
    n = np.array([len(part) for part in splits])
    total, a = n.sum(), len(n)
    seed = split = np.nan
    if total > a:
        seed = sum(((part - part.mean()) ** 2).sum() for part in splits) / (total - a)
    if a > 1:
        means = np.array([part.mean() for part in splits])
        between = (n * (means - (n * means).sum() / total) ** 2).sum() / (a - 1)
        n0 = (total - (n**2).sum() / total) / (a - 1)
        split = (between - (seed if total > a else 0)) / n0
    return seed, split


def spread(values: pd.DataFrame, baseline: str = "zero-shot") -> pd.DataFrame:
    """Does "fine-tuning raises the gap" survive: in how many runs, and splits, it does.

    Parameters
    ----------
    values : DataFrame
        See :func:`values`, with changes against ``baseline``.

    Returns
    -------
    DataFrame, one row per model, method "... - zero-shot", attribute, group and metric of ``SIZES``
        ``runs`` (defined ones), ``runs_above_0`` (the size rose), ``splits, splits_above_0`` (the
        mean over its seeds rose), ``undefined`` (runs). An adaptation that changes nothing raises a
        gap in about half of them; as splits share images, these counts are no sign test.

    Raises
    ------
    ValueError
        ``values`` has no changes against ``baseline``.
    """
    changes = values[values["method"].str.endswith(f" - {baseline}")]
    if changes.empty:
        raise ValueError(
            f"values: no changes against {baseline!r}; pass it as baseline of `values`"
        )
    rows = []
    for names, runs in changes[changes["metric"].isin(SIZES)].groupby(KEYS, sort=False):
        about = dict(zip(KEYS, names, strict=True))
        means = runs.groupby("split")["value"].mean()
        for each, y in (("runs", runs["value"].dropna()), ("splits", means.dropna())):
            about |= {each: len(y), f"{each}_above_0": int((y > 0).sum())}
        rows.append(about | {"undefined": runs["value"].isna().sum()})
    return pd.DataFrame(rows)

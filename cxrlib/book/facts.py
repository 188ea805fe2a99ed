"""What a run can say of itself, as one dictionary of facts, for the checklists of its dossier.

A fact is a sentence or two with the places that show it. It comes from the cards and results of the
run, from the cards of its cohort and models, or holds of every run (``facts.toml``). What is not
known is not there: nothing stands in for it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cxrlib.book import record
from cxrlib.book.run import TRAINS
from cxrlib.core import toml
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import FIGURE
from cxrlib.core.used import SEEDED

if TYPE_CHECKING:  # pandas takes seconds
    import pandas as pd

ALWAYS = toml.beside(__file__)
ANSWERS = "answers.yaml"  # of the user, beside the notebooks of a run
GROUPS = ("age_group", "sex", "race")
HIDDEN = "not shown"
FEW = 3  # cards that are linked one by one
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
ROLE = re.compile(r"\{[\w:]+\}`([^`<]*?)(?: *<[^>]*>)?`")


class Fact(NamedTuple):
    """Something that is known, and where it is seen.

    A place is "chapter:NAME", "figure:NAME#LABEL", "card:NAME" or "results:NAME" of a chapter of
    the run, or "page:NAME" of the book; "answers" is the file of the user.
    """

    text: str
    places: tuple[str, ...] = ()


class Known(NamedTuple):
    """What executed chapters can say."""

    facts: dict[str, Fact]
    kinds: frozenset[str]  # of study: what the run did, see `_kinds`
    models: tuple[str, ...]
    guarded: bool  # whether made from credentialed data
    runs: tuple[record.Run, ...]  # those on the cohort of most chapters
    notebooks: dict[Path, dict]  # all that were read: path -> content


def gather(notebooks: Iterable[Path]) -> Known:
    """All that executed chapters can say.

    Parameters
    ----------
    notebooks : iterable of Path
        Executed notebooks with their cards and results beside them; others are passed over.

    Raises
    ------
    BookError
        None of them is a complete run.
    """
    from cxrlib.book import scan

    every = [record.read(path) for path in notebooks if record.key(path) is not None]
    if not every:
        raise BookError("no complete run here: run a chapter with --name first")
    contents = {r.notebook: json.loads(r.notebook.read_text(encoding="utf-8")) for r in every}
    guarded = any(scan.is_guarded(content) for content in contents.values())
    data = _data(every)
    runs = [r for r in every if r.card["parameters"].get("data", data) == data]
    runs = [_without_small_counts(r) for r in runs] if guarded else runs
    judged = next(([r] for r in runs if _performance(r.table)), runs)
    models = tuple(dict.fromkeys(m["name"] for r in judged for m in r.card["models"]))
    found = {
        f"{group}.{name}": Fact(fact["text"], (fact["place"],))
        for group, block in ALWAYS.items()
        for name, fact in block.items()
    }
    found |= _of_cohort(data) | _of_run(runs) | _of_chapters(contents)
    found |= of_models(runs, models)
    kinds = _kinds(runs)
    if "development" in kinds:
        text, places = found["study.design"]
        found["study.design"] = Fact(f"{text} Some chapters train or adapt models.", places)
    return Known(found, kinds, models, guarded, tuple(runs), contents)


def of_models(runs: Iterable[record.Run], models: Sequence[str]) -> dict[str, Fact]:
    """The facts that rest on some models: their cards, and what tables hold of them."""
    runs = list(runs)
    return _of_models(runs, models) | _of_tables(runs, models)


def _data(runs):
    """The cohort that most chapters were asked for, a real one before phantoms."""
    asked = Counter(r.card["parameters"].get("data") for r in runs)
    asked.pop(None, None)
    real = {name: n for name, n in asked.items() if not name.startswith("phantom")}
    asked = real or asked
    return max(asked, key=asked.__getitem__) if asked else "phantom"


def _kinds(runs):
    """What kinds of study a run is: evaluation; development where something is trained; updating
    where scores are recalibrated; clusters where results are by site; ensembles."""
    kinds = {"evaluation"}
    if any(TRAINS & set(r.card["parameters"]) for r in runs):
        kinds.add("development")
    if any(r.card["chapter"][3:] == "recalibration" for r in runs):
        kinds.add("updating")
    if any((r.table["attribute"] == "site").any() for r in runs):
        kinds.add("clusters")
    weights = {(m["name"], m["weights"], m["protocol"]) for r in runs for m in r.card["models"]}
    if len(weights) > len({(name, protocol) for name, _, protocol in weights}):
        kinds.add("ensembles")
    return frozenset(kinds)


# --- cohort, run, models ---------------------------------------------------------------------


def _of_cohort(data):
    from cxrlib import cohorts

    card = cohorts.card(data)
    place = (card.pop("place"),) if card else ()
    return {f"cohort.{name}": Fact(text, place) for name, text in card.items()}


def _of_run(runs):
    first = runs[0].card
    cards = tuple(f"card:{r.card['chapter']}" for r in runs)
    every = [(r.card["chapter"], r.card) for r in runs]
    given = {f"{k}={v}" for _, c in every for k, v in c["parameters"].items() if k in c["given"]}
    code = first["code"]
    revision = f", revision {code['revision'][:10]}" if code["revision"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in first["packages"].items())
    names = dict.fromkeys(
        f"{c['name']} ({c['fingerprint']})" for _, k in every for c in k["cohorts"]
    )
    seeds = sorted({seed for _, c in every for seed in c["seeds"]})
    protocols = sorted({c["parameters"].get("protocol", "corrected") for _, c in every})
    dates = sorted(c["date"][:10] for _, c in every)
    numbers = [int(name[:2]) for name, _ in every]
    if len(numbers) > FEW and numbers == list(range(numbers[0], numbers[-1] + 1)):
        which = f"{numbers[0]} to {numbers[-1]}"
    else:
        which = ", ".join(map(str, numbers))
    parts = {
        "date": f"Run on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}.",
        "parameters": f"Chapters {which}, with "
        + (", ".join(sorted(given)) or "the defaults of all parameters")
        + f"; protocol: {', '.join(protocols)}; seeds: {', '.join(map(str, seeds)) or 'none'}.",
        "code": "All code is this book's, under Apache-2.0"
        + revision
        + f"; library {code['library'][:10]}. Each card names the files behind its run.",
        "software": f"Python {first['python']}, {versions}.",
        "hardware": f"{first['gpu'] or first['device']}, {first['system']}.",
        "fingerprints": f"Cohorts by fingerprint: {', '.join(list(names)[:6]) or 'none'}"
        + (f", and {len(names) - 6} more on the cards." if len(names) > 6 else "."),
    }
    places = cards if len(cards) <= FEW else cards[:1]  # each chapter has a card like it
    return {f"run.{name}": Fact(text, places) for name, text in parts.items()}


def _card_of(name):
    """What is known about a model; empty for one of which only the name came with the run, and for
    one whose weights were computed from names, of which the card of its architecture says nothing.
    """
    from cxrlib import models

    try:
        return {} if name.startswith(SEEDED) else models.model_card(name)
    except (ValueError, KeyError, OSError):
        return {}


UNKNOWN = "not known"
SMALL = {  # what the cards of the models of this book take for granted
    "paper": "this book",
    "licence": "Apache-2.0, with this book",
    "repository": "in cxrlib/models/weights",
}


def _of_models(runs, names):
    cards = {name: _card_of(name) for name in names}
    used = {m["name"]: m for r in runs for m in r.card["models"]}

    def each(say: Callable[[dict], str | None]) -> str:
        """What is said of the models, those alike together; "" where nothing is known of any."""
        said: dict[str, list[str]] = {}
        for name, card in cards.items():
            one = (card and say(SMALL | card)) or UNKNOWN
            one = UNKNOWN if one.startswith((UNKNOWN, "cannot be told")) else one
            said.setdefault(one, []).append(name)
        if set(said) <= {UNKNOWN}:
            return ""
        if len(names) == 1:
            return "".join(said)
        return "; ".join(f"{', '.join(which)}: {one}" for one, which in said.items())

    def built(card):
        n = card.get("parameters")
        return card["architecture"] + (f", {n:,} parameters" if n else "")

    def trained(card):
        pairs = card.get("n_pairs")
        how = f" ({pairs:,} phantoms with reports, {card['epochs']} epochs)" if pairs else ""
        return card["trained_on"] + how

    texts = {
        "developer": each(lambda card: card["paper"]),
        "architecture": each(built),
        "input": each(lambda card: f"{card.get('image_size', UNKNOWN)} pixels a side"),
        "trained_on": (said := each(trained)) and f"Trained on: {said}",
        "licence": each(lambda card: card["licence"]),
        "source": each(lambda card: card["repository"]),
        "weights": "; ".join(f"{name}: SHA-256 {used[name]['weights'][:16]}" for name in names),
        "version": "; ".join(
            f"{name}: protocol {used[name]['protocol']}, {used[name]['precision']}"
            for name in names
        ),
    }
    places = ("page:model_cards",)
    found = {f"models.{name}": Fact(f"{text}.", places) for name, text in texts.items() if text}
    return found | ({"models.names": Fact(", ".join(names), places)} if names else {})


def _without_small_counts(run):
    """A run whose table counts nothing that is small, should it not have been kept so."""
    from cxrlib import guard

    table = run.table.copy()
    for column in ("n", "n_positive", "n_negative", "n_patients"):
        table[column] = table[column].mask(table[column].lt(guard.MIN_CELL).fillna(False))
    return run._replace(table=table)


# --- results ---------------------------------------------------------------------------------


def _of_tables(runs, models):
    """What results tables hold of some models."""
    found: dict[str, Fact] = {}
    for run in runs:
        table = run.table[run.table["model"].isin(models)]
        if table.empty:
            continue
        place = (f"results:{run.card['chapter']}",)
        for name, tell in TABLES.items():
            if name not in found and (text := tell(table)):
                found[name] = Fact(text, place)
    if "cohort.findings" in found:
        cohorts = dict.fromkeys(c["name"] for r in runs for c in r.card["cohorts"])
        found["study.title"] = Fact(
            f"Evaluation of {', '.join(models)}, machine learning (CLIP), on findings in chest "
            f"radiographs: {found['cohort.findings'].text} Cohorts: {', '.join(cohorts)}.",
            found["cohort.findings"].places,
        )
    return found


def _of_chapters(contents):
    """What chapters say in short, and figures that answer by themselves."""
    found = _of_figures(contents)
    told = {path.stem: record.said(content) for path, content in contents.items()}
    short = {name: plain(said["in short"]) for name, said in told.items() if "in short" in said}
    for fact, chapters in SAID.items():
        names = [name for name in short if name[3:] in chapters]
        if names:
            text = " ".join(short[name] for name in names)
            found[fact] = Fact(text, tuple(f"chapter:{name}" for name in names))
    return found


SAID = {  # fact -> chapters whose "In short" says it
    "study.summary": ("zero_shot", "subgroup_fairness"),
    "results.interpretation": ("subgroup_fairness",),
    "results.shortcuts": ("shortcuts",),
    "results.calibration": ("calibration",),
    "results.updating": ("recalibration",),
    "results.training": ("fine_tuning", "splits_and_seeds"),
    "results.robustness": ("shortcuts", "wordings"),
    "results.encoded": ("embeddings", "probes", "encoded_or_used"),
    "results.leakage": ("any_cohort",),
    "results.mitigation": ("recalibration", "court", "fairclip"),
}


TOLD = SAID | {  # fact -> chapters that show it
    **dict.fromkeys(("cohort.flow", "cohort.characteristics"), ("data_curation",)),
    **dict.fromkeys(("cohort.size", "cohort.events", "cohort.findings"), ("zero_shot",)),
    **dict.fromkeys(("results.performance", "study.title"), ("zero_shot",)),
    **dict.fromkeys(("cohort.groups", "results.subgroups"), ("subgroup_fairness",)),
    **dict.fromkeys(("results.undefined", "study.fairness"), ("subgroup_fairness",)),
}


def plain(text: str) -> str:
    """MyST of one paragraph as text that reads alone: no roles, no links, no line breaks."""
    text = LINK.sub(lambda m: m[1] or "the page", ROLE.sub(r"\1", text))
    return " ".join(text.replace("*", "").replace("`", "").split())


def _of_figures(contents):
    """Figures that answer by themselves: their text alternative says what is on them."""
    wanted = {"fig-curation-flow": "cohort.flow"}
    found = {}
    for path, notebook in contents.items():
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                about = json.loads("".join(data[FIGURE])) if FIGURE in data else {}
                if fact := wanted.get(about.get("name")):
                    place = f"figure:{path.stem}#{about['name']}"
                    steps = plain(about["alt"].partition("left out. ")[2] or about["alt"])
                    text = f"Of the cohort of chapter {int(path.stem[:2])}: {steps.rstrip('.')}."
                    found[fact] = Fact(text, (place,))
                if "Characteristics by sex" in "".join(data.get("text/html", "")):
                    found["cohort.characteristics"] = Fact(
                        "Age, view, findings and splits by sex, overall and by group, in the table "
                        f"“Characteristics by sex” of the cohort of chapter {int(path.stem[:2])}.",
                        (f"chapter:{path.stem}",),
                    )
    return found


def _zero_shot(table: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    rows = table[(table["method"] == "zero-shot") & (table["attribute"] == "all")]
    return rows if metric is None else rows[rows["metric"] == metric]


def _per_finding(table):
    """One row a finding, of the first model."""
    rows = _zero_shot(table, "auc")
    rows = rows[~rows["label"].isin(("mean", "all"))]
    return rows[rows["model"] == rows["model"].iloc[0]] if len(rows) > 1 else rows.iloc[:0]


def _size(table):
    from cxrlib.show import words

    rows = _per_finding(table)
    if rows.empty or rows["n"].isna().all():
        return ""
    most = rows.loc[rows["n"].astype(float).idxmax()]
    return (
        f"{words.count(most['n'])} films of {words.count(most['n_patients'])} patients of the "
        f"cohort {most['cohort']}."
    )


def _findings(table):
    return f"{', '.join(_per_finding(table)['label'])}." if len(_per_finding(table)) else ""


def _events(table):
    rows = _per_finding(table)
    said = [f"{row['label']} {_number(row['n_positive'])}" for _, row in rows.iterrows()]
    return f"Films with the finding: {', '.join(said)}." if said else ""


def _number(n):
    """A count; one that the guard left out may be small."""
    import pandas as pd

    from cxrlib.show import words

    return HIDDEN if pd.isna(n) else words.count(n)


def _performance(table):
    from cxrlib.show import words

    rows = _zero_shot(table, "auc")
    means = rows[rows["label"] == "mean"]
    if means.empty:
        return ""
    said = [f"{row['model']} {words.fmt_row(row)}" for _, row in means.iterrows()]
    extremes = words.in_words(rows[rows["label"] != "mean"])
    return f"Mean AUC over findings: {', '.join(said)}. By finding: {extremes}"


def _by_group(table):
    rows = table[table["attribute"].isin(GROUPS) & (table["metric"] == "auc")]
    rows = rows[(rows["method"] == "zero-shot") & ~rows["group"].str.contains(" - ", regex=False)]
    return rows[rows["model"] == rows["model"].iloc[0]] if len(rows) else rows


def _subgroups(table):
    from cxrlib.show import words

    rows = _by_group(table)
    means = rows[rows["label"] == "mean"]
    means = means if len(means) else rows
    means = means[means["value"].notna()]
    if means.empty:
        return ""
    low, high = (means.loc[at] for at in (means["value"].idxmin(), means["value"].idxmax()))
    ends = [f"{words.readable(r['group'])} {words.fmt_row(r)}" for r in (low, high)]
    attributes = words.listed(a.replace("_", " ") for a in dict.fromkeys(rows["attribute"]))
    return (
        f"By {attributes}, with intervals: of {means.iloc[0]['model']}, mean AUC from {ends[0]} to "
        f"{ends[1]}; all groups, findings and models are in the table."
    )


def _groups(table):
    from cxrlib.show import words

    rows = (
        _by_group(table).sort_values("n", ascending=False).drop_duplicates(["attribute", "group"])
    )
    said = []
    for attribute in GROUPS:
        own = rows[rows["attribute"] == attribute].set_index("group")
        sizes = []
        for group in words.ordered(own.index):
            films, patients = (_number(own.at[group, column]) for column in ("n", "n_patients"))
            size = films if films == HIDDEN else f"{films} films of {patients} patients"
            sizes.append(f"{words.readable(group)} {size}")
        said += [f"{attribute.replace('_', ' ')}: {', '.join(sizes)}"] if sizes else []
    return f"By {'; by '.join(said)}." if said else ""


def _undefined(table):
    from cxrlib.show import words

    rows = table[table["attribute"].isin(GROUPS) & (table["method"] == "zero-shot")]
    rows = rows[rows["metric"].isin(("auc", "adjusted_auprc"))]
    if rows.empty:
        return ""
    lost = rows[rows["value"].isna()]
    if lost.empty:
        return "Every number by group is defined; who has no recorded group is in none of them."
    why = words.why_undefined(lost)
    return f"{len(lost):,} of {len(rows):,} numbers by group are undefined. {why}"


def _fairness(table):
    rows = _by_group(table)
    if rows.empty:
        return ""
    return (
        "Metrics by group, gaps to a stated reference with paired intervals over patients, the "
        "gaps of an exactly fair model as a floor, and corrections for many comparisons."
    )


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "cohort.size": _size,
    "cohort.findings": _findings,
    "cohort.events": _events,
    "cohort.groups": _groups,
    "results.performance": _performance,
    "results.subgroups": _subgroups,
    "results.undefined": _undefined,
    "study.fairness": _fairness,
}


def estimates(runs: Iterable[record.Run], model: str, by_group: bool) -> list[tuple[str, dict]]:
    """Mean AUC of a model, overall or by group, for a card that programs read.

    Returns
    -------
    list of (str, dict)
        What it is, and ``estimate``, ``lower``, ``upper`` and ``level``.
    """
    for run in runs:
        table = run.table[run.table["model"] == model]
        rows = _by_group(table) if by_group else _zero_shot(table, "auc")
        rows = rows[
            (rows["label"] == "mean") & rows[["value", "ci_low", "ci_high"]].notna().all(axis=1)
        ]
        if len(rows):
            return [
                (
                    f"Mean AUC, {row['attribute'].replace('_', ' ')} {row['group']}"
                    if by_group
                    else "Mean AUC over findings",
                    {
                        "kind": "estimate_ci",
                        "estimate": round(row["value"], 3),
                        "lower": round(row["ci_low"], 3),
                        "upper": round(row["ci_high"], 3),
                        "level": 95,
                    },
                )
                for _, row in rows.iterrows()
            ]
    return []

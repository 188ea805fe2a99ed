"""The ledger: every number and claim of the two papers, each with its verdict.

Results tables that chapters kept (`cxrlib.show.notebook.keep`) are set beside the printed numbers
(`cxrlib.papers.published`) and beside the claims (`cxrlib.papers.claims_s`,
`cxrlib.papers.claims_x`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from cxrlib import schema
from cxrlib.papers import claims_s, claims_x, published
from cxrlib.papers.rules import outcome
from cxrlib.show import notebook, words

CLAIMS = (*claims_s.CLAIMS, *claims_x.CLAIMS)
ENTRY = ["paper", "artefact", "item", "place", "printed", "computed", "verdict", "reason", "note"]
ENTRY += ["cohort", "model", "method", "metric"]
PROBES = ("linear", "knn", "mlp")
NAMES = {"S": "S: Sourget et al. 2025", "X": "X: Sun et al. 2025"}
SAID = "Claims"  # the artefact of a claim


def collect(paths: Iterable[Path | str]) -> pd.DataFrame:
    """The results tables in executed notebooks (kept there by chapters), .csv and .parquet files.

    Returns
    -------
    Results table : all rows of all files, in order

    Raises
    ------
    ValueError
        For a file that is no notebook, .csv or .parquet file, or holds no valid results table;
        names the file.
    """
    tables = []
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        try:
            if path.suffix == ".ipynb":
                tables += notebook.kept(path)
            elif path.suffix in (".csv", ".parquet"):
                read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
                tables.append(schema.results(read(path)))
            else:
                raise ValueError("expected a .ipynb, .csv or .parquet file")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return pd.concat(tables, ignore_index=True) if tables else schema.results([])


def judge(results: pd.DataFrame) -> pd.DataFrame:
    """One verdict for each claim of the two papers.

    Parameters
    ----------
    results : results table

    Returns
    -------
    DataFrame: id, paper, where, statement, cohort, verdict, reason, missing (where the verdict is
    "not run": what the paper's own numbers say, and the first row that was looked for in vain),
    n_rows (rows of `results` that the rule used). The verdicts are those of `published.compare`;
    the reason begins with what the paper's own numbers say, where they can decide the claim:

    contradicted by the paper's own numbers : its printed numbers break the rule, whatever was run
    reproduced, differs : the rule holds, or not, for the paper's models on the paper's cohort
    not comparable (another cohort) : the rule could be applied to other images or models only;
        `reason` says with which outcome
    not run : a row is missing; `reason` says which, and what it takes
    """
    papers = published.load().groupby("paper")
    in_print = {paper: _by_cohort(rows) for paper, rows in papers}
    run, none = _by_cohort(results), published.prepared(schema.results([]))
    judged = [_judged(claim, in_print[claim.paper], run, none) for claim in CLAIMS]
    table = pd.DataFrame(CLAIMS).drop(columns=["models", "rule", "files"])
    return table.join(pd.DataFrame(judged, columns=["verdict", "reason", "missing", "n_rows"]))


def _by_cohort(table):
    return dict(list(published.prepared(table).groupby("cohort")))


def _judged(claim, printed, run, none):
    own = outcome(claim, run.get(claim.cohort, none), claim.models)
    in_print = outcome(claim, printed.get(claim.cohort, none), claim.models)
    elsewhere = {
        cohort: found
        for cohort, table in run.items()
        if cohort != claim.cohort and (found := outcome(claim, table)).holds is not None
    }
    of_paper = [_told("in print", in_print)]
    of_paper += [f"in the authors' files: {claim.files}"] if claim.files else []
    here = [_told(f"on {claim.cohort}", own), *(_told(f"on {c}", o) for c, o in elsewhere.items())]
    used, missing = own.rows, ""
    if in_print.holds is False:
        verdict = published.CONTRADICTED
    elif own.holds is not None:
        verdict = published.REPRODUCED if own.holds else published.DIFFERS
    elif elsewhere:
        verdict = published.OTHER_COHORT
        used = pd.concat([o.rows for o in elsewhere.values()])
    else:
        verdict = published.NOT_RUN
        missing = "; ".join(filter(None, [*of_paper, own.text]))
        here = [f"needs {published.NEEDED[claim.cohort]}", own.text]
    return verdict, "; ".join(filter(None, [*of_paper, *here])), missing, len(used)


def _told(where, found):
    """What a rule found in one place, in words; "" where it could not tell."""
    if found.holds is None:
        return ""
    return f"{where}: {'holds' if found.holds else 'does not hold'}, {found.text}"


def ledger(results: pd.DataFrame) -> pd.DataFrame:
    """Every printed number and every claim with its verdict.

    Parameters
    ----------
    results : results table

    Returns
    -------
    DataFrame, papers and their tables in order: paper, artefact ("Table 1", ...; "Claims"), item
    (what the number is, or the statement), place (where in the paper), printed, computed (as
    text), verdict, reason (what the verdict rests on, or what is missing), note, cohort, and of
    numbers model, method and metric
    """
    numbers = published.compare(results, published.printed())
    numbers = numbers.assign(
        item=[_item(row) for _, row in numbers.iterrows()],
        printed=_as_text(numbers, ["value", "ci_low", "ci_high"]),
        computed=_as_text(numbers, published.COMPUTED),
    )[ENTRY]
    names = {"where": "place", "statement": "item", "missing": "note"}
    said = judge(results).rename(columns=names).assign(artefact=SAID, printed="", computed="")
    parts = [t[t["paper"] == paper] for paper in NAMES for t in (said, numbers)]
    return pd.concat(parts, ignore_index=True)


def _item(row):
    """What a printed number is about, in words."""
    metric = row["metric"].removeprefix("n_").replace("_", " ")
    group = "" if row["attribute"] == "all" or " - " in row["group"] else row["attribute"]
    parts = [
        row["cohort"] if pd.isna(row["method"]) else row["model"],
        words.readable(row["method"]) if row["method"] in PROBES else row["method"],
        row["label"].replace("_", " "),
        f"{group} {row['group']}".strip().replace("_", " and "),
        published.TITLES.get(row["metric"]) or words.NAMES.get(row["metric"], metric),
    ]
    return ", ".join(part for part in parts if pd.notna(part) and part not in ("all", "zero-shot"))


def _as_text(table, columns):
    rounding = table["rounding"]
    return [
        "" if pd.isna(value) else published.interval(value, low, high, unit)
        for value, low, high, unit in zip(*(table[c] for c in columns), rounding, strict=True)
    ]


def counts(entries: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given: one row per verdict, numbers and claims of each paper."""
    kind = (entries["artefact"] == SAID).map({True: "claims", False: "numbers"})
    columns = [f"{paper} {k}" for paper in NAMES for k in ("numbers", "claims")]
    table = pd.crosstab(entries["verdict"], entries["paper"] + " " + kind)
    table = table.reindex(index=published.VERDICTS, columns=columns, fill_value=0)
    table.insert(0, "all", table.sum(axis=1))
    return table.rename_axis(index="verdict", columns=None)


def as_text(entries: pd.DataFrame) -> str:
    """The ledger for a terminal: counts first, then the entries of each table of each paper."""
    lines = [counts(entries).to_string(), ""]
    for (paper, artefact), block in entries.groupby(["paper", "artefact"], sort=False):
        lines.append(f"{paper} {artefact}")
        for _, row in block.iterrows():
            printed = f" = {row['printed']}" if row["printed"] else ""
            lines.append(f"  [{row['verdict']}] {row['item']}{printed}")
            lines.append(f"      {row['reason']}")
        lines.append("")
    return "\n".join(lines)


# --- the page of the book ----------------------------------------------------------------------

PAGE = Path(__file__).with_name("ledger.md").read_text(encoding="utf-8")


def page(entries: pd.DataFrame, n_rows: int, audits: Sequence[str] = ()) -> str:
    """The ledger as a page of the book: MyST text.

    Everything is in the page; `book/assets/ledger.js` only hides rows on request.

    Parameters
    ----------
    entries : DataFrame
        See `ledger`.
    n_rows : int
        Of the results table behind it.
    audits : sequence of str
        Names of the chapters that audit the papers, for links.
    """
    said = entries["artefact"] == SAID
    sections = []
    for paper, name in NAMES.items():
        sections.append(f"## {name}")
        blocks = entries[entries["paper"] == paper].groupby("artefact", sort=False)
        sections += [_section(paper, artefact, block) for artefact, block in blocks]
    return PAGE.format(
        n_numbers=int((~said).sum()),
        n_claims=int(said.sum()),
        n_rows=f"{n_rows:,}",
        audits="; ".join(f"[](chapters/{name}.ipynb)" for name in audits) or "the audits",
        counts=_counts_table(entries),
        verdicts="".join(f"<option>{html.escape(v)}</option>" for v in published.VERDICTS),
        papers="".join(f"<option>{p}</option>" for p in NAMES),
        sections="\n\n".join(sections),
    )


def _section(paper, artefact, block):
    title = "Claims in words" if artefact == SAID else artefact
    above = _needs(block, artefact)
    shared = block["note"].iloc[0]
    if len(block) > 1 and shared and (block["note"] == shared).all():
        above += f"For every number here: {shared}.\n\n"
        block = block.assign(note="")
    block = block.assign(
        why=[_why(row) for _, row in block.iterrows()],
        where=block["place"].where(block["place"] != artefact, ""),
    )
    columns = ("item", "verdict", "printed", "computed", "why", "where")
    columns = [column for column in columns if (block[column] != "").any()]
    first, why = ("claim", "why") if artefact == SAID else ("number", "notes")
    heads = [{"item": first, "why": why}.get(column, column) for column in columns]
    rows = []
    for _, row in block.iterrows():
        first, *rest = (html.escape(row[column]) for column in columns)
        named = zip(columns[1:], heads[1:], rest, strict=True)
        cells = "".join(f'<td class="{c}" data-label="{h}">{x}</td>' for c, h, x in named)
        verdict = html.escape(row["verdict"], quote=True)
        rows.append(
            f'<tr data-verdict="{verdict}" data-paper="{paper}">'
            f'<th scope="row">{first}</th>{cells}</tr>'
        )
    table = _table(f"{NAMES[paper]}, {title}", heads, rows, "cxr-wordy")
    head = f"({anchor(paper, artefact)})=\n### {paper}, {title}"
    return f"{head}\n\n{above}```{{raw}} html\n{table}\n```"


def anchor(paper: str, artefact: str) -> str:
    """The label of a section of the page, for links."""
    return "-".join(["ledger", *re.findall(r"\w+", f"{paper} {artefact}".lower())])


def _why(row):
    """What a verdict rests on, where no other cell says it; needs are said above the table."""
    told = {published.NOT_RUN}
    if row["artefact"] != SAID:
        told |= {published.REPRODUCED, published.WITHIN, published.DIFFERS}
    reason = "" if row["verdict"] in told else row["reason"]
    return "; ".join(filter(None, [reason, row["note"]]))


def _needs(block, artefact):
    """A sentence on what the entries of a table need that were not run."""
    open_ = block[block["verdict"] == published.NOT_RUN]
    if open_.empty:
        return ""
    needed = published.needed(open_)
    if artefact == SAID:
        data = [published.NEEDED[cohort] for cohort in open_["cohort"].unique()]
        needed = "; ".join([*data, "the weights of the paper's models"])
    return f"Not run: {len(open_)} of {len(block)}. Needed: {needed}.\n\n"


def _counts_table(entries):
    table = counts(entries)
    rows = [
        f'<tr><th scope="row">{html.escape(verdict)}</th>'
        + "".join(f'<td class="number">{n}</td>' for n in row)
        + "</tr>"
        for verdict, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return _table("Entries by verdict", ["verdict", *table.columns], rows)


def _table(label, heads, rows, kind=""):
    label = html.escape(label, quote=True)
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    lines = [f'<div class="cxr-scroll" role="region" aria-label="{label}" tabindex="0">']
    lines.append(f'<table class="cxr-table cxr-ledger {kind}"><thead><tr>{head}</tr></thead>')
    lines += ["<tbody>", *rows, "</tbody></table></div>"]
    return "\n".join(lines)

"""The role ``{published}``: a number that one of the two papers prints, looked up, never typed.

``{published}`S Table 1; MedCLIP; mean; auc` `` reads "0.83" and links to the ledger. In front
stand the paper and the table, figure or section; behind it, in any order and separated by ``;``,
entries of the row of ``cxrlib/papers/published.csv`` (its cohort, model, method, label, attribute,
group, metric) until only one row is left. ``%`` prints a fraction as a percentage; ``interval``
adds the printed interval.
"""

from functools import cache

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from cxrlib.papers import published

PERCENT, INTERVAL = "%", "interval"
printed = cache(published.printed)  # reading and validating it takes a while


def find(text):
    """The printed number that the text of a role names.

    Parameters
    ----------
    text : str
        As in ``{published}`text` ``.

    Returns
    -------
    (str, str, str)
        The number with as many digits as in print, the ledger's heading above it ("S, Table 1"),
        and what it is, in words.

    Raises
    ------
    ValueError
        If no row or several rows fit, or the row has no interval although one is asked for.
    """
    name, *words = (part.strip() for part in text.split(";"))
    rows = printed()
    names = rows["paper"] + " " + rows["artefact"]
    if not (names == name).any():
        raise ValueError(f"unknown {name!r}; expected one of {', '.join(names.unique())}")
    rows = rows[names == name]
    for word in words:
        if word in (PERCENT, INTERVAL):
            continue
        fits = rows[rows[published.KEYS].eq(word).any(axis=1)]
        if fits.empty:
            raise ValueError(f"no row with {word!r}; expected one of {_open(rows)}")
        rows = fits
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows fit; add one of {_open(rows)}")
    row = rows.iloc[0]
    ends = ["value", "ci_low", "ci_high"] if INTERVAL in words else ["value"]
    if row[ends].isna().any():
        raise ValueError("no interval is printed; leave 'interval' out")
    scale = 100 if PERCENT in words else 1
    said, *limits = (published.number(scale * row[c], scale * row["rounding"]) for c in ends)
    said += f" [{', '.join(limits)}]" if limits else ""
    said += " %" if PERCENT in words else ""
    what = row[published.KEYS].dropna()
    what = ", ".join(entry for entry in what if entry != "all")
    return said, f"{row['paper']}, {row['artefact']}", what


def _open(rows):
    """The entries that tell these rows apart."""
    columns = [c for c in published.KEYS if rows[c].nunique(dropna=False) > 1]
    entries = dict.fromkeys(entry for c in columns for entry in rows[c].dropna())
    return ", ".join(map(repr, entries)) or "nothing: leave it out"


class Published(SphinxRole):
    def run(self):
        try:
            said, heading, what = find(self.text)
        except ValueError as error:
            logging.getLogger(__name__).warning(
                "{published}`%s`: %s", self.text, error, location=self.get_location()
            )
            return [nodes.Text(self.text)], []
        page = self.env.app.builder.get_relative_uri(self.env.docname, "ledger")
        link = nodes.reference(
            self.rawtext,
            said,
            refuri=f"{page}#{nodes.make_id(heading)}",
            reftitle=f"{heading}, as printed: {what}",
            internal=True,
            classes=["cxr-published"],
        )
        return [link], []


def setup(app):
    app.add_role("published", Published())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

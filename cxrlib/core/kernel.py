"""Whether this process runs a notebook, and the keys of what a notebook keeps for the driver."""

from __future__ import annotations

import sys

# Outputs under papermill's prefix are data of a notebook: myst_nb and viewers do not show them.
RECORD = "application/papermill.record/"
KEPT = f"{RECORD}text/cxrbook-results"
FIGURE = f"{RECORD}text/cxrbook-figure"  # what the page needs to know of a figure
SAID = f"{RECORD}text/cxrbook-said"  # a paragraph of the page
CSV = f"{RECORD}text/csv"  # the table behind a figure or a shown table
NUMBER = '<span class="cxr-number"></span>'  # where the page puts the number of a table
DOWNLOAD = '<span class="cxr-download"></span>'  # and the link to its CSV
MEANINGLESS = "cxr-meaningless"  # class of the warning that numbers mean nothing


def in_notebook() -> bool:
    """True inside an IPython kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None

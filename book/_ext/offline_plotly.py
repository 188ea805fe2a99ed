"""Serve plotly.js from the book itself, for the figures of `cxrlib.show.interactive`."""

import shutil
from importlib.resources import files
from pathlib import Path


def copy_plotly(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    if any('class="cxr-interactive"' in p.read_text("utf-8") for p in out.glob("chapters/*.html")):
        shutil.copy(files("plotly") / "package_data" / "plotly.min.js", out / "_static")


def setup(app):
    app.connect("build-finished", copy_plotly)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

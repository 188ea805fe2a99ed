"""Faults of the theme and of docutils that hinder readers, mended in the finished pages.

Wide tables scroll in a box that the keyboard reaches, figures open in full size, the list of
references claims no role that it does not fulfil, and no button leads nowhere.
"""

import re
from html import escape

TABLE = re.compile(
    r'<div class="pst-scrollable-table-container">(<table class="table".*?</table>)', re.DOTALL
)
HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
FIGURE = re.compile(r'(<figure\b[^>]*>\s*)(<img [^>]*?src="([^"]+)"[^>]*>)')
TAGS = re.compile(r"<[^>]+>")


def scrolling(found):
    """A table in its scrolling box, named after its columns."""
    columns = ", ".join(" ".join(TAGS.sub("", h).split()) for h in HEAD.findall(found[1]))
    label = escape(columns, quote=True).replace("&amp;", "&")
    return (
        f'<div class="cxr-scroll" role="region" aria-label="Table: {label}" tabindex="0">{found[1]}'
    )


def mended(body):
    """The body of a page, as HTML."""
    body = TABLE.sub(scrolling, body)
    body = FIGURE.sub(r'\1<a class="cxr-larger" href="\3">\2</a>', body)
    return body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def on_page(app, name, template, context, doctree):
    if "body" in context:
        context["body"] = mended(context["body"])
    for group in context["header_buttons"]:  # no link to sources, which the book does not carry
        if "buttons" in group:
            group["buttons"] = [b for b in group["buttons"] if "_sources" not in b.get("url", "")]


def setup(app):
    app.connect("html-page-context", on_page, priority=900)  # after the theme
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

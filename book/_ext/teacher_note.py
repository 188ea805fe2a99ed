"""The directive {teacher}: a note that students do not get (`cxrlib.book.pages.FENCES`)."""

from docutils import nodes
from docutils.parsers.rst import Directive


class Teacher(Directive):
    has_content = True

    def run(self):
        note = nodes.admonition("", nodes.title("", "For teachers"), classes=["tip"])
        self.state.nested_parse(self.content, self.content_offset, note)
        return [note]


def setup(app):
    app.add_directive("teacher", Teacher)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

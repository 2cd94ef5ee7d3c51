"""The directive ``notebook-figure``: show a figure of an executed notebook on another page.

The picture is read from the notebook's committed output, so there is no second copy to go stale.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class NotebookFigure(SphinxDirective):
    """``{notebook-figure} notebooks/11_low_data fig-name``, with a caption as its content."""

    required_arguments = 2
    has_content = True
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        page, name = self.arguments
        path = Path(self.env.srcdir, f"{page}.ipynb")
        self.env.note_dependency(str(path))
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == name:
                pictures = [o["data"]["image/svg+xml"] for o in cell["outputs"] if "image/svg+xml" in o.get("data", {})]
                break
        else:
            raise self.error(f"{page} has no figure named {name}")
        if len(pictures) != 1:
            raise self.error(f"{page}: {name} holds {len(pictures)} SVG pictures, expected one")
        svg = "".join(pictures[0])
        svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(self.options["alt"])}"', 1)
        caption = nodes.container(classes=["tdi-figure"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        return [nodes.raw("", f'<div class="tdi-figure-picture">{svg}</div>', format="html"), caption]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("notebook-figure", NotebookFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

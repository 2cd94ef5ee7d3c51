"""The directive ``data-sets``: a table of the data sets that the library knows, from the library itself."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tdi_lib.data import sets


def sizes() -> list[list[str]]:
    """What each set holds, as the cells of a table in MyST."""
    rows = [["name", "train", "test", "steps", "channels", "classes"]]
    return rows + [[f"`{name}`", *(f"{n:,}" for n in sets.describe(name).shape)] for name in sets.available()]


def origins() -> list[list[str]]:
    """Where the sets come from and whom to cite, those of one origin together."""
    together: dict[tuple[str, str, str], list[str]] = {}
    for name in sets.available():
        known = sets.describe(name)
        cite = " ".join(f"{{cite:p}}`{key}`" for key in re.findall(r"\[(\w+)\]", known.citation)) or known.citation
        together.setdefault((origin(known.source), known.license, cite), []).append(f"`{name}`")
    return [["sets", "from", "license", "cite"], *([", ".join(names), *rest] for rest, names in together.items())]


def origin(source: str) -> str:
    """Where a set comes from, in a word or two."""
    if source.startswith("generated"):
        return "generated"
    first = source.split(" ")[0]
    if "://" in first:
        return "its authors' site" + (", no checksum known" if "no checksum" in source else "")
    kind = "Debian" if first.startswith("apt:") else "Python"
    package = re.split("=+", first.removeprefix("apt:"))[0]
    others = source.count(";")
    return f"{kind} package `{package}`" + (f" and {others} like it" if others else "")


class DataSets(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(sets.__file__)
        tables = nodes.container()
        for rows in (sizes(), origins()):
            lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
            text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]
            self.state.nested_parse(StringList(text, source=self.env.docname), self.content_offset, tables)
        return list(tables.children)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("data-sets", DataSets)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

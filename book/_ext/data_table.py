"""The directive ``data-sets``: a table of the data sets that the library knows, from the library itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import tdi_lib
from tdi_lib.data import sets
from tdi_lib.study.carrier import in_words

CARRIERS = Path(tdi_lib.__file__).parents[1] / "results" / "carrier.parquet"  # the pages are built from a copy


def sizes() -> list[list[str]]:
    """What each set holds, as the cells of a table in MyST."""
    rows = [["name", "train", "test", "steps", "channels", "classes", "test part"]]
    for known in map(sets.describe, sets.available()):
        rows.append([f"`{known.name}`", *(f"{n:,}" for n in known.shape), known.split])
    return rows


def origins() -> list[list[str]]:
    """Where the sets come from and whom to cite, those of one origin together."""
    together: dict[tuple[str, str, str], list[str]] = {}
    for name in sets.available():
        known = sets.describe(name)
        cite = " ".join(f"{{cite:p}}`{key}`" for key in re.findall(r"\[(\w+)\]", known.citation)) or known.citation
        together.setdefault((origin(known.source), known.license, cite), []).append(f"`{name}`")
    return [["sets", "from", "license", "cite"], *([", ".join(names), *rest] for rest, names in together.items())]


def carriers(recorded: pd.DataFrame) -> list[list[str]]:
    """What a linear classifier makes of each set that was measured, in the order of the others."""
    rows = [["name", "series", "spectrum", "largest class", "in words"]]
    measured = {row["dataset"]: row for row in recorded.to_dict("records")}
    for row in (measured[name] for name in sets.available() if name in measured):
        told = [row["series"], row["spectrum"], row["largest"]]
        rows.append([f"`{row['dataset']}`", *(f"{value:.2f}" for value in told), in_words(*told)])
    return rows


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
    """Sizes and origins or, with the argument ``carriers``, what carries the class."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(sets.__file__)
        self.env.note_dependency(str(CARRIERS))
        tables = nodes.container()
        for rows in [carriers(pd.read_parquet(CARRIERS))] if self.arguments else [sizes(), origins()]:
            lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
            text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]
            self.state.nested_parse(StringList(text, source=self.env.docname), self.content_offset, tables)
        return list(tables.children)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("data-sets", DataSets)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

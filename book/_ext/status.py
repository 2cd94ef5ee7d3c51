"""The directive ``status``: what chapters and recorded studies were made with, read from the records themselves."""

from __future__ import annotations

import json
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet
from docutils import nodes
from docutils.statemachine import StringList
from explorers import RESULTS
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tdi_lib.book.claims import SYMBOLS, read_claims

PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "pandas", "jupyter-book", "sphinx")


def replays(study: str, source: str) -> bool:
    """Whether the code reads the study, by its name or by its file's."""
    return re.search(rf"replay\(\"{study}\"|\b{study}\.parquet", source) is not None


def chapters(root: Path, pages: list[str]) -> list[list[str]]:
    """Per notebook: whether its outputs are recorded, its size, the studies it replays, its claims by verdict."""
    record = root.parent / "execution.json"  # what the build executed; the other notebooks hold recorded outputs
    executed = json.loads(record.read_text("utf-8")) if record.exists() else {}
    rows = [["chapter", "outputs", "code cells", "replays", *(f"{sign} {word}" for word, sign in SYMBOLS.items())]]
    for page in pages:
        path = root / f"{page}.ipynb"
        cells = [each for each in json.loads(path.read_text("utf-8"))["cells"] if each["cell_type"] == "code"]
        source = "\n".join("".join(each["source"]) for each in cells)
        studies = [file.stem for file in sorted(RESULTS.glob("*.parquet")) if replays(file.stem, source)]
        verdicts = [claim.verdict for claim in read_claims(path)]
        how = f"executed here, profile {root.name}" if f"{root.name}/{path.stem}" in executed else "recorded"
        done = how if all(each["execution_count"] for each in cells) else "none yet"
        replayed = ", ".join(f"`{name}`" for name in studies) or "–"
        counts = [str(verdicts.count(word)) for word in SYMBOLS]
        rows.append([f"{{doc}}`{page.removeprefix('notebooks/')} </{page}>`", done, str(len(cells)), replayed, *counts])
    return rows


def studies() -> list[list[str]]:
    """Per recorded study: its rows, what they took, where and with which versions."""
    rows = [["study", "rows", "hours of one core", "device", "python", "torch", "numpy", "commits"]]
    for path in sorted(RESULTS.glob("*.parquet")):
        table = pyarrow.parquet.read_table(path)
        taken = sum(filter(None, table["seconds"].to_pylist())) if "seconds" in table.column_names else None
        origins = [json.loads(each) for each in table["provenance"].to_pylist()]
        of = {name: sorted({origin[name] for origin in origins}) for name in origins[0]}
        hours = "–" if taken is None else f"{taken / 3600:.2g}"
        made = [", ".join(of[name]) for name in ("device", "python", "torch", "numpy")]
        rows.append([f"`{path.stem}`", f"{table.num_rows:,}", hours, *made, ", ".join(of["commit"])])
    return rows


class Status(SphinxDirective):
    """``{status} chapters``, ``{status} studies`` or ``{status} versions`` (of what built the pages)."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (what,) = self.arguments
        root, pages = (
            Path(self.env.srcdir),
            sorted(page for page in self.env.found_docs if page.startswith("notebooks/")),
        )
        for path in [*RESULTS.glob("*.parquet"), *(root / f"{page}.ipynb" for page in pages), Path(__file__)]:
            self.env.note_dependency(str(path))
        versions = [["python", *PACKAGES], [platform.python_version(), *map(version, PACKAGES)]]
        rows = {"chapters": lambda: chapters(root, pages), "studies": studies, "versions": lambda: versions}[what]()
        lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        text = ["| " + " | ".join(cells) + " |" for cells in lines]
        table = nodes.container(classes=["tdi-status"])
        self.state.nested_parse(StringList(text, source=self.env.docname), self.content_offset, table)
        return [table]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("status", Status)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

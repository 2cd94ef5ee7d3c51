"""Equations and figures are numbered by chapter: (5.3) is the third of chapter 05; other pages count on their own."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def renumber(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Sphinx has numbered all pages in one go: within each, count from one and put the chapter before."""
    for page, kinds in env.toc_fignumbers.items():
        found = re.match(r"0*(\d+)_", PurePosixPath(page).name)
        chapter = (int(found[1]),) if found else ()
        for numbers in kinds.values():
            in_order = sorted(numbers, key=lambda label: numbers[label])
            numbers.update({label: (*chapter, count) for count, label in enumerate(in_order, 1)})
    return []  # which pages to write again is known: those whose numbers changed


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-get-updated", renumber, priority=900)  # when Sphinx has numbered
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}

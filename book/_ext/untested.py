"""What a small profile leaves untested is glued as None: in prose it reads as a dash, whatever its format."""

from __future__ import annotations

from typing import Any

from myst_nb.core.variables import format_plain_text
from myst_nb.ext.glue import crossref, roles
from sphinx.application import Sphinx


def formatted(text: str, fmt_spec: str) -> str:
    """The text of a glued value in its format; a dash for None, which no number's format takes."""
    return "–" if text == "None" else format_plain_text(text, fmt_spec)


def setup(app: Sphinx) -> dict[str, Any]:
    crossref.format_plain_text = roles.format_plain_text = formatted
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

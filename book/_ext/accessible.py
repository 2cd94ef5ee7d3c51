"""What Sphinx writes and a screen reader stumbles over."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def current_roles(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """The role that Sphinx gives an entry of a bibliography is deprecated; in a list it is an item."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", current_roles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

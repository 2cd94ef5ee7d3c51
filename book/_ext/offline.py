"""Pages that ask nobody else for anything: MathJax is served from the book, Thebe is left out."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# The package bundles all of MathJax, 24 MB. These are the 2 MB that TeX on a page can ask for.
PARTS = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2")


def copy_mathjax(app: Sphinx) -> None:
    # The package's name has hyphens: it can be found, not imported.
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None or app.builder.format != "html":
        return
    source = Path(spec.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        to = target / part
        to.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, to, dirs_exist_ok=True)
        else:
            shutil.copy2(source / part, to)


def use_local_mathjax(app: Sphinx, config: Any) -> None:
    config.mathjax_path = "mathjax/tex-chtml.js"


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if not is_thebe(script)]


def is_thebe(script: Any) -> bool:
    body = getattr(script, "attributes", {}).get("body") or ""
    return "thebe" in f"{getattr(script, 'filename', script)} {body}".lower()


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", use_local_mathjax, priority=900)
    app.connect("builder-inited", copy_mathjax)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

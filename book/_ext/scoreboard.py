"""The directive ``scoreboard`` and the role ``verdict``: verdicts computed from recorded claims."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole

from tdi_lib.book.claims import SYMBOLS, Claim, read_claims

Recorded = dict[str, list[tuple[str, Claim]]]


def overall(verdicts: Iterable[str]) -> str:
    """The worst of the verdicts: one failure fails the entry, one undecided claim leaves it so."""
    found = set(verdicts)
    return next((word for word in ("fails", "undecided", "holds") if word in found), "not yet tested")


def recorded(env: BuildEnvironment) -> Recorded:
    """Per catalogue entry, the claims of the book's notebooks with the page that makes each."""
    root = Path(env.srcdir)
    catalogue = root / "book" / "claims.yml"
    entries: Recorded = {entry: [] for entry in yaml.safe_load(catalogue.read_text("utf-8"))}
    # The folder is a dependency too: its time changes when a notebook comes, goes or is replaced.
    depends = [catalogue, root / "notebooks"]
    for page in sorted(page for page in env.found_docs if page.startswith("notebooks/")):
        depends.append(root / f"{page}.ipynb")
        for claim in read_claims(depends[-1]):
            if claim.entry not in entries:
                raise ValueError(f"{page}: {claim.id} names no entry of {catalogue.name}")
            entries[claim.entry].append((page, claim))
    for path in depends:
        env.note_dependency(str(path))
    return entries


def badge(verdict: str) -> str:
    return f'<td data-verdict="{verdict}">{SYMBOLS[verdict]} {verdict}</td>'


class Scoreboard(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        texts = yaml.safe_load((Path(self.env.srcdir) / "book" / "claims.yml").read_text("utf-8"))
        entries = recorded(self.env)
        verdicts = {entry: overall(c.verdict for _, c in made) for entry, made in entries.items()}
        counts = {word: list(verdicts.values()).count(word) for word in SYMBOLS}
        summary = ", ".join(f"{SYMBOLS[word]} {word}: {n}" for word, n in counts.items())
        rows = "".join(self.rows(e, texts[e], verdicts[e], made) for e, made in entries.items())
        heads = "".join(
            f'<th scope="col">{head}</th>' for head in ("Claim", "Measured", "Expected", "Source", "Verdict")
        )
        html = (
            f'<p class="tdi-summary">{summary}</p>'
            f'<table class="tdi-scoreboard"><thead><tr>{heads}</tr></thead>{rows}</table>'
        )
        return [nodes.raw("", html, format="html")]

    def rows(self, entry: str, text: str, verdict: str, made: list[tuple[str, Claim]]) -> str:
        head = (
            f'<tr class="tdi-entry" id="{entry}"><th scope="rowgroup" colspan="4">'
            f"<b>{entry}</b> {escape(text)}</th>{badge(verdict)}</tr>"
        )
        return f"<tbody>{head}{''.join(self.row(page, c) for page, c in made)}</tbody>"

    def row(self, page: str, claim: Claim) -> str:
        link = self.env.app.builder.get_relative_uri(self.env.docname, page)
        cells = {
            "Measured": claim.value_text,
            "Expected": claim.expected_text,
            "Source": claim.source,
        }
        return (
            f'<tr><th scope="row"><a href="{link}#claim-{claim.id}">'
            f"{escape(claim.statement or claim.id)}</a></th>"
            + "".join(f'<td data-head="{k}">{escape(v)}</td>' for k, v in cells.items())
            + f"{badge(claim.verdict)}</tr>"
        )


class Verdict(SphinxRole):
    """The verdict on a catalogue entry, for use in prose: ``{verdict}`C1` ``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        entries = recorded(self.env)
        if self.text not in entries:
            message = self.inliner.reporter.error(f"verdict: no entry {self.text!r}")
            return [], [message]
        return [nodes.Text(overall(c.verdict for _, c in entries[self.text]))], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("scoreboard", Scoreboard)
    app.add_role("verdict", Verdict())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

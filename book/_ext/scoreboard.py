"""The directive ``scoreboard`` and the role ``verdict``: verdicts and answers computed from recorded claims.

The page opens with one row an entry; the claims behind it unfold. ``scoreboard.json`` beside the pages holds the same.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole

from tdi_lib.book.claims import ROLES, SYMBOLS, Claim, Entry, read_catalogue, read_claims

Recorded = dict[str, tuple[Entry, list[tuple[str, Claim]]]]
HEADS = {
    "deciding": "What decides",
    "boundary": "Boundaries: where and how it stops holding, and what surrounds it",
    "target": "Targets that we set ourselves",
}


def recorded(env: BuildEnvironment) -> Recorded:
    """Per catalogue entry, the claims of the book's notebooks with the page that makes each."""
    root = Path(env.srcdir)
    path = root / "book" / "claims.yml"
    entries: Recorded = {name: (entry, []) for name, entry in read_catalogue(path).items()}
    # The folder is a dependency too: its time changes when a notebook comes, goes or is replaced.
    depends = [path, root / "notebooks"]
    for page in sorted(page for page in env.found_docs if page.startswith("notebooks/")):
        depends.append(root / f"{page}.ipynb")
        for claim in read_claims(depends[-1]):
            if claim.entry not in entries:
                raise ValueError(f"{page}: {claim.id} names no entry of {path.name}")
            entries[claim.entry][1].append((page, claim))
    if "docname" in env.temp_data:  # while a page is read
        for each in depends:
            env.note_dependency(str(each))
    return entries


def judged(entry: Entry, made: list[tuple[str, Claim]]) -> tuple[str, str]:
    """The verdict on an entry, and its answer with the measured numbers."""
    claims = [claim for _, claim in made]
    return entry.verdict(claims), (entry.answered(claims) if claims else "") or "Not yet tested."


def badge(verdict: str) -> str:
    return f'<span class="tdi-badge" data-verdict="{verdict}">{SYMBOLS[verdict]} {verdict}</span>'


class Scoreboard(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        entries = recorded(self.env)
        verdicts = [judged(entry, made)[0] for entry, made in entries.values()]
        summary = ", ".join(f"{SYMBOLS[word]} {word}: {verdicts.count(word)}" for word in SYMBOLS)
        rows = "".join(self.entry(entry, made) for entry, made in entries.values())
        data = f'<a href="{self.env.app.builder.get_relative_uri(self.env.docname, "index")}">'
        data = data.replace("index.html", "scoreboard.json")
        html = (
            f'<p class="tdi-summary">{summary} ({data}the same as data</a>)</p><div class="tdi-scoreboard">{rows}</div>'
        )
        return [nodes.raw("", html, format="html")]

    def entry(self, entry: Entry, made: list[tuple[str, Claim]]) -> str:
        verdict, answer = judged(entry, made)
        tables = "".join(self.table(role, [each for each in made if entry.role(each[1]) == role]) for role in ROLES)
        return (
            f'<details class="tdi-entry" id="{entry.id}"><summary><b>{entry.id}</b>'
            f'<span class="tdi-text">{escape(entry.text)}</span>{badge(verdict)}</summary>'
            f'<p class="tdi-answer">{escape(answer)}</p>{tables}</details>'
        )

    def table(self, role: str, made: list[tuple[str, Claim]]) -> str:
        if not made:
            return ""
        heads = "".join(f'<th scope="col">{h}</th>' for h in ("Claim", "Measured", "Expected", "Source", "Verdict"))
        rows = "".join(self.row(page, claim) for page, claim in made)
        return f"<table><caption>{HEADS[role]}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def row(self, page: str, claim: Claim) -> str:
        link = self.env.app.builder.get_relative_uri(self.env.docname, page)
        cells = {"Measured": claim.value_text, "Expected": claim.expected_text, "Source": claim.source}
        return (
            f'<tr><th scope="row"><a href="{link}#claim-{claim.id}">{escape(claim.statement or claim.id)}</a></th>'
            + "".join(f'<td data-head="{k}">{escape(v)}</td>' for k, v in cells.items())
            + f"<td>{badge(claim.verdict)}</td></tr>"
        )


class Verdict(SphinxRole):
    """The verdict on a catalogue entry, for use in prose: ``{verdict}`C1` ``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        entries = recorded(self.env)
        if self.text not in entries:
            message = self.inliner.reporter.error(f"verdict: no entry {self.text!r}")
            return [], [message]
        return [nodes.Text(judged(*entries[self.text])[0])], []


def write_json(app: Sphinx, error: Exception | None) -> None:
    """The scoreboard for programs: per entry its text, verdict, answer, and its claims by their role."""
    if error is not None or app.builder.format != "html":
        return
    table = {}
    for name, (entry, made) in recorded(app.env).items():
        verdict, answer = judged(entry, made)
        claims = [{"page": page, "role": entry.role(claim)} | claim.to_json() for page, claim in made]
        table[name] = {"text": entry.text, "verdict": verdict, "answer": answer, "claims": claims}
    text = json.dumps(table, indent=1, ensure_ascii=False)
    Path(app.outdir, "scoreboard.json").write_text(text + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("scoreboard", Scoreboard)
    app.add_role("verdict", Verdict())
    app.connect("build-finished", write_json)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}

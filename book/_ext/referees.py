"""The directive ``referees``: questions, each with the answer that its claims' computed verdict selects.

Its content is YAML, a list of rows: ``question``, ``asked`` (by whom), ``claims`` that decide, and one sentence for
each verdict they can have together: ``holds``, ``fails``, ``undecided``. ``{C1.name}`` in a sentence is that claim's
measured value. A row without claims has not been measured and says so; ``why`` tells what is missing. The role
``measured`` gives the value of one claim, linked to where it is made.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

import scoreboard
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole

from tdi_lib.book.claims import Claim, Entry

UNTESTED = "not yet tested"
NAMED = re.compile(r"\{([CQ]\d+\.[a-z0-9-]+)\}")
FIELDS = {"question", "asked", "claims", "holds", "fails", "undecided", "why"}
Made = dict[str, tuple[str, Claim]]


def all_claims(env: BuildEnvironment) -> Made:
    """Every claim of the book by its id, with the page that makes it."""
    return {claim.id: (page, claim) for _, made in scoreboard.recorded(env).values() for page, claim in made}


def verdict_of(row: dict[str, Any], made: Made) -> str:
    """The worst verdict of the row's claims, as `Entry` has it; untested if one of them is."""
    claims = [made[name][1] for name in row.get("claims", [])]
    if any(claim.verdict == UNTESTED for claim in claims):
        return UNTESTED
    return Entry("C1", "", "", {}).verdict(claims)


def checked(row: dict[str, Any], made: Made) -> dict[str, Any]:
    """The row, if it has what a row needs and names only claims that a notebook makes."""
    needed = {"question", "asked"} | ({"claims", "holds", "fails", "undecided"} if "claims" in row else {"why"})
    if row.keys() - FIELDS or needed - row.keys():
        raise ValueError(f"a row of the referees must have {', '.join(sorted(needed))}, got {', '.join(sorted(row))}")
    named = {*row.get("claims", []), *NAMED.findall(" ".join(str(row.get(v, "")) for v in scoreboard.SYMBOLS))}
    if unknown := sorted(named - made.keys()):
        raise ValueError(f"{row['question']}: no notebook claims {', '.join(unknown)}")
    return row


class Referees(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        made = all_claims(self.env)
        try:
            rows = [checked(row, made) for row in yaml.safe_load("\n".join(self.content))]
        except ValueError as error:
            raise self.error(str(error)) from None
        verdicts = [verdict_of(row, made) for row in rows]
        counts = ", ".join(f"{scoreboard.SYMBOLS[word]} {word}: {verdicts.count(word)}" for word in scoreboard.SYMBOLS)
        heads = "".join(f'<th scope="col">{head}</th>' for head in ("Asked", "Measured", "Verdict"))
        body = "".join(self.row(row, verdict, made) for row, verdict in zip(rows, verdicts, strict=True))
        html = (
            f'<p class="tdi-summary">{counts}</p>'
            f'<table class="tdi-referees"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
        )
        return [nodes.raw("", html, format="html")]

    def row(self, row: dict[str, Any], verdict: str, made: Made) -> str:
        links = []
        for name in row.get("claims", []):
            page, claim = made[name]
            uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
            links.append(f'<a href="{uri}#claim-{name}" title="{escape(claim.statement)}">{name}</a>')
        if verdict == UNTESTED:
            answer = f"Not measured yet. {escape(row.get('why', ''))}"
        else:
            answer = NAMED.sub(lambda found: f"<b>{made[found[1]][1].value_text}</b>", escape(row[verdict]))
        behind = f'<span class="tdi-behind">{", ".join(links)}</span>' if links else ""
        return (
            f'<tr><th scope="row">{escape(row["question"])} <span class="tdi-asked">{escape(row["asked"])}</span></th>'
            f'<td data-head="Measured">{answer} {behind}</td><td>{scoreboard.badge(verdict)}</td></tr>'
        )


class Measured(SphinxRole):
    """The measured value of a claim, for use in prose: ``{measured}`C1.name` ``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        made = all_claims(self.env)
        if self.text not in made:
            return [], [self.inliner.reporter.error(f"measured: no notebook claims {self.text!r}")]
        page, claim = made[self.text]
        uri = f"{self.env.app.builder.get_relative_uri(self.env.docname, page)}#claim-{claim.id}"
        link = nodes.reference("", claim.value_text, refuri=uri, internal=True, classes=["tdi-measured"])
        return [link], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("referees", Referees)
    app.add_role("measured", Measured())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""The claims ledger: numbers that a notebook states, records and lets the tests re-check.

A notebook calls `claim`; what is expected stands in the catalogue, ``book/claims.yml``. The claim is shown in place,
glued under its id for use in prose, collected on the scoreboard, and compared with a re-run within its own tolerance.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, SupportsFloat, cast

__all__ = [
    "MIME",
    "ROLES",
    "SYMBOLS",
    "Claim",
    "Entry",
    "bundle",
    "claim",
    "compare",
    "glued",
    "note",
    "read_catalogue",
    "read_claims",
]

MIME = "application/vnd.tdi.claim+json"
#: What a claim is to its entry: it makes the verdict, it shows where that stops holding, or it is an aim that we set.
ROLES = ("deciding", "boundary", "target")
SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?", "not yet tested": "○"}

Number = SupportsFloat | None
Expected = float | tuple[float | None, float | None]

_FIELDS = {"statement", "expected", "tolerance", "source", "digits", "role"}
_SLUG = re.compile(r"\{([a-z0-9-]+)\}")
_ID = re.compile(r"[CQ][1-9][0-9]?\.[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Claim:
    """One recorded claim; make it with `claim`, which checks the arguments.

    Attributes:
        id: Catalogue entry and a slug, such as ``"C1.toeplitz-gap"``.
        value: The measured number, or None while it is not measured.
        expected: A number, or a pair (low, high) of which one may be None.
        tolerance: Allowed distance from a number expected, and allowed drift of a re-run,
            in the unit of the value.
        source: Where the expectation comes from.
        statement: What is claimed, in a sentence.
        digits: Significant digits shown.
        interval: Confidence interval (low, high) of the value, where there is one; it decides.
    """

    id: str
    value: float | None
    expected: Expected
    tolerance: float
    source: str
    statement: str = ""
    digits: int = 3
    interval: tuple[float, float] | None = None

    @property
    def entry(self) -> str:
        """The catalogue entry the claim belongs to, such as ``"C1"``."""
        return self.id.partition(".")[0]

    @property
    def slug(self) -> str:
        """The claim's name within its entry, such as ``"toeplitz-gap"``."""
        return self.id.partition(".")[2]

    @property
    def verdict(self) -> str:
        """``"holds"``, ``"fails"``, ``"undecided"`` or ``"not yet tested"``, computed from the numbers."""
        if self.value is None:
            return "not yet tested"
        if isinstance(self.expected, tuple):
            low = -math.inf if self.expected[0] is None else self.expected[0]
            high = math.inf if self.expected[1] is None else self.expected[1]
            least, most = self.interval or (self.value, self.value)
            if least < low <= most or least <= high < most:
                return "undecided"
            holds = low <= least and most <= high
        else:
            holds = abs(self.value - self.expected) <= self.tolerance
        return "holds" if holds else "fails"

    @property
    def value_text(self) -> str:
        """The value as shown to a reader."""
        if self.value is None:
            return "–"
        ends = "" if self.interval is None else f" [{', '.join(map(self._format, self.interval))}]"
        return self._format(self.value) + ends

    @property
    def expected_text(self) -> str:
        """The expectation as shown to a reader."""
        if not isinstance(self.expected, tuple):
            return f"{self._format(self.expected)} ± {self._format(self.tolerance)}"
        low, high = self.expected
        if high is None:
            return f"at least {self._format(cast(float, low))}"
        if low is None:
            return f"at most {self._format(high)}"
        return f"{self._format(low)} to {self._format(high)}"

    def to_json(self) -> dict[str, Any]:
        """The claim as a dictionary of JSON types, its verdict included."""
        record = asdict(self) | {"verdict": self.verdict}
        if isinstance(self.expected, tuple):
            record["expected"] = list(self.expected)
        if self.interval is None:
            del record["interval"]
        else:
            record["interval"] = list(self.interval)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Claim:
        """The inverse of `to_json`; the verdict is computed anew, never read."""
        fields = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return _checked(**fields)

    def to_html(self) -> str:
        """A small box for the page; the verdict is a word and a sign, never color alone."""
        rows = {"Measured": self.value_text, "Expected": self.expected_text, "Source": self.source}
        cells = "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in rows.items())
        return (
            f'<div class="tdi-claim" id="claim-{self.id}" role="group" '
            f'aria-label="Claim {self.id}" data-verdict="{self.verdict}">'
            f'<p class="tdi-statement">{escape(self.statement or self.id)}</p>'
            f'<p class="tdi-verdict">{SYMBOLS[self.verdict]} {self.verdict}</p>'
            f"<dl>{cells}</dl></div>"
        )

    def __str__(self) -> str:
        """One line: id, value, expectation, source and verdict."""
        return f"{self.id}: {self.value_text}, expected {self.expected_text} ({self.source}): {self.verdict}"

    def _ipython_display_(self) -> None:
        """Show nothing: `claim` has shown the box, and a cell's last value would repeat it."""

    def _format(self, number: float) -> str:
        return f"{number:.{self.digits}g}"


def claim(
    id: str,
    value: Number,
    expected: Expected | None = None,
    tolerance: float | None = None,
    source: str | None = None,
    *,
    statement: str | None = None,
    digits: int | None = None,
    interval: tuple[float, float] | None = None,
) -> Claim:
    """State a number and hold it against what the catalogue, ``book/claims.yml``, expects of it.

    In IPython the claim is displayed, its value is glued under ``id`` and its verdict under
    ``id + ".verdict"``. Elsewhere it is only returned.

    Args:
        id: Entry of the catalogue, a dot and a slug: ``"C1.toeplitz-gap"``.
        value: The measured number (a 0-d array or tensor will do), or None: not yet tested.
        expected: A number, which holds within ``tolerance``; or a pair (low, high), which holds
            between its ends, both included. One of the ends may be None.
        tolerance: Non-negative, in the unit of ``value``. Also the drift allowed between the
            recorded value and a re-run.
        source: Where the expectation comes from: a paper's table, a theorem, a decision.
        statement: The claim in a sentence.
        digits: Significant digits shown, at least 1.
        interval: Confidence interval (low, high) of ``value``, which must lie in it. The claim then holds if the whole
            interval is as expected, fails if none of it is, and is undecided otherwise. Only with a pair ``expected``.

    What is not given (all but ``value`` and ``interval``) is taken from the catalogue, which is looked for in the
    working folder and those above it. An argument is for what a cell computes: an expectation, a count in a source.

    Returns:
        The claim, with its ``verdict``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has the right type and an impossible content (NaN, a malformed id, an empty source, low
            above high, a negative tolerance, a value outside its interval), or is neither given nor in a catalogue.

    Example:
        >>> gap = claim("C1.toeplitz-gap", 0.012, (None, 0.05), 1e-3, "the finite-L bound")
        >>> gap.verdict
        'holds'
        >>> print(claim("C4.seconds", None, 1.0, 0.5, "v4, section 5"))
        C4.seconds: –, expected 1 ± 0.5 (v4, section 5): not yet tested
        >>> print(claim("C7.gain", 0.1, (0.0, None), 0.01, "paired seeds", interval=(-0.1, 0.3)))
        C7.gain: 0.1 [-0.1, 0.3], expected at least 0 (paired seeds): undecided
    """
    given = {"expected": expected, "tolerance": tolerance, "source": source, "statement": statement, "digits": digits}
    fields: dict[str, Any] = {name: content for name, content in given.items() if content is not None}
    if not fields.keys() >= {"expected", "tolerance", "source"}:
        fields = _listed(id) | fields
    for name in ("expected", "tolerance", "source"):
        if name not in fields:
            raise ValueError(
                f"{name}: got none, expected one here, or for {id!r} in a book/claims.yml from here upwards"
            )
    made = _checked(id, value, interval=interval, **fields)
    _show(made)
    return made


@dataclass(frozen=True)
class Entry:
    """An entry of the catalogue; read it with `read_catalogue`.

    Attributes:
        id: Such as ``"C1"``.
        text: The claim or the question, in a sentence.
        answer: What was measured, in a sentence; ``{slug}`` stands for the value of the entry's claim of that name.
        claims: For each slug what `claim` takes from here: ``statement``, ``expected``, ``tolerance``, ``source``,
            ``digits``; and ``role``, one of `ROLES`.
    """

    id: str
    text: str
    answer: str
    claims: Mapping[str, Mapping[str, Any]]

    def role(self, claim: Claim) -> str:
        """What the claim is to the entry, one of `ROLES`; ``"deciding"`` unless the catalogue says otherwise."""
        return str(self.claims.get(claim.slug, {}).get("role", ROLES[0]))

    def verdict(self, claims: Iterable[Claim]) -> str:
        """The worst verdict of the deciding claims; boundaries and targets of ours do not count.

        >>> far = Claim("C1.far", 0.9, (None, 0.1), 0.01, "set by us")
        >>> near = Claim("C1.near", 0.05, (None, 0.1), 0.01, "Theorem 1")
        >>> Entry("C1", "It is near.", "{near} from it.", {"far": {"role": "boundary"}}).verdict([far, near])
        'holds'
        """
        found = {claim.verdict for claim in claims if self.role(claim) == ROLES[0]}
        return next((word for word in ("fails", "undecided", "holds") if word in found), "not yet tested")

    def answered(self, claims: Iterable[Claim]) -> str:
        """The answer with the numbers as measured.

        Raises:
            ValueError: It names a claim that there is not.
        """
        values = {claim.slug: claim.value_text for claim in claims}
        if unknown := sorted(set(_SLUG.findall(self.answer)) - values.keys()):
            raise ValueError(f"{self.id}: the answer names {', '.join(unknown)}, which no notebook claims")
        return _SLUG.sub(lambda found: values[found[1]], self.answer)


def read_catalogue(path: str | Path) -> dict[str, Entry]:
    """The entries of a catalogue file, in order.

    Args:
        path: A YAML file: for each entry ``text``, ``answer`` and ``claims`` (see `Entry`).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An entry or a claim has other fields, or a role that is none of `ROLES`.
    """
    import yaml

    entries = {}
    for name, content in yaml.safe_load(Path(path).read_text(encoding="utf-8")).items():
        if not isinstance(content, dict) or not {"text"} <= content.keys() <= {"text", "answer", "claims"}:
            raise ValueError(f"path: entry {name} must have a text, and may have an answer and claims")
        entry = Entry(name, content["text"], content.get("answer", ""), content.get("claims", {}))
        for slug, fields in entry.claims.items():
            if unknown := sorted(fields.keys() - _FIELDS):
                raise ValueError(f"path: {name}.{slug} has {', '.join(unknown)}, expected {', '.join(sorted(_FIELDS))}")
            if fields.get("role", ROLES[0]) not in ROLES:
                raise ValueError(f"path: {name}.{slug} has the role {fields['role']!r}, expected {', '.join(ROLES)}")
        entries[name] = entry
    return entries


def _listed(id: str) -> dict[str, Any]:
    """What the nearest catalogue has for the claim: nothing, where there is none."""
    folder = Path.cwd()
    path = next(
        (up / "book" / "claims.yml" for up in (folder, *folder.parents) if (up / "book/claims.yml").exists()), None
    )
    entry, _, slug = str(id).partition(".")
    if path is None or (found := _catalogue(path, path.stat().st_mtime_ns).get(entry)) is None:
        return {}
    return {name: content for name, content in found.claims.get(slug, {}).items() if name != "role"}


@functools.lru_cache(1)
def _catalogue(path: Path, _: int) -> dict[str, Entry]:
    return read_catalogue(path)


def note(name: str, value: SupportsFloat, digits: int = 2) -> None:
    """Glue a number for use in prose, rounded so that it comes out the same on every machine.

    Args:
        name: The key of the glue.
        value: A finite number.
        digits: Decimals that survive another processor; 0 glues a whole number, and may be negative.

    Raises:
        TypeError, ValueError: Naming the argument.

    Nothing is displayed, and outside IPython nothing is glued.
    """
    _text("name", name)
    rounded = round(_number("value", value), digits) + 0.0  # no negative zero
    if _in_ipython():
        from myst_nb import glue

        glue(name, rounded if digits > 0 else int(rounded), display=False)


def read_claims(notebook_path: str | Path) -> list[Claim]:
    """The claims recorded in the outputs of a notebook file, in order.

    Args:
        notebook_path: A notebook of format 4, read as plain JSON.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no notebook, or it records one id twice.

    Example:
        >>> import tempfile, pathlib
        >>> output = {"data": {MIME: Claim("C1.gap", 0.5, 0.5, 0.1, "here").to_json()}}
        >>> book = {"cells": [{"cell_type": "code", "outputs": [output]}]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.ipynb")
        ...     _ = path.write_text(json.dumps(book))
        ...     [(c.id, c.verdict) for c in read_claims(path)]
        [('C1.gap', 'holds')]
    """
    try:
        cells = json.loads(Path(notebook_path).read_text(encoding="utf-8"))["cells"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"notebook_path: got {notebook_path}, expected a notebook of format 4") from error
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    claims = [Claim.from_json(out["data"][MIME]) for out in outputs if MIME in out.get("data", {})]
    ids = [c.id for c in claims]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"notebook_path: {notebook_path} records {', '.join(twice)} twice")
    return claims


def compare(recorded: Iterable[Claim], rerun: Iterable[Claim]) -> list[str]:
    """Say in words where a re-run disagrees with the record; an empty list means that it agrees.

    Values may differ by the recorded tolerance. Verdicts and wording may not differ at all.

    Example:
        >>> old = Claim("C1.gap", 0.50, 0.5, 0.1, "here")
        >>> compare([old], [Claim("C1.gap", 0.55, 0.5, 0.1, "here")])
        []
        >>> compare([old], [])
        ['C1.gap: recorded, but the re-run does not claim it']
    """
    old, new = ({c.id: c for c in claims} for claims in (recorded, rerun))
    problems = [f"{i}: recorded, but the re-run does not claim it" for i in old if i not in new]
    problems += [f"{i}: claimed by the re-run, but not recorded" for i in new if i not in old]
    for i in (i for i in old if i in new):
        a, b = old[i], new[i]
        if a.verdict != b.verdict:
            problems.append(f"{i}: the verdict was '{a.verdict}' and is now '{b.verdict}'")
        for name in ("value", "expected", "tolerance", "interval"):
            was, now = getattr(a, name), getattr(b, name)
            if not _near(was, now, 0.0 if name == "tolerance" else a.tolerance):
                problems.append(f"{i}: {name} {was} became {now}, tolerance {a.tolerance}")
        for name in ("source", "statement", "digits"):
            was, now = getattr(a, name), getattr(b, name)
            if was != now:
                problems.append(f"{i}: {name} was {was!r} and is now {now!r}")
    return problems


def bundle(made: Claim) -> dict[str, Any]:
    """The claim as one notebook output: MIME type to content."""
    return {MIME: made.to_json(), "text/html": made.to_html(), "text/plain": str(made)}


def glued(made: Claim) -> dict[str, float | str | None]:
    """What `claim` glues for use in prose: key to value."""
    return {made.id: made.value, f"{made.id}.verdict": made.verdict}


def _near(was: object, now: object, tolerance: float) -> bool:
    if isinstance(was, tuple) and isinstance(now, tuple):
        return all(_near(x, y, tolerance) for x, y in zip(was, now, strict=True))
    if isinstance(was, float) and isinstance(now, float):
        return abs(was - now) <= tolerance
    return was == now


def _in_ipython() -> bool:
    """The library must import and run without IPython and the book's tools."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _show(made: Claim) -> None:
    if not _in_ipython():
        return
    from IPython.display import display
    from myst_nb import glue

    display(bundle(made), raw=True)
    for key, value in glued(made).items():
        glue(key, value, display=False)


def _checked(
    id: str,
    value: Number,
    expected: Expected,
    tolerance: float,
    source: str,
    statement: str = "",
    digits: int = 3,
    interval: object = None,
) -> Claim:
    _text("id", id)
    if not _ID.fullmatch(id):
        raise ValueError(f"id: got {id!r}, expected an entry and a slug such as 'C1.toeplitz-gap'")
    _text("source", source)
    if not source.strip():
        raise ValueError("source: got an empty text, expected where the expectation comes from")
    _text("statement", statement)
    if not isinstance(digits, int) or isinstance(digits, bool):
        raise TypeError(f"digits: got {type(digits).__name__}, expected an int")
    if digits < 1:
        raise ValueError(f"digits: got {digits}, expected at least 1")
    allowed = _number("tolerance", tolerance)
    if allowed < 0:
        raise ValueError(f"tolerance: got {tolerance}, expected a non-negative number")
    measured = None if value is None else _number("value", value)
    wanted = _expected(expected)
    return Claim(id, measured, wanted, allowed, source, statement, digits, _interval(interval, measured, wanted))


def _interval(interval: object, value: float | None, expected: Expected) -> tuple[float, float] | None:
    if interval is None:
        return None
    if not isinstance(interval, tuple | list):
        raise TypeError(f"interval: got {type(interval).__name__}, expected a pair (low, high)")
    if len(interval) != 2:
        raise ValueError(f"interval: got {len(interval)} ends, expected a pair (low, high)")
    if value is None or not isinstance(expected, tuple):
        raise ValueError("interval: got one, expected none without a value and a pair to hold it against")
    low, high = (_number("interval", end) for end in interval)
    if not low <= value <= high:
        raise ValueError(f"interval: got ({low}, {high}), expected the value {value} in it")
    return low, high


def _expected(expected: object) -> Expected:
    if not isinstance(expected, tuple | list):
        return _number("expected", expected)
    if len(expected) != 2:
        raise ValueError(f"expected: got {len(expected)} ends, expected a pair (low, high)")
    low, high = (None if end is None else _number("expected", end) for end in expected)
    if low is None and high is None:
        raise ValueError("expected: got (None, None), expected at least one end")
    if low is not None and high is not None and low > high:
        raise ValueError(f"expected: got ({low}, {high}), expected low at most high")
    return low, high


def _number(name: str, number: object) -> float:
    wanted = "expected a real number"
    # A truth value or a numeral in a text is a slip, though float() would take it.
    if isinstance(number, bool | str | bytes) or not isinstance(number, SupportsFloat):
        raise TypeError(f"{name}: got {type(number).__name__}, {wanted}")
    try:
        result = float(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: got {number!r}, {wanted}") from error
    if not math.isfinite(result):
        raise ValueError(f"{name}: got {result}, expected a finite number")
    return result


def _text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name}: got {type(text).__name__}, expected a str")

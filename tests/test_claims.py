"""The ledger: verdicts, drift, bad input, and a life through JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.book.claims import (
    MIME,
    SYMBOLS,
    Claim,
    Entry,
    bundle,
    claim,
    compare,
    glued,
    note,
    read_catalogue,
    read_claims,
)

GOOD: dict[str, Any] = {
    "id": "C1.some-slug",
    "value": 0.5,
    "expected": 0.5,
    "tolerance": 0.1,
    "source": "here",
}
finite = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("value", "expected", "verdict"),
    [
        (0.5, 0.5, "holds"),
        (0.59, 0.5, "holds"),
        (0.61, 0.5, "fails"),
        (0.5, (0.5, None), "holds"),
        (0.49, (0.5, None), "fails"),
        (0.5, (None, 0.5), "holds"),
        (0.51, (None, 0.5), "fails"),
        (0.5, (0.4, 0.6), "holds"),
        (0.7, (0.4, 0.6), "fails"),
        (None, 0.5, "not yet tested"),
        (None, (0.4, None), "not yet tested"),
    ],
)
def test_verdict(value: float | None, expected: Any, verdict: str) -> None:
    assert claim(**GOOD | {"value": value, "expected": expected}).verdict == verdict


@pytest.mark.parametrize(
    ("interval", "expected", "verdict"),
    [
        ((0.4, 0.6), (0.4, None), "holds"),
        ((0.4, 0.6), (0.41, None), "undecided"),
        ((0.4, 0.6), (0.6, None), "undecided"),
        ((0.4, 0.6), (0.61, None), "fails"),
        ((0.4, 0.6), (None, 0.6), "holds"),
        ((0.4, 0.6), (None, 0.4), "undecided"),
        ((0.4, 0.6), (None, 0.39), "fails"),
        ((0.4, 0.6), (0.3, 0.7), "holds"),
        ((0.4, 0.6), (0.45, 0.55), "undecided"),
        ((0.4, 0.6), (0.7, 0.8), "fails"),
        ((0.5, 0.5), (0.5, None), "holds"),
    ],
)
def test_an_interval_decides(interval: tuple[float, float], expected: Any, verdict: str) -> None:
    made = claim(**GOOD | {"expected": expected, "interval": interval})
    assert made.verdict == verdict
    assert Claim.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.value_text == f"0.5 [{interval[0]:.3g}, {interval[1]:.3g}]"


@pytest.mark.parametrize("value", [np.float32(0.5), torch.tensor(0.5), np.array(0.5), 1])
def test_any_scalar_is_a_number(value: Any) -> None:
    assert type(claim(**GOOD | {"value": value}).value) is float


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("id", 3, TypeError),
        ("id", "some-slug", ValueError),
        ("id", "C0.slug", ValueError),
        ("id", "C1.Bad slug", ValueError),
        ("id", 'C1."><script>', ValueError),
        ("value", float("nan"), ValueError),
        ("value", float("inf"), ValueError),
        ("value", "0.5", TypeError),
        ("value", True, TypeError),
        ("value", 1j, TypeError),
        ("value", torch.zeros(2), TypeError),
        ("value", np.zeros(2), TypeError),
        ("expected", None, ValueError),
        ("expected", float("nan"), ValueError),
        ("expected", (None, None), ValueError),
        ("expected", (1.0, 0.0), ValueError),
        ("expected", (0.0,), ValueError),
        ("expected", (0.0, "1"), TypeError),
        ("tolerance", -0.1, ValueError),
        ("tolerance", float("inf"), ValueError),
        ("tolerance", None, ValueError),
        ("source", " ", ValueError),
        ("source", None, ValueError),
        ("statement", 1, TypeError),
        ("digits", 0, ValueError),
        ("digits", 1.5, TypeError),
        ("interval", 0.5, TypeError),
        ("interval", (0.5,), ValueError),
        ("interval", (0.6, 0.7), ValueError),
        ("interval", (0.0, float("inf")), ValueError),
        ("interval", (0.0, 1.0), ValueError),  # 0.5 +- 0.1 is expected: nothing for an interval to decide
    ],
)
def test_bad_input_names_the_argument(name: str, bad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name}: got .*expected"):
        claim(**GOOD | {name: bad})


@given(finite, finite, st.floats(0, 1e6), st.text(), st.text(min_size=1).filter(str.strip))
def test_json_and_back(value: float, expected: float, tolerance: float, statement: str, source: str) -> None:
    made = claim("Q12.a-1", value, expected, tolerance, source, statement=statement)
    assert Claim.from_json(json.loads(json.dumps(made.to_json()))) == made


@given(finite, finite, st.floats(0, 1e6))
def test_drift_is_what_compare_reports(value: float, other: float, tolerance: float) -> None:
    # Both ends open wide: only the drift can differ, never the verdict.
    old, new = (claim("C1.a", v, (-1e9, None), tolerance, "here") for v in (value, other))
    assert compare([old], [old]) == []
    assert bool(compare([old], [new])) == (abs(value - other) > tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 0.45, "expected": (0.48, None)}, "verdict was 'holds' and is now 'fails'"),
        ({"value": None}, "is now 'not yet tested'"),
        ({"value": 0.39}, "value 0.5 became 0.39"),
        ({"expected": 0.8}, "expected 0.5 became 0.8"),
        ({"expected": (0.4, None)}, "expected 0.5 became"),
        ({"tolerance": 0.2}, "tolerance 0.1 became 0.2"),
        ({"source": "there"}, "source was 'here' and is now 'there'"),
        ({"expected": (0.0, None), "interval": (0.1, 0.9)}, "interval None became"),
        ({"id": "C1.other"}, "does not claim it"),
    ],
)
def test_compare_says_what_differs(change: dict[str, Any], message: str) -> None:
    old = claim(**GOOD | ({"expected": change["expected"]} if "verdict" in message else {}))
    assert message in " | ".join(compare([old], [claim(**GOOD | change)]))


def test_box_is_safe_and_says_the_verdict_in_words() -> None:
    html = claim(**GOOD | {"statement": "a < b", "source": "<script>"}).to_html()
    assert 'id="claim-C1.some-slug"' in html
    assert "a &lt; b" in html
    assert "<script>" not in html
    assert f"{SYMBOLS['holds']} holds" in html


def test_bundle_and_glue() -> None:
    made = claim(**GOOD)
    assert bundle(made)[MIME] == made.to_json()
    assert glued(made) == {"C1.some-slug": 0.5, "C1.some-slug.verdict": "holds"}


def notebook(path: Path, *claims: Claim) -> Path:
    cells = [{"cell_type": "code", "outputs": [{"data": bundle(c)}]} for c in claims]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return path


def test_read_claims(tmp_path: Path) -> None:
    made = [claim(**GOOD), claim(**GOOD | {"id": "Q2.other", "expected": (None, 1.0)})]
    assert read_claims(notebook(tmp_path / "a.ipynb", *made)) == made


def test_read_claims_refuses_what_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "b.ipynb").write_text("no notebook")
    for path in (notebook(tmp_path / "a.ipynb", *[claim(**GOOD)] * 2), tmp_path / "b.ipynb"):
        with pytest.raises(ValueError, match=r"^notebook_path: "):
            read_claims(path)


def test_the_ledger_needs_neither_ipython_nor_the_book() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['IPython', 'myst_nb']));"
        "from tdi_lib.book.claims import claim; print(claim('C1.a', 1, 1, 0, 'here').verdict)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "holds\n"


@pytest.mark.parametrize(
    ("value", "digits", "glued_value"), [(0.126, 2, 0.13), (-0.001, 2, 0.0), (41.7, 0, 42), (41.7, -1, 40)]
)
def test_note_glues_rounded_plain_numbers(
    monkeypatch: pytest.MonkeyPatch, value: float, digits: int, glued_value: float
) -> None:
    seen: dict[str, object] = {}
    book = types.SimpleNamespace(glue=lambda name, number, display: seen.update({name: number}))
    monkeypatch.setitem(sys.modules, "myst_nb", book)
    note("outside", value, digits)
    monkeypatch.setattr("tdi_lib.book.claims._in_ipython", lambda: True)
    note("inside", np.float64(value), digits)
    assert list(seen) == ["inside"] and repr(seen["inside"]) == repr(glued_value)


def test_note_refuses_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="^value: got nan"):
        note("name", float("nan"))
    with pytest.raises(TypeError, match="^name: got int"):
        note(3, 1.0)  # type: ignore[arg-type]


# ---- The catalogue ---------------------------------------------------------------------------

CATALOGUE = """
C1:
  text: The spectra agree.
  answer: Apart by {gap}; on pixels by {pixels}.
  claims:
    gap: {statement: the gap, expected: [null, 0.05], tolerance: 0.001, source: Theorem 2, digits: 2}
    pixels: {expected: [null, 0.1], tolerance: 0.01, source: set by us, role: boundary}
Q1:
  text: Is it a limit?
"""


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "book" / "claims.yml"
    path.parent.mkdir()
    path.write_text(CATALOGUE)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return path


def test_a_claim_takes_from_the_catalogue_what_it_is_not_given(catalogue: Path) -> None:
    assert claim("C1.gap", 0.0123) == Claim("C1.gap", 0.0123, (None, 0.05), 0.001, "Theorem 2", "the gap", 2)
    computed = claim("C1.gap", 0.0123, expected=(None, 0.01), source="measured")
    assert (computed.verdict, computed.source, computed.tolerance) == ("fails", "measured", 0.001)
    with pytest.raises(ValueError, match=r"^expected: got none, .* 'C1.unheard'"):
        claim("C1.unheard", 1.0)
    catalogue.write_text(CATALOGUE.replace("0.05", "0.001"))
    assert claim("C1.gap", 0.0123).verdict == "fails"  # read anew when it changed
    catalogue.unlink()
    with pytest.raises(ValueError, match="^expected: got none"):
        claim("C1.gap", 0.0123)


def test_only_deciding_claims_decide(catalogue: Path) -> None:
    entry = read_catalogue(catalogue)["C1"]
    near, far = claim("C1.gap", 0.01), claim("C1.pixels", 0.4)
    assert [made.verdict for made in (near, far)] == ["holds", "fails"]
    assert entry.verdict([near, far]) == "holds"
    assert entry.verdict([claim("C1.gap", 0.1), far]) == "fails"
    assert entry.verdict([far]) == "not yet tested"
    assert entry.answered([near, far]) == "Apart by 0.01; on pixels by 0.4."
    with pytest.raises(ValueError, match="^C1: the answer names pixels"):
        entry.answered([near])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("text: Is", "txt: Is"), "entry Q1 must have a text"),
        (("role: boundary", "role: judge"), "C1.pixels has the role 'judge', expected deciding, boundary, target"),
        (("digits: 2", "digit: 2"), "C1.gap has digit, expected"),
    ],
    ids=["text", "role", "field"],
)
def test_a_catalogue_that_says_something_else_is_refused(
    change: tuple[str, str], message: str, catalogue: Path
) -> None:
    catalogue.write_text(CATALOGUE.replace(*change))
    with pytest.raises(ValueError, match=f"^path: {message}"):
        read_catalogue(catalogue)


def test_the_worst_deciding_verdict_counts() -> None:
    entry = Entry("C1", "text", "", {})
    made = [Claim("C1.a", 0.1, (0.0, None), 0.0, "here", interval=ends) for ends in ((0.05, 0.2), (-0.1, 0.2))]
    assert entry.verdict(made[:1]) == "holds" and entry.verdict(made) == "undecided"

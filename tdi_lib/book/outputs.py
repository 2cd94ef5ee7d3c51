"""Outputs of a notebook, read as words and numbers: the words must agree, the numbers as far as they are printed.

Another processor rounds differently, so a printed 0.75 comes back as 0.76. Compared as text that is a failure; here the
two agree, and 0.77 does not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import zip_longest
from typing import Any

__all__ = ["differences", "disagreement"]

_RELATIVE = Decimal("1e-6")  # allowed too: nobody repeats the twelfth digit
_COUNT = 20  # whole numbers below this count things (rows won, runs failed) and agree exactly

# A figure's pixels and paths follow the font library; what it shows is claimed in numbers.
_FIGURES = frozenset({"image/png", "image/svg+xml"})

# A sign belongs to its number unless something stands before it: 0.5-0.6 is a range, S4D-2 a name, 1.2.3 a version.
_NUMBER = r"(?:(?<![\w)\].])[-−+])?(?<![\w.])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+(?!\w))?"
_TOKEN = re.compile(rf"(?P<number>{_NUMBER})(?!\.\d)|-{{2,}}|\w+|\S")
# Which of two equal values is set in bold is a matter of rounding.
_BOLD = re.compile(rf"(?:\*\*|<b>|<strong>)({_NUMBER})(?:\*\*|</b>|</strong>)")


def disagreement(recorded: str, rerun: str) -> str | None:
    """Where two printed texts disagree, in words; None where they agree.

    Words and signs must be the same, whatever space is between them. Numbers may differ by one unit of the last digit
    printed, or by 1e-6 of their size; whole numbers below 20 may not differ at all, unless they are percentages.
    Whether a number is bold does not matter.

    Example:
        >>> disagreement("error 0.75, won 7 of 9", "error **0.76**,  won 7 of 9")
        >>> disagreement("error 0.75, won 7 of 9", "error 0.77, won 7 of 9")
        "0.75 became 0.77 in 'error 0.77, won 7 of 9'"
        >>> disagreement("error 0.75, won 7 of 9", "error 0.75, won 8 of 9")
        "7 became 8 in 'error 0.75, won 8 of 9'"
        >>> disagreement("it holds", "it fails")
        "holds became fails in 'it fails'"
    """
    plain = [_BOLD.sub(r"\1", text) for text in (recorded, rerun)]
    for old, new in zip_longest(*map(_TOKEN.finditer, plain)):
        if old is None or new is None or not _agree(old, new):
            near = plain[1] if new is None else new.string[max(new.start() - 40, 0) : new.end() + 40]
            words = ["nothing" if found is None else found[0] for found in (old, new)]
            return f"{words[0]} became {words[1]} in {' '.join(near[-100:].split())!r}"
    return None


def _agree(old: re.Match[str], new: re.Match[str]) -> bool:
    rules = all(set(found[0]) == {"-"} and len(found[0]) > 1 for found in (old, new))  # as wide as a table's column
    if old[0] == new[0] or rules:
        return True
    if not (old["number"] and new["number"]):
        return False
    values = [Decimal(found[0].replace(",", "").replace("−", "-")) for found in (old, new)]
    gap, size = abs(values[0] - values[1]), max(map(abs, values))
    exponents = [value.as_tuple().exponent for value in values]
    unit = max(Decimal(1).scaleb(int(exponent)) for exponent in exponents)
    counts = max(exponents) == 0 and size < _COUNT and not re.match(r"\s*%", new.string[new.end() :])
    return gap <= (0 if counts else max(unit, _RELATIVE * size))


def differences(recorded: Iterable[Mapping[str, Any]], rerun: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say in words where the outputs of a cell differ from the recorded ones; an empty list means that they agree.

    Texts of one kind (a stream, a MIME type, a glued name) are compared in order, by `disagreement`. Figures are not
    compared: their kind must be there, their content is checked by claims.

    Example:
        >>> recorded = [{"output_type": "stream", "name": "stdout", "text": "0.25 of 3"}]
        >>> differences(recorded, [{"output_type": "stream", "name": "stdout", "text": "0.26 of 3"}])
        []
        >>> differences(recorded, [])
        ['stdout: recorded, but the re-run does not show it']
    """
    old, new = _texts(recorded), _texts(rerun)
    problems = [f"{kind}: recorded, but the re-run does not show it" for kind in old.keys() - new.keys()]
    problems += [f"{kind}: shown by the re-run, but not recorded" for kind in new.keys() - old.keys()]
    for kind in old.keys() & new.keys():
        if len(old[kind]) != len(new[kind]):
            problems.append(f"{kind}: {len(old[kind])} recorded, {len(new[kind])} shown by the re-run")
        found = (disagreement(*pair) for pair in zip(old[kind], new[kind], strict=False))
        problems += [f"{kind}: {problem}" for problem in found if problem]
    return sorted(problems)


def _texts(outputs: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The texts of each kind, in order. A stream arrives in pieces that depend on timing: they are joined."""
    texts: dict[str, list[str]] = defaultdict(list)
    for output in outputs:
        if output["output_type"] == "stream":
            texts[output["name"]] = ["".join([*texts[output["name"]], _joined(output["text"])])]
        glued = output.get("metadata", {}).get("scrapbook", {}).get("name")
        for mime, content in output.get("data", {}).items():
            kind = mime if glued is None else f"{mime} of {glued}"
            texts[kind].append("" if mime in _FIGURES else _joined(content))
    return dict(texts)


def _joined(text: Any) -> str:
    """Notebook files hold a text as one string or as its lines."""
    return text if isinstance(text, str) else "".join(map(str, text)) if isinstance(text, list) else str(text)

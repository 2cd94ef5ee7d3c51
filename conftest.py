"""What pytest needs to compare notebooks: claims by their tolerance, texts as words and numbers, figures not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from beartype import beartype
from jaxtyping import install_import_hook


def shapes_only(function: Any) -> Any:
    """Check array shapes and dtypes at run time, and leave other arguments to the library's own errors."""
    function.__annotations__ = {k: v for k, v in function.__annotations__.items() if "jaxtyping" in repr(v)}
    return beartype(function)


# Before any import of these modules.
install_import_hook(["tdi_lib.ssm"], "conftest.shapes_only")

from tdi_lib.book.claims import MIME, Claim, bundle, compare, glued  # noqa: E402
from tdi_lib.book.outputs import differences  # noqa: E402


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case by its argument where its value would make a poor name: bytes (gzip's hold the time) and long texts.

    pytest numbers the cases that come out alike, so an id depends on nothing but the source.
    """
    plain = isinstance(val, str) and len(val) <= 40 and val.isprintable()
    return argname if isinstance(val, str | bytes) and not plain else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if type(item).__name__ == "IPyNbCell":
            cell: Any = item
            cell.compare_outputs = partial(_compare, cell)


def _compare(cell: Any, test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
    """In place of nbval's comparison of texts: claims by their tolerance, the rest as words and numbers."""
    new, test, broken = take_claims(test)
    old, ref, forged = take_claims(ref)
    if os.environ.get("TDI_JITTER"):  # a recorded run that is replayed must survive it with room to spare
        old, new = ([_narrowed(made) for made in claims] for claims in (old, new))
    problems = [f"claim {problem}" for problem in broken + forged + compare(old, new)] + differences(ref, test)
    cell.comparison_traceback = problems
    return not problems


def _narrowed(made: Claim) -> Claim:
    return replace(made, tolerance=made.tolerance / 10) if made.source.startswith("results/") else made


def take_claims(outputs: Iterable[Any]) -> tuple[list[Claim], list[Any], list[str]]:
    """Split a cell's outputs: claims, the rest, and what shows something else than it records."""
    outputs = list(outputs)
    claims, rest, problems = [], [], []
    for out in outputs:
        if MIME in out.get("data", {}):
            claims.append(Claim.from_json(out["data"][MIME]))
            if out["data"] != bundle(claims[-1]):
                problems.append(f"{claims[-1].id}: what is shown is not what is recorded")
    keys = {key: repr(value) for made in claims for key, value in glued(made).items()}
    for out in outputs:
        key = out.get("metadata", {}).get("scrapbook", {}).get("name")
        if key in keys:
            if [*out["data"].values()] != [keys[key]]:
                problems.append(f"{key}: what is glued is not what is recorded")
        elif MIME not in out.get("data", {}):
            rest.append(out)
    return claims, rest, problems

"""Every committed notebook is whole; and the guards that compare notebooks do bite."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tdi_lib.book.claims import MIME, read_catalogue, read_claims

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / os.environ.get("NOTEBOOKS", "notebooks")).glob("*.ipynb"))
CATALOGUE = read_catalogue(ROOT / "book" / "claims.yml")
KERNEL = {"name": "python3", "display_name": "Python 3"}
SHOWS = {"claim", "print", "glue", "note", "display", "show", "show_table", "subplots", "figure"}
MACHINE_PATH = re.compile(r"/(home|root|Users|work|opt|tmp|private)/\w|[A-Z]:\\\\")


def calls(source: str) -> Iterator[str]:
    """Names of the functions that a cell calls for certain: not in a definition or a branch."""
    # Magics and shell escapes are no Python.
    lines = ["pass" if re.match(r"\s*[%!]", line) else line for line in source.splitlines()]
    skipped = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.If
    queue: list[ast.AST] = [ast.parse("\n".join(lines))]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", None) or getattr(node.func, "id", "")
        queue += [child for child in ast.iter_child_nodes(node) if not isinstance(child, skipped)]


def problems(notebook: dict[str, Any]) -> list[str]:
    """What is wrong with a notebook that is to be committed."""
    found = []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}: execute it from top to bottom")
    for number, cell in enumerate(code, 1):
        source = "".join(cell["source"])
        shows = SHOWS.intersection(calls(source))
        if shows and not cell["outputs"]:
            found.append(f"cell {number} calls {', '.join(sorted(shows))} and shows nothing")
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            found.append(f"cell {number} ended in an error")
        if "claim" in shows and "NBVAL_IGNORE_OUTPUT" in source.upper().replace("-", "_"):
            found.append(f"cell {number} makes a claim and asks not to be compared")
        if match := MACHINE_PATH.search(json.dumps(cell["outputs"]) + source):
            found.append(f"cell {number} names a path of one machine: {match[0]}")
    for name, metadata in [("the notebook", notebook["metadata"])] + [
        (f"cell {number}", cell["metadata"]) for number, cell in enumerate(notebook["cells"])
    ]:
        if left := {"papermill", "execution", "ExecuteTime"}.intersection(metadata):
            found.append(f"{name} carries metadata of a run: {', '.join(left)}")
    parameters = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
    if len(parameters) != 1 or 'profile = "book"' not in "".join(parameters[0]["source"]):
        found.append('expected one cell tagged "parameters" with profile = "book"')
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_whole(path: Path) -> None:
    assert problems(json.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_claims_are_recorded_as_the_catalogue_has_them(path: Path) -> None:
    claims = read_claims(path)
    assert claims, "a notebook that claims nothing tests nothing"
    for claim in claims:
        recorded = claim.to_json()
        listed = dict(CATALOGUE[claim.entry].claims[claim.slug])
        listed.pop("role", None)
        assert {name: recorded[name] for name in listed} == listed, f"{claim.id}: `make record` brings it up to date"


def test_every_claim_of_the_catalogue_is_made_once() -> None:
    made = [claim.id for path in NOTEBOOKS for claim in read_claims(path)]
    assert sorted(made) == sorted(f"{name}.{slug}" for name, entry in CATALOGUE.items() for slug in entry.claims)


def test_every_entry_is_decided_by_something_and_answers_with_what_was_measured() -> None:
    claims = [claim for path in NOTEBOOKS for claim in read_claims(path)]
    for name, entry in CATALOGUE.items():
        made = [claim for claim in claims if claim.entry == name]
        assert "{" not in entry.answered(made)
        assert not made or (any(entry.role(claim) == "deciding" for claim in made) and entry.answer)


# ---- The guards themselves -------------------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small notebook with a number, a figure and a claim, executed."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL})
    sources = [
        'profile = "book"',
        "print('error 0.123, lower in 3 of 4')",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()",
        'from tdi_lib.book.claims import claim\nclaim("C1.x", 0.5, 0.5, 0.01, "here", digits=4)',
    ]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    folder = str(tmp_path_factory.mktemp("executed"))
    NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    result: dict[str, Any] = json.loads(nbformat.writes(notebook))
    return result


def edited(notebook: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The notebook with a text of its outputs replaced."""
    result = copy.deepcopy(notebook)
    changed = 0
    for cell in result["cells"]:
        before = json.dumps(cell["outputs"])
        cell["outputs"] = json.loads(before.replace(old, new))
        changed += before.count(old)
    assert changed, f"no output contains {old}"
    return result


def drifted(notebook: dict[str, Any], value: float) -> dict[str, Any]:
    """The notebook with another recorded value of its claim, consistently shown and glued."""
    from tdi_lib.book.claims import Claim, bundle, glued

    result = copy.deepcopy(notebook)
    outputs = result["cells"][-1]["outputs"]
    record = next(out["data"][MIME] for out in outputs if MIME in out["data"])
    made = Claim.from_json(record | {"value": value})
    texts = {key: repr(text) for key, text in glued(made).items()}
    for output in outputs:
        if MIME in output["data"]:
            output["data"] = bundle(made)
        else:
            key = output["metadata"]["scrapbook"]["name"]
            output["data"] = dict.fromkeys(output["data"], texts[key])
    return result


@pytest.fixture(scope="module")
def report(executed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What nbval says of the notebook and of its changed copies, compared as `make test` does."""
    folder = tmp_path_factory.mktemp("cases")
    cases = {
        "untouched": executed,
        "within": drifted(executed, 0.505),
        "unit": edited(executed, "0.123", "0.124"),
        "digit": edited(executed, "0.123", "0.125"),
        "count": edited(executed, "3 of 4", "4 of 4"),
        "word": edited(executed, "lower", "higher"),
        "drift": drifted(executed, 0.52),
        "verdict": edited(drifted(executed, 0.505), "holds", "fails"),
        "box": edited(executed, "<dd>0.5</dd>", "<dd>0.6</dd>"),
        "glue": edited(executed, 'text/plain": "0.5"', 'text/plain": "0.6"'),
    }
    for name, notebook in cases.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    shutil.copy2(ROOT / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "--nbval", "--color=no", "-rfp", "-p"]
    done = subprocess.run([*command, "no:cacheprovider"], cwd=folder, capture_output=True, text=True, check=False)
    assert "7 failed, 33 passed" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("case", ["untouched", "within", "unit"])
def test_what_agrees_passes(case: str, report: str) -> None:
    assert f"FAILED {case}.ipynb" not in report
    assert report.count(f"PASSED {case}.ipynb") == 4


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("digit.ipynb::Cell 1", "stdout: 0.125 became 0.123 in 'error 0.123, lower in 3 of 4'"),
        ("count.ipynb::Cell 1", "stdout: 4 became 3"),
        ("word.ipynb::Cell 1", "stdout: higher became lower"),
        ("verdict.ipynb::Cell 3", "C1.x: what is shown is not what is recorded"),
        ("drift.ipynb::Cell 3", "C1.x: value 0.52 became 0.5"),
        ("box.ipynb::Cell 3", "C1.x: what is shown is not what is recorded"),
        ("glue.ipynb::Cell 3", "C1.x: what is glued is not what is recorded"),
    ],
)
def test_a_changed_output_fails(cell: str, message: str, report: str) -> None:
    assert f"FAILED {cell}" in report
    assert message in report


@pytest.mark.parametrize("kept", ["outputs", "execution_count"])
def test_a_stripped_notebook_is_noticed(kept: str, executed: dict[str, Any]) -> None:
    stripped = copy.deepcopy(executed)
    for cell in stripped["cells"]:
        cell.update({"outputs": [], "execution_count": None} | {kept: cell[kept]})
    assert problems(stripped)


# ---- Prose with a little code -----------------------------------------------------------------

FOLDS = re.compile("hide-(input|cell)|remove-.*")


def sources(path: Path, *, folded: bool) -> list[str]:
    """Its cells of code, with those that the page folds or without."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [
        "".join(cell["source"])
        for cell in cells
        if folded or not any(FOLDS.fullmatch(tag) for tag in cell["metadata"].get("tags", []))
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_shows_one_screen_of_code(path: Path) -> None:
    lines = [line for source in sources(path, folded=False) for line in source.splitlines() if line.strip()]
    assert len(lines) <= 60, "fold set-up, claims, asserts, tables and figures (tag `hide-input`)"


def test_no_function_is_defined_in_two_notebooks() -> None:
    homes: dict[str, set[str]] = {}
    for path in NOTEBOOKS:
        for source in sources(path, folded=True):
            for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!].*$", "", source))):
                if isinstance(node, ast.FunctionDef):
                    homes.setdefault(node.name, set()).add(path.stem)
    assert {name: chapters for name, chapters in homes.items() if len(chapters) > 1} == {}

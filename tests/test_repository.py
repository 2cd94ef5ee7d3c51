"""The repository agrees with itself and names nothing it must not."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tdi_lib.book.claims import read_catalogue

ROOT = Path(__file__).resolve().parents[1]
# A letter in brackets stands for itself, but keeps this file from finding itself.
FORBIDDEN = re.compile(
    r"pyp[i]\.org|pythonh[o]sted|download\.pyt[o]rch|conda\.an[a]conda|registry\.npmj[s]"
    r"|(?<![\w.\-])/(w[o]rk|roo[t]|o[p]t)/\w"
)
TEXT = {
    ".py",
    ".md",
    ".yml",
    ".yaml",
    ".toml",
    ".txt",
    ".cff",
    ".ipynb",
    ".css",
    ".bib",
    ".json",
    "",
}


def committed() -> list[Path]:
    """The files that are committed or would be: known to git, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail("the hygiene of a repository is checked in a clone: git ls-files failed")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def project() -> dict[str, list[Requirement]]:
    """Requirements by extra; the core under ''."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": table["dependencies"], **table["optional-dependencies"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    pins = dict(line.split("==") for line in lines)
    return {canonicalize_name(name): version for name, version in pins.items()}


def test_no_registry_and_no_path_of_a_machine_is_named() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in committed()
        if path.suffix in TEXT
        for match in FORBIDDEN.finditer(path.read_text("utf-8", errors="replace"))
    ]
    assert found == []


def test_nothing_large_is_committed() -> None:
    assert [path.name for path in committed() if path.stat().st_size > 5_000_000] == []


def test_constraints_cover_every_direct_dependency() -> None:
    pins = constraints()
    for requirement in (r for group in project().values() for r in group):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name}: run `make lock`"
        assert requirement.specifier.contains(pins[name]), f"{name}: the pin is out of range"


def test_constraints_hold_on_any_machine() -> None:
    pins = constraints()
    assert not [name for name, version in pins.items() if "+" in version]
    assert not {"pip", "setuptools", "uv", "tdi-lib"}.intersection(pins)


def test_environment_names_only_what_the_project_names() -> None:
    parts = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    assert [part for part in parts if isinstance(part, str)] == ["python>=3.11", "pip"]
    (pip,) = [part["pip"] for part in parts if isinstance(part, dict)]
    assert pip[0] == "-c constraints.txt"
    match = re.fullmatch(r"-e \.\[([\w,]+)\]", pip[1])
    assert match
    assert len(pip) == 2
    assert set(match[1].split(",")) == set(project()) - {""}


def test_citation_parses() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "authors", "message"} <= set(citation)
    assert citation["version"] == table["version"]
    assert citation["license"] == table["license"]


def test_contents_list_every_notebook() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    files = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name for name in files if name.startswith("notebooks/")} == notebooks


def test_catalogue_is_complete() -> None:
    catalogue = read_catalogue(ROOT / "book" / "claims.yml")
    wanted = [f"C{n}" for n in range(1, 10)] + [f"Q{n}" for n in range(1, 15)]
    assert list(catalogue) == wanted
    assert all(entry.text.strip() for entry in catalogue.values())


# What fetches and parses archives stands behind `data.sets`; the command line is a table.
HIDDEN = {"data.archives", "data.fetch", "data.soundfont", "app.cli"}


def test_every_public_module_is_on_the_page_of_its_room() -> None:
    files = [path.relative_to(ROOT / "tdi_lib").with_suffix("") for path in (ROOT / "tdi_lib").rglob("*.py")]
    modules = {".".join(path.parts) for path in files if not path.stem.startswith("_")} - HIDDEN
    pages = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("book/api/*.md")}
    shown = {name: re.findall(r"\.\. automodule:: tdi_lib\.([\w.]+)\n", text) for name, text in pages.items()}
    assert sorted(module for modules in shown.values() for module in modules) == sorted(modules)
    assert all(module.split(".")[0] == page for page, modules in shown.items() for module in modules)
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for page, text in pages.items():
        assert f"file: book/api/{page}\n" in contents, page
        assert re.search(r"\]\(\.\./\.\./notebooks/|\]\(\.\./\w+\.md\)|every chapter", text), page


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """What `make check` says of the directions of imports below a folder."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("spectrum", "", ""),
        ("spectrum", "from tdi_lib.tdi import tdi_init_", "tdi_lib.spectrum is not allowed to import tdi_lib.tdi"),
        ("scalogram", "from tdi_lib import spectrum", "tdi_lib.scalogram is not allowed to import tdi_lib.spectrum"),
        ("samples", "from tdi_lib.study import plans", "tdi_lib.samples is not allowed to import tdi_lib.study"),
        ("app/report", "from tdi_lib.study import plans", "tdi_lib.app is not allowed to import tdi_lib.study"),
        ("theory", "import pandas", "tdi_lib.theory -> pandas"),
        ("training", "import matplotlib.pyplot", "tdi_lib.training -> matplotlib"),
    ],
)
def test_imports_point_down(tmp_path: Path, module: str, line: str, broken: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "tdi_lib", tmp_path / "tdi_lib", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "tdi_lib" / f"{module}.py", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == (1 if broken else 0), done.stdout + done.stderr
    assert broken in done.stdout


def test_a_built_package_has_all_its_rooms(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tdi_lib", tmp_path / "tdi_lib", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        packed = {name for name in wheel.namelist() if name.endswith(".py")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in (ROOT / "tdi_lib").rglob("*.py")}


def test_what_a_commit_is_checked_for_is_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is fetched
    assert [hook["entry"] for hook in hooks[0]["hooks"]] == ["make check"]


# Functions of more than 60 lines, their docstrings not counted, and why they are not taken apart.
LONG: dict[str, str] = {}


def lines_of_functions(source: str) -> dict[str, int]:
    """Lines of every function or method, without its docstring."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            words = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0
            found[node.name] = max(found.get(node.name, 0), node.end_lineno - node.lineno + 1 - words)
    return found


def test_functions_fit_on_a_screen() -> None:
    assert lines_of_functions('def f(\n    a,\n):\n    """Two\n\n    lines."""\n    return a\n') == {"f": 4}
    long = {
        f"{path.relative_to(ROOT / 'tdi_lib').with_suffix('')}.{name}": lines
        for path in (ROOT / "tdi_lib").rglob("*.py")
        for name, lines in lines_of_functions(path.read_text("utf-8")).items()
        if lines > 60
    }
    assert long.keys() == LONG.keys(), long

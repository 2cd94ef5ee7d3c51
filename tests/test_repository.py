"""The repository agrees with itself and names nothing it must not."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    catalogue = yaml.safe_load((ROOT / "book" / "claims.yml").read_text("utf-8"))
    wanted = [f"C{n}" for n in range(1, 10)] + [f"Q{n}" for n in range(1, 13)]
    assert list(catalogue) == wanted
    assert all(isinstance(text, str) and text.strip() for text in catalogue.values())


def test_every_public_module_has_a_page_of_its_own_in_the_contents() -> None:
    modules = {path.stem for path in ROOT.glob("tdi_lib/*.py") if not path.stem.startswith("_")}
    pages = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("book/api/*.md")}
    assert pages.keys() == modules
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for module, text in pages.items():
        assert f"file: book/api/{module}\n" in contents, module
        assert f".. automodule:: tdi_lib.{module}\n" in text or module == "cli", module  # the command line is a table
        introduced = r"\]\(\.\./\.\./notebooks/|\]\(\.\./\w+\.md\)|every chapter"
        assert re.search(introduced, text), module

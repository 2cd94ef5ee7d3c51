"""Build the book: execute the notebooks whose inputs changed, then make the HTML pages.

Everything is written under ``_build``: the executed notebooks to ``_build/<profile>/notebooks``, the pages to
``_build/html`` (``book``) or ``_build/<profile>/html``. The notebooks of the repository hold the outputs that the tests
compare with; ``--record`` alone writes those.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("smoke", "book", "full")
MAGIC = re.compile(r"^[%!].*$", re.MULTILINE)
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "1767225600",  # dates in figures and pages: one fixed day
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no warning of the debugger in the outputs
}


class Failed(Exception):
    """The build stopped; the text says where and why."""


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digests(paths: Iterator[Path] | list[Path], root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.is_file()
    }


class Code:
    """Our own modules below a folder: what each is, and which of the others it imports."""

    def __init__(self, root: Path) -> None:
        self.files = {}
        for path in sorted((root / "tdi_lib").rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self.trees = {name: _runs(path.read_text("utf-8")) for name, path in self.files.items()}
        self.lazy: dict[str, str] = {}  # names that the package fetches when they are asked for, and their modules
        for node in self.trees["tdi_lib"].body if "tdi_lib" in self.trees else []:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
                self.lazy = {name: f"tdi_lib.{home}" for name, home in ast.literal_eval(node.value).items()}
        self.imports = {name: self.imported(tree) for name, tree in self.trees.items()}
        self.digests = {name: digest(ast.dump(tree)) for name, tree in self.trees.items()}

    def imported(self, tree: ast.AST) -> set[str]:
        """Our modules that the code imports, in a function too, or runs by ``python -m``."""
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
                if "tdi_lib" in names:  # with the package comes whatever it can be asked for
                    names.update(self.lazy.values())
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
                names.update(self.lazy.get(alias.name, "") for alias in node.names if node.module == "tdi_lib")
            elif isinstance(node, ast.List):
                words = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
                for flag, name in itertools.pairwise(words):
                    names.update([name, f"{name}.__main__"] if flag == "-m" and isinstance(name, str) else [])
        parts = [name.split(".") for name in names]  # and every package on the way
        return {".".join(each[:end]) for each in parts for end in range(1, len(each) + 1)} & self.files.keys()

    def behind(self, sources: Iterable[str]) -> dict[str, str]:
        """Digests of all modules that these cells run on, as code: comments and docstrings do not count."""
        try:
            waiting = set[str]().union(*(self.imported(_runs(re.sub(MAGIC, "", each))) for each in sources))
        except SyntaxError:  # no Python to us: then it may run on anything
            waiting = set(self.files)
        known: set[str] = set()
        while waiting:
            known.add(name := waiting.pop())
            waiting |= self.imports[name] - known
        return {name: self.digests[name] for name in sorted(known)}


def _runs(source: str) -> ast.Module:
    """What runs of it: no docstrings, but for those that a decorator may read, and nothing for type checkers alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not getattr(node, "decorator_list", []) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return tree


def input_key(notebook: dict[str, Any], profile: str, root: Path = ROOT, code: Code | None = None) -> str:
    """What an execution depends on: code, the modules behind its imports, claims, the results replayed, the profile.

    Prose is left out on purpose: editing it calls for new pages, not for new numbers.
    """
    # nbformat allows a source as one text or as a list of lines.
    cells = [("".join(cell["source"]), cell["metadata"]) for cell in code_cells(notebook)]
    sources = [source for source, _ in cells]
    results: list[Path] = []
    for name in re.findall(r"results/[\w./-]*", "\n".join(sources)):
        path = root / name.rstrip(".")
        results += path.rglob("*") if path.is_dir() else [path]
    inputs = [(code or Code(root)).behind(sources), listed_claims(notebook, root), file_digests(results, root)]
    return digest([cells, *inputs, profile])


def listed_claims(notebook: dict[str, Any], root: Path) -> dict[str, Any]:
    """What the catalogue has for the claims that the notebook names or made; their role is for the pages alone."""
    path = root / "book" / "claims.yml"
    catalogue = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {}
    for name in sorted(set(re.findall(r"[CQ]\d+\.[a-z0-9-]+", json.dumps(notebook)))):
        entry, _, slug = name.partition(".")
        fields = catalogue.get(entry, {}).get("claims", {}).get(slug, {})
        found[name] = {key: content for key, content in fields.items() if key != "role"}
    return found


def output_key(notebook: dict[str, Any]) -> str:
    """What an execution made; if someone changed it since, the notebook runs again."""
    return digest([(c.get("execution_count"), c.get("outputs")) for c in code_cells(notebook)])


def normalize(notebook: dict[str, Any]) -> dict[str, Any]:
    """Drop what differs from run to run, so that the same numbers give the same bytes."""
    notebook["metadata"].pop("papermill", None)
    notebook["metadata"].get("language_info", {}).pop("version", None)
    for cell in notebook["cells"]:
        for name in ("papermill", "execution", "ExecuteTime"):
            cell["metadata"].pop(name, None)
        if not cell["metadata"].get("tags", True):
            del cell["metadata"]["tags"]
    return notebook


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def place(path: Path, content: bytes) -> None:
    """Replace the file in one step, if it is another one: an interrupt leaves the old one or the new one."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def write(path: Path, value: Any) -> None:
    place(path, (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode())


def graft(source: Path, executed: Path) -> dict[str, Any]:
    """The notebook as it reads now, with the outputs of its execution if that was one of the same code."""
    notebook = read(source)
    done = code_cells(read(executed)) if executed.exists() else []
    cells = code_cells(notebook)
    # nbformat allows a source as one text or as a list of lines.
    if ["".join(cell["source"]) for cell in cells] == ["".join(cell["source"]) for cell in done]:
        for cell, new in zip(cells, done, strict=True):
            cell["outputs"], cell["execution_count"] = new["outputs"], new["execution_count"]
    return notebook


def execute(source: Path, target: Path, profile: str, scratch: Path) -> float:
    """Execute one notebook aside and put it in its place if every cell ran; returns the seconds."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    scratch.mkdir(parents=True, exist_ok=True)
    copy, started = scratch / source.name, time.monotonic()
    # The notebook's own parameters are those of the book: only another profile injects a cell.
    parameters = {} if profile == "book" else {"profile": profile}
    try:
        papermill.execute_notebook(
            source,
            copy,
            parameters,
            cwd=source.parent,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # the progress stays readable
        )
    except PapermillExecutionError as error:
        raise Failed(
            f"{source.name}: cell {error.exec_count} raised {error.ename}: {error.evalue}\n\n"
            f"{error.source}\n\n{source} is as it was; the failed copy is {copy}"
        ) from None
    write(target, normalize(read(copy)))
    copy.unlink()
    return time.monotonic() - started


def execute_changed(profile: str, *, force: bool, only: str | None, root: Path = ROOT, jobs: int = 1) -> int:
    """Bring every notebook of the profile up to date; say how many were executed."""
    build = root / "_build"
    target = build / profile / "notebooks"
    record_path = build / "execution.json"
    record = json.loads(record_path.read_text()) if record_path.exists() else {}
    code, keys = Code(root), {}
    # The largest first: two at a time then end together.
    for source in sorted((root / "notebooks").glob("*.ipynb"), key=lambda path: -path.stat().st_size):
        done, key, name = target / source.name, input_key(read(source), profile, root, code), source.stem
        fresh = done.exists() and record.get(f"{profile}/{name}") == [key, output_key(read(done))]
        if only in (None, name) and (force or not fresh):
            keys[source] = key
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        runs = {pool.submit(execute, path, target / path.name, profile, build / "failed"): path for path in keys}
        try:
            for count, run in enumerate(as_completed(runs), 1):
                source = runs[run]
                seconds = run.result()
                print(f"{source.stem}: {seconds:.0f} s ({count} of {len(runs)})", flush=True)
                record[f"{profile}/{source.stem}"] = [keys[source], output_key(read(target / source.name))]
                write(record_path, record)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(keys)


def mirror(profile: str | None, root: Path = ROOT) -> Path:
    """The book's sources in a folder of their own, with the outputs of the profile or the recorded ones (None)."""
    target = root / "_build" / (profile or "recorded")
    sources = [*root.glob("_*.yml"), *root.glob("*.md"), *(root / "book").rglob("*")]
    for path in sources:
        if path.is_file() and "__pycache__" not in path.parts:
            place(target / path.relative_to(root), path.read_bytes())
    for folder in ("book", "notebooks"):  # a page that is no more
        for path in (target / folder).rglob("*"):
            if path.is_file() and not (root / path.relative_to(target)).exists():
                path.unlink()
    for source in (root / "notebooks").glob("*.ipynb"):
        done = target / "notebooks" / source.name
        if profile in ("book", None):
            write(done, graft(source, done) if profile else read(source))
    return target


def record_outputs(root: Path = ROOT) -> list[str]:
    """Write the outputs of the profile ``book`` into the repository's notebooks; returns which changed."""
    changed = []
    for source in sorted((root / "notebooks").glob("*.ipynb")):
        new = graft(source, root / "_build" / "book" / "notebooks" / source.name)
        if new != read(source):
            write(source, new)
            changed.append(source.stem)
    return changed


def pages(source: Path, html: Path) -> Path:
    """Make the HTML of the book in ``source``; a warning is an error."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", source, "-W", "-n", "--keep-going"]
    if subprocess.run(command, check=False).returncode:
        # Sphinx would not repeat the warnings of pages it has read already.
        shutil.rmtree(source / "_build" / ".doctrees", ignore_errors=True)
        raise Failed("the pages were not built cleanly: see the warnings above")
    shutil.rmtree(html, ignore_errors=True)
    shutil.copytree(source / "_build" / "html", html)
    return html / "index.html"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", choices=PROFILES, default="book", help="size of the runs")
    parser.add_argument("--force", action="store_true", help="execute unchanged notebooks too")
    parser.add_argument("--only", metavar="NAME", help="execute this notebook only: 01_filter")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks executed at a time")
    parser.add_argument("--no-execute", action="store_true", help="pages from the recorded outputs")
    parser.add_argument("--record", action="store_true", help="write the outputs into the repository's notebooks")
    options = parser.parse_args(arguments)
    names = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    if options.only and options.only not in names:
        parser.error(f"--only: no notebook {options.only}; there are {', '.join(sorted(names))}")
    if options.record and options.profile != "book":
        parser.error("--record: the repository holds the outputs of the profile book")
    started = time.monotonic()
    os.environ.update(ENVIRONMENT)
    try:
        count, profile = 0, None if options.no_execute else options.profile
        if profile:
            count = execute_changed(profile, force=options.force, only=options.only, jobs=options.jobs)
        if options.record:
            print("recorded:", ", ".join(record_outputs()) or "nothing new")
        html = ROOT / "_build" / ("html" if profile in (None, "book") else f"{profile}/html")
        page = pages(mirror(profile), html)
    except Failed as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Finished notebooks are kept; run again to go on.", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    print(f"{page}: {count} of {len(names)} notebooks executed, {seconds:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())

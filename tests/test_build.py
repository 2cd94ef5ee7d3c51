"""book/build.py: what is executed again, what a failure leaves, what a re-run writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


sys.path.insert(0, str(ROOT / "book"))  # processes that execute a notebook import it by name
import build  # noqa: E402

CODE = '''"""what it is"""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from tdi_lib import d

x = 1

def f():
    """what it is"""
    from tdi_lib import b
    return b

@command
def g():
    """shown by --help"""
'''


def notebook(*sources: str, prose: str = "") -> dict[str, Any]:
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source}
        | {"execution_count": None, "outputs": []}
        for i, source in enumerate(('profile = "book"', *sources))
    ]
    cells[0]["metadata"]["tags"] = ["parameters"]
    cells.append({"cell_type": "markdown", "id": "m", "metadata": {}, "source": prose})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project: a library, a recorded result and one notebook."""
    for name, text in {
        "tdi_lib/__init__.py": "_HOMES = {'z': 'sub.c'}",
        "tdi_lib/__main__.py": "from tdi_lib import d",
        "tdi_lib/a.py": CODE,
        "tdi_lib/b.py": "import os",
        "tdi_lib/d.py": "",
        "tdi_lib/sub/__init__.py": "",
        "tdi_lib/sub/c.py": "z = 1",
        "results/run/one.json": "1",
        "results/other.json": "1",
        "notebooks/one.ipynb": json.dumps(notebook("print(profile)", "open('results/run/one.json')")),
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "again"),
    [
        ("tdi_lib/a.py", CODE.replace("x = 1", "x = 2"), True),
        ("tdi_lib/a.py", CODE.replace("what it is", "other words").replace("return b", "return b  # why"), False),
        ("tdi_lib/a.py", CODE.replace("shown by", "seen by"), True),  # a decorator may read it
        ("tdi_lib/a.py", CODE.replace("import d", "import e"), False),  # for the type checker alone
        ("tdi_lib/b.py", "import sys", True),  # imported within a function
        ("tdi_lib/d.py", "y = 1", False),  # nobody imports it
        ("tdi_lib/__init__.py", "_HOMES = {'z': 'sub.c'}\nx = 1", True),  # every package on the way
        ("tdi_lib/sub/c.py", "z = 2", False),
        ("tdi_lib/sub/new.py", "", False),
        ("results/run/one.json", "2", True),
        ("results/other.json", "2", False),
        ("README.md", "new", False),
    ],
)
def test_key_follows_the_inputs(root: Path, name: str, text: str, again: bool) -> None:
    case = notebook("%matplotlib inline\nimport tdi_lib.a\nload('results/run/')")
    before = build.input_key(case, "book", root)
    (root / name).write_text(text)
    assert (build.input_key(case, "book", root) != before) == again


@pytest.mark.parametrize(
    ("cell", "modules"),
    [
        ("import numpy", ""),
        ("from tdi_lib.b import os", " b"),
        ("from tdi_lib import b", " b"),
        ("from tdi_lib import z", " sub sub.c"),  # fetched when it is asked for
        ("import tdi_lib", " sub sub.c"),
        ("from tdi_lib.sub import c as name", " sub sub.c"),
        ("for x in y:\n    from tdi_lib.sub.c import z", " sub sub.c"),
        ("run([python, '-m', 'tdi_lib', 'diagnose'])", " __main__ d"),
        ("?help", " __main__ a b d sub sub.c"),  # no Python: it may be anything
    ],
)
def test_modules_behind_a_cell(root: Path, cell: str, modules: str) -> None:
    wanted = [f"tdi_lib.{name}".rstrip(".") for name in modules.split(" ")] if modules else []
    assert list(build.Code(root).behind([cell])) == sorted(wanted)


def test_every_module_of_ours_is_behind_a_chapter() -> None:
    """So the rules above fit the library that there is."""
    code, seen = build.Code(ROOT), set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        sources = ["".join(cell["source"]) for cell in build.code_cells(build.read(path))]
        behind = code.behind(sources).keys()
        assert behind < code.files.keys(), f"{path.name}: a cell was not understood"
        seen |= behind
    assert code.files.keys() - seen == {"tdi_lib.book.outputs", "tdi_lib.study.carrier"}  # of tests, of the data page


def test_key_follows_code_and_profile_but_not_prose_or_form(root: Path) -> None:
    key = build.input_key(notebook("a\nb"), "book", root)
    assert key == build.input_key(notebook("a\nb", prose="other words"), "book", root)
    lines = notebook("a\nb")
    lines["cells"][1]["source"] = ["a\n", "b"]
    assert key == build.input_key(lines, "book", root)
    assert key != build.input_key(notebook("a\nc"), "book", root)
    assert key != build.input_key(notebook("a\nb"), "smoke", root)


def run(root: Path, profile: str = "book", **options: Any) -> int:
    settings = {"force": False, "only": None, "root": root} | options
    count: int = build.execute_changed(profile, **settings)
    return count


def test_second_run_does_nothing_and_a_forced_one_writes_the_same_bytes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in build.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    source, done = root / "notebooks" / "one.ipynb", root / "_build" / "book" / "notebooks" / "one.ipynb"
    figure = "%config InlineBackend.figure_formats = ['svg']\nimport matplotlib.pyplot as plt\n"
    figure += "plt.rcParams['svg.hashsalt'] = 'x'\nplt.subplots();"
    source.write_text(json.dumps(notebook("print(profile)", figure)))
    before = source.read_bytes()
    assert run(root) == 1
    first = done.read_bytes()
    assert b"papermill" not in first
    assert b"image/svg+xml" in first
    assert json.loads(first)["cells"][1]["outputs"][0]["text"] == ["book\n"]
    assert run(root) == 0
    assert run(root, force=True) == 1
    assert done.read_bytes() == first

    # Outputs that someone changed are made again.
    done.write_bytes(first.replace(b"book\\n", b"look\\n"))
    assert run(root) == 1
    assert done.read_bytes() == first

    # Another profile works aside, and the repository is as it was.
    assert run(root, "smoke") == 1
    assert done.read_bytes() == first
    assert b"smoke" in (root / "_build" / "smoke" / "notebooks" / "one.ipynb").read_bytes()
    assert source.read_bytes() == before

    # What is recorded is what was executed, under the prose of today; without a change nothing is written.
    source.write_text(json.dumps(notebook("print(profile)", figure, prose="new words")))
    assert build.record_outputs(root) == ["one"]
    recorded = json.loads(source.read_text())
    assert recorded["cells"][1]["outputs"][0]["text"] == ["book\n"]
    assert recorded["cells"][-1]["source"] == "new words"
    assert build.record_outputs(root) == []


def test_pages_show_the_outputs_of_their_profile(root: Path) -> None:
    (root / "book").mkdir()
    (root / "book" / "data.md").write_text("text")
    source = root / "notebooks" / "one.ipynb"
    executed = notebook("print(1)")
    executed["cells"][1] |= {
        "execution_count": 2,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}],
    }
    build.write(root / "_build" / "book" / "notebooks" / "one.ipynb", executed)
    source.write_text(json.dumps(notebook("print(1)", prose="new words")))
    shown = {profile: build.read(build.mirror(profile, root) / "notebooks" / "one.ipynb") for profile in (None, "book")}
    assert [len(each["cells"][1]["outputs"]) for each in shown.values()] == [0, 1]
    assert all(each["cells"][-1]["source"] == "new words" for each in shown.values())
    assert (root / "_build" / "recorded" / "book" / "data.md").read_text() == "text"

    # Outputs of other code are not shown.
    source.write_text(json.dumps(notebook("print(2)")))
    assert build.read(build.mirror("book", root) / "notebooks" / "one.ipynb")["cells"][1]["outputs"] == []


def test_failure_leaves_the_source_and_says_where(root: Path) -> None:
    path = root / "notebooks" / "one.ipynb"
    path.write_text(json.dumps(notebook("print(1)", "raise RuntimeError('the boiler burst')")))
    before = path.read_bytes()
    with pytest.raises(build.Failed, match="one.ipynb: cell 3 raised RuntimeError: the boiler"):
        run(root)
    assert path.read_bytes() == before
    assert (root / "_build" / "failed" / "one.ipynb").exists()


def test_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build.main(["--only", "no_such_notebook"])
    assert "no notebook no_such_notebook" in capsys.readouterr().err


def test_key_follows_the_notebooks_own_claims(root: Path) -> None:
    path, case = root / "book" / "claims.yml", notebook("claim('C1.gap', 0.1)")
    path.parent.mkdir()
    keys = []
    for gap, role, other in ((1, "target", 1), (2, "target", 1), (2, "boundary", 1), (2, "boundary", 2)):
        claims = {"gap": {"tolerance": gap, "role": role}, "other": {"tolerance": other}}
        path.write_text(json.dumps({"C1": {"text": "It is so.", "claims": claims}}))
        keys.append(build.input_key(case, "book", root))
    assert keys[0] != keys[1] == keys[2] == keys[3]

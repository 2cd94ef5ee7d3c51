"""Other machines, played on this one: the matrix of processors, the jitter, and what make installs where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import corners  # noqa: E402
import jitter  # noqa: E402


def test_every_value_of_the_matrix_occurs_twice_and_every_corner_is_one_of_its_own() -> None:
    axes = list(zip(*corners.CORNERS.values(), strict=True))
    assert set(axes[0]) == {"", "Haswell", "SkylakeX", "Zen", "Prescott"}
    assert set(axes[1]) == {"", "default", "avx2"} and set(axes[3]) == {"1", "2"}
    assert all(axis.count(value) >= 2 for axis in axes[:4] for value in axis)
    assert sum(value != "" for value in axes[4]) >= 2
    assert len(set(corners.CORNERS.values())) == len(corners.CORNERS)


def test_a_draw_depends_on_its_key_alone(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = []
    for key in ("a", "a", "b", "c", "d"):
        assert corners.main(["--draw", "2", key]) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert all(len(set(line.split()) & set(corners.playable())) == 2 for line in drawn)


def test_a_corner_sets_what_it_says_and_a_failure_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    ask = (
        "import os; print(*(os.environ.get(k, '-') for k in ('ATEN_CPU_CAPABILITY', 'OMP_NUM_THREADS', 'TDI_JITTER')))"
    )
    assert corners.main(["prescott", "jitter", "--", sys.executable, "-c", ask]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "default 1 -" in lines and "- 1 1" in lines and lines[-1] == "2 corners passed, 0 failed"
    assert (
        corners.main(["prescott", "as-is", "--", sys.executable, "-c", f"{ask}; os.environ['ATEN_CPU_CAPABILITY']"])
        == 1
    )
    assert "1 corners passed, 1 failed as-is" in capfd.readouterr().out
    assert corners.main(["atom", "--", "true"]) == 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_jitter_moves_a_little_and_always_alike(dtype: type) -> None:
    values = np.random.default_rng(0).standard_normal((50, 400)).astype(dtype)
    one, again, other = (jitter.jittered(values, seed) for seed in (1, 1, 2))
    size = np.linalg.norm((one - values).astype(float)) / np.linalg.norm(values.astype(float))
    assert 1e-13 < size < 1e-8 and one.dtype == dtype
    assert (one == again).all() and (one != other).any()
    for whole in (np.arange(5), np.arange(5).astype(dtype), np.zeros(0, dtype)):
        assert jitter.jittered(whole, 1) is whole


def test_a_kernel_begins_with_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    draw = "import numpy as np, torch; x = np.random.default_rng(0).standard_normal(3); print(x.tolist())"
    shown = {}
    for seed in ("", "1"):
        monkeypatch.setenv("TDI_JITTER", seed)
        monkeypatch.setenv("PYTHONSTARTUP", corners.STARTUP if seed else "")
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(draw)])
        NotebookClient(notebook, kernel_name="python3").execute()
        shown[seed] = np.array(eval(notebook.cells[0].outputs[0].text))
    assert (shown[""] == np.random.default_rng(0).standard_normal(3)).all()
    assert 0 < np.abs(shown["1"] / shown[""] - 1).max() < 1e-11


# A machine without a driver where PyTorch's index answers, one where it does not, one whose owner has chosen.
PYTHON = """#!/bin/sh
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp uv .venv/bin/uv; fi
"""
UV = """#!/bin/sh
echo "$@" >> log
case "$*" in "pip compile"*) exit $UNREACHABLE ;; esac
"""


@pytest.mark.parametrize(
    ("unreachable", "chosen", "installed", "said"),
    [("0", "", True, False), ("1", "", False, True), ("0", "cpu", False, False)],
    ids=["reachable", "out of reach", "chosen"],
)
def test_make_chooses_the_build_of_torch(
    unreachable: str, chosen: str, installed: bool, said: bool, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    for name, text in (("python", PYTHON), ("uv", UV)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"UNREACHABLE": unreachable, "UV_TORCH_BACKEND": chosen, "MAKEFLAGS": ""}
    command = ["make", ".venv/stamp", f"PYTHON={tmp_path / 'python'}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    install = (tmp_path / "log").read_text().splitlines()[-1]
    assert "-e .[cli,data,train,book,test]" in install
    assert ("--torch-backend auto" in install) == installed
    assert done.stdout.count("out of reach") == said

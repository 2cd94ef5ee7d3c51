"""What is collected depends on nothing but the source: workers that collect on their own must find the same tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMED = """
import gzip, pytest

@pytest.mark.parametrize("payload", [gzip.compress(b"x")])
def test_a(payload): pass

@pytest.mark.parametrize("name", {"first", "second", "third", "fourth", "fifth"})
def test_b(name): pass
"""


def collected(folder: Path, *where: str) -> list[list[str]]:
    """The test ids that two processes collect a second apart, each with its own order of hashes."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--color=no", "-p", "no:cacheprovider", *where]
    runs = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        runs.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True))
        time.sleep(1.1)
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    return [[line for line in output.splitlines() if "::" in line] for output in outputs]


def test_collecting_twice_gives_the_same_ids() -> None:
    one, other = collected(ROOT, "tests")
    assert len(one) > 1000 and one == other
    assert max(map(len, one)) < 200


def test_a_time_in_an_id_or_an_order_of_hashes_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "test_timed.py").write_text(TIMED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    one, other = collected(tmp_path)
    assert one[0] != other[0] and one[1:] != other[1:] and sorted(one[1:]) == sorted(other[1:])
    shutil.copy2(ROOT / "conftest.py", tmp_path)  # names the case by its argument
    one, other = collected(tmp_path)
    assert one[0] == other[0] == "test_timed.py::test_a[payload]"

"""The store and the sweep, with real processes that are really killed."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.store import Store, config_key
from tdi_lib.sweep import sweep

HERE = Path(__file__).parent
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def square(config: dict) -> dict:
    """A trial: slow enough to be killed in the middle. It counts its runs where the test can see them."""
    with open(config["log"], "a") as log:
        log.write(f"{config['n']}\n")
    time.sleep(config.get("seconds", 0.0))
    if config["n"] < 0:
        raise ArithmeticError(f"no root of {config['n']}")
    return {"square": config["n"] ** 2, "history": [[config["n"], 0.1]], "pid": os.getpid()}


@given(st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=4), st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_put_is_got(tmp_path_factory: pytest.TempPathFactory, config: dict, result: dict) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    result = {key: value for key, value in result.items() if key not in config}
    assert config not in store
    store.put(config, result)
    store.put(config, {} if result else {"later": 1} if "later" not in config else {})
    assert config in store and store.get(config) == {**config, **result} and store.records() == [{**config, **result}]
    assert config_key(dict(reversed(config.items()))) == config_key(config)


def test_bad_records_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="result must hold finite numbers"):
        store.put({"n": 1}, {"loss": float("nan")})
    with pytest.raises(ValueError, match="result must not repeat entries of the configuration, got n"):
        store.put({"n": 1}, {"n": 2})
    with pytest.raises(KeyError, match="is not among the records"):
        store.get({"n": 1})
    assert list(tmp_path.iterdir()) == []


def _race(folder: Path, barrier, wins) -> None:
    store = Store(folder)
    barrier.wait()
    for n in range(50):
        with store.claim({"n": n}) as mine:
            if mine and {"n": n} not in store:
                store.put({"n": n}, {"by": os.getpid()})
                wins[n] += 1


def test_four_writers_never_do_one_thing_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(4), context.Array("i", 50)
    writers = [context.Process(target=_race, args=(tmp_path, barrier, wins)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    # a claim that another holds at that moment is passed over, so a few may be left to nobody: never two to one
    assert all(writer.exitcode == 0 for writer in writers) and max(wins) == 1
    assert len(Store(tmp_path).records()) == sum(wins)


def test_a_sweep_runs_what_is_missing_and_records_what_fails(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    configs = [{"n": n, "log": log} for n in (3, -1, 4, 3)]
    first = sweep(square, configs, tmp_path / "store", n_workers=2, progress=False)
    assert (first.done, first.already, list(first.failed)) == (2, 0, [config_key(configs[1])])
    assert "ArithmeticError: no root of -1" in first.failed[config_key(configs[1])]
    failed = Store(tmp_path / "store" / "failed").get(configs[1])
    assert failed["n"] == -1 and "in square" in failed["error"]
    again = sweep(square, configs, tmp_path / "store", n_workers=1, progress=False)
    assert (again.done, again.already, len(again.failed)) == (0, 2, 1)
    assert sorted(map(int, Path(log).read_text().split())) == [-1, -1, 3, 4]
    assert {r["square"] for r in Store(tmp_path / "store").records()} == {9, 16}
    assert all(r["pid"] != os.getpid() for r in Store(tmp_path / "store").records())


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="function must be callable, got int"):
        sweep(3, [], tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_workers must be left out with a scheduler"):
        sweep(square, [], tmp_path, scheduler="tcp://localhost:1", n_workers=2)


DRIVER = """
import sys, json
sys.path.insert(0, {here!r})
from test_sweep import square
from tdi_lib.sweep import sweep
if __name__ == "__main__":
    configs = [{{"n": n, "log": {log!r}, "seconds": 0.15}} for n in range({count})]
    report = sweep(square, configs, {folder!r}, n_workers=2, progress=False)
    print(json.dumps([report.done, report.already, sorted(report.failed)]))
"""


def _children(pid: int) -> list[int]:
    """Processes below ``pid``."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in table.splitlines()]
    below, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents if parent in below} - below
        grown, below = bool(more), below | more
    return sorted(below - {pid})


def test_twenty_kills_lose_double_and_tear_nothing(tmp_path: Path) -> None:
    """Workers and drivers die by signal 9 at random moments; what is recorded equals a serial run."""
    chance, count, log, folder = random.Random(0), 60, tmp_path / "log", tmp_path / "store"
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(HERE), log=str(log), count=count, folder=str(folder)))
    kills = {"driver": 0, "worker": 0}
    deadline = time.monotonic() + 300
    finished = None
    while finished is None:
        assert time.monotonic() < deadline, (kills, len(Store(folder).records()))
        driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while driver.poll() is None:
            time.sleep(chance.uniform(0.05, 1.0))
            if sum(kills.values()) >= 20 or not folder.exists():
                continue
            workers = _children(driver.pid)
            if workers and chance.random() < 0.7:
                kind, victim = "worker", chance.choice(workers)
            else:
                kind, victim = "driver", driver.pid
            try:
                os.kill(victim, signal.SIGKILL)
                kills[kind] += 1
            except ProcessLookupError:
                pass
        output = driver.communicate()[0]
        if driver.returncode == 0:
            done, already, failed = json.loads(output.splitlines()[-1])
            if not failed:
                finished = done + already
    assert sum(kills.values()) >= 20 and min(kills.values()) > 0 and finished == count
    time.sleep(1.0)  # orphans of killed drivers notice that they are alone
    records = {r["n"]: r for r in Store(folder).records()}
    assert (
        sorted(records) == list(range(count)) == sorted(json.loads(p.read_text())["n"] for p in folder.glob("*.json"))
    )
    assert all(r["square"] == n**2 and r["history"] == [[n, 0.1]] for n, r in records.items())
    store = Store(folder)
    store.tidy()
    assert all(path.suffix == ".json" or path.is_dir() for path in folder.iterdir())

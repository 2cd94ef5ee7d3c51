"""The store and the sweep, with real processes that are really killed."""

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.records import Store, config_key
from tdi_lib.study.sweep import sweep

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
    for bad in (float("nan"), {1, 2}, 1j):
        with pytest.raises(ValueError, match="result must hold JSON values and finite numbers"):
            store.put({"n": 1}, {"loss": bad})
        with pytest.raises(ValueError, match="config must hold JSON values and finite numbers"):
            store.put({"n": bad}, {})
    with pytest.raises(ValueError, match="result must not repeat entries of the configuration, got n"):
        store.put({"n": 1}, {"n": 2})
    with pytest.raises(KeyError, match="is not among the records"):
        store.get({"n": 1})
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    store = Store(tmp_path)
    store.put({"n": 1}, {"loss": 0.5})
    store.put({"n": 1}, {"loss": 0.7})
    assert store.records() == [{"n": 1, "loss": 0.5}] and len(list(tmp_path.iterdir())) == 1


# Writers that die by signal 9, the n-th before the n-th line of Python that a put comes to, in it or in what it calls.
WRITERS = """
import json, os, signal, sys
from tdi_lib.records import Store

if sys.argv[2] == "plain":
    Store.put = lambda self, config, result: self._path(config).write_text(json.dumps(config | result))

def write(folder, left):
    def trace(frame, event, _):
        nonlocal left
        left -= event == "line"
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    store = Store(folder)
    sys.settrace(trace)
    store.put({"n": 1}, {"history": list(range(5000))})
    os._exit(0)

for line in range(1000):
    child = os.fork()
    if child == 0:
        write(f"{sys.argv[1]}/{line}", line)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
"""


@pytest.mark.parametrize("put", ["ours", "plain"])
def test_a_writer_killed_at_any_line_leaves_a_whole_record_or_none(tmp_path: Path, put: str) -> None:
    """And a store that simply wrote its file would not pass."""
    folders, seen = tmp_path / "stores", []
    subprocess.run([sys.executable, "-c", WRITERS, str(folders), put], check=True)
    for folder in sorted(folders.iterdir(), key=lambda folder: int(folder.name)):
        try:
            records = Store(folder).records()
        except json.JSONDecodeError:
            seen.append("torn")
        else:
            assert records in ([], [{"n": 1, "history": list(range(5000))}])
            seen.append("whole" if records else "none")
    assert len(seen) > 5 and seen[0] == "none" and seen[-1] == "whole"  # the last was not killed
    assert ("torn" in seen) == (put == "plain")


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
    first = sweep(square, configs, tmp_path / "store", n_workers=0, progress=False)
    assert (first.done, first.already, list(first.failed)) == (2, 0, [config_key(configs[1])])
    assert "ArithmeticError: no root of -1" in first.failed[config_key(configs[1])]
    failed = Store(tmp_path / "store" / "failed").get(configs[1])
    assert failed["n"] == -1 and "in square" in failed["error"]
    again = sweep(square, configs, tmp_path / "store", n_workers=0, progress=False)
    assert (again.done, again.already, len(again.failed)) == (0, 2, 1)
    assert sorted(map(int, Path(log).read_text().split())) == [-1, -1, 3, 4]
    assert {r["square"] for r in Store(tmp_path / "store").records()} == {9, 16}
    Store(tmp_path / "store").put(configs[1], {"square": 1})  # by a worker whose driver died before it heard of it
    last = sweep(square, configs, tmp_path / "store", n_workers=0, progress=False)
    assert not last.failed and not Store(tmp_path / "store" / "failed").records()


def test_a_result_that_is_no_record_fails_alone(tmp_path: Path) -> None:
    report = sweep(lambda c: {"x": c["x"]} if c["n"] else {"y": math.nan}, [{"n": 0}], tmp_path, n_workers=0)
    assert "finite" in next(iter(report.failed.values()))
    report = sweep(lambda c: 3 if c["n"] else {"y": 1}, [{"n": 1}, {"n": 0}], tmp_path, n_workers=0)
    assert report.done == 1 and "TypeError: result must be a mapping, got int" in next(iter(report.failed.values()))


def roots(configs: list[dict]) -> list:
    """A batch of trials; negative numbers fail one by one, a batch with zero as a whole."""
    if any(c["n"] == 0 for c in configs):
        raise ZeroDivisionError("nothing")
    return [{"root": c["n"] ** 0.5, "of": len(configs)} if c["n"] > 0 else ArithmeticError("none") for c in configs]


def test_batches_are_recorded_one_by_one(tmp_path: Path) -> None:
    configs = [{"n": n} for n in (4, 9, -1, 0, 16)]
    pairs = lambda cs: [cs[i : i + 2] for i in range(0, len(cs), 2)]  # noqa: E731
    with Store(tmp_path).claim({"n": 16}):  # by somebody else
        report = sweep(roots, configs, tmp_path, batch=pairs, n_workers=0, progress=False)
    assert (report.done, report.already) == (2, 1)
    assert set(report.failed) == {config_key({"n": -1}), config_key({"n": 0})}
    assert Store(tmp_path).get({"n": 9}) == {"n": 9, "root": 3.0, "of": 2}
    report = sweep(roots, configs, tmp_path, batch=pairs, n_workers=0, progress=False)
    assert (report.done, report.already, len(report.failed)) == (1, 2, 2)  # 16 came with no -1 and no 0
    with pytest.raises(ValueError, match="batch must return every one of the 2 configurations once"):
        sweep(roots, configs, tmp_path, batch=lambda cs: [cs[:1]], n_workers=0)


def deadly(config: dict) -> dict:
    """A trial that takes its worker along: once, or always."""
    if config["n"] == 2 and not Path(config["mark"]).exists():
        Path(config["mark"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if config["n"] == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": config["n"] ** 2}


def test_a_local_cluster_with_workers_killed_records_what_a_serial_run_does(tmp_path: Path) -> None:
    """One configuration kills a worker once, another each that takes it: only the latter is left, and is noted."""
    import dask  # here and not above: every worker imports this file
    import distributed  # noqa: F401  brings the settings that are changed below

    configs = [{"n": n, "mark": str(tmp_path / "mark")} for n in (*range(8), 13)]
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):  # not 3: workers take long to start
        report = sweep(deadly, configs, tmp_path / "parallel", n_workers=2, progress=False)
    assert (tmp_path / "mark").exists()  # it did die, and no longer does
    assert report.done + report.already == 8 and list(report.failed) == [config_key(configs[-1])]
    assert "KilledWorker" in report.failed[config_key(configs[-1])]
    sweep(deadly, configs[:-1], tmp_path / "serial", n_workers=0, progress=False)
    files = [{p.name: p.read_bytes() for p in (tmp_path / f).glob("*.json")} for f in ("serial", "parallel")]
    assert files[0] == files[1] and len(files[0]) == 8


def test_a_scheduler_that_runs_already_is_used_and_left_running(tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        configs = [{"n": n, "log": str(tmp_path / "log")} for n in range(5)]
        for already in (0, 5):
            report = sweep(square, configs, tmp_path / "s", scheduler=cluster.scheduler_address, progress=False)
            assert (report.done, report.already, report.failed) == (5 - already, already, {})
        pairs = sweep(roots, [{"n": 4}, {"n": 9}], tmp_path, batch=lambda c: [c], scheduler=cluster.scheduler_address)
        assert pairs.done == 2 and Store(tmp_path).get({"n": 9}) == {"n": 9, "root": 3.0, "of": 2}
        assert len(cluster.scheduler_info["workers"]) == 1


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="function must be callable, got int"):
        sweep(3, [], tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="configs must not have an entry of the name error"):
        sweep(square, [{"error": 1}], tmp_path, n_workers=0)
    with pytest.raises(ValueError, match="n_workers must be left out with a scheduler"):
        sweep(square, [], tmp_path, scheduler="tcp://localhost:1", n_workers=2)
    with pytest.raises(ValueError, match="n_workers must be an integer of at least 0, got -1"):
        sweep(square, [], tmp_path, n_workers=-1)


# The trial lies in the script itself, so that a worker which starts again need not import the test's own libraries.
DRIVER = """
import json, os, sys, time
from tdi_lib.study.sweep import sweep

def trial(config):
    def note(what):
        with open({log!r}, "a") as log:  # one short write: lines of several processes do not mix
            log.write(json.dumps([what, config["n"], os.getpid(), time.monotonic()]) + chr(10))
    note("start")
    time.sleep(0.1)
    note("end")
    return {{"square": config["n"] ** 2, "history": [[config["n"], 0.1]] * 500}}

if __name__ == "__main__":
    report = sweep(trial, [{{"n": n}} for n in range({count})], {folder!r}, n_workers=2, progress=False)
    print(json.dumps([report.done, report.already, sorted(report.failed)]))
"""


def _workers(driver: int) -> list[psutil.Process]:
    """Worker processes of a driver."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [p for p in psutil.Process(driver).children() if "spawn_main" in " ".join(p.cmdline())]
    return []


def test_twenty_kills_lose_double_and_tear_nothing(tmp_path: Path) -> None:
    """Workers and drivers die by signal 9 at random moments; what is recorded equals a serial run."""
    count, log, folder = 50, tmp_path / "log", tmp_path / "store"
    chance = random.Random(0)
    victims = chance.sample(["driver"] * 2 + ["worker"] * 18, 20)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(log=str(log), count=count, folder=str(folder)))
    finished, deadline = None, time.monotonic() + 600
    while finished is None:
        assert time.monotonic() < deadline
        driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        runs = log.read_text().count("\n") if log.exists() else 0
        while driver.poll() is None:
            time.sleep(chance.uniform(0.0, 0.4))
            started = log.exists() and log.read_text().count("\n") > runs  # this driver's first trial
            workers = _workers(driver.pid)
            if victims and started and workers:
                kind = victims.pop()
                with contextlib.suppress(psutil.NoSuchProcess):
                    (driver if kind == "driver" else chance.choice(workers)).kill()
        output = driver.communicate()[0]
        if driver.returncode == 0:
            done, already, failed = json.loads(output)
            if not failed:
                finished = done + already
    assert not victims and finished == count  # all twenty fell before the end
    store = Store(folder)
    names = sorted(p.name for p in folder.glob("*.json"))
    assert names == sorted(f"{config_key({'n': n})}.json" for n in range(count))
    assert sorted(store.records(), key=lambda r: r["n"]) == [
        {"n": n, "square": n**2, "history": [[n, 0.1]] * 500} for n in range(count)
    ]
    # nothing was run by two at once, and nothing again but for what a kill cost
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    spans: dict[int, list[tuple[float, float]]] = {n: [] for n in range(count)}
    for what, n, pid, end in notes:
        if what == "end":
            begin = max(t for w, m, p, t in notes if (w, m, p) == ("start", n, pid) and t <= end)
            spans[n].append((begin, end))
    assert all(first[1] <= second[0] for s in map(sorted, spans.values()) for first, second in itertools.pairwise(s))
    assert count <= sum(map(len, spans.values())) <= count + 20

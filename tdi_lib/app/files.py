"""Labeled sequences from a file: CSV, TSV, Parquet, Arrow/Feather, NPY, NPZ and UCR's ``.ts`` and ``.tsv``.

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
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from tdi_lib.samples import one_of, positive_int

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "ReadError", "Samples", "read"]

FORMATS = dict.fromkeys((".csv", ".tsv", ".txt"), "text") | {".ts": "ts", ".npy": "npy", ".npz": "npz"}
FORMATS |= {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
"""Endings that :func:`read` knows, and which reader each gets."""

X_NAMES = ("x", "X", "x_train", "X_train", "data", "inputs")
Y_NAMES = ("y", "Y", "y_train", "Y_train", "labels", "label", "targets", "target", "class")
TASKS = ("auto", "classes", "real")
MAX_CLASSES = 100
MAX_BYTES = 2**31
MAX_MEMBERS = 1000
SAMPLE_ROWS = 20
BATCH_ROWS = 4096
# In lower case: what pandas takes for missing, and what the archives write.
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "<na>", "#na", "#n/a", "-nan", "1.#ind", "1.#qnan"})
MISSING |= {"-1.#ind", "-1.#qnan"}
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+")
SEPARATORS = (("\t", "."), (",", "."), (";", "."), (";", ","), ("\t", ","), ("|", "."), (" ", "."), (" ", ","))
SPOKEN = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
MAGIC = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "parquet", b"ARROW1": "arrow"}
MAGIC |= {b"\xff\xff\xff\xff": "arrow", b"FEA1": "Feather version 1", b"\x1f\x8b": "gzip", b"\x89HDF": "HDF5"}
MAGIC |= {b"\x80\x04": "a pickle", b"\x80\x05": "a pickle"}


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
    Whole numbers of at most 100 values, twice each on average, and texts are classes; other numbers are real targets,
    and so are those that a ``.ts`` file declares by ``@targetlabel``. A text is a number if the whole column is written
    as numbers are (not ``01`` or ``1_2``). A row whose number is missing (``NA``, ``?``, nothing) is left
    out and said so.

    Args:
        path: the file; its ending says what it holds (``FORMATS``).
        target: column of the targets: a name, or a number from 0. For NPZ the name of the array.
        target_file: a second file of any of these formats with one target per row and nothing else.
        drop: columns to leave out.
        task: ``classes`` or ``real`` overrules what the targets look like.
        header: whether the first row of a text holds names; looked at if omitted.
        max_bytes: refuse what would take more memory than this.

    Raises:
        ReadError: (a ValueError) for whatever is wrong with a file; its text names the file.
        TypeError, ValueError: naming the argument.
        ImportError: naming the extra to install, for texts without pandas, for Parquet and Arrow without pyarrow.

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
    _refuse_what_does_not_apply(file, target=target is not None, drop=len(drop) > 0, header=header is not None)
    needs_target = target_file is None
    notes: list[str] = []
    raw: Any
    if file.format == "text":
        x, raw = _read_text(file, target, drop, header, needs_target, notes)
    elif file.format == "ts":
        x, raw, is_real = _read_ts(file, needs_target, notes)
        task = "real" if is_real and needs_target and task == "auto" else task
    elif file.format in ("npy", "npz"):
        x, raw = _read_numpy(file, target, needs_target, notes)
    else:
        x, raw = _read_arrow(file, target, drop, needs_target, notes)
    lengths = _lengths(file, x)
    if target_file is not None:
        raw = _read_targets(_File(target_file, max_bytes))
        notes.append(f"targets from {Path(target_file).name}")
    if raw is None and file.format == "npy":
        raise ReadError(path, "an NPY file holds sequences alone; give the targets by target_file, or both in an NPZ")
    y: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    if raw is not None:
        y, classes, there = _targets(target_file or path, raw, len(x), task)
        x, lengths = x[there], lengths[there]
        if missing := int((~there).sum()):
            notes.append(f"{missing} row{'s' * (missing > 1)} without a target left out")
    x = x[:, : lengths.max()]
    n_samples, length, n_channels = x.shape
    steps = f"{length:,} steps" if (lengths == length).all() else f"{lengths.min():,} to {length:,} steps"
    notes.append(f"{n_samples:,} samples of {steps} and {n_channels} channel{'s' * (n_channels > 1)}")
    if classes:
        shown = ", ".join(classes[:6]) + (", …" if len(classes) > 6 else "")
        notes.append(f"{len(classes)} class{'es' * (len(classes) > 1)}: {shown}")
    elif y is not None:
        notes.append("a real target" if y.ndim == 1 else f"{y.shape[1]} real targets")
    return Samples(x, y, lengths, classes, "; ".join(notes))


_APPLIES = {
    "target": ("text", "parquet", "arrow", "npz"),
    "drop": ("text", "parquet", "arrow"),
    "header": ("text",),
}


def _refuse_what_does_not_apply(file: "_File", **given: bool) -> None:
    for name, kinds in _APPLIES.items():
        if given[name] and file.format not in kinds:
            endings = ", ".join(ending for ending, kind in FORMATS.items() if kind in kinds)
            raise file.error(f"{name} does not apply to {file.path.suffix.lower()} files, only to {endings}")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"such files need {package}: pip install 'tdi-lib[cli]'") from error


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

    def error(self, what: str) -> ReadError:
        return ReadError(self.path, what)

    def open(self) -> IO[bytes]:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise self.error(f"cannot be opened: {error.strerror}") from None

    def require(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            raise self.error(
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
            raise self.error(f"expected UTF-8 text, got another byte at {error.start}") from None
        if "\0" in text:
            raise self.error(f"expected text, got a zero byte at character {text.index(chr(0))}")
        return text

    @contextlib.contextmanager
    def foreign(self, what: str) -> Iterator[None]:
        """Around a library's parser: whatever it raises is said in our words. The catch is wide, its body is not."""
        try:
            with warnings.catch_warnings(action="ignore"):
                yield
        except (ReadError, ImportError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise self.error(f"is not {what}: {text or type(error).__name__}") from None


# ---- text -------------------------------------------------------------------------------------------


def _read_text(
    file: _File,
    target: str | int | None,
    drop: Sequence[str | int],
    header: bool | None,
    needs_target: bool,
    notes: list[str],
) -> tuple[np.ndarray, list[str] | None]:
    text = file.text()
    if text[:4].lower() == "sep=":  # a spreadsheet's note of its separator: the rows tell
        text = "\n" + text.partition("\n")[2]
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise file.error("expected rows of numbers, got blank lines")
    separator, decimal = max(SEPARATORS, key=lambda s: _fit(lines[:SAMPLE_ROWS], *s))
    with file.foreign("a table"):
        width = max(map(len, _records(text, separator)))
        head = [row + [""] * (width - len(row)) for row in itertools.islice(_records(text, separator), SAMPLE_ROWS)]
    file.require(8 * len(lines) * width)
    named = int(_is_header(head, decimal) if header is None else header)
    names, first = _strip_end(head[0]) if named else None, head[named : named + 1]
    if not first:
        raise file.error("expected rows of numbers below the header, got none")
    notes.append(
        f"text split at {SPOKEN[separator]}{' with decimal commas' if decimal == ',' else ''}, "
        f"{'with a' if named else 'without'} header"
    )
    known = len(names) if names else max(len(_strip_end(row)) for row in head)
    numeric = [_is_number(field, decimal) for field in first[0][:known]]
    inputs, place = _choose_columns(file, names, numeric, target, drop, needs_target, notes)
    inputs += [] if names else range(known, width)  # rows further down may be longer
    words = [i for i in range(width) if i == place or (names and i >= known)]
    frame = _parse(
        file,
        text,
        separator,
        width,
        header=0 if named else None,
        usecols=[*inputs, *words],
        dtype=dict.fromkeys(words, str),
        na_values=dict.fromkeys(inputs, ("", "?", "NaN", "nan", "NA")),  # other spellings: _numbers
        keep_default_na=False,
        decimal=decimal,
    )
    said = frame[words].apply(lambda column: column.str.strip()).fillna("")
    longer = (said.drop(columns=[] if place is None else place) != "").any(axis=1)  # than the header
    shorter = said[place] == "" if place == known - 1 else ~longer & False  # or without a target
    rows = _rows(text)[named:] if (longer | shorter).any() else []
    for row in frame.index[longer | shorter]:
        line, content = rows[min(row, len(rows) - 1)]
        count = len(_split(content, separator))
        if longer[row] or (count < known and content.strip(separator + " ")):
            raise file.error(f"expected {known} fields in every row, got {count} in line {line}")
    values = _numbers(file, text, frame[inputs], named, decimal)
    there = ~np.isnan(values).all(axis=1) | (said != "").any(axis=1).to_numpy()
    return values[there, :, None], None if place is None else said.loc[there, place].tolist()


def _records(text: str, separator: str) -> Iterator[list[str]]:
    """The rows that hold something."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows = ([field for field in row if field] if separator == " " else row for row in reader)
    return (row for row in rows if any(map(str.strip, row)))


def _parse(file: _File, text: str, separator: str, width: int, **options: Any) -> "pd.DataFrame":
    """What pandas makes of a text; a row with more than ``width`` fields is an error."""
    pandas = _library("pandas")
    options = {"header": None, "sep": r"\s+" if separator == " " else separator} | options
    with file.foreign("a table"):
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        return pandas.read_csv(
            io.StringIO(text), names=range(width), index_col=False, skipinitialspace=True, low_memory=False, **options
        )


def _numbers(file: _File, text: str, frame: "pd.DataFrame", named: int, decimal: str) -> np.ndarray:
    """Values (P, L) of columns, of which pandas has read those as numbers that hold nothing else."""
    columns = []
    for _, column in frame.items():
        if column.dtype.kind not in "iuf":
            fields = column.astype(str).fillna("")
            if (odd := ~fields.map(lambda field: _is_number(field, decimal))).any():
                row, rows = odd.idxmax(), _rows(text)
                raise file.error(
                    f"expected a number in line {rows[min(row + named, len(rows) - 1)][0]}, got {fields[row][:40]!r} "
                    "(drop that column, or name the target)"
                )
            column = fields.map(lambda field: _number(field, decimal))
        columns.append(column.to_numpy(dtype=np.float64))
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))


def _rows(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    return [(n, line) for n, line in enumerate(re.split("\r\n|\n|\r", text), 1) if line.strip(" ")]


def _split(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else line.split(separator)


def _strip_end(row: list[str]) -> list[str]:
    """Fields of a row up to the last that is not empty."""
    return row[: max((i for i, field in enumerate(row, 1) if field.strip()), default=0)]


def _fit(lines: list[str], separator: str, decimal: str) -> tuple[float, int]:
    """How many fields are numbers if rows are split like this, times the share of those; how many fields there are."""
    fields = [field for line in lines for field in _split(line, separator)]
    numbers = sum(_is_number(field.strip().strip('"'), decimal) for field in fields)
    return numbers**2 / max(len(fields), 1), len(fields)


def _number(field: str, decimal: str = ".") -> float:
    """A number, NaN for what stands for a missing one; ValueError for anything else."""
    field = field.strip()
    if field.lower() in MISSING:
        return math.nan
    try:
        if "_" in field or (decimal == "," and "." in field):  # Python takes the first; we dare not read the second
            raise ValueError
        return float(field.replace(decimal, "."))
    except ValueError:
        raise ValueError(f"got {field[:40]!r}") from None


def _is_number(field: str, decimal: str = ".") -> bool:
    try:
        _number(field, decimal)
    except ValueError:
        return False
    return True


def _is_header(rows: list[list[str]], decimal: str) -> bool:
    """Whether words stand above numbers, or the times of the steps above anything."""
    if len(rows) < 2:
        return False
    words = [not _is_number(field, decimal) for field in rows[0]]
    below = [_is_number(field, decimal) and field.strip().lower() not in MISSING for field in rows[1]]
    if any(word and number for word, number in zip(words, below, strict=True)):
        return True
    steps = np.array(
        [_number(field, decimal) for field, word in zip(rows[0], words, strict=True) if field and not word]
    )
    again = any(word and row[i] == rows[0][i] for row in rows[1:] for i, word in enumerate(words))  # a label, then
    even = len(steps) >= 8 and steps[1] > steps[0] and np.allclose(np.diff(steps), steps[1] - steps[0], rtol=1e-3)
    return bool(even and any(words) and not again)


def _column(file: _File, wanted: str | int, names: list[str] | None, width: int, argument: str) -> int:
    """The number of a column that is given by name or number."""
    if names is not None and isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    number = int(wanted) if isinstance(wanted, int) or re.fullmatch(r"-?[0-9]{1,9}", wanted) else None
    if number is None or not -width <= number < width:
        shown = ", ".join(map(repr, (names or [])[:8])) + (", …" if names and len(names) > 8 else "")
        raise file.error(
            f"{argument} must be {f'one of {shown} or ' if names else ''}a number from 0 to {width - 1}, "
            f"got {wanted!r}",
        )
    return number % width


def _choose_columns(
    file: _File,
    names: list[str] | None,
    numeric: list[bool],
    target: str | int | None,
    drop: Sequence[str | int],
    needs_target: bool,
    notes: list[str],
) -> tuple[list[int], int | None]:
    """The columns of the values, and that of the targets, by the rules of :func:`read`."""
    left_out = {_column(file, each, names, len(numeric), "drop") for each in drop}
    if names and names[0] in ("", "Unnamed: 0"):
        left_out.add(0)
        notes.append("the first column, without a name, is an index and left out")
    left_out |= {i for i, name in enumerate(names or []) if re.fullmatch(r"__index_level_\d+__", name)}
    free = [i for i in range(len(numeric)) if i not in left_out]
    if not needs_target:
        return free, None
    if len(free) < 2:
        raise file.error(f"expected a target and at least one step in every row, got {len(free)} column(s)")
    if target is not None:
        place = _column(file, target, names, len(numeric), "target")
        if place in left_out:
            raise file.error(f"target must not be dropped, got {target!r}")
    elif names is None:
        place = free[0]
    else:
        called = [i for i in free if names[i].strip() in Y_NAMES or names[i].strip().lower() in Y_NAMES]
        words = [i for i in free if not numeric[i]]
        if len(only := called if len(called) == 1 else words) != 1:
            shown = ", ".join(repr(names[i]) for i in free[:8]) + ", …" * (len(free) > 8)
            raise file.error(f"which column is the target? give target, one of {shown}")
        place = only[0]
    notes.append(f"targets in column {(names[place] if names else place)!r}")
    return [i for i in free if i != place], place


def _read_ts(file: _File, needs_target: bool, notes: list[str]) -> tuple[np.ndarray, list[str] | None, bool]:
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
            meta[words[0].lower()] = words[1].strip().lower() if len(words) > 1 else ""
        elif words and not words[0].startswith(("#", "%")):
            raise file.error(f"expected lines that begin with @ before @data, got {line[:40]!r}")
    if body is None:
        raise file.error("expected a line @data, got none")
    if meta.get("@timestamps") == "true":
        raise file.error("expected values at even steps, got time stamps")
    is_real = meta.get("@targetlabel", "").startswith("true")
    has_target = is_real or meta.get("@classlabel", "").startswith("true")
    if needs_target and not has_target:
        raise file.error("expected @classLabel true or @targetlabel true, got neither: there are no targets")
    rows: list[list[np.ndarray]] = []
    labels = []
    for number, line in enumerate(lines[body:], body + 1):
        if not line.strip():
            continue
        channels = line.strip().split(":")
        if has_target:
            labels.append(channels.pop().strip())
        if not channels or (rows and len(channels) != len(rows[0])):
            expected = f"{len(rows[0]) if rows else 'at least one'} channel(s)" + " and a target" * has_target
            raise file.error(f"expected {expected} in line {number}, got {len(channels)}")
        try:
            rows.append([_channel(channel) for channel in channels])
        except ValueError as error:
            raise file.error(f"expected a number in line {number}, {error}") from None
    notes.append("UCR .ts")
    columns = [[row[d] for row in rows] for d in range(len(rows[0]) if rows else 0)]
    x = _fill(file, [(np.array([len(row) for row in column]), np.concatenate(column)) for column in columns])
    return x, labels if needs_target else None, is_real


def _channel(text: str) -> np.ndarray:
    fields = text.split(",")
    try:
        if "_" not in text:
            return np.array(fields, dtype=np.float64)  # at once where nothing is missing
    except ValueError:
        pass
    return np.array([_number(field) for field in fields])


def _fill(file: _File, channels: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Channels, each as lengths (P,) and the values of all sequences, as one array (P, L, D), NaN behind the end."""
    length = max((int(lengths.max(initial=0)) for lengths, _ in channels), default=0)
    shape = (len(channels[0][0]) if channels else 0, length, len(channels))
    file.require(8 * math.prod(shape))
    x = np.full(shape, np.nan)
    for d, (lengths, values) in enumerate(channels):
        x[np.arange(length) < lengths[:, None], d] = values
    return x


# ---- arrays -----------------------------------------------------------------------------------------


def _read_numpy(
    file: _File, target: str | int | None, needs_target: bool, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    if file.format == "npy":
        with file.open() as stream:
            x = _read_npy(file, stream, file.size)
        notes.append("NPY")
        return _sequences(file, x, "the array"), None
    with file.open() as stream, file.foreign("an NPZ archive"), zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        if len(members) > MAX_MEMBERS:
            raise file.error(f"expected two arrays, got {len(members)}")
        shapes = {}
        for name, member in members.items():
            with archive.open(member) as packed:
                shapes[name] = _npy_header(file, packed)[0]
        x_name, y_name = _choose_arrays(file, shapes, target, needs_target)
        arrays = []
        for name in (x_name, y_name) if y_name is not None else (x_name,):
            file.require(members[name].file_size)
            with archive.open(members[name]) as packed:
                arrays.append(_read_npy(file, packed, members[name].file_size))
    notes.append(f"NPZ: sequences {x_name!r}" + (f", targets {y_name!r}" if y_name is not None else ""))
    return _sequences(file, arrays[0], repr(x_name)), arrays[1] if y_name is not None else None


def _choose_arrays(
    file: _File, shapes: dict[str, tuple[int, ...]], target: str | int | None, needs_target: bool
) -> tuple[str, str | None]:
    shown = ", ".join(f"{name!r} {shape}" for name, shape in list(shapes.items())[:8]) or "no array"
    y_name = None
    if needs_target:
        if target is not None and target not in shapes:
            raise file.error(f"target must be one of its arrays ({shown}), got {target!r}")
        vectors = [name for name, shape in shapes.items() if len(shape) == 1]
        y_name = target if isinstance(target, str) else next((name for name in Y_NAMES if name in shapes), None)
        if y_name is None and len(shapes) == 2 and len(vectors) == 1:
            y_name = vectors[0]
        if y_name is None:
            raise file.error(f"expected targets called 'y' (or {', '.join(Y_NAMES[1:])}), got {shown}")
    rest = [name for name in shapes if name != y_name]
    x_name = next((name for name in X_NAMES if name in rest), rest[0] if len(rest) == 1 else None)
    if x_name is None:
        raise file.error(f"expected sequences called 'x' (or {', '.join(X_NAMES[1:])}), got {shown}")
    return x_name, y_name


def _npy_header(file: _File, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with file.foreign("an NPY array"):
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise file.error(f"expected NPY version 1 or 2, got {version}: a structured array?")
        shape, _, dtype = readers[version](stream)
        return shape, dtype


def _read_npy(file: _File, stream: IO[bytes], available: int) -> np.ndarray:
    """An array of numbers or texts; what its header claims is checked before memory is taken."""
    shape, dtype = _npy_header(file, stream)
    if dtype.kind not in "biufSU":
        kind = "Python objects, which could run code: save numbers" if dtype.kind == "O" else f"dtype {dtype}"
        raise file.error(f"expected an array of real numbers or texts, got {kind}")
    count = math.prod(shape)
    if count <= 0 or min(shape, default=1) < 0:
        raise file.error(f"expected a non-empty array, got shape {shape}")
    available -= stream.tell()
    if count * dtype.itemsize > available:
        raise file.error(f"the header claims shape {shape} of {dtype}, but {available} bytes follow")
    file.require(count * max(dtype.itemsize, 8))
    with file.foreign("an NPY array"):
        stream.seek(0)
        array: np.ndarray = np.load(stream, allow_pickle=False)
        return array


def _sequences(file: _File, array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise file.error(f"expected sequences of numbers (P, L) or (P, L, D), got {name} {array.shape} {array.dtype}")
    with np.errstate(over="ignore"):  # a long double may not fit
        return array.astype(np.float64).reshape(*array.shape[:2], -1)


# ---- Parquet and Arrow ------------------------------------------------------------------------------


def _read_arrow(
    file: _File, target: str | int | None, drop: Sequence[str | int], needs_target: bool, notes: list[str]
) -> tuple[np.ndarray, Any]:
    table, types = _arrow_table(file), _library("pyarrow.types")
    notes.append("Parquet" if file.format == "parquet" else "Arrow")
    names = list(table.column_names)
    words = (types.is_string, types.is_large_string, types.is_dictionary, types.is_boolean)
    numeric = [not any(kind(each) for kind in words) for each in table.schema.types]
    inputs, place = _choose_columns(file, names, numeric, target, drop, needs_target, notes)
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    lists = [any(kind(table.schema.types[i]) for kind in kinds) for i in inputs]
    if not inputs or (any(lists) and not all(lists)):
        raise file.error(
            f"expected columns of numbers, or of lists, beside the target, got {len(inputs)}, {sum(lists)} of lists"
        )
    with file.foreign("a table of numbers"):
        if all(lists):
            x = _fill(file, [_lists(file, table.column(i), names[i]) for i in inputs])
        else:
            file.require(8 * table.num_rows * len(inputs))
            x = np.stack([_floats(file, table.column(i), names[i]) for i in inputs], axis=1)[:, :, None]
        return x, None if place is None else _labels(file, table.column(place), names[place])


def _arrow_table(file: _File) -> Any:
    pa, ipc, parquet = (_library(f"pyarrow{part}") for part in ("", ".ipc", ".parquet"))
    what = "a Parquet file" if file.format == "parquet" else "an Arrow file"
    with file.open() as stream, file.foreign(what):
        if file.format == "parquet":
            # not buffered ahead: a process that ended soon after an error would be aborted
            source = parquet.ParquetFile(stream, arrow_extensions_enabled=False, pre_buffer=False)
            schema = source.schema_arrow
            file.require(max(source.metadata.num_rows, 0) * len(schema))
            # by pieces, and without a look at the columns' metadata: a broken one would abort the process there
            pieces = source.iter_batches(BATCH_ROWS, use_threads=False)
        else:
            framed = stream.read(6) == b"ARROW1"
            stream.seek(0)
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
            raise file.error("expected rows, got none")
        for field in table.schema:
            if isinstance(field.type, pa.BaseExtensionType):
                raise file.error(f"expected plain columns, got the extension type {field.type} in {field.name!r}")
        return table


def _floats(file: _File, column: Any, name: str, what: str = "numbers") -> np.ndarray:
    types = _library("pyarrow.types")
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise file.error(f"expected {what} in column {name!r}, got {column.type} (drop it, or name the target)")
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _lists(file: _File, column: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (P,) of a column of lists, and the values of all."""
    compute = _library("pyarrow.compute")
    if column.null_count:
        raise file.error(f"expected a sequence in every row, got {column.null_count} without in column {name!r}")
    values = _floats(file, compute.list_flatten(column), name, "lists of numbers")
    return compute.list_value_length(column).to_numpy(), values


def _labels(file: _File, column: Any, name: str) -> Any:
    """Texts, or numbers with NaN for what is missing."""
    types = _library("pyarrow.types")
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        return _floats(file, column, name)
    if column.null_count:
        raise file.error(f"expected a target in every row, got {column.null_count} without")
    return column.to_pylist()


# ---- lengths and targets ----------------------------------------------------------------------------


def _lengths(file: _File, x: np.ndarray) -> np.ndarray:
    """Where each sequence ends (P,); NaN before that, and infinity anywhere, are errors."""
    if not x.size:
        raise file.error(f"expected sequences, got {len(x)} rows without a value")
    if np.isinf(x).any():
        raise file.error(f"expected finite values, got {int(np.isinf(x).sum())} infinite")
    there = ~np.isnan(x)
    some = there.any(axis=2)  # (P L)
    lengths = np.where(some.any(axis=1), x.shape[1] - some[:, ::-1].argmax(axis=1), 0)
    if not lengths.all():
        raise file.error(f"expected a value in every sequence, got none in sample {int(lengths.argmin())}")
    gaps = (np.arange(x.shape[1]) < lengths[:, None]) & ~there.all(axis=2)
    if gaps.any():
        sample = int(gaps.any(axis=1).argmax())
        raise file.error(
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
        fields = [line.strip().strip('"') for line in file.text().split("\n") if line.strip()]
        if len(fields) > 1 and not _is_number(fields[0]) and all(map(_is_number, fields[1:])):
            fields = fields[1:]  # a header above numbers
        return fields
    if file.format in ("parquet", "arrow"):
        table = _arrow_table(file)
        if table.num_columns != 1:
            raise file.error(f"expected one column of targets, got {table.num_columns}")
        with file.foreign("a column of targets"):
            return _labels(file, table.column(0), table.column_names[0])
    raise file.error(f"expected targets as text, NPY, Parquet or Arrow, got {file.format}")


def _targets(path: object, raw: ArrayLike, n_samples: int, task: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Codes and classes, or real targets, from texts or numbers; and which samples have one (P,)."""
    array = np.asarray(raw)
    if array.ndim == 0 or array.ndim > 2 or len(array) != n_samples:
        raise ReadError(path, f"expected one target per sample ({n_samples}), got shape {array.shape}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    texts = None
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind in "UO":
        texts = np.char.strip(array.astype(str))
        missing = np.isin(np.char.lower(texts), sorted(MISSING))
        odd = [text for text in texts[~missing].tolist() if not NUMBER.fullmatch(text)]
        if odd and (task == "real" or texts.ndim > 1):
            raise ReadError(path, f"expected numbers as targets, got {odd[0][:40]!r}")
        if odd or missing.all():
            return *_classes(path, texts), np.ones(n_samples, bool)
        array = np.where(missing, "nan", texts).astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise ReadError(path, f"expected targets that are numbers or texts, got {array.dtype}")
    values = array.astype(np.float64)
    there = np.array([not np.isnan(row).any() for row in values])
    values = values[there]
    if not np.isfinite(values).all() or not there.any():
        bad = int((~np.isfinite(values)).sum())
        raise ReadError(path, f"expected a finite target for every sample, got {bad or n_samples} that are not")
    if values.ndim == 1 and task != "real":
        classes, codes = np.unique(values, return_inverse=True)
        few = len(classes) <= min(MAX_CLASSES, max(n_samples // 2, 1))
        if task == "classes" or (few and (classes == np.round(classes)).all()):
            if texts is not None and len(np.unique(texts[there])) > len(classes):  # such as 1 and 1.0: who knows
                return *_classes(path, texts[there]), there
            return codes.astype(np.int64), tuple(f"{value:.10g}" for value in classes), there
    return values, (), there


def _classes(path: object, texts: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if np.isin(np.char.lower(texts), ("", "?", "nan")).any():  # "none" may well be a class
        raise ReadError(path, "expected a target for every sample, got a missing one")
    classes, codes = np.unique(texts, return_inverse=True)
    return codes.astype(np.int64), tuple(map(str, classes))

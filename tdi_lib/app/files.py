"""Labeled sequences from a file: tables, arrays, UCR's ``.ts`` and ``.tsv``, ARFF, recordings in WAV or FLAC.

A table holds one sample per row: its target, and one column per time step (or, in Parquet and Arrow, one column of
lists per channel); other layouts are read on request (:mod:`tdi_lib.app.layouts`). What could be meant in two ways is
decided by a rule that is stated here and reported in :class:`Samples` as ``understood``; where no rule is safe the
reader asks.

Nothing in a file is ever run: no pickle is loaded, no object array, no extension type. Sizes that a file claims are
compared with its bytes and with a limit before memory is taken.
"""

import contextlib
import csv
import dataclasses
import gzip
import importlib
import io
import itertools
import math
import os
import re
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tdi_lib.app.layouts import (
    LAYOUTS,
    NARROW,
    Roles,
    Shaped,
    header_rate,
    is_date,
    long_rows,
    looks_like_group,
    looks_like_id,
    named_like,
    suspicion,
    time_rows,
)
from tdi_lib.samples import MISSING, TASKS, group_members, one_of, positive_int, thousands, understand_targets

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "ReadError", "Samples", "read"]

FORMATS = dict.fromkeys((".csv", ".tsv", ".txt"), "text") | {".ts": "ts", ".npy": "npy", ".npz": "npz"}
FORMATS |= {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
FORMATS |= {".arff": "arff"}
"""Endings that :func:`read` knows, and which reader each gets. Texts may be packed (``.csv.gz``)."""

TEXTS = ("text", "ts", "arff")
AUDIO = (".wav", ".flac", ".ogg", ".aiff", ".aif")
X_NAMES = ("x", "X", "x_train", "X_train", "data", "inputs")
Y_NAMES = ("y", "Y", "y_train", "Y_train", "labels", "label", "targets", "target", "class")
MAX_BYTES = 2**31
MAX_MEMBERS = 1000
SAMPLE_ROWS = 20
BATCH_ROWS = 4096
SEPARATORS = (("\t", "."), (",", "."), (";", "."), (";", ","), ("\t", ","), ("|", "."), (" ", "."), (" ", ","))
SPOKEN = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
MAGIC = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"PAR1": "parquet", b"ARROW1": "arrow"}
MAGIC |= {b"\xff\xff\xff\xff": "arrow", b"FEA1": "Feather version 1", b"\x1f\x8b": "gzip", b"\x89HDF": "HDF5"}
MAGIC |= {b"\x80\x04": "a pickle", b"\x80\x05": "a pickle"}
Column = str | int


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
        groups: what each sample belongs to (P,), codes 0..G-1: its person, its recording; or None.
        rate: samples per second, where the file says so.
    """

    x: np.ndarray
    y: np.ndarray | None
    lengths: np.ndarray
    classes: tuple[str, ...]
    understood: str
    groups: np.ndarray | None = None
    rate: float | None = None


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What :func:`read` was told of a table."""

    target: tuple[Column, ...] = ()
    drop: tuple[Column, ...] = ()
    group: Column | None = None
    layout: str | None = None
    id: Column | None = None
    time: Column | None = None
    channel: Column | None = None
    window: int | None = None
    step: int | None = None
    header: bool | None = None
    skip_rows: int | None = None
    task: str = "auto"
    labeled: bool | None = True  # None: where the target's column is there

    def __post_init__(self) -> None:
        for name in ("target", "drop"):
            for each in getattr(self, name):
                if isinstance(each, bool) or not isinstance(each, str | int):
                    raise TypeError(f"{name} must be a column's name or number, got {type(each).__name__}")
        if self.layout is not None:
            one_of("layout", self.layout, LAYOUTS)
        for name in ("window", "step"):
            if (value := getattr(self, name)) is not None:
                positive_int(name, value)
        if self.skip_rows is not None:
            positive_int("skip_rows", self.skip_rows, minimum=0)
        if self.step is not None and self.window is None:
            raise ValueError(f"step must be given beside window, got {self.step} alone")
        for name, layouts in (("id", ("long",)), ("channel", ("long",)), ("time", ("long", "time-rows"))):
            if getattr(self, name) is not None and self.layout not in layouts:
                raise ValueError(f"{name} must be left out unless layout is {' or '.join(layouts)}, got {self.layout}")
        if self.layout == "time-rows" and self.window is None:
            raise ValueError("window must be given with layout 'time-rows': how many rows make a sample")


def read(
    path: str | Path,
    *,
    target: Column | Sequence[Column] | None = None,
    target_file: str | Path | None = None,
    drop: Sequence[Column] = (),
    group: Column | None = None,
    task: str = "auto",
    classes: Sequence[str] | None = None,
    labeled: bool | None = True,
    max_bytes: int = MAX_BYTES,
    **table: Any,
) -> Samples:
    """Read sequences and targets.

    - **CSV, TSV, TXT**: UTF-8 (or UTF-16 with its mark); commas, semicolons, tabs, bars or blanks; a decimal comma; a
      header or none; lines before the table and a row of units are left out. Rows may end early (or in ``?``, ``NaN``
      or nothing): those sequences are shorter.
    - **Parquet, Arrow, Feather**: one numeric column per step, or one column of lists per channel.
    - **NPZ**: an array of sequences (P, L) or (P, L, D), time before channels, called ``x``, ``X``, ``x_train``,
      ``data`` or ``inputs``, and one of targets, called ``y``, ``Y``, ``y_train``, ``labels`` or ``targets``; or two
      arrays of any names of which one has one axis. **NPY**: the sequences; the targets come from ``target_file``.
    - **.ts**: UCR, UEA and TSER archives, univariate or multivariate, without time stamps. **ARFF**: univariate.
    - **WAV, FLAC**: a folder that holds a folder of recordings per class, or a table with a column ``path`` (or
      ``file``) beside targets and groups.

    The target of a table is the column named (or several, real ones); else the one called ``target``, ``label``,
    ``class``, ``labels``, ``targets`` or ``y``; else the only one that is not numeric; else, in a text without header,
    the first (UCR). :func:`~tdi_lib.samples.understand_targets` tells classes from real targets; a ``.ts`` file that
    declares ``@targetlabel`` has real ones. A row whose number is missing (``NA``, ``?``, nothing) is left out.

    Args:
        path: the file, or the folder of folders; its ending says what it holds (``FORMATS``).
        target: columns of the targets: names, or numbers from 0. For NPZ the name of the array.
        target_file: a second file of any of these formats with one target per row and nothing else.
        drop: columns to leave out.
        group: column (in NPZ the array) that says what each sample belongs to.
        task: ``classes`` or ``real`` overrules what the targets look like.
        classes: names of the classes in the order of their codes, such as another file's.
        labeled: False reads no targets; None reads them where their column is there.
        max_bytes: refuse what would take more memory than this.
        table: ``header`` (whether the first row of a text holds names; looked at if omitted), ``skip_rows`` (lines
            before the table; looked at if omitted), ``layout`` (``rows``, ``time-rows`` or ``long``; if omitted rows
            are samples, and what looks otherwise is refused), ``id``, ``time`` and ``channel`` (columns of other
            layouts), ``window`` and ``step`` (of the windows that time rows and recordings are cut into).

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
    if isinstance(drop, str):
        raise TypeError(f"drop must be a sequence of columns, got the text {drop!r}")
    if target is not None and target_file is not None:
        raise ValueError("target must not be given beside target_file")
    targets = () if target is None else tuple(target) if isinstance(target, list | tuple) else (target,)
    wanted = labeled if target_file is None else False
    asked = _Asked(targets, tuple(drop), group, task=task, labeled=wanted, **table)
    notes: list[str] = []
    if isinstance(path, str | Path) and os.path.isdir(path):
        file: _File = _Folder(path, max_bytes)
        shaped = _read_folder(file, asked, notes)
    else:
        file = _File(path, max_bytes)
        _refuse_what_does_not_apply(file, asked)
        with file.named():
            shaped = _READERS[file.format](file, asked, notes)
    if asked.task == "auto" and shaped.declared_real and wanted:
        task = "real"
    raw: Any = shaped.targets
    if target_file is not None:
        raw = _read_targets(_File(target_file, max_bytes))
        notes.append(f"targets from {Path(target_file).name}")
    if raw is None and file.format == "npy" and labeled:
        raise ReadError(path, "an NPY file holds sequences alone; give the targets by target_file, or both in an NPZ")
    return _finished(file, shaped, raw, target_file or path, task, classes, notes)


def _finished(
    file: "_File",
    shaped: Shaped,
    raw: Any,
    source: object,
    task: str,
    classes: Sequence[str] | None,
    notes: list[str],
) -> Samples:
    """The samples that have a target, and what is said of them."""
    x, groups, y = shaped.x, shaped.groups, None
    lengths = _lengths(file, x)
    found: tuple[str, ...] = ()
    if raw is not None:
        try:
            y, found, there = understand_targets(raw, len(x), task=task, classes=classes, name="targets")
        except (TypeError, ValueError) as error:
            raise ReadError(source, str(error)) from None
        x, lengths, groups = x[there], lengths[there], None if groups is None else groups[there]
        if missing := int((~there).sum()):
            notes.append(f"{missing} row{'s' * (missing > 1)} without a target left out")
    x = x[:, : lengths.max()]
    n_samples, length, n_channels = x.shape
    steps = f"{length:,} steps" if (lengths == length).all() else f"{lengths.min():,} to {length:,} steps"
    notes.append(f"{n_samples:,} samples of {steps} and {n_channels} channel{'s' * (n_channels > 1)}")
    if n_channels > length:
        notes.append("more channels than steps: is time before channels?")
    if found:
        shown = ", ".join(found[:6]) + (", …" if len(found) > 6 else "")
        notes.append(f"{len(found)} class{'es' * (len(found) > 1)}: {shown}")
    elif y is not None:
        notes.append("a real target" if y.ndim == 1 else f"{y.shape[1]} real targets")
    if groups is not None:
        with file.named():
            groups = group_members(groups, n_samples) if len(np.unique(groups)) > 1 else np.zeros(n_samples, np.int64)
        notes.append(f"{groups.max() + 1} group{'s' * bool(groups.max())}, each kept together")
    return Samples(x, y, lengths, found, "; ".join(notes), groups, shaped.rate)


_TABLES = ("text", "parquet", "arrow", "arff")
_APPLIES = {
    "target": (*_TABLES, "npz"),
    "group": (*_TABLES, "npz"),
    "drop": _TABLES,
    "layout": _TABLES,
    "id": _TABLES,
    "time": _TABLES,
    "channel": _TABLES,
    "window": _TABLES,
    "header": ("text",),
    "skip_rows": ("text",),
}


def _refuse_what_does_not_apply(file: "_File", asked: _Asked) -> None:
    for name, kinds in _APPLIES.items():
        if getattr(asked, name) not in (None, ()) and file.format not in kinds:
            endings = ", ".join(ending for ending, kind in FORMATS.items() if kind in kinds)
            raise file.error(f"{name} does not apply to {file.suffix} files, only to {endings}")


def _library(name: str, extra: str = "cli") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"such files need {package}: pip install 'tdi-lib[{extra}]'") from error


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
        self.suffix = suffix = self.path.suffix.lower()
        self.packed = suffix == ".gz"
        inner = Path(self.path.stem).suffix.lower() if self.packed else suffix
        if inner not in FORMATS or (self.packed and FORMATS[inner] not in TEXTS):
            wanted = [each for each in FORMATS if not self.packed or FORMATS[each] in TEXTS]
            raise ReadError(path, f"expected one of the endings {', '.join(wanted)}, got {inner or 'none'!r}")
        self.format = FORMATS[inner]
        with self.open() as stream:
            start = stream.read(8)
        found = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "text")
        expected = "gzip" if self.packed else "text" if self.format in TEXTS else self.format
        if found != expected:
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
            raw = stream.read() if not self.packed else self._unpacked(stream)
        encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            raise self.error(f"expected UTF-8 text, got another byte at {error.start}") from None
        if "\0" in text:
            raise self.error(f"expected text, got a zero byte at character {text.index(chr(0))}")
        return text

    def _unpacked(self, stream: IO[bytes]) -> bytes:
        with self.foreign("a gzip file"), gzip.open(stream) as packed:
            raw = packed.read(self.max_bytes + 1)
        self.require(len(raw))
        return raw

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Give our own errors the file's name."""
        try:
            yield
        except ReadError:
            raise
        except (TypeError, ValueError) as error:
            raise self.error(str(error)) from None

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


def _read_text(file: _File, asked: _Asked, notes: list[str]) -> Shaped:
    text = _without_preamble(file, asked, notes)
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise file.error("expected rows of numbers, got blank lines")
    separator, decimal = max(SEPARATORS, key=lambda s: _fit(lines[:SAMPLE_ROWS], *s))
    with file.foreign("a table"):
        text = _without_units(text, separator, decimal, notes)
        width = max(map(len, _records(text, separator)))
        head = [row + [""] * (width - len(row)) for row in itertools.islice(_records(text, separator), SAMPLE_ROWS)]
    file.require(8 * len(lines) * width)
    named = int(_is_header(head, decimal) if asked.header is None else asked.header)
    names, first = [name.strip() for name in _strip_end(head[0])] if named else None, head[named : named + 1]
    if not first:
        raise file.error("expected rows of numbers below the header, got none")
    notes.append(
        f"text split at {SPOKEN[separator]}{' with decimal commas' if decimal == ',' else ''}, "
        f"{'with a' if named else 'without'} header"
    )
    known = len(names) if names else max(len(_strip_end(row)) for row in head)
    table = _Text(file, text, separator, decimal, width, named, known)
    if paths := [i for i, each in enumerate(first[0][:known]) if _is_audio(each)]:
        if names is None:
            raise file.error("expected a header (path, label, group) above the paths of recordings, got none")
        return _read_manifest(file, table.words(range(known)), names, paths[0], asked, notes)
    numeric = [_is_number(field, decimal) for field in first[0][:known]]
    if asked.layout is None and known <= NARROW and len(lines) > 32:
        with file.named():
            places = [_column(file, each, names, known, "target") for each in asked.target]
            if hint := suspicion(table.words(range(known)), names, places):
                raise file.error(hint)
    dates = [is_date(field) for field in first[0][:known]]
    roles = _choose_columns(file, names, numeric, dates, asked, notes)
    if asked.layout in ("time-rows", "long"):
        frame = table.words([*roles.words, *([roles.time] if roles.time is not None else [])])
        return _reshaped(frame, table.numbers(roles.inputs), roles, names or [*map(str, range(known))], asked, notes)
    return _samples_in_rows(table, roles, names, asked, notes)


def _samples_in_rows(table: "_Text", roles: Roles, names: list[str] | None, asked: _Asked, notes: list[str]) -> Shaped:
    """One sample a row: what stands in no column of the header, or misses its target, is an error."""
    file, known, width = table.file, table.known, table.width
    inputs = [*roles.inputs, *([] if names else range(known, width))]  # rows further down may be longer
    said = table.words([*roles.words, *(range(known, width) if names else ())]).fillna("")
    longer = (said.drop(columns=roles.words) != "").any(axis=1)  # than the header
    last = [place for place in roles.targets if place == known - 1]
    shorter = said[last[0]] == "" if last else ~longer & False  # or without a target
    rows = _rows(table.text)[table.named :] if (longer | shorter).any() else []
    for row in said.index[longer | shorter]:
        line, content = rows[min(row, len(rows) - 1)]
        count = len(_split(content, table.separator))
        if longer[row] or (count < known and content.strip(table.separator + " ")):
            raise file.error(f"expected {known} fields in every row, got {count} in line {line}")
    values = table.numbers(inputs)
    there = ~np.isnan(values).all(axis=1) | (said != "").any(axis=1).to_numpy()
    if asked.layout is None:
        _ask_about_columns(file, values[there], inputs, names)
    columns = [said.loc[there, place].tolist() for place in roles.targets]
    targets = None if not columns else columns[0] if len(columns) == 1 else np.array(columns).T
    groups = None if roles.group is None else said.loc[there, roles.group].to_numpy(dtype=object)
    rate, told = header_rate([names[i] for i in roles.inputs]) if names else (None, "")
    notes += [told] if told else []
    return Shaped(values[there, :, None], targets, groups, rate)


def _ask_about_columns(file: _File, values: np.ndarray, inputs: Sequence[int], names: list[str] | None) -> None:
    """Refuse numbers of samples and of persons among the steps, which nobody wants to learn from."""
    edges = {0, len(inputs) - 1}
    for place, i in enumerate(inputs):
        name = names[i] if names and i < len(names) else None
        shown = name if name is not None else str(i)
        if (name is not None or place in edges) and looks_like_id(name, values[:, place]):
            raise file.error(f"column {shown!r} looks like a number of the sample: say --drop {shown}; --layout rows "
                             "takes it for a time step")  # fmt: skip
        if looks_like_group(name, values[:, place]):
            raise file.error(f"column {shown!r} looks like what samples belong to: say --group {shown} (kept together) "
                             f"or --drop {shown}; --layout rows takes it for a time step")  # fmt: skip


def _reshaped(
    frame: "pd.DataFrame", values: np.ndarray, roles: Roles, names: list[str], asked: _Asked, notes: list[str]
) -> Shaped:
    if asked.layout == "long":
        return long_rows(frame, values, roles, names, notes)
    window = asked.window or 0
    return time_rows(frame, values, roles, window, asked.step or window, asked.task, notes)


def _without_preamble(file: _File, asked: _Asked, notes: list[str]) -> str:
    """The text with what stands before its table made blank, so that lines keep their numbers."""
    text = re.sub("\r\n|\r", "\n", file.text())
    if text[:4].lower() == "sep=":  # a spreadsheet's note of its separator: the rows tell
        text = "\n" + text.partition("\n")[2]
    lines = text.split("\n")
    if asked.skip_rows is not None:
        return "\n" * asked.skip_rows + "\n".join(lines[asked.skip_rows :])
    rows = [(n, line) for n, line in enumerate(lines[: 4 * SAMPLE_ROWS]) if line.strip()]
    separator, decimal = max(SEPARATORS, key=lambda s: _fit([line for _, line in rows[-SAMPLE_ROWS:]], *s))
    counts = [len(_split(line, separator)) for _, line in rows]
    usual = Counter(counts[len(counts) // 2 :]).most_common(1)[0][0] if counts else 0
    begin = next((k for k, count in enumerate(counts) if 2 * count > usual), 0)
    fields = [field for _, line in rows[:begin] for field in _split(line, separator)]
    if not begin or usual < 3 or 2 * sum(_is_number(field, decimal) for field in fields) >= len(fields):
        return text
    last = rows[begin - 1][0] + 1
    notes.append(f"{last} line{'s' * (last > 1)} before the table left out (--skip-rows says otherwise)")
    return "\n" * last + "\n".join(lines[last:])


def _without_units(text: str, separator: str, decimal: str, notes: list[str]) -> str:
    """The text with a row of units below its header made blank."""
    rows = list(itertools.islice(_records(text, separator), 3))
    if len(rows) < 3 or len(rows[1]) != len(rows[2]) or len(rows[0]) != len(rows[1]):
        return text
    words = [bool(field.strip()) and not _is_number(field, decimal) for field in rows[1]]
    above = [word and not _is_number(field, decimal) for word, field in zip(words, rows[0], strict=True)]
    below = [word and bool(field.strip()) and _is_number(field, decimal)
             for word, field in zip(words, rows[2], strict=True)]  # fmt: skip
    blank = sum(not field.strip() for field in rows[1])
    if sum(words) + blank < len(words) or 2 * sum(below) <= len(words) or not (any(above) or blank):
        return text
    lines = text.split("\n")
    second = [n for n, line in enumerate(lines) if line.strip()][1]
    notes.append(f"the row of units ({', '.join(dict.fromkeys(filter(None, rows[1])))[:40]}) left out")
    return "\n".join(["" if n == second else line for n, line in enumerate(lines)])


@dataclasses.dataclass(frozen=True)
class _Text:
    """A text that is known to be a table."""

    file: _File
    text: str
    separator: str
    decimal: str
    width: int
    named: int
    known: int

    def words(self, columns: Sequence[int]) -> "pd.DataFrame":
        """Columns as texts, without blanks around them."""
        columns = list(columns)
        frame = self._parse(columns or [0], dtype=dict.fromkeys(columns or [0], str), na_values={})
        return frame[columns].apply(lambda column: column.str.strip())

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Columns as numbers (P, L)."""
        columns = list(columns)
        frame = self._parse(columns, na_values=dict.fromkeys(columns, ("", "?", "NaN", "nan", "NA")))
        return _numbers(self.file, self.text, frame[columns], self.named, self.decimal)  # other spellings are there

    def _parse(self, columns: list[int], **options: Any) -> "pd.DataFrame":
        return _parse(
            self.file,
            self.text,
            self.separator,
            self.width,
            header=0 if self.named else None,
            usecols=columns,
            keep_default_na=False,
            decimal=self.decimal,
            **options,
        )


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
                    f"expected a number in line {rows[min(row + named, len(rows) - 1)][0]}, got {fields[row][:40]!r}"
                    + (thousands(fields[row]) or " (drop that column, or name the target or the group)")
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
    if any(_is_audio(path) and not _is_audio(name) for name, path in zip(rows[0], rows[1], strict=True)):
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
    dates: list[bool],
    asked: _Asked,
    notes: list[str],
) -> Roles:
    """What each column is for, by the rules of :func:`read`."""
    width = len(numeric)
    left_out = {_column(file, each, names, width, "drop") for each in asked.drop}
    if names and names[0] in ("", "Unnamed: 0"):
        left_out.add(0)
        notes.append("the first column, without a name, is an index and left out")
    left_out |= {i for i, name in enumerate(names or []) if re.fullmatch(r"__index_level_\d+__", name)}
    special: dict[str, int | None] = dict.fromkeys(("group", "id", "time", "channel"))
    for name in special:
        if (given := getattr(asked, name)) is not None:
            special[name] = _column(file, given, names, width, name)
    if asked.layout in ("time-rows", "long"):
        _find_special(file, names, dates, asked.layout, left_out, special)
    taken = left_out | {place for place in special.values() if place is not None}
    free = [i for i in range(width) if i not in taken]
    targets = _choose_targets(file, names, numeric, dates, free, left_out, asked)
    if targets:
        notes.append("targets in column " + ", ".join(repr(names[i] if names else i) for i in targets))
    for name, place in special.items():
        if place is not None:
            notes.append(f"{name} in column {(names[place] if names else place)!r}")
    inputs = [i for i in free if i not in targets]
    if not inputs:
        raise file.error(f"expected a target and at least one step in every row, got {len(free)} column(s)")
    return Roles(inputs, targets, **special)


def _find_special(
    file: _File,
    names: list[str] | None,
    dates: list[bool],
    layout: str,
    left_out: set[int],
    special: dict[str, int | None],
) -> None:
    """Columns of time, sample and channel that were not given, by their names; times by their look as well."""
    wanted = ("id", "time", "channel") if layout == "long" else ("time",)
    for name in wanted:
        taken = left_out | {place for place in special.values() if place is not None}
        called = [i for i, each in enumerate(names or []) if i not in taken and named_like(name, each)]
        if name == "id":
            called = [i for i in called if not named_like("channel", (names or [])[i])]
        if name == "time":
            called = called or [i for i, date in enumerate(dates) if date and i not in taken]
        if special[name] is None and len(called) == 1:
            special[name] = called[0]
    if layout == "long" and special["id"] is None:
        raise file.error("which column says what sample a row belongs to? give id (--id COLUMN)")


def _choose_targets(
    file: _File,
    names: list[str] | None,
    numeric: list[bool],
    dates: list[bool],
    free: list[int],
    left_out: set[int],
    asked: _Asked,
) -> list[int]:
    """The columns of the targets, none where none are wanted."""
    if asked.labeled is False:
        return []
    if asked.target and (asked.labeled or set(map(str, asked.target)) <= set(names or [])):
        places = [_column(file, each, names, len(numeric), "target") for each in asked.target]
        if len(set(places)) < len(places):
            raise file.error(f"target must name each column once, got {', '.join(map(str, asked.target))}")
        for each, place in zip(asked.target, places, strict=True):
            if place not in free:
                what = "dropped" if place in left_out else "the group, the id, the time or the channel as well"
                raise file.error(f"target must not be {what}, got {each!r}")
        return places
    if asked.target:
        return []
    if names is None:
        if len(free) < 2:
            raise file.error(f"expected a target and at least one step in every row, got {len(free)} column(s)")
        return free[:1]
    called = [i for i in free if names[i].strip() in Y_NAMES or names[i].strip().lower() in Y_NAMES]
    words = [i for i in free if not numeric[i] and not dates[i]]
    if len(only := called if len(called) == 1 else words) == 1 and (len(free) > 1 or asked.labeled):
        return only
    if asked.labeled is None and not called and not words:
        return []
    if len(free) < 2:
        raise file.error(f"expected a target and at least one step in every row, got {len(free)} column(s)")
    shown = ", ".join(repr(names[i]) for i in free[:8]) + ", …" * (len(free) > 8)
    raise file.error(f"which column is the target? give target, one of {shown}")


def _read_ts(file: _File, asked: _Asked, notes: list[str]) -> Shaped:
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
    if asked.labeled and not has_target:
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
    targets = labels if has_target and asked.labeled is not False else None
    return Shaped(x, targets, declared_real=is_real)


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
    for lengths, _ in channels[1:]:
        if (odd := (lengths != channels[0][0]) & (lengths > 0) & (channels[0][0] > 0)).any():
            sample = int(odd.argmax())
            raise file.error(
                f"expected channels of one length in every sample, got {channels[0][0][sample]} and {lengths[sample]} "
                f"values in sample {sample}: bring them to one sampling rate"
            )
    for d, (lengths, values) in enumerate(channels):
        x[np.arange(length) < lengths[:, None], d] = values
    return x


# ---- arrays -----------------------------------------------------------------------------------------


def _read_numpy(file: _File, asked: _Asked, notes: list[str]) -> Shaped:
    if file.format == "npy":
        with file.open() as stream:
            x = _read_npy(file, stream, file.size)
        notes.append("NPY")
        return Shaped(_sequences(file, x, "the array"), None)
    with file.open() as stream, file.foreign("an NPZ archive"), zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        if len(members) > MAX_MEMBERS:
            raise file.error(f"expected two arrays, got {len(members)}")
        shapes = {}
        for name, member in members.items():
            with archive.open(member) as packed:
                shapes[name] = _npy_header(file, packed)[0]
        chosen = _choose_arrays(file, shapes, asked)
        arrays: list[np.ndarray | None] = [None, None, None]
        for place, array in enumerate(chosen):
            if array is not None:
                file.require(members[array].file_size)
                with archive.open(members[array]) as packed:
                    arrays[place] = _read_npy(file, packed, members[array].file_size)
    words = ("sequences", "targets", "groups")
    notes.append("NPZ: " + ", ".join(f"{what} {name!r}" for what, name in zip(words, chosen, strict=True) if name))
    x, y, groups = np.asarray(arrays[0]), arrays[1], arrays[2]
    if groups is not None and groups.shape != x.shape[:1]:
        raise file.error(f"expected one group per sample ({len(x)},), got {chosen[2]!r} {groups.shape}")
    return Shaped(_sequences(file, x, repr(chosen[0])), y, groups)


def _choose_arrays(
    file: _File, shapes: dict[str, tuple[int, ...]], asked: _Asked
) -> tuple[str, str | None, str | None]:
    """The arrays of the sequences, of the targets and of the groups."""
    shown = ", ".join(f"{name!r} {shape}" for name, shape in list(shapes.items())[:8]) or "no array"
    target = asked.target[0] if asked.target else None
    for what, given in (("target", target if asked.labeled else None), ("group", asked.group)):
        if given is not None and given not in shapes:
            raise file.error(f"{what} must be one of its arrays ({shown}), got {given!r}")
    if len(asked.target) > 1:
        raise file.error(f"target must be one array, got {len(asked.target)}: put real targets into one (P, K)")
    y_name, left = None, {name: shape for name, shape in shapes.items() if name != asked.group}
    if asked.labeled is not False:
        vectors = [name for name, shape in left.items() if len(shape) == 1]
        y_name = next((name for name in ([target] if target is not None else Y_NAMES) if name in left), None)
        if y_name is None and len(left) == 2 and len(vectors) == 1:
            y_name = vectors[0]
        if y_name is None and asked.labeled:
            raise file.error(f"expected targets called 'y' (or {', '.join(Y_NAMES[1:])}), got {shown}")
    rest = [name for name in left if name != y_name]
    x_name = next((name for name in X_NAMES if name in rest), rest[0] if len(rest) == 1 else None)
    if x_name is None:
        raise file.error(f"expected sequences called 'x' (or {', '.join(X_NAMES[1:])}), got {shown}")
    return x_name, y_name, str(asked.group) if asked.group is not None else None


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
        raise file.error(f"expected sequences of numbers (P, L) or (P, L, D), time before channels, got {name} "
                         f"{array.shape} {array.dtype}")  # fmt: skip
    with np.errstate(over="ignore"):  # a long double may not fit
        return array.astype(np.float64).reshape(*array.shape[:2], -1)


# ---- Parquet and Arrow ------------------------------------------------------------------------------


def _read_arrow(file: _File, asked: _Asked, notes: list[str]) -> Shaped:
    table, types = _arrow_table(file), _library("pyarrow.types")
    notes.append("Parquet" if file.format == "parquet" else "Arrow")
    names = list(table.column_names)
    words = (types.is_string, types.is_large_string, types.is_dictionary, types.is_boolean)
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    numeric = [not any(kind(each) for kind in words) for each in table.schema.types]
    dates = [types.is_temporal(each) for each in table.schema.types]
    lists = [any(kind(each) for kind in kinds) for each in table.schema.types]
    if not any(lists) and len(names) <= NARROW:
        with file.foreign("a table"):
            frame = table.to_pandas().set_axis(range(len(names)), axis=1)
        _suspect(file, frame, names, asked)
    roles = _choose_columns(file, names, numeric, dates, asked, notes)
    listed = [lists[i] for i in roles.inputs]
    if any(listed) and not all(listed):
        odd = next(names[i] for i in roles.inputs if not lists[i])
        raise file.error(
            f"expected columns of numbers, or of lists, beside the target, got {len(listed)}, {sum(listed)} of lists "
            f"(drop {odd!r}?)"
        )
    with file.foreign("a table of numbers"):
        if all(listed):
            x = _fill(file, [_lists(file, table.column(i), names[i]) for i in roles.inputs])
        else:
            file.require(8 * table.num_rows * len(listed))
            x = np.stack([_floats(file, table.column(i), names[i]) for i in roles.inputs], axis=1)[:, :, None]
        if asked.layout in ("time-rows", "long") and not all(listed):
            with file.named():
                return _reshaped(frame, x[:, :, 0], roles, names, asked, notes)
        columns = [_labels(file, table.column(i), names[i]) for i in roles.targets]
        group = None if roles.group is None else table.column(roles.group).to_pandas().astype(object).to_numpy()
    if asked.layout is None and not all(listed):
        _ask_about_columns(file, x[:, :, 0], roles.inputs, names)
    rate, told = header_rate([names[i] for i in roles.inputs])
    notes += [told] if told else []
    targets = None if not columns else columns[0] if len(columns) == 1 else np.array(columns).T
    return Shaped(x, targets, group, rate)


def _suspect(file: _File, frame: "pd.DataFrame", names: list[str], asked: _Asked) -> None:
    """Refuse a table of few columns whose rows do not look like samples."""
    if asked.layout is None:
        places = [_column(file, each, names, len(names), "target") for each in asked.target]
        with file.named():
            if hint := suspicion(frame.astype(str), names, places):
                raise file.error(hint)


def _read_arff(file: _File, asked: _Asked, notes: list[str]) -> Shaped:
    """Attributes as columns; the class is a nominal one."""
    arff, pandas = _library("scipy.io.arff"), _library("pandas")
    with file.foreign("an ARFF table of numbers and nominal attributes (of several channels take the .ts file)"):
        records, meta = arff.loadarff(io.StringIO(file.text()))
        names = meta.names()
        frame = pandas.DataFrame({i: np.char.decode(c, "utf-8") if c.dtype.kind == "S" else c.astype(float)
                                  for i, c in enumerate(records[name] for name in names)})  # fmt: skip
    file.require(8 * frame.size)
    notes.append("ARFF")
    numeric = [kind != "nominal" for kind in meta.types()]
    _suspect(file, frame, names, asked)
    roles = _choose_columns(file, names, numeric, [False] * len(names), asked, notes)
    if words := [names[i] for i in roles.inputs if not numeric[i]]:
        raise file.error(f"expected numeric attributes beside the target, got {words[0]!r} (drop it)")
    values = frame[roles.inputs].to_numpy(np.float64)
    if asked.layout in ("time-rows", "long"):
        return _reshaped(frame, values, roles, names, asked, notes)
    if asked.layout is None:
        _ask_about_columns(file, values, roles.inputs, names)
    columns = [frame[i].to_numpy() for i in roles.targets]
    targets = None if not columns else columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return Shaped(values[:, :, None], targets, None if roles.group is None else frame[roles.group].to_numpy())


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


# ---- recordings -------------------------------------------------------------------------------------


def _is_audio(text: str) -> bool:
    return Path(text.strip()).suffix.lower() in AUDIO


class _Folder(_File):
    """A folder of folders of recordings."""

    def __init__(self, path: str | Path, max_bytes: int) -> None:
        self.path, self.max_bytes = Path(path), max_bytes
        self.size, self.suffix, self.format, self.packed = 0, "folder", "audio", False


def _read_folder(file: _File, asked: _Asked, notes: list[str]) -> Shaped:
    """Recordings below a folder per class."""
    for name in _APPLIES:
        if getattr(asked, name) not in (None, ()) and name != "window":
            raise file.error(f"{name} does not apply to folders of recordings, only to a table of their paths")
    found = sorted(p for p in file.path.rglob("*") if p.is_file() and _is_audio(p.name) and p.name[0] != ".")
    if not found:
        raise file.error(f"expected a file, or a folder that holds one folder of {', '.join(AUDIO)} per class; got a "
                         "folder without any")  # fmt: skip
    labels = [p.relative_to(file.path).parts[0] if p.parent != file.path else "" for p in found]
    if "" in labels and asked.labeled and any(labels):
        raise file.error(f"expected every recording in the folder of its class, got {found[labels.index('')].name}")
    if "" in labels and asked.labeled:
        raise file.error("expected one folder per class, or a table with their paths and labels; got recordings alone")
    shaped = _recordings(file, found, asked, notes)
    index = shaped.groups if shaped.groups is not None else np.arange(len(found))
    targets = [labels[i] for i in index] if asked.labeled is not False and any(labels) else None
    return dataclasses.replace(shaped, targets=targets)


def _read_manifest(
    file: _File, frame: "pd.DataFrame", names: list[str], place: int, asked: _Asked, notes: list[str]
) -> Shaped:
    """Recordings named by a column of a table, whose other columns are targets and groups."""
    left = [i for i in range(len(names)) if i != place]
    numeric = [_is_number(field or "") for field in frame.iloc[0]]
    if asked.layout is not None:
        raise file.error("layout does not apply to a table of recordings")
    group = None if asked.group is None else _column(file, asked.group, names, len(names), "group")
    left = [i for i in left if i != group and names[i] not in map(str, asked.drop)]
    targets = _choose_targets(file, names, numeric, [False] * len(names), [*left, place], set(), asked)
    found = [path if (path := Path(name)).is_absolute() else file.path.parent / path for name in frame[place]]
    notes.append(f"recordings in column {names[place]!r}, targets in " + ", ".join(repr(names[i]) for i in targets))
    shaped = _recordings(file, found, asked, notes)
    index = shaped.groups if shaped.groups is not None else np.arange(len(found))
    columns = [frame[i].fillna("").to_numpy(dtype=object)[index] for i in targets]
    groups = shaped.groups if group is None else frame[group].fillna("").to_numpy(dtype=object)[index]
    raw = None if not columns else list(columns[0]) if len(columns) == 1 else np.stack(columns, axis=1)
    return dataclasses.replace(shaped, targets=raw, groups=groups)


def _recordings(file: _File, paths: list[Path], asked: _Asked, notes: list[str]) -> Shaped:
    """Whole recordings, or their windows; groups are the numbers of their files if they were cut."""
    soundfile = _library("soundfile", extra="data")
    infos = []
    for path in paths:
        if not path.is_file():
            raise file.error(f"names a recording that is not there: {path}")
        with _recording(path):
            infos.append(soundfile.info(str(path)))
    for what, values in (
        ("sampling rate", [i.samplerate for i in infos]),
        ("number of channels", [i.channels for i in infos]),
    ):
        if len(set(values)) > 1:
            common, odd = Counter(values).most_common()[0][0], Counter(values).most_common()[-1][0]
            raise file.error(f"expected one {what}, got {common} and {odd} ({paths[values.index(odd)].name})")
    window, step = asked.window, asked.step or asked.window or 0
    file.require(8 * sum(i.frames * i.channels for i in infos) * max(1, (window or 0) // max(step, 1)))
    rows: list[np.ndarray] = []
    owner: list[int] = []
    for k, path in enumerate(paths):
        with _recording(path):
            data = soundfile.read(str(path), always_2d=True)[0]  # (L D)
        starts = range(0, len(data) - window + 1, step) if window else range(1)
        rows += [data[a : a + window] if window else data for a in starts]
        owner += [k] * len(starts)
    if window and (left := len(set(range(len(paths))) - set(owner))):
        notes.append(f"{left} recording{'s' * (left > 1)} shorter than {window} steps left out")
    if not rows:
        raise file.error(f"expected recordings of at least {window} steps (window), got none")
    x = np.full((len(rows), max(map(len, rows)), infos[0].channels), np.nan)
    for k, row in enumerate(rows):
        x[k, : len(row)] = row
    rate = float(infos[0].samplerate)
    notes.append(f"{len(paths)} recordings at {rate:g} samples per second")
    return Shaped(x, None, np.array(owner) if window else None, rate)


@contextlib.contextmanager
def _recording(path: Path) -> Iterator[None]:
    """Whatever a library raises about a recording, with its name."""
    try:
        yield
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(path, f"is not a recording: {' '.join(str(error).split())[:200]}") from None


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


_READERS = {
    "text": _read_text,
    "ts": _read_ts,
    "npy": _read_numpy,
    "npz": _read_numpy,
    "parquet": _read_arrow,
    "arrow": _read_arrow,
    "arff": _read_arff,
}

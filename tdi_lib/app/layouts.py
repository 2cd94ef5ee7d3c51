"""Tables whose rows are not samples: one row per time step, or one per sample, time and channel (long format).

A row of the usual table is a sequence. :func:`suspicion` says when a table looks otherwise and how to read it then;
:func:`time_rows` cuts a recording into windows, :func:`long_rows` gathers the rows of each sample.
"""

import dataclasses
import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tdi_lib.samples import understand_targets

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Roles",
    "Shaped",
    "header_rate",
    "is_date",
    "long_rows",
    "looks_like_group",
    "looks_like_id",
    "named_like",
    "suspicion",
    "time_rows",
]

LAYOUTS = ("rows", "time-rows", "long")
NARROW = 40  # columns; a wider table is one of sequences
_ID = re.compile(r"(.*[ _.-])?(id|ids|uid|uuid|key|index|idx|nr|no|number|row|unnamed: 0)", re.IGNORECASE)
_CAMEL_ID = re.compile(r".*[a-z](Id|ID|Key|Index)")
_SAMPLE = re.compile(r"(.*[ _.-])?(id|ids|case|sample|series|instance|unit|recording|window|trial)([ _.-]?id)?", re.I)
_GROUP = re.compile(
    r"(.*[ _.-])?(subject|patient|person|user|participant|speaker|animal|session|group|fold)s?([ _.-]?(id|nr|no))?",
    re.I,
)
_TIME = re.compile(
    r"(time|timestamp|time[ _.-]?stamp|datetime|date|t|sec|secs|seconds|ms|step|frame)s?([ _(\[].*)?", re.I
)
_CHANNEL = re.compile(r"channel|variable|feature|sensor|dim|dimension|kind|axis|dim_id", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*|\d{1,2}:\d{2}(:.*)?")


@dataclasses.dataclass(frozen=True)
class Roles:
    """What each column of a table is for, by its number."""

    inputs: list[int]
    targets: list[int]
    group: int | None = None
    id: int | None = None
    time: int | None = None
    channel: int | None = None

    @property
    def words(self) -> list[int]:
        """Columns that are read as texts."""
        return [*self.targets, *(each for each in (self.group, self.id, self.channel) if each is not None)]


@dataclasses.dataclass(frozen=True)
class Shaped:
    """Sequences (P, L, D), their targets as they stand in the table, groups (P,) and samples per second, if known."""

    x: np.ndarray
    targets: Any
    groups: np.ndarray | None = None
    rate: float | None = None
    declared_real: bool = False  # by the file


# ---- recognizing ------------------------------------------------------------------------------------


def suspicion(frame: "pd.DataFrame", names: list[str] | None, target: list[int]) -> str | None:
    """Why rows of a narrow table, given as texts, do not look like sequences, and what to say then; None if they do.

    >>> import pandas as pd
    >>> walk = pd.DataFrame({"x": range(90), "y": range(90), "what": (["sit"] * 15 + ["go"] * 15) * 3}).astype(str)
    >>> suspicion(walk.set_axis(range(3), axis=1), ["x", "y", "what"], [])[:50]
    "rows look like time steps (labels of 'what' in run"
    """
    n_rows, n_columns = frame.shape
    called = names or [str(i) for i in range(n_columns)]
    otherwise = "; --layout rows takes every row for a sample"
    ids = [i for i in range(n_columns) if names and _SAMPLE.fullmatch(called[i]) and _repeats(frame[i])]
    times = [i for i in range(n_columns) if names and _TIME.fullmatch(called[i])]
    if ids and times and n_columns <= 12:
        return (
            f"rows look like long format (samples in {called[ids[0]]!r}, times in {called[times[0]]!r}): say --layout "
            f"long --id {called[ids[0]]} --time {called[times[0]]}{otherwise}"
        )
    if n_rows < max(8 * n_columns, 32) or (names and _numbered(names)):
        return None
    dates = [i for i in range(n_columns) if is_date(frame[i].iloc[0])]
    clocks = [i for i in {*times, *dates} if _increases(frame[i])]
    why = f"times in {called[clocks[0]]!r}" if clocks else None
    for i in target or range(n_columns):
        distinct = frame[i].nunique()
        runs = int((frame[i] != frame[i].shift()).sum())
        in_runs = 2 <= distinct <= 100 and 8 * runs <= n_rows
        if why is None and in_runs and (runs > distinct or n_columns <= 8) and (target or not _numeric(frame[i])):
            why = f"labels of {called[i]!r} in runs"
    if why is None:
        return None
    return f"rows look like time steps ({why}): say --layout time-rows --window STEPS{otherwise}"


def named_like(role: str, name: str) -> bool:
    """Whether a column is called as a sample (``id``), a ``time`` or a ``channel`` is."""
    pattern = {"id": _SAMPLE, "time": _TIME, "channel": _CHANNEL}[role]
    return bool(pattern.fullmatch(name.strip()))


def _repeats(column: "pd.Series") -> bool:
    return bool(4 * column.nunique() <= len(column))


def _numeric(column: "pd.Series") -> bool:
    return bool(column.head(50).str.fullmatch(r"\s*[-+]?[0-9.]+([eE][-+]?\d+)?\s*").fillna(False).all())


def is_date(text: object) -> bool:
    """Whether a text looks like a date or a time of day."""
    return isinstance(text, str) and _DATE.fullmatch(text.strip()) is not None


def _increases(column: "pd.Series") -> bool:
    try:
        steps = np.diff(seconds(column))
    except ValueError:
        return False
    return bool(len(steps) and (steps > 0).mean() > 0.9)


def _numbered(names: list[str]) -> bool:
    """Whether most columns are one name with a number that grows: steps of a sequence."""
    ends = [re.fullmatch(r"(.*?)(\d+)", name.strip()) for name in names]
    stems = [end[1] for end in ends if end]
    common = max(set(stems), key=stems.count, default="")
    numbers = [int(end[2]) for end in ends if end and end[1] == common]
    return len(numbers) >= max(3, 0.6 * len(names)) and bool((np.diff(numbers) > 0).all())


def looks_like_id(name: str | None, values: np.ndarray) -> bool:
    """Whether a column (P,) numbers the samples: whole, each value once, and in order or named like an id.

    >>> looks_like_id("customer_id", np.array([7.0, 3, 5, 1])), looks_like_id("t0", np.array([7.0, 3, 5, 1]))
    (True, False)
    """
    if len(values) < 4 or not np.isfinite(values).all() or (values != np.round(values)).any():
        return False
    named = name is not None and bool(_ID.fullmatch(name.strip()) or _CAMEL_ID.fullmatch(name.strip()))
    steps = np.diff(values)
    in_order = len(values) >= 8 and bool((steps > 0).all() or (steps < 0).all())
    return len(np.unique(values)) == len(values) and (named or in_order)


def looks_like_group(name: str | None, values: np.ndarray) -> bool:
    """Whether a column (P,) says whose the sample is: named like a person or a session, whole, values repeated."""
    whole = np.isfinite(values).all() and (values == np.round(values)).all()
    return bool(name and _GROUP.fullmatch(name.strip()) and whole and 2 * len(np.unique(values)) <= len(values))


def header_rate(names: list[str]) -> tuple[float | None, str]:
    """Samples per second where a header holds even times, and what is said of it.

    >>> header_rate(["label", "0.00", "0.02", "0.04", "0.06", "0.08", "0.10", "0.12", "0.14"])
    (50.0, 'the header counts seconds: 50 samples per second')
    """
    found = [re.fullmatch(r"\s*(?:t\s*=?\s*)?([0-9]+(?:\.[0-9]+)?)\s*(s|ms|us)?\s*", name) for name in names]
    times = np.array([float(each[1]) for each in found if each])
    units = {each[2] for each in found if each}
    if len(times) < max(8, len(names) - 4) or len(units) > 1 or not np.allclose(np.diff(times), times[1] - times[0]):
        return None, ""
    step, unit = float((times[-1] - times[0]) / (len(times) - 1)), units.pop()
    if step <= 0 or (unit is None and step == round(step)):  # numbers of steps, or times of a unit that is not said
        said = f"steps of {step:g} in the header: if they are times, say their rate by --rate"
        return None, said if step > 1 else ""
    rate = {None: 1.0, "s": 1.0, "ms": 1e3, "us": 1e6}[unit] / step
    counted = {"ms": "milliseconds", "us": "microseconds"}.get(unit or "", "seconds")
    return float(f"{rate:.9g}"), f"the header counts {counted}: {rate:.6g} samples per second"


# ---- shaping ----------------------------------------------------------------------------------------


def seconds(column: "pd.Series") -> np.ndarray:
    """Times (N,) in seconds of a column of numbers, dates or times of day; ValueError if they are neither."""
    import pandas as pd

    if column.dtype.kind in "iuf":
        return column.to_numpy(np.float64)
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        dates = column
    else:
        texts = column.astype(str).str.strip()
        numbers = pd.to_numeric(texts, errors="coerce")
        if numbers.notna().all():
            return numbers.to_numpy(np.float64)
        clock = texts.str.fullmatch(r"\d{1,2}:\d{2}(:\d{2}(\.\d*)?)?").all()
        dates = pd.to_datetime("2000-01-01 " + texts if clock else texts, format="mixed", utc=True, errors="coerce")
    if dates.isna().any():
        raise ValueError(f"expected times or dates, got {column[dates.isna()].iloc[0]!r}")
    return np.asarray((dates - dates.iloc[0]).dt.total_seconds(), dtype=np.float64)


def time_rows(
    frame: "pd.DataFrame", values: np.ndarray, roles: Roles, window: int, step: int, task: str, notes: list[str]
) -> Shaped:
    """Windows of a recording whose rows are time steps and whose columns are channels.

    A window never crosses a change of the group, a gap in time, a missing value, or, where the targets are classes, a
    change of the label; of real targets it has the mean. Without a group column the windows of one such stretch belong
    together.

    Args:
        frame: the columns of ``roles`` other than the inputs.
        values: the inputs (N, D).
        window, step: length of a window and distance of their beginnings, in rows.
        task: as for :func:`~tdi_lib.samples.understand_targets`.
        notes: gets what was done.

    Raises:
        ValueError: if no stretch is as long as a window, or times are none.
    """
    n_rows = len(values)
    targets = [frame[i].to_numpy(dtype=object) for i in roles.targets]
    real = _real_targets(targets, n_rows, task)
    new = np.zeros(n_rows, bool)
    new[0] = True
    changing = [] if real is not None else list(targets)
    if roles.group is not None:
        changing.append(frame[roles.group].to_numpy(dtype=object))
    for column in changing:
        new[1:] |= column[1:] != column[:-1]
    rate = None if roles.time is None else _gaps(seconds(frame[roles.time]), new, notes)
    missing = np.isnan(values if real is None else np.column_stack([values, real])).any(axis=1)
    index = _windows(new, missing, window, step)
    if not index.size:
        raise ValueError(f"expected a stretch of at least {window} rows (--window), got none without a change or a gap")
    covered = len(np.unique(index)) / n_rows
    notes.append(f"{window} rows a window, {step} from one to the next: {100 * covered:.0f} % of {n_rows:,} rows used")
    groups: Any = np.cumsum(new)[index[:, 0]]
    if roles.group is not None:
        groups = frame[roles.group].to_numpy(dtype=object)[index[:, 0]].astype(str)
    elif len(np.unique(groups)) < 2:
        groups = None
    else:
        notes.append("windows of one stretch between changes belong together (--group COLUMN says otherwise)")
    found: list[Any] | None = [targets[0][start] for start in index[:, 0]] if targets else None
    if real is not None:
        notes.append("a window's target is the mean over its rows")
        found = list(real[index].mean(axis=1))
    return Shaped(values[index], found, groups, rate)


def _real_targets(targets: list[np.ndarray], n_rows: int, task: str) -> np.ndarray | None:
    """Real targets of the rows, (N,) or (N, K), NaN where one is missing; None for classes and without targets."""
    if not targets:
        return None
    understood, classes, there = understand_targets(
        targets[0] if len(targets) == 1 else np.stack(targets, axis=1), n_rows, task=task, name="targets"
    )
    if classes:
        return None
    real = np.full((n_rows, *understood.shape[1:]), np.nan)
    real[there] = understood
    return real


def _gaps(times: np.ndarray, new: np.ndarray, notes: list[str]) -> float:
    """Samples per second; gaps in time begin a stretch (marked in ``new``)."""
    steps = np.diff(times)
    usual = float(np.median(steps[~new[1:]])) if (~new[1:]).any() else 0.0
    if usual <= 0:
        raise ValueError("expected times that increase within a recording")
    gaps = ~new[1:] & ((steps <= 0) | (steps > 1.5 * usual))
    within = steps[~new[1:] & ~gaps]
    if (np.abs(within / usual - 1) < 0.1).mean() < 0.9:
        raise ValueError(f"expected even time steps, got {within.min():g} to {within.max():g} s: resample")
    new[1:] |= gaps
    notes.append(f"{1 / usual:.6g} samples per second by the times, if they are in seconds")
    if gaps.any():
        notes.append(f"{int(gaps.sum())} gap{'s' * bool(gaps.sum() > 1)} in time")
    return float(f"{1 / usual:.6g}")


def _windows(new: np.ndarray, missing: np.ndarray, window: int, step: int) -> np.ndarray:
    """Rows (P, L) of all windows without a missing row or a new stretch within."""
    edges = [*np.flatnonzero(new), len(new)]
    index = []
    for first, last in itertools.pairwise(edges):
        holes = [first - 1, *(first + np.flatnonzero(missing[first:last])), last]
        for before, after in itertools.pairwise(holes):
            index += [np.arange(a, a + window) for a in range(before + 1, after - window + 1, step)]
    return np.array(index, dtype=np.int64).reshape(-1, window)


def long_rows(frame: "pd.DataFrame", values: np.ndarray, roles: Roles, names: list[str], notes: list[str]) -> Shaped:
    """Sequences of a table with a row per sample and time (a column per channel), or per sample, time and channel.

    Samples come in the order of their first row, channels (of a channel column) in that of their names; rows are put
    in the order of their times. Sequences that are shorter end in NaN.

    Raises:
        ValueError: naming the sample whose times repeat or have gaps, or whose target or group is not one.
    """
    import pandas as pd

    ids = frame[roles.id].astype(str).to_numpy()
    order = {each: k for k, each in enumerate(dict.fromkeys(ids.tolist()))}
    sample = np.array([order[each] for each in ids.tolist()])
    clock = np.arange(len(frame), dtype=float) if roles.time is None else seconds(frame[roles.time])
    table = pd.DataFrame(values).assign(sample=sample, clock=clock)
    if roles.channel is not None:
        if values.shape[1] != 1:
            raise ValueError(f"expected one column of values beside {names[roles.channel]!r}, got {values.shape[1]}")
        table["channel"] = frame[roles.channel].astype(str).to_numpy()
    keys = ["sample", "clock"] + ["channel"] * (roles.channel is not None)
    if (twice := table.duplicated(keys)).any():
        raise ValueError(f"expected one row per {' and '.join(['sample', 'time', 'channel'][: len(keys)])}, "
                         f"got several in sample {ids[int(twice.to_numpy().argmax())]!r}")  # fmt: skip
    if roles.channel is not None:
        wide = table.pivot(index=["sample", "clock"], columns="channel", values=0)
        notes.append("channels " + ", ".join(map(str, wide.columns[:6])) + ", …" * (len(wide.columns) > 6))
    else:
        wide = table.set_index(["sample", "clock"]).sort_index()
    rows = wide.to_numpy(np.float64)
    owner, times = (wide.index.get_level_values(k).to_numpy() for k in keys[:2])
    counts = np.bincount(owner, minlength=len(order))
    rate = _even(times, owner, list(order), notes) if roles.time is not None else None
    x = np.full((len(order), counts.max(), rows.shape[1]), np.nan)
    x[np.arange(counts.max()) < counts[:, None]] = rows
    first = np.array([np.flatnonzero(sample == k)[0] for k in range(len(order))])
    for i in [*roles.targets, *([roles.group] if roles.group is not None else [])]:
        column = frame[i].astype(str).to_numpy()
        if (odd := column != column[first][sample]).any():
            raise ValueError(f"expected one {names[i]!r} per sample, got several in sample {ids[int(odd.argmax())]!r}")
    found = [frame[i].to_numpy(dtype=object)[first] for i in roles.targets]
    targets = None if not found else list(found[0] if len(found) == 1 else np.stack(found, axis=1))
    groups = None if roles.group is None else frame[roles.group].astype(str).to_numpy()[first]
    return Shaped(x, targets, groups, rate)


def _even(times: np.ndarray, owner: np.ndarray, ids: list[str], notes: list[str]) -> float | None:
    """Samples per second of times that are even within every sample."""
    same = np.diff(owner) == 0
    steps = np.diff(times)[same]
    if not steps.size:
        return None
    usual = float(np.median(steps))
    odd = np.abs(steps / usual - 1) > 0.1
    if odd.any():
        where = ids[int(owner[1:][same][odd.argmax()])]
        raise ValueError(
            f"expected even times in every sample, got a step of {steps[odd.argmax()]:g} beside {usual:g} in sample "
            f"{where!r}: more than one sampling rate, or a gap"
        )
    if usual == 1.0 and (times == np.round(times)).all():  # numbers of steps
        return None
    notes.append(f"{1 / usual:.6g} samples per second by the times, if they are in seconds")
    return float(f"{1 / usual:.6g}")

"""How recorded runs are read and compared: paired by seed, with intervals, in units of data."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import scipy  # its parts are loaded when they are first used
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import ArrayLike

from tdi_lib.samples import positive_int, real_array, real_number
from tdi_lib.study.plans import DEFAULTS, FIELDS, Trial, trial_of

__all__ = [
    "Interval",
    "PairedDifference",
    "best_so_far",
    "choose_rows",
    "find_trial",
    "grouped_bootstrap",
    "grouped_mean",
    "holm",
    "paired_difference",
    "read_study",
    "sample_efficiency",
    "with_gain",
]

# ---- recorded rows -------------------------------------------------------------------------------


def read_study(path: str | Path) -> pd.DataFrame:
    """The recorded rows of a study, sorted by configuration.

    Fields of :class:`~tdi_lib.study.plans.Trial` that the file does not know, because it is older, have their defaults.
    """
    return pd.DataFrame(read_rows(path)).sort_values(FIELDS, ignore_index=True)


def with_gain(table: pd.DataFrame) -> pd.DataFrame:
    """Every run beside that of S4D-Lin on the same examples, with the same seed and the same training.

    Adds ``base_loss``, ``base_accuracy`` and ``gain``, the log of the ratio of test losses: positive where the run is
    better than S4D-Lin; ``validation``, the lowest validation loss; and ``plain``, whether the run differs from its
    partner in ``init`` alone. Runs without a partner are left out.

    >>> import dataclasses
    >>> row = dataclasses.asdict(Trial("forda", 200, 0, "lin")) | {"loss": 0.3, "accuracy": 0.9}
    >>> with_gain(pd.DataFrame([row, row | {"init": "tdi", "loss": 0.15}])).gain.round(2).tolist()
    [0.0, 0.69]
    """
    varied = ["layers", "dt_min", "dt_max", "pretrain_steps"]
    partner = [name for name in FIELDS if name not in {"init", *varied}]
    lowest = [best_so_far(history or (), [math.inf])[0] for history in table.get("history", [None] * len(table))]
    table = table.assign(plain=(table[varied] == [DEFAULTS[name] for name in varied]).all(axis=1), validation=lowest)
    base = table[(table.init == "lin") & table.plain][[*partner, "loss", "accuracy"]]
    base = base.rename(columns={"loss": "base_loss", "accuracy": "base_accuracy"})
    joined = table.merge(base, on=partner, how="inner", validate="many_to_one")
    return joined.assign(gain=np.log(joined.base_loss / joined.loss))


def choose_rows(
    table: pd.DataFrame, candidates: Sequence[str], *, margin: float = 0.0, default: str = "lin"
) -> pd.DataFrame:
    """Of every data set, size and seed the run whose left-out score is the lowest: a choice without test data.

    The score is ``left_out``, or ``crossed`` where the filters were matched to labels
    (:func:`~tdi_lib.study.closed_form.run_closed_form`).

    Args:
        table: runs of the closed-form study, one of every candidate each time.
        candidates: the initializations to choose among.
        margin: nats by which a score must be below that of the ``default``, which is kept else.
        default: one of the candidates.

    Raises:
        ValueError: if a run of a candidate is missing.

    >>> runs = pd.DataFrame({"dataset": "forda", "n": 50, "seed": 0, "init": ["lin", "flat"], "crossed": None})
    >>> runs = runs.assign(left_out=[0.5, 0.4])
    >>> choose_rows(runs, ["lin", "flat"]).init.item(), choose_rows(runs, ["lin", "flat"], margin=0.2).init.item()
    ('flat', 'lin')
    """
    cells = ["dataset", "n", "seed"]
    among = table[table.init.isin(candidates)]
    score = among.crossed.astype(float).fillna(among.left_out)
    among = among.assign(score=np.where(among.init == default, score - margin, score))
    counts = among.groupby(cells).init.nunique()
    if (counts < len(set(candidates))).any():
        raise ValueError(f"table must have a run of every candidate, but {counts.idxmin()} has {counts.min()}")
    return among.loc[among.groupby(cells).score.idxmin()].drop(columns="score").reset_index(drop=True)


def best_so_far(history: Iterable[Mapping[str, Any]], steps: Iterable[float]) -> np.ndarray:
    """Lowest validation loss of a recorded ``history`` up to each of the ``steps`` (S,); NaN before there was one.

    >>> history = [{"step": 25, "val_loss": 0.7}, {"step": 50, "val_loss": None}, {"step": 75, "val_loss": 0.4}]
    >>> best_so_far(history, [10, 60, 75])
    array([nan, 0.7, 0.4])
    """
    seen = [(row["step"], row["val_loss"]) for row in history if row["val_loss"] is not None]
    return np.array([min((loss for at, loss in seen if at <= step), default=math.nan) for step in steps])


def find_trial(table: pd.DataFrame, trial: Trial) -> dict[str, Any]:
    """The recorded row of one trial.

    Raises:
        KeyError: if the table does not hold it.
    """
    for row in table.to_dict("records"):
        if trial_of(row) == trial:
            return {str(name): value for name, value in row.items()}
    raise KeyError(f"{trial} is not among the {len(table)} recorded trials")


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows in plain values; pandas would turn lists into arrays and the None of an older row into NaN."""
    return complete(pyarrow.parquet.read_table(path).to_pylist())


def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one form: what older ones lack is a default, or None."""
    names = dict.fromkeys([*FIELDS, *(name for row in rows for name in row)])
    return [{name: row.get(name, DEFAULTS.get(name)) for name in names} for row in rows]


# ---- intervals -----------------------------------------------------------------------------------


_LEVEL = 0.95  # of every interval


class Interval(NamedTuple):
    """A number with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """The interval alone, as :func:`~tdi_lib.book.claims.claim` takes it."""
        return self.low, self.high


class PairedDifference(NamedTuple):
    """Mean of ``other - base`` over pairs with the ends of its bootstrap interval."""

    mean: float
    low: float
    high: float


def paired_difference(base: ArrayLike, other: ArrayLike) -> PairedDifference:
    """Mean paired difference ``other - base`` with the 95 % interval of a percentile bootstrap over the pairs.

    Args:
        base: one value per seed (S,), at least two.
        other: the same seeds in the same order (S,).

    With few pairs the interval is too narrow (three pairs have only ten distinct resamples): read it as a range, not as
    a test.

    >>> paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    PairedDifference(mean=-0.5, low=-0.5, high=-0.5)
    """
    first = real_array("base", base, ndim=(1,), what="one value per seed (S,)")
    second = real_array("other", other, ndim=(1,), what="one value per seed (S,)")
    if first.shape != second.shape:
        raise ValueError(f"other must pair with base, got shapes {second.shape} and {first.shape}")
    if first.size < 2:
        raise ValueError(f"base must hold at least two pairs, got {first.size}")
    difference = second - first
    result = scipy.stats.bootstrap(
        (difference,),
        np.mean,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return PairedDifference(float(difference.mean()), float(interval.low), float(interval.high))


def grouped_mean(values: ArrayLike, groups: ArrayLike | None = None) -> Interval:
    """Mean over groups, each with the mean of its values, and Student's 95 % interval for it.

    Runs on one data set are no independent witnesses of what happens on others: so the data sets are the groups, and
    what counts is how many there are.

    Args:
        values: one per run (P,).
        groups: which group each belongs to (P,); by default every value is one of its own. At least two.

    >>> grouped_mean([1.0, 1.2, 3.0, 2.8], ["a", "a", "b", "b"]).value
    2.0
    >>> [round(end, 1) for end in grouped_mean([0.9, 1.1, 1.0]).ends]
    [0.8, 1.2]
    """
    x, members = _grouped(values, groups)
    means = np.array([x[rows].mean() for rows in members])
    error = means.std(ddof=1) / np.sqrt(len(means))
    reach = float(scipy.stats.t.ppf(0.5 + _LEVEL / 2, len(means) - 1) * error)
    center = float(means.mean())
    return Interval(center, center - reach, center + reach)


def grouped_bootstrap(
    statistic: Callable[[np.ndarray], float],
    groups: ArrayLike,
    *,
    n_resamples: int = 2000,
) -> Interval:
    """A statistic of all rows, with the 95 % percentile interval of resampling whole groups of them.

    Args:
        statistic: of row numbers (K,), which may repeat. Resamples for which it is not finite are left out.
        groups: which group each row belongs to (P,); at least two. With few the interval is somewhat too narrow.
        n_resamples: how often to draw as many groups as there are.

    Raises:
        ValueError: naming the argument; also if ``statistic`` is not finite on all rows.

    >>> x, sets = np.arange(6.0), [0, 0, 1, 1, 2, 2]
    >>> grouped_bootstrap(lambda rows: x[rows].mean(), sets)
    Interval(value=2.5, low=0.5, high=4.5)
    """
    rows, members = _grouped(np.arange(np.size(groups)), groups)
    value = float(statistic(rows.astype(int)))
    if not np.isfinite(value):
        raise ValueError(f"statistic must be finite on all rows, got {value}")
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(members), size=(positive_int("n_resamples", n_resamples), len(members)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of statistics that a resample leaves undefined
        found = np.array([float(statistic(np.concatenate([members[k] for k in draw]))) for draw in drawn])
    low, high = np.quantile(found[np.isfinite(found)], [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _grouped(values: ArrayLike, groups: ArrayLike | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values, and the row numbers of each group."""
    x = real_array("values", values, ndim=(1,), what="one value per run (P,)")
    labels = np.arange(len(x)) if groups is None else np.asarray(groups)
    if labels.shape != x.shape:
        raise ValueError(f"groups must give one group per value {x.shape}, got shape {labels.shape}")
    names = np.unique(labels)
    if len(names) < 2:
        raise ValueError(f"groups must be at least two, got {len(names)}")
    return x, [np.flatnonzero(labels == name) for name in names]


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjust p-values for being several (Holm 1979): those below 0.05 are together wrong with probability 0.05 at most.

    Args:
        p_values: of K tests, in [0, 1], (K,).

    Returns:
        The adjusted values in the same order: times K for the smallest, K - 1 for the next, and never falling.

    >>> holm([0.04, 0.01, 0.03]).round(3)
    array([0.06, 0.03, 0.06])
    """
    p = real_array("p_values", p_values, ndim=(1,), what="one p-value per test (K,)")
    if not p.size or p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values must lie in [0, 1] and be at least one, got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return adjusted


def sample_efficiency(n_samples: ArrayLike, base: ArrayLike, reached: float, at: float) -> float:
    """How many times more data the base method needs to reach a loss that another reached with ``at`` samples.

    The base's loss is interpolated linearly against log n. Outside what was measured the factor is only bounded, and
    the bound is returned as infinity (the base never gets there) or as ``min(n) / at`` (it was there from the start).

    Args:
        n_samples: sizes at which the base was measured, ascending (K,).
        base: its mean loss at each, (K,); a rising stretch is read as no gain (running minimum).
        reached: the loss to reach.
        at: samples with which the other method reached it.

    >>> round(sample_efficiency([10, 100, 1000], [3.0, 2.0, 1.0], reached=1.5, at=100), 2)  # half a decade
    3.16
    """
    sizes = real_array("n_samples", n_samples, ndim=(1,), what="ascending sizes (K,)")
    loss = real_array("base", base, ndim=(1,), what="losses (K,)")
    reached = real_number("reached", reached)
    at = real_number("at", at, low=1e-12)
    if sizes.shape != loss.shape:
        raise ValueError(f"base must match n_samples in shape, got {loss.shape} and {sizes.shape}")
    if (sizes <= 0).any() or (np.diff(sizes) <= 0).any():
        raise ValueError(f"n_samples must be positive and ascending, got {sizes.tolist()}")
    best = np.minimum.accumulate(loss)
    if reached < best[-1]:
        return np.inf
    # np.interp needs ascending abscissae: walk from the largest size (lowest loss) to the smallest
    return float(np.exp(np.interp(reached, best[::-1], np.log(sizes)[::-1])) / at)

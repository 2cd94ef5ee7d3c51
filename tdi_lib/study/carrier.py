"""What carries the class: how well a linear classifier does on the series itself, and on its spectrum.

Both are ridge regressions on one column a class, cross-validated in five folds of the training part, so the test set
is never looked at. Where samples share a source, no source is on both sides of a fold. To record all sets that can be
fetched by a package's name:

    python -m tdi_lib.study.carrier results/carrier.parquet
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from tdi_lib.data import sets
from tdi_lib.records import provenance
from tdi_lib.samples import lengths_of
from tdi_lib.spectrum import periodograms

__all__ = ["accuracies", "in_words", "log_bands", "record", "ridge_accuracy"]

AT_MOST = 1000
"""Training examples that are looked at."""
FOLDS = 5
BANDS = 64
CLEAR = 0.1
"""Differences of accuracy above this are told."""


def log_bands(x: Float[np.ndarray, "P L D"], n_bands: int = BANDS) -> Float[np.ndarray, "P M"]:
    """Log-power in at most ``n_bands`` bands of the periodogram, which widen evenly with frequency; all channels.

    >>> log_bands(np.random.default_rng(0).standard_normal((3, 200, 2))).shape
    (3, 128)
    """
    power = periodograms(x, lengths_of(x))[:, 1:]  # (P F D)
    lines = power.shape[1]
    edges = np.round(lines * np.linspace(0, 1, min(n_bands, lines) + 1) ** 2)
    edges = np.minimum(np.maximum(edges, np.arange(len(edges))), lines).astype(int)
    bands = np.add.reduceat(power, edges[:-1], axis=1) / np.diff(edges)[:, None]
    mean = bands.mean(axis=(1, 2), keepdims=True)
    return np.log(bands + 1e-6 * mean + 1e-300).reshape(len(x), -1)


def folds_of(y: Int[np.ndarray, " P"], groups: np.ndarray | None, seed: int = 0) -> Int[np.ndarray, " P"]:
    """Fold of each sample: stratified or, where there are groups, whole groups, each to the smallest fold so far."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(y), int)
    if groups is None:
        fold[np.lexsort((rng.random(len(y)), y))] = np.arange(len(y)) % FOLDS
        return fold
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sizes = np.zeros(FOLDS, int)
    place = np.empty(len(names), int)
    for group in sorted(rng.permutation(len(names)), key=lambda group: -counts[group]):
        place[group] = sizes.argmin()
        sizes[place[group]] += counts[group]
    return place[codes]


def ridge_accuracy(features: Float[np.ndarray, "P M"], y: Int[np.ndarray, " P"], fold: Int[np.ndarray, " P"]) -> float:
    """Cross-validated accuracy of ridge regression; the penalty of a fold by the error of samples left out of the rest.

    >>> y = np.arange(60) % 3
    >>> ridge_accuracy(np.eye(3)[y], y, np.arange(60) // 12)
    1.0
    """
    hits = 0
    for index in np.unique(fold):
        seen, asked = features[fold != index], features[fold == index]
        mean, scale = seen.mean(axis=0), seen.std(axis=0)
        seen, asked = ((part - mean) / np.where(scale > 1e-9, scale, np.inf) for part in (seen, asked))
        target = np.eye(y.max() + 1)[y[fold != index]]
        level = target.mean(axis=0)
        guess = (_ridge(seen, target - level, asked) + level).argmax(axis=1)
        hits += int((guess == y[fold == index]).sum())
    return float(hits / len(y))


def _ridge(x: np.ndarray, target: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Predictions (Q, K) of the penalty, of 25, that has the least squared error of centered samples left out."""
    values, vectors = np.linalg.eigh(x @ x.T / x.shape[1])
    values, along = np.maximum(values, 0), vectors.T @ target
    errors, penalties = [], values.mean() * np.logspace(-4, 3, 25) + 1e-12
    for penalty in penalties:
        shrink = values / (values + penalty)
        rest = target - vectors @ (shrink[:, None] * along)
        own = 1 / len(x) + (vectors**2) @ shrink  # what a sample has in its own fit
        errors.append(((rest / (1 - own[:, None]).clip(1e-6)) ** 2).mean())
    weights = vectors @ (along / (values + penalties[np.argmin(errors)])[:, None])
    return asked @ x.T / x.shape[1] @ weights


def accuracies(data: sets.SequenceDataset) -> dict[str, Any]:
    """Cross-validated accuracies of the z-scored ``series`` and of its ``spectrum``, beside the largest class.

    Each channel of each sequence is z-scored by itself, so neither its level nor its loudness tells anything.
    """
    n = min(AT_MOST, len(data.y_train))
    part = data.subset(n, seed=0, validation=0)
    x, y = part.x.astype(np.float64), part.y
    x = x - np.nanmean(x, axis=1, keepdims=True)
    scale = np.nanstd(x, axis=1, keepdims=True)
    x = np.where(scale > 1e-9, x / np.maximum(scale, 1e-9), 0 * x)  # (P L D)
    groups = None if data.groups is None else data.groups[part.indices]
    fold = folds_of(y, groups)
    return {
        "dataset": data.name,
        "n": n,
        "groups": 0 if groups is None else len(np.unique(groups)),
        "largest": float(np.bincount(y).max() / n),
        "series": ridge_accuracy(np.nan_to_num(x).reshape(n, -1), y, fold),
        "spectrum": ridge_accuracy(log_bands(x), y, fold),
    }


def in_words(series: float, spectrum: float, largest: float) -> str:
    """What carries the class, in plain words, from two accuracies and that of naming the largest class.

    >>> in_words(0.51, 0.97, 0.51)
    'the spectrum tells the classes, the series as it stands does not'
    """
    if max(series, spectrum) < largest + CLEAR:
        return "neither tells much more than the largest class does"
    if abs(series - spectrum) <= CLEAR:
        return "both tell about the same"
    better, other = ("spectrum", "series as it stands") if spectrum > series else ("series as it stands", "spectrum")
    if min(series, spectrum) < largest + CLEAR:
        return f"the {better} tells the classes, the {other} does not"
    return f"the {better} tells more than the {other}"


def record(path: str | Path, names: Sequence[str] = ()) -> None:
    """Measure the named sets, or all that are there or can be fetched by a package's name, and write a table.

    A set of which a row with the same provenance is there already is left as it is, so this can be interrupted.
    """
    path, origin = Path(path), json.dumps(provenance())
    rows = pd.read_parquet(path).to_dict("records") if path.exists() else []
    for name in names or [name for name in sets.available() if not name.startswith("lra-")]:
        if any((row["dataset"], row["provenance"]) == (name, origin) for row in rows):
            continue
        row = accuracies(sets.load(name)) | {"provenance": origin}
        rows = sorted([other for other in rows if other["dataset"] != name] + [row], key=lambda row: row["dataset"])
        pd.DataFrame(rows).to_parquet(path, index=False, compression="zstd")
        print(f"{name:>18} series {row['series']:.3f} spectrum {row['spectrum']:.3f} largest {row['largest']:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record what carries the class of the data sets.")
    parser.add_argument("path", type=Path)
    parser.add_argument("names", nargs="*", help="sets; default all that can be fetched by a package's name")
    arguments = parser.parse_args()
    record(arguments.path, arguments.names)

"""How runs are compared: paired by seed, with intervals, in units of data."""

from typing import NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike

from tdi_lib import _checks

__all__ = ["PairedDifference", "holm", "paired_difference", "sample_efficiency"]


class PairedDifference(NamedTuple):
    """Mean of ``other - base`` over pairs with the ends of its bootstrap interval."""

    mean: float
    low: float
    high: float


def paired_difference(
    base: ArrayLike, other: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Mean paired difference ``other - base`` with a percentile bootstrap interval over the pairs.

    Args:
        base: one value per seed (S,), at least two.
        other: the same seeds in the same order (S,).
        confidence: level of the interval.
        seed: of the 9,999 resamples.

    With few pairs the interval is too narrow (three pairs have only ten distinct resamples): read it as a range, not as
    a test.

    >>> paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    PairedDifference(mean=-0.5, low=-0.5, high=-0.5)
    """
    first = _checks.real_array("base", base, ndim=(1,), what="one value per seed (S,)")
    second = _checks.real_array("other", other, ndim=(1,), what="one value per seed (S,)")
    confidence = _checks.real_number("confidence", confidence, low=0.5, high=0.9999)
    if first.shape != second.shape:
        raise ValueError(f"other must pair with base, got shapes {second.shape} and {first.shape}")
    if first.size < 2:
        raise ValueError(f"base must hold at least two pairs, got {first.size}")
    difference = second - first
    result = scipy.stats.bootstrap(
        (difference,),
        np.mean,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return PairedDifference(float(difference.mean()), float(interval.low), float(interval.high))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjust p-values for being several (Holm 1979): those below 0.05 are together wrong with probability 0.05 at most.

    Args:
        p_values: of K tests, in [0, 1], (K,).

    Returns:
        The adjusted values in the same order: times K for the smallest, K - 1 for the next, and never falling.

    >>> holm([0.04, 0.01, 0.03]).round(3)
    array([0.06, 0.03, 0.06])
    """
    p = _checks.real_array("p_values", p_values, ndim=(1,), what="one p-value per test (K,)")
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
    sizes = _checks.real_array("n_samples", n_samples, ndim=(1,), what="ascending sizes (K,)")
    loss = _checks.real_array("base", base, ndim=(1,), what="losses (K,)")
    reached = _checks.real_number("reached", reached)
    at = _checks.real_number("at", at, low=1e-12)
    if sizes.shape != loss.shape:
        raise ValueError(f"base must match n_samples in shape, got {loss.shape} and {sizes.shape}")
    if (sizes <= 0).any() or (np.diff(sizes) <= 0).any():
        raise ValueError(f"n_samples must be positive and ascending, got {sizes.tolist()}")
    best = np.minimum.accumulate(loss)
    if reached < best[-1]:
        return np.inf
    # np.interp needs ascending abscissae: walk from the largest size (lowest loss) to the smallest
    return float(np.exp(np.interp(reached, best[::-1], np.log(sizes)[::-1])) / at)

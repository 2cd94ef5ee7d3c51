"""What comes in, checked once at the door: each error names the argument, what came and what was expected.

Shapes: ``P`` samples, ``L`` time steps, ``D`` input channels, ``K`` targets.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["lengths_of"]

# ---- kinds of values -----------------------------------------------------------------------------


def positive_int(name: str, value: object, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def real_number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a finite float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__} {value!r}")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be a finite number in [{low}, {high}], got {value}")
    return float(value)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def real_array(name: str, value: ArrayLike, *, ndim: tuple[int, ...], what: str, finite: bool = True) -> np.ndarray:
    """Return ``value`` as a (finite) float64 array with one of the allowed numbers of axes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{name} must be {what}, got a ragged sequence") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers ({what}), got dtype {array.dtype}")
    if array.ndim not in ndim:
        raise ValueError(f"{name} must be {what}, got shape {array.shape}")
    array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty ({what}), got shape {array.shape}")
    if finite and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {array.size} values")
    return array


def real_tensor(name: str, value: object, axes: str, sizes: dict[str, int]) -> None:
    """Raise unless ``value`` is a real floating tensor whose axes are named by ``axes`` ("B H L"), with known sizes."""
    expected = "(" + ", ".join(str(sizes.get(axis, axis)) for axis in axes.split()) + ")"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor of shape {expected}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a real floating tensor, got {value.dtype}")
    wanted = [sizes.get(axis) for axis in axes.split()]
    fits = value.ndim == len(wanted) and all(w in (None, s) for w, s in zip(wanted, value.shape, strict=True))
    if not fits or value.numel() == 0:
        raise ValueError(f"{name} must be a non-empty tensor of shape {expected}, got {tuple(value.shape)}")


def instance_of(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Raise unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise TypeError(f"{name} must be a {expected}, got {type(value).__name__}")


# ---- sequences and their lengths -----------------------------------------------------------------


MIN_LENGTH = 8
MIN_SAMPLES = 4


def check_lengths(
    x: ArrayLike, lengths: ArrayLike | None, *, name: str = "lengths", of: str = "x", minimum: int = MIN_LENGTH
) -> np.ndarray | None:
    """Check the lengths (P,) of the sequences ``x``; None if all are whole."""
    if lengths is None:
        return None
    n_samples, longest = np.shape(x)[:2]
    try:
        ends = np.asarray(lengths.detach().cpu() if hasattr(lengths, "detach") else lengths)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{name} must be {n_samples} integers, got a ragged sequence") from error
    if ends.shape != (n_samples,) or ends.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be {n_samples} integers, one per sequence of {of}, got {ends.dtype} {ends.shape}"
        )
    if ends.min() < minimum or ends.max() > longest:
        raise ValueError(f"{name} must lie in [{minimum}, {longest}], got [{ends.min()}, {ends.max()}]")
    return None if (ends == longest).all() else ends


def lengths_of(x: ArrayLike) -> np.ndarray | None:
    """Where sequences (P, L) or (P, L, D) end that are padded with NaN (P,); None if all are whole.

    Raises:
        ValueError: if a NaN stands anywhere but at the end, or in some channels only.

    >>> lengths_of([[1.0, 2.0, 3.0], [4.0, np.nan, np.nan]])
    array([3, 1])
    """
    inputs = real_array("x", x, ndim=(2, 3), what="sequences (P, L) or (P, L, D)", finite=False)
    missing = np.isnan(inputs.reshape(*inputs.shape[:2], -1))  # (P L D)
    if not missing.any():
        return None
    ends = inputs.shape[1] - missing.any(axis=2).sum(axis=1)  # (P)
    odd = ~(missing | (np.arange(inputs.shape[1]) < ends[:, None])[:, :, None]).all(axis=(1, 2))
    if odd.any():
        raise ValueError(
            "x must have NaN at the ends of sequences only, and there in all channels, but has it elsewhere in "
            f"{odd.sum()} of {len(odd)}, the first at index {odd.argmax()}"
        )
    return ends


def check_inputs(x: ArrayLike, lengths: ArrayLike | None = None, *, minimum: int = MIN_SAMPLES) -> np.ndarray:
    """Check and bring to inputs (P, L, D), continued by their own mean from ``lengths`` on."""
    what = "sequences (P, L) or (P, L, D)"
    inputs = real_array("x", x, ndim=(2, 3), what=what, finite=False)
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    n_samples, length, _ = inputs.shape
    if length < MIN_LENGTH:
        raise ValueError(f"x must have at least {MIN_LENGTH} time steps, got {length} (shape {np.shape(x)})")
    if n_samples < minimum:
        raise ValueError(f"x must hold at least {minimum} sequences, got {n_samples}")
    ends = check_lengths(x, lengths)
    if ends is not None:
        beyond = (np.arange(length) >= ends[:, None])[:, :, None]
        inputs = np.where(beyond, inputs[:, :1], inputs)
    finite = np.isfinite(inputs)
    if not finite.all():
        bad = ~finite.all(axis=2)  # (P L)
        pads = (np.maximum.accumulate(bad, axis=1) == bad).all() and not bad[:, 0].any()
        raise ValueError(
            f"x must be finite, got {int((~finite).sum())} NaN or infinite of {inputs.size} values"
            + (", all at the ends of sequences: if they are padding, say so by lengths" if pads else "")
        )
    constant = np.flatnonzero((np.ptp(inputs, axis=1) == 0).all(axis=1))
    if constant.size:
        raise ValueError(
            f"x must hold no constant sequences (they have no spectrum), got {constant.size}, "
            f"the first at index {constant[0]}"
        )
    if minimum > 1 and (inputs == inputs[0]).all():
        raise ValueError(f"x must hold sequences that differ, got {n_samples} times the same")
    if ends is not None:
        mean = np.where(beyond, 0, inputs).sum(axis=1) / ends[:, None]
        inputs = np.where(beyond, mean[:, None], inputs)
    return inputs


def read_targets(y: ArrayLike, n_samples: int) -> tuple[np.ndarray, bool]:
    """Check targets of ``n_samples`` sequences: class labels (P,) and True, or real targets (P, K) and False."""
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    raw = np.asarray(y)
    if len(raw.shape) == 0 or len(raw) != n_samples:
        raise ValueError(f"y must hold one target per sequence of x ({n_samples}), got shape {raw.shape}")
    if raw.ndim > 2:
        raise ValueError(
            f"y must be targets (P,) or (P, K), got shape {raw.shape}: of targets at every step take a few, or their "
            f"mean over time, or pass all as columns, y.reshape(len(y), -1)"
        )
    if raw.dtype.kind in "iubU" and raw.ndim == 1:
        if raw.dtype.kind == "i" and (raw < 0).any():
            raise ValueError(f"y must be non-negative class labels, got {raw.min()} (pass floats for regression)")
        return raw, True
    if raw.dtype.kind in "iu" and not np.isin(raw, (0, 1)).all():
        raise ValueError(
            f"y must be class labels (P,), several labels at once (P, K) of 0 and 1, or real targets, got integers "
            f"of shape {raw.shape} up to {raw.max()} (pass floats for regression)"
        )
    return real_array("y", raw, ndim=(1, 2), what="targets (P,) or (P, K)").reshape(n_samples, -1), False


def check_classes(classes: list[Any], n_samples: int) -> None:
    """Raise unless there are at least two classes, of at least two samples on average."""
    if len(classes) < 2:
        raise ValueError(f"y must hold at least two classes, got only {classes}")
    if len(classes) > n_samples // 2:
        raise ValueError(
            f"y must hold at least two samples per class on average, got {len(classes)} classes for "
            f"{n_samples} samples (pass floats for regression)"
        )


def standardize_targets(y: ArrayLike, n_samples: int) -> np.ndarray:
    """Standardized targets (P, K); class labels become one column per class."""
    target, labels = read_targets(y, n_samples)
    if labels:
        classes, codes = np.unique(target, return_inverse=True)
        check_classes(classes.tolist(), n_samples)
        target = np.eye(len(classes))[codes]
    spread = target.std(axis=0)
    if (spread == 0).any():
        raise ValueError(f"y must vary in every column, got constant columns {np.flatnonzero(spread == 0).tolist()}")
    return (target - target.mean(axis=0)) / spread


@dataclasses.dataclass(frozen=True)
class CheckedSamples:
    """The samples of a task, checked once, by :meth:`of`; what takes them checks nothing again.

    Attributes:
        inputs: sequences (P, L, D), continued by their own mean where they end before the longest.
        ends: where they end (P,); None if all are whole.
        targets: standardized targets (P, K), one column per class.
    """

    inputs: np.ndarray
    ends: np.ndarray | None
    targets: np.ndarray

    @classmethod
    def of(cls, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None) -> "CheckedSamples":
        """Check ``x``, ``lengths`` and ``y``, in this order.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        samples = cls.without_targets(x, lengths)
        return dataclasses.replace(samples, targets=standardize_targets(y, len(samples)))

    @classmethod
    def without_targets(cls, x: ArrayLike, lengths: ArrayLike | None = None) -> "CheckedSamples":
        """For what looks at the sequences alone; errors as for :meth:`of`."""
        inputs = check_inputs(x, lengths)
        return cls(inputs, check_lengths(x, lengths), np.empty((len(inputs), 0)))

    def __len__(self) -> int:
        return len(self.inputs)

    def at_most(self, count: int) -> "CheckedSamples":
        """As many of them, evenly spaced in the order of their targets: all kinds keep their share."""
        if len(self) <= count:
            return self
        keep = evenly(self.targets, count)
        return CheckedSamples(self.inputs[keep], None if self.ends is None else self.ends[keep], self.targets[keep])


def evenly(target: np.ndarray, count: int) -> np.ndarray:
    """As many samples, evenly spaced in the order of their targets: every class and every value keeps its share."""
    return np.lexsort(target.T)[np.linspace(0, len(target) - 1, count).astype(int)]

"""What comes in, checked once at the door: each error names the argument, what came and what was expected.

Shapes: ``P`` samples, ``L`` time steps, ``D`` input channels, ``K`` targets.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["lengths_of", "understand_targets"]

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


def as_array(name: str, value: Any, what: str) -> np.ndarray:
    """``value`` as an array: of a list, a table of pandas, or a tensor of any type that holds values."""
    if isinstance(value, torch.Tensor):
        if value.is_meta or value.layout != torch.strided:
            kind = "a tensor on the meta device, which holds no values" if value.is_meta else f"a {value.layout} tensor"
            raise ValueError(f"{name} must be {what}, got {kind}")
        value = value.detach().cpu()
        return np.asarray(value.double() if value.is_floating_point() else value)
    try:
        return np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{name} must be {what}, got a ragged sequence") from error


def real_array(name: str, value: ArrayLike, *, ndim: tuple[int, ...], what: str, finite: bool = True) -> np.ndarray:
    """Return ``value`` as a (finite) float64 array with one of the allowed numbers of axes."""
    array = as_array(name, value, what)
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
        inner = next((each for each in ("module", "_orig_mod") if isinstance(getattr(value, each, None), kinds)), None)
        hint = f": pass what it wraps, {name}.{inner}" if inner else ""
        raise TypeError(f"{name} must be a {expected}, got {type(value).__name__}{hint}")


# ---- sequences and their lengths -----------------------------------------------------------------


SEQUENCES = "sequences (P, L) or (P, L, D), time before channels"
MIN_LENGTH = 8
MIN_SAMPLES = 4


def check_lengths(
    x: ArrayLike, lengths: ArrayLike | None, *, name: str = "lengths", of: str = "x", minimum: int = MIN_LENGTH
) -> np.ndarray | None:
    """Check the lengths (P,) of the sequences ``x``; None if all are whole."""
    if lengths is None:
        return None
    n_samples, longest = np.shape(x)[:2]
    ends = as_array(name, lengths, f"{n_samples} integers")
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
    inputs = real_array("x", x, ndim=(2, 3), what=SEQUENCES, finite=False)
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
    inputs = real_array("x", x, ndim=(2, 3), what=SEQUENCES, finite=False)
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    n_samples, length, _ = inputs.shape
    if length < MIN_LENGTH:
        raise ValueError(
            f"x must have at least {MIN_LENGTH} time steps, got {length} (shape {np.shape(x)}; time comes before "
            "channels)"
        )
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


def plain_targets(y: Any, n_samples: int, *, name: str = "y") -> np.ndarray:
    """Targets of ``n_samples`` sequences as numbers or texts (P,) or (P, K), whatever brought them.

    Texts may come as objects, bytes or a column of pandas; what is missing among numbers becomes NaN, among texts "".

    >>> plain_targets(np.array([b"a", b"b"]), 2), plain_targets(np.array([1, None, 2], dtype=object), 3)
    (array(['a', 'b'], dtype='<U1'), array([ 1., nan,  2.]))
    """
    raw = as_array(name, y, "one target per sequence")
    if raw.ndim == 0 or len(raw) != n_samples:
        raise ValueError(f"{name} must hold one target per sequence of x ({n_samples}), got shape {raw.shape}")
    if raw.dtype.kind == "S":
        return np.char.decode(raw, "utf-8", "replace")
    if raw.dtype.kind not in ("O", "T"):
        return raw
    cells = [None if each is None or each != each else each for each in raw.ravel().tolist()]  # NaN, NaT
    there = [each for each in cells if each is not None]
    if all(isinstance(each, int | float) for each in there):
        flat = np.array([math.nan if each is None else each for each in cells], dtype=np.float64)
        whole = len(there) == len(cells) and all(isinstance(each, int) for each in there)
        return (flat.astype(np.int64) if whole else flat).reshape(raw.shape)
    if not all(isinstance(each, str | bytes) for each in there):
        kinds = sorted({type(each).__name__ for each in there})
        raise TypeError(f"{name} must hold numbers or texts, got {', '.join(kinds)} (say which: y.astype(str))")
    texts = ["" if each is None else each.decode("utf-8", "replace") if isinstance(each, bytes) else each
             for each in cells]  # fmt: skip
    return np.array(texts).reshape(raw.shape)


def read_targets(y: ArrayLike, n_samples: int) -> tuple[np.ndarray, bool]:
    """Check targets of ``n_samples`` sequences: class labels (P,) and True, or real targets (P, K) and False.

    The type says which: integers, booleans and texts are labels, floats are real targets. :func:`understand_targets`
    looks at values instead.
    """
    raw = plain_targets(y, n_samples)
    if raw.ndim > 2:
        raise ValueError(
            f"y must be targets (P,) or (P, K), got shape {raw.shape}: of targets at every step take a few, or their "
            f"mean over time, or pass all as columns, y.reshape(len(y), -1)"
        )
    if raw.dtype.kind in "iubU" and raw.ndim == 1:
        if raw.dtype.kind == "U" and (raw == "").any():
            raise ValueError(f"y must hold a label for every sequence, got {int((raw == '').sum())} missing")
        return raw, True
    if raw.dtype.kind in "iu" and not np.isin(raw, (0, 1)).all():
        raise ValueError(
            f"y must be class labels (P,), several labels at once (P, K) of 0 and 1, or real targets, got integers "
            f"of shape {raw.shape} up to {raw.max()} (pass floats for regression)"
        )
    return real_array("y", raw, ndim=(1, 2), what="targets (P,) or (P, K)").reshape(n_samples, -1), False


TASKS = ("auto", "classes", "real")
MAX_CLASSES = 100
# In lower case: what pandas takes for missing, and what the archives write.
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "<na>", "#na", "#n/a", "-nan", "1.#ind", "1.#qnan"})
MISSING |= {"-1.#ind", "-1.#qnan"}
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+")


def understand_targets(
    y: Any, n_samples: int, *, task: str = "auto", classes: Sequence[str] | None = None, name: str = "y"
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """The one rule of what targets are, for files and for arrays alike: by their values.

    Texts are classes unless the whole column is written as numbers are (not ``01`` or ``1_2``). Whole numbers of at
    most 100 values, twice each on average, are classes; other numbers are real targets.

    Args:
        y: numbers or texts (P,) or (P, K): an array, a list, a tensor, a column of pandas.
        n_samples: P.
        task: ``classes`` or ``real`` overrules what they look like.
        classes: names of all classes in the order of their codes, such as those of a training set; else those found.
        name: what the errors call them.

    Returns:
        Codes (P,) or real targets, (P,) or (P, K), of the samples that have one; the classes' names, none for real
        targets; and which samples have a target (P,).

    Raises:
        TypeError, ValueError: naming the argument.

    >>> understand_targets([-1.0, 1.0, 1.0, -1.0], 4)[:2]
    (array([0, 1, 1, 0]), ('-1', '1'))
    >>> understand_targets(["2", "2"], 2, classes=["1", "2"])[0]
    array([1, 1])
    """
    task = one_of("task", task, TASKS)
    array = plain_targets(y, n_samples, name=name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 2 or (classes is not None and (array.ndim > 1 or task == "real")):
        raise ValueError(f"{name} must be labels (P,) or real targets (P, K) without classes, got shape {array.shape}")
    texts = None
    if array.dtype.kind == "U":
        texts = np.char.strip(array)
        missing = np.isin(np.char.lower(texts), sorted(MISSING))
        odd = [text for text in texts[~missing].tolist() if not NUMBER.fullmatch(text)]
        if odd and (task == "real" or texts.ndim > 1):
            raise ValueError(f"{name} must be numbers, got {odd[0][:40]!r}{thousands(odd[0])}")
        if odd or missing.all():
            return *_codes(name, texts, classes), np.ones(n_samples, bool)
        array = np.where(missing, "nan", texts).astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers or texts, got {array.dtype}")
    values = array.astype(np.float64)
    there = np.asarray(~np.isnan(values.reshape(n_samples, -1)).any(axis=1))
    values = values[there]
    if not np.isfinite(values).all() or not there.any():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{name} must be finite for every sample, got {bad or n_samples} that are not")
    if values.ndim == 1 and task != "real":
        found = np.unique(values)
        few = len(found) <= min(MAX_CLASSES, max(n_samples // 2, 1)) and (found == np.round(found)).all()
        if task == "classes" or few or classes is not None:
            written = np.array([f"{value:.10g}" for value in values])
            if texts is not None and len(np.unique(texts[there])) > len(found):  # such as 1 and 1.0: who knows
                written = texts[there]
            elif classes is None:
                classes = [f"{value:.10g}" for value in found]
            return *_codes(name, written, classes), there
    return values, (), there


def _codes(name: str, texts: np.ndarray, classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    if np.isin(np.char.lower(texts), ("", "?", "nan")).any():  # "none" may well be a class
        raise ValueError(f"{name} must hold a target for every sample, got a missing one")
    known = np.unique(texts).tolist() if classes is None else list(classes)
    place = {each: code for code, each in enumerate(known)}
    if strange := sorted(set(texts.tolist()) - set(place)):
        shown = ", ".join(known[:8]) + ", …" * (len(known) > 8)
        raise ValueError(f"{name} must hold one of the classes {shown}, got {strange[0][:40]!r}")
    return np.array([place[text] for text in texts.tolist()], dtype=np.int64), tuple(known)


def thousands(text: str) -> str:
    """A hint where a text is a number with separated thousands."""
    grouped = re.fullmatch(r"[-+]?\d{1,3}(?:([,.' \u00a0\u202f])\d{3})(?:\1\d{3})*(?:[.,]\d*)?", text.strip())
    return f" (separated thousands: write them without {grouped[1]!r})" if grouped else ""


def group_members(groups: ArrayLike, n_samples: int, *, name: str = "groups") -> np.ndarray:
    """Codes 0..G-1 of the group (P,) that each sample belongs to, in the order of their names; at least two groups.

    >>> group_members(["ann", "bob", "ann"], 3)
    array([0, 1, 0])
    """
    if np.shape(groups) != (n_samples,):
        raise ValueError(f"{name} must hold one group per sequence of x ({n_samples},), got shape {np.shape(groups)}")
    names = plain_targets(groups, n_samples, name=name)
    if (names == "").any() if names.dtype.kind == "U" else names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError(f"{name} must name a group for every sequence, got a missing one")
    found, codes = np.unique(names, return_inverse=True)
    if len(found) < 2:
        raise ValueError(f"{name} must be at least two, got only {names[0]!r}")
    return codes.astype(np.int64)


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

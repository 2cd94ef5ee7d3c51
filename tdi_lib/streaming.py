"""The spectrum of a task from data that do not fit into memory: one pass, bounded memory, parts that can be merged.

All estimators but one are functions of sums over samples: means and central moments of the spectra, of their
logarithms and of the targets. A :class:`SpectrumAccumulator` keeps those moments, updated by the formulas of Chan,
Golub and LeVeque (1979), in which nothing is lost where a mean is large; its result is the in-memory one to rounding.
The order of a task and the method ``evidence`` need samples: a seeded random subset of bounded size is kept beside.

Shapes: ``P`` samples, ``L`` time steps, ``D`` input channels, ``K`` targets, ``F`` frequencies on [0, pi] rad/sample.
"""

import copy
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tdi_lib.samples import (
    MIN_LENGTH,
    MIN_SAMPLES,
    CheckedSamples,
    check_classes,
    check_inputs,
    check_lengths,
    instance_of,
    one_of,
    positive_int,
    read_targets,
    real_number,
)
from tdi_lib.spectrum import (
    ENOUGH,
    METHODS,
    TAPERED,
    UNSUPERVISED,
    TaskSpectrum,
    assemble,
    better_order,
    discriminative_importance,
    evidence_importance,
    f_ratio,
    first_order_importance,
    frequencies,
    periodograms,
    positive,
    smoother,
)

__all__ = ["SpectrumAccumulator", "accumulate"]

_BLOCK = 2**17  # numbers worked on at once: a few MB with all that is made of them, whatever the size of a batch
_MAX_CLASSES = 1024  # that may come before two samples of each have
_INDEPENDENT = 1e-12  # least relative eigenvalue of the targets' covariance that counts as a degree of freedom

Kind = tuple[str, int, int, int]  # of target (no, numbers, names, real), and L, D, K


class SpectrumAccumulator:
    r"""Sums from which :func:`~tdi_lib.spectrum.estimate_task_spectrum` would have made its estimate.

    Args:
        length: L, of the longest sequence. By default that of the first batch, and all batches must have it; where it
            is given, a batch may be shorter: its sequences end there.
        reservoir: how many samples are kept for ``evidence`` and ``auto``, a random subset; 0 for none. The other
            methods never need them. Up to that many samples these two give the in-memory result as well. Beyond it
            they see the subset, where in memory they see samples evenly spaced in the order of the targets: 400 for
            the order of the task, and for ``evidence`` as many as its budget allows, all where sequences are short.
        seed: of the random subset.
        stream: number of this part of the data. Parts that are to be merged must have different ones: a sample's place
            is its stream and how many came before it there, and the place decides whether it is kept. So the subset
            depends neither on the sizes of the batches nor on the order of the merges.

    Attributes:
        n_samples: P so far.
        streams: numbers of all parts in it.

    It can be pickled. Its memory is :math:`24 F D` bytes per class, or :math:`24 F D (K + 1) + 8 K^2` for real targets,
    and :math:`8 L D` for each sample kept.

    >>> rng = np.random.default_rng(0)
    >>> parts = [SpectrumAccumulator(stream=i) for i in range(2)]
    >>> for part in parts:
    ...     for _ in range(8):
    ...         x = rng.normal(size=(64, 128))
    ...         part.update(x, x @ np.cos(1.2 * np.arange(128)))
    >>> both = parts[0].merge(parts[1])
    >>> spectrum = both.result("shrunk")
    >>> both.n_samples, round(float(spectrum.omega[spectrum.power.argmax()]), 1)
    (1024, 1.2)
    """

    def __init__(self, *, length: int | None = None, reservoir: int = ENOUGH, seed: int = 0, stream: int = 0) -> None:
        self.length = None if length is None else positive_int("length", length, minimum=MIN_LENGTH)
        self.reservoir = positive_int("reservoir", reservoir, minimum=0)
        self.seed = positive_int("seed", seed, minimum=0)
        self.stream = positive_int("stream", stream, minimum=0)
        self.streams = frozenset({self.stream})
        self.n_samples = 0
        self._ragged = length is not None
        self._place = 0  # of the next sample in this stream
        self._moments: _Moments | None = None
        self._kept: _Kept | None = None

    def update(self, x: ArrayLike, y: ArrayLike | None = None, *, lengths: ArrayLike | None = None) -> None:
        """Add a batch; it takes, for the time being, a few times the memory of the batch.

        Args:
            x: inputs (P, L) or (P, L, D), at least one sequence.
            y: their targets, as for :func:`~tdi_lib.spectrum.estimate_task_spectrum`: of one kind in all batches, or
                None in all. Which classes there are need not be known before.
            lengths: of padded sequences (P,), as there.

        Raises:
            TypeError, ValueError: naming the argument, as there, or for a batch that does not fit the earlier ones.
                What was accumulated stays as it was.
        """
        inputs, ends = self._padded(check_inputs(x, lengths, minimum=1), check_lengths(x, lengths))
        targets, labels = (None, False) if y is None else read_targets(y, len(inputs))
        kind = _kind(inputs, targets, labels)
        moments = _Moments.none(kind) if self._moments is None else self._moments
        moments.check(kind, np.unique(targets).tolist() if targets is not None and labels else [])

        rows = max(_BLOCK // inputs[0].size, 1)
        for start in range(0, len(inputs), rows):
            part = slice(start, start + rows)
            moments.absorb(_Moments.of(inputs[part], ends[part], None if targets is None else targets[part], kind))
        if self.reservoir:
            keys = _keys(self.seed, self.stream, self._place + np.arange(len(inputs)))
            places = np.stack([np.full(len(inputs), self.stream), self._place + np.arange(len(inputs))], axis=1)
            known = targets if targets is not None else np.zeros(len(inputs))
            keep = np.ones(len(inputs), bool)
            if self._kept is not None and len(self._kept.keys) == self.reservoir:
                keep = keys < self._kept.keys.max()
            if keep.any():
                new = _Kept(keys[keep], places[keep], inputs[keep], ends[keep], known[keep])
                self._kept = new.least(self.reservoir) if self._kept is None else self._kept.merge(new, self.reservoir)
        self._moments, self.length = moments, inputs.shape[1]
        self._place += len(inputs)
        self.n_samples += len(inputs)

    def merge(self, other: "SpectrumAccumulator") -> "SpectrumAccumulator":
        """The accumulator of both parts, in either order; the two stay as they are.

        Raises:
            TypeError, ValueError: naming the argument, if ``other`` is of other data, shares a stream (it would count
                twice), or keeps another subset.
        """
        instance_of("other", other, SpectrumAccumulator)
        for name in ("reservoir", "seed"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(f"other must have {name} {getattr(self, name)}, got {getattr(other, name)}")
        if None not in (self.length, other.length) and self.length != other.length:
            raise ValueError(f"other must be of sequences of length {self.length}, got {other.length}")
        common = self.streams & other.streams
        if common:
            raise ValueError(f"other must be of other streams, got {sorted(common)[:4]} in both: number the parts")
        both = copy.copy(self)
        both._moments = copy.deepcopy(self._moments or other._moments)  # an update of one must not show in the other
        if both._moments is not None and self._moments is not None and other._moments is not None:
            both._moments.check(other._moments.kind, list(other._moments.classes))
            both._moments.absorb(other._moments)
        both._kept = self._kept or other._kept
        if self._kept is not None and other._kept is not None:
            both._kept = self._kept.merge(other._kept, self.reservoir)
        both.length = self.length or other.length
        both.streams = self.streams | other.streams
        both.n_samples = self.n_samples + other.n_samples
        return both

    def result(self, method: str = "auto", *, smoothing: int = 9, floor: float | None = None) -> TaskSpectrum:
        """The estimate so far; arguments and errors as for :func:`~tdi_lib.spectrum.estimate_task_spectrum`."""
        method = one_of("method", method, METHODS)
        smooth = smoother(positive_int("smoothing", smoothing))
        if floor is not None:
            floor = real_number("floor", floor, low=0.0, high=1.0)
        if self._moments is None or self.n_samples < MIN_SAMPLES:
            raise ValueError(f"x must hold at least {MIN_SAMPLES} sequences, got {self.n_samples}")
        moments, n_samples = self._moments, self.n_samples
        moments.check_spread(n_samples, method)
        if method == "auto":
            method = better_order(self._samples(method))

        if method in TAPERED:
            s_u = smooth(moments.power / n_samples)
            if method == "evidence":
                s_u = positive(s_u)
                kept = self._samples(method)
                eta, no_signal = evidence_importance(kept.inputs, kept.targets, s_u)
                floor = no_signal if floor is None else floor
            elif method == "discriminative":
                eta = discriminative_importance(*moments.f_statistic(), smooth)
            else:
                eta = s_u**2 if method == "input" else np.ones_like(s_u)
        else:
            s_u = positive(smooth(moments.spectral_power()))
            eta = first_order_importance(method, s_u, moments.cross_spectrum(), n_samples, smooth)
        return assemble(method, s_u, eta, floor, n_samples)

    def _padded(self, inputs: np.ndarray, ends: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Inputs of the common length, and where each ends."""
        length = inputs.shape[1]
        ends = np.full(len(inputs), length) if ends is None else ends
        if self.length is None or length == self.length:
            return inputs, ends
        if length > self.length or not self._ragged:
            raise ValueError(
                f"x must have {self.length} time steps, got {length}: if sequences differ in length, give "
                f"SpectrumAccumulator that of the longest"
            )
        beyond = (np.arange(length) >= ends[:, None])[:, :, None]
        mean = np.where(beyond, 0, inputs).sum(axis=1) / ends[:, None]
        more = np.broadcast_to(mean[:, None], (len(inputs), self.length - length, inputs.shape[2]))
        return np.concatenate([inputs, more], axis=1), ends

    def _samples(self, method: str) -> CheckedSamples:
        """The kept samples in the order of their places."""
        if self._kept is None or self._moments is None:
            raise ValueError(f"reservoir must be positive for method {method!r}, got 0")
        kept = self._kept.in_order()
        target = self._moments.standardize(kept.targets)
        if len(target) < self.n_samples:
            target = target - target.mean(axis=0)
        return CheckedSamples(kept.inputs, None if (kept.ends == self.length).all() else kept.ends, target)


def accumulate(batches: Iterable[Any], **options: Any) -> SpectrumAccumulator:
    """One pass over batches: a DataLoader, or any iterable of ``x``, ``(x, y)`` or ``(x, y, lengths)``.

    Of data on several machines, each can accumulate its part as one ``stream``; the accumulators travel back and merge.

    Args:
        batches: what :meth:`SpectrumAccumulator.update` takes, batch by batch.
        options: of :class:`SpectrumAccumulator`.

    Raises:
        TypeError, ValueError: naming the argument, as there.

    >>> rng = np.random.default_rng(0)
    >>> batches = ((rng.normal(size=(16, 32)), np.arange(16) % 2) for _ in range(10))
    >>> accumulate(batches).result("discriminative").n_samples
    160
    """
    accumulator = SpectrumAccumulator(**options)
    for batch in batches:
        if not isinstance(batch, tuple | list):
            batch = (batch,)
        if not 1 <= len(batch) <= 3:
            raise ValueError(f"batches must be x, (x, y) or (x, y, lengths), got {len(batch)} parts")
        x, y, lengths = (*batch, None, None)[:3]
        accumulator.update(x, y, lengths=lengths)
    return accumulator


def _kind(inputs: np.ndarray, targets: np.ndarray | None, labels: bool) -> Kind:
    length, n_channels = inputs.shape[1:]
    if targets is None:
        return "none", length, n_channels, 0
    if labels:
        return "names" if targets.dtype.kind == "U" else "numbers", length, n_channels, 0
    return "real", length, n_channels, targets.shape[1]


def _keys(seed: int, stream: int, places: np.ndarray) -> np.ndarray:
    """Random numbers (P,), uint64, that depend on nothing but seed and place (splitmix64, three times)."""
    key = np.zeros(len(places), np.uint64)
    for value in (seed, stream, places):
        key = key + np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key = key ^ (key >> np.uint64(31))
    return key


def _tapered(u: np.ndarray, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The sequences' :func:`~tdi_lib.spectrum.periodograms`, from their DFTs (P, F, D) where that is enough.

    A Hann taper is a sum of three exponentials: its spectrum is an average over three neighbors.
    """
    length = inputs.shape[1]
    if length % 2 or (ends < length).any():
        return periodograms(inputs, None if (ends == length).all() else ends)
    parts = u.view(float)  # (P F 2D), real and imaginary in turn
    twice = np.zeros_like(parts)
    np.add(parts[:, :-2], parts[:, 2:], out=twice[:, 1:-1])
    twice[:, 1] -= parts[:, 0]  # the mean is removed
    twice[:, 1:-1] *= -0.5
    twice[:, 1:-1] += parts[:, 1:-1]
    twice[:, -1] = parts[:, -1] - parts[:, -2]  # beyond pi lies the conjugate: it is real
    twice[:, -1, 1::2] = 0
    twice *= twice
    power = twice[:, :, ::2] + twice[:, :, 1::2]
    power *= 4 / 3  # the taper's mean square is 3/8, and two sides are in one
    power[:, -1] /= 2
    power[:, 0] = power[:, 1]
    return positive(power, axis=(1, 2))


@dataclasses.dataclass
class _Kept:
    """A subset of samples: those of least key. Its order is of no account."""

    keys: np.ndarray  # (P)
    places: np.ndarray  # (P 2): stream, number within
    inputs: np.ndarray  # (P L D)
    ends: np.ndarray  # (P)
    targets: np.ndarray  # (P) or (P K)

    def _take(self, index: np.ndarray) -> "_Kept":
        return _Kept(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def least(self, count: int) -> "_Kept":
        return self._take(np.argsort(self.keys, kind="stable")[:count])

    def in_order(self) -> "_Kept":
        return self._take(np.lexsort(self.places.T[::-1]))

    def merge(self, other: "_Kept", count: int) -> "_Kept":
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self))
        return _Kept(*(np.concatenate(pair) for pair in pairs)).least(count)


@dataclasses.dataclass
class _Class:
    """One class (or all samples, where targets are real): number, mean DFT and mean log-periodogram."""

    count: int
    dft: np.ndarray  # (F D), complex
    log: np.ndarray  # (F D)


@dataclasses.dataclass
class _Moments:
    """Moments of a part of the data.

    u is a sequence's DFT, l its log-periodogram, y its target. Scatter within the classes is kept apart from their
    means: what lies between the classes follows from the means alone.
    """

    kind: Kind
    power: np.ndarray  # (F D), the sum of periodograms
    within_u: np.ndarray  # (F D), the sum of |u - mean of its class|^2
    within_l: np.ndarray  # (F D)
    classes: dict[Any, _Class]
    mean_y: np.ndarray  # (K); from here on for real targets: central co-moments
    yy: np.ndarray  # (K K)
    uy: np.ndarray  # (F D K), complex: conj(u) y
    ly: np.ndarray  # (F D K)

    @classmethod
    def none(cls, kind: Kind) -> "_Moments":
        _, length, n_channels, k = kind
        shape = (len(frequencies(length)), n_channels)
        power, within_u, within_l = (np.zeros(shape) for _ in range(3))
        uy, ly = np.zeros((*shape, k), complex), np.zeros((*shape, k))
        return cls(kind, power, within_u, within_l, {}, np.zeros(k), np.zeros((k, k)), uy, ly)

    @classmethod
    def of(cls, inputs: np.ndarray, ends: np.ndarray, targets: np.ndarray | None, kind: Kind) -> "_Moments":
        new = cls.none(kind)
        length = inputs.shape[1]
        u = np.fft.rfft(inputs / math.sqrt(length), n=length + length % 2, axis=1)  # (P F D)
        power = _tapered(u, inputs, ends)
        new.power = power.sum(axis=0)
        logs = np.log(power, out=power)
        labels = targets if targets is not None and kind[0] != "real" else np.zeros(len(inputs))
        names, codes = np.unique(labels, return_inverse=True)
        counts = np.bincount(codes)
        mean = (np.arange(len(names))[:, None] == codes) / counts[:, None]  # (C P)
        means = []
        for each, within in ((u, new.within_u), (logs, new.within_l)):
            parts = each.reshape(len(each), -1).view(float)  # real and imaginary in turn
            means.append((mean @ parts).view(each.dtype).reshape(len(names), *each.shape[1:]))
            each -= means[-1][codes] if len(names) > 1 else means[-1]
            within += np.einsum("pi,pi->i", parts, parts).reshape(*within.shape, -1).sum(axis=-1)
        keys = [None] if targets is None or kind[0] == "real" else names.tolist()
        new.classes = {key: _Class(int(n), d, m) for key, n, d, m in zip(keys, counts, *means, strict=True)}
        if targets is not None and kind[0] == "real":
            new.mean_y = targets.mean(axis=0)
            y = targets - new.mean_y
            new.yy = y.T @ y
            new.uy = np.tensordot(u.conj(), y, axes=(0, 0))
            new.ly = np.tensordot(logs, y, axes=(0, 0))
        return new

    @property
    def count(self) -> int:
        return sum(each.count for each in self.classes.values())

    def check(self, kind: Kind, classes: list[Any]) -> None:
        """Raise unless data of this kind can be added."""
        for name, value, have in zip(("time steps", "channels"), kind[1:3], self.kind[1:3], strict=True):
            if value != have:
                raise ValueError(f"x must have {have} {name} as before, got {value}")
        if kind != self.kind:
            say = {"none": "no targets", "numbers": "class numbers", "names": "class names"}
            had, got = (say.get(each[0], f"{each[3]} real targets per sequence") for each in (self.kind, kind))
            raise ValueError(f"y must be {had} as before, got {got}")
        known = len(self.classes.keys() | classes)
        if known > max(_MAX_CLASSES, self.count // 2):
            raise ValueError(f"y must hold few classes, got {known} so far (pass floats for regression)")

    def absorb(self, other: "_Moments") -> None:
        """Add the moments of another part (Chan, Golub & LeVeque 1979)."""
        for label, new in other.classes.items():
            old = self.classes.get(label)
            if old is None:
                self.classes[label] = copy.deepcopy(new)
                if self.kind[0] == "real":
                    self.mean_y = other.mean_y.copy()
                continue
            total = old.count + new.count
            weight, share = old.count * new.count / total, new.count / total
            du, dl = new.dft - old.dft, new.log - old.log
            self.within_u += weight * (du.real**2 + du.imag**2)
            self.within_l += weight * dl**2
            if self.kind[0] == "real":
                dy = other.mean_y - self.mean_y
                self.yy += weight * np.outer(dy, dy)
                self.uy += weight * du.conj()[..., None] * dy
                self.ly += weight * dl[..., None] * dy
                self.mean_y = self.mean_y + share * dy
            self.classes[label] = _Class(total, old.dft + share * du, old.log + share * dl)
        for name in ("power", "within_u", "within_l", "yy", "uy", "ly"):
            getattr(self, name)[...] += getattr(other, name)

    def check_spread(self, n_samples: int, method: str) -> None:
        """Raise unless inputs, and the targets if they are needed, vary."""
        loudest = max((np.abs(each.dft) ** 2).max() for each in self.classes.values())
        if (self.spectral_power() <= 1e-26 * loudest).all():  # no more than rounding
            raise ValueError(f"x must hold sequences that differ, got {n_samples} times the same")
        if method in UNSUPERVISED:
            return
        if self.kind[0] == "none":
            without = " and ".join(UNSUPERVISED)
            raise ValueError(f"y must be given for method {method!r}, got None; {without} go without")
        if self.kind[0] == "real":
            constant = np.diag(self.yy) <= n_samples * (1e-14 * self.mean_y) ** 2
            if constant.any():
                columns = np.flatnonzero(constant).tolist()
                raise ValueError(f"y must vary in every column, got constant columns {columns}")
        else:
            check_classes(sorted(self.classes), n_samples)

    def _by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts (C), and DFTs and log-periodograms (C F D) less the mean over all samples."""
        ordered = [self.classes[label] for label in sorted(self.classes)]
        counts = np.array([each.count for each in ordered])
        dfts, logs = (np.array([getattr(each, name) for each in ordered]) for name in ("dft", "log"))
        center = lambda means: means - np.tensordot(counts / counts.sum(), means, axes=(0, 0))  # noqa: E731
        return counts, center(dfts), center(logs)

    def spectral_power(self) -> np.ndarray:
        """Mean power of the DFT (F, D), less the mean sequence."""
        counts, dfts, _ = self._by_class()
        return (self.within_u + np.tensordot(counts, np.abs(dfts) ** 2, axes=(0, 0))) / counts.sum()

    def cross_spectrum(self) -> np.ndarray:
        """With every standardized target (F, D, K)."""
        if self.kind[0] == "real":
            return self.uy / (self.count * self._spread())
        counts, dfts, _ = self._by_class()
        share = counts / counts.sum()
        return np.moveaxis(dfts.conj(), 0, -1) * np.sqrt(share / (1 - share))

    def f_statistic(self) -> tuple[np.ndarray, float]:
        """Of the log-periodogram against the targets (F, D), and its expectation under independence."""
        if self.kind[0] == "real":
            spread = np.sqrt(np.diag(self.yy))
            values, vectors = np.linalg.eigh(self.yy / np.outer(spread, spread))
            basis = (vectors / np.sqrt(np.maximum(values, 1e-300)))[:, values > _INDEPENDENT * values[-1]]
            between = (((self.ly / spread) @ basis) ** 2).sum(axis=-1)
            return f_ratio(between, self.within_l - between, basis.shape[1], self.count)
        counts, _, logs = self._by_class()
        between = np.tensordot(counts, logs**2, axes=(0, 0))
        return f_ratio(between, self.within_l, len(counts) - 1, self.count)

    def _spread(self) -> np.ndarray:
        """Standard deviations of real targets (K)."""
        return np.sqrt(np.diag(self.yy) / self.count)

    def standardize(self, targets: np.ndarray) -> np.ndarray:
        """Some of the targets (P, K), with the mean and spread of all."""
        if self.kind[0] == "real":
            return (targets - self.mean_y) / self._spread()
        labels = sorted(self.classes)
        share = np.array([self.classes[label].count for label in labels]) / self.count
        chosen = np.eye(len(labels))[np.searchsorted(np.array(labels), targets)]
        return (chosen - share) / np.sqrt(share * (1 - share))

r"""The spectrum of a task: how much each frequency of the input says about the target.

*First order*: the target is (close to) a linear functional of the input, and the cross-spectrum
:math:`c(\omega) = E[\hat u^* y]` sees it. *Second order*: the target depends on the *power* in a band while phases
are random (sound, vibration, most sensors); then :math:`c` is blind and the spread of log-periodograms between
targets is measured instead.

Shapes: ``P`` samples, ``L`` time steps, ``D`` input channels, ``K`` targets, ``F`` frequencies on [0, pi] rad/sample.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import ArrayLike

from tdi_lib import _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["METHODS", "TaskSpectrum", "estimate_task_spectrum", "order_evidence"]

METHODS = ("auto", "input", "cross", "wiener", "shrunk", "discriminative", "flat")
"""Estimators of :func:`estimate_task_spectrum`."""

FLOORS = {"shrunk": 0.02, "discriminative": 0.5}
MIN_LENGTH = 8
MIN_SAMPLES = 4


@dataclasses.dataclass(frozen=True)
class TaskSpectrum:
    r"""A task's spectrum: what :math:`|H(\omega)|^2` should look like, up to scale.

    Attributes:
        omega: frequencies (F,) on [0, pi], rad/sample.
        power: the response to match, :math:`|H|^2` (F,), non-negative with unit mean.
        input_power: :math:`S_u(\omega)` of the data (F,), positive, unit mean.
        method: the estimator that made it.
        n_samples: how many samples it was estimated from.

    Raises:
        TypeError, ValueError: naming the attribute, for shapes that differ, frequencies outside [0, pi] or not
            ascending, negative or all-zero ``power``, or ``input_power`` that is not positive.
    """

    omega: np.ndarray
    power: np.ndarray
    input_power: np.ndarray
    method: str
    n_samples: int

    def __post_init__(self) -> None:
        for name in ("omega", "power", "input_power"):
            array = _checks.real_array(name, getattr(self, name), ndim=(1,), what="(F,)")
            object.__setattr__(self, name, array)
            if array.shape != self.omega.shape:
                raise ValueError(f"{name} must have omega's shape {self.omega.shape}, got {array.shape}")
        if (np.diff(self.omega) <= 0).any() or self.omega[0] < 0 or self.omega[-1] > math.pi + 1e-9:
            raise ValueError(f"omega must ascend within [0, pi] rad/sample, got {self.omega[0]} to {self.omega[-1]}")
        if (self.power < 0).any() or not self.power.any():
            raise ValueError("power must be non-negative and not all zero")
        if (self.input_power <= 0).any():
            raise ValueError(f"input_power must be positive, got a minimum of {self.input_power.min()}")

    @property
    def importance(self) -> np.ndarray:
        r"""Power the *output* of the matched filter should have, :math:`\eta = |H|^2 S_u` (F,), unit mean."""
        eta = self.power * self.input_power
        return eta / eta.mean()

    def plot(self, ax: "Axes | None" = None, **line: Any) -> "Axes":
        """Draw the importance and the input's power (both unit mean) against frequency; returns the axes."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        ax.semilogy(self.omega, self.input_power, "--", color="0.5", label="input power $S_u$")
        line = {"color": "#0b5394", "label": f"importance $|H|^2 S_u$ ({self.method})"} | line
        ax.semilogy(self.omega, self.importance, **line)
        ax.set(xlabel="frequency ω (rad/sample)", ylabel="relative power", xlim=(0, math.pi))
        ax.legend()
        return ax


def estimate_task_spectrum(
    x: ArrayLike,
    y: ArrayLike,
    *,
    method: str = "auto",
    smoothing: int = 9,
    floor: float | None = None,
) -> TaskSpectrum:
    r"""Estimate what a task listens to, from samples.

    Args:
        x: inputs (P, L) or (P, L, D), real; at least 4 samples of at least 8 steps.
        y: real targets (P,) or (P, K); or class labels (P,), non-negative integers or strings, at least two classes.
        method: with :math:`\hat c` the cross-spectrum with the standardised target and
            :math:`\gamma^2 = |\hat c|^2 / S_u` the coherence,

            - ``input``: :math:`|H|^2 = S_u`, the input's own spectrum;
            - ``cross``: :math:`|\hat c|^2` (arXiv 2509.20789; right for white input only);
            - ``wiener``: :math:`|\hat c|^2 / S_u^2`, the power response of the Wiener filter;
            - ``shrunk``: the same with the coherence debiased by its expectation under independence,
              :math:`g^2\gamma^2/S_u`, :math:`g = \max(\gamma^2 - 1/P, 0)/\gamma^2`;
            - ``discriminative``: second order. The F-statistic of the log-periodogram against the target, less its
              expectation under independence, divided by :math:`S_u`;
            - ``flat``: :math:`1/S_u`, every frequency alike: the task-agnostic baseline, blind to ``y``;
            - ``auto``: ``shrunk`` or ``discriminative``, whichever order has the larger evidence
              (:func:`order_evidence`).
        smoothing: width of the (Hann-weighted) average over frequency, in DFT bins; odd widths stay centred.
        floor: share of the importance that ``shrunk`` and ``discriminative`` spread evenly over all frequencies, so
            that none is lost for good. By default 0.02 and 0.5: a raw F-statistic misleads (it measures how sure a
            difference is, not how much a filter there would bring), so half of the channels stay task-agnostic.

    Raises:
        TypeError: for complex or non-numeric input.
        ValueError: naming the argument: NaN, wrong rank, mismatched lengths, too few samples, constant sequences, a
            constant target, a single class, negative labels.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(512, 64))
    >>> tone = np.cos(1.2 * np.arange(64))
    >>> spectrum = estimate_task_spectrum(x, x @ tone)
    >>> spectrum.method, round(float(spectrum.omega[spectrum.power.argmax()]), 1)
    ('shrunk', 1.2)
    """
    method = _checks.choice("method", method, METHODS)
    smoothing = _checks.positive_int("smoothing", smoothing)
    if floor is not None:
        floor = _checks.real_number("floor", floor, low=0.0, high=1.0)
    inputs, target = _samples(x, y)  # (P L D), (P K)
    if method == "auto":
        first, second = order_evidence(inputs, target)
        method = "shrunk" if first >= second else "discriminative"

    n_samples, length, _ = inputs.shape
    n = length + length % 2  # an even DFT has a bin at pi
    omega = np.linspace(0, np.pi, n // 2 + 1)
    taper = scipy.signal.windows.hann(smoothing + 2)[1:-1]
    # "mirror" is exact: a real sequence's spectrum is even about 0 and pi
    smooth = lambda s: scipy.ndimage.convolve1d(s, taper / taper.sum(), axis=0, mode="mirror")  # noqa: E731

    if method in ("input", "flat", "discriminative"):  # statements about power: tapered
        periodogram = _periodograms(inputs)  # (P F D)
        s_u = smooth(periodogram.mean(axis=0))
        if method == "discriminative":
            statistic, null = _f_statistic(np.log(periodogram), target)
            eta = np.maximum(smooth(statistic) / null - 1, 0)
        else:
            eta = s_u**2 if method == "input" else np.ones_like(s_u)
    else:  # statements about a linear functional of the sequence as it is
        centred = inputs - inputs.mean(axis=0)
        spectra = np.fft.rfft(centred, n=n, axis=1) / math.sqrt(length)  # (P F D)
        s_u = smooth((np.abs(spectra) ** 2).mean(axis=0))  # (F D)
        s_u = _positive(s_u)
        cross = np.tensordot(spectra.conj(), target, axes=(0, 0)) / n_samples  # (F D K)
        cross_power = smooth((np.abs(cross) ** 2).mean(axis=2))
        coherence = cross_power / s_u
        excess = np.maximum(coherence - 1 / n_samples, 0)
        shrink = np.divide(excess, coherence, out=np.zeros_like(excess), where=coherence > 0)
        eta = {
            "cross": cross_power * s_u,
            "wiener": coherence,
            "shrunk": shrink**2 * coherence,
        }[method]
    s_u = _positive(s_u).sum(axis=1)
    eta = eta.mean(axis=1)
    if not eta.any():  # nothing stood out from chance: say so by a flat importance
        eta = np.ones_like(eta)
    if method in FLOORS:
        floor = FLOORS[method] if floor is None else floor
        eta = (1 - floor) * eta / eta.mean() + floor
    power = eta / s_u
    return TaskSpectrum(omega, power / power.mean(), s_u / s_u.mean(), method, n_samples)


def order_evidence(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Log evidence per sample of a first-order and of a second-order description of the task, in nats.

    Two Gaussian processes explain the standardised targets: one linear in the sequence, one linear in its
    standardised log-periodogram. Neither looks at ``y`` before the evidence is taken, so the comparison is fair; scale
    and noise are set by maximum likelihood. At most 1,000 samples, evenly spaced, are used.
    """
    inputs, target = _samples(x, y)
    if len(inputs) > 1000:
        keep = np.linspace(0, len(inputs) - 1, 1000).astype(int)
        inputs, target = inputs[keep], target[keep]
    flat = lambda a: a.reshape(len(a), -1)  # noqa: E731
    standardise = lambda a: (a - a.mean(0)) / np.maximum(a.std(0), 1e-12)  # noqa: E731
    linear = inputs - inputs.mean(axis=0)
    spectra = np.fft.rfft(linear, axis=1)
    white = spectra / np.sqrt(_positive((np.abs(spectra) ** 2).mean(axis=0)))
    candidates = [flat(linear), flat(np.concatenate([white.real, white.imag], axis=1))]
    first = max(_evidence(features @ features.T, target) for features in candidates)
    logs = flat(standardise(np.log(_periodograms(inputs))))
    return first, _evidence(logs @ logs.T, target)


def _evidence(gram: np.ndarray, target: np.ndarray) -> float:
    """Largest log marginal likelihood per sample and target of y ~ N(0, s (gram + r I)) over s and r."""
    values, vectors = np.linalg.eigh(gram / np.trace(gram) * len(gram))
    projected = (vectors.T @ target) ** 2  # (P K)
    best = -math.inf
    for ratio in np.logspace(-3, 3, 25):
        total = np.maximum(values, 0) + ratio
        scale = (projected / total[:, None]).mean()
        best = max(best, -0.5 * (1 + math.log(2 * math.pi * scale) + np.log(total).mean()))
    return best


def _samples(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check and bring to inputs (P, L, D) and standardised targets (P, K)."""
    inputs = _checks.real_array("x", x, ndim=(2, 3), what="sequences (P, L) or (P, L, D)")
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    n_samples, length, _ = inputs.shape
    if length < MIN_LENGTH:
        raise ValueError(f"x must have at least {MIN_LENGTH} time steps, got {length} (shape {np.shape(x)})")
    if n_samples < MIN_SAMPLES:
        raise ValueError(f"x must hold at least {MIN_SAMPLES} sequences, got {n_samples}")
    constant = np.flatnonzero((np.ptp(inputs, axis=1) == 0).all(axis=1))
    if constant.size:
        raise ValueError(
            f"x must hold no constant sequences (they have no spectrum), got {constant.size}, "
            f"the first at index {constant[0]}"
        )
    return inputs, _targets(y, n_samples)


def _targets(y: ArrayLike, n_samples: int) -> np.ndarray:
    """Standardised targets (P, K); class labels become one column per class."""
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    raw = np.asarray(y)
    if len(raw.shape) == 0 or len(raw) != n_samples:
        raise ValueError(f"y must hold one target per sequence of x ({n_samples}), got shape {raw.shape}")
    if raw.dtype.kind in "iubU":
        if raw.ndim != 1:
            raise ValueError(f"y must be class labels (P,) or real targets, got shape {raw.shape}")
        if raw.dtype.kind == "i" and (raw < 0).any():
            raise ValueError(f"y must be non-negative class labels, got {raw.min()} (pass floats for regression)")
        classes, codes = np.unique(raw, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y must hold at least two classes, got only {classes.tolist()}")
        if len(classes) > n_samples // 2:
            raise ValueError(
                f"y must hold at least two samples per class on average, got {len(classes)} classes for "
                f"{n_samples} samples (pass floats for regression)"
            )
        target = np.eye(len(classes))[codes]
    else:
        target = _checks.real_array("y", y, ndim=(1, 2), what="targets (P,) or (P, K)")
        target = target.reshape(n_samples, -1)
    spread = target.std(axis=0)
    if (spread == 0).any():
        raise ValueError(f"y must vary in every column, got constant columns {np.flatnonzero(spread == 0).tolist()}")
    return (target - target.mean(axis=0)) / spread


def _periodograms(inputs: np.ndarray) -> np.ndarray:
    """Hann-tapered periodograms (P, F, D): without the taper a loud band leaks over five decades of quiet ones."""
    n = inputs.shape[1] + inputs.shape[1] % 2
    _, power = scipy.signal.periodogram(inputs, window="hann", nfft=n, detrend="constant", axis=1)
    power[:, 0] = power[:, 1]  # the mean is removed: no information at zero
    return _positive(power, axis=(1, 2))


def _positive(power: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Keep a power spectrum above 1e-12 of its maximum, so that it can be divided by and logged."""
    return np.maximum(power, 1e-12 * power.max(axis=axis, keepdims=True))


def _f_statistic(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """F-statistic of every feature (P, ...) regressed on the targets (P, K), and its expectation under independence.

    For class labels this is the one-way analysis of variance; for real targets the regression F-test.
    """
    n_samples = len(target)
    basis, singular, _ = np.linalg.svd(target, full_matrices=False)
    basis = basis[:, singular > 1e-8 * singular[0]]  # one-hot columns sum to a constant
    between_df = basis.shape[1]
    within_df = n_samples - 1 - between_df
    if within_df < 3:
        raise ValueError(
            f"x must hold at least {between_df + 4} sequences for the discriminative method with this target, "
            f"got {n_samples}"
        )
    centred = features - features.mean(axis=0)
    between = (np.tensordot(basis, centred, axes=(0, 0)) ** 2).sum(axis=0)
    within = (centred**2).sum(axis=0) - between
    within = np.maximum(within, 1e-12 * np.maximum(between, 1e-300))
    return (between / between_df) / (within / within_df), within_df / (within_df - 2)

r"""The spectrum of a task: how much each frequency of the input says about the target.

*First order*: the target is (close to) a linear functional of the input, and the cross-spectrum
:math:`c(\omega) = E[\hat u^* y]` sees it. *Second order*: the target depends on the *power* in a band while phases
are random (sound, vibration, most sensors); then :math:`c` is blind and the spread of log-periodograms between
targets is measured instead.

Shapes: ``P`` samples, ``L`` time steps, ``D`` input channels, ``K`` targets, ``F`` frequencies on [0, pi] rad/sample.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike

from tdi_lib.samples import CheckedSamples, evenly, instance_of, one_of, positive_int, real_array, real_number
from tdi_lib.scalogram import (
    Scalogram,
    band_energies,
    check_resolutions,
    from_the_end,
    gram_matrix,
    last_outputs,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["METHODS", "TaskSpectrum", "estimate_task_spectrum", "order_evidence"]

METHODS = ("auto", "input", "cross", "wiener", "shrunk", "evidence", "discriminative", "flat")
"""Estimators of :func:`estimate_task_spectrum`."""

UNSUPERVISED = ("input", "flat")
ORDERS = {"evidence": "first", "discriminative": "second"}
TAPERED = ("input", "flat", "evidence", "discriminative")
_FLOORS = {"shrunk": 0.02, "discriminative": 0.5}
# What `evidence` expects before it sees a target
_SMOOTHNESS = (10.0, 0.7, 0.3, 0.14)  # of a log-spectrum, rad/sample: from a tilt alone to narrow bands
_LOG_SD = 4.0  # its standard deviation, nats
_NOISE = 0.3  # share of the target's variance
_SHARPEN = 1.1
_N_CEPSTRAL = 32
_TOLERANCE = 0.1  # nats that one more step would have to bring
_MAX_WORK = 2**24
ENOUGH = 400  # samples to tell the order of a task
BEYOND = 0.02  # a functional ends where the impulse responses, relative to their largest, do not reach this


@dataclasses.dataclass(frozen=True)
class TaskSpectrum:
    r"""A task's spectrum: what :math:`|H(\omega)|^2` should look like, up to scale.

    Attributes:
        omega: frequencies (F,) on [0, pi], rad/sample.
        power: the response to match, :math:`|H|^2` (F,), non-negative with unit mean.
        input_power: :math:`S_u(\omega)` of the data (F,), positive, unit mean.
        method: the estimator that made it.
        n_samples: how many samples it was estimated from.
        scalogram: the importance at every resolution, where :func:`estimate_task_spectrum` was asked for it.

    Raises:
        TypeError, ValueError: naming the attribute, for shapes that differ, frequencies outside [0, pi] or not
            ascending, negative or all-zero ``power``, ``input_power`` that is not positive, or a ``scalogram`` of other
            frequencies.
    """

    omega: np.ndarray
    power: np.ndarray
    input_power: np.ndarray
    method: str
    n_samples: int
    scalogram: Scalogram | None = None

    def __post_init__(self) -> None:
        for name in ("omega", "power", "input_power"):
            array = real_array(name, getattr(self, name), ndim=(1,), what="(F,)")
            object.__setattr__(self, name, array)
            if array.shape != self.omega.shape:
                raise ValueError(f"{name} must have omega's shape {self.omega.shape}, got {array.shape}")
        if (np.diff(self.omega) <= 0).any() or self.omega[0] < 0 or self.omega[-1] > math.pi + 1e-9:
            raise ValueError(f"omega must ascend within [0, pi] rad/sample, got {self.omega[0]} to {self.omega[-1]}")
        if (self.power < 0).any() or not self.power.any():
            raise ValueError("power must be non-negative and not all zero")
        if (self.input_power <= 0).any():
            raise ValueError(f"input_power must be positive, got a minimum of {self.input_power.min()}")
        if self.scalogram is not None:
            instance_of("scalogram", self.scalogram, Scalogram)
            if not np.array_equal(self.scalogram.omega, self.omega):
                raise ValueError(
                    f"scalogram must have the frequencies omega, {self.omega.size} of them, got "
                    f"{'others' if self.scalogram.omega.size == self.omega.size else self.scalogram.omega.size}"
                )

    @property
    def importance(self) -> np.ndarray:
        r"""Power the *output* of the matched filter should have, :math:`\eta = |H|^2 S_u` (F,), unit mean."""
        eta = self.power * self.input_power
        return eta / eta.mean()

    @property
    def resolution(self) -> float | None:
        """Decay per sample of the filters that the targets are most probable under; None if it was not asked for."""
        return None if self.scalogram is None else self.scalogram.resolution

    def plot(self, ax: "Axes | None" = None, **line: Any) -> "Axes":
        """Draw the importance and the input's power (both unit mean) against frequency; returns the axes.

        With a scalogram, and no ``ax`` to draw into, it is drawn instead.
        """
        import matplotlib.pyplot as plt

        if self.scalogram is not None and ax is None:
            return self.scalogram.plot()
        ax = plt.subplots()[1] if ax is None else ax
        ax.semilogy(self.omega, self.input_power, "--", color="0.5", label="input power $S_u$")
        line = {"color": "#0b5394", "label": f"importance $|H|^2 S_u$ ({self.method})"} | line
        ax.semilogy(self.omega, self.importance, **line)
        ax.set(xlabel="frequency ω (rad/sample)", ylabel="relative power", xlim=(0, math.pi))
        ax.legend()
        return ax


def estimate_task_spectrum(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    method: str = "auto",
    smoothing: int = 9,
    floor: float | None = None,
    lengths: ArrayLike | None = None,
    resolutions: ArrayLike | str | None = None,
) -> TaskSpectrum:
    r"""Estimate what a task listens to, from samples.

    Args:
        x: inputs (P, L) or (P, L, D), real; at least 4 samples of at least 8 steps.
        y: real targets (P,) or (P, K); class labels (P,), non-negative integers or strings, at least two classes; or
            several labels at once (P, K), integers that are 0 or 1. The methods ``input`` and ``flat`` do not look at
            it and may go without. A real target for every step (P, L) is L targets, each a functional of the sequence.
        method: with :math:`\hat c` the cross-spectrum with the standardized target and
            :math:`\gamma^2 = |\hat c|^2 / S_u` the coherence,

            - ``input``: :math:`|H|^2 = S_u`, the input's own spectrum;
            - ``cross``: :math:`|\hat c|^2` (arXiv 2509.20789; right for white input only);
            - ``wiener``: :math:`|\hat c|^2 / S_u^2`, the power response of the Wiener filter;
            - ``shrunk``: the same with the coherence debiased by its expectation under independence,
              :math:`g^2\gamma^2/S_u`, :math:`g = \max(\gamma^2 - 1/P, 0)/\gamma^2`;
            - ``evidence``: empirical Bayes. :math:`|H|^2` is the prior variance of a linear functional's spectrum; its
              logarithm is smooth, and how smooth is averaged over by evidence. It sees all frequencies at once, so a
              band that is explained no longer disturbs the others, and it needs neither ``smoothing`` nor debiasing;
            - ``discriminative``: second order. The F-statistic of the log-periodogram against the target, less its
              expectation under independence, divided by :math:`S_u`;
            - ``flat``: :math:`1/S_u`, every frequency alike: the task-agnostic baseline, blind to ``y``;
            - ``auto``: ``evidence`` or ``discriminative``, whichever order has the larger evidence
              (:func:`order_evidence`).
        smoothing: width of the (Hann-weighted) average over frequency, in DFT bins; odd widths stay centered.
            First-order spectra are smoothed this way, as :math:`|\hat c|^2`, and not by tapers or Welch's segments:
            a taper would change the functional, :math:`\sum_t w_t u_t` into :math:`\sum_t w_t h_t u_t`, and a segment
            would lose all of it that lies outside.
        floor: share of the importance that ``shrunk``, ``evidence`` and ``discriminative`` spread evenly over all
            frequencies, so that none is lost for good. By default 0.02; the probability that the target depends on no
            linear functional at all; and 0.5: a raw F-statistic misleads (it measures how sure a difference is, not
            how much a filter there would bring), so half of the channels stay task-agnostic.
        lengths: of sequences that are padded at their ends (P,), integers from 8 to L; the padding may hold anything,
            NaN included. Power spectra are taken of each sequence at its own length, on the frequencies of the
            longest; a functional (``cross``, ``wiener``, ``shrunk``, ``evidence``) is one of the sequence continued
            by its own mean.
        resolutions: decays per sample of filters, one or (R,), ascending, or ``"auto"`` for
            :func:`~tdi_lib.scalogram.resolution_grid`: estimate the importance at each, and how probable each is
            (:mod:`tdi_lib.scalogram`); ``power`` is then their average. For ``auto``, which takes the order that has
            the larger evidence at any of them, ``evidence`` and ``discriminative``; the filters do the smoothing.

    Raises:
        TypeError: for complex or non-numeric input.
        ValueError: naming the argument: NaN, wrong rank, mismatched lengths, too few samples, constant sequences, a
            constant target, a single class, negative labels.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(512, 64))
    >>> tone = np.cos(1.2 * np.arange(64))
    >>> spectrum = estimate_task_spectrum(x, x @ tone)
    >>> spectrum.method, round(float(spectrum.omega[spectrum.power.argmax()]), 1)
    ('evidence', 1.2)
    """
    method = one_of("method", method, METHODS)
    smoothing = positive_int("smoothing", smoothing)
    if floor is not None:
        floor = real_number("floor", floor, low=0.0, high=1.0)
    if resolutions is not None and method not in ("auto", *ORDERS):
        raise ValueError(f"resolutions must be None for method {method!r}: only auto, {', '.join(ORDERS)} have them")
    samples = CheckedSamples.without_targets(x, lengths) if y is None else CheckedSamples.of(x, y, lengths)
    if y is None and method not in UNSUPERVISED:
        raise ValueError(f"y must be given for method {method!r}, got None; {' and '.join(UNSUPERVISED)} go without")
    if resolutions is not None:
        return _estimate_plane(samples, method, resolutions, floor)
    return _estimate(samples, better_order(samples) if method == "auto" else method, smoothing, floor)


def _estimate(samples: CheckedSamples, method: str, smoothing: int, floor: float | None) -> TaskSpectrum:
    inputs, target = samples.inputs, samples.targets  # (P L D), (P K)
    n_samples, smooth = len(samples), smoother(smoothing)
    if method in TAPERED:  # the input's power
        periodogram = periodograms(inputs, samples.ends)  # (P F D)
        s_u = smooth(periodogram.mean(axis=0))
        if method == "evidence":
            s_u = positive(s_u)
            eta, no_signal = evidence_importance(inputs, target, s_u)
            floor = no_signal if floor is None else floor
        elif method == "discriminative":
            eta = discriminative_importance(*_f_statistic(np.log(periodogram), target), smooth)
        else:
            eta = s_u**2 if method == "input" else np.ones_like(s_u)
    else:  # statements about a linear functional of the sequence as it is
        centered, length = inputs - inputs.mean(axis=0), inputs.shape[1]
        spectra = np.fft.rfft(centered, n=length + length % 2, axis=1) / math.sqrt(length)  # (P F D)
        s_u = positive(smooth((np.abs(spectra) ** 2).mean(axis=0)))  # (F D)
        cross = np.tensordot(spectra.conj(), target, axes=(0, 0)) / n_samples  # (F D K)
        eta = first_order_importance(method, s_u, cross, n_samples, smooth)
    return assemble(method, s_u, eta, floor, n_samples)


def _estimate_plane(
    samples: CheckedSamples, method: str, resolutions: ArrayLike | str, floor: float | None
) -> TaskSpectrum:
    """:func:`estimate_task_spectrum` for ``resolutions``: a row of importance, and an evidence, for each of them.

    The power is that of the rows, averaged by the probability of their resolutions.
    """
    inputs, target = samples.inputs, samples.targets  # (P L D), (P K)
    decays = check_resolutions(resolutions, inputs.shape[1])
    periodogram = periodograms(inputs, samples.ends)  # (P F D)
    s_u = positive(smoother(9)(periodogram.mean(axis=0)))  # (F D)
    keep = evenly(target, ENOUGH) if len(samples) > ENOUGH else np.arange(len(samples))
    explain = lambda gram: float(_evidence(gram, target[None, keep])[0])  # noqa: E731
    evidence: dict[str, list[float]] = {}
    if method != "discriminative":
        lagged, power = from_the_end(inputs, samples.ends), periodogram.mean(axis=0)
        functionals = [last_outputs(lagged[keep], power, decay) for decay in decays.tolist()]
        evidence["evidence"] = [explain(gram) for gram, _ in functionals]
    if method != "evidence":
        bands = [band_energies(periodogram, decay) for decay in decays.tolist()]
        logs = [np.log(positive(energies, axis=(1, 2))) for energies, _ in bands]
        evidence["discriminative"] = [explain(gram_matrix(each[keep])) for each in logs]
    if method == "auto":  # an order may show at a resolution, or without one
        plain = zip(evidence, evidence_of_both(samples), strict=True)
        method = max(plain, key=lambda each: max(each[1], *evidence[each[0]]))[0]
    missing: list[float] = []
    if method == "evidence":
        rows, missing = zip(*(_functional_row(lagged, reach, target, s_u) for _, reach in functionals), strict=True)
    else:
        grid = np.linspace(0, np.pi, len(s_u))
        rows = [
            np.interp(grid, centers, _band_row(each, target)) for each, (_, centers) in zip(logs, bands, strict=True)
        ]
    importance = np.array(rows)  # (R F)
    importance /= importance.mean(axis=1, keepdims=True)
    overlap = target[keep].T @ target[keep]
    weight = len(keep) * np.trace(overlap) ** 2 / (overlap**2).sum()  # columns that repeat one another count once
    omega = np.linspace(0, np.pi, len(s_u))
    plane = Scalogram(omega, decays, importance, np.array(evidence[method]), ORDERS[method], weight)
    if method == "evidence" and floor is None:
        floor = float(plane.posterior @ missing)
    spectrum = assemble(method, s_u, (plane.posterior @ importance)[:, None], floor, len(samples))
    return dataclasses.replace(spectrum, scalogram=plane)


def _band_row(logs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Importance (C,) of log energies (P, C, D): their F-statistic less its mean under independence."""
    eta = discriminative_importance(*_f_statistic(logs, target), lambda s: s).mean(axis=1)
    return eta if eta.any() else np.ones_like(eta)


def _functional_row(
    lagged: np.ndarray, reach: np.ndarray, target: np.ndarray, s_u: np.ndarray
) -> tuple[np.ndarray, float]:
    """Importance (F,) of the functionals of one reach (L), and the probability that there is none.

    They end where it does, so their spectrum is known on a coarser grid.
    """
    length = min(len(reach), max(32, int((reach > BEYOND).sum())))
    fine, coarse = np.linspace(0, np.pi, len(s_u)), frequencies(length)
    power = np.stack([np.interp(coarse, fine, each) for each in s_u.T], axis=1)
    eta, nothing = evidence_importance(lagged[:, :length] * reach[:length, None], target, power)
    return np.interp(fine, coarse, (eta / power).mean(axis=1)) * s_u.mean(axis=1), nothing


def frequencies(length: int) -> np.ndarray:
    """Of the DFT of ``length`` steps, made even so that a bin lies at pi (F,)."""
    return np.linspace(0, np.pi, (length + length % 2) // 2 + 1)


def smoother(smoothing: int) -> Callable[[np.ndarray], np.ndarray]:
    """Hann-weighted average over ``smoothing`` DFT bins of a spectrum (F, ...)."""
    taper = scipy.signal.windows.hann(smoothing + 2)[1:-1]
    # "mirror" is exact: a real sequence's spectrum is even about 0 and pi
    return lambda s: scipy.ndimage.convolve1d(s, taper / taper.sum(), axis=0, mode="mirror")


def first_order_importance(
    method: str, s_u: np.ndarray, cross: np.ndarray, n_samples: int, smooth: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Importance (F, D) by ``cross``, ``wiener`` or ``shrunk`` from the input's power and cross-spectra (F, D, K)."""
    cross_power = smooth((np.abs(cross) ** 2).mean(axis=2))
    coherence = cross_power / s_u
    excess = np.maximum(coherence - 1 / n_samples, 0)
    shrink = np.divide(excess, coherence, out=np.zeros_like(excess), where=coherence > 0)
    return {"cross": cross_power * s_u, "wiener": coherence, "shrunk": shrink**2 * coherence}[method]


def discriminative_importance(
    statistic: np.ndarray, null: float, smooth: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Importance (F, D) from the F-statistics of the log-periodogram and their mean under independence."""
    return np.maximum(smooth(statistic) / null - 1, 0)


def evidence_importance(inputs: np.ndarray, target: np.ndarray, s_u: np.ndarray) -> tuple[np.ndarray, float]:
    """Importance (F, D) by ``evidence``, and the probability that there is none."""
    relative = s_u / s_u.sum(axis=0)  # every channel in its own units
    log_s_u = np.log(relative.mean(axis=1))
    log_s_u -= log_s_u.mean()
    power, no_signal = _empirical_bayes(inputs, target, log_s_u)
    return power[:, None] * relative, no_signal


def assemble(method: str, s_u: np.ndarray, eta: np.ndarray, floor: float | None, n_samples: int) -> TaskSpectrum:
    """The task spectrum from power and importance of every channel (F, D)."""
    s_u = positive(s_u).sum(axis=1)
    eta = eta.mean(axis=1)
    if not eta.any():  # nothing stood out from chance: say so by a flat importance
        eta = np.ones_like(eta)
    if method in (*_FLOORS, "evidence"):
        floor = _FLOORS[method] if floor is None else floor
        eta = (1 - floor) * eta / eta.mean() + floor
    power = eta / s_u
    omega = np.linspace(0, np.pi, len(power))
    return TaskSpectrum(omega, power / power.mean(), s_u / s_u.mean(), method, n_samples)


def _empirical_bayes(inputs: np.ndarray, target: np.ndarray, log_s_u: np.ndarray) -> tuple[np.ndarray, float]:
    r"""Power response of the prior that explains the targets best (F,), and the probability that there is nothing to.

    Let the target be a linear functional whose spectrum has variance :math:`\eta_j = |H(\omega_j)|^2`, plus noise. With
    :math:`x_j` (P,) the samples' coefficients at frequency j,

    .. math::
        y \sim N(0, S), \quad S = \sum_j \eta_j x_j x_j^\top + r I, \quad
        \log \eta_j = \beta \log S_u(\omega_j) + \sum_k b_k \cos k\omega_j .

    The tilt :math:`\beta \sim N(-\frac12, 1)` reaches from white output (-1) over white :math:`|H|^2` (0) to the color
    of the input (1). The cosines, :math:`b_k \sim N(0, v_k)` and :math:`v_k \propto e^{-(k\ell)^2/2}`, are a Gaussian
    process over frequency, smooth on the scale :math:`\ell`. For each :math:`\ell` of ``_SMOOTHNESS`` Fisher scoring
    finds the most probable :math:`\log\eta` and Laplace's method its evidence; the answer is their average, weighted by
    evidence. The evidence is an integral over all spectra that the samples could have chosen, so choosing one with the
    same samples costs what it should.

    With :math:`u_j = \eta_j x_j^\top S^{-1} x_j`, gradient (Rasmussen & Williams 2006, eq. 5.9) and information are

    .. math::
        g_j = \tfrac12 \bigl[\eta_j (x_j^\top S^{-1} y)^2 - u_j\bigr], \qquad
        I_{ij} = \tfrac12 \eta_i \eta_j (x_i^\top S^{-1} x_j)^2, \qquad \sum_j I_{ij} = \tfrac12 u_i,

    the noise being one more frequency, with the unit vectors as coefficients. Diagonal and row sums of I are used as
    they are; the rest is spread as for independent coefficients, :math:`\propto u_i(1 - u_i)u_j(1 - u_j)`. That steers
    the search and sets the Occam factor, not the optimum, and it costs nothing.

    A step costs :math:`n^2 LD` multiplications, n the smaller of P and LD; about 20 are taken. If that is more than
    ``_MAX_WORK``, fewer samples are used, at least 128, evenly spaced in the order of their targets.
    """
    problem = _Problem.of(inputs, target, log_s_u)
    found = problem.explain(np.zeros(problem.basis.shape[1]))
    log_powers, evidence = [], []
    for scale in _SMOOTHNESS:  # from smooth to rough, each from where the last one ended
        variance = problem.prior_variance(scale)
        found, log_posterior, curvature = problem.climb(found, variance)
        occam = np.linalg.slogdet(curvature * np.sqrt(np.outer(variance, variance)))[1]
        log_powers.append(np.log(found.eta[:-1]))
        evidence.append(log_posterior - 0.5 * occam)

    # the rival: noise alone, whose best variance is one
    weight = problem.columns * (len(problem.x) + problem.unreached)
    nothing = -0.5 * (weight + math.log(_NOISE) ** 2 + math.log(1 + 0.5 * weight))
    something = scipy.special.logsumexp(evidence) - math.log(len(evidence))
    # where eta is small the likelihood hardly cares how small: the mean of log eta lies beyond its most probable value
    log_power = _SHARPEN * scipy.special.softmax(evidence) @ np.array(log_powers)
    return np.exp(log_power), float(scipy.special.expit(nothing - something))


class _Explained(NamedTuple):
    """Targets as theta explains them."""

    theta: np.ndarray
    eta: np.ndarray  # variance at every frequency, and of the noise (F + 1)
    whiten: np.ndarray  # inverse of the Cholesky factor of S (n n)
    log_likelihood: float


@dataclasses.dataclass(frozen=True)
class _Problem:
    r"""Samples, and the log spectra that explain them, :math:`(\log\eta, \log r)` = offset + basis theta.

    theta holds the b, beta and log r, less their means. What of the samples lies outside the span of the coefficients
    (P > R D) is noise: of it only the number of dimensions and the sum of the targets' squares count.
    """

    x: np.ndarray  # coefficients of R real waves in D channels (n RD)
    y: np.ndarray  # targets (n K)
    bins: np.ndarray  # frequency of every coefficient, F for the noise of every sample (RD + n)
    columns: float  # independent targets: columns that repeat one another, as one per class does, count once
    residual: float  # sum of squares of the targets outside the span
    unreached: int  # dimensions outside the span
    basis: np.ndarray  # (F + 1, T)
    offset: np.ndarray  # (F + 1)

    @classmethod
    def of(cls, inputs: np.ndarray, target: np.ndarray, log_s_u: np.ndarray) -> "_Problem":
        n_samples, length, n_channels = inputs.shape
        enough = max(128, math.isqrt(_MAX_WORK // (length * n_channels)))
        if min(n_samples, length * n_channels) > enough:
            keep = evenly(target, enough)
            inputs, target, n_samples = inputs[keep], target[keep] - target[keep].mean(axis=0), enough
        n_freq = len(log_s_u)
        spectra = np.fft.rfft(inputs - inputs.mean(axis=0), n=2 * n_freq - 2, axis=1) * math.sqrt(2)
        spectra[:, [0, -1]] /= math.sqrt(2)  # at 0 and pi a real sequence has one coefficient, not two
        x = np.concatenate([spectra.real, spectra.imag[:, 1:-1]], axis=1)  # (P R D)
        x = (x / np.maximum(np.sqrt((x**2).mean(axis=0).sum(axis=0)), 1e-300)).reshape(n_samples, -1)  # (P RD)
        bins = np.repeat(np.r_[:n_freq, 1 : n_freq - 1], n_channels)
        overlap = target.T @ target
        columns = np.trace(overlap) ** 2 / (overlap**2).sum()
        y = target * math.sqrt(columns * n_samples / np.trace(overlap))
        level = math.log(2 * ((x**2).mean(axis=0) @ np.exp(-0.5 * log_s_u)[bins]))  # half of the variance is signal
        residual = 1e-4 * (y**2).sum()  # no target is quite free of noise: log r needs a lower end
        unreached = max(n_samples - x.shape[1], 0)
        if unreached:
            span, x = np.linalg.qr(x)
            residual += ((y - span @ (span.T @ y)) ** 2).sum()
            y = span.T @ y
        cosines = np.cos(np.outer(np.linspace(0, np.pi, n_freq), np.arange(min(_N_CEPSTRAL, n_freq))))
        basis = scipy.linalg.block_diag(np.column_stack([cosines, log_s_u]), 1.0)
        offset = np.append(-0.5 * log_s_u - level, math.log(_NOISE))
        return cls(x, y, np.append(bins, np.full(len(x), n_freq)), columns, residual, unreached, basis, offset)

    def prior_variance(self, scale: float) -> np.ndarray:
        """Of theta (T,): cosines of a smooth process over frequency, the tilt, the noise."""
        k = np.arange(self.basis.shape[1] - 2)
        ripple = np.where(k, 2.0, 1.0) * np.exp(-0.5 * (k * scale) ** 2)
        variance = np.append(_LOG_SD**2 * ripple / ripple.sum() + 1e-8, [1.0, 1.0])
        variance[0] += 1.0  # the level
        return variance

    def explain(self, theta: np.ndarray) -> _Explained:
        """The likelihood of theta, minus infinity where S cannot be factored: after a step too far."""
        eta = np.exp(np.clip(self.offset + self.basis @ theta, -50, 50))
        scaled = self.x * np.sqrt(eta)[self.bins[: self.x.shape[1]]]
        try:
            factor = np.linalg.cholesky(scaled @ scaled.T + eta[-1] * np.eye(len(self.x)))
        except np.linalg.LinAlgError:
            return _Explained(theta, eta, np.empty((0, 0)), -math.inf)
        whiten = scipy.linalg.lapack.dtrtri(factor, lower=1)[0]
        log_det = 2 * np.log(np.diag(factor)).sum() + self.unreached * math.log(eta[-1])
        misfit = ((whiten @ self.y) ** 2).sum() + self.residual / eta[-1]
        return _Explained(theta, eta, whiten, -0.5 * (misfit + self.columns * log_det))

    def fisher_step(self, found: _Explained, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The step towards the most probable theta (T,), and the curvature of the log posterior (T, T)."""
        x, whiten, eta = self.x, found.whiten, found.eta[self.bins]
        alpha = whiten.T @ (whiten @ self.y)  # S^-1 y
        u = eta * np.append(((whiten @ x) ** 2).sum(axis=0), (whiten**2).sum(axis=0))
        fit = eta * np.append(((x.T @ alpha) ** 2).sum(axis=1), (alpha**2).sum(axis=1))
        rest = np.maximum(u * (1 - u), 1e-100)
        diagonal = u**2 - rest**2 / rest.sum()
        diagonal, rest, fit, u = (np.bincount(self.bins, each) for each in (diagonal, rest, fit, u))
        diagonal[-1] += self.unreached
        u[-1] += self.unreached
        fit[-1] += self.residual / found.eta[-1]
        along = self.basis.T @ rest
        spread = (self.basis.T * diagonal) @ self.basis + np.outer(along, along) / rest.sum()
        curvature = 0.5 * self.columns * spread + np.diag(1 / variance)
        gradient = 0.5 * self.basis.T @ (fit - self.columns * u) - found.theta / variance
        return np.linalg.solve(curvature, gradient), curvature

    def climb(self, found: _Explained, variance: np.ndarray) -> tuple[_Explained, float, np.ndarray]:
        """The most probable theta from ``found`` on, its log posterior, and the curvature there."""
        log_posterior, gain = found.log_likelihood - 0.5 * (found.theta**2 / variance).sum(), math.inf
        while gain > _TOLERANCE:
            step, curvature = self.fisher_step(found, variance)
            for _ in range(12):
                trial = self.explain(found.theta + step)
                gain = trial.log_likelihood - 0.5 * (trial.theta**2 / variance).sum() - log_posterior
                if gain > 0:
                    found, log_posterior = trial, log_posterior + gain
                    break
                step /= 2
        return found, log_posterior, curvature


def order_evidence(x: ArrayLike, y: ArrayLike, *, lengths: ArrayLike | None = None) -> tuple[float, float]:
    """Log evidence per sample of a first-order and of a second-order description of the task, in nats.

    Two Gaussian processes explain the standardized targets: one linear in the sequence, one linear in its
    standardized log-periodogram. Neither looks at ``y`` before the evidence is taken, so the comparison is fair; scale
    and noise are set by maximum likelihood. At most 400 samples are used, evenly spaced in the order of their targets.
    """
    return evidence_of_both(CheckedSamples.of(x, y, lengths))


def evidence_of_both(samples: CheckedSamples) -> tuple[float, float]:
    """:func:`order_evidence` of what is checked."""
    samples = samples.at_most(ENOUGH)
    first, second = evidence_of_orders(samples.inputs, samples.targets[None], samples.ends)
    return float(first[0]), float(second[0])


def better_order(samples: CheckedSamples) -> str:
    """``evidence`` or ``discriminative``."""
    first, second = evidence_of_both(samples)
    return "evidence" if first >= second else "discriminative"


def evidence_of_orders(
    inputs: np.ndarray, targets: np.ndarray, ends: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`order_evidence` of inputs (P, L, D) for several sets of standardized targets (R, P, K): two of (R,)."""
    flat = lambda a: a.reshape(len(a), -1)  # noqa: E731
    standardize = lambda a: (a - a.mean(0)) / np.maximum(a.std(0), 1e-12)  # noqa: E731
    linear = inputs - inputs.mean(axis=0)
    spectra = np.fft.rfft(linear, axis=1)
    white = spectra / np.sqrt(positive((np.abs(spectra) ** 2).mean(axis=0)))
    candidates = [flat(linear), flat(np.concatenate([white.real, white.imag], axis=1))]
    first = np.max([_evidence(features @ features.T, targets) for features in candidates], axis=0)
    logs = flat(standardize(np.log(periodograms(inputs, ends))))
    return first, _evidence(logs @ logs.T, targets)


def _evidence(gram: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Largest log marginal likelihood per sample and target of y ~ N(0, s (gram + r I)) over s and r (R,)."""
    values, vectors = np.linalg.eigh(gram / np.trace(gram) * len(gram))
    projected = ((vectors.T @ targets) ** 2).mean(axis=-1)  # (R P)
    total = np.maximum(values, 0) + np.logspace(-3, 3, 25)[:, None]  # (ratios P)
    scale = projected @ (1 / total).T / len(gram)  # (R ratios)
    return (-0.5 * (1 + np.log(2 * math.pi * scale) + np.log(total).mean(axis=1))).max(axis=1)


def periodograms(inputs: np.ndarray, ends: np.ndarray | None = None) -> np.ndarray:
    """Hann-tapered periodograms (P, F, D): without the taper a loud band leaks over five decades of quiet ones.

    Each sequence up to its end, on the frequencies of the longest.
    """
    n = inputs.shape[1] + inputs.shape[1] % 2
    if ends is None:
        _, power = scipy.signal.periodogram(inputs, window="hann", nfft=n, detrend="constant", axis=1)
    else:
        power = np.empty((len(inputs), n // 2 + 1, inputs.shape[2]))
        for end in np.unique(ends):
            same = ends == end
            _, power[same] = scipy.signal.periodogram(
                inputs[same, :end], window="hann", nfft=n, detrend="constant", axis=1
            )
    power[:, 0] = power[:, 1]  # the mean is removed: no information at zero
    return positive(power, axis=(1, 2))


def positive(power: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
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
    centered = features - features.mean(axis=0)
    between = (np.tensordot(basis, centered, axes=(0, 0)) ** 2).sum(axis=0)
    return f_ratio(between, (centered**2).sum(axis=0) - between, between_df, n_samples)


def f_ratio(between: np.ndarray, within: np.ndarray, between_df: int, n_samples: int) -> tuple[np.ndarray, float]:
    """F-statistics from sums of squares, and their expectation under independence."""
    within_df = n_samples - 1 - between_df
    if within_df < 3:
        raise ValueError(
            f"x must hold at least {between_df + 4} sequences for the discriminative method with this target, "
            f"got {n_samples}"
        )
    within = np.maximum(within, 1e-12 * np.maximum(between, 1e-300))
    return (between / between_df) / (within / within_df), within_df / (within_df - 2)

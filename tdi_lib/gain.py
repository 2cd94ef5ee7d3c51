r"""What will a matched start bring? Two answers before anything is trained.

:func:`forecast_gain` asks the theory, in the world that the estimated spectrum describes. :func:`compare_starts` asks
the samples: a linear read-out of the *untrained* layer is fitted on one half and tested on the other. Both look at a
single layer; :func:`compare_features` does the same with whatever an untrained model makes of its input.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike

from tdi_lib import _checks
from tdi_lib.regression import RIDGES, evidence_curve, feature_root, ridge_path
from tdi_lib.spectrum import TaskSpectrum, check_inputs, order_evidence, standardise_targets
from tdi_lib.theory import layer_matrix

__all__ = ["Comparison", "compare_features", "compare_starts", "forecast_gain", "label_noise"]

ORDERS = ("auto", "first", "second")
MIN_SAMPLES = 8
CHUNK = 2**22  # numbers held at once while powers are taken
Layer = Callable[[np.ndarray, np.ndarray], np.ndarray]
Features = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two starts on held-out samples.

    Attributes:
        base: mean squared miss of the first start, relative to the targets' variance.
        rival: the same of the second.
        difference: rival less base.
        standard_error: of the difference.
        order: ``first`` or ``second``: the read-out that was asked; ``given`` if it saw features of the caller's.
    """

    base: float
    rival: float
    difference: float
    standard_error: float
    order: str

    @property
    def better(self) -> bool:
        """Whether the rival misses by less, and by more than one standard error less."""
        return self.difference + self.standard_error < 0


def compare_starts(base: Layer, rival: Layer, x: ArrayLike, y: ArrayLike, *, order: str = "auto") -> Comparison:
    r"""Ask the samples which of two layers is the better start: each half tests what was fitted on the other.

    The read-out is ridge regression, its ridge by evidence, for real targets and for one column per class alike. For
    a task of first order it sees the layer's whole output, for one of second order the logarithm of each channel's
    mean output power over the last three quarters, once the filters no longer ring from the sudden beginning.

    Args:
        base, rival: functions of a training half, ``layer(x, y)``, that return impulse responses (H, L). A start that
            looks at the data must look at what it is given and at nothing else.
        x, y: samples as for :func:`~tdi_lib.spectrum.estimate_task_spectrum`, at least 8. They are split alternately
            in the order of their targets, so that every class and every value keeps its share.
        order: ``first``, ``second``, or ``auto``: the one of larger evidence
            (:func:`~tdi_lib.spectrum.order_evidence`).

    Raises:
        TypeError, ValueError: naming the argument.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 32))
    >>> y = x @ np.cos(2.0 * np.arange(32))
    >>> slow = lambda x, y: np.exp(-0.1 * np.arange(32))[None]
    >>> tuned = lambda x, y: (np.exp(-0.1 * np.arange(32)) * np.cos(2.0 * np.arange(32)))[None]
    >>> compare_starts(slow, tuned, x, y).better, compare_starts(tuned, slow, x, y).better
    (True, False)
    """
    order = _checks.choice("order", order, ORDERS)
    if order == "auto":
        first, second = order_evidence(x, y)
        order = "first" if first >= second else "second"

    def features(layer: Layer) -> Features:
        def of_half(x_half: np.ndarray, y_half: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            kernels = np.asarray(layer(x_half, y_half), dtype=np.float64)
            if order == "second":
                return functools.partial(_log_powers, kernels)
            root = feature_root(layer_matrix(kernels))
            return lambda inputs: np.einsum("pld,lm->pdm", inputs, root).reshape(len(inputs), -1)

        return of_half

    return dataclasses.replace(compare_features(features(base), features(rival), x, y), order=order)


def compare_features(base: Features, rival: Features, x: ArrayLike, y: ArrayLike) -> Comparison:
    """Ask the samples which of two sets of features is the better one: each half tests what was fitted on the other.

    As :func:`compare_starts`, for features of any kind, such as the pooled outputs of an untrained deep model.

    Args:
        base, rival: functions of a training half, ``features(x, y)``, that return a function from all samples
            (P, L, D) to their features (P, M).
        x, y: as for :func:`compare_starts`.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 32))
    >>> mean, power = (lambda x, y: lambda u: u.mean(axis=1)), (lambda x, y: lambda u: (u**2).mean(axis=1))
    >>> compare_features(mean, power, x, (x**2).mean(axis=1)).better
    True
    """
    inputs = check_inputs(x)  # (P L D)
    if len(inputs) < MIN_SAMPLES:
        raise ValueError(f"x must hold at least {MIN_SAMPLES} sequences to be split, got {len(inputs)}")
    target = standardise_targets(y, len(inputs))  # (P K)
    labels = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    halves = np.zeros(len(inputs), bool)
    halves[np.lexsort(target.T)[::2]] = True
    misses = np.zeros((2, len(inputs)))
    for fit in (halves, ~halves):
        for row, name, make in zip(misses, ("base", "rival"), (base, rival), strict=True):
            raw = _checks.real_array(name, make(inputs[fit], labels[fit])(inputs), ndim=(2,), what="features (P, M)")
            if len(raw) != len(inputs):
                raise ValueError(f"{name} must give a row for each of {len(inputs)} sequences, got shape {raw.shape}")
            features = raw - raw[fit].mean(axis=0)
            mean = target[fit].mean(axis=0)
            path = ridge_path(features[fit], target[fit] - mean)
            row[~fit] = ((features[~fit] @ path.weights[path.best] + mean - target[~fit]) ** 2).mean(axis=1)
    difference = misses[1] - misses[0]
    standard_error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    base_miss, rival_miss = map(float, misses.mean(axis=1))
    return Comparison(base_miss, rival_miss, float(difference.mean()), standard_error, "given")


def forecast_gain(
    kernels: ArrayLike, matched: ArrayLike, spectrum: TaskSpectrum, n_samples: int, noise: float
) -> float:
    r"""Forecast of the gain, :math:`\log(E_g / E_g^\mathrm{matched})`, by theory from an estimated spectrum.

    In the world of the estimate the input is stationary with power :math:`S_u` and the target a functional drawn with
    power :math:`|H|^2`. Both layers' errors follow from the learning curve
    (:func:`~tdi_lib.regression.evidence_curve`). It says how much there is to gain *if the estimate is right*; to see
    that it is wrong takes samples that it has not seen (:func:`compare_starts`). For tasks of first order.

    Args:
        kernels: impulse responses (H, L) of the layer as it is.
        matched: those of the rival (H, L).
        spectrum: the task's.
        n_samples: P.
        noise: variance of the label noise, relative to the clean target's.

    >>> omega = np.linspace(0, np.pi, 33)
    >>> bump = np.exp(-(((omega - 2.0) / 0.2) ** 2))
    >>> spectrum = TaskSpectrum(omega, bump, np.ones(33), "evidence", 64)
    >>> t = np.arange(64)
    >>> slow, tuned = np.exp(-0.1 * t), np.exp(-0.1 * t) * np.cos(2.0 * t)
    >>> forecast_gain(slow, tuned, spectrum, 64, 0.1) > 0
    True
    """
    _checks.module("spectrum", spectrum, TaskSpectrum)
    rows = [np.atleast_2d(_checks.real_array(n, k, ndim=(1, 2), what="(H, L)")) for n, k in
            (("kernels", kernels), ("matched", matched))]  # fmt: skip
    length = rows[0].shape[1]
    if rows[1].shape[1] != length:
        raise ValueError(f"matched must have the kernels' length {length}, got shape {rows[1].shape}")
    grid = 2 * np.pi * np.arange(length // 2 + 1) / length
    law = {}
    for name in ("input_power", "power"):
        resampled = np.interp(grid, spectrum.omega, getattr(spectrum, name))
        law[name] = scipy.linalg.circulant(np.fft.irfft(resampled, n=length))
    root = feature_root(law["input_power"])
    errors = []
    for each in rows:
        axes, singular, _ = np.linalg.svd(root.T @ feature_root(layer_matrix(each)))
        to_modes = (root @ axes).T
        target = np.einsum("ij,jk,ik->i", to_modes, law["power"], to_modes)
        eta = singular**2 / np.sum(singular**2)
        errors.append(evidence_curve(eta, target / target.sum(), n_samples, noise=noise, ridges=RIDGES[::2]).error[0])
    return float(np.log(errors[0] / errors[1]))


def label_noise(kernels: ArrayLike, x: ArrayLike, y: ArrayLike) -> float:
    """Variance of the label noise relative to the clean target's, as :func:`forecast_gain` takes it.

    Of a linear read-out of the layer the ridge of highest evidence says just that.

    Args:
        kernels: impulse responses (H, L).
        x, y: as for :func:`compare_starts`, (P, L) or (P, L, D).

    >>> rng = np.random.default_rng(0)
    >>> x, kernel = rng.normal(size=(400, 16)), 0.7 ** np.arange(16)
    >>> clean = x @ kernel[::-1] / np.linalg.norm(kernel)
    >>> [0.5 * v < label_noise(kernel, x, clean + v**0.5 * rng.normal(size=400)) < 2 * v for v in (0.1, 1.0)]
    [True, True]
    """
    rows = np.atleast_2d(_checks.real_array("kernels", kernels, ndim=(1, 2), what="(H, L)"))
    inputs = check_inputs(x)  # (P L D)
    if inputs.shape[1] != rows.shape[1]:
        raise ValueError(f"x must have the kernels' length {rows.shape[1]}, got shape {inputs.shape}")
    features = np.einsum("pld,lm->pdm", inputs, feature_root(layer_matrix(rows))).reshape(len(inputs), -1)
    path = ridge_path(features - features.mean(axis=0), standardise_targets(y, len(inputs)))
    return float(path.ridges[path.best])


def _log_powers(kernels: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Logarithm of each channel's mean output power on every input channel (P, H D), standardised.

    The first quarter is left out: there all filters ring from the sudden beginning of the sequence, which in a band
    far quieter than the rest of the input drowns everything.
    """
    length = inputs.shape[1]
    padded = scipy.fft.next_fast_len(2 * length, real=True)
    response = scipy.fft.rfft(kernels, n=padded)[:, :, None]  # (H F 1)
    slab = max(1, CHUNK // (padded * len(kernels) * inputs.shape[2]))
    power = []
    for first in range(0, len(inputs), slab):
        part = inputs[first : first + slab]
        spectra = scipy.fft.rfft(part - part.mean(axis=1, keepdims=True), n=padded, axis=1)  # (P F D)
        output = scipy.fft.irfft(response * spectra[:, None], n=padded, axis=2)[:, :, length // 4 : length]
        power.append((output**2).mean(axis=2))  # (P H D)
    powers = np.concatenate(power)
    logs = np.log(np.maximum(powers, 1e-12 * powers.max())).reshape(len(inputs), -1)
    return (logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-12)

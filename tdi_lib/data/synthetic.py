"""Tasks whose truth is known: colored inputs, targets that listen to one band, tones of random phase."""

import math

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike

from tdi_lib.samples import one_of, positive_int, real_array, real_number

__all__ = [
    "SHARPNESS",
    "TONES",
    "autocovariance",
    "band_functionals",
    "four_tones",
    "sharpness_task",
    "tone_noise_power",
]

SHARPNESS = ("lines", "hump", "event", "chirps")
"""Kinds of :func:`sharpness_task`."""

TONES = (2.25, 2.35, 2.45, 2.55)
"""Frequencies of :func:`four_tones`, rad/sample: one per class, four bins apart at 256 steps."""


def autocovariance(beta: float, length: int) -> np.ndarray:
    r"""Lags 0 .. L-1 of an input with unit variance and power spectrum :math:`\propto (|\omega| + 0.2)^{-\beta}`.

    White for :math:`\beta = 0`, red for 1, very red for 2.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> autocovariance(0, 4).round(6) + 0.0
    array([1., 0., 0., 0.])
    """
    beta = real_number("beta", beta)
    length = positive_int("length", length)
    omega = 2 * np.pi * np.fft.rfftfreq(max(4096, 4 * length))
    r = np.fft.irfft((omega + 0.2) ** -beta)[:length]
    return r / r[0]


def band_functionals(
    center: float, r: ArrayLike, count: int, *, generator: np.random.Generator, width: float = 0.15
) -> np.ndarray:
    r"""Weights w (count, L) of linear targets :math:`w^\top u` that listen to one band; their variance is one.

    The power response is :math:`|W(\omega)|^2 \propto e^{-(\omega - c)^2 / 2 b^2}`, phases are random: nobody can
    know more about such a w than its spectrum.

    Args:
        center: c, rad/sample, in [0, pi].
        r: autocovariance of the input (L,), from :func:`autocovariance`; L even.
        count: how many.
        generator: source of the phases.
        width: b, rad/sample.

    Raises:
        TypeError, ValueError: naming the argument, for an odd length too.

    >>> r = autocovariance(1, 64)
    >>> w = band_functionals(1.2, r, 2, generator=np.random.default_rng(0))
    >>> (w @ scipy.linalg.toeplitz(r) * w).sum(axis=1).round(9)
    array([1., 1.])
    """
    center = real_number("center", center, low=0.0, high=math.pi)
    width = real_number("width", width, low=1e-6)
    count = positive_int("count", count)
    lags = real_array("r", r, ndim=(1,), what="autocovariance (L,)")
    if lags.size % 2:
        raise ValueError(f"r must have an even length, got {lags.size}")
    omega = 2 * np.pi * np.fft.rfftfreq(lags.size)
    phase = np.exp(2j * np.pi * generator.random((count, omega.size)))
    w = np.fft.irfft(np.exp(-((omega - center) ** 2) / (4 * width**2)) * phase, n=lags.size)
    power = (w.T * scipy.linalg.matmul_toeplitz(lags, w.T)).sum(0)
    return w / np.sqrt(power)[:, None]


def four_tones(
    n_samples: int, *, amplitude: float, generator: np.random.Generator, length: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    r"""Classify a tone of random phase in red noise: second order, blind to every linear functional.

    The noise has unit variance and power :math:`\propto 1/(|\omega| + 0.01)`; class k is the tone :data:`TONES` [k].

    Args:
        n_samples: P; classes are balanced and shuffled.
        amplitude: of the tone; the noise's standard deviation is one.
        generator: source of everything random.
        length: time steps L.

    Returns:
        sequences (P, L), labels (P,).

    Raises:
        TypeError, ValueError: naming the argument.

    >>> x, y = four_tones(8, amplitude=0.25, generator=np.random.default_rng(0))
    >>> x.shape, np.bincount(y)
    ((8, 256), array([2, 2, 2, 2]))
    """
    n_samples = positive_int("n_samples", n_samples)
    amplitude = real_number("amplitude", amplitude, low=0.0)
    length = positive_int("length", length)
    labels = generator.permutation(np.arange(n_samples) % len(TONES))
    period = 4 * length  # a stretch of a longer period does not wrap around
    root = np.sqrt(tone_noise_power(2 * np.pi * np.fft.rfftfreq(period)))
    white = np.fft.rfft(generator.standard_normal((n_samples, period)))
    noise = np.fft.irfft(white * root, n=period)[:, :length]
    phase = 2 * np.pi * generator.random((n_samples, 1))
    tones = np.cos(np.asarray(TONES)[labels][:, None] * np.arange(length) + phase)
    return noise + amplitude * tones, labels


def tone_noise_power(omega: ArrayLike) -> np.ndarray:
    r"""Power spectrum of the noise of :func:`four_tones`; its mean over [0, pi] is the variance, one.

    >>> omega = np.linspace(0, np.pi, 100_001)
    >>> round(float(tone_noise_power(omega).mean()), 2)
    1.0
    """
    grid = 2 * np.pi * np.fft.rfftfreq(2**16)
    return 1 / (np.abs(omega) + 0.01) / np.mean(1 / (grid + 0.01))


def sharpness_task(
    kind: str, n_samples: int, *, generator: np.random.Generator, length: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    r"""Two classes in white noise of unit variance that are told apart by filters of one width best.

    - ``lines``: a tone of random phase and amplitude 1/2, in neighboring bins of the DFT: narrow filters;
    - ``hump``: noise that is up to twice as strong in a band of half-width 0.3 rad/sample in one class: wide ones;
    - ``chirps``: tones of amplitude 1/2 that sweep 0.4 rad/sample, up or down, 0.3 rad/sample apart: in between;
    - ``event``: a wave packet of either sign, at one time that lies nearly half of the sequence back: first order, and
      filters that remember so long.

    Args:
        kind: one of :data:`SHARPNESS`.
        n_samples: P; classes are balanced and shuffled.
        generator: source of everything random.
        length: time steps L, at least 64.

    Returns:
        sequences (P, L), labels (P,), 0 or 1.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> x, y = sharpness_task("lines", 8, generator=np.random.default_rng(0))
    >>> x.shape, np.bincount(y)
    ((8, 256), array([4, 4]))
    """
    kind = one_of("kind", kind, SHARPNESS)
    n_samples = positive_int("n_samples", n_samples)
    length = positive_int("length", length, minimum=64)
    y = generator.permutation(np.arange(n_samples) % 2)[:, None]  # (P 1)
    time = np.arange(length)
    if kind == "hump":
        omega = 2 * np.pi * np.fft.rfftfreq(4 * length)  # a stretch of a longer period does not wrap around
        white = np.fft.rfft(generator.standard_normal((n_samples, 4 * length)))
        root = np.sqrt(1 + y * np.exp(-(((omega - 1.5) / 0.3) ** 2) / 2))
        return np.fft.irfft(white * root, n=4 * length)[:, :length], y[:, 0]
    noise = generator.standard_normal((n_samples, length))
    if kind == "event":
        late = time - (length - 1 - 120 * length // 256)
        return noise + (2 * y - 1) * np.exp(-((late / 6) ** 2) / 2) * np.cos(1.2 * late), y[:, 0]
    if kind == "lines":
        omega = 2 * np.pi / length * (60 * length // 256 + y) + 0 * time  # (P L)
    else:
        up = generator.integers(2, size=(n_samples, 1))
        omega = 1.0 + 0.3 * y + 0.4 * np.where(up, time, length - time) / length
    phase = 2 * np.pi * generator.random((n_samples, 1))
    return noise + 0.5 * np.cos(np.cumsum(omega, axis=1) + phase), y[:, 0]

r"""Chapter 08's contest: frozen kernels compete on the same training sets of a task whose truth is known.

Inputs are Gaussian sequences of 128 steps, white, red or very red. The label is a linear functional of the input plus
noise, :math:`y = w^\top u + \varepsilon`; w has a given power response and random phases, and the clean label has
variance one. A learner is a root B of :math:`G = \sum_h T_h^\top T_h = B B^\top`: ridge regression on ``x @ B``.

Where a class is the loudness of a band no linear read-out sees it; there the learner has the log energies of the
channels' outputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from numpy.typing import ArrayLike

from tdi_lib.data.synthetic import autocovariance
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
from tdi_lib.ssm import seeded_ssm
from tdi_lib.study.analysis import paired_difference, sample_efficiency
from tdi_lib.tdi import match_power_spectrum_
from tdi_lib.theory import RIDGES, evidence_curve, feature_root, layer_matrix, ridge_path

__all__ = [
    "CHANNELS",
    "ESTIMATORS",
    "INPUTS",
    "LAYERS",
    "LENGTH",
    "OMEGA",
    "Contest",
    "Samples",
    "band_power",
    "begins_to_pay",
    "class_error",
    "collect",
    "default_kernels",
    "draw_from",
    "draw_samples",
    "efficiency_interval",
    "forecast_error",
    "input_covariance",
    "learner",
    "loudness",
    "loudness_task",
    "matched_kernels",
    "prior_spectrum",
    "ridge_errors",
    "samples_until",
    "spectrum_of",
    "stationary_matrix",
]

LENGTH, CHANNELS = 128, 32
LAYERS = 8
"""Layers of each kind that are drawn; training set number k meets layer k modulo this."""
INPUTS = {"white": 0, "red": 1, "very red": 2}
"""Exponents of the input's power spectrum, see :func:`tdi_lib.data.synthetic.autocovariance`."""
ESTIMATORS = ("input", "cross", "wiener", "shrunk", "auto")
OMEGA = np.pi * np.arange(LENGTH // 2 + 1) / (LENGTH // 2)


class Samples(NamedTuple):
    """Inputs (P, L), noisy labels (P,) and the functional w (L,) behind them."""

    x: np.ndarray
    y: np.ndarray
    w: np.ndarray


# ---- tasks ---------------------------------------------------------------------------------------


@cache
def input_covariance(color: str) -> np.ndarray:
    """Of an input of unit variance (L, L)."""
    return scipy.linalg.toeplitz(autocovariance(INPUTS[color], LENGTH))


@cache
def _input_root(color: str) -> np.ndarray:
    return np.linalg.cholesky(input_covariance(color))


def band_power(center: float, width: float = 0.15) -> np.ndarray:
    """Power response ``|W|²`` (F,) of a task that listens around a center, rad/sample.

    >>> round(float(OMEGA[band_power(1.2).argmax()]), 1)
    1.2
    """
    return np.exp(-((OMEGA - center) ** 2) / (2 * width**2))


def stationary_matrix(power: np.ndarray) -> np.ndarray:
    """The circulant matrix (L, L) with these eigenvalues (L/2 + 1,) on [0, pi]: G of a circular filter, or a prior.

    >>> stationary_matrix(np.ones(3)).round(9) + 0.0
    array([[1., 0., 0., 0.],
           [0., 1., 0., 0.],
           [0., 0., 1., 0.],
           [0., 0., 0., 1.]])
    """
    return scipy.linalg.circulant(np.fft.irfft(power, n=2 * (power.size - 1)))


def draw_samples(color: str, power: np.ndarray, n: int, noise: float, rng: np.random.Generator) -> Samples:
    """Samples of a functional with a power response (F,) and random phases; noise is its standard deviation.

    >>> x, y, w = draw_samples("red", band_power(1.2), 16, 0.3, np.random.default_rng(0))
    >>> x.shape, y.shape, round(float(w @ input_covariance("red") @ w), 9)
    ((16, 128), (16,), 1.0)
    """
    w = np.fft.irfft(np.sqrt(power) * np.exp(2j * np.pi * rng.random(OMEGA.size)), n=LENGTH)
    return _labeled(w, color, n, noise, rng)


def draw_from(root: np.ndarray, color: str, n: int, noise: float, rng: np.random.Generator) -> Samples:
    """The same with a functional drawn from a prior root rootᵀ."""
    return _labeled(root @ rng.standard_normal(LENGTH), color, n, noise, rng)


def _labeled(w: np.ndarray, color: str, n: int, noise: float, rng: np.random.Generator) -> Samples:
    w = w / np.sqrt(w @ input_covariance(color) @ w)
    x = rng.standard_normal((n, LENGTH)) @ _input_root(color).T
    return Samples(x, x @ w + noise * rng.standard_normal(n), w)


@cache
def _raise(width: float, center: float, clarity: float) -> np.ndarray:
    """How much louder the second class is, on a grid four times finer than the DFT's (2L + 1,)."""
    shape = np.exp(-(((np.linspace(0, np.pi, 2 * LENGTH + 1) - center) / width) ** 2) / 2)
    excess = lambda level: (np.log1p(np.exp(level) * shape) ** 2).sum() / 4 - clarity  # noqa: E731
    return np.asarray(np.exp(scipy.optimize.brentq(excess, -10, 30)) * shape)


def loudness_task(
    width: float, n: int, rng: np.random.Generator, *, center: float = 1.2, clarity: float = 7.0
) -> tuple[np.ndarray, np.ndarray]:
    r"""White noise (n, L) that is louder around a center in the second of two classes (n,): a second-order task.

    Power is :math:`1 + a e^{-(\omega - c)^2/2b^2}` with the width b, and a such that the squared difference of the
    classes' log powers, summed over the DFT's frequencies, is the ``clarity``: nearly as easy at every width for one
    who knows the band.

    >>> x, y = loudness_task(0.1, 6, np.random.default_rng(0))
    >>> x.shape, np.bincount(y)
    ((6, 128), array([3, 3]))
    """
    y = rng.permutation(np.arange(n) % 2)
    white = np.fft.rfft(rng.standard_normal((n, 4 * LENGTH)))  # a stretch of a longer period does not wrap around
    root = np.sqrt(1 + y[:, None] * _raise(width, center, clarity))
    return np.fft.irfft(white * root, n=4 * LENGTH)[:, :LENGTH], y


def spectrum_of(power: np.ndarray, color: str) -> TaskSpectrum:
    """The true spectrum of a task."""
    s_u = (OMEGA + 0.2) ** -INPUTS[color]
    return TaskSpectrum(OMEGA, power / power.mean(), s_u / s_u.mean(), "true", 1_000_000)


def prior_spectrum(prior: np.ndarray) -> np.ndarray:
    """The mean power response (F,) of functionals w ~ N(0, prior)."""
    dft = np.fft.rfft(np.eye(LENGTH))
    return np.einsum("fi,ij,fj->f", dft.T.conj(), prior, dft.T).real.clip(0) / LENGTH


# ---- learners ------------------------------------------------------------------------------------


def default_kernels(layer_seed: int) -> np.ndarray:
    """Kernels (H, L) of S4D-Lin with state size 64."""
    return seeded_ssm(CHANNELS, 64, seed=layer_seed).kernel(LENGTH).numpy()


def matched_kernels(spectrum: TaskSpectrum, layer_seed: int, length: int = LENGTH) -> np.ndarray:
    """Kernels (H, length) of a layer of state size 8, matched to a spectrum."""
    ssm = seeded_ssm(CHANNELS, 8, seed=layer_seed)
    match_power_spectrum_(ssm, spectrum, generator=torch.Generator().manual_seed(layer_seed))
    return ssm.kernel(length).numpy()


def learner(kernels: np.ndarray) -> np.ndarray:
    """The layer as a learner sees it: a root of G = B Bᵀ (L, L). The columns of x B are its features."""
    return feature_root(layer_matrix(kernels, LENGTH))


def ridge_errors(root: np.ndarray, x: np.ndarray, y: np.ndarray, w: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    r"""Kernel ridge regression with G = root rootᵀ and its exact error :math:`(\hat w - w)^\top \Sigma (\hat w - w)`.

    Returns:
        in one row the error with the ridge of highest evidence, with that of least leave-one-out error, this
        leave-one-out error, the evidence's noise-to-signal ratio λ/E K(u, u), then the error for each of
        :data:`tdi_lib.theory.RIDGES`.
    """
    path = ridge_path(x @ root, y)
    miss = root @ path.weights[:, :, 0].T - w[:, None]  # (L ridges)
    error = (miss * (covariance @ miss)).sum(0)
    loo = path.left_out.argmin()
    return np.r_[error[path.best], error[loo], path.left_out[loo], RIDGES[path.best], error]


def loudness(kernels: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Log energies (P, H) of the outputs of kernels (H, L) on inputs (P, L).

    >>> loudness(np.eye(2, 4), np.array([[1.0, 1.0, 1.0, 1.0]])).round(2)
    array([[1.39, 1.1 ]])
    """
    length = x.shape[1]
    spectra = np.fft.rfft(x, n=2 * length)
    outputs = (np.fft.irfft(spectra * np.fft.rfft(k, n=2 * length))[:, :length] for k in kernels)
    return np.log(np.stack([(each**2).sum(axis=1) for each in outputs], axis=1))


def class_error(train: np.ndarray, y: np.ndarray, fresh: np.ndarray, y_fresh: np.ndarray) -> float:
    """Share of fresh samples (Q, F) that ridge regression on samples (P, F) of two classes (P,) gets wrong.

    Features are standardized by the samples; the ridge is that of highest evidence.

    >>> features = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    >>> class_error(features, np.array([0, 0, 1, 1]), np.array([[-3.0], [3.0]]), np.array([0, 0]))
    0.5
    """
    mean, scale = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-12)
    path = ridge_path((train - mean) / scale, y - y.mean())
    score = (fresh - mean) / scale @ path.weights[path.best, :, 0] + y.mean()
    return float(((score > 0.5) != y_fresh).mean())


def forecast_error(root: np.ndarray, covariance: np.ndarray, prior: np.ndarray, n: int, noise: float) -> float:
    """The error that theory expects of a learner for targets w ~ N(0, prior), its ridge chosen by evidence.

    See :func:`tdi_lib.theory.evidence_curve`; the clean label has variance one.
    """
    input_root = feature_root(covariance)
    v, s, _ = np.linalg.svd(input_root.T @ root)
    eta, to_modes = s**2 / np.sum(s**2), (input_root @ v).T
    power = np.einsum("ij,jk,ik->i", to_modes, prior, to_modes)
    curve = evidence_curve(eta, power / power.sum(), n, noise=noise**2, ridges=RIDGES[::2])
    return float(curve.error[0])


class Contest:
    """Learners that meet on the same training sets.

    Names: ``S4D-Lin``; ``no filter`` (G = I); ``flat``, matched to the input's spectrum alone, as 1,024 unlabeled
    sequences show it; one of ``ESTIMATORS``, a layer matched to what that estimator finds in the training set;
    ``oracle``, matched to the truth. With ``ideal`` before it a name is the stationary kernel of that spectrum.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.defaults = [learner(default_kernels(k)) for k in range(LAYERS)]
        self._flats: dict[str, list[np.ndarray]] = {}
        self._oracles: dict[tuple[str, bytes, int], np.ndarray] = {}

    def flat(self, color: str, k: int) -> np.ndarray:
        """The flat bank number k."""
        if color not in self._flats:
            inputs = np.random.default_rng([self.seed, 1]).standard_normal((1024, LENGTH)) @ _input_root(color).T
            spectrum = estimate_task_spectrum(inputs, method="flat")
            self._flats[color] = [learner(matched_kernels(spectrum, k)) for k in range(LAYERS)]
        return self._flats[color][k]

    def oracle(self, color: str, power: np.ndarray, k: int) -> np.ndarray:
        """The layer matched to the true spectrum, kept: it needs no samples."""
        key = color, power.tobytes(), k
        if key not in self._oracles:
            self._oracles[key] = learner(matched_kernels(spectrum_of(power, color), k))
        return self._oracles[key]

    def root(
        self,
        name: str,
        color: str,
        k: int,
        power: np.ndarray | None = None,
        estimate: TaskSpectrum | None = None,
    ) -> np.ndarray:
        """The learner (L, L) of a name, its layer number k; see :meth:`run` for the rest."""
        if name == "S4D-Lin":
            return self.defaults[k]
        if name == "no filter":
            return np.eye(LENGTH)
        if name == "flat":
            return self.flat(color, k)
        ideal, _, which = name.rpartition(" ")
        if ideal not in ("", "ideal") or which not in (*ESTIMATORS, "oracle"):
            raise ValueError(f"names must be known contestants, got {name!r}")
        if which == "oracle":
            if power is None:
                raise ValueError(f"power must be given for {name!r}")
            return stationary_matrix(np.sqrt(power)) if ideal else self.oracle(color, power, k)
        if estimate is None:
            raise ValueError(f"estimate must be given for {name!r}")
        return stationary_matrix(np.sqrt(estimate.power)) if ideal else learner(matched_kernels(estimate, k))

    def run(
        self,
        data: Samples,
        color: str,
        names: Iterable[str],
        draw: int,
        power: np.ndarray | None = None,
        estimate_from: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """What :func:`ridge_errors` says of each name.

        Args:
            data: the training set.
            color: of the input.
            names: who competes.
            draw: number of the training set.
            power: true power response (F,); the oracles ask for it.
            estimate_from: other samples (x, y) to estimate spectra from.

        Raises:
            ValueError: naming what nobody knows, or an oracle without a truth.
        """
        spectra: dict[str, TaskSpectrum] = {}
        results = {}
        for name in names:
            which = name.rpartition(" ")[2]
            if which in ESTIMATORS and which not in spectra:
                spectra[which] = estimate_task_spectrum(*(estimate_from or data[:2]), method=which)
            root = self.root(name, color, draw % LAYERS, power, spectra.get(which))
            results[name] = ridge_errors(root, *data, input_covariance(color))
        return results

    def repeat(
        self,
        color: str,
        power: np.ndarray,
        names: Iterable[str],
        draws: int,
        key: int,
        *,
        n: int = 64,
        noise: float = 0.3,
        oracle_power: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Contests on ``draws`` training sets, number d drawn with the seed (seed, key, d); one row each.

        ``oracle_power`` is what the oracles are matched to, the truth by default.
        """
        names, runs = list(names), []
        for draw in range(draws):
            data = draw_samples(color, power, n, noise, np.random.default_rng([self.seed, key, draw]))
            runs.append(self.run(data, color, names, draw, power if oracle_power is None else oracle_power))
        return collect(runs)


def efficiency_interval(
    sizes: np.ndarray,
    curves: np.ndarray,
    ours: np.ndarray,
    at: int,
    rng: np.random.Generator,
    resamples: int = 300,
) -> np.ndarray:
    """Times as many samples as ``at`` that the base needs for our mean error, with a 95 % interval (3,).

    Training sets are resampled, the base's together at all sizes. Beyond the largest size there is a lower bound only.

    Args:
        sizes: of the base's training sets (S,).
        curves: its errors (S, draws).
        ours: errors with ``at`` samples (draws,).
    """
    drawn = [sample_efficiency(sizes, curves.mean(1), ours.mean(), at)]
    for _ in range(resamples):
        p, q = (rng.integers(0, count, count) for count in (curves.shape[1], ours.size))
        drawn.append(sample_efficiency(sizes, curves[:, p].mean(1), ours[q].mean(), at))
    ends = np.quantile(drawn[1:], [0.025, 0.975], method="nearest")
    return np.minimum([drawn[0], *ends], sizes[-1] / at)


def begins_to_pay(sizes: Sequence[int], base: Sequence[np.ndarray], ours: Sequence[np.ndarray]) -> float:
    """The size from which on our errors are below the base's, 95 % intervals of the logarithms included; else inf.

    >>> base, noise = np.full(8, 1.0), np.linspace(-0.1, 0.1, 8)
    >>> begins_to_pay([8, 16, 32], [base] * 3, [base + noise, base / 2 + noise, base / 4 + noise])
    16
    """
    begin = np.inf
    for size, theirs, errors in zip(reversed(sizes), reversed(base), reversed(ours), strict=True):
        if paired_difference(np.log(theirs), np.log(errors)).high >= 0:
            break
        begin = size
    return begin


def samples_until(sizes: Sequence[int], ratio: ArrayLike, condition: float) -> float:
    """Where, in log P, a ratio of errors that has passed its peak has come down to a condition.

    >>> round(samples_until([8, 16, 32, 64], [2.0, 4.0, 2.0, 1.0], 2.0))
    32
    """
    excess = np.log(ratio)
    peak = int(np.argmax(excess))
    lowest = np.minimum.accumulate(excess[peak:])
    return float(np.exp(np.interp(-np.log(condition), -lowest, np.log(sizes[peak:]))))


def collect(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """From a list of contests to one array (draws, ...) for each name.

    >>> collect([{"a": np.array([1, 2])}, {"a": np.array([3, 4])}])["a"].shape
    (2, 2)
    """
    return {name: np.array([run[name] for run in runs]) for name in runs[0]}

r"""Chapter 08's contest: frozen kernels compete on the same training sets of a task whose truth is known.

Inputs are Gaussian sequences of 128 steps, white, red or very red. The label is a linear functional of the input plus
noise, :math:`y = w^\top u + \varepsilon`; w has a given power response and random phases, and the clean label has
variance one. A learner is a root B of :math:`G = \sum_h T_h^\top T_h = B B^\top`: ridge regression on ``x @ B``.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch

from tdi_lib.data.synthetic import autocovariance
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
from tdi_lib.ssm import seeded_ssm
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
    "collect",
    "default_kernels",
    "draw_from",
    "draw_samples",
    "forecast_error",
    "input_covariance",
    "learner",
    "matched_kernels",
    "prior_spectrum",
    "ridge_errors",
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
def input_covariance(colour: str) -> np.ndarray:
    """Of an input of unit variance (L, L)."""
    return scipy.linalg.toeplitz(autocovariance(INPUTS[colour], LENGTH))


@cache
def _input_root(colour: str) -> np.ndarray:
    return np.linalg.cholesky(input_covariance(colour))


def band_power(centre: float, width: float = 0.15) -> np.ndarray:
    """Power response |W|² (F,) of a task that listens around a centre, rad/sample.

    >>> round(float(OMEGA[band_power(1.2).argmax()]), 1)
    1.2
    """
    return np.exp(-((OMEGA - centre) ** 2) / (2 * width**2))


def stationary_matrix(power: np.ndarray) -> np.ndarray:
    """The circulant matrix (L, L) with these eigenvalues (L/2 + 1,) on [0, pi]: G of a circular filter, or a prior.

    >>> stationary_matrix(np.ones(3)).round(9) + 0.0
    array([[1., 0., 0., 0.],
           [0., 1., 0., 0.],
           [0., 0., 1., 0.],
           [0., 0., 0., 1.]])
    """
    return scipy.linalg.circulant(np.fft.irfft(power, n=2 * (power.size - 1)))


def draw_samples(colour: str, power: np.ndarray, n: int, noise: float, rng: np.random.Generator) -> Samples:
    """Samples of a functional with a power response (F,) and random phases; noise is its standard deviation.

    >>> x, y, w = draw_samples("red", band_power(1.2), 16, 0.3, np.random.default_rng(0))
    >>> x.shape, y.shape, round(float(w @ input_covariance("red") @ w), 9)
    ((16, 128), (16,), 1.0)
    """
    w = np.fft.irfft(np.sqrt(power) * np.exp(2j * np.pi * rng.random(OMEGA.size)), n=LENGTH)
    return _labelled(w, colour, n, noise, rng)


def draw_from(root: np.ndarray, colour: str, n: int, noise: float, rng: np.random.Generator) -> Samples:
    """The same with a functional drawn from a prior root rootᵀ."""
    return _labelled(root @ rng.standard_normal(LENGTH), colour, n, noise, rng)


def _labelled(w: np.ndarray, colour: str, n: int, noise: float, rng: np.random.Generator) -> Samples:
    w = w / np.sqrt(w @ input_covariance(colour) @ w)
    x = rng.standard_normal((n, LENGTH)) @ _input_root(colour).T
    return Samples(x, x @ w + noise * rng.standard_normal(n), w)


def spectrum_of(power: np.ndarray, colour: str) -> TaskSpectrum:
    """The true spectrum of a task."""
    s_u = (OMEGA + 0.2) ** -INPUTS[colour]
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

    Names: ``S4D-Lin``; ``no filter`` (G = I); ``flat``, matched to the input's spectrum alone, as 1,024 unlabelled
    sequences show it; one of :data:`ESTIMATORS`, a layer matched to what that estimator finds in the training set;
    ``oracle``, matched to the truth. With ``ideal`` before it a name is the stationary kernel of that spectrum.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.defaults = [learner(default_kernels(k)) for k in range(LAYERS)]
        self._flats: dict[str, list[np.ndarray]] = {}
        self._oracles: dict[tuple[str, bytes, int], np.ndarray] = {}

    def flat(self, colour: str, k: int) -> np.ndarray:
        """The flat bank number k."""
        if colour not in self._flats:
            inputs = np.random.default_rng([self.seed, 1]).standard_normal((1024, LENGTH)) @ _input_root(colour).T
            spectrum = estimate_task_spectrum(inputs, method="flat")
            self._flats[colour] = [learner(matched_kernels(spectrum, k)) for k in range(LAYERS)]
        return self._flats[colour][k]

    def oracle(self, colour: str, power: np.ndarray, k: int) -> np.ndarray:
        """The layer matched to the true spectrum, kept: it needs no samples."""
        key = colour, power.tobytes(), k
        if key not in self._oracles:
            self._oracles[key] = learner(matched_kernels(spectrum_of(power, colour), k))
        return self._oracles[key]

    def run(
        self,
        data: Samples,
        colour: str,
        names: Iterable[str],
        draw: int,
        power: np.ndarray | None = None,
        estimate_from: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """What :func:`ridge_errors` says of each name.

        Args:
            data: the training set.
            colour: of the input.
            names: who competes.
            draw: number of the training set.
            power: true power response (F,); the oracles ask for it.
            estimate_from: other samples (x, y) to estimate spectra from.

        Raises:
            ValueError: naming what nobody knows, or an oracle without a truth.
        """
        k, roots = draw % LAYERS, dict[str, np.ndarray]()
        spectra: dict[str, TaskSpectrum] = {}
        for name in names:
            ideal, _, which = name.rpartition(" ")
            if which in ESTIMATORS and which not in spectra:
                spectra[which] = estimate_task_spectrum(*(estimate_from or data[:2]), method=which)
            if name == "S4D-Lin":
                roots[name] = self.defaults[k]
            elif name == "no filter":
                roots[name] = np.eye(LENGTH)
            elif name == "flat":
                roots[name] = self.flat(colour, k)
            elif ideal not in ("", "ideal") or which not in (*ESTIMATORS, "oracle"):
                raise ValueError(f"names must be known contestants, got {name!r}")
            elif which in spectra:
                root = stationary_matrix(np.sqrt(spectra[which].power)) if ideal else None
                roots[name] = learner(matched_kernels(spectra[which], k)) if root is None else root
            elif power is None:
                raise ValueError(f"power must be given for {name!r}")
            else:
                roots[name] = stationary_matrix(np.sqrt(power)) if ideal else self.oracle(colour, power, k)
        return {name: ridge_errors(root, *data, input_covariance(colour)) for name, root in roots.items()}


def collect(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """From a list of contests to one array (draws, ...) for each name.

    >>> collect([{"a": np.array([1, 2])}, {"a": np.array([3, 4])}])["a"].shape
    (2, 2)
    """
    return {name: np.array([run[name] for run in runs]) for name in runs[0]}

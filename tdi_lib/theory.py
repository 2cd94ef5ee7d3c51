r"""What an SSM's kernel implies for learning: the induced kernel, the Toeplitz spectrum, learning curves.

Everything here is float64 numpy: theory is checked to machine precision, and its formulas hold for any convolution
kernel ``k`` (L,), whether an SSM made it or not. :math:`T` is the L x L lower-triangular Toeplitz matrix of ``k``,
:math:`H_L(\omega_j)` its DFT.
"""

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import ArrayLike

from tdi_lib import _checks

__all__ = [
    "LearningCurve",
    "ToeplitzComparison",
    "compare_toeplitz",
    "learning_curve",
    "mean_energy_delay",
    "ssm_kernel",
    "toeplitz_matrix",
    "toeplitz_singular_values",
]


def _kernel_array(kernel: ArrayLike) -> np.ndarray:
    kernel = _checks.real_array("kernel", kernel, ndim=(1,), what="one impulse response (L,)")
    if not kernel.any():
        raise ValueError("kernel must not be all zero: its spectrum has no shape")
    return kernel


def toeplitz_matrix(kernel: ArrayLike) -> np.ndarray:
    """The causal convolution by ``kernel`` (L,) as a dense lower-triangular matrix T (L, L).

    >>> toeplitz_matrix([1.0, 2.0, 3.0])
    array([[1., 0., 0.],
           [2., 1., 0.],
           [3., 2., 1.]])
    """
    kernel = _kernel_array(kernel)
    return scipy.linalg.toeplitz(kernel, np.zeros_like(kernel))


def toeplitz_singular_values(kernel: ArrayLike) -> np.ndarray:
    """Singular values of :func:`toeplitz_matrix`, descending (L,). Dense, O(L^3).

    Reversing the rows of T gives a symmetric (Hankel) matrix with the same singular values, so a symmetric eigenvalue
    solver, about three times faster than an SVD, is enough.

    >>> toeplitz_singular_values([1.0, 0.0, 0.0])
    array([1., 1., 1.])
    """
    hankel = toeplitz_matrix(kernel)[::-1]
    return np.sort(np.abs(scipy.linalg.eigvalsh(hankel)))[::-1]


def mean_energy_delay(kernel: ArrayLike) -> float:
    r"""The kernel's memory :math:`\tau = \sum_m m k_m^2 / \sum_m k_m^2`, in samples.

    >>> mean_energy_delay([0.0, 0.0, 5.0])
    2.0
    """
    kernel = _kernel_array(kernel)
    return float(np.arange(kernel.size) @ kernel**2 / (kernel @ kernel))


@dataclasses.dataclass(frozen=True)
class ToeplitzComparison:
    r"""Singular values of T beside the sampled response.

    Attributes:
        singular_values: of T, descending (L,).
        response: :math:`|H_L(\omega_j)|` on the DFT grid, descending (L,).
        distance: :math:`\sqrt{\sum_j (s_j - |H_L(\omega_j)|)^2 / \sum_j |H_L(\omega_j)|^2}`.
        bound: :math:`\sqrt{\tau/L}`, which the distance never exceeds.
    """

    singular_values: np.ndarray
    response: np.ndarray
    distance: float
    bound: float


def compare_toeplitz(kernel: ArrayLike) -> ToeplitzComparison:
    r"""Measure the finite-L Toeplitz spectrum theorem on one kernel (L,).

    The circulant C with first column ``kernel`` has singular values exactly :math:`|H_L(\omega_j)|`, and
    :math:`\|C - T\|_F^2 = \sum_m m k_m^2`; Mirsky's inequality for sorted singular values gives the bound.

    >>> result = compare_toeplitz(0.9 ** np.arange(64))
    >>> bool(0 < result.distance <= result.bound)
    True
    """
    kernel = _kernel_array(kernel)
    singular_values = toeplitz_singular_values(kernel)
    response = np.sort(np.abs(np.fft.fft(kernel)))[::-1]
    distance = np.linalg.norm(singular_values - response) / np.linalg.norm(response)
    bound = np.sqrt(mean_energy_delay(kernel) / kernel.size)
    return ToeplitzComparison(singular_values, response, float(distance), float(bound))


def ssm_kernel(kernels: ArrayLike, u: ArrayLike, v: ArrayLike | None = None) -> np.ndarray:
    r"""Gram matrix of the kernel an SSM layer induces, :math:`K(u, v) = \sum_h u^\top T_h^\top T_h v`.

    It is the kernel of ridge regression on the layer's *whole output sequence*, every channel and time step being a
    feature. Other read-outs, the last step or the mean over time, induce other kernels.

    Args:
        kernels: impulse responses (L,) or (H, L).
        u: inputs (P, L).
        v: inputs (R, L); ``u`` itself if omitted.

    Returns:
        (P, R), float64.

    >>> ssm_kernel([1.0, 0.0], [[3.0, 4.0]])
    array([[25.]])
    """
    kernels = _checks.real_array("kernels", kernels, ndim=(1, 2), what="impulse responses (L,) or (H, L)")
    kernels = np.atleast_2d(kernels)
    length = kernels.shape[1]
    inputs = [_checks.real_array("u", u, ndim=(2,), what="inputs (P, L)")]
    if v is not None:
        inputs.append(_checks.real_array("v", v, ndim=(2,), what="inputs (R, L)"))
    for name, array in zip("uv", inputs, strict=False):
        if array.shape[1] != length:
            raise ValueError(f"{name} must have the kernels' length {length}, got shape {array.shape}")
    spectrum = np.fft.rfft(kernels, n=2 * length)  # (H F)
    features = []
    for array in inputs:
        product = np.fft.rfft(array, n=2 * length)[:, None] * spectrum  # (P H F)
        output = np.fft.irfft(product, n=2 * length)[..., :length]  # (P H L)
        features.append(output.reshape(len(array), -1))
    return features[0] @ features[-1].T


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    r"""Expected generalisation error of kernel regression.

    Attributes:
        n_samples: P (K,).
        error: :math:`E_g` (K,), mean squared error against the noiseless target.
        kappa: effective ridge :math:`\kappa` (K,).
    """

    n_samples: np.ndarray
    error: np.ndarray
    kappa: np.ndarray


def learning_curve(
    eigenvalues: ArrayLike,
    target_power: ArrayLike,
    n_samples: ArrayLike,
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> LearningCurve:
    r"""Learning curve of kernel regression from its spectrum (Bordelon et al. 2002.02561; Canatar et al. 2006.13198).

    .. math::
        \kappa = \lambda + \kappa \sum_\rho \frac{\eta_\rho}{\kappa + P\eta_\rho}, \quad
        \gamma = P \sum_\rho \frac{\eta_\rho^2}{(\kappa + P\eta_\rho)^2}, \quad
        E_g = \frac{1}{1-\gamma}\Bigl[\kappa^2 \sum_\rho \frac{\bar w_\rho^2}{(\kappa + P\eta_\rho)^2} +
        \gamma\sigma^2\Bigr]

    Args:
        eigenvalues: Mercer eigenvalues :math:`\eta` of the kernel under the input law (R,), non-negative.
        target_power: :math:`\bar w_\rho^2` (R,), the target being :math:`\sum_\rho \bar w_\rho \phi_\rho` in the
            orthonormal eigenfunctions :math:`\phi_\rho`.
        n_samples: P, a positive number or several (K,).
        ridge: :math:`\lambda` in :math:`(K + \lambda I)\alpha = y`.
        noise: variance :math:`\sigma^2` of the label noise.

    >>> curve = learning_curve([1.0, 1.0], [1.0, 0.0], [1, 2, 4], ridge=1e-3)
    >>> curve.error.round(3)  # two equal modes: one sample learns half, four learn everything
    array([0.5  , 0.011, 0.   ])
    """
    eta = _checks.real_array("eigenvalues", eigenvalues, ndim=(1,), what="(R,) non-negative")
    power = _checks.real_array("target_power", target_power, ndim=(1,), what="(R,) non-negative")
    samples = np.atleast_1d(_checks.real_array("n_samples", n_samples, ndim=(0, 1), what="sample sizes (K,)"))
    ridge = _checks.real_number("ridge", ridge, low=0.0)
    noise = _checks.real_number("noise", noise, low=0.0)
    for name, array in (("eigenvalues", eta), ("target_power", power)):
        if (array < 0).any():
            raise ValueError(f"{name} must be non-negative, got a minimum of {array.min()}")
    if eta.shape != power.shape:
        raise ValueError(f"target_power must match eigenvalues in shape, got {power.shape} and {eta.shape}")
    if not eta.any():
        raise ValueError("eigenvalues must not be all zero")
    if (samples <= 0).any():
        raise ValueError(f"n_samples must be positive, got {samples.min()}")

    errors, kappas = [], []
    for p in samples:
        kappa = _effective_ridge(eta, p, ridge)
        seen = eta > 0
        gamma = p * np.sum((eta[seen] / (kappa + p * eta[seen])) ** 2)
        unlearned = np.ones_like(eta)  # a mode the kernel does not have is never learned
        unlearned[seen] = kappa / (kappa + p * eta[seen])
        excess = np.sum(power * unlearned**2) + gamma * noise
        # P equal to the rank without ridge: the interpolation peak, infinite unless there is nothing to amplify
        errors.append(excess / (1 - gamma) if gamma < 1 - 1e-12 else excess and np.inf)
        kappas.append(kappa)
    return LearningCurve(samples, np.array(errors), np.array(kappas))


def _effective_ridge(eta: np.ndarray, p: float, ridge: float) -> float:
    """Root of ``kappa = ridge + kappa * sum(eta / (kappa + p eta))``; zero at p above the rank without ridge."""
    if ridge < 1e-100 * eta.sum() and p >= np.count_nonzero(eta):
        return 0.0
    # f(kappa) / kappa decreases to -1: one sign change below `high`; logarithms reach any smaller scale
    excess = lambda t: ridge * np.exp(-t) + np.sum(eta / (np.exp(t) + p * eta)) - 1  # noqa: E731
    high = np.log(ridge + eta.sum())
    low = high
    while excess(low) < 0:
        low -= 4.0
    return float(np.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-13)))

r"""What an SSM's kernel implies for learning: the induced kernel, its spectrum, learning curves.

Everything here is float64 numpy: theory is checked to machine precision, and its formulas hold for any convolution
kernel ``k`` (L,), whether an SSM made it or not. :math:`T` is the L x L lower-triangular Toeplitz matrix of ``k``.
"""

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import ArrayLike
from scipy.sparse.linalg import aslinearoperator

from tdi_lib import _checks
from tdi_lib.toeplitz import convolution_operator, covariance_operator, lanczos_measure, toeplitz_matrix

__all__ = ["KernelSpectrum", "LearningCurve", "kernel_spectrum", "layer_matrix", "learning_curve", "ssm_kernel"]

DENSE_LENGTH = 1024  # up to here a dense eigenvalue problem is a matter of a second


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
    kernels = _kernel_rows(kernels)
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


def layer_matrix(kernels: ArrayLike, length: int | None = None) -> np.ndarray:
    r"""The matrix G (L, L) of a layer, :math:`G = \sum_h T_h^\top T_h`, so that :math:`K(u, v) = u^\top G v`.

    Read it backwards in time and it obeys a recursion: one step earlier in both indices adds one product of the
    kernels. So it costs O(H L^2), without a convolution.

    Args:
        kernels: impulse responses (L,) or (H, L); or (M,), (H, M) with M > ``length``: inputs of ``length`` steps are
            then followed by silence, and the read-out sees all M steps of the output.
        length: steps L of the input; the kernels' own if omitted.

    Raises:
        TypeError, ValueError: naming the argument, for a length beyond the kernels' too.

    >>> kernels = np.array([[1.0, 0.5, 0.25]])
    >>> u = np.array([[1.0, 2.0, 3.0]])
    >>> np.isclose(u @ layer_matrix(kernels) @ u.T, ssm_kernel(kernels, u)).item()
    True
    """
    kernels = _kernel_rows(kernels)
    total = kernels.shape[1]
    length = total if length is None else _checks.positive_int("length", length)
    if length > total:
        raise ValueError(f"length must be at most the kernels' {total}, got {length}")
    G = kernels.T @ kernels
    for row in range(1, total):
        G[row, 1:] += G[row - 1, :-1]
    return np.ascontiguousarray(G[::-1, ::-1][:length, :length])


@dataclasses.dataclass(frozen=True)
class KernelSpectrum:
    r"""Mercer spectrum of an induced kernel: how strongly it responds to each direction of the input law.

    Attributes:
        eigenvalues: :math:`\eta` (R,), descending.
        counts: how many eigenvalues each entry stands for (R,). Ones from the dense path; from the fast path the
            weights of a quadrature, which are no integers. They sum to L.
        target_power: :math:`\bar w^2` of the target that lies at each entry (R,), or None without a target.
        method: ``dense`` or ``fast``.
    """

    eigenvalues: np.ndarray
    counts: np.ndarray
    target_power: np.ndarray | None
    method: str


def kernel_spectrum(
    kernels: ArrayLike,
    covariance: ArrayLike | None = None,
    *,
    target: ArrayLike | None = None,
    method: str = "auto",
    n_probes: int | None = None,
    n_steps: int = 64,
    seed: int = 0,
) -> KernelSpectrum:
    r"""Mercer eigenvalues of the kernel an SSM layer induces, under an input law with the given covariance.

    With :math:`G = \sum_h T_h^\top T_h` and :math:`\Sigma = RR^\top` they are the eigenvalues of :math:`R^\top G R`;
    for one channel the squared singular values of :math:`T\Sigma^{1/2}`. A linear target :math:`w^\top u` has the
    coefficients :math:`\bar w = V^\top R^\top w` in the eigenvectors V.

    ``dense`` computes them all, O(L^3). ``fast`` never forms a matrix: stochastic Lanczos quadrature gives the
    *distribution* of the eigenvalues, and a second Lanczos run, started at the target, how the target is spread over
    it; both as nodes and weights that :func:`learning_curve` takes. O(L log L) per step and some twenty vectors. Two
    errors remain. The probes' is about :math:`\sqrt{2/(n_{probes}\,m)}` where m eigenvalues carry most of a sum. The
    nodes see no detail below about :math:`\eta_1 / n_{steps}^2`: means of functions that are smooth on that scale are
    right, but a learning curve with a weak ridge and many samples asks for the smallest eigenvalues and needs more
    steps (with 64 it can come out a third too low for P > L; 256 bring it to a few per cent).

    Args:
        kernels: impulse responses (L,) or (H, L).
        covariance: None for white input of unit variance; the autocovariance r_0 .. r_{L-1} (L,) of a stationary
            input; or any covariance matrix (L, L).
        target: weights w (L,) of the target.
        method: ``dense``, ``fast``, or ``auto``: dense up to L = 1024.
        n_probes: random vectors of ``fast``; by default enough for 2^14 entries in all.
        n_steps: Lanczos steps per vector, hence nodes.
        seed: of the random vectors.

    Raises:
        TypeError, ValueError: naming the argument: wrong rank or length, NaN, a covariance that is not symmetric
            positive semi-definite, all-zero kernels or target.

    >>> kernel_spectrum([1.0, 0.5], [2.0, 0.0]).eigenvalues.round(3)
    array([3.281, 1.219])
    """
    kernels = _kernel_rows(kernels)
    if not kernels.any():
        raise ValueError("kernels must not be all zero: their spectrum has no shape")
    length = kernels.shape[1]
    sigma = None
    if covariance is not None:
        sigma = _checks.real_array("covariance", covariance, ndim=(1, 2), what="(L,) or (L, L)")
        if sigma.shape not in {(length,), (length, length)}:
            raise ValueError(
                f"covariance must have shape ({length},) or ({length}, {length}) for kernels of length {length}, "
                f"got {sigma.shape}"
            )
        if sigma.ndim == 2 and not np.allclose(sigma, sigma.T, rtol=1e-8, atol=1e-8 * np.abs(sigma).max()):
            raise ValueError("covariance must be symmetric, got a matrix that differs from its transpose")
    if target is not None:
        target = _checks.real_array("target", target, ndim=(1,), what="weights (L,)")
        if target.shape != (length,):
            raise ValueError(f"target must have the kernels' length {length}, got shape {target.shape}")
        if not target.any():
            raise ValueError("target must not be all zero")
    method = _checks.choice("method", method, ("auto", "dense", "fast"))
    if n_probes is not None:
        n_probes = _checks.positive_int("n_probes", n_probes)
    n_steps = min(_checks.positive_int("n_steps", n_steps), length)
    if method == "dense" or (method == "auto" and length <= DENSE_LENGTH):
        return _dense_spectrum(kernels, sigma, target)
    return _fast_spectrum(kernels, sigma, target, n_probes or max(1, 2**14 // length), n_steps, seed)


def _dense_spectrum(kernels: np.ndarray, sigma: np.ndarray | None, target: np.ndarray | None) -> KernelSpectrum:
    length = kernels.shape[1]
    root = np.eye(length)
    if sigma is not None:
        sigma = scipy.linalg.toeplitz(sigma) if sigma.ndim == 1 else (sigma + sigma.T) / 2
        variances, axes = scipy.linalg.eigh(sigma)
        if variances[0] < -1e-8 * variances[-1]:
            raise ValueError(f"covariance must be positive semi-definite, got an eigenvalue {variances[0]:.3g}")
        root = axes * np.sqrt(np.maximum(variances, 0))  # R = Q D
    gram = sum((t := toeplitz_matrix(k)).T @ t for k in kernels if k.any())
    matrix = root.T @ gram @ root
    if target is None:
        eta, power = scipy.linalg.eigvalsh(matrix), None
    else:
        eta, vectors = scipy.linalg.eigh(matrix)
        power = ((root @ vectors).T @ target)[::-1] ** 2
    return KernelSpectrum(np.maximum(eta[::-1], 0), np.ones(length), power, "dense")


def _fast_spectrum(
    kernels: np.ndarray,
    sigma: np.ndarray | None,
    target: np.ndarray | None,
    n_probes: int,
    n_steps: int,
    seed: int,
) -> KernelSpectrum:
    n_channels, length = kernels.shape
    rng = np.random.default_rng(seed)
    filters = convolution_operator(kernels)
    gram = filters.T @ filters
    if sigma is None:
        inputs, operator, surplus = None, gram, 0
    else:
        inputs = covariance_operator(sigma) if sigma.ndim == 1 else aslinearoperator(sigma)
        # the same eigenvalues seen from the outputs, with a zero for each direction that no input reaches
        operator, surplus = filters @ inputs @ filters.T, (n_channels - 1) * length
    size = operator.shape[0]
    signs = rng.integers(0, 2, (n_probes, size)).T * 2.0 - 1
    nodes, weights = (part.ravel() for part in lanczos_measure(operator, signs, n_steps))
    if nodes.min() < -1e-8 * nodes.max():
        raise ValueError(f"covariance must be positive semi-definite, got an eigenvalue below {nodes.min():.3g}")
    order = np.argsort(nodes)
    eta, counts = np.maximum(nodes[order], 0), weights[order] / n_probes
    below = np.cumsum(counts)
    counts = np.diff(np.maximum(below - surplus, 0), prepend=0.0)
    power = None
    if target is not None:
        extra, power = (part.ravel() for part in lanczos_measure(gram, target, n_steps, metric=inputs))
        power = np.concatenate([np.zeros_like(eta), power])
        eta = np.concatenate([eta, np.maximum(extra, 0)])
        counts = np.concatenate([counts, np.zeros_like(extra)])
        order = np.argsort(eta)
        eta, counts, power = eta[order], counts[order], power[order]
    return KernelSpectrum(eta[::-1], counts[::-1], power if power is None else power[::-1], "fast")


def _kernel_rows(kernels: ArrayLike) -> np.ndarray:
    return np.atleast_2d(_checks.real_array("kernels", kernels, ndim=(1, 2), what="impulse responses (L,) or (H, L)"))


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
    counts: ArrayLike | None = None,
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
        counts: how many eigenvalues each entry stands for (R,), non-negative; one each if omitted. (A fast
            :func:`kernel_spectrum` is a quadrature: its counts are weights.)

    >>> curve = learning_curve([1.0, 1.0], [1.0, 0.0], [1, 2, 4], ridge=1e-3)
    >>> curve.error.round(3)  # two equal modes: one sample learns half, four learn everything
    array([0.5  , 0.011, 0.   ])
    """
    eta = _checks.real_array("eigenvalues", eigenvalues, ndim=(1,), what="(R,) non-negative")
    power = _checks.real_array("target_power", target_power, ndim=(1,), what="(R,) non-negative")
    samples = np.atleast_1d(_checks.real_array("n_samples", n_samples, ndim=(0, 1), what="sample sizes (K,)"))
    ridge = _checks.real_number("ridge", ridge, low=0.0)
    noise = _checks.real_number("noise", noise, low=0.0)
    counts = np.ones_like(eta) if counts is None else _checks.real_array("counts", counts, ndim=(1,), what="(R,)")
    for name, array in (("eigenvalues", eta), ("target_power", power), ("counts", counts)):
        if (array < 0).any():
            raise ValueError(f"{name} must be non-negative, got a minimum of {array.min()}")
        if eta.shape != array.shape:
            raise ValueError(f"{name} must match eigenvalues in shape, got {array.shape} and {eta.shape}")
    if not (eta * counts).any():
        raise ValueError("eigenvalues must not be all zero")
    if (samples <= 0).any():
        raise ValueError(f"n_samples must be positive, got {samples.min()}")

    errors, kappas = [], []
    for p in samples:
        kappa = _effective_ridge(eta, counts, p, ridge)
        seen = eta > 0
        gamma = p * np.sum(counts[seen] * (eta[seen] / (kappa + p * eta[seen])) ** 2)
        unlearned = np.ones_like(eta)  # a mode the kernel does not have is never learned
        unlearned[seen] = kappa / (kappa + p * eta[seen])
        excess = np.sum(power * unlearned**2) + gamma * noise
        # P equal to the rank without ridge: the interpolation peak, infinite unless there is nothing to amplify
        errors.append(excess / (1 - gamma) if gamma < 1 - 1e-12 else excess and np.inf)
        kappas.append(kappa)
    return LearningCurve(samples, np.array(errors), np.array(kappas))


def _effective_ridge(eta: np.ndarray, counts: np.ndarray, p: float, ridge: float) -> float:
    """Root of ``kappa = ridge + kappa * sum(eta / (kappa + p eta))``; zero at p above the rank without ridge."""
    trace = counts @ eta
    if ridge < 1e-100 * trace and p >= counts[eta > 0].sum():
        return 0.0
    # f(kappa) / kappa decreases to -1: one sign change below `high`; logarithms reach any smaller scale
    excess = lambda t: ridge * np.exp(-t) + counts @ (eta / (np.exp(t) + p * eta)) - 1  # noqa: E731
    high = np.log(ridge + trace)
    low = high
    while excess(low) < 0:
        low -= 4.0
    return float(np.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-13)))

r"""Causal convolution as a matrix: dense, matrix-free, and its singular values.

:math:`T` is the L x L lower-triangular Toeplitz matrix of an impulse response ``kernel`` (L,), and
:math:`H_L(\omega_j)` its DFT. Nothing here asks where the kernel comes from. Everything is float64.
"""

import dataclasses

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from tdi_lib import _checks

__all__ = [
    "ExtremeSingularValues",
    "ToeplitzComparison",
    "compare_toeplitz",
    "convolution_operator",
    "covariance_operator",
    "extreme_singular_values",
    "lanczos_measure",
    "mean_energy_delay",
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


def convolution_operator(kernels: ArrayLike) -> LinearOperator:
    """The same matrix without its entries: products with T and its transpose by FFT, O(L log L).

    Args:
        kernels: one impulse response (L,), or H of them (H, L), whose matrices are stacked.

    Returns:
        T (L, L), or the stack (H L, L).

    >>> operator = convolution_operator([1.0, 2.0, 3.0])
    >>> (operator @ np.eye(3)).round(12)
    array([[1., 0., 0.],
           [2., 1., 0.],
           [3., 2., 1.]])
    """
    kernels = np.atleast_2d(
        _checks.real_array("kernels", kernels, ndim=(1, 2), what="impulse responses (L,) or (H, L)")
    )
    n_channels, length = kernels.shape
    n = scipy.fft.next_fast_len(2 * length - 1, real=True)  # long enough that nothing wraps around
    response = _rfft(kernels, n)  # (H F)

    # Vectors are columns; transposed, they lie in memory one after the other, where FFTs are fastest.
    def forward(x: np.ndarray) -> np.ndarray:
        product = _rfft(x.T, n)[..., None, :] * response  # (K H F)
        return _irfft(product, n)[..., :length].reshape(*x.T.shape[:-1], -1).T

    def adjoint(y: np.ndarray) -> np.ndarray:
        signals = y.T.reshape(*y.T.shape[:-1], n_channels, length)
        product = (_rfft(signals, n) * response.conj()).sum(axis=-2)  # (K F)
        return _irfft(product, n)[..., :length].T

    return LinearOperator(
        (n_channels * length, length), dtype=float, matvec=forward, matmat=forward, rmatvec=adjoint, rmatmat=adjoint
    )


def covariance_operator(autocovariance: ArrayLike) -> LinearOperator:
    """The covariance matrix (L, L) of a stationary input, matrix-free, from its autocovariance r_0 .. r_{L-1} (L,).

    >>> (covariance_operator([1.0, 0.5]) @ np.eye(2)).round(12)
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    r = _checks.real_array("autocovariance", autocovariance, ndim=(1,), what="r_0 .. r_{L-1} (L,)")
    length = r.size
    n = scipy.fft.next_fast_len(2 * length - 1, real=True)
    column = np.zeros(n)
    column[:length] = r
    column[n - length + 1 :] = r[:0:-1]
    spectrum = _rfft(column, n).real  # of a circulant that holds the matrix in its corner

    def multiply(x: np.ndarray) -> np.ndarray:
        return _irfft(_rfft(x.T, n) * spectrum, n)[..., :length].T

    return LinearOperator(
        (length, length), dtype=float, matvec=multiply, matmat=multiply, rmatvec=multiply, rmatmat=multiply
    )


def _rfft(signals: np.ndarray, n: int) -> np.ndarray:
    return scipy.fft.rfft(signals, n)


def _irfft(spectra: np.ndarray, n: int) -> np.ndarray:
    return scipy.fft.irfft(spectra, n, overwrite_x=True)


def lanczos_measure(
    operator: LinearOperator, start: ArrayLike, n_steps: int, *, metric: LinearOperator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""How a vector spreads over the spectrum of a symmetric operator, as a Gauss quadrature (Golub & Meurant).

    With eigenpairs :math:`\lambda_\rho, v_\rho`, finds nodes and weights such that
    :math:`\sum_m w_m f(x_m) \approx \sum_\rho (v_\rho^\top s)^2 f(\lambda_\rho)`, exactly for polynomials of degree
    below ``2 n_steps``. A random :math:`s` of independent signs turns this into an estimate of
    :math:`\mathrm{tr}\, f` (stochastic Lanczos quadrature, Ubaru, Chen & Saad 2017).

    The recurrence keeps three vectors and does not re-orthogonalise: rounding repeats nodes that have converged, which
    splits their weight and leaves the sums right.

    Args:
        operator: symmetric, (R, R).
        start: one vector (R,) or K of them as columns (R, K), each with a measure of its own.
        n_steps: number of nodes, each one product with the operator.
        metric: symmetric and positive, (R, R): then ``operator @ metric`` is meant, and lengths and angles are those
            of the inner product :math:`x^\top` ``metric`` :math:`y`, in which it is symmetric.

    Returns:
        Nodes and weights, each (K, n_steps); K = 1 for a single vector.

    >>> nodes, weights = lanczos_measure(convolution_operator([2.0, 0.0, 0.0]), [1.0, 2.0, 3.0], 2)
    >>> nodes.round(6), weights.round(6)  # twice the identity: one eigenvalue, weight |s|^2
    (array([[0., 2.]]), array([[ 0., 14.]]))
    """
    start = _checks.real_array("start", start, ndim=(1, 2), what="vectors (R,) or (R, K)")
    start = start.reshape(len(start), -1)
    n_steps = _checks.positive_int("n_steps", n_steps)
    if operator.shape != (len(start), len(start)):
        raise ValueError(f"start must have the operator's size {operator.shape}, got shape {start.shape}")
    image = start if metric is None else metric.matmat(start)
    norms = np.sqrt(np.vecdot(start.T, image.T))  # (K)
    if not norms.all():
        raise ValueError("start must hold no zero vector")
    diagonal, off_diagonal = np.zeros((2, n_steps, norms.size))
    previous, current, image = np.zeros_like(start), start / norms, image / norms  # (R K)
    scale = np.zeros_like(norms)
    for step in range(n_steps):
        following = operator.matmat(image)
        diagonal[step] = np.vecdot(following.T, image.T)
        following -= diagonal[step] * current + off_diagonal[step - 1] * previous
        image = following if metric is None else metric.matmat(following)
        beta = np.sqrt(np.maximum(np.vecdot(following.T, image.T), 0))
        scale = np.maximum(scale, np.abs(diagonal[step]) + beta)
        beta[beta <= 1e-14 * scale] = 0.0  # the Krylov space is complete: what follows carries no weight
        off_diagonal[step] = beta
        inverse = np.divide(1, beta, out=np.zeros_like(beta), where=beta > 0)
        previous, current, image = current, following * inverse, image * inverse
    nodes, weights = np.empty((2, norms.size, n_steps))
    for k in range(norms.size):
        nodes[k], vectors = scipy.linalg.eigh_tridiagonal(diagonal[:, k], off_diagonal[:-1, k])
        weights[k] = (norms[k] * vectors[0]) ** 2
    return nodes, weights


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


@dataclasses.dataclass(frozen=True)
class ExtremeSingularValues:
    r"""Proven intervals for both ends of the spectrum of T.

    Attributes:
        largest: lower and upper bound of :math:`s_1`.
        n_fallen: w, the number of zeros of :math:`\sum_l k_l z^l` in the unit disc; as many singular values fall to
            zero exponentially in L. None if the response comes too close to zero for the count to be sure.
        smallest_kept: lower and upper bound of :math:`s_{L-w}`, the smallest that does not fall; of :math:`s_L` if the
            count is not sure.
    """

    largest: tuple[float, float]
    n_fallen: int | None
    smallest_kept: tuple[float, float]


def extreme_singular_values(kernel: ArrayLike) -> ExtremeSingularValues:
    r"""Bound the largest and the smallest singular values of T (L, L) without forming it, O(L log L).

    Outer bounds are those of the response, :math:`\min|H_L| \le s_{L-w}` and :math:`s_1 \le \max|H_L|`, taken on a grid
    eight times finer than the DFT's and widened by what :math:`|H_L|^2` can do between its points. Inner bounds are
    Ritz values (Courant & Fischer) on sinusoids at the loudest and the quietest frequency under half-sine windows:
    where the response is stationary a long tone passes almost as through an endless filter. The intervals shrink like
    :math:`L^{-2}` once L is long against the kernel.

    >>> extremes = extreme_singular_values(0.5 ** np.arange(256))
    >>> extremes.n_fallen, [round(float(x), 3) for x in extremes.largest + extremes.smallest_kept]
    (0, [2.0, 2.0, 0.667, 0.667])
    """
    kernel = _kernel_array(kernel)
    length = kernel.size
    lag, size = np.arange(length), np.abs(kernel)
    n = scipy.fft.next_fast_len(8 * length, real=True)
    response = _rfft(kernel, n)
    power = np.abs(response) ** 2
    spacing, slope = 2 * np.pi / n, lag @ size
    slack = spacing**2 / 4 * (slope**2 + size.sum() * (lag**2 @ size))  # h^2/8 times a bound on the second derivative
    outer = [np.sqrt(max(power.min() - slack, 0.0)), np.sqrt(power.max() + slack)]

    n_fallen = None
    if spacing * slope < np.sqrt(power.min()):  # between neighbours H cannot get around zero
        turns = np.angle(response[1:] / response[:-1]).sum() / np.pi  # half the circle is half of the winding
        n_fallen = round(-turns)
    operator = convolution_operator(kernel)

    def ritz(frequency: float, n_windows: int) -> np.ndarray:
        """Singular values of T on tones of one frequency under the first half-sine windows."""
        places = np.outer(lag + 1, np.arange(1, n_windows + 1)) * np.pi / (length + 1)
        waves = np.sin(places) * np.exp(1j * frequency * lag)[:, None]
        tones = np.hstack([waves.real, waves.imag])
        basis, _ = np.linalg.qr(tones[:, np.abs(tones).max(axis=0) > 1e-6])  # at 0 and pi the imaginary part is zero
        return np.linalg.svd(operator @ basis, compute_uv=False)

    loud, quiet = power.argmax() * spacing, power.argmin() * spacing
    fallen = n_fallen or 0
    return ExtremeSingularValues(
        largest=(float(ritz(loud, 1)[0]), float(outer[1])),
        n_fallen=n_fallen,
        smallest_kept=(
            0.0 if n_fallen is None else float(outer[0]),
            float(ritz(quiet, fallen + 1)[::-1][fallen]),
        ),
    )

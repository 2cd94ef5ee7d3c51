r"""What a convolution kernel implies for learning: its Toeplitz matrix, the kernel it induces, learning curves.

Everything here is float64 numpy: theory is checked to machine precision, and its formulas hold for any convolution
kernel ``k`` (L,), whether an SSM made it or not. :math:`T` is the L x L lower-triangular Toeplitz matrix of ``k``, and
:math:`H_L(\omega_j)` its DFT.

A linear read-out of a layer's output is kernel regression with :math:`K(u, u') = u^\top G u'`
(:func:`layer_matrix`), and the same as ridge regression on the features :math:`u^\top B` with :math:`G = BB^\top`
(:func:`feature_root`). A comparison of layers is worth as much as the choice of their ridges: here all are chosen
alike, by evidence, without a look at test data.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from tdi_lib.samples import one_of, positive_int, real_array, real_number

__all__ = [
    "RIDGES",
    "ExtremeSingularValues",
    "KernelSpectrum",
    "LearningCurve",
    "RidgePath",
    "ToeplitzComparison",
    "compare_toeplitz",
    "convolution_operator",
    "covariance_operator",
    "evidence_curve",
    "extreme_singular_values",
    "feature_root",
    "kernel_modes",
    "kernel_spectrum",
    "lanczos_measure",
    "layer_matrix",
    "learning_curve",
    "mean_energy_delay",
    "ridge_path",
    "simulated_errors",
    "ssm_kernel",
    "toeplitz_matrix",
    "toeplitz_singular_values",
]

# ---- convolution as a matrix ---------------------------------------------------------------------


def _kernel_array(kernel: ArrayLike) -> np.ndarray:
    kernel = real_array("kernel", kernel, ndim=(1,), what="one impulse response (L,)")
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
    kernels = np.atleast_2d(real_array("kernels", kernels, ndim=(1, 2), what="impulse responses (L,) or (H, L)"))
    n_channels, length = kernels.shape
    n = scipy.fft.next_fast_len(2 * length - 1, real=True)  # long enough that nothing wraps around
    response = scipy.fft.rfft(kernels, n)  # (H F)

    # Vectors are columns; transposed, they lie in memory one after the other, where FFTs are fastest.
    def forward(x: np.ndarray) -> np.ndarray:
        product = scipy.fft.rfft(x.T, n)[..., None, :] * response  # (K H F)
        return scipy.fft.irfft(product, n, overwrite_x=True)[..., :length].reshape(*x.T.shape[:-1], -1).T

    def adjoint(y: np.ndarray) -> np.ndarray:
        signals = y.T.reshape(*y.T.shape[:-1], n_channels, length)
        product = (scipy.fft.rfft(signals, n) * response.conj()).sum(axis=-2)  # (K F)
        return scipy.fft.irfft(product, n, overwrite_x=True)[..., :length].T

    return LinearOperator(
        (n_channels * length, length), dtype=float, matvec=forward, matmat=forward, rmatvec=adjoint, rmatmat=adjoint
    )


def covariance_operator(autocovariance: ArrayLike) -> LinearOperator:
    """The covariance matrix (L, L) of a stationary input, matrix-free, from its autocovariance r_0 .. r_{L-1} (L,).

    >>> (covariance_operator([1.0, 0.5]) @ np.eye(2)).round(12)
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    r = real_array("autocovariance", autocovariance, ndim=(1,), what="r_0 .. r_{L-1} (L,)")
    length = r.size
    n = scipy.fft.next_fast_len(2 * length - 1, real=True)
    column = np.zeros(n)
    column[:length] = r
    column[n - length + 1 :] = r[:0:-1]
    spectrum = scipy.fft.rfft(column, n).real  # of a circulant that holds the matrix in its corner

    def multiply(x: np.ndarray) -> np.ndarray:
        return scipy.fft.irfft(scipy.fft.rfft(x.T, n) * spectrum, n, overwrite_x=True)[..., :length].T

    return LinearOperator(
        (length, length), dtype=float, matvec=multiply, matmat=multiply, rmatvec=multiply, rmatmat=multiply
    )


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
    start = real_array("start", start, ndim=(1, 2), what="vectors (R,) or (R, K)")
    start = start.reshape(len(start), -1)
    n_steps = positive_int("n_steps", n_steps)
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
    response = scipy.fft.rfft(kernel, n)
    power = np.abs(response) ** 2
    spacing, slope = 2 * np.pi / n, lag @ size
    slack = spacing**2 / 4 * (slope**2 + size.sum() * (lag**2 @ size))  # h^2/8 times a bound on the second derivative
    outer = [np.sqrt(max(power.min() - slack, 0.0)), np.sqrt(power.max() + slack)]

    n_fallen = None
    if spacing * slope < np.sqrt(power.min()):  # between neighbors H cannot get around zero
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


# ---- kernel and learning curve -------------------------------------------------------------------


_DENSE_LENGTH = 1024  # up to here a dense eigenvalue problem is a matter of a second


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
    inputs = [real_array("u", u, ndim=(2,), what="inputs (P, L)")]
    if v is not None:
        inputs.append(real_array("v", v, ndim=(2,), what="inputs (R, L)"))
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
    length = total if length is None else positive_int("length", length)
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
        sigma = real_array("covariance", covariance, ndim=(1, 2), what="(L,) or (L, L)")
        if sigma.shape not in {(length,), (length, length)}:
            raise ValueError(
                f"covariance must have shape ({length},) or ({length}, {length}) for kernels of length {length}, "
                f"got {sigma.shape}"
            )
        if sigma.ndim == 2 and not np.allclose(sigma, sigma.T, rtol=1e-8, atol=1e-8 * np.abs(sigma).max()):
            raise ValueError("covariance must be symmetric, got a matrix that differs from its transpose")
    if target is not None:
        target = real_array("target", target, ndim=(1,), what="weights (L,)")
        if target.shape != (length,):
            raise ValueError(f"target must have the kernels' length {length}, got shape {target.shape}")
        if not target.any():
            raise ValueError("target must not be all zero")
    method = one_of("method", method, ("auto", "dense", "fast"))
    if n_probes is not None:
        n_probes = positive_int("n_probes", n_probes)
    n_steps = min(positive_int("n_steps", n_steps), length)
    if method == "dense" or (method == "auto" and length <= _DENSE_LENGTH):
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
    return np.atleast_2d(real_array("kernels", kernels, ndim=(1, 2), what="impulse responses (L,) or (H, L)"))


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    r"""Expected generalization error of kernel regression.

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
    eta = real_array("eigenvalues", eigenvalues, ndim=(1,), what="(R,) non-negative")
    power = real_array("target_power", target_power, ndim=(1,), what="(R,) non-negative")
    samples = np.atleast_1d(real_array("n_samples", n_samples, ndim=(0, 1), what="sample sizes (K,)"))
    ridge = real_number("ridge", ridge, low=0.0)
    noise = real_number("noise", noise, low=0.0)
    counts = np.ones_like(eta) if counts is None else real_array("counts", counts, ndim=(1,), what="(R,)")
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


# ---- the learner: ridge regression, the ridge by evidence ----------------------------------------


RIDGES = np.logspace(-4, 2, 25)
"""Ridges to choose from, relative to the mean of the kernel's diagonal."""


def feature_root(gram: ArrayLike) -> np.ndarray:
    """A root B (L, L) of a symmetric positive semi-definite matrix G = B Bᵀ; its columns make features ``x @ B``.

    >>> feature_root([[4.0, 0.0], [0.0, 9.0]]).max(axis=0)
    array([2., 3.])
    """
    matrix = real_array("gram", gram, ndim=(2,), what="a symmetric matrix (L, L)")
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"gram must be symmetric, got shape {matrix.shape}")
    if not np.allclose(matrix, matrix.T, atol=1e-8 * np.abs(matrix).max()):
        raise ValueError("gram must be symmetric, got a matrix that differs from its transpose")
    values, axes = np.linalg.eigh(matrix)
    if values[0] < -1e-8 * max(values[-1], -values[0]):
        raise ValueError(f"gram must be positive semi-definite, got an eigenvalue {values[0]:.3g}")
    return axes * np.sqrt(np.maximum(values, 0))


@dataclasses.dataclass(frozen=True)
class RidgePath:
    """Ridge regressions on the same samples for a row of ridges.

    Attributes:
        ridges: relative to the mean of the kernel's diagonal (R,).
        weights: of the features (R, F, K).
        evidence: log marginal likelihood (R,), the scale of the kernel at its best.
        left_out: mean squared error of leave-one-out (R,).
        best: index of the highest evidence.
    """

    ridges: np.ndarray
    weights: np.ndarray
    evidence: np.ndarray
    left_out: np.ndarray

    @property
    def best(self) -> int:
        return int(self.evidence.argmax())


def ridge_path(features: ArrayLike, y: ArrayLike, *, ridges: ArrayLike = RIDGES) -> RidgePath:
    r"""Ridge regression for several ridges at once, with the evidence and the leave-one-out error of each.

    The evidence takes the K columns of y for independent draws from :math:`N(0, s(K + \lambda I))`. For a given
    :math:`\lambda` the best scale is :math:`s = \mathrm{tr}\, y^\top (K + \lambda I)^{-1} y / PK`, and

    .. math::
        \log p(y \mid \lambda) = -\frac{K}{2} \bigl[ P \log(2\pi e s) + \log\det(K + \lambda I) \bigr] .

    Args:
        features: (P, F); there is no intercept.
        y: targets (P,) or (P, K).
        ridges: relative to the mean of the kernel's diagonal, positive, ascending.

    Raises:
        TypeError, ValueError: naming the argument: NaN, wrong rank or length, all-zero features or targets, ridges
            that are not positive.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.standard_normal((40, 3))
    >>> path = ridge_path(features, features @ [1.0, 2.0, 3.0] + 0.1 * rng.standard_normal(40))
    >>> path.weights[path.best, :, 0].round(1)
    array([1., 2., 3.])
    """
    matrix = real_array("features", features, ndim=(2,), what="(P, F)")
    target = real_array("y", y, ndim=(1, 2), what="targets (P,) or (P, K)")
    ridges = real_array("ridges", ridges, ndim=(1,), what="positive numbers (R,)")
    if len(target) != len(matrix):
        raise ValueError(f"y must hold one target per row of features ({len(matrix)}), got shape {target.shape}")
    for name, array in (("features", matrix), ("y", target)):
        if not array.any():
            raise ValueError(f"{name} must not be all zero")
    if (ridges <= 0).any():
        raise ValueError(f"ridges must be positive, got a minimum of {ridges.min()}")
    target = target.reshape(len(target), -1)
    n_samples, n_targets = target.shape
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    c = u.T @ target  # (M K)
    power = s[:, None] ** 2
    total = power + ridges * power.sum() / n_samples  # (M R)
    absolute = ridges * power.sum() / n_samples
    # the P - M directions that no feature reaches carry the ridge alone
    silent, rest = n_samples - s.size, max((target**2).sum() - (c**2).sum(), 0.0)
    scale = (((c**2).sum(axis=1)[:, None] / total).sum(axis=0) + rest / absolute) / (n_samples * n_targets)
    log_det = np.log(total).sum(axis=0) + silent * np.log(absolute)
    evidence = -0.5 * n_targets * (n_samples * (1 + np.log(2 * np.pi * scale)) + log_det)
    share = power / total  # (M R)
    fitted = np.einsum("pm,mr,mk->rpk", u, share, c)
    leverage = u**2 @ share  # (P R)
    left_out = (((target - fitted) / (1 - leverage.T[:, :, None])) ** 2).mean(axis=(1, 2))
    weights = np.einsum("mf,mr,mk->rfk", vt, s[:, None] / total, c, optimize=True)
    return RidgePath(ridges, weights, evidence, left_out)


def evidence_curve(
    eigenvalues: ArrayLike, target_power: ArrayLike, n_samples: float, *, noise: float = 0.0, ridges: ArrayLike = RIDGES
) -> LearningCurve:
    r"""Learning curve at one sample size with the ridge that the evidence would choose.

    In terms of the effective ridge :math:`\kappa` of :func:`learning_curve` the evidence's two parts
    have the limits

    .. math::
        \mathrm{E}\, y^\top (K + \lambda I)^{-1} y &\approx
        P \Bigl[ \sum_\rho \frac{\bar w_\rho^2}{\kappa + P \eta_\rho} + \frac{\sigma^2}{\kappa} \Bigr], \\
        \log\det (K + \lambda I) &\approx
        P \log \kappa + \sum_\rho \log \Bigl( 1 + \frac{P\eta_\rho}{\kappa} \Bigr)
        - P \Bigl( 1 - \frac{\lambda}{\kappa} \Bigr).

    Args:
        eigenvalues, target_power, noise: as for :func:`learning_curve`.
        n_samples: P.
        ridges: relative to the sum of the eigenvalues, which is the kernel's mean diagonal.

    >>> float(evidence_curve([1.0, 0.1], [1.0, 0.0], 50, noise=0.1).error[0].round(3))
    0.004
    """
    eta = real_array("eigenvalues", eigenvalues, ndim=(1,), what="(R,) non-negative")
    power = real_array("target_power", target_power, ndim=(1,), what="(R,) non-negative")
    n_samples = real_number("n_samples", n_samples, low=1e-9)
    best, chosen = -np.inf, None
    for ridge in real_array("ridges", ridges, ndim=(1,), what="positive numbers (R,)") * eta.sum():
        curve = learning_curve(eta, power, n_samples, ridge=float(ridge), noise=noise)
        kappa = curve.kappa[0]
        quadratic = n_samples * (np.sum(power / (kappa + n_samples * eta)) + noise / kappa)
        log_det = n_samples * np.log(kappa) + np.log1p(n_samples * eta / kappa).sum() - n_samples * (1 - ridge / kappa)
        evidence = -0.5 * (n_samples * np.log(quadratic) + log_det)
        if evidence > best:
            best, chosen = evidence, curve
    assert chosen is not None
    return chosen


# ---- the same learner, simulated ------------------------------------------------------------------


def kernel_modes(gram: ArrayLike, covariance: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    r"""The Mercer modes of :math:`K(u, u') = u^\top G u'` with their eigenfunctions, for inputs of a given covariance.

    Args:
        gram: G (L, L), symmetric positive semi-definite, such as a :func:`layer_matrix`.
        covariance: :math:`\Sigma` (L, L) of the inputs; directions that they do not reach are left out.

    Returns:
        The eigenvalues (R,), descending and scaled to sum to one, and the map M (R, L) that takes a linear target
        w (L,) to its coefficients. Inputs are ``u = z @ M`` with uncorrelated z (P, R) of variance one; the signs of
        the rows are fixed, so that every machine draws the same.

    >>> eta, to_modes = kernel_modes(np.diag([3.0, 1.0]), np.eye(2))
    >>> eta, np.abs(to_modes)
    (array([0.75, 0.25]), array([[1., 0.],
           [0., 1.]]))
    """
    gram = real_array("gram", gram, ndim=(2,), what="a symmetric matrix (L, L)")
    covariance = real_array("covariance", covariance, ndim=(2,), what="a symmetric matrix (L, L)")
    for name, matrix in (("gram", gram), ("covariance", covariance)):
        if matrix.shape != (len(gram), len(gram)):
            raise ValueError(f"{name} must be (L, L) with the L of gram, {len(gram)}, got {matrix.shape}")
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-10 * values[-1]
    root = vectors[:, kept] * np.sqrt(values[kept])  # (L R)
    eta, turn = np.linalg.eigh(root.T @ gram @ root)
    eta, to_modes = np.maximum(eta[::-1], 0), (root @ turn[:, ::-1]).T
    if not eta.any():
        raise ValueError("gram must respond to inputs of this covariance: its eigenvalues are all zero")
    sign = np.sign(to_modes @ np.random.default_rng(0).standard_normal(len(gram)))
    return eta / eta.sum(), sign[:, None] * to_modes


def simulated_errors(
    problems: Sequence[tuple[np.ndarray, np.ndarray, float]],
    n_samples: int,
    n_draws: int,
    *,
    generator: np.random.Generator,
    noise: ArrayLike = 0.0,
    draw_modes: Callable[[int, int, np.random.Generator], np.ndarray] | None = None,
) -> list[np.ndarray]:
    r"""Exact test errors of kernel regression on random training sets: what :func:`learning_curve` predicts.

    Args:
        problems: (eigenvalues (R,), targets in modes (T, R), ridge) each; all share R and their training sets.
        n_samples: P.
        n_draws: training sets D.
        generator: source of the modes z (P, R) of every training set and, where a noise is not zero, of the labels'.
        noise: variances of the label noise, one or several (S,). It enters with both signs, so that its cross term
            with the signal cancels in every draw.
        draw_modes: called with P, R and the generator for z; standard normal if omitted.

    Returns:
        Mean squared errors against the noiseless targets (D, T, S), for every problem.

    >>> problem = (np.array([0.75, 0.25]), np.eye(2), 1e-9)
    >>> (few,), (many,) = (simulated_errors([problem], P, 1, generator=np.random.default_rng(0)) for P in (1, 2))
    >>> bool(few.max() > 0.1), bool(many.max() < 1e-6)  # two samples find two modes
    (True, True)
    """
    n_samples, n_draws = positive_int("n_samples", n_samples), positive_int("n_draws", n_draws)
    variances = np.atleast_1d(real_array("noise", noise, ndim=(0, 1), what="variances (S,)"))
    if (variances < 0).any():
        raise ValueError(f"noise must be non-negative, got {variances.min()}")
    n_modes = len(problems[0][0]) if problems else 0
    if not n_modes or any(len(eta) != n_modes or np.shape(t)[1:] != (n_modes,) for eta, t, _ in problems):
        raise ValueError("problems must be one or more (eigenvalues (R,), targets (T, R), ridge) of the same R")
    draw_modes = draw_modes or (lambda P, R, rng: rng.standard_normal((P, R)))
    results = [np.empty((n_draws, len(t), len(variances))) for _, t, _ in problems]
    for draw in range(n_draws):
        z = draw_modes(n_samples, n_modes, generator)  # (P R)
        labels = generator.standard_normal((n_samples, 1)) if variances.any() else np.zeros((n_samples, 1))
        gram = z.T @ z if n_modes < n_samples else None
        for (eta, t, ridge), result in zip(problems, results, strict=True):
            x, y = z * np.sqrt(eta), np.hstack([z @ t.T, labels])
            if gram is None:  # the smaller of two systems: as many unknowns as samples, or as modes
                system, sides = x @ x.T, y
            else:
                system, sides = np.sqrt(np.outer(eta, eta)) * gram, x.T @ y
            system.flat[:: len(system) + 1] += ridge
            factor = scipy.linalg.cho_factor(system, overwrite_a=True, check_finite=False)
            alpha = scipy.linalg.cho_solve(factor, sides, check_finite=False)
            found = np.sqrt(eta)[:, None] * (x.T @ alpha if gram is None else alpha)  # (R T+1)
            clean = ((found[:, :-1] - t.T) ** 2).sum(0)
            result[draw] = clean[:, None] + variances * (found[:, -1] @ found[:, -1])
    return results

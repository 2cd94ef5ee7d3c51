"""Convolution as a matrix: fast against dense, and the finite-L theorems."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tdi_lib.theory import (
    compare_toeplitz,
    convolution_operator,
    covariance_operator,
    extreme_singular_values,
    lanczos_measure,
    mean_energy_delay,
    toeplitz_matrix,
    toeplitz_singular_values,
)

values = st.floats(-5, 5).map(lambda v: round(v, 3))
kernels = st.integers(1, 40).flatmap(lambda n: arrays(float, n, elements=values)).filter(np.any)


@given(kernels)
@settings(deadline=None)
def test_singular_values_are_the_svds(kernel: np.ndarray) -> None:
    expected = np.linalg.svd(toeplitz_matrix(kernel), compute_uv=False)
    assert np.allclose(toeplitz_singular_values(kernel), expected, atol=1e-9)


@given(kernels)
@settings(deadline=None)
def test_bound_holds_and_its_parts_are_exact(kernel: np.ndarray) -> None:
    result = compare_toeplitz(kernel)
    assert result.distance <= result.bound + 1e-12
    circulant = scipy.linalg.circulant(kernel)
    gap = np.linalg.norm(circulant - toeplitz_matrix(kernel)) ** 2
    lag = np.arange(kernel.size)
    assert np.isclose(gap, lag @ kernel**2)
    assert np.allclose(np.linalg.svd(circulant, compute_uv=False), result.response, atol=1e-9)
    assert np.isclose(mean_energy_delay(kernel), gap / (kernel @ kernel))


def test_bound_is_not_vacuous() -> None:
    """A pure delay by half the length: the distance reaches the bound."""
    kernel = np.zeros(64)
    kernel[32] = 1.0
    result = compare_toeplitz(kernel)
    assert np.isclose(result.bound, np.sqrt(0.5))
    assert np.isclose(result.distance, result.bound)


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_operators_are_their_dense_matrices(length: int, n_channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernels, r = rng.normal(size=(n_channels, length)), rng.normal(size=length)
    stacked = np.vstack([toeplitz_matrix(k) for k in kernels])
    operator, covariance = convolution_operator(kernels), covariance_operator(r)
    x, y = rng.normal(size=(length, 2)), rng.normal(size=(n_channels * length, 2))
    assert np.allclose(operator @ x, stacked @ x, atol=1e-11)
    assert np.allclose(operator.T @ y, stacked.T @ y, atol=1e-11)
    assert np.allclose(operator @ x[:, 0], stacked @ x[:, 0], atol=1e-11)
    assert np.allclose(operator.T @ y[:, 0], stacked.T @ y[:, 0], atol=1e-11)
    assert np.allclose(covariance @ x, scipy.linalg.toeplitz(r) @ x, atol=1e-11)
    assert np.allclose(covariance.T @ x[:, 0], scipy.linalg.toeplitz(r) @ x[:, 0], atol=1e-11)


@given(st.integers(2, 30), st.integers(0, 1000), st.booleans())
@settings(deadline=None, max_examples=40)
def test_lanczos_measure_is_exact_for_polynomials(size: int, seed: int, with_metric: bool) -> None:
    """A Gauss rule of m nodes integrates x^0 .. x^(2m-1) against the spectral measure of the start."""
    rng = np.random.default_rng(seed)
    root, start = rng.normal(size=(size, size)), rng.normal(size=(size, 2))
    a = root @ root.T / size
    metric = scipy.linalg.toeplitz(0.5 ** np.arange(size)) if with_metric else np.eye(size)
    as_operator = scipy.sparse.linalg.aslinearoperator
    m = min(4, size)
    nodes, weights = lanczos_measure(as_operator(a), start, m, metric=as_operator(metric) if with_metric else None)
    for power in range(2 * m):
        moment = np.diag(start.T @ metric @ np.linalg.matrix_power(a @ metric, power) @ start)
        assert np.allclose((weights * nodes**power).sum(1), moment, rtol=1e-8)


def test_lanczos_measure_of_a_start_in_a_small_invariant_subspace() -> None:
    """Two eigenvectors carry the start: more steps than that must add nothing."""
    a, start = np.diag([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 3.0, 0.0, 1.0])
    nodes, weights = lanczos_measure(scipy.sparse.linalg.aslinearoperator(a), start, 4)
    assert np.isclose(weights.sum(), 10)
    assert np.isclose(weights[np.isclose(nodes, 2.0)].sum(), 9)
    assert np.isclose(weights[np.isclose(nodes, 4.0)].sum(), 1)


def test_many_steps_without_reorthogonalisation_keep_the_weights() -> None:
    """Far beyond the loss of orthogonality the sums still hold: log-determinant of a Toeplitz Gram matrix."""
    kernel = 0.8 ** np.arange(64)
    operator = convolution_operator(kernel)
    probes = np.random.default_rng(0).integers(0, 2, (64, 400)) * 2.0 - 1
    nodes, weights = lanczos_measure(operator.T @ operator, probes, 200)
    per_probe = (weights * np.log1p(nodes)).sum(1)
    exact = np.log1p(toeplitz_singular_values(kernel) ** 2).sum()
    standard_error = per_probe.std() / 20
    assert standard_error < 0.01 * exact
    assert abs(per_probe.mean() - exact) < 4 * standard_error


@given(kernels.filter(lambda k: k.size > 1))
@settings(deadline=None, max_examples=200)
def test_extremes_enclose_the_dense_values(kernel: np.ndarray) -> None:
    """Short kernels in a longer window, so that the response is resolved; zeros counted by a root finder."""
    window = np.concatenate([kernel, np.zeros(8 * kernel.size)])
    extremes, s = extreme_singular_values(window), toeplitz_singular_values(window)
    slack = 1e-9 * s[0]
    assert extremes.largest[0] <= s[0] + slack and s[0] <= extremes.largest[1] + slack
    fallen = 0
    if extremes.n_fallen is not None:
        roots = np.polynomial.polynomial.polyroots(kernel)
        fallen = int((np.abs(roots) < 1).sum())
        assert extremes.n_fallen == fallen
    low, high = extremes.smallest_kept
    assert low - slack <= s[-1 - fallen] <= high + slack


def test_extremes_close_in_as_the_window_grows() -> None:
    kernel = np.array([1.0, -2.5, 1.0])  # zeros at 1/2 and 2: one falls
    widths = []
    for length in (256, 1024, 4096):
        extremes = extreme_singular_values(np.concatenate([kernel, np.zeros(length - 3)]))
        assert extremes.n_fallen == 1
        widths.append([np.ptp(extremes.largest), np.ptp(extremes.smallest_kept)])
    rates = np.diff(np.log(widths), axis=0) / np.log(4)
    assert (rates < -1.8).all()


def test_extremes_do_not_guess_where_the_response_vanishes() -> None:
    extremes = extreme_singular_values([1.0, 1.0] + [0.0] * 30)  # H(pi) = 0
    assert extremes.n_fallen is None and extremes.smallest_kept[0] == 0


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: toeplitz_matrix([]), ValueError, "kernel"),
        (lambda: toeplitz_matrix([0.0, 0.0]), ValueError, "kernel"),
        (lambda: toeplitz_matrix([1.0, np.nan]), ValueError, "kernel"),
        (lambda: toeplitz_matrix([[1.0]]), ValueError, "kernel"),
        (lambda: toeplitz_matrix(["a"]), TypeError, "kernel"),
        (lambda: toeplitz_singular_values([1j]), TypeError, "kernel"),
        (lambda: mean_energy_delay([np.inf]), ValueError, "kernel"),
        (lambda: compare_toeplitz(np.zeros(3)), ValueError, "kernel"),
        (lambda: extreme_singular_values([0.0]), ValueError, "kernel"),
        (lambda: convolution_operator([np.nan]), ValueError, "kernels"),
        (lambda: convolution_operator(np.ones((1, 1, 1))), ValueError, "kernels"),
        (lambda: covariance_operator([[1.0]]), ValueError, "autocovariance"),
        (lambda: lanczos_measure(convolution_operator([1.0]), [1.0, 2.0], 1), ValueError, "start"),
        (lambda: lanczos_measure(convolution_operator([1.0]), [0.0], 1), ValueError, "start"),
        (lambda: lanczos_measure(convolution_operator([1.0]), [1.0], 0), ValueError, "n_steps"),
    ],
)
def test_bad_arguments_are_named(call, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        call()

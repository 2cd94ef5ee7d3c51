"""The theory against dense linear algebra and simulation."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tdi_lib.theory import (
    compare_toeplitz,
    learning_curve,
    mean_energy_delay,
    ssm_kernel,
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


@given(st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_ssm_kernel_is_the_dense_product(seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    k, u, v = rng.normal(size=(channels, 9)), rng.normal(size=(4, 9)), rng.normal(size=(3, 9))
    dense = sum(u @ toeplitz_matrix(row).T @ toeplitz_matrix(row) @ v.T for row in k)
    assert np.allclose(ssm_kernel(k, u, v), dense)
    assert np.allclose(ssm_kernel(k, u), ssm_kernel(k, u, u))


def test_kernel_regression_is_ridge_on_the_output_sequence() -> None:
    rng = np.random.default_rng(0)
    k, u, new = rng.normal(size=12), rng.normal(size=(30, 12)), rng.normal(size=(5, 12))
    y, ridge = rng.normal(size=30), 0.3
    t = toeplitz_matrix(k)
    phi, phi_new = u @ t.T, new @ t.T
    weights = np.linalg.solve(phi.T @ phi + ridge * np.eye(12), phi.T @ y)
    alpha = np.linalg.solve(ssm_kernel(k, u) + ridge * np.eye(30), y)
    assert np.allclose(phi_new @ weights, ssm_kernel(k, new, u) @ alpha)


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_learning_curve_predicts_simulation(noise: float) -> None:
    """Nothing fitted: Gaussian features, P below and above the effective rank, within the simulation's own error."""
    rng = np.random.default_rng(0)
    rank, ridge, draws = 256, 0.1, 100
    eta, power = (np.arange(rank) + 1.0) ** -1.5, np.exp(-np.arange(rank) / 10)
    for p in (8, 32, 128):
        errors = []
        for _ in range(draws):
            x = rng.normal(size=(p, rank))
            y = x @ np.sqrt(power) + np.sqrt(noise) * rng.normal(size=p)
            alpha = np.linalg.solve(x * eta @ x.T + ridge * np.eye(p), y)
            errors.append(np.sum((eta * (x.T @ alpha) - np.sqrt(power)) ** 2))
        theory = learning_curve(eta, power, p, ridge=ridge, noise=noise).error[0]
        standard_error = np.std(errors) / np.sqrt(draws)
        assert abs(np.mean(errors) - theory) < 3 * standard_error
        assert standard_error < 0.03 * theory  # so that a wrong formula is seen


@given(
    st.integers(1, 30),
    st.integers(1, 200),
    st.floats(0, 10),
    st.integers(0, 100),
)
@settings(deadline=None)
def test_effective_ridge_solves_its_equation(rank: int, samples: int, ridge: float, seed: int) -> None:
    eta = np.random.default_rng(seed).uniform(0.01, 1, rank)
    curve = learning_curve(eta, np.ones(rank), samples, ridge=ridge)
    kappa = curve.kappa[0]
    if kappa > 0:
        assert np.isclose(kappa, ridge + kappa * np.sum(eta / (kappa + samples * eta)))
    else:
        assert ridge < 1e-99 and samples >= rank


def test_learning_curve_limits() -> None:
    eta, power = np.array([1.0, 0.5, 0.0]), np.array([1.0, 2.0, 4.0])
    few, many = learning_curve(eta, power, [1e-9, 1e9], ridge=1e-6).error
    assert np.isclose(few, 7.0)  # nothing learned: the target's whole variance
    assert np.isclose(many, 4.0)  # a mode the kernel lacks is never learned
    assert np.isinf(learning_curve([1.0, 1.0], [1.0, 1.0], 2, noise=0.1).error[0])  # interpolation


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
        (lambda: ssm_kernel(np.ones((1, 1, 1)), [[1.0]]), ValueError, "kernels"),
        (lambda: ssm_kernel([1.0, 1.0], [1.0, 1.0]), ValueError, "u"),
        (lambda: ssm_kernel([1.0, 1.0], [[1.0]]), ValueError, "u"),
        (lambda: ssm_kernel([1.0], [[1.0]], [[1.0, 2.0]]), ValueError, "v"),
        (lambda: ssm_kernel([1.0], [[1j]]), TypeError, "u"),
        (lambda: learning_curve([-1.0], [1.0], 4), ValueError, "eigenvalues"),
        (lambda: learning_curve([0.0], [1.0], 4), ValueError, "eigenvalues"),
        (lambda: learning_curve([1.0], [-1.0], 4), ValueError, "target_power"),
        (lambda: learning_curve([1.0], [1.0, 2.0], 4), ValueError, "target_power"),
        (lambda: learning_curve([1.0], [1.0], 0), ValueError, "n_samples"),
        (lambda: learning_curve([1.0], [1.0], 4, ridge=-1.0), ValueError, "ridge"),
        (lambda: learning_curve([1.0], [1.0], 4, noise=np.nan), ValueError, "noise"),
        (lambda: learning_curve([1.0], [1.0], 4, noise="no"), TypeError, "noise"),
    ],
)
def test_bad_arguments_are_named(call, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        call()

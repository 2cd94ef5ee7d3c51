"""The theory against dense linear algebra and simulation."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.ssm import seeded_ssm
from tdi_lib.theory import (
    kernel_modes,
    kernel_spectrum,
    layer_matrix,
    learning_curve,
    simulated_errors,
    ssm_kernel,
    toeplitz_matrix,
)


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


def layer(n_channels: int, length: int) -> np.ndarray:
    return seeded_ssm(n_channels, 16, seed=0, dt_min=0.05, dt_max=0.2).kernel(length).numpy()


COLORS = {
    "white": lambda L: None,
    "stationary": lambda L: 0.7 ** np.arange(L),
    "any": lambda L: scipy.linalg.toeplitz(0.7 ** np.arange(L)) * np.outer(*[np.linspace(0.5, 1.5, L)] * 2),
}


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_dense_spectrum_is_that_of_the_gram_matrix_of_many_samples(color: str, n_channels: int) -> None:
    """Independent path: the squared singular values of T Sigma^(1/2) stacked, and the target's law by its variance."""
    kernels, covariance, w = layer(n_channels, 48), COLORS[color](48), np.cos(np.arange(48.0))
    spectrum = kernel_spectrum(kernels, covariance, target=w)
    full = np.eye(48) if covariance is None else covariance
    full = scipy.linalg.toeplitz(full) if full.ndim == 1 else full
    root = scipy.linalg.sqrtm(full).real
    stacked = np.vstack([toeplitz_matrix(k) for k in kernels]) @ root
    _, s, vt = np.linalg.svd(stacked, full_matrices=False)
    assert spectrum.method == "dense" and np.array_equal(spectrum.counts, np.ones(48))
    assert np.allclose(spectrum.eigenvalues, s**2, rtol=1e-9, atol=1e-12 * s[0] ** 2)
    assert np.allclose(spectrum.target_power, (vt @ root @ w) ** 2, rtol=1e-5, atol=1e-9)
    assert np.isclose(spectrum.target_power.sum(), w @ full @ w)
    assert np.allclose(kernel_spectrum(kernels, covariance).eigenvalues, spectrum.eigenvalues, atol=1e-10)


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_fast_spectrum_predicts_the_dense_learning_curve(color: str, n_channels: int) -> None:
    """Broad responses: the probes' error is that of a mean over as many eigenvalues as matter."""
    kernels = np.random.default_rng(0).normal(size=(n_channels, 256)) * 0.7 ** np.arange(256)
    covariance = COLORS[color](256)
    w = np.cos(1.2 * np.arange(256.0)) * np.hanning(256)
    dense, fast = (
        kernel_spectrum(kernels, covariance, target=w, method=method, n_probes=400) for method in ("dense", "fast")
    )
    assert fast.method == "fast" and np.isclose(fast.counts.sum(), 256)
    assert (np.diff(fast.eigenvalues) <= 0).all() and (fast.counts >= 0).all()
    assert np.isclose(fast.target_power.sum(), dense.target_power.sum())
    curves = [
        learning_curve(s.eigenvalues, s.target_power, [8, 64, 512], ridge=dense.eigenvalues.mean(), counts=s.counts)
        for s in (dense, fast)
    ]
    eta = dense.eigenvalues
    trace_error = np.sqrt(2 * eta @ eta / 400) / eta.sum()  # of a trace by 400 random vectors
    assert trace_error < 0.02
    assert np.allclose(curves[1].error, curves[0].error, rtol=4 * trace_error)
    assert np.allclose(curves[1].kappa, curves[0].kappa, rtol=4 * trace_error)


def test_method_follows_length_and_seed_decides() -> None:
    long = layer(1, 2048)
    fast = kernel_spectrum(long)
    assert fast.method == "fast" and kernel_spectrum(layer(1, 1024)).method == "dense"
    assert np.array_equal(fast.eigenvalues, kernel_spectrum(long).eigenvalues)
    assert not np.array_equal(fast.eigenvalues, kernel_spectrum(long, seed=1).eigenvalues)


def test_counts_stand_for_equal_eigenvalues() -> None:
    one_by_one = learning_curve([2.0, 2.0, 2.0, 0.5], [1.0, 3.0, 0.0, 1.0], [2, 9], ridge=0.1, noise=0.2)
    together = learning_curve([2.0, 0.5], [4.0, 1.0], [2, 9], ridge=0.1, noise=0.2, counts=[3, 1])
    assert np.allclose(one_by_one.error, together.error) and np.allclose(one_by_one.kappa, together.kappa)


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
        (lambda: ssm_kernel(np.ones((1, 1, 1)), [[1.0]]), ValueError, "kernels"),
        (lambda: ssm_kernel([1.0, 1.0], [1.0, 1.0]), ValueError, "u"),
        (lambda: ssm_kernel([1.0, 1.0], [[1.0]]), ValueError, "u"),
        (lambda: ssm_kernel([1.0], [[1.0]], [[1.0, 2.0]]), ValueError, "v"),
        (lambda: ssm_kernel([1.0], [[1j]]), TypeError, "u"),
        (lambda: kernel_spectrum([[0.0, 0.0]]), ValueError, "kernels"),
        (lambda: kernel_spectrum([1.0, np.nan]), ValueError, "kernels"),
        (lambda: kernel_spectrum([1.0, 1.0], [1.0]), ValueError, "covariance"),
        (lambda: kernel_spectrum([1.0, 1.0], [[1.0, 0.5], [0.0, 1.0]]), ValueError, "covariance"),
        (lambda: kernel_spectrum([1.0, 1.0], [1.0, -2.0]), ValueError, "covariance"),
        (lambda: kernel_spectrum([1.0, 1.0], [1.0, -2.0], method="fast"), ValueError, "covariance"),
        (lambda: kernel_spectrum([1.0, 1.0], target=[1.0]), ValueError, "target"),
        (lambda: kernel_spectrum([1.0, 1.0], target=[0.0, 0.0]), ValueError, "target"),
        (lambda: kernel_spectrum([1.0, 1.0], method="exact"), ValueError, "method"),
        (lambda: kernel_spectrum([1.0, 1.0], n_probes=0), ValueError, "n_probes"),
        (lambda: kernel_spectrum([1.0, 1.0], n_steps=1.5), TypeError, "n_steps"),
        (lambda: learning_curve([1.0], [1.0], 4, counts=[-1.0]), ValueError, "counts"),
        (lambda: learning_curve([1.0], [1.0], 4, counts=[1.0, 1.0]), ValueError, "counts"),
        (lambda: learning_curve([1.0], [1.0], 4, counts=[0.0]), ValueError, "eigenvalues"),
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


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_layer_matrix_is_the_sum_of_dense_products(seed: int, channels: int, total: int, length: int) -> None:
    kernels = np.random.default_rng(seed).normal(size=(channels, total))
    length = min(length, total)
    dense = sum(toeplitz_matrix(row).T @ toeplitz_matrix(row) for row in kernels)
    assert np.allclose(layer_matrix(kernels, length), dense[:length, :length])


def test_layer_matrix_refuses_inputs_longer_than_the_kernels() -> None:
    with pytest.raises(ValueError, match="length must be at most the kernels' 4, got 5"):
        layer_matrix(np.ones((2, 4)), 5)


def correlated(seed: int, length: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """A kernel's matrix and an input's covariance, neither of them simple."""
    rng = np.random.default_rng(seed)
    kernels = rng.normal(size=(3, length)) * np.exp(-np.arange(length) / 4)
    return layer_matrix(kernels), np.cov(rng.normal(size=(length, 3 * length))), rng


@given(st.integers(0, 1000), st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_kernel_modes_diagonalise_kernel_and_covariance_at_once(seed: int, length: int) -> None:
    gram, covariance, rng = correlated(seed, length)
    eta, to_modes = kernel_modes(gram, covariance)
    dense = np.sort(np.linalg.eigvals(gram @ covariance).real)[::-1]
    assert np.allclose(eta, dense / dense.sum())
    assert np.allclose(to_modes.T @ to_modes, covariance)
    u = rng.normal(size=(4, length))
    z = u @ np.linalg.inv(to_modes)
    assert np.allclose(z * eta @ z.T, u @ gram @ u.T / np.trace(gram @ covariance))


def test_kernel_modes_leave_out_what_the_inputs_do_not_reach() -> None:
    eta, to_modes = kernel_modes(np.eye(3), np.diag([1.0, 3.0, 0.0]))
    assert np.allclose(eta, [0.75, 0.25])
    assert to_modes.shape == (2, 3)


@pytest.mark.parametrize("n_samples", [5, 30])
def test_simulated_errors_are_those_of_the_kernel_matrix_written_out(n_samples: int) -> None:
    gram, covariance, rng = correlated(3, 8)
    eta, to_modes = kernel_modes(gram, covariance)
    w, ridge, variance = rng.normal(size=(2, 8)), 1e-2, 0.3
    problem = (eta, w @ to_modes.T, ridge)
    quick = simulated_errors([problem], n_samples, 1, noise=[0.0, variance], generator=np.random.default_rng(7))[0][0]
    draws = np.random.default_rng(7)
    u = draws.standard_normal((n_samples, 8)) @ to_modes
    label_noise = np.sqrt(variance) * draws.standard_normal(n_samples)
    scaled = gram / np.trace(gram @ covariance)
    for target, errors in zip(w, quick, strict=True):
        for signs, error in (((0,), errors[0]), ((1, -1), errors[1])):
            labels = [u @ target + sign * label_noise for sign in signs]
            found = [scaled @ u.T @ np.linalg.solve(u @ scaled @ u.T + ridge * np.eye(n_samples), y) for y in labels]
            assert np.isclose(error, np.mean([(f - target) @ covariance @ (f - target) for f in found]))


def test_simulated_errors_have_the_mean_that_the_learning_curve_predicts() -> None:
    eta = np.arange(1.0, 81) ** -1.5
    target = np.random.default_rng(1).normal(size=(1, 80)) * np.sqrt(eta)
    drawn = simulated_errors([(eta, target, 0.05)], 40, 400, noise=0.1, generator=np.random.default_rng(2))[0]
    predicted = learning_curve(eta, target[0] ** 2, 40, ridge=0.05, noise=0.1).error[0]
    assert np.isclose(drawn.mean(), predicted, rtol=0.05)


def test_simulated_errors_take_other_laws_of_the_inputs() -> None:
    problem = (np.ones(2), np.eye(2), 0.0)
    laws = {"draw_modes": lambda P, R, rng: np.eye(P, R), "generator": np.random.default_rng(0)}
    assert np.allclose(simulated_errors([problem], 2, 3, **laws)[0], 0)
    assert np.allclose(simulated_errors([problem], 1, 3, **laws)[0], [[0], [1]])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda rng: kernel_modes(np.ones((2, 3)), np.eye(2)), "gram"),
        (lambda rng: kernel_modes(np.eye(2), np.eye(3)), "covariance"),
        (lambda rng: kernel_modes(np.zeros((2, 2)), np.eye(2)), "gram"),
        (lambda rng: simulated_errors([], 3, 1, generator=rng), "problems"),
        (lambda rng: simulated_errors([(np.ones(2), np.ones((1, 3)), 0.1)], 3, 1, generator=rng), "problems"),
        (lambda rng: simulated_errors([(np.ones(2), np.eye(2), 0.1)], 0, 1, generator=rng), "n_samples"),
        (lambda rng: simulated_errors([(np.ones(2), np.eye(2), 0.1)], 3, 0, generator=rng), "n_draws"),
        (lambda rng: simulated_errors([(np.ones(2), np.eye(2), 0.1)], 3, 1, noise=-1, generator=rng), "noise"),
    ],
)
def test_bad_arguments_of_the_simulation_are_named(call, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        call(np.random.default_rng(0))

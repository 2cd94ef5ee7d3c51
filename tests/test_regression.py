"""Ridge regression against the definitions written out, its theory against simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from tdi_lib.theory import RIDGES, evidence_curve, feature_root, ridge_path


@given(st.integers(0, 1000), st.integers(2, 12), st.integers(1, 16), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_path_is_its_definitions_written_out(seed: int, n: int, n_features: int, n_targets: int) -> None:
    rng = np.random.default_rng(seed)
    features, y = rng.standard_normal((n, n_features)), rng.standard_normal((n, n_targets))
    path = ridge_path(features, y, ridges=RIDGES[4::5])
    gram = features @ features.T
    for ratio, weights, evidence, left_out in zip(path.ridges, path.weights, path.evidence, path.left_out, strict=True):
        ridge = ratio * np.trace(gram) / n
        M = gram + ridge * np.eye(n)
        normal = features.T @ features + ridge * np.eye(n_features)
        assert np.allclose(weights, np.linalg.solve(normal, features.T @ y), rtol=1e-6, atol=1e-9)
        scale = np.trace(y.T @ np.linalg.solve(M, y)) / (n * n_targets)
        law = multivariate_normal(cov=scale * M, allow_singular=False)
        assert np.isclose(evidence, sum(law.logpdf(column) for column in y.T), rtol=1e-6, atol=1e-6)
        misses = []
        for i in range(n):
            keep = np.arange(n) != i
            seen = gram[np.ix_(keep, keep)] + ridge * np.eye(n - 1)  # the ridge itself stays as it is
            misses.append(y[i] - gram[i, keep] @ np.linalg.solve(seen, y[keep]))
        assert np.isclose(left_out, np.mean(np.square(misses)), rtol=1e-5)
    assert path.best == path.evidence.argmax()


def test_the_evidence_curve_forecasts_what_regression_does() -> None:
    rng = np.random.default_rng(0)
    eta = 1.0 / np.arange(1, 61) ** 1.5
    power = np.exp(-np.arange(60) / 4.0)
    for n, noise in ((24, 0.01), (48, 0.3)):
        errors = []
        for _ in range(150):
            w = np.sqrt(power) * rng.choice([-1.0, 1.0], 60)
            z = rng.standard_normal((n, 60))
            y = z @ w + np.sqrt(noise) * rng.standard_normal(n)
            path = ridge_path(z * np.sqrt(eta), y)
            errors.append(np.sum((path.weights[path.best, :, 0] * np.sqrt(eta) - w) ** 2))
        expected = evidence_curve(eta, power, n, noise=noise).error[0]
        assert abs(np.mean(errors) / expected - 1) < 0.15


def test_a_root_gives_the_matrix_back() -> None:
    rng = np.random.default_rng(0)
    B = rng.standard_normal((8, 5))
    root = feature_root(B @ B.T)
    assert np.allclose(root @ root.T, B @ B.T)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ridge_path(np.ones((4, 2)), np.ones(3)), r"y must hold one target per row of features \(4\)"),
        (lambda: ridge_path(np.zeros((4, 2)), np.ones(4)), "features must not be all zero"),
        (lambda: ridge_path(np.ones((4, 2)), np.zeros(4)), "y must not be all zero"),
        (lambda: ridge_path(np.full((4, 2), np.nan), np.ones(4)), "features"),
        (lambda: ridge_path(np.ones((4, 2)), np.ones(4), ridges=[0.0]), "ridges must be positive"),
        (lambda: feature_root([[1.0, 2.0], [0.0, 1.0]]), "gram must be symmetric"),
        (lambda: feature_root([[1.0, 0.0], [0.0, -1.0]]), "gram must be positive semi-definite"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

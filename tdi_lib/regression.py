r"""The learner of the theory: ridge regression, the ridge chosen by evidence; on samples and on paper.

A linear read-out of a layer's output is kernel regression with :math:`K(u, u') = u^\top G u'`
(:func:`~tdi_lib.theory.layer_matrix`), and the same as ridge regression on the features :math:`u^\top B` with
:math:`G = BB^\top` (:func:`feature_root`). A comparison of layers is worth as much as the choice of their ridges:
here all are chosen alike, without a look at test data.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from tdi_lib import _checks
from tdi_lib.theory import LearningCurve, learning_curve

__all__ = ["RIDGES", "RidgePath", "evidence_curve", "feature_root", "ridge_path"]

RIDGES = np.logspace(-4, 2, 25)
"""Ridges to choose from, relative to the mean of the kernel's diagonal."""


def feature_root(gram: ArrayLike) -> np.ndarray:
    """A root B (L, L) of a symmetric positive semi-definite matrix G = B Bᵀ; its columns make features ``x @ B``.

    >>> feature_root([[4.0, 0.0], [0.0, 9.0]]).max(axis=0)
    array([2., 3.])
    """
    matrix = _checks.real_array("gram", gram, ndim=(2,), what="a symmetric matrix (L, L)")
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
    matrix = _checks.real_array("features", features, ndim=(2,), what="(P, F)")
    target = _checks.real_array("y", y, ndim=(1, 2), what="targets (P,) or (P, K)")
    ridges = _checks.real_array("ridges", ridges, ndim=(1,), what="positive numbers (R,)")
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

    In terms of the effective ridge :math:`\kappa` of :func:`~tdi_lib.theory.learning_curve` the evidence's two parts
    have the limits

    .. math::
        \mathrm{E}\, y^\top (K + \lambda I)^{-1} y &\approx
        P \Bigl[ \sum_\rho \frac{\bar w_\rho^2}{\kappa + P \eta_\rho} + \frac{\sigma^2}{\kappa} \Bigr], \\
        \log\det (K + \lambda I) &\approx
        P \log \kappa + \sum_\rho \log \Bigl( 1 + \frac{P\eta_\rho}{\kappa} \Bigr)
        - P \Bigl( 1 - \frac{\lambda}{\kappa} \Bigr).

    Args:
        eigenvalues, target_power, noise: as for :func:`~tdi_lib.theory.learning_curve`.
        n_samples: P.
        ridges: relative to the sum of the eigenvalues, which is the kernel's mean diagonal.

    >>> float(evidence_curve([1.0, 0.1], [1.0, 0.0], 50, noise=0.1).error[0].round(3))
    0.004
    """
    eta = _checks.real_array("eigenvalues", eigenvalues, ndim=(1,), what="(R,) non-negative")
    power = _checks.real_array("target_power", target_power, ndim=(1,), what="(R,) non-negative")
    n_samples = _checks.real_number("n_samples", n_samples, low=1e-9)
    best, chosen = -np.inf, None
    for ridge in _checks.real_array("ridges", ridges, ndim=(1,), what="positive numbers (R,)") * eta.sum():
        curve = learning_curve(eta, power, n_samples, ridge=float(ridge), noise=noise)
        kappa = curve.kappa[0]
        quadratic = n_samples * (np.sum(power / (kappa + n_samples * eta)) + noise / kappa)
        log_det = n_samples * np.log(kappa) + np.log1p(n_samples * eta / kappa).sum() - n_samples * (1 - ridge / kappa)
        evidence = -0.5 * (n_samples * np.log(quadratic) + log_det)
        if evidence > best:
            best, chosen = evidence, curve
    assert chosen is not None
    return chosen

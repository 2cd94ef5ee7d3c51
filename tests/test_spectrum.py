"""Spectrum estimation on tasks whose truth is known."""

import functools

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tdi_lib.spectrum
from tdi_lib.samples import standardize_targets
from tdi_lib.spectrum import METHODS, _empirical_bayes, _f_statistic, estimate_task_spectrum, order_evidence
from tdi_lib.ssm import DiagonalSSM

LENGTH = 128
OMEGA = np.linspace(0, np.pi, LENGTH // 2 + 1)


def colored(power: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Stationary (circular) Gaussian sequences (P, L) with the given power spectrum on [0, pi]."""
    white = np.fft.rfft(rng.normal(size=(n_samples, LENGTH)))
    return np.fft.irfft(white * np.sqrt(power), n=LENGTH)


def band(center: float, width: float = 0.15) -> np.ndarray:
    return np.exp(-(((OMEGA - center) / width) ** 2) / 2)


def linear_task(beta: float, center: float, n_samples: int, seed: int, noise: float = 0.3):
    """Input |omega + 0.2|^-beta, target a filter with power response in one band, random phase."""
    rng = np.random.default_rng(seed)
    x = colored((OMEGA + 0.2) ** -beta, n_samples, rng)
    weights = np.fft.irfft(np.sqrt(band(center)) * np.exp(2j * np.pi * rng.random(len(OMEGA))), n=LENGTH)
    y = x @ weights
    return x, y + noise * y.std() * rng.normal(size=n_samples)


def tone_task(n_samples: int, seed: int, n_classes: int = 3):
    """Classes are tones near 2.4 rad/sample with random phase in red noise: no cross-spectrum at all."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_samples) % n_classes)
    phase = 2 * np.pi * rng.random((n_samples, 1))
    tone = np.cos((2.2 + 0.2 * y[:, None]) * np.arange(LENGTH) + phase)
    return colored((OMEGA + 0.2) ** -2, n_samples, rng) + tone, y


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_contract(method: str) -> None:
    x, y = tone_task(60, 0)
    spectrum = estimate_task_spectrum(x, y, method=method)
    assert spectrum.omega[0] == 0 and np.isclose(spectrum.omega[-1], np.pi)
    for power in (spectrum.power, spectrum.input_power, spectrum.importance):
        assert power.shape == spectrum.omega.shape == (LENGTH // 2 + 1,)
        assert (power >= 0).all() and np.isclose(power.mean(), 1)
    assert (spectrum.input_power > 0).all() and spectrum.n_samples == 60
    assert spectrum.method == method if method != "auto" else spectrum.method in METHODS


@pytest.mark.parametrize("center", [0.5, 1.2, 2.5])
@pytest.mark.parametrize("method", ["wiener", "shrunk", "evidence"])
def test_wiener_methods_find_the_filter_under_colored_input(method: str, center: float) -> None:
    x, y = linear_task(2.0, center, 4096, seed=1)
    spectrum = estimate_task_spectrum(x, y, method=method, smoothing=5)
    assert correlation(spectrum.power, band(center)) > 0.9


def test_cross_power_is_right_for_white_and_wrong_for_red_input() -> None:
    white = estimate_task_spectrum(*linear_task(0.0, 2.5, 4096, 2), method="cross", smoothing=5)
    red = estimate_task_spectrum(*linear_task(3.0, 1.2, 4096, 2), method="cross", smoothing=5)
    assert correlation(white.power, band(2.5)) > 0.9
    weighted = band(1.2) * (OMEGA + 0.2) ** -6  # |c|^2 = |h|^2 S_u^2
    assert correlation(red.power, weighted) > 0.9


def test_cross_power_floor_has_the_inputs_shape() -> None:
    """Unrelated targets: the raw estimate is all bias, E|c|^2 = S_u / P; debiasing removes most of it."""
    rng = np.random.default_rng(3)
    x = colored((OMEGA + 0.2) ** -2, 500, rng)
    targets = rng.normal(size=(500, 40))  # many targets: the average over them is the expectation
    raw = estimate_task_spectrum(x, targets, method="cross", smoothing=1)
    assert correlation(raw.power, raw.input_power) > 0.99


def test_discriminative_finds_the_band_that_cross_cannot_see() -> None:
    x, y = tone_task(300, 4)
    tones = band(2.4, 0.25)
    found = estimate_task_spectrum(x, y, method="discriminative")
    blind = estimate_task_spectrum(x, y, method="cross")
    assert correlation(found.importance - found.importance.min(), tones) > 0.85
    assert correlation(blind.importance, tones) < 0.5


def test_flat_is_flat_on_the_output_over_five_decades() -> None:
    """The baseline must whiten as well as the methods it is compared with: no leakage from the loud band."""
    rng = np.random.default_rng(11)
    loud = np.where(OMEGA < 0.7, 1.0, 1e-5)
    long = np.fft.irfft(
        np.fft.rfft(rng.normal(size=(200, 4 * LENGTH)))
        * np.sqrt(np.interp(np.linspace(0, np.pi, 2 * LENGTH + 1), OMEGA, loud)),
        n=4 * LENGTH,
    )
    flat = estimate_task_spectrum(long[:, :LENGTH], np.arange(200) % 2, method="flat")  # not circular
    quiet = flat.input_power[OMEGA > 1.2].mean() / flat.input_power[OMEGA < 0.4].mean()
    assert 0.7e-5 < quiet < 1.5e-5
    assert np.allclose(flat.importance, 1)


def test_auto_tells_first_from_second_order() -> None:
    for seed in range(5):
        assert estimate_task_spectrum(*linear_task(1.0, 1.2, 200, seed)).method == "evidence"
        assert estimate_task_spectrum(*tone_task(200, seed)).method == "discriminative"


def bump(center: float, width: float = 0.15) -> np.ndarray:
    """The bands of THEORY, section 5."""
    return np.exp(-(((OMEGA - center) / width) ** 2))


RED, WHITE, VERY_RED = 1.0, 0.0, 2.0
LINEAR_TASKS = {  # color of the input, power response of the target's filter, noise
    **{
        f"{color} {band}": (beta, bump(center), 0.3)
        for color, beta in (("red", RED), ("white", WHITE), ("very red", VERY_RED))
        for band, center in (("low", 0.2), ("mid", 1.2), ("high", 2.5))
    },
    "two bands": (RED, bump(0.4) + bump(2.2), 0.3),
    "unequal bands": (RED, bump(0.4) + 0.2 * bump(2.2, 0.4), 0.3),
    "noisy": (RED, bump(1.2), 1.0),
    "narrow": (RED, bump(1.2, 0.05), 0.3),
    "narrow, faint": (VERY_RED, bump(2.5, 0.05), 0.3),
    "wide": (RED, bump(1.2, 0.5), 0.3),
    "step": (WHITE, 1.0 * (OMEGA < 1.0), 0.3),
    "decaying": (WHITE, (OMEGA + 0.2) ** -2, 0.3),
    "no band, white filter": (RED, np.ones_like(OMEGA), 0.3),
    "no band, white output": (RED, OMEGA + 0.2, 0.3),
}


@functools.cache
def default_layer() -> np.ndarray:
    """Gram matrix of S4D-Lin's features, the sum of T'T over 64 channels."""
    kernels = DiagonalSSM(64, 64, generator=torch.Generator().manual_seed(0)).double().kernel(LENGTH).detach().numpy()
    toeplitz = [scipy.linalg.toeplitz(kernel, np.zeros(LENGTH)) for kernel in kernels]
    return sum(t.T @ t for t in toeplitz)


def circulant(power: np.ndarray) -> np.ndarray:
    return scipy.linalg.circulant(np.fft.irfft(power, n=LENGTH))


@functools.cache
def generalization_errors(task: str, n_samples: int = 64, draws: int = 16) -> dict[str, float]:
    """E_g of kernel regression, relative to the target's variance and exact over inputs, at the best of many ridges.

    Kernel u'Au' with A the circulant whose eigenvalues are the estimated power response.
    """
    beta, response, noise = LINEAR_TASKS[task]
    s_u = (OMEGA + 0.2) ** -beta
    covariance = circulant(s_u)
    errors: dict[str, list[np.ndarray]] = {}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        x = colored(s_u, n_samples, rng)
        w = np.fft.irfft(np.sqrt(response) * np.exp(2j * np.pi * rng.random(len(OMEGA))), n=LENGTH)
        variance = w @ covariance @ w
        y = x @ w + noise * np.sqrt(variance) * rng.normal(size=n_samples)
        columns = {"default": default_layer(), "white": np.eye(LENGTH), "oracle": circulant(response)}
        for method in ("input", "flat", "cross", "wiener", "shrunk", "evidence"):
            columns[method] = circulant(estimate_task_spectrum(x, y, method=method).power)
        for name, a in columns.items():
            values, vectors = np.linalg.eigh(x @ a @ x.T)
            ridges = np.logspace(-4, 2, 19) * values.mean()
            alpha = vectors @ ((vectors.T @ y)[:, None] / (values[:, None] + ridges))
            miss = a @ x.T @ alpha - w[:, None]
            errors.setdefault(name, []).append((miss * (covariance @ miss)).sum(axis=0) / variance)
    return {name: float(np.mean(each, axis=0).min()) for name, each in errors.items()}


@pytest.mark.parametrize("task", LINEAR_TASKS)
def test_evidence_is_near_the_best_column_on_every_task(task: str) -> None:
    """No other way to choose the spectrum is better by more than 15 percent, whichever suits the task."""
    errors = dict(generalization_errors(task))
    ours, oracle = errors.pop("evidence"), errors.pop("oracle")
    assert oracle < ours <= 1.15 * min(errors.values())


def test_evidence_halves_the_error_of_cross_power_and_is_not_far_from_the_truth() -> None:
    published = [generalization_errors(task) for task in list(LINEAR_TASKS)[:9]]
    assert np.mean([e["evidence"] / e["cross"] for e in published]) <= 0.5
    assert np.mean([e["evidence"] / e["shrunk"] for e in published]) <= 0.8
    assert np.mean([e["evidence"] / e["oracle"] for e in published]) <= 1.3


def most_probable_power(inputs: np.ndarray, target: np.ndarray, log_s_u: np.ndarray, scale: float) -> np.ndarray:
    """The same posterior from dense covariances, maximized by scipy from function values alone."""
    n_samples, length, _ = inputs.shape
    lags = np.fft.irfft(np.eye(length // 2 + 1), n=length, axis=1)  # autocovariance of one frequency alone
    x = inputs[:, :, 0] - inputs[:, :, 0].mean(axis=0)
    x = x / np.sqrt((x**2).sum(axis=1).mean())
    grams = np.array([x @ scipy.linalg.circulant(lag) @ x.T for lag in lags])
    omega = np.linspace(0, np.pi, length // 2 + 1)
    k = np.arange(len(omega))
    weights = np.where(k, 2.0, 1.0) * np.exp(-0.5 * (k * scale) ** 2)
    variance = np.concatenate([16 * weights / weights.sum() + 1e-8, [1.0, 1.0]])
    variance[0] += 1
    basis = np.column_stack([np.cos(np.outer(omega, k)), log_s_u])
    base = np.exp(-0.5 * log_s_u)
    base = 0.5 * n_samples / np.einsum("f,fpp", base, grams) * base

    def loss(whitened: np.ndarray) -> float:
        theta = whitened * np.sqrt(variance)
        power = base * np.exp(basis @ theta[:-1])
        noise = 0.3 * np.exp(theta[-1])
        covariance = np.einsum("f,fpq->pq", power, grams) + noise * np.eye(n_samples)
        fit = scipy.stats.multivariate_normal(cov=covariance).logpdf(target.T)
        return 0.5 * float(whitened @ whitened + 1e-4 * n_samples / noise) - float(np.sum(fit))

    best = scipy.optimize.minimize(loss, np.zeros(len(variance)), method="BFGS", options={"gtol": 1e-4})
    return base * np.exp(basis @ (best.x * np.sqrt(variance))[:-1])


@pytest.mark.parametrize("n_samples", [12, 40], ids=["P < L", "P > L"])
def test_evidence_finds_the_most_probable_spectrum(n_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    inputs = np.cumsum(rng.normal(size=(n_samples, 16, 1)), axis=1)
    y = inputs[:, :, 0] @ np.cos(1.2 * np.arange(16)) + 2 * rng.normal(size=n_samples)
    target = standardize_targets(y, n_samples)
    log_s_u = -2 * np.log(np.linspace(0, np.pi, 9) + 0.3)
    log_s_u -= log_s_u.mean()
    monkeypatch.setattr(tdi_lib.spectrum, "_SMOOTHNESS", (0.5,))
    monkeypatch.setattr(tdi_lib.spectrum, "_TOLERANCE", 1e-9)
    power, _ = _empirical_bayes(inputs, target, log_s_u)
    expected = most_probable_power(inputs, target, log_s_u, 0.5)
    assert np.allclose(np.log(power) / tdi_lib.spectrum._SHARPEN, np.log(expected), atol=2e-3)


def test_evidence_of_unrelated_targets_is_a_flat_importance() -> None:
    peaks: dict[str, list[float]] = {"evidence": [], "shrunk": []}
    for seed in range(12):
        x, y = linear_task(1.0, 1.2, 64, seed)
        y = np.random.default_rng(seed).permutation(y)
        for method, peak in peaks.items():
            peak.append(estimate_task_spectrum(x, y, method=method).importance.max())
    assert np.median(peaks["evidence"]) < 1.5 < 4 < np.median(peaks["shrunk"])
    related = estimate_task_spectrum(*linear_task(1.0, 1.2, 64, 0), method="evidence")
    assert related.importance.max() > 5


@pytest.mark.parametrize("n_samples", [40, 100, 300], ids=["P < L", "P near L", "P > L"])
def test_evidence_finds_the_band_of_a_target_without_noise(n_samples: int) -> None:
    """Every spectrum explains such a target; the right one is still by far the likeliest."""
    x, y = linear_task(1.0, 1.2, n_samples, 17, noise=0.0)
    assert correlation(estimate_task_spectrum(x, y, method="evidence").power, band(1.2)) > 0.9


def test_evidence_sees_a_quiet_band() -> None:
    """The target lives where the input has a hundred-thousandth of its power."""
    rng = np.random.default_rng(18)
    x = colored(np.where(OMEGA < 0.7, 1.0, 1e-5), 100, rng)
    y = x @ np.fft.irfft(np.sqrt(bump(2.0)) * np.exp(2j * np.pi * rng.random(len(OMEGA))), n=LENGTH)
    y += 0.3 * y.std() * rng.normal(size=100)
    assert correlation(estimate_task_spectrum(x, y, method="evidence").importance, bump(2.0)) > 0.9


def test_evidence_counts_a_repeated_target_once_and_takes_labels() -> None:
    x, y = linear_task(1.0, 1.2, 60, 14)
    once, labels = y[:, None], (y > 0).astype(int)
    same = lambda a, b: np.allclose(  # noqa: E731
        *(estimate_task_spectrum(x, t, method="evidence").power for t in (a, b)), rtol=1e-6
    )
    assert same(once, np.hstack([once, -3 * once, once]))
    assert same(labels, 2.0 * labels - 1)  # two classes, two columns
    assert not same(once, np.hstack([once, np.random.default_rng(0).normal(size=(60, 1))]))


def test_evidence_pools_channels_and_their_units_do_not_matter() -> None:
    x, y = linear_task(1.0, 1.2, 80, 15)
    silent = colored((OMEGA + 0.2) ** -2, 80, np.random.default_rng(1))
    one = estimate_task_spectrum(np.stack([x, silent], axis=2), y, method="evidence")
    other = estimate_task_spectrum(np.stack([x, 1e3 * silent], axis=2), y, method="evidence")
    assert correlation(one.importance, band(1.2)) > 0.8
    assert np.allclose(one.importance, other.importance, rtol=1e-6)


def test_evidence_of_many_long_sequences_uses_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = linear_task(1.0, 1.2, 600, 16)
    monkeypatch.setattr(tdi_lib.spectrum, "_MAX_WORK", 1)
    used = []
    original = np.linalg.cholesky
    monkeypatch.setattr(np.linalg, "cholesky", lambda a: used.append(len(a)) or original(a))
    long, labels = np.tile(x, (1, 2)), y > np.sort(y)[-3]  # two of the rare class
    assert (
        correlation(
            estimate_task_spectrum(long, y, method="evidence").power,
            np.interp(np.linspace(0, np.pi, LENGTH + 1), OMEGA, band(1.2)),
        )
        > 0.5
    )
    estimate_task_spectrum(long, labels, method="evidence")
    assert set(used) == {128}


def test_evidence_is_the_gaussian_processs() -> None:
    """Against scipy's multivariate normal with the best scale and ratio on the same grid."""
    from tdi_lib.spectrum import _evidence

    rng = np.random.default_rng(5)
    features, target = rng.normal(size=(20, 7)), rng.normal(size=(20, 1))
    gram = features @ features.T
    gram = gram / np.trace(gram) * 20
    best = -np.inf
    for ratio in np.logspace(-3, 3, 25):
        cov = gram + ratio * np.eye(20)
        scale = float(target[:, 0] @ np.linalg.solve(cov, target[:, 0])) / 20
        best = max(best, scipy.stats.multivariate_normal(cov=scale * cov).logpdf(target[:, 0]) / 20)
    assert np.isclose(_evidence(features @ features.T, target[None])[0], best)


@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_f_statistic_is_scipys_anova(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % n_classes
    feature = rng.normal(size=(40, 3)) + labels[:, None] * rng.random()
    ours, null = _f_statistic(feature, standardize_targets(labels, 40))
    theirs = scipy.stats.f_oneway(*(feature[labels == c] for c in range(n_classes))).statistic
    assert np.allclose(ours, theirs)
    assert np.isclose(null, scipy.stats.f(n_classes - 1, 40 - n_classes).mean())


def test_f_statistic_of_a_real_target_is_the_regressions() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=50)
    feature = 0.5 * y + rng.normal(size=50)
    ours, _ = _f_statistic(feature[:, None], standardize_targets(y, 50))
    r = scipy.stats.pearsonr(feature, y).statistic
    assert np.isclose(ours[0], r**2 / (1 - r**2) * 48)


@given(scale=st.floats(0.01, 100), shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_units_do_not_matter(scale: float, shift: float) -> None:
    x, y = linear_task(1.0, 1.2, 50, 7)
    for method in ("shrunk", "evidence", "discriminative", "flat"):
        one = estimate_task_spectrum(x, y, method=method)
        other = estimate_task_spectrum(scale * x + shift, scale * y - shift, method=method)
        assert np.allclose(one.power, other.power, rtol=1e-6)


def test_labels_tensors_channels_and_odd_lengths() -> None:
    x, y = tone_task(60, 8)
    numbers = estimate_task_spectrum(x, y, method="discriminative")
    words = estimate_task_spectrum(x, np.array(["a", "b", "c"])[y], method="discriminative")
    tensors = estimate_task_spectrum(torch.tensor(x), torch.tensor(y), method="discriminative")
    assert np.allclose(numbers.power, words.power) and np.allclose(numbers.power, tensors.power)
    stacked = np.stack([x, x], axis=2)
    assert np.allclose(estimate_task_spectrum(stacked, y, method="discriminative").power, numbers.power)
    odd = estimate_task_spectrum(x[:, :-1], y)
    assert len(odd.omega) == LENGTH // 2 + 1 and np.isclose(odd.omega[-1], np.pi)


def test_estimates_do_not_depend_on_test_order_or_global_seed() -> None:
    x, y = tone_task(60, 9)
    shuffled = np.random.default_rng(0).permutation(60)
    one, other = estimate_task_spectrum(x, y), estimate_task_spectrum(x[shuffled], y[shuffled])
    assert one.method == other.method and np.allclose(one.power, other.power)


def test_plot_has_labels_with_units() -> None:
    import matplotlib

    matplotlib.use("Agg")
    ax = estimate_task_spectrum(*tone_task(60, 10)).plot()
    assert "rad/sample" in ax.get_xlabel() and ax.get_ylabel() and ax.get_legend() is not None


X = np.random.default_rng(0).normal(size=(12, 16))
Y = np.arange(12) % 2
NAN = np.where(np.arange(16) == 3, np.nan, X)


@pytest.mark.parametrize(
    ("x", "y", "error", "name"),
    [
        (NAN, Y, ValueError, "x must be finite"),
        (X * 1j, Y, TypeError, "x must be real"),
        (X[0], Y, ValueError, "x must be sequences"),
        (X[:, :1], Y, ValueError, "x must have at least"),
        (X[:3], Y[:3], ValueError, "x must hold at least"),
        (X[:0], Y[:0], ValueError, "x must not be empty"),
        (np.ones((12, 16)), Y, ValueError, "x must hold no constant"),
        (np.where(np.arange(12)[:, None] == 5, 1.0, X), Y, ValueError, "index 5"),
        (np.tile(X[:1], (12, 1)), Y, ValueError, "x must hold sequences that differ, got 12"),
        ([[1.0, 2.0], [1.0]], Y, ValueError, "x must be sequences"),
        ("words", Y, TypeError, "x must be real"),
        (X, Y[:-1], ValueError, "y must hold one target"),
        (X, 1, ValueError, "y must hold one target"),
        (X, np.zeros(12, int), ValueError, "y must hold at least two classes"),
        (X, np.arange(12), ValueError, "y must hold at least two samples per class"),
        (X, np.zeros(12), ValueError, "y must vary"),
        (X, np.full(12, np.nan), ValueError, "y must be finite"),
        (X, Y * 1j, TypeError, "y must be real"),
        (X, np.ones((12, 1, 1)), ValueError, "y must be targets"),
        (X, np.full((12, 2), 3), ValueError, "y must be class labels"),
    ],
)
def test_bad_samples_are_named(x, y, error: type[Exception], name: str) -> None:
    for call in (estimate_task_spectrum, order_evidence):
        with pytest.raises(error, match=name):
            call(x, y)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"method": "best"}, ValueError, "method"),
        ({"smoothing": 0}, ValueError, "smoothing"),
        ({"smoothing": 2.5}, TypeError, "smoothing"),
        ({"floor": 2.0}, ValueError, "floor"),
        ({"floor": "low"}, TypeError, "floor"),
    ],
)
def test_bad_options_are_named(options: dict, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        estimate_task_spectrum(X, Y, **options)


def test_discriminative_says_when_samples_are_too_few() -> None:
    with pytest.raises(ValueError, match="x must hold at least 5 sequences"):
        estimate_task_spectrum(X[:4], Y[:4], method="discriminative")


@pytest.mark.parametrize("method", ["flat", "input"])
def test_task_agnostic_methods_need_no_target(method: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 24, 2))
    without, with_y = estimate_task_spectrum(x, method=method), estimate_task_spectrum(x, x[:, 3, 0], method=method)
    assert np.array_equal(without.power, with_y.power) and np.array_equal(without.input_power, with_y.input_power)


@pytest.mark.parametrize("method", ["auto", "cross", "evidence", "discriminative"])
def test_other_methods_ask_for_the_target(method: str) -> None:
    with pytest.raises(ValueError, match=f"y must be given for method '{method}', got None"):
        estimate_task_spectrum(np.random.default_rng(0).normal(size=(32, 24)), method=method)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_order_evidence_sees_every_class_whatever_the_order_of_the_samples(period: int) -> None:
    """Labels that alternate must not fall into step with the thinning of many samples."""
    rng = np.random.default_rng(0)
    y = np.arange(1600) % period
    x = rng.normal(size=(1600, 16)) + np.cos(0.7 * y[:, None] * np.arange(16))
    shuffled = rng.permutation(1600)
    one, other = order_evidence(x, y), order_evidence(x[shuffled], y[shuffled])
    assert one[0] > one[1] + 0.2
    assert np.allclose(one, other, atol=0.1)

"""Spectrum estimation on tasks whose truth is known."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.spectrum import METHODS, _f_statistic, _targets, estimate_task_spectrum, order_evidence

LENGTH = 128
OMEGA = np.linspace(0, np.pi, LENGTH // 2 + 1)


def coloured(power: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Stationary (circular) Gaussian sequences (P, L) with the given power spectrum on [0, pi]."""
    white = np.fft.rfft(rng.normal(size=(n_samples, LENGTH)))
    return np.fft.irfft(white * np.sqrt(power), n=LENGTH)


def band(centre: float, width: float = 0.15) -> np.ndarray:
    return np.exp(-(((OMEGA - centre) / width) ** 2) / 2)


def linear_task(beta: float, centre: float, n_samples: int, seed: int, noise: float = 0.3):
    """Input |omega + 0.2|^-beta, target a filter with power response in one band, random phase."""
    rng = np.random.default_rng(seed)
    x = coloured((OMEGA + 0.2) ** -beta, n_samples, rng)
    weights = np.fft.irfft(np.sqrt(band(centre)) * np.exp(2j * np.pi * rng.random(len(OMEGA))), n=LENGTH)
    y = x @ weights
    return x, y + noise * y.std() * rng.normal(size=n_samples)


def tone_task(n_samples: int, seed: int, n_classes: int = 3):
    """Classes are tones near 2.4 rad/sample with random phase in red noise: no cross-spectrum at all."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_samples) % n_classes)
    phase = 2 * np.pi * rng.random((n_samples, 1))
    tone = np.cos((2.2 + 0.2 * y[:, None]) * np.arange(LENGTH) + phase)
    return coloured((OMEGA + 0.2) ** -2, n_samples, rng) + tone, y


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


@pytest.mark.parametrize("centre", [0.5, 1.2, 2.5])
@pytest.mark.parametrize("method", ["wiener", "shrunk"])
def test_wiener_methods_find_the_filter_under_coloured_input(method: str, centre: float) -> None:
    x, y = linear_task(2.0, centre, 4096, seed=1)
    spectrum = estimate_task_spectrum(x, y, method=method, smoothing=5)
    assert correlation(spectrum.power, band(centre)) > 0.9


def test_cross_power_is_right_for_white_and_wrong_for_red_input() -> None:
    white = estimate_task_spectrum(*linear_task(0.0, 2.5, 4096, 2), method="cross", smoothing=5)
    red = estimate_task_spectrum(*linear_task(3.0, 1.2, 4096, 2), method="cross", smoothing=5)
    assert correlation(white.power, band(2.5)) > 0.9
    weighted = band(1.2) * (OMEGA + 0.2) ** -6  # |c|^2 = |h|^2 S_u^2
    assert correlation(red.power, weighted) > 0.9


def test_cross_power_floor_has_the_inputs_shape() -> None:
    """Unrelated targets: the raw estimate is all bias, E|c|^2 = S_u / P; debiasing removes most of it."""
    rng = np.random.default_rng(3)
    x = coloured((OMEGA + 0.2) ** -2, 500, rng)
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
        assert estimate_task_spectrum(*linear_task(1.0, 1.2, 200, seed)).method == "shrunk"
        assert estimate_task_spectrum(*tone_task(200, seed)).method == "discriminative"


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
    assert np.isclose(_evidence(features @ features.T, target), best)


@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_f_statistic_is_scipys_anova(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % n_classes
    feature = rng.normal(size=(40, 3)) + labels[:, None] * rng.random()
    ours, null = _f_statistic(feature, _targets(labels, 40))
    theirs = scipy.stats.f_oneway(*(feature[labels == c] for c in range(n_classes))).statistic
    assert np.allclose(ours, theirs)
    assert np.isclose(null, scipy.stats.f(n_classes - 1, 40 - n_classes).mean())


def test_f_statistic_of_a_real_target_is_the_regressions() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=50)
    feature = 0.5 * y + rng.normal(size=50)
    ours, _ = _f_statistic(feature[:, None], _targets(y, 50))
    r = scipy.stats.pearsonr(feature, y).statistic
    assert np.isclose(ours[0], r**2 / (1 - r**2) * 48)


@given(scale=st.floats(0.01, 100), shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_units_do_not_matter(scale: float, shift: float) -> None:
    x, y = linear_task(1.0, 1.2, 50, 7)
    for method in ("shrunk", "discriminative", "flat"):
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
        ([[1.0, 2.0], [1.0]], Y, ValueError, "x must be sequences"),
        ("words", Y, TypeError, "x must be real"),
        (X, Y[:-1], ValueError, "y must hold one target"),
        (X, 1, ValueError, "y must hold one target"),
        (X, np.zeros(12, int), ValueError, "y must hold at least two classes"),
        (X, Y - 1, ValueError, "y must be non-negative"),
        (X, np.arange(12), ValueError, "y must hold at least two samples per class"),
        (X, np.zeros(12), ValueError, "y must vary"),
        (X, np.full(12, np.nan), ValueError, "y must be finite"),
        (X, Y * 1j, TypeError, "y must be real"),
        (X, np.ones((12, 1, 1)), ValueError, "y must be targets"),
        (X, np.ones((12, 2), int), ValueError, "y must be class labels"),
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

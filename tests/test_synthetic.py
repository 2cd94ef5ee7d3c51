"""Tasks of known truth: their law is the one that is stated."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.data import sets
from tdi_lib.data.synthetic import TONES, autocovariance, band_functionals, four_tones, tone_noise_power
from tdi_lib.spectrum import estimate_task_spectrum


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_autocovariance_is_the_integral_of_the_spectrum(beta: float) -> None:
    integral = [
        scipy.integrate.quad(lambda w, k=k: (w + 0.2) ** -beta * math.cos(k * w), 0, math.pi, limit=200)[0]
        for k in (0, 1, 5)
    ]
    r = autocovariance(beta, 64)
    assert np.allclose(r[[0, 1, 5]], np.array(integral) / integral[0], atol=1e-3)


@given(st.floats(0, math.pi), st.sampled_from([0, 1, 2]), st.integers(0, 2**31))
def test_band_functionals_have_unit_variance_in_their_band(center: float, beta: int, seed: int) -> None:
    r = autocovariance(beta, 64)
    w = band_functionals(center, r, 3, generator=np.random.default_rng(seed))
    assert np.allclose(np.diag(w @ scipy.linalg.toeplitz(r) @ w.T), 1)
    omega = 2 * np.pi * np.fft.rfftfreq(64)
    power = np.abs(np.fft.rfft(w)) ** 2
    far = np.abs(omega - center) > 1.0
    assert power[:, far].sum() < 1e-3 * power.sum()


def test_four_tones_have_the_stated_spectrum_and_no_first_order_trace() -> None:
    x, y = four_tones(4000, amplitude=0.25, generator=np.random.default_rng(0))
    omega, power = scipy.signal.periodogram(x, fs=2 * math.pi, axis=1)
    smooth = (omega > 0.3) & (omega < 2.0)  # where there is no tone
    expected = tone_noise_power(omega) / math.pi  # one-sided density: the variance is its integral
    assert np.allclose(power.mean(axis=0)[smooth], expected[smooth], rtol=0.15)
    for k, tone in enumerate(TONES):  # every class has its own line, amplitude^2 / 2 above the noise
        line = power[y == k].mean(axis=0) - expected
        near = np.abs(omega - tone) < 0.05
        assert math.isclose(line[near].sum() * (omega[1] - omega[0]), 0.25**2 / 2, rel_tol=0.15)
    means = np.array([x[y == k].mean(axis=0) for k in range(4)])
    assert np.abs(means).max() < 5 * x.std() / math.sqrt(1000)


def test_generated_sets_load_like_the_others() -> None:
    data = sets.load("tones-25")
    again = sets.load("tones-25")
    assert data.name == "tones-25" and data.x_train.shape == (4000, 256, 1) and len(data.y_test) == 2000
    assert data.x_train.tobytes() == again.x_train.tobytes()
    assert not (data.x_train[:2000] == data.x_test).all(axis=1).any()
    part = data.subset(160, seed=0)
    assert len(part.x) == 128 and np.bincount(part.y).tolist() == [32] * 4
    assert estimate_task_spectrum(part.x, part.y).method == "discriminative"


def test_bad_arguments_are_named() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="center"):
        band_functionals(4.0, np.ones(8), 1, generator=generator)
    with pytest.raises(ValueError, match="r must have an even length, got 7"):
        band_functionals(1.0, np.ones(7), 1, generator=generator)
    with pytest.raises(ValueError, match="amplitude"):
        four_tones(8, amplitude=-1.0, generator=generator)
    with pytest.raises(ValueError, match="n_samples"):
        four_tones(0, amplitude=1.0, generator=generator)

"""The task scalogram against direct sums, simulated filters and tasks whose right resolution is measured."""

import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.data.synthetic import SHARPNESS, sharpness_task
from tdi_lib.scalogram import (
    N_PAIRS,
    Scalogram,
    _filters,
    band_energies,
    from_the_end,
    last_outputs,
    resolution_grid,
)
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum, periodograms


def capon(
    decay: float, center: float, omega: np.ndarray, input_power: np.ndarray, phase: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Poles and residues (N,), pole by pole: least output power for a unit response at the center."""
    poles = np.exp(-decay + 1j * (center + np.linspace(-1, 1, N_PAIRS) * decay))

    def responses(at: np.ndarray) -> np.ndarray:
        direct, mirrored = (1 / (1 - each * np.exp(-1j * at[:, None])) for each in (poles, poles.conj()))
        return np.concatenate([direct + mirrored, 1j * (direct - mirrored)], axis=1)  # (F 2N)

    phi = responses(omega)
    covariance = (phi.conj().T @ (input_power[:, None] * phi)).real / omega.size
    loaded = covariance + 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    wanted = (np.exp(-1j * phase) * responses(np.array([center]))[0]).real
    weights = np.linalg.solve(loaded, wanted)
    weights /= math.sqrt(weights @ covariance @ weights)
    return poles, weights[:N_PAIRS] + 1j * weights[N_PAIRS:]


def power_response(poles: np.ndarray, residues: np.ndarray, omega: np.ndarray) -> np.ndarray:
    z = np.exp(-1j * omega)
    pairs = zip(poles, residues, strict=True)
    return np.abs(sum(c / (1 - a * z) + np.conj(c) / (1 - np.conj(a) * z) for a, c in pairs)) ** 2


def impulse(poles: np.ndarray, residues: np.ndarray, length: int) -> np.ndarray:
    return 2 * (residues @ poles[:, None] ** np.arange(length)).real


@pytest.mark.parametrize("decay", [0.02, 0.1, 0.3])
def test_band_energies_are_those_of_a_direct_sum(decay: float) -> None:
    rng = np.random.default_rng(0)
    x = scipy.signal.lfilter([1], [1, -0.9], rng.normal(size=(6, 64, 2)), axis=1)
    periodogram = periodograms(x)
    energies, centers = band_energies(periodogram, decay)
    omega = np.linspace(0, np.pi, 33)
    assert centers[0] == 0 and np.isclose(centers[-1], np.pi)
    assert (np.diff(centers) <= max(decay / 2, omega[1]) + 1e-12).all()
    for channel in range(2):
        mean = periodogram[:, :, channel].mean(axis=0)
        for index, center in enumerate(centers):
            response = power_response(*capon(decay, center, omega, mean / mean.mean()), omega)
            for sample in range(6):
                energy = sum(p * h for p, h in zip(periodogram[sample, :, channel], response, strict=True))
                assert np.isclose(energies[sample, index, channel], energy, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.05, 0.2])
def test_log_energy_has_the_variance_that_its_degrees_of_freedom_say(decay: float) -> None:
    noise = np.random.default_rng(0).normal(size=(4000, 512))
    energies, centers = band_energies(periodograms(noise[:, :, None]), decay)
    inside = (centers > 0.8) & (centers < 2.4)  # at 0 and pi a coefficient is real
    omega, filters = np.linspace(0, np.pi, 257), _filters(decay, centers[inside], np.ones(257))
    response = np.stack([power_response(np.exp(p), c, omega) for p, c in zip(*filters, strict=True)])
    bins = response.sum(axis=1) ** 2 / (response**2).sum(axis=1)
    variance = np.log(energies[:, inside, 0]).var(axis=0)
    # of the Hann window: sum of fourth powers over the squared sum of squares
    assert np.allclose(variance, 35 / 18 / bins, rtol=0.15)


@pytest.mark.parametrize("decay", [0.02, 0.1, 0.4])
def test_single_pole_has_l_tanh_delta_independent_coefficients(decay: float) -> None:
    omega = 2 * np.pi * np.arange(4096) / 4096
    response = 1 / np.abs(1 - np.exp(-decay + 1j * (1.0 - omega))) ** 2
    assert np.isclose(response.sum() ** 2 / (response**2).sum(), 4096 * math.tanh(decay), rtol=1e-6)


def test_first_order_covariance_is_that_of_simulated_filters() -> None:
    rng = np.random.default_rng(1)
    x, decay, omega = (
        scipy.signal.lfilter([1], [1, -0.8], rng.normal(size=(6, 24, 2)), axis=1),
        0.2,
        np.linspace(0, np.pi, 13),
    )
    mean = periodograms(x).mean(axis=0)
    covariance, reach = np.zeros((6, 6)), np.zeros(24)
    for channel in range(2):
        signal = x[:, :, channel] - x[:, :, channel].mean(axis=0)
        for center in omega:
            for phase in (-math.pi / 4, math.pi / 4):
                poles, residues = capon(decay, center, omega, mean[:, channel] / mean[:, channel].mean(), phase)
                state = np.zeros((6, N_PAIRS), dtype=complex)
                for t in range(24):
                    state = poles * state + signal[:, t, None] / signal.std()
                output = 2 * (state @ residues).real
                covariance += np.outer(output, output)
                kernel = impulse(poles, residues, 24)
                reach += kernel**2 / (kernel**2).sum()
    found, found_reach = last_outputs(from_the_end(x, None), mean, decay)
    assert np.allclose(found, covariance, rtol=1e-5, atol=1e-6 * np.trace(covariance))
    assert np.allclose(found_reach, np.sqrt(reach / reach.max()), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.02, 0.05, 0.2])
def test_a_bank_remembers_best_what_lies_three_decays_back(decay: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 400, 1))
    reach = last_outputs(from_the_end(x, None), np.ones((201, 1)), decay)[1]
    assert 1.5 < reach.argmax() * decay < 4


def test_sequences_of_different_lengths_are_read_from_their_own_ends() -> None:
    rng = np.random.default_rng(2)
    x, ends = rng.normal(size=(6, 20, 1)), np.array([20, 8, 13, 20, 9, 17])
    for p, end in enumerate(ends):
        x[p, end:] = x[p, :end].mean()
    found = from_the_end(x, ends)
    direct = np.array(
        [[x[p, e - 1 - t, 0] if t < e else x[p, :e].mean() for t in range(20)] for p, e in enumerate(ends)]
    )
    assert np.allclose(found[:, :, 0], direct - direct.mean(axis=0))


@pytest.mark.parametrize("kind", ["event", "lines"])
def test_padding_may_hold_anything(kind: str) -> None:
    x, y = sharpness_task(kind, 40, generator=np.random.default_rng(3), length=64)
    ends = np.random.default_rng(4).integers(32, 65, size=40)
    beyond = np.arange(64) >= ends[:, None]
    one, other = (
        estimate_task_spectrum(np.where(beyond, fill, x), y, lengths=ends, resolutions="auto") for fill in (np.nan, 1e6)
    )
    assert np.allclose(one.power, other.power)
    assert np.allclose(one.scalogram.evidence, other.scalogram.evidence)


def simulated_features(x: np.ndarray, decay: float, order: int) -> np.ndarray:
    """What a bank makes of white sequences (P, L), in the time domain: last outputs, or log energies."""
    length = x.shape[1]
    omega, bins = np.linspace(0, np.pi, 2 * length + 1), 2 * np.pi / length
    spectrum, features = np.fft.rfft(x, n=2 * length), []
    for center in bins * np.arange(0, length // 2 + 1, max(int(decay / 2 / bins), 1)):
        for phase in (-math.pi / 4, math.pi / 4)[: 3 - order]:
            kernel = impulse(*capon(decay, center, omega, np.ones(omega.size), phase), length)
            if order == 1:
                features.append(x[:, ::-1] @ kernel)
            else:
                output = np.fft.irfft(spectrum * np.fft.rfft(kernel, n=2 * length))[:, :length]
                features.append(np.log((output**2).mean(axis=1)))
    return np.stack(features, axis=1)


def held_out_error(train: np.ndarray, y: np.ndarray, fresh: np.ndarray, y_fresh: np.ndarray) -> float:
    """Squared error of ridge regression, its strength by leave-one-out."""
    mean, scale = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-9)
    u, s, v = np.linalg.svd((train - mean) / scale, full_matrices=False)
    level, best = y.mean(), (math.inf, 0.0)
    for ridge in train.shape[1] * np.logspace(-3, 3, 25):
        shrink = s**2 / (s**2 + ridge)
        left = (y - level - u @ (shrink * (u.T @ (y - level)))) / (1 - u**2 @ shrink - 1 / len(y))
        best = min(best, ((left**2).mean(), ridge))
    weights = v.T @ (s / (s**2 + best[1]) * (u.T @ (y - level)))
    return float(((((fresh - mean) / scale) @ weights + level - y_fresh) ** 2).mean())


@pytest.mark.parametrize("kind", SHARPNESS)
def test_the_right_resolution_is_found(kind: str) -> None:
    """In at least 90 % of draws of 128 samples, within a factor of two.

    Right is the resolution whose filters, simulated in time and read by ridge regression on as many samples, miss least
    on fresh ones, or one that misses by at most 2 % more.
    """
    order, grid = 1 if kind == "event" else 2, resolution_grid(256)
    draw = lambda n, seed: sharpness_task(kind, n, generator=np.random.default_rng(seed))  # noqa: E731
    (fresh, y_fresh), *draws = draw(300, 999), draw(128, 100), draw(128, 101), draw(128, 102)
    error = np.zeros(grid.size)
    for row, decay in enumerate(grid):
        every = simulated_features(np.concatenate([fresh, *(x for x, _ in draws)]), decay, order)
        new, *old = np.split(every, [300, 428, 556])
        error[row] = np.mean([held_out_error(f, y, new, y_fresh) for f, (_, y) in zip(old, draws, strict=True)])
    right = grid[error <= 1.02 * error.min()]
    assert right.max() / right.min() <= 4, "the task must need a resolution"
    found = []
    for seed in range(20):
        spectrum = estimate_task_spectrum(*draw(128, seed), resolutions="auto")
        assert spectrum.scalogram.order == ("first" if order == 1 else "second")
        found.append(spectrum.resolution)
    hits = [(np.abs(np.log(each / right)) <= math.log(2) + 1e-9).any() for each in found]
    assert np.mean(hits) >= 0.9, (right, found)


@pytest.mark.parametrize("method", ["evidence", "discriminative"])
def test_labels_drawn_at_random_prefer_no_resolution(method: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(128, 256)), rng.permutation(np.arange(128) % 2)
        posterior = estimate_task_spectrum(x, y, method=method, resolutions="auto").scalogram.posterior
        assert posterior.max() < 0.6 and -(posterior @ np.log(posterior)) > 0.7 * math.log(posterior.size)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(8, 70),
    channels=st.integers(1, 3),
    method=st.sampled_from(["auto", "evidence", "discriminative"]),
    real=st.booleans(),
)
def test_importance_is_a_density(seed: int, length: int, channels: int, method: str, real: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(24, length, channels)) * np.exp(rng.normal(size=(24, 1, channels)))
    y = rng.normal(size=(24, 2)) if real else np.arange(24) % 3
    plane = estimate_task_spectrum(x, y, method=method, resolutions="auto").scalogram
    assert (plane.importance >= 0).all() and np.isfinite(plane.evidence).all()
    assert np.allclose(plane.importance.mean(axis=1), 1)
    assert np.isclose(plane.posterior.sum(), 1) and plane.resolution in plane.resolutions
    assert plane.importance.shape == (plane.resolutions.size, plane.omega.size)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-4, 1e4), kind=st.sampled_from(SHARPNESS))
def test_neither_scale_nor_order_of_the_samples_matters(seed: int, scale: float, kind: str) -> None:
    x, y = sharpness_task(kind, 48, generator=np.random.default_rng(seed), length=64)
    shuffle = np.random.default_rng(seed).permutation(48)
    one = estimate_task_spectrum(x, y, resolutions="auto")
    other = estimate_task_spectrum(scale * x[shuffle], y[shuffle], resolutions="auto")
    assert one.method == other.method
    assert np.allclose(one.scalogram.evidence, other.scalogram.evidence, atol=1e-6)
    assert np.allclose(one.scalogram.importance, other.scalogram.importance, rtol=1e-3, atol=1e-3)
    assert np.allclose(one.power, other.power, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["event", "hump"])
def test_single_precision_inputs_give_the_same(kind: str) -> None:
    x, y = sharpness_task(kind, 64, generator=np.random.default_rng(5), length=64)
    one, other = (estimate_task_spectrum(x.astype(d), y, resolutions="auto") for d in (np.float64, np.float32))
    assert np.allclose(one.scalogram.evidence, other.scalogram.evidence, atol=1e-4)
    assert np.allclose(one.scalogram.importance, other.scalogram.importance, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("kind", "center"), [("lines", 1.48), ("hump", 1.5), ("chirps", 1.35), ("event", 1.2)])
def test_power_is_where_the_task_is(kind: str, center: float) -> None:
    x, y = sharpness_task(kind, 128, generator=np.random.default_rng(6))
    spectrum = estimate_task_spectrum(x, y, resolutions="auto")
    near = np.abs(spectrum.omega - center) < 0.7
    assert spectrum.importance[near].sum() > 0.6 * spectrum.importance.sum()
    best = spectrum.scalogram.importance[spectrum.scalogram.evidence.argmax()]
    assert best[near].sum() > 0.8 * best.sum()


def test_power_is_the_average_of_the_rows() -> None:
    x, y = sharpness_task("chirps", 64, generator=np.random.default_rng(7))
    spectrum = estimate_task_spectrum(x, y, resolutions=[0.1, 0.2, 0.3], floor=0.0)
    plane = spectrum.scalogram
    average = sum(p * row for p, row in zip(plane.posterior, plane.importance, strict=True))
    assert np.allclose(spectrum.importance, average / average.mean())


def test_a_task_in_one_of_several_channels() -> None:
    rng = np.random.default_rng(8)
    x, y = sharpness_task("lines", 128, generator=rng)
    spectrum = estimate_task_spectrum(np.stack([rng.normal(size=x.shape), 1e3 * x], axis=2), y, resolutions="auto")
    assert spectrum.method == "discriminative" and spectrum.resolution <= 0.05
    assert abs(spectrum.omega[spectrum.power.argmax()] - 1.48) < 0.1


def test_without_resolutions_nothing_changes() -> None:
    x, y = sharpness_task("lines", 32, generator=np.random.default_rng(9), length=64)
    spectrum = estimate_task_spectrum(x, y)
    assert spectrum.scalogram is None and spectrum.resolution is None


def test_more_samples_than_the_evidence_looks_at() -> None:
    x, y = sharpness_task("hump", 600, generator=np.random.default_rng(10), length=64)
    spectrum = estimate_task_spectrum(x, y, resolutions="auto")
    assert spectrum.n_samples == 600 and spectrum.scalogram.weight == pytest.approx(400, rel=0.01)


def test_plot_shows_the_plane() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    x, y = sharpness_task("chirps", 32, generator=np.random.default_rng(11), length=64)
    spectrum = estimate_task_spectrum(x, y, resolutions="auto")
    ax = spectrum.plot()
    assert "rad/sample" in ax.get_xlabel() and ax.get_yscale() == "log"
    assert np.allclose(ax.collections[0].get_array().shape, spectrum.scalogram.importance.shape)
    (side,) = ax.child_axes
    assert np.allclose(side.lines[0].get_xdata(), spectrum.scalogram.evidence)
    assert Scalogram([0.0, 1.0], [0.1], [[1.0, 1.0]], [0.0], "first", 1.0).plot(plt.subplots()[1]).get_yscale() == "log"
    assert not ax.collections[0].get_rasterized()
    line = plt.subplots()[1]
    assert spectrum.plot(line) is line and line.lines  # into axes of the caller's: the spectrum, as ever
    plt.close("all")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": []}, "resolutions must not be empty"),
        ({"resolutions": [0.2, 0.1]}, "resolutions must ascend"),
        ({"resolutions": [0.0, 0.1]}, "resolutions must ascend within"),
        ({"resolutions": [0.1, 11.0]}, "resolutions must ascend within"),
        ({"resolutions": [0.1, np.nan]}, "resolutions must be finite"),
        ({"resolutions": [[0.1]]}, "resolutions must be decays"),
        ({"resolutions": "all"}, "resolutions must be one of auto"),
        ({"resolutions": "auto", "method": "cross"}, "resolutions must be None for method 'cross'"),
        ({"resolutions": "auto", "method": "flat"}, "resolutions must be None for method 'flat'"),
    ],
)
def test_bad_resolutions_are_refused(options: dict, message: str) -> None:
    x, y = sharpness_task("lines", 16, generator=np.random.default_rng(0), length=64)
    with pytest.raises(ValueError, match=message):
        estimate_task_spectrum(x, y, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"importance": np.ones((1, 5))}, "importance and evidence must have shapes"),
        ({"evidence": np.zeros(3)}, "importance and evidence must have shapes"),
        ({"importance": -np.ones((2, 5))}, "importance must be non-negative"),
        ({"importance": 2 * np.ones((2, 5))}, "unit mean"),
        ({"order": "third"}, "order must be one of"),
        ({"weight": -1.0}, "weight must be"),
        ({"resolutions": [0.2, 0.1]}, "resolutions must ascend"),
    ],
)
def test_bad_scalograms_are_refused(change: dict, message: str) -> None:
    good = {
        "omega": np.linspace(0, np.pi, 5),
        "resolutions": [0.1, 0.2],
        "importance": np.ones((2, 5)),
        "evidence": [0.0, 0.0],
        "order": "first",
        "weight": 4.0,
    }
    assert np.allclose(Scalogram(**good).posterior, 0.5)
    with pytest.raises(ValueError, match=message):
        Scalogram(**good | change)


def test_a_line_among_many_frequencies_is_not_lost_in_the_picture() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    row = np.full(2001, 1e-3)
    row[1501] = 1.0
    plane = Scalogram(np.linspace(0, np.pi, 2001), [0.1], (row / row.mean())[None], [0.0], "second", 1.0)
    mesh = plane.plot(plt.subplots()[1]).collections[0]
    (shown,) = mesh.get_array()
    borders = mesh.get_coordinates()[0, :, 0]
    place = shown.argmax()
    assert shown.size <= 256 and borders.size == shown.size + 1 and (np.diff(borders) > 0).all()
    assert shown[place] == 1 and np.isclose(np.delete(shown, place), 1e-3).all()
    assert borders[place] <= plane.omega[1501] <= borders[place + 1]
    plt.close("all")


def test_one_resolution_may_be_a_number() -> None:
    x, y = sharpness_task("lines", 32, generator=np.random.default_rng(9), length=64)
    one, other = (estimate_task_spectrum(x, y, resolutions=each) for each in (0.1, [0.1]))
    assert one.resolution == 0.1 and np.allclose(one.power, other.power)


def test_grid_ends_where_sequences_can_tell() -> None:
    for length in (8, 64, 500, 4096):
        grid = resolution_grid(length)
        assert np.allclose(grid[1:] / grid[:-1], 2) and np.isclose(grid[-1], 0.4)
        assert 1 / length <= grid[0] < 2 / length
    with pytest.raises(ValueError, match="length must be at least 8"):
        resolution_grid(4)


def test_a_spectrum_has_the_frequencies_of_its_scalogram() -> None:
    plane = Scalogram(np.linspace(0, np.pi, 9), [0.1], np.ones((1, 9)), [0.0], "first", 1.0)
    for omega, got in ((np.linspace(0, np.pi, 5), "got 9"), (np.linspace(0, 3, 9), "got others")):
        with pytest.raises(ValueError, match=f"scalogram must have the frequencies omega, {omega.size} of them, {got}"):
            TaskSpectrum(omega, np.ones(omega.size), np.ones(omega.size), "flat", 4, plane)
    with pytest.raises(TypeError, match="scalogram must be a Scalogram, got str"):
        TaskSpectrum(omega, np.ones(9), np.ones(9), "flat", 4, "plane")


def test_a_spectrum_of_the_caller_may_carry_none() -> None:
    spectrum = TaskSpectrum(np.linspace(0, np.pi, 9), np.ones(9), np.ones(9), "flat", 4)
    assert spectrum.resolution is None

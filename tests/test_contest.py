"""Chapter 08's contest: ridges, errors and forecasts written out, and who is who."""

import numpy as np
import pytest
import scipy.signal
from scipy.stats import multivariate_normal

from tdi_lib.spectrum import estimate_task_spectrum
from tdi_lib.study.contest import (
    LENGTH,
    OMEGA,
    Contest,
    band_power,
    begins_to_pay,
    class_error,
    default_kernels,
    draw_from,
    draw_samples,
    efficiency_interval,
    forecast_error,
    input_covariance,
    learner,
    loudness,
    loudness_task,
    matched_kernels,
    prior_spectrum,
    ridge_errors,
    samples_until,
    spectrum_of,
    stationary_matrix,
)
from tdi_lib.theory import RIDGES, layer_matrix, ssm_kernel


@pytest.fixture(scope="module")
def contest() -> Contest:
    return Contest()


def test_row_of_errors_against_equations_written_out() -> None:
    """Evidence by a library's density, leave-one-out sample by sample, the error on fresh inputs."""
    rng = np.random.default_rng(0)
    root, n = learner(default_kernels(0)), 40
    x, y, w = draw_samples("red", band_power(1.2), n, 0.3, rng)
    kernel = x @ root @ root.T @ x.T
    evidence, left_out = [], []
    for ratio in RIDGES:
        loaded = kernel + ratio * np.trace(kernel) / n * np.eye(n)
        scale = y @ np.linalg.solve(loaded, y) / n
        evidence.append(multivariate_normal(cov=scale * loaded).logpdf(y))
        misses = []
        for i in range(n):
            rest = np.arange(n) != i
            misses.append(y[i] - kernel[i, rest] @ np.linalg.solve(loaded[np.ix_(rest, rest)], y[rest]))
        left_out.append(np.mean(np.square(misses)))
    row = ridge_errors(root, x, y, w, input_covariance("red"))
    best, loo = int(np.argmax(evidence)), int(np.argmin(left_out))
    assert row[3] == RIDGES[best]
    assert row[2] == pytest.approx(left_out[loo])
    assert list(row[:2]) == [row[4 + best], row[4 + loo]]
    ridge = RIDGES[best] * np.trace(kernel) / n
    found = root @ root.T @ x.T @ np.linalg.solve(kernel + ridge * np.eye(n), y)
    fresh = rng.standard_normal((20_000, LENGTH)) @ np.linalg.cholesky(input_covariance("red")).T
    squares = (fresh @ (found - w)) ** 2
    assert abs(squares.mean() - row[0]) < 4 * squares.std() / np.sqrt(len(squares))


def test_features_make_the_kernel_of_the_layer() -> None:
    kernels, x = default_kernels(1), np.random.default_rng(0).standard_normal((5, LENGTH))
    features = x @ learner(kernels)
    np.testing.assert_allclose(features @ features.T, ssm_kernel(kernels, x), rtol=1e-9)
    assert matched_kernels(spectrum_of(band_power(1.2), "red"), 0, 200).shape == (32, 200)


def test_functionals_have_the_power_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_samples("white", band_power(1.2), 1, 0.3, rng).w for _ in range(5)]
    for w in drawn:
        power = np.abs(np.fft.rfft(w)) ** 2
        inner = slice(1, -1)  # at the ends a phase is a sign at most
        np.testing.assert_allclose(
            power[inner] / power.max(), band_power(1.2)[inner] / band_power(1.2).max(), atol=1e-9
        )
    x, y, w = draw_from(np.diag(np.arange(LENGTH) == 3).astype(float), "white", 4000, 0.3, rng)
    assert np.abs(w).argmax() == 3
    assert np.abs(w).sum() == pytest.approx(1)
    assert np.std(y - x @ w) == pytest.approx(0.3, rel=0.05)


def test_spectrum_of_a_prior_is_the_mean_periodogram() -> None:
    root = learner(default_kernels(0))
    many = root @ np.random.default_rng(0).standard_normal((LENGTH, 4000))
    periodograms = np.mean(np.abs(np.fft.rfft(many, axis=0)) ** 2, axis=1) / LENGTH
    np.testing.assert_allclose(prior_spectrum(root @ root.T), periodograms, rtol=0.15)
    np.testing.assert_allclose(prior_spectrum(stationary_matrix(band_power(1.2))), band_power(1.2), atol=1e-12)


def test_forecast_is_what_training_sets_give() -> None:
    root = stationary_matrix(np.sqrt(band_power(1.2, 0.4)))
    prior, covariance = stationary_matrix(band_power(1.2)), input_covariance("red")
    rng, errors = np.random.default_rng(1), []
    for _ in range(60):
        errors.append(ridge_errors(root, *draw_samples("red", band_power(1.2), 64, 0.3, rng), covariance)[0])
    stderr = np.std(errors) / np.sqrt(len(errors))
    assert abs(np.mean(errors) - forecast_error(root, covariance, prior, 64, 0.3)) < 4 * stderr + 0.1 * np.mean(errors)


def test_every_name_is_the_learner_it_says(contest: Contest) -> None:
    data = draw_samples("red", band_power(2.5), 32, 0.3, np.random.default_rng(3))
    found = estimate_task_spectrum(data.x, data.y, method="cross")
    roots = {
        "S4D-Lin": learner(default_kernels(1)),
        "no filter": np.eye(LENGTH),
        "flat": contest.flat("red", 1),
        "cross": learner(matched_kernels(found, 1)),
        "ideal cross": stationary_matrix(np.sqrt(found.power)),
        "oracle": learner(matched_kernels(spectrum_of(band_power(2.5), "red"), 1)),
        "ideal oracle": stationary_matrix(np.sqrt(band_power(2.5))),
    }
    run = contest.run(data, "red", roots, 9, band_power(2.5))  # draw 9 meets layer 1
    assert list(run) == list(roots)
    for name, root in roots.items():
        np.testing.assert_allclose(run[name], ridge_errors(root, *data, input_covariance("red")), rtol=1e-9)
    other = draw_samples("red", band_power(0.2), 32, 0.3, np.random.default_rng(4))
    assert not np.allclose(contest.run(data, "red", ["cross"], 9, estimate_from=other[:2])["cross"], run["cross"])


def test_flat_bank_hears_all_frequencies_of_its_input_alike(contest: Contest) -> None:
    root = contest.flat("red", 0)
    loud = prior_spectrum(root @ root.T) / OMEGA.size * (OMEGA + 0.2) ** -1.0
    inner = (OMEGA > 0.3) & (OMEGA < 2.8)
    assert loud[inner].std() / loud[inner].mean() < 0.5
    steep = prior_spectrum(layer_matrix(default_kernels(0))) * (OMEGA + 0.2) ** -1.0
    assert steep[inner].std() / steep[inner].mean() > 0.5


def test_unknown_names_and_missing_truths_are_named(contest: Contest) -> None:
    data = draw_samples("red", band_power(1.2), 16, 0.3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="names must be known contestants, got 'ideal S4D-Lin'"):
        contest.run(data, "red", ["ideal S4D-Lin"], 0)
    with pytest.raises(ValueError, match="power must be given for 'ideal oracle'"):
        contest.run(data, "red", ["ideal oracle"], 0)


def test_repeated_contests_are_contests_one_by_one(contest: Contest) -> None:
    names, mirrored = ["S4D-Lin", "oracle"], band_power(np.pi - 1.2)
    rows = contest.repeat("white", band_power(1.2), names, 3, 8, n=24, noise=1.0, oracle_power=mirrored)
    for draw in range(3):
        data = draw_samples("white", band_power(1.2), 24, 1.0, np.random.default_rng([0, 8, draw]))
        for name, row in contest.run(data, "white", names, draw, mirrored).items():
            np.testing.assert_allclose(rows[name][draw], row)
    right = contest.repeat("white", band_power(1.2), ["oracle"], 3, 8, n=24, noise=1.0)["oracle"]
    assert right[:, 0].mean() < rows["oracle"][:, 0].mean()


def test_factor_of_errors_that_fall_like_one_over_n() -> None:
    sizes, rng = np.array([16, 64, 256, 1024]), np.random.default_rng(0)
    curves = 8 / sizes[:, None] * np.exp(0.2 * rng.standard_normal(12))
    ours = np.full(12, 8 / 256) * np.exp(0.2 * rng.standard_normal(12))
    factor, low, high = efficiency_interval(sizes, curves, ours, 64, rng)
    assert low < factor < high
    assert factor == pytest.approx(4, rel=0.2)
    assert list(efficiency_interval(sizes, curves, ours / 100, 64, rng)) == [16, 16, 16]  # the end of the curve


def test_where_a_gain_begins_and_where_the_oracle_is_near() -> None:
    rng, sizes = np.random.default_rng(0), [8, 16, 32, 64]
    base = [np.exp(0.1 * rng.standard_normal(10)) for _ in sizes]
    ours = [
        b * scale * np.exp(0.02 * rng.standard_normal(10)) for b, scale in zip(base, (0.5, 1, 0.8, 0.5), strict=True)
    ]
    assert begins_to_pay(sizes, base, ours) == 32  # the gain at 8 does not last
    assert begins_to_pay(sizes, ours, base) == np.inf
    assert samples_until(sizes, [1.2, 3.0, 2.0, 1.5], 1.5) == pytest.approx(64)  # 1.2 was before the peak
    assert 16 < samples_until(sizes, [1.2, 3.0, 2.0, 1.5], 2.5) < 32


@pytest.mark.parametrize("width", [0.03, 0.3])
def test_loud_class_is_louder_by_what_was_asked_for(width: float) -> None:
    """Mean periodograms of many sequences; their logarithms' squared difference, summed, is the clarity."""
    x, y = loudness_task(width, 40_000, np.random.default_rng(0), clarity=7.0)
    taper = np.hanning(LENGTH)
    power = np.abs(np.fft.rfft(x * taper)) ** 2 / (taper**2).sum()
    quiet, loud = power[y == 0].mean(axis=0), power[y == 1].mean(axis=0)
    assert np.allclose(quiet[1:-1], 1, atol=0.05)
    assert abs(OMEGA[loud.argmax()] - 1.2) < 0.1
    if width > 0.1:  # a narrower band the taper smears
        assert (np.log(loud / quiet)[2:-2] ** 2).sum() == pytest.approx(7.0, rel=0.05)


def test_loudness_is_the_energy_of_simulated_filters() -> None:
    rng = np.random.default_rng(0)
    kernels, x = rng.standard_normal((3, 20)), rng.standard_normal((5, 20))
    energies = [[np.sum(scipy.signal.lfilter(k, [1.0], u) ** 2) for k in kernels] for u in x]
    assert np.allclose(loudness(kernels, x), np.log(energies))


def test_class_error_against_a_read_out_written_out() -> None:
    rng = np.random.default_rng(1)
    y, y_fresh = np.arange(40) % 2, np.arange(200) % 2
    train, fresh = (rng.standard_normal((len(c), 6)) * 3 + 5 + c[:, None] for c in (y, y_fresh))
    standard = (train - train.mean(axis=0)) / train.std(axis=0)
    rivals = []
    for ratio in RIDGES:
        loaded = standard @ standard.T + ratio * 6 * np.eye(40)  # the mean diagonal of standardized features is 6
        loaded *= (y - 0.5) @ np.linalg.solve(loaded, y - 0.5) / 40
        rivals.append(multivariate_normal(cov=loaded).logpdf(y - 0.5))
    ridge = 6 * RIDGES[int(np.argmax(rivals))]
    weights = np.linalg.solve(standard.T @ standard + ridge * np.eye(6), standard.T @ (y - 0.5))
    guess = (fresh - train.mean(axis=0)) / train.std(axis=0) @ weights > 0
    assert class_error(train, y, fresh, y_fresh) == (guess != y_fresh).mean()

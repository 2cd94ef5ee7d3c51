"""Is a start worth it? The forecast against regressions that were done, the guard against tasks of known truth."""

import math

import numpy as np
import pytest
import torch

from tdi_lib.data.synthetic import four_tones
from tdi_lib.spectrum import TaskSpectrum
from tdi_lib.ssm import SequenceModel, seeded_ssm
from tdi_lib.tdi import compare_features, compare_starts, flat_init_, forecast_gain, match_power_spectrum_, tdi_init_
from tdi_lib.theory import feature_root, layer_matrix, ridge_path

L = 64
OMEGA = np.linspace(0, np.pi, L // 2 + 1)


def band_task(center: float, n: int, rng: np.random.Generator, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """White input and a functional in one band, clean variance one."""
    w = np.fft.irfft(np.exp(-((OMEGA - center) ** 2) / 0.08 + 2j * np.pi * rng.random(OMEGA.size)), n=L)
    x = rng.standard_normal((n, L))
    return x, x @ w / np.linalg.norm(w) + noise * rng.standard_normal(n)


def misses(kernels: np.ndarray, x, y, x_new, y_new) -> float:
    root = feature_root(layer_matrix(kernels))
    path = ridge_path(x @ root, y)
    return float(np.mean((x_new @ root @ path.weights[path.best, :, 0] - y_new) ** 2))


def test_the_forecast_is_what_is_measured() -> None:
    default = seeded_ssm(16, 16, seed=0).kernel(L).numpy()
    forecasts, measured = [], []
    for number, center in enumerate(np.linspace(0.1, 2.9, 9)):
        power = np.exp(-((OMEGA - center) ** 2) / 0.04)
        spectrum = TaskSpectrum(OMEGA, power, np.ones_like(OMEGA), "evidence", 48)
        ssm = seeded_ssm(16, 16, seed=1)
        match_power_spectrum_(ssm, spectrum, generator=torch.Generator().manual_seed(0))
        matched = ssm.kernel(L).numpy()
        forecasts.append(forecast_gain(default, matched, spectrum, 48, 0.09))
        errors = []
        for draw in range(6):
            rng = np.random.default_rng([number, draw])
            w = np.fft.irfft(np.sqrt(power) * np.exp(2j * np.pi * rng.random(OMEGA.size)), n=L)
            w /= np.linalg.norm(w)
            x, x_new = rng.standard_normal((48, L)), rng.standard_normal((2000, L))
            y = x @ w + 0.3 * rng.standard_normal(48)
            errors.append([misses(k, x, y, x_new, x_new @ w) for k in (default, matched)])
        base, rival = np.mean(errors, axis=0)
        measured.append(math.log(base / rival))
    # not the ranks: where the default is deaf all gains are alike
    assert np.corrcoef(forecasts, measured)[0, 1] > 0.95
    assert np.median(np.abs(np.subtract(forecasts, measured))) < 0.4


def test_a_comparison_is_cross_validation_written_out() -> None:
    rng = np.random.default_rng(0)
    x, y = band_task(1.2, 40, rng)
    default, other = seeded_ssm(4, 8, seed=0).kernel(L).numpy(), seeded_ssm(4, 8, seed=1, init="inv").kernel(L).numpy()
    seen = []
    found = compare_starts(lambda a, b: (seen.append((a, b)), default)[1], lambda a, b: other, x, y)
    scaled = (y - y.mean()) / y.std()
    order = np.argsort(y)
    squares = {0: np.zeros(40), 1: np.zeros(40)}
    for fit, held in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        for which, kernels in enumerate((default, other)):
            root = feature_root(layer_matrix(kernels))
            mean_x, mean_y = x[fit].mean(axis=0), scaled[fit].mean()
            path = ridge_path((x[fit] - mean_x) @ root, scaled[fit] - mean_y)
            predicted = (x[held] - mean_x) @ root @ path.weights[path.best, :, 0] + mean_y
            squares[which][held] = (predicted - scaled[held]) ** 2
    assert found.order == "first"
    assert np.isclose(found.base, squares[0].mean()) and np.isclose(found.rival, squares[1].mean())
    difference = squares[1] - squares[0]
    assert np.isclose(found.standard_error, difference.std(ddof=1) / math.sqrt(40))
    assert {len(a) for a, _ in seen} == {20} and not set(seen[0][1]) & set(seen[1][1])


def test_the_guard_lets_a_band_through_and_stops_noise() -> None:
    passed = {"band": 0, "noise": 0}
    for draw in range(12):
        for kind in passed:
            rng = np.random.default_rng([draw, len(kind)])
            x, y = band_task(1.8, 96, rng)
            if kind == "noise":
                y = rng.standard_normal(96)
            ssm = seeded_ssm(16, 16, seed=draw)
            report = tdi_init_(ssm, x, y, guard=True, generator=torch.Generator().manual_seed(draw))
            assert report.guard is not None and bool(report.changed) == report.guard.better
            passed[kind] += report.guard.better
    assert passed["band"] >= 11 and passed["noise"] <= 4  # one standard error: one in six by luck


def test_a_guarded_start_is_the_unguarded_one_or_none() -> None:
    x, y = band_task(1.8, 96, np.random.default_rng(0))
    for target, worth in ((y, True), (np.random.default_rng(5).permutation(y), False)):
        models = [seeded_ssm(8, 8, seed=3) for _ in range(3)]
        guarded = tdi_init_(models[0], x, target, guard=True, generator=torch.Generator().manual_seed(1))
        tdi_init_(models[1], x, target, generator=torch.Generator().manual_seed(1))
        assert guarded.guard is not None and guarded.guard.better == worth
        expected = models[1] if worth else models[2]
        for name, value in expected.state_dict().items():
            assert torch.equal(models[0].state_dict()[name], value)
        if not worth:
            assert guarded.changed == () and guarded.loss_after == guarded.loss_before


def test_tones_of_random_phase_ask_the_second_order() -> None:
    x, y = four_tones(160, amplitude=0.25, generator=np.random.default_rng(0))
    model = SequenceModel(1, 4, d_model=16, d_state=16, n_layers=1, generator=torch.Generator().manual_seed(0))
    report = tdi_init_(model, x, y, guard=True, generator=torch.Generator().manual_seed(0))
    assert report.guard is not None and report.guard.order == "second" and report.guard.better
    names = np.array(["a", "b", "c", "d"])[y]
    with_names = compare_starts(
        lambda a, b: seeded_ssm(4, 8, seed=0).kernel(x.shape[1]).numpy(),
        lambda a, b: seeded_ssm(4, 8, seed=0).kernel(x.shape[1]).numpy(),
        x,
        names,
    )
    assert with_names.order == "second" and with_names.difference == 0 and not with_names.better


def test_a_quiet_band_is_heard_beneath_a_loud_one() -> None:
    """Classes differ in a band 60 dB below a slow wave that starts at full height: the ringing of the start is louder
    than the band, for every filter, and must not drown it (as it did, on FordA)."""
    rng = np.random.default_rng(0)
    t = np.arange(256)
    y = np.arange(120) % 2
    slow = np.cos(0.05 * t[None] + rng.uniform(0, 2 * np.pi, (120, 1)))
    quiet = np.sin((1.5 + 0.5 * y[:, None]) * t[None] + rng.uniform(0, 2 * np.pi, (120, 1)))
    x = slow + 1e-3 * quiet
    notch = [1.0, -2 * np.cos(0.05), 1.0]  # deaf to the slow wave, once it has begun
    tuned = np.stack([np.convolve(np.exp(-0.1 * t) * np.cos(omega * t), notch)[:256] for omega in (1.5, 2.0)])
    slow_filters = np.exp(-np.array([[0.05], [0.1]]) * t)
    found = compare_starts(lambda *_: slow_filters, lambda *_: tuned, x, y, order="second")
    assert found.base > 0.8 and found.rival < 0.3 and found.better


def test_features_of_any_kind() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 20))
    y = np.abs(x[:, 3])

    def whole(x_half, y_half):
        return lambda inputs: inputs[:, :, 0]

    def folded(x_half, y_half):
        return lambda inputs: np.abs(inputs[:, :, 0])

    found = compare_features(whole, folded, x, y)
    assert found.better and found.rival < 0.1 and found.order == "given"
    assert not compare_features(folded, whole, x, y).better
    layers = [np.eye(20)[:1], np.ones((1, 20))]
    starts = compare_starts(lambda *_: layers[0], lambda *_: layers[1], x, y, order="first")
    summed = compare_features(whole, lambda *_: lambda u: np.cumsum(u[:, :, 0], axis=1), x, y)
    # the same read-outs by another way: white noise through the identity is itself
    assert np.isclose(starts.base, summed.base)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: compare_starts(None, None, x[:7], y[:7]), "x must hold at least 8 sequences to be split, got 7"),
        (lambda x, y: compare_starts(None, None, x, y, order="third"), "order must be one of"),
        (
            lambda x, y: compare_features(*[lambda *_: lambda u: u[:2, :, 0]] * 2, x, y),
            "base must give a row for each of 16 sequences",
        ),
        (lambda x, y: forecast_gain(np.ones(4), np.ones(5), SPECTRUM, 4, 0.1), "matched must have the kernels' length"),
        (lambda x, y: tdi_init_(seeded_ssm(2, 4, seed=0), x, None, method="flat", guard=True), "y must be given"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*band_task(1.0, 16, np.random.default_rng(0)))


SPECTRUM = TaskSpectrum(OMEGA, np.ones_like(OMEGA), np.ones_like(OMEGA), "flat", 16)


def test_the_flat_bank_needs_no_guard() -> None:
    assert flat_init_(seeded_ssm(2, 4, seed=0), band_task(1.0, 16, np.random.default_rng(0))[0]).guard is None

"""Matching: the layer ends with the task's spectrum, by an independent measurement on simulated signals."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.filters import dft_response, focused_weights, output_covariance
from tdi_lib.spectrum import TaskSpectrum
from tdi_lib.ssm import DiagonalSSM, SequenceModel
from tdi_lib.tdi import (
    MatchReport,
    flat_init_,
    layer_importance,
    match_power_spectrum_,
    spectral_loss,
    tdi_init_,
)

OMEGA = np.linspace(0, np.pi, 129)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectrum(importance: np.ndarray, input_power: np.ndarray | None = None) -> TaskSpectrum:
    s_u = np.ones_like(OMEGA) if input_power is None else input_power / input_power.mean()
    power = importance / s_u
    return TaskSpectrum(OMEGA, power / power.mean(), s_u, "cross", 100)


def features(log_poles: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """Dense (H, F, 2N), pole by pole: a response is these times (Re c, Im c)."""
    z = np.exp(-1j * omega)[:, None]
    direct, mirrored = (1 / (1 - np.exp(p)[:, None, :] * z) for p in (log_poles, log_poles.conj()))
    return np.concatenate([direct + mirrored, 1j * (direct - mirrored)], axis=-1)


def band(center: float, width: float = 0.2) -> np.ndarray:
    return np.exp(-(((OMEGA - center) / width) ** 2) / 2)


RED = (OMEGA + 0.05) ** -4.0  # five decades and a half


@pytest.mark.parametrize("input_power", [None, RED], ids=["white", "red"])
@pytest.mark.parametrize("center", [0.3, 1.2, 2.6])
def test_placed_layer_has_the_spectrum(center: float, input_power: np.ndarray | None) -> None:
    target = spectrum(band(center) + 0.5 * band(np.pi - center), input_power)
    ssm = DiagonalSSM(64, 32, generator=seeded())
    report = match_power_spectrum_(ssm, target, generator=seeded())
    assert report.loss_before > 0.5 and report.loss_after < 0.15
    assert report.loss_after == spectral_loss(ssm, target)
    assert (ssm.log_poles.real < 0).all()


@pytest.mark.parametrize("input_power", [None, RED], ids=["white", "red"])
def test_loudness_carries_what_numbers_cannot(input_power: np.ndarray | None) -> None:
    target, losses, powers = spectrum(band(0.9) + 0.5 * band(2.2), input_power), {}, {}
    for crowding in (1.0, 0.5, 0.0):
        ssm = DiagonalSSM(128, 64, generator=seeded())
        losses[crowding] = match_power_spectrum_(ssm, target, crowding=crowding, generator=seeded()).loss_after
        with torch.no_grad():
            response = ssm.frequency_response(torch.as_tensor(OMEGA, dtype=torch.float32)).abs().numpy() ** 2
        powers[crowding] = (response * target.input_power).mean(axis=1)
        assert np.isclose(powers[crowding].mean(), 1, rtol=1e-3)
    assert losses[0.5] < losses[1.0] / (10 if input_power is None else 1)
    assert np.ptp(powers[1.0]) < 1e-3 < powers[0.5].std() < powers[0.0].std()


def test_importance_is_the_power_spectrum_of_simulated_outputs() -> None:
    """Independent path: filter colored noise by the layer, take Welch's spectrum of what comes out."""
    s_u = (OMEGA + 0.3) ** -2.0
    target = spectrum(band(0.8, 0.4), s_u)
    ssm = DiagonalSSM(4, 16, generator=seeded())
    match_power_spectrum_(ssm, target, generator=seeded())
    rng, length = np.random.default_rng(0), 1 << 17
    grid = np.linspace(0, np.pi, length // 2 + 1)
    shape = np.interp(grid, OMEGA, target.input_power)
    u = np.fft.irfft(np.fft.rfft(rng.normal(size=length)) * np.sqrt(shape), n=length)
    with torch.no_grad():
        y = ssm(torch.tensor(u, dtype=torch.float32).expand(1, 4, -1))[0].numpy()[:, 4096:]
    assert np.allclose(y.var(axis=1), 1, rtol=0.25)  # every channel: unit power on the task's input
    omega, power = scipy.signal.welch(y, nperseg=1024, fs=2 * np.pi)
    measured = np.interp(OMEGA, omega, power.mean(axis=0))
    theory = layer_importance(ssm, target)
    assert measured @ theory / np.linalg.norm(measured) / np.linalg.norm(theory) > 0.98


def test_channels_stay_diverse() -> None:
    ssm = DiagonalSSM(16, 16, generator=seeded())
    match_power_spectrum_(ssm, spectrum(band(1.2)), generator=seeded())
    kernels = ssm.kernel(256).detach().numpy()
    correlation = np.abs(np.corrcoef(kernels)) - np.eye(16)
    assert correlation.max() < 0.999 and np.median(correlation) < 0.7


def test_focused_weights_minimize_the_output_power() -> None:
    """No other weights with the same response at the center have less (loaded) output power."""
    rng = np.random.default_rng(0)
    poles = -0.05 + 1j * (1.5 + 0.1 * rng.normal(size=(1, 4)))
    power = RED / RED.mean()
    c = focused_weights(poles, np.array([1.5]), np.array([0.7]), input_power=power)[0]
    at_center = (np.exp(-0.7j) * features(poles, np.array([1.5]))[0, 0]).real
    vector = np.concatenate([c.real, c.imag])

    weighted = np.sqrt(power / OMEGA.size)[:, None] * features(poles, OMEGA)[0]
    covariance = (weighted.conj().T @ weighted).real
    assert np.isclose(vector @ covariance @ vector, 1)
    covariance += 1e-3 * np.trace(covariance) / 8 * np.eye(8)
    best = vector @ covariance @ vector
    for _ in range(50):
        step = rng.normal(size=8) * np.abs(vector).max()
        step -= at_center * (at_center @ step) / (at_center @ at_center)  # keeps the response there
        other = vector + 0.1 * step
        assert other @ covariance @ other > best


@given(
    seed=st.integers(0, 10_000),
    n_frequencies=st.integers(2, 70),
    pairs=st.integers(1, 6),
    decay=st.floats(-4, 0.5).map(lambda e: 10**e),
)
@settings(max_examples=60, deadline=None)
def test_responses_and_covariance_are_the_dense_sums(seed: int, n_frequencies: int, pairs: int, decay: float) -> None:
    """Any pole, also close to the circle and to its neighbors, and any input within eight decades."""
    rng = np.random.default_rng(seed)
    omega = np.linspace(0, np.pi, n_frequencies)
    poles = -decay * rng.uniform(0.5, 2, (3, pairs)) + 1j * (
        rng.uniform(0, np.pi, (3, 1)) + 0.05 * rng.normal(size=(3, pairs))
    )
    c = rng.normal(size=(3, pairs)) + 1j * rng.normal(size=(3, pairs))
    phi = features(poles, omega)
    dense = np.einsum("hfi,hi->hf", phi, np.concatenate([c.real, c.imag], axis=1))
    ours = dft_response(poles, c, n_frequencies=n_frequencies)
    assert np.abs(ours - dense).max() < 1e-9 * np.abs(dense).max()

    power = 10 ** rng.uniform(-8, 0, n_frequencies)
    dense = np.einsum("hfi,f,hfj->hij", phi.conj(), power / n_frequencies, phi).real
    ours = output_covariance(poles, power)
    assert np.abs(ours - dense).max() < 1e-9 * np.abs(dense).max()


@pytest.mark.parametrize("omega", [OMEGA, OMEGA[1:-1]], ids=["DFT grid", "elsewhere"])
@pytest.mark.parametrize("init", ["lin", "inv", "dfout"])
def test_layer_importance_is_the_mean_over_channels(init: str, omega: np.ndarray) -> None:
    """In both of its ways, against the sum pole by pole; inv's phases go far beyond pi."""
    ssm = DiagonalSSM(5, 16, init=init, generator=seeded()).double()
    s_u = (omega + 0.05) ** -4.0
    log_a, b = (t.detach().numpy() for t in ssm.discretize())
    c = ssm.C.detach().numpy() * b
    response = np.einsum("hfi,hi->hf", features(log_a, omega), np.concatenate([c.real, c.imag], axis=1))
    expected = (np.abs(response) ** 2 * s_u).mean(axis=0)
    ours = layer_importance(ssm, TaskSpectrum(omega, np.ones_like(omega), s_u, "cross", 4))
    assert np.allclose(ours, expected / expected.mean(), rtol=1e-8)


def test_a_spectrum_off_the_dft_grid_is_matched_too() -> None:
    omega = np.sort(np.random.default_rng(0).uniform(0.02, 3.1, 300))
    eta = np.exp(-(((omega - 1.2) / 0.2) ** 2) / 2)
    ssm = DiagonalSSM(32, 32, generator=seeded())
    report = match_power_spectrum_(ssm, TaskSpectrum(omega, eta, np.ones(300), "cross", 4), generator=seeded())
    assert report.loss_after < 0.05


def test_adam_lowers_the_loss_and_leaves_no_gradients() -> None:
    target = spectrum(band(1.0, 0.5))
    ssm = DiagonalSSM(8, 16, generator=seeded())
    report = match_power_spectrum_(ssm, target, solver="adam", steps=150)
    assert report.loss_after < 0.5 * report.loss_before
    assert all(parameter.grad is None for parameter in ssm.parameters())
    assert "log_dt" in report.changed


def test_report_names_exactly_what_changed() -> None:
    x = np.random.default_rng(0).normal(size=(40, 64))
    y = x @ np.cos(1.3 * np.arange(64))
    for layers in ("first", "all", "composite", "each", "1", "3"):
        model = SequenceModel(1, 1, d_model=4, d_state=8, n_layers=3, generator=seeded())
        before = {k: v.clone() for k, v in model.state_dict().items()}
        report = tdi_init_(model, x, y, layers=layers, generator=seeded())
        after = model.state_dict()
        assert isinstance(report, MatchReport) and report.seconds > 0
        assert {k for k in after if not torch.equal(before[k], after[k])} == set(report.changed)
        touched = {name.split(".")[1] for name in report.changed}
        assert touched == {"first": {"0"}, "1": {"0"}, "3": {"2"}}.get(layers, {"0", "1", "2"})


def test_each_layer_is_matched_to_what_enters_it() -> None:
    x = np.random.default_rng(0).normal(size=(50, 64))
    y = (np.abs(x @ np.exp(1.3j * np.arange(64))) > 8).astype(int)
    make = lambda: SequenceModel(1, 2, d_model=4, d_state=8, n_layers=3, generator=seeded())  # noqa: E731
    model, by_hand = make(), make()
    report = tdi_init_(model, x, y, layers="each", generator=seeded(1))
    generator = seeded(1)
    first = tdi_init_(by_hand.ssms[0], x, y, generator=generator)
    assert report.loss_after == first.loss_after  # the report is on the first layer, matched to the input
    with torch.no_grad():
        h = by_hand.encoder(torch.tensor(x[:, :, None], dtype=torch.float32))
        h = h + by_hand.layers[0](h)
        for layer in (1, 2):
            entering = by_hand.norms[layer - 1](h)
            tdi_init_(by_hand.ssms[layer], entering[np.argsort(y, kind="stable")], np.sort(y), generator=generator)
            h = h + by_hand.layers[layer](entering)
    for one, other in zip(model.ssms, by_hand.ssms, strict=True):
        torch.testing.assert_close(one.kernel(64), other.kernel(64), rtol=1e-3, atol=1e-3)
    assert model.training
    all_alike = make()
    tdi_init_(all_alike, x, y, layers="all", generator=seeded(1))
    assert not torch.allclose(all_alike.ssms[1].kernel(64), model.ssms[1].kernel(64), rtol=0.1, atol=0.1)


def test_a_chain_of_composite_layers_has_the_tasks_response() -> None:
    x = np.random.default_rng(0).normal(size=(50, 64))
    y = x @ np.cos(1.3 * np.arange(64))
    off = {}
    for layers in ("first", "all", "composite"):
        model = SequenceModel(1, 1, d_model=16, d_state=16, n_layers=3, generator=seeded())
        report = tdi_init_(model, x, y, layers=layers, generator=seeded(1))
        if layers == "first":
            task = report.spectrum
        omega = torch.as_tensor(task.omega, dtype=torch.float32)
        powers = [ssm.frequency_response(omega).detach().abs().square().mean(dim=0).numpy() for ssm in model.ssms]
        chain, wanted = np.prod(powers, axis=0) * task.input_power, task.importance
        off[layers] = np.sum((chain / np.linalg.norm(chain) - wanted / np.linalg.norm(wanted)) ** 2)
    root = task.power ** (1 / 3)
    np.testing.assert_allclose(report.spectrum.power, root / root.mean())
    assert all(spectral_loss(ssm, report.spectrum) < 0.5 * spectral_loss(ssm, task) for ssm in model.ssms)
    assert off["composite"] < 0.1 * off["all"]


def test_layers_that_are_not_there_are_named() -> None:
    model = SequenceModel(1, 2, d_model=4, d_state=8, n_layers=2)
    for layers in ("3", "0", "last"):
        with pytest.raises(ValueError, match="^layers must be one of first, all, composite, each, 1, 2, got"):
            tdi_init_(model, np.zeros((4, 8)), np.arange(4), layers=layers)


def test_one_layer_alone_and_determinism() -> None:
    x = np.random.default_rng(1).normal(size=(40, 64))
    y = (x @ np.cos(1.3 * np.arange(64)) > 0).astype(int)
    states = []
    for _ in range(2):
        ssm = DiagonalSSM(4, 8, generator=seeded(3))
        tdi_init_(ssm, x, y, generator=seeded(4))
        states.append(ssm.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@given(seed=st.integers(0, 10_000), channels=st.integers(1, 8), pairs=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_any_size_and_any_spectrum_gives_a_finite_stable_layer(seed: int, channels: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    target = spectrum(rng.random(129) ** 8, np.exp(3 * rng.normal(size=129)))
    ssm = DiagonalSSM(channels, 2 * pairs, generator=seeded(seed))
    report = match_power_spectrum_(ssm, target, generator=seeded(seed))
    assert 0 <= report.loss_after <= 2
    assert all(torch.isfinite(p).all() for p in ssm.parameters())
    power = ssm.frequency_response(torch.tensor(OMEGA, dtype=torch.float32)).abs() ** 2
    power = (power * torch.tensor(target.input_power, dtype=torch.float32)).mean(1)
    assert torch.allclose(power, torch.ones(channels), rtol=0.05)


GOOD = {"omega": OMEGA, "power": np.ones(129), "input_power": np.ones(129)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("power", np.zeros(129)),
        ("power", -np.ones(129)),
        ("power", np.ones(128)),
        ("power", np.full(129, np.nan)),
        ("input_power", np.zeros(129)),
        ("omega", OMEGA[::-1]),
        ("omega", 2 * OMEGA),
    ],
)
def test_impossible_spectra_are_refused(field: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        TaskSpectrum(**(GOOD | {field: value}), method="cross", n_samples=4)


SSM = DiagonalSSM(2, 4)
ONE = TaskSpectrum(OMEGA[:1], np.ones(1), np.ones(1), "cross", 4)
BETWEEN = TaskSpectrum(np.array([1.0, 1.1, 1.2]), np.array([0.0, 1.0, 0.0]), np.ones(3), "cross", 4)
TASK = spectrum(band(1.0))
X, Y = np.random.default_rng(0).normal(size=(12, 16)), np.arange(12) % 2


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: match_power_spectrum_(torch.nn.Linear(2, 2), TASK), TypeError, "ssm"),
        (lambda: match_power_spectrum_(SSM, OMEGA), TypeError, "spectrum"),
        (lambda: match_power_spectrum_(SSM, ONE), ValueError, "spectrum"),
        (lambda: match_power_spectrum_(SSM, BETWEEN), ValueError, "spectrum"),
        (lambda: match_power_spectrum_(SSM, TASK, solver="sgd"), ValueError, "solver"),
        (lambda: match_power_spectrum_(SSM, TASK, decay=0.0), ValueError, "decay"),
        (lambda: match_power_spectrum_(SSM, TASK, spread=-1.0), ValueError, "spread"),
        (lambda: match_power_spectrum_(SSM, TASK, steps=0), ValueError, "steps"),
        (lambda: tdi_init_(torch.nn.Linear(2, 2), X, Y), TypeError, "model"),
        (lambda: tdi_init_(SSM, X, Y, layers="second"), ValueError, "layers"),
        (lambda: tdi_init_(SSM, X, Y, method="best"), ValueError, "method"),
        (lambda: tdi_init_(SSM, X * np.nan, Y), ValueError, "x"),
        (lambda: tdi_init_(SSM, X, Y * 0), ValueError, "y"),
    ],
)
def test_bad_arguments_are_named(call, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        call()


def test_flat_init_is_the_flat_estimate_matched() -> None:
    x = np.random.default_rng(0).normal(size=(64, 32)).cumsum(axis=1)
    one, other = (SequenceModel(1, 2, d_model=8, d_state=8, n_layers=2, generator=seeded()) for _ in range(2))
    report = flat_init_(one, x, layers="all", generator=seeded())
    tdi_init_(other, x, np.arange(64) % 2, layers="all", method="flat", generator=seeded())
    assert report.spectrum.method == "flat" and len(report.changed) == 6
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    eta = layer_importance(one.ssms[0], report.spectrum)
    assert spectral_loss(one.ssms[0], report.spectrum) < 0.5 < report.loss_before
    assert np.corrcoef(eta, report.spectrum.input_power)[0, 1] < 0.5  # white output, whatever the input's color


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_a_share_is_matched_and_the_rest_stays(share: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 64))
    y = x @ np.cos(1.9 * np.arange(64))
    before, after = DiagonalSSM(16, 8, generator=seeded(1)), DiagonalSSM(16, 8, generator=seeded(1))
    tdi_init_(after, x, y, share=share, generator=seeded(2))
    kept = (before.A_imag == after.A_imag).all(dim=1).numpy()
    assert (~kept).sum() == int(16 * share)
    for name in ("log_A_real", "C_real_imag", "log_dt"):
        old, new = getattr(before, name), getattr(after, name)
        assert torch.equal(old[kept], new[kept])
    poles = after.log_poles.imag.detach().numpy()[~kept]
    assert abs(np.median(poles) - 1.9) < 0.2
    assert np.diff(np.flatnonzero(~kept)).max() <= math.ceil(1 / share)  # evenly spread


def test_a_share_of_nothing_is_refused() -> None:
    ssm = DiagonalSSM(4, 8, generator=seeded())
    with pytest.raises(ValueError, match="share must leave one of 4 channels to match, got 0.2"):
        match_power_spectrum_(ssm, spectrum(band(1.2)), share=0.2)
    with pytest.raises(ValueError, match="share must be 1 with solver 'adam'"):
        match_power_spectrum_(ssm, spectrum(band(1.2)), share=0.5, solver="adam")


@pytest.mark.parametrize("length", [96, 128, 500])
@pytest.mark.parametrize("start", [flat_init_, tdi_init_], ids=["flat", "matched"])
def test_placement_does_not_hang_on_the_last_digit(start, length: int) -> None:
    """Short sequences have fewer frequencies than there are centers to choose from: many mixtures are equally good."""
    x = np.random.default_rng(0).normal(size=(64, length)).cumsum(axis=1)
    moved = x * (1 + 1e-12 * np.random.default_rng(1).standard_normal(x.shape))
    y = () if start is flat_init_ else (np.arange(64) % 2,)
    layers = [DiagonalSSM(8, 16, generator=seeded()).double() for _ in range(2)]
    for layer, inputs in zip(layers, (x, moved), strict=True):
        start(layer, inputs, *y, generator=seeded())
    one, other = (layer.log_poles.detach().numpy() for layer in layers)
    assert np.abs(one - other).max() < 1e-8

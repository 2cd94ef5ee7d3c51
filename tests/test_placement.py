"""Placement by the joint density: quantiles against counts, gains against simulated signals."""

import functools
import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tdi_lib
from tdi_lib.data.synthetic import sharpness_task
from tdi_lib.filters import MimoSSM, find_ssms
from tdi_lib.scalogram import Scalogram
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
from tdi_lib.ssm import DiagonalSSM, SequenceModel
from tdi_lib.tdi import (
    _quantiles,
    channel_power,
    flat_bank_,
    flat_init_,
    gains_init_,
    place_scalogram_,
    tdi_init_,
    unit_gains_,
)

OMEGA = np.linspace(0, np.pi, 129)
LENGTH = 256
RED = 1 / (OMEGA + 0.1) ** 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(
    importance: np.ndarray, resolutions: list[float], evidence: list[float], input_power: np.ndarray | None = None
) -> TaskSpectrum:
    s_u = np.ones_like(OMEGA) if input_power is None else input_power / input_power.mean()
    rows = np.tile(importance / importance.mean(), (len(resolutions), 1))
    plane = Scalogram(OMEGA, np.array(resolutions), rows, np.array(evidence), "second", 100.0)
    power = importance / s_u
    return TaskSpectrum(OMEGA, power / power.mean(), s_u, "discriminative", 100, plane)


def band(center: float, width: float = 0.2) -> np.ndarray:
    return np.exp(-(((OMEGA - center) / width) ** 2) / 2)


def colored_noise(spectrum: TaskSpectrum, length: int, seed: int) -> np.ndarray:
    """Stationary Gaussian noise (L) with the task's input power, interpolated between its frequencies."""
    white = np.fft.rfft(np.random.default_rng(seed).normal(size=length))
    grid = np.linspace(0, np.pi, white.size)
    return np.fft.irfft(white * np.sqrt(np.interp(grid, spectrum.omega, spectrum.input_power)), n=length)


def simulated_power(ssm: DiagonalSSM, spectrum: TaskSpectrum) -> np.ndarray:
    """Mean square output of every channel (H): its impulse response, step by step, on a long signal."""
    state, kernel = ssm.initial_state(1), []
    for step in range(LENGTH):
        state, out = ssm.step(state, torch.full((1, ssm.d_model), float(step == 0), dtype=ssm.log_dt.dtype))
        kernel.append(out[0])
    signal = colored_noise(spectrum, 200_000, 0)
    outputs = [scipy.signal.oaconvolve(signal, k.detach().numpy(), mode="valid") for k in torch.stack(kernel).T]
    return np.array([(y**2).mean() for y in outputs])


@pytest.mark.parametrize("input_power", [None, RED], ids=["white", "red"])
def test_every_channel_has_unit_output_power(input_power: np.ndarray | None) -> None:
    spectrum = task(band(1.2), [0.05, 0.1, 0.2], [0.0, 0.0, 0.0], input_power)
    ssm = DiagonalSSM(12, 16, generator=seeded()).double()
    place_scalogram_(ssm, spectrum, generator=seeded())
    assert np.allclose(simulated_power(ssm, spectrum), 1, rtol=0.08)  # sampling error of a long signal
    assert np.allclose(channel_power(ssm, spectrum), 1)


@pytest.mark.parametrize("input_power", [None, RED], ids=["white", "red"])
def test_unit_gains_move_no_pole(input_power: np.ndarray | None) -> None:
    spectrum = task(band(1.2), [0.1], [0.0], input_power)
    ssm = DiagonalSSM(12, 16, generator=seeded()).double()
    before = {name: value.clone() for name, value in ssm.state_dict().items()}
    report = unit_gains_(ssm, spectrum)
    assert report.changed == ("C_real_imag",)
    for name, value in ssm.state_dict().items():
        assert torch.equal(value, before[name]) == (name != "C_real_imag")
    ratio = ssm.C_real_imag / before["C_real_imag"]  # one factor a channel
    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio))
    # near zero frequency a cut kernel resonates in a few of the signal's bins: a wider sampling error
    assert np.allclose(simulated_power(ssm, spectrum), 1, rtol=0.25)
    assert np.allclose(channel_power(ssm, spectrum), 1)


def test_default_gain_keeps_the_loudness_and_changes_the_shape() -> None:
    spectrum = task(band(1.2), [0.1], [0.0])
    ssm = DiagonalSSM(12, 16, generator=seeded()).double()
    power = channel_power(ssm, spectrum)
    report = place_scalogram_(ssm, spectrum, gain="default", hedge=0.0, generator=seeded())
    assert report.loss_after < 0.2 < report.loss_before
    assert np.ptp(np.log(power)) > 1 and np.allclose(channel_power(ssm, spectrum), power)
    other = DiagonalSSM(12, 16, generator=seeded()).double()
    place_scalogram_(other, spectrum, gain="unit", hedge=0.0, generator=seeded())
    assert torch.equal(ssm.A_imag, other.A_imag)  # the same poles


def test_share_leaves_the_others_to_the_last_bit() -> None:
    spectrum = task(band(1.2), [0.1, 0.2], [0.0, 0.0])
    ssm = DiagonalSSM(12, 16, generator=seeded())
    before = {name: value.clone() for name, value in ssm.state_dict().items()}
    place_scalogram_(ssm, spectrum, share=0.5, generator=seeded())
    for name in ("log_A_real", "A_imag", "C_real_imag"):
        same = (ssm.state_dict()[name] == before[name]).flatten(1).all(dim=1)
        assert same.sum() == 6


def test_a_certain_resolution_is_everybodys() -> None:
    spectrum = task(band(2.0), [0.02, 0.1, 0.4], [-2.0, 0.0, -2.0])
    ssm = DiagonalSSM(32, 16, generator=seeded()).double()
    place_scalogram_(ssm, spectrum, hedge=0.0, generator=seeded())
    decay, omega = -ssm.log_poles.real.mean(dim=1), ssm.log_poles.imag.mean(dim=1)
    inside = (decay >= math.sqrt(0.02 * 0.1) - 1e-6) & (decay <= math.sqrt(0.1 * 0.4) + 1e-6)
    assert inside.all() and ((omega - 2.0).abs() < 0.7).all()
    single = task(band(2.0), [0.1], [0.0])
    place_scalogram_(ssm, single, hedge=0.0, generator=seeded())
    assert torch.allclose(-ssm.log_poles.real, torch.full_like(ssm.log_poles.real, 0.1))


def test_a_flat_evidence_gives_mixed_decays() -> None:
    resolutions = [0.02, 0.05, 0.125]
    ssm = DiagonalSSM(96, 8, generator=seeded()).double()
    place_scalogram_(ssm, task(band(1.2), resolutions, [0.0, 0.0, 0.0]), hedge=0.0, generator=seeded())
    decay = -ssm.log_poles.real.mean(dim=1).detach().numpy()
    counts = np.histogram(decay, bins=Scalogram(OMEGA, resolutions, np.ones((3, 129)), [0, 0, 0], "first", 1).edges)[0]
    assert counts.sum() == 96 and (np.abs(counts - 32) <= 6).all()


def test_every_resolution_has_its_own_centers() -> None:
    rows = np.stack([band(0.8), band(2.4)])
    rows /= rows.mean(axis=1, keepdims=True)
    plane = Scalogram(OMEGA, [0.02, 0.2], rows, [0.0, 0.0], "second", 1.0)
    power = rows.mean(axis=0)
    spectrum = TaskSpectrum(OMEGA, power / power.mean(), np.ones(129), "discriminative", 64, plane)
    ssm = DiagonalSSM(64, 16, generator=seeded()).double()
    place_scalogram_(ssm, spectrum, hedge=0.0, generator=seeded())
    decay = -ssm.log_poles.real.mean(dim=1).detach().numpy()
    center = ssm.log_poles.imag.mean(dim=1).detach().numpy()
    sharp = decay < math.sqrt(0.02 * 0.2)
    assert (np.abs(center[sharp] - 0.8) < 0.6).mean() > 0.9
    assert (np.abs(center[~sharp] - 2.4) < 0.7).mean() > 0.9
    assert 26 <= sharp.sum() <= 38


def test_hedge_spreads_its_part_evenly() -> None:
    spectrum = task(band(0.6, 0.05), [0.02, 0.1], [0.0, -1.0])
    ssm = DiagonalSSM(64, 8, generator=seeded()).double()
    place_scalogram_(ssm, spectrum, hedge=0.5, generator=seeded())
    center = ssm.log_poles.imag.mean(dim=1).detach().numpy()
    far = np.abs(center - 0.6) > 0.3
    assert 20 <= far.sum() <= 32  # half of the channels, less those whose place is by chance the task's
    assert np.abs(np.sort(center[far])[-1] - np.pi) < 0.3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6))
def test_quantiles_share_out_the_density(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    density = rng.gamma(0.7, size=(rows, 16))
    density /= density.sum()
    edges, count = np.geomspace(0.01, 0.5, rows + 1), 20_000
    centers, decays = _quantiles(density, edges, np.arange(count) + 0.5, count)
    direct = np.histogram2d(decays, centers, bins=(edges, np.linspace(0, np.pi, 17)))[0] / count
    assert np.abs(direct - density).max() < 2e-3


def test_weights_at_each_decay_let_no_loud_band_through() -> None:
    s_u = np.where(OMEGA < 0.5, 1e5, 1.0)
    spectrum = task(band(2.0), [0.05, 0.2], [0.0, 0.0], s_u)
    ssm = DiagonalSSM(16, 32, generator=seeded()).double()
    place_scalogram_(ssm, spectrum, hedge=0.0, generator=seeded())
    z = np.exp(-1j * OMEGA)
    poles, c = (np.exp(ssm.log_poles.detach().numpy()), ssm.residues.detach().numpy())

    def leaks(weights: np.ndarray) -> np.ndarray:
        """Share of the output's power (H) that comes from the loud band, mode by mode."""
        shares = []
        for a, weight in zip(poles, weights, strict=True):
            h = sum(w / (1 - p * z) + np.conj(w) / (1 - np.conj(p) * z) for p, w in zip(a, weight, strict=True))
            eta = np.abs(h) ** 2 * spectrum.input_power
            shares.append(eta[OMEGA < 0.5].sum() / eta.sum())
        return np.array(shares)

    assert leaks(np.ones_like(c)).min() > 0.99 and leaks(c).mean() < 0.4 and leaks(c).max() < 0.6


def test_flat_bank_at_one_and_at_mixed_decays() -> None:
    spectrum = task(band(1.2), [0.1], [0.0], RED)
    ssm = DiagonalSSM(48, 16, generator=seeded()).double()
    report = flat_bank_(ssm, spectrum, resolutions=0.05, generator=seeded())
    assert report.spectrum.method == "flat" and report.loss_after < 0.1
    assert torch.allclose(-ssm.log_poles.real, torch.full_like(ssm.log_poles.real, 0.05))
    flat_bank_(ssm, spectrum, resolutions=[0.01, 0.03, 0.09], generator=seeded())
    logs = np.sort(np.log(-ssm.log_poles.real.mean(dim=1).detach().numpy()))
    edges = np.log([0.01 / math.sqrt(3), 0.09 * math.sqrt(3)])
    even = np.interp((np.arange(48) + 0.5) / 48, [0, 1], edges)
    assert np.abs(logs - even).max() < 0.15 * (edges[1] - edges[0])
    center = np.sort(ssm.log_poles.imag.mean(dim=1).detach().numpy())
    assert np.abs(center - (np.arange(48) + 0.5) * np.pi / 48).max() < 0.1


def test_other_layers_whose_modes_are_shared() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(-0.1 + 1j * torch.linspace(0.1, 3, 16).double())
            self.b = torch.nn.Parameter(torch.randn(16, 3, generator=seeded(), dtype=torch.complex128))
            self.c = torch.nn.Parameter(torch.randn(4, 16, generator=seeded(1), dtype=torch.complex128))

        log_poles = property(lambda self: self.p)
        input_gains = property(lambda self: self.b)
        output_gains = property(lambda self: self.c)

        @torch.no_grad()
        def set_modes_(self, log_poles: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
            self.p.copy_(log_poles), self.b.copy_(b), self.c.copy_(c)

    ssm, spectrum = Shared(), task(band(1.2), [0.05, 0.2], [0.0, 0.0])
    assert isinstance(find_ssms(ssm)[""], MimoSSM)
    before = channel_power(ssm, spectrum)
    report = place_scalogram_(ssm, spectrum, gain="default", hedge=0.0, generator=seeded())
    assert report.loss_after < 0.5 * report.loss_before and np.allclose(channel_power(ssm, spectrum), before)
    place_scalogram_(ssm, spectrum, generator=seeded())
    assert np.allclose(channel_power(ssm, spectrum), 1)
    for call in (lambda: unit_gains_(ssm, spectrum), lambda: place_scalogram_(ssm, spectrum, share=0.5)):
        with pytest.raises(ValueError, match="shared by inputs and outputs"):
            call()


def test_other_layers_of_separate_channels() -> None:
    class Separate(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(-0.05 + 1j * torch.linspace(0.1, 3, 8).double().repeat(6, 1))
            self.c = torch.nn.Parameter(torch.randn(6, 8, generator=seeded(), dtype=torch.complex128))

        log_poles = property(lambda self: self.p)
        residues = property(lambda self: self.c)

        @torch.no_grad()
        def set_log_poles_(self, log_poles: torch.Tensor, residues: torch.Tensor) -> None:
            self.p.copy_(log_poles), self.c.copy_(residues)

    ssm, spectrum = Separate(), task(band(1.2), [0.05, 0.2], [0.0, 0.0])
    assert unit_gains_(ssm, spectrum).changed == ("c",)
    assert np.allclose(channel_power(ssm, spectrum), 1)
    report = place_scalogram_(ssm, spectrum, hedge=0.0, generator=seeded())
    assert report.changed == ("p", "c") and report.loss_after < 0.5 * report.loss_before
    assert np.allclose(channel_power(ssm, spectrum), 1)


def test_a_silent_channel_stays_silent() -> None:
    ssm, spectrum = DiagonalSSM(4, 8, generator=seeded()).double(), task(band(1.2), [0.1], [0.0])
    with torch.no_grad():
        ssm.C_real_imag[1] = 0
    unit_gains_(ssm, spectrum)
    assert np.allclose(channel_power(ssm, spectrum), [1, 0, 1, 1])


def test_the_draw_is_the_generators() -> None:
    spectrum = task(band(1.2), [0.05, 0.2], [0.0, 0.0])
    one, two, three = (DiagonalSSM(8, 8, generator=seeded()) for _ in range(3))
    for ssm, seed in ((one, 1), (two, 1), (three, 2)):
        place_scalogram_(ssm, spectrum, generator=seeded(seed))
    assert torch.equal(one.A_imag, two.A_imag) and not torch.equal(one.A_imag, three.A_imag)


def test_from_samples_to_filters() -> None:
    x, y = sharpness_task("lines", 128, generator=np.random.default_rng(0))
    ssm = DiagonalSSM(16, 16, generator=seeded())
    place_scalogram_(ssm, estimate_task_spectrum(x, y, resolutions="auto"), hedge=0.0, generator=seeded())
    assert (-ssm.log_poles.real).median() < 0.06
    x, y = sharpness_task("hump", 128, generator=np.random.default_rng(0))
    place_scalogram_(ssm, estimate_task_spectrum(x, y, resolutions="auto"), hedge=0.0, generator=seeded())
    assert (-ssm.log_poles.real).median() > 0.15


@pytest.mark.parametrize("length", [96, 128, 500])
@pytest.mark.parametrize("start", ["task", "random labels", "flat"])
def test_placement_does_not_hang_on_the_last_digit(start: str, length: int) -> None:
    """Short sequences have fewer frequencies than there are centers to choose from: many mixtures are equally good."""
    x, y = sharpness_task("lines", 64, generator=np.random.default_rng(0), length=length)
    x = x.cumsum(axis=1) if start == "flat" else x
    y = np.random.default_rng(1).permutation(y) if start == "random labels" else y
    moved = x * (1 + 1e-12 * np.random.default_rng(2).standard_normal(x.shape))
    one, other = (DiagonalSSM(8, 16, generator=seeded()).double() for _ in range(2))
    for ssm, inputs in ((one, x), (other, moved)):
        if start == "flat":
            flat_init_(ssm, inputs, resolutions="auto", generator=seeded())
        else:
            tdi_init_(ssm, inputs, y, resolutions="auto", generator=seeded())
    assert (one.log_poles - other.log_poles).abs().max() < 1e-8


@pytest.mark.parametrize("n_frequencies", [49, 65, 251])
@pytest.mark.parametrize(("ripple", "decay"), [(0.1, 0.1), (0.0, 0.05)], ids=["ripple", "constant"])
def test_of_mixtures_that_are_equally_good_the_smallest_is_taken(
    n_frequencies: int, ripple: float, decay: float
) -> None:
    omega = np.linspace(0, np.pi, n_frequencies)
    importance, log_poles = 1 + ripple * np.cos(6 * omega), []
    for error in (0, 1e-12):
        row = importance * (1 + error * np.random.default_rng(0).standard_normal(n_frequencies))
        plane = Scalogram(omega, [decay], row[None] / row.mean(), [0.0], "first", 1.0)
        ssm = DiagonalSSM(16, 16, generator=seeded()).double()
        spectrum = TaskSpectrum(omega, row / row.mean(), np.ones(n_frequencies), "evidence", 64, plane)
        place_scalogram_(ssm, spectrum, hedge=0.0, generator=seeded())
        log_poles.append(ssm.log_poles)
    assert (log_poles[0] - log_poles[1]).abs().max() < 1e-8


def deep(seed: int = 0) -> SequenceModel:
    return SequenceModel(1, 2, d_model=8, d_state=16, n_layers=3, generator=seeded(seed))


def test_a_model_is_placed_layer_by_layer_as_by_hand() -> None:
    x, y = sharpness_task("hump", 64, generator=np.random.default_rng(0), length=64)
    spectrum = estimate_task_spectrum(x, y, method="discriminative", resolutions=[0.05, 0.2])
    for gain in ("unit", "default"):
        model, by_hand = deep(), deep()
        report = tdi_init_(
            model, x, y, layers="all", method="discriminative", resolutions=[0.05, 0.2], gain=gain, generator=seeded(1)
        )
        generator = seeded(1)
        for ssm in by_hand.ssms:
            place_scalogram_(ssm, spectrum, gain=gain, generator=generator)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), by_hand.parameters(), strict=True))
        assert len(report.changed) == 9 and report.spectrum.resolution == spectrum.resolution


def test_each_layer_has_a_scalogram_of_what_enters_it() -> None:
    x, y = sharpness_task("lines", 64, generator=np.random.default_rng(0), length=64)
    model, same = deep(), deep()
    report = tdi_init_(model, x, y, layers="each", method="discriminative", resolutions="auto", generator=seeded(1))
    tdi_init_(same, x, y, layers="all", method="discriminative", resolutions="auto", generator=seeded(1))
    assert len(report.changed) == 9
    assert torch.equal(model.ssms[0].A_imag, same.ssms[0].A_imag)
    assert not torch.allclose(model.ssms[1].A_imag, same.ssms[1].A_imag, rtol=0.01)


def test_a_composite_chain_makes_the_rows_of_the_scalogram() -> None:
    x, y = sharpness_task("hump", 64, generator=np.random.default_rng(0), length=64)
    x = scipy.signal.lfilter([1], [1, -0.5], x, axis=1)
    task = estimate_task_spectrum(x, y, resolutions=[0.05, 0.2])
    rooted = tdi_init_(deep(), x, y, layers="composite", resolutions=[0.05, 0.2], generator=seeded()).spectrum
    for found, wanted in zip(rooted.scalogram.importance, task.scalogram.importance, strict=True):
        chain = (found / task.input_power) ** 3 * task.input_power
        assert np.allclose(chain / chain.mean(), wanted, atol=1e-9)


def test_a_guarded_placement_is_the_unguarded_one_or_none() -> None:
    x, y = sharpness_task("hump", 128, generator=np.random.default_rng(0), length=64)
    plain, guarded = (DiagonalSSM(8, 16, generator=seeded()) for _ in range(2))
    tdi_init_(plain, x, y, resolutions="auto", generator=seeded(1))
    before = {name: value.clone() for name, value in guarded.state_dict().items()}
    answers = set()
    for labels in (y, np.random.default_rng(1).permutation(y)):
        guarded.load_state_dict(before)
        report = tdi_init_(guarded, x, labels, resolutions="auto", guard=True, generator=seeded(1))
        if labels is y and report.guard.better:
            assert torch.equal(guarded.A_imag, plain.A_imag)
        if not report.guard.better:
            assert all(torch.equal(value, before[name]) for name, value in guarded.state_dict().items())
        answers.add(report.guard.better)
    assert answers == {True, False}


def test_starts_by_name_are_those_of_the_layers_and_see_no_label() -> None:
    x = np.random.default_rng(0).normal(size=(40, 64)).cumsum(axis=1)
    spectrum = estimate_task_spectrum(x, method="input")
    for resolutions in (0.1, [0.02, 0.1], "auto"):
        model, by_hand = deep(), deep()
        report = tdi_lib.flat_init_(model, x, layers="2", resolutions=resolutions, generator=seeded(1))
        flat_bank_(by_hand.ssms[1], spectrum, resolutions=resolutions, generator=seeded(1))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), by_hand.parameters(), strict=True))
        assert report.layer == "layers.1.ssm" and len(report.changed) == 3
    model, by_hand = deep(), deep()
    assert tdi_lib.gains_init_(model, x).solver == "gains"
    unit_gains_(by_hand.ssms[0], spectrum)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), by_hand.parameters(), strict=True))


def test_padding_is_not_looked_at_by_the_starts_by_name() -> None:
    x = np.random.default_rng(0).normal(size=(40, 64))
    ends = np.random.default_rng(1).integers(32, 65, size=40)
    padded = [np.where(np.arange(64) >= ends[:, None], fill, x) for fill in (np.nan, 1e6)]
    for start in (flat_init_, gains_init_, functools.partial(flat_init_, resolutions=0.1)):
        one, other = (DiagonalSSM(8, 16, generator=seeded()) for _ in range(2))
        for ssm, inputs in zip((one, other), padded, strict=True):
            start(ssm, inputs, lengths=ends, **({} if start is gains_init_ else {"generator": seeded(1)}))
        assert torch.equal(one.C_real_imag, other.C_real_imag)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, y: tdi_init_(m, x, y, gain="default"), "gain must be 'unit' without resolutions, got 'default'"),
        (lambda m, x, y: tdi_init_(m, x, y, gain="loud"), "gain must be one of unit, default"),
        (lambda m, x, y: tdi_init_(m, x, y, resolutions="auto", solver="adam"), "solver must be 'nnls' with resolu"),
        (lambda m, x, y: tdi_init_(m, x, y, resolutions="all"), "resolutions must be one of auto"),
        (lambda m, x, y: tdi_init_(m, x, None, resolutions="auto"), "y must be given for method 'auto'"),
        (lambda m, x, y: flat_init_(m, x, gain="default"), "gain must be 'unit' without resolutions"),
        (lambda m, x, y: flat_init_(m, x, resolutions=0.1, layers="composite"), "layers must not be 'composite'"),
        (lambda m, x, y: flat_init_(m, x, resolutions=-0.1), "resolutions must ascend within"),
        (lambda m, x, y: gains_init_(m, x, layers="composite"), "layers must not be 'composite'"),
        (lambda m, x, y: gains_init_(m, x, layers="4"), "layers must be one of first, all"),
    ],
)
def test_bad_arguments_of_a_start_leave_the_model_alone(call, message: str) -> None:
    model, x = deep(), np.random.default_rng(0).normal(size=(16, 32))
    with pytest.raises(ValueError, match=message):
        call(model, x, np.arange(16) % 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), deep().parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hedge": 1.5}, "hedge must be"),
        ({"hedge": float("nan")}, "hedge must be"),
        ({"spread": -1.0}, "spread must be"),
        ({"share": 0.01}, "share must leave one of 8"),
        ({"gain": "loud"}, "gain must be one of unit, default"),
    ],
)
def test_bad_options_are_refused_before_anything_changes(options: dict, message: str) -> None:
    ssm = DiagonalSSM(8, 8, generator=seeded())
    before = {name: value.clone() for name, value in ssm.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        place_scalogram_(ssm, task(band(1.2), [0.1], [0.0]), **options)
    assert all(torch.equal(value, before[name]) for name, value in ssm.state_dict().items())


def test_bad_arguments_are_named() -> None:
    ssm, plain = DiagonalSSM(8, 8), TaskSpectrum(OMEGA, np.ones(129), np.ones(129), "flat", 4)
    with pytest.raises(ValueError, match="spectrum must have a scalogram, got None"):
        place_scalogram_(ssm, plain)
    for call in (place_scalogram_, unit_gains_, channel_power):
        with pytest.raises(TypeError, match="spectrum must be a TaskSpectrum, got str"):
            call(ssm, "flat")
    for resolutions, message in (([0.2, 0.1], "must ascend"), (0.0, "must ascend within"), ([], "must not be empty")):
        with pytest.raises(ValueError, match=f"resolutions {message}"):
            flat_bank_(ssm, plain, resolutions=resolutions)
    with pytest.raises(TypeError, match="ssm must be the layer itself"):
        unit_gains_(torch.nn.Sequential(ssm), plain)

"""Other people's layers: run forward as they are, they must be what the adapters say, and match what they were told."""

import copy
import math
import warnings

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tdi_lib import DiagonalSSM, TaskSpectrum, tdi_init_
from tdi_lib.filters import (
    LRUAdapter,
    MimoSSM,
    S4DAdapter,
    S5Adapter,
    SisoSSM,
    adapt,
    arrays,
    dft_grid,
    dft_response,
    find_ssms,
    frequency_response,
    impulse_response,
)
from tdi_lib.ssm import INITIALIZATIONS
from tdi_lib.tdi import flat_init_, layer_importance, match_power_spectrum_, matched_poles, spectral_loss

with warnings.catch_warnings():  # it still calls torch.jit.script
    warnings.simplefilter("ignore", DeprecationWarning)
    from s5 import S5, S5Block

OMEGA = np.linspace(0, np.pi, 129)
LENGTH = 4096


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class S4DKernel(nn.Module):
    """Parameters as in the original S4 code's minimal S4D."""

    def __init__(self, d_model: int, n_state: int = 64) -> None:
        super().__init__()
        half = n_state // 2
        self.C = nn.Parameter(torch.randn(d_model, half, 2) * math.sqrt(0.5))
        self.log_dt = nn.Parameter(torch.rand(d_model) * math.log(100) + math.log(1e-3))
        self.register_buffer("log_A_real", torch.full((d_model, half), math.log(0.5)))  # as there with a rate of zero
        self.A_imag = nn.Parameter(math.pi * torch.arange(half).expand(d_model, half).clone())

    def forward(self, length: int) -> torch.Tensor:
        a = -torch.exp(self.log_A_real) + 1j * self.A_imag
        z = a * torch.exp(self.log_dt)[:, None]
        c = torch.view_as_complex(self.C) * (torch.exp(z) - 1.0) / a
        return 2 * torch.einsum("hn,hnl->hl", c, torch.exp(z[:, :, None] * torch.arange(length))).real


class S4D(nn.Module):
    """The layer around it, its feed-through silent: (B, L, H) to (B, L, H)."""

    def __init__(self, d_model: int, n_state: int = 64) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.zeros(d_model))
        self.kernel = S4DKernel(d_model, n_state)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        length = u.shape[1]
        k_f = torch.fft.rfft(self.kernel(length), n=2 * length)
        y = torch.fft.irfft(torch.fft.rfft(u.mT, n=2 * length) * k_f, n=2 * length)[..., :length]
        return y.mT + self.D * u


class LRU(nn.Module):
    """Written after arXiv 2303.06349, appendix A: one step after another."""

    def __init__(self, n_inputs: int, n_state: int, n_outputs: int) -> None:
        super().__init__()
        self.nu_log = nn.Parameter(torch.log(-0.5 * torch.log(torch.rand(n_state) * 0.8 + 0.1)))
        self.theta_log = nn.Parameter(torch.log(6.28 * torch.rand(n_state)))
        self.gamma_log = nn.Parameter(0.5 * torch.log(1 - torch.exp(-2 * torch.exp(self.nu_log.detach()))))
        for name, shape in (("B", (n_state, n_inputs)), ("C", (n_outputs, n_state))):
            for part in ("re", "im"):
                self.register_parameter(f"{name}_{part}", nn.Parameter(torch.randn(shape) / math.sqrt(2 * shape[1])))
        self.D = nn.Parameter(torch.zeros(n_outputs, n_inputs))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        lam = torch.exp(torch.complex(-torch.exp(self.nu_log), torch.exp(self.theta_log)))
        b = torch.complex(self.B_re, self.B_im) * torch.exp(self.gamma_log)[:, None]
        c = torch.complex(self.C_re, self.C_im)
        state, states = torch.zeros(len(u), len(lam), dtype=lam.dtype), []
        for driven in (u.to(lam.dtype) @ b.T).unbind(1):
            state = lam * state + driven
            states.append(state)
        return (torch.stack(states, 1) @ c.T).real + u @ self.D.T


class Own(nn.Module):
    """A module that meets the protocol by itself, and keeps its poles in a way nobody knows."""

    def __init__(self, channels: int, pairs: int) -> None:
        super().__init__()
        self.secret = nn.Parameter(torch.randn(4, channels, pairs, dtype=torch.float64).abs())

    @property
    def log_poles(self) -> torch.Tensor:
        return torch.complex(-self.secret[0], self.secret[1])

    @property
    def residues(self) -> torch.Tensor:
        return torch.complex(self.secret[2], self.secret[3])

    @torch.no_grad()
    def set_log_poles_(self, log_poles: torch.Tensor, residues: torch.Tensor) -> None:
        self.secret.copy_(torch.stack([-log_poles.real, log_poles.imag, residues.real, residues.imag]))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        a, y = self.log_poles.exp(), []
        state = torch.zeros(len(u), *a.shape, dtype=a.dtype)
        for now in u.unbind(1):
            state = a * state + now[:, :, None]
            y.append(2 * (self.residues * state).sum(-1).real)
        return torch.stack(y, 1)


def s5(width: int, state: int, **options) -> S5:
    layer = S5(width, state, **options)
    nn.init.zeros_(layer.seq.D)  # what is matched is what the poles do
    return layer


def bilinear(width: int, state: int) -> S5:
    """The package's other rule, which its outer class cannot choose."""
    import s5 as package

    layer = s5(width, state)
    layer.seq.discretize = package.s5_model.discretize_bilinear
    return layer


LAYERS = {
    "S4D": lambda: S4D(64, 32),
    "S5": lambda: s5(16, 64),
    "S5, blocks": lambda: s5(16, 64, block_count=4),
    "S5, bidirectional": lambda: s5(16, 128, bidir=True),
    "S5, bilinear": lambda: bilinear(16, 64),
    "S5, modes left over": lambda: s5(8, 65),
    "LRU": lambda: LRU(8, 64, 12),
    "LRU, odd sizes": lambda: LRU(3, 61, 2),
    "own": lambda: Own(64, 16).double(),
}


def layer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[kind]()


def width(module: nn.Module) -> int:
    ssm = adapt(module)
    return ssm.input_gains.shape[1] if isinstance(ssm, MimoSSM) else ssm.log_poles.shape[0]


def dtype(module: nn.Module) -> torch.dtype:
    return torch.float64 if isinstance(module, Own) else torch.float32


def impulse_responses(module: nn.Module, length: int, at: int) -> np.ndarray:
    """What comes out of every output (D, L, H) after a unit impulse at one step into each input."""
    n = width(module)
    u = torch.zeros(n, length, n, dtype=dtype(module))
    u[torch.arange(n), at, torch.arange(n)] = 1
    with torch.no_grad():
        return module(u).numpy()


def expected_responses(module: nn.Module, length: int, at: int) -> np.ndarray:
    """The same from the poles and the gains, power by power."""
    ssm = adapt(module)
    lags = np.arange(length) - at
    poles = ssm.log_poles.detach().numpy()
    forward, backward = (np.where(s * lags >= 0, np.exp(poles[..., None] * (s * lags).clip(0)), 0) for s in (1, -1))
    if not isinstance(ssm, MimoSSM):
        k = 2 * np.einsum("hn,hnl->hl", ssm.residues.detach().numpy(), forward).real
        return np.einsum("hl,hg->hlg", k, np.eye(len(k)))
    b, c = ssm.input_gains.numpy(), ssm.output_gains.numpy()
    c = c.reshape(-1, *c.shape[-2:])
    return sum(
        2 * np.einsum("hn,nd,nl->dlh", c[i], b, each).real for i, each in enumerate((forward, backward)[: len(c)])
    )


@pytest.mark.parametrize("matched", [False, True], ids=["as it came", "matched"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_run_forward_is_its_poles_and_gains(kind: str, matched: bool) -> None:
    module = layer(kind)
    if matched:
        match_power_spectrum_(adapt(module), task(1.2), generator=seeded())
    at = 20 if "bidirectional" in kind else 0
    ours, theirs = expected_responses(module, 64, at), impulse_responses(module, 64, at)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-4 * np.abs(theirs).max()


def task(center: float, color: float = 0.0) -> TaskSpectrum:
    """Two bands on an input that is white, or falls by orders of magnitude."""
    eta = np.exp(-(((OMEGA - center) / 0.25) ** 2) / 2) + 0.4 * np.exp(-(((OMEGA - center - 1.1) / 0.15) ** 2) / 2)
    s_u = (OMEGA + 0.2) ** -color
    power = eta / s_u
    return TaskSpectrum(OMEGA, power / power.mean(), s_u / s_u.mean(), "cross", 100)


def measured_spectrum(module: nn.Module, spectrum: TaskSpectrum, seed: int) -> tuple[np.ndarray, float]:
    """Independent path: Welch's spectrum of what the module makes of noise with the task's spectrum, and its power."""
    n, batch = width(module), 2
    white = np.random.default_rng(seed).normal(size=(batch, LENGTH, n))
    shape = np.interp(np.linspace(0, np.pi, LENGTH // 2 + 1), OMEGA, spectrum.input_power)
    u = np.fft.irfft(np.fft.rfft(white, axis=1) * np.sqrt(shape)[:, None], n=LENGTH, axis=1)
    with torch.no_grad():
        y = module(torch.as_tensor(u, dtype=dtype(module))).numpy()[:, 256:-256]
    _, power = scipy.signal.welch(y, nperseg=256, fs=2 * np.pi, detrend=False, axis=1)
    return power.mean(axis=(0, 2)), float((y**2).mean())


@pytest.mark.parametrize("color", [0.0, 2.0], ids=["white", "red"])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_output_of_noise_has_the_tasks_spectrum(kind: str, color: float) -> None:
    module, spectrum = layer(kind), task(0.9, color)
    similarity = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    before, _ = measured_spectrum(module, spectrum, 1)
    report = match_power_spectrum_(adapt(module), spectrum, generator=seeded())
    after, power = measured_spectrum(module, spectrum, 2)
    assert similarity(after, layer_importance(adapt(module), spectrum)) > 0.97
    assert similarity(after, spectrum.importance) > 0.93 > similarity(before, spectrum.importance)
    assert np.isclose(power, 1, rtol=0.2)  # unit output power on the task's input
    assert report.loss_after < 0.15 and report.loss_after == spectral_loss(adapt(module), spectrum)


@pytest.mark.parametrize("kind", LAYERS)
def test_importance_is_the_mean_over_every_pair_of_an_input_and_an_output(kind: str) -> None:
    module, spectrum = layer(kind), task(0.9, 2.0)
    ssm, pairs = adapt(module), []
    a, z = np.exp(ssm.log_poles.detach().numpy())[..., None], np.exp(-1j * OMEGA)
    if isinstance(ssm, MimoSSM):
        b, c = ssm.input_gains.numpy(), ssm.output_gains.numpy()
        for j in range(b.shape[1]):
            for gains in c.reshape(-1, *c.shape[-2:])[0]:
                g = (gains * b[:, j])[:, None]
                pairs.append((g / (1 - a * z) + g.conj() / (1 - a.conj() * z)).sum(0))
            for i, gains in enumerate(c[1] if c.ndim == 3 else ()):  # backwards: the same, conjugated
                g = (gains * b[:, j])[:, None]
                pairs[j * c.shape[1] + i] += (g / (1 - a * z) + g.conj() / (1 - a.conj() * z)).sum(0).conj()
    else:
        g = ssm.residues.detach().numpy()[..., None]
        pairs.extend((g / (1 - a * z) + g.conj() / (1 - a.conj() * z)).sum(1))
    eta = (np.abs(pairs) ** 2).mean(axis=0) * spectrum.input_power
    assert np.allclose(layer_importance(ssm, spectrum), eta / eta.mean(), rtol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_what_is_set_is_read_again_and_named(kind: str) -> None:
    module = layer(kind)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = match_power_spectrum_(adapt(module), task(1.0), generator=seeded())
    inner = getattr(adapt(module), "module", module)
    prefix = next(path + "." if path else "" for path, each in module.named_modules() if each is inner)
    after = module.state_dict()
    assert {name for name in after if not torch.equal(before[name], after[name])} == {
        prefix + name for name in report.changed
    }
    other = copy.deepcopy(module)
    match_power_spectrum_(adapt(other), task(1.0), generator=seeded())
    steps = {name for name in after if name.endswith(("log_dt", "log_step"))}
    assert all(torch.equal(before[name], after[name]) for name in steps)
    assert all(torch.equal(after[name], value) for name, value in other.state_dict().items())  # the same draw


@given(frequency=st.floats(-3.2, 3.2), decay=st.floats(1e-4, 2.0))
@settings(max_examples=50, deadline=None)
def test_an_lru_takes_any_pole_and_keeps_its_logarithms_finite(frequency: float, decay: float) -> None:
    """Also at frequency zero and below: the kernel, which is real, must be the one that was asked for."""
    module = LRU(1, 1, 1)
    log_pole, b, c = -decay + 1j * frequency, np.array([[0.3 + 0.4j]]), np.array([[1.0 - 0.5j]])
    adapt(module).set_modes_(*(torch.as_tensor(np.asarray(each)) for each in (np.array([log_pole]), b, c)))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    wanted = 2 * (b[0, 0] * c[0, 0] * np.exp(log_pole * np.arange(32))).real
    assert np.abs(impulse_responses(module, 32, 0)[0, :, 0] - wanted).max() < 1e-4 * 32


def test_an_lru_at_frequency_zero_can_be_trained() -> None:
    module = LRU(4, 32, 4)
    low = TaskSpectrum(OMEGA, np.exp(-((OMEGA / 0.05) ** 2)), np.ones_like(OMEGA), "cross", 50)
    match_power_spectrum_(adapt(module), low, generator=seeded())
    assert (adapt(module).log_poles.imag < 0.1).any()
    module(torch.randn(2, 50, 4, generator=seeded())).square().mean().backward()
    assert all(torch.isfinite(p).all() and torch.isfinite(p.grad).all() for p in module.parameters())


def test_filters_that_share_no_pair_of_directions_add_their_powers_exactly() -> None:
    """Thirty-two filters, eighty-eight pairs: what each adds alone sums to what they do together."""
    module, spectrum = LRU(8, 64, 11), task(0.9)
    match_power_spectrum_(adapt(module), spectrum, generator=seeded())
    ssm, total = adapt(module), np.zeros(OMEGA.size)
    poles, b, c = ssm.log_poles.numpy(), ssm.input_gains.numpy(), ssm.output_gains.numpy()
    for q in range(32):
        kernel = np.einsum("hn,nd,nl->hdl", *(c[:, 2 * q : 2 * q + 2], b[2 * q : 2 * q + 2]),
                           np.exp(poles[2 * q : 2 * q + 2, None] * np.arange(1024))).real  # fmt: skip
        total += (np.abs(np.fft.rfft(2 * kernel, n=1024)[..., ::4]) ** 2).sum(axis=(0, 1))
    assert np.isclose(total.mean(), 11, rtol=1e-4)  # unit power of each output
    assert np.allclose(layer_importance(ssm, spectrum), total / total.mean(), rtol=1e-3)


@pytest.mark.parametrize("sizes", [(1, 16, 1), (2, 32, 2), (1, 64, 8)])
def test_more_filters_than_pairs_of_directions_still_come_near(sizes: tuple[int, int, int]) -> None:
    module = LRU(*sizes)
    report = match_power_spectrum_(adapt(module), task(0.9), generator=seeded())
    assert report.loss_after < (0.6 if sizes[2] == 1 else 0.15)
    assert np.isclose(measured_spectrum(module, task(0.9), 1)[1], 1, rtol=0.25)


@pytest.fixture(scope="module")
def tone() -> tuple[np.ndarray, np.ndarray]:
    """Samples whose target is a filter near 1.3 rad."""
    x = np.random.default_rng(0).normal(size=(200, 64))
    return x, x @ (np.cos(1.3 * np.arange(64)) * np.exp(-0.05 * np.arange(64)))


MODELS = {
    "S4D": (lambda: nn.Sequential(nn.Linear(1, 32), S4D(32, 16), S4D(32, 16)), "1.kernel",
            {"log_A_real", "A_imag", "C"}),
    "S5": (lambda: nn.Sequential(nn.Linear(1, 8), S5Block(8, 32, False)), "1.s5.seq", {"Lambda", "B", "C"}),
    "LRU": (lambda: nn.ModuleDict({"a": nn.Linear(1, 4), "b": LRU(4, 32, 4)}), "b",
            {"nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im"}),
    "own": (lambda: Own(32, 8), "", {"secret"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_tdi_finds_the_first_layer_in_a_model_and_says_which(kind: str, tone) -> None:
    make, path, names = MODELS[kind]
    torch.manual_seed(0)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = tdi_init_(model, *tone, generator=seeded())
    assert report.layer == path
    assert set(report.changed) == {f"{path}.{name}".lstrip(".") for name in names}
    assert {n for n, value in model.state_dict().items() if not torch.equal(before[n], value)} == set(report.changed)
    assert report.loss_after < 0.25 < report.loss_before
    eta = layer_importance(adapt(model), report.spectrum)
    assert abs(report.spectrum.omega[eta.argmax()] - 1.3) < 0.15


def test_every_layer_and_the_flat_start(tone) -> None:
    model = nn.Sequential(S4D(16, 16), S5(16, 32), DiagonalSSM(16, 16, generator=seeded()), LRU(16, 32, 16))
    assert list(find_ssms(model)) == ["0.kernel", "1.seq", "2", "3"]
    report = tdi_init_(model, *tone, layers="all", generator=seeded())
    assert {name.rsplit(".", 1)[0] for name in report.changed} == {"0.kernel", "1.seq", "2", "3"}
    losses = [spectral_loss(ssm, report.spectrum) for ssm in find_ssms(model).values()]
    assert max(losses) < 0.5
    flat = flat_init_(model, tone[0], generator=seeded())
    assert flat.layer == "0.kernel" and flat.spectrum.method == "flat" and flat.loss_after < 0.4 * flat.loss_before


def test_one_layer_by_its_number_and_a_share_of_its_channels(tone) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(S4D(16, 16), S4D(16, 16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = tdi_init_(model, *tone, layers="2", share=0.5, generator=seeded())
    assert report.layer == "1.kernel"
    for name, value in model.state_dict().items():
        same = torch.isclose(value, before[name], rtol=1e-4, atol=1e-4).flatten(1).all(1) if value.ndim > 1 else None
        if name in report.changed:
            assert same.sum() == 8  # the other half, but for rounding there and back
        else:
            assert torch.equal(value, before[name])


def test_sequences_of_different_lengths_start_a_layer_too(tone) -> None:
    x, y = tone
    lengths = np.random.default_rng(0).integers(40, 65, 200)
    padded = np.where(np.arange(64) < lengths[:, None], x, np.nan)
    torch.manual_seed(0)
    module = S4D(32, 16)
    report = tdi_init_(module, padded, y, lengths=lengths, generator=seeded())
    eta = layer_importance(adapt(module), report.spectrum)
    assert abs(report.spectrum.omega[eta.argmax()] - 1.3) < 0.15


def test_a_guarded_match_asks_the_layer_it_would_change(tone) -> None:
    torch.manual_seed(0)
    x, y = tone
    module = S4D(32, 16)
    before = copy.deepcopy(module.state_dict())
    said_no = tdi_init_(module, x, np.random.default_rng(1).normal(size=200), guard=True, generator=seeded())
    assert said_no.changed == () and all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    said_yes = tdi_init_(module, x, y, guard=True, generator=seeded())
    assert said_yes.guard.better and said_yes.changed
    unguarded = S4D(32, 16)
    unguarded.load_state_dict(before)
    tdi_init_(unguarded, x, y, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), unguarded.parameters(), strict=True))


@pytest.mark.parametrize("color", [0.0, 2.0], ids=["white", "red"])
def test_arrays_for_other_frameworks_are_a_matched_layer(color: float) -> None:
    """By the documented formula alone: no torch, no module."""
    spectrum = task(0.9, color)
    log_poles, residues = matched_poles(spectrum, 64, 16, seed=3)
    assert log_poles.shape == residues.shape == (64, 16)
    assert log_poles.dtype == residues.dtype == np.complex128
    lags = np.arange(1024)
    kernels = 2 * np.einsum("hn,hnl->hl", residues, np.exp(log_poles[..., None] * lags)).real
    power = np.abs(np.fft.rfft(kernels, n=2 * (OMEGA.size - 1) * 8)[:, ::8]) ** 2 * spectrum.input_power  # (H F)
    assert np.allclose(power.mean(axis=1), 1, rtol=0.02)
    eta, wanted = power.mean(axis=0), spectrum.importance
    assert eta @ wanted / np.linalg.norm(eta) / np.linalg.norm(wanted) > 0.95
    again = matched_poles(spectrum, 64, 16, seed=np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(again, (log_poles, residues), strict=True))
    assert not np.array_equal(matched_poles(spectrum, 64, 16, seed=4)[0], log_poles)


def test_few_channels_at_even_distances_that_miss_the_task_are_finite() -> None:
    bump = TaskSpectrum(OMEGA, np.exp(-(((OMEGA - 0.3) / 0.05) ** 2)), np.ones_like(OMEGA), "cross", 9)
    assert np.isfinite(matched_poles(bump, 1, 4, crowding=0.0)[1]).all()


def test_the_protocols_are_met_by_our_layer_and_by_the_adapters() -> None:
    assert isinstance(DiagonalSSM(2, 4), SisoSSM) and isinstance(Own(2, 2), SisoSSM)
    assert isinstance(adapt(S4D(2, 4)), S4DAdapter) and isinstance(adapt(S4D(2, 4)), SisoSSM)
    assert isinstance(adapt(S5(2, 4)), S5Adapter) and isinstance(adapt(S5(2, 4)), MimoSSM)
    assert isinstance(adapt(LRU(2, 4, 2)), LRUAdapter) and isinstance(adapt(LRU(2, 4, 2)), MimoSSM)
    assert not isinstance(nn.Linear(2, 2), SisoSSM | MimoSSM)


def odd_s4d(**tensors: torch.Tensor) -> S4DKernel:
    kernel = S4DKernel(2, 4)
    for name, value in tensors.items():
        setattr(kernel, name, nn.Parameter(value))
    return kernel


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: adapt(nn.Linear(2, 2)), TypeError, r"^model must .*log_A_real.*Lambda.*nu_log.*Linear.*bias, weight"),
        (lambda: adapt(nn.ReLU()), TypeError, "^model must .*ReLU with the parameters none"),
        (lambda: adapt("S4D"), TypeError, "^model must be a module .* got str"),
        (lambda: tdi_init_(3, *TONE), TypeError, "^model must .* got int"),
        (lambda: adapt(odd_s4d(C=torch.zeros(1, 2, 2, 2))), ValueError, r"^model must .*C \(1, 2, 2, 2\)"),
        (lambda: adapt(odd_s4d(B=torch.zeros(2, 2, 2))), ValueError, "^model must .*no B"),
        (lambda: adapt(S5(2, 4, liquid=True)), ValueError, "^model must .*liquid"),
        (lambda: adapt(S5(2, 4, degree=2)), ValueError, "^model must .*degree"),
        (lambda: match_power_spectrum_(S5(2, 4), task(1.0)), TypeError, "^ssm must be the layer itself"),
        (lambda: match_power_spectrum_(adapt(S5(2, 4)), task(1.0), solver="adam"), ValueError, "^solver must be 'nn"),
        (lambda: spectral_loss(nn.Sequential(DiagonalSSM(2, 4)), task(1.0)), TypeError, "^ssm must be the layer"),
        (lambda: tdi_init_(S5(2, 4), *TONE, guard=True), ValueError, "^guard must be False"),
        (lambda: tdi_init_(S4D(4, 4), *TONE, guard=True, lengths=np.arange(32) % 8 + 8), ValueError, "^guard must be"),
        (lambda: tdi_init_(nn.Sequential(S4D(4, 4), S4D(4, 4)), *TONE, layers="each"), ValueError, "^layers must not"),
        (lambda: tdi_init_(S4D(4, 4), *TONE, layers="2"), ValueError, "^layers must be one of first, .*, each, 1, got"),
        (lambda: match_power_spectrum_(adapt(S5(2, 4)), task(1.0), share=0.5), ValueError, "^share must be 1"),
        (lambda: match_power_spectrum_(adapt(S4D(2, 4)), task(1.0), share=0.1), ValueError, "^share must leave one"),
        (lambda: matched_poles(OMEGA, 2, 2), TypeError, "^spectrum"),
        (lambda: matched_poles(task(1.0), 0, 2), ValueError, "^d_model"),
        (lambda: matched_poles(task(1.0), 2, 2, seed=-1), ValueError, "^seed"),
        (lambda: matched_poles(task(1.0), 2, 2, decay=0.0), ValueError, "^decay"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_named(call, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


TONE = (np.random.default_rng(0).normal(size=(32, 16)), np.random.default_rng(1).normal(size=32))


@pytest.mark.parametrize("rule", ["zoh", "bilinear", "euler"])
@pytest.mark.parametrize("init", INITIALIZATIONS)
@given(length=st.integers(1, 300), channels=st.integers(1, 40), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_kernel_and_response_in_numpy_are_those_of_torch(
    init: str, rule: str, length: int, channels: int, seed: int
) -> None:
    if rule != "zoh" and init == "dfout":
        return  # placed in discrete time
    dt_max = 0.1 if rule == "zoh" else 1e-3  # the other rules need small steps
    ssm = DiagonalSSM(
        channels, 8, init=init, dt_min=1e-4, dt_max=dt_max, discretization=rule, generator=seeded(seed)
    ).double()
    log_poles, residues = arrays(ssm.log_poles, ssm.residues)
    kernel = ssm.kernel(length).detach().numpy()
    ours = impulse_response(log_poles, residues, length=length)
    assert np.abs(ours - kernel).max() < 1e-9 * np.abs(kernel).max()

    omega = np.random.default_rng(seed).uniform(0, np.pi, 20)
    for grid, ours in (
        (omega, frequency_response(log_poles, residues, omega=omega)),
        (dft_grid(length + 1), dft_response(log_poles, residues, n_frequencies=length + 1)),
    ):
        response = ssm.frequency_response(torch.as_tensor(grid)).detach().numpy()
        assert np.abs(ours - response).max() < 1e-9 * np.abs(response).max()

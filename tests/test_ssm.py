"""The diagonal SSM against independent paths: direct sums, FFTs, scipy's LTI tools, a matrix exponential."""

import math

import jaxtyping
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.ssm import INITIALISATIONS, DiagonalSSM, causal_convolution, poles_inv, poles_legs

NAMES = tuple(INITIALISATIONS)
lengths = st.integers(1, 300)
seeds = st.integers(0, 2**31)


def make(d_model: int = 3, d_state: int = 16, *, seed: int = 0, **options) -> DiagonalSSM:
    return DiagonalSSM(d_model, d_state, generator=torch.Generator().manual_seed(seed), **options)


def direct_kernel(ssm: DiagonalSSM, length: int) -> np.ndarray:
    """The (H, N, L) Vandermonde sum in float64 from the parameters' definition."""
    b, c = (t.detach().numpy().astype(complex) for t in (ssm.B, ssm.C))
    # from the parameters, as any reference must: exp(log_dt) rounded to float32 is another number
    dt = np.exp(ssm.log_dt.detach().double().numpy())
    a = -np.exp(ssm.log_A_real.detach().double().numpy()) + 1j * ssm.A_imag.detach().double().numpy()
    pole = np.exp(dt[:, None] * a)
    weight = c * b * (pole - 1) / a
    powers = pole[:, :, None] ** np.arange(length)
    return 2 * np.einsum("hn,hnl->hl", weight, powers).real


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# One table of tolerances: float64 is checked to rounding, float32 to what its poles can carry.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.parametrize("init", NAMES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 2, 3, 1000, 16384])
def test_kernel_equals_the_direct_sum(init: str, dtype: torch.dtype, length: int) -> None:
    ssm = make(8, 64, init=init).to(dtype)
    kernel = ssm.kernel(length)
    assert kernel.dtype == dtype and kernel.shape == (8, length)
    assert relative(kernel.detach().double().numpy(), direct_kernel(ssm, length)) < TOLERANCE[dtype]


@given(length=lengths, seed=seeds, init=st.sampled_from(NAMES))
@settings(max_examples=40, deadline=None)
def test_truncated_response_is_the_fft_of_the_kernel(length: int, seed: int, init: str) -> None:
    ssm = make(seed=seed, init=init).double()
    omega = 2 * torch.pi * torch.arange(length, dtype=torch.float64) / length
    response = ssm.frequency_response(omega, length=length).detach().numpy()
    expected = np.fft.fft(ssm.kernel(length).detach().numpy())
    assert np.abs(response - expected).max() <= 1e-9 * np.abs(expected).max()


def test_infinite_response_is_scipys() -> None:
    ssm = make(2, 6, dt_min=0.05).double()
    omega = torch.linspace(0, torch.pi, 50, dtype=torch.float64)
    ours = ssm.frequency_response(omega).detach().numpy()
    log_a, b = ssm.discretise()
    pole, weight = log_a.exp().detach().numpy(), (ssm.C * b).detach().numpy()
    for channel in range(2):
        residues = np.concatenate([weight[channel], weight[channel].conj()])
        poles = np.concatenate([pole[channel], pole[channel].conj()])
        numerator, denominator = scipy.signal.invresz(residues, poles, [])
        _, theirs = scipy.signal.freqz(numerator, denominator, worN=omega.numpy())
        assert np.allclose(ours[channel], theirs, rtol=1e-7)


@given(length=st.integers(1, 60), seed=seeds, init=st.sampled_from(NAMES))
@settings(max_examples=25, deadline=None)
def test_recurrence_agrees_with_convolution(length: int, seed: int, init: str) -> None:
    ssm = make(seed=seed, init=init).double()
    u = torch.randn(2, 3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    state, steps = ssm.initial_state(2), []
    for t in range(length):
        state, y = ssm.step(state, u[:, :, t])
        steps.append(y)
    assert torch.allclose(torch.stack(steps, -1), ssm(u), rtol=1e-9, atol=1e-11)


def test_zero_order_hold_is_the_matrix_exponential() -> None:
    """Independent path: expm of the augmented real system [[A, B], [0, 0]]."""
    ssm = make(1, 2, init=lambda n: np.array([-0.3 + 2j]), dt_min=0.2, dt_max=0.2).double()
    pole = ssm.A.item()
    a = np.array([[pole.real, -pole.imag], [pole.imag, pole.real]])
    augmented = np.zeros((3, 3))
    augmented[:2, :2], augmented[:2, 2] = a, [1.0, 0.0]
    stepped = scipy.linalg.expm(augmented * ssm.dt.item())
    log_a, b = ssm.discretise()
    assert np.allclose(stepped[:2, 2], [b.item().real, b.item().imag])
    assert np.allclose(np.linalg.eigvals(stepped[:2, :2]).max(), log_a.exp().item())


def test_legs_poles_are_the_normal_part_of_hippo() -> None:
    n = 8
    index = np.arange(2 * n)
    root = np.sqrt(2 * index + 1)
    hippo = -np.tril(np.outer(root, root), -1) - np.diag(index + 1.0)
    p = np.sqrt(index + 0.5)
    values = np.linalg.eigvals(hippo + np.outer(p, p))
    assert np.allclose(values.real, -0.5, atol=1e-9)
    upper = np.sort(values.imag[values.imag > 0])
    assert np.allclose(np.sort(poles_legs(n).imag), upper, rtol=1e-9)
    assert (poles_legs(n).real == -0.5).all()
    # S4D-Inv was designed to follow LegS: the largest frequency agrees to a few per cent
    assert abs(poles_inv(n).imag.max() / upper.max() - 1) < 0.1


def test_dfout_poles_tile_the_circle() -> None:
    ssm = make(4, 16, init="dfout").double()
    angles = np.sort(ssm.log_poles.imag.detach().numpy().ravel())
    assert np.allclose(np.diff(angles), 2 * np.pi / (16 * 4))
    assert angles[0] == 0 and angles[-1] < np.pi


@pytest.mark.parametrize("init", NAMES)
def test_every_initialisation_is_stable_and_trains(init: str) -> None:
    ssm = make(init=init)
    assert (ssm.log_poles.real < 0).all() and (ssm.A.real < 0).all()
    ssm(torch.randn(2, 3, 50)).square().sum().backward()
    for name, parameter in ssm.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_gradients_of_kernel_and_response() -> None:
    ssm = make(2, 4).double()
    parameters = tuple(ssm.parameters())
    omega = torch.linspace(0, torch.pi, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *_: ssm.kernel(11), parameters)
    assert torch.autograd.gradcheck(lambda *_: torch.view_as_real(ssm.frequency_response(omega, length=9)), parameters)


def test_no_vandermonde_in_memory() -> None:
    """Forward and backward never hold anything near H N L numbers."""
    h, n, length = 16, 32, 16384
    ssm = make(h, 2 * n)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        ssm.kernel(length).sum().backward()
    assert largest <= 4 * h * n * math.isqrt(length) + h * length
    assert largest < h * n * length / 10


def test_causal_convolution_is_numpys() -> None:
    u, k = np.random.default_rng(0).normal(size=(2, 31))
    ours = causal_convolution(torch.tensor(u), torch.tensor(k)).numpy()
    assert np.allclose(ours, np.convolve(u, k)[:31])


def test_shapes_in_types_are_checked_at_run_time() -> None:
    """Guards the guard: a wrong shape that torch would broadcast is refused under pytest."""
    with pytest.raises(jaxtyping.TypeCheckError):
        make().step(make().initial_state(2), torch.zeros(2, 3, 1))
    with pytest.raises(jaxtyping.TypeCheckError):
        make()(torch.zeros(3, 10))


def test_generator_decides_everything() -> None:
    torch.manual_seed(1)
    first = make().state_dict()
    torch.manual_seed(2)
    second = make().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["C_real_imag"], make(seed=1).state_dict()["C_real_imag"])


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"d_model": 0}, ValueError, "d_model"),
        ({"d_model": 2.0}, TypeError, "d_model"),
        ({"d_state": 7}, ValueError, "d_state"),
        ({"d_state": 0}, ValueError, "d_state"),
        ({"init": "linn"}, ValueError, "init"),
        ({"init": lambda n: np.ones(n)}, ValueError, "init"),
        ({"init": lambda n: -np.ones(n + 1)}, ValueError, "init"),
        ({"init": lambda n: np.full(n, np.nan)}, ValueError, "init"),
        ({"dt_min": 0.2, "dt_max": 0.1}, ValueError, "dt_min"),
        ({"dt_min": 0.0}, ValueError, "dt_min"),
        ({"dt_max": math.inf}, ValueError, "dt_max"),
        ({"dt_max": "big"}, TypeError, "dt_max"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        DiagonalSSM(**({"d_model": 2, "d_state": 4} | options))


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda s: s.kernel(0), ValueError, "length"),
        (lambda s: s.kernel(2.5), TypeError, "length"),
        (lambda s: s.frequency_response(torch.zeros(2, 2)), TypeError, "omega"),
        (lambda s: s.frequency_response(torch.zeros(2, dtype=torch.complex64)), TypeError, "omega"),
        (lambda s: s.frequency_response(torch.zeros(2), length=0), ValueError, "length"),
    ],
)
def test_bad_calls_are_named(call, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        call(make())

"""The diagonal SSM against independent paths: direct sums, FFTs, scipy's LTI tools, a matrix exponential."""

import math

import jaxtyping
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.ssm import INITIALIZATIONS, DiagonalSSM, causal_convolution, poles_inv, poles_legs, poles_random

NAMES = tuple(INITIALIZATIONS)
# Every rule with poles it can take: forward Euler needs slow ones.
RULES = {
    "zoh": {},
    "bilinear": {},
    "euler": {"init": lambda n: -0.3 + 0.5j * np.arange(n) / n, "dt_min": 0.1, "dt_max": 1.0},
}
CASES = [("zoh", {"init": init}) for init in NAMES] + list(RULES.items())[1:]
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
    z = dt[:, None] * a
    pole, b = {
        "zoh": (np.exp(z), b * (np.exp(z) - 1) / a),
        "bilinear": ((1 + z / 2) / (1 - z / 2), b * dt[:, None] / (1 - z / 2)),
        "euler": (1 + z, b * dt[:, None]),
    }[ssm.discretization]
    weight = c * b
    powers = pole[:, :, None] ** np.arange(length)
    return 2 * np.einsum("hn,hnl->hl", weight, powers).real


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# One table of tolerances: float64 is checked to rounding, float32 to what its poles can carry.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.parametrize(("rule", "options"), CASES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 2, 3, 1000, 16384])
def test_kernel_equals_the_direct_sum(rule: str, options: dict, dtype: torch.dtype, length: int) -> None:
    ssm = make(8, 64, discretization=rule, **options).to(dtype)
    kernel = ssm.kernel(length)
    assert kernel.dtype == dtype and kernel.shape == (8, length)
    assert relative(kernel.detach().double().numpy(), direct_kernel(ssm, length)) < TOLERANCE[dtype]


@given(length=lengths, seed=seeds, case=st.sampled_from(CASES))
@settings(max_examples=40, deadline=None)
def test_truncated_response_is_the_fft_of_the_kernel(length: int, seed: int, case: tuple[str, dict]) -> None:
    ssm = make(seed=seed, discretization=case[0], **case[1]).double()
    omega = 2 * torch.pi * torch.arange(length, dtype=torch.float64) / length
    response = ssm.frequency_response(omega, length=length).detach().numpy()
    expected = np.fft.fft(ssm.kernel(length).detach().numpy())
    assert np.abs(response - expected).max() <= 1e-9 * np.abs(expected).max()


def test_infinite_response_is_scipys() -> None:
    ssm = make(2, 6, dt_min=0.05).double()
    omega = torch.linspace(0, torch.pi, 50, dtype=torch.float64)
    ours = ssm.frequency_response(omega).detach().numpy()
    log_a, b = ssm.discretize()
    pole, weight = log_a.exp().detach().numpy(), (ssm.C * b).detach().numpy()
    for channel in range(2):
        residues = np.concatenate([weight[channel], weight[channel].conj()])
        poles = np.concatenate([pole[channel], pole[channel].conj()])
        numerator, denominator = scipy.signal.invresz(residues, poles, [])
        _, theirs = scipy.signal.freqz(numerator, denominator, worN=omega.numpy())
        assert np.allclose(ours[channel], theirs, rtol=1e-7)


@given(length=st.integers(1, 60), seed=seeds, case=st.sampled_from(CASES))
@settings(max_examples=25, deadline=None)
def test_recurrence_agrees_with_convolution(length: int, seed: int, case: tuple[str, dict]) -> None:
    ssm = make(seed=seed, discretization=case[0], **case[1]).double()
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
    log_a, b = ssm.discretize()
    assert np.allclose(stepped[:2, 2], [b.item().real, b.item().imag])
    assert np.allclose(np.linalg.eigvals(stepped[:2, :2]).max(), log_a.exp().item())


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_scipys(rule: str) -> None:
    """Independent path: cont2discrete on a channel's dense real state matrix, and its powers."""
    ssm = make(1, 6, discretization=rule, **RULES[rule]).double()
    a, c = ssm.A.detach().numpy()[0], ssm.C.detach().numpy()[0]
    state = scipy.linalg.block_diag(*([[p.real, -p.imag], [p.imag, p.real]] for p in a))
    enter = np.tile([[1.0], [0.0]], (3, 1))
    leave = 2 * np.stack([c.real, -c.imag], axis=1).reshape(1, -1)
    step, push, *_ = scipy.signal.cont2discrete((state, enter, leave, np.zeros((1, 1))), ssm.dt.item(), method=rule)
    # y_t = C x_t reads the new state, and C stays as it is (scipy's bilinear rule would change it)
    kernel = [(leave @ np.linalg.matrix_power(step, lag) @ push).item() for lag in range(40)]
    assert np.allclose(ssm.kernel(40).detach().numpy()[0], kernel, rtol=1e-9, atol=1e-12)
    poles = ssm.log_poles.exp().detach().numpy()[0]
    assert np.allclose(np.poly(step), np.poly(np.concatenate([poles, poles.conj()])))


@given(dt=st.floats(1e-4, 10), decay=st.floats(1e-3, 10), frequency=st.floats(0, 100))
@settings(max_examples=100, deadline=None)
def test_an_unstable_step_is_refused(dt: float, decay: float, frequency: float) -> None:
    """Euler layers are built exactly where |1 + dt A| < 1; the other two rules are stable at every step."""
    options = {"init": lambda n: np.array([-decay + 1j * frequency]), "dt_min": dt, "dt_max": dt}
    for rule in ("zoh", "bilinear"):
        assert (make(1, 2, discretization=rule, **options).log_poles.real < 0).all()
    radius = np.hypot(1 - dt * decay, dt * frequency)
    if abs(radius - 1) < 1e-6 * (1 + dt * frequency) ** 2:  # too close to call in float32
        return
    if radius < 1:
        built = make(1, 2, discretization="euler", **options)
        assert abs(built.log_poles.exp().abs().item() - radius) < 1e-6 * (1 + dt * frequency) ** 2
    else:
        with pytest.raises(ValueError, match="^discretization must keep all poles in 0 <"):
            make(1, 2, discretization="euler", **options)


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"'euler' puts 6 of 8 .* dt_max below .*, here \S+, or") as refusal:
        make(1, 16, discretization="euler", dt_min=0.09, dt_max=0.09)
    limit = float(str(refusal.value).split("here ")[1].split(",")[0])
    make(1, 16, discretization="euler", dt_min=0.99 * limit, dt_max=0.99 * limit)
    with pytest.raises(ValueError, match="^discretization"):
        make(1, 16, discretization="euler", dt_min=1.01 * limit, dt_max=1.01 * limit)
    with pytest.raises(ValueError, match=r"^discretization .*\|a\| = 0:"):  # a = 0 has no logarithm
        make(1, 2, discretization="euler", init=lambda n: -np.ones(n), dt_min=1, dt_max=1)


@pytest.mark.parametrize("rule", RULES)
def test_poles_placed_in_discrete_time_do_not_depend_on_the_rule(rule: str) -> None:
    log_poles = make(4, 16, init="dfout").double().log_poles
    placed = make(4, 16, init="dfout", discretization=rule).double()
    assert torch.allclose(placed.log_poles, log_poles, rtol=0, atol=1e-6)

    ssm = make(4, 16, discretization=rule, **RULES[rule]).double()
    residues = torch.complex(*torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    ssm.set_log_poles_(log_poles, residues)
    expected = 2 * (residues[..., None] * torch.exp(log_poles[..., None] * torch.arange(50))).sum(1).real
    assert torch.allclose(ssm.kernel(50), expected, rtol=1e-8, atol=1e-10)


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


def test_random_poles_spread_over_the_range_of_lin() -> None:
    draw = lambda seed: poles_random(40, 16, generator=np.random.default_rng(seed))  # noqa: E731
    assert (draw(0) == draw(0)).all() and (draw(0) != draw(1)).any()
    poles = draw(0)
    assert poles.shape == (40, 16) and (poles.real == -0.5).all()
    assert scipy.stats.kstest(poles.imag.ravel() / (16 * np.pi), "uniform").pvalue > 0.01
    assert np.unique(poles.imag).size == poles.size  # no two channels alike


@pytest.mark.parametrize("init", NAMES)
def test_every_initialization_is_stable_and_trains(init: str) -> None:
    ssm = make(init=init)
    assert (ssm.log_poles.real < 0).all() and (ssm.A.real < 0).all()
    ssm(torch.randn(2, 3, 50)).square().sum().backward()
    for name, parameter in ssm.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_kernel_and_response(rule: str) -> None:
    ssm = make(2, 4, discretization=rule, **RULES[rule]).double()
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
        ({"discretization": "tustin"}, ValueError, "discretization"),
        ({"discretization": None}, ValueError, "discretization"),
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

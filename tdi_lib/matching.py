r"""Start an SSM with a task's spectrum: place poles so that the layer's output power follows the task.

What is matched is the *layer*: the mean over channels of :math:`\eta_h(\omega) = |H_h(\omega)|^2 S_u(\omega)`, the
power spectrum of the channels' outputs on the task's input. Matching every channel to the whole spectrum would make
all channels alike; matching :math:`|H|^2` without :math:`S_u` lets leakage from the input's loud band decide.
"""

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are first used
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tdi_lib import _checks
from tdi_lib.adapters import MimoSSM, SisoSSM, SSMAdapter, find_ssms
from tdi_lib.gain import Comparison, compare_starts
from tdi_lib.model import SequenceModel
from tdi_lib.spectrum import ENOUGH, TaskSpectrum, check_inputs, estimate_task_spectrum
from tdi_lib.ssm import DiagonalSSM

__all__ = [
    "MatchReport",
    "flat_init_",
    "layer_importance",
    "match_power_spectrum_",
    "matched_poles",
    "spectral_loss",
    "tdi_init_",
]

PLACED: tuple[str, ...] = ("log_A_real", "A_imag", "C_real_imag")
N_CENTRES = 128
CLUSTER = 2  # poles of one filter where all modes are shared: more make it sharper and leave fewer filters
BLOCK = 16  # channels worked on at once, so that what a step leaves for the next one is still in the cache
LOADING = 1e-3  # diagonal loading of the input covariance: less gives sharper filters of larger, more fragile weights


@dataclasses.dataclass(frozen=True)
class MatchReport:
    """What a match did.

    Attributes:
        loss_before: :func:`spectral_loss` of the (first) layer as it was, between 0 and 2.
        loss_after: the same after the match.
        seconds: wall time, the estimate of the spectrum included when :func:`tdi_init_` made it.
        solver: ``nnls`` or ``adam``.
        changed: names of the parameters that were set.
        spectrum: the task spectrum that was matched.
        guard: what the samples said about the match, where :func:`tdi_init_` was told to ask them.
        layer: dotted name of the (first) layer in the model, empty for the model itself.
    """

    loss_before: float
    loss_after: float
    seconds: float
    solver: str
    changed: tuple[str, ...]
    spectrum: TaskSpectrum
    guard: Comparison | None = None
    layer: str = ""


def layer_importance(ssm: SSMAdapter, spectrum: TaskSpectrum) -> np.ndarray:
    r"""Mean over channels of :math:`|H_h|^2 S_u` at ``spectrum.omega`` (F,), scaled to unit mean.

    Where modes are shared (:class:`~tdi_lib.adapters.MimoSSM`) it is the mean over all pairs of an input and an output:
    the output power on inputs that are independent, each with the task's spectrum. A feed-through is not counted.
    """
    eta = _mean_response(_ssm(ssm), spectrum.omega) * spectrum.input_power
    return eta / eta.mean()


def spectral_loss(ssm: SSMAdapter, spectrum: TaskSpectrum) -> float:
    r"""The paper's matching loss (arXiv 2509.20789) on importances, 0 to 2.

    .. math:: L = \bigl\| \eta/\|\eta\| - \eta^*/\|\eta^*\| \bigr\|^2

    >>> spectrum = TaskSpectrum(np.linspace(0, np.pi, 9), np.ones(9), np.ones(9), "flat", 4)
    >>> 0 <= spectral_loss(DiagonalSSM(4, 8), spectrum) <= 2
    True
    """
    eta, target = layer_importance(ssm, spectrum), spectrum.importance
    return float(2 - 2 * (eta @ target) / (np.linalg.norm(eta) * np.linalg.norm(target)))


def match_power_spectrum_(
    ssm: SSMAdapter,
    spectrum: TaskSpectrum,
    *,
    solver: str = "nnls",
    decay: float = 0.05,
    spread: float = 0.05,
    crowding: float = 1.0,
    share: float = 1.0,
    steps: int = 300,
    generator: torch.Generator | None = None,
) -> MatchReport:
    r"""Set ``ssm``'s poles and output weights in place so that the layer's importance follows ``spectrum``'s.

    ``nnls``, closed form: a channel is a narrow filter around a centre :math:`\omega_c`: its poles are drawn within
    ``spread`` rad of it with one ``decay``, its weights make the output follow the input *there* and as little as
    possible elsewhere (Capon's minimum-variance filter: without it a band five decades louder leaks through every
    tail), its gain gives unit output power on the task's input. The layer's importance is then a non-negative mixture
    :math:`\sum_c w_c \psi_c(\omega)` of known bumps; ``w`` solves one non-negative least-squares problem, and the H
    channels take their centres at the quantiles of ``w``: frequencies are *placed*, not searched for.

    ``adam``: gradient descent on :func:`spectral_loss` from the present parameters (the paper's way); the layer's
    mean output power is then set to one.

    Where modes are shared by inputs and outputs (S5, LRU), they are put together in filters of two poles; each filter
    reads one direction of the inputs and writes one of the outputs. The directions are random, and no two filters
    share both while there are enough of them: then the powers of the filters add up exactly, whatever their phases. A
    layer of few inputs and outputs has more filters than pairs of directions, and they interfere where they overlap.

    Args:
        ssm: the layer, changed in place: a :class:`~tdi_lib.ssm.DiagonalSSM`, or what
            :func:`~tdi_lib.adapters.adapt` makes of another's layer.
        spectrum: the task's, from :func:`~tdi_lib.spectrum.estimate_task_spectrum`.
        solver: ``nnls``, or ``adam`` for a DiagonalSSM.
        decay: decay rate of the placed poles per sample; their memory is ``1 / decay`` samples.
        spread: half-width of a channel's cluster of poles, rad/sample.
        crowding: where the task is loud, channels may be many (1: all equally loud, their density follows ``w``) or
            loud (0: at even distances, their powers follow ``w``); in between, density :math:`w^a` and power
            :math:`w^{1-a}`. At 1/2 the loss is smallest; at 1 no channel is a quiet one.
        share: part of the channels that ``nnls`` matches, spread evenly over the layer; the others stay as they are.
            A half is a hedge: both starts are there, and training takes what it needs.
            Always 1 where modes are shared.
        steps: gradient steps of ``adam``.
        generator: source of randomness for the draw; the global one if omitted.

    Raises:
        TypeError, ValueError: naming the argument.

    ``nnls`` works at the frequencies of an even DFT, 0 to pi, where the estimators give theirs, in time
    O(H N L + H L log L); a spectrum given elsewhere is interpolated to as many.

    >>> ssm = DiagonalSSM(16, 16)
    >>> omega = np.linspace(0, np.pi, 129)
    >>> bump = np.exp(-(((omega - 1.2) / 0.15) ** 2))
    >>> report = match_power_spectrum_(ssm, TaskSpectrum(omega, bump, np.ones(129), "cross", 64))
    >>> report.loss_after < 0.1 < report.loss_before
    True
    """
    ssm = _ssm(ssm)
    solver = _checks.choice("solver", solver, ("nnls", "adam"))
    share = _checks.real_number("share", share, low=0.0, high=1.0)
    if isinstance(ssm, MimoSSM) and share < 1:
        raise ValueError(f"share must be 1 for a layer whose modes are shared by inputs and outputs, got {share}")
    if isinstance(ssm, SisoSSM) and share * len(ssm.log_poles) < 1:
        raise ValueError(f"share must leave one of {len(ssm.log_poles)} channels to match, got {share}")
    if share < 1 and solver == "adam":
        raise ValueError(f"share must be 1 with solver 'adam', got {share}")
    steps = _checks.positive_int("steps", steps)
    _check_placement(spectrum, decay, spread, crowding)
    start = time.perf_counter()
    before = spectral_loss(ssm, spectrum)
    if solver == "nnls":
        changed = _place_(ssm, spectrum, decay, spread, crowding, share, generator)
    elif isinstance(ssm, DiagonalSSM):
        _descend_(ssm, spectrum, steps)
        changed = ("log_dt", *PLACED)
    else:
        raise ValueError("solver must be 'nnls' for a layer other than DiagonalSSM, got 'adam'")
    after = spectral_loss(ssm, spectrum)
    return MatchReport(before, after, time.perf_counter() - start, solver, changed, spectrum)


def matched_poles(
    spectrum: TaskSpectrum,
    d_model: int,
    n_pairs: int,
    *,
    decay: float = 0.05,
    spread: float = 0.05,
    crowding: float = 1.0,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Poles and residues of a layer that is matched to ``spectrum``, as arrays: for JAX, or a layer of one's own.

    It is what :func:`match_power_spectrum_` places by ``nnls``. Channel h has the impulse response

    .. math:: k_{h,l} = 2\,\mathrm{Re} \sum_n c_{hn} a_{hn}^l, \qquad l = 0, 1, \dots

    In a layer with continuous-time poles A, steps :math:`\Delta` and zero-order hold, :math:`A = \log a / \Delta` and
    :math:`C B = c A / (a - 1)`. A layer that stores both members of each conjugate pair, or takes
    :math:`\mathrm{Re}\sum` without the factor two, needs :math:`(c, \bar c)` or :math:`2c`.

    Args:
        spectrum: the task's, from :func:`~tdi_lib.spectrum.estimate_task_spectrum`.
        d_model: channels H, each of unit mean output power on the task's input if ``crowding`` is 1.
        n_pairs: poles N of each channel, one of each conjugate pair.
        decay, spread, crowding: as for :func:`match_power_spectrum_`.
        seed: of the draw, or a generator.

    Returns:
        :math:`\log a` and c, each (H, N), complex128: minus the decay per sample, and the frequency in rad/sample.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> omega = np.linspace(0, np.pi, 65)
    >>> bump = np.exp(-(((omega - 1.2) / 0.15) ** 2))
    >>> log_poles, residues = matched_poles(TaskSpectrum(omega, bump, np.ones(65), "cross", 64), 16, 8)
    >>> log_poles.shape, bool(abs(log_poles.imag.mean() - 1.2) < 0.1)
    ((16, 8), True)
    """
    d_model, n_pairs = _checks.positive_int("d_model", d_model), _checks.positive_int("n_pairs", n_pairs)
    _check_placement(spectrum, decay, spread, crowding)
    if not isinstance(seed, np.random.Generator):
        seed = np.random.default_rng(_checks.positive_int("seed", seed, minimum=0))
    return _placed(spectrum, seed.random((d_model, n_pairs + 1)), decay, spread, crowding)[:2]


def tdi_init_(
    model: torch.nn.Module | SSMAdapter,
    x: ArrayLike,
    y: ArrayLike | None,
    *,
    layers: str = "first",
    method: str = "auto",
    solver: str = "nnls",
    share: float = 1.0,
    guard: bool = False,
    generator: torch.Generator | None = None,
    **estimate: Any,
) -> MatchReport:
    """Task-dependent initialisation: estimate the spectrum of (x, y) and match the model's SSM to it, in place.

    Args:
        model: a :class:`~tdi_lib.model.SequenceModel`, a :class:`~tdi_lib.ssm.DiagonalSSM` itself, or any module that
            is or holds a state space model that :func:`~tdi_lib.adapters.find_ssms` knows: the original S4D,
            s5-pytorch's S5, an LRU, or one with the protocol's methods.
        x, y: *training* samples, as for :func:`~tdi_lib.spectrum.estimate_task_spectrum`; the methods ``flat`` and
            ``input`` read no target and take None.
        layers: ``first`` in the order of the model's modules; ``all`` to give every layer the input's task spectrum;
            ``composite`` to give each of n layers its n-th root, so that a chain of them has the task's; the number of
            one layer, ``"1"`` being the first; or, in a SequenceModel, ``each``: layer after layer, every later one the
            task spectrum of the activations that enter it, estimated from at most 400 samples.
        method, estimate: the estimator and its further arguments.
        solver, share: as for :func:`match_power_spectrum_`.
        guard: first ask the samples (:func:`~tdi_lib.gain.compare_starts`): a spectrum is estimated on each half of
            them and matched, and unless the matched layer misses by clearly less on the other half the model stays as
            it is. It costs two more estimates and matches, and some of the gain where samples are few.
        generator: source of randomness; the global one if omitted. A guarded start is, bit for bit, either the
            unguarded one or none.

    Returns:
        The report on the first layer that was matched (``layer`` is its name), its ``seconds`` for everything and
        ``changed`` naming every parameter set: none if the guard said no.

    >>> model = SequenceModel(1, 1, d_model=8, d_state=8, n_layers=2)
    >>> x = np.random.default_rng(0).normal(size=(64, 32))
    >>> tdi_init_(model, x, x @ np.cos(np.arange(32))).changed
    ('layers.0.ssm.log_A_real', 'layers.0.ssm.A_imag', 'layers.0.ssm.C_real_imag')
    """
    targets = find_ssms(model)
    numbers = [str(number + 1) for number in range(len(targets))]
    _checks.choice("layers", layers, ("first", "all", "composite", "each", *numbers))
    if layers not in ("all", "composite", "each"):
        chosen = list(targets)[0 if layers == "first" else numbers.index(layers)]
        targets = {chosen: targets[chosen]}
    elif layers == "each" and len(targets) > 1:
        if not isinstance(model, SequenceModel):
            raise ValueError(f"layers must not be 'each' in a {type(model).__name__}, only in a SequenceModel")
        if estimate.get("lengths") is not None:
            raise ValueError("layers must not be 'each' where sequences differ in length")
    first = next(iter(targets))
    start = time.perf_counter()
    spectrum = estimate_task_spectrum(x, y, method=method, **estimate)
    comparison = None
    if guard:
        if y is None:
            raise ValueError("y must be given for a guard, got None")
        if estimate.get("lengths") is not None:
            raise ValueError("guard must be False where sequences differ in length: it reads whole ones, got True")
        options = {"solver": solver, "share": share}
        comparison = _ask(targets[first], x, y, spectrum.method, options, generator, estimate)
        if not comparison.better:
            loss = spectral_loss(targets[first], spectrum)
            return MatchReport(loss, loss, time.perf_counter() - start, solver, (), spectrum, comparison, first)
    if layers == "composite":
        root = spectrum.power ** (1 / len(targets))
        spectrum = dataclasses.replace(spectrum, power=root / root.mean())
    reports = []
    for index, ssm in enumerate(targets.values()):
        if isinstance(model, SequenceModel) and layers == "each" and index > 0:
            inputs, target = _entering(model, index, x, y)
            wanted = estimate_task_spectrum(inputs, target, method=method, **estimate)
        else:
            wanted = spectrum
        reports.append(match_power_spectrum_(ssm, wanted, solver=solver, share=share, generator=generator))
    names = [f"{path}.{name}" for path, report in zip(targets, reports, strict=True) for name in report.changed]
    changed = tuple(name.lstrip(".") for name in names)
    seconds = time.perf_counter() - start
    return dataclasses.replace(reports[0], seconds=seconds, changed=changed, guard=comparison, layer=first)


@torch.no_grad()
def _entering(
    model: SequenceModel, index: int, x: ArrayLike, y: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What enters a layer (P, L, H), for samples of evenly spaced targets, and those targets."""
    inputs, target = check_inputs(x), None if y is None else np.asarray(y)
    order = (
        np.arange(len(inputs)) if target is None else np.argsort(target.reshape(len(target), -1)[:, 0], kind="stable")
    )
    keep = order[np.linspace(0, len(order) - 1, min(ENOUGH, len(order))).astype(int)]
    parameter, was_training, seen = next(model.parameters()), model.training, []
    hook = model.layers[index].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].cpu()))
    try:
        model.eval()
        for part in torch.as_tensor(inputs[keep]).split(64):
            model(part.to(parameter))
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(seen).double().numpy(), None if target is None else target[keep]


def _ask(
    ssm: SSMAdapter,
    x: ArrayLike,
    y: ArrayLike,
    method: str,
    options: dict[str, Any],
    generator: torch.Generator | None,
    estimate: dict[str, Any],
) -> Comparison:
    """Whether half of the samples find a match that the other half likes better than the layer as it is."""
    if isinstance(ssm, MimoSSM):
        raise ValueError("guard must be False for a layer whose modes are shared by inputs and outputs, got True")
    state = torch.get_rng_state() if generator is None else generator.get_state()

    def matched(x_half: np.ndarray, y_half: np.ndarray) -> np.ndarray:
        trial: SisoSSM = copy.deepcopy(ssm)
        draw = torch.Generator()  # the guard leaves no trace in the caller's generator
        draw.set_state(state)
        half = estimate_task_spectrum(x_half, y_half, method=method, **estimate)
        match_power_spectrum_(trial, half, **options, generator=draw)
        return _kernel(trial, length)

    def as_it_is(x_half: np.ndarray, y_half: np.ndarray) -> np.ndarray:
        return _kernel(ssm, length)

    length = np.shape(x)[1]
    order = {"discriminative": "second", "evidence": "first"}.get(method, "auto")
    return compare_starts(as_it_is, matched, x, y, order=order)


def flat_init_(
    model: torch.nn.Module | SSMAdapter,
    x: ArrayLike,
    *,
    layers: str = "first",
    share: float = 1.0,
    generator: torch.Generator | None = None,
) -> MatchReport:
    """Start from the ``flat`` bank: narrow filters at even distances, each as loud as the others on the inputs ``x``.

    The task-agnostic baseline of :func:`tdi_init_`: it whitens the input and sees no target. What TDI brings beyond it
    is what the labels bring.

    >>> model = SequenceModel(1, 1, d_model=8, d_state=8, n_layers=2)
    >>> flat_init_(model, np.random.default_rng(0).normal(size=(64, 32))).spectrum.method
    'flat'
    """
    return tdi_init_(model, x, None, layers=layers, method="flat", share=share, generator=generator)


def _ssm(ssm: object) -> SSMAdapter:
    """The layer that was named, not one that hides in a model."""
    found = find_ssms(ssm, name="ssm")
    if "" not in found:
        raise TypeError(f"ssm must be the layer itself, got {type(ssm).__name__} that holds {', '.join(found)}")
    return found[""]


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().cpu().numpy().astype(complex) for tensor in tensors]


def _kernel(ssm: SisoSSM, length: int) -> np.ndarray:
    """Impulse responses (H, L)."""
    if isinstance(ssm, DiagonalSSM):
        return ssm.kernel(length).detach().cpu().numpy()
    return _impulse_response(*_arrays(ssm.log_poles, ssm.residues), length=length)


def _mean_response(ssm: SSMAdapter, omega: np.ndarray) -> np.ndarray:
    """Mean over channels, or over pairs of an input and an output, of the power response (F,)."""
    if isinstance(ssm, MimoSSM):
        poles, b, c = _arrays(ssm.log_poles, ssm.input_gains, ssm.output_gains)
        return _mixed_response(poles, b, c, omega)
    log_poles, residues = _arrays(ssm.log_poles, ssm.residues)
    if omega.size > 1 and np.allclose(omega, _dft_grid(omega.size), rtol=0, atol=1e-9):
        response = _dft_response(log_poles, residues, n_frequencies=omega.size)
    else:
        response = _response(log_poles, residues, omega=omega)
    return (np.abs(response) ** 2).mean(axis=0)


def _importance(ssm: DiagonalSSM, omega: Tensor, input_power: Tensor) -> Tensor:
    """Output power spectrum of every channel on the task's input (H, F)."""
    return ssm.frequency_response(omega).abs() ** 2 * input_power


def _dft_grid(n_frequencies: int) -> np.ndarray:
    """Frequencies 0 to pi of a DFT of the even length L = 2F - 2 (F,)."""
    return np.linspace(0, math.pi, n_frequencies)


def _by_blocks(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Apply to ``BLOCK`` channels at a time; arrays are (H, ...), keyword arguments go to every block."""

    @functools.wraps(function)
    def blocked(*arrays: np.ndarray, **shared: Any) -> np.ndarray:
        starts = range(0, len(arrays[0]), BLOCK)
        return np.concatenate([function(*(a[i : i + BLOCK] for a in arrays), **shared) for i in starts])

    return blocked


def _powers(log_poles: np.ndarray, count: int) -> np.ndarray:
    """Powers 0 .. K-1 of the poles (H, N, K), by doubling."""
    powers = np.ones((*log_poles.shape, count), dtype=complex)
    step, known = np.exp(log_poles)[:, :, None], 1
    while known < count:
        more = min(known, count - known)
        np.multiply(powers[:, :, :more], step, out=powers[:, :, known : known + more])
        step, known = step * step, known + more
    return powers


def _power_tables(log_poles: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers 0, M, 2M, ... (H, N, Q) and 0 .. M-1 (H, N, M) with QM >= L: their products are the powers 0 .. L-1."""
    stride = math.isqrt(length - 1) + 1
    return _powers(stride * log_poles, -(-length // stride)), _powers(log_poles, stride)


@_by_blocks
def _response(log_poles: np.ndarray, residues: np.ndarray, *, omega: np.ndarray) -> np.ndarray:
    """Frequency responses (H, F) anywhere."""
    pairs = ((log_poles, residues), (log_poles.conj(), residues.conj()))
    return sum(-(c[:, :, None] / np.expm1(p[:, :, None] - 1j * omega)).sum(axis=1) for p, c in pairs)


@_by_blocks
def _impulse_response(log_poles: np.ndarray, residues: np.ndarray, *, length: int) -> np.ndarray:
    """Impulse responses (H, L) by a product of two tables of powers."""
    coarse, fine = _power_tables(log_poles, length)
    coarse = coarse * (2 * residues)[:, :, None]
    kernel = (coarse.transpose(0, 2, 1) @ fine).real
    return kernel.reshape(len(kernel), -1)[:, :length]


def _mixed_response(log_poles: np.ndarray, b: np.ndarray, c: np.ndarray, omega: np.ndarray) -> np.ndarray:
    r"""Mean of :math:`|H_{ij}|^2` over outputs i and inputs j (F,), for poles (N,), b (N, D) and c (H, N) or (2, H, N).

    With the conjugates listed as modes of their own, :math:`H = \sum_n c_n b_n^\top g_n(\omega)`, and
    :math:`\sum_{ij}|H_{ij}|^2 = g^\dagger \bigl[(C^\dagger C) \circ (B B^\dagger)^\top\bigr] g`: the H times D
    responses are never formed. Backwards in time every term is conjugated.
    """
    n_outputs, n_inputs = c.shape[-2], b.shape[1]
    terms = []
    for index, each in enumerate(c.reshape(-1, *c.shape[-2:])):
        for p, rows, columns in ((log_poles, b, each), (log_poles.conj(), b.conj(), each.conj())):
            g = -1 / np.expm1(p[:, None] - 1j * omega)  # (N F)
            terms.append((g.conj(), rows.conj(), columns.conj()) if index else (g, rows, columns))
    g, b, c = (np.concatenate([term[i] for term in terms], axis=axis) for i, axis in ((0, 0), (1, 0), (2, 1)))
    inner = (c.conj().T @ c) * (b.conj() @ b.T)
    return np.maximum((g.conj() * (inner @ g)).sum(axis=0).real, 0) / (n_outputs * n_inputs)


@_by_blocks
def _dft_response(log_poles: np.ndarray, residues: np.ndarray, *, n_frequencies: int) -> np.ndarray:
    r"""Frequency responses (H, F) on :func:`_dft_grid`: just ``frequency_response``, but without (H, N, F) fractions.

    There :math:`z = e^{-i\omega}` has :math:`z^L = 1`, so :math:`1/(1 - az) = \sum_{l<L} a^l z^l / (1 - a^L)`: the
    response is the FFT of the kernel wrapped around L, and that is one matrix product of two tables of powers (see
    :meth:`~tdi_lib.ssm.DiagonalSSM.kernel`).
    """
    length = 2 * n_frequencies - 2
    coarse, fine = _power_tables(log_poles, length)
    coarse = coarse * (-2 * residues / np.expm1(length * log_poles))[:, :, None]
    left = np.concatenate([coarse.real, -coarse.imag], axis=1)  # Re(xy) = Re x Re y - Im x Im y
    right = np.concatenate([fine.real, fine.imag], axis=1)
    kernel = (left.transpose(0, 2, 1) @ right).reshape(len(left), -1)[:, :length]
    return np.fft.rfft(kernel, axis=1)


def _output_covariance(log_poles: np.ndarray, input_power: np.ndarray) -> np.ndarray:
    r"""Matrices R (H, 2N, 2N) with :math:`c^\top R c` the mean of :math:`|H|^2 S_u` over :func:`_dft_grid`.

    With :math:`g_n = 1/(1 - a_n z)`, :math:`z = e^{-i\omega}`, a response is
    :math:`\sum_n c_n g_n(\omega) + \bar c_n \overline{g_n(-\omega)}`, and c stands for (Re c, Im c). A product of two
    g's under the mean is an entry of a Nevanlinna-Pick matrix, so one number per pole suffices:

    .. math::
        \int \bar g_n g_m\, dS = \frac{\overline{f_n} + f_m}{1 - \bar a_n a_m}, \qquad
        f_n = \int \Bigl(g_n - \tfrac12\Bigr) dS .
    """
    n_frequencies = input_power.size
    length = 2 * n_frequencies - 2
    weights = input_power * length / (2 * n_frequencies)
    weights[[0, -1]] *= 2  # the two that have no mirror image
    lags = np.fft.irfft(weights)  # autocovariance, the mean of S_u cos(l omega)

    coarse, fine = _power_tables(log_poles, length)
    table = np.zeros(coarse.shape[2] * fine.shape[2])
    table[:length] = lags
    sums = ((coarse @ table.reshape(coarse.shape[2], -1)) * fine).sum(axis=2)  # sum over l of lag times power
    f = -sums / np.expm1(length * log_poles) - lags[0] / 2  # (H N)

    a, f_bar = np.exp(log_poles)[:, None, :], f.conj()[:, :, None]
    a_bar = a.conj().transpose(0, 2, 1)
    same = (f_bar + f[:, None, :]) / (1 - a_bar * a)  # (H N N)
    mirrored = (f_bar + f.conj()[:, None, :]) / (1 - a_bar * a.conj())
    return 2 * np.block(
        [
            [(same + mirrored).real, (mirrored - same).imag],
            [(same + mirrored).imag, (same - mirrored).real],
        ]
    )


@_by_blocks
def _focused_weights(
    log_poles: np.ndarray, centres: np.ndarray, phases: np.ndarray, *, input_power: np.ndarray
) -> np.ndarray:
    r"""Residues c (H, N) that listen at a channel's centre and to nothing louder.

    Among all weights on the given poles, take those with the least output power :math:`c^\top R c` on the task's input
    (:func:`_output_covariance`) for a unit response of a given phase at the centre. That is Capon's minimum-variance
    filter, :math:`c \propto R^{-1} \nabla_c \mathrm{Re}(e^{-i\theta} H(\omega_c))`, scaled to unit output power.
    """
    covariance = _output_covariance(log_poles, input_power)
    turn = np.exp(-1j * phases)[:, None]
    direct = -turn / np.expm1(log_poles - 1j * centres[:, None])  # (H N)
    mirrored = -turn / np.expm1(log_poles.conj() - 1j * centres[:, None])
    wanted = np.concatenate([(direct + mirrored).real, (mirrored - direct).imag], axis=1)  # (H 2N)
    size = covariance.shape[-1]
    loading = LOADING * np.trace(covariance, axis1=1, axis2=2) / size
    loaded = covariance + loading[:, None, None] * np.eye(size)
    c = np.linalg.solve(loaded, wanted[:, :, None])  # (H 2N 1)
    c = c / np.sqrt(c.transpose(0, 2, 1) @ covariance @ c)
    real, imag = np.split(c[:, :, 0], 2, axis=1)
    return real + 1j * imag


def _check_placement(spectrum: TaskSpectrum, decay: float, spread: float, crowding: float) -> None:
    _checks.module("spectrum", spectrum, TaskSpectrum)
    _checks.real_number("decay", decay, low=1e-6, high=10.0)
    _checks.real_number("spread", spread, low=0.0, high=math.pi)
    _checks.real_number("crowding", crowding, low=0.0, high=1.0)
    if spectrum.omega.size < 2:
        raise ValueError(f"spectrum must hold at least two frequencies, got {spectrum.omega.size}")


def _placed(
    spectrum: TaskSpectrum, draw: np.ndarray, decay: float, spread: float, crowding: float, share: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-poles and residues (H, N) from uniform draws (H, N + 1), and which channels are to have them (H)."""
    grid = _dft_grid(spectrum.omega.size)
    input_power = np.interp(grid, spectrum.omega, spectrum.input_power)
    importance = np.interp(grid, spectrum.omega, spectrum.importance)
    if not importance.any():
        raise ValueError(f"spectrum must have power at one of {grid.size} frequencies equally spaced from 0 to pi")
    centres = (np.arange(N_CENTRES) + 0.5) * math.pi / N_CENTRES
    n_channels, n_pairs = draw.shape[0], draw.shape[1] - 1
    # what a channel at each centre would add to the layer, its poles evenly spread
    offsets = spread * np.linspace(-1, 1, n_pairs) if n_pairs > 1 else np.zeros(1)
    evenly = -decay + 1j * (centres[:, None] + offsets)
    residues = _focused_weights(evenly, centres, np.zeros(N_CENTRES), input_power=input_power)
    atoms = np.abs(_dft_response(evenly, residues, n_frequencies=grid.size)) ** 2 * input_power
    # Below L = 2 N_CENTRES a constant importance is met exactly by many mixtures, and rounding would choose among them:
    # take the smallest.
    constant = np.ptp(importance) <= 1e-9 * importance.max()
    ridge = 1e-4 * constant * np.linalg.norm(atoms, 2) * np.eye(N_CENTRES)
    mixture, _ = scipy.optimize.nnls(np.vstack([atoms.T, ridge]), np.concatenate([importance, np.zeros(N_CENTRES)]))

    density = mixture**crowding
    cumulative = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    edges = np.linspace(0, math.pi, N_CENTRES + 1)
    matched = np.diff(np.floor(share * np.arange(n_channels + 1) + 1e-9)) > 0  # (H)
    rank = np.cumsum(matched) - 0.5
    chosen = np.interp(rank / matched.sum(), cumulative, edges)  # (H)

    poles = -decay + 1j * (chosen[:, None] + spread * (2 * draw[:, 1:] - 1))
    residues = _focused_weights(poles, chosen, 2 * math.pi * draw[:, 0], input_power=input_power)
    if crowding < 1:  # a layer of unit output power, on average
        power = np.interp(chosen, centres, mixture) ** (1 - crowding)
        if power[matched].any():  # few channels at even distances may all miss the task
            residues *= np.sqrt(power / power[matched].mean())[:, None]
    return poles, residues, matched


def _place_(
    ssm: SSMAdapter,
    spectrum: TaskSpectrum,
    decay: float,
    spread: float,
    crowding: float,
    share: float,
    generator: torch.Generator | None,
) -> tuple[str, ...]:
    """Place the poles; returns the names of what was set."""
    before = _tensors(ssm)
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64).numpy()  # noqa: E731
    if isinstance(ssm, MimoSSM):
        shape, n_inputs = tuple(ssm.output_gains.shape), ssm.input_gains.shape[1]
        n_outputs, n_modes = shape[-2:]
        directions = shape[0] if len(shape) == 3 else 1
        n_filters = max(n_modes // CLUSTER, 1)
        drawn = uniform(n_filters, n_modes // n_filters + 1)
        poles, residues, _ = _placed(spectrum, drawn, decay, spread, crowding)
        # one pair of an input and an output direction after another; neighbours run in opposite senses of time
        sense, pair = np.arange(n_filters) % directions, np.arange(n_filters) // directions
        normal = lambda n: torch.randn(n, n, generator=generator, dtype=torch.float64).numpy()  # noqa: E731
        into, out = (np.linalg.qr(normal(n))[0] for n in (n_inputs, n_outputs))
        i, j = pair % n_outputs, (pair + pair // math.lcm(n_inputs, n_outputs)) % n_inputs
        b = residues[:, :, None] * into[j][:, None, :]  # (Q n D)
        c = np.zeros((n_filters, poles.shape[1], directions, n_outputs))
        c[np.arange(n_filters), :, sense] = out[i][:, None, :]
        # poles that are left over wait without an input: those of the first filters again
        some = np.arange(n_modes) % poles.size
        b = b.reshape(-1, n_inputs)[some] * (np.arange(n_modes) < poles.size)[:, None]
        c = np.moveaxis(c.reshape(-1, directions, n_outputs)[some], 0, -1).reshape(shape)  # (S H N)
        log_poles = poles.ravel()[some]
        power = n_inputs * (_mixed_response(log_poles, b, c, spectrum.omega) * spectrum.input_power).mean()
        c = c / math.sqrt(power)  # unit power of the outputs, on average
        ssm.set_modes_(*(torch.as_tensor(each.astype(complex)) for each in (log_poles, b, c)))
    else:
        n_channels, n_pairs = ssm.log_poles.shape
        drawn = uniform(n_channels, n_pairs + 1)
        poles, residues, matched = _placed(spectrum, drawn, decay, spread, crowding, share)
        old = _arrays(ssm.log_poles, ssm.residues)
        new = (np.where(matched[:, None], *pair) for pair in zip((poles, residues), old, strict=True))
        ssm.set_log_poles_(*map(torch.as_tensor, new))
    if isinstance(ssm, DiagonalSSM):
        with torch.no_grad():  # what is kept is kept to the last bit
            for name in PLACED:
                getattr(ssm, name)[torch.as_tensor(~matched)] = before[name][torch.as_tensor(~matched)]
        return PLACED
    return tuple(name for name, value in _tensors(ssm).items() if not torch.equal(value, before[name]))


def _tensors(ssm: SSMAdapter) -> dict[str, Tensor]:
    """Copies of what the layer keeps."""
    module = ssm if isinstance(ssm, torch.nn.Module) else getattr(ssm, "module", None)
    if not isinstance(module, torch.nn.Module):
        return {}
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _descend_(ssm: DiagonalSSM, spectrum: TaskSpectrum, steps: int) -> None:
    omega, input_power = (torch.as_tensor(each).to(ssm.log_dt) for each in (spectrum.omega, spectrum.input_power))
    target = torch.as_tensor(spectrum.importance).to(omega)
    target = target / torch.linalg.norm(target)
    parameters = [ssm.log_dt, ssm.log_A_real, ssm.A_imag, ssm.C_real_imag]
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    with torch.enable_grad():
        for _ in range(steps):
            eta = _importance(ssm, omega, input_power).mean(dim=0)
            gradients = torch.autograd.grad(((eta / eta.norm() - target) ** 2).sum(), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
    for parameter in parameters:
        parameter.grad = None
    with torch.no_grad():  # unit output power on average over the layer
        ssm.C_real_imag.div_(_importance(ssm, omega, input_power).mean().sqrt())

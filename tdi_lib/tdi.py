r"""Start an SSM with a task's spectrum: place poles so that the layer's output power follows the task.

What is matched is the *layer*: the mean over channels of :math:`\eta_h(\omega) = |H_h(\omega)|^2 S_u(\omega)`, the
power spectrum of the channels' outputs on the task's input. Matching every channel to the whole spectrum would make
all channels alike; matching :math:`|H|^2` without :math:`S_u` lets leakage from the input's loud band decide.

What will a matched start bring? There are two answers before anything is trained. :func:`forecast_gain` asks the
theory, in the world that the estimated spectrum describes. :func:`compare_starts` asks the samples: a linear read-out
of the *untrained* layer is fitted on one half and tested on the other. Both look at a single layer;
:func:`compare_features` does the same with whatever an untrained model makes of its input.
"""

from __future__ import annotations

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

from tdi_lib.filters import (
    MimoSSM,
    SisoSSM,
    SSMAdapter,
    arrays,
    by_blocks,
    dft_grid,
    dft_response,
    find_ssms,
    impulse_response,
    mean_power,
    mixed_power,
    power_tables,
)
from tdi_lib.readout import ReadoutReport, ridge_readout_
from tdi_lib.samples import (
    CheckedSamples,
    check_inputs,
    instance_of,
    one_of,
    positive_int,
    real_array,
    real_number,
)
from tdi_lib.spectrum import ENOUGH, TaskSpectrum, better_order, estimate_task_spectrum
from tdi_lib.ssm import DiagonalSSM, SequenceModel
from tdi_lib.theory import RIDGES, evidence_curve, feature_root, layer_matrix, ridge_path

__all__ = [
    "Comparison",
    "MatchReport",
    "compare_features",
    "compare_starts",
    "flat_init_",
    "forecast_gain",
    "label_noise",
    "layer_importance",
    "match_power_spectrum_",
    "matched_poles",
    "spectral_loss",
    "tdi_init_",
]

# ---- matching ------------------------------------------------------------------------------------


PLACED: tuple[str, ...] = ("log_A_real", "A_imag", "C_real_imag")
_N_CENTRES = 128
_CLUSTER = 2  # poles of one filter where all modes are shared: more make it sharper and leave fewer filters
_LOADING = 1e-3  # diagonal loading of the input covariance: less gives sharper filters of larger, more fragile weights


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
        readout: what :func:`~tdi_lib.readout.ridge_readout_` found, where :func:`tdi_init_` was told to end with it.
            Its error of what is left out is optimistic: the matched filters have seen all labels.
    """

    loss_before: float
    loss_after: float
    seconds: float
    solver: str
    changed: tuple[str, ...]
    spectrum: TaskSpectrum
    guard: Comparison | None = None
    layer: str = ""
    readout: ReadoutReport | None = None


def layer_importance(ssm: SSMAdapter, spectrum: TaskSpectrum) -> np.ndarray:
    r"""Mean over channels of :math:`|H_h|^2 S_u` at ``spectrum.omega`` (F,), scaled to unit mean.

    Where modes are shared (:class:`~tdi_lib.filters.MimoSSM`) it is the mean over all pairs of an input and an output:
    the output power on inputs that are independent, each with the task's spectrum. A feed-through is not counted.
    """
    eta = mean_power(_ssm(ssm), spectrum.omega) * spectrum.input_power
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
            :func:`~tdi_lib.filters.adapt` makes of another's layer.
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
    solver = one_of("solver", solver, ("nnls", "adam"))
    share = real_number("share", share, low=0.0, high=1.0)
    if isinstance(ssm, MimoSSM) and share < 1:
        raise ValueError(f"share must be 1 for a layer whose modes are shared by inputs and outputs, got {share}")
    if isinstance(ssm, SisoSSM) and share * len(ssm.log_poles) < 1:
        raise ValueError(f"share must leave one of {len(ssm.log_poles)} channels to match, got {share}")
    if share < 1 and solver == "adam":
        raise ValueError(f"share must be 1 with solver 'adam', got {share}")
    steps = positive_int("steps", steps)
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
    d_model, n_pairs = positive_int("d_model", d_model), positive_int("n_pairs", n_pairs)
    _check_placement(spectrum, decay, spread, crowding)
    if not isinstance(seed, np.random.Generator):
        seed = np.random.default_rng(positive_int("seed", seed, minimum=0))
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
    readout: str | None = None,
    groups: ArrayLike | None = None,
    generator: torch.Generator | None = None,
    **estimate: Any,
) -> MatchReport:
    """Task-dependent initialisation: estimate the spectrum of (x, y) and match the model's SSM to it, in place.

    Args:
        model: a :class:`~tdi_lib.ssm.SequenceModel`, a :class:`~tdi_lib.ssm.DiagonalSSM` itself, or any module that
            is or holds a state space model that :func:`~tdi_lib.filters.find_ssms` knows: the original S4D,
            s5-pytorch's S5, an LRU, or one with the protocol's methods.
        x, y: *training* samples, as for :func:`~tdi_lib.spectrum.estimate_task_spectrum`; the methods ``flat`` and
            ``input`` read no target and take None.
        layers: ``first`` in the order of the model's modules; ``all`` to give every layer the input's task spectrum;
            ``composite`` to give each of n layers its n-th root, so that a chain of them has the task's; the number of
            one layer, ``"1"`` being the first; or, in a SequenceModel, ``each``: layer after layer, every later one the
            task spectrum of the activations that enter it, estimated from at most 400 samples.
        method, estimate: the estimator and its further arguments.
        solver, share: as for :func:`match_power_spectrum_`.
        guard: first ask the samples (:func:`compare_starts`): a spectrum is estimated on each half of
            them and matched, and unless the matched layer misses by clearly less on the other half the model stays as
            it is. It costs two more estimates and matches, and some of the gain where samples are few.
        readout: ``ridge`` ends with :func:`~tdi_lib.readout.ridge_readout_` on the model, whatever the guard said. The
            model must have a ``decoder``; ``lengths`` are for the estimate and for it. If it fails all is as it was.
        groups: of every sample (P,), such as its speaker: the read-out leaves a group out as a whole.
        generator: source of randomness; the global one if omitted. A guarded start is, bit for bit, either the
            unguarded one or none.

    Returns:
        The report on the first layer that was matched (``layer`` is its name), its ``seconds`` for everything and
        ``changed`` naming every parameter set: none of a filter's if the guard said no.

    >>> model = SequenceModel(1, 1, d_model=8, d_state=8, n_layers=2)
    >>> x = np.random.default_rng(0).normal(size=(64, 32))
    >>> tdi_init_(model, x, x @ np.cos(np.arange(32))).changed
    ('layers.0.ssm.log_A_real', 'layers.0.ssm.A_imag', 'layers.0.ssm.C_real_imag')
    """
    targets = find_ssms(model)
    numbers = [str(number + 1) for number in range(len(targets))]
    one_of("layers", layers, ("first", "all", "composite", "each", *numbers))
    if layers not in ("all", "composite", "each"):
        chosen = list(targets)[0 if layers == "first" else numbers.index(layers)]
        targets = {chosen: targets[chosen]}
    elif layers == "each" and len(targets) > 1:
        if not isinstance(model, SequenceModel):
            raise ValueError(f"layers must not be 'each' in a {type(model).__name__}, only in a SequenceModel")
        if estimate.get("lengths") is not None:
            raise ValueError("layers must not be 'each' where sequences differ in length")
    end = _ending(model, x, y, readout, groups, estimate.get("lengths"))
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
            return end(MatchReport(loss, loss, time.perf_counter() - start, solver, (), spectrum, comparison, first))
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
    return end(dataclasses.replace(reports[0], seconds=seconds, changed=changed, guard=comparison, layer=first))


def _ending(
    model: torch.nn.Module | SSMAdapter,
    x: ArrayLike,
    y: ArrayLike | None,
    readout: str | None,
    groups: ArrayLike | None,
    lengths: ArrayLike | None,
) -> Callable[[MatchReport], MatchReport]:
    """What becomes of a report once the filters are placed: the read-out is fitted, or all is taken back."""
    if readout is None:
        if groups is not None:
            raise ValueError("groups must be left out without a readout, which alone keeps them together")
        return lambda report: report
    one_of("readout", readout, ("ridge",))
    if not isinstance(model, torch.nn.Module) or not isinstance(getattr(model, "decoder", None), torch.nn.Linear):
        raise ValueError(
            f"readout must be None for a model without a linear layer named decoder, got {readout!r} for a "
            f"{type(model).__name__}"
        )
    if y is None:
        raise ValueError("y must be given for a readout, got None")
    before = _tensors(model)

    def end(report: MatchReport) -> MatchReport:
        try:
            inputs = check_inputs(x, lengths) if isinstance(model, SequenceModel) else x  # (P L) to (P L 1)
            found = ridge_readout_(model, inputs, y, groups=groups, lengths=lengths)
        except BaseException:
            model.load_state_dict(before)
            raise
        new = (name for name, value in model.state_dict().items() if not torch.equal(value, before[name]))
        changed = report.changed + tuple(name for name in new if name not in report.changed)
        seconds = report.seconds + found.seconds
        return dataclasses.replace(report, seconds=seconds, changed=changed, readout=found)

    return end


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


def _kernel(ssm: SisoSSM, length: int) -> np.ndarray:
    """Impulse responses (H, L)."""
    if isinstance(ssm, DiagonalSSM):
        return ssm.kernel(length).detach().cpu().numpy()
    return impulse_response(*arrays(ssm.log_poles, ssm.residues), length=length)


def _importance(ssm: DiagonalSSM, omega: Tensor, input_power: Tensor) -> Tensor:
    """Output power spectrum of every channel on the task's input (H, F)."""
    return ssm.frequency_response(omega).abs() ** 2 * input_power


def _output_covariance(log_poles: np.ndarray, input_power: np.ndarray) -> np.ndarray:
    r"""Matrices R (H, 2N, 2N) with :math:`c^\top R c` the mean of :math:`|H|^2 S_u` over the DFT's grid.

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

    coarse, fine = power_tables(log_poles, length)
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


@by_blocks
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
    loading = _LOADING * np.trace(covariance, axis1=1, axis2=2) / size
    loaded = covariance + loading[:, None, None] * np.eye(size)
    c = np.linalg.solve(loaded, wanted[:, :, None])  # (H 2N 1)
    c = c / np.sqrt(c.transpose(0, 2, 1) @ covariance @ c)
    real, imag = np.split(c[:, :, 0], 2, axis=1)
    return real + 1j * imag


def _check_placement(spectrum: TaskSpectrum, decay: float, spread: float, crowding: float) -> None:
    instance_of("spectrum", spectrum, TaskSpectrum)
    real_number("decay", decay, low=1e-6, high=10.0)
    real_number("spread", spread, low=0.0, high=math.pi)
    real_number("crowding", crowding, low=0.0, high=1.0)
    if spectrum.omega.size < 2:
        raise ValueError(f"spectrum must hold at least two frequencies, got {spectrum.omega.size}")


def _placed(
    spectrum: TaskSpectrum, draw: np.ndarray, decay: float, spread: float, crowding: float, share: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-poles and residues (H, N) from uniform draws (H, N + 1), and which channels are to have them (H)."""
    grid = dft_grid(spectrum.omega.size)
    input_power = np.interp(grid, spectrum.omega, spectrum.input_power)
    importance = np.interp(grid, spectrum.omega, spectrum.importance)
    if not importance.any():
        raise ValueError(f"spectrum must have power at one of {grid.size} frequencies equally spaced from 0 to pi")
    centres = (np.arange(_N_CENTRES) + 0.5) * math.pi / _N_CENTRES
    n_channels, n_pairs = draw.shape[0], draw.shape[1] - 1
    # what a channel at each centre would add to the layer, its poles evenly spread
    offsets = spread * np.linspace(-1, 1, n_pairs) if n_pairs > 1 else np.zeros(1)
    evenly = -decay + 1j * (centres[:, None] + offsets)
    residues = _focused_weights(evenly, centres, np.zeros(_N_CENTRES), input_power=input_power)
    atoms = np.abs(dft_response(evenly, residues, n_frequencies=grid.size)) ** 2 * input_power
    # Below L = 2 _N_CENTRES a constant importance is met exactly by many mixtures, and rounding would choose among
    # them: take the smallest.
    constant = np.ptp(importance) <= 1e-9 * importance.max()
    ridge = 1e-4 * constant * np.linalg.norm(atoms, 2) * np.eye(_N_CENTRES)
    mixture, _ = scipy.optimize.nnls(np.vstack([atoms.T, ridge]), np.concatenate([importance, np.zeros(_N_CENTRES)]))

    density = mixture**crowding
    cumulative = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    edges = np.linspace(0, math.pi, _N_CENTRES + 1)
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
        n_filters = max(n_modes // _CLUSTER, 1)
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
        power = n_inputs * (mixed_power(log_poles, b, c, spectrum.omega) * spectrum.input_power).mean()
        c = c / math.sqrt(power)  # unit power of the outputs, on average
        ssm.set_modes_(*(torch.as_tensor(each.astype(complex)) for each in (log_poles, b, c)))
    else:
        n_channels, n_pairs = ssm.log_poles.shape
        drawn = uniform(n_channels, n_pairs + 1)
        poles, residues, matched = _placed(spectrum, drawn, decay, spread, crowding, share)
        old = arrays(ssm.log_poles, ssm.residues)
        new = (np.where(matched[:, None], *pair) for pair in zip((poles, residues), old, strict=True))
        ssm.set_log_poles_(*map(torch.as_tensor, new))
    if isinstance(ssm, DiagonalSSM):
        with torch.no_grad():  # what is kept is kept to the last bit
            for name in PLACED:
                getattr(ssm, name)[torch.as_tensor(~matched)] = before[name][torch.as_tensor(~matched)]
        return PLACED
    return tuple(name for name, value in _tensors(ssm).items() if not torch.equal(value, before[name]))


def _tensors(ssm: SSMAdapter | torch.nn.Module) -> dict[str, Tensor]:
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


# ---- what a start will bring ---------------------------------------------------------------------


_ORDERS = ("auto", "first", "second")
_MIN_SAMPLES = 8
_CHUNK = 2**22  # numbers held at once while powers are taken
Layer = Callable[[np.ndarray, np.ndarray], np.ndarray]
Features = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two starts on held-out samples.

    Attributes:
        base: mean squared miss of the first start, relative to the targets' variance.
        rival: the same of the second.
        difference: rival less base.
        standard_error: of the difference.
        order: ``first`` or ``second``: the read-out that was asked; ``given`` if it saw features of the caller's.
    """

    base: float
    rival: float
    difference: float
    standard_error: float
    order: str

    @property
    def better(self) -> bool:
        """Whether the rival misses by less, and by more than one standard error less."""
        return self.difference + self.standard_error < 0


def compare_starts(base: Layer, rival: Layer, x: ArrayLike, y: ArrayLike, *, order: str = "auto") -> Comparison:
    r"""Ask the samples which of two layers is the better start: each half tests what was fitted on the other.

    The read-out is ridge regression, its ridge by evidence, for real targets and for one column per class alike. For
    a task of first order it sees the layer's whole output, for one of second order the logarithm of each channel's
    mean output power over the last three quarters, once the filters no longer ring from the sudden beginning.

    Args:
        base, rival: functions of a training half, ``layer(x, y)``, that return impulse responses (H, L). A start that
            looks at the data must look at what it is given and at nothing else.
        x, y: samples as for :func:`~tdi_lib.spectrum.estimate_task_spectrum`, at least 8. They are split alternately
            in the order of their targets, so that every class and every value keeps its share.
        order: ``first``, ``second``, or ``auto``: the one of larger evidence
            (:func:`~tdi_lib.spectrum.order_evidence`).

    Raises:
        TypeError, ValueError: naming the argument.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 32))
    >>> y = x @ np.cos(2.0 * np.arange(32))
    >>> slow = lambda x, y: np.exp(-0.1 * np.arange(32))[None]
    >>> tuned = lambda x, y: (np.exp(-0.1 * np.arange(32)) * np.cos(2.0 * np.arange(32)))[None]
    >>> compare_starts(slow, tuned, x, y).better, compare_starts(tuned, slow, x, y).better
    (True, False)
    """
    order = one_of("order", order, _ORDERS)
    samples = CheckedSamples.of(x, y)
    if order == "auto":
        order = "first" if better_order(samples) == "evidence" else "second"

    def features(layer: Layer) -> Features:
        def of_half(x_half: np.ndarray, y_half: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            kernels = np.asarray(layer(x_half, y_half), dtype=np.float64)
            if order == "second":
                return functools.partial(_log_powers, kernels)
            root = feature_root(layer_matrix(kernels))
            return lambda inputs: np.einsum("pld,lm->pdm", inputs, root).reshape(len(inputs), -1)

        return of_half

    return dataclasses.replace(_compare(features(base), features(rival), samples, y), order=order)


def compare_features(base: Features, rival: Features, x: ArrayLike, y: ArrayLike) -> Comparison:
    """Ask the samples which of two sets of features is the better one: each half tests what was fitted on the other.

    As :func:`compare_starts`, for features of any kind, such as the pooled outputs of an untrained deep model.

    Args:
        base, rival: functions of a training half, ``features(x, y)``, that return a function from all samples
            (P, L, D) to their features (P, M).
        x, y: as for :func:`compare_starts`.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 32))
    >>> mean, power = (lambda x, y: lambda u: u.mean(axis=1)), (lambda x, y: lambda u: (u**2).mean(axis=1))
    >>> compare_features(mean, power, x, (x**2).mean(axis=1)).better
    True
    """
    return _compare(base, rival, CheckedSamples.of(x, y), y)


def _compare(base: Features, rival: Features, samples: CheckedSamples, y: ArrayLike) -> Comparison:
    inputs, target = samples.inputs, samples.targets  # (P L D), (P K)
    if len(inputs) < _MIN_SAMPLES:
        raise ValueError(f"x must hold at least {_MIN_SAMPLES} sequences to be split, got {len(inputs)}")
    labels = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    halves = np.zeros(len(inputs), bool)
    halves[np.lexsort(target.T)[::2]] = True
    misses = np.zeros((2, len(inputs)))
    for fit in (halves, ~halves):
        for row, name, make in zip(misses, ("base", "rival"), (base, rival), strict=True):
            raw = real_array(name, make(inputs[fit], labels[fit])(inputs), ndim=(2,), what="features (P, M)")
            if len(raw) != len(inputs):
                raise ValueError(f"{name} must give a row for each of {len(inputs)} sequences, got shape {raw.shape}")
            features = raw - raw[fit].mean(axis=0)
            mean = target[fit].mean(axis=0)
            path = ridge_path(features[fit], target[fit] - mean)
            row[~fit] = ((features[~fit] @ path.weights[path.best] + mean - target[~fit]) ** 2).mean(axis=1)
    difference = misses[1] - misses[0]
    standard_error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    base_miss, rival_miss = map(float, misses.mean(axis=1))
    return Comparison(base_miss, rival_miss, float(difference.mean()), standard_error, "given")


def forecast_gain(
    kernels: ArrayLike, matched: ArrayLike, spectrum: TaskSpectrum, n_samples: int, noise: float
) -> float:
    r"""Forecast of the gain, :math:`\log(E_g / E_g^\mathrm{matched})`, by theory from an estimated spectrum.

    In the world of the estimate the input is stationary with power :math:`S_u` and the target a functional drawn with
    power :math:`|H|^2`. Both layers' errors follow from the learning curve
    (:func:`~tdi_lib.theory.evidence_curve`). It says how much there is to gain *if the estimate is right*; to see
    that it is wrong takes samples that it has not seen (:func:`compare_starts`). For tasks of first order.

    Args:
        kernels: impulse responses (H, L) of the layer as it is.
        matched: those of the rival (H, L).
        spectrum: the task's.
        n_samples: P.
        noise: variance of the label noise, relative to the clean target's.

    >>> omega = np.linspace(0, np.pi, 33)
    >>> bump = np.exp(-(((omega - 2.0) / 0.2) ** 2))
    >>> spectrum = TaskSpectrum(omega, bump, np.ones(33), "evidence", 64)
    >>> t = np.arange(64)
    >>> slow, tuned = np.exp(-0.1 * t), np.exp(-0.1 * t) * np.cos(2.0 * t)
    >>> forecast_gain(slow, tuned, spectrum, 64, 0.1) > 0
    True
    """
    instance_of("spectrum", spectrum, TaskSpectrum)
    rows = [np.atleast_2d(real_array(n, k, ndim=(1, 2), what="(H, L)")) for n, k in
            (("kernels", kernels), ("matched", matched))]  # fmt: skip
    length = rows[0].shape[1]
    if rows[1].shape[1] != length:
        raise ValueError(f"matched must have the kernels' length {length}, got shape {rows[1].shape}")
    grid = 2 * np.pi * np.arange(length // 2 + 1) / length
    law = {}
    for name in ("input_power", "power"):
        resampled = np.interp(grid, spectrum.omega, getattr(spectrum, name))
        law[name] = scipy.linalg.circulant(np.fft.irfft(resampled, n=length))
    root = feature_root(law["input_power"])
    errors = []
    for each in rows:
        axes, singular, _ = np.linalg.svd(root.T @ feature_root(layer_matrix(each)))
        to_modes = (root @ axes).T
        target = np.einsum("ij,jk,ik->i", to_modes, law["power"], to_modes)
        eta = singular**2 / np.sum(singular**2)
        errors.append(evidence_curve(eta, target / target.sum(), n_samples, noise=noise, ridges=RIDGES[::2]).error[0])
    return float(np.log(errors[0] / errors[1]))


def label_noise(kernels: ArrayLike, x: ArrayLike, y: ArrayLike) -> float:
    """Variance of the label noise relative to the clean target's, as :func:`forecast_gain` takes it.

    Of a linear read-out of the layer the ridge of highest evidence says just that.

    Args:
        kernels: impulse responses (H, L).
        x, y: as for :func:`compare_starts`, (P, L) or (P, L, D).

    >>> rng = np.random.default_rng(0)
    >>> x, kernel = rng.normal(size=(400, 16)), 0.7 ** np.arange(16)
    >>> clean = x @ kernel[::-1] / np.linalg.norm(kernel)
    >>> [0.5 * v < label_noise(kernel, x, clean + v**0.5 * rng.normal(size=400)) < 2 * v for v in (0.1, 1.0)]
    [True, True]
    """
    rows = np.atleast_2d(real_array("kernels", kernels, ndim=(1, 2), what="(H, L)"))
    samples = CheckedSamples.of(x, y)
    inputs = samples.inputs  # (P L D)
    if inputs.shape[1] != rows.shape[1]:
        raise ValueError(f"x must have the kernels' length {rows.shape[1]}, got shape {inputs.shape}")
    features = np.einsum("pld,lm->pdm", inputs, feature_root(layer_matrix(rows))).reshape(len(inputs), -1)
    path = ridge_path(features - features.mean(axis=0), samples.targets)
    return float(path.ridges[path.best])


def _log_powers(kernels: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Logarithm of each channel's mean output power on every input channel (P, H D), standardised.

    The first quarter is left out: there all filters ring from the sudden beginning of the sequence, which in a band
    far quieter than the rest of the input drowns everything.
    """
    length = inputs.shape[1]
    padded = scipy.fft.next_fast_len(2 * length, real=True)
    response = scipy.fft.rfft(kernels, n=padded)[:, :, None]  # (H F 1)
    slab = max(1, _CHUNK // (padded * len(kernels) * inputs.shape[2]))
    power = []
    for first in range(0, len(inputs), slab):
        part = inputs[first : first + slab]
        spectra = scipy.fft.rfft(part - part.mean(axis=1, keepdims=True), n=padded, axis=1)  # (P F D)
        output = scipy.fft.irfft(response * spectra[:, None], n=padded, axis=2)[:, :, length // 4 : length]
        power.append((output**2).mean(axis=2))  # (P H D)
    powers = np.concatenate(power)
    logs = np.log(np.maximum(powers, 1e-12 * powers.max())).reshape(len(inputs), -1)
    return (logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-12)

r"""Start an SSM with a task's spectrum: place poles so that the layer's output power follows the task.

What is matched is the *layer*: the mean over channels of :math:`\eta_h(\omega) = |H_h(\omega)|^2 S_u(\omega)`, the
power spectrum of the channels' outputs on the task's input. Matching every channel to the whole spectrum would make
all channels alike; matching :math:`|H|^2` without :math:`S_u` lets leakage from the input's loud band decide.

A task scalogram says how sharp the filters should be as well. A channel is a cluster of poles with a center
:math:`\omega_c` and a decay :math:`\delta`; the joint density of the two, the probability of each resolution times the
mixture of filters that makes the importance found there, says how many channels each place deserves. Channels take both
at its quantiles (:func:`place_scalogram_`), so an evidence that cannot decide gives a layer of mixed decays, and one
that can gives all channels the same. Shape and loudness are told apart by ``gain``: on the task's input every channel
has unit output power (``unit``) or the power that it had before (``default``). Starts that see no label stand beside:
:func:`flat_init_` and :func:`gains_init_`.

What will a matched start bring? There are two answers before anything is trained. :func:`forecast_gain` asks the
theory, in the world that the estimated spectrum describes. :func:`compare_starts` asks the samples: a linear read-out
of the *untrained* layer is fitted on one half and tested on the other. Both look at a single layer;
:func:`compare_features` does the same with whatever an untrained model makes of its input.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    candidates,
    dft_grid,
    dft_response,
    find_ssms,
    focused_weights,
    impulse_response,
    mean_power,
    mixed_power,
)
from tdi_lib.readout import ReadoutReport, ridge_readout_
from tdi_lib.samples import (
    CheckedSamples,
    check_inputs,
    group_members,
    instance_of,
    one_of,
    positive_int,
    real_array,
    real_number,
)
from tdi_lib.scalogram import Scalogram, check_resolutions
from tdi_lib.spectrum import ENOUGH, TaskSpectrum, better_order, estimate_task_spectrum
from tdi_lib.ssm import DiagonalSSM, SequenceModel
from tdi_lib.theory import RIDGES, evidence_curve, feature_root, layer_matrix, ridge_path

__all__ = [
    "Comparison",
    "MatchReport",
    "channel_power",
    "compare_features",
    "compare_starts",
    "flat_bank_",
    "flat_init_",
    "forecast_gain",
    "gains_init_",
    "label_noise",
    "layer_importance",
    "match_power_spectrum_",
    "matched_poles",
    "place_scalogram_",
    "spectral_loss",
    "tdi_init_",
    "unit_gains_",
]

# ---- matching ------------------------------------------------------------------------------------


_PLACED: tuple[str, ...] = ("log_A_real", "A_imag", "C_real_imag")
_N_CENTERS = 128
_CLUSTER = 2  # poles of one filter where all modes are shared: more make it sharper and leave fewer filters


@dataclasses.dataclass(frozen=True)
class MatchReport:
    """What a match did.

    Attributes:
        loss_before: :func:`spectral_loss` of the (first) layer as it was, between 0 and 2.
        loss_after: the same after the match.
        seconds: wall time, the estimate of the spectrum included when :func:`tdi_init_` made it.
        solver: ``nnls`` or ``adam``; ``gains`` where nothing else was set.
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

    ``nnls``, closed form: a channel is a narrow filter around a center :math:`\omega_c`: its poles are drawn within
    ``spread`` rad of it with one ``decay``, its weights make the output follow the input *there* and as little as
    possible elsewhere (Capon's minimum-variance filter: without it a band five decades louder leaks through every
    tail), its gain gives unit output power on the task's input. The layer's importance is then a non-negative mixture
    :math:`\sum_c w_c \psi_c(\omega)` of known bumps; ``w`` solves one non-negative least-squares problem, and the H
    channels take their centers at the quantiles of ``w``: frequencies are *placed*, not searched for.

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
    if solver == "adam" and isinstance(ssm, DiagonalSSM):
        _descend_(ssm, spectrum, steps)
        changed = ("log_dt", *_PLACED)
    elif solver == "nnls":
        placed = functools.partial(_placed, spectrum, decay=decay, spread=spread, crowding=crowding, share=share)
        changed = _place_(ssm, spectrum, placed, generator)
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
    resolutions: ArrayLike | str | None = None,
    solver: str = "nnls",
    share: float = 1.0,
    gain: str = "unit",
    guard: bool = False,
    readout: str | None = None,
    groups: ArrayLike | None = None,
    generator: torch.Generator | None = None,
    **estimate: Any,
) -> MatchReport:
    """Task-dependent initialization: estimate the spectrum of (x, y) and match the model's SSM to it, in place.

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
        resolutions: decays per sample (R,), or ``"auto"``: estimate the task's scalogram and let it choose every
            channel's center and decay (:func:`place_scalogram_`; ``floor`` then has no say). None: one decay for all
            tasks (:func:`match_power_spectrum_`).
        solver, share: as for :func:`match_power_spectrum_`; ``resolutions`` need ``nnls``.
        gain: as for :func:`place_scalogram_`; ``default`` needs ``resolutions``.
        guard: first ask the samples (:func:`compare_starts`): a spectrum is estimated on each half of
            them and matched, and unless the matched layer has a clearly lower error on the other half the model stays
            as it is. It costs two more estimates and matches, and some of the gain where samples are few.
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
    one_of("gain", gain, _GAINS)
    if resolutions is None and gain != "unit":
        raise ValueError(f"gain must be 'unit' without resolutions, got {gain!r}")
    if resolutions is not None and solver != "nnls":
        raise ValueError(f"solver must be 'nnls' with resolutions, got {solver!r}")
    if resolutions is None:
        start_: Start = lambda ssm, spectrum, draw: match_power_spectrum_(  # noqa: E731
            ssm, spectrum, solver=solver, share=share, generator=draw
        )
    else:
        estimate["resolutions"] = resolutions
        start_ = lambda ssm, spectrum, draw: place_scalogram_(  # noqa: E731
            ssm, spectrum, share=share, gain=gain, generator=draw
        )
    end = _ending(model, x, y, readout, groups, estimate.get("lengths"))
    report = _initialize_(model, x, y, start_, layers, guard, generator, estimate | {"method": method})
    return end(dataclasses.replace(report, solver=solver))


Start = Callable[[SSMAdapter, TaskSpectrum, torch.Generator | None], MatchReport]


def _initialize_(
    model: torch.nn.Module | SSMAdapter,
    x: ArrayLike,
    y: ArrayLike | None,
    start_: Start,
    layers: str,
    guard: bool,
    generator: torch.Generator | None,
    estimate: dict[str, Any],
) -> MatchReport:
    """Estimate the spectrum and start the layers that are asked for by it; the arguments of :func:`tdi_init_`."""
    padded = estimate.get("lengths") is not None
    targets = _layers(model, layers, padded)
    if guard and y is None:
        raise ValueError("y must be given for a guard, got None")
    if guard and padded:
        raise ValueError("guard must be False where sequences differ in length: it reads whole ones, got True")
    (first, ssm), *_ = targets.items()
    start, comparison = time.perf_counter(), None
    spectrum = estimate_task_spectrum(x, y, **estimate)
    if guard and y is not None:
        comparison = _ask(ssm, x, y, start_, generator, estimate | {"method": spectrum.method})
        if not comparison.better:
            loss = spectral_loss(ssm, spectrum)
            return MatchReport(loss, loss, time.perf_counter() - start, "nnls", (), spectrum, comparison, first)
    if layers == "composite":
        spectrum = _root(spectrum, len(targets))
    reports = []
    with _all_or_nothing(targets.values()):
        for index, ssm in enumerate(targets.values()):
            if layers == "each" and index > 0:
                spectrum = estimate_task_spectrum(*_entering(model, index, x, y), **estimate)
            reports.append(start_(ssm, spectrum, generator))
            if not math.isfinite(reports[-1].loss_after):  # by the response of the layer as it now is
                raise ValueError(f"model must be able to hold the match, but layer {index + 1} responds with NaN")
    names = [f"{path}.{name}" for path, report in zip(targets, reports, strict=True) for name in report.changed]
    changed = tuple(name.lstrip(".") for name in names)
    seconds = time.perf_counter() - start
    return dataclasses.replace(reports[0], seconds=seconds, changed=changed, guard=comparison, layer=first)


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


def _layers(model: torch.nn.Module | SSMAdapter, layers: str, padded: bool) -> dict[str, SSMAdapter]:
    """The layers that are meant, by name."""
    found = candidates(model)
    numbers = [str(number + 1) for number in range(len(found))]
    one_of("layers", layers, ("first", "all", "composite", "each", *numbers))
    if layers not in ("all", "composite", "each"):
        name = list(found)[0 if layers == "first" else numbers.index(layers)]
        return {name: found[name]()}
    if layers == "each" and len(found) > 1:
        if not isinstance(model, SequenceModel):
            raise ValueError(f"layers must not be 'each' in a {type(model).__name__}, only in a SequenceModel")
        if padded:
            raise ValueError("layers must not be 'each' where sequences differ in length")
    chosen = {name: make() for name, make in found.items()}
    owner: dict[int, str] = {}
    for name, ssm in chosen.items():
        for key, tensor in _state(ssm).items():
            if (other := owner.setdefault(tensor.untyped_storage().data_ptr(), name)) != name:
                raise ValueError(f"layers must be one of those that share parameters, but {other!r} and {name!r} share "
                                 f"{key}: what one is given the other loses")  # fmt: skip
    return chosen


def _root(spectrum: TaskSpectrum, degree: int) -> TaskSpectrum:
    """The spectrum of each of several layers, a chain of which has the given one; at every resolution alike."""
    root, plane = spectrum.power ** (1 / degree), spectrum.scalogram
    if plane is not None:
        rows = (plane.importance / spectrum.input_power) ** (1 / degree) * spectrum.input_power
        plane = dataclasses.replace(plane, importance=rows / rows.mean(axis=1, keepdims=True))
    return dataclasses.replace(spectrum, power=root / root.mean(), scalogram=plane)


@torch.no_grad()
def _entering(model: Any, index: int, x: ArrayLike, y: ArrayLike | None) -> tuple[np.ndarray, np.ndarray | None]:
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
    start_: Start,
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
        start_(trial, estimate_task_spectrum(x_half, y_half, **estimate), draw)
        return _kernel(trial, length)

    def as_it_is(x_half: np.ndarray, y_half: np.ndarray) -> np.ndarray:
        return _kernel(ssm, length)

    length = np.shape(x)[1]
    order = {"discriminative": "second", "evidence": "first"}.get(estimate["method"], "auto")
    return compare_starts(as_it_is, matched, x, y, order=order)


def flat_init_(
    model: torch.nn.Module | SSMAdapter,
    x: ArrayLike,
    *,
    layers: str = "first",
    resolutions: ArrayLike | str | None = None,
    share: float = 1.0,
    gain: str = "unit",
    lengths: ArrayLike | None = None,
    generator: torch.Generator | None = None,
) -> MatchReport:
    """Start from the ``flat`` bank: narrow filters at even distances, each as loud as the others on the inputs ``x``.

    The task-agnostic baseline of :func:`tdi_init_`: it whitens the input and sees no target. What TDI brings beyond it
    is what the labels bring.

    Args:
        model, x, share, gain, lengths, generator: as for :func:`tdi_init_`.
        layers: the same, but not ``composite`` with ``resolutions``.
        resolutions: as for :func:`flat_bank_`; None for the decay of :func:`match_power_spectrum_`.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> model = SequenceModel(1, 1, d_model=8, d_state=8, n_layers=2)
    >>> x = np.random.default_rng(0).normal(size=(64, 32))
    >>> flat_init_(model, x).spectrum.method
    'flat'
    >>> mixed = flat_init_(model, x, resolutions=[0.05, 0.1, 0.2]).spectrum.scalogram
    >>> mixed.posterior.round(3)
    array([0.333, 0.333, 0.333])
    """
    if resolutions is None:
        return tdi_init_(
            model, x, None, layers=layers, method="flat", share=share, gain=gain, lengths=lengths, generator=generator
        )
    _refuse_composite(layers)
    start_: Start = lambda ssm, spectrum, draw: flat_bank_(  # noqa: E731
        ssm, spectrum, resolutions=resolutions, share=share, gain=gain, generator=draw
    )
    return _initialize_(model, x, None, start_, layers, False, generator, {"method": "flat", "lengths": lengths})


def gains_init_(
    model: torch.nn.Module | SSMAdapter, x: ArrayLike, *, layers: str = "first", lengths: ArrayLike | None = None
) -> MatchReport:
    """Scale every channel to unit output power on the inputs ``x``; no pole is moved and no target seen.

    The cheapest baseline (:func:`unit_gains_`): what a start brings beyond it is not loudness.

    Args:
        model, x, lengths: as for :func:`tdi_init_`.
        layers: the same, but not ``composite``.

    Raises:
        TypeError, ValueError: naming the argument, for a layer whose modes are shared by its outputs too.

    >>> model = SequenceModel(1, 1, d_model=8, d_state=8, n_layers=2)
    >>> gains_init_(model, np.random.default_rng(0).normal(size=(64, 32)), layers="all").changed
    ('layers.0.ssm.C_real_imag', 'layers.1.ssm.C_real_imag')
    """
    _refuse_composite(layers)
    start_: Start = lambda ssm, spectrum, draw: unit_gains_(ssm, spectrum)  # noqa: E731
    return _initialize_(model, x, None, start_, layers, False, None, {"method": "flat", "lengths": lengths})


def _refuse_composite(layers: str) -> None:
    if layers == "composite":
        raise ValueError("layers must not be 'composite' for a start that reads the input's power alone")


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


def _check_placement(spectrum: TaskSpectrum, decay: float, spread: float, crowding: float) -> None:
    instance_of("spectrum", spectrum, TaskSpectrum)
    real_number("decay", decay, low=1e-6, high=10.0)
    real_number("spread", spread, low=0.0, high=math.pi)
    real_number("crowding", crowding, low=0.0, high=1.0)
    if spectrum.omega.size < 2:
        raise ValueError(f"spectrum must hold at least two frequencies, got {spectrum.omega.size}")


def _centers() -> np.ndarray:
    return (np.arange(_N_CENTERS) + 0.5) * math.pi / _N_CENTERS


def _mixture(
    spectrum: TaskSpectrum, importance: np.ndarray, n_pairs: int, decay: float, spread: float, *, smallest: bool = False
) -> np.ndarray:
    """How much of the importance (F,) filters of one decay should make at each center (C,).

    Below L = 2 _N_CENTERS many mixtures make it equally well, and rounding would choose among them. ``smallest`` takes
    the smallest, as is always done where the importance is constant.
    """
    grid = dft_grid(spectrum.omega.size)
    input_power = np.interp(grid, spectrum.omega, spectrum.input_power)
    importance = np.interp(grid, spectrum.omega, importance)
    if not importance.any():
        raise ValueError(f"spectrum must have power at one of {grid.size} frequencies equally spaced from 0 to pi")
    centers = _centers()
    # what a channel at each center would add to the layer, its poles evenly spread
    offsets = spread * np.linspace(-1, 1, n_pairs) if n_pairs > 1 else np.zeros(1)
    evenly = -decay + 1j * (centers[:, None] + offsets)
    residues = focused_weights(evenly, centers, np.zeros(_N_CENTERS), input_power=input_power)
    atoms = np.abs(dft_response(evenly, residues, n_frequencies=grid.size)) ** 2 * input_power
    smallest = smallest or bool(np.ptp(importance) <= 1e-9 * importance.max())
    ridge = 1e-4 * smallest * np.linalg.norm(atoms, 2) * np.eye(_N_CENTERS)
    rows, wanted = np.vstack([atoms.T, ridge]), np.concatenate([importance, np.zeros(_N_CENTERS)])
    return np.asarray(scipy.optimize.nnls(rows, wanted)[0])


def _matched(share: float, n_channels: int) -> np.ndarray:
    """Which channels are placed (H), spread evenly over the layer."""
    return np.diff(np.floor(share * np.arange(n_channels + 1) + 1e-9)) > 0


def _clusters(
    spectrum: TaskSpectrum, draw: np.ndarray, centers: np.ndarray, decays: np.ndarray, spreads: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log-poles and residues (H, N) from uniform draws (H, N + 1): a cluster around every channel's center (H)."""
    input_power = np.interp(dft_grid(spectrum.omega.size), spectrum.omega, spectrum.input_power)
    poles = -decays[:, None] + 1j * (centers[:, None] + spreads[:, None] * (2 * draw[:, 1:] - 1))
    return poles, focused_weights(poles, centers, 2 * math.pi * draw[:, 0], input_power=input_power)


def _placed(
    spectrum: TaskSpectrum, draw: np.ndarray, decay: float, spread: float, crowding: float, share: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-poles and residues (H, N) from uniform draws (H, N + 1), and which channels are to have them (H)."""
    n_channels, n_pairs = draw.shape[0], draw.shape[1] - 1
    mixture = _mixture(spectrum, spectrum.importance, n_pairs, decay, spread)
    density = mixture**crowding
    cumulative = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    edges = np.linspace(0, math.pi, _N_CENTERS + 1)
    matched = _matched(share, n_channels)
    rank = np.cumsum(matched) - 0.5
    chosen = np.interp(rank / matched.sum(), cumulative, edges)  # (H)
    poles, residues = _clusters(spectrum, draw, chosen, *(np.full(n_channels, each) for each in (decay, spread)))
    if crowding < 1:  # a layer of unit output power, on average
        power = np.interp(chosen, _centers(), mixture) ** (1 - crowding)
        if power[matched].any():  # few channels at even distances may all miss the task
            residues *= np.sqrt(power / power[matched].mean())[:, None]
    return poles, residues, matched


Placed = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _place_(
    ssm: SSMAdapter, spectrum: TaskSpectrum, placed: Placed, generator: torch.Generator | None
) -> tuple[str, ...]:
    """Place what ``placed`` makes of uniform draws, as :func:`_placed` does; returns the names of what was set."""
    if isinstance(ssm, MimoSSM):
        return _place_modes_(ssm, spectrum, placed, generator)
    return _place_channels_(ssm, placed, generator)


def _place_channels_(ssm: SisoSSM, placed: Placed, generator: torch.Generator | None) -> tuple[str, ...]:
    """Place the poles of channels that each have their own; returns the names of what was set."""
    before = _tensors(ssm)
    n_channels, n_pairs = ssm.log_poles.shape
    drawn = torch.rand(n_channels, n_pairs + 1, generator=generator, dtype=torch.float64).numpy()
    *chosen, matched = placed(drawn)
    old = arrays(ssm.log_poles, ssm.residues)
    new = (np.where(matched[:, None], *pair) for pair in zip(chosen, old, strict=True))
    ssm.set_log_poles_(*map(torch.as_tensor, new))
    if not isinstance(ssm, DiagonalSSM):
        return _changed(ssm, before)
    with torch.no_grad():  # what is kept is kept to the last bit
        for name in _PLACED:
            getattr(ssm, name)[torch.as_tensor(~matched)] = before[name][torch.as_tensor(~matched)]
    return _PLACED


def _place_modes_(
    ssm: MimoSSM,
    spectrum: TaskSpectrum,
    placed: Placed,
    generator: torch.Generator | None,
) -> tuple[str, ...]:
    """Place the modes that all inputs and outputs share, in filters of ``_CLUSTER`` poles.

    Each filter reads one direction of the inputs and writes one of the outputs: one pair of directions after another,
    neighbors in opposite senses of time where the layer runs in both.
    """
    before = _tensors(ssm)
    shape, n_inputs = tuple(ssm.output_gains.shape), ssm.input_gains.shape[1]
    n_outputs, n_modes = shape[-2:]
    n_senses = shape[0] if len(shape) == 3 else 1
    n_filters = max(n_modes // _CLUSTER, 1)
    drawn = torch.rand(n_filters, n_modes // n_filters + 1, generator=generator, dtype=torch.float64).numpy()
    poles, residues, _ = placed(drawn)  # (Q n)

    normal = (torch.randn(n, n, generator=generator, dtype=torch.float64).numpy() for n in (n_inputs, n_outputs))
    into, out = (np.linalg.qr(each)[0] for each in normal)
    sense, pair = np.arange(n_filters) % n_senses, np.arange(n_filters) // n_senses
    writes = pair % n_outputs
    reads = (pair + pair // math.lcm(n_inputs, n_outputs)) % n_inputs
    b = residues[:, :, None] * into[reads][:, None, :]  # (Q n D)
    c = np.zeros((n_filters, poles.shape[1], n_senses, n_outputs))
    c[np.arange(n_filters), :, sense] = out[writes][:, None, :]

    # poles that are left over wait without an input: those of the first filters again
    some = np.arange(n_modes) % poles.size
    b = b.reshape(-1, n_inputs)[some] * (np.arange(n_modes) < poles.size)[:, None]
    c = np.moveaxis(c.reshape(-1, n_senses, n_outputs)[some], 0, -1).reshape(shape)  # (S H N)
    log_poles = poles.ravel()[some]
    power = n_inputs * (mixed_power(log_poles, b, c, spectrum.omega) * spectrum.input_power).mean()
    c = c / math.sqrt(power)  # unit power of the outputs, on average
    ssm.set_modes_(*(torch.as_tensor(each.astype(complex)) for each in (log_poles, b, c)))
    return _changed(ssm, before)


def _changed(ssm: SSMAdapter, before: dict[str, Tensor]) -> tuple[str, ...]:
    return tuple(name for name, value in _tensors(ssm).items() if not torch.equal(value, before[name]))


def _state(ssm: SSMAdapter | torch.nn.Module) -> dict[str, Tensor]:
    """What the layer keeps."""
    module = ssm if isinstance(ssm, torch.nn.Module) else getattr(ssm, "module", None)
    return module.state_dict() if isinstance(module, torch.nn.Module) else {}


def _tensors(ssm: SSMAdapter | torch.nn.Module) -> dict[str, Tensor]:
    """Copies of what the layer keeps."""
    return {name: value.detach().clone() for name, value in _state(ssm).items()}


@contextlib.contextmanager
def _all_or_nothing(layers: Iterable[SSMAdapter]) -> Iterator[None]:
    """Whatever goes wrong on the way, the layers are then as they were."""
    before = [(ssm, _tensors(ssm)) for ssm in layers]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for ssm, kept in before:
                for name, value in _state(ssm).items():
                    value.copy_(kept[name])
        raise


def _descend_(ssm: DiagonalSSM, spectrum: TaskSpectrum, steps: int) -> None:
    omega, input_power = (torch.as_tensor(each).to(ssm.log_dt) for each in (spectrum.omega, spectrum.input_power))
    target = torch.as_tensor(spectrum.importance).to(omega)
    target = target / torch.linalg.norm(target)
    parameters = [ssm.log_dt, ssm.log_A_real, ssm.A_imag, ssm.C_real_imag]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    with torch.enable_grad():
        for _ in range(steps):
            eta = _importance(ssm, omega, input_power).mean(dim=0)
            gradients = torch.autograd.grad(((eta / eta.norm() - target) ** 2).sum(), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    with torch.no_grad():  # unit output power on average over the layer
        ssm.C_real_imag.div_(_importance(ssm, omega, input_power).mean().sqrt())


# ---- placing by a scalogram ----------------------------------------------------------------------


_GAINS = ("unit", "default")
_IMPROBABLE = 1e-3  # resolutions that are less probable are left out
_GOLDEN = (math.sqrt(5) - 1) / 2


def place_scalogram_(
    ssm: SSMAdapter,
    spectrum: TaskSpectrum,
    *,
    hedge: float = 0.5,
    spread: float = 1.0,
    share: float = 1.0,
    gain: str = "unit",
    generator: torch.Generator | None = None,
) -> MatchReport:
    r"""Give ``ssm``'s channels centers and decays at the quantiles of the task's joint density, in place.

    The weights of a channel are Capon's at its own decay, as in :func:`match_power_spectrum_`.

    Args:
        ssm: the layer, changed in place: a :class:`~tdi_lib.ssm.DiagonalSSM`, or what
            :func:`~tdi_lib.filters.adapt` makes of another's layer.
        spectrum: the task's, estimated with ``resolutions``.
        hedge: part of the channels that is spread evenly over all frequencies and all resolutions instead.
        spread: half-width of a channel's cluster of poles, in units of its decay.
        share: part of the channels that are placed, spread evenly over the layer; the others stay as they are. Always 1
            where modes are shared.
        gain: output power of the placed channels on the task's input: ``unit``, or ``default`` for what it was before.
            Where modes are shared, of all outputs together.
        generator: source of randomness for the draw; the global one if omitted.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> from tdi_lib.spectrum import estimate_task_spectrum
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 64))
    >>> spectrum = estimate_task_spectrum(x, x[:, 40], resolutions="auto")
    >>> ssm = DiagonalSSM(8, 8)
    >>> place_scalogram_(ssm, spectrum).changed
    ('log_A_real', 'A_imag', 'C_real_imag')
    """
    ssm = _ssm(ssm)
    instance_of("spectrum", spectrum, TaskSpectrum)
    if spectrum.scalogram is None:
        raise ValueError("spectrum must have a scalogram, got None: estimate it with resolutions='auto'")
    hedge = real_number("hedge", hedge, low=0.0, high=1.0)
    spread = real_number("spread", spread, low=0.0, high=10.0)
    share = real_number("share", share, low=0.0, high=1.0)
    gain = one_of("gain", gain, _GAINS)
    if isinstance(ssm, MimoSSM) and share < 1:
        raise ValueError(f"share must be 1 for a layer whose modes are shared by inputs and outputs, got {share}")
    if isinstance(ssm, SisoSSM) and share * len(ssm.log_poles) < 1:
        raise ValueError(f"share must leave one of {len(ssm.log_poles)} channels to place, got {share}")
    plane, start = spectrum.scalogram, time.perf_counter()

    def placed(draw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        matched = _matched(share, len(draw))
        density = _joint_density(spectrum, plane, draw.shape[1] - 1, spread)  # (R C)
        density = (1 - hedge) * density + hedge / density.size
        centers, decays = _quantiles(density, plane.edges, np.cumsum(matched) - 0.5, int(matched.sum()))
        return *_clusters(spectrum, draw, centers, decays, spread * decays), matched

    return _report(ssm, spectrum, start, lambda: _place_(ssm, spectrum, placed, generator), gain, share)


def flat_bank_(
    ssm: SSMAdapter,
    spectrum: TaskSpectrum,
    *,
    resolutions: ArrayLike | str,
    share: float = 1.0,
    gain: str = "unit",
    generator: torch.Generator | None = None,
) -> MatchReport:
    """Give ``ssm`` filters at even distances, all as loud on the task's input: a start that sees no label.

    Args:
        ssm, share, gain, generator: as for :func:`place_scalogram_`.
        spectrum: whose ``input_power`` is whitened; the rest of it is not looked at.
        resolutions: decay per sample of all channels, one number; or several (R,), ascending, or ``"auto"`` for
            :func:`~tdi_lib.scalogram.resolution_grid`: channels then have mixed decays, as many of each, log-uniform in
            between.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> omega = np.linspace(0, np.pi, 33)
    >>> ssm = DiagonalSSM(8, 8)
    >>> report = flat_bank_(ssm, TaskSpectrum(omega, np.ones(33), np.ones(33), "input", 4), resolutions=0.1)
    >>> ssm.log_poles.real.mean().round(decimals=3).item()
    -0.1...
    """
    instance_of("spectrum", spectrum, TaskSpectrum)
    decays = check_resolutions(resolutions, 2 * spectrum.omega.size - 2)
    shape = (decays.size, spectrum.omega.size)
    plane = Scalogram(spectrum.omega, decays, np.ones(shape), np.zeros(decays.size), "second", 0.0)
    power = 1 / spectrum.input_power
    flat = dataclasses.replace(spectrum, power=power / power.mean(), method="flat", scalogram=plane)
    return place_scalogram_(ssm, flat, hedge=0.0, share=share, gain=gain, generator=generator)


def unit_gains_(ssm: SSMAdapter, spectrum: TaskSpectrum) -> MatchReport:
    """Scale every channel to unit output power on the task's input; no pole is moved and no label seen.

    After arXiv 2405.02670's idea.

    Raises:
        TypeError, ValueError: naming the argument, for a layer whose modes are shared by its outputs too.

    >>> omega = np.linspace(0, np.pi, 33)
    >>> unit_gains_(DiagonalSSM(8, 8), TaskSpectrum(omega, np.ones(33), np.ones(33), "input", 4)).changed
    ('C_real_imag',)
    """
    ssm = _ssm(ssm)
    instance_of("spectrum", spectrum, TaskSpectrum)
    if isinstance(ssm, MimoSSM):
        raise ValueError("ssm must have channels of its own, got a layer whose modes are shared by inputs and outputs")
    report = _report(ssm, spectrum, time.perf_counter(), tuple, "unit", 1.0)
    return dataclasses.replace(report, solver="gains")


def channel_power(ssm: SSMAdapter, spectrum: TaskSpectrum) -> np.ndarray:
    r"""Output power of every channel on the task's input (H,), its impulse response cut at the sequences' length.

    .. math:: \frac1\pi \int_0^\pi |H_L(\omega)|^2 S_u(\omega)\, d\omega

    Where modes are shared, one number: the mean over outputs for independent inputs, of filters that are not cut.
    """
    ssm = _ssm(ssm)
    instance_of("spectrum", spectrum, TaskSpectrum)
    if isinstance(ssm, MimoSSM):
        n_inputs = ssm.input_gains.shape[1]
        mean = (mean_power(ssm, spectrum.omega) * spectrum.input_power).mean()
        return np.array([n_inputs * mean])
    length = 2 * spectrum.omega.size - 2
    kernel = impulse_response(*arrays(ssm.log_poles, ssm.residues), length=length)  # (H L)
    response = np.abs(np.fft.rfft(kernel, n=4 * length, axis=1)) ** 2
    grid = np.linspace(0, math.pi, response.shape[1])
    power = response * np.interp(grid, spectrum.omega, spectrum.input_power)
    return np.asarray(np.trapezoid(power, grid, axis=1) / math.pi)


def _joint_density(spectrum: TaskSpectrum, plane: Scalogram, n_pairs: int, spread: float) -> np.ndarray:
    """Probability (R, C) that a channel belongs at each resolution and center."""
    density = np.zeros((plane.resolutions.size, _N_CENTERS))
    for row, (decay, probability) in enumerate(zip(plane.resolutions, plane.posterior, strict=True)):
        if probability > _IMPROBABLE:
            mixture = _mixture(spectrum, plane.importance[row], n_pairs, decay, spread * decay, smallest=True)
            density[row] = probability * mixture / mixture.sum()
    return density / density.sum()


def _quantiles(density: np.ndarray, edges: np.ndarray, rank: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Centers and decays (H) that share out a density (R, C) evenly; ``rank`` counts the channels from a half on.

    Centers are quantiles of its sum over resolutions, decays of what is left at the center; multiples of the golden
    section spread the second evenly, whatever stretch of the first one looks at.
    """
    n_resolutions, n_centers = density.shape
    over = np.concatenate([[0.0], np.cumsum(density.sum(axis=0))])
    borders = np.linspace(0, math.pi, n_centers + 1)
    centers = np.interp(rank / count, over / over[-1], borders)
    # centers of an even density lie on borders between cells: never let their last digit choose the cell
    cell = np.minimum((centers / math.pi * n_centers + 1e-6).astype(int), n_centers - 1)
    under = np.zeros((len(rank), n_resolutions + 1))
    np.cumsum(density[:, cell].T, axis=1, out=under[:, 1:])
    wanted = (_GOLDEN * rank) % 1
    logs = [np.interp(q, each / each[-1], np.log(edges)) for q, each in zip(wanted, under, strict=True)]
    return centers, np.exp(logs)


def _report(
    ssm: SSMAdapter,
    spectrum: TaskSpectrum,
    start: float,
    change: Callable[[], tuple[str, ...]],
    gain: str,
    share: float,
) -> MatchReport:
    """Change the layer, give its channels the gain that is wanted and say what was done."""
    loss, power, before = spectral_loss(ssm, spectrum), channel_power(ssm, spectrum), _tensors(ssm)
    changed = change()
    wanted = power if gain == "default" else np.ones_like(power)
    present = channel_power(ssm, spectrum)
    scale = np.sqrt(np.divide(wanted, present, out=np.ones_like(present), where=present > 0))  # a silent one stays so
    if isinstance(ssm, MimoSSM):
        ssm.set_modes_(ssm.log_poles, ssm.input_gains, ssm.output_gains * float(scale[0]))
    else:
        scale = torch.as_tensor(np.where(_matched(share, scale.size), scale, 1.0))
        if isinstance(ssm, DiagonalSSM):  # what is kept is kept to the last bit
            with torch.no_grad():
                ssm.C_real_imag.mul_(scale.to(ssm.C_real_imag)[:, None, None])
        else:
            ssm.set_log_poles_(ssm.log_poles, ssm.residues * scale[:, None])
    if not changed:
        changed = tuple(name for name, value in _tensors(ssm).items() if not torch.equal(value, before[name]))
    seconds = time.perf_counter() - start
    return MatchReport(loss, spectral_loss(ssm, spectrum), seconds, "nnls", changed, spectrum)


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
        """Whether the rival has the lower error, by more than one standard error."""
        return self.difference + self.standard_error < 0


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Several starts on held-out samples: the squared misses (P,) of each, the read-out that was asked, the groups."""

    misses: dict[str, np.ndarray]
    order: str
    groups: np.ndarray | None = None

    def compare(self, base: str, rival: str) -> Comparison:
        """Two of them."""
        first, second = self.misses[base], self.misses[rival]
        difference = second - first
        groups = np.arange(len(difference)) if self.groups is None else self.groups
        off = np.bincount(groups, difference - difference.mean())  # what is kept together errs together
        standard_error = float(np.sqrt(len(off) / (len(off) - 1) * (off**2).sum()) / len(difference))
        return Comparison(
            float(first.mean()), float(second.mean()), float(difference.mean()), standard_error, self.order
        )


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
    return held_out_starts({"base": base, "rival": rival}, x, y, order=order).compare("base", "rival")


def held_out_starts(
    starts: Mapping[str, Layer], x: ArrayLike, y: ArrayLike, *, order: str = "auto", groups: ArrayLike | None = None
) -> HeldOut:
    """:func:`compare_starts` of several layers, each fitted once on each half; ``groups`` (P,) are never split."""
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

    members = None if groups is None else group_members(groups, len(samples))
    return _held_out({name: features(layer) for name, layer in starts.items()}, samples, y, order, members)


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
    return _held_out({"base": base, "rival": rival}, CheckedSamples.of(x, y), y, "given").compare("base", "rival")


def _held_out(
    starts: Mapping[str, Features],
    samples: CheckedSamples,
    y: ArrayLike,
    order: str,
    groups: np.ndarray | None = None,
) -> HeldOut:
    inputs, target = samples.inputs, samples.targets  # (P L D), (P K)
    if len(inputs) < _MIN_SAMPLES:
        raise ValueError(f"x must hold at least {_MIN_SAMPLES} sequences to be split, got {len(inputs)}")
    labels = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    halves = _halves(target, groups)
    misses = {name: np.zeros(len(inputs)) for name in starts}
    for fit in (halves, ~halves):
        mean = target[fit].mean(axis=0)
        for name, make in starts.items():
            raw = real_array(name, make(inputs[fit], labels[fit])(inputs), ndim=(2,), what="features (P, M)")
            if len(raw) != len(inputs):
                raise ValueError(f"{name} must give a row for each of {len(inputs)} sequences, got shape {raw.shape}")
            features = raw - raw[fit].mean(axis=0)
            path = ridge_path(features[fit], target[fit] - mean)
            predicted = features[~fit] @ path.weights[path.best] + mean
            misses[name][~fit] = ((predicted - target[~fit]) ** 2).mean(axis=1)
    return HeldOut(misses, order, groups)


def _halves(target: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """One of two halves of the samples (P,), alternately in the order of their targets, or of their groups' means."""
    if groups is None:
        groups = np.arange(len(target))
    sizes = np.bincount(groups)
    means = np.stack([np.bincount(groups, column) for column in target.T], axis=1) / sizes[:, None]  # (G K)
    chosen = np.zeros(len(sizes), bool)
    chosen[np.lexsort(means.T)[::2]] = True
    return np.asarray(chosen[groups])


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
    """Logarithm of each channel's mean output power on every input channel (P, H D), standardized.

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

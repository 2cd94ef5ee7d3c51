"""Is a matched start worth it on these samples? One call that asks everything the library can ask, and one answer.

Whether there is spectral structure at all is a permutation test; what is to be won is asked of held-out samples
(:func:`~tdi_lib.tdi.compare_starts`) and, for tasks of first order, of theory
(:func:`~tdi_lib.tdi.forecast_gain`). The rule that makes one word of it is :func:`recommend`. All of it looks at one
layer and its read-out; nothing is trained.
"""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from tdi_lib.samples import CheckedSamples, lengths_of, positive_int, real_number, standardize_targets
from tdi_lib.spectrum import (
    ENOUGH,
    TaskSpectrum,
    estimate_task_spectrum,
    evidence_of_both,
    evidence_of_orders,
    order_evidence,
)
from tdi_lib.ssm import DiagonalSSM
from tdi_lib.tdi import (
    Comparison,
    Layer,
    forecast_gain,
    held_out_starts,
    label_noise,
    layer_importance,
    match_power_spectrum_,
    spectral_loss,
)

__all__ = ["Band", "Diagnosis", "Forecast", "Structure", "diagnose", "recommend", "spectral_structure", "usable"]

LEVEL = 0.05
_CLOSE = 0.2  # a spectral loss below it: the default hears what the task asks for
_WORTH = 0.9  # of the default's held-out miss: more is not worth a change
_SHARE = 0.8  # of the importance lies in the bands
_NAMED = ("lin", "inv", "legs", "dfout", "real")
_MAX_SAMPLES = 2000
_MAX_LENGTH = 512  # steps of the L x L matrices behind the first-order answers
_N_SPLITS = 3
_MIN_SAMPLES = 16


@dataclasses.dataclass(frozen=True)
class Structure:
    """What :func:`spectral_structure` found: log evidence per sample of both orders, in nats, and the p-value."""

    first: float
    second: float
    p_value: float
    n_permutations: int

    @property
    def order(self) -> str:
        """``first`` or ``second``, the one of larger evidence."""
        return "first" if self.first >= self.second else "second"


@dataclasses.dataclass(frozen=True)
class Band:
    """A stretch of frequencies, rad/sample, and its share of the task's importance."""

    low: float
    high: float
    share: float


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Predicted log ratio of the errors, default over matched: its value, and its range over half-samples."""

    gain: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the samples say about a matched start.

    Attributes:
        verdict: ``do not bother``, ``try it`` or ``use it``.
        reason: why, in a sentence.
        start: what to start from: ``lin`` (the default), ``flat`` or ``tdi``.
        n_samples: P, of what was usable.
        length: L.
        n_channels: D.
        n_classes: K, or None for real targets.
        sampling_rate: samples per second, or None.
        structure: the permutation test.
        quantiles: frequencies below which 5, 50 and 95 % of the task's importance lie, rad/sample.
        bands: where the densest 80 % of it lie, low to high.
        distances: :func:`~tdi_lib.tdi.spectral_loss` to the task (0 to 2) of each common initialization, of the
            ``flat`` bank and of the matched layer (``tdi``).
        held_out: the default (``lin``) against the matched layer on held-out halves.
        against_flat: the ``flat`` bank, which sees no target, against the matched layer.
        flat: the default against the ``flat`` bank.
        forecast: of the gain at n_samples, by theory; None for a task of second order.
        notes: what was left out of the data or cut, in sentences.
        spectrum: the task's.
        responses: the importance of the layers ``lin``, ``flat`` and ``tdi`` at ``spectrum.omega``, unit mean.
    """

    verdict: str
    reason: str
    start: str
    n_samples: int
    length: int
    n_channels: int
    n_classes: int | None
    sampling_rate: float | None
    structure: Structure
    quantiles: tuple[float, float, float]
    bands: tuple[Band, ...]
    distances: dict[str, float]
    held_out: Comparison
    against_flat: Comparison
    flat: Comparison
    forecast: Forecast | None
    notes: tuple[str, ...]
    spectrum: TaskSpectrum = dataclasses.field(repr=False)
    responses: dict[str, np.ndarray] = dataclasses.field(repr=False)

    def hertz(self, omega: float) -> float | None:
        """A frequency in rad/sample in Hz, where the sampling rate is known."""
        return None if self.sampling_rate is None else omega * self.sampling_rate / (2 * math.pi)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves as plain numbers and texts, ready for JSON; frequencies in Hz beside rad/sample."""
        skipped = {"spectrum", "responses"}
        kept = [field.name for field in dataclasses.fields(self) if field.name not in skipped]
        plain = {name: _plain(getattr(self, name)) for name in kept}
        plain["structure"]["order"] = self.structure.order
        if self.sampling_rate is not None:
            plain["quantiles_hz"] = [self.hertz(omega) for omega in self.quantiles]
            plain["bands_hz"] = [[self.hertz(band.low), self.hertz(band.high)] for band in self.bands]
        return plain


def diagnose(
    x: ArrayLike,
    y: ArrayLike,
    *,
    sampling_rate: float | None = None,
    n_permutations: int = 199,
    seed: int = 0,
    d_model: int = 64,
    d_state: int = 64,
) -> Diagnosis:
    """Ask the samples whether a layer matched to their task is a better start than S4D-Lin.

    Args:
        x: sequences (P, L) or (P, L, D); shorter ones end in NaN (see :func:`usable` for what is made of them).
        y: class labels (P,) or real targets (P,) or (P, K), as for
            :func:`~tdi_lib.spectrum.estimate_task_spectrum`. Samples should be independent: of overlapping windows
            of one recording the permutation test says too much.
        sampling_rate: samples per second, for frequencies in Hz.
        n_permutations: of the targets, for the p-value.
        seed: of the permutations, the layers and the choice of samples, where there are more than 2,000.
        d_model, d_state: size of the layer.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> from tdi_lib.data.synthetic import four_tones
    >>> x, y = four_tones(96, amplitude=0.4, generator=np.random.default_rng(0), length=128)
    >>> found = diagnose(x, y, d_model=16, d_state=16)
    >>> found.verdict, found.structure.order, found.structure.p_value
    ('use it', 'second', 0.005)
    """
    if sampling_rate is not None:
        sampling_rate = real_number("sampling_rate", sampling_rate, low=1e-300)
    seed = positive_int("seed", seed, minimum=0)
    inputs, targets, notes = usable(x, y)
    n_samples, length, n_channels = inputs.shape
    n_classes = len(np.unique(targets)) if targets.dtype.kind in "iubU" else None
    inputs, targets = _enough(inputs, targets, n_classes, seed, notes)

    structure = spectral_structure(inputs, targets, n_permutations=n_permutations, seed=seed)
    first_order = structure.order == "first"
    method = "evidence" if first_order else "discriminative"
    spectrum = estimate_task_spectrum(inputs, targets, method=method)
    importance = estimate_task_spectrum(inputs, targets, method=method, floor=0.0).importance

    named = {name: _layer(d_model, d_state, seed, name) for name in _NAMED}
    named["flat"] = _matched(named["lin"], estimate_task_spectrum(inputs, method="flat"), seed)
    named["tdi"] = _matched(named["lin"], spectrum, seed)
    distances = {name: spectral_loss(ssm, spectrum) for name, ssm in named.items()}

    if first_order and length > _MAX_LENGTH:
        inputs, targets = _loudest(inputs, targets, notes)
    halves = held_out_starts(
        _starts(named["lin"], method, inputs.shape[1], seed), inputs, targets, order=structure.order
    )
    held_out, against_flat, flat = (
        halves.compare(*pair) for pair in (("lin", "tdi"), ("flat", "tdi"), ("lin", "flat"))
    )
    forecast = _forecast(named["lin"], inputs, targets, n_samples, seed) if first_order else None
    verdict, reason, start = recommend(structure, distances, held_out, against_flat, flat, forecast, n_samples)
    return Diagnosis(
        verdict,
        reason,
        start,
        n_samples,
        length,
        n_channels,
        n_classes,
        sampling_rate,
        structure,
        _quantiles(spectrum.omega, importance),
        _bands(spectrum.omega, importance),
        distances,
        held_out,
        against_flat,
        flat,
        forecast,
        tuple(notes),
        spectrum,
        {name: layer_importance(named[name], spectrum) for name in ("lin", "flat", "tdi")},
    )


def recommend(
    structure: Structure,
    distances: dict[str, float],
    held_out: Comparison,
    against_flat: Comparison,
    flat: Comparison,
    forecast: Forecast | None,
    n_samples: int,
) -> tuple[str, str, str]:
    """The rule: a verdict, its reason, and what to start from (``lin``, ``flat`` or ``tdi``).

    ``do not bother`` if the p-value of the structure exceeds 0.05, or the held-out comparison does not favor the
    matched start by more than one standard error, or the forecast, where there is one, is no gain. ``use it`` if the
    comparison favors it by more than two, takes at least a tenth off the default's miss, and the forecast, where there
    is one, is a gain on every half of the samples. Else ``try it``. Where the matched start is no better but the flat
    bank, blind to the targets, is by more than two standard errors, ``try it`` means that bank; where both are, it is
    said.
    """
    step = f"{signed(held_out.difference, '.2g')} ± {held_out.standard_error:.1g} of the targets' variance"
    if structure.p_value > LEVEL:
        return (
            "do not bother",
            f"In {n_samples:,} samples the targets cannot be told from shuffled ones by their spectra "
            f"(p = {structure.p_value:.2g}).",
            "lin",
        )
    if not held_out.better:
        heard = ", and the default hears it" if distances["lin"] < _CLOSE else ""
        reason = f"There is structure{heard}; on held-out samples a matched start is no better ({step})"
        if flat.difference + 2 * flat.standard_error < 0:
            gain = f"{signed(flat.difference, '.2g')} ± {flat.standard_error:.1g}"
            return "try it", f"{reason}, but a flat bank, blind to the targets, is better ({gain}).", "flat"
        return "do not bother", f"{reason}.", "lin"
    held = "On held-out samples a matched initialization has"
    if forecast is not None and forecast.gain <= 0:
        reason = f"{held} a slightly lower error ({step}), but theory foresees no gain."
        return "do not bother", reason, "lin"
    strong = held_out.difference + 2 * held_out.standard_error < 0 and held_out.rival <= _WORTH * held_out.base
    if strong and (forecast is None or forecast.low > 0):
        verdict, reason = "use it", f"{held} a clearly lower error ({step})"
    else:
        verdict, reason = "try it", f"{held} a lower error, but not by much ({step})"
    if not against_flat.better:
        reason += "; a flat bank, blind to the targets, does as well here"
    return verdict, reason + ".", "tdi"


def signed(value: float, digits: str) -> str:
    """A number with its sign, the minus as long as the plus.

    >>> signed(-0.5, ".2f"), signed(0.5, ".2f")
    ('−0.50', '+0.50')
    """
    return f"{value:+{digits}}".replace("-", "−")


def spectral_structure(x: ArrayLike, y: ArrayLike, *, n_permutations: int = 199, seed: int = 0) -> Structure:
    """Whether the targets know the sequences' spectra, in first or second order: a permutation test.

    The statistic is the larger of the two orders' evidences (:func:`~tdi_lib.spectrum.order_evidence`); under
    permuted targets it is taken in the same way, so that looking twice costs what it should. At most 400 samples are
    used, evenly spaced in the order of their targets.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 32))
    >>> tone, noise = x @ np.cos(2.0 * np.arange(32)), rng.normal(size=64)
    >>> spectral_structure(x, tone).p_value, spectral_structure(x, noise).p_value
    (0.005, 0.855)
    """
    n_permutations = positive_int("n_permutations", n_permutations)
    generator = np.random.default_rng(positive_int("seed", seed, minimum=0))
    samples = CheckedSamples.of(x, y).at_most(ENOUGH)
    first, second = evidence_of_both(samples)
    orders = [np.arange(len(samples)), *(generator.permutation(len(samples)) for _ in range(n_permutations))]
    both = np.maximum(*evidence_of_orders(samples.inputs, samples.targets[np.array(orders)]))
    as_large = int((both[1:] >= both[0] - 1e-12).sum())
    return Structure(first, second, (1 + as_large) / (1 + n_permutations), n_permutations)


def usable(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Sequences of one length, none of them constant, their targets, and notes on what was left out.

    Sequences that end in NaN are cut, all to one length, for a spectrum has one: those shorter than half of the median
    are left out, the rest cut to the shortest. What lies behind the cut is not looked at.

    Raises:
        TypeError, ValueError: naming the argument, also if fewer than half of the samples are left.

    >>> x = np.random.default_rng(0).normal(size=(8, 20))
    >>> x[3, 16:] = np.nan
    >>> usable(x, np.arange(8) % 2)[0].shape
    (8, 16, 1)
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu().numpy()
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    inputs, targets = np.asarray(x), np.asarray(y)
    if inputs.ndim not in (2, 3) or inputs.dtype.kind not in "fiub" or not inputs.size:
        raise ValueError(
            f"x must be real sequences (P, L) or (P, L, D), got shape {inputs.shape} and dtype {inputs.dtype}"
        )
    inputs = inputs.reshape(*inputs.shape[:2], -1).astype(np.float64)
    if targets.ndim == 0 or len(targets) != len(inputs):
        raise ValueError(f"y must hold one target per sequence of x ({len(inputs)}), got shape {targets.shape}")
    notes = []
    if (lengths := lengths_of(inputs)) is not None:
        long_enough = lengths >= max(np.median(lengths) / 2, 1)
        length = int(lengths[long_enough].min())
        share = 1 - length * long_enough.sum() / lengths.sum()
        inputs, targets = inputs[long_enough, :length], targets[long_enough]
        notes.append(
            f"sequences of {lengths.min()} to {lengths.max()} steps were cut to {length}"
            + (f" and {int((~long_enough).sum())} shorter ones left out" if not long_enough.all() else "")
            + f": {100 * share:.0f} % of the values are not looked at"
        )
    n_samples = len(inputs)
    inputs, kept, n_constant = _without_constant(inputs)
    if n_constant:
        notes.append(f"{n_constant} constant sequence{'s' * (n_constant > 1)} left out")
    if 2 * len(inputs) < n_samples:
        raise ValueError(f"x must hold mostly sequences that vary, got {n_constant} constant of {n_samples}")
    return inputs, targets[kept], notes


def _enough(
    inputs: np.ndarray, targets: np.ndarray, n_classes: int | None, seed: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The samples, or ``_MAX_SAMPLES`` of them; ValueError if there are too few."""
    n_samples, least = len(inputs), max(_MIN_SAMPLES, 4 * (n_classes or 0))
    if n_samples < least:
        of = f" of {n_classes} classes" if n_classes else ""
        raise ValueError(
            f"x must hold at least {least} usable samples{of}, for each half tests the other, got {n_samples}"
        )
    if n_samples <= _MAX_SAMPLES:
        return inputs, targets
    notes.append(f"the spectrum is taken from {_MAX_SAMPLES:,} of the {n_samples:,} samples, chosen at random")
    keep = np.sort(np.random.default_rng(seed).choice(n_samples, _MAX_SAMPLES, replace=False))
    return inputs[keep], targets[keep]


def _loudest(inputs: np.ndarray, targets: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The window of ``_MAX_LENGTH`` steps of highest first-order evidence; at most 32 are looked at."""
    length = inputs.shape[1]
    last = length - _MAX_LENGTH
    starts = np.unique(np.linspace(0, last, min(32, 1 + -(-last // (_MAX_LENGTH // 2)))).astype(int))
    windows, evidence = [], []
    for start in starts:
        window, kept, _ = _without_constant(inputs[:, start : start + _MAX_LENGTH])
        enough = len(window) >= max(_MIN_SAMPLES, len(inputs) // 2)
        windows.append((window, targets[kept]))
        evidence.append(order_evidence(*windows[-1])[0] if enough else -math.inf)
    best = int(np.argmax(evidence))
    notes.append(
        f"forecast and held-out comparison look at {_MAX_LENGTH} of the {length:,} steps, from {starts[best]:,} on, "
        "where the wave form says most about the targets"
    )
    return windows[best]


def _without_constant(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    varies = (np.ptp(inputs, axis=1) > 0).any(axis=1)
    return inputs[varies], np.flatnonzero(varies), int((~varies).sum())


def _layer(d_model: int, d_state: int, seed: int, init: str) -> DiagonalSSM:
    generator = torch.Generator().manual_seed(seed)
    return DiagonalSSM(d_model, d_state, init=init, generator=generator).double().requires_grad_(False)


def _matched(ssm: DiagonalSSM, spectrum: TaskSpectrum, seed: int) -> DiagonalSSM:
    other = copy.deepcopy(ssm)
    match_power_spectrum_(other, spectrum, generator=torch.Generator().manual_seed(seed))
    return other


def _starts(default: DiagonalSSM, method: str, length: int, seed: int) -> dict[str, Layer]:
    """Impulse responses (H, L) of the default, and of what a half of the samples makes of it."""

    def matched(name: str) -> Layer:
        return lambda x, y: _kernels(_matched(default, estimate_task_spectrum(x, y, method=name), seed), length)

    return {"lin": lambda *_: _kernels(default, length), "flat": matched("flat"), "tdi": matched(method)}


def _kernels(ssm: DiagonalSSM, length: int) -> np.ndarray:
    return ssm.kernel(length).numpy()


def _forecast(default: DiagonalSSM, x: np.ndarray, y: np.ndarray, n_samples: int, seed: int) -> Forecast:
    """The forecast from all samples, and its range over halves of them."""
    length = x.shape[1]
    kernels = _kernels(default, length)
    spectrum = estimate_task_spectrum(x, y, method="evidence")
    matched = _kernels(_matched(default, spectrum, seed), length)
    noise = label_noise(matched, x, y)
    gain = forecast_gain(kernels, matched, spectrum, n_samples, noise)
    gains = [gain]
    generator = np.random.default_rng(seed)
    order = np.lexsort(standardize_targets(y, len(x)).T)
    pairs = len(order) // 2
    for _ in range(_N_SPLITS):
        # of two neighbors in the order of the targets one goes left, one right: both halves hold all classes
        side = generator.integers(2, size=pairs)
        left = order[2 * np.arange(pairs) + side]
        right = order[2 * np.arange(pairs) + 1 - side]
        for half in (left, right):
            found = estimate_task_spectrum(x[half], y[half], method="evidence")
            rival = _kernels(_matched(default, found, seed), length)
            gains.append(forecast_gain(kernels, rival, found, n_samples, noise))
    return Forecast(gain, min(gains), max(gains))


def _quantiles(omega: np.ndarray, importance: np.ndarray) -> tuple[float, float, float]:
    cumulative = np.cumsum(importance) / importance.sum()
    low, middle, high = (float(omega[np.searchsorted(cumulative, q)]) for q in (0.05, 0.5, 0.95))
    return low, middle, high


def _bands(omega: np.ndarray, importance: np.ndarray) -> tuple[Band, ...]:
    """The densest frequencies that hold ``_SHARE`` of the importance, neighbors joined, each bin its full width."""
    shares = importance / importance.sum()
    order = np.argsort(-shares, kind="stable")
    needed = int(np.searchsorted(np.cumsum(shares[order]), _SHARE)) + 1
    chosen = np.zeros(len(omega) + 2, bool)
    chosen[1 + order[:needed]] = True
    starts, ends = (np.flatnonzero(np.diff(chosen.astype(int)) == sign) for sign in (1, -1))
    half = np.diff(omega).mean() / 2
    return tuple(
        Band(
            float(max(omega[a] - half, 0.0)),
            float(min(omega[b - 1] + half, math.pi)),
            float(shares[a:b].sum()),
        )
        for a, b in zip(starts, ends, strict=True)
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value

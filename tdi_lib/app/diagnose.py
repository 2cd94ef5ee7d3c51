"""Is a matched start worth it on these samples? One call that asks everything the library can ask, and one answer.

Whether there is spectral structure at all is a permutation test; what is to be won is asked of held-out samples
(:func:`~tdi_lib.tdi.compare_starts`) and, for tasks of first order, of theory
(:func:`~tdi_lib.tdi.forecast_gain`). The rule that makes one word of it is :func:`recommend`. All of it looks at one
layer and its read-out; nothing is trained.
"""

import copy
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are first used
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from tdi_lib.samples import (
    SEQUENCES,
    CheckedSamples,
    evenly,
    group_members,
    lengths_of,
    positive_int,
    real_array,
    real_number,
    standardize_targets,
    understand_targets,
)
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

__all__ = [
    "Band",
    "Diagnosis",
    "Forecast",
    "Structure",
    "Usable",
    "diagnose",
    "recommend",
    "spectral_structure",
    "usable",
]

LEVEL = 0.05
_CLOSE = 0.2  # a spectral loss below it: the default hears what the task asks for
_WORTH = 0.9  # of the default's held-out miss: more is not worth a change
_MATTERS = 0.01  # of the targets' variance: a smaller difference is none, whatever its standard error
_UNSEEN = 0.1  # of the values; what leaves more unseen is said beside the verdict
_OVERLAP = 0.25  # of a sequence, at least, that neighbors share if they are windows of one recording
_GRAM = 8  # values in a row that tell a stretch of one recording
_PAIRS = 400  # of neighbors that are looked at
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
        n_groups: what samples belong to, each kept together; None if every sample is its own.
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
    n_groups: int | None
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
    groups: ArrayLike | None = None,
    task: str = "auto",
    sampling_rate: float | None = None,
    n_permutations: int = 199,
    seed: int = 0,
    d_model: int = 64,
    d_state: int = 64,
    progress: bool = False,
) -> Diagnosis:
    """Ask the samples whether a layer matched to their task is a better start than S4D-Lin.

    Args:
        x: sequences (P, L) or (P, L, D), time before channels; shorter ones end in NaN (see :func:`usable` for what
            is made of them).
        y: class labels (P,) or real targets (P,) or (P, K); :func:`~tdi_lib.samples.understand_targets` tells which.
        groups: what each sample belongs to (P,), such as its person or its recording. A group is never split, and
            targets are permuted between groups. Copies of a sample count once; windows that overlap are groups by
            themselves where none are given.
        task: ``classes`` or ``real`` overrules what the targets look like.
        sampling_rate: samples per second, for frequencies in Hz.
        n_permutations: of the targets, for the p-value.
        seed: of the permutations, the layers and the choice of samples, where there are more than 2,000.
        d_model, d_state: size of the layer.
        progress: show a bar.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> from tdi_lib.data.synthetic import four_tones
    >>> x, y = four_tones(96, amplitude=0.4, generator=np.random.default_rng(0), length=128)
    >>> found = diagnose(x, y, d_model=16, d_state=16)
    >>> found.verdict, found.structure.order, found.structure.p_value
    ('use it', 'second', 0.005)
    """
    sampling_rate = None if sampling_rate is None else real_number("sampling_rate", sampling_rate, low=1e-300)
    seed = positive_int("seed", seed, minimum=0)
    kept = _Kept.of(x, y, groups, task, seed)
    inputs, targets, members, notes = kept.inputs, kept.targets, kept.groups, kept.notes
    length, n_samples = inputs.shape[1], kept.cut or len(inputs)
    with tqdm(total=5, unit="step", disable=not progress) as bar:
        structure = spectral_structure(inputs, targets, groups=members, n_permutations=n_permutations, seed=seed)
        bar.update()
        first_order = structure.order == "first"
        method = "evidence" if first_order else "discriminative"
        spectrum = estimate_task_spectrum(inputs, targets, method=method)
        importance = estimate_task_spectrum(inputs, targets, method=method, floor=0.0).importance
        bar.update()
        named = _named_layers(inputs, spectrum, d_model, d_state, seed)
        distances = {name: spectral_loss(ssm, spectrum) for name, ssm in named.items()}
        bar.update()
        if first_order and length > _MAX_LENGTH:
            inputs, targets, members = _loudest(inputs, targets, members, notes)
        starts = _starts(named["lin"], method, inputs.shape[1], seed)
        halves = held_out_starts(starts, inputs, targets, order=structure.order, groups=members)
        pairs = (("lin", "tdi"), ("flat", "tdi"), ("lin", "flat"))
        held_out, against_flat, flat = (halves.compare(*pair) for pair in pairs)
        bar.update()
        forecast = _forecast(named["lin"], inputs, targets, members, n_samples, seed) if first_order else None
        bar.update()
    found = recommend(structure, distances, held_out, against_flat, flat, forecast, n_samples)
    return Diagnosis(
        *kept.hedged(*found),
        n_samples,
        length,
        inputs.shape[2],
        kept.n_classes,
        None if kept.groups is None else int(kept.groups.max()) + 1,
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
    matched start by more than one standard error and a hundredth of the targets' variance, or the forecast, where there
    is one, is no gain. ``use it`` if the comparison favors it by more than two, takes at least a tenth off the
    default's miss, and the forecast, where there is one, is a gain on every half of the samples. Else ``try it``. Where
    the matched start is no better but the flat bank, blind to the targets, is by more than two standard errors and that
    hundredth, ``try it`` means that bank; where both are, it is said.
    """
    step = f"{signed(held_out.difference, '.2g')} ± {held_out.standard_error:.1g} of the targets' variance"
    if structure.p_value > LEVEL:
        return (
            "do not bother",
            f"In {n_samples:,} samples the targets cannot be told from shuffled ones by their spectra "
            f"(p = {structure.p_value:.2g}).",
            "lin",
        )
    if not held_out.better or held_out.difference > -_MATTERS:
        heard = ", and the default hears it" if distances["lin"] < _CLOSE else ""
        no = "is no better" if not held_out.better else "makes no difference that matters"
        reason = f"There is structure{heard}; on held-out samples a matched start {no} ({step})"
        if flat.difference + max(2 * flat.standard_error, _MATTERS) < 0:
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


def spectral_structure(
    x: ArrayLike, y: ArrayLike, *, groups: ArrayLike | None = None, n_permutations: int = 199, seed: int = 0
) -> Structure:
    """Whether the targets know the sequences' spectra, in first or second order: a permutation test.

    The statistic is the larger of the two orders' evidences (:func:`~tdi_lib.spectrum.order_evidence`); under
    permuted targets it is taken in the same way, so that looking twice costs what it should. At most 400 samples are
    used, evenly spaced in the order of their targets. With groups a group gets the targets of another one, in their
    order, stretched to its size: few groups cannot give a small p-value, for there are few permutations.

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
    samples = CheckedSamples.of(x, y)
    codes = None if groups is None else group_members(groups, len(samples))
    if codes is not None and len(samples) > ENOUGH:
        keep = np.sort(evenly(samples.targets, ENOUGH))
        codes = np.unique(codes[keep], return_inverse=True)[1]
        samples = CheckedSamples(samples.inputs[keep], None, samples.targets[keep])
    samples = samples.at_most(ENOUGH)
    first, second = evidence_of_both(samples)
    members = None if codes is None else [np.flatnonzero(codes == each) for each in range(codes.max() + 1)]
    orders = [np.arange(len(samples))]
    for _ in range(n_permutations):
        orders.append(generator.permutation(len(samples)) if members is None else _between(members, generator))
    both = np.maximum(*evidence_of_orders(samples.inputs, samples.targets[np.array(orders)]))
    as_large = int((both[1:] >= both[0] - 1e-12).sum())
    return Structure(first, second, (1 + as_large) / (1 + n_permutations), n_permutations)


def _between(members: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Whose target each sample gets (P,) if groups exchange theirs, each group's stretched to the other's size."""
    order = np.empty(sum(map(len, members)), dtype=np.int64)
    for mine, other in zip(members, generator.permutation(len(members)), strict=True):
        theirs = members[other]
        order[mine] = theirs[np.arange(len(mine)) * len(theirs) // len(mine)]
    return order


class Usable(NamedTuple):
    """Sequences (P, L, D), their targets (P, ...), which of the samples they are (P,), and what was left out."""

    x: np.ndarray
    y: np.ndarray
    kept: np.ndarray
    notes: list[str]


def usable(x: ArrayLike, y: ArrayLike, *, task: str = "auto") -> Usable:
    """Sequences of one length, none of them constant, their targets, and notes on what was left out.

    Sequences that end in NaN are cut, all to one length, for a spectrum has one: those shorter than half of the median
    are left out, the rest cut to the shortest. What lies behind the cut is not looked at. Targets are read by
    :func:`~tdi_lib.samples.understand_targets`: codes of classes, or real ones.

    Raises:
        TypeError, ValueError: naming the argument, also if fewer than half of the samples are left.

    >>> x = np.random.default_rng(0).normal(size=(8, 20))
    >>> x[3, 16:] = np.nan
    >>> usable(x, np.arange(8) % 2).x.shape
    (8, 16, 1)
    """
    inputs = real_array("x", x, ndim=(2, 3), what=SEQUENCES, finite=False)
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    if inputs.shape[1] < 2:
        raise ValueError(f"x must hold sequences of several steps, got a length of {inputs.shape[1]}; {SEQUENCES}")
    targets, _, there = understand_targets(y, len(inputs), task=task)
    notes, kept = [], np.flatnonzero(there)
    inputs = inputs[kept]
    if len(kept) < len(there):
        notes.append(f"{len(there) - len(kept)} sequences without a target left out")
    if (lengths := lengths_of(inputs)) is not None:
        long_enough = lengths >= max(np.median(lengths) / 2, 1)
        length = int(lengths[long_enough].min())
        share = 1 - length * long_enough.sum() / lengths.sum()
        inputs, targets, kept = inputs[long_enough, :length], targets[long_enough], kept[long_enough]
        notes.append(
            f"sequences of {lengths.min()} to {lengths.max()} steps were cut to {length}"
            + (f" and {int((~long_enough).sum())} shorter ones left out" if not long_enough.all() else "")
            + f": {100 * share:.0f} % of the values are not looked at"
        )
    n_samples = len(inputs)
    inputs, varies, n_constant = _without_constant(inputs)
    if n_constant:
        notes.append(f"{n_constant} constant sequence{'s' * (n_constant > 1)} left out")
    if 2 * len(inputs) < n_samples:
        raise ValueError(f"x must hold mostly sequences that vary, got {n_constant} constant of {n_samples}")
    return Usable(inputs, targets[varies], kept[varies], notes)


@dataclasses.dataclass(frozen=True)
class _Kept:
    """The samples that are asked, what belongs together among them, and what makes the verdict less sure."""

    inputs: np.ndarray
    targets: np.ndarray
    groups: np.ndarray | None
    n_classes: int | None
    cut: int  # how many there were, where only some of them are asked
    notes: list[str]
    unseen: float  # share of the samples' values that nothing looks at
    alike: bool  # neighbors are near-copies, and nobody says what belongs together

    @classmethod
    def of(cls, x: ArrayLike, y: ArrayLike, groups: ArrayLike | None, task: str, seed: int) -> "_Kept":
        inputs, targets, kept, notes = usable(x, y, task=task)
        n_classes = len(np.unique(targets)) if targets.dtype.kind == "i" else None
        values = np.isfinite(real_array("x", x, ndim=(2, 3), what=SEQUENCES, finite=False))
        unseen = 1 - inputs.size / values.sum()
        codes = None if groups is None else group_members(groups, len(values))[kept]
        inputs, targets, codes = _without_copies(inputs, targets, codes, notes)
        alike = False
        if codes is None:
            codes, alike = overlapping(inputs, targets, notes)
        if codes is not None:
            codes = np.unique(codes, return_inverse=True)[1]
            if codes.max() == 0:
                raise ValueError(f"groups must be at least two among the {len(inputs)} usable samples, got one")
        inputs, targets, codes, cut = _enough(inputs, targets, codes, n_classes, seed, notes)
        return cls(inputs, targets, codes, n_classes, cut, notes, unseen, alike)

    def hedged(self, verdict: str, reason: str, start: str) -> tuple[str, str, str]:
        """The verdict, its reason followed by what makes it less sure."""
        if self.groups is not None and self.groups.max() < 5:
            reason += f" The samples belong to {self.groups.max() + 1} groups only, too few to tell much."
        if self.unseen > _UNSEEN:
            reason += f" {100 * self.unseen:.0f} % of the values were not looked at."
        if self.alike and verdict != "do not bother":
            reason += (
                " Neighboring samples are near-copies: unless groups say what belongs together, this may be chance."
            )
            verdict = "try it"
        return verdict, reason, start


def _without_copies(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Every sample once; a sequence that comes with several targets, or in several groups, makes a group of them."""
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
    n_samples, flat = len(inputs), np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    _, same = np.unique(flat, axis=0, return_inverse=True)
    both = np.column_stack([same.ravel(), targets.reshape(n_samples, -1)])
    _, first = np.unique(both, axis=0, return_index=True)
    keep = np.sort(first)
    if len(keep) < n_samples:
        notes.append(f"{n_samples - len(keep):,} exact copies of other samples left out")
    same = same.ravel()[keep]
    inputs, targets, groups = inputs[keep], targets[keep], None if groups is None else groups[keep]
    if (several := len(keep) - len(np.unique(same))) > 0:
        notes.append(f"{several:,} sequences come again with another target, each kept with its copies")
        groups = same if groups is None else joined(groups, same)
    return inputs, targets, groups


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The finest groups (P,) that split neither of two groupings (P,)."""
    n_first = int(first.max()) + 1
    nodes = n_first + int(second.max()) + 1
    graph = scipy.sparse.coo_array((np.ones(len(first)), (first, n_first + second)), shape=(nodes, nodes))
    return np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1][first])


def overlapping(inputs: np.ndarray, targets: np.ndarray, notes: list[str]) -> tuple[np.ndarray | None, bool]:
    """Groups (P,) of windows that overlap, or None; and whether neighbors are near-copies otherwise.

    Windows overlap if they hold the same values in a row, a quarter of their length or more, in whatever order they
    come; or, where each was scaled by itself, if one's end is its neighbor's beginning. Near-copies are neighbors that
    correlate as a shift by more than 0.98 on what they share, if others of the same target do so far less often.

    >>> path = np.random.default_rng(0).normal(size=800)
    >>> starts = np.random.default_rng(1).permutation([*range(0, 360, 20), *range(400, 760, 20)])
    >>> windows = np.stack([path[a : a + 40] for a in starts])[:, :, None]
    >>> groups, _ = overlapping(windows, np.zeros(36), [])
    >>> len(set(groups[starts < 400])), len(set(groups))
    (1, 2)
    """
    n_samples, length, _ = inputs.shape
    if n_samples < 8 or length < 8:
        return None, False
    codes = _of_one_path(inputs)
    misses = _shifted(inputs[:-1], inputs[1:])
    if np.bincount(codes)[codes].min() < 2 and np.mean(np.bincount(codes)[codes] > 1) < 0.2:
        joined = misses < 1e-6
        codes = np.concatenate([[0], np.cumsum(~joined)]) if joined.mean() > 0.2 else np.arange(n_samples)
    n_groups = int(codes.max()) + 1
    if n_groups == 1:
        notes.append("samples are overlapping windows of one recording")
        return None, True
    if n_groups < n_samples:
        notes.append(
            f"some samples are overlapping windows: {n_groups} stretches, each kept together; groups (--group COLUMN) "
            "say better what belongs together"
        )
        return codes, False
    generator = np.random.default_rng(0)
    pairs = generator.choice(n_samples - 1, min(_PAIRS, n_samples - 1), replace=False)
    near = float((misses[pairs] < 0.02).mean())
    if near < 0.2:
        return None, False
    order = np.lexsort(targets.reshape(n_samples, -1).T)
    far = order[(np.arange(n_samples) + n_samples // 7 + 2) % n_samples]  # of mostly the same target, elsewhere
    other = float((_shifted(inputs[order[pairs]], inputs[far[pairs]]) < 0.02).mean())
    if near < 2 * other + 0.1:
        return None, False
    notes.append(
        f"{100 * near:.0f} % of neighboring samples are near-copies (of others {100 * other:.0f} %): if they come from "
        "one recording, give groups (--group COLUMN)"
    )
    return None, True


def _of_one_path(inputs: np.ndarray) -> np.ndarray:
    """Codes (P,) of samples that are linked by stretches of the same values, a quarter of a sequence or more."""
    n_samples, length, n_channels = inputs.shape
    draw = np.random.default_rng(0)
    line = (inputs * draw.normal(size=n_channels)).sum(axis=2)  # (P L)
    count = length - _GRAM + 1
    # a number for every stretch of eight values, made in the same way wherever it stands
    grams = np.zeros((n_samples, count))
    for k, weight in enumerate(draw.normal(size=_GRAM)):
        grams = grams + weight * line[:, k : k + count]
    rises = (np.diff(line, axis=1) != 0).cumsum(axis=1)  # a constant stretch is no fingerprint
    moves = rises[:, _GRAM - 2 :] - np.pad(rises, ((0, 0), (1, 0)))[:, :count]  # of a stretch's seven steps
    scale = np.abs(grams).max() + 1e-300
    chosen = (moves >= _GRAM // 2) & (np.modf(np.abs(grams) / scale * 7919)[0] < min(1.0, 400 / count))
    sample, _ = np.nonzero(chosen)
    _, name = np.unique(grams[chosen], return_inverse=True)
    often = np.bincount(name)
    use = (often[name] > 1) & (often[name] <= 64)
    if not use.any():
        return np.arange(n_samples)
    holds = scipy.sparse.csr_array((np.ones(use.sum()), (sample[use], name[use])), shape=(n_samples, often.size))
    holds.data[:] = 1
    shared = (holds @ holds.T).tocoo()
    least = max(4, 0.8 * (_OVERLAP * length - _GRAM + 1) * min(1.0, 400 / count))
    links = shared.data >= least
    graph = scipy.sparse.coo_array((shared.data[links], (shared.row[links], shared.col[links])), shape=shared.shape)
    return np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1])


def _shifted(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far (P,) each sequence's end is from its partner's beginning at the best shift: 1 less the correlation."""
    length = first.shape[1]
    least = max(8, math.ceil(_OVERLAP * length))
    counts = length - np.arange(length - least + 1)  # of shared steps at every shift
    best = np.full(len(first), np.inf)
    slab = max(1, 2**22 // (4 * length * first.shape[2]))
    for begin in range(0, len(first), slab):
        part = slice(begin, begin + slab)
        a = first[part] - first[part].mean(axis=1, keepdims=True)
        b = second[part] - second[part].mean(axis=1, keepdims=True)
        size = scipy.fft.next_fast_len(2 * length, real=True)
        product = scipy.fft.rfft(a, size, axis=1) * scipy.fft.rfft(b, size, axis=1).conj()
        cross = scipy.fft.irfft(product, size, axis=1)[:, : len(counts)]  # sum over t of a[t + s] b[t]
        tail = lambda v: np.flip(np.cumsum(np.flip(v, 1), axis=1), 1)[:, : len(counts)]  # noqa: E731
        head = lambda v: np.flip(np.cumsum(v, axis=1), 1)[:, : len(counts)]  # noqa: E731
        n = counts[:, None]
        covariance = cross - tail(a) * head(b) / n
        power = [np.maximum(total(v**2) - total(v) ** 2 / n, 0) for total, v in ((tail, a), (head, b))]
        scale = np.sqrt(power[0].sum(axis=2) * power[1].sum(axis=2))
        enough = scale > 1e-6 * np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2)))[:, None]
        miss = np.where(enough, 1 - covariance.sum(axis=2) / np.maximum(scale, 1e-300), np.inf)
        best[part] = miss.min(axis=1)
    return best


def _enough(
    inputs: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray | None,
    n_classes: int | None,
    seed: int,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """The samples, or ``_MAX_SAMPLES`` of them, and then how many there were; ValueError if there are too few."""
    n_samples, least = len(inputs), max(_MIN_SAMPLES, 4 * (n_classes or 0))
    if n_samples < least:
        of = f" of {n_classes} classes" if n_classes else ""
        why = "; if the targets are real, say task='real' (--task real)" if (n_classes or 0) > 4 else ""
        raise ValueError(
            f"x must hold at least {least} usable samples{of}, for each half tests the other, got {n_samples}{why}"
        )
    if n_samples <= _MAX_SAMPLES:
        return inputs, targets, groups, 0
    notes.append(f"the spectrum is taken from {_MAX_SAMPLES:,} of the {n_samples:,} samples, chosen at random")
    keep = np.sort(np.random.default_rng(seed).choice(n_samples, _MAX_SAMPLES, replace=False))
    codes = None if groups is None else np.unique(groups[keep], return_inverse=True)[1]
    return inputs[keep], targets[keep], codes, n_samples


def _loudest(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The window of ``_MAX_LENGTH`` steps of highest first-order evidence; at most 32 are looked at."""
    length = inputs.shape[1]
    last = length - _MAX_LENGTH
    starts = np.unique(np.linspace(0, last, min(32, 1 + -(-last // (_MAX_LENGTH // 2)))).astype(int))
    windows, evidence = [], []
    for start in starts:
        window, kept, _ = _without_constant(inputs[:, start : start + _MAX_LENGTH])
        enough = len(window) >= max(_MIN_SAMPLES, len(inputs) // 2)
        windows.append((window, targets[kept], None if groups is None else groups[kept]))
        evidence.append(order_evidence(window, targets[kept])[0] if enough else -math.inf)
    best = int(np.argmax(evidence))
    notes.append(
        f"forecast and held-out comparison look at {_MAX_LENGTH} of the {length:,} steps, from {starts[best]:,} on, "
        "where the wave form says most about the targets"
    )
    return windows[best]


def _without_constant(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    varies = (np.ptp(inputs, axis=1) > 0).any(axis=1)
    return inputs[varies], np.flatnonzero(varies), int((~varies).sum())


def _named_layers(
    inputs: np.ndarray, spectrum: TaskSpectrum, d_model: int, d_state: int, seed: int
) -> dict[str, DiagonalSSM]:
    """The common initializations, the flat bank and the matched layer."""
    named = {name: _layer(d_model, d_state, seed, name) for name in _NAMED}
    named["flat"] = _matched(named["lin"], estimate_task_spectrum(inputs, method="flat"), seed)
    return named | {"tdi": _matched(named["lin"], spectrum, seed)}


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


def _forecast(
    default: DiagonalSSM, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, n_samples: int, seed: int
) -> Forecast:
    """The forecast from all samples, and its range over halves of them."""
    length = x.shape[1]
    kernels = _kernels(default, length)
    spectrum = estimate_task_spectrum(x, y, method="evidence")
    matched = _kernels(_matched(default, spectrum, seed), length)
    noise = label_noise(matched, x, y)
    gain = forecast_gain(kernels, matched, spectrum, n_samples, noise)
    gains = [gain]
    generator = np.random.default_rng(seed)
    codes = np.arange(len(x)) if groups is None else np.unique(groups, return_inverse=True)[1]
    target = standardize_targets(y, len(x))
    sizes = np.bincount(codes)
    order = np.lexsort([np.bincount(codes, column) / sizes for column in target.T])  # of groups by their mean target
    pairs = len(order) // 2
    for _ in range(_N_SPLITS):
        # of two neighbors in the order of the targets one goes left, one right: both halves hold all classes
        side = generator.integers(2, size=pairs)
        left = order[2 * np.arange(pairs) + side]
        right = order[2 * np.arange(pairs) + 1 - side]
        for half in (np.isin(codes, left), np.isin(codes, right)):
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

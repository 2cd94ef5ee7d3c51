r"""Which initialization? Ask the labels: by held-out closed form, by the evidence of untrained models, or by a race.

No initialization is the best for all tasks: the best resolution of the filters differs between tasks by more than ten
times, and the wrong one costs as much as the right one brings. :func:`choose_start` compares several on the samples
at hand and keeps the default unless another is better by a margin; :func:`named_starts` has those of this library.

Shapes: ``P`` samples, ``L`` time, ``D`` input channels, ``K`` classes or targets.
"""

import contextlib
import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are first used
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from tdi_lib.readout import ridge_readout_
from tdi_lib.samples import check_lengths, instance_of, one_of, positive_int, real_array, real_number
from tdi_lib.tdi import flat_init_, gains_init_, tdi_init_
from tdi_lib.training import fit

__all__ = ["MARGINS", "Candidate", "Choice", "choose_start", "named_starts", "start_evidence"]

Start = Callable[..., nn.Module]
"""Of samples ``(x, y)``, and their lengths if any is padded, to a model that is initialized for them."""

MARGINS = {"readout": 0.03, "evidence": 0.02, "race": 0.02}
"""Nats a sample by which a start must be better than the default, by method. Chosen on activities, ecg5000 and forda at
50 and 200 examples (``benchmarks/choice.py``). By ``readout`` in three folds no choice there was worse than the
default, at any of the margins from .02 to .1. By ``evidence`` and ``race`` some were, and no such margin prevents it.
"""

# ---- what was found ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One start that was considered.

    Attributes:
        name: its key in ``starts``.
        loss: nats a sample, less is better; what of, says ``method`` of the :class:`Choice`.
        gain: loss of the default less its own, nats a sample.
        error: standard error of the gain, over samples in pairs, or over groups.
        seconds: wall time that it took.
    """

    name: str
    loss: float
    gain: float
    error: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """What :func:`choose_start` found. As a text it is a small table.

    Attributes:
        winner: name of the start that was chosen.
        why: one sentence.
        candidates: every start that was considered, in their order, the default first.
        model: the winner, built on all samples. By ``readout`` its decoder is set, too; by ``race`` it is untrained.
        method: as it was used.
        margin: as it was used.
        seconds: wall time.
    """

    winner: str
    why: str
    candidates: tuple[Candidate, ...]
    model: nn.Module
    method: str
    margin: float
    seconds: float

    def __str__(self) -> str:
        width = max(len(each.name) for each in self.candidates)
        lines = [f"  {'start':{width}}   loss     gain    error  seconds"]
        for each in self.candidates:
            mark = "*" if each.name == self.winner else " "
            numbers = f"{each.loss:6.3f}  {each.gain:+7.3f}  {each.error:7.3f}  {each.seconds:7.1f}"
            lines.append(f"{mark} {each.name:{width}} {numbers}")
        return "\n".join([*lines, self.why])


# ---- starts by name ------------------------------------------------------------------------------


def named_starts(make_model: Callable[[torch.Generator], nn.Module], *, seed: int = 0) -> dict[str, Start]:
    """The starts of this library for a model, the default first.

    ``default``; ``gains`` (:func:`~tdi_lib.tdi.gains_init_`); the ``flat`` bank at three resolutions and at mixed ones
    (:func:`~tdi_lib.tdi.flat_init_`); ``matched`` at the resolutions that the task scalogram finds (``auto``) and at
    the same three (:func:`~tdi_lib.tdi.tdi_init_`); and a ``half`` of the channels matched for a long memory, the
    other half as by default.

    Args:
        make_model: of a generator to the model, drawn from it. All starts begin with the same draw.
        seed: of the generator.

    >>> from tdi_lib import SequenceModel
    >>> starts = named_starts(lambda generator: SequenceModel(1, 2, d_model=8, d_state=8, generator=generator))
    >>> list(starts)[:3]
    ['default', 'gains', 'flat 0.2']
    """
    if not callable(make_model):
        raise TypeError(f"make_model must be a function of a generator, got {type(make_model).__name__}")
    seed = positive_int("seed", seed, minimum=0)

    def start(
        change: Callable[..., Any] | None, labels: bool, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None
    ) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        model = make_model(generator)
        if change is not None:
            given = (x, y) if labels else (x,)
            change(model, *given, lengths=lengths, **({} if change is gains_init_ else {"generator": generator}))
        return model

    unlabeled: dict[str, Callable[..., Any] | None] = {"default": None, "gains": gains_init_}
    unlabeled |= {f"flat {each}": functools.partial(flat_init_, resolutions=each) for each in _RESOLUTIONS}
    unlabeled |= {"flat mixed": functools.partial(flat_init_, resolutions="auto")}
    labeled: dict[str, Callable[..., Any]] = {"matched auto": functools.partial(tdi_init_, resolutions="auto")}
    labeled |= {f"matched {d}": functools.partial(tdi_init_, resolutions=d) for d in _RESOLUTIONS}
    slow = _RESOLUTIONS[-1]
    labeled |= {f"half {slow}": functools.partial(tdi_init_, resolutions=slow, share=0.5)}
    starts: dict[str, Start] = {name: functools.partial(start, each, False) for name, each in unlabeled.items()}
    return starts | {name: functools.partial(start, each, True) for name, each in labeled.items()}


_RESOLUTIONS = (0.2, 0.05, 0.008)  # the last remembers more than a hundred steps

# ---- choosing ------------------------------------------------------------------------------------


def choose_start(
    starts: Mapping[str, Start],
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    method: str = "readout",
    folds: int = 3,
    steps: int = 50,
    margin: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Choice:
    """Choose one of several initializations by the samples that the model will be trained on.

    ``readout`` trains nothing: of every fold of the samples, each start is built on the others, its decoder is set
    there in closed form (:func:`~tdi_lib.readout.ridge_readout_`), and the log loss of the fold itself is taken. No
    start has seen a label that it is judged by. The model needs a linear ``decoder``; the wider it is, and with
    ``pooling="statistics"``, the more a closed form tells.

    Both ``readout`` and ``evidence`` ask at most about 400 of the samples.

    ``evidence`` trains nothing either and takes about a second a start: :func:`start_evidence` of all samples. A start
    that has looked at the labels has looked at those that it is judged by.

    ``race`` trains :class:`~tdi_lib.ssm.SequenceModel`: a fifth of the samples is held out, all starts take half of the
    steps, the default and the better half of the others take the rest, and the log loss of the fifth is compared
    (AdamW begins anew at half-time). Eleven starts and 50 steps cost 425 steps, those of one short training.

    Args:
        starts: by name, functions of samples, ``start(x, y)``, that return an initialized model; the same samples must
            give the same model. The first is the default, which is kept unless another is better by the margin.
        x, y: *training* samples: sequences (P, L, D), class labels (P,) or real targets (P,) or (P, K). The log loss of
            real targets is that of a normal law; its variance is the one left out in the training part, and in a race
            the default's own at half-time.
        groups: of every sample (P,), such as its speaker: a group is held out as a whole.
        lengths: (P,) of sequences that are padded at their ends; starts are then called as ``start(x, y, lengths)``.
        method: ``readout``, ``evidence`` or ``race``.
        folds: of ``readout``: parts that the samples are divided into, classes keeping their shares.
        steps: of ``race``: AdamW's, of those that reach the end.
        margin: nats a sample by which another must be better than the default; None for that of :data:`MARGINS`.
        seed: of the division into folds, and of the order of a race's batches.
        progress: show a bar.

    Raises:
        TypeError, ValueError: naming the argument. What a start raises comes through, with a note of its name.

    Two lines choose and train::

        report = choose_start(named_starts(make_model), x, y)
        fit(report.model, x, y, x_val=x_val, y_val=y_val)

    >>> from tdi_lib import SequenceModel
    >>> def make(generator):
    ...     return SequenceModel(1, 2, d_model=8, d_state=8, n_layers=1, pooling="statistics", generator=generator)
    >>> t, rng = np.arange(64), np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> x = np.sin(np.where(y, 2.0, 2.1)[:, None] * t + 6 * rng.random((60, 1))) + rng.normal(size=(60, 64))
    >>> starts = named_starts(make)
    >>> two = {name: starts[name] for name in ("default", "matched 0.05")}
    >>> choose_start(two, x[:, :, None], y, progress=False).winner
    'matched 0.05'
    """
    begin = time.perf_counter()
    task = _Task.of(starts, x, y, groups, lengths)
    method = one_of("method", method, tuple(MARGINS))
    margin = MARGINS[method] if margin is None else real_number("margin", margin, low=0.0)
    folds, steps = positive_int("folds", folds, minimum=2), positive_int("steps", steps, minimum=2)
    seed = positive_int("seed", seed, minimum=0)
    rng = np.random.default_rng(seed)
    if method == "readout":
        asked = task.some(folds, rng)
        measured = _cross_fitted(asked, asked.divided(folds, rng), progress)
    elif method == "evidence":
        measured = _under_evidence(task.some(1, rng), progress)
    else:
        measured = _raced(task, steps, seed, progress)
    candidates = _candidates(*measured)
    winner = _winner(candidates, margin)
    model = task.build(winner, task.all)
    if method == "readout":
        ridge_readout_(model, task.x, task.y, groups=task.groups, lengths=task.lengths)
    why = _why(candidates, winner, margin, _LOSSES[method])
    return Choice(winner, why, candidates, model, method, margin, time.perf_counter() - begin)


_LOSSES = {
    "readout": "log loss, held out,",
    "evidence": "log loss by the evidence",
    "race": "log loss after a few steps",
}


def _winner(candidates: tuple[Candidate, ...], margin: float) -> str:
    default, *others = candidates
    best = min(others, key=lambda each: each.loss, default=default)
    return best.name if best.gain > margin else default.name


def _why(candidates: tuple[Candidate, ...], winner: str, margin: float, what: str) -> str:
    default, *others = candidates
    if not others:
        return f"{winner}: there is no other."
    best = min(others, key=lambda each: each.loss)
    found = f"{best.gain:.3f} ± {best.error:.3f} nats a sample, the margin {margin:g}"
    if winner == default.name:
        return f"{winner} is kept: the {what} of {best.name}, the best other, is lower by {found}."
    return f"{winner}: its {what} is the lowest, below that of {default.name} by {found}."


@dataclasses.dataclass(frozen=True)
class _Task:
    """Starts and samples, checked; the padding of ``x`` is zero."""

    starts: dict[str, Start]
    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    lengths: np.ndarray | None

    @classmethod
    def of(
        cls,
        starts: Mapping[str, Start],
        x: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None,
        lengths: ArrayLike | None,
    ) -> "_Task":
        instance_of("starts", starts, Mapping)
        if not starts or not all(isinstance(name, str) and callable(each) for name, each in starts.items()):
            raise TypeError(f"starts must map names to functions, got {dict(starts)!r}")
        inputs = real_array("x", x, ndim=(2, 3, 4), what="samples (P, ...)", finite=False)
        target = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
        real_array("y", target, ndim=(1, 2), what="labels (P,) or targets (P, K)")
        names = None if groups is None else np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)
        for argument, value in (("y", target), ("groups", names)):
            if value is not None and len(value) != len(inputs):
                raise ValueError(f"{argument} must be as many as x ({len(inputs)}), got shape {value.shape}")
        ends = check_lengths(inputs, lengths, minimum=1)
        if ends is not None:
            inputs[np.arange(inputs.shape[1]) >= ends[:, None]] = 0.0
        real_array("x", inputs, ndim=(2, 3, 4), what="samples (P, ...)")
        return cls(dict(starts), inputs, target, names, ends)

    @property
    def all(self) -> np.ndarray:
        return np.arange(len(self.x))

    @property
    def labels(self) -> np.ndarray | None:
        """Class labels (P,), None for real targets."""
        return None if self.y.dtype.kind == "f" else self.y

    @functools.cached_property
    def members(self) -> np.ndarray:
        """The number of every sample's group (P,); each its own without groups."""
        return self.all if self.groups is None else np.unique(self.groups, return_inverse=True)[1]

    def part(self, index: np.ndarray) -> dict[str, Any]:
        """What :func:`~tdi_lib.readout.ridge_readout_` takes, of some samples."""
        chosen = {"x": self.x[index], "y": self.y[index]}
        for name, value in (("groups", self.groups), ("lengths", self.lengths)):
            chosen[name] = None if value is None else value[index]
        return chosen

    def build(self, name: str, index: np.ndarray) -> nn.Module:
        """A start on some samples."""
        ends = () if self.lengths is None else (self.lengths[index],)
        try:
            model = self.starts[name](self.x[index], self.y[index], *ends)
        except Exception as error:
            error.add_note(f"while {name!r} of starts was built on {len(index)} samples")
            raise
        instance_of(f"starts[{name!r}]", model, nn.Module)
        return model

    def columns(self, n_outputs: int) -> np.ndarray:
        """Centered targets (P, K): one-hot, or real ones of unit variance."""
        if self.labels is not None:
            if self.y.ndim > 1 or self.y.min() < 0 or self.y.max() >= n_outputs:
                raise ValueError(f"y must be class labels (P,) in [0, {n_outputs - 1}], the model's outputs")
            target = np.eye(n_outputs)[self.y.astype(int)]
        else:
            target = self.y.reshape(len(self.y), -1).astype(float)
            if target.shape[1] != n_outputs:
                raise ValueError(f"y must have the shape of the model's output (P, {n_outputs}), got {target.shape}")
            target = target / np.maximum(target.std(axis=0), 1e-300)
        if not np.ptp(target, axis=0).any():
            raise ValueError("y must hold targets that differ, got constant ones")
        return np.asarray(target - target.mean(axis=0))

    def divided(self, n_parts: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Indices of parts that keep groups together and classes in their shares as well as that allows."""
        codes = np.zeros(len(self.x), int) if self.labels is None else np.unique(self.labels, return_inverse=True)[1]
        n_groups = self.members.max() + 1
        if n_groups < n_parts:
            raise ValueError(f"folds must be at most the {n_groups} groups or samples, got {n_parts}")
        counts = np.zeros((n_groups, codes.max() + 1))  # (G K)
        np.add.at(counts, (self.members, codes), 1)
        shares = counts / counts.sum(axis=0)
        drawn = rng.permutation(n_groups)
        # large groups first, while there is room to even them out; then class by class
        order = drawn[np.lexsort((shares[drawn].argmax(axis=1), -counts[drawn].sum(axis=1)))]
        filled, home = np.zeros((n_parts, counts.shape[1])), np.zeros(n_groups, int)
        for group in order:
            crowd = ((filled + shares[group]) ** 2 - filled**2).sum(axis=1)
            home[group] = np.lexsort((filled.sum(axis=1), crowd.round(12)))[0]
            filled[home[group]] += shares[group]
        return [np.flatnonzero(home[self.members] == part) for part in range(n_parts)]

    def some(self, folds: int, rng: np.random.Generator) -> "_Task":
        """At most about :data:`_ENOUGH` of the samples, whole groups of them, classes in their shares."""
        n_parts = min(math.ceil(len(self.x) / _ENOUGH), (self.members.max() + 1) // folds)
        if n_parts < 2:
            return self
        return dataclasses.replace(self, **self.part(self.divided(n_parts, rng)[0]))


def _candidates(losses: dict[str, np.ndarray], seconds: dict[str, float], members: np.ndarray) -> tuple[Candidate, ...]:
    """Every start's loss (B,) of some samples, held against the first one's; and the number of every sample's group."""
    default = next(iter(losses.values()))
    found = []
    for name, each in losses.items():
        with np.errstate(invalid="ignore"):  # one that diverged has infinite losses, and no error
            gains = default - each
            sums = np.bincount(members, gains - gains.mean())  # of every group
        n_groups = len(np.unique(members))
        error = math.sqrt((sums**2).sum() * n_groups / max(n_groups - 1, 1)) / len(gains)
        found.append(Candidate(name, float(each.mean()), float(gains.mean()), error, seconds[name]))
    return tuple(found)


_ENOUGH = 400  # samples that are asked where nothing is trained


# ---- the read-out in closed form -----------------------------------------------------------------


def _cross_fitted(
    task: _Task, parts: list[np.ndarray], progress: bool
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    """Log loss of every sample (P,), held out, under every start; its seconds; the samples' groups."""
    losses = {name: np.zeros(len(task.x)) for name in task.starts}
    seconds = dict.fromkeys(task.starts, 0.0)
    with tqdm(total=len(parts) * len(task.starts), unit="fit", disable=not progress) as bar:
        for held_out in parts:
            rest = np.setdiff1d(task.all, held_out)
            for name in task.starts:
                begin = time.perf_counter()
                bar.set_postfix_str(name, refresh=False)
                model = task.build(name, rest)
                found = ridge_readout_(model, **task.part(rest))
                outputs = np.concatenate(list(_outputs(model, task.part(held_out))))
                losses[name][held_out] = _log_loss(outputs, task.y[held_out], found.loss)
                seconds[name] += time.perf_counter() - begin
                bar.update()
    return losses, seconds, task.members


@torch.no_grad()
def _outputs(model: nn.Module, part: dict[str, Any], batch_size: int = 64) -> Iterator[np.ndarray]:
    """Outputs (B, K) of the model in evaluation mode."""
    parameter = next(model.parameters())
    inputs, ends = part["x"], part["lengths"]
    model.eval()
    for first in range(0, len(inputs), batch_size):
        some = slice(first, first + batch_size)
        given = [torch.as_tensor(inputs[some]).to(parameter)]
        if ends is not None:
            given.append(torch.as_tensor(ends[some]).to(parameter.device))
        yield model(*given).double().cpu().numpy()


def _log_loss(outputs: np.ndarray, y: np.ndarray, variance: float) -> np.ndarray:
    """Nats of every sample (P,): of class labels under logits, or of real targets under a normal law."""
    if y.dtype.kind != "f":
        return -np.asarray(scipy.special.log_softmax(outputs, axis=1))[np.arange(len(y)), y.astype(int)]
    misses = (y.reshape(outputs.shape) - outputs) ** 2
    return np.asarray(0.5 * (misses / variance + math.log(2 * math.pi * variance)).sum(axis=1))


# ---- evidence of an untrained model --------------------------------------------------------------


_RIDGES = 10.0 ** np.arange(-5, 3.1, 0.5)  # relative to the kernel's mean eigenvalue
_SHARED = np.array([0.0, 0.01, 0.1, 1.0, 10.0])  # what the samples of a group have in common, the same
_DIRECTIONS = 4  # gradients of a sample at most
_BUDGET = 2**25  # numbers of gradients held at once
_EPS = 1e-8  # AdamW's
_RATES = (5e-3, 1e-3)  # as for fit
_TOGETHER = 16  # samples through the model at once


def start_evidence(
    model: nn.Module,
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    lr: float = _RATES[0],
    ssm_lr: float = _RATES[1],
    batch_size: int = _TOGETHER,
    seed: int = 0,
) -> float:
    r"""Log evidence of the targets under the untrained model, nats a sample more than a constant has.

    A network that is trained a little is, to first order, kernel regression with the kernel of its gradients g (NTK,
    arXiv 1806.07572). AdamW moves a parameter at its learning rate over its root mean square gradient, so the kernel is

    .. math:: K_{ij} = \sum_p \frac{\mathrm{lr}_p}{\mathrm{rms}(g_p) + \epsilon}\, g_{ip}\, g_{jp} .

    The targets are a Gaussian process of this covariance, noise, and a constant of which nothing is known; the evidence
    is that of the best ridge and scale. Zero says that the model explains nothing. Class labels are one-hot; a number
    that is added to all logits changes nothing and counts for nothing.

    The outputs share one kernel, their mean. Gradients are taken of at most four combinations of the outputs, random
    and orthonormal where there are more of them. Gradients of as many samples as fit into 256 MiB are held at once;
    where there are more, those of each pair of blocks are taken anew, so that memory is P² and a few blocks.

    Args:
        model: any module that returns a vector per sample, ``model(x)`` or ``model(x, lengths)``, and treats samples
            one by one; left as it is. Parameters that need no gradient do not count. The rates are those of its
            ``parameter_groups(lr, ssm_lr)`` if it has them (:meth:`~tdi_lib.ssm.SequenceModel.parameter_groups`).
        x, y: samples (P, ...), class labels (P,) or real targets (P,) or (P, K).
        groups: of every sample (P,): what the samples of a group have in common may then be the group's own, and
            neither the model nor a constant is credited with it.
        lengths: (P,) of sequences that are padded at their ends.
        lr, ssm_lr: as for :func:`~tdi_lib.training.fit`.
        batch_size: samples that go through the model at once.
        seed: of the combinations of more than five classes, or four real targets.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> from tdi_lib import SequenceModel
    >>> rng = np.random.default_rng(0)
    >>> x, model = rng.normal(size=(60, 30, 1)), SequenceModel(1, 2, d_model=8, d_state=8, n_layers=1)
    >>> slow = (x.sum(axis=(1, 2)) > 0).astype(int)
    >>> start_evidence(model, x, slow) > start_evidence(model, x, rng.permutation(slow))
    True
    """
    task = _Task.of({"model": lambda *_: model}, x, y, groups, lengths)
    rates = real_number("lr", lr, low=0.0), real_number("ssm_lr", ssm_lr, low=0.0)
    batch_size, seed = positive_int("batch_size", batch_size), positive_int("seed", seed, minimum=0)
    gradients = _Gradients(model, task, rates, batch_size, seed)
    return _evidence(gradients, task)[0]


class _Gradients:
    """Gradients of a model, sample by sample, and the kernel that they make as AdamW scales them."""

    def __init__(
        self, model: nn.Module, task: _Task, rates: tuple[float, float], batch_size: int, seed: int = 0
    ) -> None:
        instance_of("model", model, nn.Module)
        skeleton = copy.deepcopy(model).eval()
        if hasattr(skeleton, "forward_unchecked"):  # without a look at values, which vmap does not allow
            skeleton.forward = skeleton.forward_unchecked  # type: ignore[assignment]
        self.skeleton, self.batch_size = skeleton, batch_size
        self.parameters = {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}
        if not self.parameters:
            raise ValueError("model must have parameters that need a gradient, got none")
        each = [np.full(self.parameters[name].numel(), rate) for name, rate in _rates(model, *rates).items()]
        self.rates = torch.as_tensor(np.concatenate(each))  # (n)
        first = next(iter(self.parameters.values()))
        self.inputs = [torch.as_tensor(task.x).to(first)]  # (P ...)
        if task.lengths is not None:
            self.inputs.append(torch.as_tensor(task.lengths).to(first.device))
        outputs = self._outputs()
        self.target, directions = _contrasts(task, outputs, np.random.default_rng(seed))  # (P M), (M K)
        self.whole = len(directions) == self.target.shape[1]
        self.directions = torch.as_tensor(directions).to(first)
        self.cotangents = torch.as_tensor(self.target if self.whole else task.columns(outputs)).to(first)

    def _outputs(self) -> int:
        with torch.no_grad():
            output = self.skeleton(*(part[:2] for part in self.inputs))
        if not isinstance(output, Tensor) or output.ndim != 2:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"model must return one vector per sample (B, K), got {shape}")
        return output.shape[1]

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of some samples in every direction (B M n), and along their own targets (B n)."""

        def directed(parameters: dict[str, Tensor], cotangent: Tensor, *sample: Tensor) -> Tensor:
            batch = tuple(each[None] for each in sample)
            output = torch.func.functional_call(self.skeleton, parameters, batch)[0]  # (K)
            found = self.directions @ output
            return found if self.whole else torch.cat([found, (cotangent @ output)[None]])

        jacobian = torch.func.vmap(
            torch.func.jacrev(directed), in_dims=(None, 0, *(0 for _ in self.inputs)), chunk_size=self.batch_size
        )(self.parameters, self.cotangents[index], *(part[index] for part in self.inputs))
        rows = torch.cat([each.flatten(2) for each in jacobian.values()], dim=2).double().cpu()  # (B M n)
        if self.whole:
            return rows, torch.einsum("bmn,bm->bn", rows, torch.as_tensor(self.target)[index])
        return rows[:, :-1], rows[:, -1]

    def kernel(self) -> np.ndarray:
        """Covariance of the outputs (P, P), the mean over directions, less the mean over samples."""
        n_samples, n_parameters = len(self.inputs[0]), len(self.rates)
        size = max(1, _BUDGET // ((len(self.directions) + 1) * n_parameters))
        blocks = torch.arange(n_samples).split(size)
        rows = functools.lru_cache(maxsize=1)(lambda number: self.rows(blocks[number]))
        mean = torch.zeros(len(self.directions), n_parameters, dtype=torch.float64)
        square = torch.zeros(n_parameters, dtype=torch.float64)
        for number in range(len(blocks)):
            each, own = rows(number)
            mean += each.sum(dim=0) / n_samples
            square += own.square().sum(dim=0) / n_samples
        scale = (self.rates / (square.sqrt() + _EPS)).sqrt()
        kernel = np.zeros((n_samples, n_samples))
        for first in range(len(blocks)):
            left = ((rows(first)[0] - mean) * scale).flatten(1)  # (B M n)
            for second in range(first, len(blocks)):
                right = left if first == second else ((rows(second)[0] - mean) * scale).flatten(1)
                found = (left @ right.T / len(self.directions)).numpy()
                kernel[np.ix_(blocks[first], blocks[second])] = found
                kernel[np.ix_(blocks[second], blocks[first])] = found.T
        return kernel


def _rates(model: nn.Module, lr: float, ssm_lr: float) -> dict[str, float]:
    """The learning rate of every parameter that learns."""
    known: dict[int, float] = {}
    if hasattr(model, "parameter_groups"):
        divided: Any = model.parameter_groups
        known = {id(parameter): group["lr"] for group in divided(lr, ssm_lr) for parameter in group["params"]}
    return {name: known.get(id(each), lr) for name, each in model.named_parameters() if each.requires_grad}


def _contrasts(task: _Task, n_outputs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Targets in an orthonormal basis (P, M), and the combinations of outputs of which gradients are taken."""
    target = task.columns(n_outputs)
    basis = np.eye(n_outputs)
    if task.labels is not None:
        centered = np.eye(n_outputs) - 1 / n_outputs
        basis = np.linalg.svd(centered)[0][:, :-1].T  # (K-1 K)
    directions = basis
    if len(basis) > _DIRECTIONS:
        directions = np.linalg.qr(rng.normal(size=(len(basis), _DIRECTIONS - 1)))[0].T @ basis
    return target @ basis.T, directions


def _explained(kernel: np.ndarray, target: np.ndarray, together: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Log evidence of centered targets (P, M) under a kernel of mean diagonal one, or none, and the best covariance.

    It is that of what is orthogonal to the constant, of which nothing is known. Centering makes the constant a mode of
    eigenvalue zero: that one, the smallest, is left out.
    """
    n_samples, n_targets = target.shape
    free = (n_samples - 1) * n_targets
    best, covariance = -math.inf, kernel
    for share in _SHARED if together is not None else _SHARED[:1]:
        whole = kernel if together is None else kernel + share * together
        centered = whole - whole.mean(axis=0)
        values, axes = np.linalg.eigh(centered - centered.mean(axis=1, keepdims=True))
        power = ((axes.T @ target) ** 2).sum(axis=1)  # (P)
        spreads = np.maximum(values, 0) + _RIDGES[:, None]  # (R P)
        scales = (power / spreads).sum(axis=1) / free  # the best ones
        log_det = np.log(spreads[:, 1:]).sum(axis=1)
        found = -0.5 * (free * (1 + np.log(2 * np.pi * scales)) + n_targets * log_det)
        top = found.argmax()
        if found[top] > best:
            best, covariance = float(found[top]), scales[top] * (whole + _RIDGES[top] * np.eye(n_samples))
    return best, covariance


def _evidence(gradients: _Gradients, task: _Task) -> tuple[float, np.ndarray]:
    """Log evidence over that of a constant, nats a sample; and what every sample adds to it (P,).

    A sample adds the logarithm of its density once those before it are known, in a random order.
    """
    kernel, target = gradients.kernel(), gradients.target
    together = None if task.groups is None else (task.members[:, None] == task.members).astype(float)
    kernel = kernel / max(np.trace(kernel) / len(kernel), 1e-300)
    totals, shares = [], []
    order = np.random.default_rng(0).permutation(len(target))
    for each in (kernel, np.zeros_like(kernel)):
        total, covariance = _explained(each, target, together)
        known = covariance[np.ix_(order, order)] + _VAGUE * target.var()
        root = np.linalg.cholesky(known)
        surprise = scipy.linalg.solve_triangular(root, target[order], lower=True)
        share = np.empty(len(target))
        share[order] = -0.5 * (surprise**2).sum(axis=1) - target.shape[1] * np.log(np.diag(root))
        totals.append(total / len(target))
        shares.append(share)
    return totals[0] - totals[1], shares[0] - shares[1]


_VAGUE = 1e6  # variance of the constant, relative to the targets'


def _under_evidence(task: _Task, progress: bool) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    """What every sample (P,) takes from the log evidence of every start; its seconds; the samples' groups."""
    losses, seconds = {}, {}
    for name in tqdm(task.starts, unit="start", disable=not progress):
        begin = time.perf_counter()
        gradients = _Gradients(task.build(name, task.all), task, _RATES, _TOGETHER)
        losses[name] = -_evidence(gradients, task)[1]
        seconds[name] = time.perf_counter() - begin
    return losses, seconds, task.members


# ---- a race --------------------------------------------------------------------------------------


def _raced(
    task: _Task, steps: int, seed: int, progress: bool
) -> tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]:
    """Log loss of the validation samples (B,) under every start after its steps; its seconds; the samples' groups.

    Half of the steps for all, the other half for the better half of them, and for the default.
    """
    held_out, *others = task.divided(_FIFTH, np.random.default_rng(seed))
    rest, half = np.sort(np.concatenate(others)), -(-steps // 2)
    part, validation = task.part(rest), task.part(held_out)
    given = {"x": part["x"], "y": part["y"], "lengths": part["lengths"], "evaluate_every": half, "max_steps": half}
    given |= {f"{name}_val": validation[name] for name in ("x", "y", "lengths")}
    seconds, models = dict.fromkeys(task.starts, 0.0), dict[str, Any]()
    losses: dict[str, np.ndarray] = {}
    default, *rivals = task.starts
    variance = 1.0
    with tqdm(total=half * (len(rivals) + 2 + (len(rivals) + 1) // 2), unit="step", disable=not progress) as bar:
        for leg in range(2):
            for name in [default, *rivals]:
                bar.set_postfix_str(name, refresh=False)
                begin = time.perf_counter()
                if leg == 0:
                    models[name] = task.build(name, rest)
                with contextlib.suppress(FloatingPointError):  # one that diverged is as it was
                    fit(models[name], **given, seed=seed + leg, progress=False)
                outputs = np.concatenate(list(_outputs(models[name], validation)))
                if leg == 0 and name == default and task.labels is None:
                    variance = float(np.mean((validation["y"].reshape(outputs.shape) - outputs) ** 2))
                found = _log_loss(outputs, validation["y"], variance)
                losses[name] = np.where(np.isnan(found), math.inf, found)
                seconds[name] += time.perf_counter() - begin
                bar.update(half)
            rivals = sorted(rivals, key=lambda name: losses[name].mean())[: (len(rivals) + 1) // 2]
    return losses, seconds, task.members[held_out]


_FIFTH = 5

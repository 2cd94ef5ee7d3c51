r"""Which initialization? Ask the labels: by held-out closed form, by the evidence of untrained models, or by a race.

No initialization is the best for all tasks: the best resolution of the filters differs between tasks by more than ten
times, and the wrong one costs as much as the right one brings. :func:`choose_start` compares several on the samples
at hand and keeps the default unless another is better by a margin; :func:`named_starts` has those of this library.

Shapes: ``P`` samples, ``L`` time, ``D`` input channels, ``K`` classes or targets.
"""

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

__all__ = ["MARGINS", "Candidate", "Choice", "choose_start", "named_starts"]

Start = Callable[..., nn.Module]
"""Of samples ``(x, y)``, and their lengths if any is padded, to a model that is initialized for them."""

MARGINS = {"readout": 0.02}
"""Of every method, the nats a sample by which a start must be better than the default."""

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
        method, margin: as they were used.
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
    (:func:`~tdi_lib.tdi.flat_init_`); ``matched`` with the decay that suits none in particular, at the resolutions that
    the task scalogram finds (``auto``), and at three fixed ones (:func:`~tdi_lib.tdi.tdi_init_`); and a ``half`` of
    the channels matched for a long memory, the other half as by default.

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
    labeled: dict[str, Callable[..., Any]] = {
        "matched": tdi_init_,
        "matched auto": functools.partial(tdi_init_, resolutions="auto"),
    }
    labeled |= {f"matched {each}": functools.partial(tdi_init_, resolutions=each) for each in _RESOLUTIONS}
    slow = _RESOLUTIONS[-1]
    labeled |= {f"half {slow}": functools.partial(tdi_init_, resolutions=slow, share=0.5)}
    starts: dict[str, Start] = {name: functools.partial(start, each, False) for name, each in unlabeled.items()}
    return starts | {name: functools.partial(start, each, True) for name, each in labeled.items()}


_RESOLUTIONS = (0.2, 0.05, 0.008)

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
    margin: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Choice:
    """Choose one of several initializations by the samples that the model will be trained on.

    ``readout`` trains nothing: of every fold of the samples, each start is built on the others, its decoder is set
    there in closed form (:func:`~tdi_lib.readout.ridge_readout_`), and the log loss of the fold itself is taken. No
    start has seen a label that it is judged by. The model needs a linear ``decoder``; the wider it is, and with
    ``pooling="statistics"``, the more a closed form tells.

    Args:
        starts: by name, functions of samples, ``start(x, y)``, that return an initialized model; the same samples must
            give the same model. The first is the default, which is kept unless another is better by the margin.
        x, y: *training* samples: sequences (P, L, D), class labels (P,) or real targets (P,) or (P, K). The log loss of
            real targets is that of a normal law whose variance the training part has left out.
        groups: of every sample (P,), such as its speaker: a group is held out as a whole.
        lengths: (P,) of sequences that are padded at their ends; starts are then called as ``start(x, y, lengths)``.
        method: what is compared.
        folds: parts that the samples are divided into, classes keeping their shares.
        margin: nats a sample by which another must be better than the default; None for that of :data:`MARGINS`.
        seed: of the division into folds.
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
    folds = positive_int("folds", folds, minimum=2)
    parts = task.divided(folds, np.random.default_rng(positive_int("seed", seed, minimum=0)))
    losses, seconds = _cross_fitted(task, parts, progress)
    candidates = task.candidates(losses, seconds)
    winner = _winner(candidates, margin)
    model = task.build(winner, task.all)
    ridge_readout_(model, task.x, task.y, groups=task.groups, lengths=task.lengths)
    why = _why(candidates, winner, margin, "its held-out log loss")
    return Choice(winner, why, candidates, model, method, margin, time.perf_counter() - begin)


def _winner(candidates: tuple[Candidate, ...], margin: float) -> str:
    default, *others = candidates
    best = min(others, key=lambda each: each.loss, default=default)
    return best.name if best.gain > margin else default.name


def _why(candidates: tuple[Candidate, ...], winner: str, margin: float, what: str) -> str:
    default, *others = candidates
    if not others:
        return f"{winner}: there is no other."
    best = min(others, key=lambda each: each.loss)
    found = f"{best.gain:+.3f} ± {best.error:.3f} nats a sample against {default.name}"
    if winner == default.name:
        return f"{winner}: {what} stays, for the best other, {best.name}, has {found}; the margin is {margin:g}."
    return f"{winner}: {what} is the lowest, {found}; the margin is {margin:g}."


@dataclasses.dataclass(frozen=True)
class _Task:
    """Starts and samples, checked."""

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
        return cls(dict(starts), inputs, target, names, check_lengths(inputs, lengths, minimum=1))

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

    def candidates(self, losses: dict[str, np.ndarray], seconds: dict[str, float]) -> tuple[Candidate, ...]:
        """Every start's loss (P,), held against the first one's."""
        default = next(iter(losses.values()))
        found = []
        for name, each in losses.items():
            gains = default - each
            sums = np.bincount(self.members, gains - gains.mean())  # of every group
            error = math.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)) / len(gains)
            found.append(Candidate(name, float(each.mean()), float(gains.mean()), error, seconds[name]))
        return tuple(found)


# ---- the read-out in closed form -----------------------------------------------------------------


def _cross_fitted(
    task: _Task, parts: list[np.ndarray], progress: bool
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Log loss of every sample (P,), held out, under every start; and its seconds."""
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
    return losses, seconds


@torch.no_grad()
def _outputs(model: nn.Module, part: dict[str, Any], batch_size: int = 64) -> Iterator[np.ndarray]:
    """Outputs (B, K) of the model in evaluation mode."""
    parameter = next(model.parameters())
    inputs, ends = part["x"], part["lengths"]
    if ends is not None:
        inputs = inputs.copy()
        inputs[np.arange(inputs.shape[1]) >= ends[:, None]] = 0.0
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

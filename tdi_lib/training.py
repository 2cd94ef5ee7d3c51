"""Train a :class:`~tdi_lib.ssm.SequenceModel`, or many at once: AdamW, early stopping on validation.

Everything is explicit and seeded: two calls with the same arguments on one machine give the
same weights.
"""

import copy
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from tdi_lib.samples import check_lengths, instance_of, positive_int, real_array
from tdi_lib.ssm import SequenceModel

__all__ = ["FitResult", "Scores", "evaluate", "fit", "fit_many", "predict", "scores_of"]

_CACHED = 2**19  # values of a layer's activations, 2 MiB, that a processor's cache holds
_SLICE = 64  # validation sequences of each model that are looked at at once
Set = tuple[Tensor, ...]  # sequences (P L D), targets, and lengths (P) if any sequence is padded


@dataclasses.dataclass(frozen=True)
class Scores:
    """Test scores of a classifier.

    Attributes:
        loss: mean cross-entropy in nats.
        accuracy: share of correct predictions.
        calibration: expected calibration error over 10 equal-width confidence bins, 0 to 1.
    """

    loss: float
    accuracy: float
    calibration: float


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a training run did. The model is left with the weights of the best validation loss.

    Attributes:
        history: one row per evaluation with ``step``, ``train_loss`` and ``val_loss``.
        best_step: step of the best validation loss; 0 if no step lowered it.
        best_val_loss: that loss.
        seconds: wall time; of models that were trained at once, this one's share of it.
        start_val_loss: validation loss before the first step.
    """

    history: list[dict[str, float]]
    best_step: int
    best_val_loss: float
    seconds: float
    start_val_loss: float


def fit(
    model: SequenceModel,
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_val: ArrayLike,
    y_val: ArrayLike,
    lengths: ArrayLike | None = None,
    lengths_val: ArrayLike | None = None,
    max_steps: int = 1000,
    evaluate_every: int = 25,
    patience: int = 12,
    batch_size: int = 32,
    lr: float = 5e-3,
    ssm_lr: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    progress: bool = True,
    watch: Callable[[int, SequenceModel], None] | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
) -> FitResult:
    """Train in place with AdamW and keep the weights of the best validation loss.

    Args:
        model: changed in place.
        x, y: training sequences (P, L, D) and class labels (P,) or real targets (P, K).
        x_val, y_val: validation set of the same form; it stops the training and chooses the weights.
        lengths, lengths_val: of sequences that are padded at their ends (P,), for a model with pooling; what the
            padding holds is not looked at. :func:`~tdi_lib.samples.lengths_of` knows them where it is NaN.
        max_steps: optimizer steps at most, rounded up to a multiple of ``evaluate_every``.
        evaluate_every: steps between validations.
        patience: validations without improvement before stopping.
        batch_size: samples per step; small sets are gone through more often.
        lr, ssm_lr, weight_decay: see :meth:`~tdi_lib.ssm.SequenceModel.parameter_groups`.
        seed: order of the batches and dropout.
        progress: show a bar.
        watch: called as ``watch(step, model)`` after every validation, to look at the model while it learns.
        checkpoint: file that the state is written to after every validation. The same call made again goes on from
            there and ends with the same numbers (but for dropout); the file stays. Needs safetensors.
        device: of torch, such as ``cpu`` or ``cuda``; ``auto`` is the GPU if there is one. The model ends where it was.

    Raises:
        TypeError, ValueError: naming the argument; also if ``checkpoint`` is of another training.
        FloatingPointError: if the training diverged; the model is as it was.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(40, 16, 1, generator=generator).numpy()
    >>> y = (x.mean(axis=(1, 2)) > 0).astype(int)
    >>> model = SequenceModel(1, 2, d_model=4, d_state=4, n_layers=1, generator=generator)
    >>> result = fit(model, x[:32], y[:32], x_val=x[32:], y_val=y[32:], max_steps=50, progress=False)
    >>> [row["step"] for row in result.history]
    [25, 50]
    """
    instance_of("model", model, SequenceModel)
    (result,) = _train(
        [model],
        [_tensors("x", x, "y", y, model, "lengths", lengths)],
        [_tensors("x_val", x_val, "y_val", y_val, model, "lengths_val", lengths_val)],
        [positive_int("seed", seed, minimum=0)],
        _Options(max_steps, evaluate_every, patience, batch_size, lr, ssm_lr, weight_decay, progress, watch),
        device,
        checkpoint,
    )
    if isinstance(result, FloatingPointError):
        raise result
    return result


def fit_many(
    models: Sequence[SequenceModel],
    data: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    *,
    seeds: Sequence[int],
    lengths: Sequence[tuple[ArrayLike | None, ArrayLike | None]] | None = None,
    max_steps: int = 1000,
    evaluate_every: int = 25,
    patience: int = 12,
    batch_size: int = 32,
    lr: float = 5e-3,
    ssm_lr: float = 1e-3,
    weight_decay: float = 0.01,
    progress: bool = True,
    device: str | torch.device = "cpu",
) -> list[FitResult | FloatingPointError]:
    """Train models of one architecture at once, in place, each as :func:`fit` would train it alone.

    The parameters are stacked and the losses added: a step of AdamW works on every number by itself, so every model
    takes its own steps, on its own data, in its own order of batches, and stops when :func:`fit` would stop it. Its
    numbers are those of :func:`fit` up to rounding, but for dropout, which draws for all models together. A small model
    leaves most of a GPU idle; fifty fill it.

    Args:
        models: M models that differ in initial values only; changed in place.
        data: for every model ``(x, y, x_val, y_val)`` as for :func:`fit`. The sets may differ in size, not in length.
        seeds: the order of every model's batches. The first also seeds the dropout.
        lengths: for every model ``(lengths, lengths_val)`` as for :func:`fit`, where sequences are padded.
        device: as for :func:`fit`. The models end where they were.
        max_steps, evaluate_every, patience, batch_size, lr, ssm_lr, weight_decay, progress: as for :func:`fit`.

    Returns:
        For every model its result, or the error that :func:`fit` would raise if its training diverged; such a model
        stays as it was.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    for model in models:
        instance_of("models", model, SequenceModel)
    if not models:
        raise ValueError("models must hold at least one model, got none")
    if len({_architecture(model) for model in models}) > 1:
        raise ValueError("models must be of one architecture, got several")
    ends = [(None, None)] * len(models) if lengths is None else lengths
    for name, count in (("data", len(data)), ("seeds", len(seeds)), ("lengths", len(ends))):
        if count != len(models):
            raise ValueError(f"{name} must be as many as models ({len(models)}), got {count}")
    each = list(zip(models, data, ends, strict=True))
    return _train(
        models,
        [_tensors("x", x, "y", y, model, "lengths", end) for model, (x, y, _, _), (end, _) in each],
        [_tensors("x_val", x, "y_val", y, model, "lengths_val", end) for model, (_, _, x, y), (_, end) in each],
        [positive_int("seeds", seed, minimum=0) for seed in seeds],
        _Options(max_steps, evaluate_every, patience, batch_size, lr, ssm_lr, weight_decay, progress),
        device,
    )


def _architecture(model: SequenceModel) -> tuple[Any, ...]:
    shapes = [(name, tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()]
    learns = [parameter.requires_grad for parameter in model.parameters()]
    return (model.pooling, model.input_skip, *(ssm.discretization for ssm in model.ssms), repr(model), *shapes, *learns)


# ---- the loop ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Options:
    """What :func:`fit` and :func:`fit_many` were told."""

    max_steps: int
    evaluate_every: int
    patience: int
    batch_size: int
    lr: float
    ssm_lr: float
    weight_decay: float
    progress: bool
    watch: Callable[[int, SequenceModel], None] | None = None

    def __post_init__(self) -> None:
        for name in ("max_steps", "evaluate_every", "batch_size", "patience"):
            positive_int(name, getattr(self, name))

    @property
    def optimizer(self) -> dict[str, float]:
        return {"lr": self.lr, "ssm_lr": self.ssm_lr, "weight_decay": self.weight_decay}


def _train(
    models: Sequence[SequenceModel],
    train_sets: list[Set],
    val_sets: list[Set],
    seeds: list[int],
    options: _Options,
    device: str | torch.device,
    checkpoint: str | Path | None = None,
) -> list[FitResult | FloatingPointError]:
    """The one loop: epochs of ``evaluate_every`` steps, so that sets of every size are validated equally often."""
    start, every = time.perf_counter(), options.evaluate_every
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device, home = torch.device(device), [next(model.parameters()).device for model in models]
    train, validation = _Pool(train_sets, "x", device), _Pool(val_sets, "x_val", device)
    team = (_Alone if len(models) == 1 else _Stack)(models, device, options.optimizer)
    starts = team.losses(validation, list(range(len(models)))).tolist()
    runs = [_Run(team.weights(place), value) for place, value in enumerate(starts)]
    batches = [_endless_batches(size, options.batch_size, seed) for size, seed in zip(train.sizes, seeds, strict=True)]
    alive = list(range(len(models)))  # which models the team holds, in its order
    n_epochs = math.ceil(options.max_steps / every)
    state = None
    if checkpoint is not None and isinstance(team, _Alone):
        state = _State(Path(checkpoint), team, runs[0], (train, validation), options, seeds[0])
    done, n_epochs = (0, n_epochs) if state is None else state.restore(n_epochs, batches[0])
    with (
        tqdm(total=n_epochs * len(models), initial=done, unit="evaluation", disable=not options.progress) as bar,
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        torch.manual_seed(seeds[0])  # dropout
        for epoch in range(done + 1, n_epochs + 1):
            begin = time.perf_counter()
            total = torch.zeros(len(alive), dtype=team.dtype, device=device)
            for _ in range(every):
                index = torch.as_tensor(np.array([next(batches[which]) for which in alive]))  # (M B)
                total += team.step(*train.take(alive, index))
            losses = zip((total / every).tolist(), team.losses(validation, alive).tolist(), strict=True)
            seconds = (time.perf_counter() - begin) / len(alive)
            going = []
            for place, (train_loss, val_loss) in enumerate(losses):
                run = runs[alive[place]]
                run.seconds += seconds
                if run.note(epoch * every, train_loss, val_loss):
                    run.best = team.weights(place)
                if math.isfinite(val_loss) and run.waited < options.patience:
                    going.append(place)
            if state is not None:
                state.save(epoch)
            if options.watch is not None:
                with torch.no_grad():
                    options.watch(epoch * every, models[0])
            bar.set_postfix(best_val_loss=f"{np.mean([run.best_loss for run in runs]):.3g}", refresh=False)
            bar.update(len(alive) + (len(alive) - len(going)) * (n_epochs - epoch))
            if len(going) < len(alive):
                alive = [alive[place] for place in going]
                if not alive:
                    break
                team.keep(going)
    rest = (time.perf_counter() - start - sum(run.seconds for run in runs)) / len(runs)
    return [run.result(model.to(place), rest, options) for run, model, place in zip(runs, models, home, strict=True)]


def _endless_batches(size: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Batches (B,) of an endless sequence of seeded permutations of ``size`` samples."""
    rest, turn = np.empty(0, int), 0
    while True:
        while len(rest) < batch_size:
            rest = np.append(rest, np.random.default_rng([seed, turn]).permutation(size))
            turn += 1
        yield rest[:batch_size]
        rest = rest[batch_size:]


@dataclasses.dataclass
class _Run:
    """One model's record while it trains, and its best weights, at first those that it began with."""

    best: dict[str, Tensor]
    start_loss: float  # a candidate like any other: training must not lose a closed form that it began with
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_loss: float = math.inf
    best_step: int = 0
    waited: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if math.isfinite(self.start_loss):
            self.best_loss = self.start_loss

    def note(self, step: int, train_loss: float, val_loss: float) -> bool:
        """Add an evaluation; whether it is the best so far."""
        self.rows.append({"step": step, "train_loss": train_loss, "val_loss": val_loss})
        if val_loss < self.best_loss:
            self.best_loss, self.best_step, self.waited = val_loss, step, 0
            return True
        self.waited += 1
        return False

    def result(self, model: SequenceModel, rest: float, options: _Options) -> FitResult | FloatingPointError:
        model.load_state_dict(self.best)
        if not any(math.isfinite(row["val_loss"]) for row in self.rows):
            rates = f"lr={options.lr}, ssm_lr={options.ssm_lr}"
            return FloatingPointError(f"no finite validation loss with {rates}: training diverged")
        model.eval()
        return FitResult(self.rows, self.best_step, self.best_loss, self.seconds + rest, self.start_loss)


class _Pool:
    """The sets of several models in one tensor, so that one look-up gives a batch to each."""

    def __init__(self, sets: list[Set], name: str, device: torch.device) -> None:
        if len({(x.shape[1:], y.shape[1:], y.dtype) for x, y, *_ in sets}) > 1:
            raise ValueError(f"{name} must have one length, and its targets one form, for all models")
        if any(len(each) > 2 for each in sets):  # where some are padded, the others are as long as they are
            sets = [(x, y, *(ends or [torch.full(x.shape[:1], x.shape[1])])) for x, y, *ends in sets]
        self.sizes = [len(each[0]) for each in sets]
        self.starts = torch.tensor([0, *self.sizes]).cumsum(0)[:-1]
        self.parts = [torch.cat(parts).to(device) for parts in zip(*sets, strict=True)]

    def take(self, which: list[int], index: Tensor) -> list[Tensor]:
        """Sequences (M, B, L, D), targets, and lengths if any, at ``index`` (M, B) into each model's own set."""
        flat = (self.starts[which][:, None] + index).to(self.parts[0].device)
        return [part[flat] for part in self.parts]


class _Alone:
    """One model and its AdamW."""

    def __init__(self, models: Sequence[SequenceModel], device: torch.device, optimizer: dict[str, float]) -> None:
        (model,) = models
        self.model = model.to(device).train()
        self.dtype = model.decoder.weight.dtype
        self.optimizer = torch.optim.AdamW(model.parameter_groups(**optimizer))

    def _loss(self, x: Tensor, y: Tensor, *lengths: Tensor) -> Tensor:
        """Mean over a batch of one model (1, B, ...)."""
        output = self.model(x[0], *(each[0] for each in lengths))
        return (nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy)(output, y[0])

    def step(self, *batch: Tensor) -> Tensor:
        """One step; its loss (1,)."""
        loss = self._loss(*batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()[None]

    @torch.no_grad()
    def losses(self, pool: _Pool, which: list[int]) -> Tensor:
        """Mean loss on the whole set (1,)."""
        self.model.eval()
        parts = torch.arange(pool.sizes[0])[None].split(4 * _SLICE, dim=1)
        total = sum(self._loss(*pool.take(which, index)) * index.numel() for index in parts)
        self.model.train()
        return (total / pool.sizes[0])[None]

    def weights(self, place: int) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}

    def keep(self, places: list[int]) -> None:
        """The one that is kept is there already."""


class _State:
    """What one model's training goes on from, in a file."""

    def __init__(
        self, path: Path, team: _Alone, run: _Run, pools: tuple[_Pool, ...], options: _Options, seed: int
    ) -> None:
        self.path, self.team, self.run = path, team, run
        self.every, self.patience = options.evaluate_every, options.patience
        told = dataclasses.asdict(dataclasses.replace(options, progress=False, watch=None))
        digest = hashlib.sha256(json.dumps([told, seed], sort_keys=True).encode())
        for tensor in (*run.best.values(), *(part for pool in pools for part in pool.parts)):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.key = digest.hexdigest()

    def save(self, epoch: int) -> None:
        from safetensors.torch import save

        tensors = {f"best.{name}": tensor for name, tensor in self.run.best.items()}
        tensors |= {f"model.{name}": tensor for name, tensor in self.team.model.state_dict().items()}
        tensors |= {
            f"optimizer.{index}.{name}": value
            for index, values in self.team.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        names = ("rows", "best_loss", "best_step", "waited", "seconds")
        told = {"key": self.key, "epoch": epoch} | {name: getattr(self.run, name) for name in names}
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_bytes(save(tensors, {"training": json.dumps(told)}))
        temporary.replace(self.path)

    def restore(self, n_epochs: int, batches: Iterator[np.ndarray]) -> tuple[int, int]:
        """How many epochs are done, none if there is no file, and how many there are to be."""
        if not self.path.exists():
            return 0, n_epochs
        from safetensors import safe_open

        with safe_open(str(self.path), "pt") as stored:
            told = json.loads((stored.metadata() or {}).get("training", "{}"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if told.get("key") != self.key:
            raise ValueError(
                f"checkpoint must be of this training, but {self.path} is of other data or options: remove it"
            )
        part = lambda head: {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}  # noqa: E731
        self.team.model.load_state_dict(part("model."))
        self.run.best = part("best.")
        for name in ("rows", "best_loss", "best_step", "waited", "seconds"):
            setattr(self.run, name, told[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            index, _, kind = name.partition(".")
            moments.setdefault(int(index), {})[kind] = value
        groups = self.team.optimizer.state_dict()["param_groups"]
        self.team.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for _ in range(told["epoch"] * self.every):
            next(batches)
        return told["epoch"], told["epoch"] if self.run.waited >= self.patience else n_epochs


class _Stack:
    """M models of one architecture as one, their parameters stacked along a first axis, and their AdamW."""

    def __init__(self, models: Sequence[SequenceModel], device: torch.device, optimizer: dict[str, float]) -> None:
        self.skeleton = copy.deepcopy(models[0]).to("meta").train()
        self.skeleton.forward = self.skeleton.forward_unchecked  # type: ignore[method-assign]
        states = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]
        names = {id(parameter): name for name, parameter in models[0].named_parameters()}
        self.state = {name: torch.stack([s[name].detach() for s in states]).to(device) for name in states[0]}
        for name, parameter in models[0].named_parameters():
            self.state[name].requires_grad_(parameter.requires_grad)
        self.dtype = self.state["decoder.weight"].dtype
        groups = models[0].parameter_groups(**optimizer)
        self.optimizer = torch.optim.AdamW(
            [group | {"params": [self.state[names[id(p)]] for p in group["params"]]} for group in groups]
        )

    def _each(self, state: dict[str, Tensor], *batch: Tensor) -> Tensor:
        """Loss of every model on every of its samples (M, B)."""

        def one(state: dict[str, Tensor], x: Tensor, y: Tensor, *lengths: Tensor) -> Tensor:
            output = torch.func.functional_call(self.skeleton, state, (x, *lengths))
            if not y.is_floating_point():
                return nn.functional.cross_entropy(output, y, reduction="none")
            return nn.functional.mse_loss(output, y, reduction="none").flatten(1).mean(1)

        return torch.func.vmap(one, randomness="different")(state, *batch)

    def step(self, *batch: Tensor) -> Tensor:
        """One step of every model on its batch; their losses (M,)."""
        losses = self._each(self.state, *batch).mean(dim=1)
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    @torch.no_grad()
    def losses(self, pool: _Pool, which: list[int]) -> Tensor:
        """Mean loss of every model on its whole set (M,)."""
        self.skeleton.eval()
        sizes = torch.tensor([pool.sizes[index] for index in which])
        total = torch.zeros(len(which), dtype=self.dtype, device=pool.parts[0].device)
        for first in range(0, int(sizes.max()), _SLICE):
            some = (sizes > first).nonzero()[:, 0]  # the models whose sets reach so far
            index = torch.arange(first, min(first + _SLICE, int(sizes.max())))
            inside = index < sizes[some, None]
            batch = pool.take([which[i] for i in some], torch.where(inside, index, 0))
            rows = some.to(total.device)
            each = self._each({name: tensor[rows] for name, tensor in self.state.items()}, *batch)
            total[rows] += torch.where(inside.to(each.device), each, 0.0).sum(dim=1)
        self.skeleton.train()
        return total / sizes.to(total)

    def weights(self, place: int) -> dict[str, Tensor]:
        """One model's parameters and buffers."""
        return {name: tensor[place].detach().cpu().clone() for name, tensor in self.state.items()}

    def keep(self, places: list[int]) -> None:
        """Let the other models go."""
        for name, tensor in self.state.items():
            if tensor.requires_grad:
                for key, value in self.optimizer.state[tensor].items():
                    if value.ndim:  # the count of steps is common to all
                        self.optimizer.state[tensor][key] = value[places]
                tensor.grad = None
                tensor.data = tensor.data[places]
            else:
                self.state[name] = tensor[places]


# ---- predictions ---------------------------------------------------------------------------------


@torch.no_grad()
def predict(
    model: SequenceModel, x: ArrayLike, *, lengths: ArrayLike | None = None, batch_size: int | None = None
) -> Tensor:
    """Outputs of the model in evaluation mode, batch by batch.

    Args:
        model: left in the mode in which it was.
        x: sequences (P, L, D).
        lengths: as for :func:`fit`.
        batch_size: sequences at once; if omitted, as many as the processor's cache holds: three times as fast as 256
            with 192 channels and 500 steps.

    Returns:
        (P, d_output), or (P, L, d_output) of a model without pooling, on the CPU.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> predict(SequenceModel(1, 3, d_model=4, d_state=4, n_layers=1), np.zeros((5, 16, 1))).shape
    torch.Size([5, 3])
    """
    instance_of("model", model, SequenceModel)
    parts = _inputs("x", x, model, "lengths", lengths)
    if batch_size is None:
        batch_size = min(256, max(1, _CACHED // (parts[0].shape[1] * model.encoder.out_features)))
    batches = zip(*(part.split(batch_size) for part in parts), strict=True)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    outputs = [model(*(part.to(device) for part in batch)).cpu() for batch in batches]
    model.train(was_training)
    return torch.cat(outputs)


def evaluate(model: SequenceModel, x: ArrayLike, y: ArrayLike, *, lengths: ArrayLike | None = None) -> Scores:
    """Score a classifier.

    Args:
        model: with an output per class.
        x: sequences (P, L, D).
        y: their labels (P,).
        lengths: as for :func:`fit`.

    Raises:
        TypeError, ValueError: naming the argument; ``y`` must be integer labels.

    >>> model = SequenceModel(1, 2, d_model=4, d_state=4, n_layers=1)
    >>> 0 <= evaluate(model, np.ones((6, 16, 1)), np.arange(6) % 2).accuracy <= 1
    True
    """
    logits = predict(model, x, lengths=lengths)
    labels = _tensors("x", x, "y", y, model, "lengths", lengths)[1]
    if labels.is_floating_point():
        raise TypeError(f"y must be integer class labels, got {labels.dtype}")
    return scores_of(logits, labels)


def scores_of(logits: Float[Tensor, "P K"], labels: Int[Tensor, " P"]) -> Scores:
    """Score logits (P, K) against class labels (P,).

    >>> scores_of(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)).loss == math.log(2)
    True
    """
    loss = float(nn.functional.cross_entropy(logits.double(), labels))
    confidence, predicted = logits.double().softmax(dim=-1).max(dim=-1)
    correct = (predicted == labels).double()
    bins = (confidence * 10).long().clamp(max=9)
    gap = torch.zeros(10, dtype=torch.float64).index_add_(0, bins, correct - confidence)
    return Scores(loss, float(correct.mean()), float(gap.abs().sum() / len(labels)))


def _inputs(
    name: str, x: ArrayLike, model: SequenceModel, lengths_name: str = "lengths", lengths: ArrayLike | None = None
) -> list[Tensor]:
    """Sequences (P, L, D), their padding zero, and their lengths (P,) if any is padded."""
    what = "sequences (P, L, D)"
    inputs = real_array(name, x, ndim=(3,), what=what, finite=False)
    if inputs.shape[2] != model.d_input:
        raise ValueError(f"{name} must have {model.d_input} channels (the model's d_input), got shape {inputs.shape}")
    if lengths is not None and model.pooling == "none":
        raise ValueError(f"{lengths_name} must be left out for a model without pooling, which answers at every step")
    ends = check_lengths(inputs, lengths, name=lengths_name, of=name, minimum=1)
    if ends is not None:
        beyond = np.arange(inputs.shape[1]) >= ends[:, None]  # (P L)
        inputs = np.where(beyond[:, :, None], 0.0, inputs)
    inputs = real_array(name, inputs, ndim=(3,), what=what)
    tensors = [torch.tensor(inputs, dtype=model.decoder.weight.dtype)]
    return tensors if ends is None else [*tensors, torch.as_tensor(ends.astype(np.int64))]


def _tensors(
    x_name: str,
    x: ArrayLike,
    y_name: str,
    y: ArrayLike,
    model: SequenceModel,
    lengths_name: str = "lengths",
    lengths: ArrayLike | None = None,
) -> tuple[Tensor, ...]:
    """Sequences, targets, and lengths if any is padded."""
    inputs, *ends = _inputs(x_name, x, model, lengths_name, lengths)
    target = real_array(y_name, y, ndim=(1, 2, 3), what="labels (P,) or targets (P, K)")
    if len(target) != len(inputs):
        raise ValueError(
            f"{y_name} must hold one target per sequence of {x_name} ({len(inputs)}), got shape {target.shape}"
        )
    if np.asarray(y).dtype.kind in "iub":
        d_output = model.decoder.out_features
        if target.ndim > 1 or model.pooling == "none":
            raise ValueError(
                f"{y_name} must be one class label per sequence (P,) of a model with pooling, got shape {target.shape} "
                f"and pooling {model.pooling!r}: for several labels or labels at every step pass floats, 0.0 and 1.0, "
                f"which are trained by mean squared error"
            )
        if target.min() < 0 or target.max() >= d_output:
            raise ValueError(
                f"{y_name} must be class labels in [0, {d_output - 1}], got [{target.min():.0f}, {target.max():.0f}]"
            )
        return inputs, torch.tensor(target, dtype=torch.int64), *ends
    if target.ndim == 1:
        target = target[:, None]
    steps = inputs.shape[1:2] if model.pooling == "none" else ()
    expected = (len(inputs), *steps, model.decoder.out_features)
    if target.shape != expected:
        raise ValueError(f"{y_name} must have the shape of the model's output {expected}, got {target.shape}")
    return inputs, torch.tensor(target, dtype=inputs.dtype), *ends

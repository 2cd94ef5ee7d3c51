"""Train a :class:`~tdi_lib.ssm.SequenceModel` with Lightning: progress, checkpoints, early stopping on validation.

Needs the ``train`` extra. Everything is explicit and seeded: two calls with the same arguments on one machine give the
same weights.
"""

import contextlib
import copy
import dataclasses
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from numpy.typing import ArrayLike
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset
from tqdm import tqdm

from tdi_lib.samples import check_lengths, instance_of, positive_int, real_array
from tdi_lib.ssm import SequenceModel

__all__ = ["FitResult", "Scores", "evaluate", "fit", "fit_many", "load_weights", "predict", "save_weights"]

_SLICE = 64  # validation sequences of one model that are looked at at once


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
        best_step: step of the best validation loss.
        best_val_loss: that loss.
        seconds: wall time; of models that were trained at once, this one's share of it.
    """

    history: list[dict[str, float]]
    best_step: int
    best_val_loss: float
    seconds: float


class _Task(LightningModule):
    """Cross-entropy for labels, mean squared error for real targets."""

    def __init__(self, model: SequenceModel, classify: bool, optimiser: dict[str, float]) -> None:
        super().__init__()
        self.model = model
        self.loss = nn.functional.cross_entropy if classify else nn.functional.mse_loss
        self.optimiser = optimiser

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.model.parameter_groups(**self.optimiser))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss = self.loss(self.model(batch[0], *batch[2:]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        loss = self.loss(self.model(batch[0], *batch[2:]), batch[1])
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch[0]))


class _Recorder(Callback):
    """Keep both losses at every validation and the weights of the best one; part of the checkpoint."""

    def __init__(self, watch: Callable[[int, SequenceModel], None] | None) -> None:
        self.watch = watch
        self.state: dict[str, Any] = {"rows": [], "best_loss": math.inf, "best_step": 0, "best": {}}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        losses = {key: float(trainer.callback_metrics[key]) for key in ("train_loss", "val_loss")}
        self.state["rows"].append({"step": trainer.global_step} | losses)
        if losses["val_loss"] < self.state["best_loss"]:
            weights = pl_module.model.state_dict()  # type: ignore[union-attr]
            self.state["best"] = {k: v.detach().cpu().clone() for k, v in weights.items()}
            self.state["best_loss"] = losses["val_loss"]
            self.state["best_step"] = trainer.global_step
        self.state["rng"] = torch.get_rng_state()
        if self.watch is not None:
            with torch.no_grad():
                self.watch(trainer.global_step, pl_module.model)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict
        torch.set_rng_state(state_dict["rng"])


class _EndlessShuffle(Sampler[int]):
    """``count`` draws per epoch from an endless sequence of seeded permutations; epoch e is the same after a resume."""

    def __init__(self, size: int, count: int, seed: int) -> None:
        self.size, self.count, self.seed, self.epoch = size, count, seed, 0

    def set_epoch(self, epoch: int) -> None:  # Lightning calls this
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.count
        for position in range(first, first + self.count):
            turn, index = divmod(position, self.size)
            if index == 0 or position == first:
                order = np.random.default_rng([self.seed, turn]).permutation(self.size)
            yield int(order[index])


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
    checkpoint_dir: str | Path | None = None,
    watch: Callable[[int, SequenceModel], None] | None = None,
    device: str = "auto",
) -> FitResult:
    """Train in place with AdamW and keep the weights of the best validation loss.

    Args:
        model: changed in place.
        x, y: training sequences (P, L, D) and class labels (P,) or real targets (P, K).
        x_val, y_val: validation set of the same form; it stops the training and chooses the weights.
        lengths, lengths_val: of sequences that are padded at their ends (P,), for a model with pooling; what the
            padding holds is not looked at. :func:`~tdi_lib.samples.lengths_of` knows them where it is NaN.
        max_steps: optimiser steps at most, rounded up to a multiple of ``evaluate_every``.
        evaluate_every: steps between validations.
        patience: validations without improvement before stopping.
        batch_size: samples per step; small sets are gone through more often.
        lr, ssm_lr, weight_decay: see :meth:`~tdi_lib.ssm.SequenceModel.parameter_groups`.
        seed: order of the batches and dropout.
        progress: show Lightning's progress bar.
        checkpoint_dir: where to keep the last and best state; an interrupted run with the same folder resumes.
        watch: called as ``watch(step, model)`` after every validation, to look at the model while it learns.
        device: a Lightning accelerator: ``auto``, ``cpu``, ``gpu``, ``mps``.

    Raises:
        TypeError, ValueError: naming the argument.
        FloatingPointError: if the training diverged.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(40, 16, 1, generator=generator).numpy()
    >>> y = (x.mean(axis=(1, 2)) > 0).astype(int)
    >>> model = SequenceModel(1, 2, d_model=4, d_state=4, n_layers=1, generator=generator)
    >>> result = fit(model, x[:32], y[:32], x_val=x[32:], y_val=y[32:], max_steps=50, progress=False)
    >>> [row["step"] for row in result.history]
    [25, 50]
    """
    instance_of("model", model, SequenceModel)
    train = _tensors("x", x, "y", y, model, "lengths", lengths)
    validation = _tensors("x_val", x_val, "y_val", y_val, model, "lengths_val", lengths_val)
    max_steps = positive_int("max_steps", max_steps)
    every = positive_int("evaluate_every", evaluate_every)
    batch_size = positive_int("batch_size", batch_size)
    patience = positive_int("patience", patience)
    seed = positive_int("seed", seed, minimum=0)
    start = time.perf_counter()

    # An "epoch" is `every` steps over an endless shuffled stream, so that every set size is validated equally often.
    sampler = _EndlessShuffle(len(train[0]), every * batch_size, seed)
    loader = DataLoader(TensorDataset(*train), batch_size=batch_size, sampler=sampler)
    val_loader = DataLoader(TensorDataset(*validation), batch_size=256)
    task = _Task(
        model,
        not train[1].is_floating_point(),
        {"lr": lr, "ssm_lr": ssm_lr, "weight_decay": weight_decay},
    )
    recorder = _Recorder(watch)
    callbacks: list[Callback] = [
        recorder,
        EarlyStopping("val_loss", patience=patience, check_on_train_epoch_end=True),
    ]
    resume = None
    if checkpoint_dir is not None:
        callbacks.append(ModelCheckpoint(checkpoint_dir, save_last=True, save_top_k=0))
        last = Path(checkpoint_dir) / "last.ckpt"
        resume = str(last) if last.exists() else None
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        trainer = Trainer(
            accelerator=device,
            devices=1,
            max_epochs=math.ceil(max_steps / every),
            callbacks=callbacks,
            enable_progress_bar=progress,
            enable_checkpointing=checkpoint_dir is not None,
            enable_model_summary=False,
            logger=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, loader, val_loader, ckpt_path=resume)
    best = recorder.state
    if not best["best"]:
        raise _diverged(lr, ssm_lr)
    model.cpu()
    model.load_state_dict(best["best"])
    model.eval()
    return FitResult(best["rows"], best["best_step"], best["best_loss"], time.perf_counter() - start)


def fit_many(
    models: Sequence[SequenceModel],
    data: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    *,
    seeds: Sequence[int],
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
    numbers are those of :func:`fit` up to rounding. A small model leaves most of a GPU idle; fifty fill it.

    Args:
        models: M models that differ in initial values only, without dropout; changed in place.
        data: for every model ``(x, y, x_val, y_val)`` as for :func:`fit`. The sets may differ in size, not in length,
            and no sequence may be padded.
        seeds: the order of every model's batches.
        device: of torch, such as ``cpu`` or ``cuda``. The models end where they were.
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
    if any(module.p > 0 for model in models for module in model.modules() if isinstance(module, nn.Dropout)):
        raise ValueError("models must have no dropout to be trained at once, got a model with dropout")
    if len({_architecture(model) for model in models}) > 1:
        raise ValueError("models must be of one architecture, got several")
    for name, count in (("data", len(data)), ("seeds", len(seeds))):
        if count != len(models):
            raise ValueError(f"{name} must be as many as models ({len(models)}), got {count}")
    max_steps = positive_int("max_steps", max_steps)
    every = positive_int("evaluate_every", evaluate_every)
    batch_size = positive_int("batch_size", batch_size)
    patience = positive_int("patience", patience)
    seeds = [positive_int("seeds", seed, minimum=0) for seed in seeds]
    device = torch.device(device)
    start = time.perf_counter()

    train = _Pool([_tensors("x", d[0], "y", d[1], m) for m, d in zip(models, data, strict=True)], "x", device)
    validation = _Pool(
        [_tensors("x_val", d[2], "y_val", d[3], m) for m, d in zip(models, data, strict=True)], "x_val", device
    )
    samplers = [_EndlessShuffle(size, every * batch_size, seed) for size, seed in zip(train.sizes, seeds, strict=True)]
    stack = _Stack(models, device, {"lr": lr, "ssm_lr": ssm_lr, "weight_decay": weight_decay})
    runs = [_Run() for _ in models]
    alive = list(range(len(models)))  # which models the stack holds, in its order
    n_epochs = math.ceil(max_steps / every)
    with tqdm(total=n_epochs * len(models), unit="evaluation", disable=not progress) as bar:
        for epoch in range(n_epochs):
            begin = time.perf_counter()
            for index in alive:
                samplers[index].set_epoch(epoch)
            order = torch.tensor([list(samplers[index]) for index in alive]).view(len(alive), every, batch_size)
            total = torch.zeros(len(alive), dtype=stack.dtype, device=device)
            for step in range(every):
                total += stack.step(*train.take(alive, order[:, step]))
            losses = zip((total / every).tolist(), stack.losses(validation, alive).tolist(), strict=True)
            seconds = (time.perf_counter() - begin) / len(alive)
            going = []
            for place, (train_loss, val_loss) in enumerate(losses):
                run = runs[alive[place]]
                run.seconds += seconds
                if run.note((epoch + 1) * every, train_loss, val_loss):
                    run.best = stack.weights(place)
                if math.isfinite(val_loss) and run.waited < patience:
                    going.append(place)
            bar.update(len(alive) + (len(alive) - len(going)) * (n_epochs - epoch - 1))
            if len(going) < len(alive):
                alive = [alive[place] for place in going]
                if not alive:
                    break
                stack.keep(going)
    rest = (time.perf_counter() - start - sum(run.seconds for run in runs)) / len(runs)
    return [run.result(model, rest, lr, ssm_lr) for run, model in zip(runs, models, strict=True)]


def _architecture(model: SequenceModel) -> tuple[Any, ...]:
    shapes = [(name, tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()]
    return (model.pooling, model.input_skip, *(ssm.discretisation for ssm in model.ssms), repr(model), *shapes)


@dataclasses.dataclass
class _Run:
    """One model's record while it trains beside others."""

    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    best_loss: float = math.inf
    best_step: int = 0
    waited: int = 0
    seconds: float = 0.0

    def note(self, step: int, train_loss: float, val_loss: float) -> bool:
        """Add an evaluation; whether it is the best so far."""
        self.rows.append({"step": step, "train_loss": train_loss, "val_loss": val_loss})
        if val_loss < self.best_loss:
            self.best_loss, self.best_step, self.waited = val_loss, step, 0
            return True
        self.waited += 1
        return False

    def result(self, model: SequenceModel, rest: float, lr: float, ssm_lr: float) -> FitResult | FloatingPointError:
        if not self.best:
            return _diverged(lr, ssm_lr)
        model.load_state_dict(self.best)
        model.eval()
        return FitResult(self.rows, self.best_step, self.best_loss, self.seconds + rest)


class _Pool:
    """The sets of several models in one tensor, so that one look-up gives a batch to each."""

    def __init__(self, sets: list[tuple[Tensor, ...]], name: str, device: torch.device) -> None:
        if len({(x.shape[1:], y.shape[1:], y.dtype) for x, y in sets}) > 1:
            raise ValueError(f"{name} must have one length, and its targets one form, for all models")
        self.sizes = [len(x) for x, _ in sets]
        self.starts = torch.tensor([0, *self.sizes]).cumsum(0)[:-1]
        self.x, self.y = (torch.cat(parts).to(device) for parts in zip(*sets, strict=True))

    def take(self, which: list[int], index: Tensor) -> tuple[Tensor, Tensor]:
        """Sequences (M, B, L, D) and targets at ``index`` (M, B) into each model's own set."""
        flat = (self.starts[which][:, None] + index).to(self.x.device)
        return self.x[flat], self.y[flat]


class _Stack:
    """M models of one architecture as one, their parameters stacked along a first axis, and their AdamW."""

    def __init__(self, models: Sequence[SequenceModel], device: torch.device, optimiser: dict[str, float]) -> None:
        self.skeleton = copy.deepcopy(models[0]).to("meta").train()
        states = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]
        names = {id(parameter): name for name, parameter in models[0].named_parameters()}
        self.state = {name: torch.stack([s[name].detach() for s in states]).to(device) for name in states[0]}
        for name in names.values():
            self.state[name].requires_grad_()
        self.dtype = self.state[next(iter(names.values()))].dtype
        groups = models[0].parameter_groups(**optimiser)
        self.optimiser = torch.optim.AdamW(
            [group | {"params": [self.state[names[id(p)]] for p in group["params"]]} for group in groups]
        )

    def _each(self, state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Loss of every model on every of its samples (M, B)."""

        def one(state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            output = torch.func.functional_call(self.skeleton, state, (x,))
            if not y.is_floating_point():
                return nn.functional.cross_entropy(output, y, reduction="none")
            return nn.functional.mse_loss(output, y, reduction="none").flatten(1).mean(1)

        return torch.func.vmap(one)(state, x, y)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step of every model on its batch; their losses (M,)."""
        losses = self._each(self.state, x, y).mean(dim=1)
        self.optimiser.zero_grad()
        losses.sum().backward()
        self.optimiser.step()
        return losses.detach()

    @torch.no_grad()
    def losses(self, pool: _Pool, which: list[int]) -> Tensor:
        """Mean loss of every model on its whole set (M,)."""
        sizes = torch.tensor([pool.sizes[index] for index in which])
        total = torch.zeros(len(which), dtype=self.dtype, device=pool.x.device)
        for first in range(0, int(sizes.max()), _SLICE):
            some = (sizes > first).nonzero()[:, 0]  # the models whose sets reach so far
            index = torch.arange(first, min(first + _SLICE, int(sizes.max())))
            inside = index < sizes[some, None]
            batch = pool.take([which[i] for i in some], torch.where(inside, index, 0))
            rows = some.to(pool.x.device)
            each = self._each({name: tensor[rows] for name, tensor in self.state.items()}, *batch)
            total[rows] += torch.where(inside.to(each.device), each, 0.0).sum(dim=1)
        return total / sizes.to(total)

    def weights(self, place: int) -> dict[str, Tensor]:
        """One model's parameters and buffers."""
        return {name: tensor[place].detach().cpu().clone() for name, tensor in self.state.items()}

    def keep(self, places: list[int]) -> None:
        """Let the other models go."""
        for name, tensor in self.state.items():
            if tensor.requires_grad:
                for key, value in self.optimiser.state[tensor].items():
                    if value.ndim:  # the count of steps is common to all
                        self.optimiser.state[tensor][key] = value[places]
                tensor.grad = None
                tensor.data = tensor.data[places]
            else:
                self.state[name] = tensor[places]


def _diverged(lr: float, ssm_lr: float) -> FloatingPointError:
    return FloatingPointError(f"no finite validation loss with lr={lr}, ssm_lr={ssm_lr}: training diverged")


@torch.no_grad()
def predict(model: SequenceModel, x: ArrayLike, *, lengths: ArrayLike | None = None, batch_size: int = 256) -> Tensor:
    """Outputs of the model in evaluation mode, batch by batch.

    Args:
        model: left in the mode in which it was.
        x: sequences (P, L, D).
        lengths: as for :func:`fit`.
        batch_size: sequences at once.

    Returns:
        (P, d_output), or (P, L, d_output) of a model without pooling, on the CPU.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> predict(SequenceModel(1, 3, d_model=4, d_state=4, n_layers=1), np.zeros((5, 16, 1))).shape
    torch.Size([5, 3])
    """
    instance_of("model", model, SequenceModel)
    batches = zip(*(part.split(batch_size) for part in _inputs("x", x, model, "lengths", lengths)), strict=True)
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
    loss = float(nn.functional.cross_entropy(logits.double(), labels))
    confidence, predicted = logits.double().softmax(dim=-1).max(dim=-1)
    correct = (predicted == labels).double()
    bins = (confidence * 10).long().clamp(max=9)
    gap = torch.zeros(10, dtype=torch.float64).index_add_(0, bins, correct - confidence)
    return Scores(loss, float(correct.mean()), float(gap.abs().sum() / len(labels)))


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the weights as safetensors: data only, never code.

    >>> import tempfile
    >>> model = SequenceModel(1, 2, d_model=4, d_state=4, n_layers=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(model, f"{folder}/weights.safetensors")
    ...     load_weights(SequenceModel(1, 2, d_model=4, d_state=4, n_layers=1), f"{folder}/weights.safetensors")
    """
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(path))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read weights written by :func:`save_weights` into ``model``, strictly: RuntimeError if names or shapes differ."""
    model.load_state_dict(load_file(str(path)))


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning announces devices and suggests loader workers; neither concerns a reader."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)

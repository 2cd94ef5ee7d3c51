"""Train a :class:`~tdi_lib.model.SequenceModel` with Lightning: progress, checkpoints, early stopping on validation.

Needs the ``train`` extra. Everything is explicit and seeded: two calls with the same arguments on one machine give the
same weights.
"""

import contextlib
import dataclasses
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
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

from tdi_lib import _checks
from tdi_lib.model import SequenceModel

__all__ = ["FitResult", "Scores", "evaluate", "fit", "load_weights", "predict", "save_weights"]


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
        seconds: wall time.
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
        loss = self.loss(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        loss = self.loss(self.model(batch[0]), batch[1])
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
        max_steps: optimiser steps at most.
        evaluate_every: steps between validations.
        patience: validations without improvement before stopping.
        batch_size: samples per step; small sets are gone through more often.
        lr, ssm_lr, weight_decay: see :meth:`~tdi_lib.model.SequenceModel.parameter_groups`.
        seed: order of the batches and dropout.
        progress: show Lightning's progress bar.
        checkpoint_dir: where to keep the last and best state; an interrupted run with the same folder resumes.
        watch: called as ``watch(step, model)`` after every validation, to look at the model while it learns.
        device: a Lightning accelerator: ``auto``, ``cpu``, ``gpu``, ``mps``.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    _checks.module("model", model, SequenceModel)
    train = _tensors("x", x, "y", y, model)
    validation = _tensors("x_val", x_val, "y_val", y_val, model)
    max_steps = _checks.positive_int("max_steps", max_steps)
    every = _checks.positive_int("evaluate_every", evaluate_every)
    batch_size = _checks.positive_int("batch_size", batch_size)
    patience = _checks.positive_int("patience", patience)
    seed = _checks.positive_int("seed", seed, minimum=0)
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
        raise FloatingPointError(f"no finite validation loss with lr={lr}, ssm_lr={ssm_lr}: training diverged")
    model.cpu()
    model.load_state_dict(best["best"])
    model.eval()
    return FitResult(best["rows"], best["best_step"], best["best_loss"], time.perf_counter() - start)


@torch.no_grad()
def predict(model: SequenceModel, x: ArrayLike, *, batch_size: int = 256) -> Tensor:
    """Outputs of the model in evaluation mode, batch by batch: (P, d_output) or (P, L, d_output)."""
    _checks.module("model", model, SequenceModel)
    inputs = _inputs("x", x, model)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    outputs = [model(part.to(device)).cpu() for part in inputs.split(batch_size)]
    model.train(was_training)
    return torch.cat(outputs)


def evaluate(model: SequenceModel, x: ArrayLike, y: ArrayLike) -> Scores:
    """Score a classifier on sequences (P, L, D) with labels (P,)."""
    logits = predict(model, x)
    labels = _tensors("x", x, "y", y, model)[1]
    if labels.is_floating_point():
        raise TypeError(f"y must be integer class labels, got {labels.dtype}")
    loss = float(nn.functional.cross_entropy(logits.double(), labels))
    confidence, predicted = logits.double().softmax(dim=-1).max(dim=-1)
    correct = (predicted == labels).double()
    bins = (confidence * 10).long().clamp(max=9)
    gap = torch.zeros(10, dtype=torch.float64).index_add_(0, bins, correct - confidence)
    return Scores(loss, float(correct.mean()), float(gap.abs().sum() / len(labels)))


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the weights as safetensors: data only, never code."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(path))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read weights written by :func:`save_weights` into ``model``, strictly."""
    model.load_state_dict(load_file(str(path)))


def _inputs(name: str, x: ArrayLike, model: SequenceModel) -> Tensor:
    inputs = _checks.real_array(name, x, ndim=(3,), what="sequences (P, L, D)")
    if inputs.shape[2] != model.d_input:
        raise ValueError(f"{name} must have {model.d_input} channels (the model's d_input), got shape {inputs.shape}")
    return torch.tensor(inputs, dtype=torch.float32)


def _tensors(x_name: str, x: ArrayLike, y_name: str, y: ArrayLike, model: SequenceModel) -> tuple[Tensor, Tensor]:
    inputs = _inputs(x_name, x, model)
    target = _checks.real_array(y_name, y, ndim=(1, 2, 3), what="labels (P,) or targets (P, K)")
    if len(target) != len(inputs):
        raise ValueError(
            f"{y_name} must hold one target per sequence of {x_name} ({len(inputs)}), got shape {target.shape}"
        )
    if np.asarray(y).dtype.kind in "iub":
        d_output = model.decoder.out_features
        if target.min() < 0 or target.max() >= d_output:
            raise ValueError(
                f"{y_name} must be class labels in [0, {d_output - 1}], got [{target.min():.0f}, {target.max():.0f}]"
            )
        return inputs, torch.tensor(target, dtype=torch.int64)
    if target.ndim == 1:
        target = target[:, None]
    return inputs, torch.tensor(target, dtype=torch.float32)


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

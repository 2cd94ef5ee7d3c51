"""Trials: one training run as a plain configuration, its record as a row, and a study as a table of rows.

A study is recorded once (minutes to hours) under ``results/`` with its provenance; notebooks replay it and retrain a
small slice. Running it again runs only what is missing.
"""

import argparse
import copy
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import ArrayLike

from tdi_lib import _checks, datasets
from tdi_lib.gain import compare_features, compare_starts, forecast_gain, label_noise
from tdi_lib.matching import spectral_loss, tdi_init_
from tdi_lib.model import SequenceModel
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum, lengths_of
from tdi_lib.ssm import poles_random
from tdi_lib.store import Store
from tdi_lib.sweep import sweep
from tdi_lib.training import FitResult, evaluate, fit, fit_many, predict

__all__ = [
    "DEEP_MIDDLE",
    "DEEP_NAMES",
    "DEEP_SIZES",
    "INITS",
    "RESPONSE",
    "STUDIES",
    "TOGETHER",
    "Trial",
    "autocorrelation_steps",
    "best_so_far",
    "deep_trials",
    "find_trial",
    "forecast_config",
    "forecast_trial",
    "provenance",
    "read_study",
    "record_study",
    "replay",
    "run_config",
    "run_configs",
    "run_trial",
    "run_trials",
    "with_gain",
]

BANKS: dict[str, dict[str, Any]] = {
    "flat": {"method": "flat"},
    "tdi": {},
    "cross": {"method": "cross"},
    "guarded": {"guard": True},
    "half": {"share": 0.5},
    "flat-half": {"method": "flat", "share": 0.5},
}
INITS = ("lin", "inv", "legs", "real", "random", "dfout", "scaled", "acf", *BANKS)
"""What a trial can start from: named initialisations (``scaled``: S4D-Lin with frequencies times 3; ``random``:
:func:`~tdi_lib.ssm.poles_random`, from a generator of its own, so that all else is as with S4D-Lin); ``acf``, S4D-Lin
with steps from :func:`autocorrelation_steps`; the ``flat`` bank; ours, ``tdi``, and ``guarded``, which is ours where
the samples say that it helps and S4D-Lin elsewhere; the paper's, ``cross``; ``half`` and ``flat-half``: every second
channel of the first layer from ours, or from the flat bank, the others S4D-Lin's."""

RESPONSE = np.linspace(0, math.pi, 64)
"""Frequencies, rad/sample, at which a row holds the first layer's power response."""


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """One training run. Two trials that differ only in ``init`` share data, batches and every other initial value.

    Attributes:
        dataset: a name of :func:`tdi_lib.datasets.available`.
        n: training examples, the validation part included.
        seed: of the subset, the initial values and the order of batches.
        init: one of :data:`INITS`.
        d_model: see :class:`~tdi_lib.model.SequenceModel` for this and the next two.
        d_state: full state size.
        n_layers: depth.
        max_steps: see :func:`~tdi_lib.training.fit` for this and the next three.
        patience: validations without improvement before stopping.
        batch_size: samples per step.
        lr: learning rate of all but the poles.
        layers: which layers are matched, see :func:`~tdi_lib.matching.tdi_init_`; ``first`` unless ``init`` is a bank.
        dt_min: least of the steps, see :class:`~tdi_lib.ssm.DiagonalSSM`. Of ``acf`` only ``dt_max / dt_min`` counts.
        dt_max: largest of them.
        pretrain_steps: before the training, learn for at most so many steps to predict every next value of the same
            training sequences (self-pretraining, arXiv 2310.02980); everything but the decoder is kept.
    """

    dataset: str
    n: int
    seed: int
    init: str
    d_model: int = 32
    d_state: int = 32
    n_layers: int = 2
    max_steps: int = 400
    patience: int = 16
    batch_size: int = 32
    lr: float = 5e-3
    layers: str = "first"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    pretrain_steps: int = 0


TOGETHER = ("dataset", "d_model", "d_state", "n_layers", "max_steps", "patience", "batch_size", "lr")
"""What trials must have in common to be trained at once."""

DEEP_SIZES = {
    "activities": (50, 200, 800, 7415),
    "chlorine": (50, 200, 467),
    "cricketx": (50, 200, 390),
    "ecg5000": (50, 200, 500),
    "electric": (50, 200, 800, 8926),
    "forda": (50, 200, 800, 3601),
    "freezer": (50, 150),
    "watch": (50, 200, 1328),
}
"""Data sets and numbers of examples of the deep study; the last number is all there are."""


DEEP_NAMES = {
    "activities": "activities",
    "chlorine": "Chlorine",
    "cricketx": "CricketX",
    "ecg5000": "ECG5000",
    "electric": "ElectricDevices",
    "forda": "FordA",
    "freezer": "Freezer",
    "watch": "watch",
}
"""What the book calls them."""

DEEP_MIDDLE = {dataset: sizes[-1] if len(sizes) < 3 else sizes[1] for dataset, sizes in DEEP_SIZES.items()}
"""The one number of examples at which everything is compared: 200, or all where there are fewer."""

_OTHERS = ("cross", "flat", "inv", "legs", "real", "random", "dfout", "scaled", "acf")


def deep_trials(
    seeds: Iterable[int], start_seeds: Iterable[int], rest_seeds: Iterable[int], *, everywhere: bool = False
) -> list[Trial]:
    """The deep study: few to all examples of eight real sets from S4D-Lin, from a matched layer and from a half of one;
    and at one middling size every other start, a grid of steps, self-pretraining, and the choice of layers. Training
    ends after 400 steps, on more than a thousand examples after 1,000; where that may be too soon, also after 3,000.

    Args:
        seeds: of the comparison over sizes.
        start_seeds: of the other starts.
        rest_seeds: of everything else.
        everywhere: compare every start at every size, 100 and 300 included: five sizes or more, but for Freezer.
    """

    def trial(dataset: str, n: int, seed: int, init: str, **options: Any) -> Trial:
        return Trial(dataset, n, seed, init, max_steps=400 if n <= 1000 else 1000, patience=10, **options)

    # slices that notebooks train live and compare
    trials = [
        Trial("ecg5000", 50, 0, "half", max_steps=50),
        Trial("ecg5000", 50, 0, "tdi", max_steps=50, n_layers=4, layers="each"),
        Trial("ecg5000", 50, 0, "lin", max_steps=50, pretrain_steps=50),
    ]
    for seed in seeds:
        for dataset, sizes in DEEP_SIZES.items():
            for n in [n for n in sorted({100, 300, *sizes}) if n <= sizes[-1]] if everywhere else sizes:
                # 800 is else a point of the default's curve only, but for FordA
                only = n == 800 and dataset != "forda" and not everywhere
                starts = ("lin",) if only else ("lin", "tdi", "half", *(_OTHERS if everywhere else ()))
                trials += [trial(dataset, n, seed, init) for init in starts]
    trials += [
        trial(dataset, n, seed, init) for seed in start_seeds for dataset, n in DEEP_MIDDLE.items() for init in _OTHERS
    ]
    for seed in rest_seeds:
        for dataset, n in DEEP_MIDDLE.items():
            trials += [
                trial(dataset, n, seed, "lin", dt_min=low, dt_max=high)
                for low in (1e-4, 1e-3, 1e-2)
                for high in (1e-2, 1e-1, 1.0)
                if low < high and (low, high) != (1e-3, 1e-1)
            ]
            trials.append(trial(dataset, n, seed, "lin", pretrain_steps=400))
            trials += [
                Trial(dataset, size, seed, init, max_steps=3000, patience=10)
                for size in (n, *(size for size in DEEP_SIZES[dataset] if size > 1000))
                for init in ("lin", "tdi", "half")
            ]
        trials += [
            trial(dataset, 200, seed, init, n_layers=4, layers=layers)
            for dataset in ("activities", "ecg5000", "forda", "watch")
            for init, layers in (
                ("lin", "first"),
                *(("tdi", layers) for layers in ("first", "2", "3", "4", "all", "composite", "each")),
            )
        ]
    return list(dict.fromkeys(trials))


STUDIES: dict[str, list[Trial]] = {
    "deep": deep_trials(range(10), range(2), range(1)),
    "deep-gpu": deep_trials(range(10), range(10), range(10), everywhere=True),  # not recorded yet: hours on a GPU
    # nothing is trained: what can be said beforehand; half of 40 gestures of 12 kinds are too few to say anything
    "forecasts": [
        t
        for t in deep_trials(range(10), [], [])
        if t.init == "lin" and t.max_steps >= 400 and t.n != 800 and (t.dataset, t.n) != ("cricketx", 50)
    ],
    "low_data": [
        Trial(dataset, n, seed, init)
        for dataset, seeds in (("forda", 5), ("mnist5k", 3))
        for n in (50, 200, 800)
        for seed in range(seeds)
        for init in ("lin", "flat", "tdi")
    ]
    # the slice that the notebook trains live and compares
    + [Trial("forda", 50, 0, init, max_steps=50) for init in ("lin", "tdi")],
    "tones": [
        Trial(f"tones-{percent}", 160, seed, init, max_steps=300)  # 128 to train on, 32 to choose the step
        for percent, inits in (
            (25, ("lin", "inv", "legs", "dfout", "flat", "tdi", "cross")),
            (22, ("lin", "flat", "tdi")),
            (20, ("lin", "flat", "tdi")),
        )
        for seed in range(5)
        for init in inits
    ],
}
"""The recorded studies; ``python -m tdi_lib.trials NAME FILE`` records one, or what is missing of it."""


def autocorrelation_steps(x: ArrayLike, *, ratio: float = 100.0) -> tuple[float, float]:
    r"""Range of the steps by the input's autocorrelation: our reading of arXiv 2411.19455, whose rule was not at hand.

    Around :math:`\Delta = (L\, \lambda_{\max}(E[u u^\top]))^{-1/2}`, log-uniform as the default and as wide. For white
    input of unit power that is :math:`L^{-1/2}`, for a constant one :math:`1/L`. The input is taken as stationary:
    E[u u^T] is the Toeplitz matrix of the autocorrelation, which needs far fewer samples than a covariance.

    Args:
        x: training inputs (P, L) or (P, L, D), of unit power; channels are averaged.
        ratio: ``dt_max / dt_min``.

    >>> low, high = autocorrelation_steps(np.ones((4, 100)))
    >>> round(low * high * 100**2, 6), round(high / low, 6)
    (1.0, 100.0)
    """
    inputs = _checks.real_array("x", x, ndim=(2, 3), what="inputs (P, L) or (P, L, D)")
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    length = inputs.shape[1]
    power = (np.abs(np.fft.rfft(inputs, n=2 * length, axis=1)) ** 2).mean(axis=(0, 2))
    lags = np.fft.irfft(power)[:length] / np.arange(length, 0, -1)  # products of each lag, averaged
    toeplitz = scipy.sparse.linalg.LinearOperator(
        (length, length), matvec=functools.partial(scipy.linalg.matmul_toeplitz, lags), dtype=float
    )
    start = np.random.default_rng(0).normal(size=length)
    largest = scipy.sparse.linalg.eigsh(toeplitz, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
    centre, half = (length * largest) ** -0.5, math.sqrt(_checks.real_number("ratio", ratio, low=1.0))
    return float(centre / half), float(centre * half)


@dataclasses.dataclass
class _Prepared:
    """A trial about to be trained: its model, its data by their own scale, and what is known so far."""

    trial: Trial
    model: SequenceModel
    data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    source: datasets.SequenceDataset
    scale: tuple[np.ndarray, np.ndarray]
    task: TaskSpectrum
    init_seconds: float
    start: dict[str, Any]
    drawn: torch.Tensor  # state of the generator once the model was drawn

    def row(self, result: FitResult, device: str, together: int) -> dict[str, Any]:
        mean, scale = self.scale
        x_test = (self.source.x_test - mean) / scale
        scores = evaluate(self.model.to(device), x_test, self.source.y_test, lengths=lengths_of(x_test))
        end = _look(self.model.cpu(), self.task)
        return dataclasses.asdict(self.trial) | {
            "loss": scores.loss,
            "accuracy": scores.accuracy,
            "calibration": scores.calibration,
            "best_step": result.best_step,
            "steps": result.history[-1]["step"],
            "seconds": result.seconds,
            "init_seconds": self.init_seconds,
            "method": self.task.method,
            "spectral_start": self.start["alignment"][0],
            "spectral_end": end["alignment"][0],
            "alignment_start": self.start["alignment"],
            "alignment_end": end["alignment"],
            "response_start": self.start["response"],
            "response_end": end["response"],
            "history": [
                {name: value if math.isfinite(value) else None for name, value in row.items()} for row in result.history
            ],
            "together": together,
        }


@functools.lru_cache(maxsize=1)  # trials that are trained together share one
def _load(name: str, progress: bool) -> datasets.SequenceDataset:
    return datasets.load(name, progress=progress)


def _prepare(trial: Trial, progress: bool) -> _Prepared:
    _checks.choice("trial.init", trial.init, INITS)
    bank = trial.init in BANKS
    if not bank and trial.layers != "first":
        raise ValueError(f"trial.layers must be first with init {trial.init}, got {trial.layers!r}")
    data = _load(trial.dataset, progress)
    part = data.subset(trial.n, seed=trial.seed)
    # the scale of the data from the training part alone
    lengths = lengths_of(part.x)
    if lengths is not None and trial.pretrain_steps > 0:
        raise ValueError(f"trial.pretrain_steps must be 0 where sequences are padded, got {trial.pretrain_steps}")
    inside = part.x if lengths is None else part.x[np.arange(data.length) < lengths[:, None]][:, None]
    mean, scale = inside.mean(axis=(0, 1)), inside.std(axis=(0, 1))
    x, x_val = ((a - mean) / scale for a in (part.x, part.x_val))

    generator = torch.Generator().manual_seed(trial.seed)
    init_seconds, start = 0.0, time.perf_counter()
    steps = (trial.dt_min, trial.dt_max)
    if trial.init == "acf":
        steps = autocorrelation_steps(x, ratio=trial.dt_max / trial.dt_min)
        init_seconds = time.perf_counter() - start
    init: Any = "lin" if bank or trial.init == "acf" else trial.init
    if init == "random":
        draws = np.random.default_rng(trial.seed)
        init = lambda n_pairs: poles_random(trial.d_model, n_pairs, generator=draws)  # noqa: E731
    model = SequenceModel(
        data.d_input,
        data.n_classes,
        d_model=trial.d_model,
        d_state=trial.d_state,
        n_layers=trial.n_layers,
        init=init,
        dt_min=steps[0],
        dt_max=steps[1],
        generator=generator,
    )
    drawn = generator.get_state()
    if bank:
        report = tdi_init_(
            model,
            x,
            part.y,
            layers=trial.layers,
            lengths=lengths,
            generator=generator,
            **BANKS[trial.init],
        )
        init_seconds = report.seconds
    # the yardstick of every init, whatever it started from
    task = (
        report.spectrum
        if bank and "method" not in BANKS[trial.init]
        else estimate_task_spectrum(x, part.y, lengths=lengths)
    )
    if trial.pretrain_steps > 0:
        init_seconds += _pretrain_(model, trial, x, x_val, progress)
    sets = (x, part.y, x_val, part.y_val)
    return _Prepared(trial, model, sets, data, (mean, scale), task, init_seconds, _look(model, task), drawn)


def _fit(model: SequenceModel, sets: tuple[np.ndarray, ...], trial: Trial, max_steps: int, progress: bool) -> FitResult:
    """Train as the trial says, alone."""
    x, y, x_val, y_val = sets
    return fit(
        model,
        x,
        y,
        x_val=x_val,
        y_val=y_val,
        lengths=lengths_of(x),
        lengths_val=lengths_of(x_val),
        max_steps=max_steps,
        patience=trial.patience,
        batch_size=trial.batch_size,
        lr=trial.lr,
        seed=trial.seed,
        progress=progress,
        device="gpu" if torch.cuda.is_available() else "cpu",
    )


def _pretrain_(model: SequenceModel, trial: Trial, x: np.ndarray, x_val: np.ndarray, progress: bool) -> float:
    """Teach the model, but for its decoder, to predict every next value of the training sequences; returns seconds."""
    predictor = SequenceModel(
        model.d_input,
        model.d_input,
        d_model=trial.d_model,
        d_state=trial.d_state,
        n_layers=trial.n_layers,
        pooling="none",
        generator=torch.Generator().manual_seed(trial.seed),
    )
    trunk = {name: value for name, value in model.state_dict().items() if not name.startswith("decoder.")}
    predictor.load_state_dict(trunk, strict=False)
    sets = x[:, :-1], x[:, 1:], x_val[:, :-1], x_val[:, 1:]
    result = _fit(predictor, sets, trial, trial.pretrain_steps, progress)
    model.load_state_dict({name: predictor.state_dict()[name] for name in trunk}, strict=False)
    return result.seconds


@torch.no_grad()
def _look(model: SequenceModel, task: TaskSpectrum) -> dict[str, Any]:
    """Every layer's spectral loss to the task's spectrum, and the first one's power response, to four digits."""
    response = model.ssms[0].frequency_response(torch.as_tensor(RESPONSE)).abs().square().mean(dim=0)
    return {
        "alignment": [spectral_loss(ssm, task) for ssm in model.ssms],
        "response": [float(f"{power:.4g}") for power in response.tolist()],
    }


def run_trial(trial: Trial, *, progress: bool = False) -> dict[str, Any]:
    """Train and score one trial; returns its row.

    Besides the configuration:

    - test ``loss`` (nats), ``accuracy`` and ``calibration``;
    - ``best_step``, ``steps``, and at every validation, in ``history``, ``step``, ``train_loss`` and ``val_loss``
      (None where it was infinite);
    - ``seconds`` of the training, ``init_seconds`` of what its start needed besides drawing, and how many trials were
      trained ``together``, among which the seconds were shared out;
    - the order of task that was found (``method``), and every layer's spectral loss to the task's spectrum when
      training starts and when it has ended (``alignment_start``, ``alignment_end``; the first layer's also by itself:
      ``spectral_start``, ``spectral_end``);
    - the first layer's power response, mean over channels, at :data:`RESPONSE` (``response_start``, ``response_end``).

    Raises:
        ValueError: naming a field of the trial.
        FloatingPointError: if the training diverged.
    """
    prepared = _prepare(trial, progress)
    result = _fit(prepared.model, prepared.data, trial, trial.max_steps, progress)
    return prepared.row(result, _device(), 1)


def forecast_trial(trial: Trial) -> dict[str, Any]:
    """What can be said of a matched start before training, from the trial's training examples alone; returns a row.

    Besides the configuration, whose ``init`` must be ``lin``, the start to be judged against:

    - ``layer_base``, ``layer_rival``, ``layer_difference``, ``layer_error``: mean squared misses of a linear read-out
      of the untrained first layer, default and matched, on examples that neither saw
      (:func:`~tdi_lib.gain.compare_starts`: the guard);
    - ``model_base`` and so on: the same for the pooled outputs of the whole untrained model, nonlinearities and mixing
      included (:func:`~tdi_lib.gain.compare_features`);
    - ``theory``: for a task of first order the logarithm of the ratio of the two generalisation errors, by the learning
      curves of the two layers' kernels (:func:`~tdi_lib.gain.forecast_gain`); None for others;
    - ``mismatch``: spectral loss of the default first layer to the task's spectrum; ``method``: order of the task;
    - ``forecast_seconds``: what all this took.
    """
    if trial.init != "lin" or trial.pretrain_steps:
        raise ValueError(f"trial.init must be lin, without pretraining, to be judged against, got {trial.init!r}")
    prepared, start = _prepare(trial, False), time.perf_counter()
    x, y = prepared.data[:2]

    def matched(x_half: np.ndarray, y_half: np.ndarray) -> SequenceModel:
        model = copy.deepcopy(prepared.model)
        generator = torch.Generator()
        generator.set_state(prepared.drawn)
        tdi_init_(model, x_half, y_half, layers=trial.layers, generator=generator)
        return model

    def kernels(model: SequenceModel) -> np.ndarray:
        return model.ssms[0].kernel(x.shape[1]).double().numpy()

    order = "second" if prepared.task.method == "discriminative" else "first"
    with torch.no_grad():
        theory = None
        if order == "first":
            rival = kernels(matched(x, y))
            noise = label_noise(rival, x, y)
            theory = forecast_gain(kernels(prepared.model), rival, prepared.task, len(x), noise)
        asked = {
            "layer": compare_starts(
                lambda *_: kernels(prepared.model), lambda *half: kernels(matched(*half)), x, y, order=order
            ),
            "model": compare_features(
                lambda *_: functools.partial(_pooled, prepared.model),
                lambda *half: functools.partial(_pooled, matched(*half)),
                x,
                y,
            ),
        }
    row = dataclasses.asdict(trial) | {"method": prepared.task.method, "theory": theory}
    row["mismatch"] = prepared.start["alignment"][0]
    for name, found in asked.items():
        row |= {
            f"{name}_base": found.base,
            f"{name}_rival": found.rival,
            f"{name}_difference": found.difference,
            f"{name}_error": found.standard_error,
        }
    return row | {"forecast_seconds": time.perf_counter() - start}


def _pooled(model: SequenceModel, x: np.ndarray) -> np.ndarray:
    """What the model hands to its decoder (P, H)."""
    seen: list[torch.Tensor] = []
    hook = model.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        predict(model, x)
    finally:
        hook.remove()
    return torch.cat(seen).double().numpy()


def run_trials(trials: Sequence[Trial], *, progress: bool = False) -> list[dict[str, Any] | Exception]:
    """The rows of :func:`run_trial`, of trials that are trained at once (:func:`~tdi_lib.training.fit_many`).

    Trials that differ in more than data subset, seed and initial values (see :data:`TOGETHER`) form groups, which are
    trained one after another. In place of the row of a trial that fails stands its error.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, trial in enumerate(trials):
        groups.setdefault(tuple(getattr(trial, name) for name in TOGETHER), []).append(index)
    rows: dict[int, dict[str, Any] | Exception] = {}
    for indices in groups.values():
        prepared: dict[int, _Prepared] = {}
        for index in indices:
            ready = _attempt(functools.partial(_prepare, trials[index], progress))
            if isinstance(ready, Exception):
                rows[index] = ready
            else:
                prepared[index] = ready
        if not prepared:
            continue
        common = trials[indices[0]]
        try:
            results = fit_many(
                [p.model for p in prepared.values()],
                [p.data for p in prepared.values()],
                seeds=[p.trial.seed for p in prepared.values()],
                max_steps=common.max_steps,
                patience=common.patience,
                batch_size=common.batch_size,
                lr=common.lr,
                progress=progress,
                device=_device(),
            )
        except Exception:  # one may have failed all, or all together be too large: alone each answers for itself
            rows |= {
                index: _attempt(functools.partial(run_trial, trials[index], progress=progress)) for index in prepared
            }
            continue
        for (index, ready), result in zip(prepared.items(), results, strict=True):
            if isinstance(result, Exception):
                rows[index] = result
            else:
                rows[index] = _attempt(functools.partial(ready.row, result, _device(), len(prepared)))
    return [rows[index] for index in range(len(trials))]


def _attempt(function: Callable[[], Any]) -> Any:
    """What it returns, or its error: the others can still be trained."""
    try:
        return function()
    except Exception as error:
        return error


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache  # asked when a process starts to work: a later commit is not what it runs
def provenance() -> dict[str, str]:
    """Where a result comes from: commit, versions, device.

    The commit is marked ``-dirty`` if a tracked file was changed, but for those in ``results``: a study writes there.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        folder = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout.strip()

    commit = git("describe", "--always", "--abbrev=12")
    if git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"):
        commit += "-dirty"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "commit": commit or "unknown",
        "device": gpu or f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy")},
    }


def record_study(
    trials: Iterable[Trial],
    path: str | Path,
    *,
    folder: str | Path | None = None,
    together: int = 1,
    scheduler: str | None = None,
    n_workers: int | None = None,
    progress: bool = True,
    function: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Run the trials that ``path`` (Parquet) does not hold yet, write it anew with their rows, and return them all.

    The trials run as a :func:`~tdi_lib.sweep.sweep`; its records lie in ``folder`` until the end, so a study that was
    interrupted, in whatever way, goes on where it was when it is started again. Rows carry :func:`provenance`.
    A trial that fails is missing in the table; a warning says so, and the folder ``failed`` why.

    Args:
        trials: the study.
        path: the recorded study; trials that it holds are not run again.
        folder: of the sweep's store; ``_build/sweeps`` and the file's name if omitted.
        together: how many trials are trained at once on a worker, at most (:func:`run_trials`); for a GPU.
        scheduler, n_workers, progress: as for :func:`~tdi_lib.sweep.sweep`.
        function: what is done with a configuration: :func:`run_config`, or :func:`forecast_config`.

    Raises:
        ValueError: if a ``function`` is given and ``together`` is not 1; if ``path`` and ``folder`` hold two different
            records of a trial.
        RuntimeError: if there is not one row to write.
    """
    path, together = Path(path), _checks.positive_int("together", together)
    if function is not None and together > 1:
        raise ValueError(f"together must be 1 with a function of one configuration, got {together}")
    store = Store(Path("_build", "sweeps", path.stem) if folder is None else folder)
    for row in _read(path) if path.exists() else []:
        config = {name: row[name] for name in _FIELDS}
        if config not in store:
            store.put(config, {str(name): value for name, value in row.items() if name not in config})
        elif store.get(config)["provenance"] != row["provenance"]:
            raise ValueError(
                f"folder must not hold another record of a trial than {path}, but {store.folder} does, of {config}: "
                "one of the two is stale; remove it"
            )
    report = sweep(
        function or (run_config if together == 1 else run_configs),
        [dataclasses.asdict(trial) for trial in sorted(set(trials), key=lambda t: (t.seed, t))],  # whole seeds first
        store.folder,
        batch=None if together == 1 else functools.partial(_batches, together),
        scheduler=scheduler,
        n_workers=n_workers,
        progress=progress,
    )
    if report.failed:
        warnings.warn(f"{len(report.failed)} trials failed, see {store.folder / 'failed'}", stacklevel=2)
    rows = sorted(store.records(), key=_trial_of)
    if not rows:
        raise RuntimeError(f"trials must not all fail, but none of {len(report.failed)} left a row")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.part")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_complete(rows)), temporary)
    os.replace(temporary, path)
    return read_study(path)


def run_config(config: dict[str, Any]) -> dict[str, Any]:
    """:func:`run_trial` in plain values: what it adds to a configuration, and where that comes from."""
    origin = provenance()
    return _measured(config, run_trial(Trial(**config)), origin)


def forecast_config(config: dict[str, Any]) -> dict[str, Any]:
    """:func:`forecast_trial` in plain values."""
    origin = provenance()
    return _measured(config, forecast_trial(Trial(**config)), origin)


def run_configs(configs: list[dict[str, Any]]) -> list[dict[str, Any] | Exception]:
    """:func:`run_trials` in plain values."""
    origin = provenance()
    rows = run_trials([Trial(**config) for config in configs])
    return [
        row if isinstance(row, Exception) else _measured(config, row, origin)
        for config, row in zip(configs, rows, strict=True)
    ]


_FUNCTIONS = {"forecasts": forecast_config}  # what else than training a study does with its trials


def read_study(path: str | Path) -> pd.DataFrame:
    """The recorded rows of a study, sorted by configuration.

    Fields of :class:`Trial` that the file does not know, because it is older, have their defaults.
    """
    return pd.DataFrame(_read(path)).sort_values(_FIELDS, ignore_index=True)


def replay(study: str, profile: str = "book", *, results: str | Path = "../results") -> pd.DataFrame:
    """The rows of a study that a notebook stands on: those recorded, or at profile ``full`` all run anew.

    Args:
        study: one of :data:`STUDIES`.
        profile: of the notebook. ``full`` writes to ``_build/full`` beside ``results`` and, like any study, goes on
            where it was interrupted.
        results: where the recorded studies lie. ``deep-gpu.parquet``, which holds all that ``deep`` does, goes before
            it once there is one.

    Raises:
        ValueError: for an unknown study.
    """
    _checks.choice("study", study, tuple(STUDIES))
    if profile == "full":
        build = Path(results).parent / "_build" / "full"
        return record_study(
            STUDIES[study], build / f"{study}.parquet", folder=build / "sweeps" / study, function=_FUNCTIONS.get(study)
        )
    wider = Path(results, f"{study}-gpu.parquet")
    return read_study(wider if wider.exists() else Path(results, f"{study}.parquet"))


def with_gain(table: pd.DataFrame) -> pd.DataFrame:
    """Every run beside that of S4D-Lin on the same examples, with the same seed and the same training.

    Adds ``base_loss``, ``base_accuracy`` and ``gain``, the log of the ratio of test losses: positive where the run is
    better than S4D-Lin; ``validation``, the lowest validation loss; and ``plain``, whether the run differs from its
    partner in ``init`` alone. Runs without a partner are left out.

    >>> row = dataclasses.asdict(Trial("forda", 200, 0, "lin")) | {"loss": 0.3, "accuracy": 0.9}
    >>> with_gain(pd.DataFrame([row, row | {"init": "tdi", "loss": 0.15}])).gain.round(2).tolist()
    [0.0, 0.69]
    """
    varied = ["layers", "dt_min", "dt_max", "pretrain_steps"]
    partner = [name for name in _FIELDS if name not in {"init", *varied}]
    lowest = [best_so_far(history or (), [math.inf])[0] for history in table.get("history", [None] * len(table))]
    table = table.assign(plain=(table[varied] == [_DEFAULTS[name] for name in varied]).all(axis=1), validation=lowest)
    base = table[(table.init == "lin") & table.plain][[*partner, "loss", "accuracy"]]
    base = base.rename(columns={"loss": "base_loss", "accuracy": "base_accuracy"})
    joined = table.merge(base, on=partner, how="inner", validate="many_to_one")
    return joined.assign(gain=np.log(joined.base_loss / joined.loss))


def best_so_far(history: Iterable[Mapping[str, Any]], steps: Iterable[float]) -> np.ndarray:
    """Lowest validation loss of a recorded ``history`` up to each of the ``steps`` (S,); NaN before there was one.

    >>> history = [{"step": 25, "val_loss": 0.7}, {"step": 50, "val_loss": None}, {"step": 75, "val_loss": 0.4}]
    >>> best_so_far(history, [10, 60, 75])
    array([nan, 0.7, 0.4])
    """
    seen = [(row["step"], row["val_loss"]) for row in history if row["val_loss"] is not None]
    return np.array([min((loss for at, loss in seen if at <= step), default=math.nan) for step in steps])


def find_trial(table: pd.DataFrame, trial: Trial) -> dict[str, Any]:
    """The recorded row of one trial.

    Raises:
        KeyError: if the table does not hold it.
    """
    for row in table.to_dict("records"):
        if _trial_of(row) == trial:
            return {str(name): value for name, value in row.items()}
    raise KeyError(f"{trial} is not among the {len(table)} recorded trials")


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Trial)}
_FIELDS = list(_DEFAULTS)


def _trial_of(row: dict[str, Any]) -> Trial:
    return Trial(**{name: row[name] for name in _FIELDS})


def _read(path: str | Path) -> list[dict[str, Any]]:
    """Rows in plain values; pandas would turn lists into arrays and the None of an older row into NaN."""
    return _complete(pyarrow.parquet.read_table(path).to_pylist())


def _complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one form: what older ones lack is a default, or None."""
    names = dict.fromkeys([*_FIELDS, *(name for row in rows for name in row)])
    return [{name: row.get(name, _DEFAULTS.get(name)) for name in names} for row in rows]


def _measured(config: dict[str, Any], row: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in config} | {"provenance": json.dumps(origin)}


def _batches(size: int, configs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Lists of at most ``size`` trials that can be trained at once, of like sizes of data."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for config in sorted(configs, key=lambda config: config["n"]):
        groups.setdefault(tuple(config[name] for name in TOGETHER), []).append(config)
    return [group[first : first + size] for group in groups.values() for first in range(0, len(group), size)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a study from the command line; 0 if nothing of it is missing at the end."""
    parser = argparse.ArgumentParser(description="Record a study, or what is missing of it.")
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("file", type=Path, help="Parquet file, for example results/low_data.parquet")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler; a local cluster if omitted")
    parser.add_argument("--workers", type=int, help="processes of the local cluster; 0: this process, without Dask")
    parser.add_argument("--together", type=int, default=1, help="trials to train at once on a worker, for a GPU")
    options = parser.parse_args(arguments)
    table = record_study(
        STUDIES[options.study],
        options.file,
        function=_FUNCTIONS.get(options.study),
        together=options.together,
        scheduler=options.scheduler,
        n_workers=options.workers,
    )
    return int(not {_trial_of(row) for row in table.to_dict("records")}.issuperset(STUDIES[options.study]))


if __name__ == "__main__":
    # by its importable name, which the workers need: they know no __main__
    from tdi_lib import trials

    sys.exit(trials.main())

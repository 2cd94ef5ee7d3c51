"""One training run, or one forecast, as a row: data, model, start, training, scores."""

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import ArrayLike

from tdi_lib.data import sets
from tdi_lib.samples import lengths_of, one_of, real_array, real_number
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
from tdi_lib.ssm import SequenceModel, poles_random
from tdi_lib.study.plans import BANKS, INITS, TOGETHER, Trial
from tdi_lib.tdi import compare_features, compare_starts, forecast_gain, label_noise, spectral_loss, tdi_init_
from tdi_lib.training import FitResult, evaluate, fit_many, predict

__all__ = ["RESPONSE", "autocorrelation_steps", "forecast_trial", "run_trial", "run_trials"]

RESPONSE = np.linspace(0, math.pi, 64)
"""Frequencies, rad/sample, at which a row holds the first layer's power response."""


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
    inputs = real_array("x", x, ndim=(2, 3), what="inputs (P, L) or (P, L, D)")
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    length = inputs.shape[1]
    power = (np.abs(np.fft.rfft(inputs, n=2 * length, axis=1)) ** 2).mean(axis=(0, 2))
    lags = np.fft.irfft(power)[:length] / np.arange(length, 0, -1)  # products of each lag, averaged
    toeplitz = scipy.sparse.linalg.LinearOperator(
        (length, length), matvec=functools.partial(scipy.linalg.matmul_toeplitz, lags), dtype=float
    )
    start = np.random.default_rng(0).normal(size=length)
    largest = scipy.sparse.linalg.eigsh(toeplitz, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
    center, half = (length * largest) ** -0.5, math.sqrt(real_number("ratio", ratio, low=1.0))
    return float(center / half), float(center * half)


@dataclasses.dataclass
class _Prepared:
    """A trial about to be trained: its model, its data by their own scale, and what is known so far."""

    trial: Trial
    model: SequenceModel
    data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    source: sets.SequenceDataset
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


def scale_of(x: np.ndarray) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Lengths (P,) if any sequence of x (P, L, D) is padded; mean and deviation of every channel (D,), padding apart.

    >>> lengths, mean, scale = scale_of(np.array([[[1.0], [3.0]], [[2.0], [np.nan]]]))
    >>> lengths.tolist(), mean.tolist()
    ([2, 1], [2.0])
    """
    lengths = lengths_of(x)
    inside = x if lengths is None else x[np.arange(x.shape[1]) < lengths[:, None]][:, None]
    return lengths, inside.mean(axis=(0, 1)), inside.std(axis=(0, 1))


@functools.lru_cache(maxsize=1)  # trials that are trained together share one
def load_set(name: str) -> sets.SequenceDataset:
    return sets.load(name, progress=False)


def _prepare(trial: Trial) -> _Prepared:
    one_of("trial.readout", trial.readout, ("gradient",))
    one_of("trial.init", trial.init, INITS)
    bank = trial.init in BANKS
    if not bank and trial.layers != "first":
        raise ValueError(f"trial.layers must be first with init {trial.init}, got {trial.layers!r}")
    data = load_set(trial.dataset)
    part = data.subset(trial.n, seed=trial.seed)
    # the scale of the data from the training part alone
    lengths, mean, scale = scale_of(part.x)
    if lengths is not None and trial.pretrain_steps > 0:
        raise ValueError(f"trial.pretrain_steps must be 0 where sequences are padded, got {trial.pretrain_steps}")
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
        init_seconds += _pretrain_(model, trial, x, x_val)
    sets = (x, part.y, x_val, part.y_val)
    return _Prepared(trial, model, sets, data, (mean, scale), task, init_seconds, _look(model, task), drawn)


def _fit(
    models: list[SequenceModel], data: list[tuple[np.ndarray, ...]], trials: list[Trial], max_steps: int
) -> list[FitResult | FloatingPointError]:
    """Train as the trials say, at once."""
    common = trials[0]
    return fit_many(
        models,
        [(x, y, x_val, y_val) for x, y, x_val, y_val in data],
        seeds=[trial.seed for trial in trials],
        lengths=[(lengths_of(x), lengths_of(x_val)) for x, _, x_val, _ in data],
        max_steps=max_steps,
        patience=common.patience,
        batch_size=common.batch_size,
        lr=common.lr,
        progress=False,
        device=_device(),
    )


def _fit_alone(model: SequenceModel, data: tuple[np.ndarray, ...], trial: Trial, max_steps: int) -> FitResult:
    (result,) = _fit([model], [data], [trial], max_steps)
    if isinstance(result, FloatingPointError):
        raise result
    return result


def _pretrain_(model: SequenceModel, trial: Trial, x: np.ndarray, x_val: np.ndarray) -> float:
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
    result = _fit_alone(predictor, sets, trial, trial.pretrain_steps)
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


def run_trial(trial: Trial) -> dict[str, Any]:
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
    prepared = _prepare(trial)
    return prepared.row(_fit_alone(prepared.model, prepared.data, trial, trial.max_steps), _device(), 1)


def forecast_trial(trial: Trial) -> dict[str, Any]:
    """What can be said of a matched start before training, from the trial's training examples alone; returns a row.

    Besides the configuration, whose ``init`` must be ``lin``, the start to be judged against:

    - ``layer_base``, ``layer_rival``, ``layer_difference``, ``layer_error``: mean squared misses of a linear read-out
      of the untrained first layer, default and matched, on examples that neither saw
      (:func:`~tdi_lib.tdi.compare_starts`: the guard);
    - ``model_base`` and so on: the same for the pooled outputs of the whole untrained model, nonlinearities and mixing
      included (:func:`~tdi_lib.tdi.compare_features`);
    - ``theory``: for a task of first order the logarithm of the ratio of the two generalization errors, by the learning
      curves of the two layers' kernels (:func:`~tdi_lib.tdi.forecast_gain`); None for others;
    - ``mismatch``: spectral loss of the default first layer to the task's spectrum; ``method``: order of the task;
    - ``forecast_seconds``: what all this took.
    """
    if trial.init != "lin" or trial.pretrain_steps:
        raise ValueError(f"trial.init must be lin, without pretraining, to be judged against, got {trial.init!r}")
    prepared, start = _prepare(trial), time.perf_counter()
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


def run_trials(trials: Sequence[Trial]) -> list[dict[str, Any] | Exception]:
    """The rows of :func:`run_trial`, of trials that are trained at once (:func:`~tdi_lib.training.fit_many`).

    Trials that differ in more than data subset, seed and initial values (see :data:`~tdi_lib.study.plans.TOGETHER`)
    form groups, which are trained one after another. In place of the row of a trial that fails stands its error.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, trial in enumerate(trials):
        groups.setdefault(tuple(getattr(trial, name) for name in TOGETHER), []).append(index)
    rows: dict[int, dict[str, Any] | Exception] = {}
    for indices in groups.values():
        ready = {index: _attempt(functools.partial(_prepare, trials[index])) for index in indices}
        rows |= {index: each for index, each in ready.items() if isinstance(each, Exception)}
        prepared = {index: each for index, each in ready.items() if isinstance(each, _Prepared)}
        if not prepared:
            continue
        models, data, which = zip(*((each.model, each.data, each.trial) for each in prepared.values()), strict=True)
        results = _attempt(functools.partial(_fit, list(models), list(data), list(which), which[0].max_steps))
        for place, (index, each) in enumerate(prepared.items()):
            if isinstance(results, Exception):  # one may have failed all, or all be too large: alone each answers
                rows[index] = _attempt(functools.partial(run_trial, each.trial))
            elif isinstance(results[place], Exception):
                rows[index] = results[place]
            else:
                rows[index] = _attempt(functools.partial(each.row, results[place], _device(), len(prepared)))
    return [rows[index] for index in range(len(trials))]


def _attempt(function: Callable[[], Any]) -> Any:
    """What it returns, or its error: the others can still be trained."""
    try:
        return function()
    except Exception as error:
        return error


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"

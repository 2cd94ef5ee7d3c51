"""One trainable layer under a linear read-out of all its outputs: three starts, trained alike, many runs side by side.

The model computes :math:`f(u) = \\sum_h m_h^\\top T_h u = v^\\top u` with the Toeplitz matrix :math:`T_h` and the
read-out :math:`m_h` of each channel. Whatever was trained, v is a linear functional, and its error is known without a
test set. The inputs are red, of unit variance, the label a functional of them that listens to one band, plus noise.
"""

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.linalg
import torch
from torch import Tensor

from tdi_lib.data import sets
from tdi_lib.data.synthetic import TONES, autocovariance, band_functionals, tone_noise_power
from tdi_lib.records import provenance
from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
from tdi_lib.ssm import DiagonalSSM, SequenceModel
from tdi_lib.study.analysis import PairedDifference, paired_difference, sample_efficiency
from tdi_lib.tdi import flat_init_, layer_importance, tdi_init_
from tdi_lib.theory import layer_matrix
from tdi_lib.training import evaluate, fit

__all__ = [
    "BANDS",
    "EVERY",
    "LIVE",
    "LIVE_TONES",
    "RATES",
    "SIZES",
    "STARTS",
    "BandTask",
    "RecordedRuns",
    "TrainedLayer",
    "alignment",
    "draw_task",
    "exact_error",
    "record",
    "regression_rows",
    "ridge_error",
    "start_layer",
    "tone_ceiling",
    "tones_rows",
    "tones_truth",
    "train",
    "true_spectrum",
    "with_fresh_weights",
]

LENGTH, CHANNELS, D_STATE, NOISE = 128, 32, 32, 0.3
BANDS = {"mid": 1.2, "high": 2.5, "low": 0.2}
"""Centers of the bands that a target can listen to, rad/sample."""
STARTS = ("lin", "flat", "tdi")
SIZES, RATES = (32, 64, 128, 256, 512), (0, 1e-2, 1e-1)
EVERY = 10
"""Steps between two evaluations."""
LIVE: dict[str, Any] = {"band": "mid", "n": 64, "rate": 1e-2, "draws": (0, 1), "max_steps": 40}
LIVE_TONES: dict[str, Any] = {
    "dataset": "tones-25", "n": 160, "draw": 0, "starts": ("tdi",), "modes": ("trained",), "max_steps": 50,
}  # fmt: skip
"""The slice of the record that chapter 09 trains anew."""
_READ_OUT_RATE, _PATIENCE = 2e-3, 20
_PARTS = ("log_dt", "log_A_real", "A_imag", "C_real_imag")
_RIDGES = np.logspace(-5, 2, 29)  # relative to the mean of the kernel's diagonal
_OMEGA = np.linspace(0, np.pi, LENGTH // 2 + 1)

# ---- the task ------------------------------------------------------------------------------------


class BandTask(NamedTuple):
    """Samples of one task: training and validation part, and the functional w (L,) behind their labels."""

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    w: np.ndarray


@cache
def _covariance() -> np.ndarray:
    """Of the input (L, L)."""
    return scipy.linalg.toeplitz(autocovariance(1, LENGTH))


@cache
def _root() -> np.ndarray:
    return np.linalg.cholesky(_covariance())


def draw_task(band: str, n: int, draw: int, *, what: int = 0, seed: int = 0) -> BandTask:
    """n samples (n, 128) of a random functional that listens to one of :data:`BANDS`, a quarter of them for validation.

    The clean label has variance one, the noise a standard deviation of 0.3. Draws are independent, and so are tasks
    that differ in ``what``; the functional is the same for every n.

    >>> task = draw_task("mid", 64, 0)
    >>> task.x.shape, task.x_val.shape, round(float(exact_error(0 * task.w, task.w)), 9)
    ((48, 128), (16, 128), 1.0)
    """
    rng = np.random.default_rng([seed, what, draw])
    w = band_functionals(BANDS[band], autocovariance(1, LENGTH), 1, generator=rng)[0]
    rng = np.random.default_rng([seed, 10 + what, draw])
    x = rng.standard_normal((n, LENGTH)) @ _root().T
    y = x @ w + NOISE * rng.standard_normal(n)
    return BandTask(x[n // 4 :], y[n // 4 :], x[: n // 4], y[: n // 4], w)


def true_spectrum(band: str) -> TaskSpectrum:
    """The spectrum behind the tasks of a band, which nobody who trains can see.

    >>> true_spectrum("high").power.argmax()
    np.int64(51)
    """
    s_u = (_OMEGA + 0.2) ** -1.0
    power = np.exp(-((_OMEGA - BANDS[band]) ** 2) / (2 * 0.15**2))
    return TaskSpectrum(_OMEGA, power / power.mean(), s_u / s_u.mean(), "true", 1_000_000)


def exact_error(v: np.ndarray, w: np.ndarray) -> Any:
    r"""Test error :math:`(v - w)^\top \Sigma\, (v - w)` of functionals v (..., 128) on fresh inputs without noise."""
    return (((v - w) @ _covariance()) * (v - w)).sum(-1)


def alignment(power: np.ndarray, spectrum: TaskSpectrum) -> np.ndarray:
    r"""Cosine of two importances :math:`|H|^2 S_u`: of a power response (..., F) and of a task's spectrum.

    It is :math:`1 - \mathcal L/2` with the loss of :func:`tdi_lib.tdi.spectral_loss`.

    >>> truth = true_spectrum("mid")
    >>> float(alignment(truth.power, truth).round(6)), bool(alignment(truth.power[::-1], truth) < 0.01)
    (1.0, True)
    """
    eta, target = power * spectrum.input_power, spectrum.importance
    return (eta @ target) / np.linalg.norm(eta, axis=-1) / np.linalg.norm(target)


# ---- layers and their training -------------------------------------------------------------------


def start_layer(start: str, x: np.ndarray, y: np.ndarray, draw: int) -> tuple[DiagonalSSM, float]:
    """A layer to start from and the seconds that took; its mean output power on the training inputs is one.

    >>> task = draw_task("mid", 64, 0)
    >>> layer, _ = start_layer("flat", task.x, task.y, 0)
    >>> round(_output_power(layer, task.x).mean().item(), 6)
    1.0
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    generator = torch.Generator().manual_seed(draw)
    ssm = DiagonalSSM(CHANNELS, D_STATE, generator=generator).double()
    begin = time.perf_counter()
    if start == "tdi":
        tdi_init_(ssm, x, y, generator=generator)
    elif start == "flat":
        flat_init_(ssm, x, generator=generator)
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        ssm.C_real_imag.div_(_output_power(ssm, x).mean().sqrt())
    return ssm, seconds


def _output_power(ssm: DiagonalSSM, x: np.ndarray) -> Tensor:
    """Mean square of every channel's output (H,)."""
    inputs = torch.as_tensor(x)[:, None, :].expand(-1, CHANNELS, -1)  # (B H L)
    return ssm(inputs).square().mean(dim=(0, 2))


@dataclass(frozen=True)
class TrainedLayer:
    """One run: the layer, error and validation loss at its best step; then the way there, every ten steps.

    Attributes:
        errors: exact test errors (T,).
        heard: mean power response of the layer (T, F).
        used: power response of the functional v (T, F).
        seconds: of the whole stack, divided by its runs.
    """

    ssm: DiagonalSSM
    val: float
    error: float
    best_step: int
    steps: int
    seconds: float
    errors: np.ndarray
    heard: np.ndarray
    used: np.ndarray


def _stack(ssms: Sequence[DiagonalSSM]) -> DiagonalSSM:
    """Several layers side by side in one, so that one step trains them all."""
    together = DiagonalSSM(CHANNELS * len(ssms), D_STATE).double()
    with torch.no_grad():
        for part in _PARTS:
            getattr(together, part).copy_(torch.cat([getattr(ssm, part) for ssm in ssms]))
    return together


def _parts_of(layer: DiagonalSSM, runs: int) -> list[Tensor]:
    return [getattr(layer, part).detach().clone().view(runs, -1) for part in _PARTS]


def _unstack(parts: list[Tensor], runs: int) -> list[DiagonalSSM]:
    ssms = [DiagonalSSM(CHANNELS, D_STATE).double().requires_grad_(False) for _ in range(runs)]
    for part, values in zip(_PARTS, parts, strict=True):
        for ssm, value in zip(ssms, values, strict=True):
            getattr(ssm, part).copy_(value.view_as(getattr(ssm, part)))
    return ssms


@cache
def _dft_tables() -> tuple[Tensor, Tensor]:
    """A DFT of length 2L of L numbers as a matrix (L, 2L + 2), real parts first, and the first L numbers back."""
    angle = torch.arange(LENGTH, dtype=torch.float64)[:, None] * torch.arange(LENGTH + 1) * (math.pi / LENGTH)
    forward = torch.cat([angle.cos(), angle.sin()], dim=1)
    weight = torch.full((LENGTH + 1,), 1 / LENGTH, dtype=torch.float64)
    weight[[0, -1]] /= 2
    return forward, (forward * weight.repeat(2)).T.contiguous()


def _dft(sequences: Tensor, runs: int) -> Tensor:
    return (sequences.reshape(-1, LENGTH) @ _dft_tables()[0]).view(runs, CHANNELS, 2, LENGTH + 1)


def _functional(k: Tensor, m: Tensor) -> Tensor:
    """v = Σ_h T_hᵀ m_h of every run (R L), correlations by matrix products: half the time of an FFT."""
    real = (m * k).sum(2).sum(1)
    imag = (m[:, :, 1] * k[:, :, 0] - m[:, :, 0] * k[:, :, 1]).sum(1)
    return torch.cat([real, imag], dim=1) @ _dft_tables()[1]


def train(ssms: Sequence[DiagonalSSM], tasks: Sequence[BandTask], rate: float, max_steps: int) -> list[TrainedLayer]:
    """Train read-outs from zero by Adam, and with rate > 0 the layers too; each run keeps its best validation.

    Runs are stacked because that is faster. They share nothing but the clock: a stack stops when the last of its runs
    has gone 200 steps without a better validation loss.

    Args:
        ssms: one layer of 32 channels and state size 32 per run, double precision; left as they are.
        tasks: one per run, equally large.
        rate: learning rate of steps, poles and weights; 0 freezes the layers.
        max_steps: at most.
    """
    runs = len(ssms)
    layer = _stack(ssms).requires_grad_(rate > 0)
    x, y, x_val, y_val, w = (torch.as_tensor(np.stack(part)) for part in zip(*tasks, strict=True))
    read_out = torch.zeros(runs, CHANNELS, LENGTH, dtype=torch.float64, requires_grad=True)  # (R H L)
    groups: list[dict[str, Any]] = [{"params": [read_out], "lr": _READ_OUT_RATE}]
    if rate > 0:
        groups.append({"params": list(layer.parameters()), "lr": rate})
    adam = torch.optim.Adam(groups)
    fixed = None if rate > 0 else _dft(layer.kernel(LENGTH), runs)
    val, error, best_step = np.full(runs, np.inf), np.ones(runs), np.zeros(runs, int)
    kept, history = _parts_of(layer, runs), []
    begin = time.perf_counter()
    for step in range(max_steps + 1):
        kernels = _dft(layer.kernel(LENGTH), runs) if fixed is None else fixed
        v = _functional(kernels, _dft(read_out, runs))  # (R L)
        if step % EVERY == 0:
            found = v.detach().numpy()
            val_now = np.mean((np.einsum("rnl,rl->rn", x_val, found) - y_val.numpy()) ** 2, axis=1)
            error_now, better = exact_error(found, w.numpy()), val_now < val
            val, error = np.where(better, val_now, val), np.where(better, error_now, error)
            best_step = np.where(better, step, best_step)
            mask = torch.tensor(better)[:, None]
            kept = [torch.where(mask, now, old) for now, old in zip(_parts_of(layer, runs), kept, strict=True)]
            response = layer.frequency_response(torch.as_tensor(_OMEGA)).detach().abs().numpy() ** 2
            power = response.reshape(runs, CHANNELS, -1).mean(1)
            history.append((error_now, power, np.abs(np.fft.rfft(found)) ** 2))
            if (step - best_step > _PATIENCE * EVERY).all():
                break
        loss = ((torch.einsum("rnl,rl->rn", x, v) - y) ** 2).mean(1).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    seconds = (time.perf_counter() - begin) / runs
    errors, heard, used = (np.stack(part, axis=1) for part in zip(*history, strict=True))
    best = zip(_unstack(kept, runs), val.tolist(), error.tolist(), best_step.tolist(), strict=True)
    return [TrainedLayer(*each, step, seconds, *way) for each, *way in zip(best, errors, heard, used, strict=True)]


# ---- what a layer is worth -----------------------------------------------------------------------


def ridge_error(ssm: DiagonalSSM, task: BandTask) -> float:
    """Error of kernel regression with the layer as it is, the ridge chosen on the validation part."""
    values, axes = np.linalg.eigh(layer_matrix(ssm.kernel(LENGTH).detach().numpy()))
    root = axes * np.sqrt(np.maximum(values, 0))  # (L L)
    u, s, vt = np.linalg.svd(task.x @ root, full_matrices=False)
    s, ridges = s[:, None], _RIDGES * np.sum(s**2) / len(task.y)
    v = (root @ (vt.T @ (s / (s**2 + ridges) * (u.T @ task.y)[:, None]))).T  # (ridges, L)
    val = np.mean((v @ task.x_val.T - task.y_val) ** 2, axis=1)
    return float(exact_error(v, task.w)[val.argmin()])


def with_fresh_weights(ssm: DiagonalSSM, x: np.ndarray, draw: int) -> DiagonalSSM:
    """The same poles and steps with new random weights C, every channel at unit output power."""
    fresh = DiagonalSSM(CHANNELS, D_STATE, generator=torch.Generator().manual_seed(1000 + draw)).double()
    with torch.no_grad():
        for part in _PARTS[:-1]:
            getattr(fresh, part).copy_(getattr(ssm, part))
        fresh.C_real_imag.div_(_output_power(fresh, x).sqrt()[:, None, None])
    return fresh


def tone_ceiling(amplitude: float, length: int = 256) -> float:
    """Accuracy on :func:`~tdi_lib.data.synthetic.four_tones` of a detector that knows everything but the phase.

    Non-coherent detection of orthogonal tones in noise that is level near each of them (derived in chapter 09).

    >>> [round(tone_ceiling(amplitude), 3) for amplitude in (0.0, 0.2)]
    [0.25, 0.995]
    """
    snr = amplitude**2 * length / 4 / tone_noise_power(np.array(TONES))
    terms = [(-1) ** k * math.comb(3, k) / (k + 1) * np.exp(-k / (k + 1) * snr) for k in range(4)]
    return float(np.mean(np.sum(terms, axis=0)))


# ---- the record ----------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def regression_rows(
    band: str, n: int, rate: float, draws: Sequence[int], max_steps: int | None = None, decompose: bool = False
) -> Rows:
    """Train the three starts on some training sets of one task; one row per run.

    Args:
        band: of :data:`BANDS`.
        n: labeled samples, validation included.
        rate: of the filters.
        draws: numbers of the training sets.
        max_steps: 300, or 400 for more than 128 samples.
        decompose: judge each layer before and after training by the yardsticks of chapter 09 as well.
    """
    cases = list(product(draws, STARTS))
    tasks = [draw_task(band, n, draw) for draw, _ in cases]
    starts = [start_layer(start, *task[:2], draw) for (draw, start), task in zip(cases, tasks, strict=True)]
    max_steps = max_steps or (300 if n <= 128 else 400)
    trained = train([ssm for ssm, _ in starts], tasks, rate, max_steps)
    again: list[float | None] = [None] * len(cases)
    if decompose and rate > 0:
        again = [run.error for run in train([run.ssm for run in trained], tasks, 0, max_steps)]
    truth, rows = true_spectrum(band), []
    for (draw, start), task, (before, seconds), run, second in zip(cases, tasks, starts, trained, again, strict=True):
        row = {"study": "regression", "task": band, "n": n, "seed": draw, "start": start, "rate": rate}
        row |= {name: getattr(run, name) for name in ("val", "error", "best_step", "steps", "seconds")}
        row |= {"errors": run.errors.astype(np.float32), "init_seconds": seconds, "again": second}
        row["alignment"] = alignment(run.heard, truth).astype(np.float32)  # seven digits are enough
        row["used"] = alignment(run.used[1:], truth).astype(np.float32)
        if draw == 0 and decompose and band == "mid":
            row["heard"] = run.heard.ravel().astype(np.float32)
        if decompose:
            other = draw_task(band, n, draw, what=1)
            for when, ssm in (("before", before), ("after", run.ssm)):
                row[f"ridge_{when}"] = ridge_error(ssm, task)
                row[f"other_{when}"] = ridge_error(ssm, other)
                row[f"poles_{when}"] = ridge_error(with_fresh_weights(ssm, task.x, draw), task)
        rows.append(row)
    return rows


def tones_truth(data: sets.SequenceDataset) -> TaskSpectrum:
    """The tones' spectrum from all 4,000 sequences, nothing spread over the rest."""
    return estimate_task_spectrum(data.x_train, data.y_train, method="discriminative", floor=0.0)


def tones_rows(
    dataset: str,
    n: int,
    draw: int,
    starts: Sequence[str] = STARTS,
    modes: Sequence[str] = ("frozen", "trained"),
    max_steps: int = 300,
) -> Rows:
    """One-layer models on tones of random phase: SSM frozen, trained, and kept under everything else drawn anew."""
    data = sets.load(dataset, progress=False)
    part, truth = data.subset(n, seed=draw), tones_truth(data)
    mean, scale = part.x.mean(axis=(0, 1)), part.x.std(axis=(0, 1))
    x, x_val, x_test = ((a - mean) / scale for a in (part.x, part.x_val, data.x_test))

    def build(seed: int) -> tuple[SequenceModel, torch.Generator]:
        generator = torch.Generator().manual_seed(seed)
        return SequenceModel(1, 4, d_model=32, d_state=32, n_layers=1, generator=generator), generator

    def run(model: SequenceModel, mode: str, start: str, init_seconds: float) -> dict[str, Any]:
        seen = [layer_importance(model.ssms[0], truth)]
        result = fit(
            model, x, part.y, x_val=x_val, y_val=part.y_val, max_steps=max_steps, patience=16, seed=draw,
            progress=False, device="cpu", watch=lambda step, model: seen.append(layer_importance(model.ssms[0], truth)),
        )  # fmt: skip
        scores, heard = evaluate(model, x_test, data.y_test), np.array(seen) / truth.input_power
        row = {"study": "tones", "task": dataset, "n": n, "seed": draw, "start": start, "mode": mode}
        row |= {"loss": scores.loss, "accuracy": scores.accuracy, "best_step": result.best_step}
        row |= {"steps": max_steps, "seconds": result.seconds, "init_seconds": init_seconds}
        row["alignment"] = alignment(heard, truth).astype(np.float32)
        if mode == "trained" and draw == 0:
            row["heard"] = heard.astype(np.float32).ravel()
        return row

    rows = []
    for start in starts:
        for mode in modes:
            model, generator = build(draw)
            seconds = 0.0
            if start != "lin":
                method = "auto" if start == "tdi" else start
                seconds = tdi_init_(model, x, part.y, method=method, generator=generator).seconds
            if mode == "frozen":
                model.ssms[0].requires_grad_(False)
            rows.append(run(model, mode, start, seconds))
        if len(modes) > 1:  # the trained filters, everything else drawn anew
            fresh, _ = build(100 + draw)
            fresh.ssms[0].load_state_dict(model.ssms[0].state_dict())
            fresh.ssms[0].requires_grad_(False)
            rows.append(run(fresh, "again", start, 0.0))
    return rows


def _clock_rows(draws: Iterable[int]) -> Rows:
    """How long a single training set takes: the start, and the training at each rate, one run at a time."""
    rows = []
    start_layer("tdi", *draw_task("mid", 128, 0)[:2], 0)  # warms up
    for band, draw, rate in product(BANDS, draws, RATES):
        task = draw_task(band, 128, draw)
        layer, init_seconds = start_layer("tdi", *task[:2], draw)
        (run,) = train([layer], [task], rate, 300)
        row = {"study": "clock", "n": 128, "start": "tdi", "task": band, "seed": draw, "rate": rate}
        row |= {"seconds": run.seconds, "steps": run.steps, "best_step": run.best_step}
        rows.append(row | {"init_seconds": init_seconds})
    return rows


def record(path: str | Path) -> None:
    """Run everything on one core, about twenty minutes; the file is written anew after each group."""
    path, rows = Path(path), list[dict[str, Any]]()
    origin = {"provenance": json.dumps(provenance())}
    path.parent.mkdir(exist_ok=True)

    def add(more: Rows) -> None:
        rows.extend(row | origin for row in more)
        pd.DataFrame(rows).to_parquet(path, index=False, compression="zstd")

    add(tones_rows(**LIVE_TONES))
    for band, rate in product(("mid", "high"), (1e-3, 0.3)):
        add(regression_rows(band, 128, rate, range(10), decompose=True))
    for band, n, rate in product(BANDS, SIZES, RATES):
        add(regression_rows(band, n, rate, range(10 if n == 128 else 5), decompose=n == 128))
    for draw in range(5):
        add(tones_rows("tones-22", 160, draw))
    add(_clock_rows(range(5)))


class RecordedRuns:
    """The recorded runs of the linear regression, by configuration and in the order of their seeds."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table[table.study == "regression"].sort_values("seed", ignore_index=True, kind="stable")

    def pick(
        self, n: int | None = None, rate: float | None = None, band: str | None = None, start: str | None = None
    ) -> pd.DataFrame:
        """The runs of a configuration; None is any."""
        keep = np.ones(len(self.table), bool)
        for name, wanted in (("n", n), ("rate", rate), ("task", band), ("start", start)):
            keep &= wanted is None or self.table[name].to_numpy() == wanted
        return self.table[keep].reset_index(drop=True)

    def tuned(self, n: int, band: str, start: str, rates: Sequence[float] = RATES) -> pd.DataFrame:
        """For each seed the run with the lowest validation loss among the rates."""
        options = [self.pick(n, rate, band, start) for rate in rates]
        best = np.argmin([option.val for option in options], axis=0)
        return pd.DataFrame([options[b].iloc[i] for i, b in enumerate(best)])

    def error(self, n: int, band: str, start: str, rate: float | None = None) -> np.ndarray:
        """Test errors, one per seed, at a rate; None is the one that each run's validation prefers."""
        return (self.tuned(n, band, start) if rate is None else self.pick(n, rate, band, start)).error.to_numpy()

    def gap(
        self, n: int, band: str, start: str, rate: float | None = None, *, other: str = "tdi",
        other_rate: float | None = None,
    ) -> PairedDifference:  # fmt: skip
        """Error of the other start less that of the first, paired by seed, with its 95 % interval."""
        return paired_difference(self.error(n, band, start, rate), self.error(n, band, other, other_rate))

    def factor(self, band: str, base: str, at: int, *, resamples: int = 1000) -> tuple[float, float, float]:
        """Times as many samples as TDI has that the base needs for its error, and the 95 % interval of resampled seeds.

        See :func:`~tdi_lib.study.analysis.sample_efficiency`.
        """
        rng = np.random.default_rng(0)
        ours, theirs = self.error(at, band, "tdi"), [self.error(n, band, base) for n in SIZES]
        factor = sample_efficiency(SIZES, [each.mean() for each in theirs], ours.mean(), at)
        drawn = []
        for _ in range(resamples):
            curve = [each[rng.integers(0, len(each), len(each))].mean() for each in theirs]
            reached = ours[rng.integers(0, len(ours), len(ours))].mean()
            drawn.append(sample_efficiency(SIZES, curve, reached, at))
        low, high = np.quantile(drawn, [0.025, 0.975])
        return factor, float(low), float(high)

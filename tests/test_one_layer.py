"""Chapter 09's study against plain loops, dense matrices and fresh samples."""

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from torch import Tensor

from tdi_lib.data.synthetic import TONES, autocovariance, four_tones
from tdi_lib.ssm import DiagonalSSM
from tdi_lib.study.one_layer import (
    CHANNELS,
    D_STATE,
    EVERY,
    LENGTH,
    SIZES,
    BandTask,
    RecordedRuns,
    alignment,
    draw_task,
    exact_error,
    ridge_error,
    start_layer,
    tone_ceiling,
    train,
    true_spectrum,
    with_fresh_weights,
)
from tdi_lib.tdi import spectral_loss


def dense_functional(ssm: DiagonalSSM, read_out: Tensor) -> Tensor:
    """v = Σ_h T_hᵀ m_h with the Toeplitz matrices (H L L) written out."""
    lag = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    matrices = torch.where(lag >= 0, ssm.kernel(LENGTH)[:, lag.clamp(min=0)], 0.0)
    return torch.einsum("hts,ht->s", matrices, read_out)


def plain_training(ssm: DiagonalSSM, task: BandTask, rate: float, steps: int) -> tuple[list[float], list[float]]:
    """One run without stacks and transforms: validation losses and exact errors, every ten steps."""
    x, y = torch.as_tensor(task.x), torch.as_tensor(task.y)
    read_out = torch.zeros(CHANNELS, LENGTH, dtype=torch.float64, requires_grad=True)
    groups = [{"params": [read_out], "lr": 2e-3}]
    if rate:
        groups.append({"params": list(ssm.requires_grad_(True).parameters()), "lr": rate})
    adam, losses, errors = torch.optim.Adam(groups), [], []
    for step in range(steps + 1):
        v = dense_functional(ssm, read_out)
        if step % EVERY == 0:
            found = v.detach().numpy()
            losses.append(np.mean((task.x_val @ found - task.y_val) ** 2))
            sigma = scipy.linalg.toeplitz(autocovariance(1, LENGTH))
            errors.append((found - task.w) @ sigma @ (found - task.w))
        adam.zero_grad()
        (x @ v - y).square().mean().backward()
        adam.step()
    return losses, errors


@pytest.mark.parametrize("rate", [0, 1e-2])
def test_runs_side_by_side_are_runs_alone(rate: float) -> None:
    tasks = [draw_task("mid", 32, draw) for draw in range(2)]
    layers = [
        start_layer(start, *task[:2], draw)[0]
        for draw, (start, task) in enumerate(zip(("lin", "tdi"), tasks, strict=True))
    ]
    before = [layer.log_dt.clone() for layer in layers]
    stacked = train(layers, tasks, rate, 30)
    for layer, task, run, dt in zip(layers, tasks, stacked, before, strict=True):
        assert torch.equal(layer.log_dt, dt)  # left as they are
        losses, errors = plain_training(layer, task, rate, 30)
        np.testing.assert_allclose(run.errors, errors, rtol=1e-6)
        best = int(np.argmin(losses))
        assert run.best_step == EVERY * best
        assert run.val == pytest.approx(losses[best])
        assert run.error == pytest.approx(errors[best])


def test_the_kept_layer_is_the_one_of_the_best_step() -> None:
    task = draw_task("mid", 64, 0)
    layer, _ = start_layer("tdi", *task[:2], 0)
    (run,) = train([layer], [task], 0.1, 60)
    assert run.best_step < 60 == run.steps  # it got worse, so the last layer is another
    heard = run.ssm.frequency_response(torch.as_tensor(true_spectrum("mid").omega)).abs().numpy() ** 2
    np.testing.assert_allclose(heard.mean(0), run.heard[run.best_step // EVERY], rtol=1e-9)
    assert not np.allclose(heard.mean(0), run.heard[-1], rtol=0.01)


def test_error_of_a_functional_is_that_on_fresh_inputs() -> None:
    task, rng = draw_task("high", 8, 3), np.random.default_rng(0)
    v = task.w + 0.1 * rng.standard_normal(LENGTH)
    root = np.linalg.cholesky(scipy.linalg.toeplitz(autocovariance(1, LENGTH)))
    squares = (rng.standard_normal((40_000, LENGTH)) @ root.T @ (v - task.w)) ** 2
    assert abs(squares.mean() - exact_error(v, task.w)) < 4 * squares.std() / 200


def test_a_task_keeps_its_functional_whatever_the_number_of_samples() -> None:
    small, large, other = draw_task("low", 32, 1), draw_task("low", 4096, 1), draw_task("low", 32, 1, what=1)
    assert np.array_equal(small.w, large.w)
    assert not np.allclose(small.w, other.w)
    noise = large.y - large.x @ large.w
    assert noise.std() == pytest.approx(0.3, rel=0.05)


def test_ridge_error_against_features_written_out() -> None:
    task = draw_task("mid", 64, 0)
    layer, _ = start_layer("lin", *task[:2], 0)
    kernels = layer.kernel(LENGTH).detach().numpy()
    rows = [
        np.concatenate([scipy.linalg.toeplitz(k, np.zeros(LENGTH)) @ u for k in kernels])
        for u in np.r_[task.x, task.x_val]
    ]
    features, n = np.array(rows), len(task.y)
    gram, errors, losses = features @ features[:n].T, [], []
    for ratio in np.logspace(-5, 2, 29):
        alpha = np.linalg.solve(gram[:n] + ratio * np.trace(gram[:n]) / n * np.eye(n), task.y)
        weights = torch.as_tensor(features[:n].T @ alpha).view(CHANNELS, LENGTH)
        losses.append(np.mean((gram[n:] @ alpha - task.y_val) ** 2))
        errors.append(exact_error(dense_functional(layer, weights).detach().numpy(), task.w))
    assert ridge_error(layer, task) == pytest.approx(errors[int(np.argmin(losses))], rel=1e-4)


def test_fresh_weights_keep_the_poles() -> None:
    task = draw_task("mid", 64, 0)
    layer, _ = start_layer("flat", *task[:2], 0)
    fresh = with_fresh_weights(layer, task.x, 0)
    assert torch.equal(fresh.log_poles, layer.log_poles)
    assert not torch.allclose(fresh.C, layer.C)
    outputs = fresh(torch.as_tensor(task.x)[:, None].expand(-1, CHANNELS, -1))
    np.testing.assert_allclose(outputs.square().mean((0, 2)).detach().numpy(), 1)


def test_alignment_is_the_published_loss() -> None:
    ssm = DiagonalSSM(CHANNELS, D_STATE, generator=torch.Generator().manual_seed(0)).double()
    truth = true_spectrum("mid")
    power = ssm.frequency_response(torch.as_tensor(truth.omega)).detach().abs().numpy() ** 2
    assert alignment(power.mean(0), truth) == pytest.approx(1 - spectral_loss(ssm, truth) / 2)


@pytest.mark.parametrize("amplitude", [0.15, 0.2])
def test_ceiling_against_the_largest_coefficient(amplitude: float) -> None:
    """Without the two assumptions: tones that are orthogonal, noise that is level."""
    x, y = four_tones(8_000, amplitude=amplitude, generator=np.random.default_rng(0))
    waves = np.exp(-1j * np.outer(np.arange(256), TONES))
    correct = np.mean(np.abs(x @ waves).argmax(axis=1) == y)
    assert abs(correct - tone_ceiling(amplitude)) < 4 * np.sqrt(correct * (1 - correct) / len(y)) + 1e-3


def test_unknown_start() -> None:
    with pytest.raises(ValueError, match=r"start must be one of lin, flat, tdi, got 'best'"):
        start_layer("best", np.ones((4, LENGTH)), np.ones(4), 0)


def test_recorded_runs_are_picked_tuned_and_compared() -> None:
    rows = [
        {"study": "regression", "task": "mid", "n": n, "seed": seed, "rate": rate, "start": start,
         "val": abs(rate - (0.1 if seed else 0.01)), "error": scale * (1 + rate) / n}
        for seed in (1, 0) for n in SIZES for rate in (0, 0.01, 0.1) for start, scale in (("lin", 2.0), ("tdi", 1.0))
    ]  # fmt: skip
    runs = RecordedRuns(pd.DataFrame([*rows, {"study": "clock", "n": 64}]))
    assert runs.pick(64, 0.1, "mid", "tdi").seed.to_list() == [0, 1]
    assert len(runs.pick(start="lin")) == 2 * len(SIZES) * 3
    assert runs.tuned(64, "mid", "lin").rate.to_list() == [0.01, 0.1]
    np.testing.assert_allclose(runs.error(64, "mid", "lin"), np.array([2.02, 2.2]) / 64)
    assert runs.gap(64, "mid", "lin", 0, other_rate=0).mean == pytest.approx(-1 / 64)
    factor, low, high = runs.factor("mid", "lin", 64)
    assert factor == pytest.approx(2)  # errors fall like 1/n, and twice the error is twice the samples
    assert low < factor < high

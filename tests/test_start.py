"""Step 0 is a candidate: training from a good start keeps it where no step lowers the validation loss."""

import numpy as np
import pytest
import torch
from torch import nn

from tdi_lib.readout import ridge_readout_
from tdi_lib.ssm import SequenceModel
from tdi_lib.training import evaluate, fit, fit_many

LENGTH = 40
Sets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def series(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tones of random phase in noise, one frequency a class (P, L, 1)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    phase = 2 * np.pi * rng.random((n, 1))
    x = np.cos((0.5 + y[:, None]) * np.arange(LENGTH) + phase) + 0.5 * rng.normal(size=(n, LENGTH))
    return x[:, :, None], y


def make(seed: int = 0, **options) -> SequenceModel:
    options = {"d_model": 6, "d_state": 8, "n_layers": 2, "pooling": "statistics", "zero_branches": True} | options
    return SequenceModel(1, 2, generator=torch.Generator().manual_seed(seed), **options)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture(name="solved")
def solved_models() -> tuple[list[SequenceModel], list[Sets]]:
    """Three models at their closed forms, in float64, and sets of several sizes."""
    models = [make(seed).double() for seed in range(3)]
    sizes = [(40, 13), (64, 70), (50, 30)]
    sets = [(*series(n, seed), *series(n_val, seed + 10)) for seed, (n, n_val) in enumerate(sizes)]
    for model, (x, y, _, _) in zip(models, sets, strict=True):
        ridge_readout_(model, x, y)
    return models, sets


def test_the_start_is_a_candidate(solved: tuple[list[SequenceModel], list[Sets]]) -> None:
    """Where every step raises the validation loss the model stays as it was; patience counts from the start."""
    models, sets = solved
    before = [state_of(model) for model in models]
    alone = make(1).double()
    alone.load_state_dict(before[1])
    options = {"max_steps": 200, "evaluate_every": 10, "patience": 3, "lr": 10.0, "progress": False}  # far too fast
    results = fit_many(models, sets, seeds=[0, 1, 2], **options)
    x, y, x_val, y_val = sets[1]
    single = fit(alone, x, y, x_val=x_val, y_val=y_val, seed=1, device="cpu", **options)
    for model, result, state, (_, _, x_val, y_val) in zip(models, results, before, sets, strict=True):
        assert not isinstance(result, Exception)
        assert [row["step"] for row in result.history] == [10, 20, 30]
        assert result.best_step == 0 and result.best_val_loss == result.start_val_loss
        assert min(row["val_loss"] for row in result.history) > result.start_val_loss
        assert same(model, state)
        assert np.isclose(evaluate(model, x_val, y_val).loss, result.start_val_loss, rtol=1e-9)
    assert (single.best_step, len(single.history)) == (0, 3)
    assert single.start_val_loss == pytest.approx(results[1].start_val_loss, rel=1e-9)
    assert same(alone, before[1])


def test_a_step_that_lowers_the_loss_is_taken(solved: tuple[list[SequenceModel], list[Sets]]) -> None:
    models, sets = solved
    starts = [evaluate(model, x, y).loss for model, (_, _, x, y) in zip(models, sets, strict=True)]
    options = {"max_steps": 60, "evaluate_every": 10, "lr": 1e-3, "progress": False}
    results = fit_many(models, sets, seeds=[0, 1, 2], **options)
    for model, start, result, (_, _, x, y) in zip(models, starts, results, sets, strict=True):
        assert not isinstance(result, Exception)
        assert result.start_val_loss == pytest.approx(start, rel=1e-9)
        losses = {0: start} | {row["step"]: row["val_loss"] for row in result.history}
        assert result.best_step == min(losses, key=losses.__getitem__)
        assert evaluate(model, x, y).loss == pytest.approx(losses[result.best_step], rel=1e-9)
    assert max(result.best_step for result in results) > 0

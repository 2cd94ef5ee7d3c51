"""Choosing among starts: held-out losses by another path, no label that leaks, groups, padding, bad input."""

from typing import Any

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tdi_lib.choice import Choice, _Task, choose_start, named_starts
from tdi_lib.readout import ridge_readout_
from tdi_lib.ssm import SequenceModel
from tdi_lib.tdi import flat_init_, gains_init_, tdi_init_
from tdi_lib.training import predict

LENGTH = 40


def series(n: int, seed: int = 0, between: float = 1.0, n_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Tones of random phase in noise, one frequency a class (P, L, 1)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    phase = 2 * np.pi * rng.random((n, 1))
    x = np.cos((0.5 + between * y[:, None]) * np.arange(LENGTH) + phase) + 0.5 * rng.normal(size=(n, LENGTH))
    return x[:, :, None], y


def make(generator: torch.Generator, d_output: int = 2, **options: Any) -> SequenceModel:
    options = {"d_model": 6, "d_state": 8, "n_layers": 1, "pooling": "statistics"} | options
    return SequenceModel(1, d_output, generator=generator, **options)


def drawn(*_: Any, d_output: int = 2, seed: int = 0) -> SequenceModel:
    return make(torch.Generator().manual_seed(seed), d_output)


def matched(x: np.ndarray, y: np.ndarray, lengths: np.ndarray | None = None) -> SequenceModel:
    """Matched to spectra of one method, for the search for the right one takes time."""
    generator = torch.Generator().manual_seed(0)
    model = make(generator)
    tdi_init_(model, x, y, method="discriminative", lengths=lengths, generator=generator)
    return model


def choose(starts: dict[str, Any], x: np.ndarray, y: np.ndarray, **options: Any) -> Choice:
    return choose_start(starts, x, y, progress=False, **options)


class Spy:
    """A start that keeps what it was given."""

    def __init__(self, start: Any) -> None:
        self.start, self.seen = start, []

    def __call__(self, *samples: np.ndarray) -> nn.Module:
        self.seen.append(samples)
        return self.start(*samples)


def where(x: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Indices of samples among all."""
    return np.array([np.flatnonzero((x == each).all(axis=(1, 2)))[0] for each in part])


# ---- the held-out closed form ----------------------------------------------------------------------------------------


def test_readout_is_the_log_loss_of_what_no_start_has_seen() -> None:
    """Each fold again: the start and its read-out on what the spy saw, torch's cross-entropy on all other samples."""
    x, y = series(31, between=0.15)
    spy = Spy(matched)
    found = choose({"default": drawn, "matched": spy}, x, y, folds=4)
    losses, *_, everything = np.full(len(x), np.nan), spy.seen[-1]
    for x_part, y_part in spy.seen[:-1]:
        model, rest = matched(x_part, y_part), np.setdiff1d(np.arange(31), where(x, x_part))
        ridge_readout_(model, x_part, y_part)
        each = nn.functional.cross_entropy(predict(model, x[rest]), torch.as_tensor(y[rest]), reduction="none")
        assert np.isnan(losses[rest]).all()
        losses[rest] = each.numpy()
    assert len(spy.seen) == 5 and len(everything[0]) == 31
    assert found.candidates[1].loss == pytest.approx(losses.mean(), rel=1e-5)
    default = choose({"default": drawn}, x, y, folds=4).candidates[0]
    assert found.candidates[1].gain == pytest.approx(default.loss - losses.mean(), abs=1e-5)


def test_readout_of_real_targets_is_the_log_loss_of_a_normal_law() -> None:
    x, _ = series(30)
    y = x[:, :, 0].std(axis=1) + 0.05 * np.random.default_rng(1).normal(size=30)
    spy = Spy(lambda x, y: drawn(d_output=1))
    found = choose({"default": spy}, x, y)
    losses = []
    for x_part, y_part in spy.seen[:-1]:
        model, rest = drawn(d_output=1), np.setdiff1d(np.arange(30), where(x, x_part))
        variance = ridge_readout_(model, x_part, y_part).loss
        mean = predict(model, x[rest]).numpy()[:, 0]
        losses.append(-scipy.stats.norm.logpdf(y[rest], mean, variance**0.5))
    assert found.candidates[0].loss == pytest.approx(np.concatenate(losses).mean(), rel=1e-4)


class Memory(nn.Module):
    """Features that hold the labels of the samples it was built on, and noise for all others."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.known = torch.as_tensor(x, dtype=torch.float32)
        self.label = torch.as_tensor(y, dtype=torch.float32)
        self.decoder = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        same = (x[:, None] == self.known).flatten(2).all(dim=2).float()  # (B P)
        return self.decoder(torch.stack([same @ (2 * self.label - 1), x.mean(dim=(1, 2))], dim=1))


def test_no_label_leaks() -> None:
    """A start that learns labels by heart looks perfect to what the read-out leaves out, and to no fold."""
    x, _ = series(40)
    y = np.random.default_rng(3).integers(0, 2, 40)
    model = Memory(x, y)
    assert ridge_readout_(model, x, y).loss < 0.1
    found = choose({"default": drawn, "memory": Memory}, x, y)
    assert found.winner == "default"
    assert found.candidates[1].loss > 0.99 * np.log(2)


def test_tones_close_together_choose_the_matched_filters_and_a_wide_margin_the_default() -> None:
    x, y = series(80, between=0.15)
    starts = named_starts(make)
    starts = {name: starts[name] for name in ("default", "matched 0.05")}
    found = choose(starts, x, y)
    assert found.winner == "matched 0.05"
    twice = found.candidates[1].gain * 2
    kept = choose(starts, x, y, margin=twice)
    assert kept.winner == "default"
    assert "stays" in kept.why and "stays" not in found.why
    assert [each.gain for each in kept.candidates] == [each.gain for each in found.candidates]


def test_the_winner_is_built_on_all_samples_with_its_read_out() -> None:
    x, y = series(60, between=0.15)
    found = choose({"matched": matched}, x, y)
    model = matched(x, y)
    ridge_readout_(model, x, y)
    assert torch.equal(predict(model, x), predict(found.model, x))


def test_the_table_has_a_row_for_every_start() -> None:
    x, y = series(30)
    found = choose({"default": drawn, "other": lambda x, y: drawn(seed=1)}, x, y)
    _, first, second, why = str(found).splitlines()
    assert [first.split()[-5], second.split()[-5]] == ["default", "other"]
    assert why == found.why and found.winner in why
    marked = [line.startswith("*") for line in (first, second)]
    assert marked == [found.winner == "default", found.winner == "other"]


# ---- folds -----------------------------------------------------------------------------------------------------------


def task_of(y: np.ndarray, groups: np.ndarray | None = None) -> _Task:
    return _Task.of({"default": drawn}, np.zeros((len(y), LENGTH, 1)), y, groups, None)


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 4), st.integers(10, 60))
@settings(max_examples=50, deadline=None)
def test_folds_share_out_classes_and_samples(seed: int, n_parts: int, n_classes: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    parts = task_of(y).divided(n_parts, rng)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    for label in range(n_classes):
        counts = [int((y[part] == label).sum()) for part in parts]
        assert max(counts) - min(counts) <= 1
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= n_classes


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(4, 9))
@settings(max_examples=50, deadline=None)
def test_groups_stay_together(seed: int, n_parts: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, 30)])
    parts = task_of(rng.integers(0, 2, len(groups)), groups).divided(n_parts, rng)
    homes = [set(groups[part]) for part in parts]
    assert sum(map(len, homes)) == n_groups and all(homes)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))


def test_groups_are_held_out_as_a_whole() -> None:
    x, y = series(40)
    groups = np.repeat([f"person {index}" for index in range(10)], 4)
    spy = Spy(drawn)
    choose({"default": spy}, x, y, groups=groups)
    for x_part, _ in spy.seen[:-1]:
        seen = where(x, x_part)
        assert not set(groups[seen]) & set(np.delete(groups, seen))


def test_the_error_of_a_gain_is_that_of_its_groups_mean() -> None:
    """Equal groups: the standard error of the mean over groups; alone, over samples."""
    rng = np.random.default_rng(0)
    losses = {"default": rng.normal(size=40), "other": rng.normal(size=40)}
    gains, seconds = losses["default"] - losses["other"], dict.fromkeys(losses, 0.0)
    y = np.arange(40) % 2
    alone = task_of(y).candidates(losses, seconds)[1]
    assert alone.error == pytest.approx(gains.std(ddof=1) / 40**0.5)
    grouped = task_of(y, np.repeat(np.arange(8), 5)).candidates(losses, seconds)[1]
    assert grouped.error == pytest.approx(gains.reshape(8, 5).mean(axis=1).std(ddof=1) / 8**0.5)
    assert task_of(y).candidates(losses, seconds)[0].error == 0


# ---- padding, named starts, bad input --------------------------------------------------------------------------------


def test_what_padding_holds_does_not_matter() -> None:
    x, y = series(40)
    lengths = np.random.default_rng(0).integers(15, LENGTH + 1, 40)
    beyond = np.arange(LENGTH) >= lengths[:, None]
    found = []
    for filling in (np.nan, 7.0):
        padded = np.where(beyond[:, :, None], filling, x)
        found.append(choose({"default": drawn, "matched": matched}, padded, y, lengths=lengths))
    first, second = ([each.loss for each in each.candidates] for each in found)
    assert first == pytest.approx(second, rel=1e-6)
    whole = choose({"default": drawn, "matched": matched}, x, y)
    assert whole.candidates[0].loss != pytest.approx(first[0], rel=1e-3)


def test_named_starts_are_the_functions_of_tdi() -> None:
    x, y = series(40)
    starts = named_starts(make, seed=5)

    def by_hand(change: Any) -> SequenceModel:
        generator = torch.Generator().manual_seed(5)
        model = make(generator)
        change(model, generator)
        return model

    changes = {
        "default": lambda model, generator: None,
        "gains": lambda model, generator: gains_init_(model, x),
        "flat 0.05": lambda model, generator: flat_init_(model, x, resolutions=0.05, generator=generator),
        "flat mixed": lambda model, generator: flat_init_(model, x, resolutions="auto", generator=generator),
        "matched": lambda model, generator: tdi_init_(model, x, y, generator=generator),
        "matched auto": lambda model, generator: tdi_init_(model, x, y, resolutions="auto", generator=generator),
        "half 0.008": lambda model, generator: tdi_init_(
            model, x, y, resolutions=0.008, share=0.5, generator=generator
        ),
    }
    for name, change in changes.items():
        state, expected = starts[name](x, y).state_dict(), by_hand(change).state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected), name
    states = [torch.cat([value.flatten() for value in start(x, y).state_dict().values()]) for start in starts.values()]
    assert len({tuple(state.tolist()) for state in states}) == len(starts)
    assert next(iter(starts)) == "default"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"starts": {}}, TypeError, "starts must map names to functions"),
        ({"starts": {"a": 1}}, TypeError, "starts must map names to functions"),
        ({"starts": [drawn]}, TypeError, "starts must be a Mapping"),
        ({"starts": {"a": lambda x, y: None}}, TypeError, r"starts\['a'\] must be a Module, got NoneType"),
        ({"y": np.zeros(5, int)}, ValueError, r"y must be as many as x \(20\)"),
        ({"groups": np.zeros(5, int)}, ValueError, r"groups must be as many as x \(20\)"),
        ({"groups": np.arange(20) % 2}, ValueError, "folds must be at most the 2 groups or samples, got 3"),
        ({"folds": 1}, ValueError, "folds must be at least 2"),
        ({"method": "luck"}, ValueError, "method must be one of"),
        ({"margin": -1.0}, ValueError, "margin must be a finite number"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"lengths": np.zeros(20, int)}, ValueError, "lengths must lie in"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    x, y = series(20)
    arguments: dict[str, Any] = {"starts": {"default": drawn}, "x": x, "y": y} | options
    with pytest.raises(error, match=message):
        choose_start(**arguments, progress=False)


def test_an_error_of_a_start_says_which() -> None:
    x, y = series(20)

    def broken(x: np.ndarray, y: np.ndarray) -> SequenceModel:
        raise RuntimeError("no filters")

    with pytest.raises(RuntimeError, match="no filters") as caught:
        choose({"default": drawn, "broken": broken}, x, y)
    assert "'broken' of starts" in caught.value.__notes__[0]


def test_make_model_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="make_model must be a function of a generator, got str"):
        named_starts("S4D-Lin")  # type: ignore[arg-type]

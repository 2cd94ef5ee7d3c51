"""Choosing among starts: held-out losses by another path, no label that leaks, groups, padding, bad input."""

from typing import Any

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tdi_lib import choice
from tdi_lib.choice import Choice, _Task, choose_start, named_starts, start_evidence
from tdi_lib.readout import ridge_readout_
from tdi_lib.ssm import SequenceModel
from tdi_lib.tdi import flat_init_, gains_init_, tdi_init_
from tdi_lib.training import fit, predict

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
    assert "default is kept" in kept.why and "is kept" not in found.why
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
    alone = choice._candidates(losses, seconds, np.arange(40))[1]
    assert alone.error == pytest.approx(gains.std(ddof=1) / 40**0.5)
    grouped = choice._candidates(losses, seconds, np.repeat(np.arange(8), 5))[1]
    assert grouped.error == pytest.approx(gains.reshape(8, 5).mean(axis=1).std(ddof=1) / 8**0.5)
    assert choice._candidates(losses, seconds, np.arange(40))[0].error == 0


def test_of_many_samples_a_part_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_ENOUGH", 20)
    x, y = series(60, n_classes=3)
    groups = np.arange(60) // 4
    for grouped in (None, groups):
        spy = Spy(lambda x, y: drawn(d_output=3))
        choose({"default": spy}, x, y, groups=grouped, folds=2)
        asked = where(x, np.concatenate([part for part, _ in spy.seen[:-1]]))
        assert len(np.unique(asked)) == len(asked) == 20 and len(spy.seen[-1][0]) == 60
        if grouped is not None:
            assert len(np.unique(groups[asked])) == 5
        assert np.bincount(y[asked]).min() >= 6


# ---- evidence --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Not one of this library's: two linear layers and whatever lies between."""

    def __init__(self, n_inputs: int, n_outputs: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, 5), nn.Tanh(), nn.Linear(5, n_outputs)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def dense_jacobian(model: nn.Module, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of every output of every sample (P K n), one after the other, and the rate of each parameter (n)."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    rows = []
    for sample in torch.as_tensor(x).to(parameters[0]):
        outputs = model(sample[None])[0]
        each = [torch.autograd.grad(output, parameters, retain_graph=True) for output in outputs]
        rows.append(np.array([np.concatenate([part.numpy().ravel() for part in parts]) for parts in each]))
    rates = {id(each): 5e-3 for each in parameters}
    if hasattr(model, "parameter_groups"):
        groups = model.parameter_groups(5e-3, 1e-3)
        rates = {id(each): group["lr"] for group in groups for each in group["params"]}
    return np.array(rows), np.concatenate([np.full(each.numel(), rates[id(each)]) for each in parameters])


def plain_evidence(kernel: np.ndarray, target: np.ndarray, ridges: np.ndarray) -> float:
    """Best log density of targets (P, M) without their mean, by scipy: scales by search, centered by a null space."""
    basis = scipy.linalg.null_space(np.ones((1, len(target))))  # (P P-1)
    inside, seen = basis.T @ kernel @ basis, basis.T @ target

    def best_scale(ridge: float) -> float:
        def miss(log_scale: float) -> float:
            covariance = np.exp(log_scale) * (inside + ridge * np.eye(len(inside)))
            return -scipy.stats.multivariate_normal(cov=covariance).logpdf(seen.T).sum()

        middle = np.log(target.var() / (np.trace(kernel) / len(kernel) + ridge))
        return -scipy.optimize.minimize_scalar(miss, bounds=(middle - 6, middle + 6), method="bounded").fun

    return max(best_scale(ridge) for ridge in ridges)


def over_constant(kernel: np.ndarray, target: np.ndarray) -> float:
    """Nats a sample over noise and a constant; a kernel whose rows are centered."""
    nothing = plain_evidence(np.zeros_like(kernel), target, np.ones(1))
    ridges = 10.0 ** np.arange(-5, 3.1, 0.5) * np.trace(kernel) / len(kernel)
    return (plain_evidence(kernel, target, ridges) - nothing) / len(target)


@pytest.mark.parametrize("kind", ["network", "sequence"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_evidence_is_that_of_a_dense_jacobian(kind: str, n_classes: int) -> None:
    x, y = series(18, n_classes=n_classes)
    if kind == "network":
        model: nn.Module = Network(LENGTH, n_classes)
    else:
        model = make(torch.Generator().manual_seed(0), n_classes, n_layers=2).double()
    jacobian, rates = dense_jacobian(model, x)
    target = np.eye(n_classes)[y] - np.eye(n_classes)[y].mean(axis=0)
    own = np.einsum("pkn,pk->pn", jacobian, target)
    jacobian = jacobian - jacobian.mean(axis=1, keepdims=True)  # what all logits share does not count
    jacobian = (jacobian - jacobian.mean(axis=0)) * np.sqrt(rates / (np.sqrt((own**2).mean(axis=0)) + 1e-8))
    kernel = np.einsum("pkn,qkn->pq", jacobian, jacobian)
    # differences between classes: as many as are independent
    steps = scipy.linalg.null_space(np.ones((1, n_classes)))
    expected = over_constant(kernel, target @ steps)
    assert expected > 0.01
    assert start_evidence(model, x, y) == pytest.approx(expected, rel=1e-5)


def test_evidence_of_a_linear_model_is_that_of_bayesian_linear_regression() -> None:
    """Weights of prior variances lr / rms gradient, an intercept of which nothing is known."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25, 4)) * [1, 2, 0.5, 1]
    y = x @ [1, 0, 0, 0.5] + 0.3 * rng.normal(size=25)
    model = nn.Linear(4, 1).double()
    scores = (y - y.mean()) / y.std()
    prior = 5e-3 / (np.sqrt(((scores[:, None] * x) ** 2).mean(axis=0)) + 1e-8)
    centered = x - x.mean(axis=0)
    expected = over_constant(centered * prior @ centered.T, scores[:, None])
    assert start_evidence(model, x, y) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.5


def test_evidence_knows_no_order_of_samples() -> None:
    x, y = series(30, n_classes=3)
    model = make(torch.Generator().manual_seed(0), 3, pooling="mean").double()
    order, groups = np.random.default_rng(0).permutation(30), np.arange(30) // 5
    for some, others in (({}, {}), ({"groups": groups}, {"groups": groups[order]})):
        shuffled = start_evidence(model, x[order], y[order], **others)
        assert shuffled == pytest.approx(start_evidence(model, x, y, **some), rel=1e-7)


def test_labels_that_mean_nothing_have_no_evidence_over_a_constant() -> None:
    x, y = series(100, between=0.4)
    model = make(torch.Generator().manual_seed(0), pooling="mean", n_layers=2)
    assert start_evidence(model, x, y) > 0.1
    rng = np.random.default_rng(0)
    nothing = [start_evidence(model, x, rng.permutation(y)) for _ in range(8)]
    assert abs(np.mean(nothing)) < 0.02
    assert min(nothing) > -0.01  # a constant is always among what is compared


def test_evidence_does_not_credit_a_model_with_what_groups_have_in_common() -> None:
    """Every group has a place of its own and one label, drawn at random: only its name explains the label."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 6)
    x, y = np.eye(8)[groups] + 0.05 * rng.normal(size=(48, 8)), rng.permutation(8)[groups] % 2
    model = nn.Linear(8, 2).double()
    assert start_evidence(model, x, y) > 0.5
    assert start_evidence(model, x, y, groups=groups) < 0.01


def test_gradients_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = series(22, n_classes=3)
    model = Network(LENGTH, 3)
    whole = start_evidence(model, x, y)
    seen = []
    rows = choice._Gradients.rows
    monkeypatch.setattr(choice._Gradients, "rows", lambda self, index: seen.append(len(index)) or rows(self, index))
    monkeypatch.setattr(choice, "_BUDGET", 6000)
    assert start_evidence(model, x, y) == pytest.approx(whole, rel=1e-9)
    assert max(seen) < 11


def test_some_combinations_of_many_classes_estimate_the_kernel_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = series(16, n_classes=8)
    model, task = Network(LENGTH, 8), task_of(y)
    task = _Task.of(task.starts, x, y, None, None)

    def kernel(seed: int) -> np.ndarray:
        return choice._Gradients(model, task, (5e-3, 1e-3), 16, seed).kernel()

    some = np.mean([kernel(seed) for seed in range(60)], axis=0)
    assert not np.allclose(kernel(0), kernel(1))
    monkeypatch.setattr(choice, "_DIRECTIONS", 8)
    exact = kernel(0)
    assert np.linalg.norm(some - exact) < 0.1 * np.linalg.norm(exact)


def test_evidence_leaves_the_model_alone_and_does_not_read_padding() -> None:
    x, y = series(20)
    model = make(torch.Generator().manual_seed(0), pooling="mean", dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lengths = np.random.default_rng(0).integers(15, LENGTH + 1, 20)
    beyond = (np.arange(LENGTH) >= lengths[:, None])[:, :, None]
    found = [start_evidence(model, np.where(beyond, value, x), y, lengths=lengths) for value in (np.nan, 7.0)]
    assert found[0] == found[1] != start_evidence(model, x, y)
    assert model.training and all(each.grad is None for each in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_choosing_by_evidence_compares_evidences() -> None:
    x, y = series(60, between=0.3)
    starts = {"default": drawn, "matched": matched}
    found = choose(starts, x, y, method="evidence")
    first, second = (start_evidence(start(x, y), x, y) for start in starts.values())
    assert found.candidates[1].gain == pytest.approx(second - first, abs=1e-5)
    assert found.candidates[0].loss == pytest.approx(-first, abs=1e-5)
    assert found.candidates[1].error > 0


@pytest.mark.parametrize(
    ("model", "y", "error", "message"),
    [
        (Network(LENGTH, 3), np.arange(20) % 4, ValueError, r"y must be class labels \(P,\) in \[0, 2\]"),
        (Network(LENGTH, 3), np.zeros(20), ValueError, r"y must have the shape of the model's output \(P, 3\)"),
        (Network(LENGTH, 3), np.zeros(20, int), ValueError, "y must hold targets that differ"),
        (Network(LENGTH, 3).requires_grad_(False), np.arange(20) % 3, ValueError, "model must have parameters"),
        (nn.Linear(1, 3), np.arange(20) % 3, ValueError, r"one vector per sample \(B, K\), got \(2, 40, 3\)"),
        ("model", np.arange(20) % 3, TypeError, "model must be a Module, got str"),
    ],
)
def test_what_has_no_evidence_is_named(model: Any, y: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        start_evidence(model, series(20)[0], y)


# ---- a race ----------------------------------------------------------------------------------------------------------


def test_a_race_is_two_legs_of_fit_on_what_is_not_held_out() -> None:
    x, y = series(40)
    spies = {"default": Spy(drawn), "other": Spy(lambda x, y: drawn(seed=1))}
    found = choose(spies, x, y, method="race", steps=10, seed=3)
    for spy, candidate in zip(spies.values(), found.candidates, strict=True):
        (x_part, y_part), (x_all, _) = spy.seen[0], spies[found.winner].seen[-1]
        rest = np.setdiff1d(np.arange(40), where(x, x_part))
        assert len(rest) == 8 and len(x_all) == 40
        model = spy.start(x_part, y_part)
        for leg in range(2):
            fit(
                model,
                x_part,
                y_part,
                x_val=x[rest],
                y_val=y[rest],
                max_steps=5,
                evaluate_every=5,
                seed=3 + leg,
                progress=False,
            )
        loss = float(nn.functional.cross_entropy(predict(model, x[rest]), torch.as_tensor(y[rest])))
        assert candidate.loss == pytest.approx(loss, rel=1e-5)


def test_the_worse_half_of_a_race_is_dropped_at_half_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight starts and 50 steps are 325 steps in all; the default runs to the end, and no other that was behind."""
    x, y = series(40)
    ran: dict[int, int] = {}
    models: dict[int, str] = {}

    def start(seed: int) -> Any:
        def build(x: np.ndarray, y: np.ndarray) -> SequenceModel:
            model = drawn(seed=seed)
            models[id(model)] = str(seed)
            kept.append(model)
            return model

        return build

    kept: list[SequenceModel] = []

    def counted(model: SequenceModel, *arguments: Any, **options: Any) -> Any:
        ran[id(model)] = ran.get(id(model), 0) + options["max_steps"]
        return fit(model, *arguments, **options)

    monkeypatch.setattr(choice, "fit", counted)
    found = choose({str(seed): start(seed) for seed in range(8)}, x, y, method="race", steps=50)
    steps = {models[key]: count for key, count in ran.items()}
    assert sum(steps.values()) == 325 and steps["0"] == 50
    losses = {each.name: each.loss for each in found.candidates}
    finished = [name for name, count in steps.items() if count == 50 and name != "0"]
    dropped = [name for name, count in steps.items() if count == 25]
    assert max(losses[name] for name in finished) <= min(losses[name] for name in dropped)
    assert torch.equal(found.model.encoder.weight, drawn(seed=int(found.winner)).encoder.weight)


def test_one_that_diverges_loses_the_race() -> None:
    x, y = series(40)

    def broken(x: np.ndarray, y: np.ndarray) -> SequenceModel:
        model = drawn(seed=1)
        with torch.no_grad():
            model.decoder.weight.fill_(torch.nan)
        return model

    found = choose({"default": drawn, "broken": broken}, x, y, method="race", steps=4)
    assert found.winner == "default" and found.candidates[1].loss == np.inf
    rescued = choose({"broken": broken, "other": drawn}, x, y, method="race", steps=4)
    assert rescued.winner == "other"


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
        ({"x": np.full((20, LENGTH, 1), np.nan)}, ValueError, "x must be finite"),
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

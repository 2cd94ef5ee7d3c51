"""The closed-form read-out: against refits one by one, plain NumPy, and bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from tdi_lib import readout
from tdi_lib.readout import RIDGES, RandomConvolutions, ridge_readout_
from tdi_lib.ssm import SequenceModel, TimeStatistics
from tdi_lib.tdi import flat_init_, tdi_init_
from tdi_lib.training import fit, fit_many, predict

LENGTH = 40


def series(n: int, seed: int, n_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Tones of random phase in noise, one frequency a class (P, L, 1)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    phase = 2 * np.pi * rng.random((n, 1))
    x = np.cos((0.5 + y[:, None]) * np.arange(LENGTH) + phase) + 0.5 * rng.normal(size=(n, LENGTH))
    return x[:, :, None], y


def make(d_output: int = 2, seed: int = 0, **options) -> SequenceModel:
    options = {"d_model": 6, "d_state": 8, "n_layers": 1, "pooling": "statistics"} | options
    return SequenceModel(1, d_output, generator=seeded(seed), **options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def refit(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and intercept that solve the normal equations with a column of ones, which is not penalized."""
    ones = np.hstack([x, np.ones((len(x), 1))])
    penalty = ridge * np.diag([1.0] * x.shape[1] + [0.0])
    solution = np.linalg.solve(ones.T @ ones + penalty, ones.T @ y)
    return solution[:-1], solution[-1]


@given(
    n=st.integers(6, 25),
    n_features=st.integers(1, 30),
    n_groups=st.one_of(st.none(), st.integers(2, 5)),
    which=st.integers(0, len(RIDGES) - 1),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_what_is_left_out_was_left_out(n: int, n_features: int, n_groups: int | None, which: int, seed: int) -> None:
    """The closed form against fits without the samples, for groups of any sizes and both eigenproblems."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, n_features))
    features -= features.mean(axis=0)
    target = rng.normal(size=(n, 2)) + 5
    index = np.arange(n) if n_groups is None else np.arange(n) % n_groups
    groups = None if n_groups is None else [np.flatnonzero(index == g) for g in range(n_groups)]
    ridge = RIDGES[which] * (features**2).sum() / n
    expected = np.empty_like(target)
    for left in np.unique(index):
        rest = index != left
        weights, intercept = refit(features[rest], target[rest], ridge)
        expected[~rest] = features[~rest] @ weights + intercept
    for dual in (True, False):
        if not dual and n - 1 <= n_features:
            continue  # more features than samples are the dual's
        path = readout._ridge_path(features, target, groups, dual)
        np.testing.assert_allclose(path.scores[which], expected, rtol=1e-6, atol=1e-6)
        weights, _ = refit(features, target, ridge)
        np.testing.assert_allclose(path.weights[which], weights, rtol=1e-6, atol=1e-8)


@given(n=st.integers(8, 30), n_features=st.integers(1, 6), seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_dual_and_primal_agree(n: int, n_features: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, n_features))
    features -= features.mean(axis=0)
    dual, primal = (readout._ridge_path(features, np.sin(9 * features[:, :1]), None, form) for form in (True, False))
    for name in ("weights", "scores", "left_out", "evidence"):
        np.testing.assert_allclose(getattr(dual, name), getattr(primal, name), rtol=1e-6, atol=1e-7)


def test_evidence_is_a_normal_density() -> None:
    """Of the targets without their mean, the scale at its best."""
    rng = np.random.default_rng(0)
    for n_features in (3, 30):
        features = rng.normal(size=(12, n_features))
        features -= features.mean(axis=0)
        target = rng.normal(size=(12, 2))
        path = readout._ridge_path(features, target, None)
        # differences to the last sample have the same likelihood but for a constant: det of the contrasts
        contrast = np.linalg.svd(np.ones((1, 12)))[2][1:]  # (11 12), orthonormal
        seen = contrast @ target
        for which in (0, 15, 30):
            kernel = features @ features.T + RIDGES[which] * (features**2).sum() / 12 * np.eye(12)
            covariance = contrast @ kernel @ contrast.T
            best = max(
                sum(_log_normal(column, scale * covariance) for column in seen.T)
                for scale in np.trace(seen.T @ np.linalg.solve(covariance, seen)) / 22 * np.array([0.99, 1.0, 1.01])
            )
            assert np.isclose(path.evidence[which], best, rtol=1e-9)


def _log_normal(x: np.ndarray, covariance: np.ndarray) -> float:
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return -0.5 * (x @ np.linalg.solve(covariance, x) + log_det)


def test_no_label_leaks() -> None:
    """Random labels and a ridge of next to nothing: what is left out is at chance, one by one and in groups."""
    rng = np.random.default_rng(0)
    accuracies = []
    for seed in range(20):
        features = rng.normal(size=(60, 200))
        features -= features.mean(axis=0)
        labels = np.random.default_rng(seed).permutation(np.arange(60) % 2)
        for groups in (None, list(np.arange(60).reshape(15, 4))):
            path = readout._ridge_path(features, np.eye(2)[labels], groups)
            assert path.left_out[0] > 0.2  # chance is 0.25
            accuracies.append((path.scores[0].argmax(axis=1) == labels).mean())
    assert abs(np.mean(accuracies) - 0.5) < 0.05
    # the whole function, too: its own choice of ridge and temperature
    x = rng.normal(size=(60, LENGTH, 1))
    report = ridge_readout_(make(), x, rng.permutation(np.arange(60) % 2))
    assert report.loss > 0.6 and report.accuracy < 0.7


def test_model_is_standardized_ridge_in_numpy() -> None:
    """A float32 model against float64 from the kernel on: features, ridge, temperature, scores on other samples."""
    model = make(3)
    (x, y), (other, _) = series(45, 0, 3), series(30, 1, 3)
    report = ridge_readout_(model, x, y)
    twin = make(3).double()
    kernels = twin.ssms[0].kernel(LENGTH).detach().numpy()
    w, b = (p.detach().numpy() for p in (twin.encoder.weight[:, 0], twin.encoder.bias))

    def outputs(x: np.ndarray) -> np.ndarray:  # (P L 1) -> (P L H)
        rows = [[np.convolve(row[:, 0] * w[c] + b[c], kernels[c])[:LENGTH] for c in range(6)] for row in x]
        return np.array(rows).transpose(0, 2, 1)

    z = outputs(x)
    scale = np.sqrt((z**2).mean(axis=(0, 1)))
    ordered = np.sort((z / scale).reshape(-1, 6), axis=0)
    levels = (np.arange(1, 19).reshape(6, 3) * (5**0.5 - 1) / 2) % 1
    thresholds = [ordered[(levels[:, q] * len(ordered)).astype(int), range(6)] for q in range(3)]

    def statistics(z: np.ndarray) -> np.ndarray:
        z = z / scale
        width = model.statistics.width
        shares = [(0.5 + 0.5 * np.tanh((z - t) / width / 2)).mean(axis=1) for t in thresholds]
        return np.hstack([*shares, np.log((z**2).mean(axis=1) + 1e-6), z.mean(axis=1), np.tanh(z).mean(axis=1)])

    features = statistics(z)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.maximum(deviation, readout._FLOOR * np.sqrt((deviation**2).mean()))
    standard = (features - mean) / deviation
    weights, intercept = refit(standard, np.eye(3)[y], report.ridge * (standard**2).sum() / 45)
    for inputs in (x, other):
        expected = ((statistics(outputs(inputs)) - mean) / deviation @ weights + intercept) / report.temperature
        np.testing.assert_allclose(predict(model, inputs).numpy(), expected, rtol=1e-3, atol=1e-3)


class Plain(nn.Module):
    """Somebody else's model: no statistics, and a decoder of another name."""

    def __init__(self, d_output: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(LENGTH, 12)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(12, d_output))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(x[:, :, 0])))


@pytest.mark.parametrize("criterion", ["left-out", "evidence"])
def test_any_module_and_real_targets(criterion: str) -> None:
    model = Plain().double()
    x, _ = series(50, 0)
    y = np.stack([x.mean(axis=(1, 2)), x[:, 3, 0]], axis=1)
    report = ridge_readout_(model, x, y, decoder="head.1", criterion=criterion)
    assert model.training and report.temperature is None and report.accuracy is None
    chosen = report.left_out.argmin() if criterion == "left-out" else report.evidence.argmax()
    assert report.ridge == RIDGES[chosen] and report.loss == report.left_out[chosen]
    features = np.maximum(x[:, :, 0] @ model.body.weight.detach().numpy().T + model.body.bias.detach().numpy(), 0)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    weights, intercept = refit((features - mean) / deviation, y, report.ridge * 12)
    with torch.no_grad():
        ours = model.eval()(torch.tensor(x)).numpy()
    np.testing.assert_allclose(ours, (features - mean) / deviation @ weights + intercept, rtol=1e-8, atol=1e-8)
    assert "mean squared error" in str(report)


def test_padded_sequences_are_as_the_cut_ones() -> None:
    """Features, thresholds and all: with every length twice, batches of one length need no padding."""
    x, y = series(40, 0)
    lengths = np.random.default_rng(0).integers(10, LENGTH + 1, 40)
    states = []
    for fill in (np.nan, 1e9):
        padded = np.where(np.arange(LENGTH)[:, None] < lengths[:, None, None], x, fill)
        model = make()
        ridge_readout_(model, padded, y, lengths=lengths)
        states.append(state_of(model))
    assert same(model, states[0])
    with torch.no_grad():
        alone = [model(torch.tensor(x[i : i + 1, :end], dtype=torch.float32)) for i, end in enumerate(lengths)]
    torch.testing.assert_close(predict(model, padded, lengths=lengths), torch.cat(alone), rtol=1e-3, atol=1e-3)
    whole, also = make(), make()
    ridge_readout_(whole, np.concatenate([x, np.full((40, 7, 1), np.nan)], axis=1), y, lengths=np.full(40, LENGTH))
    ridge_readout_(also, x, y)
    torch.testing.assert_close(whole.state_dict(), also.state_dict(), rtol=1e-3, atol=1e-4)


@given(lengths=st.lists(st.integers(1, 25), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_statistics_do_not_see_behind_the_mask(lengths: list[int]) -> None:
    h = torch.randn(len(lengths), 25, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pool = TimeStatistics(4).double()
    together = pool(h, torch.arange(25) < torch.tensor(lengths)[:, None])
    alone = torch.cat([pool(h[i : i + 1, :n]) for i, n in enumerate(lengths)])
    torch.testing.assert_close(together, alone)


def test_the_smooth_share_is_a_share_with_gradients() -> None:
    h = torch.randn(3, 400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pool = TimeStatistics(2, n_thresholds=2, moments=False, width=1e-4).double()
    hard = torch.cat([(h > t).double().mean(dim=1) for t in pool.thresholds.T], dim=1)
    assert (pool(h) - hard).abs().max() < 2e-3
    pool = TimeStatistics(2).double()
    assert torch.autograd.gradcheck(lambda h: pool(h), h[:, :20].detach().requires_grad_())
    pool(h)[:, :6].sum().backward()  # the shares alone
    assert (h.grad.abs().sum(dim=(1, 2)) > 0).all()


def test_loudness_of_a_channel_does_not_matter() -> None:
    """Every channel is measured by its own scale."""
    x, y = series(40, 0)
    models = [make().double(), make().double()]
    with torch.no_grad():
        models[1].ssms[0].C_real_imag.mul_(torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None, None])
    reports = [ridge_readout_(model, x, y) for model in models]
    np.testing.assert_allclose(reports[0].left_out, reports[1].left_out, rtol=1e-6)
    torch.testing.assert_close(predict(models[0], x), predict(models[1], x))


@pytest.mark.parametrize("pooling", ["statistics", "mean"])
def test_deeper_branches_begin_at_zero_and_learn(pooling: str) -> None:
    x, y = series(40, 0)
    deep, shallow = (make(n_layers=n, zero_branches=True, pooling=pooling) for n in (3, 1))
    reports = [ridge_readout_(model, x, y) for model in (deep, shallow)]
    assert reports[0].loss == reports[1].loss
    assert torch.equal(predict(deep, x), predict(shallow, x))
    assert not torch.equal(predict(deep, x), predict(make(n_layers=3, pooling=pooling), x))
    deep.train()
    optimizer = torch.optim.AdamW(deep.parameter_groups(1e-3))
    inputs, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    for step in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(deep(inputs), labels).backward()
        moved = {name for name, p in deep.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert {"layers.1.mix.weight", "layers.2.mix.weight", "layers.0.ssm.A_imag"} <= moved
        assert ("layers.1.ssm.A_imag" in moved) == (step == 1)  # behind a branch that is not zero any more
        optimizer.step()
    assert all(p.grad is not None for p in deep.parameters())


def test_many_train_from_their_solutions_at_once() -> None:
    """Every model keeps its own scales and thresholds, also under vmap."""
    (x, y), (x_val, y_val) = series(40, 0), series(30, 1)
    options = {"max_steps": 20, "evaluate_every": 10, "lr": 1e-3, "progress": False}
    models, alone = ([make(seed=seed, n_layers=2, zero_branches=True).double() for seed in range(2)] for _ in range(2))
    for model in (*models, *alone):
        ridge_readout_(model, x, y)
    results = fit_many(models, [(x, y, x_val, y_val)] * 2, seeds=[0, 1], **options)
    for seed in range(2):
        single = fit(alone[seed], x, y, x_val=x_val, y_val=y_val, seed=seed, device="cpu", **options)
        assert results[seed].history == [pytest.approx(row, rel=1e-6) for row in single.history]


def test_travels_as_safetensors(tmp_path: Path) -> None:
    x, y = series(40, 0)
    model, other = make(), make(seed=5)
    ridge_readout_(model, x, y)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(predict(model, x), predict(other, x))


def test_random_convolutions() -> None:
    """One of them by hand; with the read-out they tell tones apart, also where sequences are padded."""
    model = RandomConvolutions(2, 2, LENGTH, n_kernels=30, generator=torch.Generator().manual_seed(0))
    x, y = series(60, 0)
    x = np.concatenate([x, np.random.default_rng(1).normal(size=x.shape)], axis=2)
    seen = []
    hook = model.pool.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.tensor(x[:1], dtype=torch.float32))
    hook.remove()
    dilations = [d for d, count in model.dilations for _ in range(count)]
    for k in (0, 14, 29):
        d, expected = dilations[k], np.zeros(LENGTH)
        for t in range(LENGTH):
            for tap in range(9):
                if 0 <= t + (tap - 4) * d < LENGTH:
                    expected[t] += x[0, t + (tap - 4) * d] @ model.weight[k, :, tap].numpy()
        np.testing.assert_allclose(seen[0][0, :, k].numpy(), expected, atol=1e-5)
    assert ridge_readout_(model, x, y).accuracy > 0.9
    lengths = np.full(60, LENGTH)
    lengths[::3] = 25
    assert ridge_readout_(model, x, y, lengths=lengths).accuracy > 0.8


def test_groups_stay_together() -> None:
    """Five copies of each recording: one by one they give each other away, as a group they do not."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(20, LENGTH, 1)), 5, axis=0) + 0.01 * rng.normal(size=(100, LENGTH, 1))
    y = np.repeat(rng.permutation(np.arange(20) % 2), 5)
    model = make(d_model=32)
    alone = ridge_readout_(model, x, y)
    names = np.repeat([f"recording {i}" for i in range(20)], 5)
    together = ridge_readout_(model, x, y, groups=names)
    assert alone.accuracy > 0.95 and together.accuracy < 0.75
    assert together.n_groups == 20 and "100 samples in 20 groups" in str(together)
    assert together.temperature > alone.temperature


def test_a_matched_model_ends_with_its_read_out() -> None:
    """The filters are those of the match alone, the decoder that of the read-out alone; the report names all of it."""
    x, y = series(60, 0)
    options = {"method": "discriminative", "layers": "all"}
    for lengths in (None, np.random.default_rng(0).integers(20, LENGTH + 1, 60)):
        model, other = make(n_layers=2), make(n_layers=2)
        before = state_of(model)
        report = tdi_init_(model, x, y, readout="ridge", lengths=lengths, generator=seeded(), **options)
        alone = tdi_init_(other, x, y, lengths=lengths, generator=seeded(), **options)
        filled = x if lengths is None else np.where(np.arange(LENGTH)[:, None] < lengths[:, None, None], x, np.nan)
        found = ridge_readout_(other, filled, y, lengths=lengths)
        assert same(model, state_of(other))
        assert alone.readout is None and report.readout.loss == found.loss and report.seconds > report.readout.seconds
        assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == set(
            report.changed
        )
        assert {*alone.changed, "decoder.weight", "decoder.bias", "statistics.scale"} <= set(report.changed)
        assert (predict(model, filled, lengths=lengths).argmax(1).numpy() == y).mean() > 0.9


def test_groups_and_flat_sequences_reach_the_read_out() -> None:
    x, y = series(60, 0)
    names = np.arange(60) // 4
    reports = []
    for inputs in (x, x[:, :, 0], torch.tensor(x)):
        model = make()
        reports.append(tdi_init_(model, inputs, y, method="flat", readout="ridge", groups=names, generator=seeded()))
    assert [report.readout.n_groups for report in reports] == [15, 15, 15]
    assert same(model, state_of(model)) and len({report.readout.loss for report in reports}) == 1
    other = make()
    flat_init_(other, x, generator=seeded())
    assert ridge_readout_(other, x, y, groups=names).loss == reports[0].readout.loss


def test_the_read_out_is_fitted_whatever_the_guard_says() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, LENGTH, 1)), rng.permutation(np.arange(60) % 2)  # nothing to match
    model, default = make(), make()
    report = tdi_init_(model, x, y, guard=True, readout="ridge", generator=seeded())
    found = ridge_readout_(default, x, y)
    assert not report.guard.better and report.readout.loss == found.loss and same(model, state_of(default))
    assert not any("ssm" in name for name in report.changed)


def test_where_the_read_out_fails_nothing_is_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the match, in the read-out, and at its very end."""
    x, y = series(60, 0)
    wrong = make(pooling="none")
    cases = [
        (make(), {"groups": np.zeros(60)}, ValueError, "groups must be at least two"),
        (make(), {"groups": np.zeros(3)}, ValueError, "groups must hold one group per sample"),
        (wrong, {}, ValueError, "model must pool its sequences"),
        (make(1), {}, ValueError, r"y must be class labels in \[0, 0\]"),
        (make(), {"readout": "luck"}, ValueError, "readout must be one of ridge"),
        (make(), {"y": None, "method": "flat"}, ValueError, "y must be given for a readout"),
        (make().ssms[0], {}, ValueError, "readout must be None for a model without a linear layer named decoder"),
        (make(), {"readout": None, "groups": y}, ValueError, "groups must be left out without a readout"),
    ]
    for model, options, error, message in cases:
        before = state_of(model)
        with pytest.raises(error, match=f"^{message}"):
            tdi_init_(model, x, **{"y": y, "readout": "ridge", "generator": seeded()} | options)
        assert same(model, before) and all(module.training for module in model.modules())
    model = make()
    before = state_of(model)

    def interrupted(*_: object) -> None:
        assert not torch.equal(model.ssms[0].A_imag, before["layers.0.ssm.A_imag"])  # so far all went well
        raise KeyboardInterrupt

    monkeypatch.setattr(readout, "_write_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tdi_init_(model, x, y, readout="ridge", generator=seeded())
    assert same(model, before)


X, Y = series(12, 0)
BAD_FEATURES = make()
with torch.no_grad():
    BAD_FEATURES.encoder.weight.fill_(torch.inf)
CONSTANT = make(pooling="mean")
with torch.no_grad():
    CONSTANT.encoder.weight.zero_()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a Module"),
        ({"model": BAD_FEATURES}, ValueError, "model must have finite features"),
        ({"model": CONSTANT}, ValueError, "model must have features that differ"),
        ({"model": make(pooling="none")}, ValueError, "model must pool its sequences"),
        ({"x": X * np.nan}, ValueError, "x must be finite"),
        ({"x": X[:3], "y": Y[:3]}, ValueError, "x must hold at least 4 samples"),
        ({"y": Y[:5]}, ValueError, r"y must hold one target per sample of x \(12\)"),
        ({"y": 0 * Y}, ValueError, "y must hold at least two classes, got only class 0"),
        ({"y": Y + 1}, ValueError, r"y must be class labels in \[0, 1\]"),
        ({"y": np.stack([Y, Y], 1)}, ValueError, "y must be one class label per sample"),
        ({"y": Y / 2}, ValueError, r"y must have the shape of the model's output \(P, 2\)"),
        ({"y": np.ones((12, 2))}, ValueError, "y must hold targets that differ"),
        ({"groups": Y[:3]}, ValueError, "groups must hold one group per sample"),
        ({"groups": 0 * Y}, ValueError, "groups must be at least two"),
        ({"lengths": np.full(12, 99)}, ValueError, "lengths must lie in"),
        ({"criterion": "luck"}, ValueError, "criterion must be one of left-out, evidence"),
        ({"decoder": "head"}, ValueError, "decoder must name one of the model's linear layers"),
        ({"decoder": "encoder"}, ValueError, "decoder must be called once and make the model's output"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_named_and_changes_nothing(options: dict, error: type, message: str) -> None:
    arguments = {"model": make(), "x": X, "y": Y} | options
    model = arguments.pop("model")
    before = state_of(model) if isinstance(model, nn.Module) else {}
    with pytest.raises(error, match=f"^{message}"):
        ridge_readout_(model, **arguments)
    if isinstance(model, nn.Module):
        assert same(model, before) and all(module.training for module in model.modules())


def test_weights_that_do_not_fit_change_nothing() -> None:
    """A half-precision decoder cannot hold what quiet features need."""
    model = Plain().half()
    with torch.no_grad():
        model.body.weight.mul_(1e-4)
        model.body.bias.zero_()
    before = state_of(model)
    x = np.abs(series(20, 0)[0]) * 1e-2
    with pytest.raises(ValueError, match="^model must have weights of a type"):
        ridge_readout_(model, x, 1e6 * x[:, :2, 0], decoder="head.1")
    assert same(model, before)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"n_thresholds": -1}, "n_thresholds"), ({"width": 0.0}, "width"), ({"d_model": 0}, "d_model")],
)
def test_bad_statistics_are_named(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        TimeStatistics(**({"d_model": 4} | options))

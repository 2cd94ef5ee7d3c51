"""Training: it learns, repeats itself, stops, resumes, and says what is wrong."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from tdi_lib.ssm import SequenceModel
from tdi_lib.training import _endless_batches, evaluate, fit, fit_many, predict


def tones(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, a slow and a fast tone of random phase in white noise (P, 48, 1)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    phase = 2 * np.pi * rng.random((n, 1))
    x = np.cos(np.where(y, 1.5, 0.5)[:, None] * np.arange(48) + phase) + 0.3 * rng.normal(size=(n, 48))
    return x[:, :, None], y


def make(d_output: int = 2, seed: int = 0, **options) -> SequenceModel:
    generator = torch.Generator().manual_seed(seed)
    return SequenceModel(1, d_output, d_model=8, d_state=8, n_layers=1, generator=generator, **options)


def run(model: SequenceModel, **options):
    x, y = tones(64, 0)
    x_val, y_val = tones(32, 1)
    options = {"max_steps": 60, "evaluate_every": 10, "lr": 0.02, "progress": False} | options
    return fit(model, x, y, x_val=x_val, y_val=y_val, device="cpu", **options)


def test_learns_and_keeps_the_best_weights() -> None:
    model = make()
    result = run(model, max_steps=200)
    scores = evaluate(model, *tones(200, 2))
    assert scores.accuracy > 0.95 and scores.loss < 0.3
    best = min(result.history, key=lambda row: row["val_loss"])
    assert (result.best_step, result.best_val_loss) == (best["step"], best["val_loss"])
    assert np.isclose(evaluate(model, *tones(32, 1)).loss, result.best_val_loss, atol=1e-6)
    assert [row["step"] for row in result.history] == list(range(10, 201, 10))


def test_watch_sees_every_validation_and_changes_nothing() -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    watch = lambda step, model: seen.append((step, model.ssms[0].A_imag.clone()))  # noqa: E731
    watched, unwatched = make(), make()
    history = run(watched, max_steps=30, watch=watch).history
    run(unwatched, max_steps=30)
    assert [step for step, _ in seen] == [row["step"] for row in history] == [10, 20, 30]
    assert not torch.equal(seen[0][1], seen[1][1])
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), unwatched.parameters(), strict=True))


def test_regression() -> None:
    x, _ = tones(64, 3)
    y = x[:, :, 0].mean(axis=1)
    model = make(1)
    fit(model, x, y, x_val=x, y_val=y, max_steps=150, lr=0.02, progress=False, device="cpu")
    assert np.mean((predict(model, x)[:, 0].numpy() - y) ** 2) < 0.2 * y.var()


def test_same_seed_same_bytes_and_global_state_untouched() -> None:
    states = []
    for _ in range(2):
        model = make(dropout=0.3)
        before = torch.get_rng_state()
        run(model, max_steps=20, seed=3)
        assert torch.equal(before, torch.get_rng_state())
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    other = make(dropout=0.3)
    run(other, max_steps=20, seed=4)
    assert not torch.equal(other.state_dict()["decoder.weight"], states[0]["decoder.weight"])


def test_early_stopping() -> None:
    result = run(make(), max_steps=5000, patience=2, lr=0.05)
    rows = [row["val_loss"] for row in result.history]
    assert len(rows) < 500
    assert len(rows) - 1 - int(np.argmin(rows)) == 2


def test_batches_are_seeded_permutations_one_after_another() -> None:
    for size, batch_size in ((7, 3), (3, 7), (4, 4)):
        batches = _endless_batches(size, batch_size, 5)
        drawn = np.concatenate([next(batches) for _ in range(3 * size)])
        whole = drawn[: len(drawn) // size * size].reshape(-1, size)
        for turn, order in enumerate(whole):
            assert np.array_equal(order, np.random.default_rng([5, turn]).permutation(size))


def test_a_step_is_that_of_adamw() -> None:
    """Two steps by hand, of the groups and batches that the documentation names."""
    model, other = make(), make()
    x, y = tones(64, 0)
    run(model, max_steps=2, evaluate_every=1, patience=9)
    optimizer = torch.optim.AdamW(other.parameter_groups(lr=0.02))
    order = np.random.default_rng([0, 0]).permutation(64)
    losses, states = [], []
    for index in (order[:32], order[32:]):
        optimizer.zero_grad()
        output = other(torch.tensor(x[index], dtype=torch.float32))
        torch.nn.functional.cross_entropy(output, torch.tensor(y[index])).backward()
        optimizer.step()
        losses.append(evaluate(other, *tones(32, 1)).loss)
        states.append({name: value.clone() for name, value in other.state_dict().items()})
    best = states[int(np.argmin(losses))]
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_what_is_frozen_stays() -> None:
    """Alone and at once."""
    alone, models = make(), [make(), make(seed=1)]
    for model in (alone, *models):
        model.ssms[0].requires_grad_(False)
    before = copy.deepcopy(alone)
    x, y = tones(40, 0)
    options = {"max_steps": 20, "evaluate_every": 10, "lr": 0.02, "progress": False}
    result = fit(alone, x, y, x_val=x, y_val=y, **options)
    results = fit_many(models, [(x, y, x, y)] * 2, seeds=[0, 0], **options)
    assert results[0].history == [pytest.approx(row, rel=1e-3) for row in result.history]
    for model in (alone, models[0]):
        for name, value in model.state_dict().items():
            assert torch.equal(value, before.state_dict()[name]) == (".ssm." in name), name


# seed, size of the training and the validation set, init: some sets smaller than a batch, some models stopped early
MANY = [(0, 40, 13, "lin"), (1, 64, 70, "inv"), (2, 100, 130, "lin"), (3, 12, 5, "dfout")]


def many(dtype: torch.dtype, d_output: int = 2) -> tuple[list[SequenceModel], list[tuple[np.ndarray, ...]]]:
    models = [make(d_output, seed, init=init).to(dtype) for seed, _, _, init in MANY]
    data = [(*tones(n, seed), *tones(n_val, seed + 10)) for seed, n, n_val, _ in MANY]
    if d_output == 1:
        data = [(x, x[:, :, 0].mean(axis=1), x_val, x_val[:, :, 0].mean(axis=1)) for x, _, x_val, _ in data]
    return models, data


@pytest.mark.parametrize(
    ("dtype", "rtol", "steps"),
    # AdamW divides by the gradient's own size, so where a gradient is nothing but rounding it makes a whole step of
    # it: float32 runs part slowly, and only float64 shows over many steps that the algorithm is the same.
    [(torch.float64, 1e-9, 200), (torch.float32, 1e-3, 60)],
)
def test_many_at_once_train_as_each_alone(dtype: torch.dtype, rtol: float, steps: int) -> None:
    options = {"max_steps": steps, "evaluate_every": 10, "patience": 1, "batch_size": 16, "lr": 0.02, "progress": False}
    alone, data = many(dtype)
    singles = [
        fit(model, x, y, x_val=x_val, y_val=y_val, seed=seed, device="cpu", **options)
        for model, (x, y, x_val, y_val), (seed, *_) in zip(alone, data, MANY, strict=True)
    ]
    models, _ = many(dtype)
    results = fit_many(models, data, seeds=[seed for seed, *_ in MANY], **options)
    if dtype == torch.float64:
        assert len({len(single.history) for single in singles}) > 1  # some did stop before others
    for single, result, one, model in zip(singles, results, alone, models, strict=True):
        assert not isinstance(result, Exception)
        assert result.best_step == single.best_step and len(result.history) == len(single.history)
        for ours, theirs in zip(result.history, single.history, strict=True):
            assert ours == pytest.approx(theirs, rel=rtol)
        assert result.best_val_loss == pytest.approx(single.best_val_loss, rel=rtol)
        scores, expected = evaluate(model, *tones(100, 50)), evaluate(one, *tones(100, 50))
        assert scores.loss == pytest.approx(expected.loss, rel=rtol)
        assert not model.training and all(p.device.type == "cpu" for p in model.parameters())


def test_many_regressions_at_once() -> None:
    models, data = many(torch.float64, 1)
    alone, _ = many(torch.float64, 1)
    options = {"max_steps": 30, "evaluate_every": 10, "progress": False}
    results = fit_many(models, data, seeds=[0] * 4, **options)
    x, y, x_val, y_val = data[2]
    single = fit(alone[2], x, y, x_val=x_val, y_val=y_val, seed=0, device="cpu", **options)
    assert results[2].history == [pytest.approx(row, rel=1e-9) for row in single.history]
    assert [row["step"] for row in results[0].history] == [10, 20, 30]


def test_what_diverges_leaves_the_others_alone() -> None:
    models, data = many(torch.float64)
    healthy, _ = many(torch.float64)
    with torch.no_grad():
        models[1].decoder.weight.fill_(torch.inf)
    before = models[1].decoder.bias.clone()
    options = {"seeds": [0] * 4, "max_steps": 20, "evaluate_every": 10, "progress": False}
    results, expected = fit_many(models, data, **options), fit_many(healthy, data, **options)
    assert isinstance(results[1], FloatingPointError) and "training diverged" in str(results[1])
    assert torch.equal(models[1].decoder.bias, before)
    for index in (0, 2, 3):
        assert results[index].history == [pytest.approx(row, rel=1e-9) for row in expected[index].history]


def test_bad_arguments_of_many_are_named() -> None:
    models, data = many(torch.float32)
    for changed, error, message in [
        ({"models": []}, ValueError, "models must hold at least one"),
        ({"models": [3, *models[1:]]}, TypeError, "models must be a SequenceModel"),
        ({"models": [make(dropout=0.1), *models[1:]]}, ValueError, "models must be of one architecture"),
        ({"models": [make(3), *models[1:]]}, ValueError, "models must be of one architecture"),
        ({"models": [make(pooling="last"), *models[1:]]}, ValueError, "models must be of one architecture"),
        ({"data": data[:2]}, ValueError, r"data must be as many as models \(4\), got 2"),
        ({"data": [tuple(a[:, :9] if a.ndim == 3 else a for a in data[0]), *data[1:]]}, ValueError, "x must have one"),
        ({"seeds": [1]}, ValueError, "seeds must be as many"),
        ({"lengths": [(None, None)]}, ValueError, "lengths must be as many"),
        ({"lengths": [(np.zeros(40, int), None)] + [(None, None)] * 3}, ValueError, r"lengths must lie in \[1, 48\]"),
        ({"seeds": [0, 1, 2, -1]}, ValueError, "seeds must be at least 0"),
        ({"patience": 0}, ValueError, "patience"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            fit_many(**({"models": models, "data": data, "seeds": [0] * 4, "progress": False} | changed))


def test_small_sets_are_gone_through_more_often() -> None:
    x, y = tones(6, 0)
    result = fit(
        make(),
        x,
        y,
        x_val=x,
        y_val=y,
        max_steps=20,
        evaluate_every=10,
        batch_size=32,
        progress=False,
        device="cpu",
    )
    assert result.history[-1]["step"] == 20


def test_scores_by_hand() -> None:
    model = make()
    x, y = tones(40, 5)
    p = predict(model, x).double().softmax(-1).numpy()
    scores = evaluate(model, x, y)
    assert np.isclose(scores.loss, -np.log(p[np.arange(40), y]).mean())
    assert np.isclose(scores.accuracy, (p.argmax(1) == y).mean())
    confidence, correct = p.max(1), p.argmax(1) == y
    error = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert np.isclose(scores.calibration, error)


def test_divergence_is_said_and_undone() -> None:
    model, before = make(), make().state_dict()
    with pytest.raises(FloatingPointError, match="diverged"):
        run(model, lr=1e30, max_steps=20)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    run(make(), max_steps=20, progress=True)
    assert "2/2" in (shown := capsys.readouterr().err) and "best_val_loss=" in shown
    run(make(), max_steps=20)
    assert capsys.readouterr().err == ""


def padded(n: int, seed: int, fill: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tones, cut to 12 to 48 steps, and ``fill`` behind."""
    x, y = tones(n, seed)
    lengths = np.random.default_rng(seed).integers(12, 49, n)
    x[np.arange(48) >= lengths[:, None]] = fill
    return x, y, lengths


def test_sequences_of_different_lengths() -> None:
    """What the padding holds does not matter; scores are those of every sequence cut and looked at alone."""
    models = []
    for fill in (np.nan, 1e9):
        model = make()
        (x, y, lengths), (x_val, y_val, lengths_val) = padded(64, 0, fill), padded(32, 1, fill)
        options = {"max_steps": 150, "lr": 0.02, "progress": False, "device": "cpu"}
        result = fit(model, x, y, x_val=x_val, y_val=y_val, lengths=lengths, lengths_val=lengths_val, **options)
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))
    x, y, lengths = padded(100, 2, np.nan)
    scores = evaluate(model, x, y, lengths=lengths)
    with torch.no_grad():
        alone = [model(torch.tensor(x[i : i + 1, :end], dtype=torch.float32)) for i, end in enumerate(lengths)]
    logits = torch.cat(alone)
    assert scores.accuracy == float((logits.argmax(1) == torch.tensor(y)).float().mean()) > 0.9
    assert np.isclose(
        scores.loss, float(torch.nn.functional.cross_entropy(logits.double(), torch.tensor(y))), rtol=1e-4
    )
    torch.testing.assert_close(predict(model, x, lengths=lengths, batch_size=7), logits, rtol=1e-3, atol=1e-4)
    assert np.isclose(evaluate(model, x_val, y_val, lengths=lengths_val).loss, result.best_val_loss, atol=1e-6)


def test_padding_changes_nothing() -> None:
    """Sequences of one length, with and without padding behind; lengths in any kind of integers, or a tensor."""
    model, other = make().double(), make().double()
    x, y = tones(64, 0)
    longer = np.concatenate([x, np.full((64, 5, 1), np.nan)], axis=1)
    options = {"y_val": y, "max_steps": 30, "progress": False, "device": "cpu"}
    lengths = {"lengths": np.full(64, 48, np.uint16), "lengths_val": torch.full((64,), 48)}
    ours = fit(model, longer, y, x_val=longer, **lengths, **options)
    theirs = fit(other, x, y, x_val=x, **options)
    assert ours.history == [pytest.approx(row, rel=1e-9) for row in theirs.history]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padded_sequences_of_many_models(pooling: str) -> None:
    """As each alone, also beside one whose sequences are whole."""
    sets = [padded(40, 0, np.nan), (*tones(50, 2), None), padded(30, 4, 1e9)]
    val_sets = [padded(20, 1, np.nan), padded(70, 3, np.nan), (*tones(20, 5), None)]
    options = {"max_steps": 30, "evaluate_every": 10, "progress": False}
    models, alone = ([make(seed=seed, pooling=pooling).double() for seed in range(3)] for _ in range(2))
    data = [(x, y, x_val, y_val) for (x, y, _), (x_val, y_val, _) in zip(sets, val_sets, strict=True)]
    lengths = [(ends, ends_val) for (*_, ends), (*_, ends_val) in zip(sets, val_sets, strict=True)]
    results = fit_many(models, data, seeds=[0, 1, 2], lengths=lengths, **options)
    for seed, (model, (x, y, x_val, y_val), (ends, ends_val)) in enumerate(zip(alone, data, lengths, strict=True)):
        validation = {"x_val": x_val, "y_val": y_val, "lengths_val": ends_val}
        single = fit(model, x, y, lengths=ends, **validation, seed=seed, device="cpu", **options)
        assert results[seed].history == [pytest.approx(row, rel=1e-9) for row in single.history]


def test_dropout_of_many_models() -> None:
    """They learn, repeat themselves, leave the global generator alone, and are scored without dropout."""
    x, y = tones(64, 0)
    x_val, y_val = tones(32, 1)
    options = {"seeds": [3, 3], "max_steps": 60, "evaluate_every": 10, "lr": 0.02, "progress": False}
    runs = []
    for _ in range(2):
        models, before = [make(dropout=0.3), make(dropout=0.3)], torch.get_rng_state()
        results = fit_many(models, [(x, y, x_val, y_val)] * 2, **options)
        assert torch.equal(before, torch.get_rng_state())
        runs.append([result.history for result in results])
        for model, result in zip(models, results, strict=True):
            assert np.isclose(evaluate(model, x_val, y_val).loss, result.best_val_loss, rtol=1e-5)
    assert runs[0] == runs[1] and runs[0][0] != runs[0][1]  # every model has its own
    assert runs[0][0][-1]["train_loss"] < 0.8 * runs[0][0][0]["train_loss"]


X, Y = tones(8, 0)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"x": X[:, :, 0]}, ValueError, "x must be sequences"),
        ({"x": X * np.nan}, ValueError, "x must be finite"),
        ({"x": np.repeat(X, 2, axis=2)}, ValueError, "x must have 1 channels"),
        ({"y": Y[:4]}, ValueError, "y must hold one target"),
        ({"y": Y + 1}, ValueError, "y must be class labels"),
        ({"y": Y - 1}, ValueError, "y must be class labels"),
        ({"y": Y * 1j}, TypeError, "y must be real"),
        ({"y": np.stack([Y, Y], 1)}, ValueError, r"y must be one class label per sequence \(P,\)"),
        ({"y": np.stack([Y, Y, Y], 1) / 2.0}, ValueError, "y must have the shape of the model's output"),
        ({"model": make(pooling="none")}, ValueError, r"y must be one class label .* pooling 'none'"),
        ({"model": make(pooling="none"), "y": Y / 2.0}, ValueError, "y must have the shape of the model's output"),
        ({"x_val": X[:, :, 0]}, ValueError, "x_val must be"),
        ({"x": X * np.nan, "lengths": np.full(8, 48)}, ValueError, "x must be finite"),
        ({"lengths": np.full(7, 48)}, ValueError, r"lengths must be 8 integers.* of x, got int64 \(7,\)"),
        ({"lengths": ["a"] * 8}, ValueError, "lengths must be 8 integers"),
        ({"lengths": [[1], [1, 2]]}, ValueError, "lengths must be 8 integers, got a ragged"),
        ({"lengths": np.full(8, True)}, ValueError, "lengths must be 8 integers, .* got bool"),
        ({"lengths": np.full(8, 48.0)}, ValueError, "lengths must be 8 integers, .* got float64"),
        ({"lengths": np.arange(8)}, ValueError, r"lengths must lie in \[1, 48\], got \[0, 7\]"),
        ({"lengths_val": np.arange(42, 50)}, ValueError, r"lengths_val must lie in \[1, 48\], got \[42, 49\]"),
        (
            {"model": make(pooling="none"), "y": np.zeros((8, 48, 2)), "lengths": np.full(8, 48)},
            ValueError,
            "lengths must be left out for a model without pooling",
        ),
        ({"y_val": Y[:4]}, ValueError, "y_val must hold"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"patience": 1.5}, TypeError, "patience"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"seed": -1}, ValueError, "seed"),
        ({"model": torch.nn.Linear(1, 1)}, TypeError, "model"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], name: str) -> None:
    good = {"model": make(), "x": X, "y": Y, "x_val": X, "y_val": Y, "progress": False}
    with pytest.raises(error, match=f"^{name}"):
        fit(**(good | options))


def test_scores_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluate(make(), X, Y).loss = 0.0  # type: ignore[misc]

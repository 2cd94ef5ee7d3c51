"""The layer and the stack: shapes, causality, masks, parameter groups, bad input."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.ssm import S4DLayer, SequenceModel


def make(seed: int = 0, **options) -> SequenceModel:
    options = {"d_model": 8, "d_state": 8, "n_layers": 2} | options
    return SequenceModel(2, 3, generator=torch.Generator().manual_seed(seed), **options).double()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("pooling", "shape"), [("mean", (4, 3)), ("last", (4, 3)), ("none", (4, 20, 3))])
@pytest.mark.parametrize("input_skip", [True, False])
def test_shapes_and_gradients(pooling: str, shape: tuple[int, ...], input_skip: bool) -> None:
    model = make(pooling=pooling, input_skip=input_skip)
    output = model(randn(4, 20, 2))
    assert output.shape == shape
    output.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_layer_is_its_definition() -> None:
    """Against the recurrence, step by step, and the gate written out."""
    layer = S4DLayer(4, 6, generator=torch.Generator().manual_seed(0)).double()
    x = randn(2, 15, 4)
    state, steps = layer.ssm.initial_state(2), []
    for t in range(15):
        state, y = layer.ssm.step(state, x[:, t])
        steps.append(y)
    y = torch.nn.functional.gelu(torch.stack(steps, dim=1) + layer.D * x)
    value, gate = (y @ layer.mix.weight.T + layer.mix.bias).split(4, dim=-1)
    assert torch.allclose(layer(x), value / (1 + torch.exp(-gate)))


def test_causal() -> None:
    model = make(pooling="none")
    x = randn(1, 30, 2)
    changed = x.clone()
    changed[:, 17:] += 1
    a, b = model(x), model(changed)
    assert torch.allclose(a[:, :17], b[:, :17]) and not torch.allclose(a[:, 17:], b[:, 17:])


@given(lengths=st.lists(st.integers(1, 25), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_padding_has_no_influence(lengths: list[int]) -> None:
    x = randn(len(lengths), 25, 2)
    padded = x.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = float("nan")
    for pooling in ("mean", "last"):
        model = make(pooling=pooling)
        together = model(padded, lengths=torch.tensor(lengths))
        alone = torch.cat([model(x[i : i + 1, :n]) for i, n in enumerate(lengths)])
        assert torch.allclose(together, alone)


def test_first_layer_filters_the_data_itself() -> None:
    """No norm before the first filter: its output is linear in the input."""
    model = make()
    seen = []
    model.layers[0].ssm.register_forward_hook(lambda _m, _i, out: seen.append(out))
    model.encoder.bias.data.zero_()
    x = randn(2, 20, 2)
    model(x)
    model(3 * x)
    assert torch.allclose(3 * seen[0], seen[1])


def test_without_input_skip_only_the_filter_speaks() -> None:
    """Silence the first filter's mixing: without the skip the input is gone."""
    for input_skip in (True, False):
        model = make(input_skip=input_skip)
        model.layers[0].mix.weight.data.zero_()
        a, b = model(randn(1, 20, 2, seed=1)), model(randn(1, 20, 2, seed=2))
        assert torch.allclose(a, b) != input_skip


def test_parameter_groups_partition_and_rates() -> None:
    model = make()
    groups = model.parameter_groups(1e-2, ssm_lr=1e-3, weight_decay=0.05)
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    names = {id(p): n for n, p in model.named_parameters()}
    for group in groups:
        kinds = {names[id(p)].rsplit(".", 1)[-1] for p in group["params"]}
        if "log_dt" in kinds:
            assert kinds == {"log_dt", "log_A_real", "A_imag"}
            assert group["lr"] == 1e-3 and group["weight_decay"] == 0
        elif group["weight_decay"]:
            assert kinds == {"weight"} and all(p.ndim == 2 for p in group["params"])
    assert model.parameter_groups(1e-4)[2]["lr"] == 1e-4  # never above lr
    torch.optim.AdamW(groups).step()


def test_generator_decides_every_parameter() -> None:
    first = make().state_dict()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second = make().state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone


def test_dropout_only_in_training() -> None:
    model = make(dropout=0.5)
    x = randn(2, 20, 2)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"d_model": 0}, ValueError, "d_model"),
        ({"d_state": 3}, ValueError, "d_state"),
        ({"n_layers": 0}, ValueError, "n_layers"),
        ({"n_layers": 1.5}, TypeError, "n_layers"),
        ({"dropout": 1.5}, ValueError, "dropout"),
        ({"pooling": "max"}, ValueError, "pooling"),
        ({"init": "linear"}, ValueError, "init"),
        ({"dt_min": -1.0}, ValueError, "dt_min"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        make(**options)


@pytest.mark.parametrize(
    ("x", "lengths", "name"),
    [
        (torch.zeros(2, 5), None, "x"),
        (torch.zeros(2, 5, 3), None, "x"),
        (randn(2, 5, 2), torch.tensor([5]), "lengths"),
        (randn(2, 5, 2), torch.tensor([0, 5]), "lengths"),
        (randn(2, 5, 2), torch.tensor([6, 5]), "lengths"),
        (randn(2, 5, 2), torch.tensor([1.0, 5.0]), "lengths"),
    ],
)
def test_bad_calls_are_named(x, lengths, name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name}"):
        make()(x, lengths)


BAD_CALLS = """
import numpy as np, torch
from tdi_lib.ssm import S4DLayer, SequenceModel
from tdi_lib.ssm import DiagonalSSM, causal_convolution
ssm, layer, model = DiagonalSSM(3, 4), S4DLayer(3, 4), SequenceModel(2, 3, d_model=4, d_state=4)
z = torch.zeros
cases = [
    (lambda: ssm(z(2, 3)), "u"),
    (lambda: ssm(z(2, 1, 9)), "u"),
    (lambda: ssm(z(2, 3, 0)), "u"),
    (lambda: ssm(z(2, 3, 9, dtype=torch.complex64)), "u"),
    (lambda: ssm(np.zeros((2, 3, 9))), "u"),
    (lambda: ssm.step(ssm.initial_state(2), z(2, 4)), "input"),
    (lambda: ssm.step(ssm.initial_state(1), z(2, 3)), "state"),
    (lambda: ssm.initial_state(0), "batch"),
    (lambda: causal_convolution(z(9), z(8)), "kernel"),
    (lambda: layer(z(2, 9, 4)), "x"),
    (lambda: model(z(2, 9)), "x"),
    (lambda: model(z(2, 9, 3)), "x"),
    (lambda: model(z(2, 9, 2, dtype=torch.int64)), "x"),
    (lambda: model([[1.0]]), "x"),
]
for call, name in cases:
    try:
        call()
    except (TypeError, ValueError) as error:
        assert str(error).startswith(name + " must"), (name, error)
        assert "jaxtyping" not in type(error).__module__
    else:
        raise AssertionError(name)
print(len(cases), "refused")
"""


def test_bad_tensors_are_named_outside_pytest_too() -> None:
    """In a process of its own, without the run-time check of shapes: the library's own errors."""
    done = subprocess.run([sys.executable, "-c", BAD_CALLS], capture_output=True, text=True, check=False)
    assert done.stdout == "14 refused\n", done.stderr

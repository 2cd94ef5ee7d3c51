"""The layer and the stack: shapes, causality, masks, parameter groups, bad input."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.ssm import DiagonalSSM, S4DLayer, SequenceModel, causal_convolution


def make(seed: int = 0, **options) -> SequenceModel:
    options = {"d_model": 8, "d_state": 8, "n_layers": 2} | options
    return SequenceModel(2, 3, generator=torch.Generator().manual_seed(seed), **options).double()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("pooling", "shape"), [("mean", (4, 3)), ("last", (4, 3)), ("none", (4, 20, 3)), ("statistics", (4, 3))]
)
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
    for pooling in ("mean", "last", "statistics"):
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


@pytest.mark.parametrize("input_skip", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
def test_default_model_is_drawn_and_computed_as_ever(pooling: str, input_skip: bool) -> None:
    """To the last bit, for recorded results hang on it: the order of all draws, and every operation, written out."""
    made, draw = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    options = {"pooling": pooling, "input_skip": input_skip, "generator": made}
    model = SequenceModel(2, 3, d_model=8, d_state=8, n_layers=2, **options)
    expected = {}

    def linear(name: str, d_in: int, d_out: int) -> None:
        for kind, shape in (("weight", (d_out, d_in)), ("bias", (d_out,))):
            expected[f"{name}.{kind}"] = torch.empty(shape).uniform_(-(d_in**-0.5), d_in**-0.5, generator=draw)

    linear("encoder", 2, 8)
    for layer in ("layers.0", "layers.1"):
        ssm = DiagonalSSM(8, 8, generator=draw)
        expected |= {f"{layer}.ssm.{name}": value for name, value in ssm.state_dict().items()}
        if input_skip or layer == "layers.1":
            expected[f"{layer}.D"] = torch.randn(8, generator=draw)
        linear(f"{layer}.mix", 8, 16)
    for norm in ("norms.0", "norms.1"):
        expected |= {f"{norm}.weight": torch.ones(8), f"{norm}.bias": torch.zeros(8)}
    linear("decoder", 8, 3)
    state = model.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    assert torch.equal(made.get_state(), draw.get_state())

    def affine(name: str, h: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(h, expected[f"{name}.weight"], expected[f"{name}.bias"])

    def norm(name: str, h: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(h, (8,), expected[f"{name}.weight"], expected[f"{name}.bias"])

    x, lengths = randn(4, 20, 2).float(), torch.tensor([20, 1, 7, 19])
    for ends in (None, lengths):
        inside = torch.ones(4, 20, dtype=torch.bool) if ends is None else torch.arange(20) < ends[:, None]
        h = affine("encoder", x.masked_fill(~inside[:, :, None], 0.0))
        for index, layer in enumerate(model.layers):
            entering = h if index == 0 else norm("norms.0", h)
            y = causal_convolution(entering.mT, layer.ssm.kernel(20)).mT.contiguous()
            y = y + layer.D * entering if layer.D is not None else y
            y = torch.nn.functional.glu(affine(f"layers.{index}.mix", torch.nn.functional.gelu(y)), dim=-1)
            h = h + y if index > 0 or input_skip else y
        h = norm("norms.1", h)
        if pooling == "mean":
            h = h.mean(dim=1) if ends is None else (h * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True)
        elif pooling == "last":
            h = h[torch.arange(4), -1 if ends is None else ends - 1]
        assert torch.equal(model(x, ends), affine("decoder", h))


def test_with_statistics_the_model_is_a_bank_of_filters() -> None:
    """One layer: each filter hears some input channels, with no constant; nothing else stands before the pooling."""
    model = make(pooling="statistics", n_layers=1, d_model=64)
    heard = (model.encoder.weight != 0).sum(dim=1)
    assert heard.min() == 1 and heard.max() == 2 and not model.encoder.bias.any()
    names = {name for name, _ in model.named_parameters()}
    ssm = {f"layers.0.ssm.{name}" for name, _ in model.ssms[0].named_parameters()}
    assert names == ssm | {f"{module}.{kind}" for module in ("encoder", "decoder") for kind in ("weight", "bias")}
    x = randn(3, 20, 2)
    filtered = model.ssms[0](model.encoder(x).mT).mT
    assert torch.allclose(model(x), model.decoder(model.statistics(filtered)))


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

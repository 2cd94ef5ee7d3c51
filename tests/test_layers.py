"""A layer that cannot take the match is refused by name, and whatever goes wrong leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tdi_lib import SequenceModel, tdi_init_
from tdi_lib.data.synthetic import four_tones
from tdi_lib.filters import adapt, find_ssms
from tdi_lib.readout import ridge_readout_
from tdi_lib.tdi import spectral_loss
from tdi_lib.training import fit

X, Y = four_tones(40, amplitude=0.5, generator=np.random.default_rng(0), length=32)


def model(n_layers: int = 2) -> SequenceModel:
    return SequenceModel(1, 4, d_model=4, d_state=4, n_layers=n_layers, generator=torch.Generator().manual_seed(0))


class S4DKernel(nn.Module):
    def __init__(self, n_pairs: int = 4, **more: nn.Parameter) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.log_dt = nn.Parameter(torch.linspace(-5, -2, 4))
        self.log_A_real = nn.Parameter(torch.full((4, n_pairs), -0.7))
        self.A_imag = nn.Parameter(3.0 * torch.arange(n_pairs).repeat(4, 1))
        self.C = nn.Parameter(torch.randn(4, n_pairs, 2, generator=generator))
        for name, value in more.items():
            setattr(self, name, value)


def poisoned(where: str) -> nn.Module:
    net = model()
    with torch.no_grad():
        net.get_parameter(where)[0] = torch.nan
    return net


def shared() -> nn.Module:
    net = model()
    net.layers[1].ssm.A_imag = net.layers[0].ssm.A_imag
    return net


def viewed() -> nn.Module:
    net = model()
    net.layers[1].ssm.log_dt = nn.Parameter(net.layers[0].ssm.log_dt.data[:])  # another tensor, the same memory
    return net


def parametrized(net: nn.Module, module: nn.Module, name: str) -> nn.Module:
    parametrizations.weight_norm(module, name)
    return net


def ours() -> nn.Module:
    net = model()
    return parametrized(net, net.layers[0].ssm, "A_imag")


def theirs() -> nn.Module:
    net = S4DKernel()
    return parametrized(net, net, "C")


@pytest.mark.parametrize(
    ("make", "layers", "message"),
    [
        (ours, "first", "model must hold plain parameters in 'layers.0.ssm', got A_imag parametrized"),
        (theirs, "first", "model must hold plain parameters in 'model', got C parametrized"),
        (shared, "all", "'layers.0.ssm' and 'layers.1.ssm' share A_imag"),
        (viewed, "composite", "'layers.0.ssm' and 'layers.1.ssm' share log_dt"),
        (lambda: poisoned("layers.0.ssm.log_dt"), "first", "NaN or infinite ones in layers.0.ssm.log_dt"),
        (lambda: poisoned("layers.1.ssm.C_real_imag"), "all", "NaN or infinite ones in layers.1.ssm.C_real_imag"),
        (lambda: model().bfloat16(), "first", "must be of float32 or float64 in 'layers.0.ssm', got torch.bfloat16"),
        (lambda: model().to("meta"), "first", "got layers.0.ssm.log_dt on the meta device"),
        (lambda: S4DKernel(B=nn.Parameter(torch.ones(4))), "first", "and no B"),
        (lambda: nn.Sequential(S4DKernel(), S4DKernel(B=nn.Parameter(torch.ones(4)))), "all", "and no B"),
    ],
)
def test_a_layer_that_cannot_be_matched_is_named_and_nothing_is_changed(make, layers: str, message: str) -> None:
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        tdi_init_(net, X, Y, layers=layers)
    if not any(value.is_meta for value in before.values()):
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_layer_that_nobody_asked_for_blocks_nothing() -> None:
    good, odd = S4DKernel(), S4DKernel(B=nn.Parameter(torch.ones(4)))
    net = nn.Sequential(good, odd)
    report = tdi_init_(net, X, Y)
    assert report.layer == "0" and report.loss_after < report.loss_before
    assert report.loss_after == pytest.approx(spectral_loss(adapt(good), report.spectrum))
    with pytest.raises(ValueError, match="and no B"):
        find_ssms(net)
    first = poisoned("layers.1.ssm.log_dt")
    report = tdi_init_(first, X, Y, layers="1")
    assert report.loss_after < report.loss_before


@pytest.mark.parametrize("layers", ["all", "each", "composite"])
def test_what_fails_halfway_leaves_all_as_it_was(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = model(3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    last = net.layers[2].ssm
    original = type(last).set_log_poles_

    def fail(self, *values) -> None:
        original(self, *values)
        if self is last:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(type(last), "set_log_poles_", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        tdi_init_(net, X, Y, layers=layers)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_the_report_says_is_what_the_layers_do() -> None:
    net = model()
    report = tdi_init_(net, X, Y, layers="all", generator=torch.Generator().manual_seed(0))
    assert report.loss_after == pytest.approx(spectral_loss(net.layers[0].ssm, report.spectrum))


def test_a_model_that_is_wrapped_is_named_and_one_of_low_precision_inputs_is_read() -> None:
    wrapped = nn.DataParallel(model())
    sets = {"x_val": X[:, :, None], "y_val": Y}
    with pytest.raises(TypeError, match=r"got DataParallel: pass what it wraps, model\.module"):
        fit(wrapped, X[:, :, None], Y, **sets)
    with pytest.raises(ValueError, match="decoder must name one of the model's linear layers"):
        ridge_readout_(wrapped, X[:, :, None], Y)
    assert tdi_init_(wrapped, X, Y).layer == "module.layers.0.ssm"
    coarse = torch.as_tensor(X).bfloat16()
    exact = tdi_init_(model(), coarse.double(), Y, generator=torch.Generator().manual_seed(0))
    assert tdi_init_(model(), coarse, Y, generator=torch.Generator().manual_seed(0)).loss_after == exact.loss_after

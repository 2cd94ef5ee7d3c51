"""The closed-form study: one untrained layer, its ridge, its row."""

import dataclasses
import itertools
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch

from tdi_lib.data import sets
from tdi_lib.readout import ridge_readout_
from tdi_lib.study import closed_form
from tdi_lib.study.analysis import choose_rows
from tdi_lib.study.closed_form import LogBands, run_closed_form
from tdi_lib.study.plans import CLOSED_FORM_NAMES, CLOSED_FORM_SIZES, DEVELOPMENT, UNTRAINED, Trial
from tdi_lib.study.sweep import run_config

TRIAL = Trial("tones-25", 60, 0, "flat-0.05", d_model=16, d_state=8, n_layers=1, max_steps=0, readout="ridge")


def toy(groups: np.ndarray | None = None) -> sets.SequenceDataset:
    """Two tones of random phase in noise."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    phase = 2 * np.pi * rng.random((120, 1))
    x = np.sin(np.where(y, 1.0, 1.3)[:, None] * np.arange(64) + phase) + 0.5 * rng.normal(size=(120, 64))
    x = x[:, :, None].astype(np.float32)
    return sets.SequenceDataset("toy", x[:80], y[:80], x[80:], y[80:], ("a", "b"), "CC0", "none", "made up", groups)


@pytest.fixture
def on_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "load_set", lambda name: toy())


def test_log_bands_are_means_of_the_periodogram() -> None:
    x = np.random.default_rng(0).normal(size=(3, 41, 2))
    model = LogBands(2, 2, 41, n_bands=5).double()
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(torch.as_tensor(x))
    power = np.abs(np.fft.rfft(x, axis=1)) ** 2 / 41
    edges = [int((row > 0).nonzero()[0]) for row in model.member] + [21]
    assert edges[0] == 1  # the mean is no band
    assert len(edges) == 6
    expected = [np.log(power[:, low:high].mean(axis=1) + 1e-6) for low, high in itertools.pairwise(edges)]
    np.testing.assert_allclose(seen[0].numpy().reshape(3, 5, 2), np.stack(expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("length", [9, 10, 64, 2000])
def test_log_bands_cover_every_line_once(length: int) -> None:
    member = LogBands(1, 2, length).member
    assert ((member > 0).sum(dim=0) == torch.tensor([0] + [1] * (length // 2))).all()
    assert (member > 0).any(dim=1).all()


@pytest.mark.usefixtures("on_toy")
@pytest.mark.parametrize("init", UNTRAINED)
def test_every_start_has_a_row(init: str) -> None:
    row = run_closed_form(dataclasses.replace(TRIAL, init=init))
    assert row["loss"] < 0.69 and 0.5 < row["accuracy"] <= 1
    assert (row["crossed"] is None) == (init not in {"tdi", "cross", "scalogram"})
    assert all(np.isfinite(row[name]) for name in ("left_out", "evidence", "ridge", "calibration"))


@pytest.mark.usefixtures("on_toy")
def test_the_same_row_twice_and_by_the_study() -> None:
    first, again = run_closed_form(TRIAL), run_config(dataclasses.asdict(TRIAL))
    assert again["loss"] == first["loss"] and again["left_out"] == first["left_out"]


@pytest.mark.parametrize("change", [{"readout": "gradient"}, {"max_steps": 10}, {"n_layers": 2}, {"init": "half"}])
def test_what_it_refuses(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="trial"):
        run_closed_form(dataclasses.replace(TRIAL, **change))


def test_crossed_scores_see_no_label_of_the_fold() -> None:
    """With labels that mean nothing, filters made of the labels look good to themselves and not when crossed."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 20, 1)), rng.integers(0, 2, 60)

    def build(x_seen: np.ndarray, y_seen: np.ndarray, lengths: np.ndarray | None) -> torch.nn.Module:
        parts = {"flat": torch.nn.Flatten(), "filters": torch.nn.Linear(20, 8), "bend": torch.nn.Tanh()}
        model = torch.nn.Sequential(OrderedDict(parts | {"decoder": torch.nn.Linear(8, 2)}))
        direction = (x_seen[y_seen == 1].mean(axis=0) - x_seen[y_seen == 0].mean(axis=0))[:, 0]
        with torch.no_grad():
            model.filters.weight.copy_(torch.as_tensor(np.tile(direction, (8, 1)) * np.arange(1, 9)[:, None]))
        return model

    own = ridge_readout_(build(x, y, None), x, y).loss
    crossed = closed_form._crossed(build, x, y, None, None, 0)
    assert own < 0.62
    assert crossed > 0.68


def test_groups_are_left_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six copies of every sample are told apart by their copies, unless copies leave together."""
    data = toy()
    rng = np.random.default_rng(0)
    copies, labels = np.tile(np.arange(13), 6), rng.integers(0, 2, 13)
    labels[:2] = 0, 1
    x = data.x_train[copies] + 1e-3 * rng.normal(size=(78, 64, 1)).astype(np.float32)
    fields = {"x_train": x, "y_train": labels[copies]}
    told = {}
    for name, groups in (("alone", None), ("together", copies)):
        known = dataclasses.replace(data, groups=groups, **fields)
        monkeypatch.setattr(closed_form, "load_set", lambda _, known=known: known)
        told[name] = run_closed_form(dataclasses.replace(TRIAL, n=70))["left_out"]
    assert told["alone"] < 0.3 < 0.6 < told["together"]


def test_sequences_too_short_for_a_spectrum_are_read_out_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy()
    x = data.x_train.copy()
    x[::8, 5:] = np.nan
    monkeypatch.setattr(closed_form, "load_set", lambda _: dataclasses.replace(data, x_train=x))
    assert np.isfinite(run_closed_form(dataclasses.replace(TRIAL, init="tdi"))["crossed"])


def test_choice_of_rows() -> None:
    cell = {"dataset": "forda", "n": 50, "seed": 0}
    rows = [("lin", 0.5, None), ("flat", 0.46, None), ("tdi", 0.1, 0.47)]
    runs = pd.DataFrame([cell | {"init": init, "left_out": own, "crossed": crossed} for init, own, crossed in rows])
    names = [init for init, *_ in rows]
    assert choose_rows(runs, names).init.tolist() == ["flat"]  # what the matched bank says of itself does not count
    assert choose_rows(runs, names, margin=0.05).init.tolist() == ["lin"]
    with pytest.raises(ValueError, match="every candidate"):
        choose_rows(runs[:2], names)


def test_tables_agree() -> None:
    assert CLOSED_FORM_NAMES.keys() == CLOSED_FORM_SIZES.keys() > set(DEVELOPMENT)
    assert CLOSED_FORM_SIZES.keys() <= set(sets.available())
